//! isa-serial, on a pseudo terminal.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::time::Duration;

use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::wait_for;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SpecialCharacterIndices, Termios, tcgetattr,
};
use serde_json::json;
use tempfile::TempDir;

/// An agent on a pty, and the host at the other end.
struct Line {
    agent: Agent,
    host: Client,
    slave: Option<File>,
}

#[test]
fn the_line_is_raw_and_local() {
    let line = Line::new();
    line.wait_until_raw();
    let termios = line.termios();
    let cleared = InputFlags::IGNBRK
        | InputFlags::BRKINT
        | InputFlags::IGNPAR
        | InputFlags::PARMRK
        | InputFlags::INPCK
        | InputFlags::ISTRIP
        | InputFlags::INLCR
        | InputFlags::IGNCR
        | InputFlags::ICRNL
        | InputFlags::IXON
        | InputFlags::IXOFF
        | InputFlags::IXANY
        | InputFlags::IMAXBEL;
    assert_eq!(termios.input_flags & cleared, InputFlags::empty());
    assert_eq!(termios.output_flags, OutputFlags::empty());
    assert_eq!(termios.local_flags, LocalFlags::empty());
    assert!(termios.control_flags.contains(ControlFlags::CLOCAL | ControlFlags::CREAD | ControlFlags::CS8));
    assert_eq!(termios.control_chars[SpecialCharacterIndices::VMIN as usize], 1);
    assert_eq!(termios.control_chars[SpecialCharacterIndices::VTIME as usize], 0);
}

#[test]
fn a_session_works_as_on_any_channel() {
    let mut line = Line::new();
    line.wait_until_raw();
    line.host.send(r#"{"execute": "guest-pi"#).unwrap();
    assert_eq!(line.host.sync_delimited().unwrap(), [""; 0]);
    assert!(line.host.ask("guest-info").unwrap()["version"].is_string());
    // Control characters a cooked terminal would act on.
    let id = "\u{3}\u{4}\u{11}\u{13}\u{1a}\r\n\u{7f}";
    let reply = line.host.call(&json!({ "execute": "guest-ping", "id": id })).unwrap();
    assert_eq!(reply, json!({ "return": {}, "id": id }));
    line.host.expect_silence(Duration::from_millis(200)).unwrap();
}

#[test]
fn many_long_replies_arrive_whole_through_the_small_buffer_of_a_tty() {
    let mut line = Line::new();
    line.wait_until_raw();
    line.host.sync_delimited().unwrap();
    let first = line.host.ask("guest-info").unwrap();
    for _ in 0..100 {
        line.host.send("{\"execute\":\"guest-info\"}\n".repeat(10)).unwrap();
        for _ in 0..10 {
            assert_eq!(line.host.reply().unwrap()["return"], first);
        }
    }
}

#[test]
fn a_line_that_hangs_up_is_waited_for_without_spinning_and_opened_again() {
    let mut line = Line::new();
    line.wait_until_raw();
    line.host.sync_delimited().unwrap();
    for _ in 0..2 {
        line.host.send(r#"{"execute": "guest-pi"#).unwrap();
        line.agent.settle().unwrap();
        line.hang_up();
        let before = line.agent.settle().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert!(line.agent.status().unwrap().switches - before.switches <= 2, "it spins");
        assert!(line.agent.cpu_ticks().unwrap() <= 5, "it has been spinning");

        line.come_back();
        line.wait_until_raw();
        // No 0xFF: what the old line left behind is gone.
        assert_eq!(line.host.ask("guest-ping").unwrap(), json!({}));
    }
    line.hang_up();
    assert_eq!(line.agent.end(Signal::SIGTERM).unwrap().code(), Some(0));
    assert_eq!(line.agent.log(), "");
}

impl Line {
    /// The agent opens the line by a name of its own: the kernel gives the number of a pty that is gone to the next
    /// one, which may be another test's.
    fn new() -> Line {
        let dir = TempDir::new().unwrap();
        let name = dir.path().join("tty");
        let (host, slave, path) = pty();
        symlink(path, &name).unwrap();
        let agent = Agent::start_in(dir, &["-m", "isa-serial", "-p", name.to_str().unwrap()]).unwrap();
        Line { agent, host, slave: Some(slave) }
    }

    /// The device goes away for good.
    fn hang_up(&mut self) {
        std::fs::remove_file(self.agent.file("tty")).unwrap();
        self.slave = None;
        self.host = Client::new(File::open("/dev/null").unwrap()).unwrap();
    }

    /// Another one has the same name.
    fn come_back(&mut self) {
        let (host, slave, path) = pty();
        self.host = host;
        symlink(path, self.agent.file("tty")).unwrap();
        self.slave = Some(slave);
    }

    /// The agent has set up the line once it no longer echoes.
    fn wait_until_raw(&self) {
        wait_for("a raw line", Duration::from_secs(20), || {
            let termios = self.termios();
            Ok((!termios.local_flags.contains(LocalFlags::ECHO)).then_some(()))
        })
        .unwrap_or_else(|e| panic!("{e:#}: {}", self.agent.log()));
    }

    fn termios(&self) -> Termios {
        tcgetattr(self.slave.as_ref().unwrap()).unwrap()
    }
}

/// The two ends of a pseudo terminal, and the slave's path. No process that is started meanwhile inherits them: the
/// line hangs up when we close it.
fn pty() -> (Client, File, String) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname_r(&master).unwrap();
    let slave = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path).unwrap();
    (Client::new(master).unwrap(), slave, path)
}
