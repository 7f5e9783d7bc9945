//! Devices by the names that their drivers give them: those stand in a file of sysfs, beside the kernel's name, which
//! is that of the node in `/dev`.

use core::ffi::CStr;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use crate::sys::{self, PATH};

/// Opens the device of this class whose file `attribute` (`/name`) holds this name.
#[inline(never)]
pub fn open_named(class: &CStr, attribute: &[u8], name: &[u8]) -> Result<OwnedFd, Errno> {
    let mut found = Err(Errno::NOENT);
    sys::list(CWD, class, &mut |devices, device| {
        let device = device.to_bytes();
        if found.is_err() && holds(devices, &[device, attribute], name) {
            found = open(sys::join(&mut [0; PATH], &[b"/dev/", device]));
        }
    });
    found
}

/// Opens a device to talk to it. It is neither waited for nor becomes our terminal.
#[inline(never)]
pub fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    sys::open(CWD, path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)
}

/// Is this the line in the file? A device whose name has not arrived yet has none.
fn holds(folder: BorrowedFd<'_>, path: &[&[u8]], line: &[u8]) -> bool {
    let Ok(file) = sys::open(folder, sys::join(&mut [0; PATH], path), OFlags::RDONLY) else {
        return false;
    };
    let mut text = [0; 128];
    let len = sys::read(&file, &mut text);
    // The kernel ends it with a newline.
    len.checked_sub(1).and_then(|end| text.get(..end)) == Some(line)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::format;

    use super::*;

    #[test]
    fn a_device_is_found_by_the_name_that_its_driver_gives_it() {
        let class = std::env::temp_dir().join(format!("nanoga-class-{}", std::process::id()));
        for (device, name) in
            [("tty", "another\n"), ("null", "the right one\n"), ("nothing", "the right one of no node\n")]
        {
            std::fs::create_dir_all(class.join(device)).unwrap();
            std::fs::write(class.join(device).join("its_name"), name).unwrap();
        }
        std::fs::create_dir(class.join("nameless")).unwrap();
        let path = CString::new(class.to_str().unwrap()).unwrap();
        let find = |name: &[u8]| open_named(&path, b"/its_name", name);
        assert_eq!(rustix::io::write(find(b"the right one").unwrap(), b"into the void"), Ok(13));
        assert_eq!(find(b"the right").unwrap_err(), Errno::NOENT);
        assert_eq!(find(b"the right one of no node").unwrap_err(), Errno::NOENT);
        assert_eq!(open_named(c"/nowhere", b"/its_name", b"x").unwrap_err(), Errno::NOENT);
        std::fs::remove_dir_all(class).unwrap();
    }
}
