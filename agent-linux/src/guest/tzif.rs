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
    pub offset_s: i32,
}

/// Where a header has the number of transition times and that of local time types, and where the times begin.
const TIMES: usize = 32;
const TYPES: usize = 36;
const DATA: usize = 44;

/// Bytes of a local time type: offset, 4 bytes; is it summer?; where its abbreviation begins.
const TYPE: usize = 6;

/// The zone at a time, in seconds since 1970, by a file; nothing if it is no such file.
///
/// Behind a header stands the data that it counts: times, a type for each, the types, their abbreviations. From version 2
/// on the same follows again, with times of 8 bytes instead of 4, and then a line with a rule for what comes after them.
#[inline(never)]
pub fn zone_at(file: &[u8], now_s: i64) -> Option<Zone<'_>> {
    let last_header = file.windows(4).rposition(|bytes| bytes == b"TZif")?;
    let time_bytes = if last_header == 0 { 4 } else { 8 };
    let file = file.get(last_header..)?;
    let count = |at| usize::try_from(number(file, at, 4)).unwrap_or(0).min(file.len());
    let (times, types) = (count(TIMES), count(TYPES));
    let indexes_at = times.wrapping_mul(time_bytes).wrapping_add(DATA);
    let types_at = indexes_at.wrapping_add(times);
    let names_at = types.wrapping_mul(TYPE).wrapping_add(types_at);

    let mut past = 0_usize;
    while past < times && number(file, past.wrapping_mul(time_bytes).wrapping_add(DATA), time_bytes) <= now_s {
        past = past.wrapping_add(1);
    }
    if past == times
        && let Some(lines) = file.strip_suffix(b"\n")
        && let Some(rule) = lines.rsplit(|byte| *byte == b'\n').next()
        && let Some(zone) = tz_rule::zone_at(rule, now_s)
    {
        return Some(zone);
    }
    // Before the first transition the first type is right.
    let index = if past == 0 { 0 } else { *file.get(indexes_at.wrapping_add(past).wrapping_sub(1))? };
    let type_at = usize::from(index).wrapping_mul(TYPE).wrapping_add(types_at);
    let name_at = usize::from(*file.get(type_at.wrapping_add(5))?).wrapping_add(names_at);
    let name = CStr::from_bytes_until_nul(file.get(name_at..)?).ok()?.to_bytes();
    Some(Zone { name, offset_s: i32::try_from(number(file, type_at, 4)).unwrap_or(0) })
}

/// The signed number of so many bytes there, of which the highest comes first; 0 if the file ends before.
#[inline(never)]
fn number(file: &[u8], at: usize, bytes: usize) -> i64 {
    let bytes = file.get(at..).and_then(|file| file.get(..bytes)).unwrap_or_default();
    let sign = bytes.first().map_or(0, |byte| i64::from(byte.cast_signed() >> 7));
    bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))
}
