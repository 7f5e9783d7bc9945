//! The mounted file systems that lie on block devices, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! One walker for all who want to know: usage and disks, trimming, freezing. It does not know what they do there.

#![allow(unsafe_code, reason = "memory as large as the mount table")]

use core::ffi::CStr;
use core::{ptr, slice};

use agent_core::guest::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, major, minor, statat};
use rustix::io::read;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::sys::{self, OfFileSystem};
use crate::text::decimal;

/// Bytes of a mount table, and of a path of it behind that, and as many again for visitors. The kernel allows 100,000 mounts, and memory is taken when
/// it is touched. Beyond: an error.
const SIZE: usize = 32 * 1024 * 1024;
const PATH_SIZE: usize = 8 * 1024;

/// A mount of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'m> {
    /// Where it is mounted.
    pub point: &'m CStr,
    /// The type of its file system.
    pub kind: &'m [u8],
    /// `major:minor` of the device.
    pub device: &'m [u8],
}

/// Why a file system did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its mount point could not be opened.
    NotOpened(Errno),
    /// It failed.
    Failed(Errno),
}

impl Mount<'_> {
    /// Asks its file system for something.
    #[inline(never)]
    pub fn ask(&self, what: OfFileSystem, range: &mut [u64; 3]) -> Result<(), Refusal> {
        let folder = sys::open(CWD, self.point, OFlags::RDONLY | OFlags::NONBLOCK);
        let folder = folder.map_err(|error| Refusal::NotOpened(sys::errno(error)))?;
        sys::ask_file_system(&folder, what, range).map_err(|error| Refusal::Failed(sys::errno(error)))
    }
}

/// Which mount comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that was mounted first.
    Mounted,
    /// The one that was mounted last.
    Reverse,
}

/// The mounts at one time: all of the table, as nothing else gives it in reverse and of one piece.
pub struct Mounts {
    root: OwnedFd,
    file: OwnedFd,
    table: Table,
}

/// Memory of its own. It is not private, so that what is kept of it is the kernel's until it is looked at again.
struct Table {
    memory: *mut u8,
    used: usize,
}

impl Mounts {
    /// Reads the table below this root.
    #[inline(never)]
    pub fn read(root: &CStr) -> Result<Self, Errno> {
        Self::load(root).map_err(sys::errno)
    }

    fn load(root: &CStr) -> rustix::io::Result<Self> {
        let root = sys::open(CWD, root, OFlags::PATH)?;
        let file = sys::open(root.as_fd(), c"proc/self/mountinfo", OFlags::RDONLY)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, which nobody else knows.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), SIZE, access, MapFlags::SHARED | MapFlags::NORESERVE) }?;
        let mut table = Table { memory: memory.cast(), used: 0 };
        loop {
            let (_, space) = table.parts();
            let room = space.len().saturating_sub(2 * PATH_SIZE);
            let count = read(&file, space.get_mut(..room).unwrap_or_default())?;
            table.used = table.used.wrapping_add(count);
            if count == 0 {
                return if room == 0 { Err(rustix::io::Errno::NOMEM) } else { Ok(Mounts { root, file, table }) };
            }
        }
    }

    /// Has something been mounted or unmounted since? (proc_pid_mounts(5))
    pub fn are_stale(&self) -> bool {
        let mut files = [PollFd::new(&self.file, PollFlags::PRI)];
        let _ = poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [file] = files;
        !file.revents().is_empty()
    }

    /// Visits each file system on a block device, where it is mounted first if it is mounted several times. The root goes
    /// with it, and some space.
    #[inline(never)]
    pub fn walk(&mut self, order: Order, visit: &mut dyn FnMut(BorrowedFd<'_>, &Mount<'_>, &mut [u8])) {
        let root = self.root.as_fd();
        let (text, space) = self.table.parts();
        let (path, space) = space.split_at_mut_checked(PATH_SIZE).unwrap_or_default();
        let mut rest = &*text;
        while let Some((before, line)) = take_line(text, &mut rest, order) {
            // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
            let (number, point) = (word(line, 2), word(line, 4));
            let dash = line.windows(3).position(|part| part == b" - ").unwrap_or(line.len());
            let behind = line.get(dash..).unwrap_or_default();
            let (kind, source) = (word(behind, 2), word(behind, 3));
            let mut name = [0; sys::PATH];
            let mut device = number;
            if number.starts_with(b"0:") {
                if kind != b"btrfs" {
                    continue;
                }
                // It has no number of its own there, as it may lie on several.
                device = device_at(root, unescape(source, path), &mut name);
            }
            let mut known = kind.is_empty() || device.is_empty();
            let mut earlier = before;
            while !known && let Some((_, line)) = take_line(before, &mut earlier, Order::Mounted) {
                known = word(line, 2) == number;
            }
            if !known {
                visit(root, &Mount { point: unescape(point, path), kind, device }, space);
            }
        }
    }
}

impl Table {
    /// The text, and the memory behind it.
    #[inline(never)]
    fn parts(&mut self) -> (&mut [u8], &mut [u8]) {
        // SAFETY: it is mapped with this size, and borrowed like the table.
        let all = unsafe { slice::from_raw_parts_mut(self.memory, SIZE) };
        all.split_at_mut_checked(self.used).unwrap_or_default()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the memory is its own, and references to it borrow it.
        let _ = unsafe { munmap(self.memory.cast(), SIZE) };
    }
}

/// A word of a line, counted from 0.
#[inline(never)]
fn word(line: &[u8], number: usize) -> &[u8] {
    line.split(|byte| *byte == b' ').nth(number).unwrap_or_default()
}

/// Takes a line off the front or the back, and gives what the text has before it.
#[inline(never)]
fn take_line<'t>(text: &'t [u8], rest: &mut &'t [u8], order: Order) -> Option<(&'t [u8], &'t [u8])> {
    let inside = rest.get(..rest.len().checked_sub(1)?)?;
    let newline = |byte: &u8| *byte == b'\n';
    if order == Order::Mounted {
        let start = text.len().wrapping_sub(rest.len());
        let line = inside.get(..inside.iter().position(newline).unwrap_or(inside.len()))?;
        *rest = rest.get(line.len().wrapping_add(1)..)?;
        return Some((text.get(..start)?, line));
    }
    let start = inside.iter().rposition(newline).map_or(0, |newline| newline.wrapping_add(1));
    let line = inside.get(start..)?;
    *rest = rest.get(..start)?;
    Some((rest, line))
}

/// A string of the table without its escapes (`\040`), in this space.
#[inline(never)]
fn unescape<'s>(mut from: &[u8], space: &'s mut [u8]) -> &'s CStr {
    let mut places = space.iter_mut();
    while let [first, rest @ ..] = from {
        let mut byte = *first;
        from = rest;
        if byte == b'\\'
            && let [a, b, c, rest @ ..] = from
        {
            byte = a << 6 | (b & 7) << 3 | c & 7;
            from = rest;
        }
        if let Some(place) = places.next() {
            *place = byte;
        }
    }
    if let Some(place) = places.next() {
        *place = 0;
    }
    CStr::from_bytes_until_nul(space).unwrap_or_default()
}

/// The number of the block device at this path; nothing if there is none.
#[inline(never)]
fn device_at<'n>(root: BorrowedFd<'_>, path: &CStr, name: &'n mut [u8; sys::PATH]) -> &'n [u8] {
    match statat(root, sys::tail(path, 1), AtFlags::empty()) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice => {
            let (mut first, mut second) = ([0; 20], [0; 20]);
            let first = decimal(u64::from(major(found.st_rdev)), 1, &mut first);
            let second = decimal(u64::from(minor(found.st_rdev)), 1, &mut second);
            sys::join(name, &[first, b":", second]).to_bytes()
        }
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, fs};

    use super::*;

    /// The mounts in a table with these lines, in both orders.
    fn mounts(name: &str, table: &str) -> Vec<[String; 3]> {
        let root = std::env::temp_dir().join(format!("nanoga-mounts-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/mountinfo"), table).unwrap();
        let path = std::ffi::CString::new(root.to_str().unwrap()).unwrap();
        let mut mounts = Mounts::read(&path).unwrap();
        let [forward, mut backward] = [Order::Mounted, Order::Reverse].map(|order| {
            let mut all = Vec::new();
            mounts.walk(order, &mut |_, mount, _| {
                let texts = [mount.point.to_bytes(), mount.kind, mount.device];
                all.push(texts.map(|text| str::from_utf8(text).unwrap().to_string()));
            });
            all
        });
        fs::remove_dir_all(root).unwrap();
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }

    #[test]
    fn what_lies_on_a_block_device_is_found_once_where_it_was_mounted_first() {
        let table = "\
            22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            27 1 254:1 / / rw,relatime shared:1 master:7 - ext4 /dev/vda1 rw,discard\n\
            28 27 0:25 / /mnt ro - tmpfs none ro,size=4k,mode=755\n\
            30 27 254:17 /sub\\040dir /a\\040b\\134c\\011 rw - xfs /dev/vdb1 rw\n\
            31 27 254:1 /home /home rw - ext4 /dev/vda1 rw,discard\n\
            32 27 7:0 / /l rw - squashfs  rw\n\
            33 27 0:40 / /nfs rw - nfs4 server:/share rw\n\
            34 27 0:41 / /btrfs rw - btrfs /dev/null rw\n\
            35 27 259:1048575 / /last rw - fuseblk /dev/nvme0n1p1 rw\n";
        let want = [
            ["/", "ext4", "254:1"],
            ["/a b\\c\t", "xfs", "254:17"],
            ["/l", "squashfs", "7:0"],
            ["/last", "fuseblk", "259:1048575"],
        ];
        assert_eq!(mounts("found", table), want);
        assert!(mounts("none", "").is_empty());
        assert!(mounts("network", "33 27 0:40 / /nfs rw - nfs4 server:/share rw\n").is_empty());
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        for table in
            ["\n", " \n", "27 1 254:1\n", "27 1 254:1 / / rw -\n", "27 1 254:1 / / rw ext4 /dev/vda1 rw\n", "- - -"]
        {
            assert!(mounts("bad", table).is_empty(), "{table:?}");
        }
    }

    #[test]
    fn a_table_may_be_of_any_length() {
        let mut table = String::new();
        for number in 0..3000 {
            table +=
                &format!("{number} 27 0:{number} / /container/{number} rw - overlay overlay rw,lowerdir=/some/where\n");
            table += &format!("{number} 27 8:{} / /disk/{number} rw - ext4 /dev/sda rw\n", number % 1000);
        }
        let found = mounts("long", &table);
        assert_eq!(found.len(), 1000);
        assert_eq!(found[999], ["/disk/999", "ext4", "8:999"]);
    }

    #[test]
    fn a_btrfs_has_the_number_of_a_device_it_lies_on() {
        let mut name = [0; sys::PATH];
        assert_eq!(device_at(CWD, c"//dev/null", &mut name), b"", "no block device");
        assert_eq!(device_at(CWD, c"//dev/missing", &mut name), b"");
    }

    #[test]
    fn without_a_table_it_is_an_error() {
        assert_eq!(Mounts::read(c"/dev").err(), Some(Errno(2)));
        assert_eq!(Mounts::read(c"/dev/null").err(), Some(Errno(20)));
    }
}
