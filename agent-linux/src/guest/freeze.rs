//! Making file systems hold still, by FIFREEZE and FITHAW.
//!
//! From the start of a freeze to the end of the thaw nothing here may wait for a file system: what freezes or thaws,
//! and all that could be waiting for it, happens in workers. The agent itself only keeps count, and says nothing
//! meanwhile.
//!
//! That something is frozen outlives the agent by a file in its state directory, as with qemu-ga(8).

use core::ffi::CStr;
use core::mem;
use core::task::Poll;

use agent_core::guest::{Errno, Freeze, FreezeError, Job};
use agent_core::packed;
use linux_raw_sys::errno;
use linux_raw_sys::general::SIGKILL;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags, accessat, statat, unlinkat};
use rustix::io::{read, write};
use rustix::process::geteuid;
use rustix::thread::{Timespec, nanosleep};

use super::LinuxGuest;
use super::job::{KILLED, Report, run};
use super::mounts::{self, Order, Refusal};
use crate::channel::{NEVER, after_ms};
use crate::daemon;
use crate::log::{self, is_muted, mute, say};
use crate::options::{Name, Options};
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

/// Looks at a worker that shall come to its end, and the time between them.
const LOOKS: u32 = 200;
const LOOK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Milliseconds before another try, where the thaw that was due could not be started.
const RETRY_MS: u64 = 10_000;

// Reports: how many, or what went wrong in the highest byte and an errno or exit status in the lowest ones. The mount
// point that it is about stands behind the report.
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
    /// The log and the pid file could not be opened yet.
    files_missing: bool,
    /// The last job. A thaw takes the place of a freeze, which is then killed.
    job: Job,
    thaws: bool,
    /// Its report; none while it runs.
    report: Option<Report>,
    /// What it left.
    file: Option<OwnedFd>,
}

impl Freezer {
    /// Nothing is known to be frozen. No job has the number 0.
    pub const NEW: Self = Freezer {
        frozen: false,
        deadline_ms: NEVER,
        overdue: false,
        files_missing: false,
        job: Job(0),
        thaws: false,
        report: Some(KILLED),
        file: None,
    };

    /// Is this job its own? Then nobody else may forget it.
    pub fn owns(&self, job: Job) -> bool {
        job == self.job
    }

    /// Whether something may be frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }
}

impl LinuxGuest {
    /// An agent before this one has left something frozen: see [`was_frozen`].
    pub fn start_frozen(&mut self) {
        say(packed!("file systems are frozen since before the agent started: waiting for a thaw"), &[]);
        self.set_frozen(true);
        self.freezer.files_missing = true;
    }

    /// From now on something may be frozen, or nothing is any more.
    #[inline(never)]
    fn set_frozen(&mut self, frozen: bool) {
        let timeout_ms = u64::from(self.options.freeze_timeout_s).wrapping_mul(1000);
        let freezer = &mut self.freezer;
        freezer.frozen = frozen;
        freezer.deadline_ms = if frozen && timeout_ms > 0 { after_ms(timeout_ms) } else { NEVER };
        mute(frozen);
        if mem::take(&mut freezer.files_missing) {
            if let Some(file) = self.options.log_file().and_then(|path| log::open(path).ok()) {
                log::turn_to(file);
            }
            if self.options.is_on(Name::Daemonize) && self.tables.init.is_empty() {
                let _ = daemon::take_pid_file(self.options);
                daemon::write_pid(daemon::this_process());
            }
        }
        if mem::take(&mut freezer.overdue) {
            say(packed!("file systems were frozen for too long: thawed"), &[]);
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

    /// Looks whether the job has ended.
    #[inline(never)]
    pub(super) fn settle(&mut self) {
        let freezer = &mut self.freezer;
        if let Poll::Ready((report, file)) = self.tables.jobs.take(freezer.job) {
            (freezer.report, freezer.file) = (Some(report), Some(file));
            let ended = if freezer.thaws {
                // Otherwise all is as it was, and the next attempt may succeed.
                report <= COUNT || matches!(kind(report), HOOK_MISSING | HOOK_FAILED)
            } else if report == KILLED {
                return self.thaw_unasked();
            } else {
                report == 0 || report > COUNT
            };
            if ended {
                self.set_frozen(false);
            }
        }
    }

    /// Thaws what is frozen, as the agent is about to end.
    pub fn end_freeze(&mut self) {
        let mut looks = 0..LOOKS;
        if self.freezer.frozen && self.thaw().is_err() {
            // Here and now, whatever it may wait for.
            self.site().thaw(0);
            looks = 0..0;
        }
        while self.freezer.frozen && looks.next().is_some() {
            let _ = nanosleep(&LOOK_PAUSE);
            self.reap();
        }
    }

    fn site(&self) -> Site {
        Site { options: self.options }
    }

    /// Goes on with this job.
    fn begin(&mut self, work: &mut dyn FnMut(&OwnedFd) -> Report, thaws: bool) -> Result<Job, FreezeError> {
        let job = self.tables.jobs.start_telling(work).map_err(FreezeError::Job)?;
        let freezer = &mut self.freezer;
        self.tables.jobs.abandon(freezer.job);
        (freezer.job, freezer.thaws, freezer.report) = (job, thaws, None);
        Ok(job)
    }
}

impl Freeze for LinuxGuest {
    fn freeze(&mut self, wanted: &dyn Fn(&CStr) -> bool) -> Result<Job, FreezeError> {
        self.set_frozen(true);
        let site = self.site();
        let started = self.begin(&mut |file| site.freeze(wanted, file), false);
        if started.is_err() {
            self.set_frozen(false);
        }
        started
    }

    fn thaw(&mut self) -> Result<Job, FreezeError> {
        let freezer = &self.freezer;
        if freezer.thaws && freezer.report.is_none() {
            return Ok(freezer.job);
        }
        // A freeze may be waiting for a file system that it has frozen itself, and then it ends only after a thaw.
        let stopped = self.tables.jobs.worker(freezer.job);
        // With its hook, which is in its session; it has none of its own when it was just started.
        if stopped != 0 && !sys::kill(stopped.wrapping_neg(), SIGKILL) {
            sys::kill(stopped, SIGKILL);
        }
        let site = self.site();
        self.begin(&mut |_| site.thaw(stopped), true)
    }

    fn settled(&mut self, job: Job) -> Poll<Result<u32, FreezeError>> {
        match self.freezer.report {
            // One that another has taken the place of counts as killed.
            _ if job != self.freezer.job => Poll::Ready(meaning(KILLED)),
            Some(report) => Poll::Ready(meaning(report)),
            None => Poll::Pending,
        }
    }

    fn culprit(&mut self) -> &[u8] {
        if self.freezer.report.map(kind) == Some(HOOK_MISSING) {
            return self.options.freeze_hook.unwrap_or_default().to_bytes();
        }
        let read = |file| read(file, &mut self.buffers.0).ok();
        let length = self.freezer.file.take().and_then(read).unwrap_or(0);
        self.buffers.0.get(..length).unwrap_or_default()
    }
}

/// The agent has failed: thaws what it may have frozen. What it knows of it is lost; that something was frozen is not,
/// so its next life waits for the thaw of a host.
pub fn rescue() {
    if ABLE && is_muted() {
        let _ = thaw_all();
    }
}

/// Where a worker works, and how.
#[derive(Clone, Copy)]
struct Site {
    options: &'static Options,
}

impl Site {
    /// Freezes what is wanted, or nothing. What did not work is written to the file.
    fn freeze(self, wanted: &dyn Fn(&CStr) -> bool, file: &OwnedFd) -> Report {
        let mut report = self.run_hook(c"freeze");
        if report != 0 {
            return report;
        }
        // What happens from here on must be known to the agent's next life.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let _ = self.state().folder().and_then(|folder| sys::open(folder.as_fd(), MARK, flags));
        let walked = mounts::each(Order::Freeze, &mut |mount| {
            if report > COUNT || !wanted(mount.point) {
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
            let _ = write(file, mount.point.to_bytes());
            report = failure(kind, error);
        });
        if let Err(Errno(error)) = walked {
            report = failure(MOUNTS, error);
            self.unmark();
        } else if report > COUNT {
            self.thaw(0);
        } else if report == 0 {
            self.unmark();
        }
        report
    }

    /// Thaws everything, and again while this process, which freezes, is not gone. It is none with the number 0.
    #[inline(never)]
    fn thaw(self, freezes: usize) -> Report {
        let mut count = 0_u32;
        for _ in 0..LOOKS {
            let again = freezes != 0 && sys::kill(freezes, 0);
            match thaw_all() {
                Ok(more) => count = count.wrapping_add(more) & COUNT,
                Err(Errno(error)) => return failure(MOUNTS, error),
            }
            if !again {
                break;
            }
            let _ = nanosleep(&LOOK_PAUSE);
        }
        self.unmark();
        match self.run_hook(c"thaw") {
            0 => count,
            report => report,
        }
    }

    /// Runs the hook, if there is one, with this word.
    #[inline(never)]
    fn run_hook(self, word: &CStr) -> Report {
        let Some(hook) = self.options.freeze_hook else {
            return 0;
        };
        if let Err(error) = accessat(CWD, hook, Access::EXEC_OK, AtFlags::empty()) {
            return failure(HOOK_MISSING, sys::errno(error).0);
        }
        match run(&mut || sys::execve(hook, &[word])) {
            0 => 0,
            status => failure(HOOK_FAILED, u16::from(status)),
        }
    }

    /// Nothing is frozen any more.
    fn unmark(self) {
        if let Ok(folder) = self.state().folder()
            && is_marked(&folder)
        {
            let _ = unlinkat(&folder, MARK, AtFlags::empty());
        }
    }

    fn state(self) -> State {
        State::new(self.options.state_dir())
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

/// Thaws every file system. How many were frozen.
#[inline(never)]
fn thaw_all() -> Result<u32, Errno> {
    let mut count = 0_u32;
    mounts::each(Order::Thaw, &mut |mount| {
        // As often as it was frozen.
        let thaw = |_: &u32| mount.ask(OfFileSystem::THAW, &mut [0; 3]).is_ok();
        count = count.wrapping_add(u32::from((0..THAWS).take_while(thaw).count() > 0));
    })
    .map(|()| count)
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
