//! The loop: one thread, one `epoll(7)`, woken by channels, signals and nothing else.

use agent_core::Agent;
use agent_core::guest::Errno;
use core::mem::MaybeUninit;
use heapless::Vec;
use linux_raw_sys::general as kernel;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use rustix::io::read;

use crate::channel::Channel;
use crate::guest::LinuxGuest;
use crate::memory::CHANNELS;
use crate::sys::{self, SignalSet};

/// The token of the signals; channels have their number.
const SIGNALS: u64 = u64::MAX;

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
        epoll::add(&epoll, &signals, EventData::new_u64(SIGNALS), EventFlags::IN).map_err(sys::errno)?;
        Ok(EventLoop { epoll, signals, agent, channels })
    }

    /// Serves the channels. Returns when a signal says so.
    pub fn run(mut self) -> Result<(), Errno> {
        let mut space = [MaybeUninit::<Event>::uninit(); CHANNELS + 1];
        loop {
            for channel in &mut self.channels {
                channel.arm(&self.epoll).map_err(sys::errno)?;
            }
            let timeout = self.timeout();
            let events: &[Event] = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => &[],
                Err(error) => return Err(sys::errno(error)),
            };
            for event in events {
                // The structure is packed.
                let Event { flags, data } = *event;
                if data.u64() == SIGNALS {
                    if self.signalled() {
                        return Ok(());
                    }
                } else if let Some(channel) = usize::try_from(data.u64()).ok().and_then(|at| self.channels.get_mut(at))
                {
                    channel.handle(flags, &mut self.agent, &self.epoll);
                }
            }
            self.tick();
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
            self.agent.guest.reap();
            for channel in &mut self.channels {
                channel.wake(&mut self.agent);
            }
        }
        false
    }

    fn tick(&mut self) {
        if self.channels.iter().all(|channel| channel.deadline_ms().is_none()) {
            return;
        }
        let now = sys::monotonic_ms();
        for channel in &mut self.channels {
            if channel.deadline_ms().is_some_and(|deadline| deadline <= now) {
                channel.tick(&mut self.agent);
            }
        }
    }

    /// How long nothing may happen until a deadline passes.
    fn timeout(&self) -> Option<Timespec> {
        let deadline = self.channels.iter().filter_map(Channel::deadline_ms).min()?;
        let wait_ms = i64::try_from(deadline.saturating_sub(sys::monotonic_ms())).unwrap_or(0);
        Some(Timespec { tv_sec: wait_ms / 1000, tv_nsec: (wait_ms % 1000).saturating_mul(1_000_000) })
    }
}
