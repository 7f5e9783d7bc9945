//! What can be asked, each with its requests and what is shown of the replies.

use std::io::{Read, Write, stderr, stdin, stdout};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::agent::{Agent, Silence};
use crate::show;

/// Bytes of a file that travel in one request or reply: the largest that every host tool and agent takes.
const CHUNK: usize = 48 * 1024;

/// The longest pause between two questions whether a program has ended.
const POLL: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub enum Command {
    /// Is the agent there? Shows how long its answer took
    Ping,
    /// Shows what the guest is and what its agent can do
    Info,
    /// Shows the guest's network interfaces and addresses
    Ip,
    /// Runs a program in the guest and takes over its output and its exit status
    ///
    /// The output is shown when the program has ended. --timeout bounds each answer of the agent, not the program. With
    /// --json it is what guest-exec-status returns, the output in base64.
    Exec {
        /// Send this program's standard input to that one's: all of it at once, and so not more than some 190 KB (write
        /// takes more)
        #[arg(short, long)]
        input: bool,
        /// The program and its arguments, behind --
        #[arg(required = true, last = true, value_name = "CMD")]
        words: Vec<String>,
    },
    /// Writes a file of the guest to standard output
    Read {
        /// The file in the guest
        path: String,
    },
    /// Writes standard input to a file of the guest
    Write {
        /// The file in the guest; it is made, or emptied first
        path: String,
    },
    /// Puts the guest to sleep
    ///
    /// An agent that obeys does not answer: this waits some seconds for a refusal (3, or --timeout). The host wakes a
    /// guest that sleeps in RAM: system_wakeup in QEMU's monitor, or virsh dompmwakeup.
    Suspend {
        /// How
        #[arg(value_enum, default_value_t = Sleep::Ram)]
        mode: Sleep,
    },
    /// Ends the guest
    ///
    /// An agent that obeys does not answer: this waits for a refusal (3 seconds, or --timeout), or until the channel
    /// ends.
    Shutdown {
        /// How
        #[arg(value_enum, default_value_t = Shutdown::Powerdown)]
        mode: Shutdown,
    },
    /// Sends a request as it stands and prints the reply; fails if that is an error
    Raw {
        /// As in '{"execute":"guest-ping"}'
        request: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Sleep {
    Ram,
    Disk,
    Hybrid,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Shutdown {
    Powerdown,
    Halt,
    Reboot,
}

impl Command {
    /// Does it. The result is the exit status of this program. Where only a refusal is answered, that is waited for so
    /// long.
    pub fn run(&self, agent: &mut Agent, as_json: bool, refusal: Option<Duration>) -> Result<ExitCode> {
        match self {
            Command::Ping => {
                let start = Instant::now();
                let reply = agent.run("guest-ping", json!({}))?;
                let took = start.elapsed();
                print(as_json, &reply, |_| format!("the agent answered in {took:.1?}\n"))
            }
            Command::Info => {
                let reply = info(agent)?;
                print(as_json, &reply, show::info)
            }
            Command::Ip => {
                let reply = agent.run("guest-network-get-interfaces", json!({}))?;
                print(as_json, &reply, show::interfaces)
            }
            Command::Exec { input, words } => return exec(agent, *input, words, as_json),
            Command::Read { path } => read(agent, path),
            Command::Write { path } => write(agent, path),
            Command::Suspend { mode } => {
                let command = match mode {
                    Sleep::Ram => "guest-suspend-ram",
                    Sleep::Disk => "guest-suspend-disk",
                    Sleep::Hybrid => "guest-suspend-hybrid",
                };
                tell(agent, command, json!({}), refusal)
            }
            Command::Shutdown { mode } => {
                let mode = match mode {
                    Shutdown::Powerdown => "powerdown",
                    Shutdown::Halt => "halt",
                    Shutdown::Reboot => "reboot",
                };
                tell(agent, "guest-shutdown", json!({ "mode": mode }), refusal)
            }
            Command::Raw { request } => {
                let request: Value = serde_json::from_str(request).context("the request is no JSON")?;
                let reply = agent.call(&request)?;
                println!("{reply}");
                return Ok(if reply.get("error").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
            }
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn print(as_json: bool, reply: &Value, show: impl Fn(&Value) -> String) -> Result<()> {
    let text = if as_json { format!("{reply:#}\n") } else { show(reply) };
    Ok(stdout().write_all(text.as_bytes())?)
}

/// Runs a command that is answered only when it fails, and says what it waits for: this takes a while.
fn tell(agent: &mut Agent, command: &str, arguments: Value, timeout: Option<Duration>) -> Result<()> {
    let limit = timeout.map_or(String::new(), |limit| format!(" up to {} s", limit.as_secs()));
    eprintln!("nanoga-host: {command}: an agent that obeys does not answer: waiting{limit} for a refusal");
    match agent.tell(command, arguments, timeout)? {
        Silence::Late => eprintln!("nanoga-host: no refusal: the guest obeys"),
        Silence::Ended => eprintln!("nanoga-host: no refusal, and the connection has ended"),
    }
    Ok(())
}

/// `guest-info`, and beside it what the agent's other commands know of the guest, as far as it has them.
fn info(agent: &mut Agent) -> Result<Value> {
    let mut info = agent.run("guest-info", json!({}))?;
    for (key, command) in [("host", "guest-get-host-name"), ("os", "guest-get-osinfo")] {
        if let Ok(reply) = agent.run(command, json!({})) {
            info[key] = reply;
        }
    }
    Ok(info)
}

fn exec(agent: &mut Agent, input: bool, words: &[String], as_json: bool) -> Result<ExitCode> {
    let (path, arguments) = words.split_first().context("no program is named")?;
    let mut request = json!({ "path": path, "arg": arguments, "capture-output": "separated" });
    if input {
        let mut bytes = Vec::new();
        stdin().read_to_end(&mut bytes)?;
        request["input-data"] = BASE64_STANDARD.encode(bytes).into();
    }
    let mut started = agent.run("guest-exec", request.clone());
    // Agents before 8.1 of QEMU know no more than this. Whatever else went wrong, the program may run already.
    if started.as_ref().is_err_and(|error| error.to_string().contains("parameter type for 'capture-output'")) {
        request["capture-output"] = true.into();
        started = agent.run("guest-exec", request);
    }
    let started = started.map_err(|error| {
        if input && error.to_string().contains("size limit exceeded") {
            return error.context("standard input is more than fits into one request: `write` it to a file first");
        }
        lost(error, format!("it is unknown whether {path} was started"))
    })?;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        let status = agent
            .run("guest-exec-status", json!({ "pid": started["pid"] }))
            .map_err(|error| lost(error, format!("{path} was started, and it is unknown what became of it")))?;
        if status["exited"] == true {
            break status;
        }
        sleep(pause);
        pause = (pause * 2).min(POLL);
    };
    if as_json {
        println!("{status:#}");
    } else {
        stdout().write_all(&decode(&status["out-data"])?)?;
        stderr().write_all(&decode(&status["err-data"])?)?;
        for (stream, truncated) in [("output", "out-truncated"), ("errors", "err-truncated")] {
            if status[truncated] == true {
                eprintln!("nanoga-host: the {stream} of {path} is longer than the agent keeps: the rest is missing");
            }
        }
    }
    // As a shell reports it.
    let signal = status["signal"].as_u64().map(|signal| signal + 128);
    let code = signal.or(status["exitcode"].as_u64()).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// An error that leaves open what has happened says so.
fn lost(error: Error, unknown: String) -> Error {
    if error.is::<Silence>() { error.context(unknown) } else { error }
}

fn read(agent: &mut Agent, path: &str) -> Result<()> {
    let handle = agent.run("guest-file-open", json!({ "path": path, "mode": "r" }))?;
    let result = (|| loop {
        let part = agent.run("guest-file-read", json!({ "handle": handle, "count": CHUNK }))?;
        stdout().write_all(&decode(&part["buf-b64"])?)?;
        if part["eof"] == true {
            return Ok(());
        }
    })();
    close(agent, path, &handle, result)
}

fn write(agent: &mut Agent, path: &str) -> Result<()> {
    let handle = agent.run("guest-file-open", json!({ "path": path, "mode": "w" }))?;
    let result = (|| {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = stdin().read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                let arguments = json!({ "handle": handle, "buf-b64": BASE64_STANDARD.encode(bytes) });
                let written = agent.run("guest-file-write", arguments)?;
                match written["count"].as_u64().and_then(|count| bytes.get(count as usize..)) {
                    Some(rest) if rest.len() < bytes.len() => bytes = rest,
                    _ => bail!("guest-file-write took nothing of {} bytes: {written}", bytes.len()),
                }
            }
        }
    })();
    close(agent, path, &handle, result)
}

/// Closes a file. What went wrong first is what is said.
fn close(agent: &mut Agent, path: &str, handle: &Value, result: Result<()>) -> Result<()> {
    let closed = agent.run("guest-file-close", json!({ "handle": handle }));
    result.and(closed.map(drop)).with_context(|| path.to_owned())
}

fn decode(text: &Value) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(text.as_str().unwrap_or_default()).context("the agent's data is no base64")
}
