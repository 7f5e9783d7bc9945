//! Ports of a virtio console: `/dev/virtio-ports/NAME` where udev made the link, otherwise `/dev/vportNpM`, whose
//! name stands in `/sys/class/virtio-ports/vportNpM/name`.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags, RawDir};
use rustix::io::{Errno, read};

use crate::sys;

/// Opens the port at a path, or of that name.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    match open_device(CWD, path) {
        Err(Errno::NOENT) => open_by_name(path.to_bytes()),
        result => result,
    }
}

#[inline(never)]
fn open_by_name(path: &[u8]) -> Result<OwnedFd, Errno> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let ports = sys::open(CWD, c"/sys/class/virtio-ports", OFlags::RDONLY)?;
    let mut space = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&ports, &mut space);
    while let Some(Ok(entry)) = entries.next() {
        if has_name(ports.as_fd(), entry.file_name(), name).unwrap_or(false) {
            return open_device(sys::open(CWD, c"/dev", OFlags::PATH)?.as_fd(), entry.file_name());
        }
    }
    Err(Errno::NOENT)
}

/// A port whose name has not arrived yet has none.
#[inline(never)]
fn has_name(ports: BorrowedFd<'_>, port: &CStr, name: &[u8]) -> Result<bool, Errno> {
    let port = sys::open(ports, port, OFlags::PATH)?;
    let file = sys::open(port.as_fd(), c"name", OFlags::RDONLY)?;
    let mut text = [0; 128];
    let len = read(&file, &mut text)?;
    // The kernel ends it with a newline.
    Ok(len.checked_sub(1).and_then(|end| text.get(..end)) == Some(name))
}

#[inline(never)]
fn open_device(folder: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    sys::open(folder, path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)
}
