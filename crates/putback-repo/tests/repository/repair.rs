//! Repairs: whatever object is harmed, what is left of the repository is whole afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{BlobId, PackId, RepositoryId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::mark::MarkKind;
use putback_format::segment::{Segment, SegmentPack};
use putback_format::snapshot::{IncidentKind, Original};
use putback_repo::repair::REPAIRED;
use putback_repo::{
    Error, Machine, ReadData, RepairOptions, RepairPlan, RepairReport, RepairTarget, Repository,
    SnapshotFilter, StoredSnapshot,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Capabilities, ErrorKind, ObjectPath, Status, Store};

use crate::support::*;

fn options(target: RepairTarget) -> RepairOptions {
    RepairOptions { forget: true, ..RepairOptions::new(target) }
}

fn plan(repository: &Repository, target: RepairTarget) -> RepairPlan {
    let plan = repository.plan_repair(&options(target), &());
    plan.unwrap_or_else(|error| panic!("{target:?}: {}", describe(&error)))
}

fn repair(repository: &Repository, target: RepairTarget) -> RepairReport {
    let plan = plan(repository, target);
    let report = repository.repair(&plan, &options(target), &());
    report.unwrap_or_else(|error| panic!("{target:?}: {}", describe(&error)))
}

const ALL: [RepairTarget; 3] = [RepairTarget::Index, RepairTarget::Packs, RepairTarget::Snapshots];

fn pack_path(id: &PackId) -> ObjectPath {
    ObjectPath::new(&format!("packs/{id}")).unwrap()
}

/// Packs of one kind of blobs, the oldest first.
fn packs_of(repository: &Repository, store: &MemoryStore, kind: BlobKind) -> Vec<PackId> {
    repository.load_index().unwrap();
    let packs = repository.index().packs().into_iter();
    let mut packs: Vec<PackId> = packs
        .filter(|(number, _)| repository.pack(*number).unwrap().kind == kind)
        .map(|(_, id)| id)
        .collect();
    packs.sort_by_key(|id| store.stat(&pack_path(id)).unwrap().modified);
    packs
}

/// What is done to an object.
type Harm<'a> = &'a dyn Fn(&MemoryStore, &ObjectPath);

#[test]
fn whatever_object_is_harmed_the_rest_is_whole_after_a_repair() {
    let fixture = crate::damage::fixture();
    let harms: [(&str, Harm<'_>); 4] = [
        ("deleted", &|store, path| delete(store, path)),
        ("cut", &|store, path| {
            assert!(store.damage(path, |bytes| bytes.truncate(bytes.len() / 2)));
        }),
        ("flipped at the end", &|store, path| {
            assert!(store.damage(path, |bytes| *bytes.last_mut().unwrap() ^= 1));
        }),
        ("flipped near the beginning", &|store, path| {
            assert!(store.damage(path, |bytes| bytes[60] ^= 1));
        }),
    ];
    for (number, path) in fixture.store.paths().into_iter().enumerate() {
        for (how, harm) in [harms[0], harms[1 + number % 3]] {
            let what = format!("{path}, {how}");
            let store = fixture.store.fork();
            harm(&store, &path);
            let repository = open(store.clone(), &fixture.key);
            let reports = ALL.map(|target| repair(&repository, target));
            let repository = open(store.clone(), &fixture.key);
            for target in ALL {
                assert!(!plan(&repository, target).has_steps(), "{what}: {target:?} again");
            }
            let report = check(&repository);
            assert_eq!(report.damages, [], "{what}");
            let written = &reports[2].snapshots_written;
            let is_data = ["packs", "snapshots"].contains(&path.folder());
            assert!(written.is_empty() || path.folder() == "packs", "{what}");
            for (id, files) in &fixture.expected {
                let new = written.iter().find(|(old, _)| old == id).map_or(id, |(_, new)| new);
                if path.name() == id.to_string() {
                    continue;
                }
                let snapshot = repository.read_snapshot(new).unwrap();
                let restored = contents(&repository, &snapshot).unwrap();
                let is_right = |(name, bytes)| files.get(name) == Some(bytes);
                assert!(restored.iter().all(is_right), "{what}");
                let lost = snapshot.incidents.iter().filter(|it| it.kind == IncidentKind::Lost);
                if restored.len() < files.len() {
                    assert!(is_data && lost.count() > 0 && new != id, "{what}");
                    assert!(snapshot.tags.iter().any(|tag| tag == REPAIRED));
                } else {
                    assert!(lost.count() == 0 && new == id, "{what}");
                }
            }
            let files = fixture.expected.values().next().unwrap();
            let again = back_up(&open(store.clone(), &fixture.key), files).unwrap();
            assert_holds(&store, &fixture.key, &again, files);
        }
    }
}

/// Two snapshots that share a file, and two packs of data.
struct Two {
    repository: Repository,
    store: MemoryStore,
    key: String,
    second: StoredSnapshot,
    files: Files,
    data: Vec<PackId>,
    trees: Vec<PackId>,
}

fn two() -> Two {
    let (repository, store, key) = repository();
    let mut files = files([("folder/a", noise(1, 50_000).as_slice()), ("b", &noise(2, 50_000))]);
    back_up(&repository, &files).unwrap();
    files.insert("folder/c".to_owned(), noise(3, 50_000));
    files.insert("z/d".to_owned(), noise(4, 50_000));
    let second = back_up(&repository, &files).unwrap();
    let repository = open(store.clone(), &key);
    let data = packs_of(&repository, &store, BlobKind::Data);
    let trees = packs_of(&repository, &store, BlobKind::Tree);
    assert_eq!((data.len(), trees.len()), (2, 2));
    Two { repository, store, key, second, files, data, trees }
}

#[test]
fn good_blobs_of_a_bad_pack_are_stored_anew_and_nobody_relies_on_it_any_more() {
    let (repository, store, key) = repository();
    // Frames of 1 MiB: one of three is hit.
    let all: Files =
        (0..30).map(|number| (format!("{number:02}"), noise(number, 100_000))).collect();
    let stored = back_up(&repository, &all).unwrap();
    let data = packs_of(&repository, &store, BlobKind::Data)[0];
    assert!(store.damage(&pack_path(&data), |bytes| bytes[1_500_000] ^= 1));
    let planned = plan(&repository, RepairTarget::Packs);
    assert_eq!(planned.findings.len(), 1);
    let finding = &planned.findings[0];
    assert!(finding.object.contains(&data.to_string()) && planned.blobs_lost > 0, "{finding:?}");
    let hurt: BTreeSet<&[u8]> = finding.hurts.iter().map(|(_, path)| path.as_slice()).collect();
    assert!((9..13).contains(&hurt.len()), "{hurt:?}");
    let before = store.paths();
    assert_eq!(before, store.paths(), "a plan changes nothing");
    let report = repair(&repository, RepairTarget::Packs);
    assert_eq!(report.packs_marked, 1);
    let blobs = report.blobs_saved + planned.blobs_lost;
    assert_eq!(blobs, 30 * 100_000_u64.div_ceil(4096), "{report:?}");
    assert!(!plan(&repository, RepairTarget::Packs).has_steps());
    // The pack goes, and what was good is still there.
    delete(&store, &pack_path(&data));
    let reader = open(store.clone(), &key);
    let report = repair(&reader, RepairTarget::Snapshots);
    let repaired = reader.read_snapshot(&report.snapshots_written[0].1).unwrap();
    assert_eq!(report.snapshots_written[0].0, stored.id);
    let restored = contents(&reader, &repaired).unwrap();
    assert_eq!(restored.len(), all.len() - hurt.len());
    assert!(restored.iter().all(|(name, bytes)| all.get(name) == Some(bytes)));
    assert_eq!(repaired.incidents.len(), hurt.len());
    assert_eq!(repaired.statistics.incidents, hurt.len() as u64);
    assert_clean_but_for_warnings(&reader);
    // What is lost is unknown: the next backup stores it.
    let again = back_up(&open(store.clone(), &key), &all).unwrap();
    assert_holds(&store, &key, &again, &all);
}

fn assert_clean_but_for_warnings(repository: &Repository) {
    let report = check(repository);
    assert_eq!(report.damages, []);
    assert!(report.warnings.iter().all(|it| it.contains("it is marked")), "{:?}", report.warnings);
}

#[test]
fn a_pack_without_header_is_read_by_what_the_index_says() {
    let Two { repository, store, key, second, files, data, .. } = two();
    for pack in &data {
        assert!(store.damage(&pack_path(pack), |bytes| *bytes.last_mut().unwrap() ^= 1));
    }
    let report = repair(&repository, RepairTarget::Packs);
    assert!(report.packs_marked == 2 && report.blobs_saved > 40, "{report:?}");
    data.iter().for_each(|pack| delete(&store, &pack_path(pack)));
    assert_holds(&store, &key, &second, &files);
    assert!(!plan(&repository, RepairTarget::Snapshots).has_steps());
}

#[test]
fn packs_that_no_segment_names_are_named_again_marked_ones_too() {
    let Two { repository, store, key, second, files, data, .. } = two();
    write_mark(&repository, &store, MarkKind::Packs(vec![data[0]]));
    for info in store.list("index").unwrap() {
        delete(&store, &info.path);
    }
    let report = repair(&repository, RepairTarget::Index);
    assert_eq!((report.segments_written, report.packs_indexed), (1, 4));
    assert_holds(&store, &key, &second, &files);
    assert_clean(&open(store.clone(), &key));
    assert_eq!(packs_of(&open(store.clone(), &key), &store, BlobKind::Tree).len(), 2);
}

#[test]
fn a_pack_that_a_segment_tells_lies_about_is_stored_anew() {
    let Two { repository, store, key, second, files, data, .. } = two();
    let lie = store.list("index").unwrap().iter().find_map(|info| {
        let bytes = store.read_all(&info.path, u64::MAX).unwrap();
        let payload = envelope::unseal(ObjectKind::Segment, repository.id(), &keys(&key), &bytes);
        let mut segment = Segment::decode(&payload.unwrap()).unwrap();
        segment.packs.retain(|pack| pack.id == data[0]);
        segment.packs.first_mut()?.contents.ids[0] = BlobId::from_bytes([7; 32]);
        Some(segment)
    });
    write_segment(&repository, &store, &lie.unwrap());
    let planned = plan(&repository, RepairTarget::Index);
    assert_eq!(planned.findings.len(), 1);
    assert!(planned.findings[0].message.contains("contradicts"), "{:?}", planned.findings);
    let report = repair(&repository, RepairTarget::Index);
    assert!(report.packs_marked == 1 && report.blobs_saved > 20, "{report:?}");
    assert!(!plan(&repository, RepairTarget::Index).has_steps());
    delete(&store, &pack_path(&data[0]));
    assert_holds(&store, &key, &second, &files);
}

#[test]
fn a_damaged_segment_is_stood_for_and_its_tombstones_do_no_harm() {
    let Two { repository, store, key, second, files, data, .. } = two();
    let tombstones = Segment { tombstones: vec![data[0]], ..Segment::default() };
    let buried = write_segment(&repository, &store, &tombstones);
    delete(&store, &pack_path(&data[0]));
    assert!(store.damage(&buried, |bytes| bytes[70] ^= 1));
    assert!(matches!(open(store.clone(), &key).load_index(), Err(Error::Damaged { .. })));
    // On a storage whose packs are not listed by every backup, only a mark keeps writers from what is gone.
    let report = repair(&repository, RepairTarget::Index);
    assert_eq!((report.segments_written, report.packs_indexed, report.packs_marked), (1, 0, 1));
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let writer = open(store.clone().with_capabilities(remote), &key);
    let again = back_up(&writer, &files).unwrap();
    assert_holds(&store, &key, &again, &files);
    assert_holds(&store, &key, &second, &files);
}

#[test]
fn a_page_that_is_lost_takes_its_entries_with_it_and_nothing_else() {
    let Two { repository, store, key, second, files, trees, .. } = two();
    // The second snapshot has a pack of pages of its own; that of the first has none that the second needs.
    delete(&store, &pack_path(&trees[0]));
    repair(&repository, RepairTarget::Packs);
    let report = repair(&repository, RepairTarget::Snapshots);
    assert_eq!(report.snapshots_written.len(), 1);
    assert_holds(&store, &key, &second, &files);
    let (_, new) = report.snapshots_written[0];
    let snapshot = repository.read_snapshot(&new).unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), Files::new());
    assert_eq!(snapshot.incidents[0].path, b"/");
    assert_clean_but_for_warnings(&open(store, &key));
}

#[test]
fn an_original_stays_unless_it_is_to_be_forgotten_and_is_not_written_twice() {
    let Two { repository, store, data, .. } = two();
    delete(&store, &pack_path(&data[1]));
    repair(&repository, RepairTarget::Packs);
    let keep = RepairOptions::new(RepairTarget::Snapshots);
    let run = |options: &RepairOptions| {
        let plan = repository.plan_repair(options, &()).unwrap();
        repository.repair(&plan, options, &()).unwrap()
    };
    let ids = || -> Vec<SnapshotId> {
        let all = repository.snapshots(&SnapshotFilter::default()).unwrap();
        all.into_iter().map(|stored| stored.id).collect()
    };
    let before = ids();
    let report = run(&keep);
    assert_eq!((report.snapshots_written.len(), report.snapshots_forgotten), (1, 0));
    assert!(before.iter().all(|id| ids().contains(id)) && ids().len() == 3);
    assert_eq!(run(&keep), RepairReport::default(), "once is enough");
    let report = run(&options(RepairTarget::Snapshots));
    assert_eq!((report.snapshots_written.len(), report.snapshots_forgotten), (0, 1));
    assert_eq!(ids().len(), 2);
}

#[test]
fn without_reading_data_only_what_a_listing_shows_is_found() {
    let Two { repository, store, data, .. } = two();
    assert!(store.damage(&pack_path(&data[0]), |bytes| bytes[60] ^= 1));
    delete(&store, &pack_path(&data[1]));
    let find = |read, packs: &[PackId]| {
        let packs = packs.to_vec();
        let options = RepairOptions { read, packs, ..RepairOptions::new(RepairTarget::Packs) };
        repository.plan_repair(&options, &()).unwrap().findings.len()
    };
    assert_eq!(find(ReadData::No, &[]), 1);
    assert_eq!(find(ReadData::All, &[]), 2);
    assert_eq!(find(ReadData::All, &[data[0]]), 2);
    let other = packs_of(&open(store.clone(), &repository.export_key()), &store, BlobKind::Tree)[0];
    assert_eq!(find(ReadData::All, &[other]), 1);
}

#[test]
fn where_requests_are_far_and_there_are_no_locks_it_ends_the_same_way() {
    let Two { store, key, files, data, trees, .. } = two();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let store = store.with_capabilities(remote);
    let folder = tempfile::tempdir().unwrap();
    let machine = directories(folder.path());
    // This machine keeps pages and small objects that the storage is about to lose.
    let third = back_up(&open_with(store.clone(), &key, &machine), &files).unwrap();
    assert!(store.damage(&pack_path(&data[1]), |bytes| bytes[60] ^= 1));
    delete(&store, &pack_path(&trees[0]));
    let segment = store.list("index").unwrap().remove(1).path;
    assert!(store.damage(&segment, |bytes| bytes[70] ^= 1));
    let slot = store.list("keys").unwrap().remove(0).path;
    assert!(store.damage(&slot, |bytes| bytes[70] ^= 1));
    let reports = ALL.map(|target| repair(&open_with(store.clone(), &key, &machine), target));
    assert_eq!(reports[0].objects_written, 1);
    // The pack of pages is marked by then, or no segment names it.
    assert_eq!(reports[1].packs_marked, 1);
    assert_eq!(reports[2].snapshots_written.len(), 3);
    let repository = open(store.clone(), &key);
    for target in ALL {
        assert!(!plan(&repository, target).has_steps(), "{target:?}");
    }
    assert_eq!(check(&repository).damages, []);
    let (_, new) = reports[2].snapshots_written.iter().find(|(old, _)| *old == third.id).unwrap();
    let left = contents(&repository, &repository.read_snapshot(new).unwrap()).unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["b", "folder/a"]);
    let again = back_up(&open_with(store.clone(), &key, &machine), &files).unwrap();
    assert_holds(&store, &key, &again, &files);
}

#[test]
fn a_pack_that_is_listed_and_not_found_for_a_while_is_left_alone() {
    let Two { store, key, data, trees, .. } = two();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    for pack in data.iter().chain(&trees) {
        for reads in [1, 2, 3, u64::MAX] {
            let fork = store.fork().with_capabilities(remote);
            let faulty = FaultyStore::new(Arc::new(fork.clone()), 1);
            let opened = open(faulty.clone(), &key);
            faulty.deny_reads(&pack_path(pack), reads);
            let options = RepairOptions {
                read: ReadData::All,
                packs: vec![*pack],
                ..RepairOptions::new(RepairTarget::Packs)
            };
            let plan = opened.plan_repair(&options, &()).unwrap();
            assert!(!plan.has_steps(), "{reads} reads: {:?}", plan.findings);
            assert!(faulty.failure_count() > 0);
        }
    }
}

#[test]
fn a_repair_that_broke_at_any_request_loses_nothing_and_the_next_one_ends_it() {
    let Two { repository, store, key, files, data, .. } = two();
    assert!(store.damage(&pack_path(&data[0]), |bytes| bytes[60] ^= 1));
    let segment = store.list("index").unwrap().remove(0).path;
    assert!(store.damage(&segment, |bytes| bytes[70] ^= 1));
    let copy = store.list("copies").unwrap().remove(0).path;
    delete(&store, &copy);
    drop(repository);
    let points = AtomicU64::new(0);
    let run = |store: Arc<dyn Store>| -> Result<(), Error> {
        let opened = Repository::open_with_exported_key(store, &key, &Default::default())?;
        for target in ALL {
            let plan = opened.plan_repair(&options(target), &())?;
            opened.repair(&plan, &options(target), &())?;
        }
        Ok(())
    };
    let break_at_each = |variant: u64| {
        for number in (1 + variant..).step_by(4) {
            let fork = store.fork();
            let faulty = FaultyStore::new(Arc::new(fork.clone()), number);
            faulty.plant(match variant {
                0 => Fault::before(Calls::Any, number),
                1 => Fault::after(Calls::Any, number),
                2 => Fault::before(Calls::Any, number).crashing(),
                _ => Fault::after(Calls::Any, number).crashing(),
            });
            let what = format!("request {number}, fault {variant}");
            let broken = run(Arc::new(faulty.clone()));
            if faulty.failure_count() == 0 {
                broken.unwrap();
                return;
            }
            points.fetch_add(1, Ordering::Relaxed);
            run(Arc::new(fork.clone()))
                .unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
            let opened = open(fork.clone(), &key);
            let report = check(&opened);
            assert_eq!(report.damages, [], "{what}");
            let all = opened.snapshots(&SnapshotFilter::default()).unwrap();
            assert_eq!(all.len(), 2, "{what}");
            let [first, last] = [0, 1].map(|at| contents(&opened, &all[at].snapshot).unwrap());
            let (first, last) = if first.is_empty() { (first, last) } else { (last, first) };
            assert_eq!(first, Files::new(), "{what}");
            let saved: Vec<&str> = last.keys().map(String::as_str).collect();
            assert_eq!(saved, ["folder/c", "z/d"], "{what}");
            assert!(last.iter().all(|(name, bytes)| files[name] == *bytes), "{what}");
            let again = back_up(&opened, &files).unwrap();
            assert_holds(&fork, &key, &again, &files);
        }
    };
    std::thread::scope(|scope| {
        for variant in 0..4 {
            let break_at_each = &break_at_each;
            scope.spawn(move || break_at_each(variant));
        }
    });
    let points = points.into_inner();
    println!("{points} points");
    assert!(points > 100, "{points}");
}

#[test]
fn every_hurt_snapshot_is_named_and_counted_where_the_list_of_damages_is_cut() {
    let (repository, store, key) = repository();
    let mut all: Files =
        (0..60).map(|number| (format!("{number:02}"), noise(number, 100_000))).collect();
    let first = back_up(&repository, &all).unwrap();
    all.insert("more".to_owned(), b"more".to_vec());
    let second = back_up(&repository, &all).unwrap();
    let repository = open(store.clone(), &key);
    let data = packs_of(&repository, &store, BlobKind::Data)[0];
    // No segment names the data of the first any more.
    for info in store.list("index").unwrap() {
        let bytes = store.read_all(&info.path, u64::MAX).unwrap();
        let payload = envelope::unseal(ObjectKind::Segment, repository.id(), &keys(&key), &bytes);
        let mut segment = Segment::decode(&payload.unwrap()).unwrap();
        segment.packs.retain(|pack| pack.id != data);
        delete(&store, &info.path);
        write_segment(&repository, &store, &segment);
    }
    let report = check(&open(store.clone(), &key));
    assert_eq!(report.damages.len(), 1000);
    assert!(report.damages_total > 1000, "{}", report.damages_total);
    assert!(report.damages.iter().all(|damage| damage.hurts_total == 1 && !damage.hurts_at_least));
    let named: BTreeSet<(SnapshotId, u64, u64)> =
        report.hurt_snapshots.iter().map(|hurt| (hurt.id, hurt.files, hurt.directories)).collect();
    assert_eq!(named, BTreeSet::from([(first.id, 60, 0), (second.id, 60, 0)]));
}

#[test]
fn what_an_interrupted_init_left_is_not_damage_and_is_not_brought_to_life() {
    let shared = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let store = MemoryStore::new().with_capabilities(shared);
    // Slot, its copy, the copy of the configuration; then it breaks.
    let faulty = FaultyStore::new(Arc::new(store.clone()), 1);
    faulty.plant(Fault::before(Calls::Only(Call::Write), 4).crashing());
    assert!(init(Arc::new(faulty)).is_err());
    assert_eq!(store.list("copies").unwrap().len(), 2);
    assert_eq!(store.list("config").unwrap(), []);
    let made = init(Arc::new(store.clone())).unwrap();
    let files = files([("a", noise(1, 50_000).as_slice())]);
    let stored = back_up(&made, &files).unwrap();
    let key = made.export_key().to_string();
    let report = check(&open(store.clone(), &key));
    assert_eq!(report.damages, []);
    let of_other = |text: &&String| text.contains("belongs to another repository");
    assert_eq!(report.warnings.iter().filter(of_other).count(), 3, "{:?}", report.warnings);
    assert_eq!(report.warnings.len(), 3, "{:?}", report.warnings);
    let before = store.paths();
    for target in [RepairTarget::Index, RepairTarget::Packs, RepairTarget::Snapshots] {
        repair(&open(store.clone(), &key), target);
        assert_eq!(store.paths(), before);
    }
    // The password opens the repository that is there, whichever slot is tried first.
    for _ in 0..4 {
        let opened =
            Repository::open(Arc::new(store.clone()), &password(), &Machine::default()).unwrap();
        assert_eq!(opened.id(), made.id());
    }
    assert_holds(&store, &key, &stored, &files);
}

fn snapshot_path(id: &SnapshotId) -> ObjectPath {
    ObjectPath::new(&format!("snapshots/{id}")).unwrap()
}

#[test]
fn a_snapshot_that_a_newer_program_wrote_stays_and_is_named() {
    let Two { repository, store, key, second, files, .. } = two();
    let mut payload = second.snapshot.encode();
    // The version: the first key of the map is 0.
    assert_eq!(payload[1..3], [0, 1]);
    payload[2] = 2;
    let newer = write_snapshot(&repository, &store, 1, &payload);
    let broken = back_up(&repository, &files).unwrap();
    assert!(store.damage(&snapshot_path(&broken.id), |bytes| bytes[60] ^= 1));
    for forget in [false, true] {
        let options = RepairOptions { forget, ..RepairOptions::new(RepairTarget::Snapshots) };
        let plan = repository.plan_repair(&options, &()).unwrap();
        assert_eq!(plan.findings.len(), 2, "{:?}", plan.findings);
        let finding = plan.findings.iter().find(|it| it.object == newer.to_string()).unwrap();
        assert_eq!(finding.remedy, None);
        assert!(finding.message.contains("newer version"), "{finding:?}");
        assert!(finding.hint.as_ref().unwrap().contains("update"), "{finding:?}");
        let other = plan.findings.iter().find(|it| it.object != newer.to_string()).unwrap();
        assert_eq!((other.remedy.is_some(), &other.hint), (forget, &None), "{other:?}");
        let report = repository.repair(&plan, &options, &()).unwrap();
        assert_eq!(report.snapshots_forgotten, u64::from(forget));
    }
    assert!(store.paths().contains(&newer));
    let findings = plan(&open(store, &key), RepairTarget::Snapshots).findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].object, newer.to_string());
}

#[test]
fn a_snapshot_under_a_key_that_this_run_lacks_ends_the_repair() {
    let Two { repository, store, second, .. } = two();
    let path = write_snapshot(&repository, &store, 2, &second.snapshot.encode());
    let marks = store.list("marks").unwrap();
    for forget in [false, true] {
        let options = RepairOptions { forget, ..RepairOptions::new(RepairTarget::Snapshots) };
        match repository.plan_repair(&options, &()) {
            Err(Error::KeysRotated { object, .. }) => assert_eq!(object, path.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.list("marks").unwrap(), marks);
}

#[test]
fn a_single_wrong_answer_or_a_storage_that_is_away_for_a_while_forgets_no_snapshot() {
    let Two { repository, store, key, second, .. } = two();
    drop(repository);
    let run = |store: Arc<dyn Store>| -> Result<RepairReport, Error> {
        let opened = Repository::open_with_exported_key(store, &key, &Default::default())?;
        let options = options(RepairTarget::Snapshots);
        let plan = opened.plan_repair(&options, &())?;
        opened.repair(&plan, &options, &())
    };
    let flipping = FaultyStore::new(Arc::new(store.fork()), 1);
    flipping.flip_reads(&snapshot_path(&second.id), 1);
    assert_eq!(run(Arc::new(flipping)).unwrap(), RepairReport::default());
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let mut ended = 0;
    for (status, is_remote) in
        [(Status::Exhausted, false), (Status::Exhausted, true), (Status::Permanent, true)]
    {
        for number in 1.. {
            let fork = store.fork();
            let fork = if is_remote { fork.with_capabilities(remote) } else { fork };
            let faulty = FaultyStore::new(Arc::new(fork.clone()), 1);
            for number in number..number + 5 {
                let fault = Fault::before(Calls::Only(Call::ReadAll), number);
                faulty.plant(fault.with_error(ErrorKind::Other, status));
            }
            let result = run(Arc::new(faulty.clone()));
            let what = format!("request {number}, {status:?}: {result:?}");
            ended += u64::from(result.is_err());
            if let Ok(report) = result {
                assert_eq!(report.snapshots_forgotten, 0, "{what}");
            }
            let opened = open(fork, &key);
            assert_eq!(opened.forgotten().unwrap(), [], "{what}");
            assert_eq!(opened.snapshots(&SnapshotFilter::default()).unwrap().len(), 2, "{what}");
            if faulty.failure_count() == 0 {
                break;
            }
        }
    }
    assert!(ended > 10, "{ended}");
}

#[test]
fn a_snapshot_that_can_be_read_again_is_not_forgotten_by_an_older_plan() {
    let Two { repository, store, key, second, files, .. } = two();
    let third = back_up(&repository, &files).unwrap();
    for id in [second.id, third.id] {
        assert!(store.damage(&snapshot_path(&id), |bytes| bytes[60] ^= 1));
    }
    let repository = open(store.clone(), &key);
    let plan = plan(&repository, RepairTarget::Snapshots);
    assert_eq!(plan.findings.len(), 2);
    assert!(store.damage(&snapshot_path(&third.id), |bytes| bytes[60] ^= 1));
    let report = repository.repair(&plan, &options(RepairTarget::Snapshots), &()).unwrap();
    assert_eq!(report.snapshots_forgotten, 1);
    assert_holds(&store, &key, &third, &files);
    let shown = open(store, &key).snapshots(&SnapshotFilter::default()).unwrap();
    assert_eq!(shown.len(), 2);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_forgotten_where_the_list_of_damages_is_cut() {
    let Two { repository, store, key, second, .. } = two();
    // More packs than damages are listed are gone, and nobody needs them.
    let template = store.list("index").unwrap().iter().find_map(|info| {
        let bytes = store.read_all(&info.path, u64::MAX).unwrap();
        let payload = envelope::unseal(ObjectKind::Segment, repository.id(), &keys(&key), &bytes);
        Segment::decode(&payload.unwrap()).unwrap().packs.pop()
    });
    let template = template.unwrap();
    let mut packs: Vec<SegmentPack> = (0..1100_u64)
        .map(|number| {
            let id = PackId::of_stored(&number.to_le_bytes());
            SegmentPack { id, ..template.clone() }
        })
        .collect();
    packs.sort_by_key(|pack| pack.id);
    write_segment(&repository, &store, &Segment { packs, ..Segment::default() });
    assert!(store.damage(&snapshot_path(&second.id), |bytes| bytes[60] ^= 1));
    let repository = open(store.clone(), &key);
    let keep = RepairOptions::new(RepairTarget::Snapshots);
    let planned = repository.plan_repair(&keep, &()).unwrap();
    assert_eq!(planned.findings_without_remedy, 1, "{:?}", planned.findings);
    assert_eq!(planned.findings[0].object, snapshot_path(&second.id).to_string());
    assert_eq!(repair(&repository, RepairTarget::Snapshots).snapshots_forgotten, 1);
}

#[test]
fn a_repaired_snapshot_is_no_copy_any_more() {
    let (repository, store, key) = repository();
    let original = Original {
        repository: RepositoryId::from_bytes([1; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
    };
    let backup = repository.begin_backup(None, 1).unwrap();
    let root = put_tree(&backup, &files([("a", &noise(1, 50_000)[..]), ("b", &[1; 50])])).unwrap();
    let mut draft = draft(root);
    draft.unknown.push((64, vec![0]));
    original.put_into(&mut draft.unknown);
    let copy = backup.commit(draft).unwrap();
    backup.finish().unwrap();
    assert_eq!(copy.snapshot.original(), Some(original));
    let data = packs_of(&open(store.clone(), &key), &store, BlobKind::Data);
    data.iter().for_each(|pack| delete(&store, &pack_path(pack)));
    let report = repair(&open(store.clone(), &key), RepairTarget::Snapshots);
    let repaired = open(store, &key).read_snapshot(&report.snapshots_written[0].1).unwrap();
    assert_eq!(repaired.original(), None);
    assert!(repaired.unknown.contains(&(64, vec![0])), "others stay");
    assert_eq!(repaired.made().rewrites, 1);
}

#[test]
fn a_tree_pack_that_is_listed_and_not_found_for_a_while_costs_no_snapshot_its_files() {
    let Two { store, key, trees, .. } = two();
    let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
    let mut was_stopped = false;
    for pack in &trees {
        for reads in [1, 2, 3, u64::MAX] {
            let fork = store.fork().with_capabilities(remote);
            let faulty = FaultyStore::new(Arc::new(fork.clone()), 1);
            let opened = open(faulty.clone(), &key);
            faulty.deny_reads(&pack_path(pack), reads);
            match opened.plan_repair(&options(RepairTarget::Snapshots), &()) {
                Ok(plan) => assert!(!plan.has_steps(), "{reads}: {:?}", plan.findings),
                Err(error) => {
                    assert!(!error.is_damage(), "{}", describe(&error));
                    assert!(describe(&error).contains(&pack.to_string()), "{}", describe(&error));
                    was_stopped = true;
                }
            }
            assert!(faulty.failure_count() > 0);
        }
    }
    assert!(was_stopped);
}

#[test]
fn a_repair_of_snapshots_stops_where_other_things_are_lost_than_were_planned() {
    let Two { store, key, data, trees, .. } = two();
    let opened = open(store.clone(), &key);
    delete(&store, &pack_path(&data[0]));
    let plan = plan(&opened, RepairTarget::Snapshots);
    assert!(plan.has_steps());
    let before = store.list("snapshots").unwrap();
    trees.iter().for_each(|pack| delete(&store, &pack_path(pack)));
    let later = open(store.clone(), &key);
    let error = later.repair(&plan, &options(RepairTarget::Snapshots), &()).unwrap_err();
    assert!(matches!(error, Error::LostChanged { .. }), "{}", describe(&error));
    assert_eq!(store.list("snapshots").unwrap(), before);
    assert_eq!(store.list("marks").unwrap(), []);
}
