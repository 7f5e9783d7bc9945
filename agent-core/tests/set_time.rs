//! `guest-set-time`, on a guest that is not there.
#![cfg(not(feature = "minimal"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::{ClockError, Errno};
use support::{FakeGuest, Host};

fn request(arguments: &str) -> String {
    format!("{{\"execute\":\"guest-set-time\",\"arguments\":{arguments}}}")
}

fn error(desc: &str) -> String {
    format!("{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"{desc}\"}}}}\n")
}

#[test]
fn a_time_from_1970_to_2069_is_set_or_that_of_the_hardware_clock() {
    for (arguments, set) in [
        (r#"{"time":1700000000123456789}"#, Some(1_700_000_000_123_456_789)),
        (r#"{"time":0}"#, Some(0)),
        (r#"{"time":3155759999999999999}"#, Some(3_155_759_999_999_999_999)),
        ("{}", None),
    ] {
        let mut host = Host::new();
        assert_eq!(host.send(request(arguments).as_bytes()), b"{\"return\":{}}\n", "{arguments}");
        assert_eq!(host.agent.guest.clock_sets, [set]);
    }
}

#[test]
fn any_other_time_sets_nothing() {
    for (arguments, why) in [
        (r#"{"time":-1}"#, "Invalid time"),
        (r#"{"time":3155760000000000000}"#, "Invalid time"),
        (r#"{"time":-9223372036854775808}"#, "Invalid time"),
        (r#"{"time":9223372036854775807}"#, "Invalid time"),
        (r#"{"time":9223372036854775808}"#, "Invalid parameter type for 'time', expected: integer"),
        (r#"{"time":1.5}"#, "Invalid parameter type for 'time', expected: integer"),
        (r#"{"time":"1"}"#, "Invalid parameter type for 'time', expected: integer"),
        (r#"{"time":null}"#, "Invalid parameter type for 'time', expected: integer"),
        (r#"{"time":-1,"zone":0}"#, "Parameter 'zone' is unexpected"),
    ] {
        let mut host = Host::new();
        assert_eq!(String::from_utf8_lossy(&host.send(request(arguments).as_bytes())), error(why), "{arguments}");
        assert_eq!(host.agent.guest.clock_sets, []);
    }
}

#[test]
fn a_clock_that_cannot_be_set_says_why() {
    for (why, text) in [
        (ClockError::Set(Errno(1)), "Failed to set time to guest: Operation not permitted"),
        (ClockError::SetHardware(Errno(16)), "failed to set hardware clock to system time: Device or resource busy"),
        (ClockError::SetByHardware(Errno(2)), "failed to set system time to hardware clock: No such file or directory"),
    ] {
        let mut host = Host::with_guest(FakeGuest { clock_set: Err(why), ..FakeGuest::default() });
        assert_eq!(String::from_utf8_lossy(&host.send(request("{}").as_bytes())), error(text));
    }
}
