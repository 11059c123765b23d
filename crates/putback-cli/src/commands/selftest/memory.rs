//! A repository in memory that is used, damaged, and broken at every request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use putback_engine::backup::{self, BackupOptions, FilterOptions, ParentChoice, Source};
use putback_engine::restore::{self, Overwrite, RestoreOptions};
use putback_repo::{
    Cancel, CheckOptions, InitOptions, KdfCost, Machine, Password, ReadData, Repository, SlotOwner,
    SnapshotFilter,
};
use putback_store::Store;
use putback_store::memory::MemoryStore;
use putback_store::testing::faulty::{Calls, Fault, FaultyStore};

use super::{Finding, find};

/// Names and contents of files.
type Files = BTreeMap<PathBuf, Vec<u8>>;
type Result<T, E = String> = std::result::Result<T, E>;

/// Makes `folder` the place of source and targets, and tests.
pub(super) fn rehearse(folder: &Path, workers: usize) -> Vec<Finding> {
    let mut made = None;
    let mut findings = vec![find("backup and restore", || {
        let (rehearsal, detail) = Rehearsal::begin(folder, workers)?;
        made = Some(rehearsal);
        Ok(detail)
    })];
    // Without a first backup there is nothing to damage or to break.
    if let Some(rehearsal) = made {
        findings.push(find("damage is noticed", || rehearsal.damage()));
        findings.push(find("a fault at every request", || rehearsal.break_everywhere()));
        findings.push(find("new keys", || rehearsal.rotate()));
    }
    findings
}

/// A line for an error and its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn told<T>(what: &str, result: Result<T, impl std::error::Error>) -> Result<T> {
    result.map_err(|error| format!("{what}: {}", describe(&error)))
}

/// Bytes that do not compress; the same for the same seed (xorshift64, Marsaglia 2003).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(&mut next).take(length / 8 + 1).flatten().collect();
    bytes.truncate(length);
    bytes
}

fn password() -> Password {
    Password::new(b"selftest".to_vec())
}

/// A repository in memory with one backup in it.
struct Rehearsal {
    folder: PathBuf,
    workers: usize,
    store: MemoryStore,
    key: String,
}

impl Rehearsal {
    fn begin(folder: &Path, workers: usize) -> Result<(Self, String)> {
        let store = MemoryStore::new();
        let options = InitOptions {
            kdf_cost: KdfCost::LOW,
            pack_bytes: None,
            compression_level: None,
            chunk_bytes_average: None,
            owner: SlotOwner::default(),
        };
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let made = Repository::init(shared, &password(), &options, &Machine::default());
        let repository = told("init", made)?;
        let key = repository.export_key().to_string();
        let rehearsal = Self { folder: folder.to_path_buf(), workers, store, key };
        let files: Files = [
            ("empty", Vec::new()),
            ("small", b"a few bytes\n".to_vec()),
            ("folder/text", b"words that repeat themselves, ".repeat(20_000)),
            ("folder/deeper/noise", noise(1, 700_000)),
            ("folder/deeper/again", noise(1, 700_000)),
        ]
        .into_iter()
        .map(|(name, bytes)| (PathBuf::from(name), bytes))
        .collect();
        for (name, bytes) in &files {
            let path = rehearsal.source().join(name);
            let parent = path.parent().unwrap_or(folder).to_path_buf();
            let written = fs_err::create_dir_all(parent).and_then(|()| fs_err::write(path, bytes));
            told("the source", written)?;
        }
        rehearsal.back_up(&repository)?;
        rehearsal.verify(&rehearsal.store, &files)?;
        let bytes: usize = files.values().map(Vec::len).sum();
        let detail = format!("{} files of {bytes} bytes came back as they were", files.len());
        Ok((rehearsal, detail))
    }

    fn source(&self) -> PathBuf {
        self.folder.join("source")
    }

    fn open(&self, store: impl Store + 'static) -> Result<Repository> {
        let machine = Machine::default();
        told("open", Repository::open_with_exported_key(Arc::new(store), &self.key, &machine))
    }

    fn back_up(&self, repository: &Repository) -> Result<()> {
        let options = BackupOptions {
            filter: FilterOptions::default(),
            host: "selftest".to_owned(),
            user: String::new(),
            tags: Vec::new(),
            description: String::new(),
            time: None,
            utc_offset: 0,
            program: "putback selftest".to_owned(),
            parent: ParentChoice::Automatic,
            ignore_inode: false,
            ignore_ctime: false,
            dry_run: false,
            skip_if_unchanged: false,
            checkpoint_interval: Duration::from_secs(3600),
            workers: self.workers,
            compression_level: None,
            estimate_total: false,
            repository_folder: None,
            cancel: Cancel::default(),
        };
        let source = Source::Paths(vec![self.source()]);
        let report = told("backup", backup::backup(repository, source, &options, &()))?;
        match report.incidents.first() {
            None => Ok(()),
            Some(incident) => Err(format!("backup: {}", incident.message)),
        }
    }

    /// What is wrong with a repository.
    fn damages(&self, repository: &Repository) -> Result<Vec<String>> {
        let options =
            CheckOptions { read: ReadData::All, workers: self.workers, ..CheckOptions::default() };
        let report = told("check", repository.check(&options, &()))?;
        Ok(report.damages.into_iter().map(|d| format!("{}: {}", d.object, d.message)).collect())
    }

    fn assert_whole(&self, repository: &Repository) -> Result<()> {
        match self.damages(repository)?.first() {
            None => Ok(()),
            Some(damage) => Err(format!("check finds damage: {damage}")),
        }
    }

    /// Checks everything, restores the newest snapshot and compares.
    fn verify(&self, store: &MemoryStore, files: &Files) -> Result<()> {
        let repository = self.open(store.clone())?;
        self.verify_opened(&repository, files)
    }

    fn verify_opened(&self, repository: &Repository, files: &Files) -> Result<()> {
        self.assert_whole(repository)?;
        let latest = repository.find_snapshot("latest", &SnapshotFilter::default());
        let snapshot = told("the newest snapshot", latest)?.snapshot;
        let target = self.folder.join("restored");
        let options = RestoreOptions {
            target: target.clone(),
            include: Vec::new(),
            exclude: Vec::new(),
            iinclude: Vec::new(),
            iexclude: Vec::new(),
            overwrite: Overwrite::Always,
            delete: false,
            sparse: false,
            verify: false,
            numeric_owner: false,
            no_owner: true,
            dry_run: false,
            workers: self.workers,
            repository_folder: None,
            cancel: Cancel::default(),
        };
        let path = snapshot.paths.first().cloned().unwrap_or_default();
        let restored = restore::restore(repository, &snapshot, &path, &options, &());
        let report = told("restore", restored)?;
        if let Some(failure) = report.failure {
            return Err(format!("restore: {}", describe(&failure)));
        }
        let found = told("the target", read_files(&target))?;
        told("the target", fs_err::remove_dir_all(&target))?;
        if &found == files {
            return Ok(());
        }
        let differs = |name: &&PathBuf| found.get(*name) != files.get(*name);
        let name = files.keys().chain(found.keys()).find(differs);
        let name = name.map_or_else(String::new, |name| name.display().to_string());
        Err(format!("{name} did not come back as it was"))
    }

    /// One byte of an object of each kind is changed, and the object cut, and taken away.
    fn damage(&self) -> Result<String> {
        let mut count = 0;
        for path in self.store.paths() {
            for (what, change) in CHANGES {
                let store = self.store.fork();
                store.damage(&path, change);
                // What cannot even be opened or checked is noticed too.
                let is_noticed = self
                    .open(store)
                    .and_then(|repository| self.damages(&repository))
                    .map_or(true, |damages| !damages.is_empty());
                if !is_noticed {
                    return Err(format!("{path} {what}, and nothing noticed it"));
                }
                count += 1;
            }
        }
        Ok(format!("{count} of {count} changes of stored objects"))
    }

    /// A backup breaks at each of its requests, before or after its effect: what was there before stays, and the next
    /// backup succeeds.
    fn break_everywhere(&self) -> Result<String> {
        let more = noise(2, 400_000);
        told("the source", fs_err::write(self.source().join("more"), more))?;
        let files = told("the source", read_files(&self.source()))?;
        let mut count = 0;
        for fault in [Fault::before, Fault::after] {
            for number in 1.. {
                let store = self.store.fork();
                let faulty = FaultyStore::new(Arc::new(store.clone()), number);
                faulty.plant(fault(Calls::Any, number).crashing());
                let result = self.open(faulty.clone()).and_then(|r| self.back_up(&r));
                if faulty.failure_count() == 0 {
                    result?;
                    self.verify(&store, &files)?;
                    break;
                }
                count += 1;
                let at = |error: String| format!("after a fault at request {number}: {error}");
                let repository = self.open(store.clone())?;
                self.assert_whole(&repository).map_err(at)?;
                self.back_up(&repository).map_err(at)?;
                self.assert_whole(&self.open(store)?).map_err(at)?;
            }
        }
        Ok(format!("{count} faults lost nothing, and the next backup succeeded"))
    }

    /// The keys are rotated, the next backup is under the new one, and everything can be read.
    fn rotate(&self) -> Result<String> {
        let shared: Arc<dyn Store> = Arc::new(self.store.fork());
        let opened = Repository::open(Arc::clone(&shared), &password(), &Machine::default());
        let opened = told("open", opened)?;
        let rotation = told("rotation", opened.plan_rotation(vec![password()]))?;
        told("rotation", opened.rotate_keys(rotation))?;
        let reopened =
            told("open", Repository::open(Arc::clone(&shared), &password(), &Machine::default()))?;
        self.back_up(&reopened)?;
        let files = told("the source", read_files(&self.source()))?;
        self.verify_opened(&reopened, &files)?;
        match Repository::open_with_exported_key(shared, &self.key, &Machine::default()) {
            Ok(_) => Err("the key of before still opens the repository".to_owned()),
            Err(_) => Ok("old and new backups open with the new keys".to_owned()),
        }
    }
}

/// What happens to objects, in words and in deed.
type Change = (&'static str, fn(&mut Vec<u8>));

const CHANGES: [Change; 3] = [
    ("has a flipped bit", |bytes| {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x10;
        }
    }),
    ("is cut short", |bytes| bytes.truncate(bytes.len() / 2)),
    ("is empty", Vec::clear),
];

/// Everything below `folder`, by relative path.
fn read_files(folder: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs_err::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
                files.insert(name, fs_err::read(&path)?);
            }
        }
    }
    Ok(files)
}
