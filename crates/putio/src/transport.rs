//! Sends requests and reads answers: the one place where bytes go to the network.
//!
//! Every request passes [`Transport::admit`] right before it is sent: a connection is free, the
//! account's rate allows it, and no gate is shut. Every answer's headers are heeded before its body
//! is read, so that the other tasks stop at once.
//!
//! Invariants: the token goes to the API's and the upload host's origin only; redirects are not
//! followed; bodies are read up to a limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Request, Response, Url, redirect};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use url::form_urlencoded;

use crate::address::{Base, is_safe};
use crate::bandwidth::Bandwidth;
use crate::clock;
use crate::counters::Counters;
use crate::error::{Error, ErrorKind};
use crate::failure::{Failure, Side, judge, read_envelope};
use crate::options::{ClientOptions, Notice, WaitReason};
use crate::rate::{Advice, Barred, Gate, Pace};
use crate::retry::Attempts;
use crate::token::Token;

/// The largest answer other than a page of a listing, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The largest page of a listing, in bytes: a thousand rows are about one million.
pub(crate) const PAGE_BYTES_MAX: usize = 64 << 20;
/// The largest answer that is an error, in bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Gates of storage hosts that are remembered.
const STORAGE_GATES_MAX: usize = 64;

/// Who counts a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The account: the API and the upload host.
    Account,
    /// A storage host, by its origin.
    Storage(String),
}

/// A request of the API.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    name: &'static str,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    form: Vec<(&'static str, String)>,
    answer_bytes_max: usize,
    has_token: bool,
}

impl Call {
    fn new(name: &'static str, method: Method, path: impl Into<String>) -> Self {
        Self {
            name,
            method,
            path: path.into(),
            query: Vec::new(),
            form: Vec::new(),
            answer_bytes_max: ANSWER_BYTES_MAX,
            has_token: true,
        }
    }

    /// A request that changes nothing. `path` is below `/v2`.
    pub(crate) fn get(name: &'static str, path: impl Into<String>) -> Self {
        Self::new(name, Method::GET, path)
    }

    /// A request whose parameters are a form in its body.
    pub(crate) fn post(name: &'static str, path: impl Into<String>) -> Self {
        Self::new(name, Method::POST, path)
    }

    /// Adds a parameter to the address.
    pub(crate) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Adds a parameter to the form.
    pub(crate) fn form(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.form.push((key, value.into()));
        self
    }

    /// Allows an answer as large as a page of a listing.
    pub(crate) const fn paged(mut self) -> Self {
        self.answer_bytes_max = PAGE_BYTES_MAX;
        self
    }

    /// Sends no token.
    pub(crate) const fn without_token(mut self) -> Self {
        self.has_token = false;
        self
    }
}

/// A connection in use.
pub(crate) struct Admission<'a> {
    _permit: SemaphorePermit<'a>,
}

/// See the module.
pub(crate) struct Transport {
    http: reqwest::Client,
    api: Base,
    upload: Base,
    authorization: Option<HeaderValue>,
    options: ClientOptions,
    limits: Arc<Limits>,
    connections: Semaphore,
    counters: Counters,
}

/// What the clients of one account share.
pub(crate) struct Limits {
    pace: Mutex<Pace>,
    storage_gates: Mutex<HashMap<String, Gate>>,
    pub(crate) upload_bandwidth: Bandwidth,
    pub(crate) download_bandwidth: Bandwidth,
    /// Held by whoever deletes or uses the trash: the service refuses two at a time.
    pub(crate) trash_turn: tokio::sync::Mutex<()>,
}

impl Limits {
    fn new(options: &ClientOptions) -> Self {
        Self {
            pace: Mutex::new(Pace::new(options.requests_per_second, Instant::now())),
            storage_gates: Mutex::default(),
            upload_bandwidth: Bandwidth::new(options.upload_bytes_per_second),
            download_bandwidth: Bandwidth::new(options.download_bytes_per_second),
            trash_turn: tokio::sync::Mutex::default(),
        }
    }
}

impl Transport {
    pub(crate) fn new(token: Option<&Token>, options: ClientOptions) -> Result<Self, Error> {
        let authorization = token.map(|token| bearer(token.expose())).transpose()?;
        let limits = Arc::new(Limits::new(&options));
        Self::within(limits, authorization, options)
    }

    /// Another one for the same token and limits.
    pub(crate) fn beside(&self, options: ClientOptions) -> Result<Self, Error> {
        Self::within(Arc::clone(&self.limits), self.authorization.clone(), options)
    }

    fn within(
        limits: Arc<Limits>,
        authorization: Option<HeaderValue>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let api = Base::parse(&options.api_url)?;
        let upload = Base::parse(&options.upload_url)?;
        let is_local = api.is_loopback() && upload.is_loopback();
        let http = match build(&options, is_local) {
            // A machine without any certificates can still speak to itself.
            Err(_) if is_local && options.ca_certificates.is_empty() => {
                prepare(&options, is_local).tls_certs_only([]).build().map_err(cannot_build)
            }
            built => built,
        }?;
        Ok(Self {
            http,
            api,
            upload,
            authorization,
            limits,
            connections: Semaphore::new(options.connections.clamp(1, 1024)),
            counters: Counters::default(),
            options,
        })
    }

    pub(crate) const fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(crate) const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// An address of the API; `path` is below `/v2`.
    pub(crate) fn api_url(&self, path: &str) -> Url {
        self.api.join(&format!("/v2{path}"))
    }

    /// Where uploads begin.
    pub(crate) fn upload_base(&self) -> &Base {
        &self.upload
    }

    /// Whether the token may be sent there.
    pub(crate) fn is_trusted(&self, url: &Url) -> bool {
        is_safe(url) && (self.api.is_origin_of(url) || self.upload.is_origin_of(url))
    }

    /// Whether bytes may be fetched from there.
    pub(crate) fn is_usable(&self, url: &Url) -> bool {
        is_safe(url) && (url.scheme() == "https" || self.api.is_loopback())
    }

    /// Who counts requests to this address.
    pub(crate) fn lane(&self, url: &Url) -> Lane {
        if self.api.is_origin_of(url) || self.upload.is_origin_of(url) {
            Lane::Account
        } else {
            Lane::Storage(url.origin().ascii_serialization())
        }
    }

    /// Sends a call until it succeeds, cannot succeed, or patience ends. For calls that may be
    /// repeated without harm.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let mut attempts = Attempts::new(self, call.name);
        loop {
            match self.send_once(call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// Sends a call once.
    pub(crate) async fn send_once<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Failure> {
        let mut url = self.api_url(&call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = Request::new(call.method.clone(), url);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        if call.method == Method::POST {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(&call.form);
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(CONTENT_TYPE, form_type);
            *request.body_mut() = Some(Body::from(form.finish()));
        }
        if call.has_token {
            self.authorize(&mut request);
        }
        let admission = self.admit(call.name, &Lane::Account, true).await?;
        let (response, _) = self.start(call.name, &Lane::Account, request).await?;
        let response = self.check(call.name, Side::Api, response).await?;
        let body = self.read_body(call.name, response, call.answer_bytes_max).await?;
        drop(admission);
        read_json(call.name, &body)
    }

    /// Adds the token, if the address may see it.
    pub(crate) fn authorize(&self, request: &mut Request) {
        if let Some(authorization) = &self.authorization
            && self.is_trusted(request.url())
        {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
    }

    /// Waits until a request may be sent. It must be sent at once, and the admission kept until its
    /// answer is read. `is_counted`: it takes one of the account's tokens.
    pub(crate) async fn admit(
        &self,
        call: &'static str,
        lane: &Lane,
        is_counted: bool,
    ) -> Result<Admission<'_>, Failure> {
        loop {
            let at = {
                let now = Instant::now();
                let at = match lane {
                    Lane::Account if is_counted => self.pace().reserve(now),
                    lane => self.opens_at(lane, now).map(|at| at.unwrap_or(now)),
                };
                at.map_err(|barred| barred_failure(call, barred))?
            };
            if at > Instant::now() {
                let _waiting = self.counters.wait();
                sleep_until(at).await;
            }
            let permit = self.connections.acquire().await;
            // The semaphore is never closed.
            let Ok(permit) = permit else {
                let error = Error::new(ErrorKind::Cancelled, call, "the client was closed");
                return Err(Failure::never(error));
            };
            // A gate may have been shut while this request waited.
            let opens = self.opens_at(lane, Instant::now());
            if opens.map_err(|barred| barred_failure(call, barred))?.is_none() {
                return Ok(Admission { _permit: permit });
            }
        }
    }

    fn opens_at(&self, lane: &Lane, now: Instant) -> Result<Option<Instant>, Barred> {
        match lane {
            Lane::Account => self.pace().gate.opens_at(now),
            Lane::Storage(origin) => {
                self.gates().get(origin).map_or(Ok(None), |gate| gate.opens_at(now))
            }
        }
    }

    /// Sends an admitted request and heeds the headers of its answer. The time is when it was sent.
    pub(crate) async fn start(
        &self,
        call: &'static str,
        lane: &Lane,
        request: Request,
    ) -> Result<(Response, Instant), Failure> {
        let sent = Instant::now();
        let limit = self.options.timeouts.connect + self.options.timeouts.header;
        let response = match timeout(limit, self.dispatch(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(network_failure(call, error)),
            Err(_) => return Err(timed_out(call, "no answer")),
        };
        self.heed(lane, &response, sent);
        Ok((response, sent))
    }

    /// Sends a request; neither its answer's headers are heeded nor is there a time-out.
    pub(crate) async fn dispatch(&self, request: Request) -> reqwest::Result<Response> {
        Counters::add(&self.counters.requests, 1);
        self.http.execute(request).await
    }

    /// Shuts gates and adapts the pace as the headers of an answer ask for.
    pub(crate) fn heed(&self, lane: &Lane, response: &Response, sent: Instant) {
        let now = Instant::now();
        let wait_max = self.options.patience.wait_max;
        let advice = Advice::read(response.headers(), clock::local_seconds());
        let is_refused = response.status().as_u16() == 429;
        let mut pace = self.pace();
        let mut gates = self.gates();
        let gate = match lane {
            Lane::Account => &mut pace.gate,
            Lane::Storage(origin) => {
                if gates.len() >= STORAGE_GATES_MAX {
                    gates.retain(|_, gate| !matches!(gate.opens_at(now), Ok(None)));
                }
                gates.entry(origin.clone()).or_default()
            }
        };
        let notice = if is_refused {
            let (wait, is_first) = match lane {
                Lane::Account => pace.refuse(&advice, sent, now, wait_max),
                Lane::Storage(_) => gate.refuse(&advice, sent, now, wait_max),
            };
            is_first.then_some((wait, WaitReason::RateLimited))
        } else {
            let exhausted =
                advice.wait.filter(|wait| advice.remaining == Some(0) && *wait > Duration::ZERO);
            let wait = exhausted.map(|wait| gate.exhaust(wait, now, wait_max));
            match lane {
                Lane::Account => pace.accept(sent),
                Lane::Storage(_) => gate.accept(sent),
            }
            wait.map(|wait| (wait, WaitReason::Exhausted))
        };
        drop(gates);
        drop(pace);
        if let Some((duration, reason)) = notice {
            self.options.observer.notice(&Notice::Waiting { duration, reason });
        }
    }

    /// Passes an answer of success on and judges any other.
    pub(crate) async fn check(
        &self,
        call: &'static str,
        side: Side,
        response: Response,
    ) -> Result<Response, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let advice = Advice::read(response.headers(), clock::local_seconds());
        // What the body says is a bonus: the status stands whether it arrives or not.
        let body = self.read_body(call, response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let envelope = read_envelope(&body);
        if status == 429
            && side != Side::Storage
            && let Some(seconds) = envelope.retry_after()
        {
            let wait_max = self.options.patience.wait_max;
            let wait = Duration::from_secs(seconds);
            self.pace().gate.exhaust(wait, Instant::now(), wait_max);
        }
        let failure = judge(call, side, status, envelope);
        if let Some(url) = advice.captcha.filter(|_| status == 429) {
            let error = Error { kind: ErrorKind::CaptchaNeeded { url }, ..failure.error };
            return Err(Failure::never(error));
        }
        if advice.wait.is_some_and(|wait| status == 429 && wait > self.options.patience.wait_max) {
            let wait = advice.wait.unwrap_or_default();
            let error = barred_failure(call, Barred::TooLong(wait)).error;
            return Err(Failure::never(Error { status: Some(status), ..error }));
        }
        Err(failure)
    }

    /// Reads a whole body of at most `bytes_max` bytes.
    pub(crate) async fn read_body(
        &self,
        call: &'static str,
        mut response: Response,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Failure> {
        let too_large = || {
            let message = "the answer is larger than any answer to this call should be";
            Failure::never(Error::new(ErrorKind::Corrupt, call, message))
        };
        if response.content_length().is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            match timeout(self.options.timeouts.idle, response.chunk()).await {
                Ok(Ok(Some(piece))) if piece.len() > bytes_max - body.len() => {
                    return Err(too_large());
                }
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(network_failure(call, error)),
                Err(_) => return Err(timed_out(call, "the answer stopped in the middle")),
            }
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.limits.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<String, Gate>> {
        self.limits.storage_gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(secret: &str) -> Result<HeaderValue, Error> {
    let value = zeroize::Zeroizing::new(format!("Bearer {secret}"));
    let mut value = HeaderValue::from_str(&value).map_err(|error| {
        Error::new(ErrorKind::Invalid, "token", "the token cannot be sent").with_source(error)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn prepare(options: &ClientOptions, is_local: bool) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(&options.user_agent)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // Each transfer has a connection of its own: one shared connection is slower over long
        // distances, and streams of HTTP/2 were seen to die in the middle of downloads.
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(options.timeouts.connect)
        .pool_max_idle_per_host(options.connections.max(1))
        .pool_idle_timeout(Duration::from_secs(60));
    // A proxy cannot reach this machine's own addresses.
    if is_local { builder.no_proxy() } else { builder }
}

fn build(options: &ClientOptions, is_local: bool) -> Result<reqwest::Client, Error> {
    let mut certificates = Vec::new();
    for bundle in &options.ca_certificates {
        let parsed = reqwest::Certificate::from_pem_bundle(bundle).map_err(|error| {
            let message = "a bundle of certificates cannot be read as PEM";
            Error::new(ErrorKind::Invalid, "certificates", message).with_source(error)
        })?;
        if parsed.is_empty() {
            let message = "a bundle of certificates contains none";
            return Err(Error::new(ErrorKind::Invalid, "certificates", message));
        }
        certificates.extend(parsed);
    }
    prepare(options, is_local).tls_certs_merge(certificates).build().map_err(cannot_build)
}

fn cannot_build(error: reqwest::Error) -> Error {
    let message = format!("the HTTP client cannot be set up: {}", root_cause(&error));
    Error::new(ErrorKind::Invalid, "client", message).with_source(error.without_url())
}

fn barred_failure(call: &'static str, barred: Barred) -> Failure {
    Failure::never(match barred {
        Barred::Captcha(url) => Error::new(ErrorKind::CaptchaNeeded { url }, call, ""),
        Barred::TooLong(wait) => {
            let message = format!("the service allows the next one in {} s", wait.as_secs());
            Error::new(ErrorKind::RateLimited, call, message)
        }
    })
}

/// The failure of a request whose answer did not arrive.
pub(crate) fn network_failure(call: &'static str, error: reqwest::Error) -> Failure {
    // The address of a download carries a credential.
    let error = error.without_url();
    let cause = root_cause(&error);
    let is_connect = error.is_connect();
    let is_builder = error.is_builder() || error.is_request() && cause.contains("invalid header");
    // No patience helps against a certificate that is not trusted.
    let is_certificate = is_connect && cause.contains("certificate");
    let kind = if is_builder { ErrorKind::Invalid } else { ErrorKind::Network };
    let error = Error::new(kind, call, cause).with_source(error);
    if is_builder || is_certificate {
        Failure::never(error)
    } else if is_connect {
        Failure::later(error)
    } else {
        Failure::ambiguous(error)
    }
}

/// The failure of a request whose answer did not arrive in time.
pub(crate) fn timed_out(call: &'static str, message: &str) -> Failure {
    Failure::ambiguous(Error::new(ErrorKind::Network, call, format!("{message} in time")))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Reads an answer; one that cannot be read is a failure of the service.
fn read_json<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T, Failure> {
    // Every envelope says `OK` or `ERROR`; some answers that are no envelope say nothing.
    serde_json::from_slice(body).map_err(|error| {
        let envelope = read_envelope(body);
        if envelope.status.as_deref() == Some("ERROR") {
            let status = envelope.status_code.and_then(|status| u16::try_from(status).ok());
            return judge(call, Side::Api, status.unwrap_or(500), envelope);
        }
        let message = "the answer is not what this call answers";
        Failure::ambiguous(Error::new(ErrorKind::Server, call, message).with_source(error))
    })
}

/// The headers of an answer as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}
