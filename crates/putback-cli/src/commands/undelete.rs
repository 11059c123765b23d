//! `putback undelete`.

use std::io::Write;

use clap::Args;
use putback_repo::{Error, Repository, StoredSnapshot, Undeleted};

use crate::commands::select::FilterArgs;
use crate::commands::snapshots::{joined_paths, shown_tags};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Bring forgotten snapshots back
///
/// Without arguments: list those that can come back. That is so until prune has removed them. What
/// comes back holds the same and has a new id.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback undelete\n  \
        putback undelete 1a2b3c4d\n  \
        putback undelete --all --host laptop")]
pub(crate) struct UndeleteArgs {
    /// Ids of forgotten snapshots, or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// List what can come back, and change nothing
    #[arg(long, env = "PUTBACK_LIST")]
    list: bool,
    /// Bring back all that the filters choose
    #[arg(long, env = "PUTBACK_ALL")]
    all: bool,
    /// Change nothing; show what would come back
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Lists, or brings back.
pub(crate) fn run(context: &Context, args: &UndeleteArgs) -> anyhow::Result<Outcome> {
    if args.all && !args.snapshots.is_empty() {
        return Err(Failure::usage("snapshots are named, and --all is given").into());
    }
    let chooses = args.all || !args.snapshots.is_empty();
    let is_listing = args.list || !chooses;
    if args.list && chooses {
        return Err(Failure::usage("--list brings nothing back; leave it out, or the rest").into());
    }
    let repository = context.open()?;
    let chosen = if args.snapshots.is_empty() {
        absent(&repository, &args.filter)?
    } else {
        named(context, &repository, &args.snapshots)?
    };
    context.show_warnings(&repository);
    if is_listing || args.dry_run {
        list(context, &chosen, args.dry_run)?;
        return Ok(Outcome::Done);
    }
    let report = match chosen.is_empty() {
        true => Undeleted::default(),
        false => {
            let cancel = context.interrupt.cancel("stopping");
            repository.undelete(&chosen, context.workers(), &cancel)?
        }
    };
    context.show_warnings(&repository);
    show(context, &report);
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    if report.written.is_empty() && !report.failed.is_empty() {
        return Err(Failure::other(
            "no snapshot came back",
            "prune has removed part of what they held; `putback undelete` lists what is left",
        )
        .into());
    }
    Ok(Outcome::of_problems(report.failed.len() as u64))
}

/// Forgotten snapshots that the filters choose and that are not there again, oldest first. Of several that
/// hold the same, the last that was written.
fn absent(repository: &Repository, filter: &FilterArgs) -> anyhow::Result<Vec<StoredSnapshot>> {
    let filter = filter.filter()?;
    let mut everything = filter.clone();
    (everything.hosts, everything.tags, everything.paths) = Default::default();
    everything.include_checkpoints = true;
    let living = repository.snapshots(&everything)?;
    let mut chosen: Vec<StoredSnapshot> = Vec::new();
    for stored in repository.forgotten()? {
        if !filter.matches(&stored.snapshot) || living.iter().any(|other| other.is_like(&stored)) {
            continue;
        }
        match chosen.iter_mut().find(|other| other.is_like(&stored)) {
            Some(other) if other.snapshot.sequence < stored.snapshot.sequence => *other = stored,
            Some(_) => {}
            None => chosen.push(stored),
        }
    }
    Ok(chosen)
}

/// The forgotten snapshots with these ids, but for those that are there as they were.
fn named(
    context: &Context,
    repository: &Repository,
    ids: &[String],
) -> anyhow::Result<Vec<StoredSnapshot>> {
    let all = putback_repo::SnapshotFilter {
        include_checkpoints: true,
        ..putback_repo::SnapshotFilter::default()
    };
    let living = repository.snapshots(&all)?;
    let mut chosen: Vec<StoredSnapshot> = Vec::new();
    for id in ids {
        let found = repository.find_forgotten(id).map_err(not_forgotten)?;
        if chosen.iter().any(|known| known.id == found.id) {
            continue;
        }
        let same = living.iter().find(|other| {
            let (a, b) = (&other.snapshot, &found.snapshot);
            other.is_like(&found)
                && (&a.tags, &a.host, &a.description) == (&b.tags, &b.host, &b.description)
        });
        match same {
            Some(same) => context.ui.warning(&format!(
                "snapshot {} is there already, as {}",
                found.id.short(),
                same.id.short()
            )),
            None => chosen.push(found),
        }
    }
    Ok(chosen)
}

/// Other ids are of use here than elsewhere.
fn not_forgotten(error: Error) -> anyhow::Error {
    const LISTED: &str = "`putback undelete --list` shows those that can come back";
    match error {
        Error::BadSelector { selector } => {
            let message = format!(
                "'{selector}' is not a forgotten snapshot: use its id, or the beginning of it"
            );
            Failure::usage_with(text::printable(&message), LISTED).into()
        }
        Error::NoSnapshot { selector } => {
            Failure::other(format!("no forgotten snapshot matches '{selector}'"), LISTED).into()
        }
        error => error.into(),
    }
}

fn list(context: &Context, snapshots: &[StoredSnapshot], dry_run: bool) -> anyhow::Result<()> {
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let all: Vec<json::Snapshot> = snapshots.iter().map(Into::into).collect();
        out.write_all(&json::line(&all))?;
    } else {
        let mut table = Lines::new(&["ID", "Time", "Host", "Tags", "Paths"]);
        for stored in snapshots {
            table.row(vec![
                stored.id.short(),
                text::time(stored.snapshot.time),
                text::printable(&stored.snapshot.host),
                shown_tags(&stored.snapshot),
                joined_paths(&stored.snapshot.paths),
            ]);
        }
        if !snapshots.is_empty() {
            out.write_all(table.render().as_bytes())?;
        }
        if !context.ui.is_quiet() {
            let count =
                text::counted(snapshots.len() as u64, "forgotten snapshot", "forgotten snapshots");
            let verb = if dry_run { "would come back" } else { "can be brought back" };
            writeln!(out, "{count} {verb}")?;
            if dry_run {
                writeln!(out, "dry run: nothing was changed")?;
            }
        }
    }
    out.finish()?;
    Ok(())
}

fn show(context: &Context, report: &Undeleted) {
    let ui = &context.ui;
    for (old, new) in &report.written {
        if ui.is_json() {
            ui.json(&json::Replaced {
                message_type: "undeleted",
                old_snapshot_id: old.to_string(),
                new_snapshot_id: new.to_string(),
            });
        } else {
            ui.say(format_args!("snapshot {} is back as {}", old.short(), new.short()));
        }
    }
    for (id, error) in &report.failed {
        let message = format!("snapshot {} cannot come back", id.short());
        if ui.is_json() {
            let message = &format!("{message}: {}", text::printable(&error.to_string()));
            ui.json_error(&json::SnapshotError {
                message_type: "error",
                error: json::ErrorMessage { message },
                during: "undelete",
                item: id.to_string(),
            });
        } else {
            ui.error(&message, &[text::printable(&error.to_string())], None);
        }
    }
    if ui.is_json() {
        ui.json(&json::UndeleteSummary {
            message_type: "summary",
            undeleted_snapshots: report.written.len() as u64,
            error_count: report.failed.len() as u64,
            is_interrupted: report.is_interrupted,
        });
    } else if report.is_interrupted {
        ui.interrupted("interrupted; run the same command again for the others");
    } else if report.written.is_empty() && report.failed.is_empty() {
        ui.say(format_args!("nothing to bring back"));
    }
}
