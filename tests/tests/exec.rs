//! `guest-exec` with real programs: what they get, and what is told of them. Every one of them has a bound on its time
//! and memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nanoga_tests::agent::{Agent, BUSY_KIB};
use nanoga_tests::client::{base64_encode, error_text};
use nanoga_tests::pair::{Pair, asked_by_proxmox, end_program};
use nanoga_tests::{paths, wait_for};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn how_a_program_ends_is_told_once() {
    let mut pair = Pair::new();
    let pid = pair.start(json!({ "path": "true" }));
    let ended = pair.end(pid);
    assert_eq!(ended.status, json!({ "exited": true, "exitcode": 0 }));
    let again = pair.call("guest-exec-status", json!({ "pid": pid }));
    assert_eq!(error_text(&again), format!("PID {pid} does not exist"));
    assert_eq!(pair.shell("exit 77").status, json!({ "exited": true, "exitcode": 77 }));
    assert_eq!(pair.shell("kill -TERM $$").status, json!({ "exited": true, "signal": 15 }));
}

#[test]
fn while_a_program_runs_nothing_else_is_told() {
    let mut pair = Pair::new();
    let line = "echo hello; exec sleep 60";
    let pid = pair.start(json!({ "path": "sh", "arg": ["-c", line], "capture-output": true }));
    for _ in 0..3 {
        let reply = pair.call("guest-exec-status", json!({ "pid": pid }));
        assert_eq!(reply, json!({ "return": { "exited": false } }));
        std::thread::sleep(Duration::from_millis(20));
    }
    end_program(pid);
    let ended = pair.end(pid);
    assert_eq!((ended.text().as_str(), &ended.status["signal"]), ("hello\n", &json!(9)));
}

#[test]
fn what_is_kept_depends_on_the_mode() {
    let mut pair = Pair::new();
    for (mode, out, errors) in [
        (json!(true), "out\n", "err\n"),
        (json!("separated"), "out\n", "err\n"),
        (json!("stdout"), "out\n", ""),
        (json!("stderr"), "", "err\n"),
        (json!("merged"), "out\nerr\n", ""),
        (json!("none"), "", ""),
        (json!(false), "", ""),
        (Value::Null, "", ""),
    ] {
        let mut arguments = json!({ "path": "sh", "arg": ["-c", "echo out; echo err >&2"] });
        if !mode.is_null() {
            arguments["capture-output"] = mode.clone();
        }
        let ended = pair.run(arguments);
        assert_eq!((ended.text().as_str(), ended.errors), (out, errors.as_bytes().to_vec()), "{mode}");
        assert_eq!(ended.status["exitcode"], 0);
        // Each only beside its data.
        assert_eq!(ended.status.get("out-truncated"), (!out.is_empty()).then_some(&json!(false)), "{mode}");
        assert_eq!(ended.status.get("err-truncated"), (!errors.is_empty()).then_some(&json!(false)), "{mode}");
    }
}

#[test]
fn a_program_gets_its_arguments_and_exactly_its_environment() {
    let mut pair = Pair::new();
    let words = ["", "a b", "\u{e9}\u{1f600}", "$HOME", "\n"];
    let ended =
        pair.run(json!({ "path": "printf", "arg": ([["[%s]"].as_slice(), &words].concat()), "capture-output": true }));
    assert_eq!(ended.text(), words.map(|word| format!("[{word}]")).concat());

    let ended = pair.run(json!({ "path": "env", "env": ["B=2", "A=1", "odd"], "capture-output": true }));
    assert_eq!(ended.text(), "B=2\nA=1\nodd\n");
    assert_eq!(pair.run(json!({ "path": "env", "env": [], "capture-output": true })).text(), "");
    let ended = pair.run(json!({ "path": "env", "capture-output": true }));
    let environment = fs::read(format!("/proc/{}/environ", pair.agent.pid())).unwrap();
    let mut want: Vec<&[u8]> = environment.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let mut got: Vec<&[u8]> = ended.out.split(|byte| *byte == b'\n').filter(|word| !word.is_empty()).collect();
    want.sort_unstable();
    got.sort_unstable();
    assert_eq!(got.len(), want.len());
    assert_eq!(got, want);
}

#[test]
fn as_many_arguments_as_a_request_holds() {
    let mut pair = Pair::new();
    let many = vec!["x"; 60_000];
    let ended = pair
        .run(json!({ "path": "sh", "arg": ([["-c", "echo $#"].as_slice(), &many].concat()), "capture-output": true }));
    assert_eq!(ended.text(), "59999\n");
    let long = "y".repeat(120_000);
    let ended = pair.run(json!({ "path": "printf", "arg": ["%s", long], "capture-output": true }));
    assert_eq!(ended.text(), long);
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_program_is_looked_for_in_the_folders_of_its_own_path() {
    let mut pair = Pair::new();
    let (one, two) = (pair.agent.file("one"), pair.agent.file("two"));
    for folder in [&one, &two] {
        fs::create_dir(folder).unwrap();
    }
    script(&two.join("nanoga-program"), "#!/bin/sh\necho two\n");
    let path = format!("PATH=/nowhere:{}:{}", one.display(), two.display());
    let found =
        |pair: &mut Pair| pair.run(json!({ "path": "nanoga-program", "env": [path], "capture-output": true })).text();
    assert_eq!(found(&mut pair), "two\n");
    // What is there and not executable is passed over.
    fs::write(one.join("nanoga-program"), "").unwrap();
    assert_eq!(found(&mut pair), "two\n");
    script(&one.join("nanoga-program"), "#!/bin/sh\necho one\n");
    assert_eq!(found(&mut pair), "one\n");

    for env in [json!([]), json!(["PATH=/nowhere"]), json!(["PATH="]), json!(["PATH=:/nowhere"])] {
        let refused = pair.refused("guest-exec", json!({ "path": "nanoga-program", "env": env }));
        let want = "Failed to execute child process \u{201c}nanoga-program\u{201d} (No such file or directory)";
        assert_eq!(refused, want, "{env}");
    }
    // Without a variable, where programs usually are.
    assert_eq!(pair.run(json!({ "path": "true", "env": [] })).status["exitcode"], 0);
}

#[test]
fn an_agent_without_a_path_gives_its_programs_a_sane_one() {
    let mut pair = started_by("env", &["-i", "HOME=/nowhere"]);
    let text = pair.run(json!({ "path": "env", "capture-output": true })).text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("QGA_CONF=")).collect();
    assert_eq!(lines, ["HOME=/nowhere", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
}

/// An agent that was started by this program, with these arguments in front.
fn started_by(program: &str, arguments: &[&str]) -> Pair {
    let mut command = Command::new(program);
    command.args(arguments).arg(paths::agent_binary().unwrap());
    Pair::with(Agent::on_unix_by(command, &[]).unwrap())
}

#[test]
fn a_program_does_not_get_what_a_service_manager_told_the_agent() {
    let told = ["LISTEN_FDS=0", "LISTEN_PID=1", "LISTEN_FDNAMES=a", "NOTIFY_SOCKET=/nowhere"];
    let mut pair =
        started_by("env", &[&["-i", "LISTEN=1", "NOTIFY_SOCKETS=2"], told.as_slice(), &["PATH=/bin"]].concat());
    let text = pair.run(json!({ "path": "env", "capture-output": true })).text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("QGA_CONF=")).collect();
    assert_eq!(lines, ["LISTEN=1", "NOTIFY_SOCKETS=2", "PATH=/bin"]);
    let text = pair.run(json!({ "path": "env", "env": told, "capture-output": true })).text();
    assert_eq!(text.lines().collect::<Vec<_>>(), told, "what the host says is another thing");
}

#[test]
fn the_end_of_a_program_is_told_also_where_who_started_the_agent_ignored_such_ends() {
    let mut pair = started_by("env", &["--ignore-signal=CHLD"]);
    assert_eq!(pair.shell("exit 3").status["exitcode"], 3);
    assert_eq!(pair.agent.children().unwrap(), [] as [i64; 0]);
}

#[test]
fn what_cannot_be_executed_is_refused_at_once() {
    let mut pair = Pair::new();
    let plain_file = pair.agent.file("plain");
    fs::write(&plain_file, "").unwrap();
    let long = "x".repeat(5000);
    for (path, why) in [
        ("/bin/invalid-cmd42", "No such file or directory"),
        ("nanoga-no-such-program", "No such file or directory"),
        ("", "No such file or directory"),
        ("/", "Permission denied"),
        (plain_file.to_str().unwrap(), "Permission denied"),
        ("/bin/sh/x", "Not a directory"),
        (&format!("/{long}"), "File name too long"),
    ] {
        let want = format!("Failed to execute child process \u{201c}{path}\u{201d} ({why})");
        assert_eq!(pair.refused("guest-exec", json!({ "path": path, "capture-output": true })), want);
    }
    assert_eq!(pair.agent.children().unwrap(), [] as [i64; 0], "nobody is left");
}

#[test]
fn a_script_that_does_not_say_whose_is_the_shells() {
    let mut pair = Pair::new();
    let path = pair.agent.file("script");
    script(&path, "echo $0 $1 $#\n");
    let ended = pair.run(json!({ "path": path, "arg": ["one", "two"], "capture-output": true }));
    assert_eq!(ended.text(), format!("{} one 2\n", path.display()));
    let folder = path.parent().unwrap();
    let env = json!([format!("PATH={}:/bin", folder.display())]);
    let ended = pair.run(json!({ "path": "script", "env": env, "capture-output": true }));
    assert_eq!(ended.text(), format!("{} 0\n", path.display()));
}

#[test]
fn input_data_is_read_to_its_end() {
    let mut pair = Pair::new();
    for length in [0, 1, 4096, 70_000, 180_000] {
        let bytes: Vec<u8> = (0..length).map(|n: u32| (n ^ n >> 8) as u8).collect();
        let ended = pair.run(json!({ "path": "cat", "input-data": base64_encode(&bytes), "capture-output": true }));
        assert!(ended.out == bytes, "{length}");
    }
    // Padding in the middle makes small pieces of it.
    let text = "QQ==".repeat(40_000);
    let ended = pair.run(json!({ "path": "wc", "arg": ["-c"], "input-data": text, "capture-output": true }));
    assert_eq!(ended.text().trim(), "40000");
    assert_eq!(
        pair.run(json!({ "path": "cat", "capture-output": true })).status,
        json!({ "exited": true, "exitcode": 0 })
    );
    let status = pair.agent.settle().unwrap();
    assert!(status.rss_anon_kib <= BUSY_KIB, "{status:?}");
}

#[test]
fn a_program_inherits_nothing_but_its_three_descriptors() {
    let mut pair = Pair::new();
    let file = pair.host.call(&json!({ "execute": "guest-file-open", "arguments": { "path": "/dev/zero" } })).unwrap();
    assert!(file["return"].is_number());
    // `ls` opens the folder itself, as 3.
    let list = pair.run(json!({ "path": "ls", "arg": ["/proc/self/fd"], "capture-output": true })).text();
    assert_eq!(list, "0\n1\n2\n3\n");
    let list = pair.shell("readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2").text();
    let kinds: Vec<&str> = list.lines().map(|line| line.split('[').next().unwrap()).collect();
    assert_eq!(kinds, ["/dev/null", "pipe:", "pipe:"]);
    let path = pair.agent.file("fds");
    let line = format!("x=$(readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2); echo \"$x\" > {}", path.display());
    pair.run(json!({ "path": "sh", "arg": ["-c", line], "input-data": "" }));
    let list = fs::read_to_string(path).unwrap();
    let kinds: Vec<&str> = list.lines().map(|line| line.split('[').next().unwrap()).collect();
    assert_eq!(kinds, ["pipe:", "/dev/null", "/dev/null"]);
}

#[test]
fn a_program_starts_with_no_signal_blocked_or_ignored_in_a_session_of_its_own() {
    // The agent itself was started by somebody who ignores some.
    let mut pair = started_by("env", &["--ignore-signal=PIPE,USR1,CHLD"]);
    // The second one too: the agent remembers what it found.
    pair.shell("true");
    let ended =
        pair.run(json!({ "path": "cat", "arg": ["/proc/self/status", "/proc/self/stat"], "capture-output": true }));
    let text = ended.text();
    for what in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = text.lines().find(|line| line.starts_with(what)).unwrap();
        assert_eq!(line, format!("{what}:\t0000000000000000"));
    }
    // Behind the name: state, parent, process group, session, terminal.
    let stat = text.lines().last().unwrap();
    let pid = stat.split(' ').next().unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!(fields[2..5], [pid, pid, "0"], "{stat}");
}

#[test]
fn every_host_may_ask_for_a_program_of_another() {
    let mut pair = Pair::new();
    let pid = pair.start(json!({ "path": "echo", "arg": ["hello"], "capture-output": true }));
    pair.host = pair.agent.connect().unwrap();
    assert_eq!(pair.end(pid).text(), "hello\n");
}

/// One exec, then status until it has exited, each on a connection of its own behind a sync.
#[test]
fn proxmox_runs_a_program_its_way() {
    let agent = Agent::on_unix().unwrap();
    let command = |name: &str, arguments: Value| asked_by_proxmox(&agent, name, arguments);
    let started =
        command("guest-exec", json!({ "path": "cat", "arg": ["-"], "input-data": "aGk=", "capture-output": true }));
    let pid = started["return"]["pid"].as_i64().unwrap();
    let ended = wait_for("its end", PATIENCE, || {
        let status = command("guest-exec-status", json!({ "pid": pid }));
        Ok((status["return"]["exited"] == true).then(|| status["return"].clone()))
    });
    let want = json!({ "exited": true, "exitcode": 0, "out-data": "aGk=", "out-truncated": false });
    assert_eq!(ended.unwrap(), want);
    // The API allows input without a program.
    let refused = command("guest-exec", json!({ "input-data": "aGk=", "capture-output": true }));
    assert_eq!(error_text(&refused), "Parameter 'path' is missing");
}
