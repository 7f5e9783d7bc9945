//! Linux under the agent: everything but the first instruction and the panic, which stand in `main.rs`.
//!
//! `#![no_std]`, no C library, no heap, no thread. It is a library so that tests and fuzzers reach it.

#![no_std]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        reason = "a test may fail"
    )
)]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod arch;
mod channel;
mod cli;
mod event_loop;
pub mod guest;
mod log;
pub mod memory;
mod spool;
pub mod sys;
#[cfg(test)]
mod testing;

use agent_core::error::errno_text;
use agent_core::guest::Errno;
use agent_core::{Agent, VERSION};
use heapless::Vec;

use channel::Channel;
use cli::{Options, Request};
use event_loop::EventLoop;
use guest::LinuxGuest;
use log::Log;
use memory::Memory;
use sys::Strings;

/// Runs the agent until it is told to end; the result is the exit status of the process.
pub fn run(arguments: Strings<'static>, memory: &'static mut Memory) -> u8 {
    sys::keep_standard_descriptors();
    let done = match cli::parse(arguments.skip(1)) {
        Ok(Request::Help) => print(&[cli::HELP]),
        Ok(Request::Version) => print(&["nanoga (QEMU Guest Agent) ", VERSION, "\n"]),
        Ok(Request::Serve(options)) => serve(options, memory),
        Err(error) => {
            Log { verbose: false }.error(&error.describe());
            Err(())
        }
    };
    u8::from(done.is_err())
}

/// Opens the channels, then serves them until a signal ends it. What goes wrong has been said when it returns.
fn serve(options: Options, memory: &'static mut Memory) -> Result<(), ()> {
    let log = Log { verbose: options.verbose };
    let failed = |what: &[u8], error: Errno| {
        let reason = errno_text(error).unwrap_or("unknown error");
        log.error(&[what, b": ", reason.as_bytes()]);
    };
    let mut channels = Vec::new();
    for ((token, place), memory) in (0..).zip(options.channels).zip(&mut memory.channels) {
        let channel = Channel::open(place, token, options.max_request, memory, log)
            .map_err(|error| failed(place.path.to_bytes(), sys::errno(error)))?;
        let _ = channels.push(channel);
    }
    let agent = Agent::new(LinuxGuest::new(&mut memory.network));
    EventLoop::new(agent, channels).and_then(EventLoop::run).map_err(|error| failed(b"event loop", error))
}

fn print(parts: &[&str]) -> Result<(), ()> {
    for part in parts {
        sys::print(part.as_bytes()).map_err(drop)?;
    }
    Ok(())
}
