//! How often and after what pause a request is sent again.

use std::time::Duration;

use tokio::time::Instant;

use crate::counters::Counters;
use crate::error::Error;
use crate::failure::{Failure, Retry};
use crate::options::Notice;
use crate::transport::Transport;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    transport: &'a Transport,
    call: &'static str,
    begun: Instant,
    failures: u32,
    refusals: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(transport: &'a Transport, call: &'static str) -> Self {
        Self { transport, call, begun: Instant::now(), failures: 0, refusals: 0 }
    }

    /// Something got through: patience begins anew.
    pub(crate) fn progress(&mut self) {
        *self = Self::new(self.transport, self.call);
    }

    /// An attempt has transferred bytes: the time that took is not patience spent.
    pub(crate) fn restart_clock(&mut self) {
        self.begun = Instant::now();
    }

    /// Pauses before the next attempt; after that the request may be sent again.
    ///
    /// # Errors
    /// The failure's own error, if sending again cannot help or patience has ended.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let patience = &self.transport.options().patience;
        let (count, pause) = match failure.retry {
            Retry::Never => return Err(failure.error),
            // The gate is shut: the next attempt waits there, together with all other requests.
            Retry::Limited => {
                self.refusals += 1;
                (self.refusals, Duration::ZERO)
            }
            Retry::Later { .. } => {
                self.failures += 1;
                (self.failures, pause(patience.backoff, self.failures, random_fraction()))
            }
        };
        let has_time = self.begun.elapsed() + pause <= patience.total;
        if count >= patience.attempts_max || !has_time {
            let mut error = failure.error;
            let tried = format!("tried {} times", self.failures + self.refusals);
            error.message = if error.message.is_empty() {
                tried
            } else {
                format!("{}; {tried}", error.message)
            };
            return Err(error);
        }
        Counters::add(&self.transport.counters().retries, 1);
        self.transport.options().observer.notice(&Notice::Retrying {
            call: self.call,
            attempt: self.failures + self.refusals,
            after: pause,
            error: failure.error.to_string(),
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The pause after `failures` in a row: doubled each time, and between half and all of that, so
/// that tasks that failed together do not come back together.
fn pause(first: Duration, failures: u32, fraction: f64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(PAUSE_MAX);
    doubled.mul_f64(0.5 + fraction / 2.0)
}

/// A random number from 0 up to 1; without a source of randomness one half.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let first = Duration::from_millis(500);
        let pauses: Vec<_> = (1..=10).map(|n| pause(first, n, 1.0).as_secs_f64()).collect();
        assert_eq!(pauses, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert_eq!(pause(first, 1, 0.0), Duration::from_millis(250));
        assert_eq!(pause(first, u32::MAX, 1.0), PAUSE_MAX);
        assert!((0.0..1.0).contains(&random_fraction()));
    }
}
