//! Bytes per second, shared by all transfers of one direction.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time that may be saved up while nothing is transferred.
const SAVED: Duration = Duration::from_millis(100);

/// A limit of bytes per second, or none.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    bytes_per_second: Option<u64>,
    due: Mutex<Instant>,
}

impl Bandwidth {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        let bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        Self { bytes_per_second, due: Mutex::new(Instant::now()) }
    }

    /// The largest piece to transfer at once: small under a low limit, so that the other side sees
    /// bytes several times a second.
    pub(crate) fn piece_bytes(&self, piece_bytes_max: usize) -> usize {
        self.bytes_per_second.map_or(piece_bytes_max, |rate| {
            usize::try_from(rate / 8).unwrap_or(usize::MAX).clamp(1024, piece_bytes_max.max(1024))
        })
    }

    /// Waits until `bytes` more may be transferred.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let start = {
            let now = Instant::now();
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(SAVED).unwrap_or(now);
            let start = (*due).max(earliest);
            *due = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
            start
        };
        tokio::time::sleep_until(start).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn transfers_together_keep_the_limit() {
        let limit = Bandwidth::new(Some(100_000));
        let start = Instant::now();
        let one = async {
            for _ in 0..10 {
                limit.take(10_000).await;
            }
        };
        let other = async {
            for _ in 0..10 {
                limit.take(10_000).await;
            }
        };
        tokio::join!(one, other);
        let seconds = start.elapsed().as_secs_f64();
        assert!((1.7..2.1).contains(&seconds), "200 kB at 100 kB/s took {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_costs_no_time() {
        let limit = Bandwidth::new(None);
        let start = Instant::now();
        limit.take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(limit.piece_bytes(1 << 18), 1 << 18);
    }

    #[test]
    fn low_limits_make_small_pieces() {
        assert_eq!(Bandwidth::new(Some(80_000)).piece_bytes(1 << 18), 10_000);
        assert_eq!(Bandwidth::new(Some(1)).piece_bytes(1 << 18), 1024);
    }
}
