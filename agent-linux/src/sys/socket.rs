//! Sockets, by the bytes of their addresses.
//!
//! Not through rustix, which has each call once for every kind of address.

use core::ffi::CStr;

use linux_raw_sys::{general as kernel, net};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};

use super::{done, join, raw};
use crate::arch::syscall3;

/// Where a unix socket is: `struct sockaddr_un`.
#[repr(C)]
pub struct UnixAddress {
    family: u16,
    path: [u8; 108],
}

impl UnixAddress {
    /// At a path.
    pub fn new(path: &CStr) -> Result<Self> {
        let mut address = UnixAddress { family: FAMILY, path: [0; 108] };
        if join(&mut address.path, &[path.to_bytes()]).is_empty() {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(address)
    }

    /// As the kernel takes it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: all bytes of numbers are bytes, and there are none between them.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of_val(self)) }
    }
}

#[allow(clippy::as_conversions, reason = "1, and this is evaluated by the compiler")]
const FAMILY: u16 = net::AF_UNIX as u16;

/// Gives a socket its address: `bind(2)`.
pub fn bind(socket: &OwnedFd, address: &[u8]) -> Result<()> {
    with_address(kernel::__NR_bind, socket, address)
}

/// Connects to an address: `connect(2)`.
pub fn connect(socket: &OwnedFd, address: &[u8]) -> Result<()> {
    with_address(kernel::__NR_connect, socket, address)
}

#[inline(never)]
fn with_address(call: u32, socket: &OwnedFd, address: &[u8]) -> Result<()> {
    // SAFETY: the address is readable for the call.
    done(unsafe { syscall3(call, raw(socket), address.as_ptr().expose_provenance(), address.len()) })
}
