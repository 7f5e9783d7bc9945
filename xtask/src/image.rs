//! `cargo xtask image`: an initramfs that boots with nanoga as its first process: the agent, its settings, the kernel's
//! modules in the order they load, and a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use nanoga_tests::initramfs::{self, libraries, modules};
use nanoga_tests::paths::{self, Kernel};
use nanoga_tests::qemu::{accelerator, tsc_words};
use xshell::{Shell, cmd};

/// What a guest needs for its channels, its network and its disks. What a kernel does not have is left out.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_console", "virtio_net", "virtio_blk", "vmw_vsock_virtio_transport"];

/// What goes into it.
#[derive(Args)]
pub struct Image {
    /// The kernel: a version under /lib/modules, a folder like that, or `none` for one with all drivers built in.
    /// Without it: the kernel of the tests, otherwise the one that runs.
    #[arg(long)]
    kernel: Option<String>,
    /// The program that the guest is there for, with the libraries it is linked to.
    #[arg(long)]
    payload: Option<PathBuf>,
    /// How it is run. Without it: by its name alone.
    #[arg(long, value_name = "WORDS")]
    exec: Option<String>,
    /// Another setting for /etc/nanoga/init.conf, such as `on-exit=reboot`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Another module. May be repeated.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Another file, at the same path or at that behind the colon. May be repeated.
    #[arg(long = "file", value_name = "FILE[:PATH]")]
    files: Vec<String>,
    /// The machine of QEMU that is shown to boot it.
    #[arg(long, value_enum, default_value_t = Board::Pc)]
    board: Board,
    /// Where the image goes.
    #[arg(long, default_value = "nanoga.img.gz")]
    output: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Board {
    Pc,
    Microvm,
}

/// Builds it, and says how large it is and how it boots.
pub fn build(sh: &Shell, wanted: &Image) -> Result<()> {
    cmd!(sh, "cargo build --quiet --release").run()?;
    let mut conf = String::new();
    let mut image = with_agent()?;
    if let Some(payload) = &wanted.payload {
        let name = payload.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        let bytes = fs::read(payload).with_context(|| format!("reading {}", payload.display()))?;
        can_run(payload, &bytes, &wanted.files)?;
        image.file(&format!("bin/{name}"), 0o755, bytes);
        match libraries(std::slice::from_ref(payload)) {
            Ok(libraries) => libraries.iter().try_for_each(|library| image.library(library))?,
            Err(error) if error.to_string().contains("not found") => return Err(error),
            // A static program has none, and ldd fails.
            Err(_) => {}
        }
        conf += &format!("exec={}\n", wanted.exec.as_deref().unwrap_or(&format!("/bin/{name}")));
    } else if let Some(exec) = &wanted.exec {
        conf += &format!("exec={exec}\n");
    }
    for setting in &wanted.settings {
        ensure!(setting.contains('='), "{setting:?} is no KEY=VALUE");
        conf += &format!("{setting}\n");
    }
    understood(&conf)?;
    for file in &wanted.files {
        let (from, to) = places(file);
        ensure!(to.starts_with('/'), "--file {file}: where in the image? As in --file {from}:/etc/file");
        image.copy(Path::new(from), Path::new(to))?;
    }
    set(&mut image, &conf);

    let (kernel, boots) = kernel(wanted.kernel.as_deref())?;
    let mut bare = None;
    if let Some(kernel) = &kernel {
        // What it costs without the kernel's part.
        bare = Some(pack(sh, image.clone())?.len());
        add_modules(&mut image, kernel, &present(kernel, &wanted.modules)?)?;
    }
    let packed = pack(sh, image)?;
    fs::write(&wanted.output, &packed).with_context(|| format!("writing {}", wanted.output.display()))?;
    print!("{}: {} bytes", wanted.output.display(), packed.len());
    match bare {
        Some(bare) => println!(", {bare} without the modules"),
        None => println!(),
    }
    if let Some(name) = wanted.payload.as_deref().and_then(Path::file_name) {
        println!("the payload is /bin/{}", name.display());
    }
    show_boot(wanted, boots.as_deref());
    Ok(())
}

/// The commands that boot it and ask it.
fn show_boot(wanted: &Image, kernel: Option<&Path>) {
    let (machine, bus) = match wanted.board {
        Board::Pc => ("pc", "virtio-serial-pci"),
        Board::Microvm => ("microvm,acpi=on,rtc=on", "virtio-serial-device"),
    };
    // There are machines whose KVM runs no stock kernel. Whether this is one is known where the tests' kernel is.
    let emulated = accelerator().is_ok_and(|accel| accel == "tcg");
    let accel = if emulated { "tcg" } else { "kvm -accel tcg" };
    let words = if emulated && wanted.board == Board::Microvm { tsc_words() } else { String::new() };
    println!(
        "boot it{}:\n  \
         qemu-system-x86_64 -M {machine} -accel {accel} -m 256 -nodefaults -nographic -no-reboot \\\n  \
         -kernel {} -initrd {} -append 'console=ttyS0 quiet panic=-1{words}' -serial mon:stdio \\\n  \
         -chardev socket,path=qga.sock,server=on,wait=off,id=qga0 -device {bus} \\\n  \
         -device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0\n\
         ask it, from the same folder (cargo build --release -p nanoga-host):\n  \
         nanoga-host -a qga.sock info",
        if kernel.is_none() { ", with your kernel in the place of vmlinuz" } else { "" },
        kernel.unwrap_or(Path::new("vmlinuz")).display(),
        wanted.output.display()
    );
}

/// A file of this machine, and where it goes in the image.
fn places(file: &str) -> (&str, &str) {
    file.split_once(':').unwrap_or((file, file))
}

/// Refuses what a guest with these files could not run.
fn can_run(payload: &Path, bytes: &[u8], files: &[String]) -> Result<()> {
    let name = payload.display();
    ensure!(fs::metadata(payload)?.permissions().mode() & 0o111 != 0, "{name} is not executable");
    if let Some(script) = bytes.strip_prefix(b"#!") {
        let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_whitespace().next().unwrap_or_default();
        ensure!(
            files.iter().any(|file| places(file).1 == interpreter),
            "{name} is a script, and {interpreter} is not in the image: add it, as in --file BUSYBOX:{interpreter}, \
             where BUSYBOX is a static program"
        );
        return Ok(());
    }
    ensure!(bytes.starts_with(b"\x7fELF"), "{name} is neither a program for Linux nor a script");
    Ok(())
}

/// Refuses settings that the agent does not understand: as the first process it would pass over them.
fn understood(settings: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), conf(settings))?;
    let output = Command::new(paths::agent_binary()?).arg("-D").env("QGA_CONF", file.path()).output()?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

/// An image with the agent as its first process and nothing else.
pub fn with_agent() -> Result<initramfs::Image> {
    let mut image = folders();
    image.file("init", 0o755, fs::read(paths::agent_binary()?)?);
    Ok(image)
}

/// An image with what every first process needs.
pub fn folders() -> initramfs::Image {
    let mut image = initramfs::Image::default();
    for dir in ["bin", "dev", "etc", "etc/nanoga", "lib", "lib/modules", "proc", "root", "run", "sys", "tmp"] {
        image.dir(dir);
    }
    // Before devtmpfs is there, the kernel opens it for the first process.
    image.device("dev/console", 5, 1);
    image
}

/// Adds its settings: lines of `KEY=VALUE`.
pub fn set(image: &mut initramfs::Image, settings: &str) {
    image.file("etc/nanoga/init.conf", 0o644, conf(settings).into());
}

fn conf(settings: &str) -> String {
    format!("[general]\n{settings}")
}

/// Adds these modules of a kernel and what they depend on, and the list by which the agent loads them.
pub fn add_modules(image: &mut initramfs::Image, kernel: &Path, names: &[&str]) -> Result<()> {
    let mut order = String::new();
    for (name, module) in modules(kernel, names)? {
        order += &format!("/lib/modules/{name}.ko\n");
        image.file(&format!("lib/modules/{name}.ko"), 0o644, module);
    }
    image.file("etc/nanoga/modules", 0o644, order.into());
    Ok(())
}

/// The folder of the kernel's modules, if it has any, and its image, where that is known.
fn kernel(wanted: Option<&str>) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    let version = match wanted {
        Some("none") => return Ok((None, None)),
        Some(folder) if folder.contains('/') => return Ok((Some(folder.into()), None)),
        Some(version) => version.to_owned(),
        None => match Kernel::find() {
            Ok(kernel) => return Ok((Some(kernel.modules), Some(kernel.image))),
            Err(_) => fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        },
    };
    let Some(modules) = ["/lib/modules", "/usr/lib/modules"]
        .map(|dir| Path::new(dir).join(&version))
        .into_iter()
        .find(|dir| dir.is_dir())
    else {
        bail!("no modules of a kernel {version}; `--kernel none` for one with all drivers built in");
    };
    let image = Path::new("/boot").join(format!("vmlinuz-{version}"));
    Ok((Some(modules), image.is_file().then_some(image)))
}

/// The usual modules that this kernel has, and those that are asked for.
fn present<'n>(kernel: &Path, more: &'n [String]) -> Result<Vec<&'n str>> {
    let mut names: Vec<&str> = Vec::new();
    for name in MODULES {
        match modules(kernel, &[name]) {
            Ok(_) => names.push(name),
            Err(_) => println!("left out: this kernel has no {name}"),
        }
    }
    names.extend(more.iter().map(String::as_str));
    Ok(names)
}

/// The archive, compressed so that every kernel can read it.
pub fn pack(sh: &Shell, image: initramfs::Image) -> Result<Vec<u8>> {
    let archive = image.finish()?;
    Ok(cmd!(sh, "gzip -9 -n").stdin(archive).quiet().output()?.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_the_guest_cannot_run_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let payload = dir.path().join("payload");
        let said = |text: &str, mode: u32, files: &[&str]| {
            fs::write(&payload, text).unwrap();
            fs::set_permissions(&payload, fs::Permissions::from_mode(mode)).unwrap();
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            can_run(&payload, text.as_bytes(), &files).map_err(|error| error.to_string())
        };
        let script = "#!/bin/sh -e\necho\n";
        assert!(said(script, 0o755, &["/bin/sh:/bin/bash"]).unwrap_err().contains("/bin/sh is not in the image"));
        assert_eq!(said(script, 0o755, &["busybox:/bin/sh"]), Ok(()));
        assert_eq!(said(script, 0o755, &["/bin/sh"]), Ok(()));
        assert!(said("\x7fELF", 0o644, &[]).unwrap_err().contains("not executable"));
        assert_eq!(said("\x7fELF", 0o755, &[]), Ok(()));
        assert!(said("[package]", 0o755, &[]).unwrap_err().contains("neither a program"));
    }

    #[test]
    fn a_setting_that_the_agent_does_not_know_is_refused() {
        understood("exec=/bin/program -x\non-exit=reboot\nhostname=guest\n").unwrap();
        assert!(understood("on-exti=reboot\n").unwrap_err().to_string().contains("on-exti"));
        assert!(understood("on-exit=sleep\n").unwrap_err().to_string().contains("on-exit"));
    }
}
