//! Signing in to put.io: how a token is come by.
//!
//! A person with an application of their own confirms a code ([`device`]) or signs in in a browser of
//! this machine ([`browser`]); anybody else brings a token. The program has no client id of its own:
//! put.io gives them to applications that somebody registers, and counts their requests together.
//!
//! A token that was come by is used once, to ask whose it is, before anything is written.

mod browser;
mod device;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use putio::auth::SignIn;
use putio::{Account, ClientOptions, Token};
use zeroize::Zeroizing;

use crate::args::Origin;
use crate::context::Context;
use crate::report::Failure;
use crate::storages::token::{self, TokenSource};
use crate::storages::{Storage, TOKEN_VARIABLE, open, table};

/// Where applications are registered, and their owners find tokens.
const APPLICATIONS_PAGE: &str = "https://app.put.io/oauth";
/// Variable with the secret of an application.
const SECRET_VARIABLE: &str = "PUTBACK_PUTIO_CLIENT_SECRET";

/// How to sign in.
#[derive(Args, Debug)]
#[command(next_help_heading = "How to sign in")]
pub(crate) struct SignInArgs {
    /// Id of your application at put.io; with it, you sign in by confirming a code
    #[arg(long, env = "PUTBACK_PUTIO_CLIENT_ID", value_name = "ID", value_parser = client_id)]
    client_id: Option<String>,
    /// Sign in in a browser of this machine; needs the application's secret too
    #[arg(long, env = "PUTBACK_BROWSER")]
    browser: bool,
    /// File with the application's secret; see also PUTBACK_PUTIO_CLIENT_SECRET
    #[arg(long, env = "PUTBACK_PUTIO_CLIENT_SECRET_FILE", value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Port of this machine that the application is registered to come back to
    #[arg(long, env = "PUTBACK_REDIRECT_PORT", value_name = "PORT", default_value = "53682",
          value_parser = clap::value_parser!(u16).range(1..))]
    redirect_port: u16,
    /// Do not open a browser
    #[arg(long, env = "PUTBACK_NO_BROWSER")]
    no_browser: bool,
    /// File with a token; it stays where it is. See also PUTBACK_PUTIO_TOKEN
    #[arg(long, env = "PUTBACK_PUTIO_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Command that prints a token whenever one is needed; run by the shell
    #[arg(long, env = "PUTBACK_PUTIO_TOKEN_COMMAND", value_name = "COMMAND")]
    token_command: Option<OsString>,
    /// Read a token from standard input
    #[arg(long, env = "PUTBACK_TOKEN_STDIN")]
    token_stdin: bool,
    /// Address of another server that speaks put.io's API
    #[arg(long, env = "PUTBACK_PUTIO_API_URL", value_name = "URL", value_parser = table::url)]
    api_url: Option<String>,
    /// Address of its server for uploads
    #[arg(long, env = "PUTBACK_PUTIO_UPLOAD_URL", value_name = "URL", value_parser = table::url)]
    upload_url: Option<String>,
}

fn client_id(text: &str) -> Result<String, String> {
    let is_id = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("put.io's ids are numbers such as 1234".to_owned())
    }
}

/// Somebody has signed in.
pub(crate) struct SignedIn {
    pub(crate) token: Token,
    /// Where the token will be found from now on; `None` if it is to be kept in a file of ours.
    pub(crate) source: Option<TokenSource>,
    /// The application that signed in.
    pub(crate) client_id: Option<String>,
    pub(crate) account: Account,
}

/// A way to a token.
enum Way {
    Device {
        client_id: String,
    },
    Browser {
        client_id: String,
        secret: Token,
    },
    /// From where it stays.
    Stays(TokenSource),
    /// From where it does not stay.
    Once(Token),
}

impl SignInArgs {
    /// The settings that the command line has for `storage`. What only the environment says goes on
    /// to be said there, and is not written down.
    pub(crate) fn apply(&self, context: &Context, storage: &mut Storage) {
        let said = |id: &str, value: &Option<String>| {
            value.clone().filter(|_| context.origins.of(id) != Origin::Environment)
        };
        storage.api_url = said("api_url", &self.api_url).or(storage.api_url.take());
        storage.upload_url = said("upload_url", &self.upload_url).or(storage.upload_url.take());
    }

    /// How clients are set up: here flags win over the environment.
    fn options(&self, context: &Context, storage: &Storage) -> anyhow::Result<ClientOptions> {
        let mut options = open::client_options(context, storage)?;
        if let Some(url) = &self.api_url {
            options.api_url.clone_from(url);
        }
        if let Some(url) = &self.upload_url {
            options.upload_url.clone_from(url);
        }
        Ok(options)
    }

    /// Whether the command line itself says how to sign in.
    fn is_asked(&self, context: &Context) -> bool {
        ["client_id", "browser", "token_file", "token_command", "token_stdin"]
            .iter()
            .any(|id| context.origins.of(id) == Origin::Flag)
    }

    /// Comes by a token for `storage`, and finds out whose it is. Nothing is written.
    pub(crate) fn sign_in(&self, context: &Context, storage: &Storage) -> anyhow::Result<SignedIn> {
        let client_id = self.client_id.clone().or_else(|| storage.client_id.clone());
        let way = match &storage.configured {
            // Whoever keeps the token puts a new one there; here it can only be tried.
            Some(source @ TokenSource::Command(_)) if !self.is_asked(context) => {
                Way::Stays(source.clone())
            }
            _ => self.way(context, client_id.as_deref())?,
        };
        let runtime = open::runtime()?;
        let options = self.options(context, storage)?;
        let (token, source) = match way {
            Way::Device { client_id } => {
                let sign_in = start(storage, &options)?;
                let is_silent = self.no_browser;
                let token = runtime
                    .block_on(device::wait(context, storage, &sign_in, &client_id, is_silent))?;
                (token, None)
            }
            Way::Browser { client_id, secret } => {
                let sign_in = start(storage, &options)?;
                let browser = browser::Browser {
                    port: self.redirect_port,
                    is_opened: !self.no_browser,
                    client_id: &client_id,
                    secret: &secret,
                };
                (runtime.block_on(browser.wait(context, storage, &sign_in))?, None)
            }
            Way::Stays(source) => (source.read(&context.ui, &storage.name)?, Some(source)),
            Way::Once(token) => (token, None),
        };
        let client = open::client_with(context, storage, token.clone(), options)?;
        let account =
            runtime.block_on(client.account()).map_err(|error| refused(storage, error))?;
        Ok(SignedIn { token, source, client_id, account })
    }

    /// Which way to take, as flags, the environment and the configuration say, or a person does.
    fn way(&self, context: &Context, client_id: Option<&str>) -> anyhow::Result<Way> {
        let is_set = std::env::var_os(TOKEN_VARIABLE).is_some_and(|value| !value.is_empty());
        let origin = if is_set { Origin::Environment } else { Origin::BuiltIn };
        let mut ids = vec!["token_file", "token_command", "putio_token"];
        ids.extend(self.token_stdin.then_some("token_stdin"));
        ids.extend(self.browser.then_some("browser"));
        let origins = context.origins.with("putio_token", origin);
        let is_device_asked = context.origins.of("client_id") == Origin::Flag;
        let chosen = origins.strongest(&ids)?;
        // A client id in the arguments asks for its sign-in, whatever the environment has.
        match chosen.filter(|id| !is_device_asked || origins.of(id) == Origin::Flag) {
            Some("token_file") => {
                let path = self.token_file.clone().unwrap_or_default();
                Ok(Way::Stays(TokenSource::File(std::path::absolute(path)?)))
            }
            Some("token_command") => {
                let command = self.token_command.clone().unwrap_or_default();
                Ok(Way::Stays(TokenSource::Command(command)))
            }
            Some("token_stdin") => {
                Ok(Way::Once(token::read_stream(std::io::stdin().lock(), "standard input")?))
            }
            Some("browser") => {
                let client_id = client_id.ok_or_else(|| {
                    Failure::usage_with(
                        "--browser needs the id of an application",
                        format!(
                            "register one at {APPLICATIONS_PAGE} that comes back to \
                             http://127.0.0.1:{}/, and give --client-id ID",
                            self.redirect_port
                        ),
                    )
                })?;
                Ok(Way::Browser { client_id: client_id.to_owned(), secret: self.secret(context)? })
            }
            Some(_) => Ok(Way::Once(TokenSource::Variable.read(&context.ui, "")?)),
            None => match client_id {
                Some(client_id) => Ok(Way::Device { client_id: client_id.to_owned() }),
                None if context.ui.can_ask() => ask_for_token(context).map(Way::Once),
                None => Err(Failure::usage_with(
                    "nothing says how to sign in to put.io, and there is no terminal to ask",
                    "give --client-id ID to confirm a code, or a token by --token-file, \
                     --token-command, --token-stdin or PUTBACK_PUTIO_TOKEN",
                )
                .into()),
            },
        }
    }

    /// The application's secret: from the file, the variable or the terminal, never from arguments.
    fn secret(&self, context: &Context) -> anyhow::Result<Token> {
        let is_set = std::env::var_os(SECRET_VARIABLE).is_some_and(|value| !value.is_empty());
        let origin = if is_set { Origin::Environment } else { Origin::BuiltIn };
        let origins = context.origins.with("putio_client_secret", origin);
        match origins.strongest(&["client_secret_file", "putio_client_secret"])? {
            Some("client_secret_file") => {
                let path = self.client_secret_file.clone().unwrap_or_default();
                let file = fs_err::File::open(&path)?;
                token::read_stream(file, &crate::config::display(&path))
            }
            Some(_) => {
                let value = std::env::var_os(SECRET_VARIABLE).unwrap_or_default();
                let value = Zeroizing::new(value.into_encoded_bytes());
                token::read_stream(value.as_slice(), SECRET_VARIABLE)
            }
            None if context.ui.can_ask() => {
                let typed = context.ui.ask_secret("secret of the application (not shown): ")?;
                token::from_text(&typed, "the terminal")
            }
            None => Err(Failure::usage_with(
                "the secret of the application was not given, and there is no terminal to ask",
                format!("give it by --client-secret-file or {SECRET_VARIABLE}"),
            )
            .into()),
        }
    }
}

/// Explains where a token comes from, and asks for one.
fn ask_for_token(context: &Context) -> anyhow::Result<Token> {
    context.ui.explain(&[
        "put.io asks which program it is, and no --client-id says so. Either",
        &format!(
            "  1. register one at {APPLICATIONS_PAGE} and run this again with --client-id ID, or"
        ),
        &format!("  2. copy the token that {APPLICATIONS_PAGE} shows for an application of yours."),
    ]);
    let typed = context.ui.ask_secret("token (not shown): ")?;
    token::from_text(&typed, "the terminal")
}

fn start(storage: &Storage, options: &ClientOptions) -> anyhow::Result<SignIn> {
    let sign_in = SignIn::new(options);
    Ok(sign_in.map_err(|error| open::failure(storage, "cannot sign in to put.io", error))?)
}

/// What it means that the account of a new token cannot be asked for.
fn refused(storage: &Storage, error: putio::Error) -> Failure {
    if error.kind == putio::ErrorKind::Unauthorized {
        return Failure::Refused {
            message: "put.io does not accept this token; nothing was changed".to_owned(),
            hint: format!("{APPLICATIONS_PAGE} shows the tokens of your applications"),
            source: Box::new(error),
        };
    }
    open::failure(storage, "cannot ask put.io whose token this is; nothing was changed", error)
}

/// Opens a page in the browser of whoever sits at this machine, if there is one.
fn open_browser(context: &Context, url: &str) -> bool {
    let is_there = cfg!(not(unix))
        || cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !is_there || !context.ui.can_ask() {
        return false;
    }
    let mut options = webbrowser::BrowserOptions::new();
    options.with_suppress_output(true);
    webbrowser::open_browser_with_options(webbrowser::Browser::Default, url, &options).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_a_number_and_nothing_that_an_address_could_carry() {
        assert_eq!(client_id("1234").unwrap(), "1234");
        for text in ["", "12 34", "1&x=1", "a/b", &"1".repeat(65)] {
            assert!(client_id(text).is_err(), "{text}");
        }
    }
}
