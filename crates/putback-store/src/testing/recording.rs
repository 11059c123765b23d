//! A layer that notes every request.
//!
//! The log is in the order in which requests ended: a request that another one waited for stands
//! before it.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Call;
use crate::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Space, Store, Upload,
};

/// One request and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub call: Call,
    /// The object or folder; of [`Call::Create`] and [`Call::Delete`] all of them, with spaces
    /// between; empty for what concerns the whole store.
    pub path: String,
    /// The bytes that went to the store or came from it, none if it failed.
    pub bytes: u64,
    /// The kind of error it ended with.
    pub error: Option<ErrorKind>,
}

/// The requests that one or more stores noted; clones share it.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl RequestLog {
    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().clone()
    }

    /// All requests so far; the log is empty afterwards.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock())
    }

    /// How many requests there were of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Call, u64> {
        let mut counts = BTreeMap::new();
        for request in self.lock().iter() {
            *counts.entry(request.call).or_default() += 1;
        }
        counts
    }

    /// How many requests `is_meant` holds for.
    #[must_use]
    pub fn count(&self, is_meant: impl Fn(&Request) -> bool) -> u64 {
        self.lock().iter().filter(|request| is_meant(request)).count() as u64
    }

    /// How many bytes were moved by the requests that `is_meant` holds for.
    #[must_use]
    pub fn bytes(&self, is_meant: impl Fn(&Request) -> bool) -> u64 {
        self.lock().iter().filter(|request| is_meant(request)).map(|request| request.bytes).sum()
    }

    fn note<T>(
        &self,
        call: Call,
        path: impl Into<String>,
        bytes: impl FnOnce(&T) -> u64,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        self.lock().push(Request {
            call,
            path: path.into(),
            bytes: result.as_ref().map_or(0, bytes),
            error: result.as_ref().err().map(|error| error.kind),
        });
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that notes what is asked of the one inside.
#[derive(Clone)]
pub struct RecordingStore {
    inner: Arc<dyn Store>,
    log: RequestLog,
}

impl RecordingStore {
    /// Notes what is asked of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self::with_log(inner, RequestLog::default())
    }

    /// Notes what is asked of `inner` in a log that others may write to as well.
    #[must_use]
    pub fn with_log(inner: Arc<dyn Store>, log: RequestLog) -> Self {
        Self { inner, log }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> RequestLog {
        self.log.clone()
    }
}

impl Store for RecordingStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        self.log.note(Call::Create, folders.join(" "), |_| 0, self.inner.create(folders))
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.log.note(Call::List, folder, |_| 0, self.inner.list(folder))
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        self.log.note(Call::Stat, path.as_str(), |_| 0, self.inner.stat(path))
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let result = self.inner.read(path, range, buffer);
        self.log.note(Call::Read, path.as_str(), |()| buffer.len() as u64, result)
    }

    fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut bytes = 0;
        let result = self.inner.read_pieces(path, range, &mut |piece| {
            bytes += piece.len() as u64;
            each(piece)
        });
        self.log.note(Call::Read, path.as_str(), |()| bytes, result)
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let result = self.inner.read_all(path, bytes_max);
        self.log.note(Call::ReadAll, path.as_str(), |bytes| bytes.len() as u64, result)
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let result = self.inner.write(path, bytes);
        self.log.note(Call::Write, path.as_str(), |_| bytes.len() as u64, result)
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        let inner = self.log.note(Call::Upload, folder, |_| 0, self.inner.upload(folder))?;
        Ok(Box::new(RecordingUpload { inner, folder: folder.to_owned(), log: self.log.clone() }))
    }

    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        let bytes = |objects: &Vec<ObjectInfo>| objects.iter().map(|object| object.size).sum();
        self.log.note(Call::ResumeUploads, "", bytes, self.inner.resume_uploads())
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let paths: Vec<_> = objects.iter().map(|object| object.path.as_str()).collect();
        self.log.note(Call::Delete, paths.join(" "), |()| 0, self.inner.delete(objects))
    }

    fn delete_batch(&self) -> usize {
        self.inner.delete_batch()
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        self.log.note(Call::Space, "", |_| 0, self.inner.space())
    }

    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        self.log.note(Call::Lock, "", |_| 0, self.inner.lock(mode))
    }
}

/// An upload whose name becomes known in the last of its requests.
struct RecordingUpload {
    inner: Box<dyn Upload>,
    folder: String,
    log: RequestLog,
}

impl Upload for RecordingUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let result = self.inner.append(bytes);
        self.log.note(Call::Append, self.folder.as_str(), |()| bytes.len() as u64, result)
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let result = self.inner.finish(path);
        self.log.note(Call::Finish, path.as_str(), |_| 0, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[test]
    fn the_log_says_what_was_asked_of_which_object_and_how_it_ended() {
        let store = RecordingStore::new(Arc::new(MemoryStore::new()));
        let path = ObjectPath::new("packs/a").unwrap();
        store.list("packs").unwrap_err();
        store.create(&["packs", "index"]).unwrap();
        let mut upload = store.upload("packs").unwrap();
        upload.append(b"by").unwrap();
        upload.append(b"tes").unwrap();
        let object = upload.finish(&path).unwrap();
        store.read(&path, 1..3, &mut Vec::new()).unwrap();
        store.delete(&[object]).unwrap();

        let said: Vec<_> = store
            .log()
            .requests()
            .into_iter()
            .map(|request| (request.call, request.path, request.bytes, request.error))
            .collect();
        let expected = [
            (Call::List, "packs", 0, Some(ErrorKind::NotFound)),
            (Call::Create, "packs index", 0, None),
            (Call::Upload, "packs", 0, None),
            (Call::Append, "packs", 2, None),
            (Call::Append, "packs", 3, None),
            (Call::Finish, "packs/a", 0, None),
            (Call::Read, "packs/a", 2, None),
            (Call::Delete, "packs/a", 0, None),
        ];
        let expected = expected.map(|(call, path, bytes, error)| (call, path.into(), bytes, error));
        assert_eq!(said, expected);
    }

    #[test]
    fn the_log_counts_and_can_be_emptied() {
        let store = RecordingStore::new(Arc::new(MemoryStore::new()));
        store.create(&[]).unwrap();
        store.write(&ObjectPath::new("a").unwrap(), b"bytes").unwrap();
        store.write(&ObjectPath::new("b").unwrap(), b"bytes").unwrap();
        let log = store.log();
        assert_eq!(log.counts(), BTreeMap::from([(Call::Create, 1), (Call::Write, 2)]));
        assert_eq!(log.count(|request| request.path == "a"), 1);
        assert_eq!(log.bytes(|request| request.call == Call::Write), 10);
        assert_eq!(log.take().len(), 3);
        assert_eq!(log.requests(), []);
    }
}
