//! Downloads: links that carry a credential of their own, and the storage hosts behind them.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;

use crate::call::{Call, Failure, Params, Reply, add_header, empty, ok};
use crate::dice::random_word;
use crate::faults::{Fault, Service};
use crate::files::{lose, path_id};
use crate::model::types;
use crate::state::{AccountIndex, Link, State};
use crate::tree::Row;

/// Bytes that are read from a blob at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Links that are remembered. Beyond, those that have expired are forgotten.
const LINKS_MAX: usize = 100_000;

/// `GET /v2/files/ID/url`
pub(crate) async fn url(call: Call, Path(id): Path<String>) -> Reply {
    ok(json!({ "url": link(&call, &id)? }))
}

/// `GET /v2/files/ID/download`, with or without a name, and `/stream`
pub(crate) async fn redirect(call: Call, Path(id): Path<String>) -> Reply {
    let location = link(&call, &id)?;
    let mut response = empty(StatusCode::FOUND);
    add_header(&mut response, "location", &location);
    Ok(response)
}

/// The same, for a path that ends with a name.
pub(crate) async fn redirect_named(call: Call, Path((id, _name)): Path<(String, String)>) -> Reply {
    redirect(call, Path(id)).await
}

/// Makes a link to the bytes of a file.
fn link(call: &Call, id: &str) -> Result<String, Failure> {
    let account = match (&call.identity, call.account()) {
        // A token of this scope may do nothing else.
        (Some(identity), Err(_)) if identity.scope == "files_download" => identity.account,
        (_, account) => account?,
    };
    let id = path_id(id)?;
    let mut state = call.shared.state();
    lose(call, &mut state, account, id);
    let row = state.accounts[account].tree.live(id).ok_or_else(Failure::not_found)?;
    check_bytes(call, row)?;
    let now = call.now();
    if state.links.len() >= LINKS_MAX {
        state.links.retain(|_, link| link.expires > now);
    }
    let word = random_word()?;
    let seconds = i64::try_from(call.shared.profile().link_seconds).unwrap_or(i64::MAX);
    let expires = now.saturating_add(seconds.saturating_mul(1000));
    state.links.insert(word.clone(), Link { account, file: id, expires });
    let origin = call.origin(Service::Storage);
    Ok(format!("{origin}/download/{id}?u={}&oauth_token={word}", state.accounts[account].user_id))
}

/// Whether there are bytes to be had.
fn check_bytes(call: &Call, row: &Row) -> Result<(), Failure> {
    if row.is_folder() {
        return Err(Failure::new(400, "NotFile", "It is not a file"));
    }
    if row.is_lost {
        return Err(Failure::file_lost());
    }
    if row.unreachable_until > call.now() {
        let message = "The file can not be reached at the moment";
        return Err(Failure::new(503, "FILE_NOT_REACHABLE", message));
    }
    Ok(())
}

/// `GET` and `HEAD /download/ID` on a storage host.
pub(crate) async fn storage(
    call: Call,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Reply {
    if call.shared.profile().strict_storage && headers.contains_key(header::AUTHORIZATION) {
        return Err(Failure::unauthorized("invalid_scope"));
    }
    match call.fault {
        Some(Fault::LinkExpired { status }) => return Err(expired(status)),
        Some(Fault::StorageMissing) => return Err(Failure::not_found()),
        _ => {}
    }
    let id = path_id(&id)?;
    let word = params.text("oauth_token").ok_or_else(|| Failure::unauthorized("invalid_grant"))?;
    let mut state = call.shared.state();
    let link = state.links.get(word).filter(|link| link.file == id).cloned();
    let link = link.ok_or_else(|| Failure::unauthorized("invalid_scope"))?;
    if link.expires <= call.now() {
        return Err(expired(410));
    }
    lose(&call, &mut state, link.account, id);
    send(&call, &mut state, link.account, id, &headers)
}

fn expired(status: u16) -> Failure {
    let error_type = match status {
        401 => "invalid_grant",
        410 => "LINK_EXPIRED",
        _ => "Forbidden",
    };
    Failure::new(status, error_type, "The link has expired")
}

fn send(
    call: &Call,
    state: &mut State,
    account: AccountIndex,
    id: i64,
    headers: &HeaderMap,
) -> Reply {
    let row = state.accounts[account].tree.live(id).ok_or_else(Failure::not_found)?;
    check_bytes(call, row)?;
    let content = row.content.clone().ok_or_else(Failure::not_found)?;
    let extension = row.name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let kind = types(extension.as_deref().unwrap_or_default()).0;
    // The bytes that there are, whatever the row says: they may have been damaged.
    let length = content.blob.length();
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = match (asked, &call.fault) {
        (_, Some(Fault::IgnoreRange)) | (None, _) => Wanted::All,
        (Some(text), fault) => match (Wanted::parse(text, length), fault) {
            (Wanted::Part { first, last }, Some(Fault::WrongRange { shift })) => {
                Wanted::Part { first: first.saturating_add(*shift).min(last), last }
            }
            (wanted, _) => wanted,
        },
    };
    if row.accessed.is_none() {
        let now = call.now().div_euclid(1000);
        state.change_row(account, id, |row| row.accessed = Some(now));
    }
    if matches!(call.fault, Some(Fault::DeletedDuringDownload { .. })) {
        state.remove_row(account, id, call.now());
    }
    let (status, first, end) = match range {
        Wanted::All => (StatusCode::OK, 0, length),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Wanted::Nothing => {
            let failure = Failure::new(416, "RangeNotSatisfiable", "There is no such range");
            return Err(failure.header("content-range", format!("bytes */{length}")));
        }
    };
    let pieces = futures_util::stream::unfold(first, move |at| {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let piece = (left > 0).then(|| content.blob.read_at(at, left));
        let next = match &piece {
            Some(Ok(bytes)) if !bytes.is_empty() => at + bytes.len() as u64,
            _ => end,
        };
        let item = piece.filter(|piece| !matches!(piece, Ok(bytes) if bytes.is_empty()));
        std::future::ready(item.map(|piece: std::io::Result<Bytes>| (piece, next)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    add_header(&mut response, "accept-ranges", "bytes");
    add_header(&mut response, "content-type", kind);
    add_header(&mut response, "content-length", &(end - first).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {first}-{}/{length}", end - 1);
        add_header(&mut response, "content-range", &text);
    }
    Ok(response)
}

/// Which bytes a request wants.
#[derive(Debug, PartialEq)]
enum Wanted {
    All,
    Part { first: u64, last: u64 },
    Nothing,
}

impl Wanted {
    /// `bytes=a-b`, `bytes=a-` or `bytes=-n`. Several ranges, and what is none, are ignored.
    fn parse(text: &str, length: u64) -> Self {
        let Some((first, last)) = text
            .trim()
            .strip_prefix("bytes=")
            .filter(|range| !range.contains(','))
            .and_then(|range| range.split_once('-'))
        else {
            return Self::All;
        };
        match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Err(_), Ok(count)) if first.trim().is_empty() => match count.min(length) {
                0 => Self::Nothing,
                count => Self::Part { first: length - count, last: length - 1 },
            },
            (Ok(first), Ok(last)) if first > last => Self::All,
            (Ok(first), _) if first >= length => Self::Nothing,
            (Ok(first), Ok(last)) => Self::Part { first, last: last.min(length - 1) },
            (Ok(first), Err(_)) if last.trim().is_empty() => Self::Part { first, last: length - 1 },
            _ => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        let part = |first, last| Wanted::Part { first, last };
        for (text, length, expected) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=2-5", 10, part(2, 5)),
            ("bytes=2-", 10, part(2, 9)),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-30", 10, part(0, 9)),
            ("bytes=8-100", 10, part(8, 9)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=5-2", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("pages=1-2", 10, Wanted::All),
            ("bytes=a-b", 10, Wanted::All),
        ] {
            assert_eq!(Wanted::parse(text, length), expected, "{text} of {length}");
        }
    }
}
