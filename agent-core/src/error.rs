//! Everything that can be wrong, and the English for it. Nothing else in this crate writes a sentence.
//!
//! The texts are part of the protocol: they are those of the reference wherever it has the error, because host
//! tools look for them.

use crate::guest::{Errno, SuspendError};
use crate::limits;
use crate::reply::Reply;
use crate::text::Text;

/// What a command returns.
pub type Result<'f, T> = core::result::Result<T, Error<'f>>;

/// Why a request got no result. It may borrow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<'f> {
    /// The bytes are not JSON.
    Syntax(Syntax<'f>),
    /// The request is JSON, but no object.
    NotAnObject,
    /// The member `execute` is no string.
    ExecuteNotString,
    /// The member `arguments` is no object.
    ArgumentsNotObject,
    /// The request has a member that is none of `execute`, `arguments` and `id`.
    UnexpectedMember(Text<'f>),
    /// The request names no command.
    NoExecute,
    /// There is no such command.
    UnknownCommand(Text<'f>),
    /// The argument of this name has not that QAPI type.
    ParameterType(&'static str, &'static str),
    /// The argument of this name is mandatory.
    ParameterMissing(&'static str),
    /// The command has no such argument.
    UnexpectedParameter(Text<'f>),
    /// The reply does not fit into the memory that there is for it.
    ReplyTooLong,
    /// The guest did not sleep.
    Suspend(SuspendError),
    /// The interfaces could not be read.
    Interfaces(Errno),
}

/// What is wrong with the bytes of a request. The texts are the reference's, with more detail where that helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax<'f> {
    /// A byte that cannot stand here, behind the rest of its token.
    Stray(&'f [u8]),
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
    InvalidKeyword(&'f [u8]),
    /// `\` and something that it does not escape.
    InvalidEscape,
    /// Bytes in a string that are not UTF-8 (RFC 3629).
    InvalidUtf8,
    /// Half a surrogate pair, or `\u` without four digits.
    InvalidUnicode(&'f [u8]),
    /// One object has two members of the same name.
    DuplicateKey,
    /// A number too large for a double: it could not be echoed.
    NumberRange(&'f [u8]),
    /// More than [`limits::DEPTH`] brackets are open.
    Depth,
    /// More than [`limits::MEMBERS`] members in one object.
    Members,
    /// More bytes than this, without the white space between tokens.
    TooLong(usize),
}

impl<'f> From<Syntax<'f>> for Error<'f> {
    fn from(syntax: Syntax<'f>) -> Self {
        Error::Syntax(syntax)
    }
}

impl Error<'_> {
    /// The QAPI error class (`QapiErrorClass`): libvirt takes `CommandNotFound` for "unsupported".
    pub fn class(&self) -> &'static str {
        match self {
            Error::UnknownCommand(_) => "CommandNotFound",
            _ => "GenericError",
        }
    }

    /// Writes the sentence into the string that the reply has open.
    pub(crate) fn describe(&self, out: &mut Reply<'_>) {
        match *self {
            Error::Syntax(syntax) => syntax.describe(out),
            Error::NotAnObject => out.part("QMP input must be a JSON object"),
            Error::ExecuteNotString => out.part("QMP input member 'execute' must be a string"),
            Error::ArgumentsNotObject => out.part("QMP input member 'arguments' must be an object"),
            Error::UnexpectedMember(name) => {
                out.part("QMP input member '");
                out.part_text(name);
                out.part("' is unexpected");
            }
            Error::NoExecute => out.part("QMP input lacks member 'execute'"),
            Error::UnknownCommand(name) => {
                out.part("The command ");
                out.part_text(name);
                out.part(" has not been found");
            }
            Error::ParameterType(name, expected) => {
                out.part("Invalid parameter type for '");
                out.part(name);
                out.part("', expected: ");
                out.part(expected);
            }
            Error::ParameterMissing(name) => {
                out.part("Parameter '");
                out.part(name);
                out.part("' is missing");
            }
            Error::UnexpectedParameter(name) => {
                out.part("Parameter '");
                out.part_text(name);
                out.part("' is unexpected");
            }
            Error::ReplyTooLong => out.part("the reply does not fit into the guest's memory set aside for it"),
            Error::Suspend(error) => describe_suspend(error, out),
            Error::Interfaces(errno) => {
                out.part("failed to get network interfaces: ");
                describe_errno(errno, out);
            }
        }
    }
}

impl Syntax<'_> {
    fn describe(&self, out: &mut Reply<'_>) {
        out.part(match self {
            Syntax::Depth | Syntax::Members | Syntax::TooLong(_) => "JSON ",
            _ => "JSON parse error, ",
        });
        match *self {
            Syntax::Stray(token) => {
                out.part("stray '");
                out.part_bytes(shown(token));
                out.part("'");
            }
            Syntax::ExpectingValue => out.part("expecting value"),
            Syntax::KeyNotString => out.part("key is not a string in object"),
            Syntax::MissingColon => out.part("missing : in object pair"),
            Syntax::SeparatorInObject => out.part("expected separator in dict"),
            Syntax::SeparatorInArray => out.part("expected separator in list"),
            Syntax::InvalidKeyword(word) => {
                out.part("invalid keyword '");
                out.part_bytes(shown(word));
                out.part("'");
            }
            Syntax::InvalidEscape => out.part("invalid escape sequence in string"),
            Syntax::InvalidUtf8 => out.part("invalid UTF-8 sequence in string"),
            Syntax::InvalidUnicode(escape) => {
                out.part_bytes(escape);
                out.part(" is not a valid Unicode character");
            }
            Syntax::DuplicateKey => out.part("duplicate key"),
            Syntax::NumberRange(number) => {
                out.part("number out of range '");
                out.part_bytes(shown(number));
                out.part("'");
            }
            Syntax::Depth => {
                out.part("nesting depth limit exceeded");
                describe_limit(limits::DEPTH, " brackets", out);
            }
            Syntax::Members => {
                out.part("token count limit exceeded");
                describe_limit(limits::MEMBERS, " members of an object", out);
            }
            Syntax::TooLong(limit) => {
                out.part("token size limit exceeded");
                describe_limit(limit, " bytes", out);
            }
        }
    }
}

fn describe_limit(limit: usize, unit: &str, out: &mut Reply<'_>) {
    out.part(": at most ");
    out.part_number(limit);
    out.part(unit);
}

fn describe_suspend(error: SuspendError, out: &mut Reply<'_>) {
    match error {
        SuspendError::Unsupported => out.part("the requested suspend mode is not supported by the guest"),
        SuspendError::Write(file, errno) => {
            out.part("suspend: cannot write to '");
            out.part(file);
            out.part("': ");
            describe_errno(errno, out);
        }
        SuspendError::Helper(name, status) => {
            out.part("the helper program '");
            out.part(name);
            out.part("' returned an unexpected exit status code (");
            out.part_number(usize::from(status));
            out.part(")");
        }
        SuspendError::Job(errno) => {
            out.part("failed to create child process: ");
            describe_errno(errno, out);
        }
    }
}

/// The front of a damaged token.
fn shown(token: &[u8]) -> &[u8] {
    token.get(..limits::SHOWN_TOKEN_BYTES).unwrap_or(token)
}

fn describe_errno(errno: Errno, out: &mut Reply<'_>) {
    match errno_text(errno) {
        Some(text) => out.part(text),
        None => {
            out.part("Unknown error ");
            out.part_number(usize::from(errno.0));
        }
    }
}

/// What strerror(3) says of an error number in the C locale; `None` where it knows no better than its number.
pub fn errno_text(errno: Errno) -> Option<&'static str> {
    ERRNO.split('\n').nth(usize::from(errno.0)).filter(|text| !text.is_empty())
}

/// A line for each error number, from 0 on; empty where no number is in use.
const ERRNO: &str = "Success
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
