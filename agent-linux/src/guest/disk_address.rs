//! Where a disk is plugged in, from its folder in sysfs (kernel documentation, admin-guide/sysfs-rules) and what udev
//! keeps of it.
//!
//! A device that is made of others (device-mapper, md) has the addresses of those. It knows no file system.

use core::ffi::CStr;

use agent_core::guest::{Bus, DiskAddress, Step};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags, fstat};

use crate::sys;
use crate::text::{cut, cut_last};

/// Bytes of the path of a folder in sysfs: one of a disk behind several bridges and hubs has about 200.
const LINK: usize = 512;

/// Devices on devices, at most. The kernel's own limit is lower.
pub const DEPTH: u8 = 8;

/// The drivers of PCI controllers whose disks have an address.
const DRIVERS: [(&[u8], Bus); 7] = [
    (b"/ata_piix", Bus::Ide),
    (b"/sym53c8xx", Bus::Scsi),
    (b"/virtio-pci", Bus::Virtio),
    (b"/ahci", Bus::Sata),
    (b"/nvme", Bus::Nvme),
    (b"/ehci-pci", Bus::Usb),
    (b"/xhci_hcd", Bus::Usb),
];

/// Where a disk may keep its serial number, virtio and NVMe or SCSI: in its folder or in the one of its device, two
/// above it. What is given may be a partition.
const SERIALS: [&CStr; 2] = [c"../../../serial", c"../../../vpd_pg80"];

/// The way up in these, and one that is as long as any from a disk to its controller.
const WAY_UP: usize = 9;
const ABOVE: &CStr = c"../../../../../../../../../../../../../../../../../../../../../../../../.";

/// What a walk works with. It is static: on the stack it would take a page.
pub struct Disks {
    /// The link to the folder of the device that is visited, and its length.
    link: [u8; LINK],
    length: usize,
    path: [u8; 64],
    /// The serial numbers of the disks that were asked last.
    serials: [Serial; 8],
}

/// What a disk told.
#[derive(Clone, Copy)]
struct Serial {
    /// The inode of its folder in sysfs.
    id: u64,
    length: usize,
    text: [u8; 48],
}

impl Serial {
    /// No disk has the number 0.
    const NONE: Self = Serial { id: 0, length: 0, text: [0; 48] };
}

impl Disks {
    /// Nothing is known yet.
    pub const NONE: Self = Disks { link: [0; LINK], length: 0, path: [0; 64], serials: [Serial::NONE; 8] };

    /// `../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1`
    fn link(&self) -> &[u8] {
        self.link.get(..self.length).unwrap_or_default()
    }

    /// The kernel's name of the device that was entered: empty if there is none.
    pub fn name(&self) -> &[u8] {
        cut_last(&mut self.link(), b'/')
    }
}

/// A walk over file systems and their disks. A device is called by its number, `major:minor`.
pub struct Search<'s> {
    /// For what udev knows of a disk.
    pub space: &'s mut [u8],
    /// What it works with.
    pub disks: &'s mut Disks,
    /// Where the steps go.
    pub each: &'s mut dyn FnMut(Step<'_>),
}

impl Search<'_> {
    /// Goes to a device: its folder, if there is one.
    #[inline(never)]
    pub fn enter(&mut self, device: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = sys::join(&mut self.disks.path, &[b"/sys/dev/block/", device]);
        self.disks.length = sys::read_link(CWD, path, &mut self.disks.link).len();
        sys::open(CWD, path, OFlags::PATH)
    }

    /// Visits the disks that the device which was entered lies on.
    #[inline(never)]
    pub fn visit(&mut self, folder: &OwnedFd, device: &[u8], depth: u8) {
        if self.disks.link().starts_with(b"../../devices/virtual/block/") {
            if depth > 0 {
                sys::list(folder.as_fd(), c"slaves", &mut |slaves, name| self.slave(slaves, name, depth));
            }
            return;
        }
        let mut disk = DiskAddress::UNKNOWN;
        place(folder, self.disks.link(), &mut disk);
        let path = sys::join(&mut self.disks.path, &[b"/run/udev/data/b", device]);
        let mut known = sys::read_at(CWD, path, self.space);
        while disk.serial.is_empty() && !known.is_empty() {
            disk.serial = cut(&mut known, b'\n').strip_prefix(b"E:ID_SERIAL=").unwrap_or_default();
        }
        if disk.serial.is_empty() {
            disk.serial = told(folder, &mut self.disks.serials);
        }
        let mut link = self.disks.link.get(..self.disks.length).unwrap_or_default();
        disk.device = sys::join(&mut self.disks.path, &[b"/dev/", cut_last(&mut link, b'/')]).to_bytes();
        (self.each)(Step::Disk(&disk));
    }

    /// The same for a device under another, by the link to it in that folder.
    fn slave(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: u8) {
        let mut number = [0; 24];
        let file = sys::join(&mut self.disks.path, &[name.to_bytes(), b"/dev"]);
        let device = cut(&mut sys::read_at(folder, file, &mut number), b'\n');
        if let Ok(folder) = self.enter(device) {
            self.visit(&folder, device, depth.wrapping_sub(1));
        }
    }
}

/// The serial number as the disk itself tells it, once: that takes longer than all else.
#[inline(never)]
fn told<'s>(folder: &OwnedFd, serials: &'s mut [Serial; 8]) -> &'s [u8] {
    // No other folder of sysfs ever gets this number.
    let id = fstat(folder).map_or(0, |found| found.st_ino);
    let Some(serial) = serials.get_mut(usize::try_from(id & 7).unwrap_or(0)) else {
        return b"";
    };
    if serial.id != id {
        (serial.id, serial.length) = (id, 0);
        for above in 0..=WAY_UP / 3 {
            for name in SERIALS {
                if serial.length == 0 {
                    let name = sys::tail(name, WAY_UP.wrapping_sub(above.wrapping_mul(3)));
                    serial.length = sys::read_at(folder.as_fd(), name, &mut serial.text).len();
                }
            }
        }
    }
    let text = match serial.text.get(..serial.length).unwrap_or_default() {
        // As a SCSI disk itself says it: behind a header (SCSI Primary Commands, page 80h).
        [_, 0x80, _, _, page @ ..] => page,
        text => text,
    };
    text.trim_ascii()
}

/// Where the disk with this link is plugged in, as far as that can be told.
#[inline(never)]
fn place(folder: &OwnedFd, mut link: &[u8], disk: &mut DiskAddress<'_>) {
    let (mut port, mut scsi, mut is_scsi) = (&b""[..], [0; 4], false);
    let mut above = ABOVE.to_bytes().len().wrapping_sub(1);
    // From the disk up to its controller, behind which there are only bridges.
    while !link.is_empty() {
        let name = cut_last(&mut link, b'/');
        is_scsi |= numbers(name, b':', 10, &mut scsi);
        if name.starts_with(b"virtio") {
            // There may be no PCI, as on microvm and Firecracker.
            disk.kind = Bus::Virtio;
        } else if name.starts_with(b"ata") || name.starts_with(b"host") {
            port = name;
        } else if numbers(name, b'.', 16, &mut disk.pci) {
            break;
        }
        above = above.wrapping_sub(3);
    }
    let [_, channel, target, unit] = scsi;
    if link.is_empty() {
        if disk.kind == Bus::Virtio {
            disk.place = [channel, target, unit];
        }
    } else if let Ok(controller) = sys::open(folder.as_fd(), sys::tail(ABOVE, above), OFlags::PATH) {
        disk.kind = bus(&controller);
        let lower = if matches!(disk.kind, Bus::Ide | Bus::Sata) { lower(&controller, port) } else { 0 };
        let [first, _, last] = &mut disk.place;
        match disk.kind {
            Bus::Ide => (*first, *last) = (lower, target),
            Bus::Sata => *last = lower,
            Bus::Scsi => *last = target,
            Bus::Virtio => *last = unit,
            Bus::Unknown => disk.pci = [DiskAddress::NONE; 4],
            _ => {}
        }
    }
    if disk.kind == Bus::Virtio && is_scsi {
        disk.kind = Bus::Scsi;
    }
}

/// What a controller is for, by its driver.
#[inline(never)]
fn bus(controller: &OwnedFd) -> Bus {
    let mut driver = [0; 128];
    let driver = sys::read_link(controller.as_fd(), c"driver", &mut driver);
    DRIVERS.iter().find(|(name, _)| driver.ends_with(name)).map_or(Bus::Unknown, |(_, bus)| *bus)
}

/// How many in this folder are of the same kind as a port (`ata3`, `host0`) and have a lower number.
fn lower(folder: &OwnedFd, port: &[u8]) -> u64 {
    let mut lower = 0_u64;
    sys::list(folder.as_fd(), c".", &mut |_, name| {
        let name = name.to_bytes();
        // Numbers without zeros in front are as long as they are large.
        let is_lower = name.first_chunk::<3>() == port.first_chunk() && (name.len(), name) < (port.len(), port);
        lower = lower.wrapping_add(is_lower.into());
    });
    lower
}

/// Finds four numbers, the last one behind this byte: `0000:00:1f.2`, `2:0:0:5`. If they are not, they stay what they
/// were.
#[inline(never)]
fn numbers(text: &[u8], last: u8, base: u32, numbers: &mut [u64; 4]) -> bool {
    let (mut all, mut at, mut is_empty) = ([0_u64; 4], 0_usize, true);
    for byte in text {
        if let Some(digit) = char::from(*byte).to_digit(base)
            && let Some(number) = all.get_mut(at)
        {
            *number = number.wrapping_mul(base.into()).wrapping_add(digit.into());
            is_empty = false;
        } else if is_empty || *byte != if at == 2 { last } else { b':' } {
            return false;
        } else {
            at = at.wrapping_add(1);
            is_empty = true;
        }
    }
    let are_four = at == 3 && !is_empty;
    if are_four {
        *numbers = all;
    }
    are_four
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
    use crate::testing::set_root;

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
            set_root(self.0.to_str().unwrap());
            let mut all = Vec::new();
            let each = &mut |step: Step<'_>| {
                let Step::Disk(disk) = step else { panic!("{step:?}") };
                let [a, b, c, d] = disk.pci;
                let pci = if disk.pci == [DiskAddress::NONE; 4] {
                    "-".into()
                } else {
                    format!("{a:04x}:{b:02x}:{c:02x}.{d}")
                };
                let [serial, device] = [disk.serial, disk.device].map(|text| str::from_utf8(text).unwrap());
                let (kind, [bus, target, unit]) = (format!("{:?}", disk.kind), disk.place);
                all.push(format!("{pci} {kind} {bus} {target} {unit} '{serial}' {device}"));
            };
            let (space, disks) = (&mut [0; 4096], &mut { Disks::NONE });
            let mut search = Search { space, disks, each };
            if let Ok(folder) = search.enter(number.as_bytes()) {
                search.visit(&folder, number.as_bytes(), DEPTH);
            }
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
        tree.driver("pci0000:00/0000:00:09.0", "exotic").device("8:0", "pci0000:00/0000:00:09.0/host0/block/sda");
        assert_eq!(tree.disks("8:0"), ["- Unknown 0 0 0 '' /dev/sda"]);
    }

    #[test]
    fn nvme_and_usb_disks_are_known_by_their_controller() {
        let tree = Tree::new("nvme");
        tree.driver("pci0000:00/0000:00:02.0", "nvme").driver("pci0000:00/0000:00:03.0", "xhci_hcd");
        let nvme = "pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1/nvme0n1p2";
        tree.device("259:2", nvme).file("sys/devices/pci0000:00/0000:00:02.0/nvme/nvme0/serial", "S1\n");
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
        tree.file("sys/devices/platform/x/virtio2/host1/target1:0:0/1:0:0:0/vpd_pg80", b"\0\x80\0\x06  AB C");
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
        assert_eq!(tree.disks("1:2"), [""; 0]);
        assert_eq!(tree.disks(&"1".repeat(1000)), [""; 0]);
    }
}
