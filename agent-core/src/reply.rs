//! Writes replies: objects, lists, strings, numbers, and leaf types by serde.
//!
//! Replies grow in a buffer, and what does not fit goes to the spool. Nothing leaves before its reply is complete,
//! so an error on the way rewinds to a proper error reply and no half reply is ever on the wire.
//!
//! The output is ASCII, one line a reply. Writing past what the spool takes fails silently until the end, where the
//! whole reply becomes an error: commands need not look.

use embedded_io::{Read, Seek, SeekFrom, Write};
use serde::Serialize;

use crate::error::Error;
use crate::request;
use crate::text::{self, Text};

/// Where the bytes go that do not fit into a reply buffer: bounded by whoever provides it, which says so by an error.
pub trait Spool: Read + Write + Seek {}

impl<T: Read + Write + Seek> Spool for T {}

/// The replies of one channel that have not been sent: some whole ones, and perhaps one in the making.
pub(crate) struct Outbox<'buf> {
    buffer: &'buf mut [u8],
    /// Bytes in the buffer.
    len: usize,
    /// Bytes in the spool. They come before those in the buffer.
    spooled: usize,
    /// Bytes that went out, of those in the buffer.
    sent: usize,
    /// Bytes that were taken back from the spool.
    fetched: usize,
}

impl<'buf> Outbox<'buf> {
    pub(crate) fn new(buffer: &'buf mut [u8]) -> Self {
        Outbox { buffer, len: 0, spooled: 0, sent: 0, fetched: 0 }
    }

    pub(crate) fn clear(&mut self) {
        (self.len, self.spooled, self.sent, self.fetched) = (0, 0, 0, 0);
    }

    pub(crate) fn memory(&mut self) -> &mut [u8] {
        self.buffer
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0 && self.spooled == 0
    }

    /// Has another small reply room behind those that wait?
    pub(crate) fn has_room(&self) -> bool {
        self.spooled == 0 && self.len <= self.buffer.len() / 2
    }

    /// Starts a reply behind those that wait.
    pub(crate) fn reply<'o>(&'o mut self, spool: &'o mut dyn Overflow) -> Reply<'o> {
        let start = self.spooled.saturating_add(self.len);
        Reply {
            buffer: self.buffer,
            len: &mut self.len,
            spooled: &mut self.spooled,
            spool,
            start,
            comma: false,
            failed: false,
            delimited: false,
        }
    }

    /// The next bytes to send; none when all has been sent.
    pub(crate) fn pending<S: Spool>(&mut self, spool: &mut S) -> Result<&[u8], SpoolLost> {
        if self.spooled > 0 && self.fetched == 0 && self.len > 0 {
            // All that waits goes through the spool, so that its order is kept and the buffer is free to carry it.
            if !spool.put(self.spooled, self.buffer.get(..self.len).unwrap_or_default()) {
                return Err(SpoolLost);
            }
            self.spooled = self.spooled.saturating_add(self.len);
            self.len = 0;
        }
        if self.sent >= self.len && self.fetched < self.spooled {
            let missing = self.spooled.saturating_sub(self.fetched).min(self.buffer.len());
            let room = self.buffer.get_mut(..missing).unwrap_or_default();
            let from = u64::try_from(self.fetched).map_err(|_| SpoolLost)?;
            spool.seek(SeekFrom::Start(from)).map_err(|_| SpoolLost)?;
            match spool.read(room) {
                Ok(got @ 1..) => {
                    self.fetched = self.fetched.saturating_add(got);
                    (self.len, self.sent) = (got, 0);
                }
                _ => return Err(SpoolLost),
            }
        }
        Ok(self.buffer.get(self.sent..self.len).unwrap_or_default())
    }

    /// So many bytes of [`Outbox::pending`] went out.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        if self.sent >= self.len && self.spooled == self.fetched {
            self.clear();
        }
    }
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
}

impl<S: Spool> Overflow for S {
    fn put(&mut self, at: usize, mut bytes: &[u8]) -> bool {
        if !u64::try_from(at).is_ok_and(|at| self.seek(SeekFrom::Start(at)).is_ok()) {
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
}

/// One reply in the making.
pub struct Reply<'o> {
    buffer: &'o mut [u8],
    len: &'o mut usize,
    spooled: &'o mut usize,
    spool: &'o mut dyn Overflow,
    /// Where it starts, counted from the first byte that waits.
    start: usize,
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
    pub fn open_object(&mut self) {
        self.separate();
        self.put(b"{");
        self.comma = false;
    }

    /// Ends the object.
    pub fn close_object(&mut self) {
        self.put(b"}");
        self.comma = true;
    }

    /// Starts a list. Each value that follows is an element.
    pub fn open_list(&mut self) {
        self.separate();
        self.put(b"[");
        self.comma = false;
    }

    /// Ends the list.
    pub fn close_list(&mut self) {
        self.put(b"]");
        self.comma = true;
    }

    /// The name of the next value: ASCII without anything to escape.
    pub fn key(&mut self, name: &'static str) {
        self.separate();
        self.put(b"\"");
        self.put(name.as_bytes());
        self.put(b"\":");
        self.comma = false;
    }

    fn separate(&mut self) {
        if self.comma {
            self.put(b",");
        }
        self.comma = true;
    }

    // Values.

    /// A signed number.
    pub fn integer(&mut self, value: i64) {
        self.separate();
        if value < 0 {
            self.put(b"-");
        }
        self.digits(value.unsigned_abs());
    }

    /// A string. Bytes that are not UTF-8 become U+FFFD.
    pub fn string(&mut self, bytes: &[u8]) {
        self.open_string();
        self.part_bytes(bytes);
        self.close_string();
    }

    /// A small value of bounded size: see [`crate::schema`].
    pub fn leaf<T: Serialize>(&mut self, value: &T) {
        self.separate();
        if self.failed {
            return;
        }
        let free = self.buffer.get_mut(*self.len..).unwrap_or_default();
        let mut written = serde_json_core::to_slice(value, free);
        if written.is_err() && self.flush() {
            written = serde_json_core::to_slice(value, self.buffer);
        }
        match written {
            Ok(bytes) => *self.len = self.len.saturating_add(bytes),
            Err(_) => self.failed = true,
        }
    }

    /// Raw JSON of a request, which the framer found good and without white space, as JSON of the strict kind.
    pub(crate) fn echo(&mut self, mut raw: &[u8]) {
        self.separate();
        while let Some((&byte, rest)) = raw.split_first() {
            if byte == b'"' || byte == b'\'' {
                let (string, rest) = request::split_string(raw);
                self.put(b"\"");
                self.part_text(string);
                self.put(b"\"");
                raw = rest;
            } else {
                self.put(&[byte]);
                raw = rest;
            }
        }
    }

    // Strings in parts.

    pub(crate) fn open_string(&mut self) {
        self.separate();
        self.put(b"\"");
    }

    pub(crate) fn close_string(&mut self) {
        self.put(b"\"");
    }

    /// A part of a string: ASCII without anything to escape.
    pub(crate) fn part(&mut self, text: &str) {
        self.put(text.as_bytes());
    }

    /// A part of a string: a number.
    pub(crate) fn part_number(&mut self, value: usize) {
        self.digits(u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// A part of a string: text of a request, its escapes replaced.
    pub(crate) fn part_text(&mut self, text: Text<'_>) {
        let Text(raw) = text;
        if !raw.contains(&b'\\') {
            return self.part_bytes(raw);
        }
        // Characters are put together anew: an escape is never a part of one.
        let mut one = heapless::Vec::<u8, 4>::new();
        for byte in text.bytes() {
            if byte & 0xC0 != 0x80 {
                self.part_bytes(&one);
                one.clear();
            }
            if one.push(byte).is_err() {
                self.failed = true;
            }
        }
        self.part_bytes(&one);
    }

    /// A part of a string: bytes, escaped where they need it.
    pub(crate) fn part_bytes(&mut self, mut bytes: &[u8]) {
        while let Some((plain, rest)) = bytes.split_at_checked(text::plain_run(bytes, b'"')) {
            self.put(plain);
            let Some((code, behind)) = text::first_char(rest) else {
                break;
            };
            self.escaped(code.unwrap_or(0xFFFD));
            bytes = behind;
        }
    }

    fn escaped(&mut self, code: u32) {
        let short = match code {
            0x08 => b"\\b",
            0x0C => b"\\f",
            0x0A => b"\\n",
            0x0D => b"\\r",
            0x09 => b"\\t",
            0x22 => b"\\\"",
            0x5C => b"\\\\",
            0x1_0000.. => {
                let pair = code.wrapping_sub(0x1_0000);
                self.unicode(0xD800 | pair >> 10);
                return self.unicode(0xDC00 | pair & 0x3FF);
            }
            _ => return self.unicode(code),
        };
        self.put(short);
    }

    fn unicode(&mut self, unit: u32) {
        self.put(b"\\u");
        for shift in [12, 8, 4, 0] {
            self.hex_digit(unit >> shift & 0xF, b'A');
        }
    }

    /// A part of a string: a byte as two lower-case digits.
    pub(crate) fn part_hex(&mut self, byte: u8) {
        self.hex_digit(u32::from(byte >> 4), b'a');
        self.hex_digit(u32::from(byte & 0xF), b'a');
    }

    /// One digit, whose letters begin with this one ('a' or 'A').
    fn hex_digit(&mut self, digit: u32, a: u8) {
        let digit = u8::try_from(digit).unwrap_or(0);
        self.put(&[if digit < 10 { b'0' | digit } else { a.wrapping_add(digit).wrapping_sub(10) }]);
    }

    fn digits(&mut self, mut value: u64) {
        let mut digits = [0u8; 20];
        let mut count = 0usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' | u8::try_from(value % 10).unwrap_or(0);
            count = count.saturating_add(1);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.put(digits.get(digits.len().saturating_sub(count)..).unwrap_or_default());
    }

    // Envelope: `{"return": value, "id": id}` or `{"error": {...}, "id": id}`, and a newline.

    /// Starts the reply of a command that goes well. `delimited`: behind the byte 0xFF.
    pub(crate) fn begin(&mut self, delimited: bool) {
        self.delimited = delimited;
        if delimited {
            self.put(b"\xFF");
        }
        self.open_object();
        self.key("return");
    }

    /// Ends the reply. It becomes an error when a part of it was lost.
    pub(crate) fn finish(&mut self, id: Option<&[u8]>) {
        self.end(id);
        if self.failed {
            self.fail(Error::ReplyTooLong, id);
        }
    }

    /// Forgets what there is of the reply and writes this error instead.
    pub(crate) fn fail(&mut self, error: Error<'_>, id: Option<&[u8]>) {
        self.write_error(error, id);
        if self.failed {
            // Not even the error fits: its id is too long. A line that is cut short would leave the host out of
            // step, and none at all leave it waiting.
            self.write_error(Error::ReplyTooLong, None);
        }
    }

    fn write_error(&mut self, error: Error<'_>, id: Option<&[u8]>) {
        self.rewind();
        self.open_object();
        self.key("error");
        self.open_object();
        self.key("class");
        self.string(error.class().as_bytes());
        self.key("desc");
        self.open_string();
        error.describe(self);
        self.close_string();
        self.close_object();
        self.end(id);
    }

    fn end(&mut self, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.key("id");
            self.echo(id);
        }
        self.close_object();
        self.put(b"\n");
    }

    /// Forgets what there is of the reply, and of the failure to write it.
    pub(crate) fn rewind(&mut self) {
        self.failed = false;
        self.comma = false;
        match self.start.checked_sub(*self.spooled) {
            Some(len) => *self.len = len,
            None => (*self.spooled, *self.len) = (self.start, 0),
        }
    }

    /// Forgets the value written so far, to write it anew.
    pub(crate) fn restart(&mut self) {
        self.rewind();
        self.begin(self.delimited);
    }

    // Bytes.

    fn put(&mut self, mut bytes: &[u8]) {
        while !self.failed && !bytes.is_empty() {
            let free = self.buffer.get_mut(*self.len..).unwrap_or_default();
            if free.is_empty() {
                self.flush();
                continue;
            }
            let (now, later) = bytes.split_at_checked(free.len()).unwrap_or((bytes, &[]));
            if let Some(space) = free.get_mut(..now.len()) {
                space.copy_from_slice(now);
            }
            *self.len = self.len.saturating_add(now.len());
            bytes = later;
        }
    }

    /// Moves the buffer to the spool, so that all of it is free.
    fn flush(&mut self) -> bool {
        if !self.spool.put(*self.spooled, self.buffer.get(..*self.len).unwrap_or_default()) {
            // The buffer stays: it may hold replies before this one, and they are complete.
            self.failed = true;
            return false;
        }
        *self.spooled = self.spooled.saturating_add(*self.len);
        *self.len = 0;
        true
    }
}
