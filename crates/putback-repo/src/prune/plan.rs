//! What is needed, and what to do about the rest: step 1.
//!
//! Reads snapshots, tree pages and the index; changes nothing.
//!
//! Memory: a bit for each blob of the index, 32 bytes for each tree page, about 120 for each pack, and 4 for each
//! frame of the packs that are needed in part.

use std::collections::{BTreeMap, BTreeSet};

use putback_format::id::{BlobId, PackId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::limits::{MARK_PACKS_MAX, SEGMENT_BYTES_TARGET};
use putback_format::tree::Timestamp;
use putback_store::ObjectInfo;

use super::repack::is_copied;
use super::{MaxUnused, PruneReport, Run, gone, is_older};
use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::index::{LiveSet, Liveness, PackNumber, PackUse};
use crate::layout;
use crate::observe::{Amount, Event, Phase};
use crate::reader::requests_for;
use crate::requests::Requests;
use crate::snapshots::{Marks, StoredSnapshot, is_void};

/// A pack below this share of a full one is small.
const SMALL_SHARE: u64 = 4;
/// About what a blob takes in a segment.
const SEGMENT_BLOB_BYTES: u64 = 40;

/// A pack of the index.
pub(super) struct Candidate {
    pub(super) number: PackNumber,
    pub(super) id: PackId,
    pub(super) size: u64,
    pub(super) kind: BlobKind,
    pub(super) epoch: u32,
    pub(super) used: PackUse,
    /// Plain bytes of all its frames.
    pub(super) plain_bytes: u64,
    /// Stored bytes that storing it anew gives back: less than what nothing needs, where frames are copied whole.
    pub(super) reclaimable_bytes: u64,
}

impl Candidate {
    /// Stored bytes that nothing needs, by the pack's own ratio.
    pub(super) fn unused_bytes(&self) -> u64 {
        let plain = self.plain_bytes.max(1);
        share(self.size, plain.saturating_sub(self.used.plain_bytes), plain)
    }
}

/// `bytes * part / whole`.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What a plan decided.
pub(super) struct Plan {
    pub(super) unneeded: Vec<Candidate>,
    pub(super) repacked: Vec<Candidate>,
    /// Packs that no segment names, left by runs that broke.
    pub(super) unindexed: Vec<ObjectInfo>,
    pub(super) live: LiveSet,
    /// Requests to store anew what is repacked, and to name it.
    pub(super) requests: Requests,
}

/// What a plan begins with.
pub(super) struct Snapshots {
    /// Those that count.
    counted: Vec<StoredSnapshot>,
    /// Checkpoints that are void and will be forgotten.
    pub(super) void: Vec<StoredSnapshot>,
    /// Says which ones are gone without having been forgotten, if any are.
    pub(super) gone: Option<String>,
    /// How many are forgotten and still there.
    pub(super) forgotten: usize,
}

/// How many plain bytes of each frame are needed, of packs that are needed in part.
type FrameUses = BTreeMap<PackNumber, Vec<u32>>;

impl Run<'_> {
    /// All snapshots that there are now.
    pub(super) fn snapshots(&self, marks: &Marks) -> Result<Snapshots> {
        let repository = self.repository;
        let (forgotten, ids): (Vec<_>, Vec<_>) = repository
            .list_snapshot_ids()?
            .into_iter()
            .partition(|id| marks.forgotten.contains(id));
        let all = repository.read_every(ids.iter())?;
        let gone = gone(&all, marks, &self.seen);
        let void: BTreeSet<SnapshotId> = all
            .iter()
            .filter(|stored| !stored.snapshot.complete && is_void(&stored.snapshot, &all))
            .map(|stored| stored.id)
            .collect();
        let (void, mut counted): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|stored| void.contains(&stored.id));
        let taken = &self.options.taken_for_forgotten;
        counted.retain(|stored| !(self.options.dry_run && taken.contains(&stored.id)));
        Ok(Snapshots { counted, void, gone, forgotten: forgotten.len() })
    }

    /// Which packs are needed, and what to do about the others. None if it was stopped.
    pub(super) fn plan(
        &self,
        snapshots: &Snapshots,
        report: &mut PruneReport,
    ) -> Result<Option<Plan>> {
        let repository = self.repository;
        let index = repository.index();
        let listed = repository.store().list(layout::PACKS)?;
        self.avoid_unlisted(&listed);
        report.snapshots = snapshots.counted.len() as u64;
        let Some((live, needed)) = self.needed(&snapshots.counted, &listed)? else {
            return Ok(None);
        };
        report.blobs_needed = needed;

        (report.packs, report.bytes) = (0, 0);
        let mut unneeded = Vec::new();
        let mut partly = Vec::new();
        let mut frames = Vec::new();
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
            let plain_bytes = record.frames.iter().map(|frame| u64::from(frame.plain_length)).sum();
            let (size, kind, epoch) = (record.size, record.kind, record.epoch);
            let reclaimable_bytes = 0;
            let candidate =
                Candidate { number, id, size, kind, epoch, used, plain_bytes, reclaimable_bytes };
            let unused_bytes = candidate.unused_bytes();
            needed_bytes += size - unused_bytes;
            if used.blobs == 0 {
                unneeded.push(candidate);
            } else {
                if unused_bytes > 0 {
                    frames.push((number, record.frames.len()));
                }
                partly.push(candidate);
            }
        }
        let frame_uses = index.frame_uses(&live, frames)?;
        for pack in &mut partly {
            if let Some(uses) = frame_uses.get(&pack.number) {
                pack.reclaimable_bytes = self.reclaimable(pack, uses)?;
            }
        }
        let repacked = self.choose(&mut partly, needed_bytes);
        self.count_old_packs(&partly, report);
        report.packs_partly_needed =
            partly.iter().filter(|pack| pack.unused_bytes() > 0).count() as u64;
        // A reader may have loaded the index again meanwhile.
        known.extend(index.packs().into_iter().map(|(_, id)| id));
        let unindexed = self.unindexed_packs(listed, &known);
        let marked = unneeded.len() + repacked.len() + unindexed.len();
        let mut requests = self.requests_to_repack(&repacked, &frame_uses)?;
        requests.writes += marked.div_ceil(MARK_PACKS_MAX) as u64;
        Ok(Some(Plan { unneeded, repacked, unindexed, live, requests }))
    }

    /// Packs that the store does not list are not relied on: where no lock helps, they may only be new.
    fn avoid_unlisted(&self, listed: &[ObjectInfo]) {
        let listed: IdSet<PackId> =
            listed.iter().filter_map(|info| info.path.name().parse().ok()).collect();
        let index = self.repository.index();
        let packs = index.packs().into_iter().map(|(_, id)| id);
        index.avoid(packs.filter(|id| !listed.contains(id)).collect());
    }

    /// Which blobs these snapshots need, and how many. None if it was stopped.
    ///
    /// A blob that no pack has which can be read ends the run: whoever wrote the snapshot relied on it, so
    /// something is lost, and nothing should go as long as it may be needed to mend that.
    fn needed(
        &self,
        snapshots: &[StoredSnapshot],
        listed: &[ObjectInfo],
    ) -> Result<Option<(LiveSet, u64)>> {
        let repository = self.repository;
        let index = repository.index();
        let mut live = index.live_set();
        let mut readable: IdSet<PackId> =
            listed.iter().filter_map(|info| info.path.name().parse().ok()).collect();
        // What lies in marked packs only has no bit there; it is stored anew when these go.
        let mut marked = IdSet::default();
        let mut needed = 0;
        let mut note = |_, id: &BlobId| {
            let is_new = match index.note_live(&mut live, id)? {
                Liveness::New => true,
                Liveness::Known => false,
                Liveness::Missing if marked.contains(id) => false,
                Liveness::Missing if self.is_readable(id, &mut readable)? => marked.insert(*id),
                Liveness::Missing => return Err(Error::BlobUnknown { blob: *id }),
            };
            needed += u64::from(is_new);
            Ok(is_new)
        };
        let total = Amount { items: snapshots.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckTrees, total: Some(total) });
        for stored in snapshots {
            match repository.walk_blobs(&stored.snapshot.root, &self.options.cancel, &mut note) {
                Err(Error::Cancelled) => return Ok(None),
                Err(Error::BlobUnknown { blob }) => {
                    return Err(Error::BlobMissing { blob, snapshot: stored.id });
                }
                walked => walked?,
            }
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::CheckTrees, by });
        }
        Ok(Some((live, needed)))
    }

    /// Whether some pack that is there has this blob. Listings may lag behind, so a pack that none shows is asked for.
    fn is_readable(&self, id: &BlobId, readable: &mut IdSet<PackId>) -> Result<bool> {
        let index = self.repository.index();
        for location in index.find_all(id)? {
            let Some(pack) = index.pack_id(location.pack) else { continue };
            if readable.contains(&pack) {
                return Ok(true);
            }
            match self.repository.store().stat(&layout::pack(&pack)) {
                Ok(_) => return Ok(readable.insert(pack)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Stored bytes that are given back when a pack is stored anew.
    fn reclaimable(&self, pack: &Candidate, uses: &[u32]) -> Result<u64> {
        if self.options.purge {
            return Ok(pack.unused_bytes());
        }
        let frame_bytes = self.repository.config().frame_bytes;
        let record = self.repository.pack(pack.number)?;
        let frames = record.frames.iter().zip(uses).filter(|(frame, live_bytes)| {
            **live_bytes < frame.plain_length && !is_copied(frame, **live_bytes, frame_bytes)
        });
        let given_back = frames.map(|(frame, live_bytes)| {
            let unused = frame.plain_length - live_bytes;
            share(frame.stored_length.into(), unused.into(), frame.plain_length.into())
        });
        Ok(given_back.sum())
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
        // The emptiest first: they give the most room for the least work. Of those that give none, storing anew
        // would never come to an end.
        packs.sort_by_key(|pack| {
            std::cmp::Reverse(share(1_000_000, pack.reclaimable_bytes, pack.size))
        });
        let mut unused: u64 = packs.iter().map(Candidate::unused_bytes).sum();
        let mut left = options.max_repack.unwrap_or(u64::MAX);
        let (mut chosen, mut kept) = (Vec::new(), Vec::new());
        for pack in packs.drain(..) {
            let is_worth_it = (pack.reclaimable_bytes > 0 && unused > allowed)
                || (options.rewrite_epoch && self.has_old_key(&pack));
            if is_worth_it && pack.size <= left {
                left -= pack.size;
                unused = unused.saturating_sub(pack.reclaimable_bytes);
                chosen.push(pack);
            } else {
                kept.push(pack);
            }
        }
        let full = self.repository.config().pack_bytes;
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let is_small = |pack: &Candidate| pack.kind == kind && pack.size < full / SMALL_SHARE;
            let (count, bytes) = kept
                .iter()
                .filter(|pack| is_small(pack))
                .fold((0_u64, 0), |(count, bytes), pack| (count + 1, bytes + pack.size));
            // Joining them pays when it makes full packs, or many fewer.
            if count > 1 && (options.repack_small || bytes >= full || count >= 64) {
                let mut others = Vec::new();
                for pack in kept {
                    if is_small(&pack) && pack.size <= left {
                        left -= pack.size;
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
    fn unindexed_packs(&self, listed: Vec<ObjectInfo>, indexed: &IdSet<PackId>) -> Vec<ObjectInfo> {
        let index = self.repository.index();
        let (mut now, grace) = (self.repository.now(), self.grace());
        if !self.is_consistent() {
            // This machine's clock may be ahead: it is no later than that by the store's, as far as is known.
            let times =
                listed.iter().filter_map(|info| Timestamp::from_system_time(info.modified?));
            now = now.min(times.max().unwrap_or(now));
        }
        listed
            .into_iter()
            .filter(|info| {
                let written = info.modified.and_then(Timestamp::from_system_time);
                let is_old = written.is_some_and(|written| is_older(written, now, grace));
                let id = info.path.name().parse::<PackId>();
                is_old && id.is_ok_and(|id| !indexed.contains(&id) && !index.is_avoided(&id))
            })
            .collect()
    }

    /// What reading these packs and writing new ones takes: exact for what is read, an estimate for the rest.
    fn requests_to_repack(&self, packs: &[Candidate], uses: &FrameUses) -> Result<Requests> {
        let mut requests = Requests::default();
        if !self.options.dry_run || packs.is_empty() {
            return Ok(requests);
        }
        let repository = self.repository;
        for pack in packs {
            let record = repository.pack(pack.number)?;
            let uses = uses.get(&pack.number);
            let frames: Vec<u32> = (0..record.frames.len() as u32)
                .filter(|frame| uses.is_none_or(|uses| uses[*frame as usize] > 0))
                .collect();
            requests.reads += requests_for(repository, &record, &frames);
        }
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let packs = packs.iter().filter(|pack| pack.kind == kind);
            let bytes: u64 = packs.map(|pack| pack.size - pack.reclaimable_bytes).sum();
            requests.writes += bytes.div_ceil(repository.config().pack_bytes);
        }
        let blobs: u64 = packs.iter().map(|pack| pack.used.blobs).sum();
        requests.writes += (blobs * SEGMENT_BLOB_BYTES).div_ceil(SEGMENT_BYTES_TARGET.into());
        Ok(requests)
    }
}
