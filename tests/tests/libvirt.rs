//! libvirt as the host: virsh does what it says through the agent, and the guest shows it. The guest has no helper
//! program but busybox.

use std::time::Duration;

use nanoga_tests::libvirt::Libvirt;
use nanoga_tests::wait_for;
use serde_json::json;

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

/// Just after a wakeup the port is closed for a moment, and libvirt says so.
fn ping(libvirt: &Libvirt) {
    let answer = wait_for("the agent to answer virsh", Duration::from_secs(60), || {
        Ok(libvirt.agent_command(r#"{"execute":"guest-ping"}"#).ok())
    });
    assert_eq!(answer.unwrap_or_else(|e| panic!("{e:#} {}", libvirt.logs())), json!({}));
}
