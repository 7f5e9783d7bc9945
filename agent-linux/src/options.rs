//! How the agent shall run: what was given of the options in the table, and what that means.
//!
//! Where a value came from is the business of [`crate::cli`] and [`crate::config`].

mod table;

use core::ffi::CStr;

use agent_core::limits::{REQUEST_BYTES, REQUEST_BYTES_MIN};
use agent_core::packed;
use heapless::Vec;

pub use table::{Name, Value, find, help};

use crate::channel::vsock;
use crate::log::{Failed, fail};
use crate::memory::CHANNELS;
use crate::ready::Ready;
use crate::sys::Strings;
use crate::text;

/// Options that may be given, in the configuration and on the command line together. Beyond: an error at the start.
const GIVEN: usize = 48;

/// The longest time that `--freeze-timeout` may name, in seconds: a day.
const FREEZE_TIMEOUT_S: usize = 86_400;

/// Seconds that programs have to end by default.
const GRACE_S: usize = 10;

/// What the end of a first process's program may mean.
const ON_EXIT: &[u8] = b"poweroff reboot halt restart stay";

/// Can this be a first process?
const INIT: bool = cfg!(feature = "init");

/// What runs before a freeze and after a thaw, if nothing else is named.
pub const HOOK: &CStr = c"/etc/qemu/fsfreeze-hook";

/// Is this more than the agent with the fewest commands, whose configuration is its command line?
pub const FULL: bool = cfg!(not(feature = "minimal"));

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
    /// Do hosts connect to it?
    pub fn listens(self) -> bool {
        matches!(self, Method::UnixListen | Method::VsockListen | Method::Passed)
    }
}

/// The sockets that may be passed; the last digit is the number of the descriptor.
const PASSED: [&CStr; CHANNELS] = [c"socket 3", c"socket 4", c"socket 5", c"socket 6"];

/// Those that can be chosen: their names, and where they are unless something else is said.
const METHODS: [(&[u8], Method, &CStr); if FULL { 4 } else { 3 }] = [
    (b"virtio-serial", Method::VirtioSerial, c"/dev/virtio-ports/org.qemu.guest_agent.0"),
    (b"isa-serial", Method::IsaSerial, c"/dev/ttyS0"),
    (b"unix-listen", Method::UnixListen, c""),
    #[cfg(not(feature = "minimal"))]
    (b"vsock-listen", Method::VsockListen, c""),
];

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

impl Peer {
    /// The one of this name; without one, the host.
    fn named(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name == b"host" {
            return Some(Peer::Host);
        }
        if name == b"any" { Some(Peer::Any) } else { (name == b"privileged").then_some(Peer::Privileged) }
    }
}

/// A channel to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is made of.
    pub method: Method,
    /// Where it is.
    pub path: &'static CStr,
}

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
    /// What [`finish`](Options::finish) was looking at last.
    checked: Name,
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
        checked: Name::Daemonize,
    };

    /// Notes an option and its value. That of an option without one is `true` or `false`.
    #[inline(never)]
    pub fn give(&mut self, name: Name, value: &'static CStr) -> Result<(), Failed> {
        self.given.push((name, value)).map_err(|_| fail(packed!("too many options: '%'"), &[value.to_bytes()]))
    }

    /// What has been given stood in the configuration; what follows does not.
    pub fn end_configuration(&mut self) {
        self.configured = self.given.len();
        self.is_configured = true;
    }

    /// The value of an option: the last one that was given, or the default.
    #[inline(never)]
    fn last(&self, name: Name) -> Option<&'static CStr> {
        let given = self.given.iter().rfind(|(given, _)| *given == name).map(|(_, value)| *value);
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
    pub fn allows(&self, command: &str) -> bool {
        let command = command.as_bytes();
        self.is_listed(Name::AllowRpcs, command, true) && !self.is_listed(Name::BlockRpcs, command, false)
    }

    /// Shall hosts not hear of this interface?
    #[inline]
    pub fn ignores(&self, interface: &[u8]) -> bool {
        FULL && self.is_listed(Name::IgnoreInterfaces, interface, false)
    }

    /// The same as [`finish`](Self::finish), but an option with a wrong value counts as not given.
    #[cfg(feature = "init")]
    pub fn finish_without_what_is_wrong(&mut self) {
        while self.finish().is_err() {
            let wrong = self.checked;
            // A path is nothing without its method.
            self.given.retain(|(name, _)| *name != wrong && (wrong != Name::Method || *name != Name::Path));
        }
    }

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
            let word = |name| self.last(name).unwrap_or_default().to_bytes();
            let (peer, ready) = (Peer::named(word(Name::VsockPeer)), Ready::at(word(Name::Ready)));
            let (Some(peer), Some(ready)) = (peer, ready) else {
                return Err(fail(packed!("unknown value of --vsock-peer or --ready, try --help"), &[]));
            };
            (self.vsock_peer, self.ready) = (peer, ready);
        }
        if INIT {
            let form = packed!("--grace must be a number from 1 to 3600, not '%'");
            self.grace_s = match self.bounded(Name::Grace, 1, 3600, form)? {
                0 => GRACE_S,
                seconds => seconds,
            };
            self.checked = Name::OnExit;
            let wanted = self.last(Name::OnExit).unwrap_or(c"poweroff").to_bytes();
            let mut words = ON_EXIT.split(|byte| *byte == b' ');
            let Some(on_exit) = words.position(|word| word == wanted) else {
                return Err(fail(packed!("--on-exit must be one of %, not '%'"), &[ON_EXIT, wanted]));
            };
            self.on_exit = on_exit;
        }
        self.checked = Name::Method;
        let [mut method, ..] = METHODS.each_ref();
        // A path before the first method.
        let mut path = c"";
        for number in 0..self.given.len() {
            let Some((name, value)) = self.given.get(number).copied() else {
                break;
            };
            if name == Name::Path {
                match self.channels.last_mut() {
                    Some(place) => place.path = value,
                    None => path = value,
                }
            } else if name == Name::Method {
                let Some(found) = METHODS.iter().find(|(name, ..)| *name == value.to_bytes()) else {
                    let form = b"unknown method '%': it must be virtio-serial, isa-serial, unix-listen or vsock-listen";
                    return Err(fail(form, &[value.to_bytes()]));
                };
                if number < self.configured {
                    method = found;
                } else {
                    self.open(found, path)?;
                    path = c"";
                }
            }
        }
        if self.channels.is_empty() {
            self.open(method, path)?;
        }
        for Place { method, path } in &self.channels {
            if path.is_empty() || FULL && *method == Method::VsockListen && vsock::parse(path.to_bytes()).is_none() {
                return Err(fail(packed!("method 'unix-listen' needs -p PATH, 'vsock-listen' -p CID:PORT"), &[]));
            }
        }
        Ok(())
    }

    /// One more channel: at this path, or where its kind usually is.
    #[inline(never)]
    fn open(&mut self, method: &(&'static [u8], Method, &'static CStr), path: &'static CStr) -> Result<(), Failed> {
        let path = if path.is_empty() { method.2 } else { path };
        let pushed = self.channels.push(Place { method: method.1, path });
        pushed.map_err(|_| fail(packed!("too many channels: '%'"), &[method.0]))
    }

    /// The number that an option was given, within its bounds, or else with this to say about it; 0 if it was not given.
    #[inline(never)]
    fn bounded(&mut self, name: Name, least: usize, most: usize, form: &[u8]) -> Result<usize, Failed> {
        self.checked = name;
        let Some(digits) = self.last(name) else {
            return Ok(0);
        };
        let digits = digits.to_bytes();
        let number = usize::try_from(text::number(digits, u64::MAX)).unwrap_or(0);
        if number < least || number > most { Err(fail(form, &[digits])) } else { Ok(number) }
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

    /// Tells the configuration file that means the same, piece by piece, as the reference prints it. Of several
    /// channels it can hold the first.
    #[inline(never)]
    pub fn dump(&self, out: &mut dyn FnMut(&[u8])) {
        out(b"[general]\n");
        table::each(&mut |row| {
            let place = self.channels.first();
            let value = match row.option {
                Name::Method => {
                    METHODS.iter().find(|row| place.is_some_and(|place| place.method == row.1)).map(|row| row.0)
                }
                Name::Path => place.map(|place| place.path.to_bytes()),
                option => self.last(option).map(CStr::to_bytes),
            };
            let value = match (value, row.option, row.value) {
                (Some(value), ..) => value,
                (None, Name::BlockRpcs | Name::AllowRpcs, _) => b"",
                (None, _, Value::None) if row.option != Name::Reseed => b"false",
                _ => return,
            };
            if row.option >= Name::Config {
                return;
            }
            // The one key that is not the name of its option.
            out(row.name.strip_suffix(b"ize").unwrap_or(row.name));
            out(b"=");
            if matches!(row.option, Name::BlockRpcs | Name::AllowRpcs | Name::IgnoreInterfaces) {
                let mut separator: &[u8] = b"";
                self.each_item(row.option, &mut |item| {
                    out(separator);
                    escape(item, separator.is_empty(), out);
                    separator = b",";
                });
            } else {
                escape(value, true, out);
            }
            out(b"\n");
        });
    }
}

/// Escapes a value for the configuration file: leading blanks, and what would end or change it.
#[inline(never)]
fn escape(text: &[u8], leading: bool, out: &mut dyn FnMut(&[u8])) {
    let mut leading = leading;
    for byte in text {
        let blank = matches!(byte, b' ' | b'\t');
        leading &= blank;
        match ESCAPES.iter().find(|(_, escaped)| escaped == byte) {
            Some((letter, _)) if leading || !blank => out(&[b'\\', *letter]),
            _ => out(&[*byte]),
        }
    }
}

/// The letter behind a backslash in the configuration file, and what both stand for.
pub const ESCAPES: [(u8, u8); 5] = [(b's', b' '), (b't', b'\t'), (b'n', b'\n'), (b'r', b'\r'), (b'\\', b'\\')];

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

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    fn options(configured: &[(Name, &'static CStr)], given: &[(Name, &'static CStr)]) -> Result<Options, Failed> {
        let mut options = Options::NONE;
        for (name, value) in configured {
            options.give(*name, value)?;
        }
        options.end_configuration();
        for (name, value) in given {
            options.give(*name, value)?;
        }
        options.finish().map(|()| options)
    }

    fn dumped(options: &Options) -> String {
        let mut text = std::vec::Vec::new();
        options.dump(&mut |piece| text.extend_from_slice(piece));
        String::from_utf8(text).unwrap()
    }

    const VIRTIO: (Method, &str) = (Method::VirtioSerial, "/dev/virtio-ports/org.qemu.guest_agent.0");

    #[test]
    fn without_an_option_it_is_the_usual_virtio_port() {
        let options = options(&[], &[]).unwrap();
        assert_eq!(channels(&options), [VIRTIO]);
        assert!(!options.verbose);
        assert_eq!(options.max_request, 262_144);
        assert_eq!(options.state_dir(), c"/var/run");
        assert_eq!((options.freeze_hook, options.freeze_timeout_s), (None, 0));
        assert!(options.allows("guest-exec"));
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
    fn what_the_reference_does_not_know_is_dumped_only_if_it_was_given() {
        assert!(!dumped(&options(&[], &[]).unwrap()).contains("reseed"));
        let given = [(Name::Reseed, c"true"), (Name::Ready, c"vsock:1"), (Name::VsockPeer, c"any")];
        let text = dumped(&options(&[], &given).unwrap());
        assert!(text.ends_with("vsock-peer=any\nready=vsock:1\nreseed=true\n"), "{text}");
    }

    #[test]
    fn lists_append_and_what_is_blocked_is_not_allowed() {
        let options = options(
            &[(Name::BlockRpcs, c"guest-a,guest-b"), (Name::AllowRpcs, c"guest-a,guest-c")],
            &[(Name::BlockRpcs, c"guest-d"), (Name::AllowRpcs, c"guest-d,guest-e")],
        );
        let options = options.unwrap();
        let allowed = ["guest-a", "guest-b", "guest-c", "guest-d", "guest-e", "guest-f", "guest"];
        let allowed: std::vec::Vec<_> = allowed.into_iter().filter(|name| options.allows(name)).collect();
        assert_eq!(allowed, ["guest-c", "guest-e"]);
    }

    #[test]
    fn an_empty_list_of_allowed_commands_is_none() {
        let options = options(&[], &[(Name::AllowRpcs, c""), (Name::BlockRpcs, c"")]).unwrap();
        assert!(options.allows("guest-ping"));
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

    #[test]
    fn a_dump_is_in_the_order_of_the_reference_and_shows_ours_only_if_given() {
        let usual = "[general]\ndaemon=false\nmethod=virtio-serial\n\
            path=/dev/virtio-ports/org.qemu.guest_agent.0\npidfile=/var/run/qemu-ga.pid\nstatedir=/var/run\n\
            verbose=false\nretry-path=false\nblock-rpcs=\nallow-rpcs=\n";
        assert_eq!(dumped(&options(&[], &[]).unwrap()), usual);
        let given = [
            (Name::IgnoreInterfaces, c"veth*"),
            (Name::FreezeTimeout, c"60"),
            (Name::MaxRequest, c"4096"),
            (Name::Config, c"/x"),
            (Name::DumpConf, c"true"),
        ];
        let ours = "ignore-interfaces=veth*\nfreeze-timeout=60\nmax-request=4096\n";
        assert_eq!(dumped(&options(&[], &given).unwrap()), std::format!("{usual}{ours}"));
    }
}
