//! The agent answers in a booted guest: on every kind of machine, on virtio-serial and on isa-serial.

use nanoga_tests::client::Client;
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use serde_json::{Value, json};

const COMMANDS: &[&str] = &[
    "guest-exec",
    "guest-exec-status",
    "guest-file-close",
    "guest-file-flush",
    "guest-file-open",
    "guest-file-read",
    "guest-file-seek",
    "guest-file-write",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
    "guest-fstrim",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-load",
    "guest-get-osinfo",
    "guest-get-time",
    "guest-get-timezone",
    "guest-get-users",
    "guest-info",
    "guest-network-get-interfaces",
    "guest-ping",
    "guest-set-time",
    "guest-shutdown",
    "guest-suspend-disk",
    "guest-suspend-hybrid",
    "guest-suspend-ram",
    "guest-sync",
    "guest-sync-delimited",
];

#[test]
fn on_pc_it_answers_after_a_dirty_channel() {
    answers_after_a_dirty_channel(Board::Pc);
}

#[test]
fn on_q35_it_answers_after_a_dirty_channel() {
    answers_after_a_dirty_channel(Board::Q35);
}

#[test]
fn on_microvm_it_answers_after_a_dirty_channel() {
    answers_after_a_dirty_channel(Board::Microvm);
}

#[test]
fn on_pc_it_names_the_interfaces_with_ipv4_and_ipv6() {
    names_the_interfaces(Board::Pc);
}

#[test]
fn on_microvm_it_names_the_interfaces_with_ipv4_and_ipv6() {
    names_the_interfaces(Board::Microvm);
}

#[test]
fn on_isa_serial_it_answers_like_on_virtio_serial() {
    let mut machine = Machine::new(Board::Pc);
    machine.nic = true;
    machine.isa = true;
    let mut guest = Guest::boot(&machine).unwrap();
    set_up_network(&mut guest);
    let pid = guest.start_agent("-m isa-serial -p /dev/ttyS1").unwrap();
    // Opening the line drops what came before.
    guest.sh(&format!("until ls -l /proc/{pid}/fd | grep -q ttyS1; do sleep 0.05; done")).unwrap();
    guest.settle(pid).unwrap();
    let mut host = guest.connect("isa").unwrap();
    sync_through_dirt(&mut host);
    check_info(&host.ask("guest-info").unwrap());
    check_interfaces(&host.ask("guest-network-get-interfaces").unwrap());

    // The guest cannot see that this host leaves: what it left behind, the next one clears.
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": "#).unwrap();
    drop(host);
    let mut next = guest.connect("isa").unwrap();
    assert_eq!(next.sync_delimited().unwrap(), [""; 0]);
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn where_udev_made_no_link_the_port_is_found_by_its_name() {
    let mut machine = Machine::new(Board::Pc);
    machine.second_port = true;
    let mut guest = Guest::boot(&machine).unwrap();
    guest.sh("[ ! -e /dev/virtio-ports ]").unwrap();
    guest.start_agent("-m virtio-serial -p /dev/virtio-ports/org.nanoga.second").unwrap();
    let mut host = guest.host("qga1").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn where_udev_made_a_link_the_port_is_opened_through_it() {
    let mut machine = Machine::new(Board::Pc);
    machine.second_port = true;
    let mut guest = Guest::boot(&machine).unwrap();
    guest.sh("mkdir /dev/virtio-ports && ln -s ../${port%p1}p2 /dev/virtio-ports/any.name").unwrap();
    guest.start_agent("-m virtio-serial -p /dev/virtio-ports/any.name").unwrap();
    let mut host = guest.host("qga1").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

fn answers_after_a_dirty_channel(board: Board) {
    let mut guest = Guest::boot(&Machine::new(board)).unwrap();
    guest.start_agent("").unwrap();
    let mut host = guest.connect("qga0").unwrap();
    sync_through_dirt(&mut host);
    check_info(&host.ask("guest-info").unwrap());
}

/// Half a request is lying in the channel: 0xFF ends it, and nothing but the sync's answer comes back.
fn sync_through_dirt(host: &mut Client) {
    host.send(r#"{"execute": "guest-pi"#).unwrap();
    assert_eq!(host.sync_delimited().unwrap(), [""; 0]);
}

fn check_info(info: &Value) {
    let version = info["version"].as_str().unwrap();
    assert!(version.contains("-nanoga-"), "{version}");
    let mut names = Vec::new();
    for command in info["supported_commands"].as_array().unwrap() {
        let name = command["name"].as_str().unwrap();
        assert_eq!(command["enabled"], true);
        assert_eq!(command["success-response"], !name.contains("suspend") && name != "guest-shutdown", "{name}");
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, COMMANDS);
}

fn names_the_interfaces(board: Board) {
    let mut machine = Machine::new(board);
    machine.nic = true;
    let (mut guest, mut host, _) = Guest::with_agent(&machine, "").unwrap();
    set_up_network(&mut guest);
    check_interfaces(&host.ask("guest-network-get-interfaces").unwrap());
}

fn set_up_network(guest: &mut Guest) {
    let setup = "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra; ip link set eth0 up; \
                 ip addr add 192.0.2.7/24 dev eth0; ip addr add 2001:db8::7/64 dev eth0; \
                 until ip addr show eth0 | grep -q 'inet6 fe80:'; do sleep 0.1; done";
    guest.sh(setup).unwrap();
}

fn check_interfaces(interfaces: &Value) {
    let all = interfaces.as_array().unwrap();
    let named = |name: &str| all.iter().find(|i| i["name"] == name).unwrap_or_else(|| panic!("no {name}: {all:?}"));
    assert_eq!(named("lo")["hardware-address"], "00:00:00:00:00:00");
    let addresses = named("lo")["ip-addresses"].as_array().unwrap();
    assert!(addresses.contains(&address("ipv4", "127.0.0.1", 8)));
    assert!(addresses.contains(&address("ipv6", "::1", 128)));

    let eth0 = named("eth0");
    assert_eq!(eth0["hardware-address"], "52:54:00:12:34:56");
    assert_eq!(eth0["ip-addresses"][0], address("ipv4", "192.0.2.7", 24));
    let addresses = eth0["ip-addresses"].as_array().unwrap();
    assert!(addresses.contains(&address("ipv6", "2001:db8::7", 64)));
    assert!(addresses.contains(&address("ipv6", "fe80::5054:ff:fe12:3456", 64)));
    assert_eq!(addresses.len(), 3);
    assert!(eth0["statistics"]["tx-packets"].as_u64().unwrap() > 0, "{eth0}");
}

fn address(kind: &str, text: &str, prefix: u8) -> Value {
    json!({ "ip-address-type": kind, "ip-address": text, "prefix": prefix })
}
