//! The host's side of the protocol, over any stream: an agent's unix socket, a QEMU chardev, the master of a pty.
//!
//! A [`Client`] takes bytes and gives lines, each with a deadline. It forgives nothing: a line that is not JSON, an
//! answer that nobody asked for or silence where an answer is due is an error that shows what came instead.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

/// How long an answer may take: far more than any needs, even under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than the longest line a host client accepts (libvirt: 10 MiB).
const LONGEST_LINE: usize = 16 << 20;

/// One end of a channel.
pub struct Client {
    stream: std::fs::File,
    /// Read and not yet given out.
    received: Vec<u8>,
    /// The other side has closed.
    ended: bool,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Client {
    /// Takes over a stream. It becomes non-blocking.
    pub fn new(stream: impl Into<OwnedFd>) -> Result<Client> {
        let fd: OwnedFd = stream.into();
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Client { stream: fd.into(), received: Vec::new(), ended: false, patience: PATIENCE })
    }

    /// Connects to a unix socket.
    pub fn connect(path: impl AsRef<Path>) -> Result<Client> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
        Client::new(stream)
    }

    /// Sends all these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        let sent = self.send_within(bytes, self.patience)?;
        ensure!(sent == bytes.len(), "the agent took {sent} of {} bytes in {:?}", bytes.len(), self.patience);
        Ok(())
    }

    /// Sends until nothing is left, or until nothing was taken for `patience`. Returns how much was.
    pub fn send_within(&mut self, bytes: &[u8], patience: Duration) -> Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !self.poll(PollFlags::POLLOUT, Instant::now() + patience)? {
                        break;
                    }
                }
                Err(e) => return Err(e).context("sending"),
            }
        }
        Ok(sent)
    }

    /// The next line without its newline; a leading 0xFF is left on it.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let mut scanned = 0;
        loop {
            if let Some(at) = self.received[scanned..].iter().position(|b| *b == b'\n') {
                let rest = self.received.split_off(scanned + at + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(line);
            }
            scanned = self.received.len();
            ensure!(scanned < LONGEST_LINE, "a line without end");
            if self.ended {
                bail!("the stream ended in {}", self.shown());
            }
            if !self.fill(deadline)? {
                bail!("no line in {:?}, only {}", self.patience, self.shown());
            }
        }
    }

    /// What has come, at least a byte: for a line that is longer than hosts accept.
    pub fn some(&mut self) -> Result<Vec<u8>> {
        if self.received.is_empty() && (self.ended || !self.fill(Instant::now() + self.patience)?) {
            bail!("nothing in {:?}", self.patience);
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// The next line as JSON: strictly one object, nothing before it.
    pub fn reply(&mut self) -> Result<Value> {
        let line = self.line()?;
        let reply: Value =
            serde_json::from_slice(&line).with_context(|| format!("not JSON: {:?}", String::from_utf8_lossy(&line)))?;
        ensure!(reply.is_object(), "not an object: {reply}");
        Ok(reply)
    }

    /// Sends a request and returns its reply.
    pub fn call(&mut self, request: &Value) -> Result<Value> {
        self.send(format!("{request}\n"))?;
        self.reply().with_context(|| format!("calling {request}"))
    }

    /// Calls a command without arguments and returns what it returns.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        let mut reply = self.call(&json!({ "execute": command }))?;
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{command} answered {reply}"),
        }
    }

    /// Brings a channel in an unknown state to a known one: 0xFF, `guest-sync-delimited`, and everything up to its
    /// answer dropped. Returns what was dropped: lines, and half a line right before the answer.
    pub fn sync_delimited(&mut self) -> Result<Vec<String>> {
        let id = crate::random()?;
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        self.send([b"\xff", request.to_string().as_bytes(), b"\n"].concat())?;
        let mut dropped = Vec::new();
        loop {
            let line = self.line().context("waiting for guest-sync-delimited")?;
            let (before, answer) = match line.iter().rposition(|byte| *byte == 0xFF) {
                Some(at) => (&line[..at], Some(&line[at + 1..])),
                None => (&line[..], None),
            };
            let ours = answer.map(serde_json::from_slice::<Value>).transpose()? == Some(json!({ "return": id }));
            let before = if ours { before } else { &line };
            if !ours || !before.is_empty() {
                dropped.push(String::from_utf8_lossy(before).into_owned());
            }
            if ours {
                return Ok(dropped);
            }
        }
    }

    /// Whatever there is, or comes within this time. Nothing after it, or when the other side has closed.
    pub fn receive(&mut self, time: Duration) -> Result<Vec<u8>> {
        if self.received.is_empty() {
            self.fill(Instant::now() + time)?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Fails if anything arrives within this time.
    pub fn expect_silence(&mut self, time: Duration) -> Result<()> {
        if self.received.is_empty() {
            self.fill(Instant::now() + time)?;
        }
        ensure!(self.received.is_empty(), "unasked for: {}", self.shown());
        Ok(())
    }

    /// Fails unless the agent closes the connection, with nothing before.
    pub fn expect_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        while !self.ended && self.received.is_empty() {
            ensure!(self.fill(deadline)?, "the connection stays open");
        }
        ensure!(self.received.is_empty(), "unasked for: {}", self.shown());
        Ok(())
    }

    /// The stream itself, for `shutdown`, termios and the like.
    pub fn stream(&self) -> &std::fs::File {
        &self.stream
    }

    /// Closes the sending half of a socket.
    pub fn finish_sending(&self) -> Result<()> {
        use std::os::fd::AsRawFd;
        Ok(nix::sys::socket::shutdown(self.stream.as_raw_fd(), nix::sys::socket::Shutdown::Write)?)
    }

    /// Waits for input and reads it. False when there was none before the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<bool> {
        let mut chunk = [0; 64 << 10];
        loop {
            if !self.poll(PollFlags::POLLIN, deadline)? {
                return Ok(false);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                // A pty without slave, a socket whose peer died.
                Err(e) if matches!(e.raw_os_error(), Some(libc_eio) if libc_eio == nix::errno::Errno::EIO as i32) => {
                    self.ended = true;
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e).context("receiving"),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
            }
            return Ok(true);
        }
    }

    fn poll(&self, events: PollFlags, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis().min(600_000) as i32)?;
        let mut fds = [PollFd::new(self.stream.as_fd(), events)];
        match poll(&mut fds, timeout) {
            Ok(n) => Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e).context("poll"),
        }
    }

    fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.received))
    }
}

/// The text of an error reply, or a failure that shows what came instead.
pub fn error_text(reply: &Value) -> &str {
    reply["error"]["desc"].as_str().unwrap_or_else(|| panic!("not an error: {reply}"))
}

/// Bytes as they stand in a request.
pub fn base64_encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Bytes of a reply. Fails unless they are written as RFC 4648 says.
pub fn base64_decode(text: impl AsRef<[u8]>) -> Vec<u8> {
    BASE64_STANDARD.decode(text).expect("base64")
}
