//! `cargo xtask image`: an initramfs that boots with nanoga as its first process: the agent, its settings, the kernel's
//! modules in the order they load, and a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nanoga_tests::initramfs::{self, libraries, modules};
use nanoga_tests::paths::{self, Kernel};
use xshell::{Shell, cmd};

/// What a guest needs for its channels, its network and its disks. What a kernel does not have is left out.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_console", "virtio_net", "virtio_blk", "vmw_vsock_virtio_transport"];

/// What goes into it.
#[derive(Args)]
pub struct Image {
    /// The kernel: a version under /lib/modules, a folder like that, or `none` for one with all drivers built in. Without
    /// it: the kernel of the tests, otherwise the one that runs.
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
    /// Where the image goes.
    #[arg(long, default_value = "nanoga.img.gz")]
    output: PathBuf,
}

/// Builds it, and says how large it is and how it boots.
pub fn build(sh: &Shell, wanted: &Image) -> Result<()> {
    cmd!(sh, "cargo build --quiet --release").run()?;
    let mut conf = String::new();
    let mut image = with_agent()?;
    if let Some(payload) = &wanted.payload {
        let name = payload.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        let bytes = fs::read(payload).with_context(|| format!("reading {}", payload.display()))?;
        image.file(&format!("bin/{name}"), 0o755, bytes);
        // A static program has none, and ldd fails.
        for library in libraries(std::slice::from_ref(payload)).unwrap_or_default() {
            image.library(&library)?;
        }
        conf += &format!("exec={}\n", wanted.exec.as_deref().unwrap_or(&format!("/bin/{name}")));
    } else if let Some(exec) = &wanted.exec {
        conf += &format!("exec={exec}\n");
    }
    for setting in &wanted.settings {
        ensure!(setting.contains('='), "{setting:?} is no KEY=VALUE");
        conf += &format!("{setting}\n");
    }
    for file in &wanted.files {
        let (from, to) = file.split_once(':').unwrap_or((file, file));
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
    println!(
        "try: qemu-system-x86_64 -m 256 -nodefaults -nographic -no-reboot -kernel {} -initrd {} \\\n  \
         -append 'console=ttyS0 quiet panic=-1' -serial mon:stdio \\\n  \
         -chardev socket,path=qga.sock,server=on,wait=off,id=qga0 -device virtio-serial-pci \\\n  \
         -device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0",
        boots.as_deref().unwrap_or(Path::new("vmlinuz")).display(),
        wanted.output.display()
    );
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
    image.file("etc/nanoga/init.conf", 0o644, format!("[general]\n{settings}").into());
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
