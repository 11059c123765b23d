//! A store in memory, for tests and for trying things out.
//!
//! It keeps the same promises as a directory: a root that [`Store::create`] makes, uploads that
//! nobody sees before they are finished, locks that wait. Clones share their objects, as two
//! processes share a directory; [`MemoryStore::fork`] makes a copy that goes its own way.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::path::check_folder;
use crate::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Operation, Space,
    Store, Upload,
};

/// Tells the time of a store.
type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A store in memory.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    locks: Arc<Locks>,
    clock: Clock,
    capabilities: Capabilities,
}

#[derive(Clone, Default)]
struct State {
    root_exists: bool,
    objects: BTreeMap<ObjectPath, Object>,
}

#[derive(Clone)]
struct Object {
    bytes: Arc<[u8]>,
    modified: SystemTime,
    crc32: u32,
}

impl Object {
    fn info(&self, path: &ObjectPath) -> ObjectInfo {
        ObjectInfo {
            path: path.clone(),
            size: self.bytes.len() as u64,
            modified: Some(self.modified),
            service_id: None,
            crc32: Some(self.crc32),
        }
    }
}

impl MemoryStore {
    /// A store whose root does not exist yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            locks: Arc::default(),
            clock: Arc::new(SystemTime::now),
            capabilities: Capabilities { is_remote: false, connections: 8, is_consistent: true },
        }
    }

    /// Takes the time of objects from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Claims other capabilities, to see what callers make of them. A store that claims not to be
    /// consistent has no locks.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A copy with the same objects that shares nothing with this store, locks neither. Costs
    /// little: bytes are shared until they change.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.state().clone())),
            locks: Arc::default(),
            clock: Arc::clone(&self.clock),
            capabilities: self.capabilities,
        }
    }

    /// The paths of all objects of all folders, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<ObjectPath> {
        self.state().objects.keys().cloned().collect()
    }

    /// Changes the bytes of an object behind everybody's back, as a failing disk would: its time
    /// and its checksum stay as they were. False if there is no such object.
    #[cfg(any(test, feature = "testing"))]
    pub fn damage(&self, path: &ObjectPath, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some(object) = state.objects.get_mut(path) else {
            return false;
        };
        let mut bytes = object.bytes.to_vec();
        change(&mut bytes);
        object.bytes = bytes.into();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion or removal, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, path: &ObjectPath, operation: Operation) -> Result<Object, Error> {
        let object = self.state().objects.get(path).cloned();
        object.ok_or_else(|| Error::new(ErrorKind::NotFound, operation, path.as_str()))
    }

    /// Fails for a folder that cannot be, and if the root does not exist.
    fn check_reachable(&self, folder: &str, operation: Operation) -> Result<(), Error> {
        check_folder(folder).map_err(|invalid| {
            Error::new(ErrorKind::Other, operation, folder).with_source(invalid)
        })?;
        if self.state().root_exists {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::NotFound, operation, self.describe()))
        }
    }

    fn put(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let modified = (self.clock)();
        let crc32 = crc32fast::hash(bytes);
        let mut state = self.state();
        if let Some(existing) = state.objects.get(path) {
            if existing.bytes.len() != bytes.len() {
                return Err(Error::new(ErrorKind::AlreadyExists, Operation::Write, path.as_str())
                    .with_source(format!("the existing one has {} bytes", existing.bytes.len())));
            }
            return Ok(existing.info(path));
        }
        let object = Object { bytes: bytes.into(), modified, crc32 };
        let info = object.info(path);
        state.objects.insert(path.clone(), object);
        Ok(info)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.state().objects.keys()).finish()
    }
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        let existed = std::mem::replace(&mut self.state().root_exists, true);
        folders.iter().try_for_each(|folder| self.check_reachable(folder, Operation::Manage))?;
        Ok(!existed)
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.check_reachable(folder, Operation::List)?;
        let state = self.state();
        let objects = state.objects.iter().filter(|(path, _)| path.folder() == folder);
        Ok(objects.map(|(path, object)| object.info(path)).collect())
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        self.object(path, Operation::Stat).map(|object| object.info(path))
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.clear();
        let object = self.object(path, Operation::Read)?;
        if range.is_empty() {
            return Ok(());
        }
        let wanted = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        match wanted.and_then(|(start, end)| object.bytes.get(start..end)) {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::Corrupt, Operation::Read, path.as_str())
                .with_source(format!(
                    "bytes {} to {} were asked for, it has {}",
                    range.start,
                    range.end,
                    object.bytes.len()
                ))),
        }
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let object = self.object(path, Operation::Read)?;
        if object.bytes.len() as u64 > bytes_max {
            return Err(Error::new(ErrorKind::Corrupt, Operation::Read, path.as_str())
                .with_source(format!("it is larger than {bytes_max} bytes")));
        }
        Ok(object.bytes.to_vec())
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        self.check_reachable(path.folder(), Operation::Write)?;
        self.put(path, bytes)
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        self.check_reachable(folder, Operation::Write)?;
        Ok(Box::new(MemoryUpload {
            store: self.clone(),
            folder: folder.to_owned(),
            bytes: Vec::new(),
        }))
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let mut state = self.state();
        for object in objects {
            state.objects.remove(&object.path);
        }
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        Ok(None)
    }

    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        self.check_reachable("", Operation::Manage)?;
        if !self.capabilities.is_consistent {
            return Ok(None);
        }
        self.locks.take(mode);
        Ok(Some(Box::new(MemoryLock { locks: Arc::clone(&self.locks), mode })))
    }
}

/// An object whose bytes are still coming.
struct MemoryUpload {
    store: MemoryStore,
    folder: String,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        if path.folder() != self.folder {
            return Err(Error::new(ErrorKind::Other, Operation::Write, path.as_str())
                .with_source(format!("its upload began in '{}'", self.folder)));
        }
        self.store.put(path, &self.bytes)
    }
}

/// Who holds the store's lock.
#[derive(Default)]
struct Locks {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    shared: usize,
    is_exclusive: bool,
}

impl Locks {
    fn take(&self, mode: LockMode) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.is_exclusive || (mode == LockMode::Exclusive && held.shared > 0) {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        match mode {
            LockMode::Shared => held.shared += 1,
            LockMode::Exclusive => held.is_exclusive = true,
        }
    }

    fn free(&self, mode: LockMode) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match mode {
            LockMode::Shared => held.shared -= 1,
            LockMode::Exclusive => held.is_exclusive = false,
        }
        self.changed.notify_all();
    }
}

struct MemoryLock {
    locks: Arc<Locks>,
    mode: LockMode,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.locks.free(self.mode);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::new(text).unwrap()
    }

    fn store_with(objects: &[&str]) -> MemoryStore {
        let store = MemoryStore::new();
        store.create(&[]).unwrap();
        for object in objects {
            store.write(&path(object), object.as_bytes()).unwrap();
        }
        store
    }

    #[test]
    fn clones_share_their_objects_and_forks_do_not() {
        let store = store_with(&["a"]);
        let (clone, fork) = (store.clone(), store.fork());
        store.write(&path("b"), b"").unwrap();
        fork.write(&path("c"), b"").unwrap();
        assert_eq!(clone.paths(), [path("a"), path("b")]);
        assert_eq!(fork.paths(), [path("a"), path("c")]);
    }

    #[test]
    fn damage_changes_bytes_and_nothing_else() {
        let store = store_with(&["a"]);
        let before = store.stat(&path("a")).unwrap();
        assert!(store.damage(&path("a"), |bytes| bytes[0] ^= 1));
        assert_eq!(store.stat(&path("a")).unwrap(), before);
        assert_eq!(store.read_all(&path("a"), 9).unwrap(), [b'a' ^ 1]);
        assert!(!store.damage(&path("b"), |_| {}));
    }

    #[test]
    fn objects_carry_the_time_of_the_given_clock() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let store = MemoryStore::new().with_clock(move || time);
        store.create(&[]).unwrap();
        assert_eq!(store.write(&path("a"), b"").unwrap().modified, Some(time));
    }
}
