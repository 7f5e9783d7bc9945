//! Sleep.

use core::ffi::CStr;
use core::task::Poll;

use super::{Errno, Job};

/// The ways of `guest-suspend-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspend {
    /// Memory is written to swap and the machine powered off ("hibernate", S4).
    Disk,
    /// Memory stays powered, everything else sleeps ("suspend", S3).
    Ram,
    /// Memory is written to swap, then the machine sleeps as for [`Suspend::Ram`].
    Hybrid,
}

/// Why the guest did not sleep, or could not be woken properly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendError {
    /// The kernel, its configuration or the machine cannot sleep this way, and be woken again.
    Unsupported,
    /// It is being put to sleep already, or just waking up.
    Busy,
    /// Writing this file failed.
    Write(&'static CStr, Errno),
    /// This helper program ended with this exit status (128 + N when signal N killed it).
    Helper(&'static CStr, u8),
    /// The job itself could not be started or was killed.
    Job(Errno),
}

/// Sleep.
pub trait Power {
    /// Starts to put the guest to sleep, in a job of its own.
    fn suspend(&mut self, mode: Suspend) -> Result<Job, SuspendError>;

    /// How that job ended, once it has: `Ok` after the guest slept and woke up again. Ready at most once.
    fn suspended(&mut self, job: Job) -> Poll<Result<(), SuspendError>>;
}
