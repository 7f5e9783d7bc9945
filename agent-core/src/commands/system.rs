//! What the guest is: the facts that hosts show to people.

use super::{Call, Result};
use crate::guest::{Guest, LOAD_SCALE, OsFact};

/// `guest-get-host-name`: `{}` → `GuestHostName`
pub(super) fn host_name<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.open_object();
    call.guest.host_name(&mut |name| reply.string_member("host-name", name));
    call.reply.close_object();
    Ok(())
}

/// `guest-get-users`: `{}` → `[GuestUser]`
///
/// `domain` is for Windows.
pub(super) fn users<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.open_list();
    call.guest.users(&mut |user| {
        reply.open_object();
        reply.string_member("user", user.name);
        reply.key("login-time");
        reply.decimal(user.login_us, 1_000_000);
        reply.close_object();
    });
    call.reply.close_list();
    Ok(())
}

/// `guest-get-osinfo`: `{}` → `GuestOSInfo`
///
/// Members are missing that the distribution does not give.
pub(super) fn os_info<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.open_object();
    call.guest.os_info(&mut |fact, value| {
        let name = match fact {
            OsFact::KernelRelease => "kernel-release",
            OsFact::KernelVersion => "kernel-version",
            OsFact::Machine => "machine",
            OsFact::Id => "id",
            OsFact::Name => "name",
            OsFact::PrettyName => "pretty-name",
            OsFact::Version => "version",
            OsFact::VersionId => "version-id",
            OsFact::Variant => "variant",
            OsFact::VariantId => "variant-id",
        };
        reply.string_member(name, value);
    });
    call.reply.close_object();
    Ok(())
}

/// `guest-get-load`: `{}` → `GuestLoadAverage`
pub(super) fn load<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let load = call.guest.load();
    let reply = &mut call.reply;
    reply.open_object();
    for (name, load) in ["load1m", "load5m", "load15m"].iter().zip(&load) {
        reply.key(name);
        reply.decimal(*load, LOAD_SCALE);
    }
    reply.close_object();
    Ok(())
}
