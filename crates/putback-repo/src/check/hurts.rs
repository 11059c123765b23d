//! Which snapshots are hurt by what is wrong, in how many files, and by what.
//!
//! When something was found wrong, every snapshot is walked again, now for all files that lost something and not only
//! the first one that shows it.
//!
//! Memory: 32 bytes for each page and each blob that is wrong, a few numbers for each snapshot, 8 bytes for each path
//! that is hurt up to a million, and the first 100 paths of each damage that is listed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use putback_format::id::{BlobId, PackId, SnapshotId};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};

use super::{BadFrames, Damage, HurtSnapshot};
use crate::Repository;
use crate::error::Result;
use crate::id_set::IdSet;
use crate::lost::{Inspector, look_for_lost, shown};
use crate::observe::Cancel;
use crate::snapshots::StoredSnapshot;

/// Paths that are listed for one damage.
const HURTS_MAX: usize = 100;
/// Paths that are counted once each, those of all damages together.
const COUNTED_MAX: usize = 1 << 20;

/// Blobs that the walk through all trees found wrong.
#[derive(Default)]
pub(super) struct WrongBlobs {
    pub(super) all: IdSet<BlobId>,
    /// The place of its damage in the report, of those that are listed there.
    pub(super) listed: BTreeMap<BlobId, usize>,
}

/// What one damage hurts.
#[derive(Default)]
struct Hurt {
    paths: Vec<(SnapshotId, Vec<u8>)>,
    total: u64,
    is_least: bool,
}

/// Names and counts what is hurt.
pub(super) struct Hurts<'a> {
    repository: &'a Repository,
    bad: &'a BadFrames,
    wrong: &'a WrongBlobs,
    /// The place of the first damage of each pack.
    packs: BTreeMap<PackId, usize>,
    whole: IdSet<BlobId>,
    /// Why the file in hand is hurt, by places of damages.
    causes: BTreeSet<usize>,
    /// The snapshot in hand, and what it lost so far.
    snapshot: SnapshotId,
    files: u64,
    directories: u64,
    by_damage: BTreeMap<usize, Hurt>,
    counted: HashSet<u64>,
    hasher: RandomState,
    /// Bad packs that hurt anything.
    pub(super) hurting: BTreeSet<PackId>,
}

impl<'a> Hurts<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        bad: &'a BadFrames,
        wrong: &'a WrongBlobs,
        damages: &[Damage],
    ) -> Self {
        let mut packs = BTreeMap::new();
        for (place, damage) in damages.iter().enumerate() {
            if let Some(id) = damage.pack() {
                packs.entry(id).or_insert(place);
            }
        }
        Self {
            repository,
            bad,
            wrong,
            packs,
            whole: IdSet::default(),
            causes: BTreeSet::new(),
            snapshot: SnapshotId::from_bytes([0; 32]),
            files: 0,
            directories: 0,
            by_damage: BTreeMap::new(),
            counted: HashSet::new(),
            hasher: RandomState::new(),
            hurting: BTreeSet::new(),
        }
    }

    /// What a snapshot lost, if anything.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled); those of the local tables; those that are no damage.
    pub(super) fn look_at(
        &mut self,
        stored: &StoredSnapshot,
        cancel: &Cancel,
    ) -> Result<Option<HurtSnapshot>> {
        (self.snapshot, self.files, self.directories) = (stored.id, 0, 0);
        look_for_lost(&stored.snapshot.root, self, cancel)?;
        let (files, directories) = (self.files, self.directories);
        Ok((files + directories > 0).then_some(HurtSnapshot {
            id: stored.id,
            time: Some(stored.snapshot.time),
            files,
            directories,
            is_unreadable: false,
        }))
    }

    /// Writes down for each damage what it hurts.
    pub(super) fn note_in(&mut self, damages: &mut [Damage]) {
        for (place, hurt) in std::mem::take(&mut self.by_damage) {
            if let Some(damage) = damages.get_mut(place) {
                damage.hurts = hurt.paths;
                (damage.hurts_total, damage.hurts_at_least) = (hurt.total, hurt.is_least);
            }
        }
    }

    /// Whether a blob is wrong, or there is no good copy of it; if so, why is noted.
    fn is_bad(&mut self, blob: &BlobId) -> Result<bool> {
        let mut is_bad = self.wrong.all.contains(blob);
        self.causes.extend(self.wrong.listed.get(blob));
        if !self.bad.packs.is_empty() {
            let index = self.repository.index();
            let mut packs = Vec::new();
            for location in index.find_all(blob)? {
                match index.pack_id(location.pack) {
                    Some(id) if self.bad.contains(&id, location.frame) => packs.push(id),
                    _ => return Ok(is_bad),
                }
            }
            is_bad |= !packs.is_empty();
            for pack in packs {
                self.hurting.insert(pack);
                self.causes.extend(self.packs.get(&pack));
            }
        }
        Ok(is_bad)
    }

    /// Whether all is there. What is not is noted, to the last blob: each may hang on another damage.
    fn are_there(&mut self, refs: &[ChunkRef], level: u8) -> Result<bool> {
        let mut is_whole = true;
        for one in refs {
            if level > 0 && self.whole.contains(&one.id) {
                continue;
            }
            if self.is_bad(&one.id)? {
                is_whole = false;
                continue;
            }
            if level > 0 {
                let is_there = match self.repository.read_list_page(one, level) {
                    Ok(refs) => self.are_there(&refs, level - 1)?,
                    // It could be read a moment ago.
                    Err(error) => error.into_damage().map(|_| false)?,
                };
                if is_there {
                    self.whole.insert(one.id);
                }
                is_whole &= is_there;
            }
        }
        Ok(is_whole)
    }

    /// Notes a path under each of its causes; in many snapshots it counts once.
    fn note(&mut self, path: &[u8]) {
        for cause in std::mem::take(&mut self.causes) {
            let hurt = self.by_damage.entry(cause).or_default();
            let key = self.hasher.hash_one((cause, path));
            if self.counted.contains(&key) {
                continue;
            }
            if self.counted.len() >= COUNTED_MAX {
                hurt.is_least = true;
                continue;
            }
            self.counted.insert(key);
            hurt.total += 1;
            if hurt.paths.len() < HURTS_MAX {
                hurt.paths.push((self.snapshot, shown(path)));
            }
        }
    }
}

impl Inspector for Hurts<'_> {
    fn whole(&mut self) -> &mut IdSet<BlobId> {
        &mut self.whole
    }

    fn page(&mut self, page: &BlobId, path: &[u8]) -> Result<Option<Vec<Entry>>> {
        let entries = match self.is_bad(page)? {
            true => None,
            false => match self.repository.read_page(page) {
                Err(error) => error.into_damage().map(|_| None)?,
                entries => entries.ok(),
            },
        };
        if entries.is_none() {
            self.directories += 1;
            self.note(path);
        }
        Ok(entries)
    }

    fn is_file_there(&mut self, file: &Entry, path: &[u8]) -> Result<bool> {
        let EntryKind::File { content, .. } = &file.kind else { return Ok(true) };
        let is_there = match content {
            Content::Inline(_) => true,
            Content::Chunks(chunks) => self.are_there(chunks, 0)?,
            Content::Lists { depth, pages } => self.are_there(pages, *depth)?,
        };
        if !is_there {
            self.files += 1;
            self.note(path);
        }
        Ok(is_there)
    }
}
