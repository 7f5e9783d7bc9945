//! What file systems there are, how full they are, and where their disks are plugged in.
//!
//! Only file systems on block devices are asked how full they are: one of a server that does not answer would keep the
//! agent waiting.

use agent_core::guest::{Errno, FileSystem, FileSystems, Step, Usage};
use rustix::fs::statfs;

use super::LinuxGuest;
use super::disk_address::Node;
use super::mounts::{Mount, Mounts, Order};

impl FileSystems for LinuxGuest {
    fn file_systems(&mut self, each: &mut dyn FnMut(&Step<'_>)) -> Result<(), Errno> {
        let serials = &mut self.serials;
        if self.mounts.as_ref().is_none_or(Mounts::are_stale) {
            self.mounts = None;
            self.mounts = Some(Mounts::read(self.root)?);
        }
        let Some(mounts) = &mut self.mounts else {
            return Ok(());
        };
        mounts.walk(Order::Reverse, &mut |root, mount, space| {
            let node = Node::find(root, mount.device);
            each(&Step::FileSystem(FileSystem {
                name: node.as_ref().map_or(mount.device, Node::name),
                mountpoint: mount.point.to_bytes(),
                kind: mount.kind,
                usage: usage(mount),
            }));
            if let Some(node) = node {
                node.disks(root, mount.device, 0, space, serials, &mut |disk| each(&Step::Disk(*disk)));
            }
        });
        Ok(())
    }
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
