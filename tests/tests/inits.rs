//! The end of a guest, as those inits hear of it that no guest of ours has. A shell plays them: under their names, as
//! the first process of a namespace, without the programs that would be run instead.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::{paths, wait_for};
use serde_json::json;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// Starts the agent, which lasts as long as the first process.
const AGENT: &str = r#""$1" -m unix-listen -p "$2/qga.sock" -t "$2" &"#;

/// An agent whose first process is a shell with this name that runs this script. What it hears stands in `heard`.
fn start(name: &str, script: &str) -> Result<(Agent, Client)> {
    let dir = TempDir::new()?;
    let init = dir.path().join(name);
    // By another process: a file that is open for writing, if only in what another test has just forked, cannot be run.
    ensure!(Command::new("cp").arg("/bin/bash").arg(&init).status()?.success(), "cp failed");
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]).arg(init).arg("-ec");
    // Own folders in the place of these hide all programs, and what else runs here.
    unshare.arg(format!("[ $$ = 1 ]; mount -t tmpfs none /sbin; mount -t tmpfs none /run; {script}")).arg(name);
    unshare.arg(paths::agent_binary()?).arg(dir.path());
    let agent = Agent::spawn(dir, unshare)?;
    agent.wait_for_socket(&agent.socket())?;
    must_be_in_a_namespace(&agent)?;
    let host = agent.connect()?;
    Ok((agent, host))
}

/// Otherwise this machine would end. All processes below the first one of a namespace are in it.
fn must_be_in_a_namespace(agent: &Agent) -> Result<()> {
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let init: i32 = std::fs::read_to_string(children)?.trim().parse().context("one child")?;
    let namespace = |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/pid"));
    ensure!(namespace(&init.to_string())? != namespace("self")?, "this is no namespace");
    let status = std::fs::read_to_string(format!("/proc/{init}/status"))?;
    ensure!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    Ok(())
}

/// Asks for each end, and holds what the init heard against what it should.
#[track_caller]
fn hears(name: &str, script: &str, want: [&str; 3]) {
    for (mode, want) in ["powerdown", "halt", "reboot"].into_iter().zip(want) {
        let (agent, mut host) = start(name, script).unwrap();
        let request = format!("{{\"execute\": \"guest-shutdown\", \"arguments\": {{\"mode\": \"{mode}\"}}}}");
        host.send(request + r#"{"execute": "guest-ping", "id": 2}"#).unwrap();
        let heard = || match std::fs::read_to_string(agent.file("heard")) {
            Ok(heard) if heard.ends_with('\n') => Ok(Some(heard)),
            _ => Ok(None),
        };
        assert_eq!(wait_for("the init to hear of it", LIMIT, heard).unwrap().trim_end(), want, "{name}: {mode}");
        // Nothing but the next reply: success is silent, and the kernel was not asked.
        assert_eq!(host.reply().unwrap(), json!({ "return": {}, "id": 2 }), "{name}: {mode}");
    }
}

#[test]
fn systemd_hears_signals() {
    let traps = r#"for signal in {31..64}; do trap "echo $signal >>\"$2/heard\"" "$signal"; done; "#;
    // SIGRTMIN+4, +3 and +5 as the C library counts them, which keeps two for itself.
    hears("systemd", &format!("set +e; {traps} {AGENT} while :; do wait; done"), ["38", "37", "39"]);
}

#[test]
fn openrc_init_reads_words_from_a_pipe() {
    // Open all the time: somebody listens whenever the agent asks.
    let script = "mkdir /run/openrc; mkfifo /run/openrc/init.ctl; exec 9<>/run/openrc/init.ctl;";
    let read = r#"while :; do { dd bs=64 count=1 status=none <&9; echo; } >>"$2/heard"; done"#;
    hears("openrc-init", &format!("{script} {AGENT} {read}"), ["poweroff", "halt", "reboot"]);
}

/// Puts programs that note how they were called in the place of those that inits listen to.
const PROGRAMS: &str = r#"
    for program in runit-init telinit; do
        printf '#!/bin/sh\necho "${0##*/}" "$@" >>"%s"\n' "$2/heard" >/sbin/$program
        chmod 755 /sbin/$program
    done;"#;

#[test]
fn runit_listens_to_its_own_program() {
    let script = format!("{PROGRAMS} {AGENT} wait");
    hears("runit", &script, ["runit-init 0", "runit-init 0", "runit-init 6"]);
}

#[test]
fn any_other_init_listens_to_telinit() {
    let script = format!("{PROGRAMS} {AGENT} wait");
    hears("init", &script, ["telinit 0", "telinit 0", "telinit 6"]);
    // A pipe that nobody reads, as OpenRC leaves it where its init does not run.
    let pipe = "mkdir /run/openrc; mkfifo /run/openrc/init.ctl;";
    hears("init", &format!("{pipe} {script}"), ["telinit 0", "telinit 0", "telinit 6"]);
}

#[test]
fn one_that_does_not_listen_is_ended_by_the_kernel() {
    // What reboot(2) does to a namespace (pid_namespaces(7)): SIGINT for an end, SIGHUP for a new start.
    let refuses = format!("{PROGRAMS} echo 'exit 1' >>/sbin/telinit; {AGENT} wait");
    for (mode, signal) in [("powerdown", 2), ("halt", 2), ("reboot", 1)] {
        let (mut agent, mut host) = start("init", &refuses).unwrap();
        host.send(format!("{{\"execute\": \"guest-shutdown\", \"arguments\": {{\"mode\": \"{mode}\"}}}}")).unwrap();
        let status = agent.exited().unwrap();
        assert!(status.signal() == Some(signal) || status.code() == Some(128 + signal), "{mode}: {status}");
    }
}

#[test]
fn what_a_host_sent_behind_it_is_obeyed_although_it_has_hung_up() {
    let slow = format!("{PROGRAMS} echo 'exec sleep 60' >>/sbin/telinit; {AGENT} wait");
    let (agent, mut host) = start("init", &slow).unwrap();
    let (heard, mark) = (agent.file("heard"), agent.file("mark"));
    let open = json!({ "execute": "guest-file-open", "arguments": { "path": mark, "mode": "w" } });
    host.send(format!("{{\"execute\": \"guest-shutdown\"}}{open}")).unwrap();
    wait_for("the init to hear of it", LIMIT, || Ok(heard.exists().then_some(()))).unwrap();
    assert!(!mark.exists(), "one after the other");
    drop(host);
    wait_for("the file", LIMIT, || Ok(mark.exists().then_some(()))).unwrap();
    // And the next host is not told how that ended.
    let mut next = agent.connect().unwrap();
    next.expect_silence(Duration::from_millis(300)).unwrap();
    assert_eq!(next.ask("guest-ping").unwrap(), json!({}));
}
