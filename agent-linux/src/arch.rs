//! What differs between architectures: the first instruction, the system call, copying and filling of memory.
//!
//! One file an architecture, with the same items. Porting the agent means writing one more.

#![allow(unsafe_code, reason = "assembly")]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::*;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;
