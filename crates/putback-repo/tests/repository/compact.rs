//! Index segments that stand beside what they replace, and that take its place: whoever reads finds the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use putback_format::compress::Codec;
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{BlobId, PackId, SegmentId};
use putback_format::key::BlobKind;
use putback_format::pack::{FrameEntry, PackContents};
use putback_format::segment::{Segment, SegmentPack};
use putback_format::tree::Timestamp;
use putback_repo::prune::PruneOptions;
use putback_repo::{Clock, CompactOptions, Compaction, Error, Machine, Repository, StoredSnapshot};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::RecordingStore;
use putback_store::{
    Capabilities, Error as StoreError, Lock, LockMode, ObjectInfo, ObjectPath, Space, Store, Upload,
};

use crate::support::*;

/// All segments of a store.
fn segments(repository: &Repository, store: &dyn Store) -> BTreeMap<SegmentId, Segment> {
    let keys = keys(&repository.export_key());
    let mut all = BTreeMap::new();
    for row in store.list("index").unwrap() {
        let bytes = store.read_all(&row.path, u64::MAX).unwrap();
        let payload =
            envelope::unseal(ObjectKind::Segment, repository.id(), &keys, &bytes).unwrap();
        all.insert(row.path.name().parse().unwrap(), Segment::decode(&payload).unwrap());
    }
    all
}

fn path_of(id: &SegmentId) -> ObjectPath {
    ObjectPath::new(&format!("index/{id}")).unwrap()
}

/// A segment that repeats these, as another machine's compactor would write it.
fn union(parts: &BTreeMap<SegmentId, Segment>) -> Segment {
    let mut merged = Segment::default();
    let mut tombstones = BTreeSet::new();
    let mut replaces = BTreeSet::new();
    for (id, part) in parts {
        let known: BTreeSet<_> = merged.packs.iter().map(|pack| pack.id).collect();
        merged.packs.extend(part.packs.iter().filter(|pack| !known.contains(&pack.id)).cloned());
        tombstones.extend(part.tombstones.iter().copied());
        replaces.extend(part.replaces.iter().copied());
        replaces.insert(*id);
    }
    merged.tombstones = tombstones.into_iter().collect();
    merged.replaces = replaces.into_iter().collect();
    merged
}

/// A repository of some small segments.
struct Lab {
    repository: Repository,
    store: MemoryStore,
    key: String,
    inputs: BTreeMap<SegmentId, Segment>,
    contents: Vec<Files>,
}

fn lab(count: u64) -> Lab {
    let (repository, store, key) = repository();
    let contents = (0..count)
        .map(|number| {
            let files = BTreeMap::from([(format!("file-{number}"), noise(number, 9000))]);
            back_up(&repository, &files).unwrap();
            files
        })
        .collect();
    let inputs = segments(&repository, &store);
    assert_eq!(inputs.len(), count as usize);
    Lab { repository, store, key, inputs, contents }
}

impl Lab {
    fn write_merged(&self) {
        write_segment(&self.repository, &self.store, &union(&self.inputs));
    }

    fn blobs(&self) -> Vec<BlobId> {
        let packs = self.inputs.values().flat_map(|segment| &segment.packs);
        packs.flat_map(|pack| pack.contents.ids.clone()).collect()
    }

    /// Asserts that everything is found, and each blob in one place.
    #[track_caller]
    fn assert_found(&self, repository: &Repository) {
        for id in self.blobs() {
            assert_eq!(repository.index().find_all(&id).unwrap().len(), 1, "{id}");
        }
        assert_eq!(repository.index().size().0, self.blobs().len() as u64);
    }
}

/// A cache, and no state: these tests go back to older copies of the store.
fn cache(folder: &Path) -> Machine {
    Machine { state: None, ..directories(folder) }
}

fn segment_reads(recording: &RecordingStore) -> u64 {
    let is_meant = |request: &putback_store::testing::recording::Request| {
        request.call == Call::ReadAll && request.path.starts_with("index/")
    };
    recording.log().count(is_meant)
}

#[test]
fn a_merged_segment_beside_its_inputs_enters_no_pack_twice() {
    let lab = lab(4);
    let folder = tempfile::tempdir().unwrap();
    let early = open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    back_up(&early, &lab.contents[0]).unwrap();
    let late = open(lab.store.clone(), &lab.key);
    lab.write_merged();
    for reader in [early, late, open_with(lab.store.clone(), &lab.key, &cache(folder.path()))] {
        reader.load_index().unwrap();
        for id in lab.blobs() {
            assert_eq!(reader.index().find_all(&id).unwrap().len(), 1, "{id}");
        }
        assert_clean(&reader);
    }
}

#[test]
fn an_input_that_cannot_be_read_is_passed_over_if_a_segment_replaces_it() {
    let lab = lab(3);
    for id in lab.inputs.keys() {
        let store = lab.store.fork();
        store.damage(&path_of(id), |bytes| bytes[30] ^= 1);
        let error = open(store.clone(), &lab.key).load_index().unwrap_err();
        let is_told =
            matches!(&error, Error::Damaged { object, .. } if object == path_of(id).as_str());
        assert!(is_told, "{}", describe(&error));
        assert!(check(&open(store.clone(), &lab.key)).damages_total > 0);

        write_segment(&lab.repository, &store, &union(&lab.inputs));
        let reader = open(store.clone(), &lab.key);
        reader.load_index().unwrap();
        lab.assert_found(&reader);
        let warnings = reader.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&id.to_string()), "{warnings:?}");
        let report = check(&reader);
        assert_eq!(report.damages, []);
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(report.warnings[0].contains("compaction"), "{:?}", report.warnings);
        let stats = reader.stats().unwrap();
        assert_eq!((stats.segments, stats.segments_replaced), (4, 3));
    }
}

#[test]
fn a_replaced_segment_that_goes_leaves_the_local_tables_as_they_are() {
    let lab = lab(5);
    let folder = tempfile::tempdir().unwrap();
    let cached = || open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    let kept = cached();
    kept.load_index().unwrap();
    back_up(&kept, &lab.contents[0]).unwrap();
    let all = segments(&lab.repository, &lab.store);
    write_segment(&lab.repository, &lab.store, &union(&all));
    all.keys().for_each(|id| delete(&lab.store, &path_of(id)));
    // One that had the tables open, one that finds them, one that finds them brought up to date.
    kept.load_index().unwrap();
    for reads in [1, 0] {
        let recording = RecordingStore::new(Arc::new(lab.store.clone()));
        let reader = open_with(recording.clone(), &lab.key, &cache(folder.path()));
        back_up(&reader, &lab.contents[1]).unwrap();
        assert_eq!(segment_reads(&recording), reads, "only the merged one is read");
        for repository in [&kept, &reader] {
            for id in lab.blobs() {
                assert_eq!(repository.index().find_all(&id).unwrap().len(), 1);
            }
        }
        assert_clean(&reader);
    }
}

#[test]
fn segments_that_were_merged_twice_are_explained_by_the_last_merge() {
    let lab = lab(3);
    let folder = tempfile::tempdir().unwrap();
    let old = open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    back_up(&old, &lab.contents[0]).unwrap();
    let first = union(&segments(&lab.repository, &lab.store));
    let mut parts = BTreeMap::new();
    let path = write_segment(&lab.repository, &lab.store, &first);
    parts.insert(path.name().parse().unwrap(), first);
    let second = union(&parts);
    for row in lab.store.list("index").unwrap() {
        delete(&lab.store, &row.path);
    }
    write_segment(&lab.repository, &lab.store, &second);
    let recording = RecordingStore::new(Arc::new(lab.store.clone()));
    let reader = open_with(recording.clone(), &lab.key, &cache(folder.path()));
    back_up(&reader, &lab.contents[1]).unwrap();
    assert_eq!(segment_reads(&recording), 1);
    assert_clean(&reader);
}

#[test]
fn a_listing_that_still_shows_deleted_inputs_is_believed_where_the_merged_one_explains_them() {
    let lab = lab(3);
    lab.write_merged();
    let faulty = FaultyStore::new(Arc::new(lab.store.clone()), 1);
    faulty.delay_listings(1000);
    for id in lab.inputs.keys() {
        delete(&faulty, &path_of(id));
    }
    assert_eq!(faulty.list("index").unwrap().len(), 4);
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let reader = open_with(faulty.clone(), &lab.key, &cache(folder.path()));
        reader.load_index().unwrap();
        lab.assert_found(&reader);
        assert_eq!(reader.take_warnings(), [""; 0]);
        assert_eq!(check(&reader).damages, []);
    }
}

#[test]
fn a_listed_segment_that_is_gone_is_an_error_after_some_listings_if_none_replaces_it() {
    let lab = lab(2);
    let faulty = FaultyStore::new(Arc::new(lab.store.clone()), 1);
    faulty.delay_listings(1000);
    let id = lab.inputs.keys().next().unwrap();
    delete(&faulty, &path_of(id));
    let lists = || faulty.request_counts().get(&Call::List).copied().unwrap_or_default();
    let before = lists();
    let reader = open(faulty.clone(), &lab.key);
    let error = reader.load_index().unwrap_err();
    assert!(matches!(&error, Error::Store(error) if error.is_not_found()), "{}", describe(&error));
    assert!(lists() - before < 10, "{}", lists());
    faulty.heal();
    reader.load_index().unwrap();
}

#[test]
fn a_segment_that_is_gone_although_tables_cover_it_makes_them_anew() {
    let lab = lab(3);
    let folder = tempfile::tempdir().unwrap();
    let reader = open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    back_up(&reader, &lab.contents[0]).unwrap();
    let id = lab.inputs.keys().next().unwrap();
    delete(&lab.store, &path_of(id));
    for reader in [reader, open_with(lab.store.clone(), &lab.key, &cache(folder.path()))] {
        reader.load_index().unwrap();
        for blob in lab.inputs[id].packs.iter().flat_map(|pack| &pack.contents.ids) {
            assert_eq!(reader.index().find(blob).unwrap(), None);
        }
    }
}

#[test]
fn segments_that_contradict_each_other_are_both_heard() {
    let lab = lab(1);
    let (id, good) = lab.inputs.iter().next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // What a machine with failing memory wrote, and somebody has in tables already.
    let mut bad = good.clone();
    bad.packs[0].contents.ids[0] = BlobId::from_bytes([7; 32]);
    delete(&lab.store, &path_of(id));
    let path = write_segment(&lab.repository, &lab.store, &bad);
    let reader = open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    reader.load_index().unwrap();
    assert_eq!(reader.index().find(&good.packs[0].contents.ids[0]).unwrap(), None);
    let mut mended = good.clone();
    mended.replaces = vec![path.name().parse().unwrap()];
    write_segment(&lab.repository, &lab.store, &mended);
    reader.load_index().unwrap();
    assert!(reader.index().find(&good.packs[0].contents.ids[0]).unwrap().is_some());
}

#[test]
fn tombstones_of_replaced_segments_hold() {
    let lab = lab(2);
    let folder = tempfile::tempdir().unwrap();
    let pack = lab.inputs.values().next().unwrap().packs[0].clone();
    let buried = Segment { tombstones: vec![pack.id], ..Segment::default() };
    write_segment(&lab.repository, &lab.store, &buried);
    let cached = open_with(lab.store.clone(), &lab.key, &cache(folder.path()));
    cached.load_index().unwrap();
    let all = segments(&lab.repository, &lab.store);
    write_segment(&lab.repository, &lab.store, &union(&all));
    all.keys().for_each(|id| delete(&lab.store, &path_of(id)));
    for reader in [cached, open(lab.store.clone(), &lab.key)] {
        reader.load_index().unwrap();
        assert_eq!(reader.index().find(&pack.contents.ids[0]).unwrap(), None);
    }
}

/// Merges whatever is there, and deletes what was replaced at once.
fn eager() -> CompactOptions {
    CompactOptions { segments_least: 2, grace: Duration::ZERO, ..CompactOptions::default() }
}

#[track_caller]
fn compact(repository: &Repository, options: &CompactOptions) -> Compaction {
    repository.compact(options).unwrap_or_else(|error| panic!("{}", describe(&error)))
}

/// A clock that a test turns, of a machine and of its store.
#[derive(Clone, Debug)]
struct Steered(Arc<AtomicU64>);

impl Steered {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000)))
    }

    fn advance(&self, hours: u64) {
        self.0.fetch_add(hours * 3600, Ordering::SeqCst);
    }

    fn machine(&self) -> Machine {
        Machine { clock: Arc::new(self.clone()), ..Machine::default() }
    }

    fn store(&self) -> MemoryStore {
        let clock = self.0.clone();
        let now = move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst));
        MemoryStore::new().with_clock(now)
    }
}

impl Clock for Steered {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.load(Ordering::SeqCst) as i64, nanoseconds: 0 }
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

fn count(store: &MemoryStore) -> usize {
    store.list("index").unwrap().len()
}

#[test]
fn backups_merge_small_segments_by_themselves_and_delete_them_a_day_later() {
    let clock = Steered::new();
    let store = clock.store();
    Repository::init(Arc::new(store.clone()), &password(), &init_options(), &clock.machine())
        .unwrap();
    let repository =
        Repository::open(Arc::new(store.clone()), &password(), &clock.machine()).unwrap();
    let key = repository.export_key().to_string();
    let mut made = Vec::new();
    let mut back_up_one = |number: u64| {
        let files = BTreeMap::from([(format!("file-{number}"), noise(number, 3000))]);
        made.push((back_up(&repository, &files).unwrap(), files));
        assert_eq!(repository.take_warnings(), [""; 0]);
    };
    (0..31).for_each(&mut back_up_one);
    assert_eq!(count(&store), 31);
    back_up_one(31);
    assert_eq!(count(&store), 33, "32 are merged, and stay");
    clock.advance(23);
    back_up_one(32);
    assert_eq!(count(&store), 34, "what is merged does not count again");
    clock.advance(1);
    back_up_one(33);
    assert_eq!(count(&store), 3, "the merged one and two others");
    for (stored, files) in &made {
        assert_holds(&store, &key, stored, files);
    }
    assert_clean(&repository);
    assert_clean(&open(store.clone(), &key));
    // What stored nothing looks at nothing.
    let paths = store.paths();
    back_up(&repository, &made[0].1).unwrap();
    assert_eq!(store.paths().len(), paths.len() + 1);
}

#[test]
fn where_listings_lag_inputs_stay_at_least_as_long_as_safety_rests_on() {
    let clock = Steered::new();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let store = clock.store().with_capabilities(remote);
    let machine = clock.machine();
    Repository::init(Arc::new(store.clone()), &password(), &init_options(), &machine).unwrap();
    let repository = Repository::open(Arc::new(store.clone()), &password(), &machine).unwrap();
    for number in 0..3 {
        back_up(&repository, &BTreeMap::from([("f".to_owned(), noise(number, 3000))])).unwrap();
    }
    assert_eq!(compact(&repository, &eager()), Compaction { merged: 3, written: 1, deleted: 0 });
    let delete = CompactOptions { segments_least: 100, ..eager() };
    let deleted = |hours: u64, writes: bool| {
        clock.advance(hours);
        if writes {
            let files = BTreeMap::from([("f".to_owned(), noise(100 + hours, 3000))]);
            back_up(&repository, &files).unwrap();
        }
        compact(&repository, &delete).deleted
    };
    assert_eq!(deleted(2, true), 0);
    assert_eq!(deleted(3, false), 0, "by what is known of the store's clock no time has passed");
    assert_eq!(deleted(0, true), 3);
    assert_clean(&repository);
}

#[test]
fn what_a_merged_segment_does_not_repeat_stays() {
    let lab = lab(4);
    let mut merged = union(&lab.inputs);
    let lost = merged.packs.remove(0).id;
    write_segment(&lab.repository, &lab.store, &merged);
    let inputs: Vec<&SegmentId> = lab.inputs.keys().collect();
    let keeper = lab.inputs.iter().find(|(_, input)| input.packs.iter().any(|p| p.id == lost));
    let reader = open(lab.store.clone(), &lab.key);
    let options = CompactOptions { segments_least: 100, ..eager() };
    assert_eq!(compact(&reader, &options).deleted, inputs.len() as u64 - 1);
    let keeper = path_of(keeper.unwrap().0);
    assert!(lab.store.stat(&keeper).is_ok());
    let warnings = reader.take_warnings();
    assert!(warnings.iter().any(|text| text.contains(keeper.as_str())), "{warnings:?}");
    let reader = open(lab.store.clone(), &lab.key);
    reader.load_index().unwrap();
    lab.assert_found(&reader);
}

#[test]
fn a_damaged_merged_segment_takes_nothing_with_it() {
    let lab = lab(4);
    let reader = open(lab.store.clone(), &lab.key);
    compact(&reader, &CompactOptions { grace: Duration::from_secs(3600), ..eager() });
    let merged = segments(&lab.repository, &lab.store);
    let merged = merged.keys().find(|id| !lab.inputs.contains_key(id)).unwrap();
    lab.store.damage(&path_of(merged), |bytes| bytes[70] ^= 1);
    // This one has it in its tables and could believe that all is well.
    assert_eq!(compact(&reader, &eager()), Compaction::default());
    lab.inputs.keys().for_each(|id| assert!(lab.store.stat(&path_of(id)).is_ok()));
}

#[test]
fn a_damaged_input_goes_with_the_others() {
    let lab = lab(4);
    lab.write_merged();
    let damaged = path_of(lab.inputs.keys().next().unwrap());
    lab.store.damage(&damaged, |bytes| bytes[70] ^= 1);
    let reader = open(lab.store.clone(), &lab.key);
    assert_eq!(compact(&reader, &eager()).deleted, 4);
    assert_clean(&open(lab.store.clone(), &lab.key));
}

#[test]
fn a_merged_segment_that_does_not_read_back_is_taken_back() {
    let lab = lab(4);
    let faulty = FaultyStore::new(Arc::new(lab.store.clone()), 1);
    let reader = open(faulty.clone(), &lab.key);
    faulty.plant(Fault::torn(Calls::Only(Call::Write), 1).silently());
    reader.compact(&eager()).unwrap_err();
    assert_eq!(count(&lab.store), 4);
    faulty.heal();
    assert_eq!(compact(&reader, &eager()).merged, 4);
    assert_clean(&open(lab.store.clone(), &lab.key));
}

#[test]
fn large_segments_are_left_alone_and_several_are_written_where_one_would_be_too_large() {
    let (repository, store, _) = repository();
    let pack = |number: u64, blobs: u64| {
        let frame = FrameEntry {
            stored_length: 1000,
            plain_length: blobs as u32,
            codec: Codec::Zstd,
            blobs: blobs as u32,
        };
        let id = |n: u64| blake3::hash(&(number << 32 | n).to_le_bytes());
        SegmentPack {
            id: PackId::of_stored(&number.to_le_bytes()),
            salt: [0; 32],
            epoch: 1,
            crc32: 0,
            size: 1 << 20,
            contents: PackContents {
                kind: BlobKind::Data,
                frames: vec![frame],
                ids: (0..blobs).map(|n| BlobId::from_bytes(*id(n).as_bytes())).collect(),
                lengths: vec![1; blobs as usize],
            },
        }
    };
    for number in 0..12 {
        let segment = Segment { packs: vec![pack(number, 26_000)], ..Segment::default() };
        write_segment(&repository, &store, &segment);
    }
    let large = Segment { packs: vec![pack(100, 40_000)], ..Segment::default() };
    let large = write_segment(&repository, &store, &large);
    let done = compact(&repository, &eager());
    assert_eq!(done, Compaction { merged: 12, written: 2, deleted: 0 });
    assert_eq!(compact(&repository, &eager()).deleted, 12);
    assert_eq!(count(&store), 3);
    assert!(store.stat(&large).is_ok());
    assert_eq!(repository.index().size().0, 12 * 26_000 + 40_000);
    let reader = open(store.clone(), &repository.export_key());
    reader.load_index().unwrap();
    assert_eq!(reader.index().size().0, 12 * 26_000 + 40_000);
    // A merged one of four is small no more.
    assert_eq!(compact(&reader, &eager()), Compaction::default());
}

#[test]
fn numbers_of_packs_stay_valid_when_tables_are_merged_or_made_anew() {
    let lab = lab(3);
    let reader = open(lab.store.clone(), &lab.key);
    reader.load_index().unwrap();
    let before = reader.index().packs();
    let same = |reader: &Repository| {
        for (number, id) in &before {
            assert_eq!(reader.index().pack(*number).unwrap().id, *id);
        }
    };
    for number in 10..14 {
        let files = BTreeMap::from([("f".to_owned(), noise(number, 3000))]);
        back_up(&lab.repository, &files).unwrap();
        reader.load_index().unwrap();
        same(&reader);
    }
    assert_eq!(reader.index().size().1, 1, "all tables are one");
    delete(&lab.store, &path_of(lab.inputs.keys().next().unwrap()));
    reader.load_index().unwrap();
    same(&reader);
}

/// Does something just before the request of this number.
struct Between {
    inner: MemoryStore,
    requests: AtomicU64,
    at: u64,
    act: Box<dyn Fn() + Send + Sync>,
}

impl Between {
    fn step(&self) -> &MemoryStore {
        if self.requests.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            (self.act)();
        }
        &self.inner
    }
}

impl Store for Between {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn create(&self, folders: &[&str]) -> Result<bool, StoreError> {
        self.step().create(folders)
    }
    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.step().list(folder)
    }
    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        self.step().stat(path)
    }
    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.step().read(path, range, buffer)
    }
    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.step().read_all(path, bytes_max)
    }
    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, StoreError> {
        self.step().write(path, bytes)
    }
    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.step().upload(folder)
    }
    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), StoreError> {
        self.step().delete(objects)
    }
    fn space(&self) -> Result<Option<Space>, StoreError> {
        self.inner.space()
    }
    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, StoreError> {
        self.inner.lock(mode)
    }
}

/// A repository with segments of every kind: merged ones whose inputs are there, small ones, tombstones, and a
/// forgotten snapshot that prune would remove.
struct Busy {
    store: MemoryStore,
    key: String,
    kept: Vec<(StoredSnapshot, Files)>,
}

fn busy() -> Busy {
    let (repository, store, key) = repository();
    let mut kept = Vec::new();
    let mut number = 0;
    let mut back_up_some = |count: u64, kept: &mut Vec<_>| {
        for _ in 0..count {
            number += 1;
            let files = BTreeMap::from([
                (format!("file-{number}"), noise(number, 9000)),
                ("common".to_owned(), noise(1000, 5000)),
            ]);
            kept.push((back_up(&repository, &files).unwrap(), files));
        }
    };
    let mut gone = Vec::new();
    back_up_some(2, &mut gone);
    back_up_some(2, &mut kept);
    let forget = |gone: &(StoredSnapshot, Files)| {
        repository.forget(std::slice::from_ref(&gone.0)).unwrap();
    };
    forget(&gone[0]);
    let prune = PruneOptions { instant: true, ..PruneOptions::default() };
    repository.prune(&prune, &()).unwrap();
    assert_eq!(compact(&repository, &CompactOptions { grace: HOUR, ..eager() }).written, 1);
    back_up_some(2, &mut kept);
    forget(&gone[1]);
    Busy { store, key, kept }
}

impl Busy {
    /// Asserts that all is there, for a machine that knows nothing and for one that has a cache.
    #[track_caller]
    fn assert_whole(&self, store: &MemoryStore, folder: Option<&Path>) {
        for (stored, files) in &self.kept {
            assert_holds(store, &self.key, stored, files);
        }
        assert_clean(&open(store.clone(), &self.key));
        let Some(folder) = folder else { return };
        let cached = open_with(store.clone(), &self.key, &cache(folder));
        cached.load_index().unwrap();
        for (stored, files) in &self.kept {
            let snapshot = cached.read_snapshot(&stored.id).unwrap();
            assert!(contents(&cached, &snapshot).unwrap() == *files);
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_compaction_that_broke_at_any_request_loses_nothing_and_the_next_one_ends_it() {
    let busy = busy();
    let points = AtomicU64::new(0);
    let break_at_each = |variant| {
        for number in 1.. {
            let fork = busy.store.fork();
            let folder = tempfile::tempdir().unwrap();
            let faulty = FaultyStore::new(Arc::new(fork.clone()), number);
            let broken = open_with(faulty.clone(), &busy.key, &cache(folder.path()));
            faulty.plant(match variant {
                0 => Fault::before(Calls::Any, number),
                1 => Fault::after(Calls::Any, number),
                2 => Fault::before(Calls::Any, number).crashing(),
                3 => Fault::after(Calls::Any, number).crashing(),
                _ => Fault::torn(Calls::Only(Call::Delete), number).crashing(),
            });
            let result = broken.compact(&eager());
            if faulty.failure_count() == 0 {
                result.unwrap();
                return;
            }
            points.fetch_add(1, Ordering::Relaxed);
            busy.assert_whole(&fork, Some(folder.path()));
            for _ in 0..3 {
                let next = open_with(fork.clone(), &busy.key, &cache(folder.path()));
                compact(&next, &eager());
            }
            assert_eq!(count(&fork), 1, "request {number}, fault {variant}");
            busy.assert_whole(&fork, Some(folder.path()));
        }
    };
    std::thread::scope(|scope| {
        for variant in 0..5 {
            let break_at_each = &break_at_each;
            scope.spawn(move || break_at_each(variant));
        }
    });
    let points = points.into_inner();
    println!("{points} points");
    assert!(points > 50, "{points}");
}

/// Runs `work` as often as it has requests, each time with `meddling` just before another one of them.
fn at_each_request(
    busy: &Busy,
    work: impl Fn(&Repository) -> Result<(), Error>,
    meddling: impl Fn(&Repository) + Clone + Send + Sync + 'static,
) -> u64 {
    for at in 1.. {
        let fork = busy.store.fork();
        let folder = tempfile::tempdir().unwrap();
        // Tables that cover what the meddler deletes.
        let early = open_with(fork.clone(), &busy.key, &cache(folder.path()));
        back_up(&early, &busy.kept[0].1).unwrap();
        let (store, key, meddling) = (fork.clone(), busy.key.clone(), meddling.clone());
        let between = Between {
            inner: fork.clone(),
            requests: AtomicU64::new(0),
            at,
            act: Box::new(move || meddling(&open(store.clone(), &key))),
        };
        let between = Arc::new(between);
        let repository = Repository::open_with_exported_key(
            between.clone(),
            &busy.key,
            // With tables, and every other time without.
            &if at % 2 == 0 { cache(folder.path()) } else { Machine::default() },
        );
        let result = repository.and_then(|repository| work(&repository));
        result.unwrap_or_else(|error| panic!("request {at}: {}", describe(&error)));
        if between.requests.load(Ordering::SeqCst) < at {
            return at - 1;
        }
        busy.assert_whole(&fork, Some(folder.path()));
        drop(early);
    }
    0
}

fn prune_at_once(repository: &Repository) -> Result<(), Error> {
    let options = PruneOptions { instant: true, grace: HOUR, ..PruneOptions::default() };
    repository.prune(&options, &()).map(drop)
}

#[test]
fn a_compactor_may_come_at_any_moment_of_another_one() {
    let busy = busy();
    let merge = CompactOptions { segments_least: 2, grace: HOUR, ..CompactOptions::default() };
    for (mine, other) in
        [(merge.clone(), merge.clone()), (merge.clone(), eager()), (eager(), merge)]
    {
        let meddle = move |repository: &Repository| {
            compact(repository, &other);
        };
        let work = |repository: &Repository| repository.compact(&mine).map(drop);
        assert!(at_each_request(&busy, work, meddle) > 5);
    }
}

#[test]
fn a_compactor_may_come_at_any_moment_of_a_prune_and_the_other_way_round() {
    let busy = busy();
    let meddle = |repository: &Repository| prune_at_once(repository).unwrap();
    let work = |repository: &Repository| repository.compact(&eager()).map(drop);
    assert!(at_each_request(&busy, work, meddle) > 10);
    // What was merged long ago loses its inputs; what the prune has just written is merged, and stays.
    let meddle = |repository: &Repository| {
        compact(repository, &eager());
    };
    assert!(at_each_request(&busy, prune_at_once, meddle) > 20);
}

#[test]
fn a_compactor_may_come_at_any_moment_of_a_backup() {
    let busy = busy();
    let files = BTreeMap::from([
        ("new".to_owned(), noise(77, 9000)),
        ("common".to_owned(), noise(1000, 5000)),
        ("file-4".to_owned(), noise(4, 9000)),
    ]);
    let meddle = |repository: &Repository| {
        for _ in 0..2 {
            compact(repository, &eager());
        }
    };
    let work = |repository: &Repository| {
        let stored = back_up(repository, &files)?;
        assert!(contents(repository, &stored.snapshot)? == files);
        Ok(())
    };
    assert!(at_each_request(&busy, work, meddle) > 10);
}

#[test]
fn backups_prunes_and_compactors_that_run_side_by_side_lose_nothing() {
    let (_, store, key) = repository();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let is_done = AtomicBool::new(false);
    let deleted = AtomicU64::new(0);
    let (grace, begun) = (Duration::from_secs(1), Instant::now());
    let kept = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let writers: Vec<_> = folders
            .iter()
            .enumerate()
            .map(|(writer, folder)| {
                let (store, key, kept) = (&store, &key, &kept);
                scope.spawn(move || {
                    for round in (0..).take_while(|_| begun.elapsed() < 3 * grace) {
                        let repository = open_with(store.clone(), key, &directories(folder.path()));
                        let number = (writer * 1_000_000 + round) as u64;
                        let files = BTreeMap::from([
                            (format!("own-{number}"), noise(number, 4000)),
                            ("common".to_owned(), noise(round as u64, 4000)),
                        ]);
                        let stored = loop {
                            match back_up(&repository, &files) {
                                Ok(stored) => break stored,
                                // What it had relied on went at once: it fails, and is done again.
                                Err(Error::PacksLost { .. }) => {}
                                Err(Error::Store(error)) if error.is_not_found() => {}
                                Err(error) => panic!("{}", describe(&error)),
                            }
                        };
                        std::thread::sleep(Duration::from_millis(30));
                        if round % 3 == 0 {
                            repository.forget(&[stored]).unwrap();
                        } else {
                            kept.lock().unwrap().push((stored, files));
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::SeqCst) {
                    let repository = open(store.clone(), &key);
                    let done = compact(&repository, &CompactOptions { grace, ..eager() });
                    deleted.fetch_add(done.deleted, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                match prune_at_once(&open(store.clone(), &key)) {
                    // A snapshot came after it had read the index: it gives up, and marks nothing.
                    Ok(()) | Err(Error::BlobUnknown { .. }) => {}
                    Err(error) => panic!("{}", describe(&error)),
                }
            }
        });
        let joined: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_done.store(true, Ordering::SeqCst);
        joined.into_iter().for_each(|joined| joined.unwrap());
    });
    let repository = open(store.clone(), &key);
    for _ in 0..2 {
        compact(&repository, &eager());
    }
    assert_eq!(count(&store), 1);
    assert!(deleted.into_inner() > 20);
    for (stored, files) in kept.into_inner().unwrap() {
        assert_holds(&store, &key, &stored, &files);
    }
    assert_clean(&open(store.clone(), &key));
}

#[test]
fn listings_that_lag_show_all_of_the_index_at_every_moment() {
    let clock = Steered::new();
    let store = clock.store();
    let machine = clock.machine();
    let made =
        Repository::init(Arc::new(store.clone()), &password(), &init_options(), &machine).unwrap();
    let key = made.export_key().to_string();
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine { cache: Some(folder.path().to_owned()), ..machine };
    for delay in [1, 2, 3, 5, 8, 13] {
        let store = store.fork();
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        let mut kept = Vec::new();
        let first = open_with(faulty.clone(), &key, &machine);
        for number in 0..6 {
            let files = BTreeMap::from([("f".to_owned(), noise(number, 3000))]);
            kept.push((back_up(&first, &files).unwrap(), files));
            if number == 2 {
                compact(&first, &CompactOptions { grace: HOUR, ..eager() });
            }
        }
        clock.advance(30);
        // What is deleted now is still listed for a while, and what is written is not.
        faulty.delay_listings(delay);
        for number in 6..10 {
            let repository = open_with(faulty.clone(), &key, &machine);
            let files = BTreeMap::from([("f".to_owned(), noise(number, 3000))]);
            kept.push((back_up(&repository, &files).unwrap(), files));
            compact(&repository, &CompactOptions { grace: HOUR, ..eager() });
            let fresh = open(faulty.clone(), &key);
            fresh.load_index().unwrap();
            let (stored, files) = &kept[0];
            let snapshot = fresh.read_snapshot(&stored.id).unwrap();
            assert!(contents(&fresh, &snapshot).unwrap() == *files);
        }
        faulty.heal();
        for (stored, files) in &kept {
            assert_holds(&store, &key, stored, files);
        }
        assert_clean(&open(store.clone(), &key));
    }
}

#[test]
fn on_a_remote_store_merging_costs_two_requests_and_deleting_two_and_nothing_without_news() {
    let clock = Steered::new();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let store = clock.store().with_capabilities(remote);
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine { clock: Arc::new(clock.clone()), ..directories(folder.path()) };
    let made =
        Repository::init(Arc::new(store.clone()), &password(), &init_options(), &machine).unwrap();
    let key = made.export_key().to_string();
    let back_up = |number: u64| {
        let recording = RecordingStore::new(Arc::new(store.clone()));
        let repository = open_with(recording.clone(), &key, &machine);
        let files = BTreeMap::from([("f".to_owned(), noise(number, 3000))]);
        back_up(&repository, &files).unwrap();
        assert_eq!(repository.take_warnings(), [""; 0]);
        recording.log().count(|_| true)
    };
    let costs: Vec<u64> = (0..31).map(back_up).collect();
    assert_eq!(costs[10], costs[30]);
    let nothing = back_up(30);
    assert_eq!(back_up(31), costs[30] + 2, "written and read back; the inputs are in the cache");
    assert_eq!(count(&store), 33);
    assert_eq!(back_up(32), costs[30]);
    clock.advance(24);
    assert_eq!(back_up(32), nothing);
    assert_eq!(back_up(33), costs[30] + 2, "read again, and one deletion");
    assert_eq!(count(&store), 3);
    assert_eq!(back_up(33), nothing);
    assert_clean(&open(store.clone(), &key));
}
