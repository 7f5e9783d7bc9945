//! Sleep: to RAM, to disk and both, refused where the guest cannot do it, and through the scripts of pm-utils.

use std::path::Path;
use std::time::Duration;

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine, make_disk};
use nanoga_tests::random;
use serde_json::json;
use tempfile::TempDir;

const REFUSED: &str = "the requested suspend mode is not supported by the guest";

/// Writing and reading 100 MB of image under emulation.
const SLEEP: Duration = Duration::from_secs(60);

#[test]
fn on_pc_it_sleeps_to_ram_and_answers_after_the_wakeup() {
    sleeps_to_ram(Board::Pc);
}

#[test]
fn on_q35_it_sleeps_to_ram_and_answers_after_the_wakeup() {
    sleeps_to_ram(Board::Q35);
}

#[test]
fn sleep_to_ram_selects_deep_and_restores_what_was_selected() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    guest.sh("echo s2idle >/sys/power/mem_sleep").unwrap();
    sleep_and_wake(&mut guest, &mut host, "guest-suspend-ram");
    assert_eq!(guest.sh("cat /sys/power/mem_sleep").unwrap(), "[s2idle] deep\n");
}

#[test]
fn a_host_that_asks_for_sleep_and_leaves_at_once_is_obeyed() {
    // The answer to the ping is for nobody.
    for requests in
        [r#"{"execute": "guest-suspend-ram"}"#, r#"{"execute": "guest-ping"}{"execute": "guest-suspend-ram"}"#]
    {
        let mut tries = 0;
        while !is_obeyed(requests) {
            tries += 1;
            assert!(tries < 3, "the guest's kernel broke each time");
        }
    }
}

/// Sends this, leaves, and wakes the guest up. False if the guest's kernel broke: the driver of Linux 6.1 trips over
/// its own feet when it hears that the host has gone while it puts the device to sleep.
fn is_obeyed(requests: &str) -> bool {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    host.send(requests).unwrap();
    drop(host);
    guest.qmp.wait_event("SUSPEND", SLEEP).unwrap_or_else(|e| panic!("{requests}: {e:#}"));
    guest.qmp.execute("system_wakeup", json!({})).unwrap();
    guest.qmp.wait_event("WAKEUP", SLEEP).unwrap();
    let mut host = guest.connect("qga0").unwrap();
    host.patience = SLEEP;
    match host.sync_delimited() {
        Err(_) if guest.console().contains("control_work_handler") => return false,
        lines => assert_eq!(lines.unwrap(), [""; 0]),
    }
    // The worker, which woke up too, still has to end: one sleep at a time.
    guest.sh("while pidof nanoga | grep -q ' '; do sleep 0.05; done").unwrap();
    true
}

/// The second QEMU knows nothing but the disk. What answers in it knows the first half of a request that only the
/// process in the first one was ever sent, because it lies in that process's parser.
#[test]
fn from_a_sleep_to_disk_the_very_same_process_comes_back() {
    let dir = TempDir::new().unwrap();
    let mut machine = with_swap(dir.path());
    machine.isa = true;
    let mark = random().unwrap().to_string();

    let args = "-m virtio-serial -m isa-serial -p /dev/ttyS1";
    let (mut guest, mut host, pid) = Guest::with_agent(&machine, args).unwrap();
    swap_on(&mut guest);
    let mut isa = guest.host("isa").unwrap();
    isa.send(format!("{{\"execute\": \"guest-ping\", \"id\": \"{mark}")).unwrap();
    guest.settle(pid).unwrap();
    host.send(r#"{"execute": "guest-suspend-disk"}"#).unwrap();
    guest.exited().unwrap();
    host.expect_end().unwrap();

    machine.resume = true;
    let guest = Guest::start(&machine).unwrap();
    let mut isa = guest.connect("isa").unwrap();
    let mut host = guest.connect("qga0").unwrap();
    host.patience = SLEEP;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", guest.logs()));
    isa.send("\"}").unwrap();
    assert_eq!(isa.reply().unwrap(), json!({ "return": {}, "id": mark }));
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn after_a_hybrid_sleep_it_answers_and_the_settings_are_as_before() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = Guest::with_agent(&with_swap(dir.path()), "").unwrap();
    swap_on(&mut guest);
    let before = guest.sh("cat /sys/power/disk").unwrap();
    sleep_and_wake(&mut guest, &mut host, "guest-suspend-hybrid");
    assert_eq!(guest.sh("cat /sys/power/disk").unwrap(), before);
}

#[test]
fn a_hybrid_sleep_that_lost_power_resumes_from_disk() {
    let dir = TempDir::new().unwrap();
    let mut machine = with_swap(dir.path());
    let (mut guest, mut host, pid) = Guest::with_agent(&machine, "").unwrap();
    swap_on(&mut guest);
    host.send(r#"{"execute": "guest-suspend-hybrid"}"#).unwrap();
    guest.qmp.wait_event("SUSPEND", SLEEP).unwrap();
    drop(guest);

    machine.resume = true;
    let mut guest = Guest::start(&machine).unwrap();
    let mut host = guest.connect("qga0").unwrap();
    host.patience = SLEEP;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", guest.logs()));
    assert_eq!(guest.sh("pidof nanoga").unwrap().trim(), pid.to_string());
}

#[test]
fn without_swap_disk_and_hybrid_are_refused_and_ram_still_works() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    refused(&mut host, "guest-suspend-disk");
    refused(&mut host, "guest-suspend-hybrid");
    sleep_and_wake(&mut guest, &mut host, "guest-suspend-ram");
}

#[test]
fn on_microvm_which_nothing_could_wake_every_sleep_is_refused() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Microvm), "").unwrap();
    assert!(!guest.sh("cat /sys/power/mem_sleep").unwrap().contains("deep"));
    for mode in ["guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid"] {
        refused(&mut host, mode);
    }
}

#[test]
fn without_s3_ram_and_hybrid_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut machine = with_swap(dir.path());
    machine.s3 = false;
    let (mut guest, mut host, _) = Guest::with_agent(&machine, "").unwrap();
    swap_on(&mut guest);
    assert!(!guest.sh("cat /sys/power/mem_sleep").unwrap().contains("deep"));
    refused(&mut host, "guest-suspend-ram");
    refused(&mut host, "guest-suspend-hybrid");
}

#[test]
fn a_script_of_pm_utils_is_used_first_and_other_channels_are_served_meanwhile() {
    let (mut guest, [mut host, mut other]) = Guest::with_two_hosts().unwrap();
    guest.script("/usr/sbin/pm-is-supported", r#"[ "$*" = --suspend ]"#).unwrap();
    guest.slow_script("/usr/sbin/pm-suspend").unwrap();

    host.send(r#"{"execute": "guest-suspend-ram", "id": ["its", "own"]}"#).unwrap();
    guest.wait_started().unwrap();
    assert_eq!(other.ask("guest-ping").unwrap(), json!({}));
    host.expect_silence(Duration::from_millis(200)).unwrap();
    guest.go(7).unwrap();
    let reply = host.reply().unwrap();
    assert_eq!(error_text(&reply), "the helper program 'pm-suspend' returned an unexpected exit status code (7)");
    assert_eq!(reply["id"], json!(["its", "own"]));

    // Success sends nothing: the next answer is that of the next request.
    host.send(r#"{"execute": "guest-suspend-ram", "id": 1}{"execute": "guest-ping", "id": 2}"#).unwrap();
    guest.wait_started().unwrap();
    guest.go(0).unwrap();
    assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": 2 }));
}

#[test]
fn while_one_channel_sleeps_another_is_refused_at_once() {
    let (mut guest, [mut host, mut other]) = Guest::with_two_hosts().unwrap();
    guest.script("/usr/sbin/pm-is-supported", "exit 0").unwrap();
    guest.slow_script("/usr/sbin/pm-suspend").unwrap();
    guest.script("/usr/sbin/pm-hibernate", "touch /tmp/hibernated").unwrap();

    host.send(r#"{"execute": "guest-suspend-ram"}{"execute": "guest-ping", "id": 2}"#).unwrap();
    guest.wait_started().unwrap();
    other.patience = Duration::from_secs(1);
    for command in ["guest-suspend-ram", "guest-suspend-disk"] {
        let reply = other.call(&json!({ "execute": command, "id": command })).unwrap();
        assert_eq!(reply["error"]["class"], "GenericError", "{reply}");
        assert_eq!(reply["id"], command);
    }
    host.expect_silence(Duration::from_millis(200)).unwrap();
    guest.sh("[ ! -e /tmp/hibernated ]").unwrap();
    guest.go(0).unwrap();
    assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": 2 }));

    // It is over, so it is the other's turn.
    other.patience = Duration::from_secs(20);
    other.send(r#"{"execute": "guest-suspend-ram"}"#).unwrap();
    guest.wait_started().unwrap();
    guest.go(7).unwrap();
    assert!(error_text(&other.reply().unwrap()).contains("(7)"));
}

#[test]
fn each_mode_has_its_own_pm_utils_script() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    guest.script("/usr/sbin/pm-is-supported", "echo $* >>/tmp/asked").unwrap();
    for (command, program, question, status) in [
        ("guest-suspend-disk", "pm-hibernate", "--hibernate", 3),
        ("guest-suspend-ram", "pm-suspend", "--suspend", 4),
        ("guest-suspend-hybrid", "pm-suspend-hybrid", "--suspend-hybrid", 5),
    ] {
        guest.script(&format!("/usr/sbin/{program}"), &format!("exit {status}")).unwrap();
        let reply = host.call(&json!({ "execute": command })).unwrap();
        let text = format!("the helper program '{program}' returned an unexpected exit status code ({status})");
        assert_eq!(error_text(&reply), text);
        assert_eq!(guest.sh("cat /tmp/asked; rm /tmp/asked").unwrap().trim(), question);
    }
}

#[test]
fn where_pm_utils_says_no_the_kernel_is_asked() {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    guest.script("/usr/sbin/pm-is-supported", "exit 1").unwrap();
    guest.script("/usr/sbin/pm-suspend", "exit 9").unwrap();
    sleep_and_wake(&mut guest, &mut host, "guest-suspend-ram");
    refused(&mut host, "guest-suspend-disk");
}

#[test]
fn a_script_left_by_its_host_does_not_answer_the_next() {
    let (mut guest, mut host, pid) = Guest::with_agent(&Machine::new(Board::Pc), "").unwrap();
    guest.script("/usr/sbin/pm-is-supported", "exit 0").unwrap();
    guest.slow_script("/usr/sbin/pm-suspend").unwrap();
    host.send(r#"{"execute": "guest-suspend-ram", "id": "first"}"#).unwrap();
    guest.wait_started().unwrap();
    drop(host);
    guest.wait_host_connected(false).unwrap();
    guest.settle(pid).unwrap();

    let mut next = guest.connect("qga0").unwrap();
    guest.wait_host_connected(true).unwrap();
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
    guest.go(7).unwrap();
    next.expect_silence(Duration::from_millis(500)).unwrap();
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
}

fn sleeps_to_ram(board: Board) {
    let (mut guest, mut host, _) = Guest::with_agent(&Machine::new(board), "").unwrap();
    sleep_and_wake(&mut guest, &mut host, "guest-suspend-ram");
}

/// Success sends nothing: after the wakeup the first line is the sync's answer.
fn sleep_and_wake(guest: &mut Guest, host: &mut Client, command: &str) {
    host.send(json!({ "execute": command }).to_string()).unwrap();
    let slept = guest.qmp.wait_event("SUSPEND", SLEEP);
    slept.unwrap_or_else(|e| panic!("{e:#}: {:?}", host.line().map(String::from_utf8)));
    guest.qmp.execute("system_wakeup", json!({})).unwrap();
    guest.qmp.wait_event("WAKEUP", SLEEP).unwrap();
    host.patience = SLEEP;
    assert_eq!(host.sync_delimited().unwrap(), [""; 0]);
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

fn refused(host: &mut Client, command: &str) {
    let reply = host.call(&json!({ "execute": command, "id": command })).unwrap();
    assert_eq!(reply["error"]["class"], "GenericError", "{command}: {reply}");
    assert_eq!(error_text(&reply), REFUSED, "{command}");
    assert_eq!(reply["id"], command);
    assert_eq!(host.sync_delimited().unwrap(), [""; 0]);
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

fn with_swap(dir: &Path) -> Machine {
    let disk = dir.join("disk");
    make_disk(&disk, 512 << 20).unwrap();
    let mut machine = Machine::new(Board::Pc);
    machine.disk = Some(disk);
    machine
}

fn swap_on(guest: &mut Guest) {
    guest.sh("mkswap /dev/vda && swapon /dev/vda").unwrap();
}
