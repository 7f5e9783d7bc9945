//! What a machine is made of, before it runs.

use std::path::PathBuf;

use crate::initramfs::Extras;

/// The kinds of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// i440FX: PCI.
    Pc,
    /// Q35: PCI Express.
    Q35,
    /// microvm: MMIO devices found through ACPI, no PCI, no sleep but s2idle.
    Microvm,
    /// The same without ACPI: the kernel finds nothing but the serial ports, and cannot power off.
    BareMicrovm,
    /// virt with an aarch64: PCI Express, a PL011, and PSCI for the end. There is no busybox for it here.
    Virt,
}

impl Board {
    /// What emulates it, and the first serial port as its kernel calls it.
    pub(super) fn program_and_console(self) -> (&'static str, &'static str) {
        match self {
            Board::Virt => ("qemu-system-aarch64", "ttyAMA0"),
            _ => ("qemu-system-x86_64", "ttyS0"),
        }
    }
}

/// What a disk is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A device of its own.
    VirtioBlk,
    /// A SCSI controller of virtio.
    VirtioScsi,
    /// The board's own IDE (`Board::Pc`).
    Ide,
    /// An AHCI controller.
    Sata,
    /// NVMe.
    Nvme,
    /// A stick behind xHCI.
    Usb,
}

/// A raw disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What it is plugged into.
    pub bus: Bus,
    /// Its content.
    pub image: PathBuf,
    /// What it says its serial number is.
    pub serial: &'static str,
}

/// The first process of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Busybox's init.
    Busybox,
    /// A script, which listens to nothing.
    Script,
    /// The agent, which a script becomes.
    Agent,
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its board.
    pub board: Board,
    /// A virtio NIC on QEMU's user network.
    pub nic: bool,
    /// A second virtio-serial port, `org.nanoga.second`, on the chardev `qga1`.
    pub second_port: bool,
    /// A second serial port, on the chardev `isa`.
    pub isa: bool,
    /// A raw disk on virtio, the first.
    pub disk: Option<PathBuf>,
    /// Further disks, on boards with PCI.
    pub disks: Vec<Disk>,
    /// A vsock device of the guest's, [`Qemu::vsock`].
    pub vsock: bool,
    /// A NIC with a clock of its own: to be driven by `e1000e` of the generic kernel.
    pub nic_with_clock: bool,
    /// A source of random numbers.
    pub rng: bool,
    /// Memory that a vsock device can map: implied by `vsock`, needed to plug one in later.
    pub shared_memory: bool,
    /// Do not boot: go on from what [`Qemu::save`] has saved here.
    pub restore: Option<PathBuf>,
    /// Nothing but the agent and its modules, where the agent runs first: no shell.
    pub only_agent: bool,
    /// What its image holds beyond the usual.
    pub extras: Extras,
    /// Boot this image instead.
    pub image: Option<PathBuf>,
    /// Take over from an image on the disk's swap.
    pub resume: bool,
    /// More words on the kernel's command line, behind all others.
    pub words: String,
    /// A processor that may be plugged in.
    pub spare_cpu: bool,
    /// Memory may be plugged in ([`Qemu::plug_memory`]).
    pub spare_memory: bool,
    /// Whether the machine offers sleep to RAM (S3).
    pub s3: bool,
    /// What runs first in it.
    pub init: Init,
}

impl Machine {
    /// A machine of this kind with nothing but the agent's port.
    pub fn new(board: Board) -> Machine {
        Machine {
            board,
            nic: false,
            second_port: false,
            isa: false,
            disk: None,
            disks: Vec::new(),
            vsock: false,
            nic_with_clock: false,
            rng: false,
            shared_memory: false,
            restore: None,
            only_agent: false,
            extras: Extras::default(),
            image: None,
            resume: false,
            words: String::new(),
            spare_cpu: false,
            spare_memory: false,
            s3: true,
            init: Init::Busybox,
        }
    }

    /// `-M` and what goes with it.
    pub(super) fn board_args(&self) -> Vec<&'static str> {
        match (self.board, self.s3) {
            (Board::Pc, true) => vec!["-M", "pc"],
            (Board::Pc, false) => vec!["-M", "pc", "-global", "PIIX4_PM.disable_s3=1"],
            (Board::Q35, true) => vec!["-M", "q35"],
            (Board::Q35, false) => vec!["-M", "q35", "-global", "ICH9-LPC.disable_s3=1"],
            (Board::Microvm, _) => vec!["-M", "microvm,acpi=on,rtc=on"],
            (Board::BareMicrovm, _) => vec!["-M", "microvm,acpi=off,rtc=on,pit=on,pic=on"],
            (Board::Virt, _) => vec!["-M", "virt", "-cpu", "cortex-a57"],
        }
    }

    /// `virtio-net` is `virtio-net-pci` here, `virtio-net-device` there.
    pub(super) fn virtio(&self, device: &str) -> String {
        match self.board {
            Board::Pc | Board::Q35 | Board::Virt => format!("{device}-pci"),
            Board::Microvm | Board::BareMicrovm => format!("{device}-device"),
        }
    }
}
