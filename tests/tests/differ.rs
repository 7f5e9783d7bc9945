//! The agent beside QEMU's own, request by request, on this machine: nothing here changes anything outside of a
//! directory that is thrown away.

use nanoga_tests::reference::Pair;
use serde_json::json;

#[test]
fn what_is_asked_without_arguments() {
    let mut pair = Pair::start(&[]).unwrap();
    for command in ["guest-ping", "guest-network-get-interfaces"] {
        pair.ask(&json!({ "execute": command })).unwrap();
        pair.ask(&json!({ "execute": command, "arguments": {}, "id": [1, { "a": "ü" }] })).unwrap();
        pair.ask(&json!({ "execute": command, "arguments": { "x": 1 }, "id": null })).unwrap();
    }
    pair.agree();
}

#[test]
fn requests_that_no_agent_takes() {
    let mut pair = Pair::start(&[]).unwrap();
    for request in [
        json!({ "execute": "guest-none" }),
        json!({ "execute": "" }),
        json!({ "execute": "guest-sync" }),
        json!({ "execute": "guest-sync", "arguments": { "id": 1.5 } }),
        json!({ "execute": "guest-sync", "arguments": { "id": 1, "more": 2 } }),
        json!({ "execute": "guest-info", "arguments": [] }),
        json!({ "execute": 1 }),
        json!({ "exec": 1 }),
        json!({}),
        json!([1]),
    ] {
        pair.ask(&request).unwrap();
    }
    pair.agree();
}
