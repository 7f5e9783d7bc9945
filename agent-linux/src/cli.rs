//! The command line, as in qemu-ga(8): `-m -p -t -v -V -h` and their long forms. What is new is `--max-request`, and
//! that `-m` may be given several times.
//!
//! Short options may be bundled (`-vm unix-listen`) and their values glued on (`-p/dev/ttyS0`), long ones have theirs
//! behind `=` or in the next word, as in getopt_long(3).

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
    "                       again, with its own -p, for one more channel (at most 4)\n",
    "  -p, --path PATH      its device, port name or socket; by default\n",
    "                       /dev/virtio-ports/org.qemu.guest_agent.0 or /dev/ttyS0\n",
    "  -t, --statedir DIR   accepted; this version keeps no state\n",
    "      --max-request N  longest request in bytes, 1024 to 262144 (default)\n",
    "  -v, --verbose        report on standard error what happens to the channels\n",
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

impl Method {
    fn from_name(name: &'static CStr) -> Result<Self, Error> {
        match name.to_bytes() {
            b"virtio-serial" => Ok(Method::VirtioSerial),
            b"isa-serial" => Ok(Method::IsaSerial),
            b"unix-listen" => Ok(Method::UnixListen),
            name => Err(Error("unknown method '", name, "': it must be virtio-serial, isa-serial or unix-listen")),
        }
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

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run the agent.
    Serve(Options),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// How the agent shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// At least one channel.
    pub channels: Vec<Place, CHANNELS>,
    /// Say what happens to the channels.
    pub verbose: bool,
    /// Bytes of the longest request.
    pub max_request: usize,
}

/// What is wrong with the command line: a sentence with a word of the command line in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub &'static str, pub &'static [u8], pub &'static str);

/// Letter (0 if there is none), name, and whether a value follows. The order is that of the numbers below.
const OPTIONS: [(u8, &str, bool); 7] = [
    (b'm', "method", true),
    (b'p', "path", true),
    (b't', "statedir", true),
    (0, "max-request", true),
    (b'v', "verbose", false),
    (b'V', "version", false),
    (b'h', "help", false),
];

const METHOD: usize = 0;
const PATH: usize = 1;
const STATEDIR: usize = 2;
const MAX_REQUEST: usize = 3;
const VERBOSE: usize = 4;
const VERSION: usize = 5;

const TRY_HELP: &str = "', try 'nanoga --help' for more information";

/// Reads the words behind the program's name.
pub fn parse(words: &mut dyn Iterator<Item = &'static CStr>) -> Result<Request, Error> {
    let mut options = Options { channels: Vec::new(), verbose: false, max_request: REQUEST_BYTES };
    // A path before the first method.
    let mut first_path = c"";
    while let Some(word) = words.next() {
        let text = word.to_bytes();
        let mut at = 1usize;
        while at < text.len() || text == b"-" {
            let (option, end) = match text {
                [b'-', b'-', name @ ..] => {
                    let end = name.iter().position(|byte| *byte == b'=').unwrap_or(name.len());
                    let name = name.get(..end).unwrap_or_default();
                    (OPTIONS.iter().position(|option| option.1.as_bytes() == name), end.wrapping_add(2))
                }
                [b'-', _, ..] => {
                    let letter = text.get(at).copied().unwrap_or_default();
                    (OPTIONS.iter().position(|option| option.0 == letter), at.wrapping_add(1))
                }
                _ => return Err(Error("unexpected argument '", text, TRY_HELP)),
            };
            let Some(option) = option else {
                return Err(Error("unknown option '", text, TRY_HELP));
            };
            let is_long = text.starts_with(b"--");
            let mut value = c"";
            at = end;
            if option < VERBOSE {
                at = text.len();
                // Behind the letter, behind `=`, or in the next word.
                value = sys::tail(word, end.wrapping_add(usize::from(is_long)));
                if end == text.len() {
                    value = words.next().ok_or(Error("option '", text, "' needs a value, try 'nanoga --help'"))?;
                }
            } else if is_long && end < text.len() {
                return Err(Error("option '", text, "' takes no value"));
            }
            match option {
                METHOD => {
                    let place = Place { method: Method::from_name(value)?, path: first_path };
                    first_path = c"";
                    options.channels.push(place).map_err(|_| Error("too many channels: '", text, "'"))?;
                }
                PATH => *options.channels.last_mut().map_or(&mut first_path, |place| &mut place.path) = value,
                // Accepted, so that a unit file for qemu-ga works; there is nothing to keep yet.
                STATEDIR => {}
                MAX_REQUEST => {
                    let number = parse_number(value.to_bytes());
                    if !(REQUEST_BYTES_MIN..=REQUEST_BYTES).contains(&number) {
                        let rule = "--max-request must be a number from 1024 to 262144, not '";
                        return Err(Error(rule, value.to_bytes(), "'"));
                    }
                    options.max_request = number;
                }
                VERBOSE => options.verbose = true,
                VERSION => return Ok(Request::Version),
                _ => return Ok(Request::Help),
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
                Method::UnixListen => return Err(Error("method '", b"unix-listen", "' needs a path: -p PATH")),
            };
        }
    }
    Ok(Request::Serve(options))
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
        match parse(&mut words.iter().copied()) {
            Ok(Request::Serve(options)) => options,
            other => panic!("{words:?}: {other:?}"),
        }
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
        assert_eq!(parse(&mut [c"-V"].into_iter()), Ok(Request::Version));
        assert_eq!(parse(&mut [c"--help", c"--nonsense"].into_iter()), Ok(Request::Help));
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
            (&[c"-misa-serial"; 5], "too many channels: '-misa-serial'"),
        ] {
            let Err(Error(before, word, after)) = parse(&mut words.iter().copied()) else { panic!("{words:?}") };
            assert_eq!(std::format!("{before}{}{after}", str::from_utf8(word).unwrap()), want);
        }
    }
}
