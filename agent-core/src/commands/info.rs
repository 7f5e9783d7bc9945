//! What this agent is and can do.

use super::{Call, Command, Result};
use crate::guest::Guest;

/// The level of the protocol first, for tools that compare it with a release of QEMU; then ours.
pub const VERSION: &str = concat!("10.2.50-nanoga-", env!("CARGO_PKG_VERSION"));

/// `guest-info`: `{}` → `GuestAgentInfo`
pub(super) fn info<G: Guest + 'static>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let frozen = call.guest.is_frozen();
    let reply = &mut call.reply;
    reply.open_object();
    reply.string_member("version", VERSION.as_bytes());
    reply.key("supported_commands");
    reply.open_list();
    for (row, command) in Command::<G>::TABLE.iter().enumerate() {
        reply.open_object();
        reply.string_member("name", command.name.as_bytes());
        reply.boolean_member("enabled", call.permissions.allows(row) && (command.while_frozen || !frozen));
        reply.boolean_member("success-response", command.answers);
        reply.close_object();
    }
    reply.close_list();
    reply.close_object();
    Ok(())
}
