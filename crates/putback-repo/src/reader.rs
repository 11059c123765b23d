//! Packs to frames, frames to verified blobs.
//!
//! A [`FrameReader`] belongs to one worker and reuses its buffers; [`FrameReader::read_frames`] joins
//! neighbouring frames into few requests. Where a request costs a round trip, it takes all frames of a pack
//! from one response while that comes in, and frames of trees through `tree_cache.rs`. Single blobs (trees, `cat`) go through a small shared cache of
//! frames. Every blob that leaves this file has been verified against its id.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use putback_format::compress::Decompressor;
use putback_format::id::{BlobId, PackId};
use putback_format::key::BlobKind;
use putback_format::pack::{FrameHead, PackKey};
use putback_format::segment::SegmentPack;
use putback_store::{ErrorKind, Operation};

use crate::error::{Error, Result, is_damage};
use crate::index::{BlobLocation, PackNumber};
use crate::index_table::PackRecord;
use crate::{Repository, layout};

/// Bytes of frames that are read with one request on a local disk; larger frames come alone.
const REQUEST_BYTES: u64 = 4 << 20;
/// Bytes of a tree pack that are read with one request where it costs a round trip: the frames behind the
/// wanted one are kept, since a walk asks for them next.
const TREE_REQUEST_BYTES: u64 = 8 << 20;
/// Gaps up to this size are read rather than skipped on a local disk.
const GAP_BYTES_LOCAL: u64 = 128 << 10;
/// The same where a request costs a round trip.
const GAP_BYTES_REMOTE: u64 = 1 << 20;
/// Plain bytes of frames that are kept for the next single blob.
const CACHE_BYTES: usize = 24 << 20;

/// Frames kept for the next single blob, the oldest use first.
#[derive(Default)]
pub(crate) struct FrameCache(Mutex<Vec<CachedFrame>>);

/// Pack, number, plain bytes.
type CachedFrame = (PackId, u32, Arc<Vec<u8>>);

impl FrameCache {
    fn get(&self, pack: &PackId, frame: u32) -> Option<Arc<Vec<u8>>> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = frames.iter().rposition(|(id, number, _)| id == pack && *number == frame)?;
        let entry = frames.remove(at);
        let plain = Arc::clone(&entry.2);
        frames.push(entry);
        Some(plain)
    }

    fn put(&self, pack: PackId, frame: u32, plain: Arc<Vec<u8>>) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.push((pack, frame, plain));
        let mut bytes: usize = frames.iter().map(|(_, _, plain)| plain.len()).sum();
        while bytes > CACHE_BYTES && frames.len() > 1 {
            bytes -= frames.remove(0).2.len();
        }
    }
}

/// How often a pack must have been absent before it is not asked for any more.
const ABSENCES_LEAST: u32 = 3;

/// Packs that were absent when they were read: how often, and when for the last time. Whoever restores many files of
/// one need not ask the store for each.
pub(crate) type AbsentPacks = HashMap<PackId, (u32, Duration)>;

/// A frame that came back.
pub struct WantedFrame<'a> {
    /// Its number in the pack.
    pub frame: u32,
    /// Its plain bytes, or why there are none. The blobs in it are not verified yet.
    pub plain: Result<&'a [u8]>,
    /// The same as its codec left them; empty if there are none.
    pub coded: &'a [u8],
}

/// Takes each blob of a pack with its plain bytes, none if they are damaged.
pub(crate) type EachBlob<'a> = dyn FnMut(&BlobId, Option<&[u8]>) -> Result<()> + 'a;

/// Reads and opens frames; one per worker.
pub struct FrameReader {
    repository: Repository,
    decompressor: Decompressor,
    stored: Vec<u8>,
    coded: Vec<u8>,
    plain: Vec<u8>,
}

impl FrameReader {
    /// A reader.
    ///
    /// # Errors
    /// [`Error::Encode`] if there is no memory for a decompressor.
    pub fn new(repository: &Repository) -> Result<Self> {
        Ok(Self {
            repository: repository.clone(),
            decompressor: Decompressor::new().map_err(Error::encode("a decompressor"))?,
            stored: Vec::new(),
            coded: Vec::new(),
            plain: Vec::new(),
        })
    }

    /// Reads `frames` (ascending, without repetition) of a pack and hands over each in turn.
    ///
    /// A frame that cannot be read or opened is handed over as an error, and the next ones go on.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn read_frames(
        &mut self,
        pack: &PackRecord,
        frames: &[u32],
        mut each: impl FnMut(WantedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let key = self.key(pack)?;
        let offsets = offsets(pack);
        let joining = Joining::of(&self.repository, pack);
        let Joining { is_remote, is_kept, .. } = joining;
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let range = |frame: &u32| offsets.get(*frame as usize).copied();
            let Some((start, end)) = range(first) else {
                each(WantedFrame { frame: *first, plain: Err(unknown_frame(pack)), coded: &[] })?;
                rest = &rest[1..];
                continue;
            };
            if is_kept && self.open_kept(pack, &key, *first, start..end) {
                each(WantedFrame { frame: *first, plain: Ok(&self.plain), coded: &self.coded })?;
                rest = &rest[1..];
                continue;
            }
            let (count, end) = joining.join(&offsets, rest, start..end);
            let (group, others) = rest.split_at(count);
            rest = others;
            let is_local = !is_kept && !is_remote;
            if is_local || self.repository.absence(&pack.id).is_some() {
                self.read_group(pack, &key, &offsets, group, start..end, &mut each)?;
            } else if is_kept {
                self.read_ahead(pack, &key, &offsets, group, start..end, &mut each)?;
            } else {
                self.read_stream(pack, &key, &offsets, group, start..end, &mut each)?;
            }
        }
        Ok(())
    }

    /// Opens a frame that was kept; false if it was not, or is damaged.
    fn open_kept(
        &mut self,
        pack: &PackRecord,
        key: &PackKey,
        frame: u32,
        range: Range<u64>,
    ) -> bool {
        let trees = &self.repository.inner.trees;
        trees.read(&pack.id, range, &mut self.stored)
            && open_frame(
                key,
                pack,
                frame,
                &self.stored,
                &mut self.decompressor,
                &mut self.coded,
                &mut self.plain,
            )
            .is_ok()
    }

    /// Reads a group of a tree pack and the frames behind it, as many as one request may take, and keeps them.
    fn read_ahead(
        &mut self,
        pack: &PackRecord,
        key: &PackKey,
        offsets: &[(u64, u64)],
        group: &[u32],
        range: Range<u64>,
        each: &mut impl FnMut(WantedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let limit = range.start + TREE_REQUEST_BYTES;
        let ends = offsets.iter().map(|(_, to)| *to).take_while(|to| *to <= limit);
        let ahead = range.start..range.end.max(ends.last().unwrap_or_default());
        let store = self.repository.store();
        if let Err(error) = store.read(&layout::pack(&pack.id), ahead, &mut self.stored) {
            self.repository.note_absence(&pack.id, &error);
            return self.read_group(pack, key, offsets, group, range, each);
        }
        self.repository.inner.trees.write(&pack.id, range.start, &self.stored);
        self.open_group(pack, key, offsets, group, range.start, each)
    }

    /// Reads a group in one request and opens its frames while they come in.
    fn read_stream(
        &mut self,
        pack: &PackRecord,
        key: &PackKey,
        offsets: &[(u64, u64)],
        group: &[u32],
        range: Range<u64>,
        each: &mut impl FnMut(WantedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let path = layout::pack(&pack.id);
        let mut position = range.start;
        let mut waiting = group;
        let mut result = Ok(());
        let Self { repository, decompressor, stored, coded, plain } = self;
        stored.clear();
        let read = repository.store().read_pieces(&path, range, &mut |mut piece| {
            while let (Some(frame), false) = (waiting.first(), piece.is_empty()) {
                let (from, to) = offsets[*frame as usize];
                let is_wanted = position >= from;
                let until = if is_wanted { to } else { from };
                let length = usize::try_from(until - position).unwrap_or(usize::MAX);
                let (these, others) = piece.split_at(length.min(piece.len()));
                if is_wanted {
                    stored.extend_from_slice(these);
                }
                position += these.len() as u64;
                piece = others;
                if position < to {
                    continue;
                }
                waiting = &waiting[1..];
                let opened = open_frame(key, pack, *frame, stored, decompressor, coded, plain);
                stored.clear();
                result = each(match opened {
                    Ok(()) => WantedFrame { frame: *frame, plain: Ok(plain), coded },
                    Err(error) => damaged_frame(pack, *frame, error),
                });
                if result.is_err() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        result?;
        match read {
            Ok(()) => Ok(()),
            // What the store has tried long enough, or will refuse again, need not be asked frame by frame.
            Err(error) if !error.is_about_object() => Err(error.into()),
            Err(error) => {
                self.repository.note_absence(&pack.id, &error);
                for frame in waiting {
                    let (from, to) = offsets[*frame as usize];
                    self.read_group(pack, key, offsets, &[*frame], from..to, each)?;
                }
                Ok(())
            }
        }
    }

    fn read_group(
        &mut self,
        pack: &PackRecord,
        key: &PackKey,
        offsets: &[(u64, u64)],
        group: &[u32],
        range: Range<u64>,
        each: &mut impl FnMut(WantedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        let path = layout::pack(&pack.id);
        let start = range.start;
        let read = match self.repository.absence(&pack.id) {
            Some(error) => Err(error),
            None => self
                .repository
                .store()
                .read(&path, range, &mut self.stored)
                .inspect_err(|error| self.repository.note_absence(&pack.id, error)),
        };
        if let Err(error) = read {
            if group.len() > 1 {
                // One bad sector, or a pack cut short, must not take its neighbours with it.
                for frame in group {
                    let (from, to) = offsets[*frame as usize];
                    self.read_group(pack, key, offsets, &[*frame], from..to, each)?;
                }
                return Ok(());
            }
            let plain = Err(error.into());
            return each(WantedFrame { frame: group[0], plain, coded: &[] });
        }
        self.open_group(pack, key, offsets, group, start, each)
    }

    /// Opens the frames of a group in `stored`, which begins at `start` of the pack.
    fn open_group(
        &mut self,
        pack: &PackRecord,
        key: &PackKey,
        offsets: &[(u64, u64)],
        group: &[u32],
        start: u64,
        each: &mut impl FnMut(WantedFrame<'_>) -> Result<()>,
    ) -> Result<()> {
        for frame in group {
            let (from, to) = offsets[*frame as usize];
            let stored = &self.stored[(from - start) as usize..(to - start) as usize];
            let opened = open_frame(
                key,
                pack,
                *frame,
                stored,
                &mut self.decompressor,
                &mut self.coded,
                &mut self.plain,
            );
            each(match opened {
                Ok(()) => WantedFrame { frame: *frame, plain: Ok(&self.plain), coded: &self.coded },
                Err(error) => damaged_frame(pack, *frame, error),
            })?;
        }
        Ok(())
    }

    fn key(&self, pack: &PackRecord) -> Result<PackKey> {
        let master = self.repository.keys().master("a pack", pack.epoch);
        let master = master.map_err(|error| Error::object(layout::pack(&pack.id), error))?;
        Ok(PackKey::new(master, self.repository.id(), pack.epoch, pack.salt))
    }
}

/// How neighbouring frames are joined into one request.
#[derive(Clone, Copy)]
struct Joining {
    is_remote: bool,
    /// Frames of trees are kept by this machine.
    is_kept: bool,
    gap: u64,
    bytes_max: u64,
}

impl Joining {
    fn of(repository: &Repository, pack: &PackRecord) -> Self {
        let is_remote = repository.store().capabilities().is_remote;
        let is_kept = pack.kind == BlobKind::Tree && repository.inner.trees.is_enabled();
        let (gap, bytes_max) = match is_remote {
            true if is_kept => (0, TREE_REQUEST_BYTES),
            true => (GAP_BYTES_REMOTE, u64::MAX),
            false => (GAP_BYTES_LOCAL, REQUEST_BYTES),
        };
        Self { is_remote, is_kept, gap, bytes_max }
    }

    /// How many of `frames`, the first of which lies at `first`, come with one request, and where that ends.
    fn join(&self, offsets: &[(u64, u64)], frames: &[u32], first: Range<u64>) -> (usize, u64) {
        let Range { start, mut end } = first;
        let mut count = 1;
        for next in frames.get(1..).unwrap_or_default() {
            match offsets.get(*next as usize).copied() {
                Some((from, to)) if from <= end + self.gap && to - start <= self.bytes_max => {
                    end = to;
                }
                _ => break,
            }
            count += 1;
        }
        (count, end)
    }
}

/// How many requests it takes to read these frames (ascending) of a pack, once the walk through the trees has
/// kept what this machine keeps.
pub(crate) fn requests_for(repository: &Repository, pack: &PackRecord, frames: &[u32]) -> u64 {
    let joining = Joining::of(repository, pack);
    if joining.is_kept {
        return 0;
    }
    let offsets = offsets(pack);
    let (mut rest, mut requests) = (frames, 0);
    while let Some((start, end)) =
        rest.first().and_then(|first| offsets.get(*first as usize)).copied()
    {
        rest = &rest[joining.join(&offsets, rest, start..end).0..];
        requests += 1;
    }
    requests
}

/// Where each frame begins and ends.
fn offsets(pack: &PackRecord) -> Vec<(u64, u64)> {
    let mut end = 0;
    pack.frames
        .iter()
        .map(|frame| {
            let start = end;
            end += u64::from(frame.stored_length);
            (start, end)
        })
        .collect()
}

fn damaged_frame(
    pack: &PackRecord,
    frame: u32,
    error: putback_format::Error,
) -> WantedFrame<'static> {
    let error = Error::object(format!("frame {frame} of pack {}", pack.id), error);
    WantedFrame { frame, plain: Err(error), coded: &[] }
}

fn unknown_frame(pack: &PackRecord) -> Error {
    Error::Damaged { object: format!("the index entry of pack {}", pack.id), source: None }
}

/// Unseals and decompresses one frame of a pack.
pub(crate) fn open_frame(
    key: &PackKey,
    pack: &PackRecord,
    frame: u32,
    stored: &[u8],
    decompressor: &mut Decompressor,
    coded: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Result<(), putback_format::Error> {
    let entry = &pack.frames[frame as usize];
    let head = FrameHead {
        kind: pack.kind,
        ordinal: frame,
        codec: entry.codec,
        plain_length: entry.plain_length,
    };
    key.unseal_frame(head, stored, coded)?;
    decompressor.decompress(entry.codec, coded, entry.plain_length as usize, plain)
}

/// The part of a frame that is a blob.
fn slice<'a>(plain: &'a [u8], location: &BlobLocation) -> Option<&'a [u8]> {
    let start = location.offset as usize;
    plain.get(start..start.checked_add(location.length as usize)?)
}

impl Repository {
    /// The part of a frame that is this blob, verified against its id.
    ///
    /// # Errors
    /// [`Error::BlobDamaged`] if it is not.
    pub fn verify_blob<'a>(
        &self,
        kind: BlobKind,
        id: &BlobId,
        pack: &PackId,
        plain: &'a [u8],
        location: &BlobLocation,
    ) -> Result<&'a [u8]> {
        match slice(plain, location) {
            Some(bytes) if self.id_keys().blob_id(kind, bytes) == *id => Ok(bytes),
            _ => {
                let source = Some(putback_format::Error::IdMismatch.into());
                Err(Error::BlobDamaged { blob: *id, pack: *pack, source })
            }
        }
    }

    /// Reads a pack by its table and hands over every blob with its plain bytes; none if they are not those of its id
    /// or cannot be read any more.
    ///
    /// # Errors
    /// What `each` returns; [`Error::Damaged`] if the key of its epoch is unknown; [`Error::Store`].
    pub(crate) fn read_pack_blobs(
        &self,
        pack: &SegmentPack,
        each: &mut EachBlob<'_>,
    ) -> Result<()> {
        let record = PackRecord::of(pack);
        let contents = &pack.contents;
        let frames: Vec<u32> = (0..record.frames.len() as u32).collect();
        let mut blobs = contents.ids.iter().zip(&contents.lengths);
        FrameReader::new(self)?.read_frames(&record, &frames, |wanted| {
            let count = record.frames[wanted.frame as usize].blobs as usize;
            let mut rest = match wanted.plain {
                Ok(plain) => Some(plain),
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error),
            };
            for (id, length) in blobs.by_ref().take(count) {
                let split = rest.and_then(|plain| plain.split_at_checked(*length as usize));
                rest = split.map(|(_, others)| others);
                let plain = split.map(|(blob, _)| blob);
                let is_right = |blob: &&[u8]| self.id_keys().blob_id(contents.kind, blob) == *id;
                each(id, plain.filter(is_right))?;
            }
            Ok(())
        })
    }

    /// What is needed to read a pack.
    ///
    /// # Errors
    /// [`Error::Local`] if the local tables cannot be read.
    pub fn pack(&self, pack: PackNumber) -> Result<PackRecord> {
        self.index().pack(pack)
    }

    /// The plain bytes of a blob, from whichever copy is whole.
    ///
    /// Costs one ranged read of its pack, none if its frame was read lately. If no copy can be read, marks and index
    /// are loaded again: a prune may have moved the blob since.
    ///
    /// # Errors
    /// - [`Error::BlobUnknown`]: no index names it.
    /// - [`Error::BlobLost`]: the packs that held it are missing.
    /// - [`Error::BlobDamaged`]: no copy is whole.
    pub fn read_blob(&self, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>> {
        self.load_index_once()?;
        let places = self.places(id)?;
        let failure = match self.read_any_copy(kind, id, &places) {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        match self.load_index_again() {
            // Not what this blob lacks: that is said already.
            Err(error) if error.is_damage() => return Err(failure),
            loaded => loaded?,
        }
        let mut moved = self.places(id)?;
        moved.retain(|(pack, _)| places.iter().all(|(tried, _)| tried != pack));
        if moved.is_empty() { Err(failure) } else { self.read_any_copy(kind, id, &moved) }
    }

    /// Remembers that a pack was not there, if this says so.
    fn note_absence(&self, id: &PackId, error: &putback_store::Error) {
        if error.is_not_found() {
            let now = self.since_boot();
            let mut absent = self.inner.absent.lock().unwrap_or_else(PoisonError::into_inner);
            let (count, last) = absent.entry(*id).or_default();
            (*count, *last) = (count.saturating_add(1), now);
        }
    }

    /// What the store has said lately of a pack that was absent again and again. It is asked once more when
    /// somebody may have brought it back.
    fn absence(&self, id: &PackId) -> Option<putback_store::Error> {
        let mut absent = self.inner.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = *absent.get(id)?;
        if self.since_boot().saturating_sub(last) >= self.times().second_look {
            absent.remove(id);
            return None;
        }
        let path = layout::pack(id);
        (count >= ABSENCES_LEAST)
            .then(|| putback_store::Error::new(ErrorKind::NotFound, Operation::Read, path.as_str()))
    }

    /// Every pack that holds a copy of a blob, and where.
    fn places(&self, id: &BlobId) -> Result<Vec<(PackId, BlobLocation)>> {
        let places = self.index().find_all(id)?.into_iter();
        Ok(places.filter_map(|at| Some((self.index().pack_id(at.pack)?, at))).collect())
    }

    fn read_any_copy(
        &self,
        kind: BlobKind,
        id: &BlobId,
        places: &[(PackId, BlobLocation)],
    ) -> Result<Vec<u8>> {
        let mut failure = None;
        for (_, location) in places {
            match self.read_copy(kind, id, *location) {
                Ok(plain) => return Ok(plain),
                // What one copy lost is no answer as long as another one could not be looked at.
                Err(error) if !error.is_damage() => failure = Some(error),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        Err(failure.unwrap_or(Error::BlobUnknown { blob: *id }))
    }

    /// Loads marks and index unless that was done a moment ago: many blobs may be missing at once.
    fn load_index_again(&self) -> Result<()> {
        let mut last = self.inner.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.since_boot();
        let pause = self.times().second_look;
        if last.is_none_or(|last| now.saturating_sub(last) >= pause) {
            *last = Some(now);
            self.load_index()?;
        }
        Ok(())
    }

    fn read_copy(&self, kind: BlobKind, id: &BlobId, location: BlobLocation) -> Result<Vec<u8>> {
        let pack = self.pack(location.pack)?;
        let cache = &self.inner.frames;
        if let Some(plain) = cache.get(&pack.id, location.frame) {
            return self.verify_blob(kind, id, &pack.id, &plain, &location).map(<[u8]>::to_vec);
        }
        let mut result = Err(unknown_frame(&pack));
        FrameReader::new(self)?.read_frames(&pack, &[location.frame], |wanted| {
            result = wanted.plain.and_then(|plain| {
                let blob = self.verify_blob(kind, id, &pack.id, plain, &location)?.to_vec();
                cache.put(pack.id, location.frame, Arc::new(plain.to_vec()));
                Ok(blob)
            });
            Ok(())
        })?;
        result.map_err(|error| match error {
            Error::Damaged { source, .. } => {
                let source = source.map(Into::into);
                Error::BlobDamaged { blob: *id, pack: pack.id, source }
            }
            Error::Store(error) if is_damage(&error) && error.is_not_found() => {
                Error::BlobLost { blob: *id, pack: pack.id }
            }
            Error::Store(error) if is_damage(&error) => {
                Error::BlobDamaged { blob: *id, pack: pack.id, source: Some(error.into()) }
            }
            error => error,
        })
    }

    /// The plain bytes of one chunk of a file.
    ///
    /// # Errors
    /// As [`Repository::read_blob`].
    pub fn read_data_blob(&self, id: &BlobId) -> Result<Vec<u8>> {
        self.read_blob(BlobKind::Data, id)
    }

    /// The plain bytes of many blobs, in any order, each with its id; one that is asked for twice comes once.
    /// Frames of one pack are read together.
    ///
    /// # Errors
    /// As [`Repository::read_blob`], and those of `each`.
    pub fn read_blobs(
        &self,
        kind: BlobKind,
        ids: &[BlobId],
        each: &mut dyn FnMut(BlobId, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.load_index_once()?;
        let mut wanted = Vec::with_capacity(ids.len());
        for id in ids {
            let location = self.index().find(id)?.ok_or(Error::BlobUnknown { blob: *id })?;
            wanted.push((location.pack, location.frame, location.offset, *id, location));
        }
        wanted.sort_unstable_by_key(|(pack, frame, offset, id, _)| (*pack, *frame, *offset, *id));
        wanted.dedup_by_key(|(_, _, _, id, _)| *id);
        let mut reader = FrameReader::new(self)?;
        let mut elsewhere = Vec::new();
        for in_pack in wanted.chunk_by(|first, second| first.0 == second.0) {
            let pack = self.pack(in_pack[0].0)?;
            let mut in_frames = in_pack.chunk_by(|first, second| first.1 == second.1);
            let frames: Vec<u32> = in_frames.clone().map(|blobs| blobs[0].1).collect();
            reader.read_frames(&pack, &frames, |frame| {
                for (_, _, _, id, location) in in_frames.next().unwrap_or_default() {
                    let plain = frame.plain.as_ref().ok();
                    let blob =
                        plain.map(|plain| self.verify_blob(kind, id, &pack.id, plain, location));
                    match blob {
                        Some(Ok(blob)) => each(*id, blob)?,
                        // Another copy may be whole; if none is, reading it alone says why.
                        _ => elsewhere.push(*id),
                    }
                }
                Ok(())
            })?;
        }
        for id in elsewhere {
            each(id, &self.read_blob(kind, &id)?)?;
        }
        Ok(())
    }
}
