//! The time of day.

use super::{Call, Result};
use crate::guest::Guest;

/// `guest-get-time`: `{}` → `int`, nanoseconds since 1970
pub(super) fn get_time<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    call.reply.integer(call.guest.now_ns());
    Ok(())
}

/// `guest-get-timezone`: `{}` → `GuestTimezone`
pub(super) fn timezone<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.open_object();
    call.guest.timezone(&mut |name, offset_s| {
        reply.key("zone");
        reply.string(name);
        reply.key("offset");
        reply.integer(offset_s);
    });
    call.reply.close_object();
    Ok(())
}
