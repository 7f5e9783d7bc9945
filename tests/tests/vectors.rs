//! The replies that were recorded of QEMU's own agent, held against the built binary: byte for byte what a host sends,
//! on a socket. The core's tests hold them against the core.

use std::fs;

use anyhow::{Context, Result, ensure};
use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::reference::equal;
use nanoga_tests::{paths, random};
use serde::Deserialize;
use serde_json::{Value, json};

/// Beginnings of what may be asked on this machine: nothing that changes it.
const HARMLESS: [&str; 7] =
    ["guest-ping", "guest-pi\u{ff}", "guest-sync", "guest-nope", "guest-info", "guest-get-", "guest-file-"];

/// Of a program only what never starts one.
const REFUSED: &str = "exec-bad-";

/// A line with 0xFF before it, or without.
type Reply = (bool, Value);

/// Some nest deeper than a test's stack lets serde_json and this go.
const STACK: usize = 64 << 20;

#[test]
fn every_recorded_request_gets_the_recorded_reply() {
    std::thread::Builder::new().stack_size(STACK).spawn(compare).unwrap().join().unwrap();
}

fn compare() {
    let cases = fs::read_to_string(paths::workspace_dir().join("agent-core/tests/vectors/reference.jsonl")).unwrap();
    let mut failures = Vec::new();
    let mut compared = 0;
    for case in cases.lines() {
        let case = parse(case.as_bytes()).unwrap();
        let name = case["name"].as_str().unwrap();
        let input = unhex(&case["input_hex"]);
        if !is_harmless(name, &input) {
            continue;
        }
        compared += 1;
        let got = replies(&input, case["chunk"].as_u64()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let want = unhex(&case["output_hex"]);
        let want = want.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| reply(line).unwrap());
        if !agree(got.clone(), want.clone().collect()) {
            failures.push(format!("{name}: got {got:?}, want {:?}", want.collect::<Vec<_>>()));
        }
    }
    assert!(compared >= 100, "the vectors are missing");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn is_harmless(name: &str, input: &[u8]) -> bool {
    let text: String = input.iter().map(|byte| char::from(*byte)).collect();
    text.match_indices("guest-").all(|(at, _)| {
        let asked = &text[at..];
        HARMLESS.iter().any(|harmless| asked.starts_with(harmless))
            || asked.starts_with("guest-exec\"") && name.starts_with(REFUSED)
    })
}

/// What a new agent answers to this, sent in pieces of so many bytes.
fn replies(input: &[u8], chunk: Option<u64>) -> Result<Vec<Reply>> {
    let agent = Agent::on_unix()?;
    let folder = agent.file("");
    let input = replace(input, b"@DIR@", folder.to_str().context("an odd folder")?.trim_end_matches('/').as_bytes());
    let mut host = agent.connect()?;
    match chunk {
        Some(chunk) => input.chunks(usize::try_from(chunk)?).try_for_each(|piece| host.send(piece))?,
        None => host.send(&input)?,
    }
    answered(&mut host)
}

/// All that comes before the answer to a request behind it.
fn answered(host: &mut Client) -> Result<Vec<Reply>> {
    let id = random()?;
    let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
    host.send([b"\xff", sync.to_string().as_bytes(), b"\n"].concat())?;
    let mut replies = Vec::new();
    loop {
        let reply = reply(&host.line()?)?;
        if reply == (true, json!({ "return": id })) {
            return Ok(replies);
        }
        replies.push(reply);
    }
}

/// The reference complains once a stray token and once a 0xFF, the agent once a damaged request: of that only whether
/// there is a complaint counts.
fn agree(got: Vec<Reply>, want: Vec<Reply>) -> bool {
    let split = |replies: Vec<Reply>| replies.into_iter().partition(|reply: &Reply| is_noise(&reply.1));
    let (noise, got): (Vec<Reply>, Vec<Reply>) = split(got);
    let (expected_noise, want): (Vec<Reply>, Vec<Reply>) = split(want);
    let of_sentinel = |reply: &Reply| reply.1["error"]["desc"].as_str().is_some_and(|text| text.ends_with("\u{FFFD}'"));
    let complains = !expected_noise.iter().all(of_sentinel);
    got.len() == want.len()
        && got.iter().zip(&want).all(|(got, want)| got.0 == want.0 && equal(&got.1, &want.1))
        && (!complains || !noise.is_empty())
}

fn is_noise(reply: &Value) -> bool {
    let text = reply["error"]["desc"].as_str().unwrap_or_default();
    ["JSON parse error", "JSON nesting", "JSON token"].iter().any(|start| text.starts_with(start))
}

fn reply(line: &[u8]) -> Result<Reply> {
    let (delimited, line) = line.strip_prefix(b"\xff").map_or((false, line), |line| (true, line));
    let value = parse(line).with_context(|| format!("not JSON: {:?}", String::from_utf8_lossy(line)))?;
    ensure!(value.get("return").is_some() != value.get("error").is_some(), "neither result nor error: {value}");
    Ok((delimited, value))
}

/// However deep it is.
fn parse(json: &[u8]) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits: Vec<u32> = text.as_str().unwrap().chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|part| part == what) {
        replaced.extend([&rest[..at], with].concat());
        rest = &rest[at + what.len()..];
    }
    [&replaced, rest].concat()
}
