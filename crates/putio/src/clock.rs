//! Times as the service writes and reads them: UTC, whole seconds, mostly without an offset.

use std::time::SystemTime;

use jiff::fmt::rfc2822;
use jiff::{Timestamp, civil, tz::TimeZone};

/// Reads `2026-11-22T07:00:00`, with a blank in place of the `T`, a fraction, a `Z` or an offset.
/// What cannot be read is `None`: no call may fail because of a date.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.into());
    }
    let civil = text.parse::<civil::DateTime>().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok().map(SystemTime::from)
}

/// RFC 3339 in whole seconds with a `Z`. `None` for years beyond 9999 or before -9999.
pub(crate) fn format_time(time: SystemTime) -> Option<String> {
    let timestamp = Timestamp::try_from(time).ok()?;
    Some(timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Reads the date of an HTTP header (RFC 9110 section 5.6.7, the preferred form) as seconds since
/// 1970.
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok().map(Timestamp::as_second)
}

/// Seconds since 1970 by the local clock.
pub(crate) fn local_seconds() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        let time = parse_time(text)?;
        Some(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_read_with_and_without_suffix() {
        let expected = Some(1_795_330_800);
        for text in [
            "2026-11-22T07:00:00",
            "2026-11-22 07:00:00",
            " 2026-11-22T07:00:00Z ",
            "2026-11-22T07:00:00.000Z",
            "2026-11-22T08:00:00+01:00",
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00", "0000-00-00T00:00:00"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_in_whole_seconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_330_800_999);
        assert_eq!(format_time(time).as_deref(), Some("2026-11-22T07:00:00Z"));
    }

    #[test]
    fn dates_of_headers_are_read() {
        assert_eq!(parse_http_date("Sun, 22 Nov 2026 07:00:00 GMT"), Some(1_795_330_800));
        assert_eq!(parse_http_date("soon"), None);
    }
}
