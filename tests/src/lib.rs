//! The harness of the black-box tests: everything that is needed to run the built agent and talk to it,
//! on this machine or in a guest booted under QEMU.
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`paths`] | where the build, the kernel and busybox lie |
//! | [`client`] | the host's side of the protocol, over any stream |
//! | [`agent`] | the agent as a process of this machine: start, look at, end |
//! | [`pair`] | an agent and one host of it |
//! | [`netns`] | a network namespace to run the agent in |
//! | [`initramfs`] | the image a guest boots |
//! | [`qmp`] | QEMU's control socket |
//! | [`qemu`] | the QEMU process: machines, devices, KVM or emulation |
//! | [`vsock`] | a vsock device beside QEMU, and the host's end of it |
//! | [`guest`] | a booted guest: a shell in it, the agent in it |
//! | [`libvirt`] | a libvirt of its own, and a domain |
//! | [`reference`] | QEMU's own agent beside ours, and what of their replies is compared |
//!
//! Nothing here links the agent or its crates: what is tested is the file a user gets.
//! Every wait has a deadline and every process a bound on memory and time, and both end with their owner.

pub mod agent;
pub mod client;
pub mod guest;
pub mod initramfs;
pub mod libvirt;
pub mod netns;
pub mod pair;
pub mod paths;
pub mod qemu;
pub mod qmp;
pub mod reference;
pub mod vsock;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Asks `ready` until it gives something, or fails with `what` after `limit`.
///
/// For states that nothing announces (a file of procfs, a socket that is not there yet): an event is waited for
/// where there is one.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number nobody can guess, for sync ids and for marks that must come back.
pub fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Where a program of this machine lies.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin", "/usr/local/sbin"];
    let places = dirs.map(|dir| Path::new(dir).join(name));
    places.into_iter().find(|path| path.is_file()).with_context(|| format!("no {name}: run `cargo xtask test`"))
}

/// Makes a file system in an image.
pub fn mkfs(kind: &str, args: &[&str], image: &Path) -> Result<()> {
    let mut command = Command::new(find_program(&format!("mkfs.{kind}"))?);
    let output = command.args(args).arg(image).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
