//! The text of `--limits`: what the agent holds at most, and what happens beyond. The figures are the constants
//! themselves.

use agent_core::limits;

use crate::guest::job;
use crate::memory::{CHANNELS, CONFIG, INPUT};
use crate::text::decimal;

/// A bound and what it bounds; behind the semicolon, what happens beyond.
const LIMITS: &[(usize, &str)] = &[
    (CHANNELS, "channels; more are refused at the start"),
    (INPUT, "bytes read from a channel at once; more wait in the kernel"),
    (limits::REQUEST_BYTES, "bytes of a request (--max-request), a channel; a longer one is refused with an error"),
    (limits::DEPTH, "brackets open in a request; a deeper one is refused"),
    (limits::REPLY_BYTES, "bytes of replies, a channel; more go to a file in memory"),
    (8, "th part of the guest's memory for that file (1 MiB at least); a longer reply becomes an error"),
    (job::CAPACITY, "slow commands at a time; more are refused with an error"),
    (CONFIG, "bytes of the configuration file; a longer one is refused at the start"),
];

/// Tells the text, piece by piece.
pub fn print(out: &mut dyn FnMut(&[u8])) {
    out(b"At most, and only while it is needed:\n\n");
    for (bound, text) in LIMITS {
        let mut space = [0; 20];
        let digits = decimal(u64::try_from(*bound).unwrap_or(u64::MAX), 1, &mut space);
        out(b"        ".get(digits.len()..).unwrap_or_default());
        out(digits);
        out(b" ");
        out(text.as_bytes());
        out(b"\n");
    }
}
