//! The log of requests, which tests read: what was asked, when, what it cost, what was answered.
//!
//! It holds no secret: tokens, codes and download credentials are left out of queries, and headers
//! are not kept at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::faults::Service;
use crate::lock;

/// Requests that are remembered; the oldest are forgotten first.
const ENTRIES_MAX: usize = 1_000_000;

/// A request that the emulator received.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// Number of the request, from 1, in the order in which their headers arrived.
    pub number: u64,
    /// When its headers had arrived, since the start of the emulator.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// The same by the clock of this machine.
    #[serde(serialize_with = "unix_seconds")]
    pub time: SystemTime,
    /// `GET`, `PATCH` and so on.
    pub method: String,
    /// The `Host` header.
    pub host: String,
    /// Which of put.io's services it was for.
    pub service: Service,
    /// The path, without the query.
    pub path: String,
    /// The query, with secrets replaced by `*`.
    pub query: String,
    /// The group of endpoints that limits are counted for.
    pub group: String,
    /// The account whose token it had, or that its download link belongs to.
    pub account: Option<String>,
    /// Bytes of the body that were received.
    pub request_bytes: u64,
    /// Bytes of the answer's body that were sent.
    pub response_bytes: u64,
    /// Status of the answer; `None` as long as there is none, or when there was to be none.
    pub status: Option<u16>,
    /// From the headers' arrival to the answer's first byte; zero without an answer.
    #[serde(serialize_with = "seconds")]
    pub latency: Duration,
    /// From the headers' arrival to the answer's end, once that was sent.
    #[serde(serialize_with = "optional_seconds")]
    pub duration: Option<Duration>,
    /// `Upload-Offset` of a PATCH, or the first byte that a download's range asks for.
    pub offset: Option<u64>,
    /// The fault that happened to it, by its name in JSON.
    pub fault: Option<String>,
    /// If the answer advertised a reset: Unix seconds by the service's clock.
    pub rate_limited_until: Option<u64>,
    /// User agent of the client.
    pub user_agent: Option<String>,
}

/// A request that came although a reset had been advertised to its token and was still ahead.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// Number of the request in the log.
    pub number: u64,
    /// When it arrived, since the start of the emulator.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its group of endpoints.
    pub group: String,
    /// The group whose request had been refused.
    pub limited_group: String,
    /// Number of the request whose answer advertised the reset.
    pub advertised_by: u64,
    /// How much too early it came.
    #[serde(serialize_with = "seconds")]
    pub early_by: Duration,
}

fn seconds<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64())
}

fn unix_seconds<S: serde::Serializer>(
    value: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let since = value.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_f64(since.as_secs_f64())
}

fn optional_seconds<S: serde::Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}

/// All requests so far.
pub(crate) struct Log {
    started: Instant,
    next: AtomicU64,
    records: Mutex<VecDeque<Arc<Record>>>,
    violations: Mutex<Vec<Violation>>,
}

/// A request in the log, which grows while the request is served.
pub(crate) struct Record {
    arrived: Instant,
    entry: Mutex<LogEntry>,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) response_bytes: AtomicU64,
}

/// What the log has of a request from the beginning.
pub(crate) struct Arrival {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) service: Service,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) group: String,
    pub(crate) account: Option<String>,
    pub(crate) offset: Option<u64>,
    pub(crate) user_agent: Option<String>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(1),
            records: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// A request's headers have arrived.
    pub(crate) fn add(&self, arrival: Arrival) -> Arc<Record> {
        let arrived = Instant::now();
        let mut records = lock(&self.records);
        let entry = LogEntry {
            number: self.next.fetch_add(1, Ordering::SeqCst),
            at: arrived - self.started,
            time: SystemTime::now(),
            method: arrival.method,
            host: arrival.host,
            service: arrival.service,
            path: arrival.path,
            query: arrival.query,
            group: arrival.group,
            account: arrival.account,
            request_bytes: 0,
            response_bytes: 0,
            status: None,
            latency: Duration::ZERO,
            duration: None,
            offset: arrival.offset,
            fault: None,
            rate_limited_until: None,
            user_agent: arrival.user_agent,
        };
        let record = Arc::new(Record {
            arrived,
            entry: Mutex::new(entry),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
        });
        records.push_back(Arc::clone(&record));
        if records.len() > ENTRIES_MAX {
            records.pop_front();
        }
        record
    }

    pub(crate) fn add_violation(&self, violation: Violation) {
        lock(&self.violations).push(violation);
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        lock(&self.records).iter().map(|record| record.entry()).collect()
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    pub(crate) fn clear(&self) {
        lock(&self.records).clear();
        lock(&self.violations).clear();
    }
}

impl Record {
    pub(crate) fn entry(&self) -> LogEntry {
        let mut entry = lock(&self.entry).clone();
        entry.request_bytes = self.request_bytes.load(Ordering::Relaxed);
        entry.response_bytes = self.response_bytes.load(Ordering::Relaxed);
        entry
    }

    pub(crate) fn number(&self) -> u64 {
        lock(&self.entry).number
    }

    pub(crate) fn at(&self) -> Duration {
        lock(&self.entry).at
    }

    pub(crate) fn set_fault(&self, name: &str) {
        let mut entry = lock(&self.entry);
        entry.fault = Some(match entry.fault.take() {
            Some(earlier) => format!("{earlier}, {name}"),
            None => name.to_owned(),
        });
    }

    /// The answer's head is about to be sent.
    pub(crate) fn answered(&self, status: u16, rate_limited_until: Option<u64>) {
        let mut entry = lock(&self.entry);
        entry.status = Some(status);
        entry.latency = self.arrived.elapsed();
        entry.rate_limited_until = rate_limited_until;
    }

    /// The request is over, whether its answer was sent or not.
    pub(crate) fn ended(&self) {
        lock(&self.entry).duration = Some(self.arrived.elapsed());
    }
}

impl LogEntry {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let status = self.status.map_or_else(|| "---".to_owned(), |status| status.to_string());
        let fault = self.fault.as_ref().map_or_else(String::new, |fault| format!("  [{fault}]"));
        format!(
            "{:9.3} {status} {:6} {}{}{query}  {} B in, {} B out, {:.0} ms{fault}",
            self.at.as_secs_f64(),
            self.method,
            self.host,
            self.path,
            self.request_bytes,
            self.response_bytes,
            self.duration.unwrap_or(self.latency).as_secs_f64() * 1000.0,
        )
    }
}

/// Shows a request to whoever watches the program.
pub(crate) fn print(entry: &LogEntry) {
    use std::io::Write as _;
    // Nobody watching is no reason to stop.
    let _ = writeln!(anstream::stderr(), "{}", entry.line());
}

/// A query without what is secret in it.
pub(crate) fn without_secrets(query: &str) -> String {
    const SECRETS: &[&str] = &[
        "oauth_token",
        "token",
        "client_secret",
        "code",
        "password",
        "download_token",
        "access_token",
    ];
    let mut shown = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            // Flags such as `download_token=1` are no secrets.
            Some((key, value)) if SECRETS.contains(&key) && value.len() > 1 => {
                shown.push(format!("{key}=*"));
            }
            _ => shown.push(part.to_owned()),
        }
    }
    shown.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_logged_without_their_secrets() {
        for (query, shown) in [
            ("", ""),
            ("parent_id=0&per_page=2", "parent_id=0&per_page=2"),
            ("u=1&oauth_token=secret&x", "u=1&oauth_token=*&x"),
            ("client_secret=s3&code=abc&state=1", "client_secret=*&code=*&state=1"),
            ("download_token=1", "download_token=1"),
        ] {
            assert_eq!(without_secrets(query), shown);
        }
    }
}
