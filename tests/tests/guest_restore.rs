//! What an agent does for a guest that was restored from a snapshot, or slept for long: the channel, the clock, and the
//! kernel's random numbers.

use std::time::Duration;

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use nanoga_tests::wait_for;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

/// The number of `RNDADDENTROPY`, and of `RNDRESEEDCRNG`, as a trace shows them.
const ADD: &str = "40085203";
const RESEED: &str = "5207";

#[test]
fn a_machine_that_is_restored_goes_on_with_the_host_of_its_virtio_port() {
    let dir = tempfile::TempDir::new().unwrap();
    let state = dir.path().join("state");
    let mut machine = Machine::new(Board::Pc);
    let (mut guest, mut host, pid) = Guest::with_agent(&machine, "-v").unwrap();
    host.send(r#"{"execute": "guest-sync", "arguments": {"id": 1"#).unwrap();
    guest.settle(pid).unwrap();
    guest.save(&state).unwrap();
    drop((guest, host));
    std::thread::sleep(Duration::from_secs(4));

    machine.restore = Some(state);
    for clone in 0..2 {
        let mut guest = Guest::start(&machine).unwrap();
        // No 0xFF: the agent saw that the host of the first life has gone.
        guest.wait_host_connected(false).unwrap();
        let mut host = guest.connect("qga0").unwrap();
        guest.wait_host_connected(true).unwrap();
        let reply = host.call(&json!({ "execute": "guest-frobnicate", "id": clone })).unwrap();
        assert_eq!(error_text(&reply), "The command guest-frobnicate has not been found");
        assert_eq!(reply["id"], clone);
        assert_eq!(guest.sh("pidof nanoga").unwrap().trim(), pid.to_string());

        // Its clock stood still. This machine has none of KVM's, but one of its own that went on.
        assert!(behind_s(&mut host) > 3.0);
        host.ask("guest-set-time").unwrap();
        assert!(behind_s(&mut host).abs() < 2.0, "{}", behind_s(&mut host));
    }
}

#[test]
fn with_reseed_an_event_of_a_new_generation_id_is_heeded_and_no_other() {
    let (mut guest, _host, pid) = Guest::with_agent(&Machine::new(Board::Pc), "--reseed").unwrap();
    guest.settle(pid).unwrap();
    guest.trace_ioctls().unwrap();
    // This kernel does not tell of one. What can be written here arrives as SYNTH_ARG_VMGENID, not as NEW_VMGENID.
    let event = |name| format!("echo change 01234567-89ab-cdef-0123-456789abcdef {name}=1 >/sys/class/mem/null/uevent");
    guest.sh(&event("VMGENIT")).unwrap();
    guest.settle(pid).unwrap();
    assert_eq!(guest.traced_ioctls(RESEED).unwrap(), 0);
    guest.sh(&event("VMGENID")).unwrap();
    wait_for("a new seed", PATIENCE, || Ok((guest.traced_ioctls(RESEED)? == 1).then_some(()))).unwrap();
    assert_eq!(guest.wakeups_in_five_seconds(pid).unwrap(), 0);
}

/// Seconds that the guest's clock is behind this machine's.
fn behind_s(host: &mut Client) -> f64 {
    let guest_ns = host.ask("guest-get-time").unwrap().as_i64().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    now.as_secs_f64() - guest_ns as f64 / 1e9
}

#[test]
fn the_clock_of_the_host_goes_before_the_hardware_clock() {
    let mut machine = Machine::new(Board::Pc);
    machine.extras.generic_kernel = true;
    machine.extras.modules = vec!["e1000e"];
    machine.nic_with_clock = true;
    let (mut guest, mut host, _) = Guest::with_agent(&machine, "").unwrap();
    // Emulation has no KVM, whose clock this would be: that of a NIC takes its place, under its name.
    guest.sh("until [ -c /dev/ptp0 ]; do sleep 0.1; done").unwrap();
    guest.sh("date -s 2001-01-01; hwclock -w -u").unwrap();
    host.ask("guest-set-time").unwrap();
    assert!(guest.sh("date").unwrap().contains(" 2001"), "without a clock of the host");

    guest.sh("mkdir -p /tmp/class/ptp0; echo KVM virtual PTP >/tmp/class/ptp0/clock_name").unwrap();
    guest.sh("mount --bind /tmp/class /sys/class/ptp").unwrap();
    host.ask("guest-set-time").unwrap();
    // It shows the time of the boot, more or less.
    assert!(behind_s(&mut host).abs() < 600.0, "{}", guest.sh("date").unwrap());
}

#[test]
fn with_reseed_the_kernel_is_given_what_the_machine_s_source_has() {
    let mut machine = Machine::new(Board::Pc);
    machine.vsock = true;
    machine.rng = true;
    let mut guest = Guest::boot(&machine).unwrap();
    guest.trace_ioctls().unwrap();
    guest.start_agent("-m vsock-listen -p 4294967295:1024 --reseed").unwrap();
    let counts = |guest: &mut Guest| [ADD, RESEED].map(|number| guest.traced_ioctls(number).unwrap());
    wait_for("the seed of the start", PATIENCE, || Ok((counts(&mut guest) == [1, 2]).then_some(()))).unwrap();
    let mut host = guest.vsock().connect(1024).unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    wait_for("the seed of a host", PATIENCE, || Ok((counts(&mut guest) == [2, 4]).then_some(()))).unwrap();
    host.ask("guest-set-time").unwrap();
    wait_for("the seed of a new time", PATIENCE, || Ok((counts(&mut guest) == [3, 6]).then_some(()))).unwrap();
    assert_eq!(guest.sh("cat /tmp/nanoga.log | grep reseed || true").unwrap(), "");
}

#[test]
fn nobody_is_asked_for_seeds_without_reseed() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    guest.trace_ioctls().unwrap();
    host.ask("guest-set-time").unwrap();
    assert_eq!(guest.traced_ioctls(RESEED).unwrap(), 0);
}
