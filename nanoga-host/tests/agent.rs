//! The program against a running agent on this machine: nothing here may have an effect on it.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result};
use nanoga_tests::agent::Agent;
use serde_json::Value;

/// The program, beside the tests. (Cargo names it in a variable with a hyphen, which a shell between it and the
/// compiler takes away.)
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.ancestors().nth(2).expect("it lies in deps").join("nanoga-host")
}

/// Runs the program with these words, and this on its standard input.
fn host_with(address: &str, words: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program()).args(["-a", address]).args(words);
    command.env_remove("NANOGA_AGENT").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    // It need not read what it has no use for.
    let _ = writer.join();
    Ok(output)
}

fn host(address: &str, words: &[&str]) -> Result<Output> {
    host_with(address, words, b"")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path(agent: &Agent) -> String {
    agent.socket().display().to_string()
}

#[test]
fn it_asks_and_shows() -> Result<()> {
    let agent = Agent::on_unix()?;
    let address = path(&agent);
    assert!(text(&host(&address, &["ping"])?).contains("answered in "));
    let info = text(&host(&address, &["info"])?);
    assert!(info.contains("10.2.50-nanoga") && info.contains("guest-suspend-ram"), "{info}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    assert!(info.contains(release.trim()), "{info}");
    assert!(text(&host(&address, &["ip"])?).contains("127.0.0.1/8"));
    let json: Value = serde_json::from_str(&text(&host(&address, &["--json", "ip"])?))?;
    assert!(json.as_array().is_some_and(|list| list.iter().any(|link| link["name"] == "lo")), "{json}");
    let reply = text(&host(&address, &["raw", r#"{"execute":"guest-sync","arguments":{"id":7},"id":"x"}"#])?);
    assert_eq!(serde_json::from_str::<Value>(&reply)?, serde_json::json!({ "return": 7, "id": "x" }));
    let refused = host(&address, &["raw", r#"{"execute":"guest-sync"}"#])?;
    assert!(refused.status.code() == Some(1) && refused.stdout.starts_with(b"{\"error\":"), "{refused:?}");
    Ok(())
}

#[test]
fn an_agent_that_does_not_let_it_come_in_step_is_quoted() -> Result<()> {
    let agent = Agent::on_unix_with(&["-a", "guest-ping,guest-info"])?;
    let output = host(&path(&agent), &["ping"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("guest-sync-delimited has been disabled"), "{output:?}");
    Ok(())
}

#[test]
fn silence_is_said_to_be_what_it_means() -> Result<()> {
    // Nobody takes the connection, as where QEMU has another host on this channel.
    let dir = tempfile::TempDir::new()?;
    let held = dir.path().join("held");
    let _listener = UnixListener::bind(&held)?;
    let output = host(&held.display().to_string(), &["-t", "1", "ping"])?;
    assert!(stderr(&output).contains("another host (libvirt?) holds the channel"), "{output:?}");

    let address = scripted(&dir.path().join("silent"), None)?;
    let output = host(&address, &["-t", "3", "suspend"])?;
    assert_eq!(text(&output), "");
    let said = stderr(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("waiting up to 3 s for a refusal"), "{said}");
    assert_eq!(lines[1..], ["nanoga-host: no refusal: the guest obeys"]);

    let output = host(&address, &["-t", "3", "exec", "--", "/bin/program"])?;
    assert!(
        stderr(&output).contains("it is unknown whether /bin/program was started: no answer in time"),
        "{output:?}"
    );

    let address = scripted(&dir.path().join("ends"), Some("{\"return\": {\"pid\": 7}}\n"))?;
    let output = host(&address, &["exec", "--", "/bin/program"])?;
    let want = "/bin/program was started, and it is unknown what became of it: the connection has ended";
    assert!(stderr(&output).contains(want), "{output:?}");
    Ok(())
}

/// An agent that comes in step, and then answers nothing, or one request with this before it ends.
fn scripted(socket: &Path, answer: Option<&'static str>) -> Result<String> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream?;
            let mut reader = BufReader::new(&stream);
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            let sync: Value = serde_json::from_slice(&line[1..])?;
            writeln!(&stream, "{}", serde_json::json!({ "return": sync["arguments"]["id"] }))?;
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            match answer {
                Some(answer) => {
                    (&stream).write_all(answer.as_bytes())?;
                    // One more request: an end with one unread would be an error.
                    reader.read_until(b'\n', &mut line)?
                }
                None => reader.read_to_end(&mut line)?,
            };
        }
        std::io::Result::Ok(())
    });
    Ok(socket.display().to_string())
}

#[test]
fn programs_run_there_and_end_here() -> Result<()> {
    let agent = Agent::on_unix()?;
    let address = path(&agent);
    let output = host(&address, &["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
    let output = host_with(&address, &["exec", "--input", "--", "tr", "a-z", "A-Z"], b"hello")?;
    assert_eq!(text(&output), "HELLO");
    let output = host_with(&address, &["exec", "--input", "--", "cat"], &[b'x'; 200_000])?;
    assert!(stderr(&output).contains("standard input is more than fits into one request"), "{output:?}");
    let output = host(&address, &["exec", "--", "sh", "-c", "kill -9 $$"])?;
    assert_eq!(output.status.code(), Some(137));
    let output = host(&address, &["exec", "--", "/nowhere"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No such file or directory"), "{output:?}");
    Ok(())
}

#[test]
fn an_older_agent_of_qemu_is_asked_in_its_own_way() -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    let mut command = Command::new(nanoga_tests::paths::reference_agent()?);
    command.args(["-m", "unix-listen", "-p"]).arg(dir.path().join("qga.sock")).arg("-t").arg(dir.path());
    let agent = Agent::spawn(dir, command)?;
    agent.wait_for_socket(&agent.socket())?;
    let address = path(&agent);
    assert!(text(&host(&address, &["info"])?).contains("guest-exec"));
    assert!(text(&host(&address, &["ip"])?).contains("127.0.0.1/8"));
    let output = host(&address, &["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
    let output = host(&address, &["exec", "--", "/nowhere"])?;
    assert!(stderr(&output).contains("No such file or directory"), "{output:?}");
    Ok(())
}

/// An agent that answers to nothing but the first request: it may run the program as well.
#[test]
fn a_program_is_not_started_twice_where_the_agent_is_slow() -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    let socket = dir.path().join("slow");
    let listener = UnixListener::bind(&socket)?;
    let requests = thread::spawn(move || -> Result<Vec<String>> {
        let (mut stream, _) = listener.accept()?;
        let mut requests = Vec::new();
        for line in BufReader::new(stream.try_clone()?).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(line.strip_prefix(b"\xFF").unwrap_or(&line)).into_owned();
            let request: Value = serde_json::from_str(&line)?;
            if request["execute"] == "guest-sync-delimited" {
                writeln!(stream, "{{\"return\": {}}}", request["arguments"]["id"])?;
            }
            requests.push(request["execute"].to_string());
        }
        Ok(requests)
    });
    let output = host(&socket.display().to_string(), &["--timeout", "3", "exec", "--", "reboot"])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("no answer in time"), "{output:?}");
    let requests = requests.join().map_err(|_| anyhow::anyhow!("the agent failed"))??;
    assert_eq!(requests, ["\"guest-sync-delimited\"", "\"guest-exec\""]);
    Ok(())
}

#[test]
fn files_travel_whole_in_both_directions() -> Result<()> {
    let agent = Agent::on_unix()?;
    let address = path(&agent);
    let file = agent.file("travelled");
    let file = file.to_str().context("an odd path")?;
    // More than one piece, and not a multiple of three.
    let bytes: Vec<u8> = (0..200_003_u32).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    assert_eq!(text(&host_with(&address, &["write", file], &bytes)?), "");
    assert_eq!(std::fs::read(file)?, bytes);
    let output = host(&address, &["read", file])?;
    assert!(output.status.success() && output.stdout == bytes, "{} bytes", output.stdout.len());
    let output = host(&address, &["read", "/proc"])?;
    assert!(stderr(&output).contains("nanoga-host: /proc: "), "{output:?}");
    let output = host(&address, &["read", "/nowhere"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("failed to open file '/nowhere'"), "{output:?}");
    Ok(())
}

#[test]
fn what_others_left_on_the_channel_does_not_confuse_it() -> Result<()> {
    // A chardev of QEMU: what one host left behind, the next one finds.
    let dir = tempfile::TempDir::new()?;
    let socket = dir.path().join("chardev");
    let listener = UnixListener::bind(&socket)?;
    let agent = Agent::on_unix()?;
    let to = agent.socket();
    thread::spawn(move || {
        let (mut host, _) = listener.accept()?;
        let mut guest = UnixStream::connect(to)?;
        guest.write_all(br#"{"execute":"guest-pi"#)?;
        host.write_all(b"{\"return\": 5}\nhalf a li\xFFne\n{\"return\": {}}\n")?;
        pass(&host, &guest)
    });
    assert!(text(&host(&socket.display().to_string(), &["ping"])?).contains("answered in "));
    Ok(())
}

#[test]
fn a_port_behind_a_socket_of_a_machine_monitor_is_asked_for() -> Result<()> {
    let dir = tempfile::TempDir::new()?;
    let socket = dir.path().join("v.sock");
    let listener = UnixListener::bind(&socket)?;
    let agent = Agent::on_unix()?;
    let to = agent.socket();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve_port(&stream?, &to)?;
        }
        std::io::Result::Ok(())
    });
    let address = |port| format!("hybrid:{}:{port}", socket.display());
    assert!(text(&host(&address(1024), &["ping"])?).contains("answered in "));
    let refused = host(&address(1), &["ping"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("no agent listens there"), "{refused:?}");
    // The agent itself is not behind a port.
    let wrong = host(&format!("hybrid:{}:1024", path(&agent)), &["-t", "1", "ping"])?;
    assert!(stderr(&wrong).contains("this is no vsock socket of Firecracker"), "{wrong:?}");
    Ok(())
}

/// What Firecracker does with a connection to its vsock socket: port 1024 leads to the agent, others nowhere.
fn serve_port(host: &UnixStream, agent: &Path) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::with_capacity(1, host).read_line(&mut line)?;
    if line != "CONNECT 1024\n" {
        return Ok(());
    }
    let guest = UnixStream::connect(agent)?;
    let mut writer = host;
    writer.write_all(b"OK 1073741824\n")?;
    let (host, guest) = (host.try_clone()?, guest.try_clone()?);
    thread::spawn(move || pass(&host, &guest));
    Ok(())
}

/// Passes bytes in both directions until the host goes.
fn pass(host: &UnixStream, guest: &UnixStream) -> std::io::Result<()> {
    let (mut from_guest, mut to_host) = (guest.try_clone()?, host.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from_guest, &mut to_host));
    let mut from_host = host.try_clone()?;
    let mut to_guest = guest.try_clone()?;
    let mut buffer = [0; 4096];
    loop {
        let count = from_host.read(&mut buffer)?;
        if count == 0 {
            return guest.shutdown(std::net::Shutdown::Both);
        }
        to_guest.write_all(&buffer[..count])?;
    }
}

#[test]
fn an_agent_that_is_not_there_is_named() -> Result<()> {
    let output = host("/nowhere/agent.sock", &["ping"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot connect to /nowhere/agent.sock"), "{output:?}");
    let output = Command::new(program()).env_remove("NANOGA_AGENT").arg("ping").output()?;
    assert!(stderr(&output).contains("--agent"), "{output:?}");
    Ok(())
}
