//! How many requests things cost.

use putback_store::{Error, Store};

use crate::support::{
    FOLDERS, Kind, bytes, created, emulator, path, path_of, requests, store, store_in,
};

/// What making a repository asks of its store.
fn init(store: &dyn Store) -> Result<(), Error> {
    assert!(
        store.create(&FOLDERS)?,
        "the root was made by this call, so that nothing can be in it"
    );
    assert!(store.lock(putback_store::LockMode::Exclusive)?.is_none());
    for path in ["keys/a", "copies/keys-a", "copies/config-1-a", "PUTBACK.txt", "config/1-a"] {
        store.write(&crate::support::path(path), path.as_bytes())?;
    }
    assert_eq!(store.list("config")?.len(), 1);
    Ok(())
}

#[test]
fn making_a_repository_where_nothing_is_costs_at_most_twenty_requests() {
    let emulator = emulator();
    init(&store(&emulator)).unwrap();
    let kinds = requests(&emulator);
    assert!(kinds.len() <= 20, "{} requests: {kinds:?}", kinds.len());
    let folders = kinds.iter().filter(|kind| **kind == Kind::CreateFolder).count();
    assert_eq!(folders, 2 + FOLDERS.len());
    assert_eq!(*kinds.last().unwrap(), Kind::List, "the last look is the server's answer");
}

#[test]
fn a_folder_that_was_there_is_listed_before_it_counts_as_empty() {
    let emulator = emulator();
    let first = created(&emulator);
    first.write(&path("config/a"), b"bytes").unwrap();
    let second = store(&emulator);
    second.create(&FOLDERS).unwrap();
    assert_eq!(second.list("config").unwrap().len(), 1);
}

#[test]
fn a_write_costs_two_requests() {
    let emulator = emulator();
    let store = created(&emulator);
    requests(&emulator);
    for number in 0..3_u8 {
        store.write(&path(&format!("index/{number}")), &[number]).unwrap();
    }
    assert_eq!(requests(&emulator), [Kind::UploadCreate, Kind::UploadData].repeat(3));
}

#[test]
fn a_pack_costs_two_requests_and_the_space_is_asked_for_once() {
    let emulator = emulator();
    let store = created(&emulator);
    requests(&emulator);
    for seed in 0..3 {
        let bytes = bytes(seed, 5 << 20);
        let mut upload = store.upload("packs").unwrap();
        upload.append(&bytes).unwrap();
        upload.finish(&path_of("packs", &bytes)).unwrap();
    }
    let mut expected = vec![Kind::Account];
    expected.extend([Kind::UploadCreate, Kind::UploadData].repeat(3));
    assert_eq!(requests(&emulator), expected);
}

#[test]
fn writing_what_is_there_costs_nothing() {
    let emulator = emulator();
    let store = created(&emulator);
    let written = store.write(&path("index/a"), b"bytes").unwrap();
    requests(&emulator);
    assert_eq!(store.write(&path("index/a"), b"bytes").unwrap(), written);
    assert_eq!(requests(&emulator), []);
}

#[test]
fn with_a_warm_cache_a_read_costs_a_link_and_a_range() {
    let emulator = emulator();
    let directory = tempfile::tempdir().unwrap();
    {
        let store = store_in(&emulator, directory.path());
        store.create(&FOLDERS).unwrap();
        for name in ["packs/a", "packs/b"] {
            store.write(&path(name), name.as_bytes()).unwrap();
        }
    }
    requests(&emulator);
    let store = store_in(&emulator, directory.path());
    let mut buffer = Vec::new();
    store.read(&path("packs/b"), 1..3, &mut buffer).unwrap();
    assert_eq!(buffer, b"ac");
    assert_eq!(requests(&emulator), [Kind::Link, Kind::Download]);
    store.read(&path("packs/b"), 3..5, &mut buffer).unwrap();
    assert_eq!(requests(&emulator), [Kind::Download], "the link is kept");
    store.list("packs").unwrap();
    assert_eq!(requests(&emulator), [Kind::List]);
}

#[test]
fn with_a_cold_cache_the_way_costs_a_listing_for_each_folder() {
    let emulator = emulator();
    created(&emulator).write(&path("packs/a"), b"bytes").unwrap();
    requests(&emulator);
    let store = store(&emulator);
    assert_eq!(store.list("packs").unwrap().len(), 1);
    // The root of the account, backups, laptop, packs.
    assert_eq!(requests(&emulator), [Kind::List; 4]);
    assert_eq!(store.read_all(&path("packs/a"), 5).unwrap(), b"bytes");
    assert_eq!(requests(&emulator), [Kind::Link, Kind::Download]);
}

#[test]
fn objects_that_are_not_known_cost_a_look_up_each_until_a_listing_is_cheaper() {
    let emulator = emulator();
    let writer = created(&emulator);
    let reader = store(&emulator);
    assert_eq!(reader.list("packs").unwrap(), []);
    let names: Vec<_> = (0..20).map(|number| path(&format!("packs/{number}"))).collect();
    for name in &names {
        writer.write(name, b"bytes").unwrap();
    }
    requests(&emulator);
    for name in &names {
        reader.read(name, 0..1, &mut Vec::new()).unwrap();
    }
    let kinds = requests(&emulator);
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!((count(Kind::Child), count(Kind::List)), (3, 1), "{kinds:?}");
    assert_eq!((count(Kind::Link), count(Kind::Download)), (20, 20));
}

#[test]
fn deleting_many_objects_costs_few_requests() {
    let emulator = emulator();
    let store = created(&emulator);
    for number in 0..7 {
        store.write(&path(&format!("packs/{number}")), b"bytes").unwrap();
    }
    let rows = store.list("packs").unwrap();
    requests(&emulator);
    store.delete(&rows).unwrap();
    assert_eq!(requests(&emulator), [Kind::Delete]);
    assert_eq!(store.list("packs").unwrap(), []);
}

#[test]
fn space_is_asked_for_once_in_a_while() {
    let emulator = emulator();
    let store = created(&emulator);
    requests(&emulator);
    let before = store.space().unwrap().unwrap();
    store.write(&path("packs/a"), &bytes(1, 2 << 20)).unwrap();
    let after = store.space().unwrap().unwrap();
    assert_eq!(before.available - after.available, 2 << 20);
    let kinds = requests(&emulator);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Account).count(), 1, "{kinds:?}");
}
