//! A line of limited speed that everything in one direction shares.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock;

/// Sleeping for less than this costs more than it delays; the debt is kept instead.
const SLEEP_MIN: Duration = Duration::from_millis(2);

/// So much unused time is made up for. Timers wake late, and a line that forgot that would be slower
/// than it says.
const LATE_MAX: Duration = Duration::from_millis(20);

/// A line of limited speed.
#[derive(Debug)]
pub(crate) struct Line {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_per_second: Option<u64>,
    /// When all that was handed over so far is through.
    free_at: Option<Instant>,
}

impl Line {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { inner: Mutex::new(Inner { bytes_per_second, free_at: None }) }
    }

    pub(crate) fn set(&self, bytes_per_second: Option<u64>) {
        let mut inner = lock(&self.inner);
        inner.bytes_per_second = bytes_per_second;
        inner.free_at = None;
    }

    pub(crate) fn is_limited(&self) -> bool {
        lock(&self.inner).bytes_per_second.is_some()
    }

    /// Takes `bytes` of the line; they are through at the time that it returns, or now.
    pub(crate) fn take(&self, bytes: usize) -> Option<Instant> {
        let mut inner = lock(&self.inner);
        let speed = inner.bytes_per_second?.max(1);
        let now = Instant::now();
        let earliest = now.checked_sub(LATE_MAX).unwrap_or(now);
        let start = inner.free_at.map_or(now, |at| at.max(earliest));
        let through = start + Duration::from_secs_f64(bytes as f64 / speed as f64);
        inner.free_at = Some(through);
        (through > now + SLEEP_MIN).then_some(through)
    }

    /// Returns when `bytes` are through.
    pub(crate) async fn pass(&self, bytes: usize) {
        if let Some(through) = self.take(bytes) {
            tokio::time::sleep_until(through).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_shares_a_line_shares_its_speed() {
        let line = Line::new(Some(1_000_000));
        let started = Instant::now();
        let pass = || async {
            for _ in 0..5 {
                line.pass(10_000).await;
            }
        };
        tokio::join!(pass(), pass());
        let taken = started.elapsed();
        assert!(taken >= Duration::from_millis(97), "{taken:?}");
        assert!(!Line::new(None).is_limited());
        assert_eq!(Line::new(None).take(1 << 30), None);
    }
}
