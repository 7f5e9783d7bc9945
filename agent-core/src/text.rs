//! UTF-8 and the escapes of JSON strings. Knows nothing of requests and replies.
//!
//! NUL is written as the two bytes C0 80 ("modified UTF-8"), as in the reference: so a string never holds a zero
//! byte and can become a path without being cut short.

/// What has to follow the first byte of a UTF-8 sequence (RFC 3629 section 4, and C0 80).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    /// Number of bytes that follow: 1 to 3.
    pub(crate) more: u8,
    /// Lowest value of the next byte.
    pub(crate) low: u8,
    /// Highest value of the next byte.
    pub(crate) high: u8,
}

/// What follows this byte, 0x80 or above; `None` if no sequence begins with it.
pub(crate) const fn lead(byte: u8) -> Option<Lead> {
    let (more, low, high) = match byte {
        0xC0 => (1, 0x80, 0x80),
        0xC2..=0xDF => (1, 0x80, 0xBF),
        0xE0 => (2, 0xA0, 0xBF),
        0xED => (2, 0x80, 0x9F),
        0xE1..=0xEF => (2, 0x80, 0xBF),
        0xF0 => (3, 0x90, 0xBF),
        0xF1..=0xF3 => (3, 0x80, 0xBF),
        0xF4 => (3, 0x80, 0x8F),
        _ => return None,
    };
    Some(Lead { more, low, high })
}

/// The first character of some bytes, and what comes behind it. `None` for a bad sequence, as long as it could
/// have become a good one.
pub(crate) fn first_char(bytes: &[u8]) -> Option<(Option<u32>, &[u8])> {
    let (&byte, mut rest) = bytes.split_first()?;
    if byte < 0x80 {
        return Some((Some(u32::from(byte)), rest));
    }
    let Some(Lead { more, mut low, mut high }) = lead(byte) else {
        return Some((None, rest));
    };
    let mut code = u32::from(byte & (0x3F >> more));
    for _ in 0..more {
        match rest.split_first() {
            Some((&next, behind)) if (low..=high).contains(&next) => {
                code = code << 6 | u32::from(next & 0x3F);
                rest = behind;
            }
            _ => return Some((None, rest)),
        }
        (low, high) = (0x80, 0xBF);
    }
    Some((Some(code), rest))
}

/// How many bytes at the front need no thought in a JSON string: printable ASCII but for `quote` and `\`.
pub(crate) fn plain_run(bytes: &[u8], quote: u8) -> usize {
    // Eight bytes at a time; the highest bit of each byte of `stop` says that this byte is not plain. Borrows can
    // set bits behind the first true one, never before it.
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let spread = |byte: u8| u64::from(byte).wrapping_mul(ONES);
    let (quotes, escapes, blanks) = (spread(quote), spread(b'\\'), spread(b' '));
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, tail) = bytes.as_chunks::<8>();
    let mut run = 0usize;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let stop = (word | word.wrapping_sub(blanks) & !word | zero(word ^ quotes) | zero(word ^ escapes)) & HIGH;
        if stop != 0 {
            return run.saturating_add(usize::from(leading_bytes(stop)));
        }
        run = run.saturating_add(8);
    }
    let plain = |&&byte: &&u8| matches!(byte, b' '..=b'~' | 0x7F) && byte != quote && byte != b'\\';
    run.saturating_add(tail.iter().take_while(plain).count())
}

/// Zero bytes at the low end of a word that is not zero.
fn leading_bytes(word: u64) -> u8 {
    u8::try_from(word.trailing_zeros() / 8).unwrap_or(0)
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a' - 10)),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A' - 10)),
        _ => None,
    }
}

/// Text of a request between two quotes, escapes and all, which the framer found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'f>(pub(crate) &'f [u8]);

impl<'f> Text<'f> {
    /// Does it say this, once its escapes are replaced?
    pub(crate) fn is(self, other: &str) -> bool {
        self.same(Text(other.as_bytes()))
    }

    /// Do both say the same, once their escapes are replaced?
    pub(crate) fn same(self, other: Text<'_>) -> bool {
        self.0 == other.0 || (self.0.contains(&b'\\') || other.0.contains(&b'\\')) && self.bytes().eq(other.bytes())
    }

    /// The text without escapes, in (modified) UTF-8.
    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> + 'f {
        let mut raw = self.0;
        let mut ahead = Encoded::default();
        core::iter::from_fn(move || {
            if let Some(byte) = ahead.next() {
                return Some(byte);
            }
            let (&byte, rest) = raw.split_first()?;
            raw = rest;
            if byte != b'\\' {
                return Some(byte);
            }
            let (&escape, rest) = raw.split_first()?;
            raw = rest;
            Some(match escape {
                b'b' => 0x08,
                b'f' => 0x0C,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    ahead = Encoded::new(code_point(&mut raw));
                    ahead.next()?
                }
                other => other,
            })
        })
    }
}

/// The code point behind `\u`, which may go on with the second half of a surrogate pair.
fn code_point(raw: &mut &[u8]) -> u32 {
    let first = four_digits(raw);
    if first & 0xFC00 != 0xD800 {
        return first;
    }
    *raw = raw.get(2..).unwrap_or_default();
    0x1_0000u32.wrapping_add((first & 0x3FF) << 10 | four_digits(raw) & 0x3FF)
}

/// The value of the next four bytes as hexadecimal digits.
fn four_digits(raw: &mut &[u8]) -> u32 {
    let Some((digits, rest)) = raw.split_at_checked(4) else {
        return 0;
    };
    *raw = rest;
    digits.iter().fold(0, |code, &digit| code << 4 | u32::from(hex(digit).unwrap_or(0)))
}

/// The UTF-8 bytes of one code point, the first in the lowest byte. None of them is zero.
#[derive(Clone, Copy, Default)]
struct Encoded(u32);

impl Encoded {
    fn new(code: u32) -> Self {
        let more = |shift: u32| 0x80 | code >> shift & 0x3F;
        Encoded(match code {
            0 => 0x80C0,
            1..=0x7F => code,
            0x80..=0x7FF => 0xC0 | code >> 6 | more(0) << 8,
            0x800..=0xFFFF => 0xE0 | code >> 12 | more(6) << 8 | more(0) << 16,
            _ => 0xF0 | code >> 18 & 7 | more(12) << 8 | more(6) << 16 | more(0) << 24,
        })
    }

    fn next(&mut self) -> Option<u8> {
        let [byte, ..] = self.0.to_le_bytes();
        self.0 >>= 8;
        (byte != 0).then_some(byte)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn decoded(raw: &str) -> Vec<u8> {
        Text(raw.as_bytes()).bytes().collect()
    }

    #[test]
    fn escapes_become_the_bytes_they_stand_for() {
        for (raw, want) in [
            (r#"a\"\\\/\b\f\n\r\t\'z"#, "a\"\\/\u{8}\u{c}\n\r\t'z"),
            (r"\u0065xecute", "execute"),
            (r"gu\u00E9st", "guést"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\udbff\udfff", "\u{10FFFF}"),
            (r"\uffff", "\u{FFFF}"),
        ] {
            assert_eq!(decoded(raw), want.as_bytes(), "{raw}");
        }
        assert_eq!(decoded(r"a\u0000b"), b"a\xC0\x80b");
    }

    #[test]
    fn texts_are_the_same_however_they_are_written() {
        assert!(Text(br"gu\u0065st").same(Text(br"\u0067uest")));
        assert!(Text(br"\u0000").same(Text(b"\xC0\x80")));
        assert!(!Text(b"guest").same(Text(b"guests")));
        assert!(!Text(br"\u0067").same(Text(b"u0067")));
    }

    #[test]
    fn utf8_is_read_as_the_standard_library_reads_it() {
        for code in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|&c| c != '\0') {
            let mut buffer = [0; 4];
            let bytes = code.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(first_char(bytes), Some((Some(u32::from(code)), &[][..])));
            let mut encoded = Encoded::new(u32::from(code));
            assert!(core::iter::from_fn(|| encoded.next()).eq(bytes.iter().copied()), "{code:?}");
        }
        for three in 0..=0xFF_FFFFu32 {
            let [a, b, c, _] = three.to_le_bytes();
            if a < 0xC2 || (a < 0xE0 && c != 0) {
                continue; // ASCII, C0 80, and every two-byte sequence once
            }
            let bytes = [a, b, c];
            let ours = first_char(&bytes).and_then(|(code, rest)| Some((code?, 3 - rest.len())));
            let chunk = bytes.utf8_chunks().next().unwrap().valid().chars().next();
            assert_eq!(ours, chunk.map(|c| (u32::from(c), c.len_utf8())), "{bytes:02x?}");
        }
        assert_eq!(first_char(b"\xC0\x80x"), Some((Some(0), &b"x"[..])));
        assert_eq!(first_char(b"\xE2\x82\""), Some((None, &b"\""[..])));
    }

    #[test]
    fn a_plain_run_ends_where_a_byte_by_byte_search_says() {
        for at in 0..24 {
            for stop in (0..=u8::MAX).filter(|b| !(0x20..0x80).contains(b)).chain([b'"', b'\\']) {
                let mut bytes = [b'x'; 24];
                bytes[at] = stop;
                assert_eq!(plain_run(&bytes, b'"'), at, "{stop:#x} at {at}");
            }
        }
        assert_eq!(plain_run(b"it's \x7F fine: \"", b'"'), 13);
        assert_eq!(plain_run(b"it's", b'\''), 2);
    }
}
