//! Repositories, trees and marks made by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{MarkId, PackId, SegmentId, SnapshotId, WriterId};
use putback_format::key::{BlobKind, KeyRing};
use putback_format::list::ListBuilder;
use putback_format::mark::{Mark, MarkKind};
use putback_format::page::PageBuilder;
use putback_format::segment::Segment;
use putback_format::slot;
use putback_format::snapshot::{Snapshot, Statistics};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind, Timestamp};
use putback_repo::{
    Backup, CheckOptions, CheckReport, Error, FrameWriter, InitOptions, KdfCost, Machine, Password,
    ReadData, Repository, Result, SlotOwner, SnapshotDraft, StoredSnapshot,
};
use putback_store::memory::MemoryStore;
use putback_store::{ObjectPath, Store};

/// Names and contents of files; `a/b` lies in the directory `a`.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The password of all repositories here.
pub(crate) fn password() -> Password {
    Password::new(b"password".to_vec())
}

/// Options with the cheapest key derivation.
pub(crate) fn init_options() -> InitOptions {
    InitOptions {
        kdf_cost: KdfCost::LOW,
        pack_bytes: None,
        compression_level: None,
        chunk_bytes_average: None,
        owner: SlotOwner::default(),
    }
}

/// Cache and state below a folder.
pub(crate) fn directories(folder: &Path) -> Machine {
    Machine {
        cache: Some(folder.join("cache")),
        state: Some(folder.join("state")),
        ..Machine::default()
    }
}

/// A new repository that keeps nothing on this machine, its store, and its exported key.
pub(crate) fn repository() -> (Repository, MemoryStore, String) {
    let store = MemoryStore::new();
    let made = init(Arc::new(store.clone())).unwrap();
    let key = made.export_key().to_string();
    (made, store, key)
}

/// Where the content of each file lies.
pub(crate) type Places = BTreeMap<String, Content>;

/// Makes a repository.
pub(crate) fn init(store: Arc<dyn Store>) -> Result<Repository> {
    Repository::init(store, &password(), &init_options(), &Machine::default())
}

/// Opens a repository without the cost of a password.
pub(crate) fn open(store: impl Store + 'static, key: &str) -> Repository {
    open_with(store, key, &Machine::default())
}

/// As [`open`], with directories.
pub(crate) fn open_with(
    store: impl Store + 'static,
    key: &str,
    directories: &Machine,
) -> Repository {
    Repository::open_with_exported_key(Arc::new(store), key, directories).unwrap()
}

/// Files from names and texts.
pub(crate) fn files<'a>(list: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Files {
    list.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect()
}

/// Bytes that look random, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A file of this name is cut into chunks so small that it needs list pages.
pub(crate) const LONG: &str = "long";

/// Backs up these files.
pub(crate) fn back_up(repository: &Repository, files: &Files) -> Result<StoredSnapshot> {
    let backup = repository.begin_backup(None, 1)?;
    let root = put_tree(&backup, files)?;
    let stored = backup.commit(draft(root))?;
    backup.finish()?;
    Ok(stored)
}

/// What a snapshot of this tree says otherwise.
pub(crate) fn draft(root: Entry) -> SnapshotDraft {
    SnapshotDraft {
        root,
        time: Timestamp { seconds: 1_700_000_000, nanoseconds: 0 },
        utc_offset: 0,
        host: "host".to_owned(),
        user: "user".to_owned(),
        paths: vec![b"/".to_vec()],
        tags: Vec::new(),
        description: String::new(),
        program: "test".to_owned(),
        parent: None,
        complete: true,
        statistics: Statistics::default(),
        incidents: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Stores the files and their directories, and yields the root.
pub(crate) fn put_tree(backup: &Backup, files: &Files) -> Result<Entry> {
    let mut data = backup.frame_writer(BlobKind::Data);
    let mut trees = backup.frame_writer(BlobKind::Tree);
    let mut places = Places::new();
    for (name, bytes) in files {
        let chunk_bytes = if name == LONG { 36 } else { 4096 };
        let content = if bytes.len() <= 100 {
            Content::Inline(bytes.clone())
        } else {
            let mut list = ListBuilder::new();
            for chunk in bytes.chunks(chunk_bytes) {
                let chunk = ChunkRef { id: data.put(chunk)?, length: chunk.len() as u64 };
                list.push(chunk, &mut |page| trees.put(page))?;
            }
            list.finish(&mut |page| trees.put(page))?
        };
        places.insert(name.clone(), content);
    }
    data.flush()?;
    put_directories(&mut trees, files, &places)
}

/// Stores the directories of these files, and yields the root.
pub(crate) fn put_directories(
    trees: &mut FrameWriter,
    files: &Files,
    places: &Places,
) -> Result<Entry> {
    let mut folders: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    let mut top = Vec::new();
    for (name, content) in places {
        let size = files[name].len() as u64;
        let kind = EntryKind::File { size, content: content.clone(), holes: Vec::new() };
        match name.split_once('/') {
            Some((folder, name)) => folders.entry(folder).or_default().push(Entry::new(name, kind)),
            None => top.push(Entry::new(name.as_str(), kind)),
        }
    }
    let mut pages = |entries: &[Entry]| -> Result<Vec<_>> {
        let mut builder = PageBuilder::new();
        let mut ids = Vec::new();
        for entry in entries {
            let page = builder.push(entry).expect("the entry is valid");
            ids.extend(page.map(|page| trees.put(&page)).transpose()?);
        }
        ids.extend(builder.finish().map(|page| trees.put(&page)).transpose()?);
        Ok(ids)
    };
    for (name, entries) in &folders {
        top.push(Entry::new(*name, EntryKind::Directory { pages: pages(entries)? }));
    }
    top.sort_by(|a, b| a.name.cmp(&b.name));
    let kind = EntryKind::Directory { pages: pages(&top)? };
    trees.flush()?;
    Ok(Entry::new("", kind))
}

/// Reads all files of a snapshot, verified.
pub(crate) fn contents(repository: &Repository, snapshot: &Snapshot) -> Result<Files> {
    let mut files = Files::new();
    read_directory(repository, &snapshot.root, "", &mut files)?;
    Ok(files)
}

fn read_directory(
    repository: &Repository,
    directory: &Entry,
    prefix: &str,
    files: &mut Files,
) -> Result<()> {
    for entry in repository.read_directory(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", String::from_utf8_lossy(&entry.name));
        match &entry.kind {
            EntryKind::File { content: Content::Inline(bytes), .. } => {
                files.insert(name, bytes.clone());
            }
            EntryKind::File { content, .. } => {
                let mut bytes = Vec::new();
                for chunk in repository.read_chunks(content)? {
                    bytes.extend(repository.read_data_blob(&chunk.id)?);
                }
                files.insert(name, bytes);
            }
            _ => read_directory(repository, &entry, &format!("{name}/"), files)?,
        }
    }
    Ok(())
}

/// Checks with all data.
pub(crate) fn check(repository: &Repository) -> CheckReport {
    let options = CheckOptions { read: ReadData::All, workers: 1, ..CheckOptions::default() };
    repository.check(&options, &()).unwrap()
}

/// Asserts that nothing is damaged. Unreferenced packs are allowed.
#[track_caller]
pub(crate) fn assert_clean(repository: &Repository) {
    let report = check(repository);
    assert_eq!((report.damages.as_slice(), report.warnings.as_slice()), (&[][..], &[][..]));
    assert_eq!(report.rollback, [""; 0]);
}

/// Asserts that a snapshot holds exactly these files, as a machine without a cache reads it.
#[track_caller]
pub(crate) fn assert_holds(store: &MemoryStore, key: &str, stored: &StoredSnapshot, files: &Files) {
    let reader = open(store.clone(), key);
    reader.load_index().unwrap();
    let snapshot = reader.read_snapshot(&stored.id).unwrap();
    assert!(contents(&reader, &snapshot).unwrap() == *files, "snapshot {}", stored.id);
}

/// The keys that an exported key holds.
pub(crate) fn keys(key: &str) -> KeyRing {
    slot::import(key).unwrap().1
}

fn seal(repository: &Repository, kind: ObjectKind, payload: &[u8]) -> Vec<u8> {
    seal_under(repository, kind, 1, payload)
}

fn seal_under(repository: &Repository, kind: ObjectKind, epoch: u32, payload: &[u8]) -> Vec<u8> {
    let keys = keys(&repository.export_key());
    let master = keys.master("a test object", 1).unwrap();
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).unwrap();
    envelope::seal(kind, repository.id(), epoch, master, salt, payload).unwrap()
}

/// Writes a snapshot as it was not written by a program of this version with these keys.
pub(crate) fn write_snapshot(
    repository: &Repository,
    store: &dyn Store,
    epoch: u32,
    payload: &[u8],
) -> ObjectPath {
    let object = seal_under(repository, ObjectKind::Snapshot, epoch, payload);
    write(store, &format!("snapshots/{}", SnapshotId::of_stored(&object)), &object)
}

/// Writes a mark, as a prune or forget of another machine would.
pub(crate) fn write_mark(repository: &Repository, store: &dyn Store, kind: MarkKind) -> ObjectPath {
    let writer = WriterId::from_bytes([9; 16]);
    let mark = Mark { writer, time: Timestamp::default(), kind };
    mark.validate().unwrap();
    let object = seal(repository, ObjectKind::Mark, &mark.encode());
    write(store, &format!("marks/{}", MarkId::of_stored(&object)), &object)
}

/// Writes a segment, as a prune of another machine would.
pub(crate) fn write_segment(
    repository: &Repository,
    store: &dyn Store,
    segment: &Segment,
) -> ObjectPath {
    let object = seal(repository, ObjectKind::Segment, &segment.encode().unwrap());
    write(store, &format!("index/{}", SegmentId::of_stored(&object)), &object)
}

/// Writes another generation of the configuration.
pub(crate) fn write_config(repository: &Repository, store: &dyn Store, generation: u64) {
    let mut config = repository.config().clone();
    config.generation = generation;
    let object = seal(repository, ObjectKind::Config, &config.encode());
    let id = putback_format::id::ConfigId::of_stored(&object);
    write(store, &format!("config/{generation}-{id}"), &object);
    write(store, &format!("copies/config-{generation}-{id}"), &object);
}

pub(crate) fn write(store: &dyn Store, path: &str, object: &[u8]) -> ObjectPath {
    let path = ObjectPath::new(path).unwrap();
    store.write(&path, object).unwrap();
    path
}

/// Ids of all packs that lie in the store.
pub(crate) fn packs(store: &MemoryStore) -> Vec<PackId> {
    let rows = store.list("packs").unwrap();
    rows.iter().map(|row| row.path.name().parse().unwrap()).collect()
}

/// Deletes an object behind the repository's back.
pub(crate) fn delete(store: &dyn Store, path: &ObjectPath) {
    let row = store.stat(path).unwrap();
    store.delete(&[row]).unwrap();
}

/// The error with its causes, in one line.
pub(crate) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
