//! `guest-shutdown`, on a guest that is not there.
#![cfg(not(feature = "minimal"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::{Errno, ShutdownError, ShutdownMode};
use support::{FakeGuest, Host};

const PING: &str = r#"{"execute":"guest-ping"}"#;
const PONG: &str = "{\"return\":{}}\n";

fn request(arguments: &str) -> String {
    format!("{{\"execute\":\"guest-shutdown\",\"arguments\":{arguments},\"id\":1}}{PING}")
}

fn error(desc: &str) -> String {
    format!("{{\"error\":{{\"class\":\"GenericError\",\"desc\":\"{desc}\"}},\"id\":1}}\n{PONG}")
}

#[test]
fn each_mode_is_passed_on_and_success_is_silent() {
    for (arguments, mode) in [
        ("{}", ShutdownMode::PowerDown),
        (r#"{"mode":"powerdown"}"#, ShutdownMode::PowerDown),
        (r#"{"mode":"halt"}"#, ShutdownMode::Halt),
        (r#"{"mode":"reboot"}"#, ShutdownMode::Reboot),
    ] {
        let mut host = Host::new();
        let output = host.send(request(arguments).as_bytes());
        assert_eq!(String::from_utf8_lossy(&output), PONG, "{arguments}");
        assert_eq!(host.agent.guest.shutdowns, [mode]);
    }
}

#[test]
fn what_is_not_understood_ends_nothing() {
    let mode = "mode is invalid (valid values are: halt|powerdown|reboot";
    for (arguments, why) in [
        (r#"{"mode":""}"#, mode),
        (r#"{"mode":"Halt"}"#, mode),
        (r#"{"mode":"halt "}"#, mode),
        (r#"{"mode":1}"#, "Invalid parameter type for 'mode', expected: string"),
        (r#"{"mode":"halt","now":true}"#, "Parameter 'now' is unexpected"),
        (r#"{"mode":"never","now":true}"#, "Parameter 'now' is unexpected"),
    ] {
        let mut host = Host::new();
        assert_eq!(String::from_utf8_lossy(&host.send(request(arguments).as_bytes())), error(why), "{arguments}");
        assert_eq!(host.agent.guest.shutdowns, []);
    }
}

#[test]
fn a_guest_that_does_not_end_says_why() {
    for (why, text) in [
        (ShutdownError::Helper(3), "child process has failed to shutdown: exit status 3"),
        (ShutdownError::Kernel(Errno(1)), "child process has failed to shutdown: Operation not permitted"),
    ] {
        let mut host = Host::with_guest(FakeGuest { shutdown: Err(why), ..FakeGuest::default() });
        assert_eq!(String::from_utf8_lossy(&host.send(request("{}").as_bytes())), error(text));
    }
    let mut host = Host::with_guest(FakeGuest { shutdown_start: Some(Errno(11)), ..FakeGuest::default() });
    let text = "failed to create child process: Resource temporarily unavailable";
    assert_eq!(String::from_utf8_lossy(&host.send(request("{}").as_bytes())), error(text));
}
