//! The mounted file systems that lie on block devices, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! One walker for all who want to know: usage and disks, trimming, freezing. It does not know what they do there.

#![allow(unsafe_code, reason = "memory as large as the mount table")]

use core::ffi::CStr;
use core::ops::Range;
use core::{ptr, slice};

use agent_core::guest::Errno;
use heapless::Vec;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, major, minor, statat};
use rustix::io::read;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

use crate::sys;

/// Bytes for the mount table at first; twice as much while it does not fit. A page costs memory when it is touched.
const START: usize = 64 * 1024;

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// A device as the kernel writes it: `major:minor`.
pub type Device = Vec<u8, 24>;

/// A mount of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'m> {
    /// Where it is mounted.
    pub point: &'m CStr,
    /// The type of its file system.
    pub kind: &'m CStr,
    /// `major:minor` of the device.
    pub device: &'m CStr,
}

impl Mount<'_> {
    /// Opens what is mounted there, to ask its file system for something.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        sys::open(CWD, self.point, OFlags::RDONLY | OFlags::NONBLOCK)
    }
}

/// The mounts at one time, in memory of their own.
///
/// However long the table is: it is read as a whole, as nothing else gives it in reverse and of one piece, and what is
/// left of it is three strings for each file system.
pub struct Mounts {
    memory: *mut u8,
    size: usize,
    used: usize,
}

impl Mounts {
    /// Reads the table below this root.
    pub fn read(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::load(root).map_err(sys::errno)
    }

    #[inline(never)]
    fn load(root: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let file = sys::open(root, c"proc/self/mountinfo", OFlags::RDONLY)?;
        // SAFETY: new memory, which nobody else knows.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), START, READ_WRITE, MapFlags::PRIVATE) }?;
        let mut mounts = Mounts { memory: memory.cast(), size: START, used: 0 };
        loop {
            if mounts.used == mounts.size {
                let size = mounts.size.wrapping_mul(2);
                // SAFETY: this memory is ours, and nobody has a reference to it.
                let memory = unsafe { mremap(mounts.memory.cast(), mounts.size, size, MremapFlags::MAYMOVE) }?;
                mounts.memory = memory.cast();
                mounts.size = size;
            }
            let used = mounts.used;
            let count = read(&file, mounts.bytes().get_mut(used..).unwrap_or_default())?;
            if count == 0 {
                break;
            }
            mounts.used = used.wrapping_add(count);
        }
        let used = mounts.used;
        mounts.used = extract(mounts.bytes().get_mut(..used).unwrap_or_default(), root);
        Ok(mounts)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: it is mapped with this size, and borrowed like the mounts.
        unsafe { slice::from_raw_parts_mut(self.memory, self.size) }
    }

    /// Visits all of them.
    #[inline(never)]
    pub fn walk(&self, order: Order, visit: &mut dyn FnMut(&Mount<'_>)) {
        // SAFETY: so much of it is mapped, and borrowed like the mounts.
        let records = unsafe { slice::from_raw_parts(self.memory, self.used) };
        let mut rest = records;
        while let [first, kind, last] = [(); 3].map(|()| next(&mut rest, order))
            && !first.is_empty()
        {
            let (point, device) = if order == Order::Mounted { (first, last) } else { (last, first) };
            visit(&Mount { point, kind, device });
        }
    }
}

/// Takes a string off the front, or off the back.
#[inline(never)]
fn next<'m>(rest: &mut &'m [u8], order: Order) -> &'m CStr {
    let (front, back);
    let string;
    if order == Order::Mounted {
        let end = rest.iter().position(|byte| *byte == 0).map_or(0, |end| end.wrapping_add(1));
        (front, back) = rest.split_at_checked(end).unwrap_or_default();
        (string, *rest) = (front, back);
    } else {
        let inside = rest.get(..rest.len().wrapping_sub(1)).unwrap_or_default();
        let start = inside.iter().rposition(|byte| *byte == 0).map_or(0, |nul| nul.wrapping_add(1));
        (front, back) = rest.split_at_checked(start).unwrap_or_default();
        (*rest, string) = (front, back);
    }
    c_string(string)
}

/// Which mount comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that was mounted first.
    Mounted,
    /// The one that was mounted last.
    Reverse,
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and references to it borrow the mounts.
        let _ = unsafe { munmap(self.memory.cast(), self.size) };
    }
}

// The fields of a line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
const DEVICE: u8 = 2;
const POINT: u8 = 4;
/// Any number of them, up to the one that is `-`.
const OPTIONAL: u8 = 6;
const KIND: u8 = 7;
const SOURCE: u8 = 8;

/// Leaves of the table, at its front, the strings of [`Mount`] for each file system on a block device; how many bytes
/// they are. Where one is mounted several times, the first counts.
#[inline(never)]
fn extract(text: &mut [u8], root: BorrowedFd<'_>) -> usize {
    // Where the records end, the strings of the line in the making, and where the last of those starts.
    let (mut used, mut end, mut last) = (0, 0, 0);
    let (mut start, mut field) = (0_usize, 0_u8);
    let mut device = Device::new();
    while let Some(length) =
        text.get(start..).and_then(|rest| rest.iter().position(|byte| matches!(byte, b' ' | b'\n')))
    {
        let stop = start.wrapping_add(length);
        let word = text.get(start..stop).unwrap_or_default();
        let more = field == OPTIONAL && word != b"-";
        if field == DEVICE {
            device = Device::from_slice(word).unwrap_or_default();
        } else if matches!(field, POINT | KIND | SOURCE) {
            last = end;
            end = unescape(text, start..stop, end);
        }
        if !more {
            field = field.saturating_add(1);
        }
        if text.get(stop) == Some(&b'\n') {
            if device.starts_with(b"0:") {
                device.clear();
                let (record, source) = text
                    .get(used..end)
                    .unwrap_or_default()
                    .split_at_checked(last.wrapping_sub(used))
                    .unwrap_or_default();
                // It has no number of its own there, as it may lie on several.
                if record.ends_with(b"\0btrfs\0") {
                    device = device_at(root, source);
                }
            }
            let new = !text.get(..used).unwrap_or_default().split(|byte| *byte == 0).any(|string| string == device);
            // What was left out of the line is longer than a device, whose place is that of the source.
            let behind = last.wrapping_add(device.len());
            if new
                && field > SOURCE
                && behind < stop
                && let Some(place) = text.get_mut(last..behind)
            {
                place.copy_from_slice(&device);
                used = unescape(text, behind..behind, behind);
            }
            end = used;
            field = 0;
        }
        start = stop.wrapping_add(1);
    }
    used
}

/// Moves a string of the table to the front, without its escapes (`\040`) and with a NUL; where it ends there.
#[inline(never)]
fn unescape(text: &mut [u8], from: Range<usize>, mut to: usize) -> usize {
    let mut at = from.start;
    while at <= from.end {
        let mut byte = text.get(at).copied().unwrap_or_default();
        at = at.wrapping_add(1);
        if at > from.end {
            byte = 0;
        } else if byte == b'\\'
            && let Some([a, b, c]) = text.get(at..).and_then(<[u8]>::first_chunk)
        {
            byte = a << 6 | (b & 7) << 3 | c & 7;
            at = at.wrapping_add(3);
        }
        if let Some(place) = text.get_mut(to) {
            *place = byte;
        }
        to = to.wrapping_add(1);
    }
    to
}

/// The block device at this path; nothing if there is none.
#[inline(never)]
fn device_at(root: BorrowedFd<'_>, path: &[u8]) -> Device {
    match statat(root, sys::tail(c_string(path), 1), AtFlags::empty()) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice => device(found.st_rdev),
        _ => Device::new(),
    }
}

/// The device with this number.
#[inline(never)]
pub fn device(number: u64) -> Device {
    let mut device = Device::new();
    decimal(&mut device, major(number));
    let _ = device.push(b':');
    decimal(&mut device, minor(number));
    device
}

/// A string with its NUL.
fn c_string(bytes: &[u8]) -> &CStr {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default()
}

/// Adds a number.
fn decimal(device: &mut Device, number: u32) {
    if number > 9 {
        decimal(device, number / 10);
    }
    let _ = device.push(b'0' | (number % 10).to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};
    use std::vec::Vec;
    use std::{format, fs};

    use rustix::fd::AsFd;

    use super::*;
    use crate::testing::open_folder;

    /// The mounts in a table with these lines, in both orders.
    fn mounts(name: &str, table: &str) -> Vec<[String; 3]> {
        let root = std::env::temp_dir().join(format!("nanoga-mounts-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/mountinfo"), table).unwrap();
        let mounts = Mounts::read(open_folder(&root).as_fd()).unwrap();
        let [forward, mut backward] = [Order::Mounted, Order::Reverse].map(|order| {
            let mut all = Vec::new();
            mounts.walk(order, &mut |mount| {
                all.push([mount.point, mount.kind, mount.device].map(|text| text.to_str().unwrap().to_string()));
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
        assert!(device_at(CWD, b"/dev/null\0").is_empty(), "no block device");
        let text = &mut b"34 27 0:41 / /b rw - btrfs x\\012y rw\n".to_vec();
        assert_eq!(extract(text, CWD), 0);
        let mut device = Device::new();
        decimal(&mut device, 4_294_967_295);
        assert_eq!(device, b"4294967295");
    }

    #[test]
    fn without_a_table_it_is_an_error() {
        let root = open_folder("/dev".as_ref());
        assert_eq!(Mounts::read(root.as_fd()).err(), Some(Errno(2)));
    }
}
