//! Unix sockets: one host at a time, the next one waits in the backlog.

use core::ffi::CStr;

use linux_raw_sys::general as kernel;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::net::{accept_with, listen as start_listening, socket_with};
use rustix::process::umask;

use crate::sys::socket::{UnixAddress, bind, connect};

/// Hosts that may wait. The kernel lets one more connect.
const BACKLOG: i32 = 1;

/// Listens at a path that only the agent's user may connect to. A socket that nobody listens at any more is replaced;
/// one that is in use, or anything else that stands there, is left alone.
#[inline(never)]
pub(super) fn listen(path: &CStr) -> Result<OwnedFd, Errno> {
    let address = UnixAddress::new(path)?;
    let listener = stream_socket()?;
    match bind_privately(&listener, address.bytes()) {
        Err(Errno::ADDRINUSE) => {
            let found = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.st_mode & kernel::S_IFMT != kernel::S_IFSOCK {
                return Err(Errno::EXIST);
            }
            if connect(&stream_socket()?, address.bytes()) != Err(Errno::CONNREFUSED) {
                return Err(Errno::ADDRINUSE);
            }
            unlinkat(CWD, path, AtFlags::empty())?;
            bind_privately(&listener, address.bytes())?;
        }
        result => result?,
    }
    start_listening(&listener, BACKLOG)?;
    Ok(listener)
}

/// The next host.
pub(super) fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// The socket must not be open to others even for a moment, so its mode comes from the umask.
#[inline(never)]
fn bind_privately(listener: &OwnedFd, address: &[u8]) -> Result<(), Errno> {
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = bind(listener, address);
    umask(before);
    bound
}
