//! What a restore makes in a folder: files, links, special files, and where the bytes of a file go.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use putback_format::id::BlobId;
use putback_format::tree::Extent;

use crate::platform::{FileKind, Identity, Stat};
use crate::restore::folder::{Folder, Holder, guard};
use crate::restore::metadata::{Before, Metadata};

/// Existing files up to this size are replaced as a whole where they differ, so that the old content stays until
/// the new one is complete. Larger ones are changed in place.
pub(super) const IN_PLACE_BYTES_MIN: u64 = 4 << 20;

/// Anything but a directory. Counts as unfinished in its folder until it is settled one way or the other.
pub(super) struct Item {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    pub(super) metadata: Metadata,
    /// Its place in the walk.
    pub(super) ordinal: u64,
    pub(super) place: Place,
    pub(super) body: Body,
    /// Other names wait for this one.
    pub(super) leader: Option<Arc<Leader>>,
}

/// What has its name in the target.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Nothing.
    Free,
    /// Something that goes: replaced once the new one is complete.
    Replaced,
    /// An object of the same kind that may be right already.
    Compared(Stat),
    /// A regular file that counts as right.
    Trusted(Stat),
}

pub(super) enum Body {
    File(FileBody),
    Symlink(Box<[u8]>),
    Special { kind: FileKind, major: u32, minor: u32 },
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Method {
    /// Not decided: what is there has to be compared first.
    Undecided = 0,
    /// Under its own name, which nothing has.
    Create = 1,
    /// Under a temporary name, to be renamed.
    Temporary = 2,
    /// The existing file is kept and changed where it differs.
    InPlace = 3,
}

pub(super) struct FileBody {
    pub(super) size: u64,
    pub(super) layout: Layout,
    pub(super) holes: Box<[Extent]>,
    /// Its data, if that is not in chunks.
    pub(super) inline: Option<Box<[u8]>>,
    method: AtomicU8,
    /// All its data is one chunk that nothing else of the plan depends on: written at one go.
    is_single: AtomicBool,
    /// Pieces that are planned and not yet dealt with, and one more as long as it is being planned.
    left: AtomicU64,
    has_failed: AtomicBool,
    /// Its size or its holes are not right, or its metadata if it has other names; set when it is compared.
    is_frame_wrong: AtomicBool,
    /// The existing file is a program that runs, which the system lets nobody write to; set before it is compared.
    is_running: AtomicBool,
    /// Something of an existing file was changed.
    is_changed: AtomicBool,
    state: Mutex<FileState>,
    is_recent: AtomicBool,
}

/// A file that is being written.
#[derive(Default)]
pub(super) struct FileState {
    pub(super) file: Option<Arc<File>>,
    /// What it was when it was opened first.
    pub(super) identity: Option<Identity>,
    pub(super) temporary: Option<Vec<u8>>,
    /// Why it cannot be completed.
    pub(super) failure: Option<Failure>,
}

/// Why something could not be restored.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: putback_format::snapshot::IncidentKind,
    pub(super) message: String,
}

impl FileBody {
    pub(super) fn new(
        size: u64,
        holes: Vec<Extent>,
        inline: Option<Vec<u8>>,
        method: Method,
    ) -> Self {
        Self {
            size,
            layout: Layout::new(size, &holes),
            holes: holes.into(),
            inline: inline.map(Into::into),
            method: (method as u8).into(),
            is_single: false.into(),
            left: 1.into(),
            has_failed: false.into(),
            is_frame_wrong: false.into(),
            is_running: false.into(),
            is_changed: false.into(),
            state: Mutex::default(),
            is_recent: false.into(),
        }
    }

    /// Bytes outside holes.
    pub(super) fn data_bytes(&self) -> u64 {
        self.size - self.holes.iter().map(|hole| hole.length).sum::<u64>()
    }

    pub(super) fn method(&self) -> Method {
        match self.method.load(Ordering::Relaxed) {
            1 => Method::Create,
            2 => Method::Temporary,
            3 => Method::InPlace,
            _ => Method::Undecided,
        }
    }

    pub(super) fn set_method(&self, method: Method) {
        self.method.store(method as u8, Ordering::Relaxed);
    }

    pub(super) fn is_single(&self) -> bool {
        self.is_single.load(Ordering::Relaxed)
    }

    pub(super) fn set_single(&self) {
        self.is_single.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_frame_wrong(&self) -> bool {
        self.is_frame_wrong.load(Ordering::Relaxed)
    }

    pub(super) fn set_frame_wrong(&self) {
        self.is_frame_wrong.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_running(&self) {
        self.is_running.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::Relaxed)
    }

    pub(super) fn set_changed(&self) {
        self.is_changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn hold(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// True for the one who must finish the file.
    pub(super) fn let_go(&self, count: u64) -> bool {
        self.left.fetch_sub(count, Ordering::AcqRel) == count
    }

    /// Whether nothing is under way but planning.
    pub(super) fn is_idle(&self) -> bool {
        self.left.load(Ordering::Acquire) == 1
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Notes why it cannot be completed; the first reason counts.
    pub(super) fn fail(&self, failure: Failure) {
        guard(&self.state).failure.get_or_insert(failure);
        self.has_failed.store(true, Ordering::Release);
    }

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, FileState> {
        self.is_recent.store(true, Ordering::Relaxed);
        guard(&self.state)
    }
}

impl Item {
    pub(super) fn file(&self) -> Option<&FileBody> {
        match &self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    /// What events call its size.
    pub(super) fn bytes(&self) -> u64 {
        self.file().map_or(0, |file| file.size)
    }

    /// What events count as progress.
    pub(super) fn data_bytes(&self) -> u64 {
        self.file().map_or(0, FileBody::data_bytes)
    }

    /// Whether an existing file is replaced if it is to change: other names of it would change too, or it is a program
    /// that runs.
    pub(super) fn must_not_be_written(&self) -> bool {
        matches!(self.place, Place::Compared(stat) if stat.links > 1)
            || self.file().is_some_and(|file| file.is_running.load(Ordering::Relaxed))
    }

    /// Whether an existing file is changed in place if any of it is right: it may be, and it is worth it.
    pub(super) fn is_kept_if_part_is_right(&self) -> bool {
        !self.must_not_be_written() && self.bytes() > IN_PLACE_BYTES_MIN
    }

    /// How a new object in its folder stands.
    pub(super) fn before_as_new(&self) -> Before {
        Before::New { inherits_acl: self.folder.gives_acl }
    }
}

impl Holder for Item {
    fn take_recent(&self) -> bool {
        self.file().is_some_and(|file| file.is_recent.swap(false, Ordering::Relaxed))
    }

    fn close(&self) -> bool {
        self.file().is_some_and(|file| guard(&file.state).file.take().is_some())
    }
}

/// The first name of a file that has several.
pub(super) struct Leader {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    state: AtomicU8,
}

/// Whether others can be linked to the first name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaderState {
    Unfinished,
    Complete,
    Failed,
}

impl Leader {
    pub(super) fn new(folder: &Arc<Folder>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self { folder: Arc::clone(folder), name: name.into(), state: 0.into() })
    }

    pub(super) fn state(&self) -> LeaderState {
        match self.state.load(Ordering::Acquire) {
            0 => LeaderState::Unfinished,
            1 => LeaderState::Complete,
            _ => LeaderState::Failed,
        }
    }

    pub(super) fn settle(&self, is_complete: bool) {
        self.state.store(if is_complete { 1 } else { 2 }, Ordering::Release);
    }
}

/// A further name of a file.
pub(super) struct Link {
    pub(super) leader: Arc<Leader>,
    /// Folder, name, and metadata in case that it becomes a copy. Its body has no content.
    pub(super) item: Arc<Item>,
}

/// A file that is complete but for flags, after which it can get no other name.
pub(super) struct Unclosed {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    pub(super) identity: Identity,
    pub(super) flags: u64,
}

/// A chunk of a file, and where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) pack: putback_repo::PackNumber,
    pub(super) frame: u32,
    /// In the plain bytes of the frame.
    pub(super) offset: u32,
    pub(super) length: u32,
    /// The file, by number in its window.
    pub(super) item: u32,
    /// In the data of the file.
    pub(super) position: u64,
    pub(super) id: BlobId,
}

/// A run of bytes that an existing file may hold already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The file, by number in its window.
    pub(super) item: u32,
    pub(super) length: u32,
    /// In the data of the file.
    pub(super) position: u64,
    /// The chunk that should be there; none for inline data.
    pub(super) id: Option<BlobId>,
}

/// Where the data of a file lies in it: data is what is left when holes are taken out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Start in the data and start in the file of each run of data, ascending. Empty if there are no holes.
    runs: Box<[(u64, u64)]>,
}

impl Layout {
    pub(super) fn new(size: u64, holes: &[Extent]) -> Self {
        let mut runs = Vec::new();
        let (mut in_data, mut in_file) = (0, 0);
        for hole in holes {
            if hole.offset > in_file {
                runs.push((in_data, in_file));
                in_data += hole.offset - in_file;
            }
            in_file = hole.offset + hole.length;
        }
        if size > in_file && !holes.is_empty() {
            runs.push((in_data, in_file));
        }
        Self { runs: runs.into() }
    }

    /// Calls `each` with the offset in the file and the part of the bytes for every stretch of the `length` bytes
    /// of data from `position` on.
    pub(super) fn for_each<E>(
        &self,
        position: u64,
        length: usize,
        mut each: impl FnMut(u64, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut run = self.runs.partition_point(|(in_data, _)| *in_data <= position);
        let (mut done, mut position) = (0, position);
        while done < length {
            let left = (length - done) as u64;
            let (count, in_file) = match run.checked_sub(1).and_then(|run| self.runs.get(run)) {
                None => (left, position),
                Some((in_data, in_file)) => {
                    let until = self.runs.get(run).map_or(u64::MAX, |(in_data, _)| *in_data);
                    (left.min(until - position), in_file + (position - in_data))
                }
            };
            each(in_file, done..done + count as usize)?;
            done += count as usize;
            position += count;
            run += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn data_goes_around_holes() {
        let check = |size, holes: &[Extent], position, length, expected: &[(u64, Range<usize>)]| {
            let mut places = Vec::new();
            Layout::new(size, holes)
                .for_each(position, length, |offset, range| {
                    places.push((offset, range));
                    Ok::<(), ()>(())
                })
                .expect("never fails");
            assert_eq!(places, expected, "{size} {holes:?} {position} {length}");
        };
        check(10, &[], 3, 4, &[(3, 0..4)]);
        check(10, &[], 3, 0, &[]);
        let holes = [extent(0, 100), extent(150, 50), extent(250, 750)];
        check(1000, &holes, 0, 100, &[(100, 0..50), (200, 50..100)]);
        check(1000, &holes, 10, 20, &[(110, 0..20)]);
        check(1000, &holes, 50, 1, &[(200, 0..1)]);
        check(1000, &holes, 49, 2, &[(149, 0..1), (200, 1..2)]);
        check(200, &[extent(50, 100)], 0, 100, &[(0, 0..50), (150, 50..100)]);
        check(200, &[extent(50, 100)], 99, 1, &[(199, 0..1)]);
        check(100, &[extent(0, 100)], 0, 0, &[]);
    }

    #[test]
    fn exactly_one_finishes_a_file() {
        let file = FileBody::new(10, Vec::new(), None, Method::Create);
        file.hold();
        file.hold();
        assert!(!file.let_go(1));
        assert!(file.let_go(2));
    }
}
