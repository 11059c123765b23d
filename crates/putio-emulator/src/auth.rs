//! Sign-in: codes through a browser, codes that a person types, names and passwords, and what can
//! be asked of a token.

use axum::extract::{Path, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use serde_json::json;

use crate::call::{Call, Failure, Params, Reply, json_response, ok};
use crate::dice::random_word;
use crate::faults::Service;
use crate::options::{Approval, ClientOptions};
use crate::pages::{page, redirect_to};
use crate::state::{AccountIndex, DeviceCode, Grant, State};

/// Characters of codes that people type: none that is easily taken for another.
const CODE_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Characters of a code.
const CODE_LENGTH: usize = 6;

/// A sign-in that a browser asks for.
struct Asked {
    client_id: String,
    redirect_uri: String,
    wants_token: bool,
    state: Option<String>,
}

impl Asked {
    fn of(call: &Call, params: &Params) -> Result<Self, Failure> {
        let client_id = params.text("client_id").unwrap_or_default();
        let client = client(call, client_id)?;
        let redirect_uri = params.text("redirect_uri").unwrap_or_default();
        if !client.redirect_uris.iter().any(|known| known == redirect_uri) {
            let message = "The redirect_uri is not the one that was registered";
            return Err(Failure::sign_in("invalid_request", message));
        }
        let wants_token = match params.text("response_type") {
            Some("code") => false,
            Some("token") => true,
            _ => {
                let message = "The response_type is neither code nor token";
                return Err(Failure::sign_in("invalid_request", message));
            }
        };
        Ok(Self {
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            wants_token,
            state: params.text("state").map(str::to_owned),
        })
    }

    /// Where the browser goes once an account has agreed.
    fn agree(&self, state: &mut State, account: AccountIndex) -> Result<String, Failure> {
        let word = random_word()?;
        let echo = self.state.as_ref().map_or_else(String::new, |echo| {
            format!(
                "&state={}",
                percent_encoding::utf8_percent_encode(echo, percent_encoding::NON_ALPHANUMERIC)
            )
        });
        if self.wants_token {
            state.add_token(&word, account, "default", &self.client_id);
            return Ok(format!("{}#access_token={word}{echo}", self.redirect_uri));
        }
        let grant = Grant {
            client_id: self.client_id.clone(),
            redirect_uri: self.redirect_uri.clone(),
            account,
        };
        state.grants.insert(word.clone(), grant);
        let mark = if self.redirect_uri.contains('?') { '&' } else { '?' };
        Ok(format!("{}{mark}code={word}{echo}", self.redirect_uri))
    }
}

fn client<'a>(call: &'a Call, id: &str) -> Result<&'a ClientOptions, Failure> {
    call.shared
        .clients
        .iter()
        .find(|client| client.client_id == id)
        .ok_or_else(|| Failure::sign_in("unauthorized_client", "The application is unknown"))
}

/// `GET /v2/oauth2/authenticate`, and `/authenticate` of the web application.
pub(crate) async fn authenticate(call: Call, params: Params) -> Reply {
    let asked = Asked::of(&call, &params)?;
    if call.shared.approval == Approval::Automatic {
        let location = asked.agree(&mut call.shared.state(), 0)?;
        return Ok(redirect_to(&location));
    }
    let state = call.shared.state();
    let buttons: String = state
        .accounts
        .iter()
        .map(|account| {
            let name = crate::pages::escaped(&account.name);
            format!("<button name=\"account\" value=\"{name}\">Allow as {name}</button>\n")
        })
        .collect();
    let hidden: String = ["client_id", "redirect_uri", "response_type", "state"]
        .iter()
        .filter_map(|name| Some((name, params.text(name)?)))
        .map(|(name, value)| {
            let value = crate::pages::escaped(value);
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
        })
        .collect();
    let client_id = crate::pages::escaped(&asked.client_id);
    Ok(page(
        "Sign in",
        &format!(
            "<p>Application {client_id} wants to use an account.</p>\n\
             <form method=\"post\" action=\"{}/v2/oauth2/authenticate\">\n{hidden}{buttons}\
             <button name=\"account\" value=\"\">Deny</button>\n</form>\n",
            call.origin(Service::Api)
        ),
    ))
}

/// `POST /v2/oauth2/authenticate`: a button of the page was pressed.
pub(crate) async fn authenticate_answer(call: Call, params: Params) -> Reply {
    let asked = Asked::of(&call, &params)?;
    let mut state = call.shared.state();
    let Some(name) = params.text("account") else {
        let mark = if asked.redirect_uri.contains('?') { '&' } else { '?' };
        return Ok(redirect_to(&format!("{}{mark}error=access_denied", asked.redirect_uri)));
    };
    let account = state
        .account_named(name)
        .map_err(|_| Failure::sign_in("access_denied", "The account is unknown"))?;
    let location = asked.agree(&mut state, account)?;
    Ok(redirect_to(&location))
}

/// Name and password of HTTP Basic.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    // OAuth clients encode both, others neither; ids and secrets that need it are rare.
    let plain =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((plain(name), plain(password)))
}

/// `GET` and `POST /v2/oauth2/access_token`
pub(crate) async fn access_token(call: Call, request: Request) -> Reply {
    let profile = call.shared.profile();
    let from_header = match profile.refuses_basic {
        true => None,
        false => basic(request.headers()),
    };
    let params = <Params as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let client_id = from_header
        .as_ref()
        .map(|(id, _)| id.clone())
        .or_else(|| params.text("client_id").map(str::to_owned))
        .ok_or_else(|| Failure::sign_in("invalid_request", "client_id is missing"))?;
    let secret = from_header
        .map(|(_, secret)| secret)
        .or_else(|| params.text("client_secret").map(str::to_owned))
        .unwrap_or_default();
    let client = client(&call, &client_id)?;
    if client.client_secret != secret {
        let message = "The client_secret is wrong";
        return Err(Failure::sign_in("unauthorized_client", message));
    }
    if params.text("grant_type").is_some_and(|kind| kind != "authorization_code") {
        let message = "The grant_type is not authorization_code";
        return Err(Failure::sign_in("invalid_request", message));
    }
    let code = params
        .text("code")
        .ok_or_else(|| Failure::sign_in("invalid_request", "code is missing"))?;
    let mut state = call.shared.state();
    // A code is good for one try.
    let grant = state
        .grants
        .remove(code)
        .filter(|grant| grant.client_id == client_id)
        .filter(|grant| params.text("redirect_uri").is_none_or(|uri| uri == grant.redirect_uri))
        .ok_or_else(|| Failure::sign_in("access_denied", "The code is wrong or was used"))?;
    let token = random_word()?;
    state.add_token(&token, grant.account, "default", &client_id);
    Ok(json_response(StatusCode::OK, &json!({ "access_token": token })))
}

/// `GET /v2/oauth2/oob/code`
pub(crate) async fn new_code(call: Call, params: Params) -> Reply {
    let client_id = params.text("app_id").unwrap_or_default();
    client(&call, client_id)?;
    let seconds = i64::try_from(call.shared.profile().code_seconds).unwrap_or(i64::MAX);
    let now = call.now();
    let mut state = call.shared.state();
    state.codes.retain(|_, code| code.expires > now);
    let code = loop {
        let word = random_word()?;
        let code: String = word
            .bytes()
            .take(CODE_LENGTH)
            .map(|byte| char::from(CODE_ALPHABET[usize::from(byte) % CODE_ALPHABET.len()]))
            .collect();
        if !state.codes.contains_key(&code) {
            break code;
        }
    };
    let waiting = DeviceCode {
        client_id: client_id.to_owned(),
        expires: now.saturating_add(seconds.saturating_mul(1000)),
        account: None,
        token: None,
        polls: 0,
    };
    state.codes.insert(code.clone(), waiting);
    let origin = call.origin(Service::App);
    ok(json!({ "code": code, "qr_code_url": format!("{origin}/link?code={code}") }))
}

/// `GET /v2/oauth2/oob/code/CODE`
pub(crate) async fn poll_code(call: Call, Path(code): Path<String>) -> Reply {
    let profile = call.shared.profile();
    let now = call.now();
    let mut state = call.shared.state();
    let waiting = state.codes.get_mut(&code).filter(|waiting| waiting.expires > now);
    let waiting = waiting.ok_or_else(Failure::not_found)?;
    waiting.polls += 1;
    if waiting.account.is_none() && call.shared.approval == Approval::Automatic && waiting.polls > 1
    {
        waiting.account = Some(0);
    }
    let (account, client_id, token) =
        (waiting.account, waiting.client_id.clone(), waiting.token.clone());
    let Some(account) = account else {
        return ok(json!({ "oauth_token": null }));
    };
    let token = match token {
        Some(token) => token,
        None => {
            let token = random_word()?;
            state.add_token(&token, account, "default", &client_id);
            token
        }
    };
    if profile.code_once {
        state.codes.remove(&code);
    } else if let Some(waiting) = state.codes.get_mut(&code) {
        waiting.token = Some(token.clone());
    }
    ok(json!({ "oauth_token": token }))
}

/// `POST /v2/oauth2/oob/code`: somebody who is signed in confirms a code.
pub(crate) async fn link_code(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let code = params.text("code").unwrap_or_default();
    let mut state = call.shared.state();
    let client_id =
        approve(&mut state, code, account, call.now()).ok_or_else(Failure::not_found)?;
    ok(json!({ "app": { "id": client_id.parse::<u64>().ok(), "name": "Application" } }))
}

/// Confirms a code; the application that asked for it.
pub(crate) fn approve(
    state: &mut State,
    code: &str,
    account: AccountIndex,
    now: i64,
) -> Option<String> {
    let code = code.trim().to_ascii_uppercase();
    let waiting = state.codes.get_mut(&code).filter(|waiting| waiting.expires > now)?;
    waiting.account = Some(account);
    Some(waiting.client_id.clone())
}

/// `PUT /v2/oauth2/authorizations/clients/ID`, with or without a fingerprint.
pub(crate) async fn authorize(call: Call, request: Request) -> Reply {
    let id = request.uri().path().split('/').nth(5).unwrap_or_default().to_owned();
    let given = basic(request.headers());
    let params = <Params as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let client = client(&call, &id);
    let secret = params.text("client_secret").unwrap_or_default();
    if !client.is_ok_and(|client| client.client_secret == secret) {
        let message = "The application's credentials are wrong";
        return Err(Failure::new(403, "invalid_app_credentials", message));
    }
    let mut state = call.shared.state();
    let account = given.and_then(|(name, password)| {
        state.accounts.iter().position(|account| {
            account.name == name && account.password.as_deref() == Some(password.as_str())
        })
    });
    let account = account.ok_or_else(|| Failure::unauthorized("Unauthorized"))?;
    let token = random_word()?;
    state.add_token(&token, account, "default", &id);
    let user_id = state.accounts[account].user_id;
    ok(json!({ "access_token": token, "user_id": user_id }))
}

/// `GET /v2/oauth2/validate`
pub(crate) async fn validate(call: Call) -> Response {
    let state = call.shared.state();
    let known = call.token.as_ref().and_then(|token| state.tokens.get(token));
    let body = json!({
        "result": known.is_some(),
        "token_id": known.map(|token| token.id),
        "token_scope": known.map(|token| token.scope.clone()),
        "user_id": known.map(|token| state.accounts[token.account].user_id),
    });
    json_response(StatusCode::OK, &body)
}

/// `POST /v2/oauth/grants/logout`
pub(crate) async fn logout(call: Call) -> Reply {
    call.account()?;
    if let Some(token) = &call.token {
        call.shared.state().revoke_token(token);
    }
    ok(json!({}))
}

/// Paths that put.io keeps for its own applications.
pub(crate) async fn first_party(call: Call) -> Reply {
    call.account()?;
    Err(Failure::unauthorized("invalid_scope"))
}
