//! `putback ls`.

use std::ffi::OsString;
use std::io::Write;

use clap::{Args, ValueEnum};
use putback_engine::Error as EngineError;
use putback_engine::list::{self, Descend};
use putback_format::tree::{Entry, EntryKind};
use putback_repo::{Repository, StoredSnapshot};

use crate::commands::select::{FilterArgs, SnapshotPath};
use crate::context::Context;
use crate::report::Outcome;
use crate::ui::{Out, json, text};

/// List what is in a snapshot
///
/// Without a folder the whole snapshot is listed. With a folder, as SNAPSHOT:FOLDER or as a second
/// argument, what is directly in it; with --recursive all below it too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        putback ls latest\n  \
        putback ls latest:/home/ada --long --human\n  \
        putback ls 1a2b3c4d /etc --recursive --sort size --reverse")]
pub(crate) struct LsArgs {
    /// latest, latest~N, an id or its beginning; with :FOLDER, what is in it
    #[arg(value_name = "SNAPSHOT[:FOLDER]", value_parser = SnapshotPath::parser())]
    snapshot: SnapshotPath,
    /// Folder in the snapshot
    #[arg(value_name = "FOLDER")]
    folder: Option<OsString>,
    /// Show mode, owner, size and time
    #[arg(short, long, env = "PUTBACK_LONG")]
    long: bool,
    /// List all below the folder
    #[arg(long, env = "PUTBACK_RECURSIVE")]
    recursive: bool,
    /// Order of the list
    #[arg(short, long, env = "PUTBACK_SORT", value_name = "KEY", default_value = "name")]
    sort: Sort,
    /// Reverse the order
    #[arg(long, env = "PUTBACK_REVERSE")]
    reverse: bool,
    /// Show sizes as 1.5 GiB
    #[arg(long, env = "PUTBACK_HUMAN", alias = "human-readable")]
    human: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// `--sort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By path
    Name,
    /// By size, smallest first
    Size,
    /// By time of change, oldest first
    Time,
    /// By what follows the last dot
    Extension,
}

/// Lists what is in a snapshot.
pub(crate) fn run(context: &Context, args: &LsArgs) -> anyhow::Result<Outcome> {
    let wanted = args.snapshot.with_path(args.folder.as_ref())?;
    let repository = context.open()?;
    let stored = wanted.find(&repository, &args.filter)?;
    context.show_warnings(&repository);
    let is_recursive = args.recursive || !wanted.has_path;
    let mut printer = Printer { out: context.ui.out(), json: context.ui.is_json(), args, count: 0 };
    printer.begin(&stored)?;
    if args.sort == Sort::Name && !args.reverse {
        walk(&repository, &stored, &wanted.path, is_recursive, |path, entry| {
            printer.entry(path, entry)
        })?;
    } else {
        let mut all: Vec<(Vec<u8>, Entry)> = Vec::new();
        walk(&repository, &stored, &wanted.path, is_recursive, |path, entry| {
            all.push((path.to_vec(), slim(entry)));
            Ok(())
        })?;
        sort(&mut all, args.sort);
        if args.reverse {
            all.reverse();
        }
        for (path, entry) in &all {
            printer.entry(path, entry)?;
        }
    }
    printer.end()?;
    Ok(Outcome::Done)
}

/// Calls `visit` for all entries below `path`, or for `path` itself if it is no folder. An error of
/// `visit` ends the walk.
fn walk(
    repository: &Repository,
    stored: &StoredSnapshot,
    path: &[u8],
    is_recursive: bool,
    mut visit: impl FnMut(&[u8], &Entry) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut failure = None;
    let base = depth(path);
    list::walk(repository, &stored.snapshot, path, &mut |path, entry| {
        let is_start = depth(path) <= base;
        let is_directory = matches!(entry.kind, EntryKind::Directory { .. });
        if is_start && is_directory {
            return Ok::<_, EngineError>(Descend::Yes);
        }
        if let Err(error) = visit(path, entry) {
            failure = Some(error);
            return Ok(Descend::Stop);
        }
        Ok(if is_recursive { Descend::Yes } else { Descend::No })
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// How many names a path has.
fn depth(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

/// Without what no listing shows, for those that hold all entries at once.
fn slim(entry: &Entry) -> Entry {
    let kind = match &entry.kind {
        EntryKind::File { size, .. } => EntryKind::File {
            size: *size,
            content: putback_format::tree::Content::Inline(Vec::new()),
            holes: Vec::new(),
        },
        EntryKind::Directory { .. } => EntryKind::Directory { pages: Vec::new() },
        other => other.clone(),
    };
    Entry { kind, xattrs: Vec::new(), unknown: Vec::new(), windows: None, ..entry.clone() }
}

fn sort(all: &mut [(Vec<u8>, Entry)], key: Sort) {
    match key {
        Sort::Name => all.sort_by(|left, right| left.0.cmp(&right.0)),
        Sort::Size => all.sort_by_key(|(_, entry)| text::size(entry)),
        Sort::Time => all.sort_by_key(|(_, entry)| entry.mtime),
        Sort::Extension => {
            all.sort_by(|left, right| extension(&left.1.name).cmp(extension(&right.1.name)));
        }
    }
}

fn extension(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => &name[dot + 1..],
        _ => b"",
    }
}

/// Writes entries as they come.
struct Printer<'a> {
    out: Out<'a>,
    json: bool,
    args: &'a LsArgs,
    count: u64,
}

impl Printer<'_> {
    fn begin(&mut self, stored: &StoredSnapshot) -> std::io::Result<()> {
        if self.json {
            // One document, a node a line, written while the snapshot is read.
            let snapshot = json::line(&json::Snapshot::from(stored));
            self.out.write_all(b"{\"snapshot\":")?;
            self.out.write_all(snapshot.trim_ascii_end())?;
            self.out.write_all(b",\"nodes\":[")?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], entry: &Entry) -> std::io::Result<()> {
        if self.json {
            self.out.write_all(if self.count == 0 { b"\n" } else { b",\n" })?;
            self.out.write_all(json::line(&json::Node::new(path, entry)).trim_ascii_end())?;
        } else if self.args.long {
            writeln!(self.out, "{}", long_line(path, entry, self.args.human))?;
        } else {
            writeln!(self.out, "{}", text::escaped(path))?;
        }
        self.count += 1;
        Ok(())
    }

    fn end(mut self) -> std::io::Result<()> {
        if self.json {
            self.out.write_all(b"\n]}\n")?;
        }
        self.out.finish()
    }
}

/// An entry as `ls -l` shows it; for `find` too.
pub(crate) fn long_line(path: &[u8], entry: &Entry, human: bool) -> String {
    let name = |name: &[u8], number: u32| match name {
        b"" => number.to_string(),
        name => text::escaped(name),
    };
    let size = match entry.kind {
        EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => text::table_bytes(text::size(entry), human),
    };
    let target = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", text::escaped(target)),
        _ => String::new(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {} {}{target}",
        text::mode(entry),
        name(&entry.user, entry.uid),
        name(&entry.group, entry.gid),
        text::time(entry.mtime),
        text::escaped(path),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_what_follows_the_last_dot() {
        for (name, expected) in
            [("a.txt", "txt"), ("a.tar.gz", "gz"), (".profile", ""), ("none", ""), ("end.", "")]
        {
            assert_eq!(extension(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn depth_counts_names() {
        for (path, expected) in [("", 0), ("/", 0), ("/a", 1), ("a/b/", 2), ("/a//b", 2)] {
            assert_eq!(depth(path.as_bytes()), expected, "{path}");
        }
    }
}
