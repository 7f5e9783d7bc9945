//! File systems: what they are, giving free blocks back, and holding still for a snapshot.

use core::ffi::CStr;
use core::task::Poll;

use super::{Call, Failed, Result};
use crate::error::{Error, Fault};
use crate::guest::{Bus, DiskAddress, FileSystem, FreezeError, Guest, Job, Step, Trimmed};
use crate::reply::Reply;
use crate::request::c_string;

/// `guest-get-fsinfo`: `{}` → `[GuestFilesystemInfo]`
pub(super) fn file_systems<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    reply.open_list();
    let walked = call.guest.file_systems(&mut |step| self::step(reply, step));
    reply.close_list();
    walked.map_err(|errno| call.fail_by(Fault::Mounts, errno))
}

#[inline(never)]
fn step(reply: &mut Reply<'_>, step: &Step<'_>) {
    match step {
        Step::FileSystem(file_system) => self::file_system(reply, file_system),
        Step::Disk(disk) => address(reply, disk),
        Step::End => {
            reply.close_list();
            reply.close_object();
        }
    }
}

/// `GuestFilesystemInfo`, up to the list of its disks.
fn file_system(reply: &mut Reply<'_>, file_system: &FileSystem<'_>) {
    reply.open_object();
    reply.string_member("name", file_system.name);
    reply.string_member("mountpoint", file_system.mountpoint);
    reply.string_member("type", file_system.kind);
    if let Some(usage) = file_system.usage {
        reply.number_member("used-bytes", usage.used);
        reply.number_member("total-bytes", usage.total);
        reply.number_member("total-bytes-privileged", usage.total_privileged);
    }
    reply.key("disk");
    reply.open_list();
}

/// `GuestDiskAddress`
fn address(reply: &mut Reply<'_>, disk: &DiskAddress<'_>) {
    reply.open_object();
    reply.key("pci-controller");
    reply.open_object();
    numbers(reply, &["domain", "bus", "slot", "function"], &disk.pci);
    reply.close_object();
    reply.string_member("bus-type", bus_type(disk.kind).as_bytes());
    numbers(reply, &["bus", "target", "unit"], &disk.place);
    for (key, word) in [("serial", disk.serial), ("dev", disk.device)] {
        if !word.is_empty() {
            reply.string_member(key, word);
        }
    }
    reply.close_object();
}

/// Members that are numbers.
#[inline(never)]
fn numbers(reply: &mut Reply<'_>, keys: &[&'static str], numbers: &[i32]) {
    for (key, number) in keys.iter().zip(numbers) {
        reply.key(key);
        reply.integer(i64::from(*number));
    }
}

/// `GuestDiskBusType`
fn bus_type(bus: Bus) -> &'static str {
    match bus {
        Bus::Ide => "ide",
        Bus::Scsi => "scsi",
        Bus::Virtio => "virtio",
        Bus::Usb => "usb",
        Bus::Sata => "sata",
        Bus::Nvme => "nvme",
        Bus::Unknown => "unknown",
    }
}

/// `guest-fsfreeze-status`: `{}` → `GuestFsfreezeStatus`
pub(super) fn freeze_status<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let status = if call.guest.is_frozen() { "frozen" } else { "thawed" };
    call.reply.string(status.as_bytes());
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
    let list = call.optional_strings("mountpoints")?;
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
        call.reply.unsigned(u64::from(count));
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
    let minimum = call.optional_integer("minimum")?;
    call.no_more_arguments()?;

    let started = call.guest.trim(minimum.unwrap_or(0).cast_unsigned());
    started.map_err(|errno| call.fail_by(Fault::Job, errno))
}

/// All have been trimmed, or their errors are known.
pub(super) fn trimmed<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    let reply = &mut call.reply;
    reply.open_object();
    reply.key("paths");
    reply.open_list();
    let done = call.guest.trimmed(job, &mut |path, trimmed| result(reply, path, trimmed));
    reply.close_list();
    reply.close_object();
    done.map_err(|errno| call.fail_by(Fault::Mounts, errno))
}

/// `GuestFilesystemTrimResult`
#[inline(never)]
fn result(reply: &mut Reply<'_>, path: &[u8], trimmed: Trimmed) {
    reply.open_object();
    reply.string_member("path", path);
    let error = match trimmed {
        Trimmed::Bytes(trimmed, minimum) => {
            reply.number_member("trimmed", trimmed);
            reply.number_member("minimum", minimum);
            return reply.close_object();
        }
        Trimmed::Unsupported => Fault::TrimUnsupported.plain(),
        Trimmed::Failed(errno) => Fault::Trim.by(errno),
        Trimmed::NotOpened(errno) => Fault::TrimOpen.by(errno),
    };
    reply.key("error");
    reply.open_string();
    reply.sentence(&error);
    reply.close_string();
    reply.close_object();
}
