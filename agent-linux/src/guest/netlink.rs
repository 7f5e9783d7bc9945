//! The wire of rtnetlink: messages and their attributes (`netlink(7)`, `rtnetlink(7)`, linux/netlink.h). Those of a whole
//! dump are read in `netlink/dump.rs`.
//!
//! It knows lengths and alignment, and nothing about what a message means. What the kernel sends is trusted no more
//! than any other bytes: the readers are total, they never look outside a datagram and always come to its end.

pub mod dump;

/// A message of a datagram (`struct nlmsghdr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// What follows the header, without padding.
    pub body: &'a [u8],
}

/// The messages of a datagram, in order. A malformed one is an error, and nothing comes after it.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// A length that no message can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Messages<'a> {
    /// The messages of this datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = take_message(&mut self.rest);
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Header: length u32 (header included), type u16, flags u16, sequence u32, port u32. The next one is aligned to 4.
fn take_message<'a>(rest: &mut &'a [u8]) -> Option<Message<'a>> {
    let &[l0, l1, l2, l3, k0, k1, f0, f1, ..] = rest.first_chunk::<HEADER>()?;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = rest.get(HEADER..length)?;
    *rest = after(rest, length);
    Some(Message { kind: u16::from_ne_bytes([k0, k1]), flags: u16::from_ne_bytes([f0, f1]), body })
}

/// The attributes of a message (`struct rtattr`): type without flags, and value. A malformed one ends them.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    /// Header: length u16 (header included), type u16. The next one is aligned to 4.
    fn next(&mut self) -> Option<Self::Item> {
        let &[l0, l1, k0, k1] = self.rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.rest.get(4..length)?;
        self.rest = after(self.rest, length);
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    }
}

/// The value of the attribute of this type: empty if there is none; of several, the last one.
#[inline(never)]
pub fn pick(attributes: &[u8], kind: u16) -> &[u8] {
    let mut picked = [].as_slice();
    for (of_kind, value) in Attributes::new(attributes) {
        if of_kind == kind {
            picked = value;
        }
    }
    picked
}

/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` (linux/netlink.h).
const NLA_TYPE_MASK: u16 = 0x3fff;

/// What follows the first `length` bytes, at least 1, and their padding.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(aligned(length)..).unwrap_or(&[])
}

/// The next multiple of 4: `NLMSG_ALIGN`, `RTA_ALIGN`.
fn aligned(length: usize) -> usize {
    length.wrapping_add(3) & !3
}

/// The `u32` at an offset, in the byte order of the machine, aligned or not.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The `u64` at an offset.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Two messages as the kernel lays them out: a body of 5 bytes, padded to 8, then an end without error.
    const TWO: [u8; 44] = [
        21, 0, 0, 0, 16, 0, 2, 0, 1, 0, 0, 0, 9, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0, 0, 0, //
        20, 0, 0, 0, 3, 0, 0x12, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
    ];

    type Read<'a> = Result<(u16, u16, &'a [u8]), Malformed>;

    fn read(datagram: &[u8]) -> Vec<Read<'_>> {
        Messages::new(datagram).map(|message| message.map(|m| (m.kind, m.flags, m.body))).collect()
    }

    #[test]
    fn messages_are_padded_to_four_bytes() {
        assert_eq!(read(&TWO), [Ok((16, 2, b"hello".as_slice())), Ok((3, 0x12, [0; 4].as_slice()))]);
    }

    #[test]
    fn the_last_message_may_lack_its_padding() {
        assert_eq!(read(&TWO[..21]), [Ok((16, 2, b"hello".as_slice()))]);
    }

    #[test]
    fn an_impossible_length_ends_the_datagram() {
        for length in [0, 1, 15, 45, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff_u32] {
            let mut bytes = TWO;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read(&bytes), [Err(Malformed)], "{length}");
        }
    }

    #[test]
    fn a_cut_message_is_malformed_at_every_length() {
        assert_eq!(read(&[]), []);
        for length in 1..21 {
            assert_eq!(read(&TWO[..length]), [Err(Malformed)], "{length}");
        }
        for length in 25..44 {
            assert_eq!(read(&TWO[..length])[1], Err(Malformed), "{length}");
        }
    }

    #[test]
    fn attributes_lose_their_flags_and_padding() {
        let bytes = [
            5, 0, 3, 0x80, b'x', 0, 0, 0, // nested
            4, 0, 2, 0x40, // empty, in network byte order
            8, 0, 1, 0, 1, 2, 3, 4,
        ];
        let found: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!(found, [(3, b"x".as_slice()), (2, &[]), (1, &[1, 2, 3, 4])]);
    }

    #[test]
    fn attributes_are_picked_by_type() {
        let bytes = [5, 0, 3, 0, b'x', 0, 0, 0, 6, 0, 1, 0, 1, 2, 0, 0, 5, 0, 9, 0, 9, 0, 0, 0, 5, 0, 3, 0, b'y'];
        assert_eq!([1, 2, 3].map(|kind| pick(&bytes, kind)), [&[1, 2], [].as_slice(), b"y"]);
    }

    #[test]
    fn a_malformed_attribute_ends_them() {
        for bytes in [&[][..], &[0; 8], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[255, 255, 1, 0], &[4, 0, 1]] {
            assert_eq!(Attributes::new(bytes).next(), None, "{bytes:?}");
        }
    }

    #[test]
    fn any_bytes_come_to_an_end() {
        let mut state = 1_u32;
        for _ in 0..20_000 {
            let mut bytes = [0; 64];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                // Small numbers make lengths that are nearly right.
                *byte = if state & 0x300 == 0 { state.to_be_bytes()[0] } else { state.to_be_bytes()[0] & 0x1f };
            }
            for cut in 0..bytes.len() {
                assert!(Messages::new(&bytes[..cut]).count() <= 4);
                assert!(Attributes::new(&bytes[..cut]).count() <= 16);
            }
        }
    }
}
