//! What the guest is: the facts that hosts show to people.

use super::{Call, Result};
use crate::error::line;
use crate::guest::{Guest, LOAD_SCALE};
use crate::packed;

/// `guest-get-host-name`: `{}` → `GuestHostName`
pub(super) fn host_name<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    call.guest.host_name(&mut |name| reply.text(packed!("{\"host-name\":%}"), name));
    Ok(())
}

/// `guest-get-users`: `{}` → `[GuestUser]`
///
/// `domain` is for Windows.
pub(super) fn users<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.known(b"[");
    call.guest.users(&mut |user| {
        reply.text(packed!("{\"user\":%,\"login-time\":"), user.name);
        reply.decimal(user.login_us, 1_000_000);
        reply.known(b"}");
    });
    call.reply.known(b"]");
    Ok(())
}

/// `guest-get-osinfo`: `{}` → `GuestOSInfo`
///
/// Members are missing that the distribution does not give.
#[allow(clippy::as_conversions, reason = "the number of a variant without a payload")]
pub(super) fn os_info<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.known(b"{");
    call.guest.os_info(&mut |fact, value| reply.text(line(FACTS, fact as usize), value));
    call.reply.known(b"}");
    Ok(())
}

/// The member that tells a fact, a line for each [`crate::guest::OsFact`].
const FACTS: &[u8] = packed!(
    "\"kernel-release\":%\n\"kernel-version\":%\n\"machine\":%\n\"id\":%\n\"name\":%\n\"pretty-name\":%\n\
    \"version\":%\n\"version-id\":%\n\"variant\":%\n\"variant-id\":%"
);

/// `guest-get-load`: `{}` → `GuestLoadAverage`
pub(super) fn load<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let mut load = call.guest.load().into_iter();
    call.reply.piece(packed!("{\"load1m\":#,\"load5m\":#,\"load15m\":#}"), &mut |reply, _| {
        reply.decimal(load.next().unwrap_or(0), LOAD_SCALE);
    });
    Ok(())
}
