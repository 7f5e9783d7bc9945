//! Texts that take little room in the file: each of the pairs of letters that stand in them most often is one byte.
//!
//! In the source a text stands as it is. [`packed!`](crate::packed!) packs it while the agent is compiled, [`unpack`]
//! reads it again. ASCII that is not packed reads as itself.

/// The pairs; the first has the code 0x80. They were counted in the texts of the agent: others work as well, and make
/// it larger.
const PAIRS: &[u8; 256] = b" % ' a b c d f i l m n o r s t%', --: ; InJSONP QMa abadalamanaratbebjcacechckcoctd de\
e ecedefemeneresetexezf fafifog guhaheiliminirisitkelelilom mambmemimon ndnengnonto oc\
ogonoooporosotouowpapeprpuqur rareriros sessstsusyt tethtitotrtyueunupusutvaviway yt";

/// A text, which must be ASCII, in its packed form: `&'static [u8]`.
#[macro_export]
macro_rules! packed {
    ($text:expr) => {
        const { &$crate::packed::pack::<{ $crate::packed::packed_len($text) }>($text) }.as_slice()
    };
}

/// The bytes of a text, packed or not.
pub fn unpack(text: &[u8]) -> Unpacked<'_> {
    Unpacked { text, second: None }
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
    /// Of the pair whose first byte was the last one.
    second: Option<u8>,
}

impl Iterator for Unpacked<'_> {
    type Item = u8;

    #[inline(never)]
    fn next(&mut self) -> Option<u8> {
        if let Some(second) = self.second.take() {
            return Some(second);
        }
        let (&code, rest) = self.text.split_first()?;
        self.text = rest;
        let pair = usize::from(code).checked_sub(0x80).and_then(|number| PAIRS.as_chunks::<2>().0.get(number));
        pair.map_or(Some(code), |[first, second]| {
            self.second = Some(*second);
            Some(*first)
        })
    }
}

/// The code of each pair of ASCII letters; 0 if it has none. It is not in the file.
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const CODES: [[u8; 128]; 128] = {
    let mut codes = [[0; 128]; 128];
    let mut number = 0;
    while number < 128 {
        codes[PAIRS[2 * number] as usize][PAIRS[2 * number + 1] as usize] = 0x80 + number as u8;
        number += 1;
    }
    codes
};

/// Packs a text into an array of the right size, which [`packed_len`] says.
#[doc(hidden)]
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
pub const fn pack<const LEN: usize>(text: &str) -> [u8; LEN] {
    let mut packed = [0; LEN];
    let mut rest = text.as_bytes();
    let mut at = 0;
    while let [first, behind @ ..] = rest {
        packed[at] = *first;
        at += 1;
        rest = behind;
        if let [second, behind @ ..] = behind
            && CODES[*first as usize][*second as usize] != 0
        {
            packed[at - 1] = CODES[*first as usize][*second as usize];
            rest = behind;
        }
    }
    packed
}

/// Bytes of a text when it is packed.
#[doc(hidden)]
#[allow(clippy::as_conversions, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
pub const fn packed_len(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut len = 0;
    while let [first, behind @ ..] = rest {
        len += 1;
        rest = behind;
        if let [second, behind @ ..] = behind
            && CODES[*first as usize][*second as usize] != 0
        {
            rest = behind;
        }
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
        assert!(packed.len() < 50, "{} of {}", packed.len(), TEXT.len());
        assert_eq!(unpack(packed).collect::<Vec<u8>>(), TEXT.as_bytes());
    }

    #[test]
    fn a_plain_text_reads_as_itself() {
        for text in ["", "x", "no such thing\n", "\0"] {
            assert_eq!(unpack(text.as_bytes()).collect::<Vec<u8>>(), text.as_bytes());
        }
    }
}
