//! What a client has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Usage;

/// Counters that all tasks of a client share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    waits: Mutex<Waits>,
}

/// Time in which at least one task waits: ten tasks waiting for one second are one second.
#[derive(Debug, Default)]
struct Waits {
    waiting: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts the time until the guard is dropped as waited.
    pub(crate) fn wait(&self) -> WaitGuard<'_> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.waiting += 1;
        waits.since.get_or_insert_with(Instant::now);
        WaitGuard(self)
    }

    pub(crate) fn usage(&self) -> Usage {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let current = waits.since.map_or(Duration::ZERO, |since| since.elapsed());
        Usage {
            requests: self.requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            waited: waits.total + current,
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
        }
    }
}

/// See [`Counters::wait`].
pub(crate) struct WaitGuard<'a>(&'a Counters);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.waiting -= 1;
        if waits.waiting == 0
            && let Some(since) = waits.since.take()
        {
            waits.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_together_is_counted_once() {
        let counters = Counters::default();
        let wait = async {
            let _guard = counters.wait();
            tokio::time::sleep(Duration::from_secs(3)).await;
        };
        tokio::join!(wait, async {
            let _guard = counters.wait();
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(counters.usage().waited, Duration::from_secs(3));
    }
}
