//! The time of day, and the zone that people here read it in.

use agent_core::guest::{Clock, ClockError};
use rustix::fs::CWD;
use rustix::io::Errno;

use super::tzif::{self, Zone};
use super::{LinuxGuest, ptp, rtc, tz_rule};
use crate::memory::give_back;
use crate::sys;

const SECOND_NS: i64 = 1_000_000_000;

impl Clock for LinuxGuest {
    fn now_ns(&mut self) -> i64 {
        let [seconds, nanoseconds] = sys::realtime();
        seconds.wrapping_mul(SECOND_NS).wrapping_add(nanoseconds)
    }

    fn set(&mut self, now_ns: i64) -> Result<(), ClockError> {
        self.reseed();
        let [seconds, nanoseconds] = [now_ns / SECOND_NS, now_ns % SECOND_NS];
        sys::set_realtime([seconds, nanoseconds]).map_err(|error| ClockError::Set(sys::errno(error)))?;
        let shown = seconds.wrapping_add(self.rtc_offset_s(seconds));
        rtc::write(shown).map_err(|error| ClockError::SetHardware(sys::errno(error)))
    }

    fn set_by_hardware(&mut self) -> Result<(), ClockError> {
        self.reseed();
        let now = ptp::host_time().map_or_else(|| self.rtc_time(), Ok);
        let set = now.and_then(sys::set_realtime);
        set.map_err(|error| ClockError::SetByHardware(sys::errno(error)))
    }

    fn timezone(&mut self, show: &mut dyn FnMut(&[u8], i32)) {
        let [now_s, _] = sys::realtime();
        let zone = self.zone_at(now_s);
        show(zone.name, zone.offset_s);
        give_back(&mut self.buffers.0);
    }
}

/// Bytes of a zone file that are read: twice the largest there is. Beyond: it is not understood.
const ZONE_FILE: usize = 8192;

impl LinuxGuest {
    /// The time of the hardware clock: seconds since 1970, UTC, and the nanoseconds behind them.
    fn rtc_time(&mut self) -> Result<[i64; 2], Errno> {
        let shown = rtc::read()?;
        // Of a time that clocks show twice, the later one; of one that they skip, that of the clock before.
        let about = shown.wrapping_sub(self.rtc_offset_s(shown));
        let seconds = shown.wrapping_sub(self.rtc_offset_s(about));
        Ok([seconds, SECOND_NS / 2])
    }

    /// What the hardware clock shows more than UTC.
    fn rtc_offset_s(&mut self, now_s: i64) -> i64 {
        let is_local = rtc::is_local(&mut self.buffers.0);
        let offset_s = if is_local { self.zone_at(now_s).offset_s } else { 0 };
        give_back(&mut self.buffers.0);
        offset_s.into()
    }

    /// The zone at a time, in seconds since 1970: that of the variable `TZ` (tzset(3)), otherwise that of
    /// `/etc/localtime` (localtime(5)).
    fn zone_at(&mut self, now_s: i64) -> Zone<'_> {
        let (mut path, mut rule) = (c"/etc/localtime", &b""[..]);
        let variables = [self.variable(b"TZ"), self.variable(b"TZDIR")];
        let (space, file) = self.buffers.0.split_at_mut(sys::PATH);
        if let [Some(name), folder] = variables {
            rule = name.to_bytes();
            rule = rule.strip_prefix(b":").unwrap_or(rule);
            let folder = folder.unwrap_or(c"/usr/share/zoneinfo").to_bytes();
            let folder = if rule.starts_with(b"/") { &[] } else { folder };
            path = sys::join(space, &[folder, b"/", rule]);
        }
        let file = file.get_mut(..ZONE_FILE).unwrap_or_default();
        let mut zone = tzif::zone_at(sys::read_at(CWD, path, file), now_s);
        if zone.is_none() {
            zone = tz_rule::zone_at(rule, now_s);
        }
        zone.unwrap_or(Zone { name: b"UTC", offset_s: 0 })
    }
}
