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

use crate::error::{Error, Fault};
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

    /// A mandatory argument of QAPI type `int`: 64 bits, signed, and written as an integer.
    #[inline(never)]
    pub fn integer(&mut self, name: &'static str) -> Result<i64> {
        let value = self.optional_integer(name)?;
        self.mandatory(name, value)
    }

    /// The same, where it may be missing.
    #[inline(never)]
    pub fn optional_integer(&mut self, name: &'static str) -> Result<Option<i64>> {
        self.typed(name, number::integer, Fault::NotAnInteger)
    }

    /// A mandatory argument of QAPI type `str`. It stands in the frame as a C string: no byte of it is NUL.
    #[inline(never)]
    pub fn string(&mut self, name: &'static str) -> Result<&'c CStr> {
        let value = self.optional_string(name)?;
        self.mandatory(name, value)
    }

    /// The same, where it may be missing.
    #[inline(never)]
    pub fn optional_string(&mut self, name: &'static str) -> Result<Option<&'c CStr>> {
        self.typed(name, request::c_string, Fault::NotAString)
    }

    /// An argument of QAPI type `bool` that may be missing.
    #[inline(never)]
    pub fn optional_boolean(&mut self, name: &'static str) -> Result<Option<bool>> {
        self.typed(name, request::boolean, Fault::NotABoolean)
    }

    /// An argument of QAPI type `['str']` that may be missing: its elements, all of them strings.
    #[inline(never)]
    pub fn optional_strings(&mut self, name: &'static str) -> Result<Option<Elements<'c>>> {
        let list = self.typed(name, request::elements, Fault::NotAnArray)?;
        let other = list.and_then(|list| list.into_iter().position(|value| request::c_string(value).is_none()));
        match other {
            Some(index) => {
                self.fail(Fault::ElementNotAString, name.as_bytes());
                self.error.number = u32::try_from(index).unwrap_or(u32::MAX);
                Err(Failed)
            }
            None => Ok(list),
        }
    }

    /// The value of a mandatory argument, as it stands in the frame.
    #[inline(never)]
    pub fn value(&mut self, name: &'static str) -> Result<&'c [u8]> {
        let value = self.arguments.value(name);
        self.mandatory(name, value)
    }

    /// The number that the value of this argument is.
    pub fn number(&mut self, name: &'static str, value: &[u8]) -> Result<i64> {
        number::integer(value).ok_or_else(|| self.fail(Fault::NotAnInteger, name.as_bytes()))
    }

    /// Which of these words the value of this argument is: an enumeration of QAPI.
    #[inline(never)]
    pub fn word(&mut self, name: &'static str, value: &'c [u8], words: &[&'static str]) -> Result<i64> {
        let word = request::split_string(value).0;
        match (0..).zip(words).find(|(_, known)| known.as_bytes() == word) {
            Some((number, _)) => Ok(number),
            None => {
                self.error = Error { other: name.as_bytes(), ..Fault::NotAMember.of(word) };
                Err(Failed)
            }
        }
    }

    /// The value of this argument has none of the types of an alternative of QAPI.
    #[inline(never)]
    pub fn not_an(&mut self, name: &'static str, alternative: &'static [u8]) -> Failed {
        self.error = Error { other: alternative, ..Fault::NotAnAlternative.of(name.as_bytes()) };
        Failed
    }

    /// The value of an argument, if it is there.
    #[inline]
    fn typed<T>(&mut self, name: &'static str, read: fn(&'c [u8]) -> Option<T>, fault: Fault) -> Result<Option<T>> {
        match self.arguments.value(name).map(read) {
            Some(None) => Err(self.fail(fault, name.as_bytes())),
            value => Ok(value.flatten()),
        }
    }

    #[inline]
    fn mandatory<T>(&mut self, name: &'static str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.fail(Fault::ParameterMissing, name.as_bytes()))
    }

    /// All arguments have been asked for: any other is one too many.
    #[inline(never)]
    pub fn no_more_arguments(&mut self) -> Result<()> {
        match self.arguments.unexpected() {
            Some(name) => Err(self.fail(Fault::UnexpectedParameter, name)),
            None => Ok(()),
        }
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
    pub(crate) fn new<G: Guest + 'static>(allowed: &dyn Fn(&str) -> bool) -> Self {
        let mut rows = 0u64;
        for command in Command::<G>::TABLE.iter().rev() {
            rows = rows << 1 | u64::from(allowed(command.name));
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
    pub(crate) name: &'static str,
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

impl<G: Guest + 'static> Command<G> {
    /// All commands of this agent: at most 64, one for each bit of [`Permissions`].
    pub(crate) const TABLE: &'static [Command<G>] = &[
        Command::now("guest-sync-delimited", sync::sync).delimited().while_frozen(),
        Command::now("guest-sync", sync::sync).while_frozen(),
        Command::now("guest-ping", sync::ping).while_frozen(),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-time", clock::get_time),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-set-time", clock::set_time).audited(),
        Command::now("guest-info", info::info).while_frozen(),
        #[cfg(not(feature = "minimal"))]
        Command::later("guest-shutdown", shutdown::shutdown, shutdown::shutting_down).silent().audited(),
        #[cfg(feature = "files")]
        Command::now("guest-file-open", files::open).audited(),
        #[cfg(feature = "files")]
        Command::now("guest-file-close", files::close),
        #[cfg(feature = "files")]
        Command::now("guest-file-read", files::read),
        #[cfg(feature = "files")]
        Command::now("guest-file-write", files::write),
        #[cfg(feature = "files")]
        Command::now("guest-file-seek", files::seek),
        #[cfg(feature = "files")]
        Command::now("guest-file-flush", files::flush),
        #[cfg(feature = "storage")]
        Command::now("guest-fsfreeze-status", storage::freeze_status).while_frozen(),
        #[cfg(feature = "storage")]
        Command::later("guest-fsfreeze-freeze", storage::freeze, storage::settled).audited(),
        #[cfg(feature = "storage")]
        Command::later("guest-fsfreeze-freeze-list", storage::freeze_list, storage::settled).audited(),
        #[cfg(feature = "storage")]
        Command::later("guest-fsfreeze-thaw", storage::thaw, storage::settled).while_frozen().audited(),
        #[cfg(feature = "storage")]
        Command::later("guest-fstrim", storage::trim, storage::trimmed).audited(),
        Command::later("guest-suspend-disk", power::suspend_disk, power::suspended).silent().audited(),
        Command::later("guest-suspend-ram", power::suspend_ram, power::suspended).silent().audited(),
        Command::later("guest-suspend-hybrid", power::suspend_hybrid, power::suspended).silent().audited(),
        Command::now("guest-network-get-interfaces", network::interfaces),
        #[cfg(feature = "storage")]
        Command::now("guest-get-fsinfo", storage::file_systems),
        #[cfg(feature = "exec")]
        Command::now("guest-exec", exec::exec).audited(),
        #[cfg(feature = "exec")]
        Command::now("guest-exec-status", exec::status),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-host-name", system::host_name),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-users", system::users),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-timezone", clock::timezone),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-osinfo", system::os_info),
        #[cfg(not(feature = "minimal"))]
        Command::now("guest-get-load", system::load),
    ];

    const fn now(name: &'static str, run: Start<G, ()>) -> Self {
        Command { name, run: Run::Now(run), answers: true, delimited: false, while_frozen: false, audited: false }
    }

    const fn later(name: &'static str, start: Start<G, Job>, finish: Finish<G>) -> Self {
        Command {
            name,
            run: Run::Later(start, finish),
            answers: true,
            delimited: false,
            while_frozen: false,
            audited: false,
        }
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
