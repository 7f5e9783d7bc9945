//! A network namespace: the agent runs in it, `ip` shows what it should see. Needs no root where user namespaces
//! are allowed.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::paths;

/// An agent on a unix socket in a namespace of its own, and `ip` beside it.
pub struct Netns {
    /// The agent in it.
    pub agent: Agent,
}

impl Netns {
    /// Makes a namespace, runs `setup` (lines for `ip -batch`) in it, and starts the agent there.
    pub fn new(setup: &str) -> Result<Netns> {
        Netns::with(setup, &[])
    }

    /// The same, with more arguments for the agent.
    pub fn with(setup: &str, more: &[&str]) -> Result<Netns> {
        let dir = TempDir::new()?;
        std::fs::write(dir.path().join("setup"), setup)?;
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--net", "sh", "-ec"]);
        command.arg(
            "cd \"$1\"; ip -batch setup; dir=$1; shift; \
             exec \"$0\" -m unix-listen -p \"$dir/qga.sock\" -t \"$dir\" \"$@\"",
        );
        command.arg(paths::agent_binary()?).arg(dir.path()).args(more);
        let agent = Agent::spawn(dir, command)?;
        agent.wait_for_socket(&agent.socket())?;
        Ok(Netns { agent })
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.run("ip", args)
    }

    /// Runs a program in the namespace; what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--target", &self.agent.pid().to_string(), program]);
        let output = command.args(args).output().context("nsenter")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {args:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `ip -j addr` says.
    pub fn ip_addr(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ip(&["-json", "addr"])?)?)
    }
}
