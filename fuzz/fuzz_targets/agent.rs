//! The whole agent over a guest that is not there: any bytes, however cut, are answered in whole lines.
#![no_main]

#[path = "../../agent-core/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::claims::agent_answers_any_bytes(input));
