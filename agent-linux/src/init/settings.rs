//! Where a first process finds its options: in a file, in words of the kernel's command line, and behind ` -- ` in it.
//!
//! Later ones override earlier ones. What is wrong is said and passed over: nothing that stands there stops the agent.

use core::ffi::CStr;

use super::COMMAND_LINE;
use super::calls::Arguments;
use super::text::read_file;
use super::words::Words;
use crate::options::{Name, Options};
use crate::text::until;
use crate::{cli, config, sys};

/// The file: the same keys as in the configuration of an agent that is not the first process.
const FILE: &CStr = c"/etc/nanoga/init.conf";

/// The words of the command line that are options of ours begin with this.
const PREFIX: &[u8] = b"nanoga.";

/// What QEMU's microvm puts at the end of the command line, wherever that is. It is for the kernel.
const MACHINES: &[u8] = b"virtio_mmio.device=";

/// Reads them all, and the program to run. All of it points into the lent memory.
#[inline(never)]
pub(super) fn read(space: &'static mut [u8], options: &mut Options, program: &mut Arguments) {
    // A device that is missing may still come.
    let _ = options.give(Name::RetryPath, c"true");
    let (text, space) = read_static(FILE, space);
    let _ = config::parse(text, options, true);
    options.end_configuration();

    let (text, space) = read_static(COMMAND_LINE, space);
    let mut words = Words::new(text);
    while let Some(setting) = words.next_with(PREFIX) {
        let key = until(setting.to_bytes(), b'=');
        let mut value = c"true";
        if key.len() < setting.count_bytes() {
            value = sys::tail(setting, key.len().wrapping_add(1));
        }
        let _ = config::set(key, value, options);
    }
    let mut ours = Ours { words: &mut words, ended: false };
    while !ours.ended {
        // What only prints has nobody to print for.
        let _ = cli::parse(&mut ours, options);
    }
    options.finish_without_what_is_wrong();

    program.push_all(&mut Ours { words: &mut words, ended: false });
    if program.program().is_empty()
        && let Some(text) = options.word(Name::Exec)
    {
        sys::join(space, &[text.to_bytes()]);
        program.push_all(&mut Words::new(space));
    }
}

/// Reads a file, and leaves the rest of the memory.
fn read_static(path: &CStr, space: &'static mut [u8]) -> (&'static mut [u8], &'static mut [u8]) {
    let length = read_file(path, space).len();
    space.split_at_mut_checked(length).unwrap_or_default()
}

/// The words up to the next `--`.
struct Ours<'a> {
    words: &'a mut Words<'static>,
    ended: bool,
}

impl Iterator for Ours<'_> {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        while !self.ended {
            match self.words.next() {
                Some(word) if word.to_bytes().starts_with(MACHINES) => {}
                Some(word) if word != c"--" => return Some(word),
                _ => self.ended = true,
            }
        }
        None
    }
}
