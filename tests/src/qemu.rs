//! The QEMU process: a [`Machine`] started, its devices plugged and unplugged, its bounds.
//!
//! What a [`Machine`] leaves open is the same everywhere: the console on the first serial port (kept in a file), the
//! agent's virtio-serial port on the chardev `qga0`, and a shell on a virtio-serial device of its own.

mod accelerator;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Bounds, bounded};
use crate::client::Client;
use crate::initramfs;
use crate::paths::{self, Kernel};
use crate::qmp::Qmp;
use crate::vsock;

pub use accelerator::{accelerator, tsc_words};
pub use machine::{Board, Bus, Disk, Init, Machine};

/// The name the agent's port has everywhere.
pub const PORT_NAME: &str = "org.qemu.guest_agent.0";

/// For every guest's kernel. On a busy machine its check of the emulated timer fails now and then, and it stops.
pub const KERNEL_WORDS: &str = "quiet panic=-1 no_console_suspend no_timer_check";

/// What QEMU may use: 256 MiB of guest, its own libraries and threads; the console file.
const BOUNDS: Bounds = Bounds { memory: 8 << 30, cpu: 600, file: 1 << 30 };

/// A QEMU process. It ends with this value.
pub struct Qemu {
    child: Child,
    /// The vsock device, if the machine has one.
    pub vsock: Option<vsock::Device>,
    dir: TempDir,
    /// When it was started.
    pub started: Instant,
    /// Its control socket.
    pub qmp: Qmp,
}

impl Qemu {
    /// Starts a machine that boots the image.
    pub fn start(machine: &Machine) -> Result<Qemu> {
        // Neither the processor nor its KVM is this machine's.
        let accel = if machine.board == Board::Virt { "tcg".into() } else { accelerator()? };
        let (child, started, vsock, dir) = spawn(machine, &accel)?;
        let connected = Qmp::connect(&dir.path().join("qmp"));
        let qmp = connected.with_context(|| read_log(&dir.path().join("errors")))?;
        let mut qemu = Qemu { child, vsock, dir, started, qmp };
        if let Some(from) = &machine.restore {
            qemu.restore(from)?;
        }
        Ok(qemu)
    }

    /// Connects to the socket of a chardev: `qga0`, `qga1`, `isa` or `shell`.
    pub fn connect(&self, chardev: &str) -> Result<Client> {
        Client::connect(self.socket(chardev))
    }

    /// The socket of a chardev.
    pub fn socket(&self, chardev: &str) -> PathBuf {
        self.dir.path().join(chardev)
    }

    /// Waits until QEMU has ended.
    pub fn exited(&mut self) -> Result<()> {
        let ended = crate::wait_for("QEMU to end", Duration::from_secs(60), || Ok(self.child.try_wait()?))?;
        anyhow::ensure!(ended.success(), "QEMU: {ended}: {}", self.logs());
        Ok(())
    }

    /// What the guest said on its console.
    pub fn console(&self) -> String {
        read_log(&self.dir.path().join("console"))
    }

    /// Waits until the guest has said something on its console.
    pub fn wait_console(&self, text: &str) -> Result<()> {
        crate::wait_for(text, Duration::from_secs(60), || Ok(self.console().contains(text).then_some(())))
            .with_context(|| self.logs())
    }

    /// What QEMU said, and the guest on its console.
    pub fn logs(&self) -> String {
        let read = |name: &str| read_log(&self.dir.path().join(name));
        format!("--- QEMU\n{}--- console\n{}---\n", read("errors"), read("console"))
    }

    /// Saves the machine and ends it.
    pub fn save(&mut self, to: &Path) -> Result<()> {
        self.migrate("migrate", &format!("exec:cat >{}", to.display()))?;
        self.qmp.execute("quit", json!({}))?;
        self.exited()
    }

    fn restore(&mut self, from: &Path) -> Result<()> {
        self.migrate("migrate-incoming", &format!("exec:cat {}", from.display()))?;
        crate::wait_for("the restored machine to run", Duration::from_secs(20), || {
            Ok((self.qmp.execute("query-status", json!({}))?["status"] == "running").then_some(()))
        })
    }

    /// Saves or restores, and waits until that is done.
    fn migrate(&mut self, command: &str, uri: &str) -> Result<()> {
        self.qmp.execute(command, json!({ "uri": uri }))?;
        crate::wait_for("the machine's state to move", Duration::from_secs(60), || {
            let state = self.qmp.execute("query-migrate", json!({}))?;
            anyhow::ensure!(state["status"] != "failed", "{command}: {state}");
            Ok((state["status"] == "completed").then_some(()))
        })
    }

    /// Plugs in a new vsock device.
    pub fn plug_vsock(&mut self, name: &'static str) -> Result<()> {
        let device = vsock::Device::start(self.dir.path(), name)?;
        let address = json!({ "type": "unix", "data": { "path": self.dir.path().join(name) } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.qmp.execute("chardev-add", json!({ "id": name, "backend": backend }))?;
        self.qmp.execute("device_add", json!({ "driver": "vhost-user-vsock-pci", "id": name, "chardev": name }))?;
        self.vsock = Some(device);
        Ok(())
    }

    /// Pulls out the vsock device of this name.
    pub fn unplug_vsock(&mut self, name: &str) -> Result<()> {
        self.qmp.execute("device_del", json!({ "id": name }))?;
        self.qmp.wait_event("DEVICE_DELETED", Duration::from_secs(20))?;
        self.vsock = None;
        Ok(())
    }

    /// Plugs in 256 MiB of memory.
    pub fn plug_memory(&mut self) -> Result<()> {
        let memory = json!({ "qom-type": "memory-backend-ram", "id": "more", "size": 256 << 20 });
        self.qmp.execute("object-add", memory)?;
        self.qmp.execute("device_add", json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" })).map(drop)
    }

    /// The vsock device of a machine that has one.
    pub fn vsock(&self) -> &vsock::Device {
        self.vsock.as_ref().expect("a machine with a vsock")
    }

    /// Plugs in the agent's virtio-serial port, once more.
    pub fn plug_port(&mut self) -> Result<()> {
        let port = json!({
            "driver": "virtserialport", "id": "port0", "bus": "vs0.0", "nr": 1,
            "chardev": "qga0", "name": PORT_NAME,
        });
        self.qmp.execute("device_add", port).map(drop)
    }

    /// Pulls out the agent's virtio-serial port.
    pub fn unplug_port(&mut self) -> Result<()> {
        self.qmp.execute("device_del", json!({ "id": "port0" }))?;
        self.qmp.wait_event("DEVICE_DELETED", Duration::from_secs(20))?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn read_log(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let tail = log.len().saturating_sub(16 << 10);
    String::from_utf8_lossy(&log[tail..]).into_owned()
}

fn spawn(machine: &Machine, accel: &str) -> Result<(Child, Instant, Option<vsock::Device>, TempDir)> {
    let dir = TempDir::new()?;
    let kernel = match machine.board {
        Board::Virt => Kernel::find_aarch64()?,
        _ if machine.extras.generic_kernel => Kernel::find_generic()?,
        _ => Kernel::find()?,
    };
    let initramfs = match (&machine.image, machine.board, machine.only_agent) {
        (Some(image), ..) => fs::read(image).with_context(|| format!("reading {}", image.display())),
        (None, Board::Virt, _) => initramfs::with_only_agent(&paths::aarch64_agent()?, &kernel, &machine.extras),
        (None, _, true) => initramfs::with_only_agent(&paths::agent_binary()?, &kernel, &machine.extras),
        (None, _, false) => initramfs::full(&kernel, &machine.extras),
    };
    fs::write(dir.path().join("initramfs"), initramfs?)?;
    let (program, console) = machine.board.program_and_console();
    let mut command = Command::new(program);
    command.current_dir(dir.path());
    command.args(machine.board_args()).args(["-accel", accel]);
    command.args(["-m", if machine.spare_memory { "256,slots=2,maxmem=1G" } else { "256" }]);
    command.args(["-smp", if machine.spare_cpu { "1,maxcpus=2,sockets=2" } else { "1" }]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).args(["-initrd", "initramfs"]);
    let mut words = format!("console={console} {KERNEL_WORDS}");
    if machine.resume {
        words += " resume";
    }
    words += match machine.init {
        Init::Busybox => "",
        Init::Script => " rdinit=/etc/script",
        Init::Agent => " rdinit=/etc/script agent",
    };
    if matches!(machine.board, Board::Microvm | Board::BareMicrovm) && accel == "tcg" {
        words += &tsc_words();
    }
    words += &machine.words;
    command.args(["-append", &words]);
    command.args(["-qmp", "unix:qmp,server=on,wait=off"]);
    command.args(["-chardev", "file,id=console,path=console", "-serial", "chardev:console"]);
    let mut device = |text: String| {
        command.args(["-device", &text]);
    };
    device(format!("{},id=vs1", machine.virtio("virtio-serial")));
    device("virtserialport,bus=vs1.0,nr=1,chardev=shell,name=nanoga.shell".into());
    device(format!("{},id=vs0", machine.virtio("virtio-serial")));
    device(format!("virtserialport,bus=vs0.0,nr=1,chardev=qga0,name={PORT_NAME},id=port0"));
    if machine.second_port {
        device("virtserialport,bus=vs0.0,nr=2,chardev=qga1,name=org.nanoga.second".into());
    }
    if machine.isa {
        device("isa-serial,chardev=isa,index=1".into());
    }
    if machine.nic {
        device(format!("{},netdev=net0,mac=52:54:00:12:34:56{}", machine.virtio("virtio-net"), no_rom(machine)));
        command.args(["-netdev", "user,id=net0,restrict=on"]);
    }
    if let Some(disk) = &machine.disk {
        command.args(["-device", &format!("{},drive=disk0", machine.virtio("virtio-blk"))]);
        command.args(["-drive", &format!("if=none,id=disk0,format=raw,file={}", disk.display())]);
    }
    plug_disks(&mut command, &machine.disks);
    if machine.vsock || machine.shared_memory {
        command.args(["-machine", "memory-backend=m0", "-object", "memory-backend-memfd,id=m0,size=256M,share=on"]);
    }
    let vsock = machine.vsock.then(|| vsock::Device::start(dir.path(), "vsock0")).transpose()?;
    if vsock.is_some() {
        command.args(["-chardev", "socket,id=vsock0,path=vsock0"]);
        command.args(["-device", &format!("{},chardev=vsock0,id=vsock0", machine.virtio("vhost-user-vsock"))]);
    }
    if machine.nic_with_clock {
        command.args(["-device", "e1000e,romfile="]);
    }
    if machine.rng {
        command.args(["-object", "rng-builtin,id=rng0"]);
        command.args(["-device", &format!("{},rng=rng0", machine.virtio("virtio-rng"))]);
    }
    if machine.restore.is_some() {
        command.args(["-incoming", "defer"]);
    }
    for chardev in ["shell", "qga0", "qga1", "isa"] {
        let socket = format!("socket,id={chardev},path={chardev},server=on,wait=off");
        command.args(["-chardev", &socket]);
    }
    let errors = fs::File::create(dir.path().join("errors"))?;
    command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
    let started = Instant::now();
    let child = bounded(&mut command, BOUNDS).spawn().with_context(|| format!("starting {program}"))?;
    Ok((child, started, vsock, dir))
}

/// Disks with their controllers; each holes a discard into its image.
fn plug_disks(command: &mut Command, disks: &[Disk]) {
    let controllers = [
        (Bus::VirtioScsi, "virtio-scsi-pci,id=scsi"),
        (Bus::Sata, "ich9-ahci,id=ahci"),
        (Bus::Usb, "qemu-xhci,id=xhci"),
    ];
    for (bus, controller) in controllers {
        if disks.iter().any(|disk| disk.bus == bus) {
            command.args(["-device", controller]);
        }
    }
    for (number, disk) in disks.iter().enumerate() {
        let before = disks[..number].iter().filter(|other| other.bus == disk.bus).count();
        let device = match disk.bus {
            Bus::VirtioBlk => "virtio-blk-pci".to_owned(),
            Bus::VirtioScsi => format!("scsi-hd,bus=scsi.0,scsi-id={before},lun={}", before % 2 * 3),
            Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", before / 2, before % 2),
            Bus::Sata => format!("ide-hd,bus=ahci.{before}"),
            Bus::Nvme => "nvme".to_owned(),
            Bus::Usb => "usb-storage,bus=xhci.0".to_owned(),
        };
        command.args(["-device", &format!("{device},drive=more{number},serial={}", disk.serial)]);
        let image = disk.image.display();
        command.args(["-drive", &format!("if=none,id=more{number},format=raw,discard=unmap,file={image}")]);
    }
}

/// No network boot, and no file it would need.
fn no_rom(machine: &Machine) -> &'static str {
    if matches!(machine.board, Board::Microvm | Board::BareMicrovm) { "" } else { ",romfile=" }
}

/// Makes an empty raw disk.
pub fn make_disk(path: &Path, bytes: u64) -> Result<()> {
    let file = fs::File::create_new(path)?;
    if let Err(e) = file.set_len(bytes) {
        bail!("making {}: {e}", path.display());
    }
    Ok(())
}
