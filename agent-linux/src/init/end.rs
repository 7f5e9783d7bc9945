//! The end of the machine: every process, every file system, and the call that ends what runs the guest.

#![allow(unsafe_code, reason = "a forked process; descriptors that nobody uses any more")]

use core::ffi::CStr;

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
    wait_for(ALL, grace_s.wrapping_mul(1000));
    sys::kill(sys::ANY, kernel::SIGKILL);
    wait_for(ALL, KILLED_MS);

    // SAFETY: the child ends here.
    match unsafe { sys::fork() } {
        Ok(0) => {
            settle();
            sys::exit(0)
        }
        // Not for what could not be killed.
        Ok(child) => wait_for(sys::wide(child), SYNC_MS),
        Err(_) => settle(),
    }
    let error = calls::reboot(decide(how));
    // What cannot end stands still, but never exits: the kernel would panic.
    failed(b"reboot(2)", error.err().unwrap_or(Errno::INVAL));
    loop {
        wait_for(ALL, u64::MAX);
        calls::wait(None, 1000);
    }
}

/// For [`wait_for`]: no process has this number.
const ALL: usize = 0;

/// Collects children until this one has ended, or there is none, or so many milliseconds have passed.
fn wait_for(child: usize, limit_ms: u64) {
    let start_ms = sys::monotonic_ms();
    loop {
        let found = calls::collect();
        let is_over = found == Children::None || found == Children::Ended(child);
        if is_over || sys::monotonic_ms().wrapping_sub(start_ms) >= limit_ms {
            return;
        }
        if found == Children::Running {
            calls::wait(None, 10);
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
    if how == ShutdownMode::Halt {
        return LINUX_REBOOT_CMD_HALT;
    }
    let is_x86 = cfg!(target_arch = "x86_64");
    let mut table = [0; FADT];
    sys::read_file(c"/sys/firmware/acpi/tables/FACP", &mut table);
    let has_acpi = exists(c"/sys/firmware/acpi");
    let is_virtual = !has_acpi || is_reduced(&table);
    // EFI ends a machine whose ACPI cannot.
    let powers_off = !is_virtual || (has_acpi && can_sleep(&table)) || exists(c"/sys/firmware/efi");
    if how == ShutdownMode::PowerDown && (powers_off || !is_x86) {
        return LINUX_REBOOT_CMD_POWER_OFF;
    }
    // Machine monitors take a triple fault for the end. What else a reset may be, some of them do not know.
    if is_x86 && is_virtual && !is_told() {
        write_file(c"/sys/kernel/reboot/type", b"triple");
    }
    LINUX_REBOOT_CMD_RESTART
}

fn exists(path: &CStr) -> bool {
    sys::open(CWD, path, OFlags::PATH).is_ok()
}

/// Bytes of the table FADT, as far as they are looked at (ACPI specification, "Fixed ACPI Description Table").
const FADT: usize = 268;

/// Does ACPI describe a machine without the hardware of a PC, as microvm is one? It is bit 20 of the flags at 112.
fn is_reduced(table: &[u8; FADT]) -> bool {
    table.get(114).is_some_and(|byte| byte & 0x10 != 0)
}

/// Has such a machine the registers for sleep, without which Linux cannot switch it off either? Firecracker has not.
/// The addresses of `SLEEP_CONTROL_REG` and `SLEEP_STATUS_REG`, 12 bytes each, stand at 248 and 260.
fn can_sleep(table: &[u8; FADT]) -> bool {
    [248..256, 260..268].into_iter().all(|address| table.get(address).is_some_and(|bytes| bytes != [0; 8]))
}

/// Does the command line say how to reset?
fn is_told() -> bool {
    let mut space = [0; COMMAND_LINE_BYTES];
    command_line(&mut space).next_with(b"reboot=").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_child_that_is_named_is_waited_for_and_none_for_ever() {
        crate::testing::alone("init::end::tests::inside_only_the_child_that_is_named_is_waited_for");
    }

    #[test]
    #[ignore = "collects all children of the process: run by its namesake"]
    fn inside_only_the_child_that_is_named_is_waited_for() {
        crate::testing::must_be_alone();
        let start = |lasts_ms| {
            // SAFETY: the child ends here.
            let child = unsafe { sys::fork() }.unwrap();
            if child == 0 {
                calls::wait(None, lasts_ms);
                sys::exit(0);
            }
            sys::wide(child)
        };
        let took_ms = |child, limit_ms| {
            let start_ms = sys::monotonic_ms();
            wait_for(child, limit_ms);
            sys::monotonic_ms() - start_ms
        };
        let (lasting, brief) = (start(60_000), start(0));
        assert!(took_ms(brief, 30_000) < 15_000);
        let limited = took_ms(ALL, 200);
        assert!((200..15_000).contains(&limited), "{limited}");
        sys::kill(lasting, kernel::SIGKILL);
        assert!(took_ms(ALL, 30_000) < 15_000);
        assert_eq!(calls::collect(), Children::None);
    }

    #[test]
    fn a_machine_can_switch_itself_off_by_what_its_description_says() {
        let mut table = [0; FADT];
        assert!(!is_reduced(&table) && !can_sleep(&table));
        table[112..116].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        assert!(is_reduced(&table) && !can_sleep(&table));
        // What stands before the addresses are kinds and widths.
        table[244..248].fill(1);
        table[256..260].fill(1);
        assert!(!can_sleep(&table));
        table[248..256].copy_from_slice(&0xFEA0_0200_u64.to_le_bytes());
        assert!(!can_sleep(&table));
        table[260..268].copy_from_slice(&(1_u64 << 63).to_le_bytes());
        assert!(can_sleep(&table));
        table[112..116].copy_from_slice(&(!(1_u32 << 20)).to_le_bytes());
        assert!(!is_reduced(&table));
    }
}
