//! Pages for people: what stands at the root, the form for device codes, and captchas.

use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use crate::auth::approve;
use crate::call::{Call, Failure, Params, Reply, add_header, empty};
use crate::faults::Service;

/// A text that HTML takes as it is.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A page.
pub(crate) fn page(title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>{title}</title></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    );
    let mut response = Response::new(Body::from(text));
    add_header(&mut response, "content-type", "text/html; charset=utf-8");
    response
}

/// Sends a browser elsewhere.
pub(crate) fn redirect_to(location: &str) -> Response {
    let mut response = empty(StatusCode::FOUND);
    add_header(&mut response, "location", location);
    response
}

/// What stands at the root.
pub(crate) async fn home(call: Call) -> Response {
    let app = call.origin(Service::App);
    page(
        "putio-emulator",
        &format!(
            "<p>This is an emulator of put.io. Its API is below <code>/v2</code>, uploads are below \
             <code>/files/</code>.</p>\n<p><a href=\"{app}/link\">Link a device</a></p>\n"
        ),
    )
}

/// `GET /link`
pub(crate) async fn link(call: Call, params: Params) -> Response {
    let code = escaped(params.text("code").unwrap_or_default());
    let state = call.shared.state();
    let buttons: String = state
        .accounts
        .iter()
        .map(|account| {
            let name = escaped(&account.name);
            format!("<button name=\"account\" value=\"{name}\">Link to {name}</button>\n")
        })
        .collect();
    page(
        "Link a device",
        &format!(
            "<form method=\"post\" action=\"{}/link\">\n\
             <label>Code <input name=\"code\" value=\"{code}\" autofocus></label>\n{buttons}</form>\n",
            call.origin(Service::App)
        ),
    )
}

/// `POST /link`
pub(crate) async fn link_answer(call: Call, params: Params) -> Reply {
    let mut state = call.shared.state();
    let account = state
        .account_named(params.text("account").unwrap_or_default())
        .map_err(|_| Failure::bad_request("the account is unknown"))?;
    let code = params.text("code").unwrap_or_default();
    match approve(&mut state, code, account, call.now()) {
        Some(_) => Ok(page("Linked", "<p>The device is linked. You can close this page.</p>\n")),
        None => Err(Failure::not_found()),
    }
}

/// `GET /captcha/ID`
pub(crate) async fn captcha(call: Call, Path(id): Path<String>) -> Response {
    call.shared.limits.clear();
    page("Captcha", &format!("<p>Captcha {} counts as solved.</p>\n", escaped(&id)))
}
