//! Network interfaces and their addresses, from rtnetlink's dumps (`rtnetlink(7)`, linux/if_link.h, linux/if_addr.h).
//!
//! Links, IPv4 and IPv6 addresses are three dumps, read in lock step: the kernel walks its links in one order for all
//! of them, so the addresses of a link are the next ones of their dump or there are none. Nothing has to be remembered,
//! however many there are. It knows nothing of how a host writes an address or a name.

mod message;

use core::slice;

use agent_core::guest::{Errno, Event, Link, Network};
use heapless::Vec;

use super::LinuxGuest;
use super::netlink::dump::{BUFFER, Dump};
use crate::memory::{Pages, give_back};
pub use message::{FoundAddress, parse_link};
use message::{Label, label, until_nul};

/// The memory of a walk: a receive buffer for each of four dumps.
pub type Buffers = Pages<{ 4 * BUFFER }>;

impl Network for LinuxGuest {
    fn interfaces(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Errno> {
        let options = self.options;
        let mut hidden = false;
        let result = walk(self.buffers, &mut |event| {
            if let Event::Link(link) = &event {
                // An alias goes with its link.
                let name = link.name.split(|byte| *byte == b':').next().unwrap_or_default();
                hidden = options.ignores(name) || options.ignores(link.name);
            }
            if !hidden || matches!(event, Event::Restart) {
                each(event);
            }
        });
        give_back(&mut self.buffers.0);
        result
    }
}

/// How addresses come to their link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// One dump for all links, in their order.
    LockStep,
    /// A dump for each link.
    LinkByLink,
}

/// What is tried, one after the other, while the configuration changes.
const ATTEMPTS: [Order; 4] = [Order::LockStep, Order::LockStep, Order::LockStep, Order::LinkByLink];

/// The walk, anew while the configuration changes under it. The last attempt takes what it gets.
#[inline(never)]
fn walk(buffers: &mut Buffers, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Errno> {
    for &order in &ATTEMPTS {
        if attempt(&mut dumps(buffers), order, each)? || order == Order::LinkByLink {
            break;
        }
        each(Event::Restart);
    }
    Ok(())
}

/// Links, IPv4 and IPv6 addresses, and once more IPv4 for aliases.
type Dumps<'b> = Vec<Dump<'b>, 4>;

#[inline(never)]
fn dumps(buffers: &mut Buffers) -> Dumps<'_> {
    let (buffers, _) = buffers.0.as_chunks_mut();
    buffers.iter_mut().zip(&[AF_UNSPEC, AF_INET, AF_INET6, AF_INET]).map(|(b, &f)| Dump::new(b, f)).collect()
}

/// One walk. `false` if the configuration changed meanwhile: then something may be missing or there twice.
fn attempt(dumps: &mut Dumps<'_>, order: Order, each: &mut dyn FnMut(Event<'_>)) -> Result<bool, Errno> {
    let [links, families @ .., aliases] = dumps.as_mut_slice() else {
        return Ok(true);
    };
    links.request(0);
    if order == Order::LockStep {
        for dump in &mut *families {
            dump.request(0);
        }
    }

    while let Some(message) = links.peek() {
        if let Some((index, mut link)) = parse_link(message) {
            let name = label(link.name);
            let mut group = Group { index, name, label: name, last: 0, next: NO_MORE };
            // With the link's name for a label; then once more for each alias: they are rare, but there may be any
            // number of them.
            let (mut dumps, mut order) = (&mut *families, order);
            loop {
                each(Event::Link(&Link { name: until_nul(&group.label.to_be_bytes()), ..link }));
                for dump in dumps {
                    group.addresses(dump, order, each);
                }
                if group.next == NO_MORE {
                    break;
                }
                (group.label, group.last, group.next) = (group.next, group.next, NO_MORE);
                link.statistics = None;
                (dumps, order) = (slice::from_mut(aliases), Order::LinkByLink);
            }
        }
        links.take();
    }

    let mut complete = true;
    for dump in dumps {
        complete &= dump.result()?;
    }
    Ok(complete)
}

/// Addresses of one link that have the same label.
struct Group {
    /// The link.
    index: u32,
    name: Label,
    /// Its name, or an alias.
    label: Label,
    /// The alias that was shown last, or 0.
    last: Label,
    /// The first alias behind that, of those that were seen.
    next: Label,
}

impl Group {
    /// Takes the addresses of the link from a dump.
    #[inline(never)]
    fn addresses(&mut self, dump: &mut Dump<'_>, order: Order, each: &mut dyn FnMut(Event<'_>)) {
        if order == Order::LinkByLink {
            dump.request(self.index);
        }
        let family = dump.family;
        while let Some(message) = dump.peek() {
            if let Some(found) = FoundAddress::parse(message, family) {
                if found.index == self.index {
                    self.see(&found, each);
                } else if order == Order::LockStep {
                    // Of a later link.
                    break;
                }
            }
            dump.take();
        }
    }

    #[inline(never)]
    fn see(&mut self, address: &FoundAddress, each: &mut dyn FnMut(Event<'_>)) {
        let label = if address.label == 0 { self.name } else { address.label };
        if label == self.label {
            each(Event::Address(&address.address));
        } else if label != self.name && label > self.last && label < self.next {
            self.next = label;
        }
    }
}

/// Behind every label, as the last byte of those is 0.
const NO_MORE: Label = Label::MAX;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::format;
    use std::process::Command;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use rustix::fd::OwnedFd;

    use super::super::netlink::dump::tests::{fake, message};
    use super::message::tests::new_link;
    use super::*;
    use crate::testing::{in_a_network_namespace, must_be_alone};

    /// Events as text, one a line, those before a restart forgotten.
    fn text(walk: impl FnOnce(&mut dyn FnMut(Event<'_>)) -> Result<(), Errno>) -> Vec<String> {
        let mut lines = Vec::new();
        walk(&mut |event| match event {
            Event::Restart => lines.clear(),
            Event::Link(link) => {
                let name = str::from_utf8(link.name).unwrap();
                let [a, b, c, d, e, f] = link.hardware_address;
                let kind = if link.statistics.is_some() { "link" } else { "alias" };
                lines.push(format!("{kind} {name} {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
            }
            Event::Address(address) => lines.push(format!("{}/{}", address.ip, address.prefix)),
        })
        .unwrap();
        lines
    }

    /// The same, as `ip` from iproute2 sees it.
    fn oracle() -> Vec<String> {
        let ip = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output().unwrap();
            assert!(output.status.success(), "ip {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let mut lines = Vec::new();
        for link in ip(&["-o", "link"]).lines() {
            let mut words = link.split_whitespace();
            let name = words.nth(1).unwrap().trim_end_matches(':').split('@').next().unwrap().to_string();
            let hardware = words.skip_while(|word| !word.starts_with("link/")).nth(1).unwrap().to_string();
            lines.push(format!("link {name} {hardware}"));
            let mut aliases = std::collections::BTreeMap::<String, Vec<String>>::new();
            for family in ["-4", "-6"] {
                for line in ip(&["-o", family, "addr", "show", "dev", &name]).lines() {
                    let words: Vec<_> = line.split('\\').next().unwrap().split_whitespace().collect();
                    // "N: NAME inet ADDRESS/PREFIX …" or "N: NAME inet ADDRESS peer PEER/PREFIX …"
                    let local = words[3].split('/').next().unwrap();
                    let place = if words[4] == "peer" { words[5] } else { words[3] };
                    let address = format!("{local}/{}", place.split('/').nth(1).unwrap());
                    let label = words.last().unwrap().to_string();
                    if family == "-4" && label != name {
                        aliases.entry(label).or_default().push(address);
                    } else {
                        lines.push(address);
                    }
                }
            }
            for (label, addresses) in aliases {
                lines.push(format!("alias {label} {hardware}"));
                lines.extend(addresses);
            }
        }
        lines
    }

    /// A kernel that answers with these messages, the last of which has this flag, and an end.
    fn answer<'b>(buffer: &'b mut [u8; BUFFER], (family, flags): (u8, u16), bodies: &[&[u8]]) -> (Dump<'b>, OwnedFd) {
        let kind = if family == AF_UNSPEC { 16 } else { 20 };
        let mut datagrams: Vec<_> = bodies.iter().map(|body| message(kind, flags, body)).collect();
        datagrams.push(message(3, 2, &[0; 4]));
        fake(buffer, family, &datagrams)
    }

    /// One walk over links 7 and 8 with these IPv4 addresses.
    fn scripted(order: Order, flags: u16, addresses: &[&[u8]]) -> (Result<bool, Errno>, Vec<String>) {
        let [mut a, mut b, mut c, mut d] = [[0; BUFFER]; 4];
        let (mut seven, mut eight) = (new_link(), new_link());
        seven.truncate(40);
        eight.truncate(40);
        eight[4] = 8;
        eight[23] = b'1';
        let (links, _keep_links) = answer(&mut a, (AF_UNSPEC, flags), &[&seven, &eight]);
        let (ipv4, _keep_ipv4) = answer(&mut b, (AF_INET, 2), addresses);
        let (ipv6, _keep_ipv6) = answer(&mut c, (AF_INET6, 2), &[]);
        let (aliases, _keep_aliases) = answer(&mut d, (AF_INET, 2), addresses);
        let mut result = Ok(false);
        let lines = text(|each| {
            result = attempt(&mut [links, ipv4, ipv6, aliases].into(), order, each);
            Ok(())
        });
        (result, lines)
    }

    /// `RTM_NEWADDR` of 10.0.0.N on a link.
    fn new_address(link: u8, n: u8) -> [u8; 16] {
        [2, 24, 0x80, 0, link, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, n]
    }

    const LINK_7: &str = "alias eth0 52:54:00:12:34:56";
    const LINK_8: &str = "alias eth1 52:54:00:12:34:56";

    #[test]
    fn addresses_follow_their_links() {
        let all = [new_address(7, 1), new_address(7, 2), new_address(8, 3)];
        let (result, lines) = scripted(Order::LockStep, 2, &[&all[0], &all[1], &all[2]]);
        assert_eq!(result, Ok(true));
        assert_eq!(lines, [LINK_7, "10.0.0.1/24", "10.0.0.2/24", LINK_8, "10.0.0.3/24"]);
    }

    #[test]
    fn an_address_without_link_means_a_change() {
        for link in [6, 9] {
            let (result, _) = scripted(Order::LockStep, 2, &[&new_address(7, 1), &new_address(link, 2)]);
            assert_eq!(result, Ok(false));
        }
        // In another order than the links'.
        let (result, _) = scripted(Order::LockStep, 2, &[&new_address(8, 1), &new_address(7, 2)]);
        assert_eq!(result, Ok(false));
    }

    #[test]
    fn an_interrupted_dump_means_a_change() {
        let (result, lines) = scripted(Order::LockStep, 0x12, &[&new_address(7, 1)]);
        assert_eq!(result, Ok(false));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_message_of_another_family_is_passed_over() {
        let mut other = new_address(7, 9);
        other[0] = 45; // AF_MCTP
        let (result, lines) = scripted(Order::LockStep, 2, &[&other, &new_address(7, 1), &other]);
        assert_eq!((result, lines), (Ok(true), Vec::from([LINK_7, "10.0.0.1/24", LINK_8].map(String::from))));
    }

    /// An old kernel dumps all addresses for one link. (Here the second link finds an end only.)
    #[test]
    fn addresses_of_other_links_are_passed_over() {
        let (_, lines) = scripted(Order::LinkByLink, 2, &[&new_address(8, 1), &new_address(7, 2), &new_address(9, 3)]);
        assert_eq!(lines[..2], [LINK_7, "10.0.0.2/24"]);
    }

    /// Pairs of Ethernet links with an address of each family, configured in one go.
    fn make_links(pairs: u32) {
        use std::fmt::Write;
        use std::io::Write as _;

        let mut script = String::from("link set lo up\n");
        for pair in 0..pairs {
            let (a, b) = (pair * 2, pair * 2 + 1);
            writeln!(script, "link add p{a} type veth peer name p{b}").unwrap();
            for link in [a, b] {
                writeln!(script, "link set p{link} addrgenmode none").unwrap();
                writeln!(script, "addr add 10.{}.{}.1/24 dev p{link}", link / 250 + 1, link % 250).unwrap();
                writeln!(script, "addr add fd00:0:0:{link:x}::1/64 dev p{link} nodad").unwrap();
                writeln!(script, "link set p{link} up").unwrap();
            }
        }
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }

    fn ip(arguments: &str) {
        assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
    }

    fn buffers() -> Box<Buffers> {
        Box::new(Buffers::ZERO)
    }

    #[test]
    #[ignore = "run by its namesake in a network namespace"]
    fn inside_every_kind_of_link() {
        must_be_alone();
        let mut buffers = buffers();
        assert_eq!(text(|each| walk(&mut buffers, each)), ["link lo 00:00:00:00:00:00"], "down, no address");
        make_links(3);
        ip("link set p5 down");
        ip("addr add 10.9.9.1 peer 10.9.9.2/32 dev p0");
        ip("addr add fd99::1 peer fd99::2/128 dev p0 nodad");
        ip("addr add 10.8.0.9/16 dev p0 label p0:web");
        ip("addr add 10.8.0.8/16 dev p0 label p0:1");
        ip("addr add 10.8.0.7/16 dev p0 label p0:web");
        ip("addr add 10.8.0.6/16 dev p0 label p0:1");
        ip("addr add 10.7.0.1/8 dev p2 label p2:7");
        ip("addr del 10.1.3.1/24 dev p3");
        let expected = oracle();
        assert!(expected.iter().any(|line| line.starts_with("alias p0:web ")), "{expected:?}");
        assert!(expected.len() > 20, "{expected:?}");
        assert_eq!(text(|each| walk(&mut buffers, each)), expected);
        for order in [Order::LockStep, Order::LinkByLink] {
            assert_eq!(
                text(|each| attempt(&mut dumps(&mut buffers), order, each).map(|complete| assert!(complete))),
                expected
            );
        }
        for buffer in buffers.0.as_chunks::<BUFFER>().0 {
            assert_ne!(*buffer, [0; BUFFER], "used");
        }
    }

    #[test]
    fn every_kind_of_link() {
        in_a_network_namespace("guest::network::tests::inside_every_kind_of_link");
    }

    #[test]
    #[ignore = "run by its namesake in a network namespace"]
    fn inside_many_links() {
        must_be_alone();
        make_links(150);
        let mut buffers = buffers();
        let lines = text(|each| walk(&mut buffers, each));
        assert_eq!(lines.iter().filter(|line| line.starts_with("link ")).count(), 301);
        assert_eq!(lines.len(), 301 + 2 * 300 + 2);
        assert_eq!(lines, text(|each| attempt(&mut dumps(&mut buffers), Order::LinkByLink, each).map(|_| ())));
        give_back(&mut buffers.0);
        assert!(buffers.0 == [0; 4 * BUFFER], "given back");
    }

    #[test]
    fn many_links() {
        in_a_network_namespace("guest::network::tests::inside_many_links");
    }

    /// The walk must end, and hold what does not change, while links come and go.
    #[test]
    #[ignore = "run by its namesake in a network namespace"]
    fn inside_links_that_come_and_go() {
        must_be_alone();
        make_links(30);
        let stop = &std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            let start = std::time::Instant::now();
            scope.spawn(move || {
                // A walk that fails does not stop this.
                while !stop.load(order) && start.elapsed().as_secs() < 20 {
                    ip("link add x0 type veth peer name x1");
                    ip("addr add 10.200.0.1/24 dev x0");
                    ip("link del x0");
                }
            });
            let mut buffers = buffers();
            for _ in 0..300 {
                let lines = text(|each| walk(&mut buffers, each));
                for link in 0..60 {
                    assert!(lines.iter().any(|line| line.starts_with(&format!("link p{link} "))), "{link}: {lines:?}");
                    assert!(lines.contains(&format!("10.1.{link}.1/24")), "{link}: {lines:?}");
                }
            }
            stop.store(true, order);
        });
    }

    #[test]
    fn links_that_come_and_go() {
        in_a_network_namespace("guest::network::tests::inside_links_that_come_and_go");
    }
}
