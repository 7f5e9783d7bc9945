//! What is asked of what lies behind a descriptor, beside its bytes: `ioctl(2)` and `setsockopt(2)`.
//!
//! Who may be asked, and when, is known elsewhere.

use linux_raw_sys::{general as kernel, ioctl, netlink};
use rustix::fd::{AsRawFd, OwnedFd};

use super::{done, raw, wide};
use crate::arch::{syscall3, syscall5};

/// What can be asked of a mounted file system: the number for `ioctl(2)` in linux/fs.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfFileSystem(u32);

impl OfFileSystem {
    /// FIFREEZE: nothing may be written.
    pub const FREEZE: Self = Self(0xC004_5877);
    /// FITHAW: it may again.
    pub const THAW: Self = Self(0xC004_5878);
    /// FITRIM: the disk shall forget what the free blocks of this range hold.
    pub const TRIM: Self = Self(0xC018_5879);
}

/// Asks that of the file system that something lies on. The range is `struct fstrim_range`: start, length, and the
/// smallest extent; only a trim looks at it.
pub fn ask_file_system(of: &OwnedFd, what: OfFileSystem, range: &mut [u64; 3]) -> rustix::io::Result<()> {
    // SAFETY: the range is readable and writable for the call, and none of these touches more.
    done(unsafe { syscall3(kernel::__NR_ioctl, raw(of), wide(what.0), range.as_mut_ptr().expose_provenance()) })
}

/// Puts a serial line into raw mode, with these control flags, and drops what came in so far: `TCSETS` and `TCFLSH` of
/// `ioctl_tty(2)`.
///
/// Not through rustix: it converts speeds, which an emulated line has no use for.
pub fn make_raw(line: &impl AsRawFd, flags: u32) -> rustix::io::Result<()> {
    let mut codes = [0; 19];
    codes[6] = 1; // VMIN: a read returns as soon as there is a byte
    let settings = kernel::termios { c_iflag: 0, c_oflag: 0, c_cflag: flags, c_lflag: 0, c_line: 0, c_cc: codes };
    let line = raw(line);
    // SAFETY: the structure is readable for the call.
    unsafe {
        syscall3(kernel::__NR_ioctl, line, wide(ioctl::TCFLSH), 0); // TCIFLUSH
        let settings = (&raw const settings).expose_provenance();
        done(syscall3(kernel::__NR_ioctl, line, wide(ioctl::TCSETS), settings))
    }
}

/// Makes the kernel heed what a dump request of netlink asks for: `NETLINK_GET_STRICT_CHK` (`netlink(7)`).
///
/// Kernels before 4.20 do not know it, so what they answer must be done anyway.
pub fn netlink_strict(socket: &impl AsRawFd) {
    let on = 1_u32;
    // SAFETY: the option's value is readable for the call.
    unsafe {
        syscall5(
            kernel::__NR_setsockopt,
            raw(socket),
            270, // SOL_NETLINK, linux/socket.h
            wide(netlink::NETLINK_GET_STRICT_CHK),
            (&raw const on).expose_provenance(),
            size_of_val(&on),
        );
    }
}
