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
//! *The frame.* What it leaves in the buffer is the same text in a plainer form: no white space between tokens, and
//! each string as `"`, its bytes with all escapes replaced, and a zero byte. So whoever reads it parses no escape,
//! compares names as bytes, and finds in it paths that the kernel takes as they are.
//!
//! *Resync.* 0xFF resets the framer in any state, silently; what follows on the same line is dropped up to a structural
//! character, because it may be anything. A damaged request is reported once, where it breaks; it ends where its
//! outermost bracket or string is closed, at a bracket of the wrong kind, at a raw newline, or at 0xFF or 0xFE,
//! whichever comes first. From there on bytes are dropped silently up to the next `{`. 0xFE in the middle of a request
//! is damage; between requests it is as good as 0xFF.

mod token;

use token::Token;

use crate::error::{Error, Fault};
use crate::limits;
use crate::number;
use crate::text::{self, Lead};

/// What [`Framer::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan<'f> {
    /// All input is consumed and no request is complete.
    NeedMore,
    /// One complete value, in the form of a frame.
    Complete(&'f [u8]),
    /// The request broke here. What is left of it will be skipped.
    Damaged(Error<'f>),
}

/// The incremental scanner of one channel. The bytes of a request gather in a buffer that the caller lends.
///
/// In this order, so that the code reaches what it uses most by a short offset.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Framer {
    /// Open brackets.
    depth: usize,
    /// Bytes of the frame so far; more than the buffer holds if the request is too long.
    len: usize,
    /// The most that there were, since somebody asked.
    peak: usize,
    /// Where the token began that is being read.
    token: usize,
    /// Where the escape began that is being read.
    escape: usize,
    /// The quote that ends the string being read.
    quote: u8,
    /// Is that string, or whatever stands there, the key of a member?
    key: bool,
    /// Digits of `\uXXXX` still to come.
    digits: u8,
    /// The value of those that have come, and above it of the first half of a surrogate pair.
    code: u32,
    /// What is still to come of a UTF-8 sequence.
    sequence: Lead,
    state: State,
    /// The kind of each open bracket, a bit each: set for `{`.
    kinds: [u8; limits::DEPTH / 8],
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// A value at the top level.
    Start,
    /// Nothing but the next `{`: a damaged request has ended.
    Lost,
    /// Behind 0xFF: the rest of a line that may be anything, up to a structural character.
    Flushed,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// The rest of a number or a keyword.
    Word,
    /// What is left of a damaged request: outside of strings, in a string, behind `\`.
    Skip,
    SkipString,
    SkipEscape,
    // From here on: in a string.
    Text,
    Sequence,
    /// Behind `\`.
    Escape,
    /// Behind `\u`.
    Digits,
    /// Behind the first half of a surrogate pair: `\`, then `u`, have to follow.
    Pair,
    PairEscape,
}

impl State {
    /// The tokens that may come, as their bits.
    fn expected(self) -> u8 {
        use Token::{Close, Colon, Comma, Open, Quote, Word};
        let value = Open.bit() | Quote.bit() | Word.bit();
        match self {
            State::Start | State::Value => value,
            State::ValueOrEnd => value | Close.bit(),
            State::Key => Quote.bit() | Word.bit(),
            State::KeyOrEnd => Quote.bit() | Word.bit() | Close.bit(),
            State::Colon => Colon.bit(),
            _ => Comma.bit() | Close.bit(),
        }
    }
}

/// What became of one byte.
enum Step {
    /// It is consumed.
    Next,
    /// It ended a word, and has to be looked at again.
    Again,
    /// It completed the request.
    Complete,
    /// The request is complete without it.
    CompleteBefore,
    Damaged(Fault),
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
            state: State::Start,
            kinds: [0; limits::DEPTH / 8],
            depth: 0,
            len: 0,
            peak: 0,
            token: 0,
            escape: 0,
            quote: 0,
            key: false,
            digits: 0,
            code: 0,
            sequence: Lead { more: 0, low: 0, high: 0 },
        }
    }

    /// Is nothing of a request waiting for its rest?
    pub fn is_clean(&self) -> bool {
        self.state <= State::Flushed
    }

    /// The largest number of bytes that were in the buffer since this was asked for the last time.
    pub fn take_peak(&mut self) -> usize {
        core::mem::take(&mut self.peak).max(self.len)
    }

    /// Bytes of the frame that was completed last, until the next scan.
    pub fn frame_len(&self) -> usize {
        self.len
    }

    /// Reads on until a request is complete, damaged, or the input is used up. `input` is advanced over what was
    /// consumed. After [`Scan::Complete`] and [`Scan::Damaged`] the next call begins with the next request.
    #[inline(never)]
    pub fn scan<'f>(&mut self, frame: &'f mut [u8], input: &mut &[u8]) -> Scan<'f> {
        if self.is_clean() {
            self.len = 0;
        }
        loop {
            if self.state == State::Text {
                let run = text::plain_run(input, self.quote);
                if let Some((plain, rest)) = input.split_at_checked(run) {
                    self.put(frame, plain);
                    *input = rest;
                }
            }
            let Some((&byte, rest)) = input.split_first() else {
                return Scan::NeedMore;
            };
            let step = self.step(byte, frame);
            if matches!(step, Step::Next | Step::Complete) {
                *input = rest;
            }
            let damage = match step {
                Step::Next | Step::Again => continue,
                Step::Complete | Step::CompleteBefore => {
                    self.state = State::Start;
                    match frame.get(..self.len) {
                        // The borrow has to end before the buffer is used again, so it is taken anew below.
                        Some(_) => break,
                        None => Fault::TooLong,
                    }
                }
                Step::Damaged(damage) => {
                    self.state = match self.depth {
                        _ if self.state >= State::Text => State::SkipString,
                        0 => State::Lost,
                        _ => State::Skip,
                    };
                    damage
                }
            };
            let limit = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            let held = frame.get(..self.len).unwrap_or(frame);
            let token = held.get(self.token..).unwrap_or_default();
            return Scan::Damaged(Error { number: limit, ..damage.of(token) });
        }
        Scan::Complete(frame.get(..self.len).unwrap_or_default())
    }

    /// Keeps some bytes of the request, as long as they fit.
    #[inline(never)]
    fn put(&mut self, frame: &mut [u8], bytes: &[u8]) {
        for (place, byte) in frame.get_mut(self.len..).unwrap_or_default().iter_mut().zip(bytes) {
            *place = *byte;
        }
        self.len = self.len.wrapping_add(bytes.len());
        self.peak = self.peak.max(self.len);
    }

    #[inline(never)]
    fn step(&mut self, byte: u8, frame: &mut [u8]) -> Step {
        if byte == 0xFF || byte == 0xFE && self.is_clean() {
            self.restart(State::Flushed);
            return Step::Next;
        }
        match self.state {
            State::Lost if byte != b'{' => return Step::Next,
            State::Flushed if !matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b',' | b'\r' | b'\n') => {
                return Step::Next;
            }
            State::Lost | State::Flushed => {
                self.restart(State::Start);
                return Step::Again;
            }
            State::Skip | State::SkipString | State::SkipEscape => return self.skip(byte),
            State::Word => return self.word(byte, frame),
            State::Text if byte == self.quote => {
                self.put(frame, &[0]);
                self.state = State::Colon;
                return if self.key { Step::Next } else { self.value_ended(Step::Complete) };
            }
            state if state < State::Text => {
                if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                    return Step::Next;
                }
                self.token = self.len;
                self.put(frame, &[if byte == b'\'' { b'"' } else { byte }]);
                return self.token(byte);
            }
            _ => {}
        }
        self.put(frame, &[byte]);
        match self.string(byte) {
            Ok(None) => Step::Next,
            Ok(Some(code)) => {
                // The escape gives way to what it stands for.
                self.state = State::Text;
                self.len = self.escape;
                let (bytes, len) = text::encode(code);
                self.put(frame, bytes.get(..len).unwrap_or_default());
                Step::Next
            }
            Err(damage) => {
                if damage == Fault::InvalidUnicode {
                    self.token = self.escape;
                }
                Step::Damaged(damage)
            }
        }
    }

    /// The first byte of a token.
    #[inline(never)]
    fn token(&mut self, byte: u8) -> Step {
        use State::{Colon, CommaOrEnd, Key, KeyOrEnd, Text, Value, ValueOrEnd, Word};
        let state = self.state;
        self.key = matches!(state, Key | KeyOrEnd);
        let token = Token::of(byte);
        let closes = self.in_object() == (byte == b'}');
        if state.expected() & token.bit() == 0 || token == Token::Close && !closes {
            return Step::Damaged(match (token, state) {
                (Token::Stray, _) => Fault::Stray,
                (_, Colon) => Fault::MissingColon,
                (_, CommaOrEnd) if self.in_object() => Fault::SeparatorInObject,
                (_, CommaOrEnd) => Fault::SeparatorInArray,
                (Token::Open, Key | KeyOrEnd) => Fault::KeyNotString,
                _ => Fault::ExpectingValue,
            });
        }
        self.state = match token {
            Token::Quote => {
                self.quote = byte;
                Text
            }
            Token::Open if self.depth >= limits::DEPTH => return Step::Damaged(Fault::Depth),
            Token::Open => {
                self.open(byte);
                if byte == b'{' { KeyOrEnd } else { ValueOrEnd }
            }
            Token::Close => {
                self.depth = self.depth.wrapping_sub(1);
                return self.value_ended(Step::Complete);
            }
            Token::Comma if self.in_object() => Key,
            Token::Comma | Token::Colon => Value,
            _ => Word,
        };
        Step::Next
    }

    /// Behind a value: the request is complete, or its container goes on.
    #[inline(never)]
    fn value_ended(&mut self, complete: Step) -> Step {
        if self.depth == 0 {
            return complete;
        }
        self.state = State::CommaOrEnd;
        if matches!(complete, Step::CompleteBefore) { Step::Again } else { Step::Next }
    }

    /// A byte of a number or a keyword, or the first behind it: then it is known which it was.
    #[inline(never)]
    fn word(&mut self, byte: u8, frame: &mut [u8]) -> Step {
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'E' | b'.' | b'+' | b'-') {
            self.put(frame, &[byte]);
            return Step::Next;
        }
        // A word that did not fit makes the request too long, whatever it is.
        let word = frame.get(self.token..self.len).unwrap_or(b"0");
        let damage = if [&b"true"[..], b"false", b"null"].contains(&word) {
            None
        } else if word.first().is_some_and(u8::is_ascii_lowercase) {
            Some(Fault::InvalidKeyword)
        } else {
            number::check(word).err()
        };
        match damage {
            Some(damage) => Step::Damaged(damage),
            None if self.key => Step::Damaged(Fault::KeyNotString),
            None => self.value_ended(Step::CompleteBefore),
        }
    }

    /// A byte in a string that does not end it: perhaps it completes an escape.
    fn string(&mut self, byte: u8) -> Result<Option<u32>, Fault> {
        self.state = match self.state {
            State::Text if byte == b'\\' => {
                self.escape = self.len.wrapping_sub(1);
                self.code = 0;
                State::Escape
            }
            State::Text if byte < b' ' || byte == 0xFE => return Err(Fault::Stray),
            State::Text => {
                self.sequence = text::lead(byte);
                if self.sequence.more == 0 {
                    return Err(Fault::InvalidUtf8);
                }
                State::Sequence
            }
            State::Sequence => {
                let Lead { more, low, high } = self.sequence;
                if !(low..=high).contains(&byte) {
                    return Err(if byte == 0xFE { Fault::Stray } else { Fault::InvalidUtf8 });
                }
                self.sequence = Lead { more: more.wrapping_sub(1), low: 0x80, high: 0xBF };
                if more == 1 { State::Text } else { State::Sequence }
            }
            State::Escape => {
                if byte == b'u' {
                    self.digits = 4;
                    self.state = State::Digits;
                    return Ok(None);
                }
                let known = text::ESCAPES.iter().find(|(letter, _)| *letter == byte).map(|(_, byte)| *byte);
                let itself = matches!(byte, b'\'' | b'/').then_some(byte);
                return known.or(itself).map(|byte| Some(u32::from(byte))).ok_or(Fault::InvalidEscape);
            }
            State::Digits => return self.digit(text::hex(byte)),
            State::Pair if byte == b'\\' => State::PairEscape,
            State::PairEscape if byte == b'u' => {
                self.digits = 4;
                State::Digits
            }
            _ => return Err(Fault::InvalidUnicode),
        };
        Ok(None)
    }

    /// A digit of `\uXXXX`. The last one completes a character, or the first half of a pair.
    fn digit(&mut self, digit: u8) -> Result<Option<u32>, Fault> {
        if digit > 0xF {
            return Err(Fault::InvalidUnicode);
        }
        self.code = self.code << 4 | u32::from(digit);
        self.digits = self.digits.wrapping_sub(1);
        if self.digits > 0 {
            return Ok(None);
        }
        let (first, second) = (self.code >> 16, self.code & 0xFFFF);
        match (first, second & 0xFC00) {
            (0, 0xD800) => {
                self.state = State::Pair;
                Ok(None)
            }
            (1.., 0xDC00) => Ok(Some(((first & 0x3FF) << 10).wrapping_add(0x1_0000) | second & 0x3FF)),
            (1.., _) | (_, 0xDC00) => Err(Fault::InvalidUnicode),
            _ => Ok(Some(second)),
        }
    }

    /// A byte behind the damage: only brackets, strings and newlines count.
    #[inline(never)]
    fn skip(&mut self, byte: u8) -> Step {
        use State::{Skip, SkipEscape, SkipString};
        self.state = match (self.state, byte) {
            (_, b'\n' | 0xFE) => State::Lost,
            (SkipEscape, _) => SkipString,
            (SkipString, b'\\') => SkipEscape,
            (SkipString, _) if byte != self.quote => SkipString,
            (SkipString, _) if self.depth == 0 => State::Lost,
            (Skip, b'"' | b'\'') => {
                self.quote = byte;
                SkipString
            }
            (Skip, b'{' | b'[') => {
                self.open(byte);
                Skip
            }
            (Skip, b'}' | b']') => {
                let wrong = self.depth <= limits::DEPTH && self.in_object() != (byte == b'}');
                self.depth = self.depth.wrapping_sub(1);
                if wrong || self.depth == 0 { State::Lost } else { Skip }
            }
            _ => Skip,
        };
        Step::Next
    }

    /// Forgets the request in the making.
    pub fn reset(&mut self) {
        self.restart(State::Start);
    }

    #[inline(never)]
    fn restart(&mut self, state: State) {
        self.state = state;
        self.depth = 0;
        self.len = 0;
    }

    // Brackets.

    /// Beyond the limit the kinds are not known: only a damaged request gets there.
    #[inline(never)]
    fn open(&mut self, byte: u8) {
        let bit = 1u8 << (self.depth & 7);
        if let Some(kinds) = self.kinds.get_mut(self.depth >> 3) {
            *kinds &= !bit;
            if byte == b'{' {
                *kinds |= bit;
            }
        }
        self.depth = self.depth.wrapping_add(1);
    }

    /// Is the innermost open bracket a `{`?
    #[inline(never)]
    fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        self.kinds.get(level >> 3).is_some_and(|kinds| kinds >> (level & 7) & 1 == 1)
    }
}
