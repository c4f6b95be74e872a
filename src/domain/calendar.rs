//! Moments as people and files write them (RFC 3339).

#![allow(
    clippy::arithmetic_side_effects,
    reason = "numbers of four digits, or divided by a day's seconds: they cannot overflow"
)]

use super::UnixTime;

const SECONDS_PER_DAY: u64 = 86_400;

/// Not a moment in RFC 3339, or one before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-07-01T12:00:00Z")]
pub struct NotATime;

impl UnixTime {
    /// Reads a moment in RFC 3339, with whatever offset; fractions of a second are dropped.
    pub fn parse_rfc3339(text: &str) -> Result<Self, NotATime> {
        read(text).map(Self::from_seconds).ok_or(NotATime)
    }

    /// The moment in RFC 3339, in UTC.
    pub fn to_rfc3339(self) -> String {
        let (days, seconds) = (self.seconds() / SECONDS_PER_DAY, self.seconds() % SECONDS_PER_DAY);
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

fn read(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(zone_at)?;
    let time = match time.split_once('.') {
        Some((time, fraction)) if is_digits(fraction) => time,
        Some(_) => return None,
        None => time,
    };
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_date = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day);
    // A leap second is the second after it.
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_until(year, month, day)?
        .checked_mul(SECONDS_PER_DAY)?
        .checked_add(hour * 3_600 + minute * 60 + second)?;
    let (sign, offset) = zone.split_at_checked(1)?;
    if sign.eq_ignore_ascii_case("z") {
        return offset.is_empty().then_some(local);
    }
    let [hours, minutes] = numbers(offset, ':', [2, 2])?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 3_600 + minutes * 60;
    if sign == "+" { local.checked_sub(offset) } else { local.checked_add(offset) }
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, separator: char, n_digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, n_digits) in numbers.iter_mut().zip(n_digits) {
        let part = parts.next().filter(|part| part.len() == n_digits && is_digits(part))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970-01-01 to a date.
fn days_until(year: u64, month: u64, day: u64) -> Option<u64> {
    // Leap days before the year, since the year 0 of the same calendar.
    let leap_days = |year: u64| (year / 4 + year / 400).checked_sub(year / 100);
    let last = year.checked_sub(1)?;
    let years = year.checked_sub(1970)?.checked_mul(365)?;
    let leaps = leap_days(last)?.checked_sub(leap_days(1969)?)?;
    let months: u64 = (1..month).map(|month| days_of_month(year, month)).sum();
    years.checked_add(leaps)?.checked_add(months)?.checked_add(day)?.checked_sub(1)
}

/// The date so many days after 1970-01-01.
fn date_of(mut days: u64) -> (u64, u64, u64) {
    // A cycle of the calendar, so that the loops below are short whatever the number.
    const DAYS_PER_CYCLE: u64 = 146_097;
    let mut year = 1970 + 400 * (days / DAYS_PER_CYCLE);
    days %= DAYS_PER_CYCLE;
    loop {
        let n_days = (1..=12).map(|month| days_of_month(year, month)).sum();
        if days < n_days {
            break;
        }
        days -= n_days;
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::{NotATime, UnixTime};

    #[test]
    fn moments_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1999-12-31T23:59:59Z", 946_684_799),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2024-02-29T12:34:56Z", 1_709_210_096),
            ("2026-07-01T12:00:00Z", 1_782_907_200),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2400-02-29T00:00:00Z", 13_574_563_200),
        ] {
            assert_eq!(
                UnixTime::parse_rfc3339(text),
                Ok(UnixTime::from_seconds(seconds)),
                "{text}"
            );
            assert_eq!(UnixTime::from_seconds(seconds).to_rfc3339(), text);
        }
        for (text, same) in [
            ("2026-07-01T14:00:00+02:00", "2026-07-01T12:00:00Z"),
            ("2026-06-30t23:30:00-12:30", "2026-07-01T12:00:00Z"),
            ("2026-07-01 12:00:00.999z", "2026-07-01T12:00:00Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ] {
            let (read, expected) =
                (UnixTime::parse_rfc3339(text), UnixTime::parse_rfc3339(same).unwrap());
            assert_eq!(read, Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2026-07-01",
            "2026-07-01T12:00:00",
            "2026-07-01T12:00Z",
            "2026-7-01T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-07-00T12:00:00Z",
            "2026-07-01T24:00:00Z",
            "2026-07-01T12:60:00Z",
            "2026-07-01T12:00:61Z",
            "2026-07-01T12:00:00.Z",
            "2026-07-01T12:00:00Z ",
            "2026-07-01T12:00:00+2:00",
            "2026-07-01T12:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "+026-07-01T12:00:00Z",
        ] {
            assert_eq!(UnixTime::parse_rfc3339(text), Err(NotATime), "{text:?}");
        }
    }
}
