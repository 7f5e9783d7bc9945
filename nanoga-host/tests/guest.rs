//! The program against an agent in a booted guest: from the host by a machine monitor's vsock socket, and inside the
//! guest, where it is nobody's host and must be refused.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use serde_json::{Value, json};

#[test]
fn a_guest_is_asked_by_the_vsock_socket_of_its_machine_monitor() {
    let mut guest = Guest::boot(&machine()).unwrap();
    start(&mut guest, "");
    let address = format!("hybrid:{}:1024", guest.vsock().host_socket().display());
    let host = |words: &[&str]| text(&host(&address, words));
    assert!(host(&["ping"]).contains("answered in "));
    let kernel = guest.sh("uname -r").unwrap();
    assert!(host(&["info"]).contains(kernel.trim()));
    assert!(host(&["ip"]).contains("127.0.0.1/8"));
    let links: Value = serde_json::from_str(&host(&["--json", "ip"])).unwrap();
    assert_eq!(links[0]["name"], "lo");
    guest.sh("echo of the guest >/tmp/file").unwrap();
    assert_eq!(host(&["read", "/tmp/file"]), "of the guest\n");
    assert_eq!(host(&["exec", "--", "uname", "-r"]), kernel);
}

#[test]
fn a_program_of_the_guest_is_not_its_host() {
    let mut guest = Guest::boot(&machine()).unwrap();
    // Its own CID leads to the same place as the one of loopback.
    for peer in ["", "--vsock-peer host", "--vsock-peer privileged"] {
        start(&mut guest, peer);
        for cid in [1, 3] {
            let said = guest.sh(&format!("! nanoga-host -a vsock:{cid}:1024 ping")).unwrap();
            assert!(said.contains("the agent does not answer") || said.contains("cannot send"), "{peer}: {said}");
        }
        let log = guest.sh("cat /tmp/nanoga.log").unwrap();
        assert_eq!(log.matches("refused a connection").count(), 2, "{peer}: {log}");
        // Those who are refused are in nobody's way.
        // (This device gives the host's end a port below 1024, whoever the host is.)
        guest.vsock().connect(1024).unwrap().ask("guest-ping").unwrap();
        guest.sh("killall nanoga; rm /tmp/nanoga.log").unwrap();
    }
    start(&mut guest, "--vsock-peer any");
    for cid in [1, 3] {
        let said = guest.sh(&format!("nanoga-host -a vsock:{cid}:1024 ping")).unwrap();
        assert!(said.contains("answered in "), "{said}");
    }
    assert!(guest.vsock().connect(1024).unwrap().ask("guest-ping").is_ok());
}

#[test]
fn a_socket_of_the_guest_and_three_lines_of_the_host_are_served_together() {
    let mut machine = machine();
    machine.isa = true;
    let mut guest = Guest::boot(&machine).unwrap();
    start(&mut guest, "-m unix-listen -p /tmp/ga -m isa-serial -p /dev/ttyS1 -m virtio-serial");
    let mut virtio = guest.host("qga0").unwrap();
    let mut isa = guest.host("isa").unwrap();
    let mut vsock = guest.vsock().connect(1024).unwrap();
    let requests = "{\"execute\":\"guest-info\"}\n".repeat(1_000);
    for host in [&mut virtio, &mut isa, &mut vsock] {
        // Nobody reads the replies.
        host.send(&requests).unwrap();
        let said = guest.sh("nanoga-host -a /tmp/ga ping").unwrap();
        assert!(said.contains("answered in "), "{said}");
    }
}

#[test]
fn a_guest_is_put_to_sleep_and_ended() {
    let (mut guest, agent, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    drop(agent);
    let address = guest.socket("qga0").display().to_string();
    assert_eq!(text(&host(&address, &["--timeout", "2", "suspend"])), "");
    guest.qmp.wait_event("SUSPEND", Duration::from_secs(60)).unwrap();
    guest.qmp.execute("system_wakeup", json!({})).unwrap();
    guest.qmp.wait_event("WAKEUP", Duration::from_secs(60)).unwrap();
    assert!(text(&host(&address, &["ping"])).contains("answered in "));

    // There is no disk to sleep on.
    let refused = host(&address, &["suspend", "disk"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not supported by the guest"), "{refused:?}");

    assert_eq!(text(&host(&address, &["shutdown"])), "");
    guest.exited().unwrap();
}

fn machine() -> Machine {
    let mut machine = Machine::new(Board::Pc);
    machine.vsock = true;
    machine.extras.modules = vec!["vsock_loopback"];
    machine.extras.programs = vec![program()];
    machine
}

/// Starts the agent and waits until it listens.
fn start(guest: &mut Guest, more: &str) {
    let listening = guest.vsock().listen(5000).unwrap();
    guest.start_agent(&format!("-v -m vsock-listen -p 4294967295:1024 --ready vsock:5000 {more}")).unwrap();
    listening.accept().unwrap();
    std::fs::remove_file(guest.vsock().host_socket().with_extension("host_5000")).unwrap();
}

/// The program, beside the tests. (Cargo names it in a variable with a hyphen, which a shell between it and the
/// compiler takes away.)
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.ancestors().nth(2).expect("it lies in deps").join("nanoga-host")
}

fn host(address: &str, words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program()).args(["-a", address]).args(words);
    command.env_remove("NANOGA_AGENT").stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
