//! The end of a guest: by the programs it has, by what its init listens to, and without either.

use std::time::Duration;

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Init, Machine};
use nanoga_tests::wait_for;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// What busybox's init is told to say when it ends the guest.
const BY_INIT: &str = "init: this is the end";

/// How a machine ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    PoweredOff,
    Halted,
    Reset,
}

/// Sends the request and waits for that end, and for silence until then. The machine restarts as little as it goes on.
fn ends(mut guest: Guest, mut host: Client, arguments: &str, end: End, by_init: bool) {
    let request = format!("{{\"execute\": \"guest-shutdown\"{arguments}}}");
    host.send(&request).unwrap();
    if end == End::Halted {
        let halted = || Ok(guest.logs().contains("System halted").then_some(()));
        wait_for("the kernel to halt", LIMIT, halted).unwrap_or_else(|e| panic!("{request}: {e}: {}", guest.logs()));
        assert_eq!(guest.qmp.execute("query-status", json!({})).unwrap()["running"], true);
    } else {
        let event = guest.qmp.wait_event("SHUTDOWN", LIMIT);
        let event = event.unwrap_or_else(|e| panic!("{request}: {e:#}: {}", guest.logs()));
        let reason = if end == End::Reset { "guest-reset" } else { "guest-shutdown" };
        assert_eq!(event["data"]["reason"], reason, "{request}");
        guest.exited().unwrap();
        let rest = host.line();
        assert!(rest.is_err(), "{request}: {rest:?}");
    }
    assert_eq!(guest.logs().contains(BY_INIT), by_init, "{request}: {}", guest.logs());
}

fn boot(board: Board, init: Init) -> (Guest, Client) {
    let mut machine = Machine::new(board);
    machine.init = init;
    if init == Init::Agent {
        let mut guest = Guest::boot(&machine).unwrap();
        let host = guest.host("qga0").unwrap();
        assert_eq!(guest.sh("pidof nanoga").unwrap().trim(), "1");
        return (guest, host);
    }
    let (mut guest, host, _) = Guest::with_agent(&machine, "").unwrap();
    guest.sh(&format!("echo \"::shutdown:/bin/echo {BY_INIT}\" >>/etc/inittab; kill -HUP 1")).unwrap();
    (guest, host)
}

#[test]
fn busybox_init_powers_a_pc_off() {
    let (guest, host) = boot(Board::Pc, Init::Busybox);
    ends(guest, host, "", End::PoweredOff, true);
}

#[test]
fn busybox_init_powers_a_q35_off_and_needs_no_program_for_it() {
    let (mut guest, host) = boot(Board::Q35, Init::Busybox);
    guest.sh("rm /sbin/poweroff /sbin/halt /sbin/reboot").unwrap();
    ends(guest, host, r#", "arguments": {"mode": "powerdown"}"#, End::PoweredOff, true);
}

#[test]
fn busybox_init_halts() {
    let (guest, host) = boot(Board::Pc, Init::Busybox);
    ends(guest, host, r#", "arguments": {"mode": "halt"}"#, End::Halted, true);
}

#[test]
fn busybox_init_reboots() {
    let (guest, host) = boot(Board::Pc, Init::Busybox);
    ends(guest, host, r#", "arguments": {"mode": "reboot"}"#, End::Reset, true);
}

#[test]
fn where_no_init_listens_the_kernel_powers_off() {
    let (guest, host) = boot(Board::Pc, Init::Script);
    ends(guest, host, "", End::PoweredOff, false);
}

#[test]
fn where_no_init_listens_the_kernel_halts() {
    let (guest, host) = boot(Board::Q35, Init::Script);
    ends(guest, host, r#", "arguments": {"mode": "halt"}"#, End::Halted, false);
}

#[test]
fn where_no_init_listens_and_there_is_no_program_the_kernel_reboots() {
    let (mut guest, host) = boot(Board::Q35, Init::Script);
    guest.sh("rm /sbin/poweroff /sbin/halt /sbin/reboot").unwrap();
    ends(guest, host, r#", "arguments": {"mode": "reboot"}"#, End::Reset, false);
}

#[test]
fn an_agent_that_is_the_first_process_asks_the_kernel_and_no_program() {
    let (mut guest, host) = boot(Board::Pc, Init::Agent);
    guest.script("/sbin/poweroff", "exit 0").unwrap();
    guest.script("/sbin/shutdown", "exit 0").unwrap();
    ends(guest, host, "", End::PoweredOff, false);
}

#[test]
fn the_distributions_own_programs_are_run_first() {
    let (mut guest, mut host) = boot(Board::Pc, Init::Busybox);
    let note = r#"echo "${0##*/} $* $(env | sort | tr '\n' ' ')" >>/tmp/ran; exit 3"#;
    for program in ["poweroff", "halt", "reboot"] {
        guest.script(&format!("/sbin/{program}"), note).unwrap();
    }
    guest.script("/sbin/shutdown", "touch /tmp/shutdown").unwrap();
    let failed = "child process has failed to shutdown: exit status 3";
    for (mode, program) in [("powerdown", "poweroff"), ("halt", "halt"), ("reboot", "reboot")] {
        assert_eq!(shut_down(&mut host, mode), failed);
        let ran = guest.sh("cat /tmp/ran; rm /tmp/ran; [ ! -e /tmp/shutdown ]").unwrap();
        assert!(ran.starts_with(&format!("{program}  ")), "{ran}");
        assert!(ran.contains(" PATH=/usr/local/sbin:"), "{ran}");
    }

    // Without them, and with programs that cannot be executed.
    guest.sh("rm /sbin/poweroff /sbin/halt; chmod 644 /sbin/reboot").unwrap();
    guest.script("/sbin/shutdown", r#"for word; do echo "$word" >>/tmp/words; done; kill -9 $$"#).unwrap();
    for (mode, option) in [("powerdown", "-P"), ("halt", "-H"), ("reboot", "-r")] {
        assert_eq!(shut_down(&mut host, mode), "child process has failed to shutdown: exit status 137");
        let words = guest.sh("cat /tmp/words; rm /tmp/words").unwrap();
        assert_eq!(words, format!("-h\n{option}\n+0\nhypervisor initiated shutdown\n"));
    }
}

#[test]
fn while_a_program_takes_its_time_others_are_served_and_success_is_silent() {
    let (mut guest, [mut host, mut other]) = Guest::with_two_hosts().unwrap();
    guest.slow_script("/sbin/poweroff").unwrap();
    host.send(r#"{"execute": "guest-shutdown"}{"execute": "guest-ping", "id": 2}"#).unwrap();
    guest.wait_started().unwrap();
    assert_eq!(other.ask("guest-ping").unwrap(), json!({}));
    host.expect_silence(Duration::from_millis(200)).unwrap();
    guest.go(0).unwrap();
    assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": 2 }));
}

/// Asks for an end that fails; why.
fn shut_down(host: &mut Client, mode: &str) -> String {
    let request = json!({ "execute": "guest-shutdown", "arguments": { "mode": mode } });
    error_text(&host.call(&request).unwrap()).to_owned()
}
