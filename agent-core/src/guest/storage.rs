//! File systems on disks: what they are, where they lie, and making them hold still.
//!
//! "All file systems" are those that lie on a block device, each once, however often it is mounted. Network file
//! systems and those in memory are not among them.

use super::Errno;

/// A mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem<'a> {
    /// The kernel's name of its device: `vda1`, `dm-0`.
    pub name: &'a [u8],
    /// Where it is mounted: an absolute path.
    pub mountpoint: &'a [u8],
    /// `ext4`, `btrfs`.
    pub kind: &'a [u8],
    /// How full it is, if it says so.
    pub usage: Option<Usage>,
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// All that ordinary users may use.
    pub total: u64,
    /// All, with what is reserved for root.
    pub total_privileged: u64,
}

/// What a disk is plugged into (QAPI `GuestDiskBusType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// Parallel ATA.
    Ide,
    /// SCSI, also that of virtio.
    Scsi,
    /// A virtio device of its own.
    Virtio,
    /// A stick.
    Usb,
    /// Serial ATA.
    Sata,
    /// NVM Express.
    Nvme,
    /// Something else.
    #[default]
    Unknown,
}

/// A disk under a file system, by its place in the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskAddress<'a> {
    /// Domain, bus, slot and function of its PCI controller, if it has one.
    pub pci: Option<[u32; 4]>,
    /// What it is plugged into.
    pub kind: Bus,
    /// Its bus there, counted from 0.
    pub bus: u32,
    /// Its target there.
    pub target: u32,
    /// Its unit there.
    pub unit: u32,
    /// Its serial number; empty if it is not known.
    pub serial: &'a [u8],
    /// The path of its device, or of the partition; empty if it is not known.
    pub device: &'a [u8],
}

/// One step of a walk over the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The next file system. Its disks follow.
    FileSystem(FileSystem<'a>),
    /// A disk under the file system named last.
    Disk(DiskAddress<'a>),
}

/// What the guest's disks hold.
pub trait FileSystems {
    /// Walks over all file systems, the last one mounted first.
    ///
    /// After an error the steps so far are worth nothing.
    fn file_systems(&mut self, each: &mut dyn FnMut(&Step<'_>)) -> Result<(), Errno>;
}
