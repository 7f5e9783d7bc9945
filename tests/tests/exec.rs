//! `guest-exec` with real programs: what they get, what is kept of them, and what they leave behind. Every one of them
//! has a bound on its time and memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nanoga_tests::agent::{Agent, Bounds, bounded};
use nanoga_tests::client::{Client, base64_decode, base64_encode, error_text};
use nanoga_tests::{paths, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// KiB of private memory: 32 as ever, and a page each for the records of programs and a deeper stack.
const BUSY_KIB: u64 = 40;

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent and one host of it.
struct Pair {
    agent: Agent,
    host: Client,
}

/// How a program ended.
#[derive(Debug)]
struct Ended {
    status: Value,
    out: Vec<u8>,
    errors: Vec<u8>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }
}

impl Pair {
    fn new() -> Pair {
        let agent = Agent::on_unix().unwrap();
        let host = agent.connect().unwrap();
        Pair { agent, host }
    }

    fn call(&mut self, command: &str, arguments: Value) -> Value {
        self.host.call(&json!({ "execute": command, "arguments": arguments })).unwrap()
    }

    #[track_caller]
    fn start(&mut self, arguments: Value) -> i64 {
        let reply = self.call("guest-exec", arguments);
        reply["return"]["pid"].as_i64().unwrap_or_else(|| panic!("{reply}"))
    }

    #[track_caller]
    fn refused(&mut self, arguments: Value) -> String {
        error_text(&self.call("guest-exec", arguments)).to_owned()
    }

    /// The status of a process, once it has ended.
    #[track_caller]
    fn end(&mut self, pid: i64) -> Ended {
        let status = wait_for("the end of a program", PATIENCE, || {
            let reply = self.call("guest-exec-status", json!({ "pid": pid }));
            assert!(reply["return"]["exited"].is_boolean(), "{reply}");
            Ok((reply["return"]["exited"] == true).then(|| reply["return"].clone()))
        })
        .unwrap();
        let data = |name: &str| base64_decode(status[name].as_str().unwrap_or_default());
        Ended { out: data("out-data"), errors: data("err-data"), status }
    }

    #[track_caller]
    fn run(&mut self, arguments: Value) -> Ended {
        let pid = self.start(arguments);
        self.end(pid)
    }

    /// Runs a line of shell and keeps what it writes.
    #[track_caller]
    fn shell(&mut self, line: &str) -> Ended {
        self.run(json!({ "path": "/bin/sh", "arg": ["-c", line], "capture-output": true }))
    }
}

/// The process ids of the children of a process, dead ones included.
fn children(pid: i32) -> Vec<i64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn end_process(pid: i64) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
}

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
    end_process(pid);
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
        let refused = pair.refused(json!({ "path": "nanoga-program", "env": env }));
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
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let mut command = std::process::Command::new(program);
    command.args(arguments).arg(paths::agent_binary().unwrap());
    command.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(dir.path());
    let agent = Agent::spawn(dir, command).unwrap();
    agent.wait_for_socket(&socket).unwrap();
    let host = agent.connect().unwrap();
    Pair { agent, host }
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
    assert_eq!(children(pair.agent.pid()), [] as [i64; 0]);
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
        assert_eq!(pair.refused(json!({ "path": path, "capture-output": true })), want);
    }
    assert_eq!(children(pair.agent.pid()), [] as [i64; 0], "nobody is left");
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
fn input_that_nobody_reads_holds_nobody_up() {
    let mut pair = Pair::new();
    let text = base64_encode(vec![7; 180_000]);
    let start = Instant::now();
    let pids: Vec<i64> =
        (0..8).map(|_| pair.start(json!({ "path": "sleep", "arg": ["60"], "input-data": text }))).collect();
    assert_eq!(pair.host.ask("guest-ping").unwrap(), json!({}));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for pid in pids {
        end_process(pid);
        pair.end(pid);
    }
    assert_eq!(
        pair.run(json!({ "path": "true", "input-data": text })).status["exitcode"],
        0,
        "nor does it kill anybody"
    );
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
fn nothing_is_left_of_programs_that_have_ended() {
    let mut pair = Pair::new();
    pair.shell("true");
    pair.agent.settle().unwrap();
    let before = descriptors(pair.agent.pid());
    for number in 0..200 {
        let line = format!("echo {number}; echo x >&2");
        assert_eq!(pair.shell(&line).text(), format!("{number}\n"));
    }
    let status = pair.agent.settle().unwrap();
    assert_eq!(descriptors(pair.agent.pid()), before);
    assert_eq!(children(pair.agent.pid()), [] as [i64; 0]);
    assert!(status.rss_anon_kib <= BUSY_KIB, "{status:?}");
}

#[test]
fn callers_that_never_ask_lock_nobody_out() {
    let mut pair = Pair::new();
    let before = descriptors(pair.agent.pid());
    let mut last = 0;
    for _ in 0..300 {
        last = pair.start(json!({ "path": "sh", "arg": ["-c", "echo x; echo y >&2"], "capture-output": true }));
        // Those that still run make no room.
        while children(pair.agent.pid()).len() > 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(pair.end(last).text(), "x\n", "the last ones are still known");
    wait_for("the last ones", PATIENCE, || Ok(children(pair.agent.pid()).is_empty().then_some(()))).unwrap();
    pair.agent.settle().unwrap();
    // Two files each, at most.
    assert!(descriptors(pair.agent.pid()) <= before + 2 * 36, "{}", descriptors(pair.agent.pid()));
}

#[test]
fn only_programs_that_all_still_run_leave_no_room() {
    let mut pair = Pair::new();
    let mut running = Vec::new();
    let refused = loop {
        let reply = pair.call("guest-exec", json!({ "path": "sleep", "arg": ["60"], "capture-output": true }));
        match reply["return"]["pid"].as_i64() {
            Some(pid) => running.push(pid),
            None => break error_text(&reply).to_owned(),
        }
        assert!(running.len() < 1000, "without end");
    };
    assert_eq!(refused, "failed to create child process: Resource temporarily unavailable");
    assert!(running.len() >= 32, "{}", running.len());
    // One that has ended makes room, although nobody has asked for it.
    end_process(running[5]);
    wait_for("its end", PATIENCE, || Ok((!children(pair.agent.pid()).contains(&running[5])).then_some(()))).unwrap();
    let next = pair.start(json!({ "path": "true" }));
    assert_eq!(
        error_text(&pair.call("guest-exec-status", json!({ "pid": running[5] }))),
        format!("PID {} does not exist", running[5])
    );
    pair.end(next);
    for pid in running {
        end_process(pid);
    }
}

#[test]
fn a_grandchild_that_keeps_the_pipe_neither_hides_the_exit_nor_dies() {
    let mut pair = Pair::new();
    let mark = pair.agent.file("mark");
    // It outlives its parent, writes into the pipe that it inherited, and tells that it could.
    let line = format!(
        "(trap '' HUP; sleep 1; echo late; sleep 0.2; echo later; echo alive > {}) & echo early; exit 3",
        mark.display()
    );
    let start = Instant::now();
    let ended = pair.shell(&line);
    assert!(start.elapsed() < Duration::from_millis(900), "it waited for the grandchild: {:?}", start.elapsed());
    assert_eq!((ended.text().as_str(), &ended.status["exitcode"]), ("early\n", &json!(3)));
    wait_for("the grandchild's last word", PATIENCE, || Ok(mark.exists().then_some(()))).unwrap();
    let before = pair.agent.settle().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pair.agent.status().unwrap().switches, before.switches, "the pipe has ended for good");
}

#[test]
fn what_a_grandchild_wrote_before_the_question_is_told_too() {
    let mut pair = Pair::new();
    let line = "(sleep 0.3; echo late; sleep 60) & echo early; echo $! >&2";
    let pid = pair.start(json!({ "path": "sh", "arg": ["-c", line], "capture-output": true }));
    std::thread::sleep(Duration::from_millis(800));
    let ended = pair.end(pid);
    assert_eq!(ended.text(), "early\nlate\n");
    let grandchild: i64 = String::from_utf8(ended.errors).unwrap().trim().parse().unwrap();
    end_process(-pid);
    end_process(grandchild);
}

#[test]
fn a_program_that_writes_without_end_is_cut_and_holds_nobody_up() {
    let mut pair = Pair::new();
    let before = pair.agent.settle().unwrap();
    // 600 MiB, which would be more than its address space may have.
    let pid = pair.start(json!({ "path": "sh", "arg": ["-c", "yes | head -c 600M"], "capture-output": true }));
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let start = Instant::now();
        pair.host.ask("guest-ping").unwrap();
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    pair.host.patience = Duration::from_secs(60);
    let ended = wait_for("its end", Duration::from_secs(60), || {
        let line = format!("{}\n", json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } }));
        pair.host.send(line)?;
        // More than a client of ours takes for a line: read as it comes.
        let mut text = Vec::new();
        while text.last() != Some(&b'\n') {
            text.extend(pair.host.some()?);
        }
        let reply: Value = serde_json::from_slice(&text)?;
        Ok((reply["return"]["exited"] == true).then(|| reply["return"].clone()))
    })
    .unwrap();
    let memory: u64 = fs::read_to_string("/proc/meminfo").unwrap().lines().next().unwrap()["MemTotal:".len()..]
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    let out = base64_decode(ended["out-data"].as_str().unwrap());
    assert!(out.chunks_exact(2).all(|line| line == b"y\n"));
    assert_eq!(ended["out-truncated"], true);
    if memory > 1 << 20 {
        assert_eq!(out.len(), 16 << 20);
    }
    let after = pair.agent.settle().unwrap();
    assert!(after.rss_anon_kib <= BUSY_KIB, "{before:?}, {after:?}");
}

#[test]
fn a_program_that_ended_costs_no_wake_ups() {
    let mut pair = Pair::new();
    let pid = pair.start(json!({ "path": "sh", "arg": ["-c", "echo x"], "capture-output": true }));
    wait_for("its end", PATIENCE, || Ok(children(pair.agent.pid()).is_empty().then_some(()))).unwrap();
    let before = pair.agent.settle().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pair.agent.status().unwrap().switches, before.switches);
    assert_eq!(pair.end(pid).text(), "x\n");
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
    let command = |name: &str, arguments: Value| -> Value {
        let mut host = agent.connect().unwrap();
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": 17 } });
        let request = json!({ "execute": name, "arguments": arguments });
        host.send(format!("{sync}\n{request}\n")).unwrap();
        assert_eq!(host.line().unwrap(), b"\xff{\"return\":17}");
        host.reply().unwrap()
    };
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

#[test]
fn without_descriptors_a_program_is_refused_and_works_again_later() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh"]).arg(paths::agent_binary().unwrap());
    command.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(dir.path());
    bounded(&mut command, Bounds::agent());
    let agent = Agent::spawn(dir, command).unwrap();
    agent.wait_for_socket(&socket).unwrap();
    let host = agent.connect().unwrap();
    let mut pair = Pair { agent, host };
    let mut handles = Vec::new();
    loop {
        let open = pair.call("guest-file-open", json!({ "path": "/dev/null" }));
        match open["return"].as_i64() {
            Some(handle) => handles.push(handle),
            None => break,
        }
    }
    let refused = pair.refused(json!({ "path": "true", "capture-output": true }));
    assert_eq!(refused, "failed to create child process: Too many open files");
    for handle in handles {
        pair.call("guest-file-close", json!({ "handle": handle }));
    }
    assert_eq!(pair.shell("echo again").text(), "again\n");
}
