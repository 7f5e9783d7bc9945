//! The system calls that only a first process makes, typed.

#![allow(unsafe_code, reason = "system calls")]

use core::ffi::{CStr, c_char};
use core::ptr;

use agent_core::packed;
use linux_raw_sys::{general as kernel, ioctl};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::arch::{syscall3, syscall5};
use crate::guest::exec::launch;
use crate::log::say_of;
use crate::sys::{self, PATH, done, raw, wide};

/// What became of the children of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    /// This one has ended and is collected now.
    Ended(usize),
    /// None has ended, and there are some.
    Running,
    /// There are none.
    None,
}

/// Collects a child that has ended: `wait4(2)`.
pub(super) fn collect() -> Children {
    // SAFETY: nothing is asked for but the number.
    let child = unsafe { syscall5(kernel::__NR_wait4, sys::ANY, 0, wide(kernel::WNOHANG), 0, 0) };
    match usize::try_from(child) {
        Ok(0) => Children::Running,
        Ok(child) => Children::Ended(child),
        Err(_) => Children::None,
    }
}

/// Waits until this can be read, and no longer than so many milliseconds: `ppoll(2)`. Without it, it sleeps.
pub(super) fn wait(until: Option<&OwnedFd>, time_ms: u64) {
    // struct pollfd: number, events (POLLIN), what happened. The kernel looks at as many as there are.
    let number = until.map_or(-1, AsRawFd::as_raw_fd);
    let mut waited = [number.cast_unsigned(), u32::from_ne_bytes([1, 0, 0, 0])];
    // struct timespec
    let mut time = [time_ms / 1000, (time_ms % 1000).wrapping_mul(1_000_000)];
    // SAFETY: the structures are readable and writable for the call. There is no mask.
    unsafe {
        let (waited, time) = (waited.as_mut_ptr().expose_provenance(), time.as_mut_ptr().expose_provenance());
        syscall5(kernel::__NR_ppoll, waited, 1, time, 0, 0)
    };
}

/// Mounts a file system, or changes how it is mounted: `mount(2)`.
pub(super) fn mount(kind: &CStr, path: &CStr, flags: u32, data: &CStr) -> Result<()> {
    let kind = kind.as_ptr().expose_provenance();
    // SAFETY: four readable strings.
    let result = unsafe {
        let (path, data) = (path.as_ptr().expose_provenance(), data.as_ptr().expose_provenance());
        syscall5(kernel::__NR_mount, kind, path, kind, wide(flags), data)
    };
    done(result)
}

/// Unmounts what is mounted here: `umount2(2)`.
pub(super) fn unmount(path: &CStr) -> Result<()> {
    // SAFETY: a readable string.
    done(unsafe { syscall3(kernel::__NR_umount2, path.as_ptr().expose_provenance(), 0, 0) })
}

/// Loads a kernel module, with its parameters: `finit_module(2)`.
pub(super) fn load_module(file: &OwnedFd, parameters: &CStr, flags: u32) -> Result<()> {
    // SAFETY: a readable string.
    let result = unsafe {
        let parameters = parameters.as_ptr().expose_provenance();
        syscall3(kernel::__NR_finit_module, raw(file), parameters, wide(flags))
    };
    done(result)
}

/// Sets the name of this host: `sethostname(2)`.
pub(super) fn set_host_name(name: &[u8]) -> Result<()> {
    // SAFETY: the name is readable for the call.
    done(unsafe { syscall3(kernel::__NR_sethostname, name.as_ptr().expose_provenance(), name.len(), 0) })
}

/// Ends the machine, or says what a Ctrl-Alt-Del does: `reboot(2)`.
pub(super) fn reboot(command: u32) -> Result<()> {
    let (first, second) = (wide(kernel::LINUX_REBOOT_MAGIC1), wide(kernel::LINUX_REBOOT_MAGIC2));
    // SAFETY: no memory is involved.
    done(unsafe { syscall3(kernel::__NR_reboot, first, second, wide(command)) })
}

/// What an interface is called, or which number it has.
#[repr(C)]
pub(super) struct Interface {
    /// Ends in a zero byte.
    pub(super) name: [u8; 16],
    pub(super) number: u32,
    // struct ifreq is as long as the longest of its meanings.
    rest: [u32; 5],
}

impl Interface {
    /// Only its number is known.
    pub(super) fn of_number(number: u32) -> Self {
        Interface { name: [0; 16], number, rest: [0; 5] }
    }

    /// Asks for the name: `SIOCGIFNAME` of `netdevice(7)`. Whether there is such an interface.
    pub(super) fn ask_name(&mut self) -> bool {
        socket(AddressFamily::INET, SocketType::DGRAM, None).is_ok_and(|socket| {
            let request = (&raw mut *self).expose_provenance();
            // SAFETY: the structure is readable and writable for the call.
            0 == unsafe { syscall3(kernel::__NR_ioctl, raw(&socket), wide(ioctl::SIOCGIFNAME), request) }
        })
    }
}

/// Makes this terminal 0, 1 and 2.
pub(super) fn make_standard(terminal: &OwnedFd) {
    for number in 0..3 {
        // SAFETY: the three are the placeholders of `keep_standard_descriptors`, or what came in their place.
        unsafe { sys::copy_to(terminal.as_fd(), number) };
    }
}

/// Makes standard input the terminal that this session is controlled by: `TIOCSCTTY` of `ioctl_tty(2)`.
pub(super) fn take_terminal() {
    // SAFETY: no memory is involved.
    unsafe { syscall3(kernel::__NR_ioctl, 0, wide(ioctl::TIOCSCTTY), 1) };
}

/// The variables of a program.
const VARIABLES: [&CStr; 3] = [sys::PROGRAMS, c"HOME=/", c"TERM=linux"];

/// The words of a program: pointers to strings that live for ever. The first place stays free; behind the words, which
/// are never more than `MOST`, stand a NULL, the variables and one more.
#[derive(Clone, Copy)]
pub(super) struct Arguments {
    words: [*const c_char; Arguments::PLACES],
    count: usize,
}

impl Arguments {
    /// Words that a program may have. Beyond: said, and left out.
    const MOST: usize = 64;

    /// With the free one, the variables and a NULL behind each.
    const PLACES: usize = 1 + Arguments::MOST + 1 + VARIABLES.len() + 1;

    /// No words.
    pub(super) const NONE: Self = Arguments { words: [ptr::null(); Arguments::PLACES], count: 0 };

    /// Puts words behind the others, as far as there is room.
    #[inline(never)]
    pub(super) fn push_all(&mut self, words: &mut dyn Iterator<Item = &'static CStr>) {
        for word in words {
            if self.count >= Arguments::MOST {
                say_of(packed!("too many words, without '%' and what follows"), word.to_bytes());
                break;
            }
            self.count = self.count.wrapping_add(1);
            self.put(self.count, word);
        }
    }

    fn put(&mut self, place: usize, word: &'static CStr) {
        if let Some(place) = self.words.get_mut(place) {
            *place = word.as_ptr();
        }
    }

    /// The name of the program; empty if there is none.
    pub(super) fn program(&self) -> &'static CStr {
        let [_, first, ..] = self.words;
        // SAFETY: it came from a string that lives for ever.
        if first.is_null() { c"" } else { unsafe { CStr::from_ptr(first) } }
    }

    /// The words, which a NULL ends.
    pub(super) fn array(&self) -> *const *const c_char {
        self.words.as_ptr().wrapping_add(1)
    }

    /// Puts the variables behind the words: from where on.
    fn put_variables(&mut self) -> usize {
        let behind = self.count.wrapping_add(2);
        for (number, variable) in VARIABLES.into_iter().enumerate() {
            self.put(behind.wrapping_add(number), variable);
        }
        behind
    }

    /// Becomes this program, in an environment of its own. Returns only if that failed.
    pub(super) fn execute(&mut self) -> Errno {
        let behind = self.put_variables();
        launch::search(self.program(), launch::PROGRAMS, &mut self.words, behind, &mut [0; PATH])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_variables_end_in_null_however_many_there_are() {
        for count in [0, 1, 63, 64, 65, 1000] {
            let mut arguments = Arguments::NONE;
            for _ in 0..2 {
                arguments.push_all(&mut core::iter::repeat_n(c"word", count));
            }
            let words = (2 * count).min(Arguments::MOST);
            let behind = arguments.put_variables();
            assert_eq!(behind, words + 2);
            for (place, word) in arguments.words.iter().enumerate() {
                let is_null = [0, words + 1].contains(&place) || place >= behind + VARIABLES.len();
                assert_eq!(word.is_null(), is_null, "{count}: {place}");
            }
            assert!(arguments.words[behind + VARIABLES.len()].is_null());
        }
    }
}
