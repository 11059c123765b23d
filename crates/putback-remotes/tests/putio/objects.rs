//! Objects that are not what a plain store would have: several of a name, stale, lost, late.

use putback_remotes::{PutioOptions, PutioStore};
use putback_store::{Error, ErrorKind, ObjectInfo, Status, Store as _};
use putio_emulator::faults::ErrorBody;
use putio_emulator::{Emulator, Fault, FaultRule};

use crate::support::{
    ACCOUNT, FOLDER, FOLDERS, Kind, TOKEN, assert_kind, bytes, client, created, delete_on,
    emulator, emulator_with, names, path, path_of, requests, rows_on, store, store_in,
};

#[test]
fn of_several_rows_of_a_name_the_one_with_the_named_bytes_is_read() {
    let right = bytes(1, 70_000);
    let wrong = [bytes(2, 70_000), right[..50_000].to_vec(), bytes(3, 90_000)];
    let path = path_of("packs", &right);
    // The right one first, in the middle, last.
    for position in 0..=wrong.len() {
        let emulator = emulator();
        drop(created(&emulator));
        let mut contents: Vec<_> = wrong.iter().collect();
        contents.insert(position, &right);
        let ids: Vec<_> = contents
            .iter()
            .map(|bytes| emulator.seed_file(ACCOUNT, &format!("{FOLDER}/{path}"), bytes).unwrap())
            .collect();
        let store = store(&emulator);
        let rows = store.list("packs").unwrap();
        assert_eq!(rows.len(), 4, "all rows are reported");
        assert!(rows.iter().all(|row| row.path == path));
        let mut buffer = Vec::new();
        store.read(&path, 10..20, &mut buffer).unwrap();
        assert_eq!(buffer, right[10..20]);
        requests(&emulator);
        assert_eq!(store.read_all(&path, u64::MAX).unwrap(), right);
        assert_eq!(requests(&emulator), [Kind::Download], "the choice is remembered");
        let chosen = store.stat(&path).unwrap().service_id.unwrap();
        assert_eq!(chosen, ids[position].to_string());
    }
}

#[test]
fn if_no_row_has_the_named_bytes_the_object_is_corrupt() {
    let emulator = emulator();
    drop(created(&emulator));
    let path = path_of("packs", b"right");
    for bytes in [&b"wrong"[..], b"also wrong"] {
        emulator.seed_file(ACCOUNT, &format!("{FOLDER}/{path}"), bytes).unwrap();
    }
    let text = assert_kind(store_listed(&emulator).read_all(&path, 99), ErrorKind::Corrupt);
    assert!(text.contains("2 files of this name"), "{text}");
}

fn store_listed(emulator: &Emulator) -> PutioStore {
    listed(store(emulator))
}

fn listed(store: PutioStore) -> PutioStore {
    for folder in FOLDERS {
        store.list(folder).unwrap();
    }
    store
}

#[test]
fn equal_rows_are_as_good_as_each_other_and_the_latest_is_read_first() {
    let emulator = emulator();
    let writer = created(&emulator);
    let bytes = bytes(1, 10_000);
    let path = path_of("packs", &bytes);
    writer.write(&path, &bytes).unwrap();
    let first = rows_on(&emulator, &path)[0].id;
    let second = emulator.duplicate_file(first).unwrap();
    let store = store_listed(&emulator);
    requests(&emulator);
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
    assert_eq!(requests(&emulator), [Kind::Link, Kind::Download]);

    // The next serves where put.io has lost one, or somebody has removed it.
    emulator.lose_file(second).unwrap();
    let again = store_listed(&emulator);
    assert_eq!(again.read_all(&path, u64::MAX).unwrap(), bytes);
    emulator.remove_file(second).unwrap();
    assert_eq!(again.read_all(&path, u64::MAX).unwrap(), bytes);
    assert_eq!(again.stat(&path).unwrap().service_id, Some(first.to_string()));
}

#[test]
fn deleting_a_row_leaves_the_others_of_its_name() {
    let emulator = emulator();
    let writer = created(&emulator);
    let path = path_of("packs", b"bytes");
    writer.write(&path, b"bytes").unwrap();
    let first = rows_on(&emulator, &path)[0].id;
    let second = emulator.duplicate_file(first).unwrap();
    let rows = writer.list("packs").unwrap();
    assert_eq!(rows.len(), 2);
    let of = |id: i64| rows.iter().find(|row| row.service_id == Some(id.to_string())).unwrap();
    writer.delete(&[of(first).clone()]).unwrap();
    assert_eq!(rows_on(&emulator, &path).iter().map(|row| row.id).collect::<Vec<_>>(), [second]);
    assert_eq!(writer.read_all(&path, 9).unwrap(), b"bytes");
    writer.delete(&[of(first).clone(), of(second).clone()]).unwrap();
    assert_eq!(rows_on(&emulator, &path).len(), 0);
    assert_kind(writer.read_all(&path, 9), ErrorKind::NotFound);
}

#[test]
fn an_object_without_an_id_stands_for_all_rows_of_its_path() {
    let emulator = emulator();
    let store = created(&emulator);
    let path = path("packs/a");
    let info = store.write(&path, b"bytes").unwrap();
    emulator.duplicate_file(rows_on(&emulator, &path)[0].id).unwrap();
    store.list("packs").unwrap();
    store.delete(&[ObjectInfo { service_id: None, ..info.clone() }]).unwrap();
    assert_eq!(rows_on(&emulator, &path).len(), 0);
    for id in ["0", "-2", "x", ""] {
        let bad = ObjectInfo { service_id: Some(id.to_owned()), ..info.clone() };
        assert_kind(store.delete(&[bad]), ErrorKind::Other);
    }
}

#[test]
fn deleted_objects_go_to_the_trash_unless_it_is_skipped() {
    for skip_trash in [false, true] {
        let emulator = emulator();
        let options = crate::support::options(&emulator);
        let options = PutioOptions { skip_trash, ..options };
        let store = PutioStore::open(options).unwrap();
        store.create(&FOLDERS).unwrap();
        let info = store.write(&path("packs/a"), b"bytes").unwrap();
        store.delete(&[info]).unwrap();
        assert_eq!(emulator.trash(ACCOUNT).unwrap().len(), usize::from(!skip_trash));
    }
}

#[test]
fn an_id_of_the_cache_that_is_gone_is_looked_up_again() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let (moved, gone) = (path("packs/a"), path("packs/b"));
    {
        let store = store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        store.write(&moved, b"bytes").unwrap();
        store.write(&gone, b"bytes").unwrap();
    }
    for path in [&moved, &gone] {
        delete_on(&emulator, rows_on(&emulator, path)[0].id);
    }
    let id = emulator.seed_file(ACCOUNT, &format!("{FOLDER}/{moved}"), b"bytes").unwrap();
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.read_all(&moved, 9).unwrap(), b"bytes");
    assert_eq!(store.stat(&moved).unwrap().service_id, Some(id.to_string()));
    assert_kind(store.read_all(&gone, 9), ErrorKind::NotFound);
    assert_kind(store.stat(&gone), ErrorKind::NotFound);
}

#[test]
fn what_the_cache_remembers_does_not_count_as_written() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    let path = path("keys/a");
    {
        let store = store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        store.write(&path, b"bytes").unwrap();
    }
    delete_on(&emulator, rows_on(&emulator, &path)[0].id);
    let store = store_in(&emulator, directory.path());
    store.write(&path, b"bytes").unwrap();
    assert_eq!(rows_on(&emulator, &path).len(), 1, "it was written again");
    requests(&emulator);
    let again = store_in(&emulator, directory.path());
    drop(store);
    let again = {
        drop(again);
        store_in(&emulator, directory.path())
    };
    again.write(&path, b"bytes").unwrap();
    assert_eq!(requests(&emulator), [Kind::File], "it is confirmed by its id");
    assert_eq!(rows_on(&emulator, &path).len(), 1);
}

#[test]
fn a_wrong_object_under_the_name_of_a_right_one_does_not_keep_it_from_being_written() {
    let emulator = emulator();
    let store = created(&emulator);
    let path = path_of("keys", b"right");
    emulator.seed_file(ACCOUNT, &format!("{FOLDER}/{path}"), b"wrong").unwrap();
    assert_eq!(store.list("keys").unwrap().len(), 1);
    store.write(&path, b"right").unwrap();
    assert_eq!(store.list("keys").unwrap().len(), 2);
    assert_eq!(store.read_all(&path, 9).unwrap(), b"right");
}

#[test]
fn lagging_listings_neither_hide_what_was_written_nor_show_what_was_deleted() {
    let emulator = emulator_with(|options| options.profile.listing_delay_milliseconds = 60_000);
    let store = created(&emulator);
    let mut infos = Vec::new();
    for name in ["packs/a", "packs/b", "packs/c"] {
        infos.push(store.write(&path(name), b"bytes").unwrap());
    }
    assert_eq!(names(&store.list("packs").unwrap()), ["a", "b", "c"]);
    store.delete(&infos[..1]).unwrap();
    assert_eq!(names(&store.list("packs").unwrap()), ["b", "c"]);
    emulator.advance_clock(std::time::Duration::from_secs(61));
    assert_eq!(names(&store.list("packs").unwrap()), ["b", "c"]);
}

#[test]
fn foreign_files_and_rows_that_are_none_do_no_harm() {
    let emulator = emulator();
    let store = created(&emulator);
    store.write(&path("packs/a"), b"bytes").unwrap();
    for name in ["holiday photo.jpg", ".hidden", "Größe", "sub/inside"] {
        emulator.seed_file(ACCOUNT, &format!("{FOLDER}/packs/{name}"), b"bytes").unwrap();
    }
    assert_eq!(names(&store.list("packs").unwrap()), ["a"]);
    emulator
        .set_faults(vec![FaultRule::new(Fault::PhantomRows { rows: 2 }).path("/v2/files/list*")]);
    let rows = store.list("packs").unwrap();
    emulator.clear_faults();
    for row in rows {
        match store.read_all(&row.path, 1 << 20) {
            Ok(bytes) => assert_eq!((row.path, bytes), (path("packs/a"), b"bytes".to_vec())),
            Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error}"),
        }
    }
    assert_eq!(names(&store.list("packs").unwrap()), ["a"]);
}

#[test]
fn an_object_that_put_io_has_lost_says_so() {
    let emulator = emulator();
    let store = created(&emulator);
    store.write(&path("packs/a"), b"bytes").unwrap();
    store.write(&path("packs/b"), b"bytes").unwrap();
    emulator.lose_file(rows_on(&emulator, &path("packs/a"))[0].id).unwrap();
    let text = assert_kind(store.read_all(&path("packs/a"), 9), ErrorKind::Lost);
    assert!(text.contains("packs/a: the storage has lost its bytes"), "{text}");
    assert_eq!(store.read_all(&path("packs/b"), 9).unwrap(), b"bytes");
    assert_eq!(names(&store.list("packs").unwrap()), ["a", "b"], "its row is still there");
}

#[test]
fn a_storage_host_that_does_not_have_a_file_for_a_while_does_not_make_it_one_that_is_gone() {
    let emulator = emulator();
    let options =
        PutioOptions { client: client(&emulator, 5), ..crate::support::options(&emulator) };
    let store = PutioStore::open(options).unwrap();
    store.create(&FOLDERS).unwrap();
    let bytes = bytes(1, 10_000);
    let path = path_of("packs", &bytes);
    store.write(&path, &bytes).unwrap();
    let id = rows_on(&emulator, &path)[0].id;
    let status =
        |status| Fault::Status { status, body: ErrorBody::Html, error_type: None, executed: false };
    for fault in [
        Fault::StorageMissing,
        Fault::LinkExpired { status: 410 },
        status(410),
        status(416),
        status(400),
    ] {
        let of_file = FaultRule::new(fault.clone()).path(&format!("/download/{id}"));
        emulator.set_faults(vec![of_file.clone().times(4)]);
        assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes, "{fault:?}");
        emulator.set_faults(vec![of_file]);
        let error = store.read_all(&path, u64::MAX).unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Temporary), "{fault:?}");
        assert!(error.is_about_object(), "others can be read: {error}");
        emulator.clear_faults();
        assert_eq!(store.list("packs").unwrap().len(), 1);
        assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
    }
    // Another file of the name serves meanwhile.
    let twin = emulator.duplicate_file(id).unwrap();
    assert_eq!(store.list("packs").unwrap().len(), 2);
    for of in [id, twin] {
        withhold(&emulator, of);
        assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
    }
    for of in [id, twin] {
        emulator.remove_file(of).unwrap();
    }
    assert_kind(store.read_all(&path, u64::MAX), ErrorKind::NotFound);
}

#[test]
fn an_object_is_not_lost_while_one_of_its_files_is_only_withheld() {
    let emulator = emulator();
    let writer = created(&emulator);
    let bytes = bytes(1, 10_000);
    let path = path_of("packs", &bytes);
    writer.write(&path, &bytes).unwrap();
    let first = rows_on(&emulator, &path)[0].id;
    let second = emulator.duplicate_file(first).unwrap();
    emulator.lose_file(first).unwrap();
    withhold(&emulator, second);
    let store = hasty_listed(&emulator);
    assert_withheld(store.read_all(&path, u64::MAX));
    assert_withheld(store.read(&path, 10..20, &mut Vec::new()));
    emulator.clear_faults();
    assert_eq!(store.list("packs").unwrap().len(), 2);
    assert_eq!(store.read_all(&path, u64::MAX).unwrap(), bytes);
    // The other way round.
    let third = emulator.duplicate_file(second).unwrap();
    emulator.lose_file(third).unwrap();
    withhold(&emulator, second);
    assert_withheld(hasty_listed(&emulator).read_all(&path, u64::MAX));
}

#[test]
fn where_rows_differ_the_next_is_tried_and_a_wrong_one_never_stands_for_a_withheld_one() {
    let right = bytes(1, 70_000);
    let path = path_of("packs", &right);
    for is_right_latest in [false, true] {
        let emulator = emulator();
        drop(created(&emulator));
        let seed = |bytes: &[u8]| emulator.seed_file(ACCOUNT, &format!("{FOLDER}/{path}"), bytes);
        let wrong = bytes(2, 70_000);
        let ids = match is_right_latest {
            true => [seed(&wrong).unwrap(), seed(&right).unwrap()],
            false => [seed(&right).unwrap(), seed(&wrong).unwrap()],
        };
        let (right_id, wrong_id) =
            if is_right_latest { (ids[1], ids[0]) } else { (ids[0], ids[1]) };
        withhold(&emulator, wrong_id);
        let store = hasty_listed(&emulator);
        assert_eq!(store.read_all(&path, u64::MAX).unwrap(), right, "the other one serves");
        // It has been chosen, and is withheld now.
        withhold(&emulator, right_id);
        assert_withheld(store.read_all(&path, u64::MAX));
        assert_withheld(hasty_listed(&emulator).read_all(&path, u64::MAX));
        emulator.lose_file(wrong_id).unwrap();
        assert_withheld(hasty_listed(&emulator).read_all(&path, u64::MAX));
    }
}

/// The storage does not hand out this file, though it is there.
fn withhold(emulator: &Emulator, id: i64) {
    let rule = FaultRule::new(Fault::StorageMissing).path(&format!("/download/{id}"));
    emulator.set_faults(vec![rule]);
}

/// A store whose client tries a few times only, with its folders listed.
fn hasty_listed(emulator: &Emulator) -> PutioStore {
    let options = PutioOptions { client: client(emulator, 3), ..crate::support::options(emulator) };
    listed(PutioStore::open(options).unwrap())
}

#[track_caller]
fn assert_withheld<T>(result: Result<T, Error>) {
    let error = result.err().expect("it is withheld");
    assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Temporary), "{error:?}");
}

#[test]
fn a_revoked_token_asks_for_a_new_sign_in() {
    let emulator = emulator();
    let store = created(&emulator);
    store.write(&path("packs/a"), b"bytes").unwrap();
    emulator.revoke_token(TOKEN).unwrap();
    for error in [
        store.list("packs").unwrap_err(),
        store.read_all(&path("packs/a"), 9).unwrap_err(),
        store.write(&path("packs/b"), b"bytes").unwrap_err(),
        store.write(&path("packs/c"), &bytes(1, 5 << 20)).unwrap_err(),
        store.space().unwrap_err(),
        store.stat(&path("packs/a")).unwrap_err(),
    ] {
        assert_eq!((error.kind, error.status), (ErrorKind::Unauthorized, Status::Permanent));
    }
}

#[test]
fn a_service_that_does_not_answer_is_tried_until_patience_ends() {
    let emulator = emulator();
    let store = created(&emulator);
    emulator.set_faults(vec![FaultRule::new(Fault::ResetBefore)]);
    let error = store.list("packs").unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Exhausted));
    emulator.clear_faults();
    assert_eq!(store.list("packs").unwrap(), []);
}

#[test]
fn a_whole_object_is_refused_before_its_bytes_are_asked_for() {
    let emulator = emulator();
    let store = created(&emulator);
    store.write(&path("packs/a"), b"bytes").unwrap();
    requests(&emulator);
    assert_kind(store.read_all(&path("packs/a"), 4), ErrorKind::Corrupt);
    assert_kind(store.read(&path("packs/a"), 0..6, &mut Vec::new()), ErrorKind::Corrupt);
    assert_eq!(requests(&emulator), []);
}
