//! Rotating the keys: whatever breaks and whoever does the same, the kept passwords open everything.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use putback_format::envelope::{self, ObjectKind};
use putback_format::id::ConfigId;
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{
    Error, KdfCost, Machine, Password, Repository, Result, Rotated, SlotOwner, StoredSnapshot,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Capabilities, ErrorKind, Status, Store};

use crate::hooked::interfering;
use crate::support::*;

/// What storages are like that have no locks and whose listings may lag.
const SHARED: Capabilities = Capabilities { is_remote: true, connections: 2, is_consistent: false };

fn second() -> Password {
    Password::new(b"second".to_vec())
}

fn try_open(store: impl Store + 'static, password: &Password) -> Result<Repository> {
    Repository::open(Arc::new(store), password, &Machine::default())
}

/// Rotates, keeping these passwords alone.
fn rotate(store: impl Store + 'static, kept: Vec<Password>) -> Result<(Repository, Rotated)> {
    let repository = try_open(store, kept.first().unwrap_or(&password()))?;
    rotate_opened(&repository, kept)
}

fn rotate_opened(repository: &Repository, kept: Vec<Password>) -> Result<(Repository, Rotated)> {
    let mut rotation = repository.plan_rotation(kept)?;
    rotation.drop_others();
    repository.rotate_keys(rotation)
}

/// A repository with two passwords and a snapshot.
struct Two {
    store: MemoryStore,
    key: String,
    stored: StoredSnapshot,
    files: Files,
}

fn two() -> Two {
    let (repository, store, key) = repository();
    let owner = SlotOwner { label: "for Grace".to_owned(), ..SlotOwner::default() };
    repository.add_slot(&second(), KdfCost::LOW, &owner).unwrap();
    let files = files([("a", &noise(1, 50_000)[..]), ("dir/b", &noise(2, 9000))]);
    let stored = back_up(&repository, &files).unwrap();
    Two { store, key, stored, files }
}

fn epoch_of(repository: &Repository, store: &MemoryStore, path: &str, kind: ObjectKind) -> u32 {
    let object = store.read_all(&path.parse().unwrap(), 1 << 20).unwrap();
    envelope::epoch_of(kind, repository.id(), &object).unwrap()
}

/// Asserts that a password opens the repository and that what it opens is whole.
#[track_caller]
fn assert_opens(store: &MemoryStore, password: &Password, snapshots: &[(&StoredSnapshot, &Files)]) {
    let opened = try_open(store.clone(), password).unwrap_or_else(|e| panic!("{}", describe(&e)));
    opened.load_index().unwrap();
    for (stored, files) in snapshots {
        let snapshot = opened.read_snapshot(&stored.id).unwrap();
        assert!(contents(&opened, &snapshot).unwrap() == **files, "snapshot {}", stored.id);
    }
}

#[test]
fn what_is_written_after_a_rotation_is_closed_to_the_old_keys_and_everything_opens_to_the_new() {
    let Two { store, key, stored, files } = two();
    let (repository, rotated) = rotate(store.clone(), vec![password(), second()]).unwrap();
    assert_eq!((rotated.generation, rotated.epochs), (2, 2));
    assert_eq!((rotated.slots.len(), rotated.removed.len()), (2, 2));
    assert!(rotated.epoch > 1 && repository.config().epoch == rotated.epoch);
    let labels: BTreeSet<String> =
        repository.slots().unwrap().into_iter().map(|slot| slot.owner.label).collect();
    assert_eq!(labels, BTreeSet::from([String::new(), "for Grace".to_owned()]));

    let newer = grown(&files);
    let second_snapshot = back_up(&repository, &newer).unwrap();
    let path = format!("snapshots/{}", second_snapshot.id);
    let of = |path: &str| epoch_of(&repository, &store, path, ObjectKind::Snapshot);
    assert_eq!(of(&path), rotated.epoch);
    assert_eq!(of(&format!("snapshots/{}", stored.id)), 1);
    let old = keys(&key);
    let object = store.read_all(&path.parse().unwrap(), 1 << 20).unwrap();
    let opened = envelope::unseal(ObjectKind::Snapshot, repository.id(), &old, &object);
    assert!(matches!(opened, Err(putback_format::Error::UnknownEpoch { .. })), "{opened:?}");

    for password in [password(), second()] {
        assert_opens(&store, &password, &[(&stored, &files), (&second_snapshot, &newer)]);
    }
    let outdated =
        Repository::open_with_exported_key(Arc::new(store.clone()), &key, &Machine::default());
    assert!(matches!(outdated, Err(Error::OutdatedKey { .. })));
    let key = repository.export_key();
    assert_holds(&store, &key, &stored, &files);
    assert_holds(&store, &key, &second_snapshot, &newer);
    assert_clean(&open(store, &key));
}

fn grown(files: &Files) -> Files {
    let mut files = files.clone();
    files.insert("new".to_owned(), noise(9, 30_000));
    files
}

#[test]
fn a_password_that_was_not_kept_opens_nothing() {
    let Two { store, stored, files, .. } = two();
    let (_, rotated) = rotate(store.clone(), vec![second()]).unwrap();
    assert_eq!((rotated.slots.len(), rotated.removed.len()), (1, 2));
    assert!(matches!(try_open(store.clone(), &password()), Err(Error::WrongPassword { .. })));
    assert_opens(&store, &second(), &[(&stored, &files)]);
    assert_eq!((store.list("keys").unwrap().len(), store.list("copies").unwrap().len()), (1, 3));
}

#[test]
fn nothing_changes_unless_every_slot_is_kept_or_dropped() {
    let Two { store, .. } = two();
    let before = store.paths();
    let repository = try_open(store.clone(), &password()).unwrap();
    let rotation = repository.plan_rotation(vec![password()]).unwrap();
    let others: Vec<_> = rotation.others().map(|slot| slot.owner.label.clone()).collect();
    assert_eq!(others, ["for Grace"]);
    assert!(matches!(repository.rotate_keys(rotation), Err(Error::KeysContended { .. })));
    let nobody = rotate_opened(&repository, vec![]);
    assert!(matches!(nobody, Err(Error::NoPasswordKept { .. })));
    let stranger = rotate_opened(&repository, vec![Password::new(b"other".to_vec())]);
    assert!(matches!(stranger, Err(Error::NoPasswordKept { .. })));
    assert_eq!(store.paths(), before);

    let mut rotation = repository.plan_rotation(vec![password()]).unwrap();
    assert!(!repository.keep_password(&mut rotation, Password::new(b"other".to_vec())).unwrap());
    assert!(repository.keep_password(&mut rotation, second()).unwrap());
    assert_eq!((rotation.kept().count(), rotation.others().count()), (2, 0));
    repository.rotate_keys(rotation).unwrap();
    assert!(try_open(store.clone(), &second()).is_ok());
}

#[test]
fn a_rotation_that_broke_at_any_request_keeps_the_password_and_can_be_repeated() {
    let Two { store: base, stored, files, .. } = two();
    // A lost answer differs from a request that failed only where something changes.
    let variants: [fn(u64) -> Fault; 3] = [
        |number| Fault::before(Calls::Any, number).crashing(),
        |number| Fault::after(Calls::Changes, number).crashing(),
        |number| Fault::before(Calls::Changes, number),
    ];
    let points = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for variant in &variants {
            let (base, stored, files, points) = (&base, &stored, &files, &points);
            scope.spawn(move || {
                let mut states = BTreeSet::new();
                for number in 1.. {
                    let store = base.fork();
                    let faulty = FaultyStore::new(Arc::new(store.clone()), number);
                    faulty.plant(variant(number));
                    let result = rotate(faulty.clone(), vec![password()]);
                    if faulty.failure_count() == 0 {
                        result.unwrap();
                        assert!(states.len() > 4, "{states:?}");
                        break;
                    }
                    points.fetch_add(1, Ordering::Relaxed);
                    // What was reached is told by how many objects there are; each state is looked at once.
                    let folders = ["config", "keys", "copies"];
                    if !states.insert(folders.map(|folder| store.list(folder).unwrap().len())) {
                        continue;
                    }
                    let what = format!("request {number}, {:?}", result.err());
                    let opened = try_open(store.clone(), &password())
                        .unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
                    // What is written in between is sealed under a key that stays.
                    let between = back_up(&opened, &grown(files)).unwrap();
                    let (repository, _) = rotate_opened(&opened, vec![password()])
                        .unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
                    assert_eq!(store.list("keys").unwrap().len(), 1, "{what}");
                    let key = repository.export_key();
                    assert_holds(&store, &key, stored, files);
                    assert_holds(&store, &key, &between, &grown(files));
                    let reopened = open(store.clone(), &key);
                    assert_clean(&reopened);
                    assert_eq!(reopened.take_warnings(), [""; 0], "{what}");
                    let dropped = try_open(store, &second());
                    assert!(matches!(dropped, Err(Error::WrongPassword { .. })), "{what}");
                }
            });
        }
    });
    assert!(points.into_inner() > 35);
}

#[test]
fn a_rotation_that_was_not_finished_is_told_and_slots_of_before_it_do_not_count() {
    let Two { store, stored, files, .. } = two();
    // Everything is there but the removal of the old slots.
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    faulty.plant(Fault::before(Calls::Only(Call::Delete), 1).crashing());
    assert!(rotate(faulty, vec![password()]).is_err());
    assert_opens(&store, &password(), &[(&stored, &files)]);
    let outdated = try_open(store.clone(), &second());
    assert!(matches!(outdated, Err(Error::OutdatedKey { .. })));
    let repository = try_open(store.clone(), &password()).unwrap();
    let slots = repository.slots().unwrap();
    assert_eq!(slots.iter().filter(|slot| slot.is_outdated).count(), 2);
    let usable = slots.iter().find(|slot| !slot.is_outdated).unwrap();
    assert!(usable.is_current);
    assert!(matches!(repository.remove_slot(&usable.id), Err(Error::LastSlot)));
    for slot in slots.iter().filter(|slot| slot.is_outdated) {
        repository.remove_slot(&slot.id).unwrap();
    }
    assert_clean(&repository);

    // Slots are there, the configuration is not.
    let Two { store, .. } = two();
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    faulty.plant(Fault::before(Calls::Only(Call::Write), 3).crashing());
    assert!(rotate(faulty, vec![password()]).is_err());
    assert_eq!(store.list("config").unwrap().len(), 1);
    let repositories: Vec<_> =
        (0..8).map(|_| try_open(store.clone(), &password()).unwrap()).collect();
    for repository in repositories {
        let warnings = repository.take_warnings();
        let has_new_key = repository.export_key().lines().count() > 8;
        assert_eq!(warnings.iter().any(|w| w.contains("was not finished")), has_new_key);
    }
}

#[test]
fn a_machine_with_old_keys_fails_clearly_and_its_next_run_goes_on() {
    let Two { store, key, stored, files } = two();
    let folder = tempfile::tempdir().unwrap();
    let machine = directories(folder.path());
    let old = open_with(store.clone(), &key, &machine);
    let running = old.begin_backup(None, 1).unwrap();
    let root = put_tree(&running, &grown(&files)).unwrap();

    let (new, _) = rotate(store.clone(), vec![password()]).unwrap();
    let other = files_of("other", 40_000);
    let theirs = back_up(&new, &other).unwrap();

    let error = running.commit(draft(root)).unwrap_err();
    assert!(matches!(error, Error::KeysRotated { .. }), "{}", describe(&error));
    drop(running);
    let late = old.add_slot(&second(), KdfCost::LOW, &SlotOwner::default());
    assert!(matches!(late, Err(Error::KeysContended { .. })));
    assert_holds(&store, &new.export_key(), &stored, &files);

    let packs_before = packs(&store).len();
    let next = open_with(store.clone(), &new.export_key(), &machine);
    let again = back_up(&next, &grown(&files)).unwrap();
    assert!(packs(&store).len() <= packs_before + 1, "what was stored before is used");
    for (stored, files) in [(&stored, &files), (&theirs, &other), (&again, &grown(&files))] {
        assert_holds(&store, &new.export_key(), stored, files);
    }
    assert_clean(&next);
}

fn files_of(name: &str, length: usize) -> Files {
    files([(name, &noise(77, length)[..])])
}

#[test]
fn a_prune_with_old_keys_deletes_nothing() {
    let Two { store, key, stored, files } = two();
    let old = open(store.clone(), &key);
    let (new, _) = rotate(store.clone(), vec![password()]).unwrap();
    let other = files_of("other", 40_000);
    let theirs = back_up(&new, &other).unwrap();
    let before = store.paths();
    let options = PruneOptions { instant: true, ..PruneOptions::default() };
    let error = old.prune(&options, &()).unwrap_err();
    assert!(matches!(error, Error::KeysRotated { .. }), "{}", describe(&error));
    assert_eq!(store.paths(), before);
    assert_holds(&store, &new.export_key(), &stored, &files);
    assert_holds(&store, &new.export_key(), &theirs, &other);
}

/// Another machine rotates and backs up just before the k-th listing or change of a rotation.
fn check_two_rotations(breaks_other: bool) {
    let (repository, store, _) = repository();
    let files = files_of("a", 30_000);
    let stored = back_up(&repository, &files).unwrap();
    let base = store.with_capabilities(SHARED);
    let files_of_other = files_of("other", 20_000);
    // Every second moment for each of the two, since a rotation costs some key derivations.
    for at in (1 + u64::from(breaks_other)..).step_by(2) {
        let store = base.fork();
        let theirs: Arc<Mutex<Option<StoredSnapshot>>> = Arc::default();
        let act = {
            let (store, theirs, files) = (store.clone(), theirs.clone(), files_of_other.clone());
            move || {
                let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
                if breaks_other {
                    // After its configuration, before it removes anything.
                    faulty.plant(Fault::before(Calls::Only(Call::Delete), 1).crashing());
                }
                let rotated = rotate(faulty, vec![password()]);
                assert_eq!(rotated.is_err(), breaks_other, "{:?}", rotated.err());
                let opened = try_open(store, &password()).unwrap();
                *theirs.lock().unwrap() = Some(back_up(&opened, &files).unwrap());
            }
        };
        let is_counted = |call, _: &str| matches!(call, Call::List | Call::Write | Call::Delete);
        let (layer, _) = interfering(&store, is_counted, at, act);
        let result = rotate(layer, vec![password()]);
        let Some(theirs) = theirs.lock().unwrap().take() else {
            result.unwrap();
            assert!(at > 15, "{at}");
            break;
        };
        let (_, rotated) = result.unwrap_or_else(|error| panic!("{at}: {}", describe(&error)));
        assert!(rotated.epochs >= 2, "{at}: {rotated:?}");
        assert_opens(&store, &password(), &[(&stored, &files), (&theirs, &files_of_other)]);
    }
}

#[test]
fn two_rotations_at_once_lose_nothing_that_was_sealed_under_either_key() {
    check_two_rotations(false);
}

#[test]
fn a_rotation_takes_over_the_keys_of_one_that_broke_meanwhile() {
    check_two_rotations(true);
}

#[test]
fn the_keys_of_a_rotation_with_unknown_passwords_are_never_given_up() {
    let Two { store, stored, files, .. } = two();
    let store = store.with_capabilities(SHARED);
    let theirs: Arc<Mutex<Option<StoredSnapshot>>> = Arc::default();
    let other = files_of("other", 20_000);
    let act = {
        let (store, theirs, other) = (store.clone(), theirs.clone(), other.clone());
        move || {
            // Its configuration is there before ours is written, and it removes nothing.
            let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
            faulty.plant(Fault::before(Calls::Only(Call::Delete), 1).crashing());
            assert!(rotate(faulty, vec![second()]).is_err());
            let opened = try_open(store, &second()).unwrap();
            *theirs.lock().unwrap() = Some(back_up(&opened, &other).unwrap());
        }
    };
    let is_counted = |call, path: &str| call == Call::Write && path.starts_with("config/");
    let (layer, _) = interfering(&store, is_counted, 1, act);
    let error = rotate(layer, vec![password()]).map(drop).unwrap_err();
    assert!(matches!(error, Error::KeysContended { .. }), "{}", describe(&error));
    let theirs = theirs.lock().unwrap().take().unwrap();
    // Whoever knows both passwords joins the keys.
    let opened = [password(), second()].iter().find_map(|p| try_open(store.clone(), p).ok());
    let (_, _) = rotate_opened(&opened.unwrap(), vec![password(), second()]).unwrap();
    for password in [password(), second()] {
        assert_opens(&store, &password, &[(&stored, &files), (&theirs, &other)]);
    }
}

#[test]
fn packs_under_old_keys_are_stored_anew_over_several_runs() {
    let (repository, store, _) = repository();
    let mut all = Vec::new();
    for seed in 0..4 {
        let files = files([("file", &noise(seed, 60_000)[..])]);
        all.push((back_up(&repository, &files).unwrap(), files));
    }
    let (repository, rotated) = rotate_opened(&repository, vec![password()]).unwrap();
    let key = repository.export_key();
    let options = PruneOptions {
        instant: true,
        max_unused: MaxUnused::Unlimited,
        rewrite_epoch: true,
        max_repack: Some(150_000),
        ..PruneOptions::default()
    };
    let plain = PruneOptions { rewrite_epoch: false, ..options.clone() };
    let report = repository.prune(&plain, &()).unwrap();
    assert_eq!((report.packs_repacked, report.packs_old_key), (0, 8));
    assert_eq!(report.segments_old_key + report.snapshots_old_key, 0, "not asked for");
    let dry = PruneOptions { dry_run: true, max_repack: None, ..options.clone() };
    let report = repository.prune(&dry, &()).unwrap();
    assert_eq!((report.packs_repacked, report.packs_old_key, report.bytes_old_key), (8, 0, 0));

    let mut left = Vec::new();
    for _ in 0..8 {
        let report = open(store.clone(), &key).prune(&options, &()).unwrap();
        assert!(report.bytes_repacked <= 150_000, "{report:?}");
        assert_eq!((report.snapshots_old_key, report.segments_old_key), (4, 4));
        left.push(report.packs_old_key);
        if report.packs_old_key == 0 {
            break;
        }
    }
    assert!(left.len() > 1 && left.is_sorted_by(|a, b| a > b), "{left:?}");
    let report = open(store.clone(), &key).prune(&options, &()).unwrap();
    assert_eq!((report.packs_repacked, report.packs_unneeded), (0, 0), "it comes to an end");
    for (stored, files) in &all {
        assert_holds(&store, &key, stored, files);
    }
    for pack in packs(&store) {
        let bytes = store.read_all(&format!("packs/{pack}").parse().unwrap(), 1 << 26).unwrap();
        let trailer = &bytes[bytes.len() - putback_format::pack::TRAILER_BYTES..];
        let trailer =
            putback_format::pack::Trailer::decode(trailer, bytes.len() as u64, repository.id());
        assert_eq!(trailer.unwrap().epoch, rotated.epoch);
    }
    assert_clean(&open(store, &key));
}

#[test]
fn keys_can_be_rotated_as_often_as_an_exported_key_has_room() {
    let (mut repository, store, _) = repository();
    let stored = back_up(&repository, &files_of("a", 5000)).unwrap();
    for _ in 1..39 {
        (repository, _) = rotate_opened(&repository, vec![password()]).unwrap();
    }
    assert_holds(&store, &repository.export_key(), &stored, &files_of("a", 5000));
    let error = rotate_opened(&repository, vec![password()]).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoFreeEpoch { limit: 39 }), "{}", describe(&error));
    assert_opens(&store, &password(), &[(&stored, &files_of("a", 5000))]);
}

#[test]
fn a_slot_of_which_only_the_copy_was_written_is_completed_where_there_are_no_locks_too() {
    let Two { store, key, .. } = two();
    let store = store.with_capabilities(SHARED);
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    // The copy is the first object that is written.
    faulty.plant(Fault::after(Calls::Only(Call::Write), 1).crashing());
    let third = Password::new(b"third".to_vec());
    let owner = SlotOwner::default();
    assert!(open(faulty, &key).add_slot(&third, KdfCost::LOW, &owner).is_err());
    assert_eq!((store.list("keys").unwrap().len(), store.list("copies").unwrap().len()), (2, 4));
    let repository = open(store.clone(), &key);
    let slots = repository.slots().unwrap();
    let of_grace = slots.iter().find(|slot| slot.owner.label == "for Grace").unwrap();
    repository.remove_slot(&of_grace.id).unwrap();
    assert_clean(&repository);
    assert!(try_open(store.clone(), &third).is_ok());
    assert!(matches!(try_open(store, &second()), Err(Error::WrongPassword { .. })));
}

#[test]
fn no_older_configuration_is_taken_for_one_that_is_newer_or_out_of_reach() {
    let (repository, store, key) = repository();
    let try_with_key = |store: FaultyStore| {
        Repository::open_with_exported_key(Arc::new(store), &key, &Machine::default())
    };
    let calm = |store: &MemoryStore| FaultyStore::new(Arc::new(store.clone()), 1);
    // A program of the future has written it.
    let newer = store.fork();
    let old = store.list("config").unwrap().remove(0).path;
    let mut object = store.read_all(&old, 1 << 20).unwrap();
    object[5] += 1;
    let id = ConfigId::of_stored(&object);
    write(&newer, &format!("config/2-{id}"), &object);
    write(&newer, &format!("copies/config-2-{id}"), &object);
    let refused = try_with_key(calm(&newer));
    assert!(matches!(refused, Err(Error::NewerFormat { .. })));
    // It and its copy cannot be had just now.
    write_config(&repository, &store, 2);
    assert_eq!(try_with_key(calm(&store)).unwrap().config().generation, 2);
    for (first, second) in [
        ((ErrorKind::Other, Status::Exhausted), (ErrorKind::Other, Status::Exhausted)),
        ((ErrorKind::Corrupt, Status::Permanent), (ErrorKind::Denied, Status::Permanent)),
    ] {
        let faulty = calm(&store);
        for (number, (kind, status)) in [(1, first), (2, second)] {
            faulty
                .plant(Fault::before(Calls::Only(Call::ReadAll), number).with_error(kind, status));
        }
        match try_with_key(faulty) {
            Err(Error::Store(error)) => assert_eq!((error.kind, error.status), second),
            other => panic!("{:?}", other.map(|opened| opened.config().generation)),
        }
    }
    // Both are damaged for good: what is left is better than nothing.
    for info in [store.list("config").unwrap(), store.list("copies").unwrap()].concat() {
        if info.path.name().trim_start_matches("config-").starts_with("2-") {
            delete(&store, &info.path);
            write(&store, info.path.as_str(), b"rotten");
        }
    }
    assert_eq!(try_with_key(calm(&store)).unwrap().config().generation, 1);
}
