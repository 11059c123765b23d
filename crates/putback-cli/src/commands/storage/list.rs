//! `putback storage list`.

use std::io::Write;

use clap::Args;

use crate::commands::storage::show;
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// List storages
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback storage list\n  \
        putback storage list --json")]
pub(crate) struct ListArgs {}

/// Lists storages.
pub(crate) fn run(context: &Context, ListArgs {}: &ListArgs) -> anyhow::Result<Outcome> {
    let all = context.storages.all();
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let all: Vec<_> = all.iter().map(|storage| show::json(context, storage)).collect();
        out.write_all(&json::line(&all))?;
        out.finish()?;
        return Ok(Outcome::Done);
    }
    if all.is_empty() {
        out.finish()?;
        context.ui.notice("there are no storages; `putback login` adds one of put.io");
        return Ok(Outcome::Done);
    }
    let mut table = Lines::new(&["Name", "Type", "Account", "Token"]);
    for storage in all {
        table.row(vec![
            format!("{}:", storage.name),
            "putio".to_owned(),
            storage.account.as_deref().map_or_else(String::new, text::printable),
            storage.token.describe(),
        ]);
    }
    out.write_all(table.render().as_bytes())?;
    out.finish()?;
    Ok(Outcome::Done)
}
