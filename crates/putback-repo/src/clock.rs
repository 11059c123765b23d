//! The clocks: the only place that asks what time it is.

#[cfg(not(target_os = "linux"))]
use std::time::UNIX_EPOCH;
use std::time::{Duration, SystemTime};

use putback_format::tree::Timestamp;

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    // A clock that is off by more than the format can say might as well show 1970.
    Timestamp::from_system_time(SystemTime::now()).unwrap_or_default()
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
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn times_before_1970_are_rounded_towards_the_past() {
        let time = UNIX_EPOCH - Duration::from_millis(1500);
        let expected = Timestamp { seconds: -2, nanoseconds: 500_000_000 };
        assert_eq!(Timestamp::from_system_time(time), Some(expected));
        assert_eq!(Timestamp::from_system_time(UNIX_EPOCH), Some(Timestamp::default()));
    }
}
