//! What every reply consists of: `{"return": value, "id": id}` or `{"error": {...}, "id": id}`, and a newline.
//!
//! What the value is, a command knows.

use super::Reply;
use crate::error::{Error, Fault, errno_text};
use crate::guest::Errno;
use crate::packed;
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
            self.byte(0xFF);
        }
        self.known(packed!("{\"return\":"));
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
        self.text(packed!("{\"error\":{\"class\":%,\"desc\":"), error.class().as_bytes());
        self.sentence(&error);
        self.known(b"}");
        self.end(id);
    }

    /// A string that says what is wrong.
    #[inline(never)]
    pub(crate) fn sentence(&mut self, error: &Error<'_>) {
        self.open_string();
        if error.fault.is_syntax() {
            self.part(b"JSON parse error, ");
        }
        // The string has begun: no comma.
        self.comma = false;
        self.piece(error.fault.form(), &mut |reply, kind| {
            let text = match kind {
                b'%' => error.word(),
                b'&' => error.other,
                b'!' => return reply.errno(error.number),
                _ => return reply.part_number(u64::from(error.number)),
            };
            reply.part_escaped(text);
        });
        self.close_string();
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
            self.known(b"\"id\":");
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
                self.byte(*byte);
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
