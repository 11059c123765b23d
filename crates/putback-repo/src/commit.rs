//! A run that writes, and the order that makes it safe.
//!
//! *Packs before segment before snapshot; whoever sees a name can read what it names; whatever a crash leaves
//! behind is unreferenced and harmless.*
//!
//! Nobody holds a lock for the length of a backup, so packs that it relies on may come under a mark
//! meanwhile. The steps (numbers as in `docs/format.md`, "Concurrency"):
//!
//! 1. List marks, then the index ([`Repository::begin_backup`]).
//! 2. A blob is known only if the writers' index holds it; its pack becomes needed.
//! 3. Packs are durable, then a segment names them ([`PackWriter`]).
//! 4. List marks, then the index again; what a needed pack held and lost is stored anew. A store without
//!    locks spares a short run this: step 1 then was the same look, at a time from which the window of step 5
//!    counts, and packs that came since cannot be under a mark that is old enough to be carried out.
//! 5. Write the snapshot within the commit window ([`Times`](crate::Times)) of the beginning of step 4.
//! 6. Read it back, look again; only then is the backup a success.
//!
//! A machine that sleeps between 5 and its arrival at the storage, and does not live to see step 6, leaves a snapshot that may
//! need what is gone. Its id was noted before, and the next run forgets such a snapshot or makes sure of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use putback_format::envelope::ObjectKind;
use putback_format::id::{BlobId, PackId, SegmentId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::pack::{PackContents, TRAILER_BYTES, Trailer};
use putback_format::segment::{Segment, SegmentPack};
use putback_format::snapshot::{Incident, Snapshot, Statistics};
use putback_format::tree::{Entry, Timestamp};
use putback_store::{LockMode, ObjectInfo, Space};

use crate::error::{Error, Result};
use crate::forget::Retained;
use crate::observe::Cancel;
use crate::pack_writer::{FrameWriter, PackWriter, Written};
use crate::snapshots::{LISTS_MAX, Marks, StoredSnapshot};
use crate::state::Seen;
use crate::{Repository, layout};

/// How often the check is done again before giving up.
const ATTEMPTS: usize = 8;

/// What a snapshot is to say; the repository adds the rest.
#[derive(Clone, Debug)]
pub struct SnapshotDraft {
    /// The directory `/`.
    pub root: Entry,
    /// When the backup began.
    pub time: Timestamp,
    /// Offset of local time in seconds.
    pub utc_offset: i32,
    /// Host name.
    pub host: String,
    /// User name.
    pub user: String,
    /// What was asked for.
    pub paths: Vec<Vec<u8>>,
    /// Tags.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// Program and version.
    pub program: String,
    /// The parent.
    pub parent: Option<SnapshotId>,
    /// False for a checkpoint.
    pub complete: bool,
    /// Counts.
    pub statistics: Statistics,
    /// Paths that failed.
    pub incidents: Vec<Incident>,
    /// Fields from 64 on: of the snapshot that this one stands for, which run made that one, and what a newer
    /// program said of it.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

impl From<&Snapshot> for SnapshotDraft {
    /// Everything that a snapshot says of what it holds and who made it, for one that stands for it; nothing of who
    /// wrote it.
    fn from(snapshot: &Snapshot) -> Self {
        let unknown = snapshot.successor_fields();
        let snapshot = snapshot.clone();
        Self {
            root: snapshot.root,
            time: snapshot.time,
            utc_offset: snapshot.utc_offset,
            host: snapshot.host,
            user: snapshot.user,
            paths: snapshot.paths,
            tags: snapshot.tags,
            description: snapshot.description,
            program: snapshot.program,
            parent: snapshot.parent,
            complete: snapshot.complete,
            statistics: snapshot.statistics,
            incidents: snapshot.incidents,
            unknown,
        }
    }
}

/// A run that writes.
pub struct Backup {
    repository: Repository,
    writer: PackWriter,
    adopted: u64,
    /// What marks and forget records said when it began, but for packs.
    marks: Marks,
    /// Whether a snapshot was written.
    is_committed: AtomicBool,
    /// When step 1 began, until a commit has used it, by the clock that goes on in suspend.
    begun: Mutex<Option<Duration>>,
}

impl Repository {
    /// Brings the index up to date.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a segment or a mark is; a backup would store known data again, or
    /// rely on what will go.
    pub fn load_index(&self) -> Result<()> {
        self.load_marks_and_index().map(drop)
    }

    /// As [`Repository::load_index`]; yields what else the marks say.
    fn load_marks_and_index(&self) -> Result<Marks> {
        let mut marks = self.marks()?;
        self.load_segments()?;
        self.index().set_marked(std::mem::take(&mut marks.packs).into_iter());
        Ok(marks)
    }

    /// Loads the index unless that was done: reading needs it, listing snapshots does not.
    pub(crate) fn load_index_once(&self) -> Result<()> {
        if self.index().is_loaded() { Ok(()) } else { self.load_index() }
    }

    /// As [`Repository::load_index`], and packs that are not there any more are avoided too. Where a listing
    /// costs a round trip, only marks and tombstones tell.
    fn load_index_for_writing(&self) -> Result<Marks> {
        self.index().forget_unlisted();
        let marks = self.load_marks_and_index()?;
        if self.store().capabilities().is_remote {
            return Ok(marks);
        }
        let listed: BTreeSet<PackId> = self
            .store()
            .list(layout::PACKS)?
            .iter()
            .filter_map(|info| info.path.name().parse().ok())
            .collect();
        let packs = self.index().packs();
        // Of those that are marked no writer expects anything.
        let lost: Vec<PackId> = packs
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| !listed.contains(id) && !self.index().is_avoided(id))
            .collect();
        for id in &lost {
            self.warn(format!("pack {id} is missing; a backup stores again what it needs of it"));
        }
        self.index().avoid(lost);
        Ok(marks)
    }

    /// A segment that is gone and that none replaces was deleted between listing and reading: a compactor had
    /// written the merged one long before, so a new listing has it.
    pub(crate) fn load_segments(&self) -> Result<()> {
        let mut lists = 1;
        loop {
            let listed = self.list_segments()?;
            let mut is_gone = false;
            let loaded = self.index().load(
                &listed,
                |id| self.read_segment(id),
                |unread| {
                    is_gone = matches!(&unread.error, Error::Store(error) if error.is_not_found());
                    if unread.is_replaced && !is_gone {
                        self.warn(format!(
                            "{}; a merged segment says what it said, and the next compaction removes it",
                            unread.error
                        ));
                    }
                    if unread.is_replaced { Ok(()) } else { Err(unread.error) }
                },
            );
            if loaded.is_ok() || !is_gone || lists == LISTS_MAX {
                return loaded;
            }
            lists += 1;
        }
    }

    pub(crate) fn list_segments(&self) -> Result<BTreeSet<SegmentId>> {
        let listed = self.store().list(layout::INDEX)?;
        let ids = listed.iter().filter_map(|info| info.path.name().parse().ok()).collect();
        self.index().note_listing(listed);
        Ok(ids)
    }

    pub(crate) fn read_segment(&self, id: &SegmentId) -> Result<Segment> {
        let path = layout::segment(id);
        let payload = self.read_sealed(ObjectKind::Segment, &path)?;
        Segment::decode(&payload).map_err(|error| Error::object(&path, error))
    }

    /// As [`Repository::read_segment`], from the store and no cache.
    pub(crate) fn read_segment_anew(&self, id: &SegmentId) -> Result<Segment> {
        let path = layout::segment(id);
        let payload = self.read_sealed_anew(ObjectKind::Segment, &path)?;
        Segment::decode(&payload).map_err(|error| Error::object(&path, error))
    }

    /// Seals and writes a segment. Its id, and its bytes as stored.
    pub(crate) fn write_segment(&self, segment: &Segment) -> Result<(SegmentId, u64)> {
        let payload = segment.encode().map_err(Error::encode("an index segment"))?;
        let object = self.seal(ObjectKind::Segment, &payload)?;
        let id = SegmentId::of_stored(&object);
        self.write_object(&layout::segment(&id), &object)?;
        Ok((id, object.len() as u64))
    }

    /// Begins a run that stores what may be new: sends what an interrupted run of this machine has not come to
    /// send, then as [`Repository::begin_upkeep`]. `level` overrides the configuration; `workers` is how many cores
    /// to use.
    ///
    /// # Errors
    /// As [`Repository::load_index`], and what keeps things from being sent.
    pub fn begin_backup(&self, level: Option<i32>, workers: usize) -> Result<Backup> {
        for info in self.store().resume_uploads()? {
            if let (layout::PACKS, Ok(id)) = (info.path.folder(), info.path.name().parse()) {
                self.state().journal_pack(&id)?;
            }
        }
        self.begin_writing(level, workers)
    }

    /// Begins a run that looks after what is stored, and that must be able to make room: loads the index, and takes
    /// over packs that an interrupted run of this machine stored and no segment names.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn begin_upkeep(&self, workers: usize) -> Result<Backup> {
        self.begin_writing(None, workers)
    }

    fn begin_writing(&self, level: Option<i32>, workers: usize) -> Result<Backup> {
        let begun = self.since_boot();
        let marks = self.load_index_for_writing()?;
        self.index().reset_needed();
        let level = level.unwrap_or(self.config().compression_level);
        let writer = PackWriter::new(self, level, workers, false)?;
        let adopted = self.journaled_packs()?;
        let count = adopted.len() as u64;
        if count > 0 {
            writer.adopt(adopted)?;
        }
        let mut backup = Backup {
            repository: self.clone(),
            writer,
            adopted: count,
            marks,
            is_committed: false.into(),
            begun: Mutex::new(Some(begun)),
        };
        let settled = self.settle_pending(&backup)?;
        backup.marks.forgotten.extend(settled);
        Ok(backup)
    }

    /// Writes the local tables down for the next run; a failure costs only its time.
    pub(crate) fn save_index(&self) {
        if let Err(error) = self.index().save() {
            self.warn(format!(
                "the local index could not be kept, the next run will be slower: {error}"
            ));
        }
    }

    /// Looks after snapshots that earlier runs of this machine wrote, and of which they did not live to see whether
    /// they came in time: one that has all that it needs stays, any other is forgotten. Yields those.
    fn settle_pending(&self, backup: &Backup) -> Result<Vec<SnapshotId>> {
        let pending = self.state().pending()?;
        let mut late = Vec::new();
        if pending.is_empty() {
            return Ok(late);
        }
        for id in pending {
            let mut lock = None;
            let mut read = self.read_snapshot(&id);
            if matches!(&read, Err(Error::Store(error)) if error.is_not_found()) {
                // Another run of this machine may be about to write it, and holds the lock until it is there: only what
                // is not found under the lock never arrived.
                lock = self.state().lock()?;
                read = self.read_snapshot(&id);
            }
            match read {
                Ok(snapshot) if !backup.marks.forgotten.contains(&id) => {
                    drop(lock.take());
                    let root = &snapshot.root;
                    // Its number is taken.
                    let sequences = BTreeMap::from([(snapshot.writer, snapshot.sequence)]);
                    let numbering = self.state().lock()?;
                    self.state().note_seen(&Seen { sequences, ..Seen::default() })?;
                    drop(numbering);
                    match backup.retain(root, &mut Retained::default(), &Cancel::default()) {
                        // What it needs is in packs that a segment names before the note goes: nobody else would make
                        // sure of it.
                        Ok(()) => backup.flush()?,
                        Err(error) if error.is_about_blob() => {
                            self.warn(format!(
                                "snapshot {} of an interrupted run came too late and is forgotten: {error}",
                                id.short()
                            ));
                            self.forget(&[StoredSnapshot { id, snapshot }])?;
                            late.push(id);
                        }
                        Err(error) => return Err(error),
                    }
                }
                // It never arrived, or is forgotten.
                Ok(_) => {}
                Err(Error::Store(error)) if error.is_not_found() => {}
                _ if backup.marks.forgotten.contains(&id) => {}
                // It may be readable again one day: the note stays until it is, or is forgotten.
                Err(error) if error.is_damage() || matches!(error, Error::KeysRotated { .. }) => {
                    self.warn(format!(
                        "snapshot {} of an interrupted run cannot be read, and it is not known whether what it \
                         needs is there: {error}",
                        id.short()
                    ));
                    continue;
                }
                Err(error) => return Err(error),
            }
            if lock.is_none() {
                lock = self.state().lock()?;
            }
            self.state().remove_pending(&id)?;
            drop(lock);
        }
        backup.flush()?;
        Ok(late)
    }

    /// Begins a run that compresses and counts what a backup would write, and writes nothing.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn begin_dry_run(&self, level: Option<i32>, workers: usize) -> Result<Backup> {
        let marks = self.load_index_for_writing()?;
        self.index().reset_needed();
        let level = level.unwrap_or(self.config().compression_level);
        let writer = PackWriter::new(self, level, workers, true)?;
        Ok(Backup {
            repository: self.clone(),
            writer,
            adopted: 0,
            marks,
            is_committed: false.into(),
            begun: Mutex::default(),
        })
    }

    /// Packs in the journal that are whole and that no segment names.
    fn journaled_packs(&self) -> Result<Vec<SegmentPack>> {
        let journal = self.state().journal();
        if journal.is_empty() {
            return Ok(Vec::new());
        }
        let known: BTreeSet<PackId> = self.index().packs().into_iter().map(|(_, id)| id).collect();
        // What a remote reports was compared when the pack was sent; reading it back would cost a download.
        let is_remote = self.store().capabilities().is_remote;
        let mut packs = Vec::new();
        for id in journal {
            // One that is marked will go, and what it holds is stored again.
            if known.contains(&id) || self.index().is_avoided(&id) {
                continue;
            }
            match self.read_pack_end(&id, is_remote) {
                Ok(pack) => packs.push(pack),
                // Deleted or unreadable since, or sealed under a key that was given up: its blobs are simply stored again.
                Err(error) if error.is_damage() || matches!(error, Error::KeysRotated { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    /// Reads what a pack says of itself, and all of it for its hash and CRC-32, unless the store's word
    /// for the latter is to do.
    pub(crate) fn read_pack_end(&self, id: &PackId, trusts_store: bool) -> Result<SegmentPack> {
        let path = layout::pack(id);
        let info = self.store().stat(&path)?;
        let size = info.size;
        let (trailer, contents) = self.read_pack_contents(id, size)?;
        if let (true, Some(crc32)) = (trusts_store, info.crc32) {
            let (salt, epoch) = (trailer.salt, trailer.epoch);
            return Ok(SegmentPack { id: *id, salt, epoch, crc32, size, contents });
        }
        let (hash, crc32) = self.hash_pack(id, size)?;
        if hash != *id.as_bytes() {
            return Err(Error::Damaged { object: path.to_string(), source: None });
        }
        Ok(SegmentPack { id: *id, salt: trailer.salt, epoch: trailer.epoch, crc32, size, contents })
    }

    /// Reads all of a pack of this size, for its hash and CRC-32.
    pub(crate) fn hash_pack(&self, id: &PackId, size: u64) -> Result<([u8; 32], u32)> {
        let path = layout::pack(id);
        let (mut hasher, mut crc) = (blake3::Hasher::new(), crc32fast::Hasher::new());
        let mut buffer = Vec::new();
        let mut offset = 0;
        while offset < size {
            let end = size.min(offset + (1 << 20));
            self.store().read(&path, offset..end, &mut buffer)?;
            hasher.update(&buffer);
            crc.update(&buffer);
            offset = end;
        }
        Ok((*hasher.finalize().as_bytes(), crc.finalize()))
    }

    /// Reads trailer and header of a pack of this size.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] and [`Error::KeysRotated`] only of a pack that is whole: in one that has rotted, its
    /// version or epoch may be what did.
    pub(crate) fn read_pack_contents(
        &self,
        id: &PackId,
        size: u64,
    ) -> Result<(Trailer, PackContents)> {
        match self.read_pack_header(id, size) {
            Err(error @ (Error::NewerFormat { .. } | Error::KeysRotated { .. })) => {
                let (hash, _) = self.hash_pack(id, size)?;
                Err(match hash == *id.as_bytes() {
                    true => error,
                    false => Error::Damaged { object: layout::pack(id).to_string(), source: None },
                })
            }
            read => read,
        }
    }

    fn read_pack_header(&self, id: &PackId, size: u64) -> Result<(Trailer, PackContents)> {
        let path = layout::pack(id);
        let damaged = |error| Error::object(&path, error);
        let Some(body_end) = size.checked_sub(TRAILER_BYTES as u64) else {
            return Err(damaged(putback_format::Error::Truncated { what: "a pack" }));
        };
        let mut buffer = Vec::new();
        self.store().read(&path, body_end..size, &mut buffer)?;
        let trailer = Trailer::decode(&buffer, size, self.id()).map_err(damaged)?;
        let header_start = body_end - u64::from(trailer.header_length);
        self.store().read(&path, header_start..body_end, &mut buffer)?;
        let contents = trailer
            .key(self.keys())
            .and_then(|key| key.unseal_header(&buffer, header_start))
            .map_err(damaged)?;
        Ok((trailer, contents))
    }
}

impl Backup {
    /// The repository that it writes to.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What marks and forget records said when it began, but for packs.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Packs of an interrupted run that this one took over.
    #[must_use]
    pub fn adopted_packs(&self) -> u64 {
        self.adopted
    }

    /// From now on `cancel` is told when a storage that is not this machine's has room for little more than what
    /// is under way. A local disk that is full ends the run with its own error.
    pub fn stop_when_full(&self, cancel: Cancel) {
        if self.repository.store().capabilities().is_remote {
            self.writer.stop_when_full(cancel);
        }
    }

    /// What the storage had left when it was found nearly full.
    #[must_use]
    pub fn nearly_full(&self) -> Option<Space> {
        self.writer.nearly_full()
    }

    /// A place to gather blobs; one for each worker and kind.
    #[must_use]
    pub fn frame_writer(&self, kind: BlobKind) -> FrameWriter {
        self.writer.frame_writer(kind)
    }

    /// Whether a blob of an earlier snapshot can be relied on; if so, the new one needs its pack.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn require(&self, id: &BlobId) -> Result<bool> {
        self.repository.index().require(id)
    }

    /// Takes an error of reading for what it says: a blob of which no copy can be read is unknown from now on, and
    /// so is what lies beside it. Other errors change nothing.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn note_damage(&self, error: &Error) -> Result<()> {
        let (Error::BlobDamaged { blob, .. } | Error::BlobLost { blob, .. }) = error else {
            return Ok(());
        };
        let index = self.repository.index();
        for location in index.find_all(blob)? {
            if let Some(id) = index.pack_id(location.pack)
                && index.distrust(&[id])
            {
                self.repository.warn(format!(
                    "pack {id} is damaged; a backup stores again what it needs of it"
                ));
            }
        }
        Ok(())
    }

    /// Counts so far.
    #[must_use]
    pub fn written(&self) -> Written {
        self.writer.written()
    }

    /// Makes everything that was put durable and indexed. All frame writers must have been flushed.
    ///
    /// # Errors
    /// The first failure of any worker.
    pub fn flush(&self) -> Result<()> {
        self.writer.flush()
    }

    /// Writes a snapshot of what was put; all frame writers must have been flushed.
    ///
    /// # Errors
    /// - [`Error::CommitContended`]: packs that it needs kept being removed.
    /// - [`Error::PacksLost`]: packs that it needs are gone or damaged, and writers know so from now on: whatever
    ///   was found known may be unknown, so that putting everything once more ends well.
    /// - [`Error::Store`], [`Error::Damaged`]: the store failed, or did not return what was written.
    pub fn commit(&self, draft: SnapshotDraft) -> Result<StoredSnapshot> {
        self.commit_counting(draft, |writer| Some(writer.written().stored_bytes))
    }

    /// As [`Backup::commit`], for a snapshot whose content an earlier one had: its counts stay.
    ///
    /// # Errors
    /// As [`Backup::commit`].
    pub fn commit_again(&self, draft: SnapshotDraft) -> Result<StoredSnapshot> {
        self.commit_counting(draft, |_| None)
    }

    fn commit_counting(
        &self,
        draft: SnapshotDraft,
        stored_bytes: impl Fn(&PackWriter) -> Option<u64>,
    ) -> Result<StoredSnapshot> {
        self.writer.flush()?;
        let repository = &self.repository;
        let window = repository.times().commit_window;
        for _ in 0..ATTEMPTS {
            // Where all clocks are one and can jump, a lock keeps prune's last steps away.
            let lock = repository.store().lock(LockMode::Shared)?;
            let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
            let recent = begun.filter(|begun| {
                let age = repository.since_boot().saturating_sub(*begun);
                lock.is_none() && age < window / 2
            });
            let started = recent.unwrap_or_else(|| repository.since_boot());
            if recent.is_none() {
                let endangered = self.endangered_packs()?;
                if !endangered.is_empty() {
                    self.rescue(&endangered)?;
                    continue;
                }
            }
            // Until the snapshot is there nobody else on this machine takes its number.
            let numbering = repository.state().lock()?;
            let mut snapshot = self.complete(draft.clone())?;
            if let Some(bytes) = stored_bytes(&self.writer) {
                snapshot.statistics.bytes_stored = bytes;
            }
            let object = repository.seal(ObjectKind::Snapshot, &snapshot.encode())?;
            let id = SnapshotId::of_stored(&object);
            let path = layout::snapshot(&id);
            repository.state().add_pending(&id)?;
            if repository.since_boot().saturating_sub(started) > window {
                repository.state().remove_pending(&id)?;
                continue;
            }
            repository.write_object(&path, &object)?;
            let read_back = repository.read_snapshot(&id)?;
            let is_late = repository.since_boot().saturating_sub(started) > window;
            if is_late || !self.endangered_packs()?.is_empty() {
                drop(numbering);
                self.withdraw(StoredSnapshot { id, snapshot })?;
                continue;
            }
            if read_back != snapshot {
                return Err(Error::Damaged {
                    object: format!("{path}, just written,"),
                    source: None,
                });
            }
            let sequences = BTreeMap::from([(snapshot.writer, snapshot.sequence)]);
            repository.state().note_seen(&Seen { sequences, ..Seen::default() })?;
            repository.state().remove_pending(&id)?;
            repository.save_index();
            self.is_committed.store(true, Ordering::Relaxed);
            return Ok(StoredSnapshot { id, snapshot });
        }
        Err(Error::CommitContended)
    }

    /// Takes a snapshot back that came too late, or that needs what will go. Others may have seen it meanwhile, and tell
    /// of its number: a forget record says that it is not lost.
    fn withdraw(&self, stored: StoredSnapshot) -> Result<()> {
        let repository = &self.repository;
        let path = layout::snapshot(&stored.id);
        let taken = BTreeMap::from([(stored.snapshot.writer, stored.snapshot.sequence)]);
        let numbering = repository.state().lock()?;
        repository.state().note_seen(&Seen { sequences: taken, ..Seen::default() })?;
        drop(numbering);
        let id = stored.id;
        repository.forget(&[stored])?;
        // All rows of the name: a lost answer may have left two.
        let info = repository.store().stat(&path)?;
        repository.store().delete(&[ObjectInfo { service_id: None, ..info }])?;
        let _lock = repository.state().lock()?;
        repository.state().remove_pending(&id)
    }

    fn complete(&self, draft: SnapshotDraft) -> Result<Snapshot> {
        let state = self.repository.state();
        let writer = state.writer()?;
        let seen = state.seen()?.sequences;
        let sorted = |mut paths: Vec<Vec<u8>>| {
            paths.sort();
            paths.dedup();
            paths
        };
        let mut tags = draft.tags;
        tags.sort();
        tags.dedup();
        let mut snapshot = Snapshot {
            root: draft.root,
            time: draft.time,
            utc_offset: draft.utc_offset,
            host: draft.host,
            user: draft.user,
            paths: sorted(draft.paths),
            tags,
            description: draft.description,
            program: draft.program,
            parent: draft.parent,
            complete: draft.complete,
            statistics: draft.statistics,
            incidents: draft.incidents,
            config_generation: self.repository.config().generation,
            writer,
            sequence: seen.get(&writer).copied().unwrap_or_default() + 1,
            seen: seen.into_iter().filter(|(other, _)| *other != writer).collect(),
            unknown: draft.unknown,
        };
        snapshot.trim_incidents();
        snapshot.validate().map_err(Error::encode("a snapshot"))?;
        Ok(snapshot)
    }

    /// Needed packs that are marked, tombstoned, lost or no longer indexed. Marks are listed first: a pack that
    /// is marked later is safe for as long as prune's grace period, which is longer than the window.
    fn endangered_packs(&self) -> Result<Vec<PackId>> {
        let needed = self.repository.index().needed();
        self.repository.load_index_for_writing()?;
        let index = self.repository.index();
        let indexed: BTreeSet<PackId> = index.packs().into_iter().map(|(_, id)| id).collect();
        Ok(needed.into_iter().filter(|id| index.is_avoided(id) || !indexed.contains(id)).collect())
    }

    /// Stores anew what the packs hold and no safe pack does.
    ///
    /// # Errors
    /// [`Error::PacksLost`] if some of it cannot be read any more.
    fn rescue(&self, packs: &[PackId]) -> Result<()> {
        let mut lost = Vec::new();
        for id in packs {
            match self.rescue_pack(id) {
                Ok(true) => {}
                Ok(false) => lost.push(*id),
                Err(error) if error.is_damage() => lost.push(*id),
                Err(error) => return Err(error),
            }
        }
        self.writer.flush()?;
        // What they held is needed from other packs now; else they would endanger every further attempt.
        let index = self.repository.index();
        for id in packs {
            index.release(id);
        }
        if lost.is_empty() { Ok(()) } else { Err(Error::PacksLost { packs: lost }) }
    }

    /// False if a blob could not be read and is in no other pack.
    fn rescue_pack(&self, id: &PackId) -> Result<bool> {
        let size = self.repository.store().stat(&layout::pack(id))?.size;
        let (trailer, contents) = self.repository.read_pack_contents(id, size)?;
        let pack = SegmentPack {
            id: *id,
            salt: trailer.salt,
            epoch: trailer.epoch,
            crc32: 0,
            size,
            contents,
        };
        let mut writer = self.writer.frame_writer(pack.contents.kind);
        let mut is_whole = true;
        let read = self.repository.read_pack_blobs(&pack, &mut |blob, plain| {
            match plain {
                Some(plain) => drop(writer.put(plain)?),
                None => is_whole &= self.require(blob)?,
            }
            Ok(())
        });
        // Also after a failure: what was put counts as stored from then on.
        writer.flush()?;
        read.map(|()| is_whole)
    }

    /// Ends the run. If it committed a snapshot and stored something for it, index segments are merged where
    /// there are many; that fails with a warning only.
    ///
    /// # Errors
    /// The first failure of any worker.
    pub fn finish(self) -> Result<Written> {
        let written = self.writer.finish()?;
        if written.packs > 0 && self.is_committed.into_inner() {
            self.repository.compact_after_commit();
        }
        Ok(written)
    }
}
