//! What the agent as the first process makes of the modules, the memory and the channels that a guest has.

use std::time::Duration;

use nanoga_tests::client::Client;
use nanoga_tests::find_program;
use nanoga_tests::guest::Guest;
use nanoga_tests::paths::Kernel;
use nanoga_tests::qemu::{Board, Machine};
use nanoga_tests::wait_for;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// The agent first, with a shell for the test as its program.
fn with_shell() -> Machine {
    let mut machine = Machine::new(Board::Pc);
    machine.extras.first = Some("[general]\nexec=/etc/shell\n".into());
    machine
}

/// Which ones it unpacks is in the hands of who built the kernel.
#[test]
fn a_compressed_module_is_unpacked_by_the_kernel_or_reported_and_never_fatal() {
    let kernel = Kernel::find().unwrap();
    let mut machine = with_shell();
    machine.extras.compressed = vec![("dummy", "xz"), ("ifb", "zst"), ("brd", "gz")];
    let mut guest = Guest::boot(&machine).unwrap();
    for ((name, extension), option) in machine.extras.compressed.iter().zip(["XZ", "ZSTD", "GZIP"]) {
        let unpacks = kernel.has("CONFIG_MODULE_DECOMPRESS").unwrap()
            && kernel.has(&format!("CONFIG_MODULE_COMPRESS_{option}")).unwrap();
        let loaded = guest.sh(&format!("[ -e /sys/module/{name} ] && echo loaded || true")).unwrap() == "loaded\n";
        let reported = guest.console().contains(&format!("nanoga: /modules/{name}.ko.{extension}: "));
        assert_eq!((loaded, reported), (unpacks, !unpacks), "{name}.ko.{extension}: {}", guest.console());
    }
    // Those that come behind were loaded.
    assert_eq!(guest.host("qga0").unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn memory_that_is_plugged_in_is_used_without_anybody_s_doing() {
    let states = "cat /sys/devices/system/memory/memory*/state | sort | uniq -c | tr -s ' '";
    let mut machine = with_shell();
    machine.spare_memory = true;
    let mut guest = Guest::boot(&machine).unwrap();
    // Two blocks of 128 MiB.
    assert_eq!(guest.sh(states).unwrap(), " 2 online\n");
    let had_kib = memory_kib(&mut guest);
    guest.plug_memory().unwrap();
    let four = || Ok((guest.sh(states)? == " 4 online\n").then_some(()));
    wait_for("four blocks online", PATIENCE, four).unwrap_or_else(|e| panic!("{e:#} {}", guest.sh(states).unwrap()));
    assert_eq!(memory_kib(&mut guest), had_kib + (256 << 10));

    // It is the agent's doing, where the kernel was not built to do it.
    if !Kernel::find().unwrap().has("CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE").unwrap() {
        machine.extras.first = None;
        let mut guest = Guest::boot(&machine).unwrap();
        guest.plug_memory().unwrap();
        let two = || Ok((guest.sh(states)? == " 2 offline\n 2 online\n").then_some(()));
        wait_for("two blocks offline", PATIENCE, two).unwrap();
    }
}

fn memory_kib(guest: &mut Guest) -> u64 {
    let line = guest.sh("grep MemTotal: /proc/meminfo").unwrap();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap()
}

/// A host in the guest, of the unix channel: says what it was told once, and keeps the connection.
const HOST: &str = r#"perl -e '$| = 1; socket(S, 1, 1, 0); connect(S, pack("Sa108", 1, "/run/qga")) or die $!;
    foreach (@ARGV) { syswrite(S, "$_\n"); print scalar(readline(S)); } sleep 1000;'"#;

#[test]
fn with_four_channels_in_use_the_first_process_has_at_most_48_kib_of_its_own() {
    let mut machine = with_shell();
    machine.vsock = true;
    machine.isa = true;
    machine.extras.programs = vec![find_program("perl").unwrap()];
    machine.words = " -- -m virtio-serial -m isa-serial -p /dev/ttyS1 -m unix-listen -p /run/qga -m vsock-listen \
                     -p 4294967295:1024 --ready console"
        .into();
    let mut guest = Guest::boot(&machine).unwrap();
    let vsock = wait_for("the agent to listen", PATIENCE, || Ok(guest.vsock().connect(1024).ok())).unwrap();
    let mut hosts: Vec<Client> = vec![guest.host("qga0").unwrap(), guest.host("isa").unwrap(), vsock];
    let commands = ["guest-ping", "guest-info", "guest-network-get-interfaces", "guest-get-osinfo", "guest-get-time"];
    for host in &mut hosts {
        for command in commands {
            host.ask(command).unwrap();
        }
    }
    let requests = commands.map(|command| format!("'{{\"execute\": \"{command}\"}}'")).join(" ");
    guest.sh(&format!("{HOST} {requests} >/tmp/replies 2>&1 &")).unwrap();
    wait_for("the replies on the unix channel", PATIENCE, || {
        Ok((guest.sh("grep -c '^{\"return\":' /tmp/replies || true")?.trim() == commands.len().to_string())
            .then_some(()))
    })
    .unwrap_or_else(|e| panic!("{e:#} {}", guest.sh("cat /tmp/replies").unwrap()));
    let status = guest.settle(1).unwrap();
    assert!(status.rss_anon_kib <= 48, "{status:?}");
    assert_eq!(guest.console().matches("nanoga: ready").count(), 1, "{}", guest.console());
    // All four are there still.
    assert_eq!(guest.sh("cat /proc/net/unix | grep -c '/run/qga$'").unwrap(), "2\n");
    for host in &mut hosts {
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
    assert_eq!(guest.wakeups_in_five_seconds(1).unwrap(), 0);
}
