//! Snapshots: listing, selecting, and noticing those that a storage hides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use putback_format::envelope::ObjectKind;
use putback_format::id::{MarkId, PackId, SnapshotId, WriterId};
use putback_format::mark::{Mark, MarkKind};
use putback_format::snapshot::Snapshot;
use putback_store::{ObjectInfo, ObjectPath};

use crate::Repository;
use crate::error::{Error, Result, is_damage};
use crate::layout;
use crate::state::Seen;

/// Words that every warning has that is evidence of a storage which lost something or was rolled back.
/// [`Repository::accept_rollback`] ends such warnings.
pub const ROLLED_BACK: &str = "rolled back";

/// How often a folder is listed when something is gone that the listing named.
pub(crate) const LISTS_MAX: usize = 4;

/// A snapshot with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What it says.
    pub snapshot: Snapshot,
}

impl StoredSnapshot {
    /// Whether the other one holds the same of the same time and paths: it is this one, brought back or with other
    /// words.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let (a, b) = (&self.snapshot, &other.snapshot);
        a.root == b.root && a.time == b.time && a.paths == b.paths && a.complete == b.complete
    }
}

/// Which snapshots are meant.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    /// Any of these hosts; all if empty.
    pub hosts: Vec<String>,
    /// Any of these lists of tags, all of whose tags it must have; all if empty.
    pub tags: Vec<Vec<String>>,
    /// All of these paths.
    pub paths: Vec<Vec<u8>>,
    /// Checkpoints too.
    pub include_checkpoints: bool,
}

impl SnapshotFilter {
    /// Whether a snapshot is meant.
    #[must_use]
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let has_tags = |tags: &Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        (self.include_checkpoints || snapshot.complete)
            && (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.tags.is_empty() || self.tags.iter().any(has_tags))
            && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }
}

/// What the objects of the `marks` folder say together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) packs: BTreeSet<PackId>,
    pub(crate) forgotten: BTreeSet<SnapshotId>,
    /// Gaps in writers' sequences that a forget record explains.
    pub(crate) forgotten_sequences: BTreeSet<(WriterId, u64)>,
}

impl Marks {
    fn add(&mut self, mark: &Mark) {
        match &mark.kind {
            MarkKind::Packs(packs) => self.packs.extend(packs),
            MarkKind::Forget(forgotten) => {
                for record in forgotten {
                    self.forgotten.insert(record.snapshot);
                    self.forgotten_sequences.insert((record.writer, record.sequence));
                }
            }
        }
    }
}

impl<'a> FromIterator<&'a Mark> for Marks {
    fn from_iter<I: IntoIterator<Item = &'a Mark>>(all: I) -> Self {
        let mut marks = Self::default();
        all.into_iter().for_each(|mark| marks.add(mark));
        marks
    }
}

impl Repository {
    /// Reads all marks.
    ///
    /// # Errors
    /// [`Error::Damaged`] if one cannot be read: a writer must not go on without it.
    pub(crate) fn marks(&self) -> Result<Marks> {
        Ok(self.read_marks()?.iter().map(|(_, mark)| mark).collect())
    }

    /// Those marks that can be read, for who only looks and for who repairs.
    ///
    /// # Errors
    /// [`Error::Store`] if the store fails.
    pub(crate) fn readable_marks(&self) -> Result<Marks> {
        let mut marks = Marks::default();
        for info in self.store().list(layout::MARKS)? {
            let Ok(id) = info.path.name().parse::<MarkId>() else { continue };
            match self.read_mark(&layout::mark(&id)) {
                Ok(mark) => marks.add(&mark),
                Err(Error::Store(error)) if !is_damage(&error) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(marks)
    }

    fn read_mark(&self, path: &ObjectPath) -> Result<Mark> {
        let payload = self.read_sealed(ObjectKind::Mark, path)?;
        Mark::decode(&payload).map_err(|error| Error::object(path, error))
    }

    /// Reads all objects of the `marks` folder, each with its row. A mark that is gone was carried out since it was
    /// listed: it is listed again.
    ///
    /// # Errors
    /// As [`Repository::marks`].
    pub(crate) fn read_marks(&self) -> Result<Vec<(ObjectInfo, Mark)>> {
        let mut lists = 1;
        loop {
            match self.read_listed_marks() {
                Err(Error::Store(error)) if error.is_not_found() && lists < LISTS_MAX => lists += 1,
                result => return result,
            }
        }
    }

    fn read_listed_marks(&self) -> Result<Vec<(ObjectInfo, Mark)>> {
        let mut marks = Vec::new();
        for info in self.store().list(layout::MARKS)? {
            let Ok(id) = info.path.name().parse::<MarkId>() else { continue };
            let mark = self.read_mark(&layout::mark(&id))?;
            marks.push((info, mark));
        }
        Ok(marks)
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NewerFormat`], [`Error::Store`].
    pub fn read_snapshot(&self, id: &SnapshotId) -> Result<Snapshot> {
        let path = layout::snapshot(id);
        let payload = self.read_sealed(ObjectKind::Snapshot, &path)?;
        Snapshot::decode(&payload).map_err(|error| Error::object(&path, error))
    }

    /// Ids of all snapshot objects that the store lists.
    pub(crate) fn list_snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        let mut ids: Vec<SnapshotId> = self
            .store()
            .list(layout::SNAPSHOTS)?
            .iter()
            .filter_map(|info| info.path.name().parse().ok())
            .collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// All snapshots that are not forgotten, oldest first, checkpoints among them. One that cannot be read is a warning.
    pub(crate) fn all_snapshots(&self) -> Result<Vec<StoredSnapshot>> {
        // Before the listing: what others on this machine note meanwhile need not be listed yet.
        let seen = self.seen_if_readable();
        let (mut snapshots, mut marks) = self.read_snapshots()?;
        let mut missing = missing_numbers(&snapshots, &marks, &seen);
        if !missing.is_empty() {
            // A listing that was under way while others wrote is no evidence.
            (snapshots, marks) = self.read_snapshots()?;
            missing = missing_numbers(&snapshots, &marks, &seen);
        }
        missing.into_iter().for_each(|missing| self.warn(missing.to_string()));
        let mut news = Seen::default();
        for StoredSnapshot { snapshot, .. } in &snapshots {
            let highest = news.sequences.entry(snapshot.writer).or_default();
            *highest = (*highest).max(snapshot.sequence);
        }
        if seen.lacks(&news) {
            self.note_seen(&news);
        }
        Ok(snapshots)
    }

    /// Takes for known, on this machine, what speaks for a storage that lost something or was rolled back, and
    /// says what that was. Nothing else changes; what is lost later is noticed as before.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Damaged`] if a mark cannot be read; [`Error::Local`] if it cannot be kept.
    pub fn accept_rollback(&self) -> Result<Vec<String>> {
        let seen = self.state().seen()?;
        let (snapshots, marks) = self.read_snapshots()?;
        let missing = missing_numbers(&snapshots, &marks, &seen);
        let generation = self.older_generation(&seen);
        let texts: Vec<String> =
            generation.into_iter().chain(missing.iter().map(ToString::to_string)).collect();
        if !texts.is_empty() {
            let ranges: Vec<_> = missing
                .iter()
                .map(|missing| (missing.writer, missing.first, missing.last))
                .collect();
            let _lock = self.state().lock()?;
            self.state().accept(self.config().generation, &ranges)?;
        }
        Ok(texts)
    }

    /// Numbers of snapshots that are missing, with those that cannot be read among them, for a machine that has seen
    /// this.
    pub(crate) fn missing(&self, seen: &Seen) -> Result<Vec<Missing>> {
        let (mut snapshots, mut marks) = self.read_snapshots()?;
        if !missing_numbers(&snapshots, &marks, seen).is_empty() {
            // A listing that was under way while others wrote is no evidence.
            (snapshots, marks) = self.read_snapshots()?;
        }
        Ok(missing_numbers(&snapshots, &marks, seen))
    }

    fn read_snapshots(&self) -> Result<(Vec<StoredSnapshot>, Marks)> {
        let marks = self.marks()?;
        let mut snapshots = Vec::new();
        for id in self.list_snapshot_ids()? {
            if marks.forgotten.contains(&id) {
                continue;
            }
            match self.read_snapshot(&id) {
                Ok(snapshot) => snapshots.push(StoredSnapshot { id, snapshot }),
                // Gone since it was listed: another machine has pruned.
                Err(Error::Store(error)) if error.is_not_found() && self.is_removed(&id)? => {}
                Err(Error::Store(error)) if !is_damage(&error) => return Err(error.into()),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    self.warn(format!(
                        "snapshot {} cannot be read and is left out: {error}{}",
                        id.short(),
                        cause.unwrap_or_default()
                    ));
                }
            }
        }
        self.sort_snapshots(&mut snapshots);
        Ok((snapshots, marks))
    }

    /// Reads these snapshots, for who decides what is needed: one that is gone is left out, but unlike a listing for
    /// people it stops at one that cannot be read, and at one that is not found although it is listed.
    pub(crate) fn read_every<'a>(
        &self,
        ids: impl Iterator<Item = &'a SnapshotId>,
    ) -> Result<Vec<StoredSnapshot>> {
        let mut snapshots = Vec::new();
        for id in ids {
            match self.read_snapshot(id) {
                Ok(snapshot) => snapshots.push(StoredSnapshot { id: *id, snapshot }),
                // Its writer has taken it back, or another prune has deleted it.
                Err(Error::Store(error)) if error.is_not_found() && self.is_removed(id)? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(snapshots)
    }

    /// Whether a snapshot that is not found is gone for good: listed no longer, or, where listings lag behind, at least
    /// forgotten. A storage that does not find it for a moment must not cost what it needs.
    fn is_removed(&self, id: &SnapshotId) -> Result<bool> {
        Ok(!self.list_snapshot_ids()?.contains(id) || self.marks()?.forgotten.contains(id))
    }

    /// The snapshots that the filter means, oldest first as [`Repository::sort_snapshots`] has it. Checkpoints that a later complete snapshot of the
    /// same writer and paths has made void are never among them.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Damaged`] if a mark cannot be read.
    pub fn snapshots(&self, filter: &SnapshotFilter) -> Result<Vec<StoredSnapshot>> {
        let all = self.all_snapshots()?;
        let matching = all
            .iter()
            .filter(|stored| filter.matches(&stored.snapshot))
            .filter(|stored| stored.snapshot.complete || !is_void(&stored.snapshot, &all))
            .cloned()
            .collect();
        Ok(matching)
    }

    /// The one snapshot that a selector means: `latest`, `latest~N`, or the beginning of an id (then whatever
    /// the filter says, and checkpoints too).
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Ambiguous`], [`Error::BadSelector`]; as [`Repository::snapshots`].
    pub fn find_snapshot(&self, selector: &str, filter: &SnapshotFilter) -> Result<StoredSnapshot> {
        let none = || Error::NoSnapshot { selector: selector.to_owned() };
        if let Some(back) = selector.strip_prefix("latest") {
            let back: usize = match back.strip_prefix('~') {
                Some(number) => number.parse().ok(),
                None => back.is_empty().then_some(0),
            }
            .ok_or_else(|| Error::BadSelector { selector: selector.to_owned() })?;
            let latest = self.snapshots(filter)?.into_iter().nth_back(back).ok_or_else(none)?;
            self.warn_of_future([&latest]);
            return Ok(latest);
        }
        let is_hex =
            selector.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if selector.is_empty() || !is_hex {
            return Err(Error::BadSelector { selector: selector.to_owned() });
        }
        let forgotten = self.marks()?.forgotten;
        let matching: Vec<SnapshotId> = self
            .list_snapshot_ids()?
            .into_iter()
            .filter(|id| id.to_string().starts_with(selector) && !forgotten.contains(id))
            .collect();
        match matching.as_slice() {
            [] => Err(none()),
            [id] => Ok(StoredSnapshot { id: *id, snapshot: self.read_snapshot(id)? }),
            _ => Err(Error::Ambiguous { selector: selector.to_owned(), candidates: matching }),
        }
    }
}

/// Whether a later complete snapshot of the same writer and paths stands for this checkpoint.
pub(crate) fn is_void(checkpoint: &Snapshot, all: &[StoredSnapshot]) -> bool {
    all.iter().any(|StoredSnapshot { snapshot, .. }| {
        snapshot.complete
            && snapshot.writer == checkpoint.writer
            && snapshot.paths == checkpoint.paths
            && snapshot.sequence > checkpoint.sequence
            // An older one that was written again, with other tags or brought back, has a high number too.
            && snapshot.time >= checkpoint.time
    })
}

/// Snapshots of one writer that are gone, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) writer: WriterId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (writer, first) = (self.writer.short(), self.first);
        match self.last {
            last if last == first => write!(f, "snapshot number {first} of writer {writer} is")?,
            last => write!(f, "snapshots number {first} to {last} of writer {writer} are")?,
        }
        write!(
            f,
            " gone, and no forget record explains it: the storage lost something or was {ROLLED_BACK}"
        )
    }
}

/// The parts of a run of numbers that are in none of the `known` runs.
fn unknown_parts(run: (u64, u64), known: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut known: Vec<(u64, u64)> =
        known.iter().copied().filter(|known| known.0 <= run.1 && known.1 >= run.0).collect();
    known.sort_unstable();
    let mut parts = Vec::new();
    let mut next = Some(run.0);
    for (first, last) in known {
        let Some(start) = next else { break };
        if first > start {
            parts.push((start, first - 1));
        }
        if last >= start {
            next = last.checked_add(1).filter(|next| *next <= run.1);
        }
    }
    parts.extend(next.map(|start| (start, run.1)));
    parts
}

/// Says which snapshots are missing: those that this machine or another writer has seen, and those between
/// others of the same writer, which numbers its snapshots from 1 without gaps. A forget record explains one, and so does a person who knows of it.
pub(crate) fn missing_numbers(
    snapshots: &[StoredSnapshot],
    marks: &Marks,
    seen: &Seen,
) -> Vec<Missing> {
    let mut explained: BTreeMap<WriterId, BTreeSet<u64>> = BTreeMap::new();
    for (writer, sequence) in &marks.forgotten_sequences {
        explained.entry(*writer).or_default().insert(*sequence);
    }
    let mut highest = seen.sequences.clone();
    let mut note = |writer, sequence: u64| {
        let known = highest.entry(writer).or_default();
        *known = sequence.max(*known);
    };
    for StoredSnapshot { snapshot, .. } in snapshots {
        explained.entry(snapshot.writer).or_default().insert(snapshot.sequence);
        note(snapshot.writer, snapshot.sequence);
        snapshot.seen.iter().for_each(|(writer, sequence)| note(*writer, *sequence));
    }
    let mut missing = Vec::new();
    for (writer, highest) in highest {
        let accepted = seen.accepted.get(&writer).map_or(&[][..], Vec::as_slice);
        let present = explained.get(&writer).into_iter().flatten().copied();
        let mut next = 1;
        for sequence in
            present.filter(|sequence| *sequence <= highest).chain([highest.saturating_add(1)])
        {
            if sequence > next {
                missing.extend(
                    unknown_parts((next, sequence - 1), accepted)
                        .into_iter()
                        .map(|(first, last)| Missing { writer, first, last }),
                );
            }
            next = sequence.saturating_add(1);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_taken_out_of_a_run() {
        let check = |run, known: &[(u64, u64)], expected: &[(u64, u64)]| {
            assert_eq!(unknown_parts(run, known), expected, "{run:?} {known:?}");
        };
        check((3, 7), &[], &[(3, 7)]);
        check((3, 7), &[(1, 2), (8, 9)], &[(3, 7)]);
        check((3, 7), &[(1, 9)], &[]);
        check((3, 7), &[(5, 5)], &[(3, 4), (6, 7)]);
        check((3, 7), &[(6, 9), (1, 3)], &[(4, 5)]);
        check((3, 7), &[(3, 5), (4, 4), (5, 6)], &[(7, 7)]);
        check((3, 7), &[(9, 1)], &[(3, 7)]);
        check((1, u64::MAX), &[(2, u64::MAX)], &[(1, 1)]);
    }
}
