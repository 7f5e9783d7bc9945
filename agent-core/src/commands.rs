//! The table of commands. One row a command, in the order of the reference's schema; what a row says of its command
//! shows in `guest-info`.
//!
//! A command is a function in the file of its domain. It reads top to bottom in three steps: parse all arguments and
//! refuse others; do everything that can fail; write the value of the reply. To add one: write the function, add the
//! row, add its vectors to `agent-core/tests/`.

#[cfg(not(feature = "minimal"))]
mod clock;
#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "files")]
mod files;
mod info;
mod network;
mod power;
#[cfg(not(feature = "minimal"))]
mod shutdown;
#[cfg(feature = "storage")]
mod storage;
mod sync;
#[cfg(not(feature = "minimal"))]
mod system;

use core::ffi::CStr;
use core::task::Poll;

pub use crate::request::Elements;
pub use info::VERSION;

use crate::error::{Error, Fault, first_line};
use crate::guest::{Errno, Guest, Job};
use crate::number;
use crate::reply::Reply;
use crate::request::{self, Arguments};

/// What a command works with: the guest, its arguments, and the reply whose value it writes.
///
/// In this order, so that the code reaches what it uses most by a short offset.
#[repr(C)]
pub struct Call<'c, G> {
    /// What it may act on.
    pub guest: &'c mut G,
    /// Where exactly one value goes, unless the command fails.
    pub reply: Reply<'c>,
    /// Why it failed, if it did.
    pub(crate) error: Error<'c>,
    /// That it is what is wrong with an argument.
    pub(crate) refused: bool,
    /// What the configuration allows.
    pub(crate) permissions: Permissions,
    /// What the host wants.
    pub arguments: Arguments<'c>,
}

/// The command did not work; why, stands in its [`Call`].
///
/// An error is too large to be handed from function to function: that cost a kilobyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What a command returns.
pub type Result<T> = core::result::Result<T, Failed>;

impl<'c, G> Call<'c, G> {
    /// Notes why the command fails: what is wrong, and with which word.
    #[inline(never)]
    pub fn fail(&mut self, fault: Fault, word: &'c [u8]) -> Failed {
        self.error = fault.of(word);
        Failed
    }

    /// Notes why the command fails: what is wrong, and by which error of the kernel.
    #[inline(never)]
    pub fn fail_by(&mut self, fault: Fault, errno: Errno) -> Failed {
        self.error = fault.by(errno);
        Failed
    }

    // Arguments. What is wrong with the first of them that is wrong is noted, and said by `no_more_arguments`: only
    // behind that may a command rely on what it was given.

    /// A mandatory argument of QAPI type `int`: 64 bits, signed, and written as an integer.
    #[inline(never)]
    pub fn integer(&mut self, name: &'static str) -> i64 {
        let value = self.optional_integer(name);
        self.mandatory(name, value)
    }

    /// The same, where it may be missing.
    #[inline(never)]
    pub fn optional_integer(&mut self, name: &'static str) -> Option<i64> {
        self.typed(name, number::integer, Fault::NotAnInteger)
    }

    /// A mandatory argument of QAPI type `str`. It stands in the frame as a C string: no byte of it is NUL.
    #[inline(never)]
    pub fn string(&mut self, name: &'static str) -> &'c CStr {
        let value = self.optional_string(name);
        self.mandatory(name, value)
    }

    /// The same, where it may be missing.
    #[inline(never)]
    pub fn optional_string(&mut self, name: &'static str) -> Option<&'c CStr> {
        self.typed(name, request::c_string, Fault::NotAString)
    }

    /// An argument of QAPI type `['str']` that may be missing: its elements, all of them strings.
    #[inline(never)]
    pub fn optional_strings(&mut self, name: &'static str) -> Option<Elements<'c>> {
        let list = self.typed(name, request::elements, Fault::NotAnArray)?;
        if let Some(index) = list.into_iter().position(|value| request::c_string(value).is_none())
            && let Some(error) = self.refuse(Fault::ElementNotAString, name.as_bytes())
        {
            error.number = u32::try_from(index).unwrap_or(u32::MAX);
        }
        Some(list)
    }

    /// The value of a mandatory argument, as it stands in the frame.
    #[inline(never)]
    pub fn value(&mut self, name: &'static str) -> &'c [u8] {
        let value = self.arguments.value(name);
        self.mandatory(name, value)
    }

    /// The number that the value of this argument is.
    #[inline(never)]
    pub fn number(&mut self, name: &'static str, value: &[u8]) -> i64 {
        number::integer(value).unwrap_or_else(|| {
            self.refuse(Fault::NotAnInteger, name.as_bytes());
            0
        })
    }

    /// Which of these words the value of this argument is: an enumeration of QAPI.
    #[inline(never)]
    pub fn word(&mut self, name: &'static str, value: &'c [u8], words: &[&'static str]) -> i64 {
        let word = request::split_string(value).0;
        match (0..).zip(words).find(|(_, known)| known.as_bytes() == word) {
            Some((number, _)) => number,
            None => {
                if let Some(error) = self.refuse(Fault::NotAMember, word) {
                    error.other = name.as_bytes();
                }
                0
            }
        }
    }

    /// The value of this argument has none of the types of an alternative of QAPI.
    #[inline(never)]
    pub fn not_an(&mut self, name: &'static str, alternative: &'static [u8]) {
        if let Some(error) = self.refuse(Fault::NotAnAlternative, name.as_bytes()) {
            error.other = alternative;
        }
    }

    /// The value of an argument, if it is there.
    #[inline]
    fn typed<T>(&mut self, name: &'static str, read: fn(&'c [u8]) -> Option<T>, fault: Fault) -> Option<T> {
        let value = self.arguments.value(name)?;
        let value = read(value);
        if value.is_none() {
            self.refuse(fault, name.as_bytes());
        }
        value
    }

    #[inline]
    fn mandatory<T: Default>(&mut self, name: &'static str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.refuse(Fault::ParameterMissing, name.as_bytes());
            T::default()
        })
    }

    /// Notes what is wrong with an argument, unless another one is wrong.
    #[inline(never)]
    fn refuse(&mut self, fault: Fault, word: &'c [u8]) -> Option<&mut Error<'c>> {
        if self.refused {
            return None;
        }
        self.refused = true;
        self.fail(fault, word);
        Some(&mut self.error)
    }

    /// All arguments have been asked for: any other is one too many.
    #[inline(never)]
    pub fn no_more_arguments(&mut self) -> Result<()> {
        if let Some(name) = self.arguments.unexpected() {
            self.refuse(Fault::UnexpectedParameter, name);
        }
        if self.refused { Err(Failed) } else { Ok(()) }
    }
}

/// Answers with the value of a command that has nothing to tell.
#[inline(never)]
fn nothing<G>(call: &mut Call<'_, G>) -> Result<()> {
    call.reply.known(b"{}");
    Ok(())
}

/// Which commands the configuration allows: bit N is row N of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permissions(u64);

impl Permissions {
    /// Every command.
    pub(crate) const ALL: Self = Permissions(u64::MAX);

    /// The same, but for those whose names these functions refuse.
    pub(crate) fn new(allowed: &dyn Fn(&[u8]) -> bool) -> Self {
        let (mut rows, mut row, mut names) = (0u64, 1u64, NAMES);
        while !names.is_empty() {
            if allowed(first_line(&mut names)) {
                rows |= row;
            }
            row <<= 1;
        }
        Permissions(rows)
    }

    /// Does it allow this row?
    pub(crate) fn allows(self, row: usize) -> bool {
        u32::try_from(row).ok().and_then(|row| self.0.checked_shr(row)).is_some_and(|rows| rows & 1 == 1)
    }
}

/// A command, or the first half of one that takes long. `T` is what it has besides the value in the reply.
pub(crate) type Start<G, T> = fn(&mut Call<'_, G>) -> Result<T>;

/// The second half: it writes the value when the job has ended.
pub(crate) type Finish<G> = fn(&mut Call<'_, G>, Job) -> Poll<Result<()>>;

/// How a command runs.
pub(crate) enum Run<G: 'static> {
    /// At once: writes the value of its reply.
    Now(Start<G, ()>),
    /// Starts a job, and writes the value of its reply when the job has ended. The replies to earlier requests are
    /// sent before it starts.
    Later(Start<G, Job>, Finish<G>),
}

impl<G> Clone for Run<G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G> Copy for Run<G> {}

/// Arguments that a log may show, by name: none of them is ever a secret.
pub(crate) const AUDITED_ARGUMENTS: [&str; 4] = ["path", "mode", "time", "username"];

/// A row of the table.
pub(crate) struct Command<G: 'static> {
    pub(crate) run: Run<G>,
    /// Does it answer when it succeeds? (QAPI `success-response`)
    pub(crate) answers: bool,
    /// Does the byte 0xFF stand before its reply?
    pub(crate) delimited: bool,
    /// Does it run while the file systems are frozen?
    pub(crate) while_frozen: bool,
    /// Is it logged that a host wants it, with [`AUDITED_ARGUMENTS`]?
    pub(crate) audited: bool,
}

/// Makes the table and the text of its names, so that a name is no more than its letters in the file.
macro_rules! table {
    ($($(#[$condition:meta])* $name:literal => $row:expr,)*) => {
        impl<G: Guest + 'static> Command<G> {
            /// All commands of this agent: at most 64, one for each bit of [`Permissions`].
            pub(crate) const TABLE: &'static [Command<G>] = &[$($(#[$condition])* $row,)*];
        }

        /// Their names, in that order. They are in the file as [`NAMES`] only.
        const ALL_NAMES: &[&str] = &[$($(#[$condition])* $name,)*];
    };
}

table! {
    "guest-sync-delimited" => Command::now(sync::sync).delimited().while_frozen(),
    "guest-sync" => Command::now(sync::sync).while_frozen(),
    "guest-ping" => Command::now(sync::ping).while_frozen(),
    #[cfg(not(feature = "minimal"))]
    "guest-get-time" => Command::now(clock::get_time),
    #[cfg(not(feature = "minimal"))]
    "guest-set-time" => Command::now(clock::set_time).audited(),
    "guest-info" => Command::now(info::info).while_frozen(),
    #[cfg(not(feature = "minimal"))]
    "guest-shutdown" => Command::later(shutdown::shutdown, shutdown::shutting_down).silent().audited(),
    #[cfg(feature = "files")]
    "guest-file-open" => Command::now(files::open).audited(),
    #[cfg(feature = "files")]
    "guest-file-close" => Command::now(files::close),
    #[cfg(feature = "files")]
    "guest-file-read" => Command::now(files::read),
    #[cfg(feature = "files")]
    "guest-file-write" => Command::now(files::write),
    #[cfg(feature = "files")]
    "guest-file-seek" => Command::now(files::seek),
    #[cfg(feature = "files")]
    "guest-file-flush" => Command::now(files::flush),
    #[cfg(feature = "storage")]
    "guest-fsfreeze-status" => Command::now(storage::freeze_status).while_frozen(),
    #[cfg(feature = "storage")]
    "guest-fsfreeze-freeze" => Command::later(storage::freeze, storage::settled).audited(),
    #[cfg(feature = "storage")]
    "guest-fsfreeze-freeze-list" => Command::later(storage::freeze_list, storage::settled).audited(),
    #[cfg(feature = "storage")]
    "guest-fsfreeze-thaw" => Command::later(storage::thaw, storage::settled).while_frozen().audited(),
    #[cfg(feature = "storage")]
    "guest-fstrim" => Command::later(storage::trim, storage::trimmed).audited(),
    "guest-suspend-disk" => Command::later(power::suspend_disk, power::suspended).silent().audited(),
    "guest-suspend-ram" => Command::later(power::suspend_ram, power::suspended).silent().audited(),
    "guest-suspend-hybrid" => Command::later(power::suspend_hybrid, power::suspended).silent().audited(),
    "guest-network-get-interfaces" => Command::now(network::interfaces),
    #[cfg(feature = "storage")]
    "guest-get-fsinfo" => Command::now(storage::file_systems),
    #[cfg(feature = "exec")]
    "guest-exec" => Command::now(exec::exec).audited(),
    #[cfg(feature = "exec")]
    "guest-exec-status" => Command::now(exec::status),
    #[cfg(not(feature = "minimal"))]
    "guest-get-host-name" => Command::now(system::host_name),
    #[cfg(not(feature = "minimal"))]
    "guest-get-users" => Command::now(system::users),
    #[cfg(not(feature = "minimal"))]
    "guest-get-timezone" => Command::now(clock::timezone),
    #[cfg(not(feature = "minimal"))]
    "guest-get-osinfo" => Command::now(system::os_info),
    #[cfg(not(feature = "minimal"))]
    "guest-get-load" => Command::now(system::load),
}

/// The names of the rows, a line each.
pub(crate) const NAMES: &[u8] = &JOINED_NAMES;

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const JOINED_BYTES: usize = {
    let (mut len, mut row) = (0, 0);
    while row < ALL_NAMES.len() {
        len += ALL_NAMES[row].len() + 1;
        row += 1;
    }
    len
};

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "compile time")]
const JOINED_NAMES: [u8; JOINED_BYTES] = {
    let mut text = [b'\n'; JOINED_BYTES];
    let (mut at, mut row) = (0, 0);
    while row < ALL_NAMES.len() {
        let name = ALL_NAMES[row].as_bytes();
        let mut letter = 0;
        while letter < name.len() {
            text[at + letter] = name[letter];
            letter += 1;
        }
        at += letter + 1;
        row += 1;
    }
    text
};

impl<G> Command<G> {
    const fn now(run: Start<G, ()>) -> Self {
        Command { run: Run::Now(run), answers: true, delimited: false, while_frozen: false, audited: false }
    }

    const fn later(start: Start<G, Job>, finish: Finish<G>) -> Self {
        Command { run: Run::Later(start, finish), answers: true, delimited: false, while_frozen: false, audited: false }
    }

    /// Success sends nothing.
    const fn silent(self) -> Self {
        Command { answers: false, ..self }
    }

    const fn delimited(self) -> Self {
        Command { delimited: true, ..self }
    }

    /// It changes something, so a log shall tell.
    const fn audited(self) -> Self {
        Command { audited: true, ..self }
    }

    const fn while_frozen(self) -> Self {
        Command { while_frozen: true, ..self }
    }
}
