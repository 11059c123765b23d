//! Runs workloads with faults, and looks at what is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use putback_format::id::SnapshotId;
use putback_format::slot::Slot;
use putback_format::tree::Timestamp;
use putback_repo::{Clock, Damage, Machine, Repository, Result, SnapshotFilter, StoredSnapshot};
use putback_store::memory::MemoryStore;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
use putback_store::{Capabilities, Store};

use crate::support::*;
use crate::workloads::Workload;

/// What a store is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As a directory: locks, listings that show all.
    Local,
    /// As a service: no locks, requests that cost.
    Remote,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Local, Self::Remote];

    fn capabilities(self) -> Capabilities {
        let is_remote = self == Self::Remote;
        Capabilities { is_remote, connections: 2, is_consistent: !is_remote }
    }
}

/// How a request fails.
#[derive(Clone, Copy, Debug)]
struct Way {
    has_effect: bool,
    is_crash: bool,
    is_for_ever: bool,
}

/// How many ways there are.
pub(crate) const WAYS: u64 = 8;

impl Way {
    fn all() -> impl Iterator<Item = Self> {
        (0..WAYS).map(|bits| Self {
            has_effect: bits & 1 != 0,
            is_crash: bits & 2 != 0,
            is_for_ever: bits & 4 != 0,
        })
    }

    fn fault(self, number: u64) -> Fault {
        let fault = match self.has_effect {
            true => Fault::after(Calls::Any, number),
            false => Fault::before(Calls::Any, number),
        };
        match (self.is_crash, self.is_for_ever) {
            (true, _) => fault.crashing(),
            (false, true) => fault.lasting(),
            (false, false) => fault,
        }
    }

    /// How often the process is started and meets the fault.
    fn runs(self) -> usize {
        if self.is_crash && self.is_for_ever { 3 } else { 1 }
    }
}

/// A clock that stands unless somebody waits: as many days as are needed pass in no time.
#[derive(Clone, Debug)]
pub(crate) struct StandingClock(Arc<AtomicU64>);

const BEGINNING: u64 = 1_800_000_000;

impl StandingClock {
    fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds * 1_000_000_000)))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.time().as_secs() as i64, nanoseconds: self.time().subsec_nanos() }
    }

    fn since_boot(&self) -> Duration {
        self.time()
    }

    fn sleep(&self, time: Duration) {
        self.pass(time);
    }
}

/// Snapshots that must be there, and what they hold.
#[derive(Clone, Default)]
pub(crate) struct Promises {
    reported: BTreeMap<SnapshotId, (StoredSnapshot, Files)>,
    /// Those that cannot be read as the store is now.
    hurt: BTreeMap<SnapshotId, (StoredSnapshot, Files)>,
}

impl Promises {
    /// A snapshot was reported.
    pub(crate) fn add(&mut self, stored: StoredSnapshot, files: Files) {
        self.reported.insert(stored.id, (stored, files));
    }

    /// Somebody asked for it to be forgotten: it may be there or not.
    pub(crate) fn end(&mut self, id: &SnapshotId) -> Option<(StoredSnapshot, Files)> {
        self.reported.remove(id)
    }

    /// What was hurt has been mended.
    pub(crate) fn are_mended(&mut self) {
        self.reported.append(&mut self.hurt);
    }
}

/// A store and a machine in the middle of their lives.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) store: MemoryStore,
    pub(crate) clock: StandingClock,
    pub(crate) key: String,
    pub(crate) promises: Promises,
    /// Snapshots that a workload works on.
    pub(crate) subjects: Vec<StoredSnapshot>,
    /// What the machine keeps between runs.
    state: Option<Arc<tempfile::TempDir>>,
}

impl World {
    /// A store without anything.
    pub(crate) fn empty(kind: Kind) -> Self {
        let clock = StandingClock::at(BEGINNING);
        let store = MemoryStore::new().with_capabilities(kind.capabilities());
        let store = on_clock(store, &clock);
        Self {
            kind,
            store,
            clock,
            key: String::new(),
            promises: Promises::default(),
            subjects: Vec::new(),
            state: None,
        }
    }

    /// A new repository.
    pub(crate) fn new(kind: Kind) -> Self {
        let mut world = Self::empty(kind);
        let machine = world.machine(None);
        let store = Arc::new(world.store.clone());
        let made = Repository::init(store, &password(), &init_options(), &machine).unwrap();
        world.key = made.export_key().to_string();
        world
    }

    /// The same again, with a life of its own, and a machine that begins with what this one kept.
    fn fork(&self, folder: &Path) -> (Self, Machine) {
        let clock = StandingClock(Arc::new(AtomicU64::new(self.clock.0.load(Ordering::Relaxed))));
        let store = on_clock(self.store.fork(), &clock);
        let world = Self { store, clock, ..self.clone() };
        if let Some(state) = &self.state {
            copy(state.path(), folder);
        }
        let machine = world.machine(Some(folder));
        (world, machine)
    }

    pub(crate) fn machine(&self, folder: Option<&Path>) -> Machine {
        Machine {
            cache: folder.map(|folder| folder.join("cache")),
            state: folder.map(|folder| folder.join("state")),
            clock: Arc::new(self.clock.clone()),
            ..Machine::default()
        }
    }

    /// A machine whose directories the points of this workload begin with.
    pub(crate) fn lasting_machine(&mut self) -> Machine {
        let state = self.state.get_or_insert_with(|| Arc::new(folder()));
        let path = state.path().to_owned();
        self.machine(Some(&path))
    }

    /// The points begin with a machine that knows nothing.
    pub(crate) fn forget_machine(&mut self) {
        self.state = None;
    }

    /// Opens it on a machine without directories.
    pub(crate) fn open(&self) -> Repository {
        self.open_on(Arc::new(self.store.clone()), &self.machine(None)).unwrap()
    }

    pub(crate) fn open_on(&self, store: Arc<dyn Store>, machine: &Machine) -> Result<Repository> {
        match self.key.as_str() {
            // Keys that are being rotated: the password stands for those of the moment.
            "" => Repository::open(store, &password(), machine),
            key => Repository::open_with_exported_key(store, key, machine),
        }
    }

    /// Harms the store. Snapshots that cannot be read any more are not promised until they are mended; yields how many.
    pub(crate) fn harm(&mut self, harm: impl FnOnce(&MemoryStore)) -> usize {
        harm(&self.store);
        let reader = self.open();
        let is_whole = |stored: &StoredSnapshot| {
            reader.load_index().and_then(|()| contents(&reader, &stored.snapshot)).is_ok()
        };
        let reported = std::mem::take(&mut self.promises.reported);
        (self.promises.reported, self.promises.hurt) =
            reported.into_iter().partition(|(_, (stored, _))| is_whole(stored));
        self.promises.hurt.len()
    }

    /// Restores all that was promised.
    fn assert_kept(&self, what: &dyn Fn() -> String) {
        if self.promises.reported.is_empty() {
            return;
        }
        let reader = self.open();
        let fail = |error| -> ! { panic!("{}: {}", what(), describe(&error)) };
        let listed = reader.snapshots(&all()).unwrap_or_else(|error| fail(error));
        reader.load_index().unwrap_or_else(|error| fail(error));
        for (id, (stored, files)) in &self.promises.reported {
            assert!(listed.iter().any(|listed| listed.id == *id), "{}: {id} is not shown", what());
            let snapshot = reader.read_snapshot(id).unwrap_or_else(|error| fail(error));
            assert!(snapshot == stored.snapshot, "{}: {id} says something else", what());
            let read = contents(&reader, &snapshot).unwrap_or_else(|error| fail(error));
            assert!(read == *files, "{}: {id} holds something else", what());
        }
    }

    /// Whether this is the second copy of a slot that was just being written, which counts as the slot. Without locks
    /// nobody may remove what another machine may be writing, so it stays.
    fn is_unfinished(&self, repository: &Repository, damage: &Damage) -> bool {
        let is_own =
            |bytes: &[u8]| Slot::decode(bytes).is_ok_and(|slot| slot.repository == repository.id());
        let Some(id) = damage.object.split("keys").nth(1).and_then(|end| end.get(1..)) else {
            return false;
        };
        let read =
            |prefix| self.store.read_all(&format!("{prefix}{id}").parse().ok()?, 1 << 20).ok();
        let is_alone = damage.message.starts_with("it stands alone");
        is_alone && ["keys/", "copies/keys-"].into_iter().find_map(read).is_some_and(|b| is_own(&b))
    }

    fn assert_clean(&self, what: &dyn Fn() -> String) {
        let repository = self.open();
        let mut report = check(&repository);
        if self.kind == Kind::Remote {
            report.damages.retain(|damage| !self.is_unfinished(&repository, damage));
            // What is left of an `init` that did not come to its end.
            report.warnings.retain(|text| !text.contains("belongs to another repository"));
        }
        let found = (report.damages.as_slice(), report.warnings.as_slice());
        assert_eq!(found, (&[][..], &[][..]), "{}", what());
        assert_eq!(report.rollback, [""; 0], "{}", what());
    }
}

/// Every snapshot that can be shown.
pub(crate) fn all() -> SnapshotFilter {
    SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() }
}

fn on_clock(store: MemoryStore, clock: &StandingClock) -> MemoryStore {
    let clock = clock.clone();
    store.with_clock(move || SystemTime::UNIX_EPOCH + clock.time())
}

/// A folder that is gone with the test: in memory where there is such a place, since states are synced.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("putback-test-").tempdir_in(memory);
    made.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What a workload gets.
pub(crate) struct Run<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) machine: &'a Machine,
}

impl Run<'_> {
    pub(crate) fn open(&self) -> Result<Repository> {
        self.world.open_on(Arc::clone(&self.store), self.machine)
    }
}

/// How many requests a workload has if none fails.
pub(crate) fn count_requests(workload: Workload, kind: Kind) -> u64 {
    let folder = folder();
    let (mut world, machine) = workload.prepare(kind).fork(folder.path());
    let calm = FaultyStore::new(Arc::new(world.store.clone()), 1);
    let store: Arc<dyn Store> = Arc::new(calm.clone());
    workload.run(&mut Run { world: &mut world, store, machine: &machine }).unwrap();
    calm.request_count()
}

/// Lets each request of a workload fail in each way. Yields how many points there were.
pub(crate) fn count_points(workload: Workload, kind: Kind) -> u64 {
    let base = workload.prepare(kind);
    let points = AtomicU64::new(0);
    let ways = Mutex::new(Way::all());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(way) = ways.lock().unwrap().next() else { return };
                    let mut number = 1;
                    while strikes(workload, &base, way, number) {
                        points.fetch_add(1, Ordering::Relaxed);
                        number += 1;
                    }
                }
            });
        }
    });
    points.into_inner()
}

/// One point. False if the workload has fewer requests.
fn strikes(workload: Workload, base: &World, way: Way, number: u64) -> bool {
    let folder = folder();
    let (mut world, machine) = base.fork(folder.path());
    let mut last = Ok(());
    for run in 0..way.runs() {
        let faulty = FaultyStore::new(Arc::new(world.store.clone()), number);
        faulty.plant(way.fault(number));
        let store: Arc<dyn Store> = Arc::new(faulty.clone());
        last = workload.run(&mut Run { world: &mut world, store, machine: &machine });
        if faulty.failure_count() == 0 {
            if run == 0 {
                if let Err(error) = &last {
                    panic!("{workload:?} on {:?}, no fault: {}", base.kind, describe(error));
                }
                return false;
            }
            // A run that had less left to do and came to its end; what it came to is seen below.
            break;
        }
    }
    let what = || {
        let result = last.as_ref().map_err(describe);
        format!("{workload:?} on {:?}, request {number}, {way:?}, {result:?}", base.kind)
    };
    world.assert_kept(&what);
    let store: Arc<dyn Store> = Arc::new(world.store.clone());
    let healed = workload.heal(&mut Run { world: &mut world, store, machine: &machine });
    if let Err(error) = healed {
        panic!("{}; the next run: {}", what(), describe(&error));
    }
    world.assert_clean(&what);
    world.assert_kept(&what);
    true
}
