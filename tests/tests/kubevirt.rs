//! KubeVirt as the host, through libvirt: what it asks before it calls a guest's agent supported, and its probes.

use std::time::Duration;

use nanoga_tests::libvirt::Libvirt;
use nanoga_tests::wait_for;
use serde_json::{Value, json};

/// What an agent must offer to be supported at all.
const REQUIRED: [&str; 10] = [
    "guest-ping",
    "guest-get-time",
    "guest-info",
    "guest-shutdown",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-osinfo",
];

/// What it needs beyond, to bring keys of SSH into a guest whose agent has no command for it.
const FOR_KEYS: [&str; 6] =
    ["guest-exec", "guest-exec-status", "guest-file-open", "guest-file-close", "guest-file-read", "guest-file-write"];

#[test]
fn the_agent_is_supported_and_its_pollers_and_probes_are_answered() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    let info = libvirt.agent_command(r#"{"execute":"guest-info"}"#).unwrap();
    for name in REQUIRED.iter().chain(&FOR_KEYS) {
        let known = info["supported_commands"].as_array().unwrap().iter().find(|command| command["name"] == *name);
        assert_eq!(known.unwrap_or_else(|| panic!("no {name}"))["enabled"], true, "{name}");
    }
    assert_eq!(libvirt.agent_command(r#"{"execute":"guest-get-fsinfo"}"#).unwrap(), json!([]));
    assert_eq!(libvirt.agent_command(r#"{"execute":"guest-fsfreeze-status"}"#).unwrap(), "thawed");
    assert_eq!(libvirt.agent_command(r#"{"execute":"guest-ping"}"#).unwrap(), json!({}));

    guest.sh("echo healthy >/tmp/state").unwrap();
    let probe = ["sh", "-c", "sleep 1; grep healthy /tmp/state"];
    let status = probed(&libvirt, &probe);
    let expected = json!({ "exited": true, "exitcode": 0, "out-data": "aGVhbHRoeQo=", "out-truncated": false });
    assert_eq!(status, expected);
    guest.sh("echo ill >/tmp/state").unwrap();
    assert_eq!(probed(&libvirt, &probe), json!({ "exited": true, "exitcode": 1 }));
}

/// Starts a program in the guest and asks after it until it has ended.
fn probed(libvirt: &Libvirt, words: &[&str]) -> Value {
    let (path, arguments) = (words[0], json!(words[1..]));
    let start = format!(
        r#"{{"execute": "guest-exec", "arguments": {{ "path": "{path}", "arg": {arguments}, "capture-output":true }} }}"#
    );
    let pid = libvirt.agent_command(&start).unwrap()["pid"].take();
    let ask = format!(r#"{{"execute": "guest-exec-status", "arguments": {{ "pid": {pid} }} }}"#);
    let ended = wait_for("the end of the probe", Duration::from_secs(20), || {
        let status = libvirt.agent_command(&ask)?;
        Ok((status["exited"] == true).then_some(status))
    });
    ended.unwrap()
}
