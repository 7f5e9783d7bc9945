//! The system calls that rustix does not offer, typed.
//!
//! It knows numbers and structures of the kernel, and nothing about what the agent does with them.

#![allow(unsafe_code, reason = "system calls")]

pub mod random;
pub mod vsock;

use core::ffi::{CStr, c_char, c_void};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agent_core::guest::Errno;
use linux_raw_sys::{general as kernel, ioctl, net, netlink};
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::arch::{self, syscall3, syscall5};

/// A NULL-terminated array of C strings, as `execve(2)` takes and `_start` finds it.
#[derive(Clone, Copy)]
pub struct Strings<'a> {
    next: *const *const c_char,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Strings<'a> {
    /// No string at all.
    pub const NONE: Self = Self { next: [ptr::null()].as_ptr(), strings: PhantomData };

    /// The strings from `first` up to the NULL.
    ///
    /// # Safety
    ///
    /// `first` must point to such an array, and it and its strings must live unchanged for `'a`.
    #[inline]
    pub unsafe fn new(first: *const *const c_char) -> Self {
        Self { next: first, strings: PhantomData }
    }

    /// The value of the variable of this name, if they are an environment.
    #[inline(never)]
    pub fn value(mut self, name: &[u8]) -> Option<&'a CStr> {
        self.find_map(|string| match string.to_bytes().strip_prefix(name) {
            Some([b'=', ..]) => Some(tail(string, name.len().wrapping_add(1))),
            _ => None,
        })
    }

    /// The array.
    pub fn array(self) -> *const *const c_char {
        self.next
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        // SAFETY: `new` was promised an array that ends in NULL, and `next` never moves beyond that.
        let string = unsafe { *self.next };
        if string.is_null() {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        // SAFETY: `new` was promised C strings that live for 'a.
        Some(unsafe { CStr::from_ptr(string) })
    }
}

/// A string without its first bytes; empty if it has no more.
pub fn tail(string: &CStr, from: usize) -> &CStr {
    let from = from.min(string.to_bytes().len());
    // SAFETY: the rest of a C string is one, and this begins at its NUL at the latest.
    unsafe { CStr::from_ptr(string.as_ptr().wrapping_add(from)) }
}

/// A set of signals, as the kernel has it: bit N - 1 is signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// This set and one more signal, between 1 and 64.
    #[must_use]
    pub const fn with(self, signal: u32) -> Self {
        Self(self.0 | 1_u64.wrapping_shl(signal.wrapping_sub(1)))
    }
}

/// Replaces the set of blocked signals: `rt_sigprocmask(2)` with `SIG_SETMASK`. It cannot fail.
pub fn block_only(signals: SignalSet) {
    // SAFETY: the set is readable for the call, the old set is not asked for.
    unsafe {
        syscall5(
            kernel::__NR_rt_sigprocmask,
            2, // SIG_SETMASK, asm-generic/signal-defs.h
            (&raw const signals.0).expose_provenance(),
            0,
            size_of::<u64>(),
            0,
        );
    }
}

/// Gives every signal its default action, as at the start of a program: `rt_sigaction(2)`.
///
/// An agent sets no other. So a signal that has its default once has it for ever, also for the children to come, and
/// is not gone through again.
pub fn default_signals() {
    static USUAL: AtomicU64 = AtomicU64::new(0);
    let mut usual = USUAL.load(Ordering::Relaxed);
    for signal in 1..=64 {
        let bit = 1_u64.rotate_left(signal).rotate_right(1);
        if usual & bit == 0 && default_signal(signal) {
            usual |= bit;
        }
    }
    USUAL.store(usual, Ordering::Relaxed);
}

/// Gives this signal its default action. Did it have it before?
#[inline(never)]
pub fn default_signal(signal: u32) -> bool {
    // struct sigaction of the kernel: handler, flags, restorer, mask; a handler of zero means SIG_DFL.
    let (action, mut before) = ([0_usize; 4], [0_usize; 4]);
    // SAFETY: one structure is readable for the call and the other one writable. SIGKILL and SIGSTOP are refused, which
    // is as good.
    unsafe {
        syscall5(
            kernel::__NR_rt_sigaction,
            wide(signal),
            action.as_ptr().expose_provenance(),
            before.as_mut_ptr().expose_provenance(),
            size_of::<u64>(),
            0,
        );
    }
    let [handler, ..] = before;
    handler == 0
}

/// A descriptor from which the blocked signals of this set are read: `signalfd4(2)`, CLOEXEC and non-blocking.
pub fn signalfd(signals: SignalSet) -> rustix::io::Result<OwnedFd> {
    // SAFETY: the set is readable for the call.
    let fd = unsafe {
        syscall5(
            kernel::__NR_signalfd4,
            usize::MAX, // -1: a new descriptor
            (&raw const signals.0).expose_provenance(),
            size_of::<u64>(),
            wide(kernel::O_CLOEXEC | kernel::O_NONBLOCK), // SFD_*, linux/signalfd.h
            0,
        )
    };
    let fd = RawFd::try_from(checked(fd)?).unwrap_or(RawFd::MAX);
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file that no helper program shall have.
#[inline]
pub fn open(folder: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_inheritable(folder, path, flags | OFlags::CLOEXEC)
}

/// Opens a file: `openat(2)`. One place for all, because each call costs eighty bytes.
#[inline(never)]
pub fn open_inheritable(folder: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(folder, path, flags, Mode::empty())
}

/// Reads a file from its front on, as far as there is room: how many bytes; none if it cannot be read.
#[inline(never)]
pub fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    let mut len = 0_usize;
    if let Ok(file) = open(CWD, path, OFlags::RDONLY) {
        loop {
            let more = read(&file, buffer.get_mut(len..).unwrap_or_default());
            if more == 0 {
                break;
            }
            len = len.wrapping_add(more);
        }
    }
    len
}

/// Reads on in a file: how many bytes; none at its end, or if it cannot be read: `read(2)`.
#[inline(never)]
pub fn read(file: &OwnedFd, buffer: &mut [u8]) -> usize {
    let place = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the buffer is writable for the call.
    checked(unsafe { syscall3(kernel::__NR_read, raw(file), place, buffer.len()) }).unwrap_or(0)
}

/// Bytes of the longest path that [`join`] makes, with its NUL.
pub const PATH: usize = 256;

/// The path of these parts, one behind the other. One that is too long becomes empty, which names nothing.
#[inline(never)]
pub fn join<'b>(space: &'b mut [u8], parts: &[&[u8]]) -> &'b CStr {
    let mut len = 0_usize;
    for part in parts {
        for byte in *part {
            if let Some(place) = space.get_mut(len) {
                *place = *byte;
            }
            len = len.wrapping_add(1);
        }
    }
    let end = if len < space.len() { len } else { 0 };
    let Some(place) = space.get_mut(end) else {
        return c"";
    };
    *place = 0;
    // SAFETY: there is a NUL, which was just written.
    unsafe { CStr::from_ptr(space.as_ptr().cast()) }
}

/// Goes through the names in a folder, but for those that begin with a dot, and gives the folder along: `getdents64(2)`.
/// There are none in one that cannot be read.
///
/// Not through rustix, whose reader of folders is thrice as large.
#[inline(never)]
pub fn list(folder: BorrowedFd<'_>, path: &CStr, each: &mut dyn FnMut(BorrowedFd<'_>, &CStr)) {
    let Ok(folder) = open(folder, path, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return;
    };
    let folder = folder.as_fd();
    let mut space = [0_u8; 1024];
    loop {
        // SAFETY: the space is writable for the call.
        let read = unsafe {
            syscall3(kernel::__NR_getdents64, raw(folder), space.as_mut_ptr().expose_provenance(), space.len())
        };
        let mut rest = usize::try_from(read).ok().and_then(|len| space.get(..len)).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        // struct linux_dirent64: inode and position, 8 bytes each, length u16, type u8, name with its NUL.
        while let Some((&[.., l0, l1, _], name)) = rest.split_first_chunk::<19>() {
            if name.first() != Some(&b'.') {
                // SAFETY: the kernel ends each name with a NUL.
                each(folder, unsafe { CStr::from_ptr(name.as_ptr().cast()) });
            }
            // Never 0; if it were, this would be the end.
            let length = usize::from(u16::from_ne_bytes([l0, l1])).wrapping_sub(1);
            rest = rest.get(length..).and_then(|rest| rest.get(1..)).unwrap_or_default();
        }
    }
}

/// Some numbers as bytes, to be written and read by this program only.
pub fn bytes_of(numbers: &mut [u64; 4]) -> &mut [u8] {
    // SAFETY: all bytes of numbers are bytes, all bytes make numbers, and they are borrowed alike.
    unsafe { core::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// What can be asked of a mounted file system: the number for `ioctl(2)` in linux/fs.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfFileSystem(u32);

impl OfFileSystem {
    /// FIFREEZE: nothing may be written.
    pub const FREEZE: Self = Self(0xC004_5877);
    /// FITHAW: it may again.
    pub const THAW: Self = Self(0xC004_5878);
    /// FITRIM: the disk shall forget what the free blocks of this range hold.
    pub const TRIM: Self = Self(0xC018_5879);
}

/// Asks that of the file system that something lies on. The range is `struct fstrim_range`: start, length, and the
/// smallest extent; only a trim looks at it.
pub fn ask_file_system(of: &OwnedFd, what: OfFileSystem, range: &mut [u64; 3]) -> rustix::io::Result<()> {
    // SAFETY: the range is readable and writable for the call, and none of these touches more.
    checked(unsafe { syscall3(kernel::__NR_ioctl, raw(of), wide(what.0), range.as_mut_ptr().expose_provenance()) })
        .map(drop)
}

/// Puts a serial line into raw mode, with these control flags, and drops what came in so far: `TCSETS` and `TCFLSH` of
/// `ioctl_tty(2)`.
///
/// Not through rustix: it converts speeds, which an emulated line has no use for.
pub fn make_raw(line: impl AsFd, flags: u32) -> rustix::io::Result<()> {
    let mut codes = [0; 19];
    codes[6] = 1; // VMIN: a read returns as soon as there is a byte
    let settings = kernel::termios { c_iflag: 0, c_oflag: 0, c_cflag: flags, c_lflag: 0, c_line: 0, c_cc: codes };
    let line = raw(line);
    // SAFETY: the structure is readable for the call.
    unsafe {
        syscall3(kernel::__NR_ioctl, line, wide(ioctl::TCFLSH), 0); // TCIFLUSH
        let settings = (&raw const settings).expose_provenance();
        checked(syscall3(kernel::__NR_ioctl, line, wide(ioctl::TCSETS), settings)).map(drop)
    }
}

/// Makes the kernel heed what a dump request of netlink asks for: `NETLINK_GET_STRICT_CHK` (`netlink(7)`).
///
/// Kernels before 4.20 do not know it, so what they answer must be checked anyway.
pub fn netlink_strict(socket: impl AsFd) {
    let on = 1_u32;
    // SAFETY: the option's value is readable for the call.
    unsafe {
        syscall5(
            kernel::__NR_setsockopt,
            raw(socket),
            270, // SOL_NETLINK, linux/socket.h
            wide(netlink::NETLINK_GET_STRICT_CHK),
            (&raw const on).expose_provenance(),
            size_of_val(&on),
        );
    }
}

/// Takes the numbers 0 to 2, where nobody passed a descriptor: otherwise a channel would get one of them, and what
/// is meant for standard error would go to a host.
pub fn keep_standard_descriptors() {
    // Nothing can be written to a descriptor of this kind, and the root folder is always there.
    while let Ok(placeholder) = open(CWD, c"/", OFlags::PATH) {
        if placeholder.as_raw_fd() > 2 {
            break;
        }
        core::mem::forget(placeholder);
    }
}

/// Writes to standard output (1) or standard error (2). Those numbers are never a channel's: see
/// [`keep_standard_descriptors`]. There is nobody to tell if it fails.
#[inline(never)]
pub fn print(number: usize, bytes: &[u8]) {
    // SAFETY: the bytes are readable for the call.
    unsafe {
        syscall3(kernel::__NR_write, number, bytes.as_ptr().expose_provenance(), bytes.len());
    }
}

/// The time that does not run out, for [`epoll_wait`]: -1 as the kernel reads it.
pub const FOR_EVER: usize = usize::MAX;

/// Waits for an event, and no longer than so many milliseconds: `epoll_pwait(2)`. What happened, and to which token; a
/// signal is no event.
///
/// Not through rustix: it takes seconds and nanoseconds apart and puts them together again.
pub fn epoll_wait(epoll: &OwnedFd, timeout_ms: usize) -> rustix::io::Result<Option<(EventFlags, u64)>> {
    let mut event = epoll::Event { flags: EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    let place = (&raw mut event).expose_provenance();
    // SAFETY: the event is writable for the call, and what the kernel writes makes a valid one. There is no mask.
    match checked(unsafe { syscall5(kernel::__NR_epoll_pwait, raw(epoll), place, 1, timeout_ms, 0) }) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
        // By value: a field of a packed structure has no reference.
        Ok(_) => Ok(Some(({ event.flags }, { event.data }.u64()))),
        Err(error) => Err(error),
    }
}

/// What has happened to a descriptor, of these events and the errors: `ppoll(2)`, which does not wait here.
#[inline(never)]
pub fn events(of: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut files = [PollFd::from_borrowed_fd(of, events)];
    let now = [0_i64; 2]; // struct timespec
    // SAFETY: one `struct pollfd`, writable for the call, and a readable time. There is no mask.
    unsafe {
        let now = now.as_ptr().expose_provenance();
        syscall5(kernel::__NR_ppoll, files.as_mut_ptr().expose_provenance(), files.len(), now, 0, 0);
    }
    let [file] = files;
    file.revents()
}

/// The next signal that waits in this descriptor, if there is one: `signalfd(2)`.
#[inline(never)]
pub fn next_signal(signals: &OwnedFd) -> Option<u32> {
    // struct signalfd_siginfo: its first word is the number of the signal.
    let mut info = MaybeUninit::<[u32; 32]>::uninit();
    let size = size_of_val(&info);
    // SAFETY: the structure is writable for the call.
    let read = unsafe { syscall3(kernel::__NR_read, raw(signals), info.as_mut_ptr().expose_provenance(), size) };
    // SAFETY: the kernel wrote all of one, or nothing.
    (read > 0).then(|| unsafe { info.assume_init_ref() }[0])
}

/// Milliseconds of a clock that never jumps: `clock_gettime(2)` with `CLOCK_MONOTONIC`.
///
/// Not through rustix: it looks for the kernel's vDSO, which costs more than this ever takes.
pub fn monotonic_ms() -> u64 {
    let [seconds, nanoseconds] = clock(kernel::CLOCK_MONOTONIC);
    seconds.unsigned_abs().wrapping_mul(1000).wrapping_add(nanoseconds.unsigned_abs() / 1_000_000)
}

/// Seconds since 1970, UTC, and the nanoseconds behind them: `clock_gettime(2)` with `CLOCK_REALTIME`.
pub fn realtime() -> [i64; 2] {
    clock(kernel::CLOCK_REALTIME)
}

/// The same of a device that is a clock: what the first lines of `clock_getres(2)` call dynamic. Zeros if it is none.
pub fn device_clock(device: impl AsFd) -> [i64; 2] {
    let [a, b, c, d, ..] = raw(device).to_le_bytes();
    clock(!u32::from_le_bytes([a, b, c, d]) << 3 | 3) // FD_TO_CLOCKID, CLOCKFD
}

fn clock(clock: u32) -> [i64; 2] {
    let mut now = [0; 2]; // struct timespec
    // SAFETY: the structure is writable for the call.
    unsafe {
        syscall3(kernel::__NR_clock_gettime, wide(clock), now.as_mut_ptr().expose_provenance(), 0);
    }
    now
}

/// Sets the clock to these seconds since 1970 and nanoseconds: `clock_settime(2)` with `CLOCK_REALTIME`.
pub fn set_realtime(time: [i64; 2]) -> rustix::io::Result<()> {
    let time = (&raw const time).expose_provenance();
    // SAFETY: the structure is readable for the call.
    checked(unsafe { syscall3(kernel::__NR_clock_settime, wide(kernel::CLOCK_REALTIME), time, 0) }).map(drop)
}

/// Reads or writes, by `RTC_RD_TIME` or `RTC_SET_TIME` of `ioctl(2)`, the nine numbers of a `struct rtc_time` (rtc(4)).
pub fn rtc(device: &OwnedFd, write: bool, time: &mut [i32; 9]) -> rustix::io::Result<()> {
    let request = wide(if write { ioctl::RTC_SET_TIME } else { ioctl::RTC_RD_TIME });
    // SAFETY: the structure is readable and writable for the call.
    checked(unsafe { syscall3(kernel::__NR_ioctl, raw(device), request, time.as_mut_ptr().expose_provenance()) })
        .map(drop)
}

/// Locks a whole file for writing, unless another process has: `F_OFD_SETLK` of `fcntl(2)`. The lock is in the way of
/// those of lockf(3) too, which qemu-ga(8) takes, and belongs to the open file: a forked process keeps it.
pub fn lock(file: impl AsFd) -> rustix::io::Result<()> {
    let lock = kernel::flock {
        l_type: 1,   // F_WRLCK, asm-generic/fcntl.h
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let lock = (&raw const lock).expose_provenance();
    // SAFETY: the structure is readable for the call.
    checked(unsafe { syscall3(kernel::__NR_fcntl, raw(file), wide(kernel::F_OFD_SETLK), lock) }).map(drop)
}

/// A descriptor for the socket that was passed to the process, if hosts can connect to it: the one whose number is the
/// last digit of its name. That stays open: should the agent start anew, it finds it again.
///
/// Not through rustix: it checks what the kernel returns with an assertion that formats numbers.
pub fn passed_listener(name: &CStr) -> rustix::io::Result<OwnedFd> {
    let number = name.to_bytes().last().map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
    let (mut listens, mut len) = (0_u32, size_of::<u32>());
    // SAFETY: the option's value and its length are writable for the call; the new descriptor is nobody else's.
    unsafe {
        let value = (&raw mut listens).expose_provenance();
        let (level, option) = (wide(net::SOL_SOCKET), wide(net::SO_ACCEPTCONN));
        syscall5(kernel::__NR_getsockopt, number, level, option, value, (&raw mut len).expose_provenance());
        let copy = syscall3(kernel::__NR_fcntl, number, wide(kernel::F_DUPFD_CLOEXEC), 3);
        if listens != 1 || copy < 0 {
            return Err(rustix::io::Errno::INVAL);
        }
        syscall3(kernel::__NR_fcntl, number, wide(kernel::F_SETFL), wide(kernel::O_NONBLOCK));
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(copy).unwrap_or(RawFd::MAX)))
    }
}

/// Closes every descriptor from `first` to `last`: `close_range(2)`.
///
/// # Safety
///
/// Nobody may use one of them any more, or drop what owns it.
pub unsafe fn close_range(first: u32, last: u32) {
    // SAFETY: no memory is involved, and the caller vouches for the descriptors.
    let result = unsafe { syscall3(kernel::__NR_close_range, wide(first), wide(last), 0) };
    if result < 0 {
        // Before Linux 5.9: one by one, up to the usual limit of a process.
        for fd in first..=last.min(1023) {
            // SAFETY: the same.
            unsafe { syscall3(kernel::__NR_close, wide(fd), 0, 0) };
        }
    }
}

/// Closes a descriptor, and says what the kernel found wrong then: `close(2)`.
pub fn close(file: OwnedFd) -> rustix::io::Result<()> {
    let number = raw(&file);
    core::mem::forget(file);
    // SAFETY: no memory is involved, and the descriptor was owned and is forgotten.
    checked(unsafe { syscall3(kernel::__NR_close, number, 0, 0) }).map(drop)
}

/// Moves to another place in a file, counted from the start (0), from where it is (1), or from the end (2): `lseek(2)`.
///
/// Not through rustix: a host may ask for what its types cannot say, and shall hear what the kernel says of that.
pub fn lseek(file: impl AsFd, offset: i64, whence: usize) -> rustix::io::Result<i64> {
    let offset = isize::try_from(offset).unwrap_or(isize::MIN).cast_unsigned();
    // SAFETY: no memory is involved.
    let position = checked(unsafe { syscall3(kernel::__NR_lseek, raw(file), offset, whence) })?;
    Ok(i64::try_from(position).unwrap_or(i64::MAX))
}

/// Lets this process have so many descriptors, if it may: `prlimit(2)` with `RLIMIT_NOFILE`.
pub fn allow_descriptors(number: u64) {
    let mut limits = [0_u64; 2]; // struct rlimit64: soft, hard
    let address = (&raw mut limits).expose_provenance();
    let resource = wide(kernel::RLIMIT_NOFILE);
    // SAFETY: one structure is writable for the first call, another readable for the second. 0 is this process.
    unsafe {
        syscall5(kernel::__NR_prlimit64, 0, resource, 0, address, 0);
        let [soft, hard] = limits;
        let raised = [soft.max(number.min(hard)), hard];
        syscall5(kernel::__NR_prlimit64, 0, resource, (&raw const raised).expose_provenance(), 0, 0);
    }
}

/// A copy of this process, as `fork(2)`: the child's number, or 0 in the child.
///
/// # Safety
///
/// The child has the parent's memory and descriptors. It must end by [`exit`] or [`execve`], and not return into code
/// that believes to be the agent.
#[inline(never)]
pub unsafe fn fork() -> rustix::io::Result<usize> {
    // SAFETY: without a stack, pointers or CLONE_VM the child goes on alone on a copy of this stack. The order of the
    // zeros differs between architectures and does not matter.
    let child = checked(unsafe { syscall5(kernel::__NR_clone, wide(kernel::SIGCHLD), 0, 0, 0, 0) });
    if child == Ok(0) {
        IS_COPY.store(true, Ordering::Relaxed);
    }
    child
}

/// A child that runs this function in the memory of this process, which waits until it has become another program or
/// ended: `vfork(2)`. The child's number.
///
/// # Safety
///
/// The function is called as if from here, but with descriptors, signals and a process id of its own. It must end by
/// becoming another program or by [`exit`].
#[inline(never)]
pub unsafe fn vfork(child: unsafe extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> rustix::io::Result<usize> {
    let flags = wide(kernel::CLONE_VM | kernel::CLONE_VFORK | kernel::SIGCHLD);
    // SAFETY: the flags are those that are asked for, and the caller vouches for the function.
    checked(unsafe { arch::clone(kernel::__NR_clone, flags, child, argument) })
}

static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Is this a forked copy of the agent, and not the agent itself?
pub fn is_copy() -> bool {
    IS_COPY.load(Ordering::Relaxed)
}

/// From now on this copy is the agent.
pub fn become_agent() {
    IS_COPY.store(false, Ordering::Relaxed);
}

/// For [`wait`]: any child.
pub const ANY: usize = usize::MAX; // -1

/// The number of a child that has ended, and its status (`wait(2)`): this one, for which it waits, or [`ANY`] that has
/// ended already. 0 if there is none.
#[inline(never)]
pub fn wait(child: usize, status: &mut u32) -> usize {
    let options = if child == ANY { kernel::WNOHANG } else { 0 };
    // SAFETY: the status is writable for the call, and nothing else is asked for.
    let child =
        unsafe { syscall5(kernel::__NR_wait4, child, (&raw mut *status).expose_provenance(), wide(options), 0, 0) };
    usize::try_from(child).unwrap_or(0)
}

/// Of helper programs: all of their environment, and where they are looked for.
pub const PROGRAMS: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes another program, with its own name and at most six arguments, and [`PROGRAMS`] for an environment:
/// `execve(2)`. Returns only if that failed.
#[inline(never)]
pub fn execve(path: &CStr, arguments: &[&CStr]) {
    let mut words = [ptr::null(); 8];
    for (place, word) in words.iter_mut().zip([&path].into_iter().chain(arguments).take(7)) {
        *place = word.as_ptr();
    }
    let environment = [PROGRAMS.as_ptr(), ptr::null()];
    // SAFETY: arrays of strings, which end in NULL.
    unsafe { execve_words(path, words.as_ptr(), environment.as_ptr()) };
}

/// Becomes another program: `execve(2)`. Returns only if that failed, and why.
///
/// # Safety
///
/// Both must point to arrays of C strings that end in NULL.
#[inline(never)]
pub unsafe fn execve_words(
    path: &CStr,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> rustix::io::Errno {
    let path = path.as_ptr().expose_provenance();
    // SAFETY: a readable string, and what the caller was asked for.
    let result =
        unsafe { syscall3(kernel::__NR_execve, path, arguments.expose_provenance(), environment.expose_provenance()) };
    checked(result).err().unwrap_or(rustix::io::Errno::NOENT)
}

/// Gives a descriptor a second number, for a program to inherit: `dup3(2)`.
///
/// # Safety
///
/// Nobody may use what had that number, or drop what owns it.
pub unsafe fn copy_to(file: BorrowedFd<'_>, number: usize) {
    // SAFETY: no memory is involved, and the caller vouches for the descriptor.
    unsafe { syscall3(kernel::__NR_dup3, raw(file), number, 0) };
}

/// Bytes of memory that the guest has: `sysinfo(2)`.
#[inline(never)]
pub fn memory() -> u64 {
    let memory = rustix::system::sysinfo();
    memory.totalram.saturating_mul(u64::from(memory.mem_unit))
}

/// Sends a signal to a process, if it is there and this one may: `kill(2)`.
pub fn kill(process: usize, signal: u32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { syscall3(kernel::__NR_kill, process, wide(signal), 0) == 0 }
}

/// Becomes the program behind a descriptor: `execveat(2)` with `AT_EMPTY_PATH`. Returns only if that failed.
pub fn execve_fd(program: impl AsFd, arguments: Strings<'_>, environment: Strings<'_>) -> Errno {
    // SAFETY: a string and arrays of strings, readable by their types.
    let result = unsafe {
        syscall5(
            kernel::__NR_execveat,
            raw(program),
            c"".as_ptr().expose_provenance(),
            arguments.next.expose_provenance(),
            environment.next.expose_provenance(),
            wide(kernel::AT_EMPTY_PATH),
        )
    };
    checked(result).err().map_or(Errno(0), errno)
}

/// Ends the process: `exit_group(2)`.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: no memory is involved; it does not return.
        unsafe {
            syscall3(kernel::__NR_exit_group, usize::from(status), 0, 0);
        }
    }
}

/// The seam's number of an error of rustix.
pub fn errno(error: rustix::io::Errno) -> Errno {
    // Never above 4095.
    let [low, high, ..] = error.raw_os_error().to_le_bytes();
    Errno(u16::from_le_bytes([low, high]))
}

/// The seam's number of an error of the kernel's headers (`linux_raw_sys::errno`).
#[allow(clippy::as_conversions, reason = "not one of them is above 4095, and this is evaluated by the compiler")]
pub const fn errno_of(number: u32) -> Errno {
    Errno(number as u16)
}

/// What a system call returned: the kernel reports an error as a number between -4095 and -1.
pub(crate) fn checked(result: isize) -> rustix::io::Result<usize> {
    usize::try_from(result).map_err(|_| {
        // As the types see it, it could be any negative number.
        let number = i32::try_from(result.wrapping_neg()).unwrap_or(0);
        rustix::io::Errno::from_raw_os_error(number.clamp(1, 4095))
    })
}

/// A descriptor as the kernel takes it.
pub(crate) fn raw(fd: impl AsFd) -> usize {
    usize::try_from(fd.as_fd().as_raw_fd()).unwrap_or(usize::MAX)
}

/// A `u32` as the kernel's `long`.
pub(crate) fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
