//! The agent beside QEMU's own, request by request, on this machine: nothing here changes anything outside of a
//! directory that is thrown away, and no command is asked that could.

use nanoga_tests::reference::Pair;
use serde_json::json;

/// Commands that take nothing and change nothing.
const ASKED: [&str; 7] = [
    "guest-ping",
    "guest-get-time",
    "guest-get-osinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
];

#[test]
fn what_is_asked_without_arguments() {
    let mut pair = Pair::start(&[]).unwrap();
    for command in ASKED {
        pair.ask(&json!({ "execute": command })).unwrap();
        pair.ask(&json!({ "execute": command, "arguments": {}, "id": [1, { "a": "ü" }] })).unwrap();
        pair.ask(&json!({ "execute": command, "arguments": { "x": 1 }, "id": null })).unwrap();
    }
    pair.agree();
}

#[test]
fn requests_that_no_agent_takes() {
    let mut pair = Pair::start(&["-b", "guest-ping,guest-get-osinfo"]).unwrap();
    for request in [
        json!({ "execute": "guest-none" }),
        json!({ "execute": "" }),
        json!({ "execute": "guest-ping" }),
        json!({ "execute": "guest-ping", "arguments": { "x": 1 }, "id": 7 }),
        json!({ "execute": "guest-get-osinfo" }),
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

#[test]
fn the_name_of_the_system_in_every_spelling() {
    for release in [
        "ID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\n",
        "# comment\n\nID=a\nVERSION=1.2\nVARIANT=\"Cloud Edition\"\nVARIANT_ID=cloud\nOTHER=x\n",
        "NAME=\"say \\\"yes\\\" for \\$5 \\`now\\` \\\\\"\nID=\"\"\nVERSION=\n",
        "ID=twice\nID=again\n",
        "ID=no-newline",
        "",
    ] {
        let script = format!("cat >release <<'END'\n{release}\nEND\nexport QGA_OS_RELEASE=\"$PWD/release\"");
        let mut pair = Pair::start_in(&script, &[]).unwrap();
        pair.ask(&json!({ "execute": "guest-get-osinfo", "id": release })).unwrap();
        pair.agree();
    }
    let mut pair = Pair::start_in("export QGA_OS_RELEASE=/nowhere", &[]).unwrap();
    pair.ask(&json!({ "execute": "guest-get-osinfo" })).unwrap();
    pair.agree();
}

#[test]
fn users_as_login_programs_write_them() {
    // The kind of a record, the line, the name, seconds and microseconds.
    let records: [(u8, &str, &str, u32, u32); 7] = [
        (2, "~", "reboot", 1_600_000_000, 0),
        (7, "tty1", "root", 1_700_000_000, 250_000),
        (7, "pts/0", "someone-with-a-name-of-32-letters", 1_700_000_001, 1),
        (7, "pts/1", "root", 1_600_000_000, 999_999),
        (8, "pts/2", "gone", 1_700_000_000, 0),
        (6, "tty2", "LOGIN", 1_700_000_000, 0),
        (7, "pts/3", "", 1_700_000_000, 0),
    ];
    let mut file = Vec::new();
    for (kind, line, name, seconds, microseconds) in records {
        let mut record = vec![0; 384];
        record[0] = kind;
        record[8..8 + line.len()].copy_from_slice(line.as_bytes());
        let name = &name.as_bytes()[..name.len().min(32)];
        record[44..44 + name.len()].copy_from_slice(name);
        record[340..344].copy_from_slice(&seconds.to_le_bytes());
        record[344..348].copy_from_slice(&microseconds.to_le_bytes());
        file.extend(record);
    }
    for length in [file.len(), file.len() - 100, 0] {
        let octal: String = file[..length].iter().map(|byte| format!("\\{byte:03o}")).collect();
        let script = format!("mount -t tmpfs tmpfs /run; printf '{octal}' >/run/utmp");
        let mut pair = Pair::start_in(&script, &[]).unwrap();
        pair.ask(&json!({ "execute": "guest-get-users" })).unwrap();
        pair.agree();
    }
    let mut pair = Pair::start_in("mount -t tmpfs tmpfs /run", &[]).unwrap();
    pair.ask(&json!({ "execute": "guest-get-users" })).unwrap();
    pair.agree();
}
