//! The clocks of a guest: set by a host, set by the hardware clock, and where there is none.

use std::time::Duration;

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine};
use serde_json::{Value, json};

/// 3 July 2031, 04:05:06 UTC.
const SUMMER: i64 = 1_940_904_306;

/// What may pass between a request and a look at the clock, on a busy machine, in seconds.
const SLACK: i64 = 20;

fn boot(board: Board) -> (Guest, Client) {
    let (guest, host, _) = Guest::with_agent(&Machine::new(board), "").unwrap();
    (guest, host)
}

fn set_time(host: &mut Client, arguments: Value) -> Value {
    host.call(&json!({ "execute": "guest-set-time", "arguments": arguments })).unwrap()
}

/// What the clock of the guest's kernel and its hardware clock show, in seconds, as other programs read them.
fn clocks(guest: &mut Guest) -> (i64, i64) {
    let both = guest.sh("date +%s; cat /sys/class/rtc/rtc0/since_epoch").unwrap();
    let mut both = both.lines().map(|line| line.parse().unwrap());
    (both.next().unwrap(), both.next().unwrap())
}

#[track_caller]
fn shows(clock: i64, time: i64, tolerance: i64) {
    assert!((time - 1..=time + tolerance).contains(&clock), "{clock} instead of {time}");
}

#[test]
fn a_host_sets_the_clock_and_the_hardware_clock() {
    for board in [Board::Pc, Board::Q35, Board::Microvm] {
        let (mut guest, mut host) = boot(board);
        for seconds in [SUMMER, 951_868_795, 3_155_700_000] {
            let time = seconds * 1_000_000_000 + 999_999_999;
            assert_eq!(set_time(&mut host, json!({ "time": time })), json!({ "return": {} }));
            let now = host.ask("guest-get-time").unwrap().as_i64().unwrap();
            assert!((time..time + SLACK * 1_000_000_000).contains(&now), "{now} instead of {time}");
            let (system, hardware) = clocks(&mut guest);
            shows(system, seconds, SLACK);
            shows(hardware, system, 1);
        }
    }
}

#[test]
fn without_a_time_the_hardware_clock_counts() {
    for board in [Board::Pc, Board::Microvm] {
        let (mut guest, mut host) = boot(board);
        let (_, hardware) = clocks(&mut guest);
        guest.sh(&format!("date -s @{SUMMER}")).unwrap();
        assert_eq!(set_time(&mut host, json!({})), json!({ "return": {} }));
        let (system, hardware_now) = clocks(&mut guest);
        shows(hardware_now, hardware, SLACK);
        shows(system, hardware_now, 1);
    }
}

#[test]
fn a_hardware_clock_may_show_local_time() {
    let mut guest = Guest::boot(&Machine::new(Board::Pc)).unwrap();
    guest.sh("printf '0.0 0 0.0\\n0\\nLOCAL\\n' >/etc/adjtime").unwrap();
    guest.sh("TZ=CET-1CEST,M3.5.0,M10.5.0/3 nanoga -t /tmp </dev/null >>/tmp/nanoga.log 2>&1 &").unwrap();
    let mut host = guest.host("qga0").unwrap();
    // Summer, winter, the first second of a summer, and the last before clocks show an hour that comes twice.
    for (seconds, offset) in
        [(SUMMER, 7200), (SUMMER + 86_400 * 180, 3600), (1_932_598_800, 7200), (1_950_739_199 - 2 * SLACK, 7200)]
    {
        let time = seconds * 1_000_000_000;
        assert_eq!(set_time(&mut host, json!({ "time": time })), json!({ "return": {} }));
        let (system, hardware) = clocks(&mut guest);
        shows(system, seconds, SLACK);
        shows(hardware, system + offset, 1);
        guest.sh("date -s @1500000000").unwrap();
        assert_eq!(set_time(&mut host, json!({})), json!({ "return": {} }));
        let (system, hardware) = clocks(&mut guest);
        shows(hardware, system + offset, 1);
        shows(system, seconds, SLACK);
    }
}

#[test]
fn without_a_hardware_clock_the_clock_is_set_all_the_same() {
    let (mut guest, mut host) = boot(Board::Pc);
    guest.sh("rm /dev/rtc0").unwrap();
    assert_eq!(set_time(&mut host, json!({ "time": SUMMER * 1_000_000_000 })), json!({ "return": {} }));
    let (system, _) = clocks(&mut guest);
    shows(system, SUMMER, SLACK);
    let reply = set_time(&mut host, json!({}));
    assert_eq!(error_text(&reply), "failed to set system time to hardware clock: No such file or directory");
    let (system, _) = clocks(&mut guest);
    shows(system, SUMMER, 2 * SLACK);
}

#[test]
fn what_cannot_be_done_is_said() {
    let (mut guest, mut host) = boot(Board::Pc);
    let (before, _) = clocks(&mut guest);
    for time in [-1, 3_155_760_000_000_000_000, i64::MAX, i64::MIN] {
        let reply = set_time(&mut host, json!({ "time": time }));
        assert_eq!(error_text(&reply), "Invalid time");
        assert_eq!(reply["error"]["class"], "GenericError");
    }
    let (system, _) = clocks(&mut guest);
    shows(system, before, SLACK);

    // Only one process may have it.
    guest.sh("exec 9</dev/rtc0").unwrap();
    let reply = set_time(&mut host, json!({ "time": SUMMER * 1_000_000_000 }));
    assert_eq!(error_text(&reply), "failed to set hardware clock to system time: Device or resource busy");
    let (system, _) = clocks(&mut guest);
    shows(system, SUMMER, SLACK);
    guest.sh("exec 9<&-").unwrap();
    host.patience = Duration::from_secs(5);
    assert_eq!(set_time(&mut host, json!({})), json!({ "return": {} }));
}
