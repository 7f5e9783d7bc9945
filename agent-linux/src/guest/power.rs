//! Sleep: by the scripts of pm-utils where they are installed, otherwise by the kernel's `/sys/power`
//! (kernel documentation, admin-guide/pm/sleep-states.rst and basic-pm-debugging; `pm-is-supported(1)`).
//!
//! All of it happens in a worker, one step after another: the write that sends the machine to sleep returns when it is
//! awake again. What cannot work is refused before anything is touched, as a machine that sleeps and cannot be woken, or
//! an attempt that fails halfway, is worse than an error. It knows nothing of hosts and replies.

use core::ffi::CStr;
use core::task::Poll;

use agent_core::guest::{Job, Power, Suspend, SuspendError};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, read, write};
use rustix::process::{WaitOptions, chdir, waitpid};

use super::LinuxGuest;
use super::job::Report;
use crate::sys;

impl Power for LinuxGuest {
    fn suspend(&mut self, mode: Suspend) -> Result<Job, SuspendError> {
        let root = self.root;
        self.jobs
            .start(&mut || {
                // Below, every path is relative.
                report(match chdir(root) {
                    Ok(()) => suspend(&mut Linux, mode),
                    Err(_) => Err(Failure::Unsupported),
                })
            })
            .map_err(SuspendError::Job)
    }

    fn suspended(&mut self, job: Job) -> Poll<Result<(), SuspendError>> {
        self.jobs.poll(job).map(|result| match result {
            Ok(report) => meaning(report),
            Err(error) => Err(SuspendError::Job(error)),
        })
    }
}

/// A file that is read or written on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    State,
    Disk,
    MemSleep,
    Swaps,
}

impl File {
    /// Below the root, and in words.
    const fn path(self) -> (&'static CStr, &'static str) {
        match self {
            Self::State => (c"sys/power/state", "/sys/power/state"),
            Self::Disk => (c"sys/power/disk", "/sys/power/disk"),
            Self::MemSleep => (c"sys/power/mem_sleep", "/sys/power/mem_sleep"),
            Self::Swaps => (c"proc/swaps", "/proc/swaps"),
        }
    }
}

/// A program of pm-utils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// Whether a script can work here: it is told by a flag which one.
    IsSupported,
    /// The script for a mode.
    Script(Suspend),
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::IsSupported => "pm-is-supported",
            Self::Script(Suspend::Disk) => "pm-hibernate",
            Self::Script(Suspend::Ram) => "pm-suspend",
            Self::Script(Suspend::Hybrid) => "pm-suspend-hybrid",
        }
    }
}

/// Why it did not work, in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Unsupported,
    Write(File, Errno),
    Script(Suspend, u8),
}

/// What the steps need of a machine.
trait Machine {
    /// The text of a file, as far as the buffer holds it: empty if it cannot be read, nothing if there is no such file.
    fn read<'b>(&self, file: File, buffer: &'b mut [u8]) -> Option<&'b [u8]>;

    /// Writes a word to a file. To sleep is to be in here.
    fn write(&mut self, file: File, word: &[u8]) -> Result<(), Errno>;

    /// Runs a program to its end, with an argument: its exit status, or [`NOT_RUN`].
    fn run(&mut self, program: Program, argument: Option<&CStr>) -> u8;
}

/// The exit status of what is not installed or could not be executed, as a shell reports it.
const NOT_RUN: u8 = 127;

/// The steps.
fn suspend(machine: &mut impl Machine, mode: Suspend) -> Result<(), Failure> {
    let flag = match mode {
        Suspend::Disk => c"--hibernate",
        Suspend::Ram => c"--suspend",
        Suspend::Hybrid => c"--suspend-hybrid",
    };
    if machine.run(Program::IsSupported, Some(flag)) == 0 {
        match machine.run(Program::Script(mode), None) {
            0 => return Ok(()),
            NOT_RUN => {}
            status => return Err(Failure::Script(mode, status)),
        }
    }
    by_kernel(machine, mode)
}

/// The steps without pm-utils: all that has to be known, then all that has to be done.
fn by_kernel(machine: &mut impl Machine, mode: Suspend) -> Result<(), Failure> {
    let mut texts = [[0; 256]; 3];
    let mut steps = [const { None }; 3];
    for ((step, file), text) in steps.iter_mut().zip([File::Disk, File::MemSleep, File::State]).zip(&mut texts) {
        *step = Step::plan(file, machine.read(file, text), mode)?;
    }
    let mut text = [0; 1024];
    if mode != Suspend::Ram && !machine.read(File::Swaps, &mut text).is_some_and(holds_image) {
        return Err(Failure::Unsupported);
    }

    let mut result = Ok(());
    for step in steps.iter().flatten() {
        if result.is_ok() {
            result = machine.write(step.file, step.word).map_err(|error| Failure::Write(step.file, error));
        }
    }
    for step in steps.iter().flatten() {
        if !step.before.is_empty() {
            let _ = machine.write(step.file, step.before);
        }
    }
    result
}

/// A word to write.
struct Step<'t> {
    file: File,
    word: &'t [u8],
    /// What is selected in that file now, and shall be again; empty if nothing is.
    before: &'t [u8],
}

impl<'t> Step<'t> {
    /// What is to be written to a file: nothing, if the mode does without it or a right word is selected already.
    fn plan(file: File, text: Option<&'t [u8]>, mode: Suspend) -> Result<Option<Self>, Failure> {
        let wanted: [&[u8]; 2] = match (file, mode) {
            (File::State, Suspend::Ram) => [b"mem"; 2],
            (File::State, _) => [b"disk"; 2],
            (File::Disk, Suspend::Disk) => [b"platform", b"shutdown"],
            (File::Disk, Suspend::Hybrid) => [b"suspend"; 2],
            // Kernels before 4.10 have no choice.
            (File::MemSleep, Suspend::Ram | Suspend::Hybrid) if text.is_some() => [b"deep"; 2],
            _ => return Ok(None),
        };
        let mut step = Self { file, word: &[], before: &[] };
        let mut mem = false;
        // What is selected stands in brackets: `s2idle [deep]`. The kernel lists `platform` before `shutdown`.
        for word in text.unwrap_or(&[]).split(u8::is_ascii_whitespace) {
            let (word, selected) = match word {
                [b'[', word @ .., b']'] => (word, true),
                word => (word, false),
            };
            if wanted.contains(&word) {
                if selected {
                    return Ok(None);
                }
                if step.word.is_empty() {
                    step.word = word;
                }
            }
            if selected {
                step.before = word;
            }
            mem |= word == b"mem";
        }
        // Sleeping both ways takes both states.
        if step.word.is_empty() || (file == File::State && mode == Suspend::Hybrid && !mem) {
            return Err(Failure::Unsupported);
        }
        Ok(Some(step))
    }
}

/// Whether `/proc/swaps` has one that keeps its contents without power: a line that begins with a path, but not of
/// compressed memory.
fn holds_image(swaps: &[u8]) -> bool {
    swaps.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"/") && !line.starts_with(b"/dev/zram"))
}

/// The machine this runs on. The working directory is its root.
struct Linux;

impl Machine for Linux {
    fn read<'b>(&self, file: File, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let length = match open(file, OFlags::RDONLY) {
            // The kernel makes such a text in one go.
            Ok(file) => read(&file, &mut *buffer).unwrap_or(0),
            Err(Errno::NOENT) => return None,
            Err(_) => 0,
        };
        buffer.get(..length)
    }

    fn write(&mut self, file: File, word: &[u8]) -> Result<(), Errno> {
        write(open(file, OFlags::WRONLY | OFlags::TRUNC)?, word)?;
        Ok(())
    }

    fn run(&mut self, program: Program, argument: Option<&CStr>) -> u8 {
        run(program, argument).unwrap_or(NOT_RUN)
    }
}

fn open(file: File, flags: OFlags) -> Result<OwnedFd, Errno> {
    sys::open(CWD, file.path().0, flags)
}

/// Of programs: all of their environment, and where they are looked for.
const PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes a program and waits for its end.
#[allow(unsafe_code, reason = "a forked process")]
fn run(program: Program, argument: Option<&CStr>) -> Option<u8> {
    // SAFETY: the child becomes another program, or ends.
    let child = unsafe { sys::fork() }.ok()?;
    if child.is_none() {
        for folder in PATH.to_bytes().split(|&byte| matches!(byte, b'=' | b':')) {
            execute(folder, program.name(), argument);
        }
        sys::exit(NOT_RUN);
    }
    let (_, status) = waitpid(child, WaitOptions::empty()).ok()??;
    let status = match status.terminating_signal() {
        Some(signal) => signal.wrapping_add(128),
        None => status.exit_status()?,
    };
    u8::try_from(status).ok()
}

/// Becomes a program of this folder, if it is there.
#[allow(unsafe_code, reason = "a C string")]
fn execute(folder: &[u8], name: &str, argument: Option<&CStr>) -> Option<()> {
    let mut path = heapless::Vec::<u8, 64>::new();
    // Below the working directory.
    for part in [folder.strip_prefix(b"/")?, b"/", name.as_bytes(), b"\0"] {
        path.extend_from_slice(part).ok()?;
    }
    // SAFETY: the other parts are constants without a NUL.
    let path = unsafe { CStr::from_bytes_with_nul_unchecked(&path) };
    sys::execve(path, argument, PATH);
    None
}

/// How it went, in the four bytes that a worker can tell.
fn report(result: Result<(), Failure>) -> Report {
    match result {
        Ok(()) => [0; 4],
        Err(Failure::Unsupported) => [1, 0, 0, 0],
        Err(Failure::Write(file, error)) => {
            let [low, high] = sys::errno(error).0.to_le_bytes();
            let file = match file {
                File::State => 0,
                File::Disk => 1,
                _ => 2,
            };
            [2, file, low, high]
        }
        Err(Failure::Script(mode, status)) => {
            let mode = match mode {
                Suspend::Disk => 0,
                Suspend::Ram => 1,
                Suspend::Hybrid => 2,
            };
            [3, mode, status, 0]
        }
    }
}

/// What [`report`] said.
fn meaning(report: Report) -> Result<(), SuspendError> {
    Err(match report {
        [0, ..] => return Ok(()),
        [2, file, low, high] => {
            let file = match file {
                0 => File::State,
                1 => File::Disk,
                _ => File::MemSleep,
            };
            let (_, path) = file.path();
            SuspendError::Write(path, agent_core::guest::Errno(u16::from_le_bytes([low, high])))
        }
        [3, mode, status, _] => {
            let mode = match mode {
                0 => Suspend::Disk,
                1 => Suspend::Ram,
                _ => Suspend::Hybrid,
            };
            SuspendError::Helper(Program::Script(mode).name(), status)
        }
        _ => SuspendError::Unsupported,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, fs, thread};

    use super::*;
    use crate::testing::{alone, must_be_alone};

    const MODES: [Suspend; 3] = [Suspend::Disk, Suspend::Ram, Suspend::Hybrid];

    /// A machine that writes a diary.
    #[derive(Default)]
    struct Fake {
        files: BTreeMap<&'static str, &'static str>,
        /// Installed programs and their exit status.
        programs: BTreeMap<&'static str, u8>,
        /// The file and word that cannot be written.
        fails: Option<(&'static str, &'static str)>,
        diary: Vec<String>,
    }

    impl Machine for Fake {
        fn read<'b>(&self, file: File, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
            let text = self.files.get(file.path().1)?.as_bytes();
            buffer[..text.len()].copy_from_slice(text);
            Some(&buffer[..text.len()])
        }

        fn write(&mut self, file: File, word: &[u8]) -> Result<(), Errno> {
            let (_, path) = file.path();
            let word = str::from_utf8(word).unwrap();
            if self.fails == Some((path, word)) {
                return Err(Errno::BUSY);
            }
            self.diary.push(format!("{word} > {path}"));
            Ok(())
        }

        fn run(&mut self, program: Program, argument: Option<&CStr>) -> u8 {
            let Some(&status) = self.programs.get(program.name()) else {
                return NOT_RUN;
            };
            let argument = argument.map_or("", |argument| argument.to_str().unwrap());
            self.diary.push(format!("{} {argument}", program.name()).trim_end().to_string());
            status
        }
    }

    /// What current kernels offer on a machine that can do everything.
    fn able() -> Fake {
        Fake {
            files: BTreeMap::from([
                ("/sys/power/state", "freeze mem disk\n"),
                ("/sys/power/disk", "[platform] shutdown reboot suspend test_resume \n"),
                ("/sys/power/mem_sleep", "s2idle [deep]\n"),
                ("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/vda2 partition\t524284\t0\t-2\n"),
            ]),
            ..Fake::default()
        }
    }

    /// The diary, with one file changed.
    fn with(path: &'static str, text: &'static str, mode: Suspend) -> Result<Vec<String>, Failure> {
        let mut machine = able();
        machine.files.insert(path, text);
        suspend(&mut machine, mode).map(|()| machine.diary)
    }

    fn without(path: &'static str, mode: Suspend) -> Result<Vec<String>, Failure> {
        let mut machine = able();
        machine.files.remove(path);
        suspend(&mut machine, mode).map(|()| machine.diary)
    }

    fn diary(lines: &[&str]) -> Result<Vec<String>, Failure> {
        Ok(lines.iter().map(|line| line.to_string()).collect())
    }

    #[test]
    fn where_all_is_well_only_the_state_is_written() {
        assert_eq!(with("x", "", Suspend::Disk), diary(&["disk > /sys/power/state"]));
        assert_eq!(with("x", "", Suspend::Ram), diary(&["mem > /sys/power/state"]));
        assert_eq!(
            with("x", "", Suspend::Hybrid),
            diary(&["suspend > /sys/power/disk", "disk > /sys/power/state", "platform > /sys/power/disk"])
        );
    }

    #[test]
    fn deep_sleep_is_selected_and_the_choice_restored() {
        let path = "/sys/power/mem_sleep";
        assert_eq!(
            with(path, "[s2idle] shallow deep\n", Suspend::Ram),
            diary(&["deep > /sys/power/mem_sleep", "mem > /sys/power/state", "s2idle > /sys/power/mem_sleep"])
        );
        assert_eq!(
            with(path, "[s2idle] deep\n", Suspend::Hybrid),
            diary(&[
                "suspend > /sys/power/disk",
                "deep > /sys/power/mem_sleep",
                "disk > /sys/power/state",
                "platform > /sys/power/disk",
                "s2idle > /sys/power/mem_sleep",
            ])
        );
        assert_eq!(with(path, "[s2idle] deep\n", Suspend::Disk), diary(&["disk > /sys/power/state"]));
    }

    #[test]
    fn a_machine_that_would_not_wake_up_is_refused() {
        for mode in [Suspend::Ram, Suspend::Hybrid] {
            for text in ["[s2idle]\n", "[s2idle] shallow\n", "", "deeper\n"] {
                assert_eq!(with("/sys/power/mem_sleep", text, mode), Err(Failure::Unsupported));
            }
        }
    }

    #[test]
    fn old_kernels_have_no_choice_of_depth() {
        assert_eq!(without("/sys/power/mem_sleep", Suspend::Ram), diary(&["mem > /sys/power/state"]));
    }

    #[test]
    fn the_state_must_be_offered() {
        let path = "/sys/power/state";
        for text in ["", "freeze\n", "freeze standby\n", "memory diskette\n"] {
            for mode in MODES {
                assert_eq!(with(path, text, mode), Err(Failure::Unsupported), "{text}");
            }
        }
        for mode in MODES {
            assert_eq!(without(path, mode), Err(Failure::Unsupported));
        }
        assert_eq!(with(path, "freeze mem\n", Suspend::Disk), Err(Failure::Unsupported));
        assert_eq!(with(path, "freeze disk\n", Suspend::Ram), Err(Failure::Unsupported));
        assert!(with(path, "mem", Suspend::Ram).is_ok());
    }

    #[test]
    fn hibernation_uses_platform_or_shutdown_and_leaves_the_choice() {
        let path = "/sys/power/disk";
        for fine in ["platform [shutdown] reboot suspend\n", "[platform] shutdown\n", "[shutdown] reboot\n"] {
            assert_eq!(with(path, fine, Suspend::Disk), diary(&["disk > /sys/power/state"]));
        }
        for (text, to, back) in [
            ("platform shutdown reboot [suspend] test_resume\n", "platform", "suspend"),
            ("shutdown [reboot] suspend\n", "shutdown", "reboot"),
            ("shutdown reboot [test_resume]\n", "shutdown", "test_resume"),
        ] {
            assert_eq!(
                with(path, text, Suspend::Disk).unwrap(),
                [
                    format!("{to} > /sys/power/disk"),
                    "disk > /sys/power/state".to_string(),
                    format!("{back} > /sys/power/disk"),
                ]
            );
        }
        for mode in [Suspend::Disk, Suspend::Hybrid] {
            assert_eq!(with(path, "[disabled]\n", mode), Err(Failure::Unsupported));
            assert_eq!(without(path, mode), Err(Failure::Unsupported));
        }
        assert_eq!(with(path, "[shutdown] reboot\n", Suspend::Hybrid), Err(Failure::Unsupported));
        assert_eq!(with(path, "platform shutdown [suspend]\n", Suspend::Hybrid), diary(&["disk > /sys/power/state"]));
    }

    #[test]
    fn hibernation_needs_a_swap_that_keeps_its_contents() {
        let path = "/proc/swaps";
        let none = "Filename Type Size Used Priority\n";
        let zram = "Filename Type Size Used Priority\n/dev/zram0 partition 8 0 100\n/dev/zram1 partition 8 0 100\n";
        let both = "Filename Type Size Used Priority\n/dev/zram0 partition 8 0 100\n/swap file 8 0 -2\n";
        for mode in [Suspend::Disk, Suspend::Hybrid] {
            assert_eq!(with(path, none, mode), Err(Failure::Unsupported));
            assert_eq!(with(path, "", mode), Err(Failure::Unsupported));
            assert_eq!(with(path, zram, mode), Err(Failure::Unsupported));
            assert_eq!(without(path, mode), Err(Failure::Unsupported));
            assert!(with(path, both, mode).is_ok());
        }
        assert!(with(path, none, Suspend::Ram).is_ok());
    }

    #[test]
    fn a_failed_write_is_named_and_choices_are_restored() {
        let mut machine = able();
        machine.files.insert("/sys/power/mem_sleep", "[s2idle] deep\n");
        machine.fails = Some(("/sys/power/state", "mem"));
        assert_eq!(suspend(&mut machine, Suspend::Ram), Err(Failure::Write(File::State, Errno::BUSY)));
        assert_eq!(machine.diary, ["deep > /sys/power/mem_sleep", "s2idle > /sys/power/mem_sleep"]);

        machine.diary.clear();
        machine.fails = Some(("/sys/power/mem_sleep", "deep"));
        assert_eq!(suspend(&mut machine, Suspend::Hybrid), Err(Failure::Write(File::MemSleep, Errno::BUSY)));
        assert!(machine.diary.contains(&"platform > /sys/power/disk".to_string()));
        assert!(!machine.diary.iter().any(|line| line.ends_with("/sys/power/state")));
    }

    #[test]
    fn scripts_go_first_where_they_say_they_can() {
        for (mode, script, flag) in [
            (Suspend::Disk, "pm-hibernate", "--hibernate"),
            (Suspend::Ram, "pm-suspend", "--suspend"),
            (Suspend::Hybrid, "pm-suspend-hybrid", "--suspend-hybrid"),
        ] {
            let mut machine =
                Fake { programs: BTreeMap::from([("pm-is-supported", 0), (script, 0)]), ..Fake::default() };
            assert_eq!(suspend(&mut machine, mode), Ok(()), "without anything from the kernel");
            assert_eq!(machine.diary, [format!("pm-is-supported {flag}"), script.to_string()]);

            machine.programs.insert(script, 128);
            assert_eq!(suspend(&mut machine, mode), Err(Failure::Script(mode, 128)));

            for programs in [
                BTreeMap::from([("pm-is-supported", 1), (script, 0)]),
                BTreeMap::from([(script, 0)]),
                BTreeMap::from([("pm-is-supported", 0)]),
            ] {
                let mut machine = able();
                machine.programs = programs;
                assert_eq!(suspend(&mut machine, mode), Ok(()), "by the kernel");
                assert!(machine.diary.iter().any(|line| line.ends_with("/sys/power/state")));
                assert!(!machine.diary.contains(&script.to_string()));
            }
        }
    }

    #[test]
    fn every_end_survives_its_report() {
        assert_eq!(meaning(report(Ok(()))), Ok(()));
        assert_eq!(meaning(report(Err(Failure::Unsupported))), Err(SuspendError::Unsupported));
        for file in [File::State, File::Disk, File::MemSleep] {
            for error in [1, 16, 255, 256, 4095] {
                assert_eq!(
                    meaning(report(Err(Failure::Write(file, Errno::from_raw_os_error(error))))),
                    Err(SuspendError::Write(file.path().1, agent_core::guest::Errno(error.try_into().unwrap())))
                );
            }
        }
        for mode in MODES {
            for status in [1, 127, 255] {
                assert_eq!(
                    meaning(report(Err(Failure::Script(mode, status)))),
                    Err(SuspendError::Helper(Program::Script(mode).name(), status))
                );
            }
        }
    }

    #[test]
    fn both_spellings_of_a_path_are_the_same() {
        for file in [File::State, File::Disk, File::MemSleep, File::Swaps] {
            let (relative, absolute) = file.path();
            assert_eq!(format!("/{}", relative.to_str().unwrap()), absolute);
        }
    }

    /// A folder that is the root of a machine, with files like those of the kernel. Nothing here is the real one.
    fn root(name: &str) -> &'static CStr {
        let root = std::env::temp_dir().join(format!("nanoga-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (path, text) in able().files {
            let path = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = std::ffi::CString::new(root.into_os_string().into_encoded_bytes()).unwrap();
        std::boxed::Box::leak(root.into_boxed_c_str())
    }

    fn guest(root: &'static CStr) -> LinuxGuest {
        let buffers = std::boxed::Box::new(super::super::Buffers::ZERO);
        let mut guest = LinuxGuest::new(std::boxed::Box::leak(buffers));
        guest.root = root;
        guest
    }

    fn run_job(guest: &mut LinuxGuest, mode: Suspend) -> Result<(), SuspendError> {
        assert_ne!(guest.root, c"/", "never the real machine");
        let job = guest.suspend(mode)?;
        for _ in 0..1000 {
            guest.reap();
            if let Poll::Ready(result) = guest.suspended(job) {
                return result;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("never ended");
    }

    fn content(root: &CStr, path: &str) -> String {
        fs::read_to_string(format!("{}/{path}", root.to_str().unwrap())).unwrap()
    }

    fn install(root: &CStr, program: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = format!("{}/usr/sbin/{program}", root.to_str().unwrap());
        fs::create_dir_all(format!("{}/usr/sbin", root.to_str().unwrap())).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    #[ignore = "run by its namesake in a process of its own"]
    fn inside_a_worker_writes_what_the_kernel_would_read() {
        must_be_alone();
        let root = root("kernel");
        let guest = &mut guest(root);
        assert_eq!(run_job(guest, Suspend::Ram), Ok(()));
        assert_eq!(content(root, "sys/power/state"), "mem");
        assert_eq!(content(root, "sys/power/disk"), "[platform] shutdown reboot suspend test_resume \n");
        assert_eq!(run_job(guest, Suspend::Disk), Err(SuspendError::Unsupported), "no such word any more");
        fs::write(format!("{}/sys/power/state", root.to_str().unwrap()), "mem disk").unwrap();
        assert_eq!(run_job(guest, Suspend::Hybrid), Ok(()));
        assert_eq!(content(root, "sys/power/state"), "disk");
        assert_eq!(content(root, "sys/power/disk"), "platform");
        // A folder cannot be read.
        fs::write(format!("{}/sys/power/state", root.to_str().unwrap()), "mem disk").unwrap();
        fs::remove_file(format!("{}/sys/power/mem_sleep", root.to_str().unwrap())).unwrap();
        fs::create_dir(format!("{}/sys/power/mem_sleep", root.to_str().unwrap())).unwrap();
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Unsupported), "there, and offers nothing");
        fs::remove_dir_all(root.to_str().unwrap()).unwrap();
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Unsupported));
    }

    #[test]
    fn a_worker_writes_what_the_kernel_would_read() {
        alone("guest::power::tests::inside_a_worker_writes_what_the_kernel_would_read");
    }

    #[test]
    #[ignore = "run by its namesake in a process of its own"]
    fn inside_a_worker_runs_scripts() {
        must_be_alone();
        let root = root("scripts");
        let guest = &mut guest(root);
        install(root, "pm-is-supported", r#"[ "$1" = --suspend ]"#);
        install(root, "pm-suspend", r#"echo "$# $0 $(env | sort | tr '\n' ' ')" > ran; echo noise; exit 0"#);
        assert_eq!(run_job(guest, Suspend::Ram), Ok(()));
        let said = content(root, "ran");
        assert!(said.starts_with("0 usr/sbin/pm-suspend "), "{said}");
        assert!(said.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
        assert_eq!(content(root, "sys/power/state"), "freeze mem disk\n", "not touched");

        install(root, "pm-suspend", "exit 3");
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Helper("pm-suspend", 3)));
        install(root, "pm-suspend", "kill -9 $$");
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Helper("pm-suspend", 137)));
        // Supported for one mode only: the other goes by the kernel.
        install(root, "pm-hibernate", "exit 3");
        assert_eq!(run_job(guest, Suspend::Disk), Ok(()));
        assert_eq!(content(root, "sys/power/state"), "disk");
        fs::remove_dir_all(root.to_str().unwrap()).unwrap();
    }

    #[test]
    fn a_worker_runs_scripts() {
        alone("guest::power::tests::inside_a_worker_runs_scripts");
    }
}
