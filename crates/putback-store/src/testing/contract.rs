//! What every store has to keep, as checks that any store can be put through.
//!
//! Each check gets a maker of stores. A store it makes is new, and its root does not exist before
//! [`Store::create`]. Where [`Capabilities::is_consistent`](crate::Capabilities) is false, checks
//! allow listings some time to follow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, LockMode, ObjectInfo, ObjectPath, Store};

/// How long listings of a store that is not consistent may lag.
const LISTING_LAG_MAX: Duration = Duration::from_secs(10);

/// More than stores write, map or upload at once, and no round number.
const LARGE_BYTES: usize = (20 << 20) + 4321;

/// Makes a new store.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn Store>;

/// One check; panics if its store does not keep the promise.
pub type Check = fn(Make<'_>);

/// Each check with the claim that it makes.
pub const CHECKS: &[(&str, Check)] = {
    macro_rules! checks {
        ($($check:ident,)*) => { &[$((stringify!($check), $check as Check),)*] };
    }
    checks![
        what_was_written_is_read_back,
        what_was_uploaded_in_pieces_is_read_back,
        objects_may_be_empty,
        objects_may_be_large,
        objects_may_lie_in_the_root,
        ranges_are_read_exactly,
        ranges_beyond_the_end_are_corrupt,
        a_read_replaces_what_was_in_the_buffer,
        a_whole_object_larger_than_allowed_is_corrupt,
        listings_show_every_object_once_with_its_size,
        listings_stay_within_their_folder,
        an_upload_is_invisible_before_it_is_finished,
        a_dropped_upload_leaves_nothing,
        an_upload_finishes_only_in_its_folder,
        writing_the_same_object_again_is_success,
        an_object_of_another_size_is_not_replaced,
        deleted_objects_are_gone,
        deleting_again_is_success,
        a_deleted_object_can_be_written_again,
        absent_objects_are_not_found,
        a_missing_folder_is_empty_and_made_by_writing,
        a_missing_root_is_not_found,
        creating_again_changes_nothing,
        names_that_leave_the_store_are_refused,
        many_threads_may_write_different_objects,
        many_threads_may_write_the_same_object,
        shared_locks_are_held_together,
        an_exclusive_lock_waits_for_shared_ones,
        a_shared_lock_waits_for_an_exclusive_one,
        the_space_is_no_more_than_there_is,
    ]
};

/// Puts stores made by `make` through all checks.
///
/// # Panics
/// If promises were broken, with the claims that do not hold.
pub fn check_store(make: Make<'_>) {
    let broken: Vec<_> = CHECKS
        .iter()
        .filter(|(_, check)| catch_unwind(AssertUnwindSafe(|| check(make))).is_err())
        .map(|(claim, _)| *claim)
        .collect();
    assert!(broken.is_empty(), "the store breaks its contract: {}", broken.join(", "));
}

fn what_was_written_is_read_back(make: Make<'_>) {
    let store = created(make);
    let info = ok(store.write(&path("packs/a"), b"bytes"));
    check_info(&info, &path("packs/a"), b"bytes");
    assert_eq!(ok(store.read_all(&path("packs/a"), 5)), b"bytes");
    check_info(&ok(store.stat(&path("packs/a"))), &path("packs/a"), b"bytes");
}

fn what_was_uploaded_in_pieces_is_read_back(make: Make<'_>) {
    let store = created(make);
    let mut upload = ok(store.upload("packs"));
    for piece in [&b"by"[..], b"", b"t", b"es"] {
        ok(upload.append(piece));
    }
    let info = ok(upload.finish(&path("packs/a")));
    check_info(&info, &path("packs/a"), b"bytes");
    assert_eq!(ok(store.read_all(&path("packs/a"), 5)), b"bytes");
}

fn objects_may_be_empty(make: Make<'_>) {
    let store = created(make);
    check_info(&ok(store.write(&path("packs/a"), b"")), &path("packs/a"), b"");
    ok(ok(store.upload("packs")).finish(&path("packs/b")));
    for name in ["packs/a", "packs/b"] {
        assert_eq!(ok(store.read_all(&path(name), 0)), b"");
        let mut buffer = Vec::new();
        assert_kind(store.read(&path(name), 0..1, &mut buffer), ErrorKind::Corrupt);
        check_info(&ok(store.stat(&path(name))), &path(name), b"");
    }
    await_names(&*store, "packs", &["packs/a", "packs/b"]);
}

fn objects_may_be_large(make: Make<'_>) {
    let store = created(make);
    let bytes = pattern(LARGE_BYTES);
    check_info(&ok(store.write(&path("packs/a"), &bytes)), &path("packs/a"), &bytes);
    let mut upload = ok(store.upload("packs"));
    for piece in bytes.chunks((1 << 20) - 7) {
        ok(upload.append(piece));
    }
    ok(upload.finish(&path("packs/b")));
    for name in ["packs/a", "packs/b"] {
        let read = ok(store.read_all(&path(name), LARGE_BYTES as u64));
        assert!(read == bytes, "{name} was read back with other bytes");
    }
}

fn objects_may_lie_in_the_root(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("README.txt"), b"bytes"));
    ok(store.write(&path("packs/a"), b""));
    let mut upload = ok(store.upload(""));
    ok(upload.append(b"more"));
    ok(upload.finish(&path("more")));
    assert_eq!(ok(store.read_all(&path("README.txt"), 9)), b"bytes");
    await_names(&*store, "", &["README.txt", "more"]);
}

fn ranges_are_read_exactly(make: Make<'_>) {
    let store = created(make);
    let bytes = pattern(300_000);
    ok(store.write(&path("packs/a"), &bytes));
    let mut buffer = Vec::new();
    for (start, end) in [(0, 300_000), (0, 1), (299_999, 300_000), (1, 299_999), (65_535, 65_537)] {
        ok(store.read(&path("packs/a"), start as u64..end as u64, &mut buffer));
        assert!(buffer == bytes[start..end], "bytes {start} to {end} differ");
    }
    ok(store.read(&path("packs/a"), 7..7, &mut buffer));
    assert_eq!(buffer, b"", "an empty range");
}

fn ranges_beyond_the_end_are_corrupt(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    for range in [0..6, 4..6, 5..6, 100..101, 0..1 << 40] {
        let mut buffer = Vec::new();
        assert_kind(store.read(&path("packs/a"), range, &mut buffer), ErrorKind::Corrupt);
    }
}

fn a_read_replaces_what_was_in_the_buffer(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    for before in [Vec::new(), b"x".to_vec(), vec![b'x'; 1000]] {
        let mut buffer = before;
        ok(store.read(&path("packs/a"), 1..4, &mut buffer));
        assert_eq!(buffer, b"yte");
    }
}

fn a_whole_object_larger_than_allowed_is_corrupt(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    assert_eq!(ok(store.read_all(&path("packs/a"), 5)), b"bytes");
    assert_eq!(ok(store.read_all(&path("packs/a"), u64::MAX)), b"bytes");
    for bytes_max in [4, 0] {
        assert_kind(store.read_all(&path("packs/a"), bytes_max), ErrorKind::Corrupt);
    }
}

fn listings_show_every_object_once_with_its_size(make: Make<'_>) {
    let store = created(make);
    let names: Vec<_> = (10..40).map(|number| format!("packs/{number}")).collect();
    for (size, name) in names.iter().enumerate() {
        ok(store.write(&path(name), &pattern(size)));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let rows = await_names(&*store, "packs", &names);
    for (size, row) in rows.iter().enumerate() {
        check_info(row, &path(names[size]), &pattern(size));
    }
}

fn listings_stay_within_their_folder(make: Make<'_>) {
    let store = created(make);
    for name in ["a", "packs/a", "packs/b", "index/a", "packs-/a"] {
        ok(store.write(&path(name), b""));
    }
    await_names(&*store, "packs", &["packs/a", "packs/b"]);
    await_names(&*store, "index", &["index/a"]);
    await_names(&*store, "", &["a"]);
}

fn an_upload_is_invisible_before_it_is_finished(make: Make<'_>) {
    let store = created(make);
    let mut upload = ok(store.upload("packs"));
    ok(upload.append(&pattern(100_000)));
    await_names(&*store, "packs", &[]);
    await_names(&*store, "", &[]);
    ok(upload.append(b"more"));
    ok(upload.finish(&path("packs/a")));
    await_names(&*store, "packs", &["packs/a"]);
}

fn a_dropped_upload_leaves_nothing(make: Make<'_>) {
    let store = created(make);
    let mut upload = ok(store.upload("packs"));
    ok(upload.append(&pattern(100_000)));
    drop(upload);
    drop(ok(store.upload("")));
    await_names(&*store, "packs", &[]);
    await_names(&*store, "", &[]);
}

fn an_upload_finishes_only_in_its_folder(make: Make<'_>) {
    let store = created(make);
    for (folder, elsewhere) in [("packs", "index/a"), ("packs", "a"), ("", "packs/a")] {
        let mut upload = ok(store.upload(folder));
        ok(upload.append(b"bytes"));
        assert!(upload.finish(&path(elsewhere)).is_err(), "{folder:?} finished as {elsewhere}");
        assert_kind(store.stat(&path(elsewhere)), ErrorKind::NotFound);
    }
}

fn writing_the_same_object_again_is_success(make: Make<'_>) {
    let store = created(make);
    for _ in 0..2 {
        check_info(&ok(store.write(&path("packs/a"), b"bytes")), &path("packs/a"), b"bytes");
        let mut upload = ok(store.upload("packs"));
        ok(upload.append(b"bytes"));
        check_info(&ok(upload.finish(&path("packs/a"))), &path("packs/a"), b"bytes");
    }
    assert_eq!(ok(store.read_all(&path("packs/a"), 5)), b"bytes");
}

fn an_object_of_another_size_is_not_replaced(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    for other in [&b""[..], b"byte", b"more bytes"] {
        assert_kind(store.write(&path("packs/a"), other), ErrorKind::AlreadyExists);
        let mut upload = ok(store.upload("packs"));
        ok(upload.append(other));
        assert_kind(upload.finish(&path("packs/a")), ErrorKind::AlreadyExists);
    }
    assert_eq!(ok(store.read_all(&path("packs/a"), 99)), b"bytes");
    await_names(&*store, "packs", &["packs/a"]);
}

fn deleted_objects_are_gone(make: Make<'_>) {
    let store = created(make);
    for name in ["packs/a", "packs/b", "packs/c", "index/a", "a"] {
        ok(store.write(&path(name), b"bytes"));
    }
    // An open handle must not keep it alive.
    ok(store.read(&path("packs/a"), 0..1, &mut Vec::new()));
    let mut rows = await_names(&*store, "packs", &["packs/a", "packs/b", "packs/c"]);
    rows.remove(1);
    rows.extend(await_names(&*store, "index", &["index/a"]));
    ok(store.delete(&rows));
    ok(store.delete(&[]));
    await_names(&*store, "packs", &["packs/b"]);
    await_names(&*store, "index", &[]);
    await_names(&*store, "", &["a"]);
    for row in rows {
        assert_kind(store.stat(&row.path), ErrorKind::NotFound);
        assert_kind(store.read_all(&row.path, 9), ErrorKind::NotFound);
        assert_kind(store.read(&row.path, 0..1, &mut Vec::new()), ErrorKind::NotFound);
    }
}

fn deleting_again_is_success(make: Make<'_>) {
    let store = created(make);
    let info = ok(store.write(&path("packs/a"), b"bytes"));
    for _ in 0..2 {
        ok(store.delete(std::slice::from_ref(&info)));
    }
    ok(store.delete(&[info.clone(), info]));
}

fn a_deleted_object_can_be_written_again(make: Make<'_>) {
    let store = created(make);
    for bytes in [&b"bytes"[..], b"other bytes"] {
        let info = ok(store.write(&path("packs/a"), bytes));
        let mut buffer = Vec::new();
        ok(store.read(&path("packs/a"), 0..bytes.len() as u64, &mut buffer));
        assert_eq!(buffer, bytes);
        ok(store.delete(&[info]));
    }
}

fn absent_objects_are_not_found(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    for name in ["packs/b", "a", "packs", "nowhere/a"] {
        assert_kind(store.stat(&path(name)), ErrorKind::NotFound);
        assert_kind(store.read_all(&path(name), 9), ErrorKind::NotFound);
        assert_kind(store.read(&path(name), 0..1, &mut Vec::new()), ErrorKind::NotFound);
    }
}

fn a_missing_folder_is_empty_and_made_by_writing(make: Make<'_>) {
    let store = created(make);
    assert_eq!(ok(store.list("new")), []);
    ok(store.write(&path("new/a"), b"bytes"));
    await_names(&*store, "new", &["new/a"]);
    let mut upload = ok(store.upload("newer"));
    ok(upload.append(b"bytes"));
    ok(upload.finish(&path("newer/a")));
    await_names(&*store, "newer", &["newer/a"]);
}

fn a_missing_root_is_not_found(make: Make<'_>) {
    let store = make();
    for folder in ["", "packs"] {
        assert_kind(store.list(folder), ErrorKind::NotFound);
    }
    assert_kind(store.stat(&path("packs/a")), ErrorKind::NotFound);
    assert_kind(store.read_all(&path("packs/a"), 9), ErrorKind::NotFound);
    assert_kind(store.read(&path("packs/a"), 0..1, &mut Vec::new()), ErrorKind::NotFound);
    for name in ["a", "packs/a"] {
        assert_kind(store.write(&path(name), b"bytes"), ErrorKind::NotFound);
        let uploaded = store.upload(path(name).folder()).and_then(|mut upload| {
            upload.append(b"bytes")?;
            upload.finish(&path(name))
        });
        assert_kind(uploaded, ErrorKind::NotFound);
    }
    assert_kind(store.list(""), ErrorKind::NotFound);
}

fn creating_again_changes_nothing(make: Make<'_>) {
    let store = created(make);
    ok(store.write(&path("packs/a"), b"bytes"));
    assert!(!ok(store.create(&["packs", "marks"])), "the root was there already");
    ok(store.create(&[]));
    await_names(&*store, "packs", &["packs/a"]);
    assert_eq!(ok(store.list("marks")), []);
}

fn names_that_leave_the_store_are_refused(make: Make<'_>) {
    let store = created(make);
    for folder in ["..", ".", "/", "/tmp", "../packs", "packs/..", "a/b", ".hidden", "a b"] {
        assert!(store.list(folder).is_err(), "{folder:?} was listed");
        assert!(store.upload(folder).is_err(), "an upload began in {folder:?}");
        assert!(store.create(&[folder]).is_err(), "{folder:?} was made");
    }
}

fn many_threads_may_write_different_objects(make: Make<'_>) {
    let store = created(make);
    let names: Vec<_> = (100..148).map(|number| format!("packs/{number}")).collect();
    thread::scope(|scope| {
        for names in names.chunks(6) {
            let store = &*store;
            scope.spawn(move || {
                for name in names {
                    ok(store.write(&path(name), name.as_bytes()));
                    let mut buffer = Vec::new();
                    ok(store.read(&path(name), 0..name.len() as u64, &mut buffer));
                    assert_eq!(buffer, name.as_bytes());
                }
            });
        }
    });
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    await_names(&*store, "packs", &names);
    for name in names {
        assert_eq!(ok(store.read_all(&path(name), 99)), name.as_bytes());
    }
}

fn many_threads_may_write_the_same_object(make: Make<'_>) {
    let store = created(make);
    let bytes = pattern(200_000);
    for name in ["packs/a", "new/a"] {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    check_info(&ok(store.write(&path(name), &bytes)), &path(name), &bytes);
                    // Whoever was told of success finds all of it.
                    let read = ok(store.read_all(&path(name), bytes.len() as u64));
                    assert!(read == bytes, "other bytes were read");
                });
            }
        });
    }
    let rows = ok(store.list("packs"));
    assert!(rows.iter().all(|row| row.path == path("packs/a")), "{rows:?}");
}

fn shared_locks_are_held_together(make: Make<'_>) {
    let store = created(make);
    let first = ok(store.lock(LockMode::Shared));
    assert_eq!(
        first.is_some(),
        store.capabilities().is_consistent,
        "a store has locks exactly if it says that it is consistent"
    );
    let second = ok(store.lock(LockMode::Shared));
    assert_eq!(first.is_some(), second.is_some());
}

fn an_exclusive_lock_waits_for_shared_ones(make: Make<'_>) {
    check_waits(make, LockMode::Exclusive, LockMode::Shared);
    check_waits(make, LockMode::Exclusive, LockMode::Exclusive);
}

fn a_shared_lock_waits_for_an_exclusive_one(make: Make<'_>) {
    check_waits(make, LockMode::Shared, LockMode::Exclusive);
}

fn the_space_is_no_more_than_there_is(make: Make<'_>) {
    let store = created(make);
    if let Some(space) = ok(store.space()) {
        assert!(space.total > 0 && space.available <= space.total, "{space:?}");
    }
}

/// Holds a lock of mode `held` and sees that one of mode `wanted` comes only after it.
fn check_waits(make: Make<'_>, wanted: LockMode, held: LockMode) {
    let store = created(make);
    let Some(lock) = ok(store.lock(held)) else {
        return;
    };
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let lock = ok(store.lock(wanted));
            sender.send(lock.is_some()).expect("the receiver outlives this thread");
        });
        let early = receiver.recv_timeout(Duration::from_millis(150));
        drop(lock);
        assert!(early.is_err(), "{wanted:?} was granted beside {held:?}");
        let late = receiver.recv_timeout(Duration::from_secs(20));
        assert_eq!(late, Ok(true), "{wanted:?} was not granted after {held:?} had ended");
    });
    // It is free again.
    drop(ok(store.lock(LockMode::Exclusive)));
}

/// A store with a root and some folders.
fn created(make: Make<'_>) -> Box<dyn Store> {
    let store = make();
    ok(store.create(&["packs", "index"]));
    store
}

#[track_caller]
fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).expect("the paths of the checks are valid")
}

#[track_caller]
fn ok<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}: {error:?}"),
    }
}

#[track_caller]
fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("it succeeded but should be {kind:?}"),
        Err(error) => assert_eq!(error.kind, kind, "{error}: {error:?}"),
    }
}

#[track_caller]
fn check_info(info: &ObjectInfo, path: &ObjectPath, bytes: &[u8]) {
    assert_eq!((&info.path, info.size), (path, bytes.len() as u64));
    if let Some(crc32) = info.crc32 {
        assert_eq!(crc32, crc32fast::hash(bytes), "the checksum of {path}");
    }
}

/// Waits until the listing of `folder` has exactly these names, and yields it in their order.
#[track_caller]
fn await_names(store: &dyn Store, folder: &str, names: &[&str]) -> Vec<ObjectInfo> {
    let start = Instant::now();
    loop {
        let mut rows = ok(store.list(folder));
        rows.sort_by(|a, b| a.path.cmp(&b.path));
        let listed: Vec<_> = rows.iter().map(|row| row.path.as_str()).collect();
        if listed == names {
            return rows;
        }
        let is_late = store.capabilities().is_consistent || start.elapsed() > LISTING_LAG_MAX;
        assert!(!is_late, "{folder:?} lists {listed:?} instead of {names:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Bytes without a short period, so that a wrong offset shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
