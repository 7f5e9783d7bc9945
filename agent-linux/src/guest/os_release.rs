//! Reads os-release(5): lines of a shell's variable assignments, and nothing else of a shell's language.

use agent_core::guest::OsFact;

/// What stands before a value: the end of the line before, its name, and the equals sign.
const NAMES: [(&[u8], OsFact); 7] = [
    (b"\nID=", OsFact::Id),
    (b"\nNAME=", OsFact::Name),
    (b"\nPRETTY_NAME=", OsFact::PrettyName),
    (b"\nVERSION=", OsFact::Version),
    (b"\nVERSION_ID=", OsFact::VersionId),
    (b"\nVARIANT=", OsFact::Variant),
    (b"\nVARIANT_ID=", OsFact::VariantId),
];

/// Tells what the text, which begins with the end of a line, gives of [`NAMES`]: of several values the last one.
pub fn parse(text: &mut [u8], each: &mut dyn FnMut(OsFact, &[u8])) {
    for (name, fact) in &NAMES {
        // The first byte alone tells nearly always that it is not here.
        let starts =
            |at: &usize| text.get(*at) == name.first() && text.get(*at..).is_some_and(|rest| rest.starts_with(name));
        if let Some(at) = (0..text.len()).rev().find(starts)
            && let Some(value) = text.get_mut(at.wrapping_add(name.len())..)
        {
            each(*fact, unquote(value));
        }
    }
}

/// The word at the front, which ends with the line, or at a blank or `;` outside of quotes. Between single quotes every
/// byte is itself, between double ones a backslash escapes only what it must, outside it escapes anything.
#[inline(never)]
fn unquote(value: &mut [u8]) -> &[u8] {
    let mut len = 0usize;
    let mut at = 0usize;
    let mut quote = 0;
    while let Some(&(mut byte)) = value.get(at)
        && byte != b'\n'
    {
        at = at.wrapping_add(1);
        if byte == quote {
            quote = 0;
            continue;
        }
        match special(byte) {
            0..QUOTES if quote == 0 => {
                quote = byte;
                continue;
            }
            BLANKS..OTHER if quote == 0 => break,
            BACKSLASH if quote != b'\'' => {
                if let Some(&escaped) = value.get(at)
                    && (special(escaped) < BLANKS || quote == 0 && escaped != b'\n')
                {
                    byte = escaped;
                    at = at.wrapping_add(1);
                }
            }
            _ => {}
        }
        if let Some(place) = value.get_mut(len) {
            *place = byte;
            len = len.wrapping_add(1);
        }
    }
    value.get(..len).unwrap_or_default()
}

/// Bytes that mean something: quotes, others that must be escaped between double ones, and those that end a word.
const SPECIAL: &[u8] = b"'\"\\$` \t\r;";
const QUOTES: usize = 2;
const BACKSLASH: usize = 2;
const BLANKS: usize = 5;
const OTHER: usize = usize::MAX;

/// The place of a byte among them: [`OTHER`] if it has none.
#[inline(never)]
fn special(byte: u8) -> usize {
    SPECIAL.iter().position(|special| *special == byte).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::process::Command;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    fn facts(text: &str) -> Vec<(OsFact, String)> {
        let mut facts = Vec::new();
        parse(&mut format!("\n{text}").into_bytes(), &mut |fact, value| {
            facts.push((fact, str::from_utf8(value).unwrap().to_string()));
        });
        facts
    }

    /// What it makes of `NAME=` and this.
    fn name(value: &str) -> String {
        let facts = facts(&format!("ID=a\nNAME={value}\nVERSION=b"));
        let [(OsFact::Id, id), (OsFact::Name, name), (OsFact::Version, version)] = &facts[..] else {
            panic!("{facts:?}");
        };
        assert_eq!((id.as_str(), version.as_str()), ("a", "b"));
        name.clone()
    }

    #[test]
    fn each_name_has_its_fact_and_the_last_one_counts() {
        let text = "VARIANT_ID=7\nID=no\nVARIANT=6\nVERSION_ID=5\nVERSION=4\nPRETTY_NAME=3\nNAME=2\nID=1";
        let want = [
            (OsFact::Id, "1"),
            (OsFact::Name, "2"),
            (OsFact::PrettyName, "3"),
            (OsFact::Version, "4"),
            (OsFact::VersionId, "5"),
            (OsFact::Variant, "6"),
            (OsFact::VariantId, "7"),
        ];
        assert_eq!(facts(text), want.map(|(fact, value)| (fact, value.to_string())));
    }

    #[test]
    fn comments_blank_lines_and_other_names_are_passed_by() {
        let text = "# ID=comment\n#ID=comment\n\nID=1\r\nID_LIKE=x\nXID=x\nid=x\nNAME\n\n\nVERSION=";
        assert_eq!(facts(text), [(OsFact::Id, "1".to_string()), (OsFact::Version, String::new())]);
        assert_eq!(facts(""), []);
    }

    #[test]
    fn quotes_and_escapes_are_those_of_the_manual() {
        for (written, meant) in [
            ("plain-1.2_3", "plain-1.2_3"),
            ("cut here", "cut"),
            ("cut;here", "cut"),
            (r"esc\ aped\;\\\$", r"esc aped;\$"),
            (r#""double quoted; $""#, "double quoted; $"),
            (r#""\"\$\`\\\'""#, r#""$`\'"#),
            (r#""\n\t\x\;\ ""#, r"\n\t\x\;\ "),
            (r#""it's""#, "it's"),
            (r#"'single "quoted" \ $'"#, r#"single "quoted" \ $"#),
            (r"'no \' escape", r"no \"),
            ("'Käse \u{1F9C0}'", "Käse \u{1F9C0}"),
            ("\"value\" # no comment", "value"),
            ("\"\"", ""),
            ("''", ""),
            ("a=b", "a=b"),
            ("\"open", "open"),
            ("'open \\", "open \\"),
            ("open\\", "open\\"),
        ] {
            assert_eq!(name(written), meant, "{written}");
        }
    }

    /// Where a word is a word to both: no expansion, nothing behind it.
    #[test]
    fn a_shell_reads_the_same() {
        for written in [
            "plain-1.2_3",
            r"esc\ aped\;\\\$\'",
            r#""double quoted; \$""#,
            r#""\"\$\`\\""#,
            r#""\n\t\x it's""#,
            r#"'single "quoted" \ $ `'"#,
            r#""a"'b'c\d"#,
            "''",
        ] {
            let script = format!("NAME={written}\nprintf %s \"$NAME\"");
            let said = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(name(written), String::from_utf8(said.stdout).unwrap(), "{written}");
        }
    }

    #[test]
    fn damage_anywhere_is_read_to_an_end() {
        let whole = b"\nID=\"a\\\"b\"\nNAME='c'\nVERSION=d\\ e\n";
        for at in 0..whole.len() {
            for byte in *b"\0\n\\'\"= ;\xFF" {
                for end in 0..=whole.len() {
                    let mut damaged = whole.to_vec();
                    damaged[at] = byte;
                    let mut total = 0;
                    parse(&mut damaged[..end], &mut |_, value| total += value.len());
                    assert!(total <= end, "more than there was");
                }
            }
        }
    }
}
