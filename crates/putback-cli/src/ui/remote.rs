//! Storages over a network, as far as the user sees of them: requests, and waits for limits.
//!
//! A storage that is opened says by [`Remotes::attach`] how its requests are counted. What its
//! client tells of waits and retries arrives through [`Ui::remote_waits`] and [`Ui::remote_retries`],
//! on any thread. Progress looks at both; where no progress is shown, a wait that is long enough to
//! be wondered at is told in a line.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ui::json::storage::{Retrying, Waiting as WaitingMessage, WithTraffic};
use crate::ui::{Ui, text};

/// Shorter waits are not worth a word.
const WAIT_TOLD: Duration = Duration::from_secs(2);
/// Two waits whose ends are this close are one: every task that has a request to send meets it.
const SAME_WAIT: Duration = Duration::from_millis(500);

/// What storages did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    /// Requests sent.
    pub(crate) requests: u64,
    /// Those that repeated one that had failed.
    pub(crate) retries: u64,
    /// Bytes sent as content.
    pub(crate) bytes_sent: u64,
    /// Bytes received as content.
    pub(crate) bytes_received: u64,
    /// Time in which a limit on requests held something back.
    #[serde(rename = "seconds_throttled", serialize_with = "as_seconds")]
    pub(crate) throttled: Duration,
}

fn as_seconds<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value.as_secs_f64() * 1000.0).round() / 1000.0)
}

impl Traffic {
    /// In a line of the progress.
    pub(crate) fn headline(&self) -> String {
        let mut out = text::counted(self.requests, "request", "requests");
        for (bytes, word) in [(self.bytes_sent, "sent"), (self.bytes_received, "received")] {
            if bytes > 0 {
                out.push_str(&format!(", {} {word}", text::bytes(bytes)));
            }
        }
        if self.throttled >= Duration::from_secs(1) {
            out.push_str(&format!(", {} throttled", text::duration(self.throttled.as_secs())));
        }
        out
    }

    /// At the end of an operation.
    fn summary(&self) -> String {
        let mut out = text::counted(self.requests, "request", "requests");
        if self.retries > 0 {
            out.push_str(&format!(" ({} repeated)", text::count(self.retries)));
        }
        out.push_str(&format!(
            ", {} sent, {} received, {} throttled",
            text::bytes(self.bytes_sent),
            text::bytes(self.bytes_received),
            text::duration(self.throttled.as_secs())
        ));
        out
    }
}

/// How the requests of a storage are counted.
type Count = Box<dyn Fn() -> Traffic + Send + Sync>;

/// The storages of this run.
#[derive(Default)]
pub(crate) struct Remotes {
    attached: Mutex<Vec<(String, Count)>>,
    waiting: Mutex<Option<Waiting>>,
}

/// A wait that goes on.
struct Waiting {
    until: Instant,
    reason: &'static str,
}

impl Remotes {
    /// From now on `count` is asked for what the storage `name` did.
    pub(crate) fn attach(&self, name: &str, count: impl Fn() -> Traffic + Send + Sync + 'static) {
        lock(&self.attached).push((name.to_owned(), Box::new(count)));
    }

    /// The name of the storage, if there is one and no other.
    pub(crate) fn only_name(&self) -> Option<String> {
        let attached = lock(&self.attached);
        let (first, _) = attached.first()?;
        attached.iter().all(|(name, _)| name == first).then(|| first.clone())
    }

    /// What all of them did so far; `None` if there is none.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        let attached = lock(&self.attached);
        if attached.is_empty() {
            return None;
        }
        let all = attached.iter().map(|(_, count)| count());
        Some(all.fold(Traffic::default(), |sum, one| Traffic {
            requests: sum.requests + one.requests,
            retries: sum.retries + one.retries,
            bytes_sent: sum.bytes_sent + one.bytes_sent,
            bytes_received: sum.bytes_received + one.bytes_received,
            throttled: sum.throttled + one.throttled,
        }))
    }

    /// What is being waited for, and how much longer.
    pub(crate) fn waiting(&self) -> Option<String> {
        let waiting = lock(&self.waiting);
        let waiting = waiting.as_ref()?;
        let left = waiting.until.checked_duration_since(Instant::now())?;
        (left >= Duration::from_secs(1)).then(|| sentence(left, waiting.reason))
    }

    /// Notes a wait; `false` if it is already known.
    fn note(&self, duration: Duration, reason: &'static str) -> bool {
        let until = Instant::now() + duration;
        let mut waiting = lock(&self.waiting);
        let is_known = waiting.as_ref().is_some_and(|known| until <= known.until + SAME_WAIT);
        if !is_known {
            *waiting = Some(Waiting { until, reason });
        }
        !is_known
    }
}

fn sentence(duration: Duration, reason: &str) -> String {
    let seconds = duration.as_secs_f64().ceil() as u64;
    let time = if seconds < 100 { format!("{seconds} s") } else { text::duration(seconds) };
    format!("waiting {time} for {reason}")
}

/// What these locks guard is whole at any moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ui {
    /// The storages of this run.
    pub(crate) fn remotes(&self) -> &Remotes {
        &self.inner.remotes
    }

    /// The storage `name` sends nothing for a while; `reason` has a word for people and one for
    /// programs.
    pub(crate) fn remote_waits(
        &self,
        name: &str,
        duration: Duration,
        reason: (&'static str, &'static str),
    ) {
        if !self.remotes().note(duration, reason.0) || duration < WAIT_TOLD || self.is_quiet() {
            return;
        }
        if self.is_json() {
            self.json_error(&WaitingMessage {
                message_type: "waiting",
                storage: name,
                seconds: duration.as_secs_f64(),
                reason: reason.1,
            });
        } else if !self.is_painting() && (self.verbosity() > 0 || self.is_stderr_terminal()) {
            self.notice(&sentence(duration, reason.0));
        }
    }

    /// A request of the storage `name` failed and is sent again.
    pub(crate) fn remote_retries(
        &self,
        name: &str,
        call: &str,
        (attempt, after): (u32, Duration),
        error: &str,
    ) {
        if self.is_quiet() {
            return;
        }
        if self.is_json() {
            self.json_error(&Retrying {
                message_type: "retrying",
                storage: name,
                call,
                attempt,
                seconds: after.as_secs_f64(),
                error: &text::printable(error),
            });
        } else if self.verbosity() > 1 {
            let seconds = after.as_secs_f64();
            self.notice(&format!("{name}: {error}; attempt {} in {seconds:.1} s", attempt + 1));
        }
    }

    /// The last line of an operation: what it asked of storages over a network.
    pub(crate) fn say_traffic(&self) {
        if let Some(traffic) = self.remotes().traffic() {
            self.say(format_args!("storage:  {}", traffic.summary()));
        }
    }

    /// The same on standard error, for commands whose standard output is something else.
    pub(crate) fn notice_traffic(&self) {
        if let Some(traffic) = self.remotes().traffic() {
            self.notice(&format!("storage:  {}", traffic.summary()));
        }
    }

    /// The `summary` object of an operation, with what it asked of storages over a network.
    pub(crate) fn json_summary(&self, summary: &impl Serialize) {
        self.json(&WithTraffic { object: summary, traffic: self.remotes().traffic() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_of_several_storages_adds_up() {
        let remotes = Remotes::default();
        assert_eq!(remotes.traffic(), None);
        assert_eq!(remotes.only_name(), None);
        let one = || Traffic {
            requests: 1500,
            retries: 2,
            bytes_sent: 1024,
            bytes_received: 0,
            throttled: Duration::from_millis(1500),
        };
        remotes.attach("a1", one);
        assert_eq!(remotes.only_name().as_deref(), Some("a1"));
        remotes.attach("b1", one);
        assert_eq!(remotes.only_name(), None);
        let sum = remotes.traffic().unwrap();
        assert_eq!(sum.headline(), "3,000 requests, 2.0 KiB sent, 0:03 throttled");
        assert_eq!(
            sum.summary(),
            "3,000 requests (4 repeated), 2.0 KiB sent, 0 B received, 0:03 throttled"
        );
    }

    #[test]
    fn a_wait_that_several_tasks_meet_is_one() {
        let remotes = Remotes::default();
        assert_eq!(remotes.waiting(), None);
        assert!(remotes.note(Duration::from_secs(12), "put.io's rate limit"));
        assert!(!remotes.note(Duration::from_secs(12), "put.io's rate limit"));
        assert!(!remotes.note(Duration::from_secs(3), "put.io's rate limit"));
        assert_eq!(remotes.waiting().as_deref(), Some("waiting 12 s for put.io's rate limit"));
        assert!(remotes.note(Duration::from_secs(200), "put.io's rate limit"));
        assert_eq!(remotes.waiting().as_deref(), Some("waiting 3:20 for put.io's rate limit"));
        let short = Remotes::default();
        assert!(short.note(Duration::from_millis(20), "x"));
        assert_eq!(short.waiting(), None);
    }
}
