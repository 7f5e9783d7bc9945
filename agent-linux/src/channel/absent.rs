//! Waits for a device that is not there, or that another process holds, without looking at it again and again.
//!
//! It knows the path, and not what kind of device it is or what comes through it.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;

use super::{Channel, Line, NEVER, RETRY_MS, after_ms, open_line};
use crate::sys::{self, PATH};

/// Milliseconds to the first look after something happened: nodes appear before they can be opened.
const FIRST_MS: u64 = 10;

/// No looks beyond this, as long as something will say that it is worth another.
const LAST_MS: u64 = 3_000;

/// Milliseconds between looks for what nothing will announce, with `--retry-path`: as in the reference.
const BLIND_MS: u64 = 5_000;

/// A watch on the places where the device may appear: `inotify(7)`.
pub(super) struct Absent {
    watch: OwnedFd,
    /// Milliseconds to the next look; each waits twice as long as the one before.
    delay_ms: u64,
    /// The folder of the path is not watched.
    blind: bool,
}

impl Absent {
    /// Watches for this path: in its folder, and where the kernel and udev make devices.
    pub(super) fn new(path: &CStr) -> Result<Self, Errno> {
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let appears = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        add_watch(&watch, c"/dev", appears)?;
        // Either folder may be missing.
        let _ = add_watch(&watch, c"/dev/virtio-ports", appears);
        let path = path.to_bytes();
        let folder_len = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let folder = path.get(..folder_len).unwrap_or_default();
        let folder = add_watch(&watch, sys::join(&mut [0; PATH], &[folder]), appears);
        // Where a folder below /dev may be missing, a node in /dev itself is as good.
        let blind = folder.is_err() && !path.starts_with(b"/dev/");
        Ok(Absent { watch, delay_ms: LAST_MS, blind })
    }

    /// May the device appear without being noticed?
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// The device is there, but held: watches for whoever holds it to close it.
    pub(super) fn watch_closing(&self, path: &CStr) {
        let closes = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        if add_watch(&self.watch, path, closes).is_err() {
            // It was found by its name, so the node may be any.
            let _ = add_watch(&self.watch, c"/dev", closes | WatchFlags::CREATE | WatchFlags::MOVED_TO);
        }
    }

    /// Something happened: looks are worth it for a while. Not inlined, for the same reason as the loop's other
    /// buffers.
    #[inline(never)]
    pub(super) fn woken(&mut self) {
        let mut events = [0; 512];
        while sys::read(&self.watch, &mut events) > 0 {}
        self.delay_ms = FIRST_MS;
    }

    /// Milliseconds until the next look, after one in vain.
    pub(super) fn next_look(&mut self) -> Option<u64> {
        let delay = self.delay_ms;
        self.delay_ms = delay.saturating_mul(2);
        (delay < LAST_MS).then_some(delay)
    }
}

impl AsFd for Absent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Channel {
    /// Sets a watch, then looks whether the device came back before it was set. One that was lost just after it had
    /// been opened has to wait, or it would be opened and lost without end.
    pub fn watch_for_device(&mut self) {
        let soon_ms = self.opened_ms.wrapping_add(RETRY_MS);
        match Absent::new(self.place.path) {
            Ok(absent) => {
                self.change_line(Line::Absent(absent));
                if soon_ms <= sys::monotonic_ms() {
                    self.look_for_device();
                } else {
                    self.deadline_ms = soon_ms;
                }
            }
            // Without a watch, looking again and again is all that is left.
            Err(_) => {
                self.look_for_device();
                if let Line::Listening = self.line {
                    self.deadline_ms = after_ms(RETRY_MS);
                }
            }
        }
    }

    #[inline(never)]
    pub(super) fn look_for_device(&mut self) {
        let opened = open_line(&self.place);
        match (opened, &mut self.line) {
            (Ok(opened), _) => {
                self.take(opened);
                self.opened_ms = sys::monotonic_ms();
                self.report(b"opened again");
            }
            (Err(error), Line::Absent(absent)) => {
                if error == Errno::BUSY {
                    absent.watch_closing(self.place.path);
                }
                // Nothing may ever say that something else is no longer in the way.
                let blind = self.retry && (absent.is_blind() || !matches!(error, Errno::NOENT | Errno::BUSY));
                let next = absent.next_look().or(blind.then_some(BLIND_MS));
                self.deadline_ms = next.map_or(NEVER, after_ms);
            }
            _ => {}
        }
    }
}
