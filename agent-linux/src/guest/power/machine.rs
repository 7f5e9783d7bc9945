//! What sleep needs of a machine: the files in which the kernel takes its wishes, and the programs of pm-utils.
//!
//! It knows where they are and how they are reached, and nothing about what is asked of them in which order.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, read, write};

use crate::guest::job;
use crate::sys;

/// What the steps need of a machine. Files and programs are places in [`NAMES`].
pub(super) trait Machine {
    /// The text of a file, as far as the buffer holds it: empty if it cannot be read, nothing if there is no such file.
    fn read<'b>(&self, file: u8, buffer: &'b mut [u8]) -> Option<&'b [u8]>;

    /// Writes a word to a file. To sleep is to be in here.
    fn write(&mut self, file: u8, word: &[u8]) -> Result<(), Errno>;

    /// Runs a program to its end, with an argument: its exit status, or [`NOT_RUN`].
    fn run(&mut self, program: u8, argument: Option<&CStr>) -> u8;
}

/// The files and programs of this module, by number, each with a slash before it: a worker can report a number.
pub(super) const NAMES: [&CStr; 8] = [
    c"/sys/power/disk",
    c"/sys/power/mem_sleep",
    c"/sys/power/state",
    c"/proc/swaps",
    c"/pm-hibernate",
    c"/pm-suspend",
    c"/pm-suspend-hybrid",
    c"/pm-is-supported",
];
pub(super) const POWER_DISK: u8 = 0;
pub(super) const MEM_SLEEP: u8 = 1;
pub(super) const POWER_STATE: u8 = 2;
pub(super) const SWAPS: u8 = 3;
pub(super) const PM_HIBERNATE: u8 = 4;
pub(super) const PM_SUSPEND: u8 = 5;
pub(super) const PM_SUSPEND_HYBRID: u8 = 6;
pub(super) const PM_IS_SUPPORTED: u8 = 7;

/// The name of a file or program.
pub(super) fn name(number: u8) -> &'static CStr {
    NAMES.get(usize::from(number)).copied().unwrap_or_default()
}

/// The same without the slash: below the working directory, or just the name of a program.
#[inline(never)]
pub(super) fn relative(number: u8) -> &'static CStr {
    sys::tail(name(number), 1)
}

/// The machine this runs on. The working directory is its root.
pub(super) struct Linux;

impl Machine for Linux {
    fn read<'b>(&self, file: u8, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let length = match open(file, OFlags::RDONLY) {
            // The kernel makes such a text in one go.
            Ok(file) => read(&file, &mut *buffer).unwrap_or(0),
            Err(Errno::NOENT) => return None,
            Err(_) => 0,
        };
        buffer.get(..length)
    }

    fn write(&mut self, file: u8, word: &[u8]) -> Result<(), Errno> {
        write(open(file, OFlags::WRONLY | OFlags::TRUNC)?, word)?;
        Ok(())
    }

    fn run(&mut self, program: u8, argument: Option<&CStr>) -> u8 {
        job::run(&mut || {
            for folder in words(sys::tail(sys::PROGRAMS, 5).to_bytes()) {
                execute(folder, name(program), argument);
            }
        })
    }
}

fn open(file: u8, flags: OFlags) -> Result<OwnedFd, Errno> {
    sys::open(CWD, relative(file), flags)
}

/// Becomes a program of this folder, if it is there.
fn execute(folder: &[u8], name: &CStr, argument: Option<&CStr>) {
    let mut space = [0; sys::PATH];
    // Below the working directory.
    let path = sys::tail(sys::join(&mut space, &[folder, name.to_bytes()]), 1);
    sys::execve(path, argument.as_slice());
}

/// The words of a text of the kernel, or the folders of [`sys::PROGRAMS`]: neither has what separates the other.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b':'))
}
