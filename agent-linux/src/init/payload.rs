//! The program that the guest is there for: started, told signals, and what becomes of it.

#![allow(unsafe_code, reason = "a forked process, which closes what it does not need")]

use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::process::setsid;

use super::calls::{self, Arguments};
use super::open_console;
use crate::guest::job;
use crate::log::failed;
use crate::log::say;
use crate::sys::{self, SignalSet};
use crate::text::decimal;

/// Starts the program: the number of its process.
pub(super) fn start(arguments: &mut Arguments) -> Result<usize> {
    // SAFETY: the child becomes another program, or ends.
    let process = unsafe { sys::fork() }?;
    if process == 0 {
        become_program(arguments);
    }
    Ok(sys::wide(process))
}

/// In a session of its own, which the console controls, and with nothing else of the agent's.
fn become_program(arguments: &mut Arguments) -> ! {
    sys::default_signals();
    sys::block_only(SignalSet::EMPTY);
    let _ = setsid();
    open_console(OFlags::empty());
    calls::take_terminal();
    // SAFETY: nothing is used any more but the three.
    unsafe { sys::close_range(3, u32::MAX) };
    let error = arguments.execute();
    failed(arguments.program().to_bytes(), error);
    sys::exit(job::NOT_RUN)
}

/// Tells the console what became of it.
pub(super) fn report(arguments: &Arguments, status: u32) {
    let mut space = [0; 20];
    // wait(2): the signal that killed it, and its exit status.
    let [signal, code, ..] = status.to_le_bytes();
    let (form, number): (&[u8], u8) = match signal & 0x7f {
        0 => (b"% ended with status %", code),
        signal => (b"% was killed by signal %", signal),
    };
    say(form, &[arguments.program().to_bytes(), decimal(u64::from(number), 1, &mut space)]);
}
