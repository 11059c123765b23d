//! Sign-in: how a program comes by a token.
//!
//! [`SignIn::request_code`] and [`SignIn::wait`] need no secret of the program: a person types a
//! short code on the service's page. [`Loopback`] and [`SignIn::exchange`] are for programs that have
//! a client id and a secret: the browser comes back to a port of this machine.

mod loopback;

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::error::{Error, ErrorKind};
use crate::options::ClientOptions;
use crate::token::Token;
use crate::transport::{Call, Transport};
use crate::wire::{CodeAnswer, ExchangeAnswer, LinkAnswer};
pub use loopback::Loopback;

/// A code a person types on the service's page.
///
/// Whoever knows it gets the token once it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// What to type at `https://put.io/link`.
    pub code: String,
    /// A picture that holds the page's address and the code.
    pub qr_code_url: Option<String>,
}

/// Sign-in without a token.
pub struct SignIn {
    transport: Transport,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("options", self.transport.options()).finish_non_exhaustive()
    }
}

impl SignIn {
    /// Sets up; sends nothing.
    ///
    /// # Errors
    /// As [`Client::new`](crate::Client::new).
    pub fn new(options: &ClientOptions) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(None, options.clone())? })
    }

    /// Asks for a code. `label` is how the service will name this program's session.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] or [`ErrorKind::NotFound`] if there is no such client id; those of
    /// every call.
    pub async fn request_code(&self, client_id: &str, label: &str) -> Result<DeviceCode, Error> {
        let call = Call::get("request_code", "/oauth2/oob/code")
            .query("app_id", client_id)
            .query("client_name", label)
            .without_token();
        let answer: CodeAnswer = self.transport.send(&call).await?;
        // It is shown in a terminal and put into an address.
        let is_plain = answer.code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if answer.code.is_empty() || answer.code.len() > 64 || !is_plain {
            let message = "the service's code is none that a person could type";
            return Err(Error::new(ErrorKind::Corrupt, "request_code", message));
        }
        Ok(DeviceCode { code: answer.code, qr_code_url: answer.qr_code_url })
    }

    /// Asks whether the code has been confirmed; `None` is not yet.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`]; those of every call.
    pub async fn poll(&self, code: &DeviceCode) -> Result<Option<Token>, Error> {
        let path = format!("/oauth2/oob/code/{}", code.code);
        let call = Call::get("poll", path).without_token();
        let answer: LinkAnswer = match self.transport.send(&call).await {
            Err(error) if error.is_not_found() => {
                let message = "the code was not confirmed in time";
                return Err(Error { kind: ErrorKind::Expired, message: message.into(), ..error });
            }
            answer => answer?,
        };
        answer.oauth_token.filter(|token| !token.is_empty()).map(Token::new).transpose()
    }

    /// Asks every `interval` until the code has been confirmed, for at most `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`] also when `limit` is over; otherwise those of [`SignIn::poll`].
    pub async fn wait(
        &self,
        code: &DeviceCode,
        interval: Duration,
        limit: Duration,
    ) -> Result<Token, Error> {
        let end = Instant::now() + limit;
        let asking = async {
            loop {
                match self.poll(code).await {
                    Ok(Some(token)) => return Ok(token),
                    Ok(None) => {}
                    // The person is still at it: a failure of the network is no reason to end.
                    Err(error) if error.is_temporary() => {}
                    Err(error) => return Err(error),
                }
                sleep(interval).await;
            }
        };
        tokio::select! {
            token = asking => token,
            () = sleep_until(end) => {
                Err(Error::new(ErrorKind::Expired, "poll", "the code was not confirmed in time"))
            }
        }
    }

    /// The page on which a person allows a program with a client id to use the account. `state` is
    /// a secret of this sign-in that comes back with the code.
    #[must_use]
    pub fn authorize_url(&self, client_id: &str, redirect_uri: &str, state: &str) -> String {
        let mut url = self.transport.api_url("/oauth2/authenticate");
        url.query_pairs_mut()
            .append_pair("client_id", client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", state);
        url.into()
    }

    /// Exchanges the code that the browser brought back for a token.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the code, the secret or the redirect address is not right; those of
    /// every call.
    pub async fn exchange(
        &self,
        client_id: &str,
        client_secret: &Token,
        redirect_uri: &str,
        code: &str,
    ) -> Result<Token, Error> {
        let call = Call::post("exchange", "/oauth2/access_token")
            .form("client_id", client_id)
            .form("client_secret", client_secret.expose())
            .form("grant_type", "authorization_code")
            .form("redirect_uri", redirect_uri)
            .form("code", code)
            .without_token();
        let answer: ExchangeAnswer = self.transport.send(&call).await?;
        Token::new(answer.access_token)
    }
}
