//! `putback repair`.

use clap::{Args, Subcommand};
use putback_repo::{
    Error, Finding, ReadData, RepairOptions, RepairPlan, RepairReport, RepairTarget, Repository,
};

use crate::commands::check::{Subset, hurt_lines, show_hurt_snapshots};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Save what can be saved of a damaged repository
///
/// In this order: the index, then packs, then a backup, which stores again what is still at its source, then
/// snapshots. Each says first what is wrong, which files that hurts and what it will do. Nothing is
/// changed in place; what is left over goes with a later prune.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback repair index\n  \
        putback repair packs --dry-run\n  \
        putback repair packs --yes\n  \
        putback backup ~/documents\n  \
        putback repair snapshots --forget")]
pub(crate) struct RepairArgs {
    #[command(subcommand)]
    command: RepairCommand,
}

#[derive(Subcommand, Debug)]
enum RepairCommand {
    /// Name all packs in the index again
    ///
    /// Packs, the storage's objects with data, say at their end what they hold. Those that no index
    /// segment names, because one is damaged or gone, are named by a new one. Second copies of
    /// passwords and settings that are missing or damaged are written again. Marks that cannot be read
    /// are removed: let no prune run on another machine meanwhile.
    #[command(after_help = "Examples:\n  \
            putback repair index --dry-run\n  \
            putback repair index")]
    Index(CommonArgs),
    /// Store again what is good in damaged packs
    ///
    /// All packs are read, unless some are named or --read-data-subset is given; missing ones are found,
    /// and those with another size or checksum are read, in any case. What is good of a bad pack goes into new ones. The bad one is
    /// marked: no backup relies on it any more, the next ones store again what it lost, and prune removes it.
    #[command(after_help = "Examples:\n  \
            putback repair packs --dry-run\n  \
            putback repair packs --read-data-subset 10%\n  \
            putback repair packs 1a2b3c4d")]
    Packs(PacksArgs),
    /// Write snapshots again without what is lost
    ///
    /// A file of which anything is lost is left out, and is listed in the new snapshot, which has the tag
    /// 'repaired'; all others stay as they are. The original stays too, broken as it is, and check
    /// and prune go on to stop at it; with --forget it is forgotten, and so is a snapshot that is damaged
    /// itself. One that needs a newer version of putback stays. Back up before: what is stored again need
    /// not be left out. What was copied from another repository comes back whole with the next replicate.
    #[command(after_help = "Examples:\n  \
            putback repair snapshots --dry-run\n  \
            putback repair snapshots\n  \
            putback repair snapshots --forget --yes")]
    Snapshots(SnapshotsArgs),
}

#[derive(Args, Debug)]
struct CommonArgs {
    /// Do not ask before anything is written
    #[arg(long, env = "PUTBACK_YES")]
    yes: bool,
    /// Change nothing; show what is wrong and what would be done
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct PacksArgs {
    /// Read these packs and no others: ids or their beginnings
    #[arg(value_name = "PACK")]
    packs: Vec<String>,
    /// Read a part of the data: 5% or 10G at random, or 3/10 for the third of ten parts
    #[arg(long, env = "PUTBACK_READ_DATA_SUBSET", value_name = "PART",
          value_parser = crate::commands::check::subset)]
    read_data_subset: Option<Subset>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args, Debug)]
struct SnapshotsArgs {
    /// Forget the originals, and snapshots that cannot be read at all
    #[arg(long, env = "PUTBACK_FORGET")]
    forget: bool,
    /// Read all data in search of what is lost
    #[arg(long, env = "PUTBACK_READ_DATA")]
    read_data: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Repairs.
pub(crate) fn run(context: &Context, args: &RepairArgs) -> anyhow::Result<Outcome> {
    let of = |target| RepairOptions { workers: context.workers(), ..RepairOptions::new(target) };
    match &args.command {
        RepairCommand::Index(common) => {
            let repository = context.open()?;
            repair(context, &repository, of(RepairTarget::Index), common)
        }
        RepairCommand::Packs(args) => {
            if !args.packs.is_empty() && args.read_data_subset.is_some() {
                let message = "packs are named, and --read-data-subset is given";
                return Err(Failure::usage(message).into());
            }
            let repository = context.open()?;
            let mut options = of(RepairTarget::Packs);
            options.read = args.read_data_subset.map_or(ReadData::All, |Subset(part)| part);
            if !args.packs.is_empty() {
                repository.load_index().map_err(explain)?;
            }
            for prefix in &args.packs {
                options.packs.push(repository.find_pack(prefix)?);
            }
            repair(context, &repository, options, &args.common)
        }
        RepairCommand::Snapshots(args) => {
            let repository = context.open()?;
            let read = if args.read_data { ReadData::All } else { ReadData::No };
            let options =
                RepairOptions { forget: args.forget, read, ..of(RepairTarget::Snapshots) };
            repair(context, &repository, options, &args.common)
        }
    }
}

/// Says what comes first.
fn explain(error: Error) -> anyhow::Error {
    let object = match &error {
        Error::Damaged { object, .. } => object.clone(),
        _ => String::new(),
    };
    if object.starts_with("index/") || object.starts_with("marks/") {
        let hint = "repair the index first: `putback repair index`";
        return Failure::other(format!("{object} is damaged"), hint).into();
    }
    anyhow::Error::new(error)
}

fn repair(
    context: &Context,
    repository: &Repository,
    options: RepairOptions,
    common: &CommonArgs,
) -> anyhow::Result<Outcome> {
    let cancel = context.interrupt.cancel("stopping at a safe point");
    let options = RepairOptions { cancel, ..options };
    let plan = progress::watch(&context.ui, Kind::Prune, Entries::None, |observer| {
        repository.plan_repair(&options, observer)
    });
    context.show_warnings(repository);
    let plan = plan.map_err(explain)?;
    show_findings(context, &plan);
    let mut report =
        RepairReport { is_interrupted: plan.is_interrupted, ..RepairReport::default() };
    if plan.has_steps() && !common.dry_run {
        if !common.yes {
            confirm(context)?;
        }
        let done = progress::watch(&context.ui, Kind::Prune, Entries::None, |observer| {
            repository.repair(&plan, &options, observer)
        });
        context.show_warnings(repository);
        report = done?;
    }
    show(context, &plan, &report, &options, common.dry_run);
    if report.is_interrupted {
        return Ok(Outcome::Interrupted);
    }
    let is_hurt = !plan.hurt_snapshots.is_empty()
        || plan.findings.iter().any(|finding| finding.hurts_total > 0);
    let has_lost_files = options.target == RepairTarget::Packs && is_hurt;
    Ok(Outcome::of_problems(plan.findings_without_remedy + u64::from(has_lost_files)))
}

fn confirm(context: &Context) -> anyhow::Result<()> {
    if !context.ui.can_ask() {
        return Err(Failure::usage_with(
            "nobody can be asked whether this is to be done",
            "give --yes to do it, or --dry-run to see no more than the list above",
        )
        .into());
    }
    match context.confirm("do this?")? {
        true => Ok(()),
        false => Err(Failure::other("the repair was not confirmed", "nothing was changed").into()),
    }
}

fn show_findings(context: &Context, plan: &RepairPlan) {
    let ui = &context.ui;
    for finding in &plan.findings {
        let Finding { object, message, remedy, hint, hurts, .. } = finding;
        if ui.is_json() {
            let hurts = hurts.iter().map(|(snapshot, path)| {
                let (item, item_base64) = json::name(path);
                json::Hurt { snapshot: snapshot.to_string(), item, item_base64 }
            });
            ui.json_error(&json::RepairFinding {
                message_type: "finding",
                object: text::printable(object),
                message: text::printable(message),
                remedy: remedy.as_deref().map(text::printable),
                hint: hint.as_deref().map(text::printable),
                hurts: hurts.collect(),
                hurts_total: finding.hurts_total,
                hurts_at_least: finding.hurts_at_least,
            });
            continue;
        }
        if hint.is_some() {
            let message = text::printable(&format!("{object}: {message}"));
            ui.error(&message, &[], hint.as_deref());
            continue;
        }
        let (lines, more) = hurt_lines(ui, hurts, finding.hurts_total, finding.hurts_at_least);
        let nothing = match object.starts_with("snapshots/") {
            true => {
                "nothing can bring it back; `putback repair snapshots --forget` forgets it, so that prune can go on"
            }
            false => "nothing can be done",
        };
        let remedy = remedy.as_deref().unwrap_or(nothing);
        ui.damage(object, message, &lines, more.as_deref(), Some(remedy));
    }
    show_hurt_snapshots(ui, &plan.hurt_snapshots);
    let more = plan.findings_total - plan.findings.len() as u64;
    if more > 0 && !ui.is_json() {
        ui.notice(&format!("and {} more like these", text::count(more)));
    }
}

/// What is said of snapshots that lost something and are not to be forgotten.
fn snapshots_that_stay(plan: &RepairPlan, options: &RepairOptions) -> Option<String> {
    let of_snapshots =
        |finding: &&Finding| finding.object.starts_with("snapshots/") && finding.hint.is_none();
    let count = plan.findings.iter().filter(of_snapshots).count() as u64;
    let stay = options.target == RepairTarget::Snapshots && !options.forget && count > 0;
    stay.then(|| {
        format!(
            "{} among the others, and `check` and `prune` stop at them: `putback repair snapshots --forget` forgets \
             those that are written without what is lost, and those that cannot be read",
            text::counted(count, "broken snapshot stays", "broken snapshots stay")
        )
    })
}

fn show(
    context: &Context,
    plan: &RepairPlan,
    report: &RepairReport,
    options: &RepairOptions,
    dry_run: bool,
) {
    let ui = &context.ui;
    for (old, new) in &report.snapshots_written {
        if ui.is_json() {
            ui.json(&json::Replaced {
                message_type: "repaired",
                old_snapshot_id: old.to_string(),
                new_snapshot_id: new.to_string(),
            });
        } else {
            let (old, new) = (old.short(), new.short());
            ui.say(format_args!("snapshot {old} without what is lost is {new}"));
        }
    }
    if ui.is_json() {
        ui.json(&json::RepairSummary {
            message_type: "summary",
            dry_run,
            findings: plan.findings_total,
            findings_without_remedy: plan.findings_without_remedy,
            blobs_lost: plan.blobs_lost,
            objects_written: report.objects_written,
            marks_removed: report.marks_removed,
            segments_written: report.segments_written,
            packs_indexed: report.packs_indexed,
            blobs_saved: report.blobs_saved,
            packs_marked: report.packs_marked,
            snapshots_written: report.snapshots_written.len() as u64,
            snapshots_forgotten: report.snapshots_forgotten,
            is_interrupted: report.is_interrupted,
        });
        return;
    }
    for line in lines(report) {
        ui.say(format_args!("{line}"));
    }
    if let Some(line) = snapshots_that_stay(plan, options) {
        ui.say(format_args!("{line}"));
    }
    if plan.findings_total == 0 && !report.is_interrupted {
        ui.say(format_args!("nothing to repair"));
    } else if dry_run {
        ui.say(format_args!("dry run: nothing was changed"));
    } else if plan.blobs_lost > 0 {
        ui.say(format_args!(
            "{} lost: back up what is still at its source, then run `putback repair snapshots`",
            text::counted(plan.blobs_lost, "blob is", "blobs are")
        ));
    }
    if report.is_interrupted {
        ui.interrupted("interrupted; run the same command again for the rest");
    }
}

/// What was done, for people.
fn lines(report: &RepairReport) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |count: u64, text: String| lines.extend((count > 0).then_some(text));
    let of = text::counted;
    line(
        report.objects_written,
        format!("{} written again", of(report.objects_written, "small object", "small objects")),
    );
    line(report.marks_removed, format!("{} removed", of(report.marks_removed, "mark", "marks")));
    line(
        report.segments_written,
        format!(
            "{} written; {} named there",
            of(report.segments_written, "index segment", "index segments"),
            of(report.packs_indexed, "pack is", "packs are")
        ),
    );
    line(
        report.blobs_saved,
        format!("{} stored anew", of(report.blobs_saved, "good blob", "good blobs")),
    );
    line(
        report.packs_marked,
        format!(
            "{} marked; prune removes what is left of it",
            of(report.packs_marked, "pack", "packs")
        ),
    );
    line(
        report.snapshots_forgotten,
        format!("{} forgotten", of(report.snapshots_forgotten, "snapshot", "snapshots")),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_done_is_told() {
        assert_eq!(lines(&RepairReport::default()), Vec::<String>::new());
        let report = RepairReport { segments_written: 1, packs_indexed: 3, ..Default::default() };
        assert_eq!(lines(&report), ["1 index segment written; 3 packs are named there"]);
    }
}
