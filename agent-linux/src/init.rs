//! The agent as the first process: it brings the guest up, runs its program, and takes the guest down in order.
//!
//! `init.rs` says what happens when; what it takes stands below `init/`. Nothing here speaks to a host. A first process
//! never ends, as the kernel would panic, and waits for nothing without a limit.

mod address;
mod calls;
mod devices;
mod end;
mod handoff;
mod modules;
mod mounts;
mod payload;
mod resume;
mod settings;
mod text;
mod words;

use core::ffi::CStr;

use agent_core::guest::ShutdownMode;
use heapless::Vec;
use linux_raw_sys::general as kernel;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, OFlags, statat};
use rustix::process::getpid;

use crate::channel::NEVER;
use crate::event_loop::block_signals;
use crate::log::failed;
use crate::memory;
use crate::options::{Name, Options};
use crate::sys::{self, SignalSet, Strings};

use calls::{Arguments, Children};
use devices::Devices;
use words::Words;

/// The kernel's command line.
const COMMAND_LINE: &CStr = c"/proc/cmdline";

/// Bytes of the longest one, of any architecture, and one.
const COMMAND_LINE_BYTES: usize = 4097;

/// Where the first process and its program read and write.
const CONSOLE: &CStr = c"/dev/console";

/// A program that ends sooner is not started again before this time has passed.
const RESTART_MS: u64 = 1_000;

/// What a first process keeps in mind.
pub struct Init {
    devices: Devices,
    program: Arguments,
    /// The process of the program; 0: there is none.
    process: usize,
    /// When the program was started.
    started_ms: u64,
    /// When it is to be started.
    start_ms: u64,
    on_exit: usize,
    grace_s: u64,
    /// The guest is to end.
    ending: Option<ShutdownMode>,
}

/// Is this the first process of a machine? In a container it is the first as well, but there is no machine to bring up.
pub fn is_first() -> bool {
    getpid().is_init()
        && statat(CWD, c"/proc/self/ns/pid", AtFlags::empty())
            .map_or(true, |namespace| namespace.st_ino == FIRST_NAMESPACE)
}

/// `PROC_PID_INIT_INO` (linux/proc_ns.h).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Brings the guest up. Nothing is left in `place` for an agent that another first process was handed over to: it goes
/// on as an ordinary one. `texts` is kept, `scratch` is lent.
#[inline(never)]
pub fn bring_up(
    mut arguments: Strings<'static>,
    environment: Strings<'static>,
    texts: &'static mut [u8],
    scratch: &mut [u8],
    options: &mut Options,
    place: &mut Vec<Init, 1>,
) {
    mounts::mount(mounts::KERNEL);
    // A terminal that is stopped must not stop the agent.
    open_console(OFlags::NONBLOCK);
    let is_new = arguments.next() != Some(sys::ITSELF);
    let _ = place.push(Init {
        devices: Devices::listen(),
        program: Arguments::NONE,
        process: 0,
        started_ms: 0,
        // An agent that has started anew, after a panic, has a program that goes on. Other children may be left from
        // whoever was the first process before.
        start_ms: if is_new || !any_child() { 0 } else { NEVER },
        on_exit: 0,
        grace_s: 0,
        ending: None,
    });
    let Some(init) = place.first_mut() else {
        return;
    };
    settings::read(texts, options, &mut init.program);
    init.on_exit = options.on_exit;
    init.grace_s = u64::try_from(options.grace_s).unwrap_or(0);
    modules::load(scratch);
    if command_line(scratch).next_with(b"noresume").is_none() {
        let mut words = command_line(scratch);
        while let Some(device) = words.next_with(b"resume=") {
            resume::resume(device, &init.devices);
        }
    }
    if let Some(program) = options.word(Name::Handoff)
        && handoff::hand_off(program, arguments, environment)
    {
        place.clear();
        return;
    }

    // What is to end the guest has to wait until it can: the kernel would drop it.
    block_signals(true);
    let _ = calls::reboot(kernel::LINUX_REBOOT_CMD_CAD_OFF);
    mounts::mount(mounts::PROGRAMS);
    text::write_file(c"/sys/devices/system/memory/auto_online_blocks", b"online");
    address::set_loopback();
    let mut words = command_line(scratch);
    while let Some(value) = words.next_with(b"ip=") {
        address::set(value, &init.devices);
    }
    let name = match options.word(Name::Hostname) {
        Some(name) => name.to_bytes(),
        None => Words::new(text::read_file(c"/etc/hostname", scratch)).next().unwrap_or_default().to_bytes(),
    };
    if !name.is_empty()
        && let Err(error) = calls::set_host_name(name)
    {
        failed(name, error);
    }
    memory::give_back(scratch);
    if init.program.program().is_empty() {
        init.start_ms = NEVER;
    }
}

impl Init {
    /// The signals that mean something: all but those that a fault raises, or a terminal.
    pub fn signals() -> SignalSet {
        let mut signals = SignalSet::EMPTY;
        for signal in 1..=64 {
            if !UNHANDLED.contains(&signal) {
                signals = signals.with(signal);
            }
        }
        signals
    }

    /// A signal has come: it ends the guest, or is the program's.
    pub fn signal(&mut self, signal: u32) {
        match signal {
            kernel::SIGTERM | kernel::SIGINT | kernel::SIGPWR => self.begin_end(ShutdownMode::PowerDown),
            kernel::SIGCHLD => {}
            _ => {
                if self.process != 0 {
                    sys::kill(self.process, signal);
                }
            }
        }
    }

    /// A child has ended that no command waits for.
    pub fn ended(&mut self, process: usize, status: u32) {
        if process != self.process {
            return;
        }
        self.process = 0;
        payload::report(&self.program, status);
        match self.on_exit {
            0 => self.begin_end(ShutdownMode::PowerDown),
            1 => self.begin_end(ShutdownMode::Reboot),
            2 => self.begin_end(ShutdownMode::Halt),
            3 => self.start_ms = self.started_ms.wrapping_add(RESTART_MS),
            _ => {}
        }
    }

    /// Starts the program, if it is time. When to call this again, in milliseconds of the monotonic clock.
    #[inline(never)]
    pub fn tick(&mut self) -> u64 {
        let now_ms = sys::monotonic_ms();
        if now_ms >= self.start_ms {
            self.start_ms = NEVER;
            self.started_ms = now_ms;
            match payload::start(&mut self.program) {
                Ok(process) => self.process = process,
                Err(error) => {
                    failed(self.program.program().to_bytes(), error);
                    self.start_ms = now_ms.wrapping_add(RESTART_MS);
                }
            }
        }
        self.start_ms
    }

    /// What becomes readable when devices are announced.
    pub fn devices(&self) -> Option<BorrowedFd<'_>> {
        self.devices.fd()
    }

    /// Devices were announced.
    pub fn announced(&self) {
        self.devices.handle();
    }

    /// The machine is to end, as soon as the event loop has come to rest.
    pub fn begin_end(&mut self, how: ShutdownMode) {
        self.ending = Some(how);
    }

    /// Is it?
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Ends the machine.
    pub fn end(&self) -> ! {
        end::end(self.ending.unwrap_or(ShutdownMode::PowerDown), self.grace_s)
    }
}

/// As tini(1) has it, and SIGPIPE, which a write of the agent's own may raise.
const UNHANDLED: [u32; 10] = [
    kernel::SIGFPE,
    kernel::SIGILL,
    kernel::SIGSEGV,
    kernel::SIGBUS,
    kernel::SIGABRT,
    kernel::SIGTRAP,
    kernel::SIGSYS,
    kernel::SIGTTIN,
    kernel::SIGTTOU,
    kernel::SIGPIPE,
];

/// Collects the children that have ended. Is there another?
fn any_child() -> bool {
    loop {
        match calls::collect() {
            Children::Ended(_) => {}
            children => return children == Children::Running,
        }
    }
}

/// Waits a moment, after what should not happen.
pub fn pause() {
    calls::wait(None, 1000);
}

/// Opens the console anew, which becomes 0, 1 and 2. How it is read and written is shared by all who have it of one who
/// opened it.
#[inline(never)]
fn open_console(flags: OFlags) {
    if let Ok(console) = sys::open(CWD, CONSOLE, OFlags::RDWR | OFlags::NOCTTY | flags) {
        calls::make_standard(&console);
    }
}

/// The words of the kernel's command line.
#[inline(never)]
fn command_line(scratch: &mut [u8]) -> Words<'_> {
    Words::new(text::read_file(COMMAND_LINE, scratch))
}
