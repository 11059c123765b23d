//! What is special where every request costs a round trip: how few there are, and that nothing old is
//! taken for new.

use std::sync::{Arc, Mutex};

use putback_format::key::BlobKind;
use putback_repo::{Cancel, CheckOptions, Machine, ReadData, Repository, SnapshotFilter};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::testing::recording::{RecordingStore, RequestLog};
use putback_store::{Capabilities, ErrorKind, ObjectPath, Status, Store};

use crate::hooked::Hooked;
use crate::support::{self, directories, files, init_options, noise, password};

struct Remote {
    memory: MemoryStore,
    log: RequestLog,
    folder: tempfile::TempDir,
}

impl Remote {
    fn new() -> Self {
        let capabilities = Capabilities { is_remote: true, connections: 2, is_consistent: false };
        let memory = MemoryStore::new().with_capabilities(capabilities);
        Self { memory, log: RequestLog::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(RecordingStore::with_log(Arc::new(self.memory.clone()), self.log.clone()))
    }

    fn directories(&self) -> Machine {
        directories(self.folder.path())
    }

    fn init(&self) -> Repository {
        Repository::init(self.store(), &password(), &init_options(), &self.directories()).unwrap()
    }

    fn open(&self) -> Repository {
        Repository::open(self.store(), &password(), &self.directories()).unwrap()
    }

    /// What was asked since the last call, without the pieces of uploads.
    fn asked(&self) -> Vec<(Call, String)> {
        let asked = self.log.take().into_iter();
        let folder = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        asked
            .filter(|request| {
                !matches!(
                    request.call,
                    Call::Append | Call::Upload | Call::ResumeUploads | Call::Lock
                )
            })
            .map(|request| (request.call, folder(&request.path)))
            .collect()
    }
}

fn back_up(repository: &Repository) {
    support::back_up(repository, &files([("file", noise(1, 500).as_slice())])).unwrap();
}

#[test]
fn a_short_command_lists_what_may_have_changed_and_reads_nothing_twice() {
    let remote = Remote::new();
    back_up(&remote.init());
    remote.open().snapshots(&SnapshotFilter::default()).unwrap();
    remote.asked();
    let snapshots = remote.open().snapshots(&SnapshotFilter::default()).unwrap();
    assert_eq!(snapshots.len(), 1);
    let list = |folder: &str| (Call::List, folder.to_owned());
    let expected = ["config", "keys", "marks", "snapshots"].map(list);
    assert_eq!(remote.asked(), expected);
}

#[test]
fn a_backup_of_known_content_costs_a_snapshot_and_four_listings() {
    let remote = Remote::new();
    back_up(&remote.init());
    let repository = remote.open();
    remote.asked();
    back_up(&repository);
    let asked = remote.asked();
    let listed = asked.iter().filter(|(call, _)| *call == Call::List).count();
    let written: Vec<_> = asked.iter().filter(|(call, _)| call.is_change()).collect();
    assert_eq!(listed, 4, "{asked:?}");
    assert_eq!(written, [&(Call::Write, "snapshots".to_owned())]);
    assert_eq!(asked.len(), 6, "the snapshot is read back, and nothing else: {asked:?}");
}

#[test]
fn trees_that_were_written_or_read_here_are_not_downloaded_again() {
    let remote = Remote::new();
    let repository = remote.init();
    back_up(&repository);
    let page = |repository: &Repository| {
        let snapshot = repository.find_snapshot("latest", &SnapshotFilter::default()).unwrap();
        repository.read_directory(&snapshot.snapshot.root).unwrap().count()
    };
    let from_packs =
        |remote: &Remote| remote.asked().iter().filter(|(_, folder)| folder == "packs").count();
    remote.asked();
    assert_eq!(page(&remote.open()), 1);
    assert_eq!(from_packs(&remote), 0, "what a run writes is kept");
    fs_err::remove_dir_all(remote.directories().cache.unwrap()).unwrap();
    assert_eq!(page(&remote.open()), 1);
    assert_eq!(from_packs(&remote), 1, "one download");
    assert_eq!(page(&remote.open()), 1);
    assert_eq!(from_packs(&remote), 0);
}

#[test]
fn a_damaged_cache_costs_a_download_and_nothing_else() {
    let remote = Remote::new();
    back_up(&remote.init());
    remote.open().snapshots(&SnapshotFilter::default()).unwrap();
    let mut files = Vec::new();
    let mut folders = vec![remote.directories().cache.unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    assert!(files.len() > 4, "{files:?}");
    for path in files {
        // What was damaged before may have been thrown away.
        let Ok(mut bytes) = fs_err::read(&path) else { continue };
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        fs_err::write(&path, bytes).unwrap();
        let repository = remote.open();
        let snapshots = repository.snapshots(&SnapshotFilter::default()).unwrap();
        let root = &snapshots[0].snapshot.root;
        let names: Vec<_> = repository.read_directory(root).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(names.len(), 1, "after {} was damaged", path.display());
        assert_eq!(repository.take_warnings(), [] as [String; 0]);
    }
}

#[test]
fn check_with_data_takes_nothing_from_the_cache() {
    let remote = Remote::new();
    back_up(&remote.init());
    let repository = remote.open();
    for path in remote.memory.paths() {
        if path.folder() == "snapshots" || path.folder() == "packs" {
            assert!(remote.memory.damage(&path, |bytes| bytes[20] ^= 1));
        }
    }
    let check = |read| {
        let options = CheckOptions { read, workers: 1, ..CheckOptions::default() };
        repository.check(&options, &()).unwrap().damages_total
    };
    assert!(check(ReadData::All) >= 2);
}

#[test]
fn a_new_folder_is_not_listed_before_it_is_filled() {
    let remote = Remote::new();
    remote.init();
    let asked = remote.asked();
    let lists = asked.iter().filter(|(call, _)| *call == Call::List).count();
    assert_eq!(lists, 1, "only the look for another init: {asked:?}");
    assert_eq!(asked.iter().filter(|(call, _)| *call == Call::Write).count(), 5);
}

#[test]
fn a_whole_pack_comes_in_one_response() {
    let remote = Remote::new();
    let repository = remote.init();
    let backup = repository.begin_backup(None, 1).unwrap();
    let mut frames = backup.frame_writer(BlobKind::Data);
    let blobs: Vec<Vec<u8>> = (0..48_u8).map(|number| noise(u64::from(number), 100_000)).collect();
    let ids: Vec<_> = blobs.iter().map(|blob| frames.put(blob).unwrap()).collect();
    frames.flush().unwrap();
    backup.flush().unwrap();
    drop(frames);
    backup.finish().unwrap();
    remote.asked();
    let location = repository.index().find(&ids[0]).unwrap().unwrap();
    let pack = repository.pack(location.pack).unwrap();
    let all: Vec<u32> = (0..pack.frames.len() as u32).collect();
    assert!(all.len() > 2, "{}", all.len());
    let mut plain = Vec::new();
    putback_repo::FrameReader::new(&repository)
        .unwrap()
        .read_frames(&pack, &all, |wanted| {
            plain.extend_from_slice(wanted.plain.unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(plain, blobs.concat());
    assert_eq!(remote.asked(), [(Call::Read, "packs".to_owned())]);

    // A frame that is damaged takes nothing with it.
    let path = ObjectPath::new(&format!("packs/{}", pack.id)).unwrap();
    let middle = pack.frame_offset(1) as usize + 9;
    assert!(remote.memory.damage(&path, |bytes| bytes[middle] ^= 1));
    let mut good = Vec::new();
    putback_repo::FrameReader::new(&repository)
        .unwrap()
        .read_frames(&pack, &all, |wanted| {
            good.push((wanted.frame, wanted.plain.is_ok()));
            Ok(())
        })
        .unwrap();
    let expected: Vec<_> = all.iter().map(|frame| (*frame, *frame != 1)).collect();
    assert_eq!(good, expected);
}

#[test]
fn a_storage_that_does_not_tell_its_space_ends_no_backup_unless_it_wants_a_sign_in() {
    for (kind, status, is_the_end) in [
        (ErrorKind::Other, Status::Exhausted, false),
        (ErrorKind::Denied, Status::Permanent, false),
        (ErrorKind::Unauthorized, Status::Permanent, true),
    ] {
        let remote = Remote::new();
        drop(remote.init());
        let faulty = FaultyStore::new(remote.store(), 1);
        let machine = remote.directories();
        let repository = Repository::open(Arc::new(faulty.clone()), &password(), &machine).unwrap();
        faulty.plant(Fault::before(Calls::Only(Call::Space), 1).lasting().with_error(kind, status));
        let cancel = Cancel::default();
        let backup = repository.begin_backup(None, 0).unwrap();
        backup.stop_when_full(cancel.clone());
        let files = files([("file", noise(1, 50_000).as_slice())]);
        let stored = support::put_tree(&backup, &files)
            .and_then(|root| backup.commit(support::draft(root)))
            .and_then(|stored| backup.finish().map(|_| stored));
        assert!(faulty.failure_count() > 0 && !cancel.is_cancelled());
        match stored {
            Ok(stored) => {
                assert!(!is_the_end);
                support::assert_holds(&remote.memory, &repository.export_key(), &stored, &files);
            }
            Err(error) => assert!(is_the_end, "{}", support::describe(&error)),
        }
    }
}

#[test]
fn the_space_is_looked_at_before_the_first_pack_has_arrived() {
    let remote = Remote::new();
    let key = remote.init().export_key();
    let packs_at_first_look = Arc::new(Mutex::new(None));
    let (seen, memory) = (Arc::clone(&packs_at_first_look), remote.memory.clone());
    let hooked = Hooked::new(&remote.memory, move |call, _, _| {
        if call == Call::Space {
            let packs = memory.list("packs").unwrap().len();
            seen.lock().unwrap().get_or_insert(packs);
        }
        Ok(())
    });
    let repository = support::open(hooked, &key);
    let backup = repository.begin_backup(None, 2).unwrap();
    backup.stop_when_full(Cancel::default());
    support::put_tree(&backup, &files([("file", noise(1, 50_000).as_slice())])).unwrap();
    backup.finish().unwrap();
    assert_eq!(*packs_at_first_look.lock().unwrap(), Some(0));
}

#[test]
fn a_snapshot_that_is_listed_and_not_found_is_told_of() {
    let remote = Remote::new();
    let repository = remote.init();
    let key = repository.export_key();
    let [lost, other] = [1, 2].map(|seed| {
        let files = files([("file", noise(seed, 5_000).as_slice())]);
        support::back_up(&repository, &files).unwrap()
    });
    let path = ObjectPath::new(&format!("snapshots/{}", lost.id)).unwrap();
    let faulty = FaultyStore::new(Arc::new(remote.memory.clone()), 1);
    let reader = support::open(faulty.clone(), &key);
    let list = || {
        let snapshots = reader.snapshots(&SnapshotFilter::default()).unwrap();
        snapshots.iter().map(|stored| stored.id).collect::<Vec<_>>()
    };
    assert_eq!(list(), [lost.id, other.id]);
    faulty.deny_reads(&path, u64::MAX);
    let reader = support::open(faulty.clone(), &key);
    let snapshots = reader.snapshots(&SnapshotFilter::default()).unwrap();
    assert_eq!(snapshots.iter().map(|stored| stored.id).collect::<Vec<_>>(), [other.id]);
    let warnings = reader.take_warnings();
    let is_told = |warning: &String| warning.contains(&lost.id.short());
    assert!(warnings.iter().any(is_told), "{warnings:?}");
}
