//! Files that hosts have opened. The kernel's table of descriptors is the table of handles: beside it stands only which
//! handle a descriptor has.
//!
//! Nothing here waits: files are opened without blocking and stay so. It knows nothing of base64 and replies.

#![allow(unsafe_code, reason = "descriptors by their numbers")]

use core::ffi::CStr;

use agent_core::guest::{Errno, FileAccess, FileMode, Files, Whence};
use linux_raw_sys::errno;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::{CWD, Mode, OFlags, fchmod};
use rustix::io;

use super::LinuxGuest;
use crate::sys;

/// Descriptors below this number may be files of hosts: more than 300 at a time. The usual limit of a process is 1024,
/// so that the agent always has some left for its channels. Beyond: EMFILE.
pub const FILES: usize = 320;

/// Descriptors that the agent asks for where it was given fewer.
pub const DESCRIPTORS: u64 = 1024;

/// The handle of each descriptor; 0 for those that are no files of hosts.
pub struct Handles([u32; FILES]);

impl Handles {
    /// No file is open.
    pub const NONE: Self = Self([0; FILES]);

    /// The descriptor of a handle.
    #[inline(never)]
    fn find(&self, handle: i64) -> Option<RawFd> {
        let handle = u32::try_from(handle).ok().filter(|handle| *handle > 0)?;
        (0..).zip(&self.0).find(|(_, known)| **known == handle).map(|(number, _)| number)
    }

    fn file(&self, handle: i64) -> Result<BorrowedFd<'_>, Errno> {
        let number = self.find(handle).ok_or(sys::errno_of(errno::EBADF))?;
        // SAFETY: a descriptor in the table is open until `forget`, which needs the table for itself alone.
        Ok(unsafe { BorrowedFd::borrow_raw(number) })
    }

    fn keep(&mut self, file: OwnedFd, handle: u32) -> Result<(), Errno> {
        let place = usize::try_from(file.as_raw_fd()).ok().and_then(|number| self.0.get_mut(number));
        *place.ok_or(sys::errno_of(errno::EMFILE))? = handle;
        let _ = file.into_raw_fd();
        Ok(())
    }

    fn forget(&mut self, handle: i64) -> Option<OwnedFd> {
        let number = self.find(handle)?;
        *self.0.get_mut(usize::try_from(number).ok()?)? = 0;
        // SAFETY: `keep` was given this descriptor for good, and the table does not know it any more.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Files for LinuxGuest {
    fn open_file(&mut self, path: &CStr, mode: FileMode) -> Result<i64, Errno> {
        let file = open(path, mode).map_err(sys::errno)?;
        let handle = self.state.take_handle();
        self.tables.handles.keep(file, handle)?;
        Ok(i64::from(handle))
    }

    fn has_file(&self, handle: i64) -> bool {
        self.tables.handles.find(handle).is_some()
    }

    fn close_file(&mut self, handle: i64) -> Result<(), Errno> {
        self.tables.handles.forget(handle).map_or(Ok(()), sys::close).map_err(sys::errno)
    }

    fn read_file(&mut self, handle: i64, buffer: &mut [u8]) -> Result<usize, Errno> {
        io::read(self.tables.handles.file(handle)?, buffer).map_err(sys::errno)
    }

    fn write_file(&mut self, handle: i64, bytes: &[u8]) -> Result<usize, Errno> {
        io::write(self.tables.handles.file(handle)?, bytes).map_err(sys::errno)
    }

    fn seek_file(&mut self, handle: i64, offset: i64, whence: Whence) -> Result<i64, Errno> {
        let whence = match whence {
            Whence::Set => 0,
            Whence::Current => 1,
            Whence::End => 2,
        };
        sys::lseek(&self.tables.handles.file(handle)?, offset, whence).map_err(sys::errno)
    }
}

/// What is made is open to all, whatever the umask: the host decides who may have it. Until it is, nobody else has it.
#[inline(never)]
fn open(path: &CStr, mode: FileMode) -> io::Result<OwnedFd> {
    let mut flags = match mode.access {
        FileAccess::Read => OFlags::empty(),
        FileAccess::Write => OFlags::TRUNC,
        FileAccess::Append => OFlags::APPEND,
    };
    flags |= match mode {
        FileMode { update: true, .. } => OFlags::RDWR,
        FileMode { access: FileAccess::Read, .. } => OFlags::RDONLY,
        _ => OFlags::WRONLY,
    };
    flags |= OFlags::NOCTTY | OFlags::NONBLOCK;
    if mode.access != FileAccess::Read {
        match sys::open(CWD, path, flags | OFlags::CREATE | OFlags::EXCL) {
            Err(io::Errno::EXIST) => {}
            Ok(file) => {
                // Some file systems have no modes.
                let _ = fchmod(&file, Mode::from_raw_mode(0o666));
                return Ok(file);
            }
            error => return error,
        }
    }
    sys::open(CWD, path, flags)
}
