//! The time of day.

use core::ops::Range;

use super::{Call, Result, nothing};
use crate::error::Fault;
use crate::guest::{ClockError, Guest};
use crate::packed;

/// `guest-get-time`: `{}` → `int`, nanoseconds since 1970
pub(super) fn get_time<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    call.reply.integer(call.guest.now_ns());
    Ok(())
}

/// The years that a host may set: from 1970 to 2069.
const SETTABLE_NS: Range<i64> = 0..3_155_760_000_000_000_000;

/// `guest-set-time`: `{time?: int}` → `{}`, nanoseconds since 1970, otherwise the time of the hardware clock
pub(super) fn set_time<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let time = call.optional_integer("time");
    call.no_more_arguments()?;

    let set = match time {
        Some(now_ns) if SETTABLE_NS.contains(&now_ns) => call.guest.set(now_ns),
        Some(_) => return Err(call.fail(Fault::InvalidTime, &[])),
        None => call.guest.set_by_hardware(),
    };
    if let Err(error) = set {
        let (fault, errno) = match error {
            ClockError::Set(errno) => (Fault::SetTime, errno),
            ClockError::SetHardware(errno) => (Fault::SetHardwareClock, errno),
            ClockError::SetByHardware(errno) => (Fault::SetTimeByHardware, errno),
        };
        return Err(call.fail_by(fault, errno));
    }
    nothing(call)
}

/// `guest-get-timezone`: `{}` → `GuestTimezone`
pub(super) fn timezone<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    call.guest.timezone(&mut |name, offset_s| {
        reply.text(packed!("{\"zone\":%,\"offset\":"), name);
        reply.integer(offset_s.into());
        reply.known(b"}");
    });
    Ok(())
}
