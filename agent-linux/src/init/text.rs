//! Small files: read whole, and written.

use core::ffi::CStr;

use agent_core::packed;
use rustix::fs::{CWD, OFlags};

use crate::log::say_of;
use crate::sys;

/// The text of a file with a zero byte behind it, as far as the space holds it. A file that cannot be read is empty.
#[inline(never)]
pub(super) fn read_file<'a>(path: &CStr, space: &'a mut [u8]) -> &'a mut [u8] {
    let room = space.len().saturating_sub(1);
    let length = sys::read_file(path, space.get_mut(..room).unwrap_or_default());
    if let Some(end) = space.get_mut(length) {
        *end = 0;
    }
    space.get_mut(..=length).unwrap_or_default()
}

/// The same of a file of lines. Of one that is too large the last whole line is the end, and that is said.
#[inline(never)]
pub(super) fn read_lines<'a>(path: &CStr, space: &'a mut [u8]) -> &'a mut [u8] {
    let room = space.len();
    let text = read_file(path, space);
    if text.len() < room {
        return text;
    }
    say_of(packed!("%: it is too large, the end is left out"), path.to_bytes());
    let end = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    if let Some(end) = text.get_mut(end) {
        *end = 0;
    }
    text.get_mut(..=end).unwrap_or_default()
}

/// Writes a word to a file of the kernel's. Whether that worked.
#[inline(never)]
pub(super) fn write_file(path: &CStr, word: &[u8]) -> bool {
    sys::open(CWD, path, OFlags::WRONLY).is_ok_and(|file| sys::write(&file, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_space_there_is() {
        let mut space = [7; 64];
        let folder = std::env::temp_dir();
        let path = std::format!("{}/nanoga-text-{}\0", folder.display(), std::process::id());
        let path = CStr::from_bytes_with_nul(path.as_bytes()).unwrap();
        std::fs::write(path.to_str().unwrap(), "one two").unwrap();
        assert_eq!(read_file(path, &mut space), b"one two\0");
        assert_eq!(read_file(path, &mut space[..4]), b"one\0");
        assert_eq!(read_file(path, &mut space[..1]), b"\0");
        assert_eq!(read_file(path, &mut []), b"");
        std::fs::write(path.to_str().unwrap(), "one\ntwo\nthree").unwrap();
        for (space, want) in [
            (15, &b"one\ntwo\nthree\0"[..]),
            (14, b"one\ntwo\0"),
            (8, b"one\0"),
            (5, b"one\0"),
            (4, b"\0"),
            (1, b"\0"),
            (0, b""),
        ] {
            assert_eq!(read_lines(path, &mut [7; 15][..space]), want, "{space}");
        }
        std::fs::remove_file(path.to_str().unwrap()).unwrap();
        assert_eq!(read_file(path, &mut space), b"\0");
    }
}
