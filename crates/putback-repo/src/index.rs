//! Where is this blob, and is it stored already?
//!
//! [`Index::load`] brings the local tables up to date with the store's segments;
//! [`Index::find`] answers readers; [`Index::claim`] lets exactly one worker store a new blob.
//! The tables are a cache: `index_table.rs` says how they look, and everything here works the same
//! after they were deleted.
//!
//! Memory: 8 bytes for 85 blobs of the tables, 32 for each pack, and about 40 for each blob of this
//! run that no segment names yet (bounded by the writer, which ends a segment at 8 MiB).
//!
//! Writers do not reuse what lies in marked or tombstoned packs; readers do not see the tombstoned.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashSet;
use putback_format::id::{BlobId, PackId, RepositoryId, SegmentId};
use putback_format::segment::{Segment, SegmentPack};

use crate::error::{Error, Result};
use crate::index_table::{self, PackRecord, Table, TableEntry, entries_of};
use crate::local::create_private_directories;

/// Entries that are sorted in memory at once while tables are built: 48 MiB.
const BATCH_ENTRIES: usize = 1 << 20;
/// A table is merged with the one before unless that is this many times larger.
const TIER_FACTOR: u64 = 4;
/// Tables of up to this many entries, 48 MiB, are read through before they are used: that takes a few
/// milliseconds. Damage in larger ones is noticed when a look-up meets it.
const VERIFIED_ENTRIES: u64 = 1 << 20;
/// Claims are spread over this many locks.
const SHARDS: usize = 64;

/// Blob ids are uniform already; hashing them again would be work for nothing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*head);
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length prefix of an array adds nothing.
    }
}

/// A set of ids that are hashes already.
pub(crate) type IdSet<T> = HashSet<T, BuildHasherDefault<IdHasher>>;

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

/// A pack, by table and number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber {
    table: u32,
    number: u32,
}

struct OpenTable {
    table: Table,
    /// Packs that the snapshot being written needs, one bit each.
    needed: Vec<AtomicU64>,
}

impl OpenTable {
    fn new(table: Table) -> Self {
        let needed = (0..table.pack_ids().len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { table, needed }
    }

    fn ids(&self) -> &[PackId] {
        self.table.pack_ids()
    }
}

#[derive(Default)]
struct State {
    tables: Vec<Arc<OpenTable>>,
    covered: BTreeSet<SegmentId>,
    marked: IdSet<PackId>,
    tombstoned: IdSet<PackId>,
}

/// The index of a repository.
pub struct Index {
    repository: RepositoryId,
    directory: Option<PathBuf>,
    state: RwLock<State>,
    claimed: Vec<Mutex<IdSet<BlobId>>>,
    is_loaded: AtomicBool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked ends the operation; the set itself is never left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a local file lists: the tables, the segments that they cover, the tombstones among these.
#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    tables: Vec<String>,
    covered: BTreeSet<SegmentId>,
    tombstones: BTreeSet<PackId>,
}

const MANIFEST: &str = "manifest";
const MANIFEST_TITLE: &str = "putback index 1";

impl Manifest {
    fn read(directory: &Path, repository: RepositoryId) -> Option<Self> {
        let text = fs_err::read_to_string(directory.join(MANIFEST)).ok()?;
        let (body, check) = text.trim_end().rsplit_once('\n')?;
        if blake3::hash(body.as_bytes()).to_hex().as_str() != check {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != format!("{MANIFEST_TITLE} {repository}") {
            return None;
        }
        let mut manifest = Self::default();
        for line in lines {
            match line.split_once(' ')? {
                ("table", name) => manifest.tables.push(name.to_owned()),
                ("segment", id) => drop(manifest.covered.insert(id.parse().ok()?)),
                ("tombstone", id) => drop(manifest.tombstones.insert(id.parse().ok()?)),
                _ => return None,
            }
        }
        Some(manifest)
    }

    fn write(&self, directory: &Path, repository: RepositoryId) -> io::Result<()> {
        let mut body = format!("{MANIFEST_TITLE} {repository}");
        for table in &self.tables {
            body.push_str(&format!("\ntable {table}"));
        }
        for segment in &self.covered {
            body.push_str(&format!("\nsegment {segment}"));
        }
        for pack in &self.tombstones {
            body.push_str(&format!("\ntombstone {pack}"));
        }
        let check = blake3::hash(body.as_bytes()).to_hex();
        let temporary = directory.join(format!("{MANIFEST}.{}", std::process::id()));
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(format!("{body}\n{check}\n").as_bytes())?;
        drop(file);
        fs_err::rename(&temporary, directory.join(MANIFEST))
    }
}

/// Gathers segments into tables, a batch at a time.
struct Gather {
    entries: Vec<TableEntry>,
    packs: Vec<PackRecord>,
}

impl Index {
    /// An empty index; with a directory its tables outlive the run.
    pub(crate) fn new(repository: RepositoryId, directory: Option<PathBuf>) -> Self {
        let claimed = (0..SHARDS).map(|_| Mutex::new(IdSet::default())).collect();
        Self { repository, directory, state: RwLock::default(), claimed, is_loaded: false.into() }
    }

    /// Whether [`Index::load`] succeeded once.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the index up to date with the segments that the store lists. `read` fetches and opens
    /// one of them; only those are read that no table covers.
    pub(crate) fn load(
        &self,
        listed: &BTreeSet<SegmentId>,
        mut read: impl FnMut(&SegmentId) -> Result<Segment>,
    ) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let _lock = match &self.directory {
            Some(directory) => Some(lock_directory(directory)?),
            None => None,
        };
        if state.tables.is_empty()
            && let Some(directory) = &self.directory
        {
            *state = self.open_tables(directory).unwrap_or_else(|| {
                discard(directory);
                State::default()
            });
        }
        // A covered segment that is gone may have named packs that are gone: start again.
        if !state.covered.is_subset(listed) {
            *state = State::default();
        }
        let missing: Vec<SegmentId> = listed.difference(&state.covered).copied().collect();
        if missing.is_empty() {
            self.is_loaded.store(true, Ordering::Release);
            return Ok(());
        }
        let mut tables = Vec::new();
        let mut tombstones = Vec::new();
        let mut gather = Gather { entries: Vec::new(), packs: Vec::new() };
        for id in &missing {
            let segment = read(id)?;
            tombstones.extend(segment.tombstones);
            for pack in &segment.packs {
                self.gather(&mut gather, &mut tables, pack)?;
            }
        }
        self.end_batch(&mut gather, &mut tables)?;
        // All at once: a segment that cannot be read must not leave others covered that no table holds.
        state.tables.extend(tables.into_iter().map(Arc::new));
        state.tombstoned.extend(tombstones);
        state.covered.extend(missing);
        self.compact(&mut state)?;
        self.is_loaded.store(true, Ordering::Release);
        Ok(())
    }

    fn gather(
        &self,
        gather: &mut Gather,
        tables: &mut Vec<OpenTable>,
        pack: &SegmentPack,
    ) -> Result<()> {
        if !gather.entries.is_empty()
            && gather.entries.len() + pack.contents.ids.len() > BATCH_ENTRIES
        {
            self.end_batch(gather, tables)?;
        }
        entries_of(pack, gather.packs.len() as u32, &mut gather.entries);
        gather.packs.push(PackRecord::of(pack));
        Ok(())
    }

    fn end_batch(&self, gather: &mut Gather, tables: &mut Vec<OpenTable>) -> Result<()> {
        if gather.packs.is_empty() {
            return Ok(());
        }
        let (entries, packs) =
            (std::mem::take(&mut gather.entries), std::mem::take(&mut gather.packs));
        let table = self
            .temporary_file()
            .and_then(|file| index_table::write_sorted(file, entries, packs))
            .map(OpenTable::new)
            .map_err(self.local_error())?;
        tables.push(table);
        Ok(())
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
            state.tables.truncate(first);
            state.tables.push(Arc::new(merged));
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
        let mut first = None;
        self.search(id, usable, |location| {
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
        self.search(id, usable, |location| {
            all.push(location);
            false
        })?;
        Ok(all)
    }

    fn search(
        &self,
        id: &BlobId,
        usable: impl Fn(&State, &PackId) -> bool,
        mut found: impl FnMut(BlobLocation) -> bool,
    ) -> Result<()> {
        let state = self.state();
        let mut is_done = false;
        for (number, open) in state.tables.iter().enumerate() {
            open.table
                .find(id, |_, entry| {
                    let is_known = open
                        .ids()
                        .get(entry.pack as usize)
                        .is_some_and(|pack| usable(&state, pack));
                    is_done = is_known
                        && found(BlobLocation {
                            pack: PackNumber { table: number as u32, number: entry.pack },
                            frame: entry.frame,
                            offset: entry.offset,
                            length: entry.length,
                        });
                    is_done
                })
                .map_err(|error| {
                    if let (io::ErrorKind::InvalidData, Some(directory)) =
                        (error.kind(), &self.directory)
                    {
                        discard(directory);
                    }
                    self.local_error()(error)
                })?;
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
        let open = self.state().tables.get(pack.table as usize).cloned();
        let open = open.ok_or_else(|| self.local_error()(io::ErrorKind::InvalidInput.into()))?;
        open.table.pack(pack.number).map_err(self.local_error())
    }

    /// The id of a pack.
    pub(crate) fn pack_id(&self, pack: PackNumber) -> Option<PackId> {
        self.state().tables.get(pack.table as usize)?.ids().get(pack.number as usize).copied()
    }

    /// All packs that can be read.
    pub fn packs(&self) -> Vec<(PackNumber, PackId)> {
        let state = self.state();
        let mut packs = Vec::new();
        for (table, open) in state.tables.iter().enumerate() {
            for (number, id) in open.ids().iter().enumerate() {
                if !state.tombstoned.contains(id) {
                    packs.push((PackNumber { table: table as u32, number: number as u32 }, *id));
                }
            }
        }
        packs
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
    }

    /// Adds packs that writers must not rely on, until [`Index::set_marked`].
    pub(crate) fn avoid(&self, packs: Vec<PackId>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.marked.extend(packs);
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
        let Some(location) = self.find_where(id, usable)? else { return Ok(false) };
        let state = self.state();
        let PackNumber { table, number } = location.pack;
        let word = &state.tables[table as usize].needed[number as usize / 64];
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
        let mut gather = Gather { entries: Vec::new(), packs: Vec::new() };
        let mut tables = Vec::new();
        for pack in &segment.packs {
            self.gather(&mut gather, &mut tables, pack)?;
        }
        self.end_batch(&mut gather, &mut tables)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            for word in &table.needed {
                word.store(u64::MAX, Ordering::Relaxed);
            }
            state.tables.push(Arc::new(table));
        }
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
        let mut needed = Vec::new();
        for open in &state.tables {
            for (number, id) in open.ids().iter().enumerate() {
                if open.needed[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 == 1 {
                    needed.push(*id);
                }
            }
        }
        needed
    }

    /// Forgets that a pack is needed: what it held is stored elsewhere.
    pub(crate) fn release(&self, pack: &PackId) {
        for open in &self.state().tables {
            for number in (0..open.ids().len()).filter(|number| open.ids()[*number] == *pack) {
                open.needed[number / 64].fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
            }
        }
    }

    /// Forgets which packs are needed, before a new run.
    pub(crate) fn reset_needed(&self) {
        for open in &self.state().tables {
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

/// Which entries of the index are needed: a bit for each, so that 10^8 of them take 12 MiB.
pub(crate) struct LiveSet {
    /// For each table.
    bits: Vec<Vec<u64>>,
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

impl LiveSet {
    fn contains(&self, table: usize, number: u64) -> bool {
        // Tables that came later hold nothing that was judged.
        let word = self.bits.get(table).and_then(|words| words.get((number / 64) as usize));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// How much of a pack is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackUse {
    /// Blobs that are.
    pub(crate) blobs: u64,
    /// Their plain bytes.
    pub(crate) plain_bytes: u64,
}

impl Index {
    /// A set that no entry is in yet. It counts for as long as the tables stay as they are.
    pub(crate) fn live_set(&self) -> LiveSet {
        let words = |open: &Arc<OpenTable>| open.table.entries().div_ceil(64) as usize;
        LiveSet { bits: self.state().tables.iter().map(|open| vec![0; words(open)]).collect() }
    }

    /// Notes that a blob is needed; of several copies one is, and that of a pack that will stay.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub(crate) fn note_live(&self, live: &mut LiveSet, id: &BlobId) -> Result<Liveness> {
        let state = self.state();
        for (table, open) in state.tables.iter().enumerate() {
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
            found.map_err(self.local_error())?;
            if let Some(number) = at {
                let word = &mut live.bits[table][(number / 64) as usize];
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
    /// [`Error::Local`] if the local tables cannot be read.
    pub(crate) fn pack_uses(&self, live: &LiveSet) -> Result<Vec<(PackNumber, PackId, PackUse)>> {
        let state = self.state();
        let mut all = Vec::new();
        for (table, open) in state.tables.iter().enumerate() {
            let mut uses = vec![PackUse::default(); open.ids().len()];
            let entries = open.table.iter().map_err(self.local_error())?;
            for (number, entry) in (0..).zip(entries) {
                let entry = entry.map_err(self.local_error())?;
                if live.contains(table, number)
                    && let Some(used) = uses.get_mut(entry.pack as usize)
                {
                    used.blobs += 1;
                    used.plain_bytes += u64::from(entry.length);
                }
            }
            for (number, (id, used)) in open.ids().iter().zip(uses).enumerate() {
                all.push((PackNumber { table: table as u32, number: number as u32 }, *id, used));
            }
        }
        Ok(all)
    }

    /// The needed blobs of some packs, sorted by pack and place. Reads all tables once.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub(crate) fn live_blobs(
        &self,
        live: &LiveSet,
        packs: &BTreeSet<PackNumber>,
    ) -> Result<Vec<(BlobId, BlobLocation)>> {
        let state = self.state();
        let mut found = Vec::new();
        for (table, open) in state.tables.iter().enumerate() {
            let entries = open.table.iter().map_err(self.local_error())?;
            for (number, entry) in (0..).zip(entries) {
                let entry = entry.map_err(self.local_error())?;
                let pack = PackNumber { table: table as u32, number: entry.pack };
                if packs.contains(&pack) && live.contains(table, number) {
                    let (frame, offset, length) = (entry.frame, entry.offset, entry.length);
                    found.push((entry.id, BlobLocation { pack, frame, offset, length }));
                }
            }
        }
        found.sort_unstable_by_key(|(_, at)| (at.pack, at.frame, at.offset));
        Ok(found)
    }
}

/// A name that two tables share only if they hold the same packs in the same order.
fn table_name(packs: &[PackId], entries: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entries.to_le_bytes());
    for pack in packs {
        hasher.update(pack.as_bytes());
    }
    format!("table-{}", &hasher.finalize().to_hex()[..32])
}

/// Deletes tables that cannot be used, so that the next run makes new ones. Who has them open keeps them.
fn discard(directory: &Path) {
    // Manifest first: without it no table counts. What cannot be deleted is found damaged again.
    let _ = fs_err::remove_file(directory.join(MANIFEST));
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("table-") {
            let _ = fs_err::remove_file(entry.path());
        }
    }
}

fn lock_directory(directory: &Path) -> Result<File> {
    create_private_directories(directory).map_err(Error::local(directory))?;
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::local(&path))?;
    file.lock().map_err(Error::local(&path))?;
    Ok(file)
}
