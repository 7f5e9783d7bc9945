//! Ports of a virtio console: `/dev/virtio-ports/NAME` where udev made the link, otherwise `/dev/vportNpM`, whose
//! name stands in `/sys/class/virtio-ports/vportNpM/name`.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use heapless::Vec;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, read};

const CLASS: &CStr = c"/sys/class/virtio-ports";

/// Opens the port at a path, or of that name.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    match open_device(CWD, path) {
        Err(Errno::NOENT) => open_by_name(path.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()),
        result => result,
    }
}

fn open_by_name(name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let class = openat(CWD, CLASS, flags, Mode::empty())?;
    let mut space = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&class, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let port = entry.file_name();
        if port.to_bytes().starts_with(b".") {
            continue;
        }
        let mut path: Vec<u8, 64> = Vec::new();
        if path.extend_from_slice(port.to_bytes()).is_err() || path.extend_from_slice(b"/name\0").is_err() {
            continue;
        }
        // A port whose name has not arrived yet has no such file.
        let mut found = [0; 128];
        let Ok(file) = CStr::from_bytes_with_nul(&path) else { continue };
        let Ok(file) = openat(&class, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let Ok(len) = read(&file, &mut found) else { continue };
        if found.get(..len).unwrap_or_default().trim_ascii_end() == name {
            let devices = openat(CWD, c"/dev", flags, Mode::empty())?;
            return open_device(&devices, port);
        }
    }
    Err(Errno::NOENT)
}

fn open_device(directory: impl rustix::fd::AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    openat(directory, path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}
