//! The loop: one thread, one `epoll(7)`, woken by channels, signals and nothing else.

use agent_core::Agent;
use agent_core::guest::Errno;
use linux_raw_sys::{errno, general as kernel};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::read;

use crate::channel::{Channel, NEVER};
use crate::guest::LinuxGuest;
use crate::memory::CHANNELS;
use crate::sys::{self, SignalSet};

/// The signals that are waited for. SIGPIPE is only blocked: a write says the same by its error.
const HANDLED: SignalSet = SignalSet::EMPTY.with(kernel::SIGTERM).with(kernel::SIGINT).with(kernel::SIGCHLD);

const EINTR: Errno = sys::errno_of(errno::EINTR);

/// What errors of the loop itself are said of.
const SELF: &[u8] = b"event loop";

/// The token of the signals. Channels have their number.
const SIGNALS: u64 = u64::MAX;

/// Serves the channels. Returns when a signal says so, or with what could not be waited for and why.
#[inline(never)]
pub fn run(agent: &mut Agent<LinuxGuest>, channels: &mut [Channel]) -> Result<(), (&'static [u8], Errno)> {
    sys::block_only(HANDLED.with(kernel::SIGPIPE));
    let signals = sys::signalfd(HANDLED).map_err(|error| (SELF, error))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| (SELF, sys::errno(error)))?;
    let data = EventData::new_u64(SIGNALS);
    epoll::add(&epoll, &signals, data, EventFlags::IN).map_err(|error| (SELF, sys::errno(error)))?;
    let mut space = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; CHANNELS + 1];
    loop {
        let mut deadline_ms = NEVER;
        for channel in &mut *channels {
            channel.arm(epoll.as_fd()).map_err(|error| (channel.path(), sys::errno(error)))?;
            deadline_ms = deadline_ms.min(channel.deadline_ms());
        }
        let mut timeout_ms = sys::FOR_EVER;
        if deadline_ms != NEVER {
            let wait_ms = deadline_ms.saturating_sub(sys::monotonic_ms()).min(10_000);
            timeout_ms = usize::try_from(wait_ms).unwrap_or(0);
        }
        let events = match sys::epoll_wait(&epoll, &mut space, timeout_ms) {
            Ok(count) => space.get(..count).unwrap_or_default(),
            Err(EINTR) => &[],
            Err(error) => return Err((SELF, error)),
        };
        for event in events {
            // By value: a field of a packed structure has no reference.
            let Event { flags, data } = *event;
            let token = usize::try_from(data.u64()).unwrap_or(usize::MAX);
            if let Some(channel) = channels.get_mut(token) {
                channel.handle(flags, agent, epoll.as_fd());
            } else if is_end(signals.as_fd()) {
                return Ok(());
            } else {
                agent.guest.reap();
                for channel in &mut *channels {
                    channel.wake(agent);
                }
            }
        }
        if deadline_ms != NEVER {
            let now_ms = sys::monotonic_ms();
            for channel in &mut *channels {
                if channel.deadline_ms() <= now_ms {
                    channel.tick(agent);
                }
            }
        }
    }
}

/// Takes the signals. Is one of them another than SIGCHLD?
fn is_end(signals: BorrowedFd<'_>) -> bool {
    // struct signalfd_siginfo: its first word is the number of the signal (signalfd(2)).
    let mut info = [0u8; 128];
    let mut end = false;
    while let Ok(128) = read(signals, &mut info) {
        let [a, b, c, d, ..] = info;
        end |= u32::from_ne_bytes([a, b, c, d]) != kernel::SIGCHLD;
    }
    end
}
