//! What must hold for any bytes a host may send. The property tests try it on generated input, the fuzz targets on
//! hostile input, and the corpus test on all that was ever found.

use agent_core::frame::{Framer, Scan};
use serde_json::Value;

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
    assert_eq!(
        output,
        bytewise.send_split(input, &every),
        "cut into bytes, {} is answered differently",
        input.escape_ascii()
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
        Scan::Complete(value) if rest.iter().all(u8::is_ascii_whitespace) => Some(value.to_vec()),
        _ => None,
    };
    let mut reader = serde_json::Deserializer::from_slice(input);
    reader.disable_recursion_limit();
    let theirs = <Value as serde::Deserialize>::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match (ours, theirs) {
        // Only white space may be lost.
        (Some(ours), Ok(theirs)) => {
            let mut reader = serde_json::Deserializer::from_slice(&ours);
            reader.disable_recursion_limit();
            assert_eq!(<Value as serde::Deserialize>::deserialize(&mut reader).ok(), Some(theirs));
        }
        (None, Err(_)) => {}
        // A number beyond a double is found later, when the request is read.
        (Some(_), Err(error)) if error.to_string().starts_with("number out of range") => {}
        (None, Ok(_)) if input.iter().filter(|b| matches!(b, b'{' | b'[')).count() > agent_core::limits::DEPTH => {}
        (ours, theirs) => panic!("{}: framer {ours:?}, serde_json {theirs:?}", input.escape_ascii()),
    }
}

/// An `id` comes back as it was sent, whatever it is.
pub fn id_is_echoed(id: &Value) {
    let (mut frame, mut reply) = (vec![0xAA; 1 << 16], vec![0xAA; REPLY_BYTES]);
    let mut host = Host::lend(FakeGuest::default(), &mut frame, &mut reply);
    let output = host.send(serde_json::json!({"id": id, "execute": "guest-ping"}).to_string().as_bytes());
    assert_eq!(replies(&output), [(false, serde_json::json!({"return": {}, "id": id}))]);
}
