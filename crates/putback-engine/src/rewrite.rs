//! Rewrite: snapshots without some of their paths, or with other words about them.
//!
//! Trees are changed from the removed entry upwards: pages of the directories on the way are written anew, all others
//! keep their ids, and no file is read. A name of a hard-linked file that goes leaves the others as they are: each
//! entry holds the whole content.
//!
//! What was removed stays in the storage until the old snapshots are forgotten, which this does unless told otherwise,
//! and prune has removed what nothing needs.
//!
//! Memory: a page for each directory of the open path, the paths that are removed, and 100,000 directories each of
//! those that hold nothing to remove and those that were counted.

use std::collections::BTreeMap;

use putback_format::id::{BlobId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::page::PageBuilder;
use putback_format::snapshot::{Incident, Statistics};
use putback_format::tree::{Entry, EntryKind};
use putback_repo::{
    Amount, Cancel, Directory, Event, FrameWriter, Observer, Phase, Repository, SnapshotDraft,
    StoredSnapshot,
};

use crate::Error;
use crate::backup::FilterOptions;
use crate::memo::{DirectoryKey, SubtreeMemo};
use crate::source::filter::Filter;
use crate::tree_source::{Step, Walk, data_bytes};

/// Changes what a snapshot says of itself.
pub type Change<'a> = dyn Fn(&mut SnapshotDraft) + 'a;

/// How to rewrite.
pub struct RewriteOptions<'a> {
    /// What is removed; only patterns count.
    pub filter: FilterOptions,
    /// What else changes.
    pub change: &'a Change<'a>,
    /// The old snapshots stay beside the new ones.
    pub keeps_old: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// Cores to use.
    pub workers: usize,
    /// Stops it; snapshots that were not written stay as they were.
    pub cancel: Cancel,
}

/// How much is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files; each hard link counts.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices, FIFOs and sockets.
    pub others: u64,
    /// Bytes of the files, holes not counted.
    pub bytes: u64,
}

impl Removed {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn add_entry(&mut self, entry: &Entry) {
        let count = match &entry.kind {
            EntryKind::File { .. } => &mut self.files,
            EntryKind::Directory { .. } => &mut self.directories,
            _ => &mut self.others,
        };
        *count += 1;
        self.bytes = self.bytes.saturating_add(data_bytes(entry));
    }
}

/// A path that a pattern matches, with all that lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedPath {
    /// Absolute, raw bytes.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// How much goes with it.
    pub removed: Removed,
}

/// A snapshot that changes.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// As it is.
    pub old: StoredSnapshot,
    /// Its new id; none for a dry run, and if it did not come to that.
    pub new: Option<SnapshotId>,
    /// What it is to say.
    pub draft: SnapshotDraft,
    /// What goes, in the order of the walk.
    pub paths: Vec<RemovedPath>,
    /// All of it together.
    pub removed: Removed,
}

/// What was rewritten.
#[derive(Debug, Default)]
pub struct RewriteReport {
    /// Those that change.
    pub rewritten: Vec<Rewritten>,
    /// Those that are as they should be.
    pub unchanged: u64,
    /// Those that cannot be rewritten, and why.
    pub failed: Vec<(SnapshotId, Error)>,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// Rewrites `snapshots`.
///
/// One of which something that a new one needs is lost, or of which nothing would be left, stays as it is and is
/// named in the report.
///
/// # Errors
/// - [`Error::Pattern`], [`Error::Source`]: a pattern or a file of patterns.
/// - [`Error::Repository`]: the store failed; those that are written stay.
pub fn rewrite(
    repository: &Repository,
    snapshots: &[StoredSnapshot],
    options: &RewriteOptions<'_>,
    observer: &dyn Observer,
) -> Result<RewriteReport, Error> {
    let filter = Filter::new(&options.filter)?;
    let mut report = RewriteReport::default();
    let backup = match options.dry_run {
        true => repository.begin_dry_run(None, options.workers)?,
        false => repository.begin_upkeep(options.workers)?,
    };
    let total = Amount { items: snapshots.len() as u64, bytes: 0 };
    observer.event(Event::PhaseStarted { phase: Phase::Rewrite, total: Some(total) });
    let mut pruner = Pruner {
        repository,
        filter: &filter,
        cancel: &options.cancel,
        trees: backup.frame_writer(BlobKind::Tree),
        paths: Vec::new(),
        is_any_kept: false,
        untouched: SubtreeMemo::new(SubtreeMemo::<DirectoryKey, ()>::ENTRIES_MAX),
        counted: SubtreeMemo::new(SubtreeMemo::<DirectoryKey, Removed>::ENTRIES_MAX),
    };
    for stored in snapshots {
        match pruner.rewrite(stored, options.change) {
            Ok(None) => report.unchanged += 1,
            Ok(Some(rewritten)) => report.rewritten.push(rewritten),
            Err(Error::Repository(putback_repo::Error::Cancelled)) => {
                report.is_interrupted = true;
                break;
            }
            Err(error) if concerns_snapshot(&error) => report.failed.push((stored.id, error)),
            Err(error) => return Err(error),
        }
        let by = Amount { items: 1, bytes: 0 };
        observer.event(Event::Advanced { phase: Phase::Rewrite, by });
    }
    pruner.trees.flush()?;
    drop(pruner);
    if options.dry_run || report.is_interrupted || report.rewritten.is_empty() {
        // What was put is not needed, and harms nobody.
        backup.finish()?;
        return Ok(report);
    }
    let changes: Vec<_> =
        report.rewritten.iter().map(|one| (one.old.clone(), one.draft.clone())).collect();
    let replaced = backup.replace(&changes, options.keeps_old, &options.cancel)?;
    report.is_interrupted = replaced.is_interrupted;
    let written: BTreeMap<SnapshotId, SnapshotId> = replaced.written.into_iter().collect();
    for rewritten in &mut report.rewritten {
        rewritten.new = written.get(&rewritten.old.id).copied();
    }
    for (id, error) in replaced.failed {
        report.rewritten.retain(|rewritten| rewritten.old.id != id);
        report.failed.push((id, error.into()));
    }
    Ok(report)
}

/// Whether another snapshot may be better off.
fn concerns_snapshot(error: &Error) -> bool {
    use putback_repo::Error as Repository;
    match error {
        Error::Refused { .. } => true,
        Error::Repository(error) => match error {
            error if error.is_about_blob() => true,
            Repository::Damaged { .. } => true,
            Repository::Store(error) => error.is_about_object(),
            _ => false,
        },
        _ => false,
    }
}

/// Removes paths from trees.
struct Pruner<'a> {
    repository: &'a Repository,
    filter: &'a Filter,
    cancel: &'a Cancel,
    trees: FrameWriter,
    /// What the snapshot at hand was asked to hold.
    paths: Vec<Vec<u8>>,
    /// Whether anything stays of it but folders on the way to that.
    is_any_kept: bool,
    /// Directories, with their path, that hold nothing to remove.
    untouched: SubtreeMemo<(DirectoryKey, Vec<u8>), ()>,
    counted: SubtreeMemo<DirectoryKey, Removed>,
}

/// A directory of the open path.
struct Open {
    entry: Entry,
    entries: Directory,
    path_length: usize,
    builder: PageBuilder,
    pages: Vec<BlobId>,
    is_changed: bool,
    /// Entries met in and below it.
    met: u64,
}

impl Pruner<'_> {
    fn rewrite(
        &mut self,
        stored: &StoredSnapshot,
        change: &Change<'_>,
    ) -> Result<Option<Rewritten>, Error> {
        let before = SnapshotDraft::from(&stored.snapshot);
        let mut draft = before.clone();
        let mut paths = Vec::new();
        self.paths.clone_from(&before.paths);
        self.is_any_kept = false;
        draft.root = self.prune(before.root.clone(), &mut paths)?;
        let mut removed = Removed::default();
        paths.iter().for_each(|path| removed.add(&path.removed));
        if !paths.is_empty() && !self.is_any_kept {
            return Err(Error::Refused {
                message: "nothing would be left of it: forget it instead".to_owned(),
            });
        }
        let listed = draft.incidents.len() as u64;
        draft.incidents.retain(|incident| !self.is_removed(incident));
        draft.statistics = less(before.statistics, &removed);
        draft.statistics.incidents -=
            (listed - draft.incidents.len() as u64).min(draft.statistics.incidents);
        change(&mut draft);
        let is_same = !is_different(&before, &draft);
        let old = stored.clone();
        Ok((!is_same).then_some(Rewritten { old, new: None, draft, paths, removed }))
    }

    /// Whether the path of an incident, or a folder that it lies in, matches.
    fn is_removed(&self, incident: &Incident) -> bool {
        let path = incident.path.as_slice();
        let ends = (1..path.len()).filter(|at| path[*at] == b'/');
        let is_excluded =
            |path: &[u8], is_directory| self.filter.decide_name(path, is_directory, None).is_some();
        ends.map(|end| &path[..end]).any(|folder| is_excluded(folder, true))
            || is_excluded(path, true)
            || is_excluded(path, false)
    }

    /// The root without what the filter excludes.
    fn prune(&mut self, root: Entry, removed: &mut Vec<RemovedPath>) -> Result<Entry, Error> {
        if !self.filter.may_exclude_below(b"") {
            return Ok(root);
        }
        let mut path = Vec::new();
        let mut stack = vec![self.open(root, 0)?];
        loop {
            let Some(open) = stack.last_mut() else {
                return Err(putback_repo::Error::WorkerFailed.into());
            };
            if self.cancel.is_cancelled() {
                return Err(putback_repo::Error::Cancelled.into());
            }
            path.truncate(open.path_length);
            let Some(entry) = open.entries.next().transpose()? else {
                let Some(open) = stack.pop() else { continue };
                let (met, is_changed) = (open.met, open.is_changed);
                let entry = self.close(open, &path)?;
                let Some(above) = stack.last_mut() else { return Ok(entry) };
                above.is_changed |= is_changed;
                above.met += met;
                push(&mut self.trees, above, &entry)?;
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            open.met += 1;
            let is_directory = entry.is_directory();
            if self.filter.decide_name(&path, is_directory, None).is_some() {
                open.is_changed = true;
                let counted = self.count(&entry)?;
                removed.push(RemovedPath { path: path.clone(), is_directory, removed: counted });
            } else if self.has_to_look(&entry, &path) {
                self.is_any_kept |= !self.leads_to_content(&path);
                let open = self.open(entry, path.len())?;
                stack.push(open);
            } else {
                self.is_any_kept = true;
                push(&mut self.trees, open, &entry)?;
            }
        }
    }

    /// Whether a folder is there only because something below it was asked for.
    fn leads_to_content(&self, folder: &[u8]) -> bool {
        let is_above = |path: &Vec<u8>| {
            path.strip_prefix(folder).is_some_and(|below| below.first() == Some(&b'/'))
        };
        self.paths.iter().any(is_above)
    }

    fn has_to_look(&self, entry: &Entry, path: &[u8]) -> bool {
        let EntryKind::Directory { pages } = &entry.kind else { return false };
        self.filter.may_exclude_below(path)
            && self.untouched.get(&(DirectoryKey::new(pages), path.to_vec())).is_none()
    }

    fn open(&self, entry: Entry, path_length: usize) -> Result<Open, Error> {
        Ok(Open {
            entries: self.repository.read_directory(&entry)?,
            entry,
            path_length,
            builder: PageBuilder::new(),
            pages: Vec::new(),
            is_changed: false,
            met: 0,
        })
    }

    /// The entry of a directory that was walked to its end.
    fn close(&mut self, open: Open, path: &[u8]) -> Result<Entry, Error> {
        let Open { mut entry, builder, mut pages, is_changed, met, .. } = open;
        if let EntryKind::Directory { pages: old } = &mut entry.kind {
            if is_changed {
                if let Some(page) = builder.finish() {
                    pages.push(self.trees.put(&page)?);
                }
                *old = pages;
            } else {
                self.untouched.insert((DirectoryKey::new(old), path.to_vec()), met, ());
            }
        }
        Ok(entry)
    }

    /// How much goes with an entry.
    fn count(&mut self, entry: &Entry) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        removed.add_entry(entry);
        let EntryKind::Directory { pages } = &entry.kind else { return Ok(removed) };
        let key = DirectoryKey::new(pages);
        let below = match self.counted.get(&key) {
            Some(below) => *below,
            None => {
                let mut below = Removed::default();
                let mut walk = Walk::new(self.repository, b"", pages)?;
                while let Some(step) = walk.next()? {
                    if self.cancel.is_cancelled() {
                        return Err(putback_repo::Error::Cancelled.into());
                    }
                    let Step::Entry(entry) = step else { continue };
                    below.add_entry(&entry);
                    if let EntryKind::Directory { pages } = &entry.kind {
                        walk.enter(pages)?;
                    }
                }
                self.counted.insert(key, below.files + below.directories + below.others, below);
                below
            }
        };
        removed.add(&below);
        Ok(removed)
    }
}

/// Adds an entry to a directory that is being made anew.
fn push(trees: &mut FrameWriter, open: &mut Open, entry: &Entry) -> Result<(), Error> {
    let page = open
        .builder
        .push(entry)
        .map_err(|source| putback_repo::Error::Encode { object: "a tree page", source })?;
    if let Some(page) = page {
        // Known already unless something before it was removed.
        open.pages.push(trees.put(&page)?);
    }
    Ok(())
}

/// The counts of a backup that had not met what is removed. How many of these files were new then is not known; they
/// are taken from the unchanged ones first.
fn less(statistics: Statistics, removed: &Removed) -> Statistics {
    let mut left = statistics;
    let mut files = removed.files;
    for count in [&mut left.files_unchanged, &mut left.files_changed, &mut left.files_new] {
        let part = files.min(*count);
        *count -= part;
        files -= part;
    }
    left.directories = left.directories.saturating_sub(removed.directories);
    left.others = left.others.saturating_sub(removed.others);
    left.bytes_total = left.bytes_total.saturating_sub(removed.bytes);
    left
}

fn is_different(before: &SnapshotDraft, after: &SnapshotDraft) -> bool {
    let words = |draft: &SnapshotDraft| {
        (draft.host.clone(), draft.user.clone(), draft.description.clone(), draft.tags.clone())
    };
    before.root != after.root
        || before.time != after.time
        || before.statistics != after.statistics
        || words(before) != words(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_files_are_taken_from_the_unchanged_ones_first() {
        let statistics = Statistics {
            files_new: 5,
            files_changed: 2,
            files_unchanged: 3,
            directories: 4,
            others: 1,
            bytes_total: 1000,
            bytes_read: 700,
            ..Statistics::default()
        };
        let check = |files, expected| {
            let removed = Removed { files, directories: 1, others: 1, bytes: 400 };
            let left = less(statistics, &removed);
            assert_eq!((left.files_new, left.files_changed, left.files_unchanged), expected);
            assert_eq!((left.directories, left.others, left.bytes_total), (3, 0, 600));
            assert_eq!(left.bytes_read, 700, "what the backup did stays");
        };
        check(0, (5, 2, 3));
        check(3, (5, 2, 0));
        check(6, (4, 0, 0));
        check(99, (0, 0, 0));
    }
}
