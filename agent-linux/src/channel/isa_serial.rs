//! Serial lines, in raw mode: what the host sends arrives unchanged, and nothing of it is echoed.

use core::ffi::CStr;

use linux_raw_sys::general as kernel;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, SpecialCodeIndex, tcflush,
    tcgetattr, tcsetattr,
};

/// Opens a line and drops what came in before.
pub(super) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = openat(CWD, path, flags, Mode::empty())?;
    let mut settings = tcgetattr(&line)?;
    settings.input_modes = InputModes::empty();
    settings.output_modes = OutputModes::empty();
    settings.local_modes = LocalModes::empty();
    // CLOCAL: no modem tells whether the host is there. The speed means nothing to an emulated line.
    let speed = ControlModes::from_bits_retain(kernel::CBAUD | kernel::CIBAUD);
    settings.control_modes.remove(speed | ControlModes::CSIZE | ControlModes::PARENB | ControlModes::CSTOPB);
    settings.control_modes.insert(ControlModes::from_bits_retain(kernel::B38400));
    settings.control_modes.insert(ControlModes::CS8 | ControlModes::CREAD | ControlModes::CLOCAL);
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcflush(&line, QueueSelector::IFlush)?;
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    Ok(line)
}
