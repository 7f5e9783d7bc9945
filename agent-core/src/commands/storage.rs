//! File systems: what they are, giving free blocks back, and holding still for a snapshot.

use core::ffi::CStr;
use core::iter::Zip;
use core::slice::Iter;
use core::task::Poll;

use super::{Call, Failed, Result};
use crate::error::{Error, Fault, errno_text};
use crate::guest::{Bus, DiskAddress, FileSystem, FreezeError, Guest, Job, Step, Trimmed};
use crate::packed;
use crate::reply::Reply;
use crate::request::c_string;

/// `guest-get-fsinfo`: `{}` → `[GuestFilesystemInfo]`
pub(super) fn file_systems<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let reply = &mut call.reply;
    let mut open = false;
    reply.open_list();
    let walked = call.guest.file_systems(&mut |step| match step {
        Step::FileSystem(file_system) => {
            close(reply, open);
            open = true;
            self::file_system(reply, file_system);
        }
        Step::Disk(disk) => address(reply, disk),
    });
    close(reply, open);
    reply.close_list();
    walked.map_err(|errno| {
        call.error = Fault::Mounts.by(errno);
        Failed
    })
}

/// Ends a file system and the list of its disks.
#[inline(never)]
fn close(reply: &mut Reply<'_>, open: bool) {
    if open {
        reply.close_list();
        reply.close_object();
    }
}

/// `GuestFilesystemInfo`, up to the list of its disks.
#[inline(never)]
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
#[inline(never)]
fn address(reply: &mut Reply<'_>, disk: &DiskAddress<'_>) {
    reply.open_object();
    reply.key("pci-controller");
    reply.open_object();
    numbers(reply, ["domain", "bus", "slot", "function"].iter().zip(&disk.pci));
    reply.close_object();
    reply.string_member("bus-type", bus_type(disk.kind).as_bytes());
    numbers(reply, ["bus", "target", "unit"].iter().zip(&[disk.bus, disk.target, disk.unit]));
    for (key, word) in [("serial", disk.serial), ("dev", disk.device)] {
        if !word.is_empty() {
            reply.string_member(key, word);
        }
    }
    reply.close_object();
}

/// Members that are numbers.
#[inline(never)]
fn numbers(reply: &mut Reply<'_>, members: Zip<Iter<'_, &'static str>, Iter<'_, i32>>) {
    for (key, number) in members {
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
    started.map_err(|error| failed(call, error))
}

/// They are frozen, or could not be.
pub(super) fn frozen<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    call.guest.frozen(job).map(|result| count(call, result))
}

/// `guest-fsfreeze-thaw`: `{}` → the number of file systems
pub(super) fn thaw<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    call.no_more_arguments()?;

    call.guest.thaw().map_err(|error| failed(call, error))
}

/// They are thawed, or could not be.
pub(super) fn thawed<G: Guest>(call: &mut Call<'_, G>, job: Job) -> Poll<Result<()>> {
    call.guest.thawed(job).map(|result| count(call, result))
}

#[inline(never)]
fn count<G>(call: &mut Call<'_, G>, result: core::result::Result<u32, FreezeError>) -> Result<()> {
    let count = result.map_err(|error| failed(call, error))?;
    call.reply.unsigned(u64::from(count));
    Ok(())
}

fn failed<G>(call: &mut Call<'_, G>, error: FreezeError) -> Failed {
    call.error = Error::from(error);
    Failed
}

/// `guest-fstrim`: `{"minimum"?: int}` → `GuestFilesystemTrimResponse`
pub(super) fn trim<G: Guest>(call: &mut Call<'_, G>) -> Result<Job> {
    let minimum = call.optional_integer("minimum")?;
    call.no_more_arguments()?;

    let started = call.guest.trim(minimum.unwrap_or(0).cast_unsigned());
    started.map_err(|errno| {
        call.error = Fault::Job.by(errno);
        Failed
    })
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
    done.map_err(|errno| {
        call.error = Fault::Mounts.by(errno);
        Failed
    })
}

/// `GuestFilesystemTrimResult`
#[inline(never)]
fn result(reply: &mut Reply<'_>, path: &[u8], trimmed: Trimmed) {
    reply.open_object();
    reply.string_member("path", path);
    let (what, errno) = match trimmed {
        Trimmed::Bytes(trimmed, minimum) => {
            reply.number_member("trimmed", trimmed);
            reply.number_member("minimum", minimum);
            return reply.close_object();
        }
        Trimmed::Unsupported => (packed!("trim not supported"), None),
        Trimmed::Failed(errno) => (packed!("failed to trim: "), Some(errno)),
        Trimmed::NotOpened(errno) => (packed!("failed to open: "), Some(errno)),
    };
    reply.key("error");
    reply.open_string();
    reply.part_packed(what);
    reply.part_packed(errno.map(errno_text).unwrap_or_default());
    reply.close_string();
    reply.close_object();
}
