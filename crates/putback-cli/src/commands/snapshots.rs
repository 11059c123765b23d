//! `putback snapshots`.

use std::io::Write;

use clap::{Args, ValueEnum};
use putback_format::snapshot::Snapshot;
use putback_format::tree::Timestamp;
use putback_repo::{StoredSnapshot, order};

use crate::commands::select::FilterArgs;
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::table::Lines;
use crate::ui::{json, text};

/// List snapshots, oldest first
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback snapshots\n  \
        putback snapshots --host laptop --latest 3 --human\n  \
        putback snapshots --group-by host,paths")]
pub(crate) struct SnapshotsArgs {
    /// Only these: latest, latest~N, ids or their beginnings
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Only id, time, host and tags
    #[arg(short, long, env = "PUTBACK_COMPACT")]
    compact: bool,
    /// Only the last N of each host and set of paths, or of each group
    #[arg(long, env = "PUTBACK_LATEST", value_name = "N")]
    latest: Option<usize>,
    /// A table for each host, paths or tags, separated by commas
    #[arg(short, long, env = "PUTBACK_GROUP_BY", value_name = "KEYS", value_delimiter = ',')]
    group_by: Vec<GroupBy>,
    /// Show sizes as 1.5 GiB
    #[arg(long, env = "PUTBACK_HUMAN")]
    human: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What snapshots can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GroupBy {
    #[value(alias = "hosts")]
    Host,
    #[value(alias = "path")]
    Paths,
    #[value(alias = "tag")]
    Tags,
}

/// What the snapshots of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: Option<String>,
    paths: Option<Vec<Vec<u8>>>,
    tags: Option<Vec<String>>,
}

impl Key {
    fn of(snapshot: &Snapshot, by: &[GroupBy]) -> Self {
        Self {
            host: by.contains(&GroupBy::Host).then(|| snapshot.host.clone()),
            paths: by.contains(&GroupBy::Paths).then(|| snapshot.paths.clone()),
            tags: by.contains(&GroupBy::Tags).then(|| snapshot.tags.clone()),
        }
    }

    fn title(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("host {}", text::printable(host)));
        let paths = self.paths.as_ref().map(|paths| format!("paths {}", joined_paths(paths)));
        let tags = self.tags.as_ref().map(|tags| format!("tags {}", joined_tags(tags)));
        [host, paths, tags].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Lists snapshots.
pub(crate) fn run(context: &Context, args: &SnapshotsArgs) -> anyhow::Result<Outcome> {
    let repository = context.open()?;
    let mut snapshots = args.filter.choose(&repository, &args.snapshots)?;
    if let Some(latest) = args.latest {
        let by = if args.group_by.is_empty() {
            &[GroupBy::Host, GroupBy::Paths]
        } else {
            args.group_by.as_slice()
        };
        snapshots = keep_latest(snapshots, by, latest);
    }
    repository.warn_of_future(&snapshots);
    context.show_warnings(&repository);
    let groups = grouped(snapshots, &args.group_by);
    let mut out = context.ui.out();
    if context.ui.is_json() {
        if args.group_by.is_empty() {
            let all: Vec<json::Snapshot> =
                groups.iter().flat_map(|(_, group)| group).map(Into::into).collect();
            out.write_all(&json::line(&all))?;
        } else {
            let all: Vec<json::SnapshotGroup> = groups.iter().map(json_group).collect();
            out.write_all(&json::line(&all))?;
        }
    } else {
        for (position, (key, group)) in groups.iter().enumerate() {
            if !args.group_by.is_empty() {
                let gap = if position == 0 { "" } else { "\n" };
                writeln!(out, "{gap}{}", key.title())?;
            }
            out.write_all(table(group, args, repository.now()).as_bytes())?;
        }
        let count = groups.iter().map(|(_, group)| group.len() as u64).sum();
        if !context.ui.is_quiet() {
            writeln!(out, "{}", text::counted(count, "snapshot", "snapshots"))?;
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// Of each group, the last `latest`; the order stays.
fn keep_latest(
    snapshots: Vec<StoredSnapshot>,
    by: &[GroupBy],
    latest: usize,
) -> Vec<StoredSnapshot> {
    let keys: Vec<Key> = snapshots.iter().map(|stored| Key::of(&stored.snapshot, by)).collect();
    let is_kept = |position: usize| {
        keys[position + 1..].iter().filter(|key| **key == keys[position]).count() < latest
    };
    let kept: Vec<bool> = (0..keys.len()).map(is_kept).collect();
    snapshots.into_iter().zip(kept).filter_map(|(stored, kept)| kept.then_some(stored)).collect()
}

/// In the order of their keys; all in one group if there is nothing to group by.
fn grouped(snapshots: Vec<StoredSnapshot>, by: &[GroupBy]) -> Vec<(Key, Vec<StoredSnapshot>)> {
    let mut groups = std::collections::BTreeMap::<Key, Vec<StoredSnapshot>>::new();
    for stored in snapshots {
        groups.entry(Key::of(&stored.snapshot, by)).or_default().push(stored);
    }
    groups.into_iter().collect()
}

fn json_group((key, group): &(Key, Vec<StoredSnapshot>)) -> json::SnapshotGroup {
    json::SnapshotGroup {
        group_key: json::GroupKey {
            hostname: key.host.clone(),
            paths: key.paths.as_ref().map(|paths| json::names(paths).0),
            tags: key.tags.clone(),
        },
        snapshots: group.iter().map(Into::into).collect(),
    }
}

fn table(snapshots: &[StoredSnapshot], args: &SnapshotsArgs, now: Timestamp) -> String {
    let titles: &[&str] = match args.compact {
        true => &["ID", "Time", "Host", "Tags"],
        false => &["ID", "Time", "Host", "Tags", ">Files", ">Size", "Paths"],
    };
    let mut table = Lines::new(titles);
    for stored in snapshots {
        let snapshot = &stored.snapshot;
        let counts = &snapshot.statistics;
        let files = counts.files_new + counts.files_changed + counts.files_unchanged;
        let mut row = vec![
            stored.id.short(),
            shown_time(snapshot, now),
            text::printable(&snapshot.host),
            shown_tags(snapshot),
        ];
        if !args.compact {
            row.push(files.to_string());
            row.push(text::table_bytes(counts.bytes_total, args.human));
            let description = match snapshot.description.as_str() {
                "" => String::new(),
                text => format!("  ({})", text::printable(text)),
            };
            row.push(format!("{}{description}", joined_paths(&snapshot.paths)));
        }
        table.row(row);
    }
    table.render()
}

/// The time, with a mark on one that cannot be right.
fn shown_time(snapshot: &Snapshot, now: Timestamp) -> String {
    let mark = if order::is_in_future(snapshot.time, now) { " (future)" } else { "" };
    format!("{}{mark}", text::time(snapshot.time))
}

/// Tags, and whether it is a checkpoint.
pub(crate) fn shown_tags(snapshot: &Snapshot) -> String {
    let tags = joined_tags(&snapshot.tags);
    match (snapshot.complete, tags.is_empty()) {
        (true, _) => tags,
        (false, true) => "(checkpoint)".to_owned(),
        (false, false) => format!("{tags} (checkpoint)"),
    }
}

pub(crate) fn joined_paths(paths: &[Vec<u8>]) -> String {
    paths.iter().map(|path| text::escaped(path)).collect::<Vec<_>>().join(", ")
}

pub(crate) fn joined_tags(tags: &[String]) -> String {
    text::printable(&tags.join(","))
}
