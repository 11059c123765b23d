//! Where the repository's folders are, and what else may be in their place.

use putback_remotes::{PutioOptions, PutioStore};
use putback_store::{ErrorKind, Store as _};
use putio_emulator::{Fault, FaultRule};

use crate::support::{
    ACCOUNT, FOLDER, FOLDERS, Kind, assert_kind, created, delete_on, emulator, emulator_with,
    folder_on, names, options, path, requests, seed_twin, store, store_in,
};

#[test]
fn a_folder_with_a_bad_name_is_refused_when_it_is_opened() {
    let emulator = emulator();
    for folder in ["a/../b", "a//b", "a\\b", "a\0", "x%41"] {
        let options = PutioOptions { folder: folder.to_owned(), ..options(&emulator) };
        assert_kind(PutioStore::open(options), ErrorKind::Other);
    }
    let options = PutioOptions { folder: "/a/b/".to_owned(), ..options(&emulator) };
    PutioStore::open(options).unwrap().create(&["packs"]).unwrap();
    assert!(folder_on(&emulator, "a/b/packs") > 0);
    assert!(format!("{:?}", store(&emulator)).contains(FOLDER));
}

#[test]
fn a_file_where_the_folder_should_be_is_a_clear_error() {
    for file in ["backups", FOLDER] {
        let emulator = emulator();
        let id = emulator.seed_file(ACCOUNT, file, b"bytes").unwrap();
        let store = store(&emulator);
        let expected = format!("'{file}' is a file on put.io (id {id}), not a folder");
        for text in [
            assert_kind(store.create(&FOLDERS), ErrorKind::Other),
            assert_kind(store.list("packs"), ErrorKind::Other),
            assert_kind(store.write(&path("packs/a"), b"bytes"), ErrorKind::Other),
        ] {
            assert!(text.contains(&expected), "{text}");
        }
    }
}

#[test]
fn a_file_in_place_of_a_folder_of_the_repository_is_a_clear_error() {
    let emulator = emulator();
    emulator.seed_file(ACCOUNT, &format!("{FOLDER}/packs"), b"bytes").unwrap();
    let store = store(&emulator);
    let text = assert_kind(store.create(&FOLDERS), ErrorKind::Other);
    assert!(text.contains(&format!("'{FOLDER}/packs' is a file")), "{text}");
}

#[test]
fn of_two_folders_of_one_name_the_one_with_the_repository_is_taken() {
    for (which, inside) in [(FOLDER, "config/a"), ("backups", "laptop/config/a")] {
        let emulator = emulator();
        emulator.seed_folder(ACCOUNT, FOLDER).unwrap();
        let twin = seed_twin(&emulator, which, &[inside]);
        assert_eq!(store(&emulator).list("config").unwrap().len(), 1, "{which} {twin}");
        // Nor does making it again go to the other.
        let again = store(&emulator);
        again.create(&FOLDERS).unwrap();
        assert_eq!(again.list("config").unwrap().len(), 1, "{which}");
    }
}

#[test]
fn two_folders_of_one_name_that_both_hold_a_repository_are_an_error_that_names_both() {
    let emulator = emulator();
    drop(created(&emulator));
    let first = folder_on(&emulator, FOLDER);
    let second = seed_twin(&emulator, FOLDER, &["config/a"]);
    for text in [
        assert_kind(store(&emulator).list("config"), ErrorKind::Other),
        assert_kind(store(&emulator).create(&FOLDERS), ErrorKind::Other),
    ] {
        assert!(text.contains(&format!("(ids {first}, {second})")), "{text}");
    }
}

#[test]
fn two_folders_of_one_name_that_both_hold_none_are_an_error_that_names_both() {
    let emulator = emulator();
    let first = emulator.seed_folder(ACCOUNT, FOLDER).unwrap();
    let second = seed_twin(&emulator, FOLDER, &[]);
    let text = assert_kind(store(&emulator).create(&FOLDERS), ErrorKind::Other);
    assert!(text.contains(&format!("(ids {first}, {second})")), "{text}");
}

#[test]
fn objects_of_two_folders_within_the_repository_are_seen_together() {
    let emulator = emulator();
    let before = created(&emulator);
    before.write(&path("packs/a"), b"bytes").unwrap();
    seed_twin(&emulator, &format!("{FOLDER}/packs"), &["b"]);
    let store = store(&emulator);
    assert_eq!(store.read_all(&path("packs/b"), 9).unwrap(), b"bytes");
    assert_eq!(names(&store.list("packs").unwrap()), ["a", "b"]);
    store.write(&path("packs/c"), b"bytes").unwrap();
    assert_eq!(names(&store.list("packs").unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_folder_that_was_replaced_is_found_again() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        store.write(&path("packs/a"), b"bytes").unwrap();
    }
    delete_on(&emulator, folder_on(&emulator, FOLDER));
    drop(created(&emulator));
    // What the cache says of every folder is stale now.
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.list("packs").unwrap(), []);
    assert_kind(store.read_all(&path("packs/a"), 9), ErrorKind::NotFound);
    store.write(&path("packs/a"), b"other bytes").unwrap();
    assert_eq!(store.read_all(&path("packs/a"), 99).unwrap(), b"other bytes");
}

#[test]
fn writing_through_stale_ids_goes_to_the_folder_that_is_there() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    store_in(&emulator, directory.path()).create(&FOLDERS).unwrap();
    delete_on(&emulator, folder_on(&emulator, FOLDER));
    drop(created(&emulator));
    let store = store_in(&emulator, directory.path());
    store.write(&path("packs/a"), b"bytes").unwrap();
    assert_eq!(emulator.read_file(ACCOUNT, &format!("{FOLDER}/packs/a")).unwrap(), b"bytes");
}

#[test]
fn a_folder_that_is_gone_is_not_found() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    store_in(&emulator, directory.path()).create(&FOLDERS).unwrap();
    delete_on(&emulator, folder_on(&emulator, FOLDER));
    let store = store_in(&emulator, directory.path());
    assert_kind(store.list("packs"), ErrorKind::NotFound);
    assert_kind(store.read_all(&path("packs/a"), 9), ErrorKind::NotFound);
    assert_kind(store.write(&path("packs/a"), b"bytes"), ErrorKind::NotFound);
}

#[test]
fn a_cache_of_garbage_is_as_good_as_none() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        store.write(&path("packs/a"), b"bytes").unwrap();
    }
    let cache = directory.path().join("cache");
    let file = fs_err::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let bytes = fs_err::read(&file).unwrap();
    for (damaged, is_warm) in [
        (bytes.clone(), true),
        (bytes[..bytes.len() / 2].to_vec(), false),
        (b"garbage".to_vec(), false),
        (Vec::new(), false),
    ] {
        fs_err::write(&file, damaged).unwrap();
        requests(&emulator);
        let store = store_in(&emulator, directory.path());
        assert_eq!(store.read_all(&path("packs/a"), 9).unwrap(), b"bytes");
        let kinds = requests(&emulator);
        assert_eq!(kinds.contains(&Kind::List), !is_warm, "{kinds:?}");
    }
    fs_err::remove_dir_all(&cache).unwrap();
    let store = store_in(&emulator, directory.path());
    assert_eq!(store.read_all(&path("packs/a"), 9).unwrap(), b"bytes");
}

#[test]
fn the_cache_names_no_secret() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    store_in(&emulator, directory.path()).create(&FOLDERS).unwrap();
    let cache = directory.path().join("cache");
    for entry in fs_err::read_dir(&cache).unwrap() {
        let bytes = fs_err::read(entry.unwrap().path()).unwrap();
        let token = crate::support::TOKEN.as_bytes();
        assert!(!bytes.windows(token.len()).any(|window| window == token));
    }
}

#[test]
fn somebody_else_making_the_folders_at_the_same_time_does_no_harm() {
    let emulator = emulator();
    emulator.set_faults(vec![
        FaultRule::new(Fault::FolderRace).path("/v2/files/create-folder").nth(2),
        FaultRule::new(Fault::FolderRace).path("/v2/files/create-folder").nth(5),
    ]);
    let store = created(&emulator);
    store.write(&path("config/a"), b"bytes").unwrap();
    assert_eq!(store.list("config").unwrap().len(), 1);
    let files = emulator.files(ACCOUNT).unwrap();
    assert_eq!(files.iter().filter(|row| row.is_folder).count(), 2 + FOLDERS.len());
}

#[test]
fn a_folder_that_listings_do_not_show_yet_is_found() {
    let emulator = emulator_with(|options| options.profile.listing_delay_milliseconds = 60_000);
    let writer = created(&emulator);
    writer.write(&path("packs/a"), b"bytes").unwrap();
    let reader = store(&emulator);
    assert_eq!(reader.read_all(&path("packs/a"), 9).unwrap(), b"bytes");
    assert_eq!(writer.list("packs").unwrap().len(), 1, "what it wrote itself, it knows");
    assert_eq!(reader.list("packs").unwrap(), [], "what others wrote may be late");
    assert_eq!(reader.read_all(&path("packs/a"), 9).unwrap(), b"bytes");
}
