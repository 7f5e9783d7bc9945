//! `guest-network-get-interfaces` against the kernel's dumps alone, in a network namespace of a thread's own.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{Peer, Program, microseconds, row};
use crate::provision::find_program;

/// Measures with so many interfaces. The thread that calls it leaves its network for good.
pub fn interfaces(programs: &[Program], count: usize) -> Result<()> {
    let what = format!("{count} interfaces, two addresses each");
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("{what:<40} left out: a network namespace needs root ({error})");
        return Ok(());
    }
    make_interfaces(count)?;
    let mut peers = programs.iter().map(Program::start).collect::<Result<Vec<Peer>>>()?;
    let request = b"{\"execute\":\"guest-network-get-interfaces\"}\n";

    let mut samples = vec![Vec::new(); 3];
    let mut buffer = vec![0; 32 << 10];
    for round in 0..31 {
        let start = Instant::now();
        bare_dumps(&mut buffer)?;
        samples[1].push(start.elapsed().as_secs_f64());
        for (at, peer) in peers.iter_mut().enumerate() {
            // It takes seconds where nanoga takes milliseconds.
            if at == 1 && round % 10 != 0 {
                continue;
            }
            let start = Instant::now();
            peer.call(request)?;
            samples[at * 2].push(start.elapsed().as_secs_f64());
        }
    }
    row(&what, &samples, microseconds, Some(3.0));
    Ok(())
}

/// Ends of virtual cables, up, each with an IPv4 and an IPv6 address.
fn make_interfaces(count: usize) -> Result<()> {
    let mut lines = String::from("link set lo up\n");
    for pair in 0..count / 2 {
        lines += &format!("link add p{} type veth peer name p{}\n", pair * 2, pair * 2 + 1);
    }
    for link in 0..count {
        lines += &format!("link set p{link} addrgenmode none\n");
        lines += &format!("addr add 10.{}.{}.1/24 dev p{link}\n", link / 250, link % 250);
        lines += &format!("addr add fd00:0:0:{link:x}::1/64 dev p{link} nodad\n");
        lines += &format!("link set p{link} up\n");
    }
    let ip = find_program("ip").context("ip (iproute2) is not installed")?;
    let mut ip = Command::new(ip).args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    ip.stdin.take().context("no pipe")?.write_all(lines.as_bytes())?;
    ensure!(ip.wait()?.success(), "ip could not make {count} interfaces");
    // The kernel is still at work with them.
    thread::sleep(Duration::from_millis(300));
    Ok(())
}

/// All links and all addresses, taken from the kernel and thrown away: nobody can know them in less time.
fn bare_dumps(buffer: &mut [u8]) -> Result<()> {
    const RTM_GETLINK: u16 = 18;
    const RTM_GETADDR: u16 = 22;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // struct ifinfomsg has 16 bytes, struct ifaddrmsg 8.
    for (kind, body) in [(RTM_GETLINK, 16), (RTM_GETADDR, 8)] {
        let mut request = Vec::new();
        request.extend(u32::to_ne_bytes(16 + body));
        request.extend(u16::to_ne_bytes(kind));
        request.extend(u16::to_ne_bytes(0x301)); // NLM_F_REQUEST | NLM_F_DUMP
        request.resize(16 + body as usize, 0);
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let length = recv(netlink.as_raw_fd(), buffer, MsgFlags::empty())?;
            if dump_ends(&buffer[..length]) {
                break;
            }
        }
    }
    Ok(())
}

/// Is there NLMSG_DONE or NLMSG_ERROR among these messages, or nothing at all?
fn dump_ends(mut messages: &[u8]) -> bool {
    if messages.is_empty() {
        return true;
    }
    while let Some((header, _)) = messages.split_first_chunk::<16>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        if matches!(u16::from_ne_bytes([k0, k1]), 2 | 3) {
            return true;
        }
        let length = u32::from_ne_bytes([l0, l1, l2, l3]).max(16).next_multiple_of(4);
        messages = messages.get(length as usize..).unwrap_or_default();
    }
    false
}
