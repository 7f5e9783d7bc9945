//! `cargo xtask install`: the agent and what an init system needs for it, below a folder.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nanoga_tests::paths;
use xshell::{Shell, cmd};

/// Where it goes, and how it is called there.
pub struct Target {
    /// The root of the system it is for.
    pub root: PathBuf,
    /// Under the names of QEMU's own agent.
    pub as_qemu_ga: bool,
}

impl Target {
    /// What its service is called.
    fn name(&self) -> &'static str {
        if self.as_qemu_ga { "qemu-guest-agent" } else { "nanoga" }
    }
}

/// Builds the agent and installs it.
pub fn run(sh: &Shell, target: &Target) -> Result<()> {
    cmd!(sh, "cargo build --release").run()?;
    for file in place(&paths::target_dir().join("release/nanoga"), target)? {
        println!("{}", file.display());
    }
    print!("{}", next(target));
    Ok(())
}

/// What is left to do.
fn next(target: &Target) -> String {
    let name = target.name();
    let restricted = paths::workspace_dir().join("packaging/systemd/restricted.conf");
    let drop_in = target.root.join(format!("etc/systemd/system/{name}.service.d/restricted.conf"));
    // There is nothing to enable: udev starts it.
    let now = if target.root == Path::new("/") {
        format!(
            "next, with systemd:\n  systemctl daemon-reload && udevadm control --reload && systemctl start {name}\n\
             or with OpenRC:\n  rc-update add {name} && rc-service {name} start\n"
        )
    } else {
        format!("with systemd that is all: udev starts it; with OpenRC, in that system:\n  rc-update add {name}\n")
    };
    format!(
        "\n{now}and where the host shall run no programs and open no files:\n  install -D -m 644 {} {}\n",
        restricted.display(),
        drop_in.display()
    )
}

/// Writes the files; which, in their order.
fn place(agent: &Path, target: &Target) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let mut put = |path: &str, bytes: &[u8], mode: u32| {
        let path = target.root.join(path);
        write(&path, bytes, mode).with_context(|| format!("writing {}", path.display()))?;
        written.push(path);
        anyhow::Ok(())
    };
    let packaging = paths::workspace_dir().join("packaging");
    let text = |path: &str| {
        let text = fs::read_to_string(packaging.join(path)).with_context(|| format!("reading packaging/{path}"))?;
        anyhow::Ok(if target.as_qemu_ga { renamed(&text) } else { text })
    };
    let name = target.name();

    put("usr/sbin/nanoga", &fs::read(agent).with_context(|| agent.display().to_string())?, 0o755)?;
    put(&format!("usr/lib/systemd/system/{name}.service"), text("systemd/nanoga.service")?.as_bytes(), 0o644)?;
    put(&format!("usr/lib/udev/rules.d/60-{name}.rules"), text("udev/60-nanoga.rules")?.as_bytes(), 0o644)?;
    put(&format!("etc/init.d/{name}"), text("openrc/nanoga")?.as_bytes(), 0o755)?;
    // What an administrator wrote stays.
    if !target.root.join("etc/qemu/qemu-ga.conf").exists() {
        put("etc/qemu/qemu-ga.conf", text("qemu-ga.conf")?.as_bytes(), 0o644)?;
    }
    if target.as_qemu_ga {
        let link = target.root.join("usr/sbin/qemu-ga");
        let _ = fs::remove_file(&link);
        symlink("nanoga", &link).with_context(|| format!("writing {}", link.display()))?;
        written.push(link);
    }
    Ok(written)
}

/// The text of a file with the names of QEMU's own agent.
fn renamed(text: &str) -> String {
    [
        ("/usr/sbin/nanoga", "/usr/sbin/qemu-ga"),
        ("nanoga.service", "qemu-guest-agent.service"),
        ("60-nanoga", "60-qemu-guest-agent"),
        ("conf.d/nanoga", "conf.d/qemu-guest-agent"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Writes a file beside its place and moves it there: a program that runs cannot be overwritten.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(file.path(), bytes)?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use tempfile::TempDir;

    use super::*;
    use crate::provision::find_program;

    /// A file that is being written cannot be executed, and whatever another test starts meanwhile has it open for a
    /// moment. So there is one test at a time.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn install(as_qemu_ga: bool) -> (TempDir, Vec<String>) {
        let dir = TempDir::new().unwrap();
        let files = place(&paths::agent_binary().unwrap(), &Target { root: dir.path().into(), as_qemu_ga }).unwrap();
        let relative = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        let files = files.iter().map(relative).collect();
        (dir, files)
    }

    fn mode(dir: &TempDir, path: &str) -> u32 {
        fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777
    }

    fn read(dir: &TempDir, path: &str) -> String {
        fs::read_to_string(dir.path().join(path)).unwrap()
    }

    #[test]
    fn every_file_is_there_with_its_mode() {
        let _alone = alone();
        let (dir, files) = install(false);
        let want = [
            ("usr/sbin/nanoga", 0o755),
            ("usr/lib/systemd/system/nanoga.service", 0o644),
            ("usr/lib/udev/rules.d/60-nanoga.rules", 0o644),
            ("etc/init.d/nanoga", 0o755),
            ("etc/qemu/qemu-ga.conf", 0o644),
        ];
        assert_eq!(files, want.map(|(path, _)| path));
        for (path, bits) in want {
            assert_eq!(mode(&dir, path), bits, "{path}");
        }
        let agent = fs::read(paths::agent_binary().unwrap()).unwrap();
        assert_eq!(fs::read(dir.path().join("usr/sbin/nanoga")).unwrap(), agent);
    }

    #[test]
    fn in_the_place_of_qemu_ga_it_has_its_names() {
        let _alone = alone();
        let (dir, files) = install(true);
        let want = [
            "usr/sbin/nanoga",
            "usr/lib/systemd/system/qemu-guest-agent.service",
            "usr/lib/udev/rules.d/60-qemu-guest-agent.rules",
            "etc/init.d/qemu-guest-agent",
            "etc/qemu/qemu-ga.conf",
            "usr/sbin/qemu-ga",
        ];
        assert_eq!(files, want);
        assert_eq!(fs::read_link(dir.path().join("usr/sbin/qemu-ga")).unwrap(), Path::new("nanoga"));
        assert!(read(&dir, "usr/lib/systemd/system/qemu-guest-agent.service").contains("ExecStart=/usr/sbin/qemu-ga "));
        assert!(read(&dir, "usr/lib/udev/rules.d/60-qemu-guest-agent.rules").contains("\"qemu-guest-agent.service\""));
        assert!(read(&dir, "etc/init.d/qemu-guest-agent").contains("command=\"/usr/sbin/qemu-ga\""));
    }

    #[test]
    fn what_is_left_to_do_names_the_service_and_its_drop_in() {
        for (as_qemu_ga, name) in [(false, "nanoga"), (true, "qemu-guest-agent")] {
            let said = next(&Target { root: "/".into(), as_qemu_ga });
            assert!(said.contains(&format!("systemctl start {name}\n")), "{said}");
            let line = said.lines().find(|line| line.contains("restricted.conf")).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., from, to] = words[..] else { panic!("{line}") };
            assert!(Path::new(from).is_file(), "{line}");
            assert_eq!(to, format!("/etc/systemd/system/{name}.service.d/restricted.conf"));
            assert!(!next(&Target { root: "/image".into(), as_qemu_ga }).contains("systemctl"));
        }
    }

    #[test]
    fn a_configuration_that_is_there_stays_and_a_program_that_runs_is_replaced() {
        let _alone = alone();
        let dir = TempDir::new().unwrap();
        let target = Target { root: dir.path().into(), as_qemu_ga: false };
        let agent = paths::agent_binary().unwrap();
        place(&agent, &target).unwrap();
        fs::write(dir.path().join("etc/qemu/qemu-ga.conf"), "[general]\nverbose=true\n").unwrap();
        let installed = dir.path().join("usr/sbin/nanoga");
        let socket = dir.path().join("socket");
        let mut running = Command::new(&installed);
        let mut running =
            running.args(["-m", "unix-listen", "-p"]).arg(&socket).arg("-t").arg(dir.path()).spawn().unwrap();
        let again = place(&agent, &target);
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(!again.unwrap().iter().any(|path| path.ends_with("qemu-ga.conf")));
        assert_eq!(read(&dir, "etc/qemu/qemu-ga.conf"), "[general]\nverbose=true\n");
    }

    #[test]
    fn the_installed_configuration_means_the_defaults() {
        let _alone = alone();
        let (dir, _) = install(false);
        let dump = |file: &str| {
            let agent = dir.path().join("usr/sbin/nanoga");
            let output = Command::new(agent).arg("-D").env("QGA_CONF", dir.path().join(file)).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(dump("etc/qemu/qemu-ga.conf"), dump("nothing"));
        // Every key that it shows exists.
        let all = read(&dir, "etc/qemu/qemu-ga.conf").replace("\n#", "\n").replace("\n ", "\n# ");
        let keys = all.lines().filter(|line| line.contains('=') && !line.contains(' '));
        let text: Vec<&str> = ["[general]"].into_iter().chain(keys).collect();
        assert!(text.len() > 10);
        fs::write(dir.path().join("all"), text.join("\n")).unwrap();
        assert!(dump("all").contains("\nfreeze-timeout=600\n"));
    }

    #[test]
    fn systemd_and_the_shell_understand_what_is_for_them() {
        let _alone = alone();
        for as_qemu_ga in [false, true] {
            let (dir, files) = install(as_qemu_ga);
            let script = files.iter().find(|path| path.contains("init.d")).unwrap();
            assert!(Command::new("sh").arg("-n").arg(dir.path().join(script)).status().unwrap().success());
            let unit = files.iter().find(|path| path.ends_with(".service")).unwrap();
            let Some(verifier) = find_program("systemd-analyze") else {
                println!("systemd-analyze is not installed: {unit} is not verified");
                continue;
            };
            // It looks for the program of this system, and for no manual.
            let text = read(&dir, unit).replace("=/usr/sbin/", &format!("={}/usr/sbin/", dir.path().display()));
            fs::write(dir.path().join(unit), &text).unwrap();
            let drop_in = dir.path().join(format!("{unit}.d/restricted.conf"));
            for restricted in [false, true] {
                if restricted {
                    let text = fs::read_to_string(paths::workspace_dir().join("packaging/systemd/restricted.conf"));
                    let text = text.unwrap().replace("=/usr/sbin/", &format!("={}/usr/sbin/", dir.path().display()));
                    fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
                    fs::write(&drop_in, text).unwrap();
                }
                let output = Command::new(&verifier).args(["verify", "--man=no"]).arg(dir.path().join(unit)).output();
                let output = output.unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let about_us: Vec<&str> =
                    said.lines().filter(|line| line.contains("nanoga") || line.contains("qemu")).collect();
                assert!(output.status.success() && about_us.is_empty(), "{said}");
            }
        }
    }
}
