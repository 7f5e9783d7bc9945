//! What must hold for any bytes a kernel may send. The property tests try it on damaged messages, the fuzz target on
//! hostile ones, and the corpus test on all that was ever found.

use std::net::IpAddr;

use agent_linux::guest::netlink::{Attributes, Messages};
use agent_linux::guest::network::{FoundAddress, parse_link};
use agent_linux::guest::{os_release, tz_rule, tzif};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Every reader comes to an end, and what it gives lies inside of what it was given, one behind the other.
pub fn netlink_readers_are_total(input: &[u8]) {
    let mut at = 0;
    let mut messages = Messages::new(input);
    while let Some(message) = messages.next() {
        let Ok(message) = message else {
            assert!(messages.next().is_none(), "something comes after a malformed message");
            break;
        };
        assert_eq!(offset(input, message.body), at + 16, "a body stands behind its header");
        at = (at + 16 + message.body.len()).next_multiple_of(4);
        bodies(message.body);
    }
    bodies(input);
}

/// The readers of what an administrator may have put into a file or a variable come to an end, and what they give lies
/// inside of what they were given.
pub fn text_readers_are_total(input: &[u8]) {
    for now_s in [i64::MIN, -1, 1_800_000_000, 4_102_444_800, i64::MAX] {
        for zone in [tzif::zone_at(input, now_s), tz_rule::zone_at(input, now_s)].into_iter().flatten() {
            offset(input, zone.name);
        }
    }
    let mut text = [b"\n", input].concat();
    let mut values = 0;
    os_release::parse(&mut text, &mut |_, value| values += value.len());
    assert!(values <= input.len(), "more than there was");
}

/// The readers of what a message holds.
fn bodies(bytes: &[u8]) {
    let mut at = 0;
    for (kind, value) in Attributes::new(bytes) {
        assert!(kind < 0x4000, "flags in the type {kind}");
        assert_eq!(offset(bytes, value), at + 4, "a value stands behind its header");
        at = (at + 4 + value.len()).next_multiple_of(4);
    }
    assert!(at < bytes.len() + 4, "more attributes than bytes");

    if let Some((_, link)) = parse_link(bytes) {
        assert!(link.name.is_empty() || offset(bytes, link.name) >= 16 + 4, "a name outside of the attributes");
        assert!(!link.name.contains(&0), "a name with a NUL");
    }
    for family in [AF_INET, AF_INET6] {
        if let Some(found) = FoundAddress::parse(bytes, family) {
            assert_eq!((bytes[0], bytes[1]), (family, found.address.prefix));
            assert_eq!(found.index.to_ne_bytes(), bytes[4..8]);
            let octets = match found.address.ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            assert!(Attributes::new(&bytes[8..]).any(|(_, value)| value == octets), "an address from nowhere");
        }
    }
}

/// Where a part of something begins in it.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    let whole = whole.as_ptr_range();
    let part = part.as_ptr_range();
    assert!(whole.start <= part.start && part.end <= whole.end, "outside of the input");
    part.start.addr() - whole.start.addr()
}
