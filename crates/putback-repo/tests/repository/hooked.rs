//! A store that asks before each request, and what other machines do in the middle of somebody's work.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use putback_store::memory::MemoryStore;
use putback_store::testing::Call;
use putback_store::{
    Capabilities, Error, Lock, LockMode, ObjectInfo, ObjectPath, Space, Store, Upload,
};

/// Called before each request, with the path or folder that it is about (none for a deletion) and the range that
/// a [`Call::Read`] asks for. An error is what the request answers.
type Hook = Box<dyn Fn(Call, &str, Range<u64>) -> Result<(), Error> + Send + Sync>;

pub(crate) struct Hooked {
    inner: MemoryStore,
    hook: Hook,
}

impl Hooked {
    pub(crate) fn new(
        inner: &MemoryStore,
        hook: impl Fn(Call, &str, Range<u64>) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: inner.clone(), hook: Box::new(hook) }
    }

    fn before(&self, call: Call, path: &str) -> Result<(), Error> {
        (self.hook)(call, path, 0..0)
    }
}

/// Does something just before the request of number `at`, counted from 1, among those that are chosen by their kind and
/// path. Also says whether it has come to that.
pub(crate) fn interfering(
    store: &MemoryStore,
    is_counted: impl Fn(Call, &str) -> bool + Send + Sync + 'static,
    at: u64,
    act: impl FnOnce() + Send + 'static,
) -> (Hooked, Arc<AtomicBool>) {
    let (count, act) = (AtomicU64::new(0), Mutex::new(Some(act)));
    let has_acted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&has_acted);
    let hooked = Hooked::new(store, move |call, path, _| {
        if is_counted(call, path) && count.fetch_add(1, Ordering::SeqCst) + 1 == at {
            told.store(true, Ordering::SeqCst);
            let act = act.lock().unwrap().take();
            act.into_iter().for_each(|act| act());
        }
        Ok(())
    });
    (hooked, has_acted)
}

impl Store for Hooked {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        self.before(Call::Create, "")?;
        self.inner.create(folders)
    }
    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.before(Call::List, folder)?;
        self.inner.list(folder)
    }
    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        self.before(Call::Stat, path.as_str())?;
        self.inner.stat(path)
    }
    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        (self.hook)(Call::Read, path.as_str(), range.clone())?;
        self.inner.read(path, range, buffer)
    }
    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        self.before(Call::ReadAll, path.as_str())?;
        self.inner.read_all(path, bytes_max)
    }
    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        self.before(Call::Write, path.as_str())?;
        self.inner.write(path, bytes)
    }
    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        self.before(Call::Upload, folder)?;
        self.inner.upload(folder)
    }
    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        self.before(Call::Delete, "")?;
        self.inner.delete(objects)
    }
    fn space(&self) -> Result<Option<Space>, Error> {
        self.before(Call::Space, "")?;
        self.inner.space()
    }
    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        self.before(Call::Lock, "")?;
        self.inner.lock(mode)
    }
}
