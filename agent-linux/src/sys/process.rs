//! Processes: how they begin, become another program and end.
//!
//! It keeps no list of them: whoever starts one waits for it, or leaves that to `guest/job.rs`.

use core::ffi::{CStr, c_char, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general as kernel;

use super::{checked, wide};
use crate::arch::{self, syscall3, syscall5};

/// A copy of this process, as `fork(2)`: the child's number, or 0 in the child.
///
/// # Safety
///
/// The child has the parent's memory and descriptors. It must end by [`exit`] or [`execve`], and not return into code
/// that believes to be the agent.
#[inline(never)]
pub unsafe fn fork() -> rustix::io::Result<u32> {
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
pub unsafe fn vfork(child: unsafe extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> rustix::io::Result<u32> {
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

/// Leads to the file of the program that runs.
pub const ITSELF: &CStr = c"/proc/self/exe";

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

/// Ends the process: `exit_group(2)`.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: no memory is involved; it does not return.
        unsafe {
            syscall3(kernel::__NR_exit_group, usize::from(status), 0, 0);
        }
    }
}
