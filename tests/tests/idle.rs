//! An agent that has nothing to do does nothing.

use std::time::Duration;

use nanoga_tests::agent::Agent;

const IDLE: Duration = Duration::from_secs(5);

#[test]
fn nothing_wakes_it_in_five_seconds_without_a_host() {
    let agent = Agent::on_unix().unwrap();
    sleeps_through(&agent);
}

#[test]
fn nothing_wakes_it_in_five_seconds_with_a_host() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    sleeps_through(&agent);
    host.ask("guest-ping").unwrap();
}

#[test]
fn nothing_wakes_it_in_five_seconds_after_a_host_has_left() {
    let agent = Agent::on_unix().unwrap();
    agent.connect().unwrap().sync_delimited().unwrap();
    sleeps_through(&agent);
    agent.connect().unwrap().ask("guest-ping").unwrap();
}

#[test]
fn nothing_wakes_it_in_five_seconds_while_one_host_works_and_another_waits() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    let mut waiting = agent.connect().unwrap();
    waiting.send("{\"execute\":\"guest-ping\"}").unwrap();
    sleeps_through(&agent);
    host.ask("guest-ping").unwrap();
}

fn sleeps_through(agent: &Agent) {
    let before = agent.settle().unwrap();
    std::thread::sleep(IDLE);
    let after = agent.status().unwrap();
    assert_eq!(after.switches - before.switches, 0, "wake-ups in {IDLE:?}");
}
