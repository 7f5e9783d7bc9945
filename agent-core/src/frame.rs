//! The framer: finds the end of a request, and what is damaged about it, one byte after the other.
//!
//! It knows the grammar of JSON and nothing of what a request means. The grammar is that of RFC 8259, except that
//! strings may stand in single quotes (and `\'` is an escape) and that U+0000 may be written as C0 80:
//!
//! ```text
//! value  = object / array / string / number / "true" / "false" / "null"
//! object = "{" [ string ":" value *( "," string ":" value ) ] "}"
//! array  = "[" [ value *( "," value ) ] "]"
//! number = [ "-" ] ( "0" / digit1-9 *digit ) [ "." 1*digit ] [ ( "e" / "E" ) [ "+" / "-" ] 1*digit ]
//! ```
//!
//! *Resync.* 0xFF resets the framer in any state, silently. A damaged request is reported once, where it breaks; it
//! ends at the bracket that closes it, at a bracket of the wrong kind, at a raw newline, or at 0xFF or 0xFE, whichever
//! comes first. From there on bytes are dropped silently up to the next `{`. 0xFE in the middle of a request is
//! damage; between requests it is dropped.

use crate::error::Syntax;
use crate::limits;
use crate::text::{self, Lead};

/// What [`Framer::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan<'f> {
    /// All input is consumed and no request is complete.
    NeedMore,
    /// The frame holds one complete value, without the white space between its tokens.
    Complete(&'f [u8]),
    /// The request broke here. What is left of it will be skipped.
    Damaged(Syntax<'f>),
}

/// The incremental scanner of one channel. The bytes of a request gather in a buffer that the caller lends.
#[derive(Clone, Debug)]
pub struct Framer {
    state: State,
    /// The kind of each open bracket, a bit each: set for `{`.
    kinds: [u8; limits::DEPTH / 8],
    depth: usize,
    /// Bytes of the request so far; more than the buffer holds if it is too long.
    len: usize,
    /// Where the token began that is being read.
    token: usize,
    /// Where the escape began that is being read.
    escape: usize,
    /// The quote that ends the string being read.
    quote: u8,
    /// Is that string the key of a member?
    key: bool,
}

/// Where in a value the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two tokens.
    Before(Expect),
    Number(Number),
    /// The letters that are still to come, and whether all so far were right.
    Keyword(&'static [u8], bool),
    /// In a string, outside of an escape and of a UTF-8 sequence.
    Text,
    /// Behind `\`.
    Escape,
    /// Behind `\u` and this many digits with that value.
    Unicode(u8, u16),
    /// Behind the first half of a surrogate pair: `\`, then `u`, have to follow.
    Surrogate,
    SurrogateEscape,
    /// Behind the `\u` of the second half.
    Second(u8, u16),
    Utf8(Lead),
    /// Behind the damage, in a string or not.
    Skip(Skip),
    /// Between a damaged request and the next `{`.
    Lost,
}

/// What may come next, in the words of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
}

/// Behind which part of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// What of a damaged request is being skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    Tokens,
    String,
    Escape,
}

/// What one byte did.
enum Step {
    /// It was consumed.
    Next,
    /// It belongs to what comes next.
    Again,
    /// It completed the value.
    Complete,
    /// It ended the value, but is not part of it.
    CompleteBefore,
    Broken(Broken),
}

/// [`Syntax`] before it borrows its text from the frame.
enum Broken {
    Stray,
    ExpectingValue,
    KeyNotString,
    MissingColon,
    InvalidKeyword,
    InvalidEscape,
    InvalidUtf8,
    InvalidUnicode,
    Depth,
    Separator,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// A framer that waits for the first byte of a request.
    pub const fn new() -> Self {
        Framer {
            state: State::Before(Expect::Value),
            kinds: [0; limits::DEPTH / 8],
            depth: 0,
            len: 0,
            token: 0,
            escape: 0,
            quote: 0,
            key: false,
        }
    }

    /// Is nothing of a request waiting for its rest?
    pub fn is_clean(&self) -> bool {
        matches!(self.state, State::Before(Expect::Value) | State::Lost) && self.depth == 0
    }

    /// Bytes of the buffer that hold the request so far, or held the one just completed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has no byte of a request come yet?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads on until a request is complete, damaged, or the input is used up. `input` is advanced over what was
    /// consumed. After [`Scan::Complete`] and [`Scan::Damaged`] the next call begins with the next request.
    pub fn scan<'f>(&mut self, frame: &'f mut [u8], input: &mut &[u8]) -> Scan<'f> {
        if self.depth == 0 && matches!(self.state, State::Before(Expect::Value)) {
            self.len = 0;
        }
        let step = loop {
            self.skip_run(frame, input);
            let Some((&byte, rest)) = input.split_first() else {
                return Scan::NeedMore;
            };
            if byte == 0xFF || byte == 0xFE && (self.is_clean() || matches!(self.state, State::Skip(_))) {
                self.restart(State::Lost);
                *input = rest;
                continue;
            }
            let step = self.step(byte, frame);
            if !matches!(step, Step::Again | Step::CompleteBefore | Step::Broken(_)) {
                *input = rest;
            }
            match step {
                Step::Next | Step::Again => {}
                step => break step,
            }
        };
        let overflow = self.len > frame.len();
        let limit = frame.len();
        let held = frame.get(..self.len).unwrap_or(frame);
        match step {
            Step::Broken(broken) => {
                let syntax = broken.syntax(self, held);
                self.state = match self.state {
                    _ if self.depth == 0 => State::Lost,
                    state if state.in_string() => State::Skip(Skip::String),
                    _ => State::Skip(Skip::Tokens),
                };
                Scan::Damaged(syntax)
            }
            _ => {
                self.state = State::Before(Expect::Value);
                if overflow { Scan::Damaged(Syntax::TooLong(limit)) } else { Scan::Complete(held) }
            }
        }
    }

    /// Takes a run of bytes that cannot change the state, all at once.
    fn skip_run(&mut self, frame: &mut [u8], input: &mut &[u8]) {
        let run = match self.state {
            State::Text => text::plain_run(input, self.quote),
            State::Before(_) => input.iter().take_while(|byte| is_blank(**byte)).count(),
            State::Lost => input.iter().take_while(|byte| **byte != b'{').count(),
            _ => return,
        };
        let Some((run, rest)) = input.split_at_checked(run) else {
            return;
        };
        match self.state {
            State::Text => self.put(frame, run),
            State::Lost if !rest.is_empty() => self.restart(State::Before(Expect::Value)),
            _ => {}
        }
        *input = rest;
    }

    fn restart(&mut self, state: State) {
        self.state = state;
        self.depth = 0;
        self.len = 0;
    }

    /// Keeps some bytes of the request, as long as they fit.
    fn put(&mut self, frame: &mut [u8], bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(space) = frame.get_mut(self.len..end) {
            space.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn step(&mut self, byte: u8, frame: &mut [u8]) -> Step {
        let step = match self.state {
            State::Skip(skip) => return self.skip(skip, byte),
            State::Lost => return Step::Next,
            _ if byte == 0xFE => Step::Broken(Broken::Stray),
            State::Before(expect) => self.before(expect, byte),
            State::Number(part) => self.number(part, byte),
            State::Keyword(rest, good) => self.keyword(rest, good, byte),
            _ => self.string(byte),
        };
        match step {
            Step::Next | Step::Complete => self.put(frame, &[byte]),
            // The byte is shown as the end of the stray token.
            Step::Broken(Broken::Stray | Broken::InvalidUnicode) => self.put(frame, &[byte]),
            _ => {}
        }
        step
    }

    /// A byte between two tokens; white space has been skipped.
    fn before(&mut self, expect: Expect, byte: u8) -> Step {
        use Expect::{Colon, CommaOrEnd, Key, KeyOrEnd, Value, ValueOrEnd};
        self.token = self.len;
        match (byte, expect) {
            (b'{' | b'[', Value | ValueOrEnd) => return self.open(byte),
            (b'}', KeyOrEnd | CommaOrEnd) | (b']', ValueOrEnd | CommaOrEnd) => return self.close(byte),
            (b'"' | b'\'', Value | ValueOrEnd | Key | KeyOrEnd) => {
                self.quote = byte;
                self.key = matches!(expect, Key | KeyOrEnd);
                self.state = State::Text;
            }
            (b':', Colon) => self.state = State::Before(Value),
            (b',', CommaOrEnd) => self.state = State::Before(if self.in_object() { Key } else { Value }),
            (b'a'..=b'z', Value | ValueOrEnd | Key | KeyOrEnd) => {
                self.key = matches!(expect, Key | KeyOrEnd);
                let rest: &[u8] = match byte {
                    b't' => b"rue",
                    b'f' => b"alse",
                    b'n' => b"ull",
                    _ => b"",
                };
                self.state = State::Keyword(rest, !rest.is_empty());
            }
            (b'-', Value | ValueOrEnd) => self.state = State::Number(Number::Minus),
            (b'0', Value | ValueOrEnd) => self.state = State::Number(Number::Zero),
            (b'1'..=b'9', Value | ValueOrEnd) => self.state = State::Number(Number::Integer),
            (b'"' | b'\'' | b'{' | b'[' | b']' | b'}' | b':' | b',' | b'a'..=b'z' | b'-' | b'0'..=b'9', _) => {
                return Step::Broken(match (expect, byte) {
                    (Colon, _) => Broken::MissingColon,
                    (CommaOrEnd, _) => Broken::Separator,
                    (Key | KeyOrEnd, b'{' | b'[' | b'-' | b'0'..=b'9') => Broken::KeyNotString,
                    _ => Broken::ExpectingValue,
                });
            }
            _ => return Step::Broken(Broken::Stray),
        }
        Step::Next
    }

    fn open(&mut self, byte: u8) -> Step {
        if self.depth >= limits::DEPTH {
            return Step::Broken(Broken::Depth);
        }
        self.push(byte);
        self.state = State::Before(if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd });
        Step::Next
    }

    fn close(&mut self, byte: u8) -> Step {
        if self.in_object() == (byte == b'}') && self.depth > 0 {
            self.depth = self.depth.saturating_sub(1);
            self.value_ended(Step::Complete, Step::Next)
        } else {
            // Also what stands in no bracket at all.
            Step::Broken(if self.depth == 0 { Broken::ExpectingValue } else { Broken::Separator })
        }
    }

    /// Behind a value: the request is complete, or its container goes on.
    fn value_ended(&mut self, complete: Step, more: Step) -> Step {
        if self.depth == 0 {
            return complete;
        }
        self.state = State::Before(Expect::CommaOrEnd);
        more
    }

    fn number(&mut self, part: Number, byte: u8) -> Step {
        use Number::{Exponent, ExponentDigits, ExponentSign, Fraction, Integer, Minus, Point, Zero};
        self.state = State::Number(match (part, byte) {
            (Minus, b'0') => Zero,
            (Minus | Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Integer | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Minus | Point | Exponent | ExponentSign, _) | (Zero, b'0'..=b'9') => return Step::Broken(Broken::Stray),
            (Zero | Integer | Fraction | ExponentDigits, _) => {
                return self.value_ended(Step::CompleteBefore, Step::Again);
            }
        });
        Step::Next
    }

    fn keyword(&mut self, rest: &'static [u8], good: bool, byte: u8) -> Step {
        if byte.is_ascii_lowercase() {
            self.state = match rest.split_first() {
                Some((next, rest)) => State::Keyword(rest, good && *next == byte),
                None => State::Keyword(rest, false),
            };
            Step::Next
        } else if !good || !rest.is_empty() {
            Step::Broken(Broken::InvalidKeyword)
        } else if self.key {
            Step::Broken(Broken::KeyNotString)
        } else {
            self.value_ended(Step::CompleteBefore, Step::Again)
        }
    }

    fn string(&mut self, byte: u8) -> Step {
        let digit = text::hex(byte).map(u16::from);
        self.state = match self.state {
            State::Text if byte == self.quote && self.key => State::Before(Expect::Colon),
            State::Text if byte == self.quote => return self.value_ended(Step::Complete, Step::Next),
            State::Text if byte == b'\\' => {
                self.escape = self.len;
                State::Escape
            }
            State::Text if byte < b' ' => return Step::Broken(Broken::Stray),
            State::Text if byte < 0x80 => State::Text,
            State::Text => match text::lead(byte) {
                Some(lead) => State::Utf8(lead),
                None => return Step::Broken(Broken::InvalidUtf8),
            },
            State::Utf8(Lead { more, low, high }) if (low..=high).contains(&byte) => match more.saturating_sub(1) {
                0 => State::Text,
                more => State::Utf8(Lead { more, low: 0x80, high: 0xBF }),
            },
            State::Utf8(_) => return Step::Broken(Broken::InvalidUtf8),
            State::Escape => match byte {
                b'"' | b'\'' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                b'u' => State::Unicode(0, 0),
                _ => return Step::Broken(Broken::InvalidEscape),
            },
            State::Surrogate if byte == b'\\' => State::SurrogateEscape,
            State::SurrogateEscape if byte == b'u' => State::Second(0, 0),
            State::Unicode(count, value) => match (digit, count) {
                (Some(digit), 0..3) => State::Unicode(count.saturating_add(1), value << 4 | digit),
                (Some(digit), _) => match value << 4 | digit {
                    0xD800..=0xDBFF => State::Surrogate,
                    0xDC00..=0xDFFF => return Step::Broken(Broken::InvalidUnicode),
                    _ => State::Text,
                },
                (None, _) => return Step::Broken(Broken::InvalidUnicode),
            },
            State::Second(count, value) => match (digit, count) {
                (Some(digit), 0..3) => State::Second(count.saturating_add(1), value << 4 | digit),
                (Some(digit), _) if (0xDC00..=0xDFFF).contains(&(value << 4 | digit)) => State::Text,
                _ => return Step::Broken(Broken::InvalidUnicode),
            },
            _ => return Step::Broken(Broken::InvalidUnicode),
        };
        Step::Next
    }

    /// A byte behind the damage: only brackets, strings and newlines count.
    fn skip(&mut self, skip: Skip, byte: u8) -> Step {
        self.state = match (skip, byte) {
            (_, b'\n') => State::Lost,
            (Skip::Escape, _) => State::Skip(Skip::String),
            (Skip::String, b'\\') => State::Skip(Skip::Escape),
            (Skip::String, _) if byte == self.quote => State::Skip(Skip::Tokens),
            (Skip::Tokens, b'"' | b'\'') => {
                self.quote = byte;
                State::Skip(Skip::String)
            }
            (Skip::Tokens, b'{' | b'[') => {
                self.push(byte);
                State::Skip(Skip::Tokens)
            }
            // Beyond the limit the kinds are not known, so no bracket there is of the wrong kind.
            (Skip::Tokens, b'}' | b']') => {
                let wrong = self.depth <= limits::DEPTH && self.in_object() != (byte == b'}');
                self.depth = self.depth.saturating_sub(1);
                if wrong || self.depth == 0 { State::Lost } else { State::Skip(Skip::Tokens) }
            }
            _ => self.state,
        };
        if self.state == State::Lost {
            self.restart(State::Lost);
        }
        Step::Next
    }

    fn push(&mut self, byte: u8) {
        if let Some(kinds) = self.kinds.get_mut(self.depth / 8) {
            let bit = 1u8 << (self.depth % 8);
            *kinds = if byte == b'{' { *kinds | bit } else { *kinds & !bit };
        }
        self.depth = self.depth.saturating_add(1);
    }

    /// Is the innermost open bracket a `{`?
    fn in_object(&self) -> bool {
        let level = self.depth.saturating_sub(1);
        self.kinds.get(level / 8).is_some_and(|kinds| kinds >> (level % 8) & 1 == 1)
    }
}

impl State {
    fn in_string(self) -> bool {
        !matches!(self, State::Before(_) | State::Number(_) | State::Keyword(..) | State::Skip(_) | State::Lost)
    }
}

impl Broken {
    fn syntax<'f>(&self, framer: &Framer, held: &'f [u8]) -> Syntax<'f> {
        let token = held.get(framer.token..).unwrap_or_default();
        match self {
            Broken::Stray => Syntax::Stray(token),
            Broken::ExpectingValue => Syntax::ExpectingValue,
            Broken::KeyNotString => Syntax::KeyNotString,
            Broken::MissingColon => Syntax::MissingColon,
            Broken::InvalidKeyword => Syntax::InvalidKeyword(token),
            Broken::InvalidEscape => Syntax::InvalidEscape,
            Broken::InvalidUtf8 => Syntax::InvalidUtf8,
            Broken::InvalidUnicode => {
                let escape = held.get(framer.escape..).unwrap_or_default();
                Syntax::InvalidUnicode(escape.get(..6).unwrap_or(escape))
            }
            Broken::Depth => Syntax::Depth,
            Broken::Separator if framer.in_object() => Syntax::SeparatorInObject,
            Broken::Separator => Syntax::SeparatorInArray,
        }
    }
}

/// White space between tokens (RFC 8259 section 2).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
