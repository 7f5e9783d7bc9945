//! Time zones, held against what date(1) and the C library under it make of the same files and rules.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_linux::guest::tz_rule;
use agent_linux::guest::tzif::{self, Zone};

const HOUR: i64 = 3600;
const YEAR: i64 = 31_556_952;

/// What date(1) says at each of these times, a line each.
fn date(tz: &str, times: &[i64]) -> String {
    let mut input = String::new();
    for time in times {
        writeln!(input, "@{time}").unwrap();
    }
    let mut date = Command::new("date");
    date.args(["-f", "-", "+%Z %::z"]).env("TZ", tz).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut date = date.spawn().unwrap();
    let mut stdin = date.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = date.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The same of a zone.
fn line(zone: Option<Zone<'_>>) -> String {
    let zone = zone.unwrap_or_else(|| panic!("not understood"));
    // date(1) writes -00:00 where nothing is known.
    let minus = zone.offset_s < 0 || zone.name == b"-00";
    let (sign, offset) = (if minus { '-' } else { '+' }, i64::from(zone.offset_s.abs()));
    let (hours, minutes, seconds) = (offset / HOUR, offset / 60 % 60, offset % 60);
    format!("{} {sign}{hours:02}:{minutes:02}:{seconds:02}\n", str::from_utf8(zone.name).unwrap())
}

#[track_caller]
fn agrees(tz: &str, times: &[i64], zone_at: impl Fn(i64) -> String) {
    let said = date(tz, times);
    assert_eq!(said.lines().count(), times.len());
    for (said, time) in said.split_inclusive('\n').zip(times) {
        assert_eq!(zone_at(*time), said, "{tz} at {time}");
    }
}

/// The files of the time zone database, each once, but for those that count leap seconds.
fn files() -> BTreeMap<Vec<u8>, PathBuf> {
    fn walk(folder: &Path, files: &mut BTreeMap<Vec<u8>, PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("right") {
                walk(&path, files);
            } else if path.is_file() {
                let file = std::fs::read(&path).unwrap();
                if file.starts_with(b"TZif") {
                    files.insert(file, path);
                }
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(Path::new("/usr/share/zoneinfo"), &mut files);
    assert!(files.len() > 100, "no time zone database (Debian: tzdata)");
    files
}

#[test]
fn every_file_says_the_same_as_to_the_c_library() {
    // Twice a year and now and then thrice, from 1870 to 2120.
    let times: Vec<i64> = (-100 * YEAR..150 * YEAR).step_by(14_942_468).collect();
    for (file, path) in files() {
        agrees(path.to_str().unwrap(), &times, |time| line(tzif::zone_at(&file, time)));
    }
}

#[test]
fn a_file_changes_at_the_very_second() {
    for (name, changes) in [
        // The last in the table of a fat file is in 2037; beyond is the rule.
        ("Europe/Berlin", [1_774_746_000, 1_792_890_000, 2_140_045_200, 2_153_350_800, 4_078_602_000]),
        ("Australia/Lord_Howe", [1_775_314_800, 1_791_041_400, 2_138_540_400, 2_154_267_000, 4_078_306_200]),
    ] {
        let path = format!("/usr/share/zoneinfo/{name}");
        let file = std::fs::read(&path).unwrap();
        let times: Vec<i64> = changes.iter().flat_map(|change| [change - 1, *change, change + 1]).collect();
        agrees(&path, &times, |time| line(tzif::zone_at(&file, time)));
    }
}

const RULES: &[&str] = &[
    "UTC0",
    "EST5",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "NZST-12NZDT,M9.5.0,M4.1.0/3",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1",
    "IST-1GMT0,M10.5.0,M3.5.0/1",
    "<+0330>-3:30<+0430>,J79/24,J263/24",
    "AAA-1:02:03BBB-2:03:04,59/1:02:03,300/22:33:44",
    "AAA3BBB,J60/0,J365/0",
    "AAA3BBB,J59/0,364/0",
    "IST-2IDT,M3.4.4/26,M10.5.0",
    "<-02>2<-01>,M3.4.4/50,M10.4.4/50",
    "EET-2EEST,M3.5.6/167,M2.1.0/-167",
    "AAA0BBB,M1.5.1,M12.5.6",
];

#[test]
fn every_rule_means_the_same_as_to_the_c_library() {
    // Every ten hours for forty years with every kind of leap year.
    let times: Vec<i64> = (119 * YEAR..159 * YEAR).step_by(36_000).collect();
    for rule in RULES {
        agrees(rule, &times, |time| line(tz_rule::zone_at(rule.as_bytes(), time)));
    }
}

/// glibc believes in winter for the first hours of some years.
#[test]
fn summer_time_that_ends_when_it_begins_never_ends() {
    for (rule, want) in [("EST5EDT,0/0,J365/25", "EDT -04:00:00\n"), ("XXX3EDT4,0/0,J365/23", "EDT -04:00:00\n")] {
        for time in (30 * YEAR..160 * YEAR).step_by(16_200) {
            assert_eq!(line(tz_rule::zone_at(rule.as_bytes(), time)), want, "{rule} at {time}");
        }
    }
}

#[test]
fn what_is_no_rule_and_what_is_no_file_is_none() {
    for rule in [
        "",
        "U",
        "UT",
        "UT0",
        "UTC",
        "<UT>0",
        "<UTC0",
        "UTC+",
        "UTC0:",
        "UTC0000",
        "CET-1CEST,",
        "CET-1CEST,M3.5.0",
        "CET-1CEST,M3.5.0,M10.5.0/",
        "CET-1CEST,M3.5.0,M10.5.0/3x",
        "CET-1CEST,M3,M10",
        "CET-1CEST,M3.0.0,M10.5.0",
        "CET-1CEST,3.5.0,M10.5.0",
        "Europe/Berlin",
        "\0\0\0\0",
    ] {
        assert_eq!(tz_rule::zone_at(rule.as_bytes(), 0), None, "{rule}");
    }
    for file in [&b""[..], b"TZif", b"TZif2", &[0; 4096]] {
        assert_eq!(tzif::zone_at(file, 0), None);
    }
}
