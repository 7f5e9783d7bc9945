//! The replies that wait to be sent: in a buffer, and what does not fit in the spool.
//!
//! It counts bytes, and knows nothing of what is in them.

use embedded_io::{Read, Seek, SeekFrom, Write};

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
    pub(super) len: usize,
    /// Bytes that went to the spool.
    pub(super) spooled: usize,
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

fn start(at: usize) -> SeekFrom {
    SeekFrom::Start(u64::try_from(at).unwrap_or(u64::MAX))
}
