//! Files of the guest, by handle. Bulk data is base64 on the wire and goes through in pieces, whatever its size.

use super::{Call, Result, nothing};
use crate::base64::Decoder;
use crate::error::Fault;
use crate::guest::{Errno, FileAccess, FileMode, Guest, Whence};
use crate::limits;
use crate::packed;

/// `guest-file-open`: `{"path": str, "mode"?: str}` → int, the handle
pub(super) fn open<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let path = call.string("path");
    let mode = call.optional_string("mode").map_or(&b"r"[..], |mode| mode.to_bytes());
    call.no_more_arguments()?;
    let Some(known) = file_mode(mode) else {
        return Err(call.fail(Fault::FileMode, mode));
    };

    match call.guest.open_file(path, known) {
        Ok(handle) => {
            call.reply.integer(handle);
            Ok(())
        }
        Err(errno) => {
            let failed = call.fail(Fault::FileOpen, path.to_bytes());
            call.error.other = mode;
            call.error.number = u32::from(errno.0);
            Err(failed)
        }
    }
}

/// `guest-file-close`: `{"handle": int}` → `{}`
pub(super) fn close<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let handle = call.integer("handle");
    open_handle(call, handle)?;

    call.guest.close_file(handle).map_err(|errno| call.fail_by(Fault::FileClose, errno))?;
    nothing(call)
}

/// `guest-file-flush`: `{"handle": int}` → `{}`
///
/// Nothing is held back that could be flushed.
pub(super) fn flush<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let handle = call.integer("handle");
    open_handle(call, handle)?;
    nothing(call)
}

/// `guest-file-read`: `{"handle": int, "count"?: int}` → `GuestFileRead`
///
/// Reads until there are so many bytes, the file ends, or there is nothing to read for now. A reply that would not fit
/// into the spool is short.
pub(super) fn read<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let handle = call.integer("handle");
    let count = call.optional_integer("count").unwrap_or(4096);
    open_handle(call, handle)?;
    let count = checked_count(call, count, limits::FILE_READ_BYTES)?;

    let room = call.reply.base64_room();
    let (mut read, mut end, mut error) = (0usize, false, None);
    let guest = &mut *call.guest;
    call.reply.known(packed!("{\"buf-b64\":"));
    call.reply.open_string();
    let count = count.min(room);
    call.reply.part_base64(count, &mut |buffer| {
        let wanted = count.wrapping_sub(read).min(buffer.len());
        match buffer.get_mut(..wanted).map_or(Ok(0), |buffer| guest.read_file(handle, buffer)) {
            Ok(bytes) => {
                end = bytes == 0 && wanted > 0;
                read = read.wrapping_add(bytes);
                bytes
            }
            Err(errno) => {
                error = Some(errno);
                0
            }
        }
    });
    call.reply.close_string();
    // What could be read before is not lost: the error will come again.
    if let (0, Some(errno)) = (read, error) {
        return Err(call.fail_by(Fault::FileRead, errno));
    }
    let read = u64::try_from(read).unwrap_or(u64::MAX);
    call.reply.numbers(packed!("\"count\":#,\"eof\":!}"), &[read, end.into()]);
    Ok(())
}

/// `guest-file-write`: `{"handle": int, "buf-b64": str, "count"?: int}` → `GuestFileWrite`
///
/// Writes as much as is possible now.
pub(super) fn write<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let handle = call.integer("handle");
    let text = call.string("buf-b64");
    let count = call.optional_integer("count");
    open_handle(call, handle)?;
    let Some(mut data) = Decoder::new(text.to_bytes()) else {
        return Err(call.fail(Fault::Base64, &[]));
    };
    let most = data.len();
    let count = match count {
        Some(count) => checked_count(call, count, most)?,
        None => most,
    };

    let (mut written, mut error) = (0usize, None::<Errno>);
    while written < count {
        let buffer = call.reply.scratch();
        let bytes = data.read(buffer).min(count.wrapping_sub(written));
        let result = call.guest.write_file(handle, buffer.get(..bytes).unwrap_or_default());
        written = written.wrapping_add(result.unwrap_or(0));
        error = result.err();
        if result != Ok(bytes) {
            break;
        }
    }
    if let (0, Some(errno)) = (written, error) {
        return Err(call.fail_by(Fault::FileWrite, errno));
    }
    call.reply.number(packed!("{\"count\":#,\"eof\":false}"), u64::try_from(written).unwrap_or(u64::MAX));
    Ok(())
}

/// `guest-file-seek`: `{"handle": int, "offset": int, "whence": GuestFileWhence}` → `GuestFileSeek`
pub(super) fn seek<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    const NAME: &str = "whence";
    let handle = call.integer("handle");
    let offset = call.integer("offset");
    let value = call.value(NAME);
    let code = match value.first() {
        Some(b'"') => call.word(NAME, value, &["set", "cur", "end"]),
        Some(b'-' | b'0'..=b'9') => call.number(NAME, value),
        _ => {
            call.not_an(NAME, b"GuestFileWhence");
            0
        }
    };
    open_handle(call, handle)?;
    let whence = match code {
        0 => Whence::Set,
        1 => Whence::Current,
        2 => Whence::End,
        _ => return Err(call.fail(Fault::Whence, value)),
    };

    let position =
        call.guest.seek_file(handle, offset, whence).map_err(|errno| call.fail_by(Fault::FileSeek, errno))?;
    call.reply.number(packed!("{\"position\":#,\"eof\":false}"), position.cast_unsigned());
    Ok(())
}

/// The arguments are complete, and there is a file of this handle.
#[inline(never)]
fn open_handle<G: Guest>(call: &mut Call<'_, G>, handle: i64) -> Result<()> {
    call.no_more_arguments()?;
    if !call.guest.has_file(handle) {
        let shown = call.value("handle");
        return Err(call.fail(Fault::FileHandle, shown));
    }
    Ok(())
}

/// The argument `count`, unless there cannot be so many bytes.
#[inline(never)]
fn checked_count<G>(call: &mut Call<'_, G>, count: i64, most: usize) -> Result<usize> {
    match usize::try_from(count) {
        Ok(count) if count <= most => Ok(count),
        _ => {
            let shown = call.value("count");
            Err(call.fail(Fault::FileCount, shown))
        }
    }
}

/// The modes of `fopen(3)`: `r`, `w` or `a`, then `b` and `+` in any order, or one of them, or none.
fn file_mode(text: &[u8]) -> Option<FileMode> {
    let (letter, rest) = text.split_first()?;
    let access = match letter {
        b'r' => FileAccess::Read,
        b'w' => FileAccess::Write,
        b'a' => FileAccess::Append,
        _ => return None,
    };
    let (mut update, mut binary) = (false, false);
    for letter in rest {
        let seen = if *letter == b'+' { &mut update } else { &mut binary };
        if *seen || !matches!(letter, b'+' | b'b') {
            return None;
        }
        *seen = true;
    }
    Some(FileMode { access, update })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn the_modes_are_exactly_those_of_the_reference() {
        let mut texts = vec![String::new()];
        let mut known = Vec::new();
        for _ in 0..4 {
            texts = texts
                .iter()
                .flat_map(|text| ["", "r", "w", "a", "b", "+", "x"].map(|more| text.clone() + more))
                .collect();
            texts.sort();
            texts.dedup();
        }
        for text in &texts {
            if let Some(mode) = file_mode(text.as_bytes()) {
                assert_eq!(mode.update, text.contains('+'), "{text}");
                known.push(text.as_str());
            }
        }
        let mut want =
            vec!["r", "rb", "w", "wb", "a", "ab", "r+", "rb+", "r+b", "w+", "wb+", "w+b", "a+", "ab+", "a+b"];
        want.sort_unstable();
        assert_eq!(known, want);
    }
}
