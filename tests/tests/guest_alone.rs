//! A guest of nothing but the agent: its file, its settings, the kernel's modules. The program it runs, and that hosts
//! run, is the agent itself, which is the only one there is.

use std::time::Duration;

use nanoga_tests::agent::Status;
use nanoga_tests::client::{Client, base64_decode};
use nanoga_tests::paths::Kernel;
use nanoga_tests::qemu::{Board, Machine, Qemu};
use nanoga_tests::wait_for;
use serde_json::{Value, json};

/// What a boot and an end may take under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn on_pc_the_agent_is_all_that_a_guest_needs() {
    is_all_that_a_guest_needs(Board::Pc, "x86_64");
}

#[test]
fn on_microvm_the_agent_is_all_that_a_guest_needs() {
    is_all_that_a_guest_needs(Board::Microvm, "x86_64");
}

#[test]
#[ignore = "a step of its own of `cargo xtask test`, which has what it needs"]
fn on_aarch64_the_agent_is_all_that_a_guest_needs() {
    is_all_that_a_guest_needs(Board::Virt, "aarch64");
}

#[test]
#[ignore = "a step of its own of `cargo xtask test`, which has what it needs"]
fn on_aarch64_a_reboot_is_one() {
    let (mut qemu, mut host) = boot(Board::Virt);
    host.send(r#"{"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}"#).unwrap();
    assert_eq!(end(&mut qemu), "guest-reset", "{}", qemu.logs());
}

fn is_all_that_a_guest_needs(board: Board, processor: &str) {
    let (mut qemu, mut host) = boot(board);
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    assert!(host.ask("guest-info").unwrap()["version"].is_string());
    let system = host.ask("guest-get-osinfo").unwrap();
    let kernel = if board == Board::Virt { Kernel::find_aarch64() } else { Kernel::find() }.unwrap();
    assert_eq!(system["kernel-release"], kernel.modules.file_name().unwrap().to_str().unwrap());
    assert_eq!(system["machine"], processor);
    assert_eq!(host.ask("guest-get-host-name").unwrap(), json!({ "host-name": "anna" }));
    let interfaces = host.ask("guest-network-get-interfaces").unwrap();
    let card = interfaces.as_array().unwrap().iter().find(|one| one["name"] != "lo").unwrap();
    assert_eq!(card["hardware-address"], "52:54:00:12:34:56");
    let address = json!({ "ip-address": "10.0.2.15", "ip-address-type": "ipv4", "prefix": 24 });
    assert!(card["ip-addresses"].as_array().unwrap().contains(&address), "{interfaces}");

    let version = run(&mut host, "/init", &["-V"]);
    assert!(version.starts_with("nanoga ") && version.ends_with('\n'), "{version:?}");
    // The same as its own program.
    qemu.wait_console(version.trim()).unwrap();
    qemu.wait_console("/init ended with status 0").unwrap();

    let status = Status::parse(&read(&mut host, "/proc/1/status"), &read(&mut host, "/proc/1/smaps_rollup")).unwrap();
    assert!(status.rss_anon_kib <= 48, "{status:?}");

    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    assert_eq!(end(&mut qemu), "guest-shutdown", "{}", qemu.logs());
    // Silent, as the protocol wants it.
    host.expect_end().unwrap();
}

/// Boots it, and waits until the agent answers.
fn boot(board: Board) -> (Qemu, Client) {
    let mut machine = Machine::new(board);
    machine.only_agent = true;
    machine.nic = true;
    machine.extras.first = Some("[general]\nexec=/init -V\non-exit=stay\nhostname=anna\n".into());
    machine.words = " ip=10.0.2.15::10.0.2.2:255.255.255.0".into();
    let qemu = Qemu::start(&machine).unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    (qemu, host)
}

/// Waits for the end of a machine that ends itself, and why QEMU says it did.
fn end(qemu: &mut Qemu) -> String {
    let event = qemu.qmp.wait_event("SHUTDOWN", LONG).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    qemu.exited().unwrap();
    event["data"]["reason"].as_str().unwrap().to_owned()
}

/// What a program writes that ends well.
fn run(host: &mut Client, program: &str, words: &[&str]) -> String {
    let request = json!({ "path": program, "arg": words, "capture-output": true });
    let pid = ask(host, "guest-exec", &request)["pid"].clone();
    let ended = wait_for("the program to end", LONG, || {
        let status = ask(host, "guest-exec-status", &json!({ "pid": pid }));
        Ok((status["exited"] == true).then_some(status))
    });
    let ended = ended.unwrap();
    assert_eq!(ended["exitcode"], 0, "{ended}");
    String::from_utf8(base64_decode(ended["out-data"].as_str().unwrap())).unwrap()
}

/// A file of the guest.
fn read(host: &mut Client, path: &str) -> String {
    let handle = ask(host, "guest-file-open", &json!({ "path": path }));
    let content = ask(host, "guest-file-read", &json!({ "handle": handle }));
    ask(host, "guest-file-close", &json!({ "handle": handle }));
    String::from_utf8(base64_decode(content["buf-b64"].as_str().unwrap())).unwrap()
}

fn ask(host: &mut Client, command: &str, arguments: &Value) -> Value {
    let reply = host.call(&json!({ "execute": command, "arguments": arguments })).unwrap();
    assert!(reply.get("return").is_some(), "{command} answered {reply}");
    reply["return"].clone()
}
