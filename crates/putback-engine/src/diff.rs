//! What differs between two snapshots, or between a snapshot and a local folder.
//!
//! Both sides are merged in the order of their names' bytes, one directory after the other. Between
//! snapshots, directories and tree pages with the same ids are the same and are not read; content
//! is compared by chunk ids.
//!
//! Memory: a tree page of each side for each directory of the open path; of a local folder, the
//! names of each directory of the open path, and a chunk.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use putback_format::id::BlobId;
use putback_format::snapshot::{IncidentKind, Snapshot};
use putback_format::tree::{Content, Entry, EntryKind, Timestamp, Xattr};
use putback_repo::{Event, Observer, Repository};
use rustix::fs::{Mode, OFlags};

use crate::error::Error;
use crate::tree_source::{Chunks, Entries, FileReader, TreeSource, bare_entry, size_of};

/// In what way an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the new side has it.
    Added,
    /// Only the old side has it.
    Removed,
    /// The bytes of a file, the target of a link or the numbers of a device are others.
    Modified,
    /// Only what is known about it: mode, owner, times, attributes.
    Metadata,
    /// It is of another kind. What is below a directory is reported on its own.
    TypeChanged,
    /// A file's bytes are others, though size, mtime and ctime say that nothing has changed.
    Suspicious,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path below the compared folders, starting with `/`; absolute where whole snapshots are
    /// compared. `/` for the folders themselves, `/NAME` where single files are compared.
    pub path: Vec<u8>,
    /// In what way.
    pub change: Change,
    /// Size of the old file, 0 if it was none.
    pub bytes_old: u64,
    /// Size of the new file, 0 if it is none.
    pub bytes_new: u64,
    /// Whether it is a directory, on the new side if it is there.
    pub is_directory: bool,
}

/// Counts of a comparison. Files are everything but directories.
///
/// New entries are old ones plus added minus removed; new bytes are old ones plus added minus
/// removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffReport {
    /// Files that only the new side has.
    pub added_files: u64,
    /// Files that only the old side has.
    pub removed_files: u64,
    /// [`Change::Modified`] and [`Change::Suspicious`].
    pub modified_files: u64,
    /// [`Change::Metadata`], of files and directories.
    pub metadata_changed: u64,
    /// [`Change::TypeChanged`]; these are neither added nor removed.
    pub type_changed: u64,
    /// Directories that only the new side has.
    pub added_directories: u64,
    /// Directories that only the old side has.
    pub removed_directories: u64,
    /// Size of added files, and the new size of others that differ.
    pub added_bytes: u64,
    /// Size of removed files, and the old size of others that differ.
    pub removed_bytes: u64,
    /// Local entries that could not be compared, each told to the observer.
    pub problems: u64,
}

/// What counts as a difference.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffOptions {
    /// Report [`Change::Metadata`].
    pub metadata: bool,
    /// Read every local file. Otherwise one of the same size and mtime is taken as unchanged,
    /// unless it was being written when it was backed up.
    pub content: bool,
}

/// Compares what lies at a path of one snapshot with what lies at a path of another.
///
/// Metadata are mode, owner, mtime, flags and extended attributes. Chunks are read only where their
/// ids cannot tell: files of the same size with other holes, or cut under another configuration.
///
/// # Errors
/// Those of the repository.
pub fn diff_snapshots(
    repository: &Repository,
    old: (&Snapshot, &[u8]),
    new: (&Snapshot, &[u8]),
    options: &DiffOptions,
    found: &mut dyn FnMut(Difference),
) -> Result<DiffReport, Error> {
    diff_trees(repository, old, new, options, found)
}

/// Compares what lies at a path of a snapshot, the old side, with a local file or folder.
///
/// Symbolic links are not followed, but `folder` itself may be one if it is compared with a
/// directory. Metadata are mode, owner by number, mtime and extended attributes.
///
/// What cannot be read is told to `observer`, counted in [`DiffReport::problems`] and not
/// otherwise reported; the comparison goes on.
///
/// # Errors
/// [`Error::Source`]: `folder` itself is unreadable. Those of the repository.
pub fn diff_local(
    repository: &Repository,
    old: (&Snapshot, &[u8]),
    folder: &Path,
    options: &DiffOptions,
    found: &mut dyn FnMut(Difference),
    observer: &dyn Observer,
) -> Result<DiffReport, Error> {
    diff_tree_with_local(repository, old, folder, options, found, observer)
}

fn diff_trees(
    tree: &dyn TreeSource,
    old: (&Snapshot, &[u8]),
    new: (&Snapshot, &[u8]),
    options: &DiffOptions,
    found: &mut dyn FnMut(Difference),
) -> Result<DiffReport, Error> {
    let old_entry = tree.entry_at(old.0, old.1)?;
    let new_entry = tree.entry_at(new.0, new.1)?;
    let is_cut_alike = old.0.config_generation == new.0.config_generation;
    let mut comparison = Comparison::new(tree, SnapshotSide { tree, is_cut_alike }, options, found);
    comparison.run(&old_entry, Node::Entry(new_entry))?;
    Ok(comparison.report)
}

fn diff_tree_with_local(
    tree: &dyn TreeSource,
    old: (&Snapshot, &[u8]),
    folder: &Path,
    options: &DiffOptions,
    found: &mut dyn FnMut(Difference),
    observer: &dyn Observer,
) -> Result<DiffReport, Error> {
    let old_entry = tree.entry_at(old.0, old.1)?;
    let problems = Cell::new(0);
    let metadata = if is_directory(&old_entry) {
        fs_err::metadata(folder)
    } else {
        fs_err::symlink_metadata(folder)
    };
    let name = folder.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    let new_entry = metadata
        .and_then(|metadata| local_entry(folder, name, &metadata))
        .map_err(|source| Error::Source { path: folder.display().to_string(), source })?;
    let is_folder = is_directory(&new_entry);
    let side = LocalSide { tree, folder, is_folder, options, observer, problems: &problems };
    let mut comparison = Comparison::new(tree, side, options, found);
    comparison.run(&old_entry, Node::Entry(new_entry))?;
    comparison.report.problems = problems.get();
    Ok(comparison.report)
}

/// One name of the new side.
#[expect(clippy::large_enum_variant, reason = "one is held for each open directory")]
enum Node {
    Entry(Entry),
    /// It is there, but nothing more is known; that was told.
    Unreadable(Vec<u8>),
}

impl Node {
    fn name(&self) -> &[u8] {
        match self {
            Self::Entry(entry) => &entry.name,
            Self::Unreadable(name) => name,
        }
    }
}

type Nodes<'a> = Box<dyn Iterator<Item = Result<Node, Error>> + 'a>;

/// Bytes of both sides that are compared at a time.
const COMPARED_BYTES: usize = 128 << 10;

/// Whether the content of two entries of one kind is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Differs,
    /// Cannot be known; that was told.
    Unreadable,
}

/// The new side of a comparison. Paths are those of [`Difference`], but empty for the folders
/// compared.
trait NewSide<'a> {
    /// The entries of a directory that both sides have, as far as they may differ.
    /// `None` if it cannot be listed, which was told.
    fn open_both(
        &self,
        path: &[u8],
        old: &Entry,
        new: &Entry,
    ) -> Result<Option<(Entries<'a>, Nodes<'a>)>, Error>;

    /// The entries of a directory that only this side has.
    fn open(&self, path: &[u8], new: &Entry) -> Result<Option<Nodes<'a>>, Error>;

    /// Compares two files of the same size.
    fn compare_content(&self, path: &[u8], old: &Entry, new: &Entry) -> Result<Verdict, Error>;

    fn has_same_metadata(&self, path: &[u8], old: &Entry, new: &Entry) -> bool;
}

/// The merge: knows nothing about where the new side comes from.
struct Comparison<'a, 'f, Side> {
    tree: &'a dyn TreeSource,
    side: Side,
    metadata: bool,
    found: &'f mut dyn FnMut(Difference),
    report: DiffReport,
    path: Vec<u8>,
    open: Vec<OpenPair<'a>>,
}

/// A directory of the open path, on one side or on both.
struct OpenPair<'a> {
    path_length: usize,
    old: Cursor<Entries<'a>, Entry>,
    new: Cursor<Nodes<'a>, Node>,
}

/// An iterator whose next item can be looked at.
struct Cursor<I, T> {
    items: I,
    next: Option<T>,
}

impl<T, I: Iterator<Item = Result<T, Error>>> Cursor<I, T> {
    fn new(mut items: I) -> Result<Self, Error> {
        let next = items.next().transpose()?;
        Ok(Self { items, next })
    }

    fn take(&mut self) -> Result<Option<T>, Error> {
        let following = self.items.next().transpose()?;
        Ok(std::mem::replace(&mut self.next, following))
    }
}

impl<'a, 'f, Side: NewSide<'a>> Comparison<'a, 'f, Side> {
    fn new(
        tree: &'a dyn TreeSource,
        side: Side,
        options: &DiffOptions,
        found: &'f mut dyn FnMut(Difference),
    ) -> Self {
        let metadata = options.metadata;
        Self {
            tree,
            side,
            metadata,
            found,
            report: DiffReport::default(),
            path: Vec::new(),
            open: Vec::new(),
        }
    }

    fn run(&mut self, old: &Entry, new: Node) -> Result<(), Error> {
        if let Node::Entry(new) = &new
            && !is_directory(old)
            && !is_directory(new)
        {
            self.path.push(b'/');
            self.path.extend_from_slice(&new.name);
        }
        self.compare(Some(old), Some(&new))?;
        while let Some(pair) = self.open.last_mut() {
            self.path.truncate(pair.path_length);
            let order = match (&pair.old.next, &pair.new.next) {
                (None, None) => {
                    self.open.pop();
                    continue;
                }
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.name[..].cmp(new.name()),
            };
            let old = if order.is_le() { pair.old.take()? } else { None };
            let new = if order.is_ge() { pair.new.take()? } else { None };
            let name = old.as_ref().map(|old| &old.name[..]).or(new.as_ref().map(Node::name));
            self.path.push(b'/');
            self.path.extend_from_slice(name.unwrap_or_default());
            self.compare(old.as_ref(), new.as_ref())?;
        }
        Ok(())
    }

    /// Compares the entries at the present path and opens what is to be compared below it.
    fn compare(&mut self, old: Option<&Entry>, new: Option<&Node>) -> Result<(), Error> {
        match (old, new) {
            (_, Some(Node::Unreadable(_))) | (None, None) => Ok(()),
            (Some(old), None) => {
                self.report(Change::Removed, Some(old), None);
                self.open_old(old)
            }
            (None, Some(Node::Entry(new))) => {
                self.report(Change::Added, None, Some(new));
                self.open_new(new)
            }
            (Some(old), Some(Node::Entry(new))) => self.compare_both(old, new),
        }
    }

    fn compare_both(&mut self, old: &Entry, new: &Entry) -> Result<(), Error> {
        if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
            self.report(Change::TypeChanged, Some(old), Some(new));
            self.open_old(old)?;
            return self.open_new(new);
        }
        let content = match (&old.kind, &new.kind) {
            (EntryKind::Directory { .. }, _) => Verdict::Same,
            (EntryKind::File { size, .. }, EntryKind::File { size: new_size, .. })
                if size == new_size =>
            {
                self.side.compare_content(&self.path, old, new)?
            }
            (old, new) if old == new => Verdict::Same,
            _ => Verdict::Differs,
        };
        match content {
            Verdict::Same => {
                if self.metadata && !self.side.has_same_metadata(&self.path, old, new) {
                    self.report(Change::Metadata, Some(old), Some(new));
                }
            }
            Verdict::Differs => {
                let seems_unchanged = size_of(old) == size_of(new)
                    && matches!(old.kind, EntryKind::File { .. })
                    && (old.mtime, old.ctime) == (new.mtime, new.ctime);
                let change = if seems_unchanged { Change::Suspicious } else { Change::Modified };
                self.report(change, Some(old), Some(new));
            }
            Verdict::Unreadable => {}
        }
        if is_directory(old)
            && let Some((old, new)) = self.side.open_both(&self.path, old, new)?
        {
            self.push(old, new)?;
        }
        Ok(())
    }

    fn open_old(&mut self, old: &Entry) -> Result<(), Error> {
        let EntryKind::Directory { pages } = &old.kind else { return Ok(()) };
        self.push(self.tree.read_pages(pages)?, Box::new(std::iter::empty()))
    }

    fn open_new(&mut self, new: &Entry) -> Result<(), Error> {
        if is_directory(new)
            && let Some(nodes) = self.side.open(&self.path, new)?
        {
            self.push(Box::new(std::iter::empty()), nodes)?;
        }
        Ok(())
    }

    fn push(&mut self, old: Entries<'a>, new: Nodes<'a>) -> Result<(), Error> {
        self.open.push(OpenPair {
            path_length: self.path.len(),
            old: Cursor::new(old)?,
            new: Cursor::new(new)?,
        });
        Ok(())
    }

    fn report(&mut self, change: Change, old: Option<&Entry>, new: Option<&Entry>) {
        let bytes_old = old.map_or(0, size_of);
        let bytes_new = new.map_or(0, size_of);
        let is_directory = new.or(old).is_some_and(is_directory);
        let report = &mut self.report;
        let count = match (change, is_directory) {
            (Change::Added, false) => &mut report.added_files,
            (Change::Added, true) => &mut report.added_directories,
            (Change::Removed, false) => &mut report.removed_files,
            (Change::Removed, true) => &mut report.removed_directories,
            (Change::Modified | Change::Suspicious, _) => &mut report.modified_files,
            (Change::Metadata, _) => &mut report.metadata_changed,
            (Change::TypeChanged, _) => &mut report.type_changed,
        };
        *count += 1;
        if change != Change::Metadata {
            report.added_bytes = report.added_bytes.saturating_add(bytes_new);
            report.removed_bytes = report.removed_bytes.saturating_add(bytes_old);
        }
        let path = if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() };
        (self.found)(Difference { path, change, bytes_old, bytes_new, is_directory });
    }
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Directory { .. })
}

/// The new side is a snapshot too.
struct SnapshotSide<'a> {
    tree: &'a dyn TreeSource,
    /// Both snapshots were written under one configuration, so the same bytes were cut into the
    /// same chunks.
    is_cut_alike: bool,
}

impl<'a> NewSide<'a> for SnapshotSide<'a> {
    fn open_both(
        &self,
        _: &[u8],
        old: &Entry,
        new: &Entry,
    ) -> Result<Option<(Entries<'a>, Nodes<'a>)>, Error> {
        let (EntryKind::Directory { pages: old }, EntryKind::Directory { pages: new }) =
            (&old.kind, &new.kind)
        else {
            return Ok(None);
        };
        // Names are unique in a directory: what a shared page holds has no counterpart in the
        // others.
        let in_old: HashSet<&BlobId> = old.iter().collect();
        let shared: HashSet<&BlobId> = new.iter().filter(|page| in_old.contains(page)).collect();
        let rest = |pages: &[BlobId]| -> Vec<BlobId> {
            pages.iter().filter(|page| !shared.contains(page)).copied().collect()
        };
        let (old, new) = (rest(old), rest(new));
        if old.is_empty() && new.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.tree.read_pages(&old)?, nodes(self.tree.read_pages(&new)?))))
    }

    fn open(&self, _: &[u8], new: &Entry) -> Result<Option<Nodes<'a>>, Error> {
        match &new.kind {
            EntryKind::Directory { pages } => Ok(Some(nodes(self.tree.read_pages(pages)?))),
            _ => Ok(None),
        }
    }

    fn compare_content(&self, _: &[u8], old: &Entry, new: &Entry) -> Result<Verdict, Error> {
        let is_same = self.has_same_bytes(old, new)?;
        Ok(if is_same { Verdict::Same } else { Verdict::Differs })
    }

    fn has_same_metadata(&self, _: &[u8], old: &Entry, new: &Entry) -> bool {
        has_same_numbers(old, new)
            && (&old.user, &old.group, old.flags) == (&new.user, &new.group, new.flags)
            && old.xattrs == new.xattrs
            && old.windows == new.windows
    }
}

impl SnapshotSide<'_> {
    /// Whether two files of the same size hold the same bytes.
    fn has_same_bytes(&self, old: &Entry, new: &Entry) -> Result<bool, Error> {
        let (
            EntryKind::File { content: old_content, holes: old_holes, .. },
            EntryKind::File { content: new_content, holes: new_holes, .. },
        ) = (&old.kind, &new.kind)
        else {
            return Ok(false);
        };
        if old_holes == new_holes {
            if old_content == new_content {
                return Ok(true);
            }
            if self.is_cut_alike || self.differs_by_ids(old_content, new_content)? {
                return Ok(false);
            }
        }
        let mut old = FileReader::new(self.tree, old);
        let mut new = FileReader::new(self.tree, new);
        let (mut old_bytes, mut new_bytes) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
        loop {
            let old_length = old.fill(&mut old_bytes)?;
            let new_length = new.fill(&mut new_bytes)?;
            if old_bytes[..old_length] != new_bytes[..new_length] {
                return Ok(false);
            }
            if old_length < COMPARED_BYTES {
                return Ok(true);
            }
        }
    }

    /// Whether the first chunks that differ are of one length: then their bytes differ as well.
    fn differs_by_ids(&self, old: &Content, new: &Content) -> Result<bool, Error> {
        let (mut old, mut new) = (Chunks::new(self.tree, old), Chunks::new(self.tree, new));
        loop {
            match (old.next()?, new.next()?) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => return Ok(a.length == b.length),
                _ => return Ok(false),
            }
        }
    }
}

fn nodes(entries: Entries<'_>) -> Nodes<'_> {
    Box::new(entries.map(|entry| entry.map(Node::Entry)))
}

/// Mode, owner and mtime.
fn has_same_numbers(old: &Entry, new: &Entry) -> bool {
    (old.mode, old.uid, old.gid, old.mtime) == (new.mode, new.uid, new.gid, new.mtime)
}

/// The new side is a local folder. Its entries have no content, and no attributes until these are
/// compared.
#[derive(Clone, Copy)]
struct LocalSide<'a> {
    tree: &'a dyn TreeSource,
    folder: &'a Path,
    /// Otherwise `folder` is a single file.
    is_folder: bool,
    options: &'a DiffOptions,
    observer: &'a dyn Observer,
    problems: &'a Cell<u64>,
}

impl<'a> NewSide<'a> for LocalSide<'a> {
    fn open_both(
        &self,
        path: &[u8],
        old: &Entry,
        new: &Entry,
    ) -> Result<Option<(Entries<'a>, Nodes<'a>)>, Error> {
        let (EntryKind::Directory { pages }, Some(new)) = (&old.kind, self.open(path, new)?) else {
            return Ok(None);
        };
        Ok(Some((self.tree.read_pages(pages)?, new)))
    }

    fn open(&self, path: &[u8], _: &Entry) -> Result<Option<Nodes<'a>>, Error> {
        let folder = self.local_path(path);
        let names = match sorted_names(&folder) {
            Ok(names) => names,
            Err(error) => {
                self.problem(&folder, &error);
                return Ok(None);
            }
        };
        let side = *self;
        Ok(Some(Box::new(names.into_iter().filter_map(move |name| {
            let path = folder.join(&name);
            let name = name.into_vec();
            let entry = fs_err::symlink_metadata(&path)
                .and_then(|metadata| local_entry(&path, name.clone(), &metadata));
            match entry {
                Ok(entry) => Some(Ok(Node::Entry(entry))),
                // It vanished after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    side.problem(&path, &error);
                    Some(Ok(Node::Unreadable(name)))
                }
            }
        }))))
    }

    fn compare_content(&self, path: &[u8], old: &Entry, new: &Entry) -> Result<Verdict, Error> {
        if !self.options.content && old.mtime == new.mtime && !old.volatile {
            return Ok(Verdict::Same);
        }
        let path = self.local_path(path);
        let mut stored = FileReader::new(self.tree, old);
        let mut local = match open_file(&path) {
            Ok(local) => local,
            Err(error) => return Ok(self.unreadable(&path, &error)),
        };
        let (mut stored_bytes, mut local_bytes) =
            (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
        loop {
            let stored_length = stored.fill(&mut stored_bytes)?;
            let local_length = match fill(&mut local, &mut local_bytes) {
                Ok(length) => length,
                Err(error) => return Ok(self.unreadable(&path, &error)),
            };
            if stored_bytes[..stored_length] != local_bytes[..local_length] {
                return Ok(Verdict::Differs);
            }
            if stored_length < COMPARED_BYTES {
                return Ok(Verdict::Same);
            }
        }
    }

    fn has_same_metadata(&self, path: &[u8], old: &Entry, new: &Entry) -> bool {
        let path = self.local_path(path);
        match local_xattrs(&path) {
            Ok(xattrs) => has_same_numbers(old, new) && xattrs == old.xattrs,
            Err(error) => {
                self.problem(&path, &error);
                has_same_numbers(old, new)
            }
        }
    }
}

impl LocalSide<'_> {
    fn local_path(&self, path: &[u8]) -> PathBuf {
        match path {
            [b'/', below @ ..] if self.is_folder => self.folder.join(OsStr::from_bytes(below)),
            _ => self.folder.to_owned(),
        }
    }

    fn unreadable(&self, path: &Path, error: &io::Error) -> Verdict {
        self.problem(path, error);
        Verdict::Unreadable
    }

    fn problem(&self, path: &Path, error: &io::Error) {
        self.problems.set(self.problems.get() + 1);
        let message = error.to_string();
        let path = path.as_os_str().as_bytes();
        self.observer.event(Event::Problem {
            path,
            kind: IncidentKind::Unreadable,
            message: &message,
        });
    }
}

fn sorted_names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

fn local_entry(path: &Path, name: Vec<u8>, metadata: &std::fs::Metadata) -> io::Result<Entry> {
    let file_type = metadata.file_type();
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let kind = if file_type.is_dir() {
        EntryKind::Directory { pages: Vec::new() }
    } else if file_type.is_symlink() {
        EntryKind::Symlink { target: fs_err::read_link(path)?.into_os_string().into_vec() }
    } else if file_type.is_fifo() {
        EntryKind::Fifo
    } else if file_type.is_socket() {
        EntryKind::Socket
    } else if file_type.is_char_device() {
        EntryKind::CharacterDevice { major, minor }
    } else if file_type.is_block_device() {
        EntryKind::BlockDevice { major, minor }
    } else {
        EntryKind::File {
            size: metadata.len(),
            content: Content::Inline(Vec::new()),
            holes: Vec::new(),
        }
    };
    let time = |seconds, nanoseconds: i64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
    };
    Ok(Entry {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        ..bare_entry(name, kind)
    })
}

/// Extended attributes sorted by name, none where the file system has none; of a link, its own.
fn local_xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names {
        if let Some(value) = xattr::get(path, &name)? {
            xattrs.push(Xattr { name: name.into_vec(), value });
        }
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}

/// Opens a regular file for reading, and never what may have taken its place: a link, or a pipe
/// that would block.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Fills `buffer` with the next bytes. Less than its length is filled at the end only.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use proptest::prelude::*;
    use putback_format::tree::Extent;

    use super::*;
    use crate::tree_source::testing::*;

    const CONTENT_ONLY: DiffOptions = DiffOptions { metadata: false, content: true };
    const EVERYTHING: DiffOptions = DiffOptions { metadata: true, content: true };

    /// A letter for the change, and the path.
    fn line(difference: &Difference) -> String {
        let letter = match difference.change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Modified => 'M',
            Change::Metadata => 'U',
            Change::TypeChanged => 'T',
            Change::Suspicious => '?',
        };
        let slash = if difference.is_directory && difference.path != b"/" { "/" } else { "" };
        format!("{letter} {}{slash}", difference.path.escape_ascii())
    }

    fn diff(
        tree: &FakeTree,
        old: (&Snapshot, &str),
        new: (&Snapshot, &str),
        options: &DiffOptions,
    ) -> (Vec<String>, DiffReport) {
        let mut lines = Vec::new();
        let (old, new) = ((old.0, old.1.as_bytes()), (new.0, new.1.as_bytes()));
        let report =
            diff_trees(tree, old, new, options, &mut |difference| lines.push(line(&difference)))
                .unwrap();
        (lines, report)
    }

    fn check(old: &Folder, new: &Folder, options: &DiffOptions, expected: &[&str]) -> DiffReport {
        let mut tree = FakeTree::default();
        let (old, new) = (tree.snapshot(old), tree.snapshot(new));
        let (lines, report) = diff(&tree, (&old, ""), (&new, "/"), options);
        assert_eq!(lines, expected);
        report
    }

    fn at(mut entry: Entry, seconds: i64) -> Entry {
        entry.mtime.seconds = seconds;
        entry
    }

    #[test]
    fn each_kind_of_change_is_reported_and_counted() {
        let old = Folder::of([
            file("gone", b"123"),
            file("kept", b"same"),
            file("later", b"old"),
            file("rot", b"good"),
            symlink("sym", "a"),
            file("turned", b"12345"),
            directory("was/dir/deep"),
            file("was/file", b"1"),
            special("z", EntryKind::BlockDevice { major: 1, minor: 2 }),
        ]);
        let new = Folder::of([
            file("come/x", b"12"),
            file("kept", b"same"),
            at(file("later", b"longer"), 5),
            file("rot", b"evil"),
            symlink("sym", "b"),
            file("turned/y", b"1"),
            symlink("was", "x"),
            special("z", EntryKind::BlockDevice { major: 1, minor: 3 }),
        ]);
        let report = check(
            &old,
            &new,
            &DiffOptions::default(),
            &[
                "+ /come/",
                "+ /come/x",
                "- /gone",
                "M /later",
                "? /rot",
                "M /sym",
                "T /turned/",
                "+ /turned/y",
                "T /was",
                "- /was/dir/",
                "- /was/dir/deep/",
                "- /was/file",
                "M /z",
            ],
        );
        assert_eq!(
            report,
            DiffReport {
                added_files: 2,
                removed_files: 2,
                modified_files: 4,
                metadata_changed: 0,
                type_changed: 2,
                added_directories: 1,
                removed_directories: 2,
                added_bytes: 2 + 6 + 4 + 1,
                removed_bytes: 3 + 3 + 4 + 5 + 1,
                problems: 0,
            }
        );
    }

    #[test]
    fn metadata_are_reported_on_request() {
        let xattr = |value: &[u8]| vec![Xattr { name: b"user.x".to_vec(), value: value.to_vec() }];
        type Change = fn(&mut Entry);
        let changes: [(&str, Change); 6] = [
            ("mode", |entry| entry.mode = 0o600),
            ("owner", |entry| entry.uid = 7),
            ("owner's name", |entry| entry.user = b"me".to_vec()),
            ("mtime", |entry| entry.mtime.nanoseconds = 1),
            ("flags", |entry| entry.flags = 1),
            ("xattrs", |entry| entry.xattrs.clear()),
        ];
        for (what, change) in changes {
            let mut old = Folder::of([directory("dir"), file("f", b"1234")]);
            old.0.values_mut().for_each(|entry| entry.xattrs = xattr(b"1"));
            let mut new = old.clone();
            new.0.values_mut().for_each(change);
            check(&old, &new, &DiffOptions::default(), &[]);
            let report = check(&old, &new, &EVERYTHING, &["U /dir/", "U /f"]);
            assert_eq!((report.metadata_changed, report.added_bytes), (2, 0), "{what}");
            // What changes by itself is no difference.
            let mut new = old.clone();
            new.0
                .values_mut()
                .for_each(|entry| (entry.inode, entry.ctime.seconds, entry.links) = (9, 9, 1));
            check(&old, &new, &EVERYTHING, &[]);
        }
    }

    #[test]
    fn what_is_identical_is_not_read() {
        let mut old = Folder::of((0..50).map(|n| file(&format!("wide/{n:02}"), b"1")));
        (0..5).for_each(|n| old.put(file(&format!("other/{n}/x"), b"1")));
        let mut new = old.clone();
        let mut tree = FakeTree::default();
        let before = tree.snapshot(&old);
        let same = tree.snapshot(&new);
        assert_eq!(
            tree.count_pages(|| assert!(
                diff(&tree, (&before, ""), (&same, ""), &EVERYTHING).0.is_empty()
            )),
            0
        );
        new.put(file("wide/25", b"2"));
        let after = tree.snapshot(&new);
        // Of 6 pages of `wide` one on each side, besides both roots.
        assert_eq!(
            tree.count_pages(|| assert_eq!(
                diff(&tree, (&before, ""), (&after, ""), &EVERYTHING).0,
                ["? /wide/25"]
            )),
            4
        );
        assert!(tree.chunks_read.borrow().is_empty());
    }

    #[test]
    fn folders_and_files_inside_snapshots_are_compared_from_there() {
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([
            file("a/x/f", b"1"),
            file("a/y", b"12"),
            file("b/x/f", b"2"),
            file("b/y", b"12"),
        ]));
        let lines =
            |old, new| diff(&tree, (&snapshot, old), (&snapshot, new), &DiffOptions::default()).0;
        assert_eq!(lines("/a", "b/"), ["? /x/f"]);
        assert_eq!(lines("a/x/f", "b/x/f"), ["? /f"]);
        assert_eq!(lines("a/y", "b/y"), [""; 0]);
        assert_eq!(lines("a/y", "b/x"), ["T /", "+ /f"]);
        assert_eq!(lines("a/x", "a/y"), ["T /", "- /f"]);
    }

    #[test]
    fn bytes_decide_where_ids_cannot() {
        let sparse = |data: &[u8], holes: &[(u64, u64)]| {
            let holes: Vec<_> =
                holes.iter().map(|&(offset, length)| Extent { offset, length }).collect();
            let size = data.len() as u64 + holes.iter().map(|hole| hole.length).sum::<u64>();
            Folder::of([special(
                "f",
                EntryKind::File { size, content: Content::Inline(data.to_vec()), holes },
            )])
        };
        let full = sparse(b"ab\0\0\0\0ef", &[]);
        check(&full, &sparse(b"abef", &[(2, 4)]), &EVERYTHING, &[]);
        check(&full, &sparse(b"ab\0\0ef", &[(3, 2)]), &EVERYTHING, &[]);
        check(&full, &sparse(b"abeg", &[(2, 4)]), &EVERYTHING, &["? /f"]);
        check(&full, &sparse(b"abef", &[(1, 4)]), &EVERYTHING, &["? /f"]);
        // The same bytes in other chunks, as after a change of the configuration.
        let mut tree = FakeTree::default();
        let old = tree.snapshot(&sparse(b"abcdefghijkl", &[]));
        let mut new = tree.snapshot(&sparse(b"abcdef", &[]));
        let entry = tree.entry_at(&old, b"f").unwrap();
        let content =
            |chunks: &[&[u8]], tree: &mut FakeTree| Content::Chunks(tree.put_chunks(chunks));
        let same = content(&[b"abcd", b"efghijkl"], &mut tree);
        let other = content(&[b"abcd", b"efghijkL"], &mut tree);
        let same_cuts = content(&[b"abcd", b"efgX", b"ijkl"], &mut tree);
        for (content, generation, is_same, reads) in [
            (&same, 2, true, true),
            (&other, 2, false, true),
            (&same_cuts, 2, false, false),
            (&same, 1, false, false),
        ] {
            new.config_generation = generation;
            new.root = tree.root_with(Entry {
                kind: EntryKind::File { size: 12, content: content.clone(), holes: Vec::new() },
                ..entry.clone()
            });
            tree.chunks_read.borrow_mut().clear();
            let lines = diff(&tree, (&old, ""), (&new, ""), &EVERYTHING).0;
            assert_eq!(lines.is_empty(), is_same, "{generation} {lines:?}");
            assert_eq!(!tree.chunks_read.borrow().is_empty(), reads, "{generation}");
        }
    }

    /// Collects problems.
    #[derive(Default)]
    struct Problems(Mutex<Vec<Vec<u8>>>);

    impl Observer for Problems {
        fn event(&self, event: Event<'_>) {
            if let Event::Problem { path, .. } = event {
                self.0.lock().unwrap().push(path.to_vec());
            }
        }
    }

    fn write_folder(target: &Path, folder: &Folder) {
        for (path, entry) in &folder.0 {
            let path = target.join(OsStr::from_bytes(path));
            match &entry.kind {
                EntryKind::Directory { .. } => fs_err::create_dir(&path).unwrap(),
                EntryKind::Symlink { target } => {
                    std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).unwrap();
                }
                EntryKind::File { content: Content::Inline(bytes), .. } => {
                    fs_err::write(&path, bytes).unwrap();
                    set_mtime(&path, entry.mtime.seconds);
                }
                kind => panic!("{kind:?}"),
            }
        }
    }

    fn set_mtime(path: &Path, seconds: i64) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.cast_unsigned());
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn diff_with(
        tree: &FakeTree,
        old: (&Snapshot, &str),
        folder: &Path,
        options: &DiffOptions,
    ) -> (Vec<String>, DiffReport, Vec<Vec<u8>>) {
        let (mut lines, problems) = (Vec::new(), Problems::default());
        let found = &mut |difference: Difference| lines.push(line(&difference));
        let report = diff_tree_with_local(
            tree,
            (old.0, old.1.as_bytes()),
            folder,
            options,
            found,
            &problems,
        )
        .unwrap();
        (lines, report, problems.0.into_inner().unwrap())
    }

    #[test]
    fn a_local_file_of_the_same_size_and_mtime_is_read_only_on_request() {
        let folder = Folder::of([file("dir/f", b"good"), file("dir/g", b"12")]);
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&folder);
        let local = tempfile::tempdir().unwrap();
        write_folder(local.path(), &folder);
        let path = local.path().join("dir/f");
        let lines =
            |options: &DiffOptions| diff_with(&tree, (&snapshot, ""), local.path(), options).0;
        assert_eq!(lines(&CONTENT_ONLY), [""; 0]);

        fs_err::write(&path, b"evil").unwrap();
        set_mtime(&path, 1_700_000_000);
        assert_eq!(lines(&DiffOptions::default()), [""; 0]);
        assert_eq!(lines(&CONTENT_ONLY), ["M /dir/f"]);
        set_mtime(&path, 1_600_000_000);
        assert_eq!(lines(&DiffOptions::default()), ["M /dir/f"]);
        // Longer and shorter, without a look at the bytes.
        fs_err::write(&path, b"good+").unwrap();
        assert_eq!(lines(&DiffOptions::default()), ["M /dir/f"]);

        let mut volatile = folder.clone();
        volatile.0.values_mut().for_each(|entry| entry.volatile = true);
        let volatile = tree.snapshot(&volatile);
        fs_err::write(&path, b"evil").unwrap();
        set_mtime(&path, 1_700_000_000);
        assert_eq!(
            diff_with(
                &tree,
                (&volatile, "/dir"),
                &local.path().join("dir"),
                &DiffOptions::default()
            )
            .0,
            ["M /f"]
        );
        assert_eq!(
            diff_with(&tree, (&volatile, "/dir/f"), &path, &DiffOptions::default()).0,
            ["M /f"]
        );
        assert_eq!(
            diff_with(&tree, (&volatile, "/dir/g"), &local.path().join("dir/g"), &CONTENT_ONLY).0,
            [""; 0]
        );
    }

    #[test]
    fn a_touched_local_file_with_the_same_bytes_has_other_metadata() {
        let mut entry = file("f", b"same");
        let local = tempfile::tempdir().unwrap();
        let path = local.path().join("f");
        write_folder(local.path(), &Folder::of([entry.clone()]));
        let metadata = fs_err::metadata(&path).unwrap();
        (entry.uid, entry.gid, entry.mode) =
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([entry]));
        let lines = |options: &DiffOptions| diff_with(&tree, (&snapshot, "f"), &path, options).0;
        assert_eq!(lines(&EVERYTHING), [""; 0]);
        set_mtime(&path, 5);
        assert_eq!(lines(&DiffOptions::default()), [""; 0]);
        assert_eq!(lines(&EVERYTHING), ["U /f"]);
    }

    #[test]
    fn links_are_compared_and_not_followed() {
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([symlink("link", "x"), file("dir/f", b"1")]));
        let local = tempfile::tempdir().unwrap();
        write_folder(
            local.path(),
            &Folder::of([symlink("link", "real"), symlink("dir", "real"), file("real/f", b"1")]),
        );
        let lines = |old, path: &Path| diff_with(&tree, (&snapshot, old), path, &CONTENT_ONLY).0;
        assert_eq!(
            lines("/", local.path()),
            ["T /dir", "- /dir/f", "M /link", "+ /real/", "+ /real/f"]
        );
        // But the folder that was asked for may be one.
        assert_eq!(lines("/dir", &local.path().join("dir")), [""; 0]);
        assert_eq!(lines("/link", &local.path().join("link")), ["M /link"]);
    }

    #[test]
    fn what_cannot_be_read_locally_is_told_counted_and_not_called_changed() {
        // Opens, and fails when its first byte is read.
        let path = Path::new("/proc/self/mem");
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([file("mem", b"")]));
        let (lines, report, problems) = diff_with(&tree, (&snapshot, "mem"), path, &CONTENT_ONLY);
        assert_eq!(
            (lines, report.problems, problems),
            (vec![], 1, vec![b"/proc/self/mem".to_vec()])
        );

        let (local, problems, counted) =
            (tempfile::tempdir().unwrap(), Problems::default(), Cell::new(0));
        let side = LocalSide {
            tree: &tree,
            folder: local.path(),
            is_folder: true,
            options: &CONTENT_ONLY,
            observer: &problems,
            problems: &counted,
        };
        assert!(
            side.open_both(b"/gone", &directory("gone"), &directory("gone")).unwrap().is_none()
        );
        assert_eq!(counted.get(), 1);
    }

    #[test]
    fn an_unreadable_entry_is_neither_added_nor_removed() {
        let tree = FakeTree::default();
        let side = SnapshotSide { tree: &tree, is_cut_alike: true };
        let found = &mut |difference: Difference| panic!("{difference:?}");
        let mut comparison = Comparison::new(&tree, side, &EVERYTHING, found);
        for old in [Some(&file("f", b"1")), None] {
            comparison.compare(old, Some(&Node::Unreadable(b"f".to_vec()))).unwrap();
        }
        assert_eq!(comparison.report, DiffReport::default());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::default());
        let local = tempfile::tempdir().unwrap();
        let folder = local.path().join("no");
        let result =
            diff_tree_with_local(&tree, (&snapshot, b""), &folder, &EVERYTHING, &mut |_| (), &());
        assert!(matches!(result, Err(Error::Source { .. })));
    }

    fn any_folder() -> impl Strategy<Value = Folder> {
        let entry = ("[ab]0?(/[ab]0?){0,2}", 0..4u8, prop::collection::vec(0..2u8, 0..8), 1..3i64);
        let entry = entry.prop_map(|(path, kind, bytes, seconds)| {
            let entry = match kind {
                0 => directory(&path),
                1 => symlink(&path, if seconds == 1 { "x" } else { "y" }),
                _ => file(&path, &bytes),
            };
            at(entry, seconds)
        });
        prop::collection::vec(entry, 0..12).prop_map(Folder::of)
    }

    /// What a comparison of all entries by path says.
    fn expected_lines(old: &Folder, new: &Folder, metadata: bool) -> Vec<String> {
        type Both<'a> = (Option<&'a Entry>, Option<&'a Entry>);
        let mut paths: BTreeMap<Vec<&[u8]>, Both<'_>> = BTreeMap::new();
        for (path, entry) in &old.0 {
            paths.entry(path.split(|b| *b == b'/').collect()).or_default().0 = Some(entry);
        }
        for (path, entry) in &new.0 {
            paths.entry(path.split(|b| *b == b'/').collect()).or_default().1 = Some(entry);
        }
        let mut lines = Vec::new();
        for (path, (old, new)) in paths {
            let letter = match (old, new) {
                (Some(_), None) => '-',
                (None, _) => '+',
                (Some(old), Some(new)) => {
                    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
                        'T'
                    } else if old.kind != new.kind {
                        let is_file = matches!(old.kind, EntryKind::File { .. });
                        if is_file && size_of(old) == size_of(new) && old.mtime == new.mtime {
                            '?'
                        } else {
                            'M'
                        }
                    } else if metadata && old.mtime != new.mtime {
                        'U'
                    } else {
                        continue;
                    }
                }
            };
            let slash = if is_directory(new.or(old).unwrap()) { "/" } else { "" };
            lines
                .push(format!("{letter} /{}{slash}", String::from_utf8(path.join(&b'/')).unwrap()));
        }
        lines
    }

    fn count(folder: &Folder) -> (i128, i128) {
        (folder.0.len() as i128, folder.0.values().map(|entry| i128::from(size_of(entry))).sum())
    }

    proptest! {
        #[test]
        fn a_comparison_finds_exactly_what_differs(old in any_folder(), new in any_folder(), metadata: bool) {
            let mut tree = FakeTree::default();
            let (before, mut after) = (tree.snapshot(&old), tree.snapshot(&new));
            let options = DiffOptions { metadata, content: false };
            prop_assert_eq!(diff(&tree, (&before, ""), (&before, ""), &options), (vec![], DiffReport::default()));

            let (lines, report) = diff(&tree, (&before, ""), (&after, ""), &options);
            prop_assert_eq!(&lines, &expected_lines(&old, &new, metadata));
            after.config_generation += 1;
            prop_assert_eq!(&lines, &diff(&tree, (&before, ""), (&after, ""), &options).0);

            let ((entries_old, bytes_old), (entries_new, bytes_new)) = (count(&old), count(&new));
            let added = i128::from(report.added_files + report.added_directories);
            let removed = i128::from(report.removed_files + report.removed_directories);
            prop_assert_eq!(entries_old + added - removed, entries_new);
            prop_assert_eq!(bytes_old + i128::from(report.added_bytes) - i128::from(report.removed_bytes), bytes_new);
        }

        #[test]
        fn a_local_folder_differs_as_a_snapshot_of_it_would(old in any_folder(), new in any_folder()) {
            let mut tree = FakeTree::default();
            let before = tree.snapshot(&old);
            let local = tempfile::tempdir().unwrap();
            write_folder(local.path(), &new);
            let (lines, report, problems) = diff_with(&tree, (&before, ""), local.path(), &CONTENT_ONLY);
            // The local ctime is always another one.
            let expected: Vec<_> =
                expected_lines(&old, &new, false).iter().map(|line| line.replace('?', "M")).collect();
            prop_assert_eq!(lines, expected);
            prop_assert_eq!((report.problems, problems.len()), (0, 0));
        }
    }
}
