//! The vsock channel in guests: hosts and devices come and go, and no other channel feels it.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nanoga_tests::client::Client;
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use nanoga_tests::{find_program, wait_for};
use serde_json::json;

const PORT: u32 = 1024;

const VSOCK: &str = "-v -m vsock-listen -p 4294967295:1024";

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn hosts_ask_by_vsock_on_pc_and_on_microvm() {
    for board in [Board::Pc, Board::Microvm] {
        let (mut guest, mut host, pid) = with_vsock(board, VSOCK);
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
        assert!(host.ask("guest-info").unwrap()["version"].is_string());
        host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
        guest.settle(pid).unwrap();
        drop(host);

        // The next one finds nothing of the first: no 0xFF is needed.
        let mut next = connect(&guest);
        assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
        // What nobody listens at is refused, not left waiting.
        assert!(guest.vsock().connect(PORT + 1).is_err());
        drop(next);
        assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "{board:?}");
    }
}

#[test]
fn a_second_host_waits_for_its_turn_and_the_first_does_not_notice() {
    let (mut guest, mut first, pid) = with_vsock(Board::Pc, VSOCK);
    let mut second = connect(&guest);
    second.send("{\"execute\":\"guest-ping\"}\n").unwrap();
    second.expect_silence(Duration::from_millis(500)).unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "while it waits");
    first.expect_silence(Duration::from_millis(100)).unwrap();
    assert_eq!(first.ask("guest-ping").unwrap(), json!({}));
    drop(first);
    assert_eq!(second.reply().unwrap(), json!({ "return": {} }));
}

/// A program of the guest on the loopback of vsock, CID 1: says it has come, and what it got.
const LOCAL: &str = r#"perl -e 'socket(S, 40, 1, 0); connect(S, pack("SSLLx4", 40, 0, $ARGV[0], 1)) or die "no: $!\n";
    syswrite(S, "{\"execute\": \"guest-ping\"}\n"); print "got: ", scalar(readline(S)), "\n"'"#;

#[test]
fn nobody_but_the_host_is_served_and_of_the_host_only_root_where_that_is_asked_for() {
    let mut machine = machine(Board::Pc);
    machine.extras.modules.push("vsock_loopback");
    machine.extras.programs.push(find_program("perl").unwrap());
    let mut guest = Guest::boot(&machine).unwrap();
    let pid = guest.start_agent(VSOCK).unwrap();
    guest.start_agent("-m vsock-listen -p 4294967295:1025 --vsock-peer any").unwrap();
    guest.start_agent("-m vsock-listen -p 4294967295:1026 --vsock-peer privileged").unwrap();
    for (port, got) in [(1024, "got: \n"), (1025, "got: {\"return\":{}}\n\n"), (1026, "got: \n")] {
        let local = wait_for("it to listen", PATIENCE, || Ok(guest.sh(&format!("{LOCAL} {port}")).ok()));
        assert_eq!(local.unwrap(), got, "{port}");
    }
    // The device numbers its hosts' ports from 0 on, whatever becomes of them.
    assert_eq!(guest.vsock().connect(1026).unwrap().ask("guest-ping").unwrap(), json!({}));
    for _ in 0..1024 {
        assert!(guest.vsock().connect(1027).is_err());
    }
    guest.vsock().connect(1026).unwrap().expect_end().unwrap();
    assert_eq!(guest.vsock().connect(1025).unwrap().ask("guest-ping").unwrap(), json!({}));
    assert_eq!(connect(&guest).ask("guest-ping").unwrap(), json!({}));
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0);
}

#[test]
fn a_host_that_leaves_a_flood_of_replies_unread_makes_room_for_the_next() {
    let (guest, mut host, _) = with_vsock(Board::Pc, VSOCK);
    block(&mut host);
    // The device does not tell that it has gone.
    drop(host);
    let mut next = connect(&guest);
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
    // Who reads, however late, is not sent away by one that waits.
    next.send("{\"execute\":\"guest-info\"}\n".repeat(2_000)).unwrap();
    let mut third = connect(&guest);
    std::thread::sleep(Duration::from_secs(4));
    for _ in 0..2_000 {
        assert!(next.reply().unwrap()["return"]["version"].is_string());
    }
    drop(next);
    assert_eq!(third.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_device_that_dies_takes_its_host_with_it_and_the_next_device_is_served() {
    let (mut guest, mut host, pid) = with_vsock(Board::Pc, VSOCK);
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
    guest.settle(pid).unwrap();
    guest.vsock = None;
    host.expect_end().unwrap();
    guest.unplug_vsock("vsock0").unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0, "without a device");

    for name in ["vsock1", "vsock2"] {
        guest.plug_vsock(name).unwrap();
        let mut host = connect(&guest);
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
        guest.unplug_vsock(name).unwrap();
    }
    assert_eq!(guest.sh("pidof nanoga").unwrap().trim(), pid.to_string());
}

#[test]
fn a_device_may_come_after_the_agent() {
    let mut machine = Machine::new(Board::Pc);
    machine.shared_memory = true;
    let mut guest = Guest::boot(&machine).unwrap();
    let any = guest.start_agent(VSOCK).unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(any).unwrap(), 0);
    // One that listens at the CID of the device cannot do without it, and may wait for it.
    let said = guest.sh("! nanoga -m vsock-listen -p 3:1025 -t /tmp").unwrap();
    assert_eq!(said, "nanoga: 3:1025: Cannot assign requested address\n");
    guest.start_agent("-r -m vsock-listen -p 3:1025").unwrap();
    guest.plug_vsock("vsock1").unwrap();
    assert_eq!(connect(&guest).ask("guest-ping").unwrap(), json!({}));
    let waited = wait_for("the other to listen", PATIENCE, || Ok(guest.vsock().connect(PORT + 1).ok()));
    assert_eq!(waited.unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_device_that_is_reset_takes_its_host_with_it_and_the_agent_goes_on_listening() {
    let (mut guest, mut host, pid) = with_vsock(Board::Pc, VSOCK);
    let driver = "cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && device=$(echo virtio*)";
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
    guest.settle(pid).unwrap();
    guest.sh(&format!("{driver} && echo $device >unbind && echo $device >bind; cd /")).unwrap();
    // That it has gone is the second line.
    wait_for("the connection to end", PATIENCE, || {
        Ok((guest.sh("cat /tmp/nanoga.log")?.lines().count() >= 2).then_some(()))
    })
    .unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0);
    assert_eq!(connect(&guest).ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn four_channels_at_once_and_whoever_does_not_read_delays_nobody_else() {
    let mut machine = machine(Board::Pc);
    machine.second_port = true;
    machine.isa = true;
    let mut guest = Guest::boot(&machine).unwrap();
    let args = "-m virtio-serial -m isa-serial -p /dev/ttyS1 -m vsock-listen -p 4294967295:1024 \
                -m virtio-serial -p /dev/virtio-ports/org.nanoga.second";
    let pid = guest.start_agent(args).unwrap();
    let mut hosts =
        vec![connect(&guest), guest.host("qga0").unwrap(), guest.host("qga1").unwrap(), guest.host("isa").unwrap()];
    for host in &mut hosts {
        host.ask("guest-info").unwrap();
    }
    let status = guest.settle(pid).unwrap();
    assert!(status.rss_anon_kib <= 48, "{status:?}");

    for slow in 0..hosts.len() {
        // Replies of four megabytes, which fit into no buffer on the way.
        let requests: String = (0..1_000).map(|id| format!("{{\"execute\":\"guest-info\",\"id\":{id}}}\n")).collect();
        hosts[slow].send(requests).unwrap();
        for (number, host) in hosts.iter_mut().enumerate().filter(|(number, _)| *number != slow) {
            let start = Instant::now();
            for id in 0..50 {
                let reply = host.call(&json!({ "execute": "guest-info", "id": id })).unwrap();
                assert_eq!(reply["id"], id, "{number} while {slow} does not read");
            }
            assert!(start.elapsed() < PATIENCE, "{number} while {slow} does not read: {:?}", start.elapsed());
        }
        // All of it is there, in order. From the serial line it would take minutes.
        for id in (0..1_000).filter(|_| slow < 3) {
            assert_eq!(hosts[slow].reply().unwrap_or_else(|e| panic!("{slow}: {e:#}"))["id"], id);
        }
    }
}

#[test]
fn two_hosts_under_load_each_get_their_own_answers_in_order() {
    let (mut guest, vsock, _) = with_vsock(Board::Pc, &format!("{VSOCK} -m virtio-serial"));
    let hosts = [("vsock", vsock), ("virtio", guest.host("qga0").unwrap())];
    std::thread::scope(|scope| {
        for (name, mut host) in hosts {
            scope.spawn(move || {
                for round in 0..50 {
                    let ids = (0..40).map(|id| format!("{name} {round} {id}"));
                    let ask = |id| json!({ "execute": "guest-network-get-interfaces", "id": id }).to_string();
                    host.send(ids.clone().map(ask).collect::<String>()).unwrap();
                    for id in ids {
                        let reply = host.reply().unwrap();
                        assert_eq!(reply["id"], json!(id));
                        assert_eq!(reply["return"][0]["name"], "lo");
                    }
                }
            });
        }
    });
}

#[test]
fn the_host_is_told_once_that_the_agent_listens() {
    let mut guest = Guest::boot(&machine(Board::Pc)).unwrap();
    let listener = guest.vsock().listen(5000).unwrap();
    let pid = guest.start_agent(&format!("{VSOCK} --ready vsock:5000")).unwrap();
    assert_eq!(ready_line(&listener), "nanoga: ready\n");
    // It was true.
    let mut host = guest.vsock().connect(PORT).unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    no_worker(&mut guest, pid);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "twice");
}

#[test]
fn a_host_that_is_not_there_to_be_told_neither_ends_nor_delays_the_agent() {
    let mut machine = machine(Board::Pc);
    for vsock in [true, false] {
        machine.vsock = vsock;
        let mut guest = Guest::boot(&machine).unwrap();
        let pid = guest.start_agent("--ready vsock:5001").unwrap();
        let mut host = guest.host("qga0").unwrap();
        host.patience = Duration::from_secs(2);
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
        assert_eq!(guest.sh("cat /tmp/nanoga.log").unwrap(), "");
        no_worker(&mut guest, pid);
        assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0);
    }
}

#[test]
fn the_console_is_told_too() {
    let (guest, _host, _) = Guest::with_agent(&Machine::new(Board::Pc), "--ready console").unwrap();
    let told = wait_for("the line", PATIENCE, || Ok(guest.logs().contains("nanoga: ready").then(|| guest.logs())));
    assert_eq!(told.unwrap().matches("nanoga: ready").count(), 1);
}

fn machine(board: Board) -> Machine {
    let mut machine = Machine::new(board);
    machine.vsock = true;
    machine
}

/// Boots, starts the agent with these arguments, and connects to it by vsock.
fn with_vsock(board: Board, args: &str) -> (Guest, Client, i32) {
    let mut guest = Guest::boot(&machine(board)).unwrap();
    let pid = guest.start_agent(args).unwrap();
    let mut host = connect(&guest);
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", guest.agent_log()));
    (guest, host, pid)
}

/// Connects as soon as the agent listens.
fn connect(guest: &Guest) -> Client {
    wait_for("the agent to listen", PATIENCE, || Ok(guest.vsock().connect(PORT).ok())).unwrap()
}

/// Asks until nobody takes more: replies that are not read fill every buffer on the way, until the agent itself waits.
fn block(host: &mut Client) {
    let flood = "{\"execute\":\"guest-info\",\"id\":\"flood\"}\n".repeat(200_000);
    let taken = host.send_within(flood.as_bytes(), Duration::from_secs(1)).unwrap();
    assert!(taken < flood.len(), "nothing backed up: the agent takes requests without end");
}

fn ready_line(listener: &UnixListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    stream.read_to_string(&mut line).unwrap();
    line
}

/// Waits until the agent has no child any more.
fn no_worker(guest: &mut Guest, pid: i32) {
    wait_for("its worker to end", PATIENCE, || {
        Ok(guest.sh(&format!("cat /proc/{pid}/task/{pid}/children"))?.is_empty().then_some(()))
    })
    .unwrap();
}
