//! Counts what a store is asked.
//!
//! A layer directly over the store, below every cache: what costs a round trip where the store is far away.

use std::ops::{AddAssign, ControlFlow, Range, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use putback_store::{
    Capabilities, Error, Lock, LockMode, ObjectInfo, ObjectPath, Space, Store, Upload,
};

/// What was asked of a store. What a service makes of it is its own: on put.io reading or writing an object takes two
/// requests over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Listings of a folder.
    pub lists: u64,
    /// Reads of an object or a range of it, and questions about one.
    pub reads: u64,
    /// Objects written.
    pub writes: u64,
    /// Deletions, each of as many objects as the store deletes at once.
    pub deletes: u64,
}

impl Requests {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lists + self.reads + self.writes + self.deletes
    }
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.lists += other.lists;
        self.reads += other.reads;
        self.writes += other.writes;
        self.deletes += other.deletes;
    }
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            lists: self.lists - earlier.lists,
            reads: self.reads - earlier.reads,
            writes: self.writes - earlier.writes,
            deletes: self.deletes - earlier.deletes,
        }
    }
}

/// How often each thing was asked so far.
#[derive(Default)]
pub(crate) struct Counts {
    lists: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
}

impl Counts {
    pub(crate) fn so_far(&self) -> Requests {
        Requests {
            lists: self.lists.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            deletes: self.deletes.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A store that counts.
pub(crate) struct CountedStore {
    inner: Arc<dyn Store>,
    counts: Arc<Counts>,
}

impl CountedStore {
    pub(crate) fn new(inner: Arc<dyn Store>, counts: &Arc<Counts>) -> Self {
        Self { inner, counts: Arc::clone(counts) }
    }
}

impl Store for CountedStore {
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
        count(&self.counts.lists);
        self.inner.list(folder)
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        count(&self.counts.reads);
        self.inner.stat(path)
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        count(&self.counts.reads);
        self.inner.read(path, range, buffer)
    }

    fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        count(&self.counts.reads);
        self.inner.read_pieces(path, range, each)
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        count(&self.counts.reads);
        self.inner.read_all(path, bytes_max)
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        count(&self.counts.writes);
        self.inner.write(path, bytes)
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        let inner = self.inner.upload(folder)?;
        Ok(Box::new(CountedUpload { inner, counts: Arc::clone(&self.counts) }))
    }

    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        let resumed = self.inner.resume_uploads()?;
        self.counts.writes.fetch_add(resumed.len() as u64, Ordering::Relaxed);
        Ok(resumed)
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let batches = objects.len().div_ceil(self.inner.delete_batch().max(1));
        self.counts.deletes.fetch_add(batches as u64, Ordering::Relaxed);
        self.inner.delete(objects)
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

struct CountedUpload {
    inner: Box<dyn Upload>,
    counts: Arc<Counts>,
}

impl Upload for CountedUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.append(bytes)
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        count(&self.counts.writes);
        self.inner.finish(path)
    }
}
