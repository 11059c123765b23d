//! Good blobs out of bad packs.
//!
//! Frames are opened by the pack's own table and by what segments say of it; every blob is compared with its id. What
//! no whole pack holds goes into new packs, and a segment names these, before a mark takes the bad pack away from
//! writers for ever: so what it lost is unknown, and the next backup that meets it at its source stores it again.

use std::collections::{BTreeMap, BTreeSet};

use putback_format::id::{BlobId, PackId};
use putback_format::key::BlobKind;
use putback_format::segment::SegmentPack;
use putback_store::ObjectInfo;

use super::{Reading, RepairOptions, RepairPlan, RepairReport, read_twice};
use crate::check::{MISSING, Survey};
use crate::error::{Error, Result, is_damage};
use crate::id_set::IdSet;
use crate::observe::{Amount, Event, Observer, Phase};
use crate::{Repository, layout};

/// Takes each pack with its tables, and whether it is there.
type EachPack<'a> = dyn FnMut(&PackId, &[SegmentPack], bool) -> Result<()> + 'a;

/// What is said of a pack that will be marked.
pub(super) const MARK_IT: &str =
    "mark it: the next backup stores again what it lost and still finds, and prune removes it";

/// Bad packs whose tables are in memory at once.
const PACKS_AT_ONCE: usize = 256;

/// What will be done about packs.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Packs out of which blobs have to be saved, or that are not marked yet.
    pub(super) bad: Vec<PackId>,
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.bad.is_empty()
    }
}

/// Counts of one pack.
#[derive(Clone, Copy, Default)]
struct Counts {
    all: usize,
    saved: usize,
    lost: usize,
}

impl Repository {
    /// The pack whose id begins like this; the index must have been loaded.
    ///
    /// # Errors
    /// [`Error::BadOption`] if there is none, or several; [`Error::Store`].
    pub fn find_pack(&self, prefix: &str) -> Result<PackId> {
        let listed = self.store().list(layout::PACKS)?;
        let listed = listed.iter().filter_map(|info| info.path.name().parse().ok());
        let known = self.index().packs().into_iter().map(|(_, id)| id);
        let matching: BTreeSet<PackId> =
            listed.chain(known).filter(|id: &PackId| id.to_string().starts_with(prefix)).collect();
        let mut matching = matching.into_iter();
        match (matching.next().filter(|_| !prefix.is_empty()), matching.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::BadOption { what: format!("no pack matches '{prefix}'") }),
            _ => Err(Error::BadOption { what: format!("several packs match '{prefix}'") }),
        }
    }

    pub(super) fn plan_packs(
        &self,
        options: &RepairOptions,
        observer: &dyn Observer,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let survey = self.survey_for_repair(options, observer)?;
        let Survey { report, mut broken, repository } = survey;
        let mut is_true = true;
        if !repository.store().capabilities().is_consistent {
            is_true = repository.keep_unlisted(&mut broken)?;
        }
        // What was only not listed hurts nobody.
        plan.hurt_snapshots = if is_true { report.hurt_snapshots.clone() } else { Vec::new() };
        let bad: Vec<PackId> = broken.keys().copied().collect();
        let total = Amount { items: bad.len() as u64, bytes: 0 };
        observer.event(Event::PhaseStarted { phase: Phase::Plan, total: Some(total) });
        // A blob that one bad pack lost may be whole in another.
        let mut good = IdSet::default();
        repository.for_each_table(&bad, &mut |_, tables, is_listed| {
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if is_listed {
                for table in tables {
                    repository.read_pack_blobs(table, &mut |blob, plain| {
                        good.extend(plain.map(|_| *blob));
                        Ok(())
                    })?;
                }
            }
            let by = Amount { items: 1, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::Plan, by });
            Ok(())
        })?;
        let mut counts: BTreeMap<PackId, Counts> = BTreeMap::new();
        let (mut lost, mut counted) = (IdSet::default(), IdSet::default());
        repository.for_each_table(&bad, &mut |id, tables, _| {
            let of_pack = counts.entry(*id).or_default();
            let ids: BTreeSet<&BlobId> =
                tables.iter().flat_map(|table| &table.contents.ids).collect();
            of_pack.all = ids.len();
            for blob in ids {
                let places = repository.places_of(blob, &broken)?;
                if !places.is_safe && good.contains(blob) {
                    of_pack.saved += usize::from(counted.insert(*blob));
                } else if !places.is_there && !good.contains(blob) {
                    of_pack.lost += 1;
                    lost.insert(*blob);
                }
            }
            Ok(())
        })?;
        for (id, messages) in broken {
            let Counts { all, saved, lost } = counts.get(&id).copied().unwrap_or_default();
            let is_marked = repository.index().is_avoided(&id);
            let mut message = messages.first().cloned().unwrap_or_default();
            if messages.len() > 1 {
                message.push_str(&format!(", and {} more", messages.len() - 1));
            }
            message.push_str(&match (all, lost) {
                (0, _) => "; what it held is not known".to_owned(),
                (_, 0) => format!("; none of its {all} blobs is lost"),
                _ => format!("; {lost} of its {all} blobs are lost"),
            });
            let name = layout::pack(&id).to_string();
            // The first damage of a pack has the paths of all.
            let damage = report.damages.iter().find(|damage| damage.object.ends_with(&name));
            let hurts = damage.map_or_else(Vec::new, |damage| damage.hurts.clone());
            let total =
                damage.map_or((0, false), |damage| (damage.hurts_total, damage.hurts_at_least));
            let store = format!("store {saved} good blobs anew");
            let remedy = match (saved, is_marked) {
                (0, true) => {
                    // Done by an earlier repair: it waits for prune.
                    let remedy = Some("none needed: it is marked".to_owned());
                    plan.find_hurting(&name, message, remedy, hurts, total);
                    continue;
                }
                (0, false) => MARK_IT.to_owned(),
                (_, true) => store,
                (_, false) => format!("{store}, then {MARK_IT}"),
            };
            plan.find_hurting(&name, message, Some(remedy), hurts, total);
            plan.packs.bad.push(id);
        }
        plan.blobs_lost = lost.len() as u64;
        Ok(())
    }

    /// Takes packs out that a listing lacked, or that were not found when they were read, and that are there. Yields
    /// whether there was none.
    fn keep_unlisted(&self, broken: &mut BTreeMap<PackId, Vec<String>>) -> Result<bool> {
        let before = broken.len();
        // Several times where it was read as well.
        let is_missing = |messages: &[String]| messages.iter().all(|message| message == MISSING);
        let missing = broken.iter().filter(|(_, messages)| is_missing(messages));
        for id in missing.map(|(id, _)| *id).collect::<Vec<_>>() {
            match self.store().stat(&layout::pack(&id)) {
                Ok(_) => drop(broken.remove(&id)),
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(broken.len() == before)
    }

    /// Hands over what is known of these packs: each table that its header or a segment gives, and whether
    /// the pack is there.
    fn for_each_table(&self, packs: &[PackId], each: &mut EachPack<'_>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let listed: BTreeMap<PackId, ObjectInfo> = self
            .store()
            .list(layout::PACKS)?
            .into_iter()
            .filter_map(|info| Some((info.path.name().parse().ok()?, info)))
            .collect();
        for group in packs.chunks(PACKS_AT_ONCE) {
            let mut tables: BTreeMap<PackId, Vec<SegmentPack>> =
                group.iter().map(|id| (*id, Vec::new())).collect();
            for segment in self.list_segments()? {
                let segment = match read_twice(|| self.read_segment(&segment))? {
                    Reading::Good(segment) => segment,
                    // What it said is in another one, or writers would refuse to go on.
                    Reading::Missing | Reading::Damaged(_) => continue,
                };
                for pack in segment.packs {
                    if let Some(known) = tables.get_mut(&pack.id) {
                        add_table(known, pack);
                    }
                }
            }
            for (id, mut tables) in tables {
                let info = listed.get(&id);
                if let Some(info) = info
                    && let Reading::Good((trailer, contents)) =
                        read_twice(|| self.read_pack_contents(&id, info.size))?
                {
                    let (salt, epoch, size) = (trailer.salt, trailer.epoch, info.size);
                    add_table(
                        &mut tables,
                        SegmentPack { id, salt, epoch, crc32: 0, size, contents },
                    );
                }
                tables.retain(|table| self.keys().master("a pack", table.epoch).is_ok());
                each(&id, &tables, info.is_some())?;
            }
        }
        Ok(())
    }

    /// Which packs that are not broken hold a blob.
    fn places_of<T>(&self, blob: &BlobId, broken: &BTreeMap<PackId, T>) -> Result<Places> {
        let index = self.index();
        let mut places = Places { is_there: false, is_safe: false };
        for location in index.find_all(blob)? {
            let Some(id) = index.pack_id(location.pack) else { continue };
            if !broken.contains_key(&id) {
                places.is_there = true;
                places.is_safe |= !index.is_avoided(&id);
            }
        }
        Ok(places)
    }

    pub(super) fn repair_packs(
        &self,
        steps: &Steps,
        options: &RepairOptions,
        observer: &dyn Observer,
        report: &mut RepairReport,
    ) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let backup = self.begin_upkeep(options.workers)?;
        let index = self.index();
        let marked = self.marks()?.packs;
        index.distrust(&steps.bad);
        let mut data = backup.frame_writer(BlobKind::Data);
        let mut trees = backup.frame_writer(BlobKind::Tree);
        let total = Amount { items: steps.bad.len() as u64, bytes: 0 };
        observer.event(Event::PhaseStarted { phase: Phase::Repack, total: Some(total) });
        let saved = self.for_each_table(&steps.bad, &mut |_, tables, is_listed| {
            for table in tables.iter().filter(|_| is_listed) {
                if options.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let writer = match table.contents.kind {
                    BlobKind::Data => &mut data,
                    BlobKind::Tree => &mut trees,
                };
                self.read_pack_blobs(table, &mut |_, plain| {
                    plain.map_or(Ok(()), |plain| writer.put(plain).map(drop))
                })?;
            }
            let by = Amount { items: 1, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::Repack, by });
            Ok(())
        });
        // Also after a failure: what was saved is saved.
        data.flush()?;
        trees.flush()?;
        report.blobs_saved += backup.finish()?.blobs;
        saved?;
        let new: Vec<PackId> =
            steps.bad.iter().filter(|id| !marked.contains(id)).copied().collect();
        self.mark_packs(&new, report)
    }
}

/// Where a blob is besides packs that are broken.
#[derive(Clone, Copy)]
struct Places {
    /// Somewhere.
    is_there: bool,
    /// In a pack that no mark names.
    is_safe: bool,
}

/// Adds a table unless there is one that says the same of where blobs are.
fn add_table(tables: &mut Vec<SegmentPack>, table: SegmentPack) {
    let is_like = |known: &SegmentPack| {
        (known.epoch, known.salt) == (table.epoch, table.salt) && known.contents == table.contents
    };
    if !tables.iter().any(is_like) {
        tables.push(table);
    }
}
