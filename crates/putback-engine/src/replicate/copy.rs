//! Copying one tree from repository to repository.
//!
//! The walk decides; files whose chunks have to be read wait in a batch, so that their chunks are read pack by pack,
//! and then go through [`Assembly`], which makes pages of entries that are done in any order.
//!
//! Memory: the chunks of one batch or of one part of a long file ([`BATCH_BYTES`]), the entries of a batch, four
//! chunks of the target, what `assembly.rs` says, and [`CONTENTS_MAX`] contents of files that were copied.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_format::list::ListBuilder;
use putback_format::snapshot::IncidentKind;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};
use putback_repo::{
    Amount, Backup, Cancel, Directory, Event, FrameWriter, Observer, Phase, Repository,
};

use super::Trouble;
use super::compare::Compared;
use crate::Error;
use crate::backup::Incidents;
use crate::backup::assembly::{Assembly, Node, Place, join};
use crate::backup::contents::{ChunkReader, Failure};
use crate::backup::parent::ParentDirectory;
use crate::memo::{DirectoryKey, SubtreeMemo};
use crate::tree_source::Chunks;

/// Plain bytes that are read at once.
const BATCH_BYTES: u64 = 16 << 20;
/// Files that wait for their chunks at most.
const BATCH_FILES: usize = 4096;
/// Contents that are remembered.
const CONTENTS_MAX: usize = 20_000;
/// A content of more references is not remembered.
const CONTENT_REFS_MAX: usize = 64;

/// A tree that was copied before, and its copy.
#[derive(Clone, Copy)]
pub(super) struct Parent<'a> {
    pub(super) own: &'a Entry,
    pub(super) copy: &'a Entry,
}

/// How trees are copied.
pub(super) struct CopyOptions<'a> {
    /// Chunks have the same ids and limits in both.
    pub(super) is_like: bool,
    pub(super) cancel: &'a Cancel,
}

/// Copies trees; keeps what helps with the next one.
pub(super) struct Copier<'a> {
    source: &'a Repository,
    target: &'a Repository,
    backup: &'a Backup,
    options: CopyOptions<'a>,
    observer: &'a dyn Observer,
    /// Lent to the file in hand.
    cutter: Option<ChunkReader<'a>>,
    /// Contents that were copied, by the chunks that they have in the source. All of it is needed by this run.
    contents: SubtreeMemo<(DirectoryKey, u8), Content>,
    /// Chunks that were read for the files in hand.
    loaded: HashMap<BlobId, Arc<Vec<u8>>>,
    loaded_bytes: u64,
    bytes_read: u64,
}

/// A file whose chunks are to be read.
struct Job {
    place: Place,
    entry: Entry,
    path: Vec<u8>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a Repository,
        target: &'a Repository,
        backup: &'a Backup,
        options: CopyOptions<'a>,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            source,
            target,
            backup,
            cutter: None,
            options,
            observer,
            contents: SubtreeMemo::new(CONTENTS_MAX),
            loaded: HashMap::new(),
            loaded_bytes: 0,
            bytes_read: 0,
        }
    }

    /// Bytes of files that were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Copies everything below a root, and yields the root of the copy. What was put is handed over, also after a failure.
    pub(super) fn copy_tree(
        &mut self,
        root: &Entry,
        parent: Option<Parent<'_>>,
        compared: &mut Compared<'a>,
    ) -> Result<Entry, Trouble> {
        let incidents = Incidents::new(self.observer);
        let assembly = Assembly::new(self.backup.frame_writer(BlobKind::Tree), &incidents);
        let data = self.backup.frame_writer(BlobKind::Data);
        let mut walk = Walk {
            copier: self,
            assembly: &assembly,
            data,
            compared,
            batch: Vec::new(),
            batch_bytes: 0,
            stack: Vec::new(),
        };
        let result = walk.run(root, parent);
        walk.data.flush()?;
        drop(walk);
        assembly.flush()?;
        result?;
        Ok(assembly.root().ok_or(putback_repo::Error::WorkerFailed)?)
    }

    fn told(&mut self, bytes: u64) {
        self.bytes_read += bytes;
        let by = Amount { items: 0, bytes };
        self.observer.event(Event::Advanced { phase: Phase::Replicate, by });
    }

    /// Which of these chunks have to be read.
    fn needed(&self, chunks: &[ChunkRef]) -> Result<Vec<BlobId>, Trouble> {
        let mut needed = Vec::new();
        for chunk in chunks {
            if !(self.options.is_like && self.backup.require(&chunk.id)?) {
                needed.push(chunk.id);
            }
        }
        Ok(needed)
    }

    /// Makes sure that these chunks are in memory.
    fn load(&mut self, ids: &[BlobId]) -> Result<(), Trouble> {
        if ids.iter().all(|id| self.loaded.contains_key(id)) {
            return Ok(());
        }
        if self.loaded_bytes >= BATCH_BYTES {
            self.unload();
        }
        let Self { source, loaded, loaded_bytes, .. } = self;
        let missing: Vec<BlobId> =
            ids.iter().filter(|id| !loaded.contains_key(*id)).copied().collect();
        source
            .read_blobs(BlobKind::Data, &missing, &mut |id, plain| {
                *loaded_bytes += plain.len() as u64;
                loaded.insert(id, Arc::new(plain.to_vec()));
                Ok(())
            })
            .map_err(Trouble::of_source)
    }

    fn unload(&mut self) {
        self.loaded.clear();
        self.loaded_bytes = 0;
    }

    /// A chunk that was loaded.
    fn chunk(&self, chunk: &ChunkRef) -> Result<Arc<Vec<u8>>, Trouble> {
        let plain = self.loaded.get(&chunk.id).filter(|plain| plain.len() as u64 == chunk.length);
        plain.map(Arc::clone).ok_or_else(|| Trouble::Snapshot(contradiction(&chunk.id)))
    }

    /// Stores the content of a file in the target.
    fn copy_content(
        &mut self,
        content: &Content,
        data: &mut FrameWriter,
        assembly: &Assembly<'_>,
    ) -> Result<Content, Trouble> {
        let source = self.source;
        let mut chunks = Chunks::new(source, content);
        if self.options.is_like {
            return self.copy_chunks(&mut chunks, data, assembly);
        }
        let cutter = self.cutter.take();
        let mut cutter =
            cutter.unwrap_or_else(|| ChunkReader::new(self.target, self.options.cancel));
        let mut bytes = FileBytes {
            copier: self,
            chunks,
            window: VecDeque::new(),
            chunk: Arc::default(),
            used: 0,
            trouble: None,
        };
        let read = cutter.read_all(&mut bytes, data, assembly, &|_| {});
        let trouble = bytes.trouble.take();
        self.cutter = Some(cutter);
        match read {
            Ok((content, _)) => Ok(content),
            Err(Failure::Cancelled) => Err(Trouble::Cancelled),
            Err(Failure::Fatal(error)) => Err(error.into()),
            Err(Failure::Read(source)) => Err(trouble.unwrap_or_else(|| {
                Trouble::Fatal(Error::Source { path: "a chunk".to_owned(), source })
            })),
        }
    }

    /// The same chunks, those that the target lacks being stored there.
    fn copy_chunks(
        &mut self,
        chunks: &mut Chunks<'_>,
        data: &mut FrameWriter,
        assembly: &Assembly<'_>,
    ) -> Result<Content, Trouble> {
        let mut list = ListBuilder::new();
        loop {
            let window = next_window(chunks)?;
            if window.is_empty() {
                break;
            }
            if self.options.cancel.is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            let needed = self.needed(&window)?;
            self.load(&needed)?;
            for chunk in window {
                if !self.backup.require(&chunk.id)? {
                    data.put(&self.chunk(&chunk)?)?;
                    self.told(chunk.length);
                }
                list.push(chunk, &mut |page| assembly.put(page))?;
            }
        }
        Ok(list.finish(&mut |page| assembly.put(page))?)
    }
}

/// The next chunks of a file, as many as are read at once; none at its end.
fn next_window(chunks: &mut Chunks<'_>) -> Result<Vec<ChunkRef>, Trouble> {
    let (mut window, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        let Some(chunk) = chunks.next().map_err(Trouble::of_source)? else { break };
        bytes += chunk.length.max(1);
        window.push(chunk);
    }
    Ok(window)
}

/// The bytes of a file outside its holes.
struct FileBytes<'c, 'a> {
    copier: &'c mut Copier<'a>,
    chunks: Chunks<'a>,
    window: VecDeque<ChunkRef>,
    chunk: Arc<Vec<u8>>,
    used: usize,
    trouble: Option<Trouble>,
}

impl FileBytes<'_, '_> {
    fn next_chunk(&mut self) -> Result<bool, Trouble> {
        if self.window.is_empty() {
            self.window = next_window(&mut self.chunks)?.into();
            let needed = self.copier.needed(self.window.make_contiguous())?;
            self.copier.load(&needed)?;
        }
        let Some(chunk) = self.window.pop_front() else { return Ok(false) };
        self.chunk = self.copier.chunk(&chunk)?;
        self.used = 0;
        self.copier.told(chunk.length);
        Ok(true)
    }
}

impl Read for FileBytes<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.chunk.len() {
            match self.next_chunk() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(trouble) => {
                    self.trouble = Some(trouble);
                    return Err(io::Error::other("the source cannot be read"));
                }
            }
        }
        let rest = &self.chunk[self.used..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(count)
    }
}

fn contradiction(chunk: &BlobId) -> Error {
    Error::Repository(putback_repo::Error::Damaged {
        object: format!("the file that holds chunk {}", chunk.short()),
        source: Some(putback_format::Error::Invalid {
            what: "a file",
            why: "its chunks do not have the lengths that it says",
        }),
    })
}

/// A walk through the tree of one snapshot.
struct Walk<'c, 'a, 'w> {
    copier: &'c mut Copier<'a>,
    assembly: &'w Assembly<'w>,
    data: FrameWriter,
    compared: &'w mut Compared<'a>,
    batch: Vec<Job>,
    batch_bytes: u64,
    stack: Vec<Open>,
}

/// A directory of the open path.
struct Open {
    node: Arc<Node>,
    path: Vec<u8>,
    entries: Directory,
    parent: ParentDirectory,
}

impl Drop for Walk<'_, '_, '_> {
    fn drop(&mut self) {
        // From below: a directory holds those above it, and a hostile tree is deeper than any stack.
        self.batch.clear();
        while self.stack.pop().is_some() {}
    }
}

impl Walk<'_, '_, '_> {
    fn run(&mut self, root: &Entry, parent: Option<Parent<'_>>) -> Result<(), Trouble> {
        let parent = match parent {
            Some(parent) => self.pair(parent.own, parent.copy),
            None => ParentDirectory::default(),
        };
        self.enter(Vec::new(), root.clone(), None, parent)?;
        while let Some(open) = self.stack.last_mut() {
            if self.copier.options.cancel.is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            match open.entries.next() {
                Some(entry) => self.entry(entry.map_err(Trouble::of_source)?)?,
                None => {
                    if let Some(open) = self.stack.pop() {
                        self.assembly.leave(&open.node)?;
                    }
                }
            }
        }
        self.copy_batch()
    }

    fn pair(&self, own: &Entry, copy: &Entry) -> ParentDirectory {
        ParentDirectory::pair((self.copier.source, own), (self.copier.target, copy))
    }

    fn enter(
        &mut self,
        path: Vec<u8>,
        entry: Entry,
        place: Option<Place>,
        parent: ParentDirectory,
    ) -> Result<(), Trouble> {
        let entries = self.copier.source.read_directory(&entry).map_err(Trouble::of_source)?;
        let node = self.assembly.enter(path.clone(), entry, place);
        self.stack.push(Open { node, path, entries, parent });
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry) -> Result<(), Trouble> {
        let Some(open) = self.stack.last_mut() else { return Ok(()) };
        let place = open.node.reserve();
        let known = open.parent.take(&entry.name, self.copier.backup)?;
        let known = match known.as_slice() {
            [own, copy] => Some((own, copy)),
            _ => None,
        };
        if let Some((own, copy)) = known
            && own.kind == entry.kind
        {
            self.compared.note_same(own, copy);
            entry.kind = copy.kind.clone();
            return Ok(self.assembly.complete(place, Some(entry))?);
        }
        match &entry.kind {
            EntryKind::Directory { .. } => {
                let path = join(&open.path, &entry.name);
                let parent = match known {
                    Some((own, copy)) if own.is_directory() && copy.is_directory() => {
                        self.pair(own, copy)
                    }
                    _ => ParentDirectory::default(),
                };
                self.enter(path, entry, Some(place), parent)
            }
            EntryKind::File {
                content: Content::Chunks(_) | Content::Lists { .. }, size, ..
            } => {
                let path = join(&open.path, &entry.name);
                let bytes = *size;
                if self.batch_bytes + bytes > BATCH_BYTES {
                    self.copy_batch()?;
                }
                self.batch_bytes += bytes;
                self.batch.push(Job { place, entry, path });
                if self.batch.len() == BATCH_FILES { self.copy_batch() } else { Ok(()) }
            }
            _ => Ok(self.assembly.complete(place, Some(entry))?),
        }
    }

    /// Copies the files that wait.
    fn copy_batch(&mut self) -> Result<(), Trouble> {
        let jobs = std::mem::take(&mut self.batch);
        if std::mem::take(&mut self.batch_bytes) <= BATCH_BYTES {
            match self.load_batch(&jobs) {
                // Reading them one by one tells which file it is.
                Ok(()) | Err(Trouble::Snapshot(_)) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        for Job { place, mut entry, path } in jobs {
            let copier = &mut *self.copier;
            copier.observer.event(Event::FileStarted { path: &path });
            let size = entry.kind.file_size().unwrap_or_default();
            if let EntryKind::File { content, .. } = &mut entry.kind {
                let key = content_key(content);
                if let Some(known) = copier.contents.get(&key) {
                    *content = known.clone();
                } else {
                    let new = copier.copy_content(content, &mut self.data, self.assembly);
                    if let Err(Trouble::Snapshot(error)) = &new {
                        let message = error.to_string();
                        let kind = IncidentKind::Lost;
                        copier.observer.event(Event::Problem {
                            path: &path,
                            kind,
                            message: &message,
                        });
                    }
                    *content = new?;
                    if references(content).len() <= CONTENT_REFS_MAX {
                        copier.contents.insert(key, size, content.clone());
                    }
                }
            }
            self.assembly.complete(place, Some(entry))?;
        }
        Ok(())
    }

    fn load_batch(&mut self, jobs: &[Job]) -> Result<(), Trouble> {
        self.copier.unload();
        let mut ids = Vec::new();
        for job in jobs {
            if let EntryKind::File { content: content @ Content::Chunks(chunks), .. } =
                &job.entry.kind
                && self.copier.contents.get(&content_key(content)).is_none()
            {
                ids.extend(self.copier.needed(chunks)?);
            }
        }
        self.copier.load(&ids)
    }
}

/// What the entry of a file refers to.
fn references(content: &Content) -> &[ChunkRef] {
    match content {
        Content::Inline(_) => &[],
        Content::Chunks(refs) | Content::Lists { pages: refs, .. } => refs,
    }
}

/// Names the bytes of a file by what its entry refers to in the source.
fn content_key(content: &Content) -> (DirectoryKey, u8) {
    let depth = match content {
        Content::Lists { depth, .. } => *depth,
        _ => 0,
    };
    let ids: Vec<BlobId> = references(content).iter().map(|one| one.id).collect();
    (DirectoryKey::new(&ids), depth)
}
