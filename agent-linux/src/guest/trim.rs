//! Telling disks which blocks are free, by FITRIM.
//!
//! That may take minutes, so a worker does it. What became of each file system is more than its report holds: it writes
//! a record for each behind that.

use core::task::Poll;

use agent_core::guest::{Errno, Job, Trim, Trimmed};
use linux_raw_sys::errno;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{pread, pwrite};

use super::LinuxGuest;
use super::job::{DETAILS, KILLED, Report};
use super::mounts::{Mount, Mounts, Order};
use crate::sys::{self, OfFileSystem};

/// The head of a record: what became of a file system, and the length of its mount point, which follows.
type Head = [u64; 5];

/// Bytes of a head.
const HEAD: usize = size_of::<Head>();

// What became of it.
const TRIMMED: u64 = 0;
const FAILED: u64 = 1;
const NOT_OPENED: u64 = 2;

impl Trim for LinuxGuest {
    fn trim(&mut self, minimum: u64) -> Result<Job, Errno> {
        let root = self.root;
        self.jobs.start_telling(&mut |file| {
            let root = sys::open(CWD, root, OFlags::PATH).map_err(sys::errno);
            match root.and_then(|root| Mounts::read(root.as_fd())) {
                Ok(mounts) => {
                    let mut end = DETAILS;
                    mounts.walk(Order::Reverse, &mut |mount| trim(mount, minimum, file, &mut end));
                    0
                }
                Err(Errno(error)) => Report::from(error),
            }
        })
    }

    fn trimmed(&mut self, job: Job, each: &mut dyn FnMut(&[u8], Trimmed)) -> Poll<Result<(), Errno>> {
        self.jobs.take(job).map(|(report, file)| match report {
            0 => {
                let mut at = DETAILS;
                while let Some((point, trimmed)) = record(&file, &mut at, &mut self.buffers.0) {
                    each(point, trimmed);
                }
                Ok(())
            }
            KILLED => Err(sys::errno_of(errno::ECANCELED)),
            error => Err(Errno(u16::try_from(error).unwrap_or(0))),
        })
    }
}

/// Trims a file system and writes a record about it.
fn trim(mount: &Mount<'_>, minimum: u64, file: &OwnedFd, end: &mut u64) {
    let mut range = [0, u64::MAX, minimum];
    let (what, error) = match mount.open() {
        Ok(folder) => match sys::ask_file_system(&folder, OfFileSystem::TRIM, &mut range) {
            Ok(()) => (TRIMMED, 0),
            Err(error) => (FAILED, sys::errno(error).0),
        },
        Err(error) => (NOT_OPENED, sys::errno(error).0),
    };
    let [_, bytes, minimum] = range;
    let point = mount.point.to_bytes();
    let length = u64::try_from(point.len()).unwrap_or(0);
    let mut head = [0; HEAD];
    let words = [what, u64::from(error), bytes, minimum, length];
    for (place, word) in head.as_chunks_mut().0.iter_mut().zip(&words) {
        *place = word.to_ne_bytes();
    }
    for part in [&head, point] {
        // What is not written is read as the end.
        let written = pwrite(file, part, *end).unwrap_or(0);
        *end = end.wrapping_add(u64::try_from(written).unwrap_or(0));
    }
}

/// The record at this place, and where the next one is.
fn record<'b>(file: &OwnedFd, at: &mut u64, buffer: &'b mut [u8]) -> Option<(&'b [u8], Trimmed)> {
    let mut words: Head = [0; 5];
    let mut head = [0; HEAD];
    if pread(file, &mut head, *at) != Ok(HEAD) {
        return None;
    }
    for (word, bytes) in words.iter_mut().zip(head.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    let [what, error, bytes, minimum, length] = words;
    let start = at.wrapping_add(u64::try_from(HEAD).ok()?);
    let point = buffer.get_mut(..usize::try_from(length).ok()?)?;
    pread(file, &mut *point, start).ok()?;
    *at = start.wrapping_add(length);
    let error = Errno(u16::try_from(error).unwrap_or(0));
    let unsupported = [errno::ENOTTY, errno::EOPNOTSUPP].map(sys::errno_of).contains(&error);
    let trimmed = match what {
        TRIMMED => Trimmed::Bytes(bytes, minimum),
        NOT_OPENED => Trimmed::NotOpened(error),
        _ if unsupported => Trimmed::Unsupported,
        _ => Trimmed::Failed(error),
    };
    Some((point, trimmed))
}
