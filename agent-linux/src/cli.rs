//! The command line, as in qemu-ga(8): `-m -p -t -F -v -V -h` and their long forms. What is new is `--max-request` and
//! `--freeze-timeout`, and that `-m` may be given several times.
//!
//! Short options may be bundled (`-vm unix-listen`) and their values glued on (`-p/dev/ttyS0`), long ones have theirs
//! behind `=` or in the next word. That of `-F` is optional, so it must be glued on.

use core::ffi::CStr;

use agent_core::limits::{REQUEST_BYTES, REQUEST_BYTES_MIN};
use heapless::Vec;

use crate::memory::CHANNELS;
use crate::sys;

/// The text of `--help`.
pub const HELP: &str = concat!(
    "Usage: nanoga [-m METHOD] [-p PATH] [OPTION]...\n",
    "Answers the QEMU guest agent protocol.\n",
    "\n",
    "  -m, --method METHOD  the channel: virtio-serial (default), isa-serial or unix-listen;\n",
    "                       again for one more channel (at most 4)\n",
    "  -p, --path PATH      its device, port name or socket; by default\n",
    "                       /dev/virtio-ports/org.qemu.guest_agent.0 or /dev/ttyS0\n",
    "  -t, --statedir DIR   where it is kept what must outlive the agent (/var/run)\n",
    "  -F, --fsfreeze-hook[=PATH]\n",
    "                       run /etc/qemu/fsfreeze-hook, or PATH, with 'freeze' or 'thaw'\n",
    "      --freeze-timeout SECONDS\n",
    "                       thaw file systems by itself when they were frozen for so long\n",
    "      --max-request N  longest request in bytes, 1024 to 262144 (default)\n",
    "  -v, --verbose        report what happens to the channels\n",
    "  -V, --version        print the version\n",
    "  -h, --help           print this\n",
);

/// What a channel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A port of a virtio console.
    VirtioSerial,
    /// A serial line.
    IsaSerial,
    /// A unix socket that hosts connect to.
    UnixListen,
}

/// A channel to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is made of.
    pub method: Method,
    /// Where it is.
    pub path: &'static CStr,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the agent.
    Serve,
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// How the agent shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The channels to open.
    pub channels: Vec<Place, CHANNELS>,
    /// Say what happens to the channels.
    pub verbose: bool,
    /// Bytes of the longest request.
    pub max_request: usize,
    /// The folder of what must outlive the agent.
    pub state_dir: &'static CStr,
    /// A program that is run before file systems are frozen and after they were thawed.
    pub freeze_hook: Option<&'static CStr>,
    /// Seconds that file systems stay frozen at most; 0: until a host thaws them.
    pub freeze_timeout_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            channels: Vec::new(),
            verbose: false,
            max_request: REQUEST_BYTES,
            state_dir: c"/var/run",
            freeze_hook: None,
            freeze_timeout_s: 0,
        }
    }
}

/// What is wrong with the command line: a sentence, and the word that stands for its `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub &'static str, pub &'static [u8]);

/// The letter and the name of each option, in the order of the numbers below. Those before [`FREEZE_HOOK`] have a value,
/// it may have one.
const OPTIONS: [&[u8]; 9] = [
    b"mmethod",
    b"ppath",
    b"tstatedir",
    b"\0max-request",
    b"\0freeze-timeout",
    b"Ffsfreeze-hook",
    b"vverbose",
    b"Vversion",
    b"hhelp",
];

const METHODS: [(&[u8], Method); 3] = [
    (b"virtio-serial", Method::VirtioSerial),
    (b"isa-serial", Method::IsaSerial),
    (b"unix-listen", Method::UnixListen),
];

const METHOD: usize = 0;
const PATH: usize = 1;
const STATEDIR: usize = 2;
const MAX_REQUEST: usize = 3;
const FREEZE_TIMEOUT: usize = 4;
const FREEZE_HOOK: usize = 5;
const VERBOSE: usize = 6;
const VERSION: usize = 7;

/// What runs before a freeze and after a thaw, if nothing else is named.
const HOOK: &CStr = c"/etc/qemu/fsfreeze-hook";

/// Reads the words behind the program's name.
#[inline(never)]
pub fn parse(words: &mut dyn Iterator<Item = &'static CStr>, options: &mut Options) -> Result<Action, Error> {
    // A path before the first method.
    let mut first_path = c"";
    while let Some(word) = words.next() {
        let text = word.to_bytes();
        if text == b"--" {
            continue;
        }
        let mut at = 1usize;
        while at < text.len() || at == 1 {
            let (option, value_at) = match text {
                [b'-', b'-', name @ ..] => {
                    let end = name.iter().position(|byte| *byte == b'=').unwrap_or(name.len());
                    let name = name.get(..end);
                    at = text.len();
                    (OPTIONS.iter().position(|option| option.get(1..) == name), end.wrapping_add(3))
                }
                [b'-', _, ..] => {
                    let letter = text.get(at);
                    at = at.wrapping_add(1);
                    (OPTIONS.iter().position(|option| option.first() == letter), at)
                }
                _ => return Err(Error("unexpected argument '%', try 'nanoga --help' for more information", text)),
            };
            let Some(option) = option else {
                return Err(Error("unknown option '%', try 'nanoga --help' for more information", text));
            };
            // Behind the letter, behind `=`, or in the next word.
            let mut value = sys::tail(word, value_at);
            if option <= FREEZE_HOOK {
                at = text.len();
                if option != FREEZE_HOOK && value_at >= text.len() && !text.ends_with(b"=") {
                    value = words.next().ok_or(Error("option '%' needs a value, try 'nanoga --help'", text))?;
                }
            } else if value_at < text.len() && text.starts_with(b"--") {
                return Err(Error("option '%' takes no value", text));
            }
            match option {
                METHOD => {
                    let Some((_, method)) = METHODS.iter().find(|(name, _)| *name == value.to_bytes()) else {
                        let form = "unknown method '%': it must be virtio-serial, isa-serial or unix-listen";
                        return Err(Error(form, value.to_bytes()));
                    };
                    if options.channels.push(Place { method: *method, path: first_path }).is_err() {
                        return Err(Error("too many channels: '%'", text));
                    }
                    first_path = c"";
                }
                PATH => match options.channels.last_mut() {
                    Some(place) => place.path = value,
                    None => first_path = value,
                },
                STATEDIR => options.state_dir = value,
                FREEZE_HOOK => options.freeze_hook = Some(if value.is_empty() { HOOK } else { value }),
                FREEZE_TIMEOUT => {
                    let seconds = parse_number(value.to_bytes());
                    options.freeze_timeout_s = u32::try_from(seconds).unwrap_or(0);
                    if seconds == 0 {
                        return Err(Error("--freeze-timeout must be a number of seconds, not '%'", value.to_bytes()));
                    }
                }
                MAX_REQUEST => {
                    options.max_request = parse_number(value.to_bytes());
                    if !(REQUEST_BYTES_MIN..=REQUEST_BYTES).contains(&options.max_request) {
                        let form = "--max-request must be a number from 1024 to 262144, not '%'";
                        return Err(Error(form, value.to_bytes()));
                    }
                }
                VERBOSE => options.verbose = true,
                VERSION => return Ok(Action::Version),
                _ => return Ok(Action::Help),
            }
        }
    }
    if options.channels.is_empty() {
        let _ = options.channels.push(Place { method: Method::VirtioSerial, path: first_path });
    }
    for place in &mut options.channels {
        if place.path.is_empty() {
            place.path = match place.method {
                Method::VirtioSerial => c"/dev/virtio-ports/org.qemu.guest_agent.0",
                Method::IsaSerial => c"/dev/ttyS0",
                Method::UnixListen => return Err(Error("method '%' needs a path: -p PATH", b"unix-listen")),
            };
        }
    }
    Ok(Action::Serve)
}

/// The number, or 0 if it is none or too large.
fn parse_number(digits: &[u8]) -> usize {
    let mut number = 0usize;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || number > REQUEST_BYTES {
            return 0;
        }
        number = number.wrapping_mul(10).wrapping_add(usize::from(digit));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(words: &[&'static CStr]) -> Options {
        let mut options = Options::default();
        assert_eq!(parse(&mut words.iter().copied(), &mut options), Ok(Action::Serve), "{words:?}");
        options
    }

    fn places(words: &[&'static CStr]) -> std::vec::Vec<(Method, &'static str)> {
        serve(words).channels.iter().map(|place| (place.method, place.path.to_str().unwrap())).collect()
    }

    #[test]
    fn without_a_word_it_is_the_usual_virtio_port() {
        let options = serve(&[]);
        assert_eq!(places(&[]), [(Method::VirtioSerial, "/dev/virtio-ports/org.qemu.guest_agent.0")]);
        assert!(!options.verbose);
        assert_eq!(options.max_request, 262_144);
        assert_eq!(options.state_dir, c"/var/run");
        assert_eq!((options.freeze_hook, options.freeze_timeout_s), (None, 0));
    }

    #[test]
    fn the_hook_of_a_freeze_has_a_value_only_if_it_is_glued_on() {
        for words in [&[c"-F"][..], &[c"-vF"], &[c"--fsfreeze-hook"], &[c"--fsfreeze-hook="], &[c"-F", c"-t", c"/s"]] {
            assert_eq!(serve(words).freeze_hook, Some(c"/etc/qemu/fsfreeze-hook"), "{words:?}");
        }
        for words in [[c"-F/bin/hook"], [c"-vF/bin/hook"], [c"--fsfreeze-hook=/bin/hook"]] {
            assert_eq!(serve(&words).freeze_hook, Some(c"/bin/hook"), "{words:?}");
        }
        assert!(parse(&mut [c"-F", c"/bin/hook"].into_iter(), &mut Options::default()).is_err());
        assert_eq!(serve(&[c"--freeze-timeout", c"30"]).freeze_timeout_s, 30);
        assert_eq!(serve(&[c"--freeze-timeout=86400"]).freeze_timeout_s, 86_400);
        assert_eq!(serve(&[c"-t", c"/state"]).state_dir, c"/state");
    }

    #[test]
    fn every_spelling_of_an_option_is_understood() {
        let want = [(Method::UnixListen, "/run/ga")];
        for words in [
            &[c"-m", c"unix-listen", c"-p", c"/run/ga"][..],
            &[c"-p", c"/run/ga", c"-m", c"unix-listen"],
            &[c"-munix-listen", c"-p/run/ga"],
            &[c"-vm", c"unix-listen", c"-vp/run/ga"],
            &[c"--method=unix-listen", c"--path=/run/ga"],
            &[c"--method", c"unix-listen", c"--path", c"/run/ga", c"--"],
            &[c"-m", c"unix-listen", c"-p", c"/other", c"-p", c"/run/ga", c"-t", c"/var/run"],
        ] {
            assert_eq!(places(words), want, "{words:?}");
        }
        assert!(serve(&[c"-v"]).verbose);
        assert_eq!(serve(&[c"--max-request=1024"]).max_request, 1024);
        assert_eq!(parse(&mut [c"-V"].into_iter(), &mut Options::default()), Ok(Action::Version));
        assert_eq!(parse(&mut [c"--help", c"--nonsense"].into_iter(), &mut Options::default()), Ok(Action::Help));
    }

    #[test]
    fn several_channels_have_a_path_each() {
        assert_eq!(
            places(&[c"-m", c"isa-serial", c"-m", c"unix-listen", c"-p", c"/a", c"-m", c"virtio-serial"]),
            [
                (Method::IsaSerial, "/dev/ttyS0"),
                (Method::UnixListen, "/a"),
                (Method::VirtioSerial, "/dev/virtio-ports/org.qemu.guest_agent.0"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, want) in [
            (&[c"--frobnicate"][..], "unknown option '--frobnicate', try 'nanoga --help' for more information"),
            (&[c"-vx"], "unknown option '-vx', try 'nanoga --help' for more information"),
            (&[c"-m"], "option '-m' needs a value, try 'nanoga --help'"),
            (&[c"--path"], "option '--path' needs a value, try 'nanoga --help'"),
            (&[c"--verbose=yes"], "option '--verbose=yes' takes no value"),
            (&[c"stray"], "unexpected argument 'stray', try 'nanoga --help' for more information"),
            (&[c"-"], "unexpected argument '-', try 'nanoga --help' for more information"),
            (&[c"-m", c"pigeon"], "unknown method 'pigeon': it must be virtio-serial, isa-serial or unix-listen"),
            (&[c"-m", c"unix-listen"], "method 'unix-listen' needs a path: -p PATH"),
            (&[c"--max-request", c"1023"], "--max-request must be a number from 1024 to 262144, not '1023'"),
            (&[c"--max-request=262145"], "--max-request must be a number from 1024 to 262144, not '262145'"),
            (
                &[c"--max-request=99999999999999999999"],
                "--max-request must be a number from 1024 to 262144, not '99999999999999999999'",
            ),
            (&[c"--max-request="], "--max-request must be a number from 1024 to 262144, not ''"),
            (&[c"--freeze-timeout", c"0"], "--freeze-timeout must be a number of seconds, not '0'"),
            (&[c"--freeze-timeout=1h"], "--freeze-timeout must be a number of seconds, not '1h'"),
            (&[c"--freeze-timeout"], "option '--freeze-timeout' needs a value, try 'nanoga --help'"),
            (&[c"-misa-serial"; 5], "too many channels: '-misa-serial'"),
        ] {
            let Err(Error(form, word)) = parse(&mut words.iter().copied(), &mut Options::default()) else {
                panic!("{words:?}")
            };
            assert_eq!(form.replace('%', str::from_utf8(word).unwrap()), want);
        }
    }
}
