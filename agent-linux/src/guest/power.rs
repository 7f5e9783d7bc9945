//! Sleep: by the scripts of pm-utils where they are installed, otherwise by the kernel's `/sys/power`
//! (kernel documentation, admin-guide/pm/sleep-states.rst and basic-pm-debugging; `pm-is-supported(1)`).
//!
//! All of it happens in a worker, one step after another: the write that sends the machine to sleep returns when it is
//! awake again. What cannot work is refused before anything is touched, as a machine that sleeps and cannot be woken,
//! or an attempt that fails halfway, is worse than an error. It knows nothing of hosts and replies.

mod machine;

use core::ffi::CStr;
use core::task::Poll;

use agent_core::guest::{Job, Power, Suspend, SuspendError};
use linux_raw_sys::errno;
use rustix::process::chdir;

use super::LinuxGuest;
use super::job::{KILLED, NOT_RUN, Report};
use crate::sys;
use machine::{
    Linux, MEM_SLEEP, Machine, PM_HIBERNATE, PM_IS_SUPPORTED, PM_SUSPEND, PM_SUSPEND_HYBRID, POWER_DISK, POWER_STATE,
    SWAPS, name, relative, words,
};

impl LinuxGuest {
    /// Is a host's wish to put it to sleep being carried out, or is it just waking up?
    pub fn is_suspending(&self) -> bool {
        self.tables.jobs.is_running(self.last_suspend)
    }
}

impl Power for LinuxGuest {
    fn suspend(&mut self, mode: Suspend) -> Result<Job, SuspendError> {
        // Two at a time would restore each other's settings, and the second might sleep where nothing wakes it.
        if self.is_suspending() {
            return Err(SuspendError::Busy);
        }
        let root = self.root;
        // Below, every path is relative.
        let mut work = || if chdir(root).is_ok() { suspend(&mut Linux, mode) } else { UNSUPPORTED };
        self.last_suspend = self.tables.jobs.start(&mut work).map_err(SuspendError::Job)?;
        Ok(self.last_suspend)
    }

    fn suspended(&mut self, job: Job) -> Poll<Result<(), SuspendError>> {
        self.tables.jobs.poll(job).map(meaning)
    }
}

/// A report: it went well.
const DONE: Report = 0x100;
/// A report: refused before anything was touched.
const UNSUPPORTED: Report = 0x200;

/// A report: this file could not be written, for this error, or this program ended with this status.
fn failure(name: u8, code: u16) -> Report {
    Report::from(name) | Report::from(code).wrapping_shl(16)
}

/// What a report says.
fn meaning(report: Report) -> Result<(), SuspendError> {
    let [number, _, low, high] = report.to_le_bytes();
    Err(match report {
        DONE => return Ok(()),
        UNSUPPORTED => SuspendError::Unsupported,
        KILLED => SuspendError::Job(sys::errno_of(errno::ECANCELED)),
        _ if number <= POWER_STATE => {
            SuspendError::Write(name(number), agent_core::guest::Errno(u16::from_le_bytes([low, high])))
        }
        _ => SuspendError::Helper(relative(number), low),
    })
}

/// A way to sleep.
struct Way {
    /// The program for it, and what tells [`PM_IS_SUPPORTED`] that it is meant.
    script: u8,
    flag: &'static CStr,
    /// What must be selected in [`POWER_DISK`], [`MEM_SLEEP`] and [`POWER_STATE`], one of these words each. Nothing:
    /// the file does not matter. It is done in this order: to write to the last one is to sleep.
    wanted: [&'static str; 3],
}

const DISK: Way = Way { script: PM_HIBERNATE, flag: c"--hibernate", wanted: ["platform shutdown", "", "disk"] };
const RAM: Way = Way { script: PM_SUSPEND, flag: c"--suspend", wanted: ["", "deep", "mem"] };
const HYBRID: Way = Way { script: PM_SUSPEND_HYBRID, flag: c"--suspend-hybrid", wanted: ["suspend", "deep", "disk"] };

/// Sleeps, and reports.
fn suspend(machine: &mut impl Machine, mode: Suspend) -> Report {
    let way = match mode {
        Suspend::Disk => &DISK,
        Suspend::Ram => &RAM,
        Suspend::Hybrid => &HYBRID,
    };
    if machine.run(PM_IS_SUPPORTED, Some(way.flag)) == 0 {
        match machine.run(way.script, None) {
            0 => return DONE,
            NOT_RUN => {}
            status => return failure(way.script, u16::from(status)),
        }
    }

    // Without pm-utils: all that has to be known, then all that has to be done.
    if mode != Suspend::Ram && !machine.read(SWAPS, &mut [0; 1024]).is_some_and(holds_image) {
        return UNSUPPORTED;
    }
    // Sleeping both ways takes what each of them takes.
    if mode == Suspend::Hybrid && steps(machine, &RAM.wanted, POWER_DISK, Phase::Check) != DONE {
        return UNSUPPORTED;
    }
    match steps(machine, &way.wanted, POWER_DISK, Phase::Check) {
        DONE => steps(machine, &way.wanted, POWER_DISK, Phase::Act),
        report => report,
    }
}

/// Nothing is touched before all of it is known to be possible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Check,
    Act,
}

/// The steps from this file on: select what is wanted in it, do all that follows, and select again what was before. It
/// calls itself for what follows, so the last choice that was made is the first to be undone.
fn steps(machine: &mut impl Machine, wanted: &[&str; 3], file: u8, phase: Phase) -> Report {
    let Some(words_wanted) = wanted.get(usize::from(file)) else {
        return DONE;
    };
    let next = file.wrapping_add(1);
    let mut buffer = [0; 256];
    let text = machine.read(file, &mut buffer);
    // Kernels before 4.10 have no choice of depth.
    if words_wanted.is_empty() || (file == MEM_SLEEP && text.is_none()) {
        return steps(machine, wanted, next, phase);
    }
    let (mut word, mut before): (&[u8], &[u8]) = (&[], &[]);
    // What is selected stands in brackets: `s2idle [deep]`. The kernel lists `platform` before `shutdown`.
    for mut offered in words(text.unwrap_or_default()) {
        let mut selected = false;
        if let [b'[', inner @ .., b']'] = offered {
            (offered, before, selected) = (inner, inner, true);
        }
        if (selected || word.is_empty()) && words(words_wanted.as_bytes()).any(|wanted| wanted == offered) {
            word = offered;
        }
    }
    if word.is_empty() {
        return UNSUPPORTED;
    }
    if phase == Phase::Check || word == before {
        return steps(machine, wanted, next, phase);
    }

    let report = match machine.write(file, word) {
        Ok(()) => steps(machine, wanted, next, phase),
        Err(error) => failure(file, sys::errno(error).0),
    };
    if !before.is_empty() {
        let _ = machine.write(file, before);
    }
    report
}

/// Whether `/proc/swaps` has one that keeps its contents without power: a path, but not of compressed memory.
fn holds_image(swaps: &[u8]) -> bool {
    words(swaps).any(|word| word.starts_with(b"/") && !word.starts_with(b"/dev/zram"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, fs, thread};

    use rustix::io::Errno;

    use super::machine::NAMES;
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
        fn read<'b>(&self, file: u8, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
            let text = self.files.get(text(file))?.as_bytes();
            buffer[..text.len()].copy_from_slice(text);
            Some(&buffer[..text.len()])
        }

        fn write(&mut self, file: u8, word: &[u8]) -> Result<(), Errno> {
            let path = text(file);
            let word = str::from_utf8(word).unwrap();
            if self.fails == Some((path, word)) {
                return Err(Errno::BUSY);
            }
            self.diary.push(format!("{word} > {path}"));
            Ok(())
        }

        fn run(&mut self, program: u8, argument: Option<&CStr>) -> u8 {
            let Some(&status) = self.programs.get(text(program)) else {
                return NOT_RUN;
            };
            let argument = argument.map_or("", |argument| argument.to_str().unwrap());
            self.diary.push(format!("{} {argument}", text(program)).trim_end().to_string());
            status
        }
    }

    fn text(number: u8) -> &'static str {
        if number <= SWAPS { name(number) } else { relative(number) }.to_str().unwrap()
    }

    /// EBUSY, which a [`Fake`] fails with.
    const BUSY: agent_core::guest::Errno = agent_core::guest::Errno(16);

    fn sleep(machine: &mut Fake, mode: Suspend) -> Result<(), SuspendError> {
        meaning(suspend(machine, mode))
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
    fn with(path: &'static str, text: &'static str, mode: Suspend) -> Result<Vec<String>, SuspendError> {
        let mut machine = able();
        machine.files.insert(path, text);
        sleep(&mut machine, mode).map(|()| machine.diary)
    }

    fn without(path: &'static str, mode: Suspend) -> Result<Vec<String>, SuspendError> {
        let mut machine = able();
        machine.files.remove(path);
        sleep(&mut machine, mode).map(|()| machine.diary)
    }

    fn diary(lines: &[&str]) -> Result<Vec<String>, SuspendError> {
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
                "s2idle > /sys/power/mem_sleep",
                "platform > /sys/power/disk",
            ])
        );
        assert_eq!(with(path, "[s2idle] deep\n", Suspend::Disk), diary(&["disk > /sys/power/state"]));
    }

    #[test]
    fn a_machine_that_would_not_wake_up_is_refused() {
        for mode in [Suspend::Ram, Suspend::Hybrid] {
            for text in ["[s2idle]\n", "[s2idle] shallow\n", "", "deeper\n"] {
                assert_eq!(with("/sys/power/mem_sleep", text, mode), Err(SuspendError::Unsupported));
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
                assert_eq!(with(path, text, mode), Err(SuspendError::Unsupported), "{text}");
            }
        }
        for mode in MODES {
            assert_eq!(without(path, mode), Err(SuspendError::Unsupported));
        }
        assert_eq!(with(path, "freeze mem\n", Suspend::Disk), Err(SuspendError::Unsupported));
        assert_eq!(with(path, "freeze disk\n", Suspend::Ram), Err(SuspendError::Unsupported));
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
            assert_eq!(with(path, "[disabled]\n", mode), Err(SuspendError::Unsupported));
            assert_eq!(without(path, mode), Err(SuspendError::Unsupported));
        }
        assert_eq!(with(path, "[shutdown] reboot\n", Suspend::Hybrid), Err(SuspendError::Unsupported));
        assert_eq!(with(path, "platform shutdown [suspend]\n", Suspend::Hybrid), diary(&["disk > /sys/power/state"]));
    }

    #[test]
    fn hibernation_needs_a_swap_that_keeps_its_contents() {
        let path = "/proc/swaps";
        let none = "Filename Type Size Used Priority\n";
        let zram = "Filename Type Size Used Priority\n/dev/zram0 partition 8 0 100\n/dev/zram1 partition 8 0 100\n";
        let both = "Filename Type Size Used Priority\n/dev/zram0 partition 8 0 100\n/swap file 8 0 -2\n";
        for mode in [Suspend::Disk, Suspend::Hybrid] {
            assert_eq!(with(path, none, mode), Err(SuspendError::Unsupported));
            assert_eq!(with(path, "", mode), Err(SuspendError::Unsupported));
            assert_eq!(with(path, zram, mode), Err(SuspendError::Unsupported));
            assert_eq!(without(path, mode), Err(SuspendError::Unsupported));
            assert!(with(path, both, mode).is_ok());
        }
        assert!(with(path, none, Suspend::Ram).is_ok());
    }

    #[test]
    fn a_failed_write_is_named_and_choices_are_restored() {
        let mut machine = able();
        machine.files.insert("/sys/power/mem_sleep", "[s2idle] deep\n");
        machine.fails = Some(("/sys/power/state", "mem"));
        assert_eq!(sleep(&mut machine, Suspend::Ram), Err(SuspendError::Write(c"/sys/power/state", BUSY)));
        assert_eq!(machine.diary, ["deep > /sys/power/mem_sleep", "s2idle > /sys/power/mem_sleep"]);

        machine.diary.clear();
        machine.fails = Some(("/sys/power/mem_sleep", "deep"));
        assert_eq!(sleep(&mut machine, Suspend::Hybrid), Err(SuspendError::Write(c"/sys/power/mem_sleep", BUSY)));
        assert!(machine.diary.contains(&"platform > /sys/power/disk".to_string()));
        assert!(!machine.diary.iter().any(|line| line.ends_with("/sys/power/state")));
    }

    #[test]
    fn scripts_go_first_where_they_say_they_can() {
        for (mode, script, flag) in [
            (Suspend::Disk, c"pm-hibernate", "--hibernate"),
            (Suspend::Ram, c"pm-suspend", "--suspend"),
            (Suspend::Hybrid, c"pm-suspend-hybrid", "--suspend-hybrid"),
        ] {
            let name = script;
            let script = script.to_str().unwrap();
            let mut machine =
                Fake { programs: BTreeMap::from([("pm-is-supported", 0), (script, 0)]), ..Fake::default() };
            assert_eq!(sleep(&mut machine, mode), Ok(()), "without anything from the kernel");
            assert_eq!(machine.diary, [format!("pm-is-supported {flag}"), script.to_string()]);

            machine.programs.insert(script, 128);
            assert_eq!(sleep(&mut machine, mode), Err(SuspendError::Helper(name, 128)));

            for programs in [
                BTreeMap::from([("pm-is-supported", 1), (script, 0)]),
                BTreeMap::from([(script, 0)]),
                BTreeMap::from([("pm-is-supported", 0)]),
            ] {
                let mut machine = able();
                machine.programs = programs;
                assert_eq!(sleep(&mut machine, mode), Ok(()), "by the kernel");
                assert!(machine.diary.iter().any(|line| line.ends_with("/sys/power/state")));
                assert!(!machine.diary.contains(&script.to_string()));
            }
        }
    }

    #[test]
    fn every_end_survives_its_report() {
        assert_eq!(meaning(DONE), Ok(()));
        assert_eq!(meaning(UNSUPPORTED), Err(SuspendError::Unsupported));
        assert_eq!(meaning(KILLED), Err(SuspendError::Job(agent_core::guest::Errno(125))));
        for file in 0..SWAPS {
            for error in [1, 16, 255, 256, 4095] {
                let said = SuspendError::Write(name(file), agent_core::guest::Errno(error));
                assert_eq!(meaning(failure(file, error)), Err(said));
            }
        }
        for way in [DISK, RAM, HYBRID] {
            for status in [1, 127, 255] {
                let said = SuspendError::Helper(relative(way.script), status);
                assert_eq!(meaning(failure(way.script, u16::from(status))), Err(said));
            }
        }
    }

    #[test]
    fn names_are_text() {
        assert!(NAMES.iter().all(|name| name.to_bytes().is_ascii()));
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
        let tables = std::boxed::Box::leak(std::boxed::Box::new(super::super::Tables::NONE));
        let options = std::boxed::Box::leak(std::boxed::Box::new(crate::options::Options::NONE));
        let environment = crate::sys::Strings::NONE;
        let mut guest = LinuxGuest::new(std::boxed::Box::leak(buffers), tables, environment, options);
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
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Helper(c"pm-suspend", 3)));
        install(root, "pm-suspend", "kill -9 $$");
        assert_eq!(run_job(guest, Suspend::Ram), Err(SuspendError::Helper(c"pm-suspend", 137)));
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
