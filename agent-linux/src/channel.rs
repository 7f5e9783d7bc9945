//! A channel: the descriptor of the moment, the session on it, and what happens when the one or the other ends.
//!
//! It moves bytes and knows no protocol. It never blocks and never polls: after each event it says by [`Interest`]
//! what the next one can be.

mod absent;
mod isa_serial;
mod unix;
mod virtio_serial;

use absent::Absent;
use agent_core::{Agent, Fed, Session};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, read, write};

use crate::cli::{Method, Place};
use crate::guest::LinuxGuest;
use crate::log::Log;
use crate::memory::{self, ChannelMemory, INPUT};
use crate::spool::Spool;
use crate::sys;

/// Milliseconds for which a reply waits for a host that seems to have gone. Just after it connected, and just after
/// the guest woke up, the kernel may not know yet that it is there.
const GONE_MS: u64 = 200;

/// Milliseconds before another try, when the kernel had no resources for a connection.
const NO_RESOURCES_MS: u64 = 1_000;

/// A burst of more bytes than this touched pages that go back afterwards.
const PAGE: usize = 4096;

/// The descriptor that the channel waits on.
enum Line {
    /// Bytes of a host.
    Stream(OwnedFd),
    /// The listener: no host is connected.
    Listening,
    /// Nothing but the hope for a device.
    Absent(Absent),
}

/// What became of moving bytes.
enum Flow {
    /// Nothing to do before the next event.
    Waiting,
    /// The host will send no more.
    Ended,
    /// The descriptor is of no use any more.
    Lost(Errno),
}

/// One channel of the agent.
pub struct Channel {
    place: Place,
    log: Log,
    /// Tells this channel's events from those of others.
    token: u64,
    line: Line,
    /// Of a channel that hosts connect to.
    listener: Option<OwnedFd>,
    session: Session<'static>,
    spool: Spool,
    input: &'static mut [u8; INPUT],
    /// The part of `input` that the session has not taken.
    unread: core::ops::Range<usize>,
    /// The host does not take what we send, for now.
    blocked: bool,
    /// The port has no host: its level-triggered events would never cease.
    hung_up: bool,
    /// The host has sent its last byte, but may still want its reply.
    ended: bool,
    /// More bytes went through than a page holds, since the pages went back.
    bulk: bool,
    /// When [`Channel::tick`] is due, on the monotonic clock.
    deadline_ms: Option<u64>,
    /// What epoll was told about `line`.
    armed: Option<EventFlags>,
}

impl Channel {
    /// Opens a channel. A device that another process holds is waited for; one that is missing is an error.
    pub fn open(
        place: Place,
        token: u64,
        max_request: usize,
        memory: &'static mut ChannelMemory,
        log: Log,
    ) -> Result<Self, Errno> {
        let ChannelMemory { input, frame, replies } = memory;
        let frame = frame.0.get_mut(..max_request).unwrap_or_default();
        let mut channel = Channel {
            place,
            log,
            token,
            line: Line::Listening,
            listener: None,
            session: Session::new(frame, &mut replies.0),
            spool: Spool::new(),
            input: &mut input.0,
            unread: 0..0,
            blocked: false,
            hung_up: false,
            ended: false,
            bulk: false,
            deadline_ms: None,
            armed: None,
        };
        channel.line = match place.method {
            Method::UnixListen => {
                channel.listener = Some(unix::listen(place.path)?);
                Line::Listening
            }
            _ => match channel.open_device() {
                Ok(line) => Line::Stream(line),
                Err(Errno::BUSY) => {
                    log.error(&[place.path.to_bytes(), b" is held by another process: waiting for it"]);
                    Line::Absent(Absent::new(place.path, true)?)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(channel)
    }

    fn open_device(&self) -> Result<OwnedFd, Errno> {
        match self.place.method {
            Method::IsaSerial => isa_serial::open(self.place.path),
            _ => virtio_serial::open(self.place.path),
        }
    }

    /// When [`Channel::tick`] wants to be called, in milliseconds of the monotonic clock.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Tells epoll what is being waited for, if that has changed.
    pub fn arm(&mut self, epoll: impl AsFd) -> Result<(), Errno> {
        let interest = self.interest();
        let data = EventData::new_u64(self.token);
        let Some(fd) = self.waiting_on() else {
            return Ok(());
        };
        match self.armed {
            Some(armed) if armed == interest => {}
            Some(_) => epoll::modify(epoll, fd, data, interest)?,
            // The listener stays known to epoll, but for nothing, while a host is connected.
            None => match epoll::add(&epoll, fd, data, interest) {
                Err(Errno::EXIST) => epoll::modify(epoll, fd, data, interest)?,
                added => added?,
            },
        }
        self.armed = Some(interest);
        Ok(())
    }

    fn waiting_on(&self) -> Option<BorrowedFd<'_>> {
        match &self.line {
            Line::Stream(stream) => Some(stream.as_fd()),
            Line::Listening => self.listener.as_ref().map(AsFd::as_fd),
            Line::Absent(absent) => Some(absent.as_fd()),
        }
    }

    fn interest(&self) -> EventFlags {
        let input = match self.line {
            Line::Stream(_) if self.blocked => EventFlags::OUT,
            // Whatever the host sends has to wait for the command; only its going is of interest, and always told.
            Line::Stream(_) if self.session.is_parked() || self.ended => EventFlags::empty(),
            Line::Listening if self.deadline_ms.is_some() => EventFlags::empty(),
            _ => EventFlags::IN,
        };
        if self.hung_up { input | EventFlags::IN | EventFlags::ET } else { input }
    }

    /// Something happened on the descriptor.
    pub fn handle(&mut self, flags: EventFlags, agent: &mut Agent<LinuxGuest>, epoll: impl AsFd) {
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        match (&mut self.line, self.place.method) {
            (Line::Listening, _) => self.accept(epoll),
            (Line::Absent(absent), _) => {
                absent.woken();
                self.look_for_device();
            }
            (Line::Stream(_), Method::VirtioSerial) => {
                if gone && (self.blocked || self.session.is_parked()) {
                    self.hung_up = true;
                    self.deadline_ms.get_or_insert_with(|| sys::monotonic_ms().saturating_add(GONE_MS));
                } else if !gone {
                    self.hung_up = false;
                    self.deadline_ms = None;
                }
                self.pump(agent, true);
            }
            (Line::Stream(_), Method::UnixListen) if gone && self.session.is_parked() => self.end(agent),
            (Line::Stream(_), _) => self.pump(agent, true),
        }
    }

    /// A deadline has passed.
    pub fn tick(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.deadline_ms = None;
        match &self.line {
            Line::Absent(_) => self.look_for_device(),
            Line::Listening => {}
            Line::Stream(_) if self.hung_up => {
                self.log.info(&[self.place.path.to_bytes(), b": the host has gone"]);
                self.forget(agent);
                self.pump(agent, true);
            }
            Line::Stream(_) => {}
        }
    }

    /// A job has ended: perhaps the one that this channel waits for.
    pub fn wake(&mut self, agent: &mut Agent<LinuxGuest>) {
        if self.session.is_parked() {
            self.pump(agent, false);
        }
    }

    /// Moves bytes until there is nothing to move, and deals with the end of it.
    fn pump(&mut self, agent: &mut Agent<LinuxGuest>, readable: bool) {
        match (self.transfer(agent, readable), self.place.method) {
            (Flow::Waiting, _) => {}
            (Flow::Ended, Method::VirtioSerial) => {
                if !self.hung_up {
                    self.log.info(&[self.place.path.to_bytes(), b": no host is connected"]);
                }
                self.hung_up = true;
                self.forget(agent);
            }
            (Flow::Ended, Method::UnixListen) if self.session.is_parked() => self.ended = true,
            (Flow::Ended, _) => self.end(agent),
            (Flow::Lost(error), _) => {
                let reason = agent_core::error::errno_text(sys::errno(error)).unwrap_or("unknown error");
                self.log.info(&[self.place.path.to_bytes(), b": ", reason.as_bytes()]);
                self.end(agent);
            }
        }
        if self.bulk && self.spool_is_closed() {
            self.give_back();
        }
    }

    fn transfer(&mut self, agent: &mut Agent<LinuxGuest>, mut readable: bool) -> Flow {
        let Line::Stream(stream) = &self.line else {
            return Flow::Waiting;
        };
        loop {
            self.blocked = false;
            loop {
                let Ok(pending) = self.session.pending(&mut self.spool) else {
                    // A part of a reply is lost, so what carries it must end.
                    return Flow::Lost(Errno::IO);
                };
                if pending.is_empty() {
                    break;
                }
                self.bulk |= pending.len() > PAGE;
                match write(stream, pending) {
                    Ok(sent) => self.session.advance(sent),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        self.blocked = true;
                        return Flow::Waiting;
                    }
                    Err(error) => return Flow::Lost(error),
                }
            }
            self.spool.close();
            let mut unread = self.input.get(self.unread.clone()).unwrap_or_default();
            let fed = self.session.feed(agent, &mut unread, &mut self.spool);
            self.unread.start = self.unread.end.saturating_sub(unread.len());
            match fed {
                Fed::Reply => continue,
                Fed::Parked => return Flow::Waiting,
                Fed::NeedMore if self.ended => return Flow::Ended,
                Fed::NeedMore if !readable => return Flow::Waiting,
                Fed::NeedMore => {}
            }
            readable = false;
            match read(stream, &mut self.input[..]) {
                Ok(0) => return Flow::Ended,
                Ok(count) => {
                    self.unread = 0..count;
                    self.hung_up = false;
                    self.bulk |= count > PAGE;
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    self.hung_up = false;
                    return Flow::Waiting;
                }
                Err(error) => return Flow::Lost(error),
            }
        }
    }

    /// Drops all that belongs to the host of the moment.
    fn forget(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.session.reset(agent);
        self.spool.close();
        self.unread = 0..0;
        self.blocked = false;
        self.ended = false;
        self.deadline_ms = None;
    }

    /// Closes the descriptor and waits for the next host, or for the device to come back.
    fn end(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.forget(agent);
        self.hung_up = false;
        self.armed = None;
        self.line = Line::Listening;
        if self.listener.is_none() {
            self.watch_for_device(false);
        }
    }

    fn accept(&mut self, epoll: impl AsFd) {
        let Some(listener) = &self.listener else {
            return;
        };
        match unix::accept(listener) {
            Ok(stream) => {
                let _ = epoll::modify(epoll, listener, EventData::new_u64(self.token), EventFlags::empty());
                self.line = Line::Stream(stream);
                self.armed = None;
                self.log.info(&[self.place.path.to_bytes(), b": a host has connected"]);
            }
            // The host went away before its turn came.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => self.deadline_ms = Some(sys::monotonic_ms().saturating_add(NO_RESOURCES_MS)),
        }
    }

    /// Sets a watch, then looks whether the device came back before it was set.
    fn watch_for_device(&mut self, busy: bool) {
        match Absent::new(self.place.path, busy) {
            Ok(absent) => {
                self.line = Line::Absent(absent);
                self.armed = None;
                self.look_for_device();
            }
            // Without a watch, looking is all that is left.
            Err(_) => self.deadline_ms = Some(sys::monotonic_ms().saturating_add(NO_RESOURCES_MS)),
        }
    }

    fn look_for_device(&mut self) {
        match self.open_device() {
            Ok(stream) => {
                self.line = Line::Stream(stream);
                self.armed = None;
                self.deadline_ms = None;
                self.log.info(&[self.place.path.to_bytes(), b": opened again"]);
            }
            Err(_) => {
                if let Line::Absent(absent) = &mut self.line {
                    let delay_ms = absent.next_look();
                    self.deadline_ms = delay_ms.map(|delay| sys::monotonic_ms().saturating_add(delay));
                }
            }
        }
    }

    fn spool_is_closed(&self) -> bool {
        !self.blocked && !self.session.is_parked()
    }

    /// Lets the kernel have the pages again that a large request or reply filled. Their bytes are gone afterwards.
    fn give_back(&mut self) {
        if !self.unread.is_empty() {
            return;
        }
        if let Some((frame, replies)) = self.session.idle_memory() {
            memory::give_back(frame);
            memory::give_back(replies);
            memory::give_back(&mut self.input[..]);
            self.bulk = false;
        }
    }
}
