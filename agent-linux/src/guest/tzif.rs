//! Reads time zone files (TZif, RFC 9636).
//!
//! It knows no clock: the time is an argument.

use super::tz_rule;
use crate::text::until;

/// What clocks show at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone<'z> {
    /// The abbreviation.
    pub name: &'z [u8],
    /// Seconds east of UTC.
    pub offset_s: i32,
}

/// Bytes of a header, and of a local time type: offset, 4 bytes; is it summer?; where its abbreviation begins.
const HEADER: usize = 44;
const TYPE: usize = 6;

/// The zone at a time, in seconds since 1970, by a file; nothing if it is no such file.
///
/// Behind a header stands the data that it counts: times, a type for each, the types, their abbreviations. From version
/// 2 on the same follows again, with times of 8 bytes instead of 4, and then a line with a rule for what comes after
/// them.
#[inline(never)]
pub fn zone_at(file: &[u8], now_s: i64) -> Option<Zone<'_>> {
    let last_header = file.windows(4).rposition(|bytes| bytes == b"TZif")?;
    let time_bytes = if last_header == 0 { 4 } else { 8 };
    let (header, mut rest) = file.get(last_header..)?.split_first_chunk::<HEADER>()?;
    let &[.., n0, n1, n2, n3, t0, t1, t2, t3, _, _, _, _] = header;
    let count = |bytes| usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(0);
    let changes = count([n0, n1, n2, n3]);
    let mut times = take(&mut rest, changes.wrapping_mul(time_bytes));
    let indexes = take(&mut rest, changes);
    let types = take(&mut rest, count([t0, t1, t2, t3]).wrapping_mul(TYPE));

    // Before the first change the first type is right.
    let mut current = 0;
    let mut is_last = true;
    for index in indexes {
        if number(take(&mut times, time_bytes)) > now_s {
            is_last = false;
            break;
        }
        current = *index;
    }
    if is_last
        && let Some(lines) = rest.strip_suffix(b"\n")
        && let Some(rule) = lines.rsplit(|byte| *byte == b'\n').next()
        && let Some(zone) = tz_rule::zone_at(rule, now_s)
    {
        return Some(zone);
    }
    let &[o0, o1, o2, o3, _, name] = types.get(usize::from(current).wrapping_mul(TYPE)..)?.first_chunk::<TYPE>()?;
    let name = until(rest.get(usize::from(name)..)?, 0);
    Some(Zone { name, offset_s: i32::from_be_bytes([o0, o1, o2, o3]) })
}

/// Takes so many bytes, or none if there are less.
#[inline(never)]
fn take<'f>(rest: &mut &'f [u8], count: usize) -> &'f [u8] {
    rest.split_off(..count).unwrap_or_default()
}

/// The signed number in 8 or 4 bytes, of which the highest comes first.
fn number(bytes: &[u8]) -> i64 {
    match (bytes.first_chunk(), bytes.first_chunk()) {
        (Some(long), _) => i64::from_be_bytes(*long),
        (_, Some(short)) => i32::from_be_bytes(*short).into(),
        _ => 0,
    }
}
