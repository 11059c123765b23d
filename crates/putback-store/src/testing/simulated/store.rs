//! The store of a world, as one machine sees it.
//!
//! Rows of one name may be several; a listing comes from one of three copies of the folder, each of which may lag
//! behind in its own way, so that a name can be there, be gone and be there again. What its own process wrote or
//! deleted a client knows without asking. Reading by name does not lag.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime};

use super::schedule::Schedule;
use super::{BEGIN, Machine, Mishap, PATIENCE, State, capabilities};
use crate::path::check_folder;
use crate::testing::Call;
use crate::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Operation, Space,
    Status, Store, Upload,
};

/// Copies of each folder that answer listings.
const COPIES: usize = 3;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

struct Row {
    id: u64,
    bytes: Arc<[u8]>,
    crc32: u32,
    /// When it was asked for, and when it lay there.
    sent: u64,
    taken: u64,
    /// When each copy begins to list it.
    shown: [u64; COPIES],
    /// When each copy ceases to list it; it cannot be read any more.
    gone: Option<[u64; COPIES]>,
}

impl Row {
    fn info(&self, path: &ObjectPath, is_consistent: bool) -> ObjectInfo {
        ObjectInfo {
            path: path.clone(),
            size: self.bytes.len() as u64,
            modified: Some(
                SystemTime::UNIX_EPOCH + Duration::new(BEGIN, 0) + Duration::from_nanos(self.taken),
            ),
            service_id: (!is_consistent).then(|| self.id.to_string()),
            crc32: Some(self.crc32),
        }
    }
}

/// What the store holds.
#[derive(Default)]
pub(super) struct Objects {
    root_exists: bool,
    folders: BTreeMap<String, BTreeMap<ObjectPath, Vec<Row>>>,
    rows: u64,
}

impl Objects {
    fn row(&self, path: &ObjectPath) -> Option<&Row> {
        self.folders.get(path.folder())?.get(path)?.iter().find(|row| row.gone.is_none())
    }

    fn live(&self) -> impl Iterator<Item = (&ObjectPath, &Row)> {
        let all = self.folders.values().flatten();
        all.flat_map(|(path, rows)| rows.iter().map(move |row| (path, row)))
            .filter(|(_, row)| row.gone.is_none())
    }

    /// The first row of each name.
    pub(super) fn settled(&self) -> BTreeMap<ObjectPath, Arc<[u8]>> {
        let mut settled = BTreeMap::new();
        for (path, row) in self.live() {
            settled.entry(path.clone()).or_insert_with(|| Arc::clone(&row.bytes));
        }
        settled
    }

    pub(super) fn arrived_late(&self, late: u64) -> BTreeSet<ObjectPath> {
        let is_late = |(_, row): &(&ObjectPath, &Row)| row.taken - row.sent > late;
        self.live().filter(is_late).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn taken_at(&self, path: &ObjectPath) -> Option<u64> {
        self.row(path).map(|row| row.taken)
    }
}

/// The locks of a store that has them.
#[derive(Default)]
pub(super) struct Locks {
    held: Vec<(u64, LockMode)>,
    given: u64,
    waiting: Vec<usize>,
}

impl Locks {
    fn take(&mut self, mode: LockMode) -> Option<u64> {
        let is_free = match mode {
            LockMode::Shared => self.held.iter().all(|(_, held)| *held == LockMode::Shared),
            LockMode::Exclusive => self.held.is_empty(),
        };
        if !is_free {
            return None;
        }
        self.given += 1;
        self.held.push((self.given, mode));
        Some(self.given)
    }

    /// Has everybody who waits look again. Whether there was anybody.
    pub(super) fn wake_all(&mut self, schedule: &mut Schedule) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.iter().for_each(|machine| schedule.wake_at(1000, *machine));
        !waiting.is_empty()
    }
}

impl State {
    fn is_consistent(&self) -> bool {
        self.weather.is_consistent
    }

    /// When each copy of a folder follows what happens now.
    fn draw_lag(&mut self, machine: usize) -> [u64; COPIES] {
        let now = self.schedule.now();
        let lag = u64::try_from(self.weather.listing_lag.as_nanos()).unwrap_or(u64::MAX);
        let random = &mut self.machines[machine].random;
        if self.weather.is_consistent || !random.happens(self.weather.lags) {
            return [now; COPIES];
        }
        let most = if random.below(4) == 0 { lag } else { lag.min(60 * SECOND) };
        std::array::from_fn(|_| now + random.draw() % (most + 1))
    }

    /// Fails unless the store's root exists.
    fn check_root(&self, folder: &str, operation: Operation) -> Result<(), Error> {
        check_folder(folder).map_err(|invalid| {
            Error::new(ErrorKind::Other, operation, folder).with_source(invalid)
        })?;
        match self.objects.root_exists {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, operation, "the simulated store")),
        }
    }

    fn list(&mut self, machine: usize, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.check_root(folder, Operation::List)?;
        let (now, is_consistent) = (self.schedule.now(), self.is_consistent());
        let condition = &mut self.machines[machine];
        let copy = condition.random.below(COPIES);
        let Some(paths) = self.objects.folders.get_mut(folder) else { return Ok(Vec::new()) };
        let mut infos = Vec::new();
        paths.retain(|path, rows| {
            rows.retain(|row| {
                let is_shown = row.shown[copy] <= now || condition.written.contains(&row.id);
                let is_gone = row.gone.is_some_and(|gone| gone[copy] <= now)
                    || condition.deleted.contains(&row.id);
                if is_shown && !is_gone {
                    infos.push(row.info(path, is_consistent));
                }
                row.gone.is_none_or(|gone| gone.iter().any(|gone| *gone > now))
            });
            !rows.is_empty()
        });
        Ok(infos)
    }

    fn read(&self, path: &ObjectPath, operation: Operation) -> Result<&Row, Error> {
        let row = self.objects.row(path);
        row.ok_or_else(|| Error::new(ErrorKind::NotFound, operation, path.as_str()))
    }

    fn put(
        &mut self,
        machine: usize,
        sent: u64,
        path: &ObjectPath,
        bytes: &[u8],
    ) -> Result<ObjectInfo, Error> {
        self.check_root(path.folder(), Operation::Write)?;
        let is_consistent = self.is_consistent();
        let crc32 = crc32fast::hash(bytes);
        if let Some(row) = self.objects.row(path) {
            if row.bytes.len() == bytes.len() {
                return Ok(row.info(path, is_consistent));
            }
            return Err(Error::new(ErrorKind::AlreadyExists, Operation::Write, path.as_str()));
        }
        let random = &mut self.machines[machine].random;
        let is_double = !is_consistent && random.happens(self.weather.duplicates);
        if is_double {
            self.trouble("duplicates");
        }
        let taken = self.schedule.now();
        let mut info = None;
        for _ in 0..=usize::from(is_double) {
            let shown = self.draw_lag(machine);
            self.objects.rows += 1;
            let id = self.objects.rows;
            let row = Row { id, bytes: bytes.into(), crc32, sent, taken, shown, gone: None };
            info.get_or_insert_with(|| row.info(path, is_consistent));
            self.machines[machine].written.insert(id);
            let folder = self.objects.folders.entry(path.folder().to_owned()).or_default();
            folder.entry(path.clone()).or_default().push(row);
        }
        info.ok_or_else(|| Error::new(ErrorKind::Other, Operation::Write, path.as_str()))
    }

    pub(super) fn fill(&mut self, objects: Vec<(ObjectPath, Vec<u8>)>) {
        self.objects.root_exists = true;
        let now = self.schedule.now();
        for (path, bytes) in objects {
            self.objects.rows += 1;
            let (id, crc32) = (self.objects.rows, crc32fast::hash(&bytes));
            let shown = [now; COPIES];
            let row =
                Row { id, bytes: bytes.into(), crc32, sent: now, taken: now, shown, gone: None };
            let folder = self.objects.folders.entry(path.folder().to_owned()).or_default();
            folder.entry(path).or_default().push(row);
        }
    }

    fn delete(&mut self, machine: usize, objects: &[ObjectInfo]) {
        for object in objects {
            let gone = self.draw_lag(machine);
            let folder = self.objects.folders.get_mut(object.path.folder());
            let Some(rows) = folder.and_then(|folder| folder.get_mut(&object.path)) else {
                continue;
            };
            for row in rows.iter_mut().filter(|row| row.gone.is_none()) {
                let id = row.id.to_string();
                if object.service_id.as_ref().is_none_or(|meant| *meant == id) {
                    row.gone = Some(gone);
                    self.machines[machine].deleted.insert(row.id);
                }
            }
        }
    }

    /// Flips a bit of a pack.
    fn rot(&mut self) {
        let Some(packs) = self.objects.folders.get_mut("packs") else { return };
        let count = packs.values().flatten().count();
        if count == 0 {
            return;
        }
        let chosen = self.random.below(count);
        let rows =
            packs.iter_mut().flat_map(|(path, rows)| rows.iter_mut().map(move |row| (path, row)));
        let Some((path, row)) = rows.into_iter().nth(chosen) else { return };
        let mut bytes = row.bytes.to_vec();
        if bytes.is_empty() {
            return;
        }
        let at = self.random.below(bytes.len());
        bytes[at] ^= 1 << self.random.below(8);
        row.bytes = bytes.into();
        let path = path.clone();
        self.trouble("rot");
        self.rotted.insert(path);
    }
}

/// The store of a world, as one machine sees it.
#[derive(Clone)]
pub struct SimulatedStore {
    machine: Machine,
}

impl SimulatedStore {
    pub(super) const fn new(machine: Machine) -> Self {
        Self { machine }
    }

    fn number(&self) -> usize {
        self.machine.number
    }

    /// One request: time passes, things go wrong, and `effect` happens at the end of it.
    fn request<T>(
        &self,
        call: Call,
        path: &str,
        effect: impl FnOnce(&mut State, u64) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let number = self.number();
        let fail = |status, why: &str| {
            Error::new(ErrorKind::Other, call.operation(), path)
                .with_status(status)
                .with_source(why)
        };
        let mut state = self.machine.inner().state();
        if std::thread::panicking() || state.machines[number].has_crashed || state.failure.is_some()
        {
            return Err(fail(Status::Permanent, "the process has ended"));
        }
        state.requests += 1;
        let sent = state.schedule.now();
        let weather = state.weather;
        let random = &mut state.machines[number].random;
        let remote = |chance| if weather.is_consistent { 0 } else { chance };
        // All that may happen is drawn at once, so that what a request meets depends on no other machine.
        let loses_network = random.happens(remote(weather.outages));
        let sleeps = random.happens(weather.suspends);
        let sleeps_first = random.below(2) == 0;
        let is_slow = random.happens(weather.delays);
        let rots = random.happens(weather.rot);
        let jumps = random.happens(weather.clock_jumps);
        let fails = random.happens(weather.failures);
        let loses_answer = random.happens(weather.lost_answers);
        let mut crashes = random.happens(weather.crashes);
        let mut crashes_first = random.below(2) == 0;
        let longest = u64::try_from(weather.suspend_longest.as_nanos()).unwrap_or(u64::MAX);
        let sleep = random.spread(600 * SECOND, longest);
        let latency = match (is_slow, weather.is_consistent) {
            (true, _) => random.spread(10 * SECOND, 300 * SECOND),
            (false, true) => random.spread(50_000, 5_000_000),
            (false, false) => random.spread(50_000_000, 800_000_000),
        };
        if loses_network {
            let until = sent + random.spread(600 * SECOND, 24 * HOUR);
            state.machines[number].offline_until = until;
            state.trouble("outages");
        }
        let away = state.machines[number].offline_until.saturating_sub(sent);
        if away > 0 {
            let patience = PATIENCE.as_secs() * SECOND;
            state = self.machine.pause(state, away.min(patience));
            if away > patience {
                state.note(number, format!("{call:?} {path}: no network"));
                return Err(fail(Status::Exhausted, "the network is away"));
            }
        }
        if sleeps && sleeps_first {
            state = self.sleep(state, sleep);
        }
        let planned = state.machines[number].mishap;
        match planned.map(|mishap| (mishap.requests_before, mishap)) {
            Some((0, mishap)) => {
                state.machines[number].mishap = None;
                let nanos = u64::try_from(mishap.sleep.as_nanos()).unwrap_or(u64::MAX);
                state = self.sleep(state, nanos);
                (crashes, crashes_first) = (mishap.crashes, false);
            }
            Some((before, mishap)) => {
                let requests_before = before - 1;
                state.machines[number].mishap = Some(Mishap { requests_before, ..mishap });
            }
            None => {}
        }
        state = self.machine.pause(state, latency);
        if rots {
            state.rot();
        }
        if jumps {
            state.trouble("clock jumps");
            state.draw_clock(number);
        }
        if fails {
            state.trouble("failures");
            state.note(number, format!("{call:?} {path}: fails"));
            return Err(fail(Status::Temporary, "a failure by chance"));
        }
        if crashes && crashes_first {
            state.trouble("crashes before a request");
            state.note(number, format!("{call:?} {path}: crashes before"));
            self.machine.crash(state);
        }
        let result = effect(&mut state, sent);
        let outcome = match &result {
            Ok(_) => String::new(),
            Err(error) => format!(": {:?}", error.kind),
        };
        state.note(number, format!("{call:?} {path}{outcome}"));
        if crashes {
            state.trouble("crashes after a request");
            state.note(number, "crashes".to_owned());
            self.machine.crash(state);
        }
        if sleeps && !sleeps_first {
            state = self.sleep(state, sleep);
        }
        if loses_answer && result.is_ok() {
            state.trouble("lost answers");
            state.note(number, "the answer is lost".to_owned());
            return Err(fail(Status::Exhausted, "the answer was lost"));
        }
        result
    }

    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>, nanos: u64) -> MutexGuard<'a, State> {
        state.trouble("suspends");
        let hours = nanos as f64 / HOUR as f64;
        state.note(self.number(), format!("the machine sleeps for {hours:.1} h"));
        self.machine.pause(state, nanos)
    }
}

impl Store for SimulatedStore {
    fn describe(&self) -> String {
        "the simulated store".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.machine.inner().state().is_consistent())
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        self.request(Call::Create, &folders.join(" "), |state, _| {
            for folder in folders {
                check_folder(folder).map_err(|invalid| {
                    Error::new(ErrorKind::Other, Operation::Manage, *folder).with_source(invalid)
                })?;
            }
            Ok(!std::mem::replace(&mut state.objects.root_exists, true))
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.request(Call::List, folder, |state, _| state.list(self.number(), folder))
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        self.request(Call::Stat, path.as_str(), |state, _| {
            let is_consistent = state.is_consistent();
            state.read(path, Operation::Stat).map(|row| row.info(path, is_consistent))
        })
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.clear();
        let result = self.request(Call::Read, path.as_str(), |state, _| {
            let row = state.read(path, Operation::Read)?;
            let wanted = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let bytes = match range.is_empty() {
                true => Some(&[][..]),
                false => wanted.and_then(|(start, end)| row.bytes.get(start..end)),
            };
            let corrupt = || Error::new(ErrorKind::Corrupt, Operation::Read, path.as_str());
            buffer.extend_from_slice(bytes.ok_or_else(corrupt)?);
            Ok(())
        });
        if result.is_err() {
            buffer.clear();
        }
        result
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        self.request(Call::ReadAll, path.as_str(), |state, _| {
            let row = state.read(path, Operation::Read)?;
            if row.bytes.len() as u64 > bytes_max {
                return Err(Error::new(ErrorKind::Corrupt, Operation::Read, path.as_str()));
            }
            Ok(row.bytes.to_vec())
        })
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        self.request(Call::Write, path.as_str(), |state, sent| {
            state.put(self.number(), sent, path, bytes)
        })
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        // Nothing is sent before the first piece.
        self.machine.inner().state().check_root(folder, Operation::Write)?;
        let (store, folder) = (self.clone(), folder.to_owned());
        Ok(Box::new(SimulatedUpload { store, folder, bytes: Vec::new() }))
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let Some(first) = objects.first() else { return Ok(()) };
        let what = format!("{} and {} more", first.path, objects.len() - 1);
        self.request(Call::Delete, &what, |state, _| {
            let torn = state.weather.torn;
            let random = &mut state.machines[self.number()].random;
            if random.happens(torn) {
                let part = random.below(objects.len());
                state.trouble("deletions in part");
                state.delete(self.number(), &objects[..part]);
                return Err(Error::new(ErrorKind::Other, Operation::Delete, first.path.as_str())
                    .with_status(Status::Exhausted));
            }
            state.delete(self.number(), objects);
            Ok(())
        })
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        Ok(None)
    }

    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        if !self.capabilities().is_consistent {
            return Ok(None);
        }
        self.request(Call::Lock, "", |state, _| state.check_root("", Operation::Manage))?;
        let locked = |why| Error::new(ErrorKind::Locked, Operation::Manage, "").with_source(why);
        let mut state = self.machine.inner().state();
        let token = loop {
            if state.failure.is_some() {
                return Err(locked("the process has ended"));
            }
            if let Some(token) = state.locks.take(mode) {
                break token;
            }
            if !state.schedule.is_running() {
                return Err(locked("there is nobody else who could give it back"));
            }
            state.locks.waiting.push(self.number());
            state = self.machine.hand_over(state);
        };
        drop(state);
        Ok(Some(Box::new(SimulatedLock { machine: self.machine.clone(), token })))
    }
}

/// A lock that is given back when it is dropped, also by a crash.
struct SimulatedLock {
    machine: Machine,
    token: u64,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.machine.inner().state();
        let State { locks, schedule, .. } = &mut *state;
        locks.held.retain(|(token, _)| *token != self.token);
        locks.wake_all(schedule);
    }
}

/// A pack that is on its way.
struct SimulatedUpload {
    store: SimulatedStore,
    folder: String,
    bytes: Vec<u8>,
}

impl Upload for SimulatedUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let number = self.store.number();
        if path.folder() != self.folder {
            return Err(Error::new(ErrorKind::Other, Operation::Write, path.as_str())
                .with_source("it was begun in another folder"));
        }
        self.store.request(Call::Finish, path.as_str(), |state, sent| {
            let torn = state.weather.torn;
            let random = &mut state.machines[number].random;
            if random.happens(torn) {
                let part = random.below(self.bytes.len().max(1));
                let leaves_part = random.below(2) == 0;
                state.trouble("torn packs");
                if leaves_part {
                    state.put(number, sent, path, &self.bytes[..part])?;
                    state.torn.insert(path.clone());
                }
                return Err(Error::new(ErrorKind::Other, Operation::Write, path.as_str())
                    .with_status(Status::Exhausted)
                    .with_source("the upload was torn"));
            }
            state.put(number, sent, path, &self.bytes)
        })
    }
}
