//! Signing in in a browser of this machine, which comes back with a code to exchange; for those who
//! have an application with its secret.

use std::time::{Duration, Instant};

use putio::Token;
use putio::auth::{Loopback, SignIn};

use crate::context::Context;
use crate::sign_in::open_browser;
use crate::storages::{Storage, open};

/// How long there is time.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// How often the time left is shown anew.
const TICK: Duration = Duration::from_millis(500);
/// Random bytes by which the browser's answer is recognised.
const STATE_BYTES: usize = 16;

/// A sign-in.
pub(super) struct Browser<'a> {
    /// Where the browser comes back to.
    pub(super) port: u16,
    /// Whether to open one.
    pub(super) is_opened: bool,
    pub(super) client_id: &'a str,
    pub(super) secret: &'a Token,
}

impl Browser<'_> {
    /// Waits for the browser to come back, and exchanges what it brings.
    pub(super) async fn wait(
        &self,
        context: &Context,
        storage: &Storage,
        sign_in: &SignIn,
    ) -> anyhow::Result<Token> {
        let loopback = Loopback::bind(self.port).map_err(|error| {
            let message = format!("cannot wait for the browser on port {}", self.port);
            open::failure(storage, &message, error)
        })?;
        let redirect = loopback.redirect_uri();
        let state = state()?;
        let url = sign_in.authorize_url(self.client_id, &redirect, &state);
        let is_opened = self.is_opened && open_browser(context, &url);
        context.ui.show_browser_link(&url, &redirect, is_opened, LIMIT);
        let countdown = context.ui.countdown("the browser");
        let end = Instant::now() + LIMIT;
        let mut ticks = tokio::time::interval(TICK);
        let answer = loopback.wait(&state, LIMIT);
        tokio::pin!(answer);
        let code = loop {
            tokio::select! {
                code = &mut answer => break code,
                _ = ticks.tick() => countdown.set(end.saturating_duration_since(Instant::now())),
            }
        };
        drop(countdown);
        let code =
            code.map_err(|error| open::failure(storage, "the sign-in was not finished", error))?;
        let token = sign_in.exchange(self.client_id, self.secret, &redirect, &code).await;
        Ok(token.map_err(|error| {
            open::failure(storage, "put.io does not exchange the browser's code for a token", error)
        })?)
    }
}

/// Random text that nobody else can know.
fn state() -> anyhow::Result<String> {
    let mut bytes = [0; STATE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sign_ins_have_the_same_state() {
        let (first, second) = (state().unwrap(), state().unwrap());
        assert_eq!(first.len(), 2 * STATE_BYTES);
        assert_ne!(first, second);
    }
}
