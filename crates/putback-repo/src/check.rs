//! Is everything there, and is it what was written?
//!
//! The structure: every object has the bytes that its name promises, every pack that the index names has its
//! size, every tree page of every snapshot opens, every chunk is indexed. With data: every byte of every pack is
//! hashed, unsealed, decompressed and hashed again as blobs. The local index is not used, and with data
//! nothing that is kept on this machine, so what is proven is what another machine would find. Without data,
//! objects that were downloaded before are taken from the local cache if the store still reports their checksum.
//!
//! Damage is named by the object, and by the files that it hurts; every snapshot that lost something is named with the
//! number of its files that did. Damage is only what [`Error::is_damage`] says: a store that cannot be reached, or an
//! object of a newer program that others depend on, ends the check with that error.

mod hurts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use putback_format::compress::Decompressor;
use putback_format::envelope::ObjectKind;
use putback_format::id::{BlobId, MarkId, PackId, SegmentId, SlotId, SnapshotId};
use putback_format::mark::Mark;
use putback_format::pack::PackContents;
use putback_format::segment::Segment;
use putback_format::slot::Slot;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind, Timestamp};
use putback_store::ObjectInfo;

use self::hurts::{Hurts, WrongBlobs};
use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::index::PackNumber;
use crate::index_load::{Unread, is_gone_or_damaged};
use crate::index_table::PackRecord;
use crate::lost::shown;
use crate::observe::{Amount, Cancel, Event, Observer, Phase};
use crate::open::list_configs;
use crate::reader::open_frame;
use crate::snapshots::{StoredSnapshot, missing_numbers};
use crate::state::Seen;
use crate::workers::share_out;
use crate::{Repository, layout, read_verified};

/// Damages that are listed one by one; further ones are counted.
const DAMAGES_MAX: usize = 1000;
/// Bytes that are read at once on a local disk.
const PIECE_BYTES_LOCAL: u64 = 4 << 20;
/// The same where a request costs a round trip; one such piece for each worker is in memory.
const PIECE_BYTES_REMOTE: u64 = 16 << 20;

/// What is said of a pack that the index names and the store does not.
pub(crate) const MISSING: &str = "it is missing";

/// How much of the data to read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReadData {
    /// None: the structure only.
    #[default]
    No,
    /// All of it.
    All,
    /// The `n`-th of `of` parts, from 1: all parts together are everything.
    Part {
        /// Which part.
        n: u32,
        /// How many there are.
        of: u32,
    },
    /// About this share of the packs, chosen anew each time: 0 to 100.
    Percent(f64),
    /// Packs of about this many bytes together, chosen anew each time.
    Bytes(u64),
}

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// How much of the data to read.
    pub read: ReadData,
    /// How many cores to use.
    pub workers: usize,
    /// Stops the check.
    pub cancel: Cancel,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// Paths that it hurts, each with one of its snapshots; the first 100.
    pub hurts: Vec<(SnapshotId, Vec<u8>)>,
    /// How many paths it hurts.
    pub hurts_total: u64,
    /// There may be more than that: they were not all looked for, or not counted to the last.
    pub hurts_at_least: bool,
}

impl Damage {
    /// The pack, if it is one or a part of one.
    pub(crate) fn pack(&self) -> Option<PackId> {
        let (_, name) = self.object.rsplit_once("packs/")?;
        name.parse().ok()
    }
}

/// A snapshot that lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HurtSnapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its time, if it can be read.
    pub time: Option<Timestamp>,
    /// Files of which something is lost.
    pub files: u64,
    /// Directories of which something is lost: what was in there is not known, nor counted.
    pub directories: u64,
    /// It cannot be read at all.
    pub is_unreadable: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Snapshots, checkpoints among them.
    pub snapshots: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Blobs that the index names, duplicates counted.
    pub blobs: u64,
    /// Packs that were read.
    pub packs_read: u64,
    /// Bytes of these.
    pub bytes_read: u64,
    /// What is wrong, the first 1,000.
    pub damages: Vec<Damage>,
    /// How much is wrong.
    pub damages_total: u64,
    /// Every snapshot that lost something, the newest first, then those that cannot be read: the others are whole, as
    /// far as data was read and unless the check was stopped.
    pub hurt_snapshots: Vec<HurtSnapshot>,
    /// Snapshots that need a newer program: nothing of them was checked.
    pub newer_snapshots: Vec<SnapshotId>,
    /// What speaks for a storage that lost something, or shows an older state than it did. It may be known why;
    /// then [`Repository::accept_rollback`] ends it.
    pub rollback: Vec<String>,
    /// What is worth knowing and not wrong.
    pub warnings: Vec<String>,
    /// Packs that no segment names: left by interrupted runs, or of a backup that is running.
    pub unreferenced_packs: u64,
    /// Whether it was stopped before its end.
    pub is_interrupted: bool,
}

/// Frames of packs that cannot be read.
#[derive(Default)]
struct BadFrames {
    packs: BTreeMap<PackId, BTreeSet<u32>>,
}

impl BadFrames {
    fn contains(&self, pack: &PackId, frame: u32) -> bool {
        self.packs.get(pack).is_some_and(|frames| frames.contains(&frame))
    }
}

/// A pack that the index names and the store lists.
struct ListedPack {
    number: PackNumber,
    id: PackId,
    /// How much of it the store has: what is beyond the size that the index says is none of it.
    bytes: u64,
    /// The store lists it with another size or checksum.
    is_suspect: bool,
}

/// What a walk through trees meets.
enum Step<'a> {
    /// A page that cannot be read, and the path of its directory.
    BadPage { page: BlobId, error: &'a Error, path: &'a [u8] },
    /// A file and its path.
    File { content: &'a Content, path: &'a [u8] },
}

/// A directory on the open path of a walk.
struct OpenDirectory {
    pages: std::vec::IntoIter<BlobId>,
    entries: std::vec::IntoIter<Entry>,
    path_length: usize,
}

impl OpenDirectory {
    /// None if the entry is no directory.
    fn of(entry: &Entry, path_length: usize) -> Option<Self> {
        let EntryKind::Directory { pages } = &entry.kind else { return None };
        Some(Self {
            pages: pages.clone().into_iter(),
            entries: Vec::new().into_iter(),
            path_length,
        })
    }
}

/// What a check found, for whoever repairs it.
pub(crate) struct Survey {
    pub(crate) report: CheckReport,
    /// What is wrong with each pack, in words.
    pub(crate) broken: BTreeMap<PackId, Vec<String>>,
    /// The repository as it was looked at: its index is that of the store.
    pub(crate) repository: Repository,
}

struct Checker<'a> {
    repository: Repository,
    /// If given, data is read of these packs, and of suspect ones.
    only: Option<&'a BTreeSet<PackId>>,
    /// What earlier runs on this machine saw.
    seen: Seen,
    options: &'a CheckOptions,
    observer: &'a dyn Observer,
    report: Mutex<CheckReport>,
    bad: Mutex<BadFrames>,
    wrong: Mutex<WrongBlobs>,
    broken: Mutex<BTreeMap<PackId, Vec<String>>>,
}

/// What is wrong with an object, beside whose name it is told.
pub(crate) fn describe_object(error: &Error) -> String {
    match error {
        Error::Store(error) if error.is_not_found() => MISSING.to_owned(),
        Error::Damaged { source: None, .. } => {
            "its bytes are not those that its name promises".to_owned()
        }
        Error::Damaged { source: Some(source), .. } => describe(source),
        error => describe(error),
    }
}

/// The error with its causes, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Repository {
    /// Checks the repository. What is wrong is in the report; errors are what kept the check from going on.
    ///
    /// # Errors
    /// - [`Error::Store`] if the store cannot be listed, or fails in a way that says nothing of an object. What had
    ///   been found before is among the warnings.
    /// - [`Error::NewerFormat`], [`Error::KeysRotated`]: what this run cannot read, and others can.
    pub fn check(&self, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
        let uses_cache = options.read == ReadData::No;
        Ok(self.survey(options, None, uses_cache, observer)?.report)
    }

    /// As [`Repository::check`], with more in its answer. With `only`, data is read of these packs, of those that are
    /// listed with another size or checksum, and of no others.
    pub(crate) fn survey(
        &self,
        options: &CheckOptions,
        only: Option<&BTreeSet<PackId>>,
        uses_cache: bool,
        observer: &dyn Observer,
    ) -> Result<Survey> {
        let checker = Checker {
            repository: self.with_fresh_index(uses_cache),
            only,
            seen: self.seen_if_readable(),
            options,
            observer,
            report: Mutex::default(),
            bad: Mutex::default(),
            wrong: Mutex::default(),
            broken: Mutex::default(),
        };
        let done = checker.run();
        let Checker { repository, report, broken, .. } = checker;
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = done {
            for message in repository.take_warnings() {
                self.warn(message);
            }
            // Hours may have been spent on finding it.
            for Damage { object, message, .. } in report.damages {
                self.warn(format!("found before the check failed: {object}: {message}"));
            }
            return Err(error);
        }
        report.warnings.extend(repository.take_warnings());
        let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Survey { report, broken, repository })
    }
}

impl Checker<'_> {
    fn run(&self) -> Result<()> {
        self.check_small_objects()?;
        self.load_segments()?;
        let packs = self.check_pack_listing()?;
        let snapshots = self.read_snapshots()?;
        self.check_trees(&snapshots)?;
        if self.options.read != ReadData::No || self.only.is_some() {
            self.read_packs(&self.choose(packs)?)?;
        }
        let hurting = self.name_hurt_files(&snapshots)?;
        self.excuse_marked_packs(hurting.as_ref());
        if self.options.cancel.is_cancelled() {
            self.report().is_interrupted = true;
        }
        Ok(())
    }

    fn report(&self) -> std::sync::MutexGuard<'_, CheckReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damage(&self, object: impl std::fmt::Display, message: impl std::fmt::Display) {
        let _: Option<usize> = self.damage_of(object, message, Vec::new());
    }

    /// Notes what an error says of an object; one that says nothing of it is returned.
    fn damage_by(&self, object: impl std::fmt::Display, error: Error) -> Result<()> {
        self.damage(object, describe_object(&error.into_damage()?));
        Ok(())
    }

    fn note_bad(&self, pack: PackId, frames: impl IntoIterator<Item = u32>) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in frames {
            bad.packs.entry(pack).or_default().insert(frame);
        }
    }

    fn damage_of_pack(
        &self,
        id: &PackId,
        object: impl std::fmt::Display,
        message: impl std::fmt::Display,
    ) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.entry(*id).or_default().push(message.to_string());
        drop(broken);
        self.damage(object, message);
    }

    fn damage_of(
        &self,
        object: impl std::fmt::Display,
        message: impl std::fmt::Display,
        hurts: Vec<(SnapshotId, Vec<u8>)>,
    ) -> Option<usize> {
        let mut report = self.report();
        report.damages_total += 1;
        let (object, message) = (object.to_string(), message.to_string());
        let place = report.damages.len();
        (place < DAMAGES_MAX).then(|| {
            let hurts_total = hurts.len() as u64;
            let damage = Damage { object, message, hurts, hurts_total, hurts_at_least: false };
            report.damages.push(damage);
            place
        })
    }

    /// Notes that a blob of a tree or file is wrong: once, however many need it. These are named later.
    fn damage_of_blob(
        &self,
        (what, blob): (&str, &BlobId),
        message: impl std::fmt::Display,
        snapshot: SnapshotId,
        path: &[u8],
    ) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.all.insert(*blob) {
            let hurts = vec![(snapshot, shown(path))];
            let place = self.damage_of(format!("{what} {blob}"), message, hurts);
            wrong.listed.extend(place.map(|place| (*blob, place)));
        }
    }

    /// Configurations, slots, their copies, marks, the text for people.
    fn check_small_objects(&self) -> Result<()> {
        let repository = &self.repository;
        let store = repository.store().as_ref();
        self.list(layout::CONFIG, |name| layout::parse_config(name).is_some())?;
        let is_copy = |name: &str| name.starts_with("keys-") || name.starts_with("config-");
        let copies = self.list(layout::COPIES, is_copy)?;
        let mut originals = BTreeSet::new();
        for (generation, _, path) in list_configs(store)? {
            let config = repository.read_sealed(ObjectKind::Config, &path).and_then(|payload| {
                putback_format::config::Config::decode(&payload)
                    .map_err(|error| Error::object(&path, error))
            });
            match config {
                Ok(config)
                    if config.generation == generation && config.repository == repository.id() => {}
                Ok(_) => self.damage(&path, "its name and its content disagree"),
                Err(error) => self.damage_by(&path, error)?,
            }
            originals.insert(path);
        }
        for info in self.list(layout::KEYS, |name| name.parse::<SlotId>().is_ok())? {
            let slot =
                read_verified(store, &info.path, u64::from(ObjectKind::SlotInfo.bytes_max()));
            match slot {
                Ok(bytes) if repository.is_of_other(&info.path, &bytes) => {
                    self.warn_of_other(&info.path);
                    continue;
                }
                Ok(bytes) => {
                    let opened = Slot::decode(&bytes).and_then(|slot| slot.info(repository.keys()));
                    match opened {
                        Ok(_) => {}
                        // Made by a rotation of the keys that did not come to its end, or by a newer program:
                        // nothing else depends on it.
                        Err(
                            error @ (putback_format::Error::UnknownEpoch { .. }
                            | putback_format::Error::UnknownVersion { .. }),
                        ) => {
                            self.report().warnings.push(format!("{}: {error}", info.path));
                        }
                        Err(error) => self.damage(&info.path, error),
                    }
                }
                Err(error) => self.damage_by(&info.path, error)?,
            }
            originals.insert(info.path);
        }
        for info in &copies {
            let limit = u64::from(ObjectKind::Config.bytes_max());
            match read_verified(store, &info.path, limit) {
                Ok(bytes) if repository.is_of_other(&info.path, &bytes) => {
                    self.warn_of_other(&info.path);
                    continue;
                }
                Ok(_) => {}
                Err(error) => self.damage_by(&info.path, error)?,
            }
            if !originals.iter().any(|original| layout::copy(original) == info.path) {
                self.damage(&info.path, "it stands alone: what it is a copy of is gone");
            }
        }
        for copy in originals.iter().map(layout::copy) {
            if !copies.iter().any(|info| info.path == copy) {
                self.damage(&copy, "the second copy is missing");
            }
        }
        for info in self.list(layout::MARKS, |name| name.parse::<MarkId>().is_ok())? {
            let mark = repository.read_sealed(ObjectKind::Mark, &info.path).and_then(|payload| {
                Mark::decode(&payload).map_err(|error| Error::object(&info.path, error))
            });
            if let Err(error) = mark {
                self.damage_by(&info.path, error)?;
            }
        }
        self.list("", |name| name == layout::README_NAME)?;
        match store.read_all(&layout::readme(), 1 << 16) {
            Ok(text) if text == layout::README.as_bytes() => {}
            Ok(_) => self.damage(layout::README_NAME, "it is not the text that putback writes"),
            Err(error) => self.damage_by(layout::README_NAME, Error::Store(error))?,
        }
        Ok(())
    }

    fn warn_of_other(&self, path: &putback_store::ObjectPath) {
        self.report().warnings.push(format!(
            "{path} belongs to another repository, most likely one whose `init` was interrupted; it does no harm"
        ));
    }

    /// Lists a folder; names that do not belong there are worth a warning.
    fn list(&self, folder: &str, is_ours: impl Fn(&str) -> bool) -> Result<Vec<ObjectInfo>> {
        let (ours, foreign): (Vec<_>, Vec<_>) = self
            .repository
            .store()
            .list(folder)?
            .into_iter()
            .partition(|info| is_ours(info.path.name()));
        for info in foreign {
            self.report().warnings.push(format!("{} is not putback's", info.path));
        }
        Ok(ours)
    }

    fn load_segments(&self) -> Result<()> {
        let listed: BTreeSet<SegmentId> = self
            .list(layout::INDEX, |name| name.parse::<SegmentId>().is_ok())?
            .iter()
            .filter_map(|info| info.path.name().parse().ok())
            .collect();
        let total = Amount { items: listed.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::Index, total: Some(total) });
        let read = |id: &SegmentId| {
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::Index, by });
            match self.repository.read_segment(id) {
                // Another one may say what it said.
                Err(error) if is_gone_or_damaged(&error) => Err(error),
                Err(error) => {
                    self.damage_by(layout::segment(id), error)?;
                    Ok(Segment::default())
                }
                segment => segment,
            }
        };
        self.repository.index().load(&listed, read, |unread| {
            let Unread { id, error, is_replaced } = unread;
            let path = layout::segment(&id);
            let is_gone = matches!(&error, Error::Store(error) if error.is_not_found());
            match (is_replaced, is_gone) {
                (false, _) => self.damage_by(path, error)?,
                (true, false) => self.report().warnings.push(format!(
                    "{}; a merged segment says what it said, and the next compaction removes it",
                    describe(&error)
                )),
                // A compactor deleted it since it was listed.
                (true, true) => {}
            }
            Ok(())
        })
    }

    /// Every pack of the index is listed with its size. Yields those that are listed.
    fn check_pack_listing(&self) -> Result<Vec<ListedPack>> {
        let listed: BTreeMap<PackId, ObjectInfo> = self
            .list(layout::PACKS, |name| name.parse::<PackId>().is_ok())?
            .into_iter()
            .filter_map(|info| Some((info.path.name().parse().ok()?, info)))
            .collect();
        let mut packs = Vec::new();
        let mut indexed = IdSet::default();
        let mut blobs = 0;
        for (number, id) in self.repository.index().packs() {
            if !indexed.insert(id) {
                continue;
            }
            let record = self.repository.pack(number)?;
            blobs += record.frames.iter().map(|frame| u64::from(frame.blobs)).sum::<u64>();
            let info = listed.get(&id);
            let wrong = match info {
                None => Some(MISSING.to_owned()),
                Some(info) if info.size != record.size => {
                    Some(format!("it has {} bytes instead of {}", info.size, record.size))
                }
                Some(info) if info.crc32.is_some_and(|crc32| crc32 != record.crc32) => {
                    Some("the storage reports another checksum".to_owned())
                }
                Some(_) => None,
            };
            let bytes = info.map_or(0, |info| info.size.min(record.size));
            let is_suspect = wrong.is_some();
            if let Some(message) = wrong {
                // Without reading it, it is known that a pack cut short holds no more than its first frames.
                let frames = 0..record.frames.len() as u32;
                self.note_bad(id, frames.filter(|frame| record.frame_offset(frame + 1) > bytes));
                self.damage_of_pack(&id, layout::pack(&id), message);
            }
            packs.extend(info.map(|_| ListedPack { number, id, bytes, is_suspect }));
        }
        let unreferenced: Vec<_> =
            listed.into_iter().filter(|(id, _)| !indexed.contains(id)).collect();
        if self.options.read == ReadData::All {
            for (id, info) in &unreferenced {
                self.check_unreferenced(id, info)?;
            }
        }
        let mut report = self.report();
        report.packs = indexed.len() as u64;
        report.blobs = blobs;
        report.unreferenced_packs = unreferenced.len() as u64;
        Ok(packs)
    }

    /// No snapshot needs it, but a later run may take it over by its name: its bytes must be those of the name.
    fn check_unreferenced(&self, id: &PackId, info: &ObjectInfo) -> Result<()> {
        if self.options.cancel.is_cancelled() {
            return Ok(());
        }
        match self.repository.read_pack_end(id, false) {
            Ok(_) => Ok(()),
            // Prune may have taken it since it was listed.
            Err(Error::Store(error)) if error.is_not_found() => Ok(()),
            // Whole: of a newer program, or sealed under a key that was given up.
            Err(Error::NewerFormat { .. } | Error::KeysRotated { .. }) => Ok(()),
            Err(error) => {
                self.damage_of_pack(id, &info.path, describe_object(&error.into_damage()?));
                Ok(())
            }
        }
    }

    /// Snapshots that are not forgotten: nothing has to be there for the others any more.
    fn read_snapshots(&self) -> Result<Vec<StoredSnapshot>> {
        // A mark that cannot be read is a damage already; what the others say holds.
        let marks = self.repository.readable_marks()?;
        let mut snapshots = Vec::new();
        for info in self.list(layout::SNAPSHOTS, |name| name.parse::<SnapshotId>().is_ok())? {
            let Ok(id) = info.path.name().parse::<SnapshotId>() else { continue };
            match self.repository.read_snapshot(&id) {
                Ok(snapshot) => snapshots.push(StoredSnapshot { id, snapshot }),
                Err(error) if marks.forgotten.contains(&id) => {
                    let what = match error {
                        Error::NewerFormat { .. } => error,
                        error => error.into_damage()?,
                    };
                    let message =
                        format!("{}: {}; it is forgotten", info.path, describe_object(&what));
                    self.report().warnings.push(message);
                }
                Err(error @ Error::NewerFormat { .. }) => {
                    let message = format!("{}: {error}; nothing of it was checked", info.path);
                    let mut report = self.report();
                    report.warnings.push(message);
                    report.newer_snapshots.push(id);
                }
                Err(error) => {
                    self.damage_by(&info.path, error)?;
                    self.note_unreadable(id, None);
                }
            }
        }
        let missing = missing_numbers(&snapshots, &marks, &self.seen);
        let mut report = self.report();
        report.rollback.extend(self.repository.older_generation(&self.seen));
        report.rollback.extend(missing.iter().map(ToString::to_string));
        report.snapshots = snapshots.len() as u64;
        drop(report);
        snapshots.retain(|stored| !marks.forgotten.contains(&stored.id));
        self.repository.index().set_marked(marks.packs.into_iter());
        // The newest first: what it lacks matters most.
        snapshots.sort_by_key(|stored| std::cmp::Reverse(stored.snapshot.time));
        Ok(snapshots)
    }

    /// Opens every tree page once, and looks every chunk up.
    fn check_trees(&self, snapshots: &[StoredSnapshot]) -> Result<()> {
        let total = Amount { items: snapshots.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckTrees, total: Some(total) });
        let (mut visited, mut lists) = (IdSet::default(), IdSet::default());
        for stored in snapshots {
            self.check_directory(stored.id, &stored.snapshot.root, &mut visited, &mut lists)?;
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::CheckTrees, by });
        }
        Ok(())
    }

    fn check_directory(
        &self,
        snapshot: SnapshotId,
        root: &Entry,
        visited: &mut IdSet<BlobId>,
        lists: &mut IdSet<BlobId>,
    ) -> Result<()> {
        if !root.is_directory() {
            self.damage(layout::snapshot(&snapshot), "its root is no directory");
            self.note_unreadable(snapshot, None);
            return Ok(());
        }
        self.walk(root, visited, |step| match step {
            Step::BadPage { page, error, path } => {
                self.damage_of_blob(("tree page", &page), describe(error), snapshot, path);
                Ok(())
            }
            Step::File { content, path } => self.check_content(snapshot, content, path, lists),
        })
    }

    /// Goes through all pages below a root that are not among `visited`, and adds them. Directories may be nested
    /// deeper than the stack is: the open path is in memory, with a page for each directory.
    fn walk(
        &self,
        root: &Entry,
        visited: &mut IdSet<BlobId>,
        mut each: impl FnMut(Step<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut path = Vec::new();
        let mut open = Vec::from_iter(OpenDirectory::of(root, 0));
        while let Some(directory) = open.last_mut() {
            path.truncate(directory.path_length);
            if self.options.cancel.is_cancelled() {
                return Ok(());
            }
            let Some(entry) = directory.entries.next() else {
                let Some(page) = directory.pages.next() else {
                    open.pop();
                    continue;
                };
                if visited.insert(page) {
                    match self.repository.read_page(&page) {
                        Ok(entries) => directory.entries = entries.into_iter(),
                        Err(error) => {
                            let error = &error.into_damage()?;
                            each(Step::BadPage { page, error, path: &path })?;
                        }
                    }
                }
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            if let EntryKind::File { content, .. } = &entry.kind {
                each(Step::File { content, path: &path })?;
            }
            open.extend(OpenDirectory::of(&entry, path.len()));
        }
        Ok(())
    }

    fn check_content(
        &self,
        snapshot: SnapshotId,
        content: &Content,
        path: &[u8],
        visited: &mut IdSet<BlobId>,
    ) -> Result<()> {
        match content {
            Content::Inline(_) => Ok(()),
            Content::Chunks(chunks) => self.check_chunks(snapshot, chunks, path),
            Content::Lists { depth, pages } => {
                self.check_lists(snapshot, pages, *depth, path, visited)
            }
        }
    }

    fn check_lists(
        &self,
        snapshot: SnapshotId,
        pages: &[ChunkRef],
        depth: u8,
        path: &[u8],
        visited: &mut IdSet<BlobId>,
    ) -> Result<()> {
        for page in pages {
            if !visited.insert(page.id) {
                continue;
            }
            match self.repository.read_list_page(page, depth) {
                Ok(refs) if depth > 1 => {
                    self.check_lists(snapshot, &refs, depth - 1, path, visited)?;
                }
                Ok(refs) => self.check_chunks(snapshot, &refs, path)?,
                Err(error) => {
                    let message = describe(&error.into_damage()?);
                    self.damage_of_blob(("list page", &page.id), message, snapshot, path);
                }
            }
        }
        Ok(())
    }

    fn check_chunks(&self, snapshot: SnapshotId, chunks: &[ChunkRef], path: &[u8]) -> Result<()> {
        for chunk in chunks {
            let message = match self.repository.index().find(&chunk.id)? {
                None => "no index segment names it",
                Some(location) if u64::from(location.length) != chunk.length => {
                    "the index and the file disagree about its length"
                }
                Some(_) => continue,
            };
            self.damage_of_blob(("blob", &chunk.id), message, snapshot, path);
        }
        Ok(())
    }

    /// The packs to read: suspect ones in any case.
    fn choose(&self, packs: Vec<ListedPack>) -> Result<Vec<ListedPack>> {
        let (mut chosen, mut packs): (Vec<_>, Vec<_>) =
            packs.into_iter().partition(|pack| pack.is_suspect);
        packs.sort_by_key(|pack| pack.id);
        if let Some(only) = self.only {
            chosen.extend(packs.into_iter().filter(|pack| only.contains(&pack.id)));
            return Ok(chosen);
        }
        let all = packs.len();
        if matches!(self.options.read, ReadData::Percent(_) | ReadData::Bytes(_)) {
            let seed = self.repository.machine().random()?;
            packs.sort_by_key(|pack| *blake3::keyed_hash(&seed, pack.id.as_bytes()).as_bytes());
        }
        let mut bytes = 0;
        let is_wanted = |(index, pack): &(usize, ListedPack)| match self.options.read {
            ReadData::No => false,
            ReadData::All => true,
            ReadData::Part { n, of } => *index as u64 % u64::from(of.max(1)) + 1 == u64::from(n),
            ReadData::Percent(percent) => (*index as f64) < (all as f64 * percent / 100.0).ceil(),
            ReadData::Bytes(limit) => {
                let is_wanted = bytes < limit;
                bytes += pack.bytes;
                is_wanted
            }
        };
        let packs = packs.into_iter().enumerate().filter(is_wanted);
        chosen.extend(packs.map(|(_, pack)| pack));
        Ok(chosen)
    }

    fn read_packs(&self, packs: &[ListedPack]) -> Result<()> {
        let bytes = packs.iter().map(|pack| pack.bytes).sum();
        let total = Amount { items: packs.len() as u64, bytes };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckPacks, total: Some(total) });
        let withheld = Mutex::new(None);
        share_out(packs, self.options.workers, &self.options.cancel, |packs| {
            let mut buffers = Buffers::new()?;
            for pack in packs {
                let record = self.repository.pack(pack.number)?;
                match self.read_pack(&record, pack.bytes, &mut buffers) {
                    // It says nothing of the others: they are looked at before it ends the check.
                    Err(Error::Store(error)) if error.is_temporary() && error.is_about_object() => {
                        let path = layout::pack(&pack.id);
                        self.repository.warn(format!("{path} cannot be read just now: {error}"));
                        withheld
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                        continue;
                    }
                    read => read?,
                }
                let mut report = self.report();
                report.packs_read += 1;
                report.bytes_read += pack.bytes;
            }
            Ok(())
        })?;
        let withheld = withheld.into_inner().unwrap_or_else(PoisonError::into_inner);
        withheld.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Reads a pack from its first to its last byte, or to the last one that the store has.
    fn read_pack(&self, record: &PackRecord, bytes: u64, buffers: &mut Buffers) -> Result<()> {
        let path = layout::pack(&record.id);
        let Some(contents) = self.contents_of(record, bytes)? else {
            // Nothing tells what its frames should hold.
            self.note_bad(record.id, 0..record.frames.len() as u32);
            return Ok(());
        };
        let master = self.repository.keys().master("a pack", record.epoch);
        let key = putback_format::pack::PackKey::new(
            master.map_err(|error| Error::object(&path, error))?,
            self.repository.id(),
            record.epoch,
            record.salt,
        );
        let mut hasher = blake3::Hasher::new();
        let mut bad = BTreeSet::new();
        let mut first_blob = 0;
        let is_remote = self.repository.store().capabilities().is_remote;
        let piece_bytes = if is_remote { PIECE_BYTES_REMOTE } else { PIECE_BYTES_LOCAL };
        let (mut offset, mut frame) = (0, 0u32);
        // Frames before this one are read one by one.
        let mut alone_until = 0;
        while offset < bytes {
            // As many whole frames as fit into a piece, then the rest of the pack in pieces.
            let (start, mut end) = (offset, offset);
            let first_frame = frame;
            while let Some(entry) = record.frames.get(frame as usize) {
                let next = end + u64::from(entry.stored_length);
                let is_enough = first_frame < alone_until || next > start + piece_bytes;
                if next > bytes || (frame > first_frame && is_enough) {
                    break;
                }
                end = next;
                frame += 1;
            }
            if frame == first_frame {
                end = bytes.min(start + piece_bytes);
            }
            offset = end;
            let frames = first_frame..frame;
            if let Err(error) = self.repository.store().read(&path, start..end, &mut buffers.stored)
            {
                let is_gone = error.is_not_found();
                let error = Error::Store(error).into_damage()?;
                if frames.len() > 1 && !is_gone {
                    // One bad sector must not take its neighbours with it.
                    (alone_until, offset, frame) = (frame, start, first_frame);
                    continue;
                }
                let object = match frames.len() {
                    1 => format!("frame {first_frame} of {path}"),
                    _ => path.to_string(),
                };
                self.damage_of_pack(&record.id, object, describe_object(&error));
                if is_gone {
                    bad.extend(first_frame..record.frames.len() as u32);
                    break;
                }
                let blobs = frames.clone().map(|number| record.frames[number as usize].blobs);
                first_blob += blobs.map(|blobs| blobs as usize).sum::<usize>();
                bad.extend(frames);
                continue;
            }
            hasher.update(&buffers.stored);
            self.observer.event(Event::Advanced {
                phase: Phase::CheckPacks,
                by: Amount { items: 0, bytes: end - start },
            });
            let mut at = 0;
            for number in frames {
                let entry = record.frames[number as usize];
                let stored = &buffers.stored[at..at + entry.stored_length as usize];
                at += stored.len();
                let opened = open_frame(
                    &key,
                    record,
                    number,
                    stored,
                    &mut buffers.decompressor,
                    &mut buffers.coded,
                    &mut buffers.plain,
                );
                let count = entry.blobs as usize;
                let is_good = |plain: &[u8]| self.verify_blobs(&contents, first_blob, count, plain);
                let verified = opened.and_then(|()| match is_good(&buffers.plain) {
                    true => Ok(()),
                    false => Err(putback_format::Error::IdMismatch),
                });
                if let Err(error) = verified {
                    self.damage_of_pack(&record.id, format!("frame {number} of {path}"), error);
                    bad.insert(number);
                }
                first_blob += count;
            }
        }
        let is_other = bytes == record.size && hasher.finalize().as_bytes() != record.id.as_bytes();
        if is_other && bad.is_empty() {
            let message = "its bytes do not match its name, but all of its frames are good";
            self.damage_of_pack(&record.id, &path, message);
        }
        self.note_bad(record.id, bad);
        let by = Amount { items: 1, bytes: 0 };
        self.observer.event(Event::Advanced { phase: Phase::CheckPacks, by });
        Ok(())
    }

    /// What a pack holds: its header says so at its end, and the segments tell the same, only not as quickly.
    fn contents_of(&self, record: &PackRecord, bytes: u64) -> Result<Option<PackContents>> {
        if bytes == record.size {
            let path = layout::pack(&record.id);
            match self.repository.read_pack_contents(&record.id, record.size) {
                Ok((trailer, contents)) => {
                    if contents.frames != record.frames
                        || trailer.salt != record.salt
                        || trailer.epoch != record.epoch
                    {
                        self.damage_of_pack(&record.id, &path, "its header and the index disagree");
                    }
                    return Ok(Some(contents));
                }
                Err(error) => {
                    let message = describe_object(&error.into_damage()?);
                    self.damage_of_pack(&record.id, &path, message);
                }
            }
        }
        self.contents_from_segments(&record.id)
    }

    fn verify_blobs(
        &self,
        contents: &PackContents,
        first: usize,
        count: usize,
        plain: &[u8],
    ) -> bool {
        let mut rest = plain;
        (first..first + count).all(|index| {
            let (Some(id), Some(length)) = (contents.ids.get(index), contents.lengths.get(index))
            else {
                return false;
            };
            let Some((blob, others)) = rest.split_at_checked(*length as usize) else {
                return false;
            };
            rest = others;
            self.repository.id_keys().blob_id(contents.kind, blob) == *id
        })
    }

    fn contents_from_segments(&self, pack: &PackId) -> Result<Option<PackContents>> {
        for id in self.repository.list_segments()? {
            let segment = match self.repository.read_segment(&id) {
                Ok(segment) => segment,
                // Said already, or a merged one says what it said.
                Err(error) if is_gone_or_damaged(&error) || error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            if let Some(found) = segment.packs.into_iter().find(|candidate| candidate.id == *pack) {
                return Ok(Some(found.contents));
            }
        }
        Ok(None)
    }

    /// Walks all snapshots again for what they lost, if anything is wrong. Yields the packs that hurt any, and none
    /// if it was stopped.
    fn name_hurt_files(&self, snapshots: &[StoredSnapshot]) -> Result<Option<BTreeSet<PackId>>> {
        let bad = std::mem::take(&mut *self.bad.lock().unwrap_or_else(PoisonError::into_inner));
        let wrong = std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        if bad.packs.is_empty() && wrong.all.is_empty() {
            return Ok(Some(BTreeSet::new()));
        }
        let total = Amount { items: snapshots.len() as u64, bytes: 0 };
        self.observer.event(Event::PhaseStarted { phase: Phase::CheckTrees, total: Some(total) });
        let mut hurts = Hurts::new(&self.repository, &bad, &wrong, &self.report().damages);
        let mut named = Vec::new();
        let mut is_done = true;
        for stored in snapshots {
            match hurts.look_at(stored, &self.options.cancel) {
                Ok(hurt) => named.extend(hurt),
                Err(Error::Cancelled) => {
                    is_done = false;
                    break;
                }
                Err(error) => return Err(error),
            }
            let by = Amount { items: 1, bytes: 0 };
            self.observer.event(Event::Advanced { phase: Phase::CheckTrees, by });
        }
        let mut report = self.report();
        hurts.note_in(&mut report.damages);
        if !is_done {
            report.damages.iter_mut().for_each(|damage| damage.hurts_at_least = true);
        }
        // Those that cannot be read come last.
        named.append(&mut report.hurt_snapshots);
        report.hurt_snapshots = named;
        Ok(is_done.then_some(hurts.hurting))
    }

    fn note_unreadable(&self, id: SnapshotId, time: Option<Timestamp>) {
        let hurt = HurtSnapshot { id, time, files: 0, directories: 0, is_unreadable: true };
        self.report().hurt_snapshots.push(hurt);
    }

    /// What is wrong with a marked pack and hurts no snapshot is worth knowing and no damage: writers do not rely on
    /// it, and prune takes it away. Without knowing which packs hurt any, none is excused.
    fn excuse_marked_packs(&self, hurting: Option<&BTreeSet<PackId>>) {
        let Some(hurting) = hurting else { return };
        let mut report = self.report();
        let (excused, damages): (Vec<_>, Vec<_>) =
            std::mem::take(&mut report.damages).into_iter().partition(|damage| {
                damage.pack().is_some_and(|id| {
                    self.repository.index().is_avoided(&id) && !hurting.contains(&id)
                })
            });
        report.damages = damages;
        report.damages_total -= excused.len() as u64;
        report.warnings.extend(excused.into_iter().map(|damage| {
            let Damage { object, message, .. } = damage;
            format!("{object}: {message}; it is marked, no snapshot needs it, and prune removes it")
        }));
    }
}

/// What a worker reuses from pack to pack.
struct Buffers {
    decompressor: Decompressor,
    stored: Vec<u8>,
    coded: Vec<u8>,
    plain: Vec<u8>,
}

impl Buffers {
    fn new() -> Result<Self> {
        Ok(Self {
            decompressor: Decompressor::new().map_err(Error::encode("a decompressor"))?,
            stored: Vec::new(),
            coded: Vec::new(),
            plain: Vec::new(),
        })
    }
}
