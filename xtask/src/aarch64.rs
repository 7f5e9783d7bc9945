//! The agent for aarch64: built here, and run under user emulation.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nanoga_tests::agent::{Agent, Bounds};
use nanoga_tests::paths;
use serde_json::json;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::provision;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// How long a download of the target may hang.
const DOWNLOAD_SECONDS: &str = "600";

/// Builds it, starts it, and asks for sync, ping and info.
pub fn check(sh: &Shell) -> Result<()> {
    build(sh)?;
    let agent = paths::target_dir().join(TARGET).join("release/nanoga");
    let emulator = provision::qemu_aarch64(sh)?;
    let dir = TempDir::new()?;
    let mut command = Command::new(emulator);
    command.arg(agent).args(["-m", "unix-listen", "-p"]);
    command.arg(dir.path().join("qga.sock")).arg("-t").arg(dir.path());
    let bounds = Bounds { memory: 16 << 30, ..Bounds::AGENT };
    let agent = Agent::spawn_within(dir, command, bounds)?;
    agent.wait_for_socket(&agent.socket())?;
    let mut host = agent.connect()?;
    host.sync_delimited()?;
    ensure!(host.ask("guest-ping")? == json!({}));
    let info = host.ask("guest-info")?;
    println!("aarch64: guest-info says version {}", info["version"]);
    Ok(())
}

/// With rustup's toolchain and its linker where it has the target or can get it, otherwise with Debian's compiler.
fn build(sh: &Shell) -> Result<()> {
    let build = "build --release -p agent-linux --target";
    let build: Vec<&str> = build.split(' ').collect();
    if has_target(sh) || add_target(sh) {
        // cc drives the linker that comes with Rust, which links for every architecture.
        let lld = rust_lld(sh)?;
        let flags = format!(
            "-Clinker=cc -Clink-arg=-fuse-ld=lld -Clink-arg=-B{} -Clink-arg=-Wl,-m,aarch64linux",
            lld.display()
        );
        let _flags = sh.push_env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
        return Ok(cmd!(sh, "cargo {build...} {TARGET}").run()?);
    }
    println!("no {TARGET} from rustup: taking Debian's compiler");
    let gcc = "aarch64-linux-gnu-gcc";
    if provision::find_program(gcc).is_none() || !debian_has_target(sh) {
        provision::as_root(sh, &["dpkg", "--add-architecture", "arm64"])?;
        provision::as_root(sh, &["apt-get", "-q", "update"])?;
        provision::install(sh, &["rustc-web", "libstd-rust-web-dev:arm64", "gcc-aarch64-linux-gnu"])?;
    }
    let _rustc = sh.push_env("RUSTC", "/usr/bin/rustc");
    let _linker = sh.push_env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", gcc);
    Ok(cmd!(sh, "cargo {build...} {TARGET}").run()?)
}

fn has_target(sh: &Shell) -> bool {
    target_libdir(sh, "rustc").is_some_and(|dir| dir.is_dir())
}

fn debian_has_target(sh: &Shell) -> bool {
    target_libdir(sh, "/usr/bin/rustc").is_some_and(|dir| dir.is_dir())
}

fn target_libdir(sh: &Shell, rustc: &str) -> Option<PathBuf> {
    let dir = cmd!(sh, "{rustc} --print target-libdir --target {TARGET}");
    dir.quiet().ignore_stderr().read().ok().map(PathBuf::from)
}

fn add_target(sh: &Shell) -> bool {
    provision::find_program("rustup").is_some()
        && cmd!(sh, "timeout {DOWNLOAD_SECONDS} rustup target add {TARGET}").run().is_ok()
        && has_target(sh)
}

/// The directory with Rust's own `ld.lld`.
fn rust_lld(sh: &Shell) -> Result<PathBuf> {
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
    let version = cmd!(sh, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let dir = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/gcc-ld");
    ensure!(dir.join("ld.lld").exists(), "no ld.lld in {}", dir.display());
    Ok(dir)
}
