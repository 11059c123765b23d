//! `putback forget`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use putback_engine::forget::{
    self, Age, Decision, Group, GroupBy, GroupKey, Period, Policy, Reach, Rule,
};
use putback_format::id::SnapshotId;
use putback_repo::prune::PruneOptions;
use putback_repo::{Repository, SnapshotFilter, StoredSnapshot};

use crate::args::Origin;
use crate::commands::select::{FilterArgs, split_tags};
use crate::commands::snapshots::{joined_paths, joined_tags};
use crate::commands::{prune, snapshots};
use crate::context::Context;
use crate::report::{Failure, Outcome};
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// Flags that make rules.
const RULES: [&str; 13] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "keep_within_hourly",
    "keep_within_daily",
    "keep_within_weekly",
    "keep_within_monthly",
    "keep_within_yearly",
    "keep_tag",
];

/// Remove snapshots: those that no rule keeps, or those that are named
///
/// Rules look at each group of snapshots by itself: those of one host and the same paths, if nothing
/// else is asked for. A snapshot that one rule keeps stays, whatever the others say. Days and months
/// are those of the calendar where the snapshot was made. While a rule has room for more, it
/// also keeps the oldest snapshot. The last snapshot that a machine made in a group always stays, and
/// so does its newest by time, if a wrong clock made that another one. Snapshots that are dated in
/// the future stay and are not counted.
/// Checkpoints of unfinished backups do not count for rules; prune removes those that are void.
///
/// Forgotten snapshots are hidden. `putback undelete` brings them back until `putback prune`, which
/// gives back the room that they took, has removed them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run\n  \
        putback forget --keep-within 1y6m --keep-tag important --prune\n  \
        putback forget 1a2b3c4d")]
pub(crate) struct ForgetArgs {
    /// Forget these: latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Keep the last N snapshots; 'unlimited', or -1, keeps all, here and below
    #[arg(short = 'l', long, env = "PUTBACK_KEEP_LAST", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_last: Option<Reach>,
    /// Keep the last snapshot of each of the last N hours that have one
    #[arg(long, env = "PUTBACK_KEEP_HOURLY", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_hourly: Option<Reach>,
    /// Keep the last snapshot of each of the last N days that have one
    #[arg(short = 'd', long, env = "PUTBACK_KEEP_DAILY", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_daily: Option<Reach>,
    /// Keep the last snapshot of each of the last N weeks that have one
    #[arg(short = 'w', long, env = "PUTBACK_KEEP_WEEKLY", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_weekly: Option<Reach>,
    /// Keep the last snapshot of each of the last N months that have one
    #[arg(short = 'm', long, env = "PUTBACK_KEEP_MONTHLY", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_monthly: Option<Reach>,
    /// Keep the last snapshot of each of the last N years that have one
    #[arg(short = 'y', long, env = "PUTBACK_KEEP_YEARLY", value_name = "N", value_parser = count,
          allow_negative_numbers = true)]
    keep_yearly: Option<Reach>,
    /// Keep all snapshots that are at most this much older than the newest, such as 1y5m7d2h
    #[arg(long, env = "PUTBACK_KEEP_WITHIN", value_name = "AGE", value_parser = age)]
    keep_within: Option<Age>,
    /// Of those within this age keep the last of each hour
    #[arg(long, env = "PUTBACK_KEEP_WITHIN_HOURLY", value_name = "AGE", value_parser = age)]
    keep_within_hourly: Option<Age>,
    /// Of those within this age keep the last of each day
    #[arg(long, env = "PUTBACK_KEEP_WITHIN_DAILY", value_name = "AGE", value_parser = age)]
    keep_within_daily: Option<Age>,
    /// Of those within this age keep the last of each week
    #[arg(long, env = "PUTBACK_KEEP_WITHIN_WEEKLY", value_name = "AGE", value_parser = age)]
    keep_within_weekly: Option<Age>,
    /// Of those within this age keep the last of each month
    #[arg(long, env = "PUTBACK_KEEP_WITHIN_MONTHLY", value_name = "AGE", value_parser = age)]
    keep_within_monthly: Option<Age>,
    /// Of those within this age keep the last of each year
    #[arg(long, env = "PUTBACK_KEEP_WITHIN_YEARLY", value_name = "AGE", value_parser = age)]
    keep_within_yearly: Option<Age>,
    /// Keep snapshots with all of these tags, TAG[,TAG...]; several: any of them
    #[arg(long, env = "PUTBACK_KEEP_TAG", value_name = "TAGS")]
    keep_tag: Vec<String>,
    /// What makes a group: host, paths, tags, separated by commas; '' for one group of all
    #[arg(short, long, env = "PUTBACK_GROUP_BY", value_name = "KEYS", default_value = "host,paths",
          value_parser = group_by)]
    group_by: GroupBy,
    /// Forget also where no snapshot of a group, or of all that the filters choose, would be left
    #[arg(long, env = "PUTBACK_UNSAFE_ALLOW_REMOVE_ALL")]
    unsafe_allow_remove_all: bool,
    /// Then prune, with the defaults of `putback prune`
    #[arg(long, env = "PUTBACK_PRUNE")]
    prune: bool,
    /// Change nothing; show what would be kept, why, and what forgotten
    #[arg(short = 'n', long, env = "PUTBACK_DRY_RUN")]
    dry_run: bool,
    /// Leave the paths out of the tables; where they make a group, its title alone has them
    #[arg(short, long, env = "PUTBACK_COMPACT")]
    compact: bool,
    /// Only snapshots of this host; several: any of them
    #[arg(
        short = 'H',
        long,
        env = "PUTBACK_HOST",
        value_name = "HOST",
        value_delimiter = ',',
        help_heading = "Which snapshots"
    )]
    host: Vec<String>,
    /// Only snapshots with all of these tags, TAG[,TAG...]; several: any of them
    #[arg(long, env = "PUTBACK_TAG", value_name = "TAGS", help_heading = "Which snapshots")]
    tag: Vec<String>,
    /// Only snapshots of this path; several: all of them
    #[arg(long, env = "PUTBACK_PATH", value_name = "PATH", help_heading = "Which snapshots")]
    path: Vec<PathBuf>,
}

fn count(text: &str) -> Result<Reach, String> {
    match text {
        "unlimited" | "-1" => Ok(Reach::All),
        number => number
            .parse()
            .map(Reach::Count)
            .map_err(|_| "neither a number nor 'unlimited'".to_owned()),
    }
}

/// `1y5m7d2h`: years, months, weeks, days, hours, each at most once.
fn age(text: &str) -> Result<Age, String> {
    let error = || "not an age such as 1y5m7d2h, in years, months, weeks (w), days and hours";
    let mut rest = text.trim();
    let (mut age, mut used) = (Age::default(), BTreeSet::new());
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let number: u32 = rest[..end].parse().map_err(|_| error())?;
        let unit = rest[end..].chars().next().ok_or_else(error)?;
        rest = &rest[end + unit.len_utf8()..];
        let (months, hours) = match unit {
            'y' => (number.checked_mul(12).ok_or_else(error)?, 0),
            'm' => (number, 0),
            'w' => (0, u64::from(number) * 7 * 24),
            'd' => (0, u64::from(number) * 24),
            'h' => (0, u64::from(number)),
            _ => return Err(error().to_owned()),
        };
        if !used.insert(unit) {
            return Err(error().to_owned());
        }
        age.months = age.months.checked_add(months).ok_or_else(error)?;
        age.hours += hours;
    }
    if used.is_empty() { Err(error().to_owned()) } else { Ok(age) }
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy::default();
    for key in text.split(',').map(str::trim).filter(|key| !key.is_empty()) {
        match key {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            _ => return Err("write host, paths, tags, or '' for one group".to_owned()),
        }
    }
    Ok(by)
}

impl ForgetArgs {
    fn policy(&self) -> Policy {
        let counts = [
            (Period::Each, self.keep_last),
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ];
        let ages = [
            (Period::Each, self.keep_within),
            (Period::Hour, self.keep_within_hourly),
            (Period::Day, self.keep_within_daily),
            (Period::Week, self.keep_within_weekly),
            (Period::Month, self.keep_within_monthly),
            (Period::Year, self.keep_within_yearly),
        ];
        let counts = counts.into_iter().filter_map(|(period, reach)| Some((period, reach?)));
        let ages = ages.into_iter().filter_map(|(period, age)| Some((period, Reach::Within(age?))));
        let rules = counts
            .chain(ages)
            // None at all is no rule.
            .filter(|(_, reach)| *reach != Reach::Count(0))
            .map(|(period, reach)| Rule { period, reach })
            .collect();
        let tags = self.keep_tag.iter().map(|tags| split_tags(tags));
        Policy {
            rules,
            tags: tags.filter(|tags| !tags.is_empty()).collect(),
            group_by: self.group_by,
            may_empty_groups: self.unsafe_allow_remove_all,
        }
    }

    fn filter(&self) -> FilterArgs {
        FilterArgs {
            host: self.host.clone(),
            tag: self.tag.clone(),
            path: self.path.clone(),
            checkpoints: false,
        }
    }

    fn has_filter(&self) -> bool {
        !(self.host.is_empty() && self.tag.is_empty() && self.path.is_empty())
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Snapshots that are named.
    Ids,
    /// What no rule keeps.
    Rules,
    /// Everything that the filters choose.
    Filtered,
}

/// Forgets.
pub(crate) fn run(context: &Context, args: &ForgetArgs) -> anyhow::Result<Outcome> {
    let policy = args.policy();
    let asked = asked(context, args, &policy)?;
    let repository = context.open()?;
    let filter = args.filter();
    let groups = match asked {
        Asked::Ids => named(&repository, args, &filter)?,
        Asked::Rules | Asked::Filtered => {
            let snapshots = repository.snapshots(&filter.filter()?)?;
            repository.warn_of_future(&snapshots);
            forget::plan(&snapshots, &policy, repository.now())
        }
    };
    context.show_warnings(&repository);
    let forgotten: Vec<StoredSnapshot> =
        groups.iter().flat_map(Group::forgotten).cloned().collect();
    show_plan(context, args, asked, &groups)?;
    if !args.dry_run && !forgotten.is_empty() {
        repository.forget(&forgotten)?;
    }
    summarize(context, args, &repository, asked, (&groups, forgotten.len() as u64))?;
    if !args.prune {
        return Ok(Outcome::Done);
    }
    let options = PruneOptions {
        dry_run: args.dry_run,
        taken_for_forgotten: forgotten.iter().map(|stored| stored.id).collect(),
        ..prune::defaults(context)
    };
    prune::prune(context, &repository, &options)
}

/// Which of the ways to say what goes was taken.
fn asked(context: &Context, args: &ForgetArgs, policy: &Policy) -> Result<Asked, Failure> {
    let has_rules = !policy.is_empty();
    let rules = RULES.iter().map(|id| context.origins.of(id)).max().unwrap_or(Origin::BuiltIn);
    // Rules of the configuration stand back where ids are typed.
    if !args.snapshots.is_empty() && (!has_rules || context.origins.of("snapshots") > rules) {
        return Ok(Asked::Ids);
    }
    if !args.snapshots.is_empty() {
        return Err(Failure::usage_with(
            "snapshots are named and rules are given: it is one or the other",
            "leave the --keep flags out to forget just these snapshots",
        ));
    }
    if has_rules {
        return Ok(Asked::Rules);
    }
    if !args.unsafe_allow_remove_all {
        return Err(Failure::usage_with(
            "nothing says what to forget",
            "name snapshots, or say what to keep: --keep-last 10, --keep-daily 7 --keep-weekly 5, \
             --keep-within 1y, --keep-tag TAG; --dry-run shows what would go",
        ));
    }
    if !args.has_filter() {
        return Err(Failure::usage_with(
            "without a rule every snapshot would be forgotten",
            "say of which with --host, --tag or --path; to give up a whole repository, delete its \
             folder",
        ));
    }
    Ok(Asked::Filtered)
}

/// The snapshots that are named, in their groups; nothing that stays is among them.
fn named(
    repository: &Repository,
    args: &ForgetArgs,
    filter: &FilterArgs,
) -> anyhow::Result<Vec<Group>> {
    let chosen = filter.choose(repository, &args.snapshots)?;
    if !args.unsafe_allow_remove_all {
        let ids: BTreeSet<SnapshotId> = chosen.iter().map(|stored| stored.id).collect();
        let all = repository.snapshots(&SnapshotFilter::default())?;
        let whole = Policy { group_by: args.group_by, ..Policy::default() };
        let emptied = forget::plan(&all, &whole, repository.now())
            .into_iter()
            .find(|group| group.decisions.iter().all(|decision| ids.contains(&decision.stored.id)));
        if let Some(group) = emptied {
            return Err(Failure::other(
                format!("no snapshot would be left of {}", title(&group.key)),
                "nothing was forgotten; --unsafe-allow-remove-all forgets it all the same",
            )
            .into());
        }
    }
    let all = Policy { group_by: args.group_by, may_empty_groups: true, ..Policy::default() };
    Ok(forget::plan(&chosen, &all, repository.now()))
}

fn title(key: &GroupKey) -> String {
    let host = key.host.as_ref().map(|host| format!("host {}", text::printable(host)));
    let paths = key.paths.as_ref().map(|paths| format!("paths {}", joined_paths(paths)));
    let tags = key.tags.as_ref().map(|tags| match tags.as_slice() {
        [] => "no tags".to_owned(),
        tags => format!("tags {}", joined_tags(tags)),
    });
    let all: Vec<String> = [host, paths, tags].into_iter().flatten().collect();
    if all.is_empty() { "the repository".to_owned() } else { all.join(", ") }
}

fn show_plan(
    context: &Context,
    args: &ForgetArgs,
    asked: Asked,
    groups: &[Group],
) -> anyhow::Result<()> {
    let mut out = context.ui.out();
    if context.ui.is_json() {
        let all: Vec<json::ForgetGroup> = groups.iter().map(json_group).collect();
        out.write_all(&json::line(&all))?;
    } else if !context.ui.is_quiet() {
        for group in groups {
            if asked != Asked::Ids {
                writeln!(out, "{}", title(&group.key))?;
            }
            // The title of a group has its paths.
            let is_in_title = asked != Asked::Ids && args.group_by.paths;
            out.write_all(table(group, args.compact || is_in_title).as_bytes())?;
            writeln!(out)?;
        }
    }
    out.finish()?;
    Ok(())
}

fn table(group: &Group, without_paths: bool) -> String {
    let titles = ["Plan", "ID", "Time", "Host", "Tags", "Reasons", "Paths"];
    let mut table = Lines::new(if without_paths { &titles[..6] } else { &titles });
    for Decision { stored, reasons } in group.decisions.iter().rev() {
        let snapshot = &stored.snapshot;
        let mut row = vec![
            if reasons.is_empty() { "forget" } else { "keep" }.to_owned(),
            stored.id.short(),
            text::time(snapshot.time),
            text::printable(&snapshot.host),
            snapshots::shown_tags(snapshot),
            text::printable(&reasons.join("; ")),
        ];
        if !without_paths {
            row.push(joined_paths(&snapshot.paths));
        }
        table.row(row);
    }
    table.render()
}

fn json_group(group: &Group) -> json::ForgetGroup {
    let with_reasons =
        |kept: bool| group.decisions.iter().rev().filter(move |d| d.reasons.is_empty() != kept);
    json::ForgetGroup {
        tags: group.key.tags.clone(),
        host: group.key.host.clone(),
        paths: group.key.paths.as_ref().map(|paths| json::names(paths).0),
        keep: with_reasons(true).map(|decision| (&decision.stored).into()).collect(),
        remove: with_reasons(false).map(|decision| (&decision.stored).into()).collect(),
        reasons: with_reasons(true)
            .map(|decision| json::ForgetReason {
                snapshot: (&decision.stored).into(),
                matches: decision.reasons.clone(),
            })
            .collect(),
    }
}

fn summarize(
    context: &Context,
    args: &ForgetArgs,
    repository: &Repository,
    asked: Asked,
    (groups, forgotten): (&[Group], u64),
) -> anyhow::Result<()> {
    let ui = &context.ui;
    if ui.is_json() || ui.is_quiet() {
        return Ok(());
    }
    if groups.is_empty() {
        ui.say(format_args!("no snapshot matches; nothing was forgotten"));
        return Ok(());
    }
    let verb = if args.dry_run { "to forget" } else { "forgotten" };
    let shown = groups.iter().map(|group| group.decisions.len() as u64).sum::<u64>();
    match asked {
        Asked::Ids => {
            ui.say(format_args!("{} {verb}", text::counted(forgotten, "snapshot", "snapshots")));
        }
        Asked::Rules | Asked::Filtered => {
            let kept = text::counted(shown - forgotten, "snapshot", "snapshots");
            ui.say(format_args!("{kept} kept, {} {verb}", text::count(forgotten)));
            let mut filter = args.filter().filter()?;
            filter.include_checkpoints = true;
            let all = repository.snapshots(&filter)?;
            let checkpoints = all.iter().filter(|stored| !stored.snapshot.complete).count() as u64;
            if checkpoints > 0 {
                ui.say(format_args!(
                    "{} of unfinished backups: not counted, and kept",
                    text::counted(checkpoints, "checkpoint", "checkpoints")
                ));
            }
        }
    }
    if args.dry_run {
        ui.say(format_args!("dry run: nothing was changed"));
    } else if forgotten > 0 {
        ui.say(format_args!(
            "`putback undelete` brings back what was forgotten, until `putback prune` has removed it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        assert_eq!(age("1y5m7d2h"), Ok(Age { months: 17, hours: 7 * 24 + 2 }));
        assert_eq!(age("2w"), Ok(Age { months: 0, hours: 336 }));
        for text in ["", "5", "d", "1x", "1d1d", "-1d", "1d ago", "99999999999d", "4294967295y"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_and_groups_are_read() {
        assert_eq!(count("7"), Ok(Reach::Count(7)));
        assert_eq!((count("unlimited"), count("-1")), (Ok(Reach::All), Ok(Reach::All)));
        assert!(count("-2").is_err() && count("x").is_err() && count("").is_err());
        assert_eq!(group_by(""), Ok(GroupBy::default()));
        let all = GroupBy { host: true, paths: true, tags: true };
        assert_eq!(group_by("tags,host, paths"), Ok(all));
        assert!(group_by("moon").is_err());
    }
}
