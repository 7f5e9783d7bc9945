//! Life as a service: in the background with a pid file, a log, sockets that were passed, paths that come later.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nanoga_tests::agent::{self, Agent};
use nanoga_tests::client::Client;
use nanoga_tests::{paths, wait_for};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent in the background, ended with this.
struct Daemon {
    dir: TempDir,
    pid: Pid,
}

#[test]
fn a_daemon_is_on_its_own_and_its_channel_is_open_when_the_parent_ends() {
    let daemon = Daemon::start(&[]);
    // At once, without waiting for anything.
    assert_eq!(Client::connect(daemon.file("qga.sock")).unwrap().ask("guest-ping").unwrap(), json!({}));
    assert_eq!(fs::read_to_string(daemon.file("pid")).unwrap(), format!("{}\n", daemon.pid));
    assert_eq!(getsid(Some(daemon.pid)).unwrap(), daemon.pid);
    assert_eq!(fs::read_link(daemon.proc("cwd")).unwrap(), Path::new("/"));
    for fd in 0..3 {
        assert_eq!(fs::read_link(daemon.proc(&format!("fd/{fd}"))).unwrap(), Path::new("/dev/null"));
    }
    assert_eq!(fs::metadata(daemon.file("pid")).unwrap().permissions().mode() & 0o7022, 0, "others may not write");
    // As in the reference: what programs of a host write is theirs alone, whatever started the agent.
    let status = fs::read_to_string(daemon.proc("status")).unwrap();
    assert!(status.lines().any(|line| line == "Umask:\t0077"), "{status}");
}

#[test]
fn its_pid_file_goes_with_it() {
    let daemon = Daemon::start(&[]);
    kill(daemon.pid, Signal::SIGTERM).unwrap();
    daemon.wait_for_end();
    assert!(!daemon.file("pid").exists());
}

#[test]
fn it_keeps_nothing_of_what_it_inherited_but_its_sockets() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 4</dev/zero 9</dev/zero"]);
    inherit(shell.arg(paths::agent_binary().unwrap()), &[&listener]);
    let daemon = Daemon::start_by(shell, dir, &[]);
    assert_eq!(Client::connect(&path).unwrap().ask("guest-ping").unwrap(), json!({}));
    let open = fs::read_dir(daemon.proc("fd")).unwrap().map(|fd| fs::read_link(fd.unwrap().path()).unwrap());
    let open: Vec<PathBuf> = open.collect();
    assert!(open.len() > 3 && !open.iter().any(|file| file == Path::new("/dev/zero")), "{open:?}");
    assert!(fs::read_link(daemon.proc("fd/3")).unwrap().to_str().unwrap().starts_with("socket:"), "{open:?}");
}

#[test]
fn a_signal_that_comes_while_it_goes_into_the_background_ends_it_in_order() {
    for signal in ["SIGTERM", "SIGINT"] {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("qga.sock");
        let args = ["-d", "-m", "unix-listen", "-p", socket.to_str().unwrap()];
        let output = run_by(interrupted("setsid", signal), &dir, &args);
        assert_eq!(output.status.code(), Some(0), "{signal}");
        assert!(socket.exists() && !dir.path().join("pid").exists(), "{signal}");
    }
}

#[test]
fn a_signal_that_comes_as_soon_as_hosts_can_connect_ends_it_with_status_0() {
    for signal in ["SIGTERM", "SIGINT"] {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("qga.sock");
        let output =
            run_by(interrupted("listen", signal), &dir, &["-m", "unix-listen", "-p", socket.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{signal}");
        assert!(socket.exists(), "{signal}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_is_not_disturbed() {
    let daemon = Daemon::start(&[]);
    let other = daemon.file("other.sock");
    let output = run(&daemon.dir, &["-d", "-m", "unix-listen", "-p", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let want = format!("nanoga: pid file '{}': another agent is running\n", daemon.file("pid").display());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), want);
    assert!(!other.exists());
    assert_eq!(fs::read_to_string(daemon.file("pid")).unwrap(), format!("{}\n", daemon.pid));
}

#[test]
fn qemus_own_agent_is_another_agent_and_so_are_we() {
    // It takes its lock by lockf(3), as this does.
    let dir = TempDir::new().unwrap();
    let file = File::create(dir.path().join("pid")).unwrap();
    let lock = libc_flock();
    fcntl(&file, FcntlArg::F_SETLK(&lock)).unwrap();
    let socket = dir.path().join("qga.sock");
    let output = run(&dir, &["-d", "-m", "unix-listen", "-p", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    drop(file);

    let daemon = Daemon::start(&[]);
    let file = File::options().write(true).open(daemon.file("pid")).unwrap();
    assert!(fcntl(&file, FcntlArg::F_SETLK(&lock)).is_err(), "it could lock it too");
}

#[test]
fn a_pid_file_left_behind_is_taken_over() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pid"), "1234567890123\n").unwrap();
    let daemon = Daemon::start_in(dir, &[]);
    assert_eq!(fs::read_to_string(daemon.file("pid")).unwrap(), format!("{}\n", daemon.pid));
}

#[test]
fn a_pid_file_that_is_a_link_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "data").unwrap();
    symlink(&precious, dir.path().join("pid")).unwrap();
    let socket = dir.path().join("qga.sock");
    let output = run(&dir, &["-d", "-m", "unix-listen", "-p", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Too many levels of symbolic links"));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
}

#[test]
fn where_a_channel_cannot_be_opened_there_is_no_daemon_and_no_pid_file() {
    let dir = TempDir::new().unwrap();
    let output = run(&dir, &["-d", "-m", "unix-listen", "-p", "/nowhere/qga.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "nanoga: /nowhere/qga.sock: No such file or directory\n");
    assert!(!dir.path().join("pid").exists());
}

#[test]
fn in_the_foreground_there_is_no_pid_file() {
    let dir = TempDir::new().unwrap();
    let pid = dir.path().join("pid");
    let agent = Agent::on_unix_with(&["-f", pid.to_str().unwrap()]).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
    assert!(!pid.exists());
}

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
    let output = run(&dir, &args);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "nanoga: /nowhere/log: No such file or directory\n");
}

#[test]
fn a_daemon_logs_to_its_file() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log.txt");
    let daemon = Daemon::start_in(dir, &["-v", "-l", log.to_str().unwrap()]);
    Client::connect(daemon.file("qga.sock")).unwrap().ask("guest-ping").unwrap();
    assert!(fs::read_to_string(log).unwrap().ends_with(": a host has connected\n"));
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

impl Daemon {
    fn start(more: &[&str]) -> Daemon {
        Daemon::start_in(TempDir::new().unwrap(), more)
    }

    /// The parent's end is waited for, and nothing else.
    fn start_in(dir: TempDir, more: &[&str]) -> Daemon {
        Daemon::start_by(Command::new(paths::agent_binary().unwrap()), dir, more)
    }

    /// The same, started by another program.
    fn start_by(program: Command, dir: TempDir, more: &[&str]) -> Daemon {
        let socket = dir.path().join("qga.sock");
        let args = [&["--daemonize", "-m", "unix-listen", "-p", socket.to_str().unwrap()], more].concat();
        let output = run_by(program, &dir, &args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said, "");
        let text = fs::read_to_string(dir.path().join("pid")).unwrap();
        Daemon { dir, pid: Pid::from_raw(text.trim().parse().unwrap()) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.pid).into()
    }

    fn wait_for_end(&self) {
        // Whoever adopts it may take a moment to collect it.
        let ended = || match fs::read_to_string(self.proc("stat")) {
            Ok(stat) => Ok(stat.contains(") Z ").then_some(())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(())),
            Err(e) => Err(e.into()),
        };
        wait_for("the daemon's end", PATIENCE, ended).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only if it is still ours: numbers are used again.
        let program = paths::agent_binary().and_then(|path| Ok(path.canonicalize()?));
        if program.is_ok_and(|path| fs::read_link(self.proc("exe")).is_ok_and(|exe| exe == path)) {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Runs an agent whose first process ends by itself.
#[track_caller]
fn run(dir: &TempDir, args: &[&str]) -> Output {
    run_by(Command::new(paths::agent_binary().unwrap()), dir, args)
}

/// The same, started by another program.
#[track_caller]
fn run_by(mut command: Command, dir: &TempDir, args: &[&str]) -> Output {
    command.env("QGA_CONF", dir.path().join("no-configuration"));
    command.args(args).arg("-f").arg(dir.path().join("pid")).arg("-t").arg(dir.path());
    agent::run(&mut command).unwrap()
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

/// The agent, which gets this signal at this system call, the first of them.
fn interrupted(call: &str, signal: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("inject={call}:signal={signal}:when=1")]);
    command.arg(paths::agent_binary().unwrap());
    command
}

/// Has a command inherit these descriptors, as numbers 3 and up.
fn inherit(command: &mut Command, sockets: &[&dyn AsRawFd]) {
    // Far above those they become.
    let high: Vec<RawFd> = sockets.iter().map(|socket| dup_above(socket.as_raw_fd(), 100)).collect();
    // SAFETY: between fork and exec only dup2(2) is called.
    unsafe {
        command.pre_exec(move || {
            for (number, fd) in high.iter().enumerate() {
                let number = RawFd::try_from(number).map_err(|_| ErrorKind::InvalidInput)?;
                // The copy has no FD_CLOEXEC.
                if nix::libc::dup2(*fd, 3 + number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// A copy of a descriptor that no program inherits. It is left open: a test has few.
fn dup_above(fd: RawFd, least: RawFd) -> RawFd {
    // SAFETY: no memory is involved.
    unsafe { nix::libc::fcntl(fd, nix::libc::F_DUPFD_CLOEXEC, least) }
}

/// A lock of a whole file, for writing.
fn libc_flock() -> nix::libc::flock {
    nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
