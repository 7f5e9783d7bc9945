//! Jobs: what takes long is done by a copy of the agent, while the agent goes on serving.
//!
//! A worker is forked, runs one function from top to bottom, writes its report into a pipe and ends. It knows nothing of
//! what is done there, nor of the event loop, which calls [`Jobs::reap`] when a child has ended.

#![allow(unsafe_code, reason = "a forked process, which closes what it does not need")]

use core::task::Poll;

use agent_core::guest::{Errno, Job};
use linux_raw_sys::errno;
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{fcntl_dupfd_cloexec, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, setsid, wait};

use crate::sys::{self, SignalSet};

/// Jobs at a time, those included that have ended and were not yet asked for. Beyond: EAGAIN. A channel has one request
/// in work, so this bounds channels that wait at the same time.
pub const CAPACITY: usize = 8;

/// What a worker has to say, in a form its starter knows.
pub type Report = [u8; 4];

/// The jobs of the agent.
#[derive(Default)]
pub struct Jobs {
    slots: [Option<Slot>; CAPACITY],
    /// The last number that was given away.
    last: u32,
}

struct Slot {
    job: Job,
    worker: Pid,
    state: State,
}

enum State {
    /// The report will come out of this pipe.
    Running(OwnedFd),
    /// Nobody waits for it, but the process is still there.
    Abandoned,
    /// The process is gone.
    Ended(Result<Report, Errno>),
}

impl Jobs {
    /// Starts a worker that does this and reports.
    pub fn start(&mut self, work: &mut dyn FnMut() -> Report) -> Result<Job, Errno> {
        let number = self.last.checked_add(1).ok_or(EAGAIN)?;
        let slot = self.slots.iter_mut().find(|slot| slot.is_none()).ok_or(EAGAIN)?;
        let (from_worker, to_agent) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(sys::errno)?;
        // SAFETY: the child does not come back from `be_worker`.
        let Some(worker) = (unsafe { sys::fork() })? else { be_worker(&to_agent, work) };
        self.last = number;
        let job = Job(number);
        *slot = Some(Slot { job, worker, state: State::Running(from_worker) });
        Ok(job)
    }

    /// The report of this job, once its process has ended; an error if it was killed. Ready once.
    pub fn poll(&mut self, job: Job) -> Poll<Result<Report, Errno>> {
        if let Some(place) = self.find(job)
            && let Some(Slot { state: State::Ended(result), .. }) = *place
        {
            *place = None;
            return Poll::Ready(result);
        }
        Poll::Pending
    }

    /// Nobody will ask for this job any more.
    pub fn abandon(&mut self, job: Job) {
        if let Some(place) = self.find(job) {
            match place {
                Some(Slot { state: state @ State::Running(_), .. }) => *state = State::Abandoned,
                Some(Slot { state: State::Ended(_), .. }) => *place = None,
                _ => {}
            }
        }
    }

    /// Collects every child that has ended: workers and, if the agent is PID 1, orphans. To be called after SIGCHLD,
    /// of which several merge into one.
    pub fn reap(&mut self) {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            for place in &mut self.slots {
                let Some(slot) = place else { continue };
                if slot.worker != pid {
                    continue;
                }
                match &slot.state {
                    State::Running(pipe) => slot.state = State::Ended(receive(pipe)),
                    State::Abandoned => *place = None,
                    // Its number is in use again, by another process.
                    State::Ended(_) => {}
                }
            }
        }
    }

    fn find(&mut self, job: Job) -> Option<&mut Option<Slot>> {
        self.slots.iter_mut().find(|place| place.as_ref().is_some_and(|slot| slot.job == job))
    }
}

/// The report, which a worker that came to its end has left in the pipe.
fn receive(pipe: &OwnedFd) -> Result<Report, Errno> {
    let mut report = Report::default();
    match read(pipe, report.as_mut_slice()) {
        Ok(length) if length == report.len() => Ok(report),
        _ => Err(ECANCELED),
    }
}

/// The life of a worker.
fn be_worker(to_agent: &OwnedFd, work: &mut dyn FnMut() -> Report) -> ! {
    // The agent blocks signals, to read them from a descriptor; nobody would read ours.
    sys::default_signals();
    sys::block_only(SignalSet::EMPTY);
    let _ = setsid();
    if let Ok(pipe) = fcntl_dupfd_cloexec(to_agent, 3) {
        let number = pipe.as_raw_fd().unsigned_abs();
        // SAFETY: this process uses no other descriptor from here on, and drops nothing: it only exits.
        unsafe {
            sys::close_range(0, number.wrapping_sub(1));
            sys::close_range(number.wrapping_add(1), u32::MAX);
        }
        // For a helper program: they get the numbers 0, 1 and 2.
        for _ in 0..3 {
            let _ = openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty()).map(OwnedFd::into_raw_fd);
        }
        let _ = write(&pipe, &work());
    }
    sys::exit(0)
}

const EAGAIN: Errno = sys::errno_of(errno::EAGAIN);
/// What a job's end is called whose worker was killed.
const ECANCELED: Errno = sys::errno_of(errno::ECANCELED);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, kill_process};

    use super::*;
    use crate::testing::{alone, must_be_alone};

    fn until_ready(jobs: &mut Jobs, job: Job) -> Result<Report, Errno> {
        for _ in 0..1000 {
            jobs.reap();
            if let Poll::Ready(result) = jobs.poll(job) {
                return result;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{job:?} never ended");
    }

    /// `reap` takes every child of the process, so none of another test may be there.
    #[test]
    #[ignore = "run by its namesake in a process of its own"]
    fn inside_workers_report_once_and_leave_nothing() {
        must_be_alone();
        let mut jobs = Jobs::default();
        let first = jobs.start(&mut || [1, 2, 3, 4]).unwrap();
        assert_eq!(until_ready(&mut jobs, first), Ok([1, 2, 3, 4]));
        assert_eq!(jobs.poll(first), Poll::Pending, "taken");

        // Killed, and one that aborts by itself.
        let killed = jobs
            .start(&mut || loop {
                std::thread::sleep(Duration::from_secs(100));
            })
            .unwrap();
        assert_ne!(killed, first, "numbers are not used again");
        jobs.reap();
        assert_eq!(jobs.poll(killed), Poll::Pending, "still runs");
        let pid = jobs.slots[0].as_ref().unwrap().worker;
        kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(until_ready(&mut jobs, killed), Err(ECANCELED));
        let silent = jobs.start(&mut || sys::exit(0)).unwrap();
        assert_eq!(until_ready(&mut jobs, silent), Err(ECANCELED));

        // As many as there is room for, together.
        let all = [(); CAPACITY].map(|()| jobs.start(&mut || [9; 4]).unwrap());
        assert_eq!(jobs.start(&mut || [0; 4]), Err(EAGAIN));
        for job in all {
            assert_eq!(until_ready(&mut jobs, job), Ok([9; 4]));
        }

        // Abandoned after its end and before.
        let ended = jobs.start(&mut || [0; 4]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        jobs.reap();
        jobs.abandon(ended);
        let running = jobs
            .start(&mut || {
                std::thread::sleep(Duration::from_millis(50));
                [0; 4]
            })
            .unwrap();
        jobs.abandon(running);
        jobs.abandon(running);
        jobs.abandon(Job(4_000_000));
        assert_eq!(jobs.slots.iter().flatten().count(), 1);
        std::thread::sleep(Duration::from_millis(200));
        jobs.reap();
        assert_eq!(jobs.slots.iter().flatten().count(), 0);
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
        let mut jobs = Jobs::default();
        let job = jobs
            .start(&mut || {
                let descriptors = (0..1000)
                    .filter(|number| std::fs::read_link(std::format!("/proc/self/fd/{number}")).is_ok())
                    .count();
                let null = (0..3).all(|number| {
                    std::fs::read_link(std::format!("/proc/self/fd/{number}")).is_ok_and(|to| to.ends_with("null"))
                });
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                [
                    u8::try_from(descriptors).unwrap(),
                    u8::from(null),
                    u8::from(status.contains("SigBlk:\t0000000000000000")),
                    u8::from(status.contains("SigIgn:\t0000000000000000")),
                ]
            })
            .unwrap();
        assert_eq!(until_ready(&mut jobs, job), Ok([4, 1, 1, 1]), "/dev/null thrice, and the pipe");
    }

    #[test]
    fn a_worker_has_no_descriptors_and_no_blocked_signals() {
        alone("guest::job::tests::inside_a_worker_has_no_descriptors_and_no_blocked_signals");
    }
}
