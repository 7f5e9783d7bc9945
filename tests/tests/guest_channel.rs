//! What happens to the channel in a guest: hosts come and go, the port is busy, vanishes and comes back, and the
//! agent neither loses a byte, nor mixes up two hosts, nor wakes up for nothing.

use std::time::{Duration, Instant};

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use serde_json::json;

const PING: &str = "{\"execute\":\"guest-ping\"}\n";

#[test]
fn a_host_that_left_in_mid_request_does_not_disturb_the_next() {
    let (mut guest, mut host, pid) = pc();
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
    guest.settle(pid).unwrap();
    drop(host);
    guest.wait_host_connected(false).unwrap();
    guest.settle(pid).unwrap();

    // No 0xFF: the guest saw the host leave, so the next one finds a clean parser.
    let mut next = guest.connect("qga0").unwrap();
    guest.wait_host_connected(true).unwrap();
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
    next.expect_silence(Duration::from_millis(500)).unwrap();
}

#[test]
fn a_host_that_comes_back_at_once_needs_only_0xff() {
    let (guest, mut host, _) = pc();
    for _ in 0..20 {
        host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
        drop(host);
        host = guest.connect("qga0").unwrap();
        assert_eq!(host.sync_delimited().unwrap(), [""; 0]);
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
}

#[test]
fn no_reply_for_the_first_host_reaches_the_second() {
    let (mut guest, mut host, pid) = pc();
    block(&mut host);
    guest.settle(pid).unwrap();
    drop(host);
    guest.wait_host_connected(false).unwrap();
    guest.settle(pid).unwrap();

    let mut second = guest.connect("qga0").unwrap();
    guest.wait_host_connected(true).unwrap();
    second.expect_silence(Duration::from_millis(500)).unwrap();
    assert_eq!(second.sync_delimited().unwrap(), [""; 0]);
    assert_eq!(second.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn what_a_host_asked_for_before_it_left_is_done_and_answered_to_nobody() {
    let (mut guest, mut host, pid) = pc();
    guest.sh(&format!("kill -STOP {pid}")).unwrap();
    host.send(r#"{"execute": "guest-exec", "arguments": {"path": "touch", "arg": ["/tmp/done"]}}"#).unwrap();
    drop(host);
    guest.wait_host_connected(false).unwrap();
    guest.sh(&format!("kill -CONT {pid}; until [ -e /tmp/done ]; do sleep 0.05; done")).unwrap();
    guest.settle(pid).unwrap();

    let mut next = guest.connect("qga0").unwrap();
    guest.wait_host_connected(true).unwrap();
    next.expect_silence(Duration::from_millis(500)).unwrap();
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn however_soon_the_next_host_comes_it_gets_its_own_answer_and_nothing_else() {
    let (mut guest, mut host, _) = pc();
    for pause_ms in [20, 60, 150, 300, 600, 1000] {
        block(&mut host);
        drop(host);
        std::thread::sleep(Duration::from_millis(pause_ms));
        let noticed = !guest.host_connected().unwrap();
        let case = format!("{pause_ms} ms later, noticed: {noticed}");

        host = guest.connect("qga0").unwrap();
        host.patience = Duration::from_secs(2);
        let start = Instant::now();
        let dropped = host.sync_delimited().unwrap_or_else(|e| panic!("{case}: {e:#}"));
        assert!(start.elapsed() < Duration::from_secs(2), "{case}: {:?}", start.elapsed());
        // Where the guest could not know that the first had left, 0xFF tells.
        assert!(!noticed || dropped.is_empty(), "{case}: {dropped:?}");
        host.expect_silence(Duration::from_millis(100)).unwrap();
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}), "{case}");
    }
}

#[test]
fn a_host_that_reads_late_gets_every_reply_in_order() {
    let (mut guest, mut host, pid) = pc();
    let mut flood = String::new();
    for id in 0..400 {
        flood += &format!("{{\"execute\":\"guest-info\",\"id\":{id}}}\n");
    }
    host.send_within(flood.as_bytes(), Duration::from_secs(20)).unwrap();
    guest.settle(pid).unwrap();
    for id in 0..400 {
        let reply = host.reply().unwrap();
        assert_eq!(reply["id"], id);
        assert!(reply["return"]["version"].is_string());
    }
    host.expect_silence(Duration::from_millis(200)).unwrap();
}

#[test]
fn a_port_that_is_unplugged_and_plugged_again_is_served_again() {
    let (mut guest, mut host, pid) = pc();
    for _ in 0..2 {
        drop(host);
        guest.unplug_port().unwrap();
        guest.sh("while [ -e /dev/$port ]; do sleep 0.05; done").unwrap();
        guest.settle(pid).unwrap();
        guest.plug_port().unwrap();
        host = guest.host("qga0").unwrap();
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
    let now = guest.sh("pidof nanoga").unwrap();
    assert_eq!(now.trim(), pid.to_string(), "it is another process");
}

#[test]
fn a_port_unplugged_in_mid_request_starts_clean() {
    let (mut guest, mut host, pid) = pc();
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
    guest.settle(pid).unwrap();
    guest.unplug_port().unwrap();
    guest.plug_port().unwrap();
    drop(host);
    let mut host = guest.host("qga0").unwrap();
    host.send(PING).unwrap();
    assert_eq!(host.reply().unwrap(), json!({ "return": {} }));
}

#[test]
fn a_busy_port_is_waited_for_and_served_when_it_is_free() {
    let mut guest = Guest::boot(&Machine::new(Board::Pc)).unwrap();
    let holder = hold_port(&mut guest);
    let pid = guest.start_agent("").unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "while it waits");
    release_port(&mut guest, &holder);
    let mut host = guest.host("qga0").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_port_that_is_busy_when_it_is_plugged_again_is_served_when_it_is_free() {
    let (mut guest, host, pid) = pc();
    drop(host);
    guest.unplug_port().unwrap();
    guest.sh("while [ -e /dev/$port ]; do sleep 0.05; done").unwrap();
    guest.settle(pid).unwrap();
    // Stopped, it cannot be the first.
    guest.sh(&format!("kill -STOP {pid}")).unwrap();
    guest.plug_port().unwrap();
    guest.sh("until [ -c /dev/$port ]; do sleep 0.05; done").unwrap();
    let holder = hold_port(&mut guest);
    guest.sh(&format!("kill -CONT {pid}")).unwrap();
    guest.settle(pid).unwrap();
    // Tries that are over soon, and then none.
    guest.sh("sleep 5").unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "while it waits");
    release_port(&mut guest, &holder);
    let mut host = guest.host("qga0").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn nothing_wakes_it_while_idle_connected_disconnected_or_unplugged() {
    let (mut guest, host, pid) = pc();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "host connected");
    drop(host);
    guest.wait_host_connected(false).unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "host disconnected");
    guest.unplug_port().unwrap();
    guest.sh("while [ -e /dev/$port ]; do sleep 0.05; done").unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "port unplugged");
    guest.plug_port().unwrap();
    drop(guest.host("qga0").unwrap());
    guest.wait_host_connected(false).unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "disconnected again");
}

#[test]
fn nothing_wakes_it_before_the_first_host_comes() {
    let mut guest = Guest::boot(&Machine::new(Board::Pc)).unwrap();
    let pid = guest.start_agent("").unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0);
    guest.host("qga0").unwrap();
}

#[test]
fn a_request_on_virtio_serial_costs_at_most_three_system_calls() {
    let (mut guest, mut host, pid) = pc();
    let few = guest.syscalls(pid, || pings(&mut host, 20)).unwrap();
    let many = guest.syscalls(pid, || pings(&mut host, 220)).unwrap();
    assert!(many > few, "nothing was counted: {few}, {many}");
    assert!(many - few <= 3 * 200, "{} system calls for 200 requests", many - few);
}

#[test]
fn ten_thousand_requests_and_one_in_many_pieces_leave_its_memory_as_it_was() {
    let (mut guest, mut host, pid) = pc();
    host.ask("guest-info").unwrap();
    host.ask("guest-network-get-interfaces").unwrap();
    let before = guest.settle(pid).unwrap();
    for _ in 0..100 {
        host.send(PING.repeat(100)).unwrap();
        for _ in 0..100 {
            assert_eq!(host.reply().unwrap(), json!({ "return": {} }));
        }
    }
    let after = guest.settle(pid).unwrap();
    assert!(before.rss_anon_kib <= 32, "{before:?}");
    assert_eq!(after.rss_anon_kib, before.rss_anon_kib);

    // Its answer is short: nothing but the request itself takes memory.
    let request = json!({ "execute": "guest-ping", "arguments": { "x": "x".repeat(240_000) } });
    for piece in request.to_string().as_bytes().chunks(4_000) {
        host.send(piece).unwrap();
    }
    assert_ne!(error_text(&host.reply().unwrap()), "");
    let after = guest.settle(pid).unwrap();
    assert!(after.rss_anon_kib <= 32, "{after:?}");
}

fn pc() -> (Guest, Client, i32) {
    Guest::with_agent(&Machine::new(Board::Pc), "").unwrap()
}

/// Asks until nobody takes more: replies that are not read fill every buffer on the way, until the agent itself waits.
fn block(host: &mut Client) {
    let flood = "{\"execute\":\"guest-info\",\"id\":\"first\"}\n".repeat(200_000);
    let taken = host.send_within(flood.as_bytes(), Duration::from_secs(1)).unwrap();
    assert!(taken < flood.len(), "nothing backed up: the agent takes requests without end");
}

/// Starts a process that holds the port, and waits until it does. Its number.
fn hold_port(guest: &mut Guest) -> String {
    let holder = guest.sh("sleep 1000 3<>/dev/$port </dev/null >/dev/null 2>&1 & echo $!").unwrap();
    let holder = holder.trim().to_owned();
    guest.sh(&format!("until ls -l /proc/{holder}/fd | grep -q $port; do sleep 0.1; done")).unwrap();
    holder
}

/// Ends that process. What a host sends before it has ended is lost with it.
fn release_port(guest: &mut Guest, holder: &str) {
    guest.sh(&format!("kill {holder}; wait {holder} || true")).unwrap();
}

fn pings(host: &mut Client, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        host.ask("guest-ping")?;
    }
    Ok(())
}
