//! The figures the design must hold: memory and system calls.

use std::fs;
use std::time::Duration;

use nanoga_tests::agent::{Agent, Status};
use nanoga_tests::client::{Client, error_text};
use nanoga_tests::paths;
use nix::sys::signal::Signal;
use serde_json::json;

const PING: &str = "{\"execute\":\"guest-ping\"}\n";

#[test]
fn memory_is_within_bounds_and_the_same_after_ten_thousand_requests() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    host.ask("guest-info").unwrap();
    host.ask("guest-network-get-interfaces").unwrap();
    let before = agent.settle().unwrap();
    check(&before);
    for _ in 0..100 {
        host.send(PING.repeat(100)).unwrap();
        for _ in 0..100 {
            assert_eq!(host.reply().unwrap(), json!({ "return": {} }));
        }
    }
    let after = agent.settle().unwrap();
    check(&after);
    assert_eq!(after.rss_anon_kib, before.rss_anon_kib, "{before:?}, {after:?}");
}

#[test]
fn memory_is_within_bounds_before_the_first_host() {
    check(&Agent::on_unix().unwrap().settle().unwrap());
}

#[test]
fn a_large_request_gives_its_memory_back() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    let id = "x".repeat(200 << 10);
    let reply = host.call(&json!({ "execute": "guest-ping", "id": id })).unwrap();
    assert_eq!(reply["id"], id);
    host.ask("guest-ping").unwrap();
    check(&agent.settle().unwrap());
}

#[test]
fn a_large_request_in_small_pieces_gives_its_memory_back() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    // Its answer is short: nothing but the request itself took memory.
    let request = json!({ "execute": "guest-ping", "arguments": { "x": "x".repeat(240_000) } });
    for piece in request.to_string().as_bytes().chunks(4_000) {
        host.send(piece).unwrap();
        // Each is read before the next one comes.
        std::thread::sleep(Duration::from_millis(3));
    }
    assert_ne!(error_text(&host.reply().unwrap()), "");
    check(&agent.settle().unwrap());
}

#[test]
fn a_request_costs_at_most_three_system_calls() {
    let few = syscalls(100);
    let many = syscalls(1100);
    assert!(many > few, "nothing was counted: {few}, {many}");
    assert!(many - few <= 3 * 1000, "{} system calls for 1000 requests", many - few);
}

fn check(status: &Status) {
    let file = fs::metadata(paths::agent_binary().unwrap()).unwrap().len();
    // The file is mapped in whole pages.
    let pages_kib = file.div_ceil(4096) * 4;
    assert!(status.rss_anon_kib <= 32, "{status:?}");
    assert!(status.rss_kib <= pages_kib + 32, "{status:?}, a file of {file} bytes");
}

/// All system calls of an agent that answers so many requests, one at a time.
fn syscalls(requests: usize) -> u64 {
    let mut agent = Agent::under_strace().unwrap();
    let mut host: Client = agent.connect().unwrap();
    for _ in 0..requests {
        host.ask("guest-ping").unwrap();
    }
    agent.end(Signal::SIGTERM).unwrap();
    let table = fs::read_to_string(agent.file("strace")).unwrap();
    // "100.00    0.000000           0       330         2 total"
    let total = table.lines().find(|line| line.ends_with("total")).unwrap_or_else(|| panic!("{table}"));
    total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).unwrap_or_else(|| panic!("{table}"))
}
