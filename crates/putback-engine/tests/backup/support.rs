//! A folder to back up, a repository, and a comparison of what comes back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use putback_engine::Error;
use putback_engine::backup::{
    BackupOptions, BackupReport, FilterOptions, ParentChoice, Source, backup,
};
use putback_engine::restore::{Overwrite, RestoreOptions, restore};
use putback_repo::{
    Cancel, CheckOptions, InitOptions, KdfCost, Observer, Password, ReadData, Repository, SlotOwner,
};
use putback_store::Store;
use putback_store::memory::MemoryStore;

/// A folder, a repository in memory, and directories for cache and state.
pub(crate) struct Machine {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: MemoryStore,
    pub(crate) key: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("putback-engine-").tempdir().unwrap();
        fs::create_dir(root.path().join("source")).unwrap();
        let store = MemoryStore::new();
        let key = init(Arc::new(store.clone())).export_key().to_string();
        Self { root, store, key }
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    /// Writes a file of the source.
    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn directories(&self) -> putback_repo::Machine {
        putback_repo::Machine {
            cache: Some(self.root.path().join("cache")),
            state: Some(self.root.path().join("state")),
            ..putback_repo::Machine::default()
        }
    }

    /// Opens the repository anew, as each run of the program does.
    pub(crate) fn open(&self) -> Repository {
        self.open_store(Arc::new(self.store.clone())).unwrap()
    }

    pub(crate) fn open_store(&self, store: Arc<dyn Store>) -> putback_repo::Result<Repository> {
        Repository::open_with_exported_key(store, &self.key, &self.directories())
    }

    /// Backs up the source.
    pub(crate) fn back_up(&self) -> BackupReport {
        self.back_up_with(|_| {})
    }

    /// Backs up the source with other options.
    pub(crate) fn back_up_with(&self, change: impl FnOnce(&mut BackupOptions)) -> BackupReport {
        self.try_back_up(change, &()).unwrap()
    }

    /// Backs up the source, watched.
    pub(crate) fn try_back_up(
        &self,
        change: impl FnOnce(&mut BackupOptions),
        observer: &dyn Observer,
    ) -> Result<BackupReport, Error> {
        let mut options = options();
        change(&mut options);
        backup(&self.open(), Source::Paths(vec![self.source()]), &options, observer)
    }

    /// Restores the source of a snapshot into a new folder and compares it with the source as it is.
    #[track_caller]
    pub(crate) fn assert_restores(&self, report: &BackupReport) {
        let target = self.restore(report);
        assert_same_tree(&self.source(), target.path());
    }

    /// Restores the source of a snapshot into a new folder.
    #[track_caller]
    pub(crate) fn restore(&self, report: &BackupReport) -> tempfile::TempDir {
        let repository = self.open();
        let snapshot = repository.read_snapshot(&report.snapshot.unwrap()).unwrap();
        let target = tempfile::Builder::new().prefix("putback-target-").tempdir().unwrap();
        let path = self.source();
        let options = restore_options(target.path());
        let report =
            restore(&repository, &snapshot, path.as_os_str().as_bytes(), &options, &()).unwrap();
        assert_eq!(report.problems, 0);
        target
    }

    /// Checks with all data, without anything that this machine knows.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let options = CheckOptions { read: ReadData::All, workers: 2, ..CheckOptions::default() };
        let report = self.open().check(&options, &()).unwrap();
        assert_eq!((report.damages.as_slice(), report.warnings.as_slice()), (&[][..], &[][..]));
    }

    /// Waits until no file of the source counts as just changed: two seconds by its time stamps, which nothing
    /// but time can bring about.
    pub(crate) fn let_rest(&self) {
        let newest = newest_change(&self.source());
        let resting = Duration::from_millis(2100);
        while let Some(left) = resting.checked_sub(newest.elapsed().unwrap_or_default()) {
            std::thread::sleep(left.max(Duration::from_millis(1)));
        }
    }
}

/// A new repository with the cheapest key derivation.
pub(crate) fn init(store: Arc<dyn Store>) -> Repository {
    let options = InitOptions {
        kdf_cost: KdfCost::LOW,
        pack_bytes: None,
        compression_level: None,
        chunk_bytes_average: Some(16 << 10),
        owner: SlotOwner::default(),
    };
    let password = Password::new(b"password".to_vec());
    Repository::init(store, &password, &options, &putback_repo::Machine::default()).unwrap()
}

/// A plain backup.
pub(crate) fn options() -> BackupOptions {
    BackupOptions {
        filter: FilterOptions::default(),
        host: "host".to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        description: String::new(),
        time: None,
        utc_offset: 0,
        program: "test".to_owned(),
        parent: ParentChoice::Automatic,
        ignore_inode: false,
        ignore_ctime: false,
        dry_run: false,
        skip_if_unchanged: false,
        checkpoint_interval: Duration::from_secs(3600),
        workers: 2,
        compression_level: None,
        estimate_total: false,
        repository_folder: None,
        cancel: Cancel::default(),
    }
}

/// A plain restore.
pub(crate) fn restore_options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_path_buf(),
        include: Vec::new(),
        exclude: Vec::new(),
        iinclude: Vec::new(),
        iexclude: Vec::new(),
        overwrite: Overwrite::Always,
        delete: false,
        sparse: false,
        verify: false,
        numeric_owner: false,
        no_owner: false,
        dry_run: false,
        workers: 2,
        repository_folder: None,
        cancel: Cancel::default(),
    }
}

/// Bytes that look random, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn newest_change(path: &Path) -> SystemTime {
    let metadata = fs::symlink_metadata(path).unwrap();
    let changed = Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
    let own = SystemTime::UNIX_EPOCH + changed;
    if !metadata.is_dir() {
        return own;
    }
    let below = fs::read_dir(path).unwrap().map(|entry| newest_change(&entry.unwrap().path()));
    below.fold(own, SystemTime::max)
}

/// All that must be the same of an entry.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    links: u64,
    content: String,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn look(path: &Path) -> Seen {
    let metadata = fs::symlink_metadata(path).unwrap();
    let xattrs = xattr::list(path).unwrap().map(|name| {
        let value = xattr::get(path, &name).unwrap().unwrap();
        (name.as_bytes().to_vec(), value)
    });
    Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        links: if metadata.is_dir() { 0 } else { metadata.nlink() },
        content: if metadata.is_symlink() {
            format!("{:?}", fs::read_link(path).unwrap())
        } else if metadata.is_file() {
            // Holes are compared by what they read as, and a digest says enough.
            let mut reader = fs::File::open(path).unwrap();
            let mut digest = Digest(0xcbf2_9ce4_8422_2325);
            std::io::copy(&mut reader, &mut digest).unwrap();
            format!("{} bytes, {:x}", metadata.len(), digest.0)
        } else {
            String::new()
        },
        xattrs: xattrs.collect(),
    }
}

/// FNV-1a by words.
struct Digest(u64);

impl std::io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Asserts that two folders hold the same, metadata included.
#[track_caller]
pub(crate) fn assert_same_tree(expected: &Path, found: &Path) {
    let names = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    // The roots were made by different hands; what is below them counts.
    let mut folders = vec![(expected.to_path_buf(), found.to_path_buf())];
    while let Some((expected, found)) = folders.pop() {
        assert_eq!(names(&expected), names(&found), "{}", expected.display());
        for name in names(&expected) {
            let pair = (expected.join(&name), found.join(&name));
            assert_eq!(look(&pair.0), look(&pair.1), "{}", pair.0.display());
            if fs::symlink_metadata(&pair.0).unwrap().is_dir() {
                folders.push(pair);
            }
        }
    }
}
