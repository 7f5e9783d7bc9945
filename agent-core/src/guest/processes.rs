//! Programs that run in the guest on behalf of a host.

use core::ffi::CStr;

use super::Errno;
use crate::base64::Decoder;
use crate::commands::Elements;

/// A program to start.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its file, or the name of one in the folders of `PATH`: of its own environment, if it gets one.
    pub path: &'a CStr,
    /// Its arguments behind its name: strings as they stand in a frame, between a quote and a NUL.
    pub arguments: Elements<'a>,
    /// Its environment, likewise; otherwise the agent's.
    pub environment: Option<Elements<'a>>,
    /// What it reads; otherwise nothing.
    pub input: Option<Decoder<'a>>,
    /// What of its output is kept.
    pub capture: Capture,
}

/// What is kept of the output of a program: nothing, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Its standard output.
    pub output: bool,
    /// Its standard error.
    pub errors: bool,
    /// Its standard error too, as a part of its standard output.
    pub merged: bool,
}

/// What a program writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Output,
    /// Its standard error.
    Errors,
}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// No process could be made.
    Process(Errno),
    /// The program could not be executed in it.
    Program(Errno),
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// How it ended, once it has.
    pub end: Option<End>,
    /// What was kept of its standard output and standard error.
    pub captured: [Captured; 2],
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

/// What was kept of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// So many bytes.
    pub bytes: usize,
    /// There were more.
    pub truncated: bool,
}

/// Programs that run in the guest. Nothing here waits for one of them to end.
pub trait Processes {
    /// Starts a program: the number of its process.
    fn start(&mut self, program: &Program<'_>) -> Result<u32, StartError>;

    /// What is known of a process that was started by this number and not forgotten.
    fn process(&mut self, pid: i64) -> Option<Process>;

    /// What was kept of its output, from this byte on, as much as the buffer holds. How much it is: nothing behind the
    /// last byte.
    fn output(&mut self, pid: i64, stream: Stream, from: usize, buffer: &mut [u8]) -> usize;

    /// Nobody will ask for this process any more.
    fn forget(&mut self, pid: i64);
}
