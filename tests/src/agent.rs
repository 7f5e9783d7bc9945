//! The agent as a process of this machine: started with bounds, looked at through procfs, ended with its owner.
//!
//! No test here may ever send a command with an effect (`guest-suspend-*`): the guest would be this machine. What ends
//! with a namespace is tried in one (`tests/inits.rs`).

use std::env;
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::Client;
use crate::{paths, wait_for};

/// KiB of private memory, once files are open or programs have run: no more than before.
pub const BUSY_KIB: u64 = 32;

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent and the directory it lives in.
pub struct Agent {
    child: Child,
    /// Its own process id: the child's, or that of the child's child under `strace`.
    pid: i32,
    dir: TempDir,
}

impl Agent {
    /// Starts an agent that listens on [`Agent::socket`], and waits until it does.
    pub fn on_unix() -> Result<Agent> {
        Agent::on_unix_with(&[])
    }

    /// The same, with more arguments.
    pub fn on_unix_with(more: &[&str]) -> Result<Agent> {
        Agent::on_unix_by(paths::agent_command()?, more)
    }

    /// The same, by a command that executes it.
    pub fn on_unix_by(mut command: Command, more: &[&str]) -> Result<Agent> {
        let dir = TempDir::new()?;
        command.args(["-m", "unix-listen", "-p"]).arg(dir.path().join("qga.sock")).arg("-t").arg(dir.path()).args(more);
        let agent = Agent::spawn(dir, command)?;
        agent.wait_for_socket(&agent.socket())?;
        Ok(agent)
    }

    /// Starts an agent with these arguments (and its state directory) in a directory of the caller's.
    pub fn start_in(dir: TempDir, args: &[&str]) -> Result<Agent> {
        let mut command = paths::agent_command()?;
        command.args(args).arg("-t").arg(dir.path());
        Agent::spawn(dir, command)
    }

    /// Starts a command that executes the agent in its own process.
    pub fn spawn(dir: TempDir, command: Command) -> Result<Agent> {
        Agent::spawn_within(dir, command, Bounds::agent())
    }

    /// The same within other bounds.
    pub fn spawn_within(dir: TempDir, mut command: Command, bounds: Bounds) -> Result<Agent> {
        // What this machine's agent is configured to do is none of a test's business.
        if !command.get_envs().any(|(name, _)| name == "QGA_CONF") {
            command.env("QGA_CONF", dir.path().join("no-configuration"));
        }
        let log = fs::File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Kilobytes of variables, which no service has: the agent's stack would be a page larger.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
            command.env_remove(name);
        }
        let child = bounded(&mut command, bounds).spawn().with_context(|| format!("starting {command:?}"))?;
        let pid = child.id() as i32;
        Ok(Agent { child, pid, dir })
    }

    /// Starts an agent on a unix socket under `strace -c`, which writes its table to [`Agent::file`]`("strace")`.
    pub fn under_strace() -> Result<Agent> {
        let dir = TempDir::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(dir.path().join("strace"));
        command.arg(paths::agent_binary()?).args(["-m", "unix-listen", "-p"]);
        command.arg(dir.path().join("qga.sock")).arg("-t").arg(dir.path());
        let mut agent = Agent::spawn(dir, command)?;
        agent.wait_for_socket(&agent.socket())?;
        agent.pid = i32::try_from(*agent.children()?.first().context("strace has no child")?)?;
        Ok(agent)
    }

    /// The socket of an agent started by [`Agent::on_unix`].
    pub fn socket(&self) -> PathBuf {
        self.file("qga.sock")
    }

    /// A path in the agent's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Connects to [`Agent::socket`].
    pub fn connect(&self) -> Result<Client> {
        Client::connect(self.socket())
    }

    /// The agent's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it wrote to stdout and stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Waits until someone listens at `path`.
    pub fn wait_for_socket(&self, path: &Path) -> Result<()> {
        let listening = || match fs::read_to_string(format!("/proc/{}/net/unix", self.pid)) {
            // The fourth column holds __SO_ACCEPTCON.
            Ok(table) => Ok(table
                .lines()
                .any(|l| l.ends_with(&format!(" {}", path.display())) && l.contains(" 00010000 "))
                .then_some(())),
            Err(_) => bail!("the agent ended: {}", self.log()),
        };
        wait_for("the agent to listen", PATIENCE, listening).with_context(|| self.log())
    }

    /// What procfs says about it now.
    pub fn status(&self) -> Result<Status> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid));
        Status::parse(&read("status")?, &read("smaps_rollup").unwrap_or_default())
    }

    /// Waits until it sleeps and has slept through two looks: everything sent has been dealt with.
    pub fn settle(&self) -> Result<Status> {
        let mut before = self.status()?;
        wait_for("the agent to come to rest", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.status()?;
            let still = now.sleeping && now.switches == before.switches;
            before = now.clone();
            Ok(still.then_some(now))
        })
    }

    /// The process ids of its children, dead ones included.
    pub fn children(&self) -> Result<Vec<i64>> {
        let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid))?;
        text.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }

    /// Clock ticks of CPU time it has used.
    pub fn cpu_ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    /// Sends a signal to the agent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.exited()
    }

    /// Waits for the end.
    pub fn exited(&mut self) -> Result<ExitStatus> {
        wait_for("the agent's end", PATIENCE, || Ok(self.child.try_wait()?))
    }

    /// Fails unless it is still running.
    pub fn expect_alive(&mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the agent ended: {}", self.log());
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.pid != self.child.id() as i32 {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}---", self.log());
        }
    }
}

/// A look at a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In an interruptible sleep.
    pub sleeping: bool,
    /// Private memory in KiB: the larger of what `status` (which may lag) and `smaps_rollup` say.
    pub rss_anon_kib: u64,
    /// All memory in KiB, likewise.
    pub rss_kib: u64,
    /// Context switches, voluntary or not: how often it woke up.
    pub switches: u64,
}

impl Status {
    /// Reads `/proc/PID/status`, and `/proc/PID/smaps_rollup` where it was readable.
    pub fn parse(status: &str, smaps_rollup: &str) -> Result<Status> {
        let number = |text: &str, key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key));
            let value = value.and_then(|value| value.split_whitespace().next());
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let must = |key| number(status, key).with_context(|| format!("no {key} in {status:?}"));
        let exact = |key| number(smaps_rollup, key).unwrap_or(0);
        Ok(Status {
            sleeping: status.lines().any(|l| l.starts_with("State:\tS")),
            rss_anon_kib: must("RssAnon:")?.max(exact("Anonymous:")),
            rss_kib: must("VmRSS:")?.max(exact("Rss:")),
            switches: must("voluntary_ctxt_switches:")? + must("nonvoluntary_ctxt_switches:")?,
        })
    }
}

/// What a child may use at most. One runaway writer must not fill the machine.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Address space in bytes.
    pub memory: u64,
    /// CPU time in seconds.
    pub cpu: u64,
    /// The largest file it may write, in bytes.
    pub file: u64,
}

impl Bounds {
    /// Far above what the agent may use, far below what hurts. An emulator reserves all that it may ever need.
    pub fn agent() -> Bounds {
        let memory = if paths::emulator().is_some() { 16 << 30 } else { 1 << 30 };
        Bounds { memory, cpu: 120, file: 256 << 20 }
    }
}

/// Runs a program that shall end by itself, and says what it printed. What it may leave behind is not waited for.
pub fn run(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = bounded(command, Bounds::agent()).spawn().with_context(|| format!("starting {command:?}"))?;
    if let Err(error) = wait_for("its end", PATIENCE, || Ok(child.try_wait()?)) {
        child.kill()?;
        child.wait()?;
        return Err(error.context(format!("{command:?}")));
    }
    Ok(child.wait_with_output()?)
}

/// Has a command inherit these descriptors, as numbers 3 and up.
pub fn inherit(command: &mut Command, sockets: &[&dyn AsRawFd]) {
    // Far above those they become.
    let high: Vec<RawFd> = sockets.iter().map(|socket| dup_above(socket.as_raw_fd(), 100)).collect();
    // SAFETY: between fork and exec only dup2(2) is called.
    unsafe {
        command.pre_exec(move || {
            for (number, fd) in high.iter().enumerate() {
                let number = RawFd::try_from(number).map_err(|_| ErrorKind::InvalidInput)?;
                // The copy has no FD_CLOEXEC.
                if nix::libc::dup2(*fd, 3 + number) < 0 {
                    return Err(Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// A copy of a descriptor that no program inherits. It is left open: a test has few.
fn dup_above(fd: RawFd, least: RawFd) -> RawFd {
    // SAFETY: no memory is involved.
    unsafe { nix::libc::fcntl(fd, nix::libc::F_DUPFD_CLOEXEC, least) }
}

/// Puts bounds on a command. It is killed when the thread that starts it ends.
pub fn bounded(command: &mut Command, bounds: Bounds) -> &mut Command {
    // SAFETY: between fork and exec only system calls are made: setrlimit and prctl.
    unsafe {
        command.pre_exec(move || {
            setrlimit(Resource::RLIMIT_AS, bounds.memory, bounds.memory)?;
            setrlimit(Resource::RLIMIT_CPU, bounds.cpu, bounds.cpu)?;
            setrlimit(Resource::RLIMIT_FSIZE, bounds.file, bounds.file)?;
            setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        })
    }
}
