//! Ways for fuzz targets into what reads the service's answers, and what must hold behind them.
//!
//! Not part of the client: the feature `fuzzing` is for `fuzz/` at the root of the source.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::address::{Base, is_safe};
use crate::clock;
use crate::download::parse_content_range;
use crate::error::Error;
use crate::failure::{Side, judge, read_envelope};
use crate::model::{Account, File, ItemError, Settings, TokenInfo, TrashedFile};
use crate::rate::{Advice, Gate, Pace};
use crate::wire::{
    AccountAnswer, CodeAnswer, DeleteAnswer, Done, ErrorEnvelope, ExchangeAnswer, FileAnswer,
    LinkAnswer, ListAnswer, MoveAnswer, SettingsAnswer, UrlAnswer, ValidateAnswer,
};

/// The longest wait that a gate is told to keep.
const WAIT_MAX: Duration = Duration::from_secs(900);

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Reads a body as the answer to every call.
///
/// # Panics
/// If what was read breaks a promise of the client.
pub fn read_answers(body: &[u8]) {
    if let Some(answer) = read::<ListAnswer>(body) {
        assert_ne!(answer.cursor.as_deref(), Some(""), "an empty cursor is none");
        let mut rows = answer.files;
        rows.extend(answer.parent);
        for row in rows {
            let id = row.id();
            check_file(&File::from(row), id.0);
        }
    }
    if let Some(answer) = read::<ListAnswer>(body) {
        for row in answer.files {
            let id = row.id();
            assert_eq!(TrashedFile::from(row).id, id);
        }
    }
    if let Some(answer) = read::<FileAnswer>(body) {
        let id = answer.file.id();
        check_file(&answer.file.into(), id.0);
    }
    if let Some(answer) = read::<MoveAnswer>(body) {
        drop(
            answer.errors.map(|errors| errors.into_iter().map(ItemError::from).collect::<Vec<_>>()),
        );
    }
    if let Some(answer) = read::<AccountAnswer>(body) {
        drop(Account::from(answer.info));
    }
    let _ = read::<SettingsAnswer>(body).map(|answer| Settings::from(answer.settings));
    drop(read::<ValidateAnswer>(body).map(TokenInfo::from));
    drop(read::<DeleteAnswer>(body));
    let _ = read::<Done>(body);
    drop(read::<UrlAnswer>(body));
    drop(read::<CodeAnswer>(body));
    drop(read::<LinkAnswer>(body));
    drop(read::<ExchangeAnswer>(body));
    let _ = read::<ErrorEnvelope>(body).and_then(|envelope| envelope.retry_after());
}

fn check_file(file: &File, id: i64) {
    assert_eq!(file.id.0, id);
    for time in [file.created_at, file.updated_at].into_iter().flatten() {
        // A time that was read can be written, and means the same second.
        let text = clock::format_time(time).unwrap_or_default();
        let again = clock::parse_time(&text);
        let seconds = |time| clock::format_time(time);
        assert_eq!(again.and_then(seconds), seconds(time));
    }
}

/// What an answer other than success becomes.
#[must_use]
pub fn read_refusal(status: u16, body: &[u8]) -> Error {
    let failures = [Side::Api, Side::Upload, Side::Storage]
        .map(|side| judge("call", side, status, read_envelope(body)));
    let [first, ..] = failures;
    first.error
}

/// Reads the headers that say when to go on: `Date`, `X-RateLimit-Reset`, `Retry-After`,
/// `X-RateLimit-Remaining`, `X-RateLimit-Action`.
///
/// # Panics
/// If a gate is open, or shut for ever, after a refusal with these headers.
pub fn read_headers(values: [&str; 5]) {
    const NAMES: [&str; 5] =
        ["date", "x-ratelimit-reset", "retry-after", "x-ratelimit-remaining", "x-ratelimit-action"];
    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.into_iter().zip(values) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let advice = Advice::read(&headers, 1_795_330_800);
    let now = Instant::now();
    let mut gate = Gate::default();
    for _ in 0..3 {
        gate.refuse(&advice, now, now, WAIT_MAX);
        if let Ok(opens) = gate.opens_at(now) {
            assert!(opens.is_some_and(|at| at > now && at <= now + WAIT_MAX), "{opens:?}");
        }
    }
    let mut pace = Pace::new(None, now);
    pace.refuse(&advice, now, now, WAIT_MAX);
    if let Ok(at) = pace.reserve(now) {
        assert!(at > now, "a refusal is followed by a request");
    }
    if let Some(wait) = advice.wait {
        let mut gate = Gate::default();
        gate.exhaust(wait, now, WAIT_MAX);
    }
}

/// Reads the range that a storage host says it sends.
///
/// # Panics
/// If a range that was read, written again, is another one.
pub fn read_range(text: &str) {
    if let Some((first, last)) = parse_content_range(text) {
        let again = format!("bytes {first}-{last}/*");
        assert_eq!(parse_content_range(&again), Some((first, last)));
    }
}

/// Reads an address from a header, and one that a person wrote.
///
/// # Panics
/// If a base that was accepted is not safe, or does not keep what it is joined with below it.
pub fn read_address(text: &str) {
    if let Ok(base) = Base::parse(text) {
        let url = base.join("/files/list");
        assert!(is_safe(&url) && base.is_origin_of(&url) && url.path().ends_with("/files/list"));
        assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
    }
    if let Ok(base) = Base::parse("https://upload.put.io/v2")
        && let Some(url) = base.resolve(text)
        && url.scheme() == "http"
    {
        assert!(!base.is_origin_of(&url));
    }
}
