//! What outlives the agent: the number of the next file handle, in the file and the form of qemu-ga(8), so that one
//! agent continues where the other ended.
//!
//! A state that cannot be kept is a warning and no end: then numbers come from a clock, which gives none twice before
//! the guest starts anew.

use core::ffi::CStr;

use agent_core::packed;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fchmod, mkdirat, renameat, unlinkat};
use rustix::io::Errno;

use crate::log::say_why;
use crate::sys;
use crate::text::{self, decimal};

/// The file, and the one that takes its place when it is complete.
const FILE: &CStr = c"qga.state";
const NEW_FILE: &CStr = c"qga.state.new";

/// Its text before the number (a GKeyFile, as qemu-ga writes it). A newline follows.
const HEAD: &[u8] = b"[global]\nfd_counter=";

/// The first handle ever.
const FIRST: u32 = 1000;

/// Of folders that are made.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// The state of the agent.
pub struct State {
    folder: &'static CStr,
    /// The next handle; 0 before it was read.
    next: u32,
    warned: bool,
}

impl State {
    /// The state in this folder. Nothing is read before it is needed.
    pub const fn new(folder: &'static CStr) -> Self {
        Self { folder, next: 0, warned: false }
    }

    /// Makes the folder, if it is missing, and warns if nothing can be kept there.
    #[inline(never)]
    pub fn prepare(&mut self) {
        let path = self.folder.to_bytes();
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                let mut space = [0; sys::PATH];
                let above = sys::join(&mut space, &[path.get(..at).unwrap_or_default()]);
                let _ = mkdirat(CWD, above, FOLDER_MODE);
            }
        }
        let _ = mkdirat(CWD, self.folder, FOLDER_MODE);
        if let Err(error) = accessat(CWD, self.folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()) {
            self.warn(error);
        }
    }

    /// A number for a file handle, which no other has or had.
    #[inline(never)]
    pub fn take_handle(&mut self) -> u32 {
        if let Err(error) = self.take() {
            self.warn(error);
            // Milliseconds since the guest has started. They begin anew after 24 days, when nobody knows the old
            // handles any more.
            let now = u32::try_from(sys::monotonic_ms() & 0x7FFF_FFFF).unwrap_or(0);
            self.next = self.next.max(FIRST).max(now);
        }
        let handle = self.next;
        self.next = handle.wrapping_add(1);
        handle
    }

    /// The folder, as a place to open files at.
    pub fn folder(&self) -> Result<OwnedFd, Errno> {
        sys::open(CWD, self.folder, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Sees to it that the next handle is known, and that the file has the one behind it. It is complete at any time.
    fn take(&mut self) -> Result<(), Errno> {
        let folder = self.folder()?;
        let mut space = [0; sys::PATH];
        if self.next == 0 {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            self.next = match sys::open(folder.as_fd(), FILE, flags) {
                Ok(file) => {
                    let length = sys::read(&file, &mut space);
                    number(space.get(..length).unwrap_or_default()).ok_or(Errno::INVAL)?
                }
                Err(Errno::NOENT) => FIRST,
                Err(error) => return Err(error),
            };
        }
        let mut digits = [0; 20];
        let digits = decimal(u64::from(self.next.wrapping_add(1)), 1, &mut digits);
        let text = sys::join(&mut space, &[HEAD, digits, b"\n"]).to_bytes();

        let _ = unlinkat(&folder, NEW_FILE, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = sys::open(folder.as_fd(), NEW_FILE, flags)?;
        fchmod(&file, Mode::from_raw_mode(0o600))?;
        if !sys::write(&file, text) {
            return Err(Errno::NOSPC);
        }
        renameat(&folder, NEW_FILE, &folder, FILE)
    }

    fn warn(&mut self, error: Errno) {
        if !self.warned {
            say_why(packed!("nothing can be kept in '%': !"), self.folder.to_bytes(), error);
            self.warned = true;
        }
    }
}

/// The number in the text of the file, if it can be one of the next handle.
fn number(text: &[u8]) -> Option<u32> {
    let [digits @ .., b'\n'] = text.strip_prefix(HEAD)? else {
        return None;
    };
    let number = text::number(digits, u64::from(u32::MAX - 1));
    u32::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::{format, fs};

    use super::*;

    /// A folder of its own for a test, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("nanoga-state-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("qga.state")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What the clock says, as a number of a handle.
    fn now() -> u32 {
        u32::try_from(sys::monotonic_ms() & 0x7FFF_FFFF).unwrap()
    }

    fn state(path: &Path) -> State {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        State::new(std::boxed::Box::leak(path.into_boxed_c_str()))
    }

    #[test]
    fn handles_start_at_1000_and_go_on_after_a_restart() {
        let folder = Folder::new("restart");
        let mut first = state(&folder.0);
        assert_eq!([first.take_handle(), first.take_handle()], [1000, 1001]);
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), "[global]\nfd_counter=1002\n");
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left behind");
        assert_eq!(state(&folder.0).take_handle(), 1002);
    }

    #[test]
    fn what_is_left_of_an_interrupted_write_is_in_nobodys_way() {
        let folder = Folder::new("interrupted");
        fs::write(folder.0.join("qga.state.new"), "[glo").unwrap();
        assert_eq!(state(&folder.0).take_handle(), 1000);
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), "[global]\nfd_counter=1001\n");
    }

    #[test]
    fn a_file_that_says_no_number_leads_to_one_of_the_clock() {
        let folder = Folder::new("damaged");
        for text in
            ["", "[global]\n", "fd_counter=x", "fd_counter=", "fd_counter=-5", "fd_counter=99999999999999999999"]
        {
            fs::write(folder.file(), text).unwrap();
            let before = now();
            let mut state = state(&folder.0);
            let first = state.take_handle();
            assert!(first >= before.max(1000), "{text}");
            assert_eq!(state.take_handle(), first + 1, "{text}");
            assert_eq!(fs::read_to_string(folder.file()).unwrap(), format!("[global]\nfd_counter={}\n", first + 2));
        }
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let folder = Folder::new("link");
        let precious = folder.0.join("precious");
        fs::write(&precious, "[global]\nfd_counter=5\n").unwrap();
        symlink(&precious, folder.file()).unwrap();
        symlink(&precious, folder.0.join("qga.state.new")).unwrap();
        let mut state = state(&folder.0);
        assert!(state.take_handle() >= 1000);
        assert!(state.take_handle() >= 1000);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "[global]\nfd_counter=5\n");
        assert!(!fs::symlink_metadata(folder.file()).unwrap().is_symlink());
    }

    #[test]
    fn without_a_folder_no_number_is_given_twice_either() {
        let mut nowhere = state(Path::new("/proc/nowhere"));
        let before = now();
        let (first, second) = (nowhere.take_handle(), nowhere.take_handle());
        assert!(first >= before && second > first, "{before} {first} {second}");
    }

    #[test]
    fn a_missing_folder_is_made_with_those_above_it() {
        let folder = Folder::new("missing");
        let deep = folder.0.join("a/b/c");
        let mut state = state(&deep);
        state.prepare();
        assert!(deep.is_dir());
        state.prepare();
        assert_eq!(state.take_handle(), 1000);
        assert!(!state.warned);
    }
}
