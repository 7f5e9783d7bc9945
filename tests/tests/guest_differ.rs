//! The agent beside QEMU's own in a guest: what changes it, and file systems on every kind of disk. QEMU's runs there
//! with its libraries.

use std::path::Path;

use nanoga_tests::guest::Guest;
use nanoga_tests::paths;
use nanoga_tests::qemu::{Board, Bus, Disk, Machine, make_disk};
use nanoga_tests::reference::Pair;
use nanoga_tests::{find_program, mkfs};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Drivers of disks and file systems that few guests have.
const DRIVERS: &[&str] = &[
    "crc32c_generic",
    "ext4",
    "xfs",
    "btrfs",
    "dm_mod",
    "md_mod",
    "raid1",
    "loop",
    "sd_mod",
    "virtio_scsi",
    "ata_piix",
    "ahci",
    "nvme",
    "xhci_pci",
    "usb_storage",
];

/// Where the partition begins on the disk that has one.
const PARTITION: u64 = 1 << 20;

#[test]
fn every_file_system_is_told_as_the_reference_tells_it() {
    let dir = TempDir::new().unwrap();
    let mut machine = Machine::new(Board::Pc);
    machine.second_port = true;
    machine.extras.generic_kernel = true;
    machine.extras.modules = DRIVERS.to_vec();
    machine.extras.programs = vec![paths::reference_agent().unwrap(), find_program("dmsetup").unwrap()];
    machine.disks = disks(dir.path());
    let mut guest = Guest::boot(&machine).unwrap();
    mount_all(&mut guest);
    let mut pair = both(&mut guest);
    let told = pair.ask(&json!({ "execute": "guest-get-fsinfo" })).unwrap();
    let mounted: Vec<&str> =
        told["return"].as_array().unwrap().iter().map(|f| f["mountpoint"].as_str().unwrap()).collect();
    let expected = ["loop device", "nested", "mirror", "virtio", "nvme", "lun", "scsi", "sata", "ide"];
    assert_eq!(mounted, expected.map(|name| format!("/mnt/{name}")));
    // Without udev the reference knows no serial number.
    let serials: Vec<&Value> = told["return"].as_array().unwrap().iter().map(|f| &f["disk"][0]["serial"]).collect();
    assert_eq!(serials[3..], ["virtio", "nvme", "lun", "scsi", "sata", "ide"]);

    let udev = "mkdir -p /run/udev/data; disk=$(findfs LABEL=scsi); number=$(cat /sys/block/${disk#/dev/}/dev)
                printf 'I:1\nE:ID_MODEL=disk\nE:ID_SERIAL=from udev\nE:ID_BUS=scsi\n' >/run/udev/data/b$number";
    guest.sh(udev).unwrap();
    let told = pair.ask(&json!({ "execute": "guest-get-fsinfo" })).unwrap();
    assert_eq!(told["return"][6]["disk"][0]["serial"], "from udev", "{told}");

    freeze_and_thaw(&mut pair);
    // The reference trims what is mounted twice as if it were two.
    guest.sh("umount /mnt/bound").unwrap();
    trim(&mut pair);
    pair.agree();

    // The reference cannot tell what this is.
    mount(&mut guest, "usb", "ext4");
    let mut ours = guest.host("qga0").unwrap();
    let usb = &ours.ask("guest-get-fsinfo").unwrap()[0]["disk"][0];
    assert_eq!(usb["bus-type"], "usb");
    assert!(usb["pci-controller"]["slot"].as_i64().unwrap() > 0, "{usb}");
}

/// Nothing of it happens where there is something wrong with it; where a board could not keep the time, nanoga does
/// without, and so is not asked for it here.
#[test]
fn what_changes_the_guest_is_refused_and_done_alike() {
    let mut machine = Machine::new(Board::Pc);
    machine.second_port = true;
    machine.extras.programs = vec![paths::reference_agent().unwrap()];
    let mut guest = Guest::boot(&machine).unwrap();
    let mut pair = both(&mut guest);
    let wrong = [json!("1"), json!(1.5), json!(null), json!(true), json!([])];
    for value in wrong {
        for (command, argument) in [
            ("guest-set-time", "time"),
            ("guest-set-time", "other"),
            ("guest-shutdown", "mode"),
            ("guest-shutdown", "other"),
            ("guest-fstrim", "minimum"),
            ("guest-fstrim", "other"),
            ("guest-fsfreeze-freeze", "other"),
            ("guest-fsfreeze-freeze-list", "mountpoints"),
            ("guest-fsfreeze-freeze-list", "other"),
            ("guest-fsfreeze-thaw", "other"),
            ("guest-suspend-ram", "other"),
        ] {
            // A word is right there, or wrong in another way.
            if value == "1" && command == "guest-shutdown" && argument == "mode" {
                continue;
            }
            pair.ask(&json!({ "execute": command, "arguments": { argument: value } })).unwrap();
        }
    }
    for mode in ["", "off", "Halt", "powerdown "] {
        pair.ask(&json!({ "execute": "guest-shutdown", "arguments": { "mode": mode } })).unwrap();
    }
    pair.ask(&json!({ "execute": "guest-fsfreeze-freeze-list", "arguments": { "mountpoints": ["/", 1] } })).unwrap();
    for list in [json!({}), json!({ "mountpoints": [] })] {
        pair.ask(&json!({ "execute": "guest-fsfreeze-freeze-list", "arguments": list })).unwrap();
    }
    for command in ["guest-fsfreeze-freeze", "guest-fsfreeze-status", "guest-fsfreeze-thaw", "guest-fstrim"] {
        pair.ask(&json!({ "execute": command })).unwrap();
    }
    for time in [
        1_500_000_000_123_456_789_i64,
        0,
        -2_000_000_000,
        3_155_760_000_000_000_000,
        i64::MAX,
        1_600_000_000_000_000_000,
    ] {
        pair.ask(&json!({ "execute": "guest-set-time", "arguments": { "time": time } })).unwrap();
        pair.ask(&json!({ "execute": "guest-get-time" })).unwrap();
    }
    guest.sh("date -s @1700000000 >/dev/null").unwrap();
    pair.ask(&json!({ "execute": "guest-set-time" })).unwrap();
    pair.ask(&json!({ "execute": "guest-get-time" })).unwrap();
    pair.agree();
}

/// Starts both agents, each on a port of its own.
fn both(guest: &mut Guest) -> Pair {
    guest.start_agent("").unwrap();
    guest.sh("qemu-ga -m virtio-serial -p /dev/${port%p1}p2 -t /run </dev/null >/tmp/qemu-ga.log 2>&1 &").unwrap();
    let ours = guest.host("qga0").unwrap();
    Pair::of_clients(guest.host("qga1").unwrap(), ours)
}

/// Each freezes what it is told to, and then everything, and thaws it: the other one finds no trace of it.
fn freeze_and_thaw(pair: &mut Pair) {
    let lists = [json!([]), json!(["/mnt/ide", "/mnt/sata"]), json!(["/nowhere"]), json!(["/mnt/tmpfs"])];
    for list in lists {
        let request = json!({ "execute": "guest-fsfreeze-freeze-list", "arguments": { "mountpoints": list } });
        pair.ask_in_turns(&[request, json!({ "execute": "guest-fsfreeze-thaw" })]).unwrap();
    }
    let asked = ["freeze", "status", "freeze", "thaw", "status", "thaw"];
    pair.ask_in_turns(&asked.map(|what| json!({ "execute": format!("guest-fsfreeze-{what}") }))).unwrap();
}

/// The second to do it has less to do.
fn trim(pair: &mut Pair) {
    for arguments in [json!({}), json!({ "minimum": 0 }), json!({ "minimum": 65_536 })] {
        pair.ask(&json!({ "execute": "guest-fstrim", "arguments": arguments })).unwrap();
    }
}

fn disks(dir: &Path) -> Vec<Disk> {
    let disk = |bus, label: &'static str, megabytes: u64| {
        let image = dir.join(label);
        make_disk(&image, megabytes << 20).unwrap();
        Disk { bus, image, serial: label }
    };
    let disks = vec![
        disk(Bus::Ide, "ide", 32),
        disk(Bus::Sata, "sata", 320),
        disk(Bus::VirtioScsi, "scsi", 128),
        disk(Bus::VirtioScsi, "lun", 32),
        disk(Bus::Nvme, "nvme", 32),
        disk(Bus::Usb, "usb", 32),
        disk(Bus::VirtioBlk, "virtio", 32),
        disk(Bus::VirtioBlk, "half", 32),
        disk(Bus::VirtioBlk, "other", 32),
        disk(Bus::VirtioBlk, "left", 32),
        disk(Bus::VirtioBlk, "right", 32),
    ];
    for disk in &disks {
        let (label, image) = (disk.serial, &disk.image);
        match label {
            "sata" => mkfs("xfs", &["-q", "-L", label], image).unwrap(),
            "scsi" => mkfs("btrfs", &["-q", "-L", label], image).unwrap(),
            // Parts of what the guest makes of them.
            "half" | "other" | "left" | "right" => {}
            "lun" | "nvme" | "usb" => {
                let offset = format!("offset={PARTITION}");
                mkfs("ext4", &["-q", "-L", label, "-E", &offset], image).unwrap();
                partition(image, (32 << 20) - PARTITION);
            }
            _ => mkfs("ext4", &["-q", "-L", label], image).unwrap(),
        }
    }
    disks
}

/// Writes a partition table with one partition.
fn partition(image: &Path, bytes: u64) {
    use std::os::unix::fs::FileExt;
    let sectors = |bytes: u64| u32::to_le_bytes((bytes / 512) as u32);
    let mut entry = vec![0, 0, 0, 0, 0x83, 0, 0, 0];
    entry.extend(sectors(PARTITION));
    entry.extend(sectors(bytes));
    let file = std::fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&entry, 446).unwrap();
    file.write_all_at(&[0x55, 0xAA], 510).unwrap();
}

fn mount(guest: &mut Guest, label: &str, kind: &str) {
    let find = format!("until disk=$(findfs LABEL={label}); do sleep 0.1; done");
    guest.sh(&format!("mkdir -p /mnt/{label}; {find}; mount -t {kind} $disk /mnt/{label}")).unwrap();
}

/// Each disk at `/mnt/ITS SERIAL`; and what is on no disk of its own, or on several.
fn mount_all(guest: &mut Guest) {
    let kinds =
        [("ide", "ext4"), ("sata", "xfs"), ("scsi", "btrfs"), ("lun", "ext4"), ("nvme", "ext4"), ("virtio", "ext4")];
    for (label, kind) in kinds {
        mount(guest, label, kind);
    }
    let more = r#"(
        set -e
        serial() { grep -lx "$1" /sys/block/*/serial | cut -d/ -f4; }
        half=$(serial half) other=$(serial other) mapped="dmsetup create --noudevsync"
        printf '0 40000 linear /dev/%s 0\n40000 40000 linear /dev/%s 100\n' $half $other | $mapped both
        echo '0 60000 linear /dev/dm-0 1000' | $mapped nested
        mke2fs /dev/dm-1 >/dev/null
        echo md0 >/sys/module/md_mod/parameters/new_array
        cd /sys/block/md0/md
        echo raid1 >level; echo 2 >raid_disks; echo 30000 >component_size
        for disk in left right; do cat /sys/block/$(serial $disk)/dev >new_dev; done
        echo 0 >dev-$(serial left)/slot; echo 1 >dev-$(serial right)/slot
        echo active >array_state
        cd /
        mke2fs /dev/md0 >/dev/null
        mkdir /mnt/mirror
        mount -t ext4 /dev/md0 /mnt/mirror
        mkdir /mnt/nested /mnt/loop\ device /mnt/tmpfs /mnt/nvme/dir /mnt/bound
        mount -t ext4 /dev/dm-1 /mnt/nested
        dd if=/dev/zero of=/mnt/ide/image bs=1M count=4 2>/dev/null
        mke2fs -F /mnt/ide/image >/dev/null
        mount -t ext4 -o loop /mnt/ide/image '/mnt/loop device'
        mount -t tmpfs tmpfs /mnt/tmpfs
        mount --bind /mnt/nvme/dir /mnt/bound
        sync
    )"#;
    guest.sh(more).unwrap();
}
