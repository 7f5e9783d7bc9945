//! The file systems that a guest cannot do without, where they are missing.

use core::ffi::CStr;

use linux_raw_sys::general::{MS_NODEV, MS_NOSUID};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, statat, symlinkat};

use super::calls;
use crate::log::failed;
use crate::sys;

/// What the agent itself needs: folders, the file systems that belong there, and their options.
pub(super) const KERNEL: &[u8] = b"/proc\0proc\0\0/sys\0sysfs\0\0/dev\0devtmpfs\0mode=755\0";

/// What programs expect. Where a path stands in place of a file system, a link leads there, as udev would make it.
pub(super) const PROGRAMS: &[u8] = b"/dev/pts\0devpts\0mode=620,ptmxmode=666,gid=5\0\
    /dev/shm\0tmpfs\0mode=1777\0\
    /run\0tmpfs\0mode=755\0\
    /tmp\0tmpfs\0mode=1777\0\
    /dev/fd\0/proc/self/fd\0\0\
    /dev/stdin\0/proc/self/fd/0\0\0\
    /dev/stdout\0/proc/self/fd/1\0\0\
    /dev/stderr\0/proc/self/fd/2\0\0";

/// Mounts each of these unless something is mounted there.
#[inline(never)]
pub(super) fn mount(mut places: &'static [u8]) {
    while !places.is_empty() {
        let [path, kind, options] = [(); 3].map(|()| take(&mut places));
        if kind.to_bytes().starts_with(b"/") {
            let _ = symlinkat(kind, CWD, path);
            continue;
        }
        // A folder that is there, or cannot be made, is told by the mount.
        let _ = mkdirat(CWD, path, Mode::from_raw_mode(0o755));
        let flags = if path.to_bytes().starts_with(b"/dev") { MS_NOSUID } else { MS_NOSUID | MS_NODEV };
        if !is_mount_point(path)
            && let Err(error) = calls::mount(kind, path, flags, options)
        {
            failed(path.to_bytes(), error);
        }
    }
}

/// Takes the first string off.
#[inline(never)]
fn take(strings: &mut &'static [u8]) -> &'static CStr {
    let string = CStr::from_bytes_until_nul(strings).unwrap_or_default();
    *strings = strings.get(string.count_bytes().wrapping_add(1)..).unwrap_or_default();
    string
}

/// A mount begins where a folder lies on another device than the one above it.
#[inline(never)]
fn is_mount_point(path: &CStr) -> bool {
    let here = sys::open(CWD, path, OFlags::PATH);
    here.is_ok_and(|here| {
        let above = statat(&here, c"..", AtFlags::empty());
        matches!((fstat(&here), above), (Ok(here), Ok(above)) if here.st_dev != above.st_dev)
    })
}
