//! One request from its headers to its answer: whose it is, which limits and faults it meets, the
//! handler, and the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use tokio::sync::Mutex as AsyncMutex;
use tower::ServiceExt as _;

use crate::body::{Cut, Intake, Outgoing, Treatment};
use crate::call::{Call, CallInner, Failure, Identity, Params, add_header, empty};
use crate::connection::Control;
use crate::faults::{ErrorBody, Facts, Fault, Point, Service};
use crate::limits::seconds_up;
use crate::log::{Arrival, Violation, without_secrets};
use crate::shared::Shared;

/// Most bytes of an answer that a fault replaces.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The services, each with its own paths.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) api: Router,
    pub(crate) upload: Router,
    pub(crate) storage: Router,
    pub(crate) app: Router,
    pub(crate) socket: Router,
}

/// What is known of the connection that a request came by.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) control: Arc<Control>,
    pub(crate) is_tls: bool,
}

/// What becomes of a request.
enum Outcome {
    Answer(Response<Body>, Treatment),
    /// No answer, ever: the connection is ending.
    Nothing,
    /// No answer, and the connection stays open, perhaps for a time.
    Hang(Option<Duration>),
}

/// Serves one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    services: Services,
    source: Source,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let (parts, body) = request.into_parts();
    let host = host_of(&parts.uri, &parts.headers);
    let path = parts.uri.path().to_owned();
    let service = service_of(&host, parts.method.as_str(), &path);
    let query = parts.uri.query().unwrap_or_default();
    let token = token_of(&parts.headers, query);
    let (identity, account) = identify(&shared, service, token.as_deref());
    let group = group_of(service, parts.method.as_str(), &path);
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let facts = Facts {
        method: parts.method.to_string(),
        path: path.clone(),
        host: host.clone(),
        service,
        account: account.clone(),
        has_range: parts.headers.contains_key(header::RANGE),
        body_bytes: match header("content-length").map(str::parse) {
            Some(Ok(length)) => Some(length),
            _ if parts.headers.contains_key(header::TRANSFER_ENCODING) => None,
            _ => Some(0),
        },
    };
    let record = shared.log.add(Arrival {
        method: facts.method.clone(),
        host,
        service,
        path,
        query: without_secrets(query),
        group: group.to_owned(),
        account: account.clone(),
        offset: header("upload-offset").and_then(|value| value.parse().ok()).or_else(|| {
            header("range")
                .and_then(|value| value.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
        }),
        user_agent: header("user-agent").map(str::to_owned),
    });

    // Limits are counted for each token; storage knows its links' accounts alone.
    let limited = match service {
        Service::Storage => format!("storage of {}", account.as_deref().unwrap_or("nobody")),
        _ => token.clone().unwrap_or_default(),
    };
    let now = shared.clock.now();
    if let Some(early) = shared.limits.early(&limited, now) {
        shared.log.add_violation(Violation {
            number: record.number(),
            at: record.at(),
            method: facts.method.clone(),
            path: facts.path.clone(),
            group: group.to_owned(),
            limited_group: early.limited_group,
            advertised_by: early.advertised_by,
            early_by: early.by,
        });
    }
    let verdict = shared.limits.count(&limited, group, now);
    let fault = match verdict.refused_until {
        None => shared.faults.decide(&facts, Point::Arrival),
        Some(_) => None,
    };
    if let Some(fault) = &fault {
        record.set_fault(fault.name());
    }

    let mut intake =
        Intake::new(body, Arc::clone(&shared), Arc::clone(&source.control), Arc::clone(&record));
    if let Some(Fault::CutRequest { after_bytes, reset }) = fault {
        intake.set_cut(Cut { after_bytes, reset });
    }
    let expects_leave = parts.headers.contains_key(header::EXPECT);
    let call = Call::new(CallInner {
        shared: Arc::clone(&shared),
        control: Arc::clone(&source.control),
        record: Arc::clone(&record),
        facts,
        is_tls: source.is_tls,
        token,
        identity,
        fault,
    });

    // What has begun is done, even if the client goes away: only its answer is lost.
    let work = tokio::spawn({
        let call = call.clone();
        let limited = limited.clone();
        async move {
            let shared = &call.shared;
            tokio::time::sleep(shared.latency()).await;
            let intake = Arc::new(AsyncMutex::new(intake));
            let outcome = match verdict.refused_until {
                Some(until) => {
                    let failure = rate_failure("The rate limit was exceeded")
                        .header("x-ratelimit-reset", until)
                        .header("retry-after", until.saturating_sub(shared.clock.now() / 1000));
                    Outcome::Answer(failure.into_response(), Treatment::default())
                }
                None => {
                    let request = Request::from_parts(parts, body_of(&intake));
                    run(&call, &limited, &services, request).await
                }
            };
            // A client that still sends would take the end of the connection for the answer.
            let mut intake = intake.lock().await;
            if matches!(outcome, Outcome::Answer(..)) && (intake.is_begun() || !expects_leave) {
                intake.drain().await;
            }
            outcome
        }
    });
    let outcome = match work.await {
        Ok(outcome) => outcome,
        Err(error) => {
            let failure = Failure::internal(&format!("the request's task failed: {error}"));
            Outcome::Answer(failure.into_response(), Treatment::default())
        }
    };
    match outcome {
        Outcome::Answer(mut response, treatment) => {
            for (name, value) in verdict.headers {
                add_header(&mut response, name, &value);
            }
            let advertised = advertised_reset(&shared, &call, &limited, group, &response);
            record.answered(response.status().as_u16(), advertised);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                source.control.hand_over();
            }
            if treatment.is_length_hidden {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            Ok(response.map(|body| {
                Outgoing::new(body, shared, Arc::clone(&source.control), record, treatment)
            }))
        }
        Outcome::Nothing => {
            record.ended();
            if shared.is_verbose {
                crate::log::print(&record.entry());
            }
            std::future::pending().await
        }
        Outcome::Hang(time) => {
            if shared.is_verbose {
                crate::log::print(&record.entry());
            }
            match time {
                Some(time) => {
                    tokio::time::sleep(time).await;
                    record.ended();
                    source.control.close();
                }
                None => record.ended(),
            }
            std::future::pending().await
        }
    }
}

/// Runs the handler, with the fault around it.
async fn run(call: &Call, limited: &str, services: &Services, request: Request<Body>) -> Outcome {
    let shared = &call.shared;
    let answer = |response| Outcome::Answer(response, Treatment::default());
    if let Some(message) = &shared.state().failure {
        return answer(Failure::internal(message).into_response());
    }
    match &call.fault {
        Some(Fault::RateLimited { reset_in_seconds, retry_after_seconds, captcha, holds }) => {
            let mut failure = rate_failure("Too many requests");
            if let Some(seconds) = reset_in_seconds {
                let until = shared.clock.now().saturating_add((seconds * 1000.0) as i64);
                if *holds {
                    shared.limits.hold(limited, seconds_up(until) * 1000);
                }
                failure = failure
                    .header("x-ratelimit-limit", 10)
                    .header("x-ratelimit-remaining", 0)
                    .header("x-ratelimit-reset", seconds_up(until));
            }
            if let Some(seconds) = retry_after_seconds {
                failure = failure.header("retry-after", seconds);
            }
            if *captcha {
                failure = failure
                    .header("x-ratelimit-action", "captcha-needed")
                    .header("x-ratelimit-id", call.record.number());
            }
            return answer(failure.into_response());
        }
        Some(Fault::Status { status, body, error_type, executed: false }) => {
            return answer(made_up(*status, *body, error_type.as_deref()));
        }
        Some(Fault::ResetBefore) => {
            call.control.reset();
            return Outcome::Nothing;
        }
        Some(Fault::Close { executed: false }) => {
            call.control.close();
            return Outcome::Nothing;
        }
        Some(Fault::Hang { executed: false, milliseconds }) => {
            return Outcome::Hang(milliseconds.map(Duration::from_millis));
        }
        Some(Fault::Slow { milliseconds }) => {
            tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
        }
        Some(Fault::InvalidScope) => {
            return answer(Failure::unauthorized("invalid_scope").into_response());
        }
        Some(Fault::PlanInactive) => {
            return answer(Failure::payment_required().into_response());
        }
        Some(Fault::RevokeToken) => {
            if let Some(token) = &call.token {
                shared.state().revoke_token(token);
            }
            return answer(Failure::unauthorized("invalid_grant").into_response());
        }
        Some(Fault::ClockSkew { seconds }) => shared.clock.set_skew(*seconds),
        Some(Fault::ChecksumMissing { form, seconds }) if *seconds > 0.0 => {
            if let Some(identity) = &call.identity {
                let until = shared.clock.now().saturating_add((seconds * 1000.0) as i64);
                shared.state().accounts[identity.account].checksums_missing = Some((until, *form));
            }
        }
        _ => {}
    }

    let service = match call.facts.service {
        Service::Api => &services.api,
        Service::Upload => &services.upload,
        Service::Storage => &services.storage,
        Service::App => &services.app,
        Service::Socket => &services.socket,
    };
    let mut request = request;
    request.extensions_mut().insert(call.clone());
    let Ok(response) = service.clone().oneshot(request).await;
    after(call, response).await
}

/// What a fault does to an answer.
async fn after(call: &Call, response: Response<Body>) -> Outcome {
    let mut treatment = Treatment::default();
    let is_success = response.status().is_success();
    match &call.fault {
        Some(Fault::ResetAfter) => {
            call.control.reset();
            return Outcome::Nothing;
        }
        Some(Fault::Close { executed: true }) => {
            call.control.close();
            return Outcome::Nothing;
        }
        Some(Fault::Hang { executed: true, milliseconds }) => {
            return Outcome::Hang(milliseconds.map(Duration::from_millis));
        }
        Some(Fault::Status { status, body, error_type, executed: true }) => {
            return Outcome::Answer(made_up(*status, *body, error_type.as_deref()), treatment);
        }
        Some(Fault::InvalidJson) => {
            // Long, because a client is known to fall over short ones.
            let text = format!("{{\"status\": \"OK\", oops {}", "not json ".repeat(40));
            return Outcome::Answer(replaced(response, text.into()), treatment);
        }
        Some(Fault::TruncatedJson) => {
            let (head, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
            let half = bytes.slice(..bytes.len() / 2);
            let response = Response::from_parts(head, Body::empty());
            return Outcome::Answer(replaced(response, Body::from(half)), treatment);
        }
        Some(Fault::ContentType { content_type }) => {
            let mut response = response;
            add_header(&mut response, "content-type", content_type);
            return Outcome::Answer(response, treatment);
        }
        Some(Fault::Trickle { bytes_per_second }) => {
            treatment.bytes_per_second = Some((*bytes_per_second).max(1));
        }
        Some(Fault::CutResponse { after_bytes, reset }) => {
            treatment.cut = Some(Cut { after_bytes: *after_bytes, reset: *reset });
        }
        Some(Fault::CutDownload { after_bytes, chunked, reset }) if is_success => {
            treatment.cut = Some(Cut { after_bytes: *after_bytes, reset: *reset });
            treatment.is_length_hidden = *chunked;
        }
        Some(Fault::DeletedDuringDownload { after_bytes }) if is_success => {
            treatment.cut = Some(Cut { after_bytes: *after_bytes, reset: false });
        }
        Some(Fault::FlipBit { offset }) if is_success => treatment.flip = Some(*offset),
        _ => {}
    }
    Outcome::Answer(response, treatment)
}

/// The same head with another body, and the length of that.
fn replaced(response: Response<Body>, body: Body) -> Response<Body> {
    let (mut head, _) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, body)
}

fn rate_failure(message: &str) -> Failure {
    Failure::new(429, "RATE_LIMIT_ERROR", message)
}

fn made_up(status: u16, body: ErrorBody, error_type: Option<&str>) -> Response<Body> {
    let error_type = error_type.unwrap_or("InternalServerError");
    let failure = Failure::new(status, error_type, "Something went wrong on our side");
    match body {
        ErrorBody::Json => failure.into_response(),
        ErrorBody::Html => {
            let page = format!(
                "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n\
                 <center><h1>{status}</h1></center>\r\n<hr><center>gateway</center>\r\n\
                 </body>\r\n</html>\r\n"
            );
            let mut response = Response::new(Body::from(page));
            *response.status_mut() =
                StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            add_header(&mut response, "content-type", "text/html");
            response
        }
        ErrorBody::Empty => empty(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)),
    }
}

/// If an answer refuses and tells until when, that is remembered: who comes sooner is a violation.
fn advertised_reset(
    shared: &Shared,
    call: &Call,
    limited: &str,
    group: &str,
    response: &Response<Body>,
) -> Option<u64> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let header =
        |name: &str| -> Option<i64> { response.headers().get(name)?.to_str().ok()?.parse().ok() };
    let now = shared.clock.now();
    let reset = header("x-ratelimit-reset").map(|seconds| seconds.saturating_mul(1000));
    let after =
        header("retry-after").map(|seconds| now.saturating_add(seconds.saturating_mul(1000)));
    let until = reset.or(after)?;
    shared.limits.advertise(limited, group, until, call.record.number(), now);
    u64::try_from(seconds_up(until)).ok()
}

/// A body that handlers read; what they leave stays in the intake.
fn body_of(intake: &Arc<AsyncMutex<Intake>>) -> Body {
    let intake = Arc::clone(intake);
    Body::from_stream(futures_util::stream::unfold(intake, |intake| async move {
        let next = intake.lock().await.next().await?;
        Some((next, intake))
    }))
}

/// The host without its port, in lower case.
fn host_of(uri: &Uri, headers: &HeaderMap) -> String {
    let text = match uri.host() {
        Some(host) => host,
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => text,
    };
    name.to_ascii_lowercase()
}

/// Whether the emulator is this host.
pub(crate) fn is_own_host(host: &str) -> bool {
    host == "put.io" || host.strip_suffix(".put.io").is_some_and(|name| !name.is_empty())
}

/// The service that a request is for: by its host, or by its path where all share one origin.
fn service_of(host: &str, method: &str, path: &str) -> Service {
    if is_own_host(host) {
        return match host.strip_suffix(".put.io").unwrap_or_default() {
            "api" => Service::Api,
            "upload" => Service::Upload,
            "" | "app" | "www" => Service::App,
            "socket" => Service::Socket,
            _ => Service::Storage,
        };
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "files" => Service::Upload,
        "download" => Service::Storage,
        "socket" => Service::Socket,
        "authenticate" | "link" | "captcha" => Service::App,
        "" if method == "POST" => Service::Upload,
        "" => Service::App,
        _ if path == "/v2/files/upload" => Service::Upload,
        _ => Service::Api,
    }
}

/// The token of a request, known or not.
fn token_of(headers: &HeaderMap, query: &str) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let from_header = header.and_then(|value| value.split_once(' ')).and_then(|(scheme, token)| {
        let is_token =
            scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        is_token.then(|| token.trim().to_owned())
    });
    from_header.or_else(|| Params::of_query(query).text("oauth_token").map(str::to_owned))
}

/// Whose token it is, and the name of the account that a request is about.
fn identify(
    shared: &Shared,
    service: Service,
    token: Option<&str>,
) -> (Option<Identity>, Option<String>) {
    let state = shared.state();
    let Some(token) = token else { return (None, None) };
    if service == Service::Storage {
        let link = state.links.get(token);
        return (None, link.map(|link| state.accounts[link.account].name.clone()));
    }
    let Some(known) = state.tokens.get(token) else { return (None, None) };
    let identity =
        Identity { account: known.account, scope: known.scope.clone(), app: known.app.clone() };
    (Some(identity), Some(state.accounts[known.account].name.clone()))
}

/// The group of endpoints that limits are counted for.
fn group_of(service: Service, method: &str, path: &str) -> &'static str {
    match service {
        Service::Upload => return "upload",
        Service::Storage => return "download",
        Service::App | Service::Socket => return "other",
        Service::Api => {}
    }
    let mut parts = path.strip_prefix("/v2/").unwrap_or_default().split('/');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("files", "list" | "search") => "list",
        ("files", "delete") => "delete",
        ("files", _) if method == "GET" || method == "HEAD" => "read",
        ("files", _) => "write",
        ("trash", _) => "trash",
        ("account" | "config", _) => "account",
        ("oauth" | "oauth2", _) => "oauth",
        _ => "other",
    }
}

/// Body of an error that no handler made, such as 405.
pub(crate) async fn no_such_path() -> Failure {
    Failure::not_found()
}

/// What the API says to a method that a path does not have.
pub(crate) async fn no_such_method() -> Failure {
    Failure::new(405, "MethodNotAllowed", "The method is not allowed for the requested URL.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_follows_from_the_host_or_else_from_the_path() {
        for (host, method, path, expected) in [
            ("api.put.io", "GET", "/v2/files/list", Service::Api),
            ("api.put.io", "POST", "/v2/files/upload", Service::Api),
            ("upload.put.io", "POST", "/", Service::Upload),
            ("s73-cdn77.put.io", "GET", "/download/1", Service::Storage),
            ("put.io", "GET", "/link", Service::App),
            ("127.0.0.1", "PATCH", "/files/a", Service::Upload),
            ("127.0.0.1", "POST", "/v2/files/upload", Service::Upload),
            ("127.0.0.1", "GET", "/v2/files/1/url", Service::Api),
            ("127.0.0.1", "GET", "/download/1", Service::Storage),
            ("127.0.0.1", "POST", "/", Service::Upload),
            ("localhost", "GET", "/authenticate", Service::App),
        ] {
            assert_eq!(service_of(host, method, path), expected, "{host} {method} {path}");
        }
        assert!(is_own_host("put.io") && is_own_host("la1.put.io"));
        assert!(
            !is_own_host("input.io") && !is_own_host("put.io.example") && !is_own_host(".put.io")
        );
    }

    #[test]
    fn tokens_are_found_in_headers_of_any_case_and_in_queries() {
        let check = |authorization: Option<&str>, query: &str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(token_of(&headers, query).as_deref(), expected);
        };
        check(Some("Bearer a"), "", Some("a"));
        check(Some("token a"), "oauth_token=b", Some("a"));
        check(Some("TOKEN a"), "", Some("a"));
        check(Some("Basic a"), "oauth_token=b%2B", Some("b+"));
        check(None, "x=1", None);
    }

    #[test]
    fn hosts_lose_their_port() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "API.put.io:443".parse().unwrap());
        assert_eq!(host_of(&Uri::from_static("/v2"), &headers), "api.put.io");
        assert_eq!(host_of(&Uri::from_static("http://a.put.io:80/"), &headers), "a.put.io");
    }
}
