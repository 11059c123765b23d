//! Sealed frames of tree packs that this machine wrote or read before.
//!
//! Where a request costs a round trip, the trees of the last snapshot should be at hand: a backup compares with
//! them, listings walk through them. Each pack has a file of its own, with its frames where the pack has
//! them and holes where none was read yet. Nothing says which are there: a frame counts when it opens, and
//! a hole does not. Everything may be deleted at any moment.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use putback_format::id::PackId;
use putback_store::at::{read_exact_at, write_all_at};

use crate::local::create_private_directories;

/// Bytes of files, holes counted, beyond which the oldest go.
const CACHE_BYTES: u64 = 2 << 30;
/// How much a run writes before it looks again whether there is too much.
const TRIM_BYTES: u64 = 256 << 20;

/// The folder; without one nothing is kept.
pub(crate) struct TreeCache {
    directory: Option<PathBuf>,
    bytes_max: u64,
    trim_bytes: u64,
    /// Bytes written since it was trimmed last; before the first time, enough for that.
    written: AtomicU64,
}

impl TreeCache {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self::with_limits(directory, CACHE_BYTES, TRIM_BYTES)
    }

    fn with_limits(directory: Option<PathBuf>, bytes_max: u64, trim_bytes: u64) -> Self {
        Self { directory, bytes_max, trim_bytes, written: trim_bytes.into() }
    }

    /// Another view of the same folder.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.directory.clone())
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.directory.is_some()
    }

    fn place(&self, pack: &PackId) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(pack.to_string()))
    }

    /// Reads what may be a frame; false if it is certain to be none.
    pub(crate) fn read(&self, pack: &PackId, range: Range<u64>, buffer: &mut Vec<u8>) -> bool {
        let Some(place) = self.place(pack) else { return false };
        let Ok(file) = std::fs::File::open(place) else { return false };
        let Ok(length) = usize::try_from(range.end - range.start) else { return false };
        buffer.clear();
        buffer.resize(length, 0);
        // A sealed frame begins with its ciphertext: zeros at both ends are a hole.
        read_exact_at(&file, buffer, range.start).is_ok()
            && !(buffer.starts_with(&[0; 16]) && buffer.ends_with(&[0; 16]))
    }

    /// Keeps bytes of a pack. What cannot be kept is read again, so failures are not told.
    pub(crate) fn write(&self, pack: &PackId, offset: u64, bytes: &[u8]) {
        let Some(place) = self.place(pack) else { return };
        let _ = self.prepare().and_then(|()| {
            self.note_written(bytes.len());
            let mut options = std::fs::OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(place)?;
            write_all_at(&file, bytes, offset)
        });
    }

    /// Begins a pack whose id is not known yet.
    pub(crate) fn begin(&self) -> Option<NewPack> {
        let directory = self.directory.as_ref()?;
        self.prepare().ok()?;
        let file = tempfile::NamedTempFile::with_prefix_in("new.", directory).ok()?;
        Some(NewPack { file, length: 0 })
    }

    /// Makes the folder. At first, and whenever much was written, removes what was not used for longest if there is
    /// too much.
    fn prepare(&self) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        create_private_directories(directory)?;
        // One of several threads takes it upon itself.
        let take = |written| (written >= self.trim_bytes).then_some(0);
        match self.written.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => trim(directory, self.bytes_max),
            Err(_) => Ok(()),
        }
    }

    fn note_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A pack that is being written.
pub(crate) struct NewPack {
    file: tempfile::NamedTempFile,
    length: usize,
}

impl NewPack {
    /// Adds the next bytes; false if that is not possible, and the pack is to be given up.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        self.length += bytes.len();
        self.file.write_all(bytes).is_ok()
    }

    /// Gives it its name.
    pub(crate) fn keep(self, cache: &TreeCache, pack: &PackId) {
        if let Some(place) = cache.place(pack) {
            cache.note_written(self.length);
            // Losing it costs a download.
            let _ = self.file.persist(place);
        }
    }
}

/// Removes the files that were changed least lately until the rest has at most `bytes_max` bytes.
fn trim(directory: &Path, bytes_max: u64) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = fs_err::read_dir(directory)?
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in files {
        if bytes <= bytes_max {
            break;
        }
        match fs_err::remove_file(path) {
            // Another process has done so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        bytes -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_hole_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TreeCache::new(Some(folder.path().join("trees")));
        let pack = PackId::from_bytes([7; 32]);
        let mut buffer = Vec::new();
        assert!(!cache.read(&pack, 0..64, &mut buffer));
        cache.write(&pack, 1000, &[5; 64]);
        assert!(cache.read(&pack, 1000..1064, &mut buffer));
        assert_eq!(buffer, [5; 64]);
        assert!(!cache.read(&pack, 0..64, &mut buffer), "a hole");
        assert!(!cache.read(&pack, 1040..1100, &mut buffer), "beyond the end");

        let other = PackId::from_bytes([8; 32]);
        let mut new = cache.begin().unwrap();
        assert!(new.append(b"abc") && new.append(b"def"));
        new.keep(&cache, &other);
        assert!(cache.read(&other, 1..5, &mut buffer));
        assert_eq!(buffer, b"bcde");
    }

    #[test]
    fn a_single_run_does_not_grow_it_beyond_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("trees");
        let cache = TreeCache::with_limits(Some(directory.clone()), 1000, 300);
        for number in 0..100 {
            let pack = PackId::from_bytes([number; 32]);
            match number % 2 {
                0 => cache.write(&pack, 0, &[5; 100]),
                _ => {
                    let mut new = cache.begin().unwrap();
                    assert!(new.append(&[5; 100]));
                    new.keep(&cache, &pack);
                }
            }
            assert!(cache.read(&pack, 0..100, &mut Vec::new()), "the last one stays");
            let files = fs_err::read_dir(&directory).unwrap().flatten();
            let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
            assert!(bytes <= 1000 + 300 + 100, "{bytes} after {number}");
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        for (number, name) in ["c", "a", "b"].into_iter().enumerate() {
            let path = folder.path().join(name);
            fs_err::write(&path, [0; 10]).unwrap();
            let age = std::time::Duration::from_secs(100 - 10 * number as u64);
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000) - age;
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        trim(folder.path(), 20).unwrap();
        let mut names: Vec<_> =
            fs_err::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }
}
