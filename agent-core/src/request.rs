//! Reads a complete request in its frame.
//!
//! It relies on what the framer has checked and on the plain form it left (see [`crate::frame`]), so it looks for
//! structure only. On bytes that are no frame it may find anything, but it comes to an end and does not panic. It does
//! not know the commands.

use core::ffi::CStr;

use heapless::Vec;

use crate::error::{Error, Fault};
use crate::limits;
use crate::text;

/// The members of a request. They borrow from its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'f> {
    /// The name of the command.
    pub execute: Option<&'f [u8]>,
    /// The object with the arguments, if there is one.
    pub arguments: &'f [u8],
    /// Any value, to be echoed.
    pub id: Option<&'f [u8]>,
    /// The first thing that is not as it should be. Without an `id` if it is one of the whole text.
    pub error: Option<Error<'f>>,
}

/// The members that there are.
const MEMBERS: [&[u8]; 3] = [b"execute", b"arguments", b"id"];

impl<'f> Request<'f> {
    /// Finds the members of a request.
    pub fn read(frame: &'f [u8]) -> Self {
        let mut request = Request { error: check_keys(frame), ..Request::default() };
        if request.error.is_none() {
            request.take_members(frame);
        }
        request
    }

    fn take_members(&mut self, frame: &'f [u8]) {
        if frame.first() != Some(&b'{') {
            self.refuse(Fault::NotAnObject, &[]);
        }
        for (name, value) in members(frame) {
            let kind = value.first();
            match MEMBERS.iter().position(|member| *member == name) {
                Some(0) => {
                    self.execute = Some(split_string(value).0);
                    if kind != Some(&b'"') {
                        self.refuse(Fault::ExecuteNotString, name);
                    }
                }
                Some(1) => {
                    self.arguments = value;
                    if kind != Some(&b'{') {
                        self.refuse(Fault::ArgumentsNotObject, name);
                    }
                }
                Some(_) => self.id = Some(value),
                None => self.refuse(Fault::UnexpectedMember, name),
            }
        }
    }

    /// Notes what is wrong, if it is the first thing.
    #[inline(never)]
    fn refuse(&mut self, fault: Fault, name: &'f [u8]) {
        if self.error.is_none() {
            self.error = Some(fault.of(name));
        }
    }
}

/// The arguments of a command, by name. Each is asked for once; what is left then is unexpected.
pub struct Arguments<'f> {
    object: &'f [u8],
    asked: Vec<&'static str, { limits::ARGUMENTS }>,
}

impl<'f> Arguments<'f> {
    pub(crate) fn new(object: &'f [u8]) -> Self {
        Arguments { object, asked: Vec::new() }
    }

    /// The value of an argument, as it stands in the frame.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'f [u8]> {
        // More names than there is room for would show as an unexpected argument in the command's first test.
        let _ = self.asked.push(name);
        self.find(name)
    }

    /// What a log may show of an argument: its text without quotes, or nothing if it is not there.
    pub(crate) fn text(&self, name: &str) -> &'f [u8] {
        match self.find(name) {
            Some(value) if value.first() == Some(&b'"') => split_string(value).0,
            value => value.unwrap_or_default(),
        }
    }

    #[inline(never)]
    fn find(&self, name: &str) -> Option<&'f [u8]> {
        members(self.object).find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// The name of the first argument that was not asked for.
    pub(crate) fn unexpected(&self) -> Option<&'f [u8]> {
        let asked = |key: &[u8]| self.asked.iter().any(|name| key == name.as_bytes());
        members(self.object).map(|(key, _)| key).find(|key| !asked(key))
    }
}

/// The elements of a list. Each is a value as it stands in the frame; see [`c_string`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Elements<'f> {
    /// From the bracket or comma before the next element on.
    rest: &'f [u8],
}

impl<'f> Iterator for Elements<'f> {
    type Item = &'f [u8];

    #[inline(never)]
    fn next(&mut self) -> Option<&'f [u8]> {
        let [b'[' | b',', value @ ..] = self.rest else {
            return None;
        };
        let behind = skip_value(self.rest);
        self.rest = behind;
        let value = value.get(..value.len().wrapping_sub(behind.len()))?;
        (!value.is_empty()).then_some(value)
    }
}

/// The list that this value is.
pub(crate) fn elements(value: &[u8]) -> Option<Elements<'_>> {
    (value.first() == Some(&b'[')).then_some(Elements { rest: value })
}

/// The string that this value is.
pub fn c_string(value: &[u8]) -> Option<&CStr> {
    CStr::from_bytes_until_nul(value.strip_prefix(b"\"")?).ok()
}

/// No object may have two members of the same name: what the framer, which remembers no names, could not see.
#[inline(never)]
fn check_keys(frame: &[u8]) -> Option<Error<'_>> {
    let mut effort = limits::KEY_SEARCH_BYTES;
    let mut rest = frame;
    while let Some(byte) = rest.first() {
        if *byte != b'"' {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let (key, behind) = split_string(rest);
        rest = behind;
        if behind.first() != Some(&b':') {
            continue;
        }
        // Each key is compared with those behind it, and that may be much.
        let mut others = Members { rest: skip_value(behind) };
        for (other, _) in others.by_ref() {
            if other == key {
                return Some(Fault::DuplicateKey.of(key));
            }
        }
        effort = effort.saturating_sub(behind.len().wrapping_sub(others.rest.len()));
        if effort == 0 {
            return Some(Fault::Members.plain());
        }
    }
    None
}

/// The members of an object: names and values.
fn members(object: &[u8]) -> Members<'_> {
    Members { rest: object }
}

struct Members<'f> {
    /// From the bracket or comma before the next member on.
    rest: &'f [u8],
}

impl<'f> Iterator for Members<'f> {
    type Item = (&'f [u8], &'f [u8]);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let [b'{' | b',', key @ ..] = self.rest else {
            return None;
        };
        if key.first() != Some(&b'"') {
            return None;
        }
        let (key, colon) = split_string(key);
        let value = colon.get(1..)?;
        self.rest = skip_value(colon);
        Some((key, value.get(..value.len().wrapping_sub(self.rest.len()))?))
    }
}

/// The text of the string at the front, and what is behind it.
#[inline(never)]
pub(crate) fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = text::len_to_zero(bytes);
    (bytes.get(1..end).unwrap_or_default(), bytes.get(end.wrapping_add(1)..).unwrap_or_default())
}

/// What is behind the value that stands behind the first byte, a colon: a separator or a closing bracket.
#[inline(never)]
fn skip_value(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes.get(1..).unwrap_or_default();
    let mut depth = 0usize;
    while let [byte, behind @ ..] = rest {
        match byte {
            b'"' => {
                rest = split_string(rest).1;
                continue;
            }
            b'{' | b'[' => depth = depth.wrapping_add(1),
            b'}' | b']' | b',' if depth == 0 => break,
            b'}' | b']' => depth = depth.wrapping_sub(1),
            _ => {}
        }
        rest = behind;
    }
    rest
}
