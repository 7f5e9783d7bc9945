//! Lines on standard error. Each is written at once, so that lines of several processes do not mix.

use heapless::Vec;

use crate::sys;

/// Bytes of a line; what is longer is cut.
const LINE: usize = 512;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Also what is not an error.
    pub verbose: bool,
}

impl Log {
    /// Says what went wrong: the parts stand one behind the other in one line.
    pub fn error(self, parts: &[&[u8]]) {
        let mut line: Vec<u8, LINE> = Vec::new();
        for part in [&b"nanoga: "[..]].iter().chain(parts) {
            for byte in *part {
                // What a terminal would obey must not come from a path or a host. The newline has room left.
                let shown = if byte.is_ascii_control() { b'?' } else { *byte };
                if line.len() < LINE.saturating_sub(1) {
                    let _ = line.push(shown);
                }
            }
        }
        let _ = line.push(b'\n');
        // There is nobody to tell if this fails.
        let _ = sys::print_error(&line);
    }

    /// Says what happened, if that is wanted.
    pub fn info(self, parts: &[&[u8]]) {
        if self.verbose {
            self.error(parts);
        }
    }
}
