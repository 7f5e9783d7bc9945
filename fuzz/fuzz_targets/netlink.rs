//! The readers of rtnetlink: any bytes come to an end, and nothing outside of them is read.
#![no_main]

#[path = "../../agent-linux/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| support::claims::netlink_readers_are_total(input));
