//! The loop: one thread, one `epoll(7)`, woken by channels, signals and nothing else.

use core::mem::MaybeUninit;

use agent_core::Agent;
use agent_core::guest::Errno;
use heapless::Vec;
use linux_raw_sys::general as kernel;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::read;

use crate::channel::{Channel, NEVER};
use crate::guest::LinuxGuest;
use crate::memory::CHANNELS;
use crate::sys::{self, SignalSet};

/// The signals that are waited for. SIGPIPE is only blocked: a write says the same by its error.
const HANDLED: SignalSet = SignalSet::EMPTY.with(kernel::SIGTERM).with(kernel::SIGINT).with(kernel::SIGCHLD);

/// What runs until a signal ends it.
pub struct EventLoop {
    epoll: OwnedFd,
    signals: OwnedFd,
    agent: Agent<LinuxGuest>,
    channels: Vec<Channel, CHANNELS>,
}

impl EventLoop {
    /// From here on signals wait for the loop.
    pub fn new(agent: Agent<LinuxGuest>, channels: Vec<Channel, CHANNELS>) -> Result<Self, Errno> {
        sys::block_only(HANDLED.with(kernel::SIGPIPE));
        let signals = sys::signalfd(HANDLED)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(sys::errno)?;
        // Channels have their number for a token, and so do the signals: one that no channel has.
        epoll::add(&epoll, &signals, EventData::new_u64(u64::MAX), EventFlags::IN).map_err(sys::errno)?;
        Ok(EventLoop { epoll, signals, agent, channels })
    }

    /// Serves the channels. Returns when a signal says so.
    pub fn run(&mut self) -> Result<(), Errno> {
        let mut space = [MaybeUninit::<Event>::uninit(); CHANNELS + 1];
        loop {
            let mut deadline_ms = NEVER;
            for channel in &mut self.channels {
                channel.arm(self.epoll.as_fd()).map_err(sys::errno)?;
                deadline_ms = deadline_ms.min(channel.deadline_ms());
            }
            let mut wait = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut timeout = None;
            if deadline_ms != NEVER {
                let wait_ms = deadline_ms.saturating_sub(sys::monotonic_ms()).min(10_000);
                wait.tv_sec = i64::try_from(wait_ms / 1000).unwrap_or(0);
                wait.tv_nsec = i64::try_from(wait_ms % 1000).unwrap_or(0).wrapping_mul(1_000_000);
                timeout = Some(&wait);
            }
            let events = match epoll::wait(&self.epoll, &mut space, timeout) {
                Ok((events, _)) => &*events,
                Err(rustix::io::Errno::INTR) => &[],
                Err(error) => return Err(sys::errno(error)),
            };
            for event in events {
                // The structure is packed.
                let Event { flags, data } = *event;
                let token = usize::try_from(data.u64()).unwrap_or(usize::MAX);
                if let Some(channel) = self.channels.get_mut(token) {
                    channel.handle(flags, &mut self.agent, self.epoll.as_fd());
                } else if self.signalled() {
                    return Ok(());
                }
            }
            if deadline_ms != NEVER {
                let now_ms = sys::monotonic_ms();
                for channel in &mut self.channels {
                    if channel.deadline_ms() <= now_ms {
                        channel.tick(&mut self.agent);
                    }
                }
            }
        }
    }

    /// Takes the signals. Is it time to end?
    fn signalled(&mut self) -> bool {
        // struct signalfd_siginfo: its first word is the number of the signal (signalfd(2)).
        let mut info = [0u8; 128];
        while let Ok(128) = read(&self.signals, &mut info) {
            let [a, b, c, d, ..] = info;
            if u32::from_ne_bytes([a, b, c, d]) != kernel::SIGCHLD {
                return true;
            }
        }
        self.agent.guest.reap();
        for channel in &mut self.channels {
            channel.wake(&mut self.agent);
        }
        false
    }
}
