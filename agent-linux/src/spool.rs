//! The spool of a channel: a file in memory for what a reply buffer cannot hold.
//!
//! It exists from the first byte written until all of it was sent. Its pages are the guest's, not this process's
//! private memory, so it is bounded by the guest's size.

use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom, Write};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, pwrite};

use crate::sys;

/// Bytes of replies that may wait in a spool, at the least.
const LIMIT_MIN: u64 = 1024 * 1024;

/// The part of the guest's memory that the replies of one channel may take.
const MEMORY_SHARE: u64 = 8;

/// `memfd_create(2)`, made when it is first written to.
pub struct Spool {
    file: Option<OwnedFd>,
    position: u64,
    limit: u64,
}

impl Spool {
    /// An empty spool that may grow to an eighth of the guest's memory.
    pub fn new() -> Self {
        let share = sys::memory() / MEMORY_SHARE;
        Spool { file: None, position: 0, limit: share.max(LIMIT_MIN) }
    }

    /// Gives its memory back.
    pub fn close(&mut self) {
        self.file = None;
        self.position = 0;
    }

    fn advance(&mut self, bytes: usize) -> usize {
        self.position = self.position.saturating_add(u64::try_from(bytes).unwrap_or(0));
        bytes
    }
}

impl Default for Spool {
    fn default() -> Self {
        Spool::new()
    }
}

impl agent_core::Spool for Spool {
    fn capacity(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

impl ErrorType for Spool {
    type Error = ErrorKind;
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let end = self.position.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.limit {
            return Err(ErrorKind::OutOfMemory);
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => memfd_create(c"nanoga-spool", MemfdFlags::CLOEXEC).map_err(|_| ErrorKind::OutOfMemory)?,
        };
        let written = pwrite(&file, bytes, self.position);
        self.file = Some(file);
        written.map(|bytes| self.advance(bytes)).map_err(|_| ErrorKind::OutOfMemory)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Read for Spool {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let file = self.file.as_ref().ok_or(ErrorKind::Other)?;
        let read = pread(file, buffer, self.position);
        read.map(|bytes| self.advance(bytes)).map_err(|_| ErrorKind::Other)
    }
}

impl Seek for Spool {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
        let SeekFrom::Start(position) = to else {
            return Err(ErrorKind::Unsupported);
        };
        self.position = position;
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_then_forgotten() {
        let mut spool = Spool::new();
        assert_eq!(spool.write(b"hello "), Ok(6));
        assert_eq!(spool.write(b"world"), Ok(5));
        let mut buffer = [0; 32];
        spool.seek(SeekFrom::Start(6)).unwrap();
        assert_eq!(spool.read(&mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"world");
        spool.close();
        assert_eq!(spool.read(&mut buffer), Err(ErrorKind::Other));
    }

    #[test]
    fn it_takes_no_more_than_its_limit() {
        let mut spool = Spool { file: None, position: 0, limit: 10 };
        assert_eq!(spool.write(b"0123456789a"), Err(ErrorKind::OutOfMemory));
        assert_eq!(spool.write(b"0123456789"), Ok(10));
        assert_eq!(spool.write(b"a"), Err(ErrorKind::OutOfMemory));
    }
}
