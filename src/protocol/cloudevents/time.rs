//! Times as CloudEvents write them: RFC 3339, in UTC where we write them.

/// Milliseconds of one day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The last time that has four digits of a year: 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

/// Milliseconds since 1970 as a text.
pub(super) fn text(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(LAST_MS);
    let (days, rest) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = date(days);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date so many days after the first of January 1970. Years are counted from March, so that the day that comes every four
/// years is the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since the first of March of the year 0.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Whether a text is a time as RFC 3339 writes it, as far as its form goes.
pub(super) fn is_time(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some((date, time)) = text.split_once('T') else { return false };
    let zone = time.find(['Z', '+', '-']).map(|at| time.split_at(at));
    let Some((clock, zone)) = zone else { return false };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let is_zone = zone == "Z" || has_form(zone.trim_start_matches(['+', '-']), "00:00") && zone.len() == 6;
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    has_form(date, "0000-00-00") && has_form(clock, "00:00:00") && is_fraction && is_zone
}

/// Whether a text has digits where a form has them, and else is the form.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_written() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_765_000_000_101, "2025-12-06T05:46:40.101Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (millis, expected) in cases {
            assert_eq!(text(millis), expected);
        }
    }

    #[test]
    fn times_are_known_by_their_form() {
        for time in ["2025-12-06T05:46:40Z", "2025-12-06t05:46:40.5+01:00", "1937-01-01T12:00:27.87-00:20"] {
            assert!(is_time(time), "{time}");
        }
        for time in ["", "T", "2025-12-06", "2025-12-06T05:46:40", "2025-12-06T05:46Z", "2025-12-06T05:46:40.Z", "soon"]
        {
            assert!(!is_time(time), "{time}");
        }
    }

    proptest! {
        /// Day by day, as a calendar on the wall counts them.
        #[test]
        fn a_day_is_the_one_after_the_day_before(days in 0..2_900_000_u64) {
            let (year, month, day) = date(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            prop_assert!((1..=12).contains(&month));
            let length = lengths[month as usize - 1];
            let next = if day < length { (year, month, day + 1) } else if month < 12 { (year, month + 1, 1) } else { (year + 1, 1, 1) };
            prop_assert_eq!(date(days + 1), next);
        }

        #[test]
        fn what_is_written_is_a_time(millis in any::<u64>()) {
            prop_assert!(is_time(&text(millis)));
        }
    }
}
