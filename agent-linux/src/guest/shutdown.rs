//! The end of the guest: by the distribution's own program where it has one, otherwise by what the running init listens
//! to, otherwise by the kernel (reboot(2)).
//!
//! All of it happens in a worker, as a program may take its time. It knows nothing of hosts and replies.

use core::ffi::CStr;
use core::task::Poll;

use agent_core::guest::{Errno, Job, Shutdown, ShutdownError, ShutdownMode};
use linux_raw_sys::errno;
use rustix::fs::{CWD, OFlags, readlinkat_raw, sync};
use rustix::io::write;
use rustix::process::{Pid, getpid};
use rustix::system::{RebootCommand, reboot};

use super::LinuxGuest;
use super::job::{KILLED, NOT_RUN, Report, run};
use crate::sys;

impl Shutdown for LinuxGuest {
    fn shut_down(&mut self, mode: ShutdownMode) -> Result<Job, Errno> {
        let way = match mode {
            ShutdownMode::PowerDown => &POWER_DOWN,
            ShutdownMode::Halt => &HALT,
            ShutdownMode::Reboot => &REBOOT,
        };
        let is_init = getpid() == Pid::INIT;
        self.jobs.start(&mut || end(way, is_init))
    }

    fn shutting_down(&mut self, job: Job) -> Poll<Result<(), ShutdownError>> {
        self.jobs.poll(job).map(|report| match report.to_le_bytes() {
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
    let mut space = [0; NAME];
    // Busybox's program does nothing but signal init, whether that listens or not.
    if !link_name(way.program, &mut space).starts_with(b"busybox") {
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
    let mut space = [0; NAME];
    let init = link_name(c"/proc/1/exe", &mut space);
    let mut status = [0; 2048];
    let length = sys::read_file(c"/proc/1/status", &mut status);
    let status = status.get(..length).unwrap_or_default();
    for (name, signal) in [(&b"systemd"[..], way.systemd), (b"busybox", way.busybox)] {
        if init.starts_with(name) && listens(status, signal) {
            return sys::kill(1, signal);
        }
    }
    // What openrc-init reads is the name of the program.
    if tell(c"/run/openrc/init.ctl", sys::tail(way.program, 6).to_bytes()) {
        return true;
    }
    // Those that listen to a program of their own.
    let program = if init.starts_with(b"runit") { c"/sbin/runit-init" } else { c"/sbin/telinit" };
    run(&mut || sys::execve(program, &[way.runlevel])) == 0
}

/// Writes into a pipe, if somebody reads it.
fn tell(pipe: &CStr, bytes: &[u8]) -> bool {
    sys::open(CWD, pipe, OFlags::WRONLY | OFlags::NONBLOCK).is_ok_and(|pipe| write(&pipe, bytes).is_ok())
}

/// The name at the end of what a symbolic link says; empty if there is no such link.
fn link_name<'s>(path: &CStr, space: &'s mut [u8; NAME]) -> &'s [u8] {
    let length = readlinkat_raw(CWD, path, &mut space[..]).unwrap_or(0);
    let target = space.get(..length).unwrap_or_default();
    target.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Bytes of a link that are read. Beyond: its end is unknown, and it names nothing that is known here.
const NAME: usize = 128;

/// Does a process with this `/proc/PID/status` (proc_pid_status(5)) catch the signal, or block it to read it elsewhere?
#[inline(never)]
fn listens(status: &[u8], signal: u32) -> bool {
    let bit = signal.wrapping_sub(1);
    status.split(|byte| *byte == b'\n').any(|line| {
        // Hexadecimal digits of a mask; the last one is that of the signals 1 to 4.
        let digit = line.iter().rev().nth(usize::try_from(bit >> 2).unwrap_or(usize::MAX));
        let digit = digit.and_then(|digit| char::from(*digit).to_digit(16)).unwrap_or(0);
        (line.starts_with(b"SigBlk:") || line.starts_with(b"SigCgt:")) && digit >> (bit & 3) & 1 == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_listens_to_what_it_catches_or_blocks() {
        let status = b"Name:\tinit\nSigQ:\t1/2\nSigPnd:\tffffffffffffffff\nSigBlk:\t7be3c0fe28014a03\n\
            SigIgn:\tffffffffffffffff\nSigCgt:\t0000000000000800\nCapInh:\t0000000000000000\n";
        let masks = 0x7be3_c0fe_2801_4a03_u64 | 0x800;
        for signal in 1..=64 {
            assert_eq!(listens(status, signal), masks >> (signal - 1) & 1 == 1, "signal {signal}");
        }
        assert!(!listens(b"", 1));
        assert!(!listens(b"SigCgt:\t", 15));
        assert!(!listens(b"SigCgt:", 64));
    }

    #[test]
    fn this_process_listens_to_what_it_says() {
        let mut status = [0; 4096];
        let length = sys::read_file(c"/proc/self/status", &mut status);
        // Rust's runtime catches SIGSEGV, and nobody can catch SIGKILL.
        assert!(listens(&status[..length], 11));
        assert!(!listens(&status[..length], 9));
        assert!(length < status.len());
    }

    #[test]
    fn the_name_of_a_link_is_the_last_part_of_its_target() {
        let mut space = [0; NAME];
        let own = std::env::current_exe().unwrap();
        let name = own.file_name().unwrap().as_encoded_bytes();
        assert_eq!(link_name(c"/proc/self/exe", &mut space), name);
        assert_eq!(link_name(c"/proc/self/status", &mut space), b"", "no link");
        assert_eq!(link_name(c"/nonexistent", &mut space), b"");
    }
}
