//! libvirt as the host: virsh does what it says through the agent, and the guest shows it. The guest has no helper
//! program but busybox.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nanoga_tests::guest::Shell;
use nanoga_tests::libvirt::Libvirt;
use nanoga_tests::qemu::make_disk;
use nanoga_tests::{mkfs, wait_for};
use serde_json::json;
use tempfile::TempDir;

#[test]
fn domifaddr_and_qemu_agent_command_tell_what_the_guest_has() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    guest.sh("ip link set eth0 up; ip addr add 192.0.2.7/24 dev eth0").unwrap();
    let addresses = libvirt.on_domain("domifaddr", &["--source", "agent"]).unwrap();
    let line = addresses.lines().find(|line| line.contains("192.0.2.7")).unwrap_or_else(|| panic!("{addresses}"));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["eth0", "52:54:00:12:34:56", "ipv4", "192.0.2.7/24"]);

    assert_eq!(libvirt.agent_command(r#"{"execute":"guest-ping"}"#).unwrap(), json!({}));
    let error = libvirt.agent_command(r#"{"execute":"guest-none"}"#).unwrap_err();
    assert!(format!("{error:#}").contains("The command guest-none has not been found"), "{error:#}");
}

#[test]
fn guestinfo_domhostname_and_domfsinfo_tell_what_the_guest_is() {
    let dir = TempDir::new().unwrap();
    let (libvirt, mut guest) = Libvirt::with_agent(&[&filesystem(dir.path())]).unwrap();
    let setup = r#"(
        set -e
        hostname worker-7
        echo "NAME='Test OS'" >/etc/os-release
        echo 'ID=test' >>/etc/os-release
        ip link set eth0 up; ip addr add 192.0.2.7/24 dev eth0
        mkdir /data && mount -t ext4 /dev/vdb /data
    )"#;
    guest.sh(setup).unwrap();
    // A session of root, as login programs write it: a record of 384 bytes.
    let mut record = vec![0_u8; 384];
    record[0] = 7;
    record[8..12].copy_from_slice(b"tty1");
    record[44..48].copy_from_slice(b"root");
    record[340..344].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
    let octal: String = record.iter().map(|byte| format!("\\{byte:03o}")).collect();
    guest.sh(&format!("mkdir -p /var/run; printf '{octal}' >/var/run/utmp")).unwrap();

    assert_eq!(libvirt.on_domain("domhostname", &["--source", "agent"]).unwrap().trim(), "worker-7");

    let table = libvirt.on_domain("domfsinfo", &[]).unwrap();
    let row: Vec<&str> = table.lines().nth(2).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, ["/data", "vdb", "ext4", "vdb"], "{table}");

    let kinds = ["--os", "--hostname", "--filesystem", "--interface", "--timezone", "--user"];
    let info = libvirt.on_domain("guestinfo", &kinds).unwrap();
    let kernel = guest.sh("uname -r").unwrap();
    for line in [
        "os.id               : test",
        "os.name             : Test OS",
        &format!("os.kernel-release   : {}", kernel.trim()),
        "os.machine          : x86_64",
        "hostname            : worker-7",
        "fs.count            : 1",
        "fs.0.name           : vdb",
        "fs.0.mountpoint     : /data",
        "fs.0.fstype         : ext4",
        "fs.0.disk.count     : 1",
        "fs.0.disk.0.alias   : vdb",
        "if.1.name           : eth0",
        "if.1.hwaddr         : 52:54:00:12:34:56",
        "if.1.addr.0.addr    : 192.0.2.7",
        "if.1.addr.0.prefix  : 24",
        "timezone.name       : UTC",
        "timezone.offset     : 0",
        "user.count          : 1",
        "user.0.name         : root",
        "user.0.login-time   : 1700000000000",
    ] {
        assert!(info.lines().any(|have| have.trim() == line), "no {line:?} in {info}");
    }
}

#[test]
fn domfsfreeze_holds_writers_until_domfsthaw_and_domfstrim_gives_space_back() {
    let dir = TempDir::new().unwrap();
    let image = filesystem(dir.path());
    let (libvirt, mut guest) = Libvirt::with_agent(&[&image]).unwrap();
    guest.sh("mkdir /data && mount -t ext4 /dev/vdb /data").unwrap();

    for mountpoints in [&[][..], &["/data"]] {
        let freeze = libvirt.on_domain("domfsfreeze", mountpoints).unwrap();
        assert_eq!(freeze.trim(), "Froze 1 filesystem(s)");
        assert_eq!(libvirt.agent_command(r#"{"execute":"guest-fsfreeze-status"}"#).unwrap(), "frozen");
        guest.sh("(echo written >/data/file) </dev/null >/dev/null 2>&1 &").unwrap();
        guest.sh("sleep 1; ! grep written /data/file").unwrap();
        assert_eq!(libvirt.on_domain("domfsthaw", &[]).unwrap().trim(), "Thawed 1 filesystem(s)");
        guest.sh("until grep written /data/file; do sleep 0.1; done; rm /data/file").unwrap();
    }
    assert_eq!(libvirt.on_domain("domfsfreeze", &["/nowhere"]).unwrap().trim(), "Froze 0 filesystem(s)");
    assert_eq!(libvirt.agent_command(r#"{"execute":"guest-fsfreeze-status"}"#).unwrap(), "thawed");

    guest.sh("dd if=/dev/urandom of=/data/big bs=1M count=16 2>/dev/null; sync").unwrap();
    let used = fs::metadata(&image).unwrap().blocks();
    guest.sh("rm /data/big; sync").unwrap();
    libvirt.on_domain("domfstrim", &[]).unwrap();
    let left = fs::metadata(&image).unwrap().blocks();
    // Blocks of 512 bytes: nearly all of the 16 MiB.
    assert!(used - left > 30_000, "{used} blocks before, {left} after");
}

#[test]
fn domtime_reads_sets_and_synchronises_the_clock() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    let of_guest = |guest: &mut Shell| guest.sh("date +%s").unwrap().trim().parse::<i64>().unwrap();
    let told = libvirt.on_domain("domtime", &[]).unwrap();
    let told: i64 = told.trim().strip_prefix("Time: ").unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    assert!((of_guest(&mut guest) - told).abs() <= 3, "{told}");

    libvirt.on_domain("domtime", &["--time", "1500000000"]).unwrap();
    let now = of_guest(&mut guest);
    assert!((0..10).contains(&(now - 1_500_000_000)), "{now}");
    // The clock of the board, which survives a reboot, was set as well.
    let board = guest.sh("cat /sys/class/rtc/rtc0/since_epoch").unwrap();
    assert!((0..10).contains(&(board.trim().parse::<i64>().unwrap() - 1_500_000_000)), "{board}");

    // And the clock from the board's.
    guest.sh("date -s @1600000000").unwrap();
    libvirt.on_domain("domtime", &["--sync"]).unwrap();
    let now = of_guest(&mut guest);
    assert!((0..30).contains(&(now - 1_500_000_000)), "{now}");
}

#[test]
fn reboot_mode_agent_boots_the_guest_again() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    let before = guest.sh("cat /proc/sys/kernel/random/boot_id").unwrap();
    libvirt.on_domain("reboot", &["--mode", "agent"]).unwrap();
    guest.wait_ready().unwrap_or_else(|e| panic!("{e:#} {}", libvirt.logs()));
    assert_ne!(guest.sh("cat /proc/sys/kernel/random/boot_id").unwrap(), before);
    guest.start_agent("").unwrap();
    ping(&libvirt);
}

#[test]
fn shutdown_mode_agent_powers_the_guest_off() {
    let (libvirt, _guest) = Libvirt::with_agent(&[]).unwrap();
    libvirt.on_domain("shutdown", &["--mode", "agent"]).unwrap();
    libvirt.wait_state("shut off").unwrap();
}

#[test]
fn dompmsuspend_mem_and_hybrid_sleep_until_dompmwakeup() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    guest.sh("mkswap /dev/vda && swapon /dev/vda").unwrap();
    for mode in ["mem", "hybrid"] {
        libvirt.on_domain("dompmsuspend", &[mode]).unwrap();
        libvirt.wait_state("pmsuspended").unwrap();
        libvirt.on_domain("dompmwakeup", &[]).unwrap();
        libvirt.wait_state("running").unwrap();
        ping(&libvirt);
    }
    let console = guest.sh("dmesg").unwrap();
    assert_eq!(console.matches("PM: suspend exit").count(), 1, "{console}");
    assert_eq!(console.matches("PM: hibernation: hibernation exit").count(), 1, "{console}");
}

#[test]
fn after_dompmsuspend_disk_the_domain_starts_where_it_was() {
    let (libvirt, mut guest) = Libvirt::with_agent(&[]).unwrap();
    guest.sh("mkswap /dev/vda && swapon /dev/vda && echo here >/tmp/mark").unwrap();
    let pid = guest.sh("pidof nanoga").unwrap();
    libvirt.on_domain("dompmsuspend", &["disk"]).unwrap();
    libvirt.wait_state("shut off").unwrap();

    // It does not say that it is ready: it was.
    let mut guest = libvirt.start().unwrap();
    libvirt.wait_agent(true).unwrap();
    ping(&libvirt);
    assert_eq!(guest.sh("pidof nanoga; cat /tmp/mark").unwrap(), format!("{pid}here\n"));
}

/// An image with a file system for `vdb`.
fn filesystem(dir: &Path) -> PathBuf {
    let image = dir.join("data");
    make_disk(&image, 64 << 20).unwrap();
    mkfs("ext4", &["-q"], &image).unwrap();
    image
}

/// Just after a wakeup the port is closed for a moment, and libvirt says so.
fn ping(libvirt: &Libvirt) {
    let answer = wait_for("the agent to answer virsh", Duration::from_secs(60), || {
        Ok(libvirt.agent_command(r#"{"execute":"guest-ping"}"#).ok())
    });
    assert_eq!(answer.unwrap_or_else(|e| panic!("{e:#} {}", libvirt.logs())), json!({}));
}
