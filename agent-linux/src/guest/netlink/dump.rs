//! Dumps of rtnetlink: what the kernel has of a kind, asked for and read message by message (`netlink(7)`).
//!
//! It knows which messages belong to a dump, how one ends and whether it holds together, and nothing about what stands in
//! them.

use agent_core::guest::Errno;
use linux_raw_sys::errno;
use rustix::fd::OwnedFd;
use rustix::io::write;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::{HEADER, Malformed, Message, Messages, aligned, u32_at};
use crate::sys;

/// Bytes of a receive buffer. The kernel's datagrams are never larger where nobody asks for more than links and
/// addresses (`NLMSG_GOODSIZE`); a larger one would be refused with EMSGSIZE, not cut.
pub const BUFFER: usize = 8192;

/// `NLM_F_REQUEST | NLM_F_DUMP`.
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// The configuration changed during the dump.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `RTM_GETLINK`: links.
const RTM_GETLINK: u16 = 18;
/// `RTM_GETADDR`: addresses.
const RTM_GETADDR: u16 = 22;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

/// One dump after another of the same kind, on a socket of its own.
pub struct Dump<'b> {
    buffer: &'b mut [u8; BUFFER],
    /// Opened for the first request.
    socket: Option<OwnedFd>,
    /// `AF_*` of addresses, or 0 for links. The kernel ignores one that it does not know.
    pub family: u8,
    /// Whether more is to come.
    running: bool,
    /// Whether one was inconsistent: the configuration changed while it ran.
    interrupted: bool,
    /// What went wrong last: an errno, or 0.
    error: u32,
    /// Where the bytes of `buffer` begin that were not yet taken, where those after the next message, where all end.
    at: usize,
    after: usize,
    end: usize,
}

impl<'b> Dump<'b> {
    /// Nothing yet.
    pub fn new(buffer: &'b mut [u8; BUFFER], family: u8) -> Self {
        Self { buffer, socket: None, family, running: false, interrupted: false, error: 0, at: 0, after: 0, end: 0 }
    }

    /// Starts a dump, for one interface or for all (0). What is left of the one before must have been read.
    ///
    /// Kernels before 4.20 dump all interfaces for one.
    #[inline(never)]
    pub fn request(&mut self, index: u32) {
        self.running = true;
        if let Err(error) = self.send(index) {
            self.fail(u32::from(sys::errno(error).0));
        }
    }

    /// `RTM_GET*`.
    fn kind(&self) -> u16 {
        if self.family == 0 { RTM_GETLINK } else { RTM_GETADDR }
    }

    fn send(&mut self, index: u32) -> rustix::io::Result<()> {
        let words = self.words(index);
        let socket = match &mut self.socket {
            Some(socket) => socket,
            // No protocol: NETLINK_ROUTE is number 0.
            none => none.insert(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?),
        };
        if index != 0 {
            sys::netlink_strict(&*socket);
        }
        write(&*socket, words.as_flattened()).map(drop)
    }

    /// The request, in words of the machine: `struct nlmsghdr`, then `struct ifinfomsg` or `struct ifaddrmsg`, which
    /// both have the family at 0 and the index at 4. What follows the message is not read.
    fn words(&self, index: u32) -> [[u8; 4]; 8] {
        // struct ifaddrmsg is shorter, and the kernel minds.
        let length: u32 = if self.family == 0 { 32 } else { 24 };
        let [k0, k1] = self.kind().to_ne_bytes();
        let [f0, f1] = NLM_F_REQUEST_DUMP.to_ne_bytes();
        [
            length.to_ne_bytes(),
            [k0, k1, f0, f1],
            [0; 4],
            [0; 4],
            [self.family, 0, 0, 0],
            index.to_ne_bytes(),
            [0; 4],
            [0; 4],
        ]
    }

    /// The body of the next message, until there is none: then [`result`](Self::result) says why. It stays the next
    /// one until it is taken.
    #[inline(never)]
    pub fn peek(&mut self) -> Option<&[u8]> {
        while self.running {
            let received = self.buffer.get(self.at..self.end).unwrap_or_default();
            let error = match Messages::new(received).next() {
                None => self.receive(),
                Some(Err(Malformed)) => errno::EBADMSG,
                Some(Ok(Message { kind, flags, body })) => {
                    let start = self.at.wrapping_add(HEADER);
                    let end = start.wrapping_add(body.len());
                    self.after = aligned(end);
                    self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
                    match kind {
                        // RTM_NEW* stands two before RTM_GET*.
                        _ if kind == self.kind().wrapping_sub(2) => return self.buffer.get(start..end),
                        NLMSG_DONE | NLMSG_ERROR => {
                            self.running = false;
                            self.after = self.end;
                            reason(body)
                        }
                        NLMSG_OVERRUN => errno::ENOBUFS,
                        _ => 0,
                    }
                }
            };
            self.take();
            match error {
                0 => {}
                // The link that was asked for has gone.
                errno::ENODEV => self.interrupted = true,
                error => self.fail(error),
            }
        }
        None
    }

    /// Takes the message that [`peek`](Self::peek) showed.
    pub fn take(&mut self) {
        self.at = self.after;
    }

    /// Whether all was read, and all of it at one state of the configuration.
    pub fn result(&self) -> Result<bool, Errno> {
        match self.error {
            0 => Ok(!self.running && !self.interrupted),
            error => Err(sys::errno_of(error)),
        }
    }

    /// The next datagram, or why there is none. The kernel has it ready before the last one is out of its hands: there
    /// is nothing to wait for.
    #[inline(never)]
    fn receive(&mut self) -> u32 {
        let Some(socket) = &self.socket else { return errno::EBADF };
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        (self.after, self.end) = (0, 0);
        match recv(socket, self.buffer.as_mut_slice(), flags) {
            Ok((_, 0)) => errno::EBADMSG,
            Ok((_, length @ ..=BUFFER)) => {
                self.end = length;
                0
            }
            Ok(_) => errno::EMSGSIZE,
            Err(error) => u32::from(sys::errno(error).0),
        }
    }

    #[inline(never)]
    fn fail(&mut self, error: u32) {
        self.running = false;
        self.error = error;
    }
}

/// What NLMSG_DONE and NLMSG_ERROR say first: a negated errno, or 0. Old kernels' NLMSG_DONE says nothing.
fn reason(body: &[u8]) -> u32 {
    match u32_at(body, 0).unwrap_or(0).wrapping_neg() {
        error @ ..4096 => error,
        _ => errno::EBADMSG,
    }
}

#[cfg(test)]
pub(in crate::guest) mod tests {
    use std::vec::Vec;

    use rustix::net::{SendFlags, send, socketpair};

    use super::*;

    /// A message as the kernel lays it out.
    pub(in crate::guest) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = Vec::from(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A dump that will receive these datagrams. Requests go to the descriptor, which must live as long.
    pub(in crate::guest) fn fake<'b>(
        buffer: &'b mut [u8; BUFFER],
        family: u8,
        datagrams: &[Vec<u8>],
    ) -> (Dump<'b>, OwnedFd) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        for datagram in datagrams {
            send(&theirs, datagram, SendFlags::empty()).unwrap();
        }
        let mut dump = Dump::new(buffer, family);
        dump.socket = Some(ours);
        (dump, theirs)
    }

    /// What a dump of links makes of these datagrams: bodies, and its result.
    fn dump(datagrams: &[Vec<u8>]) -> (Vec<Vec<u8>>, Result<bool, Errno>) {
        let mut buffer = [0; BUFFER];
        let (mut dump, _theirs) = fake(&mut buffer, 0, datagrams);
        dump.request(0);
        let mut bodies = Vec::new();
        while let Some(body) = dump.peek() {
            bodies.push(Vec::from(body));
            dump.take();
        }
        (bodies, dump.result())
    }

    #[test]
    fn a_dump_is_the_messages_of_its_type_up_to_the_end() {
        let mut first = message(16, 2, b"one");
        first.extend(message(1, 0, b"noop"));
        first.extend(message(20, 2, b"an address"));
        first.extend(message(16, 2, b"three"));
        let mut second = message(16, 2, b"four");
        second.extend(message(NLMSG_DONE, 2, &[0; 4]));
        second.extend(message(16, 2, b"never seen"));
        let (bodies, result) = dump(&[first, second]);
        assert_eq!(bodies, [b"one".as_slice(), b"three", b"four"]);
        assert_eq!(result, Ok(true));
    }

    #[test]
    fn an_inconsistent_dump_is_not_complete() {
        let done = message(NLMSG_DONE, 2, &[0; 4]);
        assert_eq!(dump(&[message(16, 0x12, b""), done.clone()]).1, Ok(false));
        assert_eq!(dump(&[message(16, 2, b""), message(NLMSG_DONE, 0x12, &[0; 4])]).1, Ok(false));
        assert_eq!(dump(&[message(16, 2, b""), done]).1, Ok(true));
        let gone = message(NLMSG_ERROR, 0, &(-19_i32).to_ne_bytes());
        assert_eq!(dump(&[gone]).1, Ok(false), "ENODEV: the link that was asked for has gone");
    }

    #[test]
    fn what_goes_wrong_ends_a_dump() {
        let one = message(16, 2, b"one");
        for (datagram, error) in [
            (message(NLMSG_DONE, 2, &(-5_i32).to_ne_bytes()), errno::EIO),
            (message(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes()), errno::EPERM),
            (message(NLMSG_OVERRUN, 0, &[]), errno::ENOBUFS),
            (Vec::from([1; 15]), errno::EBADMSG),
            (Vec::new(), errno::EBADMSG),
            (std::vec![0; BUFFER + 1], errno::EMSGSIZE),
        ] {
            let (bodies, result) = dump(&[one.clone(), datagram]);
            assert_eq!((bodies, result), (Vec::from([b"one".to_vec()]), Err(sys::errno_of(error))));
        }
        assert_eq!(dump(&[one]).1, Err(sys::errno_of(errno::EAGAIN)), "no end, and nothing to wait for");
    }

    #[test]
    fn an_end_and_an_error_say_how_it_went() {
        assert_eq!(reason(&[]), 0);
        assert_eq!(reason(&0_i32.to_ne_bytes()), 0);
        assert_eq!(reason(&(-19_i32).to_ne_bytes()), errno::ENODEV);
        assert_eq!(reason(&19_i32.to_ne_bytes()), errno::EBADMSG);
        assert_eq!(reason(&i32::MIN.to_ne_bytes()), errno::EBADMSG);
    }

    #[test]
    fn a_request_has_the_kernels_form() {
        let mut buffer = [0; BUFFER];
        assert_eq!(
            Dump::new(&mut buffer, 10).words(0x0102_0304).as_flattened()[..24],
            [24, 0, 0, 0, 22, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 4, 3, 2, 1]
        );
        assert_eq!(Dump::new(&mut buffer, 0).words(0).as_flattened()[..8], [32, 0, 0, 0, 18, 0, 1, 3]);
    }

    #[test]
    fn a_dump_ends_once_and_stays_at_its_end() {
        let mut buffer = [0; BUFFER];
        let mut dump = Dump::new(&mut buffer, 0);
        assert_eq!(dump.peek(), None, "nothing was asked for");
        dump.request(0);
        assert_eq!(dump.result(), Ok(false));
        let mut links = 0;
        while let Some(message) = dump.peek() {
            let shown = message.as_ptr();
            assert_eq!(dump.peek().unwrap().as_ptr(), shown, "until it is taken");
            dump.take();
            links += 1;
        }
        assert!(links >= 1, "there is always lo");
        assert_eq!(dump.peek(), None);
        assert_eq!(dump.result(), Ok(true));
        let mut dump = Dump::new(&mut buffer, 2);
        dump.request(0x7fff_ffff);
        assert_eq!(dump.peek(), None);
        assert_eq!(dump.result(), Ok(false), "no such link");
    }
}
