//! unix-listen: the socket, its clients one after the other, and hosts that behave badly.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nanoga_tests::agent::Agent;
use nanoga_tests::client::{Client, error_text};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

const QUIET: Duration = Duration::from_millis(300);
const INFO: &str = "{\"execute\":\"guest-info\"}\n";

#[test]
fn the_socket_is_for_its_owner_alone() {
    let agent = Agent::on_unix().unwrap();
    let meta = fs::metadata(agent.socket()).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let agent = Agent::start_in(dir, &["-m", "unix-listen", "-p", socket.to_str().unwrap()]).unwrap();
    agent.wait_for_socket(&socket).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_socket_somebody_listens_on_is_left_alone() {
    let first = Agent::on_unix().unwrap();
    let socket = first.socket();
    let args = ["-m", "unix-listen", "-p", socket.to_str().unwrap()];
    let mut second = Agent::start_in(TempDir::new().unwrap(), &args).unwrap();
    assert_eq!(second.exited().unwrap().code(), Some(1));
    assert_eq!(second.log().lines().count(), 1, "{}", second.log());
    assert_eq!(first.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    let mut agent = Agent::start_in(dir, &["-m", "unix-listen", "-p", path.to_str().unwrap()]).unwrap();
    assert_eq!(agent.exited().unwrap().code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn a_second_host_waits_until_the_first_has_gone() {
    let agent = Agent::on_unix().unwrap();
    let mut first = agent.connect().unwrap();
    first.ask("guest-ping").unwrap();
    let mut second = agent.connect().unwrap();
    second.send("{\"execute\":\"guest-ping\",\"id\":2}").unwrap();
    second.expect_silence(QUIET).unwrap();
    first.ask("guest-ping").unwrap();
    drop(first);
    assert_eq!(second.reply().unwrap(), json!({ "return": {}, "id": 2 }));
}

#[test]
fn half_a_request_of_one_host_is_not_completed_by_the_next() {
    let agent = Agent::on_unix().unwrap();
    let mut first = agent.connect().unwrap();
    first.send(r#"{"execute": "guest-ping", "id": "first"#).unwrap();
    agent.settle().unwrap();
    drop(first);
    let mut second = agent.connect().unwrap();
    second.send("\"}\n{\"execute\": \"guest-ping\", \"id\": 2}").unwrap();
    let error = second.reply().unwrap();
    assert!(error["error"].is_object(), "{error}");
    assert_eq!(second.reply().unwrap(), json!({ "return": {}, "id": 2 }));
    second.expect_silence(QUIET).unwrap();
}

#[test]
fn a_half_closed_connection_is_answered_and_then_closed() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    for id in 0..200 {
        host.send(format!("{{\"execute\":\"guest-info\",\"id\":{id}}}")).unwrap();
    }
    host.finish_sending().unwrap();
    for id in 0..200 {
        assert_eq!(host.reply().unwrap()["id"], id);
    }
    host.expect_end().unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_host_that_does_not_read_costs_nothing_and_loses_nothing() {
    let agent = two_channels();
    let mut lazy = agent.connect().unwrap();
    // Until the agent takes no more, because what it answered is not taken either.
    let mut sent = 0;
    while lazy.send_within(INFO.as_bytes(), QUIET).unwrap() == INFO.len() {
        sent += 1;
        assert!(sent < 1_000_000, "the agent takes requests without end");
    }
    let before = agent.settle().unwrap();
    let ticks = agent.cpu_ticks().unwrap();

    let mut other = Client::connect(agent.file("other.sock")).unwrap();
    assert_eq!(other.ask("guest-ping").unwrap(), json!({}));
    agent.settle().unwrap();
    other.expect_silence(Duration::from_secs(1)).unwrap();
    let after = agent.status().unwrap();
    assert!(after.switches - before.switches < 20, "it spins: {before:?}, {after:?}");
    assert!(agent.cpu_ticks().unwrap() - ticks <= 1, "it spins");

    for _ in 0..sent {
        assert!(lazy.reply().unwrap()["return"]["version"].is_string());
    }
    other.ask("guest-ping").unwrap();
}

#[test]
fn a_slow_reader_gets_every_reply_to_requests_sent_in_one_go() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    let mut writer = Client::new(host.stream().try_clone().unwrap()).unwrap();
    let sender = std::thread::spawn(move || writer.send(INFO.repeat(2000)));
    let first = host.reply().unwrap();
    for number in 1..2000 {
        if number % 400 == 0 {
            // Every buffer on the way is full again.
            agent.settle().unwrap();
        }
        assert_eq!(host.reply().unwrap(), first);
    }
    sender.join().unwrap().unwrap();
}

#[test]
fn a_host_that_leaves_with_replies_unread_leaves_no_trace() {
    let agent = Agent::on_unix().unwrap();
    let mut first = agent.connect().unwrap();
    while first.send_within(INFO.as_bytes(), QUIET).unwrap() == INFO.len() {}
    drop(first);
    let mut second = agent.connect().unwrap();
    second.expect_silence(QUIET).unwrap();
    assert_eq!(second.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn what_a_host_sent_before_it_hung_up_is_obeyed_and_answered_to_nobody() {
    let agent = Agent::on_unix().unwrap();
    let mark = agent.file("mark");
    let open = json!({ "execute": "guest-file-open", "arguments": { "path": mark, "mode": "w" } });
    // It has gone before the agent sees the first byte, and before all replies together had room.
    agent.signal(Signal::SIGSTOP).unwrap();
    agent.connect().unwrap().send(format!("{}{open}{{\"execute\":\"guest-sy", INFO.repeat(50))).unwrap();
    agent.signal(Signal::SIGCONT).unwrap();
    let mut next = agent.connect().unwrap();
    next.expect_silence(QUIET).unwrap();
    assert!(mark.exists());
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_thousand_hosts_one_after_the_other_leak_nothing() {
    let mut agent = Agent::on_unix().unwrap();
    agent.connect().unwrap().ask("guest-ping").unwrap();
    agent.settle().unwrap();
    let before = agent.descriptors().unwrap();
    for _ in 0..1000 {
        agent.connect().unwrap().ask("guest-ping").unwrap();
    }
    agent.settle().unwrap();
    assert_eq!(agent.descriptors().unwrap(), before);
    assert_eq!(agent.end(Signal::SIGTERM).unwrap().code(), Some(0));
}

/// One agent on `qga.sock` and `other.sock`.
fn two_channels() -> Agent {
    let dir = TempDir::new().unwrap();
    let [one, two] = ["qga.sock", "other.sock"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let agent = Agent::start_in(dir, &["-m", "unix-listen", "-p", &one, "-m", "unix-listen", "-p", &two]).unwrap();
    agent.wait_for_socket(&agent.socket()).unwrap();
    agent.wait_for_socket(&agent.file("other.sock")).unwrap();
    agent
}

#[test]
fn two_channels_are_served_independently() {
    let agent = two_channels();
    let mut one = agent.connect().unwrap();
    let mut two = Client::connect(agent.file("other.sock")).unwrap();
    one.send(r#"{"execute": "guest-ping", "id": "#).unwrap();
    assert_eq!(two.ask("guest-ping").unwrap(), json!({}));
    one.send("1}").unwrap();
    assert_eq!(one.reply().unwrap(), json!({ "return": {}, "id": 1 }));
}

#[test]
fn a_request_that_is_hard_to_check_holds_nobody_up_for_a_second() {
    let agent = two_channels();
    let mut one = agent.connect().unwrap();
    let mut two = Client::connect(agent.file("other.sock")).unwrap();
    two.ask("guest-ping").unwrap();
    // As many keys as a request has room for, all different: 37 objects, one in the other, of 1,000 members each.
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    let keys: Vec<String> = (0..1000).map(|n| format!("{}{}", letters[n / 52], letters[n % 52])).collect();
    let members: String = keys[1..].iter().map(|key| format!("\"{key}\":0,")).collect();
    let id = (0..37).fold("0".to_owned(), |inner, _| format!("{{{members}\"{}\":{inner}}}", keys[0]));
    assert!((255_000..262_000).contains(&id.len()), "{}", id.len());

    let start = Instant::now();
    one.send(format!("{{\"execute\":\"guest-ping\",\"id\":{id}}}\n")).unwrap();
    two.ask("guest-ping").unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "the other channel waited {:?}", start.elapsed());
    let reply = one.reply().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    assert_ne!(error_text(&reply), "");
    assert_eq!(one.ask("guest-ping").unwrap(), json!({}));
}
