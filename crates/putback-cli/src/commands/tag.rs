//! `putback tag`.

use clap::Args;
use putback_format::id::SnapshotId;
use putback_repo::{Replaced, SnapshotDraft, StoredSnapshot};

use crate::commands::select::{FilterArgs, split_tags};
use crate::commands::snapshots::joined_tags;
use crate::context::Context;
use crate::report::{self, Failure, Outcome};
use crate::ui::{json, text};

/// Change the tags of snapshots
///
/// Without SNAPSHOT: of all that the filters choose. A snapshot with other tags has a new id; its
/// time, host and content stay.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback tag --add important,tax latest\n  \
        putback tag --remove daily --host laptop\n  \
        putback tag --set '' 1a2b3c4d")]
pub(crate) struct TagArgs {
    /// latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Add these tags, TAG[,TAG...]
    #[arg(long, env = "PUTBACK_ADD", value_name = "TAGS")]
    add: Vec<String>,
    /// Have these tags and no others; '' for none
    #[arg(long, env = "PUTBACK_SET", value_name = "TAGS")]
    set: Vec<String>,
    /// Remove these tags, TAG[,TAG...]
    #[arg(long, env = "PUTBACK_REMOVE", value_name = "TAGS")]
    remove: Vec<String>,
    /// Change nothing; show what would be changed
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Tags to have, or to add and remove; each TAG[,TAG...].
pub(crate) struct TagChanges<'a> {
    pub(crate) set: &'a [String],
    pub(crate) add: &'a [String],
    pub(crate) remove: &'a [String],
}

impl TagChanges<'_> {
    /// Sorted.
    pub(crate) fn apply(&self, tags: &[String]) -> Vec<String> {
        let all = |lists: &[String]| lists.iter().flat_map(|tags| split_tags(tags)).collect();
        let (set, added, removed): (Vec<String>, Vec<String>, Vec<String>) =
            (all(self.set), all(self.add), all(self.remove));
        let mut tags = if self.set.is_empty() { tags.to_vec() } else { set };
        tags.extend(added);
        tags.retain(|tag| !removed.contains(tag));
        tags.sort();
        tags.dedup();
        tags
    }

    pub(crate) fn is_none(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Refuses all tags together with some; the flags end with `suffix`.
    pub(crate) fn check(&self, suffix: &str) -> Result<(), Failure> {
        if self.set.is_empty() || self.add.is_empty() && self.remove.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "--set{suffix} says all tags: --add{suffix} and --remove{suffix} exclude it"
        )))
    }
}

/// Changes tags.
pub(crate) fn run(context: &Context, args: &TagArgs) -> anyhow::Result<Outcome> {
    let tag_changes = TagChanges { set: &args.set, add: &args.add, remove: &args.remove };
    if tag_changes.is_none() {
        return Err(Failure::usage_with(
            "nothing says which tags",
            "give --add TAGS, --remove TAGS or --set TAGS",
        )
        .into());
    }
    tag_changes.check("")?;
    let repository = context.open()?;
    let chosen = args.filter.choose(&repository, &args.snapshots)?;
    context.show_warnings(&repository);
    let changes: Vec<(StoredSnapshot, SnapshotDraft)> = chosen
        .iter()
        .filter_map(|stored| {
            let tags = tag_changes.apply(&stored.snapshot.tags);
            let draft = SnapshotDraft { tags, ..SnapshotDraft::from(&stored.snapshot) };
            (draft.tags != stored.snapshot.tags).then(|| (stored.clone(), draft))
        })
        .collect();
    let mut replaced = Replaced::default();
    if !args.dry_run && !changes.is_empty() {
        let cancel = context.interrupt.cancel("stopping");
        replaced = repository.replace(&changes, context.workers(), &cancel)?;
    }
    context.show_warnings(&repository);
    let is_interrupted = replaced.is_interrupted;
    let ui = &context.ui;
    for (stored, draft) in &changes {
        let pair = replaced.written.iter().find(|(old, _)| *old == stored.id);
        let new = pair.map(|(_, new)| *new);
        let (old, tags) = (stored.id.short(), joined_tags(&draft.tags));
        let tags = if tags.is_empty() { "no tags".to_owned() } else { format!("tags {tags}") };
        match new {
            Some(new) if ui.is_json() => ui.json(&json::Replaced {
                message_type: "changed",
                old_snapshot_id: stored.id.to_string(),
                new_snapshot_id: new.to_string(),
            }),
            Some(new) => ui.say(format_args!("snapshot {old} is now {}: {tags}", new.short())),
            None if args.dry_run => ui.say(format_args!("snapshot {old} would have {tags}")),
            None => {}
        }
    }
    let failed: Vec<(SnapshotId, anyhow::Error)> =
        replaced.failed.into_iter().map(|(id, error)| (id, error.into())).collect();
    show_unchanged(context, "tag", &failed);
    let count = if args.dry_run { changes.len() } else { replaced.written.len() } as u64;
    if ui.is_json() {
        ui.json(&json::TagSummary {
            message_type: "summary",
            dry_run: args.dry_run,
            changed_snapshots: count,
            unchanged_snapshots: (chosen.len() - changes.len()) as u64,
            error_count: failed.len() as u64,
            is_interrupted,
        });
    } else {
        let verb = if args.dry_run { "to change" } else { "changed" };
        ui.say(format_args!(
            "{} {verb}, {} as they should be",
            text::counted(count, "snapshot", "snapshots"),
            text::count((chosen.len() - changes.len()) as u64),
        ));
        if args.dry_run {
            ui.say(format_args!("dry run: nothing was changed"));
        }
        if is_interrupted {
            ui.interrupted("interrupted; run the same command again for the others");
        }
    }
    if is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    if count == 0 && chosen.len() == failed.len() && !failed.is_empty() {
        return Err(none_changed("no snapshot was changed", &failed).into());
    }
    show_remedy(context, &failed);
    Ok(Outcome::of_problems(failed.len() as u64))
}

/// Names snapshots that could not be replaced, each with why.
pub(crate) fn show_unchanged(
    context: &Context,
    during: &'static str,
    failed: &[(SnapshotId, anyhow::Error)],
) {
    let ui = &context.ui;
    for (id, error) in failed {
        let message = format!("snapshot {} stays as it is", id.short());
        let causes = report::messages(error);
        if ui.is_json() {
            ui.json_error(&json::SnapshotError {
                message_type: "error",
                error: json::ErrorMessage { message: &format!("{message}: {}", causes.join(": ")) },
                during,
                item: id.to_string(),
            });
        } else {
            ui.error(&message, &causes, None);
        }
    }
}

/// What can be done about them, if damage is why.
fn remedy(failed: &[(SnapshotId, anyhow::Error)]) -> Option<&'static str> {
    failed.iter().any(|(_, error)| report::is_damage(error)).then_some(
        "`putback repair packs` saves what is left of damaged packs; then `putback repair snapshots` writes \
         snapshots without what is lost",
    )
}

/// Says so at the end.
pub(crate) fn show_remedy(context: &Context, failed: &[(SnapshotId, anyhow::Error)]) {
    if let Some(remedy) = remedy(failed) {
        context.ui.hint(remedy);
    }
}

/// The error of a command all of whose snapshots failed.
pub(crate) fn none_changed(message: &str, failed: &[(SnapshotId, anyhow::Error)]) -> Failure {
    Failure::Other { message: message.to_owned(), hint: remedy(failed).map(str::to_owned) }
}
