//! Damage of every kind to every object: it is always found, and never restored.
//!
//! The repository has every kind of object, about 256 KiB together. As a rule, every byte of objects up
//! to 4 KiB is flipped, and objects up to 1 KiB are cut at every length; of larger ones about 500
//! positions are taken, beginning at a place that the seed gives, so that runs differ. Every case is
//! checked, one in eight is restored too. `PUTBACK_EXHAUSTIVE=1` takes every byte and every length of
//! all objects, and restores each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use putback_format::id::{PackId, SnapshotId, WriterId};
use putback_format::mark::{ForgottenSnapshot, MarkKind};
use putback_format::segment::Segment;
use putback_repo::{KdfCost, Password, Repository, SlotOwner};
use putback_store::memory::MemoryStore;
use putback_store::{ObjectPath, Store};

use crate::support::*;

/// Objects up to this size have every byte flipped.
const FLIPPED_BYTES: usize = 4 << 10;
/// Objects up to this size are cut at every length.
const CUT_BYTES: usize = 1 << 10;
/// Of larger objects, about this many positions are taken.
const POSITIONS_LARGE: usize = 500;
/// One of this many cases is also restored.
const RESTORE_EVERY: usize = 8;

/// What is done to an object.
#[derive(Clone, Debug)]
enum Case {
    Flip { path: ObjectPath, position: usize, bit: u8 },
    Cut { path: ObjectPath, length: usize },
    Extend { path: ObjectPath },
    Delete { path: ObjectPath },
    Swap { path: ObjectPath, other: ObjectPath },
    Duplicate { path: ObjectPath, name: ObjectPath },
}

/// A repository with every kind of object.
pub(crate) struct Fixture {
    pub(crate) store: MemoryStore,
    pub(crate) key: String,
    pub(crate) expected: BTreeMap<SnapshotId, Files>,
}

/// Makes it.
pub(crate) fn fixture() -> Fixture {
    let (repository, store, key) = repository();
    let other = Password::new(b"other".to_vec());
    for _ in 0..2 {
        repository.add_slot(&other, KdfCost::LOW, &SlotOwner::default()).unwrap();
    }
    let removed = repository.slots().unwrap().into_iter().find(|slot| !slot.is_current).unwrap();
    repository.remove_slot(&removed.id).unwrap();
    write_config(&repository, &store, 2);

    let mut first = files([("empty", &b""[..]), ("short", b"inline")]);
    // More chunks than an entry holds: list pages.
    first.insert(LONG.to_owned(), noise(1, 1100 * 36));
    first.insert("folder/random".to_owned(), noise(2, 20_000));
    first.insert("folder/text".to_owned(), b"compresses well ".repeat(3000));
    let mut second = first.clone();
    second.insert("folder/new".to_owned(), noise(3, 30_000));
    let mut expected = BTreeMap::new();
    expected.insert(back_up(&repository, &first).unwrap().id, first);
    expected.insert(back_up(&repository, &second).unwrap().id, second.clone());
    let backup = repository.begin_backup(None, 1).unwrap();
    second.insert("last".to_owned(), noise(4, 5000));
    let root = put_tree(&backup, &second).unwrap();
    let checkpoint = backup.commit(putback_repo::SnapshotDraft { complete: false, ..draft(root) });
    expected.insert(checkpoint.unwrap().id, second);
    backup.finish().unwrap();

    let absent = PackId::from_bytes([7; 32]);
    write_mark(&repository, &store, MarkKind::Packs(vec![absent]));
    let forgotten = ForgottenSnapshot {
        snapshot: SnapshotId::from_bytes([8; 32]),
        writer: WriterId::from_bytes([8; 16]),
        sequence: 1,
    };
    write_mark(&repository, &store, MarkKind::Forget(vec![forgotten]));
    let tombstones = Segment { tombstones: vec![absent], ..Segment::default() };
    write_segment(&repository, &store, &tombstones);
    Fixture { store, key, expected }
}

impl Fixture {
    /// Paths and sizes of all objects.
    fn objects(&self) -> Vec<(ObjectPath, usize)> {
        let size = |path: &ObjectPath| self.store.stat(path).unwrap().size as usize;
        self.store.paths().into_iter().map(|path| (path.clone(), size(&path))).collect()
    }

    /// What is seen after the case is done, and how it is undone.
    fn apply(store: &MemoryStore, case: &Case) {
        let damage = |path: &ObjectPath, change: &dyn Fn(&mut Vec<u8>)| {
            assert!(store.damage(path, change));
        };
        match case {
            Case::Flip { path, position, bit } => {
                damage(path, &|bytes| bytes[*position] ^= 1 << bit);
            }
            Case::Cut { path, length } => damage(path, &|bytes| bytes.truncate(*length)),
            Case::Extend { path } => damage(path, &|bytes| bytes.push(0)),
            Case::Delete { path } => delete(store, path),
            Case::Swap { path, other } => {
                let [first, second] = [path, other].map(|path| read(store, path));
                damage(path, &|bytes| bytes.clone_from(&second));
                damage(other, &|bytes| bytes.clone_from(&first));
            }
            Case::Duplicate { path, name } => {
                store.write(name, &read(store, path)).unwrap();
            }
        }
    }

    /// Asserts that the damage is found, and that nothing wrong is restored.
    fn check(&self, case: &Case, is_restored: bool) {
        let store = self.store.fork();
        Self::apply(&store, case);
        // The key is at hand, the configuration too: only what a check reads is damaged.
        let repository = match Repository::open_with_exported_key(
            std::sync::Arc::new(store.clone()),
            &self.key,
            &putback_repo::Machine::default(),
        ) {
            Ok(repository) => repository,
            // Nothing can be opened: the damage is found, and it says which object.
            Err(error) => {
                let text = describe(&error);
                assert!(text.contains("config"), "{case:?}: {text}");
                return;
            }
        };
        let report = check(&repository);
        let is_found =
            report.damages_total > 0 || !report.warnings.is_empty() || !report.rollback.is_empty();
        assert!(is_found, "{case:?} was not noticed");
        if let Case::Flip { path, .. } | Case::Cut { path, .. } | Case::Extend { path } = case {
            let named = report.damages.iter().any(|damage| damage.object.contains(path.name()));
            assert!(named, "{case:?} is not named in {:?}", report.damages);
        }
        if is_restored {
            self.check_restore(&repository, case);
        }
    }

    fn check_restore(&self, repository: &Repository, case: &Case) {
        if let Err(error) = repository.load_index() {
            let text = describe(&error);
            assert!(text.contains("index/") || text.contains("marks/"), "{case:?}: {text}");
            return;
        }
        for (id, files) in &self.expected {
            let restored =
                repository.read_snapshot(id).and_then(|snapshot| contents(repository, &snapshot));
            match restored {
                Ok(restored) => assert!(restored == *files, "{case:?}: wrong bytes"),
                Err(error) => {
                    let text = describe(&error);
                    let words = ["blob ", "snapshots/", "packs/", "tree page ", "list page "];
                    let is_named = words.iter().any(|word| text.contains(word));
                    assert!(is_named, "{case:?}: no object is named in '{text}'");
                }
            }
        }
    }
}

fn read(store: &MemoryStore, path: &ObjectPath) -> Vec<u8> {
    store.read_all(path, u64::MAX).unwrap()
}

/// Runs the cases on all processors.
fn run(fixture: &Fixture, cases: &[Case]) {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    fixture.check(case, is_exhaustive() || number.is_multiple_of(RESTORE_EVERY));
                }
            });
        }
    });
}

fn is_exhaustive() -> bool {
    std::env::var_os("PUTBACK_EXHAUSTIVE").is_some()
}

/// Positions below `size`: all of a small object, or some that begin at a place the seed gives.
fn positions(size: usize, size_small: usize, seed: usize) -> impl Iterator<Item = usize> {
    let is_small = size <= size_small || is_exhaustive();
    let step = if is_small { 1 } else { size.div_ceil(POSITIONS_LARGE) };
    (seed % step..size).step_by(step)
}

#[expect(clippy::print_stdout, reason = "who wants to see a failure again needs it")]
fn seed() -> usize {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).unwrap();
    let seed = usize::from(u16::from_le_bytes(bytes));
    println!("seed {seed}");
    seed
}

#[test]
fn the_repository_of_these_tests_is_clean_and_has_every_kind_of_object() {
    let fixture = fixture();
    let repository = open(fixture.store.clone(), &fixture.key);
    assert_clean(&repository);
    repository.load_index().unwrap();
    for (id, files) in &fixture.expected {
        let snapshot = repository.read_snapshot(id).unwrap();
        assert!(contents(&repository, &snapshot).unwrap() == *files);
    }
    let mut bytes = 0;
    let mut folders = BTreeMap::new();
    for (path, size) in fixture.objects() {
        *folders.entry(path.folder().to_owned()).or_insert(0) += 1;
        bytes += size;
    }
    let counts = [
        ("", 1),
        ("config", 2),
        ("copies", 4),
        ("index", 4),
        ("keys", 2),
        ("marks", 2),
        ("packs", 6),
        ("snapshots", 3),
    ];
    assert_eq!(folders, counts.map(|(folder, count)| (folder.to_owned(), count)).into());
    assert!((200 << 10..300 << 10).contains(&bytes), "{bytes} bytes");
}

#[test]
fn every_flipped_bit_is_found_and_never_restored() {
    let (fixture, seed) = (fixture(), seed());
    let mut cases = Vec::new();
    for (path, size) in fixture.objects() {
        for position in positions(size, FLIPPED_BYTES, seed) {
            let bit = ((position + seed) % 8) as u8;
            cases.push(Case::Flip { path: path.clone(), position, bit });
        }
    }
    println!("{} cases", cases.len());
    run(&fixture, &cases);
}

#[test]
fn every_object_cut_short_or_extended_is_found_and_never_restored() {
    let (fixture, seed) = (fixture(), seed());
    let mut cases = Vec::new();
    for (path, size) in fixture.objects() {
        let lengths = positions(size, CUT_BYTES, seed);
        cases.extend(lengths.map(|length| Case::Cut { path: path.clone(), length }));
        cases.push(Case::Extend { path });
    }
    println!("{} cases", cases.len());
    run(&fixture, &cases);
}

#[test]
fn every_swap_of_two_objects_of_a_kind_is_found_and_never_restored() {
    let fixture = fixture();
    let objects = fixture.objects();
    let mut cases = Vec::new();
    for (path, _) in &objects {
        let others =
            objects.iter().filter(|(other, _)| other.folder() == path.folder() && other > path);
        cases.extend(
            others.map(|(other, _)| Case::Swap { path: path.clone(), other: other.clone() }),
        );
    }
    assert!(cases.len() > 20, "{}", cases.len());
    run(&fixture, &cases);
}

#[test]
fn an_object_that_stands_under_another_name_too_is_found_and_changes_no_restore() {
    let fixture = fixture();
    let mut cases = Vec::new();
    for (path, _) in fixture.objects() {
        let own = path.name();
        let wrong = match own.rsplit_once('-') {
            Some((before, _)) => format!("{before}-{}", "5".repeat(64)),
            None => "5".repeat(64),
        };
        for name in [wrong, format!("{own}.bak"), format!("{own}-copy")] {
            let name =
                if path.folder().is_empty() { name } else { format!("{}/{name}", path.folder()) };
            let name = ObjectPath::new(&name.to_lowercase()).unwrap();
            cases.push(Case::Duplicate { path: path.clone(), name });
        }
        // The right name in a folder of another kind.
        for folder in ["index", "snapshots", "marks", "keys", "packs"] {
            if folder != path.folder() && own.len() == 64 {
                let name = ObjectPath::new(&format!("{folder}/{own}")).unwrap();
                cases.push(Case::Duplicate { path: path.clone(), name });
            }
        }
    }
    run(&fixture, &cases);
}

/// A mark that is gone leaves no trace; prune reads all marks anew before each of its steps. The
/// newest snapshot of a writer is missed by those who saw it: `rollback.rs`.
#[test]
fn every_deleted_object_that_anything_relies_on_is_found() {
    let fixture = fixture();
    let newest = open(fixture.store.clone(), &fixture.key);
    let last = fixture.expected.keys().max_by_key(|id| newest.read_snapshot(id).unwrap().sequence);
    let mut cases = Vec::new();
    for (path, size) in fixture.objects() {
        let is_tombstones = path.folder() == "index" && size < 500;
        let is_newest = path.name() == last.unwrap().to_string();
        if path.folder() != "marks" && !is_tombstones && !is_newest {
            cases.push(Case::Delete { path });
        }
    }
    run(&fixture, &cases);
}
