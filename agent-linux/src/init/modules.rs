//! Kernel modules: loaded in the order of a list, with the parameters that stand behind each, and with those that the
//! kernel's command line has for it (`virtio_mmio.device=…`), as modprobe(8) does it.

use core::ffi::CStr;

use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;

use super::calls;
use super::text::{read_file, read_lines};
use super::words::Words;
use crate::log::failed;
use crate::sys;

/// A line is the path of a module and its parameters. `#` begins a comment.
const LIST: &CStr = c"/etc/nanoga/modules";

/// `MODULE_INIT_COMPRESSED_FILE` (linux/module.h): the kernel unpacks it, since Linux 5.17.
const COMPRESSED: u32 = 4;

/// Bytes of all parameters of a module. Beyond: what does not fit is left out.
const PARAMETERS: usize = 1024;

/// Loads them all. One that fails is reported.
#[inline(never)]
pub(super) fn load(space: &mut [u8]) {
    let (list, space) = space.split_at_mut(space.len() / 2);
    for line in read_lines(LIST, list).split(|byte| matches!(byte, b'\n' | 0)) {
        let (path, given) = entry(line);
        if matches!(path, [] | [b'#', ..]) {
            continue;
        }
        let mut parameters = [0; PARAMETERS];
        let parameters = collect(path, given, read_file(super::COMMAND_LINE, space), &mut parameters);
        let flags = if path.ends_with(b".ko") { 0 } else { COMPRESSED };
        let file = sys::open(CWD, sys::join(&mut [0; sys::PATH], &[path]), OFlags::RDONLY);
        match file.and_then(|file| calls::load_module(&file, parameters, flags)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                failed(path, error);
            }
        }
    }
}

/// What a line says: a path, and the parameters behind it.
fn entry(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    line.split_at_checked(end).unwrap_or_default()
}

/// The parameters of the module at this path: those `given`, then those of the command line.
#[inline(never)]
fn collect<'a>(path: &[u8], given: &[u8], command_line: &mut [u8], space: &'a mut [u8; PARAMETERS]) -> &'a CStr {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let end = name.iter().position(|byte| *byte == b'.').unwrap_or(name.len());
    let mut length = add(given, space);
    let mut words = Words::new(command_line);
    while let Some(word) = words.next_with(b"").map(CStr::to_bytes) {
        // In names of modules `-` and `_` are the same.
        let is_same = |(one, other): (&u8, &u8)| one == other || matches!((one, other), (b'-', b'_') | (b'_', b'-'));
        if let Some((before, [b'.', parameter @ ..])) = word.split_at_checked(end)
            && before.iter().zip(name).all(is_same)
        {
            length = length.wrapping_add(add(parameter, space.get_mut(length..).unwrap_or_default()));
        }
    }
    CStr::from_bytes_until_nul(space).unwrap_or_default()
}

/// Adds a parameter, and a blank before it: how many bytes that are, 0 if there is no room.
fn add(parameter: &[u8], space: &mut [u8]) -> usize {
    sys::join(space, &[b" ", parameter]).count_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(path: &str, given: &str, command_line: &str) -> std::string::String {
        let mut line = std::vec::Vec::from(command_line);
        line.push(0);
        let mut space = [9; PARAMETERS];
        collect(path.as_bytes(), given.as_bytes(), &mut line, &mut space).to_str().unwrap().trim().into()
    }

    #[test]
    fn white_space_in_a_line_is_any() {
        for (line, want) in [
            ("/m/a.ko", ("/m/a.ko", "")),
            ("  /m/a.ko\r", ("/m/a.ko", "")),
            ("\t/m/a.ko\ta=1 b=2 \r", ("/m/a.ko", "\ta=1 b=2")),
            (" \t# no module", ("#", " no module")),
            (" \r", ("", "")),
        ] {
            assert_eq!(entry(line.as_bytes()), (want.0.as_bytes(), want.1.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn a_module_gets_its_parameters_of_the_list_and_of_the_command_line() {
        let line = "quiet virtio_mmio.device=4K@0xd0000000:5 virtio-mmio.device=4K@0xd0001000:6 virtio_mmi.x=1 \
                    virtio_mmio2.y=1 loop.max_loop=3 -- virtio_mmio.late=1";
        for (path, given, want) in [
            ("/m/virtio_mmio.ko", "", "device=4K@0xd0000000:5 device=4K@0xd0001000:6"),
            ("/m/virtio-mmio.ko.xz", "a=1 b=2", "a=1 b=2 device=4K@0xd0000000:5 device=4K@0xd0001000:6"),
            ("loop.ko", "", "max_loop=3"),
            ("/none.ko", "", ""),
        ] {
            assert_eq!(collected(path, given, line), want, "{path}");
        }
    }

    #[test]
    fn parameters_beyond_the_space_are_left_out_whole() {
        let long = "x".repeat(PARAMETERS);
        assert_eq!(collected("m.ko", "a=1", &std::format!("m.b={long} m.c=2")), "a=1 c=2");
        assert_eq!(collected("m.ko", &long, "m.c=2"), "c=2");
    }
}
