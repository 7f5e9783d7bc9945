//! Is the other side there, and in step?

use super::{Call, Result, nothing};

/// `guest-sync` and `guest-sync-delimited`: `{"id": int}` → the same int.
///
/// The 0xFF before the second's reply tells the host to drop what it has read so far; the row asks for it.
pub(super) fn sync<G>(call: &mut Call<'_, G>) -> Result<()> {
    let id = call.integer("id");
    call.no_more_arguments()?;

    call.reply.integer(id);
    Ok(())
}

/// `guest-ping`: `{}` → `{}`
pub(super) fn ping<G>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    nothing(call)
}
