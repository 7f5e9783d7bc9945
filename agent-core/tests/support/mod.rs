//! A guest that is not there, and a host to talk with the agent about it. Shared by the tests and the fuzz targets.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![allow(clippy::expect_used, reason = "a test says what went wrong by panicking")]

pub mod claims;
pub mod files;
pub mod model;
pub mod processes;
pub mod storage;

use std::io::Write as _;
use std::net::IpAddr;
use std::task::Poll;

use agent_core::guest::{
    Address, Clock, ClockError, Errno, Event, Guest, Job, Link, Network, OsFact, Power, Shutdown, ShutdownError,
    ShutdownMode, Statistics, Suspend, SuspendError, System, User,
};
use agent_core::{Agent, Fed, Session};
use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom, Write};
use serde_json::{Value, json};

/// A guest made of plain data.
pub struct FakeGuest {
    /// Are its file systems frozen?
    pub frozen: bool,
    /// How each suspend ends.
    pub suspend: Result<(), SuspendError>,
    /// What was asked of it.
    pub suspends: Vec<Suspend>,
    /// What it was told to note.
    pub audits: Vec<String>,
    /// Jobs that run until [`FakeGuest::end_jobs`].
    pub running: Vec<Job>,
    pub ended: Vec<Job>,
    pub abandoned: Vec<Job>,
    pub jobs: u32,
    /// The walk over the interfaces.
    pub links: Vec<FakeEvent>,
    pub links_error: Option<Errno>,
    pub host_name: Vec<u8>,
    pub os_info: Vec<(OsFact, Vec<u8>)>,
    pub users: Vec<(&'static str, u64)>,
    pub load: [u64; 3],
    pub now_ns: i64,
    pub timezone: (&'static str, i32),
    /// How setting the clock ends, and what it was to be set to: a time, or what the hardware clock shows.
    pub clock_set: Result<(), ClockError>,
    pub clock_sets: Vec<Option<i64>>,
    pub storage: storage::FakeStorage,
    /// How each shutdown ends, or why it does not start, and what was asked.
    pub shutdown: Result<(), ShutdownError>,
    pub shutdown_start: Option<Errno>,
    pub shutdowns: Vec<ShutdownMode>,
    pub files: files::FakeFiles,
    pub processes: processes::FakeProcesses,
}

pub enum FakeEvent {
    Restart,
    Link(&'static str, [u8; 6], Option<Statistics>),
    Address(IpAddr, u8),
}

impl Default for FakeGuest {
    fn default() -> Self {
        let statistics = Statistics([1, 2, 3, 4, u64::MAX, 6, 7, 8]);
        FakeGuest {
            frozen: false,
            suspend: Err(SuspendError::Unsupported),
            suspends: Vec::new(),
            audits: Vec::new(),
            running: Vec::new(),
            ended: Vec::new(),
            abandoned: Vec::new(),
            jobs: 0,
            links: vec![
                FakeEvent::Link("lo", [0; 6], Some(statistics)),
                FakeEvent::Address("127.0.0.1".parse().unwrap(), 8),
                FakeEvent::Address("::1".parse().unwrap(), 128),
                FakeEvent::Link("eth0", [0x52, 0x54, 0, 0xAB, 0xCD, 0xEF], Some(statistics)),
            ],
            links_error: None,
            host_name: b"fake".to_vec(),
            os_info: vec![(OsFact::Machine, b"abacus".to_vec()), (OsFact::VersionId, b"1".to_vec())],
            users: vec![("zoe", 1_700_000_100_999_998), ("adam", 1_700_000_200_000_000)],
            load: [0, 65536, 42079],
            now_ns: 1_700_000_000_123_456_789,
            timezone: ("CEST", 7200),
            clock_set: Ok(()),
            clock_sets: vec![],
            storage: storage::FakeStorage::default(),
            shutdown: Ok(()),
            shutdown_start: None,
            shutdowns: vec![],
            files: files::FakeFiles::default(),
            processes: processes::FakeProcesses::default(),
        }
    }
}

impl FakeGuest {
    pub fn end_jobs(&mut self) {
        self.ended.append(&mut self.running);
    }
}

impl Guest for FakeGuest {
    fn is_frozen(&self) -> bool {
        self.frozen
    }

    fn audit(&mut self, words: &[&[u8]]) {
        self.audits.push(String::from_utf8_lossy(&words.join(&b' ')).into_owned());
    }

    fn abandon(&mut self, job: Job) {
        self.abandoned.push(job);
    }
}

impl Power for FakeGuest {
    fn suspend(&mut self, mode: Suspend) -> Result<Job, SuspendError> {
        self.suspends.push(mode);
        self.jobs += 1;
        self.running.push(Job(self.jobs));
        Ok(Job(self.jobs))
    }

    fn suspended(&mut self, job: Job) -> Poll<Result<(), SuspendError>> {
        if self.ended.contains(&job) { Poll::Ready(self.suspend) } else { Poll::Pending }
    }
}

impl Shutdown for FakeGuest {
    fn shut_down(&mut self, mode: ShutdownMode) -> Result<Job, Errno> {
        if let Some(errno) = self.shutdown_start {
            return Err(errno);
        }
        self.shutdowns.push(mode);
        self.jobs += 1;
        self.running.push(Job(self.jobs));
        Ok(Job(self.jobs))
    }

    fn shutting_down(&mut self, job: Job) -> Poll<Result<(), ShutdownError>> {
        if self.ended.contains(&job) { Poll::Ready(self.shutdown) } else { Poll::Pending }
    }
}

impl Clock for FakeGuest {
    fn now_ns(&mut self) -> i64 {
        self.now_ns
    }

    fn set(&mut self, now_ns: i64) -> Result<(), ClockError> {
        self.clock_sets.push(Some(now_ns));
        self.clock_set
    }

    fn set_by_hardware(&mut self) -> Result<(), ClockError> {
        self.clock_sets.push(None);
        self.clock_set
    }

    fn timezone(&mut self, show: &mut dyn FnMut(&[u8], i32)) {
        show(self.timezone.0.as_bytes(), self.timezone.1);
    }
}

impl System for FakeGuest {
    fn os_info(&mut self, each: &mut dyn FnMut(OsFact, &[u8])) {
        for (fact, value) in &self.os_info {
            each(*fact, value);
        }
    }

    fn host_name(&mut self, show: &mut dyn FnMut(&[u8])) {
        show(&self.host_name);
    }

    fn users(&mut self, each: &mut dyn FnMut(User<'_>)) {
        for (name, login_us) in &self.users {
            each(User { name: name.as_bytes(), login_us: *login_us });
        }
    }

    fn load(&mut self) -> [u64; 3] {
        self.load
    }
}

impl Network for FakeGuest {
    fn interfaces(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Errno> {
        for event in &self.links {
            match event {
                FakeEvent::Restart => each(Event::Restart),
                FakeEvent::Link(name, hardware_address, statistics) => each(Event::Link(&Link {
                    name: name.as_bytes(),
                    hardware_address: *hardware_address,
                    statistics: *statistics,
                })),
                FakeEvent::Address(ip, prefix) => each(Event::Address(&Address { ip: *ip, prefix: *prefix })),
            }
        }
        self.links_error.map_or(Ok(()), Err)
    }
}

/// A spool in memory, of limited size.
pub struct FakeSpool {
    bytes: std::io::Cursor<Vec<u8>>,
    pub limit: usize,
    /// The largest number of bytes that ever were in it.
    pub high_water: usize,
}

impl FakeSpool {
    pub fn new(limit: usize) -> Self {
        FakeSpool { bytes: std::io::Cursor::new(Vec::new()), limit, high_water: 0 }
    }
}

impl agent_core::Spool for FakeSpool {
    fn capacity(&self) -> usize {
        self.limit
    }
}

impl ErrorType for FakeSpool {
    type Error = ErrorKind;
}

impl Read for FakeSpool {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ErrorKind> {
        std::io::Read::read(&mut self.bytes, buf).map_err(|_| ErrorKind::Other)
    }
}

impl Write for FakeSpool {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ErrorKind> {
        let room = self.limit.saturating_sub(usize::try_from(self.bytes.position()).unwrap());
        if room == 0 {
            return Err(ErrorKind::OutOfMemory);
        }
        // Short writes on purpose: the agent has to go on behind them.
        let n = buf.len().min(room).min(5000);
        self.bytes.write_all(&buf[..n]).unwrap();
        self.high_water = self.high_water.max(self.bytes.get_ref().len());
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Seek for FakeSpool {
    fn seek(&mut self, pos: SeekFrom) -> Result<u64, ErrorKind> {
        let SeekFrom::Start(at) = pos else {
            return Err(ErrorKind::Unsupported);
        };
        self.bytes.set_position(at);
        Ok(at)
    }
}

/// A host that is connected to one session of an agent, whose buffers are small enough to overflow.
pub struct Host<'buf> {
    pub agent: Agent<FakeGuest>,
    pub session: Session<'buf>,
    pub spool: FakeSpool,
}

pub const REQUEST_BYTES: usize = 4096;
pub const REPLY_BYTES: usize = 512;
pub const SPOOL_BYTES: usize = 64 * 1024;

impl Host<'static> {
    pub fn new() -> Self {
        Host::with_guest(FakeGuest::default())
    }

    /// The buffers are leaked: a test has few hosts. Fuzzers use [`Host::lend`].
    pub fn with_guest(guest: FakeGuest) -> Self {
        Host::lend(guest, vec![0xAA; REQUEST_BYTES].leak(), vec![0xAA; REPLY_BYTES].leak())
    }
}

impl<'buf> Host<'buf> {
    pub fn lend(guest: FakeGuest, frame: &'buf mut [u8], replies: &'buf mut [u8]) -> Self {
        Host { agent: Agent::new(guest), session: Session::new(frame, replies), spool: FakeSpool::new(SPOOL_BYTES) }
    }

    /// Sends bytes and collects what comes back, ending every job that is started.
    pub fn send(&mut self, input: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        self.feed(&mut &*input, &mut output);
        output
    }

    /// Asks for a command; its one reply.
    #[track_caller]
    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let mut replies = replies(&self.send(request.to_string().as_bytes()));
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0).1
    }

    /// The same, where this is what it returns.
    #[track_caller]
    pub fn returns(&mut self, command: &str, arguments: Value, want: Value) {
        assert_eq!(self.call(command, arguments), json!({ "return": want }));
    }

    /// The same, where this is why it fails.
    #[track_caller]
    pub fn fails(&mut self, command: &str, arguments: Value, want: &str) {
        assert_eq!(self.call(command, arguments), json!({ "error": { "class": "GenericError", "desc": want } }));
    }

    /// Sends bytes in pieces that end at these places.
    pub fn send_split(&mut self, input: &[u8], ends: &[usize]) -> Vec<u8> {
        let mut output = Vec::new();
        let mut start = 0;
        for &end in ends.iter().chain([&input.len()]) {
            self.feed(&mut &input[start..end], &mut output);
            start = end;
        }
        output
    }

    fn feed(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Fed {
        loop {
            let fed = self.session.feed(&mut self.agent, input, &mut self.spool);
            match fed {
                Fed::NeedMore => {
                    assert!(input.is_empty(), "NeedMore with input left");
                    return fed;
                }
                Fed::Reply => output.extend(self.take_pending()),
                Fed::Parked => {
                    assert!(self.take_pending().is_empty(), "parked with replies unsent");
                    self.agent.guest.end_jobs();
                }
            }
        }
    }

    /// What the session has to send, taken in small bites.
    pub fn take_pending(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        loop {
            let bytes = self.session.pending(&mut self.spool).expect("the fake spool loses nothing");
            let n = bytes.len().min(100);
            if n == 0 {
                return output;
            }
            output.extend(&bytes[..n]);
            self.session.advance(n);
        }
    }
}

/// The lines of an output, each checked to be what may ever be on the wire: an ASCII line with one reply.
pub fn replies(output: &[u8]) -> Vec<(bool, Value)> {
    assert!(output.is_empty() || output.ends_with(b"\n"), "half a reply: {}", output.escape_ascii());
    output
        .split_inclusive(|&b| b == b'\n')
        .map(|line| {
            let line = &line[..line.len() - 1];
            let (delimited, json) = match line.split_first() {
                Some((0xFF, json)) => (true, json),
                _ => (false, line),
            };
            assert!(json.iter().all(|b| (b' '..=0x7F).contains(b)), "not ASCII: {}", json.escape_ascii());
            let mut reader = serde_json::Deserializer::from_slice(json);
            reader.disable_recursion_limit();
            let value = <Value as serde::Deserialize>::deserialize(&mut reader)
                .unwrap_or_else(|e| panic!("{e}: {}", json.escape_ascii()));
            reader.end().unwrap();
            assert!(value.get("return").is_some() != value.get("error").is_some(), "neither result nor error: {value}");
            (delimited, value)
        })
        .collect()
}
