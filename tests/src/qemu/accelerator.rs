//! KVM or emulation, and what a guest has to be told where it is emulated.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Board, Machine, spawn};
use crate::client::Client;
use crate::paths::{self, Kernel};

/// `kvm` where it boots our kernel, otherwise `tcg`. Tried once a boot of this machine; the answer is kept in the
/// guest directory.
pub fn accelerator() -> Result<String> {
    Kernel::find()?;
    let cache = paths::guest_dir().join("accel");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = fs::read_to_string(&cache).unwrap_or_default();
    if let Some(accel) = known.strip_prefix(&boot) {
        return Ok(accel.to_owned());
    }
    let accel = if kvm_works()? { "kvm" } else { "tcg" };
    fs::write(&cache, format!("{boot}{accel}"))?;
    Ok(accel.to_owned())
}

/// KVM may be there and yet run no stock kernel: only a guest that comes up shows it.
fn kvm_works() -> Result<bool> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let (mut child, _, _, dir) = spawn(&Machine::new(Board::Pc), "kvm")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let shell = dir.path().join("shell");
    let works = loop {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            break false;
        }
        if let Ok(stream) = UnixStream::connect(&shell) {
            let mut client = Client::new(stream)?;
            client.patience = deadline.saturating_duration_since(Instant::now());
            break client.line().is_ok_and(|line| line == b"guest: ready");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let _ = child.kill();
    let _ = child.wait();
    Ok(works)
}

/// Tells the kernel the frequency of the emulated time stamp counter, which is this machine's.
///
/// A microvm has nothing but the PIT to measure it by. On a busy machine that fails now and then, and the guest
/// then waits for ever for its first tick.
#[cfg(target_arch = "x86_64")]
pub fn tsc_words() -> String {
    // SAFETY: every x86_64 processor has it.
    let time_stamp = || unsafe { std::arch::x86_64::_rdtsc() };
    let (start, before) = (Instant::now(), time_stamp());
    std::thread::sleep(Duration::from_millis(20));
    let khz = (time_stamp() - before) * 1_000_000 / start.elapsed().as_nanos() as u64;
    format!(" tsc=reliable tsc_early_khz={khz}")
}

/// For no such processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn tsc_words() -> String {
    String::new()
}
