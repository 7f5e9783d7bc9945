//! Everything that can be wrong, and the English for it. Nothing else in this crate writes a sentence.
//!
//! The texts are part of the protocol: they are those of the reference wherever it has the error, because host
//! tools look for them.

use crate::guest::{Errno, SuspendError};
use crate::limits;

/// What a command returns.
pub type Result<'f, T> = core::result::Result<T, Error<'f>>;

/// Why a request got no result. It may borrow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<'f> {
    /// The bytes are not JSON: what is wrong, and the token where it is.
    Syntax(Damage, &'f [u8]),
    /// The request is JSON, but no object.
    NotAnObject,
    /// The member `execute` is no string.
    ExecuteNotString,
    /// The member `arguments` is no object.
    ArgumentsNotObject,
    /// The request has a member that is none of `execute`, `arguments` and `id`.
    UnexpectedMember(&'f [u8]),
    /// The request names no command.
    NoExecute,
    /// There is no such command.
    UnknownCommand(&'f [u8]),
    /// The argument of this name has not that QAPI type.
    ParameterType(&'static str, &'static str),
    /// The argument of this name is mandatory.
    ParameterMissing(&'static str),
    /// The command has no such argument.
    UnexpectedParameter(&'f [u8]),
    /// The reply does not fit into the memory that there is for it.
    ReplyTooLong,
    /// The guest did not sleep.
    Suspend(SuspendError),
    /// The interfaces could not be read.
    Interfaces(Errno),
}

/// What is wrong with the bytes of a request. The texts are the reference's, with more detail where that helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A byte that cannot stand here; the token ends with it.
    Stray,
    /// Something else stands where a value should.
    ExpectingValue,
    /// A member of an object has no name.
    KeyNotString,
    /// A member of an object has no value.
    MissingColon,
    /// Neither `,` nor `}` behind a member.
    SeparatorInObject,
    /// Neither `,` nor `]` behind an element.
    SeparatorInArray,
    /// A word that is none of `true`, `false` and `null`.
    InvalidKeyword,
    /// `\` and something that it does not escape.
    InvalidEscape,
    /// Bytes in a string that are not UTF-8 (RFC 3629).
    InvalidUtf8,
    /// Half a surrogate pair, or `\u` without four digits.
    InvalidUnicode,
    /// One object has two members of the same name.
    DuplicateKey,
    /// A number too large for a double: it could not be echoed.
    NumberRange,
    /// More than [`limits::DEPTH`] brackets are open.
    Depth,
    /// More than [`limits::MEMBERS`] members in one object.
    Members,
    /// More bytes than this, without the white space between tokens.
    TooLong(usize),
}

/// What goes into a sentence in the place of a `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word<'f> {
    Bytes(&'f [u8]),
    Number(usize),
}

/// A sentence: `%` stands for the words, one after the other.
pub(crate) struct Sentence<'f> {
    pub(crate) form: &'static str,
    pub(crate) words: [Word<'f>; 2],
}

impl<'f> Error<'f> {
    /// The QAPI error class (`QapiErrorClass`): libvirt takes `CommandNotFound` for "unsupported".
    pub fn class(&self) -> &'static str {
        match self {
            Error::UnknownCommand(_) => "CommandNotFound",
            _ => "GenericError",
        }
    }

    /// What to tell the host.
    #[inline(never)]
    pub(crate) fn sentence(&self) -> Sentence<'f> {
        let mut first = Word::Number(0);
        let mut second = Word::Number(0);
        let form = match *self {
            Error::Syntax(damage, token) => {
                first = match damage {
                    Damage::Depth => Word::Number(limits::DEPTH),
                    Damage::Members => Word::Number(limits::MEMBERS),
                    Damage::TooLong(limit) => Word::Number(limit),
                    Damage::InvalidUnicode => Word::Bytes(token.get(..6).unwrap_or(token)),
                    _ => Word::Bytes(token.get(..limits::SHOWN_TOKEN_BYTES).unwrap_or(token)),
                };
                damage.form()
            }
            Error::NotAnObject => "QMP input must be a JSON object",
            Error::ExecuteNotString => "QMP input member 'execute' must be a string",
            Error::ArgumentsNotObject => "QMP input member 'arguments' must be an object",
            Error::UnexpectedMember(name) => {
                first = Word::Bytes(name);
                "QMP input member '%' is unexpected"
            }
            Error::NoExecute => "QMP input lacks member 'execute'",
            Error::UnknownCommand(name) => {
                first = Word::Bytes(name);
                "The command % has not been found"
            }
            Error::ParameterType(name, expected) => {
                first = Word::Bytes(name.as_bytes());
                second = Word::Bytes(expected.as_bytes());
                "Invalid parameter type for '%', expected: %"
            }
            Error::ParameterMissing(name) => {
                first = Word::Bytes(name.as_bytes());
                "Parameter '%' is missing"
            }
            Error::UnexpectedParameter(name) => {
                first = Word::Bytes(name);
                "Parameter '%' is unexpected"
            }
            Error::ReplyTooLong => "the reply is larger than the guest's memory allows",
            Error::Suspend(SuspendError::Unsupported) => "the requested suspend mode is not supported by the guest",
            Error::Suspend(SuspendError::Write(file, errno)) => {
                first = Word::Bytes(file.as_bytes());
                second = errno_word(errno);
                "suspend: cannot write to '%': %"
            }
            Error::Suspend(SuspendError::Helper(name, status)) => {
                first = Word::Bytes(name.as_bytes());
                second = Word::Number(usize::from(status));
                "the helper program '%' returned an unexpected exit status code (%)"
            }
            Error::Suspend(SuspendError::Job(errno)) => {
                first = errno_word(errno);
                "failed to create child process: %"
            }
            Error::Interfaces(errno) => {
                first = errno_word(errno);
                "failed to get network interfaces: %"
            }
        };
        Sentence { form, words: [first, second] }
    }
}

impl Damage {
    fn form(self) -> &'static str {
        match self {
            Damage::Stray => "JSON parse error, stray '%'",
            Damage::ExpectingValue => "JSON parse error, expecting value",
            Damage::KeyNotString => "JSON parse error, key is not a string in object",
            Damage::MissingColon => "JSON parse error, missing : in object pair",
            Damage::SeparatorInObject => "JSON parse error, expected separator in dict",
            Damage::SeparatorInArray => "JSON parse error, expected separator in list",
            Damage::InvalidKeyword => "JSON parse error, invalid keyword '%'",
            Damage::InvalidEscape => "JSON parse error, invalid escape sequence in string",
            Damage::InvalidUtf8 => "JSON parse error, invalid UTF-8 sequence in string",
            Damage::InvalidUnicode => "JSON parse error, % is not a valid Unicode character",
            Damage::DuplicateKey => "JSON parse error, duplicate key",
            Damage::NumberRange => "JSON parse error, number out of range '%'",
            Damage::Depth => "JSON nesting depth limit exceeded: at most % brackets",
            Damage::Members => "JSON token count limit exceeded: at most % members of an object",
            Damage::TooLong(_) => "JSON token size limit exceeded: at most % bytes",
        }
    }
}

fn errno_word(errno: Errno) -> Word<'static> {
    match errno_text(errno) {
        b"" => Word::Number(usize::from(errno.0)),
        text => Word::Bytes(text),
    }
}

/// What strerror(3) says of an error number in the C locale; nothing where it is not known here.
pub fn errno_text(errno: Errno) -> &'static [u8] {
    match errno.0 {
        95 => b"Operation not supported",
        98 => b"Address already in use",
        110 => b"Connection timed out",
        number => ERRNO.as_bytes().split(|byte| *byte == b'\n').nth(usize::from(number)).unwrap_or_default(),
    }
}

/// A line for each number, from 0 on.
const ERRNO: &str = "\
Success
Operation not permitted
No such file or directory
No such process
Interrupted system call
Input/output error
No such device or address
Argument list too long
Exec format error
Bad file descriptor
No child processes
Resource temporarily unavailable
Cannot allocate memory
Permission denied
Bad address
Block device required
Device or resource busy
File exists
Invalid cross-device link
No such device
Not a directory
Is a directory
Invalid argument
Too many open files in system
Too many open files
Inappropriate ioctl for device
Text file busy
File too large
No space left on device
Illegal seek
Read-only file system
Too many links
Broken pipe
Numerical argument out of domain
Numerical result out of range
Resource deadlock avoided
File name too long
No locks available
Function not implemented
Directory not empty
Too many levels of symbolic links";
