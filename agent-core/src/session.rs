//! One channel's side of the protocol: bytes in, replies out, and what lies between.
//!
//! It neither reads nor sends: the caller moves the bytes and decides when a host has gone.

use crate::agent::{Agent, Outcome, Turn};
use crate::frame::{Framer, Scan};
use crate::guest::{Guest, Job};
use crate::reply::{Outbox, Spool, SpoolLost};

/// Where [`Session::feed`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// All input is consumed, and there is nothing to send.
    NeedMore,
    /// Send what is [`Session::pending`], then feed on, even if no input is left.
    Reply,
    /// A command has started a job. Feed on when the guest says that a job has ended.
    Parked,
}

/// What a session does with the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It belongs to a request.
    Reading,
    /// It has to wait: the frame holds a complete request, which waits for the replies before it to be sent.
    Ready,
    /// It has to wait: the request in the frame is answered when this job has ended.
    Parked(Job),
}

/// The protocol on one channel. What is large stands last: see [`Framer`].
#[repr(C)]
pub struct Session<'buf> {
    frame: &'buf mut [u8],
    outbox: Outbox,
    replies: &'buf mut [u8],
    stage: Stage,
    framer: Framer,
}

impl<'buf> Session<'buf> {
    /// A session at the start of a connection. The caller lends the memory for a request, whose size is that of the
    /// largest possible one, and for the replies before they need a spool: see [`crate::limits`].
    pub fn new(frame: &'buf mut [u8], replies: &'buf mut [u8]) -> Self {
        Session { framer: Framer::new(), frame, outbox: Outbox::default(), replies, stage: Stage::Reading }
    }

    /// Consumes input and answers requests, until something has to be sent or waited for.
    ///
    /// Replies to requests that came together may wait together. Never called while something is pending.
    pub fn feed<G: Guest + 'static, S: Spool>(
        &mut self,
        agent: &mut Agent<G>,
        input: &mut &[u8],
        spool: &mut S,
    ) -> Fed {
        while self.outbox.has_room(self.replies) {
            let first = self.outbox.is_empty();
            let turn = match self.stage {
                Stage::Parked(job) => Turn::Resumed(job),
                Stage::Ready if !first => return Fed::Reply,
                _ if first => Turn::First,
                _ => Turn::Behind,
            };
            let mut reply = self.outbox.reply(self.replies, spool);
            let frame = if self.stage == Stage::Reading {
                match self.framer.scan(self.frame, input) {
                    Scan::NeedMore => return if first { Fed::NeedMore } else { Fed::Reply },
                    Scan::Complete(frame) => frame,
                    Scan::Damaged(error) => {
                        reply.fail(error, None);
                        continue;
                    }
                }
            } else {
                self.frame.get(..self.framer.frame_len()).unwrap_or_default()
            };
            self.stage = match agent.answer(frame, turn, reply) {
                Outcome::Done => Stage::Reading,
                Outcome::Deferred => Stage::Ready,
                Outcome::Parked(job) => {
                    self.stage = Stage::Parked(job);
                    return Fed::Parked;
                }
            };
        }
        Fed::Reply
    }

    /// What is to be sent next, until [`Session::advance`] says that it was; empty when all has been.
    ///
    /// After an error the connection has to be cut: a part of a reply is lost.
    pub fn pending<S: Spool>(&mut self, spool: &mut S) -> Result<&[u8], SpoolLost> {
        self.outbox.pending(self.replies, spool)
    }

    /// So many of the pending bytes have been sent.
    pub fn advance(&mut self, bytes: usize) {
        self.outbox.advance(bytes);
    }

    /// Is a command waiting for its job?
    pub fn is_parked(&self) -> bool {
        matches!(self.stage, Stage::Parked(_))
    }

    /// The most bytes of a request that were in the lent memory since this was asked for the last time.
    pub fn take_peak(&mut self) -> usize {
        self.framer.take_peak()
    }

    /// The lent memory, request and replies, while nothing in it is wanted any more.
    pub fn idle_memory(&mut self) -> Option<(&mut [u8], &mut [u8])> {
        let idle = self.stage == Stage::Reading && self.framer.is_clean() && self.outbox.is_empty();
        idle.then_some((self.frame, self.replies))
    }

    /// The host has gone, or another one has come: forgets the request in the making, what was not sent, and the
    /// command that waits for its job.
    #[inline(never)]
    pub fn reset<G: Guest>(&mut self, agent: &mut Agent<G>) {
        if let Stage::Parked(job) = self.stage {
            agent.guest.abandon(job);
        }
        self.framer.reset();
        self.outbox = Outbox::default();
        self.stage = Stage::Reading;
    }
}
