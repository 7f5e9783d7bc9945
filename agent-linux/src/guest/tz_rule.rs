//! Reads the rules of time zones as the variable `TZ` of POSIX has them (IEEE Std 1003.1, section 8.3; RFC 9636 section
//! 3.3.2): `CET-1CEST,M3.5.0,M10.5.0/3`.
//!
//! It knows no clock: the time is an argument.

use core::mem::swap;

use super::calendar::{month_start, year_start};
use super::tzif::Zone;

/// What holds where a rule has summer time, and does not say when.
const USUAL: &[u8] = b",M3.2.0,M11.1.0";

/// The zone at a time, in seconds since 1970, by a rule; nothing if it is none.
#[inline(never)]
pub fn zone_at(rule: &[u8], now_s: i64) -> Option<Zone<'_>> {
    let mut text = Text { rest: rule, wrong: false };
    let standard = Zone { name: text.name(), offset_s: text.time().wrapping_neg() };
    if text.rest.is_empty() {
        return (!text.wrong).then_some(standard);
    }
    let mut summer = Zone { name: text.name(), offset_s: standard.offset_s.wrapping_add(HOUR) };
    if !matches!(text.rest, [] | [b',', ..]) {
        summer.offset_s = text.time().wrapping_neg();
    }
    if text.rest.is_empty() {
        text.rest = USUAL;
    }
    let (mut start, mut end) = (Date::NONE, Date::NONE);
    text.date(&mut start);
    text.date(&mut end);
    if text.wrong || !text.rest.is_empty() {
        return None;
    }

    // What changed last is what counts. Of the changes in the years about this one some are past; where summer ends
    // with one year and begins with the next, it goes on.
    let year = i32::try_from(now_s / AVERAGE_YEAR_S).unwrap_or(0).wrapping_add(1968);
    let (mut zone, mut since) = (&standard, i64::MIN);
    let (mut date, mut other) = (&start, &end);
    let (mut before, mut after) = (&standard, &summer);
    for change in 0..8 {
        let at = date.local_s(year.wrapping_add(change >> 1)).wrapping_sub(before.offset_s.into());
        if (since..=now_s).contains(&at) {
            (zone, since) = (after, at);
        }
        swap(&mut date, &mut other);
        swap(&mut before, &mut after);
    }
    Some(*zone)
}

const HOUR: i32 = 3600;
const DAY: i64 = 86_400;
/// Of the Gregorian calendar.
const AVERAGE_YEAR_S: i64 = 31_556_952;

/// A day of every year, and a time of it.
struct Date {
    kind: Kind,
    /// The number, or month, week and weekday.
    day: [i32; 3],
    time_s: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `n`: a day by its number, from 0 on.
    Day,
    /// `Jn`: a day by its number, from 1 on, where 29 February has none.
    Julian,
    /// `Mm.w.d`: a day of the week (from 0, Sunday) in the week w of the month m; the fifth week is the last one.
    Weekday,
}

impl Date {
    const NONE: Self = Self { kind: Kind::Day, day: [0; 3], time_s: 2 * HOUR };

    /// Seconds from 1970 to then, as the clocks there show.
    #[inline(never)]
    fn local_s(&self, year: i32) -> i64 {
        let [number, week, weekday] = self.day;
        let mut day = year_start(year).wrapping_add(number);
        if self.kind == Kind::Julian {
            day = day.wrapping_sub(1);
            if number >= 60 {
                // Counted as if February had 28 days.
                day = month_start(year, 3).wrapping_add(number).wrapping_sub(60);
            }
        }
        if self.kind == Kind::Weekday {
            day = month_start(year, number);
            // 1 January 1970 was a Thursday.
            let days = weekday.wrapping_sub(day).wrapping_sub(4).rem_euclid(7);
            day = day.wrapping_add(days).wrapping_add(week.wrapping_mul(7)).wrapping_sub(7);
            if day >= month_start(year, number.wrapping_add(1)) {
                day = day.wrapping_sub(7);
            }
        }
        i64::from(day).wrapping_mul(DAY).wrapping_add(i64::from(self.time_s))
    }
}

/// What is left of a rule. What is read after something wrong means nothing.
struct Text<'t> {
    rest: &'t [u8],
    wrong: bool,
}

impl<'t> Text<'t> {
    /// Takes this byte, if it is the next one.
    #[inline(never)]
    fn skip(&mut self, byte: u8) -> bool {
        match self.rest {
            [next, rest @ ..] if *next == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// At least three letters, or more than letters in angle brackets.
    #[inline(never)]
    fn name(&mut self) -> &'t [u8] {
        let quoted = self.skip(b'<');
        let is_part = |byte: &&u8| if quoted { **byte != b'>' } else { byte.is_ascii_alphabetic() };
        let len = self.rest.iter().take_while(is_part).count();
        let (name, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        self.rest = rest;
        self.wrong |= len < 3 || quoted && !self.skip(b'>');
        name
    }

    /// A number without a sign, of at most three digits.
    #[inline(never)]
    fn number(&mut self) -> i32 {
        let (mut number, mut digits) = (0_i32, 0_usize);
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
            number = number.wrapping_mul(10).wrapping_add(i32::from(digit & 0xF));
            digits = digits.wrapping_add(1);
        }
        self.wrong |= !matches!(digits, 1..=3);
        number
    }

    /// Hours, minutes and seconds, as seconds.
    #[inline(never)]
    fn time(&mut self) -> i32 {
        let minus = self.skip(b'-');
        if !minus {
            self.skip(b'+');
        }
        let (mut time, mut unit) = (0_i32, HOUR);
        loop {
            time = time.wrapping_add(self.number().wrapping_mul(unit));
            unit /= 60;
            if unit == 0 || !self.skip(b':') {
                return if minus { time.wrapping_neg() } else { time };
            }
        }
    }

    /// A date behind a comma.
    #[inline(never)]
    fn date(&mut self, date: &mut Date) {
        self.wrong |= !self.skip(b',');
        if self.skip(b'M') {
            date.kind = Kind::Weekday;
        } else if self.skip(b'J') {
            date.kind = Kind::Julian;
        }
        for number in &mut date.day {
            *number = self.number();
            if !self.skip(b'.') {
                break;
            }
        }
        // Only a weekday has a week, and none is the week 0.
        self.wrong |= (date.kind == Kind::Weekday) != (date.day[1] > 0);
        if self.skip(b'/') {
            date.time_s = self.time();
        }
    }
}
