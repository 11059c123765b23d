//! The clocks: the only place that asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use putback_format::tree::Timestamp;

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A time of the system as the format writes it.
#[must_use]
pub fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Timestamp { seconds: after.as_secs() as i64, nanoseconds: after.subsec_nanos() }
        }
        Err(error) => {
            let before = error.duration();
            let (seconds, nanoseconds) = match before.subsec_nanos() {
                0 => (before.as_secs() as i64, 0),
                rest => (before.as_secs() as i64 + 1, 1_000_000_000 - rest),
            };
            Timestamp { seconds: -seconds, nanoseconds }
        }
    }
}

/// Time since the machine was started, time in suspend included: a commit window must not stop while a
/// laptop sleeps.
#[must_use]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(target_os = "linux"))]
    {
        // `Instant` may stop in suspend here; the wall clock does not, and a jump only repeats a check.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_rounded_towards_the_past() {
        let time = UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(timestamp(time), Timestamp { seconds: -2, nanoseconds: 500_000_000 });
        assert_eq!(timestamp(UNIX_EPOCH), Timestamp::default());
    }
}
