//! What stands for `init.rs` in an agent that is built without it. Nothing of it is in the file.

use agent_core::guest::ShutdownMode;
use heapless::Vec;
use rustix::fd::BorrowedFd;

use crate::options::Options;
use crate::sys::{SignalSet, Strings};

/// There is none.
pub enum Init {}

/// Never.
pub fn is_first() -> bool {
    false
}

/// Nothing is done.
pub fn bring_up(
    _: Strings<'static>,
    _: Strings<'static>,
    _: &'static mut [u8],
    _: &mut [u8],
    _: &mut Options,
    _: &mut Vec<Init, 1>,
) {
}

/// Nothing.
pub fn pause() {}

#[expect(missing_docs, reason = "as in init.rs")]
impl Init {
    pub fn signals() -> SignalSet {
        SignalSet::EMPTY
    }

    pub fn signal(&mut self, _: u32) {
        match *self {}
    }

    pub fn ended(&mut self, _: usize, _: u32) {
        match *self {}
    }

    pub fn devices(&self) -> Option<BorrowedFd<'_>> {
        match *self {}
    }

    pub fn announced(&self) {
        match *self {}
    }

    pub fn begin_end(&mut self, _: ShutdownMode) {
        match *self {}
    }

    pub fn is_ending(&self) -> bool {
        match *self {}
    }

    pub fn end(&self) -> ! {
        match *self {}
    }

    pub fn tick(&mut self) -> u64 {
        match *self {}
    }
}
