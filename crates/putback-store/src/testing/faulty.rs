//! A layer that fails on purpose.
//!
//! A [`Fault`] says which request fails, and whether the request had its effect before the caller
//! heard of an error; besides faults, a [`FaultyStore`] can be full, read-only, show listings late
//! and read flipped bits. Whatever is left to chance follows from the seed and the order of the
//! requests, so a single-threaded run repeats exactly.
//!
//! A first run without faults counts the requests; then one run for each of them with a fault
//! there reaches every point at which something can go wrong:
//!
//! ```
//! use std::sync::Arc;
//! use putback_store::{ErrorKind, Status, Store};
//! use putback_store::memory::MemoryStore;
//! use putback_store::testing::faulty::{Calls, Fault, FaultyStore};
//!
//! let memory = MemoryStore::new();
//! memory.create(&["packs"])?;
//! let work = |store: &dyn Store| store.write(&"packs/a".parse().unwrap(), b"bytes");
//!
//! let calm = FaultyStore::new(Arc::new(memory.fork()), 1);
//! work(&calm)?;
//! for number in 1..=calm.request_count() {
//!     let stormy = FaultyStore::new(Arc::new(memory.fork()), 1);
//!     stormy.plant(Fault::after(Calls::Any, number).crashing());
//!     assert!(work(&stormy).is_err());
//! }
//! # Ok::<(), putback_store::Error>(())
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Call;
use super::random::Random;
use crate::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Space, Status, Store,
    Upload,
};

/// Which requests a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// All of them.
    Any,
    /// Those that can change what others see ([`Call::is_change`]).
    Changes,
    /// Those of one kind.
    Only(Call),
}

impl Calls {
    fn contain(self, call: Call) -> bool {
        match self {
            Self::Any => true,
            Self::Changes => call.is_change(),
            Self::Only(only) => call == only,
        }
    }
}

/// How much of a request is done although it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Nothing,
    Part,
    Everything,
}

/// A request that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    calls: Calls,
    /// Which of these requests, counted from 1 since the fault was planted.
    number: u64,
    effect: Effect,
    kind: ErrorKind,
    status: Status,
    is_lasting: bool,
    is_crash: bool,
    is_silent: bool,
}

impl Fault {
    /// The request number `number` of `calls`, counted from 1 from now on, fails and does nothing.
    /// Its error is permanent and of kind [`ErrorKind::Other`].
    #[must_use]
    pub const fn before(calls: Calls, number: u64) -> Self {
        Self {
            calls,
            number,
            effect: Effect::Nothing,
            kind: ErrorKind::Other,
            status: Status::Permanent,
            is_lasting: false,
            is_crash: false,
            is_silent: false,
        }
    }

    /// As [`Fault::before`], but the request does all it should before the caller gets the error:
    /// the answer is lost.
    #[must_use]
    pub const fn after(calls: Calls, number: u64) -> Self {
        Self { effect: Effect::Everything, ..Self::before(calls, number) }
    }

    /// As [`Fault::before`], but the request is half done: the object that it should write is
    /// visible but cut short, or only some of the objects are deleted. Other requests do nothing.
    /// Only fair to callers that claim to cope with stores that do this.
    #[must_use]
    pub const fn torn(calls: Calls, number: u64) -> Self {
        Self { effect: Effect::Part, ..Self::before(calls, number) }
    }

    /// Fails with this error.
    #[must_use]
    pub const fn with_error(mut self, kind: ErrorKind, status: Status) -> Self {
        self.kind = kind;
        self.status = status;
        self
    }

    /// All later requests of the same kinds fail in the same way.
    #[must_use]
    pub const fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    /// All later requests of any kind fail without effect, as if the caller's process had ended.
    #[must_use]
    pub const fn crashing(mut self) -> Self {
        self.is_crash = true;
        self
    }

    /// A torn write reports success, as of a disk that lost what it had promised to keep.
    #[must_use]
    pub const fn silently(mut self) -> Self {
        self.is_silent = true;
        self
    }
}

/// A store that fails as it is told. Clones share their faults.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

struct State {
    random: Random,
    counts: BTreeMap<Call, u64>,
    requests: u64,
    failures: u64,
    troubles: Troubles,
}

/// Everything that [`FaultyStore::heal`] ends.
#[derive(Default)]
struct Troubles {
    /// With each, how many of its requests have come.
    faults: Vec<(Fault, u64)>,
    has_crashed: bool,
    is_read_only: bool,
    is_lockless: bool,
    bytes_left: Option<u64>,
    failures_per_thousand: u64,
    listing_delay: u64,
    /// Objects that listings leave out up to and including this request.
    late: BTreeMap<ObjectPath, u64>,
    /// Deleted objects that listings show up to and including this request.
    ghosts: BTreeMap<ObjectPath, (ObjectInfo, u64)>,
    /// How many reads of an object still get a flipped bit.
    flips: BTreeMap<ObjectPath, u64>,
    /// How many reads of an object still do not find it.
    denials: BTreeMap<ObjectPath, u64>,
}

/// What a request that was not refused is going to do.
struct Verdict {
    is_torn: bool,
    /// The error to return although it had its effect.
    error: Option<Error>,
}

impl Verdict {
    fn conclude<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        match self.error {
            Some(error) => Err(error),
            None => result,
        }
    }
}

impl FaultyStore {
    /// A layer without faults around `inner`; what is left to chance follows from `seed`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> Self {
        Self {
            inner,
            state: Arc::new(Mutex::new(State {
                random: Random::new(seed),
                counts: BTreeMap::new(),
                requests: 0,
                failures: 0,
                troubles: Troubles::default(),
            })),
        }
    }

    /// Adds a fault. Where several meet in one request, the first that was planted decides.
    pub fn plant(&self, fault: Fault) {
        self.state().troubles.faults.push((fault, 0));
    }

    /// This many of a thousand requests fail with a temporary error, half of them after their
    /// effect.
    pub fn fail_randomly(&self, failures_per_thousand: u64) {
        self.state().troubles.failures_per_thousand = failures_per_thousand;
    }

    /// All later requests fail without effect.
    pub fn crash(&self) {
        self.state().troubles.has_crashed = true;
    }

    /// The store is full once it took this many more bytes; deleting objects and dropping uploads
    /// gives theirs back. Bytes count even if the object exists already. `None`: never full.
    pub fn fill_after(&self, bytes: Option<u64>) {
        self.state().troubles.bytes_left = bytes;
    }

    /// Whether the store refuses to be written to, and to be locked.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state().troubles.is_read_only = is_read_only;
    }

    /// Whether the store gives no locks although it says so, as a directory on a file system without them.
    pub fn set_lockless(&self, is_lockless: bool) {
        self.state().troubles.is_lockless = is_lockless;
    }

    /// Listings show what is written or deleted from now on only after this many further requests.
    /// All clones of this layer see the same. Reading an object by its path is not delayed.
    pub fn delay_listings(&self, requests: u64) {
        self.state().troubles.listing_delay = requests;
    }

    /// The next `reads` reads of `path` get one flipped bit each, at a random place.
    pub fn flip_reads(&self, path: &ObjectPath, reads: u64) {
        self.state().troubles.flips.insert(path.clone(), reads);
    }

    /// The next `reads` reads of `path` do not find it, although it is listed and can be looked at.
    pub fn deny_reads(&self, path: &ObjectPath, reads: u64) {
        self.state().troubles.denials.insert(path.clone(), reads);
    }

    /// Ends all faults and other troubles, a crash too. What they did stays done.
    pub fn heal(&self) {
        self.state().troubles = Troubles::default();
    }

    /// How many requests there were, failed ones included.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.state().requests
    }

    /// How many requests of each kind there were, failed ones included.
    #[must_use]
    pub fn request_counts(&self) -> BTreeMap<Call, u64> {
        self.state().counts.clone()
    }

    /// How many requests this layer made fail or tore, those after a crash included: a test that
    /// expects a failure sees whether it took place.
    #[must_use]
    pub fn failure_count(&self) -> u64 {
        self.state().failures
    }

    /// Whether everything fails since a crash.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().troubles.has_crashed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that moves `bytes` to the store and decides what becomes of it. An error
    /// if it is not to have any effect.
    fn begin(&self, call: Call, path: &str, bytes: usize) -> Result<Verdict, Error> {
        let mut state = self.state();
        let verdict = state.decide(call, path, bytes as u64);
        if !matches!(verdict, Ok(Verdict { is_torn: false, error: None })) {
            state.failures += 1;
        }
        verdict
    }

    /// Says whether listings show `path` already, for [`FaultyStore::note_written`] later.
    fn is_listed(&self, path: &ObjectPath) -> bool {
        if self.state().troubles.listing_delay == 0 {
            return true;
        }
        self.inner.stat(path).is_ok()
    }

    fn note_written(&self, path: &ObjectPath, was_listed: bool) {
        let mut state = self.state();
        let State { requests, troubles, .. } = &mut *state;
        troubles.ghosts.remove(path);
        if !was_listed {
            troubles.late.insert(path.clone(), *requests + troubles.listing_delay);
        }
    }

    fn note_deleted(&self, object: ObjectInfo) {
        let mut state = self.state();
        let State { requests, troubles, .. } = &mut *state;
        if let Some(bytes_left) = &mut troubles.bytes_left {
            *bytes_left = bytes_left.saturating_add(object.size);
        }
        let is_late = troubles.late.remove(&object.path).is_some_and(|until| until > *requests);
        if troubles.listing_delay > 0 && !is_late {
            let until = *requests + troubles.listing_delay;
            troubles.ghosts.insert(object.path.clone(), (object, until));
        }
    }

    fn flip(&self, path: &ObjectPath, bytes: &mut [u8]) {
        let mut state = self.state();
        let State { random, troubles, .. } = &mut *state;
        if let Some(reads) = troubles.flips.get_mut(path).filter(|reads| **reads > 0)
            && !bytes.is_empty()
        {
            *reads -= 1;
            bytes[random.below(bytes.len())] ^= 1 << random.below(8);
        }
    }

    /// Counts a read of `path` and decides what becomes of it.
    fn begin_read(&self, call: Call, path: &ObjectPath) -> Result<Verdict, Error> {
        let verdict = self.begin(call, path.as_str(), 0)?;
        let mut state = self.state();
        let left = state.troubles.denials.get_mut(path).filter(|reads| **reads > 0);
        let Some(left) = left else { return Ok(verdict) };
        *left -= 1;
        state.failures += 1;
        Err(Error::new(ErrorKind::NotFound, call.operation(), path.as_str()))
    }

    /// Writes the beginning of an object in place of the whole, and claims to have written that.
    fn write_torn(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let bytes_kept = self.state().random.below(bytes.len().max(1));
        let mut info = self.inner.write(path, &bytes[..bytes_kept])?;
        info.size = bytes.len() as u64;
        info.crc32 = info.crc32.map(|_| crc32fast::hash(bytes));
        Ok(info)
    }
}

impl State {
    fn decide(&mut self, call: Call, path: &str, bytes: u64) -> Result<Verdict, Error> {
        self.requests += 1;
        *self.counts.entry(call).or_default() += 1;
        let fail = |kind, status, reason: &str| {
            Error::new(kind, call.operation(), path).with_status(status).with_source(reason)
        };

        if self.troubles.has_crashed {
            return Err(fail(ErrorKind::Other, Status::Permanent, "there was a crash before"));
        }
        let mut decisive = None;
        for (fault, count) in &mut self.troubles.faults {
            if fault.calls.contain(call) {
                *count += 1;
                if *count == fault.number || fault.is_lasting && *count > fault.number {
                    decisive = decisive.or(Some(*fault));
                }
            }
        }
        if self.troubles.is_read_only && call.needs_write_permission() {
            return Err(fail(ErrorKind::Denied, Status::Permanent, "it is read-only"));
        }
        if let Some(fault) = decisive {
            self.troubles.has_crashed |= fault.is_crash;
            let error = fail(fault.kind, fault.status, "a fault was planted here");
            let can_tear = matches!(call, Call::Write | Call::Finish | Call::Delete);
            return match fault.effect {
                Effect::Everything => Ok(Verdict { is_torn: false, error: Some(error) }),
                Effect::Part if can_tear => {
                    let error = (!fault.is_silent).then_some(error);
                    Ok(Verdict { is_torn: true, error })
                }
                Effect::Part | Effect::Nothing => Err(error),
            };
        }
        let mut verdict = Verdict { is_torn: false, error: None };
        let failures_per_thousand = self.troubles.failures_per_thousand;
        if failures_per_thousand > 0 && (self.random.below(1000) as u64) < failures_per_thousand {
            let error = fail(ErrorKind::Other, Status::Temporary, "a failure by chance");
            if self.random.below(2) == 0 {
                return Err(error);
            }
            verdict.error = Some(error);
        }
        if let Some(bytes_left) = &mut self.troubles.bytes_left {
            match bytes_left.checked_sub(bytes) {
                Some(rest) => *bytes_left = rest,
                None => return Err(fail(ErrorKind::Full, Status::Permanent, "no byte is left")),
            }
        }
        Ok(verdict)
    }
}

impl Store for FaultyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        let verdict = self.begin(Call::Create, &folders.join(" "), 0)?;
        verdict.conclude(self.inner.create(folders))
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let verdict = self.begin(Call::List, folder, 0)?;
        let mut rows = verdict.conclude(self.inner.list(folder))?;
        let mut state = self.state();
        let State { requests, troubles, .. } = &mut *state;
        troubles.late.retain(|_, until| *until >= *requests);
        troubles.ghosts.retain(|_, (_, until)| *until >= *requests);
        rows.retain(|row| !troubles.late.contains_key(&row.path));
        let ghosts = troubles.ghosts.values().map(|(object, _)| object);
        rows.extend(ghosts.filter(|object| object.path.folder() == folder).cloned());
        Ok(rows)
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let verdict = self.begin(Call::Stat, path.as_str(), 0)?;
        verdict.conclude(self.inner.stat(path))
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.clear();
        let verdict = self.begin_read(Call::Read, path)?;
        let result = verdict.conclude(self.inner.read(path, range, buffer));
        match &result {
            Ok(()) => self.flip(path, buffer),
            Err(_) => buffer.clear(),
        }
        result
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let verdict = self.begin_read(Call::ReadAll, path)?;
        let mut bytes = verdict.conclude(self.inner.read_all(path, bytes_max))?;
        self.flip(path, &mut bytes);
        Ok(bytes)
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let verdict = self.begin(Call::Write, path.as_str(), bytes.len())?;
        let was_listed = self.is_listed(path);
        let result = if verdict.is_torn {
            self.write_torn(path, bytes)
        } else {
            self.inner.write(path, bytes)
        };
        if result.is_ok() {
            self.note_written(path, was_listed);
        }
        verdict.conclude(result)
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        let verdict = self.begin(Call::Upload, folder, 0)?;
        let inner = verdict.conclude(self.inner.upload(folder))?;
        Ok(Box::new(FaultyUpload {
            inner: Some(inner),
            store: self.clone(),
            folder: folder.to_owned(),
            bytes: Vec::new(),
            has_failed: false,
        }))
    }

    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        let verdict = self.begin(Call::ResumeUploads, "", 0)?;
        verdict.conclude(self.inner.resume_uploads())
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let paths: Vec<_> = objects.iter().map(|object| object.path.as_str()).collect();
        let verdict = self.begin(Call::Delete, &paths.join(" "), 0)?;
        let objects = if verdict.is_torn {
            &objects[..self.state().random.below(objects.len().max(1))]
        } else {
            objects
        };
        let existing: Vec<_> =
            objects.iter().filter_map(|object| self.inner.stat(&object.path).ok()).collect();
        let result = self.inner.delete(objects);
        if result.is_ok() {
            existing.into_iter().for_each(|object| self.note_deleted(object));
        }
        verdict.conclude(result)
    }

    fn delete_batch(&self) -> usize {
        self.inner.delete_batch()
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        let verdict = self.begin(Call::Space, "", 0)?;
        verdict.conclude(self.inner.space())
    }

    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        let verdict = self.begin(Call::Lock, "", 0)?;
        if self.state().troubles.is_lockless {
            return verdict.conclude(Ok(None));
        }
        verdict.conclude(self.inner.lock(mode))
    }
}

/// An upload through the layer. It keeps its bytes, since a torn object is written anew.
struct FaultyUpload {
    /// Absent once it was finished or torn.
    inner: Option<Box<dyn Upload>>,
    store: FaultyStore,
    folder: String,
    bytes: Vec<u8>,
    has_failed: bool,
}

impl Upload for FaultyUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result =
            self.store.begin(Call::Append, &self.folder, bytes.len()).and_then(|verdict| {
                self.bytes.extend_from_slice(bytes);
                verdict.conclude(match &mut self.inner {
                    Some(inner) => inner.append(bytes),
                    None => Ok(()),
                })
            });
        self.has_failed |= result.is_err();
        result
    }

    fn finish(mut self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let verdict = self.store.begin(Call::Finish, path.as_str(), 0)?;
        let inner = match self.inner.take() {
            Some(inner) if !self.has_failed => inner,
            inner => {
                self.inner = inner;
                return Err(Error::new(ErrorKind::Other, Call::Finish.operation(), path.as_str())
                    .with_source("an earlier part of it was not written"));
            }
        };
        let was_listed = self.store.is_listed(path);
        let result = if verdict.is_torn {
            drop(inner);
            self.store.write_torn(path, &self.bytes)
        } else {
            inner.finish(path)
        };
        if result.is_ok() {
            self.store.note_written(path, was_listed);
        }
        verdict.conclude(result)
    }
}

impl Drop for FaultyUpload {
    fn drop(&mut self) {
        // Not finished: what it took on the disk is free again.
        if self.inner.is_some()
            && let Some(bytes_left) = &mut self.store.state().troubles.bytes_left
        {
            *bytes_left = bytes_left.saturating_add(self.bytes.len() as u64);
        }
    }
}
