//! Forget, undelete, prune: what is needed stays whatever happens, and what is not goes.

use std::sync::Arc;
use std::time::Duration;

use putback_format::mark::MarkKind;
use putback_repo::prune::{MaxUnused, PruneOptions, PruneReport};
use putback_repo::{
    Cancel, Error, Machine, Repository, SnapshotDraft, SnapshotFilter, StoredSnapshot, Times,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Capabilities, Store};

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
    let planned = prune(&repository, &PruneOptions { dry_run: true, ..instant() });
    assert_eq!(store.paths(), before);
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
    assert!(matches!(both.failed[0].1, Error::BlobUnknown { .. } | Error::BlobDamaged { .. }));
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
    let changed = repository.replace(&[(first.clone(), draft)], 1, &Cancel::default()).unwrap();
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
    for options in [instant(), due()] {
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
