//! Single mishaps, on purpose: clocks that are off, machines that sleep for weeks, repositories that are half there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use putback_format::id::SnapshotId;
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{
    CheckOptions, Error, Password, ReadData, Repository, Result, SnapshotFilter, Times,
};
use putback_store::memory::MemoryStore;
use putback_store::testing::random::Random;
use putback_store::testing::simulated::{Machine, Weather, Work, World};
use putback_store::{ErrorKind, Store};

use crate::actors::parts_of;
use crate::run::{Plan, fill, image, run, temporary_folder};
use crate::trees::{Files, back_up, contents, describe, init, noise};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn files(numbers: &[u64]) -> Files {
    numbers.iter().map(|number| (format!("file{number}"), noise(*number, 1500))).collect()
}

/// A world with an empty repository.
fn world(seed: u64, weather: Weather, machines: usize) -> World {
    let world = World::new(seed, weather, machines);
    fill(&world);
    world
}

fn open(machine: &Machine, folder: Option<&Path>) -> Result<Repository> {
    open_store(machine.store(), machine, folder)
}

fn open_store(
    store: impl Store + 'static,
    machine: &Machine,
    folder: Option<&Path>,
) -> Result<Repository> {
    let parts = parts_of(machine, folder, Times::default());
    Repository::open_with_exported_key(Arc::new(store), &image().1, &parts)
}

fn prune_options() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), workers: 0, ..PruneOptions::default() }
}

/// Forgets snapshots by their ids.
fn forget(repository: &Repository, ids: &[SnapshotId]) -> Result<()> {
    let mut all = repository.snapshots(&SnapshotFilter::default())?;
    all.retain(|stored| ids.contains(&stored.id));
    assert_eq!(all.len(), ids.len());
    repository.forget(&all)
}

/// What each listed snapshot holds, or why it cannot be read.
fn read_all(repository: &Repository) -> Vec<(SnapshotId, Result<Files>)> {
    let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
    let all = repository.snapshots(&filter).unwrap();
    repository.load_index().unwrap();
    all.iter().map(|stored| (stored.id, contents(repository, &stored.snapshot.root))).collect()
}

/// Asserts that these snapshots are there and hold this, and that whatever else is listed can be read.
#[track_caller]
fn assert_holds(world: &World, expected: &[(SnapshotId, Files)], what: &str) {
    let repository = open_store(world.settled(), &world.machine(0), None).unwrap();
    let read = read_all(&repository);
    for (id, result) in &read {
        if let Err(error) = result {
            panic!("{what}: snapshot {id} cannot be read: {}", describe(error));
        }
    }
    for (id, files) in expected {
        let found = read.iter().find(|(listed, _)| listed == id);
        assert!(
            found.is_some_and(|(_, read)| read.as_ref().is_ok_and(|read| read == files)),
            "{what}: snapshot {id} is not what it was"
        );
    }
}

#[test]
fn clocks_that_are_off_by_a_day_lose_nothing() {
    let weather = Weather { lags: 900_000, delays: 20_000, ..Weather::calm(false) };
    let day = 86_400;
    for (number, (writers, pruners)) in
        [(day, 0), (-day, 0), (0, day), (0, -day), (day, -day), (-day, day)].into_iter().enumerate()
    {
        let clocks = Some((writers, pruners));
        let plan = Plan { weather: Some(weather), clocks, ..Plan::default() };
        if let Err(failure) = run(9000 + number as u64, &plan) {
            panic!("clocks ahead by {clocks:?} seconds: {failure}");
        }
    }
}

#[test]
fn a_pruner_whose_clock_is_ahead_does_not_carry_out_what_another_has_just_marked() {
    let mut reported = 0;
    for seed in 0..40 {
        let weather = Weather { lags: 1_000_000, ..Weather::calm(false) };
        let world = world(seed, weather, 3);
        let shared = files(&[1, 2, 3]);
        {
            let repository = open(&world.machine(0), None).unwrap();
            let first = back_up(&repository, "host", "first", &shared).unwrap();
            world.machine(0).sleep(2 * HOUR);
            forget(&repository, &[first]).unwrap();
            world.machine(0).sleep(2 * HOUR);
        }
        world.machine(2).set_clock_ahead(25 * 3600);
        let written = Mutex::new(None);
        let writer = |machine: &Machine| {
            let repository = open(machine, None).unwrap();
            let backup = repository.begin_backup(None, 0).unwrap();
            let tree = crate::trees::put_tree(&backup, &shared, &Default::default()).unwrap();
            machine.sleep(5 * MINUTE);
            let draft = crate::trees::draft(&repository, "host", "second", tree.0, None);
            *written.lock().unwrap() = backup.commit(draft).ok().map(|stored| stored.id);
        };
        let pruner = |machine: &Machine| {
            machine.sleep(MINUTE * (machine.number() as u32));
            // Whether it gets to its end does not matter.
            let _ = open(machine, None).and_then(|it| it.prune(&prune_options(), &()));
        };
        world.run(vec![Box::new(writer), Box::new(pruner), Box::new(pruner)]).unwrap();
        world.machine(0).sleep(3 * HOUR);
        if let Some(id) = written.into_inner().unwrap() {
            reported += 1;
            assert_holds(&world, &[(id, shared.clone())], &format!("seed {seed}"));
        }
    }
    assert!(reported > 5, "{reported}");
}

/// One machine sleeps for three weeks before request `number` of a backup, and may crash after it, while another prunes
/// every day. False if there was no such request.
fn sleep_in_backup(is_consistent: bool, number: u64, crashes: bool) -> bool {
    let what = format!("request {number}, crashes: {crashes}, consistent: {is_consistent}");
    let folder = temporary_folder();
    let world = world(number, Weather::calm(is_consistent), 2);
    let shared = files(&[1, 2, 3]);
    let kept = files(&[4]);
    let mut expected = Vec::new();
    {
        let repository = open(&world.machine(1), None).unwrap();
        let first = back_up(&repository, "other", "first", &shared).unwrap();
        expected.push((back_up(&repository, "other", "kept", &kept).unwrap(), kept));
        world.machine(1).sleep(2 * HOUR);
        forget(&repository, &[first]).unwrap();
    }
    let was_met = Mutex::new(true);
    let reported = Mutex::new(Vec::new());
    let sleeper = |machine: &Machine| {
        machine.plan_sleep(number, 21 * DAY, crashes);
        let result = machine.process(|| {
            let repository = open(machine, Some(folder.path()))?;
            back_up(&repository, "host", "sleeper", &shared)
        });
        *was_met.lock().unwrap() = !machine.unplan();
        if let Some(Ok(id)) = result {
            reported.lock().unwrap().push((id, shared.clone()));
        }
        // The next run goes on, without anybody repairing anything.
        let repository = open(machine, Some(folder.path())).unwrap();
        let again = back_up(&repository, "host", "again", &shared);
        let again = again.unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
        reported.lock().unwrap().push((again, shared.clone()));
    };
    let pruner = |machine: &Machine| {
        for _ in 0..25 {
            // One that meets a snapshot that came too late cannot go on until its writer has been there.
            let _ = open(machine, None).and_then(|it| it.prune(&prune_options(), &()));
            machine.sleep(DAY);
        }
    };
    world.run(vec![Box::new(sleeper), Box::new(pruner)]).unwrap();
    expected.extend(reported.into_inner().unwrap());
    assert_holds(&world, &expected, &what);
    for _ in 0..3 {
        world.machine(1).sleep(2 * DAY);
        let pruned = open(&world.machine(1), None).and_then(|it| it.prune(&prune_options(), &()));
        pruned.unwrap_or_else(|error| panic!("{what}: {}", describe(&error)));
    }
    assert_holds(&world, &expected, &what);
    was_met.into_inner().unwrap()
}

#[test]
fn a_machine_that_wakes_after_weeks_in_the_middle_of_a_backup_loses_nothing() {
    let mut points = 0;
    for (is_consistent, crashes) in [(false, false), (false, true), (true, false), (true, true)] {
        for number in 1.. {
            if !sleep_in_backup(is_consistent, number, crashes) {
                break;
            }
            points += 1;
        }
    }
    println!("{points} points");
    assert!(points > 40, "{points}");
}

#[test]
fn a_mark_from_the_future_is_avoided_at_once_and_carried_out_when_its_time_has_come() {
    let world = world(1, Weather::calm(false), 2);
    let (one, other) = (world.machine(0), world.machine(1));
    let shared = files(&[1, 2, 3]);
    let repository = open(&one, None).unwrap();
    let first = back_up(&repository, "host", "first", &shared).unwrap();
    one.sleep(2 * HOUR);
    forget(&repository, &[first]).unwrap();
    other.set_clock_ahead(30 * 86_400);
    let report = open(&other, None).unwrap().prune(&prune_options(), &()).unwrap();
    assert!(report.packs_unneeded > 0, "{report:?}");
    let before = one.store().list("packs").unwrap();

    one.sleep(2 * DAY);
    let report = open(&one, None).unwrap().prune(&prune_options(), &()).unwrap();
    assert!(report.packs_waiting > 0 && report.packs_deleted == 0, "{report:?}");
    assert!(report.seconds_to_wait > 27 * 86_400, "{report:?}");
    // It is not relied on meanwhile.
    let second = back_up(&open(&one, None).unwrap(), "host", "second", &shared).unwrap();
    assert!(one.store().list("packs").unwrap().len() > before.len());

    one.sleep(30 * DAY);
    let report = open(&one, None).unwrap().prune(&prune_options(), &()).unwrap();
    assert_eq!(report.packs_deleted, before.len() as u64, "{report:?}");
    assert_holds(&world, &[(second, shared)], "after the mark was carried out");
}

#[test]
fn of_two_inits_at_the_same_moment_one_stays_or_both_are_named() {
    let (mut one, mut both) = (0, 0);
    for seed in 0..12 {
        let world = World::new(seed, Weather::calm(false), 2);
        let made: Mutex<Vec<usize>> = Mutex::default();
        let work = |machine: &Machine| {
            let parts = parts_of(machine, None, Times::default());
            match init(Arc::new(machine.store()), &parts) {
                Ok(_) => made.lock().unwrap().push(machine.number()),
                Err(Error::RepositoryExists { .. }) => {}
                Err(error) => panic!("{}", describe(&error)),
            }
        };
        world.run(vec![Box::new(work) as Work<'_>, Box::new(work)]).unwrap();
        let made = made.into_inner().unwrap();
        assert!(!made.is_empty(), "seed {seed}: nobody has a repository");
        let machine = world.machine(0);
        let parts = parts_of(&machine, None, Times::default());
        let password = Password::new(b"password".to_vec());
        match Repository::open(Arc::new(machine.store()), &password, &parts) {
            Ok(repository) => {
                one += 1;
                assert_eq!(made.len(), 1, "seed {seed}: one of two successes is gone");
                let id = back_up(&repository, "host", "first", &files(&[1])).unwrap();
                assert!(read_all(&repository).iter().any(|(read, _)| *read == id));
            }
            Err(Error::TwoRepositories { first, second, .. }) => {
                both += 1;
                assert_ne!(first, second);
            }
            Err(error) => panic!("seed {seed}: {}", describe(&error)),
        }
    }
    println!("{one} times one stayed, {both} times both were named");
    assert!(one > 0);
}

#[test]
fn a_repository_that_is_copied_half_is_used_without_losing_what_is_there() {
    let world = world(1, Weather::calm(true), 1);
    let machine = world.machine(0);
    let mut expected = Vec::new();
    for number in 0..5 {
        let repository = open(&machine, None).unwrap();
        let files = files(&[number, number + 1, number + 2]);
        let id = back_up(&repository, "host", &number.to_string(), &files).unwrap();
        expected.push((id, files));
        machine.sleep(HOUR);
    }
    let whole = world.settled();
    let mut unreadable = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let half = MemoryStore::new().with_clock({
            let world = world.clone();
            move || world.now()
        });
        half.create(&[]).unwrap();
        for path in whole.paths() {
            let is_always_there = ["", "config", "keys", "copies"].contains(&path.folder());
            // Also when nothing of one kind was copied yet.
            let is_missing = seed % 4 == 0 && path.folder() == ["packs", "index"][random.below(2)];
            if is_always_there || (!is_missing && random.below(4) != 0) {
                half.write(&path, &whole.read_all(&path, u64::MAX).unwrap()).unwrap();
            }
        }
        let open_half = || open_store(half.clone(), &machine, None).unwrap();
        let mut readable = Vec::new();
        let mut has_missing = false;
        for (id, result) in read_all(&open_half()) {
            let (_, files) = expected.iter().find(|(known, _)| *known == id).unwrap();
            match result {
                Ok(read) => {
                    assert!(read == *files, "seed {seed}: {id}");
                    readable.push((id, files.clone()));
                }
                Err(error) => {
                    has_missing = true;
                    let is_clear = match &error {
                        error if error.is_about_blob() => true,
                        Error::Store(error) => error.kind == ErrorKind::NotFound,
                        _ => false,
                    };
                    assert!(is_clear, "seed {seed}: {}", describe(&error));
                }
            }
        }
        unreadable += u64::from(has_missing);
        let options = CheckOptions { read: ReadData::All, workers: 1, ..CheckOptions::default() };
        let report = open_half().check(&options, &()).unwrap();
        assert!(!has_missing || report.damages_total > 0, "seed {seed}: check is content");

        let new = files(&[1, 2, 3, 99]);
        let id = back_up(&open_half(), "host", "new", &new).unwrap();
        readable.push((id, new));
        for _ in 0..2 {
            machine.sleep(2 * DAY);
            let has_missing = read_all(&open_half()).iter().any(|(_, read)| read.is_err());
            let pruned = open_half().prune(&prune_options(), &());
            assert_eq!(pruned.is_err(), has_missing, "seed {seed}: {pruned:?}");
        }
        let after = read_all(&open_half());
        for (id, files) in readable {
            let found = after.iter().find(|(listed, _)| *listed == id);
            let is_there =
                found.is_some_and(|(_, read)| read.as_ref().is_ok_and(|it| *it == files));
            assert!(is_there, "seed {seed}: snapshot {id} was lost");
        }
    }
    assert!(unreadable > 20, "{unreadable}");
}

#[test]
fn a_grace_period_that_is_too_short_is_found_out() {
    // Marks that stand for a minute where listings lag for up to an hour.
    let times = Times {
        commit_window: MINUTE,
        listing_lag: Duration::ZERO,
        second_look: Duration::from_secs(1),
    };
    let weather = Weather { lags: 1_000_000, delays: 20_000, ..Weather::calm(false) };
    let plan = Plan { times, grace: MINUTE, weather: Some(weather), clocks: None };
    let failures: BTreeSet<String> = (0..400)
        .filter_map(|seed| run(seed, &plan).err())
        .take(1)
        .filter_map(|failure| failure.lines().next().map(str::to_owned))
        .collect();
    println!("{failures:?}");
    assert!(!failures.is_empty(), "no seed lost anything");
}
