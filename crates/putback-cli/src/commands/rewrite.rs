//! `putback rewrite`.

use std::path::PathBuf;

use clap::Args;
use jiff::Zoned;
use putback_engine::backup::FilterOptions;
use putback_engine::rewrite::{self, RewriteOptions, RewriteReport, Rewritten};
use putback_format::id::SnapshotId;
use putback_format::tree::Timestamp;
use putback_repo::SnapshotDraft;

use crate::args::Origin;
use crate::commands::select::FilterArgs;
use crate::commands::tag::{self, TagChanges};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Remove paths from snapshots, or change what is said of them
///
/// Without SNAPSHOT: of all that the filters choose. A snapshot that changes has a new id, and the old one is
/// forgotten: `putback undelete` brings it back until prune has removed it. Patterns are those of
/// `putback backup`; what they match goes with all that lies below it.
///
/// What was removed leaves the storage when no snapshot holds it any more, the old ones being
/// forgotten, and `putback prune --purge` has run, and after the grace period once more.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback rewrite --exclude '/home/*/.cache' --dry-run\n  \
        putback rewrite --exclude secret.key && putback prune --purge\n  \
        putback rewrite --set-host laptop --host localhost 1a2b3c4d")]
pub(crate) struct RewriteArgs {
    /// latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// Remove what matches: 'name' at any depth, '/path' from the root, '!pattern' takes back
    #[arg(
        short,
        long,
        env = "PUTBACK_EXCLUDE",
        value_name = "PATTERN",
        help_heading = "What to remove"
    )]
    exclude: Vec<String>,
    /// The same, upper and lower case being equal
    #[arg(long, env = "PUTBACK_IEXCLUDE", value_name = "PATTERN", help_heading = "What to remove")]
    iexclude: Vec<String>,
    /// Read patterns from FILE, one a line
    #[arg(
        long,
        env = "PUTBACK_EXCLUDE_FILE",
        value_name = "FILE",
        help_heading = "What to remove"
    )]
    exclude_file: Vec<PathBuf>,
    /// The same, upper and lower case being equal
    #[arg(
        long,
        env = "PUTBACK_IEXCLUDE_FILE",
        value_name = "FILE",
        help_heading = "What to remove"
    )]
    iexclude_file: Vec<PathBuf>,

    /// Host name
    #[arg(
        long,
        env = "PUTBACK_SET_HOST",
        value_name = "HOST",
        alias = "new-host",
        help_heading = "What to change"
    )]
    set_host: Option<String>,
    /// Time: 2026-11-22T13:05:07, with an offset or local; more than one snapshot only if each is named
    #[arg(long, env = "PUTBACK_SET_TIME", value_name = "TIME", alias = "new-time",
          value_parser = text::parse_time, help_heading = "What to change")]
    set_time: Option<Zoned>,
    /// User name
    #[arg(long, env = "PUTBACK_SET_USER", value_name = "USER", help_heading = "What to change")]
    set_user: Option<String>,
    /// Text that describes the snapshot; '' for none
    #[arg(
        long,
        env = "PUTBACK_SET_DESCRIPTION",
        value_name = "TEXT",
        help_heading = "What to change"
    )]
    set_description: Option<String>,
    /// Add these tags, TAG[,TAG...]
    #[arg(long, env = "PUTBACK_ADD_TAG", value_name = "TAGS", help_heading = "What to change")]
    add_tag: Vec<String>,
    /// Have these tags and no others; '' for none
    #[arg(long, env = "PUTBACK_SET_TAG", value_name = "TAGS", help_heading = "What to change")]
    set_tag: Vec<String>,
    /// Remove these tags, TAG[,TAG...]
    #[arg(long, env = "PUTBACK_REMOVE_TAG", value_name = "TAGS", help_heading = "What to change")]
    remove_tag: Vec<String>,

    /// Do not forget the old snapshots
    #[arg(long, env = "PUTBACK_KEEP")]
    keep: bool,
    /// Change nothing; show what would be removed and changed
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

impl RewriteArgs {
    fn tags(&self) -> TagChanges<'_> {
        TagChanges { set: &self.set_tag, add: &self.add_tag, remove: &self.remove_tag }
    }

    fn removes(&self) -> bool {
        let texts = self.exclude.len() + self.iexclude.len();
        texts + self.exclude_file.len() + self.iexclude_file.len() > 0
    }

    fn changes(&self) -> bool {
        self.set_host.is_some()
            || self.set_time.is_some()
            || self.set_user.is_some()
            || self.set_description.is_some()
            || !self.tags().is_none()
    }

    fn change(&self, draft: &mut SnapshotDraft) {
        let set = |text: &mut String, new: &Option<String>| {
            if let Some(new) = new {
                text.clone_from(new);
            }
        };
        set(&mut draft.host, &self.set_host);
        set(&mut draft.user, &self.set_user);
        set(&mut draft.description, &self.set_description);
        if let Some(time) = &self.set_time {
            draft.time = text::timestamp(time);
            draft.utc_offset = time.offset().seconds();
        }
        if !self.tags().is_none() {
            draft.tags = self.tags().apply(&draft.tags);
        }
    }
}

/// Rewrites.
pub(crate) fn run(context: &Context, args: &RewriteArgs) -> anyhow::Result<Outcome> {
    if !args.removes() && !args.changes() {
        return Err(Failure::usage_with(
            "nothing says what to remove or change",
            "give --exclude PATTERN, or one of the --set flags",
        )
        .into());
    }
    args.tags().check("-tag")?;
    for id in ["exclude", "iexclude", "exclude_file", "iexclude_file"] {
        // Where it is set for backups, nobody means it to remove anything.
        if context.origins.of(id) == Origin::Environment {
            let name = context.origins.named(id);
            return Err(Failure::usage_with(
                format!("{name} is for backups, and would remove paths from snapshots"),
                format!("unset it, and give --{} here", id.replace('_', "-")),
            )
            .into());
        }
    }
    let repository = context.open()?;
    let chosen = args.filter.choose(&repository, &args.snapshots)?;
    context.show_warnings(&repository);
    if args.set_time.is_some() && args.snapshots.is_empty() && chosen.len() > 1 {
        return Err(Failure::usage_with(
            format!(
                "--set-time would give {} snapshots the same time",
                text::count(chosen.len() as u64)
            ),
            "name the snapshots that are to have it",
        )
        .into());
    }
    let change = |draft: &mut SnapshotDraft| args.change(draft);
    let options = RewriteOptions {
        filter: FilterOptions {
            exclude: args.exclude.clone(),
            iexclude: args.iexclude.clone(),
            exclude_files: args.exclude_file.clone(),
            iexclude_files: args.iexclude_file.clone(),
            ..FilterOptions::default()
        },
        change: &change,
        keeps_old: args.keep,
        dry_run: args.dry_run,
        workers: context.workers(),
        cancel: context.interrupt.cancel("stopping"),
    };
    let report = progress::watch(&context.ui, Kind::Rewrite, Entries::None, |observer| {
        rewrite::rewrite(&repository, &chosen, &options, observer)
    });
    context.show_warnings(&repository);
    let mut report = report?;
    let failed: Vec<(SnapshotId, anyhow::Error)> = std::mem::take(&mut report.failed)
        .into_iter()
        .map(|(id, error)| (id, error.into()))
        .collect();
    show(context, args, &report, &failed);
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    if report.rewritten.is_empty() && report.unchanged == 0 && !failed.is_empty() {
        return Err(tag::none_changed("no snapshot was rewritten", &failed).into());
    }
    tag::show_remedy(context, &failed);
    Ok(Outcome::of_problems(failed.len() as u64))
}

fn show(
    context: &Context,
    args: &RewriteArgs,
    report: &RewriteReport,
    failed: &[(SnapshotId, anyhow::Error)],
) {
    let ui = &context.ui;
    let is_done = |one: &&Rewritten| args.dry_run || one.new.is_some();
    let done: Vec<&Rewritten> = report.rewritten.iter().filter(is_done).collect();
    for one in &done {
        if ui.is_json() {
            show_json(context, one);
        } else {
            show_text(context, args, one);
        }
    }
    tag::show_unchanged(context, "rewrite", failed);
    let files: u64 = done.iter().map(|one| one.removed.files).sum();
    let bytes = done.iter().fold(0u64, |sum, one| sum.saturating_add(one.removed.bytes));
    if ui.is_json() {
        ui.json(&json::RewriteSummary {
            message_type: "summary",
            dry_run: args.dry_run,
            changed_snapshots: done.len() as u64,
            unchanged_snapshots: report.unchanged,
            error_count: failed.len() as u64,
            files_removed: files,
            bytes_removed: bytes,
            is_interrupted: report.is_interrupted,
        });
        return;
    }
    ui.say(format_args!(
        "{} {}, {} as they should be",
        text::counted(done.len() as u64, "snapshot", "snapshots"),
        if args.dry_run { "to rewrite" } else { "rewritten" },
        text::count(report.unchanged),
    ));
    let has_removed = done.iter().any(|one| !one.paths.is_empty());
    if args.dry_run {
        ui.say(format_args!("dry run: nothing was changed"));
    } else if has_removed && args.keep {
        ui.say(format_args!(
            "the old snapshots still hold what was removed; when they are forgotten, `putback prune --purge` \
             removes it from the storage"
        ));
    } else if has_removed {
        ui.say(format_args!(
            "the old snapshots are forgotten; what was removed leaves the storage with `putback prune --purge`, \
             if no other snapshot holds it"
        ));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; run the same command again for the others");
    }
}

/// What is said of a snapshot otherwise than before.
fn changes(one: &Rewritten, time: fn(Timestamp) -> String) -> Vec<json::FieldChange> {
    let (old, new) = (&one.old.snapshot, &one.draft);
    let all = [
        ("hostname", old.host.clone(), new.host.clone()),
        ("time", time(old.time), time(new.time)),
        ("username", old.user.clone(), new.user.clone()),
        ("description", old.description.clone(), new.description.clone()),
        ("tags", old.tags.join(","), new.tags.join(",")),
    ];
    all.into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(field, old, new)| json::FieldChange { field, old, new })
        .collect()
}

fn show_json(context: &Context, one: &Rewritten) {
    for path in &one.paths {
        let (item, item_base64) = json::name(&path.path);
        context.ui.json(&json::RewriteRemoved {
            message_type: "removed",
            snapshot_id: one.old.id.to_string(),
            item,
            item_base64,
            files: path.removed.files,
            bytes: path.removed.bytes,
        });
    }
    context.ui.json(&json::RewriteChanged {
        message_type: "changed",
        old_snapshot_id: one.old.id.to_string(),
        new_snapshot_id: one.new.map(|id| id.to_string()),
        changes: changes(one, text::exact_time),
        paths_removed: one.paths.len() as u64,
        files_removed: one.removed.files,
        bytes_removed: one.removed.bytes,
    });
}

fn show_text(context: &Context, args: &RewriteArgs, one: &Rewritten) {
    let ui = &context.ui;
    let old = one.old.id.short();
    let what = if one.paths.is_empty() {
        String::new()
    } else {
        format!(
            ", without {} ({})",
            text::counted(one.removed.files, "file", "files"),
            text::bytes(one.removed.bytes)
        )
    };
    match one.new {
        Some(new) => ui.say(format_args!("snapshot {old} is now {}{what}", new.short())),
        None => ui.say(format_args!("snapshot {old} would be rewritten{what}")),
    }
    for json::FieldChange { field, old, new } in changes(one, text::time) {
        let shown = |text: String| match text.is_empty() {
            true => "none".to_owned(),
            false => format!("'{}'", text::printable(&text)),
        };
        ui.say(format_args!("  {field}: {} -> {}", shown(old), shown(new)));
    }
    if args.dry_run || ui.verbosity() > 0 {
        for path in &one.paths {
            let end = if path.is_directory { "/" } else { "" };
            let size = text::bytes(path.removed.bytes);
            ui.say(format_args!("  {}{end} ({size})", text::escaped(&path.path)));
        }
    }
}
