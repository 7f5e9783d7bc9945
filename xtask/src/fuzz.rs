//! `cargo xtask fuzz`: the targets of `fuzz/` on stable Rust, without cargo-fuzz.
//!
//! libFuzzer needs coverage counters in the code. cargo-fuzz takes nightly and the address sanitizer for that; stable
//! rustc can insert the counters alone. The code under test has next to no `unsafe`, so that finds nearly as much.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nanoga_tests::agent::{Bounds, bounded};
use nanoga_tests::paths;
use xshell::{Shell, cmd};

use crate::provision;

/// Counters in every branch, and what is compared with what.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Runs one target, or all, for so many seconds each. What is new goes to a corpus under the target directory.
pub fn run(sh: &Shell, only: Option<&str>, seconds: u32) -> Result<()> {
    let folder = paths::workspace_dir().join("fuzz");
    let targets = targets(&folder, only)?;
    let binaries = build(sh, &folder)?;
    for target in targets {
        let work = paths::target_dir().join("fuzz");
        let (found, crashes) = (work.join("corpus").join(&target), work.join("artifacts").join(&target));
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&crashes)?;
        let log = work.join(&target).with_extension("log");
        let mut command = Command::new(binaries.join(&target));
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", crashes.display()));
        command.args(["-rss_limit_mb=1024", "-timeout=20", "-max_len=4096", "-print_final_stats=1"]);
        command.arg(format!("-dict={}", folder.join("json.dict").display()));
        command.args([found, folder.join("corpus").join(&target)]).stderr(fs::File::create(&log)?);
        let bounds = Bounds { memory: 2 << 30, cpu: u64::from(seconds) + 60, file: 64 << 20 };
        let status = bounded(&mut command, bounds).status()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !status.success() {
            let lines: Vec<&str> = said.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(50)..].join("\n"));
            bail!("the target {target} found something: its input is in {}", crashes.display());
        }
        let figure =
            |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
        let (runs, memory) = (figure("stat::number_of_executed_units:"), figure("stat::peak_rss_mb:"));
        println!("{target:<10} {runs:>12} inputs in {seconds} s, at most {memory} MiB");
    }
    Ok(())
}

/// The names of the targets: those of their files.
fn targets(folder: &Path, only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder.join("fuzz_targets"))? {
        let file = file?.path();
        let name = file.file_stem().and_then(|name| name.to_str()).context("an odd name")?.to_owned();
        if only.is_none_or(|only| only == name) {
            names.push(name);
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no such target");
    Ok(names)
}

/// Builds all targets, and returns the folder they are in.
fn build(sh: &Shell, folder: &Path) -> Result<PathBuf> {
    if provision::find_program("c++").is_none() {
        // libFuzzer itself is C++.
        provision::install(sh, &["g++"])?;
    }
    let target_dir = paths::target_dir().join("fuzz");
    let manifest = folder.join("Cargo.toml");
    let version = cmd!(sh, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    // With --target, what runs during the build (build scripts, derive macros) has no counters.
    cmd!(sh, "cargo build --quiet --release --manifest-path {manifest} --target {host}")
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", COVERAGE)
        .run()?;
    Ok(target_dir.join(host).join("release"))
}
