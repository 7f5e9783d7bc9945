//! How the agent shall run: what was given of the options in the table. What that means is found out in `meaning.rs`.
//!
//! Where a value came from is the business of [`crate::cli`] and [`crate::config`].

mod dump;
mod meaning;
mod table;

use core::ffi::CStr;

use agent_core::packed;
use heapless::Vec;

pub use dump::ESCAPES;
pub use meaning::{Method, Peer, Place};
pub use table::{Name, SPACE, Table, Value};

use crate::log::{Failed, say_of};
use crate::memory::CHANNELS;
use crate::ready::Ready;

/// Options that may be given, in the configuration and on the command line together. Beyond: an error at the start,
/// which a first process says and passes over.
const GIVEN: usize = 48;

/// What runs before a freeze and after a thaw, if nothing else is named.
pub const HOOK: &CStr = c"/etc/qemu/fsfreeze-hook";

/// Is this more than the agent with the fewest commands, whose configuration is its command line?
pub const FULL: bool = cfg!(not(feature = "minimal"));

/// How the agent shall run. What is large stands last, so that the code reaches all else by a short offset.
#[derive(Debug)]
#[repr(C)]
pub struct Options {
    /// How many of these stood in the configuration.
    configured: usize,
    /// The configuration was read, and before it the command line, for where it is.
    pub is_configured: bool,
    /// The channels to open.
    pub channels: Vec<Place, CHANNELS>,
    /// Say what happens to the channels.
    pub verbose: bool,
    /// Who may connect to a vsock.
    pub vsock_peer: Peer,
    /// Where the host waits for the agent.
    pub ready: Ready,
    /// Bytes of the longest request.
    pub max_request: usize,
    /// A program that is run before file systems are frozen and after they were thawed.
    pub freeze_hook: Option<&'static CStr>,
    /// Seconds that file systems stay frozen at most; 0: until a host thaws them.
    pub freeze_timeout_s: u32,
    /// What the end of a first process's program means: the place in [`ON_EXIT`].
    pub on_exit: usize,
    /// Seconds that programs have to end, before a first process ends the guest.
    pub grace_s: usize,
    /// What [`finish`](Options::finish) was looking at last: its place among what was given, or one that nothing has.
    checked: usize,
    /// What belongs to that stands from here on.
    begun: usize,
    /// What was given: later values override, lists append.
    given: Vec<(Name, &'static CStr), GIVEN>,
}

impl Options {
    /// Nothing was given. All of it is zero: no byte of it stands in the file.
    pub const NONE: Self = Options {
        given: Vec::new(),
        configured: 0,
        is_configured: false,
        channels: Vec::new(),
        verbose: false,
        vsock_peer: Peer::Host,
        ready: Ready::Untold,
        max_request: 0,
        freeze_hook: None,
        freeze_timeout_s: 0,
        on_exit: 0,
        grace_s: 0,
        checked: 0,
        begun: 0,
    };

    /// Notes an option and its value. That of an option without one is `true` or `false`.
    #[inline(never)]
    pub fn give(&mut self, name: Name, value: &'static CStr) -> Result<(), Failed> {
        self.given.push((name, value)).map_err(|_| say_of(packed!("too many options: '%'"), value.to_bytes()))
    }

    /// What has been given stood in the configuration; what follows does not.
    pub fn end_configuration(&mut self) {
        self.configured = self.given.len();
    }

    /// The place of the last value of an option, or one that nothing has.
    #[inline(never)]
    fn place_of(&self, name: Name) -> usize {
        self.given.iter().rposition(|(given, _)| *given == name).unwrap_or(GIVEN)
    }

    /// The value of an option: the last one that was given, or the default.
    #[inline(never)]
    fn last(&self, name: Name) -> Option<&'static CStr> {
        let given = self.given.get(self.place_of(name)).map(|(_, value)| *value);
        given.or(match name {
            Name::Pidfile => Some(c"/var/run/qemu-ga.pid"),
            Name::Statedir => Some(c"/var/run"),
            _ => None,
        })
    }

    /// The file that the log goes to, if not to standard error.
    pub fn log_file(&self) -> Option<&'static CStr> {
        self.word(Name::Logfile).filter(|path| !path.is_empty())
    }

    /// Where a daemon leaves the number of its process.
    pub fn pid_file(&self) -> &'static CStr {
        self.word(Name::Pidfile).unwrap_or_default()
    }

    /// The folder of what must outlive the agent.
    pub fn state_dir(&self) -> &'static CStr {
        self.last(Name::Statedir).unwrap_or_default()
    }

    /// The value of an option. What only the full agent has costs nothing in another.
    #[inline]
    pub fn word(&self, name: Name) -> Option<&'static CStr> {
        if FULL { self.last(name) } else { None }
    }

    /// Is this option, which has no value, on?
    #[inline]
    pub fn is_on(&self, name: Name) -> bool {
        FULL && self.last(name) == Some(c"true")
    }

    /// Goes through the items of a list, wherever parts of it were given: each part separated by commas. As in the
    /// reference, whose `-D` shows each part from its end; nothing else depends on the order.
    #[inline(never)]
    fn each_item(&self, name: Name, each: &mut dyn FnMut(&[u8])) {
        for (_, list) in self.given.iter().filter(|(given, list)| *given == name && !list.is_empty()) {
            for item in list.to_bytes().rsplit(|byte| *byte == b',') {
                each(item);
            }
        }
    }

    /// Is this word in the list of an option, or is that list empty?
    #[inline(never)]
    fn is_listed(&self, name: Name, word: &[u8], if_empty: bool) -> bool {
        let mut found = if_empty;
        let mut any = false;
        self.each_item(name, &mut |pattern| {
            found &= any;
            any = true;
            found |= matches_pattern(pattern, word);
        });
        found
    }

    /// May hosts use this command? What is blocked is blocked, allowed or not.
    pub fn allows(&self, command: &[u8]) -> bool {
        self.is_listed(Name::AllowRpcs, command, true) && !self.is_listed(Name::BlockRpcs, command, false)
    }

    /// Shall hosts not hear of this interface?
    #[inline]
    pub fn ignores(&self, interface: &[u8]) -> bool {
        FULL && self.is_listed(Name::IgnoreInterfaces, interface, false)
    }
}

/// Does the whole word match? `*` stands for any bytes, `?` for any one.
fn matches_pattern(pattern: &[u8], word: &[u8]) -> bool {
    let (mut pattern, mut word) = (pattern, word);
    // Behind the last star, and the word from where that star ends for now.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, word) {
            ([b'*', behind @ ..], _) => {
                star = Some((behind, word));
                pattern = behind;
            }
            ([], []) => return true,
            ([wanted, pattern_behind @ ..], [byte, word_behind @ ..]) if matches!(wanted, b'?') || wanted == byte => {
                (pattern, word) = (pattern_behind, word_behind);
            }
            _ => {
                let Some((behind, [_, rest @ ..])) = star else {
                    return false;
                };
                star = Some((behind, rest));
                (pattern, word) = (behind, rest);
            }
        }
    }
}

/// The channels, for tests.
#[cfg(test)]
pub(crate) fn channels(options: &Options) -> std::vec::Vec<(Method, &'static str)> {
    options.channels.iter().map(|place| (place.method, place.path.to_str().unwrap())).collect()
}

/// With this configuration and this command line, for tests.
#[cfg(test)]
pub(crate) fn options(
    configured: &[(Name, &'static CStr)],
    given: &[(Name, &'static CStr)],
) -> Result<Options, Failed> {
    let mut options = Options::NONE;
    for (name, value) in configured {
        options.give(*name, value)?;
    }
    options.end_configuration();
    options.is_configured = true;
    for (name, value) in given {
        options.give(*name, value)?;
    }
    options.finish().map(|()| options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_append_and_what_is_blocked_is_not_allowed() {
        let options = options(
            &[(Name::BlockRpcs, c"guest-a,guest-b"), (Name::AllowRpcs, c"guest-a,guest-c")],
            &[(Name::BlockRpcs, c"guest-d"), (Name::AllowRpcs, c"guest-d,guest-e")],
        );
        let options = options.unwrap();
        let allowed = ["guest-a", "guest-b", "guest-c", "guest-d", "guest-e", "guest-f", "guest"];
        let allowed: std::vec::Vec<_> = allowed.into_iter().filter(|name| options.allows(name.as_bytes())).collect();
        assert_eq!(allowed, ["guest-c", "guest-e"]);
    }

    #[test]
    fn an_empty_list_of_allowed_commands_is_none() {
        let options = options(&[], &[(Name::AllowRpcs, c""), (Name::BlockRpcs, c"")]).unwrap();
        assert!(options.allows(b"guest-ping"));
    }

    #[test]
    fn patterns_match_the_whole_word() {
        for (pattern, word, want) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth", "eth0", false),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("veth*", "veth", true),
            ("veth*", "veth1234@if5", true),
            ("veth*", "myveth1", false),
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "x", false),
            ("*0", "eth00", true),
            ("*0", "eth01", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("**?**", "x", true),
            ("**?**", "", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), word.as_bytes()), want, "{pattern} {word}");
        }
    }
}
