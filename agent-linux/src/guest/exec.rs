//! Programs that hosts have started: their processes, what they read and what they write.
//!
//! The input goes into a pipe that holds all of it; the output comes through a pipe into a file in memory, which a
//! process never gets hold of. What a program that has ended left running may go on writing: nobody keeps it, but
//! nobody has to die of it either. It knows nothing of requests and replies.

#![allow(unsafe_code, reason = "a forked process, and the arrays of execve")]

use core::ffi::{CStr, c_char};
use core::ptr;

use agent_core::guest::{Capture, Captured, End, Errno, Process, Processes, Program, StartError};
use agent_core::request::c_string;
use linux_raw_sys::errno;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, OFlags, memfd_create};
use rustix::io::{self, fcntl_dupfd_cloexec, ioctl_fionread, pread, read, write};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::setsid;

use super::LinuxGuest;
use crate::memory::give_back;
use crate::sys::{self, SignalSet, Strings};

/// Processes that are known at a time. Beyond: the one that ended first makes room, whether a host has asked for it or
/// not; if all still run, EAGAIN.
pub const CAPACITY: usize = 40;

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

/// The status of a process that has not ended. wait(2) never says this.
const RUNS: u32 = u32::MAX;

/// The token of the first pipe. They follow each other: two for each record.
pub const FIRST_TOKEN: u64 = 1 << 32;

/// What is known of all processes.
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
    streams: [Stream; 2],
}

/// Its standard output or standard error.
struct Stream {
    /// Where it comes from, until all who could write have gone.
    pipe: Option<OwnedFd>,
    /// Where it goes, from the first byte on.
    file: Option<OwnedFd>,
    /// Bytes that were kept.
    bytes: u32,
    /// There were more.
    truncated: bool,
}

impl Stream {
    const NONE: Self = Stream { pipe: None, file: None, bytes: 0, truncated: false };

    /// Moves what is in the pipe, but for what would be too much at once. Was there anything?
    ///
    /// `room` is what may be kept. What is dropped goes to the end of the file, again and again.
    #[inline(never)]
    fn drain(&mut self, room: u64) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let waiting = ioctl_fionread(pipe).ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0).min(MOVED);
        if waiting == 0 {
            return false;
        }
        let bytes = if room == 0 { waiting } else { waiting.min(room) };
        if self.file.is_none() {
            self.file = memfd_create(c"nanoga-output", MemfdFlags::CLOEXEC).ok();
        }
        let mut end = u64::from(self.bytes);
        let moved = match &self.file {
            Some(file) => splice(pipe, None, file, Some(&mut end), bytes, SpliceFlags::NONBLOCK),
            None => Err(io::Errno::NOMEM),
        };
        match moved {
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
    const NONE: Self = Record { pid: 0, status: 0, number: 0, streams: [Stream::NONE; 2] };

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
        let ranks = self.all.iter().map(Record::rank).enumerate();
        ranks.min_by_key(|(_, rank)| *rank).filter(|(_, rank)| *rank < RUNS).map(|(place, _)| place)
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
            *stream = Stream { pipe: stream.pipe.take(), ..Stream::NONE };
        }
    }

    /// Keeps a process that has just been started.
    fn keep(&mut self, place: usize, pid: u32, pipes: [Option<OwnedFd>; 2]) {
        // The kernel uses numbers again: who asks for this one means the new process.
        for place in [self.find(i64::from(pid)), Some(place)].into_iter().flatten() {
            self.forget(place);
        }
        self.last = self.last.wrapping_add(1);
        let Some(record) = self.all.get_mut(place) else {
            return;
        };
        let [out, errors] = pipes.map(|pipe| Stream { pipe, ..Stream::NONE });
        *record = Record { pid, status: RUNS, number: self.last, streams: [out, errors] };
        let first = u64::try_from(place).unwrap_or(0).wrapping_mul(2).wrapping_add(FIRST_TOKEN);
        for (token, stream) in (first..).zip(&record.streams) {
            if let (Some(epoll), Some(pipe)) = (&self.epoll, &stream.pipe) {
                let _ = epoll::add(epoll, pipe, EventData::new_u64(token), EventFlags::IN);
            }
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

    fn output(&mut self, pid: i64, stream: usize, from: usize, buffer: &mut [u8]) -> usize {
        let records = &self.tables.records;
        let record = records.find(pid).and_then(|place| records.all.get(place));
        let Some(Stream { file: Some(file), bytes, .. }) = record.and_then(|record| record.streams.get(stream)) else {
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
        let input = self.input(program)?;
        let captured = program.capture;
        let (mut out, mut errors) = (None, None);
        if matches!(captured, Capture::Output | Capture::Separated | Capture::Merged) {
            out = Some(pipe_with(PipeFlags::CLOEXEC)?);
        }
        if matches!(captured, Capture::Errors | Capture::Separated) {
            errors = Some(pipe_with(PipeFlags::CLOEXEC)?);
        }
        let (report, to_agent) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child does not come back from `become_program`.
        let pid = unsafe { sys::fork() }?;
        if pid == 0 {
            let out = out.as_ref().map(|(_, end)| end);
            let errors = if captured == Capture::Merged { out } else { errors.as_ref().map(|(_, end)| end) };
            become_program(program, [input.as_ref(), out, errors], &to_agent, self.environment);
        }
        drop(to_agent);
        // It ends with the child's becoming the program.
        let mut number = [0; 2];
        if read(&report, &mut number) == Ok(2) {
            *error = u16::from_ne_bytes(number);
            sys::wait(pid, &mut 0);
            return Ok(0);
        }
        let pid = u32::try_from(pid).unwrap_or(0);
        self.tables.records.keep(place, pid, [out.map(|(end, _)| end), errors.map(|(end, _)| end)]);
        Ok(pid)
    }

    /// A pipe with all of the input in it.
    fn input(&mut self, program: &Program<'_>) -> io::Result<Option<OwnedFd>> {
        let Some(mut data) = program.input else {
            return Ok(None);
        };
        let (input, from_agent) = pipe_with(PipeFlags::CLOEXEC)?;
        // Small pieces fill its pages by half, at worst.
        let room = data.len().wrapping_mul(2).wrapping_add(2 * PATH);
        if fcntl_setpipe_size(&from_agent, room)? < room {
            return Err(io::Errno::NOBUFS);
        }
        let buffer = self.buffers.0.get_mut(..PATH).unwrap_or_default();
        loop {
            match data.read(buffer) {
                0 => break,
                bytes => write(&from_agent, buffer.get(..bytes).unwrap_or_default())?,
            };
        }
        // It may be a secret.
        give_back(buffer);
        Ok(Some(input))
    }
}

/// The life of a child up to the program, or up to the report why not.
fn become_program(
    program: &Program<'_>,
    files: [Option<&OwnedFd>; 3],
    to_agent: &OwnedFd,
    environment: Strings<'_>,
) -> ! {
    sys::default_signals();
    sys::block_only(SignalSet::EMPTY);
    let _ = setsid();
    // Where there is no such device: a folder can be neither read nor written.
    let null = sys::open(CWD, c"/dev/null", OFlags::RDWR).or_else(|_| sys::open(CWD, c"/", OFlags::PATH)).ok();
    for (number, file) in (0..).zip(files) {
        if let Some(file) = file.or(null.as_ref()) {
            // SAFETY: nobody in this process uses the standard descriptors from here on.
            unsafe { sys::copy_to(file.as_fd(), number) };
        }
    }
    let number = to_agent.as_raw_fd().unsigned_abs();
    // SAFETY: this process uses no other descriptor from here on, and drops nothing.
    unsafe {
        sys::close_range(3, number.wrapping_sub(1));
        sys::close_range(number.wrapping_add(1), u32::MAX);
    }
    let error = execute(program, environment);
    let _ = write(to_agent, &error.0.to_ne_bytes());
    sys::exit(super::job::NOT_RUN)
}

/// Becomes the program, if it is found. Its arrays live in memory of their own: there may be as many strings as a request
/// holds.
fn execute<'p>(program: &Program<'p>, inherited: Strings<'p>) -> Errno {
    let count = |list: Option<agent_core::commands::Elements<'_>>| list.map_or(0, Iterator::count);
    let strings = count(program.arguments).wrapping_add(count(program.environment)).wrapping_add(inherited.count());
    // Besides them: a shell, the program, an own PATH and two NULL.
    let places = strings.wrapping_add(8);
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping takes no memory that is used.
    let Ok(memory) =
        (unsafe { mmap_anonymous(ptr::null_mut(), places.wrapping_mul(size_of::<usize>()), protection, flags) })
    else {
        return sys::errno_of(errno::ENOMEM);
    };
    // SAFETY: the mapping is that large, aligned to pages, zero, and nobody else has it.
    let words = unsafe { core::slice::from_raw_parts_mut(memory.cast::<*const c_char>(), places) };

    let mut next = words.iter_mut();
    let mut put = |word: *const c_char| {
        if let Some(place) = next.next() {
            *place = word;
        }
    };
    // For the shell, if it takes one.
    put(ptr::null());
    put(program.path.as_ptr());
    let mut behind = 3usize;
    for value in program.arguments.into_iter().flatten().filter_map(c_string) {
        put(value.as_ptr());
        behind = behind.wrapping_add(1);
    }
    put(ptr::null());
    let mut folders = None;
    let mut put_variable = |value: &'p CStr| {
        put(value.as_ptr());
        if folders.is_none() && value.to_bytes().starts_with(PATH_IS) {
            folders = Some(value);
        }
    };
    match program.environment {
        Some(own) => own.filter_map(c_string).for_each(&mut put_variable),
        None => inherited.for_each(&mut put_variable),
    }
    let folders = folders.unwrap_or_else(|| {
        if program.environment.is_none() {
            put(sys::PROGRAMS.as_ptr());
        }
        sys::PROGRAMS
    });

    let name = program.path.to_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return sys::errno(attempt(program.path, words, behind));
    }
    let mut error = io::Errno::NOENT;
    let mut space = [0; PATH];
    // Never the working directory, which an empty one would stand for.
    for folder in
        folders.to_bytes().split(|byte| matches!(byte, b':' | b'=')).skip(1).filter(|folder| !folder.is_empty())
    {
        let failed = attempt(sys::join(&mut space, &[folder, b"/", name]), words, behind);
        // The one that says most.
        if !matches!(failed, io::Errno::NOENT | io::Errno::NOTDIR) {
            error = failed;
        }
    }
    sys::errno(error)
}

/// Becomes the program of this file, or why not. From `behind` on the words are its environment.
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

/// What the variable of the folders of programs begins with.
const PATH_IS: &[u8] = b"PATH=";
