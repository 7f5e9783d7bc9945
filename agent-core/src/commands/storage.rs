//! File systems: what they are, giving free blocks back, and holding still for a snapshot.

use super::{Call, Failed, Result};
use crate::error::Fault;
use crate::guest::{Bus, DiskAddress, FileSystem, Guest, Step};
use crate::reply::Reply;

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
    word(reply, "name", file_system.name);
    word(reply, "mountpoint", file_system.mountpoint);
    word(reply, "type", file_system.kind);
    if let Some(usage) = file_system.usage {
        bytes(reply, "used-bytes", usage.used);
        bytes(reply, "total-bytes", usage.total);
        bytes(reply, "total-bytes-privileged", usage.total_privileged);
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
    for (at, key) in ["domain", "bus", "slot", "function"].into_iter().enumerate() {
        reply.key(key);
        reply.integer(disk.pci.and_then(|pci| pci.get(at).copied()).map_or(-1, i64::from));
    }
    reply.close_object();
    word(reply, "bus-type", bus_type(disk.kind).as_bytes());
    bytes(reply, "bus", u64::from(disk.bus));
    bytes(reply, "target", u64::from(disk.target));
    bytes(reply, "unit", u64::from(disk.unit));
    word(reply, "serial", disk.serial);
    word(reply, "dev", disk.device);
    reply.close_object();
}

/// A member that is a word, unless that is empty.
#[inline(never)]
fn word(reply: &mut Reply<'_>, key: &'static str, word: &[u8]) {
    if !word.is_empty() {
        reply.key(key);
        reply.string(word);
    }
}

/// A member that is a number.
#[inline(never)]
fn bytes(reply: &mut Reply<'_>, key: &'static str, number: u64) {
    reply.key(key);
    reply.unsigned(number);
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
