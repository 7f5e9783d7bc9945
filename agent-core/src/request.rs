//! Reads a complete request in place.
//!
//! It works on a frame: one value that the framer found good, without white space between its tokens. So it looks
//! for structure only, and never for damage; on bytes that are no such frame it may find anything, but it comes to an
//! end and does not panic. It does not know the commands.

use heapless::Vec;

use crate::error::{Error, Syntax};
use crate::limits;
use crate::text::Text;

/// The members of a request. They borrow from its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'f> {
    /// The name of the command.
    pub execute: Option<Text<'f>>,
    /// The object with the arguments, if there is one.
    pub arguments: &'f [u8],
    /// Any value, to be echoed.
    pub id: Option<&'f [u8]>,
    /// The first member that is not as it should be.
    pub fault: Option<Error<'f>>,
}

impl<'f> Request<'f> {
    /// Finds the members of a request. An error here is one of the whole text: there is no `id` to echo.
    pub fn read(frame: &'f [u8]) -> Result<Self, Error<'f>> {
        check(frame)?;
        if frame.first() != Some(&b'{') {
            return Err(Error::NotAnObject);
        }
        let mut request = Request::default();
        for (name, value) in members(frame) {
            let kind = value.first();
            let mut fault = None;
            if name.is("execute") {
                match kind {
                    Some(b'"' | b'\'') => request.execute = Some(split_string(value).0),
                    _ => fault = Some(Error::ExecuteNotString),
                }
            } else if name.is("arguments") {
                request.arguments = value;
                if kind != Some(&b'{') {
                    fault = Some(Error::ArgumentsNotObject);
                }
            } else if name.is("id") {
                request.id = Some(value);
            } else {
                fault = Some(Error::UnexpectedMember(name));
            }
            request.fault = request.fault.or(fault);
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
    pub fn integer(&mut self, name: &'static str) -> Result<i64, Error<'f>> {
        let value = self.value(name).ok_or(Error::ParameterMissing(name))?;
        parse_integer(value).ok_or(Error::ParameterType(name, "integer"))
    }

    fn value(&mut self, name: &'static str) -> Option<&'f [u8]> {
        // More names than there is room for would show as an unexpected argument in the command's first test.
        let _ = self.asked.push(name);
        members(self.object).find(|(key, _)| key.is(name)).map(|(_, value)| value)
    }

    /// All arguments have been asked for: any other is one too many.
    pub fn finish(&self) -> Result<(), Error<'f>> {
        match members(self.object).find(|(key, _)| !self.asked.iter().any(|name| key.is(name))) {
            Some((key, _)) => Err(Error::UnexpectedParameter(key)),
            None => Ok(()),
        }
    }
}

/// `-` and digits, in the range of an `i64`. The grammar has been checked: a fraction or an exponent is what is left.
fn parse_integer(value: &[u8]) -> Option<i64> {
    let (negative, digits) = match value.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, value),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i64, |number, &byte| {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        let number = number.checked_mul(10)?;
        if negative { number.checked_sub(digit) } else { number.checked_add(digit) }
    })
}

/// What the framer, which keeps no text in mind, could not see: duplicate keys in any object, and numbers that
/// no double can hold.
fn check(frame: &[u8]) -> Result<(), Syntax<'_>> {
    let mut rest = frame;
    // Where what is in each open bracket begins, counted from the end of the frame.
    let mut open: Vec<u32, { limits::DEPTH }> = Vec::new();
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'{' | b'[' => {
                let inside = u32::try_from(behind.len()).map_err(|_| Syntax::TooLong(frame.len()))?;
                open.push(inside).map_err(|_| Syntax::Depth)?;
                rest = behind;
            }
            b'}' | b']' => {
                open.pop();
                rest = behind;
            }
            b'"' | b'\'' => {
                let (string, behind) = split_string(rest);
                if let (Some(b':'), Some(&inside)) = (behind.first(), open.last()) {
                    let start = usize::try_from(inside).map_or(0, |inside| frame.len().saturating_sub(inside));
                    check_key(string, frame.get(start..).unwrap_or_default(), rest.len())?;
                }
                rest = behind;
            }
            b'-' | b'0'..=b'9' => {
                let (number, behind) = split_number(rest);
                if !is_in_range(number) {
                    return Err(Syntax::NumberRange(number));
                }
                rest = behind;
            }
            _ => rest = behind,
        }
    }
    Ok(())
}

/// Is this key the first of its name among the members that begin here? It stands so many bytes before the end.
fn check_key<'f>(key: Text<'_>, object: &'f [u8], from_end: usize) -> Result<(), Syntax<'f>> {
    let mut before = Members { rest: object };
    for count in 1.. {
        if before.rest.len() <= from_end {
            break;
        }
        if count >= limits::MEMBERS {
            return Err(Syntax::Members);
        }
        match before.next() {
            Some((other, _)) if other.same(key) => return Err(Syntax::DuplicateKey),
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// The members of an object: names and raw values.
fn members(object: &[u8]) -> Members<'_> {
    Members { rest: object.get(1..).unwrap_or_default() }
}

struct Members<'f> {
    /// From the key of the next member on; or what is behind the last one.
    rest: &'f [u8],
}

impl<'f> Iterator for Members<'f> {
    type Item = (Text<'f>, &'f [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (b'"' | b'\'') = self.rest.first()? else {
            return None;
        };
        let (key, rest) = split_string(self.rest);
        let (value, rest) = split_value(rest.get(1..).unwrap_or_default());
        self.rest = rest.get(1..).unwrap_or_default();
        if rest.first() == Some(&b'}') {
            self.rest = &[];
        }
        Some((key, value))
    }
}

/// The text of the string at the front, and what is behind its quote.
pub(crate) fn split_string(bytes: &[u8]) -> (Text<'_>, &[u8]) {
    let Some((&quote, text)) = bytes.split_first() else {
        return (Text(&[]), &[]);
    };
    let mut rest = text;
    loop {
        let run = crate::text::plain_run(rest, quote);
        rest = match rest.get(run..) {
            Some([b'\\', _, rest @ ..]) => rest,
            Some([byte, ..]) if *byte == quote => {
                let len = text.len().saturating_sub(rest.len()).saturating_add(run);
                let (text, rest) = text.split_at_checked(len).unwrap_or((text, &[]));
                return (Text(text), rest.get(1..).unwrap_or_default());
            }
            Some([_, rest @ ..]) => rest,
            _ => return (Text(text), &[]),
        };
    }
}

/// The number at the front, and what is behind it.
fn split_number(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
    bytes.split_at_checked(len).unwrap_or((bytes, &[]))
}

/// The value at the front, and what is behind it: a separator or a closing bracket.
fn split_value(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = bytes;
    let mut depth = 0usize;
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                rest = split_string(rest).1;
                continue;
            }
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' if depth == 0 => break,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => break,
            _ => {}
        }
        rest = behind;
    }
    bytes.split_at_checked(bytes.len().saturating_sub(rest.len())).unwrap_or((bytes, &[]))
}

/// Is the number one that a double can hold, that is, below 2^1024 − 2^970? From there on it would round to infinity.
fn is_in_range(number: &[u8]) -> bool {
    /// The first digits of that bound, which is 1.797…e308.
    const BOUND: &[u8] = b"179769313486231580793";
    /// The exponent of its first digit.
    const BOUND_EXPONENT: i32 = 308;

    if number.len() <= 300 && !number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return true;
    }
    let mantissa_len = number.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(number.len());
    let (mantissa, exponent) = number.split_at_checked(mantissa_len).unwrap_or((number, &[]));
    let mut digits = mantissa.iter().copied().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').peekable();
    if digits.peek().is_none() {
        return true;
    }
    // The exponent of the first digit that is not zero: from where it stands, and what is written.
    let mut first = exponent_value(exponent.get(1..).unwrap_or_default());
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    for (at, byte) in mantissa.iter().enumerate() {
        if matches!(byte, b'1'..=b'9') {
            let places = if at < point { point.saturating_sub(at).saturating_sub(1) } else { at.saturating_sub(point) };
            let places = i32::try_from(places).unwrap_or(i32::MAX);
            first = if at < point { first.saturating_add(places) } else { first.saturating_sub(places) };
            break;
        }
    }
    first < BOUND_EXPONENT
        || first == BOUND_EXPONENT && digits.chain(core::iter::repeat(b'0')).take(BOUND.len()).lt(BOUND.iter().copied())
}

/// A written exponent, saturating.
fn exponent_value(text: &[u8]) -> i32 {
    let negative = text.first() == Some(&b'-');
    let digits = text.iter().filter(|byte| byte.is_ascii_digit());
    let value = digits.fold(0i32, |value, byte| value.saturating_mul(10).saturating_add(i32::from(byte & 0xF)));
    if negative { value.saturating_neg() } else { value }
}
