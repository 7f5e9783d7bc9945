//! The image a guest boots: busybox and its init, the kernel modules it needs, the agent, and a shell for the test.
//! What differs between guests is done by the test, through that shell; only modules and programs that few guests need
//! are [`Extras`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cpio::newc;

use crate::paths::{self, Kernel};

/// The drivers a guest needs; the modules they depend on come with them.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_console",
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
];

/// Busybox's init is the first process: it knows how to power off. It prepares the guest, then serves the shell.
const INITTAB: &str = "::sysinit:/etc/prepare\n::once:/etc/shell\n::restart:/sbin/init\n";

/// Makes the device and kernel file systems and loads the modules. With `resume` on the kernel's command line, an image
/// on the disk's swap takes over.
const PREPARE: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
# What comes from here on is for the log of the test.
exec >/dev/console 2>&1
while read -r module; do insmod "$module" || echo "prepare: $module failed"; done </modules/order
if grep -qw resume /proc/cmdline; then
    until [ -e /sys/class/block/vda/dev ]; do sleep 0.05; done
    cat /sys/class/block/vda/dev >/sys/power/resume
    echo "prepare: nothing to resume"
fi
ip link set lo up
"#;

/// Serves a shell on a virtio-serial device of its own.
/// It finds the name of the agent's port (`vport0p1`, as the drivers happen to number them) in `$port`.
const SHELL: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
named() {
    until name=$(grep -lx "$1" /sys/class/virtio-ports/*/name); do sleep 0.05; done
    name=${name%/name}
    echo "${name##*/}"
}
export port=$(named org.qemu.guest_agent.0)
exec 3<>"/dev/$(named nanoga.shell)"
echo "guest: ready" >&3
# A read says EOF while nobody is connected: around a sleep to disk, for a moment.
while :; do cat <&3; sleep 0.1; done | sh >&3 2>&1
"#;

/// A first process that is no init: it listens to nothing, or becomes the agent.
const SCRIPT: &str = r#"#!/bin/sh
/etc/prepare
/etc/shell &
grep -qw agent /proc/cmdline && exec nanoga -t /tmp >/tmp/nanoga.log 2>&1
while :; do sleep 1000; done
"#;

/// What few guests need.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The kernel with drivers for real machines.
    pub generic_kernel: bool,
    /// More drivers.
    pub modules: Vec<&'static str>,
    /// Drivers that stay compressed, and how: `xz`, `zst` or `gz`. They come before all others.
    pub compressed: Vec<(&'static str, &'static str)>,
    /// Programs of this machine, for `/usr/local/sbin`, with the libraries they are linked to.
    pub programs: Vec<PathBuf>,
    /// The agent as the first process, and its `/etc/nanoga/init.conf`.
    pub first: Option<String>,
    /// A description of the machine (FADT) that stands in for the machine's own.
    pub fadt: Option<Vec<u8>>,
    /// Further files, and their texts. Each can be executed.
    pub files: Vec<(String, String)>,
}

/// An image with nothing but the agent as the first process, its settings and its modules.
pub fn with_only_agent(agent: &Path, kernel: &Kernel, extras: &Extras) -> Result<Vec<u8>> {
    let mut image = Image::default();
    for dir in ["dev", "etc", "etc/nanoga", "modules", "proc", "run", "sys", "tmp"] {
        image.dir(dir);
    }
    image.device("dev/console", 5, 1);
    image.file("init", 0o755, fs::read(agent)?);
    image.file("etc/nanoga/init.conf", 0o644, extras.first.clone().unwrap_or_default().into());
    image.modules(kernel, extras)?;
    image.finish()
}

/// An image with busybox, its init or the agent, and a shell for the test.
pub fn full(kernel: &Kernel, extras: &Extras) -> Result<Vec<u8>> {
    let mut image = Image::default();
    if let Some(fadt) = &extras.fadt {
        // The kernel looks for it in the image itself: the folder need not be (admin-guide/acpi/initrd_table_override).
        image.file("kernel/firmware/acpi/facp.aml", 0o644, fadt.clone());
    }
    for dir in ["bin", "sbin", "etc", "etc/nanoga", "proc", "sys", "dev", "tmp", "run", "modules"] {
        image.dir(dir);
    }
    for dir in ["usr", "usr/bin", "usr/sbin", "usr/local", "usr/local/bin", "usr/local/sbin"] {
        image.dir(dir);
    }
    image.device("dev/console", 5, 1);
    image.device("dev/null", 1, 3);
    match &extras.first {
        None => image.link("init", "/bin/busybox"),
        Some(conf) => {
            image.file("init", 0o755, fs::read(paths::agent_binary()?)?);
            image.file("etc/nanoga/init.conf", 0o644, conf.clone().into());
        }
    }
    for (name, text) in &extras.files {
        image.file(name, 0o755, text.clone().into());
    }
    image.file("etc/inittab", 0o644, INITTAB.into());
    image.file("etc/prepare", 0o755, PREPARE.into());
    image.file("etc/shell", 0o755, SHELL.into());
    image.file("etc/script", 0o755, SCRIPT.into());
    let busybox = paths::busybox()?;
    for applet in applets(&busybox)? {
        image.link(&applet, "/bin/busybox");
    }
    image.file("bin/busybox", 0o755, fs::read(&busybox)?);
    image.file("sbin/nanoga", 0o755, fs::read(paths::agent_binary()?)?);
    for program in &extras.programs {
        let name = program.file_name().and_then(OsStr::to_str).context("an odd program")?;
        image.file(&format!("usr/local/sbin/{name}"), 0o755, fs::read(program)?);
    }
    for library in libraries(&extras.programs)? {
        image.library(&library)?;
    }
    image.modules(kernel, extras)?;
    image.finish()
}

/// The libraries of these programs and their loader, by ldd(1), each where it must lie.
pub fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for program in programs {
        let output = Command::new("ldd").arg(program).output().context("running ldd")?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && !text.contains("not found"), "{}: {text}", program.display());
        files.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    Ok(files)
}

/// The commands busybox offers, with their paths.
fn applets(busybox: &Path) -> Result<Vec<String>> {
    let list = Command::new(busybox).arg("--list-full").output()?;
    ensure!(list.status.success(), "{} --list-full failed", busybox.display());
    let list = String::from_utf8(list.stdout)?;
    Ok(list.lines().filter(|l| *l != "bin/busybox").map(str::to_owned).collect())
}

/// The modules of these names and what they depend on, unpacked, in the order they load. What the kernel has built in
/// is left out. `kernel` is its `lib/modules/VERSION`.
pub fn modules(kernel: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    find_modules(&kernel.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(kernel.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    let mut loaded = Vec::new();
    for name in names {
        load(name, &files, &builtin, &mut loaded)?;
    }
    Ok(loaded)
}

fn load(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    builtin: &[String],
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if loaded.iter().any(|(have, _)| have == name) || builtin.iter().any(|have| have == name) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let module = read_module(path)?;
    for dependency in dependencies(&module) {
        load(&dependency, files, builtin, loaded)?;
    }
    loaded.push((name.to_owned(), module));
    Ok(())
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else {
            found.insert(module_name(&path), path);
        }
    }
    Ok(())
}

/// `…/virtio-rng.ko.xz` is the module `virtio_rng`.
fn module_name(path: &Path) -> String {
    let file = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    file.split('.').next().unwrap_or("").replace('-', "_")
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let Some(tool) = path.extension().and_then(OsStr::to_str).and_then(compressor) else {
        return Ok(fs::read(path)?);
    };
    let output = Command::new(tool).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("running {tool}"))?;
    ensure!(output.status.success(), "{tool} cannot read {}", path.display());
    Ok(output.stdout)
}

/// A module as the kernel can unpack it: it knows neither every check of xz(1), nor more memory than it has.
fn compress(module: &[u8], extension: &str) -> Result<Vec<u8>> {
    let tool = compressor(extension).with_context(|| format!("what makes a .{extension}?"))?;
    let options: &[&str] = if extension == "xz" { &["--check=crc32", "--lzma2=dict=1MiB"] } else { &[] };
    let mut child = Command::new(tool).args(options).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no pipe")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(module));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{tool}: {}", output.status);
    Ok(output.stdout)
}

fn compressor(extension: &str) -> Option<&'static str> {
    [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")].iter().find(|(known, _)| *known == extension).map(|(_, tool)| *tool)
}

/// What `depends=a,b` in a module's `.modinfo` section names.
fn dependencies(module: &[u8]) -> Vec<String> {
    let list = module.split(|b| *b == 0).find_map(|s| s.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// A cpio archive in the making.
#[derive(Clone, Default)]
pub struct Image {
    archive: Vec<u8>,
    entries: u32,
    dirs: BTreeSet<PathBuf>,
}

impl Image {
    /// Adds a folder.
    pub fn dir(&mut self, name: &str) {
        self.dirs.insert(name.into());
        self.add(name, 0o040_755, &[]);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.add(name, 0o120_777, target.as_bytes());
    }

    /// Adds a file. Its folder must be there.
    pub fn file(&mut self, name: &str, mode: u32, bytes: Vec<u8>) {
        self.add(name, 0o100_000 | mode, &bytes);
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entries += 1;
        let entry = newc::Builder::new(name).ino(self.entries).mode(0o020_600).rdev_major(major).rdev_minor(minor);
        self.write(entry, &[]);
    }

    /// A file of this machine at the path it has here.
    pub fn library(&mut self, path: &Path) -> Result<()> {
        self.copy(path, path)
    }

    /// A file of this machine, and the folders it lies in.
    pub fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let name = to.strip_prefix("/").unwrap_or(to);
        let mut dirs: Vec<&Path> = name.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        dirs.reverse();
        for dir in dirs {
            if !self.dirs.contains(dir) {
                self.dir(dir.to_str().context("an odd path")?);
            }
        }
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(from)?.permissions());
        self.file(name.to_str().context("an odd path")?, mode & 0o777, bytes);
        Ok(())
    }

    /// The modules of a guest, and their order.
    fn modules(&mut self, kernel: &Kernel, extras: &Extras) -> Result<()> {
        let mut order = String::new();
        for (name, extension) in &extras.compressed {
            for (name, module) in modules(&kernel.modules, &[name])? {
                order += &format!("/modules/{name}.ko.{extension}\n");
                self.file(&format!("modules/{name}.ko.{extension}"), 0o644, compress(&module, extension)?);
            }
        }
        for (name, module) in modules(&kernel.modules, &[MODULES, &extras.modules].concat())? {
            order += &format!("/modules/{name}.ko\n");
            self.file(&format!("modules/{name}.ko"), 0o644, module);
        }
        self.file("etc/nanoga/modules", 0o644, order.clone().into());
        self.file("modules/order", 0o644, order.into());
        Ok(())
    }

    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let entry = newc::Builder::new(name).ino(self.entries).mode(mode).nlink(1);
        self.write(entry, bytes);
    }

    fn write(&mut self, entry: newc::Builder, bytes: &[u8]) {
        let mut writer = entry.write(&mut self.archive, bytes.len() as u32);
        // Into memory: neither can fail.
        std::io::Write::write_all(&mut writer, bytes).expect("memory takes it");
        writer.finish().expect("the size is right");
    }

    /// The archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        newc::trailer(&mut self.archive)?;
        Ok(self.archive)
    }
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let modinfo = b"license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(dependencies(modinfo), ["virtio", "virtio_ring"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
    }
}
