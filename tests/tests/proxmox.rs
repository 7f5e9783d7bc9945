//! Proxmox VE as the host: for each command a new connection, a sync and the command in one write, two lines back.

use std::time::{Duration, Instant};

use nanoga_tests::client::{Client, base64_decode, base64_encode};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Bus, Disk, Machine, make_disk};
use nanoga_tests::{mkfs, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// As long as it waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What it asks for when somebody looks at a machine.
const LOOKED_AT: [&str; 10] = [
    "guest-get-time",
    "guest-info",
    "guest-fsfreeze-status",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-osinfo",
    "guest-get-users",
    "guest-get-timezone",
    "guest-ping",
];

/// As much of a file as it reads at a time.
const CHUNK: u64 = 1 << 20;

#[test]
fn each_command_on_a_connection_of_its_own_is_answered_by_two_lines() {
    let (mut guest, mut host) = machine(None);
    // Half a request, by somebody who gave up.
    let mut other = guest.connect("qga0").unwrap();
    other.send(r#"{"execute":"guest-pi"#).unwrap();
    drop(other);
    guest.wait_host_connected(false).unwrap();
    let pid = guest.sh("pidof nanoga").unwrap().trim().parse().unwrap();
    guest.settle(pid).unwrap();
    for command in LOOKED_AT.repeat(20) {
        assert!(host.command(&guest, command, json!({})).get("return").is_some(), "{command}");
    }
    let reply = host.command(&guest, "guest-none", json!({}));
    assert_eq!(reply["error"]["class"], "CommandNotFound", "{reply}");
}

#[test]
fn exec_is_polled_until_it_has_ended() {
    let (guest, mut host) = machine(None);
    let script = "sleep 1; read word; echo got $word; echo wrong >&2; exit 3";
    let arguments = json!({
        "path": "sh", "arg": ["-c", script], "input-data": base64_encode(b"it\n"), "capture-output": true
    });
    let pid = host.get(&guest, "guest-exec", arguments)["pid"].take();
    let mut polls = 0;
    let status = wait_for("the end of it", Duration::from_secs(20), || {
        polls += 1;
        let status = host.get(&guest, "guest-exec-status", json!({ "pid": pid }));
        Ok((status["exited"] == true).then_some(status))
    });
    let status = status.unwrap();
    assert!(polls > 1, "it was over at once");
    assert_eq!(status["exitcode"], 3, "{status}");
    assert_eq!(base64_decode(status["out-data"].as_str().unwrap()), b"got it\n");
    assert_eq!(base64_decode(status["err-data"].as_str().unwrap()), b"wrong\n");

    // `qm guest exec` without a program.
    let reply = host.command(&guest, "guest-exec", json!({ "input-data": "", "capture-output": true }));
    assert_eq!(reply["error"]["desc"], "Parameter 'path' is missing");
}

#[test]
fn a_file_is_written_whole_and_read_in_chunks() {
    let (mut guest, mut host) = machine(None);
    let content: Vec<u8> = (0..60_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
    let handle = host.get(&guest, "guest-file-open", json!({ "path": "/tmp/file", "mode": "wb" }));
    let buffer = json!({ "handle": handle, "buf-b64": base64_encode(&content) });
    assert_eq!(host.get(&guest, "guest-file-write", buffer)["count"], 60_000);
    host.get(&guest, "guest-file-close", json!({ "handle": handle }));
    assert_eq!(read_file(&guest, &mut host, "/tmp/file", 0), content);

    // More than a chunk, and from the middle of it.
    guest.sh("for n in $(seq 50); do cat /tmp/file; done >/tmp/files").unwrap();
    let start = 1_234_567;
    assert_eq!(read_file(&guest, &mut host, "/tmp/files", start), content.repeat(50)[start as usize..]);
}

#[test]
fn a_backup_freezes_and_thaws() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("disk");
    make_disk(&image, 32 << 20).unwrap();
    mkfs("ext4", &["-q"], &image).unwrap();
    let (mut guest, mut host) = machine(Some(Disk { bus: Bus::VirtioBlk, image, serial: "disk" }));
    guest.sh("mkdir /mnt && mount -t ext4 /dev/vda /mnt").unwrap();

    assert_eq!(host.get(&guest, "guest-fsfreeze-freeze", json!({})), 1);
    guest.sh("(echo written >/mnt/file) </dev/null >/dev/null 2>&1 &").unwrap();
    for _ in 0..3 {
        assert_eq!(host.get(&guest, "guest-fsfreeze-status", json!({})), "frozen");
        assert_eq!(host.command(&guest, "guest-get-time", json!({}))["error"]["class"], "CommandNotFound");
    }
    guest.sh("! grep written /mnt/file").unwrap();
    assert_eq!(host.get(&guest, "guest-fsfreeze-thaw", json!({})), 1);
    assert_eq!(host.get(&guest, "guest-fsfreeze-status", json!({})), "thawed");
    guest.sh("until grep written /mnt/file; do sleep 0.1; done").unwrap();
}

/// Opens, seeks, reads in chunks until the end, closes.
fn read_file(guest: &Guest, host: &mut Proxmox, path: &str, offset: u64) -> Vec<u8> {
    let handle = host.get(guest, "guest-file-open", json!({ "path": path }));
    let seek = json!({ "handle": handle, "offset": offset, "whence": "set" });
    assert_eq!(host.get(guest, "guest-file-seek", seek)["position"], offset);
    let mut content = Vec::new();
    loop {
        let chunk = host.get(guest, "guest-file-read", json!({ "handle": handle, "count": CHUNK }));
        let bytes = base64_decode(chunk["buf-b64"].as_str().unwrap());
        assert_eq!(chunk["count"], bytes.len());
        content.extend(bytes);
        if chunk["eof"] == true {
            break;
        }
    }
    host.get(guest, "guest-file-close", json!({ "handle": handle }));
    content
}

fn machine(disk: Option<Disk>) -> (Guest, Proxmox) {
    let mut machine = Machine::new(Board::Pc);
    machine.disks = disk.into_iter().collect();
    let mut guest = Guest::boot(&machine).unwrap();
    guest.start_agent("").unwrap();
    (guest, Proxmox { syncs: 1000 })
}

/// The host's client.
struct Proxmox {
    /// Counted up, so that an answer to an earlier one is known.
    syncs: u64,
}

impl Proxmox {
    /// Asks whether somebody is there, and then for what a command returns.
    fn get(&mut self, guest: &Guest, command: &str, arguments: Value) -> Value {
        assert_eq!(self.command(guest, "guest-ping", json!({})), json!({ "return": {} }));
        let mut reply = self.command(guest, command, arguments);
        reply.get_mut("return").unwrap_or_else(|| panic!("{command} did not return")).take()
    }

    fn command(&mut self, guest: &Guest, command: &str, arguments: Value) -> Value {
        self.syncs += 1;
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": self.syncs } });
        let request = json!({ "execute": command, "arguments": arguments });
        let mut host: Client = guest.connect("qga0").unwrap();
        host.send(format!("{sync}\n{request}\n")).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        let mut received = Vec::new();
        loop {
            if let Some([sync, reply]) = two_lines(&received) {
                let synced = sync["return"].as_u64().unwrap_or_else(|| panic!("no sync: {sync}"));
                assert_eq!(synced, self.syncs, "an answer to another request came last");
                return reply;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let more = host.receive(left).unwrap();
            let shown = || String::from_utf8_lossy(&received).into_owned();
            assert!(!more.is_empty(), "{request} - got timeout, with {:?}", shown());
            received.extend(more);
        }
    }
}

/// What its pattern `^.*\xff([^\n]+}\r?\n[^\n]+})\r?\n(.*)$` takes out of what came so far.
fn two_lines(received: &[u8]) -> Option<[Value; 2]> {
    let from = received.iter().rposition(|byte| *byte == 0xFF)? + 1;
    let text = std::str::from_utf8(&received[from..]).ok()?;
    let mut lines = text.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
    let [first, second] = [lines.next()??, lines.next()??].map(|line| line.strip_suffix('\r').unwrap_or(line));
    assert!(first.ends_with('}') && second.ends_with('}'), "{text:?}");
    assert_eq!(lines.next(), None, "more than two lines: {text:?}");
    Some([first, second].map(|line| serde_json::from_str(line).unwrap()))
}
