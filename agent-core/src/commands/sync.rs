//! Is the other side there, and in step?

use super::Call;
use crate::error::Result;

/// `guest-sync` and `guest-sync-delimited`: `{"id": int}` → the same int.
///
/// The 0xFF before the second's reply tells the host to drop what it has read so far; the row asks for it.
pub(super) fn sync<'f, G>(call: &mut Call<'_, 'f, G>) -> Result<'f, ()> {
    let id = call.arguments.integer("id")?;
    call.arguments.finish()?;

    call.reply.integer(id);
    Ok(())
}

/// `guest-ping`: `{}` → `{}`
pub(super) fn ping<'f, G>(call: &mut Call<'_, 'f, G>) -> Result<'f, ()> {
    call.arguments.finish()?;

    call.reply.open_object();
    call.reply.close_object();
    Ok(())
}
