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
use cli::{Error, Options, Request};
use event_loop::EventLoop;
use guest::LinuxGuest;
use log::say;
use memory::Memory;
use sys::Strings;

/// Runs the agent until it is told to end; the result is the exit status of the process.
pub fn run(mut arguments: Strings<'static>, memory: &'static mut Memory) -> u8 {
    sys::keep_standard_descriptors();
    arguments.next();
    match cli::parse(&mut arguments) {
        Ok(Request::Serve(options)) => return serve(&options, memory),
        Ok(Request::Help) => sys::print(1, cli::HELP.as_bytes()),
        Ok(Request::Version) => {
            for part in ["nanoga (QEMU Guest Agent) ", VERSION, "\n"] {
                sys::print(1, part.as_bytes());
            }
        }
        Err(Error(before, word, after)) => {
            say(&[before.as_bytes(), word, after.as_bytes()]);
            return 1;
        }
    }
    0
}

/// Opens the channels, then serves them until a signal ends it.
fn serve(options: &Options, memory: &'static mut Memory) -> u8 {
    let mut channels = Vec::new();
    for ((token, place), memory) in (0..).zip(&options.channels).zip(&mut memory.channels) {
        match Channel::open(place, token, options, memory) {
            Ok(channel) => drop(channels.push(channel)),
            Err(error) => return failed(place.path.to_bytes(), sys::errno(error)),
        }
    }
    let agent = Agent::new(LinuxGuest::new(&mut memory.network));
    match EventLoop::new(agent, channels).and_then(|mut event_loop| event_loop.run()) {
        Ok(()) => 0,
        Err(error) => failed(b"event loop", error),
    }
}

fn failed(what: &[u8], error: Errno) -> u8 {
    say(&[what, b": ", errno_text(error)]);
    1
}
