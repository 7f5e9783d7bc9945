//! The command line, start and end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;
use std::time::{Duration, Instant};

use nanoga_tests::agent::{self, Agent};
use nanoga_tests::paths;
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn help_is_printed_and_names_every_option() {
    for option in ["-h", "--help"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        for letter in "mplfFtvVdbaDrhc".chars() {
            assert!(text.contains(&format!("  -{letter}, --")), "no -{letter} in {text}");
        }
        for word in [
            "--method",
            "--path",
            "--logfile",
            "--pidfile",
            "--fsfreeze-hook",
            "--statedir",
            "--verbose",
            "--version",
            "--daemonize",
            "--block-rpcs",
            "--allow-rpcs",
            "--dump-conf",
            "--retry-path",
            "--help",
            "--config",
            "--max-request",
            "--freeze-timeout",
            "--ignore-interfaces",
            "--limits",
        ] {
            assert!(text.contains(word), "no {word} in {text}");
        }
        for word in ["virtio-serial", "isa-serial", "unix-listen"] {
            assert!(text.contains(word), "no {word} in {text}");
        }
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn limits_are_printed_with_what_happens_beyond_them() {
    let output = run(&["--limits"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = text.lines().skip(2).collect();
    assert!(rows.len() >= 5, "{text}");
    for row in rows {
        let (bound, what) = row.trim_start().split_once(' ').unwrap();
        assert!(bound.parse::<u64>().is_ok_and(|bound| bound > 0), "{row}");
        assert!(what.contains("; "), "{row}");
    }
    assert!(text.contains("262144 bytes of a request (--max-request); a longer one is refused\n"), "{text}");
}

#[test]
fn the_version_is_printed() {
    for option in ["-V", "--version"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("nanoga") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn what_is_wrong_with_the_command_line_is_said_in_one_line_and_ends_with_1() {
    let more = "try --help";
    says(&["-x"], &format!("unknown option '-x', {more}"));
    says(&["-vx"], &format!("unknown option '-vx', {more}"));
    says(&["--nonsense"], &format!("unknown option '--nonsense', {more}"));
    // Both --verbose and --version begin like this.
    says(&["--ver"], &format!("unknown option '--ver', {more}"));
    says(&["-m"], &format!("option '-m' needs a value, {more}"));
    says(&["--path"], &format!("option '--path' needs a value, {more}"));
    says(&["-c"], &format!("option '-c' needs a value, {more}"));
    says(&["--verbose=yes"], "option '--verbose=yes' takes no value");
    let methods = "it must be virtio-serial, isa-serial, unix-listen or vsock-listen";
    says(&["-m", "carrier-pigeon"], &format!("unknown method 'carrier-pigeon': {methods}"));
    says(&["-m", "unix-listen"], "method 'unix-listen' needs -p PATH, 'vsock-listen' -p CID:PORT");
    says(&["-misa-serial"; 5], "too many channels: 'isa-serial'");
    for (option, bounds) in [("--max-request", "1024 to 262144"), ("--freeze-timeout", "1 to 86400")] {
        for value in ["", "0", "1x", "262145", "99999999999999999999", "18446744073709551617"] {
            let want = format!("{option} must be a number from {bounds}, not '{value}'");
            says(&[option, value], &want);
        }
    }
    // What a terminal would obey is shown, not sent to it.
    says(&["-\n\x1b[2Jb"], &format!("unknown option '-\\x0a\\x1b[2Jb', {more}"));
}

#[test]
fn a_missing_device_is_said_in_one_line_and_ends_with_1() {
    refused(&["-m", "isa-serial", "-p", "/nowhere/ttyS0"], "/nowhere/ttyS0");
    refused(&["-m", "virtio-serial", "-p", "/nowhere/port"], "/nowhere/port");
    refused(&["-m", "unix-listen", "-p", "/nowhere/qga.sock"], "/nowhere/qga.sock");
    let long = format!("/{}", "x".repeat(200));
    refused(&["-m", "unix-listen", "-p", &long], "xxx");
}

#[test]
fn what_is_no_port_is_said_within_a_second_in_one_line_and_ends_with_1() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_str().unwrap(), "/dev/null", "/tmp"] {
        let start = Instant::now();
        refused(&["-m", "virtio-serial", "-p", path], path);
        assert!(start.elapsed() < Duration::from_secs(1), "{path}: {:?}", start.elapsed());
    }
    refused(&["-m", "isa-serial", "-p", "/dev/null"], "/dev/null");
}

#[test]
fn the_readme_lists_exactly_the_commands_of_guest_info() {
    let readme = fs::read_to_string(paths::workspace_dir().join("README.md")).unwrap();
    let first_cells = readme.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let mut listed: Vec<&str> = first_cells.map(|cell| cell.trim_matches([' ', '`'])).collect();
    listed.retain(|cell| cell.starts_with("guest-"));

    let info = Agent::on_unix().unwrap().connect().unwrap().ask("guest-info").unwrap();
    let commands = info["supported_commands"].as_array().unwrap();
    let mut there: Vec<&str> = commands.iter().map(|command| command["name"].as_str().unwrap()).collect();
    listed.sort_unstable();
    there.sort_unstable();
    assert_eq!(listed, there);
}

#[test]
fn long_and_glued_options_mean_the_same() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let args = ["--method=unix-listen", &format!("--path={}", socket.display()), "--verbose"];
    let agent = Agent::start_in(dir, &args).unwrap();
    agent.wait_for_socket(&agent.socket()).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));

    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let args = ["-vmunix-listen", &format!("-p{}", socket.display())];
    let agent = Agent::start_in(dir, &args).unwrap();
    agent.wait_for_socket(&agent.socket()).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn sigterm_and_sigint_end_it_with_status_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::on_unix().unwrap();
        assert_eq!(agent.end(signal).unwrap().code(), Some(0), "{signal}");

        let mut agent = Agent::on_unix().unwrap();
        let mut host = agent.connect().unwrap();
        host.ask("guest-ping").unwrap();
        assert_eq!(agent.end(signal).unwrap().code(), Some(0), "{signal}, connected");
        host.expect_end().unwrap();
    }
}

#[test]
fn a_host_that_hangs_up_kills_nothing() {
    let mut agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.send("{\"execute\":\"guest-info\"}\n".repeat(100)).unwrap();
    drop(host);
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
    agent.expect_alive().unwrap();
}

#[test]
fn it_is_quiet_unless_asked_to_talk() {
    let mut agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    host.send("nonsense\n").unwrap();
    host.reply().unwrap();
    agent.end(Signal::SIGTERM).unwrap();
    assert_eq!(agent.log(), "");

    let mut agent = Agent::on_unix_with(&["-v"]).unwrap();
    agent.connect().unwrap().sync_delimited().unwrap();
    agent.end(Signal::SIGTERM).unwrap();
    assert_ne!(agent.log(), "");
}

#[test]
fn the_file_is_one_static_program_without_interpreter() {
    let path = paths::agent_binary().unwrap();
    let file = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(fs::metadata(&path).unwrap().size(), file.len() as u64);
    assert_eq!(&file[..4], b"\x7fELF");
    // e_type: ET_EXEC; then the program headers: neither PT_INTERP nor PT_DYNAMIC.
    let half = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let headers = u64::from_le_bytes(file[32..40].try_into().unwrap()) as usize;
    for number in 0..usize::from(half(56)) {
        let kind = word(headers + number * usize::from(half(54)));
        assert!(kind != 2 && kind != 3, "program header {number} is of type {kind}");
    }
}

/// Runs the agent where it should end by itself.
#[track_caller]
fn run(args: &[&str]) -> Output {
    agent::run(paths::agent_command().unwrap().env("QGA_CONF", "/nowhere/qemu-ga.conf").args(args)).unwrap()
}

/// It ends with this and nothing else.
fn says(args: &[&str], what: &str) {
    assert_eq!(refused(args, ""), format!("nanoga: {what}\n"), "{args:?}");
}

fn refused(args: &[&str], names: &str) -> String {
    let output = run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(said.ends_with('\n'), "{args:?}: {said}");
    assert!(said.contains(names), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
    said
}
