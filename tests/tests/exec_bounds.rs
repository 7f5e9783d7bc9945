//! What programs of a host may cost the agent, and what is left of them: it stays small, asleep and open to others.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nanoga_tests::agent::{Agent, BUSY_KIB};
use nanoga_tests::client::{base64_decode, base64_encode, error_text};
use nanoga_tests::pair::{Pair, end_program};
use nanoga_tests::{paths, wait_for};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

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
        end_program(pid);
        pair.end(pid);
    }
    assert_eq!(
        pair.run(json!({ "path": "true", "input-data": text })).status["exitcode"],
        0,
        "nor does it kill anybody"
    );
}

#[test]
fn nothing_is_left_of_programs_that_have_ended() {
    let mut pair = Pair::new();
    pair.shell("true");
    pair.agent.settle().unwrap();
    let before = pair.agent.descriptors().unwrap();
    for number in 0..200 {
        let line = format!("echo {number}; echo x >&2");
        assert_eq!(pair.shell(&line).text(), format!("{number}\n"));
    }
    let status = pair.agent.settle().unwrap();
    assert_eq!(pair.agent.descriptors().unwrap(), before);
    assert_eq!(pair.agent.children().unwrap(), [] as [i64; 0]);
    assert!(status.rss_anon_kib <= BUSY_KIB, "{status:?}");
}

#[test]
fn callers_that_never_ask_lock_nobody_out() {
    let mut pair = Pair::new();
    let before = pair.agent.descriptors().unwrap();
    let mut last = 0;
    for _ in 0..300 {
        last = pair.start(json!({ "path": "sh", "arg": ["-c", "echo x; echo y >&2"], "capture-output": true }));
        // Those that still run make no room.
        while pair.agent.children().unwrap().len() > 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(pair.end(last).text(), "x\n", "the last ones are still known");
    wait_for("the last ones", PATIENCE, || Ok(pair.agent.children().unwrap().is_empty().then_some(()))).unwrap();
    pair.agent.settle().unwrap();
    // Two files each, at most.
    assert!(pair.agent.descriptors().unwrap() <= before + 2 * 36, "{}", pair.agent.descriptors().unwrap());
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
    end_program(running[5]);
    wait_for("its end", PATIENCE, || Ok((!pair.agent.children().unwrap().contains(&running[5])).then_some(())))
        .unwrap();
    let next = pair.start(json!({ "path": "true" }));
    assert_eq!(
        error_text(&pair.call("guest-exec-status", json!({ "pid": running[5] }))),
        format!("PID {} does not exist", running[5])
    );
    pair.end(next);
    for pid in running {
        end_program(pid);
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
    end_program(-pid);
    end_program(grandchild);
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
    wait_for("its end", PATIENCE, || Ok(pair.agent.children().unwrap().is_empty().then_some(()))).unwrap();
    let before = pair.agent.settle().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pair.agent.status().unwrap().switches, before.switches);
    assert_eq!(pair.end(pid).text(), "x\n");
}

#[test]
fn without_descriptors_a_program_is_refused_and_works_again_later() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh"]).arg(paths::agent_binary().unwrap());
    let mut pair = Pair::with(Agent::on_unix_by(command, &[]).unwrap());
    let mut handles = Vec::new();
    loop {
        let open = pair.call("guest-file-open", json!({ "path": "/dev/null" }));
        match open["return"].as_i64() {
            Some(handle) => handles.push(handle),
            None => break,
        }
    }
    let refused = pair.refused("guest-exec", json!({ "path": "true", "capture-output": true }));
    assert_eq!(refused, "failed to create child process: Too many open files");
    for handle in handles {
        pair.call("guest-file-close", json!({ "handle": handle }));
    }
    assert_eq!(pair.shell("echo again").text(), "again\n");
}
