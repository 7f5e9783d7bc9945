//! What every reply consists of: `{"return": value, "id": id}` or `{"error": {...}, "id": id}`, and a newline.
//!
//! What the value is, a command knows.

use super::Reply;
use crate::error::{Error, Fault, errno_text};
use crate::guest::Errno;
use crate::packed::unpack;
use crate::request;

impl Reply<'_> {
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
}
