//! Network interfaces.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Call, Failed, Result};
use crate::error::Fault;
use crate::guest::{Address, Event, Guest, Link, Statistics};
use crate::packed;
use crate::reply::Reply;

/// `guest-network-get-interfaces`: `{}` → `[GuestNetworkInterface]`
///
/// `ip-addresses` and `statistics` are missing where an interface has no address; an alias (`eth0:1`) stands as an
/// interface of its own and has no statistics.
pub(super) fn interfaces<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    call.no_more_arguments()?;

    let mut list = Interfaces { reply: &mut call.reply, open: Open::None, statistics: None };
    list.reply.known(b"[");
    let walked = call.guest.interfaces(&mut |event| list.event(event));
    list.close();
    list.reply.known(b"]");
    walked.map_err(|errno| {
        call.error = Fault::Interfaces.by(errno);
        Failed
    })
}

/// The list in the making.
struct Interfaces<'r, 'o> {
    reply: &'r mut Reply<'o>,
    open: Open,
    /// Those of the open interface are written behind its addresses.
    statistics: Option<Statistics>,
}

/// What is open of it: an interface, and in that the list of its addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Link,
    Addresses,
}

impl Interfaces<'_, '_> {
    #[inline(never)]
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Restart => {
                self.open = Open::None;
                self.reply.restart();
                self.reply.known(b"[");
            }
            Event::Link(link) => self.link(link),
            Event::Address(address) => self.address(address),
        }
    }

    #[inline(never)]
    fn link(&mut self, link: &Link<'_>) {
        self.close();
        self.open = Open::Link;
        self.statistics = link.statistics;
        self.reply.text(packed!("{\"name\":%,\"hardware-address\":"), link.name);
        self.reply.open_string();
        let mut separator = &b""[..];
        for byte in link.hardware_address {
            self.reply.part(separator);
            self.reply.part_hex(u16::from(byte), 2, b'a');
            separator = b":";
        }
        self.reply.close_string();
    }

    #[inline(never)]
    fn address(&mut self, address: &Address) {
        if self.open == Open::Link {
            self.open = Open::Addresses;
            self.reply.known(packed!("\"ip-addresses\":["));
        }
        self.reply.known(packed!("{\"ip-address\":"));
        self.reply.open_string();
        let family = match address.ip {
            IpAddr::V4(ip) => {
                ipv4(self.reply, ip);
                &b"ipv4"[..]
            }
            IpAddr::V6(ip) => {
                ipv6(self.reply, ip);
                b"ipv6"
            }
        };
        self.reply.close_string();
        self.reply.text(packed!("\"ip-address-type\":%"), family);
        self.reply.number(packed!("\"prefix\":#}"), address.prefix.into());
    }

    /// Writes the rest of the open interface.
    #[inline(never)]
    fn close(&mut self) {
        if self.open == Open::None {
            return;
        }
        if self.open == Open::Addresses {
            self.reply.known(b"]");
            if let Some(Statistics(numbers)) = &self.statistics {
                self.reply.numbers(STATISTICS, numbers);
            }
        }
        self.reply.known(b"}");
        self.open = Open::None;
    }
}

/// `GuestNetworkInterfaceStat`
const STATISTICS: &[u8] = packed!(
    "\"statistics\":{\"rx-bytes\":#,\"rx-packets\":#,\"rx-errs\":#,\"rx-dropped\":#,\
    \"tx-bytes\":#,\"tx-packets\":#,\"tx-errs\":#,\"tx-dropped\":#}"
);

fn ipv4(reply: &mut Reply<'_>, ip: Ipv4Addr) {
    let mut separator = &b""[..];
    for byte in ip.octets() {
        reply.part(separator);
        reply.part_number(u64::from(byte));
        separator = b".";
    }
}

/// RFC 5952, as inet_ntop(3) writes it: the longest run of two or more zero groups (the first of equals) as `::`,
/// lower case, and the last four bytes of an IPv4-mapped or -compatible address in dotted form.
#[inline(never)]
fn ipv6(reply: &mut Reply<'_>, ip: Ipv6Addr) {
    let octets = ip.octets();
    let (start, end) = longest_zero_run(&octets);
    let dotted = start == 0 && (end == 6 || end == 5 && group(&octets, 5) == Some(0xFFFF));
    let mut at = 0;
    while let Some(group) = group(&octets, at) {
        if at == start && end > start {
            reply.part(b"::");
            at = end;
            continue;
        }
        if at > 0 && at != end {
            reply.byte(b':');
        }
        if dotted && at == 6 {
            let [.., a, b, c, d] = octets;
            return ipv4(reply, Ipv4Addr::new(a, b, c, d));
        }
        reply.part_hex(group, 1, b'a');
        at = at.wrapping_add(1);
    }
}

/// One of the eight groups of an address.
#[inline(never)]
fn group(octets: &[u8; 16], at: usize) -> Option<u16> {
    octets.get(at.wrapping_mul(2)..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Where it starts, and where it ends.
#[inline(never)]
fn longest_zero_run(octets: &[u8; 16]) -> (usize, usize) {
    let (mut best, mut best_len) = ((0, 0), 1);
    let (mut start, mut at) = (0usize, 0usize);
    while let Some(group) = group(octets, at) {
        at = at.wrapping_add(1);
        if group != 0 {
            start = at;
        }
        let len = at.wrapping_sub(start);
        if len > best_len {
            (best, best_len) = ((start, at), len);
        }
    }
    best
}
