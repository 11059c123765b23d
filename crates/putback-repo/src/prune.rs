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
//! Memory: a bit for each blob of the index, 32 bytes for each tree page, and [`REPACKED_BLOBS`] places of blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use putback_format::id::{BlobId, MarkId, PackId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::limits::MARK_PACKS_MAX;
use putback_format::mark::MarkKind;
use putback_format::segment::Segment;
use putback_format::tree::Timestamp;
use putback_store::{LockMode, ObjectInfo};

use crate::commit::Backup;
use crate::error::{Error, Result};
use crate::forget::Retained;
use crate::index::{IdSet, LiveSet, Liveness, PackNumber, PackUse};
use crate::index_table::PackRecord;
use crate::observe::{Amount, Cancel, Event, Observer, Phase};
use crate::reader::FrameReader;
use crate::snapshots::StoredSnapshot;
use crate::{Repository, layout};

/// How long a mark stands before its packs go.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Blobs whose places are in memory at once while packs are stored anew: 56 bytes each.
const REPACKED_BLOBS: u64 = 1 << 20;
/// How often everything is looked at again before giving up.
const ATTEMPTS: usize = 8;
/// A pack below this share of a full one is small.
const SMALL_SHARE: u64 = 4;

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

/// A pack of the index.
struct Candidate {
    number: PackNumber,
    record: PackRecord,
    used: PackUse,
}

impl Candidate {
    fn plain_bytes(&self) -> u64 {
        self.record.frames.iter().map(|frame| u64::from(frame.plain_length)).sum()
    }

    /// Stored bytes that nothing needs, by the pack's own ratio.
    fn unused_bytes(&self) -> u64 {
        let plain = self.plain_bytes().max(1);
        let unused = plain.saturating_sub(self.used.plain_bytes);
        u64::try_from(u128::from(self.record.size) * u128::from(unused) / u128::from(plain))
            .unwrap_or(u64::MAX)
    }
}

/// What a plan decided.
struct Plan {
    unneeded: Vec<Candidate>,
    repacked: Vec<Candidate>,
    /// Packs that no segment names, left by runs that broke.
    unindexed: Vec<ObjectInfo>,
    live: LiveSet,
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

    /// Steps 4 to 7: what was marked long enough ago goes.
    fn carry_out_marks(&self, report: &mut PruneReport) -> Result<()> {
        let repository = self.repository;
        let grace = self.grace();
        // A mark from the future is waited for until its time has come, and the grace period after it.
        let now = repository.now();
        let (due, waiting): (Vec<_>, Vec<_>) =
            self.marks()?.into_iter().partition(|mark| is_older(mark.since, now, grace));
        report.grace_seconds = grace.as_secs();
        (report.packs_waiting, report.bytes_waiting) = self.stored(&waiting)?;
        (report.packs_due, report.bytes_due) = self.stored(&due)?;
        let due_in = |mark: &StandingMark| {
            let end = i128::from(mark.since.seconds) + i128::from(grace.as_secs()) + 1;
            u64::try_from(end - i128::from(now.seconds)).unwrap_or_default()
        };
        report.seconds_to_wait = waiting.iter().map(due_in).min().unwrap_or_default();
        if self.options.dry_run {
            return Ok(());
        }
        if !due.is_empty() {
            let _lock = repository.store().lock(LockMode::Exclusive)?;
            if !self.look_until_nothing_is_new(report)? {
                return Ok(());
            }
            let packs: BTreeSet<PackId> =
                due.iter().flat_map(|mark| mark.packs.iter().copied()).collect();
            self.bury(&packs)?;
            self.delete_packs(&packs, report)?;
            let newest = due.iter().map(|mark| mark.since).max();
            let infos: Vec<ObjectInfo> = due.into_iter().map(|mark| mark.info).collect();
            repository.store().delete(&infos)?;
            // Later ones can come back yet: what they alone need is in no mark that was carried out.
            self.delete_forgotten(|since| Some(since) <= newest, report)?;
        }
        Ok(())
    }

    /// Packs of these marks that are there, and their bytes.
    fn stored(&self, marks: &[StandingMark]) -> Result<(u64, u64)> {
        if marks.is_empty() {
            return Ok((0, 0));
        }
        let is_named = |info: &ObjectInfo| {
            let id = info.path.name().parse();
            id.is_ok_and(|id| marks.iter().any(|mark| mark.packs.contains(&id)))
        };
        let listed = self.repository.store().list(layout::PACKS)?;
        let sizes = listed.iter().filter(|info| is_named(info)).map(|info| info.size);
        Ok(sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size)))
    }

    /// Stores anew what a snapshot needs and only marked packs have, until two looks show the same. False if it was
    /// stopped.
    fn look_until_nothing_is_new(&self, report: &mut PruneReport) -> Result<bool> {
        let repository = self.repository;
        let mut before: Option<(BTreeSet<MarkId>, BTreeSet<SnapshotId>)> = None;
        let mut retained = Retained::default();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 && !self.is_consistent() {
                self.wait(self.repository.times().second_look);
            }
            if self.options.cancel.is_cancelled() {
                return Ok(false);
            }
            let marks: BTreeSet<MarkId> = repository
                .store()
                .list(layout::MARKS)?
                .iter()
                .filter_map(|info| info.path.name().parse().ok())
                .collect();
            let snapshots = repository.every_snapshot()?;
            let ids = snapshots.iter().map(|stored| stored.id).collect();
            let look = Some((marks, ids));
            if before == look {
                return Ok(true);
            }
            // New marks may name packs that an earlier look relied on.
            if before.as_ref().map(|(marks, _)| marks) != look.as_ref().map(|(marks, _)| marks) {
                retained = Retained::default();
            }
            let backup = repository.begin_backup(None, self.options.workers)?;
            self.retain_all(&backup, &snapshots, &mut retained)?;
            if self.options.cancel.is_cancelled() {
                return Ok(false);
            }
            let written = backup.finish()?;
            report.blobs_rescued += written.blobs;
            before = look;
            if self.is_consistent() && written.blobs == 0 {
                // The lock keeps every writer away: a second look would show the same.
                return Ok(true);
            }
        }
        Err(Error::CommitContended)
    }

    fn retain_all(
        &self,
        backup: &Backup,
        snapshots: &[StoredSnapshot],
        retained: &mut Retained,
    ) -> Result<()> {
        let total = Amount { items: snapshots.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckTrees, total: Some(total) });
        for stored in snapshots {
            match backup.retain(&stored.snapshot.root, retained, &self.options.cancel) {
                Err(Error::Cancelled) => return Ok(()),
                result => result?,
            }
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::CheckTrees, by });
        }
        backup.flush()
    }

    fn wait(&self, time: Duration) {
        let step = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() && !self.options.cancel.is_cancelled() {
            self.repository.machine().clock.sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    }

    /// Step 5. A segment with tombstones outweighs every other that names the packs.
    fn bury(&self, packs: &BTreeSet<PackId>) -> Result<()> {
        let repository = self.repository;
        let buried: Vec<PackId> =
            packs.iter().filter(|pack| !repository.index().is_tombstoned(pack)).copied().collect();
        if buried.is_empty() {
            return Ok(());
        }
        let segment = Segment { tombstones: buried, ..Segment::default() };
        let (id, _) = repository.write_segment(&segment)?;
        if repository.read_segment(&id)? != segment {
            return Err(Error::Damaged {
                object: format!("{}, just written,", layout::segment(&id)),
                source: None,
            });
        }
        Ok(())
    }

    /// Step 6: all rows of each name.
    fn delete_packs(&self, packs: &BTreeSet<PackId>, report: &mut PruneReport) -> Result<()> {
        let rows: Vec<ObjectInfo> = self
            .repository
            .store()
            .list(layout::PACKS)?
            .into_iter()
            .filter(|info| info.path.name().parse().is_ok_and(|id| packs.contains(&id)))
            .collect();
        self.repository.store().delete(&rows)?;
        report.packs_deleted += rows.len() as u64;
        report.bytes_deleted += rows.iter().map(|info| info.size).sum::<u64>();
        Ok(())
    }

    /// Step 7: objects of snapshots whose forget record is of such a time.
    fn delete_forgotten(
        &self,
        is_due: impl Fn(Timestamp) -> bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let repository = self.repository;
        let mut old: BTreeSet<SnapshotId> = BTreeSet::new();
        for (info, mark) in repository.read_marks()? {
            let MarkKind::Forget(records) = mark.kind else { continue };
            if is_due(later_of(mark.time, &info)) {
                old.extend(records.iter().map(|record| record.snapshot));
            }
        }
        if old.is_empty() {
            return Ok(());
        }
        let rows: Vec<ObjectInfo> = repository
            .store()
            .list(layout::SNAPSHOTS)?
            .into_iter()
            .filter(|info| info.path.name().parse().is_ok_and(|id| old.contains(&id)))
            .collect();
        repository.store().delete(&rows)?;
        report.snapshots_deleted += rows.len() as u64;
        Ok(())
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

    /// Which packs are needed, and what to do about the others. None if it was stopped.
    fn plan(&self, report: &mut PruneReport) -> Result<Option<Plan>> {
        let repository = self.repository;
        let index = repository.index();
        let snapshots = match self.options.dry_run {
            // What a run would forget first does not count.
            true => {
                let void: BTreeSet<SnapshotId> =
                    repository.void_checkpoints()?.iter().map(|stored| stored.id).collect();
                let mut all = repository.every_snapshot()?;
                let taken = &self.options.taken_for_forgotten;
                all.retain(|stored| !void.contains(&stored.id) && !taken.contains(&stored.id));
                all
            }
            false => repository.every_snapshot()?,
        };
        report.snapshots = snapshots.len() as u64;
        let mut live = index.live_set();
        // What lies in marked packs only has no bit there; it is stored anew when these go.
        let mut marked = IdSet::default();
        let mut note = |_, id: &BlobId| {
            let is_new = match index.note_live(&mut live, id)? {
                Liveness::New => true,
                Liveness::Known => false,
                Liveness::Missing => marked.insert(*id),
            };
            report.blobs_needed += u64::from(is_new);
            Ok(is_new)
        };
        let total = Amount { items: snapshots.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckTrees, total: Some(total) });
        for stored in &snapshots {
            match repository.walk_blobs(&stored.snapshot.root, &self.options.cancel, &mut note) {
                Err(Error::Cancelled) => return Ok(None),
                walked => walked?,
            }
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::CheckTrees, by });
        }

        let mut unneeded = Vec::new();
        let mut partly = Vec::new();
        let (mut known, mut needed_bytes) = (IdSet::default(), 0);
        for (number, id, used) in index.pack_uses(&live)? {
            // A pack that two segments name has the needed bits in the first table.
            if !known.insert(id) && used.blobs == 0 {
                continue;
            }
            if index.is_avoided(&id) {
                continue;
            }
            let record = repository.pack(number)?;
            report.packs += 1;
            report.bytes += record.size;
            let candidate = Candidate { number, record, used };
            needed_bytes += candidate.record.size - candidate.unused_bytes();
            if used.blobs == 0 {
                unneeded.push(candidate);
            } else {
                partly.push(candidate);
            }
        }
        let repacked = self.choose(&mut partly, needed_bytes);
        report.packs_partly_needed =
            partly.iter().filter(|pack| pack.unused_bytes() > 0).count() as u64;
        let unindexed = self.unindexed_packs(&known)?;
        Ok(Some(Plan { unneeded, repacked, unindexed, live }))
    }

    /// Takes from `packs` those that are worth to be stored anew.
    fn choose(&self, packs: &mut Vec<Candidate>, needed_bytes: u64) -> Vec<Candidate> {
        let options = self.options;
        let allowed = match options.max_unused {
            _ if options.purge => 0,
            MaxUnused::Percent(percent) => (needed_bytes as f64 * percent / 100.0) as u64,
            MaxUnused::Bytes(bytes) => bytes,
            MaxUnused::Unlimited => u64::MAX,
        };
        // The emptiest first: they give the most room for the least work.
        let share = |pack: &Candidate| {
            u128::from(pack.unused_bytes()) * 1_000_000 / u128::from(pack.record.size.max(1))
        };
        packs.sort_by_key(|pack| std::cmp::Reverse(share(pack)));
        let mut unused: u64 = packs.iter().map(Candidate::unused_bytes).sum();
        let mut left = options.max_repack.unwrap_or(u64::MAX);
        let (mut chosen, mut kept) = (Vec::new(), Vec::new());
        for pack in packs.drain(..) {
            let is_worth_it = pack.unused_bytes() > 0 && unused > allowed;
            if is_worth_it && pack.record.size <= left {
                left -= pack.record.size;
                unused -= pack.unused_bytes();
                chosen.push(pack);
            } else {
                kept.push(pack);
            }
        }
        let full = self.repository.config().pack_bytes;
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let is_small = |pack: &Candidate| {
                pack.record.kind == kind && pack.record.size < full / SMALL_SHARE
            };
            let (count, bytes) = kept
                .iter()
                .filter(|pack| is_small(pack))
                .fold((0_u64, 0), |(count, bytes), pack| (count + 1, bytes + pack.record.size));
            // Joining them pays when it makes full packs, or many fewer.
            if count > 1 && (options.repack_small || bytes >= full || count >= 64) {
                let mut others = Vec::new();
                for pack in kept {
                    if is_small(&pack) && pack.record.size <= left {
                        left -= pack.record.size;
                        chosen.push(pack);
                    } else {
                        others.push(pack);
                    }
                }
                kept = others;
            }
        }
        *packs = kept;
        chosen
    }

    /// Packs that no segment names and that are older than any run takes to name its packs.
    fn unindexed_packs(&self, indexed: &IdSet<PackId>) -> Result<Vec<ObjectInfo>> {
        let repository = self.repository;
        let (now, grace) = (repository.now(), self.grace());
        let listed = repository.store().list(layout::PACKS)?;
        Ok(listed
            .into_iter()
            .filter(|info| {
                let written = info.modified.and_then(Timestamp::from_system_time);
                let is_old = written.is_some_and(|written| is_older(written, now, grace));
                let id = info.path.name().parse::<PackId>();
                is_old
                    && id.is_ok_and(|id| {
                        !indexed.contains(&id) && !repository.index().is_avoided(&id)
                    })
            })
            .collect())
    }

    /// Step 2. False if it was stopped.
    fn repack(&self, backup: &Backup, plan: &Plan) -> Result<bool> {
        let repository = self.repository;
        let bytes = plan.repacked.iter().map(|pack| pack.record.size).sum();
        let total = Amount { items: plan.repacked.len() as u64, bytes };
        self.observer.event(Event::PhaseStarted { phase: Phase::Repack, total: Some(total) });
        let mut rest = plan.repacked.as_slice();
        while !rest.is_empty() {
            let mut blobs = 0;
            let count = rest.iter().take_while(|pack| {
                let fits = blobs == 0 || blobs + pack.used.blobs <= REPACKED_BLOBS;
                blobs += pack.used.blobs;
                fits
            });
            let (these, others) = rest.split_at(count.count());
            rest = others;
            let numbers = these.iter().map(|pack| pack.number).collect();
            let live = repository.index().live_blobs(&plan.live, &numbers)?;
            let records: BTreeMap<PackNumber, &PackRecord> =
                these.iter().map(|pack| (pack.number, &pack.record)).collect();
            for blobs in live.chunk_by(|a, b| a.1.pack == b.1.pack) {
                if self.options.cancel.is_cancelled() {
                    return Ok(false);
                }
                let Some(record) = blobs.first().and_then(|(_, at)| records.get(&at.pack)) else {
                    continue;
                };
                let mut writer = backup.frame_writer(record.kind);
                let mut frames: Vec<u32> = blobs.iter().map(|(_, at)| at.frame).collect();
                frames.dedup();
                let mut rest = blobs;
                FrameReader::new(repository)?.read_frames(record, &frames, |wanted| {
                    let count = rest.iter().take_while(|(_, at)| at.frame == wanted.frame).count();
                    let (these, others) = rest.split_at(count);
                    rest = others;
                    let plain = wanted.plain?;
                    for (id, at) in these {
                        let blob =
                            repository.verify_blob(record.kind, id, &record.id, plain, at)?;
                        writer.push(*id, blob)?;
                    }
                    Ok(())
                })?;
                writer.flush()?;
                let by = Amount { items: 1, bytes: record.size };
                self.observer.event(Event::Advanced { phase: Phase::Repack, by });
            }
        }
        backup.flush()?;
        Ok(true)
    }
}
