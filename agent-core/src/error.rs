//! Everything that can be wrong, and the English for it. Nothing else in this crate writes a sentence.
//!
//! The texts are part of the protocol: they are those of the reference wherever it has the error, because host
//! tools look for them.

use crate::guest::{Errno, FreezeError, SuspendError};
use crate::limits;
use crate::packed;

/// Why a request got no result. It may borrow from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<'f> {
    /// What is wrong.
    pub fault: Fault,
    /// With which word: it depends on the fault, as its form shows.
    pub text: &'f [u8],
    /// With which other word.
    pub other: &'f [u8],
    /// With which number.
    pub number: u32,
}

/// Makes the list of faults: each with its form, which says what to tell the host. In a form `%` stands for the word,
/// `&` for the other word, `#` for the number, and `!` for what the number says as one of the kernel's errors. The
/// agent with the fewest commands cannot fail in the ways of `full`, and has no sentences for them.
macro_rules! faults {
    (
        seed { $($(#[$doc:meta])* $name:ident = $form:literal;)* }
        full { $($(#[$full_doc:meta])* $full_name:ident = $full_form:literal;)* }
    ) => {
        /// What can be wrong with a request, or go wrong with it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
            $($(#[$full_doc])* $full_name,)*
        }

        /// Their forms, a line each.
        #[cfg(not(feature = "minimal"))]
        const FORMS: &[u8] = packed!(concat!($($form, "\n",)* $($full_form, "\n",)*));
        #[cfg(feature = "minimal")]
        const FORMS: &[u8] = packed!(concat!($($form, "\n",)*));
    };
}

faults! {
    seed {
        // The bytes are not JSON; the word is the token where that shows.
        /// A byte that cannot stand here; the token ends with it.
        Stray = "stray '%'";
        /// Something else stands where a value should.
        ExpectingValue = "expecting value";
        /// A member of an object has no name.
        KeyNotString = "key is not a string in object";
        /// A member of an object has no value.
        MissingColon = "missing : in object pair";
        /// Neither `,` nor `}` behind a member.
        SeparatorInObject = "expected separator in dict";
        /// Neither `,` nor `]` behind an element.
        SeparatorInArray = "expected separator in list";
        /// A word that is none of `true`, `false` and `null`.
        InvalidKeyword = "invalid keyword '%'";
        /// `\` and something that it does not escape.
        InvalidEscape = "invalid escape sequence in string";
        /// Bytes in a string that are not UTF-8 (RFC 3629).
        InvalidUtf8 = "invalid UTF-8 sequence in string";
        /// Half a surrogate pair, or `\u` without four digits.
        InvalidUnicode = "% is not a valid Unicode character";
        /// One object has two members of the same name.
        DuplicateKey = "duplicate key";
        /// A number too large for a double: it could not be echoed.
        NumberRange = "number out of range '%'";
        /// More than [`crate::limits::DEPTH`] brackets are open.
        Depth = "JSON nesting depth limit exceeded: at most 1024 brackets";
        /// Finding duplicate keys would take more than [`crate::limits::KEY_SEARCH_BYTES`].
        Members = "JSON token count limit exceeded: too many members in its objects";
        /// More bytes than the number, without the white space between tokens.
        TooLong = "JSON token size limit exceeded: at most # bytes";

        // The request is JSON, but not one that can be run.
        /// It is no object.
        NotAnObject = "QMP input must be a JSON object";
        /// The member `execute` is no string.
        ExecuteNotString = "QMP input member 'execute' must be a string";
        /// The member `arguments` is no object.
        ArgumentsNotObject = "QMP input member 'arguments' must be an object";
        /// It has a member of this name, which is none of `execute`, `arguments` and `id`.
        UnexpectedMember = "QMP input member '%' is unexpected";
        /// It names no command.
        NoExecute = "QMP input lacks member 'execute'";
        /// There is no command of this name.
        UnknownCommand = "The command % has not been found";
        /// The command of this name is not allowed, or not while the file systems are frozen.
        Disabled = "Command % has been disabled: the command is not allowed";
        /// The argument of this name is no integer.
        NotAnInteger = "Invalid parameter type for '%', expected: integer";
        /// The argument of this name is mandatory.
        ParameterMissing = "Parameter '%' is missing";
        /// The command has no argument of this name.
        UnexpectedParameter = "Parameter '%' is unexpected";

        // The command did not work.
        /// The reply does not fit into the memory that there is for it.
        ReplyTooLong = "the reply is larger than the guest's memory allows";
        /// The guest cannot sleep this way.
        SuspendUnsupported = "the requested suspend mode is not supported by the guest";
        /// The guest is being put to sleep already, or just waking up.
        SuspendBusy = "another suspend is in progress";
        /// Writing this file failed, by the number.
        SuspendWrite = "suspend: cannot write to '%': !";
        /// This program ended with the number.
        SuspendHelper = "the helper program '%' returned an unexpected exit status code (#)";
        /// The job could not be started, by the number.
        Job = "failed to create child process: !";
        /// The interfaces could not be read, by the number.
        Interfaces = "failed to get network interfaces: !";
    }

    full {
        /// The argument of this name is no string.
        NotAString = "Invalid parameter type for '%', expected: string";
        /// The argument of this name is no list.
        NotAnArray = "Invalid parameter type for '%', expected: array";
        /// The element of that number, counted from 0, in the argument of this name is no string.
        ElementNotAString = "Invalid parameter type for '%[#]', expected: string";
        /// The argument of this name is of neither type that it may have; the other word is what they are called
        /// together.
        NotAnAlternative = "Invalid parameter type for '%', expected: &";
        /// The argument of the second name is none of the words it may be.
        NotAMember = "Parameter '&' does not accept value '%'";
        /// No clock can be set to this time.
        InvalidTime = "Invalid time";
        /// The clock could not be set, by the number.
        SetTime = "Failed to set time to guest: !";
        /// The clock is set, but the hardware clock could not be, by the number.
        SetHardwareClock = "failed to set hardware clock to system time: !";
        /// The clock could not be set to the hardware clock, by the number.
        SetTimeByHardware = "failed to set system time to hardware clock: !";
        /// The guest cannot end this way. (The parenthesis is open in the reference too.)
        ShutdownMode = "mode is invalid (valid values are: halt|powerdown|reboot";
        /// The program that was to end the guest ended with the number.
        ShutdownHelper = "child process has failed to shutdown: exit status #";
        /// The guest could not be ended, by the number.
        Shutdown = "child process has failed to shutdown: !";
        /// The list of mounts could not be read, by the number.
        Mounts = "failed to open mtab file: '/proc/self/mountinfo': !";
        /// The program of this name could not be executed, by the number.
        Exec = "Failed to execute child process \\u201C%\\u201D (!)";
        /// No process that was started has this number, or none any more.
        NoProcess = "PID % does not exist";
        /// The text is not base64.
        Base64 = "Base64 data contains invalid characters";
        /// A file cannot be opened like this.
        FileMode = "invalid file open mode '%'";
        /// The file of this name could not be opened in the other word's mode, by the number.
        FileOpen = "failed to open file '%' (mode: '&'): !";
        /// No open file has this handle.
        FileHandle = "handle '%' has not been found";
        /// So many bytes can be neither read nor written.
        FileCount = "value '%' is invalid for argument count";
        /// An offset cannot count from there.
        Whence = "invalid whence code %";
        /// Closing a file failed, by the number.
        FileClose = "failed to close handle: !";
        /// Reading a file failed, by the number.
        FileRead = "failed to read file: !";
        /// Writing a file failed, by the number.
        FileWrite = "failed to write to file: !";
        /// Moving in a file failed, by the number.
        FileSeek = "failed to seek file: !";
        /// The mount point, which is the word, could not be opened, by the number.
        FreezeOpen = "failed to open %: !";
        /// The file system mounted at the word could not be frozen, by the number.
        Freeze = "failed to freeze %: !";
        /// The hook, which is the word, cannot be run, by the number.
        HookMissing = "can't access fsfreeze hook '%': !";
        /// The hook ended with the number.
        HookFailed = "child process has failed to execute fsfreeze hook: exit status #";
        /// The file system or its disk cannot be trimmed.
        TrimUnsupported = "trim not supported";
        /// The file system could not be trimmed, by the number.
        Trim = "failed to trim: !";
        /// The mount point of what was to be trimmed could not be opened, by the number.
        TrimOpen = "failed to open: !";
    }
}

impl Fault {
    /// The error that needs no word.
    pub const fn plain(self) -> Error<'static> {
        self.of(&[])
    }

    /// The error with this word.
    pub const fn of(self, text: &[u8]) -> Error<'_> {
        Error { fault: self, text, other: &[], number: 0 }
    }

    /// The error with the number of an error of the kernel.
    pub fn by(self, errno: Errno) -> Error<'static> {
        Error { number: u32::from(errno.0), ..self.plain() }
    }

    /// Is its word [`crate::guest::Freeze::culprit`]?
    pub(crate) fn is_of_freeze(self) -> bool {
        matches!(self, Fault::FreezeOpen | Fault::Freeze | Fault::HookMissing)
    }

    /// Is the request no JSON, by the grammar? The others that are none exceed a limit.
    pub(crate) fn is_syntax(self) -> bool {
        self < Fault::Depth
    }

    /// What to say of it, packed.
    #[allow(clippy::as_conversions, reason = "the number of a variant without a payload")]
    pub(crate) fn form(self) -> &'static [u8] {
        line(FORMS, self as usize)
    }
}

impl<'f> Error<'f> {
    /// The QAPI error class (`QapiErrorClass`): libvirt takes `CommandNotFound` for "unsupported".
    pub fn class(&self) -> &'static str {
        if matches!(self.fault, Fault::UnknownCommand | Fault::Disabled) { "CommandNotFound" } else { "GenericError" }
    }

    /// The word, as much of it as is shown.
    pub(crate) fn word(&self) -> &'f [u8] {
        let shown = match self.fault {
            Fault::InvalidUnicode => ESCAPE_BYTES,
            fault if fault < Fault::NotAnObject => limits::SHOWN_TOKEN_BYTES,
            _ => usize::MAX,
        };
        self.text.get(..shown).unwrap_or(self.text)
    }
}

impl From<SuspendError> for Error<'_> {
    fn from(error: SuspendError) -> Self {
        match error {
            SuspendError::Unsupported => Fault::SuspendUnsupported.plain(),
            SuspendError::Busy => Fault::SuspendBusy.plain(),
            SuspendError::Write(file, errno) => Error { text: file.to_bytes(), ..Fault::SuspendWrite.by(errno) },
            SuspendError::Helper(name, status) => {
                Error { number: u32::from(status), ..Fault::SuspendHelper.of(name.to_bytes()) }
            }
            SuspendError::Job(errno) => Fault::Job.by(errno),
        }
    }
}

impl From<FreezeError> for Error<'_> {
    fn from(error: FreezeError) -> Self {
        let (fault, errno) = match error {
            FreezeError::Mounts(errno) => (Fault::Mounts, errno),
            FreezeError::Open(errno) => (Fault::FreezeOpen, errno),
            FreezeError::Freeze(errno) => (Fault::Freeze, errno),
            FreezeError::HookMissing(errno) => (Fault::HookMissing, errno),
            FreezeError::HookFailed(status) => (Fault::HookFailed, Errno(u16::from(status))),
            FreezeError::Job(errno) => (Fault::Job, errno),
        };
        fault.by(errno)
    }
}

/// What strerror(3) says of an error number in the C locale, packed; nothing where it is not known here.
pub fn errno_text(errno: Errno) -> &'static [u8] {
    match errno.0 {
        95 => packed!("Operation not supported"),
        97 => packed!("Address family not supported by protocol"),
        98 => packed!("Address already in use"),
        99 => packed!("Cannot assign requested address"),
        110 => packed!("Connection timed out"),
        125 => packed!("Operation canceled"),
        number => line(ERRNO, usize::from(number)),
    }
}

/// A line of a text, counted from 0.
#[inline(never)]
pub(crate) fn line(mut text: &'static [u8], number: usize) -> &'static [u8] {
    for _ in 0..number {
        first_line(&mut text);
    }
    first_line(&mut text)
}

/// Takes the first line off a text.
#[inline(never)]
pub(crate) fn first_line(text: &mut &'static [u8]) -> &'static [u8] {
    let all = *text;
    let len = all.iter().position(|byte| *byte == b'\n').unwrap_or(all.len());
    *text = all.get(len.wrapping_add(1)..).unwrap_or_default();
    all.get(..len).unwrap_or_default()
}

/// Bytes of `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// A line for each number, from 0 on.
const ERRNO: &[u8] = packed!(
    "\
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
Too many levels of symbolic links"
);
