//! The agent held against recorded replies of the reference. See `vectors/README.md`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod support;

use serde_json::Value;
use support::{Host, replies};

/// Lines that the reference writes once a stray token and once a 0xFF: the agent complains once a damaged request.
fn is_noise(reply: &Value) -> bool {
    let text = reply["error"]["desc"].as_str().unwrap_or_default();
    ["JSON parse error", "JSON nesting", "JSON token"].iter().any(|start| text.starts_with(start))
}

/// Was it the 0xFF or 0xFE that the reference complained of?
fn is_about_the_sentinel(reply: &Value) -> bool {
    reply["error"]["desc"].as_str().unwrap_or_default().ends_with("\u{FFFD}'")
}

/// Equal as JSON, numbers by value: 1e300 is 1.0000000000000001e+300.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b
                || !(a.is_i64() || a.is_u64()) && a.as_f64() == b.as_f64()
                || a.as_f64() == Some(0.0) && b.as_f64() == Some(0.0)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Of commands that a build may lack: how their names begin, and whether this one has them.
const SWITCHED: [(&[u8], bool); 2] =
    [(b"guest-file-", cfg!(feature = "files")), (b"guest-exec", cfg!(feature = "exec"))];

/// Is it about a command that this build lacks?
fn is_absent(input: &[u8]) -> bool {
    SWITCHED.iter().any(|(name, there)| !there && input.windows(name.len()).any(|bytes| bytes == *name))
}

#[test]
fn every_recorded_request_gets_the_recorded_reply() {
    let mut failures = Vec::new();
    let mut compared = 0;
    let cases = include_str!("vectors/reference.jsonl");
    for line in cases.lines() {
        let mut reader = serde_json::Deserializer::from_str(line);
        reader.disable_recursion_limit();
        let case = <Value as serde::Deserialize>::deserialize(&mut reader).unwrap();
        let (input, output) = (hex(case["input_hex"].as_str().unwrap()), hex(case["output_hex"].as_str().unwrap()));
        if is_absent(&input) {
            continue;
        }
        compared += 1;
        let chunk = case["chunk"].as_u64().map_or(input.len().max(1), |chunk| chunk as usize);
        let ends: Vec<usize> = (0..input.len()).step_by(chunk).collect();

        let got = replies(&Host::new().send_split(&input, &ends));
        let want = replies(&output);
        let (noise_got, got): (Vec<_>, Vec<_>) = got.into_iter().partition(|(_, reply)| is_noise(reply));
        let (noise_want, want): (Vec<_>, Vec<_>) = want.into_iter().partition(|(_, reply)| is_noise(reply));
        let complains = noise_want.iter().any(|(_, reply)| !is_about_the_sentinel(reply));
        let replies_match = got.len() == want.len()
            && got.iter().zip(&want).all(|(got, want)| got.0 == want.0 && same(&got.1, &want.1));
        if !replies_match || complains && noise_got.is_empty() {
            failures.push(format!("{}: got {got:?} {noise_got:?}, want {want:?}", case["name"]));
        }
    }
    assert!(compared >= 100, "the vectors are missing");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
