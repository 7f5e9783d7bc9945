//! Addresses that are given on the kernel's command line: `ip=` (kernel documentation, admin-guide/nfs/nfsroot.rst).
//!
//!     ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0
//!
//! Only static ones: there is no DHCP here. What the kernel does not know, but others do: an IPv6 address stands in
//! brackets, and the mask may be the length of the prefix. Servers are read over.

use core::ffi::CStr;

use agent_core::packed;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, Result, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::calls::{self, Interface};
use super::devices::Devices;
use crate::guest::netlink::u32_at;
use crate::log::{failed, say_of};
use crate::sys::{self, PATH, join};

/// What `ip=` says.
#[derive(Default)]
struct Setting<'a> {
    /// In the order of the network.
    client: [u8; 16],
    gateway: [u8; 16],
    /// Bytes of these: 4 or 16. That of the gateway is 0 if there is none.
    client_bytes: usize,
    gateway_bytes: usize,
    /// Bits of the client's that are the network's.
    prefix: u8,
    host_name: &'a [u8],
    /// Empty: the first one.
    device: &'a [u8],
}

/// Sets up what this value says.
#[inline(never)]
pub(super) fn set(value: &CStr, devices: &Devices) {
    let value = value.to_bytes();
    // No wish at all.
    if matches!(value, [] | [b'o', b'f', b'f'] | [b'n', b'o', b'n', b'e']) {
        return;
    }
    let mut setting = Setting::default();
    if parse(value, &mut setting).is_none() {
        say_of(packed!("ip=%: not understood; only static addresses are set"), value);
        return;
    }
    if !setting.host_name.is_empty() {
        let _ = calls::set_host_name(setting.host_name);
    }
    let mut index = 0;
    let is_there = devices.wait_for(value, &mut || {
        index = find(setting.device);
        index != 0
    });
    if is_there && let Err(error) = apply(&setting, index.to_ne_bytes()) {
        failed(value, error);
    }
}

/// Switches on the interface that every host has.
pub(super) fn set_loopback() {
    if let Err(error) = up(1_u32.to_ne_bytes()) {
        failed(b"lo", error);
    }
}

/// Takes the value apart; nothing if it is none of a static address.
#[inline(never)]
fn parse<'a>(value: &'a [u8], setting: &mut Setting<'a>) -> Option<()> {
    let mut fields = [[].as_slice(); 7];
    let mut bracketed = false;
    let parts = value.split(|byte| {
        bracketed = *byte == b'[' || (bracketed && *byte != b']');
        *byte == b':' && !bracketed
    });
    for (place, part) in fields.iter_mut().zip(parts) {
        *place = part;
    }
    let [client, _, gateway, mask, host_name, device, method] = fields;
    (setting.host_name, setting.device) = (host_name, device);
    setting.client_bytes = address(client, &mut setting.client)?;
    if !gateway.is_empty() {
        setting.gateway_bytes = address(gateway, &mut setting.gateway)?;
        if setting.gateway_bytes != setting.client_bytes {
            return None;
        }
    }
    // `dhcp`, `bootp`, `rarp`, `both`, `any`.
    if matches!(method, [b'd' | b'b' | b'r' | b'a', ..]) {
        return None;
    }
    let most = setting.client_bytes.wrapping_mul(8);
    let [first, ..] = setting.client;
    let length = match number(mask, 10) {
        Some(length) => length,
        None if !mask.is_empty() => {
            let mut bytes = [0; 16];
            if most != 32 || address(mask, &mut bytes) != Some(4) {
                return None;
            }
            let [a, b, c, d, ..] = bytes;
            let mask = u32::from_be_bytes([a, b, c, d]);
            // Ones, then zeros.
            if mask.leading_ones() != mask.count_ones() {
                return None;
            }
            mask.count_ones()
        }
        None if most != 32 => 64,
        // As the kernel has it: by the class of an IPv4 address.
        None => u32::from((first >> 6).max(1)).wrapping_mul(8),
    };
    setting.prefix = u8::try_from(length).ok()?;
    (usize::from(setting.prefix) <= most).then_some(())
}

/// An IPv4 address, or an IPv6 address in brackets: its bytes, and how many they are.
#[inline(never)]
fn address(text: &[u8], bytes: &mut [u8; 16]) -> Option<usize> {
    if let [b'[', text @ .., b']'] = text {
        return v6(text, bytes);
    }
    let mut places = bytes.iter_mut().take(4);
    for part in text.split(|byte| *byte == b'.') {
        *places.next()? = u8::try_from(number(part, 10)?).ok()?;
    }
    places.next().is_none().then_some(4)
}

/// Groups of hexadecimal digits; in one place, none may stand for as many zeros as are missing (RFC 4291 section 2.2).
fn v6(text: &[u8], bytes: &mut [u8; 16]) -> Option<usize> {
    let mut at = 0usize;
    let mut gap = None;
    let mut rest = text;
    while !rest.is_empty() {
        if let [b':', b':', after @ ..] = rest {
            if gap.replace(at).is_some() {
                return None;
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        } else if at > 0 {
            rest = rest.strip_prefix(b":")?;
        }
        let end = rest.iter().position(|byte| *byte == b':').unwrap_or(rest.len());
        let (group, after) = rest.split_at_checked(end)?;
        let [high, low] = u16::try_from(number(group, 16)?).ok()?.to_be_bytes();
        *bytes.get_mut(at)? = high;
        *bytes.get_mut(at.wrapping_add(1))? = low;
        at = at.wrapping_add(2);
        rest = after;
    }
    let missing = 16usize.wrapping_sub(at);
    if gap.is_some() != (missing > 0) {
        return None;
    }
    // What stands behind the gap moves to the end.
    for from in (gap.unwrap_or(at)..at).rev() {
        let byte = core::mem::take(bytes.get_mut(from)?);
        *bytes.get_mut(from.wrapping_add(missing))? = byte;
    }
    Some(16)
}

/// The number in these digits, of five at most.
#[inline(never)]
fn number(digits: &[u8], base: u32) -> Option<u32> {
    let mut number = 0u32;
    for byte in digits {
        let digit = char::from(*byte).to_digit(base)?;
        number = number.wrapping_mul(base).wrapping_add(digit);
    }
    matches!(digits.len(), 1..=5).then_some(number)
}

/// The number of the interface of this name, or of the first one that is a device; 0 if there is none.
fn find(name: &[u8]) -> u32 {
    // The first is the loopback.
    for number in 2..64 {
        let mut interface = Interface::of_number(number);
        if !interface.ask_name() {
            continue;
        }
        let found = interface.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = &mut [0; PATH];
        let path = join(path, &[b"/sys/class/net/", found, b"/device"]);
        if found == name || (name.is_empty() && sys::open(CWD, path, OFlags::PATH).is_ok()) {
            return number;
        }
    }
    0
}

/// The interface is switched on first: a route leads nowhere without it.
#[inline(never)]
fn apply(setting: &Setting<'_>, index: [u8; 4]) -> Result<()> {
    up(index)?;
    let client = setting.client.get(..setting.client_bytes).unwrap_or_default();
    let gateway = setting.gateway.get(..setting.gateway_bytes).unwrap_or_default();
    // AF_INET6 or AF_INET, and IFA_F_NODAD: it is to work at once.
    let (family, flags) = if client.len() == 16 { (10, 2) } else { (2, 0) };
    // struct ifaddrmsg: family, length of the prefix, flags, scope; interface.
    change(RTM_NEWADDR, &[[family, setting.prefix, flags, 0], index], &[(IFA_LOCAL, client), (IFA_ADDRESS, client)])?;
    if gateway.is_empty() {
        return Ok(());
    }
    // struct rtmsg: family, three zeros for the default route; the main table, RTPROT_BOOT, the universe, RTN_UNICAST;
    // flags: RTNH_F_ONLINK, as the gateway may lie outside of the prefix.
    let route = [[family, 0, 0, 0], [254, 3, 0, 1], 4_u32.to_ne_bytes()];
    change(RTM_NEWROUTE, &route, &[(RTA_GATEWAY, gateway), (RTA_OIF, &index)])
}

/// Switches on an interface.
#[inline(never)]
fn up(index: [u8; 4]) -> Result<()> {
    let is_up = 1_u32.to_ne_bytes();
    // struct ifinfomsg: family and type; interface; flags: IFF_UP; which of them are meant.
    change(RTM_NEWLINK, &[[0; 4], index, is_up, is_up], &[])
}

// Types of messages (linux/rtnetlink.h), with NLM_F_REQUEST | NLM_F_ACK, and with NLM_F_EXCL | NLM_F_CREATE for what is
// new (linux/netlink.h); attributes.
const RTM_NEWLINK: [u16; 2] = [16, 0x005];
const RTM_NEWADDR: [u16; 2] = [20, 0x605];
const RTM_NEWROUTE: [u16; 2] = [24, 0x605];
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// A message in the making.
struct Message {
    bytes: [u8; 128],
    length: u8,
}

impl Message {
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(usize::from(self.length)).zip(bytes) {
            *place = *byte;
        }
        self.length = self.length.wrapping_add(u8::try_from(bytes.len()).unwrap_or(0));
    }
}

/// Sends a message of rtnetlink(7) and waits for the answer. What is there already is fine: a kernel with CONFIG_IP_PNP
/// has done it.
#[inline(never)]
fn change(kind: [u16; 2], body: &[[u8; 4]], attributes: &[(u16, &[u8])]) -> Result<()> {
    // struct nlmsghdr: length, type and flags, sequence, port.
    let mut message = Message { bytes: [0; 128], length: 4 };
    message.put(kind.map(u16::to_ne_bytes).as_flattened());
    message.put(&[0; 8]);
    message.put(body.as_flattened());
    for (attribute, value) in attributes {
        let size = u16::try_from(value.len()).unwrap_or(0).wrapping_add(4);
        message.put([size, *attribute].map(u16::to_ne_bytes).as_flattened());
        message.put(value);
    }
    let length = message.length;
    message.length = 0;
    message.put(&u32::from(length).to_ne_bytes());

    let socket: OwnedFd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    write(&socket, message.bytes.get(..usize::from(length)).unwrap_or_default())?;
    // struct nlmsghdr, then struct nlmsgerr: a negated errno, and the message.
    read(&socket, &mut message.bytes)?;
    let error = u32_at(&message.bytes, 16).unwrap_or(0).cast_signed();
    match sys::done(isize::try_from(error).unwrap_or(0)) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::string::ToString;

    use super::*;

    fn ip(bytes: &[u8]) -> IpAddr {
        match <[u8; 4]>::try_from(bytes) {
            Ok(bytes) => bytes.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
        }
    }

    fn shown(value: &str) -> Option<std::string::String> {
        let mut setting = Setting::default();
        parse(value.as_bytes(), &mut setting)?;
        let Setting { client, gateway, client_bytes, gateway_bytes, prefix, host_name, device } = setting;
        let client = ip(&client[..client_bytes]);
        let gateway = if gateway_bytes == 0 { "-".into() } else { ip(&gateway[..gateway_bytes]).to_string() };
        let (host_name, device) = (str::from_utf8(host_name).unwrap(), str::from_utf8(device).unwrap());
        Some(std::format!("{client}/{prefix} {gateway} '{host_name}' '{device}'"))
    }

    #[test]
    fn the_kernels_syntax_is_understood() {
        for (value, want) in [
            ("10.0.2.15", "10.0.2.15/8 - '' ''"),
            ("172.16.0.2::172.16.0.1:255.255.255.252::eth0:off", "172.16.0.2/30 172.16.0.1 '' 'eth0'"),
            ("192.168.1.2:10.0.0.1:192.168.1.1::guest", "192.168.1.2/24 192.168.1.1 'guest' ''"),
            ("130.1.2.3::::::none:8.8.8.8:8.8.4.4:", "130.1.2.3/16 - '' ''"),
            ("10.0.0.2:::24", "10.0.0.2/24 - '' ''"),
            ("10.0.0.2:::0.0.0.0", "10.0.0.2/0 - '' ''"),
            ("[fd00::2]::[fd00::1]:64:guest:eth1:static", "fd00::2/64 fd00::1 'guest' 'eth1'"),
            ("[::1]", "::1/64 - '' ''"),
            ("[2001:db8:0:1:2:3:4:5]:::128", "2001:db8:0:1:2:3:4:5/128 - '' ''"),
            ("[FE80::]", "fe80::/64 - '' ''"),
            ("[::]", "::/64 - '' ''"),
        ] {
            assert_eq!(shown(value).as_deref(), Some(want), "{value}");
        }
    }

    #[test]
    fn what_is_no_static_address_is_nothing() {
        for value in [
            "dhcp",
            "on",
            ":::::eth0:dhcp",
            "10.0.2.15:::::eth0:dhcp",
            "10.0.2",
            "10.0.2.256",
            "10.0.2.1.1",
            "10.0.2.",
            "10.0.0.2:::255.0.255.0",
            "10.0.0.2:::33",
            "10.0.0.2::[fd00::1]",
            "fd00::2",
            "[fd00::2",
            "[fd00:2]",
            "[fd00::2::3]",
            "[12345::]",
            "[g::]",
            "[1:2:3:4:5:6:7:8:9]",
            "[1:2:3:4:5:6:7:8::]",
            "[1:2:3:4:5:6:7:]",
            "[fd00::2]:::129",
            "[fd00::2]:::255.255.255.0",
        ] {
            assert_eq!(shown(value), None, "{value}");
        }
    }

    #[test]
    #[ignore = "run by its namesake in a network of its own"]
    fn inside_addresses_and_routes_are_set() {
        crate::testing::must_be_alone();
        let output = |arguments: &[&str]| {
            let output = std::process::Command::new("ip").args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            std::string::String::from_utf8(output.stdout).unwrap()
        };
        set_loopback();
        assert!(output(&["link", "show", "lo"]).contains("LOOPBACK,UP"));
        output(&["link", "add", "left", "type", "veth", "peer", "name", "right"]);
        output(&["link", "set", "right", "up"]);
        let devices = Devices::listen();
        // Twice, as after a kernel that does it too.
        for _ in 0..2 {
            set(c"10.9.8.7::10.9.8.1:255.255.255.0::left:off", &devices);
            set(c"[fd00:9::7]::[fd00:9::1]:64::left", &devices);
        }
        let addresses = output(&["addr", "show", "left"]);
        assert!(addresses.contains("inet 10.9.8.7/24 scope global left"), "{addresses}");
        assert!(addresses.contains("inet6 fd00:9::7/64 scope global"), "{addresses}");
        let routes = output(&["route"]) + &output(&["-6", "route"]);
        assert!(routes.contains("default via 10.9.8.1 dev left"), "{routes}");
        assert!(routes.contains("default via fd00:9::1 dev left"), "{routes}");
    }

    #[test]
    fn addresses_and_routes_are_set() {
        crate::testing::in_a_network_namespace("init::address::tests::inside_addresses_and_routes_are_set");
    }
}
