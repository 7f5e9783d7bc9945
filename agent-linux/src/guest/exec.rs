//! Programs that hosts have started: their processes, what they read and what they write.
//!
//! The input goes into a pipe that holds all of it; the output comes through a pipe into a file in memory, which a
//! process never gets hold of. What a program that has ended left running may go on writing: nobody keeps it, but
//! nobody has to die of it either. How a program is started stands in `exec/launch.rs`. It knows nothing of requests
//! and replies.

pub(crate) mod launch;

use agent_core::guest::{Captured, End, Errno, Process, Processes, Program, StartError, Stream};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{self, fcntl_dupfd_cloexec, pread};
use rustix::pipe::{SpliceFlags, splice};

use super::LinuxGuest;
use crate::sys;
use launch::Pipes;

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
