//! Which entries of the index are needed, for prune.
//!
//! [`LiveSet`] has a bit for each entry, so that 10^8 of them take 12 MiB. Who notes every blob that something
//! needs is told by [`Index::pack_uses`] and [`Index::frame_uses`] how much of each pack and frame that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use putback_format::id::{BlobId, PackId};

use super::{BlobLocation, Index, OpenTable, PackNumber};
use crate::error::Result;
use crate::index_table::TableEntry;

/// Entries that are needed: a bit for each.
pub(crate) struct LiveSet {
    /// Tables at the time of [`Index::live_set`], and their bits. What came later is neither needed nor unneeded.
    tables: Vec<(Arc<OpenTable>, Vec<u64>)>,
}

/// What became of a blob that something needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It is needed, which was not known before.
    New,
    /// That was known.
    Known,
    /// No pack that will stay has it.
    Missing,
}

fn contains(bits: &[u64], number: u64) -> bool {
    bits.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
}

/// How much of a pack is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackUse {
    /// Blobs that are.
    pub(crate) blobs: u64,
    /// Their plain bytes.
    pub(crate) plain_bytes: u64,
    /// Blobs that it holds, needed or not.
    pub(crate) blobs_all: u64,
}

/// A blob in a pack, and whether this copy of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedBlob {
    pub(crate) id: BlobId,
    pub(crate) at: BlobLocation,
    pub(crate) is_live: bool,
}

impl Index {
    /// A set that no entry is in yet.
    pub(crate) fn live_set(&self) -> LiveSet {
        let words = |open: &Arc<OpenTable>| open.table.entries().div_ceil(64) as usize;
        let state = self.state();
        let tables = state.tables.iter().map(|open| (Arc::clone(open), vec![0; words(open)]));
        LiveSet { tables: tables.collect() }
    }

    /// Notes that a blob is needed; of several copies one is, and that of a pack that will stay.
    ///
    /// # Errors
    /// [`Error::Local`](crate::Error::Local) if the local tables cannot be read.
    pub(crate) fn note_live(&self, live: &mut LiveSet, id: &BlobId) -> Result<Liveness> {
        let state = self.state();
        for (open, bits) in &mut live.tables {
            let mut at = None;
            let found = open.table.find(id, |number, entry| {
                let pack = open.ids().get(entry.pack as usize);
                let stays = pack.is_some_and(|pack| {
                    !state.marked.contains(pack) && !state.tombstoned.contains(pack)
                });
                if stays {
                    at = Some(number);
                }
                stays
            });
            found.map_err(|error| self.torn_or_local(error))?;
            if let Some(number) = at {
                let word = &mut bits[(number / 64) as usize];
                let bit = 1 << (number % 64);
                let liveness = if *word & bit == 0 { Liveness::New } else { Liveness::Known };
                *word |= bit;
                return Ok(liveness);
            }
        }
        Ok(Liveness::Missing)
    }

    /// How much of each pack is needed, by table and number. Reads all tables once.
    ///
    /// # Errors
    /// [`Error::Local`](crate::Error::Local) if the local tables cannot be read.
    pub(crate) fn pack_uses(&self, live: &LiveSet) -> Result<Vec<(PackNumber, PackId, PackUse)>> {
        let mut all = Vec::new();
        for (open, bits) in &live.tables {
            let mut uses = vec![PackUse::default(); open.ids().len()];
            let entries = open.table.iter().map_err(self.local_error())?;
            for (number, entry) in (0..).zip(entries) {
                let entry = entry.map_err(self.local_error())?;
                let Some(used) = uses.get_mut(entry.pack as usize) else { continue };
                used.blobs_all += 1;
                if contains(bits, number) {
                    used.blobs += 1;
                    used.plain_bytes += u64::from(entry.length);
                }
            }
            all.extend(open.packs().zip(uses).map(|((number, id), used)| (number, *id, used)));
        }
        Ok(all)
    }

    /// How many plain bytes of each frame are needed, for packs given with their number of frames. Reads all
    /// tables once.
    ///
    /// # Errors
    /// [`Error::Local`](crate::Error::Local) if the local tables cannot be read.
    pub(crate) fn frame_uses(
        &self,
        live: &LiveSet,
        packs: impl IntoIterator<Item = (PackNumber, usize)>,
    ) -> Result<BTreeMap<PackNumber, Vec<u32>>> {
        let mut uses: BTreeMap<PackNumber, Vec<u32>> =
            packs.into_iter().map(|(pack, frames)| (pack, vec![0; frames])).collect();
        self.each_entry(live, |pack, is_live, entry| {
            if is_live
                && let Some(frames) = uses.get_mut(&pack)
                && let Some(bytes) = frames.get_mut(entry.frame as usize)
            {
                // The blobs of a frame have at most its plain length together.
                *bytes = bytes.saturating_add(entry.length);
            }
        })?;
        Ok(uses)
    }

    /// All blobs of some packs, `count` together, sorted by pack and place. Reads all tables once.
    ///
    /// # Errors
    /// [`Error::Local`](crate::Error::Local) if the local tables cannot be read.
    pub(crate) fn blobs_of(
        &self,
        live: &LiveSet,
        packs: &BTreeSet<PackNumber>,
        count: usize,
    ) -> Result<Vec<PackedBlob>> {
        let mut found = Vec::with_capacity(count);
        self.each_entry(live, |pack, is_live, entry| {
            if packs.contains(&pack) {
                let (frame, offset, length) = (entry.frame, entry.offset, entry.length);
                let at = BlobLocation { pack, frame, offset, length };
                found.push(PackedBlob { id: entry.id, at, is_live });
            }
        })?;
        found.sort_unstable_by_key(|blob| (blob.at.pack, blob.at.frame, blob.at.offset));
        Ok(found)
    }

    /// Hands over every entry, with its pack and whether it is needed.
    fn each_entry(
        &self,
        live: &LiveSet,
        mut each: impl FnMut(PackNumber, bool, TableEntry),
    ) -> Result<()> {
        for (open, bits) in &live.tables {
            let entries = open.table.iter().map_err(self.local_error())?;
            for (number, entry) in (0..).zip(entries) {
                let entry = entry.map_err(self.local_error())?;
                each(open.number(entry.pack), contains(bits, number), entry);
            }
        }
        Ok(())
    }
}
