//! The claims of `support/claims.rs` on generated input, and on everything in the fuzzers' corpora.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use support::claims;

/// Any JSON value of moderate size.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinities", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8).prop_map(|map| map.into_iter().collect())
        ]
    })
}

const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"'",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"\\ude00",
    b"00e9",
    b"\xFF",
    b"\xFE",
    b"\n",
    b" ",
    b"\xC3\xA9",
    b"\xC0\x80",
    b"\xF0\x9F\x98\x80",
    b"\xE2\x82",
    b"0",
    b"-1",
    b"1.5e3",
    b"1e999",
    b"true",
    b"nul",
    b"\"execute\"",
    b"\"id\"",
    b"\"arguments\"",
    b"{\"execute\":\"guest-ping\"}",
    b"{\"execute\":\"guest-sync\",\"arguments\":{\"id\":1}}",
    b"{\"execute\":\"guest-info\",\"id\":[1,{\"a\":\"b\"}]}",
    b"{\"execute\":\"guest-suspend-ram\",\"id\":7}",
    b"{\"execute\":\"guest-network-get-interfaces\"}",
];

/// Bytes that are nearly requests: pieces of the grammar, put together at random.
fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        vec(any::<u8>(), 0..4),
        vec(Just(b'x'), 0..2000),
    ];
    vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// A member of a request, key and value as JSON: right, or wrong in some way.
fn member() -> impl Strategy<Value = (String, String)> {
    let key = prop::sample::select(&["\"execute\"", "\"arguments\"", "\"id\"", "\"\\u0069d\"", "\"other\""][..]);
    let command = prop::sample::select(
        &["\"guest-ping\"", "\"guest-sync\"", "\"guest-sync-delimited\"", "\"guest-suspend-disk\"", "\"\\u0000\""][..],
    );
    let arguments = prop::sample::select(
        &["{}", "{\"id\":7}", "{\"id\":1.0}", "{\"id\":-1,\"x\":[]}", "{\"x\":0}", "[]", "null"][..],
    );
    let value = prop_oneof![
        3 => command.prop_map(String::from),
        3 => arguments.prop_map(String::from),
        1 => json().prop_map(|value| value.to_string()),
    ];
    (key.prop_map(String::from), value)
}

fn members() -> impl Strategy<Value = Vec<(String, String)>> {
    vec(member(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered_in_whole_lines_however_they_are_cut(input in nearly_requests()) {
        claims::agent_answers_any_bytes(&input);
    }

    #[test]
    fn what_is_json_is_what_serde_json_says_is_json(input in nearly_requests()) {
        claims::framer_agrees_with_serde_json(&input);
    }

    #[test]
    fn json_in_any_layout_is_accepted(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        claims::framer_agrees_with_serde_json(text.as_bytes());
    }

    #[test]
    fn requests_with_anything_in_them_are_answered_as_the_model_says(members in members(), last in member()) {
        let text = members.iter().chain([&last]).map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(",");
        claims::requests_are_answered_as_the_model_says(format!("{{{text}}}").as_bytes());
    }

    #[test]
    fn any_id_comes_back(id in json()) {
        claims::id_is_echoed(&id);
    }
}

#[test]
fn all_that_fuzzers_found_still_holds() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    type Claim = (&'static str, fn(&[u8]));
    let claims: [Claim; 3] = [
        ("agent", claims::agent_answers_any_bytes),
        ("framer", claims::framer_agrees_with_serde_json),
        ("request", claims::requests_are_answered_as_the_model_says),
    ];
    for (target, claim) in claims {
        let files =
            std::fs::read_dir(corpus.join(target)).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        assert!(!files.is_empty(), "no corpus for {target}");
        for file in files {
            claim(&std::fs::read(&file).unwrap());
        }
    }
}
