//! The time of day.

use agent_core::guest::Clock;

use super::LinuxGuest;
use crate::sys;

impl Clock for LinuxGuest {
    fn now_ns(&mut self) -> i64 {
        let [seconds, nanoseconds] = sys::realtime();
        seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
    }
}
