//! The start of a program that a host has asked for: its pipes and its input, and a child's life up to becoming it.
//!
//! What becomes of the program afterwards is the business of the records.

#![allow(unsafe_code, reason = "a forked process, and the arrays of execve")]

use core::ffi::{CStr, c_char, c_void};
use core::{ptr, slice};

use agent_core::base64::Decoder;
use agent_core::guest::{Capture, Errno, Program};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{self, write};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::setsid;

use crate::guest::{LinuxGuest, job};
use crate::memory::give_back;
use crate::sys::{self, SignalSet, Strings};

/// Bytes of the longest path of a program.
const PATH: usize = 4096;

/// Pointers in the arrays of a program: to as many strings as a request holds, three bytes each, and to a third as many
/// variables of the agent's. They live in memory that is touched as far as it is needed, and only until the program
/// runs.
const WORDS: usize = 128 * 1024;
const WORDS_BYTES: usize = WORDS.wrapping_mul(size_of::<*const c_char>());

impl LinuxGuest {
    /// Starts a process; `error` says why it did not become the program, if so.
    #[inline(never)]
    pub(super) fn launch(&mut self, program: &Program<'_>, error: &mut u16) -> io::Result<u32> {
        let place = self.tables.records.room().ok_or(io::Errno::AGAIN)?;
        let mut pipes = Pipes { all: [const { [None, None] }; 3] };
        let Capture { output, errors, .. } = program.capture;
        for (pipe, wanted) in pipes.all.iter_mut().zip([program.input.is_some(), output, errors]) {
            if wanted {
                let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
                *pipe = [Some(from), Some(to)];
            }
        }
        if let ([[_, input], ..], Some(data)) = (&mut pipes.all, program.input)
            && let Some(input) = input.take()
        {
            self.fill(&input, data)?;
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping takes no memory that is used.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), WORDS_BYTES.wrapping_add(PATH), protection, flags) }?;
        let mut birth = Birth { program, pipes: &pipes, environment: self.environment, memory, error };
        // SAFETY: `be_born` ends as it has to, and changes nothing but the mapping and the error.
        let pid = unsafe { sys::vfork(be_born, (&raw mut birth).cast()) };
        // SAFETY: only the child had references into it, and that is elsewhere now.
        let _ = unsafe { munmap(memory, WORDS_BYTES.wrapping_add(PATH)) };
        let pid = pid?;
        if *error > 0 {
            sys::wait(sys::wide(pid), &mut 0);
            return Ok(0);
        }
        self.tables.records.keep(place, pid, &mut pipes);
        Ok(pid)
    }

    /// Puts all of the input into a pipe that is empty.
    #[inline(never)]
    fn fill(&mut self, pipe: &OwnedFd, mut data: Decoder<'_>) -> io::Result<()> {
        // Small pieces fill its pages by half, at worst.
        let room = data.len().wrapping_mul(2).wrapping_add(2 * PATH);
        if fcntl_setpipe_size(pipe, room)? < room {
            return Err(io::Errno::NOBUFS);
        }
        let buffer = self.buffers.0.get_mut(..PATH).unwrap_or_default();
        loop {
            match data.read(buffer) {
                0 => break,
                bytes => write(pipe, buffer.get(..bytes).unwrap_or_default())?,
            };
        }
        // It may be a secret.
        give_back(buffer);
        Ok(())
    }
}

/// The pipes between the agent and a child, each with the end to read from and the end to write to: its input, its
/// output and its errors.
pub(super) struct Pipes {
    pub(super) all: [[Option<OwnedFd>; 2]; 3],
}

/// What a child is told, and what it has to say.
struct Birth<'b> {
    program: &'b Program<'b>,
    pipes: &'b Pipes,
    /// The agent's.
    environment: Strings<'b>,
    /// For [`WORDS`] pointers, and for a path.
    memory: *mut c_void,
    /// Why it could not become the program.
    error: &'b mut u16,
}

/// The life of a child up to the program. It is in the agent's memory.
unsafe extern "C" fn be_born(birth: *mut c_void) -> ! {
    // SAFETY: `launch` lends one, and waits.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    sys::default_signals();
    sys::block_only(SignalSet::EMPTY);
    let _ = setsid();
    // Where there is no such device: a folder can be neither read nor written.
    let null = sys::open(CWD, c"/dev/null", OFlags::RDWR).or_else(|_| sys::open(CWD, c"/", OFlags::PATH)).ok();
    let [[input, _], [_, output], [_, errors]] = &birth.pipes.all;
    let errors = if birth.program.capture.merged { output } else { errors };
    for (number, file) in [input, output, errors].into_iter().enumerate() {
        if let Some(file) = file.as_ref().or(null.as_ref()) {
            // SAFETY: nobody in this process uses the standard descriptors from here on.
            unsafe { sys::copy_to(file.as_fd(), number) };
        }
    }
    // SAFETY: this process uses no other descriptor from here on, and drops nothing.
    unsafe { sys::close_range(3, u32::MAX) };
    *birth.error = execute(birth).0;
    sys::exit(job::NOT_RUN)
}

/// Pointers to strings in the making: arrays for execve(2).
struct Words<'w> {
    all: &'w mut [*const c_char],
    next: usize,
    /// The first variable that begins with [`PATH_IS`].
    path: Option<&'w [u8]>,
}

impl<'w> Words<'w> {
    #[inline(never)]
    fn put(&mut self, word: *const c_char) {
        if let Some(place) = self.all.get_mut(self.next) {
            *place = word;
        }
        self.next = self.next.wrapping_add(1);
    }

    #[inline(never)]
    fn put_variable(&mut self, variable: &'w [u8]) {
        self.put(variable.as_ptr().cast());
        if self.path.is_none() && variable.starts_with(PATH_IS) {
            self.path = Some(variable);
        }
    }
}

/// Becomes the program, if it is found.
#[inline(never)]
fn execute(birth: &Birth<'_>) -> Errno {
    let Birth { program, environment: inherited, memory, .. } = *birth;
    // SAFETY: the mapping is that large, aligned to pages, zero, and nobody else uses it. The last place stays NULL.
    let (all, space) = unsafe {
        let path = memory.wrapping_byte_add(WORDS_BYTES).cast::<u8>();
        (slice::from_raw_parts_mut(memory.cast::<*const c_char>(), WORDS - 1), slice::from_raw_parts_mut(path, PATH))
    };
    let mut words = Words { all, next: 1, path: None };
    // The first place is for a shell, if it takes one.
    words.put(program.path.as_ptr());
    for value in program.arguments {
        words.put(text(value).as_ptr().cast());
    }
    let behind = words.next.wrapping_add(1);
    words.next = behind;
    if let Some(own) = program.environment {
        for value in own {
            words.put_variable(text(value));
        }
    } else {
        for value in inherited {
            let value = value.to_bytes_with_nul();
            if !AGENTS_OWN.iter().any(|name| value.starts_with(name)) {
                words.put_variable(value);
            }
        }
        if words.path.is_none() {
            words.put_variable(PROGRAMS);
        }
    }

    sys::errno(search(program.path, words.path.unwrap_or(PROGRAMS), words.all, behind, space))
}

/// Becomes the program of this name, or says why not. Without a slash it is looked for in the folders of this variable.
/// The first word is free, from `behind` on the words are the environment.
#[inline(never)]
pub(crate) fn search(
    path: &CStr,
    variable: &[u8],
    words: &mut [*const c_char],
    behind: usize,
    space: &mut [u8],
) -> io::Errno {
    let name = path.to_bytes();
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/')) {
        return attempt(path, words, behind);
    }
    let mut error = io::Errno::NOENT;
    // The variable ends in a NUL.
    let mut rest = variable.get(PATH_IS.len()..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b':' | 0)) {
        let folder = rest.get(..end).unwrap_or_default();
        rest = rest.get(end.wrapping_add(1)..).unwrap_or_default();
        // Never the working directory, which an empty one would stand for.
        if folder.is_empty() {
            continue;
        }
        let failed = attempt(sys::join(space, &[folder, b"/", name]), words, behind);
        // The one that says most.
        if !matches!(failed, io::Errno::NOENT | io::Errno::NOTDIR) {
            error = failed;
        }
    }
    error
}

/// Becomes the program of this file, or says why not. From `behind` on the words are its environment.
#[inline(never)]
fn attempt(path: &CStr, words: &mut [*const c_char], behind: usize) -> io::Errno {
    const SHELL: &CStr = c"/bin/sh";
    let environment = words.get(behind..).unwrap_or_default().as_ptr();
    // SAFETY: both arrays hold C strings and end in NULL.
    let failed = unsafe { sys::execve_words(path, words.get(1..).unwrap_or_default().as_ptr(), environment) };
    if failed == io::Errno::NOEXEC
        && let [shell, own, ..] = &mut *words
    {
        // A script that does not say whose.
        (*shell, *own) = (SHELL.as_ptr(), path.as_ptr());
        // SAFETY: the same.
        unsafe { sys::execve_words(SHELL, words.as_ptr(), environment) };
    }
    failed
}

/// The text of a string as it stands in a frame: behind the quote, and with the NUL.
fn text(value: &[u8]) -> &[u8] {
    value.get(1..).unwrap_or_default()
}

/// How variables begin that a service manager means for the agent alone (sd_listen_fds(3), sd_notify(3)).
const AGENTS_OWN: [&[u8]; 2] = [b"LISTEN_", b"NOTIFY_SOCKET="];

/// Where programs are looked for otherwise.
pub(crate) const PROGRAMS: &[u8] = sys::PROGRAMS.to_bytes_with_nul();

/// What the variable of the folders of programs begins with.
const PATH_IS: &[u8] = b"PATH=";
