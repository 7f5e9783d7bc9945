//! The table of options, which is the text of `--help`: a line an option.
//!
//! The command line, the configuration file and `-D` read their options from these lines. What a value means is none of
//! its business.

use agent_core::packed;
use agent_core::packed::unpack_to;

use super::FULL;
use crate::text::cut;

/// Makes the table: of each option its line, with its letter, if it has one, its long name, and what its value is
/// called behind `=` or, where it may be left out, behind `[=`.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident = $line:expr;)*) => {
        /// An option.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Name {
            $($(#[$doc])* $name,)*
        }

        /// The options, in the order of their lines.
        const NAMES: &[Name] = &[$(Name::$name,)*];

        /// The text, with an empty line for an option that this agent does not have.
        const TEXT: &str =
            concat!("Usage: nanoga [OPTION]...\nAnswers the QEMU guest agent protocol.\n\n", $($line, "\n",)*);
    };
}

/// A line that the agent with the fewest commands lacks.
#[cfg(not(feature = "minimal"))]
macro_rules! full {
    ($line:literal) => {
        $line
    };
}
#[cfg(feature = "minimal")]
macro_rules! full {
    ($line:literal) => {
        ""
    };
}

/// A line that only an agent has that can be the first process.
#[cfg(feature = "init")]
macro_rules! init {
    ($line:literal) => {
        $line
    };
}
#[cfg(not(feature = "init"))]
macro_rules! init {
    ($line:literal) => {
        ""
    };
}

options! {
    // In the order of the reference's `-D`. Up to `Config` they may stand in the configuration file.
    /// Does it go to the background?
    Daemonize = full!("  -d, --daemonize                 go to the background as soon as the channels are open");
    /// What a channel is made of.
    Method =
        "  -m, --method=METHOD             virtio-serial (default), isa-serial, unix-listen, vsock-listen; repeatable";
    /// Where it is.
    Path = "  -p, --path=PATH                 the device, port name, socket or CID:PORT of the channel";
    /// What is logged goes here.
    Logfile = full!("  -l, --logfile=FILE              log here, not to standard error");
    /// The number of the background process goes here.
    Pidfile = full!("  -f, --pidfile=FILE              for the process number, with -d (/var/run/qemu-ga.pid)");
    /// The program that a freeze waits for.
    FsfreezeHook =
        full!("  -F, --fsfreeze-hook[=FILE]      run before freeze, after thaw (/etc/qemu/fsfreeze-hook)");
    /// What survives the agent goes here.
    Statedir = "  -t, --statedir=DIR              for what survives the agent (/var/run)";
    /// Say more.
    Verbose = "  -v, --verbose                   report what happens to the channels";
    /// Wait for what cannot be opened.
    RetryPath = full!("  -r, --retry-path                wait for a channel that cannot be opened");
    /// Commands that are refused.
    BlockRpcs = full!("  -b, --block-rpcs=LIST           refuse these commands ('help' names all)");
    /// The only commands that are not.
    AllowRpcs = full!("  -a, --allow-rpcs=LIST           refuse all other commands");
    // These are ours.
    /// Interfaces that hosts need not know of.
    IgnoreInterfaces = full!("      --ignore-interfaces=LIST    hide network interfaces, such as 'veth*,docker?'");
    /// How long file systems stay frozen at most.
    FreezeTimeout = full!("      --freeze-timeout=SECONDS    thaw without being told to");
    /// Bytes of a request.
    MaxRequest = "      --max-request=BYTES         the longest request, 1024 to 262144 (default)";
    /// Who may connect to a vsock.
    VsockPeer = full!("      --vsock-peer=WHO            who may connect by vsock: host (default), privileged or any");
    /// Where the host waits for the agent.
    Ready = full!("      --ready=WHERE               tell console or vsock:PORT when the channels are open");
    /// Draw other random numbers than a clone.
    Reseed = full!("      --reseed                    new random numbers where a snapshot may have been restored");
    /// The program of a guest whose first process the agent is.
    Exec = init!("      --exec=WORDS                as first process, run this");
    /// What its end means.
    OnExit = init!("      --on-exit=WHAT              poweroff (default), reboot, halt, restart or stay when it ends");
    /// How long programs may take to end.
    Grace = init!("      --grace=SECONDS             for programs to end, before the guest does (10)");
    /// The name of the guest.
    Hostname = init!("      --hostname=NAME             of the guest");
    /// Another first process.
    Handoff = init!("      --handoff=PATH              start this as first process, and go on beside it");
    /// Where more options stand.
    Config = full!("  -c, --config=FILE               the configuration (/etc/qemu/qemu-ga.conf)");
    /// Show what has become of all that.
    DumpConf = full!("  -D, --dump-conf                 print the configuration");
    /// Show what it may cost.
    Limits = full!("      --limits                    print what the agent holds at most");
    /// Say who this is.
    Version = "  -V, --version                   print the version";
    /// Say all this.
    Help = "  -h, --help                      print this";
}

/// Lines before the first option.
const HEADING: usize = 3;

/// How an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Not at all: it is true.
    None,
    /// Glued on, or in the next word.
    Mandatory,
    /// Glued on, or not at all.
    Optional,
}

/// What a line says of its option.
pub struct Row<'t> {
    /// Which it is.
    pub option: Name,
    /// A blank, if it has none.
    pub letter: u8,
    /// The long name.
    pub name: &'t [u8],
    /// Does it have a value?
    pub value: Value,
}

/// The lines, unpacked. That takes a while: who looks up several options keeps it.
pub struct Table<'t>(&'t [u8]);

/// For the lines. Whoever looks them up has it: a copy would be another page of the stack.
pub const SPACE: [u8; TEXT.len()] = [0; TEXT.len()];

impl<'t> Table<'t> {
    /// The options of this agent, in this space.
    #[inline(never)]
    pub fn unpacked(space: &'t mut [u8]) -> Self {
        Table(unpack_to(packed!(TEXT), space))
    }

    /// Goes through the options.
    #[inline(never)]
    pub fn each(&self, row: &mut dyn FnMut(&Row<'_>)) {
        let mut rest = self.0;
        for _ in 0..HEADING {
            cut(&mut rest, b'\n');
        }
        for option in NAMES {
            let [_, _, _, letter, _, _, _, _, name @ ..] = cut(&mut rest, b'\n') else {
                continue;
            };
            let end = name.iter().position(|byte| matches!(byte, b'=' | b'[' | b' ')).unwrap_or(0);
            let (name, behind) = name.split_at_checked(end).unwrap_or_default();
            let value = match behind.first() {
                Some(b'=') => Value::Mandatory,
                Some(b'[') => Value::Optional,
                _ => Value::None,
            };
            row(&Row { option: *option, letter: *letter, name, value });
        }
    }

    /// Finds an option, and how it takes a value: by its letter, by its long name, or by the beginning of one and only
    /// one.
    #[inline(never)]
    pub fn find(&self, word: &[u8], is_letter: bool) -> Option<(Name, Value)> {
        // Its name until QEMU 9. Where it still stands it must go on blocking.
        let word = if FULL && word == b"blacklist" { b"block-rpcs" } else { word };
        let mut found = None;
        let mut beginnings = 0usize;
        self.each(&mut |row| {
            let exact = if is_letter { row.letter != b' ' && word == [row.letter] } else { word == row.name };
            if exact {
                beginnings = 0;
            } else if is_letter || !row.name.starts_with(word) || found.is_some() && beginnings == 0 {
                return;
            } else {
                beginnings = beginnings.wrapping_add(1);
            }
            found = Some((row.option, row.value));
        });
        found.filter(|_| beginnings < 2)
    }

    /// Tells the text of `--help`.
    pub fn help(&self, out: &mut dyn FnMut(&[u8])) {
        let mut rest = self.0;
        let mut lines = 0usize;
        while !rest.is_empty() {
            let line = cut(&mut rest, b'\n');
            lines = lines.wrapping_add(1);
            // No line stands for an option that this agent does not have.
            if lines <= HEADING || !line.is_empty() {
                out(line);
                out(b"\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn every_option_is_found_by_its_names() {
        let mut count = 0;
        let mut space = SPACE;
        let table = Table::unpacked(&mut space);
        table.each(&mut |row| {
            assert_eq!(table.find(row.name, false), Some((row.option, row.value)), "{:?}", row.option);
            if row.letter != b' ' {
                assert_eq!(table.find(&[row.letter], true), Some((row.option, row.value)), "{:?}", row.option);
            }
            count += 1;
        });
        assert!(!FULL || count == NAMES.len());
    }

    #[test]
    fn the_beginning_of_a_name_is_enough_where_it_leaves_no_doubt() {
        let mut space = SPACE;
        let table = Table::unpacked(&mut space);
        assert_eq!(table.find(b"meth", false), Some((Name::Method, Value::Mandatory)));
        assert_eq!(table.find(b"verb", false), Some((Name::Verbose, Value::None)));
        assert_eq!(table.find(b"blacklist", false), table.find(b"block-rpcs", false));
        for word in [&b"ver"[..], b"", b" ", b"methods", b"m"] {
            assert_eq!(table.find(word, false), None, "{word:?}");
        }
        for letter in [&b" "[..], b"-", b"=", b"x"] {
            assert_eq!(table.find(letter, true), None, "{letter:?}");
        }
    }

    #[test]
    fn help_fits_on_a_terminal() {
        let mut text = std::vec::Vec::new();
        Table::unpacked(&mut { SPACE }).help(&mut |piece| text.extend_from_slice(piece));
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.len() <= 108), "{text}");
        assert!(text.lines().skip(HEADING).all(|line| !line.is_empty()), "{text}");
    }
}
