//! Lines on standard error. Each is written at once, so that lines of several processes do not mix.

use crate::sys;

/// Bytes of a line; what is longer is cut.
const LINE: usize = 512;

/// Says something: the parts stand one behind the other in one line, and `nanoga` before them.
#[inline(never)]
pub fn say(parts: &[&[u8]]) {
    let mut line = [0u8; LINE];
    let mut len = 0usize;
    for part in [&b"nanoga: "[..]].iter().chain(parts) {
        for byte in *part {
            // What a terminal would obey must not come from a path or a host.
            if let Some(place) = line.get_mut(len) {
                *place = if byte.is_ascii_control() { b'?' } else { *byte };
                len = len.wrapping_add(1);
            }
        }
    }
    let end = len.min(LINE - 1);
    if let Some(place) = line.get_mut(end) {
        *place = b'\n';
    }
    sys::print(2, line.get(..=end).unwrap_or_default());
}
