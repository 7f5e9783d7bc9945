//! The claims of `support/claims.rs` on the fuzzer's corpus, whole and damaged in every place.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use support::claims;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(corpus).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let files: Vec<_> = files.collect();
    assert!(!files.is_empty(), "no corpus");
    files
}

#[test]
fn all_that_fuzzers_found_still_holds() {
    for input in corpus("netlink") {
        claims::netlink_readers_are_total(&input);
    }
    for input in corpus("texts") {
        claims::text_readers_are_total(&input);
    }
}

#[test]
fn a_text_damaged_anywhere_is_read_to_an_end() {
    for input in corpus("texts") {
        for at in 0..input.len() {
            claims::text_readers_are_total(&input[..at]);
            for value in *b"\0\x01\n,<-09=\"\\\x7f\xff" {
                let mut damaged = input.clone();
                damaged[at] = value;
                claims::text_readers_are_total(&damaged);
            }
        }
    }
}

#[test]
fn a_datagram_damaged_anywhere_is_read_to_an_end() {
    for input in corpus("netlink") {
        for at in 0..input.len() {
            claims::netlink_readers_are_total(&input[..at]);
            for value in [0, 1, 3, 4, 15, 16, 0x7f, 0x80, 0xff] {
                let mut damaged = input.clone();
                damaged[at] = value;
                claims::netlink_readers_are_total(&damaged);
            }
        }
    }
}
