//! x86_64: the first instruction, the system call, and copying and filling of memory.
//!
//! All that an architecture needs stands in its one file.

use core::arch::asm;
use core::ffi::c_void;

/// Defines `_start`, which hands the kernel's initial stack to `$entry`.
#[macro_export]
macro_rules! start {
    ($entry:path) => {
        /// Where the kernel starts the process: `rsp` points to argc, the frame pointer is not defined.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "xor ebp, ebp",
                "mov rdi, rsp",
                "and rsp, -16",
                "call {entry}",
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
    // SAFETY: the caller vouches for the arguments; the kernel changes rax, rcx, r11 and what they point to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(number) => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            inlateout("rax") u64::from(number) => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {argument}",
            "call {child}",
            "2:",
            child = in(reg) child,
            argument = in(reg) argument,
            inlateout("rax") u64::from(number) => result,
            in("rdi") flags,
            in("rsi") 0,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            out("rcx") _,
            out("r11") _,
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
    // SAFETY: the caller vouches for the memory; the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
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
    // SAFETY: the caller vouches for the memory; the direction flag is clear again afterwards. The pointers to the
    // last bytes are computed by wrapping, so a count of zero is fine.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _,
            options(nostack),
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
    // SAFETY: the caller vouches for the memory; the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            in("al") byte,
            options(nostack, preserves_flags),
        );
    }
}
