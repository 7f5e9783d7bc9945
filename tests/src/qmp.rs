//! QEMU's control socket: commands, and events waited for in the order they come.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::client::Client;

/// A connection to QMP, past its handshake.
pub struct Qmp {
    client: Client,
    /// Came while something else was waited for.
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects once QEMU listens.
    pub fn connect(path: &Path) -> Result<Qmp> {
        let client = crate::wait_for("QMP", Duration::from_secs(20), || Ok(Client::connect(path).ok()))?;
        let mut qmp = Qmp { client, events: VecDeque::new() };
        qmp.client.reply().context("QMP's greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.client.send(format!("{request}\n"))?;
        loop {
            let mut reply = self.client.reply()?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if reply.get("event").is_none() {
                bail!("QMP: {request} answered {reply}");
            }
            self.events.push_back(reply);
        }
    }

    /// Waits for an event of this name; others before it are dropped.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name {
                    return Ok(event);
                }
            }
            let before = self.client.patience;
            self.client.patience = deadline.saturating_duration_since(Instant::now());
            let line = self.client.reply();
            self.client.patience = before;
            self.events.push_back(line.with_context(|| format!("waiting for QEMU's event {name}"))?);
        }
    }
}
