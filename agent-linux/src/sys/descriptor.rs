//! The numbers of descriptors: those that have a meaning of their own, those that pass from program to program, how
//! many there may be.
//!
//! What lies behind one is the business of others.

use core::ffi::CStr;

use linux_raw_sys::{general as kernel, net};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{CWD, OFlags};

use super::{open, raw, wide};
use crate::arch::{syscall3, syscall5};

/// Takes the numbers 0 to 2, where nobody passed a descriptor: otherwise a channel would get one of them, and what
/// is meant for standard error would go to a host.
pub fn keep_standard_descriptors() {
    // Nothing can be written to a descriptor of this kind, and the root folder is always there.
    while let Ok(placeholder) = open(CWD, c"/", OFlags::PATH) {
        if placeholder.as_raw_fd() > 2 {
            break;
        }
        core::mem::forget(placeholder);
    }
}

/// Writes to standard output (1), standard error (2) or another descriptor. Was all of it written? The first two
/// numbers are never a channel's: see [`keep_standard_descriptors`].
#[inline(never)]
pub fn print(number: usize, bytes: &[u8]) -> bool {
    let place = bytes.as_ptr().expose_provenance();
    // SAFETY: the bytes are readable for the call.
    let written = unsafe { syscall3(kernel::__NR_write, number, place, bytes.len()) };
    written.cast_unsigned() == bytes.len()
}

/// Gives a descriptor a second number, for a program to inherit: `dup3(2)`.
///
/// # Safety
///
/// Nobody may use what had that number, or drop what owns it.
pub unsafe fn copy_to(file: BorrowedFd<'_>, number: usize) {
    // SAFETY: no memory is involved, and the caller vouches for the descriptor.
    unsafe { syscall3(kernel::__NR_dup3, raw(&file), number, 0) };
}

/// Closes every descriptor from `first` to `last`: `close_range(2)`.
///
/// # Safety
///
/// Nobody may use one of them any more, or drop what owns it.
pub unsafe fn close_range(first: u32, last: u32) {
    // SAFETY: no memory is involved, and the caller vouches for the descriptors.
    let result = unsafe { syscall3(kernel::__NR_close_range, wide(first), wide(last), 0) };
    if result < 0 {
        // Before Linux 5.9: one by one, up to the usual limit of a process.
        for fd in first..=last.min(1023) {
            // SAFETY: the same.
            unsafe { syscall3(kernel::__NR_close, wide(fd), 0, 0) };
        }
    }
}

/// Lets this process have so many descriptors, if it may: `prlimit(2)` with `RLIMIT_NOFILE`.
pub fn allow_descriptors(number: u64) {
    let mut limits = [0_u64; 2]; // struct rlimit64: soft, hard
    let address = (&raw mut limits).expose_provenance();
    let resource = wide(kernel::RLIMIT_NOFILE);
    // SAFETY: one structure is writable for the first call, another readable for the second. 0 is this process.
    unsafe {
        syscall5(kernel::__NR_prlimit64, 0, resource, 0, address, 0);
        let [soft, hard] = limits;
        let raised = [soft.max(number.min(hard)), hard];
        syscall5(kernel::__NR_prlimit64, 0, resource, (&raw const raised).expose_provenance(), 0, 0);
    }
}

/// A descriptor for the socket that was passed to the process, if hosts can connect to it: the one whose number is the
/// last digit of its name. That stays open: should the agent start anew, it finds it again.
///
/// Not through rustix: it checks what the kernel returns with an assertion that formats numbers.
pub fn passed_listener(name: &CStr) -> rustix::io::Result<OwnedFd> {
    let number = name.to_bytes().last().map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
    let (mut listens, mut len) = (0_u32, size_of::<u32>());
    // SAFETY: the option's value and its length are writable for the call; the new descriptor is nobody else's.
    unsafe {
        let value = (&raw mut listens).expose_provenance();
        let (level, option) = (wide(net::SOL_SOCKET), wide(net::SO_ACCEPTCONN));
        syscall5(kernel::__NR_getsockopt, number, level, option, value, (&raw mut len).expose_provenance());
        let copy = syscall3(kernel::__NR_fcntl, number, wide(kernel::F_DUPFD_CLOEXEC), 3);
        if listens != 1 || copy < 0 {
            return Err(rustix::io::Errno::INVAL);
        }
        syscall3(kernel::__NR_fcntl, number, wide(kernel::F_SETFL), wide(kernel::O_NONBLOCK));
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(copy).unwrap_or(RawFd::MAX)))
    }
}
