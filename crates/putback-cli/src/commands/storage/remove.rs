//! `putback storage remove`.

use clap::Args;

use crate::commands::storage::storage_name;
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::storages::token::{self, TokenSource};
use crate::storages::{Storage, display, edit, open, token_file_of};
use crate::ui::json::storage::StorageChange;

/// Forget a storage on this machine
///
/// What is stored there stays. Its table is removed from the configuration file, and the token with
/// its file if that is one of ours.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage remove work\n  \
        putback storage remove work --revoke --yes")]
pub(crate) struct RemoveArgs {
    /// The storage
    #[arg(value_name = "NAME", value_parser = storage_name)]
    name: String,
    /// Also revoke the token at put.io, so that nobody can use it any more
    #[arg(long, env = "PUTBACK_REVOKE")]
    revoke: bool,
    /// Do not ask
    #[arg(short, long, env = "PUTBACK_YES")]
    yes: bool,
}

/// Removes a storage.
pub(crate) fn run(context: &Context, args: &RemoveArgs) -> anyhow::Result<Outcome> {
    let storage = context.storages.get(&args.name)?;
    let Some(source) = &storage.configured else {
        return Err(Failure::usage_with(
            format!("storage '{}' is made by the environment", storage.name),
            "unset the variable that has its token",
        )
        .into());
    };
    if !args.yes && !confirm(context, storage)? {
        context.ui.notice("nothing was changed");
        return Ok(Outcome::Done);
    }
    let revoked = if args.revoke { Some(revoke(context, storage, source)?) } else { None };
    let file = context.storages.file()?;
    edit::remove(file, &storage.name)?;
    let ours = token_file_of(file, &storage.name);
    let mut left = None;
    match source {
        TokenSource::File(path) if *path == ours => token::forget(path)?,
        TokenSource::File(path) => left = Some(display(path)),
        TokenSource::Command(_) | TokenSource::Variable => {}
    }
    if context.ui.is_json() {
        context.ui.json(&StorageChange {
            message_type: "summary",
            action: "removed",
            storage: storage.name.clone(),
            account: None,
            token_revoked: revoked,
        });
        return Ok(Outcome::Done);
    }
    let token = if revoked == Some(true) { ", and its token is revoked at put.io" } else { "" };
    context.ui.say(format_args!("storage '{}' is removed{token}", storage.name));
    if let Some(path) = left {
        context.ui.say(format_args!("the token in {path} was not touched"));
    }
    Ok(Outcome::Done)
}

fn confirm(context: &Context, storage: &Storage) -> anyhow::Result<bool> {
    if !context.ui.can_ask() {
        return Err(Failure::usage_with(
            format!("storage '{}' is removed only if you say so", storage.name),
            "give --yes",
        )
        .into());
    }
    let question = format!("what is stored there stays. Forget storage '{}'?", storage.name);
    Ok(context.confirm(&question)?)
}

/// Revokes the token, unless another storage uses the same one: put.io may give an application the
/// same token at each sign-in.
fn revoke(context: &Context, storage: &Storage, source: &TokenSource) -> anyhow::Result<bool> {
    let token = source.read(&context.ui, &storage.name)?;
    for other in context.storages.all().iter().filter(|other| other.name != storage.name) {
        if let Ok(others) = other.token.read(&context.ui, &other.name)
            && others == token
        {
            context.ui.warning(&format!(
                "the token is not revoked: storage '{}' uses the same one",
                other.name
            ));
            return Ok(false);
        }
    }
    let options = open::client_options(context, storage)?;
    let client = open::client_with(context, storage, token, options)?;
    match open::runtime()?.block_on(client.revoke()) {
        Ok(()) => Ok(true),
        // Then it is of no use to anybody already.
        Err(error) if error.kind == putio::ErrorKind::Unauthorized => Ok(true),
        Err(error) => Err(open::failure(
            storage,
            "the token could not be revoked; nothing was removed",
            error,
        )
        .into()),
    }
}
