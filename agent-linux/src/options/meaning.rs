//! What was given, as the agent uses it: channels, numbers within their bounds, words that mean something.
//!
//! It does not know which of it came from where, but for what the configuration says of channels.

use core::ffi::CStr;

use agent_core::limits::{REQUEST_BYTES, REQUEST_BYTES_MIN};
use agent_core::packed;

use super::{FULL, GIVEN, Name, Options};
use crate::channel::vsock;
use crate::log::{Failed, say, say_of};
use crate::memory::CHANNELS;
use crate::ready::Ready;
use crate::sys::Strings;
use crate::text;

/// The longest time that `--freeze-timeout` may name, in seconds: a day.
const FREEZE_TIMEOUT_S: usize = 86_400;

/// Seconds that programs have to end by default.
const GRACE_S: usize = 10;

/// What the end of a first process's program may mean.
const ON_EXIT: &[u8] = b"poweroff reboot halt restart stay";

/// Can this be a first process?
const INIT: bool = cfg!(feature = "init");

/// The sockets that may be passed; the last digit is the number of the descriptor.
const PASSED: [&CStr; CHANNELS] = [c"socket 3", c"socket 4", c"socket 5", c"socket 6"];

/// Methods that can be chosen, in the order of [`Method`].
const METHODS: &[u8] =
    if FULL { b"virtio-serial isa-serial unix-listen vsock-listen" } else { b"virtio-serial isa-serial unix-listen" };

/// Who may connect to a vsock, in the order of [`Peer`].
const PEERS: &[u8] = b"host privileged any";

/// What is said of an option, its choices, and what was chosen.
const NO_CHOICE: &str = "--% must be one of %, not '%'";

/// What a channel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A port of a virtio console.
    VirtioSerial,
    /// A serial line.
    IsaSerial,
    /// A unix socket that hosts connect to.
    UnixListen,
    /// A vsock that hosts connect to.
    VsockListen,
    /// A socket that hosts connect to, which whoever started the agent has opened for it: `sd_listen_fds(3)`.
    Passed,
}

impl Method {
    /// The one of this name.
    fn named(name: &[u8]) -> Option<Self> {
        let all = [Method::VirtioSerial, Method::IsaSerial, Method::UnixListen, Method::VsockListen];
        all.get(text::choice(METHODS, name)?).copied()
    }

    /// Its name, if it can be chosen.
    #[allow(clippy::as_conversions, reason = "the number of a variant without a payload")]
    pub(super) fn name(self) -> Option<&'static [u8]> {
        METHODS.split(|byte| *byte == b' ').nth(self as usize)
    }

    /// Where it is unless something else is said.
    fn usual_path(self) -> &'static CStr {
        match self {
            Method::VirtioSerial => c"/dev/virtio-ports/org.qemu.guest_agent.0",
            Method::IsaSerial => c"/dev/ttyS0",
            _ => c"",
        }
    }

    /// Do hosts connect to it?
    pub fn listens(self) -> bool {
        matches!(self, Method::UnixListen | Method::VsockListen | Method::Passed)
    }
}

/// Who may connect to a vsock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The host.
    Host,
    /// The host, from a port that only its administrator may use.
    Privileged,
    /// Everyone: the host, other guests where the host lets them, and every user of this guest.
    Any,
}

/// A channel to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is made of.
    pub method: Method,
    /// Where it is.
    pub path: &'static CStr,
}

impl Options {
    /// Everything has been given: finds out what it means.
    #[inline(never)]
    pub fn finish(&mut self) -> Result<(), Failed> {
        self.channels.clear();
        self.verbose = self.last(Name::Verbose) == Some(c"true");
        let form = packed!("--max-request must be a number from 1024 to 262144, not '%'");
        self.max_request = match self.bounded(Name::MaxRequest, REQUEST_BYTES_MIN, REQUEST_BYTES, form)? {
            0 => REQUEST_BYTES,
            bytes => bytes,
        };
        if FULL {
            self.freeze_hook = self.last(Name::FsfreezeHook).filter(|hook| !hook.is_empty());
            let form = packed!("--freeze-timeout must be a number from 1 to 86400, not '%'");
            let seconds = self.bounded(Name::FreezeTimeout, 1, FREEZE_TIMEOUT_S, form)?;
            self.freeze_timeout_s = u32::try_from(seconds).unwrap_or(0);
            let mut peer = self.look_at(Name::VsockPeer).unwrap_or_default().to_bytes();
            if peer.is_empty() {
                peer = b"host";
            }
            let Some(choice) = text::choice(PEERS, peer) else {
                return Err(say(packed!(NO_CHOICE), &[b"vsock-peer", PEERS, peer]));
            };
            self.vsock_peer = [Peer::Host, Peer::Privileged].get(choice).copied().unwrap_or(Peer::Any);
            let ready = self.look_at(Name::Ready).unwrap_or_default().to_bytes();
            self.ready =
                Ready::at(ready).ok_or_else(|| say(packed!(NO_CHOICE), &[b"ready", b"console vsock:PORT", ready]))?;
        }
        if INIT {
            let form = packed!("--grace must be a number from 1 to 3600, not '%'");
            self.grace_s = match self.bounded(Name::Grace, 1, 3600, form)? {
                0 => GRACE_S,
                seconds => seconds,
            };
            let wanted = self.look_at(Name::OnExit).unwrap_or(c"poweroff").to_bytes();
            let Some(on_exit) = text::choice(ON_EXIT, wanted) else {
                return Err(say(packed!(NO_CHOICE), &[b"on-exit", ON_EXIT, wanted]));
            };
            self.on_exit = on_exit;
        }
        self.find_channels()
    }

    /// The channels: a method and the paths up to the next one, of which the last counts. Those before the first method
    /// are its own as well.
    #[inline(never)]
    fn find_channels(&mut self) -> Result<(), Failed> {
        let mut number = 0;
        // What a first process is told of channels later replaces what it was told of them before.
        if INIT && !self.is_configured && (self.configured..GIVEN).contains(&self.place_of(Name::Method)) {
            number = self.configured;
        }
        self.begun = number;
        let mut method = Method::VirtioSerial;
        let mut path = c"";
        // Its path may follow.
        let mut pending = None;
        loop {
            let given = self.given.get(number).copied();
            if matches!(given, None | Some((Name::Method, _)))
                && let Some(method) = pending.take()
            {
                self.open(method, path)?;
                path = c"";
                self.begun = number;
            }
            match given {
                None => break,
                Some((Name::Path, value)) => path = value,
                Some((Name::Method, value)) => {
                    self.checked = number;
                    let Some(found) = Method::named(value.to_bytes()) else {
                        let form = packed!(
                            "unknown method '%': it must be virtio-serial, isa-serial, unix-listen or vsock-listen"
                        );
                        return Err(say_of(form, value.to_bytes()));
                    };
                    if self.is_configured && number < self.configured {
                        method = found;
                    } else {
                        pending = Some(found);
                    }
                }
                _ => {}
            }
            number = number.wrapping_add(1);
        }
        if self.channels.is_empty() { self.open(method, path) } else { Ok(()) }
    }

    /// The same as [`finish`](Self::finish), but a wrong value counts as not given.
    #[cfg(feature = "init")]
    pub fn finish_without_what_is_wrong(&mut self) {
        while self.finish().is_err() {
            let (wrong, begun) = (self.checked, self.begun);
            let Some((option, _)) = self.given.get(wrong).copied() else {
                break;
            };
            for (number, (name, _)) in self.given.iter_mut().enumerate().skip(begun) {
                // A path is nothing without its method.
                if number == wrong || option == Name::Method && *name == Name::Path {
                    // Nobody asks for this one.
                    *name = Name::Help;
                } else if *name == Name::Method {
                    break;
                }
            }
        }
    }

    /// One more channel: at this path, or where its kind usually is.
    #[inline(never)]
    fn open(&mut self, method: Method, path: &'static CStr) -> Result<(), Failed> {
        let path = if path.is_empty() { method.usual_path() } else { path };
        if path.is_empty() || FULL && method == Method::VsockListen && vsock::parse(path.to_bytes()).is_none() {
            return Err(say(packed!("method 'unix-listen' needs -p PATH, 'vsock-listen' -p CID:PORT"), &[]));
        }
        let pushed = self.channels.push(Place { method, path });
        pushed.map_err(|_| say_of(packed!("too many channels: '%'"), method.name().unwrap_or_default()))
    }

    /// The value of an option that is looked at now: what is wrong from here on is wrong with that.
    fn look_at(&mut self, name: Name) -> Option<&'static CStr> {
        self.checked = self.place_of(name);
        self.begun = self.checked;
        self.last(name)
    }

    /// The number that an option was given, within its bounds, or else with this to say about it; 0 if it was not
    /// given.
    #[inline(never)]
    fn bounded(&mut self, name: Name, least: usize, most: usize, form: &[u8]) -> Result<usize, Failed> {
        let Some(digits) = self.look_at(name) else {
            return Ok(0);
        };
        let digits = digits.to_bytes();
        let number = usize::try_from(text::number(digits, u64::MAX)).unwrap_or(0);
        if number < least || number > most { Err(say_of(form, digits)) } else { Ok(number) }
    }

    /// Sockets that were passed to this process take the place of all channels.
    #[inline(never)]
    pub fn take_passed(&mut self, environment: Strings<'_>, pid: u64) {
        let number = |name| environment.value(name).map_or(0, |value| text::number(value.to_bytes(), u64::MAX));
        let count = number(b"LISTEN_FDS");
        if count == 0 || number(b"LISTEN_PID") != pid {
            return;
        }
        self.channels.clear();
        for path in PASSED.iter().take(usize::try_from(count).unwrap_or(0)) {
            let _ = self.channels.push(Place { method: Method::Passed, path });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{channels, options};

    const VIRTIO: (Method, &str) = (Method::VirtioSerial, "/dev/virtio-ports/org.qemu.guest_agent.0");

    #[test]
    fn without_an_option_it_is_the_usual_virtio_port() {
        let options = options(&[], &[]).unwrap();
        assert_eq!(channels(&options), [VIRTIO]);
        assert!(!options.verbose);
        assert_eq!(options.max_request, 262_144);
        assert_eq!(options.state_dir(), c"/var/run");
        assert_eq!((options.freeze_hook, options.freeze_timeout_s), (None, 0));
        assert!(options.allows(b"guest-exec"));
        assert!(!options.ignores(b"eth0"));
    }

    #[test]
    fn several_channels_have_a_path_each() {
        let given = [
            (Name::Method, c"isa-serial"),
            (Name::Method, c"unix-listen"),
            (Name::Path, c"/a"),
            (Name::Method, c"virtio-serial"),
        ];
        let want = [(Method::IsaSerial, "/dev/ttyS0"), (Method::UnixListen, "/a"), VIRTIO];
        assert_eq!(channels(&options(&[], &given).unwrap()), want);
    }

    #[test]
    fn the_command_line_overrides_the_configuration() {
        let configured = [(Name::Method, c"isa-serial"), (Name::Path, c"/dev/ttyS7"), (Name::Verbose, c"true")];
        for (given, want) in [
            (&[][..], (Method::IsaSerial, "/dev/ttyS7")),
            (&[(Name::Path, c"/dev/hvc1")], (Method::IsaSerial, "/dev/hvc1")),
            (&[(Name::Method, c"virtio-serial")], (Method::VirtioSerial, "/dev/ttyS7")),
            (&[(Name::Method, c"unix-listen"), (Name::Path, c"/s")], (Method::UnixListen, "/s")),
        ] {
            let options = options(&configured, given).unwrap();
            assert_eq!(channels(&options), [want], "{given:?}");
            assert!(options.verbose);
        }
    }

    /// Of a first process: the file, and the command line.
    #[cfg(feature = "init")]
    fn of_first(file: &[(Name, &'static CStr)], line: &[(Name, &'static CStr)]) -> Options {
        let mut options = Options::NONE;
        for (name, value) in file {
            options.give(*name, value).unwrap();
        }
        options.end_configuration();
        for (name, value) in line {
            options.give(*name, value).unwrap();
        }
        options.finish_without_what_is_wrong();
        options
    }

    #[cfg(feature = "init")]
    #[test]
    fn whatever_is_nonsense_leaves_a_first_process_with_its_defaults() {
        let mut names = std::vec::Vec::new();
        crate::options::Table::unpacked(&mut { crate::options::SPACE }).each(&mut |row| names.push(row.option));
        for name in names {
            for value in [c"", c"vsock", c"root"] {
                let options = of_first(&[], &[(name, value)]);
                let want = if name == Name::Path && !value.is_empty() { value.to_str().unwrap() } else { VIRTIO.1 };
                assert_eq!(channels(&options), [(Method::VirtioSerial, want)], "{name:?}");
                assert_eq!((options.vsock_peer, options.ready), (Peer::Host, Ready::Untold), "{name:?}");
                assert_eq!((options.on_exit, options.grace_s, options.max_request), (0, 10, 262_144), "{name:?}");
                assert_eq!((options.freeze_timeout_s, options.verbose), (0, false), "{name:?}");
            }
        }
    }

    #[cfg(feature = "init")]
    #[test]
    fn a_wrong_value_leaves_a_first_process_what_it_was_told_before() {
        let file = [
            (Name::Method, c"isa-serial"),
            (Name::Path, c"/dev/ttyS7"),
            (Name::Grace, c"1"),
            (Name::OnExit, c"stay"),
            (Name::VsockPeer, c"privileged"),
            (Name::Ready, c"console"),
        ];
        for name in [Name::Method, Name::Grace, Name::OnExit, Name::VsockPeer, Name::Ready] {
            let options = of_first(&file, &[(Name::Path, c"/dev/ttyS7"), (name, c"nonsense"), (name, c"other")]);
            assert_eq!(channels(&options), [(Method::IsaSerial, "/dev/ttyS7")], "{name:?}");
            assert_eq!((options.grace_s, options.on_exit), (1, 4), "{name:?}");
            assert_eq!((options.vsock_peer, options.ready), (Peer::Privileged, Ready::Console), "{name:?}");
        }
    }

    #[cfg(feature = "init")]
    #[test]
    fn channels_on_the_command_line_of_a_first_process_replace_those_of_its_file() {
        let isa = (Name::Method, c"isa-serial");
        let unix = (Name::Method, c"unix-listen");
        let pigeon = (Name::Method, c"pigeon");
        let path = |path| (Name::Path, path);
        for (line, want) in [
            (&[][..], &[(Method::IsaSerial, "/7"), (Method::UnixListen, "/u")][..]),
            (&[isa], &[(Method::IsaSerial, "/dev/ttyS0")]),
            (&[path(c"/a"), unix, isa, path(c"/b")], &[(Method::UnixListen, "/a"), (Method::IsaSerial, "/b")]),
            (&[path(c"/a")], &[(Method::IsaSerial, "/7"), (Method::UnixListen, "/a")]),
            (&[path(c"/a"), pigeon, path(c"/b")], &[(Method::IsaSerial, "/7"), (Method::UnixListen, "/u")]),
            (&[isa, pigeon, path(c"/b")], &[(Method::IsaSerial, "/dev/ttyS0")]),
            (&[pigeon, path(c"/b"), isa, path(c"/c"), unix], &[(Method::IsaSerial, "/c")]),
            (&[isa, isa, isa, isa, isa, path(c"/b")], &[(Method::IsaSerial, "/dev/ttyS0"); 4]),
        ] {
            let options = of_first(&[isa, path(c"/7"), unix, path(c"/u")], line);
            assert_eq!(channels(&options), want, "{line:?}");
        }
    }

    #[test]
    fn a_vsock_is_for_the_host_unless_another_word_is_given() {
        let place = [(Name::Method, c"vsock-listen"), (Name::Path, c"4294967295:1024")];
        assert_eq!(channels(&options(&[], &place).unwrap()), [(Method::VsockListen, "4294967295:1024")]);
        for (word, want) in [(None, Peer::Host), (Some(c"privileged"), Peer::Privileged), (Some(c"any"), Peer::Any)] {
            let word = word.map(|word| (Name::VsockPeer, word));
            let given: std::vec::Vec<_> = place.into_iter().chain(word).collect();
            assert_eq!(options(&[], &given).unwrap().vsock_peer, want);
        }
        assert!(options(&[], &[(Name::Method, c"vsock-listen"), (Name::Path, c"/run/ga")]).is_err());
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for (name, value) in [
            (Name::Method, c"pigeon"),
            (Name::Method, c"unix-listen"),
            (Name::Method, c"vsock-listen"),
            (Name::VsockPeer, c"hos"),
            (Name::VsockPeer, c"hosts"),
            (Name::Ready, c"vsock:"),
            (Name::Ready, c"/dev/console"),
            (Name::MaxRequest, c"1023"),
            (Name::MaxRequest, c"262145"),
            (Name::MaxRequest, c"99999999999999999999"),
            (Name::MaxRequest, c""),
            (Name::FreezeTimeout, c"0"),
            (Name::FreezeTimeout, c"1h"),
            (Name::FreezeTimeout, c"86401"),
        ] {
            assert!(options(&[], &[(name, value)]).is_err(), "{name:?} {value:?}");
        }
        assert!(options(&[], &[(Name::Method, c"isa-serial"); 5]).is_err());
        assert_eq!(options(&[], &[(Name::MaxRequest, c"1024")]).unwrap().max_request, 1024);
        assert_eq!(options(&[], &[(Name::FreezeTimeout, c"86400")]).unwrap().freeze_timeout_s, 86_400);
    }
}
