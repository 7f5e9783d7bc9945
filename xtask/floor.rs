//! The floor that `cargo xtask bench` measures against: it counts newlines and answers each with the same reply.
//!
//! No agent for this protocol can do less. It is no part of any package: the benchmark compiles it with rustc alone.
//! `floor SOCKET` serves one client after the other. As the first process of a guest it says that it runs, and becomes
//! `/first`. Linux on x86-64.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};

const REPLY: &[u8; 15] = b"{\"return\": {}}\n";
/// What the first process says on its console.
const SAID: &[u8] = b"floor: first process\n";
/// Replies that are sent at once.
const MANY: usize = 4096;
static REPLIES: [[u8; REPLY.len()]; MANY] = [*REPLY; MANY];

const INPUT: usize = 64 * 1024;
static mut BUFFER: [u8; INPUT] = [0; INPUT];

global_asm!(
    ".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {entry}", "hlt", entry = sym entry
);

unsafe extern "C" fn entry(stack: *const *const c_char) -> ! {
    if call(GETPID, 0, 0, 0) == 1 {
        call(WRITE, 1, SAID.as_ptr().addr(), SAID.len());
        // SAFETY: the kernel puts argc, the arguments, NULL, the environment and NULL here.
        let environment = unsafe { stack.add(2 + stack.read().addr()) };
        call(EXECVE, c"/first".as_ptr().addr(), stack.addr() + 8, environment.addr());
    }
    // SAFETY: the kernel puts argc, the arguments and NULL here, and the caller gave one argument.
    let path = unsafe { CStr::from_ptr(*stack.add(2)) }.to_bytes();
    // struct sockaddr_un
    let mut address = [0; 110];
    address[0] = 1;
    for (to, from) in address[2..].iter_mut().zip(path) {
        *to = *from;
    }
    let listener = call(SOCKET, 1, 1, 0);
    call(BIND, listener, address.as_ptr().addr(), 2 + path.len() + 1);
    call(LISTEN, listener, 1, 0);
    loop {
        let client = call(ACCEPT, listener, 0, 0);
        serve(client);
        call(CLOSE, client, 0, 0);
    }
}

fn serve(client: usize) {
    let buffer = &raw mut BUFFER;
    loop {
        let length = call(READ, client, buffer.addr(), INPUT);
        if length == 0 || length > INPUT {
            return;
        }
        // SAFETY: there is one thread, and the kernel has written so many bytes.
        let input = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), length) };
        let mut lines = input.iter().filter(|byte| **byte == b'\n').count();
        while lines > 0 {
            let batch = lines.min(MANY);
            let mut left = &REPLIES.as_flattened()[..batch * REPLY.len()];
            while !left.is_empty() {
                let sent = call(WRITE, client, left.as_ptr().addr(), left.len());
                let Some(rest) = left.get(sent..) else {
                    return;
                };
                left = rest;
            }
            lines -= batch;
        }
    }
}

const READ: usize = 0;
const WRITE: usize = 1;
const CLOSE: usize = 3;
const GETPID: usize = 39;
const SOCKET: usize = 41;
const ACCEPT: usize = 43;
const BIND: usize = 49;
const LISTEN: usize = 50;
const EXECVE: usize = 59;

/// An error is a number that is larger than any length.
fn call(number: usize, a: usize, b: usize, c: usize) -> usize {
    let result;
    // SAFETY: these calls touch nothing but the memory that they are given.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
            lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// `memset(3)` for the address on the stack, should the compiler want it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: by the contract of memset.
    unsafe { asm!("rep stosb", inout("rdi") to => _, inout("rcx") count => _, in("al") byte as u8) };
    to
}

/// `strlen(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: by the contract of strlen. Volatile, or the compiler would call strlen here.
    while unsafe { string.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
