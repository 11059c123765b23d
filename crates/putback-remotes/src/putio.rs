//! A folder of a put.io account as a store.
//!
//! put.io addresses rows by id, allows several files of one name in a folder, shows finished uploads
//! at once but promises nothing about its listings, has no locks, and may lose a file. The store
//! makes of that what [`Store`] promises:
//!
//! * `known.rs` is what is known without asking, `cache.rs` keeps it between processes, `paths.rs`
//!   finds folders, `objects.rs` finds and reads rows, `uploads.rs` writes, `spool.rs` keeps what
//!   is being sent, so that it can go on after a crash.
//! * [`Store::list`] always asks the server. It reports what the server
//!   shows together with what this process itself wrote within the last hour, was confirmed by id and was
//!   not deleted by it; what it did delete is left out. All rows of a name are reported, each with its id.
//! * A row is read without asking where it is if it is known. Every id may have become stale: a 404
//!   means to look again, once.
//! * Where several rows of one name differ, the one whose BLAKE3 the name ends with is meant; rows
//!   that are equal are as good as each other, and the next one serves when put.io has lost one.
//!
//! Requests: an object or folder that is known costs none to find; one that is not known costs one
//! look-up, or a listing of its folder when several are missed. A listing costs one request for
//! each thousand rows, a write two (and one for each further 64 MiB), a read one for the link and
//! one for each range.
//!
//! Memory: about 150 bytes for each row of the repository; objects of up to [`IN_MEMORY_BYTES_MAX`]
//! are sent from the caller's buffer, larger ones and those of unknown length from the disk.

pub(crate) mod cache;
mod failure;
mod known;
mod objects;
mod paths;
mod spool;
mod uploads;

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use putback_store::path::check_folder;
use putback_store::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Operation, Space,
    Store, Upload,
};
use putio::{Client, Token};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use self::known::Known;
use self::spool::Spool;
use crate::location::Folder;

/// Whole objects of up to this size are sent from memory.
pub(crate) const IN_MEMORY_BYTES_MAX: u64 = 4 << 20;

/// Pieces of a download, of some 16 KiB, that may wait for whoever takes them.
const PIECES_WAITING: usize = 128;

/// How long the space that put.io reported is believed when somebody asks for it.
const SPACE_AGE_MAX: Duration = Duration::from_secs(30);
/// The same where so much is free that nobody uses it up meanwhile.
const AMPLE_SPACE_AGE_MAX: Duration = Duration::from_secs(10 * 60);
const AMPLE_SPACE_BYTES: u64 = 64 << 30;

/// How long put.io is not asked for the space after it failed to tell: each question costs the client's
/// whole patience, and writes that want to know wait for each other.
const SPACE_FAILURE_AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// What is newly written is written to the cache file at most this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// How to open a [`PutioStore`].
#[derive(Clone)]
pub struct PutioOptions {
    /// Speaks to put.io; clones share its limits.
    pub client: Client,
    /// What tells this account from others, as of [`account_key`]. Never a token.
    pub account: String,
    /// The folder, such as `backups/laptop`; the empty one is the root of the account.
    pub folder: String,
    /// What to call the store to a person, such as `putio:backups/laptop`.
    pub name: String,
    /// A directory for ids; it may be deleted at any time. Without one, every process looks all
    /// folders up again.
    pub cache: Option<PathBuf>,
    /// A directory for objects that are being sent. Without one, what an ended process had begun
    /// to send is lost with a temporary directory.
    pub state: Option<PathBuf>,
    /// How many objects are sent at the same time, at least 1.
    pub connections: usize,
    /// Deleted objects do not go to the trash. They then leave no way back after a mistake.
    pub skip_trash: bool,
}

impl PutioOptions {
    /// Two uploads at the same time, deleted objects go to the trash, nothing lasts longer than
    /// the process.
    #[must_use]
    pub fn new(client: Client, account: String, folder: &str) -> Self {
        Self {
            client,
            account,
            folder: folder.to_owned(),
            name: format!("putio:{folder}"),
            cache: None,
            state: None,
            connections: 2,
            skip_trash: false,
        }
    }
}

/// A text that tells accounts apart and from which no token follows.
#[must_use]
pub fn account_key(api_url: &str, token: &Token) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("putback 2026 put.io account of a token");
    hasher.update(api_url.as_bytes());
    hasher.update(&[0]);
    hasher.update(token.expose().as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// A folder of a put.io account. Clones would share everything; put it into an [`Arc`] instead.
///
/// Its methods block and must not be called from asynchronous code.
pub struct PutioStore {
    inner: Arc<Inner>,
}

/// What the store and its uploads share.
struct Inner {
    /// Absent only while this is being dropped.
    runtime: Option<Runtime>,
    client: Client,
    name: String,
    folder: Folder,
    connections: usize,
    skip_trash: bool,
    known: Mutex<Known>,
    cache_file: Option<PathBuf>,
    /// What the cache file must begin with.
    key: [u8; 32],
    saved_at: Mutex<Option<Instant>>,
    /// Held while folders are looked up or made, so that threads do not all do it.
    resolving: tokio::sync::Mutex<()>,
    /// Held while an object is written, so that one path is not written twice at the same time.
    writing: Mutex<HashMap<ObjectPath, Arc<tokio::sync::Mutex<()>>>>,
    uploads: Semaphore,
    spool: Spool,
    /// Holds the spool if no state directory was given; removed with this.
    _temporary: Option<tempfile::TempDir>,
    space: Mutex<Option<SpaceSeen>>,
    /// Held while put.io is asked for it; why that failed the last time.
    asking_space: tokio::sync::Mutex<Option<SpaceFailure>>,
}

/// What put.io said about space, less what was written since.
#[derive(Clone, Copy)]
struct SpaceSeen {
    space: Space,
    at: Instant,
}

/// Why put.io did not say anything about space.
struct SpaceFailure {
    kind: putio::ErrorKind,
    call: &'static str,
    status: Option<u16>,
    error_type: Option<String>,
    message: String,
    at: Instant,
}

impl SpaceFailure {
    fn new(error: &putio::Error) -> Self {
        Self {
            kind: error.kind.clone(),
            call: error.call,
            status: error.status,
            error_type: error.error_type.clone(),
            message: error.message.clone(),
            at: Instant::now(),
        }
    }

    /// The error once more, without its cause.
    fn error(&self) -> putio::Error {
        putio::Error {
            status: self.status,
            error_type: self.error_type.clone(),
            ..putio::Error::new(self.kind.clone(), self.call, self.message.as_str())
        }
    }
}

impl PutioStore {
    /// Opens a folder of an account, which need not exist yet. Makes no request.
    ///
    /// # Errors
    /// - [`ErrorKind::Other`]: the name of the folder cannot be one on put.io, or the system gave no
    ///   threads or temporary directory.
    pub fn open(options: PutioOptions) -> Result<Self, Error> {
        let PutioOptions { client, account, folder, name, cache, state, connections, skip_trash } =
            options;
        let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Other, Operation::Manage, name.as_str()).with_source(error)
        };
        let folder = Folder::new(&folder).map_err(|invalid| fail(invalid.into()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("putio")
            .enable_all()
            .build()
            .map_err(|error| fail(error.into()))?;
        let key = place_key(&account, &folder);
        let cache_file = cache.map(|directory| {
            let hash = blake3::Hash::from_bytes(key).to_hex();
            directory.join(format!("putio-{}.ids", &hash[..16]))
        });
        let known = cache_file
            .as_ref()
            .and_then(|file| cache::load(file, &key, SystemTime::now()))
            .unwrap_or_default();
        let (state, temporary) = match state {
            Some(state) => (state, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("putback-").tempdir();
                let temporary = temporary.map_err(|error| fail(error.into()))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        // Not the account: after a new sign-in, what is left is still to be sent. The id of the
        // folder that it was meant for tells accounts apart.
        let spool = Spool::new(state.join("spool"), format!("put.io:{folder}"));
        let connections = connections.max(1);
        let inner = Inner {
            runtime: Some(runtime),
            client,
            name,
            folder,
            connections,
            skip_trash,
            known: Mutex::new(known),
            cache_file,
            key,
            saved_at: Mutex::default(),
            resolving: tokio::sync::Mutex::default(),
            writing: Mutex::default(),
            uploads: Semaphore::new(connections),
            spool,
            _temporary: temporary,
            space: Mutex::default(),
            asking_space: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Names the account and the folder in one value.
fn place_key(account: &str, folder: &Folder) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("putback 2026 put.io ids of a folder");
    hasher.update(&(account.len() as u64).to_le_bytes());
    hasher.update(account.as_bytes());
    hasher.update(folder.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

impl Inner {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime
            .as_ref()
            .expect("it is taken when this is dropped, not before")
            .block_on(future)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change leaves a valid map, whatever panics in between.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object or a folder of the store, for a person.
    fn shown(&self, path: &str) -> String {
        if path.is_empty() {
            self.name.clone()
        } else if self.name.ends_with([':', '/']) {
            format!("{}{path}", self.name)
        } else {
            format!("{}/{path}", self.name)
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &str) -> Error {
        Error::new(kind, operation, self.shown(path))
    }

    fn client_error(&self, operation: Operation, path: &str, error: putio::Error) -> Error {
        failure::from_client(operation, self.shown(path), error)
    }

    fn check_folder(&self, folder: &str, operation: Operation) -> Result<(), Error> {
        check_folder(folder)
            .map_err(|invalid| self.error(ErrorKind::Other, operation, folder).with_source(invalid))
    }

    /// Writes down what is known if it has changed; unless `is_urgent`, only now and then.
    fn save(&self, is_urgent: bool) {
        let Some(file) = &self.cache_file else {
            return;
        };
        let bytes = {
            let mut saved_at = self.saved_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = is_urgent || saved_at.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL);
            let mut known = self.known();
            if !is_due || !known.is_changed || known.root_id().is_none() {
                return;
            }
            known.is_changed = false;
            *saved_at = Some(Instant::now());
            cache::encode(&known, &self.key)
        };
        // Without the file the next process asks once more; nothing else is lost.
        drop(cache::save(file, &bytes));
    }

    /// Space, as put.io reported it at most `age_max` ago. After a failure that may pass, the same one
    /// is answered for [`SPACE_FAILURE_AGE_MAX`].
    async fn space_within(&self, age_max: Duration) -> Result<Space, putio::Error> {
        // Uploads that begin at the same moment ask once.
        let mut failed = self.asking_space.lock().await;
        let seen = *self.space_seen();
        if let Some(seen) = seen.filter(|seen| seen.at.elapsed() < age_max) {
            return Ok(seen.space);
        }
        let is_recent = |failed: &&SpaceFailure| failed.at.elapsed() < SPACE_FAILURE_AGE_MAX;
        if let Some(failed) = failed.as_ref().filter(is_recent) {
            return Err(failed.error());
        }
        let asked = self.ask_space().await;
        *failed = asked.as_ref().err().filter(|error| error.is_temporary()).map(SpaceFailure::new);
        asked
    }

    /// Space, asked of put.io: one request.
    async fn ask_space(&self) -> Result<Space, putio::Error> {
        let disk = self.client.account().await?.disk;
        let space = Space { total: disk.size, available: disk.available.min(disk.size) };
        *self.space_seen() = Some(SpaceSeen { space, at: Instant::now() });
        Ok(space)
    }

    fn space_seen(&self) -> MutexGuard<'_, Option<SpaceSeen>> {
        // Each change is one assignment.
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.save(true);
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: all that is left are idle connections.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for PutioStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutioStore")
            .field("name", &self.inner.name)
            .field("folder", &self.inner.folder)
            .finish_non_exhaustive()
    }
}

impl Store for PutioStore {
    fn describe(&self) -> String {
        self.inner.name.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { is_remote: true, connections: self.inner.connections, is_consistent: false }
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        let inner = &*self.inner;
        for folder in folders {
            inner.check_folder(folder, Operation::Manage)?;
        }
        let result = inner.block_on(inner.create(folders));
        inner.save(true);
        result
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let inner = &*self.inner;
        inner.check_folder(folder, Operation::List)?;
        let result = inner.block_on(inner.list(folder));
        inner.save(true);
        result
    }

    /// One request more than finding it: the server is asked whether the row is still there.
    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let inner = &*self.inner;
        inner.block_on(inner.stat(path))
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        let result = inner.block_on(inner.read(path, range, buffer));
        if result.is_err() {
            buffer.clear();
        }
        result
    }

    /// The network is read beside `each`, at most [`PIECES_WAITING`] pieces ahead of it.
    fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(PIECES_WAITING);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut take = |piece: &[u8]| match sender.send(piece.to_vec()) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                };
                inner.block_on(inner.read_pieces(path, range, &mut take))
            });
            for piece in &receiver {
                if each(&piece).is_break() {
                    break;
                }
            }
            drop(receiver);
            reading.join().unwrap_or_else(|_| {
                Err(inner.error(ErrorKind::Other, Operation::Read, path.as_str()))
            })
        })
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let inner = &*self.inner;
        inner.block_on(inner.read_all(path, bytes_max))
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        if bytes.len() as u64 > IN_MEMORY_BYTES_MAX {
            let mut upload = self.upload(path.folder())?;
            upload.append(bytes)?;
            return upload.finish(path);
        }
        let inner = &*self.inner;
        let result = inner.block_on(inner.send_bytes(path, bytes));
        inner.save(false);
        result
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        uploads::begin(&self.inner, folder)
    }

    /// Sends what an earlier process, or a failed attempt of this one, left in the state directory,
    /// from the byte on that put.io has. Objects older than a day or damaged on the disk are removed;
    /// one for another folder id, or that put.io does not take, stays, and the others are sent. So does
    /// one whose upload gets no answer, if put.io answers otherwise.
    fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        let inner = &*self.inner;
        let result = inner.block_on(inner.resume_uploads());
        inner.save(true);
        result
    }

    /// Deletes rows by their ids. An object without an id stands for all rows of its path.
    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let inner = &*self.inner;
        let result = inner.block_on(inner.delete(objects));
        inner.save(false);
        result
    }

    fn delete_batch(&self) -> usize {
        putio::BATCH_FILES_MAX
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        let inner = &*self.inner;
        // What this process sends meanwhile is taken off; what others do matters when little is left.
        let is_ample =
            inner.space_seen().is_some_and(|seen| seen.space.available >= AMPLE_SPACE_BYTES);
        let age_max = if is_ample { AMPLE_SPACE_AGE_MAX } else { SPACE_AGE_MAX };
        inner
            .block_on(inner.space_within(age_max))
            .map(Some)
            .map_err(|error| inner.client_error(Operation::Manage, "", error))
    }

    /// put.io has no locks.
    fn lock(&self, _mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        Ok(None)
    }
}
