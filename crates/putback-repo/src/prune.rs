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

mod execute;
mod plan;
mod repack;

use std::collections::BTreeSet;
use std::time::Duration;

use putback_format::id::{PackId, SnapshotId};
use putback_format::limits::MARK_PACKS_MAX;
use putback_format::mark::MarkKind;
use putback_format::tree::Timestamp;
use putback_store::ObjectInfo;

use self::plan::Candidate;
use crate::Repository;
use crate::error::Result;
use crate::observe::{Cancel, Observer};

/// How long a mark stands before its packs go.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
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
    /// Carries marks out at once. Safe where the store has locks; elsewhere a backup that runs just now may be lost.
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
    /// Objects of forgotten snapshots that were deleted.
    pub snapshots_deleted: u64,
    /// Blobs of marked packs that a snapshot needs again, stored anew.
    pub blobs_rescued: u64,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// A mark and when it was written, by the store's clock and by that of its writer, whichever is later.
struct StandingMark {
    info: ObjectInfo,
    packs: BTreeSet<PackId>,
    since: Timestamp,
}

impl Repository {
    /// Carries out marks whose time has come, then marks what is not needed any more.
    ///
    /// # Errors
    /// - [`Error::BlobUnknown`], [`Error::BlobDamaged`], [`Error::Damaged`]: a snapshot cannot be read completely;
    ///   nothing is deleted then.
    /// - [`Error::CommitContended`]: others wrote so much meanwhile that no look showed the same twice.
    /// - [`Error::Store`].
    pub fn prune(&self, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
        let mut report = PruneReport::default();
        let run = Run { repository: self, options, observer };
        run.carry_out_marks(&mut report)?;
        if options.cancel.is_cancelled() {
            report.is_interrupted = true;
            return Ok(report);
        }
        let marked = run.mark_unneeded(&mut report)?;
        let goes_on = !options.dry_run && !options.cancel.is_cancelled();
        if goes_on && marked && options.instant {
            run.carry_out_marks(&mut report)?;
        } else if goes_on && !marked && report.packs_waiting == 0 {
            // Nothing goes with these snapshots.
            let (now, grace) = (self.now(), run.grace());
            run.delete_forgotten(|since| is_older(since, now, grace), &mut report)?;
        }
        report.is_interrupted = options.cancel.is_cancelled();
        Ok(report)
    }
}

/// The later of what the writer and what the store say of an object's time.
fn later_of(by_writer: Timestamp, info: &ObjectInfo) -> Timestamp {
    let by_store = info.modified.and_then(Timestamp::from_system_time);
    by_store.map_or(by_writer, |by_store| by_store.max(by_writer))
}

/// Whether `age` lies between the two times at least.
fn is_older(time: Timestamp, now: Timestamp, age: Duration) -> bool {
    let age = i128::try_from(age.as_nanos()).unwrap_or(i128::MAX);
    now.as_nanoseconds() - time.as_nanoseconds() >= age
}

struct Run<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    observer: &'a dyn Observer,
}

impl Run<'_> {
    /// Whether the store's listings and locks can be relied on.
    fn is_consistent(&self) -> bool {
        self.repository.store().capabilities().is_consistent
    }

    /// How long a mark must stand. Never shorter than what safety rests on.
    fn grace(&self) -> Duration {
        match (self.is_consistent(), self.options.instant) {
            (true, true) => Duration::ZERO,
            (true, false) => self.options.grace,
            (false, true) => self.repository.times().grace_least(),
            (false, false) => self.options.grace.max(self.repository.times().grace_least()),
        }
    }

    fn marks(&self) -> Result<Vec<StandingMark>> {
        let mut standing = Vec::new();
        for (info, mark) in self.repository.read_marks()? {
            let MarkKind::Packs(packs) = mark.kind else { continue };
            let since = later_of(mark.time, &info);
            standing.push(StandingMark { info, packs: packs.into_iter().collect(), since });
        }
        Ok(standing)
    }

    /// Steps 1 to 3. Whether a mark was written.
    fn mark_unneeded(&self, report: &mut PruneReport) -> Result<bool> {
        let repository = self.repository;
        self.forget_void_checkpoints()?;
        let backup = repository.begin_backup(None, self.options.workers)?;
        let Some(plan) = self.plan(report)? else { return Ok(false) };
        report.packs_unneeded = (plan.unneeded.len() + plan.unindexed.len()) as u64;
        report.packs_repacked = plan.repacked.len() as u64;
        let candidates = plan.unneeded.iter().chain(&plan.repacked);
        report.bytes_marked = candidates.map(|pack| pack.record.size).sum::<u64>()
            + plan.unindexed.iter().map(|info| info.size).sum::<u64>();
        report.bytes_repacked = plan.repacked.iter().map(|pack| pack.record.size).sum();
        if self.options.dry_run {
            let unused: u64 = plan.repacked.iter().map(Candidate::unused_bytes).sum();
            report.bytes_written = report.bytes_repacked.saturating_sub(unused);
            return Ok(false);
        }
        let repacked = self.repack(&backup, &plan)?;
        report.bytes_written = backup.finish()?.stored_bytes;
        if !repacked {
            return Ok(false);
        }
        let mut packs: Vec<PackId> = plan
            .unneeded
            .iter()
            .chain(&plan.repacked)
            .map(|pack| pack.record.id)
            .chain(plan.unindexed.iter().filter_map(|info| info.path.name().parse().ok()))
            .collect();
        packs.sort();
        packs.dedup();
        for part in packs.chunks(MARK_PACKS_MAX) {
            repository.write_mark(MarkKind::Packs(part.to_vec()))?;
        }
        Ok(!packs.is_empty())
    }

    /// Checkpoints that a complete snapshot has made void would keep their packs for ever.
    fn forget_void_checkpoints(&self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let void = self.repository.void_checkpoints()?;
        self.repository.forget(&void)
    }
}
