//! What the agent as the first process survives: memory that runs out, channels that are not there, signals for
//! anybody. Each time the guest still answers.

use std::time::Duration;

use nanoga_tests::client::Client;
use nanoga_tests::qemu::{Board, Machine, Qemu};
use nanoga_tests::{random, wait_for};
use serde_json::{Value, json};

/// What a boot and an end may take under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A machine whose first process is the agent, with this configuration and this script.
fn first(board: Board, conf: &str, script: &str) -> Machine {
    let mut machine = Machine::new(board);
    machine.extras.first = Some(format!("[general]\n{conf}"));
    machine.extras.files.push(("script".into(), format!("#!/bin/sh\n{script}\n")));
    machine
}

/// Boots it, and waits until the agent answers.
fn boot(machine: &Machine, chardev: &str) -> (Qemu, Client) {
    let qemu = Qemu::start(machine).unwrap();
    let mut host = qemu.connect(chardev).unwrap();
    // What comes on a serial line before the agent opens it is dropped: ask again.
    host.patience = Duration::from_secs(2);
    let answers = wait_for("the agent to answer", LONG, || Ok(host.sync_delimited().ok()));
    answers.unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    host.patience = LONG;
    (qemu, host)
}

/// Starts a command of a shell, and waits for its end: its status.
fn run(host: &mut Client, command: &str) -> Value {
    let request = json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", command] } });
    let pid = host.call(&request).unwrap()["return"]["pid"].clone();
    assert!(pid.is_i64(), "{command}");
    let status = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
    wait_for("a command to end", LONG, || {
        let status = host.call(&status)?["return"].take();
        Ok((status["exited"] == true).then_some(status))
    })
    .unwrap()
}

#[test]
fn when_memory_runs_out_programs_are_killed_and_the_guest_answers() {
    // A line without end, and one that a host starts.
    let (mut qemu, mut host) = boot(&first(Board::Pc, "exec=/script\non-exit=stay\n", "exec tail /dev/zero"), "qga0");
    qemu.wait_console("/script was killed by signal 9").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    assert_eq!(run(&mut host, "exec tail /dev/zero"), json!({ "exited": true, "signal": 9 }));
    assert!(host.ask("guest-network-get-interfaces").unwrap()[0]["name"].is_string());
    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    qemu.exited().unwrap();
}

#[test]
fn a_channel_that_is_not_there_stops_neither_the_others_nor_the_program() {
    let mut machine = first(Board::Pc, "exec=/script\n", "echo it runs; exec sleep 1000");
    machine.isa = true;
    let dead = "-m isa-serial -p /dev/ttyS7 -m unix-listen -p /no/such/folder/qga";
    machine.words = format!(" -- {dead} -m virtio-serial -m isa-serial -p /dev/ttyS1");
    let (qemu, mut virtio) = boot(&machine, "qga0");
    let mut serial = qemu.connect("isa").unwrap();
    serial.sync_delimited().unwrap();
    for host in [&mut virtio, &mut serial] {
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
    qemu.wait_console("it runs").unwrap();

    // With none at all there is still the program, and a way to the end; and with children of who was there before it.
    machine.extras.files.push(("early".into(), "#!/bin/sh\nsleep 1000 &\nexec /init\n".into()));
    machine.words = format!(" rdinit=/early -- {dead} --ready console");
    let mut qemu = Qemu::start(&machine).unwrap();
    qemu.wait_console("it runs").unwrap();
    press_ctrl_alt_del(&mut qemu);
    qemu.exited().unwrap();
    assert!(!qemu.console().contains("nanoga: ready"), "{}", qemu.logs());
}

fn press_ctrl_alt_del(qemu: &mut Qemu) {
    let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
    qemu.qmp.execute("send-key", json!({ "keys": keys })).unwrap();
}

#[test]
fn a_device_that_never_comes_is_waited_for_not_for_ever_and_named() {
    let mut machine = first(Board::Pc, "exec=/script\n", "echo it runs; exec sleep 1000");
    machine.words = " resume=/dev/nowhere".into();
    let (qemu, mut host) = boot(&machine, "qga0");
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    qemu.wait_console("it runs").unwrap();
    for said in ["waiting for /dev/nowhere", "/dev/nowhere is still missing: going on without it"] {
        assert!(qemu.console().contains(&format!("nanoga: {said}")), "{said}: {}", qemu.logs());
    }
}

#[test]
fn who_wants_the_end_while_a_device_is_waited_for_gets_it_afterwards() {
    let mut machine = first(Board::Pc, "exec=/script\n", "exec sleep 1000");
    machine.words = " ip=10.0.0.2:::24::eth9".into();
    let mut qemu = Qemu::start(&machine).unwrap();
    qemu.wait_console("nanoga: waiting for 10.0.0.2:::24::eth9").unwrap();
    press_ctrl_alt_del(&mut qemu);
    let event = qemu.qmp.wait_event("SHUTDOWN", LONG).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    assert_eq!(event["data"]["reason"], "guest-shutdown", "{}", qemu.logs());
    qemu.exited().unwrap();
}

/// The kernel finds nothing there but the serial ports, and cannot power off.
#[test]
fn without_virtio_and_acpi_the_serial_line_does_it_all() {
    let mut machine = first(Board::BareMicrovm, "exec=/script\ngrace=1\n", "exec sleep 1000");
    machine.isa = true;
    machine.words = " -- -m isa-serial -p /dev/ttyS1".into();
    let (mut qemu, mut host) = boot(&machine, "isa");
    assert!(host.ask("guest-info").unwrap()["version"].is_string());
    assert_eq!(run(&mut host, "exit 7"), json!({ "exited": true, "exitcode": 7 }));
    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    qemu.qmp.wait_event("SHUTDOWN", LONG).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    qemu.exited().unwrap();
}

/// Any signal for any process, those of the kernel and the first one among them: but for the signals that end the
/// guest.
#[test]
fn random_signals_for_every_process_leave_an_agent_that_answers() {
    let script = "echo started\nwhile :; do sleep 0.05; done";
    let (qemu, mut host) = boot(&first(Board::Pc, "exec=/script\non-exit=restart\n", script), "qga0");
    let seed = random().unwrap();
    for round in 0..10 {
        // Every process there is, itself last; awk's numbers are the same again for the same seed.
        let kill = format!(
            "for process in $(ls /proc | grep '^[0-9]*$' | grep -vx $$) $$; do echo $process; done | \
             awk 'BEGIN {{ srand({seed} + {round}) }} {{ signal = 1 + int(rand() * 64); \
             if ($1 != 1 || (signal != 2 && signal != 15 && signal != 30)) print \"kill -\" signal, $1 }}' | sh; kill -CONT -1"
        );
        let request = json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", kill] } });
        assert!(host.call(&request).unwrap()["return"]["pid"].is_i64(), "seed {seed}, round {round}");
        let pong =
            host.ask("guest-ping").unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e:#} {}", qemu.logs()));
        assert_eq!(pong, json!({}));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(run(&mut host, "exit 3"), json!({ "exited": true, "exitcode": 3 }), "seed {seed}");
    // What it had to start anew shows that the signals arrived.
    let again = || Ok((qemu.console().matches("started").count() > 1).then_some(()));
    wait_for("the program to be started anew", LONG, again)
        .unwrap_or_else(|e| panic!("seed {seed}: {e:#} {}", qemu.logs()));
}
