//! The seam: everything the agent may ever do to the guest it runs in.
//!
//! Small traits by domain, a file each, implemented by `agent-linux` for the real thing and by a fake for tests and
//! fuzzers. A method stands here when it has both, and a command that uses it. These files know no protocol and no
//! Linux beyond the number of an error.

mod clock;
mod files;
mod network;
mod power;
mod processes;
mod shutdown;
mod storage;
mod system;

pub use clock::{Clock, ClockError};
pub use files::{FileAccess, FileMode, Files, Whence};
pub use network::{Address, Event, Link, Network, Statistics};
pub use power::{Power, Suspend, SuspendError};
pub use processes::{Capture, Captured, End, Process, Processes, Program, StartError, Stream};
pub use shutdown::{Shutdown, ShutdownError, ShutdownMode};
pub use storage::{Bus, DiskAddress, FileSystem, FileSystems, Freeze, FreezeError, Step, Trim, Trimmed, Usage};
pub use system::{LOAD_SCALE, OsFact, System, User};

/// An error number of the kernel, positive, as in `errno(3)`. Its English stands in `error.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

/// Something the guest does while the agent goes on serving: a helper program, a blocking call in a worker.
///
/// The number is the guest's own and is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job(pub u32);

/// A guest: one value that implements every domain.
pub trait Guest: Clock + FileSystems + Files + Freeze + Network + Power + Processes + Shutdown + System + Trim {
    /// Are its file systems frozen? Then only commands run that write nowhere: the others would wait for the thaw.
    fn is_frozen(&self) -> bool;

    /// A host is about to change something: notes the name of the command, which is the first word, and those of its
    /// arguments that may be known.
    fn audit(&mut self, words: &[&[u8]]);

    /// Nobody waits for this job any more (its host has gone). It runs to its end; its result is dropped.
    fn abandon(&mut self, job: Job);
}
