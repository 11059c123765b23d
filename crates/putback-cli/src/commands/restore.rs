//! `putback restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use putback_engine::restore::{self, Overwrite, RestoreOptions, RestoreReport};

use crate::commands::select::{FilterArgs, SnapshotPath, warn_of_checkpoint};
use crate::context::{self, Context};
use crate::location;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Put files back from a snapshot
///
/// With SNAPSHOT:PATH the content of that folder, or that file, goes into the target. Files in the
/// target that already hold the right bytes are kept; other files there stay unless --delete is
/// given, which also deletes what the backup was told to exclude: the snapshot does not know of it.
/// Nothing is ever written outside the target. An interrupted restore continues when the
/// command is run again.
///
/// Patterns of --include and --exclude are compared with absolute paths in the snapshot, also where
/// SNAPSHOT:PATH restores only a part: '/home/ada/*.txt' begins at the root, '*.txt' and 'notes'
/// match at any depth. What a pattern matches is taken or left out with everything below.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback restore latest --target /tmp/restored\n  \
        putback restore latest:/home/ada/Documents --target ~/Documents --overwrite if-newer\n  \
        putback restore latest --target /tmp/restored --include '*.odt' --exclude /home/ada/tmp\n  \
        putback restore 1a2b3c4d --target / --include /etc --dry-run")]
pub(crate) struct RestoreArgs {
    /// latest, latest~N, an id or its beginning; with :PATH, only what is there
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = SnapshotPath::parser())]
    snapshot: SnapshotPath,
    /// Folder that is restored into; made if it does not exist
    #[arg(short, long, env = "PUTBACK_TARGET", value_name = "DIR")]
    target: Option<PathBuf>,
    /// Restore only what matches: 'name' at any depth, '/path' from the snapshot's root
    #[arg(short, long, env = "PUTBACK_INCLUDE", value_name = "PATTERN")]
    include: Vec<String>,
    /// The same, upper and lower case being equal
    #[arg(long, env = "PUTBACK_IINCLUDE", value_name = "PATTERN")]
    iinclude: Vec<String>,
    /// Restore all but what matches; '!pattern' takes back
    #[arg(short, long, env = "PUTBACK_EXCLUDE", value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, upper and lower case being equal
    #[arg(long, env = "PUTBACK_IEXCLUDE", value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// What to do with files that exist
    #[arg(long, env = "PUTBACK_OVERWRITE", value_name = "WHEN", default_value = "always")]
    overwrite: OverwriteArg,
    /// Delete what is in restored folders and not in the snapshot, also what the backup excluded; not
    /// what is mounted there, what the backup could not read, or a repository
    #[arg(long, env = "PUTBACK_DELETE")]
    delete: bool,
    /// Make holes where a file has long runs of zeros, besides those it had
    #[arg(long, env = "PUTBACK_SPARSE")]
    sparse: bool,
    /// Read all restored files again and compare
    #[arg(long, env = "PUTBACK_VERIFY")]
    verify: bool,
    /// Restore owners by number even where this machine knows their names
    #[arg(long, env = "PUTBACK_NUMERIC_OWNER")]
    numeric_owner: bool,
    /// Do not restore owners
    #[arg(long, env = "PUTBACK_NO_OWNER")]
    no_owner: bool,
    /// Write nothing; list what would be restored, changed and deleted
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// `--overwrite`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteArg {
    /// Replace whatever differs from the snapshot, looking at content
    Always,
    /// Trust files whose size and time are those of the snapshot
    IfChanged,
    /// Replace only files that are older than the snapshot's
    IfNewer,
    /// Keep every file that exists
    Never,
}

impl From<OverwriteArg> for Overwrite {
    fn from(overwrite: OverwriteArg) -> Self {
        match overwrite {
            OverwriteArg::Always => Self::Always,
            OverwriteArg::IfChanged => Self::IfChanged,
            OverwriteArg::IfNewer => Self::IfNewer,
            OverwriteArg::Never => Self::Never,
        }
    }
}

/// Restores.
pub(crate) fn run(context: &Context, args: RestoreArgs) -> anyhow::Result<Outcome> {
    let target =
        args.target.clone().filter(|target| !target.as_os_str().is_empty()).ok_or_else(|| {
            Failure::usage_with(
                "no target was given",
                "say where to restore to: --target DIR (--target / for the original place)",
            )
        })?;
    let repository = context.open()?;
    let stored = args.snapshot.find(&repository, &args.filter)?;
    warn_of_checkpoint(context, &stored);
    let cancel = context.interrupt.cancel("stopping");
    let options = RestoreOptions {
        target: context::absolute(&target)?,
        include: args.include,
        exclude: args.exclude,
        iinclude: args.iinclude,
        iexclude: args.iexclude,
        overwrite: args.overwrite.into(),
        delete: args.delete,
        sparse: args.sparse,
        verify: args.verify,
        numeric_owner: args.numeric_owner,
        no_owner: args.no_owner,
        dry_run: args.dry_run,
        workers: context.workers(),
        repository_folder: location::local_folder(&context.location()?)?,
        cancel,
    };
    if !context.ui.is_json() {
        let (id, time) = (stored.id.short(), text::time(stored.snapshot.time));
        let target = text::escaped(options.target.as_os_str().as_encoded_bytes());
        context.ui.say(format_args!("restoring snapshot {id} of {time} to {target}"));
    }
    let entries = Entries::wanted(&context.ui, args.dry_run);
    let report = progress::watch(&context.ui, Kind::Restore, entries, |observer| {
        restore::restore(&repository, &stored.snapshot, &args.snapshot.path, &options, observer)
    })?;
    context.show_warnings(&repository);
    show(context, &report, args.dry_run);
    if let Some(failure) = report.failure {
        return Err(failure.into());
    }
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::of_problems(report.problems))
}

fn show(context: &Context, report: &RestoreReport, dry_run: bool) {
    let ui = &context.ui;
    if ui.is_json() {
        ui.json_summary(&json::RestoreSummary {
            message_type: "summary",
            dry_run,
            seconds_elapsed: report.duration.as_secs(),
            total_files: report.files_total,
            total_others: report.others_total,
            files_restored: report.files_restored,
            files_updated: report.files_updated,
            files_unchanged: report.files_unchanged,
            files_skipped: report.files_skipped,
            files_deleted: report.files_deleted,
            total_bytes: report.bytes_total,
            bytes_restored: report.bytes_written,
            bytes_skipped: report.bytes_reused,
            error_count: report.problems,
            errors_lost: report.problems_lost,
            is_interrupted: report.is_interrupted,
        });
        return;
    }
    let verb = if dry_run { "to restore:" } else { "restored:  " };
    ui.say(format_args!(
        "{verb} {} new, {} changed, {} already right, {} kept, {} deleted; \
         {} written, {} reused in {}",
        text::count(report.files_restored),
        text::count(report.files_updated),
        text::count(report.files_unchanged),
        text::count(report.files_skipped),
        text::count(report.files_deleted),
        text::bytes(report.bytes_written),
        text::bytes(report.bytes_reused),
        text::duration(report.duration.as_secs()),
    ));
    ui.say(format_args!(
        "in all:     {}, {}, {}",
        text::counted(report.files_total - report.others_total, "file", "files"),
        text::counted(report.others_total, "link or special file", "links and special files"),
        text::bytes(report.bytes_total),
    ));
    if dry_run {
        ui.say(format_args!("dry run: nothing was written"));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; run the same command again to continue");
    } else if report.problems > 0 {
        ui.warning(&format!(
            "{} could not be restored completely; see above",
            text::counted(report.problems, "entry", "entries")
        ));
    }
    if report.problems_lost > 0 {
        ui.hint(
            "`putback check --read-data` lists what is lost, and `putback repair packs` saves what is left; an \
             earlier snapshot may have other versions of these files",
        );
    }
}
