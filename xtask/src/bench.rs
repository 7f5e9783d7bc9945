//! `cargo xtask bench`: times, as ratios to what cannot be undercut, taken in turns in one run.
//!
//! Machines are noisy and differ; a ratio to the floor (`xtask/floor.rs`: an agent that does nothing, and the bare
//! dumps of the kernel for interfaces) says more than a time. Client and agents share one processor, so that waking
//! each other costs the same for all. Every figure is the median of rounds in which everyone has a turn. QEMU's own
//! agent takes part; what has no floor is held against it. Guests that boot with either have all processors. Nothing
//! here fails because it is slow.

mod boot;
mod interfaces;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nanoga_tests::agent::Agent;
use nanoga_tests::paths;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::provision;

/// How much less than QEMU's own agent a command should cost.
const CHEAPER: f64 = 5.0;

const PING: &[u8] = b"{\"execute\":\"guest-ping\"}\n";

/// Measures and prints.
pub fn run(sh: &Shell) -> Result<()> {
    provision::programs(sh)?;
    provision::guest(sh)?;
    provision::reference(sh)?;
    cmd!(sh, "cargo build --quiet --release").run()?;
    let floor = build_floor(sh)?;
    let processors = sched_getaffinity(Pid::from_raw(0))?;
    share_one_processor(&processors)?;
    let programs = [
        Program { name: "nanoga", path: paths::agent_binary()?, is_floor: false },
        Program { name: "floor", path: floor.clone(), is_floor: true },
        Program { name: "qemu-ga", path: paths::reference_agent()?, is_floor: false },
    ];

    println!(
        "{:<40} {:>12} {:>12} {:>7} {:>7} {:>12} {:>8}",
        "", "nanoga", "floor", "ratio", "at most", "qemu-ga", "ratio"
    );
    starts(&programs)?;
    served(&programs)?;
    for count in [10, 100, 1000] {
        // A thread can leave its network namespace, and take the programs it starts along.
        let programs = without_floor(&programs);
        let measured = thread::spawn(move || interfaces::interfaces(&programs, count)).join();
        measured.map_err(|_| anyhow::anyhow!("the measurement of interfaces panicked"))??;
    }
    commands(&programs)?;
    sched_setaffinity(Pid::from_raw(0), &processors)?;
    boot::boots(sh, &floor)
}

fn without_floor(programs: &[Program]) -> Vec<Program> {
    programs.iter().filter(|program| !program.is_floor).cloned().collect()
}

/// Prints a line: what was measured of nanoga, of the floor, and of qemu-ga. Smaller is better.
fn row(what: &str, samples: &[Vec<f64>], shown: impl Fn(f64) -> String, limit: Option<f64>) {
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let ratio = |at: usize| medians[at] / medians[1];
    let limit = limit.map_or(String::new(), |limit| format!("{limit:.1}"));
    print!("{what:<40} {:>12} {:>12} {:>7.2} {limit:>7}", shown(medians[0]), shown(medians[1]), ratio(0));
    println!(" {:>12} {:>8.2}", shown(medians[2]), ratio(2));
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn microseconds(seconds: f64) -> String {
    format!("{:.1} us", seconds * 1e6)
}

/// A program that answers on a unix socket.
#[derive(Clone)]
struct Program {
    name: &'static str,
    path: PathBuf,
    is_floor: bool,
}

impl Program {
    fn command(&self, dir: &TempDir) -> Command {
        let socket = dir.path().join("qga.sock");
        let mut command = Command::new(&self.path);
        if self.is_floor {
            command.arg(socket);
        } else {
            command.args(["-m", "unix-listen", "-p"]).arg(socket).arg("-t").arg(dir.path());
        }
        command
    }

    /// Starts it with bounds, and connects.
    fn start(&self) -> Result<Peer> {
        let dir = TempDir::new()?;
        let command = self.command(&dir);
        let agent = Agent::spawn(dir, command)?;
        agent.wait_for_socket(&agent.socket())?;
        let stream = UnixStream::connect(agent.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut peer = Peer { agent, stream, buffer: vec![0; 1 << 20], is_floor: self.is_floor };
        peer.call(PING).with_context(|| format!("asking {}", self.name))?;
        Ok(peer)
    }
}

/// A running one, and the connection to it.
struct Peer {
    agent: Agent,
    stream: UnixStream,
    buffer: Vec<u8>,
    is_floor: bool,
}

impl Peer {
    /// Sends a request and waits for its reply.
    fn call(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request)?;
        self.lines(1).map(drop)
    }

    /// Sends a request that must succeed.
    fn returned(&mut self, request: &str) -> Result<()> {
        self.call(request.as_bytes())?;
        ensure!(self.buffer.starts_with(b"{\"return\""), "{request} failed");
        Ok(())
    }

    /// Sends a request and returns what its short reply returns.
    fn ask(&mut self, request: &str) -> Result<Value> {
        self.stream.write_all(request.as_bytes())?;
        let length = self.lines(1)?;
        let mut reply: Value = serde_json::from_slice(&self.buffer[..length])?;
        reply.get_mut("return").map(Value::take).with_context(|| format!("{request} answered {reply}"))
    }

    /// Reads so many lines, and returns their bytes.
    fn lines(&mut self, count: usize) -> Result<usize> {
        let (mut lines, mut bytes) = (0, 0);
        while lines < count {
            // What is beyond the buffer is only counted.
            let room = if bytes < self.buffer.len() { &mut self.buffer[bytes..] } else { &mut self.buffer[..] };
            let length = self.stream.read(room)?;
            ensure!(length > 0, "the connection was closed");
            lines += room[..length].iter().filter(|byte| **byte == b'\n').count();
            bytes += length;
        }
        ensure!(lines == count, "{lines} replies to {count} requests");
        Ok(bytes)
    }

    /// Time on a processor so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        let mut total = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.agent.pid()))? {
            total += nanoseconds(&thread?.path().join("schedstat"))?;
        }
        Ok(total / 1e9)
    }

    /// Does something so many times, and returns what one time costs: time, and the agent's time on a processor.
    fn cost(&mut self, times: usize, mut what: impl FnMut(&mut Peer) -> Result<()>) -> Result<[f64; 2]> {
        let (cpu, start) = (self.cpu()?, Instant::now());
        for _ in 0..times {
            what(self)?;
        }
        let elapsed = start.elapsed().as_secs_f64();
        Ok([elapsed / times as f64, (self.cpu()? - cpu) / times as f64])
    }
}

/// Rounds in which each peer has a turn, in changing order: elapsed time and processor time of each.
fn rounds(
    peers: &mut [Peer],
    count: usize,
    mut turn: impl FnMut(&mut Peer) -> Result<[f64; 2]>,
) -> Result<[Vec<Vec<f64>>; 2]> {
    let mut samples = [vec![Vec::new(); peers.len()], vec![Vec::new(); peers.len()]];
    for round in 0..count {
        let mut order: Vec<usize> = (0..peers.len()).collect();
        order.rotate_left(round % peers.len());
        for at in order {
            let [elapsed, cpu] = turn(&mut peers[at])?;
            samples[0][at].push(elapsed);
            samples[1][at].push(cpu);
        }
    }
    Ok(samples)
}

/// From the start of the program to its first reply.
fn starts(programs: &[Program]) -> Result<()> {
    let mut samples = vec![Vec::new(); programs.len()];
    for _ in 0..41 {
        for (program, samples) in programs.iter().zip(&mut samples) {
            samples.push(first_reply(program)?.as_secs_f64());
        }
    }
    row("start to first reply", &samples, microseconds, Some(1.1));
    Ok(())
}

fn first_reply(program: &Program) -> Result<Duration> {
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let dir = TempDir::new()?;
    let mut command = program.command(&dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let socket = dir.path().join("qga.sock");
    let start = Instant::now();
    let mut child = Running(command.spawn()?);
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) if start.elapsed() > Duration::from_secs(20) => bail!("{} does not listen", program.name),
            Err(_) => thread::yield_now(),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(PING)?;
    let length = stream.read(&mut [0; 64])?;
    let took = start.elapsed();
    ensure!(length > 0 && child.0.try_wait()?.is_none(), "{} ended", program.name);
    Ok(took)
}

/// What requests cost an agent that runs.
fn served(programs: &[Program]) -> Result<()> {
    let mut peers = programs.iter().map(Program::start).collect::<Result<Vec<Peer>>>()?;

    let [elapsed, cpu] = rounds(&mut peers, 21, |peer| peer.cost(1000, |peer| peer.call(PING)))?;
    row("ping, round trip", &elapsed, microseconds, None);
    row("ping, processor time of the agent", &cpu, microseconds, Some(1.1));

    // As many as a socket holds, so that nobody has to write and read at once.
    let many = 4096;
    let requests = PING.repeat(many);
    let per_second = |seconds: f64| format!("{:.2} M/s", 1e-6 / seconds);
    let [elapsed, cpu] = rounds(&mut peers, 21, |peer| {
        let cost = peer.cost(10, |peer| {
            let mut writer = peer.stream.try_clone()?;
            thread::scope(|scope| {
                let written = scope.spawn(|| writer.write_all(&requests));
                peer.lines(many)?;
                written.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
                Ok(())
            })
        })?;
        Ok(cost.map(|seconds| seconds / many as f64))
    })?;
    row("pipelined pings", &elapsed, per_second, None);
    row("pipelined pings, processor time", &cpu, per_second, None);

    // Not echoed: an argument that the command does not know.
    let length = 200 << 10;
    let text = "x".repeat(length);
    let request = format!("{{\"execute\":\"guest-ping\",\"arguments\":{{\"x\":\"{text}\"}}}}\n");
    let rate = |seconds: f64| format!("{:.0} MB/s", length as f64 / seconds / 1e6);
    let [elapsed, cpu] = rounds(&mut peers, 21, |peer| peer.cost(50, |peer| peer.call(request.as_bytes())))?;
    row("string of 200 KiB", &elapsed, rate, None);
    row("string of 200 KiB, processor time", &cpu, rate, None);
    Ok(())
}

/// What commands cost the agent itself, against QEMU's own, and against what no agent can do without: the requests, and
/// the start of a program.
fn commands(programs: &[Program]) -> Result<()> {
    println!(
        "\n{:<40} {:>12} {:>12} {:>7} {:>7} {:>12} {:>8}",
        "processor time of the agent", "nanoga", "qemu-ga", "ratio", "goal", "floor", "at best"
    );
    let mut peers = programs.iter().map(Program::start).collect::<Result<Vec<Peer>>>()?;
    for command in ["guest-info", "guest-get-osinfo", "guest-get-fsinfo"] {
        let request = format!("{{\"execute\":\"{command}\"}}\n");
        // The floor answers whatever it is asked.
        let [_, cpu] = rounds(&mut peers, 21, |peer| peer.cost(200, |peer| peer.returned(&request)))?;
        against(command, [&cpu[0], &cpu[2], &cpu[1]].map(|samples| median(samples)));
    }
    let mut floor = Vec::new();
    let [_, cpu] = rounds(&mut peers, 21, |peer| {
        if !peer.is_floor {
            return peer.cost(20, exec);
        }
        let requests = peer.cost(20, |peer| peer.call(PING).and_then(|()| peer.call(PING)))?;
        floor.push(requests[1] + bare_program(20)?);
        Ok(requests)
    })?;
    against("guest-exec and guest-exec-status", [&cpu[0], &cpu[2], &floor].map(|samples| median(samples)));
    Ok(())
}

/// Prints a line: nanoga, QEMU's own agent, and the floor.
fn against(what: &str, [ours, theirs, floor]: [f64; 3]) {
    let shown = [ours, theirs, floor].map(microseconds);
    print!("{what:<40} {:>12} {:>12} {:>7.1} {CHEAPER:>7.1}", shown[0], shown[1], theirs / ours);
    println!(" {:>12} {:>8.1}", shown[2], theirs / floor);
}

/// What it costs this thread to start a program by `vfork(2)` and to wait for it when it has ended, in seconds.
fn bare_program(times: usize) -> Result<f64> {
    let path = Path::new("/proc/thread-self/schedstat");
    let before = nanoseconds(path)?;
    for _ in 0..times {
        let mut child = Command::new("/bin/true").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        thread::sleep(Duration::from_millis(5));
        ensure!(child.wait()?.success(), "/bin/true failed");
    }
    Ok((nanoseconds(path)? - before) / 1e9 / times as f64)
}

/// The time on a processor that this file of procfs says.
fn nanoseconds(schedstat: &Path) -> Result<f64> {
    let text = fs::read_to_string(schedstat)?;
    text.split(' ').next().and_then(|text| text.parse().ok()).context("schedstat")
}

/// Runs a program that ends at once, and asks after it when it has.
fn exec(peer: &mut Peer) -> Result<()> {
    let start = "{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"/bin/true\",\"capture-output\":true}}\n";
    let pid = peer.ask(start)?["pid"].take();
    ensure!(pid.is_i64(), "guest-exec told no process");
    let status = format!("{{\"execute\":\"guest-exec-status\",\"arguments\":{{\"pid\":{pid}}}}}\n");
    // So that one question is enough.
    thread::sleep(Duration::from_millis(5));
    while peer.ask(&status)?["exited"] != true {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// From here on, this program and all that it starts run on the last of its processors.
fn share_one_processor(allowed: &CpuSet) -> Result<()> {
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no processor")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Compiles the floor.
fn build_floor(sh: &Shell) -> Result<PathBuf> {
    ensure!(cfg!(target_arch = "x86_64"), "the floor is written for x86-64");
    let dir = paths::target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let (source, out) = (paths::workspace_dir().join("xtask/floor.rs"), dir.join("floor"));
    let link = "-Clink-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none";
    cmd!(sh, "rustc --edition 2024 -Copt-level=3 -Cpanic=abort -Cstrip=symbols {link} -o {out} {source}").run()?;
    Ok(out)
}
