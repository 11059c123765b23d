//! One run: two weeks of a seed, and what must be true at their end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{
    CheckOptions, Damage, ReadData, Repository, SnapshotFilter, StoredSnapshot, Times,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::random::Random;
use putback_store::testing::simulated::{Weather, World};
use putback_store::{ObjectPath, Store};

use crate::actors::{Actor, Counts, DAY, HOUR, Setting, is_of_weather, parts_of};
use crate::model::Fate;
use crate::trees::{contents, describe, init};

const WRITERS: usize = 8;
const PRUNERS: usize = 2;
const MACHINES: usize = WRITERS + PRUNERS + 1;
const FOLDERS: [&str; 4] = ["", "config", "keys", "copies"];

/// What a run is to be like, apart from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) times: Times,
    pub(crate) grace: Duration,
    /// In place of one that is drawn.
    pub(crate) weather: Option<Weather>,
    /// What the clocks of writers and of those who prune are ahead by, in seconds, in place of what is drawn.
    pub(crate) clocks: Option<(i64, i64)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            times: Times::default(),
            grace: putback_repo::prune::GRACE,
            weather: None,
            clocks: None,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) requests: u64,
    pub(crate) counts: Counts,
    pub(crate) reported: usize,
}

/// A new repository, the same each time, and its key. Argon2id is asked once for each process.
pub(crate) fn image() -> &'static (MemoryStore, String) {
    static IMAGE: OnceLock<(MemoryStore, String)> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let world = World::new(1, Weather::calm(true), 1);
        let clock = world.clone();
        let store = MemoryStore::new().with_clock(move || clock.now());
        let parts = parts_of(&world.machine(0), None, Times::default());
        let repository = init(Arc::new(store.clone()), &parts).unwrap();
        let key = repository.export_key().to_string();
        (store, key)
    })
}

/// Has a world hold the new repository.
pub(crate) fn fill(world: &World) {
    world.fill_from(&image().0, &FOLDERS).unwrap();
}

/// What goes wrong in the world of a seed: of everything often nothing, so that one thing at a time is seen too.
fn draw_weather(seed: u64) -> Weather {
    let mut random = Random::new(seed ^ 0x5eed);
    let is_consistent = random.below(4) == 0;
    let mut maybe = |most: u64| match random.below(4) {
        0 | 1 => 0,
        2 => most / 8,
        _ => most,
    };
    Weather {
        lags: maybe(900_000),
        failures: maybe(4_000),
        lost_answers: maybe(3_000),
        torn: maybe(20_000),
        duplicates: maybe(60_000),
        crashes: maybe(2_500),
        suspends: maybe(1_500),
        outages: maybe(800),
        delays: maybe(20_000),
        skew: Duration::from_nanos(maybe(DAY)),
        clock_jumps: maybe(400),
        rot: if seed % 10 == 9 { 150 } else { 0 },
        ..Weather::calm(is_consistent)
    }
}

/// Directories of the machines: in memory where the system has such a place.
pub(crate) fn temporary_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Runs a seed.
///
/// # Errors
/// What was found wrong, with the last events.
pub(crate) fn run(seed: u64, plan: &Plan) -> Result<Outcome, String> {
    let key = &image().1;
    let folder = temporary_folder();
    let world = World::new(seed, plan.weather.unwrap_or_else(|| draw_weather(seed)), MACHINES);
    fill(&world);
    if let Some((writers, pruners)) = plan.clocks {
        for number in 0..MACHINES {
            let seconds = if number < WRITERS { writers } else { pruners };
            world.machine(number).set_clock_ahead(seconds);
        }
    }
    let trace = std::env::var("PUTBACK_TRACE").ok();
    if trace.is_some() {
        world.keep_events(usize::MAX);
    }
    let setting = Setting {
        seed,
        key: key.clone(),
        folder: folder.path().to_owned(),
        times: plan.times,
        grace: plan.grace,
        end: world.elapsed() + Duration::from_nanos(14 * DAY),
        model: Mutex::default(),
        counts: Mutex::default(),
        lost_state: Mutex::default(),
    };
    let works = (0..MACHINES).map(|number| match number {
        0..WRITERS => Actor::writer(&setting),
        number if number < WRITERS + PRUNERS => Actor::pruner(&setting),
        _ => Actor::compactor(&setting),
    });
    let result = world.run(works.collect()).and_then(|()| verify(&setting, &world));
    if let Some(trace) = trace {
        let events = world.events().into_iter().map(|event| event.to_string());
        events.filter(|event| event.contains(&trace)).for_each(|event| println!("{event}"));
        world.keep_events(200);
    }
    let outcome = Outcome {
        hash: world.event_hash(),
        requests: world.requests(),
        counts: *setting.counts.lock().unwrap(),
        reported: setting.model().count(),
    };
    result.map(|()| outcome).map_err(|failure| {
        let events: Vec<String> =
            world.events().iter().map(|event| format!("  {event}\n")).collect();
        format!(
            "seed {seed}: {failure}\n{}{:?}\n{:?}\nagain: PUTBACK_SEED={seed} cargo nextest run -p putback-repo --test simulation",
            events.concat(),
            world.troubles(),
            outcome,
        )
    })
}

/// Everything that must be true when all machines have stopped and listings have settled.
fn verify(setting: &Setting, world: &World) -> Result<(), String> {
    world.calm_down();
    let machine = world.machine(0);
    machine.sleep(Duration::from_nanos(3 * HOUR));
    let store = world.settled();
    let has_rot = !world.rotted().is_empty();
    let open = || {
        let parts = parts_of(&machine, None, setting.times);
        Repository::open_with_exported_key(Arc::new(store.clone()), &setting.key, &parts)
            .map_err(|error| format!("it does not open: {}", describe(&error)))
    };
    verify_snapshots(setting, world, &open()?)?;
    let late = world.arrived_late(setting.times.commit_window / 2);
    let has_late = late.iter().any(|path| path.folder() == "snapshots");
    verify_check(&open()?, has_rot || has_late, &world.torn())?;

    // Each machine goes on without anybody repairing anything.
    for number in 0..WRITERS {
        let mut actor = Actor::new(setting, &world.machine(number));
        let went_on =
            actor.open(store.clone()).and_then(|repository| actor.back_up_at_last(&repository));
        went_on.map_err(|error| format!("machine {number} cannot go on: {}", describe(&error)))?;
    }
    forget_what_nobody_remembers(setting, &open()?)?;

    // What is dead goes.
    let options = PruneOptions {
        max_unused: MaxUnused::Bytes(0),
        repack_small: true,
        ..PruneOptions::default()
    };
    for _ in 0..4 {
        machine.sleep(Duration::from_nanos(30 * HOUR));
        match open()?.prune(&options, &()) {
            Ok(_) => {}
            Err(_) if has_rot => break,
            Err(error) => return Err(format!("prune fails: {}", describe(&error))),
        }
    }
    verify_snapshots(setting, world, &open()?)?;
    verify_check(&open()?, has_rot, &BTreeSet::new())?;
    if has_rot {
        return Ok(());
    }
    let repository = open()?;
    let snapshots = all_snapshots(&repository)?;
    let mut chunks = BTreeSet::new();
    let model = setting.model();
    for stored in &snapshots {
        let files = model.contents(&stored.snapshot.description).into_iter().flatten();
        chunks.extend(files.flat_map(|(_, bytes)| bytes.chunks(900)));
    }
    let live: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let rows = store.list("packs").map_err(|error| error.to_string())?;
    let bytes: u64 = rows.iter().map(|row| row.size).sum();
    // Pages of trees, their packs, headers and padding.
    let most = live as u64 * 5 / 4 + 4000 * (snapshots.len() as u64 + 4);
    if bytes > most || rows.len() > 8 {
        return Err(format!(
            "{} packs of {bytes} bytes hold {} snapshots with {live} bytes that differ",
            rows.len(),
            snapshots.len()
        ));
    }
    Ok(())
}

/// A machine that fell asleep in the middle of sending a snapshot, and did not live to take it back, leaves one that
/// may need what is gone; its next run forgets it. If the machine lost its memory too, a person has to.
fn forget_what_nobody_remembers(setting: &Setting, repository: &Repository) -> Result<(), String> {
    for stored in all_snapshots(repository)? {
        let host = setting.lost_state.lock().unwrap().contains(&stored.snapshot.host);
        if host
            && !setting.model().is_reported(&stored.id)
            && contents(repository, &stored.snapshot.root).is_err()
        {
            setting.model().forgets(stored.id, &stored.snapshot.description);
            let forgotten = repository.forget(std::slice::from_ref(&stored));
            forgotten.map_err(|error| describe(&error))?;
            setting.count(|counts| counts.forgotten_by_hand += 1);
        }
    }
    Ok(())
}

fn all_snapshots(repository: &Repository) -> Result<Vec<StoredSnapshot>, String> {
    let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
    // Void checkpoints are not listed; nobody needs them.
    repository.snapshots(&filter).map_err(|error| describe(&error))
}

/// Every snapshot that is listed holds what was backed up, and every one that must be there is listed.
fn verify_snapshots(
    setting: &Setting,
    world: &World,
    repository: &Repository,
) -> Result<(), String> {
    let late = world.arrived_late(setting.times.commit_window / 2);
    let has_rot = !world.rotted().is_empty();
    let snapshots = all_snapshots(repository)?;
    let model = setting.model();
    for stored in &snapshots {
        let (id, token) = (stored.id, &stored.snapshot.description);
        let path: ObjectPath = format!("snapshots/{id}").parse().expect("it is a name");
        match contents(repository, &stored.snapshot.root) {
            Ok(files) if model.contents(token) == Some(&files) => {}
            Ok(_) => return Err(format!("snapshot {id} with {token} has other content")),
            Err(error) if has_rot && !is_of_weather(&error) => {}
            // Its machine has not been there since.
            Err(_) if late.contains(&path) && !model.is_reported(&id) => {}
            Err(error) => {
                let reported = if model.is_reported(&id) { "reported" } else { "never reported" };
                return Err(format!(
                    "snapshot {id} with {token}, {reported}, cannot be read: {}",
                    describe(&error)
                ));
            }
        }
    }
    for (id, token) in model.with_fate(Fate::Required) {
        if !snapshots.iter().any(|stored| stored.id == *id) {
            return Err(format!("snapshot {id} with {token} was reported and is gone"));
        }
    }
    for (id, token) in model.with_fate(Fate::Replaced) {
        let has_one = snapshots.iter().any(|stored| stored.snapshot.description == token);
        if model.must_live_on(token) && !has_one {
            return Err(format!("snapshot {id} with {token} is gone, and has no successor"));
        }
    }
    Ok(())
}

/// A check finds the damage that the world did, and no other.
fn verify_check(
    repository: &Repository,
    has_rot: bool,
    torn: &BTreeSet<ObjectPath>,
) -> Result<(), String> {
    let options = CheckOptions { read: ReadData::All, workers: 1, ..CheckOptions::default() };
    let report = repository.check(&options, &()).map_err(|error| describe(&error))?;
    let listed: BTreeSet<_> = all_snapshots(repository)?.iter().map(|stored| stored.id).collect();
    // What a forgotten snapshot lacks is no loss: a prune that was stopped deletes packs before snapshots.
    let is_known = |damage: &&Damage| {
        torn.iter().any(|path| path.as_str() == damage.object)
            || (!damage.hurts.is_empty() && damage.hurts.iter().all(|(id, _)| !listed.contains(id)))
    };
    match report.damages.iter().find(|damage| !is_known(damage)) {
        Some(damage) if !has_rot => Err(format!("check finds {damage:?}")),
        _ => Ok(()),
    }
}
