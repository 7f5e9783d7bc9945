//! Where a disk is plugged in, from its folder in sysfs (kernel documentation, admin-guide/sysfs-rules) and what udev
//! keeps of it.
//!
//! A device that is made of others (device-mapper, md) has the addresses of those. It knows no file system.

use core::ffi::CStr;

use agent_core::guest::{Bus, DiskAddress, Step};
use rustix::fs::{AtFlags, CWD, readlinkat_raw, statat};

use crate::sys;
use crate::text::cut;

/// Bytes of the path of a folder in sysfs: one of a disk behind several bridges and hubs has about 200.
pub const LINK: usize = 512;

/// Bytes of a path that begins with one of those.
const PATH: usize = LINK + 128;

/// Devices on devices, at most. The kernel's own limit is lower.
const DEPTH: u8 = 8;

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

/// Where a disk or a partition of it may keep its serial number: virtio, NVMe, SCSI.
const SERIALS: [&[u8]; 6] =
    [b"/serial", b"/../serial", b"/device/serial", b"/../device/serial", b"/device/vpd_pg80", b"/../device/vpd_pg80"];

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

/// A walk over file systems and their disks. A device is called by its number, `major:minor`.
pub struct Search<'s> {
    /// A path that ends in `/`: where `sys` and `run` are.
    pub root: &'s &'s [u8],
    /// For what udev knows of a disk.
    pub space: &'s mut [u8],
    /// What disks have told.
    pub serials: &'s mut Serials,
    /// Devices on devices, so far.
    pub depth: u8,
    /// Where the steps go.
    pub each: &'s mut dyn FnMut(&Step<'_>),
}

impl Search<'_> {
    /// Visits the disks that a device with this link lies on.
    #[inline(never)]
    pub fn disks(&mut self, device: &[u8], link: &[u8]) {
        let space = &mut [0; PATH];
        if link.starts_with(b"../../devices/virtual/block/") {
            let slaves = path(self.root, device, b"/slaves/", space);
            sys::list(CWD, slaves, &mut |_, name| self.slave(slaves, name));
            return;
        }
        let mut disk = DiskAddress::UNKNOWN;
        place(self.root, link, &mut disk);
        let mut node = [0; 64];
        disk.device = sys::join(&mut node, &[b"/dev/", base_name(link)]).to_bytes();
        let mut known = text(sys::join(space, &[self.root, b"run/udev/data/b", device]), self.space);
        while disk.serial.is_empty() && !known.is_empty() {
            disk.serial = cut(&mut known, b'\n').strip_prefix(b"E:ID_SERIAL=").unwrap_or_default();
        }
        if disk.serial.is_empty() {
            disk.serial = told(self.root, device, space, self.serials);
        }
        (self.each)(&Step::Disk(disk));
    }

    /// The same for a device under another, by the link to it in that folder.
    #[inline(never)]
    fn slave(&mut self, folder: &CStr, name: &CStr) {
        let (mut number, mut space) = ([0; 24], [0; LINK]);
        let device = text(sys::join(&mut space, &[folder.to_bytes(), name.to_bytes(), b"/dev"]), &mut number);
        if let Some(link) = link(self.root, device, &mut space)
            && self.depth < DEPTH
        {
            self.depth = self.depth.wrapping_add(1);
            self.disks(device, link);
            self.depth = self.depth.wrapping_sub(1);
        }
    }
}

/// Where the folder of a device is, seen from `/sys/dev/block`:
/// `../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1`.
pub fn link<'l>(root: &&[u8], device: &[u8], link: &'l mut [u8; LINK]) -> Option<&'l [u8]> {
    read_link(root, device, b"", link)
}

/// The last name in a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The serial number as the disk itself tells it, once: that takes longer than all else.
#[inline(never)]
fn told<'s>(root: &&[u8], device: &[u8], space: &mut [u8; PATH], serials: &'s mut Serials) -> &'s [u8] {
    // No other folder of sysfs ever gets this number.
    let id = statat(CWD, path(root, device, b"", space), AtFlags::empty()).map_or(0, |found| found.st_ino);
    let Some(serial) = serials.get_mut(usize::try_from(id & 7).unwrap_or(0)) else {
        return b"";
    };
    if serial.id != id {
        *serial = Serial { id, ..Serial::NONE };
        for place in SERIALS {
            if serial.length == 0 {
                serial.length = text(path(root, device, place, space), &mut serial.text).len();
            }
        }
    }
    match serial.text.get(..serial.length).unwrap_or_default().trim_ascii() {
        // As a SCSI disk itself says it: behind a header (SCSI Primary Commands, page 80h).
        [_, 0x80, _, _, page @ ..] => page.trim_ascii(),
        text => text,
    }
}

/// Where the disk with this link is plugged in, as far as that can be told.
#[inline(never)]
fn place(root: &&[u8], link: &[u8], disk: &mut DiskAddress<'_>) {
    let (mut controller, mut port, mut scsi, mut is_scsi) = (&b""[..], &b""[..], [0; 4], false);
    let mut rest = link;
    while !rest.is_empty() {
        let name = cut(&mut rest, b'/');
        let here = link.get(..link.len().wrapping_sub(rest.len())).unwrap_or_default();
        if numbers(name, b'.', 16, &mut disk.pci) {
            // The last one is the controller, those before are bridges.
            controller = here;
        } else if name.starts_with(b"virtio") {
            // There may be no PCI, as on microvm and Firecracker.
            disk.kind = Bus::Virtio;
        } else if name.starts_with(b"ata") || name.starts_with(b"host") && port.is_empty() {
            port = here;
        } else if numbers(name, b':', 10, &mut scsi) {
            is_scsi = true;
        }
    }
    let [_, channel, target, unit] = scsi;
    if !controller.is_empty() {
        disk.kind = bus(root, controller);
        disk.place = [0; 3];
        let [bus, _, last] = &mut disk.place;
        match disk.kind {
            Bus::Ide => (*bus, *last) = (index(root, port), target),
            Bus::Sata => *last = index(root, port),
            Bus::Scsi => *last = target,
            Bus::Virtio => *last = unit,
            Bus::Unknown => disk.pci = [-1; 4],
            _ => {}
        }
    } else if disk.kind == Bus::Virtio {
        disk.place = [channel, target, unit];
    }
    if disk.kind == Bus::Virtio && is_scsi {
        disk.kind = Bus::Scsi;
    }
}

/// What the controller in this folder is for, by its driver.
#[inline(never)]
fn bus(root: &&[u8], controller: &[u8]) -> Bus {
    let mut driver = [0; LINK];
    let driver = read_link(root, controller, b"driver", &mut driver).unwrap_or_default();
    DRIVERS.iter().find(|(name, _)| driver.ends_with(name)).map_or(Bus::Unknown, |(_, bus)| *bus)
}

/// How many beside this folder are of the same kind (`ata3`, `host0`) and have a lower number.
#[inline(never)]
fn index(root: &&[u8], folder: &[u8]) -> i32 {
    let name = base_name(folder.strip_suffix(b"/").unwrap_or_default());
    let letters = name.iter().position(u8::is_ascii_digit).unwrap_or(name.len());
    let (kind, own) = name.split_at_checked(letters).unwrap_or_default();
    let own = number(own, 10);
    let mut lower = 0_i32;
    sys::list(CWD, path(root, folder, b"..", &mut [0; PATH]), &mut |_, name| {
        let other = name.to_bytes().strip_prefix(kind).and_then(|other| number(other, 10));
        lower = lower.wrapping_add(i32::from(other.is_some() && other < own));
    });
    lower
}

/// The path of something in a folder, which is the number of a device or the front of its link.
#[inline(never)]
fn path<'p>(root: &&[u8], folder: &[u8], name: &[u8], space: &'p mut [u8; PATH]) -> &'p CStr {
    sys::join(space, &[root, b"sys/dev/block/", folder, name])
}

/// Where a link leads; nothing if it is none.
#[inline(never)]
fn read_link<'l>(root: &&[u8], folder: &[u8], name: &[u8], link: &'l mut [u8; LINK]) -> Option<&'l [u8]> {
    let length = readlinkat_raw(CWD, path(root, folder, name, &mut [0; PATH]), &mut link[..]).ok()?;
    link.get(..length)
}

/// Finds four numbers, the last one behind this byte: `0000:00:1f.2`, `2:0:0:5`. If they are not, they stay what they
/// were.
#[inline(never)]
fn numbers(mut text: &[u8], last: u8, base: u32, numbers: &mut [i32; 4]) -> bool {
    let mut all = [0; 4];
    for (place, behind) in all.iter_mut().zip([b':', b':', last, b'/']) {
        match number(cut(&mut text, behind), base) {
            Some(number) => *place = number,
            None => return false,
        }
    }
    *numbers = all;
    true
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

/// The text at the front of a file, without blanks behind it; empty if it cannot be read.
#[inline(never)]
fn text<'b>(path: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    let length = sys::read_file(path, buffer);
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
            let root = format!("{}/", self.0.display());
            let root = &root.as_bytes();
            let mut all = Vec::new();
            let each = &mut |step: &Step<'_>| {
                let Step::Disk(disk) = step else { panic!("{step:?}") };
                let [a, b, c, d] = disk.pci;
                let pci = if disk.pci == [-1; 4] { "-".into() } else { format!("{a:04x}:{b:02x}:{c:02x}.{d}") };
                let [serial, device] = [disk.serial, disk.device].map(|text| str::from_utf8(text).unwrap());
                let (kind, [bus, target, unit]) = (format!("{:?}", disk.kind), disk.place);
                all.push(format!("{pci} {kind} {bus} {target} {unit} '{serial}' {device}"));
            };
            let (space, serials) = (&mut [0; 4096], &mut [Serial::NONE; 8]);
            if let Some(link) = link(root, number.as_bytes(), &mut [0; LINK]) {
                Search { root, space, serials, depth: 0, each }.disks(number.as_bytes(), link);
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
        assert_eq!(tree.disks("1:2"), [""; 0]);
        assert_eq!(tree.disks(&"1".repeat(1000)), [""; 0]);
    }
}
