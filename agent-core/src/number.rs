//! Numbers as JSON writes them (RFC 8259 section 6), without ever making a float of one.

use crate::error::Fault;

/// The first digits of 2^1024 − 2^970, from where on a number rounds to infinity, and the exponent of the first.
const BOUND: &[u8; 21] = b"179769313486231580793";
const BOUND_EXPONENT: i32 = 308;

// The parts of a number, in the words of the RFC: the last one that was seen.
const START: u8 = 0;
const MINUS: u8 = 1;
const ZERO: u8 = 2;
const INT: u8 = 3;
const POINT: u8 = 4;
const FRAC: u8 = 5;
const E: u8 = 6;
const SIGN: u8 = 7;
const EXP: u8 = 8;
const BAD: u8 = 9;

/// The bytes of a number.
const BYTES: &[u8; 15] = b"-+.eE0123456789";
/// The digits from here on are all alike.
const OTHER_DIGITS: usize = 6;

/// What a byte makes of a part: a row for each of [`BYTES`], but one for all other digits.
const NEXT: [[u8; 9]; 7] = [
    // START, MINUS, ZERO, INT, POINT, FRAC, E, SIGN, EXP
    [MINUS, BAD, BAD, BAD, BAD, BAD, SIGN, BAD, BAD],
    [BAD, BAD, BAD, BAD, BAD, BAD, SIGN, BAD, BAD],
    [BAD, BAD, POINT, POINT, BAD, BAD, BAD, BAD, BAD],
    [BAD, BAD, E, E, BAD, E, BAD, BAD, BAD],
    [BAD, BAD, E, E, BAD, E, BAD, BAD, BAD],
    [ZERO, ZERO, BAD, INT, FRAC, FRAC, EXP, EXP, EXP],
    [INT, INT, BAD, INT, FRAC, FRAC, EXP, EXP, EXP],
];

/// Is this word a number, and one that a double can hold?
#[inline(never)]
pub(crate) fn check(word: &[u8]) -> Result<(), Fault> {
    let mut part = START;
    for byte in word {
        let row = BYTES.iter().position(|known| known == byte).and_then(|row| NEXT.get(row.min(OTHER_DIGITS)));
        part = row.and_then(|row| row.get(usize::from(part))).copied().unwrap_or(BAD);
    }
    match part {
        ZERO | INT | FRAC | EXP if is_infinite(word) => Err(Fault::NumberRange),
        ZERO | INT | FRAC | EXP => Ok(()),
        _ => Err(Fault::Stray),
    }
}

/// Is this number so large that a double would be infinite?
#[inline(never)]
fn is_infinite(number: &[u8]) -> bool {
    // Digits from the first that is not zero on, and the exponent of that one.
    let mut digits = 0usize;
    let mut first = [b'0'; BOUND.len()];
    let mut exponent = -1i32;
    let mut fraction = false;
    let mut bytes = number.iter();
    for byte in &mut bytes {
        match byte {
            b'-' => continue,
            b'.' => fraction = true,
            b'e' | b'E' => break,
            _ => {
                if digits > 0 || *byte != b'0' {
                    if let Some(place) = first.get_mut(digits) {
                        *place = *byte;
                    }
                    digits = digits.wrapping_add(1);
                    exponent = exponent.wrapping_add(i32::from(!fraction));
                } else {
                    exponent = exponent.wrapping_sub(i32::from(fraction));
                }
            }
        }
    }
    // As it is written behind `e`.
    let mut written = 0i32;
    let mut negative = false;
    for byte in bytes {
        match byte {
            b'-' => negative = true,
            b'+' => {}
            _ => written = written.wrapping_mul(10).wrapping_add(i32::from(byte & 0xF)).min(1_000_000),
        }
    }
    exponent = exponent.wrapping_add(if negative { written.wrapping_neg() } else { written });
    digits > 0 && (exponent > BOUND_EXPONENT || exponent == BOUND_EXPONENT && first >= *BOUND)
}

/// A signed 64-bit integer: no fraction, no exponent.
#[inline(never)]
pub fn integer(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        // The lowest has no positive counterpart.
        Some(digits) => parse(digits).and_then(|value| 0i64.checked_sub_unsigned(value)),
        None => parse(word).and_then(|value| i64::try_from(value).ok()),
    }
}

fn parse(word: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!word.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    #[test]
    fn what_the_grammar_allows_is_a_number() {
        for word in ["0", "-0", "10", "0.5", "-1.25", "1e5", "0e1", "1E+5", "1e-5", "123456789.987654321e12"] {
            assert_eq!(check(word.as_bytes()), Ok(()), "{word}");
        }
        for word in ["", "-", "01", "-01", "00", "1.", ".5", "1.e1", "1e", "1e+", "1-2", "1.2.3", "0x10", "1a", "--1"] {
            assert_eq!(check(word.as_bytes()), Err(Fault::Stray), "{word}");
        }
    }

    #[test]
    fn a_number_is_out_of_range_exactly_when_a_double_would_be_infinite() {
        let long: String = "9".repeat(308);
        let many_zeros = std::format!("0.{}1e{}", "0".repeat(400), 700);
        for word in [
            "1e308",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623159e308",
            "17.98e307",
            "1e309",
            "0.00001e313",
            "0.00001e314",
            "1e999",
            "-1e999",
            "0e999",
            "0.0e99999999999999999999",
            "1e-99999999999999999999",
            "1e99999999999999999999",
            &long,
            &std::format!("{long}9"),
            &std::format!("{long}e1"),
            &many_zeros,
            "123456789e300",
            "123456789e301",
            "0.179e309",
            "0.18e309",
        ] {
            let infinite = word.parse::<f64>().unwrap().is_infinite();
            assert_eq!(check(word.as_bytes()), if infinite { Err(Fault::NumberRange) } else { Ok(()) }, "{word}");
        }
    }

    #[test]
    fn integers_have_64_bits_and_a_sign() {
        for word in [
            "0",
            "-5",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "-",
            "1.0",
            "1e3",
            "-0",
        ] {
            assert_eq!(integer(word.as_bytes()), word.parse().ok(), "{word}");
        }
    }
}
