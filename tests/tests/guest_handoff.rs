//! The agent as the first process of a whole distribution, which it hands over to systemd.
//!
//! As a distribution boots: an initramfs finds the disk and switches to it, with `init=` on the agent. What runs in the
//! guest is asked through the agent itself.

use std::time::Duration;

use nanoga_tests::client::{Client, base64_decode};
use nanoga_tests::paths;
use nanoga_tests::qemu::{Board, Machine, Qemu};
use nanoga_tests::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a boot of systemd and its end may take under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// The initramfs: puts the agent on the disk, and a service that says when systemd ends it.
const SWITCH: &str = r#"#!/bin/sh
/etc/prepare
mkdir /root
until mount -t ext4 /dev/vda /root; do sleep 0.1; done
cp /sbin/nanoga /root/usr/sbin/nanoga
cat >/root/etc/systemd/system/witness.service <<END
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo "stopped in order" >/dev/console'
[Install]
WantedBy=multi-user.target
END
mkdir -p /root/etc/systemd/system/multi-user.target.wants
ln -s ../witness.service /root/etc/systemd/system/multi-user.target.wants/
umount /tmp /dev /sys /proc
exec switch_root /root /usr/sbin/nanoga
"#;

#[test]
fn systemd_is_handed_the_guest_and_the_agent_goes_on_beside_it() {
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("disk");
    std::fs::copy(paths::systemd_disk().unwrap(), &disk).unwrap();
    let mut machine = Machine::new(Board::Pc);
    machine.disk = Some(disk);
    machine.extras.modules.push("ext4");
    machine.extras.files.push(("etc/switch".into(), SWITCH.into()));
    // Without udev nothing says that the console is there, and a login on it would be waited for.
    machine.words = " rdinit=/etc/switch nanoga.handoff=/sbin/init systemd.getty_auto=0".into();
    let mut qemu = Qemu::start(&machine).unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));

    // It answers before systemd is done; a target that is reached later is waited for.
    let reached = wait_for("systemd to reach its target", LONG, || {
        let active = run(&mut host, &["systemctl", "is-active", "multi-user.target"]);
        Ok((active == "active\n").then_some(()))
    });
    reached.unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    let first = run(&mut host, &["readlink", "/proc/1/exe"]);
    assert_eq!(first, "/usr/lib/systemd/systemd\n");
    // The parent of what the agent runs is the agent; its own parent is systemd.
    let agent = run(&mut host, &["sh", "-c", "readlink /proc/$PPID/exe; grep PPid /proc/$PPID/status"]);
    assert_eq!(agent, "/usr/sbin/nanoga\nPPid:\t1\n");
    let mounts = run(&mut host, &["cat", "/proc/mounts"]);
    for mount in ["proc /proc proc", "/dev/vda / ext4 rw"] {
        assert_eq!(mounts.matches(mount).count(), 1, "{mount}: {mounts}");
    }

    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    let event = qemu.qmp.wait_event("SHUTDOWN", LONG).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    assert_eq!(event["data"]["reason"], "guest-shutdown");
    qemu.exited().unwrap();
    assert!(qemu.console().contains("stopped in order"), "{}", qemu.logs());
}

/// Runs a program in the guest: what it wrote.
fn run(host: &mut Client, words: &[&str]) -> String {
    let arguments = json!({ "path": words[0], "arg": words[1..], "capture-output": true });
    let pid = host.call(&json!({ "execute": "guest-exec", "arguments": arguments })).unwrap()["return"]["pid"].take();
    let ask = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
    let status = wait_for("the program to end", LONG, || {
        let status: Value = host.call(&ask)?["return"].take();
        Ok((status["exited"] != false).then_some(status))
    });
    String::from_utf8_lossy(&base64_decode(status.unwrap()["out-data"].as_str().unwrap_or_default())).into_owned()
}
