//! The time of day.

use super::{Call, Result};
use crate::guest::Guest;

/// `guest-get-time`: `{}` → `int`, nanoseconds since 1970
pub(super) fn get_time<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    call.reply.integer(call.guest.now_ns());
    Ok(())
}
