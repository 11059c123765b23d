//! Replicate: snapshots of one repository, written to another that has keys of its own.
//!
//! ```text
//! tree of the source ─► equal to one that was copied before? ─► its pages are taken over ──────────┐
//!               └─────► chunks, read and verified ─► cut anew unless ids are equal ─► put ─► pages ─┴─► compared ─► snapshot
//! ```
//!
//! [`plan`] says what is missing; [`execute`] copies it, oldest first, one snapshot after another: each is whole
//! before the next one begins, so that whatever ends the run costs the one in hand at most, and of this no pack
//! that is stored already. `copy.rs` copies one tree, `compare.rs` says whether it is the same tree.
//!
//! A copy remembers what it is a copy of (`docs/format.md`, "Snapshots", key 65). The newest copy of the same host or
//! paths whose original is still there serves as parent: where the originals hold the same pages or the same chunks,
//! the copies do, and nothing is read. A copy that a repair of the target has written without what was lost is none any
//! more, and neither is the broken one that it stands for: the snapshot is copied again, and what is lost comes back.
//!
//! Memory: what `copy.rs` says, and 32 bytes for each tree page of the parents.

mod compare;
mod copy;

use std::collections::{BTreeMap, HashMap};

use putback_format::id::{SnapshotId, WriterId};
use putback_format::snapshot::{Made, Original, Snapshot};
use putback_repo::forget::Retained;
use putback_repo::repair::REPAIRED;
use putback_repo::{
    Amount, Backup, Cancel, Event, Observer, Phase, Repository, SnapshotDraft, SnapshotFilter,
    StoredSnapshot, Written,
};

use crate::Error;
use compare::Compared;
use copy::{Copier, CopyOptions, Parent};

/// What is to be copied.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Oldest first.
    pub missing: Vec<StoredSnapshot>,
    /// Snapshots that were asked for and are in the target: their ids there.
    pub present: Vec<(SnapshotId, SnapshotId)>,
    /// Chunks can be copied as they are.
    pub is_like: bool,
    copies: Vec<(StoredSnapshot, StoredSnapshot)>,
    repaired: Repaired,
}

/// Snapshots of the target that a repair has written without what was lost: who made the first of those that each
/// stands for, as which number, and how often it was written again.
#[derive(Clone, Debug, Default)]
struct Repaired(HashMap<(WriterId, u64), u32>);

impl Repaired {
    fn of(snapshots: &[StoredSnapshot]) -> Self {
        let mut repaired = Self::default();
        for StoredSnapshot { snapshot, .. } in snapshots {
            // A copy of a repaired snapshot is as whole as that one is.
            let is_repaired = snapshot.tags.iter().any(|tag| tag == REPAIRED);
            if is_repaired && snapshot.original().is_none() {
                let Made { writer, sequence, rewrites } = snapshot.made();
                let most = repaired.0.entry((writer, sequence)).or_default();
                *most = rewrites.max(*most);
            }
        }
        repaired
    }

    fn rewrites(&self, made: Made) -> Option<u32> {
        self.0.get(&(made.writer, made.sequence)).copied()
    }

    /// Whether one of them stands for this snapshot of the target, which has lost something then.
    fn stand_for(&self, snapshot: &Snapshot) -> bool {
        let made = snapshot.made();
        self.rewrites(made).is_some_and(|rewrites| rewrites > made.rewrites)
    }

    /// Puts a whole copy after them in the order of snapshots, so that it is the one that is found and kept.
    fn put_after(&self, original: &Snapshot, draft: &mut SnapshotDraft) {
        let made = original.made();
        if let Some(rewrites) = self.rewrites(made).filter(|rewrites| *rewrites > made.rewrites) {
            let rewrites = rewrites.saturating_add(1);
            Made { rewrites, ..made }.put_into(&mut draft.unknown);
        }
    }
}

/// How to copy.
#[derive(Clone, Debug)]
pub struct ReplicateOptions {
    /// Cores to use.
    pub workers: usize,
    /// zstd level, if not the target's.
    pub compression_level: Option<i32>,
    /// Stops the run; the snapshot in hand is given up.
    pub cancel: Cancel,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct ReplicateReport {
    /// Ids in the source and in the target.
    pub copied: Vec<(SnapshotId, SnapshotId)>,
    /// Those that cannot be read as a whole; nothing of them shows in the target.
    pub failed: Vec<(SnapshotId, Error)>,
    /// Bytes of files that were read.
    pub bytes_read: u64,
    /// What was stored.
    pub written: Written,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// What a snapshot is a copy of; itself if it is none.
fn origin(repository: &Repository, stored: &StoredSnapshot) -> Original {
    let own = Original { repository: repository.id(), snapshot: stored.id };
    stored.snapshot.original().unwrap_or(own)
}

/// Finds out which of `snapshots` of the source are not in the target, neither as copies nor since they came from there.
///
/// # Errors
/// - [`Error::Refused`]: both are the same repository.
/// - [`Error::Repository`]: snapshots of one of them cannot be listed.
pub fn plan(
    source: &Repository,
    target: &Repository,
    snapshots: &[StoredSnapshot],
) -> Result<Plan, Error> {
    if source.id() == target.id() {
        return Err(Error::Refused {
            message: "both locations hold the same repository; a second copy of it is made by copying its folder"
                .to_owned(),
        });
    }
    let all = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
    let mut known: HashMap<Original, StoredSnapshot> = HashMap::new();
    let present = target.snapshots(&all)?;
    let repaired = Repaired::of(&present);
    for stored in present {
        if repaired.stand_for(&stored.snapshot) {
            continue;
        }
        known.insert(Original { repository: target.id(), snapshot: stored.id }, stored.clone());
        if let Some(original) = stored.snapshot.original() {
            known.insert(original, stored);
        }
    }
    let mut plan = Plan { is_like: target.is_like(source), repaired, ..Plan::default() };
    for stored in source.snapshots(&all)? {
        if let Some(copy) = known.get(&origin(source, &stored)) {
            plan.copies.push((stored, copy.clone()));
        }
    }
    for stored in snapshots {
        match known.get(&origin(source, stored)) {
            Some(copy) => plan.present.push((stored.id, copy.id)),
            None => plan.missing.push(stored.clone()),
        }
    }
    source.sort_snapshots(&mut plan.missing);
    Ok(plan)
}

/// Why a snapshot was not copied.
enum Trouble {
    /// It cannot be read as a whole; the next one may be.
    Snapshot(Error),
    /// Nothing can go on.
    Fatal(Error),
    /// Somebody asked to stop.
    Cancelled,
}

impl Trouble {
    /// An error of the source.
    fn of_source(error: impl Into<Error>) -> Self {
        use putback_repo::Error as Repository;
        match error.into() {
            Error::Repository(Repository::Cancelled) => Self::Cancelled,
            Error::Repository(Repository::Store(error)) if !error.is_about_object() => {
                Self::Fatal(Repository::Store(error).into())
            }
            error @ Error::Repository(Repository::Local { .. }) => Self::Fatal(error),
            error => Self::Snapshot(error),
        }
    }
}

impl From<Error> for Trouble {
    /// An error of the target.
    fn from(error: Error) -> Self {
        match error {
            Error::Repository(putback_repo::Error::Cancelled) => Self::Cancelled,
            error => Self::Fatal(error),
        }
    }
}

impl From<putback_repo::Error> for Trouble {
    fn from(error: putback_repo::Error) -> Self {
        Error::Repository(error).into()
    }
}

/// Copies what the plan says is missing.
///
/// A snapshot of which something cannot be read is left out and named in the report; the others are copied.
///
/// # Errors
/// - [`Error::Repository`]: a store failed, or the machine did. What was copied stays; what was stored of the snapshot in
///   hand is taken over by the next run.
/// - [`Error::StorageFull`]: the target has room for little more.
pub fn execute(
    source: &Repository,
    target: &Repository,
    plan: &Plan,
    options: &ReplicateOptions,
    observer: &dyn Observer,
) -> Result<ReplicateReport, Error> {
    let mut report = ReplicateReport::default();
    if plan.missing.is_empty() {
        return Ok(report);
    }
    source.load_index()?;
    let backup = target.begin_backup(options.compression_level, options.workers)?;
    backup.stop_when_full(options.cancel.clone());
    if backup.adopted_packs() > 0 {
        observer.event(Event::Resumed { checkpoint: None, packs: backup.adopted_packs() });
    }
    let bytes = plan.missing.iter().map(|stored| stored.snapshot.statistics.bytes_total).sum();
    let total = Amount { items: plan.missing.len() as u64, bytes };
    observer.event(Event::PhaseStarted { phase: Phase::Replicate, total: Some(total) });
    let copy_options = CopyOptions { is_like: plan.is_like, cancel: &options.cancel };
    let mut run = Run {
        backup: &backup,
        copier: Copier::new(source, target, &backup, copy_options, observer),
        compared: Compared::new(source, target),
        retained: Retained::default(),
        copies: plan.copies.iter().map(|(own, copy)| Copy::new(own, copy, false)).collect(),
        ids: plan.copies.iter().map(|(own, copy)| (own.id, copy.id)).collect(),
        repaired: &plan.repaired,
        source,
        cancel: &options.cancel,
        observer,
    };
    for stored in &plan.missing {
        let before = run.copier.bytes_read();
        match run.copy(stored) {
            Ok(copy) => report.copied.push((stored.id, copy)),
            Err(Trouble::Snapshot(error)) => report.failed.push((stored.id, error)),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Cancelled) => {
                report.is_interrupted = true;
                break;
            }
        }
        // What was taken over counts as done.
        let done = stored.snapshot.statistics.bytes_total;
        let rest = done.saturating_sub(run.copier.bytes_read() - before);
        let by = Amount { items: 1, bytes: rest };
        observer.event(Event::Advanced { phase: Phase::Replicate, by });
    }
    report.bytes_read = run.copier.bytes_read();
    drop(run);
    let full = backup.nearly_full();
    report.written = backup.finish()?;
    match full {
        Some(space) if report.is_interrupted => {
            Err(Error::StorageFull { available: space.available, checkpoint: None })
        }
        _ => Ok(report),
    }
}

/// A snapshot of the source and its copy.
struct Copy {
    own: StoredSnapshot,
    copy: StoredSnapshot,
    /// This run has made sure of everything that the copy holds.
    is_retained: bool,
}

impl Copy {
    fn new(own: &StoredSnapshot, copy: &StoredSnapshot, is_retained: bool) -> Self {
        Self { own: own.clone(), copy: copy.clone(), is_retained }
    }
}

struct Run<'a> {
    backup: &'a Backup,
    copier: Copier<'a>,
    compared: Compared<'a>,
    retained: Retained,
    copies: Vec<Copy>,
    /// Ids in the source and in the target.
    ids: BTreeMap<SnapshotId, SnapshotId>,
    repaired: &'a Repaired,
    source: &'a Repository,
    cancel: &'a Cancel,
    observer: &'a dyn Observer,
}

impl Run<'_> {
    fn copy(&mut self, stored: &StoredSnapshot) -> Result<SnapshotId, Trouble> {
        let parent = self.parent_of(&stored.snapshot)?;
        let parent = parent.map(|at| &self.copies[at]);
        let parent = parent.map(|Copy { own, copy, .. }| Parent {
            own: &own.snapshot.root,
            copy: &copy.snapshot.root,
        });
        let root = self.copier.copy_tree(&stored.snapshot.root, parent, &mut self.compared)?;
        // Durable before it is read for the comparison.
        self.backup.flush()?;
        if let Some(path) = self.compared.difference(&stored.snapshot.root, &root, self.cancel)? {
            let path = path.escape_ascii();
            let message =
                format!("the copy differs from its original at '{path}'; no snapshot was written");
            return Err(Trouble::Fatal(Error::Refused { message }));
        }
        let mut draft = SnapshotDraft { root, ..SnapshotDraft::from(&stored.snapshot) };
        draft.parent = draft.parent.and_then(|parent| self.ids.get(&parent).copied());
        origin(self.source, stored).put_into(&mut draft.unknown);
        self.repaired.put_after(&stored.snapshot, &mut draft);
        let copy = self.backup.commit_again(draft)?;
        self.ids.insert(stored.id, copy.id);
        self.copies.push(Copy::new(stored, &copy, true));
        Ok(copy.id)
    }

    /// The copy that spares most reading: of the same host and paths, or of one of these, the newest. All that it
    /// holds can be relied on.
    fn parent_of(&mut self, snapshot: &Snapshot) -> Result<Option<usize>, Trouble> {
        loop {
            let alike = |other: &Snapshot| {
                let (host, paths) = (other.host == snapshot.host, other.paths == snapshot.paths);
                (host || paths).then_some((host && paths, host, other.time))
            };
            let candidates = self.copies.iter().enumerate();
            let best = candidates
                .filter_map(|(at, copy)| Some((alike(&copy.own.snapshot)?, at)))
                .max()
                .map(|(_, at)| at);
            let Some(at) = best else { return Ok(None) };
            let Copy { own, copy, is_retained } = &mut self.copies[at];
            if *is_retained {
                return Ok(Some(at));
            }
            let root = &copy.snapshot.root;
            match self.backup.retain(root, &mut self.retained, self.cancel) {
                Ok(()) => {
                    // Paths may have been removed from one of them since.
                    match self.compared.difference(&own.snapshot.root, root, self.cancel) {
                        Ok(None) => {
                            *is_retained = true;
                            return Ok(Some(at));
                        }
                        Ok(Some(_)) | Err(Trouble::Snapshot(_)) => drop(self.copies.remove(at)),
                        Err(trouble) => return Err(trouble),
                    }
                }
                Err(error) if is_about_copy(&error) => {
                    // What it lacks is stored again from the source.
                    let message = format!(
                        "snapshot {} of the target, the copy of {}, is damaged and saves no reading: {error}",
                        copy.id.short(),
                        own.id.short()
                    );
                    self.observer.event(Event::Warning { message: &message });
                    self.retained = Retained::default();
                    self.copies.remove(at);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether an error of the target says something of one copy only.
fn is_about_copy(error: &putback_repo::Error) -> bool {
    use putback_repo::Error as Repository;
    match error {
        error if error.is_about_blob() => true,
        Repository::Damaged { .. } => true,
        Repository::Store(error) => error.is_about_object(),
        _ => false,
    }
}
