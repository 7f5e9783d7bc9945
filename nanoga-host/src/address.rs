//! Where an agent is, and how to get a stream to it.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
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
pub trait Stream: Read + Write {
    /// How long that is. Without it there is no limit.
    fn bound(&self, timeout: Option<Duration>) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn bound(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

impl Stream for VsockStream {
    fn bound(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

impl Address {
    /// Connects, and has every later read and write end after this time, if any.
    pub fn connect(&self, timeout: Option<Duration>) -> Result<Box<dyn Stream>> {
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
                stream.bound(timeout)?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn unix(path: &Path, timeout: Option<Duration>) -> Result<UnixStream> {
    let stream = UnixStream::connect(path)
        .map_err(|error| anyhow!("cannot connect to {}: {error}{}", path.display(), hint(path, error.kind())))?;
    stream.bound(timeout)?;
    Ok(stream)
}

/// What an error with a socket means for whoever gave its path.
fn hint(path: &Path, error: ErrorKind) -> String {
    let file = fs::metadata(path).ok();
    match (error, file) {
        (ErrorKind::PermissionDenied, Some(file)) => {
            format!(": the socket is for user {} (mode {:o}); try as root", file.uid(), file.mode() & 0o777)
        }
        (ErrorKind::PermissionDenied, None) => ": a folder above it is not for you; try as root".into(),
        (ErrorKind::ConnectionRefused, Some(file)) if file.file_type().is_socket() => {
            ": nobody listens there; does the machine run?".into()
        }
        (ErrorKind::ConnectionRefused, Some(_)) => ": this is no socket".into(),
        (ErrorKind::NotFound, _) if path.to_string_lossy().contains(':') => {
            ": an address is PATH, hybrid:PATH:PORT or vsock:CID:PORT".into()
        }
        _ => String::new(),
    }
}

/// The handshake of a hybrid vsock: `CONNECT PORT`, answered by `OK` and a number, or by the end of the connection.
fn ask_for_port(stream: &mut UnixStream, port: u32) -> Result<()> {
    // At once: there are devices that take what comes first for the whole line.
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    // One byte at a time: what follows the line belongs to the agent.
    while line.last() != Some(&b'\n') {
        ensure!(
            line.len() < 64 && line.first() != Some(&b'{'),
            "this is no vsock socket of Firecracker or Cloud Hypervisor; if it is an agent's, the address is its path alone"
        );
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
    fn what_is_wrong_with_a_socket_is_said() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let said = |path: &Path| unix(path, None).unwrap_err().to_string();
        assert!(said(&path).contains("refused") && said(&path).contains("nobody listens there"), "{}", said(&path));
        assert!(said(dir.path()).ends_with(": this is no socket"), "{}", said(dir.path()));
        assert!(said(Path::new("tcp:localhost:99")).contains("hybrid:PATH:PORT"));
        let denied = hint(&path, ErrorKind::PermissionDenied);
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert!(denied.contains(&format!("mode {mode:o}")) && denied.contains("root"), "{denied}");
    }

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
