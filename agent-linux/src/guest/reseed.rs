//! New seeds for the kernel's random numbers, so that two guests that were restored from one snapshot draw different
//! ones.
//!
//! The kernel does it by itself where the machine has a generation id (from Linux 5.18 on, on x86; 6.10 elsewhere). For
//! all others there is this: where a host may be back after a restore, and where the kernel tells of a new id.

use agent_core::packed;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, Result, read};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::LinuxGuest;
use crate::log::{say, why};
use crate::options::Name;
use crate::sys::random::{self, Entropy};
use crate::sys::{self, read_file};

/// What epoll says of the kernel's events.
pub const EVENTS: u64 = u64::MAX - 1;

/// Bytes of an event that are looked at. Beyond stands nothing that matters.
const EVENT: usize = 1024;

/// The variable by which the kernel tells of a new generation id: `NEW_VMGENID=1`. Linux 6.8 did so, and those that
/// machine monitors build for their guests do.
const NEW_ID: &[u8] = b"VMGENID=1";

/// What the kernel says of devices: `kobject_uevent`, the group of what comes from the kernel itself.
#[inline(never)]
pub fn kernel_events() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let events = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(KOBJECT_UEVENT))?;
    bind(&events, &SocketAddrNetlink::new(0, 1))?;
    Ok(events)
}

impl LinuxGuest {
    /// Has the kernel's events watched (`kobject_uevent`), if that is wanted.
    pub fn watch_generation(&mut self, epoll: &OwnedFd) -> Result<()> {
        if !self.options.is_on(Name::Reseed) {
            return Ok(());
        }
        let events = kernel_events()?;
        epoll::add(epoll, &events, EventData::new_u64(EVENTS), EventFlags::IN)?;
        self.events = Some(events);
        Ok(())
    }

    /// An event of the kernel is there. Where some were lost, one may have been of a new generation id. Not inlined:
    /// its buffer would lie under all that the loop calls.
    #[inline(never)]
    pub fn take_event(&mut self) {
        let mut event = [0; EVENT];
        let Some(events) = &self.events else {
            return;
        };
        let is_new = match read(events, event.as_mut_slice()) {
            Ok(_) => event.windows(NEW_ID.len()).any(|part| part == NEW_ID),
            Err(error) => error == Errno::NOBUFS,
        };
        if is_new {
            self.reseed();
        }
    }

    /// Reseeds, if that is wanted: at once from what the kernel has, which is the processor's random numbers or at
    /// least its clock; and again as soon as the machine's source has been read, which may take as long as the host
    /// likes.
    #[inline(never)]
    pub fn reseed(&mut self) {
        if !self.options.is_on(Name::Reseed) {
            return;
        }
        // Before the first seed, at boot, there is nothing that a snapshot could hold.
        if let Err(error) = draw(None)
            && error != Errno::NODATA
        {
            say(packed!("cannot reseed: !"), &[why(sys::errno(error))]);
        }
        self.start_worker(&mut || {
            let mut entropy = Entropy::zeros();
            // Drivers keep up to 64 bytes ready, and the kernel as many: those are older than a snapshot, and every
            // guest that is restored from it has the same. What comes behind them is new.
            if read_file(c"/dev/hwrng", &mut entropy.bytes) == entropy.bytes.len() {
                entropy.bits = 256;
                let _ = draw(Some(&entropy));
            }
            0
        });
    }
}

#[inline(never)]
fn draw(entropy: Option<&Entropy>) -> Result<()> {
    let random = sys::open(CWD, c"/dev/urandom", OFlags::RDONLY)?;
    if let Some(entropy) = entropy {
        random::add(&random, entropy)?;
    }
    random::reseed(&random)
}
