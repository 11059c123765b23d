//! Uploads: resumable ones (TUS 1.0.0) at `/files/`, and forms at `/v2/files/upload`.
//!
//! Every byte of a PATCH is kept as it arrives, so that one that was cut leaves a larger offset. A
//! file appears with its last byte, not before.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Path, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::blob::Blob;
use crate::call::{Call, Failure, Params, Reply, add_header, empty, ok};
use crate::clock;
use crate::dice::random_word;
use crate::faults::{Fault, Point, Service};
use crate::files::new_row;
use crate::lock;
use crate::model::View;
use crate::names;
use crate::options::{EmptyUpload, Overwritten};
use crate::state::{AccountIndex, Done, State, Upload};
use crate::tree::{Content, ROOT};

/// So much of a file's beginning tells whether it is a torrent.
const TORRENT_BYTES: usize = 64 << 10;

/// An answer to a resumable upload.
fn tus(status: StatusCode) -> Response {
    let mut response = empty(status);
    add_header(&mut response, "tus-resumable", "1.0.0");
    response
}

/// An error, with what answers to resumable uploads have.
fn tus_failure(failure: Failure) -> Response {
    let mut response = failure.into_response();
    add_header(&mut response, "tus-resumable", "1.0.0");
    response
}

/// `OPTIONS /files/`
pub(crate) async fn options() -> Response {
    let mut response = tus(StatusCode::NO_CONTENT);
    add_header(&mut response, "tus-version", "1.0.0");
    add_header(&mut response, "tus-extension", "creation,termination");
    response
}

/// `POST /files/`
pub(crate) async fn create(call: Call, headers: HeaderMap) -> Response {
    try_create(&call, &headers).unwrap_or_else(tus_failure)
}

fn try_create(call: &Call, headers: &HeaderMap) -> Result<Response, Failure> {
    let account = call.account()?;
    let profile = call.shared.profile();
    let length: u64 = header_text(headers, "upload-length")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::bad_request("Upload-Length is missing or no number"))?;
    let metadata = Metadata::parse(header_text(headers, "upload-metadata").unwrap_or_default())?;
    let name = names::accept(&metadata.name, &profile)?;
    let mut state = call.shared.state();
    let owner = &state.accounts[account];
    let default = || owner.settings.get("default_download_folder").and_then(Value::as_i64);
    let parent = metadata.parent.or_else(default).unwrap_or(ROOT);
    if !owner.tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    let is_full = owner.used(&profile).saturating_add(length) > owner.quota;
    if is_full || matches!(call.fault, Some(Fault::FullAtCreate)) {
        return Err(Failure::full());
    }
    let updated = match call.fault {
        Some(Fault::TimeIgnored) => None,
        _ => metadata.updated,
    };
    let blob = state.blobs.create().map_err(|error| Failure::io(&error))?;
    let upload = state.add_upload(Upload {
        id: random_word()?,
        account,
        parent,
        name,
        length,
        updated,
        no_torrent: metadata.no_torrent,
        overwrite: metadata.overwrite,
        blob: Mutex::new(blob),
        progress: Mutex::default(),
    });
    let mut response = tus(StatusCode::CREATED);
    let location = match call.fault {
        Some(Fault::RelativeLocation) => format!("/files/{}", upload.id),
        _ => format!("{}/files/{}", call.origin(Service::Upload), upload.id),
    };
    add_header(&mut response, "location", &location);
    if length == 0 && profile.empty_upload == EmptyUpload::OnCreate {
        let done = finish(call, &mut state, &upload)?;
        add_done(&mut response, done.as_ref());
    }
    Ok(response)
}

/// What is said of an upload when it begins.
#[derive(Debug, Default, PartialEq)]
struct Metadata {
    name: String,
    parent: Option<i64>,
    no_torrent: bool,
    overwrite: bool,
    updated: Option<i64>,
}

impl Metadata {
    /// Pairs of a key and a value in base64, between commas.
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |what: &str| Failure::bad_request(&format!("Upload-Metadata: {what}"));
        let mut metadata = Self::default();
        let mut filename = None;
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, encoded) = pair.split_once(' ').unwrap_or((pair, ""));
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .map_err(|_| bad("a value is no base64"))?;
            let value = String::from_utf8(bytes).map_err(|_| bad("a value is no UTF-8"))?;
            let is_true = value == "1" || value.eq_ignore_ascii_case("true");
            match key {
                "name" => metadata.name = value,
                "filename" => filename = Some(value),
                "parent_id" => {
                    let id = value.trim().parse().map_err(|_| bad("parent_id is no number"))?;
                    metadata.parent = Some(id);
                }
                "no-torrent" => metadata.no_torrent = is_true,
                "overwrite" => metadata.overwrite = is_true,
                "updated-at" => {
                    let time = clock::parse(&value).ok_or_else(|| bad("updated-at is no time"))?;
                    metadata.updated = Some(time);
                }
                _ => {}
            }
        }
        if metadata.name.is_empty() {
            metadata.name = filename.unwrap_or_default();
        }
        Ok(metadata)
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn add_done(response: &mut Response, done: Option<&Done>) {
    if let Some(done) = done
        && let Some(id) = done.file
    {
        add_header(response, "putio-file-id", &id.to_string());
        add_header(response, "putio-file-crc32", &format!("{:08x}", done.crc32));
    }
}

/// The upload that a request is about, after what a fault did to it.
fn find(call: &Call, id: &str) -> Result<Arc<Upload>, Failure> {
    let account = call.account()?;
    let mut state = call.shared.state();
    let found = state.uploads.get(id).filter(|upload| upload.account == account);
    let upload = found.cloned().ok_or_else(Failure::not_found)?;
    if upload.done().is_some() && call.shared.profile().forgets_finished_uploads {
        return Err(Failure::not_found());
    }
    match call.fault {
        Some(Fault::ForgetSession) => {
            state.remove_upload(id);
            return Err(Failure::not_found());
        }
        Some(Fault::OffsetBack { bytes }) if upload.done().is_none() => {
            let mut progress = lock(&upload.progress);
            progress.hasher = None;
            progress.writer += 1;
            let offset = upload.blob().length().saturating_sub(bytes);
            upload.blob().truncate(offset).map_err(|error| Failure::io(&error))?;
        }
        _ => {}
    }
    Ok(upload)
}

/// `HEAD /files/ID`
pub(crate) async fn head(call: Call, Path(id): Path<String>) -> Response {
    match find(&call, &id) {
        Ok(upload) => {
            // Who asks has given up on what was sending before.
            lock(&upload.progress).writer += 1;
            let mut response = tus(StatusCode::OK);
            add_header(&mut response, "upload-offset", &upload.offset().to_string());
            add_header(&mut response, "upload-length", &upload.length.to_string());
            add_header(&mut response, "cache-control", "no-store");
            response
        }
        Err(failure) => tus_failure(failure),
    }
}

/// `DELETE /files/ID`
pub(crate) async fn terminate(call: Call, Path(id): Path<String>) -> Response {
    match find(&call, &id) {
        Ok(_) => {
            call.shared.state().remove_upload(&id);
            tus(StatusCode::NO_CONTENT)
        }
        Err(failure) => tus_failure(failure),
    }
}

/// `PATCH /files/ID`
pub(crate) async fn patch(
    call: Call,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    try_patch(&call, &id, &headers, body).await.unwrap_or_else(tus_failure)
}

fn conflict(offset: u64) -> Failure {
    Failure::new(409, "Conflict", "The offset is not that of the upload")
        .header("upload-offset", offset)
}

async fn try_patch(
    call: &Call,
    id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let upload = find(call, id)?;
    if matches!(call.fault, Some(Fault::OffsetConflict)) {
        return Err(conflict(upload.offset()));
    }
    if header_text(headers, "content-type") != Some("application/offset+octet-stream") {
        let message = "Content-Type is not application/offset+octet-stream";
        return Err(Failure::new(415, "UnsupportedMediaType", message));
    }
    let offset: u64 = header_text(headers, "upload-offset")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::bad_request("Upload-Offset is missing or no number"))?;
    let too_long =
        || Failure::new(413, "RequestEntityTooLarge", "There are more bytes than declared");
    let writer = {
        let mut progress = lock(&upload.progress);
        if offset != upload.offset() {
            return Err(conflict(upload.offset()));
        }
        progress.writer += 1;
        progress.writer
    };
    if call.facts.body_bytes.is_some_and(|bytes| bytes > upload.length - offset) {
        return Err(too_long());
    }
    let mut damage = matches!(call.fault, Some(Fault::CorruptUpload));
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let mut piece =
            piece.map_err(|_| Failure::bad_request("the request's body ended early"))?;
        if std::mem::take(&mut damage) {
            let mut damaged = piece.to_vec();
            if let Some(byte) = damaged.first_mut() {
                *byte ^= 0x80;
            }
            piece = damaged.into();
        }
        let mut progress = lock(&upload.progress);
        if progress.writer != writer {
            return Err(conflict(upload.offset()));
        }
        if progress.done.is_some() || upload.offset() + piece.len() as u64 > upload.length {
            return Err(too_long());
        }
        let blob = upload.blob();
        let mut hasher = match progress.hasher.take() {
            Some(hasher) => hasher,
            None => blob.checksum().map_err(|error| Failure::io(&error))?,
        };
        blob.append(&piece).map_err(|error| Failure::io(&error))?;
        hasher.update(&piece);
        progress.hasher = Some(hasher);
    }
    if call.control.is_ended() {
        return Err(Failure::bad_request("the connection ended"));
    }
    let mut response = tus(StatusCode::NO_CONTENT);
    if upload.offset() == upload.length {
        let done = finish(call, &mut call.shared.state(), &upload)?;
        add_done(&mut response, done.as_ref());
    }
    add_header(&mut response, "upload-offset", &upload.offset().to_string());
    Ok(response)
}

/// Makes a file of an upload that has all its bytes; what it became, unless that is kept secret.
fn finish(call: &Call, state: &mut State, upload: &Upload) -> Result<Option<Done>, Failure> {
    if let Some(done) = upload.done() {
        return Ok(Some(done));
    }
    let fault = call.shared.faults.decide(&call.facts, Point::Finish);
    if let Some(fault) = &fault {
        call.record.set_fault(fault.name());
    }
    let profile = call.shared.profile();
    let owner = &state.accounts[upload.account];
    let is_full = owner.used(&profile).saturating_add(upload.length) > owner.quota;
    if is_full || matches!(fault, Some(Fault::FullAtFinish)) {
        return Err(Failure::full());
    }
    if !owner.tree.is_live_folder(upload.parent) {
        return Err(Failure::not_found());
    }
    let hasher = lock(&upload.progress).hasher.clone();
    let blob = upload.blob();
    let crc32 = match hasher {
        Some(hasher) => hasher.finalize(),
        None => blob.checksum().map_err(|error| Failure::io(&error))?.finalize(),
    };
    blob.finish();
    let done = if !upload.no_torrent && is_torrent(&blob) {
        add_transfer(state, upload.account, &upload.name);
        Done { file: None, crc32 }
    } else {
        let mut times = 1;
        if matches!(fault, Some(Fault::DuplicateUpload)) {
            times = 2;
        }
        let mut file = None;
        for _ in 0..times {
            let content = Content { blob: Arc::clone(&blob), size: upload.length, crc32 };
            file = Some(place(
                call,
                state,
                upload.account,
                upload.parent,
                &upload.name,
                content,
                upload.updated,
                upload.overwrite && times == 1,
            ));
        }
        Done { file, crc32 }
    };
    state.upload_done(upload, done);
    Ok(match fault {
        Some(Fault::OmitFileId) => None,
        _ => Some(done),
    })
}

/// Makes the row of a new file.
#[expect(clippy::too_many_arguments, reason = "a file is all of these")]
fn place(
    call: &Call,
    state: &mut State,
    account: AccountIndex,
    parent: i64,
    name: &str,
    content: Content,
    updated: Option<i64>,
    overwrite: bool,
) -> i64 {
    let profile = call.shared.profile();
    let now = call.now();
    let replaced: Vec<i64> = match overwrite {
        true => state.accounts[account]
            .tree
            .named(parent, name, profile.collation)
            .filter(|row| !row.is_folder())
            .map(|row| row.id)
            .collect(),
        false => Vec::new(),
    };
    let mut same_id = None;
    for id in replaced {
        match profile.overwritten {
            Overwritten::SameId if same_id.is_none() => same_id = Some(id),
            Overwritten::Trashed => {
                state.place_row(account, id, now, |row| row.trashed = Some(now.div_euclid(1000)));
            }
            Overwritten::Removed | Overwritten::SameId => state.remove_row(account, id, now),
        }
    }
    let user_id = state.accounts[account].user_id;
    if let Some(id) = same_id {
        state.change_row(account, id, |row| {
            row.content = Some(content);
            row.updated = updated.unwrap_or(now.div_euclid(1000));
            row.is_lost = false;
        });
        call.shared.notify(user_id, "file_update", id, name);
        return id;
    }
    let id = state.take_id();
    let mut row = new_row(id, parent, name.to_owned(), Some(content), now);
    row.updated = updated.unwrap_or(row.updated);
    state.put_row(account, row);
    call.shared.notify(user_id, "file_create", id, name);
    id
}

/// Whether bytes look like a torrent: a dictionary that has an `info`.
fn is_torrent(blob: &Blob) -> bool {
    let Ok(start) = blob.read_at(0, TORRENT_BYTES) else { return false };
    let is_dictionary =
        start.first() == Some(&b'd') && start.get(1).is_some_and(u8::is_ascii_digit);
    is_dictionary && start.windows(6).any(|six| six == b"4:info")
}

fn add_transfer(state: &mut State, account: AccountIndex, name: &str) -> Value {
    let id = state.take_id();
    let transfer = json!({
        "id": id,
        "name": name,
        "status": "IN_QUEUE",
        "type": "TORRENT",
        "percent_done": 0,
        "size": 0,
        "downloaded": 0,
        "file_id": null,
        "error_message": null,
    });
    state.accounts[account].transfers.push(transfer.clone());
    state.account_changed(account);
    transfer
}

/// `POST /v2/files/upload` on the host of the API, which takes no uploads.
pub(crate) async fn redirect(call: Call, request: Request) -> Response {
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
    let location = format!("{}/v2/files/upload{query}", call.origin(Service::Upload));
    add_header(&mut response, "location", &location);
    response
}

/// `POST /v2/files/upload`
pub(crate) async fn form(call: Call, request: Request) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let mut params = Params::of_query(request.uri().query().unwrap_or_default());
    let is_form = header_text(request.headers(), header::CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.starts_with("multipart/form-data"));
    if !is_form {
        return Err(Failure::bad_request("an upload is a multipart form"));
    }
    let broken = || Failure::bad_request("the form is broken or ended early");
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| broken())?;
    let mut content = None;
    while let Some(mut field) = form.next_field().await.map_err(|_| broken())? {
        if field.name() == Some("file") {
            let name = field.file_name().unwrap_or_default().to_owned();
            let blob = call.shared.state().blobs.create().map_err(|error| Failure::io(&error))?;
            let mut hasher = crc32fast::Hasher::new();
            while let Some(piece) = field.chunk().await.map_err(|_| broken())? {
                blob.append(&piece).map_err(|error| Failure::io(&error))?;
                hasher.update(&piece);
            }
            blob.finish();
            let size = blob.length();
            content = Some((name, Content { blob, size, crc32: hasher.finalize() }));
        } else if let Some(name) = field.name().map(str::to_owned) {
            let value = field.text().await.map_err(|_| broken())?;
            params.set(name, value);
        }
    }
    let (sent_name, content) = content.ok_or_else(|| Failure::bad_request("file is missing"))?;
    let name = names::accept(params.text("filename").unwrap_or(&sent_name), &profile)?;
    let mut state = call.shared.state();
    let parent = params.number("parent_id")?.unwrap_or(ROOT);
    let owner = &state.accounts[account];
    if !owner.tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    if owner.used(&profile).saturating_add(content.size) > owner.quota
        || matches!(call.fault, Some(Fault::FullAtCreate))
    {
        return Err(Failure::full());
    }
    if is_torrent(&content.blob) {
        return ok(json!({ "transfer": add_transfer(&mut state, account, &name) }));
    }
    if params.flag("torrent") {
        return Err(Failure::new(400, "NotTorrent", "The file is not a torrent"));
    }
    let id = place(&call, &mut state, account, parent, &name, content, None, false);
    let view = View::new(&call, &params, &state, account);
    ok(json!({ "file": view.live(&state.accounts[account].tree, id)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Blobs;

    #[test]
    fn metadata_are_pairs_of_a_key_and_base64() {
        // name "päck", parent_id 12, no-torrent true, updated-at 2024-05-06T07:08:09Z
        let text = "name cMOkY2s=,parent_id MTI=, no-torrent dHJ1ZQ==,is_empty,\
                    updated-at MjAyNC0wNS0wNlQwNzowODowOVo=";
        let expected = Metadata {
            name: "päck".to_owned(),
            parent: Some(12),
            no_torrent: true,
            overwrite: false,
            updated: Some(1_714_979_289),
        };
        assert_eq!(Metadata::parse(text).unwrap(), expected);
        assert_eq!(Metadata::parse("filename YQ==").unwrap().name, "a");
        for bad in ["name ***", "parent_id YQ==", "updated-at YQ==", "name /w=="] {
            assert!(Metadata::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn torrents_are_told_by_their_content() {
        let check = |bytes: &[u8], expected| {
            let blob = Blobs::memory().create().unwrap();
            blob.append(bytes).unwrap();
            assert_eq!(is_torrent(&blob), expected);
        };
        check(b"d8:announce3:url4:infod4:name1:aee", true);
        check(b"d8:announce3:urle", false);
        check(b"dear 4:info", false);
        check(b"", false);
    }
}
