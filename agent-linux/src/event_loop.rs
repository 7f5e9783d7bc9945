//! The loop: one thread, one `epoll(7)`, woken by channels, signals, the output of programs and nothing else.

use agent_core::Agent;
use linux_raw_sys::general as kernel;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};

use crate::channel::{Channel, NEVER};
use crate::guest::reseed::EVENTS;
use crate::guest::{LinuxGuest, freeze};
use crate::init::Init;
use crate::log::{Failed, failed};
use crate::options::FULL;
use crate::sys::{self, SignalSet};

/// The signals that are waited for.
const HANDLED: SignalSet = SignalSet::EMPTY.with(kernel::SIGTERM).with(kernel::SIGINT).with(kernel::SIGCHLD);

/// What errors of the loop itself are said of.
const SELF: &[u8] = b"event loop";

/// The token of the signals. Channels have their number; for pipes see `guest/exec.rs`.
const SIGNALS: u64 = u64::MAX;

/// The token of what announces devices.
const DEVICES: u64 = u64::MAX - 2;

/// The signals that are waited for, by the first process or another agent.
fn handled(is_first: bool) -> SignalSet {
    if is_first { Init::signals() } else { HANDLED }
}

/// Has signals wait for the loop. To be called before anything is opened, so that one that comes early ends the agent
/// as a later one does. SIGPIPE is only blocked: a write says the same by its error.
#[inline(never)]
pub fn block_signals(is_first: bool) {
    sys::block_only(handled(is_first).with(kernel::SIGPIPE));
}

/// Serves the channels. Returns when a signal says so, or with what could not be waited for and why.
pub fn run(agent: &mut Agent<LinuxGuest>, channels: &mut [Channel]) -> Result<(), Failed> {
    let mut what = SELF;
    serve(agent, channels, &mut what).map_err(|error| failed(what, error))
}

/// The same. `what` is changed to what could not be waited for.
fn serve(agent: &mut Agent<LinuxGuest>, channels: &mut [Channel], what: &mut &'static [u8]) -> rustix::io::Result<()> {
    // Whoever started the agent may ignore it. Then the kernel would tell of no child that has ended.
    sys::default_signal(kernel::SIGCHLD);
    let signals = sys::signalfd(handled(!agent.guest.tables.init.is_empty()))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    if cfg!(feature = "exec") {
        agent.guest.tables.records.watch_by(&epoll);
    }
    epoll::add(&epoll, &signals, EventData::new_u64(SIGNALS), EventFlags::IN)?;
    if FULL {
        // No kernel is without these events; if one is, the rest does not depend on them.
        let _ = agent.guest.watch_generation(&epoll);
        agent.guest.reseed();
    }
    let mut last = 0;
    if let Some(devices) = agent.guest.tables.init.first().and_then(Init::devices) {
        epoll::add(&epoll, devices, EventData::new_u64(DEVICES), EventFlags::IN)?;
    }
    loop {
        let mut deadline_ms = agent.guest.deadline_ms();
        if let Some(init) = agent.guest.tables.init.first_mut() {
            deadline_ms = deadline_ms.min(init.tick());
            if init.is_ending() {
                return Ok(());
            }
        }
        let mut all_open = true;
        for channel in &mut *channels {
            channel.arm(epoll.as_fd()).inspect_err(|_| *what = channel.path())?;
            deadline_ms = deadline_ms.min(channel.deadline_ms());
            all_open &= channel.is_open();
        }
        if FULL && all_open {
            agent.guest.tell_ready();
        }
        let mut timeout_ms = sys::FOR_EVER;
        if deadline_ms != NEVER {
            let wait_ms = deadline_ms.saturating_sub(sys::monotonic_ms()).min(10_000);
            timeout_ms = usize::try_from(wait_ms).unwrap_or(0);
        }
        // One at a time: there are rarely two, and each may change what is waited for.
        if let Some((flags, token)) = sys::epoll_wait(&epoll, timeout_ms)? {
            let number = usize::try_from(token).unwrap_or(usize::MAX);
            if let Some(channel) = channels.get_mut(number) {
                channel.handle(flags, agent, epoll.as_fd());
                // Of many channels only one holds on to memory that none needs while it is idle.
                if number != last && channels.len() > 2 {
                    channels.get_mut(last).map(Channel::rest);
                }
                last = number;
            } else if FULL && token == EVENTS {
                agent.guest.take_event();
            } else if token == DEVICES {
                if let Some(init) = agent.guest.tables.init.first() {
                    init.announced();
                }
            } else if cfg!(feature = "exec") && token != SIGNALS {
                agent.guest.tables.records.ready(token, flags);
            } else if is_end(&signals, agent.guest.tables.init.first_mut()) {
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
            if freeze::ABLE && agent.guest.deadline_ms() <= now_ms {
                agent.guest.tick();
            }
            for channel in &mut *channels {
                if channel.deadline_ms() <= now_ms {
                    channel.tick(agent);
                }
            }
        }
    }
}

/// Takes a signal; another one says so again. Is it another than SIGCHLD? The first process decides for itself what it
/// means.
fn is_end(signals: &OwnedFd, init: Option<&mut Init>) -> bool {
    match (sys::next_signal(signals), init) {
        (Some(signal), None) => signal != kernel::SIGCHLD,
        (Some(signal), Some(init)) => {
            init.signal(signal);
            false
        }
        (None, _) => false,
    }
}
