//! UTF-8, byte by byte and character by character. Knows nothing of requests and replies.
//!
//! NUL is written as the two bytes C0 80 ("modified UTF-8"), as in the reference: so a string never holds a zero
//! byte and can become a path without being cut short.

/// What has to follow the first byte of a UTF-8 sequence (RFC 3629 section 4, and C0 80).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lead {
    /// Number of bytes that follow: 1 to 3, or none if no sequence begins like this.
    pub(crate) more: u8,
    /// Lowest value of the next byte.
    pub(crate) low: u8,
    /// Highest value of the next byte.
    pub(crate) high: u8,
}

/// What follows this byte, 0x80 or above.
pub(crate) fn lead(byte: u8) -> Lead {
    let (mut low, mut high) = (0x80, 0xBF);
    match byte {
        0xC0 => high = 0x80,
        0xE0 => low = 0xA0,
        0xED => high = 0x9F,
        0xF0 => low = 0x90,
        0xF4 => high = 0x8F,
        _ => {}
    }
    let more = match byte {
        0xC0 | 0xC2..=0xDF => 1,
        0xE0..=0xEF => 2,
        0xF0..=0xF4 => 3,
        _ => 0,
    };
    Lead { more, low, high }
}

/// The first character of some bytes, and what comes behind it. A bad sequence, as long as it could have become a
/// good one, is U+FFFD.
pub(crate) fn first_char(bytes: &[u8]) -> Option<(u32, &[u8])> {
    const BAD: u32 = 0xFFFD;
    let (&byte, mut rest) = bytes.split_first()?;
    if byte < 0x80 {
        return Some((u32::from(byte), rest));
    }
    let Lead { more, mut low, mut high } = lead(byte);
    if more == 0 {
        return Some((BAD, rest));
    }
    let mut code = u32::from(byte & (0x3F >> more));
    for _ in 0..more {
        match rest.split_first() {
            Some((&next, behind)) if (low..=high).contains(&next) => {
                code = code << 6 | u32::from(next & 0x3F);
                rest = behind;
            }
            _ => return Some((BAD, rest)),
        }
        (low, high) = (0x80, 0xBF);
    }
    Some((code, rest))
}

/// The UTF-8 bytes of one code point, and how many they are.
pub(crate) fn encode(code: u32) -> ([u8; 4], usize) {
    let more = |shift: u32| 0x80 | code >> shift & 0x3F;
    let (word, len) = match code {
        0 => (0xC080 << 16, 2),
        1..=0x7F => (code << 24, 1),
        0x80..=0x7FF => ((0xC0 | code >> 6) << 24 | more(0) << 16, 2),
        0x800..=0xFFFF => ((0xE0 | code >> 12) << 24 | more(6) << 16 | more(0) << 8, 3),
        _ => ((0xF0 | code >> 18) << 24 | more(12) << 16 | more(6) << 8 | more(0), 4),
    };
    (word.to_be_bytes(), len)
}

/// How many bytes at the front need no thought in a JSON string: ASCII from the blank on, but for `quote` and `\`.
pub(crate) fn plain_run(bytes: &[u8], quote: u8) -> usize {
    let quotes = ONES.wrapping_mul(u64::from(quote));
    let escapes = ONES.wrapping_mul(0x5C);
    let blanks = ONES.wrapping_mul(0x20);
    // Borrows can set bits behind the first true one, never before it.
    let mut run = words_until(bytes, |word| {
        word | word.wrapping_sub(blanks) & !word | zero_bytes(word ^ quotes) | zero_bytes(word ^ escapes)
    });
    while bytes.get(run).is_some_and(|byte| matches!(byte, b' '..0x80) && *byte != quote && *byte != b'\\') {
        run = run.wrapping_add(1);
    }
    run
}

/// How many bytes come before the first zero byte, if there is one.
pub(crate) fn len_to_zero(bytes: &[u8]) -> usize {
    let mut run = words_until(bytes, zero_bytes);
    while bytes.get(run).is_some_and(|byte| *byte != 0) {
        run = run.wrapping_add(1);
    }
    run
}

/// A one in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Sets the highest bit of the first byte that is zero, and perhaps of others behind it.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

/// How many bytes stand in whole words before the first in which this sets the highest bit of a byte: eight bytes at a
/// time.
fn words_until(bytes: &[u8], stop: impl Fn(u64) -> u64) -> usize {
    let mut run = 0usize;
    while let Some(word) = bytes.get(run..).and_then(<[u8]>::first_chunk) {
        if stop(u64::from_le_bytes(*word)) & ONES << 7 != 0 {
            break;
        }
        run = run.wrapping_add(8);
    }
    run
}

/// The letter behind a `\` and the byte that both stand for. When reading, `'` and `/` stand for themselves too.
pub(crate) const ESCAPES: [(u8, u8); 7] =
    [(b'b', 0x08), (b'f', 0x0C), (b'n', b'\n'), (b'r', b'\r'), (b't', b'\t'), (b'"', b'"'), (b'\\', b'\\')];

/// The value of a hexadecimal digit; of anything else, more than 15.
pub(crate) fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit.wrapping_sub(b'0'),
        _ => match digit | 0x20 {
            letter @ b'a'..=b'f' => letter.wrapping_sub(b'a' - 10),
            _ => u8::MAX,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_read_and_written_as_the_standard_library_does() {
        for code in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|&c| c != '\0') {
            let mut buffer = [0; 4];
            let bytes = code.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(first_char(bytes), Some((u32::from(code), &[][..])));
            let (ours, len) = encode(u32::from(code));
            assert_eq!(&ours[..len], bytes, "{code:?}");
        }
        for three in 0..=0xFF_FFFFu32 {
            let [a, b, c, _] = three.to_le_bytes();
            if a < 0xC2 || (a < 0xE0 && c != 0) {
                continue; // ASCII, C0 80, and every two-byte sequence once
            }
            let bytes = [a, b, c];
            let ours = first_char(&bytes).filter(|(code, _)| *code != 0xFFFD).map(|(code, _)| code);
            let theirs = bytes.utf8_chunks().next().unwrap().valid().chars().next();
            assert_eq!(ours, theirs.map(u32::from).filter(|code| *code != 0xFFFD), "{bytes:02x?}");
        }
    }

    #[test]
    fn nul_is_two_bytes_and_a_bad_sequence_is_one_character() {
        assert_eq!(encode(0), ([0xC0, 0x80, 0, 0], 2));
        assert_eq!(first_char(b"\xC0\x80x"), Some((0, &b"x"[..])));
        assert_eq!(first_char(b"\xE2\x82\""), Some((0xFFFD, &b"\""[..])));
        assert_eq!(first_char(b"\xC0\xAFx"), Some((0xFFFD, &b"\xAFx"[..])));
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

    #[test]
    fn the_first_zero_byte_is_found_wherever_it_is() {
        for at in 0..24 {
            let mut bytes = [0xFF; 24];
            bytes[at] = 0;
            assert_eq!(len_to_zero(&bytes), at);
            assert_eq!(len_to_zero(&[0x80; 24][..at]), at);
        }
    }

    #[test]
    fn hexadecimal_digits_have_their_value_and_nothing_else_has_one() {
        for byte in 0..=u8::MAX {
            let value = char::from(byte).to_digit(16);
            assert_eq!(Some(u32::from(hex(byte))).filter(|value| *value < 16), value);
        }
    }
}
