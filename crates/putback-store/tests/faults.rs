//! What the layer that fails on purpose does, and what a store makes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail their test")]

use std::sync::Arc;

use putback_store::local::LocalStore;
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Error, ErrorKind, LockMode, ObjectPath, Status, Store};

const SEED: u64 = 20_261_122;

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn memory() -> MemoryStore {
    let memory = MemoryStore::new();
    memory.create(&["packs"]).unwrap();
    memory
}

fn faulty(memory: &MemoryStore) -> FaultyStore {
    FaultyStore::new(Arc::new(memory.clone()), SEED)
}

fn upload(store: &dyn Store, path: &ObjectPath, pieces: &[&[u8]]) -> Result<(), Error> {
    let mut upload = store.upload(path.folder())?;
    for piece in pieces {
        upload.append(piece)?;
    }
    upload.finish(path).map(|_| ())
}

#[test]
fn an_error_before_the_effect_leaves_nothing_and_comes_once() {
    let memory = memory();
    let store = faulty(&memory);
    store.plant(Fault::before(Calls::Only(Call::Write), 2));
    store.write(&path("packs/a"), b"bytes").unwrap();
    let error = store.write(&path("packs/b"), b"bytes").unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Permanent));
    assert_eq!(memory.paths(), [path("packs/a")]);
    store.write(&path("packs/b"), b"bytes").unwrap();
    assert_eq!(store.failure_count(), 1);
}

#[test]
fn an_error_after_the_effect_leaves_the_object() {
    let memory = memory();
    let store = faulty(&memory);
    store.plant(Fault::after(Calls::Changes, 1).with_error(ErrorKind::Other, Status::Temporary));
    store.plant(
        Fault::after(Calls::Changes, 2).with_error(ErrorKind::RateLimited, Status::Temporary),
    );
    assert!(store.write(&path("packs/a"), b"bytes").unwrap_err().is_temporary());
    let error = upload(&store, &path("packs/b"), &[b"by", b"tes"]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    for name in ["packs/a", "packs/b"] {
        assert_eq!(memory.read_all(&path(name), 9).unwrap(), b"bytes");
    }
}

#[test]
fn a_lasting_fault_stays_until_it_is_healed() {
    let memory = memory();
    let store = faulty(&memory);
    store.plant(Fault::before(Calls::Only(Call::List), 2).lasting());
    store.list("packs").unwrap();
    for _ in 0..3 {
        store.list("packs").unwrap_err();
        store.space().unwrap();
    }
    store.heal();
    store.list("packs").unwrap();
}

#[test]
fn nothing_works_after_a_crash() {
    let memory = memory();
    let store = faulty(&memory);
    let mut open_upload = store.upload("packs").unwrap();
    store.plant(Fault::after(Calls::Any, 1).crashing());
    store.write(&path("packs/a"), b"bytes").unwrap_err();
    assert!(store.has_crashed());

    store.create(&[]).unwrap_err();
    store.list("packs").unwrap_err();
    store.stat(&path("packs/a")).unwrap_err();
    store.read_all(&path("packs/a"), 9).unwrap_err();
    store.write(&path("packs/b"), b"bytes").unwrap_err();
    store.upload("packs").err().unwrap();
    store.lock(LockMode::Shared).err().unwrap();
    open_upload.append(b"bytes").unwrap_err();
    open_upload.finish(&path("packs/c")).unwrap_err();
    assert_eq!(memory.paths(), [path("packs/a")]);
}

#[test]
fn a_torn_write_leaves_a_shorter_object() {
    for is_upload in [false, true] {
        let memory = memory();
        let store = faulty(&memory);
        store.plant(Fault::torn(Calls::Changes, 1));
        let result = if is_upload {
            upload(&store, &path("packs/a"), &[b"by", b"tes"])
        } else {
            store.write(&path("packs/a"), b"bytes").map(|_| ())
        };
        result.unwrap_err();
        let left = memory.read_all(&path("packs/a"), 9).unwrap();
        assert!(left.len() < 5 && b"bytes".starts_with(&left), "{left:?}");
    }
}

#[test]
fn a_silently_torn_write_claims_to_be_whole() {
    let memory = memory();
    let store = faulty(&memory);
    store.plant(Fault::torn(Calls::Only(Call::Write), 1).silently());
    let claimed = store.write(&path("packs/a"), b"bytes").unwrap();
    assert_eq!(claimed.size, 5);
    assert!(store.stat(&path("packs/a")).unwrap().size < 5);
    assert_eq!(store.failure_count(), 1);
}

#[test]
fn a_torn_deletion_leaves_some_of_the_objects() {
    let memory = memory();
    let rows: Vec<_> =
        ["a", "b", "c", "d"].iter().map(|name| memory.write(&path(name), b"").unwrap()).collect();
    let store = faulty(&memory);
    store.plant(Fault::torn(Calls::Only(Call::Delete), 1));
    store.delete(&rows).unwrap_err();
    let left = memory.paths();
    assert!(
        !left.is_empty()
            && rows.iter().map(|row| &row.path).rev().zip(left.iter().rev()).all(|(a, b)| a == b)
    );
}

#[test]
fn a_full_store_takes_no_more_until_something_is_deleted() {
    let memory = memory();
    let store = faulty(&memory);
    store.fill_after(Some(10));
    let row = store.write(&path("packs/a"), b"123456").unwrap();
    let is_full = |result: Result<(), Error>| result.unwrap_err().kind == ErrorKind::Full;
    assert!(is_full(store.write(&path("packs/b"), b"12345").map(|_| ())));
    assert!(is_full(upload(&store, &path("packs/b"), &[b"1234", b"5"])));
    // The dropped upload gave its four bytes back.
    upload(&store, &path("packs/c"), &[b"12", b"34"]).unwrap();
    assert!(is_full(store.write(&path("packs/d"), b"1").map(|_| ())));
    store.delete(std::slice::from_ref(&row)).unwrap();
    store.delete(&[row]).unwrap();
    store.write(&path("packs/d"), b"123456").unwrap();
    assert!(is_full(store.write(&path("packs/e"), b"1").map(|_| ())));
    assert_eq!(memory.paths(), [path("packs/c"), path("packs/d")]);
}

#[test]
fn an_upload_that_failed_half_way_never_becomes_an_object() {
    let memory = memory();
    for fault in
        [Fault::before(Calls::Only(Call::Append), 2), Fault::after(Calls::Only(Call::Append), 2)]
    {
        let store = faulty(&memory);
        store.plant(fault);
        let mut upload = store.upload("packs").unwrap();
        upload.append(b"by").unwrap();
        upload.append(b"tes").unwrap_err();
        upload.finish(&path("packs/a")).unwrap_err();
        assert_eq!(memory.paths(), []);
    }
}

#[test]
fn a_read_only_store_can_be_read_but_not_changed() {
    let memory = memory();
    let row = memory.write(&path("packs/a"), b"bytes").unwrap();
    let store = faulty(&memory);
    store.set_read_only(true);
    assert_eq!(store.list("packs").unwrap(), std::slice::from_ref(&row));
    assert_eq!(store.read_all(&row.path, 9).unwrap(), b"bytes");
    for error in [
        store.create(&["packs"]).unwrap_err(),
        store.write(&path("packs/b"), b"").unwrap_err(),
        store.upload("packs").err().unwrap(),
        store.delete(&[row]).unwrap_err(),
        store.lock(LockMode::Shared).err().unwrap(),
    ] {
        assert_eq!(error.kind, ErrorKind::Denied);
    }
}

#[test]
fn delayed_listings_show_changes_only_after_so_many_requests() {
    let memory = memory();
    let old = memory.write(&path("packs/old"), b"").unwrap();
    let store = faulty(&memory);
    let names = |store: &FaultyStore| -> Vec<_> {
        let mut names: Vec<_> = store
            .list("packs")
            .unwrap()
            .into_iter()
            .map(|row| row.path.name().to_owned())
            .collect();
        names.sort();
        names
    };
    store.delay_listings(2);
    store.write(&path("packs/new"), b"").unwrap();
    assert_eq!(names(&store), ["old"]);
    store.stat(&path("packs/new")).unwrap();
    assert_eq!(names(&store), ["new", "old"]);

    // What is listed already stays so when it is written again.
    store.write(&old.path, b"").unwrap();
    assert_eq!(names(&store), ["new", "old"]);

    store.delete(&[old]).unwrap();
    assert_eq!(names(&store), ["new", "old"]);
    assert_eq!(names(&store.clone()), ["new", "old"]);
    assert_eq!(names(&store), ["new"]);
}

#[test]
fn flipped_reads_differ_in_one_bit_as_often_as_told() {
    let memory = memory();
    memory.write(&path("packs/a"), b"bytes").unwrap();
    memory.write(&path("packs/b"), b"bytes").unwrap();
    let store = faulty(&memory);
    store.flip_reads(&path("packs/a"), 2);
    let bits = |bytes: &[u8]| -> u32 {
        bytes.iter().zip(b"bytes").map(|(read, written)| (read ^ written).count_ones()).sum()
    };
    let mut buffer = Vec::new();
    assert_eq!(bits(&store.read_all(&path("packs/b"), 9).unwrap()), 0);
    assert_eq!(bits(&store.read_all(&path("packs/a"), 9).unwrap()), 1);
    store.read(&path("packs/a"), 0..5, &mut buffer).unwrap();
    assert_eq!(bits(&buffer), 1);
    store.read(&path("packs/a"), 0..5, &mut buffer).unwrap();
    assert_eq!(bits(&buffer), 0);
}

#[test]
fn the_same_seed_fails_in_the_same_places() {
    let run = |seed| -> Vec<bool> {
        let store = FaultyStore::new(Arc::new(memory()), seed);
        store.fail_randomly(300);
        (0..1000).map(|_| store.list("packs").is_err()).collect()
    };
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(SEED + 1));
    let failures = run(SEED).into_iter().filter(|failed| *failed).count();
    assert!((200..400).contains(&failures), "{failures} of 1000 failed");
}

/// Writes two objects in the two ways there are and deletes a third.
fn work(store: &dyn Store) -> Result<(), Error> {
    upload(store, &path("packs/a"), &[b"by", b"tes"])?;
    store.write(&path("index/a"), b"bytes")?;
    store.delete(&store.list("old")?)
}

/// Fails `work` on stores made by `make` at every request and in every fair way, and then does it
/// again without faults.
fn check_every_fault(make: impl Fn() -> Arc<dyn Store>) {
    let make = || {
        let store = make();
        store.create(&["packs"]).unwrap();
        store.write(&path("old/a"), b"bytes").unwrap();
        store
    };
    let calm = FaultyStore::new(make(), SEED);
    work(&calm).unwrap();
    let requests = calm.request_count();
    assert_eq!(requests, 7);

    for number in 1..=requests {
        for fault in [Fault::before(Calls::Any, number), Fault::after(Calls::Any, number)] {
            for fault in [fault, fault.lasting(), fault.crashing()] {
                let inner = make();
                let store = FaultyStore::new(Arc::clone(&inner), SEED);
                store.plant(fault);
                work(&store).unwrap_err();
                for folder in ["packs", "index", "old"] {
                    for row in inner.list(folder).unwrap() {
                        assert_eq!(inner.read_all(&row.path, 9).unwrap(), b"bytes", "{fault:?}");
                    }
                }
                store.heal();
                work(&store).unwrap();
                assert_eq!(inner.list("old").unwrap(), [], "{fault:?}");
            }
        }
    }
}

#[test]
fn whatever_fails_in_memory_objects_are_whole_and_the_work_can_be_done_again() {
    check_every_fault(|| Arc::new(MemoryStore::new()));
}

#[test]
fn whatever_fails_above_a_directory_objects_are_whole_and_the_work_can_be_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    check_every_fault(|| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(LocalStore::new(folder.path().join(number.to_string())))
    });
}
