//! A channel: the descriptor of the moment, the session on it, and what happens when the one or the other ends.
//!
//! It knows no protocol, and leaves the bytes to `channel/transfer.rs`. It never blocks and never polls: after each
//! event it says what the next one can be.

mod absent;
mod isa_serial;
mod transfer;
mod unix;
mod virtio_serial;
pub mod vsock;

use absent::Absent;
use agent_core::packed;
use agent_core::{Agent, Session};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use transfer::{Effort, is_hung_up};

use crate::guest::LinuxGuest;
use crate::log::{INFO, say_of, say_why, tell};
use crate::memory::{ChannelMemory, INPUT};
use crate::options::{FULL, Method, Name, Options, Peer, Place};
use crate::spool::Spool;
use crate::sys;

/// The deadline that does not come.
pub const NEVER: u64 = u64::MAX;

/// Milliseconds in which the kernel has to notice that a host is there, whose first bytes it has delivered already, or
/// that is still there after a job, which may have been a sleep.
const APPEARING_MS: u64 = 200;

/// Milliseconds before another try at what just failed.
const RETRY_MS: u64 = 1_000;

/// Milliseconds that a vsock host may leave a reply unread while another one waits. There are devices that do not say
/// that it has gone.
const UNREAD_MS: u64 = 5_000;

/// A vsock listener has another host waiting. It might be that the kernel has not heard of the going of the one before:
/// a machine that was restored from a snapshot may have lost connections without having been told.
const KNOCK: EventFlags = EventFlags::RDNORM;

/// What the channel waits on.
enum Line {
    /// Bytes of a host.
    Stream(OwnedFd),
    /// The listener: no host is connected.
    Listening,
    /// Nothing but the hope for a device.
    Absent(Absent),
}

/// The host behind a virtio port. That of any other line is there as long as the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// There is none. The port says so for ever, so it is watched for changes only.
    Gone,
    /// Its bytes are there, or a job has just ended; the port may still look hung up.
    Appearing,
    /// The port said so. If it hangs up now, this host has gone.
    Present,
}

/// One channel of the agent. What is large stands last, so that the code reaches all else by a short offset.
#[repr(C)]
pub struct Channel {
    place: Place,
    verbose: bool,
    /// Wait for what cannot be opened, from the start.
    retry: bool,
    /// Who may connect, if it is a vsock.
    vsock_peer: Peer,
    /// Tells this channel's events from those of others.
    token: usize,
    line: Line,
    /// Of a channel that hosts connect to.
    listener: Option<OwnedFd>,
    spool: Spool,
    input: &'static mut [u8; INPUT],
    /// The part of `input` that the session has not taken.
    unread: (usize, usize),
    /// The host does not take what we send, for now.
    blocked: bool,
    host: Host,
    /// More bytes went through than a page holds, since the pages went back.
    bulk: bool,
    /// When [`Channel::tick`] is due, in milliseconds of the monotonic clock.
    deadline_ms: u64,
    /// When the device was opened again, on the same clock.
    opened_ms: u64,
    /// What epoll was told about `line`.
    armed: Option<EventFlags>,
    session: Session<'static>,
}

impl Channel {
    /// A channel that is not open yet.
    pub fn new(place: &Place, token: usize, options: &Options, memory: &'static mut ChannelMemory) -> Self {
        let ChannelMemory { input, frame, replies } = memory;
        Channel {
            place: *place,
            verbose: options.verbose,
            retry: options.is_on(Name::RetryPath),
            vsock_peer: options.vsock_peer,
            token,
            line: Line::Listening,
            listener: None,
            session: Session::new(frame.0.get_mut(..options.max_request).unwrap_or_default(), &mut replies.0),
            spool: Spool::new(),
            input: &mut input.0,
            unread: (0, 0),
            blocked: false,
            host: if place.method == Method::VirtioSerial { Host::Gone } else { Host::Present },
            bulk: false,
            deadline_ms: NEVER,
            opened_ms: 0,
            armed: None,
        }
    }

    /// Opens it. A device that another process holds is waited for; one that is missing is an error.
    #[inline(never)]
    pub fn open(&mut self) -> Result<(), Errno> {
        match open_line(&self.place) {
            Ok(opened) => self.take(opened),
            Err(Errno::BUSY) => {
                say_of(packed!("% is held by another process: waiting for it"), self.path());
                self.change_line(Line::Absent(Absent::new(self.place.path)?));
                if let Line::Absent(absent) = &self.line {
                    absent.watch_closing(self.place.path);
                }
            }
            Err(error) if self.retry => {
                say_why(packed!("%: !: waiting for it"), self.path(), error);
                self.watch_for_device();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Goes on with what has been opened.
    fn take(&mut self, opened: OwnedFd) {
        if self.place.method.listens() {
            self.listener = Some(opened);
            self.change_line(Line::Listening);
        } else {
            self.change_line(Line::Stream(opened));
        }
    }

    /// Can hosts reach the agent here?
    pub fn is_open(&self) -> bool {
        self.listener.is_some() || matches!(self.line, Line::Stream(_))
    }

    fn event_data(&self) -> EventData {
        EventData::new_u64(u64::try_from(self.token).unwrap_or(u64::MAX))
    }

    fn is_vsock(&self) -> bool {
        FULL && self.place.method == Method::VsockListen
    }

    /// Where it is.
    pub fn path(&self) -> &'static [u8] {
        self.place.path.to_bytes()
    }

    /// When [`Channel::tick`] wants to be called, in milliseconds of the monotonic clock.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Tells epoll what is being waited for, if that has changed.
    #[inline(never)]
    pub fn arm(&mut self, epoll: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut interest = match self.line {
            // A vsock says that its host has closed by RDHUP alone, once and for all.
            Line::Stream(_) if self.blocked && self.is_vsock() => EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
            Line::Stream(_) if self.blocked => EventFlags::OUT,
            // Whatever the host sends has to wait for the command; only its going is of interest, and always told.
            Line::Stream(_) if self.session.is_parked() => EventFlags::empty(),
            Line::Listening if self.deadline_ms != NEVER => EventFlags::empty(),
            _ => EventFlags::IN,
        };
        if self.host != Host::Present {
            interest |= EventFlags::IN | EventFlags::ET;
        }
        if self.armed == Some(interest) {
            return Ok(());
        }
        let fd = match (&self.line, &self.listener) {
            (Line::Stream(stream), _) | (Line::Listening, Some(stream)) => stream.as_fd(),
            (Line::Absent(absent), _) => absent.as_fd(),
            (Line::Listening, None) => return Ok(()),
        };
        let data = self.event_data();
        // What has just been opened is not known yet.
        let mut armed = epoll::modify(epoll, fd, data, interest);
        if armed.is_err() {
            armed = epoll::add(epoll, fd, data, interest);
        }
        if armed.is_err() && self.listener.is_some() && matches!(self.line, Line::Stream(_)) {
            // No resources for this host: better it than the agent.
            self.change_line(Line::Listening);
            return self.arm(epoll);
        }
        self.armed = Some(interest);
        armed
    }

    /// Something happened on the descriptor.
    pub fn handle(&mut self, flags: EventFlags, agent: &mut Agent<LinuxGuest>, epoll: BorrowedFd<'_>) {
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        match &mut self.line {
            Line::Listening => return self.accept(agent, epoll),
            Line::Absent(absent) => {
                absent.woken();
                return self.look_for_device();
            }
            Line::Stream(stream) if FULL && flags == KNOCK => {
                sys::vsock::probe(stream);
                if self.blocked {
                    self.deadline_ms = after_ms(UNREAD_MS);
                }
                return;
            }
            Line::Stream(_) => {}
        }
        if self.place.method != Method::VirtioSerial {
            if gone && self.session.is_parked() {
                return self.leave(agent);
            }
        } else if !gone {
            self.host = Host::Present;
            self.deadline_ms = NEVER;
        } else if self.host == Host::Present {
            let answered = self.unread.0 == self.unread.1 && self.session.idle_memory().is_some();
            let may_sleep = self.session.is_parked() && agent.guest.is_suspending();
            if !(answered || may_sleep) {
                return self.dismiss(agent);
            }
            // The guest may be about to wake up. Or the next host has come, of whom the port does not know yet: what
            // there is to read after all was answered is taken for its bytes.
            self.expect_host();
        }
        self.pump(agent, Effort::Read);
    }

    /// A deadline has passed.
    pub fn tick(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.deadline_ms = NEVER;
        match &self.line {
            Line::Absent(_) => self.look_for_device(),
            Line::Listening if self.listener.is_none() => self.watch_for_device(),
            Line::Stream(_) if self.blocked && self.is_vsock() => self.leave(agent),
            Line::Stream(stream) if self.host == Host::Appearing => {
                if is_hung_up(stream.as_fd()) {
                    self.dismiss(agent);
                } else {
                    self.host = Host::Present;
                }
            }
            _ => {}
        }
    }

    /// A job has ended: perhaps the one that this channel waits for.
    pub fn wake(&mut self, agent: &mut Agent<LinuxGuest>) {
        if self.session.is_parked() {
            if self.place.method == Method::VirtioSerial {
                self.expect_host();
            }
            self.pump(agent, Effort::Unread);
        }
    }

    /// The port may look hung up for a moment although the host is there.
    fn expect_host(&mut self) {
        self.host = Host::Appearing;
        self.deadline_ms = after_ms(APPEARING_MS);
    }

    /// Closes the descriptor and waits for the next host, or for the device to come back.
    #[inline(never)]
    fn end(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.forget(agent);
        self.change_line(Line::Listening);
        if self.listener.is_none() {
            self.watch_for_device();
        }
    }

    #[inline(never)]
    fn change_line(&mut self, line: Line) {
        self.line = line;
        self.armed = None;
        self.deadline_ms = NEVER;
        if self.place.method == Method::VirtioSerial {
            self.host = Host::Gone;
        }
    }

    #[inline(never)]
    fn accept(&mut self, agent: &mut Agent<LinuxGuest>, epoll: BorrowedFd<'_>) {
        let Some(listener) = &self.listener else {
            return;
        };
        let is_vsock = self.is_vsock();
        let accepted = if FULL { vsock::accept(listener, self.vsock_peer) } else { unix::accept(listener) };
        match accepted {
            Ok(stream) => {
                // The others wait in the backlog.
                let _ = epoll::modify(
                    epoll,
                    listener,
                    self.event_data(),
                    if FULL { KNOCK | EventFlags::ET } else { EventFlags::empty() },
                );
                self.change_line(Line::Stream(stream));
                self.report(packed!("a host has connected"));
                if is_vsock {
                    // The first thing that a host does behind a snapshot.
                    agent.guest.reseed();
                }
            }
            // The host went away before its turn came.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED | Errno::NOTCONN) => {}
            Err(Errno::ACCESS) => self.report(packed!("refused a connection that --vsock-peer does not allow")),
            Err(_) => self.deadline_ms = after_ms(RETRY_MS),
        }
    }

    #[inline(never)]
    fn report(&self, what: &[u8]) {
        if self.verbose {
            tell(INFO, b"%: !", &[self.place.path.to_bytes(), what]);
        }
    }
}

/// The device, or the listener.
#[inline(never)]
fn open_line(place: &Place) -> Result<OwnedFd, Errno> {
    match place.method {
        Method::VirtioSerial => virtio_serial::open(place.path),
        Method::IsaSerial => isa_serial::open(place.path),
        Method::UnixListen => unix::listen(place.path),
        Method::Passed if FULL => sys::passed_listener(place.path),
        Method::VsockListen if FULL => vsock::listen(place.path.to_bytes()),
        Method::Passed | Method::VsockListen => Err(Errno::INVAL),
    }
}

/// A deadline.
pub fn after_ms(delay_ms: u64) -> u64 {
    sys::monotonic_ms().wrapping_add(delay_ms)
}
