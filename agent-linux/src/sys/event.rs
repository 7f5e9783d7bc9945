//! Waiting: `epoll(7)` and `poll(2)`.
//!
//! It knows descriptors and times, and not who waits for what.

use linux_raw_sys::general as kernel;
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{BorrowedFd, OwnedFd};

use super::{checked, raw};
use crate::arch::syscall5;

/// The time that does not run out, for [`epoll_wait`]: -1 as the kernel reads it.
pub const FOR_EVER: usize = usize::MAX;

/// Waits for an event, and no longer than so many milliseconds: `epoll_pwait(2)`. What happened, and to which token; a
/// signal is no event.
///
/// Not through rustix: it takes seconds and nanoseconds apart and puts them together again.
pub fn epoll_wait(epoll: &OwnedFd, timeout_ms: usize) -> rustix::io::Result<Option<(EventFlags, u64)>> {
    let mut event = epoll::Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    let place = (&raw mut event).expose_provenance();
    // SAFETY: the event is writable for the call, and what the kernel writes makes a valid one. There is no mask.
    match checked(unsafe { syscall5(kernel::__NR_epoll_pwait, raw(epoll), place, 1, timeout_ms, 0) }) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
        // By value: a field of a packed structure has no reference.
        Ok(_) => Ok(Some(({ event.flags }, { event.data }.u64()))),
        Err(error) => Err(error),
    }
}

/// What has happened to a descriptor, of these events and the errors: `ppoll(2)`, which does not wait here.
#[inline(never)]
pub fn events(of: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut files = [PollFd::from_borrowed_fd(of, events)];
    let now = [0_i64; 2]; // struct timespec
    // SAFETY: one `struct pollfd`, writable for the call, and a readable time. There is no mask.
    unsafe {
        let now = now.as_ptr().expose_provenance();
        syscall5(kernel::__NR_ppoll, files.as_mut_ptr().expose_provenance(), files.len(), now, 0, 0);
    }
    let [file] = files;
    file.revents()
}
