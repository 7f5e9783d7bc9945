//! One agent a guest: checks a request in the order that the protocol wants, and runs its command.

use core::task::Poll;

use crate::commands::{AUDITED_ARGUMENTS, Call, Command, Failed, NAMES, Permissions, Result, Run};
use crate::error::{Fault, first_line};
use crate::guest::{Guest, Job};
use crate::reply::Reply;
use crate::request::{Arguments, Request};

/// What the protocol makes global: the guest, and what all channels share.
pub struct Agent<G> {
    /// What the commands act on.
    pub guest: G,
    permissions: Permissions,
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
        Agent { guest, permissions: Permissions::ALL }
    }

    /// Refuses the commands from now on whose names are not `allowed`.
    pub fn restrict(&mut self, allowed: &dyn Fn(&[u8]) -> bool) {
        self.permissions = Permissions::new(allowed);
    }

    /// The names of all commands, a line each, in the order of the table.
    pub fn commands() -> &'static [u8] {
        NAMES
    }

    /// Answers the request in this frame.
    #[inline(never)]
    pub(crate) fn answer<'r>(&'r mut self, frame: &'r [u8], turn: Turn, reply: Reply<'r>) -> Outcome {
        let request = Request::read(frame);
        let arguments = Arguments::new(request.arguments);
        let permissions = self.permissions;
        let error = Fault::NoExecute.plain();
        let mut call = Call { guest: &mut self.guest, arguments, reply, permissions, error, refused: false };
        dispatch(&request, turn, &mut call).unwrap_or_else(|Failed| {
            if cfg!(feature = "storage") && call.error.fault.is_of_freeze() {
                call.error.text = call.guest.culprit();
            }
            call.reply.fail(call.error, request.id);
            Outcome::Done
        })
    }
}

/// The checks in their order, then the command.
#[inline(never)]
fn dispatch<'c, G: Guest + 'static>(request: &Request<'c>, turn: Turn, call: &mut Call<'c, G>) -> Result<Outcome> {
    if let Some(error) = request.error {
        call.error = error;
        return Err(Failed);
    }
    let Some(name) = request.execute else {
        return Err(call.fail(Fault::NoExecute, &[]));
    };
    let (mut rows, mut names) = (Command::TABLE.iter().enumerate(), NAMES);
    let Some((row, command)) = rows.find(|_| first_line(&mut names) == name) else {
        return Err(call.fail(Fault::UnknownCommand, name));
    };
    // What has begun is finished, even if its own doing is that the file systems are frozen now.
    let resumed = matches!(turn, Turn::Resumed(_));
    if !call.permissions.allows(row) || !resumed && !command.while_frozen && call.guest.is_frozen() {
        return Err(call.fail(Fault::Disabled, name));
    }
    if turn == Turn::Behind && matches!(command.run, Run::Later(..)) {
        return Ok(Outcome::Deferred);
    }
    if !resumed {
        audit(command, name, false, call);
    }
    call.reply.reserve(request.id);
    call.reply.begin(command.delimited);
    let outcome = match (command.run, turn) {
        (Run::Now(run), _) => run(call).map(|()| Outcome::Done),
        (Run::Later(_, finish), Turn::Resumed(job)) => match finish(call, job) {
            Poll::Ready(done) => {
                audit(command, name, true, call);
                done.map(|()| Outcome::Done)
            }
            Poll::Pending => Ok(Outcome::Parked(job)),
        },
        (Run::Later(start, _), _) => start(call).map(Outcome::Parked),
    }?;
    if outcome == Outcome::Done && command.answers {
        call.reply.finish(request.id);
    } else {
        call.reply.rewind();
    }
    Ok(outcome)
}

/// Has the guest note what a host wants, if that matters: before it happens. While the file systems are frozen nothing
/// can be noted, so what runs then is when it has ended.
#[inline(never)]
fn audit<'c, G: Guest>(command: &Command<G>, name: &'c [u8], ended: bool, call: &mut Call<'c, G>) {
    if cfg!(feature = "minimal") || !command.audited || command.while_frozen != ended {
        return;
    }
    let mut words = [name; AUDITED_ARGUMENTS.len() + 1];
    let mut count = 1_usize;
    for name in AUDITED_ARGUMENTS {
        let word = call.arguments.text(name);
        if let Some(place) = words.get_mut(count)
            && !word.is_empty()
        {
            *place = word;
            count = count.wrapping_add(1);
        }
    }
    call.guest.audit(words.get(..count).unwrap_or_default());
}
