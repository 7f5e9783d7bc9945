//! The configuration file that means the same as what was given: `-D`.
//!
//! How such a file is read, `config.rs` knows.

use core::ffi::CStr;

use super::table::{SPACE, Table, Value};
use super::{Name, Options};

impl Options {
    /// Tells the configuration file that means the same, piece by piece, as the reference prints it. Of several
    /// channels it can hold the first.
    #[inline(never)]
    pub fn dump(&self, out: &mut dyn FnMut(&[u8])) {
        out(b"[general]\n");
        Table::unpacked(&mut { SPACE }).each(&mut |row| {
            let place = self.channels.first();
            let value = match row.option {
                Name::Method => place.and_then(|place| place.method.name()),
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

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;
    use crate::options::options;

    fn dumped(options: &Options) -> String {
        let mut text = std::vec::Vec::new();
        options.dump(&mut |piece| text.extend_from_slice(piece));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_the_reference_does_not_know_is_dumped_only_if_it_was_given() {
        assert!(!dumped(&options(&[], &[]).unwrap()).contains("reseed"));
        let given = [(Name::Reseed, c"true"), (Name::Ready, c"vsock:1"), (Name::VsockPeer, c"any")];
        let text = dumped(&options(&[], &given).unwrap());
        assert!(text.ends_with("vsock-peer=any\nready=vsock:1\nreseed=true\n"), "{text}");
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
