//! A directory as a store.
//!
//! [`LocalStore`] writes each object under a temporary name in its folder, syncs it, renames it
//! without ever replacing anything, and syncs the folder: what is visible is complete and durable.
//! A root that does not exist is an error and never made in passing, since it is most often a
//! disk that is not mounted; a folder that does not exist is made when something is written to it.
//!
//! A full disk still takes the small objects by which room is made, see `local/reserve.rs`.
//!
//! Files have mode 0600 and directories 0700, as far as this program makes them.

mod open_files;
mod platform;
mod reserve;
mod temporary;

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err::File;

use self::open_files::OpenFiles;
use self::reserve::{RESERVE_BYTES, Reserve};
use self::temporary::{Durability, PlaceError, Temporary};
use crate::path::check_folder;
use crate::{
    Capabilities, Error, ErrorKind, Lock, LockMode, ObjectInfo, ObjectPath, Operation, Space,
    Status, Store, Upload,
};

/// The file in the root that is locked; its content means nothing.
const LOCK_NAME: &str = ".lock";

/// A store in a directory of this machine.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    open_files: OpenFiles,
    /// Folders that were searched for stale temporary files.
    swept_folders: Mutex<HashSet<String>>,
    durability: Durability,
    reserve: Reserve,
}

impl LocalStore {
    /// The store whose root is the directory `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            reserve: Reserve::new(&root),
            root,
            open_files: OpenFiles::default(),
            swept_folders: Mutex::default(),
            durability: Durability::default(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn file_of(&self, path: &ObjectPath) -> PathBuf {
        let mut file = self.directory_of(path.folder());
        file.push(path.name());
        file
    }

    fn directory_of(&self, folder: &str) -> PathBuf {
        let mut directory = self.root.clone();
        if !folder.is_empty() {
            directory.push(folder);
        }
        directory
    }

    /// The directory of a folder that a caller named.
    fn checked_directory_of(&self, folder: &str, operation: Operation) -> Result<PathBuf, Error> {
        match check_folder(folder) {
            Ok(()) => Ok(self.directory_of(folder)),
            Err(invalid) => {
                Err(Error::new(ErrorKind::Other, operation, folder).with_source(invalid))
            }
        }
    }

    /// Makes a directory and its name durable; one that exists is left as it is.
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        match platform::create_private_directory(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Something of that name exists; it must be a directory.
                return if fs_err::metadata(path)?.is_dir() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::NotADirectory.into())
                };
            }
            Err(error) => return Err(error),
        }
        match path.parent() {
            Some(parent) if parent != Path::new("") => (self.durability.sync_directory)(parent),
            _ => (self.durability.sync_directory)(Path::new(".")),
        }
    }

    /// Makes the root with its parents.
    /// Whether anything had to be made.
    fn create_root(&self) -> io::Result<bool> {
        let missing: Vec<_> = self
            .root
            .ancestors()
            .take_while(|path| *path != Path::new("") && !path.is_dir())
            .collect();
        let is_new = !missing.is_empty();
        missing.into_iter().rev().try_for_each(|path| self.create_directory(path))?;
        Ok(is_new)
    }

    /// Starts a file in `folder`, which is made if only the folder is missing.
    fn create_temporary(&self, folder: &str, directory: &Path) -> io::Result<Temporary> {
        let temporary = match Temporary::create(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => {
                // Fails with `NotFound` if not even the root exists.
                self.create_directory(directory)?;
                Temporary::create(directory)?
            }
            result => result?,
        };
        let is_first = {
            let mut swept = self.swept_folders.lock().unwrap_or_else(PoisonError::into_inner);
            !swept.contains(folder) && swept.insert(folder.to_owned())
        };
        if is_first && let Ok(now) = temporary.modified() {
            temporary::remove_stale(directory, now);
        }
        Ok(temporary)
    }

    /// Opens an object; anything that is not a file does not exist.
    fn open(&self, path: &ObjectPath) -> io::Result<File> {
        let file = File::open(self.file_of(path))?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn write_once(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        let mut upload = self.upload(path.folder())?;
        upload.append(bytes)?;
        upload.finish(path)
    }

    /// Reads a range, by another handle if the one that is open has failed: one of before a network file system or a
    /// disk was connected again fails for ever.
    fn read_range(
        &self,
        path: &ObjectPath,
        range: &Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        match self.read_open(path, range, buffer) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                self.open_files.forget(path);
                self.read_open(path, range, buffer)
            }
            read => read,
        }
    }

    fn read_open(
        &self,
        path: &ObjectPath,
        range: &Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let file = self.open_files.get(path, || self.open(path))?;
        if range.is_empty() {
            buffer.clear();
            return Ok(());
        }
        // Before anything is allocated: the range may come from a damaged index.
        let size = file.metadata()?.len();
        let length = match usize::try_from(range.end - range.start) {
            Ok(length) if range.end <= size => length,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("bytes {} to {} were asked for, it has {size}", range.start, range.end),
                ));
            }
        };
        if buffer.capacity() < length {
            *buffer = vec![0; length];
        } else {
            buffer.resize(length, 0);
        }
        crate::at::read_exact_at(file.file(), buffer, range.start)
    }
}

impl Store for LocalStore {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { is_remote: false, connections: 8, is_consistent: true }
    }

    fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        let operation = Operation::Manage;
        // A file that stands where a folder is to be is there, unlike what others look for behind it.
        let fail = |path: &Path, error: io::Error| match error.kind() {
            io::ErrorKind::NotADirectory => {
                Error::new(ErrorKind::Other, operation, display(path)).with_source(error)
            }
            _ => io_error(operation, path, error),
        };
        let is_new = self.create_root().map_err(|error| fail(&self.root, error))?;
        for folder in folders {
            let directory = self.checked_directory_of(folder, operation)?;
            self.create_directory(&directory).map_err(|error| fail(&directory, error))?;
        }
        Ok(is_new)
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        let directory = self.checked_directory_of(folder, Operation::List)?;
        let fail = |error| io_error(Operation::List, &directory, error);
        let entries = match fs_err::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs_err::metadata(&self.root) {
                    Ok(_) if !folder.is_empty() => Ok(Vec::new()),
                    Ok(_) => Err(fail(error)),
                    Err(error) => Err(io_error(Operation::List, &self.root, error)),
                };
            }
            Err(error) => return Err(fail(error)),
        };
        let mut objects = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let Some(path) =
                name.to_str().and_then(|name| ObjectPath::in_folder(folder, name).ok())
            else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_symlink() => fs_err::metadata(entry.path()),
                result => result,
            };
            match metadata {
                Ok(metadata) if metadata.is_file() => objects.push(info(path, &metadata)),
                Ok(_) => {}
                // Deleted since its name was read, or a link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(objects)
    }

    fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let file = self.file_of(path);
        match fs_err::metadata(&file) {
            Ok(metadata) if metadata.is_file() => Ok(info(path.clone(), &metadata)),
            Ok(_) => Err(Error::new(ErrorKind::NotFound, Operation::Stat, display(&file))),
            Err(error) => Err(io_error(Operation::Stat, &file, error)),
        }
    }

    fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.read_range(path, &range, buffer).map_err(|error| {
            buffer.clear();
            io_error(Operation::Read, &self.file_of(path), error)
        })
    }

    fn read_all(&self, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let fail = |error| io_error(Operation::Read, &self.file_of(path), error);
        let too_large = || {
            Error::new(ErrorKind::Corrupt, Operation::Read, display(&self.file_of(path)))
                .with_source(format!("it is larger than {bytes_max} bytes"))
        };
        let file = self.open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
        // The limit also holds if somebody appends to the file right now.
        let mut limited = file.file().take(bytes_max.saturating_add(1));
        limited.read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > bytes_max {
            return Err(too_large());
        }
        Ok(bytes)
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) -> Result<ObjectInfo, Error> {
        match self.write_once(path, bytes) {
            Err(error)
                if error.kind == ErrorKind::Full
                    && bytes.len() as u64 <= RESERVE_BYTES
                    && self.reserve.give() =>
            {
                self.write_once(path, bytes)
            }
            result => result,
        }
    }

    fn upload(&self, folder: &str) -> Result<Box<dyn Upload>, Error> {
        let directory = self.checked_directory_of(folder, Operation::Write)?;
        let temporary = self
            .create_temporary(folder, &directory)
            .map_err(|error| io_error(Operation::Write, &directory, error))?;
        Ok(Box::new(LocalUpload {
            temporary,
            folder: folder.to_owned(),
            directory,
            durability: self.durability,
            has_failed: false,
        }))
    }

    fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let mut changed_folders = HashSet::new();
        for object in objects {
            self.open_files.forget(&object.path);
            let file = self.file_of(&object.path);
            match fs_err::remove_file(&file) {
                Ok(()) => {
                    changed_folders.insert(object.path.folder());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(Operation::Delete, &file, error)),
            }
        }
        // What was deleted first must not be what comes back first after a power failure.
        for folder in changed_folders {
            let directory = self.directory_of(folder);
            (self.durability.sync_directory)(&directory)
                .map_err(|error| io_error(Operation::Delete, &directory, error))?;
        }
        Ok(())
    }

    fn space(&self) -> Result<Option<Space>, Error> {
        platform::space(&self.root).map_err(|error| io_error(Operation::Manage, &self.root, error))
    }

    /// Waits for a lock on a file in the root, which the operating system frees when the process
    /// dies. Each call counts as another holder, also within one thread. `None` on file systems
    /// that have no locks.
    fn lock(&self, mode: LockMode) -> Result<Option<Box<dyn Lock>>, Error> {
        let path = self.root.join(LOCK_NAME);
        let fail = |error| io_error(Operation::Manage, &path, error);
        let file = platform::open_lock_file(&path).map_err(fail)?;
        loop {
            let result = match mode {
                LockMode::Shared => file.lock_shared(),
                LockMode::Exclusive => file.lock(),
            };
            match result {
                Ok(()) => {
                    // Who locks is about to write, or to delete: after a full disk had room again.
                    self.reserve.keep();
                    return Ok(Some(Box::new(LocalLock { _file: file })));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
                Err(error) => return Err(fail(error)),
            }
        }
    }
}

/// A lock that ends when its file is closed.
struct LocalLock {
    _file: File,
}

impl Lock for LocalLock {}

/// An object under its temporary name.
struct LocalUpload {
    temporary: Temporary,
    folder: String,
    directory: PathBuf,
    durability: Durability,
    /// Bytes are missing in the middle; this can never become an object.
    has_failed: bool,
}

impl Upload for LocalUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.temporary.append(bytes).map_err(|error| {
            self.has_failed = true;
            io_error(Operation::Write, &self.directory, error)
        })
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let target = self.directory.join(path.name());
        let fail = |kind, source: String| {
            Err(Error::new(kind, Operation::Write, display(&target)).with_source(source))
        };
        if self.has_failed {
            return fail(ErrorKind::Other, "an earlier part of it was not written".to_owned());
        }
        if path.folder() != self.folder {
            return fail(ErrorKind::Other, format!("its upload began in '{}'", self.folder));
        }
        match self.temporary.place(&target, self.durability) {
            Ok(placed) => Ok(ObjectInfo {
                path: path.clone(),
                size: placed.size,
                modified: placed.modified,
                service_id: None,
                crc32: None,
            }),
            Err(PlaceError::Taken { size }) => {
                fail(ErrorKind::AlreadyExists, format!("the existing one has {size} bytes"))
            }
            Err(PlaceError::Io(error)) => Err(io_error(Operation::Write, &target, error)),
        }
    }
}

fn info(path: ObjectPath, metadata: &std::fs::Metadata) -> ObjectInfo {
    ObjectInfo {
        path,
        size: metadata.len(),
        modified: metadata.modified().ok(),
        service_id: None,
        crc32: None,
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// An error of the system as one of the store.
fn io_error(operation: Operation, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    };
    let status = match error.kind() {
        // Of network file systems, and of files that another program holds for a moment.
        io::ErrorKind::TimedOut
        | io::ErrorKind::NotConnected
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::WouldBlock => Status::Temporary,
        _ => Status::Permanent,
    };
    Error::new(kind, operation, display(path)).with_status(status).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::new(text).unwrap()
    }

    fn store_in(folder: &tempfile::TempDir) -> LocalStore {
        let store = LocalStore::new(folder.path().join("root"));
        store.create(&["packs"]).unwrap();
        store
    }

    /// Every file below `directory`, hidden ones too.
    fn files_below(directory: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                names.extend(files_below(&entry.path()));
            } else {
                names.push(entry.file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }

    fn failing<T: ?Sized>(_: &T) -> io::Result<()> {
        Err(io::Error::other("the disk is dying"))
    }

    #[test]
    fn a_failed_sync_of_the_bytes_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store_in(&folder);
        store.durability.sync_file = failing;
        let error = store.write(&path("packs/a"), b"bytes").unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Other, Status::Permanent));
        assert_eq!(files_below(store.root()), [""; 0]);
    }

    #[test]
    fn a_failed_sync_of_the_folder_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store_in(&folder);
        store.durability.sync_directory = failing;
        store.write(&path("packs/a"), b"bytes").unwrap_err();
        assert_eq!(files_below(store.root()), [""; 0]);
    }

    #[test]
    fn a_failed_sync_does_not_remove_the_object_of_another_writer() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store_in(&folder);
        store.write(&path("packs/a"), b"bytes").unwrap();
        store.durability.sync_directory = failing;
        store.write(&path("packs/a"), b"bytes").unwrap_err();
        assert_eq!(files_below(store.root()), ["a"]);
    }

    #[test]
    fn a_failed_sync_after_deleting_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = store_in(&folder);
        let object = store.write(&path("packs/a"), b"bytes").unwrap();
        store.durability.sync_directory = failing;
        assert_eq!(store.delete(&[object]).unwrap_err().operation, Operation::Delete);
    }

    #[test]
    fn an_unfinished_upload_is_one_hidden_file_that_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let mut upload = store.upload("packs").unwrap();
        upload.append(b"some").unwrap();
        let names = files_below(store.root());
        assert!(names.len() == 1 && names[0].starts_with(".tmp-"), "{names:?}");
        drop(upload);
        assert_eq!(files_below(store.root()), [""; 0]);
    }

    #[test]
    fn no_refused_or_repeated_write_leaves_a_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        store.write(&path("packs/a"), b"bytes").unwrap();
        store.write(&path("packs/a"), b"bytes").unwrap();
        store.write(&path("packs/a"), b"other").unwrap();
        store.write(&path("packs/a"), b"longer bytes").unwrap_err();
        let upload = store.upload("packs").unwrap();
        upload.finish(&path("index/a")).unwrap_err();
        assert_eq!(files_below(store.root()), ["a"]);
        assert_eq!(fs_err::read(store.root().join("packs/a")).unwrap(), b"bytes");
    }

    #[test]
    fn stale_temporary_files_go_with_the_first_write_to_their_folder_and_not_by_reading() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let directory = store.root().join("packs");
        let old = File::create(directory.join(".tmp-00000000000000aa")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(25 * 60 * 60)).unwrap();
        File::create(directory.join(".tmp-00000000000000bb")).unwrap();

        store.list("packs").unwrap();
        store.stat(&path("packs/a")).unwrap_err();
        store.write(&path("index/a"), b"").unwrap();
        assert_eq!(files_below(&directory).len(), 2);
        store.write(&path("packs/a"), b"").unwrap();
        assert_eq!(files_below(&directory), [".tmp-00000000000000bb", "a"]);
    }

    #[test]
    fn foreign_names_folders_and_hidden_files_are_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        store.write(&path("packs/a"), b"bytes").unwrap();
        let directory = store.root().join("packs");
        for name in ["a b", "ä", ".hidden", ".tmp-1", "x~", "desktop.ini;1"] {
            fs_err::write(directory.join(name), b"").unwrap();
        }
        fs_err::create_dir(directory.join("folder")).unwrap();

        let names: Vec<_> = store.list("packs").unwrap().into_iter().map(|row| row.path).collect();
        assert_eq!(names, [path("packs/a")]);
        assert_eq!(store.stat(&path("packs/folder")).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(store.read_all(&path("packs/folder"), 9).unwrap_err().kind, ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_objects_are_objects_and_links_to_nowhere_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let directory = store.root().join("packs");
        fs_err::write(folder.path().join("elsewhere"), b"bytes").unwrap();
        fs_err::os::unix::fs::symlink(folder.path().join("elsewhere"), directory.join("a"))
            .unwrap();
        fs_err::os::unix::fs::symlink(folder.path().join("nowhere"), directory.join("b")).unwrap();
        let rows = store.list("packs").unwrap();
        assert_eq!(rows.iter().map(|row| row.size).collect::<Vec<_>>(), [5]);
        // A name that leads nowhere is taken all the same.
        store.write(&path("packs/b"), b"bytes").unwrap_err();
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().join("parent").join("root"));
        store.create(&["packs"]).unwrap();
        store.write(&path("packs/a"), b"bytes").unwrap();
        store.write(&path("made/a"), b"bytes").unwrap();
        let _lock = store.lock(LockMode::Shared).unwrap();
        let mode = |name: &str| {
            fs_err::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        for directory in ["parent", "parent/root", "parent/root/packs", "parent/root/made"] {
            assert_eq!(mode(directory), 0o700, "{directory}");
        }
        for file in ["parent/root/packs/a", "parent/root/made/a", "parent/root/.lock"] {
            assert_eq!(mode(file), 0o600, "{file}");
        }
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made_by_writing() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().join("unmounted"));
        assert_eq!(store.write(&path("packs/a"), b"").unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(store.lock(LockMode::Shared).err().unwrap().kind, ErrorKind::NotFound);
        assert_eq!(store.space().unwrap_err().kind, ErrorKind::NotFound);
        assert!(!store.root().exists());
    }

    #[test]
    fn a_file_in_place_of_a_folder_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().join("root"));
        fs_err::write(store.root(), b"a letter").unwrap();
        assert_eq!(store.create(&[]).unwrap_err().kind, ErrorKind::Other);
        let below = LocalStore::new(store.root().join("below"));
        assert_eq!(below.create(&[]).unwrap_err().kind, ErrorKind::Other);
        store.list("packs").unwrap_err();
        store.write(&path("packs/a"), b"").unwrap_err();
        assert_eq!(fs_err::read(store.root()).unwrap(), b"a letter");
    }

    #[test]
    fn a_relative_root_of_one_component_can_be_synced() {
        // The parent of such a path is the empty path, which cannot be opened.
        let store = LocalStore::new(PathBuf::from("."));
        store.create(&[]).unwrap();
        assert!(store.space().unwrap().is_none_or(|space| space.available <= space.total));
    }

    #[test]
    fn a_deleted_object_is_not_served_from_an_open_handle() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let object = store.write(&path("packs/a"), b"bytes").unwrap();
        let mut buffer = Vec::new();
        store.read(&object.path, 0..5, &mut buffer).unwrap();
        store.delete(std::slice::from_ref(&object)).unwrap();
        let error = store.read(&object.path, 0..5, &mut buffer).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert_eq!(buffer, b"");
    }

    #[test]
    fn a_handle_that_has_gone_bad_gives_way_to_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let object = store.write(&path("packs/a"), b"bytes").unwrap();
        // One that cannot be read from stands for one of before the disk was connected again.
        let open_bad = || {
            store.open_files.get(&object.path, || {
                let mut options = fs_err::OpenOptions::new();
                options.write(true).open(store.file_of(&object.path))
            })
        };
        open_bad().unwrap();
        let mut buffer = Vec::new();
        store.read(&object.path, 1..4, &mut buffer).unwrap();
        assert_eq!(buffer, b"yte");
        store.open_files.get(&object.path, || panic!("the new one stays open")).unwrap();
        store.open_files.forget(&object.path);
        open_bad().unwrap();
        fs_err::remove_file(store.file_of(&object.path)).unwrap();
        let error = store.read(&object.path, 1..4, &mut buffer).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }

    #[test]
    fn a_file_cut_while_it_is_open_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let object = store.write(&path("packs/a"), b"bytes").unwrap();
        let mut buffer = Vec::new();
        store.read(&object.path, 0..5, &mut buffer).unwrap();
        let file =
            fs_err::OpenOptions::new().write(true).open(store.file_of(&object.path)).unwrap();
        file.set_len(3).unwrap();
        let error = store.read(&object.path, 0..5, &mut buffer).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt);
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(&folder);
        let object = store.write(&path("packs/a"), b"bytes").unwrap();
        let mut buffer = Vec::new();
        for range in [0..u64::MAX, 0..1 << 46, u64::MAX - 1..u64::MAX] {
            let error = store.read(&object.path, range, &mut buffer).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt);
        }
        assert_eq!(buffer.capacity(), 0);
    }

    #[track_caller]
    fn check_kind(error: io::Error, kind: ErrorKind) {
        assert_eq!(io_error(Operation::Write, Path::new("x"), error).kind, kind);
    }

    #[cfg(unix)]
    #[test]
    fn errors_of_the_system_have_the_kind_a_caller_acts_on() {
        use rustix::io::Errno;
        for (errno, kind) in [
            (Errno::NOSPC, ErrorKind::Full),
            (Errno::DQUOT, ErrorKind::Full),
            (Errno::ROFS, ErrorKind::Denied),
            (Errno::ACCESS, ErrorKind::Denied),
            (Errno::PERM, ErrorKind::Denied),
            (Errno::NOENT, ErrorKind::NotFound),
            (Errno::IO, ErrorKind::Other),
            (Errno::EXIST, ErrorKind::Other),
        ] {
            check_kind(errno.into(), kind);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_reported_as_full() {
        let error = fs_err::write("/dev/full", b"bytes").unwrap_err();
        check_kind(error, ErrorKind::Full);
    }

    /// Not even the superuser may make files in the kernel's own file system.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_place_that_takes_no_files_is_reported_as_denied() {
        let store = LocalStore::new(PathBuf::from("/sys"));
        for error in [
            store.write(&path("a"), b"bytes").unwrap_err(),
            store.create(&["packs"]).unwrap_err(),
            store.lock(LockMode::Shared).err().unwrap(),
        ] {
            assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
        }
    }
}
