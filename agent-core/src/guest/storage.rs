//! File systems on disks: what they are, where they lie, and making them hold still.
//!
//! "All file systems" are those that lie on a block device, each once, however often it is mounted. Network file
//! systems and those in memory are not among them.

use core::ffi::CStr;
use core::task::Poll;

use super::{Errno, Job};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Unknown,
}

/// A disk under a file system, by its place in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskAddress<'a> {
    /// Domain, bus, slot and function of its PCI controller; all [`DiskAddress::NONE`] if it has none.
    pub pci: [u64; 4],
    /// What it is plugged into.
    pub kind: Bus,
    /// Its bus, target and unit there, counted from 0.
    pub place: [u64; 3],
    /// Its serial number; empty if it is not known.
    pub serial: &'a [u8],
    /// The path of its device, or of the partition; empty if it is not known.
    pub device: &'a [u8],
}

impl DiskAddress<'_> {
    /// No number: -1 for a host.
    pub const NONE: u64 = u64::MAX;

    /// Nothing is known of it.
    pub const UNKNOWN: Self =
        DiskAddress { pci: [Self::NONE; 4], kind: Bus::Unknown, place: [0; 3], serial: b"", device: b"" };
}

/// One step of a walk over the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The next file system. Its disks follow.
    FileSystem(&'a FileSystem<'a>),
    /// A disk under it.
    Disk(&'a DiskAddress<'a>),
    /// It has no more disks.
    End,
}

/// What the guest's disks hold.
pub trait FileSystems {
    /// Walks over all file systems, the last one mounted first.
    ///
    /// After an error the steps so far are worth nothing.
    fn file_systems(&mut self, each: &mut dyn FnMut(Step<'_>)) -> Result<(), Errno>;
}

/// What became of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// So many bytes were given back, and the smallest extent that was looked at.
    Bytes(u64, u64),
    /// It or its disk cannot do it.
    Unsupported,
    /// It failed.
    Failed(Errno),
    /// Its mount point could not be opened.
    NotOpened(Errno),
}

/// Telling disks which blocks are free.
pub trait Trim {
    /// Starts to trim all file systems, but no free extent of less than these bytes.
    fn trim(&mut self, minimum: u64) -> Result<Job, Errno>;

    /// What became of each file system, the last one mounted first, once that job has ended. Ready at most once.
    fn trimmed(&mut self, job: Job, each: &mut dyn FnMut(&[u8], Trimmed)) -> Poll<Result<(), Errno>>;
}

/// Why file systems were not frozen or thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeError {
    /// The list of mounts could not be read.
    Mounts(Errno),
    /// [`Freeze::culprit`], a mount point, could not be opened.
    Open(Errno),
    /// The file system mounted at [`Freeze::culprit`] could not be frozen.
    Freeze(Errno),
    /// [`Freeze::culprit`], the hook, is not there or cannot be run.
    HookMissing(Errno),
    /// The hook ended with this exit status (128 + N when signal N killed it).
    HookFailed(u8),
    /// The job itself could not be started, or was killed: by a thaw, perhaps.
    Job(Errno),
}

/// Making file systems hold still, as for a snapshot of their disks. [`super::Guest::is_frozen`] says whether they do.
pub trait Freeze {
    /// Starts to freeze all file systems whose mount point is wanted. From now on the guest counts as frozen.
    fn freeze(&mut self, wanted: &dyn Fn(&CStr) -> bool) -> Result<Job, FreezeError>;

    /// Starts to thaw all file systems, also in the middle of freezing them, and if none seems to be frozen.
    fn thaw(&mut self) -> Result<Job, FreezeError>;

    /// How many have been frozen or thawed, once that job has ended. After a freeze that failed or found none the guest
    /// is not frozen.
    fn settled(&mut self, job: Job) -> Poll<Result<u32, FreezeError>>;

    /// What the last error was about.
    fn culprit(&mut self) -> &[u8];
}
