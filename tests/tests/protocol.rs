//! The protocol on the built binary. The core's own tests go into the depth; here is what only the whole can show:
//! which bytes come out for which bytes that go in.

use std::time::Duration;

use nanoga_tests::agent::Agent;
use nanoga_tests::client::error_text;
use serde_json::{Value, json};

const QUIET: Duration = Duration::from_millis(200);

#[test]
fn a_dirty_channel_is_brought_in_step_by_0xff() {
    let agent = Agent::on_unix().unwrap();
    for dirt in [
        r#"{"execute": "guest-pi"#,
        r#"{"execute": "guest-ping", "id": "\"#,
        r#"{"execute": "guest-ping", "id": "\u00"#,
        r#"{"execute": "guest-sync", "arguments": {"id": 12"#,
        r#"{"execute": "guest-ping", "id": [[[{"a": tr"#,
        "",
    ] {
        let mut host = agent.connect().unwrap();
        host.send(dirt).unwrap();
        assert_eq!(host.sync_delimited().unwrap(), [""; 0], "after {dirt}");
        host.expect_silence(QUIET).unwrap();
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    }
}

#[test]
fn sync_delimited_is_answered_by_0xff_and_one_line() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.send(br#"{"execute": "guest-sync-delimited", "arguments": {"id": 9223372036854775807}}"#).unwrap();
    let line = host.line().unwrap();
    assert_eq!(line[0], 0xFF);
    assert_eq!(serde_json::from_slice::<Value>(&line[1..]).unwrap(), json!({ "return": i64::MAX }));
    host.send(br#"{"execute": "guest-sync", "arguments": {"id": -1}}"#).unwrap();
    assert_eq!(host.reply().unwrap(), json!({ "return": -1 }));
}

#[test]
fn a_lone_0xff_is_not_answered() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.send(b"\xff\xff\n\xff").unwrap();
    host.expect_silence(QUIET).unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

#[test]
fn a_damaged_request_gets_one_error_line_and_the_next_one_works() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    for damaged in
        ["{]", "{\"execute\": \"guest-ping\",}", "{\"a\": [}", "nonsense", "{\"a\" 1}", "{\"a\": 01}", "\u{feff}"]
    {
        host.send(format!("{damaged}\n{{\"execute\": \"guest-ping\", \"id\": 5}}\n")).unwrap();
        let error = host.reply().unwrap();
        assert!(error_text(&error).starts_with("JSON parse error, "), "{damaged}: {error}");
        assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": 5 }), "{damaged}");
        host.expect_silence(Duration::from_millis(20)).unwrap();
    }
}

#[test]
fn every_id_comes_back_as_it_was() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    for id in [
        json!(null),
        json!(0),
        json!(-1.5),
        json!(true),
        json!("ü\u{1f600}\n\""),
        json!([1, [2, {}]]),
        json!({ "a": { "b": [] } }),
    ] {
        let reply = host.call(&json!({ "execute": "guest-ping", "id": id })).unwrap();
        assert_eq!(reply, json!({ "return": {}, "id": id }));
        let reply = host.call(&json!({ "execute": "no-such-command", "id": id })).unwrap();
        assert_eq!(reply["error"]["class"], "CommandNotFound");
        assert_eq!(error_text(&reply), "The command no-such-command has not been found");
        assert_eq!(reply["id"], id);
    }
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    let mut all = String::new();
    for id in 0..5000 {
        all += &format!("{{\"execute\":\"guest-ping\",\"id\":{id}}}");
    }
    let mut writer = nanoga_tests::client::Client::new(host.stream().try_clone().unwrap()).unwrap();
    let sent = std::thread::spawn(move || writer.send(all));
    for id in 0..5000 {
        assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": id }));
    }
    sent.join().unwrap().unwrap();
    host.expect_silence(Duration::from_millis(50)).unwrap();
}

#[test]
fn what_proxmox_sends_in_one_write_is_answered_by_two_lines() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    host.send(
        "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":77}}\n{\"execute\":\"guest-ping\",\"arguments\":{}}\n",
    )
    .unwrap();
    let line = host.line().unwrap();
    assert_eq!(line[0], 0xFF);
    assert_eq!(serde_json::from_slice::<Value>(&line[1..]).unwrap(), json!({ "return": 77 }));
    assert_eq!(host.reply().unwrap(), json!({ "return": {} }));
}

#[test]
fn a_request_may_come_one_byte_at_a_time() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    for byte in r#" {"execute" : 'guest-ping', "id": "\ud83d\ude00"}"#.bytes() {
        host.send([byte]).unwrap();
    }
    assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": "\u{1f600}" }));
}

#[test]
fn an_over_long_request_gets_one_error_and_the_next_one_works() {
    let agent = Agent::on_unix().unwrap();
    over_long(&agent, 256 << 10);
    over_long(&agent, 3 << 20);
}

#[test]
fn max_request_lowers_the_limit() {
    let agent = Agent::on_unix_with(&["--max-request", "2000"]).unwrap();
    let mut host = agent.connect().unwrap();
    let id = "x".repeat(1900);
    let reply = host.call(&json!({ "execute": "guest-ping", "id": id })).unwrap();
    assert_eq!(reply["id"], id);
    drop(host);
    over_long(&agent, 2001);
}

#[test]
fn the_depth_limit_is_1024() {
    let agent = Agent::on_unix().unwrap();
    let mut host = agent.connect().unwrap();
    let nested = |depth: usize| {
        format!("{{\"execute\":\"guest-ping\",\"id\":{}{}}}\n", "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    host.send(nested(1024)).unwrap();
    // Deeper than serde_json reads: the text has to do.
    let line = host.line().unwrap();
    let id = [vec![b'['; 1023], vec![b']'; 1023]].concat();
    assert!(line.windows(id.len()).any(|part| part == id), "{}", String::from_utf8_lossy(&line));
    host.send(nested(1025)).unwrap();
    let error = host.reply().unwrap();
    assert!(error_text(&error).starts_with("JSON nesting depth limit exceeded"), "{error}");
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
}

fn over_long(agent: &Agent, bytes: usize) {
    let mut host = agent.connect().unwrap();
    host.send(format!("{{\"execute\":\"guest-ping\",\"id\":\"{}\"}}\n", "x".repeat(bytes))).unwrap();
    let error = host.reply().unwrap();
    assert!(error_text(&error).starts_with("JSON token size limit exceeded"), "{error}");
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    host.expect_silence(Duration::from_millis(50)).unwrap();
}
