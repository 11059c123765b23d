//! `putback storage about`.

use std::io::Write;

use clap::Args;
use putio::Account;

use crate::commands::storage::storage_name;
use crate::context::Context;
use crate::report::Outcome;
use crate::storages::open;
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Show whose storage it is, and how much space it has
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage about putio\n  \
        putback storage about putio --json")]
pub(crate) struct AboutArgs {
    /// The storage
    #[arg(value_name = "NAME", value_parser = storage_name)]
    name: String,
}

/// Asks put.io.
pub(crate) fn run(context: &Context, args: &AboutArgs) -> anyhow::Result<Outcome> {
    let storage = context.storages.get(&args.name)?;
    let client = open::client(context, storage)?;
    let account = open::runtime()?.block_on(client.account()).map_err(|error| {
        let message = format!("cannot ask put.io about storage '{}'", storage.name);
        open::failure(storage, &message, error)
    })?;
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let (name, disk) = (storage.name.clone(), account.disk);
        out.write_all(&json::line(&json::storage::About {
            storage: name,
            kind: "putio",
            username: account.username.clone(),
            user_id: account.user_id,
            mail: account.mail.clone(),
            status: account.status.clone(),
            bytes_total: disk.size,
            bytes_used: disk.used,
            bytes_free: disk.available,
            bytes_trash: account.trash_size,
            files_will_be_deleted_at: account.files_will_be_deleted_at.clone(),
        }))?;
    } else {
        out.write_all(table(&storage.name, &account).as_bytes())?;
    }
    out.finish()?;
    warn(context, &account);
    Ok(Outcome::Done)
}

fn table(name: &str, account: &Account) -> String {
    let mail = account.mail.as_deref().filter(|mail| !mail.is_empty());
    let mail = mail.map_or_else(String::new, |mail| format!(" ({})", text::printable(mail)));
    let mut table = Lines::new(&["Storage", &format!("{name}:")]);
    let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    row("account", format!("{}{mail}", text::printable(&account.username)));
    if let Some(status) = account.status.as_deref() {
        row("status", text::printable(status));
    }
    row("space", text::bytes(account.disk.size));
    let percent = match account.disk.size {
        0 => String::new(),
        size => format!(" ({:.0} %)", account.disk.used as f64 * 100.0 / size as f64),
    };
    row("used", format!("{}{percent}", text::bytes(account.disk.used)));
    row("free", text::bytes(account.disk.available));
    if let Some(trash) = account.trash_size {
        row("in trash", text::bytes(trash));
    }
    table.render()
}

/// Says what its owner has to do something about.
fn warn(context: &Context, account: &Account) {
    if let Some(time) = &account.files_will_be_deleted_at {
        context.ui.warning(&format!(
            "put.io will delete all files of this account on {}: its plan has ended; renew it, or \
             copy what you need",
            text::printable(time)
        ));
    } else if account.status.as_deref().is_some_and(|status| status != "active") {
        context.ui.warning("the account has no active plan; nothing more can be stored");
    }
}
