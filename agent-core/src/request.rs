//! Reads a complete request in its frame.
//!
//! It relies on what the framer has checked and on the plain form it left (see [`crate::frame`]), so it looks for
//! structure only. On bytes that are no frame it may find anything, but it comes to an end and does not panic. It does
//! not know the commands.

use heapless::Vec;

use crate::error::{Error, Fault};
use crate::limits;
use crate::number;

/// The members of a request. They borrow from its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'f> {
    /// The name of the command.
    pub execute: Option<&'f [u8]>,
    /// The object with the arguments, if there is one.
    pub arguments: &'f [u8],
    /// Any value, to be echoed.
    pub id: Option<&'f [u8]>,
    /// The first member that is not as it should be.
    pub fault: Option<Error<'f>>,
}

impl<'f> Request<'f> {
    /// Finds the members of a request. An error here is one of the whole text: there is no `id` to echo.
    #[inline(never)]
    pub fn read(frame: &'f [u8]) -> Result<Self, Error<'f>> {
        check_keys(frame)?;
        let mut request = Request::default();
        if frame.first() != Some(&b'{') {
            return Err(Fault::NotAnObject.plain());
        }
        for (name, value) in members(frame) {
            let kind = value.first();
            let fault = if name == b"execute" {
                request.execute = Some(split_string(value).0);
                (kind != Some(&b'"')).then_some(Fault::ExecuteNotString.plain())
            } else if name == b"arguments" {
                request.arguments = value;
                (kind != Some(&b'{')).then_some(Fault::ArgumentsNotObject.plain())
            } else if name == b"id" {
                request.id = Some(value);
                None
            } else {
                Some(Fault::UnexpectedMember.of(name))
            };
            if request.fault.is_none() {
                request.fault = fault;
            }
        }
        Ok(request)
    }
}

/// The arguments of a command, by name. Each is asked for once; then [`Arguments::finish`] refuses the others.
pub struct Arguments<'f> {
    object: &'f [u8],
    asked: Vec<&'static str, { limits::ARGUMENTS }>,
}

impl<'f> Arguments<'f> {
    pub(crate) fn new(object: &'f [u8]) -> Self {
        Arguments { object, asked: Vec::new() }
    }

    /// A mandatory argument of QAPI type `int`: 64 bits, signed, and written as an integer.
    #[inline(never)]
    pub fn integer(&mut self, name: &'static str) -> Result<i64, Error<'f>> {
        let value = self.value(name).ok_or(Fault::ParameterMissing.of(name.as_bytes()))?;
        number::integer(value).ok_or(Fault::NotAnInteger.of(name.as_bytes()))
    }

    fn value(&mut self, name: &'static str) -> Option<&'f [u8]> {
        // More names than there is room for would show as an unexpected argument in the command's first test.
        let _ = self.asked.push(name);
        members(self.object).find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// All arguments have been asked for: any other is one too many.
    #[inline(never)]
    pub fn finish(&self) -> Result<(), Error<'f>> {
        for (key, _) in members(self.object) {
            if !self.asked.iter().any(|name| key == name.as_bytes()) {
                return Err(Fault::UnexpectedParameter.of(key));
            }
        }
        Ok(())
    }
}

/// No object may have two members of the same name: what the framer, which remembers no names, could not see.
#[inline(never)]
fn check_keys(frame: &[u8]) -> Result<(), Error<'_>> {
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
        // Each key is compared with those behind it.
        let mut others = Members { rest: skip_value(behind) };
        for count in 2usize.. {
            match others.next() {
                None => break,
                Some((other, _)) if other == key => return Err(Fault::DuplicateKey.of(key)),
                Some(_) if count > limits::MEMBERS => return Err(Fault::Members.of(key)),
                Some(_) => {}
            }
        }
    }
    Ok(())
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
    let mut rest = bytes;
    while let [byte, behind @ ..] = rest {
        if *byte == 0 {
            let end = bytes.len().wrapping_sub(rest.len());
            return (bytes.get(1..end).unwrap_or_default(), behind);
        }
        rest = behind;
    }
    (&[], &[])
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
