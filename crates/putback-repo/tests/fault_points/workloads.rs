//! What programs do with a repository, one operation each.

use std::sync::Arc;
use std::time::Duration;

use putback_format::mark::MarkKind;
use putback_format::tree::Entry;
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::repair::REPAIRED;
use putback_repo::{
    Backup, Cancel, CompactOptions, Error, KdfCost, Password, RepairOptions, RepairTarget,
    Repository, Result, SlotOwner, SnapshotDraft, StoredSnapshot,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{ObjectPath, Store};

use crate::harness::{Kind, Run, World, all};
use crate::support::*;

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workload {
    Init,
    FirstBackup,
    LaterBackup,
    /// A backup that writes a checkpoint in its middle.
    Checkpoint,
    /// A backup on a machine whose last one died when its packs were there and no segment named them.
    Resumed,
    Forget,
    /// Of a snapshot whose packs are marked.
    Undelete,
    /// Other tags for a snapshot.
    Replace,
    /// The first half.
    PruneMark,
    /// The second half.
    PruneCarryOut,
    /// Both halves, with packs that are stored anew.
    PruneRepack,
    /// The second half, where a snapshot needs what was marked.
    PruneRescue,
    /// Forgets a snapshot and prunes in one go.
    ForgetAndPrune,
    KeyAdd,
    KeyRemove,
    KeyChange,
    /// Keeps the password, and changes all keys.
    KeyRotate,
    /// Moves packs to the keys of after a rotation, and takes the old ones away.
    RewriteEpoch,
    /// Both halves, with a backup between them: segments are merged, and the merged ones go.
    Compact,
    /// A segment is missing, another one damaged.
    RepairIndex,
    /// A pack is damaged; what it lost is in the source.
    RepairPacks,
    /// A pack is missing and in no source.
    RepairSnapshots,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn second() -> Password {
    Password::new(b"second".to_vec())
}

fn third() -> Password {
    Password::new(b"third".to_vec())
}

/// Small snapshots that were there before.
const HISTORY: u8 = 5;

/// A run flushes so often on its way, as a long one does at its checkpoints: each time with packs and a segment.
const PARTS: usize = 16;

fn part(number: usize) -> String {
    format!("part {number}")
}

/// Files of all sizes, a directory, a list page.
fn first_files() -> Files {
    let mut all = files([
        ("short", &b"inline"[..]),
        ("dir/shared", &noise(1, 9000)),
        ("dir/early", &noise(2, 7000)),
        (LONG, &noise(3, 36 * 40)),
    ]);
    all.extend((0..PARTS).map(|number| (part(number), noise(100 + number as u64, 1500))));
    all
}

/// Shares some of it with the first.
fn second_files() -> Files {
    let mut all = files([
        ("short", &b"inline too"[..]),
        ("dir/shared", &noise(1, 9000)),
        ("dir/late", &noise(4, 6000)),
    ]);
    // Half of the first one's parts, and new ones.
    all.extend(
        (PARTS / 2..PARTS * 3 / 2).map(|number| (part(number), noise(100 + number as u64, 1500))),
    );
    all
}

/// Without the parts: as few packs and segments as can be.
fn without_parts(files: Files) -> Files {
    files.into_iter().filter(|(name, _)| !name.starts_with("part")).collect()
}

/// Stores the files part by part, then their directories.
fn put_in_parts(backup: &Backup, files: &Files) -> Result<Entry> {
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("part")) {
        put_tree(backup, &Files::from([(name.clone(), bytes.clone())]))?;
        backup.flush()?;
    }
    put_tree(backup, files)
}

fn back_up_to(run: &mut Run<'_>, files: &Files) -> Result<()> {
    let repository = run.open()?;
    // A program lists snapshots before it begins, to find the parent.
    repository.snapshots(&all())?;
    let backup = repository.begin_backup(None, 0)?;
    let root = put_in_parts(&backup, files)?;
    let stored = backup.commit(draft(root))?;
    run.world.promises.add(stored, files.clone());
    backup.finish().map(drop)
}

fn back_up_in_parts(repository: &Repository, files: &Files) -> Result<StoredSnapshot> {
    let backup = repository.begin_backup(None, 0)?;
    let root = put_in_parts(&backup, files)?;
    let stored = backup.commit(draft(root))?;
    backup.finish()?;
    Ok(stored)
}

impl World {
    fn back_up(&mut self, files: &Files) -> StoredSnapshot {
        let machine = self.lasting_machine();
        let repository = self.open_on(Arc::new(self.store.clone()), &machine).unwrap();
        let stored = back_up_in_parts(&repository, files).unwrap();
        self.promises.add(stored.clone(), files.clone());
        self.clock.pass(Duration::from_secs(60));
        stored
    }

    /// Some small snapshots.
    fn with_history(kind: Kind) -> Self {
        let mut world = Self::new(kind);
        for number in 0..HISTORY {
            world.back_up(&Files::from([("diary".to_owned(), vec![number; 50])]));
        }
        world
    }

    /// Those, a snapshot, and another one that lacks files of it.
    fn with_two(kind: Kind) -> Self {
        let mut world = Self::with_history(kind);
        let first = world.back_up(&first_files());
        let second = world.back_up(&second_files());
        world.subjects = vec![first, second];
        world
    }

    /// As [`World::with_two`], in few objects, for work that looks at each of them.
    fn with_small_two(kind: Kind) -> Self {
        let mut world = Self::new(kind);
        let first = world.back_up(&without_parts(first_files()));
        let second = world.back_up(&without_parts(second_files()));
        world.subjects = vec![first, second];
        world
    }

    /// As [`World::with_two`], the first one forgotten.
    fn with_forgotten(kind: Kind) -> Self {
        let mut world = Self::with_two(kind);
        let first = world.subjects[0].clone();
        world.open().forget(std::slice::from_ref(&first)).unwrap();
        world.promises.end(&first.id);
        world.clock.pass(Duration::from_secs(60));
        world
    }

    fn prune(&self, options: &PruneOptions) {
        self.open().prune(options, &()).unwrap();
    }
}

/// Marks, and carries out what is a day old.
fn with_grace() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), workers: 0, ..PruneOptions::default() }
}

fn instant() -> PruneOptions {
    PruneOptions { instant: true, ..with_grace() }
}

fn rewriting_epoch() -> PruneOptions {
    PruneOptions { rewrite_epoch: true, ..with_grace() }
}

fn rotate(run: &Run<'_>) -> Result<()> {
    let repository = Repository::open(Arc::clone(&run.store), &password(), run.machine)?;
    let mut rotation = repository.plan_rotation(vec![password()])?;
    rotation.drop_others();
    repository.rotate_keys(rotation).map(drop)
}

fn compact(run: &Run<'_>) -> Result<()> {
    let options = CompactOptions { segments_least: 2, ..CompactOptions::default() };
    run.open()?.compact(&options).map(drop)
}

fn repair(run: &Run<'_>, target: RepairTarget) -> Result<()> {
    let repository = run.open()?;
    let options = RepairOptions { forget: true, ..RepairOptions::new(target) };
    let plan = repository.plan_repair(&options, &())?;
    repository.repair(&plan, &options, &()).map(drop)
}

/// Prunes day after day until nothing is left to do.
fn prune_all(run: &Run<'_>, options: &PruneOptions) -> Result<()> {
    // A mark of a broken run has to stand for its time; until then a forgotten snapshot may lack packs.
    for round in 0..6 {
        let report = run.open()?.prune(options, &())?;
        let done = report.packs_deleted + report.bytes_marked + report.packs_waiting;
        if round >= 2 && done == 0 {
            return Ok(());
        }
        run.world.clock.pass(2 * DAY);
    }
    panic!("there is always something left to prune");
}

fn flip(store: &MemoryStore, path: &ObjectPath) {
    assert!(store.damage(path, |bytes| bytes[60] ^= 1));
}

/// The largest pack: it holds data.
fn largest_pack(store: &MemoryStore) -> ObjectPath {
    let rows = store.list("packs").unwrap();
    rows.into_iter().max_by_key(|row| (row.size, row.path.clone())).unwrap().path
}

impl Workload {
    /// What the store holds before.
    pub(crate) fn prepare(self, kind: Kind) -> World {
        let mut world = self.prepare_store(kind);
        if !matches!(self, Self::LaterBackup | Self::Checkpoint | Self::Resumed | Self::Forget) {
            // Done on another machine than the backups, that has to read everything.
            world.forget_machine();
        }
        if matches!(self, Self::ForgetAndPrune | Self::PruneRepack) {
            // Where there are no locks, nothing is pruned at once beside somebody who has just written.
            world.clock.pass(DAY);
        }
        world
    }

    fn prepare_store(self, kind: Kind) -> World {
        match self {
            Self::Init => World::empty(kind),
            Self::FirstBackup => World::new(kind),
            Self::LaterBackup | Self::Checkpoint => {
                let mut world = World::with_history(kind);
                world.back_up(&first_files());
                world
            }
            Self::Resumed => {
                let mut world = World::with_history(kind);
                world.back_up(&first_files());
                let machine = world.lasting_machine();
                let faulty = FaultyStore::new(Arc::new(world.store.clone()), 1);
                let repository = world.open_on(Arc::new(faulty.clone()), &machine).unwrap();
                let backup = repository.begin_backup(None, 0).unwrap();
                faulty.plant(Fault::before(Calls::Only(Call::Write), 1).crashing());
                put_tree(&backup, &second_files()).unwrap();
                backup.flush().unwrap_err();
                world
            }
            Self::Forget | Self::Replace | Self::ForgetAndPrune => World::with_two(kind),
            Self::PruneMark | Self::PruneRepack => World::with_forgotten(kind),
            Self::Undelete => {
                // What it alone needs is marked: it is stored anew.
                let world = World::with_forgotten(kind);
                world.prune(&with_grace());
                world
            }
            Self::PruneCarryOut => {
                let world = World::with_forgotten(kind);
                world.prune(&with_grace());
                world.clock.pass(2 * DAY);
                world
            }
            Self::PruneRescue => {
                let mut world = World::with_forgotten(kind);
                // A backup that was on its way when the mark came, and that a slow listing kept from seeing it.
                let writer = world.open();
                let backup = writer.begin_backup(None, 0).unwrap();
                let root = put_tree(&backup, &first_files()).unwrap();
                let stored = backup.commit(draft(root)).unwrap();
                backup.finish().unwrap();
                let mut packs = packs(&world.store);
                packs.sort();
                write_mark(&writer, &world.store, MarkKind::Packs(packs));
                world.promises.add(stored, first_files());
                world.clock.pass(2 * DAY);
                world
            }
            Self::KeyAdd => {
                let mut world = World::new(kind);
                world.back_up(&first_files());
                world
            }
            Self::KeyRotate => {
                let mut world = World::new(kind);
                world.back_up(&Files::from([("diary".to_owned(), vec![1; 50])]));
                world.open().add_slot(&second(), KdfCost::LOW, &SlotOwner::default()).unwrap();
                world.key.clear();
                world
            }
            Self::RewriteEpoch => {
                let mut world = World::with_small_two(kind);
                let repository = Repository::open(
                    Arc::new(world.store.clone()),
                    &password(),
                    &world.machine(None),
                );
                let repository = repository.unwrap();
                let rotation = repository.plan_rotation(vec![password()]).unwrap();
                let (rotated, _) = repository.rotate_keys(rotation).unwrap();
                world.key = rotated.export_key().to_string();
                world.clock.pass(DAY);
                world
            }
            Self::Compact => World::with_two(kind),
            Self::RepairIndex => {
                let mut world = World::with_two(kind);
                let hurt = world.harm(|store| {
                    let mut rows = store.list("index").unwrap();
                    rows.sort_by_key(|row| row.modified);
                    let [.., one, other] = rows.as_slice() else { panic!("{rows:?}") };
                    delete(store, &one.path);
                    flip(store, &other.path);
                });
                assert!(hurt > 0);
                world
            }
            Self::RepairPacks => {
                let mut world = World::with_small_two(kind);
                let hurt = world.harm(|store| flip(store, &largest_pack(store)));
                assert!((1..=2).contains(&hurt), "{hurt}");
                world
            }
            Self::RepairSnapshots => {
                let mut world = World::with_small_two(kind);
                let hurt = world.harm(|store| delete(store, &largest_pack(store)));
                assert!((1..=2).contains(&hurt), "{hurt}");
                world
            }
            Self::KeyRemove | Self::KeyChange => {
                let mut world = World::new(kind);
                world.back_up(&first_files());
                world.open().add_slot(&second(), KdfCost::LOW, &SlotOwner::default()).unwrap();
                world
            }
        }
    }

    /// Does it, as a process of its own.
    pub(crate) fn run(self, run: &mut Run<'_>) -> Result<()> {
        match self {
            Self::Init => {
                let store = Arc::clone(&run.store);
                let made = Repository::init(store, &password(), &init_options(), run.machine)?;
                run.world.key = made.export_key().to_string();
                Ok(())
            }
            Self::FirstBackup => back_up_to(run, &first_files()),
            Self::LaterBackup | Self::Resumed => back_up_to(run, &second_files()),
            Self::Checkpoint => {
                let repository = run.open()?;
                repository.snapshots(&all())?;
                let backup = repository.begin_backup(None, 0)?;
                for checkpoint in 0..4 {
                    let part = Files::from([("early".to_owned(), noise(5 + checkpoint, 5000))]);
                    let root = put_tree(&backup, &part)?;
                    backup.commit(SnapshotDraft { complete: false, ..draft(root) })?;
                }
                let root = put_in_parts(&backup, &second_files())?;
                let stored = backup.commit(draft(root))?;
                run.world.promises.add(stored, second_files());
                backup.finish().map(drop)
            }
            Self::Forget => {
                let first = run.world.subjects[0].clone();
                let repository = run.open()?;
                let found = repository.find_snapshot(&first.id.to_string(), &all());
                run.world.promises.end(&first.id);
                match found {
                    Ok(found) => repository.forget(&[found]),
                    Err(Error::NoSnapshot { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Self::Undelete => {
                let repository = run.open()?;
                let forgotten = repository.forgotten()?;
                let undeleted = repository.undelete(&forgotten, 0, &Cancel::default())?;
                for (_, new) in undeleted.written {
                    let snapshot = run.world.open().read_snapshot(&new)?;
                    run.world.promises.add(StoredSnapshot { id: new, snapshot }, first_files());
                }
                // A read that failed looks like damage, and is none with the next run.
                match undeleted.failed.into_iter().next() {
                    Some((_, error)) => Err(error),
                    None => Ok(()),
                }
            }
            Self::Replace => {
                let repository = run.open()?;
                let shown = repository.snapshots(&all())?;
                let untagged: Vec<_> =
                    shown.into_iter().filter(|stored| stored.snapshot.tags.is_empty()).collect();
                let changes: Vec<_> = untagged
                    .iter()
                    .map(|old| {
                        let tags = vec!["kept".to_owned()];
                        (old.clone(), SnapshotDraft { tags, ..SnapshotDraft::from(&old.snapshot) })
                    })
                    .collect();
                // From now on the old one may be there or the new one, or both.
                let held: Vec<_> =
                    untagged.iter().filter_map(|old| run.world.promises.end(&old.id)).collect();
                let replaced = repository.replace(&changes, 0, &Cancel::default());
                let reader = run.world.open();
                for (old, files) in held {
                    // Whatever happened, the content is there under one of the names.
                    let shown = reader.snapshots(&all())?;
                    let like = shown.into_iter().find(|shown| shown.is_like(&old));
                    let like = like.unwrap_or_else(|| panic!("{} is gone", old.id));
                    run.world.promises.add(like, files);
                }
                // As with undelete.
                replaced?.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
            }
            Self::ForgetAndPrune => {
                Self::Forget.run(run)?;
                run.open()?.prune(&instant(), &()).map(drop)
            }
            Self::PruneMark => run.open()?.prune(&with_grace(), &()).map(drop),
            Self::PruneCarryOut | Self::PruneRescue => {
                run.open()?.prune(&with_grace(), &()).map(drop)
            }
            Self::PruneRepack => {
                run.open()?.prune(&instant(), &())?;
                run.world.clock.pass(2 * DAY);
                run.open()?.prune(&instant(), &()).map(drop)
            }
            Self::KeyAdd => {
                let repository =
                    Repository::open(Arc::clone(&run.store), &password(), run.machine)?;
                repository.add_slot(&second(), KdfCost::LOW, &SlotOwner::default()).map(drop)
            }
            Self::KeyRemove => {
                let repository = run.open()?;
                let slots = repository.slots()?;
                match slots.as_slice() {
                    [_, added, ..] => repository.remove_slot(&added.id),
                    _ => Ok(()),
                }
            }
            Self::KeyChange => {
                let opened = Repository::open(Arc::clone(&run.store), &password(), run.machine);
                match opened {
                    Ok(repository) => repository
                        .change_password(&third(), KdfCost::LOW, &SlotOwner::default())
                        .map(drop),
                    // An earlier run came to its end and nobody heard of it.
                    Err(Error::WrongPassword { .. }) => {
                        Repository::open(Arc::clone(&run.store), &third(), run.machine).map(drop)
                    }
                    Err(error) => Err(error),
                }
            }
            Self::KeyRotate => rotate(run),
            Self::RewriteEpoch => {
                run.open()?.prune(&rewriting_epoch(), &())?;
                run.world.clock.pass(2 * DAY);
                run.open()?.prune(&rewriting_epoch(), &()).map(drop)
            }
            Self::Compact => {
                compact(run)?;
                run.world.clock.pass(2 * DAY);
                // Where listings may lag, its segment shows how late it is by the storage's clock.
                back_up_to(run, &Files::from([("diary".to_owned(), vec![99; 50])]))?;
                compact(run)
            }
            Self::RepairIndex => repair(run, RepairTarget::Index),
            Self::RepairPacks => repair(run, RepairTarget::Packs),
            Self::RepairSnapshots => {
                repair(run, RepairTarget::Packs)?;
                repair(run, RepairTarget::Snapshots)
            }
        }
    }

    /// What a person does next, on a store that works again: the same once more. What it must have come to is
    /// asserted here.
    pub(crate) fn heal(self, run: &mut Run<'_>) -> Result<()> {
        let opens = |run: &Run<'_>, password: &Password| {
            let store: Arc<dyn Store> = Arc::new(run.world.store.clone());
            match Repository::open(store, password, &run.world.machine(None)) {
                Ok(_) => true,
                Err(Error::WrongPassword { .. }) => false,
                Err(error) => panic!("{}", describe(&error)),
            }
        };
        match self {
            Self::Init => {
                match self.run(run) {
                    // It had come to its end already.
                    Err(Error::RepositoryExists { .. }) => {}
                    result => result?,
                }
                let store = Arc::clone(&run.store);
                let opened = Repository::open(store, &password(), run.machine)?;
                run.world.key = opened.export_key().to_string();
                assert_eq!(opened.take_warnings(), [""; 0]);
                back_up_to(run, &first_files())
            }
            Self::KeyAdd | Self::KeyRemove => {
                assert!(opens(run, &password()));
                self.run(run)?;
                assert_eq!(opens(run, &second()), matches!(self, Self::KeyAdd));
                Ok(())
            }
            Self::KeyChange => {
                self.run(run)?;
                assert!(opens(run, &third()) && !opens(run, &password()));
                Ok(())
            }
            Self::Forget => {
                self.run(run)?;
                let shown = run.world.open().snapshots(&all())?;
                assert!(shown.iter().all(|stored| stored.id != run.world.subjects[0].id));
                Ok(())
            }
            Self::Replace => {
                self.run(run)?;
                let shown = run.world.open().snapshots(&all())?;
                assert!(shown.iter().all(|stored| stored.snapshot.tags == ["kept"]));
                Ok(())
            }
            Self::Undelete => {
                self.run(run)?;
                let shown = run.world.open().snapshots(&all())?;
                assert!(shown.iter().any(|stored| stored.is_like(&run.world.subjects[0])));
                Ok(())
            }
            Self::PruneMark
            | Self::PruneCarryOut
            | Self::PruneRepack
            | Self::PruneRescue
            | Self::ForgetAndPrune => {
                if let Self::ForgetAndPrune = self {
                    self.run(run)?;
                }
                // Whatever is left of the broken run goes too: what it marked, and what it stored for nobody.
                prune_all(run, &with_grace())
            }
            Self::KeyRotate => {
                self.run(run)?;
                assert!(opens(run, &password()) && !opens(run, &second()));
                Ok(())
            }
            Self::RewriteEpoch => {
                prune_all(run, &rewriting_epoch())?;
                let report = run.open()?.prune(&rewriting_epoch(), &())?;
                assert_eq!((report.packs_old_key, report.bytes_old_key), (0, 0));
                Ok(())
            }
            Self::Compact => {
                self.run(run)?;
                let segments = run.world.store.list("index")?.len();
                // The merged one, and what the backups of broken runs wrote.
                assert!(segments <= 4, "{segments} segments are left");
                Ok(())
            }
            Self::RepairIndex => {
                self.run(run)?;
                run.world.promises.are_mended();
                // What is damaged and has been replaced goes as replaced segments go.
                Self::Compact.run(run)
            }
            Self::RepairPacks => {
                self.run(run)?;
                // What was lost is read from the source again.
                back_up_to(run, &without_parts(first_files()))?;
                back_up_to(run, &without_parts(second_files()))?;
                run.world.promises.are_mended();
                prune_all(run, &with_grace())
            }
            Self::RepairSnapshots => {
                self.run(run)?;
                let shown = run.world.open().snapshots(&all())?;
                assert_eq!(shown.len(), 2);
                let is_repaired = |stored: &StoredSnapshot| {
                    stored.snapshot.tags.iter().any(|tag| tag == REPAIRED)
                };
                assert!(shown.iter().any(is_repaired));
                prune_all(run, &with_grace())
            }
            _ => self.run(run),
        }
    }
}
