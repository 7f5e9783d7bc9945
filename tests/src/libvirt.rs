//! libvirt as a host: a daemon of its own, one emulated domain, and virsh.
//!
//! The daemon knows nothing of the system's: it lives in a directory that is thrown away, as an ordinary user in a
//! user namespace, and with everything it starts in a process namespace whose end is the end of all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, Bounds};
use crate::client::Client;
use crate::guest::Shell;
use crate::initramfs::{self, Extras};
use crate::paths::Kernel;
use crate::qemu::{KERNEL_WORDS, make_disk};
use crate::wait_for;

/// The domain's name.
const NAME: &str = "nanoga";

/// For the daemon and each thing it starts: libraries, QEMU with its guest.
const BOUNDS: Bounds = Bounds { memory: 8 << 30, cpu: 600, file: 2 << 30 };

/// How long one virsh may take: as long as a sleep to disk.
const PATIENCE_SECONDS: &str = "90";

/// A daemon with a domain that is defined. Both end with this value.
pub struct Libvirt {
    /// The daemon, and the directory it lives in.
    daemon: Agent,
    socket: PathBuf,
}

impl Libvirt {
    /// Starts a daemon and defines a domain, which does not run yet. `vda` is for its swap, `vdb` and so on are these
    /// disks.
    pub fn define(disks: &[&Path]) -> Result<Libvirt> {
        let dir = TempDir::new()?;
        let root = dir.path().to_owned();
        let kernel = Kernel::find()?;
        fs::write(root.join("initramfs"), initramfs::full(&kernel, &Extras::default())?)?;
        make_disk(&root.join("swap"), 512 << 20)?;
        fs::write(root.join("domain.xml"), domain(&root, &kernel.image, disks))?;
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c"]);
        // The shell takes care of the children of those who died before them.
        command.arg("unshare --user --map-user=1000 --map-group=1000 libvirtd & wait $!");
        command.env("HOME", &root).env_remove("DBUS_SESSION_BUS_ADDRESS").env_remove("LISTEN_FDS");
        for (variable, name) in
            [("RUNTIME_DIR", "run"), ("CONFIG_HOME", "config"), ("CACHE_HOME", "cache"), ("DATA_HOME", "data")]
        {
            let dir = root.join(name);
            fs::create_dir(&dir)?;
            command.env(format!("XDG_{variable}"), dir);
        }
        let socket = root.join("run/libvirt/libvirt-sock");
        let daemon = Agent::spawn_within(dir, command, BOUNDS)?;
        let libvirt = Libvirt { daemon, socket };
        wait_for("libvirtd to answer", Duration::from_secs(30), || Ok(libvirt.virsh(&["uri"]).ok()))
            .with_context(|| libvirt.logs())?;
        libvirt.virsh(&["define", root.join("domain.xml").to_str().context("an odd directory")?])?;
        Ok(libvirt)
    }

    /// Starts the domain and connects to its shell, which says when it is ready.
    pub fn start(&self) -> Result<Shell> {
        self.on_domain("start", &[])?;
        Ok(Shell::new(Client::connect(self.daemon.file("shell"))?))
    }

    /// A domain that runs, with an agent that serves libvirt.
    pub fn with_agent(disks: &[&Path]) -> Result<(Libvirt, Shell)> {
        let libvirt = Libvirt::define(disks)?;
        let mut guest = libvirt.start()?;
        guest.wait_ready().with_context(|| libvirt.logs())?;
        guest.start_agent("")?;
        libvirt.wait_agent(true)?;
        Ok((libvirt, guest))
    }

    /// Sends the agent a request through virsh, and returns what the agent returned.
    pub fn agent_command(&self, request: &str) -> Result<Value> {
        let answer = self.on_domain("qemu-agent-command", &["--timeout", "30", request])?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        answer.get_mut("return").map(Value::take).with_context(|| format!("{request} answered {answer}"))
    }

    /// `virsh COMMAND nanoga ARGS`: what it printed. It must succeed.
    pub fn on_domain(&self, command: &str, args: &[&str]) -> Result<String> {
        self.virsh(&[&[command, NAME], args].concat())
    }

    /// Waits until libvirt says that the domain is in this state.
    pub fn wait_state(&self, state: &str) -> Result<()> {
        let mut seen = String::new();
        wait_for(&format!("the domain to be {state}"), Duration::from_secs(60), || {
            seen = self.on_domain("domstate", &[])?;
            Ok((seen.trim() == state).then_some(()))
        })
        .with_context(|| format!("it is {seen}; {}", self.logs()))
    }

    /// Waits until libvirt says that the agent has its port open, or not.
    pub fn wait_agent(&self, connected: bool) -> Result<()> {
        let state = if connected { "state='connected'" } else { "state='disconnected'" };
        let line = format!("name='{}' {state}", crate::qemu::PORT_NAME);
        wait_for("libvirt to see the agent", Duration::from_secs(60), || {
            Ok(self.on_domain("dumpxml", &[])?.contains(&line).then_some(()))
        })
        .with_context(|| self.logs())
    }

    /// What the daemon said, and the guest on its console.
    pub fn logs(&self) -> String {
        let console = fs::read(self.daemon.file("console")).unwrap_or_default();
        format!("--- libvirtd\n{}--- console\n{}---\n", self.daemon.log(), String::from_utf8_lossy(&console))
    }

    fn virsh(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args([PATIENCE_SECONDS, "virsh", "-c"]);
        command.arg(format!("qemu+unix:///session?socket={}", self.socket.display())).args(args);
        let output = command.env("LC_ALL", "C").output().context("running virsh")?;
        let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(output.status.success(), "virsh {args:?}: {} {errors}{out}", output.status);
        Ok(out)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// A domain that boots our image: the agent's port, a shell, a NIC, disks.
fn domain(dir: &Path, kernel: &Path, disks: &[&Path]) -> String {
    let mut drives = String::new();
    let swap = dir.join("swap");
    for (disk, letter) in [swap.as_path()].iter().chain(disks).zip('a'..) {
        drives += &format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/>\
             <source file='{}'/><target dev='vd{letter}' bus='virtio'/></disk>",
            disk.display()
        );
    }
    let (dir, kernel, port) = (dir.display(), kernel.display(), crate::qemu::PORT_NAME);
    format!(
        "<domain type='qemu'>
           <name>{NAME}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
           <os><type arch='x86_64' machine='pc'>hvm</type>
             <kernel>{kernel}</kernel><initrd>{dir}/initramfs</initrd>
             <cmdline>console=ttyS0 {KERNEL_WORDS} resume</cmdline></os>
           <features><acpi/></features>
           <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
           <pm><suspend-to-mem enabled='yes'/><suspend-to-disk enabled='yes'/></pm>
           <devices>
             {drives}
             <controller type='usb' model='none'/>
             <serial type='file'><source path='{dir}/console'/></serial>
             <channel type='unix'><source mode='bind' path='{dir}/agent'/><target type='virtio' name='{port}'/></channel>
             <channel type='unix'><source mode='bind' path='{dir}/shell'/>
               <target type='virtio' name='nanoga.shell'/></channel>
             <interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/><rom enabled='no'/></interface>
             <memballoon model='none'/>
           </devices>
         </domain>"
    )
}
