//! Writes replies: objects, lists, strings and numbers, the latter by serde-json-core.
//!
//! Replies grow in a buffer, and what does not fit goes to the spool. Nothing leaves before its reply is complete,
//! so an error on the way rewinds to a proper error reply and no half reply is ever on the wire.
//!
//! The output is ASCII, one line a reply. Writing past what the spool takes fails silently until the end, where the
//! whole reply becomes an error: commands need not look.
//!
//! What surrounds the values stands in `envelope.rs`, where the bytes wait in `outbox.rs`.

mod envelope;
mod outbox;

pub(crate) use outbox::{Outbox, Overflow};
pub use outbox::{Spool, SpoolLost};

use crate::base64;
use crate::packed::unpack;
use crate::text;

/// One reply in the making.
pub struct Reply<'o> {
    outbox: &'o mut Outbox,
    buffer: &'o mut [u8],
    spool: &'o mut dyn Overflow,
    /// Where it starts, counted from the first byte that waits.
    start: usize,
    /// Bytes that may follow the value.
    tail: usize,
    /// Does a comma belong before the next value or key?
    comma: bool,
    /// Some of it is lost: it did not fit anywhere.
    failed: bool,
    /// Does it start with 0xFF?
    delimited: bool,
}

impl Reply<'_> {
    // Values by their forms: pieces of JSON, `packed!`, in which placeholders stand for what is only known now. A comma
    // comes before a piece where it is needed.

    /// A piece that is known.
    #[inline(never)]
    pub fn known(&mut self, form: &[u8]) {
        self.texts(form, &[]);
    }

    /// A piece with this text at its `%`.
    #[inline(never)]
    pub fn text(&mut self, form: &[u8], text: &[u8]) {
        self.texts(form, &[text]);
    }

    /// A piece with this number.
    #[inline(never)]
    pub fn number(&mut self, form: &[u8], number: u64) {
        self.numbers(form, &[number]);
    }

    /// A piece with these texts at each `%`: strings. Bytes that are not UTF-8 become U+FFFD.
    #[inline(never)]
    pub fn texts(&mut self, form: &[u8], texts: &[&[u8]]) {
        let mut texts = texts.iter();
        self.piece(form, &mut |reply, _| reply.string(texts.next().unwrap_or(&&b""[..])));
    }

    /// A piece with these numbers at each `#`; one at `&` is signed, and `!` stands for `true` unless it is 0.
    #[inline(never)]
    pub fn numbers(&mut self, form: &[u8], numbers: &[u64]) {
        let mut numbers = numbers.iter();
        self.piece(form, &mut |reply, kind| {
            let number = *numbers.next().unwrap_or(&0);
            match kind {
                b'!' => reply.part(if number == 0 { b"false" } else { b"true" }),
                b'&' => reply.integer(number.cast_signed()),
                _ => reply.part_number(number),
            }
        });
    }

    /// A piece in which this writes what stands at each placeholder, of those that are named above.
    #[inline(never)]
    pub fn piece(&mut self, form: &[u8], each: &mut dyn FnMut(&mut Self, u8)) {
        let mut last = 0;
        for byte in unpack(form) {
            if last == 0 && !matches!(byte, b'}' | b']') {
                self.separate();
            }
            last = byte;
            self.comma = false;
            if matches!(byte, b'!' | b'#' | b'%' | b'&') {
                each(self, byte);
            } else {
                self.byte(byte);
            }
        }
        self.comma = !matches!(last, b'{' | b'[' | b':');
    }

    /// A comma, where one belongs.
    #[inline(never)]
    fn separate(&mut self) {
        if self.comma {
            self.byte(b',');
        }
        self.comma = true;
    }

    // Values.

    /// A signed number.
    #[inline(never)]
    pub fn integer(&mut self, value: i64) {
        self.separate();
        if value < 0 {
            self.byte(b'-');
        }
        self.part_number(value.unsigned_abs());
    }

    /// A number of which `unit` make 1: exactly, if 20 places behind the point are enough.
    #[cfg(not(feature = "minimal"))]
    #[inline(never)]
    pub fn decimal(&mut self, mut value: u64, unit: u64) {
        for place in 0..=20 {
            if place == 1 {
                self.byte(b'.');
            }
            let digits = value.checked_div(unit).unwrap_or(0);
            self.part_number(digits);
            value = value.wrapping_sub(digits.wrapping_mul(unit)).wrapping_mul(10);
            if value == 0 {
                return;
            }
        }
    }

    /// A string. Bytes that are not UTF-8 become U+FFFD.
    #[inline(never)]
    pub fn string(&mut self, bytes: &[u8]) {
        self.open_string();
        self.part_escaped(bytes);
        self.close_string();
    }

    // Strings in parts.

    /// Starts a string whose parts follow.
    #[inline(never)]
    pub fn open_string(&mut self) {
        self.separate();
        self.byte(b'"');
    }

    /// Ends the string.
    #[inline(never)]
    pub fn close_string(&mut self) {
        self.byte(b'"');
    }

    /// A part of a string: a number.
    #[inline(never)]
    pub fn part_number(&mut self, value: u64) {
        // As many digits as the largest has: they fit.
        let mut digits = [0u8; 20];
        let len = serde_json_core::to_slice(&value, &mut digits).unwrap_or(0);
        self.part(digits.get(..len).unwrap_or_default());
    }

    /// A part of a string: a number in hexadecimal, in at least so many digits, whose letters begin with `a`.
    pub fn part_hex(&mut self, value: u16, digits: u32, a: u8) {
        for place in (0..4u32).rev() {
            let high = value >> place.wrapping_mul(4);
            if high > 0 || place < digits {
                let digit = high.to_le_bytes()[0] & 0xF;
                self.byte(digit.wrapping_add(if digit < 10 { b'0' } else { a.wrapping_sub(10) }));
            }
        }
    }

    /// A part of a string: bytes, escaped where they need it.
    #[inline(never)]
    pub fn part_escaped(&mut self, mut bytes: &[u8]) {
        loop {
            let (plain, rest) = bytes.split_at_checked(text::plain_run(bytes, b'"')).unwrap_or_default();
            self.part(plain);
            let Some((code, behind)) = text::first_char(rest) else {
                return;
            };
            bytes = behind;
            if let Some((letter, _)) = text::ESCAPES.iter().find(|(_, byte)| u32::from(*byte) == code) {
                self.part(&[b'\\', *letter]);
            } else if let Some(pair) = code.checked_sub(0x1_0000) {
                // Beyond 16 bits, in the two halves of a surrogate pair.
                self.unicode(0xD800 | pair >> 10);
                self.unicode(0xDC00 | pair & 0x3FF);
            } else {
                self.unicode(code);
            }
        }
    }

    /// A part of a string: a text of our own, packed or not, without anything to escape.
    #[inline(never)]
    pub fn part_packed(&mut self, text: &[u8]) {
        for byte in unpack(text) {
            self.byte(byte);
        }
    }

    /// Bytes whose base64 is certain to fit into this reply, with all that follows it.
    pub fn base64_room(&self) -> usize {
        let taken = self.outbox.spooled.wrapping_add(self.outbox.len).wrapping_add(self.tail);
        (self.spool.most().saturating_sub(taken) / 4).wrapping_mul(3)
    }

    /// A part of a string: bytes in base64, as they come from a source until it has none. There are about as many of
    /// them as `expected`.
    ///
    /// The source writes them so far behind the start of the free part of the buffer that the characters, which grow
    /// from there, never reach a byte that is still to be read.
    #[inline(never)]
    pub fn part_base64(&mut self, expected: usize, source: &mut dyn FnMut(&mut [u8]) -> usize) {
        loop {
            let free = self.buffer.get_mut(self.outbox.len..).unwrap_or_default();
            // Not more than it takes: what is touched is the agent's for long.
            let groups = (free.len() / 4).min((expected / 3).wrapping_add(1));
            let room = groups.wrapping_mul(3);
            let first = groups;
            let mut filled = 0usize;
            while filled < room {
                match source(free.get_mut(first.wrapping_add(filled)..groups.wrapping_mul(4)).unwrap_or_default()) {
                    0 => break,
                    bytes => filled = filled.wrapping_add(bytes),
                }
            }
            let (mut at, mut to) = (first, 0usize);
            let end = first.wrapping_add(filled);
            while at < end {
                let behind = at.wrapping_add(3).min(end);
                let characters = base64::encode(free.get(at..behind).unwrap_or_default());
                if let Some(place) = free.get_mut(to..).and_then(<[u8]>::first_chunk_mut) {
                    *place = characters;
                }
                (at, to) = (behind, to.wrapping_add(4));
            }
            self.outbox.len = self.outbox.len.wrapping_add(to);
            if filled < room || !self.flush() {
                return;
            }
        }
    }

    #[inline(never)]
    fn unicode(&mut self, unit: u32) {
        let [low, high, ..] = unit.to_le_bytes();
        self.part(b"\\u");
        self.part_hex(u16::from_le_bytes([low, high]), 4, b'A');
    }

    // Bytes.

    /// The free part of the buffer: for anything, until the next part is written.
    pub fn scratch(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.outbox.len..).unwrap_or_default()
    }

    /// A part of a string, or of anything: this very byte.
    #[inline(never)]
    pub fn byte(&mut self, byte: u8) {
        match self.buffer.get_mut(self.outbox.len) {
            Some(place) => {
                *place = byte;
                self.outbox.len = self.outbox.len.wrapping_add(1);
            }
            None => self.part(&[byte]),
        }
    }

    /// A part of a string, or of anything: these very bytes.
    #[inline(never)]
    pub fn part(&mut self, mut bytes: &[u8]) {
        loop {
            let free = self.buffer.get_mut(self.outbox.len..).unwrap_or_default();
            let now = bytes.len().min(free.len());
            for (place, byte) in free.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.outbox.len = self.outbox.len.wrapping_add(now);
            bytes = bytes.get(now..).unwrap_or_default();
            if bytes.is_empty() || !self.flush() {
                return;
            }
        }
    }

    /// Moves the buffer to the spool, so that all of it is free.
    #[inline(never)]
    fn flush(&mut self) -> bool {
        let bytes = self.buffer.get(..self.outbox.len).unwrap_or_default();
        if self.failed || !self.spool.put(self.outbox.spooled, bytes) {
            // The buffer stays: it may hold replies before this one, and they are complete.
            self.failed = true;
            return false;
        }
        self.outbox.spooled = self.outbox.spooled.wrapping_add(bytes.len());
        self.outbox.len = 0;
        true
    }
}

impl Outbox {
    /// Starts a reply behind those that wait.
    pub(crate) fn reply<'o>(&'o mut self, buffer: &'o mut [u8], spool: &'o mut dyn Overflow) -> Reply<'o> {
        let start = self.spooled.wrapping_add(self.len);
        Reply { outbox: self, buffer, spool, start, tail: 0, comma: false, failed: false, delimited: false }
    }
}
