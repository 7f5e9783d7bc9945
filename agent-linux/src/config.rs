//! The configuration file, in GLib's key file format: groups in brackets, `key=value`, `#` before a comment.
//!
//! Only the group `[general]` means something, and in it the options of the table, by their long names.

use core::ffi::CStr;

use agent_core::packed;
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, read};

use crate::log::{Failed, say, say_of, say_why};
use crate::options::{ESCAPES, Name, Options, SPACE, Table, Value};
use crate::sys;

/// Reads the file. It has to be there only if it is `required`. The options go on pointing into the lent memory, whose
/// last byte stays zero.
#[inline(never)]
pub fn load(
    path: &'static CStr,
    required: bool,
    space: &'static mut [u8],
    options: &mut Options,
) -> Result<(), Failed> {
    let read = sys::open(CWD, path, OFlags::RDONLY).and_then(|file| {
        let mut len = 0usize;
        loop {
            let room = space.get_mut(len..).unwrap_or_default();
            let is_full = room.is_empty();
            match read(&file, room)? {
                0 if is_full => return Err(Errno::FBIG),
                0 => return Ok(len),
                count => len = len.wrapping_add(count),
            }
        }
    });
    match read {
        Ok(len) => parse(space.get_mut(..=len).unwrap_or_default(), options, false),
        Err(Errno::NOENT) if !required => Ok(()),
        Err(error) => Err(say_why(packed!("cannot read the configuration '%': !"), path.to_bytes(), error)),
    }
}

/// Reads the text. What is wrong in a line has been said, and may be passed over.
#[inline(never)]
pub(crate) fn parse(text: &'static mut [u8], options: &mut Options, pass_over: bool) -> Result<(), Failed> {
    // Before the first group nothing may stand.
    let mut is_general = None;
    for line in text.split_mut(|byte| matches!(byte, b'\n' | 0)) {
        // Of a file with lines as on Windows.
        let end = line.len().wrapping_sub(usize::from(line.ends_with(b"\r")));
        let mut value = line.get_mut(..end).unwrap_or_default();
        let key_end = value.iter().position(|byte| *byte == b'=').unwrap_or(value.len());
        let key: &'static [u8] = value.split_off_mut(..key_end).unwrap_or_default().trim_ascii();
        if matches!(key, [b'#', ..]) || key.is_empty() && value.is_empty() {
            continue;
        }
        if matches!(key, [b'[', .., b']']) {
            is_general = Some(key == b"[general]");
            continue;
        }
        let result = if value.is_empty() || is_general.is_none() {
            Err(say_of(packed!("configuration: '%' is neither a group nor a key with its value in one"), key))
        } else if is_general == Some(true) {
            set(key, unescape(value), options)
        } else {
            Ok(())
        };
        if !pass_over {
            result?;
        }
    }
    Ok(())
}

/// Notes the value of a key.
#[inline(never)]
pub(crate) fn set(key: &'static [u8], value: &'static CStr, options: &mut Options) -> Result<(), Failed> {
    // The one key that is not the name of its option, but begins it.
    let Some((option, kind)) = Table::unpacked(&mut { SPACE }).find(key, false).filter(|found| found.0 < Name::Config)
    else {
        say_of(packed!("configuration: there is no key '%'"), key);
        return Ok(());
    };
    let mut value = value;
    if kind == Value::None {
        let word = value.to_bytes().trim_ascii_end();
        value = if word == b"true" || word == b"1" {
            c"true"
        } else if word == b"false" || word == b"0" {
            c"false"
        } else {
            return Err(say(packed!("configuration: % is either true or false, not '%'"), &[key, word]));
        };
    }
    options.give(option, value)
}

/// The value behind a `=`: without the blanks before it and the escapes in it, in place. Where the `=` was there is
/// room for what ends a C string.
fn unescape(value: &'static mut [u8]) -> &'static CStr {
    let (mut from, mut to) = (1usize, 0usize);
    while let Some(byte) = value.get(from) {
        let mut byte = *byte;
        from = from.wrapping_add(1);
        if to == 0 && byte.is_ascii_whitespace() {
            continue;
        }
        if byte == b'\\'
            && let Some((_, escaped)) = ESCAPES.iter().find(|(letter, _)| Some(letter) == value.get(from))
        {
            byte = *escaped;
            from = from.wrapping_add(1);
        }
        if let Some(place) = value.get_mut(to) {
            *place = byte;
        }
        to = to.wrapping_add(1);
    }
    if let Some(end) = value.get_mut(to) {
        *end = 0;
    }
    CStr::from_bytes_until_nul(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::options::{Method, channels};

    fn read(text: &str) -> Result<Options, Failed> {
        let mut space = Vec::from(text);
        space.push(0);
        let mut options = Options::NONE;
        parse(space.leak(), &mut options, false)?;
        options.finish().map(|()| options)
    }

    #[test]
    fn keys_of_the_general_group_are_options() {
        let options = read(
            "# a comment\n\n[general]\n  # another\n daemon = 1 \nmethod=isa-serial\r\npath= /dev/ttyS7\n\
             verbose=true\n\nstatedir=/a\\\\b\\sc\nmax-request=4096\n[other]\nverbose=false\nstatedir=/x",
        )
        .unwrap();
        assert_eq!(channels(&options), [(Method::IsaSerial, "/dev/ttyS7")]);
        assert!(options.verbose && options.is_on(Name::Daemonize) && !options.is_on(Name::RetryPath));
        assert_eq!(options.state_dir(), c"/a\\b c");
        assert_eq!(options.max_request, 4096);
        assert_eq!(options.word(Name::Logfile), None);
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let options = read("[general]\nverbose=true\nverbose=0\nlogfile=/a\nlogfile=\n").unwrap();
        assert!(!options.verbose);
        assert_eq!(options.word(Name::Logfile), Some(c""));
    }

    #[test]
    fn keys_that_do_not_exist_are_passed_over() {
        assert!(read("[general]\nnonsense=1\n=2\nhelp=true\nversion=true\nverb\\=3\n").is_ok());
        assert!(read("").is_ok());
        assert!(read("[other]\nverbose=perhaps\n").is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "verbose=true\n",
            "[general]\n foo \n",
            "[general]\n[broken\n",
            "[general]\nverbose=yes\n",
            "[general]\nverbose=\n",
            "[general]\nmethod=unix-listen",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_dump_reads_back_as_itself() {
        let text = "[general]\ndaemon=true\nmethod=unix-listen\npath=/x\nlogfile=\\s\\sa\\\\b\npidfile=/p\n\
            fsfreeze-hook=/h\nstatedir=/s\nverbose=true\nretry-path=true\nblock-rpcs=guest-ping;guest-get-time\n\
            allow-rpcs=guest-info\nignore-interfaces=\\tveth*\nfreeze-timeout=60\nmax-request=4096\n";
        let mut dumped = Vec::new();
        read(text).unwrap().dump(&mut |piece| dumped.extend_from_slice(piece));
        assert_eq!(String::from_utf8(dumped).unwrap(), text);
    }
}
