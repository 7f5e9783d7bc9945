//! One agent a guest: checks a request in the order that the protocol wants, and runs its command.

use core::task::Poll;

use crate::commands::{Call, Command, Run};
use crate::error::{Error, Result};
use crate::guest::{Guest, Job};
use crate::reply::Reply;
use crate::request::{Arguments, Request};
use crate::text::Text;

/// What the protocol makes global: the guest, and what all channels share.
pub struct Agent<G> {
    /// What the commands act on.
    pub guest: G,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reply is written, or there is none.
    Done,
    /// The reply follows when a job has ended.
    Parked(Job),
    /// The command wants the replies before it to be sent first. Nothing has happened.
    Deferred,
}

impl<G: Guest + 'static> Agent<G> {
    /// An agent for this guest.
    pub fn new(guest: G) -> Self {
        Agent { guest }
    }

    /// Answers a complete request. `first`: no reply waits before this one's.
    pub(crate) fn run<'r>(&'r mut self, frame: &[u8], mut reply: Reply<'r>, first: bool) -> Outcome {
        let request = match Request::read(frame) {
            Ok(request) => request,
            Err(error) => {
                reply.fail(error, None);
                return Outcome::Done;
            }
        };
        let mut call = Call { guest: &mut self.guest, arguments: Arguments::new(request.arguments), reply };
        dispatch(&request, &mut call, first).unwrap_or_else(|error| {
            call.reply.fail(error, request.id);
            Outcome::Done
        })
    }

    /// Answers the request in this frame, whose job may have ended. `Parked` as long as it has not.
    pub(crate) fn resume<'r>(&'r mut self, frame: &[u8], job: Job, reply: Reply<'r>) -> Outcome {
        // Nobody has touched the frame since it was read for the first time.
        let request = Request::read(frame).unwrap_or_default();
        let Some(Command { run: Run::Later(_, finish), answers, .. }) = request.execute.and_then(find::<G>) else {
            return Outcome::Done;
        };
        let mut call = Call { guest: &mut self.guest, arguments: Arguments::new(request.arguments), reply };
        call.reply.begin(false);
        match finish(&mut call, job) {
            Poll::Pending => {
                call.reply.rewind();
                return Outcome::Parked(job);
            }
            Poll::Ready(Err(error)) => call.reply.fail(error, request.id),
            Poll::Ready(Ok(())) if *answers => call.reply.finish(request.id),
            Poll::Ready(Ok(())) => call.reply.rewind(),
        }
        Outcome::Done
    }
}

/// The checks in their order, then the command.
fn dispatch<'f, G: Guest + 'static>(
    request: &Request<'f>,
    call: &mut Call<'_, 'f, G>,
    first: bool,
) -> Result<'f, Outcome> {
    if let Some(fault) = request.fault {
        return Err(fault);
    }
    let name = request.execute.ok_or(Error::NoExecute)?;
    let command = find(name).ok_or(Error::UnknownCommand(name))?;
    match command.run {
        Run::Now(run) => {
            call.reply.begin(command.delimited);
            run(call)?;
            call.reply.finish(request.id);
            Ok(Outcome::Done)
        }
        Run::Later(..) if !first => Ok(Outcome::Deferred),
        Run::Later(start, _) => start(call).map(Outcome::Parked),
    }
}

fn find<G: Guest + 'static>(name: Text<'_>) -> Option<&'static Command<G>> {
    Command::TABLE.iter().find(|command| name.is(command.name))
}
