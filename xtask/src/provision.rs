//! Fetches what the tests need and this machine lacks, and says so on stderr, where its commands stand too.
//!
//! Programs are installed through apt, as root or by sudo. What guests are made of is only downloaded and unpacked
//! under `target/guest/`: no kernel is installed, no file of the system replaced.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nanoga_tests::paths::{self, Kernel};
use xshell::{Shell, cmd};

/// A program the tests run, or another file by its path, and the package it comes in.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ip", "iproute2"),
    ("strace", "strace"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
];

/// What only `cargo xtask test` runs.
const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("dmsetup", "dmsetup"),
    ("debootstrap", "debootstrap"),
    ("/usr/share/zoneinfo/Europe/Berlin", "tzdata"),
    // These three hold no service: what starts libvirt with the system is in libvirt-daemon-system.
    ("virsh", "libvirt-clients"),
    ("libvirtd", "libvirt-daemon"),
    ("virt-qemu-run", "libvirt-daemon-driver-qemu"),
];

/// The packages that stand for the newest kernel for guests: Debian's, Ubuntu's.
const KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-virtual"];

/// The same for a kernel with drivers for the disks of real machines.
const GENERIC_KERNELS: &[&str] = &["linux-image-amd64", "linux-image-generic"];

/// The same for aarch64. Ubuntu's servers have these where this machine does not look.
const AARCH64_KERNELS: &[&str] = &["linux-image-cloud-arm64", "linux-image-virtual"];

/// How long new package lists may take.
const DOWNLOAD_SECONDS: &str = "300";

/// The vsock device that stands beside QEMU. Debian has it from 13 on.
const VSOCK_DEVICE: &str = "vhost-device-vsock@0.3.0";

/// How long debootstrap may take: half a minute is usual.
const BOOTSTRAP_SECONDS: &str = "600";

/// Installs the programs that are missing.
pub fn programs(sh: &Shell) -> Result<()> {
    install_missing(sh, PROGRAMS)
}

/// Installs and fetches what only the tests need: libvirt, file systems, QEMU's own agent, another kernel.
pub fn for_tests(sh: &Shell) -> Result<()> {
    install_missing(sh, TEST_PROGRAMS)?;
    reference(sh)?;
    vsock_device(sh)?;
    systemd_disk(sh)?;
    let dir = paths::guest_dir();
    if Kernel::find_generic().is_err() {
        fetch_kernel(sh, GENERIC_KERNELS, &dir, "kernel-generic")?;
    }
    eprintln!("kernel with drivers for real disks: {}", Kernel::find_generic()?.image.display());
    Ok(())
}

/// Puts a vsock device for guests under `target/guest/`: one that needs nothing of this machine's kernel.
pub fn vsock_device(sh: &Shell) -> Result<()> {
    if paths::vhost_device_vsock().is_err() {
        eprintln!("building {VSOCK_DEVICE}");
        let (root, build) = (paths::guest_dir(), paths::guest_dir().join("build"));
        cmd!(sh, "cargo install --quiet --locked --root {root} --target-dir {build} {VSOCK_DEVICE}").run()?;
        fs::remove_dir_all(build)?;
    }
    eprintln!("vsock device: {}", paths::vhost_device_vsock()?.display());
    Ok(())
}

/// Puts the disk of a small system with systemd under `target/guest/`: what debootstrap(8) makes of this distribution.
fn systemd_disk(sh: &Shell) -> Result<()> {
    if paths::systemd_disk().is_err() {
        let release = fs::read_to_string("/etc/os-release")?;
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.context("this is no Debian or Ubuntu: /etc/os-release has no VERSION_CODENAME")?;
        let (root, disk) = (paths::guest_dir().join("systemd"), paths::guest_dir().join("systemd.img.part"));
        eprintln!("installing a small system with systemd into {}", root.display());
        let made = make_systemd_disk(sh, suite, &root, &disk);
        // Its files are root's.
        as_root(sh, &["rm", "-rf", "--one-file-system", path(&root)?])?;
        made?;
        fs::rename(disk, paths::guest_dir().join("systemd.img"))?;
    }
    eprintln!("disk with systemd: {}", paths::systemd_disk()?.display());
    Ok(())
}

fn make_systemd_disk(sh: &Shell, suite: &str, root: &Path, disk: &Path) -> Result<()> {
    let (root, disk) = (path(root)?, path(disk)?);
    let bootstrap = ["debootstrap", "--variant=minbase", "--include=systemd-sysv", suite, root];
    // What it mounts goes with it, however it ends.
    let bounded = ["unshare", "--mount", "timeout", BOOTSTRAP_SECONDS];
    as_root(sh, &["rm", "-rf", "--one-file-system", root, disk])?;
    as_root(sh, &[bounded.as_slice(), &bootstrap].concat()).with_context(|| {
        format!("cannot install {suite}; or put a disk with systemd, ext4, at {}", disk.trim_end_matches(".part"))
    })?;
    let unneeded = ["var/cache/apt", "var/lib/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"];
    let unneeded = unneeded.map(|dir| format!("{root}/{dir}"));
    as_root(sh, &[&["rm", "-rf"], unneeded.each_ref().map(String::as_str).as_slice()].concat())?;
    as_root(sh, &["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "320M"])?;
    // For whoever runs the tests.
    as_root(sh, &["chmod", "a+r", disk])
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("an odd path")
}

/// Puts QEMU's own agent under `target/guest/`, where the system has none.
///
/// Its package would install a service and start it. Only its libraries are installed, where they are missing.
pub fn reference(sh: &Shell) -> Result<()> {
    if paths::reference_agent().is_err() {
        let dir = paths::guest_dir();
        fs::create_dir_all(&dir)?;
        let unpacked = fetch(sh, &dir, &["qemu-guest-agent"])?;
        let found = ["usr/sbin/qemu-ga", "usr/bin/qemu-ga"].map(|file| unpacked.join(file));
        let found = found.iter().find(|file| file.is_file()).context("qemu-guest-agent has no qemu-ga")?;
        fs::copy(found, dir.join("qemu-ga"))?;
        fs::remove_dir_all(unpacked)?;
    }
    let agent = paths::reference_agent()?;
    if cmd!(sh, "{agent} --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        let depends = cmd!(sh, "apt-cache depends --no-recommends --no-suggests qemu-guest-agent").quiet().read()?;
        let depends = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        install(sh, &depends.filter(|name| name.starts_with("lib")).collect::<Vec<_>>())?;
    }
    eprintln!("to compare with: {}, {}", agent.display(), cmd!(sh, "{agent} --version").quiet().read()?);
    Ok(())
}

fn install_missing(sh: &Shell, programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| find_program(program).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    install(sh, &packages)?;
    let names: Vec<&str> = programs.iter().map(|(program, _)| *program).collect();
    eprintln!("programs, all there: {}", names.join(" "));
    Ok(())
}

/// Puts a kernel and a busybox under `target/guest/`.
pub fn guest(sh: &Shell) -> Result<()> {
    let dir = paths::guest_dir();
    fs::create_dir_all(&dir)?;
    if Kernel::find().is_err() {
        fetch_kernel(sh, KERNELS, &dir, "kernel")?;
    }
    eprintln!("kernel: {}", Kernel::find()?.image.display());
    if paths::busybox().is_err() {
        let unpacked = fetch(sh, &dir, &["busybox-static"])?;
        let found = ["bin/busybox", "usr/bin/busybox"].map(|file| unpacked.join(file));
        let found = found.iter().find(|file| file.is_file()).context("busybox-static has no busybox")?;
        fs::copy(found, dir.join("busybox"))?;
        fs::remove_dir_all(unpacked)?;
    }
    eprintln!("busybox: {}", paths::busybox()?.display());
    Ok(())
}

/// Installs and fetches what a guest on aarch64 needs.
///
/// Its kernel comes from package lists of its own: this system need not know of another architecture's packages.
pub fn aarch64_guest(sh: &Shell) -> Result<()> {
    install_missing(sh, &[("qemu-system-aarch64", "qemu-system-arm")])?;
    if Kernel::find_aarch64().is_err() {
        let dir = paths::guest_dir();
        let apt = dir.join("apt-aarch64");
        let _ = fs::remove_dir_all(&apt);
        fs::create_dir_all(apt.join("lists/partial"))?;
        fs::write(
            apt.join("conf"),
            format!(
                "APT::Architecture \"arm64\";\nAPT::Architectures {{ \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
                 Dir::State::status \"/dev/null\";\nDir::State::Lists \"{0}/lists\";\nDir::Cache \"{0}/cache\";\n",
                apt.display()
            ),
        )?;
        let _apt = sh.push_env("APT_CONFIG", apt.join("conf"));
        cmd!(sh, "timeout {DOWNLOAD_SECONDS} apt-get -q update").run()?;
        fetch_kernel(sh, AARCH64_KERNELS, &dir, "kernel-aarch64")?;
        fs::remove_dir_all(apt)?;
    }
    println!("kernel for aarch64: {}", Kernel::find_aarch64()?.image.display());
    Ok(())
}

/// Fetches an emulator for aarch64 programs, unless there is one.
pub fn qemu_aarch64(sh: &Shell) -> Result<PathBuf> {
    let kept = paths::guest_dir().join("qemu-aarch64");
    let names = ["qemu-aarch64-static", "qemu-aarch64"];
    let found = names.iter().find_map(|name| find_program(name));
    if let Some(found) = found.or(kept.is_file().then(|| kept.clone())) {
        return Ok(found);
    }
    let dir = paths::guest_dir();
    fs::create_dir_all(&dir)?;
    // Where qemu-user-static is an empty package, qemu-user has the static programs.
    for package in ["qemu-user-static", "qemu-user"] {
        let unpacked = fetch(sh, &dir, &[package])?;
        let found = names.iter().map(|name| unpacked.join("usr/bin").join(name));
        let found = found.filter_map(|path| path.canonicalize().ok()).find(|path| path.is_file());
        if let Some(found) = found {
            fs::copy(found, &kept)?;
        }
        fs::remove_dir_all(unpacked)?;
        if kept.is_file() {
            return Ok(kept);
        }
    }
    bail!("no package of this system has a qemu-aarch64-static");
}

/// Installs packages through apt.
pub fn install(sh: &Shell, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    ensure!(
        find_program("apt-get").is_some(),
        "this is no Debian or Ubuntu: install what these packages of Debian hold, and run it again: {list}"
    );
    eprintln!("installing {list}");
    with_fresh_lists(sh, || {
        let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
        as_root(sh, &[&install, packages].concat())
    })
    .with_context(|| format!("cannot install: apt-get install {list}"))
}

/// Runs a command as root, without asking for a password.
pub fn as_root(sh: &Shell, command: &[&str]) -> Result<()> {
    let command = [&["DEBIAN_FRONTEND=noninteractive"], command].concat();
    match cmd!(sh, "id -u").quiet().read()?.as_str() {
        "0" => Ok(cmd!(sh, "env {command...}").run()?),
        _ => cmd!(sh, "sudo -n env {command...}").run().context("needs root, or sudo without a password"),
    }
}

/// Where a program lies.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // `ip` and others lie where users' PATH does not lead.
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn fetch_kernel(sh: &Shell, known: &[&str], dir: &Path, name: &str) -> Result<()> {
    ensure!(
        find_program("apt-get").is_some() && find_program("dpkg-deb").is_some(),
        "this is no Debian or Ubuntu: unpack a kernel package with boot/vmlinuz-VERSION and lib/modules/VERSION \
         to {0}/{name} and put a static busybox at {0}/busybox",
        dir.display()
    );
    let mut packages = Vec::new();
    with_fresh_lists(sh, || {
        packages = known.iter().find_map(|name| real_packages(sh, name)).context("apt knows no kernel")?;
        Ok(())
    })?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    let unpacked = fetch(sh, dir, &names)?;
    let kernel = dir.join(name);
    let _ = fs::remove_dir_all(&kernel);
    fs::rename(unpacked, &kernel)?;
    ensure!(kernel.join("boot").is_dir(), "{names:?} hold no kernel");
    let compressed = cmd!(sh, "find {kernel} -name virtio_net.ko.*").quiet().read()?;
    match Path::new(compressed.trim()).extension().and_then(|e| e.to_str()) {
        Some("xz") if find_program("xz").is_none() => install(sh, &["xz-utils"]),
        Some("zst") if find_program("zstd").is_none() => install(sh, &["zstd"]),
        _ => Ok(()),
    }
}

/// The packages with files behind one that only depends on them: the image, and its modules where they are apart.
fn real_packages(sh: &Shell, name: &str) -> Option<Vec<String>> {
    let list = cmd!(sh, "apt-cache depends --no-recommends --no-suggests {name}");
    let list = list.quiet().ignore_stderr().read().ok()?;
    let versioned = |name: &&str| {
        let rest = name.strip_prefix("linux-image-").or(name.strip_prefix("linux-modules-"));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let depends = list.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut packages: Vec<String> = depends.filter(versioned).map(str::to_owned).collect();
    for package in packages.clone() {
        packages.extend(real_packages(sh, &package).unwrap_or_default());
    }
    (!packages.is_empty()).then_some(packages)
}

/// Downloads packages and unpacks them into one new directory.
fn fetch(sh: &Shell, dir: &Path, packages: &[&str]) -> Result<PathBuf> {
    ensure!(
        find_program("apt-get").is_some() && find_program("dpkg-deb").is_some(),
        "this is no Debian or Ubuntu: cannot fetch {packages:?} for {}",
        dir.display()
    );
    eprintln!("downloading {} into {}", packages.join(" "), dir.display());
    let debs = dir.join("debs");
    let unpacked = dir.join("unpacked");
    for dir in [&debs, &unpacked] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir)?;
    }
    with_fresh_lists(sh, || {
        let _here = sh.push_dir(&debs);
        // As root apt would download as a user who may not write here.
        cmd!(sh, "apt-get -q -o APT::Sandbox::User=root download {packages...}").run()?;
        Ok(())
    })?;
    for deb in sh.read_dir(&debs)? {
        cmd!(sh, "dpkg-deb -x {deb} {unpacked}").run()?;
    }
    fs::remove_dir_all(debs)?;
    Ok(unpacked)
}

/// Does something with apt, and once more with new package lists if it fails.
fn with_fresh_lists(sh: &Shell, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let Err(first) = step() else {
        return Ok(());
    };
    eprintln!("{first:#}: trying again with new package lists");
    as_root(sh, &["apt-get", "-q", "update"])?;
    step()
}
