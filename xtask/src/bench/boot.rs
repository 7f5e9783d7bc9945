//! Guests that have nothing but an agent: how large their initramfs is, and how soon they answer.
//!
//! One has nanoga as its first process. The other has what it takes without it: busybox, QEMU's own agent with its
//! libraries, and a script that mounts, loads the same modules, and becomes that agent. Kernel and machine are the same,
//! and they boot in turns. From the start of an agent alone to its first reply is measured in a guest that stays up.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nanoga_tests::client::Client;
use nanoga_tests::guest::Guest;
use nanoga_tests::initramfs::{Image, libraries};
use nanoga_tests::paths::{self, Kernel};
use nanoga_tests::qemu::{Board, Machine, Qemu, accelerator};
use nanoga_tests::random;
use serde_json::json;
use tempfile::TempDir;
use xshell::Shell;

use super::median;
use crate::image;

/// What both need to reach their channel.
const MODULES: &[&str] = &["virtio_pci", "virtio_mmio", "virtio_console"];

/// How often each guest boots.
const BOOTS: usize = 5;

/// How often each agent starts in a guest.
const STARTS: usize = 11;

/// What a boot may take under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// The line by which nanoga says that it listens.
const READY: &str = "nanoga: ready";

/// The first process where nanoga is none.
const SCRIPT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "$module"; done </etc/nanoga/modules
until name=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name 2>/dev/null); do sleep 0.01; done
name=${name%/name}
exec qemu-ga -m virtio-serial -p "/dev/${name##*/}" -t /run
"#;

/// What the script runs of busybox.
const APPLETS: [&str; 5] = ["sh", "mount", "insmod", "grep", "sleep"];

/// Builds both, boots both, and prints.
pub fn boots(sh: &Shell) -> Result<()> {
    let kernel = Kernel::find()?;
    let dir = TempDir::new()?;
    let images = [("nanoga", ours()?), ("qemu-ga", theirs()?)];
    let mut sizes = [Vec::new(), Vec::new()];
    let mut files = Vec::new();
    for (name, mut image) in images {
        sizes[0].push(image::pack(sh, image.clone())?.len() as f64);
        image::add_modules(&mut image, &kernel.modules, MODULES)?;
        let packed = image::pack(sh, image)?;
        sizes[1].push(packed.len() as f64);
        let file = dir.path().join(name);
        fs::write(&file, packed)?;
        files.push(file);
    }

    println!("\n{:<40} {:>12} {:>12} {:>7}", format!("a guest, {}", accelerator()?), "nanoga", "qemu-ga", "ratio");
    row("initramfs without modules, compressed", &sizes[0], kilobytes);
    row("initramfs, compressed", &sizes[1], kilobytes);
    for (board, name) in [(Board::Microvm, "microvm"), (Board::Pc, "pc")] {
        boot_in_turns(board, name, &files)?;
    }
    starts()
}

/// nanoga as the first process, which says when it listens.
fn ours() -> Result<Image> {
    let mut image = image::with_agent()?;
    image::set(&mut image, "ready=console\n");
    Ok(image)
}

/// Busybox, a script, and QEMU's own agent.
fn theirs() -> Result<Image> {
    let mut image = Image::default();
    for dir in ["bin", "dev", "etc", "etc/nanoga", "lib", "lib/modules", "proc", "run", "sys", "tmp", "usr", "usr/bin"]
    {
        image.dir(dir);
    }
    image.device("dev/console", 5, 1);
    image.file("init", 0o755, SCRIPT.into());
    image.file("bin/busybox", 0o755, fs::read(paths::busybox()?)?);
    for applet in APPLETS {
        image.link(&format!("bin/{applet}"), "busybox");
    }
    let agent = paths::reference_agent()?;
    image.file("usr/bin/qemu-ga", 0o755, fs::read(&agent)?);
    for library in libraries(&[agent])? {
        image.library(&library)?;
    }
    Ok(image)
}

/// Prints the times from the start of QEMU.
fn boot_in_turns(board: Board, name: &str, files: &[PathBuf]) -> Result<()> {
    let mut ready = Vec::new();
    let mut replies = vec![Vec::new(); files.len()];
    for _ in 0..BOOTS {
        for (at, file) in files.iter().enumerate() {
            let (replied, said) = boot(board, file, at == 0)?;
            replies[at].push(replied.as_secs_f64());
            ready.extend(said.map(|time| time.as_secs_f64()));
        }
    }
    row(&format!("{name}: start of QEMU to ready line"), &[median(&ready)], seconds);
    let replies: Vec<f64> = replies.iter().map(|samples| median(samples)).collect();
    row(&format!("{name}: start of QEMU to first reply"), &replies, seconds);
    Ok(())
}

/// From the start of QEMU to the first reply, and to the line that says the agent listens.
fn boot(board: Board, image: &Path, says_ready: bool) -> Result<(Duration, Option<Duration>)> {
    let mut machine = Machine::new(board);
    machine.image = Some(image.to_owned());
    let qemu = Qemu::start(&machine)?;
    let mut host = qemu.connect("qga0")?;
    // It waits in the socket until the agent opens its port.
    let asked = ask(&mut host)?;
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            let deadline = Instant::now() + LONG;
            while says_ready && !qemu.console().contains(READY) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            qemu.started.elapsed()
        });
        let replied = answered(&mut host, asked).with_context(|| qemu.logs())? - qemu.started;
        let said = said.join().map_err(|_| anyhow::anyhow!("reading the console panicked"))?;
        ensure!(said < LONG, "no ready line: {}", qemu.logs());
        Ok((replied, says_ready.then_some(said)))
    })
}

/// Prints the time from the start of an agent to its first reply, in a guest that is up.
fn starts() -> Result<()> {
    let mut machine = Machine::new(Board::Pc);
    machine.extras.programs = vec![paths::reference_agent()?];
    let mut guest = Guest::boot(&machine)?;
    let mut host = guest.connect("qga0")?;
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        for (samples, program) in samples.iter_mut().zip(["nanoga", "qemu-ga"]) {
            samples.push(start(&mut guest, &mut host, program)?.as_secs_f64());
        }
    }
    row("in a guest, start to first reply", &samples.each_ref().map(|samples| median(samples)), milliseconds);
    Ok(())
}

fn start(guest: &mut Guest, host: &mut Client, program: &str) -> Result<Duration> {
    let asked = ask(host)?;
    let command = format!("{program} -m virtio-serial -p /dev/$port -t /run </dev/null >/tmp/log 2>&1 & agent=$!");
    let start = Instant::now();
    let replied = thread::scope(|scope| {
        let replied = scope.spawn(|| answered(host, asked));
        guest.sh(&command)?;
        replied.join().map_err(|_| anyhow::anyhow!("reading the reply panicked"))?
    });
    let took = replied.with_context(|| format!("asking {program}"))? - start;
    guest.sh("kill -9 $agent; wait $agent; true")?;
    Ok(took)
}

/// Asks for a number to be said again.
fn ask(host: &mut Client) -> Result<u32> {
    host.patience = LONG;
    let number = random()?;
    host.send(json!({ "execute": "guest-sync", "arguments": { "id": number } }).to_string())?;
    Ok(number)
}

/// When it was.
fn answered(host: &mut Client, number: u32) -> Result<Instant> {
    let reply = host.reply()?;
    let now = Instant::now();
    ensure!(reply["return"] == number, "guest-sync answered {reply}");
    Ok(now)
}

/// Prints a line: what was measured of nanoga, and of qemu-ga, where there is such a thing.
fn row(what: &str, values: &[f64], shown: impl Fn(f64) -> String) {
    print!("{what:<40} {:>12}", shown(values[0]));
    match values.get(1) {
        Some(theirs) => println!(" {:>12} {:>7.2}", shown(*theirs), theirs / values[0]),
        None => println!(),
    }
}

fn kilobytes(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}
