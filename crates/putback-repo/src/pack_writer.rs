//! Frames to packs, packs to the store.
//!
//! Readers gather blobs in a [`FrameWriter`] of their own. Full frames go through a bounded channel to
//! *sealers*, which compress, place, seal, open again, compare and append them; a *finisher* closes
//! full packs, waits until the store has them safely, and ends index segments. So the reading of
//! one huge file keeps every core busy, and no worker waits for a disk to sync.
//!
//! Memory: `(frames waiting + sealers) × (3 × frame_bytes)` and two packs of each kind in the
//! state of their upload; a pack is never held whole unless the store's upload does.
//!
//! Order that makes a backup safe: a pack is durable before the journal names it, and a segment
//! names only durable packs. `commit.rs` says the rest.
//!
//! Without sealers the caller's own thread does it all, one thing after another: what happens when is then
//! decided by the store alone.
//!
//! One of the few files that start threads; they end with [`PackWriter::finish`] or its drop, whoever still
//! holds a [`FrameWriter`]: the way into the channel is in one place, and is taken away there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use putback_format::compress::{Codec, Compressor, Decompressor};
use putback_format::id::{BlobId, PackId};
use putback_format::key::BlobKind;
use putback_format::limits::SEGMENT_BYTES_TARGET;
use putback_format::pack::{FrameHead, PackBuilder, PackKey, TRAILER_BYTES};
use putback_format::seal::SEAL_OVERHEAD_BYTES;
use putback_format::segment::{Segment, SegmentPack};
use putback_store::{ErrorKind, Space, Upload};

use crate::Repository;
use crate::error::{Error, Result};
use crate::layout;
use crate::observe::Cancel;
use crate::tree_cache::NewPack;

/// Packs of one kind that take frames at the same time: one that fills, one whose rest is being used up.
const OPEN_PACKS: usize = 2;
/// A pack with less room than this is full: at most 0.4 % of the smallest pack.
const ROOM_LEAST: u64 = 32 << 10;
/// A frame that is shortened to fill a pack is not made shorter than this.
const SHORT_FRAME_LEAST: u64 = 128 << 10;

/// Packs that may be open or waiting for the store at the same time.
const PACKS_UNDER_WAY: u64 = 10;
/// Room that is left for trees, a segment and a snapshot: a checkpoint of a nearly full storage.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// Blobs on their way into one frame.
struct Frame {
    kind: BlobKind,
    content: Content,
    blobs: Vec<(BlobId, u32)>,
}

enum Content {
    /// Still to be compressed.
    Plain(Vec<u8>),
    /// As another pack has it.
    Coded { codec: Codec, coded: Vec<u8>, plain_length: u32 },
}

impl Frame {
    fn plain_length(&self) -> u32 {
        match &self.content {
            Content::Plain(plain) => plain.len() as u32,
            Content::Coded { plain_length, .. } => *plain_length,
        }
    }
}

struct OpenPack {
    key: PackKey,
    salt: [u8; 32],
    /// Set by the placing side, under the lock of all open packs.
    placing: Mutex<Placing>,
    /// Set by the appending side.
    appending: Mutex<Appending>,
}

struct Placing {
    builder: PackBuilder,
    /// Somebody makes a frame that fills the rest.
    is_reserved: bool,
}

struct Appending {
    upload: Option<Box<dyn Upload>>,
    /// The same bytes for the local cache, if they are trees and worth it.
    kept: Option<NewPack>,
    hasher: blake3::Hasher,
    crc: crc32fast::Hasher,
    /// Ordinal of the frame that comes next in the file.
    next: u32,
    /// Sealed frames that came early.
    early: BTreeMap<u32, Vec<u8>>,
    /// Number of frames when no more will come, and whether the pack is then full.
    closed: Option<(u32, bool)>,
}

/// Counts of what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Blobs that were new.
    pub blobs: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// Bytes that the store took, of packs and segments.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
}

#[derive(Default)]
struct Progress {
    /// Frames that were handed over and are not yet appended.
    frames: usize,
    /// Packs that were opened and are not yet durable.
    packs: usize,
}

struct Shared {
    repository: Repository,
    level: i32,
    is_dry: bool,
    open: Mutex<[Vec<Arc<OpenPack>>; 2]>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    failure: Mutex<Option<Error>>,
    has_failed: std::sync::atomic::AtomicBool,
    unindexed: Mutex<Vec<SegmentPack>>,
    blobs: AtomicU64,
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    packs: AtomicU64,
    /// The way to the sealers; none once the writer has ended.
    way: Mutex<Option<Way>>,
    /// Frame writers with blobs that were not handed over.
    gathering: AtomicUsize,
    finish: Sender<Arc<OpenPack>>,
    sealers: AtomicUsize,
    /// Whom to stop when the storage is nearly full.
    to_stop: OnceLock<Cancel>,
    /// How much could be stored in all when the storage told its space last; nothing before that.
    room_end: AtomicU64,
    /// What the storage had left when it was found nearly full.
    nearly_full: Mutex<Option<Space>>,
}

/// How frames become packs.
#[derive(Clone)]
enum Way {
    /// Through threads.
    Threads(Sender<Frame>),
    /// On the thread of whoever has one.
    Caller(Arc<Mutex<Sealer>>),
}

/// Writes packs; shared by all workers of an operation.
pub struct PackWriter {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    has_ended: bool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere has been noted as a failure, which every caller checks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PackWriter {
    /// Starts the threads. `level` is the zstd level, `sealers` how many cores to use; without any, all is done
    /// by the callers. A dry writer compresses and counts, and stores nothing.
    ///
    /// # Errors
    /// [`Error::Local`] if the system gives no thread.
    pub(crate) fn new(
        repository: &Repository,
        level: i32,
        sealers: usize,
        is_dry: bool,
    ) -> Result<Self> {
        let (frames, frames_receiver) = crossbeam_channel::bounded(sealers);
        let way = match sealers {
            0 => Way::Caller(Arc::new(Mutex::new(Sealer::new(level)?))),
            _ => Way::Threads(frames),
        };
        // Bounded too: when the store is slower than the workers, they wait.
        let (finish, finish_receiver) = crossbeam_channel::bounded(2);
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            level,
            is_dry,
            open: Mutex::default(),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            failure: Mutex::default(),
            has_failed: false.into(),
            unindexed: Mutex::default(),
            blobs: 0.into(),
            plain_bytes: 0.into(),
            stored_bytes: 0.into(),
            packs: 0.into(),
            way: Mutex::new(Some(way)),
            gathering: 0.into(),
            finish,
            sealers: sealers.into(),
            to_stop: OnceLock::new(),
            room_end: 0.into(),
            nearly_full: Mutex::default(),
        });
        let mut writer = Self { shared, threads: Vec::new(), has_ended: false };
        if sealers == 0 {
            return Ok(writer);
        }
        for number in 0..sealers {
            let (shared, frames) = (Arc::clone(&writer.shared), frames_receiver.clone());
            writer.spawn(format!("seal-{number}"), move || shared.seal_frames(&frames))?;
        }
        let finishers = repository.store().capabilities().connections.clamp(1, 4);
        for number in 0..finishers {
            let (shared, packs) = (Arc::clone(&writer.shared), finish_receiver.clone());
            writer.spawn(format!("finish-{number}"), move || shared.finish_packs(&packs))?;
        }
        Ok(writer)
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.clone()).spawn(work);
        let thread =
            thread.map_err(|source| Error::Local { path: format!("thread {name}"), source })?;
        self.threads.push(thread);
        Ok(())
    }

    /// A place to gather blobs of one kind; one for each worker.
    pub fn frame_writer(&self, kind: BlobKind) -> FrameWriter {
        let frame_bytes = u64::from(self.shared.repository.config().frame_bytes);
        FrameWriter {
            shared: Arc::clone(&self.shared),
            kind,
            plain: Vec::new(),
            blobs: Vec::new(),
            budget: frame_bytes,
            frame_bytes,
        }
    }

    /// Counts so far.
    pub fn written(&self) -> Written {
        Written {
            blobs: self.shared.blobs.load(Ordering::Relaxed),
            plain_bytes: self.shared.plain_bytes.load(Ordering::Relaxed),
            stored_bytes: self.shared.stored_bytes.load(Ordering::Relaxed),
            packs: self.shared.packs.load(Ordering::Relaxed),
        }
    }

    /// From now on `cancel` is told when the storage has room for little more than what is under way.
    pub(crate) fn stop_when_full(&self, cancel: Cancel) {
        // The first one stays: a writer belongs to one operation.
        let _ = self.shared.to_stop.set(cancel);
    }

    /// What the storage had left when it was found nearly full.
    pub(crate) fn nearly_full(&self) -> Option<Space> {
        *guard(&self.shared.nearly_full)
    }

    /// Closes all packs, shorter ones too, waits until they are durable, and writes the segment that names them.
    /// Frames that a [`FrameWriter`] still gathers are not part of it: flush those before.
    ///
    /// # Errors
    /// The first failure of any thread.
    pub fn flush(&self) -> Result<()> {
        self.wait(|progress| progress.frames == 0)?;
        let rest: Vec<_> = guard(&self.shared.open).iter_mut().flat_map(std::mem::take).collect();
        for pack in rest {
            self.shared.close(&pack, false)?;
        }
        self.wait(|progress| progress.packs == 0)?;
        self.shared.write_segment(true)
    }

    fn wait(&self, until: impl Fn(&Progress) -> bool) -> Result<()> {
        let mut progress = guard(&self.shared.progress);
        while !until(&progress) && !self.shared.has_failed.load(Ordering::Acquire) {
            progress =
                self.shared.progressed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        drop(progress);
        self.shared.check()
    }

    /// Stores packs of an earlier run that no segment names.
    pub(crate) fn adopt(&self, packs: Vec<SegmentPack>) -> Result<()> {
        guard(&self.shared.unindexed).extend(packs);
        self.shared.write_segment(true)
    }

    /// Flushes and ends the threads. A [`FrameWriter`] that is still there can hand over nothing more.
    ///
    /// # Errors
    /// As [`PackWriter::flush`]; [`Error::Unflushed`] if there is a frame writer with blobs that were not flushed.
    pub fn finish(mut self) -> Result<Written> {
        let result = self.flush();
        self.stop();
        result?;
        if self.shared.gathering.load(Ordering::Acquire) > 0 {
            // They were claimed, and are nowhere.
            self.shared.repository.index().forget_claims();
            return Err(Error::Unflushed);
        }
        Ok(self.written())
    }

    fn stop(&mut self) {
        self.has_ended = true;
        guard(&self.shared.way).take();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail(Error::WorkerFailed);
            }
        }
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if !self.has_ended {
            // Ended without `finish`: what is under way is given up; unfinished uploads leave nothing.
            self.shared.has_failed.store(true, Ordering::Release);
            self.stop();
            self.shared.repository.index().forget_claims();
        }
    }
}

/// Gathers blobs for frames. Every claimed blob must be pushed, and [`FrameWriter::flush`] called at the end.
pub struct FrameWriter {
    shared: Arc<Shared>,
    kind: BlobKind,
    plain: Vec<u8>,
    blobs: Vec<(BlobId, u32)>,
    budget: u64,
    frame_bytes: u64,
}

impl FrameWriter {
    /// Stores a blob if it is new, and yields its id.
    ///
    /// # Errors
    /// The first failure of any thread of the writer.
    pub fn put(&mut self, plain: &[u8]) -> Result<BlobId> {
        self.put_with(plain).map(|(id, _)| id)
    }

    /// As [`FrameWriter::put`]; also says whether the blob was new.
    ///
    /// # Errors
    /// The first failure of any thread of the writer.
    pub fn put_with(&mut self, plain: &[u8]) -> Result<(BlobId, bool)> {
        let repository = &self.shared.repository;
        let id = repository.id_keys().blob_id(self.kind, plain);
        let is_new = repository.index().claim(&id)?;
        if is_new {
            self.push(id, plain)?;
        }
        Ok((id, is_new))
    }

    /// Adds a blob whatever the index says.
    pub(crate) fn push(&mut self, id: BlobId, plain: &[u8]) -> Result<()> {
        self.shared.check()?;
        let length = plain.len() as u64;
        let filled = self.plain.len() as u64;
        if filled > 0 && filled + length > self.budget {
            self.flush()?;
        }
        if self.plain.is_empty() {
            self.budget = self.shared.frame_budget(self.kind, self.frame_bytes, length);
            self.plain.reserve(self.budget.max(length) as usize);
        }
        if self.blobs.is_empty() {
            self.shared.gathering.fetch_add(1, Ordering::AcqRel);
        }
        self.plain.extend_from_slice(plain);
        self.blobs.push((id, plain.len() as u32));
        if self.plain.len() as u64 >= self.budget {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands over the frame as it is.
    ///
    /// # Errors
    /// The first failure of any thread of the writer.
    pub fn flush(&mut self) -> Result<()> {
        if self.blobs.is_empty() {
            return self.shared.check();
        }
        let plain = std::mem::take(&mut self.plain);
        let blobs = std::mem::take(&mut self.blobs);
        self.shared.gathering.fetch_sub(1, Ordering::AcqRel);
        self.hand_over(Frame { kind: self.kind, content: Content::Plain(plain), blobs })
    }

    /// Adds a frame of another pack as it was coded there, with all its blobs, which the caller has verified. False
    /// if no pack has room for it.
    pub(crate) fn push_coded(
        &mut self,
        codec: Codec,
        coded: &[u8],
        blobs: Vec<(BlobId, u32)>,
    ) -> Result<bool> {
        self.shared.check()?;
        let plain_length = blobs.iter().map(|(_, length)| *length).sum();
        let empty = PackBuilder::new(self.kind, self.shared.repository.config().pack_bytes);
        if empty.room(blobs.len()) < coded.len() as u64 {
            return Ok(false);
        }
        let content = Content::Coded { codec, coded: coded.to_vec(), plain_length };
        self.hand_over(Frame { kind: self.kind, content, blobs }).map(|()| true)
    }

    fn hand_over(&self, frame: Frame) -> Result<()> {
        self.shared.blobs.fetch_add(frame.blobs.len() as u64, Ordering::Relaxed);
        self.shared.plain_bytes.fetch_add(u64::from(frame.plain_length()), Ordering::Relaxed);
        self.shared.watch_room()?;
        // A copy for the moment: who waits for room in the channel keeps nobody else from it.
        let way = guard(&self.shared.way).clone();
        match way {
            None => Err(Error::WorkerFailed),
            Some(Way::Caller(sealer)) => {
                self.shared.check()?;
                let sealed = self.shared.seal_frame(&mut guard(&sealer), &frame);
                sealed.unwrap_or_else(|error| self.shared.fail(error));
                self.shared.check()
            }
            Some(Way::Threads(frames)) => {
                guard(&self.shared.progress).frames += 1;
                if frames.send(frame).is_ok() {
                    self.shared.check()
                } else {
                    Err(Error::WorkerFailed)
                }
            }
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        // What it gathered is given up, which ends no run that does not rely on it.
        if !self.blobs.is_empty() {
            self.shared.gathering.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What a sealer reuses from frame to frame.
struct Sealer {
    compressor: Compressor,
    decompressor: Decompressor,
    coded: Vec<u8>,
    opened: Vec<u8>,
    plain: Vec<u8>,
}

impl Sealer {
    fn new(level: i32) -> Result<Self> {
        let made = || {
            Ok(Self {
                compressor: Compressor::new(level)?,
                decompressor: Decompressor::new()?,
                coded: Vec::new(),
                opened: Vec::new(),
                plain: Vec::new(),
            })
        };
        made().map_err(Error::encode("a compressor"))
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // The first to ask gets the cause, all others learn that there was one.
        Err(guard(&self.failure).take().unwrap_or(Error::WorkerFailed))
    }

    fn fail(&self, error: Error) {
        let mut failure = guard(&self.failure);
        if !self.has_failed.swap(true, Ordering::AcqRel) {
            *failure = Some(error);
        }
        drop(failure);
        let _progress = guard(&self.progress);
        self.progressed.notify_all();
    }

    /// Plain bytes that the next frame should have: less than usual where that fills a pack.
    fn frame_budget(&self, kind: BlobKind, frame_bytes: u64, first_blob: u64) -> u64 {
        for pack in &guard(&self.open)[kind as usize] {
            let mut placing = guard(&pack.placing);
            // The table grows by a blob for each chunk: leave room for as many as are likely.
            let room = placing.builder.room(64);
            if room < frame_bytes
                && room >= SHORT_FRAME_LEAST.max(first_blob)
                && !placing.is_reserved
            {
                placing.is_reserved = true;
                return room;
            }
        }
        frame_bytes
    }

    fn seal_frames(&self, frames: &Receiver<Frame>) {
        let mut sealer = match Sealer::new(self.level) {
            Ok(sealer) => Some(sealer),
            Err(error) => {
                self.fail(error);
                None
            }
        };
        let _working = Working(self);
        for frame in frames {
            let _under_way = UnderWay { shared: self, count: |progress| &mut progress.frames };
            // After a failure the channel is only emptied, so that nobody waits for room in it.
            if let Some(sealer) = &mut sealer
                && !self.has_failed.load(Ordering::Acquire)
            {
                self.seal_frame(sealer, &frame).unwrap_or_else(|error| self.fail(error));
            }
        }
    }

    fn seal_frame(&self, sealer: &mut Sealer, frame: &Frame) -> Result<()> {
        let made = Error::encode;
        let Sealer { compressor, decompressor, coded, opened, plain: again } = sealer;
        let (codec, coded) = match &frame.content {
            Content::Plain(plain) => {
                let codec = compressor.compress(plain, coded).map_err(made("a frame"))?;
                (codec, coded.as_slice())
            }
            Content::Coded { codec, coded, .. } => (*codec, coded.as_slice()),
        };
        if self.is_dry {
            let stored = coded.len() + SEAL_OVERHEAD_BYTES;
            self.stored_bytes.fetch_add(stored as u64, Ordering::Relaxed);
            return Ok(());
        }
        let plain_length = frame.plain_length();
        let (pack, ordinal) = self.place(frame, codec, plain_length, coded.len())?;
        let head = FrameHead { kind: frame.kind, ordinal, codec, plain_length };
        let mut sealed = Vec::new();
        pack.key.seal_frame(head, coded, &mut sealed).map_err(made("a frame"))?;

        // Compressors and memory do fail: what cannot be opened must not be counted as stored.
        pack.key.unseal_frame(head, &sealed, opened).map_err(made("a frame"))?;
        let is_same = match &frame.content {
            Content::Plain(plain) => {
                decompressor
                    .decompress(codec, opened, plain.len(), again)
                    .map_err(made("a frame"))?;
                again == plain
            }
            // These bytes have been decompressed, and all their blobs compared.
            Content::Coded { coded, .. } => opened == coded,
        };
        if !is_same {
            let why = "it opened to other bytes";
            return Err(made("a frame")(putback_format::Error::SelfCheck { what: "a frame", why }));
        }
        self.append(&pack, ordinal, sealed)
    }

    /// Finds the pack in which the frame leaves the least room, or begins one.
    fn place(
        &self,
        frame: &Frame,
        codec: Codec,
        plain_length: u32,
        coded_length: usize,
    ) -> Result<(Arc<OpenPack>, u32)> {
        let mut open = guard(&self.open);
        let packs = &mut open[frame.kind as usize];
        let room = |pack: &Arc<OpenPack>| guard(&pack.placing).builder.room(frame.blobs.len());
        let best = (0..packs.len())
            .filter(|index| room(&packs[*index]) >= coded_length as u64)
            .min_by_key(|index| room(&packs[*index]));
        let mut closing = Vec::new();
        let index = if let Some(index) = best {
            index
        } else {
            if packs.len() >= OPEN_PACKS {
                let fullest = (0..packs.len()).min_by_key(|index| room(&packs[*index]));
                closing.extend(fullest.map(|index| packs.remove(index)));
            }
            packs.push(self.begin_pack(frame.kind)?);
            packs.len() - 1
        };
        let pack = Arc::clone(&packs[index]);
        let mut placing = guard(&pack.placing);
        let ordinal = placing
            .builder
            .push(codec, plain_length, coded_length, &frame.blobs)
            .map_err(Error::encode("a pack"))?;
        placing.is_reserved = false;
        let is_full = placing.builder.room(1) < ROOM_LEAST;
        drop(placing);
        if is_full {
            closing.push(packs.remove(index));
        }
        drop(open);
        for pack in closing {
            self.close(&pack, true)?;
        }
        Ok((pack, ordinal))
    }

    fn begin_pack(&self, kind: BlobKind) -> Result<Arc<OpenPack>> {
        let repository = &self.repository;
        let salt = repository.machine().random()?;
        let epoch = repository.config().epoch;
        let master = repository.keys().master("a pack", epoch).map_err(Error::encode("a pack"))?;
        let key = PackKey::new(master, repository.id(), epoch, salt);
        let upload = repository.store().upload(layout::PACKS)?;
        let kept = match kind {
            BlobKind::Tree => repository.inner.trees.begin(),
            BlobKind::Data => None,
        };
        guard(&self.progress).packs += 1;
        Ok(Arc::new(OpenPack {
            key,
            salt,
            placing: Mutex::new(Placing {
                builder: PackBuilder::new(kind, repository.config().pack_bytes),
                is_reserved: false,
            }),
            appending: Mutex::new(Appending {
                upload: Some(upload),
                kept,
                hasher: blake3::Hasher::new(),
                crc: crc32fast::Hasher::new(),
                next: 0,
                early: BTreeMap::new(),
                closed: None,
            }),
        }))
    }

    /// No frame will be placed in this pack any more. Its last frame may still be on its way.
    fn close(&self, pack: &Arc<OpenPack>, is_full: bool) -> Result<()> {
        let frames = guard(&pack.placing).builder.frames();
        let mut appending = guard(&pack.appending);
        appending.closed = Some((frames, is_full));
        let is_complete = appending.next == frames;
        drop(appending);
        if is_complete { self.hand_to_finisher(pack) } else { Ok(()) }
    }

    fn append(&self, pack: &Arc<OpenPack>, ordinal: u32, sealed: Vec<u8>) -> Result<()> {
        let mut appending = guard(&pack.appending);
        appending.early.insert(ordinal, sealed);
        while let Some(sealed) = {
            let next = appending.next;
            appending.early.remove(&next)
        } {
            appending.write(&sealed)?;
            appending.next += 1;
        }
        let is_complete = appending.closed.is_some_and(|(frames, _)| frames == appending.next);
        drop(appending);
        if is_complete { self.hand_to_finisher(pack) } else { Ok(()) }
    }

    fn hand_to_finisher(&self, pack: &Arc<OpenPack>) -> Result<()> {
        if matches!(*guard(&self.way), Some(Way::Caller(_))) {
            let finished = self.finish_pack(pack);
            guard(&self.progress).packs -= 1;
            return finished;
        }
        self.finish.send(Arc::clone(pack)).map_err(|_| Error::WorkerFailed)
    }

    fn finish_packs(&self, packs: &Receiver<Arc<OpenPack>>) {
        // The sender lives in `self`, so the channel never closes: leave when nobody can send.
        loop {
            match packs.recv_timeout(std::time::Duration::from_millis(20)) {
                Ok(pack) => {
                    let _under_way =
                        UnderWay { shared: self, count: |progress| &mut progress.packs };
                    if !self.has_failed.load(Ordering::Acquire) {
                        self.finish_pack(&pack).unwrap_or_else(|error| self.fail(error));
                    }
                }
                Err(_) if self.sealers.load(Ordering::Acquire) == 0 && packs.is_empty() => return,
                Err(_) => {}
            }
        }
    }

    fn finish_pack(&self, pack: &OpenPack) -> Result<()> {
        let mut appending = guard(&pack.appending);
        let is_full = appending.closed.is_some_and(|(_, is_full)| is_full);
        let builder = {
            let mut placing = guard(&pack.placing);
            let empty = PackBuilder::new(BlobKind::Data, 0);
            std::mem::replace(&mut placing.builder, empty)
        };
        let body_length = builder.body_length();
        let (contents, end) =
            builder.finish(&pack.key, is_full).map_err(Error::encode("a pack"))?;
        let zeros = [0; 8192];
        let mut padding = end.padding;
        while padding > 0 {
            let piece = padding.min(zeros.len() as u64);
            appending.write(&zeros[..piece as usize])?;
            padding -= piece;
        }
        appending.write(&end.tail)?;
        let size = body_length + end.padding + end.tail.len() as u64;
        debug_assert!(end.tail.len() > TRAILER_BYTES);
        let id = PackId::from_bytes(*appending.hasher.finalize().as_bytes());
        let crc32 = appending.crc.clone().finalize();
        let Some(upload) = appending.upload.take() else { return Err(Error::WorkerFailed) };
        let kept = appending.kept.take();
        drop(appending);
        let info = upload.finish(&layout::pack(&id))?;
        if info.size != size || info.crc32.is_some_and(|stored| stored != crc32) {
            return Err(Error::Damaged {
                object: format!("pack {id}, just written,"),
                source: None,
            });
        }
        if let Some(kept) = kept {
            kept.keep(&self.repository.inner.trees, &id);
        }
        self.stored_bytes.fetch_add(size, Ordering::Relaxed);
        self.packs.fetch_add(1, Ordering::Relaxed);
        let epoch = self.repository.config().epoch;
        let pack = SegmentPack { id, salt: pack.salt, epoch, crc32, size, contents };
        let mut unindexed = guard(&self.unindexed);
        // Under the lock: the journal is emptied only when a segment names all that it lists.
        self.repository.state().journal_pack(&id)?;
        unindexed.push(pack);
        drop(unindexed);
        self.watch_space()?;
        self.write_segment(false)
    }

    /// How much is stored, and how much more room what is under way and a checkpoint take at most.
    fn room_needed(&self) -> (u64, u64) {
        let stored = self.stored_bytes.load(Ordering::Relaxed);
        let not_stored = self.plain_bytes.load(Ordering::Relaxed).saturating_sub(stored);
        let packs_open = self.repository.config().pack_bytes * PACKS_UNDER_WAY;
        (stored, not_stored.min(packs_open) + CHECKPOINT_BYTES)
    }

    /// With each frame for a storage that gets whole packs: what is under way must not be more than there is room for
    /// before the first pack has arrived. A local one takes them piece by piece, and its space tells of the pieces.
    fn watch_room(&self) -> Result<()> {
        if self.to_stop.get().is_none() || !self.repository.store().capabilities().is_remote {
            return Ok(());
        }
        let (stored, needed) = self.room_needed();
        let is_known_to_fit = stored + needed <= self.room_end.load(Ordering::Relaxed);
        if is_known_to_fit || guard(&self.nearly_full).is_some() {
            return Ok(());
        }
        self.watch_space()
    }

    /// Asks the operation to stop while what is under way, and a checkpoint, still fit.
    fn watch_space(&self) -> Result<()> {
        let Some(cancel) = self.to_stop.get() else { return Ok(()) };
        let (stored_before, _) = self.room_needed();
        let space = match self.repository.store().space() {
            Ok(space) => space,
            // Nobody can write any more.
            Err(error) if error.kind == ErrorKind::Unauthorized => return Err(error.into()),
            // The next pack tells whether there is room for it.
            Err(_) => None,
        };
        let end = space.map_or(u64::MAX, |space| stored_before.saturating_add(space.available));
        self.room_end.store(end, Ordering::Relaxed);
        let (_, needed) = self.room_needed();
        if let Some(space) = space.filter(|space| space.available < needed) {
            guard(&self.nearly_full).get_or_insert(space);
            cancel.cancel();
        }
        Ok(())
    }

    /// Writes a segment of the packs that none names, if they are enough for one or if asked.
    fn write_segment(&self, is_asked: bool) -> Result<()> {
        let mut unindexed = guard(&self.unindexed);
        let length: usize =
            unindexed.iter().map(|pack| Segment::pack_encoded_length(&pack.contents)).sum();
        if unindexed.is_empty() || (!is_asked && length < SEGMENT_BYTES_TARGET as usize) {
            return Ok(());
        }
        let segment = Segment { packs: std::mem::take(&mut unindexed), ..Segment::default() };
        let written = self.repository.write_segment(&segment).and_then(|(id, bytes)| {
            self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.repository.index().add_written(id, &segment)
        });
        if let Err(error) = written {
            // Their blobs count as stored: the next flush names them, or fails as well.
            *unindexed = segment.packs;
            return Err(error);
        }
        self.repository.state().clear_journal()?;
        drop(unindexed);
        Ok(())
    }
}

/// A sealer that works. The last one to leave ends the finishers: no pack can come any more.
struct Working<'a>(&'a Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if self.0.sealers.fetch_sub(1, Ordering::AcqRel) == 1 {
            guard(&self.0.open).iter_mut().for_each(Vec::clear);
        }
    }
}

/// A frame or a pack that a thread is at. Also a thread that panics counts it down, and says that it failed, or who
/// waits for it would wait for ever.
struct UnderWay<'a> {
    shared: &'a Shared,
    count: fn(&mut Progress) -> &mut usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(Error::WorkerFailed);
        }
        let mut progress = guard(&self.shared.progress);
        *(self.count)(&mut progress) -= 1;
        self.shared.progressed.notify_all();
    }
}

impl Appending {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.crc.update(bytes);
        if self.kept.as_mut().is_some_and(|kept| !kept.append(bytes)) {
            self.kept = None;
        }
        match &mut self.upload {
            Some(upload) => Ok(upload.append(bytes)?),
            None => Err(Error::WorkerFailed),
        }
    }
}
