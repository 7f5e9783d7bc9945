//! The mounted file systems that lie on block devices, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! One walker for all who want to know: usage and disks, trimming, freezing. It does not know what they do there.

#![allow(unsafe_code, reason = "memory as large as the mount table")]

use core::ffi::CStr;
use core::{ptr, slice};

use agent_core::guest::Errno;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, major, minor, statat};
use rustix::io::read;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::sys::{self, OfFileSystem};
use crate::text::{cut, cut_last, decimal};

/// Bytes of a mount table. The kernel allows 100,000 mounts, and memory is taken when it is touched. Beyond: an error.
const SIZE: usize = 32 * 1024 * 1024;

/// Bytes between what has been found and the table that it is found in: more than a mount takes.
const GAP: usize = 8 * 1024;

/// A mount of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'m> {
    /// `major:minor` of the device.
    pub device: &'m [u8],
    /// Where it is mounted.
    pub point: &'m CStr,
    /// The type of its file system.
    pub kind: &'m [u8],
}

/// Why a file system did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its mount point could not be opened.
    NotOpened(Errno),
    /// It failed.
    Failed(Errno),
}

impl<'m> Mount<'m> {
    /// Asks its file system for something.
    #[inline(never)]
    pub fn ask(&self, what: OfFileSystem, range: &mut [u64; 3]) -> Result<(), Refusal> {
        let folder = sys::open(CWD, self.point, OFlags::RDONLY | OFlags::NONBLOCK);
        let folder = folder.map_err(|error| Refusal::NotOpened(sys::errno(error)))?;
        sys::ask_file_system(&folder, what, range).map_err(|error| Refusal::Failed(sys::errno(error)))
    }

    /// Does it lie in a file of another file system? The number is that of loop devices.
    fn is_image(&self) -> bool {
        self.device.starts_with(b"7:")
    }

    /// Takes one of these records from their front or from their end: three strings, each with a NUL behind it.
    #[inline(never)]
    fn take(records: &mut &'m [u8], first: bool) -> Self {
        let from = if first { cut } else { cut_last };
        let (one, point, other) = (from(records, 0), from(records, 0), from(records, 0));
        let (device, kind) = if first { (one, other) } else { (other, one) };
        // SAFETY: there is a NUL, which is as readable as what stands before it.
        Mount { device, point: unsafe { CStr::from_ptr(point.as_ptr().cast()) }, kind }
    }
}

/// Visits each of those that there are now.
#[inline(never)]
pub fn each(order: Order, visit: &mut dyn FnMut(&Mount<'_>)) -> Result<(), Errno> {
    Mounts::read()?.walk(order, visit);
    Ok(())
}

/// Which mount comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that was mounted last.
    Reverse,
    /// The same, but what lies in an image before all else: it is written to the file system with the image.
    Freeze,
    /// The reverse of that.
    Thaw,
}

/// The mounts at one time, each device once: where it was mounted first.
pub struct Mounts {
    file: OwnedFd,
    /// It is not private, so that what is kept of it is the kernel's until it is looked at again.
    memory: *mut u8,
    /// Bytes of their records, which stand at the front.
    used: usize,
}

impl Mounts {
    /// Reads the table.
    #[inline(never)]
    pub fn read() -> Result<Self, Errno> {
        Self::load().map_err(sys::errno)
    }

    fn load() -> rustix::io::Result<Self> {
        let file = sys::open(CWD, c"/proc/self/mountinfo", OFlags::RDONLY)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, which nobody else knows.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), SIZE, access, MapFlags::SHARED | MapFlags::NORESERVE) }?;
        let mut mounts = Mounts { file, memory: memory.cast(), used: 0 };
        let mut end = GAP;
        loop {
            let room = memory_of(&mut mounts.memory).get_mut(end..).unwrap_or_default();
            if room.is_empty() {
                return Err(rustix::io::Errno::NOMEM);
            }
            match read(&mounts.file, room)? {
                0 => break,
                count => end = end.wrapping_add(count),
            }
        }
        mounts.find(end);
        Ok(mounts)
    }

    /// Has something been mounted or unmounted since? (proc_pid_mounts(5))
    pub fn are_stale(&self) -> bool {
        !sys::events(self.file.as_fd(), PollFlags::PRI).is_empty()
    }

    /// Makes records of the lines up to this end.
    fn find(&mut self, end: usize) {
        let (mut used, mut at) = (0, GAP);
        while let Some((records, text)) =
            memory_of(&mut self.memory).get_mut(..end).and_then(|all| all.split_at_mut_checked(at))
            && !text.is_empty()
        {
            // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
            let mut rest = &*text;
            let mut line = cut(&mut rest, b'\n');
            at = end.wrapping_sub(rest.len());
            let mut fields = [&b""[..]; 5];
            for field in &mut fields {
                *field = cut(&mut line, b' ');
            }
            let [_, _, mut device, _, point] = fields;
            while !matches!(cut(&mut line, b' '), b"-" | b"") {}
            let kind = cut(&mut line, b' ');
            let name = &mut [0; 64];
            if device.starts_with(b"0:") {
                if kind != b"btrfs" {
                    continue;
                }
                // It has no number of its own there, as it may lie on several.
                device = device_at(cut(&mut line, b' '), name);
            }
            let mut known = kind.is_empty() || device.is_empty();
            let mut others = records.get(..used).unwrap_or_default();
            while !known && !others.is_empty() {
                known = Mount::take(&mut others, true).device == device;
            }
            if !known {
                for text in [device, point, kind] {
                    used = unescape(text, records, used);
                }
            }
        }
        self.used = used;
    }

    /// Visits each of them.
    #[inline(never)]
    pub fn walk(&mut self, order: Order, visit: &mut dyn FnMut(&Mount<'_>)) {
        // What stands before the last NUL: between those of the others there is a string, and nothing before the first.
        let all = memory_of(&mut self.memory).get(..self.used.wrapping_sub(1)).unwrap_or_default();
        // Twice, because of the images: one time those, the other time the others.
        for is_second in [false, true] {
            let mut rest = all;
            while !rest.is_empty() {
                let mount = Mount::take(&mut rest, order == Order::Thaw);
                if is_second == (order != Order::Reverse && mount.is_image() == (order == Order::Thaw)) {
                    visit(&mount);
                }
            }
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // SAFETY: the memory is its own, and references to it borrow it.
        let _ = unsafe { munmap(self.memory.cast(), SIZE) };
    }
}

/// The memory at this address. Nobody but [`Mounts`] has one.
fn memory_of(address: &mut *mut u8) -> &mut [u8] {
    // SAFETY: it is mapped with this size as long as the mounts are there, and borrowed like their address.
    unsafe { slice::from_raw_parts_mut(*address, SIZE) }
}

/// Writes a string of the table without its escapes (`\040`), and a NUL, at this place: the place behind it.
#[inline(never)]
fn unescape(mut from: &[u8], space: &mut [u8], mut at: usize) -> usize {
    loop {
        let byte = match from {
            [] => 0,
            [b'\\', a, b, c, ..] => a << 6 | (b & 7) << 3 | c & 7,
            [byte, ..] => *byte,
        };
        if let Some(place) = space.get_mut(at) {
            *place = byte;
        }
        at = at.wrapping_add(1);
        match from {
            [] => return at,
            [b'\\', _, _, _, rest @ ..] | [_, rest @ ..] => from = rest,
        }
    }
}

/// The number of the block device at this path; nothing if there is none.
#[inline(never)]
fn device_at<'n>(path: &[u8], name: &'n mut [u8; 64]) -> &'n [u8] {
    let mut space = [0; sys::PATH];
    unescape(path, &mut space, 0);
    let path = CStr::from_bytes_until_nul(&space).unwrap_or_default();
    match statat(CWD, path, AtFlags::empty()) {
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
    use crate::testing::set_root;

    /// The mounts in a table with these lines, in both orders.
    fn mounts(name: &str, table: &str) -> Vec<[String; 3]> {
        let root = std::env::temp_dir().join(format!("nanoga-mounts-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/mountinfo"), table).unwrap();
        let mut mounts = {
            set_root(root.to_str().unwrap());
            Mounts::read().unwrap()
        };
        let [thawed, mut frozen, mut all] = [Order::Thaw, Order::Freeze, Order::Reverse].map(|order| {
            let mut all = Vec::new();
            mounts.walk(order, &mut |mount| {
                let texts = [mount.point.to_bytes(), mount.kind, mount.device];
                all.push(texts.map(|text| str::from_utf8(text).unwrap().to_string()));
            });
            all
        });
        fs::remove_dir_all(root).unwrap();
        frozen.reverse();
        assert_eq!(thawed, frozen);
        all.reverse();
        // Sorting keeps what is alike in its order.
        let mut want = all.clone();
        want.sort_by_key(|[.., device]| device.starts_with("7:"));
        assert_eq!(thawed, want);
        all
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
        for number in 0..2000 {
            table +=
                &format!("{number} 27 0:{number} / /container/{number} rw - overlay overlay rw,lowerdir=/some/where\n");
            table += &format!("{number} 27 8:{} / /disk/{number} rw - ext4 /dev/sda rw\n", number % 200);
        }
        let found = mounts("long", &table);
        assert_eq!(found.len(), 200);
        assert_eq!(found[199], ["/disk/199", "ext4", "8:199"]);
    }

    #[test]
    fn only_a_block_device_gives_a_btrfs_its_number() {
        let mut name = [0; 64];
        assert_eq!(device_at(b"/dev/null", &mut name), b"", "no block device");
        assert_eq!(device_at(b"/dev/missing", &mut name), b"");
    }

    #[test]
    fn without_a_table_it_is_an_error() {
        set_root("/dev");
        assert_eq!(Mounts::read().err(), Some(Errno(2)));
        set_root("/dev/null");
        assert_eq!(Mounts::read().err(), Some(Errno(20)));
    }
}
