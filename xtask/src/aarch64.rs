//! The agent for aarch64: built here, run under user emulation, and booted as a guest's first process.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nanoga_tests::paths::{self, AARCH64 as TARGET};
use xshell::{Shell, cmd};

use crate::provision;

/// How long a download of the target may hang.
const DOWNLOAD_SECONDS: &str = "600";

/// The black-box tests that run here: of the protocol, channels, options and files. The others look at the process
/// itself, which is the emulator's, or run in guests.
const TESTS: &[&str] = &["protocol", "vectors", "unix", "isa", "cli", "files"];

/// What is the emulator's in those: its memory and its descriptors.
const NOT_OURS: &[&str] = &["memory_behind", "limit_of_descriptors", "256_files"];

/// Builds it, and runs the black-box tests with it.
pub fn check(sh: &Shell) -> Result<()> {
    build(sh)?;
    let _agent = sh.push_env("NANOGA_BIN", paths::aarch64_agent()?);
    let _emulator = sh.push_env("NANOGA_EMULATOR", provision::qemu_aarch64(sh)?);
    let tests = TESTS.iter().flat_map(|name| ["--test", name]);
    let skipped = NOT_OURS.iter().flat_map(|name| ["--skip", name]);
    Ok(cmd!(sh, "cargo test --no-fail-fast -p nanoga-tests {tests...} -- {skipped...}").run()?)
}

/// Boots it where there are packages for that; otherwise says what was left out and why.
pub fn boot(sh: &Shell) -> Result<Option<String>> {
    if let Err(why) = provision::aarch64_guest(sh) {
        let left_out = format!("!!! NOT TESTED: a guest on aarch64, as what it needs cannot be had: {why:#}");
        println!("{left_out}");
        return Ok(Some(left_out));
    }
    cmd!(sh, "cargo test --no-fail-fast -p nanoga-tests --test guest_alone -- --ignored").run()?;
    Ok(None)
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
