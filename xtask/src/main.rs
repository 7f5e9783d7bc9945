//! The project's commands: `cargo xtask COMMAND`.

mod aarch64;
mod bench;
mod demo;
mod fuzz;
mod image;
mod install;
mod panics;
mod provision;
mod size;
mod steps;
mod test;

use clap::Parser;
use xshell::Shell;

/// The project's commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Build the agent and talk to it: on this machine, or in a guest.
    Demo {
        /// In a guest under QEMU, over virtio-serial, with a sleep to RAM in between.
        #[arg(long)]
        vm: bool,
        /// Show long replies whole.
        #[arg(long)]
        verbose: bool,
    },
    /// Check and test everything; fetches what is missing.
    Test,
    /// Show what the release binary costs, in the file and running, against its limits.
    Size,
    /// Compare what can panic in the release binary with the list of what never does.
    Panics,
    /// Show times as ratios to what cannot be undercut, and how soon a guest answers. Interfaces need root.
    Bench,
    /// Build the agent and install it with its service, udev rule and configuration.
    Install {
        /// The root of the system it is for: `/` for this one.
        #[arg(long)]
        root: std::path::PathBuf,
        /// Under the names of QEMU's own agent, in its place.
        #[arg(long)]
        as_qemu_ga: bool,
    },
    /// Build an initramfs with the agent as its first process, and show how to boot it.
    Image(image::Image),
    /// Run the fuzz targets on stable Rust: all, or one.
    Fuzz {
        /// A file of `fuzz/fuzz_targets`, without its extension.
        target: Option<String>,
        /// How long each runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    let sh = Shell::new()?;
    sh.change_dir(nanoga_tests::paths::workspace_dir());
    // For every cargo and every test that is started from here.
    sh.set_var("CARGO_TARGET_DIR", nanoga_tests::paths::target_dir());
    match command {
        Command::Demo { vm, verbose } => {
            let shown = if vm { demo::in_guest(&sh, verbose) } else { demo::here(&sh, verbose) };
            // Who has seen enough need not hear of it.
            shown.or_else(|e| if e.is::<demo::NobodyReads>() { Ok(()) } else { Err(e) })
        }
        Command::Test => test::run(&sh),
        Command::Size => size::check(&sh),
        Command::Panics => panics::check(&sh),
        Command::Install { root, as_qemu_ga } => install::run(&sh, &install::Target { root, as_qemu_ga }),
        Command::Bench => bench::run(&sh),
        Command::Image(image) => image::build(&sh, &image),
        Command::Fuzz { target, seconds } => fuzz::run(&sh, target.as_deref(), seconds),
    }
}
