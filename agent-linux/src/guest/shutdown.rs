//! The end of the guest: by the distribution's own program where it has one, otherwise by what the running init listens
//! to, otherwise by the kernel (reboot(2)).
//!
//! All of it happens in a worker, as a program may take its time. It knows nothing of hosts and replies.

use core::ffi::CStr;
use core::task::Poll;

use agent_core::guest::{Errno, Job, Shutdown, ShutdownError, ShutdownMode};
use linux_raw_sys::errno;
use rustix::fs::{CWD, OFlags, sync};
use rustix::io::write;
use rustix::process::{Pid, getpid};
use rustix::system::{RebootCommand, reboot};

use super::LinuxGuest;
use super::job::{KILLED, NOT_RUN, Report, run};
use crate::sys;
use crate::text::until;

impl Shutdown for LinuxGuest {
    fn shut_down(&mut self, mode: ShutdownMode) -> Result<Job, Errno> {
        let way = match mode {
            ShutdownMode::PowerDown => &POWER_DOWN,
            ShutdownMode::Halt => &HALT,
            ShutdownMode::Reboot => &REBOOT,
        };
        if let Some(init) = self.tables.init.first_mut() {
            // It ends before anybody could ask for this job, of which there is none.
            init.begin_end(mode);
            return Ok(Job(0));
        }
        let is_init = getpid() == Pid::INIT;
        self.tables.jobs.start(&mut || end(way, is_init))
    }

    fn shutting_down(&mut self, job: Job) -> Poll<Result<(), ShutdownError>> {
        self.tables.jobs.poll(job).map(|report| match report.to_le_bytes() {
            [0, 0, 0, 0] => Ok(()),
            [status, 0, 0, 0] => Err(ShutdownError::Helper(status)),
            _ if report == KILLED => Err(ShutdownError::Kernel(sys::errno_of(errno::ECANCELED))),
            [_, _, low, high] => Err(ShutdownError::Kernel(Errno(u16::from_le_bytes([low, high])))),
        })
    }
}

/// What a way to end is called by those who do it.
struct Way {
    /// The program for it alone.
    program: &'static CStr,
    /// The option of shutdown(8).
    option: &'static CStr,
    /// The signals of systemd(1), where `SIGRTMIN` is 34, and of busybox's init.
    systemd: u32,
    busybox: u32,
    /// The runlevel of sysvinit's init(8) and runit-init(8).
    runlevel: &'static CStr,
    /// The command of reboot(2).
    command: RebootCommand,
}

const POWER_DOWN: Way = Way {
    program: c"/sbin/poweroff",
    option: c"-P",
    systemd: 38,
    busybox: 12,
    runlevel: c"0",
    command: RebootCommand::PowerOff,
};

const HALT: Way = Way {
    program: c"/sbin/halt",
    option: c"-H",
    systemd: 37,
    busybox: 10,
    runlevel: c"0",
    command: RebootCommand::Halt,
};

const REBOOT: Way = Way {
    program: c"/sbin/reboot",
    option: c"-r",
    systemd: 39,
    busybox: 15,
    runlevel: c"6",
    command: RebootCommand::Restart,
};

/// Ends the guest, and reports: 0, the exit status of the program that failed, or an error of the kernel in the upper
/// half.
fn end(way: &Way, is_init: bool) -> Report {
    // Where the agent is the first process, programs would only ask it.
    if !is_init {
        let status = run_programs(way);
        if status != NOT_RUN {
            return status.into();
        }
        if tell_init(way) {
            return 0;
        }
    }
    sync();
    match reboot(way.command) {
        Ok(()) => 0,
        Err(error) => Report::from(sys::errno(error).0).wrapping_shl(16),
    }
}

/// The exit status of the first program that is there, or [`NOT_RUN`].
#[inline(never)]
fn run_programs(way: &Way) -> u8 {
    // Busybox's program does nothing but signal init, whether that listens or not.
    if !is_link_to(way.program, b"/busybox") {
        let status = run(&mut || sys::execve(way.program, &[]));
        if status != NOT_RUN {
            return status;
        }
    }
    let words = [c"-h", way.option, c"+0", c"hypervisor initiated shutdown"];
    run(&mut || sys::execve(c"/sbin/shutdown", &words))
}

/// Tells the first process, if it is an init that is known here, and listens.
#[inline(never)]
fn tell_init(way: &Way) -> bool {
    if is_link_to(INIT, b"/systemd") {
        return sys::kill(1, way.systemd);
    }
    if is_link_to(INIT, b"/busybox") {
        // It is many programs, by the first word that it was called with: it may be a script's shell, too.
        let mut words = [0; 64];
        sys::read_file(c"/proc/1/cmdline", &mut words);
        return until(&words, 0).ends_with(b"init") && sys::kill(1, way.busybox);
    }
    // What openrc-init reads is the name of the program.
    if tell(c"/run/openrc/init.ctl", way.program.to_bytes().strip_prefix(b"/sbin/").unwrap_or_default()) {
        return true;
    }
    // Those that listen to a program of their own.
    let program = if is_link_to(INIT, b"/runit") { c"/sbin/runit-init" } else { c"/sbin/telinit" };
    run(&mut || sys::execve(program, &[way.runlevel])) == 0
}

/// A link to the program that is the first process.
const INIT: &CStr = c"/proc/1/exe";

/// Writes into a pipe, if somebody reads it.
fn tell(pipe: &CStr, bytes: &[u8]) -> bool {
    sys::open(CWD, pipe, OFlags::WRONLY | OFlags::NONBLOCK).is_ok_and(|pipe| write(&pipe, bytes).is_ok())
}

/// Is this a symbolic link to something with that name? (What is running may have been deleted: the kernel says so
/// behind the name.)
#[inline(never)]
fn is_link_to(path: &CStr, name: &[u8]) -> bool {
    let mut space = [0; 128];
    sys::read_link(CWD, path, &mut space).windows(name.len()).any(|part| part == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_name_at_its_end() {
        let own = std::env::current_exe().unwrap();
        let name = own.file_name().unwrap().as_encoded_bytes();
        assert!(is_link_to(c"/proc/self/exe", name) || own.as_os_str().len() > 128);
        assert!(!is_link_to(c"/proc/self/exe", b"/busybox"));
        assert!(!is_link_to(c"/proc/self/status", b"status"), "no link");
        assert!(!is_link_to(c"/nonexistent", b"nonexistent"));
    }
}
