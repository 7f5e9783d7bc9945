//! Texts that take little room in the file: each of the pieces that stand in them most often is one byte.
//!
//! In the source a text stands as it is. [`packed!`](crate::packed!) packs it while the agent is compiled, [`unpack`]
//! reads it again. Lines of ASCII that are not packed read as themselves.

/// The pieces, in order. They were counted in the texts of the agent: others work as well, and make it larger. Each is
/// two letters, or two others, or one of either.
#[rustfmt::skip]
const PIECES: [&str; 158] = [
    "  ", "    ", "      ", "        ", "              ", "                ", "      --", "  -", " in", " is ", " t",
    " the ", " to ", "\":", "\":#", "\":#,\"", "\":#,\"t", "\":%", "\":%,\"", "'%", "'%'", ", ", ", --", ",\"", "--",
    ": ", ": !", "; ", "No ", "a ", "ad", "al", "ame", "an", "ar", "arame", "are ", "as ", "at", "at ", "by", "can",
    "ce ", "ces", "ch", "ck", "co", "con", "confi", "ct", "d ", "de", "de ", "do", "dres", "e ", "e t", "ed", "ed ",
    "ed: ", "em", "en", "en ", "ent ", "er", "er ", "err", "ers", "es", "es ", "est", "est ", "ex", "expe", "expect",
    "fa", "failed to ", "fi", "fil", "file ", "for ", "fre", "gu", "gum", "has ", "ho", "ic", "il", "iled",
    "iled to ", "im", "in", "in ", "ing", "ing ", "invalid ", "ion", "is ", "ist", "it", "it ", "ke", "le", "lo",
    "lock", "man", "mb", "mber ", "me", "mo", "mor", "mus", "name", "ne", "nel", "no", "not ", "o ", "of", "of ",
    "on", "oo ", "op", "open ", "or", "or ", "ou", "pe", "pe ", "pro", "qu", "ra", "re", "res", "ro", "run", "s ",
    "se", "so", "st", "st ", "str", "su", "t ", "t b", "ter", "th", "the ", "un", "us", "ut", "val", "vali", "valid ",
    "valu", "x-", "y ", "{\"",
];

/// A text, which must be ASCII, in its packed form: `&'static [u8]`.
#[macro_export]
macro_rules! packed {
    ($text:expr) => {
        const { &$crate::packed::pack::<{ $crate::packed::packed_len($text) }>($text) }.as_slice()
    };
}

/// The bytes of a text, packed or not.
pub fn unpack(text: &[u8]) -> Unpacked<'_> {
    Unpacked { text, behind: 0 }
}

/// Puts the bytes of a text into a space, as far as there is room.
#[inline(never)]
pub fn unpack_to<'s>(text: &[u8], space: &'s mut [u8]) -> &'s [u8] {
    for (place, byte) in space.iter_mut().zip(unpack(text)) {
        *place = byte;
    }
    space
}

/// See [`unpack`].
#[derive(Clone, Debug)]
pub struct Unpacked<'t> {
    text: &'t [u8],
    /// What stands behind the byte that was handed out last: codes, at most eight, the next one lowest.
    behind: u64,
}

impl Iterator for Unpacked<'_> {
    type Item = u8;

    #[inline(never)]
    fn next(&mut self) -> Option<u8> {
        let [mut code, ..] = self.behind.to_le_bytes();
        self.behind >>= 8;
        if code == 0 {
            let (first, rest) = self.text.split_first()?;
            (code, self.text) = (*first, rest);
        }
        while let Some([first, second]) = HALVES.get(usize::from(code.wrapping_sub(FIRST)))
            && *first != 0
        {
            self.behind = self.behind << 8 | u64::from(*second);
            code = *first;
        }
        Some(code)
    }
}

/// The code of the first piece. Others follow, and behind 0xFF the bytes that are no letters.
const FIRST: u8 = 0x80;

/// The code of a piece. 0 is none, and a newline stays what it is.
#[allow(clippy::as_conversions, clippy::arithmetic_side_effects, reason = "compile time")]
const fn code(piece: usize) -> u8 {
    match piece {
        ..128 => FIRST + piece as u8,
        128..137 => (piece - 127) as u8,
        _ => (piece - 126) as u8,
    }
}

/// What each code stands for: two codes or letters.
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const HALVES: [[u8; 2]; PIECES.len() + 2] = {
    let mut halves = [[0; 2]; PIECES.len() + 2];
    let mut piece = 0;
    while piece < PIECES.len() {
        let text = PIECES[piece].as_bytes();
        let mut end = 1;
        while end < text.len() {
            let (first, second) = text.split_at(end);
            let (first, second) = (longest(first), longest(second));
            if first.1 == end && end + second.1 == text.len() {
                halves[code(piece).wrapping_sub(FIRST) as usize] = [first.0, second.0];
            }
            end += 1;
        }
        piece += 1;
    }
    halves
};

/// The code of the longest piece, or else of the letter, that a text begins with, and its length.
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const fn longest(text: &[u8]) -> (u8, usize) {
    let mut found = (text[0], 1);
    let mut piece = STARTS[text[0] as usize];
    while piece < PIECES.len() && PIECES[piece].as_bytes()[0] == text[0] {
        let bytes = PIECES[piece].as_bytes();
        let mut same = 1;
        while same < bytes.len() && same < text.len() && bytes[same] == text[same] {
            same += 1;
        }
        if same == bytes.len() && same > found.1 {
            found = (code(piece), same);
        }
        piece += 1;
    }
    found
}

/// Where the pieces with each first letter begin.
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const STARTS: [usize; 128] = {
    let mut starts = [usize::MAX; 128];
    let mut piece = PIECES.len();
    while piece > 0 {
        piece -= 1;
        starts[PIECES[piece].as_bytes()[0] as usize] = piece;
    }
    starts
};

/// Packs a text into an array of the right size, which [`packed_len`] says.
#[doc(hidden)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
pub const fn pack<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut packed = [0; LEN];
    let mut rest = text.as_bytes();
    let mut at = 0;
    while !rest.is_empty() {
        let (code, len) = longest(rest);
        packed[at] = code;
        rest = rest.split_at(len).1;
        at += 1;
    }
    packed
}

/// Bytes of a text when it is packed.
#[doc(hidden)]
#[allow(clippy::arithmetic_side_effects, reason = "compile time")]
pub const fn packed_len(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut len = 0;
    while !rest.is_empty() {
        rest = rest.split_at(longest(rest).1).1;
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_packed_text_is_shorter_and_reads_as_before() {
        const TEXT: &str = "the helper program '%' returned an unexpected exit status code (#)\n";
        let packed = packed!(TEXT);
        assert!(packed.len() < 45, "{} of {}", packed.len(), TEXT.len());
        assert_eq!(unpack(packed).collect::<Vec<u8>>(), TEXT.as_bytes());
    }

    #[test]
    fn every_piece_is_one_byte() {
        for piece in PIECES {
            assert_eq!(packed_len(piece), 1, "{piece:?}");
            assert_eq!(unpack(&pack::<1>(piece)).collect::<Vec<u8>>(), piece.as_bytes(), "{piece:?}");
        }
    }

    #[test]
    fn a_plain_text_reads_as_itself() {
        for text in ["", "x", "no such thing\n", "\0"] {
            assert_eq!(unpack(text.as_bytes()).collect::<Vec<u8>>(), text.as_bytes());
        }
    }
}
