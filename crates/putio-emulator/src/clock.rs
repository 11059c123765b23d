//! The service's clock: this machine's, ahead or behind by what options, faults and tests say.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// The service's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Milliseconds that clients see it ahead of this machine's.
    skew: AtomicI64,
    /// Milliseconds that a test has let pass.
    advanced: AtomicI64,
}

impl Clock {
    pub(crate) fn new(skew_seconds: i64) -> Self {
        Self {
            skew: AtomicI64::new(skew_seconds.saturating_mul(1000)),
            advanced: AtomicI64::new(0),
        }
    }

    /// Unix milliseconds.
    pub(crate) fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis())
            .unwrap_or(i64::MAX)
            .saturating_add(self.skew.load(Ordering::Relaxed))
            .saturating_add(self.advanced.load(Ordering::Relaxed))
    }

    pub(crate) fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds.saturating_mul(1000), Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.advanced.fetch_add(by, Ordering::Relaxed);
    }
}

/// `Sat, 31 Jan 2026 23:59:59 GMT`, as RFC 9110 writes the time of an answer.
pub(crate) fn http_date(unix_seconds: i64) -> String {
    let timestamp = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(timestamp).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `2026-01-31T23:59:59`, as put.io writes times: UTC, whole seconds, no offset.
pub(crate) fn format(unix_seconds: i64) -> String {
    let timestamp = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(timestamp).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Unix seconds of an RFC 3339 time with any offset and fraction, or of one without an offset, which
/// is UTC. A fraction is cut off.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond().div_euclid(1000));
    }
    let civil: DateTime = text.parse().ok()?;
    Some(Offset::UTC.to_timestamp(civil).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset_and_fraction_and_written_without() {
        for (text, expected) in [
            ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09"),
            ("2024-05-06T07:08:09.999Z", "2024-05-06T07:08:09"),
            ("2024-05-06T07:08:09.123456789+02:00", "2024-05-06T05:08:09"),
            ("2024-05-06T07:08:09-00:30", "2024-05-06T07:38:09"),
            ("2024-05-06T07:08:09", "2024-05-06T07:08:09"),
            ("2024-05-06 07:08:09", "2024-05-06T07:08:09"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59"),
        ] {
            assert_eq!(parse(text).map(format).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "now", "2024-13-01T00:00:00Z", "1700000000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_clock_moves_by_skew_and_by_what_a_test_lets_pass() {
        let clock = Clock::new(100);
        let before = clock.now();
        clock.advance(Duration::from_secs(50));
        clock.set_skew(0);
        let moved = clock.now() - before;
        assert!((-50_000..-40_000).contains(&moved), "{moved}");
    }
}
