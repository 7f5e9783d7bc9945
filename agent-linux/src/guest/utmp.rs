//! Reads utmp(5): who is logged in, and since when.
//!
//! The records have a fixed size, which differs between architectures as glibc keeps old programs working. A user with
//! several logins has several of them.

use agent_core::guest::User;
use rustix::fd::BorrowedFd;
use rustix::io::pread;

use super::netlink::{u32_at, u64_at};

/// Bytes of a record, and where the time is in it.
const RECORD: usize = if cfg!(target_arch = "x86_64") { 384 } else { 400 };
const TIME: usize = if cfg!(target_arch = "x86_64") { 340 } else { 344 };
/// Bytes of the seconds, and of the microseconds behind them.
const TIME_BYTES: usize = if cfg!(target_arch = "x86_64") { 4 } else { 8 };
/// Where the name of the user is, and its bytes at most.
const USER: usize = 44;
const USER_BYTES: usize = 32;
/// The first bytes of a record of somebody who is logged in: `USER_PROCESS`.
const LOGIN: [u8; 2] = 7u16.to_ne_bytes();

/// Records that are looked at. All are compared with all and none is remembered, so the time grows with the square: some
/// tenths of a second for this many. Beyond: they are not seen.
const RECORDS: u64 = 1024;

/// Walks over the users: each once, in the order of their first records, with the earliest time of all.
#[inline(never)]
pub fn users(file: BorrowedFd<'_>, each: &mut dyn FnMut(User<'_>)) {
    let mut place = 0;
    while let Some(login) = next_login(file, &mut place) {
        let mut login_us = login.login_us;
        let mut other_place = 0;
        while let Some(other) = next_login(file, &mut other_place) {
            if other.user == login.user {
                if other_place < place {
                    login_us = u64::MAX;
                    break;
                }
                login_us = login_us.min(other.login_us);
            }
        }
        if login_us != u64::MAX {
            each(User { name: login.user.split(|byte| *byte == 0).next().unwrap_or_default(), login_us });
        }
    }
}

/// What counts of a record.
struct Login {
    user: [u8; USER_BYTES],
    login_us: u64,
}

/// The next record of a login, from this place on, which moves behind it.
#[inline(never)]
fn next_login(file: BorrowedFd<'_>, place: &mut u64) -> Option<Login> {
    let mut record = [0; RECORD];
    while *place < RECORDS {
        let at = place.wrapping_mul(u64::try_from(RECORD).unwrap_or(0));
        *place = place.wrapping_add(1);
        if pread(file, &mut record, at) != Ok(RECORD) {
            break;
        }
        if record.starts_with(&LOGIN) {
            let seconds = time(&record, TIME)?;
            let microseconds = time(&record, TIME + TIME_BYTES)?;
            let login_us = seconds.wrapping_mul(1_000_000).wrapping_add(microseconds);
            return Some(Login { user: *record.get(USER..)?.first_chunk()?, login_us });
        }
    }
    None
}

/// A number of the time. Where it has 32 bits they have no sign, which lasts until 2106.
fn time(record: &[u8], at: usize) -> Option<u64> {
    if TIME_BYTES == 4 { u32_at(record, at).map(u64::from) } else { u64_at(record, at) }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use rustix::fd::AsFd;

    use super::*;

    fn record(kind: u16, user: &str, seconds: u32, microseconds: u32) -> Vec<u8> {
        let mut record = [0xEE; RECORD].to_vec();
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[USER..USER + USER_BYTES].fill(0);
        record[USER..USER + user.len()].copy_from_slice(user.as_bytes());
        for (at, number) in [(TIME, seconds), (TIME + TIME_BYTES, microseconds)] {
            record[at..at + TIME_BYTES].copy_from_slice(&u64::from(number).to_le_bytes()[..TIME_BYTES]);
        }
        record
    }

    fn users_in(file: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let memory = rustix::fs::memfd_create("utmp", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::write(&memory, file), Ok(file.len()));
        users(memory.as_fd(), &mut |user| {
            found.push(format!("{} {}", str::from_utf8(user.name).unwrap(), user.login_us));
        });
        found
    }

    #[test]
    fn a_user_is_there_once_with_the_earliest_login() {
        let long = "x".repeat(32);
        let file = [
            record(2, "reboot", 1_600_000_000, 0),
            record(7, "zoe", 1_700_000_300, 123_456),
            record(7, "adam", 4_294_967_295, 0),
            record(7, "zoe", 1_700_000_100, 999_999),
            record(8, "gone", 1_700_000_000, 1),
            record(7, &long, 1_700_000_150, 1),
            record(6, "LOGIN", 1_700_000_000, 0),
            record(7, "zoe", 1_700_000_100, 999_998),
            record(8, "adam", 1, 0),
        ]
        .concat();
        let want = ["zoe 1700000100999998", "adam 4294967295000000", &format!("{long} 1700000150000001")];
        assert_eq!(users_in(&file), want);
    }

    #[test]
    fn half_a_record_is_nobody() {
        let one = record(7, "zoe", 1, 2);
        assert_eq!(users_in(&one), ["zoe 1000002"]);
        assert_eq!(users_in(&one[..RECORD - 1]), [""; 0]);
        assert_eq!(users_in(&[one.clone(), one[1..].to_vec()].concat()), ["zoe 1000002"]);
        assert_eq!(users_in(&[]), [""; 0]);
    }

    #[test]
    fn a_long_file_is_read_to_the_limit() {
        let mut file = record(8, "", 0, 0).repeat(1023);
        file.extend(record(7, "last", 0, 1));
        file.extend(record(7, "beyond", 0, 1));
        assert_eq!(users_in(&file), ["last 1"]);
    }
}
