//! The command line, as in qemu-ga(8): `-m -p -t -v -V -h` and their long forms. What is new is `--max-request`, and
//! that `-m` may be given several times.
//!
//! Short options may be bundled (`-vm unix-listen`) and their values glued on (`-p/dev/ttyS0`), long ones have theirs
//! behind `=` or in the next word, as in getopt_long(3).

use core::ffi::CStr;

use agent_core::limits::{REQUEST_BYTES, REQUEST_BYTES_MIN};
use heapless::Vec;

use crate::memory::CHANNELS;

/// The text of `--help`.
pub const HELP: &str = concat!(
    "Usage: nanoga [-m METHOD] [-p PATH] [OPTION]...\n",
    "Answers the QEMU guest agent protocol.\n",
    "\n",
    "  -m, --method METHOD   the channel: virtio-serial (default), isa-serial or unix-listen;\n",
    "                        give it again, with its own -p, for one more channel (at most 4)\n",
    "  -p, --path PATH       the device, port name or socket of the channel named last; by default\n",
    "                          virtio-serial  /dev/virtio-ports/org.qemu.guest_agent.0\n",
    "                          isa-serial     /dev/ttyS0\n",
    "  -t, --statedir DIR    where state is kept; no command of this version keeps any\n",
    "      --max-request N   refuse requests of more than N bytes (1024 to 262144, the default)\n",
    "  -v, --verbose         say on standard error what happens to the channels\n",
    "  -V, --version         print the version and exit\n",
    "  -h, --help            print this and exit\n",
    "\n",
    "It stays in the foreground. SIGTERM and SIGINT end it with status 0; what it cannot begin with ends it with 1.\n",
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
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::VirtioSerial => "virtio-serial",
            Method::IsaSerial => "isa-serial",
            Method::UnixListen => "unix-listen",
        }
    }

    /// Where it is, unless said otherwise.
    fn default_path(self) -> Option<&'static CStr> {
        match self {
            Method::VirtioSerial => Some(c"/dev/virtio-ports/org.qemu.guest_agent.0"),
            Method::IsaSerial => Some(c"/dev/ttyS0"),
            Method::UnixListen => None,
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

/// What is wrong with the command line; the word that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such option.
    Unknown(&'static [u8]),
    /// The option needs a value.
    MissingValue(&'static [u8]),
    /// The option takes no value.
    UnwantedValue(&'static [u8]),
    /// A word that belongs to no option.
    Unexpected(&'static [u8]),
    /// There is no such method.
    UnknownMethod(&'static [u8]),
    /// Not a number, or not one in the range.
    MaxRequest(&'static [u8]),
    /// This method has no default path.
    NoPath(Method),
    /// More channels than [`CHANNELS`].
    TooManyChannels,
}

impl Error {
    /// What to say about it: three parts of a sentence.
    pub fn describe(&self) -> [&[u8]; 3] {
        match *self {
            Error::Unknown(word) => [b"unknown option '", word, b"', try 'nanoga --help'"],
            Error::MissingValue(word) => [b"option '", word, b"' needs a value, try 'nanoga --help'"],
            Error::UnwantedValue(word) => [b"option '", word, b"' takes no value"],
            Error::Unexpected(word) => [b"unexpected argument '", word, b"', try 'nanoga --help'"],
            Error::UnknownMethod(word) => {
                [b"unknown method '", word, b"': it must be virtio-serial, isa-serial or unix-listen"]
            }
            Error::MaxRequest(word) => [b"--max-request must be a number from 1024 to 262144, not '", word, b"'"],
            Error::NoPath(method) => [b"method ", method.name().as_bytes(), b" needs a path: -p PATH"],
            Error::TooManyChannels => [b"too many channels", b": ", b"at most 4"],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Method,
    Path,
    StateDir,
    MaxRequest,
    Verbose,
    Version,
    Help,
}

impl Flag {
    fn from_short(letter: u8) -> Option<Self> {
        Some(match letter {
            b'm' => Flag::Method,
            b'p' => Flag::Path,
            b't' => Flag::StateDir,
            b'v' => Flag::Verbose,
            b'V' => Flag::Version,
            b'h' => Flag::Help,
            _ => return None,
        })
    }

    fn from_long(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"method" => Flag::Method,
            b"path" => Flag::Path,
            b"statedir" => Flag::StateDir,
            b"max-request" => Flag::MaxRequest,
            b"verbose" => Flag::Verbose,
            b"version" => Flag::Version,
            b"help" => Flag::Help,
            _ => return None,
        })
    }

    fn has_value(self) -> bool {
        matches!(self, Flag::Method | Flag::Path | Flag::StateDir | Flag::MaxRequest)
    }
}

/// Reads the words behind the program's name.
pub fn parse(words: impl Iterator<Item = &'static CStr>) -> Result<Request, Error> {
    let mut words = words;
    let mut parser = Parser { channels: Vec::new(), path: None, verbose: false, max_request: REQUEST_BYTES };
    while let Some(word) = words.next() {
        let stop = match word.to_bytes() {
            b"--" => match words.next() {
                Some(word) => return Err(Error::Unexpected(word.to_bytes())),
                None => break,
            },
            [b'-', b'-', long @ ..] => parser.long(word, long, &mut words)?,
            [b'-', _, ..] => parser.short(word, &mut words)?,
            other => return Err(Error::Unexpected(other)),
        };
        if let Some(request) = stop {
            return Ok(request);
        }
    }
    parser.finish().map(Request::Serve)
}

struct Parser {
    /// Each method, and its path if there was one.
    channels: Vec<(Method, Option<&'static CStr>), CHANNELS>,
    /// A path before the first method.
    path: Option<&'static CStr>,
    verbose: bool,
    max_request: usize,
}

impl Parser {
    fn long(
        &mut self,
        word: &'static CStr,
        long: &'static [u8],
        words: &mut impl Iterator<Item = &'static CStr>,
    ) -> Result<Option<Request>, Error> {
        let name_len = long.iter().position(|byte| *byte == b'=').unwrap_or(long.len());
        let flag = long.get(..name_len).and_then(Flag::from_long).ok_or(Error::Unknown(word.to_bytes()))?;
        let glued = name_len < long.len();
        let value = match (flag.has_value(), glued) {
            (true, true) => tail(word, name_len.saturating_add(3)),
            (true, false) => Some(words.next().ok_or(Error::MissingValue(word.to_bytes()))?),
            (false, true) => return Err(Error::UnwantedValue(word.to_bytes())),
            (false, false) => None,
        };
        self.apply(flag, value)
    }

    fn short(
        &mut self,
        word: &'static CStr,
        words: &mut impl Iterator<Item = &'static CStr>,
    ) -> Result<Option<Request>, Error> {
        let mut at = 1usize;
        while let Some(&letter) = word.to_bytes().get(at) {
            at = at.saturating_add(1);
            let flag = Flag::from_short(letter).ok_or(Error::Unknown(word.to_bytes()))?;
            if flag.has_value() {
                let value = match tail(word, at) {
                    Some(value) if !value.is_empty() => value,
                    _ => words.next().ok_or(Error::MissingValue(word.to_bytes()))?,
                };
                return self.apply(flag, Some(value));
            }
            if let Some(request) = self.apply(flag, None)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    /// Does what an option says. Some of them end it all.
    fn apply(&mut self, flag: Flag, value: Option<&'static CStr>) -> Result<Option<Request>, Error> {
        let value = value.unwrap_or_default();
        match flag {
            Flag::Help => return Ok(Some(Request::Help)),
            Flag::Version => return Ok(Some(Request::Version)),
            Flag::Verbose => self.verbose = true,
            // Accepted, so that a unit file for qemu-ga works; there is nothing to keep yet.
            Flag::StateDir => {}
            Flag::Path => match self.channels.last_mut() {
                Some((_, path)) => *path = Some(value),
                None => self.path = Some(value),
            },
            Flag::Method => {
                let method = [Method::VirtioSerial, Method::IsaSerial, Method::UnixListen]
                    .into_iter()
                    .find(|method| method.name().as_bytes() == value.to_bytes())
                    .ok_or(Error::UnknownMethod(value.to_bytes()))?;
                self.channels.push((method, self.path.take())).map_err(|_| Error::TooManyChannels)?;
            }
            Flag::MaxRequest => {
                let number = parse_number(value.to_bytes());
                let range = REQUEST_BYTES_MIN..=REQUEST_BYTES;
                self.max_request =
                    number.filter(|number| range.contains(number)).ok_or(Error::MaxRequest(value.to_bytes()))?;
            }
        }
        Ok(None)
    }

    fn finish(mut self) -> Result<Options, Error> {
        if self.channels.is_empty() {
            let _ = self.channels.push((Method::VirtioSerial, self.path));
        }
        let mut channels = Vec::new();
        for (method, path) in self.channels {
            let path = path.or(method.default_path()).ok_or(Error::NoPath(method))?;
            let _ = channels.push(Place { method, path });
        }
        Ok(Options { channels, verbose: self.verbose, max_request: self.max_request })
    }
}

/// A word without its first bytes.
fn tail(word: &'static CStr, from: usize) -> Option<&'static CStr> {
    CStr::from_bytes_with_nul(word.to_bytes_with_nul().get(from..)?).ok()
}

fn parse_number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(usize::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(words: &[&'static CStr]) -> Options {
        match parse(words.iter().copied()) {
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
        assert_eq!(parse([c"-V"].into_iter()), Ok(Request::Version));
        assert_eq!(parse([c"--help", c"--nonsense"].into_iter()), Ok(Request::Help));
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
            (&[c"--frobnicate"][..], Error::Unknown(b"--frobnicate")),
            (&[c"-vx"], Error::Unknown(b"-vx")),
            (&[c"-m"], Error::MissingValue(b"-m")),
            (&[c"--path"], Error::MissingValue(b"--path")),
            (&[c"--verbose=yes"], Error::UnwantedValue(b"--verbose=yes")),
            (&[c"stray"], Error::Unexpected(b"stray")),
            (&[c"-"], Error::Unexpected(b"-")),
            (&[c"-m", c"carrier-pigeon"], Error::UnknownMethod(b"carrier-pigeon")),
            (&[c"-m", c"unix-listen"], Error::NoPath(Method::UnixListen)),
            (&[c"--max-request", c"1023"], Error::MaxRequest(b"1023")),
            (&[c"--max-request=262145"], Error::MaxRequest(b"262145")),
            (&[c"--max-request="], Error::MaxRequest(b"")),
            (&[c"-misa-serial"; 5], Error::TooManyChannels),
        ] {
            assert_eq!(parse(words.iter().copied()), Err(want), "{words:?}");
        }
    }
}
