use super::*;
use crate::testing::contract::CHECKS;
use crate::{LockMode, ObjectPath};

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

/// Everything that can go wrong, all the time.
fn storm(is_consistent: bool) -> Weather {
    Weather {
        lags: 500_000,
        failures: 50_000,
        lost_answers: 50_000,
        torn: 50_000,
        duplicates: 50_000,
        crashes: 50_000,
        suspends: 50_000,
        outages: 20_000,
        delays: 50_000,
        skew: Duration::from_secs(86_400),
        clock_jumps: 50_000,
        ..Weather::calm(is_consistent)
    }
}

#[test]
fn a_seed_repeats_itself_and_another_one_does_not() {
    for is_consistent in [false, true] {
        let run = |seed| {
            let world = World::new(seed, Weather::calm(is_consistent), 5);
            world.machine(0).store().create(&["packs"]).unwrap();
            world.set_weather(storm(is_consistent));
            world.run((0..5).map(|_| Box::new(busy) as Work<'_>).collect()).unwrap();
            (world.event_hash(), world.elapsed(), world.requests(), world.troubles())
        };
        let first = run(7);
        assert_eq!(first, run(7));
        assert_ne!(first.0, run(8).0);
        assert!(first.3.len() >= 6, "{:?}", first.3);
    }
}

/// Many processes, one after another.
fn busy(machine: &Machine) {
    for round in 0..40 {
        machine.process(|| {
            let store = machine.store();
            let _lock = store.lock(LockMode::Exclusive)?;
            store.write(&path(&format!("packs/{}-{round}", machine.number())), b"bytes")?;
            store.list("packs").map(drop)
        });
    }
}

#[test]
fn in_calm_weather_the_store_keeps_its_contract() {
    for is_consistent in [false, true] {
        // Locks need somebody who gives them back meanwhile.
        for (claim, check) in CHECKS.iter().filter(|(claim, _)| !claim.contains("lock")) {
            println!("{claim}");
            check(&|| {
                let world = World::new(1, Weather::calm(is_consistent), 1);
                Box::new(world.machine(0).store())
            });
        }
    }
}

#[test]
fn machines_take_turns_and_time_passes_for_all_of_them() {
    let world = World::new(3, Weather::calm(true), 4);
    world.machine(0).store().create(&["packs"]).unwrap();
    let work = |machine: &Machine| {
        for round in 0..20 {
            let store = machine.store();
            let name = path(&format!("packs/{}-{round}", machine.number()));
            let info = store.write(&name, b"bytes").unwrap();
            machine.sleep(Duration::from_secs(60));
            if round % 3 == 0 {
                store.delete(&[info]).unwrap();
            }
        }
    };
    world.run((0..4).map(|_| Box::new(work) as Work<'_>).collect()).unwrap();
    // Twenty rounds of a minute each, all at once.
    let minutes = world.elapsed().as_secs() / 60 - 24 * 60;
    assert!((20..=21).contains(&minutes), "{minutes}");
    assert_eq!(world.settled().list("packs").unwrap().len(), 4 * 13);
}

#[test]
fn a_crash_ends_a_process_and_frees_its_locks() {
    let weather = Weather { crashes: 1_000_000, ..Weather::calm(true) };
    let world = World::new(5, Weather::calm(true), 2);
    world.machine(0).store().create(&["packs"]).unwrap();
    let crashing = |machine: &Machine| {
        let result = machine.process(|| {
            let _lock = machine.store().lock(LockMode::Exclusive).unwrap();
            machine.world().set_weather(weather);
            machine.store().list("packs").unwrap();
        });
        assert!(result.is_none());
        machine.world().set_weather(Weather::calm(true));
    };
    let waiting = |machine: &Machine| {
        machine.sleep(Duration::from_millis(20));
        drop(machine.process(|| machine.store().lock(LockMode::Exclusive).unwrap()));
    };
    world.run(vec![Box::new(crashing), Box::new(waiting)]).unwrap();
}

#[test]
fn listings_lag_and_reads_do_not() {
    let weather = Weather { lags: 1_000_000, ..Weather::calm(false) };
    let world = World::new(11, weather, 2);
    let (one, other) = (world.machine(0), world.machine(1));
    one.store().create(&["packs"]).unwrap();
    let mut late = 0;
    for number in 0..20 {
        let name = path(&format!("packs/{number}"));
        one.store().write(&name, b"bytes").unwrap();
        let is_listed =
            |store: SimulatedStore| store.list("packs").unwrap().iter().any(|row| row.path == name);
        assert!(is_listed(one.store()), "a client knows what it wrote");
        late += u64::from(!is_listed(other.store()));
        assert_eq!(other.store().read_all(&name, 5).unwrap(), b"bytes");
    }
    assert!(late > 5, "{late}");
    other.sleep(weather.listing_lag);
    assert_eq!(other.store().list("packs").unwrap().len(), 20);
}

#[test]
fn a_panic_ends_the_world_and_says_where() {
    let world = World::new(5, Weather::calm(false), 2);
    world.machine(0).store().create(&[]).unwrap();
    let failing = |machine: &Machine| {
        machine.sleep(Duration::from_secs(5));
        std::panic::resume_unwind(Box::new("a mistake"));
    };
    let endless = |machine: &Machine| {
        while !machine.is_over() {
            let _ = machine.store().list("");
        }
    };
    let failure = world.run(vec![Box::new(failing), Box::new(endless)]).unwrap_err();
    assert_eq!(failure, "machine 0: a mistake");
}
