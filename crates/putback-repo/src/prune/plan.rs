//! What is needed, and what to do about the rest: step 1.
//!
//! Reads snapshots, tree pages and the index; changes nothing.

use std::collections::BTreeSet;

use putback_format::id::{BlobId, PackId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::tree::Timestamp;
use putback_store::ObjectInfo;

use super::{MaxUnused, PruneReport, Run, is_older};
use crate::error::{Error, Result};
use crate::index::{IdSet, LiveSet, Liveness, PackNumber, PackUse};
use crate::index_table::PackRecord;
use crate::layout;
use crate::observe::{Amount, Event, Phase};

/// A pack below this share of a full one is small.
const SMALL_SHARE: u64 = 4;

/// A pack of the index.
pub(super) struct Candidate {
    pub(super) number: PackNumber,
    pub(super) record: PackRecord,
    pub(super) used: PackUse,
}

impl Candidate {
    pub(super) fn plain_bytes(&self) -> u64 {
        self.record.frames.iter().map(|frame| u64::from(frame.plain_length)).sum()
    }

    /// Stored bytes that nothing needs, by the pack's own ratio.
    pub(super) fn unused_bytes(&self) -> u64 {
        let plain = self.plain_bytes().max(1);
        let unused = plain.saturating_sub(self.used.plain_bytes);
        u64::try_from(u128::from(self.record.size) * u128::from(unused) / u128::from(plain))
            .unwrap_or(u64::MAX)
    }
}

/// What a plan decided.
pub(super) struct Plan {
    pub(super) unneeded: Vec<Candidate>,
    pub(super) repacked: Vec<Candidate>,
    /// Packs that no segment names, left by runs that broke.
    pub(super) unindexed: Vec<ObjectInfo>,
    pub(super) live: LiveSet,
}

impl Run<'_> {
    /// Which packs are needed, and what to do about the others. None if it was stopped.
    pub(super) fn plan(&self, report: &mut PruneReport) -> Result<Option<Plan>> {
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
    pub(super) fn choose(&self, packs: &mut Vec<Candidate>, needed_bytes: u64) -> Vec<Candidate> {
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
    pub(super) fn unindexed_packs(&self, indexed: &IdSet<PackId>) -> Result<Vec<ObjectInfo>> {
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
}
