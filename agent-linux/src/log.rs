//! Lines on standard error. Each is written at once, so that lines of several processes do not mix.

use core::sync::atomic::{AtomicBool, Ordering};

use agent_core::error::errno_text;
use agent_core::guest::Errno;

use crate::sys;

/// Bytes of a line; what is longer is cut.
const LINE: usize = 512;

static MUTED: AtomicBool = AtomicBool::new(false);

/// Says nothing from now on, or speaks again: while file systems are frozen a line would wait for the thaw, and whoever
/// writes it with it.
pub fn mute(muted: bool) {
    MUTED.store(muted, Ordering::Relaxed);
}

/// Says something in one line, behind the agent's name. `%` stands for the words, one after the other.
#[inline(never)]
pub fn say(form: &[u8], words: &[&[u8]]) {
    if MUTED.load(Ordering::Relaxed) {
        return;
    }
    let mut line = Line { bytes: [0; LINE], len: 0 };
    let mut words = words.iter();
    line.add(b"nanoga: ");
    for byte in form {
        match (byte, words.as_slice()) {
            (b'%', [_, ..]) => line.add(words.next().copied().unwrap_or_default()),
            _ => line.add(&[*byte]),
        }
    }
    line.len = line.len.min(LINE - 1);
    line.add(b"\n");
    sys::print(2, line.bytes.get(..line.len).unwrap_or_default());
}

/// What to say of an error.
pub fn reason(error: Errno) -> &'static [u8] {
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
    #[inline(never)]
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                // What a terminal would obey must not come from a path.
                *place = if byte.is_ascii_control() && *byte != b'\n' { b'?' } else { *byte };
                self.len = self.len.wrapping_add(1);
            }
        }
    }
}
