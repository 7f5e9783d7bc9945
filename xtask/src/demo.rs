//! `cargo xtask demo`: builds the agent and has the conversation a host has with it, on this machine or in a guest.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine, accelerator};
use nanoga_tests::random;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::provision;

/// On a unix socket of this very machine. No root, no guest.
pub fn here(sh: &Shell) -> Result<()> {
    build(sh)?;
    let agent = Agent::on_unix()?;
    say(&format!("The agent listens on {}, a socket like the one QEMU opens.", agent.socket().display()));
    let mut host = agent.connect()?;
    hello(&mut host)?;
    questions(&mut host)
}

/// In a guest, over virtio-serial, with a sleep to RAM in between.
pub fn in_guest(sh: &Shell) -> Result<()> {
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
    say("The agent runs in the guest; QEMU connects its virtio-serial port to us.");
    hello(&mut host)?;
    questions(&mut host)?;

    say("Now the guest shall sleep to RAM. Success sends nothing: QEMU tells.");
    let request = json!({ "execute": "guest-suspend-ram" });
    sent(&request.to_string());
    host.send(request.to_string())?;
    timed("QEMU's event SUSPEND", || guest.qmp.wait_event("SUSPEND", Duration::from_secs(60)))?;
    timed("system_wakeup, QEMU's event WAKEUP", || {
        guest.qmp.execute("system_wakeup", json!({}))?;
        guest.qmp.wait_event("WAKEUP", Duration::from_secs(60))
    })?;
    say("Awake. The same process answers on the same port.");
    host.patience = Duration::from_secs(60);
    hello(&mut host)?;
    questions(&mut host)
}

fn build(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo build --release").run().context("building the agent")
}

/// What a host does that does not know what an earlier one left in the channel.
fn hello(host: &mut Client) -> Result<()> {
    let half = r#"{"execute": "guest-pi"#;
    say("Somebody left half a request in the channel; 0xFF and guest-sync-delimited bring it in step.");
    sent(half);
    host.send(half)?;
    let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": random()? } });
    sent(&format!("0xFF {request}"));
    let start = Instant::now();
    host.send([b"\xff", request.to_string().as_bytes(), b"\n"].concat())?;
    let line = host.line()?;
    let took = start.elapsed();
    let shown = match line.strip_prefix(b"\xff") {
        Some(rest) => format!("0xFF {}", String::from_utf8_lossy(rest)),
        None => String::from_utf8_lossy(&line).into_owned(),
    };
    received(&shown, took);
    Ok(())
}

fn questions(host: &mut Client) -> Result<()> {
    ask(host, "guest-info")?;
    let interfaces = ask(host, "guest-network-get-interfaces")?;
    table(&interfaces);
    Ok(())
}

fn ask(host: &mut Client, command: &str) -> Result<Value> {
    let request = json!({ "execute": command });
    sent(&request.to_string());
    let start = Instant::now();
    let reply = host.call(&request)?;
    received(&pretty(&reply), start.elapsed());
    Ok(reply["return"].clone())
}

/// One line an interface: name, hardware address, addresses, traffic.
fn table(interfaces: &Value) {
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
    println!();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("    {}", cells.join("  ").trim_end());
    }
}

/// JSON with a line for each member of the reply's value and each item of a list.
fn pretty(reply: &Value) -> String {
    let value = &reply["return"];
    match value {
        Value::Array(items) if !items.is_empty() => format!("{{\"return\": [\n{}\n  ]}}", lines(items)),
        Value::Object(members) if !members.is_empty() => {
            let member = |(key, value): (&String, &Value)| match value {
                Value::Array(items) => format!("    {key:?}: [\n{}\n    ]", lines(items)),
                other => format!("    {key:?}: {other}"),
            };
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{\"return\": {{\n{}\n  }}}}", members.join(",\n"))
        }
        _ => reply.to_string(),
    }
}

fn lines(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("      {item}")).collect();
    items.join(",\n")
}

fn say(text: &str) {
    println!("\n{}", coloured("1", text));
}

fn sent(text: &str) {
    println!("{} {text}", coloured("36", "→"));
}

fn received(text: &str, took: Duration) {
    let took = format!("{:.2} ms", took.as_secs_f64() * 1000.0);
    println!("{} {text}  {}", coloured("32", "←"), coloured("2", &took));
}

/// Does something that takes a while and says so before.
fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("{what} … ");
    stdout().flush()?;
    let start = Instant::now();
    let value = step()?;
    println!("{:.1} s", start.elapsed().as_secs_f64());
    Ok(value)
}

fn coloured(code: &str, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
