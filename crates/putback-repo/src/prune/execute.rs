//! What was marked long enough ago goes: steps 4 to 7.

use std::collections::BTreeSet;
use std::time::Duration;

use putback_format::id::{MarkId, PackId, SnapshotId};
use putback_format::mark::MarkKind;
use putback_format::segment::Segment;
use putback_format::tree::Timestamp;
use putback_store::{LockMode, ObjectInfo};

use super::{PruneReport, Run, StandingMark, is_older, later_of};
use crate::commit::Backup;
use crate::error::{Error, Result};
use crate::forget::Retained;
use crate::layout;
use crate::observe::{Amount, Event, Phase};
use crate::snapshots::StoredSnapshot;

/// How often everything is looked at again before giving up.
const ATTEMPTS: usize = 8;

impl Run<'_> {
    /// Steps 4 to 7: what was marked long enough ago goes.
    pub(super) fn carry_out_marks(&self, report: &mut PruneReport) -> Result<()> {
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
    pub(super) fn stored(&self, marks: &[StandingMark]) -> Result<(u64, u64)> {
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
    pub(super) fn look_until_nothing_is_new(&self, report: &mut PruneReport) -> Result<bool> {
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

    pub(super) fn retain_all(
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

    pub(super) fn wait(&self, time: Duration) {
        let step = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() && !self.options.cancel.is_cancelled() {
            self.repository.machine().clock.sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    }

    /// Step 5. A segment with tombstones outweighs every other that names the packs.
    pub(super) fn bury(&self, packs: &BTreeSet<PackId>) -> Result<()> {
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
    pub(super) fn delete_packs(
        &self,
        packs: &BTreeSet<PackId>,
        report: &mut PruneReport,
    ) -> Result<()> {
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
    pub(super) fn delete_forgotten(
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
}
