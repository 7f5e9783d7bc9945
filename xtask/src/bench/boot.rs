//! Guests that have nothing but an agent: how large their initramfs is, and how soon they answer.
//!
//! One has nanoga as its first process. The other has what it takes without it: busybox, QEMU's own agent with its
//! libraries, and a script that mounts, loads the same modules, and becomes that agent. Kernel and machine are the
//! same, and they boot in turns. Where times are taken, the floor is the first process: it says so, which is the end of
//! the kernel's part, and becomes the one that is measured. From the start of an agent alone to its first reply is
//! measured in a guest that stays up.

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

/// The line by which the floor says that it is the first process.
const FIRST: &str = "floor: first process";

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
pub fn boots(sh: &Shell, floor: &Path) -> Result<()> {
    let kernel = Kernel::find()?;
    let dir = TempDir::new()?;
    let [mut bare, mut whole] = [Vec::new(), Vec::new()];
    let mut timed = Vec::new();
    for (name, contents) in [("nanoga", ours as fn(&str) -> Result<Image>), ("qemu-ga", theirs)] {
        let mut image = contents("init")?;
        bare.push(image::pack(sh, image.clone())?.len() as f64);
        image::add_modules(&mut image, &kernel.modules, MODULES)?;
        whole.push(image::pack(sh, image)?.len() as f64);

        let mut image = contents("first")?;
        image.file("init", 0o755, fs::read(floor)?);
        image::add_modules(&mut image, &kernel.modules, MODULES)?;
        let file = dir.path().join(name);
        fs::write(&file, image::pack(sh, image)?)?;
        timed.push(file);
    }

    println!("\n{:<40} {:>12} {:>12} {:>7}", format!("a guest, {}", accelerator()?), "nanoga", "qemu-ga", "ratio");
    row("initramfs without modules, compressed", &bare, kilobytes);
    row("initramfs, compressed", &whole, kilobytes);
    for (board, name) in [(Board::Microvm, "microvm"), (Board::Pc, "pc")] {
        boot_in_turns(board, name, &timed)?;
    }
    starts()
}

/// nanoga under this name. It says when it listens.
fn ours(first: &str) -> Result<Image> {
    let mut image = image::folders();
    image.file(first, 0o755, fs::read(paths::agent_binary()?)?);
    image::set(&mut image, "ready=console\n");
    Ok(image)
}

/// Busybox, a script of this name, and QEMU's own agent.
fn theirs(first: &str) -> Result<Image> {
    let mut image = image::folders();
    for dir in ["usr", "usr/bin"] {
        image.dir(dir);
    }
    image.file(first, 0o755, SCRIPT.into());
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
fn boot_in_turns(board: Board, name: &str, images: &[PathBuf]) -> Result<()> {
    let mut ready = Vec::new();
    let mut samples = [(); 3].map(|()| vec![Vec::new(); images.len()]);
    for _ in 0..BOOTS {
        for (at, image) in images.iter().enumerate() {
            let boot = boot(board, image, at == 0)?;
            ready.extend(boot.ready);
            for (samples, sample) in samples.iter_mut().zip([boot.first, boot.reply, boot.reply - boot.first]) {
                samples[at].push(sample);
            }
        }
    }
    let medians = samples.map(|samples| samples.iter().map(|samples| median(samples)).collect::<Vec<f64>>());
    row(&format!("{name}: start of QEMU to first process"), &medians[0], seconds);
    row(&format!("{name}: start of QEMU to ready line"), &[median(&ready)], seconds);
    row(&format!("{name}: start of QEMU to first reply"), &medians[1], seconds);
    row(&format!("{name}: execve to first reply"), &medians[2], milliseconds);
    Ok(())
}

/// When a guest was where, in seconds from the start of QEMU.
struct Boot {
    first: f64,
    ready: Option<f64>,
    reply: f64,
}

fn boot(board: Board, image: &Path, says_ready: bool) -> Result<Boot> {
    let mut machine = Machine::new(board);
    machine.image = Some(image.to_owned());
    let qemu = Qemu::start(&machine)?;
    let mut host = qemu.connect("qga0")?;
    // It waits in the socket until the agent opens its port.
    let asked = ask(&mut host)?;
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            let first = said(&qemu, FIRST)?;
            anyhow::Ok((first, says_ready.then(|| said(&qemu, READY)).transpose()?))
        });
        let reply = answered(&mut host, asked).with_context(|| qemu.logs())? - qemu.started;
        let (first, ready) = said.join().map_err(|_| anyhow::anyhow!("reading the console panicked"))??;
        Ok(Boot { first, ready, reply: reply.as_secs_f64() })
    })
}

/// When a line was on the console, in seconds from the start of QEMU.
fn said(qemu: &Qemu, line: &str) -> Result<f64> {
    let deadline = Instant::now() + LONG;
    while !qemu.console().contains(line) {
        ensure!(Instant::now() < deadline, "no {line:?}: {}", qemu.logs());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(qemu.started.elapsed().as_secs_f64())
}

/// Prints the time from the start of an agent to its first reply, in a guest that is up, and how often it wakes up
/// there when no host is connected.
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
    drop(host);
    guest.wait_host_connected(false)?;
    let [ours, theirs] = [wakeups(&mut guest, "nanoga")?, wakeups(&mut guest, "qemu-ga")?];
    println!("{:<40} {ours:>12} {theirs:>12}", "in a guest, wake-ups in 5 s, no host");
    Ok(())
}

/// The command that starts a program on the port.
fn on_port(program: &str) -> String {
    format!("{program} -m virtio-serial -p /dev/$port -t /run </dev/null >/tmp/log 2>&1 & agent=$!")
}

/// How often an agent wakes up in five seconds in which no host is connected.
fn wakeups(guest: &mut Guest, program: &str) -> Result<u64> {
    guest.sh(&on_port(program))?;
    let process = guest.sh("sleep 1; echo $agent")?.trim().parse()?;
    let before = guest.status(process)?.switches;
    guest.sh("sleep 5")?;
    let after = guest.status(process)?.switches;
    guest.sh("kill -9 $agent; wait $agent; true")?;
    Ok(after - before)
}

fn start(guest: &mut Guest, host: &mut Client, program: &str) -> Result<Duration> {
    let asked = ask(host)?;
    let command = on_port(program);
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
