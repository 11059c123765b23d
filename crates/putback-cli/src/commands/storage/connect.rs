//! What `login`, `storage add` and `storage reconnect` have in common: sign in, then write down.
//!
//! Everything that can fail because of the user or the service comes before the first write.

use std::path::Path;

use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::sign_in::{SignInArgs, SignedIn};
use crate::storages::edit::{self, Changes};
use crate::storages::limits::{self, Limits};
use crate::storages::token::{self, TokenSource};
use crate::storages::{Storage, TOKEN_VARIABLE, display, name, relative_token_file, token_file_of};
use crate::ui::json::storage::{Account, StorageChange};
use crate::ui::text;

/// Signs in to a storage that is new, and adds it.
pub(crate) fn add(context: &Context, name: &str, args: &SignInArgs) -> anyhow::Result<Outcome> {
    name::check(name)?;
    let same = |other: &&Storage| other.name.eq_ignore_ascii_case(name) && other.name != name;
    if let Some(other) = context.storages.all().iter().find(same) {
        return Err(Failure::usage(format!(
            "the storage '{}' differs from '{name}' in upper and lower case only",
            other.name
        ))
        .into());
    }
    let file = context.storages.file()?;
    let mut storage = Storage::new(name, TokenSource::File(token_file_of(file, name)));
    storage.limits = context.global.limits.flags_only(&context.origins);
    args.apply(context, &mut storage);
    let signed_in = args.sign_in(context, &storage)?;
    let mut changes = Changes::default();
    changes.set("type", "putio");
    write_down(context, &storage, &signed_in, changes)?;
    report(context, &storage, &signed_in, "added");
    Ok(Outcome::Done)
}

/// Signs in again to a storage that is configured. Its other settings stay.
pub(crate) fn reconnect(
    context: &Context,
    configured: &Storage,
    args: &SignInArgs,
) -> anyhow::Result<Outcome> {
    let mut storage = configured.clone();
    args.apply(context, &mut storage);
    let signed_in = args.sign_in(context, &storage)?;
    if let Some(before) =
        configured.account.as_ref().filter(|name| **name != signed_in.account.username)
    {
        // The repositories of the one are not in the other; nobody would understand what follows.
        return Err(Failure::other(
            format!(
                "this is the account {}, and storage '{}' is of {}; nothing was changed",
                text::printable(&signed_in.account.username),
                storage.name,
                text::printable(before)
            ),
            format!(
                "sign in as {}, or add the other account: putback login --name NAME",
                text::printable(before)
            ),
        )
        .into());
    }
    write_down(context, &storage, &signed_in, Changes::default())?;
    report(context, &storage, &signed_in, "reconnected");
    Ok(Outcome::Done)
}

/// Keeps the token and writes down the storage.
fn write_down(
    context: &Context,
    storage: &Storage,
    signed_in: &SignedIn,
    mut changes: Changes,
) -> anyhow::Result<()> {
    let file = context.storages.file()?;
    // From here on an interrupt waits: a token without its table is of no use, nor the reverse.
    let _ = context.interrupt.cancel("writing down the sign-in");
    changes.set("account", signed_in.account.username.as_str());
    match &signed_in.source {
        Some(TokenSource::Command(command)) => {
            let command = command.to_str().ok_or_else(|| not_text("the command"))?;
            changes.set("token-command", command);
            changes.remove("token-file");
        }
        Some(TokenSource::File(path)) => {
            changes.set("token-file", path_text(path)?);
            changes.remove("token-command");
        }
        // Kept in a file of ours: the one that the table has, or else the usual one.
        Some(TokenSource::Variable) | None => {
            if elsewhere(storage, file).is_none() {
                changes.set("token-file", relative_token_file(&storage.name));
                changes.remove("token-command");
            }
        }
    }
    if let Some(client_id) = &signed_in.client_id {
        changes.set("client-id", client_id.as_str());
    }
    for (key, value) in [("api-url", &storage.api_url), ("upload-url", &storage.upload_url)] {
        if let Some(url) = value {
            changes.set(key, url.as_str());
        }
    }
    set_limits(&mut changes, &context.global.limits.flags_only(&context.origins))?;
    if signed_in.source.is_some() {
        return edit::set(file, &storage.name, &changes);
    }
    let path = elsewhere(storage, file)
        .map_or_else(|| token_file_of(file, &storage.name), Path::to_path_buf);
    let is_new = !path.exists();
    token::keep(&path, &signed_in.token)?;
    edit::set(file, &storage.name, &changes).inspect_err(|_| {
        if is_new {
            // A token that nothing refers to is of no use to anybody.
            drop(token::forget(&path));
        }
    })
}

/// The file that the storage's table names for its token, if it is not the usual one.
fn elsewhere<'a>(storage: &'a Storage, file: &Path) -> Option<&'a Path> {
    match &storage.configured {
        Some(TokenSource::File(path)) if *path != token_file_of(file, &storage.name) => Some(path),
        _ => None,
    }
}

fn set_limits(changes: &mut Changes, limits: &Limits) -> Result<(), Failure> {
    for key in limits::KEYS {
        if *key == "cacert" {
            if let Some(path) = &limits.cacert {
                let path = std::path::absolute(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", display(path))))?;
                changes.set(key, path_text(&path)?);
            }
        } else if let Some(value) = limits.shown(key) {
            match (value.parse::<i64>(), value.parse::<f64>()) {
                (Ok(number), _) => changes.set(key, number),
                (_, Ok(number)) => changes.set(key, number),
                _ => changes.set(key, value),
            }
        }
    }
    Ok(())
}

fn path_text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| not_text(&display(path)))
}

fn not_text(what: &str) -> Failure {
    Failure::usage(format!("{what} is not UTF-8, and cannot be kept in a configuration file"))
}

/// Says who has signed in to what.
fn report(context: &Context, storage: &Storage, signed_in: &SignedIn, action: &'static str) {
    let account = &signed_in.account;
    if context.ui.is_json() {
        context.ui.json(&StorageChange {
            message_type: "summary",
            action,
            storage: storage.name.clone(),
            account: Some(Account {
                username: account.username.clone(),
                user_id: account.user_id,
                bytes_total: account.disk.size,
                bytes_used: account.disk.used,
                bytes_free: account.disk.available,
            }),
            token_revoked: None,
        });
        return;
    }
    let ui = &context.ui;
    let mail = account.mail.as_deref().filter(|mail| !mail.is_empty());
    let mail = mail.map_or_else(String::new, |mail| format!(" ({})", text::printable(mail)));
    ui.say(format_args!(
        "signed in to put.io as {}{mail}: {} free of {}",
        text::printable(&account.username),
        text::bytes(account.disk.available),
        text::bytes(account.disk.size),
    ));
    if action == "added" {
        ui.say(format_args!(
            "storage '{0}' is ready; a repository goes to {0}:PATH, as in\n  \
             putback --repo {0}:backups/{1} init",
            storage.name,
            host()
        ));
    } else {
        ui.say(format_args!("storage '{}' is connected again", storage.name));
    }
    let is_set = std::env::var_os(TOKEN_VARIABLE).is_some_and(|value| !value.is_empty());
    if is_set && storage.name == crate::storages::DEFAULT_NAME {
        ui.warning(&format!("as long as {TOKEN_VARIABLE} is set, its token is used instead"));
    }
}

/// The name of this machine, if a folder could be called that.
fn host() -> String {
    let name = crate::context::host_name();
    let name = name.split('.').next().unwrap_or_default();
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_plain && !name.is_empty() { name.to_owned() } else { "laptop".to_owned() }
}
