//! Instants as texts (RFC 3339), as challenges and event history have them. No clock is read here.

use crate::model::publication::UnixMillis;

const DAY_MILLIS: u64 = 86_400_000;

/// Days from 1 March of the year 0 to 1 January 1970, in a calendar that has always been as it is.
const EPOCH_DAYS: u64 = 719_468;

/// Days of four hundred years, after which the calendar repeats itself.
const ERA_DAYS: u64 = 146_097;

/// An instant in UTC, with milliseconds.
pub(super) fn format(instant: UnixMillis) -> String {
    let (days, millis) = (instant / DAY_MILLIS, instant % DAY_MILLIS);
    let (year, month, day) = date_of(days);
    let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
    let (second, millis) = (millis / 1000 % 60, millis % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The instant that a text says, in whatever zone; nothing before 1970.
pub(super) fn parse(text: &str) -> Option<UnixMillis> {
    let mut cursor = Cursor { rest: text };
    let (year, month, day) = (cursor.digits(4)?, cursor.after("-")?, cursor.after("-")?);
    cursor.one_of(&["T", "t", " "])?;
    let (hour, minute, second) = (cursor.digits(2)?, cursor.after(":")?, cursor.after(":")?);
    let millis = cursor.fraction()?;
    let offset_minutes = cursor.offset()?;
    let is_date = (1..=12).contains(&month) && day >= 1 && day <= days_of(year, month);
    // A leap second counts as the first of the next minute, as it does in Unix time.
    if !is_date || hour > 23 || minute > 59 || second > 60 || !cursor.rest.is_empty() {
        return None;
    }
    let time_of_day = (hour * 3600 + minute * 60 + second) * 1000 + millis;
    let days_millis = days_until(year, month, day)? * DAY_MILLIS.cast_signed();
    u64::try_from(days_millis + time_of_day.cast_signed() - offset_minutes * 60_000).ok()
}

/// Year, month and day of a day since 1970. Years begin with March here, so that the day that some have more is their last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970 to a date; nothing for the first months of the year 0.
fn days_until(year: u64, month: u64, day: u64) -> Option<i64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    Some(days.cast_signed() - EPOCH_DAYS.cast_signed())
}

fn days_of(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    /// Two digits after a sign.
    fn after(&mut self, sign: &str) -> Option<u64> {
        self.one_of(&[sign])?;
        self.digits(2)
    }

    fn one_of(&mut self, signs: &[&str]) -> Option<()> {
        self.rest = signs.iter().find_map(|sign| self.rest.strip_prefix(sign))?;
        Some(())
    }

    fn digits(&mut self, count: usize) -> Option<u64> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        // `parse` alone would take a sign.
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    }

    /// Milliseconds; what is finer is left out.
    fn fraction(&mut self) -> Option<u64> {
        if self.one_of(&["."]).is_none() {
            return Some(0);
        }
        let count = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        let millis = digits.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        (count > 0).then_some(millis)
    }

    /// Minutes east of Greenwich.
    fn offset(&mut self) -> Option<i64> {
        if self.one_of(&["Z", "z"]).is_some() {
            return Some(0);
        }
        let sign = if self.rest.starts_with('-') { -1 } else { 1 };
        self.one_of(&["+", "-"])?;
        let (hours, minutes) = (self.digits(2)?, self.after(":")?);
        (hours <= 23 && minutes <= 59).then(|| sign * (hours * 60 + minutes).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_are_written_and_read() {
        for (instant, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_403_454_985_448, "2014-06-22T16:36:25.448Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format(instant), text);
            assert_eq!(parse(text), Some(instant));
        }
    }

    #[test]
    fn every_form_of_rfc_3339_is_read() {
        for (text, instant) in [
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31t19:00:00.5-05:00", Some(500)),
            ("1970-01-01 00:00:00.123456789z", Some(123)),
            ("1990-12-31T23:59:60Z", Some(662_688_000_000)),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:30:00+01:00", None),
            ("2023-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-00-01T00:00:00Z", None),
            ("2023-01-00T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:60:00Z", None),
            ("2023-01-01T00:00:00", None),
            ("2023-01-01T00:00:00.Z", None),
            ("2023-01-01T00:00:00Zx", None),
            ("2023-01-01T00:00:00+24:00", None),
            ("+023-01-01T00:00:00Z", None),
            ("2023-01-01", None),
            ("éééé", None),
            ("", None),
        ] {
            assert_eq!(parse(text), instant, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_days_follow_each_other(instant in 0..253_402_300_800_000_u64) {
            prop_assert_eq!(parse(&format(instant)), Some(instant));
            let (year, month, day) = date_of(instant / DAY_MILLIS);
            let next = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (month, day) if day == days_of(year, month) => (year, month + 1, 1),
                (month, day) => (year, month, day + 1),
            };
            prop_assert_eq!(date_of(instant / DAY_MILLIS + 1), next);
        }

        #[test]
        fn no_text_panics(text in "[-0-9T:.Z+é]{0,40}") {
            let _ = parse(&text);
        }
    }
}
