//! The Gregorian calendar, in days from 1970 on.

/// Days from the first one of the year 1 to that of 1970.
const EPOCH_DAYS: i32 = 719_162;

/// Days from 1970 to the first day of a year.
#[inline(never)]
pub fn year_start(year: i32) -> i32 {
    let past = year.wrapping_sub(1);
    let leap_days = (past / 4).wrapping_sub(past / 100).wrapping_add(past / 400);
    past.wrapping_mul(365).wrapping_add(leap_days).wrapping_sub(EPOCH_DAYS)
}

/// Days from 1970 to the first day of a month, from 1 to 13, of a year.
#[inline(never)]
pub fn month_start(year: i32, month: i32) -> i32 {
    let start = year_start(year);
    // As if February had 30.
    let mut days = month.wrapping_mul(367).wrapping_sub(362) / 12;
    if month > 2 {
        // It has 28 and, if the year has a day more, 29.
        days = days.wrapping_sub(367).wrapping_add(year_start(year.wrapping_add(1)).wrapping_sub(start));
    }
    start.wrapping_add(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_month_starts_where_the_last_one_ends() {
        let mut day = 0;
        for year in 1970..2500 {
            assert_eq!(year_start(year), day, "{year}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, length) in (1..).zip([31, 28 + i32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                assert_eq!(month_start(year, month), day, "{year}-{month}");
                day += length;
            }
            assert_eq!(month_start(year, 13), day, "{year}");
        }
        assert_eq!(year_start(1969), -365);
        assert_eq!(year_start(1601), -134_774);
    }
}
