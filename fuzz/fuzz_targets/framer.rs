//! The framer against serde_json: what is JSON, and what it says.
#![no_main]

#[path = "../../agent-core/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::claims::framer_agrees_with_serde_json(input));
