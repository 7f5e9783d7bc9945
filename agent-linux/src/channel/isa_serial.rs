//! Serial lines, in raw mode: what the host sends arrives unchanged, and nothing of it is echoed.

use core::ffi::CStr;

use linux_raw_sys::general as kernel;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use crate::sys;

/// Eight bits, and no modem tells whether the host is there (CLOCAL). The speed means nothing to an emulated line.
const FLAGS: u32 = kernel::B38400 | kernel::CS8 | kernel::CREAD | kernel::CLOCAL;

/// Opens a line.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    let line = sys::open(CWD, path, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK)?;
    sys::make_raw(&line, FLAGS).map_err(|_| Errno::NOTTY)?;
    Ok(line)
}
