//! `guest-file-*` on real files: modes, handles, pipes, and what a host asks for in pieces.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nanoga_tests::agent::{Agent, BUSY_KIB};
use nanoga_tests::client::{base64_decode, base64_encode, error_text};
use nanoga_tests::pair::{Pair, asked_by_proxmox};
use nanoga_tests::paths;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Files, as a host uses them.
trait Files {
    fn open(&mut self, path: &Path, mode: &str) -> i64;
    fn write(&mut self, handle: i64, bytes: &[u8]);
    fn read(&mut self, handle: i64, count: usize) -> (Vec<u8>, bool);
}

impl Files for Pair {
    fn open(&mut self, path: &Path, mode: &str) -> i64 {
        self.done("guest-file-open", json!({ "path": path, "mode": mode })).as_i64().unwrap()
    }

    fn write(&mut self, handle: i64, bytes: &[u8]) {
        let reply = self.done("guest-file-write", json!({ "handle": handle, "buf-b64": base64_encode(bytes) }));
        assert_eq!(reply, json!({ "count": bytes.len(), "eof": false }));
    }

    fn read(&mut self, handle: i64, count: usize) -> (Vec<u8>, bool) {
        let reply = self.done("guest-file-read", json!({ "handle": handle, "count": count }));
        let bytes = base64_decode(reply["buf-b64"].as_str().unwrap());
        assert_eq!(reply["count"], bytes.len());
        (bytes, reply["eof"].as_bool().unwrap())
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_file_is_made_written_moved_in_and_read() {
    let mut pair = Pair::new();
    let path = pair.agent.file("new");
    let handle = pair.open(&path, "w+");
    assert_eq!(handle, 1000, "the first one ever");
    pair.write(handle, b"hello world");
    assert_eq!(fs::read(&path).unwrap(), b"hello world", "at once, without a flush");
    assert_eq!(pair.done("guest-file-flush", json!({ "handle": handle })), json!({}));
    let at = pair.done("guest-file-seek", json!({ "handle": handle, "offset": -5, "whence": "end" }));
    assert_eq!(at, json!({ "position": 6, "eof": false }));
    assert_eq!(pair.read(handle, 100), (b"world".to_vec(), true));
    assert_eq!(pair.done("guest-file-close", json!({ "handle": handle })), json!({}));
    assert_eq!(pair.refused("guest-file-read", json!({ "handle": handle })), "handle '1000' has not been found");
}

#[test]
fn the_modes_do_what_fopen_does() {
    let mut pair = Pair::new();
    let path = pair.agent.file("file");
    assert_eq!(
        pair.refused("guest-file-open", json!({ "path": path })),
        format!("failed to open file '{}' (mode: 'r'): No such file or directory", path.display())
    );
    for mode in ["r", "rb", "r+", "rb+", "r+b"] {
        fs::write(&path, "old").unwrap();
        let handle = pair.open(&path, mode);
        assert_eq!(pair.read(handle, 3), (b"old".to_vec(), false), "{mode}");
        if mode.contains('+') {
            pair.write(handle, b"er");
            assert_eq!(fs::read(&path).unwrap(), b"older", "{mode}");
        } else {
            let refused = pair.refused("guest-file-write", json!({ "handle": handle, "buf-b64": "AAAA" }));
            assert_eq!(refused, "failed to write to file: Bad file descriptor", "{mode}");
        }
    }
    for mode in ["w", "wb", "w+", "wb+", "w+b"] {
        fs::write(&path, "old").unwrap();
        let handle = pair.open(&path, mode);
        pair.write(handle, b"new");
        assert_eq!(fs::read(&path).unwrap(), b"new", "{mode}");
        pair.done("guest-file-seek", json!({ "handle": handle, "offset": 0, "whence": 0 }));
        if mode.contains('+') {
            assert_eq!(pair.read(handle, 9), (b"new".to_vec(), true), "{mode}");
        } else {
            let refused = pair.refused("guest-file-read", json!({ "handle": handle }));
            assert_eq!(refused, "failed to read file: Bad file descriptor", "{mode}");
        }
    }
    for mode in ["a", "ab", "a+", "ab+", "a+b"] {
        fs::write(&path, "old").unwrap();
        let handle = pair.open(&path, mode);
        pair.done("guest-file-seek", json!({ "handle": handle, "offset": 0, "whence": 0 }));
        pair.write(handle, b"er");
        assert_eq!(fs::read(&path).unwrap(), b"older", "{mode}");
    }
    assert_eq!(pair.refused("guest-file-open", json!({ "path": path, "mode": "x" })), "invalid file open mode 'x'");
}

#[test]
fn what_is_made_is_open_to_all_and_what_was_there_keeps_its_mode() {
    let mut pair = Pair::new();
    let (new, old, link) = (pair.agent.file("new"), pair.agent.file("old"), pair.agent.file("link"));
    fs::write(&old, "").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&old, &link).unwrap();
    for path in [&new, &old, &link] {
        pair.open(path, "a");
    }
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o7777, 0o666, "whatever the umask");
    assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_folder_can_be_opened_and_not_read() {
    let mut pair = Pair::new();
    let handle = pair.open(Path::new("/"), "r");
    assert_eq!(pair.refused("guest-file-read", json!({ "handle": handle })), "failed to read file: Is a directory");
    assert_eq!(
        pair.refused("guest-file-open", json!({ "path": "/tmp", "mode": "w" })),
        "failed to open file '/tmp' (mode: 'w'): Is a directory"
    );
}

#[test]
fn handles_are_continued_by_the_next_agent_and_old_ones_mean_nothing_to_it() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    let start = || Pair::with(keeping_state_in(&state));
    let mut first = start();
    first.host.ask("guest-ping").unwrap();
    assert!(state.is_dir(), "it was missing");
    let handles = [(); 3].map(|()| first.open(Path::new("/dev/null"), "r"));
    assert_eq!(handles, [1000, 1001, 1002]);
    first.done("guest-file-close", json!({ "handle": 1001 }));
    first.agent.end(Signal::SIGKILL).unwrap();
    assert_eq!(fs::read_to_string(state.join("qga.state")).unwrap(), "[global]\nfd_counter=1003\n");

    let mut second = start();
    for handle in handles {
        let want = format!("handle '{handle}' has not been found");
        assert_eq!(second.refused("guest-file-read", json!({ "handle": handle })), want);
    }
    assert_eq!(second.open(Path::new("/dev/null"), "r"), 1003);
    second.agent.end(Signal::SIGTERM).unwrap();

    // As qemu-ga may have left it.
    fs::write(state.join("qga.state"), "[global]\nfd_counter=4711\n").unwrap();
    assert_eq!(start().open(Path::new("/dev/null"), "r"), 4711);
}

/// An agent that was told where to keep its state.
fn keeping_state_in(folder: &Path) -> Agent {
    Agent::on_unix_with(&["--statedir", folder.to_str().unwrap()]).unwrap()
}

#[test]
fn handles_belong_to_the_guest_and_not_to_a_connection() {
    let mut pair = Pair::new();
    let handle = pair.open(Path::new("/proc/self/comm"), "r");
    pair.host = pair.agent.connect().unwrap_or_else(|e| panic!("{e}"));
    // The first host's connection is closed by that, and the second one is served.
    assert_eq!(pair.read(handle, 100).0.last(), Some(&b'\n'));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_warning_and_no_number_is_given_twice() {
    let open = || {
        let agent = keeping_state_in(Path::new("/proc/nowhere"));
        let mut host = agent.connect().unwrap();
        let request = json!({ "execute": "guest-file-open", "arguments": { "path": "/dev/null" } });
        let reply = host.call(&request).unwrap();
        let log = agent.log();
        assert_eq!(log.lines().filter(|line| line.contains("/proc/nowhere")).count(), 1, "{log}");
        reply["return"].as_i64().unwrap_or_else(|| panic!("{reply}"))
    };
    let (first, second) = (open(), open());
    assert!(second > first && first >= 1000, "{first}, {second}");
}

#[test]
fn more_than_256_files_are_open_at_once_and_then_there_are_too_many() {
    many_files(Pair::new());
}

#[test]
fn a_low_limit_of_descriptors_is_raised_as_far_as_it_goes() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 64; exec \"$@\"", "sh"]).arg(paths::agent_binary().unwrap());
    many_files(Pair::with(Agent::on_unix_by(command, &[]).unwrap()));
}

fn many_files(mut pair: Pair) {
    let mut handles = Vec::new();
    let refused = loop {
        let reply = pair.call("guest-file-open", json!({ "path": "/dev/null" }));
        match reply["return"].as_i64() {
            Some(handle) => handles.push(handle),
            None => break error_text(&reply).to_owned(),
        }
        assert!(handles.len() < 2000, "without end");
    };
    assert!(handles.len() >= 300, "only {}", handles.len());
    assert_eq!(refused, "failed to open file '/dev/null' (mode: 'r'): Too many open files");
    // The agent itself still has descriptors: for the next host, which can make room.
    pair.host = pair.agent.connect().unwrap();
    for handle in &handles[..2] {
        pair.done("guest-file-close", json!({ "handle": handle }));
    }
    let next = pair.open(Path::new("/dev/null"), "r");
    assert!(handles.iter().all(|handle| *handle < next), "{next}");
    for handle in &handles[2..] {
        pair.done("guest-file-close", json!({ "handle": handle }));
    }
    assert!(pair.agent.settle().unwrap().rss_anon_kib <= BUSY_KIB);
}

#[test]
fn a_pipe_without_a_partner_holds_nobody_up() {
    let mut pair = Pair::new();
    let path = pair.agent.file("pipe");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert_eq!(
        pair.refused("guest-file-open", json!({ "path": path, "mode": "w" })),
        format!("failed to open file '{}' (mode: 'w'): No such device or address", path.display())
    );
    let handle = pair.open(&path, "r");
    assert_eq!(pair.read(handle, 10), (vec![], true));
    let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let nothing = "failed to read file: Resource temporarily unavailable";
    assert_eq!(pair.refused("guest-file-read", json!({ "handle": handle })), nothing);
    writer.write_all(b"hello").unwrap();
    // The reference drops these bytes and reports the pause behind them.
    assert_eq!(pair.read(handle, 10), (b"hello".to_vec(), false));
    assert_eq!(pair.refused("guest-file-read", json!({ "handle": handle })), nothing);
    drop(writer);
    assert_eq!(pair.read(handle, 10), (vec![], true));
    let seek = json!({ "handle": handle, "offset": 0, "whence": 0 });
    assert_eq!(pair.refused("guest-file-seek", seek), "failed to seek file: Illegal seek");

    // Into one that is full: as much as it takes, then an error.
    let reader = pair.open(&path, "r");
    let writer = pair.open(&path, "w");
    let text = base64_encode([7; 150_000]);
    let written = pair.done("guest-file-write", json!({ "handle": writer, "buf-b64": text }));
    let written = written["count"].as_u64().unwrap() as usize;
    assert!((4096..150_000).contains(&written), "{written}");
    let full = pair.refused("guest-file-write", json!({ "handle": writer, "buf-b64": text }));
    assert_eq!(full, "failed to write to file: Resource temporarily unavailable");
    assert_eq!(pair.read(reader, 1 << 20).0.len(), written);
}

#[test]
fn a_full_disk_is_told() {
    let mut pair = Pair::new();
    let handle = pair.open(Path::new("/dev/full"), "w");
    let refused = pair.refused("guest-file-write", json!({ "handle": handle, "buf-b64": "AAAA" }));
    assert_eq!(refused, "failed to write to file: No space left on device");
}

#[test]
fn a_large_file_goes_out_in_one_reply_and_leaves_no_memory_behind() {
    let mut pair = Pair::new();
    let (path, bytes) = (pair.agent.file("large"), noise(9 << 20));
    fs::write(&path, &bytes).unwrap();
    let handle = pair.open(&path, "r");
    assert!(pair.read(handle, 48 << 20) == (bytes, true));
    pair.done("guest-file-close", json!({ "handle": handle }));
    let status = pair.agent.settle().unwrap();
    assert!(status.rss_anon_kib <= BUSY_KIB, "{status:?}");
}

/// Open, seek, read in pieces of 1 MiB until `eof`, close; open `wb`, write at most 60 KiB, close: each command on a
/// connection of its own, behind a sync.
#[test]
fn proxmox_reads_and_writes_a_file_its_way() {
    let agent = Agent::on_unix().unwrap();
    let command = |name: &str, arguments: Value| {
        asked_by_proxmox(&agent, &format!("guest-file-{name}"), arguments)["return"].clone()
    };

    let (path, bytes) = (agent.file("config"), noise(60 << 10));
    let handle = command("open", json!({ "path": path, "mode": "wb" }));
    let written = command("write", json!({ "handle": handle, "buf-b64": base64_encode(&bytes) }));
    assert_eq!(written["count"], bytes.len());
    command("close", json!({ "handle": handle }));
    assert!(fs::read(&path).unwrap() == bytes);

    let (path, bytes) = (agent.file("large"), noise(3_500_000));
    fs::write(&path, &bytes).unwrap();
    let handle = command("open", json!({ "path": path, "mode": "rb" }));
    command("seek", json!({ "handle": handle, "offset": 0, "whence": "set" }));
    let mut got = Vec::new();
    loop {
        let part = command("read", json!({ "handle": handle, "count": 1 << 20 }));
        got.extend(base64_decode(part["buf-b64"].as_str().unwrap()));
        if part["eof"] == true {
            break;
        }
    }
    command("close", json!({ "handle": handle }));
    assert!(got == bytes);
}

#[test]
fn where_the_agent_may_have_few_descriptors_at_most_the_limit_is_told() {
    let mut command = paths::agent_command().unwrap();
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        use std::os::unix::process::CommandExt;
        command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NOFILE, 40, 40)?));
    }
    let mut pair = Pair::with(Agent::on_unix_by(command, &[]).unwrap());
    let mut opened = 0;
    let refused = loop {
        let reply = pair.call("guest-file-open", json!({ "path": "/dev/null" }));
        if reply.get("return").is_none() {
            break error_text(&reply).to_owned();
        }
        opened += 1;
        assert!(opened < 100, "without end");
    };
    assert_eq!(refused, "failed to open file '/dev/null' (mode: 'r'): Too many open files");
    assert_eq!(pair.host.ask("guest-ping").unwrap(), json!({}));
}
