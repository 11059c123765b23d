//! `putback prune`.

use std::time::Duration;

use clap::Args;
use jiff::Zoned;
use putback_format::tree::Timestamp;
use putback_repo::prune::{GRACE, MaxUnused, PruneOptions, PruneReport};
use putback_repo::{Error, Repository, Requests};

use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::progress::{self, Entries, Kind};
use crate::ui::{json, text};

/// Give back the room of what no snapshot needs any more
///
/// This takes two runs. The first marks packs, the storage's objects, that nothing needs; of packs
/// that are needed in part it stores that part anew. A run after the grace period deletes the marked
/// packs. So backups may run on any machine at the same time. --instant does both in one run.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback prune --dry-run\n  \
        putback prune\n  \
        putback prune --max-unused 10% --max-repack-size 5G\n  \
        putback prune --instant")]
pub(crate) struct PruneArgs {
    /// How much that nothing needs may stay in packs that are needed in part: a share of what is
    /// needed, a size, or 'unlimited'. Parts of about 1 MiB that are needed to three quarters are
    /// always kept whole; --purge takes these apart too
    #[arg(long, env = "PUTBACK_MAX_UNUSED", value_name = "LIMIT", default_value = "5%",
          value_parser = max_unused)]
    max_unused: MaxUnused,
    /// Store at most so many bytes anew in this run; the next one goes on
    #[arg(long, env = "PUTBACK_MAX_REPACK_SIZE", value_name = "SIZE",
          value_parser = text::parse_bytes)]
    max_repack_size: Option<u64>,
    /// Join small packs, also when there are few
    #[arg(long, env = "PUTBACK_REPACK_SMALL")]
    repack_small: bool,
    /// Leave nothing that is not needed, whatever it costs: for secrets
    #[arg(long, env = "PUTBACK_PURGE")]
    purge: bool,
    /// Store anew what is sealed under a key of before the last `key rotate`, in several runs if their
    /// size is limited, and say what is left under it: snapshots and forget records stay as they are
    #[arg(long, env = "PUTBACK_REWRITE_EPOCH")]
    rewrite_epoch: bool,
    /// Delete in this run the packs that it and earlier ones have marked. On a local disk that is safe; index
    /// segments that were merged stay for the time of --grace all the same. Where the
    /// storage has no locks, the run waits between mark and deletion for the shortest time there may be,
    /// more than two hours; needs --yes; and is refused if another machine wrote a snapshot within that time
    #[arg(long, env = "PUTBACK_INSTANT")]
    instant: bool,
    /// Time between mark and deletion, such as 90s, 36h or 7d; longer than any pause of a backup
    #[arg(long, env = "PUTBACK_GRACE", value_name = "DURATION", default_value = "24h",
          value_parser = text::parse_duration)]
    grace: Duration,
    /// Do not ask whether --instant is meant
    #[arg(long, env = "PUTBACK_YES")]
    yes: bool,
    /// Change nothing; show what would be marked and deleted
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
}

fn max_unused(text: &str) -> Result<MaxUnused, String> {
    let error = || "write 5%, a size such as 1G, or unlimited".to_owned();
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| error())?;
        let is_valid = percent.is_finite() && percent >= 0.0;
        return if is_valid { Ok(MaxUnused::Percent(percent)) } else { Err(error()) };
    }
    text::parse_bytes(text).map(MaxUnused::Bytes).map_err(|_| error())
}

/// What `forget --prune` prunes with.
pub(crate) fn defaults(context: &Context) -> PruneOptions {
    PruneOptions { grace: GRACE, workers: context.workers(), ..PruneOptions::default() }
}

/// Prunes.
pub(crate) fn run(context: &Context, args: &PruneArgs) -> anyhow::Result<Outcome> {
    let mut asked = vec!["grace"];
    asked.extend(args.instant.then_some("instant"));
    let instant = args.instant && context.origins.strongest(&asked)? != Some("grace");
    let repository = context.open()?;
    let options = PruneOptions {
        max_unused: args.max_unused,
        max_repack: args.max_repack_size,
        repack_small: args.repack_small,
        purge: args.purge,
        rewrite_epoch: args.rewrite_epoch,
        instant,
        grace: args.grace,
        dry_run: args.dry_run,
        ..defaults(context)
    };
    let must_wait = instant && !args.dry_run && !repository.has_locks()?;
    if must_wait && !args.yes {
        confirm(context)?;
    }
    if must_wait {
        let wait = text::duration(repository.times().grace_least().as_secs());
        context.ui.say(format_args!(
            "what is marked now is deleted after {wait}; Ctrl-C leaves that to a later prune"
        ));
    }
    prune(context, &repository, &options)
}

/// Says what `--instant` risks, and asks.
fn confirm(context: &Context) -> anyhow::Result<()> {
    const RISK: &str = "this storage has no locks: --instant leaves between mark and deletion only \
                        the time that a commit may take and listings may lag, and waits for it. A \
                        backup of a machine whose clock or storage does worse than that would be \
                        damaged";
    if !context.ui.can_ask() {
        return Err(Failure::usage_with(
            RISK,
            "give --yes if no other machine backs up there now, or leave --instant out",
        )
        .into());
    }
    context.ui.interrupted(RISK);
    match context.confirm("go on?")? {
        true => Ok(()),
        false => Err(Failure::other("prune was not confirmed", "nothing was changed").into()),
    }
}

/// Prunes, and shows what came of it.
pub(crate) fn prune(
    context: &Context,
    repository: &Repository,
    options: &PruneOptions,
) -> anyhow::Result<Outcome> {
    let cancel = context.interrupt.cancel("stopping at a safe point");
    let options = PruneOptions { cancel, ..options.clone() };
    let result = progress::watch(&context.ui, Kind::Prune, Entries::None, |observer| {
        repository.prune(&options, observer)
    });
    context.show_warnings(repository);
    let report = result.map_err(|error| {
        let explanation = match &error {
            Error::BlobMissing { .. } => {
                "prune stopped: something is lost that a snapshot needs, and what prune would delete may be \
                 needed to mend it"
            }
            Error::OthersActive { .. } => {
                "cannot delete at once what is marked: another machine is writing to this storage"
            }
            Error::Damaged { object, .. } if object.starts_with("marks/") => {
                "prune stopped: a mark cannot be read, and it may say what else is forgotten or about to be deleted"
            }
            Error::Damaged { object, .. } if object.starts_with("index/") => {
                "prune stopped: a part of the index cannot be read, and it may name what is needed"
            }
            Error::Damaged { .. }
            | Error::BlobUnknown { .. }
            | Error::BlobDamaged { .. }
            | Error::BlobLost { .. } => {
                "prune stopped: it must read every snapshot to tell what is needed, and one is damaged; \
                 `putback repair snapshots --forget` does without what is lost"
            }
            Error::CommitContended => "prune gave up: other machines kept writing",
            _ => return anyhow::Error::new(error),
        };
        anyhow::Error::new(error).context(explanation)
    })?;
    let is_remote = repository.store().capabilities().is_remote;
    show(context, &options, &report, is_remote);
    Ok(if report.is_interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// From now.
fn time_after(seconds: u64) -> Timestamp {
    let now = text::timestamp(&Zoned::now());
    Timestamp { seconds: now.seconds.saturating_add_unsigned(seconds), nanoseconds: 0 }
}

/// Packs that this run marks and a later one deletes, and their bytes.
fn left(options: &PruneOptions, report: &PruneReport) -> (u64, u64) {
    match (options.dry_run, options.instant) {
        (true, true) => (0, 0),
        (true, false) => (report.packs_unneeded + report.packs_repacked, report.bytes_marked),
        (false, _) => (report.packs_left, report.bytes_left),
    }
}

/// When the first packs that are marked may go.
fn next_deletion(options: &PruneOptions, report: &PruneReport) -> Option<Timestamp> {
    let is_left = left(options, report).0 > 0;
    let waiting = (report.packs_waiting > 0).then_some(report.seconds_to_wait);
    let new = is_left.then_some(report.grace_seconds);
    waiting.into_iter().chain(new).min().map(time_after)
}

fn show(context: &Context, options: &PruneOptions, report: &PruneReport, is_remote: bool) {
    let ui = &context.ui;
    let next = next_deletion(options, report);
    let has_counted = options.rewrite_epoch && !report.is_interrupted;
    if ui.is_json() {
        ui.json(&json::PruneSummary {
            message_type: "summary",
            dry_run: options.dry_run,
            snapshots: report.snapshots,
            packs: report.packs,
            bytes: report.bytes,
            blobs_needed: report.blobs_needed,
            packs_unneeded: report.packs_unneeded,
            packs_repacked: report.packs_repacked,
            bytes_repacked: report.bytes_repacked,
            bytes_marked: report.bytes_marked,
            bytes_written: report.bytes_written,
            packs_partly_needed: report.packs_partly_needed,
            packs_due: report.packs_due,
            bytes_due: report.bytes_due,
            packs_waiting: report.packs_waiting,
            bytes_waiting: report.bytes_waiting,
            next_deletion: next.map(text::exact_time),
            packs_deleted: report.packs_deleted,
            bytes_deleted: report.bytes_deleted,
            snapshots_deleted: report.snapshots_deleted,
            segments_merged: report.segments_merged,
            segments_deleted: report.segments_deleted,
            blobs_rescued: report.blobs_rescued,
            requests: is_remote.then_some(json::Requests {
                lists: report.requests.lists,
                reads: report.requests.reads,
                writes: report.requests.writes,
                deletes: report.requests.deletes,
            }),
            packs_old_key: report.packs_old_key,
            bytes_old_key: report.bytes_old_key,
            segments_old_key: has_counted.then_some(report.segments_old_key),
            snapshots_old_key: has_counted.then_some(report.snapshots_old_key),
            marks_old_key: has_counted.then_some(report.marks_old_key),
            is_interrupted: report.is_interrupted,
        });
        return;
    }
    for line in lines(options, report, is_remote) {
        ui.say(format_args!("{line}"));
    }
    // Where a request is not a round trip nobody counts them.
    if is_remote {
        let Requests { lists, reads, writes, deletes } = report.requests;
        let about = if options.dry_run { "about " } else { "" };
        ui.say(format_args!(
            "requests: {about}{} of the storage: {}, {}, {}, {}",
            text::count(report.requests.total()),
            text::counted(lists, "listing", "listings"),
            text::counted(reads, "read", "reads"),
            text::counted(writes, "write", "writes"),
            text::counted(deletes, "deletion", "deletions"),
        ));
    }
    if options.dry_run {
        ui.say(format_args!("dry run: nothing was changed"));
    }
    if report.is_interrupted {
        ui.interrupted(
            "interrupted; every snapshot is whole, and the next prune goes on from here",
        );
    }
}

/// The report, for people.
fn lines(options: &PruneOptions, report: &PruneReport, is_remote: bool) -> Vec<String> {
    let packs = |count: u64, bytes: u64| {
        format!("{} ({})", text::counted(count, "pack", "packs"), text::bytes(bytes))
    };
    let dry = options.dry_run;
    let is_instant = options.instant && !report.is_interrupted;
    let mut lines = vec![format!(
        "needed:   {} of {}; there {} {} for them",
        text::counted(report.blobs_needed, "blob", "blobs"),
        text::counted(report.snapshots, "snapshot", "snapshots"),
        if report.packs == 1 { "is" } else { "are" },
        packs(report.packs, report.bytes),
    )];
    let marked = report.packs_unneeded + report.packs_repacked;
    if marked > 0 {
        let unneeded = report.bytes_marked.saturating_sub(report.bytes_repacked);
        let verb = if dry { "to mark:" } else { "marked: " };
        if report.packs_unneeded > 0 {
            lines.push(format!(
                "{verb}  {} that nothing needs",
                packs(report.packs_unneeded, unneeded)
            ));
        }
        if report.packs_repacked > 0 {
            let (is_stored, about) = if dry { ("is", "about ") } else { ("was", "") };
            lines.push(format!(
                "{verb}  {}, after what is needed of {} {is_stored} stored anew: {about}{}",
                packs(report.packs_repacked, report.bytes_repacked),
                if report.packs_repacked == 1 { "it" } else { "them" },
                text::bytes(report.bytes_written)
            ));
        }
        let (count, room) = left(options, report);
        if count > 0 {
            let time = text::time(time_after(report.grace_seconds));
            let verb = if dry { "would go" } else { "go" };
            let which = if count == marked {
                "they".to_owned()
            } else {
                format!("{} of these", text::count(count))
            };
            lines.push(format!(
                "          {which} {verb} with the first prune after {time}, which gives back {}",
                text::bytes(room)
            ));
        }
    }
    if dry && report.packs_due > 0 {
        let due = packs(report.packs_due, report.bytes_due);
        lines.push(format!("due:      {due} that an earlier prune marked would be deleted"));
    }
    if dry && is_instant && marked > 0 {
        lines
            .push(format!("to delete: {} that are marked now", packs(marked, report.bytes_marked)));
        if report.grace_seconds > 0 {
            let wait = text::duration(report.grace_seconds);
            lines.push(format!("          after {wait}, for which the run waits"));
        }
    }
    if report.packs_waiting > 0 {
        let time = text::time(time_after(report.seconds_to_wait));
        lines.push(format!(
            "waiting:  {} that an earlier prune marked; they go with the first prune after {time}",
            packs(report.packs_waiting, report.bytes_waiting)
        ));
    }
    if report.blobs_rescued > 0 {
        lines.push(format!(
            "rescued:  {} of marked packs that a new snapshot needs",
            text::counted(report.blobs_rescued, "blob", "blobs")
        ));
    }
    if report.packs_deleted > 0 {
        lines.push(format!(
            "deleted:  {}; the room is given back{}",
            packs(report.packs_deleted, report.bytes_deleted),
            // A service's trash is not ours to look into.
            if is_remote { ", where the storage has a trash when that is emptied" } else { "" },
        ));
    }
    if report.snapshots_deleted > 0 {
        lines.push(format!(
            "removed:  {} for good",
            text::counted(report.snapshots_deleted, "forgotten snapshot", "forgotten snapshots")
        ));
    }
    if report.segments_merged + report.segments_deleted > 0 {
        let would = if dry { "would be " } else { "" };
        lines.push(format!(
            "index:    {} {would}merged, {} {would}deleted that were merged before",
            text::counted(report.segments_merged, "small segment", "small segments"),
            text::count(report.segments_deleted)
        ));
        if report.segments_merged > 0 {
            let grace = text::duration(options.grace.as_secs());
            lines.push(format!(
                "          what was merged goes with a prune after {grace}, also with --instant: somebody may be reading it"
            ));
        }
    }
    if report.packs_partly_needed > 0 {
        let (stay, a) = match report.packs_partly_needed {
            1 => ("stays", "it"),
            _ => ("stay", "them"),
        };
        lines.push(format!(
            "kept:     {} {stay} although part of {a} is not needed (--max-unused)",
            text::counted(report.packs_partly_needed, "pack", "packs")
        ));
    }
    if options.rewrite_epoch && !report.is_interrupted {
        lines.extend(old_keys(report, &packs));
    }
    if marked + report.packs_deleted + report.packs_waiting + report.packs_due == 0
        && !report.is_interrupted
    {
        lines.push("          nothing more can be given back".to_owned());
    }
    lines
}

/// What is left under keys of before the last rotation.
fn old_keys(report: &PruneReport, packs: &dyn Fn(u64, u64) -> String) -> Vec<String> {
    let mut lines = vec![match report.packs_old_key {
        0 => "old key:  no pack that stays is under a key of before".to_owned(),
        count => format!(
            "old key:  {} left under a key of before; the next run goes on",
            packs(count, report.bytes_old_key)
        ),
    }];
    let others = [
        (report.segments_old_key, "index segment", "index segments"),
        (report.snapshots_old_key, "snapshot", "snapshots"),
        (report.marks_old_key, "mark or forget record", "marks and forget records"),
    ];
    let others: Vec<String> = others
        .into_iter()
        .filter(|(count, _, _)| *count > 0)
        .map(|(count, one, many)| text::counted(count, one, many))
        .collect();
    if !others.is_empty() {
        lines.push(format!("          besides, under such a key: {}", others.join(", ")));
        let fates = [
            (report.segments_old_key, "segments go a grace period after they are merged"),
            (report.snapshots_old_key, "snapshots keep theirs until they are forgotten and pruned"),
            (
                report.marks_old_key,
                "marks go with their packs, forget records stay for good and hold no more than ids",
            ),
        ];
        let fates: Vec<&str> =
            fates.iter().filter(|(count, _)| *count > 0).map(|(_, fate)| *fate).collect();
        lines.push(format!("          {}", fates.join("; ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_share_a_size_or_none() {
        assert_eq!(max_unused("5%"), Ok(MaxUnused::Percent(5.0)));
        assert_eq!(max_unused("1.5G"), Ok(MaxUnused::Bytes(3 << 29)));
        assert_eq!(max_unused("unlimited"), Ok(MaxUnused::Unlimited));
        for text in ["", "%", "-1%", "nan%", "inf%", "x", "-5"] {
            assert!(max_unused(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_deletion_is_that_of_the_earliest_mark() {
        let check = |instant, report: &PruneReport, expected: Option<u64>| {
            let options = PruneOptions { instant, ..PruneOptions::default() };
            let found = next_deletion(&options, report).map(|time| time.seconds);
            let now = time_after(0).seconds;
            let is_right = match (found, expected) {
                (Some(found), Some(expected)) => found.abs_diff(now).abs_diff(expected) <= 2,
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_right, "{found:?} {expected:?}");
        };
        let none = PruneReport { grace_seconds: 100, ..PruneReport::default() };
        check(false, &none, None);
        let new = PruneReport { packs_unneeded: 1, packs_left: 1, ..none };
        check(false, &new, Some(100));
        let both = PruneReport { packs_waiting: 1, seconds_to_wait: 50, ..new.clone() };
        check(false, &both, Some(50));
        // An instant prune leaves nothing, unless it is stopped.
        let gone = PruneReport { packs_left: 0, packs_deleted: 1, ..new.clone() };
        check(true, &gone, None);
        check(true, &PruneReport { is_interrupted: true, ..gone }, None);
        check(true, &PruneReport { is_interrupted: true, ..new }, Some(100));
    }

    #[test]
    fn what_is_deleted_already_is_not_promised_for_later() {
        let options = PruneOptions { instant: true, ..PruneOptions::default() };
        let shown = |packs_left, bytes_left| {
            let report = PruneReport {
                packs_repacked: 10,
                bytes_marked: 3000,
                bytes_repacked: 3000,
                bytes_written: 4000,
                packs_left,
                bytes_left,
                packs_deleted: 10 - packs_left,
                bytes_deleted: 3000 - bytes_left,
                is_interrupted: true,
                ..PruneReport::default()
            };
            lines(&options, &report, false).join("\n")
        };
        let all_gone = shown(0, 0);
        assert!(all_gone.contains("deleted:  10 packs (2.9 KiB)"), "{all_gone}");
        assert!(!all_gone.contains("first prune after"), "{all_gone}");
        // More may be written than the marked packs had: they are not a part of it.
        assert!(all_gone.contains("stored anew: 3.9 KiB"), "{all_gone}");
        assert!(!all_gone.contains("of which"), "{all_gone}");
        let some_left = shown(4, 1024);
        assert!(some_left.contains("4 of these go with the first prune after"), "{some_left}");
        assert!(some_left.contains("gives back 1.0 KiB"), "{some_left}");
        let none_gone = shown(10, 3000);
        assert!(none_gone.contains("they go with the first prune after"), "{none_gone}");
    }
}
