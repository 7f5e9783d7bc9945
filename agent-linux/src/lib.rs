//! Linux under the agent: everything but the first instruction and the panic handler, which belong to the binary.
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
pub mod channel;
pub mod cli;
mod event_loop;
pub mod guest;
pub mod log;
pub mod memory;
mod spool;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;

use agent_core::Agent;
use agent_core::guest::Errno;
use heapless::Vec;

use channel::Channel;
use cli::{Action, Error, Options};
use guest::LinuxGuest;
use log::{reason, say};
use memory::{CHANNELS, Memory};
use sys::Strings;

/// The channels of the agent. They stand in static memory, beside data that is touched anyway: on the stack they would
/// take half a page.
pub type Channels = Vec<Channel, CHANNELS>;

/// The text of `--version`.
const VERSION_LINE: &str = concat!("nanoga ", env!("CARGO_PKG_VERSION"), " (QEMU Guest Agent 10.2.50)\n");

/// Runs the agent until it is told to end; the result is the exit status of the process.
pub fn run(
    mut arguments: Strings<'static>,
    environment: Strings<'static>,
    memory: &'static mut Memory,
    channels: &'static mut Channels,
) -> u8 {
    sys::keep_standard_descriptors();
    arguments.next();
    let mut options = Options::default();
    match cli::parse(&mut arguments, &mut options) {
        Ok(Action::Serve) => return serve(&options, environment, memory, channels),
        Ok(Action::Help) => sys::print(1, cli::HELP.as_bytes()),
        Ok(Action::Version) => sys::print(1, VERSION_LINE.as_bytes()),
        Err(Error(form, word)) => {
            say(form.as_bytes(), &[word]);
            return 1;
        }
    }
    0
}

/// Opens the channels, then serves them until a signal ends it.
fn serve(
    options: &Options,
    environment: Strings<'static>,
    memory: &'static mut Memory,
    channels: &'static mut Channels,
) -> u8 {
    for (place, memory) in options.channels.iter().zip(&mut memory.channels) {
        let mut channel = Channel::new(place, channels.len(), options, memory);
        if let Err(error) = channel.open() {
            return failed(place.path.to_bytes(), sys::errno(error));
        }
        let _ = channels.push(channel);
    }
    let mut agent = Agent::new(LinuxGuest::new(&mut memory.network, environment, options.state_dir));
    if cfg!(feature = "files") {
        agent.guest.state.prepare();
    }
    match event_loop::run(&mut agent, channels) {
        Ok(()) => 0,
        Err((what, error)) => failed(what, error),
    }
}

fn failed(what: &[u8], error: Errno) -> u8 {
    say(b"%: %", &[what, reason(error)]);
    1
}
