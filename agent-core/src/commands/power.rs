//! Sleep. The protocol wants silence when it works: the host watches the machine instead.

use core::task::Poll;

use super::{Call, Failed, Result};
use crate::error::Error;
use crate::guest::{Guest, Job, Suspend, SuspendError};

/// `guest-suspend-disk`: `{}` → nothing
pub(super) fn suspend_disk<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    suspend(call, Suspend::Disk)
}

/// `guest-suspend-ram`: `{}` → nothing
pub(super) fn suspend_ram<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    suspend(call, Suspend::Ram)
}

/// `guest-suspend-hybrid`: `{}` → nothing
pub(super) fn suspend_hybrid<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    suspend(call, Suspend::Hybrid)
}

fn suspend<G: Guest>(call: &mut Call<'_, G>, mode: Suspend) -> Result<Job> {
    call.no_more_arguments()?;

    call.guest.suspend(mode).map_err(|error| awake(call, error))
}

/// The guest is awake again, or could not sleep.
pub(super) fn suspended<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    call.guest.suspended(job).map_err(|error| awake(call, error))
}

/// Notes why the guest did not sleep.
#[inline(never)]
fn awake<G>(call: &mut Call<'_, G>, error: SuspendError) -> Failed {
    call.error = Error::from(error);
    Failed
}
