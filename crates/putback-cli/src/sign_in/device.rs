//! Signing in by a code that a person confirms on any machine; needs no secret.

use std::time::{Duration, Instant};

use putio::auth::SignIn;
use putio::{ErrorKind, Token};

use crate::context::{self, Context};
use crate::report::Failure;
use crate::sign_in::open_browser;
use crate::storages::{Storage, open};

/// The page where codes are typed.
const LINK: &str = "https://put.io/link";
/// The same page with the code filled in.
const LINK_WITH_CODE: &str = "https://app.put.io/link?code=";
/// How long there is time; codes may live longer at put.io.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// How often put.io is asked whether the code is confirmed.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often the time left is shown anew.
const TICK: Duration = Duration::from_millis(500);

/// Shows a code and waits until it is confirmed.
pub(super) async fn wait(
    context: &Context,
    storage: &Storage,
    sign_in: &SignIn,
    client_id: &str,
    is_silent: bool,
) -> anyhow::Result<Token> {
    let label = format!("putback on {}", context::host_name());
    let code = sign_in
        .request_code(client_id, &label)
        .await
        .map_err(|error| open::failure(storage, "cannot get a code from put.io", error))?;
    let link_with_code = link_with(&code.code);
    context.ui.show_device_code(&code.code, LINK, &link_with_code, LIMIT);
    if !is_silent {
        open_browser(context, &link_with_code);
    }
    let countdown = context.ui.countdown("the code to be confirmed");
    let end = Instant::now() + LIMIT;
    let mut ticks = tokio::time::interval(TICK);
    let answer = sign_in.wait(&code, INTERVAL, LIMIT);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            token = &mut answer => return Ok(token.map_err(|error| match error.kind {
                ErrorKind::Expired => expired(),
                _ => open::failure(storage, "cannot ask put.io about the code", error),
            })?),
            _ = ticks.tick() => countdown.set(end.saturating_duration_since(Instant::now())),
        }
    }
}

fn expired() -> Failure {
    Failure::SignIn {
        message: "the code was not confirmed in time; nothing was changed".to_owned(),
        hint: "run the command again for another code".to_owned(),
    }
}

/// The page with the code filled in, unless the code is none that an address could carry.
fn link_with(code: &str) -> String {
    let is_plain = code.len() <= 32 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { format!("{LINK_WITH_CODE}{code}") } else { LINK.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_code_does_not_get_into_an_address() {
        assert_eq!(link_with("ABCD12"), "https://app.put.io/link?code=ABCD12");
        for code in ["A&x=1", "A B", "\u{1b}[2J", &"A".repeat(33)] {
            assert_eq!(link_with(code), LINK);
        }
    }
}
