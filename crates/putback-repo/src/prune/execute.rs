//! What was marked long enough ago goes: steps 4 to 7.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use putback_format::id::{MarkId, PackId, SnapshotId};
use putback_format::limits::MARK_PACKS_MAX;
use putback_format::mark::{Mark, MarkKind};
use putback_format::segment::Segment;
use putback_format::tree::Timestamp;
use putback_store::{LockMode, ObjectInfo};

use super::{PruneReport, Run, StandingMark, gone, is_older, later_of};
use crate::commit::Backup;
use crate::error::{Error, Result};
use crate::forget::Retained;
use crate::layout;
use crate::observe::{Amount, Event, Phase};
use crate::requests::Requests;
use crate::snapshots::{Marks, StoredSnapshot};

/// Packs that one segment buries. Several marks may be due at once, and a segment has room for more than one of them.
const TOMBSTONES_MAX: usize = MARK_PACKS_MAX;
/// How often everything is looked at again before giving up.
const ATTEMPTS: usize = 8;
/// The longest time that passes before a wait notices that it was stopped.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// Marks that a run wrote itself.
pub(super) struct OwnMarks {
    pub(super) ids: BTreeSet<MarkId>,
    /// How long it has waited since, by the clock that goes on in suspend.
    pub(super) waited: Duration,
}

impl Run<'_> {
    /// Steps 4 to 7: what was marked long enough ago goes. Yields the marks whose time has not come, with the
    /// seconds until it does. `own` are marks that this run wrote and has waited for.
    pub(super) fn carry_out_marks(
        &self,
        own: Option<&OwnMarks>,
        report: &mut PruneReport,
    ) -> Result<Vec<(MarkId, u64)>> {
        let repository = self.repository;
        let grace = self.grace();
        report.grace_seconds = grace.as_secs();
        let marks = self.marks()?;
        let listed = match marks.is_empty() {
            true => Vec::new(),
            false => repository.store().list(layout::PACKS)?,
        };
        let now = self.now_for(&marks, &listed, own, report)?;
        // A mark from the future is waited for until its time has come, and the grace period after it.
        let (due, waiting): (Vec<_>, Vec<_>) =
            marks.into_iter().partition(|mark| is_older(mark.since, now, grace));
        let (buried, due) = self.split_buried(due, own)?;
        (report.packs_waiting, report.bytes_waiting) = stored(&listed, &waiting);
        (report.packs_due, report.bytes_due) = stored(&listed, &due);
        let due_in = |mark: &StandingMark| {
            let end = i128::from(mark.since.seconds) + i128::from(grace.as_secs()) + 1;
            u64::try_from(end - i128::from(now.seconds)).unwrap_or_default()
        };
        let waiting: Vec<(MarkId, u64)> =
            waiting.iter().map(|mark| (mark.id, due_in(mark))).collect();
        report.seconds_to_wait = waiting.iter().map(|(_, seconds)| *seconds).min().unwrap_or(0);
        if self.options.dry_run {
            if !due.is_empty() {
                report.requests += self.requests_to_carry_out(report.packs_due);
            }
            if !buried.is_empty() {
                let read = Requests { lists: 2, deletes: 1, ..Requests::default() };
                report.requests += read;
            }
            return Ok(waiting);
        }
        if !due.is_empty() {
            let _lock = repository.store().lock(LockMode::Exclusive)?;
            let Some(look) = self.look_until_nothing_is_new(own.map(|_| now), report)? else {
                return Ok(waiting);
            };
            let packs: BTreeSet<PackId> =
                due.iter().flat_map(|mark| mark.packs.iter().copied()).collect();
            self.bury(&packs)?;
            // The listing is older than the tombstones, but names that are marked are never written again.
            let (count, bytes) = self.delete_named(&listed, &packs)?;
            report.packs_deleted += count;
            report.bytes_deleted += bytes;
            let newest = due.iter().map(|mark| mark.since).max();
            if self.is_consistent() {
                let infos: Vec<ObjectInfo> = due.into_iter().map(|mark| mark.info).collect();
                repository.store().delete(&infos)?;
            }
            // Later ones can come back yet: what they alone need is in no mark that was carried out.
            let (forgotten, snapshots) = (&look.forgotten, &look.snapshots);
            self.delete_forgotten(forgotten, snapshots, |since| Some(since) <= newest, report)?;
        }
        self.delete_buried(buried, now)?;
        Ok(waiting)
    }

    /// What steps 4 to 7 take for so many packs where requests count, if nobody else writes meanwhile and nothing
    /// has to be stored anew.
    pub(super) fn requests_to_carry_out(&self, packs: u64) -> Requests {
        let batch = self.repository.store().delete_batch().max(1) as u64;
        Requests {
            // A look lists marks, snapshots, marks, index; the second one marks and snapshots.
            lists: 4 + 2,
            // The segments with tombstones are read back.
            reads: packs.div_ceil(TOMBSTONES_MAX as u64),
            writes: packs.div_ceil(TOMBSTONES_MAX as u64),
            deletes: packs.div_ceil(batch),
        }
    }

    /// What telling the store's time takes.
    pub(super) fn requests_to_tell_time() -> Requests {
        Requests { reads: 1, writes: 1, deletes: 1, ..Requests::default() }
    }

    /// What time it is for telling how long these marks have stood: the earlier of this machine's and the store's,
    /// where these may differ.
    fn now_for(
        &self,
        marks: &[StandingMark],
        listed: &[ObjectInfo],
        own: Option<&OwnMarks>,
        report: &mut PruneReport,
    ) -> Result<Timestamp> {
        let (now, grace) = (self.repository.now(), self.grace());
        let due = marks.iter().filter(|mark| is_older(mark.since, now, grace));
        let Some(last) = due.map(|mark| mark.since).max().filter(|_| !self.is_consistent()) else {
            return Ok(now);
        };
        // A pack that is so much younger than the mark tells as much, and so does a mark since which this run has
        // waited for so long.
        let waited = own.into_iter().flat_map(|own| {
            let own_marks = marks.iter().filter(|mark| own.ids.contains(&mark.id));
            own_marks.filter_map(|mark| mark.info.modified?.checked_add(own.waited))
        });
        let newest = listed.iter().filter_map(|info| info.modified).chain(waited).max();
        match self.told_by(newest, last) {
            Some(newest) => Ok(newest.min(now)),
            None if self.options.dry_run => {
                report.requests += Self::requests_to_tell_time();
                Ok(now)
            }
            None => self.earlier_now(),
        }
    }

    /// When the store took something, if that alone tells that `last` is as old as the grace period.
    fn told_by(&self, taken: Option<SystemTime>, last: Timestamp) -> Option<Timestamp> {
        let taken = taken.and_then(Timestamp::from_system_time)?;
        is_older(last, taken, self.grace()).then_some(taken)
    }

    /// The earlier of this machine's and the store's time, which the store gives to an empty mark.
    fn earlier_now(&self) -> Result<Timestamp> {
        let repository = self.repository;
        let id = repository.write_mark(MarkKind::Packs(Vec::new()))?;
        let info = repository.store().stat(&layout::mark(&id))?;
        let by_store = info.modified.and_then(Timestamp::from_system_time);
        repository.store().delete(&[info])?;
        let now = repository.now();
        Ok(by_store.map_or(now, |by_store| by_store.min(now)))
    }

    /// Takes the marks apart all of whose packs are under tombstones: only the marks are still to be deleted.
    fn split_buried(
        &self,
        due: Vec<StandingMark>,
        own: Option<&OwnMarks>,
    ) -> Result<(Vec<StandingMark>, Vec<StandingMark>)> {
        let is_own = |mark: &StandingMark| own.is_some_and(|own| own.ids.contains(&mark.id));
        if self.is_consistent() || due.iter().all(is_own) {
            return Ok((Vec::new(), due));
        }
        self.repository.load_index()?;
        let index = self.repository.index();
        Ok(due.into_iter().partition(|mark| mark.packs.iter().all(|id| index.is_tombstoned(id))))
    }

    /// The end of step 7 where listings may lag behind: a mark goes when every listing must show the tombstones of
    /// its packs. Who sees neither would rely on the packs.
    fn delete_buried(&self, marks: Vec<StandingMark>, now: Timestamp) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let repository = self.repository;
        let lag = repository.times().listing_lag;
        let mut young = BTreeSet::new();
        for info in repository.store().list(layout::INDEX)? {
            let written = info.modified.and_then(Timestamp::from_system_time);
            if written.is_some_and(|written| is_older(written, now, lag)) {
                continue;
            }
            let Ok(id) = info.path.name().parse() else { continue };
            match repository.read_segment(&id) {
                Ok(segment) => young.extend(segment.tombstones),
                // Merged by another run, or not found for a moment: what it buries is not known.
                Err(Error::Store(error)) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut rows = Vec::new();
        let mut packs = BTreeSet::new();
        for mark in marks {
            if mark.packs.is_disjoint(&young) {
                packs.extend(mark.packs);
                rows.push(mark.info);
            }
        }
        if !rows.is_empty() {
            // Rows of packs that no listing showed when they were buried.
            self.delete_named(&repository.store().list(layout::PACKS)?, &packs)?;
            repository.store().delete(&rows)?;
        }
        Ok(())
    }

    /// Stores anew what a snapshot needs and only marked packs have, until two looks show the same. None if it was
    /// stopped. `at_once` is the time if that should go which this run has marked: not beside others.
    fn look_until_nothing_is_new(
        &self,
        at_once: Option<Timestamp>,
        report: &mut PruneReport,
    ) -> Result<Option<Look>> {
        let repository = self.repository;
        let mut before: Option<(BTreeSet<MarkId>, BTreeSet<SnapshotId>)> = None;
        let mut retained = Retained::default();
        let mut has_lacked = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 && !self.is_consistent() {
                self.wait(repository.times().second_look);
            }
            if self.options.cancel.is_cancelled() {
                return Ok(None);
            }
            // These marks first: one that comes between them and the index that is loaded below makes the next
            // look differ.
            let read = repository.read_marks()?;
            let marks: BTreeSet<MarkId> =
                read.iter().filter_map(|(info, _)| info.path.name().parse().ok()).collect();
            let forgotten = forgotten_since(&read);
            // New marks may name packs that an earlier look relied on.
            let are_marks_new = before.as_ref().is_none_or(|(before, _)| *before != marks);
            if are_marks_new {
                retained = Retained::default();
            }
            let look = Look { forgotten, snapshots: repository.store().list(layout::SNAPSHOTS)? };
            if let Some(now) = at_once {
                self.refuse_beside_writers_of(&look.snapshots, now)?;
            }
            let listed: BTreeSet<SnapshotId> =
                look.snapshots.iter().filter_map(|info| info.path.name().parse().ok()).collect();
            let counted = listed.iter().filter(|id| !look.forgotten.contains_key(id));
            let snapshots = repository.read_every(counted)?;
            let known: Marks = read.iter().map(|(_, mark)| mark).collect();
            if let Some(what) = gone(&snapshots, &known, &self.seen) {
                // Once, it may be that a listing lags.
                if self.is_consistent() || std::mem::replace(&mut has_lacked, true) {
                    return Err(Error::SnapshotsGone { what });
                }
                before = None;
                continue;
            }
            let ids: BTreeSet<SnapshotId> = snapshots.iter().map(|stored| stored.id).collect();
            if before.as_ref().is_some_and(|(_, before)| !are_marks_new && *before == ids) {
                return Ok(Some(look));
            }
            let backup = repository.begin_upkeep(self.options.workers)?;
            match self.retain_all(&backup, &snapshots, &mut retained) {
                // A segment that no listing shows yet: it is looked at once more.
                Err(Error::BlobUnknown { .. }) if attempt == 0 && !self.is_consistent() => continue,
                result => result?,
            }
            if self.options.cancel.is_cancelled() {
                return Ok(None);
            }
            let written = backup.finish()?;
            report.blobs_rescued += written.blobs;
            before = Some((marks, ids));
            if self.is_consistent() && written.blobs == 0 {
                // The lock keeps every writer away: a second look would show the same.
                return Ok(Some(look));
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

    /// Waits; false if it was stopped.
    pub(super) fn wait(&self, time: Duration) -> bool {
        self.wait_telling(time, |_| ())
    }

    /// Waits, and tells each second that has passed. Time in suspend counts.
    fn wait_telling(&self, time: Duration, mut second_passed: impl FnMut(u64)) -> bool {
        let clock = &self.repository.machine().clock;
        let began = clock.since_boot();
        let mut told = 0;
        loop {
            if self.options.cancel.is_cancelled() {
                return false;
            }
            let passed = clock.since_boot().saturating_sub(began);
            if passed.as_secs() > told {
                second_passed(passed.as_secs() - told);
                told = passed.as_secs();
            }
            let left = time.saturating_sub(passed);
            if left.is_zero() {
                return true;
            }
            clock.sleep(left.min(WAIT_STEP));
        }
    }

    /// Where no lock helps: between what this run has marked and its deletion. False if it was stopped.
    pub(super) fn wait_for_grace(&self, seconds: u64) -> bool {
        let total = Some(Amount { items: seconds, bytes: 0 });
        self.observer.event(Event::PhaseStarted { phase: Phase::Wait, total });
        self.wait_telling(Duration::from_secs(seconds), |seconds| {
            let by = Amount { items: seconds, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::Wait, by });
        })
    }

    /// Where no lock helps: whoever wrote a snapshot or checkpoint lately may be about to write the next one, and
    /// packs that go at once leave it the least time there may be.
    ///
    /// # Errors
    /// [`Error::OthersActive`].
    pub(super) fn refuse_beside_others(&self) -> Result<()> {
        if !self.options.instant || self.is_consistent() {
            return Ok(());
        }
        let repository = self.repository;
        let listed = repository.store().list(layout::SNAPSHOTS)?;
        self.refuse_beside_writers_of(&listed, repository.now())
    }

    /// As [`Run::refuse_beside_others`], by these rows of snapshots.
    fn refuse_beside_writers_of(&self, listed: &[ObjectInfo], now: Timestamp) -> Result<()> {
        let repository = self.repository;
        let recent = repository.times().grace_least();
        let own = {
            let _lock = repository.state().lock()?;
            repository.state().writer()?
        };
        for info in listed {
            let modified = info.modified.and_then(Timestamp::from_system_time);
            if modified.is_some_and(|modified| is_older(modified, now, recent)) {
                continue;
            }
            let Ok(id) = info.path.name().parse() else { continue };
            // Forgotten ones count too: it matters who writes.
            let snapshot = match repository.read_snapshot(&id) {
                Ok(snapshot) => snapshot,
                Err(Error::Store(error)) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let time = modified.unwrap_or(snapshot.time);
            if snapshot.writer != own && !is_older(time, now, recent) {
                let age = now.seconds.saturating_sub(time.seconds);
                let age_seconds = u64::try_from(age).unwrap_or_default();
                return Err(Error::OthersActive { snapshot: id, host: snapshot.host, age_seconds });
            }
        }
        Ok(())
    }

    /// Step 5. A segment with tombstones outweighs every other that names the packs.
    fn bury(&self, packs: &BTreeSet<PackId>) -> Result<()> {
        let repository = self.repository;
        let buried: Vec<PackId> =
            packs.iter().filter(|pack| !repository.index().is_tombstoned(pack)).copied().collect();
        for segment in burials(&buried) {
            let (id, _) = repository.write_segment(&segment)?;
            // From the store: what a cache has is no evidence.
            if repository.read_segment_anew(&id)? != segment {
                return Err(Error::Damaged {
                    object: format!("{}, just written,", layout::segment(&id)),
                    source: None,
                });
            }
            repository.index().add_written(id, &segment)?;
        }
        Ok(())
    }

    /// Deletes all rows of these names. How many there were, and their bytes.
    fn delete_named<Id: FromStr + Ord>(
        &self,
        listed: &[ObjectInfo],
        ids: &BTreeSet<Id>,
    ) -> Result<(u64, u64)> {
        let is_named =
            |info: &&ObjectInfo| info.path.name().parse().is_ok_and(|id| ids.contains(&id));
        let rows: Vec<ObjectInfo> = listed.iter().filter(is_named).cloned().collect();
        self.repository.store().delete(&rows)?;
        Ok((rows.len() as u64, rows.iter().map(|info| info.size).sum()))
    }

    /// Step 7: objects of snapshots whose forget record is of such a time.
    fn delete_forgotten(
        &self,
        forgotten: &BTreeMap<SnapshotId, Timestamp>,
        listed: &[ObjectInfo],
        is_due: impl Fn(Timestamp) -> bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let due = forgotten.iter().filter(|(_, since)| is_due(**since));
        let due: BTreeSet<SnapshotId> = due.map(|(id, _)| *id).collect();
        report.snapshots_deleted += self.delete_named(listed, &due)?.0;
        Ok(())
    }

    /// As step 7, where no mark stands: records that have stood for the grace period, by the same time as marks.
    pub(super) fn delete_long_forgotten(&self, report: &mut PruneReport) -> Result<()> {
        let repository = self.repository;
        let (mut now, grace) = (repository.now(), self.grace());
        let forgotten = forgotten_since(&repository.read_marks()?);
        if !forgotten.values().any(|since| is_older(*since, now, grace)) {
            return Ok(());
        }
        let listed = repository.store().list(layout::SNAPSHOTS)?;
        if !self.is_consistent() {
            let rows = listed.iter().filter_map(|info| info.path.name().parse().ok());
            let since = rows.filter_map(|id: SnapshotId| forgotten.get(&id).copied());
            let Some(last) = since.filter(|since| is_older(*since, now, grace)).max() else {
                return Ok(());
            };
            now = match self.told_by(listed.iter().filter_map(|info| info.modified).max(), last) {
                Some(newest) => newest.min(now),
                None => self.earlier_now()?,
            };
        }
        self.delete_forgotten(&forgotten, &listed, |since| is_older(since, now, grace), report)
    }
}

/// Segments that bury these packs, each for as many as a segment has room for.
fn burials(packs: &[PackId]) -> impl Iterator<Item = Segment> {
    let parts = packs.chunks(TOMBSTONES_MAX);
    parts.map(|part| Segment { tombstones: part.to_vec(), ..Segment::default() })
}

/// What the last look showed.
struct Look {
    /// Forgotten snapshots, and since when.
    forgotten: BTreeMap<SnapshotId, Timestamp>,
    /// Rows of all snapshots, forgotten ones among them.
    snapshots: Vec<ObjectInfo>,
}

/// Snapshots that records name, and the time of the earliest.
fn forgotten_since(marks: &[(ObjectInfo, Mark)]) -> BTreeMap<SnapshotId, Timestamp> {
    let mut forgotten = BTreeMap::new();
    for (info, mark) in marks {
        let MarkKind::Forget(records) = &mark.kind else { continue };
        let since = later_of(mark.time, info);
        for record in records {
            let known = forgotten.entry(record.snapshot).or_insert(since);
            *known = since.min(*known);
        }
    }
    forgotten
}

/// Packs of these marks that are listed, and their bytes.
fn stored(listed: &[ObjectInfo], marks: &[StandingMark]) -> (u64, u64) {
    let is_named = |info: &&ObjectInfo| {
        let id = info.path.name().parse();
        id.is_ok_and(|id| marks.iter().any(|mark| mark.packs.contains(&id)))
    };
    let sizes = listed.iter().filter(is_named).map(|info| info.size);
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
}

#[cfg(test)]
mod tests {
    use putback_format::limits::SEGMENT_BYTES_MAX;

    use super::*;

    #[test]
    fn packs_of_any_number_of_full_marks_can_be_buried() {
        let packs: Vec<PackId> = (0..3 * MARK_PACKS_MAX as u32)
            .map(|number| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                PackId::from_bytes(bytes)
            })
            .collect();
        assert!(packs.len() * PackId::LENGTH > SEGMENT_BYTES_MAX as usize, "one has no room");
        let mut buried = Vec::new();
        for segment in burials(&packs) {
            let again = Segment::decode(&segment.encode().unwrap()).unwrap();
            assert_eq!(again, segment);
            buried.extend(again.tombstones);
        }
        assert!(buried == packs);
        assert_eq!(burials(&[]).count(), 0);
    }
}
