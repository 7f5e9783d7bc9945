//! A booted guest: a shell in it that the test drives, and the agent in it.
//!
//! The shell runs on a virtio-serial device of its own, so a test can look at the agent without using the agent.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Status;
use crate::client::Client;
use crate::qemu::{Board, Machine, Qemu};

/// How long a boot may take under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

/// A shell in a guest, on a virtio-serial device of its own.
pub struct Shell {
    client: Client,
    commands: u32,
}

impl Shell {
    /// Takes over the connection to that device.
    pub fn new(client: Client) -> Shell {
        Shell { client, commands: 0 }
    }

    /// Waits until the guest has come up.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.client.patience = BOOT;
        let line = self.client.line()?;
        ensure!(line == b"guest: ready", "{}", String::from_utf8_lossy(&line));
        self.client.patience = Duration::from_secs(30);
        Ok(())
    }

    /// Runs a shell command in the guest and returns what it wrote; fails when it fails.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let mark = format!("end of command {}:", self.commands);
        self.client.send(format!("{{ {command}\n}} 2>&1; echo \"{mark} $?\"\n"))?;
        let mut output = String::new();
        loop {
            let line = self.client.line().with_context(|| format!("running {command:?}: {output}"))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some((rest, status)) = line.split_once(&mark) {
                output += rest;
                ensure!(status == " 0", "{command:?} ended with{status}: {output}");
                return Ok(output);
            }
            output += &line;
            output += "\n";
        }
    }

    /// Starts the agent with these arguments and returns its process id. Its log is `/tmp/nanoga.log`.
    pub fn start_agent(&mut self, args: &str) -> Result<i32> {
        let start = format!("nanoga -t /tmp {args} </dev/null >>/tmp/nanoga.log 2>&1 & echo $!");
        let pid = self.sh(&start)?;
        pid.trim().parse().with_context(|| format!("no process id: {pid}"))
    }
}

/// A guest whose init is done.
pub struct Guest {
    qemu: Qemu,
    shell: Shell,
}

impl Guest {
    /// Boots a machine and waits for its shell.
    pub fn boot(machine: &Machine) -> Result<Guest> {
        let mut guest = Guest::start(machine)?;
        guest.shell.wait_ready().with_context(|| guest.qemu.logs())?;
        Ok(guest)
    }

    /// Starts a machine that will not say when it is ready, because a sleeping one takes over.
    pub fn start(machine: &Machine) -> Result<Guest> {
        let qemu = Qemu::start(machine)?;
        let shell = Shell::new(qemu.connect("shell")?);
        Ok(Guest { qemu, shell })
    }

    /// Runs a shell command in the guest and returns what it wrote; fails when it fails.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        self.shell.sh(command)
    }

    /// Starts the agent with these arguments and returns its process id. Its log is `/tmp/nanoga.log`.
    pub fn start_agent(&mut self, args: &str) -> Result<i32> {
        self.shell.start_agent(args)
    }

    /// Boots, starts the agent with these arguments and waits until it answers on its virtio-serial port.
    pub fn with_agent(machine: &Machine, args: &str) -> Result<(Guest, Client, i32)> {
        let mut guest = Guest::boot(machine)?;
        let pid = guest.start_agent(args)?;
        let host = guest.host("qga0")?;
        Ok((guest, host, pid))
    }

    /// The same on a port for each of two hosts.
    pub fn with_two_hosts() -> Result<(Guest, [Client; 2])> {
        let mut machine = Machine::new(Board::Pc);
        machine.second_port = true;
        let args = "-m virtio-serial -m virtio-serial -p /dev/virtio-ports/org.nanoga.second";
        let (mut guest, host, _) = Guest::with_agent(&machine, args)?;
        let other = guest.host("qga1")?;
        Ok((guest, [host, other]))
    }

    /// Puts a script in the place of a program.
    pub fn script(&mut self, path: &str, body: &str) -> Result<()> {
        self.sh(&format!("rm -f {path}; cat >{path} <<'END'\n#!/bin/sh\n{body}\nEND\nchmod 755 {path}")).map(drop)
    }

    /// The same with one that waits for [`Guest::go`], and ends with the status from there.
    pub fn slow_script(&mut self, path: &str) -> Result<()> {
        self.sh("mkfifo /tmp/go")?;
        self.script(path, r#"touch /tmp/started; read status </tmp/go; exit "$status""#)
    }

    /// Waits until it waits.
    pub fn wait_started(&mut self) -> Result<()> {
        self.sh("until [ -e /tmp/started ]; do sleep 0.05; done; rm /tmp/started").map(drop)
    }

    /// Has it go on.
    pub fn go(&mut self, status: u8) -> Result<()> {
        self.sh(&format!("echo {status} >/tmp/go")).map(drop)
    }

    /// Connects to a chardev behind which the agent sits, and brings the channel in step.
    pub fn host(&mut self, chardev: &str) -> Result<Client> {
        let mut host = self.connect(chardev)?;
        host.sync_delimited().with_context(|| self.agent_log())?;
        Ok(host)
    }

    /// What the agent said, and what runs.
    pub fn agent_log(&mut self) -> String {
        let log = self.sh("cat /tmp/nanoga.log; ps | grep -v '\\['");
        log.unwrap_or_else(|e| format!("{e:#}\n{}", self.qemu.logs()))
    }

    /// Waits until the guest has seen that the host is connected to the agent's port, or is not.
    pub fn wait_host_connected(&mut self, connected: bool) -> Result<()> {
        crate::wait_for("the guest to see the host", Duration::from_secs(20), || {
            Ok((self.host_connected()? == connected).then_some(()))
        })
    }

    /// Whether the guest's kernel believes that a host is connected to the agent's port.
    pub fn host_connected(&mut self) -> Result<bool> {
        self.sh("[ -e /sys/kernel/debug/virtio-ports ] || mount -t debugfs debugfs /sys/kernel/debug")?;
        Ok(self.sh("cat /sys/kernel/debug/virtio-ports/$port")?.contains("host_connected: 1"))
    }

    /// What procfs in the guest says about a process.
    pub fn status(&mut self, pid: i32) -> Result<Status> {
        let both = self.sh(&format!("cat /proc/{pid}/status; echo ---; cat /proc/{pid}/smaps_rollup"));
        let both = both.with_context(|| self.agent_log())?;
        let (status, smaps_rollup) = both.split_once("---").context("half a status")?;
        Status::parse(status, smaps_rollup)
    }

    /// Waits until a process sleeps and has slept through two looks.
    pub fn settle(&mut self, pid: i32) -> Result<Status> {
        let mut before = self.status(pid)?;
        crate::wait_for("the agent to come to rest", Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.status(pid)?;
            let still = now.sleeping && now.switches == before.switches;
            before = now.clone();
            Ok(still.then_some(now))
        })
    }

    /// How often a process that has come to rest wakes up within five seconds of doing nothing.
    pub fn wakeups_in_five_seconds(&mut self, pid: i32) -> Result<u64> {
        let before = self.settle(pid)?;
        self.sh("sleep 5")?;
        Ok(self.status(pid)?.switches - before.switches)
    }

    /// Has the guest's kernel note every ioctl(2) from now on.
    pub fn trace_ioctls(&mut self) -> Result<()> {
        self.sh(
            "cd /sys/kernel/tracing && { [ -e trace ] || mount -t tracefs tracefs .; } && cd /sys/kernel/tracing && \
             echo 'id == 16' >events/raw_syscalls/sys_enter/filter && echo 1 >events/raw_syscalls/sys_enter/enable && \
             echo 1 >tracing_on; cd /",
        )
        .map(drop)
    }

    /// How many ioctls of this number (hexadecimal) were noted.
    pub fn traced_ioctls(&mut self, number: &str) -> Result<usize> {
        let count = self.sh(&format!("grep -cE 'NR 16 \\([0-9a-f]+, {number},' /sys/kernel/tracing/trace || true"))?;
        Ok(count.trim().parse()?)
    }

    /// How many system calls the process makes while `work` is done, counted by the guest's kernel.
    pub fn syscalls(&mut self, pid: i32, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        self.settle(pid)?;
        self.sh(&format!(
            "cd /sys/kernel/tracing && {{ [ -e trace ] || mount -t tracefs tracefs .; }} && cd /sys/kernel/tracing && \
             echo 0 >tracing_on && echo >trace && echo 'common_pid == {pid}' >events/raw_syscalls/sys_enter/filter && \
             echo 16384 >buffer_size_kb && echo 1 >events/raw_syscalls/sys_enter/enable && echo 1 >tracing_on"
        ))?;
        work()?;
        self.settle(pid)?;
        let header = self.sh("echo 0 >/sys/kernel/tracing/tracing_on; grep entries /sys/kernel/tracing/trace; cd /")?;
        // # entries-in-buffer/entries-written: 42/42   #P:1
        let counts = header.split_whitespace().find_map(|word| {
            let (kept, written) = word.split_once('/')?;
            Some((kept.parse::<u64>().ok()?, written.parse::<u64>().ok()?))
        });
        match counts {
            Some((kept, written)) if kept == written => Ok(written),
            _ => bail!("the trace lost something: {header}"),
        }
    }
}

impl Deref for Guest {
    type Target = Qemu;

    fn deref(&self) -> &Qemu {
        &self.qemu
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Qemu {
        &mut self.qemu
    }
}
