//! The least backup that makes something to restore: one thread, no parent, no checkpoints.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use putback_format::key::BlobKind;
use putback_format::limits::INLINE_BYTES_MAX;
use putback_format::list::ListBuilder;
use putback_format::page::PageBuilder;
use putback_format::snapshot::{Snapshot, Statistics};
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind, Extent, Timestamp};
use putback_repo::{
    FrameWriter, InitOptions, KdfCost, Machine, Password, Repository, SlotOwner, SnapshotDraft,
};
use putback_store::Store;

use crate::platform::{self, Directory, FileKind, Names, Users};
use crate::source::metadata::{build_entry, kind_without_content};

/// A repository with the smallest chunks and packs, so that little data makes many of them.
pub(crate) fn repository(store: Arc<dyn Store>, pack_bytes: u64, chunk_bytes: u32) -> Repository {
    let options = InitOptions {
        kdf_cost: KdfCost::LOW,
        pack_bytes: Some(pack_bytes),
        compression_level: None,
        chunk_bytes_average: Some(chunk_bytes),
        owner: SlotOwner { label: String::new(), user: String::new(), host: String::new() },
    };
    let password = Password::new(b"password".to_vec());
    Repository::init(store, &password, &options, &Machine::default()).unwrap()
}

/// Changes an entry before it is stored; false leaves it out.
pub(crate) type Change<'a> = &'a dyn Fn(&[u8], &mut Entry) -> bool;

/// Stores the contents of `folder` as the folder `/data` of a snapshot.
pub(crate) fn back_up(repository: &Repository, folder: &Path, change: Change<'_>) -> Snapshot {
    let backup = repository.begin_backup(None, 2).unwrap();
    let mut data = backup.frame_writer(BlobKind::Data);
    let mut tree = backup.frame_writer(BlobKind::Tree);
    let mut statistics = Statistics::default();
    let mut writer = Writer {
        repository,
        data: &mut data,
        tree: &mut tree,
        users: Users::new(),
        change,
        statistics: &mut statistics,
    };
    let directory = Directory::open(folder).unwrap();
    let mut top = Entry::new("data", EntryKind::Directory { pages: Vec::new() });
    let stat = directory.stat_self().unwrap();
    (top.mode, top.uid, top.gid, top.mtime) = (stat.mode, stat.uid, stat.gid, stat.mtime);
    top.kind = writer.directory(&directory, b"/data");
    let mut root = Entry::new("", EntryKind::Directory { pages: Vec::new() });
    root.kind = writer.pages(vec![top]);
    root.mode = 0o755;
    data.flush().unwrap();
    tree.flush().unwrap();
    let draft = SnapshotDraft {
        root,
        time: Timestamp::from_seconds(1_700_000_000),
        utc_offset: 0,
        host: "host".into(),
        user: "user".into(),
        paths: vec![b"/data".to_vec()],
        tags: Vec::new(),
        description: String::new(),
        program: "test".into(),
        parent: None,
        complete: true,
        statistics,
        incidents: Vec::new(),
        unknown: Vec::new(),
    };
    // A writer that is alive keeps the threads of the backup waiting.
    drop((data, tree));
    let stored = backup.commit(draft).unwrap();
    backup.finish().unwrap();
    stored.snapshot
}

struct Writer<'a> {
    repository: &'a Repository,
    data: &'a mut FrameWriter,
    tree: &'a mut FrameWriter,
    users: Users,
    change: Change<'a>,
    statistics: &'a mut Statistics,
}

impl Writer<'_> {
    fn directory(&mut self, directory: &Directory, path: &[u8]) -> EntryKind {
        let mut names = Names::default();
        directory.read_names(&mut names).unwrap();
        let mut entries = Vec::new();
        for number in 0..names.len() {
            let name = names.get(number).0;
            let stat = directory.stat(name).unwrap();
            let path = [path, b"/", name].concat();
            let mut kind = kind_without_content(&stat);
            match stat.kind {
                FileKind::File => {
                    let mut file = directory.open_file(name).unwrap();
                    let data = platform::data_extents(&file, stat.size).unwrap();
                    let holes = platform::holes_between(&data, stat.size);
                    kind = self.file(&mut file, stat.size, &data, holes);
                    self.statistics.files_new += 1;
                }
                FileKind::Directory => {
                    let child = directory.open_child(name).unwrap();
                    kind = self.directory(&child, &path);
                }
                FileKind::Symlink => {
                    kind = EntryKind::Symlink { target: directory.read_link(name).unwrap() };
                    self.statistics.others += 1;
                }
                _ => self.statistics.others += 1,
            }
            let xattrs = directory.entry_xattrs(name).list;
            let mut entry = build_entry(name, &stat, kind, xattrs, &self.users);
            if (self.change)(&path, &mut entry) {
                entries.push(entry);
            }
        }
        self.pages(entries)
    }

    fn pages(&mut self, entries: Vec<Entry>) -> EntryKind {
        let mut builder = PageBuilder::new();
        let mut pages = Vec::new();
        for entry in &entries {
            if let Some(page) = builder.push(entry).unwrap() {
                pages.push(self.tree.put(&page).unwrap());
            }
        }
        if let Some(page) = builder.finish() {
            pages.push(self.tree.put(&page).unwrap());
        }
        EntryKind::Directory { pages }
    }

    fn file(
        &mut self,
        file: &mut std::fs::File,
        size: u64,
        data: &[Extent],
        holes: Vec<Extent>,
    ) -> EntryKind {
        let mut lists = ListBuilder::new();
        let mut buffer = Vec::new();
        let bytes_max = self.repository.chunker().params().bytes_max as usize;
        let data_bytes: u64 = data.iter().map(|extent| extent.length).sum();
        self.statistics.bytes_total += data_bytes;
        let mut rest = data.iter().copied();
        let mut extent = rest.next();
        let mut is_inline = data_bytes <= INLINE_BYTES_MAX as u64;
        let mut inline = Vec::new();
        loop {
            while buffer.len() < bytes_max
                && let Some(current) = &mut extent
            {
                let count = current.length.min(1 << 20);
                let start = buffer.len();
                buffer.resize(start + count as usize, 0);
                platform::read_exact_at(file, &mut buffer[start..], current.offset).unwrap();
                current.offset += count;
                current.length -= count;
                if current.length == 0 {
                    extent = rest.next();
                }
            }
            if buffer.is_empty() {
                break;
            }
            if is_inline {
                inline = std::mem::take(&mut buffer);
                break;
            }
            let length = self.repository.chunker().cut(&buffer);
            let id = self.data.put(&buffer[..length]).unwrap();
            let tree = &mut self.tree;
            lists.push(ChunkRef { id, length: length as u64 }, &mut |page| tree.put(page)).unwrap();
            buffer.drain(..length);
        }
        if data_bytes == 0 {
            is_inline = true;
        }
        let tree = &mut self.tree;
        let content = if is_inline {
            Content::Inline(inline)
        } else {
            lists.finish(&mut |page| tree.put(page)).unwrap()
        };
        EntryKind::File { size, content, holes }
    }
}

/// Everything that can be seen of a tree: what `diff -r` and `stat` would show, by relative path.
pub(crate) fn look(folder: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let directory = Directory::open(folder).unwrap();
    look_into(&directory, b"", &mut seen);
    seen
}

/// What can be seen of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) links: u64,
    pub(crate) flags: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Content of a file, target of a link.
    pub(crate) content: Vec<u8>,
    pub(crate) holes: Vec<(u64, u64)>,
}

fn look_into(directory: &Directory, path: &[u8], seen: &mut BTreeMap<Vec<u8>, Seen>) {
    let mut names = Names::default();
    directory.read_names(&mut names).unwrap();
    for number in 0..names.len() {
        let name = names.get(number).0;
        let stat = directory.stat(name).unwrap();
        let mut path = path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let xattrs = directory.entry_xattrs(name).list;
        let mut object = Seen {
            kind: stat.kind,
            mode: stat.mode,
            owner: (stat.uid, stat.gid),
            mtime: stat.mtime,
            links: if stat.is_directory() { 0 } else { stat.links },
            flags: stat.flags,
            device: (stat.rdev_major, stat.rdev_minor),
            xattrs: xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect(),
            content: Vec::new(),
            holes: Vec::new(),
        };
        match stat.kind {
            FileKind::File => {
                let mut file = directory.open_file(name).unwrap();
                file.read_to_end(&mut object.content).unwrap();
                let data = platform::data_extents(&file, stat.size).unwrap();
                let holes = platform::holes_between(&data, stat.size);
                object.holes = holes.iter().map(|hole| (hole.offset, hole.length)).collect();
            }
            FileKind::Symlink => object.content = directory.read_link(name).unwrap(),
            FileKind::Directory => look_into(&directory.open_child(name).unwrap(), &path, seen),
            _ => {}
        }
        seen.insert(path, object);
    }
}

/// A path below a folder, from raw bytes.
pub(crate) fn join(folder: &Path, name: &[u8]) -> std::path::PathBuf {
    folder.join(std::ffi::OsStr::from_bytes(name))
}
