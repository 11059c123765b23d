//! The index and its cache: whatever happens to the cache, the answers stay right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use putback_format::key::BlobKind;
use putback_repo::{Error, Machine};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::RecordingStore;
use putback_store::{ObjectPath, Store};

use crate::support::*;

/// A repository with `count` segments of a few blobs each, and what each snapshot holds.
fn with_segments(count: u64) -> (MemoryStore, String, Vec<Files>) {
    let (repository, store, key) = repository();
    let contents = (0..count).map(|number| {
        let files = BTreeMap::from([(format!("file-{number}"), noise(number, 9000))]);
        back_up(&repository, &files).unwrap();
        files
    });
    let contents = contents.collect();
    (store, key, contents)
}

fn cache_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.join("cache")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// A cache, and no state: these tests go back to older copies of the store.
fn cache(folder: &Path) -> Machine {
    Machine { state: None, ..directories(folder) }
}

/// Backs up what is known already and asserts that nothing new was stored, and that all can be read.
#[track_caller]
fn assert_knows(store: &MemoryStore, key: &str, folder: &Path, all: &[Files]) {
    let repository = open_with(store.clone(), key, &cache(folder));
    for files in all {
        let backup = repository.begin_backup(None, 1).unwrap();
        let root = put_tree(&backup, files).unwrap();
        backup.flush().unwrap();
        assert_eq!(backup.written().blobs, 0, "known blobs were stored again");
        let stored = backup.commit(draft(root)).unwrap();
        assert!(contents(&repository, &stored.snapshot).unwrap() == *files);
        backup.finish().unwrap();
    }
}

#[test]
fn a_load_that_failed_half_way_is_done_again_in_full() {
    let (store, key, all) = with_segments(3);
    for number in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
        let repository = open_with(faulty.clone(), &key, &cache(folder.path()));
        faulty.plant(Fault::before(Calls::Only(Call::ReadAll), number));
        repository.load_index().unwrap_err();
        faulty.heal();
        for files in &all {
            let stored = back_up(&repository, files).unwrap();
            assert!(contents(&repository, &stored.snapshot).unwrap() == *files);
        }
        drop(repository);
        assert_knows(&store.fork(), &key, folder.path(), &all);
    }
}

#[test]
fn a_cache_that_is_deleted_truncated_or_flipped_is_built_again() {
    let (store, key, all) = with_segments(3);
    let folder = tempfile::tempdir().unwrap();
    assert_knows(&store.fork(), &key, folder.path(), &all);
    let names: Vec<PathBuf> = cache_files(folder.path());
    assert!(names.iter().any(|name| name.to_string_lossy().contains("table-")), "{names:?}");
    for name in &names {
        for damage in 0..40u64 {
            let store = store.fork();
            // A whole cache to begin with.
            std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
            assert_knows(&store, &key, folder.path(), &all[..1]);
            let Some(name) = cache_files(folder.path()).into_iter().find(|found| {
                found.extension() == name.extension() && kind_of(found) == kind_of(name)
            }) else {
                panic!("no {}", name.display());
            };
            let bytes = std::fs::read(&name).unwrap();
            match damage {
                0 => std::fs::remove_file(&name).unwrap(),
                1 => std::fs::write(&name, b"").unwrap(),
                2 => std::fs::write(&name, &bytes[..bytes.len() / 2]).unwrap(),
                3 => std::fs::write(&name, vec![0; bytes.len()]).unwrap(),
                _ if bytes.is_empty() => continue,
                _ => {
                    let mut bytes = bytes;
                    let at = (damage as usize * 7919) % bytes.len();
                    bytes[at] ^= 0x20;
                    std::fs::write(&name, bytes).unwrap();
                }
            }
            assert_knows(&store, &key, folder.path(), &all);
            let recording = RecordingStore::new(Arc::new(store));
            let repository = open_with(recording.clone(), &key, &cache(folder.path()));
            repository.load_index().unwrap();
            let reads = recording.log().count(|request| {
                request.call == Call::ReadAll && request.path.starts_with("index/")
            });
            assert_eq!(reads, 0, "the cache was not built again for good ({})", name.display());
            assert_clean(&repository);
        }
    }
}

fn kind_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().chars().take(5).collect()
}

#[test]
fn two_programs_may_share_a_cache_and_a_state() {
    let (store, key, _) = with_segments(1);
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (store, key, folder) = (store.clone(), &key, folder.path());
            scope.spawn(move || {
                for round in 0..15 {
                    let repository = open_with(store.clone(), key, &directories(folder));
                    let name = format!("file-{worker}");
                    let files = BTreeMap::from([(name, noise(worker * 100 + round, 5000))]);
                    let stored = back_up(&repository, &files).unwrap();
                    assert!(contents(&repository, &stored.snapshot).unwrap() == files);
                }
            });
        }
    });
    let repository = open_with(store, &key, &directories(folder.path()));
    let snapshots = repository.snapshots(&Default::default()).unwrap();
    assert_eq!(repository.take_warnings(), [""; 0]);
    let mut numbers: Vec<_> =
        snapshots.iter().map(|stored| (stored.snapshot.writer, stored.snapshot.sequence)).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 61, "every snapshot has a number of its own");
    assert_clean(&repository);
}

#[test]
fn a_damaged_segment_stops_a_backup_and_is_named() {
    let (store, key, all) = with_segments(2);
    for row in store.list("index").unwrap() {
        for position in [0, 5, 20, 60, row.size as usize - 1] {
            let store = store.fork();
            store.damage(&row.path, |bytes| bytes[position] ^= 1);
            let repository = open(store, &key);
            let error = back_up(&repository, &all[0]).unwrap_err();
            let is_told =
                matches!(&error, Error::Damaged { object, .. } if object.contains(row.path.name()));
            assert!(is_told, "{}", describe(&error));
            let report = check(&repository);
            assert!(report.damages.iter().any(|damage| damage.object == row.path.as_str()));
        }
    }
}

#[test]
fn a_segment_of_a_newer_format_stops_a_backup_and_says_so() {
    let (store, key, all) = with_segments(1);
    let row = store.list("index").unwrap().remove(0);
    let mut bytes = store.read_all(&row.path, u64::MAX).unwrap();
    // The version of sealed objects.
    bytes[5] = 2;
    let name = blake3::hash(&bytes).to_hex();
    store.write(&ObjectPath::new(&format!("index/{name}")).unwrap(), &bytes).unwrap();
    let repository = open(store, &key);
    let error = back_up(&repository, &all[0]).unwrap_err();
    let is_told =
        matches!(&error, Error::NewerFormat { object, .. } if object.contains(name.as_str()));
    assert!(is_told, "{}", describe(&error));
}

#[test]
fn each_of_100_000_blobs_is_found_and_no_other() {
    let (repository, store, key) = repository();
    let mut ids = Vec::new();
    for round in 0..4u64 {
        let backup = repository.begin_backup(None, 2).unwrap();
        let mut data = backup.frame_writer(BlobKind::Data);
        for number in 0..25_000u64 {
            ids.push(data.put(&(round * 25_000 + number).to_le_bytes()).unwrap());
        }
        drop(data.flush());
        let root = put_tree(&backup, &Files::new()).unwrap();
        backup.commit(draft(root)).unwrap();
        drop(data);
        backup.finish().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        // The second time from the cache.
        let reader = open_with(store.clone(), &key, &cache(folder.path()));
        reader.load_index().unwrap();
        let mut seed = 1_u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (seed >> 33) as usize % ids.len();
            let location = reader.index().find(&ids[number]).unwrap();
            assert_eq!(location.map(|location| location.length), Some(8));
        }
        for number in 0..2000 {
            let plain = (number as u64 * 50).to_le_bytes();
            if number < 20 {
                assert_eq!(reader.read_data_blob(&ids[number * 50]).unwrap(), plain);
            }
            let absent = repository.id_keys().blob_id(BlobKind::Tree, &plain);
            assert_eq!(reader.index().find(&absent).unwrap(), None);
        }
    }
}
