//! Whatever breaks while a repository is made, its slots change or a backup is written: what was
//! there stays, and the next run succeeds without repair.
//!
//! Each request of each workload fails in several ways: before or after its effect, alone or with all
//! later ones, with a crash or without.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use putback_repo::{
    Error, KdfCost, Machine, Password, Repository, Result, SlotOwner, SnapshotDraft,
    SnapshotFilter, StoredSnapshot,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Capabilities, ErrorKind, ObjectPath, Status, Store};

use crate::hooked::interfering;
use crate::support::*;

/// The ways in which request `number` can fail.
fn faults(number: u64) -> [Fault; 8] {
    let any = |fault: fn(Calls, u64) -> Fault| fault(Calls::Any, number);
    [
        any(Fault::before),
        any(Fault::after),
        any(Fault::before).lasting(),
        any(Fault::after).lasting(),
        any(Fault::before).crashing(),
        any(Fault::after).crashing(),
        Fault::before(Calls::Changes, number),
        Fault::after(Calls::Changes, number).lasting(),
    ]
}

/// Enough where each point costs several key derivations: before or after, with a crash or without.
const FEW: &[usize] = &[0, 1, 4, 5];
const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7];

/// Runs `work` on forks of `base` with a fault at each request, and then `verify` on what is left.
/// `work` also gets folders that outlive its failure. Yields how many faults struck.
fn at_every_request(
    base: &MemoryStore,
    variants: &[usize],
    work: &(dyn Fn(FaultyStore, &Machine) -> Result<()> + Sync),
    verify: &(dyn Fn(&MemoryStore, &Machine, &str) + Sync),
) -> u64 {
    let points = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for variant in variants.iter().copied() {
            let points = &points;
            scope.spawn(move || {
                for number in 1.. {
                    let store = base.fork();
                    let folder = tempfile::tempdir().unwrap();
                    let directories = directories(folder.path());
                    let faulty = FaultyStore::new(Arc::new(store.clone()), number);
                    faulty.plant(faults(number)[variant]);
                    let result = work(faulty.clone(), &directories);
                    if faulty.failure_count() == 0 {
                        result.unwrap();
                        return;
                    }
                    points.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let what = format!("request {number}, fault {variant}, {:?}", result.err());
                    verify(&store, &directories, &what);
                }
            });
        }
    });
    points.into_inner()
}

fn try_open(store: &MemoryStore, password: &Password) -> Result<Repository> {
    Repository::open(Arc::new(store.clone()), password, &Machine::default())
}

#[test]
fn an_init_that_broke_at_any_request_can_be_repeated() {
    let empty = MemoryStore::new();
    let work = |store: FaultyStore, _: &Machine| init(Arc::new(store)).map(drop);
    let verify = |store: &MemoryStore, _: &Machine, what: &str| {
        match init(Arc::new(store.clone())) {
            Ok(_) | Err(Error::RepositoryExists { .. }) => {}
            Err(error) => panic!("{what}: {}", describe(&error)),
        }
        let repository =
            try_open(store, &password()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(repository.take_warnings(), [""; 0], "{what}");
        assert_clean(&repository);
        let stored = back_up(&repository, &files([("a", &b"b"[..])])).unwrap();
        assert!(contents(&repository, &stored.snapshot).is_ok());
    };
    let points = at_every_request(&empty, FEW, &work, &verify);
    assert!(points > 50, "{points}");
}

#[test]
fn slots_that_broken_inits_left_where_locks_do_not_reach_keep_nobody_out() {
    let shared = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    for _ in 0..6 {
        let store = MemoryStore::new().with_capabilities(shared);
        for number in 1..=4 {
            let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
            faulty.plant(Fault::before(Calls::Only(Call::Write), number).crashing());
            init(Arc::new(faulty)).map(drop).unwrap_err();
        }
        let made = init(Arc::new(store.clone())).unwrap().id();
        let opened = try_open(&store, &password()).map(|opened| opened.id());
        assert_eq!(opened.map_err(|error| describe(&error)), Ok(made));
    }
}

#[test]
fn a_folder_whose_configuration_is_lost_is_not_made_a_new_repository() {
    let (repository, store, key) = repository();
    let stored = back_up(&repository, &files([("a", &b"b"[..])])).unwrap();
    for row in store.list("config").unwrap() {
        delete(&store, &row.path);
    }
    let before = store.paths();
    assert!(matches!(init(Arc::new(store.clone())), Err(Error::RepositoryExists { .. })));
    assert_eq!(store.paths(), before);
    // The second copy of the configuration opens it.
    let opened = try_open(&store, &password()).unwrap();
    assert_eq!(opened.take_warnings().len(), 1);
    assert_holds(&store, &key, &stored, &files([("a", &b"b"[..])]));
}

#[test]
fn two_inits_at_the_same_moment_make_one_repository() {
    for _ in 0..5 {
        let store = MemoryStore::new();
        let results: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| init(Arc::new(store.clone())).map(|made| made.id())))
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let made: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(made.len(), 1, "{results:?}");
        assert!(results.iter().any(|result| matches!(result, Err(Error::RepositoryExists { .. }))));
        let opened = try_open(&store, &password()).unwrap();
        assert_eq!(opened.id(), *made[0]);
        assert_clean(&opened);
    }
}

/// A repository with two passwords and a snapshot.
fn with_two_slots() -> (MemoryStore, String, StoredSnapshot, Files) {
    let (repository, store, key) = repository();
    repository.add_slot(&second(), KdfCost::LOW, &SlotOwner::default()).unwrap();
    let mut files = files([("short", &b"inline"[..])]);
    files.insert("random".to_owned(), noise(1, 5000));
    let stored = back_up(&repository, &files).unwrap();
    (store, key, stored, files)
}

fn second() -> Password {
    Password::new(b"second".to_vec())
}

fn third() -> Password {
    Password::new(b"third".to_vec())
}

/// Opens with the first password, whose slot is the one that was made first.
fn change(
    store: Arc<dyn Store>,
    directories: &Machine,
    key: &str,
    change: impl Fn(&Repository) -> Result<()>,
) -> Result<()> {
    change(&Repository::open_with_exported_key(store, key, directories)?)
}

fn check_slot_change(
    work: impl Fn(&Repository) -> Result<()> + Sync,
    may_open: &(dyn Fn() -> Vec<Password> + Sync),
) {
    let (base, key, stored, files) = with_two_slots();
    let points = at_every_request(
        &base,
        FEW,
        &|store, directories| change(Arc::new(store), directories, &key, &work),
        &|store, directories, what| {
            let open_count = |store: &MemoryStore| {
                may_open().iter().filter(|password| try_open(store, password).is_ok()).count()
            };
            assert!(open_count(store) > 0, "{what}: nobody can open it any more");
            assert_holds(store, &key, &stored, &files);
            change(Arc::new(store.clone()), directories, &key, &work)
                .unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
            assert!(open_count(store) > 0, "{what}: nobody can open it any more");
            assert_clean(&open(store.clone(), &key));
        },
    );
    assert!(points > 30, "{points}");
}

#[test]
fn a_key_add_that_broke_at_any_request_can_be_repeated() {
    check_slot_change(
        |repository| repository.add_slot(&third(), KdfCost::LOW, &SlotOwner::default()).map(drop),
        &|| vec![password()],
    );
}

#[test]
fn a_key_remove_that_broke_at_any_request_can_be_repeated() {
    check_slot_change(
        |repository| {
            // Whichever is left of the two: a repetition finds one or none to remove.
            match repository.slots()?.as_slice() {
                [first, _] => repository.remove_slot(&first.id),
                _ => Ok(()),
            }
        },
        &|| vec![password(), second()],
    );
}

#[test]
fn a_changed_password_that_broke_at_any_request_leaves_the_old_or_the_new_one() {
    let (base, key, stored, files) = with_two_slots();
    let work = |store: FaultyStore, directories: &Machine| {
        let repository = Repository::open(Arc::new(store), &password(), directories)?;
        repository.change_password(&third(), KdfCost::LOW, &SlotOwner::default()).map(drop)
    };
    let points = at_every_request(&base, FEW, &work, &|store, directories, what| {
        let healed = FaultyStore::new(Arc::new(store.clone()), 0);
        let repeated = match try_open(store, &password()) {
            Ok(_) => work(healed, directories),
            Err(_) => try_open(store, &third()).map(drop),
        };
        repeated.unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
        assert!(try_open(store, &third()).is_ok(), "{what}: the new password does not open");
        let old = try_open(store, &password());
        assert!(matches!(old, Err(Error::WrongPassword { .. })), "{what}: the old password opens");
        assert_holds(store, &key, &stored, &files);
        assert_clean(&open(store.clone(), &key));
    });
    assert!(points > 30, "{points}");
}

#[test]
fn the_last_slot_is_never_removed_not_even_by_two_at_once() {
    let (store, key, _, _) = with_two_slots();
    let repository = open(store.clone(), &key);
    let ids: Vec<_> = repository.slots().unwrap().into_iter().map(|slot| slot.id).collect();
    std::thread::scope(|scope| {
        for id in &ids {
            let repository = open(store.clone(), &key);
            scope.spawn(move || drop(repository.remove_slot(id)));
        }
    });
    assert_eq!(repository.slots().unwrap().len(), 1);
    let last = repository.slots().unwrap()[0].id;
    assert!(matches!(repository.remove_slot(&last), Err(Error::LastSlot)));
    assert_clean(&repository);
}

fn grown(files: &Files) -> Files {
    let mut files = files.clone();
    files.insert("folder/new".to_owned(), noise(7, 30_000));
    files
}

fn check_backup(
    base: &MemoryStore,
    key: &str,
    before: &[(StoredSnapshot, Files)],
    has_checkpoint: bool,
) {
    let files = before.last().map_or_else(|| grown(&Files::new()), |(_, files)| grown(files));
    let work = |store: Arc<dyn Store>, directories: &Machine| {
        let repository = Repository::open_with_exported_key(store, key, directories)?;
        // A backup lists before it begins.
        repository.snapshots(&Default::default())?;
        let backup = repository.begin_backup(None, 1)?;
        if has_checkpoint {
            let part = BTreeMap::from([("first".to_owned(), noise(3, 9000))]);
            let root = put_tree(&backup, &part)?;
            backup.commit(SnapshotDraft { complete: false, ..draft(root) })?;
        }
        let root = put_tree(&backup, &files)?;
        let stored = backup.commit(draft(root))?;
        backup.finish()?;
        Ok(stored)
    };
    let verify = |store: &MemoryStore, directories: &Machine, what: &str| {
        let assert_all = || {
            for (stored, files) in before {
                assert_holds(store, key, stored, files);
            }
        };
        assert_all();
        let stored = work(Arc::new(store.clone()), directories)
            .unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
        assert_all();
        assert_holds(store, key, &stored, &files);
        let repository = open_with(store.clone(), key, directories);
        assert_clean(&repository);
        repository.snapshots(&Default::default()).unwrap();
        assert_eq!(repository.take_warnings(), [""; 0], "{what}");
    };
    let points = at_every_request(
        base,
        ALL,
        &|store, directories| work(Arc::new(store), directories).map(drop),
        &verify,
    );
    assert!(points > 100, "{points}");
}

#[test]
fn a_first_backup_that_broke_at_any_request_can_be_repeated() {
    let (_, store, key) = repository();
    check_backup(&store, &key, &[], false);
}

#[test]
fn a_later_backup_that_broke_at_any_request_hurts_no_earlier_one_and_can_be_repeated() {
    let (store, key, stored, files) = with_two_slots();
    check_backup(&store, &key, &[(stored, files)], false);
}

#[test]
fn a_backup_with_checkpoints_that_broke_at_any_request_hurts_no_earlier_one_and_can_be_repeated() {
    let (store, key, stored, files) = with_two_slots();
    check_backup(&store, &key, &[(stored, files)], true);
}

#[test]
fn a_full_store_fails_a_backup_clearly_and_hurts_nothing() {
    let (base, key, stored, files) = with_two_slots();
    let mut larger = files.clone();
    larger.insert("large".to_owned(), noise(5, 400_000));
    for bytes in [0, 1000, 100_000, 300_000, 400_000] {
        let store = base.fork();
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        faulty.fill_after(Some(bytes));
        let error = back_up(&open(faulty.clone(), &key), &larger).unwrap_err();
        let is_full =
            matches!(&error, Error::Store(error) if error.kind == putback_store::ErrorKind::Full);
        assert!(is_full, "{bytes}: {}", describe(&error));
        faulty.heal();
        assert_holds(&store, &key, &stored, &files);
        let next = back_up(&open(store.clone(), &key), &larger).unwrap();
        assert_holds(&store, &key, &next, &larger);
        assert_clean(&open(store, &key));
    }
}

#[test]
fn a_read_only_store_can_be_read_and_refuses_backups_clearly() {
    let (store, key, stored, files) = with_two_slots();
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    faulty.set_read_only(true);
    let reader = open(faulty, &key);
    reader.load_index().unwrap();
    let snapshot = reader.read_snapshot(&stored.id).unwrap();
    assert!(contents(&reader, &snapshot).unwrap() == files);
    assert_clean(&reader);
    let error = back_up(&reader, &grown(&files)).unwrap_err();
    let is_denied =
        matches!(&error, Error::Store(error) if error.kind == putback_store::ErrorKind::Denied);
    assert!(is_denied, "{}", describe(&error));
}

#[test]
fn a_bit_that_flips_on_the_way_is_never_taken_for_data() {
    let (store, key, stored, files) = with_two_slots();
    for path in store.paths() {
        if !["packs", "index", "snapshots"].contains(&path.folder()) {
            continue;
        }
        let path: ObjectPath = path;
        for seed in 0..20 {
            let faulty = FaultyStore::new(Arc::new(store.clone()), seed);
            faulty.flip_reads(&path, 1);
            let reader = open(faulty, &key);
            let read = reader
                .load_index()
                .and_then(|()| reader.read_snapshot(&stored.id))
                .and_then(|snapshot| contents(&reader, &snapshot));
            if let Ok(read) = read {
                assert!(read == files, "{path}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_thread_that_panics_ends_the_run_and_nobody_waits_for_it() {
    let (repository, store, key) = repository();
    let first = files([("a", noise(1, 50_000).as_slice())]);
    let stored = back_up(&repository, &first).unwrap();
    let more = files([("a", noise(2, 3_000_000).as_slice())]);
    let is_counted = |call, path: &str| call == Call::Upload && path == "packs";
    let panic = || std::panic::resume_unwind(Box::new("a fault of the program"));
    let (panicking, has_panicked) = interfering(&store, is_counted, 1, panic);
    let opened = open(panicking, &key);
    let backup = opened.begin_backup(None, 2).unwrap();
    let failed = put_tree(&backup, &more).and_then(|_| backup.flush());
    assert!(matches!(failed, Err(Error::WorkerFailed)), "{failed:?}");
    assert!(has_panicked.load(Ordering::SeqCst));
    drop(backup);
    assert_holds(&store, &key, &stored, &first);
    assert!(back_up(&open(store.clone(), &key), &more).is_ok());
}

#[test]
fn a_segment_that_could_not_be_written_is_written_by_the_next_flush() {
    let (_, store, key) = repository();
    let all = files([("a", noise(1, 50_000).as_slice())]);
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    let opened = open(faulty.clone(), &key);
    let backup = opened.begin_backup(None, 2).unwrap();
    faulty.plant(Fault::before(Calls::Only(Call::Write), 1));
    let root = put_tree(&backup, &all).unwrap();
    assert!(matches!(backup.flush(), Err(Error::Store(_))));
    backup.flush().unwrap();
    let stored = backup.commit(draft(root)).unwrap();
    assert_holds(&store, &key, &stored, &all);
}

#[test]
fn a_snapshot_that_the_storage_cannot_read_keeps_nobody_from_the_others() {
    let (repository, store, key) = repository();
    let all = files([("a", noise(1, 500).as_slice())]);
    back_up(&repository, &all).unwrap();
    back_up(&repository, &all).unwrap();
    let list = |kind, status| {
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        let opened = open(faulty.clone(), &key);
        // The same object each time, also where the gap that it leaves is looked at twice.
        for number in [1, 3] {
            let fault = Fault::before(Calls::Only(Call::ReadAll), number);
            faulty.plant(fault.with_error(kind, status));
        }
        let listed = opened.snapshots(&SnapshotFilter::default()).map(|listed| listed.len());
        (listed, opened.take_warnings())
    };
    for kind in [ErrorKind::Other, ErrorKind::Lost, ErrorKind::Corrupt] {
        let (listed, warnings) = list(kind, Status::Permanent);
        assert_eq!(listed.unwrap(), 1);
        assert!(warnings.iter().any(|text| text.contains("is left out")), "{warnings:?}");
    }
    for (kind, status) in
        [(ErrorKind::Other, Status::Exhausted), (ErrorKind::Unauthorized, Status::Permanent)]
    {
        let (listed, _) = list(kind, status);
        assert!(matches!(listed, Err(Error::Store(_))), "{listed:?}");
    }
}
