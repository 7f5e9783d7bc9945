//! The host's side of the protocol: in step first, then one request and one reply at a time.

use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::address::{Address, Stream};

/// Longer than any reply of an agent: 48 MiB of a file in base64.
const LONGEST_LINE: usize = 80 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// None came in time.
    Late,
    /// There is nobody any more who could answer.
    Ended,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Silence::Late => "no answer in time (see --timeout)",
            Silence::Ended => "the connection has ended",
        })
    }
}

impl std::error::Error for Silence {}

/// An agent that is in step.
pub struct Agent {
    stream: Box<dyn Stream>,
    /// Read, and not yet part of a line.
    received: Vec<u8>,
}

impl Agent {
    /// Connects, and throws away whatever earlier hosts have left on the channel: 0xFF ends their half of a request,
    /// and the reply that stands behind 0xFF and has our number is the first that is ours. It waits for every answer as
    /// long as this, or without a limit.
    pub fn connect(address: &Address, timeout: Option<Duration>) -> Result<Agent> {
        let mut agent = Agent { stream: address.connect(timeout)?, received: Vec::new() };
        let number = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_micros() as i64 & 0x7FFF_FFFF_FFFF);
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
        agent.send(&[b"\xFF", sync.to_string().as_bytes(), b"\n"].concat())?;
        loop {
            let line = agent.line().map_err(|error| match error.downcast_ref() {
                Some(Silence::Late) => error.context(
                    "the agent does not answer: none runs there, or another host (libvirt?) holds the channel",
                ),
                _ => error.context("the agent does not answer"),
            })?;
            let after = line.iter().rposition(|byte| *byte == 0xFF).map_or(&line[..], |at| &line[at + 1..]);
            let reply: Value = serde_json::from_slice(after).unwrap_or_default();
            if reply["return"] == number {
                return Ok(agent);
            }
            // Errors that others have left do not name it: this is no such command, or one that is not allowed.
            if let Some(text) = reply["error"]["desc"].as_str().filter(|text| text.contains("guest-sync-delimited")) {
                bail!("{text}: without it nobody knows whose replies come; the agent has to allow it");
            }
        }
    }

    /// Sends a request as it stands, and returns the reply to it.
    pub fn call(&mut self, request: &Value) -> Result<Value> {
        self.send(format!("{request}\n").as_bytes())?;
        let line = self.line()?;
        serde_json::from_slice(&line).with_context(|| format!("this is no reply: {}", line.escape_ascii()))
    }

    /// Runs a command and returns what it returns.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut reply = self.call(&json!({ "execute": command, "arguments": arguments }))?;
        if let Some(error) = reply.get("error") {
            bail!("{command}: {}", error["desc"].as_str().unwrap_or("failed, and does not say why"));
        }
        ensure!(reply.get("return").is_some(), "{command} answered {reply}");
        Ok(reply["return"].take())
    }

    /// Runs a command that answers only when it fails, and waits so long for that. Silence, or the end of the machine,
    /// is what was wanted.
    pub fn tell(&mut self, command: &str, arguments: Value, timeout: Option<Duration>) -> Result<Silence> {
        self.stream.bound(timeout)?;
        self.send(format!("{}\n", json!({ "execute": command, "arguments": arguments })).as_bytes())?;
        match self.line() {
            Ok(line) => {
                let reply: Value = serde_json::from_slice(&line)?;
                bail!("{command}: {}", reply["error"]["desc"].as_str().unwrap_or("failed"));
            }
            Err(error) => error.downcast(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send to the agent")?;
        Ok(self.stream.flush()?)
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Vec<u8>> {
        let mut scanned = 0;
        loop {
            if let Some(at) = self.received[scanned..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(scanned + at + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(line);
            }
            scanned = self.received.len();
            ensure!(scanned < LONGEST_LINE, "a reply without end");
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!(Silence::Ended),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => bail!(Silence::Ended),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!(Silence::Late)
                }
                Err(error) => return Err(error).context("cannot read from the agent"),
            }
        }
    }
}
