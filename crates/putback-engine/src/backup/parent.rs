//! What an earlier snapshot saves us from reading.
//!
//! A backup is compared with the newest complete snapshot of the same host and paths, and with a newer
//! checkpoint of these, which knows better what was read since. What is newer is for the repository to say.

use std::iter::Peekable;

use putback_format::tree::{Entry, EntryKind};
use putback_repo::{Backup, Directory, Repository, SnapshotFilter, StoredSnapshot};

use super::{BackupOptions, ParentChoice};
use crate::Error;

/// The snapshots to compare with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parents {
    /// A finished one.
    pub(crate) complete: Option<StoredSnapshot>,
    /// A newer checkpoint.
    pub(crate) checkpoint: Option<StoredSnapshot>,
}

/// Chooses what to compare with.
pub(crate) fn choose(
    repository: &Repository,
    options: &BackupOptions,
    paths: &[Vec<u8>],
) -> Result<Parents, Error> {
    // Listing is needed whatever the choice: it is how a rolled-back storage is noticed.
    let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
    let all = repository.snapshots(&filter)?;
    repository.warn_of_future(all.iter().filter(|stored| stored.snapshot.host == options.host));
    match &options.parent {
        ParentChoice::None => Ok(Parents::default()),
        ParentChoice::Snapshot(selector) => {
            let complete = repository.find_snapshot(selector, &SnapshotFilter::default())?;
            Ok(Parents { complete: Some(complete), checkpoint: None })
        }
        ParentChoice::Automatic => {
            let is_alike = |stored: &&StoredSnapshot| {
                stored.snapshot.host == options.host && stored.snapshot.paths == paths
            };
            let mut newest_first = all.iter().rev().filter(is_alike).peekable();
            let newest = newest_first.peek().filter(|stored| !stored.snapshot.complete);
            let checkpoint = newest.map(|stored| (*stored).clone());
            Ok(Parents {
                complete: newest_first.find(|s| s.snapshot.complete).cloned(),
                checkpoint,
            })
        }
    }
}

/// A directory of the parents, read along with the walk: both go in order of name.
#[derive(Default)]
pub(crate) struct ParentDirectory {
    /// The checkpoint's comes first.
    entries: Vec<Peekable<Directory>>,
}

impl ParentDirectory {
    /// The roots of the parents.
    pub(crate) fn of(repository: &Repository, parents: &Parents) -> Self {
        let roots = [&parents.checkpoint, &parents.complete];
        let roots = roots.into_iter().flatten().map(|stored| &stored.snapshot.root);
        Self::open(repository, roots)
    }

    fn open<'a>(repository: &Repository, entries: impl Iterator<Item = &'a Entry>) -> Self {
        let entries = entries
            .filter(|entry| matches!(entry.kind, EntryKind::Directory { .. }))
            .filter_map(|entry| repository.read_directory(entry).ok())
            .map(Iterator::peekable)
            .collect();
        Self { entries }
    }

    /// One directory of each of two repositories.
    pub(crate) fn pair(first: (&Repository, &Entry), second: (&Repository, &Entry)) -> Self {
        let mut both = Self::open(first.0, std::iter::once(first.1));
        both.entries.extend(Self::open(second.0, std::iter::once(second.1)).entries);
        both
    }

    /// The entries of this name. Names must be asked for in ascending order.
    pub(crate) fn take(&mut self, name: &[u8], backup: &Backup) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        for entries in &mut self.entries {
            loop {
                match entries.peek() {
                    Some(Ok(entry)) if entry.name.as_slice() < name => drop(entries.next()),
                    Some(Ok(entry)) if entry.name == name => {
                        found.extend(entries.next().and_then(Result::ok));
                        break;
                    }
                    // A page that cannot be read only means that its files are read again and it is stored again.
                    Some(Err(error)) => {
                        backup.note_damage(error)?;
                        entries.next();
                    }
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// The directories among `entries`.
    pub(crate) fn below(repository: &Repository, entries: &[Entry]) -> Self {
        Self::open(repository, entries.iter())
    }
}
