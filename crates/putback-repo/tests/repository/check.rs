//! Checks: what is read, what is damage, and what is only a storage that cannot be asked.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use putback_format::id::{PackId, WriterId};
use putback_format::key::BlobKind;
use putback_format::mark::{ForgottenSnapshot, MarkKind};
use putback_format::pack::TRAILER_BYTES;
use putback_repo::{
    CheckOptions, CheckReport, Error, ReadData, RepairOptions, RepairTarget, Repository,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Error as StoreError, ErrorKind, ObjectPath, Operation, Status, Store};

use crate::hooked::Hooked;
use crate::support::*;

/// One snapshot of 30 files of 100 kB, and the one pack of their data: frames of 1 MiB.
struct Fixture {
    store: MemoryStore,
    key: String,
    files: Files,
    pack: PackId,
    path: ObjectPath,
}

fn fixture() -> Fixture {
    let (repository, store, key) = repository();
    let files: Files =
        (0..30).map(|number| (format!("{number:02}"), noise(number, 100_000))).collect();
    back_up(&repository, &files).unwrap();
    let repository = open(store.clone(), &key);
    repository.load_index().unwrap();
    let is_data = |number| repository.pack(number).unwrap().kind == BlobKind::Data;
    let mut packs = repository.index().packs().into_iter().filter(|(number, _)| is_data(*number));
    let (_, pack) = packs.next().unwrap();
    assert!(packs.next().is_none());
    let path = ObjectPath::new(&format!("packs/{pack}")).unwrap();
    Fixture { store, key, files, pack, path }
}

impl Fixture {
    /// A store in which the data pack is other than it was, to its listing too.
    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> MemoryStore {
        let store = self.store.fork();
        let mut bytes = store.read_all(&self.path, u64::MAX).unwrap();
        change(&mut bytes);
        delete(&store, &self.path);
        store.write(&self.path, &bytes).unwrap();
        store
    }

    fn check(&self, store: &MemoryStore, read: ReadData) -> CheckReport {
        let options = CheckOptions { read, workers: 1, ..CheckOptions::default() };
        open(store.clone(), &self.key).check(&options, &()).unwrap()
    }
}

fn hurt_files(report: &CheckReport) -> u64 {
    report.hurt_snapshots.iter().map(|hurt| hurt.files).sum()
}

#[test]
fn a_pack_that_is_listed_as_another_is_read_and_what_it_lost_is_named() {
    let fixture = fixture();
    let size = fixture.store.stat(&fixture.path).unwrap().size as usize;
    type Harm<'a> = &'a dyn Fn(&mut Vec<u8>);
    let harms: [(&str, Harm<'_>, Range<u64>); 6] = [
        ("longer garbage", &|bytes| *bytes = noise(7, size + 9), 30..31),
        ("garbage of the same size", &|bytes| *bytes = noise(7, size), 30..31),
        ("longer", &|bytes| bytes.push(0), 0..1),
        ("longer, and one frame is bad", &|bytes| (bytes[60] ^= 1, bytes.push(0)).1, 9..14),
        ("cut in its last frame", &|bytes| bytes.truncate(2_500_000), 7..12),
        (
            "cut there, and its first frame is bad",
            &|bytes| (bytes[60] ^= 1, bytes.truncate(2_500_000)).1,
            18..24,
        ),
    ];
    for (how, harm, expected) in harms {
        let store = fixture.with(harm);
        let subset = ReadData::Bytes(1);
        for read in [ReadData::All, subset] {
            let report = fixture.check(&store, read);
            let hurt = hurt_files(&report);
            assert!(expected.contains(&hurt), "{how}: {hurt}, {:?}", report.damages);
            let first = &report.damages[0];
            let is_named = first.object == fixture.path.as_str() && first.hurts_total == hurt;
            assert!(is_named, "{how}: {first:?}");
            assert!(!first.message.contains("do not match its name"), "{how}: {first:?}");
        }
        // Without reading it is said that the pack is damaged, and no more than the listing shows.
        let report = fixture.check(&store, ReadData::No);
        assert_eq!(report.damages.len(), 1, "{how}");
        assert!(report.packs_read == 0 && hurt_files(&report) <= expected.end, "{how}");

        let repository = open(store.clone(), &fixture.key);
        let none = RepairOptions::new(RepairTarget::Packs);
        let named = RepairOptions { packs: vec![PackId::from_bytes([7; 32])], ..none.clone() };
        for options in [none.clone(), named, RepairOptions { read: ReadData::No, ..none.clone() }] {
            let plan = repository.plan_repair(&options, &()).unwrap();
            let finding = &plan.findings[0];
            assert_eq!(plan.findings.len(), 1, "{how}");
            assert_eq!(finding.object, fixture.path.as_str());
            assert!(expected.contains(&finding.hurts_total), "{how}: {finding:?}");
            let is_lost = plan.blobs_lost > 0;
            assert_eq!((is_lost, !plan.hurt_snapshots.is_empty()), (expected.start > 0, is_lost));
        }
        let plan = repository.plan_repair(&none, &()).unwrap();
        let report = repository.repair(&plan, &none, &()).unwrap();
        let blobs = 30 * 100_000_u64.div_ceil(4096);
        assert_eq!((report.blobs_saved + plan.blobs_lost, report.packs_marked), (blobs, 1));
        let again = back_up(&open(store.clone(), &fixture.key), &fixture.files).unwrap();
        assert_holds(&store, &fixture.key, &again, &fixture.files);
    }
}

#[test]
fn a_bad_sector_hurts_the_frame_that_it_is_in_and_no_other() {
    let Fixture { store, key, path, pack, .. } = fixture();
    let bad_sector = Hooked::new(&store, move |call, at, range| {
        match call == Call::Read && at == path.as_str() && range.contains(&1_500_000) {
            true => Err(StoreError::new(ErrorKind::Other, Operation::Read, at)),
            false => Ok(()),
        }
    });
    let report = check(&open(bad_sector, &key));
    let bad: Vec<&str> = report.damages.iter().map(|damage| damage.object.as_str()).collect();
    assert_eq!(bad, [format!("frame 1 of packs/{pack}")]);
    assert!((9..14).contains(&hurt_files(&report)), "{:?}", report.hurt_snapshots);
}

/// What a storage answers that cannot be asked: none of it says anything of an object.
const NOT_ABOUT_OBJECTS: [(ErrorKind, Status); 4] = [
    (ErrorKind::Other, Status::Exhausted),
    (ErrorKind::Other, Status::Temporary),
    (ErrorKind::Unauthorized, Status::Permanent),
    (ErrorKind::RateLimited, Status::Permanent),
];

/// Runs something on a store that goes away before each of its requests, one after the other.
fn go_away(
    key: &str,
    store: &MemoryStore,
    work: impl Fn(&Repository) -> Result<Vec<String>, Error>,
) {
    for (kind, status) in NOT_ABOUT_OBJECTS {
        for number in 1.. {
            let faulty = FaultyStore::new(Arc::new(store.fork()), 1);
            let repository = open(faulty.clone(), key);
            faulty.plant(Fault::before(Calls::Any, number).with_error(kind, status).lasting());
            let done = work(&repository);
            if faulty.failure_count() == 0 {
                assert!(number > 15 && done.is_ok(), "{number}: {done:?}");
                break;
            }
            let is_told = matches!(
                &done,
                Err(Error::Store(error)) if (error.kind, error.status) == (kind, status)
            );
            assert!(is_told, "{kind:?}, {status:?}, request {number}: {done:?}");
        }
    }
}

#[test]
fn a_storage_that_goes_away_ends_a_check_with_its_error_and_is_not_called_damaged() {
    let fixture = crate::damage::fixture();
    for read in [ReadData::No, ReadData::All] {
        go_away(&fixture.key, &fixture.store, |repository| {
            let options = CheckOptions { read, workers: 1, ..CheckOptions::default() };
            let report = repository.check(&options, &())?;
            assert_eq!((report.damages_total, report.hurt_snapshots.len()), (0, 0));
            Ok(report.warnings)
        });
    }
}

#[test]
fn a_storage_that_goes_away_makes_no_repair_of_what_is_whole() {
    let fixture = crate::damage::fixture();
    for target in [RepairTarget::Index, RepairTarget::Packs, RepairTarget::Snapshots] {
        go_away(&fixture.key, &fixture.store, |repository| {
            let options = RepairOptions::new(target);
            let plan = repository.plan_repair(&options, &())?;
            assert!(!plan.has_steps(), "{target:?}: {:?}", plan.findings);
            Ok(Vec::new())
        });
    }
}

#[test]
fn what_was_found_before_the_storage_went_away_is_told() {
    let fixture = fixture();
    let store = fixture.with(|bytes| bytes.push(0));
    let faulty = FaultyStore::new(Arc::new(store), 1);
    let repository = open(faulty.clone(), &fixture.key);
    let options = CheckOptions { read: ReadData::All, workers: 1, ..CheckOptions::default() };
    let before = faulty.request_count();
    assert_eq!(repository.check(&options, &()).unwrap().damages.len(), 1);
    let (lost, gone) = (ErrorKind::Other, Status::Exhausted);
    let number = faulty.request_count() - before;
    faulty.plant(Fault::before(Calls::Any, number).with_error(lost, gone).lasting());
    let error = repository.check(&options, &()).unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{}", describe(&error));
    let warnings = repository.take_warnings();
    let is_told = |warning: &String| warning.contains(&fixture.pack.to_string());
    assert!(warnings.iter().any(is_told), "{warnings:?}");
}

#[test]
fn a_pack_that_the_storage_does_not_hand_out_keeps_no_other_from_being_read() {
    let Fixture { store, key, pack, .. } = fixture();
    let repository = open(store.clone(), &key);
    back_up(&repository, &files([("more", noise(99, 100_000).as_slice())])).unwrap();
    let repository = open(store.clone(), &key);
    repository.load_index().unwrap();
    let is_data = |number| repository.pack(number).unwrap().kind == BlobKind::Data;
    let packs = repository.index().packs();
    let is_other = |(number, id): &(_, PackId)| *id != pack && is_data(*number);
    let other = packs.into_iter().find(is_other).unwrap().1;
    for (withheld, damaged) in [(pack, other), (other, pack)] {
        let store = store.fork();
        let path = ObjectPath::new(&format!("packs/{damaged}")).unwrap();
        assert!(store.damage(&path, |bytes| bytes[100] ^= 1));
        let withheld = format!("packs/{withheld}");
        let path = withheld.clone();
        let hooked =
            Hooked::new(&store, move |call, at, _| match call == Call::Read && at == path {
                true => Err(StoreError::new(ErrorKind::Other, Operation::Read, at)
                    .with_status(Status::Temporary)),
                false => Ok(()),
            });
        let repository = open(hooked, &key);
        let options = CheckOptions { read: ReadData::All, workers: 1, ..CheckOptions::default() };
        let error = repository.check(&options, &()).unwrap_err();
        assert!(describe(&error).contains(&withheld), "{}", describe(&error));
        let warnings = repository.take_warnings();
        for told in [withheld, format!("frame 0 of packs/{damaged}")] {
            assert!(warnings.iter().any(|warning| warning.contains(&told)), "{told}: {warnings:?}");
        }
    }
}

/// Writes bytes under the name that they promise.
fn write_named(store: &MemoryStore, folder: &str, bytes: &[u8]) -> ObjectPath {
    let path = ObjectPath::new(&format!("{folder}/{}", blake3::hash(bytes).to_hex())).unwrap();
    store.write(&path, bytes).unwrap();
    path
}

#[test]
fn what_a_newer_program_wrote_is_not_called_damaged() {
    let fixture = fixture();
    for folder in ["index", "marks"] {
        let store = fixture.store.fork();
        let repository = open(store.clone(), &fixture.key);
        let mark = write_mark(&repository, &store, MarkKind::Packs(vec![fixture.pack]));
        let known = store.list(folder).unwrap().remove(0).path;
        let mut bytes = store.read_all(&known, u64::MAX).unwrap();
        // The version of sealed objects.
        bytes[5] += 1;
        let newer = write_named(&store, folder, &bytes);
        delete(&store, &mark);
        let options = CheckOptions { workers: 1, ..CheckOptions::default() };
        let error = repository.check(&options, &()).unwrap_err();
        let is_told =
            matches!(&error, Error::NewerFormat { object, .. } if object == newer.as_str());
        assert!(is_told, "{folder}: {}", describe(&error));
    }
    // The other snapshots are checked.
    let store = fixture.store.fork();
    let known = store.list("snapshots").unwrap().remove(0).path;
    let mut bytes = store.read_all(&known, u64::MAX).unwrap();
    bytes[5] += 1;
    let newer = write_named(&store, "snapshots", &bytes);
    let report = check(&open(store.clone(), &fixture.key));
    assert_eq!(report.damages, []);
    assert_eq!(report.snapshots as usize + 1, store.list("snapshots").unwrap().len());
    assert!(matches!(report.newer_snapshots.as_slice(), [id] if newer.name() == id.to_string()));
    assert!(report.warnings.iter().any(|text| text.contains(newer.name())), "{report:?}");
    let repository = open(store.clone(), &fixture.key);
    let snapshot = report.newer_snapshots[0];
    let record = ForgottenSnapshot { snapshot, writer: WriterId::from_bytes([9; 16]), sequence: 1 };
    write_mark(&repository, &store, MarkKind::Forget(vec![record]));
    let report = check(&repository);
    assert_eq!((report.damages.as_slice(), report.newer_snapshots.as_slice()), (&[][..], &[][..]));
    assert!(report.warnings.iter().any(|text| text.ends_with("it is forgotten")), "{report:?}");
    // Nothing depends on a slot that others open, and on a pack that no segment names.
    let store = fixture.store.fork();
    let row = store.list("keys").unwrap().remove(0);
    let mut bytes = store.read_all(&row.path, u64::MAX).unwrap();
    bytes[5] += 1;
    let slot = write_named(&store, "keys", &bytes);
    let copy = ObjectPath::new(&format!("copies/keys-{}", slot.name())).unwrap();
    store.write(&copy, &bytes).unwrap();
    let mut bytes = store.read_all(&fixture.path, u64::MAX).unwrap();
    // Behind the magic number of the trailer.
    let version = bytes.len() - TRAILER_BYTES + 8;
    bytes[version] += 1;
    write_named(&store, "packs", &bytes);
    let report = check(&open(store.clone(), &fixture.key));
    assert_eq!((report.damages.as_slice(), report.unreferenced_packs), (&[][..], 1));
    assert!(report.warnings.iter().any(|text| text.contains(slot.name())), "{report:?}");
}

#[test]
fn a_pack_whose_version_or_epoch_has_rotted_is_damaged_and_can_be_repaired() {
    let fixture = fixture();
    let size = fixture.store.stat(&fixture.path).unwrap().size as usize;
    for position in size - TRAILER_BYTES..size {
        let store = fixture.store.fork();
        assert!(store.damage(&fixture.path, |bytes| bytes[position] ^= 0x40));
        let repository = open(store.clone(), &fixture.key);
        assert!(!check(&repository).damages.is_empty());
        for target in [RepairTarget::Index, RepairTarget::Packs] {
            let plan = repository.plan_repair(&RepairOptions::new(target), &());
            let plan = plan.unwrap_or_else(|error| panic!("{position}: {}", describe(&error)));
            let found: BTreeSet<&str> =
                plan.findings.iter().map(|finding| finding.object.as_str()).collect();
            assert_eq!(found, BTreeSet::from([fixture.path.as_str()]), "{position}, {target:?}");
        }
    }
}
