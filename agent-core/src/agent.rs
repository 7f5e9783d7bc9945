//! One agent a guest: checks a request in the order that the protocol wants, and runs its command.

use core::task::Poll;

use crate::commands::{Call, Command, Run};
use crate::error::{Fault, Result};
use crate::guest::{Guest, Job};
use crate::reply::Reply;
use crate::request::{Arguments, Request};

/// What the protocol makes global: the guest, and what all channels share.
pub struct Agent<G> {
    /// What the commands act on.
    pub guest: G,
}

/// When a request is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Behind other replies, which have not been sent.
    Behind,
    /// With nothing before it.
    First,
    /// Again: its job may have ended.
    Resumed(Job),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reply is written, or there is none.
    Done,
    /// The reply follows when this job has ended.
    Parked(Job),
    /// The command wants the replies before it to be sent first. Nothing has happened.
    Deferred,
}

impl<G: Guest + 'static> Agent<G> {
    /// An agent for this guest.
    pub fn new(guest: G) -> Self {
        Agent { guest }
    }

    /// Answers the request in this frame.
    #[inline(never)]
    pub(crate) fn answer<'r>(&'r mut self, frame: &[u8], turn: Turn, reply: Reply<'r>) -> Outcome {
        let mut call = Call { guest: &mut self.guest, arguments: Arguments::new(&[]), reply };
        let mut id = None;
        let outcome = Request::read(frame).and_then(|request| {
            id = request.id;
            dispatch(&request, turn, &mut call)
        });
        outcome.unwrap_or_else(|error| {
            call.reply.fail(error, id);
            Outcome::Done
        })
    }
}

/// The checks in their order, then the command.
#[inline(never)]
fn dispatch<'f, G: Guest + 'static>(
    request: &Request<'f>,
    turn: Turn,
    call: &mut Call<'_, 'f, G>,
) -> Result<'f, Outcome> {
    if let Some(fault) = request.fault {
        return Err(fault);
    }
    let name = request.execute.ok_or(Fault::NoExecute.plain())?;
    let Some(command) = Command::TABLE.iter().find(|command| command.name.as_bytes() == name) else {
        return Err(Fault::UnknownCommand.of(name));
    };
    if turn == Turn::Behind && matches!(command.run, Run::Later(..)) {
        return Ok(Outcome::Deferred);
    }
    call.arguments = Arguments::new(request.arguments);
    call.reply.begin(command.delimited);
    let parked = match (command.run, turn) {
        (Run::Now(run), _) => run(call).map(|()| None),
        (Run::Later(_, finish), Turn::Resumed(job)) => match finish(call, job) {
            Poll::Ready(done) => done.map(|()| None),
            Poll::Pending => Ok(Some(job)),
        },
        (Run::Later(start, _), _) => start(call).map(Some),
    }?;
    if parked.is_some() || !command.answers {
        call.reply.rewind();
    } else {
        call.reply.finish(request.id);
    }
    Ok(parked.map_or(Outcome::Done, Outcome::Parked))
}
