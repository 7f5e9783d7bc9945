//! `nanoga-host`: asks a guest agent from the host. For those whose virtual machine monitor brings no client of its
//! own.

mod address;
mod agent;
mod commands;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use address::Address;
use agent::Agent;
use commands::Command;

/// Talks to the guest agent (nanoga or qemu-ga) in a virtual machine.
#[derive(Parser)]
#[command(name = "nanoga-host", version, after_help = EXAMPLES)]
struct Options {
    /// Where the agent is: a unix socket's PATH, hybrid:PATH:PORT (the vsock socket of Firecracker or Cloud
    /// Hypervisor), or vsock:CID:PORT
    #[arg(short, long, env = "NANOGA_AGENT", value_name = "ADDRESS", global = true)]
    agent: Option<Address>,

    /// How long to wait for an answer, in seconds; 0: for ever [default: 10, for a refusal of suspend and shutdown 3]
    #[arg(short, long, value_name = "SECONDS", global = true)]
    timeout: Option<u64>,

    /// Print what the agent returns as JSON, not as a table. For read and write it means nothing
    #[arg(short, long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  nanoga-host -a /run/vm/agent.sock info
  nanoga-host -a hybrid:/run/vm/v.sock:1024 ip
  nanoga-host -a vsock:3:1024 exec -- uname -a
  echo hello | nanoga-host -a /run/vm/agent.sock write /tmp/greeting";

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("nanoga-host: {}", show::harmless(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Some(address) = &options.agent else {
        anyhow::bail!("where is the agent? Say it with --agent ADDRESS or in the environment variable NANOGA_AGENT");
    };
    let limit = |default| match options.timeout.unwrap_or(default) {
        0 => None,
        seconds => Some(Duration::from_secs(seconds)),
    };
    let mut agent = Agent::connect(address, limit(10))?;
    options.command.run(&mut agent, options.json, limit(3))
}
