//! The bytes of files and unfinished uploads: in memory, or one file each in a directory.
//!
//! A blob grows at its end alone. Several rows may share one; its bytes go with the last of them.
//! In a directory each appended byte is in the file when [`Blob::append`] returns, and so outlives
//! the process, though not a power failure: nothing is synced.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use bytes::Bytes;

use crate::error::Error;
use crate::{lock, read, write};

/// Bytes in memory are kept in pieces of this size, so that growing copies nothing.
const PIECE_BYTES: usize = 256 << 10;

/// Where blobs are.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: Option<PathBuf>,
    next: AtomicU64,
    /// What is dropped now stays on disk: while an earlier process's journal is read, and when the
    /// emulator ends.
    keeps_dropped: AtomicBool,
    /// Blobs that were opened by id, so that rows go on sharing them.
    opened: Mutex<HashMap<u64, Weak<Blob>>>,
}

/// Some bytes.
#[derive(Debug)]
pub(crate) struct Blob {
    id: u64,
    home: Arc<Blobs>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(RwLock<Pieces>),
    File { path: PathBuf, end: Mutex<End> },
}

#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Vec<u8>>,
    length: u64,
}

/// Where a file grows. The handle is opened with the first append, since most files are finished.
#[derive(Debug)]
struct End {
    file: Option<fs_err::File>,
    length: u64,
}

impl Blobs {
    pub(crate) fn memory() -> Arc<Self> {
        Arc::new(Self {
            folder: None,
            next: AtomicU64::new(1),
            keeps_dropped: AtomicBool::new(false),
            opened: Mutex::default(),
        })
    }

    /// Blobs in `folder`, which is made where it is missing.
    pub(crate) fn directory(folder: &Path) -> Result<Arc<Self>, Error> {
        fs_err::create_dir_all(folder)
            .map_err(|source| Error::Storage { path: folder.to_owned(), source })?;
        Ok(Arc::new(Self {
            folder: Some(folder.to_owned()),
            next: AtomicU64::new(1),
            keeps_dropped: AtomicBool::new(false),
            opened: Mutex::default(),
        }))
    }

    /// Whether dropping a blob leaves its bytes on disk from now on.
    pub(crate) fn keep_dropped(&self, keep: bool) {
        self.keeps_dropped.store(keep, Ordering::SeqCst);
    }

    /// A blob of no bytes that takes no place on disk.
    pub(crate) fn nothing(self: &Arc<Self>) -> Arc<Blob> {
        let content = Content::Memory(RwLock::default());
        Arc::new(Blob { id: 0, home: Arc::clone(self), content })
    }

    /// An empty blob.
    pub(crate) fn create(self: &Arc<Self>) -> std::io::Result<Arc<Blob>> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let content = match &self.folder {
            None => Content::Memory(RwLock::default()),
            Some(folder) => {
                let path = folder.join(id.to_string());
                let file = fs_err::File::create(&path)?;
                Content::File { path, end: Mutex::new(End { file: Some(file), length: 0 }) }
            }
        };
        Ok(Arc::new(Blob { id, home: Arc::clone(self), content }))
    }

    /// The blob that an earlier process left under this id.
    pub(crate) fn open(self: &Arc<Self>, id: u64) -> std::io::Result<Arc<Blob>> {
        let Some(folder) = &self.folder else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        if let Some(blob) = lock(&self.opened).get(&id).and_then(Weak::upgrade) {
            return Ok(blob);
        }
        let path = folder.join(id.to_string());
        let length = fs_err::metadata(&path)?.len();
        self.next.fetch_max(id + 1, Ordering::SeqCst);
        let content = Content::File { path, end: Mutex::new(End { file: None, length }) };
        let blob = Arc::new(Blob { id, home: Arc::clone(self), content });
        lock(&self.opened).insert(id, Arc::downgrade(&blob));
        Ok(blob)
    }

    /// Removes what an earlier process left and `is_used` does not know.
    pub(crate) fn sweep(&self, is_used: impl Fn(u64) -> bool) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for item in fs_err::read_dir(folder)? {
            let item = item?;
            let name = item.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else {
                continue;
            };
            self.next.fetch_max(id + 1, Ordering::SeqCst);
            if !is_used(id) {
                fs_err::remove_file(item.path())?;
            }
        }
        Ok(())
    }
}

impl Blob {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is one of [`Blobs::nothing`].
    pub(crate) fn is_nothing(&self) -> bool {
        self.id == 0
    }

    pub(crate) fn length(&self) -> u64 {
        match &self.content {
            Content::Memory(pieces) => read(pieces).length,
            Content::File { end, .. } => lock(end).length,
        }
    }

    /// Appends bytes.
    pub(crate) fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        match &self.content {
            Content::Memory(pieces) => {
                write(pieces).append(bytes);
                Ok(())
            }
            Content::File { path, end } => {
                let mut end = lock(end);
                let length = end.length;
                let file = match &mut end.file {
                    Some(file) => file,
                    empty => {
                        let mut file = fs_err::OpenOptions::new().write(true).open(path)?;
                        file.seek(SeekFrom::Start(length))?;
                        empty.insert(file)
                    }
                };
                file.write_all(bytes)?;
                end.length += bytes.len() as u64;
                Ok(())
            }
        }
    }

    /// Frees the handle of a blob that will not grow any more.
    pub(crate) fn finish(&self) {
        if let Content::File { end, .. } = &self.content {
            lock(end).file = None;
        }
    }

    /// At most `length` bytes from `offset`; fewer at the end.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        match &self.content {
            Content::Memory(pieces) => Ok(read(pieces).read_at(offset, length).into()),
            Content::File { path, end } => {
                let left = lock(end).length.saturating_sub(offset);
                let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
                let mut file = fs_err::File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut bytes = vec![0; length];
                file.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// Cuts the blob to `length` bytes, if it is longer.
    pub(crate) fn truncate(&self, length: u64) -> std::io::Result<()> {
        match &self.content {
            Content::Memory(pieces) => {
                write(pieces).truncate(length);
                Ok(())
            }
            Content::File { path, end } => {
                let mut end = lock(end);
                if length < end.length {
                    end.file = None;
                    fs_err::OpenOptions::new().write(true).open(path)?.set_len(length)?;
                    end.length = length;
                }
                Ok(())
            }
        }
    }

    /// All bytes, in pieces, handed to `take`.
    pub(crate) fn each_piece(&self, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
        let mut offset = 0;
        loop {
            let piece = self.read_at(offset, PIECE_BYTES)?;
            if piece.is_empty() {
                return Ok(());
            }
            take(&piece);
            offset += piece.len() as u64;
        }
    }

    /// CRC-32 (IEEE) of all bytes, ready to go on with more.
    pub(crate) fn checksum(&self) -> std::io::Result<crc32fast::Hasher> {
        let mut hasher = crc32fast::Hasher::new();
        self.each_piece(|piece| hasher.update(piece))?;
        Ok(hasher)
    }

    /// Another blob with the same bytes, except that the one at `offset` is changed, if there is one.
    pub(crate) fn damaged_copy(&self, offset: u64) -> std::io::Result<Arc<Self>> {
        let copy = self.home.create()?;
        let mut at = 0_u64;
        let mut result = Ok(());
        self.each_piece(|piece| {
            let mut piece = piece.to_vec();
            let inside = offset.checked_sub(at).and_then(|inside| usize::try_from(inside).ok());
            if let Some(byte) = inside.and_then(|inside| piece.get_mut(inside)) {
                *byte ^= 0x01;
            }
            at += piece.len() as u64;
            if result.is_ok() {
                result = copy.append(&piece);
            }
        })?;
        result?;
        copy.finish();
        Ok(copy)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Content::File { path, .. } = &self.content
            && !self.home.keeps_dropped.load(Ordering::SeqCst)
        {
            // What cannot be removed now is swept at the next start.
            let _ = fs_err::remove_file(path);
        }
    }
}

impl Pieces {
    fn append(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let last = match self.pieces.last_mut() {
                Some(last) if last.len() < PIECE_BYTES => last,
                _ => {
                    self.pieces.push(Vec::new());
                    continue;
                }
            };
            let room = PIECE_BYTES - last.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    fn read_at(&self, offset: u64, length: usize) -> Vec<u8> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(left));
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        while bytes.len() < length {
            let piece = self.pieces.get(at / PIECE_BYTES).and_then(|p| p.get(at % PIECE_BYTES..));
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else { break };
            let piece = &piece[..piece.len().min(length - bytes.len())];
            bytes.extend_from_slice(piece);
            at += piece.len();
        }
        bytes
    }

    fn truncate(&mut self, length: u64) {
        if length >= self.length {
            return;
        }
        let at = usize::try_from(length).unwrap_or(usize::MAX);
        self.pieces.truncate(at.div_ceil(PIECE_BYTES));
        if let Some(last) = self.pieces.last_mut()
            && !at.is_multiple_of(PIECE_BYTES)
        {
            last.truncate(at % PIECE_BYTES);
        }
        self.length = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blobs: &Arc<Blobs>) {
        let blob = blobs.create().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
        for piece in bytes.chunks(100_001) {
            blob.append(piece).unwrap();
        }
        assert_eq!(blob.length(), 700_000);
        assert_eq!(blob.read_at(250_000, 300_000).unwrap(), bytes[250_000..550_000]);
        assert_eq!(blob.read_at(699_990, 100).unwrap(), bytes[699_990..]);
        assert!(blob.read_at(700_000, 1).unwrap().is_empty());
        assert_eq!(blob.checksum().unwrap().finalize(), crc32fast::hash(&bytes));

        let damaged = blob.damaged_copy(300_000).unwrap();
        let (before, after) = (blob.read_at(300_000, 1).unwrap(), damaged.read_at(300_000, 1));
        assert_ne!(before, after.unwrap());
        assert_eq!(damaged.length(), 700_000);

        for length in [524_288, 524_287, 1, 0] {
            blob.truncate(length).unwrap();
            blob.truncate(length + 1).unwrap();
            assert_eq!(blob.length(), length);
        }
        blob.append(b"anew").unwrap();
        assert_eq!(blob.read_at(0, 10).unwrap(), "anew");
    }

    #[test]
    fn blobs_in_memory_grow_shrink_and_are_read_anywhere() {
        check(&Blobs::memory());
    }

    #[test]
    fn blobs_on_disk_grow_shrink_are_read_anywhere_and_go_with_their_last_user() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::directory(folder.path()).unwrap();
        check(&blobs);
        let count = || fs_err::read_dir(folder.path()).unwrap().count();
        assert_eq!(count(), 0);

        let kept = blobs.create().unwrap();
        kept.append(b"kept").unwrap();
        let id = kept.id();
        blobs.keep_dropped(true);
        drop(kept);
        assert_eq!(count(), 1);

        let blobs = Blobs::directory(folder.path()).unwrap();
        let kept = blobs.open(id).unwrap();
        kept.append(b" on").unwrap();
        assert_eq!(kept.read_at(0, 100).unwrap(), "kept on");
        assert_ne!(blobs.create().unwrap().id(), id);
        blobs.sweep(|_| false).unwrap();
        assert_eq!(count(), 0);
    }
}
