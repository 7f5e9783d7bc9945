//! The first process becomes another init; the agent goes on beside it.

#![allow(unsafe_code, reason = "a forked process")]

use core::ffi::CStr;
use core::ptr;

use linux_raw_sys::general::SIGKILL;
use rustix::process::setsid;

use crate::log::failed;
use crate::sys::{self, Strings};

/// Executes the program as the first process. True in the process that goes on as an ordinary agent; false if the program
/// could not be executed, and the agent is the first process still.
#[inline(never)]
pub(super) fn hand_off(program: &'static CStr, environment: Strings<'static>) -> bool {
    // SAFETY: the child is the agent from here on; the parent becomes another program, or ends the child.
    match unsafe { sys::fork() } {
        Ok(0) => {
            sys::become_agent();
            let _ = setsid();
            true
        }
        child => {
            let words = [program.as_ptr(), ptr::null()];
            // SAFETY: arrays of strings, which end in NULL.
            let error = unsafe { sys::execve_words(program, words.as_ptr(), environment.array()) };
            failed(program.to_bytes(), error);
            if let Ok(child) = child {
                sys::kill(sys::wide(child), SIGKILL);
            }
            false
        }
    }
}
