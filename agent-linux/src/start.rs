//! From the kernel's first instruction to [`agent_linux::run`], and the memory functions that the compiler calls.
//!
//! It knows the initial stack (System V ABI, "Process Initialization") and nothing of what follows.

#![allow(unsafe_code, reason = "the initial stack, the one mutable static, and the functions a C library would bring")]

use core::ffi::{c_char, c_int};
use core::ptr;

use agent_linux::memory::All;
use agent_linux::{Small, arch, sys};

use crate::panic;

/// The agent's memory. Only [`entry`] names it. Its section lets `nanoga.ld` tell it from small things.
#[unsafe(link_section = ".bss.pages")]
static mut MEMORY: All = All::ZERO;

/// What is small; as above.
#[unsafe(link_section = ".bss.small")]
static mut SMALL: Small = Small::NONE;

agent_linux::start!(entry);

/// Called once, by `_start`, with the initial stack: argc, argv, NULL, envp, NULL.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel put argc here.
    let count = unsafe { *stack };
    let arguments = stack.wrapping_add(1).cast::<*const c_char>();
    let environment = arguments.wrapping_add(count).wrapping_add(1);
    // SAFETY: both arrays end in NULL and stay on the stack for as long as the process lives. The agent never writes
    // to them.
    let (arguments, environment) = unsafe { (sys::Strings::new(arguments), sys::Strings::new(environment)) };
    panic::prepare(arguments, environment);
    let (memory, small) = (&raw mut MEMORY, &raw mut SMALL);
    // SAFETY: nobody else names the two, and this function runs once.
    let (memory, small) = unsafe { (&mut *memory, &mut *small) };
    sys::exit(agent_linux::run(arguments, environment, memory, small))
}

/// `memcpy(3)`, first byte first. The accesses are volatile, or the compiler would make a call of memcpy out of them.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if count > ONE_BY_ONE {
        // SAFETY: by the contract of memcpy, which is stricter.
        unsafe { arch::copy_up(to, from, count) };
        return to;
    }
    let mut at = 0_usize;
    while at < count {
        // SAFETY: by the contract of memcpy both are good up to `count`.
        unsafe { ptr::write_volatile(to.wrapping_add(at), ptr::read_volatile(from.wrapping_add(at))) };
        at = at.wrapping_add(1);
    }
    to
}

/// Bytes that are copied one by one, as `rep movsb` takes longer to start.
const ONE_BY_ONE: usize = 16;

/// `memmove(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: by the contract of memmove. Wrapping, the distance is below `count` only if `to` lies inside `from`.
    unsafe {
        if to.addr().wrapping_sub(from.addr()) >= count {
            memcpy(to, from, count)
        } else {
            arch::copy_down(to, from, count);
            to
        }
    }
}

/// `memset(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, count: usize) -> *mut u8 {
    let [byte, ..] = byte.to_le_bytes();
    // SAFETY: by the contract of memset.
    unsafe { arch::fill(to, byte, count) };
    to
}

/// `memcmp(3)`. The reads are volatile, or the compiler would make a call of memcmp out of them.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> c_int {
    let mut at = 0_usize;
    while at < count {
        // SAFETY: by the contract of memcmp both are readable up to `count`.
        let (a, b) = unsafe { (ptr::read_volatile(left.wrapping_add(at)), ptr::read_volatile(right.wrapping_add(at))) };
        if a != b {
            return c_int::from(a).wrapping_sub(c_int::from(b));
        }
        at = at.wrapping_add(1);
    }
    0
}

/// `bcmp(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> c_int {
    // SAFETY: the contract is the same.
    unsafe { memcmp(left, right, count) }
}

/// `strlen(3)`, with volatile reads for the same reason.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0_usize;
    // SAFETY: by the contract of strlen there is a NUL at or after this byte.
    while unsafe { ptr::read_volatile(string.wrapping_add(length)) } != 0 {
        length = length.wrapping_add(1);
    }
    length
}
