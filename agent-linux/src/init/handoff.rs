//! The first process becomes another init; the agent goes on beside it.

#![allow(unsafe_code, reason = "a forked process")]

use core::ffi::CStr;

use linux_raw_sys::general::SIGKILL;
use rustix::fs::OFlags;
use rustix::process::setsid;

use super::calls::Arguments;
use super::open_console;
use crate::log::failed;
use crate::sys::{self, Strings};

/// Executes the program as the first process, with these further words, as the kernel would have. True in the process
/// that goes on as an ordinary agent; false if the program could not be executed, and the agent is the first process
/// still.
#[inline(never)]
pub(super) fn hand_off(program: &'static CStr, words: Strings<'static>, environment: Strings<'static>) -> bool {
    // SAFETY: the child is the agent from here on; the parent becomes another program, or ends the child.
    match unsafe { sys::fork() } {
        Ok(0) => {
            sys::become_agent();
            let _ = setsid();
            true
        }
        child => {
            let mut arguments = Arguments::NONE;
            arguments.push_all(&mut [program].into_iter().chain(words));
            open_console(OFlags::empty());
            // SAFETY: arrays of strings, which end in NULL.
            let error = unsafe { sys::execve_words(program, arguments.array(), environment.array()) };
            open_console(OFlags::NONBLOCK);
            failed(program.to_bytes(), error);
            if let Ok(child) = child {
                sys::kill(sys::wide(child), SIGKILL);
            }
            false
        }
    }
}
