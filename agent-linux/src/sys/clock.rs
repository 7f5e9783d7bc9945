//! Clocks: the kernel's, those that are devices, and the hardware clock.
//!
//! It knows numbers, and neither days nor zones.

use linux_raw_sys::{general as kernel, ioctl};
use rustix::fd::{AsRawFd, OwnedFd};

use super::{done, raw, wide};
use crate::arch::syscall3;

/// Milliseconds of a clock that never jumps: `clock_gettime(2)` with `CLOCK_MONOTONIC`.
///
/// Not through rustix: it looks for the kernel's vDSO, which costs more than this ever takes.
pub fn monotonic_ms() -> u64 {
    let [seconds, nanoseconds] = clock(kernel::CLOCK_MONOTONIC);
    seconds.unsigned_abs().wrapping_mul(1000).wrapping_add(nanoseconds.unsigned_abs() / 1_000_000)
}

/// Seconds since 1970, UTC, and the nanoseconds behind them: `clock_gettime(2)` with `CLOCK_REALTIME`.
pub fn realtime() -> [i64; 2] {
    clock(kernel::CLOCK_REALTIME)
}

/// The same of a device that is a clock: what the first lines of `clock_getres(2)` call dynamic. Zeros if it is none.
pub fn device_clock(device: &impl AsRawFd) -> [i64; 2] {
    let [a, b, c, d, ..] = raw(device).to_le_bytes();
    clock(!u32::from_le_bytes([a, b, c, d]) << 3 | 3) // FD_TO_CLOCKID, CLOCKFD
}

fn clock(clock: u32) -> [i64; 2] {
    let mut now = [0; 2]; // struct timespec
    // SAFETY: the structure is writable for the call.
    unsafe {
        syscall3(kernel::__NR_clock_gettime, wide(clock), now.as_mut_ptr().expose_provenance(), 0);
    }
    now
}

/// Sets the clock to these seconds since 1970 and nanoseconds: `clock_settime(2)` with `CLOCK_REALTIME`.
pub fn set_realtime(time: [i64; 2]) -> rustix::io::Result<()> {
    let time = (&raw const time).expose_provenance();
    // SAFETY: the structure is readable for the call.
    done(unsafe { syscall3(kernel::__NR_clock_settime, wide(kernel::CLOCK_REALTIME), time, 0) })
}

/// Reads or writes, by `RTC_RD_TIME` or `RTC_SET_TIME` of `ioctl(2)`, the nine numbers of a `struct rtc_time` (rtc(4)).
pub fn rtc(device: &OwnedFd, write: bool, time: &mut [i32; 9]) -> rustix::io::Result<()> {
    let request = wide(if write { ioctl::RTC_SET_TIME } else { ioctl::RTC_RD_TIME });
    // SAFETY: the structure is readable and writable for the call.
    done(unsafe { syscall3(kernel::__NR_ioctl, raw(device), request, time.as_mut_ptr().expose_provenance()) })
}
