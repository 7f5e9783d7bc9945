//! What the agent says of this machine, held against what other programs say of it.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nanoga_tests::agent::Agent;
use nanoga_tests::client::Client;
use nanoga_tests::paths;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An agent with these variables in its environment.
fn agent_with(variables: &[(&str, &str)]) -> Result<(Agent, Client)> {
    let mut command = paths::agent_command()?;
    command.env_remove("TZ").envs(variables.iter().copied());
    let agent = Agent::on_unix_by(command, &[])?;
    let host = agent.connect()?;
    Ok((agent, host))
}

fn ask(variables: &[(&str, &str)], command: &str) -> Value {
    agent_with(variables).unwrap().1.ask(command).unwrap()
}

/// What a program prints, without the newline.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

#[test]
fn the_time_is_that_of_other_programs() {
    let (_agent, mut host) = agent_with(&[]).unwrap();
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let before = now();
    let time = host.ask("guest-get-time").unwrap().as_i64().unwrap();
    assert!((before..=now()).contains(&time), "{time}");
}

#[test]
fn the_name_of_the_host_is_that_of_uname() {
    assert_eq!(ask(&[], "guest-get-host-name"), json!({ "host-name": said_by("uname", &["-n"]) }));
}

#[test]
fn the_kernel_is_that_of_uname_and_the_distribution_that_of_its_file() {
    let info = ask(&[], "guest-get-osinfo");
    for (member, option) in [("kernel-release", "-r"), ("kernel-version", "-v"), ("machine", "-m")] {
        assert_eq!(info[member], said_by("uname", &[option]));
    }
    let script = "unset ID NAME PRETTY_NAME VERSION VERSION_ID VARIANT VARIANT_ID; \
                  [ -e /etc/os-release ] && . /etc/os-release || . /usr/lib/os-release; \
                  for value in \"${ID--}\" \"${NAME--}\" \"${PRETTY_NAME--}\" \"${VERSION--}\" \"${VERSION_ID--}\" \
                  \"${VARIANT--}\" \"${VARIANT_ID--}\"; do printf '%s\\n' \"$value\"; done";
    let said = said_by("sh", &["-c", script]);
    let mut expected = 0;
    let members = ["id", "name", "pretty-name", "version", "version-id", "variant", "variant-id"];
    for (member, value) in members.iter().zip(said.lines()) {
        assert_eq!(info[member], if value == "-" { Value::Null } else { value.into() }, "{member}");
        expected += usize::from(value != "-");
    }
    assert!(expected > 0, "this machine has no os-release");
    assert_eq!(info.as_object().unwrap().len(), 3 + expected);
}

#[test]
fn another_os_release_may_be_named_in_the_environment() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("os-release");
    std::fs::write(&file, "ID='other one'\n# NAME=x\nVERSION_ID=\"1 \\\"2\\\"\"\n").unwrap();
    let info = ask(&[("QGA_OS_RELEASE", file.to_str().unwrap())], "guest-get-osinfo");
    assert_eq!((&info["id"], &info["version-id"]), (&json!("other one"), &json!("1 \"2\"")));
    assert_eq!(info.as_object().unwrap().len(), 5);
    // A file that is not there says nothing; no other one takes its place.
    for nowhere in ["/nonexistent", ""] {
        let info = ask(&[("QGA_OS_RELEASE", nowhere)], "guest-get-osinfo");
        assert_eq!(info.as_object().unwrap().len(), 3, "{info}");
    }
}

#[test]
fn the_load_is_that_of_the_kernel() {
    let (_agent, mut host) = agent_with(&[]).unwrap();
    // The kernel computes it every five seconds; what it prints has 10 of its 2048ths added and is cut to hundredths.
    let read = || std::fs::read_to_string("/proc/loadavg").unwrap();
    loop {
        let before = read();
        let load = host.ask("guest-get-load").unwrap();
        if before.split(' ').take(3).eq(read().split(' ').take(3)) {
            for (member, printed) in ["load1m", "load5m", "load15m"].iter().zip(before.split(' ')) {
                let (exact, printed) = (load[member].as_f64().unwrap(), printed.parse::<f64>().unwrap());
                assert!((exact - printed).abs() < 0.00512, "{load}, but {before}");
            }
            return;
        }
    }
}

/// What date(1) says of the zone.
fn zone_of_date(variables: &[(&str, &str)]) -> Value {
    let output =
        Command::new("date").arg("+%Z %::z").env_remove("TZ").envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (name, offset) = said.trim_end().split_once(' ').unwrap();
    let (sign, offset) = offset.split_at(1);
    let seconds = offset.split(':').fold(0, |seconds, part| seconds * 60 + part.parse::<i64>().unwrap());
    json!({ "zone": name, "offset": if sign == "-" { -seconds } else { seconds } })
}

#[test]
fn the_time_zone_is_that_of_the_environment_or_of_the_system() {
    let dir = TempDir::new().unwrap();
    std::fs::copy("/usr/share/zoneinfo/Asia/Kathmandu", dir.path().join("Here")).unwrap();
    let folder = dir.path().to_str().unwrap();
    let file = format!("{folder}/Here");
    for variables in [
        &[][..],
        &[("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")],
        &[("TZ", "<-0330>3:30")],
        &[("TZ", "Europe/Berlin")],
        &[("TZ", ":America/St_Johns")],
        &[("TZ", "Australia/Lord_Howe")],
        &[("TZ", file.as_str())],
        &[("TZ", "Here"), ("TZDIR", folder)],
        &[("TZ", "")],
        &[("TZ", "UTC")],
    ] {
        assert_eq!(ask(variables, "guest-get-timezone"), zone_of_date(variables), "{variables:?}");
    }
    // date(1) makes up a name.
    for nonsense in ["Nope/Zone", "Here", "/nonexistent", ":"] {
        assert_eq!(ask(&[("TZ", nonsense)], "guest-get-timezone"), json!({ "zone": "UTC", "offset": 0 }));
    }
}

/// glibc's `struct utmp` on x86_64.
#[cfg(target_arch = "x86_64")]
fn utmp_record(kind: u16, user: &str, seconds: u32, microseconds: u32) -> Vec<u8> {
    let mut record = vec![0; 384];
    for (at, bytes) in [
        (0, &kind.to_le_bytes()[..]),
        (8, b"pts/0"),
        (44, user.as_bytes()),
        (76, b"host"),
        (340, &seconds.to_le_bytes()),
        (344, &microseconds.to_le_bytes()),
    ] {
        record[at..at + bytes.len()].copy_from_slice(bytes);
    }
    record
}

/// Asks an agent that sees something of ours in the place of this file or folder, in a mount namespace of its own.
fn ask_with(ours: &Path, place: &str, command: &str) -> Value {
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(ours).arg(place).env_remove("TZ");
    unshare.arg(paths::agent_binary().unwrap());
    let agent = Agent::on_unix_by(unshare, &[]).unwrap();
    agent.connect().unwrap().ask(command).unwrap()
}

#[test]
fn without_a_variable_the_zone_is_that_of_etc_localtime() {
    let dir = TempDir::new().unwrap();
    let utc = json!({ "zone": "UTC", "offset": 0 });
    // Nothing at all, and something that is no time zone.
    assert_eq!(ask_with(dir.path(), "/etc", "guest-get-timezone"), utc);
    std::fs::write(dir.path().join("localtime"), "CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    assert_eq!(ask_with(dir.path(), "/etc", "guest-get-timezone"), utc);
    std::fs::copy("/usr/share/zoneinfo/Asia/Kathmandu", dir.path().join("localtime")).unwrap();
    let kathmandu = json!({ "zone": "+0545", "offset": 20700 });
    assert_eq!(ask_with(dir.path(), "/etc", "guest-get-timezone"), kathmandu);
}

#[cfg(target_arch = "x86_64")]
fn users(utmp: Option<&[u8]>) -> Value {
    let run = TempDir::new().unwrap();
    if let Some(utmp) = utmp {
        std::fs::write(run.path().join("utmp"), utmp).unwrap();
    }
    ask_with(run.path(), "/run", "guest-get-users")
}

#[cfg(target_arch = "x86_64")]
#[test]
fn users_are_there_once_since_their_first_login() {
    assert!(Path::new("/var/run").canonicalize().unwrap() == Path::new("/run"), "an odd machine");
    let file = [
        utmp_record(2, "reboot", 1_600_000_000, 0),
        utmp_record(7, "zoe", 1_700_000_300, 123_456),
        utmp_record(7, "adam", 1_700_000_200, 0),
        utmp_record(8, "gone", 1_700_000_000, 0),
        utmp_record(7, "zoe", 1_700_000_100, 999_998),
    ];
    assert_eq!(
        users(Some(&file.concat())),
        json!([{ "user": "zoe", "login-time": 1700000100.999998 }, { "user": "adam", "login-time": 1700000200 }])
    );
    assert_eq!(users(Some(&[])), json!([]));
    assert_eq!(users(None), json!([]));
}
