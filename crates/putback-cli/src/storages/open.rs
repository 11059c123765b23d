//! From a storage to something that answers: a client of its service.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use putback_remotes::location::Folder;
use putback_remotes::{PutioOptions, PutioStore};
use putback_store::Store;
use putio::{Client, ClientOptions, Notice, Observe, Token, WaitReason};
use tokio::runtime::{Builder, Runtime};

use crate::config;
use crate::context::Context;
use crate::report::Failure;
use crate::storages::limits::{Connections, Limits};
use crate::storages::{API_URL_VARIABLE, Storage, UPLOAD_URL_VARIABLE, table};
use crate::ui::Ui;
use crate::ui::remote::Traffic;

/// Uploads under way at the same time, unless somebody says otherwise.
const UPLOADS: usize = 2;
/// Requests that may be under way besides uploads: look-ups, downloads, deletions.
const REQUESTS_BESIDES: usize = 6;
/// Largest file of certificates.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

/// How the service is told who asks.
pub(crate) fn user_agent() -> String {
    format!("putback/{}", env!("CARGO_PKG_VERSION"))
}

/// How the client of `storage` is set up: what its table says, and what flags and the environment
/// say instead.
pub(crate) fn client_options(
    context: &Context,
    storage: &Storage,
) -> anyhow::Result<ClientOptions> {
    let limits = limits_of(context, storage);
    let mut options = ClientOptions::new(user_agent());
    if let Some(url) = address(API_URL_VARIABLE, storage.api_url.as_deref())? {
        options.api_url = url;
    }
    if let Some(url) = address(UPLOAD_URL_VARIABLE, storage.upload_url.as_deref())? {
        options.upload_url = url;
    }
    if let Some(path) = &limits.cacert {
        options.ca_certificates.push(certificates(path)?);
    }
    options.connections = uploads(&limits) + REQUESTS_BESIDES;
    options.requests_per_second = limits.tpslimit.map(|rate| rate.per_second());
    options.upload_bytes_per_second = limits.limit_upload.and_then(|rate| rate.bytes_per_second());
    options.download_bytes_per_second =
        limits.limit_download.and_then(|rate| rate.bytes_per_second());
    options.observer = Arc::new(Told { ui: context.ui.clone(), storage: storage.name.clone() });
    Ok(options)
}

/// What holds for `storage` in this run.
pub(crate) fn limits_of(context: &Context, storage: &Storage) -> Limits {
    context.global.limits.over(&storage.limits, &context.origins)
}

/// The address that holds: the variable's, or the storage's.
fn address(variable: &str, storage: Option<&str>) -> Result<Option<String>, Failure> {
    match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        None => Ok(storage.map(str::to_owned)),
        Some(value) => match table::url(&value.to_string_lossy()) {
            Ok(url) => Ok(Some(url)),
            Err(reason) => Err(Failure::usage(format!("{variable} has no address: {reason}"))),
        },
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<u8>> {
    let size = fs_err::metadata(path)?.len();
    if size > CERTIFICATES_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} is too large for certificates",
            config::display(path)
        ))
        .into());
    }
    let content = fs_err::read(path)?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !content.windows(marker.len()).any(|window| window == marker) {
        return Err(Failure::usage_with(
            format!("{} has no certificate in it", config::display(path)),
            "it must be in PEM form, which begins with -----BEGIN CERTIFICATE-----",
        )
        .into());
    }
    Ok(content)
}

/// A client that uses `token` for `storage`. Its requests are counted.
pub(crate) fn client_with(
    context: &Context,
    storage: &Storage,
    token: Token,
    options: ClientOptions,
) -> anyhow::Result<Client> {
    counted(context, storage, Client::new(token, options))
}

fn counted(
    context: &Context,
    storage: &Storage,
    client: Result<Client, putio::Error>,
) -> anyhow::Result<Client> {
    let client = client.map_err(|error| failure(storage, "cannot use the storage", error))?;
    let counted = client.clone();
    context.ui.remotes().attach(&storage.name, move || traffic(&counted.usage()));
    Ok(client)
}

/// The clients of the stores that were opened in this run, each with its account and how it was set up.
#[derive(Default)]
pub(crate) struct Clients(Mutex<Vec<(String, ClientOptions, Client)>>);

/// A client for a store in `account`. It shares its limits with those of other stores there that have the same ones:
/// the service limits the account, and a person the program. Connections are its own, since a store that is read may
/// wait for one that is written.
fn client_of_store(
    context: &Context,
    storage: &Storage,
    account: &str,
    token: Token,
    options: ClientOptions,
) -> anyhow::Result<Client> {
    let limits = |options: &ClientOptions| {
        (
            options.requests_per_second,
            options.upload_bytes_per_second,
            options.download_bytes_per_second,
        )
    };
    // Each change leaves a whole list.
    let mut clients = context.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
    let known =
        clients.iter().find(|(of, others, _)| of == account && limits(others) == limits(&options));
    let client = match known {
        Some((_, _, known)) => known.beside(options.clone()),
        None => Client::new(token, options.clone()),
    };
    let client = counted(context, storage, client)?;
    clients.push((account.to_owned(), options, client.clone()));
    Ok(client)
}

/// A client that uses the token of `storage`.
pub(crate) fn client(context: &Context, storage: &Storage) -> anyhow::Result<Client> {
    let token = storage.token.read(&context.ui, &storage.name)?;
    client_with(context, storage, token, client_options(context, storage)?)
}

/// The store in the folder `path` of `storage`; nothing is asked of the service yet.
pub(crate) fn store(
    context: &Context,
    storage: &Storage,
    path: &str,
) -> anyhow::Result<Arc<dyn Store>> {
    let folder = Folder::new(path).map_err(|invalid| {
        Failure::usage(format!(
            "'{}:{}' is no place for a repository: {}",
            storage.name, invalid.text, invalid.reason
        ))
    })?;
    if folder.as_str().is_empty() {
        return Err(Failure::usage_with(
            format!("'{}:' names no folder for the repository", storage.name),
            format!("write a path behind the colon, as in {}:backups/laptop", storage.name),
        )
        .into());
    }
    let token = storage.token.read(&context.ui, &storage.name)?;
    let options = client_options(context, storage)?;
    let account = putback_remotes::account_key(&options.api_url, &token);
    let client = client_of_store(context, storage, &account, token, options)?;
    let directories = context.machine();
    let store = PutioStore::open(PutioOptions {
        client,
        account,
        folder: folder.as_str().to_owned(),
        name: format!("{}:{folder}", storage.name),
        cache: directories.cache.map(|cache| cache.join("putio")),
        state: directories.state.map(|state| state.join("putio")),
        connections: uploads(&limits_of(context, storage)),
        skip_trash: storage.skip_trash,
    })?;
    Ok(Arc::new(store))
}

/// Uploads under way at the same time.
fn uploads(limits: &Limits) -> usize {
    limits.connections.map_or(UPLOADS, Connections::count)
}

/// What runs the requests of a command that is about a storage itself.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// An error of the service, and what was asked of it.
pub(crate) fn failure(storage: &Storage, message: &str, source: putio::Error) -> Failure {
    Failure::Service {
        message: message.to_owned(),
        storage: storage.name.clone(),
        source: Box::new(source),
    }
}

/// What a client did, as the user sees it.
pub(crate) fn traffic(usage: &putio::Usage) -> Traffic {
    Traffic {
        requests: usage.requests,
        retries: usage.retries,
        bytes_sent: usage.bytes_sent,
        bytes_received: usage.bytes_received,
        throttled: usage.waited,
    }
}

/// Passes on what a client tells.
struct Told {
    ui: Ui,
    storage: String,
}

impl Observe for Told {
    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Waiting { duration, reason } => {
                self.ui.remote_waits(&self.storage, *duration, words(*reason));
            }
            Notice::Retrying { call, attempt, after, error } => {
                self.ui.remote_retries(&self.storage, call, (*attempt, *after), error);
            }
            _ => {}
        }
    }
}

/// Why a client waits, for people and for programs.
fn words(reason: WaitReason) -> (&'static str, &'static str) {
    match reason {
        WaitReason::RateLimited => ("put.io's rate limit", "rate_limited"),
        WaitReason::Exhausted => ("put.io's rate limit", "rate_exhausted"),
        _ => ("put.io", "other"),
    }
}
