//! A vsock device without a kernel module of the host: `vhost-device-vsock` beside QEMU, and the host's end of it,
//! which is that of Firecracker and Cloud Hypervisor.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::{Bounds, bounded};
use crate::client::Client;
use crate::{paths, wait_for};

/// The guest's context identifier.
pub const GUEST_CID: u32 = 3;

/// The guest's memory is mapped into it.
const BOUNDS: Bounds = Bounds { memory: 8 << 30, cpu: 300, file: 64 << 20 };

/// A running device. It ends with this value.
pub struct Device {
    child: Child,
    dir: PathBuf,
    name: &'static str,
}

impl Device {
    /// Starts a device: QEMU connects to the socket `NAME` in this directory, hosts to `NAME.host`.
    pub fn start(dir: &Path, name: &'static str) -> Result<Device> {
        let mut command = Command::new(paths::vhost_device_vsock()?);
        let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        command.current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.args(["--vm", &format!("guest-cid={GUEST_CID},socket={name},uds-path={name}.host")]);
        let child = bounded(&mut command, BOUNDS).spawn().context("starting vhost-device-vsock")?;
        let device = Device { child, dir: dir.to_path_buf(), name };
        wait_for("vhost-device-vsock", Duration::from_secs(20), || Ok(dir.join(name).exists().then_some(())))?;
        Ok(device)
    }

    /// The socket that hosts connect to.
    pub fn host_socket(&self) -> PathBuf {
        self.dir.join(format!("{}.host", self.name))
    }

    /// Connects to a port of the guest; fails if nobody listens there.
    pub fn connect(&self, port: u32) -> Result<Client> {
        let mut stream = UnixStream::connect(self.host_socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // At once: there are devices that take what comes first for the whole line.
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut line = String::new();
        // No byte more than the line: the next ones are the agent's.
        BufReader::with_capacity(1, &stream).read_line(&mut line).context("no answer to CONNECT")?;
        ensure!(line.starts_with("OK "), "port {port}: {line:?}");
        Client::new(stream)
    }

    /// Listens at a port of the host.
    pub fn listen(&self, port: u32) -> Result<UnixListener> {
        Ok(UnixListener::bind(self.dir.join(format!("{}.host_{port}", self.name)))?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
