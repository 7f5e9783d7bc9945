//! The seam: everything the agent may ever do to the guest it runs in.
//!
//! Small traits by domain, implemented by `agent-linux` for the real thing and by a fake for tests and fuzzers.
//! A method stands here when it has both, and a command that uses it. This file knows no protocol and no Linux
//! beyond the number of an error.

use core::ffi::CStr;
use core::net::IpAddr;
use core::task::Poll;

/// An error number of the kernel, positive, as in `errno(3)`. Its English stands in `error.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

/// Something the guest does while the agent goes on serving: a helper program, a blocking call in a worker.
///
/// The number is the guest's own and is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job(pub u32);

/// A guest: one value that implements every domain.
pub trait Guest: Power + Network {
    /// Nobody waits for this job any more (its host has gone). It runs to its end; its result is dropped.
    fn abandon(&mut self, job: Job);
}

/// The ways of `guest-suspend-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspend {
    /// Memory is written to swap and the machine powered off ("hibernate", S4).
    Disk,
    /// Memory stays powered, everything else sleeps ("suspend", S3).
    Ram,
    /// Memory is written to swap, then the machine sleeps as for [`Suspend::Ram`].
    Hybrid,
}

/// Why the guest did not sleep, or could not be woken properly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendError {
    /// The kernel, its configuration or the machine cannot sleep this way, and be woken again.
    Unsupported,
    /// It is being put to sleep already, or just waking up.
    Busy,
    /// Writing this file failed.
    Write(&'static CStr, Errno),
    /// This helper program ended with this exit status (128 + N when signal N killed it).
    Helper(&'static CStr, u8),
    /// The job itself could not be started or was killed.
    Job(Errno),
}

/// Sleep.
pub trait Power {
    /// Starts to put the guest to sleep, in a job of its own.
    fn suspend(&mut self, mode: Suspend) -> Result<Job, SuspendError>;

    /// How that job ended, once it has: `Ok` after the guest slept and woke up again. Ready at most once.
    fn suspended(&mut self, job: Job) -> Poll<Result<(), SuspendError>>;
}

/// A network interface, or an alias of one (`eth0:1`, a label of IPv4 addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The name: at most 15 bytes, any but `/`, blanks and NUL.
    pub name: &'a [u8],
    /// What SIOCGIFHWADDR would say: the first six bytes of the address, padded with zeros; the loopback has zeros.
    pub hardware_address: [u8; 6],
    /// Counters since the interface was made. An alias has none.
    pub statistics: Option<Statistics>,
}

/// 64-bit counters of an interface (`struct rtnl_link_stats64`, linux/if_link.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bad packets received.
    pub rx_errs: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errs: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
}

/// An address of the link before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The local address (of a point-to-point link too, where the peer's is another one).
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

/// One step of a walk over the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The configuration changed under the walk: forget everything so far, it starts anew.
    Restart,
    /// The next interface. Its addresses follow.
    Link(Link<'a>),
    /// An address of the interface named last.
    Address(Address),
}

/// Network interfaces.
pub trait Network {
    /// Walks over all interfaces and their addresses.
    ///
    /// After an error the events so far are worth nothing.
    fn interfaces(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Errno>;
}
