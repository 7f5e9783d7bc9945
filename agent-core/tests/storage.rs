//! What the agent answers of file systems.
#![cfg(feature = "storage")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::Fed;
use agent_core::guest::{Errno, FreezeError, Trimmed};
use support::{FakeGuest, Host};

#[track_caller]
fn answers(host: &mut Host<'_>, request: &str, want: &str) {
    let output = host.send(request.as_bytes());
    assert_eq!(String::from_utf8_lossy(&output), format!("{want}\n"), "to {request}");
}

fn generic(text: &str) -> String {
    format!(r#"{{"error":{{"class":"GenericError","desc":"{text}"}}}}"#)
}

const FSINFO: &str = r#"{"execute":"guest-get-fsinfo"}"#;

#[test]
fn file_systems_have_their_disks_and_leave_out_what_is_not_known() {
    let want = concat!(
        r#"{"return":[{"name":"vda1","mountpoint":"/a \"place\"","type":"ext4","used-bytes":1,"total-bytes":2,"#,
        r#""total-bytes-privileged":18446744073709551615,"disk":["#,
        r#"{"pci-controller":{"domain":0,"bus":1,"slot":31,"function":7},"bus-type":"virtio","bus":0,"target":4,"#,
        r#""unit":5,"serial":"S/N","dev":"/dev/vda1"},"#,
        r#"{"pci-controller":{"domain":-1,"bus":-1,"slot":-1,"function":-1},"bus-type":"unknown","bus":2147483647,"#,
        r#""target":0,"unit":0}]},"#,
        r#"{"name":"7:0","mountpoint":"/","type":"xfs","disk":[]}]}"#,
    );
    answers(&mut Host::new(), FSINFO, want);
}

#[test]
fn a_mount_table_that_cannot_be_read_is_an_error() {
    let mut host = Host::new();
    host.agent.guest.storage.mounts_error = Some(Errno(13));
    let want = generic("failed to open mtab file: '/proc/self/mountinfo': Permission denied");
    answers(&mut host, FSINFO, &want);
}

const STATUS: &str = r#"{"execute":"guest-fsfreeze-status"}"#;
const FREEZE: &str = r#"{"execute":"guest-fsfreeze-freeze"}"#;
const FREEZE_LIST: &str = r#"{"execute":"guest-fsfreeze-freeze-list"}"#;
const THAW: &str = r#"{"execute":"guest-fsfreeze-thaw"}"#;
const REFUSED: &str =
    r#"{"error":{"class":"CommandNotFound","desc":"Command NAME has been disabled: the command is not allowed"}}"#;

/// A host of a guest with these mounts.
fn host(points: &[&std::ffi::CStr]) -> Host<'static> {
    let mut guest = FakeGuest::default();
    guest.storage.points = points.iter().map(|&point| point.to_owned()).collect();
    Host::with_guest(guest)
}

#[test]
fn what_is_frozen_is_counted_and_can_only_be_thawed() {
    let host = &mut host(&[c"/", c"/home"]);
    answers(host, STATUS, r#"{"return":"thawed"}"#);
    answers(host, FREEZE, r#"{"return":2}"#);
    answers(host, STATUS, r#"{"return":"frozen"}"#);
    for name in ["guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fstrim", "guest-get-fsinfo"] {
        answers(host, &format!(r#"{{"execute":"{name}"}}"#), &REFUSED.replace("NAME", name));
    }
    answers(host, THAW, r#"{"return":2}"#);
    answers(host, STATUS, r#"{"return":"thawed"}"#);
    answers(host, THAW, r#"{"return":0}"#);
}

/// Before, a log would have to wait for it too.
#[test]
fn a_thaw_is_audited_once_when_it_has_ended() {
    let host = &mut host(&[c"/"]);
    answers(host, FREEZE, r#"{"return":1}"#);
    assert_eq!(host.agent.guest.audits, ["guest-fsfreeze-freeze"]);
    let mut input = THAW.as_bytes();
    for _ in 0..3 {
        assert_eq!(host.session.feed(&mut host.agent, &mut input, &mut host.spool), Fed::Parked);
    }
    assert_eq!(host.agent.guest.audits.len(), 1);
    host.agent.guest.end_jobs();
    assert_eq!(host.session.feed(&mut host.agent, &mut input, &mut host.spool), Fed::Reply);
    assert_eq!(host.agent.guest.audits[1..], ["guest-fsfreeze-thaw"]);
}

#[test]
fn a_list_names_mount_points_and_what_is_none_is_left_out() {
    for (list, want) in [
        (r#"[]"#, &[][..]),
        (r#"["/home"]"#, &[c"/home"]),
        (r#"["/home/","/nowhere","/a b","","/"]"#, &[c"/", c"/a b"]),
        (r#"["/home","/home"]"#, &[c"/home"]),
    ] {
        let host = &mut host(&[c"/", c"/home", c"/a b"]);
        let request = format!(r#"{{"execute":"guest-fsfreeze-freeze-list","arguments":{{"mountpoints":{list}}}}}"#);
        answers(host, &request, &format!(r#"{{"return":{}}}"#, want.len()));
        assert_eq!(host.agent.guest.storage.freezing, want);
        let status = if want.is_empty() { "thawed" } else { "frozen" };
        answers(host, STATUS, &format!(r#"{{"return":"{status}"}}"#));
    }
    answers(&mut host(&[c"/", c"/home"]), FREEZE_LIST, r#"{"return":2}"#);
    let request = r#"{"execute":"guest-fsfreeze-freeze-list","arguments":{"mountpoints":["/",1]}}"#;
    let want = generic("Invalid parameter type for 'mountpoints[1]', expected: string");
    answers(&mut host(&[c"/"]), request, &want);
}

#[test]
fn a_freeze_that_fails_says_what_it_was_about() {
    for (error, want) in [
        (FreezeError::Freeze(Errno(5)), "failed to freeze /the \\\"culprit\\\": Input/output error"),
        (FreezeError::Open(Errno(2)), "failed to open /the \\\"culprit\\\": No such file or directory"),
        (FreezeError::HookMissing(Errno(13)), "can't access fsfreeze hook '/the \\\"culprit\\\"': Permission denied"),
        (FreezeError::HookFailed(143), "child process has failed to execute fsfreeze hook: exit status 143"),
        (FreezeError::Mounts(Errno(13)), "failed to open mtab file: '/proc/self/mountinfo': Permission denied"),
        (FreezeError::Job(Errno(11)), "failed to create child process: Resource temporarily unavailable"),
    ] {
        let host = &mut host(&[c"/"]);
        host.agent.guest.storage.freeze_error = Some(error);
        answers(host, FREEZE, &generic(want));
        answers(host, STATUS, r#"{"return":"thawed"}"#);
        host.agent.guest.storage.thaw_error = Some(error);
        answers(host, THAW, &generic(want));
    }
}

#[test]
fn a_trim_tells_what_became_of_each_file_system() {
    let mut host = Host::new();
    host.agent.guest.storage.trimmed = vec![
        ("/a\"b", Trimmed::Bytes(u64::MAX, 4096)),
        ("/c", Trimmed::Unsupported),
        ("/d", Trimmed::Failed(Errno(30))),
        ("/e", Trimmed::NotOpened(Errno(13))),
    ];
    let want = concat!(
        r#"{"return":{"paths":[{"path":"/a\"b","trimmed":18446744073709551615,"minimum":4096},"#,
        r#"{"path":"/c","error":"trim not supported"},"#,
        r#"{"path":"/d","error":"failed to trim: Read-only file system"},"#,
        r#"{"path":"/e","error":"failed to open: Permission denied"}]}}"#,
    );
    answers(&mut host, r#"{"execute":"guest-fstrim"}"#, want);
    assert_eq!(host.agent.guest.storage.minimum, Some(0));
    let request = r#"{"execute":"guest-fstrim","arguments":{"minimum":1048576}}"#;
    answers(&mut host, request, want);
    assert_eq!(host.agent.guest.storage.minimum, Some(1_048_576));
    host.agent.guest.storage.mounts_error = Some(Errno(2));
    let missing = generic("failed to open mtab file: '/proc/self/mountinfo': No such file or directory");
    answers(&mut host, request, &missing);
    let wrong = r#"{"execute":"guest-fstrim","arguments":{"minimum":"1"}}"#;
    answers(&mut host, wrong, &generic("Invalid parameter type for 'minimum', expected: integer"));
}
