//! `cargo xtask demo`: builds the agent and has the conversation a host has with it, on this machine or in a guest.

use std::fmt;
use std::io::{self, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nanoga_tests::agent::Agent;
use nanoga_tests::client::{Client, base64_decode};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine, accelerator};
use nanoga_tests::{random, wait_for};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::provision;

/// Lines of a long reply that are shown.
const SHORT: usize = 12;

/// The error of a demo whose output nobody reads any more: `cargo xtask demo | head`.
#[derive(Debug)]
pub struct NobodyReads;

impl fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nobody reads the output")
    }
}

impl std::error::Error for NobodyReads {}

/// On a unix socket of this very machine. No root, no guest.
pub fn here(sh: &Shell, verbose: bool) -> Result<()> {
    build(sh)?;
    let agent = Agent::on_unix()?;
    say(&format!("The agent listens on {}, a socket like the one QEMU opens.", agent.socket().display()))?;
    let mut host = agent.connect()?;
    hello(&mut host)?;
    info(&mut host)?;
    interfaces(&mut host, verbose)?;
    system(&mut host)?;
    program(&mut host)?;
    say(
        "That was the conversation a host has with a guest, with this machine as the guest: the channel brought in step, \
         the commands, the interfaces, the system and a program that was run in it.",
    )?;
    show(
        "Next: `cargo xtask demo --vm` has it with a guest under QEMU and puts that to sleep; `cargo xtask test` checks \
          everything.",
    )
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
    guest.sh("ip link set eth0 up; ip addr add 192.0.2.7/24 dev eth0; ip addr add 2001:db8::7/64 dev eth0")?;
    guest.start_agent("")?;
    let mut host = guest.connect("qga0")?;
    say("The agent runs in the guest; QEMU connects its virtio-serial port to us.")?;
    hello(&mut host)?;
    info(&mut host)?;
    interfaces(&mut host, verbose)?;
    system(&mut host)?;
    program(&mut host)?;

    say("Now the guest shall sleep to RAM. Success sends nothing: QEMU tells.")?;
    let request = json!({ "execute": "guest-suspend-ram" });
    sent(&request.to_string())?;
    host.send(request.to_string())?;
    timed("QEMU's event SUSPEND", || guest.qmp.wait_event("SUSPEND", Duration::from_secs(60)))?;
    timed("system_wakeup, QEMU's event WAKEUP", || {
        guest.qmp.execute("system_wakeup", json!({}))?;
        guest.qmp.wait_event("WAKEUP", Duration::from_secs(60))
    })?;
    say("Awake. The same process answers on the same port.")?;
    host.patience = Duration::from_secs(60);
    hello(&mut host)?;
    interfaces(&mut host, verbose)?;
    say(
        "That was a guest under QEMU: the channel brought in step, the commands, the interfaces, a sleep to RAM, and \
         the same agent after it.",
    )?;
    show("Next: `cargo xtask test` checks everything.")
}

/// Cargo's own words are only of interest if it fails.
fn build(sh: &Shell) -> Result<()> {
    timed("Building the agent", || {
        let output = cmd!(sh, "cargo build --release").quiet().ignore_status().output()?;
        if !output.status.success() {
            bail!("cargo build --release:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    })
}

/// What a host does that does not know what an earlier one left in the channel.
fn hello(host: &mut Client) -> Result<()> {
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

fn info(host: &mut Client) -> Result<()> {
    say("Who is there, and what can it do?")?;
    let (reply, took) = ask(host, "guest-info")?;
    received(&lines(&reply), took)
}

fn interfaces(host: &mut Client, verbose: bool) -> Result<()> {
    say("What interfaces does it have?")?;
    let (reply, took) = ask(host, "guest-network-get-interfaces")?;
    let text = serde_json::to_string_pretty(&reply)?;
    let all: Vec<&str> = text.lines().collect();
    if verbose || all.len() <= SHORT {
        received(&text, took)?;
    } else {
        let rest = all.len() - SHORT;
        received(&format!("{}\n  … {rest} more lines (--verbose shows them)", all[..SHORT].join("\n")), took)?;
    }
    table(&reply["return"])
}

fn system(host: &mut Client) -> Result<()> {
    say("What system is it?")?;
    let (reply, took) = ask(host, "guest-get-osinfo")?;
    received(&lines(&reply), took)
}

/// A program that has no effect on this machine.
fn program(host: &mut Client) -> Result<()> {
    say("It shall run a program. The output comes in base64 when it has ended.")?;
    let arguments = json!({ "path": "uname", "arg": ["-srm"], "capture-output": true });
    let (started, took) = request(host, &json!({ "execute": "guest-exec", "arguments": arguments }))?;
    received(&started.to_string(), took)?;
    let ask = json!({ "execute": "guest-exec-status", "arguments": { "pid": started["return"]["pid"] } });
    let ended = wait_for("the program to end", Duration::from_secs(20), || {
        let (reply, took) = request(host, &ask)?;
        Ok((reply["return"]["exited"] != false).then_some((reply, took)))
    });
    let (reply, took) = ended?;
    received(&lines(&reply), took)?;
    let output = base64_decode(reply["return"]["out-data"].as_str().unwrap_or_default());
    show(&format!("    That is: {}", String::from_utf8_lossy(&output).trim_end()))
}

fn ask(host: &mut Client, command: &str) -> Result<(Value, Duration)> {
    request(host, &json!({ "execute": command }))
}

fn request(host: &mut Client, request: &Value) -> Result<(Value, Duration)> {
    sent(&request.to_string())?;
    let start = Instant::now();
    let reply = host.call(request)?;
    Ok((reply, start.elapsed()))
}

/// One line an interface: name, hardware address, addresses, traffic.
fn table(interfaces: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut rows = vec![["interface", "hardware address", "addresses", "received", "sent"].map(str::to_owned)];
    for interface in interfaces.as_array().into_iter().flatten() {
        let addresses = interface["ip-addresses"].as_array().into_iter().flatten();
        let addresses = addresses.map(|a| format!("{}/{}", text(&a["ip-address"]), a["prefix"]));
        let bytes = |key: &str| interface["statistics"][key].as_u64().map_or("-".into(), |n| format!("{n} B"));
        rows.push([
            text(&interface["name"]),
            text(&interface["hardware-address"]),
            addresses.collect::<Vec<_>>().join(" "),
            bytes("rx-bytes"),
            bytes("tx-bytes"),
        ]);
    }
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    show("")?;
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        show(&format!("    {}", cells.join("  ").trim_end()))?;
    }
    Ok(())
}

/// JSON with a line for each member of the reply's value and each item of a list in it.
fn lines(reply: &Value) -> String {
    let Value::Object(members) = &reply["return"] else {
        return reply.to_string();
    };
    let member = |(key, value): (&String, &Value)| match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| format!("      {item}")).collect();
            format!("    {key:?}: [\n{}\n    ]", items.join(",\n"))
        }
        other => format!("    {key:?}: {other}"),
    };
    let members: Vec<String> = members.iter().map(member).collect();
    format!("{{\"return\": {{\n{}\n  }}}}", members.join(",\n"))
}

fn say(text: &str) -> Result<()> {
    show(&format!("\n{}", coloured("1", text)))
}

fn sent(text: &str) -> Result<()> {
    show(&format!("{} {text}", coloured("36", "→")))
}

fn received(text: &str, took: Duration) -> Result<()> {
    let took = format!("took {:.2} ms", took.as_secs_f64() * 1000.0);
    show(&format!("{} {text}  {}", coloured("32", "←"), coloured("2", &took)))
}

/// Does something that takes a while and says so before.
fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    write(&format!("{what} … "))?;
    let start = Instant::now();
    let result = step();
    let end = if result.is_ok() { "took" } else { "failed after" };
    show(&format!("{end} {:.1} s", start.elapsed().as_secs_f64()))?;
    result
}

fn coloured(code: &str, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn show(text: &str) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Where `println!` would panic, this is [`NobodyReads`].
fn write(text: &str) -> Result<()> {
    let mut stdout = stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        result => Ok(result?),
    }
}
