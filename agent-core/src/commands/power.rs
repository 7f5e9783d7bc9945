//! Sleep. The protocol wants silence when it works: the host watches the machine instead.

use core::task::Poll;

use super::Call;
use crate::error::{Error, Result};
use crate::guest::{Guest, Job, Suspend};

/// `guest-suspend-disk`: `{}` → nothing
pub(super) fn suspend_disk<'f, G: Guest>(call: &mut Call<'_, 'f, G>) -> Result<'f, Job> {
    suspend(call, Suspend::Disk)
}

/// `guest-suspend-ram`: `{}` → nothing
pub(super) fn suspend_ram<'f, G: Guest>(call: &mut Call<'_, 'f, G>) -> Result<'f, Job> {
    suspend(call, Suspend::Ram)
}

/// `guest-suspend-hybrid`: `{}` → nothing
pub(super) fn suspend_hybrid<'f, G: Guest>(call: &mut Call<'_, 'f, G>) -> Result<'f, Job> {
    suspend(call, Suspend::Hybrid)
}

fn suspend<'f, G: Guest>(call: &mut Call<'_, 'f, G>, mode: Suspend) -> Result<'f, Job> {
    call.arguments.finish()?;

    call.guest.suspend(mode).map_err(Error::from)
}

/// The guest is awake again, or could not sleep.
pub(super) fn suspended<'f, G: Guest>(call: &mut Call<'_, 'f, G>, job: Job) -> Poll<Result<'f, ()>> {
    call.guest.suspended(job).map_err(Error::from)
}
