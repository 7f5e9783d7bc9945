//! The words of a kernel command line, taken apart where they stand.
//!
//! The rules are the kernel's (`next_arg` in lib/cmdline.c; kernel documentation, admin-guide/kernel-parameters.rst):
//! white space separates, unless it stands between double quotes. Quotes around a whole word or around a value
//! (`key="a b"`) go away, others stay. It knows nothing of what a word means.

use core::ffi::CStr;
use core::mem;

use crate::sys;

/// The words of a text that ends in a zero byte.
pub(super) struct Words<'a> {
    rest: &'a mut [u8],
}

impl<'a> Words<'a> {
    /// The words of this text.
    pub(super) fn new(text: &'a mut [u8]) -> Self {
        Words { rest: text }
    }

    /// What follows these bytes in the next word that begins with them. `--` is the end.
    #[inline(never)]
    pub(super) fn next_with(&mut self, prefix: &[u8]) -> Option<&'a CStr> {
        loop {
            let word = self.next()?;
            if word == c"--" {
                return None;
            }
            if word.to_bytes().starts_with(prefix) {
                return Some(sys::tail(word, prefix.len()));
            }
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a CStr;

    #[inline(never)]
    fn next(&mut self) -> Option<&'a CStr> {
        let text = mem::take(&mut self.rest);
        let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let text = text.get_mut(start..)?;
        let mut quoted = false;
        let end = text.iter().position(|byte| {
            quoted ^= *byte == b'"';
            *byte == 0 || (byte.is_ascii_whitespace() && !quoted)
        })?;
        let (word, rest) = text.split_at_mut_checked(end.wrapping_add(1))?;
        // Behind the zero byte the text has ended, whatever stands there.
        if !matches!(word, [.., 0]) {
            self.rest = rest;
        }
        // Nothing but the zero byte at the end of all.
        if end == 0 {
            return None;
        }
        let value = word.iter().position(|byte| *byte == b'=').map_or(0, |at| at.wrapping_add(1));
        let mut opened = false;
        let mut length = 0usize;
        for at in 0..end {
            let byte = word.get(at).copied().unwrap_or_default();
            if byte == b'"' && (at == 0 || at == value) {
                opened = true;
            } else if let Some(place) = word.get_mut(length) {
                *place = byte;
                length = length.wrapping_add(1);
            }
        }
        let last = length.wrapping_sub(1);
        if opened && word.get(last) == Some(&b'"') {
            length = last;
        }
        *word.get_mut(length)? = 0;
        CStr::from_bytes_until_nul(word).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    fn words(text: &str) -> Vec<&'static str> {
        let text = Box::leak([text.as_bytes(), b"\0"].concat().into_boxed_slice());
        Words::new(text).map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn white_space_separates_words() {
        for (text, want) in [
            ("", &[][..]),
            (" \n", &[]),
            ("quiet", &["quiet"]),
            (" a\tb  c\n", &["a", "b", "c"]),
            ("console=ttyS0 panic=-1 -- -v", &["console=ttyS0", "panic=-1", "--", "-v"]),
        ] {
            assert_eq!(words(text), want, "{text:?}");
        }
    }

    #[test]
    fn quotes_are_as_the_kernel_has_them() {
        for (text, want) in [
            (r#"exec="/bin/a b" c"#, &["exec=/bin/a b", "c"][..]),
            (r#""exec=/bin/a b" c"#, &["exec=/bin/a b", "c"]),
            (r#""a b""#, &["a b"]),
            (r#"a"b c"d"#, &[r#"a"b c"d"#]),
            (r#"a="b"c"#, &[r#"a=b"c"#]),
            (r#"a="" b"#, &["a=", "b"]),
            (r#"a=b="c d""#, &[r#"a=b="c d""#]),
            ("it's one", &["it's", "one"]),
            (r#"open="to the end"#, &["open=to the end"]),
            (r#""" b"#, &["", "b"]),
            (r#"a=""#, &["a="]),
            (r#"a """"#, &["a", "\""]),
        ] {
            assert_eq!(words(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_text_without_an_end_has_no_last_word() {
        let text = Box::leak(Box::new(*b"one two"));
        assert_eq!(Words::new(text).collect::<Vec<_>>(), [c"one"]);
        assert_eq!(Words::new(&mut []).next(), None);
    }

    #[test]
    fn what_stands_behind_the_end_is_no_word() {
        let text = Box::leak(Box::new(*b"one two\0left over\0"));
        assert_eq!(Words::new(text).collect::<Vec<_>>(), [c"one", c"two"]);
    }
}
