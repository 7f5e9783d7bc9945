//! `cargo xtask test`: everything that must hold, in one command. Nothing is skipped: what is missing is fetched, or
//! the run fails and says what to install. One exception, and it is loud: a guest for aarch64, where no packages are.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::steps::Steps;
use crate::{aarch64, fuzz, panics, provision, size};

/// How long each fuzz target runs: long enough to show that it does.
const FUZZ_SECONDS: u32 = 5;

/// Runs all steps; the first failure ends it.
pub fn run(sh: &Shell) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("what the tests need", || {
        provision::programs(sh)?;
        provision::guest(sh)?;
        provision::for_tests(sh)
    })?;
    steps.run("formatting", || Ok(cmd!(sh, "cargo fmt --all --check").run()?))?;
    // Never the agent's binary and an std package in one command, nor the binary and the tests: the features of the
    // crates they share would be united, and serde's `std` does not go with a binary that has none.
    steps.run("lints", || {
        cmd!(sh, "cargo clippy --quiet -p agent-core -p agent-linux -- -D warnings").run()?;
        cmd!(sh, "cargo clippy --quiet -p agent-core -p agent-linux --lib --tests -- -D warnings").run()?;
        cmd!(sh, "cargo clippy --quiet -p nanoga-tests -p xtask --all-targets -- -D warnings").run()?;
        cmd!(sh, "cargo clippy --quiet -p nanoga-host --all-targets -- -D warnings").run()?;
        Ok(())
    })?;
    steps.run("release build", || Ok(cmd!(sh, "cargo build --release").run()?))?;
    steps.run("size and memory", || size::check(sh))?;
    steps.run("call sites of panics", || panics::check(sh))?;
    steps.run("aarch64: build, black-box tests", || aarch64::check(sh))?;
    let mut left_out = None;
    steps.run("aarch64: a guest", || {
        left_out = aarch64::boot(sh)?;
        Ok(())
    })?;
    steps.run("unit, vector and property tests", || {
        cmd!(sh, "cargo test --no-fail-fast -p agent-core").run()?;
        cmd!(sh, "cargo test --no-fail-fast -p agent-core --no-default-features --features minimal").run()?;
        cmd!(sh, "cargo test --no-fail-fast -p agent-linux --lib").run()?;
        cmd!(sh, "cargo test --no-fail-fast -p agent-linux --test properties --test timezones").run()?;
        Ok(())
    })?;
    steps.run("installation", || Ok(cmd!(sh, "cargo test --no-fail-fast -p xtask").run()?))?;
    steps.run("fuzz targets", || fuzz::run(sh, None, FUZZ_SECONDS))?;
    steps.run("can KVM run guests here?", || {
        println!("guests run under {}", nanoga_tests::qemu::accelerator()?);
        Ok(())
    })?;
    steps.run("host's client", || Ok(cmd!(sh, "cargo test --no-fail-fast -p nanoga-host").run()?))?;
    // Last, so that the last lines are cargo's own account of the tests that take the longest.
    steps.run("black-box and guest tests", || Ok(cmd!(sh, "cargo test --no-fail-fast -p nanoga-tests").run()?))?;
    steps.summary();
    if let Some(left_out) = left_out {
        println!("{left_out}");
    }
    Ok(())
}
