//! What this agent is and can do.

use super::{Call, Command};
use crate::error::Result;
use crate::guest::Guest;
use crate::schema::CommandInfo;

/// The level of the protocol first, for tools that compare it with a release of QEMU; then ours.
pub const VERSION: &str = concat!("10.2.50-nanoga-", env!("CARGO_PKG_VERSION"));

/// `guest-info`: `{}` → `GuestAgentInfo`
pub(super) fn info<'f, G: Guest + 'static>(call: &mut Call<'_, 'f, G>) -> Result<'f, ()> {
    call.arguments.finish()?;

    let reply = &mut call.reply;
    reply.open_object();
    reply.key("version");
    reply.string(VERSION.as_bytes());
    reply.key("supported_commands");
    reply.open_list();
    for command in Command::<G>::TABLE {
        reply.leaf(&CommandInfo { name: command.name, enabled: true, success_response: command.answers });
    }
    reply.close_list();
    reply.close_object();
    Ok(())
}
