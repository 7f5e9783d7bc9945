//! Everything that can be wrong, and the English for it. Nothing else in this crate writes a sentence.
//!
//! The texts are part of the protocol: they are those of the reference wherever it has the error, because host
//! tools look for them.

use crate::guest::{Errno, SuspendError};

/// Why a request got no result. It may borrow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<'f> {
    /// What is wrong.
    pub fault: Fault,
    /// With which word: it depends on the fault, as its form shows.
    pub text: &'f [u8],
    /// With which number.
    pub number: u32,
}

/// What can be wrong with a request, or go wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    // The bytes are not JSON; the word is the token where that shows.
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
    /// More than [`crate::limits::DEPTH`] brackets are open.
    Depth,
    /// More than [`crate::limits::MEMBERS`] members in one object.
    Members,
    /// More bytes than the number, without the white space between tokens.
    TooLong,

    // The request is JSON, but not one that can be run.
    /// It is no object.
    NotAnObject,
    /// The member `execute` is no string.
    ExecuteNotString,
    /// The member `arguments` is no object.
    ArgumentsNotObject,
    /// It has a member of this name, which is none of `execute`, `arguments` and `id`.
    UnexpectedMember,
    /// It names no command.
    NoExecute,
    /// There is no command of this name.
    UnknownCommand,
    /// The argument of this name is no integer.
    NotAnInteger,
    /// The argument of this name is mandatory.
    ParameterMissing,
    /// The command has no argument of this name.
    UnexpectedParameter,

    // The command did not work.
    /// The reply does not fit into the memory that there is for it.
    ReplyTooLong,
    /// The guest cannot sleep this way.
    SuspendUnsupported,
    /// Writing this file failed, by the number.
    SuspendWrite,
    /// This program ended with the number.
    SuspendHelper,
    /// The job could not be started, by the number.
    Job,
    /// The interfaces could not be read, by the number.
    Interfaces,
}

/// Bytes of a damaged token that are shown, from the front. Beyond: the rest is left out.
const SHOWN_TOKEN_BYTES: usize = 40;

impl Fault {
    /// The error that needs no word.
    pub const fn plain(self) -> Error<'static> {
        self.of(&[])
    }

    /// The error with this word.
    pub const fn of(self, text: &[u8]) -> Error<'_> {
        Error { fault: self, text, number: 0 }
    }

    /// The error with the number of an error of the kernel.
    pub fn by(self, errno: Errno) -> Error<'static> {
        Error { number: u32::from(errno.0), ..self.plain() }
    }

    /// What to tell the host: `%` stands for the word, `#` for the number, `!` for what it says as an error number.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Fault::Stray => "JSON parse error, stray '%'",
            Fault::ExpectingValue => "JSON parse error, expecting value",
            Fault::KeyNotString => "JSON parse error, key is not a string in object",
            Fault::MissingColon => "JSON parse error, missing : in object pair",
            Fault::SeparatorInObject => "JSON parse error, expected separator in dict",
            Fault::SeparatorInArray => "JSON parse error, expected separator in list",
            Fault::InvalidKeyword => "JSON parse error, invalid keyword '%'",
            Fault::InvalidEscape => "JSON parse error, invalid escape sequence in string",
            Fault::InvalidUtf8 => "JSON parse error, invalid UTF-8 sequence in string",
            Fault::InvalidUnicode => "JSON parse error, % is not a valid Unicode character",
            Fault::DuplicateKey => "JSON parse error, duplicate key",
            Fault::NumberRange => "JSON parse error, number out of range '%'",
            Fault::Depth => "JSON nesting depth limit exceeded: at most 1024 brackets",
            Fault::Members => "JSON token count limit exceeded: at most 1024 members of an object",
            Fault::TooLong => "JSON token size limit exceeded: at most # bytes",
            Fault::NotAnObject => "QMP input must be a JSON object",
            Fault::ExecuteNotString => "QMP input member 'execute' must be a string",
            Fault::ArgumentsNotObject => "QMP input member 'arguments' must be an object",
            Fault::UnexpectedMember => "QMP input member '%' is unexpected",
            Fault::NoExecute => "QMP input lacks member 'execute'",
            Fault::UnknownCommand => "The command % has not been found",
            Fault::NotAnInteger => "Invalid parameter type for '%', expected: integer",
            Fault::ParameterMissing => "Parameter '%' is missing",
            Fault::UnexpectedParameter => "Parameter '%' is unexpected",
            Fault::ReplyTooLong => "the reply is larger than the guest's memory allows",
            Fault::SuspendUnsupported => "the requested suspend mode is not supported by the guest",
            Fault::SuspendWrite => "suspend: cannot write to '%': !",
            Fault::SuspendHelper => "the helper program '%' returned an unexpected exit status code (#)",
            Fault::Job => "failed to create child process: !",
            Fault::Interfaces => "failed to get network interfaces: !",
        }
    }
}

impl<'f> Error<'f> {
    /// The QAPI error class (`QapiErrorClass`): libvirt takes `CommandNotFound` for "unsupported".
    pub fn class(&self) -> &'static str {
        if self.fault == Fault::UnknownCommand { "CommandNotFound" } else { "GenericError" }
    }

    /// The word, as much of it as is shown.
    pub(crate) fn word(&self) -> &'f [u8] {
        let shown = match self.fault {
            Fault::InvalidUnicode => 6,
            fault if fault < Fault::NotAnObject => SHOWN_TOKEN_BYTES,
            _ => usize::MAX,
        };
        self.text.get(..shown).unwrap_or(self.text)
    }
}

impl From<SuspendError> for Error<'_> {
    fn from(error: SuspendError) -> Self {
        match error {
            SuspendError::Unsupported => Fault::SuspendUnsupported.plain(),
            SuspendError::Write(file, errno) => Error { text: file.as_bytes(), ..Fault::SuspendWrite.by(errno) },
            SuspendError::Helper(name, status) => {
                Error { number: u32::from(status), ..Fault::SuspendHelper.of(name.as_bytes()) }
            }
            SuspendError::Job(errno) => Fault::Job.by(errno),
        }
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
