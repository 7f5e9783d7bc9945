//! Life as a service: a log, sockets that were passed, paths that come later.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use nanoga_tests::agent::{self, Agent, inherit};
use nanoga_tests::client::Client;
use nanoga_tests::{paths, wait_for};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_log_has_a_line_for_what_hosts_open_and_none_for_what_they_ask() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log.txt");
    let agent = Agent::on_unix_with(&["-l", log.to_str().unwrap()]).unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    for command in ["guest-ping", "guest-info", "guest-network-get-interfaces"] {
        host.ask(command).unwrap();
    }
    host.call(&json!({ "execute": "guest-nonsense" })).unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "");

    let evil = "/nowhere/\"x\n1.000000: info: forged \u{1b}[2J\u{e4}\\";
    let open = json!({ "execute": "guest-file-open", "arguments": { "path": evil, "mode": "rb" } });
    host.call(&open).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let (time, rest) = text.split_once(": ").unwrap();
    assert_eq!(
        rest,
        "info: guest-file-open called: \
         \"/nowhere/\\x22x\\x0a1.000000: info: forged \\x1b[2J\\xc3\\xa4\\x5c\", \"rb\"\n"
    );
    let (seconds, micros) = time.split_once('.').unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now + 1).contains(&seconds.parse().unwrap()), "{time}, not about {now}");
    assert_eq!(micros.len(), 6);
    assert!(micros.parse::<u32>().is_ok());
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o077, 0, "nobody else reads it");

    // A file is named once, however often it is read.
    let path = log.to_str().unwrap();
    let open = json!({ "execute": "guest-file-open", "arguments": { "path": path } });
    let handle = host.call(&open).unwrap()["return"].clone();
    let handle = json!({ "handle": handle });
    for command in ["guest-file-read", "guest-file-read", "guest-file-close"] {
        let reply = host.call(&json!({ "execute": command, "arguments": handle })).unwrap();
        assert!(reply["return"].is_object(), "{reply}");
    }
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.ends_with(&format!(": info: guest-file-open called: \"{path}\"\n")), "{text}");
    assert_eq!(agent.log(), "");
}

#[test]
fn a_log_is_appended_to_and_may_be_verbose() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log.txt");
    fs::write(&log, "what was there\n").unwrap();
    let agent = Agent::on_unix_with(&["-v", "-l", log.to_str().unwrap()]).unwrap();
    agent.connect().unwrap().ask("guest-ping").unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("what was there\n"), "{text}");
    assert!(text.ends_with(": a host has connected\n") && text.contains(": info: "), "{text}");
}

#[test]
fn on_standard_error_the_lines_have_no_time() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.call(&json!({ "execute": "guest-file-open", "arguments": { "path": "/nowhere/x" } })).unwrap();
    assert_eq!(agent.log(), "nanoga: guest-file-open called: \"/nowhere/x\"\n");
}

#[test]
fn a_log_that_cannot_be_opened_ends_it() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let args = ["-l", "/nowhere/log", "-m", "unix-listen", "-p", socket.to_str().unwrap()];
    let output =
        agent::run(paths::agent_command().unwrap().args(args).env("QGA_CONF", dir.path().join("none"))).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "nanoga: /nowhere/log: No such file or directory\n");
}

#[test]
fn a_socket_that_was_passed_takes_the_place_of_all_channels() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = with_sockets(dir, &[&listener], "$$", 1, &["-m", "virtio-serial", "-p", "/nowhere/port"]).unwrap();
    drop(listener);
    for _ in 0..3 {
        assert_eq!(Client::connect(&path).unwrap().ask("guest-ping").unwrap(), json!({}));
    }
    assert_eq!(agent.log(), "");
}

#[test]
fn several_sockets_may_be_passed() {
    let dir = TempDir::new().unwrap();
    let [one, two] = ["one.sock", "two.sock"].map(|name| dir.path().join(name));
    let [a, b] = [&one, &two].map(|path| UnixListener::bind(path).unwrap());
    let _agent = with_sockets(dir, &[&a, &b], "$$", 2, &[]).unwrap();
    let mut hosts = [&one, &two].map(|path| Client::connect(path).unwrap());
    for host in &mut hosts {
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = dir.path().join("qga.sock");
    let args = ["-m", "unix-listen", "-p", socket.to_str().unwrap()];
    let agent = with_sockets(dir, &[&listener], "1", 1, &args).unwrap();
    agent.wait_for_socket(&socket).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
    let mut unheard = Client::connect(&path).unwrap();
    unheard.send("{\"execute\":\"guest-ping\"}\n").unwrap();
    unheard.expect_silence(Duration::from_millis(300)).unwrap();
}

#[test]
fn what_was_passed_must_be_a_socket_that_listens() {
    let dir = TempDir::new().unwrap();
    let file = File::create(dir.path().join("file")).unwrap();
    let mut agent = with_sockets(dir, &[&file], "$$", 1, &[]).unwrap();
    assert_eq!(agent.exited().unwrap().code(), Some(1));
    assert_eq!(agent.log(), "nanoga: socket 3: Invalid argument\n");
}

#[test]
fn with_retry_path_a_missing_device_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("later");
    let agent = Agent::start_in(dir, &["-r", "-m", "isa-serial", "-p", path.to_str().unwrap()]).unwrap();
    wait_for("a word about it", PATIENCE, || Ok((!agent.log().is_empty()).then_some(()))).unwrap();
    let want = format!("nanoga: {}: No such file or directory: waiting for it\n", path.display());
    assert_eq!(agent.log(), want);
    let before = agent.settle().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(agent.status().unwrap().switches, before.switches, "it looks again and again");

    let pty = nix::pty::openpty(None, None).unwrap();
    let slave = nix::unistd::ttyname(&pty.slave).unwrap();
    symlink(slave, &path).unwrap();
    let mut host = Client::new(pty.master).unwrap();
    wait_for("the agent to open it", PATIENCE, || {
        let line = nix::sys::termios::tcgetattr(&pty.slave)?;
        Ok(line.local_flags.is_empty().then_some(()))
    })
    .unwrap();
    host.sync_delimited().unwrap();
}

#[test]
fn with_retry_path_even_a_missing_folder_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("later");
    let path = folder.join("qga.sock");
    let mut agent = Agent::start_in(dir, &["-r", "-m", "unix-listen", "-p", path.to_str().unwrap()]).unwrap();
    wait_for("a word about it", PATIENCE, || Ok((!agent.log().is_empty()).then_some(()))).unwrap();
    agent.expect_alive().unwrap();
    fs::create_dir(&folder).unwrap();
    agent.wait_for_socket(&path).unwrap();
    assert_eq!(Client::connect(&path).unwrap().ask("guest-ping").unwrap(), json!({}));
}

/// Starts an agent with these descriptors as numbers 3 and up, as systemd does.
fn with_sockets(
    dir: TempDir,
    sockets: &[&dyn AsRawFd],
    pid: &str,
    count: usize,
    args: &[&str],
) -> anyhow::Result<Agent> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("LISTEN_PID={pid} LISTEN_FDS={count} exec \"$0\" \"$@\"")]);
    inherit(command.arg(paths::agent_binary()?).args(args).arg("-t").arg(dir.path()), sockets);
    Agent::spawn(dir, command)
}
