//! What the agent says of its guest: facts that a fake guest gives it, in the members and the order of the schema.
#![cfg(not(feature = "minimal"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::OsFact;
use support::{FakeGuest, Host};

#[track_caller]
fn answers(guest: FakeGuest, command: &str, value: &str) {
    let mut host = Host::with_guest(guest);
    let output = host.send(format!("{{\"execute\":\"{command}\"}}").as_bytes());
    assert_eq!(String::from_utf8_lossy(&output), format!("{{\"return\":{value}}}\n"));

    let more = format!("{{\"execute\":\"{command}\",\"arguments\":{{\"more\":1}}}}");
    let refused = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Parameter 'more' is unexpected\"}}\n";
    assert_eq!(String::from_utf8_lossy(&host.send(more.as_bytes())), refused);
}

#[test]
fn the_time_is_in_nanoseconds() {
    answers(FakeGuest::default(), "guest-get-time", "1700000000123456789");
    answers(FakeGuest { now_ns: -1, ..FakeGuest::default() }, "guest-get-time", "-1");
}

#[test]
fn a_time_zone_has_a_name_and_an_offset() {
    answers(FakeGuest::default(), "guest-get-timezone", r#"{"zone":"CEST","offset":7200}"#);
    let west = FakeGuest { timezone: ("-03", -10800), ..FakeGuest::default() };
    answers(west, "guest-get-timezone", r#"{"zone":"-03","offset":-10800}"#);
}

#[test]
fn the_name_of_the_host_is_any_text() {
    answers(FakeGuest::default(), "guest-get-host-name", r#"{"host-name":"fake"}"#);
    let odd = FakeGuest { host_name: b"a\"b\xFF".to_vec(), ..FakeGuest::default() };
    answers(odd, "guest-get-host-name", r#"{"host-name":"a\"b\uFFFD"}"#);
}

#[test]
fn every_fact_of_the_operating_system_has_its_member() {
    let facts = [
        OsFact::KernelRelease,
        OsFact::KernelVersion,
        OsFact::Machine,
        OsFact::Id,
        OsFact::Name,
        OsFact::PrettyName,
        OsFact::Version,
        OsFact::VersionId,
        OsFact::Variant,
        OsFact::VariantId,
    ];
    let os_info = facts.into_iter().zip(b'0'..).map(|(fact, digit)| (fact, vec![digit])).collect();
    let all = concat!(
        r#"{"kernel-release":"0","kernel-version":"1","machine":"2","id":"3","name":"4","pretty-name":"5","#,
        r#""version":"6","version-id":"7","variant":"8","variant-id":"9"}"#
    );
    answers(FakeGuest { os_info, ..FakeGuest::default() }, "guest-get-osinfo", all);
    answers(FakeGuest::default(), "guest-get-osinfo", r#"{"machine":"abacus","version-id":"1"}"#);
    answers(FakeGuest { os_info: vec![], ..FakeGuest::default() }, "guest-get-osinfo", "{}");
}

#[test]
fn the_time_of_a_login_is_exact_to_the_microsecond() {
    let users = r#"[{"user":"zoe","login-time":1700000100.999998},{"user":"adam","login-time":1700000200}]"#;
    answers(FakeGuest::default(), "guest-get-users", users);
    let one = FakeGuest { users: vec![("", 1_700_000_200_500_000)], ..FakeGuest::default() };
    answers(one, "guest-get-users", r#"[{"user":"","login-time":1700000200.5}]"#);
    answers(FakeGuest { users: vec![], ..FakeGuest::default() }, "guest-get-users", "[]");
}

#[test]
fn load_averages_are_exact() {
    let load = r#"{"load1m":0,"load5m":1,"load15m":0.6420745849609375}"#;
    answers(FakeGuest::default(), "guest-get-load", load);
    // The smallest, which takes the most places, and the largest that the kernel has room for.
    let extreme = FakeGuest { load: [1, 65535, u64::from(u32::MAX)], ..FakeGuest::default() };
    let load =
        concat!(r#"{"load1m":0.0000152587890625,"load5m":0.9999847412109375,"#, r#""load15m":65535.9999847412109375}"#);
    answers(extreme, "guest-get-load", load);
}
