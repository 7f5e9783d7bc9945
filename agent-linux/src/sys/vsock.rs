//! Sockets between a guest and its host, as far as rustix does not know them: `vsock(7)`.

use linux_raw_sys::{general as kernel, net};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::raw;
use crate::arch::{syscall3, syscall5};

/// The host of this guest: `VMADDR_CID_HOST` of linux/vm_sockets.h.
pub const HOST: u32 = 2;

/// Where a socket is: `struct sockaddr_vm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    family: u16,
    reserved: u16,
    /// The port.
    pub port: u32,
    /// The machine, by its context identifier.
    pub cid: u32,
    flags: u32,
}

const ADDRESS_LEN: u32 = 16;
const _: () = assert!(size_of::<Address>() == 16);

#[allow(clippy::as_conversions, reason = "40, and this is evaluated by the compiler")]
const FAMILY: u16 = net::AF_VSOCK as u16;

impl Address {
    /// A port of a machine.
    pub const fn new(cid: u32, port: u32) -> Self {
        Address { family: FAMILY, reserved: 0, port, cid, flags: 0 }
    }

    /// As the kernel takes it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: all bytes of numbers are bytes, and there are none between them.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of_val(self)) }
    }

    /// Is it one of this kind? [`peer`] tells of any.
    pub fn is_vsock(&self) -> bool {
        self.family == FAMILY
    }
}

/// A new stream socket that no helper program shall have.
#[inline(never)]
pub fn stream_socket(more: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::VSOCK, SocketType::STREAM, more | SocketFlags::CLOEXEC, None)
}

/// Who is at the other end: `getpeername(2)`.
pub fn peer(socket: &impl AsRawFd) -> Result<Address> {
    let mut address = Address::new(0, 0);
    let mut len = ADDRESS_LEN;
    let to = (&raw mut address).expose_provenance();
    // SAFETY: the address and its length are writable for the call, and any bytes make a valid one.
    let result = unsafe { syscall3(kernel::__NR_getpeername, raw(socket), to, (&raw mut len).expose_provenance()) };
    if result < 0 { Err(Errno::NOTCONN) } else { Ok(address) }
}

/// Sends the other end something that it ignores if it knows of this connection, and answers with a reset if it does
/// not: how much we have room for, which is one byte more than before. Kernels before 5.5 send nothing.
pub fn probe(socket: &impl AsRawFd) {
    // SO_VM_SOCKETS_BUFFER_SIZE and SO_VM_SOCKETS_BUFFER_MAX_SIZE of linux/vm_sockets.h.
    const SIZE: usize = 0;
    const MAX_SIZE: usize = 2;
    let (socket, level) = (raw(socket), usize::from(FAMILY));
    let mut size = 0_u64;
    let mut len = 8_u32;
    let to = [(&raw mut size).expose_provenance(), (&raw mut len).expose_provenance()];
    // SAFETY: size and length are writable for the call, and the size is as long as the kernel is told.
    unsafe { syscall5(kernel::__NR_getsockopt, socket, level, SIZE, to[0], to[1]) };
    let more = size.wrapping_add(1);
    for option in [MAX_SIZE, SIZE] {
        let more = (&raw const more).expose_provenance();
        // SAFETY: the size is readable for the call, and as long as the kernel is told.
        unsafe { syscall5(kernel::__NR_setsockopt, socket, level, option, more, size_of::<u64>()) };
    }
}
