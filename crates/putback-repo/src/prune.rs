//! Giving room back, beside any number of backups and without a lock of theirs.
//!
//! A run has two halves. The first finds packs that no snapshot needs, or needs too little of, stores what is
//! still needed of them in new packs, and announces them in a *mark*. The second, at least a grace period later and
//! as a rule in another run, looks once more at everything that was written meanwhile, buries the packs under
//! *tombstones*, and deletes them. The numbers of steps are those of `docs/format.md`, "Prune"; what writers do
//! meanwhile is in `commit.rs`.
//!
//! Safe to stop anywhere: new packs that no mark followed are duplicates, which a later run removes; marks that were
//! not carried out are carried out by the next run; packs under tombstones are deleted again.
//!
//! Memory: a bit for each blob of the index, 32 bytes for each tree page, and the places of a million blobs.

mod epochs;
mod execute;
mod plan;
mod repack;

use std::collections::BTreeSet;
use std::time::Duration;

use putback_format::id::{MarkId, PackId, SnapshotId};
use putback_format::limits::MARK_PACKS_MAX;
use putback_format::mark::MarkKind;
use putback_format::tree::Timestamp;
use putback_store::{LockMode, ObjectInfo};

use self::execute::OwnMarks;
use self::plan::{Plan, Snapshots};
use crate::Repository;
use crate::compact::{CompactOptions, SEGMENTS_LEAST_AT_PRUNE};
use crate::error::{Error, Result};
use crate::observe::{Cancel, Observer};
use crate::requests::Requests;
use crate::snapshots::{Marks, StoredSnapshot, missing_numbers};
use crate::state::Seen;

/// How long a mark stands before its packs go.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is planned anew when backups come between.
const ATTEMPTS: usize = 8;

/// How much unneeded content may stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// This share of the needed bytes, in percent.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// Whatever there is: only packs without any needed blob go.
    Unlimited,
}

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// How much unneeded content may stay.
    pub max_unused: MaxUnused,
    /// Bytes of packs that are stored anew in one run.
    pub max_repack: Option<u64>,
    /// Joins small packs, however few there are.
    pub repack_small: bool,
    /// Stores every pack anew that holds anything unneeded: for secrets that were taken out of snapshots.
    pub purge: bool,
    /// Stores every pack anew that is sealed under a key of before the last rotation, as far as `max_repack` allows.
    pub rewrite_epoch: bool,
    /// Carries marks out in the same run: at once where the store has locks; elsewhere after the shortest grace period
    /// there may be, and only if no other machine wrote a snapshot or checkpoint within it.
    pub instant: bool,
    /// How long a mark stands.
    pub grace: Duration,
    /// Changes nothing.
    pub dry_run: bool,
    /// Snapshots that a dry run takes for forgotten.
    pub taken_for_forgotten: BTreeSet<SnapshotId>,
    /// Cores to use.
    pub workers: usize,
    /// Stops at the next safe point.
    pub cancel: Cancel,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: MaxUnused::Percent(5.0),
            max_repack: None,
            repack_small: false,
            purge: false,
            rewrite_epoch: false,
            instant: false,
            grace: GRACE,
            dry_run: false,
            taken_for_forgotten: BTreeSet::new(),
            workers: 1,
            cancel: Cancel::default(),
        }
    }
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots that count, checkpoints among them.
    pub snapshots: u64,
    /// Packs of the index that no mark names.
    pub packs: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Blobs that snapshots need.
    pub blobs_needed: u64,
    /// Packs that nothing needs, marked by this run.
    pub packs_unneeded: u64,
    /// Packs whose needed blobs were stored anew, marked by this run.
    pub packs_repacked: u64,
    /// Stored bytes of these two.
    pub bytes_marked: u64,
    /// Packs that this run marked and that are still there: a later one deletes them. 0 in a dry run.
    pub packs_left: u64,
    /// Their stored bytes.
    pub bytes_left: u64,
    /// Stored bytes of the packs that were written for them; in a dry run an estimate.
    pub bytes_written: u64,
    /// Packs that stay although part of them is not needed.
    pub packs_partly_needed: u64,
    /// Stored bytes that have to be read for it: of the packs that are stored anew.
    pub bytes_repacked: u64,
    /// How long marks stand in this run, in seconds.
    pub grace_seconds: u64,
    /// Packs of earlier marks whose time has not come.
    pub packs_waiting: u64,
    /// Their bytes.
    pub bytes_waiting: u64,
    /// Seconds until the first of these marks may be carried out.
    pub seconds_to_wait: u64,
    /// Packs of earlier marks whose time has come: what a run deletes first.
    pub packs_due: u64,
    /// Their bytes.
    pub bytes_due: u64,
    /// Packs that were deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Small index segments that were merged into others.
    pub segments_merged: u64,
    /// Index segments that merged ones had replaced, deleted.
    pub segments_deleted: u64,
    /// Objects of forgotten snapshots that were deleted.
    pub snapshots_deleted: u64,
    /// Blobs of marked packs that a snapshot needs again, stored anew.
    pub blobs_rescued: u64,
    /// Packs that stay and are sealed under a key of before the last rotation.
    pub packs_old_key: u64,
    /// Their stored bytes.
    pub bytes_old_key: u64,
    /// Segments of the index that are left under such a key; counted with [`PruneOptions::rewrite_epoch`] only and when
    /// all else is done, as are the next two.
    pub segments_old_key: u64,
    /// Snapshots under such a key, forgotten ones among them.
    pub snapshots_old_key: u64,
    /// Marks and forget records under such a key.
    pub marks_old_key: u64,
    /// What was asked of the store since the repository was opened. In a dry run: what a run in its place would have
    /// asked, if nobody else writes meanwhile; what it would write is an estimate.
    pub requests: Requests,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// A mark and when it was written, by the store's clock and by that of its writer, whichever is later.
struct StandingMark {
    id: MarkId,
    info: ObjectInfo,
    packs: BTreeSet<PackId>,
    since: Timestamp,
}

impl Repository {
    /// Whether the store's listings show every write at once and a lock of it can be got. A directory on a file system
    /// that has no locks is as a storage that is far away.
    ///
    /// Waits while a prune holds the lock alone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn has_locks(&self) -> Result<bool> {
        let store = self.store();
        Ok(store.capabilities().is_consistent && store.lock(LockMode::Shared)?.is_some())
    }

    /// Carries out marks whose time has come, then marks what is not needed any more.
    ///
    /// # Errors
    /// - [`Error::BlobMissing`], [`Error::BlobUnknown`], [`Error::BlobDamaged`], [`Error::Damaged`]: a snapshot
    ///   cannot be read completely; nothing is marked then, nor deleted.
    /// - [`Error::SnapshotsGone`]: the store lacks snapshots that nobody has forgotten; nothing is marked then, nor
    ///   deleted.
    /// - [`Error::OthersActive`]: other machines write, and what is marked was to go at once.
    /// - [`Error::CommitContended`]: others wrote so much meanwhile that no look showed the same twice.
    /// - [`Error::Store`].
    pub fn prune(&self, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
        let mut report = PruneReport::default();
        // Before any listing: what others on this machine note meanwhile need not be listed yet.
        let seen = self.state().seen()?;
        let is_consistent = match options.dry_run {
            true => self.store().capabilities().is_consistent,
            false => self.has_locks()?,
        };
        let run = Run { repository: self, options, observer, seen, is_consistent };
        run.run(&mut report)?;
        if !options.cancel.is_cancelled() {
            run.compact_segments(&mut report);
            run.count_old_objects(&mut report)?;
        }
        report.requests += self.requests();
        report.is_interrupted = options.cancel.is_cancelled();
        self.save_index();
        Ok(report)
    }
}

/// The later of what the writer and what the store say of an object's time.
fn later_of(by_writer: Timestamp, info: &ObjectInfo) -> Timestamp {
    let by_store = info.modified.and_then(Timestamp::from_system_time);
    by_store.map_or(by_writer, |by_store| by_store.max(by_writer))
}

/// Whether `age` lies between the two times at least.
pub(crate) fn is_older(time: Timestamp, now: Timestamp, age: Duration) -> bool {
    let age = i128::try_from(age.as_nanos()).unwrap_or(i128::MAX);
    now.as_nanoseconds() - time.as_nanoseconds() >= age
}

/// Says which snapshots the store lacks although nobody has forgotten them. They may come back, from a trash or from
/// another copy of the repository; what they alone need must be there then.
fn gone(snapshots: &[StoredSnapshot], marks: &Marks, seen: &Seen) -> Option<String> {
    let missing = missing_numbers(snapshots, marks, seen);
    let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

struct Run<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    observer: &'a dyn Observer,
    /// What this machine knows that the store must have.
    seen: Seen,
    /// Whether the store's listings and locks can be relied on. A dry run takes the store's word for it and takes no lock.
    is_consistent: bool,
}

impl Run<'_> {
    fn run(&self, report: &mut PruneReport) -> Result<()> {
        self.refuse_beside_others()?;
        let waiting = self.carry_out_marks(None, report)?;
        if self.options.cancel.is_cancelled() {
            return Ok(());
        }
        let before = (report.packs_deleted, report.bytes_deleted);
        let marks = self.mark_unneeded(report)?;
        if !marks.is_empty() {
            report.packs_left = report.packs_unneeded + report.packs_repacked;
            report.bytes_left = report.bytes_marked;
        }
        if self.options.cancel.is_cancelled() || self.options.dry_run {
            return Ok(());
        }
        if !marks.is_empty() && self.options.instant {
            self.carry_out_own(marks, report)?;
            let deleted = (report.packs_deleted - before.0, report.bytes_deleted - before.1);
            report.packs_left = report.packs_left.saturating_sub(deleted.0);
            report.bytes_left = report.bytes_left.saturating_sub(deleted.1);
            Ok(())
        } else if marks.is_empty() && waiting.is_empty() {
            // Nothing goes with these snapshots.
            self.delete_long_forgotten(report)
        } else {
            Ok(())
        }
    }

    /// Carries out what this run has marked. Where no lock helps, the grace period is waited out.
    fn carry_out_own(&self, marks: BTreeSet<MarkId>, report: &mut PruneReport) -> Result<()> {
        if self.is_consistent() {
            return self.carry_out_marks(None, report).map(drop);
        }
        let mut own = OwnMarks { ids: marks, waited: Duration::ZERO };
        let began = self.repository.since_boot();
        let grace = self.grace().as_secs();
        let mut seconds = grace + 1;
        loop {
            if !self.wait_for_grace(seconds) {
                return Ok(());
            }
            own.waited = self.repository.since_boot().saturating_sub(began);
            let waiting = self.carry_out_marks(Some(&own), report)?;
            let left = waiting.iter().filter(|(id, _)| own.ids.contains(id));
            seconds = match left.map(|(_, seconds)| *seconds).max() {
                // The store's clock is a little before this machine's.
                Some(seconds) if seconds <= grace && !self.options.cancel.is_cancelled() => seconds,
                Some(seconds) if seconds > grace => {
                    self.repository.warn(
                        "the clocks of this machine and of the storage differ by more than the time \
                         that packs stay marked: a later prune deletes them"
                            .to_owned(),
                    );
                    return Ok(());
                }
                _ => return Ok(()),
            };
        }
    }

    /// Whether the store's listings and locks can be relied on.
    fn is_consistent(&self) -> bool {
        self.is_consistent
    }

    /// How long a mark must stand. Where steps 4 to 6 hold a lock that every commit shares, any time will do; elsewhere
    /// it is never shorter than what safety rests on.
    fn grace(&self) -> Duration {
        match (self.is_consistent(), self.options.instant) {
            (true, true) => Duration::ZERO,
            (true, false) => self.options.grace,
            (false, true) => self.repository.times().grace_least(),
            (false, false) => self.options.grace.max(self.repository.times().grace_least()),
        }
    }

    /// Merges small index segments.
    fn compact_segments(&self, report: &mut PruneReport) {
        let options = CompactOptions {
            segments_least: SEGMENTS_LEAST_AT_PRUNE,
            grace: self.options.grace,
            cancel: self.options.cancel.clone(),
        };
        let repository = self.repository;
        let done = if self.options.dry_run {
            let planned = repository.plan_compaction(&options);
            // What is merged lies in the cache, is written and read back.
            let batch = repository.store().delete_batch().max(1) as u64;
            report.requests += Requests {
                lists: 0,
                reads: planned.written,
                writes: planned.written,
                deletes: planned.deleted.div_ceil(batch),
            };
            planned
        } else {
            // A listing that costs a round trip is not done again: a later run merges what this one wrote.
            repository.compact_or_warn(|| match repository.store().capabilities().is_remote {
                true => repository.compact_listed(&options),
                false => repository.compact(&options),
            })
        };
        (report.segments_merged, report.segments_deleted) = (done.merged, done.deleted);
    }

    fn marks(&self) -> Result<Vec<StandingMark>> {
        let mut standing = Vec::new();
        for (info, mark) in self.repository.read_marks()? {
            let MarkKind::Packs(packs) = mark.kind else { continue };
            let since = later_of(mark.time, &info);
            let Ok(id) = info.path.name().parse() else { continue };
            standing.push(StandingMark { id, info, packs: packs.into_iter().collect(), since });
        }
        Ok(standing)
    }

    /// Steps 1 to 3. The marks that were written.
    fn mark_unneeded(&self, report: &mut PruneReport) -> Result<BTreeSet<MarkId>> {
        let repository = self.repository;
        let mut written = BTreeSet::new();
        let (mut attempts, mut has_waited) = (0, false);
        let (backup, snapshots, plan) = loop {
            let backup = match self.options.dry_run {
                true => repository.begin_dry_run(None, 0)?,
                false => repository.begin_upkeep(self.options.workers)?,
            };
            let snapshots = self.snapshots(backup.marks())?;
            attempts += 1;
            if let Some(gone) = &snapshots.gone {
                if attempts > 1 {
                    return Err(Error::SnapshotsGone { what: gone.clone() });
                }
                // Forgotten and pruned meanwhile, or not listed yet.
                if !self.is_consistent() && !self.wait(repository.times().second_look) {
                    return Ok(written);
                }
                continue;
            }
            match self.plan(&snapshots, report) {
                Ok(None) => return Ok(written),
                Ok(Some(plan)) => break (backup, snapshots, plan),
                Err(error @ Error::BlobMissing { .. }) if attempts < ATTEMPTS => {
                    // A backup that ended since the index was loaded: its segment is there by now.
                    if !repository.index().covers(&repository.list_segments()?) {
                        continue;
                    }
                    // Or no listing shows it yet, where they lag behind.
                    if self.is_consistent() || std::mem::replace(&mut has_waited, true) {
                        return Err(error);
                    }
                    if !self.wait(repository.times().second_look) {
                        return Ok(written);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        report.packs_unneeded = (plan.unneeded.len() + plan.unindexed.len()) as u64;
        report.packs_repacked = plan.repacked.len() as u64;
        let candidates = plan.unneeded.iter().chain(&plan.repacked);
        report.bytes_marked = candidates.map(|pack| pack.size).sum::<u64>()
            + plan.unindexed.iter().map(|info| info.size).sum::<u64>();
        report.bytes_repacked = plan.repacked.iter().map(|pack| pack.size).sum();
        if self.options.dry_run {
            let given_back: u64 = plan.repacked.iter().map(|pack| pack.reclaimable_bytes).sum();
            report.bytes_written = report.bytes_repacked.saturating_sub(given_back);
            self.estimate_requests(&plan, &snapshots, report);
            return Ok(written);
        }
        repository.forget(&snapshots.void)?;
        let is_repacked = self.repack(&backup, &plan)?;
        report.bytes_written = backup.finish()?.stored_bytes;
        if !is_repacked {
            // Stopped: nothing is marked.
            (report.packs_unneeded, report.packs_repacked) = (0, 0);
            (report.bytes_marked, report.bytes_repacked) = (0, 0);
            return Ok(written);
        }
        let mut packs: Vec<PackId> = plan
            .unneeded
            .iter()
            .chain(&plan.repacked)
            .map(|pack| pack.id)
            .chain(plan.unindexed.iter().filter_map(|info| info.path.name().parse().ok()))
            .collect();
        packs.sort();
        packs.dedup();
        for part in packs.chunks(MARK_PACKS_MAX) {
            written.insert(repository.write_mark(MarkKind::Packs(part.to_vec()))?);
        }
        Ok(written)
    }

    /// Adds to what a dry run has asked what a run would ask beyond it, on a store that is far away.
    fn estimate_requests(&self, plan: &Plan, snapshots: &Snapshots, report: &mut PruneReport) {
        let batch = self.repository.store().delete_batch().max(1) as u64;
        let void = u64::from(!snapshots.void.is_empty());
        let packs = report.packs_unneeded + report.packs_repacked;
        let marks = packs.div_ceil(MARK_PACKS_MAX as u64);
        let is_carried_out = self.options.instant && marks > 0;
        report.requests += plan.requests;
        report.requests.writes += void;
        if is_carried_out {
            // The marks are listed, and the packs.
            report.requests.lists += 2;
            report.requests += self.requests_to_carry_out(packs);
        } else if marks == 0 && report.packs_waiting == 0 {
            report.requests.lists += 1;
        }
        if is_carried_out || report.packs_due > 0 {
            let taken = self.options.taken_for_forgotten.len();
            let forgotten = (snapshots.forgotten + snapshots.void.len() + taken) as u64;
            report.requests.deletes += forgotten.div_ceil(batch);
        }
    }
}
