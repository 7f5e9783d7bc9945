//! Files of the guest, opened by the host.

use core::ffi::CStr;

use super::Errno;

/// What a file is opened for, as `fopen(3)` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode {
    /// The letter in front.
    pub access: FileAccess,
    /// `+`: both to read and to write.
    pub update: bool,
}

/// The letter of a [`FileMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// `r`: what is there.
    Read,
    /// `w`: made anew, or cut to nothing.
    Write,
    /// `a`: made if it is missing; whatever is written goes to its end.
    Append,
}

/// Where an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The start of the file.
    Set,
    /// The place it is at.
    Current,
    /// The end of the file.
    End,
}

/// Files of the guest. They stay open until they are closed; none of these calls waits for another process.
pub trait Files {
    /// Opens a file. Its handle is never used again, by no agent on this guest.
    fn open_file(&mut self, path: &CStr, mode: FileMode) -> Result<i64, Errno>;

    /// Is there a file of this handle?
    fn has_file(&self, handle: i64) -> bool;

    /// Closes it. The handle is gone also after an error.
    fn close_file(&mut self, handle: i64) -> Result<(), Errno>;

    /// Reads what there is, as much as the buffer holds; nothing at the end of the file.
    fn read_file(&mut self, handle: i64, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Writes, perhaps less than all of it.
    fn write_file(&mut self, handle: i64, bytes: &[u8]) -> Result<usize, Errno>;

    /// Moves to another place, and says where that is.
    fn seek_file(&mut self, handle: i64, offset: i64, whence: Whence) -> Result<i64, Errno>;
}
