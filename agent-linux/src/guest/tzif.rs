//! Reads time zone files (TZif, RFC 9636).
//!
//! It knows no clock: the time is an argument.

use core::ffi::CStr;

use super::tz_rule;

/// What clocks show at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone<'z> {
    /// The abbreviation.
    pub name: &'z [u8],
    /// Seconds east of UTC.
    pub offset_s: i64,
}

/// Where the six counts of a header are, four bytes each, and what they count.
const COUNTS: usize = 20;
const DATA: usize = 44;

/// Bytes of a local time type: offset, 4 bytes; is it summer?; where its abbreviation begins.
const TYPE: usize = 6;

/// The zone at a time, in seconds since 1970, by a file; nothing if it is no such file.
///
/// Behind a header stands the data that it counts. From version 2 on the same follows again, with times of 8 bytes instead
/// of 4, and then a rule for the time after the last transition.
#[inline(never)]
pub fn zone_at(mut file: &[u8], now_s: i64) -> Option<Zone<'_>> {
    let mut time_bytes = 4_usize;
    loop {
        let version = file.strip_prefix(b"TZif")?.first()?;
        let mut counts = [0_usize; 6];
        for (count, bytes) in counts.iter_mut().zip(file.get(COUNTS..DATA)?.chunks(4)) {
            *count = usize::try_from(number(bytes)).ok()?;
        }
        let [ut_indicators, standard_indicators, leap_seconds, times, types, names] = counts;
        let indexes_at = times.wrapping_mul(time_bytes).wrapping_add(DATA);
        let types_at = indexes_at.wrapping_add(times);
        let names_at = types.wrapping_mul(TYPE).wrapping_add(types_at);
        let end = leap_seconds.wrapping_mul(time_bytes.wrapping_add(4)).wrapping_add(names_at).wrapping_add(names);
        let rest = file.get(end.wrapping_add(ut_indicators).wrapping_add(standard_indicators)..)?;
        if time_bytes == 4 && *version != 0 {
            file = rest;
            time_bytes = 8;
            continue;
        }

        let mut past = 0usize;
        while past < times {
            let at = past.wrapping_mul(time_bytes).wrapping_add(DATA);
            if number(file.get(at..)?.get(..time_bytes)?) > now_s {
                break;
            }
            past = past.wrapping_add(1);
        }
        if past == times
            && let [b'\n', rule @ .., b'\n'] = rest
            && let Some(zone) = tz_rule::zone_at(rule, now_s)
        {
            return Some(zone);
        }
        // Before the first transition the first type is right.
        let index = if past == 0 { 0 } else { usize::from(*file.get(indexes_at.wrapping_add(past).wrapping_sub(1))?) };
        let kind = file.get(index.wrapping_mul(TYPE).wrapping_add(types_at)..)?.first_chunk::<TYPE>()?;
        let name = file.get(usize::from(kind[5]).wrapping_add(names_at)..)?;
        let name = CStr::from_bytes_until_nul(name).ok()?.to_bytes();
        return Some(Zone { name, offset_s: number(&kind[..4]) });
    }
}

/// A signed number whose highest byte comes first.
#[inline(never)]
fn number(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| *byte > 127) { -1 } else { 0 };
    bytes.iter().fold(sign, |number: i64, byte| number << 8 | i64::from(*byte))
}
