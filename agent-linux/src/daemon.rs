//! Life in the background: the file with the number of the process, and the way there.

#![allow(unsafe_code, reason = "a forked process")]

use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

use agent_core::packed;
use rustix::fs::{CWD, Mode, OFlags, fchmod, ftruncate, openat, unlink};
use rustix::process::{chdir, getpid, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::event_loop::block_signals;
use crate::log::{Failed, say_of, say_why};
use crate::options::Options;
use crate::sys;
use crate::text::decimal;

/// Closes what whoever started the agent has left open, but for the standard descriptors and so many passed sockets
/// behind them. To be called before anything is opened.
pub fn close_inherited(passed: usize) {
    let first = u32::try_from(passed).unwrap_or(0).wrapping_add(3);
    // SAFETY: nothing of the agent's is open yet.
    unsafe { sys::close_range(first, u32::MAX) };
}

/// Goes on as a copy of this process, in the background. Returns `true` in the copy; the other one is done.
#[inline(never)]
pub fn detach() -> rustix::io::Result<bool> {
    block_signals(false);
    // SAFETY: the parent ends at once and leaves everything to the child, which is the agent from here on.
    let child = unsafe { sys::fork() }?;
    if child > 0 {
        // Complete before the parent ends: that is what an init system waits for.
        write_pid(sys::wide(child));
        return Ok(false);
    }
    sys::become_agent();
    let _ = setsid();
    let _ = chdir(c"/");
    // What programs of a host write is not for everyone, whatever started the agent.
    umask(Mode::from_raw_mode(0o077));
    if let Ok(null) = sys::open(CWD, c"/dev/null", OFlags::RDWR) {
        let _ = (dup2_stdin(&null), dup2_stdout(&null), dup2_stderr(&null));
    }
    Ok(true)
}

/// The number of the process stands in a file, which is locked for as long as that lives: its descriptor, or 0 if there
/// is none.
static PID_FILE: AtomicUsize = AtomicUsize::new(0);

/// Takes the pid file, unless another agent has it. A link is not followed.
#[inline(never)]
pub fn take_pid_file(options: &Options) -> Result<(), Failed> {
    let path = options.pid_file();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) if sys::lock(&file).is_ok() => {
            // Whoever looks for the agent may read it, also where it is made late, by a daemon.
            let _ = fchmod(&file, Mode::from_raw_mode(0o644));
            let _ = ftruncate(&file, 0);
            PID_FILE.store(sys::raw(&file), Ordering::Relaxed);
            mem::forget(file);
            Ok(())
        }
        Ok(_) => Err(say_of(packed!("pid file '%': another agent is running"), path.to_bytes())),
        Err(error) => Err(say_why(b"pid file '%': !", path.to_bytes(), error)),
    }
}

/// Puts the number of the agent's process into the pid file, if there is one.
#[inline(never)]
pub fn write_pid(pid: usize) {
    let file = PID_FILE.load(Ordering::Relaxed);
    if file != 0 {
        sys::print(file, decimal(u64::try_from(pid).unwrap_or(0), 1, &mut [0; 20]));
        sys::print(file, b"\n");
    }
}

/// The agent ends, and its pid file with it.
#[inline(never)]
pub fn remove_pid_file(options: &Options) {
    if PID_FILE.load(Ordering::Relaxed) != 0 {
        let _ = unlink(options.pid_file());
    }
}

/// The number of this process.
pub fn this_process() -> usize {
    usize::try_from(getpid().as_raw_nonzero().get()).unwrap_or(0)
}
