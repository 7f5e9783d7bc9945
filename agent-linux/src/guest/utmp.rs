//! Reads utmp(5): who is logged in, and since when.
//!
//! The records have a fixed size, which differs between architectures as glibc keeps old programs working. A user with
//! several logins has several of them.

use agent_core::guest::User;
use rustix::fd::OwnedFd;

use super::netlink::{u32_at, u64_at};
use crate::sys;
use crate::text::until;

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

/// A user who was found: the name, and the time of the first login.
const FOUND: usize = USER_BYTES + 8;

/// Walks over the users: each once, in the order of their first records, with the earliest time of all. Beyond as many
/// as the table has room for they are not seen.
#[inline(never)]
pub fn users(file: &OwnedFd, table: &mut [u8], each: &mut dyn FnMut(User<'_>)) {
    let (table, _) = table.as_chunks_mut::<FOUND>();
    let mut count = 0_usize;
    let mut record = [0; RECORD];
    while sys::read(file, &mut record) == RECORD {
        let Some((user, login_us)) = login(&record) else {
            continue;
        };
        let mut at = 0_usize;
        while let Some((name, time)) = table.get_mut(at).and_then(|found| found.split_first_chunk_mut())
            && let Some(time) = time.first_chunk_mut()
        {
            if at == count {
                count = count.wrapping_add(1);
                (*name, *time) = (*user, [0xFF; 8]);
            }
            if name == user {
                *time = login_us.min(u64::from_ne_bytes(*time)).to_ne_bytes();
                break;
            }
            at = at.wrapping_add(1);
        }
    }
    for found in table.iter().take(count) {
        let name = until(found.get(..USER_BYTES).unwrap_or_default(), 0);
        each(User { name, login_us: u64_at(found, USER_BYTES).unwrap_or(0) });
    }
}

/// Who a record says has logged in, and when, if it says so.
fn login(record: &[u8; RECORD]) -> Option<(&[u8; USER_BYTES], u64)> {
    if !record.starts_with(&LOGIN) {
        return None;
    }
    let login_us = time(record, TIME)?.wrapping_mul(1_000_000).wrapping_add(time(record, TIME + TIME_BYTES)?);
    Some((record.get(USER..)?.first_chunk()?, login_us))
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
        rustix::fs::seek(&memory, rustix::fs::SeekFrom::Start(0)).unwrap();
        users(&memory, &mut [0xEE; 4 * FOUND + 1], &mut |user| {
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
    fn users_beyond_the_table_are_not_seen() {
        let users: Vec<u8> =
            ["a", "b", "c", "d", "beyond", "a"].iter().flat_map(|user| record(7, user, 0, 1)).collect();
        assert_eq!(users_in(&users), ["a 1", "b 1", "c 1", "d 1"]);
    }
}
