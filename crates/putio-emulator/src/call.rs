//! A request as handlers see it: whose it is, its parameters, and how it is answered.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Multipart, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::connection::Control;
use crate::faults::{Facts, Fault, Service};
use crate::log::Record;
use crate::names::Refused;
use crate::shared::Shared;
use crate::state::AccountIndex;

/// Most bytes of a body that holds parameters.
const PARAMETER_BYTES_MAX: usize = 16 << 20;

/// What a handler answers.
pub(crate) type Reply = Result<Response, Failure>;

/// A request.
#[derive(Clone)]
pub(crate) struct Call(Arc<CallInner>);

/// What is known of a request.
pub(crate) struct CallInner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    pub(crate) record: Arc<Record>,
    pub(crate) facts: Facts,
    /// It came through TLS, as a name of `put.io`.
    pub(crate) is_tls: bool,
    /// Token of its header or query, known or not.
    pub(crate) token: Option<String>,
    /// Whose token it is.
    pub(crate) identity: Option<Identity>,
    pub(crate) fault: Option<Fault>,
}

/// Whose token a request has.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) account: AccountIndex,
    pub(crate) scope: String,
    pub(crate) app: String,
}

impl Deref for Call {
    type Target = CallInner;

    fn deref(&self) -> &CallInner {
        &self.0
    }
}

impl Call {
    pub(crate) fn new(request: CallInner) -> Self {
        Self(Arc::new(request))
    }

    /// The account that the token belongs to.
    pub(crate) fn account(&self) -> Result<AccountIndex, Failure> {
        match &self.identity {
            Some(identity) if identity.scope == "default" => Ok(identity.account),
            Some(_) => Err(Failure::unauthorized("invalid_scope")),
            None if self.facts.service == Service::Upload => {
                Err(Failure::unauthorized("Unauthorized"))
            }
            None => Err(Failure::unauthorized("invalid_grant")),
        }
    }

    /// Unix milliseconds by the service's clock.
    pub(crate) fn now(&self) -> i64 {
        self.shared.clock.now()
    }

    /// Origin of a service's links, as this client reaches it.
    pub(crate) fn origin(&self, service: Service) -> String {
        if !self.is_tls {
            return self.shared.origin.clone();
        }
        let name = match service {
            Service::Api => "api",
            Service::Upload => "upload",
            Service::Storage => "s01",
            Service::App => "app",
            Service::Socket => "socket",
        };
        format!("https://{name}.put.io")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Failure::internal("no call"))
    }
}

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    error_type: String,
    message: String,
    extra: Map<String, Value>,
    /// For sign-in, which has errors of its own.
    error: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
}

impl Failure {
    pub(crate) fn new(status: u16, error_type: &str, message: &str) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            error_type: error_type.to_owned(),
            message: message.to_owned(),
            extra: Map::new(),
            error: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "NotFound", "The requested URL was not found on the server.")
    }

    pub(crate) fn unauthorized(error_type: &str) -> Self {
        Self::new(
            401,
            error_type,
            "The server could not verify that you are authorized to access the URL requested.",
        )
    }

    pub(crate) fn payment_required() -> Self {
        Self::new(402, "BadRequest", "Payment required")
    }

    pub(crate) fn name_exists() -> Self {
        Self::new(400, "NAME_ALREADY_EXIST", "Name already exist")
    }

    /// What the service answers to an upload that it has no room for is not known.
    pub(crate) fn full() -> Self {
        Self::new(403, "NOT_ENOUGH_SPACE", "You do not have enough space left on your disk")
    }

    pub(crate) fn file_lost() -> Self {
        Self::new(410, "FILE_LOST", "This file is lost on our storage")
    }

    pub(crate) fn trash_locked() -> Self {
        Self::new(400, "TRASH_LOCK_TIMEOUT", "Another trash operation is running")
    }

    /// The emulator itself cannot go on.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(500, "EmulatorFailed", message)
    }

    /// The emulator's own storage failed.
    pub(crate) fn io(error: &std::io::Error) -> Self {
        Self::internal(&format!("the emulator's storage failed: {error}"))
    }

    /// An error of a sign-in.
    pub(crate) fn sign_in(error: &'static str, message: &str) -> Self {
        Self { error: Some(error), ..Self::new(400, error, message) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn error_type(&self) -> &str {
        &self.error_type
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(400, refused.error_type, refused.message)
    }
}

impl From<getrandom::Error> for Failure {
    fn from(error: getrandom::Error) -> Self {
        Self::internal(&format!("the system gives no random bytes: {error}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({
            "status": "ERROR",
            "status_code": self.status.as_u16(),
            "error_type": self.error_type,
            "error_message": self.message,
            "error_uri": "http://api.put.io/v2/docs",
            "error_id": null,
            "extra": self.extra,
        });
        if let Some(error) = self.error {
            body["error"] = error.into();
        }
        let mut response = json_response(self.status, &body);
        for (name, value) in self.headers {
            add_header(&mut response, name, &value);
        }
        response
    }
}

/// `application/json`, exactly: clients compare it as it is.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A success: these fields beside `"status": "OK"`.
pub(crate) fn ok(mut body: Value) -> Reply {
    body["status"] = "OK".into();
    Ok(json_response(StatusCode::OK, &body))
}

/// A response of a status alone.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Adds a header; a value that cannot be one is left out.
pub(crate) fn add_header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Parameters of a request, from its query and its body, whichever form that has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    values: BTreeMap<String, String>,
    /// The body, if it is JSON, for what is more than a parameter.
    pub(crate) json: Option<Value>,
}

impl Params {
    /// A parameter that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter as it was sent, even if it is empty.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// `1` and `true` in any case are true; everything else is not.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failure::bad_request(&format!("{name} is not a number"))),
        }
    }

    /// The id that must be there.
    pub(crate) fn id(&self, name: &str) -> Result<i64, Failure> {
        self.number(name)?.ok_or_else(|| Failure::bad_request(&format!("{name} is missing")))
    }

    /// Ids between commas.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(Vec::new()) };
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse().map_err(|_| Failure::bad_request(&format!("{name} are not numbers")))
            })
            .collect()
    }

    /// Sets a parameter, in place of an earlier one of this name.
    pub(crate) fn set(&mut self, name: String, value: String) {
        self.values.insert(name, value);
    }

    fn add_form(&mut self, text: &str) {
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            self.set(form_text(name), form_text(value));
        }
    }

    fn add_json(&mut self, body: Value) {
        if let Value::Object(fields) = &body {
            for (name, value) in fields {
                if let Some(text) = parameter_text(value) {
                    self.set(name.clone(), text);
                }
            }
        }
        self.json = Some(body);
    }

    /// Parameters of a query alone.
    pub(crate) fn of_query(query: &str) -> Self {
        let mut params = Self::default();
        params.add_form(query);
        params
    }
}

/// A part of a form or query, decoded.
fn form_text(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// A JSON value as a form would have it; `None` for null and for objects.
fn parameter_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            Some(items.iter().filter_map(parameter_text).collect::<Vec<_>>().join(","))
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let mut params = Self::default();
        params.add_form(request.uri().query().unwrap_or_default());
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_ascii_lowercase());
        match kind.as_deref() {
            Some("multipart/form-data") => {
                let broken = |_| Failure::bad_request("the form is broken");
                let mut form = Multipart::from_request(request, state)
                    .await
                    .map_err(|_| Failure::bad_request("the form is broken"))?;
                while let Some(field) = form.next_field().await.map_err(broken)? {
                    let Some(name) = field.name().map(str::to_owned) else { continue };
                    let text = field.text().await.map_err(broken)?;
                    params.set(name, text);
                }
            }
            kind => {
                let is_json = kind == Some("application/json");
                let bytes = axum::body::to_bytes(request.into_body(), PARAMETER_BYTES_MAX)
                    .await
                    .map_err(|_| Failure::bad_request("the body is broken or too long"))?;
                if is_json && !bytes.is_empty() {
                    let body = serde_json::from_slice(&bytes)
                        .map_err(|_| Failure::bad_request("the body is no JSON"))?;
                    params.add_json(body);
                } else if let Ok(text) = std::str::from_utf8(&bytes) {
                    params.add_form(text);
                }
            }
        }
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_json_yield_the_same_parameters() {
        let mut form = Params::of_query("file_ids=1,2&skip=True&name=a%2Bb+c&empty=&zero=0");
        form.add_form("parent_id=7");
        let mut json = Params::default();
        json.add_json(json!({
            "file_ids": [1, "2"], "skip": true, "name": "a+b c", "empty": null, "zero": 0,
            "parent_id": "7",
        }));
        for params in [form, json] {
            assert_eq!(params.ids("file_ids").unwrap(), [1, 2]);
            assert!(params.flag("skip") && !params.flag("zero") && !params.flag("empty"));
            assert_eq!(params.text("name"), Some("a+b c"));
            assert_eq!(params.text("empty"), None);
            assert_eq!(params.id("parent_id").unwrap(), 7);
            assert!(params.id("name").is_err());
            assert!(params.id("absent").is_err());
        }
    }
}
