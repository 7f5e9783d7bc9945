//! Making file systems hold still, by FIFREEZE and FITHAW.
//!
//! From the start of a freeze to the end of the thaw nothing here may wait for a file system: what freezes or thaws, and
//! all that could be waiting for it, happens in workers. The agent itself only keeps count, and says nothing meanwhile.
//!
//! That something is frozen outlives the agent by a file in its state directory, as with qemu-ga(8).

use core::ffi::CStr;
use core::mem;
use core::task::Poll;

use agent_core::guest::{Errno, Freeze, FreezeError, Job};
use linux_raw_sys::errno;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags, accessat, statat, unlinkat};
use rustix::io::{read, write};
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};
use rustix::thread::{Timespec, nanosleep};

use super::LinuxGuest;
use super::disk_address::Node;
use super::job::{Jobs, KILLED, Report, run};
use super::mounts::{Mount, Mounts, Order, Refusal};
use crate::channel::{NEVER, after_ms};
use crate::log::{self, is_muted, mute, say};
use crate::state::State;
use crate::sys::{self, OfFileSystem};

/// Can anything be frozen at all? If not, nothing of this file is in the binary.
pub const ABLE: bool = cfg!(feature = "storage");

/// The file that says so.
const MARK: &CStr = c"qga.state.isfrozen";

/// Errors of a freeze that are none.
const EOPNOTSUPP: Errno = sys::errno_of(errno::EOPNOTSUPP);
const EBUSY: Errno = sys::errno_of(errno::EBUSY);

/// Thaws of one file system, at most: it may be frozen several times.
const THAWS: u32 = 1000;

/// Looks at a worker that was killed in the middle of freezing, and the time between them.
const LOOKS: u32 = 200;
const LOOK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Milliseconds before another try, where the thaw that was due could not be started.
const RETRY_MS: u64 = 10_000;

// Reports: how many, or what went wrong in the highest byte and an errno or exit status in the lowest ones. What it is
// about stands behind the report.
const COUNT: Report = 0x00FF_FFFF;
const MOUNTS: u8 = 1;
const OPEN: u8 = 2;
const FREEZE: u8 = 3;
const HOOK_MISSING: u8 = 4;
const HOOK_FAILED: u8 = 5;

/// What the agent knows of it.
pub struct Freezer {
    frozen: bool,
    /// When it ends by itself, on the monotonic clock.
    deadline_ms: u64,
    /// The thaw that runs was started by the deadline.
    overdue: bool,
    /// The log could not be opened yet.
    log_missing: bool,
    freeze: Work,
    thaw: Work,
    /// What the last of them left.
    file: Option<OwnedFd>,
}

/// The last job of a kind.
struct Work {
    job: Job,
    /// Its report; none while it runs.
    report: Option<Report>,
}

impl Work {
    /// No job has the number 0.
    const NONE: Self = Work { job: Job(0), report: Some(KILLED) };

    /// Its report, and what else it has to say, when it has just ended.
    #[inline(never)]
    fn collect(&mut self, jobs: &mut Jobs) -> Option<(Report, OwnedFd)> {
        match jobs.take(self.job) {
            Poll::Ready((report, file)) => {
                self.report = Some(report);
                Some((report, file))
            }
            Poll::Pending => None,
        }
    }

    /// How this job ended, if it has. One that is forgotten counts as killed.
    fn result(&self, job: Job) -> Poll<Result<u32, FreezeError>> {
        match (self.report, self.job == job) {
            (Some(report), true) => Poll::Ready(meaning(report)),
            (None, true) => Poll::Pending,
            (_, false) => Poll::Ready(meaning(KILLED)),
        }
    }
}

impl Freezer {
    /// Nothing is known to be frozen.
    pub const NEW: Self = Freezer {
        frozen: false,
        deadline_ms: NEVER,
        overdue: false,
        log_missing: false,
        freeze: Work::NONE,
        thaw: Work::NONE,
        file: None,
    };

    /// Is this job one of its own? Then nobody else may forget it.
    pub fn owns(&self, job: Job) -> bool {
        job == self.freeze.job || job == self.thaw.job
    }

    /// Whether something may be frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }
}

impl LinuxGuest {
    /// An agent before this one has left something frozen: see [`was_frozen`].
    pub fn start_frozen(&mut self) {
        say(b"file systems are frozen since before the agent started: waiting for a thaw", &[]);
        self.set_frozen(true);
        self.freezer.log_missing = true;
    }

    /// From now on something may be frozen, or nothing is any more.
    #[inline(never)]
    fn set_frozen(&mut self, frozen: bool) {
        let timeout_ms = u64::from(self.options.freeze_timeout_s).wrapping_mul(1000);
        let freezer = &mut self.freezer;
        freezer.frozen = frozen;
        freezer.deadline_ms = if frozen && timeout_ms > 0 { after_ms(timeout_ms) } else { NEVER };
        mute(frozen);
        if mem::take(&mut freezer.log_missing)
            && let Some(path) = self.options.log_file()
            && let Ok(file) = log::open(path)
        {
            log::turn_to(file);
        }
        if mem::take(&mut freezer.overdue) {
            say(b"file systems were frozen for too long: thawed", &[]);
        }
    }

    /// When [`LinuxGuest::tick`] wants to be called, in milliseconds of the monotonic clock.
    pub fn deadline_ms(&self) -> u64 {
        if ABLE { self.freezer.deadline_ms } else { NEVER }
    }

    /// The deadline has passed.
    pub fn tick(&mut self) {
        self.freezer.overdue = true;
        self.thaw_unasked();
    }

    /// Thaws what no host asks to, and tries again if that cannot be done now.
    fn thaw_unasked(&mut self) {
        self.freezer.deadline_ms = after_ms(RETRY_MS);
        let _ = self.thaw();
    }

    /// Looks for jobs of freezing that have ended.
    #[inline(never)]
    pub(super) fn settle(&mut self) {
        let freezer = &mut self.freezer;
        if let Some((report, file)) = freezer.thaw.collect(&mut self.jobs) {
            freezer.file = Some(file);
            // Otherwise all is as it was, and the next attempt may succeed.
            if report <= COUNT || matches!(kind(report), HOOK_MISSING | HOOK_FAILED) {
                self.set_frozen(false);
            }
        }
        let freezer = &mut self.freezer;
        if let Some((report, file)) = freezer.freeze.collect(&mut self.jobs)
            // Unless there is a thaw, which knows better.
            && freezer.thaw.report.is_some()
        {
            freezer.file = Some(file);
            if report == KILLED {
                self.thaw_unasked();
            } else if report == 0 || report > COUNT {
                self.set_frozen(false);
            }
        }
    }

    /// Thaws what is frozen, as the agent is about to end. Here and now, whatever it may wait for.
    pub fn end_freeze(&mut self) {
        if self.freezer.frozen {
            let frozen = self.freezer.freeze.job;
            self.stop_freeze();
            let jobs = &mut self.jobs;
            let site = Site { root: self.root, state: &self.state, hook: self.options.freeze_hook };
            let mut runs = || {
                jobs.reap(&mut |_, _| {});
                jobs.is_running(frozen)
            };
            site.thaw(&mut runs, &mut |_| {});
            self.set_frozen(false);
        }
    }

    /// Kills a freeze that has not come to its end. It may be waiting for a file system that it has frozen itself, and
    /// then it ends only after a thaw.
    fn stop_freeze(&self) -> Option<Pid> {
        let worker = self.jobs.worker(self.freezer.freeze.job);
        if let Some(worker) = worker {
            let _ = kill_process(worker, Signal::KILL);
        }
        worker
    }
}

impl Freeze for LinuxGuest {
    fn freeze(&mut self, wanted: &dyn Fn(&CStr) -> bool) -> Result<Job, FreezeError> {
        self.set_frozen(true);
        let site = Site { root: self.root, state: &self.state, hook: self.options.freeze_hook };
        let work = &mut |file: &OwnedFd| site.freeze(wanted, &mut |about| write_details(file, about));
        match self.jobs.start_telling(work) {
            Ok(job) => {
                self.freezer.freeze = Work { job, report: None };
                Ok(job)
            }
            Err(error) => {
                self.set_frozen(false);
                Err(FreezeError::Job(error))
            }
        }
    }

    fn frozen(&mut self, job: Job) -> Poll<Result<u32, FreezeError>> {
        self.freezer.freeze.result(job)
    }

    fn thaw(&mut self) -> Result<Job, FreezeError> {
        if self.freezer.thaw.report.is_none() {
            return Ok(self.freezer.thaw.job);
        }
        let stopped = self.stop_freeze();
        let site = Site { root: self.root, state: &self.state, hook: self.options.freeze_hook };
        let mut runs = || stopped.is_some_and(|worker| test_kill_process(worker).is_ok());
        let work = &mut |file: &OwnedFd| site.thaw(&mut runs, &mut |about| write_details(file, about));
        let job = self.jobs.start_telling(work).map_err(FreezeError::Job)?;
        self.freezer.thaw = Work { job, report: None };
        Ok(job)
    }

    fn thawed(&mut self, job: Job) -> Poll<Result<u32, FreezeError>> {
        self.freezer.thaw.result(job)
    }

    fn culprit(&mut self) -> &[u8] {
        let read = |file| read(file, &mut self.buffers.0).ok();
        let length = self.freezer.file.take().and_then(read).unwrap_or(0);
        self.buffers.0.get(..length).unwrap_or_default()
    }
}

/// The agent has failed: thaws what it may have frozen. What it knows of it is lost; that something was frozen is not, so
/// its next life waits for the thaw of a host.
pub fn rescue() {
    if ABLE && is_muted() {
        let _ = thaw_all(c"/");
    }
}

/// Where a worker works, and with what.
#[derive(Clone, Copy)]
struct Site<'s> {
    root: &'static CStr,
    state: &'s State,
    hook: Option<&'static CStr>,
}

impl Site<'_> {
    /// Freezes what is wanted, or nothing.
    fn freeze(&self, wanted: &dyn Fn(&CStr) -> bool, tell: &mut dyn FnMut(&[u8])) -> Report {
        let mut report = self.run_hook(c"freeze", tell);
        if report != 0 {
            return report;
        }
        let mut mounts = match Mounts::read(self.root) {
            Ok(mounts) => mounts,
            Err(Errno(error)) => return failure(MOUNTS, error),
        };
        // What happens from here on must be known to the agent's next life.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let _ = self.state.folder().and_then(|folder| sys::open(folder.as_fd(), MARK, flags));
        // What lies in an image is written to the file system with the image: that comes last.
        for images in [true, false] {
            mounts.walk(Order::Reverse, &mut |root, mount, _| {
                if report > COUNT || !wanted(mount.point) || is_image(root, mount) != images {
                    return;
                }
                let (kind, Errno(error)) = match mount.ask(OfFileSystem::FREEZE, &mut [0; 3]) {
                    Ok(()) => {
                        report = report.wrapping_add(1);
                        return;
                    }
                    // It cannot be frozen, or is already.
                    Err(Refusal::Failed(EOPNOTSUPP | EBUSY)) => return,
                    Err(Refusal::Failed(error)) => (FREEZE, error),
                    Err(Refusal::NotOpened(error)) => (OPEN, error),
                };
                tell(mount.point.to_bytes());
                report = failure(kind, error);
            });
        }
        if report > COUNT {
            self.thaw(&mut || false, &mut |_| {});
        } else if report == 0 {
            self.unmark();
        }
        report
    }

    /// Thaws everything, and again while something still `runs` that freezes.
    #[inline(never)]
    fn thaw(&self, runs: &mut dyn FnMut() -> bool, tell: &mut dyn FnMut(&[u8])) -> Report {
        let mut count = 0_u32;
        for _ in 0..LOOKS {
            let again = runs();
            match thaw_all(self.root) {
                Ok(more) => count = count.wrapping_add(more) & COUNT,
                Err(Errno(error)) => return failure(MOUNTS, error),
            }
            if !again {
                break;
            }
            let _ = nanosleep(&LOOK_PAUSE);
        }
        self.unmark();
        match self.run_hook(c"thaw", tell) {
            0 => count,
            report => report,
        }
    }

    /// Runs the hook, if there is one, with this word.
    #[inline(never)]
    fn run_hook(&self, word: &CStr, tell: &mut dyn FnMut(&[u8])) -> Report {
        let Some(hook) = self.hook else {
            return 0;
        };
        if let Err(error) = accessat(CWD, hook, Access::EXEC_OK, AtFlags::empty()) {
            tell(hook.to_bytes());
            return failure(HOOK_MISSING, sys::errno(error).0);
        }
        match run(&mut || sys::execve(hook, &[word])) {
            0 => 0,
            status => failure(HOOK_FAILED, u16::from(status)),
        }
    }

    /// Nothing is frozen any more.
    fn unmark(&self) {
        if let Ok(folder) = self.state.folder()
            && is_marked(&folder)
        {
            let _ = unlinkat(&folder, MARK, AtFlags::empty());
        }
    }
}

/// Did an agent with its state in this folder end without thawing what it had frozen?
pub fn was_frozen(state_dir: &'static CStr) -> bool {
    State::new(state_dir).folder().is_ok_and(|folder| is_marked(&folder))
}

/// Is the file there, and the agent's own? Anybody may have put another thing there, where anybody may write.
fn is_marked(folder: &OwnedFd) -> bool {
    statat(folder, MARK, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_uid == geteuid().as_raw()
    })
}

/// Thaws every file system, those in images last. How many were frozen.
#[inline(never)]
fn thaw_all(root: &CStr) -> Result<u32, Errno> {
    let mut mounts = Mounts::read(root)?;
    let mut count = 0_u32;
    for images in [false, true] {
        mounts.walk(Order::Mounted, &mut |root, mount, _| {
            if is_image(root, mount) == images {
                // As often as it was frozen.
                let thaw = |_: &u32| mount.ask(OfFileSystem::THAW, &mut [0; 3]).is_ok();
                count = count.wrapping_add(u32::from((0..THAWS).take_while(thaw).count() > 0));
            }
        });
    }
    Ok(count)
}

/// Does it lie in a file of another file system? What a loop device writes waits while that one is frozen.
#[inline(never)]
fn is_image(root: BorrowedFd<'_>, mount: &Mount<'_>) -> bool {
    Node::find(root, mount.device).is_some_and(|node| node.is_loop())
}

fn write_details(file: &OwnedFd, about: &[u8]) {
    let _ = write(file, about);
}

fn failure(kind: u8, number: u16) -> Report {
    Report::from(kind).wrapping_shl(24) | Report::from(number)
}

fn kind(report: Report) -> u8 {
    let [.., kind] = report.to_le_bytes();
    kind
}

/// What a report says.
fn meaning(report: Report) -> Result<u32, FreezeError> {
    let [low, high, _, kind] = report.to_le_bytes();
    let error = Errno(u16::from_le_bytes([low, high]));
    Err(match kind {
        0 => return Ok(report),
        MOUNTS => FreezeError::Mounts(error),
        OPEN => FreezeError::Open(error),
        FREEZE => FreezeError::Freeze(error),
        HOOK_MISSING => FreezeError::HookMissing(error),
        HOOK_FAILED => FreezeError::HookFailed(low),
        _ => FreezeError::Job(sys::errno_of(errno::ECANCELED)),
    })
}
