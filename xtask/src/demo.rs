//! `cargo xtask demo`: builds the agent and has the conversation a host has with it, on this machine or in a guest.
//!
//! What is special about the channel is shown on the wire. Everything else goes through `nanoga-host`, as those do it
//! whose machine monitor has no client for its guests' agents.

mod screen;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine, accelerator};
use nanoga_tests::{paths, random};
use serde_json::json;
use xshell::{Shell, cmd};

use crate::provision;
pub use screen::NobodyReads;
use screen::{received, say, sent, show, timed, typed, written};

/// Lines of a long output that are shown.
const SHORT: usize = 12;

/// What QEMU may take to tell of the guest, under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// On a unix socket of this very machine. No root, no guest.
pub fn here(sh: &Shell, verbose: bool) -> Result<()> {
    build(sh)?;
    let agent = Agent::on_unix()?;
    let socket = agent.socket();
    say(&format!("The agent listens on {}, a socket like the one QEMU opens.", socket.display()))?;
    hello(&mut agent.connect()?)?;
    let host = Host::new(socket, verbose)?;
    host.asks()?;
    say("Whatever else the protocol has is sent as it stands.")?;
    host.run(&["raw", r#"{"execute":"guest-get-load"}"#])?;
    say(
        "That was the conversation a host has with a guest, with this machine as the guest: the channel brought in step, \
         the commands, the interfaces, and a program that was run in it.",
    )?;
    by_hand()?;
    show(
        "Next: `cargo xtask demo --vm` has it with a guest under QEMU and puts that to sleep; `cargo xtask test` checks \
         everything.",
    )
}

/// The same, typed.
fn by_hand() -> Result<()> {
    let dir = paths::target_dir();
    say("By hand:")?;
    typed(&format!("{} -m unix-listen -p /tmp/nanoga.sock -t /tmp &", dir.join("release/nanoga").display()))?;
    typed("export NANOGA_AGENT=/tmp/nanoga.sock")?;
    for words in ["info", "exec -- uname -srm"] {
        typed(&format!("{} {words}", dir.join("debug/nanoga-host").display()))?;
    }
    typed("kill $!")?;
    show("")
}

/// In a guest, over virtio-serial, with a sleep to RAM in between.
pub fn in_guest(sh: &Shell, verbose: bool) -> Result<()> {
    provision::programs(sh)?;
    provision::guest(sh)?;
    build(sh)?;
    let accel = timed("Finding out whether KVM runs guests here", accelerator)?;
    let mut machine = Machine::new(Board::Pc);
    machine.nic = true;
    let mut guest = timed(&format!("Booting a guest ({accel})"), || Guest::boot(&machine))?;
    guest.sh(
        "hostname demo; ip link set eth0 up; ip addr add 192.0.2.7/24 dev eth0; ip addr add 2001:db8::7/64 dev eth0",
    )?;
    guest.start_agent("")?;
    say("The agent runs in the guest; QEMU connects its virtio-serial port to a socket of ours.")?;
    hello(&mut guest.connect("qga0")?)?;
    let host = Host::new(guest.socket("qga0"), verbose)?;
    host.asks()?;
    say("A file goes there, and comes back.")?;
    host.run_with(&["write", "/tmp/greeting"], "hello, guest\n")?;
    host.run(&["read", "/tmp/greeting"])?;

    say("Now the guest shall sleep to RAM. An agent that obeys says nothing: nanoga-host only waits for a refusal.")?;
    host.run(&["suspend", "ram"])?;
    timed("QEMU's event SUSPEND", || guest.qmp.wait_event("SUSPEND", LONG))?;
    timed("system_wakeup, QEMU's event WAKEUP", || {
        guest.qmp.execute("system_wakeup", json!({}))?;
        guest.qmp.wait_event("WAKEUP", LONG)
    })?;
    say("Awake. The same process answers on the same port.")?;
    host.run(&["ping"])?;
    host.run(&["ip"])?;

    say("At last the guest shall end.")?;
    host.run(&["shutdown"])?;
    timed("QEMU's end", || guest.exited())?;
    say(
        "That was a guest under QEMU: the channel brought in step, the commands, the interfaces, a program, a file, a \
         sleep to RAM, the same agent after it, and the end.",
    )?;
    show("Next: `cargo xtask test` checks everything.")
}

/// Cargo's own words are only of interest if it fails.
fn build(sh: &Shell) -> Result<()> {
    let cargo = |what: &str, words: &[&str]| {
        timed(what, || {
            let output = cmd!(sh, "cargo build {words...}").quiet().ignore_status().output()?;
            if !output.status.success() {
                bail!("cargo build {}:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        })
    };
    cargo("Building the agent", &["--release"])?;
    cargo("Building nanoga-host, a client for it", &["-p", "nanoga-host"])
}

/// What a host does that does not know what an earlier one left in the channel.
fn hello(host: &mut Client) -> Result<()> {
    host.patience = LONG;
    let half = r#"{"execute": "guest-pi"#;
    say("Somebody left half a request in the channel; 0xFF and guest-sync-delimited bring it in step.")?;
    sent(&format!("'{half}' (cut off here)"))?;
    host.send(half)?;
    let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": random()? } });
    sent(&format!("0xFF {request}"))?;
    let start = Instant::now();
    host.send([b"\xff", request.to_string().as_bytes(), b"\n"].concat())?;
    let line = host.line()?;
    let took = start.elapsed();
    let shown = match line.strip_prefix(b"\xff") {
        Some(rest) => format!("0xFF {}", String::from_utf8_lossy(rest)),
        None => String::from_utf8_lossy(&line).into_owned(),
    };
    received(&shown, took)
}

/// `nanoga-host`, and the agent it asks.
struct Host {
    program: PathBuf,
    socket: PathBuf,
    verbose: bool,
}

impl Host {
    fn new(socket: PathBuf, verbose: bool) -> Result<Host> {
        say(
            "nanoga-host does the same whenever it connects, so that people and scripts need not. Is the agent there?",
        )?;
        let host = Host { program: paths::target_dir().join("debug/nanoga-host"), socket, verbose };
        typed(&format!("export NANOGA_AGENT={}", host.socket.display()))?;
        host.run(&["ping"])?;
        Ok(host)
    }

    /// What one asks any guest. The program has no effect on this machine.
    fn asks(&self) -> Result<()> {
        say("Who is it, and what can it do?")?;
        self.run(&["info"])?;
        say("What interfaces does it have?")?;
        self.run(&["ip"])?;
        say("It shall run a program.")?;
        self.run(&["exec", "--", "uname", "-srm"])
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        self.run_with(words, "")
    }

    /// Runs it with this on its standard input, and shows both.
    fn run_with(&self, words: &[&str], input: &str) -> Result<()> {
        let shown: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let shown = format!("nanoga-host {}", shown.join(" "));
        let given = if input.is_empty() { String::new() } else { format!("echo '{}' | ", input.trim_end()) };
        typed(&format!("{given}{shown}"))?;
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(words).env("NANOGA_AGENT", &self.socket);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        // If it does not take it, it says why.
        let _ = child.stdin.take().context("no pipe")?.write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        ensure!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        let most = if self.verbose { usize::MAX } else { SHORT };
        let said = [output.stdout, output.stderr].concat();
        written(&String::from_utf8_lossy(&said), most, took)
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    if word.contains(['"', ' ']) { format!("'{word}'") } else { word.to_owned() }
}
