//! The file systems of the guest that is not there.

use std::ffi::{CStr, CString};
use std::task::Poll;

use agent_core::guest::{
    Bus, DiskAddress, Errno, FileSystem, FileSystems, Freeze, FreezeError, Job, Step, Trim, Trimmed, Usage,
};

use super::FakeGuest;

/// File systems made of plain data.
#[derive(Default)]
pub struct FakeStorage {
    /// Where they cannot be listed.
    pub mounts_error: Option<Errno>,
    /// Where they are mounted: what can be frozen.
    pub points: Vec<CString>,
    /// What is to be frozen.
    pub freezing: Vec<CString>,
    /// The last job is to thaw.
    pub thaws: bool,
    /// Why that fails.
    pub freeze_error: Option<FreezeError>,
    pub thaw_error: Option<FreezeError>,
    /// What is asked of a trim, and what comes of it.
    pub minimum: Option<u64>,
    pub trimmed: Vec<(&'static str, Trimmed)>,
}

/// What a walk over them shows.
pub const STEPS: [Step<'static>; 6] = [
    Step::FileSystem(&FileSystem {
        name: b"vda1",
        mountpoint: b"/a \"place\"",
        kind: b"ext4",
        usage: Some(Usage { used: 1, total: 2, total_privileged: u64::MAX }),
    }),
    Step::Disk(&DiskAddress {
        pci: [0, 1, 31, 7],
        kind: Bus::Virtio,
        place: [0, 4, 5],
        serial: b"S/N",
        device: b"/dev/vda1",
    }),
    Step::Disk(&DiskAddress {
        pci: [DiskAddress::NONE; 4],
        kind: Bus::Unknown,
        place: [2_147_483_647, 0, 0],
        serial: b"",
        device: b"",
    }),
    Step::End,
    Step::FileSystem(&FileSystem { name: b"7:0", mountpoint: b"/", kind: b"xfs", usage: None }),
    Step::End,
];

impl FileSystems for FakeGuest {
    fn file_systems(&mut self, each: &mut dyn FnMut(Step<'_>)) -> Result<(), Errno> {
        STEPS.into_iter().for_each(each);
        self.storage.mounts_error.map_or(Ok(()), Err)
    }
}

impl FakeGuest {
    fn job(&mut self) -> Job {
        self.jobs += 1;
        self.running.push(Job(self.jobs));
        Job(self.jobs)
    }
}

impl Trim for FakeGuest {
    fn trim(&mut self, minimum: u64) -> Result<Job, Errno> {
        self.storage.minimum = Some(minimum);
        Ok(self.job())
    }

    fn trimmed(&mut self, job: Job, each: &mut dyn FnMut(&[u8], Trimmed)) -> Poll<Result<(), Errno>> {
        if !self.ended.contains(&job) {
            return Poll::Pending;
        }
        for (path, trimmed) in &self.storage.trimmed {
            each(path.as_bytes(), *trimmed);
        }
        Poll::Ready(self.storage.mounts_error.map_or(Ok(()), Err))
    }
}

impl Freeze for FakeGuest {
    fn freeze(&mut self, wanted: &dyn Fn(&CStr) -> bool) -> Result<Job, FreezeError> {
        self.storage.freezing = self.storage.points.iter().filter(|point| wanted(point)).cloned().collect();
        self.frozen = true;
        self.storage.thaws = false;
        Ok(self.job())
    }

    fn thaw(&mut self) -> Result<Job, FreezeError> {
        self.storage.thaws = true;
        Ok(self.job())
    }

    fn settled(&mut self, job: Job) -> Poll<Result<u32, FreezeError>> {
        if !self.ended.contains(&job) {
            return Poll::Pending;
        }
        let storage = &mut self.storage;
        let count = u32::try_from(storage.freezing.len()).unwrap();
        let error = if storage.thaws { storage.thaw_error } else { storage.freeze_error };
        self.frozen = !storage.thaws && count > 0 && error.is_none();
        if storage.thaws {
            storage.freezing.clear();
        }
        Poll::Ready(error.map_or(Ok(count), Err))
    }

    fn culprit(&mut self) -> &[u8] {
        b"/the \"culprit\""
    }
}
