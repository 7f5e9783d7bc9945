//! `guest-exec` and `guest-exec-status` over processes that exist in memory only: what is asked of the guest, and how
//! its answers look.
#![cfg(feature = "exec")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::{Capture, End, Errno, StartError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use support::processes::FakeProgram;
use support::{Host, REPLY_BYTES};

fn program(path: &str) -> FakeProgram {
    FakeProgram {
        path: path.to_owned(),
        arguments: vec![],
        environment: None,
        input: None,
        capture: Capture::default(),
    }
}

#[test]
fn all_that_a_host_asks_for_reaches_the_guest() {
    let host = &mut Host::new();
    assert_eq!(host.call("guest-exec", json!({ "path": "true" })), json!({ "return": { "pid": 4001 } }));
    let all = json!({
        "path": "/bin/x y", "arg": ["", "a b", "\u{e9}\u{1f600}", "\""], "env": [], "input-data": "aGVs\nbG8=",
        "capture-output": "merged",
    });
    assert_eq!(host.call("guest-exec", all), json!({ "return": { "pid": 4002 } }));
    let want = FakeProgram {
        arguments: ["", "a b", "\u{e9}\u{1f600}", "\""].map(str::to_owned).to_vec(),
        environment: Some(vec![]),
        input: Some(b"hello".to_vec()),
        capture: Capture { output: true, merged: true, errors: false },
        ..program("/bin/x y")
    };
    assert_eq!(host.agent.guest.processes.started, [program("true"), want]);
}

#[test]
fn capture_output_is_yes_or_no_or_a_mode() {
    for (value, want) in [
        (json!(true), [true, true, false]),
        (json!(false), [false, false, false]),
        (json!("none"), [false, false, false]),
        (json!("stdout"), [true, false, false]),
        (json!("stderr"), [false, true, false]),
        (json!("separated"), [true, true, false]),
        (json!("merged"), [true, false, true]),
    ] {
        let host = &mut Host::new();
        host.call("guest-exec", json!({ "path": "x", "capture-output": value }));
        let [output, errors, merged] = want;
        let want = FakeProgram { capture: Capture { output, errors, merged }, ..program("x") };
        assert_eq!(host.agent.guest.processes.started, [want], "{value}");
    }
    let host = &mut Host::new();
    for value in [json!(null), json!(1), json!([]), json!({})] {
        let want = "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput";
        host.fails("guest-exec", json!({ "path": "x", "capture-output": value }), want);
    }
    let want = "Parameter 'capture-output' does not accept value 'foo'";
    host.fails("guest-exec", json!({ "path": "x", "capture-output": "foo" }), want);
    assert!(host.agent.guest.processes.started.is_empty());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_started() {
    let host = &mut Host::new();
    for (arguments, want) in [
        (json!({}), "Parameter 'path' is missing"),
        (json!({ "path": 1 }), "Invalid parameter type for 'path', expected: string"),
        (json!({ "path": "x", "arg": "x" }), "Invalid parameter type for 'arg', expected: array"),
        (json!({ "path": "x", "arg": ["x", 1] }), "Invalid parameter type for 'arg[1]', expected: string"),
        (json!({ "path": "x", "env": [null] }), "Invalid parameter type for 'env[0]', expected: string"),
        (json!({ "path": "x", "input-data": "a!" }), "Base64 data contains invalid characters"),
        (json!({ "path": "x", "input-data": "a!", "y": 1 }), "Parameter 'y' is unexpected"),
    ] {
        host.fails("guest-exec", arguments, want);
    }
    assert!(host.agent.guest.processes.started.is_empty());
}

#[test]
fn why_a_program_could_not_be_started_is_said_at_once() {
    let host = &mut Host::new();
    // ENOENT
    host.agent.guest.processes.error = Some(StartError::Program(Errno(2)));
    let request = br#"{"execute":"guest-exec","arguments":{"path":"/no \"such\" thing"}}"#;
    let want = br#"{"error":{"class":"GenericError","desc":"Failed to execute child process \u201C/no \"such\" thing\u201D (No such file or directory)"}}"#;
    assert_eq!(host.send(request).escape_ascii().to_string(), [&want[..], b"\n"].concat().escape_ascii().to_string());
    // EMFILE
    host.agent.guest.processes.error = Some(StartError::Process(Errno(24)));
    host.fails("guest-exec", json!({ "path": "x" }), "failed to create child process: Too many open files");
}

/// A host with a process that ended like this.
fn ended(end: Option<End>, output: [&[u8]; 2], truncated: [bool; 2]) -> Host<'static> {
    let mut host = Host::new();
    host.call("guest-exec", json!({ "path": "x" }));
    let process = host.agent.guest.processes.known.get_mut(&4001).unwrap();
    process.end = end;
    process.output = output.map(<[u8]>::to_vec);
    process.truncated = truncated;
    host
}

#[test]
fn a_status_has_the_members_that_mean_something() {
    let status = |mut host: Host<'static>| {
        let output = host.send(br#"{"execute":"guest-exec-status","arguments":{"pid":4001}}"#);
        (String::from_utf8(output).unwrap(), host)
    };
    let (said, host) = status(ended(None, [b"so far", b""], [false; 2]));
    assert_eq!(said, "{\"return\":{\"exited\":false}}\n");
    assert!(!host.agent.guest.processes.known.is_empty(), "it is asked for again");

    for (end, output, truncated, want) in [
        (End::Exited(0), [&b""[..], b""], [false; 2], r#""exitcode":0"#),
        (End::Exited(255), [b"", b""], [true; 2], r#""exitcode":255"#),
        (End::Killed(9), [b"hi", b""], [false; 2], r#""signal":9,"out-data":"aGk=","out-truncated":false"#),
        (End::Exited(1), [b"", b"!"], [false, true], r#""exitcode":1,"err-data":"IQ==","err-truncated":true"#),
        (
            End::Exited(1),
            [b"a", b"b"],
            [true, false],
            r#""exitcode":1,"out-data":"YQ==","err-data":"Yg==","out-truncated":true,"err-truncated":false"#,
        ),
    ] {
        let (said, mut host) = status(ended(Some(end), output, truncated));
        assert_eq!(said, format!("{{\"return\":{{\"exited\":true,{want}}}}}\n"));
        host.fails("guest-exec-status", json!({ "pid": 4001 }), "PID 4001 does not exist");
    }
}

#[test]
fn a_process_that_is_not_known_is_named() {
    let host = &mut Host::new();
    for pid in [0, -1, i64::MIN, i64::MAX] {
        host.fails("guest-exec-status", json!({ "pid": pid }), &format!("PID {pid} does not exist"));
    }
    host.fails("guest-exec-status", json!({}), "Parameter 'pid' is missing");
    host.fails("guest-exec-status", json!({ "pid": 1.5 }), "Invalid parameter type for 'pid', expected: integer");
}

#[test]
fn output_of_any_length_comes_through_whole() {
    for length in [1, 2, 3, 100, REPLY_BYTES - 1, REPLY_BYTES, REPLY_BYTES + 1, 20_000] {
        let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let host = &mut ended(Some(End::Exited(0)), [&bytes, b"err"], [false; 2]);
        let status = host.call("guest-exec-status", json!({ "pid": 4001 }));
        assert!(BASE64_STANDARD.decode(status["return"]["out-data"].as_str().unwrap()).unwrap() == bytes, "{length}");
        assert_eq!(status["return"]["err-data"], "ZXJy");
    }
}
