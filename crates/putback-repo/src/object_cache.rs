//! Small objects that this machine has read before.
//!
//! A layer over a store whose requests cost a round trip. It keeps configurations, slots, snapshots,
//! marks and small index segments, which never change under their names. Only objects that a listing has just shown are
//! asked for, so what was deleted does not live on here; what is kept is compared with its name's hash,
//! and with size and checksum of the listing, each time it is used. Everything may be deleted at any moment.
//!
//! A snapshot that is written is not kept: what is read back must come from the store. Slots and configurations are,
//! so that the command after `init` finds them; marks and segments too, for who needs them once they are listed.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use putback_store::{
    Capabilities, Error, Lock, LockMode, ObjectInfo, ObjectPath, Space, Store, Upload,
};

use crate::Machine;
use crate::compact::SMALL_BYTES;
use crate::layout::{CONFIG, INDEX, KEYS, MARKS, SNAPSHOTS};
use crate::local::create_private_directories;

const FOLDERS: [&str; 5] = [CONFIG, INDEX, KEYS, MARKS, SNAPSHOTS];

/// A store, and a folder of copies of its small objects.
struct CachedStore {
    inner: Arc<dyn Store>,
    directory: PathBuf,
    /// What the last listing of its folder said of each object: size and CRC-32.
    listed: Mutex<HashMap<ObjectPath, (u64, Option<u32>)>>,
}

/// `store` with a cache, if its requests are worth one and there is a place for it.
pub(crate) fn layer(store: &Arc<dyn Store>, machine: &Machine) -> Arc<dyn Store> {
    match &machine.cache {
        Some(cache) if store.capabilities().is_remote => {
            let name = blake3::hash(store.describe().as_bytes()).to_hex();
            Arc::new(CachedStore {
                inner: Arc::clone(store),
                directory: cache.join("objects").join(&name[..32]),
                listed: Mutex::default(),
            })
        }
        _ => Arc::clone(store),
    }
}

impl CachedStore {
    fn place(&self, path: &ObjectPath) -> Option<PathBuf> {
        FOLDERS
            .contains(&path.folder())
            .then(|| self.directory.join(path.folder()).join(path.name()))
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<ObjectPath, (u64, Option<u32>)>> {
        // Each change leaves a whole map.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, place: &Path, path: &ObjectPath, bytes_max: u64) -> Option<Vec<u8>> {
        let (size, crc32) = *self.listed().get(path)?;
        let bytes = fs_err::read(place).ok()?;
        let is_same = bytes.len() as u64 == size
            && size <= bytes_max
            && crc32.is_none_or(|crc32| crc32 == crc32fast::hash(&bytes))
            && is_named_by_hash(path, &bytes);
        is_same.then_some(bytes)
    }
}

fn is_named_by_hash(path: &ObjectPath, bytes: &[u8]) -> bool {
    path.name().ends_with(blake3::hash(bytes).to_hex().as_str())
}

/// Large segments are in the tables of the index, and are not read again.
fn is_worth_keeping(path: &ObjectPath, bytes: &[u8]) -> bool {
    path.folder() != INDEX || (bytes.len() as u64) < SMALL_BYTES
}

/// Nobody sees half a file. What cannot be kept is read again, so failures are not told.
fn keep(place: &Path, bytes: &[u8]) {
    let Some(folder) = place.parent() else { return };
    let write = || {
        create_private_directories(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(place)?;
        std::io::Result::Ok(())
    };
    let _ = write();
}

impl Store for CachedStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        self.inner.create(folders)
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let rows = self.inner.list(folder)?;
        if !FOLDERS.contains(&folder) {
            return Ok(rows);
        }
        let mut listed = self.listed();
        listed.retain(|path, _| path.folder() != folder);
        listed.extend(rows.iter().map(|row| (row.path.clone(), (row.size, row.crc32))));
        drop(listed);
        let names: BTreeSet<&str> = rows.iter().map(|row| row.path.name()).collect();
        let Ok(kept) = fs_err::read_dir(self.directory.join(folder)) else { return Ok(rows) };
        for entry in kept.flatten() {
            if entry.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                // Another process may be writing it, or have deleted it: either way it is only a cache.
                let _ = fs_err::remove_file(entry.path());
            }
        }
        Ok(rows)
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        self.inner.stat(path)
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.inner.read(path, range, buffer)
    }

    fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.inner.read_pieces(path, range, each)
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let Some(place) = self.place(path) else { return self.inner.read_all(path, bytes_max) };
        if let Some(bytes) = self.kept(&place, path, bytes_max) {
            return Ok(bytes);
        }
        let bytes = self.inner.read_all(path, bytes_max)?;
        if is_worth_keeping(path, &bytes) && is_named_by_hash(path, &bytes) {
            keep(&place, &bytes);
        }
        Ok(bytes)
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let info = self.inner.write(path, bytes)?;
        if let Some(place) = self.place(path)
            && path.folder() != SNAPSHOTS
            && is_worth_keeping(path, bytes)
        {
            keep(&place, bytes);
        }
        Ok(info)
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        self.inner.upload(folder)
    }

    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        self.inner.resume_uploads()
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        self.inner.delete(objects)?;
        for object in objects {
            self.listed().remove(&object.path);
        }
        Ok(())
    }

    fn delete_batch(&self) -> usize {
        self.inner.delete_batch()
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        self.inner.space()
    }

    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        self.inner.lock(mode)
    }
}

#[cfg(test)]
mod tests {
    use putback_store::memory::MemoryStore;
    use putback_store::testing::Call;
    use putback_store::testing::recording::{RecordingStore, RequestLog};

    use super::*;

    fn remote(cache: &Path) -> (MemoryStore, RequestLog, Arc<dyn Store>) {
        let remote = Capabilities { is_remote: true, connections: 2, is_consistent: false };
        let memory = MemoryStore::new().with_capabilities(remote);
        memory.create(&FOLDERS).unwrap();
        let recording = RecordingStore::new(Arc::new(memory.clone()));
        let log = recording.log();
        let directories = Machine { cache: Some(cache.to_path_buf()), ..Machine::default() };
        let inner: Arc<dyn Store> = Arc::new(recording);
        (memory, log, layer(&inner, &directories))
    }

    fn named(folder: &str, bytes: &[u8]) -> ObjectPath {
        ObjectPath::new(&format!("{folder}/{}", blake3::hash(bytes).to_hex())).unwrap()
    }

    fn reads(log: &RequestLog) -> u64 {
        log.take().iter().filter(|request| request.call == Call::ReadAll).count() as u64
    }

    #[test]
    fn what_a_listing_shows_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, log, store) = remote(folder.path());
        let path = named(SNAPSHOTS, b"snapshot");
        store.write(&path, b"snapshot").unwrap();
        assert_eq!(store.read_all(&path, 100).unwrap(), b"snapshot");
        assert_eq!(reads(&log), 1, "what was just written comes from the store");
        store.list(SNAPSHOTS).unwrap();
        assert_eq!(store.read_all(&path, 100).unwrap(), b"snapshot");
        assert_eq!(reads(&log), 0);

        let rows = memory.list(SNAPSHOTS).unwrap();
        memory.delete(&rows).unwrap();
        store.list(SNAPSHOTS).unwrap();
        assert!(store.read_all(&path, 100).unwrap_err().is_not_found());
    }

    #[test]
    fn what_was_damaged_here_or_there_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (_, log, store) = remote(folder.path());
        let path = named(SNAPSHOTS, b"slot");
        store.write(&path, b"slot").unwrap();
        store.list(SNAPSHOTS).unwrap();
        store.read_all(&path, 100).unwrap();
        let mut kept = Vec::new();
        for entry in walk(folder.path()) {
            fs_err::write(&entry, b"tols").unwrap();
            kept.push(entry);
        }
        assert_eq!(kept.len(), 1);
        assert_eq!(store.read_all(&path, 100).unwrap(), b"slot");
        assert_eq!(reads(&log), 2);
        assert_eq!(fs_err::read(&kept[0]).unwrap(), b"slot");
    }

    #[test]
    fn what_init_writes_the_next_command_finds() {
        let folder = tempfile::tempdir().unwrap();
        let (_, log, store) = remote(folder.path());
        for kind in [KEYS, CONFIG] {
            let path = named(kind, b"slot");
            store.write(&path, b"slot").unwrap();
            store.list(kind).unwrap();
            assert_eq!(store.read_all(&path, 100).unwrap(), b"slot");
        }
        assert_eq!(reads(&log), 0);
    }

    #[test]
    fn packs_and_wrongly_named_objects_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (_, _, store) = remote(folder.path());
        for path in ["packs/a", "snapshots/a"] {
            let path = ObjectPath::new(path).unwrap();
            store.write(&path, b"bytes").unwrap();
            store.list(path.folder()).unwrap();
            store.read_all(&path, 100).unwrap();
        }
        assert!(walk(folder.path()).is_empty());
    }

    fn walk(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                found.extend(walk(&entry.path()));
            } else {
                found.push(entry.path());
            }
        }
        found
    }
}
