//! Base64 (RFC 4648 section 4), as lenient in reading as the reference: a newline counts nowhere, padding may stand
//! anywhere, and characters at the end that are not four are dropped.

/// The characters by their value.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One to three bytes in four characters. Those from the end that stand for no byte are `=`.
#[inline(never)]
pub(crate) fn encode(bytes: &[u8]) -> [u8; 4] {
    let mut word = 0u32;
    for at in 0..3 {
        word = word << 8 | bytes.get(at).map_or(0, |byte| u32::from(*byte));
    }
    let mut characters = [b'='; 4];
    for character in characters.iter_mut().take(bytes.len().wrapping_add(1)) {
        let value = usize::try_from(word >> 18 & 63).unwrap_or(0);
        *character = ALPHABET.get(value).copied().unwrap_or(b'=');
        word <<= 6;
    }
    characters
}

/// The bytes that a text of the host stands for, as they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'t> {
    rest: &'t [u8],
}

impl<'t> Decoder<'t> {
    /// The bytes of this text; nothing if it has a character that is none of base64.
    pub fn new(text: &'t [u8]) -> Option<Self> {
        let valid = |byte: &u8| *byte == b'\n' || value(*byte).is_some();
        text.iter().all(valid).then_some(Decoder { rest: text })
    }

    /// Bytes that are still to come.
    pub fn len(mut self) -> usize {
        let mut len = 0usize;
        while let Some((_, count)) = self.group() {
            len = len.wrapping_add(count);
        }
        len
    }

    /// Is there no more byte?
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The next bytes, as many as there is room for but for two at most. How many there are: none at the end.
    #[inline(never)]
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut len = 0usize;
        while let Some(places) = buffer.get_mut(len..).and_then(<[u8]>::first_chunk_mut)
            && let Some((bytes, count)) = self.group()
        {
            *places = bytes;
            len = len.wrapping_add(count);
        }
        len
    }

    /// The bytes of the next four characters, and how many they are.
    #[inline(never)]
    fn group(&mut self) -> Option<([u8; 3], usize)> {
        let (mut word, mut count) = (0u32, 0u32);
        let mut fourth = 0;
        while let [byte, rest @ ..] = self.rest {
            self.rest = rest;
            let Some(value) = value(*byte) else {
                continue;
            };
            word = word << 6 | value;
            let third = fourth;
            fourth = *byte;
            count = count.wrapping_add(1);
            if count == 4 {
                let [_, a, b, c] = word.to_be_bytes();
                return Some(match (third == b'=', fourth == b'=') {
                    (false, false) => ([a, b, c], 3),
                    (false, true) => ([a, b, 0], 2),
                    (true, false) => ([a, c, 0], 2),
                    (true, true) => ([a, 0, 0], 1),
                });
            }
        }
        None
    }
}

/// What a character stands for.
fn value(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character.wrapping_sub(b'A'),
        b'a'..=b'z' => character.wrapping_sub(b'a').wrapping_add(26),
        b'0'..=b'9' => character.wrapping_sub(b'0').wrapping_add(52),
        b'+' => 62,
        b'/' => 63,
        b'=' => 0,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use std::vec::Vec;
    use std::{string::String, vec};

    fn decode(text: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(text)?;
        let announced = decoder.len();
        let (mut all, mut buffer) = (Vec::new(), vec![0xAA; room]);
        loop {
            match decoder.read(&mut buffer) {
                0 => break,
                count => all.extend(&buffer[..count]),
            }
        }
        assert_eq!(all.len(), announced);
        Some(all)
    }

    /// What the reference made of these (QEMU 7.2.22, guest-file-write).
    #[test]
    fn what_is_not_quite_base64_is_read_as_the_reference_reads_it() {
        for (text, want) in [
            ("", &b""[..]),
            ("QUJD", b"ABC"),
            ("SGVsbG8", b"Hel"),
            ("QQ==QQ==", b"AA"),
            ("====", b"\0"),
            ("A===", b"\0"),
            ("Q=QQ", b"\x40\x04\x10"),
            ("QQ=Q", b"\x41\x10"),
            ("QQ\nFB", b"A\x01\x41"),
            ("QUJDRA==\n\n", b"ABCD"),
            ("QQ", b""),
            ("Q", b""),
            ("\n", b""),
            ("QUJDR===QUJD", b"ABC\x44ABC"),
        ] {
            assert_eq!(decode(text.as_bytes(), 8).as_deref(), Some(want), "{text}");
        }
        for text in ["!!", "QUJD REQ=", "QUJD\r\n", "QUJD-_", "\u{E9}", "QUJD\0"] {
            assert_eq!(decode(text.as_bytes(), 8), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree_with_the_base64_crate(bytes: Vec<u8>, room in 3usize..40) {
            let text = BASE64_STANDARD.encode(&bytes);
            let ours: Vec<u8> = bytes.chunks(3).flat_map(encode).collect();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), text.clone());
            prop_assert_eq!(decode(text.as_bytes(), room), Some(bytes));
        }

        #[test]
        fn where_the_crate_reads_a_text_so_do_we_and_newlines_are_not_there(
            text in "[A-Za-z0-9+/]{0,40}={0,2}", newlines in proptest::collection::vec(0usize..40, 0..5), room in 3usize..40,
        ) {
            let mut broken = text.clone();
            for at in newlines {
                if at <= broken.len() {
                    broken.insert(at, '\n');
                }
            }
            let lenient = base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
            let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
            if let Ok(bytes) = engine.decode(&text) {
                prop_assert_eq!(decode(broken.as_bytes(), room), Some(bytes));
            }
        }

        #[test]
        fn a_text_is_refused_exactly_for_a_character_of_another_kind(text: Vec<u8>) {
            let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\n".contains(byte);
            prop_assert_eq!(decode(&text, 9).is_some(), text.iter().all(known));
        }
    }
}
