//! Where is this blob, and is it stored already?
//!
//! [`Index::load`] brings the local tables up to date with the store's segments;
//! [`Index::find`] answers readers; [`Index::claim`] lets exactly one worker store a new blob.
//! The tables are a cache: `index_table.rs` says how they look, `index/manifest.rs` where they lie, and everything
//! here works the same after they were deleted. `index/live.rs` is for prune.
//!
//! Memory: 8 bytes for 85 blobs of the tables, 32 for each pack, and about 40 for each blob of this
//! run that no segment names yet (bounded by the writer, which ends a segment at 8 MiB).
//!
//! Writers do not reuse what lies in marked or tombstoned packs; readers do not see the tombstoned.

mod live;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use putback_format::id::{BlobId, PackId, RepositoryId, SegmentId};
use putback_format::segment::Segment;
use putback_store::ObjectInfo;

pub(crate) use self::live::{LiveSet, Liveness, PackUse, PackedBlob};
use self::manifest::{Manifest, discard, lock_directory, table_name};
use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::index_load::{Gather, Replacements, Unread, is_gone_or_damaged};
use crate::index_table::{self, PackRecord, Table};

/// A table is merged with the one before unless that is this many times larger.
const TIER_FACTOR: u64 = 4;
/// Tables of up to this many entries, 48 MiB, are read through before they are used: that takes a few
/// milliseconds. Damage in larger ones is noticed when a look-up meets it.
const VERIFIED_ENTRIES: u64 = 1 << 20;
/// Claims are spread over this many locks.
const SHARDS: usize = 64;

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLocation {
    /// The pack, by a number that is valid as long as the index is open.
    pub pack: PackNumber,
    /// The frame in the pack.
    pub frame: u32,
    /// Where the blob begins in the plain bytes of the frame.
    pub offset: u32,
    /// Its plain length.
    pub length: u32,
}

/// A pack, by the serial number of its table and the number in that. It stays valid when tables are merged or
/// made anew; the same pack may have another number then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber {
    table: u32,
    number: u32,
}

pub(crate) struct OpenTable {
    /// No other table of this index has or had it.
    serial: u32,
    pub(crate) table: Table,
    /// Packs that the snapshot being written needs, one bit each.
    needed: Vec<AtomicU64>,
}

impl OpenTable {
    pub(crate) fn new(table: Table) -> Self {
        let needed = (0..table.pack_ids().len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { serial: 0, table, needed }
    }

    pub(crate) fn ids(&self) -> &[PackId] {
        self.table.pack_ids()
    }

    fn number(&self, number: u32) -> PackNumber {
        PackNumber { table: self.serial, number }
    }

    /// Packs that are needed.
    fn needed_ids(&self) -> impl Iterator<Item = PackId> {
        let is_needed = |number: usize| {
            self.needed[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 == 1
        };
        (0..).zip(self.ids()).filter(move |(number, _)| is_needed(*number)).map(|(_, id)| *id)
    }

    /// All packs, by number.
    fn packs(&self) -> impl Iterator<Item = (PackNumber, &PackId)> {
        (0..).zip(self.ids()).map(|(number, id)| (self.number(number), id))
    }
}

#[derive(Default)]
struct State {
    tables: Vec<Arc<OpenTable>>,
    numbers: Numbers,
    /// Segments whose packs the tables hold.
    covered: BTreeSet<SegmentId>,
    /// What these say of others. It outlives what was replaced: a listing may show that again.
    replacements: Replacements,
    /// The rows of the last listing of the segments.
    listing: Vec<ObjectInfo>,
    marked: IdSet<PackId>,
    tombstoned: IdSet<PackId>,
    /// Needed packs of tables that were merged or dropped since: a reader may load the index beside a writer.
    needed_before: IdSet<PackId>,
}

impl State {
    /// Takes other tables with what they cover. What does not come from segments stays.
    fn begin_anew(&mut self, new: Self) {
        self.needed_before.extend(self.tables.iter().flat_map(|open| open.needed_ids()));
        self.numbers.dropped.append(&mut self.tables);
        let Self { tables, covered, replacements, tombstoned, .. } = new;
        (self.covered, self.replacements, self.tombstoned) = (covered, replacements, tombstoned);
        tables.into_iter().filter_map(Arc::into_inner).for_each(|table| self.push(table));
    }

    /// Adds a table.
    fn push(&mut self, table: OpenTable) {
        self.numbers.serials += 1;
        let serial = self.numbers.serials;
        self.tables.push(Arc::new(OpenTable { serial, ..table }));
    }

    /// Where a pack is now.
    fn resolve(&self, pack: PackNumber) -> Option<(&Arc<OpenTable>, u32)> {
        let PackNumber { mut table, mut number } = pack;
        while let Some((merged, before)) = self.numbers.moved.get(&table) {
            (table, number) = (*merged, number + before);
        }
        let mut all = self.tables.iter().chain(&self.numbers.dropped);
        Some((all.find(|open| open.serial == table)?, number))
    }

    /// Whether every covered segment is listed, or replaced by one that is and can be read.
    fn explains(&self, listed: &BTreeSet<SegmentId>, news: &News) -> bool {
        let gone: Vec<&SegmentId> = self.covered.difference(listed).collect();
        if gone.is_empty() {
            return true;
        }
        let mut replacements = self.replacements.clone();
        replacements.0.extend(news.replacements.0.clone());
        let roots = self.covered.intersection(listed).chain(&news.read);
        let replaced = replacements.replaced_by(roots);
        gone.iter().all(|id| replaced.contains(id))
    }
}

/// What keeps numbers of packs valid.
#[derive(Default)]
struct Numbers {
    serials: u32,
    /// Tables that were merged away: the table that has their packs, and how many come before them there.
    moved: BTreeMap<u32, (u32, u32)>,
    /// Tables that were dropped when the index began anew, which is rare.
    dropped: Vec<Arc<OpenTable>>,
}

/// The index of a repository.
pub struct Index {
    repository: RepositoryId,
    directory: Option<PathBuf>,
    state: RwLock<State>,
    claimed: Vec<Mutex<IdSet<BlobId>>>,
    /// Packs that the last listing did not show, if there was one: marks that are read meanwhile change nothing in it.
    unlisted: Mutex<IdSet<PackId>>,
    /// Packs that were found damaged: writers avoid them as they avoid marked ones, for as long as this is open.
    distrusted: Mutex<IdSet<PackId>>,
    is_loaded: AtomicBool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked ends the operation; the set itself is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What segments say that were read one after the other.
#[derive(Default)]
struct News {
    tables: Vec<OpenTable>,
    read: BTreeSet<SegmentId>,
    unread: Vec<(SegmentId, Error)>,
    replacements: Replacements,
    tombstones: Vec<PackId>,
}

impl Index {
    /// An empty index; with a directory its tables outlive the run.
    pub(crate) fn new(repository: RepositoryId, directory: Option<PathBuf>) -> Self {
        let claimed = (0..SHARDS).map(|_| Mutex::new(IdSet::default())).collect();
        Self {
            repository,
            directory,
            state: RwLock::default(),
            claimed,
            unlisted: Mutex::default(),
            distrusted: Mutex::default(),
            is_loaded: false.into(),
        }
    }

    /// Whether [`Index::load`] succeeded once.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Whether all these segments were read.
    pub(crate) fn covers(&self, listed: &BTreeSet<SegmentId>) -> bool {
        listed.is_subset(&self.state().covered)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the index up to date with the segments that the store lists. `read` fetches and opens
    /// one of them; only those are read that no table covers. What is damaged or gone goes to `pass_over`, whose
    /// error ends the load; what was read stays read.
    pub(crate) fn load(
        &self,
        listed: &BTreeSet<SegmentId>,
        mut read: impl FnMut(&SegmentId) -> Result<Segment>,
        mut pass_over: impl FnMut(Unread) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let _lock = match &self.directory {
            Some(directory) => Some(lock_directory(directory)?),
            None => None,
        };
        if state.tables.is_empty()
            && let Some(directory) = &self.directory
        {
            state.begin_anew(self.open_tables(directory).unwrap_or_else(|| {
                discard(directory);
                State::default()
            }));
        }
        let mut news = self.read_missing(&state, listed, &mut read)?;
        if !state.explains(listed, &news) {
            // A covered segment that is gone may have named packs that are gone: start again.
            state.begin_anew(State::default());
            news = self.read_missing(&state, listed, &mut read)?;
        }
        // All at once: a segment that cannot be read must not leave others covered that no table holds.
        state.replacements.0.extend(news.replacements.0);
        state.covered.extend(news.read);
        state.covered.retain(|id| listed.contains(id));
        state.tombstoned.extend(news.tombstones);
        let is_new = !news.tables.is_empty();
        news.tables.into_iter().for_each(|table| state.push(table));
        let replaced = state.replacements.replaced_by(state.covered.iter());
        state.replacements.0.retain(|by, _| listed.contains(by) || replaced.contains(by));
        let mut result = Ok(());
        for (id, error) in news.unread {
            let is_replaced = replaced.contains(&id);
            if is_replaced {
                state.covered.insert(id);
            }
            if result.is_ok() {
                result = pass_over(Unread { id, error, is_replaced });
            }
        }
        if is_new {
            self.compact(&mut state)?;
        }
        result?;
        self.is_loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads the listed segments that no table covers.
    fn read_missing(
        &self,
        state: &State,
        listed: &BTreeSet<SegmentId>,
        read: &mut impl FnMut(&SegmentId) -> Result<Segment>,
    ) -> Result<News> {
        let mut news = News::default();
        let missing: Vec<&SegmentId> = listed.difference(&state.covered).collect();
        if missing.is_empty() {
            return Ok(news);
        }
        let mut gather = Gather::new(&state.tables, || self.temporary_file());
        for id in missing {
            let segment = match read(id) {
                Err(error) if is_gone_or_damaged(&error) => {
                    news.unread.push((*id, error));
                    continue;
                }
                segment => segment?,
            };
            for pack in &segment.packs {
                gather.push(pack).map_err(self.local_error())?;
            }
            news.tombstones.extend(segment.tombstones);
            news.replacements.note(*id, segment.replaces);
            news.read.insert(*id);
        }
        news.tables = gather.finish().map_err(self.local_error())?;
        Ok(news)
    }

    /// Keeps what the last listing of the segments showed.
    pub(crate) fn note_listing(&self, rows: Vec<ObjectInfo>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).listing = rows;
    }

    /// What the last listing of the segments showed.
    pub(crate) fn listing(&self) -> Vec<ObjectInfo> {
        self.state().listing.clone()
    }

    /// Which segments that were read replace which others.
    pub(crate) fn replacements(&self) -> Replacements {
        self.state().replacements.clone()
    }

    /// Takes note of a segment that this run merged from others: the tables hold its packs already.
    pub(crate) fn note_merged<'a>(
        &self,
        id: SegmentId,
        mut inputs: impl Iterator<Item = &'a SegmentId>,
        merged: Segment,
    ) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Another load may have begun anew since: then it is read like any other.
        if inputs.all(|input| state.covered.contains(input)) {
            state.covered.insert(id);
            state.tombstoned.extend(merged.tombstones);
            state.replacements.note(id, merged.replaces);
        }
    }

    /// Of these segments, those that others among them replace, as far as they were read.
    pub(crate) fn replaced_segments(&self, listed: &BTreeSet<SegmentId>) -> BTreeSet<SegmentId> {
        let state = self.state();
        let roots = listed.iter().filter(|id| state.covered.contains(id));
        let replaced = state.replacements.replaced_by(roots);
        replaced.intersection(listed).copied().collect()
    }

    /// Merges tables of like size and notes the result, so that look-ups have few to ask.
    fn compact(&self, state: &mut State) -> Result<()> {
        let mut first = state.tables.len().saturating_sub(1);
        let mut entries = state.tables.last().map_or(0, |open| open.table.entries());
        while first > 0 && state.tables[first - 1].table.entries() <= entries * TIER_FACTOR {
            first -= 1;
            entries += state.tables[first].table.entries();
        }
        if state.tables.len() - first > 1 {
            let parts: Vec<&Table> = state.tables[first..].iter().map(|open| &open.table).collect();
            let merged = self
                .temporary_file()
                .and_then(|file| index_table::merge(file, &parts))
                .map(OpenTable::new)
                .map_err(self.local_error())?;
            let parts = state.tables.split_off(first);
            state.needed_before.extend(parts.iter().flat_map(|open| open.needed_ids()));
            state.push(merged);
            let serial = state.numbers.serials;
            let mut before = 0;
            for part in parts {
                state.numbers.moved.insert(part.serial, (serial, before));
                before += part.table.packs();
            }
        }
        Ok(())
    }

    fn temporary_file(&self) -> io::Result<File> {
        match &self.directory {
            Some(directory) => tempfile::tempfile_in(directory),
            None => tempfile::tempfile(),
        }
    }

    fn local_error(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        move |source| Error::Local { path: path.display().to_string(), source }
    }

    fn open_tables(&self, directory: &Path) -> Option<State> {
        let manifest = Manifest::read(directory, self.repository)?;
        let mut state = State::default();
        for name in &manifest.tables {
            let file = File::open(directory.join(name)).ok()?;
            let table = Table::open(file).ok()?;
            if table.entries() <= VERIFIED_ENTRIES {
                table.verify().ok()?;
            }
            state.tables.push(Arc::new(OpenTable::new(table)));
        }
        state.covered = manifest.covered;
        state.replacements = manifest.replacements;
        state.tombstoned = manifest.tombstones.into_iter().collect();
        Some(state)
    }

    /// Where a blob is, for reading.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn find(&self, id: &BlobId) -> Result<Option<BlobLocation>> {
        self.find_where(id, |state, pack| !state.tombstoned.contains(pack))
    }

    /// Every place that holds a copy of a blob.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn find_all(&self, id: &BlobId) -> Result<Vec<BlobLocation>> {
        self.find_all_where(id, |state, pack| !state.tombstoned.contains(pack))
    }

    fn find_where(
        &self,
        id: &BlobId,
        usable: impl Fn(&State, &PackId) -> bool,
    ) -> Result<Option<BlobLocation>> {
        self.find_in(&self.state(), id, usable)
    }

    fn find_in(
        &self,
        state: &State,
        id: &BlobId,
        usable: impl Fn(&State, &PackId) -> bool,
    ) -> Result<Option<BlobLocation>> {
        let mut first = None;
        self.search(state, id, usable, |location| {
            first = Some(location);
            true
        })?;
        Ok(first)
    }

    fn find_all_where(
        &self,
        id: &BlobId,
        usable: impl Fn(&State, &PackId) -> bool,
    ) -> Result<Vec<BlobLocation>> {
        let mut all = Vec::new();
        self.search(&self.state(), id, usable, |location| {
            all.push(location);
            false
        })?;
        Ok(all)
    }

    fn search(
        &self,
        state: &State,
        id: &BlobId,
        usable: impl Fn(&State, &PackId) -> bool,
        mut found: impl FnMut(BlobLocation) -> bool,
    ) -> Result<()> {
        let mut is_done = false;
        for open in &state.tables {
            open.table
                .find(id, |_, entry| {
                    let is_known =
                        open.ids().get(entry.pack as usize).is_some_and(|pack| usable(state, pack));
                    is_done = is_known
                        && found(BlobLocation {
                            pack: open.number(entry.pack),
                            frame: entry.frame,
                            offset: entry.offset,
                            length: entry.length,
                        });
                    is_done
                })
                .map_err(|error| self.torn_or_local(error))?;
            if is_done {
                break;
            }
        }
        Ok(())
    }

    /// What is needed to read a pack.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn pack(&self, pack: PackNumber) -> Result<PackRecord> {
        let found = self.state().resolve(pack).map(|(open, number)| (Arc::clone(open), number));
        let (open, number) =
            found.ok_or_else(|| self.local_error()(io::ErrorKind::InvalidInput.into()))?;
        open.table.pack(number).map_err(|error| self.torn_or_local(error))
    }

    /// Tables that turn out to be torn are deleted, so that the next run makes new ones.
    fn torn_or_local(&self, error: io::Error) -> Error {
        if let (io::ErrorKind::InvalidData, Some(directory)) = (error.kind(), &self.directory) {
            discard(directory);
        }
        self.local_error()(error)
    }

    /// The id of a pack.
    pub(crate) fn pack_id(&self, pack: PackNumber) -> Option<PackId> {
        let state = self.state();
        let (open, number) = state.resolve(pack)?;
        open.ids().get(number as usize).copied()
    }

    /// All packs that can be read.
    pub fn packs(&self) -> Vec<(PackNumber, PackId)> {
        let state = self.state();
        let packs = state.tables.iter().flat_map(|open| open.packs());
        packs
            .filter(|(_, id)| !state.tombstoned.contains(*id))
            .map(|(number, id)| (number, *id))
            .collect()
    }

    /// Number of blobs, duplicates counted, and of local tables.
    pub fn size(&self) -> (u64, usize) {
        let state = self.state();
        (state.tables.iter().map(|open| open.table.entries()).sum(), state.tables.len())
    }

    /// Sets the packs that marks name.
    pub(crate) fn set_marked(&self, marked: impl Iterator<Item = PackId>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.marked = marked.collect();
        state.marked.extend(guard(&self.unlisted).iter());
        state.marked.extend(guard(&self.distrusted).iter());
    }

    /// Adds packs that a listing does not show: writers avoid them, until [`Index::forget_unlisted`].
    pub(crate) fn avoid(&self, packs: Vec<PackId>) {
        guard(&self.unlisted).extend(&packs);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.marked.extend(packs);
    }

    /// Before packs are listed anew; counts from the next [`Index::set_marked`] on.
    pub(crate) fn forget_unlisted(&self) {
        guard(&self.unlisted).clear();
    }

    /// Adds packs that writers must not rely on whatever marks say. False if all were known.
    pub(crate) fn distrust(&self, packs: &[PackId]) -> bool {
        let mut distrusted = guard(&self.distrusted);
        let before = distrusted.len();
        distrusted.extend(packs);
        let has_new = distrusted.len() > before;
        drop(distrusted);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.marked.extend(packs);
        has_new
    }

    /// Whether writers must not rely on a pack with this id.
    pub(crate) fn is_avoided(&self, pack: &PackId) -> bool {
        let state = self.state();
        state.marked.contains(pack) || state.tombstoned.contains(pack)
    }

    /// Whether a pack is gone, or about to go.
    pub(crate) fn is_tombstoned(&self, pack: &PackId) -> bool {
        self.state().tombstoned.contains(pack)
    }

    /// Whether writers may rely on the blob; notes its pack as needed if so.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub(crate) fn require(&self, id: &BlobId) -> Result<bool> {
        if guard(self.shard(id)).contains(id) {
            return Ok(true);
        }
        self.require_stored(id)
    }

    fn require_stored(&self, id: &BlobId) -> Result<bool> {
        let usable = |state: &State, pack: &PackId| {
            (state.marked.is_empty() && state.tombstoned.is_empty())
                || !(state.marked.contains(pack) || state.tombstoned.contains(pack))
        };
        let state = self.state();
        let Some(location) = self.find_in(&state, id, usable)? else { return Ok(false) };
        let Some((open, number)) = state.resolve(location.pack) else { return Ok(false) };
        let word = &open.needed[number as usize / 64];
        let bit = 1 << (number % 64);
        // Most blobs lie in a pack that is needed already: a load is cheaper than a write.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// True for exactly one caller if the blob is new; that one must store it.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub(crate) fn claim(&self, id: &BlobId) -> Result<bool> {
        let mut claimed = guard(self.shard(id));
        if claimed.contains(id) || self.require_stored(id)? {
            return Ok(false);
        }
        claimed.insert(*id);
        Ok(true)
    }

    fn shard(&self, id: &BlobId) -> &Mutex<IdSet<BlobId>> {
        // Not the bytes that the set's hash begins with, or each shard would be a crowded set.
        &self.claimed[usize::from(id.as_bytes()[31]) % SHARDS]
    }

    /// Takes over a segment that this run wrote: its blobs are no longer claims but known, and needed.
    pub(crate) fn add_written(&self, id: SegmentId, segment: &Segment) -> Result<()> {
        let mut gather = Gather::new(&[], || self.temporary_file());
        for pack in &segment.packs {
            gather.push(pack).map_err(self.local_error())?;
        }
        let tables = gather.finish().map_err(self.local_error())?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            for word in &table.needed {
                word.store(u64::MAX, Ordering::Relaxed);
            }
            state.push(table);
        }
        state.tombstoned.extend(segment.tombstones.iter().copied());
        state.covered.insert(id);
        drop(state);
        for blob in segment.packs.iter().flat_map(|pack| &pack.contents.ids) {
            guard(self.shard(blob)).remove(blob);
        }
        Ok(())
    }

    /// Gives up claims that no pack will hold: a run that failed.
    pub(crate) fn forget_claims(&self) {
        for shard in &self.claimed {
            guard(shard).clear();
        }
    }

    /// Packs that were found needed since the last [`Index::reset_needed`].
    pub(crate) fn needed(&self) -> Vec<PackId> {
        let state = self.state();
        let now = state.tables.iter().flat_map(|open| open.needed_ids());
        let all: BTreeSet<PackId> = state.needed_before.iter().copied().chain(now).collect();
        all.into_iter().collect()
    }

    /// Forgets that a pack is needed: what it held is stored elsewhere.
    pub(crate) fn release(&self, pack: &PackId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.needed_before.remove(pack);
        for open in &state.tables {
            for number in (0..open.ids().len()).filter(|number| open.ids()[*number] == *pack) {
                open.needed[number / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
            }
        }
    }

    /// Forgets which packs are needed, before a new run.
    pub(crate) fn reset_needed(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.needed_before.clear();
        for open in &state.tables {
            for word in &open.needed {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Writes the tables down for the next run. A failure costs only time then, so it is ignored by
    /// callers that have their result already.
    pub(crate) fn save(&self) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let _lock = lock_directory(directory)?;
        let before = Manifest::read(directory, self.repository).unwrap_or_default();
        if before.covered == state.covered && before.tables.len() == state.tables.len() {
            return Ok(());
        }
        self.compact(&mut state)?;
        let mut manifest = Manifest {
            tables: Vec::new(),
            covered: state.covered.clone(),
            replacements: state.replacements.clone(),
            tombstones: state.tombstoned.iter().copied().collect(),
        };
        for open in &state.tables {
            let name = table_name(open.ids(), open.table.entries());
            let path = directory.join(&name);
            // A name is given by the content: a file of this name that opens is this table.
            if !File::open(&path).is_ok_and(|file| Table::open(file).is_ok()) {
                let temporary = directory.join(format!("{name}.{}", std::process::id()));
                File::options()
                    .create(true)
                    .truncate(true)
                    .read(true)
                    .write(true)
                    .open(&temporary)
                    .and_then(|file| index_table::merge(file, &[&open.table]))
                    .and_then(|_| fs_err::rename(&temporary, &path))
                    .map_err(Error::local(&path))?;
            }
            manifest.tables.push(name);
        }
        manifest.write(directory, self.repository).map_err(Error::local(directory))?;
        for name in before.tables.iter().filter(|name| !manifest.tables.contains(name)) {
            // Somebody who has it open keeps it; a leftover is only a file in a cache.
            let _ = fs_err::remove_file(directory.join(name));
        }
        Ok(())
    }
}
