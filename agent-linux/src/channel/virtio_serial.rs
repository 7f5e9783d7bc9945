//! Ports of a virtio console: `/dev/virtio-ports/NAME` where udev made the link, otherwise `/dev/vportNpM`, whose
//! name stands in `/sys/class/virtio-ports/vportNpM/name`.

use core::ffi::CStr;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, read};

use crate::sys::{self, PATH};

/// Opens the port at a path, or of that name.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    match open_device(path) {
        Err(Errno::NOENT) => open_by_name(path.to_bytes()),
        result => result,
    }
}

fn open_by_name(path: &[u8]) -> Result<OwnedFd, Errno> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut found = Err(Errno::NOENT);
    sys::list(CWD, c"/sys/class/virtio-ports", &mut |ports, port| {
        if found.is_err() && has_name(ports, port.to_bytes(), name) {
            found = open_device(sys::join(&mut [0; PATH], &[b"/dev/", port.to_bytes()]));
        }
    });
    found
}

/// A port whose name has not arrived yet has none.
fn has_name(ports: BorrowedFd<'_>, port: &[u8], name: &[u8]) -> bool {
    let Ok(file) = sys::open(ports, sys::join(&mut [0; PATH], &[port, b"/name"]), OFlags::RDONLY) else {
        return false;
    };
    let mut text = [0; 128];
    let len = read(&file, text.as_mut_slice()).unwrap_or(0);
    // The kernel ends it with a newline.
    len.checked_sub(1).and_then(|end| text.get(..end)) == Some(name)
}

#[inline(never)]
fn open_device(path: &CStr) -> Result<OwnedFd, Errno> {
    sys::open(CWD, path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)
}
