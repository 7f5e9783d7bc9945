//! Tells the host once that the agent listens, so that nobody has to ask until it does.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::Result;
use rustix::net::SocketFlags;

use crate::channel::vsock;
use crate::sys;
use crate::sys::socket::connect;
use crate::sys::vsock::{Address, HOST, stream_socket};

/// What is said.
const LINE: &[u8] = b"nanoga: ready\n";

/// Where it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nowhere.
    Untold,
    /// On the console of the kernel.
    Console,
    /// To whoever listens at this vsock port of the host.
    Vsock(u32),
}

impl Ready {
    /// What `--ready` names.
    pub fn at(place: &[u8]) -> Option<Self> {
        match place.strip_prefix(b"vsock:") {
            Some(port) => Some(Ready::Vsock(vsock::number(port)?)),
            None if place.is_empty() => Some(Ready::Untold),
            None => (place == b"console").then_some(Ready::Console),
        }
    }
}

/// Says it and closes. A host that does not listen is none of our business, one that does not answer takes two seconds:
/// to be called by a worker.
pub fn tell(ready: Ready) {
    let to = match ready {
        Ready::Untold => return,
        Ready::Console => sys::open(CWD, c"/dev/console", OFlags::WRONLY | OFlags::NOCTTY),
        Ready::Vsock(port) => connected(port),
    };
    if let Ok(to) = to {
        sys::write(&to, LINE);
    }
}

fn connected(port: u32) -> Result<OwnedFd> {
    let socket = stream_socket(SocketFlags::empty())?;
    connect(&socket, Address::new(HOST, port).bytes())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_console_or_a_port_of_the_host() {
        assert_eq!(Ready::at(b""), Some(Ready::Untold));
        assert_eq!(Ready::at(b"console"), Some(Ready::Console));
        assert_eq!(Ready::at(b"vsock:1024"), Some(Ready::Vsock(1024)));
        for wrong in ["consoles", "vsock", "vsock:", "vsock:0", "vsock:3:1024", "1024"] {
            assert_eq!(Ready::at(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
