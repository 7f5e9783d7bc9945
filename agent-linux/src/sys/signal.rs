//! Signals: `signal(7)`. They are blocked and read from a descriptor, so there are no handlers.
//!
//! Which ones matter, and what they mean, is the business of the loop.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general as kernel;
use rustix::fd::{FromRawFd, OwnedFd, RawFd};

use super::{checked, raw, wide};
use crate::arch::{syscall3, syscall5};

/// A set of signals, as the kernel has it: bit N - 1 is signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// This set and one more signal, between 1 and 64.
    #[must_use]
    pub const fn with(self, signal: u32) -> Self {
        Self(self.0 | 1_u64.wrapping_shl(signal.wrapping_sub(1)))
    }
}

/// Replaces the set of blocked signals: `rt_sigprocmask(2)` with `SIG_SETMASK`. It cannot fail.
pub fn block_only(signals: SignalSet) {
    // SAFETY: the set is readable for the call, the old set is not asked for.
    unsafe {
        syscall5(
            kernel::__NR_rt_sigprocmask,
            2, // SIG_SETMASK, asm-generic/signal-defs.h
            (&raw const signals.0).expose_provenance(),
            0,
            size_of::<u64>(),
            0,
        );
    }
}

/// Gives every signal its default action, as at the start of a program: `rt_sigaction(2)`.
///
/// An agent sets no other. So a signal that has its default once has it for ever, also for the children to come, and
/// is not gone through again.
pub fn default_signals() {
    static USUAL: AtomicU64 = AtomicU64::new(0);
    let mut usual = USUAL.load(Ordering::Relaxed);
    for signal in 1..=64 {
        let bit = 1_u64.rotate_left(signal).rotate_right(1);
        if usual & bit == 0 && default_signal(signal) {
            usual |= bit;
        }
    }
    USUAL.store(usual, Ordering::Relaxed);
}

/// Gives this signal its default action. Did it have it before?
#[inline(never)]
pub fn default_signal(signal: u32) -> bool {
    // struct sigaction of the kernel: handler, flags, restorer, mask; a handler of zero means SIG_DFL.
    let (action, mut before) = ([0_usize; 4], [0_usize; 4]);
    // SAFETY: one structure is readable for the call and the other one writable. SIGKILL and SIGSTOP are refused, which
    // is as good.
    unsafe {
        syscall5(
            kernel::__NR_rt_sigaction,
            wide(signal),
            action.as_ptr().expose_provenance(),
            before.as_mut_ptr().expose_provenance(),
            size_of::<u64>(),
            0,
        );
    }
    let [handler, ..] = before;
    handler == 0
}

/// A descriptor from which the blocked signals of this set are read: `signalfd4(2)`, CLOEXEC and non-blocking.
pub fn signalfd(signals: SignalSet) -> rustix::io::Result<OwnedFd> {
    // SAFETY: the set is readable for the call.
    let fd = unsafe {
        syscall5(
            kernel::__NR_signalfd4,
            usize::MAX, // -1: a new descriptor
            (&raw const signals.0).expose_provenance(),
            size_of::<u64>(),
            wide(kernel::O_CLOEXEC | kernel::O_NONBLOCK), // SFD_*, linux/signalfd.h
            0,
        )
    };
    let fd = RawFd::try_from(checked(fd)?).unwrap_or(RawFd::MAX);
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal that waits in this descriptor, if there is one: `signalfd(2)`.
#[inline(never)]
pub fn next_signal(signals: &OwnedFd) -> Option<u32> {
    // struct signalfd_siginfo: its first word is the number of the signal.
    let mut info = MaybeUninit::<[u32; 32]>::uninit();
    let size = size_of_val(&info);
    // SAFETY: the structure is writable for the call.
    let read = unsafe { syscall3(kernel::__NR_read, raw(signals), info.as_mut_ptr().expose_provenance(), size) };
    // SAFETY: the kernel wrote all of one, or nothing.
    (read > 0).then(|| unsafe { info.assume_init_ref() }[0])
}

/// Sends a signal to a process, if it is there and this one may: `kill(2)`.
pub fn kill(process: usize, signal: u32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { syscall3(kernel::__NR_kill, process, wide(signal), 0) == 0 }
}
