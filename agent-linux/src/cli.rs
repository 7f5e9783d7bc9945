//! The command line, as in qemu-ga(8).
//!
//! Short options may be bundled (`-vm unix-listen`) and their values glued on (`-p/dev/ttyS0`), long ones have theirs
//! behind `=` or in the next word, and may be cut short where that leaves no doubt.

use core::ffi::CStr;

use crate::log::{Failed, say_of};
use crate::options::{HOOK, Name, Options, SPACE, Table, Value};
use crate::sys;
use agent_core::packed;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To run, or to show how it would.
    Go,
    /// To print what this option is about, whatever else is given.
    Print(Name),
}

/// Reads the words behind the program's name.
#[inline(never)]
pub fn parse(words: &mut dyn Iterator<Item = &'static CStr>, options: &mut Options) -> Result<Action, Failed> {
    let mut space = SPACE;
    let table = Table::unpacked(&mut space);
    while let Some(word) = words.next() {
        let text = word.to_bytes();
        let is_long = text.starts_with(b"--");
        let mut at = if is_long { 2usize } else { 1 };
        if !text.starts_with(b"-") || text == b"-" {
            // The reference goes on without a word. An empty one is what systemd makes of an empty `${VARIABLE}`.
            if !text.is_empty() && !options.is_configured {
                say_of(packed!("unexpected argument '%'"), text);
            }
            continue;
        }
        let wrong = loop {
            if at >= text.len() {
                break None;
            }
            let mut end = at.wrapping_add(1);
            if is_long {
                end = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
            }
            let Some((option, kind)) = table.find(text.get(at..end).unwrap_or_default(), !is_long) else {
                break Some(packed!("unknown option '%', try --help"));
            };
            at = end;
            let mut value = c"true";
            if kind == Value::None {
                if is_long && end < text.len() {
                    break Some(packed!("option '%' takes no value"));
                }
            } else {
                value = sys::tail(word, end.wrapping_add(usize::from(is_long)));
                if kind == Value::Optional && value.is_empty() {
                    value = HOOK;
                } else if kind == Value::Mandatory && end >= text.len() {
                    let Some(next) = words.next() else {
                        break Some(packed!("option '%' needs a value, try --help"));
                    };
                    value = next;
                }
                at = text.len();
            }
            match option {
                Name::Help | Name::Version | Name::Limits => return Ok(Action::Print(option)),
                Name::BlockRpcs | Name::AllowRpcs if value == c"help" || value == c"?" => {
                    return Ok(Action::Print(Name::BlockRpcs));
                }
                _ => options.give(option, value)?,
            }
        };
        if let Some(form) = wrong {
            return Err(say_of(form, text));
        }
    }
    Ok(Action::Go)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Method, channels};

    fn given(words: &[&'static CStr]) -> Options {
        let mut options = Options::NONE;
        assert_eq!(parse(&mut words.iter().copied(), &mut options), Ok(Action::Go), "{words:?}");
        assert_eq!(options.finish(), Ok(()), "{words:?}");
        options
    }

    fn places(words: &[&'static CStr]) -> std::vec::Vec<(Method, &'static str)> {
        channels(&given(words))
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
            &[c"--meth", c"unix-listen", c"--pa=/run/ga"],
            &[c"-m", c"unix-listen", c"-p", c"/other", c"-p", c"/run/ga", c"-t", c"/var/run"],
        ] {
            assert_eq!(places(words), want, "{words:?}");
        }
        assert!(given(&[c"-v"]).verbose);
        assert_eq!(given(&[c"--max-request=1024"]).max_request, 1024);
        assert_eq!(given(&[c"-t", c"/state"]).state_dir(), c"/state");
    }

    #[test]
    fn what_is_asked_for_is_printed_whatever_follows() {
        for (words, what) in [
            (&[c"-V"][..], Name::Version),
            (&[c"--version", c"-x"], Name::Version),
            (&[c"--help", c"--nonsense"], Name::Help),
            (&[c"-vh"], Name::Help),
            (&[c"--limits"], Name::Limits),
            (&[c"-b", c"help"], Name::BlockRpcs),
            (&[c"-a?"], Name::BlockRpcs),
            (&[c"--block-rpcs=?"], Name::BlockRpcs),
        ] {
            let action = parse(&mut words.iter().copied(), &mut { Options::NONE });
            assert_eq!(action, Ok(Action::Print(what)), "{words:?}");
        }
    }

    #[test]
    fn the_hook_of_a_freeze_has_a_value_only_if_it_is_glued_on() {
        for words in [&[c"-F"][..], &[c"-vF"], &[c"--fsfreeze-hook"], &[c"--fsfreeze-hook="], &[c"-F", c"-t", c"/s"]] {
            assert_eq!(given(words).freeze_hook, Some(c"/etc/qemu/fsfreeze-hook"), "{words:?}");
        }
        for words in [[c"-F/bin/hook"], [c"-vF/bin/hook"], [c"--fsfreeze-hook=/bin/hook"]] {
            assert_eq!(given(&words).freeze_hook, Some(c"/bin/hook"), "{words:?}");
        }
        assert_eq!(given(&[c"-F", c"/bin/hook"]).freeze_hook, Some(c"/etc/qemu/fsfreeze-hook"));
    }

    #[test]
    fn words_that_are_no_options_are_passed_over() {
        for words in [[c"stray", c"-v"], [c"-", c"-v"], [c"", c"-v"], [c"-v", c"stray"]] {
            assert!(given(&words).verbose, "{words:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &[c"--frobnicate"][..],
            &[c"-vx"],
            &[c"--ver"],
            &[c"--=x"],
            &[c"- "],
            &[c"-m"],
            &[c"--path"],
            &[c"--verbose=yes"],
            &[c"-v"; 100],
        ] {
            assert!(parse(&mut words.iter().copied(), &mut { Options::NONE }).is_err(), "{words:?}");
        }
    }
}
