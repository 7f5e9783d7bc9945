//! The hardware clock (rtc(4)), which goes on while the machine is off.
//!
//! It has whole seconds, and they are read and written without waiting for the next: the clock is then half a second
//! off at most, as it is when the kernel sets it at the start.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use super::calendar::{month_start, year_start};
use crate::sys;

/// Seconds of a day.
const DAY: u32 = 86_400;

/// A `struct rtc_time`: second, minute, hour, day of the month, month from 0 on, year from 1900 on; and what is not
/// used.
type Time = [i32; 9];

/// What it shows, in seconds since 1970.
pub fn read() -> Result<i64, Errno> {
    let mut time = Time::default();
    sys::rtc(&open()?, false, &mut time)?;
    Ok(seconds(&time))
}

/// Makes it show this time, from 1970 on. Where there is none it is set as well as can be.
pub fn write(time_s: i64) -> Result<(), Errno> {
    let device = match open() {
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Ok(()),
        device => device?,
    };
    sys::rtc(&device, true, &mut fields(time_s))
}

/// A descriptor of the first one. No other process may have it open.
fn open() -> Result<OwnedFd, Errno> {
    sys::open(CWD, c"/dev/rtc0", OFlags::RDONLY)
}

/// Does it show local time? The last line of `/etc/adjtime` (adjtime_config(5)) says so. The buffer is for that.
pub fn is_local(buffer: &mut [u8]) -> bool {
    sys::read_at(CWD, c"/etc/adjtime", buffer).ends_with(b"LOCAL\n")
}

fn seconds(time: &Time) -> i64 {
    let [second, minute, hour, day, month, year, ..] = *time;
    let days = month_start(year.wrapping_add(1900), month.wrapping_add(1)).wrapping_add(day).wrapping_sub(1);
    let second = hour.wrapping_mul(60).wrapping_add(minute).wrapping_mul(60).wrapping_add(second);
    i64::from(days).wrapping_mul(DAY.into()).wrapping_add(i64::from(second))
}

fn fields(time_s: i64) -> Time {
    let time_s = u32::try_from(time_s).unwrap_or(0);
    let days = (time_s / DAY).cast_signed();
    let second = (time_s % DAY).cast_signed();
    let (mut year, mut month) = (1970_i32, 1_i32);
    while year_start(year.wrapping_add(1)) <= days {
        year = year.wrapping_add(1);
    }
    while month_start(year, month.wrapping_add(1)) <= days {
        month = month.wrapping_add(1);
    }
    let day = days.wrapping_sub(month_start(year, month)).wrapping_add(1);
    let minute = second / 60;
    [second % 60, minute % 60, minute / 60, day, month.wrapping_sub(1), year.wrapping_sub(1900), 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_calendar() {
        for (time_s, fields_of_it) in [
            (0, [0, 0, 0, 1, 0, 70, 0, 0, 0]),
            (951_782_399, [59, 59, 23, 28, 1, 100, 0, 0, 0]),
            (951_868_799, [59, 59, 23, 29, 1, 100, 0, 0, 0]),
            (1_700_000_000, [20, 13, 22, 14, 10, 123, 0, 0, 0]),
            (3_155_759_999, [59, 59, 23, 31, 11, 169, 0, 0, 0]),
        ] {
            assert_eq!(fields(time_s), fields_of_it);
            assert_eq!(seconds(&fields_of_it), time_s);
        }
    }

    #[test]
    fn every_time_comes_back() {
        for time_s in (0..3_155_760_000).step_by(86_399 * 7) {
            assert_eq!(seconds(&fields(time_s)), time_s);
        }
    }
}
