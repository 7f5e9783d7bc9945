//! Devices: waited for, and brought online, when the kernel announces them (`struct sockaddr_nl` of netlink(7),
//! protocol NETLINK_KOBJECT_UEVENT; kernel documentation, core-api/kobject.rst).

use core::ffi::CStr;

use agent_core::packed;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::calls;
use super::text::write_file;
use crate::guest::reseed::kernel_events;
use crate::log::say_of;
use crate::sys::{self, PATH, join};

/// How long a device is waited for.
const PATIENCE_MS: u64 = 10_000;

/// How long without a word.
const SILENT_MS: u64 = 500;

/// How often it is looked for where the kernel announces nothing.
const BLIND_MS: u64 = 50;

/// Bytes of an announcement (`UEVENT_BUFFER_SIZE`).
const EVENT: usize = 2048;

/// What the kernel says of devices.
pub(super) struct Devices {
    socket: Option<OwnedFd>,
}

impl Devices {
    /// Listens. A kernel without a network says nothing.
    pub(super) fn listen() -> Self {
        Devices { socket: kernel_events().ok() }
    }

    /// What becomes readable when there is news.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Takes the news. What was added and is switched off is switched on.
    #[inline(never)]
    pub(super) fn handle(&self) {
        let Some(socket) = &self.socket else {
            return;
        };
        let mut event = [0; EVENT];
        while sys::read(socket, &mut event) > 0 {
            if let Some(path) = switch(&event, &mut [0; PATH]) {
                write_file(path, b"1");
            }
        }
    }

    /// Waits until it is there, bounded, and says so. Whether it is.
    #[inline(never)]
    pub(super) fn wait_for(&self, what: &[u8], is_there: &mut dyn FnMut() -> bool) -> bool {
        let start_ms = sys::monotonic_ms();
        let mut limit_ms = SILENT_MS;
        loop {
            self.handle();
            if is_there() {
                return true;
            }
            let past_ms = sys::monotonic_ms().wrapping_sub(start_ms);
            if past_ms >= PATIENCE_MS {
                say_of(packed!("% is still missing: going on without it"), what);
                return false;
            }
            if past_ms >= limit_ms {
                limit_ms = PATIENCE_MS;
                say_of(packed!("waiting for %"), what);
            }
            // With nothing to listen to, it only sleeps.
            let wait_ms = if self.socket.is_some() { limit_ms.saturating_sub(past_ms) } else { BLIND_MS };
            calls::wait(self.socket.as_ref(), wait_ms);
        }
    }
}

/// The file that brings online what was added, if that is a processor or memory. An announcement begins with
/// `add@PATH`.
fn switch<'p>(event: &[u8], space: &'p mut [u8]) -> Option<&'p CStr> {
    let added = event.strip_prefix(b"add@")?;
    let system = added.strip_prefix(b"/devices/system/")?;
    if !system.starts_with(b"cpu/cpu") && !system.starts_with(b"memory/memory") {
        return None;
    }
    let path = added.split(|byte| *byte == 0).next()?;
    Some(join(space, &[b"/sys", path, b"/online"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_processors_and_memory_are_switched_on() {
        for (text, want) in [
            (&b"add@/devices/system/cpu/cpu1\0ACTION=add\0"[..], Some(c"/sys/devices/system/cpu/cpu1/online")),
            (b"add@/devices/system/memory/memory33", Some(c"/sys/devices/system/memory/memory33/online")),
            (b"remove@/devices/system/cpu/cpu1\0", None),
            (b"add@/devices/pci0000:00/0000:00:03.0\0", None),
            (b"libudev\0", None),
            (b"", None),
        ] {
            assert_eq!(switch(text, &mut [7; PATH]), want, "{text:?}");
        }
        let long = [b"add@/devices/system/cpu/cpu".as_slice(), &[b'1'; PATH]].concat();
        assert_eq!(switch(&long, &mut [7; PATH]), Some(c""));
    }

    #[test]
    fn what_is_there_is_not_waited_for_and_what_comes_is_found() {
        for devices in [Devices::listen(), Devices { socket: None }] {
            assert!(devices.wait_for(b"nothing", &mut || true));
        }
        let mut looks = 0;
        assert!(Devices { socket: None }.wait_for(b"the third look", &mut || {
            looks += 1;
            looks == 3
        }));
    }
}
