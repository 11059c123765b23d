//! `putback storage show`.

use std::io::Write;

use clap::Args;

use crate::args::Origin;
use crate::commands::storage::storage_name;
use crate::context::Context;
use crate::report::Outcome;
use crate::storages::token::TokenSource;
use crate::storages::{API_URL_VARIABLE, Storage, UPLOAD_URL_VARIABLE, limits, open};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Show what is known of a storage, without its token
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
        putback storage show putio")]
pub(crate) struct ShowArgs {
    /// The storage
    #[arg(value_name = "NAME", value_parser = storage_name)]
    name: String,
}

/// Shows a storage.
pub(crate) fn run(context: &Context, args: &ShowArgs) -> anyhow::Result<Outcome> {
    let storage = context.storages.get(&args.name)?;
    let mut out = context.ui.out();
    if context.ui.is_json() {
        out.write_all(&json::line(&json(context, storage)))?;
        out.finish()?;
        return Ok(Outcome::Done);
    }
    let place = if storage.is_configured() {
        format!("[storages.{}]", storage.name)
    } else {
        "the environment".to_owned()
    };
    let mut table = Lines::new(&["Setting", "Value", "From"]);
    let mut row = |key: &str, value: String, from: &str| {
        table.row(vec![key.to_owned(), value, from.to_owned()]);
    };
    row("name", format!("{}:", storage.name), &place);
    row("type", "putio".to_owned(), &place);
    if let Some(account) = &storage.account {
        row("account", text::printable(account), &place);
    }
    let missing = if token_exists(storage) == Some(false) { " (missing)" } else { "" };
    let from = match &storage.token {
        TokenSource::Variable => "the environment",
        _ => place.as_str(),
    };
    row("token", format!("{}{missing}", storage.token.describe()), from);
    for setting in settings(context, storage, &place) {
        row(
            &setting.key,
            text::printable(setting.value.as_str().unwrap_or_default()),
            &setting.source,
        );
    }
    out.write_all(table.render().as_bytes())?;
    out.finish()?;
    Ok(Outcome::Done)
}

/// The same for programs.
pub(super) fn json(context: &Context, storage: &Storage) -> json::storage::Storage {
    let token_file = match &storage.token {
        TokenSource::File(path) => Some(json::name(path.as_os_str().as_encoded_bytes()).0),
        _ => None,
    };
    let place = if storage.is_configured() { "configuration" } else { "environment" };
    json::storage::Storage {
        name: storage.name.clone(),
        kind: "putio",
        account: storage.account.clone(),
        token_source: storage.token.kind(),
        token_file,
        token_exists: token_exists(storage),
        is_configured: storage.is_configured(),
        settings: settings(context, storage, place),
    }
}

/// Whether the file of the token is there, if there is to be one.
fn token_exists(storage: &Storage) -> Option<bool> {
    match &storage.token {
        TokenSource::File(path) => Some(path.exists()),
        _ => None,
    }
}

/// What is set for the storage, and by what; `place` is where its table is.
fn settings(context: &Context, storage: &Storage, place: &str) -> Vec<json::Setting> {
    let mut all = Vec::new();
    let mut add = |key: &str, value: Option<String>, source: &str| {
        if let Some(value) = value {
            all.push(json::Setting {
                key: key.to_owned(),
                value: value.into(),
                source: source.to_owned(),
            });
        }
    };
    add("client-id", storage.client_id.clone(), place);
    for (key, variable, value) in [
        ("api-url", API_URL_VARIABLE, &storage.api_url),
        ("upload-url", UPLOAD_URL_VARIABLE, &storage.upload_url),
    ] {
        match std::env::var(variable).ok().filter(|value| !value.is_empty()) {
            Some(value) => add(key, Some(value), variable),
            None => add(key, value.clone(), place),
        }
    }
    add("skip-trash", storage.skip_trash.then(|| "true".to_owned()), place);
    let limits = open::limits_of(context, storage);
    for key in limits::KEYS {
        let id = key.replace('-', "_");
        let source = match context.origins.of(&id) {
            Origin::Flag => "flag".to_owned(),
            Origin::Environment => format!("PUTBACK_{}", id.to_uppercase()),
            Origin::Profile => {
                format!("profile {}", context.global.profile.as_deref().unwrap_or_default())
            }
            _ if storage.limits.shown(key).is_some() => place.to_owned(),
            _ => "defaults".to_owned(),
        };
        add(key, limits.shown(key), &source);
    }
    all
}
