//! How the demo looks: what is said, what goes over the wire, and that it ends quietly when nobody reads it any more.

use std::fmt;
use std::io::{self, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;

/// The error of a demo whose output nobody reads any more: `cargo xtask demo | head`.
#[derive(Debug)]
pub struct NobodyReads;

impl fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nobody reads the output")
    }
}

impl std::error::Error for NobodyReads {}

/// What happens next, and why.
pub fn say(text: &str) -> Result<()> {
    show(&format!("\n{}", coloured("1", text)))
}

/// What goes to the agent.
pub fn sent(text: &str) -> Result<()> {
    show(&format!("{} {text}", coloured("36", "→")))
}

/// What comes from the agent.
pub fn received(text: &str, took: Duration) -> Result<()> {
    show(&format!("{} {text}", coloured("32", "←")))?;
    time(took)
}

/// A command that is run, as one would type it.
pub fn typed(command: &str) -> Result<()> {
    show(&format!("{} {command}", coloured("36", "$")))
}

/// What a command wrote: so many lines of it.
pub fn written(output: &str, most: usize, took: Duration) -> Result<()> {
    let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
    if lines.len() > most {
        let rest = lines.split_off(most);
        lines.push(format!("… {} more lines (--verbose shows them)", rest.len()));
    }
    for line in lines {
        show(&format!("    {line}"))?;
    }
    time(took)
}

/// Does something that takes a while and says so before.
pub fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    write(&format!("{what} … "))?;
    let start = Instant::now();
    let result = step();
    let end = if result.is_ok() { "took" } else { "failed after" };
    show(&format!("{end} {:.1} s", start.elapsed().as_secs_f64()))?;
    result
}

/// A line.
pub fn show(text: &str) -> Result<()> {
    write(&format!("{text}\n"))
}

/// What it took, on a line of its own.
fn time(took: Duration) -> Result<()> {
    let seconds = took.as_secs_f64();
    let text = if seconds < 1.0 { format!("({:.2} ms)", seconds * 1000.0) } else { format!("({seconds:.1} s)") };
    show(&format!("  {}", coloured("2", &text)))
}

fn coloured(code: &str, text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Where `println!` would panic, this is [`NobodyReads`].
fn write(text: &str) -> Result<()> {
    let mut stdout = stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        result => Ok(result?),
    }
}
