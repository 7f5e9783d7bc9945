//! `cargo xtask size`: what the release binary costs, in the file and running, against the limits of the design.
//!
//! QEMU's own agent, where it is there, is measured the same way beside it, for comparison only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nanoga_tests::agent::{Agent, Status};
use nanoga_tests::client::Client;
use nanoga_tests::paths;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use object::elf::{PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_STACK, PT_INTERP, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{Object, ObjectSection};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::image;
use crate::provision::find_program;

/// Bytes of the file with every command: what is reached, in whole KiB. The goal is 48 KiB.
const FILE_LIMIT: u64 = 87 * 1024;
/// Bytes of the file with the fewest commands, `minimal`: what is reached, in whole KiB. The goal is 20 KiB.
const MINIMAL_LIMIT: u64 = 34 * 1024;
/// Bytes of an initramfs with the agent alone, compressed, without the kernel's modules.
const INITRAMFS_LIMIT: u64 = 64 * 1024;
/// What stands in the file if a command of these features does, as its name does.
const MARKS: [(&str, &[&str]); 4] = [
    ("exec", &["guest-exec"]),
    ("init", &["init.conf", "devtmpfs"]),
    ("files", &["guest-file-", "fd_counter"]),
    ("storage", &["guest-get-fsinfo", "guest-fs"]),
];
/// The same of what is in every build but `minimal`.
const FULL_MARKS: &[&str] = &["guest-shutdown", "guest-get-", "qemu-ga.conf", "qemu-ga.pid", "os-release"];
/// KiB of private memory.
const RSS_ANON_LIMIT: u64 = 32;
/// KiB of all memory, beyond the file.
const RSS_EXTRA_LIMIT: u64 = 32;
/// System calls of a request.
const CALLS_LIMIT: f64 = 3.0;

/// How long nothing may happen in an idle agent.
const IDLE: Duration = Duration::from_secs(5);

/// Measures, prints, and fails if a limit is broken.
pub fn check(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo build --quiet --release").run()?;
    let program = Program { path: paths::agent_binary()? };
    let file = fs::read(&program.path)?;

    let mut table = Table::default();
    layout(&file, &mut table)?;
    initramfs(sh, &mut table)?;
    features(sh, &file, &mut table)?;
    running(&program, file.len() as u64, &mut table)?;
    if let Ok(path) = paths::reference_agent() {
        // It is nothing that could be wrong with this agent.
        if let Err(error) = beside(&Program { path }) {
            println!("it could not be measured: {error:#}");
        }
    } else {
        println!("\nno qemu-ga to compare with: `cargo xtask test` fetches it");
    }
    ensure!(table.broken.is_empty(), "beyond the limit: {}", table.broken.join(", "));
    Ok(())
}

/// Figures with their limits, printed as they come.
#[derive(Default)]
struct Table {
    broken: Vec<String>,
}

impl Table {
    fn heading(&self, text: &str) {
        println!("\n{text:<44} {:>12}  {:>12}", "", "at most");
    }

    fn row(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        let ok = value <= limit;
        let number = |n: f64| if n.fract() == 0.0 { format!("{n}") } else { format!("{n:.2}") };
        let verdict = if ok { "" } else { "  BROKEN" };
        println!("{what:<44} {:>12}  {:>12} {unit}{verdict}", number(value), number(limit));
        if !ok {
            self.broken.push(what.to_owned());
        }
    }

    /// Something that may not be there.
    fn without(&mut self, what: &str, there: bool) {
        println!(
            "{:<44} {:>12}{}",
            format!("no {what}"),
            if there { "there" } else { "ok" },
            ["", "  BROKEN"][usize::from(there)]
        );
        if there {
            self.broken.push(format!("no {what}"));
        }
    }
}

/// What the file holds, and how the kernel maps it.
fn layout(file: &[u8], table: &mut Table) -> Result<()> {
    let elf: ElfFile64<'_> = ElfFile64::parse(file)?;
    let endian = elf.endian();
    println!("{:<18} {:>10} {:>10}  {:>10}", "section", "in file", "in memory", "address");
    for section in elf.sections() {
        let in_file = section.file_range().map_or(0, |(_, size)| size);
        let in_memory = if section.address() == 0 { 0 } else { section.size() };
        println!("{:<18} {in_file:>10} {in_memory:>10}  {:>#10x}", section.name()?, section.address());
    }
    let headers = size_of_val(elf.elf_header().section_headers(endian, file)?);
    println!("{:<18} {headers:>10}", "section headers");

    println!("\n{:<18} {:>10} {:>10}  {:>10}", "segment", "in file", "in memory", "address");
    let segments = elf.elf_program_headers();
    for segment in segments {
        let name = match segment.p_type(endian) {
            PT_LOAD => "load".to_owned(),
            PT_GNU_STACK => "stack".to_owned(),
            other => format!("{other:#x}"),
        };
        let flags = segment.p_flags(endian);
        let rights = [(PF_R, 'r'), (PF_W, 'w'), (PF_X, 'x')].map(|(bit, c)| if flags & bit == bit { c } else { '-' });
        let name = format!("{name} {}", rights.iter().collect::<String>());
        let sizes = (segment.p_filesz(endian), segment.p_memsz(endian));
        println!("{name:<18} {:>10} {:>10}  {:>#10x}", sizes.0, sizes.1, segment.p_vaddr(endian));
    }

    table.heading("the file");
    table.row("bytes", file.len() as f64, FILE_LIMIT as f64, "bytes");
    let any = |kind| segments.iter().any(|segment| segment.p_type(endian) == kind);
    table.without("interpreter", any(PT_INTERP));
    table.without("dynamic section", any(PT_DYNAMIC) || has_dynamic(&elf, file)?);
    let both = PF_W | PF_X;
    table.without("memory both writable and executable", segments.iter().any(|s| s.p_flags(endian) & both == both));
    // Without the header the kernel makes the stack executable.
    table.without("executable stack", !any(PT_GNU_STACK));
    Ok(())
}

fn has_dynamic(elf: &ElfFile64<'_>, file: &[u8]) -> Result<bool> {
    let sections = elf.elf_header().section_headers(elf.endian(), file)?;
    Ok(sections.iter().any(|section| section.sh_type(elf.endian()) == object::elf::SHT_DYNAMIC))
}

/// What a guest costs that has nothing else.
fn initramfs(sh: &Shell, table: &mut Table) -> Result<()> {
    let mut image = image::with_agent()?;
    image::set(&mut image, "");
    table.heading("as the first process of a guest");
    let bytes = image::pack(sh, image)?.len();
    table.row("initramfs without modules, compressed", bytes as f64, INITRAMFS_LIMIT as f64, "bytes");
    Ok(())
}

/// What is switched off leaves nothing in the file.
fn features(sh: &Shell, full: &[u8], table: &mut Table) -> Result<()> {
    let minimal = build_with(sh, "minimal")?;
    table.heading("with the fewest commands");
    table.row("bytes", minimal.len() as f64, MINIMAL_LIMIT as f64, "bytes");
    let holds = |file: &[u8], mark: &str| file.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
    for mark in FULL_MARKS {
        ensure!(holds(full, mark), "the file has no {mark:?}, so it proves nothing that another has none");
        table.without(&format!("{mark:?}"), holds(&minimal, mark));
    }

    let others = MARKS.map(|(feature, _)| feature);
    for (feature, marks) in MARKS {
        let rest: Vec<_> = others.into_iter().filter(|other| *other != feature).collect();
        let without = build_with(sh, &rest.join(","))?;
        table.heading(&format!("without {feature}"));
        table.row("bytes", without.len() as f64, full.len() as f64, "bytes");
        for mark in marks {
            ensure!(holds(full, mark), "the file has no {mark:?}, so it proves nothing that another has none");
            table.without(&format!("{mark:?}"), holds(&without, mark));
            table.without(&format!("{mark:?} in minimal"), holds(&minimal, mark));
        }
    }
    Ok(())
}

/// The file of a build with these features only. It stands beside the usual one, which other commands use.
fn build_with(sh: &Shell, features: &str) -> Result<Vec<u8>> {
    let dir = paths::target_dir().join("minimal");
    cmd!(sh, "cargo build --quiet --release --no-default-features --features {features} --target-dir {dir}").run()?;
    Ok(fs::read(dir.join("release/nanoga"))?)
}

/// What it costs while it runs.
fn running(program: &Program, file: u64, table: &mut Table) -> Result<()> {
    // The kernel maps whole pages of the file.
    let rss_limit = file.div_ceil(4096) * 4 + RSS_EXTRA_LIMIT;
    let (before, after) = program.memory()?;
    table.heading("memory");
    for (when, status) in [("idle", &before), ("after 10,000 requests", &after)] {
        table.row(&format!("RssAnon, {when}"), status.rss_anon_kib as f64, RSS_ANON_LIMIT as f64, "KiB");
        table.row(&format!("VmRSS, {when}"), status.rss_kib as f64, rss_limit as f64, "KiB (pages of the file + 32)");
    }
    let grown = after.rss_anon_kib.saturating_sub(before.rss_anon_kib);
    table.row("RssAnon, grown meanwhile", grown as f64, 0.0, "KiB");

    table.heading("work");
    if find_program("strace").is_some() {
        table.row("system calls of a request", program.calls_per_request()?, CALLS_LIMIT, "");
    } else {
        println!("{:<44} strace is not installed", "system calls of a request");
    }
    let (connected, alone) = program.wakeups()?;
    let seconds = IDLE.as_secs();
    table.row(&format!("wake-ups in {seconds} idle seconds, host there"), connected as f64, 0.0, "");
    table.row(&format!("wake-ups in {seconds} idle seconds, host gone"), alone as f64, 0.0, "");
    Ok(())
}

/// The same figures of Debian's agent.
fn beside(other: &Program) -> Result<()> {
    let libraries = other.libraries()?;
    println!("\nfor comparison: {}", other.path.display());
    println!("{:<44} {:>12} bytes", "file", fs::metadata(&other.path)?.len());
    let bytes: u64 = libraries.iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum();
    println!("{:<44} {bytes:>12} bytes", format!("{} libraries and the loader", libraries.len().saturating_sub(1)));
    let (before, after) = other.memory()?;
    for (when, status) in [("idle", before), ("after 10,000 requests", after)] {
        println!("{:<44} {:>12} KiB", format!("RssAnon, {when}"), status.rss_anon_kib);
        println!("{:<44} {:>12} KiB", format!("VmRSS, {when}"), status.rss_kib);
    }
    if find_program("strace").is_some() {
        println!("{:<44} {:>12.2}", "system calls of a request", other.calls_per_request()?);
    }
    let (connected, alone) = other.wakeups()?;
    println!("{:<44} {connected:>12}", format!("wake-ups in {} idle seconds, host there", IDLE.as_secs()));
    println!("{:<44} {alone:>12}", format!("wake-ups in {} idle seconds, host gone", IDLE.as_secs()));
    Ok(())
}

/// An agent's program, ours or another.
struct Program {
    path: PathBuf,
}

impl Program {
    /// Starts it on a unix socket, through another program or not.
    fn start(&self, through: &[&str]) -> Result<Agent> {
        let dir = TempDir::new()?;
        let mut command = match through {
            [] => Command::new(&self.path),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(&self.path);
                command
            }
        };
        command.current_dir(dir.path());
        command.args(["-m", "unix-listen", "-p"]).arg(dir.path().join("qga.sock")).arg("-t").arg(dir.path());
        let agent = Agent::spawn(dir, command)?;
        agent.wait_for_socket(&agent.socket())?;
        Ok(agent)
    }

    /// Its memory when every command was used once, and 10,000 requests later.
    fn memory(&self) -> Result<(Status, Status)> {
        let agent = self.start(&[])?;
        let mut host = agent.connect()?;
        host.sync_delimited()?;
        host.ask("guest-info")?;
        host.ask("guest-network-get-interfaces")?;
        let before = agent.settle()?;
        for _ in 0..100 {
            pings(&mut host, 100)?;
        }
        Ok((before, agent.settle()?))
    }

    /// System calls that a request costs: those of many requests less those of few.
    fn calls_per_request(&self) -> Result<f64> {
        let (few, many) = (100, 1100);
        let calls = self.calls(many)?.checked_sub(self.calls(few)?).context("fewer system calls for more requests")?;
        Ok(calls as f64 / (many - few) as f64)
    }

    /// System calls from start to end, with so many requests one after the other.
    fn calls(&self, requests: usize) -> Result<u64> {
        let mut agent = self.start(&["strace", "-f", "-c", "-o", "strace"])?;
        let mut host = agent.connect()?;
        for _ in 0..requests {
            pings(&mut host, 1)?;
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid()))?;
        // Not SIGTERM: qemu-ga sometimes hangs at it.
        kill(Pid::from_raw(children.trim().parse().context("strace has no child")?), Signal::SIGKILL)?;
        agent.exited()?;
        let table = fs::read_to_string(agent.file("strace"))?;
        // "100.00    0.000000           0       330         2 total"
        let total = table.lines().find(|line| line.ends_with("total"));
        let calls = total.and_then(|line| line.split_whitespace().nth(3)).and_then(|calls| calls.parse().ok());
        calls.with_context(|| format!("what strace wrote has no total: {table}"))
    }

    /// Context switches of an idle agent whose host is connected, and of one whose host has gone.
    fn wakeups(&self) -> Result<(u64, u64)> {
        let agents = [self.start(&[])?, self.start(&[])?];
        let mut hosts = [agents[0].connect()?, agents[1].connect()?];
        for host in &mut hosts {
            host.ask("guest-ping")?;
        }
        let [_kept, gone] = hosts;
        drop(gone);
        // Not until it comes to rest: qemu-ga never does.
        thread::sleep(Duration::from_millis(500));
        let before = [agents[0].status()?, agents[1].status()?];
        thread::sleep(IDLE);
        let woken = |at: usize| anyhow::Ok(agents[at].status()?.switches - before[at].switches);
        Ok((woken(0)?, woken(1)?))
    }

    /// The files that are mapped with it, by ldd(1).
    fn libraries(&self) -> Result<Vec<PathBuf>> {
        let output = Command::new("ldd").arg(&self.path).output().context("ldd")?;
        let text = String::from_utf8(output.stdout)?;
        let files = text.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
        Ok(files.filter_map(|path| path.canonicalize().ok()).collect())
    }
}

/// Sends so many pings at once, and reads their replies.
fn pings(host: &mut Client, count: usize) -> Result<()> {
    host.send("{\"execute\":\"guest-ping\"}\n".repeat(count))?;
    for _ in 0..count {
        let reply = host.reply()?;
        ensure!(reply["return"].is_object(), "guest-ping answered {reply}");
    }
    Ok(())
}
