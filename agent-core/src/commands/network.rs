//! Network interfaces.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heapless::String;

use super::Call;
use crate::error::{Error, Result};
use crate::guest::{Address, Event, Guest, Link, Statistics};
use crate::reply::Reply;
use crate::schema::{AsInterfaceStat, IpAddress, IpAddressType};

/// `guest-network-get-interfaces`: `{}` → `[GuestNetworkInterface]`
///
/// `ip-addresses` and `statistics` are missing where an interface has no address; an alias (`eth0:1`) stands as an
/// interface of its own and has no statistics.
pub(super) fn interfaces<'f, G: Guest>(call: &mut Call<'_, 'f, G>) -> Result<'f, ()> {
    call.arguments.finish()?;

    let reply = &mut call.reply;
    let mut list = Interfaces { reply, open: None };
    list.reply.open_list();
    let walked = call.guest.interfaces(&mut |event| match event {
        Event::Restart => list.restart(),
        Event::Link(link) => list.link(link),
        Event::Address(address) => list.address(address),
    });
    list.close();
    list.reply.close_list();
    walked.map_err(Error::Interfaces)
}

/// The list in the making.
struct Interfaces<'r, 'o> {
    reply: &'r mut Reply<'o>,
    open: Option<Open>,
}

/// What is still to be written of the interface whose object is open.
struct Open {
    statistics: Option<Statistics>,
    has_address: bool,
}

impl Interfaces<'_, '_> {
    fn restart(&mut self) {
        self.open = None;
        self.reply.restart();
        self.reply.open_list();
    }

    fn link(&mut self, link: Link<'_>) {
        self.close();
        self.open = Some(Open { statistics: link.statistics, has_address: false });
        self.reply.open_object();
        self.reply.key("name");
        self.reply.string(link.name);
        self.reply.key("hardware-address");
        self.reply.open_string();
        for (at, byte) in link.hardware_address.into_iter().enumerate() {
            if at > 0 {
                self.reply.part(":");
            }
            self.reply.part_hex(byte);
        }
        self.reply.close_string();
    }

    fn address(&mut self, address: Address) {
        let Some(open) = &mut self.open else {
            return;
        };
        if !open.has_address {
            open.has_address = true;
            self.reply.key("ip-addresses");
            self.reply.open_list();
        }
        let (text, ip_address_type) = match address.ip {
            IpAddr::V4(ip) => (ipv4_text(ip), IpAddressType::Ipv4),
            IpAddr::V6(ip) => (ipv6_text(ip), IpAddressType::Ipv6),
        };
        self.reply.leaf(&IpAddress { ip_address: &text, ip_address_type, prefix: address.prefix });
    }

    /// Writes the rest of the open interface.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        if open.has_address {
            self.reply.close_list();
            if let Some(statistics) = open.statistics {
                self.reply.key("statistics");
                self.reply.leaf(&AsInterfaceStat(statistics));
            }
        }
        self.reply.close_object();
    }
}

/// The longest: `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
type IpText = String<45>;

fn ipv4_text(ip: Ipv4Addr) -> IpText {
    let mut text = IpText::new();
    push_ipv4(&mut text, ip);
    text
}

fn push_ipv4(text: &mut IpText, ip: Ipv4Addr) {
    for (at, byte) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            push(text, b'.');
        }
        for (unit, shown) in [(100, byte >= 100), (10, byte >= 10), (1, true)] {
            if shown {
                push(text, b'0' | (byte.checked_div(unit).unwrap_or(0) % 10));
            }
        }
    }
}

/// RFC 5952, as inet_ntop(3) writes it: the longest run of two or more zero groups (the first of equals) as `::`,
/// lower case, and the last four bytes of an IPv4-mapped or -compatible address in dotted form.
fn ipv6_text(ip: Ipv6Addr) -> IpText {
    let groups = ip.segments();
    let (start, len) = longest_zero_run(&groups);
    let dotted = match groups {
        [0, 0, 0, 0, 0, 0xFFFF, _, _] => true,
        // The compatible ones, but not `::` and `::1`, nor a short `::abcd`.
        [0, 0, 0, 0, 0, 0, high, _] => high != 0,
        _ => false,
    };
    let mut text = IpText::new();
    for (at, group) in groups.into_iter().enumerate() {
        if at == start && len > 0 {
            push(&mut text, b':');
        }
        if (start..start.saturating_add(len)).contains(&at) {
            continue;
        }
        if at > 0 {
            push(&mut text, b':');
        }
        if dotted && at == 6 {
            let [.., a, b, c, d] = ip.octets();
            push_ipv4(&mut text, Ipv4Addr::new(a, b, c, d));
            return text;
        }
        push_hex(&mut text, group);
    }
    if len > 0 && start.saturating_add(len) == groups.len() {
        push(&mut text, b':');
    }
    text
}

fn longest_zero_run(groups: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut run) = ((0, 0), (0, 0));
    for (at, group) in groups.iter().enumerate() {
        run = match (*group, run) {
            (0, (_, 0)) => (at, 1usize),
            (0, (start, len)) => (start, len.saturating_add(1)),
            _ => (0, 0),
        };
        if run.1 >= 2 && run.1 > best.1 {
            best = run;
        }
    }
    best
}

/// A group without leading zeros.
fn push_hex(text: &mut IpText, group: u16) {
    let mut shown = false;
    for shift in [12, 8, 4, 0] {
        let digit = u8::try_from(group >> shift & 0xF).unwrap_or(0);
        shown |= digit != 0 || shift == 0;
        if shown {
            push(text, if digit < 10 { b'0' | digit } else { b'a'.wrapping_add(digit).wrapping_sub(10) });
        }
    }
}

/// The capacity is that of the longest text, so this always fits.
fn push(text: &mut IpText, byte: u8) {
    let _ = text.push(char::from(byte));
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn ipv4_reads_as_dotted_decimal() {
        for ip in [[0, 0, 0, 0], [127, 0, 0, 1], [10, 20, 99, 100], [192, 168, 101, 255], [255, 255, 255, 255]] {
            let ip = Ipv4Addr::from(ip);
            assert_eq!(ipv4_text(ip).as_str(), std::format!("{ip}"));
        }
    }

    #[test]
    fn ipv6_reads_as_inet_ntop_writes_it() {
        for (groups, want) in [
            ([0; 8], "::"),
            ([0, 0, 0, 0, 0, 0, 0, 1], "::1"),
            ([0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456], "fe80::5054:ff:fe12:3456"),
            ([0x2001, 0xdb8, 0, 0, 1, 0, 0, 1], "2001:db8::1:0:0:1"),
            ([0x2001, 0xdb8, 0, 1, 1, 1, 1, 1], "2001:db8:0:1:1:1:1:1"),
            ([0x2001, 0, 0, 0, 0, 0, 0, 0], "2001::"),
            ([0, 0, 1, 0, 0, 0, 0, 0], "0:0:1::"),
            ([1, 2, 3, 4, 5, 6, 0, 0], "1:2:3:4:5:6::"),
            ([0, 0, 0, 0, 0, 0xffff, 0xc0a8, 0x0101], "::ffff:192.168.1.1"),
            ([0, 0, 0, 0, 0, 0, 0xc0a8, 0x0101], "::192.168.1.1"),
            ([0xffff; 8], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let ip = Ipv6Addr::from(groups);
            assert_eq!(ipv6_text(ip).as_str(), want);
        }
    }
}
