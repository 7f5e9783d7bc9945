//! The kernel's random numbers, as an administrator changes them: `random(4)`.

use linux_raw_sys::general as kernel;
use rustix::fd::AsRawFd;
use rustix::io::Result;

use super::{done, raw};
use crate::arch::syscall3;

// linux/random.h
const RNDADDENTROPY: usize = 0x4008_5203;
const RNDRESEEDCRNG: usize = 0x5207;

/// Bytes for the kernel's pool: `struct rand_pool_info`.
#[repr(C)]
pub struct Entropy {
    /// Bits in them that nobody else can know.
    pub bits: i32,
    len: i32,
    /// The bytes.
    pub bytes: [u8; 256],
}

impl Entropy {
    /// Zeros, of which everybody knows. No constant, which would stand in the file.
    pub fn zeros() -> Self {
        Entropy { bits: 0, len: 256, bytes: [0; 256] }
    }
}

/// Adds these to the pool.
pub fn add(random: &impl AsRawFd, entropy: &Entropy) -> Result<()> {
    let entropy = (&raw const *entropy).expose_provenance();
    // SAFETY: the structure is readable for the call, and holds as many bytes as it says.
    done(unsafe { syscall3(kernel::__NR_ioctl, raw(random), RNDADDENTROPY, entropy) })
}

/// Draws a new seed from the pool, from the processor and from its clock, for all that is drawn from now on.
/// Kernels before 4.17 cannot be told to; one that has never been seeded says ENODATA.
pub fn reseed(random: &impl AsRawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { syscall3(kernel::__NR_ioctl, raw(random), RNDRESEEDCRNG, 0) })
}
