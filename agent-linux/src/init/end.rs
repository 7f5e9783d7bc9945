//! The end of the machine: every process, every file system, and the call that ends what runs the guest.

#![allow(unsafe_code, reason = "a forked process; descriptors that nobody uses any more")]

use agent_core::guest::ShutdownMode;
use agent_core::packed;
use linux_raw_sys::general::{
    self as kernel, LINUX_REBOOT_CMD_HALT, LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART, MS_RDONLY, MS_REMOUNT,
};
use rustix::fs::{CWD, OFlags, sync};
use rustix::io::Errno;

use super::calls::{self, Children};
use super::text::write_file;
use super::{COMMAND_LINE_BYTES, command_line};
use crate::guest::mounts::{self, Order};
use crate::log::{failed, say};
use crate::sys;

/// How long killed processes may take to be gone.
const KILLED_MS: u64 = 2_000;

/// How long file systems may take. What hangs longer would hang for ever: a server that is gone, a frozen disk.
const SYNC_MS: u64 = 30_000;

/// Ends the machine. Programs have so many seconds to end by themselves.
pub(super) fn end(how: ShutdownMode, grace_s: u64) -> ! {
    say(packed!("the guest ends"), &[]);
    // SAFETY: this function never returns, and uses none of them.
    unsafe { sys::close_range(3, u32::MAX) };
    sys::kill(sys::ANY, kernel::SIGTERM);
    // What is stopped would not notice.
    sys::kill(sys::ANY, kernel::SIGCONT);
    wait_for_all(grace_s.wrapping_mul(1000));
    sys::kill(sys::ANY, kernel::SIGKILL);
    wait_for_all(KILLED_MS);

    // SAFETY: the child ends here.
    match unsafe { sys::fork() } {
        Ok(0) => {
            settle();
            sys::exit(0)
        }
        Ok(_) => wait_for_all(SYNC_MS),
        Err(_) => settle(),
    }
    let error = calls::reboot(decide(how));
    // What cannot end stands still, but never exits: the kernel would panic.
    failed(b"reboot(2)", error.err().unwrap_or(Errno::INVAL));
    loop {
        wait_for_all(u64::MAX);
        calls::wait(None, 1000);
    }
}

/// Collects children until there is none, or until so many milliseconds have passed.
fn wait_for_all(limit_ms: u64) {
    let start_ms = sys::monotonic_ms();
    loop {
        match calls::collect() {
            Children::None => return,
            Children::Running if sys::monotonic_ms().wrapping_sub(start_ms) >= limit_ms => return,
            Children::Running => calls::wait(None, 10),
            Children::Ended(_) => {}
        }
    }
}

/// Writes what is not yet on disk, and closes the file systems on disks.
fn settle() {
    sync();
    // What was mounted last first: it may lie in a file on what was mounted before.
    let _ = mounts::each(Order::Reverse, &mut |mount| {
        let _ = calls::mount(c"", mount.point, MS_REMOUNT | MS_RDONLY, c"");
        let _ = calls::unmount(mount.point);
    });
}

/// The command of reboot(2) that ends the machine, decided before it is given: without a handler, a power-off never
/// returns.
fn decide(how: ShutdownMode) -> u32 {
    let has_acpi = sys::open(CWD, c"/sys/firmware/acpi", OFlags::PATH).is_ok();
    let is_x86 = cfg!(target_arch = "x86_64");
    match how {
        ShutdownMode::Halt => return LINUX_REBOOT_CMD_HALT,
        ShutdownMode::PowerDown if has_acpi || !is_x86 => return LINUX_REBOOT_CMD_POWER_OFF,
        _ => {}
    }
    // Machine monitors take a triple fault for the end. What else a reset may be, some of them do not know.
    if is_x86 && (!has_acpi || is_reduced()) && !is_told() {
        write_file(c"/sys/kernel/reboot/type", b"triple");
    }
    LINUX_REBOOT_CMD_RESTART
}

/// Does ACPI describe a machine without the hardware of a PC, as microvm is one? It is bit 20 of the flags at 112 in the
/// table FADT (ACPI specification, "Fixed ACPI Description Table Fixed Feature Flags").
fn is_reduced() -> bool {
    let mut table = [0; 116];
    sys::read_file(c"/sys/firmware/acpi/tables/FACP", &mut table);
    table.get(114).is_some_and(|byte| byte & 0x10 != 0)
}

/// Does the command line say how to reset?
fn is_told() -> bool {
    let mut space = [0; COMMAND_LINE_BYTES];
    command_line(&mut space).next_with(b"reboot=").is_some()
}
