//! Lines for whoever runs the agent: on standard error, or in a file that took its place.
//!
//! Each is written at once, so that lines of several processes do not mix. What is shown of a host's words can neither
//! end a line nor make a terminal do anything.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

use agent_core::error::errno_text;
use agent_core::guest::Errno;
use agent_core::packed::unpack;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::stdio::dup2_stderr;

use crate::options::FULL;
use crate::sys;
use crate::text::decimal;

/// Bytes of a line; what is longer is cut.
const LINE: usize = 512;

/// The levels, as GLib names them.
pub const WARNING: &[u8] = b"warning";
/// Nothing is wrong, but somebody may want to know.
pub const INFO: &[u8] = b"info";

static MUTED: AtomicBool = AtomicBool::new(false);
static IN_FILE: AtomicBool = AtomicBool::new(false);

/// Says nothing from now on, or speaks again: while file systems are frozen a line would wait for the thaw, and whoever
/// writes it with it.
pub fn mute(muted: bool) {
    MUTED.store(muted, Ordering::Relaxed);
}

/// Opens a log. A pipe that nobody reads does not hold the agent up.
pub fn open(path: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::from_raw_mode(0o600))
}

/// From now on lines go there, each with its time.
pub fn turn_to(file: impl AsFd) {
    IN_FILE.store(dup2_stderr(file).is_ok(), Ordering::Relaxed);
}

/// Does it say nothing?
pub fn is_muted() -> bool {
    MUTED.load(Ordering::Relaxed)
}

/// Says that a host wants a command, the first word, and with what: at most four more.
pub fn audit(words: &[&[u8]]) {
    // As much of it as there are words.
    let form = b"% called: \"%\", \"%\", \"%\", \"%\"";
    tell(INFO, form.get(..words.len().wrapping_mul(5).wrapping_add(3)).unwrap_or_default(), words);
}

/// Something did not work. What, and why, has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Says that something is not as it should be; see [`tell`]. An error with its words would be too large to be handed
/// from function to function.
#[inline(never)]
pub fn say(form: &[u8], words: &[&[u8]]) -> Failed {
    tell(WARNING, form, words);
    Failed
}

/// The same with one word.
#[inline(never)]
pub fn say_of(form: &[u8], word: &[u8]) -> Failed {
    say(form, &[word])
}

/// The same with a word and with what the kernel found wrong.
#[inline(never)]
pub fn say_why(form: &[u8], word: &[u8], error: rustix::io::Errno) -> Failed {
    say(form, &[word, why(sys::errno(error))])
}

/// The same with nothing else.
#[inline(never)]
pub fn failed(what: &[u8], error: rustix::io::Errno) -> Failed {
    say_why(b"%: !", what, error)
}

/// Says something in one line. In its form, which may be packed, `%` stands for the next word and `!` for one of our
/// own, which may be packed too.
#[inline(never)]
pub fn tell(level: &[u8], form: &[u8], words: &[&[u8]]) {
    if MUTED.load(Ordering::Relaxed) {
        return;
    }
    let mut line = Line { bytes: [0; LINE], len: 0 };
    let mut words = words.iter();
    if FULL && IN_FILE.load(Ordering::Relaxed) {
        let [seconds, nanoseconds] = sys::realtime().map(i64::unsigned_abs);
        line.number(seconds, 1);
        line.add(b".");
        line.number(nanoseconds / 1000, 6);
        line.add(b": ");
        line.add(level);
    } else {
        line.add(b"nanoga");
    }
    line.add(b": ");
    for byte in unpack(form) {
        let byte = [byte];
        let mut text = byte.as_slice();
        if matches!(text, b"%" | b"!") {
            text = words.next().copied().unwrap_or_default();
        }
        if byte == *b"%" {
            line.escape(text);
        } else {
            unpack(text).for_each(|byte| line.add(&[byte]));
        }
    }
    line.len = line.len.min(LINE - 1);
    line.add(b"\n");
    sys::print(2, line.bytes.get(..line.len).unwrap_or_default());
}

/// What to say of an error, packed: its place in a form is a `!`.
pub fn why(error: Errno) -> &'static [u8] {
    match errno_text(error) {
        b"" => b"unexpected error",
        text => text,
    }
}

struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    /// With so many digits at least.
    #[inline(never)]
    fn number(&mut self, number: u64, width: usize) {
        self.add(decimal(number, width, &mut [0; 20]));
    }

    #[inline(never)]
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len = self.len.wrapping_add(1);
            }
        }
    }

    /// What a terminal would obey, what is not ASCII and what a form puts around a word becomes `\xNN`.
    #[inline(never)]
    fn escape(&mut self, word: &[u8]) {
        for byte in word {
            let hex = |digit: u8| digit.wrapping_add(if digit < 10 { b'0' } else { b'a' - 10 });
            match byte {
                b'"' | b'\\' | ..b' ' | 0x7F.. => self.add(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]),
                _ => self.add(&[*byte]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_can_neither_end_a_line_nor_look_like_the_end_of_a_word() {
        let mut line = Line { bytes: [0; LINE], len: 0 };
        line.escape(b"a b\n\"\\\x1b[2J\x7f\xc3\xa4~");
        let want = br"a b\x0a\x22\x5c\x1b[2J\x7f\xc3\xa4~";
        assert_eq!(line.bytes[..line.len], want[..]);
    }

    #[test]
    fn a_line_is_cut_where_it_gets_too_long() {
        let mut line = Line { bytes: [0; LINE], len: 0 };
        line.add(&[b'x'; 1000]);
        line.escape(&[b'\n'; 1000]);
        assert_eq!(line.bytes, [b'x'; LINE]);
    }
}
