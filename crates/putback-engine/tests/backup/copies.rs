//! Snapshots in other repositories, and snapshots without some of their paths.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use putback_engine::Error;
use putback_engine::backup::FilterOptions;
use putback_engine::replicate::{self, ReplicateOptions, ReplicateReport};
use putback_engine::restore::restore;
use putback_engine::rewrite::{RewriteOptions, RewriteReport, rewrite};
use putback_format::id::{PackId, SnapshotId};
use putback_format::tree::EntryKind;
use putback_repo::prune::PruneOptions;
use putback_repo::{
    Cancel, FrameReader, InitOptions, KdfCost, Password, RepairOptions, RepairReport, RepairTarget,
    Repository, SlotOwner, SnapshotFilter, StoredSnapshot,
};
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Store, memory::MemoryStore};

use crate::support::{Machine, assert_same_tree, noise, restore_options};

fn snapshots(repository: &Repository) -> Vec<StoredSnapshot> {
    repository.snapshots(&SnapshotFilter::default()).unwrap()
}

/// A second repository, made like the first one or not.
fn second(first: &Machine, like: bool) -> Machine {
    let mut second = Machine::new();
    if like {
        second.store = MemoryStore::new();
        let options = InitOptions {
            kdf_cost: KdfCost::LOW,
            pack_bytes: None,
            compression_level: None,
            chunk_bytes_average: None,
            owner: SlotOwner::default(),
        };
        let made = Repository::init_like(
            Arc::new(second.store.clone()),
            &Password::new(b"another".to_vec()),
            &options,
            &first.open(),
            &putback_repo::Machine::default(),
        );
        second.key = made.unwrap().export_key().to_string();
    }
    second
}

/// Another machine with the same repository as it is.
fn fork(machine: &Machine) -> Machine {
    let root = tempfile::Builder::new().prefix("putback-fork-").tempdir().unwrap();
    Machine { root, store: machine.store.fork(), key: machine.key.clone() }
}

fn copy(first: &Machine, second: &Machine) -> ReplicateReport {
    try_copy(first, second, Arc::new(second.store.clone())).unwrap()
}

fn try_copy(
    first: &Machine,
    second: &Machine,
    store: Arc<dyn Store>,
) -> Result<ReplicateReport, Error> {
    let (source, target) = (first.open(), second.open_store(store)?);
    let plan = replicate::plan(&source, &target, &snapshots(&source))?;
    let options =
        ReplicateOptions { workers: 2, compression_level: None, cancel: Cancel::default() };
    replicate::execute(&source, &target, &plan, &options, &())
}

/// Restores everything of a snapshot into a new folder.
fn restored(machine: &Machine, id: SnapshotId) -> tempfile::TempDir {
    let repository = machine.open();
    let snapshot = repository.read_snapshot(&id).unwrap();
    let target = tempfile::Builder::new().prefix("putback-copy-").tempdir().unwrap();
    let report =
        restore(&repository, &snapshot, b"/", &restore_options(target.path()), &()).unwrap();
    assert_eq!(report.problems, 0);
    target
}

#[track_caller]
fn assert_copies(first: &Machine, second: &Machine, copied: &[(SnapshotId, SnapshotId)]) {
    for (own, copy) in copied {
        assert_same_tree(restored(first, *own).path(), restored(second, *copy).path());
    }
    second.assert_clean();
}

/// Files of every kind that is stored in a way of its own, and one folder of so many.
fn fill(machine: &Machine, many: usize) {
    machine.write("empty", b"");
    machine.write("inline", b"a few bytes");
    machine.write("folder/chunks", noise(1, 100_000));
    machine.write("folder/deeper/text", "many words ".repeat(9_000));
    let linked = machine.write("linked/one", noise(2, 50_000));
    fs::hard_link(&linked, machine.source().join("linked/two")).unwrap();
    std::os::unix::fs::symlink("one", machine.source().join("linked/soft")).unwrap();
    let sparse = fs::File::create(machine.source().join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, &noise(3, 30_000), 400_000).unwrap();
    sparse.set_len(1_000_000).unwrap();
    for number in 0..many {
        machine.write(format!("many/{number:04}"), format!("{number}"));
    }
}

fn check_copies(like: bool) {
    let first = Machine::new();
    fill(&first, 20);
    // More chunks than an entry holds, and more bytes than are read at once.
    let long = first.write("long", noise(4, 22 << 20));
    first.back_up();
    fs::remove_file(&long).unwrap();
    first.write("folder/new", noise(5, 70_000));
    first.back_up();
    let second = second(&first, like);
    let report = copy(&first, &second);
    assert_eq!((report.copied.len(), report.failed.len()), (2, 0));
    assert_copies(&first, &second, &report.copied);
    let data = |machine: &Machine| machine.open().stats().unwrap().data_blob_bytes;
    assert_eq!(data(&second), data(&first), "nothing is stored twice");
    if like {
        let root = |machine: &Machine, id| machine.open().read_snapshot(&id).unwrap().root;
        for (own, copy) in &report.copied {
            assert_eq!(root(&first, *own), root(&second, *copy), "every id is the same");
        }
    }
    // Another machine that knows of no earlier copying reads only what is new.
    first.write("folder/newer", noise(6, 60_000));
    first.back_up();
    fs::remove_dir_all(second.root.path().join("state")).unwrap();
    let report = copy(&first, &second);
    assert_eq!((report.copied.len(), report.bytes_read), (1, 60_000));
    assert_eq!(data(&second), data(&first));
    assert_copies(&first, &second, &report.copied);
}

#[test]
fn a_copy_that_is_cut_anew_restores_as_its_original_does() {
    check_copies(false);
}

#[test]
fn a_copy_chunk_by_chunk_restores_as_its_original_does_and_has_its_ids() {
    check_copies(true);
}

#[test]
fn a_file_of_many_names_and_places_is_read_once() {
    let first = Machine::new();
    let linked = first.write("a", noise(1, 200_000));
    fs::hard_link(&linked, first.source().join("b")).unwrap();
    first.write("elsewhere/c", noise(1, 200_000));
    first.back_up();
    let second = second(&first, false);
    let report = copy(&first, &second);
    assert_eq!(report.bytes_read, 200_000);
    assert_copies(&first, &second, &report.copied);
}

#[test]
fn what_a_copy_has_lost_is_stored_again_with_the_next_one() {
    let first = Machine::new();
    first.write("folder/file", noise(1, 300_000));
    first.back_up();
    let second = second(&first, false);
    copy(&first, &second);
    for path in second.store.paths() {
        if path.folder() == "packs" {
            let info = second.store.stat(&path).unwrap();
            second.store.delete(&[info]).unwrap();
        }
    }
    first.write("new", noise(2, 1000));
    first.back_up();
    let report = copy(&first, &second);
    assert_eq!(report.copied.len(), 1);
    let (own, new) = report.copied[0];
    assert_same_tree(restored(&first, own).path(), restored(&second, new).path());
}

fn repair(machine: &Machine, target: RepairTarget, forget: bool) -> RepairReport {
    let repository = machine.open();
    let options = RepairOptions { forget, ..RepairOptions::new(target) };
    let plan = repository.plan_repair(&options, &()).unwrap();
    repository.repair(&plan, &options, &()).unwrap()
}

/// A file and a folder are copied, the pack with the file is lost, and the copy is repaired.
fn check_copied_again_after_a_repair(like: bool, forget: bool) {
    let first = Machine::new();
    first.write("folder/file", noise(1, 300_000));
    first.write("inline", b"a few bytes");
    first.back_up();
    let second = second(&first, like);
    let copied = copy(&first, &second).copied;
    let packs = || second.store.list("packs").unwrap();
    let largest = packs().into_iter().max_by_key(|info| info.size).unwrap();
    second.store.delete(&[largest]).unwrap();
    repair(&second, RepairTarget::Packs, false);
    let report = repair(&second, RepairTarget::Snapshots, forget);
    let [(broken, repaired)] = report.snapshots_written[..] else { panic!("{report:?}") };
    assert_eq!(broken, copied[0].1);

    let again = copy(&first, &second).copied;
    assert_eq!((again.len(), again[0].0), (1, copied[0].0), "like {like}, forget {forget}");
    // The pack that is gone stays marked until a prune.
    let assert_whole = |(own, copy)| {
        assert_same_tree(restored(&first, own).path(), restored(&second, copy).path());
    };
    assert_whole(again[0]);
    let shown: Vec<SnapshotId> = snapshots(&second.open()).iter().map(|one| one.id).collect();
    let mut expected = vec![repaired, again[0].1];
    if !forget {
        // What it had lost is there again.
        expected.insert(0, broken);
        assert_whole(copied[0]);
    }
    assert_eq!(shown, expected, "the whole one is the latest");
    assert_eq!(copy(&first, &second).copied, [], "once is enough");
    // The way back brings what the repair wrote, as a snapshot of its own, and once.
    let back = copy(&second, &first).copied;
    assert_eq!(back.iter().map(|(own, _)| *own).collect::<Vec<_>>(), [repaired]);
    assert_eq!(copy(&second, &first).copied, []);
    assert_eq!(copy(&first, &second).copied, []);
    assert_eq!(snapshots(&first.open()).len(), 2);
}

#[test]
fn a_copy_that_was_repaired_is_made_again_and_has_what_was_lost() {
    check_copied_again_after_a_repair(false, true);
    check_copied_again_after_a_repair(true, true);
}

#[test]
fn a_broken_copy_beside_its_repaired_one_is_made_again_too() {
    check_copied_again_after_a_repair(false, false);
    check_copied_again_after_a_repair(true, false);
}

#[test]
fn a_copy_that_broke_before_its_snapshot_was_written_stores_nothing_again() {
    let first = Machine::new();
    fill(&first, 20);
    first.back_up();
    let base = second(&first, false);
    let calm = fork(&base);
    let calm_store = FaultyStore::new(Arc::new(calm.store.clone()), 1);
    try_copy(&first, &calm, Arc::new(calm_store.clone())).unwrap();
    let writes = calm_store.request_counts()[&Call::Write];
    let expected = calm.open().stats().unwrap().data_blob_bytes;
    // Segment and snapshot are the last two.
    for number in [writes - 1, writes] {
        let target = fork(&base);
        let store = FaultyStore::new(Arc::new(target.store.clone()), 1);
        store.plant(Fault::before(Calls::Only(Call::Write), number).crashing());
        assert!(try_copy(&first, &target, Arc::new(store)).is_err());
        let report = copy(&first, &target);
        assert_eq!(report.written.blobs, 0, "write {number} of {writes}");
        assert_eq!(target.open().stats().unwrap().data_blob_bytes, expected);
        assert_copies(&first, &target, &report.copied);
    }
}

#[test]
fn a_copy_that_broke_at_any_request_can_be_repeated() {
    let first = Machine::new();
    first.write("folder/a", noise(1, 40_000));
    first.write("b", "inline");
    first.back_up();
    first.write("folder/c", noise(2, 40_000));
    first.back_up();
    let base = second(&first, false);
    let originals = snapshots(&first.open());
    let expected: Vec<_> = originals.iter().map(|own| restored(&first, own.id)).collect();
    let mut points = 0;
    for number in 1.. {
        let fault = match number % 4 {
            0 => Fault::before(Calls::Any, number),
            1 => Fault::after(Calls::Any, number),
            2 => Fault::before(Calls::Any, number).crashing(),
            _ => Fault::after(Calls::Any, number).crashing(),
        };
        let target = fork(&base);
        let store = FaultyStore::new(Arc::new(target.store.clone()), number);
        store.plant(fault);
        let result = try_copy(&first, &target, Arc::new(store.clone()));
        if store.failure_count() == 0 {
            result.unwrap();
            break;
        }
        points += 1;
        copy(&first, &target);
        let copies = snapshots(&target.open());
        // A lost answer may leave a snapshot twice, but never a wrong one.
        assert!(copies.len() >= originals.len(), "request {number}");
        for (own, expected) in originals.iter().zip(&expected) {
            let alike = copies.iter().filter(|copy| copy.snapshot.time == own.snapshot.time);
            // All data is read below; one of each is restored.
            for copy in alike.clone().take(1) {
                assert_same_tree(expected.path(), restored(&target, copy.id).path());
            }
            assert!(alike.count() > 0, "request {number}");
        }
        target.assert_clean();
    }
    assert!(points > 20, "{points}");
}

fn remove(machine: &Machine, pattern: &str, keeps_old: bool) -> RewriteReport {
    let repository = machine.open();
    let options = RewriteOptions {
        filter: FilterOptions { exclude: vec![pattern.to_owned()], ..FilterOptions::default() },
        change: &|_| {},
        keeps_old,
        dry_run: false,
        workers: 2,
        cancel: Cancel::default(),
    };
    rewrite(&repository, &snapshots(&repository), &options, &()).unwrap()
}

#[test]
fn a_rewritten_tree_shares_every_page_that_did_not_change() {
    let machine = Machine::new();
    fill(&machine, 1500);
    machine.write("folder/deeper/secret", noise(9, 5000));
    machine.back_up();
    let before = machine.open().stats().unwrap();
    let report = remove(&machine, "secret", true);
    let [rewritten] = report.rewritten.as_slice() else { panic!("{report:?}") };
    let repository = machine.open();
    let new = repository.read_snapshot(&rewritten.new.unwrap()).unwrap();
    let old = &rewritten.old.snapshot;
    let source = machine.source();
    let pages = |snapshot, name: &str| {
        let path = source.join(name);
        match repository.entry_at(snapshot, path.as_os_str().as_bytes()).unwrap().kind {
            EntryKind::Directory { pages } => pages,
            _ => panic!("{name} is no directory"),
        }
    };
    assert_eq!(pages(old, "many"), pages(&new, "many"));
    assert!(pages(&new, "many").len() > 1);
    assert_eq!(pages(old, "linked"), pages(&new, "linked"));
    assert_ne!(pages(old, "folder"), pages(&new, "folder"));
    let after = repository.stats().unwrap();
    assert_eq!(after.data_blobs, before.data_blobs, "no file was stored again");
    // One for each directory from the secret up to the root.
    let depth = source.components().count() as u64;
    assert_eq!(after.tree_blobs, before.tree_blobs + depth + 2);
    machine.assert_clean();
}

/// Whether the plain bytes of any frame of any stored pack hold `secret`.
fn holds(machine: &Machine, secret: &[u8]) -> bool {
    let repository = machine.open();
    repository.load_index().unwrap();
    let stored: Vec<PackId> = machine
        .store
        .paths()
        .iter()
        .filter(|path| path.folder() == "packs")
        .map(|path| path.name().parse().unwrap())
        .collect();
    let packs = repository.index().packs();
    let mut is_there = false;
    for id in stored {
        let (number, _) =
            packs.iter().find(|(_, known)| *known == id).expect("every pack is indexed");
        let pack = repository.pack(*number).unwrap();
        let frames: Vec<u32> = (0..pack.frames.len() as u32).collect();
        let mut reader = FrameReader::new(&repository).unwrap();
        reader
            .read_frames(&pack, &frames, |frame| {
                let plain = frame.plain.unwrap();
                is_there |= plain.windows(secret.len()).any(|window| window == secret);
                Ok(())
            })
            .unwrap();
    }
    is_there
}

#[test]
fn a_removed_file_is_in_no_pack_after_a_purge() {
    let machine = Machine::new();
    let secret = noise(77, 3000);
    for number in 0..40 {
        machine.write(format!("folder/{number}"), noise(number, 9000));
    }
    machine.write("folder/secret", &secret);
    machine.back_up();
    machine.write("folder/later", noise(99, 9000));
    machine.back_up();
    assert!(holds(&machine, &secret));
    let report = remove(&machine, "/**/secret", false);
    assert_eq!((report.rewritten.len(), report.unchanged), (2, 0));
    assert_eq!(report.rewritten[0].removed.bytes, 3000);
    let repository = machine.open();
    let blob = repository.id_keys().blob_id(putback_format::key::BlobKind::Data, &secret);
    repository.load_index().unwrap();
    assert!(repository.index().find(&blob).unwrap().is_some());
    let purge = PruneOptions { purge: true, instant: true, workers: 2, ..PruneOptions::default() };
    repository.prune(&purge, &()).unwrap();
    assert!(!holds(&machine, &secret));
    let repository = machine.open();
    repository.load_index().unwrap();
    assert_eq!(repository.index().find(&blob).unwrap(), None);
    machine.assert_clean();
    let kept = snapshots(&machine.open());
    assert_eq!(kept.len(), 2);
    let target = restored(&machine, kept[1].id);
    let below = target.path().join(machine.source().strip_prefix("/").unwrap()).join("folder");
    assert!(!below.join("secret").exists());
    for name in (0..40).map(|number| number.to_string()).chain(["later".to_owned()]) {
        let original = fs::read(machine.source().join("folder").join(&name)).unwrap();
        assert_eq!(fs::read(below.join(name)).unwrap(), original);
    }
}

#[test]
fn a_snapshot_with_a_damaged_tree_stays_as_it_is_and_the_others_are_rewritten() {
    let machine = Machine::new();
    machine.write("one/secret", b"1");
    machine.back_up();
    let before = machine.store.paths();
    machine.write("two/secret", b"2");
    machine.back_up();
    let new = machine.store.paths().into_iter().filter(|path| !before.contains(path));
    let damaged: Vec<_> = new.filter(|path| path.folder() == "packs").collect();
    assert!(!damaged.is_empty());
    for path in damaged {
        machine.store.damage(&path, |bytes| bytes[100] ^= 1);
    }
    let report = remove(&machine, "secret", false);
    assert_eq!((report.rewritten.len(), report.failed.len()), (1, 1), "{report:?}");
    assert_eq!(snapshots(&machine.open()).len(), 2);
}

#[test]
fn incidents_of_removed_paths_go_and_the_others_stay() {
    let machine = Machine::new();
    machine.write("kept", b"k");
    machine.write("gone/file", b"g");
    machine.back_up();
    // As if two files had not been readable.
    let repository = machine.open();
    let old = snapshots(&repository).remove(0);
    let incident = |name: &str| putback_format::snapshot::Incident {
        path: machine.source().join(name).as_os_str().as_bytes().to_vec(),
        kind: putback_format::snapshot::IncidentKind::Unreadable,
        message: "denied".to_owned(),
    };
    let mut draft = putback_repo::SnapshotDraft::from(&old.snapshot);
    draft.incidents = vec![incident("gone/other"), incident("more")];
    draft.statistics.incidents = 2;
    repository.replace(&[(old, draft)], 1, &Cancel::default()).unwrap();
    remove(&machine, "gone", false);
    let new = snapshots(&machine.open()).remove(0).snapshot;
    assert_eq!(new.incidents, [incident("more")]);
    assert_eq!(new.statistics.incidents, 1);
}
