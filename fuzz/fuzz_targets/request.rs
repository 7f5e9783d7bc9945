//! The request reader and the checks in their order, against a model that reads with serde_json.
#![no_main]

#[path = "../../agent-core/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::claims::requests_are_answered_as_the_model_says(input));
