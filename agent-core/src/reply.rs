//! Writes replies: objects, lists, strings and numbers, the latter by serde-json-core.
//!
//! Replies grow in a buffer, and what does not fit goes to the spool. Nothing leaves before its reply is complete,
//! so an error on the way rewinds to a proper error reply and no half reply is ever on the wire.
//!
//! The output is ASCII, one line a reply. Writing past what the spool takes fails silently until the end, where the
//! whole reply becomes an error: commands need not look.

use embedded_io::{Read, Seek, SeekFrom, Write};

use crate::base64;
use crate::error::{Error, Fault, errno_text};
use crate::guest::Errno;
use crate::packed::unpack;
use crate::request;
use crate::text;

/// Where the bytes go that do not fit into a reply buffer: bounded by whoever provides it, which says so by an error.
pub trait Spool: Read + Write + Seek {
    /// Bytes that it holds when it is full.
    fn capacity(&self) -> usize;
}

/// The spool did not give back what was put into it. A reply that has been sent in part can only be cut off, with
/// the connection that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLost;

/// A [`Spool`] as the writer sees it: without the error type, and without the formatting machinery that the vtable
/// of `embedded_io::Write` would bring along.
pub(crate) trait Overflow {
    /// Writes all of these bytes at that place; `false` if they do not fit.
    fn put(&mut self, at: usize, bytes: &[u8]) -> bool;

    /// Bytes that it holds when it is full.
    fn most(&self) -> usize;
}

impl<S: Spool> Overflow for S {
    fn put(&mut self, at: usize, mut bytes: &[u8]) -> bool {
        if self.seek(start(at)).is_err() {
            return false;
        }
        // Not `write_all`: it panics on a writer that takes nothing.
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(taken @ 1..) => bytes = bytes.get(taken..).unwrap_or_default(),
                _ => return false,
            }
        }
        true
    }

    fn most(&self) -> usize {
        self.capacity()
    }
}

/// The replies of one channel that have not been sent: some whole ones, and perhaps one in the making. First come
/// the bytes in the spool, then those in the buffer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outbox {
    /// Bytes in the buffer.
    len: usize,
    /// Bytes that went to the spool.
    spooled: usize,
    /// Bytes that were taken back from the spool.
    fetched: usize,
    /// Bytes that went out, of those in the buffer.
    sent: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0 && self.spooled == 0
    }

    /// Has another small reply room behind those that wait?
    pub(crate) fn has_room(&self, buffer: &[u8]) -> bool {
        self.spooled == 0 && self.len <= buffer.len() / 2
    }

    /// Starts a reply behind those that wait.
    pub(crate) fn reply<'o>(&'o mut self, buffer: &'o mut [u8], spool: &'o mut dyn Overflow) -> Reply<'o> {
        let start = self.spooled.wrapping_add(self.len);
        Reply { outbox: self, buffer, spool, start, tail: 0, comma: false, failed: false, delimited: false }
    }

    /// The next bytes to send; none when all has been sent.
    pub(crate) fn pending<'b, S: Spool>(&mut self, buffer: &'b mut [u8], spool: &mut S) -> Result<&'b [u8], SpoolLost> {
        if self.spooled > 0 && (self.sent >= self.len || self.fetched == 0) {
            if self.fetched == 0 {
                // All that waits goes through the spool, so that its order is kept and the buffer is free to carry it.
                if !spool.put(self.spooled, buffer.get(..self.len).unwrap_or_default()) {
                    return Err(SpoolLost);
                }
                self.spooled = self.spooled.wrapping_add(self.len);
            }
            (self.len, self.sent) = (0, 0);
            let missing = self.spooled.wrapping_sub(self.fetched);
            if missing > 0 {
                let room = missing.min(buffer.len());
                spool.seek(start(self.fetched)).map_err(|_| SpoolLost)?;
                self.len = spool.read(buffer.get_mut(..room).unwrap_or_default()).map_err(|_| SpoolLost)?;
                if self.len == 0 {
                    return Err(SpoolLost);
                }
                self.fetched = self.fetched.wrapping_add(self.len);
            }
        }
        let pending = buffer.get(self.sent..self.len).unwrap_or_default();
        if pending.is_empty() {
            *self = Outbox::default();
        }
        Ok(pending)
    }

    /// So many bytes of [`Outbox::pending`] went out.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.sent = self.sent.wrapping_add(bytes);
    }
}

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
    // Structure.

    /// Starts an object. Each of its members is a [`Reply::key`] and a value.
    #[inline(never)]
    pub fn open_object(&mut self) {
        self.open(b'{');
    }

    /// Ends the object.
    #[inline(never)]
    pub fn close_object(&mut self) {
        self.close(b'}');
    }

    /// Starts a list. Each value that follows is an element.
    pub fn open_list(&mut self) {
        self.open(b'[');
    }

    /// Ends the list.
    pub fn close_list(&mut self) {
        self.close(b']');
    }

    /// The name of the next value: ASCII without anything to escape.
    #[inline(never)]
    pub fn key(&mut self, name: &'static str) {
        self.string(name.as_bytes());
        self.part(b":");
        self.comma = false;
    }

    /// A member that is a string; see [`Reply::string`].
    #[inline(never)]
    pub fn string_member(&mut self, name: &'static str, bytes: &[u8]) {
        self.key(name);
        self.string(bytes);
    }

    /// A member that is an unsigned number.
    #[inline(never)]
    pub fn number_member(&mut self, name: &'static str, value: u64) {
        self.key(name);
        self.unsigned(value);
    }

    /// A member that is `true` or `false`.
    #[inline(never)]
    pub fn boolean_member(&mut self, name: &'static str, value: bool) {
        self.key(name);
        self.boolean(value);
    }

    #[inline(never)]
    fn open(&mut self, bracket: u8) {
        self.separate();
        self.part(&[bracket]);
        self.comma = false;
    }

    #[inline(never)]
    fn close(&mut self, bracket: u8) {
        self.part(&[bracket]);
        self.comma = true;
    }

    #[inline(never)]
    fn separate(&mut self) {
        if self.comma {
            self.part(b",");
        }
        self.comma = true;
    }

    // Values.

    /// A signed number.
    pub fn integer(&mut self, value: i64) {
        self.separate();
        if value < 0 {
            self.part(b"-");
        }
        self.part_number(value.unsigned_abs());
    }

    /// An unsigned number.
    pub fn unsigned(&mut self, value: u64) {
        self.separate();
        self.part_number(value);
    }

    /// A number of which `unit` make 1: exactly, if 20 places behind the point are enough.
    #[cfg(not(feature = "minimal"))]
    #[inline(never)]
    pub fn decimal(&mut self, mut value: u64, unit: u64) {
        self.separate();
        for place in 0..=20 {
            if place == 1 {
                self.part(b".");
            }
            let digits = value.checked_div(unit).unwrap_or(0);
            self.part_number(digits);
            value = value.wrapping_sub(digits.wrapping_mul(unit)).wrapping_mul(10);
            if value == 0 {
                return;
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, value: bool) {
        self.separate();
        self.part(if value { b"true" } else { b"false" });
    }

    /// A string. Bytes that are not UTF-8 become U+FFFD.
    #[inline(never)]
    pub fn string(&mut self, bytes: &[u8]) {
        self.open_string();
        self.part_escaped(bytes);
        self.close_string();
    }

    /// A value of a frame, as JSON of the strict kind.
    #[inline(never)]
    fn echo(&mut self, mut value: &[u8]) {
        self.separate();
        while let Some(byte) = value.first() {
            if *byte == b'"' {
                let (string, rest) = request::split_string(value);
                self.comma = false;
                self.string(string);
                value = rest;
            } else {
                self.part(&[*byte]);
                value = value.get(1..).unwrap_or_default();
            }
        }
        self.comma = true;
    }

    // Strings in parts.

    /// Starts a string whose parts follow.
    #[inline(never)]
    pub fn open_string(&mut self) {
        self.open(b'"');
    }

    /// Ends the string.
    #[inline(never)]
    pub fn close_string(&mut self) {
        self.close(b'"');
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
                self.part(&[digit.wrapping_add(if digit < 10 { b'0' } else { a.wrapping_sub(10) })]);
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

    // Envelope: `{"return": value, "id": id}` or `{"error": {...}, "id": id}`, and a newline.

    /// Keeps room for this `id`, of whose bytes each may become an escape of six, and for what else ends a reply.
    pub(crate) fn reserve(&mut self, id: Option<&[u8]>) {
        self.tail = id.map_or(0, <[u8]>::len).wrapping_mul(6).wrapping_add(128);
    }

    /// Starts the reply of a command that goes well. `delimited`: behind the byte 0xFF.
    pub(crate) fn begin(&mut self, delimited: bool) {
        self.delimited = delimited;
        if delimited {
            self.part(b"\xFF");
        }
        self.open_object();
        self.key("return");
    }

    /// Ends the reply. It becomes an error when a part of it was lost.
    #[inline(never)]
    pub(crate) fn finish(&mut self, id: Option<&[u8]>) {
        self.end(id);
        if self.failed {
            self.fail(Fault::ReplyTooLong.plain(), id);
        }
    }

    /// Forgets what there is of the reply and writes this error instead.
    ///
    /// If not even that fits, because its word or its id is too long, the host is told so: a line that is cut short
    /// would leave it out of step, and none at all would leave it waiting.
    #[inline(never)]
    pub(crate) fn fail(&mut self, error: Error<'_>, id: Option<&[u8]>) {
        self.write_error(error, id);
        if self.failed {
            self.write_error(Fault::ReplyTooLong.plain(), None);
        }
    }

    #[inline(never)]
    fn write_error(&mut self, error: Error<'_>, id: Option<&[u8]>) {
        self.rewind();
        self.open_object();
        self.key("error");
        self.open_object();
        self.string_member("class", error.class().as_bytes());
        self.key("desc");
        self.open_string();
        self.sentence(&error);
        self.close_string();
        self.close_object();
        self.end(id);
    }

    pub(crate) fn sentence(&mut self, error: &Error<'_>) {
        if error.fault.is_syntax() {
            self.part(b"JSON parse error, ");
        }
        for byte in unpack(error.fault.form()) {
            match byte {
                b'%' => self.part_escaped(error.word()),
                b'&' => self.part_escaped(error.other),
                b'!' => self.errno(error.number),
                b'#' => self.part_number(u64::from(error.number)),
                _ => self.part(&[byte]),
            }
        }
    }

    /// A part of a string: a text of our own, packed or not, without anything to escape.
    #[inline(never)]
    pub fn part_packed(&mut self, text: &[u8]) {
        for byte in unpack(text) {
            self.part(&[byte]);
        }
    }

    fn errno(&mut self, number: u32) {
        let text = u16::try_from(number).map_or(&b""[..], |number| errno_text(Errno(number)));
        self.part_packed(text);
        if text.is_empty() {
            self.part_number(u64::from(number));
        }
    }

    fn end(&mut self, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.key("id");
            self.echo(id);
        }
        self.part(b"}\n");
        // What began in the spool ends there, so that it is known now whether all of it fits.
        if self.outbox.spooled > self.start {
            self.flush();
        }
    }

    /// Forgets what there is of the reply, and of the failure to write it.
    #[inline(never)]
    pub(crate) fn rewind(&mut self) {
        self.failed = false;
        self.comma = false;
        if self.start < self.outbox.spooled {
            self.outbox.spooled = self.start;
        }
        self.outbox.len = self.start.wrapping_sub(self.outbox.spooled);
    }

    /// Forgets the value written so far, to write it anew.
    #[inline(never)]
    pub(crate) fn restart(&mut self) {
        self.rewind();
        self.begin(self.delimited);
    }

    // Bytes.

    /// The free part of the buffer: for anything, until the next part is written.
    pub fn scratch(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.outbox.len..).unwrap_or_default()
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

fn start(at: usize) -> SeekFrom {
    SeekFrom::Start(u64::try_from(at).unwrap_or(u64::MAX))
}
