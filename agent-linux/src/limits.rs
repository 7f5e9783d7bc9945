//! The text of `--limits`: what the agent holds at most, and what happens beyond. The figures are the constants
//! themselves; the text is made while the agent is compiled.

#![allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]

use core::str;

use agent_core::limits;
use agent_core::packed;
use agent_core::packed::unpack_to;

use crate::guest::{exec, files, job};
use crate::memory::{CHANNELS, CONFIG, INPUT};

/// What is bounded by which figure; behind the semicolon, what happens beyond.
const LIMITS: &[(usize, &str)] = &[
    (CHANNELS, "channels; more are refused at the start"),
    (INPUT, "bytes read from a channel at once; more wait in the kernel"),
    (limits::REQUEST_BYTES, "bytes of a request (--max-request); a longer one is refused"),
    (limits::DEPTH, "open brackets in a request; a deeper one is refused"),
    (limits::REPLY_BYTES, "bytes of replies; more go to a file in memory, up to 1/8 of all"),
    (files::FILES, "open files; more are refused"),
    (exec::CAPACITY, "programs; the one that ended first is forgotten"),
    (exec::STREAM_BYTES as usize, "bytes that a program prints, a stream; more are dropped"),
    (job::CAPACITY, "other slow commands at once; more are refused"),
    (CONFIG, "bytes of configuration; more are refused at the start"),
];

/// What stands above them.
const HEADING: &str = "At most, and only while it is needed:\n\n";

/// Digits of a figure, and the blank behind it.
const COLUMN: usize = 9;

const LEN: usize = {
    let mut len = HEADING.len();
    let mut row = 0;
    while row < LIMITS.len() {
        len += COLUMN + LIMITS[row].1.len() + 1;
        row += 1;
    }
    len
};

const PLAIN: &str = match str::from_utf8(&TEXT) {
    Ok(text) => text,
    Err(_) => "",
};

const TEXT: [u8; LEN] = {
    let mut text = [b' '; LEN];
    let mut at = copy(HEADING, &mut text, 0);
    let mut row = 0;
    while row < LIMITS.len() {
        let (figure, line) = LIMITS[row];
        let mut digit = at + COLUMN - 2;
        let mut rest = figure;
        while rest > 0 {
            text[digit] = b'0' + (rest % 10) as u8;
            rest /= 10;
            digit -= 1;
        }
        at = copy(line, &mut text, at + COLUMN);
        text[at] = b'\n';
        at += 1;
        row += 1;
    }
    text
};

/// Copies a text to a place; where that ends.
const fn copy(from: &str, to: &mut [u8; LEN], at: usize) -> usize {
    let mut next = 0;
    while next < from.len() {
        to[at + next] = from.as_bytes()[next];
        next += 1;
    }
    at + next
}

/// Tells the text.
pub fn print(out: &mut dyn FnMut(&[u8])) {
    let mut space = [0; LEN];
    out(unpack_to(packed!(PLAIN), &mut space));
}
