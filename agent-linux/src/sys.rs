//! The system calls that rustix does not offer, typed: a topic a file. Here is what they share, and what has
//! no topic.
//!
//! It knows numbers and structures of the kernel, and nothing about what the agent does with them.

#![allow(unsafe_code, reason = "system calls")]

mod clock;
mod control;
mod descriptor;
mod event;
mod file;
mod process;
pub mod random;
mod signal;
pub mod socket;
mod strings;
pub mod vsock;

pub use clock::{device_clock, monotonic_ms, realtime, rtc, set_realtime};
pub use control::{OfFileSystem, ask_file_system, make_raw, netlink_strict};
pub use descriptor::{allow_descriptors, close_range, copy_to, keep_standard_descriptors, passed_listener, print};
pub use event::{FOR_EVER, epoll_wait, events};
pub use file::{close, list, lock, lseek, open, open_inheritable, read, read_at, read_file, read_link, write};
pub use process::{ANY, ITSELF, PROGRAMS, become_agent, execve, execve_words, exit, fork, is_copy, vfork, wait};
pub use signal::{SignalSet, block_only, default_signal, default_signals, kill, next_signal, signalfd};
pub use strings::{PATH, Strings, join, tail};

use agent_core::guest::Errno;
use rustix::fd::AsRawFd;

/// Some numbers as bytes, to be written and read by this program only.
pub fn bytes_of(numbers: &mut [u64; 4]) -> &mut [u8] {
    // SAFETY: all bytes of numbers are bytes, all bytes make numbers, and they are borrowed alike.
    unsafe { core::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// Bytes of memory that the guest has: `sysinfo(2)`.
#[inline(never)]
pub fn memory() -> u64 {
    let memory = rustix::system::sysinfo();
    memory.totalram.saturating_mul(u64::from(memory.mem_unit))
}

/// The seam's number of an error of rustix.
pub fn errno(error: rustix::io::Errno) -> Errno {
    // Never above 4095.
    let [low, high, ..] = error.raw_os_error().to_le_bytes();
    Errno(u16::from_le_bytes([low, high]))
}

/// The seam's number of an error of the kernel's headers (`linux_raw_sys::errno`).
#[allow(clippy::as_conversions, reason = "not one of them is above 4095, and this is evaluated by the compiler")]
pub const fn errno_of(number: u32) -> Errno {
    Errno(number as u16)
}

/// What a system call returned whose numbers are small: the kernel reports an error as a number between -4095 and -1.
#[inline(never)]
pub(crate) fn checked(result: isize) -> rustix::io::Result<u32> {
    // With a larger number it would be too large for a register.
    u32::try_from(result).map_err(|_| {
        // As the types see it, it could be any negative number.
        let number = i32::try_from(result.wrapping_neg()).unwrap_or(0);
        rustix::io::Errno::from_raw_os_error(number.clamp(1, 4095))
    })
}

/// The same of a call that returns nothing else.
pub(crate) fn done(result: isize) -> rustix::io::Result<()> {
    checked(result).map(drop)
}

/// A descriptor as the kernel takes it.
pub(crate) fn raw(fd: &impl AsRawFd) -> usize {
    // Not through `AsFd`, which makes sure that no descriptor is -1 wherever it is used.
    isize::try_from(fd.as_raw_fd()).unwrap_or(-1).cast_unsigned()
}

/// A `u32` as the kernel's `long`.
pub(crate) fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
