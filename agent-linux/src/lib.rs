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
mod daemon;
pub mod device;
mod event_loop;
pub mod guest;
#[cfg_attr(not(feature = "init"), path = "init/absent.rs")]
pub mod init;
mod limits;
pub mod log;
pub mod memory;
pub mod options;
pub mod ready;
mod spool;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod text;

use core::mem::{self, ManuallyDrop};

use agent_core::Agent;
use heapless::Vec;

use agent_core::packed;
use channel::Channel;
use cli::Action;
use guest::files::DESCRIPTORS;
use guest::{LinuxGuest, Tables, freeze};
use log::{Failed, failed, say_why};
use memory::{All, CHANNELS, ChannelMemory, Memory};
use options::{FULL, Method, Name, Options};
use rustix::io::Errno;
use sys::Strings;

/// What is small. It stands in static memory, beside data that is touched anyway: on the stack the channels would take
/// half a page.
#[repr(C)]
pub struct Small {
    /// The channels of the agent.
    channels: Vec<Channel, CHANNELS>,
    /// How it shall run.
    options: Options,
    /// Most of it is never touched, so it stands last: a page less.
    tables: Tables,
}

impl Small {
    /// Nothing yet.
    pub const NONE: Self = Small { channels: Vec::new(), options: Options::NONE, tables: Tables::NONE };
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
    let Small { channels, options, tables } = small;
    if init::is_first() {
        // An agent that handed that over to another init is an ordinary one from here on.
        init::bring_up(arguments, environment, &mut config.0, memory.scratch(), options, &mut tables.init);
        return u8::from(serve(options, environment, memory, channels, tables).is_err());
    }
    let done = match read(arguments, environment, &mut config.0, options) {
        Ok(Action::Go) => serve(options, environment, memory, channels, tables),
        Ok(Action::Print(what)) => {
            print(what, options);
            Ok(())
        }
        Err(Failed) => Err(Failed),
    };
    u8::from(done.is_err())
}

/// Finds out how to run: from the configuration and from the command line, which says where that is.
#[inline(never)]
fn read(
    mut arguments: Strings<'static>,
    environment: Strings<'static>,
    space: &'static mut [u8],
    options: &mut Options,
) -> Result<Action, Failed> {
    arguments.next();
    let action = cli::parse(&mut { arguments }, options)?;
    if action != Action::Go {
        return Ok(action);
    }
    if FULL {
        let named = options.word(Name::Config);
        let path = named.or_else(|| environment.value(b"QGA_CONF")).unwrap_or(c"/etc/qemu/qemu-ga.conf");
        *options = Options::NONE;
        config::load(path, named.is_some(), space, options)?;
        options.end_configuration();
        options.is_configured = true;
        cli::parse(&mut arguments, options)?;
    }
    options.finish()?;
    Ok(if options.is_on(Name::DumpConf) { Action::Print(Name::DumpConf) } else { action })
}

/// Prints what this option is about.
#[inline(never)]
fn print(what: Name, options: &Options) {
    let out = &mut |text: &[u8]| {
        sys::print(1, text);
    };
    match what {
        Name::Version => out(VERSION_LINE.as_bytes()),
        Name::BlockRpcs if FULL => out(Agent::<LinuxGuest>::commands()),
        Name::Limits if FULL => limits::print(out),
        Name::DumpConf if FULL => options.dump(out),
        _ => options::Table::unpacked(&mut { options::SPACE }).help(out),
    }
}

/// Opens the channels, then serves them until a signal ends it. As the first process it never comes back.
#[inline(never)]
fn serve(
    options: &'static mut Options,
    environment: Strings<'static>,
    memory: &'static mut Memory,
    channels: &'static mut Vec<Channel, CHANNELS>,
    tables: &'static mut Tables,
) -> Result<(), Failed> {
    let is_first = !tables.init.is_empty();
    if FULL {
        options.take_passed(environment, u64::try_from(daemon::this_process()).unwrap_or(0));
    }
    let options: &'static Options = options;
    let daemonize = options.is_on(Name::Daemonize) && !is_first;
    if daemonize {
        daemon::close_inherited(options.channels.iter().filter(|place| place.method == Method::Passed).count());
    } else {
        // A daemon does so when it becomes one: before, a signal ends the start.
        event_loop::block_signals(is_first);
    }
    // What an agent before this one has frozen must not be written to: not even files are made there.
    let frozen = freeze::ABLE && freeze::was_frozen(options.state_dir());
    // Where something fails from here on the process ends, which closes more than drops would, in fewer bytes.
    let mut log = None;
    if let Some(path) = options.log_file().filter(|_| !frozen && !is_first) {
        log = Some(ManuallyDrop::new(log::open(path).map_err(|error| failed(path.to_bytes(), error))?));
    }
    if daemonize && !frozen {
        daemon::take_pid_file(options)?;
    }
    let mut opened = open(options, &mut memory.channels, channels, is_first);
    if opened.is_ok() && daemonize {
        match daemon::detach() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => opened = Err(failed(b"fork", error)),
        }
    }
    opened.inspect_err(|_| daemon::remove_pid_file(options))?;
    if let Some(log) = log {
        log::turn_to(ManuallyDrop::into_inner(log));
    }
    // The process ends with it: nothing needs to be closed.
    let mut agent = ManuallyDrop::new(Agent::new(LinuxGuest::new(&mut memory.network, tables, environment, options)));
    if FULL {
        agent.restrict(&|command| options.allows(command));
    }
    if (cfg!(feature = "files") || freeze::ABLE) && !frozen {
        agent.guest.state.prepare();
    }
    if cfg!(feature = "files") {
        sys::allow_descriptors(DESCRIPTORS);
    }
    if frozen {
        agent.guest.start_frozen();
    }
    let mut end;
    loop {
        end = event_loop::run(&mut agent, channels);
        if end.is_ok() || !is_first {
            break;
        }
        init::pause();
    }
    if freeze::ABLE {
        agent.guest.end_freeze();
    }
    if let Some(init) = agent.guest.tables.init.first() {
        init.end();
    }
    daemon::remove_pid_file(options);
    end
}

/// Opens the channels. One that the first process cannot open is waited for. A function of its own, whose part of the
/// stack is free again when the agent serves.
#[inline(never)]
fn open(
    options: &Options,
    memory: &'static mut [ChannelMemory],
    channels: &mut Vec<Channel, CHANNELS>,
    is_first: bool,
) -> Result<(), Failed> {
    for (place, memory) in options.channels.iter().zip(memory) {
        // There is room for as many as there may be places.
        let _ = channels.push(Channel::new(place, channels.len(), options, memory)).map_err(mem::forget);
        if let Some(channel) = channels.last_mut()
            && let Err(error) = channel.open()
            && !is_first
        {
            let of_device = packed!("%: !; has the machine this channel, and its driver? --retry-path waits for it");
            let is_missing = error == Errno::NOENT && !place.method.listens();
            return Err(say_why(if is_missing { of_device } else { b"%: !" }, place.path.to_bytes(), error));
        }
    }
    Ok(())
}
