//! An agent of this machine and one host of it, for tests that ask for one thing after the other.
//!
//! It knows how a host asks, and of what it may ask the programs only: what must hold is in the tests. What is not as
//! it has to be here fails the test at once.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::client::{Client, base64_decode, error_text};
use crate::wait_for;

/// How long a program may take that ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent and one host of it.
pub struct Pair {
    /// The agent.
    pub agent: Agent,
    /// The host.
    pub host: Client,
}

impl Pair {
    /// A usual agent.
    pub fn new() -> Pair {
        Pair::with(Agent::on_unix().unwrap())
    }

    /// This agent, which listens on its socket.
    pub fn with(agent: Agent) -> Pair {
        let host = agent.connect().unwrap();
        Pair { agent, host }
    }

    /// Asks for a command; the whole reply.
    #[track_caller]
    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        self.host.call(&json!({ "execute": command, "arguments": arguments })).unwrap()
    }

    /// Asks for a command that goes well; what it returns.
    #[track_caller]
    pub fn done(&mut self, command: &str, arguments: Value) -> Value {
        let reply = self.call(command, arguments);
        reply.get("return").unwrap_or_else(|| panic!("{command}: {reply}")).clone()
    }

    /// Asks for a command that fails; why.
    #[track_caller]
    pub fn refused(&mut self, command: &str, arguments: Value) -> String {
        error_text(&self.call(command, arguments)).to_owned()
    }

    /// Starts a program; its number.
    #[track_caller]
    pub fn start(&mut self, arguments: Value) -> i64 {
        self.done("guest-exec", arguments)["pid"].as_i64().unwrap()
    }

    /// The status of a program, once it has ended.
    #[track_caller]
    pub fn end(&mut self, pid: i64) -> Ended {
        let status = wait_for("the end of a program", PATIENCE, || {
            let status = self.done("guest-exec-status", json!({ "pid": pid }));
            assert!(status["exited"].is_boolean(), "{status}");
            Ok((status["exited"] == true).then_some(status))
        })
        .unwrap();
        let data = |name: &str| base64_decode(status[name].as_str().unwrap_or_default());
        Ended { out: data("out-data"), errors: data("err-data"), status }
    }

    /// Runs a program to its end.
    #[track_caller]
    pub fn run(&mut self, arguments: Value) -> Ended {
        let pid = self.start(arguments);
        self.end(pid)
    }

    /// Runs a line of shell and keeps what it writes.
    #[track_caller]
    pub fn shell(&mut self, line: &str) -> Ended {
        self.run(json!({ "path": "/bin/sh", "arg": ["-c", line], "capture-output": true }))
    }
}

impl Default for Pair {
    fn default() -> Self {
        Pair::new()
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// All that was told.
    pub status: Value,
    /// What was kept of its standard output.
    pub out: Vec<u8>,
    /// What was kept of its standard error.
    pub errors: Vec<u8>,
}

impl Ended {
    /// Its standard output, if that is text.
    pub fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }
}

/// Ends a program, or with a number below 0 a group of them.
pub fn end_program(pid: i64) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
}

/// Asks as Proxmox VE does: each time on a connection of its own, behind a sync.
#[track_caller]
pub fn asked_by_proxmox(agent: &Agent, command: &str, arguments: Value) -> Value {
    let mut host = agent.connect().unwrap();
    let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": 17 } });
    let request = json!({ "execute": command, "arguments": arguments });
    host.send(format!("{sync}\n{request}\n")).unwrap();
    assert_eq!(host.line().unwrap(), b"\xff{\"return\":17}");
    host.reply().unwrap()
}
