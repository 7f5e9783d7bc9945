//! Where an agent is, and how to get a stream to it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vsock::{VsockAddr, VsockStream};

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket that leads to the agent: of QEMU's chardev, or of an agent that listens itself.
    Unix(PathBuf),
    /// The unix socket that stands for a guest's vsock in Firecracker and Cloud Hypervisor, and the port in the guest.
    Hybrid(PathBuf, u32),
    /// A port of a guest, by the kernel's vsock (`vsock(7)`).
    Vsock(u32, u32),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u32>().map_err(|_| format!("'{text}' is no port number"));
        if let Some(rest) = text.strip_prefix("hybrid:") {
            let (path, number) = rest.rsplit_once(':').ok_or("it must be hybrid:PATH:PORT")?;
            return Ok(Address::Hybrid(path.into(), port(number)?));
        }
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, number) = rest.split_once(':').ok_or("it must be vsock:CID:PORT")?;
            let cid = cid.parse().map_err(|_| format!("'{cid}' is no context id"))?;
            return Ok(Address::Vsock(cid, port(number)?));
        }
        match text.strip_prefix("unix:").unwrap_or(text) {
            "" => Err("an empty path".into()),
            path => Ok(Address::Unix(path.into())),
        }
    }
}

/// A connection to an agent. Reads and writes end with an error when they take longer than they may.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Address {
    /// Connects, and has every later read and write end after this time.
    pub fn connect(&self, timeout: Duration) -> Result<Box<dyn Stream>> {
        match self {
            Address::Unix(path) => Ok(Box::new(unix(path, timeout)?)),
            Address::Hybrid(path, port) => {
                let mut stream = unix(path, timeout)?;
                ask_for_port(&mut stream, *port).with_context(|| format!("port {port} behind {}", path.display()))?;
                Ok(Box::new(stream))
            }
            Address::Vsock(cid, port) => {
                let stream = VsockStream::connect(&VsockAddr::new(*cid, *port)).with_context(|| {
                    format!("cannot connect to port {port} of guest {cid}: does its agent listen there?")
                })?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn unix(path: &PathBuf, timeout: Duration) -> Result<UnixStream> {
    let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// The handshake of a hybrid vsock: `CONNECT PORT`, answered by `OK` and a number, or by the end of the connection.
fn ask_for_port(stream: &mut UnixStream, port: u32) -> Result<()> {
    // At once: there are devices that take what comes first for the whole line.
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    // One byte at a time: what follows the line belongs to the agent.
    while line.last() != Some(&b'\n') {
        ensure!(line.len() < 64, "no vsock socket of Firecracker or Cloud Hypervisor: it says {}", line.escape_ascii());
        match stream.read(&mut byte).context("no answer to CONNECT")? {
            0 => bail!("refused: no agent listens there"),
            _ => line.push(byte[0]),
        }
    }
    ensure!(line.starts_with(b"OK "), "refused: {}", String::from_utf8_lossy(&line).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_names_its_kind() {
        assert_eq!("/a:b".parse(), Ok(Address::Unix("/a:b".into())));
        assert_eq!("unix:vsock:1:2".parse(), Ok(Address::Unix("vsock:1:2".into())));
        assert_eq!("hybrid:/v:s.sock:1024".parse(), Ok(Address::Hybrid("/v:s.sock".into(), 1024)));
        assert_eq!("vsock:3:4294967295".parse(), Ok(Address::Vsock(3, u32::MAX)));
        for wrong in ["", "unix:", "hybrid:/v.sock", "hybrid:/v.sock:x", "vsock:3", "vsock:x:1", "vsock:3:-1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
