//! The bytes of a channel on their way: from the host to the session, and replies back.
//!
//! It knows no protocol, and neither opens a line nor says what to wait for. It never blocks: what cannot go on says
//! why.

use agent_core::packed;
use agent_core::{Agent, Fed};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, read, write};

use super::{APPEARING_MS, Channel, Host, Line, NEVER, after_ms};
use crate::guest::LinuxGuest;
use crate::log::why;
use crate::memory;
use crate::options::Method;
use crate::sys;

/// Reads of what a host has left behind, at most: its port holds less.
const LEFTOVER_READS: usize = 256;

/// A request, a read or a reply of more bytes than this touched pages that go back afterwards.
const BULK_BYTES: usize = 4096;

/// What is told of a virtio port whose host has hung up.
const GONE: &[u8] = packed!("the host has gone");

/// How far to go in moving bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// What is there already.
    Unread,
    /// What is there, and what one read brings.
    Read,
    /// The same, for a host that will not read a reply any more: its last requests are obeyed.
    Last,
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

impl Channel {
    /// Moves bytes until there is nothing to move, and deals with the end of it.
    #[inline(never)]
    pub(super) fn pump(&mut self, agent: &mut Agent<LinuxGuest>, effort: Effort) {
        match self.transfer(agent, effort) {
            Flow::Waiting => {}
            Flow::Ended if self.place.method == Method::VirtioSerial => {
                self.forget(agent);
                if self.host != Host::Gone {
                    self.report(GONE);
                }
                self.host = Host::Gone;
            }
            Flow::Ended => self.end(agent),
            Flow::Lost(error) => {
                self.report(why(sys::errno(error)));
                self.leave(agent);
            }
        }
        if self.bulk {
            self.rest();
        }
    }

    /// Gives back the memory that it does not need between two requests.
    #[inline(never)]
    pub fn rest(&mut self) {
        if self.unread.0 == self.unread.1
            && let Some((frame, replies)) = self.session.idle_memory()
        {
            memory::give_back(frame);
            memory::give_back(replies);
            memory::give_back(&mut self.input[..]);
            self.bulk = false;
        }
    }

    #[inline(never)]
    fn transfer(&mut self, agent: &mut Agent<LinuxGuest>, effort: Effort) -> Flow {
        let mut readable = effort != Effort::Unread;
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
                self.bulk |= pending.len() > BULK_BYTES;
                if effort == Effort::Last {
                    let dropped = pending.len();
                    self.session.advance(dropped);
                    continue;
                }
                match write(stream, pending) {
                    Ok(sent) => {
                        self.session.advance(sent);
                        if self.host == Host::Present {
                            self.deadline_ms = NEVER;
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        self.blocked = true;
                        return Flow::Waiting;
                    }
                    Err(error) => return Flow::Lost(error),
                }
            }
            self.spool.close();
            let mut unread = self.input.get(self.unread.0..self.unread.1).unwrap_or_default();
            let fed = self.session.feed(agent, &mut unread, &mut self.spool);
            self.unread.0 = self.unread.1.wrapping_sub(unread.len());
            self.bulk |= self.session.take_peak() > BULK_BYTES;
            match fed {
                Fed::Reply => continue,
                Fed::Parked if effort == Effort::Last => {
                    // The job goes on; nobody waits for its result.
                    self.session.reset(agent);
                    continue;
                }
                Fed::NeedMore if readable => readable = false,
                _ => return Flow::Waiting,
            }
            let read = read(stream, &mut self.input[..]);
            match read {
                Ok(0) => return Flow::Ended,
                Ok(count) => {
                    self.unread = (0, count);
                    if self.host == Host::Gone {
                        self.host = Host::Appearing;
                        self.deadline_ms = after_ms(APPEARING_MS);
                    }
                    self.bulk |= count > BULK_BYTES;
                }
                Err(Errno::AGAIN | Errno::INTR) => return Flow::Waiting,
                Err(error) => return Flow::Lost(error),
            }
        }
    }

    /// The host has gone. What has been read of it is obeyed, the rest and all replies are dropped, so that the next
    /// one finds a clean channel.
    #[inline(never)]
    pub(super) fn dismiss(&mut self, agent: &mut Agent<LinuxGuest>) {
        let flow = self.transfer(agent, Effort::Last);
        self.forget(agent);
        self.host = Host::Gone;
        self.report(GONE);
        if let Flow::Lost(_) = flow {
            return self.end(agent);
        }
        let Line::Stream(stream) = &self.line else {
            return;
        };
        for _ in 0..LEFTOVER_READS {
            // The next one may have come meanwhile, and its bytes are its own.
            if !is_hung_up(stream.as_fd()) || sys::read(stream, &mut self.input[..]) == 0 {
                break;
            }
        }
    }

    /// The same where nobody can come back by this line.
    #[inline(never)]
    pub(super) fn leave(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.transfer(agent, Effort::Last);
        self.end(agent);
    }

    /// Drops all that belongs to the host of the moment.
    #[inline(never)]
    pub(super) fn forget(&mut self, agent: &mut Agent<LinuxGuest>) {
        self.bulk |= self.session.take_peak() > BULK_BYTES;
        self.session.reset(agent);
        self.spool.close();
        self.unread = (0, 0);
        self.blocked = false;
        self.deadline_ms = NEVER;
    }
}

/// Does the port say that no host is there?
pub(super) fn is_hung_up(port: BorrowedFd<'_>) -> bool {
    sys::events(port, PollFlags::IN).contains(PollFlags::HUP)
}
