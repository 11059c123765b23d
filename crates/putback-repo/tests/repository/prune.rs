//! Forget, undelete, prune: what is needed stays whatever happens, and what is not goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_format::mark::MarkKind;
use putback_format::tree::Timestamp;
use putback_repo::prune::{GRACE, MaxUnused, PruneOptions, PruneReport};
use putback_repo::{
    Cancel, Clock, Error, Machine, Repository, Requests, SnapshotDraft, SnapshotFilter,
    StoredSnapshot, Times,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::{RecordingStore, RequestLog};
use putback_store::{Capabilities, Store};

use crate::hooked::interfering;
use crate::support::*;

fn instant() -> PruneOptions {
    PruneOptions { instant: true, ..PruneOptions::default() }
}

/// Marks that stand for an hour: a run marks and carries nothing out.
fn patient() -> PruneOptions {
    PruneOptions { grace: Duration::from_secs(3600), ..PruneOptions::default() }
}

/// Marks whose time has come already.
fn due() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() }
}

fn prune(repository: &Repository, options: &PruneOptions) -> PruneReport {
    repository.prune(options, &()).unwrap_or_else(|error| panic!("{}", describe(&error)))
}

fn bytes(store: &MemoryStore) -> u64 {
    store.list("packs").unwrap().iter().map(|row| row.size).sum()
}

fn ids(repository: &Repository) -> Vec<putback_format::id::SnapshotId> {
    let all = repository.snapshots(&SnapshotFilter::default()).unwrap();
    all.iter().map(|stored| stored.id).collect()
}

/// Two snapshots: the first with files that the second lacks.
struct Two {
    repository: Repository,
    store: MemoryStore,
    key: String,
    first: StoredSnapshot,
    second: StoredSnapshot,
    rest: Files,
}

fn two() -> Two {
    let (repository, store, key) = repository();
    let gone = noise(1, 300_000);
    let kept = noise(2, 200_000);
    let all = files([("dir/gone", gone.as_slice()), ("kept", &kept), (LONG, &noise(3, 20_000))]);
    let first = back_up(&repository, &all).unwrap();
    let rest = files([("kept", kept.as_slice()), (LONG, &noise(3, 20_000))]);
    let second = back_up(&repository, &rest).unwrap();
    Two { repository, store, key, first, second, rest }
}

#[test]
fn what_a_forgotten_snapshot_alone_needed_goes_and_everything_else_stays() {
    let Two { repository, store, key, first, second, rest } = two();
    assert_eq!(prune(&repository, &instant()).bytes_deleted, 0, "everything is needed");
    let before = bytes(&store);
    repository.forget(std::slice::from_ref(&first)).unwrap();
    assert_eq!(ids(&repository), [second.id]);
    let report = prune(&repository, &instant());
    assert!(report.packs_deleted >= 1 && report.snapshots_deleted == 1, "{report:?}");
    assert_eq!((report.packs_left, report.bytes_left), (0, 0), "{report:?}");
    assert!(bytes(&store) < before - 250_000, "{} of {before}", bytes(&store));
    assert_holds(&store, &key, &second, &rest);
    let reopened = open(store.clone(), &key);
    assert_clean(&reopened);
    assert_eq!(reopened.take_warnings(), [""; 0], "the gap is explained");
    assert_eq!(store.list("marks").unwrap().len(), 1, "the forget record stays");

    let after = store.paths();
    assert_eq!(prune(&reopened, &instant()).packs_deleted, 0);
    assert_eq!(store.paths(), after, "there is nothing left to do");
    let again = back_up(&open(store.clone(), &key), &rest).unwrap();
    assert_holds(&store, &key, &again, &rest);
}

#[test]
fn a_mark_stands_for_its_time_and_is_then_carried_out() {
    let Two { repository, store, key, first, second, rest } = two();
    repository.forget(&[first]).unwrap();
    let before = bytes(&store);
    let report = prune(&repository, &patient());
    assert!(report.packs_unneeded + report.packs_repacked > 0 && report.packs_deleted == 0);
    assert!(bytes(&store) >= before);
    let report = prune(&open(store.clone(), &key), &patient());
    assert!(report.packs_waiting > 0 && report.packs_deleted == 0, "{report:?}");
    assert!((3500..=3601).contains(&report.seconds_to_wait), "{report:?}");
    assert_eq!((report.packs_unneeded, report.packs_repacked), (0, 0), "marked once");

    let report = prune(&open(store.clone(), &key), &due());
    assert!(report.packs_deleted > 0 && report.snapshots_deleted == 1, "{report:?}");
    assert!(bytes(&store) < before);
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store, &key));
}

#[test]
fn a_forgotten_snapshot_is_there_until_the_packs_go_that_it_alone_needs() {
    let Two { repository, first, second, .. } = two();
    repository.forget(std::slice::from_ref(&first)).unwrap();
    // Forgotten long enough ago, but nothing of it is marked yet.
    let report = prune(&repository, &due());
    assert!(report.bytes_marked > 0 && report.snapshots_deleted == 0, "{report:?}");
    assert_eq!(repository.forgotten().unwrap(), [first]);
    let report = prune(&repository, &due());
    assert!(report.bytes_deleted > 0 && report.snapshots_deleted == 1, "{report:?}");
    // One that needs nothing alone goes by itself.
    let again = SnapshotDraft::from(&second.snapshot);
    repository.replace(&[(second, again)], 1, &Cancel::default()).unwrap();
    let report = prune(&repository, &patient());
    assert_eq!((report.bytes_marked, report.snapshots_deleted), (0, 0), "{report:?}");
    let report = prune(&repository, &due());
    assert_eq!((report.bytes_marked, report.snapshots_deleted), (0, 1), "{report:?}");
}

#[test]
fn a_dry_run_says_what_a_run_does_and_changes_nothing() {
    let Two { repository, store, first, .. } = two();
    let taken_for_forgotten = [first.id].into();
    let earlier = PruneOptions { dry_run: true, taken_for_forgotten, ..instant() };
    let earlier = prune(&repository, &earlier);
    repository.forget(&[first]).unwrap();
    let before = store.paths();
    let mut planned = prune(&repository, &PruneOptions { dry_run: true, ..instant() });
    assert_eq!(store.paths(), before);
    // The forget record is a mark, which is read.
    planned.requests = earlier.requests;
    assert_eq!(earlier, planned, "also before it is forgotten");
    let done = prune(&repository, &instant());
    assert_eq!(
        (planned.packs_unneeded, planned.packs_repacked, planned.bytes_marked),
        (done.packs_unneeded, done.packs_repacked, done.bytes_marked)
    );
    assert_eq!(done.bytes_deleted, done.bytes_marked);
}

#[test]
fn a_forgotten_snapshot_comes_back_until_its_content_is_gone() {
    let Two { repository, store, key, first, second, rest } = two();
    let all = contents(&repository, &first.snapshot).unwrap();
    repository.forget(std::slice::from_ref(&first)).unwrap();
    assert_eq!(repository.forgotten().unwrap(), std::slice::from_ref(&first));
    prune(&repository, &patient());
    // Its packs are marked by now: what is needed of them is stored anew.
    let back = repository.undelete(std::slice::from_ref(&first), 1, &Cancel::default()).unwrap();
    assert_eq!(back.written[0].0, first.id);
    let new = back.written[0].1.to_string();
    let new = repository.find_snapshot(&new, &SnapshotFilter::default()).unwrap();
    assert!(new.is_like(&first) && !new.is_like(&second));
    assert_eq!(new.snapshot.statistics, first.snapshot.statistics);
    prune(&repository, &due());
    assert_holds(&store, &key, &new, &all);
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store.clone(), &key));

    repository.forget(std::slice::from_ref(&new)).unwrap();
    prune(&repository, &instant());
    assert_eq!(repository.forgotten().unwrap(), []);
    let removed = repository.find_forgotten(&new.id.to_string());
    assert!(matches!(removed, Err(Error::Removed { snapshot }) if snapshot == new.id));
    let there = repository.find_forgotten(&second.id.to_string());
    assert!(matches!(there, Err(Error::NotForgotten { snapshot }) if snapshot == second.id));
    // Of two that are to come back only one can.
    repository.forget(std::slice::from_ref(&second)).unwrap();
    let both = repository.undelete(&[new.clone(), second.clone()], 1, &Cancel::default()).unwrap();
    assert!(both.failed.len() == 1 && both.failed[0].0 == new.id, "{:?}", both.failed);
    assert!(both.failed[0].1.is_about_blob(), "{}", both.failed[0].1);
    assert!(both.written.len() == 1 && both.written[0].0 == second.id);
    let second = repository.find_snapshot("latest", &SnapshotFilter::default()).unwrap();
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store, &key));
}

#[test]
fn a_snapshot_gets_other_words_and_keeps_its_content() {
    let Two { repository, store, key, first, rest: _, second } = two();
    let all = contents(&repository, &first.snapshot).unwrap();
    let mut draft = SnapshotDraft::from(&first.snapshot);
    draft.tags = vec!["tax".to_owned()];
    let changed =
        repository.replace(&[(first.clone(), draft)], 1, &Cancel::default()).unwrap().written;
    let listed = ids(&repository);
    assert!(listed.contains(&changed[0].1) && listed.contains(&second.id) && listed.len() == 2);
    let new = repository.find_snapshot(&changed[0].1.to_string(), &SnapshotFilter::default());
    let new = new.unwrap();
    assert_eq!(new.snapshot.tags, ["tax"]);
    assert_eq!(
        (new.snapshot.time, &new.snapshot.host),
        (first.snapshot.time, &first.snapshot.host)
    );
    assert_holds(&store, &key, &new, &all);
}

#[test]
fn a_snapshot_of_which_something_is_lost_stays_and_the_others_get_their_words() {
    let Two { store, key, first, second, rest, .. } = two();
    let before = store.list("packs").unwrap();
    let more = files([("kept", noise(2, 200_000).as_slice()), ("lost", &noise(7, 400_000))]);
    let hurt = back_up(&open(store.clone(), &key), &more).unwrap();
    let last = back_up(&open(store.clone(), &key), &rest).unwrap();
    let mut new = store.list("packs").unwrap();
    new.retain(|row| row.size > 100_000 && !before.contains(row));
    assert_eq!(new.len(), 1);
    store.delete(&new).unwrap();

    let repository = open(store.clone(), &key);
    let changes: Vec<_> = [&first, &hurt, &second, &last]
        .map(|old| {
            let tags = vec!["tax".to_owned()];
            (old.clone(), SnapshotDraft { tags, ..SnapshotDraft::from(&old.snapshot) })
        })
        .into();
    let replaced = repository.replace(&changes, 1, &Cancel::default()).unwrap();
    let written: Vec<_> = replaced.written.iter().map(|(old, _)| *old).collect();
    assert_eq!(written, [first.id, second.id, last.id]);
    assert!(!replaced.is_interrupted && replaced.failed.len() == 1);
    let (id, error) = &replaced.failed[0];
    let pack = new[0].path.name();
    assert!(
        *id == hurt.id
            && matches!(error, Error::BlobLost { pack: lost, .. } if lost.to_string() == pack),
        "{error}"
    );
    assert!(error.to_string().ends_with(&format!("is lost: pack {} is missing", &pack[..8])));
    let listed = ids(&repository);
    assert!(listed.len() == 4 && listed.contains(&hurt.id) && !listed.contains(&first.id));
    let again =
        repository.find_snapshot(&replaced.written[2].1.to_string(), &SnapshotFilter::default());
    assert_holds(&store, &key, &again.unwrap(), &rest);
}

#[test]
fn a_backup_that_began_before_the_mark_stores_anew_what_will_go() {
    let Two { repository, store, key, first, .. } = two();
    let all = contents(&repository, &first.snapshot).unwrap();
    let writer = open(store.clone(), &key);
    let backup = writer.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &all).unwrap();
    // Meanwhile another machine forgets and marks.
    repository.forget(&[first]).unwrap();
    assert!(prune(&repository, &patient()).bytes_marked > 0);
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    prune(&open(store.clone(), &key), &due());
    assert_holds(&store, &key, &stored, &all);
    assert_clean(&open(store, &key));
}

#[test]
fn what_a_snapshot_needs_of_a_marked_pack_is_stored_anew_before_it_goes() {
    let Two { repository, store, key, first, second, rest } = two();
    let all = contents(&repository, &first.snapshot).unwrap();
    // A mark that names everything, as a prune that saw no snapshot would write.
    let mut every = packs(&store);
    every.sort();
    write_mark(&repository, &store, MarkKind::Packs(every.clone()));
    let report = prune(&open(store.clone(), &key), &due());
    assert!(report.blobs_rescued > 0, "{report:?}");
    assert_eq!(report.packs_deleted, every.len() as u64);
    assert!(packs(&store).iter().all(|pack| !every.contains(pack)));
    assert_holds(&store, &key, &first, &all);
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store, &key));
}

#[test]
fn a_snapshot_that_cannot_be_read_stops_prune_before_anything_is_lost() {
    let Two { repository, store, key, first, second, .. } = two();
    repository.forget(&[first]).unwrap();
    let path = putback_store::ObjectPath::new(&format!("snapshots/{}", second.id)).unwrap();
    assert!(store.damage(&path, |bytes| bytes[80] ^= 1));
    let before = packs(&store);
    assert!(matches!(repository.prune(&instant(), &()), Err(Error::Damaged { .. })));
    assert!(store.damage(&path, |bytes| bytes[80] ^= 1));
    assert!(before.iter().all(|pack| packs(&store).contains(pack)));
    assert_clean(&open(store, &key));
}

#[test]
fn a_snapshot_that_is_listed_and_not_found_for_a_while_loses_nothing_to_prune() {
    let Two { repository, store, key, first, second, rest } = two();
    repository.forget(&[first]).unwrap();
    let path = putback_store::ObjectPath::new(&format!("snapshots/{}", second.id)).unwrap();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    for is_remote in [false, true] {
        for reads in [1, 2, u64::MAX] {
            let fork = store.fork();
            let fork = if is_remote { fork.with_capabilities(remote) } else { fork };
            let faulty = FaultyStore::new(Arc::new(fork.clone()), 1);
            let opened = open(faulty.clone(), &key);
            faulty.deny_reads(&path, reads);
            let options = if is_remote { due() } else { instant() };
            let error = opened.prune(&options, &()).unwrap_err();
            assert!(matches!(&error, Error::Store(error) if error.is_not_found()), "{error}");
            assert!(describe(&error).contains(&path.to_string()), "{error}");
            assert_eq!(packs(&fork), packs(&store));
            assert_eq!(fork.list("marks").unwrap().len(), 1, "the forget record alone");
            assert_holds(&fork, &key, &second, &rest);
        }
    }
}

#[test]
fn checkpoints_that_a_complete_snapshot_made_void_go_too() {
    let (repository, store, key) = repository();
    let early = files([("early", noise(5, 100_000).as_slice())]);
    let backup = repository.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &early).unwrap();
    backup.commit(SnapshotDraft { complete: false, ..draft(root) }).unwrap();
    let late = files([("late", noise(6, 1000).as_slice())]);
    let root = put_tree(&backup, &late).unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    backup.finish().unwrap();
    let report = prune(&repository, &instant());
    assert!(report.snapshots == 1 && report.snapshots_deleted == 1, "{report:?}");
    assert!(bytes(&store) < 100_000);
    assert_holds(&store, &key, &stored, &late);
    let reopened = open(store, &key);
    reopened.snapshots(&SnapshotFilter::default()).unwrap();
    assert_eq!(reopened.take_warnings(), [""; 0]);
}

#[test]
fn other_words_for_an_older_snapshot_make_no_checkpoint_void() {
    let (repository, _, _) = repository();
    let all = files([("a", noise(5, 10_000).as_slice())]);
    let older = back_up(&repository, &all).unwrap();
    let backup = repository.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &all).unwrap();
    let mut later = draft(root);
    later.time.seconds = older.snapshot.time.seconds + 1;
    let unfinished = SnapshotDraft { complete: false, ..later.clone() };
    let checkpoint = backup.commit(unfinished).unwrap();
    let mut tagged = SnapshotDraft::from(&older.snapshot);
    tagged.tags = vec!["tax".to_owned()];
    repository.replace(&[(older, tagged)], 1, &Cancel::default()).unwrap();
    let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
    let listed = |id| repository.snapshots(&filter).unwrap().iter().any(|stored| stored.id == id);
    assert!(listed(checkpoint.id));
    backup.commit(later).unwrap();
    backup.finish().unwrap();
    assert!(!listed(checkpoint.id), "a complete one of that time does");
}

#[test]
fn unneeded_content_may_stay_up_to_a_limit() {
    let make = || {
        let (repository, store, key) = repository();
        let all = files([("a", noise(1, 300_000).as_slice()), ("b", &noise(2, 20_000))]);
        let first = back_up(&repository, &all).unwrap();
        back_up(&repository, &files([("a", noise(1, 300_000).as_slice())])).unwrap();
        repository.forget(&[first]).unwrap();
        (repository, store, key)
    };
    let run = |max_unused, purge| {
        let (repository, _, _) = make();
        prune(&repository, &PruneOptions { max_unused, purge, ..instant() }).packs_repacked
    };
    assert_eq!(run(MaxUnused::Percent(50.0), false), 0);
    assert_eq!(run(MaxUnused::Unlimited, false), 0);
    assert_eq!(run(MaxUnused::Bytes(1 << 20), false), 0);
    assert!(run(MaxUnused::Percent(1.0), false) > 0);
    assert!(run(MaxUnused::Bytes(0), false) > 0);
    assert!(run(MaxUnused::Unlimited, true) > 0, "purge leaves nothing");
    let (repository, _, _) = make();
    let limited =
        PruneOptions { max_unused: MaxUnused::Bytes(0), max_repack: Some(1000), ..instant() };
    assert_eq!(prune(&repository, &limited).packs_repacked, 0);
}

#[test]
fn small_packs_are_joined_when_that_is_asked_for() {
    let (repository, store, key) = repository();
    let mut all = Files::new();
    for number in 0..5 {
        all.insert(format!("file {number}"), noise(number, 5000));
        back_up(&repository, &all).unwrap();
    }
    let before = packs(&store).len();
    prune(&repository, &PruneOptions { repack_small: true, ..instant() });
    assert!(packs(&store).len() <= 2 && before >= 10, "{before} to {}", packs(&store).len());
    let last = repository.find_snapshot("latest", &SnapshotFilter::default()).unwrap();
    assert_holds(&store, &key, &last, &all);
    assert_clean(&open(store, &key));
}

#[test]
fn where_stores_have_no_locks_marks_always_stand_for_the_window_and_the_lag() {
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let store = MemoryStore::new().with_capabilities(remote);
    let times = Times { second_look: Duration::ZERO, ..Times::default() };
    let machine = Machine { times, ..Machine::default() };
    let repository =
        Repository::init(Arc::new(store.clone()), &password(), &init_options(), &machine).unwrap();
    let first = back_up(&repository, &files([("a", noise(1, 50_000).as_slice())])).unwrap();
    back_up(&repository, &files([("b", noise(2, 50_000).as_slice())])).unwrap();
    repository.forget(&[first]).unwrap();
    for options in [patient(), due()] {
        let report = prune(&repository, &options);
        assert_eq!(report.packs_deleted, 0, "{report:?}");
    }
    let report = prune(&repository, &due());
    let least = 15 * 60 + 2 * 3600;
    assert!((least - 60..=least + 1).contains(&report.seconds_to_wait), "{report:?}");
}

#[test]
fn a_prune_that_broke_at_any_request_loses_nothing_and_the_next_one_ends_it() {
    let Two { repository, store, key, first, second, rest } = two();
    repository.forget(&[first]).unwrap();
    let expected = bytes_after_prune(&store, &key);
    let points = std::sync::atomic::AtomicU64::new(0);
    let break_at_each = |variant| {
        for number in 1.. {
            let fork = store.fork();
            let faulty = FaultyStore::new(Arc::new(fork.clone()), number);
            faulty.plant(match variant {
                0 => Fault::before(Calls::Any, number),
                1 => Fault::after(Calls::Any, number),
                2 => Fault::before(Calls::Any, number).crashing(),
                _ => Fault::after(Calls::Any, number).crashing(),
            });
            let folder = tempfile::tempdir().unwrap();
            let what = format!("request {number}, fault {variant}");
            let broken = open_with_faulty(faulty.clone(), &key, &directories(folder.path()));
            let result = broken.and_then(|repository| repository.prune(&instant(), &()).map(drop));
            if faulty.failure_count() == 0 {
                result.unwrap();
                return;
            }
            points.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert_holds(&fork, &key, &second, &rest);
            let next = open_with(fork.clone(), &key, &directories(folder.path()));
            prune(&next, &instant());
            prune(&next, &instant());
            assert_holds(&fork, &key, &second, &rest);
            assert_clean(&open(fork.clone(), &key));
            assert_eq!(bytes(&fork), expected, "{what}");
            assert_eq!(fork.list("snapshots").unwrap().len(), 1, "{what}");
        }
    };
    std::thread::scope(|scope| {
        for variant in 0..4 {
            let break_at_each = &break_at_each;
            scope.spawn(move || break_at_each(variant));
        }
    });
    let points = points.into_inner();
    println!("{points} points");
    assert!(points > 100, "{points}");
}

fn open_with_faulty(
    store: FaultyStore,
    key: &str,
    directories: &Machine,
) -> Result<Repository, Error> {
    Repository::open_with_exported_key(Arc::new(store), key, directories)
}

fn bytes_after_prune(store: &MemoryStore, key: &str) -> u64 {
    let fork = store.fork();
    prune(&open(fork.clone(), key), &instant());
    bytes(&fork)
}

/// As large as the test trees' chunks are.
const CHUNK: usize = 4096;

fn all_unneeded() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), ..instant() }
}

/// Two frames in one pack. Of the first 206 chunks of 256 are needed, of the second 60 of 200.
struct Mixed {
    two: Two,
    /// Blobs that nothing needs, of the first and of the second frame.
    dead: [BlobId; 2],
}

fn mixed() -> Mixed {
    let (repository, store, key) = repository();
    let (a, b) = (noise(1, 206 * CHUNK), noise(2, 50 * CHUNK));
    let (c, d) = (noise(3, 60 * CHUNK), noise(4, 140 * CHUNK));
    let all = files([("a", a.as_slice()), ("b", &b), ("c", &c), ("d", &d)]);
    let first = back_up(&repository, &all).unwrap();
    let rest = files([("a", a.as_slice()), ("c", &c)]);
    let second = back_up(&repository, &rest).unwrap();
    let id = |file: &[u8]| repository.id_keys().blob_id(BlobKind::Data, &file[..CHUNK]);
    let dead = [id(&b), id(&d)];
    repository.forget(std::slice::from_ref(&first)).unwrap();
    Mixed { two: Two { repository, store, key, first, second, rest }, dead }
}

#[test]
fn a_frame_that_is_mostly_needed_is_copied_whole_and_others_are_cut_anew() {
    for workers in [0, 1, 3] {
        let Mixed { two, dead } = mixed();
        let Two { store, key, second, rest, .. } = &two;
        let options = PruneOptions { workers, ..all_unneeded() };
        let report = prune(&open(store.clone(), key), &options);
        // The packs of data, and of trees.
        assert_eq!((report.packs_repacked, report.packs_deleted), (1, 2), "{report:?}");
        assert_holds(store, key, second, rest);
        let reopened = open(store.clone(), key);
        assert_clean(&reopened);
        reopened.load_index().unwrap();
        let is_there = dead.map(|id| reopened.index().find(&id).unwrap().is_some());
        assert_eq!(is_there, [true, false], "only what came with a frame that was copied");

        // It ends there: what is unneeded in the copied frame cannot be given back in this way.
        let before = store.paths();
        let report = prune(&reopened, &options);
        assert_eq!((report.packs_repacked, report.packs_partly_needed), (0, 1), "{report:?}");
        assert_eq!(store.paths(), before);

        // What came along is as good as any other blob.
        let (a, b) = (noise(1, 206 * CHUNK), noise(2, 50 * CHUNK));
        let again = files([("a", a.as_slice()), ("b", &b)]);
        let backup = reopened.begin_backup(None, 1).unwrap();
        let root = put_tree(&backup, &again).unwrap();
        let stored = backup.commit(draft(root)).unwrap();
        assert!(backup.finish().unwrap().plain_bytes < 50_000, "only trees are new");
        assert_holds(store, key, &stored, &again);
    }
}

#[test]
fn purge_leaves_nothing_that_is_not_needed() {
    let Mixed { two, dead } = mixed();
    let Two { repository, store, key, second, rest, .. } = two;
    prune(&repository, &PruneOptions { purge: true, ..instant() });
    let reopened = open(store.clone(), &key);
    reopened.load_index().unwrap();
    assert_eq!(dead.map(|id| reopened.index().find(&id).unwrap()), [None, None]);
    assert_eq!(prune(&reopened, &instant()).packs_partly_needed, 0);
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&reopened);
}

#[test]
fn copied_frames_are_sealed_anew_and_a_damaged_one_stops_it_before_anything_goes() {
    let Mixed { two, .. } = mixed();
    let Two { repository, store, key, first, .. } = two;
    let data = repository.index().find(&first_data_blob(&repository, &first)).unwrap().unwrap();
    let pack = repository.pack(data.pack).unwrap();
    let path = putback_store::ObjectPath::new(&format!("packs/{}", pack.id)).unwrap();
    assert!(store.damage(&path, |bytes| bytes[1000] ^= 1));
    let before = packs(&store);
    let result = repository.prune(&all_unneeded(), &());
    assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
    assert!(before.iter().all(|pack| packs(&store).contains(pack)));
    assert_eq!(store.list("marks").unwrap().len(), 1, "the forget record alone");
    assert!(store.damage(&path, |bytes| bytes[1000] ^= 1));
    assert!(prune(&open(store, &key), &all_unneeded()).packs_deleted > 0);
}

fn first_data_blob(repository: &Repository, stored: &StoredSnapshot) -> BlobId {
    let file = repository.read_directory(&stored.snapshot.root).unwrap().next().unwrap().unwrap();
    let putback_format::tree::EntryKind::File { content, .. } = &file.kind else { panic!() };
    repository.read_chunks(content).unwrap()[0].id
}

/// A store that is far away, and its time.
fn far(clock: &Steered) -> MemoryStore {
    let capabilities = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let clock = clock.clone();
    MemoryStore::new()
        .with_capabilities(capabilities)
        .with_clock(move || SystemTime::UNIX_EPOCH + clock.passed())
}

/// A clock that goes on when somebody waits, and only then.
#[derive(Clone, Default)]
struct Steered {
    passed: Arc<Mutex<Duration>>,
    /// What happens once when somebody has waited for so long.
    then: Arc<Mutex<Option<(Duration, Action)>>>,
}

type Action = Box<dyn FnOnce() + Send>;

impl Steered {
    /// Long after 1970.
    fn passed(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + *self.passed.lock().unwrap()
    }

    fn advance(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }

    fn after(&self, wait: Duration, action: impl FnOnce() + Send + 'static) {
        let at = *self.passed.lock().unwrap() + wait;
        *self.then.lock().unwrap() = Some((at, Box::new(action)));
    }

    fn machine(&self) -> Machine {
        Machine { clock: Arc::new(self.clone()), ..Machine::default() }
    }
}

impl std::fmt::Debug for Steered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.passed())
    }
}

impl Clock for Steered {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.passed().as_secs() as i64, nanoseconds: 0 }
    }

    fn since_boot(&self) -> Duration {
        *self.passed.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        self.advance(time);
        let passed = *self.passed.lock().unwrap();
        let action = self.then.lock().unwrap().take_if(|(at, _)| *at <= passed);
        if let Some((_, action)) = action {
            action();
        }
    }
}

/// Two snapshots of one writer on a store that is far away, the first of which is forgotten.
struct Far {
    clock: Steered,
    store: MemoryStore,
    repository: Repository,
    key: String,
    second: StoredSnapshot,
    rest: Files,
}

fn forgotten_far_away() -> Far {
    let clock = Steered::default();
    let store = far(&clock);
    let made =
        Repository::init(Arc::new(store.clone()), &password(), &init_options(), &clock.machine());
    let repository = made.unwrap();
    let first = back_up(&repository, &files([("a", noise(1, 50_000).as_slice())])).unwrap();
    let rest = files([("b", noise(2, 50_000).as_slice())]);
    let second = back_up(&repository, &rest).unwrap();
    repository.forget(&[first]).unwrap();
    let key = repository.export_key().to_string();
    Far { clock, store, repository, key, second, rest }
}

#[test]
fn where_there_are_no_locks_instant_waits_for_the_shortest_grace_period_there_may_be() {
    let Far { clock, store, repository, key, second, rest } = forgotten_far_away();
    let least = Times::default().grace_least();
    let (before, began) = (packs(&store).len(), clock.passed());
    let in_the_middle = Arc::new(Mutex::new(0));
    let (noted, middle) = (Arc::clone(&in_the_middle), store.clone());
    clock.after(least - Duration::from_secs(1), move || {
        *noted.lock().unwrap() = packs(&middle).len();
    });
    let report = prune(&repository, &instant());
    assert!(report.packs_deleted > 0 && report.packs_waiting == 0, "{report:?}");
    assert_eq!(report.snapshots_deleted, 1);
    assert!(*in_the_middle.lock().unwrap() >= before, "nothing goes before its time");
    let waited = clock.passed() - began;
    // And a minute between two looks.
    assert!(waited >= least && waited < least + Duration::from_secs(90), "{waited:?}");
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store, &key));
}

#[test]
fn a_store_that_gives_no_lock_although_it_should_is_pruned_as_one_without() {
    let clock = Steered::default();
    let by_store = clock.clone();
    let store = MemoryStore::new().with_clock(move || SystemTime::UNIX_EPOCH + by_store.passed());
    let layer = FaultyStore::new(Arc::new(store.clone()), 1);
    layer.set_lockless(true);
    let made = Repository::init(Arc::new(layer), &password(), &init_options(), &clock.machine());
    let repository = made.unwrap();
    assert!(store.capabilities().is_consistent && !repository.has_locks().unwrap());
    let first = back_up(&repository, &files([("a", noise(1, 50_000).as_slice())])).unwrap();
    let rest = files([("b", noise(2, 50_000).as_slice())]);
    let second = back_up(&repository, &rest).unwrap();
    repository.forget(&[first]).unwrap();
    let least = Times::default().grace_least();
    for _ in 0..2 {
        let report = prune(&repository, &due());
        assert_eq!((report.packs_deleted, report.grace_seconds), (0, least.as_secs()));
    }
    let before = packs(&store).len();
    clock.advance(least + Duration::from_secs(1));
    assert!(prune(&repository, &due()).packs_deleted > 0);
    assert!(packs(&store).len() < before);

    repository.forget(&[second]).unwrap();
    let third = back_up(&repository, &files([("c", b"c".as_slice())])).unwrap();
    let began = clock.passed();
    let report = prune(&repository, &instant());
    assert!(report.packs_deleted > 0 && clock.passed() - began >= least, "{report:?}");
    let key = repository.export_key().to_string();
    assert_holds(&store, &key, &third, &files([("c", b"c".as_slice())]));
}

#[test]
fn a_forgotten_snapshot_stays_for_its_time_whatever_a_machine_takes_for_the_time() {
    let clock = Steered::default();
    let store = far(&clock);
    let made =
        Repository::init(Arc::new(store.clone()), &password(), &init_options(), &clock.machine());
    let repository = made.unwrap();
    let all = files([("a", noise(1, 50_000).as_slice())]);
    let first = back_up(&repository, &all).unwrap();
    // Of the same content: no pack goes with the first.
    back_up(&repository, &all).unwrap();
    repository.forget(&[first]).unwrap();
    let ahead = Steered::default();
    ahead.advance(2 * GRACE);
    let key = repository.export_key().to_string();
    let hasty = open_with(store.clone(), &key, &ahead.machine());
    for _ in 0..2 {
        let report = prune(&hasty, &PruneOptions::default());
        assert_eq!((report.packs_left, report.snapshots_deleted), (0, 0), "{report:?}");
    }
    clock.advance(GRACE + Duration::from_secs(1));
    assert_eq!(prune(&hasty, &PruneOptions::default()).snapshots_deleted, 1);
    let before = store.paths();
    assert_eq!(prune(&hasty, &PruneOptions::default()).snapshots_deleted, 0);
    assert_eq!(store.paths(), before);
    assert_clean(&open(store, &key));
}

#[test]
fn a_stopped_wait_leaves_the_rest_to_a_later_run() {
    let Far { clock, store, repository, key, second, rest } = forgotten_far_away();
    let options = instant();
    let cancel = options.cancel.clone();
    clock.after(Duration::from_secs(600), move || cancel.cancel());
    let report = prune(&repository, &options);
    assert!(report.is_interrupted && report.bytes_marked > 0 && report.packs_deleted == 0);
    assert_eq!(report.packs_left, report.packs_unneeded + report.packs_repacked);
    assert_eq!(report.bytes_left, report.bytes_marked);
    assert!(clock.since_boot() < Duration::from_secs(700), "{clock:?}");
    clock.advance(Duration::from_secs(3 * 3600));
    let later = open_with(store.clone(), &key, &clock.machine());
    let report = prune(&later, &due());
    assert!(report.packs_deleted > 0, "{report:?}");
    assert_holds(&store, &key, &second, &rest);
    assert_clean(&open(store, &key));
}

#[test]
fn instant_is_refused_while_another_writer_is_about() {
    let Far { clock, store, repository, key, second, rest } = forgotten_far_away();
    let other = open_with(store.clone(), &key, &clock.machine());
    let backup = other.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &files([("c", noise(3, 5000).as_slice())])).unwrap();
    let checkpoint = SnapshotDraft { complete: false, ..draft(root.clone()) };
    backup.commit(checkpoint).unwrap();
    clock.advance(Duration::from_secs(3600));
    let before = store.paths();
    let refused = |result| matches!(result, Err(Error::OthersActive { age_seconds: 3600, .. }));
    assert!(refused(repository.prune(&instant(), &())));
    let dry = PruneOptions { dry_run: true, ..instant() };
    assert!(refused(repository.prune(&dry, &())));
    assert_eq!(store.paths(), before, "nothing was marked");
    let report = prune(&repository, &due());
    assert!(report.bytes_marked > 0, "without --instant anybody may write: {report:?}");

    // The next one comes while the first is waited for.
    clock.advance(Times::default().grace_least());
    repository.forget(&[second]).unwrap();
    let mine = back_up(&repository, &rest).unwrap();
    let others = files([("d", noise(4, 5000).as_slice())]);
    let written = Arc::new(Mutex::new(None));
    let (noted, theirs) = (Arc::clone(&written), others.clone());
    clock.after(Duration::from_secs(1800), move || {
        *noted.lock().unwrap() = Some(back_up(&other, &theirs).unwrap());
    });
    let gone = files([("e", noise(5, 50_000).as_slice())]);
    let gone = back_up(&repository, &gone).unwrap();
    repository.forget(&[gone]).unwrap();
    let before = packs(&store);
    let result = repository.prune(&instant(), &());
    assert!(matches!(result, Err(Error::OthersActive { .. })), "{result:?}");
    let deleted = before.iter().filter(|pack| !packs(&store).contains(pack)).count();
    // Those whose time had come when the run began.
    assert!(deleted < before.len(), "{deleted}");
    clock.advance(Duration::from_secs(24 * 3600));
    assert!(prune(&repository, &PruneOptions::default()).packs_deleted > 0);
    assert_holds(&store, &key, &mine, &rest);
    assert_holds(&store, &key, &written.lock().unwrap().clone().unwrap(), &others);
    assert_clean(&open(store, &key));
}

#[test]
fn what_is_lost_stops_prune_before_anything_is_marked() {
    let clock = Steered::default();
    for (store, loses_pack) in [
        (MemoryStore::new(), false),
        (MemoryStore::new(), true),
        (far(&clock), false),
        (far(&clock), true),
    ] {
        let repository = init(Arc::new(store.clone())).unwrap();
        let key = repository.export_key().to_string();
        let first = back_up(&repository, &files([("a", noise(1, 50_000).as_slice())])).unwrap();
        let known: Vec<_> = store.paths();
        // A segment, and a pack, of data alone; trees have their own.
        let content = noise(2, 50_000);
        let backup = repository.begin_backup(None, 1).unwrap();
        let mut data = backup.frame_writer(BlobKind::Data);
        let ids: Vec<_> = content.chunks(CHUNK).map(|chunk| data.put(chunk).unwrap()).collect();
        data.flush().unwrap();
        backup.flush().unwrap();
        let folder = if loses_pack { "packs" } else { "index" };
        let mut new = store.paths();
        new.retain(|path| !known.contains(path) && path.folder() == folder);
        let root = put_tree(&backup, &files([("b", content.as_slice())])).unwrap();
        let second = backup.commit(draft(root)).unwrap();
        drop(data);
        backup.finish().unwrap();
        repository.forget(&[first]).unwrap();
        assert_eq!(new.len(), 1);
        delete(&store, &new[0]);

        let before = store.paths();
        for dry_run in [true, false] {
            let options = PruneOptions { dry_run, ..due() };
            let times = Times { second_look: Duration::ZERO, ..Times::default() };
            let machine = Machine { times, ..Machine::default() };
            let result = open_with(store.clone(), &key, &machine).prune(&options, &());
            let Err(Error::BlobMissing { blob, snapshot }) = result else { panic!("{result:?}") };
            assert!(ids.contains(&blob) && snapshot == second.id);
            assert_eq!(store.paths(), before);
        }
        // What cannot be mended can be given up.
        let reopened = open(store.clone(), &key);
        reopened.forget(&[second]).unwrap();
        assert!(prune(&reopened, &due()).bytes_marked > 0);
    }
}

#[test]
fn a_backup_that_ends_at_any_moment_of_a_plan_does_not_stop_it() {
    for at in 1.. {
        let Two { repository, store, key, first, second, rest } = two();
        repository.forget(&[first]).unwrap();
        let others = files([("other", noise(7, 60_000).as_slice()), (LONG, &noise(8, 20_000))]);
        let third = Arc::new(Mutex::new(None));
        let act = {
            let (other, others) = (open(store.clone(), &key), others.clone());
            let third = Arc::clone(&third);
            move || *third.lock().unwrap() = Some(back_up(&other, &others).unwrap())
        };
        let is_counted = |call, path: &str| call == Call::List && path == "marks";
        let (layer, has_acted) = interfering(&store, is_counted, at, act);
        let opened = open(layer, &key);
        // A run that carries nothing out holds no lock.
        let report = prune(&opened, &patient());
        assert!(report.bytes_marked > 0, "{at}: {report:?}");
        if !has_acted.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(at > 2, "{at}");
            break;
        }
        prune(&open(store.clone(), &key), &due());
        let third = third.lock().unwrap().clone().unwrap();
        assert_holds(&store, &key, &second, &rest);
        assert_holds(&store, &key, &third, &others);
        assert_clean(&open(store, &key));
    }
}

fn requests_of(log: &RequestLog) -> Requests {
    let count = |calls: &[Call]| log.count(|request| calls.contains(&request.call));
    let deleted = log.requests();
    let deleted = deleted.iter().filter(|request| request.call == Call::Delete);
    Requests {
        lists: count(&[Call::List]),
        reads: count(&[Call::Read, Call::ReadAll, Call::Stat]),
        writes: count(&[Call::Write, Call::Finish]),
        // This store deletes one at a time.
        deletes: deleted.map(|request| request.path.split_whitespace().count() as u64).sum(),
    }
}

#[test]
fn a_dry_run_says_how_many_requests_a_run_in_its_place_takes() {
    let check = |options: PruneOptions, wait: Duration| {
        let clock = Steered::default();
        let store = far(&clock);
        let folder = tempfile::tempdir().unwrap();
        let machine = |name: &str| {
            let Machine { cache, state, .. } = directories(&folder.path().join(name));
            Machine { cache, state, ..clock.machine() }
        };
        let writer = Repository::init(
            Arc::new(store.clone()),
            &password(),
            &init_options(),
            &machine("writer"),
        );
        let writer = writer.unwrap();
        let key = writer.export_key().to_string();
        let files_of = |count: u64| -> Files {
            let file = |number| (format!("d{}/{number}", number % 7), noise(number, 30_000));
            (0..count).map(file).collect()
        };
        let mut all = files_of(60);
        let first = back_up(&writer, &all).unwrap();
        all.retain(|name, _| !name.starts_with("d1") && !name.starts_with("d3"));
        let second = back_up(&writer, &all).unwrap();
        let third = back_up(&writer, &files([("x", noise(99, 40_000).as_slice())])).unwrap();
        writer.forget(&[first, third]).unwrap();
        if !wait.is_zero() {
            prune(&writer, &PruneOptions { max_unused: MaxUnused::Unlimited, ..due() });
        }
        clock.advance(Duration::from_secs(24 * 3600) + wait);

        let run = |name: &str, dry_run: bool| {
            let recording = RecordingStore::new(Arc::new(store.clone()));
            let log = recording.log();
            let repository = open_with(recording, &key, &machine(name));
            drop(log.take());
            let report = prune(&repository, &PruneOptions { dry_run, ..options.clone() });
            (report, requests_of(&log))
        };
        let (planned, asked) = run("planner", true);
        assert_eq!((asked.writes, asked.deletes), (0, 0), "{asked:?}");
        let (done, taken) = run("pruner", false);
        assert!(done.bytes_marked > 0 && taken.writes > 0, "{done:?}");
        assert_eq!(done.requests, taken, "a run says what it took");
        let Requests { lists, reads, deletes, .. } = planned.requests;
        assert_eq!((lists, reads, deletes), (taken.lists, taken.reads, taken.deletes));
        let apart = planned.requests.writes.abs_diff(taken.writes);
        assert!(apart <= 1, "{:?}, not {:?}", planned.requests, taken);
        assert_holds(&store, &key, &second, &all);
    };
    check(due(), Duration::ZERO);
    check(all_unneeded(), Duration::ZERO);
    check(PruneOptions { max_unused: MaxUnused::Bytes(0), ..due() }, Duration::from_secs(10_000));
}
