//! A run of named steps: a heading for each, and what they took at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps done so far.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Does the next step; its failure ends the run.
    pub fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("\n=== {name}");
        let start = Instant::now();
        step().with_context(|| format!("FAILED: {name}"))?;
        self.done.push((name, start.elapsed()));
        Ok(())
    }

    /// Prints what was done in how much time.
    pub fn summary(&self) {
        println!("\n=== all passed");
        for (name, took) in &self.done {
            println!("{:8.1} s  {name}", took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, took)| took).sum();
        println!("{:8.1} s  in all", total.as_secs_f64());
    }
}
