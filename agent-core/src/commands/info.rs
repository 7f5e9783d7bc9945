//! What this agent is and can do.

use super::{Call, Command, NAMES, Result};
use crate::error::first_line;
use crate::guest::Guest;
use crate::packed;

/// The level of the protocol first, for tools that compare it with a release of QEMU; then ours.
pub const VERSION: &str = concat!("10.2.50-nanoga-", env!("CARGO_PKG_VERSION"));

/// `guest-info`: `{}` → `GuestAgentInfo`
pub(super) fn info<G: Guest + 'static>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let frozen = call.guest.is_frozen();
    let reply = &mut call.reply;
    reply.text(packed!("{\"version\":%,\"supported_commands\":["), VERSION.as_bytes());
    let mut names = NAMES;
    for (row, command) in Command::<G>::TABLE.iter().enumerate() {
        let enabled = call.permissions.allows(row) && (command.while_frozen || !frozen);
        reply.text(packed!("{\"name\":%"), first_line(&mut names));
        reply.numbers(packed!("\"enabled\":!,\"success-response\":!}"), &[enabled.into(), command.answers.into()]);
    }
    reply.known(b"]}");
    Ok(())
}
