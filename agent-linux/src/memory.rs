//! The agent's memory: every large buffer, in `.bss`.
//!
//! No byte of it stands in the file, and a page costs memory only once it was touched.

use core::ptr;

use agent_core::limits;
use rustix::mm::{Advice, madvise};

use crate::guest::network::Buffers;

/// Channels that may be open at once.
pub const CHANNELS: usize = 4;

/// Bytes read from a channel at once.
pub const INPUT: usize = 16 * 1024;

/// Bytes of the configuration file, and one. Beyond: an error at the start. A first process also has the kernel's
/// command line and the words of its program here, and says what is cut.
pub const CONFIG: usize = 8 * 1024;

/// Bytes of a page, as kernels for this processor may have them.
const PAGES: &[usize] = if cfg!(target_arch = "aarch64") { &[4096, 16 * 1024, 64 * 1024] } else { &[4096] };

/// A buffer on pages of its own, so that they can go back to the kernel (`madvise(2)`).
#[repr(C, align(4096))]
pub struct Pages<const SIZE: usize>(pub [u8; SIZE]);

impl<const SIZE: usize> Pages<SIZE> {
    /// Zeros.
    pub const ZERO: Self = Self([0; SIZE]);
}

/// What a channel is lent.
pub struct ChannelMemory {
    /// Bytes as they come in.
    pub input: Pages<INPUT>,
    /// The request.
    pub frame: Pages<{ limits::REQUEST_BYTES }>,
    /// The replies.
    pub replies: Pages<{ limits::REPLY_BYTES }>,
}

impl ChannelMemory {
    /// Zeros.
    pub const ZERO: Self = Self { input: Pages::ZERO, frame: Pages::ZERO, replies: Pages::ZERO };
}

/// All of it. There is one value, made and lent by `start.rs`.
pub struct All {
    /// For the configuration file.
    pub config: Pages<CONFIG>,
    /// For the agent at work.
    pub memory: Memory,
}

impl All {
    /// Zeros.
    pub const ZERO: Self = Self { config: Pages::ZERO, memory: Memory::ZERO };
}

/// What the agent at work is lent.
pub struct Memory {
    /// For the walk over the network interfaces.
    pub network: Buffers,
    /// For the channels.
    pub channels: [ChannelMemory; CHANNELS],
}

impl Memory {
    /// Zeros.
    pub const ZERO: Self = Self { network: Buffers::ZERO, channels: [ChannelMemory::ZERO; CHANNELS] };
}

impl Memory {
    /// Memory that is used later, for what comes before.
    pub fn scratch(&mut self) -> &mut [u8] {
        let [ChannelMemory { input, .. }, ..] = &mut self.channels;
        &mut input.0
    }
}

/// Lets the kernel have the whole pages again that these bytes lie on. They are zero afterwards.
#[allow(unsafe_code, reason = "madvise")]
#[inline(never)]
pub fn give_back(bytes: &mut [u8]) {
    let Some(page) = page() else {
        return;
    };
    let within = page.wrapping_sub(1);
    let skip = bytes.as_ptr().addr().wrapping_neg() & within;
    let Some(bytes) = bytes.get_mut(skip..) else {
        return;
    };
    let whole = bytes.len() & !within;
    // SAFETY: these are whole pages of private memory, and the caller lent them for writing.
    let _ = unsafe { madvise(bytes.as_mut_ptr().cast(), whole, Advice::LinuxDontNeed) };
}

/// Bytes of a page of the kernel that runs: it takes no address between two pages, not even for nothing.
#[allow(unsafe_code, reason = "madvise")]
fn page() -> Option<usize> {
    let (last, smaller) = PAGES.split_last()?;
    // SAFETY: advice for no bytes at all changes nothing.
    let is_page =
        |bytes: usize| unsafe { madvise(ptr::without_provenance_mut(bytes), 0, Advice::LinuxDontNeed).is_ok() };
    smaller.iter().copied().find(|bytes| is_page(*bytes)).or(Some(*last))
}
