//! A world in which two weeks of many machines pass in a fraction of a second, and pass the same way again.
//!
//! A [`World`] has one store and some [`Machine`]s. Each machine is a thread, and exactly one of them runs at any
//! time: every request to the store and every sleep is an event that takes virtual time, and hands over to
//! whoever is next. What goes wrong ([`Weather`]) and how long everything takes follows from the seed, so that a seed
//! that shows a mistake shows it each time. [`World::event_hash`] tells whether two runs were the same.
//!
//! Code under test must start no threads of its own, and ask neither the system's clock nor its random bytes.
//!
//! - `schedule.rs`: virtual time, and whose turn it is.
//! - `store.rs`: the store as one machine sees it.

mod schedule;
mod store;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::schedule::Schedule;
pub use self::store::SimulatedStore;
use self::store::{Locks, Objects};
use super::random::Random;
use crate::memory::MemoryStore;
use crate::{Capabilities, Error, ObjectPath, Store};

/// Events that are kept for who wants to know what led to a mistake, unless more were asked for.
const EVENTS_KEPT: usize = 200;
/// When worlds begin, in seconds since 1970: the first of January 2026.
const BEGIN: u64 = 1_767_225_600;
/// How long a client tries to reach the store before it gives up.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// What goes wrong, and how often. Chances are per million requests.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Listings show everything at once, and there are locks; else listings may lag, and there are none.
    pub is_consistent: bool,
    /// How far listings lag behind at most, where they do.
    pub listing_lag: Duration,
    /// Writes and deletions that listings show late.
    pub lags: u64,
    /// Requests that fail and do nothing.
    pub failures: u64,
    /// Requests that do what they should, and report a failure.
    pub lost_answers: u64,
    /// Packs that are cut short: the writer is told, and what came of it may be left under the name.
    pub torn: u64,
    /// Objects that come to lie there twice under one name, where the store has ids for its rows.
    pub duplicates: u64,
    /// Requests at which the process ends.
    pub crashes: u64,
    /// Requests at which the machine sleeps for up to `suspend_longest`.
    pub suspends: u64,
    /// The longest of these sleeps.
    pub suspend_longest: Duration,
    /// Requests at which the machine loses its network for up to a day.
    pub outages: u64,
    /// Requests that take up to some minutes.
    pub delays: u64,
    /// How far the clocks of machines may be off, in both directions.
    pub skew: Duration,
    /// Requests at which a machine's clock is set anew.
    pub clock_jumps: u64,
    /// Requests at which a bit of some stored pack flips.
    pub rot: u64,
}

impl Weather {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn calm(is_consistent: bool) -> Self {
        Self {
            is_consistent,
            listing_lag: Duration::from_secs(60 * 60),
            lags: 0,
            failures: 0,
            lost_answers: 0,
            torn: 0,
            duplicates: 0,
            crashes: 0,
            suspends: 0,
            suspend_longest: Duration::from_secs(3 * 24 * 60 * 60),
            outages: 0,
            delays: 0,
            skew: Duration::ZERO,
            clock_jumps: 0,
            rot: 0,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Since the world began.
    pub time: Duration,
    /// The number of the machine.
    pub machine: usize,
    /// What it was.
    pub what: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        let millis = self.time.subsec_millis();
        write!(f, "day {days:2} {hours:02}:{minutes:02}:{seconds:02}.{millis:03} ")?;
        write!(f, "machine {:2}: {}", self.machine, self.what)
    }
}

/// What a machine has of its own.
struct Condition {
    random: Random,
    /// What its clock is ahead by, in nanoseconds.
    clock_offset: i64,
    /// When it was started.
    booted: u64,
    offline_until: u64,
    has_crashed: bool,
    /// Rows that its running process wrote and deleted: those a client knows of without asking.
    written: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
    mishap: Option<Mishap>,
}

/// What a test has planned for a request.
#[derive(Clone, Copy, Debug)]
struct Mishap {
    /// How many requests come before it.
    requests_before: u64,
    sleep: Duration,
    crashes: bool,
}

struct State {
    schedule: Schedule,
    weather: Weather,
    random: Random,
    machines: Vec<Condition>,
    objects: Objects,
    locks: Locks,
    rotted: BTreeSet<ObjectPath>,
    torn: BTreeSet<ObjectPath>,
    events: VecDeque<Event>,
    events_kept: usize,
    hash: u64,
    requests: u64,
    troubles: BTreeMap<&'static str, u64>,
    /// The first panic: everything else ends.
    failure: Option<String>,
}

impl State {
    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn note(&mut self, machine: usize, what: String) {
        self.mix(self.schedule.now());
        self.mix(machine as u64);
        for piece in what.as_bytes().chunks(8) {
            let mut number = [0; 8];
            number[..piece.len()].copy_from_slice(piece);
            self.mix(u64::from_le_bytes(number));
        }
        if self.events.len() >= self.events_kept {
            self.events.pop_front();
        }
        let time = Duration::from_nanos(self.schedule.now());
        self.events.push_back(Event { time, machine, what });
    }

    fn trouble(&mut self, what: &'static str) {
        *self.troubles.entry(what).or_default() += 1;
    }

    /// Where a machine's clock is set to: mostly about right.
    fn draw_clock(&mut self, machine: usize) {
        let most = u64::try_from(self.weather.skew.as_nanos()).unwrap_or(u64::MAX);
        let random = &mut self.machines[machine].random;
        let off = match random.below(4) {
            _ if most == 0 => 0,
            0 => random.draw() % most,
            1 => random.draw() % most.min(600_000_000_000),
            _ => 0,
        };
        let off = i64::try_from(off).unwrap_or(i64::MAX);
        let offset = if random.below(2) == 0 { off } else { -off };
        self.machines[machine].clock_offset = offset;
    }
}

struct Inner {
    state: Mutex<State>,
    /// One for each machine.
    turns: Vec<Condvar>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Machines, a store that they share, and their time. Clones are the same world.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

/// What unwinds the thread of a machine that crashed.
struct Crash;

/// What a machine does.
pub type Work<'a> = Box<dyn FnOnce(&Machine) + Send + 'a>;

impl World {
    /// A world of so many machines, whose fate follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, machines: usize) -> Self {
        let mut random = Random::new(seed);
        let conditions = (0..machines)
            .map(|_| Condition {
                random: Random::new(random.draw()),
                clock_offset: 0,
                booted: 0,
                offline_until: 0,
                has_crashed: false,
                written: BTreeSet::new(),
                deleted: BTreeSet::new(),
                mishap: None,
            })
            .collect();
        let mut state = State {
            // A machine may have been running for a day when the world begins.
            schedule: Schedule::new(86_400_000_000_000, machines),
            weather,
            random,
            machines: conditions,
            objects: Objects::default(),
            locks: Locks::default(),
            rotted: BTreeSet::new(),
            torn: BTreeSet::new(),
            events: VecDeque::new(),
            events_kept: EVENTS_KEPT,
            hash: seed,
            requests: 0,
            troubles: BTreeMap::new(),
            failure: None,
        };
        (0..machines).for_each(|machine| state.draw_clock(machine));
        let turns = (0..machines).map(|_| Condvar::new()).collect();
        Self { inner: Arc::new(Inner { state: Mutex::new(state), turns }) }
    }

    /// The machine with this number.
    #[must_use]
    pub fn machine(&self, number: usize) -> Machine {
        Machine { world: self.clone(), number }
    }

    /// Runs one work for each machine, from the first on, until all have ended. Machines that are used outside
    /// of this call have the world for themselves.
    ///
    /// # Errors
    /// The text of the first panic. All requests of other machines fail from then on.
    pub fn run(&self, works: Vec<Work<'_>>) -> Result<(), String> {
        let mut state = self.inner.state();
        for number in 0..works.len() {
            state.schedule.wake_at(0, number);
        }
        let first = state.schedule.begin();
        drop(state);
        std::thread::scope(|scope| {
            for (number, work) in works.into_iter().enumerate() {
                scope.spawn(move || {
                    let machine = self.machine(number);
                    machine.wait_for_first_turn();
                    let panic = catch_unwind(AssertUnwindSafe(|| work(&machine))).err();
                    machine.leave(panic);
                });
            }
            if let Some(turn) = first.and_then(|first| self.inner.turns.get(first)) {
                turn.notify_one();
            }
        });
        let mut state = self.inner.state();
        state.schedule.end();
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Has the store hold what is in these folders of another one, and from now on exist.
    ///
    /// # Errors
    /// Those of the other store.
    pub fn fill_from(&self, other: &dyn Store, folders: &[&str]) -> Result<(), Error> {
        let mut objects = Vec::new();
        for folder in folders {
            for info in other.list(folder)? {
                let bytes = other.read_all(&info.path, info.size)?;
                objects.push((info.path, bytes));
            }
        }
        self.inner.state().fill(objects);
        Ok(())
    }

    /// Time since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.inner.state().schedule.now())
    }

    /// The true time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN) + self.elapsed()
    }

    /// From now on nothing goes wrong any more.
    pub fn calm_down(&self) {
        let mut state = self.inner.state();
        state.weather = Weather::calm(state.weather.is_consistent);
        for condition in &mut state.machines {
            condition.offline_until = 0;
            condition.clock_offset = 0;
        }
    }

    /// From now on this is the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.inner.state().weather = weather;
    }

    /// What the store holds, in a store of its own that shows all of it.
    #[must_use]
    pub fn settled(&self) -> MemoryStore {
        let state = self.inner.state();
        let is_consistent = state.weather.is_consistent;
        let world = self.clone();
        let settled = MemoryStore::new()
            .with_clock(move || world.now())
            .with_capabilities(capabilities(is_consistent));
        let rows = state.objects.settled();
        drop(state);
        if settled.create(&[]).is_ok() {
            for (path, bytes) in rows {
                // It is empty: there is nothing that a write could collide with.
                let _ = settled.write(&path, &bytes);
            }
        }
        settled
    }

    /// Packs of which a bit flipped.
    #[must_use]
    pub fn rotted(&self) -> BTreeSet<ObjectPath> {
        self.inner.state().rotted.clone()
    }

    /// Packs that were cut short, whose writers were told.
    #[must_use]
    pub fn torn(&self) -> BTreeSet<ObjectPath> {
        self.inner.state().torn.clone()
    }

    /// Objects that came to lie there only so long after they were sent.
    #[must_use]
    pub fn arrived_late(&self, late: Duration) -> BTreeSet<ObjectPath> {
        let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.inner.state().objects.arrived_late(late)
    }

    /// When the store took an object, since the world began.
    #[must_use]
    pub fn taken_at(&self, path: &ObjectPath) -> Option<Duration> {
        self.inner.state().objects.taken_at(path).map(Duration::from_nanos)
    }

    /// From now on so many events are kept.
    pub fn keep_events(&self, count: usize) {
        self.inner.state().events_kept = count;
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.inner.state().events.iter().cloned().collect()
    }

    /// Differs if any event does.
    #[must_use]
    pub fn event_hash(&self) -> u64 {
        self.inner.state().hash
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.inner.state().requests
    }

    /// What went wrong so far, and how often.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<&'static str, u64> {
        self.inner.state().troubles.clone()
    }
}

fn capabilities(is_consistent: bool) -> Capabilities {
    Capabilities { is_remote: !is_consistent, connections: 2, is_consistent }
}

/// One machine of a [`World`], with clocks, random bytes and a way to the store.
#[derive(Clone)]
pub struct Machine {
    world: World,
    number: usize,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({})", self.number)
    }
}

impl Machine {
    /// Its number.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// The world.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The store as this machine sees it.
    #[must_use]
    pub fn store(&self) -> SimulatedStore {
        SimulatedStore::new(self.clone())
    }

    /// What its clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let offset = self.inner().state().machines[self.number].clock_offset;
        let off = Duration::from_nanos(offset.unsigned_abs());
        let now = self.world.now();
        if offset < 0 { now - off } else { now + off }
    }

    /// Time since it was started, sleep included.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        let state = self.inner().state();
        Duration::from_nanos(state.schedule.now() - state.machines[self.number].booted)
    }

    /// Sets its clock ahead by so many seconds, or behind.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.inner().state().machines[self.number].clock_offset = seconds * 1_000_000_000;
    }

    /// At the request number `number` from now on, counted from 1, the machine sleeps for so long before it is sent,
    /// and its process ends when it was carried out, if it `crashes`.
    pub fn plan_sleep(&self, number: u64, sleep: Duration, crashes: bool) {
        let mishap = Mishap { requests_before: number.saturating_sub(1), sleep, crashes };
        self.inner().state().machines[self.number].mishap = Some(mishap);
    }

    /// Gives up what was planned. Whether it had not come yet.
    pub fn unplan(&self) -> bool {
        self.inner().state().machines[self.number].mishap.take().is_some()
    }

    /// Lets time pass.
    pub fn sleep(&self, time: Duration) {
        if std::thread::panicking() {
            return;
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let state = self.inner().state();
        let mut state = self.pause(state, nanos);
        let now = state.schedule.now();
        state.mix(now);
    }

    /// Random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.inner().state().machines[self.number].random.fill(bytes);
    }

    /// Notes an event of whoever uses the machine.
    pub fn note(&self, what: String) {
        self.inner().state().note(self.number, what);
    }

    /// Whether somebody else has failed, so that there is no use in going on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.inner().state().failure.is_some()
    }

    /// Runs a process. `None` if it crashed; the machine has then been started again.
    pub fn process<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.inner().state();
            let condition = &mut state.machines[self.number];
            condition.written.clear();
            condition.deleted.clear();
        }
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Crash>() => {
                let mut state = self.inner().state();
                state.note(self.number, "starts again".to_owned());
                let now = state.schedule.now();
                let condition = &mut state.machines[self.number];
                condition.has_crashed = false;
                if condition.random.below(2) == 0 {
                    condition.booted = now;
                }
                let nanos = condition.random.spread(1_000_000_000, 6 * 3_600_000_000_000);
                drop(self.pause(state, nanos));
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    fn inner(&self) -> &Inner {
        &self.world.inner
    }

    /// Ends the process that runs on this machine, and frees the locks that it holds.
    fn crash(&self, mut state: MutexGuard<'_, State>) -> ! {
        state.machines[self.number].has_crashed = true;
        drop(state);
        // Not a panic: nobody is told.
        resume_unwind(Box::new(Crash))
    }

    /// Hands over until so much time has passed.
    fn pause<'a>(&'a self, mut state: MutexGuard<'a, State>, nanos: u64) -> MutexGuard<'a, State> {
        if state.failure.is_some() {
            return state;
        }
        if !state.schedule.is_running() {
            state.schedule.pass(nanos);
            return state;
        }
        state.schedule.wake_at(nanos, self.number);
        self.hand_over(state)
    }

    /// Lets the next one go on, and waits for the own turn.
    fn hand_over<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.call_next(&mut state);
        self.wait_for_turn(state)
    }

    fn call_next(&self, state: &mut State) {
        let mut next = state.schedule.next();
        if next.is_none() && state.locks.wake_all(&mut state.schedule) {
            let failure = "all machines wait for a lock that nobody gives back".to_owned();
            state.failure.get_or_insert(failure);
            next = state.schedule.next();
        }
        if let Some(next) = next.filter(|next| *next != self.number) {
            self.inner().turns[next].notify_one();
        }
    }

    fn wait_for_turn<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.schedule.turn() != Some(self.number) {
            state =
                self.inner().turns[self.number].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn wait_for_first_turn(&self) {
        drop(self.wait_for_turn(self.inner().state()));
    }

    /// The machine does nothing more.
    fn leave(&self, panic: Option<Box<dyn Any + Send>>) {
        let mut state = self.inner().state();
        if let Some(panic) = panic {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a crash outside of a process".to_owned());
            let text = format!("machine {}: {text}", self.number);
            state.failure.get_or_insert(text);
        }
        self.call_next(&mut state);
    }
}

#[cfg(test)]
mod tests;
