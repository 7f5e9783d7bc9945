//! The text of `--limits`: what the agent holds at most, and what happens beyond. The figures are the constants
//! themselves.

use agent_core::limits;
use agent_core::packed;
use agent_core::packed::unpack;

use crate::guest::{exec, files, job};
use crate::memory::{CHANNELS, CONFIG, INPUT};
use crate::text::decimal;

/// What is bounded by which figure; behind the semicolon, what happens beyond.
const LIMITS: &[(u64, &[u8])] = &[
    (count(CHANNELS), packed!(" channels; more are refused at the start\n")),
    (count(INPUT), packed!(" bytes read from a channel at once; more wait in the kernel\n")),
    (count(limits::REQUEST_BYTES), packed!(" bytes of a request (--max-request); a longer one is refused\n")),
    (count(limits::DEPTH), packed!(" open brackets in a request; a deeper one is refused\n")),
    (count(limits::REPLY_BYTES), packed!(" bytes of replies; more go to a file in memory, up to 1/8 of it\n")),
    (count(files::FILES), packed!(" open files; more are refused\n")),
    (count(exec::CAPACITY), packed!(" programs; the one that ended first is forgotten\n")),
    (exec::STREAM_BYTES, packed!(" bytes that a program prints, a stream; more are dropped\n")),
    (count(job::CAPACITY), packed!(" other slow commands at once; more are refused\n")),
    (count(CONFIG), packed!(" bytes of configuration; more are refused at the start\n")),
];

#[allow(clippy::as_conversions, reason = "no size has more than 64 bits, and this is evaluated by the compiler")]
const fn count(number: usize) -> u64 {
    number as u64
}

/// Tells the text, piece by piece.
pub fn print(out: &mut dyn FnMut(&[u8])) {
    out(b"At most, and only while it is needed:\n\n");
    for (bound, text) in LIMITS {
        let mut space = [0; 20];
        let digits = decimal(*bound, 1, &mut space);
        out(b"        ".get(digits.len()..).unwrap_or_default());
        out(digits);
        let mut line = [0; 80];
        let mut len = 0usize;
        for (place, byte) in line.iter_mut().zip(unpack(text)) {
            *place = byte;
            len = len.wrapping_add(1);
        }
        out(line.get(..len).unwrap_or_default());
    }
}
