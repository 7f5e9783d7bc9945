//! The readers of zone files, of their rules and of os-release: any bytes come to an end, and nothing outside of them
//! is read.
#![no_main]

#[path = "../../agent-linux/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::claims::text_readers_are_total(input));
