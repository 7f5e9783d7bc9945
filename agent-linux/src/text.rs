//! Text in pieces: what stands before a byte, and decimal numbers both ways.

/// What stands before the next such byte; with it, that is taken off `rest`.
#[inline(never)]
pub fn cut<'t>(rest: &mut &'t [u8], end: u8) -> &'t [u8] {
    let text = *rest;
    let len = text.iter().position(|byte| *byte == end).unwrap_or(text.len());
    *rest = text.get(len.wrapping_add(1)..).unwrap_or_default();
    text.get(..len).unwrap_or_default()
}

/// What stands behind the last such byte; with it, that is taken off `rest`.
#[inline(never)]
pub fn cut_last<'t>(rest: &mut &'t [u8], before: u8) -> &'t [u8] {
    let text = *rest;
    let start = text.iter().rposition(|byte| *byte == before);
    *rest = text.get(..start.unwrap_or(0)).unwrap_or_default();
    text.get(start.map_or(0, |start| start.wrapping_add(1))..).unwrap_or_default()
}

/// The digits of a number, so many at least.
#[inline(never)]
pub fn decimal(number: u64, width: usize, space: &mut [u8; 20]) -> &[u8] {
    let mut rest = number;
    let mut start = space.len();
    for place in space.iter_mut().rev() {
        if rest == 0 && 20_usize.wrapping_sub(start) >= width {
            break;
        }
        *place = b'0' | (rest % 10).to_le_bytes()[0];
        rest /= 10;
        start = start.wrapping_sub(1);
    }
    space.get(start..).unwrap_or_default()
}

/// The number that some digits are, or 0 if they are none or it is larger than this.
#[inline(never)]
pub fn number(digits: &[u8], largest: u64) -> u64 {
    let mut number = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || number > u64::MAX / 16 {
            return 0;
        }
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if number > largest { 0 } else { number }
}

/// Which of these words, with blanks between them, it is, counted from 0.
#[inline(never)]
pub fn choice(words: &[u8], word: &[u8]) -> Option<usize> {
    words.split(|byte| *byte == b' ').position(|other| other == word)
}

/// The text before the first such byte: all of it if there is none.
#[inline(never)]
pub fn until(text: &[u8], end: u8) -> &[u8] {
    cut(&mut { text }, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_each_such_byte() {
        let mut rest = b"one,,two".as_slice();
        assert_eq!([(); 4].map(|()| cut(&mut rest, b',')), [&b"one"[..], b"", b"two", b""]);
    }

    #[test]
    fn a_text_is_cut_from_its_end_too() {
        let mut rest = b"one,,two".as_slice();
        assert_eq!([(); 4].map(|()| cut_last(&mut rest, b',')), [&b"two"[..], b"", b"one", b""]);
        assert_eq!(cut_last(&mut &b",one"[..], b','), b"one");
    }

    #[test]
    fn a_text_lasts_until_its_end() {
        for (text, want) in [("a\0b\0c", "a"), ("\0b", ""), ("ab", "ab"), ("", "")] {
            assert_eq!(until(text.as_bytes(), 0), want.as_bytes());
        }
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for value in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX / 10, u64::MAX] {
            assert_eq!(decimal(value, 1, &mut [0; 20]), std::format!("{value}").as_bytes());
            assert_eq!(decimal(value, 6, &mut [0; 20]), std::format!("{value:06}").as_bytes());
            assert_eq!(decimal(value, 6, &mut [0xFF; 20]), std::format!("{value:06}").as_bytes());
        }
    }

    #[test]
    fn digits_are_read_up_to_the_largest_number() {
        for (digits, largest, want) in [
            ("", 9, 0),
            ("0", 9, 0),
            ("7", 9, 7),
            ("007", 9, 7),
            ("10", 9, 0),
            ("-1", 9, 0),
            ("1 ", 9, 0),
            ("1x", 9, 0),
            ("1024", 1024, 1024),
            ("1000000000000000000", u64::MAX, 1_000_000_000_000_000_000),
            ("99999999999999999999", u64::MAX, 0),
            ("99999999999999999999999", u64::MAX, 0),
        ] {
            assert_eq!(number(digits.as_bytes(), largest), want, "{digits}");
        }
    }
}
