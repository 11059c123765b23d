//! Index segments made fewer, beside any number of backups, prunes and other compactors.
//!
//! Every run that stores something adds a segment. Small ones are *merged*: a new segment repeats what they say and
//! names them as replaced. The inputs stay for a grace period, since somebody may be between listing and reading
//! them, and go after the merged one was read again and found to repeat each of them. So at every moment a listing
//! shows all of the index, however many do this at once and wherever one of them stops.
//!
//! What is to be done is decided from a listing that was taken anyway and from what is known of its segments.
//! Rules: `docs/format.md`, "Index segments".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use putback_format::id::{PackId, SegmentId};
use putback_format::limits::SEGMENT_BYTES_TARGET;
use putback_format::segment::{Segment, SegmentPack};
use putback_format::tree::Timestamp;
use putback_store::ObjectInfo;

use crate::error::{Error, Result};
use crate::index_load::{Replacements, is_gone_or_damaged};
use crate::observe::Cancel;
use crate::prune::{GRACE, is_older};
use crate::{Repository, layout};

/// Segments below this size as stored are small: merging eight of them or more makes a full one.
pub(crate) const SMALL_BYTES: u64 = (SEGMENT_BYTES_TARGET / 8) as u64;
/// A backup merges when there are this many small segments. Who has no cache yet pays two requests for each on a
/// remote store, so it never pays for more than about 64 of them; the one who merges, and has what it read or wrote
/// in its cache, pays about 8 for each 32 backups.
pub const SEGMENTS_LEAST: usize = 32;
/// A prune, which costs many requests itself, merges when there are so many.
pub(crate) const SEGMENTS_LEAST_AT_PRUNE: usize = 8;
/// Names of replaced segments that are kept although these are not listed any more, for machines whose tables
/// know only them. Others read the index again.
const REPLACED_KEPT: usize = 1024;

/// How to compact.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Small segments that must be there before they are merged; at least 2.
    pub segments_least: usize,
    /// How long a merged segment stands before its inputs go.
    pub grace: Duration,
    /// Stops before the next segment.
    pub cancel: Cancel,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { segments_least: SEGMENTS_LEAST, grace: GRACE, cancel: Cancel::default() }
    }
}

/// What was done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Small segments that a new one repeats.
    pub merged: u64,
    /// New segments.
    pub written: u64,
    /// Replaced segments that were deleted.
    pub deleted: u64,
}

/// What a listing shows that there is to do.
#[derive(Debug, Default)]
struct Plan {
    /// Small segments that none replaces, smallest first.
    merge: Vec<SegmentId>,
    /// Merged segments that have stood for their time, and listed ones that each says it replaces.
    delete: Vec<(SegmentId, Vec<SegmentId>)>,
}

fn rows_by_id(listed: &[ObjectInfo]) -> BTreeMap<SegmentId, Vec<&ObjectInfo>> {
    let mut rows: BTreeMap<SegmentId, Vec<&ObjectInfo>> = BTreeMap::new();
    for info in listed {
        if let Ok(id) = info.path.name().parse() {
            // A store may have several rows of one name.
            rows.entry(id).or_default().push(info);
        }
    }
    rows
}

fn plan(
    listed: &[ObjectInfo],
    replacements: &Replacements,
    now: Timestamp,
    grace: Duration,
    segments_least: usize,
) -> Plan {
    let rows = rows_by_id(listed);
    let replaced = replacements.replaced_by(rows.keys());
    let mut plan = Plan::default();
    // Those that nothing replaces come first: what they name needs no second look.
    let mut merged: Vec<(&SegmentId, &Vec<SegmentId>)> = replacements.0.iter().collect();
    merged.sort_by_key(|(id, _)| replaced.contains(id));
    for (id, inputs) in merged {
        let is_old = rows.get(id).is_some_and(|rows| {
            rows.iter().all(|info| {
                let written = info.modified.and_then(Timestamp::from_system_time);
                written.is_some_and(|written| is_older(written, now, grace))
            })
        });
        let inputs: Vec<SegmentId> =
            inputs.iter().filter(|input| rows.contains_key(input)).copied().collect();
        if is_old && !inputs.is_empty() {
            plan.delete.push((*id, inputs));
        }
    }
    let size = |id: &SegmentId| rows[id].iter().map(|info| info.size).max().unwrap_or_default();
    let is_candidate = |id: &&SegmentId| !replaced.contains(id) && size(id) < SMALL_BYTES;
    plan.merge = rows.keys().filter(is_candidate).copied().collect();
    plan.merge.sort_by_key(|id| (size(id), *id));
    if plan.merge.len() < segments_least.max(2) {
        plan.merge.clear();
    }
    plan
}

/// Segments on their way into one.
#[derive(Default)]
struct Merge {
    inputs: BTreeMap<SegmentId, Segment>,
    bytes: usize,
}

impl Merge {
    fn bytes_of(segment: &Segment) -> usize {
        let packs = segment.packs.iter().map(|pack| Segment::pack_encoded_length(&pack.contents));
        packs.sum::<usize>() + 32 * (segment.tombstones.len() + segment.replaces.len())
    }

    /// What all of them say. `is_tombstoned` knows the tombstones of other segments: packs that are gone need no
    /// room here if their tombstones come along.
    fn union(
        &self,
        listed: &BTreeMap<SegmentId, Vec<&ObjectInfo>>,
        is_tombstoned: impl Fn(&PackId) -> bool,
    ) -> Segment {
        let mut packs: BTreeMap<PackId, Vec<&SegmentPack>> = BTreeMap::new();
        let mut tombstones = BTreeSet::new();
        let mut replaces: BTreeSet<SegmentId> = self.inputs.keys().copied().collect();
        let mut unlisted = BTreeSet::new();
        for segment in self.inputs.values() {
            tombstones.extend(segment.tombstones.iter().copied());
            for pack in &segment.packs {
                let known = packs.entry(pack.id).or_default();
                // Of two that contradict each other either may be right.
                if !known.contains(&pack) {
                    known.push(pack);
                }
            }
            for id in &segment.replaces {
                let is_listed = listed.contains_key(id);
                if is_listed { &mut replaces } else { &mut unlisted }.insert(*id);
            }
        }
        replaces.extend(unlisted.into_iter().take(REPLACED_KEPT));
        tombstones.extend(packs.keys().filter(|id| is_tombstoned(id)));
        packs.retain(|id, _| !tombstones.contains(id));
        Segment {
            packs: packs.into_values().flatten().cloned().collect(),
            tombstones: tombstones.into_iter().collect(),
            replaces: replaces.into_iter().collect(),
        }
    }
}

/// A merged segment, to compare others with.
struct Repeats<'a> {
    merged: &'a Segment,
    packs: BTreeMap<PackId, Vec<&'a SegmentPack>>,
}

impl<'a> Repeats<'a> {
    fn new(merged: &'a Segment) -> Self {
        let mut packs: BTreeMap<PackId, Vec<&SegmentPack>> = BTreeMap::new();
        for pack in &merged.packs {
            packs.entry(pack.id).or_default().push(pack);
        }
        Self { merged, packs }
    }

    /// Whether nothing is lost when `input` goes.
    fn repeats(&self, id: &SegmentId, input: &Segment) -> bool {
        let is_buried = |pack: &PackId| self.merged.tombstones.binary_search(pack).is_ok();
        self.merged.replaces.binary_search(id).is_ok()
            && input.tombstones.iter().all(is_buried)
            && input.packs.iter().all(|pack| {
                is_buried(&pack.id)
                    || self.packs.get(&pack.id).is_some_and(|same| same.contains(&pack))
            })
    }
}

impl Repository {
    /// Merges small segments if there are enough of them, and deletes those that merged ones have replaced for long
    /// enough. Lists the segments.
    ///
    /// # Errors
    /// - As [`Repository::load_index`].
    /// - [`Error::Damaged`]: the store did not return what was written. It is taken back, and nothing is deleted.
    pub fn compact(&self, options: &CompactOptions) -> Result<Compaction> {
        self.load_segments()?;
        self.compact_listed(options)
    }

    /// As [`Repository::compact`], after a commit that stored something: by the listing that it ended with. The
    /// run is a success whatever comes of it.
    pub(crate) fn compact_after_commit(&self) {
        self.compact_or_warn(|| self.compact_listed(&CompactOptions::default()));
    }

    /// What `compact` did; a failure is only worth a warning to who has done something else.
    pub(crate) fn compact_or_warn(
        &self,
        compact: impl FnOnce() -> Result<Compaction>,
    ) -> Compaction {
        compact().unwrap_or_else(|error| {
            self.warn(format!("index segments were not merged, a later run does it: {error}"));
            Compaction::default()
        })
    }

    /// What [`Repository::compact`] would do by the last listing. Makes no request.
    pub(crate) fn plan_compaction(&self, options: &CompactOptions) -> Compaction {
        let plan = self.plan_merging(options, &self.index().listing());
        let deleted: BTreeSet<_> = plan.delete.iter().flat_map(|(_, inputs)| inputs).collect();
        Compaction {
            merged: plan.merge.len() as u64,
            written: u64::from(!plan.merge.is_empty()),
            deleted: deleted.len() as u64,
        }
    }

    fn plan_merging(&self, options: &CompactOptions, listed: &[ObjectInfo]) -> Plan {
        let (mut now, mut grace) = (self.now(), options.grace);
        // A reader may be between listing and reading; and where there are no locks listings may lag: the merged one
        // must have come to everybody's eyes.
        if !self.store().capabilities().is_consistent {
            grace = grace.max(self.times().grace_least());
            // This machine's clock may be ahead: it is no later than that by the store's, as far as is known.
            let times =
                listed.iter().filter_map(|info| Timestamp::from_system_time(info.modified?));
            now = now.min(times.max().unwrap_or(now));
        }
        plan(listed, &self.index().replacements(), now, grace, options.segments_least)
    }

    /// As [`Repository::compact`], by the last listing.
    pub(crate) fn compact_listed(&self, options: &CompactOptions) -> Result<Compaction> {
        let listed = self.index().listing();
        let plan = self.plan_merging(options, &listed);
        let mut done = Compaction::default();
        if plan.merge.is_empty() && plan.delete.is_empty() {
            return Ok(done);
        }
        let rows = rows_by_id(&listed);
        // First what makes room; what is merged now replaces none of it.
        self.delete_replaced(&plan, &rows, &options.cancel, &mut done)?;
        self.merge_small(&plan, &rows, &options.cancel, &mut done)?;
        self.save_index();
        Ok(done)
    }

    fn delete_replaced(
        &self,
        plan: &Plan,
        rows: &BTreeMap<SegmentId, Vec<&ObjectInfo>>,
        cancel: &Cancel,
        done: &mut Compaction,
    ) -> Result<()> {
        let mut gone = BTreeSet::new();
        for (id, inputs) in &plan.delete {
            let inputs: Vec<&SegmentId> = inputs.iter().filter(|id| !gone.contains(*id)).collect();
            // One that has just gone cannot stand in for others.
            if inputs.is_empty() || gone.contains(id) {
                continue;
            }
            let merged = match self.read_segment_anew(id) {
                Err(error) if is_gone_or_damaged(&error) => continue,
                merged => merged?,
            };
            let repeats = Repeats::new(&merged);
            let mut repeated = Vec::new();
            for input in inputs {
                if cancel.is_cancelled() {
                    return Ok(());
                }
                match self.read_segment_twice(input)? {
                    Some(segment) if !repeats.repeats(input, &segment) => self.warn(format!(
                        "{} does not repeat all of {}, which stays",
                        layout::segment(id),
                        layout::segment(input)
                    )),
                    // One that nobody can read says nothing that could be lost.
                    _ => repeated.push(*input),
                }
            }
            let rows: Vec<ObjectInfo> =
                repeated.iter().flat_map(|id| &rows[id]).map(|info| (*info).clone()).collect();
            self.store().delete(&rows)?;
            done.deleted += repeated.len() as u64;
            gone.extend(repeated);
        }
        Ok(())
    }

    /// None if it is gone, or damaged also when it is read again.
    fn read_segment_twice(&self, id: &SegmentId) -> Result<Option<Segment>> {
        match self.read_segment(id) {
            Err(error) if is_gone_or_damaged(&error) => {}
            segment => return segment.map(Some),
        }
        match self.read_segment_anew(id) {
            // A newer program can read it, and only that can tell whether it is repeated.
            Err(error @ Error::NewerFormat { .. }) => Err(error),
            Err(error) if is_gone_or_damaged(&error) => Ok(None),
            segment => segment.map(Some),
        }
    }

    fn merge_small(
        &self,
        plan: &Plan,
        rows: &BTreeMap<SegmentId, Vec<&ObjectInfo>>,
        cancel: &Cancel,
        done: &mut Compaction,
    ) -> Result<()> {
        let mut merge = Merge::default();
        for id in &plan.merge {
            if cancel.is_cancelled() {
                return Ok(());
            }
            let segment = match self.read_segment(id) {
                // Somebody else's business: it is gone, or `check` names it.
                Err(error) if is_gone_or_damaged(&error) => continue,
                segment => segment?,
            };
            let bytes = Merge::bytes_of(&segment);
            if merge.bytes + bytes > SEGMENT_BYTES_TARGET as usize {
                self.write_merged(&std::mem::take(&mut merge), rows, done)?;
            }
            merge.bytes += bytes;
            merge.inputs.insert(*id, segment);
        }
        self.write_merged(&merge, rows, done)
    }

    fn write_merged(
        &self,
        merge: &Merge,
        rows: &BTreeMap<SegmentId, Vec<&ObjectInfo>>,
        done: &mut Compaction,
    ) -> Result<()> {
        if merge.inputs.len() < 2 {
            return Ok(());
        }
        let merged = merge.union(rows, |pack| self.index().is_tombstoned(pack));
        let (id, _) = self.write_segment(&merged)?;
        let stored = self.read_segment_anew(&id);
        let is_good = stored.as_ref().is_ok_and(|stored| {
            let repeats = Repeats::new(stored);
            *stored == merged && merge.inputs.iter().all(|(id, input)| repeats.repeats(id, input))
        });
        if !is_good {
            // Nobody needs it: all inputs are there.
            let path = layout::segment(&id);
            let info = self.store().stat(&path)?;
            self.store().delete(&[info])?;
            stored?;
            return Err(Error::Damaged { object: format!("{path}, just written,"), source: None });
        }
        self.index().note_merged(id, merge.inputs.keys(), merged);
        done.merged += merge.inputs.len() as u64;
        done.written += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn id(number: u8) -> SegmentId {
        SegmentId::from_bytes([number; 32])
    }

    fn row(number: u8, size: u64, hours_ago: u64) -> ObjectInfo {
        ObjectInfo {
            path: layout::segment(&id(number)),
            size,
            modified: Some(UNIX_EPOCH + HOUR * (1000 - hours_ago as u32)),
            service_id: None,
            crc32: None,
        }
    }

    fn replacements(list: &[(u8, &[u8])]) -> Replacements {
        let mut replacements = Replacements::default();
        for (by, replaced) in list {
            replacements.note(id(*by), replaced.iter().map(|number| id(*number)).collect());
        }
        replacements
    }

    /// The numbers of segments to merge, and of merged ones with those to delete.
    type Found = (Vec<u8>, Vec<(u8, Vec<u8>)>);

    fn planned(listed: &[ObjectInfo], known: &[(u8, &[u8])]) -> Found {
        let now = Timestamp { seconds: 1000 * 3600, nanoseconds: 0 };
        let found = plan(listed, &replacements(known), now, HOUR * 24, 3);
        let numbers = |ids: &[SegmentId]| ids.iter().map(|id| id.as_bytes()[0]).collect();
        let delete = found.delete.iter().map(|(id, inputs)| (id.as_bytes()[0], numbers(inputs)));
        (numbers(&found.merge), delete.collect())
    }

    #[test]
    fn small_segments_are_merged_when_there_are_enough() {
        let three = [row(3, 10, 0), row(1, 30, 0), row(2, 20, 0)];
        assert_eq!(planned(&three[1..], &[]), (vec![], vec![]));
        assert_eq!(planned(&three, &[]), (vec![3, 2, 1], vec![]));
        let with_full = [three.to_vec(), vec![row(4, SMALL_BYTES, 0)]].concat();
        assert_eq!(planned(&with_full, &[]).0, [3, 2, 1], "a large one is left alone");
        let twice = [three[0].clone(), three[0].clone(), three[1].clone()];
        assert_eq!(planned(&twice, &[]).0, [0; 0], "two rows of one name are one segment");
    }

    #[test]
    fn what_is_replaced_is_not_merged_again_and_goes_after_its_time() {
        let known: &[(u8, &[u8])] = &[(9, &[1, 2, 3, 4])];
        let young = [row(1, 10, 50), row(2, 20, 50), row(3, 30, 50), row(9, 60, 23)];
        assert_eq!(planned(&young, known), (vec![], vec![]));
        let old = [row(1, 10, 50), row(2, 20, 50), row(3, 30, 50), row(9, 60, 24)];
        assert_eq!(planned(&old, known), (vec![], vec![(9, vec![1, 2, 3])]));
        assert_eq!(
            planned(&old[..3], known).1,
            [],
            "a merged one that is not listed counts for nothing"
        );
        let without_time = [old[0].clone(), ObjectInfo { modified: None, ..old[3].clone() }];
        assert_eq!(planned(&without_time, known).1, []);
        let from_the_future = [
            old[0].clone(),
            ObjectInfo { modified: Some(UNIX_EPOCH + HOUR * 5000), ..old[3].clone() },
        ];
        assert_eq!(planned(&from_the_future, known).1, []);
    }

    #[test]
    fn of_a_chain_the_last_one_comes_first() {
        let known: &[(u8, &[u8])] = &[(5, &[1, 2]), (9, &[5, 6])];
        let listed = [row(1, 1, 90), row(5, 1, 80), row(6, 1, 80), row(9, 1, 70)];
        assert_eq!(planned(&listed, known), (vec![], vec![(9, vec![5, 6]), (5, vec![1])]));
    }

    fn pack(number: u8, crc32: u32) -> SegmentPack {
        SegmentPack {
            id: PackId::from_bytes([number; 32]),
            salt: [0; 32],
            epoch: 1,
            crc32,
            size: 1000,
            contents: putback_format::pack::PackContents {
                kind: putback_format::key::BlobKind::Data,
                frames: Vec::new(),
                ids: Vec::new(),
                lengths: Vec::new(),
            },
        }
    }

    #[test]
    fn a_union_repeats_every_input_and_one_that_lacks_anything_does_not() {
        let tombstone = |number| vec![PackId::from_bytes([number; 32])];
        let inputs = BTreeMap::from([
            (id(1), Segment { packs: vec![pack(1, 0), pack(2, 0)], ..Segment::default() }),
            (id(2), Segment { packs: vec![pack(2, 0), pack(3, 7)], ..Segment::default() }),
            (
                id(3),
                Segment {
                    packs: vec![pack(3, 8)],
                    tombstones: tombstone(1),
                    replaces: vec![id(7), id(8)],
                },
            ),
        ]);
        let merge = Merge { inputs: inputs.clone(), bytes: 0 };
        let listed = [row(7, 1, 0)];
        let merged = merge.union(&rows_by_id(&listed), |pack| *pack == PackId::from_bytes([2; 32]));
        assert_eq!(merged.packs, [pack(3, 7), pack(3, 8)], "two that contradict each other stay");
        assert_eq!(merged.tombstones, [tombstone(1), tombstone(2)].concat());
        assert_eq!(merged.replaces, [id(1), id(2), id(3), id(7), id(8)]);
        let repeats = Repeats::new(&merged);
        assert!(inputs.iter().all(|(id, input)| repeats.repeats(id, input)));
        assert!(!repeats.repeats(&id(4), &inputs[&id(1)]), "one that it does not name");
        for lost in 0..4 {
            let mut less = merged.clone();
            match lost {
                0 | 1 => drop(less.packs.remove(lost)),
                other => drop(less.tombstones.remove(other - 2)),
            }
            let repeats = Repeats::new(&less);
            assert!(!inputs.iter().all(|(id, input)| repeats.repeats(id, input)), "{lost}");
        }
    }
}
