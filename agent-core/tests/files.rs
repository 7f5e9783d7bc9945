//! `guest-file-*` over files that exist in memory only: what is asked of the guest, and what becomes of bulk data.
#![cfg(feature = "files")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::Errno;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Host, REPLY_BYTES, REQUEST_BYTES, SPOOL_BYTES, replies};

/// A host with one file that has these contents, open as 1000.
fn with_file(contents: &[u8]) -> Host<'static> {
    let mut host = Host::new();
    host.agent.guest.files.contents.insert("f".to_owned(), contents.to_vec());
    host.returns("guest-file-open", json!({ "path": "f", "mode": "r+" }), json!(1000));
    host
}

fn contents<'h>(host: &'h Host<'_>) -> &'h [u8] {
    &host.agent.guest.files.contents["f"]
}

/// One read: the bytes, and whether they were the last.
fn read(host: &mut Host<'_>, count: usize) -> (Vec<u8>, bool) {
    let reply = host.call("guest-file-read", json!({ "handle": 1000, "count": count }));
    let bytes = BASE64_STANDARD.decode(reply["return"]["buf-b64"].as_str().unwrap()).unwrap();
    assert_eq!(reply["return"]["count"], bytes.len());
    (bytes, reply["return"]["eof"].as_bool().unwrap())
}

#[test]
fn what_cannot_be_is_refused_in_the_words_of_the_reference() {
    let host = &mut with_file(b"");
    host.fails(
        "guest-file-open",
        json!({ "path": "none" }),
        "failed to open file 'none' (mode: 'r'): No such file or directory",
    );
    host.fails("guest-file-open", json!({ "path": "f", "mode": "" }), "invalid file open mode ''");
    host.fails("guest-file-open", json!({ "path": "f", "mode": "rr" }), "invalid file open mode 'rr'");
    host.fails("guest-file-open", json!({ "path": 1 }), "Invalid parameter type for 'path', expected: string");
    host.fails("guest-file-open", json!({}), "Parameter 'path' is missing");
    for command in ["close", "flush", "read"] {
        let command = format!("guest-file-{command}");
        host.fails(&command, json!({ "handle": -5 }), "handle '-5' has not been found");
        host.fails(&command, json!({ "handle": 0 }), "handle '0' has not been found");
        host.fails(&command, json!({ "handle": "x" }), "Invalid parameter type for 'handle', expected: integer");
        host.fails(&command, json!({ "handle": 5, "x": 1 }), "Parameter 'x' is unexpected");
    }
    // The handle first, then what goes with it.
    host.fails("guest-file-read", json!({ "handle": 5, "count": -1 }), "handle '5' has not been found");
    host.fails("guest-file-write", json!({ "handle": 5, "buf-b64": "!" }), "handle '5' has not been found");
    host.fails("guest-file-seek", json!({ "handle": 5, "offset": 0, "whence": 9 }), "handle '5' has not been found");
    for count in [-1, 50_331_649] {
        let want = format!("value '{count}' is invalid for argument count");
        host.fails("guest-file-read", json!({ "handle": 1000, "count": count }), &want);
    }
    let invalid = "Base64 data contains invalid characters";
    host.fails("guest-file-write", json!({ "handle": 1000, "buf-b64": "QUJD REQ=", "count": -1 }), invalid);
    for count in [-1, 4] {
        let want = format!("value '{count}' is invalid for argument count");
        host.fails("guest-file-write", json!({ "handle": 1000, "buf-b64": "QUJD", "count": count }), &want);
    }
    let seek = |whence: Value| json!({ "handle": 1000, "offset": 0, "whence": whence });
    host.fails("guest-file-seek", seek(json!(3)), "invalid whence code 3");
    host.fails("guest-file-seek", seek(json!(-1)), "invalid whence code -1");
    host.fails("guest-file-seek", seek(json!("Set")), "Parameter 'whence' does not accept value 'Set'");
    host.fails("guest-file-seek", seek(json!(2.5)), "Invalid parameter type for 'whence', expected: integer");
    for other in [json!(null), json!(true), json!([]), json!({})] {
        host.fails("guest-file-seek", seek(other), "Invalid parameter type for 'whence', expected: GuestFileWhence");
    }
    let before = json!({ "handle": 1000, "offset": -1, "whence": "set" });
    host.fails("guest-file-seek", before, "failed to seek file: Invalid argument");
    assert_eq!(contents(host), b"", "nothing was written");
}

#[test]
fn whence_is_a_number_or_a_name() {
    let host = &mut with_file(b"0123456789");
    for (offset, whence, position) in [
        (3, json!(0), 3),
        (2, json!(1), 5),
        (-1, json!("cur"), 4),
        (0, json!(2), 10),
        (-4, json!("end"), 6),
        (12, json!("set"), 12),
    ] {
        let want = json!({ "position": position, "eof": false });
        host.returns("guest-file-seek", json!({ "handle": 1000, "offset": offset, "whence": whence }), want);
    }
    assert_eq!(read(host, 5), (vec![], true));
}

#[test]
fn the_end_of_a_file_is_told_by_the_read_that_meets_it() {
    let host = &mut with_file(b"0123456789");
    assert_eq!(read(host, 0), (vec![], false));
    assert_eq!(read(host, 10), (b"0123456789".to_vec(), false), "it ends here, but nobody has looked");
    assert_eq!(read(host, 0), (vec![], false));
    assert_eq!(read(host, 1), (vec![], true));
    host.returns(
        "guest-file-seek",
        json!({ "handle": 1000, "offset": 8, "whence": 0 }),
        json!({ "position": 8, "eof": false }),
    );
    assert_eq!(read(host, 4096), (b"89".to_vec(), true));
}

#[test]
fn a_read_without_count_is_of_4096_bytes() {
    let host = &mut with_file(&[7; 5000]);
    let reply = host.call("guest-file-read", json!({ "handle": 1000 }));
    assert_eq!(reply["return"]["count"], 4096);
    assert_eq!(reply["return"]["eof"], false);
}

#[test]
fn what_was_read_before_an_error_is_not_lost() {
    let host = &mut with_file(b"0123456789");
    // EAGAIN
    host.agent.guest.files.error = Some(Errno(11));
    host.fails("guest-file-read", json!({ "handle": 1000 }), "failed to read file: Resource temporarily unavailable");
    assert_eq!(read(host, 3), (b"012".to_vec(), false));
}

#[test]
fn a_write_says_how_much_of_it_was_possible() {
    let host = &mut with_file(b"");
    let write = json!({ "handle": 1000, "buf-b64": "MDEyMzQ1Njc4OQ==" });
    host.agent.guest.files.bite = Some(4);
    host.returns("guest-file-write", write.clone(), json!({ "count": 4, "eof": false }));
    host.agent.guest.files.bite = None;
    // ENOSPC
    host.agent.guest.files.error = Some(Errno(28));
    host.fails("guest-file-write", write.clone(), "failed to write to file: No space left on device");
    let mut part = write;
    part["count"] = json!(3);
    host.returns("guest-file-write", part.clone(), json!({ "count": 3, "eof": false }));
    part["count"] = json!(0);
    host.returns("guest-file-write", part, json!({ "count": 0, "eof": false }));
    assert_eq!(contents(host), b"0123012");
}

#[test]
fn a_handle_is_gone_after_it_was_closed_even_if_that_failed() {
    let host = &mut with_file(b"");
    host.returns("guest-file-flush", json!({ "handle": 1000 }), json!({}));
    // EIO
    host.agent.guest.files.error = Some(Errno(5));
    host.fails("guest-file-close", json!({ "handle": 1000 }), "failed to close handle: Input/output error");
    host.fails("guest-file-close", json!({ "handle": 1000 }), "handle '1000' has not been found");
    host.returns("guest-file-open", json!({ "path": "f" }), json!(1001));
    host.returns("guest-file-close", json!({ "handle": 1001 }), json!({}));
}

#[test]
fn a_read_that_the_spool_cannot_hold_is_short_and_the_next_ones_bring_the_rest() {
    let all: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let host = &mut with_file(&all);
    let mut got = Vec::new();
    loop {
        let (bytes, end) = read(host, 48 << 20);
        assert!(host.spool.high_water <= SPOOL_BYTES);
        assert!(bytes.len() > SPOOL_BYTES / 2 || end, "much too short: {}", bytes.len());
        got.extend(bytes);
        if end {
            break;
        }
    }
    assert!(got == all);
}

#[test]
fn a_long_id_takes_its_room_from_the_bytes_that_are_read() {
    let host = &mut with_file(&[1; 200_000]);
    let id = "\u{7f}".repeat(REQUEST_BYTES - 200);
    let request = json!({ "execute": "guest-file-read", "arguments": { "handle": 1000, "count": 100_000 }, "id": id });
    let reply = &replies(&host.send(request.to_string().as_bytes()))[0].1;
    assert_eq!(reply["id"], json!(id));
    assert!(reply["return"]["count"].as_u64().unwrap() > 10_000, "{}", reply["return"]["count"]);
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_whatever_the_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..3 * REPLY_BYTES),
        pieces in proptest::collection::vec(1usize..REPLY_BYTES, 1..8),
        bite in proptest::option::of(1usize..400),
    ) {
        let host = &mut with_file(b"");
        let mut rest = &bytes[..];
        for piece in pieces.iter().cycle() {
            let now = rest.len().min(*piece);
            let text = BASE64_STANDARD.encode(&rest[..now]);
            let want = json!({ "count": now, "eof": false });
            host.returns("guest-file-write", json!({ "handle": 1000, "buf-b64": text }), want);
            rest = &rest[now..];
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(contents(host), &bytes[..]);
        host.returns("guest-file-seek", json!({ "handle": 1000, "offset": 0, "whence": 0 }), json!({ "position": 0, "eof": false }));
        host.agent.guest.files.bite = bite;
        let mut got = Vec::new();
        for piece in pieces.iter().cycle() {
            let (read, end) = read(host, *piece);
            got.extend(read);
            if end {
                break;
            }
        }
        prop_assert_eq!(got, bytes);
    }
}
