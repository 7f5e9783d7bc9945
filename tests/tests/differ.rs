//! The agent beside QEMU's own, request by request, on this machine: nothing here changes anything outside of a
//! directory that is thrown away, and no command is asked that could.

use nanoga_tests::client::base64_encode;
use nanoga_tests::reference::Pair;
use serde_json::{Value, json};

/// Commands that take nothing and change nothing.
const ASKED: [&str; 9] = [
    "guest-ping",
    "guest-get-time",
    "guest-get-osinfo",
    "guest-get-host-name",
    "guest-get-timezone",
    "guest-get-users",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-fsfreeze-status",
];

/// Those that a host cannot do without. `guest-get-load` is newer than the reference.
const COMMANDS: [&str; 29] = [
    "guest-sync-delimited",
    "guest-sync",
    "guest-ping",
    "guest-get-time",
    "guest-set-time",
    "guest-info",
    "guest-shutdown",
    "guest-file-open",
    "guest-file-close",
    "guest-file-read",
    "guest-file-write",
    "guest-file-seek",
    "guest-file-flush",
    "guest-fsfreeze-status",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-fsfreeze-thaw",
    "guest-fstrim",
    "guest-suspend-disk",
    "guest-suspend-ram",
    "guest-suspend-hybrid",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-exec",
    "guest-exec-status",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-osinfo",
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
fn the_commands_are_listed_alike() {
    let mut pair = Pair::start(&["-b", "guest-exec,guest-get-osinfo"]).unwrap();
    let [theirs, ours] = pair.replies(&json!({ "execute": "guest-info" })).unwrap();
    for name in COMMANDS {
        let [theirs, ours] = [&theirs, &ours].map(|reply| {
            let all = reply["return"]["supported_commands"].as_array().unwrap();
            all.iter().find(|command| command["name"] == name).unwrap_or_else(|| panic!("no {name}"))
        });
        assert_eq!(ours, theirs);
    }
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
fn what_is_asked_while_frozen() {
    let mut pair = Pair::start_in("touch qga.state.isfrozen", &[]).unwrap();
    for command in ["guest-fsfreeze-status", "guest-ping", "guest-get-time", "guest-file-open", "guest-fstrim"] {
        pair.ask(&json!({ "execute": command, "arguments": { "x": 1 } })).unwrap();
    }
    for command in ["guest-fsfreeze-status", "guest-get-time", "guest-get-fsinfo", "guest-fsfreeze-freeze"] {
        pair.ask(&json!({ "execute": command })).unwrap();
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
fn the_zone_of_time_wherever_it_is_set() {
    let zones =
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca"];
    let mut scripts: Vec<String> = zones.iter().map(|zone| format!("export TZ={zone}")).collect();
    scripts.extend(zones.iter().map(|zone| format!("mount --bind /usr/share/zoneinfo/{zone} /etc/localtime")));
    scripts.extend(["EST5EDT,M3.2.0,M11.1.0", "<+0330>-3:30"].map(|rule| format!("export TZ='{rule}'")));
    for script in scripts {
        let mut pair = Pair::start_in(&script, &[]).unwrap();
        pair.ask(&json!({ "execute": "guest-get-timezone", "id": script })).unwrap();
        pair.agree();
    }
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

#[test]
fn files_are_opened_in_every_mode() {
    let modes = ["r", "rb", "w", "wb", "a", "ab", "r+", "rb+", "r+b", "w+", "wb+", "w+b", "a+", "ab+", "a+b"];
    let mut pair = Pair::start_in("printf content >file; mkdir dir; mkfifo fifo", &[]).unwrap();
    for mode in modes.into_iter().chain(["", "x", "rw", "r ", "rbb", "b"]) {
        for path in ["@DIR@/file", "@DIR@/new", "@DIR@/dir", "@DIR@/no/file", "file", ""] {
            let reply = pair.ask(&request("guest-file-open", json!({ "path": path, "mode": mode }))).unwrap();
            let Some(handle) = reply.get("return").cloned() else { continue };
            let with = |name: &str, value: Value| json!({ "handle": handle, name: value });
            pair.ask(&request("guest-file-write", with("buf-b64", json!(base64_encode(b"new"))))).unwrap();
            pair.ask(&request("guest-file-flush", json!({ "handle": handle }))).unwrap();
            pair.ask(&request("guest-file-seek", json!({ "handle": handle, "offset": 0, "whence": "set" }))).unwrap();
            pair.ask(&request("guest-file-read", with("count", json!(100)))).unwrap();
            pair.ask(&request("guest-file-close", json!({ "handle": handle }))).unwrap();
            pair.ask(&request("guest-file-close", json!({ "handle": handle }))).unwrap();
        }
        if mode == "w+b" {
            pair.ask(&request("guest-file-open", json!({ "path": "@DIR@/fifo" }))).unwrap();
        }
    }
    pair.agree();
}

#[test]
fn files_are_read_written_and_sought() {
    let mut pair = Pair::start_in("seq 2000 >numbers", &[]).unwrap();
    let mut ask = |command: &str, arguments: Value| pair.ask(&request(command, arguments)).unwrap();
    ask("guest-file-open", json!({ "path": "@DIR@/numbers", "mode": "r+" }));
    for count in [json!(null), json!(0), json!(10), json!(4096), json!(100_000), json!(1), json!(-1), json!(50_331_649)]
    {
        let mut arguments = json!({ "handle": 1000, "count": count });
        if count.is_null() {
            arguments.as_object_mut().unwrap().shift_remove("count");
        }
        ask("guest-file-read", arguments);
    }
    for (offset, whence) in
        [(10, json!("set")), (5, json!("cur")), (-3, json!("end")), (0, json!(0)), (2, json!(1)), (-2, json!(2))]
    {
        ask("guest-file-seek", json!({ "handle": 1000, "offset": offset, "whence": whence }));
        ask("guest-file-read", json!({ "handle": 1000, "count": 20 }));
    }
    for (offset, whence) in [
        (-1, json!("set")),
        (0, json!(3)),
        (0, json!(-1)),
        (0, json!("hole")),
        (0, json!(true)),
        (0, json!(null)),
        (1_i64 << 40, json!("set")),
    ] {
        ask("guest-file-seek", json!({ "handle": 1000, "offset": offset, "whence": whence }));
    }
    ask("guest-file-seek", json!({ "handle": 1000, "offset": 100, "whence": 0 }));
    for text in
        ["SGVsbG8=", "SGVsbG8", "SGVs\nbG8=", "SGVs bG8=", "????", "", "=", "SGVsbG8=SGVsbG8=", "A", "AA", "AAA"]
    {
        ask("guest-file-write", json!({ "handle": 1000, "buf-b64": text }));
    }
    for count in [0, 2, 5, 6, -1] {
        ask("guest-file-write", json!({ "handle": 1000, "buf-b64": "SGVsbG8=", "count": count }));
    }
    ask("guest-file-flush", json!({ "handle": 1000 }));
    ask("guest-file-seek", json!({ "handle": 1000, "offset": 90, "whence": 0 }));
    ask("guest-file-read", json!({ "handle": 1000, "count": 60 }));
    // A write between reads, at the place where they stopped.
    ask("guest-file-write", json!({ "handle": 1000, "buf-b64": base64_encode(b"HERE") }));
    ask("guest-file-read", json!({ "handle": 1000, "count": 10 }));
    ask("guest-file-close", json!({ "handle": 1000 }));
    for command in ["guest-file-close", "guest-file-flush", "guest-file-read"] {
        ask(command, json!({ "handle": 1000 }));
        ask(command, json!({ "handle": "1000" }));
        ask(command, json!({}));
        ask(command, json!({ "handle": -1 }));
        ask(command, json!({ "handle": 1, "more": 1 }));
    }
    ask("guest-file-open", json!({}));
    ask("guest-file-open", json!({ "path": 1 }));
    ask("guest-file-open", json!({ "path": "/", "mode": null }));
    ask("guest-file-open", json!({ "path": "@DIR@/numbers" }));
    ask("guest-file-open", json!({ "path": "@DIR@/numbers" }));
    pair.agree();
}

#[test]
fn programs_are_run() {
    let script = "printf 'echo from a script' >plain; chmod +x plain; printf '#!/bin/sh\necho $0 $1' >script; \
                  chmod +x script; printf data >data; export SOMETHING=inherited";
    let mut pair = Pair::start_in(script, &[]).unwrap();
    let sh = |text: &str| json!({ "path": "sh", "arg": ["-c", text], "capture-output": true });
    for arguments in [
        json!({ "path": "true" }),
        json!({ "path": "/bin/false", "capture-output": false }),
        json!({ "path": "echo", "arg": ["a", "b c", ""], "capture-output": true }),
        sh("echo out; echo err >&2; exit 7"),
        sh("kill -9 $$"),
        sh("printf '\\0\\377'"),
        sh("exit 256"),
        json!({ "path": "sh", "arg": ["-c", "env; pwd"], "capture-output": true, "env": [] }),
        json!({ "path": "sh", "arg": ["-c", "echo $A $B $SOMETHING"], "capture-output": true, "env": ["A=1", "B=two words"] }),
        json!({ "path": "sh", "arg": ["-c", "echo $SOMETHING"], "capture-output": true }),
        json!({ "path": "script", "arg": ["x"], "capture-output": true, "env": ["PATH=@DIR@"] }),
        json!({ "path": "@DIR@/script", "arg": ["x"], "capture-output": true }),
        json!({ "path": "@DIR@/plain", "capture-output": true }),
        json!({ "path": "@DIR@/data", "capture-output": true }),
        json!({ "path": "@DIR@/none" }),
        json!({ "path": "@DIR@" }),
        json!({ "path": "@DIR@/data/none" }),
        json!({ "path": "no-such-program" }),
        json!({ "path": "" }),
        json!({ "path": "cat", "input-data": base64_encode(b"in and out"), "capture-output": true }),
        json!({ "path": "cat", "input-data": "", "capture-output": true }),
        json!({ "path": "cat", "input-data": "!", "capture-output": true }),
        json!({ "path": "cat", "capture-output": true }),
        json!({ "path": "true", "input-data": base64_encode([b'x'; 100_000]) }),
        json!({ "path": "sh", "arg": ["-c", "ls -l /proc/self/fd | grep -c /"], "capture-output": true }),
        json!({ "path": "grep", "arg": ["^Sig[BC]", "/proc/self/status"], "capture-output": true }),
        json!({ "path": "seq", "arg": ["100000"], "capture-output": true }),
        json!({ "arg": [] }),
        json!({ "path": 1 }),
        json!({ "path": "true", "arg": "x" }),
        json!({ "path": "true", "arg": ["x", 1] }),
        json!({ "path": "true", "env": [null] }),
        json!({ "path": "true", "input-data": 1 }),
        json!({ "path": "true", "more": 1 }),
    ] {
        pair.exec(arguments).unwrap();
    }
    // It was told, and is forgotten.
    pair.ask(&request("guest-exec-status", json!({ "pid": 1 }))).unwrap();
    pair.ask(&request("guest-exec-status", json!({ "pid": -1 }))).unwrap();
    pair.ask(&request("guest-exec-status", json!({ "pid": "1" }))).unwrap();
    pair.ask(&request("guest-exec-status", json!({}))).unwrap();
    pair.agree();
}

fn request(command: &str, arguments: Value) -> Value {
    json!({ "execute": command, "arguments": arguments })
}
