//! Life in the background: the way there, the pid file, and signals that come early.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nanoga_tests::agent::{self, Agent, inherit};
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
fn a_daemon_logs_to_its_file() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("log.txt");
    let daemon = Daemon::start_in(dir, &["-v", "-l", log.to_str().unwrap()]);
    Client::connect(daemon.file("qga.sock")).unwrap().ask("guest-ping").unwrap();
    assert!(fs::read_to_string(log).unwrap().ends_with(": a host has connected\n"));
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

/// The agent, which gets this signal at this system call, the first of them.
fn interrupted(call: &str, signal: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("inject={call}:signal={signal}:when=1")]);
    command.arg(paths::agent_binary().unwrap());
    command
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
