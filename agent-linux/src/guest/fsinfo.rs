//! What file systems there are, how full they are, and where their disks are plugged in.
//!
//! Only file systems on block devices are asked how full they are: one of a server that does not answer would keep the
//! agent waiting.

use agent_core::guest::{Errno, FileSystem, FileSystems, Step, Usage};
use rustix::fs::statfs;

use super::LinuxGuest;
use super::disk_address::{LINK, Search, base_name, link as link_of};
use super::mounts::{Mount, Mounts, Order};

impl FileSystems for LinuxGuest {
    fn file_systems(&mut self, each: &mut dyn FnMut(&Step<'_>)) -> Result<(), Errno> {
        let root = &self.root.to_bytes();
        // The kernel takes longer to write the table than all else here.
        if self.mounts.as_ref().is_none_or(Mounts::are_stale) {
            self.mounts = Some(Mounts::read(root)?);
        }
        if let Some(mounts) = &mut self.mounts {
            let (space, serials) = (&mut self.buffers.0, &mut self.tables.serials);
            let mut search = Search { root, space, serials, depth: 0, each };
            mounts.walk(Order::Reverse, &mut |mount| file_system(mount, &mut search));
        }
        Ok(())
    }
}

fn file_system(mount: &Mount<'_>, search: &mut Search<'_>) {
    let link = &mut [0; LINK];
    let link = link_of(search.root, mount.device, link);
    (search.each)(&Step::FileSystem(FileSystem {
        name: link.map_or(mount.device, base_name),
        mountpoint: mount.point.to_bytes(),
        kind: mount.kind,
        usage: usage(mount),
    }));
    if let Some(link) = link {
        search.disks(mount.device, link);
    }
    (search.each)(&Step::End);
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
