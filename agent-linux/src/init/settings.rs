//! Where a first process finds its options: in a file, in words of the kernel's command line, and behind ` -- ` in it.
//!
//! Later ones override earlier ones; channels on the command line, wherever there, replace those of the file. What is
//! wrong is said and passed over: nothing that stands there stops the agent.

use core::ffi::CStr;

use rustix::io::Errno;

use super::COMMAND_LINE;
use super::calls::Arguments;
use super::text::{read_file, read_lines};
use super::words::Words;
use crate::log::failed;
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
    // First the one that the file must leave room for.
    let length = read_file(COMMAND_LINE, space).len();
    let (line, space) = space.split_at_mut_checked(length).unwrap_or_default();
    let length = read_lines(FILE, space).len();
    let (text, space) = space.split_at_mut_checked(length).unwrap_or_default();
    let _ = config::parse(text, options, true);
    options.end_configuration();

    let mut words = Words::new(line);
    while let Some(setting) = words.next_with(PREFIX) {
        let key = until(setting.to_bytes(), b'=');
        let mut value = c"true";
        if key.len() < setting.count_bytes() {
            value = sys::tail(setting, key.len().wrapping_add(1));
        }
        let _ = config::set(key, value, options);
    }
    let mut ours = Ours { words: &mut words, is_program: false, ended: false };
    while !ours.ended {
        // What only prints has nobody to print for.
        let _ = cli::parse(&mut ours, options);
    }
    options.finish_without_what_is_wrong();

    program.push_all(&mut Ours { words: &mut words, is_program: true, ended: false });
    if program.program().is_empty()
        && let Some(text) = options.word(Name::Exec)
    {
        if sys::join(space, &[text.to_bytes()]).count_bytes() < text.count_bytes() {
            failed(b"exec", Errno::TOOBIG);
        }
        program.push_all(&mut Words::new(space));
    }
}

/// The words up to the next `--`, which among those of the program means nothing.
struct Ours<'a> {
    words: &'a mut Words<'static>,
    is_program: bool,
    ended: bool,
}

impl Iterator for Ours<'_> {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        while !self.ended {
            match self.words.next() {
                Some(word) if word.to_bytes().starts_with(MACHINES) => {}
                Some(word) if self.is_program || word != c"--" => return Some(word),
                _ => self.ended = true,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_program_has_every_word_behind_the_second_end_but_what_is_for_the_kernel() {
        let line = b"quiet -- --on-exit stay virtio_mmio.device=1 -- /bin/echo one -- two \"\" virtio_mmio.device=2 \
                     three\0";
        let mut words = Words::new(Box::leak(Box::new(*line)));
        assert_eq!(words.next_with(PREFIX), None);
        let options: Vec<_> = Ours { words: &mut words, is_program: false, ended: false }.collect();
        assert_eq!(options, [c"--on-exit", c"stay"]);
        let program: Vec<_> = Ours { words: &mut words, is_program: true, ended: false }.collect();
        assert_eq!(program, [c"/bin/echo", c"one", c"--", c"two", c"", c"three"]);
    }
}
