//! The index from the packs themselves: every pack says at its end what it holds.
//!
//! Packs that the store lists and no readable segment names are named by a new one, also marked ones, which
//! readers may need. It says that it stands for the segments that are damaged, so that nobody has to read these any
//! more. They may have held tombstones: packs that other segments name and that are not there are marked first, or
//! writers would rely on them.
//!
//! Memory: 80 bytes for each pack, and the tables of [`PACKS_AT_ONCE`] packs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use putback_format::id::{PackId, SegmentId};
use putback_format::limits::{MARK_PACKS_MAX, SEGMENT_BYTES_TARGET};
use putback_format::mark::MarkKind;
use putback_format::pack::{PackContents, Trailer};
use putback_format::segment::{Segment, SegmentPack};
use putback_store::{ObjectInfo, ObjectPath};

use super::packs::MARK_IT;
use super::{Reading, RepairOptions, RepairPlan, RepairReport, read_twice};
use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::observe::{Amount, Event, Observer, Phase};
use crate::workers::{ask_for_each, workers_for_requests};
use crate::{Repository, layout};

/// Packs whose tables are in memory at once, beside those of the segment that is being filled.
const PACKS_AT_ONCE: usize = 64;

/// What will be done to the index.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Packs to name.
    packs: Vec<PackId>,
    /// Damaged segments.
    replaced: Vec<SegmentId>,
    /// Packs that writers must not rely on from now on.
    marked: Vec<PackId>,
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.replaced.is_empty() && self.marked.is_empty()
    }
}

/// What readable segments say.
#[derive(Default)]
struct Named {
    /// Digests of what is said of each pack; as a rule one.
    packs: HashMap<PackId, Vec<[u8; 32]>>,
    tombstones: IdSet<PackId>,
}

/// What is wrong with the end of a pack, or with what is said of it.
enum Found {
    /// It cannot be read.
    Unreadable { message: String, is_named: bool },
    /// No segment names it.
    Unnamed { blobs: usize, is_whole: bool },
    /// Segments say something else.
    Contradicted,
}

/// A digest of all that a reader needs of a pack, its size and CRC-32 apart.
fn digest(salt: &[u8; 32], epoch: u32, contents: &PackContents) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(salt).update(&epoch.to_le_bytes()).update(&[contents.kind as u8]);
    for frame in &contents.frames {
        hasher.update(&frame.stored_length.to_le_bytes());
        hasher.update(&frame.plain_length.to_le_bytes());
        hasher.update(&frame.blobs.to_le_bytes());
        hasher.update(&[frame.codec as u8]);
    }
    for (id, length) in contents.ids.iter().zip(&contents.lengths) {
        hasher.update(id.as_bytes()).update(&length.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Repository {
    pub(super) fn plan_segments(
        &self,
        options: &RepairOptions,
        observer: &dyn Observer,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let fresh = self.with_fresh_index(false);
        let mut named = Named::default();
        let mut damaged: BTreeMap<SegmentId, String> = BTreeMap::new();
        let mut replaced: BTreeSet<SegmentId> = BTreeSet::new();
        let listed = fresh.list_segments()?;
        let total = Amount { items: listed.len() as u64, bytes: 0 };
        observer.event(Event::PhaseStarted { phase: Phase::Index, total: Some(total) });
        for id in listed {
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match read_twice(|| fresh.read_segment(&id))? {
                Reading::Good(segment) => {
                    named.tombstones.extend(&segment.tombstones);
                    replaced.extend(&segment.replaces);
                    for pack in &segment.packs {
                        let said = named.packs.entry(pack.id).or_default();
                        let digest = digest(&pack.salt, pack.epoch, &pack.contents);
                        if !said.contains(&digest) {
                            said.push(digest);
                        }
                    }
                }
                // A compactor has deleted it, and what it said is in another one.
                Reading::Missing => {}
                Reading::Damaged(message) => drop(damaged.insert(id, message)),
            }
            let by = Amount { items: 1, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::Index, by });
        }
        // These go with the next compaction; what they said is known.
        damaged.retain(|id, _| !replaced.contains(id));
        for (id, message) in damaged {
            let remedy = "write a segment that names its packs and stands for it";
            plan.find(layout::segment(&id), message, Some(remedy.to_owned()), Vec::new());
            plan.segments.replaced.push(id);
        }
        self.plan_packs_of_index(&fresh, &named, options, observer, plan)
    }

    fn plan_packs_of_index(
        &self,
        fresh: &Self,
        named: &Named,
        options: &RepairOptions,
        observer: &dyn Observer,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let listed: BTreeMap<PackId, ObjectInfo> = fresh
            .store()
            .list(layout::PACKS)?
            .into_iter()
            .filter_map(|info| Some((info.path.name().parse().ok()?, info)))
            .collect();
        // One that cannot be read goes too, whatever it said.
        let marked = fresh.readable_marks()?.packs;
        let total = Amount { items: listed.len() as u64, bytes: 0 };
        observer.event(Event::PhaseStarted { phase: Phase::CheckPacks, total: Some(total) });
        let (mut to_read, mut known) = (Vec::new(), 0);
        for (id, info) in &listed {
            // Of a marked pack it is enough that readers find it.
            let is_known = marked.contains(id) && named.packs.contains_key(id);
            if named.tombstones.contains(id) || is_known {
                known += 1;
            } else {
                to_read.push((id, info));
            }
        }
        let advance = |items| {
            let by = Amount { items, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::CheckPacks, by });
        };
        advance(known);
        let workers = workers_for_requests(fresh.store().as_ref(), options.workers);
        let found = ask_for_each(&to_read, workers, &options.cancel, |(id, info)| {
            let found = fresh.look_at_pack(id, info, named.packs.get(*id))?;
            advance(1);
            Ok(found)
        })?;
        for ((id, info), found) in to_read.into_iter().zip(found) {
            if let Some(found) = found {
                Self::plan_pack_of_index(*id, &info.path, found, plan);
            }
        }
        let is_missing = |id: &&PackId| !listed.contains_key(id) && !named.tombstones.contains(*id);
        let mut missing: Vec<&PackId> = named.packs.keys().filter(is_missing).collect();
        missing.sort();
        let loses_tombstones = !plan.segments.replaced.is_empty();
        missing.retain(|id| !marked.contains(*id));
        // A segment that this machine read before it was damaged lives on in its own index.
        let known_here = match self.load_index() {
            Ok(()) => self.index().packs(),
            Err(error) => error.into_damage().map(|_| Vec::new())?,
        };
        for (_, id) in known_here {
            let is_explained = named.tombstones.contains(&id) || marked.contains(&id);
            if is_explained || listed.contains_key(&id) || named.packs.contains_key(&id) {
                continue;
            }
            let message = "it is missing, and only the index of this machine still names it";
            plan.find(layout::pack(&id), message, Some(MARK_IT.to_owned()), Vec::new());
            plan.segments.marked.push(id);
        }
        for id in missing {
            // It may be that a tombstone was in a segment that is damaged.
            let remedy = loses_tombstones.then(|| MARK_IT.to_owned());
            if loses_tombstones {
                plan.segments.marked.push(*id);
            }
            let message = match loses_tombstones {
                true => "it is missing, and a segment that may explain it is damaged",
                false => "it is missing; repair packs",
            };
            plan.find(layout::pack(id), message, remedy, Vec::new());
        }
        Ok(())
    }

    /// Notes what is to be done about one pack.
    fn plan_pack_of_index(id: PackId, path: &ObjectPath, found: Found, plan: &mut RepairPlan) {
        let (message, remedy) = match found {
            Found::Unreadable { message, is_named: true } => {
                (format!("{message}; the index still names it; repair packs"), None)
            }
            Found::Unreadable { message, is_named: false } => {
                (format!("{message}; no segment names it, so nothing of it can be read"), None)
            }
            Found::Unnamed { blobs, is_whole } => {
                let mut message = format!("no index segment names it; it holds {blobs} blobs");
                let mut remedy = "name it".to_owned();
                if !is_whole {
                    message.push_str(", and its bytes do not match its name");
                    remedy.push_str(", and mark it; then repair packs");
                    plan.segments.marked.push(id);
                }
                plan.segments.packs.push(id);
                (message, Some(remedy))
            }
            Found::Contradicted => {
                plan.packs.bad.push(id);
                let remedy = "store its blobs anew, then mark it".to_owned();
                ("an index segment contradicts its header".to_owned(), Some(remedy))
            }
        };
        plan.find(path, message, remedy, Vec::new());
    }

    /// Reads the end of a pack and compares it with what segments say; none if all is well, or prune has removed it.
    fn look_at_pack(
        &self,
        id: &PackId,
        info: &ObjectInfo,
        said: Option<&Vec<[u8; 32]>>,
    ) -> Result<Option<Found>> {
        let (trailer, contents) = match read_twice(|| self.read_pack_contents(id, info.size))? {
            Reading::Good(end) => end,
            Reading::Missing => return self.check_gone(id).map(|()| None),
            Reading::Damaged(message) => {
                return Ok(Some(Found::Unreadable { message, is_named: said.is_some() }));
            }
        };
        let Some(said) = said else {
            let blobs = contents.ids.len();
            let (_, is_whole) = self.describe_pack(id, info, trailer, contents)?;
            return Ok(Some(Found::Unnamed { blobs, is_whole }));
        };
        let is_right = *said == [digest(&trailer.salt, trailer.epoch, &contents)];
        Ok((!is_right).then_some(Found::Contradicted))
    }

    /// What a segment says of a pack with this end, and whether its bytes are those of its name as far as the store
    /// can be asked for that.
    fn describe_pack(
        &self,
        id: &PackId,
        info: &ObjectInfo,
        trailer: Trailer,
        contents: PackContents,
    ) -> Result<(SegmentPack, bool)> {
        let is_remote = self.store().capabilities().is_remote;
        let (crc32, is_whole) = match (is_remote, info.crc32) {
            (true, Some(crc32)) => (crc32, true),
            _ => match read_twice(|| self.hash_pack(id, info.size))? {
                Reading::Good((hash, crc32)) => (crc32, hash == *id.as_bytes()),
                // The rest of it may open; what the store says it has is as good as anything.
                Reading::Missing | Reading::Damaged(_) => (info.crc32.unwrap_or(0), false),
            },
        };
        let (salt, epoch, size) = (trailer.salt, trailer.epoch, info.size);
        Ok((SegmentPack { id: *id, salt, epoch, crc32, size, contents }, is_whole))
    }

    pub(super) fn repair_segments(
        &self,
        steps: &Steps,
        options: &RepairOptions,
        observer: &dyn Observer,
        report: &mut RepairReport,
    ) -> Result<()> {
        self.mark_packs(&steps.marked, report)?;
        if !steps.packs.is_empty() {
            let total = Amount { items: steps.packs.len() as u64, bytes: 0 };
            observer.event(Event::PhaseStarted { phase: Phase::Index, total: Some(total) });
        }
        let mut segment = Segment::default();
        let mut bytes = 0;
        for group in steps.packs.chunks(PACKS_AT_ONCE) {
            for pack in self.describe_packs(group, steps, options, observer)? {
                let length = Segment::pack_encoded_length(&pack.contents);
                if bytes > 0 && bytes + length > SEGMENT_BYTES_TARGET as usize {
                    self.write_found_segment(std::mem::take(&mut segment), report)?;
                    bytes = 0;
                }
                bytes += length;
                segment.packs.push(pack);
            }
        }
        // Only the last one stands for the damaged ones: all together say what these said.
        segment.replaces.clone_from(&steps.replaced);
        segment.replaces.sort();
        if segment != Segment::default() {
            self.write_found_segment(segment, report)?;
        }
        Ok(())
    }

    /// What segments are to say of these packs, in their order, without those that prune has removed and those
    /// that have become worse than the plan knows.
    fn describe_packs(
        &self,
        packs: &[PackId],
        steps: &Steps,
        options: &RepairOptions,
        observer: &dyn Observer,
    ) -> Result<Vec<SegmentPack>> {
        let workers = workers_for_requests(self.store().as_ref(), options.workers);
        let described = ask_for_each(packs, workers, &options.cancel, |id| {
            let pack = match self.store().stat(&layout::pack(id)) {
                Ok(info) => {
                    let (trailer, contents) = self.read_pack_contents(id, info.size)?;
                    let (pack, is_whole) = self.describe_pack(id, &info, trailer, contents)?;
                    let is_as_planned = is_whole || steps.marked.contains(id);
                    if !is_as_planned {
                        let message = format!(
                            "{} cannot be read any more and was left out; repair the index again",
                            layout::pack(id)
                        );
                        observer.event(Event::Warning { message: &message });
                    }
                    is_as_planned.then_some(pack)
                }
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            let by = Amount { items: 1, bytes: 0 };
            observer.event(Event::Advanced { phase: Phase::Index, by });
            Ok(pack)
        })?;
        Ok(described.into_iter().flatten().collect())
    }

    fn write_found_segment(&self, segment: Segment, report: &mut RepairReport) -> Result<()> {
        let (id, _) = self.write_segment(&segment)?;
        if self.read_segment(&id)? != segment {
            return Err(Error::Damaged {
                object: format!("{}, just written,", layout::segment(&id)),
                source: None,
            });
        }
        report.segments_written += 1;
        report.packs_indexed += segment.packs.len() as u64;
        Ok(())
    }

    /// Takes packs away from writers for ever.
    pub(super) fn mark_packs(&self, packs: &[PackId], report: &mut RepairReport) -> Result<()> {
        let sorted: BTreeSet<PackId> = packs.iter().copied().collect();
        let sorted: Vec<PackId> = sorted.into_iter().collect();
        for part in sorted.chunks(MARK_PACKS_MAX) {
            self.write_mark(MarkKind::Packs(part.to_vec()))?;
            report.packs_marked += part.len() as u64;
        }
        Ok(())
    }
}
