//! Objects on their way to put.io, kept on disk so that sending them can go on after a crash.
//!
//! Each process has a folder of its own in the spool folder, which it holds by a locked file for as
//! long as it lives. There an object is `NUMBER.object`; once it is whole and synced, `NUMBER.json`
//! beside it says what it is and, when sending has begun, by which session. Only objects with such
//! a description are ever sent again, and only if size and BLAKE3 still fit.
//!
//! A session is a secret of the account: folders have mode 0700 and files 0600.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs_err::File;
use putback_store::ObjectPath;
use putio::{FileContent, FileId, Session};
use serde::{Deserialize, Serialize};

/// The file that a process holds locked.
const LOCK_NAME: &str = "lock";

/// An object that waited longer is not sent: had it been sent after all, then a prune that found it
/// in no index might have deleted it by now, and a deleted name must not come back.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder without a lock that is younger may be one that its process is about to lock.
const LOCKING_TIME_MAX: Duration = Duration::from_secs(60);

/// Descriptions are small.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

/// Bytes that are read at a time where a whole object is hashed.
const PIECE_BYTES: usize = 1 << 20;

/// What a spooled object is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Description {
    version: u32,
    /// Which service and folder it belongs to.
    store: String,
    path: String,
    /// The folder on put.io.
    parent: i64,
    pub(super) size: u64,
    pub(super) crc32: u32,
    blake3: String,
    pub(super) session: Option<Session>,
}

const VERSION: u32 = 1;

/// A spool folder, shared by all processes of a user.
#[derive(Debug)]
pub(super) struct Spool {
    root: PathBuf,
    /// Which service and folder this process writes to.
    store: String,
    own: Mutex<Option<Arc<OwnedFolder>>>,
    /// Objects that this process has in its hands.
    busy: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Spool {
    /// The spool in the folder `root`, which need not exist yet, for objects of `store`.
    pub(super) fn new(root: PathBuf, store: String) -> Self {
        Self { root, store, own: Mutex::default(), busy: Arc::default() }
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Starts an object. It vanishes if it is dropped before [`SpoolFile::finish`].
    pub(super) fn create(&self) -> io::Result<SpoolFile> {
        let folder = self.own_folder()?;
        let path = folder.path.join(format!("{:016x}.object", random()?));
        let busy = Busy::new(&self.busy, &path);
        let file = create_private_file(&path)?;
        let files = Files { content: path, _busy: busy, _folder: folder };
        Ok(SpoolFile {
            file,
            files: Some(files),
            store: self.store.clone(),
            size: 0,
            crc32: crc32fast::Hasher::new(),
            blake3: blake3::Hasher::new(),
        })
    }

    /// Objects that nobody is sending: of processes that died, and of failed attempts of this one.
    /// What can never be sent is removed; what belongs to other stores is left alone.
    pub(super) fn leftovers(&self) -> io::Result<Vec<Spooled>> {
        let entries = match fs_err::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let own = lock(&self.own).clone();
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(own) = own.as_ref().filter(|own| own.path == path) {
                self.search(own, true, &mut found)?;
            } else if let Ok(Some(folder)) = OwnedFolder::adopt(&path) {
                self.search(&Arc::new(folder), false, &mut found)?;
            }
            // Any other is in use, or gone, or no folder of ours.
        }
        Ok(found)
    }

    fn search(
        &self,
        folder: &Arc<OwnedFolder>,
        is_own: bool,
        found: &mut Vec<Spooled>,
    ) -> io::Result<()> {
        for entry in fs_err::read_dir(&folder.path)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("object") => {}
                // It goes with its object.
                Some("json") if path.with_extension("object").exists() => continue,
                None if path.ends_with(LOCK_NAME) => continue,
                // Unfinished; in the folder of this process somebody may be about to finish it.
                _ => {
                    if !is_own {
                        drop(fs_err::remove_file(&path));
                    }
                    continue;
                }
            }
            let Some(busy) = Busy::try_new(&self.busy, &path) else {
                continue;
            };
            let files = Files { content: path, _busy: busy, _folder: Arc::clone(folder) };
            match Spooled::load(files, &self.store) {
                Loaded::Ready(spooled) => found.push(spooled),
                Loaded::Foreign => {}
                Loaded::Broken(files) => files.remove(),
            }
        }
        Ok(())
    }

    fn own_folder(&self) -> io::Result<Arc<OwnedFolder>> {
        let mut own = lock(&self.own);
        if let Some(folder) = &*own {
            return Ok(Arc::clone(folder));
        }
        create_private_directories(&self.root)?;
        let folder = Arc::new(OwnedFolder::create(&self.root)?);
        *own = Some(Arc::clone(&folder));
        Ok(folder)
    }
}

/// A folder whose lock this process holds.
#[derive(Debug)]
struct OwnedFolder {
    path: PathBuf,
    _lock: File,
}

impl OwnedFolder {
    fn create(root: &Path) -> io::Result<Self> {
        loop {
            let path = root.join(format!("{:016x}", random()?));
            create_private_directories(&path)?;
            let lock = match create_private_file(&path.join(LOCK_NAME)) {
                Ok(lock) => lock,
                // Another process took the folder for abandoned just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match lock.try_lock() {
                Ok(()) if path.join(LOCK_NAME).exists() => return Ok(Self { path, _lock: lock }),
                Ok(()) | Err(std::fs::TryLockError::WouldBlock) => {}
                // Without locks nobody can tell that this process lives; others leave it alone.
                Err(std::fs::TryLockError::Error(error))
                    if error.kind() == io::ErrorKind::Unsupported =>
                {
                    return Ok(Self { path, _lock: lock });
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Takes over the folder of a process that is no more; `None` if it lives, or if the folder is
    /// none.
    fn adopt(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs_err::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Ok(None);
        }
        let lock = match fs_err::OpenOptions::new().write(true).open(path.join(LOCK_NAME)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let age = metadata.modified()?.elapsed().unwrap_or_default();
                if age > LOCKING_TIME_MAX {
                    drop(fs_err::remove_dir(path));
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let is_taken = lock.try_lock().is_ok() && path.join(LOCK_NAME).exists();
        Ok(is_taken.then(|| Self { path: path.to_owned(), _lock: lock }))
    }
}

impl Drop for OwnedFolder {
    fn drop(&mut self) {
        // Nothing but the lock is left: the folder goes. Otherwise a later process finds it.
        let Ok(entries) = fs_err::read_dir(&self.path) else {
            return;
        };
        let is_empty = entries
            .take(2)
            .all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str() == Some(LOCK_NAME)));
        if is_empty {
            drop(fs_err::remove_file(self.path.join(LOCK_NAME)));
            drop(fs_err::remove_dir(&self.path));
        }
    }
}

/// Marks an object as being in the hands of this process.
#[derive(Debug)]
struct Busy {
    all: Arc<Mutex<HashSet<PathBuf>>>,
    path: PathBuf,
}

impl Busy {
    fn new(all: &Arc<Mutex<HashSet<PathBuf>>>, path: &Path) -> Self {
        lock(all).insert(path.to_owned());
        Self { all: Arc::clone(all), path: path.to_owned() }
    }

    /// `None` if it is already.
    fn try_new(all: &Arc<Mutex<HashSet<PathBuf>>>, path: &Path) -> Option<Self> {
        let is_free = lock(all).insert(path.to_owned());
        is_free.then(|| Self { all: Arc::clone(all), path: path.to_owned() })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.path);
    }
}

/// The files of one object. The lock of their folder is held as long as this lives.
#[derive(Debug)]
struct Files {
    content: PathBuf,
    _busy: Busy,
    _folder: Arc<OwnedFolder>,
}

impl Files {
    fn description(&self) -> PathBuf {
        self.content.with_extension("json")
    }

    /// The description goes last: without it, what is left of the object is never sent.
    fn remove(self) {
        drop(fs_err::remove_file(self.description()));
        drop(fs_err::remove_file(&self.content));
    }
}

/// An object that is being written.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    /// Absent once it is finished.
    files: Option<Files>,
    store: String,
    size: u64,
    crc32: crc32fast::Hasher,
    blake3: blake3::Hasher,
}

impl SpoolFile {
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.crc32.update(bytes);
        self.blake3.update(bytes);
        Ok(())
    }

    /// Size, CRC-32 and BLAKE3 of what was appended.
    pub(super) fn sums(&self) -> (u64, u32, blake3::Hash) {
        (self.size, self.crc32.clone().finalize(), self.blake3.finalize())
    }

    /// Makes the object durable, to be sent as `path` into the folder `parent`. From here on it
    /// stays until [`Spooled::remove`], whatever happens.
    pub(super) fn finish(mut self, path: &ObjectPath, parent: FileId) -> io::Result<Spooled> {
        self.file.sync_all()?;
        let (size, crc32, blake3) = self.sums();
        let description = Description {
            version: VERSION,
            store: std::mem::take(&mut self.store),
            path: path.as_str().to_owned(),
            parent: parent.0,
            size,
            crc32,
            blake3: blake3.to_hex().to_string(),
            session: None,
        };
        let files = self.files.take().expect("it is taken here only, and this consumes the file");
        write_description(&files, &description)?;
        Ok(Spooled { files, path: path.clone(), description })
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Some(files) = self.files.take() {
            files.remove();
        }
    }
}

/// A whole object that waits to be sent.
#[derive(Debug)]
pub(super) struct Spooled {
    files: Files,
    path: ObjectPath,
    pub(super) description: Description,
}

enum Loaded {
    Ready(Spooled),
    /// It belongs to another store.
    Foreign,
    /// It can never be sent.
    Broken(Files),
}

impl Spooled {
    pub(super) fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// The folder on put.io that it was meant for.
    pub(super) fn parent(&self) -> FileId {
        FileId(self.description.parent)
    }

    pub(super) fn blake3(&self) -> Option<blake3::Hash> {
        blake3::Hash::from_hex(&self.description.blake3).ok()
    }

    pub(super) fn content(&self) -> io::Result<FileContent> {
        FileContent::new(File::open(&self.files.content)?.into_parts().0)
    }

    /// Writes down how sending can go on. Best effort: without it, sending starts over.
    pub(super) fn note_session(&mut self, session: &Session) {
        self.description.session = Some(session.clone());
        drop(write_description(&self.files, &self.description));
    }

    /// Whether the content is what the description says, read from the disk.
    pub(super) fn is_intact(&self) -> bool {
        let said = (self.description.size, self.description.crc32, self.blake3());
        sums(&self.files.content, self.description.size)
            .is_ok_and(|(size, crc32, blake3)| said == (size, crc32, Some(blake3)))
    }

    /// The object is safe elsewhere, or given up.
    pub(super) fn remove(self) {
        self.files.remove();
    }

    fn load(files: Files, store: &str) -> Loaded {
        let path = files.description();
        let read = || {
            let mut bytes = Vec::new();
            // Of the content, since the description is written anew with each session.
            let content = fs_err::metadata(&files.content)?;
            let age = content.modified()?.elapsed().unwrap_or_default();
            File::open(&path)?.take(DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes)?;
            io::Result::Ok((bytes, age))
        };
        let Ok((bytes, age)) = read() else {
            return Loaded::Broken(files);
        };
        let Ok(description) = serde_json::from_slice::<Description>(&bytes) else {
            return Loaded::Broken(files);
        };
        if age > AGE_MAX {
            return Loaded::Broken(files);
        }
        if description.version != VERSION || description.store != store {
            return Loaded::Foreign;
        }
        match ObjectPath::new(&description.path) {
            Ok(path) => Loaded::Ready(Self { files, path, description }),
            Err(_) => Loaded::Broken(files),
        }
    }
}

fn write_description(files: &Files, description: &Description) -> io::Result<()> {
    let path = files.description();
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::with_prefix_in("description.", directory)?;
    serde_json::to_writer(&mut file, description)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // So that a power failure does not undo the name. What cannot be synced is started over.
    drop(File::open(directory).and_then(|directory| directory.sync_all()));
    Ok(())
}

/// Size, CRC-32 and BLAKE3 of a file; reading ends soon after `size_max`.
fn sums(path: &Path, size_max: u64) -> io::Result<(u64, u32, blake3::Hash)> {
    let mut file = File::open(path)?.take(size_max.saturating_add(1));
    let mut piece = vec![0; PIECE_BYTES];
    let (mut size, mut crc32, mut blake3) = (0, crc32fast::Hasher::new(), blake3::Hasher::new());
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => return Ok((size, crc32.finalize(), blake3.finalize())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size += count as u64;
        crc32.update(&piece[..count]);
        blake3.update(&piece[..count]);
    }
}

/// Makes a directory and its parents, for their owner alone; what exists is left as it is.
pub(super) fn create_private_directories(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn create_private_file(path: &Path) -> io::Result<File> {
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one insertion, removal or assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> ObjectPath {
        "packs/a".parse().unwrap()
    }

    fn spool(folder: &tempfile::TempDir) -> Spool {
        Spool::new(folder.path().join("spool"), "store".to_owned())
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                names.extend(files(&entry.path()));
            } else {
                names.push(entry.file_name().into_string().unwrap());
            }
        }
        names.retain(|name| name != LOCK_NAME);
        names.sort();
        names
    }

    fn finished(spool: &Spool, bytes: &[u8]) -> Spooled {
        let mut file = spool.create().unwrap();
        file.append(bytes).unwrap();
        file.finish(&path(), FileId(5)).unwrap()
    }

    #[test]
    fn what_a_dead_process_left_is_found_with_its_session() {
        let folder = tempfile::tempdir().unwrap();
        let before = spool(&folder);
        drop(finished(&before, b"bytes"));
        drop(before);
        let after = spool(&folder);
        let found = after.leftovers().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path(), found[0].parent()), (&path(), FileId(5)));
        assert!(found[0].is_intact());
        found.into_iter().for_each(Spooled::remove);
        assert_eq!(fs_err::read_dir(after.root()).unwrap().count(), 0);
    }

    #[test]
    fn a_living_process_keeps_what_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let living = spool(&folder);
        drop(finished(&living, b"bytes"));
        assert_eq!(spool(&folder).leftovers().unwrap().len(), 0);
        assert_eq!(living.leftovers().unwrap().len(), 1, "a failed attempt is its own to repeat");
        let busy = finished(&living, b"bytes");
        assert_eq!(living.leftovers().unwrap().len(), 1);
        drop(busy);
        assert_eq!(living.leftovers().unwrap().len(), 2);
    }

    #[test]
    fn an_object_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(&folder);
        let mut file = spool.create().unwrap();
        file.append(b"bytes").unwrap();
        assert_eq!(files(folder.path()).len(), 1);
        drop(file);
        assert_eq!(files(folder.path()), [""; 0]);
        drop(spool);
        assert_eq!(fs_err::read_dir(folder.path().join("spool")).unwrap().count(), 0);
    }

    /// Spoils the files of a finished object and sees what becomes of it.
    #[track_caller]
    fn check(spoil: impl Fn(&Path), is_found: bool, is_intact: bool) {
        let folder = tempfile::tempdir().unwrap();
        let before = spool(&folder);
        let spooled = finished(&before, b"bytes");
        let content = spooled.files.content.clone();
        drop((spooled, before));
        spoil(&content);
        let found = spool(&folder).leftovers().unwrap();
        assert_eq!(found.len(), usize::from(is_found));
        if is_found {
            assert_eq!(found[0].is_intact(), is_intact);
        } else {
            assert_eq!(files(folder.path()), [""; 0], "what can never be sent is removed");
        }
    }

    #[test]
    fn only_whole_objects_with_their_description_are_sent_again() {
        check(|_| {}, true, true);
        check(|content| fs_err::write(content, b"byteS").unwrap(), true, false);
        check(|content| fs_err::write(content, b"byte").unwrap(), true, false);
        check(|content| fs_err::write(content, b"bytes and more").unwrap(), true, false);
        check(|content| fs_err::remove_file(content).unwrap(), false, false);
        check(|content| fs_err::remove_file(content.with_extension("json")).unwrap(), false, false);
        check(
            |content| fs_err::write(content.with_extension("json"), b"{}").unwrap(),
            false,
            false,
        );
        check(
            |content| {
                let file = File::options().write(true).open(content);
                let long_ago = std::time::SystemTime::now() - AGE_MAX - Duration::from_secs(9);
                file.unwrap().set_modified(long_ago).unwrap();
            },
            false,
            false,
        );
    }

    #[test]
    fn an_attempt_makes_no_object_younger() {
        let folder = tempfile::tempdir().unwrap();
        let before = spool(&folder);
        let mut spooled = finished(&before, b"bytes");
        let file = File::options().write(true).open(&spooled.files.content).unwrap();
        file.set_modified(std::time::SystemTime::now() - AGE_MAX - Duration::from_secs(9)).unwrap();
        let session = serde_json::json!({ "url": "https://upload.put.io/files/1", "length": 5 });
        spooled.note_session(&serde_json::from_value(session).unwrap());
        drop(spooled);
        assert_eq!(before.leftovers().unwrap().len(), 0);
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[test]
    fn objects_of_other_stores_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let before = spool(&folder);
        drop(finished(&before, b"bytes"));
        drop(before);
        let other = Spool::new(folder.path().join("spool"), "other".to_owned());
        assert_eq!(other.leftovers().unwrap().len(), 0);
        assert_eq!(spool(&folder).leftovers().unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_spool() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let spool = spool(&folder);
        let spooled = finished(&spool, b"bytes");
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&spooled.files.content), 0o600);
        assert_eq!(mode(&spooled.files.description()), 0o600);
        assert_eq!(mode(spool.root()), 0o700);
    }
}
