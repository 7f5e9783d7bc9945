//! Small files: read whole, and written.

use core::ffi::CStr;

use rustix::fs::{CWD, OFlags};

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
        std::fs::remove_file(path.to_str().unwrap()).unwrap();
        assert_eq!(read_file(path, &mut space), b"\0");
    }
}
