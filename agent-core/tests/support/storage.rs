//! The file systems of the guest that is not there.

use agent_core::guest::{Bus, DiskAddress, Errno, FileSystem, FileSystems, Step, Usage};

use super::FakeGuest;

/// File systems made of plain data.
#[derive(Default)]
pub struct FakeStorage {
    /// Where they cannot be listed.
    pub mounts_error: Option<Errno>,
}

/// What a walk over them shows.
pub const STEPS: [Step<'static>; 4] = [
    Step::FileSystem(FileSystem {
        name: b"vda1",
        mountpoint: b"/a \"place\"",
        kind: b"ext4",
        usage: Some(Usage { used: 1, total: 2, total_privileged: u64::MAX }),
    }),
    Step::Disk(DiskAddress {
        pci: Some([0, 1, 31, 7]),
        kind: Bus::Virtio,
        bus: 0,
        target: 4,
        unit: 5,
        serial: b"S/N",
        device: b"/dev/vda1",
    }),
    Step::Disk(DiskAddress {
        pci: None,
        kind: Bus::Unknown,
        bus: u32::MAX,
        target: 0,
        unit: 0,
        serial: b"",
        device: b"",
    }),
    Step::FileSystem(FileSystem { name: b"7:0", mountpoint: b"/", kind: b"xfs", usage: None }),
];

impl FileSystems for FakeGuest {
    fn file_systems(&mut self, each: &mut dyn FnMut(&Step<'_>)) -> Result<(), Errno> {
        STEPS.iter().for_each(each);
        self.storage.mounts_error.map_or(Ok(()), Err)
    }
}
