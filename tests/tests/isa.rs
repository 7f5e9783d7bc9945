//! isa-serial, on a pseudo terminal.

use std::time::Duration;

use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::wait_for;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SpecialCharacterIndices, Termios, tcgetattr,
};
use nix::unistd::ttyname;
use serde_json::json;
use tempfile::TempDir;

/// An agent on a pty, and the host at the other end.
struct Line {
    agent: Agent,
    host: Client,
    slave: std::os::fd::OwnedFd,
}

#[test]
fn the_line_is_raw_and_local() {
    let line = Line::new();
    line.wait_until_raw();
    let termios = tcgetattr(&line.slave).unwrap();
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
fn a_line_that_hangs_up_does_not_make_it_spin() {
    let mut line = Line::new();
    line.wait_until_raw();
    line.host.sync_delimited().unwrap();
    let Line { mut agent, host, slave } = line;
    drop(slave);
    drop(host);
    // The device is gone for good. It may end, saying so, or wait; it may not turn in circles.
    let before = agent.cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    if agent.expect_alive().is_ok() {
        assert!(agent.cpu_ticks().unwrap() - before.unwrap() <= 2, "it spins");
        let before = agent.settle().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert!(agent.status().unwrap().switches - before.switches <= 2, "it spins");
        assert_eq!(agent.end(Signal::SIGTERM).unwrap().code(), Some(0));
    } else {
        assert_ne!(agent.log(), "", "it ended without a word");
    }
}

impl Line {
    fn new() -> Line {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let path = ttyname(&slave).unwrap();
        let args = ["-m", "isa-serial", "-p", path.to_str().unwrap()];
        let agent = Agent::start_in(TempDir::new().unwrap(), &args).unwrap();
        Line { agent, host: Client::new(master).unwrap(), slave }
    }

    /// The agent has set up the line once it no longer echoes.
    fn wait_until_raw(&self) {
        wait_for("a raw line", Duration::from_secs(20), || {
            let termios: Termios = tcgetattr(&self.slave)?;
            Ok((!termios.local_flags.contains(LocalFlags::ECHO)).then_some(()))
        })
        .unwrap_or_else(|e| panic!("{e:#}: {}", self.agent.log()));
    }
}
