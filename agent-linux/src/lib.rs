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
pub mod config;
mod event_loop;
pub mod guest;
pub mod log;
pub mod memory;
pub mod options;
mod spool;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;

use agent_core::Agent;
use agent_core::guest::Errno;
use heapless::Vec;

use channel::Channel;
use cli::Action;
use guest::LinuxGuest;
use log::{reason, say};
use memory::{All, CHANNELS, Memory};
use options::{Error, FULL, Name, Options};
use sys::Strings;

/// What is small. It stands in static memory, beside data that is touched anyway: on the stack the channels would take
/// half a page.
pub struct Small {
    /// The channels of the agent.
    channels: Vec<Channel, CHANNELS>,
    /// How it shall run.
    options: Options,
}

impl Small {
    /// Nothing yet.
    pub const NONE: Self = Small { channels: Vec::new(), options: Options::NONE };
}

/// The text of `--version`.
const VERSION_LINE: &str = concat!("nanoga ", env!("CARGO_PKG_VERSION"), " (QEMU Guest Agent 10.2.50)\n");

/// Runs the agent until it is told to end; the result is the exit status of the process.
pub fn run(
    arguments: Strings<'static>,
    environment: Strings<'static>,
    memory: &'static mut All,
    small: &'static mut Small,
) -> u8 {
    sys::keep_standard_descriptors();
    let All { config, memory } = memory;
    let Small { channels, options } = small;
    match read(arguments, environment, &mut config.0, options) {
        Ok(Action::Go) if options.is_on(Name::DumpConf) => options.dump(&mut |text| sys::print(1, text)),
        Ok(Action::Go) => return serve(options, environment, memory, channels),
        Ok(Action::Print(what)) => print(what),
        Err(Error(form, words)) => {
            say(form.as_bytes(), &words);
            return 1;
        }
    }
    0
}

/// Finds out how to run: from the configuration and from the command line, which says where that is.
#[inline(never)]
fn read(
    mut arguments: Strings<'static>,
    environment: Strings<'static>,
    space: &'static mut [u8],
    options: &mut Options,
) -> Result<Action, Error> {
    arguments.next();
    let action = cli::parse(&mut { arguments }, options)?;
    if FULL && action == Action::Go {
        let named = options.word(Name::Config);
        let path = named.or_else(|| environment.value(b"QGA_CONF")).unwrap_or(c"/etc/qemu/qemu-ga.conf");
        *options = Options::NONE;
        config::load(path, named.is_some(), space, options)?;
        options.end_configuration();
        cli::parse(&mut arguments, options)?;
    }
    options.finish()?;
    Ok(action)
}

/// Prints what this option is about.
#[inline(never)]
fn print(what: Name) {
    match what {
        Name::Version => sys::print(1, VERSION_LINE.as_bytes()),
        Name::Help => options::help(&mut |text| sys::print(1, text)),
        Name::Limits => {}
        _ => {
            for name in Agent::<LinuxGuest>::commands() {
                sys::print(1, name.as_bytes());
                sys::print(1, b"\n");
            }
        }
    }
}

/// Opens the channels, then serves them until a signal ends it.
fn serve(
    options: &Options,
    environment: Strings<'static>,
    memory: &'static mut Memory,
    channels: &'static mut Vec<Channel, CHANNELS>,
) -> u8 {
    for (place, memory) in options.channels.iter().zip(&mut memory.channels) {
        let mut channel = Channel::new(place, channels.len(), options, memory);
        if let Err(error) = channel.open() {
            return failed(place.path.to_bytes(), sys::errno(error));
        }
        let _ = channels.push(channel);
    }
    let mut agent = Agent::new(LinuxGuest::new(&mut memory.network, environment, options.state_dir()));
    if FULL {
        agent.restrict(&|command| options.allows(command));
    }
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
