//! The end of the guest. The protocol wants silence when it works: the host watches the machine instead.

use core::task::Poll;

use super::{Call, Result};
use crate::error::Fault;
use crate::guest::{Guest, Job, ShutdownError, ShutdownMode};

const MODES: [(&[u8], ShutdownMode); 3] =
    [(b"powerdown", ShutdownMode::PowerDown), (b"halt", ShutdownMode::Halt), (b"reboot", ShutdownMode::Reboot)];

/// `guest-shutdown`: `{mode?: str}` → nothing
pub(super) fn shutdown<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    let mode = call.optional_string("mode").map_or(&b"powerdown"[..], |mode| mode.to_bytes());
    call.no_more_arguments()?;

    let Some((_, mode)) = MODES.iter().find(|(name, _)| *name == mode) else {
        return Err(call.fail(Fault::ShutdownMode, &[]));
    };
    call.guest.shut_down(*mode).map_err(|errno| call.fail_by(Fault::Job, errno))
}

/// The guest is about to end, or does not.
pub(super) fn shutting_down<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    call.guest.shutting_down(job).map_err(|error| match error {
        ShutdownError::Helper(status) => {
            let failed = call.fail(Fault::ShutdownHelper, &[]);
            call.error.number = status.into();
            failed
        }
        ShutdownError::Kernel(errno) => call.fail_by(Fault::Shutdown, errno),
    })
}
