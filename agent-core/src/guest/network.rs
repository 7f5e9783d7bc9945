//! Network interfaces.

use core::net::IpAddr;

use super::Errno;

/// A network interface, or an alias of one (`eth0:1`, a label of IPv4 addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The name: at most 15 bytes, any but `/`, blanks and NUL.
    pub name: &'a [u8],
    /// What SIOCGIFHWADDR would say: the first six bytes of the address, padded with zeros; the loopback has zeros.
    pub hardware_address: [u8; 6],
    /// Counters since the interface was made. An alias has none.
    pub statistics: Option<Statistics>,
}

/// 64-bit counters of an interface (`struct rtnl_link_stats64`, linux/if_link.h): bytes, packets, bad packets and
/// dropped packets that were received; the same of those that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics(pub [u64; 8]);

/// An address of the link before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The local address (of a point-to-point link too, where the peer's is another one).
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

/// One step of a walk over the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The configuration changed under the walk: forget everything so far, it starts anew.
    Restart,
    /// The next interface. Its addresses follow.
    Link(&'a Link<'a>),
    /// An address of the interface named last.
    Address(&'a Address),
}

/// Network interfaces.
pub trait Network {
    /// Walks over all interfaces and their addresses.
    ///
    /// After an error the events so far are worth nothing.
    fn interfaces(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Errno>;
}
