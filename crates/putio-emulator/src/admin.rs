//! The admin side channel: what tests in other languages and people do to a running emulator.
//!
//! Plain HTTP on a port of its own, JSON in both directions. `GET /` lists what there is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::call::json_response;
use crate::error::Error;
use crate::faults::{FaultRule, is_match, storm};
use crate::options::{AccountOptions, Profile, RateLimit};
use crate::shared::Shared;

/// Most bytes of a file that is handed over.
const CONTENT_BYTES_MAX: usize = 1 << 30;

/// What there is, for people.
const HELP: &str = "\
GET    /                          this text
POST   /reset                     files, uploads, codes, limits, faults and the log are gone
GET    /log                       all requests
DELETE /log                       forget them
GET    /violations                requests that came before an advertised reset
POST   /assert                    {\"allow\": [{\"method\": \"GET\", \"path\": \"/v2/*\"}], \"at_most\": 9}
                                  409 with the unexpected requests, if there are any
GET    /faults                    the rules
PUT    /faults                    [rule, ...] in their place
POST   /storm                     {\"probability\": 0.3, \"seed\": 1} in their place
PUT    /speed                     {\"latency_ms\": 100, \"upload\": 25000000, \"download\": null}
PUT    /profile                   the switches; what is left out gets its default
PUT    /limits                    [{\"group\": \"*\", \"requests\": 10, \"window_seconds\": 1}, ...]
POST   /clock                     {\"advance_seconds\": 60} or {\"skew_seconds\": -5}
POST   /accounts                  {\"name\": \"a\", \"token\": \"t\", \"quota_bytes\": 1000}
GET    /accounts/NAME/files       the tree
GET    /accounts/NAME/trash       its trash
GET    /accounts/NAME/uploads     uploads that are not finished
PUT    /accounts/NAME/quota       {\"bytes\": 1000}
PUT    /accounts/NAME/deletion    {\"at\": \"2030-01-31T00:00:00\"}: the plan has ended; null: it goes on
PUT    /accounts/NAME/content/PATH  a file of these bytes, with the folders above it
GET    /accounts/NAME/content/PATH  the bytes of a file
PUT    /accounts/NAME/folders/PATH  a folder, with those above it
POST   /files/ID/corrupt          {\"offset\": 10}: one byte changes
POST   /files/ID/lose             its bytes are lost: 410
POST   /files/ID/remove           it is gone
POST   /files/ID/duplicate        a second row of the same name
POST   /tokens/revoke             {\"token\": \"t\"}
GET    /codes                     device codes that wait
POST   /codes/CODE/approve        {\"account\": \"a\"}
POST   /connections/reset         every open connection is reset
PUT    /snapshots/NAME            remember all files
POST   /snapshots/NAME/restore    all files as they were then
";

type App = State<Arc<Shared>>;

/// An error, as the side channel shows it.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_response(self.0, &json!({ "error": self.1 }))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::NoAccount(_)
            | Error::NoFile(_)
            | Error::NoCode
            | Error::NoToken
            | Error::NoSnapshot(_) => StatusCode::NOT_FOUND,
            Error::Options(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

type Answer = Result<Json<Value>, Refusal>;

fn shown(value: impl serde::Serialize) -> Answer {
    let value = serde_json::to_value(value)
        .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(value))
}

fn done() -> Answer {
    Ok(Json(json!({})))
}

/// Serves the side channel until it is dropped.
pub(crate) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let service = TowerToHyperService::new(router(shared));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A connection that ends badly is the client's affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(async || HELP))
        .route("/reset", post(reset))
        .route("/log", get(log).delete(clear_log))
        .route("/violations", get(violations))
        .route("/assert", post(assert))
        .route("/faults", get(faults).put(set_faults))
        .route("/storm", post(set_storm))
        .route("/speed", put(set_speed))
        .route("/profile", put(set_profile))
        .route("/limits", put(set_limits))
        .route("/clock", post(clock))
        .route("/accounts", post(add_account))
        .route("/accounts/{name}/files", get(files))
        .route("/accounts/{name}/trash", get(trash))
        .route("/accounts/{name}/uploads", get(uploads))
        .route("/accounts/{name}/quota", put(quota))
        .route("/accounts/{name}/deletion", put(deletion))
        .route("/accounts/{name}/content/{*path}", get(content).put(set_content))
        .route("/accounts/{name}/folders/{*path}", put(set_folder))
        .route("/files/{id}/{action}", post(harm))
        .route("/tokens/revoke", post(revoke))
        .route("/codes", get(codes))
        .route("/codes/{code}/approve", post(approve))
        .route("/connections/reset", post(reset_connections))
        .route("/snapshots/{name}", put(take_snapshot))
        .route("/snapshots/{name}/restore", post(restore_snapshot))
        .fallback(async |uri: Uri| Refusal(StatusCode::NOT_FOUND, format!("no such path: {uri}")))
        .with_state(shared)
}

async fn reset(State(shared): App) -> Answer {
    shared.reset();
    done()
}

async fn log(State(shared): App) -> Answer {
    shown(shared.log.entries())
}

async fn clear_log(State(shared): App) -> Answer {
    shared.log.clear();
    done()
}

async fn violations(State(shared): App) -> Answer {
    shown(shared.log.violations())
}

/// Which requests a test expected.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    #[serde(default)]
    allow: Option<Vec<Allowed>>,
    #[serde(default)]
    at_most: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

async fn assert(State(shared): App, Json(expected): Json<Expectation>) -> Response {
    let entries = shared.log.entries();
    let is_allowed = |method: &str, path: &str| {
        expected.allow.as_ref().is_none_or(|allowed| {
            allowed.iter().any(|one| {
                one.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                    && one.path.as_ref().is_none_or(|pattern| is_match(pattern, path))
            })
        })
    };
    let unexpected: Vec<_> =
        entries.iter().filter(|entry| !is_allowed(&entry.method, &entry.path)).collect();
    let too_many = expected.at_most.is_some_and(|most| entries.len() > most);
    let status = match unexpected.is_empty() && !too_many {
        true => StatusCode::OK,
        false => StatusCode::CONFLICT,
    };
    let body = json!({ "requests": entries.len(), "unexpected": unexpected });
    json_response(status, &body)
}

async fn faults(State(shared): App) -> Answer {
    shown(shared.faults.rules())
}

async fn set_faults(State(shared): App, Json(rules): Json<Vec<FaultRule>>) -> Answer {
    shared.faults.set(rules);
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Storm {
    probability: f64,
    #[serde(default)]
    seed: u64,
}

async fn set_storm(State(shared): App, Json(wanted): Json<Storm>) -> Answer {
    shared.faults.set(storm(wanted.probability, wanted.seed));
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Speed {
    #[serde(default)]
    latency_ms: u64,
    #[serde(default)]
    upload: Option<u64>,
    #[serde(default)]
    download: Option<u64>,
}

async fn set_speed(State(shared): App, Json(speed): Json<Speed>) -> Answer {
    shared.set_latency(Duration::from_millis(speed.latency_ms));
    shared.upload_line.set(speed.upload);
    shared.download_line.set(speed.download);
    done()
}

async fn set_profile(State(shared): App, Json(profile): Json<Profile>) -> Answer {
    shared.set_profile(profile);
    done()
}

async fn set_limits(State(shared): App, Json(limits): Json<Vec<RateLimit>>) -> Answer {
    shared.limits.set(limits);
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    #[serde(default)]
    advance_seconds: u64,
    #[serde(default)]
    skew_seconds: Option<i64>,
}

async fn clock(State(shared): App, Json(change): Json<ClockChange>) -> Answer {
    shared.clock.advance(Duration::from_secs(change.advance_seconds));
    if let Some(seconds) = change.skew_seconds {
        shared.clock.set_skew(seconds);
    }
    done()
}

async fn add_account(State(shared): App, Json(options): Json<AccountOptions>) -> Answer {
    shared.state().add_account(&options, &shared.profile())?;
    done()
}

async fn files(State(shared): App, Path(name): Path<String>) -> Answer {
    shown(shared.files(&name)?)
}

async fn trash(State(shared): App, Path(name): Path<String>) -> Answer {
    shown(shared.trash(&name)?)
}

async fn uploads(State(shared): App, Path(name): Path<String>) -> Answer {
    shown(shared.uploads(&name)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    bytes: u64,
}

async fn quota(State(shared): App, Path(name): Path<String>, Json(quota): Json<Quota>) -> Answer {
    shared.set_quota(&name, quota.bytes)?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deletion {
    at: Option<String>,
}

async fn deletion(
    State(shared): App,
    Path(name): Path<String>,
    Json(deletion): Json<Deletion>,
) -> Answer {
    shared.set_deletion(&name, deletion.at.as_deref())?;
    done()
}

async fn content(
    State(shared): App,
    Path((name, path)): Path<(String, String)>,
) -> Result<Vec<u8>, Refusal> {
    Ok(shared.read_file(&name, &path)?)
}

async fn set_content(
    State(shared): App,
    Path((name, path)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let bytes = axum::body::to_bytes(request.into_body(), CONTENT_BYTES_MAX)
        .await
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    shown(json!({ "id": shared.seed(&name, &path, Some(&bytes))? }))
}

async fn set_folder(State(shared): App, Path((name, path)): Path<(String, String)>) -> Answer {
    shown(json!({ "id": shared.seed(&name, &path, None)? }))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Harm {
    #[serde(default)]
    offset: u64,
}

async fn harm(
    State(shared): App,
    Path((id, action)): Path<(i64, String)>,
    harm: Option<Json<Harm>>,
) -> Answer {
    match action.as_str() {
        "corrupt" => {
            let Json(harm) = harm.unwrap_or_default();
            shared.corrupt_file(id, harm.offset)?;
        }
        "lose" => shared.lose_file(id)?,
        "remove" => shared.remove_file(id)?,
        "duplicate" => return shown(json!({ "id": shared.duplicate_file(id)? })),
        _ => return Err(Refusal(StatusCode::NOT_FOUND, format!("no such action: {action}"))),
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    token: String,
}

async fn revoke(State(shared): App, Json(revoked): Json<Revoked>) -> Answer {
    shared.revoke_token(&revoked.token)?;
    done()
}

async fn codes(State(shared): App) -> Answer {
    let now = shared.clock.now();
    let state = shared.state();
    let waiting = state.codes.iter().filter(|(_, code)| code.expires > now);
    shown(waiting.map(|(word, _)| word).collect::<Vec<_>>())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approver {
    account: String,
}

async fn approve(
    State(shared): App,
    Path(code): Path<String>,
    Json(approver): Json<Approver>,
) -> Answer {
    shared.approve_code(&code, &approver.account)?;
    done()
}

async fn reset_connections(State(shared): App) -> Answer {
    shared.reset_connections();
    done()
}

async fn take_snapshot(State(shared): App, Path(name): Path<String>) -> Answer {
    shared.state().take_snapshot(&name);
    done()
}

async fn restore_snapshot(State(shared): App, Path(name): Path<String>) -> Answer {
    shared.restore_snapshot(&name)?;
    done()
}
