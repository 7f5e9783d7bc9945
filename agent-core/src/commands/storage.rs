//! File systems: what they are, giving free blocks back, and holding still for a snapshot.

use core::ffi::CStr;
use core::task::Poll;

use super::{Call, Failed, Result};
use crate::error::{Error, Fault, line};
use crate::guest::{DiskAddress, FileSystem, FreezeError, Guest, Job, Step, Trimmed};
use crate::packed;
use crate::reply::Reply;
use crate::request::c_string;

/// `guest-get-fsinfo`: `{}` → `[GuestFilesystemInfo]`
pub(super) fn file_systems<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.known(b"[");
    let walked = call.guest.file_systems(&mut |step| self::step(reply, step));
    reply.known(b"]");
    walked.map_err(|errno| call.fail_by(Fault::Mounts, errno))
}

#[inline(never)]
fn step(reply: &mut Reply<'_>, step: Step<'_>) {
    match step {
        // `GuestFilesystemInfo`, up to the list of its disks.
        Step::FileSystem(FileSystem { name, mountpoint, kind, usage }) => {
            reply.texts(packed!("{\"name\":%,\"mountpoint\":%,\"type\":%"), &[name, mountpoint, kind]);
            if let Some(usage) = usage {
                let bytes = [usage.used, usage.total, usage.total_privileged];
                reply.numbers(packed!("\"used-bytes\":#,\"total-bytes\":#,\"total-bytes-privileged\":#"), &bytes);
            }
            reply.known(packed!("\"disk\":["));
        }
        Step::Disk(disk) => address(reply, disk),
        Step::End => reply.known(b"]}"),
    }
}

/// `GuestDiskAddress`
#[allow(clippy::as_conversions, reason = "the number of a variant without a payload")]
fn address(reply: &mut Reply<'_>, disk: &DiskAddress<'_>) {
    const CONTROLLER: &[u8] = packed!("{\"pci-controller\":{\"domain\":&,\"bus\":&,\"slot\":&,\"function\":&}");
    reply.numbers(CONTROLLER, &disk.pci);
    reply.text(packed!("\"bus-type\":%"), line(BUS_TYPES, disk.kind as usize));
    reply.numbers(packed!("\"bus\":#,\"target\":#,\"unit\":#"), &disk.place);
    for (form, word) in [(packed!("\"serial\":%"), disk.serial), (packed!("\"dev\":%"), disk.device)] {
        if !word.is_empty() {
            reply.text(form, word);
        }
    }
    reply.known(b"}");
}

/// `GuestDiskBusType`, a line for each [`crate::guest::Bus`].
const BUS_TYPES: &[u8] = b"ide\nscsi\nvirtio\nusb\nsata\nnvme\nunknown";

/// `guest-fsfreeze-status`: `{}` → `GuestFsfreezeStatus`
pub(super) fn freeze_status<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    call.reply.string(if call.guest.is_frozen() { b"frozen" } else { b"thawed" });
    Ok(())
}

/// `guest-fsfreeze-freeze`: `{}` → the number of file systems
pub(super) fn freeze<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    call.no_more_arguments()?;

    start_freeze(call, &|_| true)
}

/// `guest-fsfreeze-freeze-list`: `{"mountpoints"?: [str]}` → the number of file systems
///
/// What is not mounted is left out. Without the list it is all of them.
pub(super) fn freeze_list<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    let list = call.optional_strings("mountpoints");
    call.no_more_arguments()?;

    start_freeze(call, &|point| list.is_none_or(|mut list| list.any(|place| c_string(place) == Some(point))))
}

#[inline(never)]
fn start_freeze<G: Guest>(call: &mut Call<'_, G>, wanted: &dyn Fn(&CStr) -> bool) -> Result<Job> {
    let started = call.guest.freeze(wanted);
    unless_failed(call, started)
}

/// `guest-fsfreeze-thaw`: `{}` → the number of file systems
pub(super) fn thaw<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    call.no_more_arguments()?;

    let started = call.guest.thaw();
    unless_failed(call, started)
}

/// They are frozen or thawed, or could not be.
pub(super) fn settled<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    call.guest.settled(job).map(|result| {
        let count = unless_failed(call, result)?;
        call.reply.integer(count.into());
        Ok(())
    })
}

#[inline(never)]
fn unless_failed<G, T>(call: &mut Call<'_, G>, result: core::result::Result<T, FreezeError>) -> Result<T> {
    result.map_err(|error| {
        call.error = Error::from(error);
        Failed
    })
}

/// `guest-fstrim`: `{"minimum"?: int}` → `GuestFilesystemTrimResponse`
pub(super) fn trim<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    let minimum = call.optional_integer("minimum");
    call.no_more_arguments()?;

    let started = call.guest.trim(minimum.unwrap_or(0).cast_unsigned());
    started.map_err(|errno| call.fail_by(Fault::Job, errno))
}

/// All have been trimmed, or their errors are known.
pub(super) fn trimmed<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    let reply = &mut call.reply;
    reply.known(packed!("{\"paths\":["));
    let done = call.guest.trimmed(job, &mut |path, trimmed| result(reply, path, trimmed));
    reply.known(b"]}");
    done.map_err(|errno| call.fail_by(Fault::Mounts, errno))
}

/// `GuestFilesystemTrimResult`
#[inline(never)]
fn result(reply: &mut Reply<'_>, path: &[u8], trimmed: Trimmed) {
    reply.text(packed!("{\"path\":%"), path);
    let error = match trimmed {
        Trimmed::Bytes(trimmed, minimum) => {
            return reply.numbers(packed!("\"trimmed\":#,\"minimum\":#}"), &[trimmed, minimum]);
        }
        Trimmed::Unsupported => Fault::TrimUnsupported.plain(),
        Trimmed::Failed(errno) => Fault::Trim.by(errno),
        Trimmed::NotOpened(errno) => Fault::TrimOpen.by(errno),
    };
    reply.known(packed!("\"error\":"));
    reply.sentence(&error);
    reply.known(b"}");
}
