//! aarch64: the first instruction, the system call, and copying and filling of memory.
//!
//! All that an architecture needs stands in its one file.

use core::arch::asm;
use core::ffi::c_void;

/// Defines `_start`, which hands the kernel's initial stack to `$entry`.
#[macro_export]
macro_rules! start {
    ($entry:path) => {
        /// Where the kernel starts the process: `sp` points to argc and is aligned.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "mov x29, xzr",
                "mov x30, xzr",
                "mov x0, sp",
                "b {entry}",
                entry = sym $entry,
            )
        }
    };
}

/// A system call with up to three arguments: what the kernel returned, a negated errno between -4095 and -1.
///
/// # Safety
///
/// As the call asks for: a pointer among the arguments must be good for what the kernel does with it.
#[inline]
pub unsafe fn syscall3(number: u32, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel changes x0 and what they point to.
    unsafe {
        asm!(
            "svc 0",
            in("x8") u64::from(number),
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            options(nostack),
        );
    }
    result
}

/// A system call with up to five arguments.
///
/// # Safety
///
/// As for [`syscall3`].
#[inline]
pub unsafe fn syscall5(number: u32, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: as in `syscall3`.
    unsafe {
        asm!(
            "svc 0",
            in("x8") u64::from(number),
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            options(nostack),
        );
    }
    result
}

/// Makes a child of these flags, which runs `child` on this very stack, below what is in use; what the kernel returned.
///
/// # Safety
///
/// The flags must make the kernel hold this process until the child has become another program or ended
/// (`CLONE_VFORK`). If they let it have this memory (`CLONE_VM`), `child` may do to it what a function could do that is
/// called here.
#[inline]
pub unsafe fn clone(
    number: u32,
    flags: usize,
    child: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    let result;
    // SAFETY: a block that may use the stack leaves it aligned for a call and free below. The kernel gives the
    // registers back as they were, but for those that any system call changes, and the child does not come back from
    // its call.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, {argument}",
            "blr {child}",
            "2:",
            child = in(reg) child,
            argument = in(reg) argument,
            in("x8") u64::from(number),
            inlateout("x0") flags => result,
            in("x1") 0,
            in("x2") 0,
            in("x3") 0,
            in("x4") 0,
        );
    }
    result
}

/// Copies `count` bytes, first byte first.
///
/// # Safety
///
/// `from` must be readable and `to` writable for `count` bytes; where they overlap, `to` must not lie above `from`.
#[inline]
pub unsafe fn copy_up(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller vouches for the memory. Eight bytes at a time are loaded before they are stored.
    unsafe {
        asm!(
            "b 3f",
            "2: ldr {word}, [{from}], #8",
            "str {word}, [{to}], #8",
            "3: subs {count}, {count}, #8",
            "b.hs 2b",
            "adds {count}, {count}, #8",
            "b.eq 5f",
            "4: ldrb {word:w}, [{from}], #1",
            "strb {word:w}, [{to}], #1",
            "subs {count}, {count}, #1",
            "b.ne 4b",
            "5:",
            count = inout(reg) count => _,
            to = inout(reg) to => _,
            from = inout(reg) from => _,
            word = out(reg) _,
            options(nostack),
        );
    }
}

/// Copies `count` bytes, last byte first.
///
/// # Safety
///
/// `from` must be readable and `to` writable for `count` bytes; where they overlap, `to` must not lie below `from`.
#[inline]
pub unsafe fn copy_down(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        asm!(
            "cbz {count}, 3f",
            "2: sub {count}, {count}, #1",
            "ldrb {byte:w}, [{from}, {count}]",
            "strb {byte:w}, [{to}, {count}]",
            "cbnz {count}, 2b",
            "3:",
            count = inout(reg) count => _,
            to = in(reg) to,
            from = in(reg) from,
            byte = out(reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Fills `count` bytes.
///
/// # Safety
///
/// `to` must be writable for `count` bytes.
#[inline]
pub unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    // SAFETY: the caller vouches for the memory.
    unsafe {
        asm!(
            "cbz {count}, 3f",
            "2: sub {count}, {count}, #1",
            "strb {byte:w}, [{to}, {count}]",
            "cbnz {count}, 2b",
            "3:",
            count = inout(reg) count => _,
            to = in(reg) to,
            byte = in(reg) u32::from(byte),
            options(nostack, preserves_flags),
        );
    }
}
