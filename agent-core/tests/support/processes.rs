//! Processes that exist in memory only.

use std::collections::BTreeMap;

use agent_core::commands::Elements;
use agent_core::guest::{Capture, Captured, End, Process, Processes, Program, StartError, Stream};
use agent_core::request::c_string;

use super::FakeGuest;

#[derive(Default)]
pub struct FakeProcesses {
    pub started: Vec<FakeProgram>,
    /// Why the next one cannot be started.
    pub error: Option<StartError>,
    /// By their numbers: how they ended, and what they wrote.
    pub known: BTreeMap<i64, FakeProcess>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeProgram {
    pub path: String,
    pub arguments: Vec<String>,
    pub environment: Option<Vec<String>>,
    pub input: Option<Vec<u8>>,
    pub capture: Capture,
}

#[derive(Default)]
pub struct FakeProcess {
    pub end: Option<End>,
    pub output: [Vec<u8>; 2],
    pub truncated: [bool; 2],
}

fn strings(list: Elements<'_>) -> Vec<String> {
    list.map(|value| c_string(value).unwrap().to_string_lossy().into_owned()).collect()
}

impl Processes for FakeGuest {
    fn start(&mut self, program: &Program<'_>) -> Result<u32, StartError> {
        let input = program.input.map(|mut data| {
            let (mut all, mut buffer) = (Vec::new(), [0; 100]);
            loop {
                match data.read(&mut buffer) {
                    0 => return all,
                    bytes => all.extend(&buffer[..bytes]),
                }
            }
        });
        let processes = &mut self.processes;
        processes.started.push(FakeProgram {
            path: program.path.to_string_lossy().into_owned(),
            arguments: strings(program.arguments),
            environment: program.environment.map(strings),
            input,
            capture: program.capture,
        });
        if let Some(error) = processes.error.take() {
            return Err(error);
        }
        let pid = 4000 + u32::try_from(processes.started.len()).unwrap();
        processes.known.insert(i64::from(pid), FakeProcess::default());
        Ok(pid)
    }

    fn process(&mut self, pid: i64) -> Option<Process> {
        let process = self.processes.known.get(&pid)?;
        let captured = [0, 1].map(|stream: usize| Captured {
            bytes: process.output[stream].len(),
            truncated: process.truncated[stream],
        });
        Some(Process { end: process.end, captured })
    }

    fn output(&mut self, pid: i64, stream: Stream, from: usize, buffer: &mut [u8]) -> usize {
        let rest = &self.processes.known[&pid].output[usize::from(stream == Stream::Errors)][from..];
        // Short on purpose.
        let bytes = rest.len().min(buffer.len()).min(1000);
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        bytes
    }

    fn forget(&mut self, pid: i64) {
        self.processes.known.remove(&pid).unwrap();
    }
}
