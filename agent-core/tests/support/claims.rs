//! What must hold for any bytes a host may send. The property tests try it on generated input, the fuzz targets on
//! hostile input, and the corpus test on all that was ever found.

use agent_core::frame::{Framer, Scan};
use serde_json::Value;

use super::model::{self, Answer};
use super::{FakeGuest, Host, REPLY_BYTES, REQUEST_BYTES, SPOOL_BYTES, replies};

/// The answers do not depend on how the input is cut into pieces, each is a line of JSON, and after 0xFF the channel
/// works again.
pub fn agent_answers_any_bytes(input: &[u8]) {
    let (mut f1, mut r1) = (vec![0xAA; REQUEST_BYTES], vec![0xAA; REPLY_BYTES]);
    let (mut f2, mut r2) = (vec![0x55; REQUEST_BYTES], vec![0x55; REPLY_BYTES]);
    let mut whole = Host::lend(FakeGuest::default(), &mut f1, &mut r1);
    let mut bytewise = Host::lend(FakeGuest::default(), &mut f2, &mut r2);
    let output = whole.send(input);
    let every: Vec<usize> = (0..input.len()).collect();
    let cut = bytewise.send_split(input, &every);
    assert!(
        output == cut,
        "cut into bytes, {} is answered differently:\n{}\nnot\n{}",
        input.escape_ascii(),
        cut.escape_ascii(),
        output.escape_ascii()
    );

    let lines = replies(&output);
    assert!(lines.len() <= input.len(), "more replies than bytes");
    assert!(whole.spool.high_water <= SPOOL_BYTES);

    let after = whole.send(b"\xFF{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":-7}}");
    assert_eq!(after, b"\xFF{\"return\":-7}\n", "out of step after {}", input.escape_ascii());
}

/// The framer accepts what serde_json accepts, and nothing else that is plain JSON.
pub fn framer_agrees_with_serde_json(input: &[u8]) {
    // What the two see differently by intent: 0xFF and 0xFE reset; single quotes; NUL as C0 80.
    if input.iter().any(|b| matches!(b, 0xFE | 0xFF | b'\'' | 0xC0)) {
        return;
    }
    let mut frame = vec![0xAA; input.len() + 1];
    let mut framer = Framer::new();
    // A newline ends a number or keyword at the top level.
    let text = [input, b"\n"].concat();
    let mut rest = &text[..];
    let ours = match framer.scan(&mut frame, &mut rest) {
        Scan::Complete(value) if rest.iter().all(|b| b" \t\r\n".contains(b)) => Some(value.to_vec()),
        _ => None,
    };
    let mut reader = serde_json::Deserializer::from_slice(input);
    reader.disable_recursion_limit();
    let theirs = <Value as serde::Deserialize>::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match (ours, theirs) {
        (Some(ours), Ok(theirs)) => assert_eq!(value_of_frame(&ours), theirs),
        (None, Err(_)) => {}
        (None, Ok(_)) if input.iter().filter(|b| matches!(b, b'{' | b'[')).count() > agent_core::limits::DEPTH => {}
        (ours, theirs) => panic!("{}: framer {ours:?}, serde_json {theirs:?}", input.escape_ascii()),
    }
}

/// What a frame says, read in the most pedestrian way.
fn value_of_frame(frame: &[u8]) -> Value {
    let mut json = Vec::new();
    let mut rest = frame;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'"' {
            let end = behind.iter().position(|b| *b == 0).expect("a string ends with a zero byte");
            let text = String::from_utf8(behind[..end].to_vec()).unwrap_or_else(|_| {
                // NUL stands as C0 80.
                let bytes: Vec<u8> = behind[..end].to_vec();
                let parts: Vec<&[u8]> = split_pairs(&bytes);
                String::from_utf8(parts.join(&0)).expect("UTF-8")
            });
            json.extend(serde_json::to_vec(&text).unwrap());
            rest = &behind[end + 1..];
        } else {
            json.push(byte);
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(&json);
    reader.disable_recursion_limit();
    <Value as serde::Deserialize>::deserialize(&mut reader).unwrap_or_else(|e| panic!("{e}: {}", json.escape_ascii()))
}

/// The pieces between C0 80.
fn split_pairs(bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"\xC0\x80") {
            pieces.push(&bytes[start..at]);
            start = at + 2;
        }
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// An `id` comes back as it was sent, whatever it is.
pub fn id_is_echoed(id: &Value) {
    let (mut frame, mut reply) = (vec![0xAA; 1 << 16], vec![0xAA; REPLY_BYTES]);
    let mut host = Host::lend(FakeGuest::default(), &mut frame, &mut reply);
    let output = host.send(serde_json::json!({"id": id, "execute": "guest-ping"}).to_string().as_bytes());
    assert_eq!(replies(&output), [(false, serde_json::json!({"return": {}, "id": id}))]);
}

/// One JSON value gets the one answer that a plain model of the protocol predicts.
pub fn requests_are_answered_as_the_model_says(input: &[u8]) {
    // What the two see differently by intent, as above; and what would not fit.
    if input.len() > REQUEST_BYTES / 2 || input.iter().any(|b| matches!(b, 0xFE | 0xFF | b'\'' | 0xC0)) {
        return;
    }
    let Some(answer) = model::answer(input) else {
        return;
    };
    let (mut frame, mut reply) = (vec![0xAA; REQUEST_BYTES], vec![0xAA; REPLY_BYTES]);
    let mut host = Host::lend(FakeGuest::default(), &mut frame, &mut reply);
    // A newline ends a number or keyword at the top level.
    let got = replies(&host.send(&[input, b"\n"].concat()));
    match answer {
        Answer::Exactly(delimited, reply) => assert_eq!(got, [(delimited, reply)], "{}", input.escape_ascii()),
        Answer::Something(id) => {
            assert_eq!(got.len(), 1, "{}", input.escape_ascii());
            let (delimited, reply) = &got[0];
            assert!(!delimited && reply.get("return").is_some(), "{}: {reply}", input.escape_ascii());
            assert_eq!(reply.get("id"), id.as_ref(), "{}", input.escape_ascii());
        }
    }
}
