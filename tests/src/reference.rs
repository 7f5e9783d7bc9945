//! The agent beside QEMU's own: both are asked the same in the same order, and what they answer is compared.
//!
//! Two replies agree when they are equal as JSON, the order of members ignored and numbers compared by value, after
//! what must differ is made the same: process ids, each one's own directory, the counters of interfaces, the time
//! within three seconds, the version. Debian's agent is older than the protocol that ours speaks: what the protocol
//! has changed since stands in [`Pair::CHANGED_TEXTS`] and [`today`], and nowhere else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::client::{Client, base64_decode};
use crate::{paths, wait_for};

/// How long a program that was asked for may run.
const EXEC: Duration = Duration::from_secs(20);

/// Bytes that others may write between two questions to agents on this machine.
const MEANWHILE: u64 = 256 << 20;

/// Reached by both: the reference on the left, ours on the right.
pub struct Pair {
    sides: [Side; 2],
    /// What they did not agree on.
    differences: Vec<String>,
    compared: usize,
    /// How many bytes of a disk others may take between the two questions.
    meanwhile: u64,
}

/// One of the two.
struct Side {
    host: Client,
    /// What `@DIR@` stands for.
    dir: String,
    /// What `@PID@` stands for: the process it started last.
    pid: Value,
    /// Ends with the pair, where it runs on this machine.
    _agent: Option<Agent>,
}

impl Pair {
    /// Texts of Debian's 7.2 that are other ones in 10.2: a beginning and an end, and what stands there today around
    /// what is between them.
    const CHANGED_TEXTS: &[[(&str, &str); 2]] = &[
        [("Command ", " has been disabled"), ("Command ", " has been disabled: the command is not allowed")],
        [
            ("Command ", " has been disabled: the agent is in frozen state"),
            ("Command ", " has been disabled: the command is not allowed"),
        ],
        [("Guest agent command failed, error was '", "'"), ("", "")],
    ];

    /// Starts both on this machine, each in a directory of its own, with these arguments.
    pub fn start(args: &[&str]) -> Result<Pair> {
        Pair::start_in("", args)
    }

    /// The same after a script of the shell that runs in each one's directory, and can change what it will find:
    /// in its environment, or in its mount namespace.
    pub fn start_in(script: &str, args: &[&str]) -> Result<Pair> {
        let [reference, ours] = [paths::reference_agent()?, paths::agent_binary()?];
        Ok(Pair::new(start(&reference, script, args)?, start(&ours, script, args)?, MEANWHILE))
    }

    /// Two channels of a guest where nothing else happens: the reference's and ours.
    pub fn of_clients(reference: Client, ours: Client) -> Pair {
        let side = |host| Side { host, dir: "/nowhere".to_owned(), pid: json!(0), _agent: None };
        Pair::new(side(reference), side(ours), 0)
    }

    fn new(reference: Side, ours: Side, meanwhile: u64) -> Pair {
        Pair { sides: [reference, ours], differences: Vec::new(), compared: 0, meanwhile }
    }

    /// Sends both a request, in which `@DIR@` stands for each one's own directory and `@PID@` for the process it
    /// started last, and compares the replies. Returns ours.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        let replies = self.replies(request)?;
        self.compare(request, replies)
    }

    /// The same, for somebody who compares them otherwise: the reference's reply and ours.
    pub fn replies(&mut self, request: &Value) -> Result<[Value; 2]> {
        let [reference, ours] = &mut self.sides;
        Ok([reference.ask(request)?, ours.ask(request)?])
    }

    /// Sends the requests to the one, and then to the other: what the one does ends before the other begins.
    pub fn ask_in_turns(&mut self, requests: &[Value]) -> Result<()> {
        let [reference, ours] = &mut self.sides;
        let theirs = requests.iter().map(|request| reference.ask(request)).collect::<Result<Vec<Value>>>()?;
        let ours = requests.iter().map(|request| ours.ask(request)).collect::<Result<Vec<Value>>>()?;
        for ((request, theirs), ours) in requests.iter().zip(theirs).zip(ours) {
            self.compare(request, [theirs, ours])?;
        }
        Ok(())
    }

    /// Starts a program on both sides, waits for its end, and compares what is said about it.
    pub fn exec(&mut self, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": "guest-exec", "arguments": arguments });
        let started = self.ask(&request)?;
        if started.get("return").is_none() {
            return Ok(started);
        }
        let [reference, ours] = &mut self.sides;
        let replies = [reference.exited()?, ours.exited()?];
        self.compare(&request, replies)
    }

    fn compare(&mut self, request: &Value, [reference, ours]: [Value; 2]) -> Result<Value> {
        let command = request["execute"].as_str().unwrap_or_default();
        self.compared += 1;
        if !same(command, &today(request, &reference), &ours, self.meanwhile) {
            self.differences.push(format!("{request}\n  reference {reference}\n  ours      {ours}"));
        }
        Ok(ours)
    }

    /// Fails unless they agreed every time, and were asked at all.
    pub fn agree(self) {
        assert!(self.compared > 0, "nothing was compared");
        let differences = &self.differences;
        assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), self.compared, differences.join("\n"));
    }
}

impl Side {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let text = request.to_string().replace("@DIR@", &self.dir).replace("\"@PID@\"", &self.pid.to_string());
        self.host.send(format!("{text}\n"))?;
        let reply = self.host.reply().with_context(|| format!("asking {text}"))?;
        if let Some(pid) = reply["return"].get("pid") {
            self.pid = pid.clone();
        }
        let mut reply: Value = serde_json::from_str(&reply.to_string().replace(&self.dir, "@DIR@"))?;
        for output in ["out-data", "err-data"] {
            if let Some(Value::String(data)) = reply.pointer_mut(&format!("/return/{output}")) {
                let text = String::from_utf8(base64_decode(&*data));
                *data = text.map_or(data.clone(), |text| text.replace(&self.dir, "@DIR@"));
            }
        }
        Ok(reply)
    }

    /// What is said of the last process when it has ended.
    fn exited(&mut self) -> Result<Value> {
        let request = json!({ "execute": "guest-exec-status", "arguments": { "pid": "@PID@" } });
        wait_for("the end of a program", EXEC, || {
            let status = self.ask(&request)?;
            Ok((status["return"]["exited"] != false).then_some(status))
        })
    }
}

fn start(program: &Path, script: &str, args: &[&str]) -> Result<Side> {
    let dir = TempDir::new()?;
    let path = dir.path().to_str().context("an odd temporary directory")?.to_owned();
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"]).arg(program).current_dir(&path);
    command.args(["-m", "unix-listen", "-p", &format!("{path}/qga.sock"), "-t", &path]).args(args);
    let agent = Agent::spawn(dir, command)?;
    agent.wait_for_socket(&agent.socket())?;
    Ok(Side { host: agent.connect()?, dir: path, pid: json!(0), _agent: Some(agent) })
}

/// What Debian's 7.2 says, as the protocol has it today.
fn today(request: &Value, reply: &Value) -> Value {
    let command = request["execute"].as_str().unwrap_or_default();
    let mut reply = reply.clone();
    if let Some(text) = reply.pointer("/error/desc").and_then(Value::as_str) {
        let changed = Pair::CHANGED_TEXTS.iter().find_map(|[(start, end), (new_start, new_end)]| {
            let between = text.strip_prefix(start)?.strip_suffix(end)?;
            // A name, or a sentence of its own.
            (!start.starts_with("Command") || !between.contains(' ')).then(|| format!("{new_start}{between}{new_end}"))
        });
        // It names the process today, or would if the number were not left out by mistake.
        let unknown = command == "guest-exec-status" && text == "Invalid parameter 'pid'";
        let changed = changed.or(unknown.then(|| format!("PID {} does not exist", request["arguments"]["pid"])));
        if let Some(text) = changed {
            reply["error"]["desc"] = json!(text);
        }
    }
    // It lists a device again for each place where it is mounted; the first of them is its last.
    if let ("guest-get-fsinfo", Some(all)) = (command, reply["return"].as_array()) {
        let first = |at: usize| !all[at + 1..].iter().any(|later| later["name"] == all[at]["name"]);
        reply["return"] = (0..all.len()).filter(|at| first(*at)).map(|at| all[at].clone()).collect();
    }
    reply
}

/// Whether two replies agree.
fn same(command: &str, theirs: &Value, ours: &Value, meanwhile: u64) -> bool {
    match (command, theirs["return"].as_i64(), ours["return"].as_i64()) {
        ("guest-get-time", Some(theirs), Some(ours)) => theirs.abs_diff(ours) < 3_000_000_000,
        _ => {
            let [theirs, mut ours] = [theirs, ours].map(|reply| comparable(command, reply));
            forgive(&theirs, &mut ours, meanwhile);
            equal(&theirs, &ours)
        }
    }
}

/// Makes the same what may differ in ours: serial numbers, of which the reference knows none without udev, and the
/// space that others take meanwhile.
fn forgive(theirs: &Value, ours: &mut Value, meanwhile: u64) {
    match (theirs, ours) {
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.iter().zip(ours).for_each(|(theirs, ours)| forgive(theirs, ours, meanwhile));
        }
        (Value::Object(theirs), Value::Object(ours)) => {
            if theirs.contains_key("dev") && !theirs.contains_key("serial") {
                ours.shift_remove("serial");
            }
            for (name, ours) in ours {
                let Some(theirs) = theirs.get(name) else { continue };
                forgive(theirs, ours, meanwhile);
                if let ("used-bytes", Some(a), Some(b)) = (name.as_str(), theirs.as_u64(), ours.as_u64())
                    && a.abs_diff(b) <= meanwhile
                {
                    *ours = theirs.clone();
                }
            }
        }
        _ => {}
    }
}

/// A reply without what differs between two agents that are asked one after the other.
fn comparable(command: &str, reply: &Value) -> Value {
    let mut reply = reply.clone();
    let Some(value) = reply.get_mut("return") else {
        return reply;
    };
    match command {
        "guest-exec" if value.get("pid").is_some_and(Value::is_i64) => value["pid"] = json!("a process"),
        "guest-network-get-interfaces" => {
            for interface in value.as_array_mut().into_iter().flatten() {
                for counter in interface["statistics"].as_object_mut().into_iter().flatten() {
                    *counter.1 = json!("a number");
                }
            }
        }
        "guest-fstrim" => {
            for path in value["paths"].as_array_mut().into_iter().flatten() {
                if let Some(trimmed) = path.get_mut("trimmed") {
                    *trimmed = json!("a number");
                }
            }
        }
        "guest-get-fsinfo" => {
            for filesystem in value.as_array_mut().into_iter().flatten() {
                // Since 9.1.
                filesystem.as_object_mut().map(|members| members.shift_remove("total-bytes-privileged"));
                // In the order in which the kernel lists what a device is made of, or the reverse.
                if let Some(disks) = filesystem["disk"].as_array_mut() {
                    disks.sort_by_key(|disk| disk["dev"].to_string());
                }
            }
        }
        _ => {}
    }
    reply
}

/// Equal as JSON, numbers by value.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| equal(x, y)))
        }
        _ => a == b,
    }
}

/// The version of the reference, for messages.
pub fn version() -> Result<String> {
    let output = Command::new(paths::reference_agent()?).arg("--version").output()?;
    ensure!(output.status.success(), "qemu-ga --version failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
