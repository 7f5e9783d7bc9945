//! Programs that hosts have started: their processes, what they read and what they write.
//!
//! The input goes into a pipe that holds all of it; the output comes through a pipe into a file in memory, which a
//! process never gets hold of. What a program that has ended left running may go on writing: nobody keeps it, but
//! nobody has to die of it either. It knows nothing of requests and replies.

#![allow(unsafe_code, reason = "a forked process, and the arrays of execve")]

use core::ffi::{CStr, c_char, c_void};
use core::{ptr, slice};

use agent_core::base64::Decoder;
use agent_core::guest::{Capture, Captured, End, Errno, Process, Processes, Program, StartError, Stream};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, OFlags, memfd_create};
use rustix::io::{self, fcntl_dupfd_cloexec, pread, write};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::setsid;

use super::LinuxGuest;
use crate::memory::give_back;
use crate::sys::{self, SignalSet, Strings};

/// Processes that are known at a time. Beyond: the one that ended first makes room, whether a host has asked for it or
/// not; if all still run, EAGAIN.
pub const CAPACITY: usize = 36;

/// Bytes that are kept of a stream, at most. Beyond, as beyond the shares of memory below: they are read and dropped.
pub const STREAM_BYTES: u64 = 16 * 1024 * 1024;

/// The part of the guest's memory that a stream may take: what two of them say in base64 has to fit into a spool.
const STREAM_SHARE: u64 = 24;

/// The part of the guest's memory that all streams may take.
const ALL_SHARE: u64 = 8;

/// Bytes that are moved at once, so that other channels have their turn.
const MOVED: usize = 64 * 1024;

/// Bytes of the longest path of a program.
const PATH: usize = 4096;

/// Pointers in the arrays of a program: to as many strings as a request holds, three bytes each, and to a third as many
/// variables of the agent's. They live in memory that is touched as far as it is needed, and only until the program runs.
const WORDS: usize = 128 * 1024;
const WORDS_BYTES: usize = WORDS.wrapping_mul(size_of::<*const c_char>());

/// The status of a process that has not ended. wait(2) never says this.
const RUNS: u32 = u32::MAX;

/// The token of the first pipe. They follow each other: two for each record.
pub const FIRST_TOKEN: u64 = 1 << 32;

/// What is known of all processes. The records, most of which are never touched, stand last.
#[repr(C)]
pub struct Records {
    /// Tells when a pipe has something to say.
    epoll: Option<OwnedFd>,
    /// The number of the last one.
    last: u32,
    /// Bytes that are kept, of all streams.
    kept: u64,
    /// Bytes that may be kept of one stream; 0 if that was not asked for yet.
    most: u64,
    all: [Record; CAPACITY],
}

/// A process. Free if nobody may ask for it and it has no pipe.
struct Record {
    /// Its number, as long as a host may ask for it.
    pid: u32,
    /// As wait(2) says it, or [`RUNS`].
    status: u32,
    /// Which one it was since the agent has started.
    number: u32,
    streams: [Flow; 2],
}

/// Its standard output or standard error.
struct Flow {
    /// Where it comes from, until all who could write have gone.
    pipe: Option<OwnedFd>,
    /// Where it goes, from the first byte on.
    file: Option<OwnedFd>,
    /// Bytes that were kept.
    bytes: u32,
    /// There were more.
    truncated: bool,
}

impl Flow {
    const NONE: Self = Flow { pipe: None, file: None, bytes: 0, truncated: false };

    /// Moves what is in the pipe, but for what would be too much at once. Was there anything?
    ///
    /// `room` is what may be kept. What is dropped goes to the end of the file, again and again.
    #[inline(never)]
    fn drain(&mut self, room: u64) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let bytes = if room == 0 { MOVED } else { room.min(MOVED) };
        if self.file.is_none() {
            self.file = memfd_create(c"nanoga-output", MemfdFlags::CLOEXEC).ok();
        }
        let mut end = u64::from(self.bytes);
        let moved = match &self.file {
            Some(file) => splice(pipe, None, file, Some(&mut end), bytes, SpliceFlags::NONBLOCK),
            None => Err(io::Errno::NOMEM),
        };
        match moved {
            Ok(0) | Err(io::Errno::AGAIN) => return false,
            Ok(moved) if room > 0 => self.bytes = self.bytes.wrapping_add(u32::try_from(moved).unwrap_or(0)),
            Ok(_) => self.truncated = true,
            Err(_) => {
                // It cannot even be dropped.
                self.truncated = true;
                self.pipe = None;
            }
        }
        true
    }
}

impl Record {
    const NONE: Self = Record { pid: 0, status: 0, number: 0, streams: [Flow::NONE; 2] };

    /// Which record makes room first: the one with the lowest number.
    fn rank(&self) -> u32 {
        let is_free = self.pid == 0 && self.streams.iter().all(|stream| stream.pipe.is_none());
        match self.status {
            _ if is_free => 0,
            RUNS => u32::MAX,
            _ => self.number,
        }
    }
}

impl Records {
    /// Nothing has been started.
    pub const NONE: Self = Records { epoll: None, last: 0, kept: 0, most: 0, all: [const { Record::NONE }; CAPACITY] };

    /// Has pipes watched by this epoll, from [`FIRST_TOKEN`] on.
    pub fn watch_by(&mut self, epoll: &OwnedFd) {
        self.epoll = fcntl_dupfd_cloexec(epoll, 3).ok();
    }

    /// Something has happened to the pipe of this token.
    #[inline(never)]
    pub fn ready(&mut self, token: u64, flags: EventFlags) {
        let place = usize::try_from(token.wrapping_sub(FIRST_TOKEN)).unwrap_or(usize::MAX);
        if flags.contains(EventFlags::IN) {
            self.drain(place / 2, place % 2);
        } else if let Some(stream) = self.all.get_mut(place / 2).and_then(|record| record.streams.get_mut(place % 2)) {
            // Nobody can write any more, and there is nothing left.
            stream.pipe = None;
        }
    }

    /// This child has ended.
    pub fn ended(&mut self, pid: usize, status: u32) {
        for record in &mut self.all {
            if usize::try_from(record.pid) == Ok(pid) && record.status == RUNS {
                record.status = status;
            }
        }
    }

    /// Moves what a stream has said. Is it worth another try?
    #[inline(never)]
    fn drain(&mut self, place: usize, stream: usize) -> bool {
        if self.most == 0 {
            let memory = sys::memory();
            self.most = (memory / STREAM_SHARE).min(STREAM_BYTES);
        }
        let Some(record) = self.all.get_mut(place) else {
            return false;
        };
        let is_wanted = record.pid != 0;
        let Some(stream) = record.streams.get_mut(stream) else {
            return false;
        };
        let before = u64::from(stream.bytes);
        let mut room = 0;
        if is_wanted && !stream.truncated {
            let all = self.most.wrapping_mul(STREAM_SHARE) / ALL_SHARE;
            room = self.most.saturating_sub(before).min(all.saturating_sub(self.kept));
        }
        let any = stream.drain(room);
        self.kept = self.kept.wrapping_add(u64::from(stream.bytes).wrapping_sub(before));
        any && !stream.truncated
    }

    /// Where the next record goes, if there is room for it.
    fn room(&self) -> Option<usize> {
        let (mut lowest, mut room) = (RUNS, None);
        for (place, record) in self.all.iter().enumerate() {
            let rank = record.rank();
            if rank < lowest {
                (lowest, room) = (rank, Some(place));
            }
        }
        room
    }

    /// The place of the process of this number.
    fn find(&self, pid: i64) -> Option<usize> {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        self.all.iter().position(|record| record.pid == pid)
    }

    /// Nobody may ask for this process any more. Those who still write to its pipes go on.
    #[inline(never)]
    fn forget(&mut self, place: usize) {
        let Some(record) = self.all.get_mut(place) else {
            return;
        };
        record.pid = 0;
        for stream in &mut record.streams {
            self.kept = self.kept.wrapping_sub(u64::from(stream.bytes));
            *stream = Flow { pipe: stream.pipe.take(), ..Flow::NONE };
        }
    }

    /// Keeps a process that has just been started, and the ends of its pipes to read from.
    #[inline(never)]
    fn keep(&mut self, place: usize, pid: u32, pipes: &mut Pipes) {
        // The kernel uses numbers again: who asks for this one means the new process.
        if let Some(before) = self.find(i64::from(pid)) {
            self.forget(before);
        }
        self.forget(place);
        self.last = self.last.wrapping_add(1);
        let Some(record) = self.all.get_mut(place) else {
            return;
        };
        (record.pid, record.status, record.number) = (pid, RUNS, self.last);
        let mut token = FIRST_TOKEN.wrapping_add(u64::try_from(place).unwrap_or(0).wrapping_mul(2));
        for (stream, [pipe, _]) in record.streams.iter_mut().zip(pipes.all.iter_mut().skip(1)) {
            stream.pipe = pipe.take();
            if let (Some(epoll), Some(pipe)) = (&self.epoll, &stream.pipe) {
                let _ = epoll::add(epoll, pipe, EventData::new_u64(token), EventFlags::IN);
            }
            token = token.wrapping_add(1);
        }
    }
}

impl Processes for LinuxGuest {
    fn start(&mut self, program: &Program<'_>) -> Result<u32, StartError> {
        let mut error = 0;
        match self.launch(program, &mut error) {
            Ok(_) if error > 0 => Err(StartError::Program(Errno(error))),
            Ok(pid) => Ok(pid),
            Err(errno) => Err(StartError::Process(sys::errno(errno))),
        }
    }

    #[inline(never)]
    fn process(&mut self, pid: i64) -> Option<Process> {
        let records = &mut self.tables.records;
        let place = records.find(pid)?;
        let status = records.all.get(place)?.status;
        let mut end = None;
        if status != RUNS {
            // Whatever it wrote is in the pipes by now.
            for stream in 0..2 {
                while records.drain(place, stream) {}
            }
            // The signal that killed it, and its exit status (wait(2)).
            end = Some(match status.to_le_bytes() {
                [0, status, ..] => End::Exited(status),
                [signal, ..] => End::Killed(signal & 0x7F),
            });
        }
        let [out, errors] = &records.all.get(place)?.streams;
        let captured = [out, errors]
            .map(|stream| Captured { bytes: usize::try_from(stream.bytes).unwrap_or(0), truncated: stream.truncated });
        Some(Process { end, captured })
    }

    fn output(&mut self, pid: i64, stream: Stream, from: usize, buffer: &mut [u8]) -> usize {
        let records = &self.tables.records;
        let Some(Record { streams: [out, errors], .. }) = records.find(pid).and_then(|place| records.all.get(place))
        else {
            return 0;
        };
        let Flow { file: Some(file), bytes, .. } = (if stream == Stream::Output { out } else { errors }) else {
            return 0;
        };
        // Behind them are some that were dropped.
        let left = usize::try_from(*bytes).unwrap_or(0).saturating_sub(from).min(buffer.len());
        let from = u64::try_from(from).unwrap_or(u64::MAX);
        pread(file, buffer.get_mut(..left).unwrap_or_default(), from).unwrap_or(0)
    }

    fn forget(&mut self, pid: i64) {
        if let Some(place) = self.tables.records.find(pid) {
            self.tables.records.forget(place);
        }
    }
}

impl LinuxGuest {
    /// Starts a process; `error` says why it did not become the program, if so.
    #[inline(never)]
    fn launch(&mut self, program: &Program<'_>, error: &mut u16) -> io::Result<u32> {
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
            sys::wait(pid, &mut 0);
            return Ok(0);
        }
        let pid = u32::try_from(pid).unwrap_or(0);
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
struct Pipes {
    all: [[Option<OwnedFd>; 2]; 3],
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
    sys::exit(super::job::NOT_RUN)
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
