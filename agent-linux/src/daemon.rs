//! Life in the background: the file with the number of the process, and the way there.

#![allow(unsafe_code, reason = "a forked process")]

use core::ffi::CStr;
use core::mem::ManuallyDrop;

use agent_core::packed;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ftruncate, memfd_create, openat, unlink};
use rustix::io::write;
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::event_loop::block_signals;
use crate::log::{Failed, fail, why};
use crate::sys;
use crate::text::decimal;

/// Closes what whoever started the agent has left open, but for the standard descriptors and so many passed sockets
/// behind them. To be called before anything is opened.
pub fn close_inherited(passed: usize) {
    let first = u32::try_from(passed).unwrap_or(0).wrapping_add(3);
    // SAFETY: nothing of the agent's is open yet.
    unsafe { sys::close_range(first, u32::MAX) };
}

/// The file with the number of the process, locked for as long as that lives.
pub struct PidFile {
    file: ManuallyDrop<OwnedFd>,
    path: &'static CStr,
}

impl PidFile {
    /// Takes the file, unless another agent has it. A link is not followed. There is none while file systems are frozen:
    /// making it might have to wait for the thaw.
    #[inline(never)]
    pub fn take(path: &'static CStr, frozen: bool) -> Result<Self, Failed> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = path.to_bytes();
        let (path, opened) = if frozen {
            (c"", memfd_create(c"nanoga-pid", MemfdFlags::CLOEXEC))
        } else {
            (path, openat(CWD, path, flags, Mode::from_raw_mode(0o644)))
        };
        match opened {
            Ok(file) if sys::lock(&file).is_ok() => Ok(PidFile { file: ManuallyDrop::new(file), path }),
            Ok(_) => Err(fail(packed!("pid file '%': another agent is running"), &[name])),
            Err(error) => Err(fail(b"pid file '%': !", &[name, why(sys::errno(error))])),
        }
    }

    /// Goes on as a copy of this process, in the background. Returns `true` in the copy; the other one is done.
    #[inline(never)]
    pub fn detach(&self) -> rustix::io::Result<bool> {
        block_signals(false);
        // SAFETY: the parent ends at once and leaves everything to the child, which is the agent from here on.
        let child = unsafe { sys::fork() }.inspect_err(|_| self.remove())?;
        if child > 0 {
            // Complete before the parent ends: that is what an init system waits for.
            let mut space = [0; 20];
            let digits = decimal(u64::try_from(child).unwrap_or(0), 1, &mut space);
            let _ = (ftruncate(&*self.file, 0), write(&*self.file, digits), write(&*self.file, b"\n"));
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

    /// The agent ends.
    pub fn remove(&self) {
        let _ = unlink(self.path);
    }
}
