//! What the agent answers of file systems.
#![cfg(feature = "storage")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use agent_core::guest::Errno;
use support::Host;

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
        r#"{"pci-controller":{"domain":-1,"bus":-1,"slot":-1,"function":-1},"bus-type":"unknown","bus":4294967295,"#,
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
