//! Where a disk is plugged in, from its folder in sysfs (kernel documentation, admin-guide/sysfs-rules) and what udev
//! keeps of it.
//!
//! A device that is made of others (device-mapper, md) has the addresses of those. It knows no file system.

use core::ffi::CStr;

use agent_core::guest::{Bus, DiskAddress};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fstat, readlinkat_raw};
use rustix::io::read;

use crate::sys;

/// Bytes of a path in sysfs: one of a disk behind several bridges and hubs has about 200.
const PATH: usize = 512;

/// Devices on devices, at most. The kernel's own limit is lower.
const DEPTH: u8 = 8;

/// The drivers of PCI controllers whose disks have an address.
const DRIVERS: [(&[u8], Bus); 7] = [
    (b"ata_piix", Bus::Ide),
    (b"sym53c8xx", Bus::Scsi),
    (b"virtio-pci", Bus::Virtio),
    (b"ahci", Bus::Sata),
    (b"nvme", Bus::Nvme),
    (b"ehci-pci", Bus::Usb),
    (b"xhci_hcd", Bus::Usb),
];

/// Where a disk or a partition of it may keep its serial number: virtio, NVMe, SCSI.
const SERIALS: [&CStr; 6] =
    [c"serial", c"../serial", c"device/serial", c"../device/serial", c"device/vpd_pg80", c"../device/vpd_pg80"];

/// So many folders up, at most; more than a path has.
const UP: usize = 24;

/// The folder so far up itself, and the link to its driver: [`up`] takes what is needed from the end.
const FOLDER: &CStr = c"../../../../../../../../../../../../../../../../../../../../../../../../.";
const DRIVER: &CStr = c"../../../../../../../../../../../../../../../../../../../../../../../../driver";

/// The serial numbers of the disks that were asked last.
pub type Serials = [Serial; 8];

/// What a disk told.
#[derive(Clone, Copy)]
pub struct Serial {
    /// The inode of its folder in sysfs.
    id: u64,
    length: usize,
    text: [u8; 48],
}

impl Serial {
    /// No disk has the number 0.
    pub const NONE: Self = Serial { id: 0, length: 0, text: [0; 48] };
}

/// A block device, by its folder in sysfs.
pub struct Node {
    folder: OwnedFd,
    /// Where that is: `../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1`.
    path: [u8; PATH],
    length: usize,
}

impl Node {
    /// The device with this number, `major:minor`.
    #[inline(never)]
    pub fn find(root: BorrowedFd<'_>, device: &[u8]) -> Option<Self> {
        let mut name = [0; 64];
        let name = named(b"sys/dev/block/", device, &mut name);
        let folder = sys::open(root, name, OFlags::PATH).ok()?;
        let mut node = Node { folder, path: [0; PATH], length: 0 };
        node.length = readlinkat_raw(root, name, &mut node.path[..]).ok()?;
        Some(node)
    }

    fn path(&self) -> &[u8] {
        self.path.get(..self.length).unwrap_or_default()
    }

    /// Is it made of a file, or a part of such a device?
    pub fn is_loop(&self) -> bool {
        self.path().starts_with(b"../../devices/virtual/block/loop")
    }

    /// The kernel's name of it.
    pub fn name(&self) -> &[u8] {
        base_name(self.path())
    }

    /// Visits the disks that it lies on. The space is for what udev knows of one; the serial numbers are those that disks
    /// have told.
    #[inline(never)]
    pub fn disks(
        &self,
        root: BorrowedFd<'_>,
        device: &[u8],
        depth: u8,
        space: &mut [u8],
        serials: &mut Serials,
        each: &mut dyn FnMut(&DiskAddress<'_>),
    ) {
        if self.path().starts_with(b"../../devices/virtual/block/") {
            sys::list(self.folder.as_fd(), c"slaves", &mut |slaves, name| {
                let mut number = [0; 24];
                if depth < DEPTH
                    && let Ok(slave) = sys::open(slaves, name, OFlags::PATH)
                    && let device = text(slave.as_fd(), c"dev", &mut number)
                    && let Some(node) = Node::find(root, device)
                {
                    node.disks(root, device, depth.wrapping_add(1), space, serials, each);
                }
            });
            return;
        }
        let mut disk = DiskAddress::UNKNOWN;
        self.place(&mut disk);

        let mut node = [0; 64];
        disk.device = named(b"/dev/", self.name(), &mut node).to_bytes();
        let known = text(root, named(b"run/udev/data/b", device, &mut [0; 64]), space);
        let mut lines = known.split(|byte| *byte == b'\n');
        disk.serial = lines.find_map(|line| line.strip_prefix(b"E:ID_SERIAL=")).unwrap_or_default();
        if disk.serial.is_empty() {
            disk.serial = self.told(serials);
        }
        each(&disk);
    }

    /// The serial number as the disk itself tells it, once: that takes longer than all else.
    #[inline(never)]
    fn told<'s>(&self, serials: &'s mut Serials) -> &'s [u8] {
        let folder = self.folder.as_fd();
        // No other folder of sysfs ever gets this number.
        let id = fstat(folder).map_or(0, |found| found.st_ino);
        let Some(serial) = serials.get_mut(usize::try_from(id & 7).unwrap_or(0)) else {
            return b"";
        };
        if serial.id != id || serial.length == 0 {
            let mut lengths = SERIALS.iter().map(|place| text(folder, place, &mut serial.text).len());
            serial.length = lengths.find(|length| *length > 0).unwrap_or(0);
            serial.id = id;
        }
        match serial.text.get(..serial.length).unwrap_or_default().trim_ascii_start() {
            // As a SCSI disk itself says it: behind a header (SCSI Primary Commands, page 80h).
            [_, 0x80, _, _, page @ ..] => page.trim_ascii(),
            text => text,
        }
    }

    /// Where the disk is plugged in, as far as that can be told.
    #[inline(never)]
    fn place(&self, disk: &mut DiskAddress<'_>) {
        let mut scsi = None;
        let mut host = None;
        let folder = self.folder.as_fd();
        // From the disk up to its controller: how far up, the name there, and that of the folder below.
        let mut below = &b""[..];
        for (levels, name) in self.path().rsplit(|byte| *byte == b'/').enumerate() {
            if name.starts_with(b"target") {
                scsi = numbers(below, 10);
            } else if name.starts_with(b"virtio") {
                // There may be no PCI, as on microvm and Firecracker.
                disk.kind = Bus::Virtio;
                if let Some([_, channel, target, unit]) = scsi {
                    (disk.kind, disk.bus, disk.target, disk.unit) = (Bus::Scsi, channel, target, unit);
                }
            } else if name.starts_with(b"ata") || name.starts_with(b"host") {
                // The outer one, if there are both.
                host = Some(index(folder, up(FOLDER, levels.wrapping_add(1)), name));
            } else if let Some(pci) = numbers(name, 16) {
                let mut driver = [0; 128];
                let length = readlinkat_raw(folder, up(DRIVER, levels), &mut driver[..]).unwrap_or(0);
                let driver = base_name(driver.get(..length).unwrap_or_default());
                if let Some((_, bus)) = DRIVERS.iter().find(|(name, _)| *name == driver) {
                    let [_, _, target, unit] = scsi.unwrap_or_default();
                    let numbered = host.unwrap_or_default();
                    (disk.pci, disk.kind, disk.bus, disk.target) = (pci, *bus, 0, 0);
                    match bus {
                        Bus::Ide => (disk.bus, disk.unit) = (numbered, target),
                        Bus::Sata => disk.unit = numbered,
                        Bus::Scsi => disk.unit = target,
                        Bus::Virtio if scsi.is_some() => (disk.kind, disk.unit) = (Bus::Scsi, unit),
                        _ => {}
                    }
                    break;
                }
            }
            below = name;
        }
    }
}

/// How many in this folder are of the same kind (`ata3`, `host0`) and have a lower number.
#[inline(never)]
fn index(folder: BorrowedFd<'_>, path: &CStr, name: &[u8]) -> i32 {
    let (kind, number) = split_number(name);
    let mut lower = 0_i32;
    sys::list(folder, path, &mut |_, name| {
        let (other, other_number) = split_number(name.to_bytes());
        lower = lower.wrapping_add(i32::from(other == kind && other_number < number));
    });
    lower
}

/// The end of such a path that leads so many folders up; nowhere if that is too far.
fn up(path: &CStr, levels: usize) -> &CStr {
    let skip = UP.wrapping_sub(levels).wrapping_mul(3);
    path.to_bytes_with_nul().get(skip..).and_then(|end| CStr::from_bytes_until_nul(end).ok()).unwrap_or_default()
}

/// A name and the number behind it.
#[inline(never)]
fn split_number(name: &[u8]) -> (&[u8], Option<i32>) {
    let letters = name.iter().position(u8::is_ascii_digit).unwrap_or(name.len());
    let (name, digits) = name.split_at_checked(letters).unwrap_or_default();
    (name, number(digits, 10))
}

/// Four numbers with `:` or `.` between them: `0000:00:1f.2`, `2:0:0:5`.
#[inline(never)]
fn numbers(text: &[u8], base: u32) -> Option<[i32; 4]> {
    let mut all = [0; 4];
    let mut parts = text.split(|byte| matches!(byte, b':' | b'.'));
    for place in &mut all {
        *place = number(parts.next()?, base)?;
    }
    parts.next().is_none().then_some(all)
}

/// A number, all of it.
#[inline(never)]
fn number(text: &[u8], base: u32) -> Option<i32> {
    let mut value = 0_u32;
    for byte in text {
        value = value.wrapping_mul(base).wrapping_add(char::from(*byte).to_digit(base)?);
    }
    i32::try_from(value).ok().filter(|_| !text.is_empty())
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The path of something in a folder. The kernel writes `!` for the `/` in a name.
#[inline(never)]
fn named<'b>(before: &[u8], name: &[u8], path: &'b mut [u8; 64]) -> &'b CStr {
    for (place, byte) in path.iter_mut().zip(before.iter().chain(name)) {
        *place = if *byte == b'!' { b'/' } else { *byte };
    }
    CStr::from_bytes_until_nul(path).unwrap_or_default()
}

/// The text at the front of a file, without blanks behind it; empty if it cannot be read.
#[inline(never)]
fn text<'b>(folder: BorrowedFd<'_>, name: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    let opened = sys::open(folder, name, OFlags::RDONLY);
    let length = opened.and_then(|file| read(&file, &mut *buffer)).unwrap_or(0);
    buffer.get(..length).unwrap_or_default().trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::testing::open_folder;

    /// A folder like the root of a machine.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("nanoga-disks-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("sys/dev/block")).unwrap();
            Tree(root)
        }

        fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn folder(&self, path: &str) -> &Self {
            fs::create_dir_all(self.0.join(path)).unwrap();
            self
        }

        /// A block device at this place below `/sys/devices`.
        fn device(&self, number: &str, path: &str) -> &Self {
            self.file(&format!("sys/devices/{path}/dev"), format!("{number}\n"));
            symlink(format!("../../devices/{path}"), self.0.join("sys/dev/block").join(number)).unwrap();
            self
        }

        fn driver(&self, path: &str, name: &str) -> &Self {
            self.folder(&format!("sys/devices/{path}"));
            let link = self.0.join(format!("sys/devices/{path}/driver"));
            symlink(format!("../../../bus/pci/drivers/{name}"), link).unwrap();
            self
        }

        fn slave(&self, of: &str, name: &str, path: &str) -> &Self {
            let slaves = self.0.join(format!("sys/devices/virtual/block/{of}/slaves"));
            fs::create_dir_all(&slaves).unwrap();
            symlink(self.0.join("sys/devices").join(path), slaves.join(name)).unwrap();
            self
        }

        /// Each disk in a line: controller, kind, bus, target, unit, serial number and device.
        fn disks(&self, number: &str) -> Vec<String> {
            let root = open_folder(&self.0);
            let mut all = Vec::new();
            let node = Node::find(root.as_fd(), number.as_bytes()).unwrap();
            node.disks(root.as_fd(), number.as_bytes(), 0, &mut [0; 4096], &mut [Serial::NONE; 8], &mut |disk| {
                let [a, b, c, d] = disk.pci;
                let pci = if disk.pci == [-1; 4] { "-".into() } else { format!("{a:04x}:{b:02x}:{c:02x}.{d}") };
                let [serial, device] = [disk.serial, disk.device].map(|text| str::from_utf8(text).unwrap());
                let kind = format!("{:?}", disk.kind);
                all.push(format!("{pci} {kind} {} {} {} '{serial}' {device}", disk.bus, disk.target, disk.unit));
            });
            all.sort();
            all
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn ide_disks_have_the_bus_of_their_port_and_their_place_on_it() {
        let tree = Tree::new("ide");
        tree.driver("pci0000:00/0000:00:01.1", "ata_piix").folder("sys/devices/pci0000:00/0000:00:01.1/ata1");
        tree.folder("sys/devices/pci0000:00/0000:00:01.1/ata_port");
        tree.device("8:1", "pci0000:00/0000:00:01.1/ata2/host10/target10:0:1/10:0:1:0/block/sdb/sdb1");
        assert_eq!(tree.disks("8:1"), ["0000:00:01.1 Ide 1 0 1 '' /dev/sdb1"]);
    }

    #[test]
    fn sata_disks_have_the_number_of_their_port() {
        let tree = Tree::new("sata");
        tree.driver("pci0000:00/0000:00:1f.2", "ahci");
        for port in [7, 8, 9, 10, 11, 12] {
            tree.folder(&format!("sys/devices/pci0000:00/0000:00:1f.2/ata{port}"));
        }
        tree.device("8:0", "pci0000:00/0000:00:1f.2/ata10/host3/target3:0:0/3:0:0:0/block/sda");
        assert_eq!(tree.disks("8:0"), ["0000:00:1f.2 Sata 0 0 3 '' /dev/sda"]);
    }

    #[test]
    fn scsi_disks_have_the_target_or_the_logical_unit_of_their_controller() {
        let tree = Tree::new("scsi");
        tree.driver("pci0000:00/0000:00:05.0", "sym53c8xx").driver("pci0000:00/0000:00:06.0", "virtio-pci");
        tree.device("8:0", "pci0000:00/0000:00:05.0/host2/target2:0:6/2:0:6:0/block/sda");
        tree.device("8:16", "pci0000:00/0000:00:06.0/virtio3/host3/target3:0:1/3:0:1:9/block/sdb");
        assert_eq!(tree.disks("8:0"), ["0000:00:05.0 Scsi 0 0 6 '' /dev/sda"]);
        assert_eq!(tree.disks("8:16"), ["0000:00:06.0 Scsi 0 0 9 '' /dev/sdb"]);
    }

    #[test]
    fn the_controller_is_the_one_with_a_known_driver() {
        let tree = Tree::new("bridges");
        let bridge = "pci0000:40/0000:40:1c.0";
        tree.driver(bridge, "pcieport").driver(&format!("{bridge}/0001:af:00.7"), "virtio-pci");
        tree.device("254:0", &format!("{bridge}/0001:af:00.7/virtio0/block/vda"));
        assert_eq!(tree.disks("254:0"), ["0001:af:00.7 Virtio 0 0 0 '' /dev/vda"]);
        tree.driver("pci0000:00/0000:00:09.0", "exotic").device("8:0", "pci0000:00/0000:00:09.0/host0/block/c!d0");
        assert_eq!(tree.disks("8:0"), ["- Unknown 0 0 0 '' /dev/c/d0"]);
    }

    #[test]
    fn nvme_and_usb_disks_are_known_by_their_controller() {
        let tree = Tree::new("nvme");
        tree.driver("pci0000:00/0000:00:02.0", "nvme").driver("pci0000:00/0000:00:03.0", "xhci_hcd");
        let nvme = "pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1/nvme0n1p2";
        tree.device("259:2", nvme).file(&format!("sys/devices/{nvme}/../device/serial"), "S1\n");
        tree.device("8:0", "pci0000:00/0000:00:03.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0/block/sda");
        assert_eq!(tree.disks("259:2"), ["0000:00:02.0 Nvme 0 0 0 'S1' /dev/nvme0n1p2"]);
        assert_eq!(tree.disks("8:0"), ["0000:00:03.0 Usb 0 0 0 '' /dev/sda"]);
    }

    #[test]
    fn virtio_without_pci_has_no_controller() {
        let tree = Tree::new("mmio");
        tree.device("254:1", "platform/LNRO0005:00/virtio1/block/vda/vda1");
        tree.file("sys/devices/platform/LNRO0005:00/virtio1/block/vda/serial", "  disk 1 \n");
        tree.device("8:0", "platform/LNRO0005:02/virtio2/host1/target1:0:3/1:0:3:5/block/sda");
        assert_eq!(tree.disks("254:1"), ["- Virtio 0 0 0 'disk 1' /dev/vda1"]);
        assert_eq!(tree.disks("8:0"), ["- Scsi 0 3 5 '' /dev/sda"]);
    }

    #[test]
    fn the_serial_number_is_the_one_of_udev_or_the_disk_s_own() {
        let tree = Tree::new("serial");
        let path = "platform/x/virtio2/host1/target1:0:0/1:0:0:0/block/sda";
        tree.device("8:0", path);
        tree.file(&format!("sys/devices/{path}/device/vpd_pg80"), b"\0\x80\0\x06  AB C");
        assert_eq!(tree.disks("8:0"), ["- Scsi 0 0 0 'AB C' /dev/sda"]);
        tree.file("run/udev/data/b8:0", "S:disk/by-id/x\nI:12\nE:ID_SERIAL_SHORT=no\nE:ID_SERIAL=0QEMU_1\nG:systemd\n");
        assert_eq!(tree.disks("8:0"), ["- Scsi 0 0 0 '0QEMU_1' /dev/sda"]);
    }

    #[test]
    fn devices_made_of_others_have_the_addresses_of_all_of_those() {
        let tree = Tree::new("virtual");
        tree.device("254:0", "platform/a/virtio0/block/vda").device("254:17", "platform/b/virtio1/block/vdb/vdb1");
        tree.device("9:0", "virtual/block/md0").device("253:0", "virtual/block/dm-0");
        tree.device("7:0", "virtual/block/loop0").folder("sys/devices/virtual/block/loop0/slaves");
        tree.slave("md0", "vda", "platform/a/virtio0/block/vda");
        tree.slave("md0", "vdb1", "platform/b/virtio1/block/vdb/vdb1").slave("dm-0", "md0", "virtual/block/md0");
        let both = ["- Virtio 0 0 0 '' /dev/vda", "- Virtio 0 0 0 '' /dev/vdb1"];
        assert_eq!(tree.disks("9:0"), both);
        assert_eq!(tree.disks("253:0"), both);
        assert_eq!(tree.disks("7:0"), [""; 0]);
        // One that lies on itself would be a bug of the kernel.
        tree.device("253:1", "virtual/block/dm-1").slave("dm-1", "dm-1", "virtual/block/dm-1");
        assert_eq!(tree.disks("253:1"), [""; 0]);
    }

    #[test]
    fn what_is_not_there_has_no_folder() {
        let tree = Tree::new("missing");
        let root = open_folder(&tree.0);
        assert!(Node::find(root.as_fd(), b"1:2").is_none());
        assert!(Node::find(root.as_fd(), &[b'1'; 100]).is_none());
    }
}
