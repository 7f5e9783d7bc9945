//! The guest as Linux has it: one file a domain, each an implementation of its trait in `agent_core::guest`.

mod calendar;
mod clock;
pub mod disk_address;
pub mod exec;
pub mod files;
pub mod freeze;
mod fsinfo;
pub mod job;
pub mod mounts;
pub mod netlink;
pub mod network;
pub mod os_release;
pub mod power;
mod ptp;
pub mod reseed;
mod rtc;
mod shutdown;
mod system;
mod trim;
pub mod tz_rule;
pub mod tzif;
pub mod utmp;

use core::ffi::CStr;
use core::mem;

use agent_core::guest::{Guest, Job};
use heapless::Vec;
use rustix::fd::OwnedFd;

use disk_address::Disks;
use exec::Records;
use files::Handles;
use freeze::Freezer;
use job::{Jobs, Report};
use mounts::Mounts;
use network::Buffers;

use crate::init::Init;
use crate::log;
use crate::options::Options;
use crate::ready::{self, Ready};
use crate::state::State;
use crate::sys::Strings;

/// What is kept for later, in static memory. What is large, and mostly never touched, stands last: so all that is
/// touched is on the same pages.
#[repr(C)]
pub struct Tables {
    /// For disks.
    disks: Disks,
    /// The files that hosts have opened.
    handles: Handles,
    jobs: Jobs,
    /// The programs that hosts have started.
    pub records: Records,
    /// What it has to do if it is the first process. An `Option` of it would not be all zeros.
    pub init: Vec<Init, 1>,
}

impl Tables {
    /// Nothing is kept.
    pub const NONE: Self =
        Self { disks: Disks::NONE, records: Records::NONE, handles: Handles::NONE, jobs: Jobs::NONE, init: Vec::new() };
}

/// The guest this process runs in. What is large stands last, so that the code reaches all else by a short offset.
#[repr(C)]
pub struct LinuxGuest {
    buffers: &'static mut Buffers,
    /// What is kept.
    pub tables: &'static mut Tables,
    /// The last job that was to put the guest to sleep. No job has the number 0.
    last_suspend: Job,
    /// The variables that the agent was started with.
    environment: Strings<'static>,
    /// How the agent shall run.
    options: &'static Options,
    /// Where it has yet to say that it is ready.
    ready: Ready,
    freezer: Freezer,
    /// What was mounted when a host asked last.
    mounts: Option<Mounts>,
    /// Tells of the kernel's events, if they matter.
    events: Option<OwnedFd>,
    /// What outlives the agent.
    pub state: State,
    /// Where the `/sys`, `/proc` and `/usr` are that sleep goes by.
    root: &'static CStr,
}

impl LinuxGuest {
    /// A guest that uses this memory, and an agent that was started with these variables and options.
    pub fn new(
        buffers: &'static mut Buffers,
        tables: &'static mut Tables,
        environment: Strings<'static>,
        options: &'static Options,
    ) -> Self {
        let (last_suspend, state) = (Job(0), State::new(options.state_dir()));
        let freezer = Freezer::NEW;
        Self {
            buffers,
            tables,
            last_suspend,
            environment,
            options,
            ready: options.ready,
            freezer,
            events: None,
            mounts: None,
            state,
            root: c"/",
        }
    }

    /// The value of a variable of the agent's.
    pub fn variable(&self, name: &[u8]) -> Option<&'static CStr> {
        self.environment.value(name)
    }

    /// Says, once, that the agent serves its channels, all of which are open.
    pub fn tell_ready(&mut self) {
        let ready = mem::replace(&mut self.ready, Ready::Untold);
        if ready != Ready::Untold {
            self.start_worker(&mut || {
                ready::tell(ready);
                0
            });
        }
    }

    /// Starts a worker for whose end nobody waits.
    fn start_worker(&mut self, work: &mut dyn FnMut() -> Report) {
        if let Ok(job) = self.tables.jobs.start(work) {
            self.tables.jobs.abandon(job);
        }
    }

    /// Collects the children that have ended: to be called after SIGCHLD, before jobs are asked for.
    pub fn reap(&mut self) {
        let Tables { records, jobs, init, .. } = &mut *self.tables;
        jobs.reap(&mut |pid, status| {
            if let Some(init) = init.first_mut() {
                init.ended(pid, status);
            }
            if cfg!(feature = "exec") {
                records.ended(pid, status);
            }
        });
        if freeze::ABLE {
            self.settle();
        }
    }
}

impl Guest for LinuxGuest {
    fn is_frozen(&self) -> bool {
        self.freezer.is_frozen()
    }

    fn audit(&mut self, words: &[&[u8]]) {
        log::audit(words);
    }

    fn abandon(&mut self, job: Job) {
        if !freeze::ABLE || !self.freezer.owns(job) {
            self.tables.jobs.abandon(job);
        }
    }
}
