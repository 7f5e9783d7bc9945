//! The host's time of day, as KVM shows it to a guest: a clock of the driver `ptp_kvm`.

use crate::device;
use crate::sys;

/// Seconds since 1970, UTC, and the nanoseconds behind them, where the kernel has the clock of the host.
pub fn host_time() -> Option<[i64; 2]> {
    let clock = device::open_named(c"/sys/class/ptp", b"/clock_name", b"KVM virtual PTP").ok()?;
    let [seconds, nanoseconds] = sys::device_clock(&clock);
    (seconds > 0).then_some([seconds, nanoseconds])
}
