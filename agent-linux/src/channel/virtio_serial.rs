//! Ports of a virtio console: `/dev/virtio-ports/NAME` where udev made the link, otherwise `/dev/vportNpM`, whose
//! name stands in `/sys/class/virtio-ports/vportNpM/name`.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::device;

/// Opens the port at a path, or of that name.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    match device::open(path) {
        Err(Errno::NOENT) => {
            let name = path.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            device::open_named(c"/sys/class/virtio-ports", b"/name", name)
        }
        result => result,
    }
}
