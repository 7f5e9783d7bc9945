//! Jobs: what takes long is done by a copy of the agent, while the agent goes on serving.
//!
//! A worker is forked, runs one function from top to bottom, leaves its report in a file in memory and ends. It knows
//! nothing of what is done there, nor of the event loop, which calls [`Jobs::reap`] when a child has ended.

#![allow(unsafe_code, reason = "a forked process, which closes what it does not need")]

use core::task::Poll;

use agent_core::guest::{Errno, Job};
use linux_raw_sys::errno;
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{CWD, MemfdFlags, OFlags, SeekFrom, memfd_create, seek};
use rustix::io::{pwrite, read, write};
use rustix::process::setsid;

use crate::sys::{self, SignalSet};

/// Jobs at a time, those included that have ended and were not yet asked for. Beyond: EAGAIN. A channel has one request
/// in work, so this bounds channels that wait at the same time.
pub const CAPACITY: usize = 8;

/// What a worker has to say, as a number that its starter knows.
pub type Report = u32;

/// The report of a worker that was killed before it could say anything.
pub const KILLED: Report = Report::MAX;

/// The jobs of the agent.
#[repr(C)]
pub struct Jobs {
    /// The last number that was given away.
    last: u32,
    slots: [Slot; CAPACITY],
}

/// Free if there is neither a worker nor a file.
struct Slot {
    /// The number of the job.
    job: u32,
    /// The process, until it has ended; then 0.
    worker: usize,
    /// The report stands at the front of this file, if anybody waits for it.
    file: Option<OwnedFd>,
}

impl Jobs {
    /// No jobs.
    pub const NONE: Self = Jobs { last: 0, slots: [const { Slot { job: 0, worker: 0, file: None } }; CAPACITY] };

    /// Starts a worker that does this and reports.
    pub fn start(&mut self, work: &mut dyn FnMut() -> Report) -> Result<Job, Errno> {
        self.start_telling(&mut |_| work())
    }

    /// The same for one that may have more to say: it writes that to the file, and it is read from there.
    pub fn start_telling(&mut self, work: &mut dyn FnMut(&OwnedFd) -> Report) -> Result<Job, Errno> {
        let slot = self.slots.iter_mut().find(|slot| slot.worker == 0 && slot.file.is_none()).ok_or(EAGAIN)?;
        let file = memfd_create(c"nanoga-job", MemfdFlags::CLOEXEC).map_err(sys::errno)?;
        // SAFETY: the child does not come back from `be_worker`.
        let worker = unsafe { sys::fork() }.map_err(sys::errno)?;
        if worker == 0 {
            be_worker(&file, work);
        }
        // Nobody lives to see it come round.
        self.last = self.last.wrapping_add(1);
        *slot = Slot { job: self.last, worker: sys::wide(worker), file: Some(file) };
        Ok(Job(self.last))
    }

    /// The report of this job, once its process has ended, or [`KILLED`]. Ready once.
    pub fn poll(&mut self, job: Job) -> Poll<Report> {
        self.take(job).map(|(report, _)| report)
    }

    /// The same, and the file with what else it has to say.
    #[inline(never)]
    pub fn take(&mut self, job: Job) -> Poll<(Report, OwnedFd)> {
        if let Some(slot) = self.find(job)
            && slot.worker == 0
            && let Some(file) = slot.file.take()
        {
            // All of it or nothing, as it was written. What is behind it can be read now.
            let mut report = KILLED.to_ne_bytes();
            let _ = seek(&file, SeekFrom::Start(0));
            let _ = read(&file, report.as_mut_slice());
            return Poll::Ready((Report::from_ne_bytes(report), file));
        }
        Poll::Pending
    }

    /// The process of this job, if it still runs; otherwise 0.
    pub fn worker(&self, job: Job) -> usize {
        self.slots.iter().find(|slot| slot.job == job.0).map_or(0, |slot| slot.worker)
    }

    /// Has its process not ended yet? Also where nobody waits for it any more.
    pub fn is_running(&self, job: Job) -> bool {
        self.worker(job) != 0
    }

    /// Nobody will ask for this job any more.
    pub fn abandon(&mut self, job: Job) {
        if let Some(slot) = self.find(job) {
            slot.file = None;
        }
    }

    /// Collects every child that has ended: workers, `others` and, if the agent is PID 1, orphans. To be called after
    /// SIGCHLD, of which several merge into one.
    pub fn reap(&mut self, others: &mut dyn FnMut(usize, u32)) {
        loop {
            let mut status = 0;
            let pid = sys::wait(sys::ANY, &mut status);
            if pid == 0 {
                return;
            }
            others(pid, status);
            for slot in &mut self.slots {
                if slot.worker == pid {
                    slot.worker = 0;
                }
            }
        }
    }

    fn find(&mut self, Job(job): Job) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.job == job)
    }
}

/// The life of a worker.
fn be_worker(file: &OwnedFd, work: &mut dyn FnMut(&OwnedFd) -> Report) -> ! {
    // The agent blocks signals, to read them from a descriptor; nobody would read ours.
    sys::default_signals();
    sys::block_only(SignalSet::EMPTY);
    let _ = setsid();
    // Above the standard descriptors, which the agent has: see `keep_standard_descriptors`.
    let number = file.as_raw_fd().unsigned_abs();
    // SAFETY: this process uses no other descriptor from here on, and drops nothing: it only exits.
    unsafe {
        sys::close_range(0, number.wrapping_sub(1));
        sys::close_range(number.wrapping_add(1), u32::MAX);
    }
    // For a helper program: they get the numbers 0, 1 and 2.
    for _ in 0..3 {
        let _ = sys::open_inheritable(CWD, c"/dev/null", OFlags::RDWR).map(OwnedFd::into_raw_fd);
    }
    // The report stands first, and is known last.
    let _ = write(file, &KILLED.to_ne_bytes());
    let report = work(file);
    let _ = pwrite(file, &report.to_ne_bytes(), 0);
    sys::exit(0)
}

/// The exit status of what is not installed or could not be executed, as a shell reports it.
pub const NOT_RUN: u8 = 127;

/// Runs a program to its end, for a worker: its exit status (128 + N when signal N killed it), or [`NOT_RUN`] if
/// `become_it` comes back.
#[inline(never)]
pub fn run(become_it: &mut dyn FnMut()) -> u8 {
    // SAFETY: the child becomes another program, or ends.
    let Ok(child) = (unsafe { sys::fork() }) else {
        return NOT_RUN;
    };
    if child == 0 {
        sys::default_signals();
        sys::block_only(SignalSet::EMPTY);
        become_it();
        sys::exit(NOT_RUN);
    }
    let mut status = 0;
    if sys::wait(sys::wide(child), &mut status) == 0 {
        return NOT_RUN;
    }
    // The signal that killed it, and its exit status (wait(2)).
    match status.to_le_bytes() {
        [0, status, ..] => status,
        [signal, ..] => signal | 128,
    }
}

const EAGAIN: Errno = sys::errno_of(errno::EAGAIN);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::testing::{alone, must_be_alone};

    fn until_ready(jobs: &mut Jobs, job: Job) -> Report {
        for _ in 0..1000 {
            jobs.reap(&mut |_, _| {});
            if let Poll::Ready(report) = jobs.poll(job) {
                return report;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{job:?} never ended");
    }

    fn busy(jobs: &Jobs) -> usize {
        jobs.slots.iter().filter(|slot| slot.worker != 0 || slot.file.is_some()).count()
    }

    /// `reap` takes every child of the process, so none of another test may be there.
    #[test]
    #[ignore = "run by its namesake in a process of its own"]
    fn inside_workers_report_once_and_leave_nothing() {
        must_be_alone();
        let mut jobs = Jobs::NONE;
        let first = jobs.start(&mut || 0x0102_0304).unwrap();
        assert_eq!(until_ready(&mut jobs, first), 0x0102_0304);
        assert_eq!(jobs.poll(first), Poll::Pending, "taken");

        // Killed, and one that aborts by itself.
        let killed = jobs
            .start(&mut || loop {
                std::thread::sleep(Duration::from_secs(100));
            })
            .unwrap();
        assert_ne!(killed, first, "numbers are not used again");
        jobs.reap(&mut |_, _| {});
        assert_eq!(jobs.poll(killed), Poll::Pending, "still runs");
        let pid = i32::try_from(jobs.slots[0].worker).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        assert_eq!(until_ready(&mut jobs, killed), KILLED);
        let silent = jobs.start(&mut || sys::exit(0)).unwrap();
        assert_eq!(until_ready(&mut jobs, silent), KILLED);

        // As many as there is room for, together.
        let all = [(); CAPACITY].map(|()| jobs.start(&mut || 9).unwrap());
        assert_eq!(jobs.start(&mut || 0), Err(EAGAIN));
        for job in all {
            assert_eq!(until_ready(&mut jobs, job), 9);
        }

        // Abandoned after its end and before.
        let ended = jobs.start(&mut || 0).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        jobs.reap(&mut |_, _| {});
        jobs.abandon(ended);
        let running = jobs
            .start(&mut || {
                std::thread::sleep(Duration::from_millis(50));
                0
            })
            .unwrap();
        jobs.abandon(running);
        jobs.abandon(running);
        jobs.abandon(Job(4_000_000));
        let start = std::time::Instant::now();
        while busy(&jobs) > 0 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
            jobs.reap(&mut |_, _| {});
        }
        assert_eq!(busy(&jobs), 0);
        assert_eq!(jobs.poll(ended), Poll::Pending);
        assert_eq!(jobs.poll(running), Poll::Pending);
    }

    #[test]
    fn workers_report_once_and_leave_nothing() {
        alone("guest::job::tests::inside_workers_report_once_and_leave_nothing");
    }

    #[test]
    #[ignore = "run by its namesake in a process of its own"]
    fn inside_a_worker_has_no_descriptors_and_no_blocked_signals() {
        must_be_alone();
        let _open = std::fs::File::open("/proc/self/status").unwrap();
        sys::block_only(SignalSet::EMPTY.with(17).with(15));
        let mut jobs = Jobs::NONE;
        let job = jobs
            .start(&mut || {
                let descriptors = (0..1000)
                    .filter(|number| std::fs::read_link(std::format!("/proc/self/fd/{number}")).is_ok())
                    .count();
                let null = (0..3).all(|number| {
                    std::fs::read_link(std::format!("/proc/self/fd/{number}")).is_ok_and(|to| to.ends_with("null"))
                });
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                u32::from_be_bytes([
                    u8::try_from(descriptors).unwrap(),
                    u8::from(null),
                    u8::from(status.contains("SigBlk:\t0000000000000000")),
                    u8::from(status.contains("SigIgn:\t0000000000000000")),
                ])
            })
            .unwrap();
        assert_eq!(until_ready(&mut jobs, job).to_be_bytes(), [4, 1, 1, 1], "/dev/null thrice, and the file");
    }

    #[test]
    fn a_worker_has_no_descriptors_and_no_blocked_signals() {
        alone("guest::job::tests::inside_a_worker_has_no_descriptors_and_no_blocked_signals");
    }
}
