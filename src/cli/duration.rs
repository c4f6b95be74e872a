//! Durations as people write them: `90d`, `24h`, `30m`, `45s`.

/// The longest: ten years.
const SECONDS_MAX: i64 = 315_360_000;

/// Seconds, from a whole number and a unit.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let problem =
        || format!("{text:?} is not a duration up to ten years, such as 90d, 24h, 30m or 45s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(problem)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(problem()),
    };
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let parsed = is_number.then(|| number.parse::<i64>().ok()?.checked_mul(unit)).flatten();
    parsed.filter(|seconds| *seconds <= SECONDS_MAX).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, expected) in
            [("0s", 0), ("45s", 45), ("30m", 1_800), ("24h", 86_400), ("3650d", 315_360_000)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in
            ["", "s", "45", "+4s", "-1d", "1.5h", "3651d", "1w", "9223372036854775807d", "5ü"]
        {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
