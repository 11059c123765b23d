//! `putback diff`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use putback_engine::diff::{self, Change, DiffOptions, DiffReport, Difference};

use crate::bytes;
use crate::commands::select::{FilterArgs, SnapshotPath};
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::progress::{self, Kind};
use crate::ui::{json, text};

/// Compare two snapshots, or a snapshot with a local folder
///
/// Each line begins with what happened: + added, - removed, M content changed, T type changed,
/// ? content differs although size and times are equal, and if asked for U metadata changed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback diff latest~1 latest\n  \
        putback diff 1a2b3c4d:/etc 5e6f7a8b:/etc --metadata\n  \
        putback diff latest:/home/ada /home/ada")]
pub(crate) struct DiffArgs {
    /// The old state
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = SnapshotPath::parser())]
    old: SnapshotPath,
    /// The new state; what begins with / or . is a local folder
    #[arg(value_name = "SNAPSHOT[:PATH]|FOLDER")]
    new: OsString,
    /// Also show entries whose owner, mode or times alone have changed
    #[arg(long, env = "PUTBACK_METADATA")]
    metadata: bool,
    /// Read every local file, also those whose size and time say that they are unchanged
    #[arg(long, env = "PUTBACK_CONTENT")]
    content: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Compares.
pub(crate) fn run(context: &Context, args: &DiffArgs) -> anyhow::Result<Outcome> {
    let raw = args.new.as_encoded_bytes();
    let folder = raw
        .first()
        .is_some_and(|byte| matches!(byte, b'/' | b'.'))
        .then(|| PathBuf::from(&args.new));
    let new = match &folder {
        Some(_) => None,
        None => Some(SnapshotPath::parse(&args.new)?),
    };
    let repository = context.open()?;
    let old = args.old.find(&repository, &args.filter)?;
    let new = match &new {
        Some(wanted) => Some((wanted.find(&repository, &args.filter)?, &wanted.path)),
        None => None,
    };
    context.show_warnings(&repository);
    let options = DiffOptions { metadata: args.metadata, content: args.content };
    let mut out = context.ui.out();
    let mut failure = None;
    let is_json = context.ui.is_json();
    let mut show = |difference: Difference| {
        if failure.is_none() {
            let result = match is_json {
                true => out.write_all(&json::line(&change(&difference))),
                false => writeln!(out, "{}    {}", modifier(difference.change), path(&difference)),
            };
            failure = result.err();
        }
    };
    let from = (&old.snapshot, args.old.path.as_slice());
    let report = match (&new, &folder) {
        (Some((stored, path)), _) => diff::diff_snapshots(
            &repository,
            from,
            (&stored.snapshot, path.as_slice()),
            &options,
            &mut show,
        )?,
        (None, Some(folder)) => {
            let observer = progress::Problems::new(&context.ui, Kind::Diff, "diff");
            diff::diff_local(&repository, from, folder, &options, &mut show, &observer)?
        }
        (None, None) => DiffReport::default(),
    };
    if let Some(error) = failure {
        return Err(error.into());
    }
    if is_json {
        out.write_all(&json::line(&json::DiffSummary {
            message_type: "statistics",
            source_snapshot: old.id.to_string(),
            target_snapshot: new.as_ref().map(|(stored, _)| stored.id.to_string()),
            target_folder: folder
                .as_ref()
                .map(|folder| json::name(&bytes::of(folder.as_os_str())).0),
            changed_files: report.modified_files,
            metadata_changed: report.metadata_changed,
            type_changed: report.type_changed,
            added: json::DiffCounts {
                files: report.added_files,
                dirs: report.added_directories,
                bytes: report.added_bytes,
            },
            removed: json::DiffCounts {
                files: report.removed_files,
                dirs: report.removed_directories,
                bytes: report.removed_bytes,
            },
        }))?;
    } else if !context.ui.is_quiet() {
        writeln!(out, "{}", summary(&report))?;
    }
    out.finish()?;
    Ok(Outcome::of_problems(report.problems))
}

fn modifier(change: Change) -> &'static str {
    match change {
        Change::Added => "+",
        Change::Removed => "-",
        Change::Modified => "M",
        Change::Metadata => "U",
        Change::TypeChanged => "T",
        Change::Suspicious => "?",
    }
}

fn path(difference: &Difference) -> String {
    let mut path = text::escaped(&difference.path);
    if difference.is_directory && !path.ends_with('/') {
        path.push('/');
    }
    path
}

fn change(difference: &Difference) -> json::Change {
    let (path, path_base64) = json::name(&difference.path);
    json::Change {
        message_type: "change",
        path,
        path_base64,
        modifier: modifier(difference.change),
        is_directory: difference.is_directory,
        bytes_old: difference.bytes_old,
        bytes_new: difference.bytes_new,
    }
}

fn summary(report: &DiffReport) -> String {
    format!(
        "files: {} added, {} removed, {} changed, {} with other metadata, {} of another type; \
         folders: {} added, {} removed; {} added, {} removed",
        text::count(report.added_files),
        text::count(report.removed_files),
        text::count(report.modified_files),
        text::count(report.metadata_changed),
        text::count(report.type_changed),
        text::count(report.added_directories),
        text::count(report.removed_directories),
        text::bytes(report.added_bytes),
        text::bytes(report.removed_bytes),
    )
}
