//! Durations as people write them: `"5s"`, `"500ms"`, `"1h"`, and ranges of two of them, `"5s..60s"`.

use std::fmt;
use std::time::Duration;

/// Reads `"5s"`, `"500ms"`, `"1m 30s"`.
///
/// # Errors
///
/// One sentence that says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    use humantime::DurationError;
    humantime::parse_duration(text).map_err(|error| match error {
        DurationError::Empty => "it is empty".to_owned(),
        DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => format!("{value} has no unit"),
        DurationError::UnknownUnit { unit, .. } => format!("`{unit}` is not a unit of time"),
        DurationError::NumberOverflow => "the number is too large or finer than a nanosecond".to_owned(),
        DurationError::InvalidCharacter(_) | DurationError::NumberExpected(_) => {
            "it is not a number followed by a unit".to_owned()
        }
    })
}

/// Writes a duration so that [`parse`] reads it back; zero is `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The first and the longest of a growing series of waits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DurationRange {
    /// The first wait.
    pub first: Duration,
    /// The longest wait, never below `first`.
    pub max: Duration,
}

impl DurationRange {
    /// Reads `"5s..60s"`; a single duration means that both ends are equal.
    ///
    /// # Errors
    ///
    /// One sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, max) = text.split_once("..").unwrap_or((text, text));
        let range = Self { first: parse(first.trim())?, max: parse(max.trim())? };
        if range.first > range.max {
            return Err(format!("{} is longer than {}", format(range.first), format(range.max)));
        }
        Ok(range)
    }
}

impl fmt::Display for DurationRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", format(self.first), format(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_bad_duration_says_why() {
        assert_eq!(parse("5"), Err("5 has no unit".to_owned()));
        assert_eq!(parse("5 parsecs"), Err("`parsecs` is not a unit of time".to_owned()));
        assert_eq!(parse(""), Err("it is empty".to_owned()));
        assert_eq!(parse("-5s"), Err("it is not a number followed by a unit".to_owned()));
        assert!(parse("99999999999999999999s").is_err());
    }

    #[test]
    fn every_duration_is_read_back_as_written() {
        for millis in [0, 1, 250, 1000, 1500, 90_000, 3_600_000, 86_400_000, 90_061_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }

    #[test]
    fn a_range_has_two_ordered_ends() {
        let range = DurationRange::parse("60s..15m").unwrap();
        assert_eq!(range, DurationRange { first: Duration::from_secs(60), max: Duration::from_secs(900) });
        assert_eq!(DurationRange::parse(&range.to_string()), Ok(range));
        assert_eq!(DurationRange::parse("5s").unwrap().max, Duration::from_secs(5));
        assert_eq!(DurationRange::parse("2m..5s"), Err("2m is longer than 5s".to_owned()));
        assert!(DurationRange::parse("5s..").is_err());
        assert!(DurationRange::parse("..5s").is_err());
    }
}
