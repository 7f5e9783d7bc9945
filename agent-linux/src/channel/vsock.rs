//! Sockets to the host, whatever monitors the machine: one host at a time, the next one waits in the backlog.
//!
//! The listener outlives the device, whether that is reset, removed or plugged in later, and a restore from a snapshot.
//! Connections do not.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, listen as start_listening};

use super::unix;
use crate::options::Peer;
use crate::sys::socket::bind;
use crate::sys::vsock::{Address, HOST, peer, stream_socket};
use crate::text;

/// Hosts that may wait. More than at a unix socket, because any user of the guest may knock, if only to be refused.
const BACKLOG: i32 = 16;

/// Ports from this one on are for everyone on the host.
const UNPRIVILEGED: u32 = 1024;

/// Listens at `CID:PORT`. `4294967295` for the CID is any that the guest has, or will have.
pub(super) fn listen(address: &[u8]) -> Result<OwnedFd, Errno> {
    let address = parse(address).ok_or(Errno::INVAL)?;
    let listener = stream_socket(SocketFlags::NONBLOCK)?;
    bind(&listener, address.bytes())?;
    start_listening(&listener, BACKLOG)?;
    Ok(listener)
}

/// The next host. Whoever is none is turned away: EACCES. At a socket of another kind, everyone is a host.
pub(super) fn accept(listener: impl AsFd, allowed: Peer) -> Result<OwnedFd, Errno> {
    let stream = unix::accept(listener)?;
    let peer = peer(&stream)?;
    if peer.is_vsock() && !is_allowed(&peer, allowed) { Err(Errno::ACCESS) } else { Ok(stream) }
}

fn is_allowed(peer: &Address, allowed: Peer) -> bool {
    allowed == Peer::Any || peer.cid == HOST && (allowed == Peer::Host || peer.port < UNPRIVILEGED)
}

/// Reads `CID:PORT`. Neither can be 0.
pub fn parse(text: &[u8]) -> Option<Address> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (cid, port) = text.split_at_checked(colon)?;
    Some(Address::new(number(cid)?, number(port.get(1..)?)?))
}

/// Reads a CID or a port.
#[inline(never)]
pub fn number(digits: &[u8]) -> Option<u32> {
    u32::try_from(text::number(digits, u64::from(u32::MAX))).ok().filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_two_numbers_of_32_bits() {
        assert_eq!(parse(b"3:1024"), Some(Address::new(3, 1024)));
        assert_eq!(parse(b"4294967295:4294967295"), Some(Address::new(u32::MAX, u32::MAX)));
        for wrong in ["", ":", "3", "3:", ":1", "-1:1", "3:x", "3:1:2", "4294967296:1", "3: 1"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_host_is_told_from_others_by_its_cid_and_its_administrator_by_the_port() {
        let peers = [(2, 1023), (2, 1024), (1, 1023), (3, 1023), (u32::MAX, 1)];
        let allowed = |who| peers.map(|(cid, port)| is_allowed(&Address::new(cid, port), who));
        assert_eq!(allowed(Peer::Host), [true, true, false, false, false]);
        assert_eq!(allowed(Peer::Privileged), [true, false, false, false, false]);
        assert_eq!(allowed(Peer::Any), [true; 5]);
    }
}
