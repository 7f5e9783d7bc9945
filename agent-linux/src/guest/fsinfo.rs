//! What file systems there are, how full they are, and where their disks are plugged in.
//!
//! Only file systems on block devices are asked how full they are: one of a server that does not answer would keep the
//! agent waiting.

use agent_core::guest::{Errno, FileSystem, FileSystems, Step, Usage};
use rustix::fs::statfs;

use super::LinuxGuest;
use super::disk_address::{DEPTH, Search};
use super::mounts::{Mount, Mounts, Order};

impl FileSystems for LinuxGuest {
    fn file_systems(&mut self, each: &mut dyn FnMut(Step<'_>)) -> Result<(), Errno> {
        // The kernel takes longer to write the table than all else here.
        if self.mounts.as_ref().is_none_or(Mounts::are_stale) {
            // If that fails, the old one does not count: the kernel says only once that it is stale.
            self.mounts = None;
            self.mounts = Some(Mounts::read()?);
        }
        if let Some(mounts) = &mut self.mounts {
            let mut search = Search { space: &mut self.buffers.0, disks: &mut self.tables.disks, each };
            mounts.walk(Order::Reverse, &mut |mount| file_system(mount, &mut search));
        }
        Ok(())
    }
}

#[inline(never)]
fn file_system(mount: &Mount<'_>, search: &mut Search<'_>) {
    let folder = search.enter(mount.device);
    let name = search.disks.name();
    (search.each)(Step::FileSystem(&FileSystem {
        name: if name.is_empty() { mount.device } else { name },
        mountpoint: mount.point.to_bytes(),
        kind: mount.kind,
        usage: usage(mount),
    }));
    if let Ok(folder) = folder {
        search.visit(&folder, mount.device, DEPTH);
    }
    (search.each)(Step::End);
}

fn usage(mount: &Mount<'_>) -> Option<Usage> {
    let found = statfs(mount.point).ok()?;
    let block = u64::try_from(found.f_frsize).unwrap_or(0);
    let used = found.f_blocks.wrapping_sub(found.f_bfree);
    Some(Usage {
        used: used.wrapping_mul(block),
        total: used.wrapping_add(found.f_bavail).wrapping_mul(block),
        total_privileged: found.f_blocks.wrapping_mul(block),
    })
}
