//! Files and folders, from opening to closing.
//!
//! None of this is bounded in time. It knows what a file is made of, and not what is in it.

use core::ffi::CStr;

use linux_raw_sys::general as kernel;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{descriptor, done, raw, wide};
use crate::arch::{syscall3, syscall5};

/// Opens a file that no helper program shall have.
#[inline]
pub fn open(folder: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_inheritable(folder, path, flags | OFlags::CLOEXEC)
}

/// Opens a file: `openat(2)`. One place for all, because each call costs eighty bytes.
#[inline(never)]
pub fn open_inheritable(folder: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    #[cfg(test)]
    let path = &*crate::testing::below_root(path);
    openat(folder, path, flags, Mode::empty())
}

/// Reads a file from its front on, as far as there is room: how many bytes; none if it cannot be read.
#[inline(never)]
pub fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    read_at(CWD, path, buffer).len()
}

/// The same with a path that may begin in this folder: the bytes.
#[inline(never)]
pub fn read_at<'b>(folder: BorrowedFd<'_>, path: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    let mut len = 0_usize;
    if let Ok(file) = open(folder, path, OFlags::RDONLY) {
        loop {
            let more = read(&file, buffer.get_mut(len..).unwrap_or_default());
            if more == 0 {
                break;
            }
            len = len.wrapping_add(more);
        }
    }
    buffer.get(..len).unwrap_or_default()
}

/// Where a symbolic link leads, as far as there is room; nothing if it is none: `readlinkat(2)`.
#[inline(never)]
pub fn read_link<'b>(folder: BorrowedFd<'_>, path: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    #[cfg(test)]
    let path = &*crate::testing::below_root(path);
    let (path, place) = (path.as_ptr().expose_provenance(), buffer.as_mut_ptr().expose_provenance());
    // SAFETY: a readable string, and a buffer that is writable for the call.
    let length = unsafe { syscall5(kernel::__NR_readlinkat, raw(&folder), path, place, buffer.len(), 0) };
    buffer.get(..length.max(0).unsigned_abs()).unwrap_or_default()
}

/// Reads on in a file: how many bytes; none at its end, or if it cannot be read: `read(2)`.
#[inline(never)]
pub fn read(file: &OwnedFd, buffer: &mut [u8]) -> usize {
    let place = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the buffer is writable for the call.
    let read = unsafe { syscall3(kernel::__NR_read, raw(file), place, buffer.len()) };
    usize::try_from(read).unwrap_or(0)
}

/// Writes to a file or a channel. Was all of it written?
pub fn write(file: &impl AsRawFd, bytes: &[u8]) -> bool {
    descriptor::print(raw(file), bytes)
}

/// Goes through the names in a folder, but for those that begin with a dot, and gives the folder along:
/// `getdents64(2)`. There are none in one that cannot be read.
///
/// Not through rustix, whose reader of folders is thrice as large.
#[inline(never)]
pub fn list(folder: BorrowedFd<'_>, path: &CStr, each: &mut dyn FnMut(BorrowedFd<'_>, &CStr)) {
    let Ok(folder) = open(folder, path, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return;
    };
    let folder = folder.as_fd();
    // More than the longest name takes.
    let mut space = [0_u8; 512];
    loop {
        // SAFETY: the space is writable for the call.
        let read = unsafe {
            syscall3(kernel::__NR_getdents64, raw(&folder), space.as_mut_ptr().expose_provenance(), space.len())
        };
        let mut rest = usize::try_from(read).ok().and_then(|len| space.get(..len)).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        // struct linux_dirent64: inode and position, 8 bytes each, length u16, type u8, name with its NUL.
        while let Some((&[.., l0, l1, _], name)) = rest.split_first_chunk::<19>() {
            if name.first() != Some(&b'.') {
                // SAFETY: the kernel ends each name with a NUL.
                each(folder, unsafe { CStr::from_ptr(name.as_ptr().cast()) });
            }
            // Never 0; if it were, this would be the end.
            let length = usize::from(u16::from_ne_bytes([l0, l1])).wrapping_sub(1);
            rest = rest.get(length..).and_then(|rest| rest.get(1..)).unwrap_or_default();
        }
    }
}

/// Moves to another place in a file, counted from the start (0), from where it is (1), or from the end (2): `lseek(2)`.
///
/// Not through rustix: a host may ask for what its types cannot say, and shall hear what the kernel says of that.
pub fn lseek(file: &impl AsRawFd, offset: i64, whence: usize) -> rustix::io::Result<i64> {
    let offset = isize::try_from(offset).unwrap_or(isize::MIN).cast_unsigned();
    // SAFETY: no memory is involved.
    let position = unsafe { syscall3(kernel::__NR_lseek, raw(file), offset, whence) };
    if position < 0 {
        done(position)?;
    }
    Ok(i64::try_from(position).unwrap_or(i64::MAX))
}

/// Locks a whole file for writing, unless another process has: `F_OFD_SETLK` of `fcntl(2)`. The lock is in the way of
/// those of lockf(3) too, which qemu-ga(8) takes, and belongs to the open file: a forked process keeps it.
pub fn lock(file: &impl AsRawFd) -> rustix::io::Result<()> {
    let lock = kernel::flock {
        l_type: 1,   // F_WRLCK, asm-generic/fcntl.h
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let lock = (&raw const lock).expose_provenance();
    // SAFETY: the structure is readable for the call.
    done(unsafe { syscall3(kernel::__NR_fcntl, raw(file), wide(kernel::F_OFD_SETLK), lock) })
}

/// Closes a descriptor, and says what the kernel found wrong then: `close(2)`.
pub fn close(file: OwnedFd) -> rustix::io::Result<()> {
    let number = raw(&file);
    core::mem::forget(file);
    // SAFETY: no memory is involved, and the descriptor was owned and is forgotten.
    done(unsafe { syscall3(kernel::__NR_close, number, 0, 0) })
}
