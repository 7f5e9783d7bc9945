//! Telling disks which blocks are free, by FITRIM.
//!
//! That may take minutes, so a worker does it. What became of each file system is more than its report holds: it writes
//! a record for each behind that.

use core::task::Poll;

use agent_core::guest::{Errno, Job, Trim, Trimmed};
use linux_raw_sys::errno;
use rustix::fd::OwnedFd;
use rustix::io::write;

use super::LinuxGuest;
use super::job::{KILLED, Report};
use super::mounts::{self, Mount, Order, Refusal};
use crate::sys::{self, OfFileSystem};

/// The head of a record: what became of a file system, the smallest extent, and the length of its mount point, which
/// follows.
type Head = [u64; 4];

// What became of it: the number of an error, and of which kind.
const FAILED: u64 = 1 << 32;
const NOT_OPENED: u64 = 2 << 32;

impl Trim for LinuxGuest {
    fn trim(&mut self, minimum: u64) -> Result<Job, Errno> {
        self.tables.jobs.start_telling(&mut |file| match mounts::each(Order::Reverse, &mut |mount| {
            trim(mount, minimum, file)
        }) {
            Ok(()) => 0,
            Err(Errno(error)) => Report::from(error),
        })
    }

    fn trimmed(&mut self, job: Job, each: &mut dyn FnMut(&[u8], Trimmed)) -> Poll<Result<(), Errno>> {
        self.tables.jobs.take(job).map(|(report, file)| match report {
            0 => {
                records(&file, &mut self.buffers.0, each);
                Ok(())
            }
            KILLED => Err(sys::errno_of(errno::ECANCELED)),
            error => Err(Errno(u16::try_from(error).unwrap_or(0))),
        })
    }
}

/// Trims a file system and writes a record about it.
#[inline(never)]
fn trim(mount: &Mount<'_>, minimum: u64, file: &OwnedFd) {
    let mut range = [0, u64::MAX, minimum];
    let what = match mount.ask(OfFileSystem::TRIM, &mut range) {
        Ok(()) => 0,
        Err(Refusal::Failed(Errno(error))) => FAILED | u64::from(error),
        Err(Refusal::NotOpened(Errno(error))) => NOT_OPENED | u64::from(error),
    };
    let [_, bytes, minimum] = range;
    let point = mount.point.to_bytes();
    let head = [what, bytes, minimum, u64::try_from(point.len()).unwrap_or(0)];
    // What is not written is read as the end.
    let _ = write(file, sys::bytes_of(&mut { head }));
    let _ = write(file, point);
}

/// Tells the records.
fn records(file: &OwnedFd, buffer: &mut [u8], each: &mut dyn FnMut(&[u8], Trimmed)) {
    let mut head: Head = [0; 4];
    while sys::read(file, sys::bytes_of(&mut head)) == size_of::<Head>() {
        let [what, bytes, minimum, length] = head;
        let room = usize::try_from(length).ok().and_then(|length| buffer.get_mut(..length)).unwrap_or_default();
        // What does not fit, or was not written, is the end.
        if sys::read(file, room) != room.len() || room.is_empty() {
            return;
        }
        let error = Errno(u16::try_from(what & 0xFFFF).unwrap_or(0));
        each(
            room,
            match what & !0xFFFF {
                0 => Trimmed::Bytes(bytes, minimum),
                NOT_OPENED => Trimmed::NotOpened(error),
                _ if matches!(error, ENOTTY | EOPNOTSUPP) => Trimmed::Unsupported,
                _ => Trimmed::Failed(error),
            },
        );
    }
}

/// What those say who cannot do it.
const ENOTTY: Errno = sys::errno_of(errno::ENOTTY);
const EOPNOTSUPP: Errno = sys::errno_of(errno::EOPNOTSUPP);
