//! The end of the guest.

use core::task::Poll;

use super::{Errno, Job};

/// How the guest may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Everything is stopped, and the machine powered off.
    PowerDown,
    /// Everything is stopped, and the machine stays on.
    Halt,
    /// Everything is stopped, and the machine starts anew.
    Reboot,
}

/// Why the guest does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownError {
    /// The helper program ended with this exit status (128 + N when signal N killed it).
    Helper(u8),
    /// The kernel refused, or the job was killed.
    Kernel(Errno),
}

/// The end of the guest.
pub trait Shutdown {
    /// Starts to end it, in a job of its own.
    fn shut_down(&mut self, mode: ShutdownMode) -> Result<Job, Errno>;

    /// How that job ended, once it has: `Ok` if the guest is about to end. Ready at most once.
    fn shutting_down(&mut self, job: Job) -> Poll<Result<(), ShutdownError>>;
}
