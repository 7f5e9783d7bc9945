//! Where things lie. `cargo xtask test` puts them there; a test that misses one says so and fails.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if Path::new(&dir).is_absolute() => dir.into(),
        Some(dir) => workspace_dir().join(dir),
        None => workspace_dir().join("target"),
    }
}

/// The root of the repository.
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package inside the workspace").to_path_buf()
}

/// The agent to test: `$NANOGA_BIN`, otherwise the release build.
pub fn agent_binary() -> Result<PathBuf> {
    let path = match env::var_os("NANOGA_BIN") {
        Some(path) => path.into(),
        None => target_dir().join("release/nanoga"),
    };
    if !path.is_file() {
        bail!("no agent at {}: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

/// Starts the agent: by `$NANOGA_EMULATOR`, where `$NANOGA_BIN` is for another processor.
pub fn agent_command() -> Result<Command> {
    let agent = agent_binary()?;
    Ok(match emulator() {
        None => Command::new(agent),
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.arg(agent);
            command
        }
    })
}

/// What runs programs of another processor.
pub fn emulator() -> Option<PathBuf> {
    env::var_os("NANOGA_EMULATOR").map(PathBuf::from)
}

/// What cargo calls the agent's other processor.
pub const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// The agent for aarch64.
pub fn aarch64_agent() -> Result<PathBuf> {
    let path = target_dir().join(AARCH64).join("release/nanoga");
    if !path.is_file() {
        bail!("no agent at {}: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

/// What guests are made of: unpacked kernel packages in `kernel/`, `kernel-generic/` and `kernel-aarch64/`, `busybox`,
/// `bin/vhost-device-vsock`, `systemd.img`, and `accel` (see [`crate::qemu`]).
pub fn guest_dir() -> PathBuf {
    target_dir().join("guest")
}

/// A statically linked busybox.
pub fn busybox() -> Result<PathBuf> {
    let path = guest_dir().join("busybox");
    if !path.is_file() {
        bail!("no busybox at {}: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

/// QEMU's own agent: what this one is held against. The system's, otherwise the one that was only unpacked.
pub fn reference_agent() -> Result<PathBuf> {
    let places = ["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"].map(PathBuf::from);
    let places = places.into_iter().chain([guest_dir().join("qemu-ga")]);
    places.into_iter().find(|path| path.is_file()).context("no qemu-ga: run `cargo xtask test`")
}

/// The vsock device that stands beside QEMU: crates.io has it, Debian 12 has not.
pub fn vhost_device_vsock() -> Result<PathBuf> {
    let path = guest_dir().join("bin/vhost-device-vsock");
    if !path.is_file() {
        bail!("no vhost-device-vsock at {}: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

/// The disk of a small system with systemd: ext4, without a partition. Not to be written to.
pub fn systemd_disk() -> Result<PathBuf> {
    let path = guest_dir().join("systemd.img");
    if !path.is_file() {
        bail!("no disk with systemd at {}: run `cargo xtask test`", path.display());
    }
    Ok(path)
}

/// A kernel for guests, as its package unpacks.
pub struct Kernel {
    /// The bootable image.
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel that most guests run: small, with virtio and little else.
    pub fn find() -> Result<Kernel> {
        Kernel::at("kernel")
    }

    /// Finds the kernel with drivers for the disks of real machines: SATA, USB.
    pub fn find_generic() -> Result<Kernel> {
        Kernel::at("kernel-generic")
    }

    /// Finds the kernel for aarch64.
    pub fn find_aarch64() -> Result<Kernel> {
        Kernel::at("kernel-aarch64")
    }

    /// Whether it was built with an option.
    pub fn has(&self, option: &str) -> Result<bool> {
        let image = self.image.file_name().unwrap_or_default().to_string_lossy();
        let config = self.image.with_file_name(image.replacen("vmlinuz", "config", 1));
        let config = std::fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        Ok(config.lines().any(|line| line == format!("{option}=y")))
    }

    fn at(dir: &str) -> Result<Kernel> {
        let root = guest_dir().join(dir);
        let image = only_entry(&root.join("boot"), "vmlinuz-");
        let modules = ["lib/modules", "usr/lib/modules"].iter().find_map(|dir| only_entry(&root.join(dir), ""));
        image
            .zip(modules)
            .map(|(image, modules)| Kernel { image, modules })
            .with_context(|| format!("no kernel under {}: run `cargo xtask test`", root.display()))
    }
}

fn only_entry(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(dir).ok()?.flatten();
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
}
