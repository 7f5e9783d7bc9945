//! What rtnetlink's messages say of links and addresses (`rtnetlink(7)`, linux/if_link.h, linux/if_addr.h).
//!
//! It knows one message at a time, and nothing about where they come from.

use core::net::IpAddr;

use agent_core::guest::{Address, Link, Statistics};

use crate::guest::netlink::{pick, u32_at, u64_at};

/// The name of a link or the label of an address: at most 15 bytes (`IFNAMSIZ`), then zeros; as a number, since that
/// sorts alike. 0 if there is none.
pub(super) type Label = u128;

/// From an attribute, with or without its NUL.
#[inline(never)]
pub(super) fn label(value: &[u8]) -> Label {
    let mut label = [0; 16];
    for (to, from) in label.iter_mut().take(15).zip(value) {
        *to = *from;
    }
    Label::from_be_bytes(label)
}

#[inline(never)]
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
}

/// What `RTM_NEWLINK` says: the link's number and what the seam wants to know.
///
/// The body of the message is `struct ifinfomsg` (16 bytes, index at 4), then attributes.
#[inline(never)]
pub fn parse_link(message: &[u8]) -> Option<(u32, Link<'_>)> {
    let (header, attributes) = message.split_first_chunk::<16>()?;
    let mut hardware_address = [0; 6];
    for (to, from) in hardware_address.iter_mut().zip(pick(attributes, IFLA_ADDRESS)) {
        *to = *from;
    }
    let name = until_nul(pick(attributes, IFLA_IFNAME));
    let statistics = parse_statistics(pick(attributes, IFLA_STATS64));
    Some((u32_at(header, 4)?, Link { name, hardware_address, statistics }))
}

/// Where the counters stand there: what was sent right behind what was received.
static PLACES: [u8; 8] = [2, 0, 4, 6, 3, 1, 5, 7];

/// From `struct rtnl_link_stats64`: numbers of 64 bits, which are not aligned in a message.
fn parse_statistics(value: &[u8]) -> Option<Statistics> {
    let mut numbers = [0; 8];
    for (number, place) in numbers.iter_mut().zip(&PLACES) {
        *number = u64_at(value, usize::from(*place).wrapping_mul(8))?;
    }
    // And rx_missed_errors, as in /proc/net/dev.
    numbers[3] = numbers[3].wrapping_add(u64_at(value, 15 * 8)?);
    Some(Statistics(numbers))
}

/// What `RTM_NEWADDR` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAddress {
    /// The number of its link.
    pub index: u32,
    /// The address.
    pub address: Address,
    /// IPv4 only: the name of the link or of its alias.
    pub(super) label: Label,
}

impl FoundAddress {
    /// From the body of the message: `struct ifaddrmsg` (8 bytes: family, prefix, flags, scope, index), then
    /// attributes. Nothing if it is of another family, or has no address.
    pub fn parse(message: &[u8], family: u8) -> Option<Self> {
        let (&[of_family, prefix, _, _, i0, i1, i2, i3], attributes) = message.split_first_chunk()?;
        if of_family != family {
            return None;
        }
        // IFA_ADDRESS is the peer's where there is a peer, and then IFA_LOCAL is the own one.
        let mut address = pick(attributes, IFA_LOCAL);
        if address.is_empty() {
            address = pick(attributes, IFA_ADDRESS);
        }
        let ip = match *address {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            address: Address { ip, prefix },
            label: label(pick(attributes, IFA_LABEL)),
        })
    }
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS64: u16 = 23;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;

#[cfg(test)]
pub(super) mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::super::{AF_INET, AF_INET6};
    use super::*;

    /// `RTM_NEWLINK` after its header: index 7, `eth0`, an Ethernet address, counters 1 to 24.
    pub(in super::super) fn new_link() -> Vec<u8> {
        let mut bytes = Vec::from([0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0]);
        bytes.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        bytes.extend([10, 0, 1, 0, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0]);
        bytes.extend([196, 0, 23, 0]);
        bytes.extend((1..=24_u64).flat_map(u64::to_ne_bytes));
        bytes
    }

    /// `RTM_NEWADDR` after its header: 10.0.0.1 on link 7, peer 10.0.0.2, prefix 32, label `eth0:1`.
    const NEW_ADDRESS: [u8; 36] = [
        2, 32, 0x80, 0, 7, 0, 0, 0, // struct ifaddrmsg
        8, 0, 1, 0, 10, 0, 0, 2, // IFA_ADDRESS
        8, 0, 2, 0, 10, 0, 0, 1, // IFA_LOCAL
        11, 0, 3, 0, b'e', b't', b'h', b'0', b':', b'1', 0, 0,
    ];

    #[test]
    fn a_link_has_name_address_and_counters() {
        let bytes = new_link();
        let link = Link {
            name: b"eth0",
            hardware_address: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            statistics: Some(Statistics([3, 1, 5, 7 + 16, 4, 2, 6, 8])),
        };
        assert_eq!(parse_link(&bytes), Some((7, link)));
        // Not aligned, as messages are.
        let mut moved = Vec::from([0]);
        moved.extend(bytes);
        assert_eq!(parse_link(&moved[1..]), Some((7, link)));
    }

    #[test]
    fn a_hardware_address_is_cut_or_padded_to_six_bytes() {
        let link = |address: &[u8]| {
            let mut bytes = Vec::from([0; 16]);
            bytes.extend([4 + u8::try_from(address.len()).unwrap(), 0, 1, 0]);
            bytes.extend(address);
            parse_link(&bytes).unwrap().1.hardware_address
        };
        assert_eq!(link(&[]), [0; 6]);
        assert_eq!(link(&[10, 0, 0, 1]), [10, 0, 0, 1, 0, 0]);
        assert_eq!(link(&[9; 20]), [9; 6]);
    }

    #[test]
    fn the_local_address_goes_before_the_peers() {
        let found = FoundAddress::parse(&NEW_ADDRESS, AF_INET).unwrap();
        assert_eq!(found.index, 7);
        assert_eq!(found.address.ip.to_string(), "10.0.0.1");
        assert_eq!(found.address.prefix, 32);
        assert_eq!(found.label, label(b"eth0:1"));
        assert_eq!(FoundAddress::parse(&NEW_ADDRESS, AF_INET6), None, "of another family");
        assert_eq!(FoundAddress::parse(&NEW_ADDRESS[..8], AF_INET), None, "without address");
        let found = FoundAddress::parse(&NEW_ADDRESS[..16], AF_INET).unwrap();
        assert_eq!(found.address.ip.to_string(), "10.0.0.2");
        assert_eq!(found.label, 0);
    }

    #[test]
    fn a_name_has_at_most_fifteen_bytes() {
        assert_eq!(&label(b"abcdefghijklmnopq").to_be_bytes(), b"abcdefghijklmno\0");
        assert_eq!(label(b""), 0);
        assert_eq!(label(b"\0"), 0);
        assert!(label(b"eth0:1") < label(b"eth0:10") && label(b"eth0:10") < label(b"eth0:2"));
    }

    #[test]
    fn damaged_messages_give_something_or_nothing() {
        let link = new_link();
        for place in 0..link.len() {
            let _ = parse_link(&link[..place]);
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut bytes = link.clone();
                bytes[place] = value;
                let _ = parse_link(&bytes);
            }
        }
        for place in 0..NEW_ADDRESS.len() {
            let _ = FoundAddress::parse(&NEW_ADDRESS[..place], AF_INET);
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut bytes = NEW_ADDRESS;
                bytes[place] = value;
                let _ = FoundAddress::parse(&bytes, AF_INET);
            }
        }
    }
}
