//! Text for people: names without surprises, sizes, times.
//!
//! Names come from file systems and from repositories that others may have written. Whatever is
//! printed here cannot move the cursor, change colours or reorder what stands beside it.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Span, Zoned, civil};
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::Times;

/// A raw name: control characters, direction marks, backslashes and what is not UTF-8 as escapes.
///
/// Two different names never look the same, for what they consist of.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                character => push_printable(&mut out, character),
            }
        }
        for byte in part.invalid() {
            write_to(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// Text that is not a name, such as an error's, with the same characters escaped but the backslash.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        push_printable(&mut out, character);
    }
    out
}

fn push_printable(out: &mut String, character: char) {
    match character {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\u{0}'..='\u{7f}' if character.is_ascii_control() => {
            write_to(out, format_args!("\\x{:02x}", u32::from(character)));
        }
        // Other controls, and marks that change the direction of what follows or break the line.
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => write_to(out, format_args!("\\u{{{:x}}}", u32::from(character))),
        character => out.push(character),
    }
}

fn write_to(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

/// `1536` as `1.5 KiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number of bytes in a table: plain, or for people.
pub(crate) fn table_bytes(value: u64, human: bool) -> String {
    if human { bytes(value) } else { value.to_string() }
}

/// `12345` as `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`.
pub(crate) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

/// Seconds as `0:12` or `1:02:03`.
pub(crate) fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A time as ISO 8601, local with offset, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    zoned(time)
        .map_or_else(|| raw_time(time), |time| time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

/// A time as ISO 8601, local with offset, to the nanosecond, for programs.
pub(crate) fn exact_time(time: Timestamp) -> String {
    zoned(time)
        .map_or_else(|| raw_time(time), |time| time.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string())
}

/// A time that no calendar holds: files can have it.
fn raw_time(time: Timestamp) -> String {
    format!("@{}.{:09}", time.seconds, time.nanoseconds)
}

fn zoned(time: Timestamp) -> Option<Zoned> {
    let nanoseconds = i32::try_from(time.nanoseconds).ok()?;
    let time = jiff::Timestamp::new(time.seconds, nanoseconds).ok()?;
    Some(time.to_zoned(TimeZone::system()))
}

/// A point in time as jiff has it in the terms of the format.
pub(crate) fn timestamp(time: &Zoned) -> Timestamp {
    let nanoseconds = time.timestamp().as_nanosecond();
    let billion = 1_000_000_000;
    Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(billion)).unwrap_or(i64::MAX),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(billion)).unwrap_or(0),
    }
}

/// Reads `2026-11-22`, `2026-11-22 13:05`, `2026-11-22T13:05:07+01:00`: local time unless an offset
/// says otherwise.
pub(crate) fn parse_time(text: &str) -> Result<Zoned, String> {
    let system = TimeZone::system();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.to_zoned(system));
    }
    let local = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .map_err(|_| {
            "not a time; write 2026-11-22, 2026-11-22T13:05:07 or 2026-11-22T13:05:07+01:00"
                .to_owned()
        })?;
    local.to_zoned(system).map_err(|error| error.to_string())
}

/// Reads a time as [`parse_time`] does, or an age such as `7d`, `36h` or `2w`.
pub(crate) fn parse_time_or_age(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = parse_time(text) {
        return Ok(timestamp(&time));
    }
    let error = || "neither a time such as 2026-11-22 nor an age such as 7d, 36h or 2w".to_owned();
    let age: Span = text.parse().map_err(|_| error())?;
    let time = Zoned::now().checked_sub(age).map_err(|_| error())?;
    Ok(timestamp(&time))
}

/// Reads `1048576`, `1M`, `1MiB` or `1.5G`; units are binary.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let error =
        || format!("'{}' is not a size; write 500K, 1.5G or a number of bytes", printable(text));
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(error()),
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(1 << shift).ok_or_else(error);
    }
    let number: f64 = number.parse().map_err(|_| error())?;
    let bytes = number * (1_u64 << shift) as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 {
        Ok(bytes.round() as u64)
    } else {
        Err(error())
    }
}

/// Reads `90`, `90s`, `5m` or `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("'{}' is not a duration; write 90s, 5m or 1h", printable(text));
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let number: u64 = number.parse().map_err(|_| error())?;
    let seconds = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(error()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(error)
}

/// Reads the times that safety rests on, as `2,1,0.1`.
pub(crate) fn parse_times(text: &str) -> Result<Times, String> {
    let error =
        || format!("'{}' is not three numbers of seconds, such as 2,1,0.1", printable(text));
    let seconds = |text: &str| {
        let seconds = text.trim().parse().ok();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(error)
    };
    let parts: Vec<&str> = text.split(',').collect();
    let [commit_window, listing_lag, second_look] = parts.as_slice() else { return Err(error()) };
    Ok(Times {
        commit_window: seconds(commit_window)?,
        listing_lag: seconds(listing_lag)?,
        second_look: seconds(second_look)?,
    })
}

/// Kind and permissions as `ls -l` shows them.
pub(crate) fn mode(entry: &Entry) -> String {
    let mut out = String::with_capacity(10);
    out.push(match entry.kind {
        EntryKind::File { .. } => '-',
        EntryKind::Directory { .. } => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharacterDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    });
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    for (group, (bit, with_execute, without)) in special.into_iter().enumerate() {
        let bits = entry.mode >> (6 - 3 * group);
        out.push(if bits & 4 == 0 { '-' } else { 'r' });
        out.push(if bits & 2 == 0 { '-' } else { 'w' });
        out.push(match (bits & 1 != 0, entry.mode & bit != 0) {
            (true, true) => with_execute,
            (false, true) => without,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Bytes of a file, 0 for anything else.
pub(crate) fn size(entry: &Entry) -> u64 {
    match entry.kind {
        EntryKind::File { size, .. } => size,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal_and_stay_distinguishable() {
        assert_eq!(escaped("plain ünïcode 👍".as_bytes()), "plain ünïcode 👍");
        assert_eq!(escaped(b"a\x1b[2Jb\nc\td\x7f"), r"a\x1b[2Jb\nc\td\x7f");
        assert_eq!(escaped(b"bad\xff\xfename"), r"bad\xff\xfename");
        assert_eq!(escaped(br"literal \x1b"), r"literal \\x1b");
        assert_eq!(escaped("exe.\u{202e}gpj\u{9b}2J".as_bytes()), r"exe.\u{202e}gpj\u{9b}2J");
        assert_eq!(printable("C:\\x\u{1b}"), r"C:\x\x1b");
    }

    #[test]
    fn sizes_are_read_and_shown_in_binary_units() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("1k", 1024),
            ("1.5K", 1536),
            ("2MiB", 2 << 20),
            ("1 GB", 1 << 30),
            ("3t", 3 << 40),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "k", "1x", "-1", "1.2.3", "99999999999999999999", "16777216t", "nan"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("5m").unwrap().as_secs(), 300);
        assert_eq!(parse_duration("90").unwrap().as_secs(), 90);
        for text in ["", "m", "5x", "-5s", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(duration(9), "0:09");
        assert_eq!(duration(3723), "1:02:03");
    }

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        let time = parse_time("2026-11-22T13:05:07+01:00").unwrap();
        assert_eq!(timestamp(&time), Timestamp { seconds: 1_795_349_107, nanoseconds: 0 });
        assert_eq!(
            timestamp(&parse_time("1969-12-31T23:59:59.5Z").unwrap()),
            Timestamp { seconds: -1, nanoseconds: 500_000_000 }
        );
        for text in ["2026-11-22", "2026-11-22 13:05:07", "2026-11-22T13:05"] {
            assert!(parse_time(text).is_ok(), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "7d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert!(parse_time_or_age("7d").unwrap() < parse_time_or_age("1h").unwrap());
        assert!(parse_time_or_age("7 parsecs").is_err());
    }

    #[test]
    fn a_time_outside_every_calendar_is_shown_as_a_number() {
        assert_eq!(
            time(Timestamp { seconds: i64::MAX, nanoseconds: 7 }),
            "@9223372036854775807.000000007"
        );
    }
}
