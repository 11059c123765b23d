//! `putback stats`.

use std::io::Write;

use clap::Args;
use putback_engine::stats;

use crate::commands::select::FilterArgs;
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Count what snapshots hold
///
/// Without ids all snapshots are counted together. What the repository takes on its storage is
/// shown by `putback repo info`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback stats\n  \
        putback stats latest --human\n  \
        putback stats --host laptop --tag daily")]
pub(crate) struct StatsArgs {
    /// Only these: latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Show sizes as 1.5 GiB
    #[arg(long, env = "PUTBACK_HUMAN")]
    human: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Counts.
pub(crate) fn run(context: &Context, args: &StatsArgs) -> anyhow::Result<Outcome> {
    let repository = context.open()?;
    let snapshots = args.filter.choose(&repository, &args.snapshots)?;
    context.show_warnings(&repository);
    let found = stats::stats(&repository, &snapshots)?;
    let mut out = context.ui.out();
    if context.ui.is_json() {
        out.write_all(&json::line(&json::SnapshotStats {
            snapshots_count: found.snapshots,
            total_file_count: found.files,
            directories: found.directories,
            others: found.others,
            total_size: found.restore_bytes,
            unique_blobs: found.unique_blobs,
            unique_bytes: found.unique_bytes,
        }))?;
    } else {
        let mut table = Lines::new(&["What", ">Count", ">Bytes"]);
        let bytes = |value| text::table_bytes(value, args.human);
        table.row(vec!["snapshots".to_owned(), found.snapshots.to_string(), String::new()]);
        table.row(vec!["files".to_owned(), found.files.to_string(), bytes(found.restore_bytes)]);
        table.row(vec!["folders".to_owned(), found.directories.to_string(), String::new()]);
        table.row(vec!["other entries".to_owned(), found.others.to_string(), String::new()]);
        table.row(vec![
            "distinct pieces".to_owned(),
            found.unique_blobs.to_string(),
            bytes(found.unique_bytes),
        ]);
        out.write_all(table.render().as_bytes())?;
    }
    out.finish()?;
    Ok(Outcome::Done)
}
