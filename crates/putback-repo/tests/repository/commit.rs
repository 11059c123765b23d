//! Whatever other machines do between the begin of a backup and its end, its snapshot can be read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use putback_format::id::{PackId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::mark::MarkKind;
use putback_format::segment::Segment;
use putback_repo::{Error, InitOptions, Machine, Repository, SnapshotFilter, StoredSnapshot};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::RecordingStore;
use putback_store::{ObjectPath, Store};

use crate::hooked::interfering;
use crate::support::*;

fn sample() -> Files {
    let mut files = files([("short", &b"inline"[..])]);
    files.insert("folder/random".to_owned(), noise(1, 40_000));
    files.insert(LONG.to_owned(), noise(2, 1100 * 36));
    files
}

fn mark(repository: &Repository, store: &MemoryStore, packs: &[PackId]) {
    let mut packs = packs.to_vec();
    packs.sort();
    write_mark(repository, store, MarkKind::Packs(packs));
}

/// The last steps of a prune: tombstones, then the packs go.
fn remove(repository: &Repository, store: &MemoryStore, packs: &[PackId]) {
    let mut tombstones = packs.to_vec();
    tombstones.sort();
    write_segment(repository, store, &Segment { tombstones, ..Segment::default() });
    for pack in packs {
        delete(store, &format!("packs/{pack}").parse().unwrap());
    }
}

fn with_snapshot() -> (Repository, MemoryStore, String, Vec<PackId>) {
    let (repository, store, key) = repository();
    back_up(&repository, &sample()).unwrap();
    let packs = packs(&store);
    assert_eq!(packs.len(), 2);
    (repository, store, key, packs)
}

/// Asserts that the snapshot needs none of these packs.
#[track_caller]
fn assert_independent(
    repository: &Repository,
    store: &MemoryStore,
    key: &str,
    stored: &StoredSnapshot,
    gone: &[PackId],
) {
    remove(repository, store, gone);
    assert_holds(store, key, stored, &sample());
}

#[test]
fn a_mark_that_appears_at_any_moment_of_a_backup_never_takes_data_from_it() {
    let mut at = 1;
    loop {
        let (repository, store, key, marked) = with_snapshot();
        let act = {
            let (repository, store, marked) = (repository.clone(), store.clone(), marked.clone());
            move || mark(&repository, &store, &marked)
        };
        let is_counted = |call, path: &str| call == Call::List && path == "marks";
        let (layer, has_acted) = interfering(&store, is_counted, at, act);
        let stored = back_up(&open(layer, &key), &sample()).unwrap();
        if !has_acted.load(Ordering::SeqCst) {
            break;
        }
        assert_independent(&repository, &store, &key, &stored, &marked);
        at += 1;
    }
    assert!(at > 3, "marks were listed {at} times only");
}

#[test]
fn a_mark_between_the_last_blob_and_the_commit_has_its_blobs_stored_anew() {
    let (repository, store, key, marked) = with_snapshot();
    for chosen in [&marked[..1], &marked[1..], &marked[..]] {
        let store = store.fork();
        let writer = open(store.clone(), &key);
        let backup = writer.begin_backup(None, 1).unwrap();
        let root = put_tree(&backup, &sample()).unwrap();
        mark(&repository, &store, chosen);
        let stored = backup.commit(draft(root)).unwrap();
        backup.finish().unwrap();
        assert_independent(&repository, &store, &key, &stored, chosen);
    }
}

#[test]
fn a_checkpoint_and_the_snapshot_after_it_both_survive_a_mark_between_them() {
    let (repository, store, key, marked) = with_snapshot();
    let writer = open(store.clone(), &key);
    let backup = writer.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &sample()).unwrap();
    let checkpoint = putback_repo::SnapshotDraft { complete: false, ..draft(root.clone()) };
    backup.commit(checkpoint).unwrap();
    mark(&repository, &store, &marked);
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    assert_independent(&repository, &store, &key, &stored, &marked);
}

#[test]
fn packs_that_are_marked_when_a_backup_begins_are_not_reused() {
    let (repository, store, key, marked) = with_snapshot();
    mark(&repository, &store, &marked);
    let writer = open(store.clone(), &key);
    let backup = writer.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &sample()).unwrap();
    assert!(backup.written().blobs > 0);
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    let fresh: BTreeSet<_> =
        packs(&store).into_iter().filter(|pack| !marked.contains(pack)).collect();
    assert_eq!(fresh.len(), 2);
    assert_independent(&repository, &store, &key, &stored, &marked);
    assert_clean_but_for_lost_snapshot(&store, &key);
}

/// The first snapshot was not copied by anybody, since no prune ran: only it is hurt.
fn assert_clean_but_for_lost_snapshot(store: &MemoryStore, key: &str) {
    let repository = open(store.clone(), key);
    let report = check(&repository);
    assert_eq!(report.damages, [], "the blobs of the first snapshot are those of the second");
}

#[test]
fn tombstoned_packs_are_invisible_to_readers_and_writers() {
    let (repository, store, key, gone) = with_snapshot();
    let mut tombstones = gone.clone();
    tombstones.sort();
    write_segment(&repository, &store, &Segment { tombstones, ..Segment::default() });
    let reader = open(store.clone(), &key);
    reader.load_index().unwrap();
    assert_eq!(reader.index().packs(), []);
    let blob = reader.id_keys().blob_id(BlobKind::Data, &noise(1, 40_000)[..4096]);
    assert!(matches!(reader.read_data_blob(&blob), Err(Error::BlobUnknown { .. })));
    let stored = back_up(&reader, &sample()).unwrap();
    for pack in &gone {
        delete(&store, &format!("packs/{pack}").parse().unwrap());
    }
    assert_holds(&store, &key, &stored, &sample());
    assert_clean(&reader);
}

#[test]
fn a_pack_that_is_lost_before_a_backup_is_stored_again() {
    let (_, store, key, lost) = with_snapshot();
    for pack in &lost {
        let store = store.fork();
        delete(&store, &format!("packs/{pack}").parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let writer = open_with(store.clone(), &key, &directories(folder.path()));
        let stored = back_up(&writer, &sample()).unwrap();
        assert_holds(&store, &key, &stored, &sample());
    }
}

#[test]
fn a_pack_that_is_lost_during_a_backup_never_leaves_a_snapshot_that_cannot_be_read() {
    let (repository, store, key, lost) = with_snapshot();
    for (pack, has_tombstone) in lost.iter().flat_map(|pack| [(pack, false), (pack, true)]) {
        let store = store.fork();
        let writer = open(store.clone(), &key);
        let before = store.list("snapshots").unwrap();
        let backup = writer.begin_backup(None, 1).unwrap();
        let root = put_tree(&backup, &sample()).unwrap();
        if has_tombstone {
            remove(&repository, &store, &[*pack]);
        } else {
            delete(&store, &format!("packs/{pack}").parse().unwrap());
        }
        match backup.commit(draft(root)) {
            Ok(stored) => assert_holds(&store, &key, &stored, &sample()),
            Err(_) => assert_eq!(store.list("snapshots").unwrap(), before),
        }
        drop(backup);
        let stored = back_up(&open(store.clone(), &key), &sample()).unwrap();
        assert_holds(&store, &key, &stored, &sample());
    }
}

/// A run that stores its packs and breaks before a segment names them.
fn break_before_segment(store: &MemoryStore, key: &str, folder: &Path) {
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    let writer = open_with(faulty.clone(), key, &directories(folder));
    faulty.plant(Fault::before(Calls::Only(Call::Write), 1));
    back_up(&writer, &sample()).unwrap_err();
}

#[test]
fn packs_of_a_run_that_broke_before_its_segment_are_taken_over() {
    let (_, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    break_before_segment(&store, &key, folder.path());
    assert_eq!((packs(&store).len(), store.list("index").unwrap().len()), (2, 0));

    let again = open_with(store.clone(), &key, &directories(folder.path()));
    let backup = again.begin_backup(None, 1).unwrap();
    assert_eq!(backup.adopted_packs(), 2);
    let root = put_tree(&backup, &sample()).unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    assert_eq!(backup.finish().unwrap().blobs, 0);
    assert_holds(&store, &key, &stored, &sample());
    assert_clean(&again);
}

#[test]
fn a_pack_of_a_broken_run_that_came_under_a_mark_is_not_taken_over() {
    let (repository, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    break_before_segment(&store, &key, folder.path());
    let marked = packs(&store);
    mark(&repository, &store, &marked);

    let again = open_with(store.clone(), &key, &directories(folder.path()));
    let backup = again.begin_backup(None, 1).unwrap();
    assert_eq!(backup.adopted_packs(), 0);
    let root = put_tree(&backup, &sample()).unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    assert_independent(&repository, &store, &key, &stored, &marked);
}

/// A machine that writes its snapshot and does not live to see it.
struct Late {
    repository: Repository,
    store: MemoryStore,
    key: String,
    folder: tempfile::TempDir,
    id: SnapshotId,
    packs: Vec<PackId>,
}

impl Late {
    fn new() -> Self {
        let (repository, store, key) = repository();
        let folder = tempfile::tempdir().unwrap();
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        let writer = open_with(faulty.clone(), &key, &directories(folder.path()));
        // The first is the segment.
        faulty.plant(Fault::after(Calls::Only(Call::Write), 2).crashing());
        back_up(&writer, &sample()).unwrap_err();
        let listed = store.list("snapshots").unwrap();
        let id = listed[0].path.name().parse().unwrap();
        let packs = packs(&store);
        assert_eq!((listed.len(), packs.len()), (1, 2));
        Self { repository, store, key, folder, id, packs }
    }

    /// The same machine, later.
    fn again(&self, store: impl Store + 'static) -> Repository {
        open_with(store, &self.key, &directories(self.folder.path()))
    }

    /// Asserts that the next run of the machine forgets the snapshot, whose packs are gone.
    #[track_caller]
    fn assert_forgotten_when_packs_are_gone(&self) {
        let again = self.again(self.store.clone());
        again.begin_backup(None, 1).unwrap().finish().unwrap();
        assert!(again.snapshots(&SnapshotFilter::default()).unwrap().is_empty());
        assert_clean(&open(self.store.clone(), &self.key));
    }
}

#[test]
fn a_late_snapshot_is_looked_after_until_what_it_needs_is_durable() {
    let late = Late::new();
    mark(&late.repository, &late.store, &late.packs);
    let faulty = FaultyStore::new(Arc::new(late.store.clone()), 1);
    let again = late.again(faulty.clone());
    faulty.plant(Fault::before(Calls::Only(Call::Finish), 1).lasting());
    assert!(again.begin_backup(None, 1).is_err());
    assert!(faulty.failure_count() > 0, "it was about to store anew what the snapshot needs");
    drop(again);
    remove(&late.repository, &late.store, &late.packs);
    late.assert_forgotten_when_packs_are_gone();
}

#[test]
fn a_late_snapshot_that_nothing_keeps_from_it_gets_what_it_needs() {
    let late = Late::new();
    mark(&late.repository, &late.store, &late.packs);
    let again = late.again(late.store.clone());
    let backup = again.begin_backup(None, 1).unwrap();
    remove(&late.repository, &late.store, &late.packs);
    drop(backup);
    let stored = again.find_snapshot("latest", &SnapshotFilter::default()).unwrap();
    assert_eq!(stored.id, late.id);
    assert_holds(&late.store, &late.key, &stored, &sample());
}

#[test]
fn a_late_snapshot_on_a_bad_sector_stops_no_run_and_is_not_lost_sight_of() {
    let late = Late::new();
    let faulty = FaultyStore::new(Arc::new(late.store.clone()), 1);
    let again = late.again(faulty.clone());
    let segments = late.store.list("index").unwrap().len() as u64;
    faulty.plant(Fault::before(Calls::Only(Call::ReadAll), segments + 1));
    again.begin_backup(None, 1).unwrap().finish().unwrap();
    assert_eq!(faulty.failure_count(), 1);
    let warnings = again.take_warnings().concat();
    assert!(warnings.contains(&late.id.short().to_string()), "{warnings}");
    remove(&late.repository, &late.store, &late.packs);
    late.assert_forgotten_when_packs_are_gone();
}

#[test]
fn a_pack_of_a_broken_run_on_a_bad_sector_stops_no_run() {
    let (_, store, key) = repository();
    let folder = tempfile::tempdir().unwrap();
    break_before_segment(&store, &key, folder.path());

    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    let again = open_with(faulty.clone(), &key, &directories(folder.path()));
    faulty.plant(Fault::before(Calls::Only(Call::Read), 1).lasting());
    let backup = again.begin_backup(None, 1).unwrap();
    assert_eq!((backup.adopted_packs(), faulty.failure_count()), (0, 2));
    faulty.heal();
    let root = put_tree(&backup, &sample()).unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    assert_holds(&store, &key, &stored, &sample());
}

#[test]
fn a_late_snapshot_that_another_run_of_the_machine_is_about_to_write_is_not_lost_sight_of() {
    let late = Late::new();
    let path: ObjectPath = format!("snapshots/{}", late.id).parse().unwrap();
    let object = late.store.read_all(&path, 1 << 20).unwrap();
    delete(&late.store, &path);
    remove(&late.repository, &late.store, &late.packs);
    let recording = RecordingStore::new(Arc::new(late.store.clone()));
    let log = recording.log();
    let again = late.again(recording);
    // Another process, in the midst of writing it.
    let state = late.folder.path().join("state").join(late.repository.id().to_string());
    let lock = std::fs::File::options().write(true).open(state.join("lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| again.begin_backup(None, 1).unwrap().finish().unwrap());
        let has_looked = || log.count(|request| request.path == path.as_str()) > 0;
        while !has_looked() && !run.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!run.is_finished(), "it waits for the other one");
        late.store.write(&path, &object).unwrap();
        drop(lock);
        run.join().unwrap();
    });
    assert!(again.snapshots(&SnapshotFilter::default()).unwrap().is_empty());
    late.assert_forgotten_when_packs_are_gone();
}

#[test]
fn a_run_ends_although_a_frame_writer_is_left() {
    let (repository, store, key) = repository();
    let backup = repository.begin_backup(None, 2).unwrap();
    let mut left = backup.frame_writer(BlobKind::Data);
    left.put(&noise(1, 5_000)).unwrap();
    left.flush().unwrap();
    assert_eq!(backup.finish().unwrap().blobs, 1);
    // Nobody takes what it is given now.
    left.put(&noise(2, 5_000)).unwrap();
    assert!(matches!(left.flush(), Err(Error::WorkerFailed)));
    drop(left);
    assert_clean(&open(store, &key));
}

#[test]
fn a_run_that_ends_before_what_was_put_is_flushed_is_an_error() {
    let (repository, store, key) = repository();
    let backup = repository.begin_backup(None, 2).unwrap();
    let mut left = backup.frame_writer(BlobKind::Data);
    left.put(&noise(1, 5_000)).unwrap();
    assert!(matches!(backup.finish(), Err(Error::Unflushed)));
    drop(left);
    // The blob counts as new again.
    let mut files = Files::new();
    files.insert("file".to_owned(), noise(1, 5_000));
    let stored = back_up(&repository, &files).unwrap();
    assert_holds(&store, &key, &stored, &files);
}

#[test]
fn a_frame_writer_that_is_dropped_gives_up_what_it_gathered() {
    let (repository, _, _) = repository();
    let backup = repository.begin_backup(None, 2).unwrap();
    let mut given_up = backup.frame_writer(BlobKind::Data);
    given_up.put(&noise(1, 5_000)).unwrap();
    drop(given_up);
    assert_eq!(backup.finish().unwrap().blobs, 0);
}

#[test]
fn the_thread_of_the_caller_can_do_it_all() {
    let store = MemoryStore::new();
    let options = InitOptions { pack_bytes: Some(8 << 20), ..init_options() };
    let machine = Machine::default();
    let repository =
        Repository::init(Arc::new(store.clone()), &password(), &options, &machine).unwrap();
    let mut files = sample();
    // More than a pack holds.
    files.insert("large".to_owned(), noise(7, 18 << 20));
    let backup = repository.begin_backup(None, 0).unwrap();
    let root = put_tree(&backup, &files).unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    let written = backup.finish().unwrap();
    assert!(written.packs > 2, "{written:?}");
    assert_holds(&store, &repository.export_key(), &stored, &files);
    assert_clean(&repository);

    // A run that is given up keeps no claims: the next one stores the same again.
    let more = [("more", noise(8, 5_000))].map(|(name, bytes)| (name.to_owned(), bytes));
    let backup = repository.begin_backup(None, 0).unwrap();
    put_tree(&backup, &more.clone().into()).unwrap();
    drop(backup);
    let stored = back_up(&repository, &more.clone().into()).unwrap();
    assert_holds(&store, &repository.export_key(), &stored, &more.into());
}
