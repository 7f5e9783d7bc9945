//! What the agent answers where it goes its own way, and how it deals with limits, jobs and hosts that go. A line a
//! case: what is sent, and all that comes back.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::{Errno, Suspend, SuspendError};
use agent_core::{Fed, limits};
use serde_json::json;
use support::{FakeEvent, FakeGuest, Host, REQUEST_BYTES, SPOOL_BYTES, replies};

const PING: &str = r#"{"execute":"guest-ping"}"#;
const PONG: &str = "{\"return\":{}}\n";

fn error(class: &str, desc: &str) -> String {
    format!("{{\"error\":{{\"class\":\"{class}\",\"desc\":\"{desc}\"}}}}\n")
}

fn damaged(what: &str) -> String {
    error("GenericError", &format!("JSON parse error, {what}"))
}

#[track_caller]
fn answers(input: impl AsRef<[u8]>, want: impl AsRef<str>) {
    let output = Host::new().send(input.as_ref());
    assert_eq!(String::from_utf8_lossy(&output), want.as_ref(), "to {}", input.as_ref().escape_ascii());
}

/// What `guest-info` says of each command: is it enabled?
fn enabled(host: &mut Host<'_>) -> Vec<(String, bool)> {
    let reply = &replies(&host.send(br#"{"execute":"guest-info"}"#))[0].1;
    let commands = reply["return"]["supported_commands"].as_array().unwrap();
    let row = |command: &serde_json::Value| {
        (command["name"].as_str().unwrap().to_owned(), command["enabled"].as_bool().unwrap())
    };
    commands.iter().map(row).collect()
}

#[test]
fn a_command_that_is_not_allowed_is_disabled_and_said_to_be() {
    let mut host = Host::new();
    host.agent.restrict(&|name| name != b"guest-ping" && name != b"guest-network-get-interfaces");
    let refused = error("CommandNotFound", "Command guest-ping has been disabled: the command is not allowed");
    assert_eq!(host.send(PING.as_bytes()), refused.as_bytes());
    // Before its arguments are looked at.
    assert_eq!(host.send(br#"{"execute":"guest-ping","arguments":{"a":1}}"#), refused.as_bytes());
    for (name, enabled) in enabled(&mut host) {
        assert_eq!(enabled, name != "guest-ping" && name != "guest-network-get-interfaces", "{name}");
    }
}

#[cfg(not(feature = "minimal"))]
#[test]
fn what_changes_the_guest_is_audited_once_and_nothing_else_is() {
    let mut host = Host::new();
    host.send(PING.as_bytes());
    host.send(br#"{"execute":"guest-info"}{"execute":"guest-network-get-interfaces"}{"execute":"guest-nonsense"}"#);
    assert_eq!(host.agent.guest.audits, [""; 0]);
    host.send(br#"{"execute":"guest-ping"}{"execute":"guest-suspend-ram"}"#);
    assert_eq!(host.agent.guest.audits, ["guest-suspend-ram"]);
    // What is refused for its arguments shows with those that may be known.
    host.send(br#"{"execute":"guest-suspend-disk","arguments":{"time":-5,"password":"x","path":"\n\"","mode":""}}"#);
    assert_eq!(host.agent.guest.audits[1..], ["guest-suspend-disk \n\" -5"]);
    host.agent.restrict(&|name| name != b"guest-suspend-ram");
    host.send(br#"{"execute":"guest-suspend-ram"}"#);
    assert_eq!(host.agent.guest.audits.len(), 2);
}

#[test]
fn while_the_file_systems_are_frozen_only_what_writes_nowhere_runs() {
    let mut host = Host::with_guest(FakeGuest { frozen: true, ..FakeGuest::default() });
    assert_eq!(host.send(PING.as_bytes()), PONG.as_bytes());
    let refused = "Command guest-suspend-ram has been disabled: the command is not allowed";
    assert_eq!(host.send(br#"{"execute":"guest-suspend-ram"}"#), error("CommandNotFound", refused).as_bytes());
    assert!(host.agent.guest.suspends.is_empty());
    let allowed = [
        "guest-sync-delimited",
        "guest-sync",
        "guest-ping",
        "guest-info",
        "guest-fsfreeze-status",
        "guest-fsfreeze-thaw",
    ];
    for (name, enabled) in enabled(&mut host) {
        assert_eq!(enabled, allowed.contains(&name.as_str()), "{name}");
    }
    host.agent.guest.frozen = false;
    assert!(enabled(&mut host).iter().all(|(_, enabled)| *enabled));
}

#[test]
fn a_damaged_request_gets_one_line_and_the_next_request_is_served() {
    for (request, what) in [
        (r#"{"execute":"guest-ping",}"#, "expecting value"),
        (r#"{"a":[}"#, "expecting value"),
        (r#"{"a":[1}"#, "expected separator in list"),
        (r#"{"a":1]"#, "expected separator in dict"),
        (r#"{"a" 1}"#, "missing : in object pair"),
        (r#"{"a":1 "b":2}"#, "expected separator in dict"),
        (r#"{1:2}"#, "key is not a string in object"),
        (r#"{true:2}"#, "key is not a string in object"),
        (r#"{{}:2}"#, "key is not a string in object"),
        (r#"{[]:2}"#, "key is not a string in object"),
        (r#"{nope:2}"#, "invalid keyword 'nope'"),
        (r#"{"a":truefalse}"#, "invalid keyword 'truefalse'"),
        (r#"{"a":True,"b":{"c":[1,2,{"d":"}]\"}"}]}}"#, "stray 'T'"),
        (r#"{"a":01}"#, "stray '01'"),
        (r#"{"a":1.}"#, "stray '1.'"),
        (r#"{"a":-}"#, "stray '-'"),
        (r#"{"a":1e999}"#, "number out of range '1e999'"),
        (r#"{"a":"\q","b":"}"}"#, "invalid escape sequence in string"),
        (r#"{"a":"\ud83d","b":"}"}"#, r"\\ud83d is not a valid Unicode character"),
        (r#"{"a":"\ude00"}"#, r"\\ude00 is not a valid Unicode character"),
        (r#"{"a":"\ud83d\ud83d"}"#, r"\\ud83d is not a valid Unicode character"),
        (r#"{"a":"\u12g4"}"#, r"\\u12g is not a valid Unicode character"),
        (r#"{"a":1,"a":2}"#, "duplicate key"),
        (r#"{"id":{"b":{"a":1,"\u0061":2}}}"#, "duplicate key"),
        ("{\"a\":\"b\tc\"}", "stray '\\\"b\\t'"),
        ("nope", "invalid keyword 'nope'"),
        ("}", "expecting value"),
        ("%", "stray '%'"),
    ] {
        answers(format!("{request}{PING}"), damaged(what) + PONG);
        answers(format!("{request}\n{PING}\n"), damaged(what) + PONG);
    }
    answers(b"{\"a\":\"\xE2\x82\"}{\"execute\":\"guest-ping\"}", damaged("invalid UTF-8 sequence in string") + PONG);
    answers(b"{\"a\":\"\xFE\"}{\"execute\":\"guest-ping\"}", damaged("stray '\\\"\\uFFFD'") + PONG);
}

#[test]
fn a_raw_newline_ends_what_is_damaged_and_nothing_else() {
    answers("{\"a\":tru\n\n{\"execute\":\"guest-ping\"}", damaged("invalid keyword 'tru'") + PONG);
    answers("{\"a\":\"open\n{\"execute\":\"guest-ping\"}", damaged("stray '\\\"open\\n'") + PONG);
    // Text inside of a damaged string is no request.
    answers("\"\\q{\"execute\":\"guest-ping\"}\n", damaged("invalid escape sequence in string"));
    answers(
        "'\\q{\"execute\":\"guest-ping\"}' {\"execute\":\"guest-ping\"}",
        damaged("invalid escape sequence in string") + PONG,
    );
    answers("{\n\"execute\"\n:\n\"guest-ping\"\n}\n", PONG);
}

#[test]
fn the_sentinel_resets_every_state_in_silence() {
    for dirt in [
        "",
        "{",
        "{\"",
        "{\"a",
        "{\"a\\",
        "{\"a\\u",
        "{\"a\\u12",
        "{\"a\\ud83d",
        "{\"a\\ud83d\\",
        "{\"a\\ud83d\\ude",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":-",
        "{\"a\":1.",
        "{\"a\":1e",
        "{\"a\":tr",
        "{\"a\":true",
        "{\"a\":true,",
        "{\"a\":[",
        "{\"a\":[[[{",
        "{\"a\":'it",
        "[",
        "\"text",
        "12",
        "nul",
    ] {
        answers([dirt.as_bytes(), b"\xFF", PING.as_bytes()].concat(), PONG);
        answers([dirt.as_bytes(), b"\xFF\n \xFF\xFF", PING.as_bytes()].concat(), PONG);
    }
    answers([b"{\"a\":\"\xF0\x9F\xFF", PING.as_bytes()].concat(), PONG);
    answers([b"\xFEgarbage 123 \xFE\xFF", PING.as_bytes()].concat(), PONG);
    answers([b"{\"a\":\"", "x".repeat(2 * REQUEST_BYTES).as_bytes(), b"\xFF", PING.as_bytes()].concat(), PONG);
    // What follows on its line may be anything; behind the newline it is a request again.
    answers(b"\xFF\"x\" 5 nope\n", "");
    answers(b"\xFF\n5\n", error("GenericError", "QMP input must be a JSON object"));
    answers(b"\xFF[]\n", error("GenericError", "QMP input must be a JSON object"));
    // Behind damage too: the line is that of the damage.
    answers([b"{\"a\":x\"\xFF", PING.as_bytes()].concat(), damaged("invalid keyword 'x'") + PONG);
}

#[test]
fn a_top_level_value_that_is_no_object_is_refused_once_it_is_complete() {
    let refused = error("GenericError", "QMP input must be a JSON object");
    answers("[[]]", &refused);
    answers("\"x\"", &refused);
    answers("5", "");
    answers("1 2 3\n", refused.repeat(3));
    answers("-0e1\n", &refused);
}

#[test]
fn a_request_that_is_too_long_gets_one_clear_error_and_the_next_one_works() {
    let long = "x".repeat(REQUEST_BYTES);
    let refused = error("GenericError", &format!("JSON token size limit exceeded: at most {REQUEST_BYTES} bytes"));
    answers(format!(r#"{{"execute":"guest-ping","id":"{long}"}}{PING}"#), refused.clone() + PONG);
    answers(format!(r#"{{"{long}":1}}{PING}"#), refused.clone() + PONG);
    answers(format!(r#"{{"a":{}}}{PING}"#, "1".repeat(REQUEST_BYTES)), refused + PONG);
    // White space between tokens takes no room.
    answers(format!("{{{}\"execute\":\"guest-ping\"}}", " \n".repeat(REQUEST_BYTES)), PONG);
}

#[test]
fn the_largest_request_that_fits_is_served() {
    // A frame has the braces, and a zero byte for each closing quote.
    let around = r#"{"execute":"guest-ping","id":""}"#.len();
    let id = "x".repeat(REQUEST_BYTES - around);
    answers(format!(r#"{{"execute":"guest-ping","id":"{id}"}}"#), format!("{{\"return\":{{}},\"id\":\"{id}\"}}\n"));
    let refused = error("GenericError", &format!("JSON token size limit exceeded: at most {REQUEST_BYTES} bytes"));
    answers(format!(r#"{{"execute":"guest-ping","id":"{id}x"}}"#), refused);
}

#[test]
fn nesting_goes_as_deep_as_in_the_reference() {
    let nested =
        |depth: usize| format!(r#"{{"execute":"guest-ping","id":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let id = format!("{}{}", "[".repeat(limits::DEPTH - 1), "]".repeat(limits::DEPTH - 1));
    answers(nested(limits::DEPTH - 1), format!("{{\"return\":{{}},\"id\":{id}}}\n"));
    let refused = error("GenericError", "JSON nesting depth limit exceeded: at most 1024 brackets");
    answers(nested(limits::DEPTH) + PING, refused.clone() + PONG);
    answers(nested(limits::DEPTH + 700) + PING, refused + PONG);
}

#[test]
fn finding_duplicate_keys_takes_bounded_time() {
    let members = |count: usize| (0..count).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
    let (mut frame, mut reply) = (vec![0; 1 << 18], vec![0; 1 << 16]);
    let mut ping = |id: String| {
        let mut host = Host::lend(FakeGuest::default(), &mut frame, &mut reply);
        let output = host.send(format!(r#"{{"execute":"guest-ping","id":{id}}}"#).as_bytes());
        replies(&output)[0].1.clone()
    };
    assert!(ping(format!("{{{}}}", members(1000))).get("return").is_some());

    let refused = "JSON token count limit exceeded: too many members in its objects";
    assert_eq!(ping(format!("{{{}}}", members(20_000)))["error"]["desc"], refused);
    let nested = (0..15).fold(String::from("0"), |inner, _| format!("{{{},\"x\":{inner}}}", members(1000)));
    assert_eq!(ping(nested)["error"]["desc"], refused);
}

#[test]
fn an_id_comes_back_in_strict_ascii_json() {
    for (id, want) in [
        (r#"'say "hi"'"#, r#""say \"hi\"""#),
        (r#""it\'s""#, r#""it's""#),
        ("[ 1 ,\n\t2 ]", "[1,2]"),
        ("{ 'a' : { } , \"b\" : [ ] }", r#"{"a":{},"b":[]}"#),
        (r#""\u00e9é😀\ud83d\ude00""#, r#""\u00E9\u00E9\uD83D\uDE00\uD83D\uDE00""#),
        (r#""\u0000\u001f\b\/""#, r#""\u0000\u001F\b/""#),
        (r#""\uffff\ufdd0""#, r#""\uFFFF\uFDD0""#),
        ("-0.0", "-0.0"),
        ("18446744073709551616", "18446744073709551616"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
    ] {
        answers(format!(r#"{{"id":{id},"execute":"guest-ping"}}"#), format!("{{\"return\":{{}},\"id\":{want}}}\n"));
    }
    answers(b"{\"execute\":\"guest-ping\",\"id\":\"\xC0\x80\"}", "{\"return\":{},\"id\":\"\\u0000\"}\n");
}

#[test]
fn a_request_that_is_refused_has_its_id_echoed() {
    for (request, class, desc) in [
        (r#"{"id":7,"execute":1}"#, "GenericError", "QMP input member 'execute' must be a string"),
        (
            r#"{"arguments":[],"id":7,"execute":"guest-ping"}"#,
            "GenericError",
            "QMP input member 'arguments' must be an object",
        ),
        (r#"{"execute":"guest-ping","zzz":1,"id":7}"#, "GenericError", "QMP input member 'zzz' is unexpected"),
        (r#"{"id":7}"#, "GenericError", "QMP input lacks member 'execute'"),
        (
            r#"{"id":7,"execute":"guest-ping\u0000x"}"#,
            "CommandNotFound",
            r"The command guest-ping\u0000x has not been found",
        ),
        (r#"{"id":7,"execute":"guest-ping","arguments":{"foo":42}}"#, "GenericError", "Parameter 'foo' is unexpected"),
        (
            r#"{"id":7,"execute":"guest-sync","arguments":{"id":null}}"#,
            "GenericError",
            "Invalid parameter type for 'id', expected: integer",
        ),
        (r#"{"id":7,"execute":"guest-sync","arguments":{"x":1}}"#, "GenericError", "Parameter 'id' is missing"),
    ] {
        answers(request, error(class, desc).replace("}}\n", "},\"id\":7}\n"));
    }
}

#[test]
fn a_reply_that_does_not_fit_anywhere_becomes_an_error() {
    let links = |count: usize| FakeGuest {
        links: (0..count).map(|_| FakeEvent::Link("interface", [1, 2, 3, 4, 5, 6], None)).collect(),
        ..FakeGuest::default()
    };
    let one = r#"{"name":"interface","hardware-address":"01:02:03:04:05:06"},"#.len();
    let request = br#"{"execute":"guest-network-get-interfaces","id":1}{"execute":"guest-ping"}"#;

    let fits = (SPOOL_BYTES - 100) / one;
    let output = Host::with_guest(links(fits)).send(request);
    assert_eq!(replies(&output)[0].1["return"].as_array().unwrap().len(), fits);
    assert!(output.ends_with(PONG.as_bytes()));

    // From the last size that fits on, all the way to twice of it: a whole reply or a whole error.
    let refused = "the reply is larger than the guest's memory allows";
    let want = json!({"error": {"class": "GenericError", "desc": refused}, "id": 1});
    for count in (fits..fits + 12).chain([2 * fits]) {
        let output = replies(&Host::with_guest(links(count)).send(request));
        assert_eq!(output.len(), 2, "{count} links");
        assert_eq!(output[1].1, json!({"return": {}}));
        let whole = output[0].1["return"].as_array().is_some_and(|list| list.len() == count);
        assert!(whole || output[0].1 == want, "{count} links: {}", output[0].1);
    }
}

#[test]
fn an_error_that_does_not_fit_anywhere_is_replaced_by_one_that_does() {
    let name = "A".repeat(3000);
    for id in ["", r#","id":7"#] {
        let mut host = Host::new();
        host.spool.limit = 0;
        let output = host.send(format!(r#"{{"execute":"{name}"{id}}}{PING}"#).as_bytes());
        let want = error("GenericError", "the reply is larger than the guest's memory allows");
        assert_eq!(String::from_utf8_lossy(&output), want + PONG);
    }
}

#[test]
fn replies_that_wait_together_come_in_the_order_of_the_requests() {
    let sync = |id: usize| format!(r#"{{"execute":"guest-sync","arguments":{{"id":{id}}}}}"#);
    let interfaces = r#"{"execute":"guest-network-get-interfaces"}"#;
    let mut request = String::new();
    for id in 0..200 {
        request += &sync(id);
        request += if id % 7 == 0 { interfaces } else { "" };
    }
    let output = Host::new().send(request.as_bytes());
    let numbers: Vec<u64> = replies(&output).iter().filter_map(|(_, reply)| reply["return"].as_u64()).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u64>>());
    assert_eq!(replies(&output).len(), 229);
}

#[test]
fn a_walk_that_starts_anew_leaves_nothing_of_the_first_attempt() {
    let guest = FakeGuest {
        links: vec![
            FakeEvent::Link("gone", [0; 6], None),
            FakeEvent::Address("10.0.0.1".parse().unwrap(), 8),
            FakeEvent::Restart,
            FakeEvent::Link("eth0", [0, 1, 2, 0xAB, 4, 5], None),
            FakeEvent::Link("eth0:1", [0, 1, 2, 0xAB, 4, 5], None),
            FakeEvent::Address("10.0.0.2".parse().unwrap(), 32),
        ],
        ..FakeGuest::default()
    };
    let output = Host::with_guest(guest).send(br#"{"execute":"guest-network-get-interfaces"}"#);
    let want = json!({"return": [
        {"name": "eth0", "hardware-address": "00:01:02:ab:04:05"},
        {"name": "eth0:1", "hardware-address": "00:01:02:ab:04:05",
         "ip-addresses": [{"ip-address": "10.0.0.2", "ip-address-type": "ipv4", "prefix": 32}]},
    ]});
    assert_eq!(replies(&output), [(false, want)]);
}

#[test]
fn a_walk_that_fails_is_an_error() {
    let guest = FakeGuest { links_error: Some(Errno(105)), ..FakeGuest::default() };
    let output = Host::with_guest(guest).send(br#"{"execute":"guest-network-get-interfaces"}"#);
    assert_eq!(replies(&output)[0].1["error"]["desc"], "failed to get network interfaces: 105");
    let guest = FakeGuest { links_error: Some(Errno(12)), ..FakeGuest::default() };
    let output = Host::with_guest(guest).send(br#"{"execute":"guest-network-get-interfaces"}"#);
    assert_eq!(replies(&output)[0].1["error"]["desc"], "failed to get network interfaces: Cannot allocate memory");
}

#[test]
fn ip_addresses_read_as_inet_ntop_writes_them() {
    for ip in [
        "0.0.0.0",
        "10.20.99.100",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::5054:ff:fe12:3456",
        "2001:db8::1:0:0:1",
        "2001:db8:0:1:1:1:1:1",
        "2001::",
        "0:0:1::",
        "1:2:3:4:5:6::",
        "::2:0:0:3:0:0",
        "::ffff:192.168.1.1",
        "::192.168.1.1",
        "::ffff:0.0.0.0",
        "::abcd",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "1:0:0:2::3",
    ] {
        let links = vec![FakeEvent::Link("x", [0; 6], None), FakeEvent::Address(ip.parse().unwrap(), 1)];
        let output = Host::with_guest(FakeGuest { links, ..FakeGuest::default() })
            .send(br#"{"execute":"guest-network-get-interfaces"}"#);
        assert_eq!(replies(&output)[0].1["return"][0]["ip-addresses"][0]["ip-address"], ip);
    }
}

#[test]
fn sleep_is_silent_and_its_failure_says_why() {
    for (command, mode) in [
        ("guest-suspend-disk", Suspend::Disk),
        ("guest-suspend-ram", Suspend::Ram),
        ("guest-suspend-hybrid", Suspend::Hybrid),
    ] {
        let mut host = Host::with_guest(FakeGuest { suspend: Ok(()), ..FakeGuest::default() });
        assert_eq!(host.send(format!(r#"{{"execute":"{command}","id":1}}"#).as_bytes()), b"");
        assert_eq!(host.agent.guest.suspends, [mode]);
        assert_eq!(host.send(PING.as_bytes()), PONG.as_bytes());
    }
    for (failure, desc) in [
        (SuspendError::Unsupported, "the requested suspend mode is not supported by the guest"),
        (SuspendError::Busy, "another suspend is in progress"),
        (
            SuspendError::Write(c"/sys/power/state", Errno(16)),
            "suspend: cannot write to '/sys/power/state': Device or resource busy",
        ),
        (
            SuspendError::Helper(c"pm-suspend", 7),
            "the helper program 'pm-suspend' returned an unexpected exit status code (7)",
        ),
        (SuspendError::Job(Errno(11)), "failed to create child process: Resource temporarily unavailable"),
    ] {
        let mut host = Host::with_guest(FakeGuest { suspend: Err(failure), ..FakeGuest::default() });
        let output = host.send(br#"{"execute":"guest-suspend-ram","id":1}"#);
        assert_eq!(replies(&output), [(false, json!({"error": {"class": "GenericError", "desc": desc}, "id": 1}))]);
    }
    let mut host = Host::new();
    host.send(br#"{"execute":"guest-suspend-ram","arguments":{"x":1}}"#);
    assert_eq!(host.agent.guest.suspends, [], "it slept although the arguments were wrong");
}

#[test]
fn replies_before_a_sleep_are_sent_before_it_starts() {
    let mut host = Host::new();
    let input = format!(r#"{PING}{{"execute":"guest-suspend-ram"}}{PING}"#);
    let mut rest = input.as_bytes();
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Reply);
    assert_eq!(host.agent.guest.suspends, []);
    assert_eq!(host.take_pending(), PONG.as_bytes());
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Parked);
    assert_eq!(host.agent.guest.suspends, [Suspend::Ram]);
    // As long as it sleeps, nothing else is done.
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Parked);
    assert_eq!(host.take_pending(), b"");
    host.agent.guest.end_jobs();
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Reply);
    assert_eq!(replies(&host.take_pending()).len(), 2);
}

#[test]
fn a_new_host_gets_nothing_that_was_meant_for_the_one_before() {
    let mut host = Host::new();
    // Half a request, an unsent reply, a running command: each is gone after the reset.
    host.send(br#"{"execute":"gue"#);
    host.session.reset(&mut host.agent);
    assert_eq!(host.send(PING.as_bytes()), PONG.as_bytes());

    let mut rest = PING.as_bytes();
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Reply);
    host.session.reset(&mut host.agent);
    assert_eq!(host.take_pending(), b"");

    let mut rest = &br#"{"execute":"guest-suspend-disk"}"#[..];
    assert_eq!(host.session.feed(&mut host.agent, &mut rest, &mut host.spool), Fed::Parked);
    host.session.reset(&mut host.agent);
    assert_eq!(host.agent.guest.abandoned.len(), 1);
    assert_eq!(host.send(PING.as_bytes()), PONG.as_bytes());
}
