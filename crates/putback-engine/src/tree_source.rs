//! Reading snapshots: what the looking operations ask of a repository, a walk, and a file's bytes
//! in order.
//!
//! [`TreeSource`] is the repository as seen from here; tests put a tree in memory in its place.
//! [`Walk`] goes through a tree, [`FileReader`] through the content of one file.
//!
//! Memory: a walk holds one tree page for each directory of the open path; a reader holds one chunk
//! and one page of chunk references for each level of its list.

use std::vec;

use putback_format::id::BlobId;
use putback_format::snapshot::Snapshot;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind, Extent, Timestamp};
use putback_repo::Repository;

use crate::error::Error;

/// Entries of a directory in the order of their names' bytes.
pub(crate) type Entries<'a> = Box<dyn Iterator<Item = Result<Entry, Error>> + 'a>;

/// Where trees and chunks come from.
pub(crate) trait TreeSource {
    /// The entry at a path below the root of `snapshot`.
    fn entry_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Entry, Error>;

    /// The entries of these pages of one directory; a page is read when its first entry is asked
    /// for.
    fn read_pages(&self, pages: &[BlobId]) -> Result<Entries<'_>, Error>;

    /// The references of one list page; `level` 1 holds chunks.
    fn read_list_page(&self, page: &ChunkRef, level: u8) -> Result<Vec<ChunkRef>, Error>;

    /// The plain bytes of a chunk, verified.
    fn read_data_blob(&self, blob: &BlobId) -> Result<Vec<u8>, Error>;
}

impl TreeSource for Repository {
    fn entry_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Entry, Error> {
        Ok(Self::entry_at(self, snapshot, path)?)
    }

    fn read_pages(&self, pages: &[BlobId]) -> Result<Entries<'_>, Error> {
        let entries = self.read_directory(&bare_entry(
            Vec::new(),
            EntryKind::Directory { pages: pages.to_vec() },
        ))?;
        Ok(Box::new(entries.map(|entry| Ok(entry?))))
    }

    fn read_list_page(&self, page: &ChunkRef, level: u8) -> Result<Vec<ChunkRef>, Error> {
        Ok(Self::read_list_page(self, page, level)?)
    }

    fn read_data_blob(&self, blob: &BlobId) -> Result<Vec<u8>, Error> {
        Ok(Self::read_data_blob(self, blob)?)
    }
}

/// An entry of which nothing but name and kind is known.
pub(crate) fn bare_entry(name: Vec<u8>, kind: EntryKind) -> Entry {
    Entry {
        name,
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        user: Vec::new(),
        group: Vec::new(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        device: 0,
        inode: 0,
        links: 1,
        flags: 0,
        xattrs: Vec::new(),
        volatile: false,
        windows: None,
        unknown: Vec::new(),
    }
}

/// A path with a `/` before each of its names and none at the end; that of the root is empty.
pub(crate) fn normal_path(path: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(path.len() + 1);
    for name in path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        normal.push(b'/');
        normal.extend_from_slice(name);
    }
    normal
}

/// A depth-first walk in name order, without recursion: a hostile tree may be deeper than any
/// stack.
pub(crate) struct Walk<'a> {
    tree: &'a dyn TreeSource,
    path: Vec<u8>,
    open: Vec<OpenDirectory<'a>>,
}

struct OpenDirectory<'a> {
    entries: Entries<'a>,
    path_length: usize,
}

/// Where a [`Walk`] is.
#[expect(clippy::large_enum_variant, reason = "taken apart as soon as it is made")]
pub(crate) enum Step {
    /// At an entry; [`Walk::path`] is its path. [`Walk::enter`] makes its entries come next.
    Entry(Entry),
    /// At the end of the directory [`Walk::path`].
    Leave,
}

impl<'a> Walk<'a> {
    /// A walk below the directory `path`, which itself is no step.
    pub(crate) fn new(
        tree: &'a dyn TreeSource,
        path: &[u8],
        pages: &[BlobId],
    ) -> Result<Self, Error> {
        let mut walk = Self { tree, path: normal_path(path), open: Vec::new() };
        walk.enter(pages)?;
        Ok(walk)
    }

    /// Absolute path of the present step.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Goes into the directory of the present step.
    pub(crate) fn enter(&mut self, pages: &[BlobId]) -> Result<(), Error> {
        self.open.push(OpenDirectory {
            entries: self.tree.read_pages(pages)?,
            path_length: self.path.len(),
        });
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Result<Option<Step>, Error> {
        let Some(directory) = self.open.last_mut() else { return Ok(None) };
        self.path.truncate(directory.path_length);
        let Some(entry) = directory.entries.next().transpose()? else {
            self.open.pop();
            return Ok(Some(Step::Leave));
        };
        self.path.push(b'/');
        self.path.extend_from_slice(&entry.name);
        Ok(Some(Step::Entry(entry)))
    }
}

/// The chunks of a file in order; of a long list, one page of each level at a time.
pub(crate) struct Chunks<'a> {
    tree: &'a dyn TreeSource,
    /// Open pages from the topmost level down, each with its level; level 0 are chunks.
    open: Vec<(u8, vec::IntoIter<ChunkRef>)>,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(tree: &'a dyn TreeSource, content: &Content) -> Self {
        let top = match content {
            Content::Inline(_) => None,
            Content::Chunks(chunks) => Some((0, chunks.clone().into_iter())),
            Content::Lists { depth, pages } => Some((*depth, pages.clone().into_iter())),
        };
        Self { tree, open: top.into_iter().collect() }
    }

    pub(crate) fn next(&mut self) -> Result<Option<ChunkRef>, Error> {
        while let Some((level, refs)) = self.open.last_mut() {
            match (*level, refs.next()) {
                (_, None) => drop(self.open.pop()),
                (0, Some(chunk)) => return Ok(Some(chunk)),
                (level, Some(page)) => {
                    let below = self.tree.read_list_page(&page, level)?;
                    self.open.push((level - 1, below.into_iter()));
                }
            }
        }
        Ok(None)
    }
}

/// The bytes of a file from its beginning to its size, holes included.
pub(crate) struct FileReader<'a> {
    tree: &'a dyn TreeSource,
    name: Vec<u8>,
    size: u64,
    position: u64,
    holes: vec::IntoIter<Extent>,
    hole: Option<Extent>,
    chunks: Chunks<'a>,
    blob: Vec<u8>,
    /// How much of `blob` was yielded.
    blob_used: usize,
}

/// Some bytes of a file.
pub(crate) enum Piece<'a> {
    /// That many zeros: a hole.
    Zeros(u64),
    Bytes(&'a [u8]),
}

impl<'a> FileReader<'a> {
    /// Reads `entry`; what is not a file has no bytes.
    pub(crate) fn new(tree: &'a dyn TreeSource, entry: &Entry) -> Self {
        let nothing = Content::Inline(Vec::new());
        let (size, content, holes) = match &entry.kind {
            EntryKind::File { size, content, holes } => (*size, content, holes.clone()),
            _ => (0, &nothing, Vec::new()),
        };
        let mut holes = holes.into_iter();
        Self {
            tree,
            name: entry.name.clone(),
            size,
            position: 0,
            hole: holes.next(),
            holes,
            chunks: Chunks::new(tree, content),
            blob: if let Content::Inline(bytes) = content { bytes.clone() } else { Vec::new() },
            blob_used: 0,
        }
    }

    /// The next bytes: as many as `bytes_max`, the chunk and the next hole allow, never none.
    /// `None` at the end.
    ///
    /// # Errors
    /// Besides those of reading: the entry contradicts itself, so that its bytes do not add up to
    /// its size.
    pub(crate) fn next(&mut self, bytes_max: u64) -> Result<Option<Piece<'_>>, Error> {
        if let Some(hole) = self.hole
            && hole.offset == self.position
        {
            if hole.length == 0 || hole.length > self.size - self.position {
                return Err(self.contradiction());
            }
            let length = hole.length.min(bytes_max);
            self.position += length;
            let rest = Extent { offset: self.position, length: hole.length - length };
            self.hole = if rest.length > 0 { Some(rest) } else { self.holes.next() };
            return Ok(Some(Piece::Zeros(length)));
        }
        while self.blob_used == self.blob.len() {
            let Some(chunk) = self.chunks.next()? else {
                let is_complete = self.position == self.size && self.hole.is_none();
                return if is_complete { Ok(None) } else { Err(self.contradiction()) };
            };
            self.blob = self.tree.read_data_blob(&chunk.id)?;
            self.blob_used = 0;
            if self.blob.len() as u64 != chunk.length {
                return Err(self.contradiction());
            }
        }
        let end = self.hole.map_or(self.size, |hole| hole.offset.min(self.size));
        let Some(room) = end.checked_sub(self.position).filter(|room| *room > 0) else {
            return Err(self.contradiction());
        };
        let start = self.blob_used;
        let length =
            usize::try_from(room.min(bytes_max)).unwrap_or(usize::MAX).min(self.blob.len() - start);
        self.blob_used += length;
        self.position += length as u64;
        Ok(Some(Piece::Bytes(&self.blob[start..start + length])))
    }

    /// Fills `buffer` with the next bytes. Less than its length is filled at the end only.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            filled += match self.next(rest.len() as u64)? {
                None => break,
                Some(Piece::Bytes(bytes)) => {
                    rest[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }
                Some(Piece::Zeros(length)) => {
                    let length =
                        usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
                    rest[..length].fill(0);
                    length
                }
            };
        }
        Ok(filled)
    }

    fn contradiction(&self) -> Error {
        Error::Repository(putback_repo::Error::Damaged {
            object: format!("entry '{}'", self.name.escape_ascii()),
            source: Some(putback_format::Error::Invalid {
                what: "file content",
                why: "its chunks and holes do not add up to its size",
            }),
        })
    }
}

/// Bytes of the file outside its holes; 0 for anything but a file.
pub(crate) fn data_bytes(entry: &Entry) -> u64 {
    match &entry.kind {
        EntryKind::File { size, holes, .. } => {
            size.saturating_sub(holes.iter().fold(0, |sum, hole| sum.saturating_add(hole.length)))
        }
        _ => 0,
    }
}

/// Size of a file, holes included; 0 for anything else.
pub(crate) fn size_of(entry: &Entry) -> u64 {
    match &entry.kind {
        EntryKind::File { size, .. } => *size,
        _ => 0,
    }
}

/// Trees in memory.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, HashMap};

    use putback_format::id::{SnapshotId, WriterId};
    use putback_format::snapshot::Statistics;
    use putback_repo::StoredSnapshot;

    use super::*;

    /// Stands for a repository; notes what is read of it.
    #[derive(Default)]
    pub(crate) struct FakeTree {
        pages: HashMap<BlobId, Vec<Entry>>,
        lists: HashMap<BlobId, Vec<ChunkRef>>,
        data: HashMap<BlobId, Vec<u8>>,
        pub(crate) pages_read: RefCell<Vec<BlobId>>,
        pub(crate) chunks_read: RefCell<Vec<BlobId>>,
        list_depth: u8,
    }

    /// A directory in the making: path to entry. Folders above need not be named. Files hold their
    /// bytes inline.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Folder(pub(crate) BTreeMap<Vec<u8>, Entry>);

    pub(crate) fn file(path: &str, bytes: &[u8]) -> Entry {
        let size = bytes.len() as u64;
        special(
            path,
            EntryKind::File { size, content: Content::Inline(bytes.to_vec()), holes: Vec::new() },
        )
    }

    pub(crate) fn special(path: &str, kind: EntryKind) -> Entry {
        let mut entry = bare_entry(path.as_bytes().to_vec(), kind);
        entry.mode = 0o644;
        entry.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        entry
    }

    pub(crate) fn directory(path: &str) -> Entry {
        let mut entry = special(path, EntryKind::Directory { pages: Vec::new() });
        entry.mode = 0o755;
        entry
    }

    pub(crate) fn symlink(path: &str, target: &str) -> Entry {
        special(path, EntryKind::Symlink { target: target.as_bytes().to_vec() })
    }

    impl Folder {
        /// The entries' names are paths, without a slash at either end.
        pub(crate) fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
            let mut folder = Self::default();
            for entry in entries {
                folder.put(entry);
            }
            folder
        }

        /// Adds or replaces; an entry in the way of a folder gives way.
        pub(crate) fn put(&mut self, entry: Entry) {
            let path = entry.name.clone();
            for (index, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let above = &path[..index];
                if !matches!(
                    self.0.get(above),
                    Some(Entry { kind: EntryKind::Directory { .. }, .. })
                ) {
                    let mut folder = directory("");
                    folder.name = above.to_vec();
                    self.0.insert(above.to_vec(), folder);
                }
            }
            if !matches!(entry.kind, EntryKind::Directory { .. }) {
                let below = [&path[..], b"/"].concat();
                self.0.retain(|path, _| !path.starts_with(&below));
            }
            self.0.insert(path, entry);
        }
    }

    fn id_of(bytes: &[u8]) -> BlobId {
        BlobId::from_bytes(*SnapshotId::of_stored(bytes).as_bytes())
    }

    impl FakeTree {
        /// A tree that stores files of more than two chunks as lists of so many levels.
        pub(crate) fn with_lists(list_depth: u8) -> Self {
            Self { list_depth, ..Self::default() }
        }

        /// Stores a folder as a snapshot's root. Chunks have up to 4 bytes, pages end behind every
        /// name that ends with `0`, inline content has up to 2 bytes.
        pub(crate) fn snapshot(&mut self, folder: &Folder) -> Snapshot {
            let root = Entry { kind: self.store(folder, b""), ..directory("") };
            Snapshot {
                root,
                time: Timestamp::default(),
                utc_offset: 0,
                host: String::new(),
                user: String::new(),
                paths: Vec::new(),
                tags: Vec::new(),
                description: String::new(),
                program: String::new(),
                parent: None,
                complete: true,
                statistics: Statistics::default(),
                incidents: Vec::new(),
                config_generation: 1,
                writer: WriterId::from_bytes([0; 16]),
                sequence: 1,
                seen: Vec::new(),
                unknown: Vec::new(),
            }
        }

        pub(crate) fn stored(&mut self, number: u8, folder: &Folder) -> StoredSnapshot {
            StoredSnapshot {
                id: SnapshotId::from_bytes([number; 32]),
                snapshot: self.snapshot(folder),
            }
        }

        fn store(&mut self, folder: &Folder, path: &[u8]) -> EntryKind {
            let above = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
            let mut entries = Vec::new();
            for (path, entry) in &folder.0 {
                let Some(name) = path.strip_prefix(&above[..]).filter(|name| !name.contains(&b'/'))
                else {
                    continue;
                };
                let mut entry = Entry { name: name.to_vec(), ..entry.clone() };
                match &mut entry.kind {
                    EntryKind::Directory { .. } => entry.kind = self.store(folder, path),
                    EntryKind::File { content, .. } => self.store_content(content),
                    _ => {}
                }
                entries.push(entry);
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let pages =
                entries.split_inclusive(|entry| entry.name.ends_with(b"0")).map(<[Entry]>::to_vec);
            EntryKind::Directory {
                pages: pages
                    .map(|page| {
                        let id = id_of(format!("{page:?}").as_bytes());
                        self.pages.insert(id, page);
                        id
                    })
                    .collect(),
            }
        }

        fn store_content(&mut self, content: &mut Content) {
            let Content::Inline(bytes) = content else { return };
            if bytes.len() <= 2 {
                return;
            }
            let mut refs = self.put_chunks(&bytes.chunks(4).collect::<Vec<_>>());
            if self.list_depth == 0 || refs.len() <= 2 {
                *content = Content::Chunks(refs);
                return;
            }
            for _ in 0..self.list_depth {
                refs = refs
                    .chunks(2)
                    .map(|list| {
                        let id = id_of(format!("list {list:?}").as_bytes());
                        self.lists.insert(id, list.to_vec());
                        ChunkRef { id, length: list.iter().map(|chunk| chunk.length).sum() }
                    })
                    .collect();
            }
            *content = Content::Lists { depth: self.list_depth, pages: refs };
        }

        /// Stores chunks of any length.
        pub(crate) fn put_chunks(&mut self, chunks: &[&[u8]]) -> Vec<ChunkRef> {
            let mut refs = Vec::new();
            for chunk in chunks {
                let id = id_of(chunk);
                self.data.insert(id, chunk.to_vec());
                refs.push(ChunkRef { id, length: chunk.len() as u64 });
            }
            refs
        }

        /// Stores a root with one entry, as it is.
        pub(crate) fn root_with(&mut self, entry: Entry) -> Entry {
            let page = id_of(format!("{entry:?}").as_bytes());
            self.pages.insert(page, vec![entry]);
            Entry { kind: EntryKind::Directory { pages: vec![page] }, ..directory("") }
        }

        /// Makes a chunk unreadable.
        pub(crate) fn lose_chunk(&mut self, bytes: &[u8]) {
            self.data.remove(&id_of(bytes)).unwrap();
        }

        /// How many pages `work` reads.
        pub(crate) fn count_pages(&self, work: impl FnOnce()) -> usize {
            self.pages_read.borrow_mut().clear();
            work();
            self.pages_read.borrow().len()
        }
    }

    impl TreeSource for FakeTree {
        fn entry_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Entry, Error> {
            let mut entry = snapshot.root.clone();
            for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
                let found = match &entry.kind {
                    EntryKind::Directory { pages } => pages
                        .iter()
                        .flat_map(|page| &self.pages[page])
                        .find(|entry| entry.name == name),
                    _ => None,
                };
                let no_path =
                    || putback_repo::Error::NoPath { path: path.escape_ascii().to_string() };
                entry = found.ok_or_else(no_path)?.clone();
            }
            Ok(entry)
        }

        fn read_pages(&self, pages: &[BlobId]) -> Result<Entries<'_>, Error> {
            let pages = pages.to_vec();
            Ok(Box::new(pages.into_iter().flat_map(|page| {
                self.pages_read.borrow_mut().push(page);
                self.pages[&page].iter().cloned().map(Ok)
            })))
        }

        fn read_list_page(&self, page: &ChunkRef, _: u8) -> Result<Vec<ChunkRef>, Error> {
            Ok(self.lists[&page.id].clone())
        }

        fn read_data_blob(&self, blob: &BlobId) -> Result<Vec<u8>, Error> {
            self.chunks_read.borrow_mut().push(*blob);
            let unknown = || putback_repo::Error::BlobUnknown { blob: *blob };
            Ok(self.data.get(blob).ok_or_else(unknown)?.clone())
        }
    }

    /// All bytes of a file.
    pub(crate) fn read_all(tree: &dyn TreeSource, entry: &Entry) -> Result<Vec<u8>, Error> {
        let mut reader = FileReader::new(tree, entry);
        let mut all = Vec::new();
        while let Some(piece) = reader.next(u64::MAX)? {
            match piece {
                Piece::Zeros(length) => all.resize(all.len() + usize::try_from(length).unwrap(), 0),
                Piece::Bytes(bytes) => {
                    assert!(!bytes.is_empty());
                    all.extend(bytes);
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    /// `holes`: offset and length; `data`: what lies outside them.
    fn check(size: u64, data: &str, holes: &[(u64, u64)], expected: Result<&str, ()>) {
        for list_depth in [0, 1, 2] {
            let mut tree = FakeTree::with_lists(list_depth);
            let holes = holes.iter().map(|&(offset, length)| Extent { offset, length }).collect();
            let content = Content::Inline(data.as_bytes().to_vec());
            let folder = Folder::of([special("f", EntryKind::File { size, content, holes })]);
            let snapshot = tree.snapshot(&folder);
            let entry = tree.entry_at(&snapshot, b"f").unwrap();
            let expected = expected.map(|text| text.replace('.', "\0").into_bytes());
            assert_eq!(
                read_all(&tree, &entry).map_err(|_| ()),
                expected,
                "{size} {data} at depth {list_depth}"
            );
            let mut reader = FileReader::new(&tree, &entry);
            let (mut buffer, mut all) = ([0xff; 3], Vec::new());
            let filled = std::iter::from_fn(|| match reader.fill(&mut buffer) {
                Ok(0) => None,
                Ok(length) => {
                    all.extend(&buffer[..length]);
                    Some(Ok(()))
                }
                Err(_) => Some(Err(())),
            });
            assert_eq!(filled.collect::<Result<(), ()>>().map(|()| all), expected);
        }
    }

    #[test]
    fn a_file_is_read_with_its_holes_as_zeros() {
        check(0, "", &[], Ok(""));
        check(2, "ab", &[], Ok("ab"));
        check(26, "abcdefghijklmnopqrstuvwxyz", &[], Ok("abcdefghijklmnopqrstuvwxyz"));
        check(4, "", &[(0, 4)], Ok("...."));
        check(9, "abcde", &[(0, 2), (7, 2)], Ok("..abcde.."));
        check(12, "abcdefgh", &[(3, 2), (8, 2)], Ok("abc..def..gh"));
        check(6, "abcd", &[(4, 2)], Ok("abcd.."));
    }

    #[test]
    fn a_file_whose_chunks_and_holes_do_not_add_up_is_an_error() {
        check(5, "abcd", &[], Err(()));
        check(3, "abcd", &[], Err(()));
        check(0, "a", &[], Err(()));
        check(6, "abcd", &[(4, 3)], Err(()));
        check(6, "abcd", &[(7, 2)], Err(()));
        check(6, "abcd", &[(4, u64::MAX)], Err(()));
        check(6, "abcd", &[(2, 2), (3, 1)], Err(()));
        check(4, "abcd", &[(4, 0)], Err(()));
    }

    #[test]
    fn a_path_is_written_in_one_way() {
        for (path, normal) in [
            ("", ""),
            ("/", ""),
            ("a", "/a"),
            ("/a/b/", "/a/b"),
            ("//a/./b", "/a/b"),
            ("./a", "/a"),
        ] {
            assert_eq!(normal_path(path.as_bytes()), normal.as_bytes(), "{path}");
        }
    }
}
