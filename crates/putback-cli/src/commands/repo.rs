//! `putback repo`.

use std::io::Write;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::report::Outcome;
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Look at the repository itself
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
        putback repo info --human")]
pub(crate) struct RepoArgs {
    #[command(subcommand)]
    command: RepoCommand,
}

#[derive(Subcommand, Debug)]
enum RepoCommand {
    /// Show its settings and what it takes on its storage
    #[command(after_help = "Example:\n  \
            putback repo info --human")]
    Info(InfoArgs),
}

#[derive(Args, Debug)]
struct InfoArgs {
    /// Show sizes as 1.5 GiB
    #[arg(long, env = "PUTBACK_HUMAN")]
    human: bool,
}

/// Looks at the repository.
pub(crate) fn run(context: &Context, args: &RepoArgs) -> anyhow::Result<Outcome> {
    let RepoCommand::Info(args) = &args.command;
    let repository = context.open()?;
    let config = repository.config();
    let stats = repository.stats()?;
    let slots = repository.slots()?.len() as u64;
    context.show_warnings(&repository);
    let total_bytes =
        stats.pack_bytes + stats.segment_bytes + stats.snapshot_bytes + stats.other_bytes;
    let mut out = context.ui.out();
    if context.ui.is_json() {
        out.write_all(&json::line(&json::RepositoryInfo {
            id: config.repository.to_string(),
            repository: repository.location(),
            created: text::exact_time(config.created),
            generation: config.generation,
            key_epoch: config.epoch,
            pack_bytes: config.pack_bytes,
            chunk_bytes_average: config.chunker.bytes_average,
            compression_level: config.compression_level,
            key_slots: slots,
            snapshots: stats.snapshots,
            packs: stats.packs,
            pack_bytes_total: stats.pack_bytes,
            index_segments: stats.segments,
            index_segments_replaced: stats.segments_replaced,
            index_bytes: stats.segment_bytes,
            data_blobs: stats.data_blobs,
            data_bytes: stats.data_blob_bytes,
            tree_blobs: stats.tree_blobs,
            tree_bytes: stats.tree_blob_bytes,
            marks: stats.marks,
            other_bytes: stats.other_bytes,
            total_bytes,
        }))?;
        out.finish()?;
        return Ok(Outcome::Done);
    }
    writeln!(
        out,
        "repository   {} at {}",
        config.repository,
        text::printable(&repository.location())
    )?;
    writeln!(
        out,
        "settings     since {} (generation {})",
        text::time(config.created),
        config.generation
    )?;
    writeln!(
        out,
        "packs of     {}, pieces of {} on average, compression {}",
        text::bytes(config.pack_bytes),
        text::bytes(u64::from(config.chunker.bytes_average)),
        config.compression_level
    )?;
    writeln!(out, "passwords    {slots} (key epoch {})", config.epoch)?;
    writeln!(out)?;
    let mut table = Lines::new(&["What", ">Count", ">Bytes"]);
    let bytes = |value| text::table_bytes(value, args.human);
    for (name, count, size) in [
        ("packs", stats.packs, stats.pack_bytes),
        ("index segments", stats.segments, stats.segment_bytes),
        ("snapshots", stats.snapshots, stats.snapshot_bytes),
    ] {
        table.row(vec![name.to_owned(), count.to_string(), bytes(size)]);
    }
    table.row(vec!["marks".to_owned(), stats.marks.to_string(), String::new()]);
    table.row(vec!["everything else".to_owned(), String::new(), bytes(stats.other_bytes)]);
    table.row(vec!["in all".to_owned(), String::new(), bytes(total_bytes)]);
    table.row(vec![
        "data in packs, plain".to_owned(),
        stats.data_blobs.to_string(),
        bytes(stats.data_blob_bytes),
    ]);
    table.row(vec![
        "trees in packs, plain".to_owned(),
        stats.tree_blobs.to_string(),
        bytes(stats.tree_blob_bytes),
    ]);
    out.write_all(table.render().as_bytes())?;
    out.finish()?;
    Ok(Outcome::Done)
}
