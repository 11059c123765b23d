//! Directories of the target: their handles, and when their metadata is due.
//!
//! A [`Folder`] counts what is unfinished in it. Whoever finishes the last of it sets the folder's metadata, then
//! counts down in the folder above: so times are set after everything else, and nothing is kept for longer.
//! Handles are opened when somebody needs them and given back when too many are open; a path is resolved below
//! the target, and no link in it is followed.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::platform::TargetDirectory;
use crate::restore::metadata::{Before, Metadata};

/// A lock that a panic elsewhere does not spoil: what it guards is whole between any two statements.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something whose handle can be given back and opened again.
pub(super) trait Holder {
    /// Whether it was used since this was asked last.
    fn take_recent(&self) -> bool;
    /// Gives its handle back; false if there was none.
    fn close(&self) -> bool;
}

/// Bounds how many handles are open: those that were not used lately go first.
pub(super) struct OpenHandles<H> {
    queue: Mutex<VecDeque<Arc<H>>>,
    open_max: usize,
}

impl<H: Holder> OpenHandles<H> {
    pub(super) fn new(open_max: usize) -> Self {
        Self { queue: Mutex::default(), open_max }
    }

    /// Notes that `holder` was opened. Nobody may hold the lock of any holder's handle.
    pub(super) fn note(&self, holder: &Arc<H>) {
        let mut queue = guard(&self.queue);
        queue.push_back(Arc::clone(holder));
        // Each holder is passed over once at most.
        for _ in 0..queue.len() {
            if queue.len() <= self.open_max {
                break;
            }
            let Some(oldest) = queue.pop_front() else { break };
            if oldest.take_recent() {
                queue.push_back(oldest);
            } else {
                oldest.close();
            }
        }
        while queue.len() > self.open_max {
            queue.pop_front().map(|oldest| oldest.close());
        }
    }

    /// Gives all back.
    pub(super) fn clear(&self) {
        for holder in guard(&self.queue).drain(..) {
            holder.close();
        }
    }
}

/// A directory of the target.
pub(super) struct Folder {
    /// Absolute path in the snapshot; empty for `/`.
    pub(super) path: Vec<u8>,
    parent: Option<Arc<Self>>,
    /// None: left as it is.
    metadata: Option<Metadata>,
    /// Whether metadata is set. A directory that is only passed through may stay untouched.
    is_touched: AtomicBool,
    /// It was made by this restore, so that nothing in it was there before.
    pub(super) is_new: bool,
    /// Owner and group that new files in it get, as far as that was seen. Packed, `u64::MAX` if not.
    new_owner: AtomicU64,
    /// New files in it get an ACL.
    pub(super) gives_acl: bool,
    /// Whether its parent gave it an ACL when it was made.
    inherits_acl: bool,
    handle: Mutex<Option<Arc<TargetDirectory>>>,
    is_recent: AtomicBool,
    unfinished: AtomicU64,
}

impl Folder {
    /// A folder that the caller holds until it says otherwise.
    pub(super) fn new(
        path: Vec<u8>,
        parent: Option<&Arc<Self>>,
        metadata: Option<Metadata>,
        is_new: bool,
        gives_acl: bool,
    ) -> Arc<Self> {
        if let Some(parent) = parent {
            parent.hold();
            if is_new {
                parent.touch();
            }
        }
        // What a new directory hands down is what it was made with.
        let new_owner =
            parent.filter(|_| is_new).map(|parent| parent.new_owner.load(Ordering::Relaxed));
        Arc::new(Self {
            path,
            parent: parent.cloned(),
            metadata,
            is_touched: is_new.into(),
            is_new,
            new_owner: new_owner.unwrap_or(u64::MAX).into(),
            gives_acl,
            inherits_acl: is_new && parent.is_some_and(|parent| parent.gives_acl),
            handle: Mutex::default(),
            is_recent: false.into(),
            unfinished: 1.into(),
        })
    }

    /// Counts one thing that must be done before the folder is.
    pub(super) fn hold(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    /// Wants its metadata set at the end, and that of the folders around it.
    pub(super) fn touch(&self) {
        let mut folder = self;
        while !folder.is_touched.swap(true, Ordering::Relaxed) {
            match &folder.parent {
                Some(parent) => folder = parent,
                None => break,
            }
        }
    }

    /// Owner and group that a new file in it got.
    pub(super) fn new_owner(&self) -> Option<(u32, u32)> {
        let packed = self.new_owner.load(Ordering::Relaxed);
        (packed != u64::MAX).then_some(((packed >> 32) as u32, packed as u32))
    }

    pub(super) fn set_new_owner(&self, uid: u32, gid: u32) {
        self.new_owner.store(u64::from(uid) << 32 | u64::from(gid), Ordering::Relaxed);
    }

    /// Absolute path in the snapshot of something in it, into `path`.
    pub(super) fn write_path(&self, name: &[u8], path: &mut Vec<u8>) {
        path.clear();
        path.extend_from_slice(&self.path);
        path.push(b'/');
        path.extend_from_slice(name);
    }
}

impl Holder for Folder {
    fn take_recent(&self) -> bool {
        self.is_recent.swap(false, Ordering::Relaxed)
    }

    fn close(&self) -> bool {
        guard(&self.handle).take().is_some()
    }
}

/// The folder that a restore writes to.
pub(super) struct Target {
    /// None in a dry run into a folder that does not exist.
    root: Option<Arc<TargetDirectory>>,
    /// Length of the path in the snapshot whose contents go into the target.
    base_length: usize,
    open: OpenHandles<Folder>,
}

impl Target {
    pub(super) fn new(root: Option<TargetDirectory>, base_length: usize, open_max: usize) -> Self {
        let open = OpenHandles::new(open_max);
        Self { root: root.map(Arc::new), base_length, open }
    }

    /// Length of the path in the snapshot whose contents go into the target.
    pub(super) fn base_length(&self) -> usize {
        self.base_length
    }

    pub(super) fn root(&self) -> Option<&Arc<TargetDirectory>> {
        self.root.as_ref()
    }

    /// The handle of a folder.
    pub(super) fn open(&self, folder: &Arc<Folder>) -> io::Result<Arc<TargetDirectory>> {
        let below = folder.path.get(self.base_length..).unwrap_or_default();
        let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if below.is_empty() {
            return Ok(Arc::clone(root));
        }
        let mut handle = guard(&folder.handle);
        folder.is_recent.store(true, Ordering::Relaxed);
        if let Some(open) = &*handle {
            return Ok(Arc::clone(open));
        }
        let directory = Arc::new(root.open_below(below)?);
        *handle = Some(Arc::clone(&directory));
        drop(handle);
        self.open.note(folder);
        Ok(directory)
    }

    /// Keeps a handle that was just opened.
    pub(super) fn keep(&self, folder: &Arc<Folder>, directory: TargetDirectory) {
        *guard(&folder.handle) = Some(Arc::new(directory));
        self.open.note(folder);
    }

    pub(super) fn close_all(&self) {
        self.open.clear();
    }

    /// Counts one thing in the folder as done. Calls `finish` for each folder that is thereby complete, from the
    /// innermost on, with its handle and the metadata to set.
    pub(super) fn let_go(
        &self,
        folder: &Arc<Folder>,
        mut finish: impl FnMut(&Folder, io::Result<Arc<TargetDirectory>>, &Metadata, Before),
    ) {
        let mut folder = folder;
        while folder.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(metadata) = &folder.metadata
                && folder.is_touched.load(Ordering::Relaxed)
            {
                let before = if folder.is_new {
                    Before::New { inherits_acl: folder.inherits_acl }
                } else {
                    Before::Existing
                };
                finish(folder, self.open(folder), metadata, before);
            }
            folder.close();
            match &folder.parent {
                Some(parent) => folder = parent,
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        is_open: AtomicBool,
        is_recent: AtomicBool,
    }

    impl Holder for Fake {
        fn take_recent(&self) -> bool {
            self.is_recent.swap(false, Ordering::Relaxed)
        }

        fn close(&self) -> bool {
            self.is_open.swap(false, Ordering::Relaxed)
        }
    }

    #[test]
    fn handles_that_were_not_used_lately_are_given_back_first() {
        let handles = OpenHandles::new(3);
        let holders: Vec<_> = (0..6)
            .map(|_| Arc::new(Fake { is_open: true.into(), is_recent: false.into() }))
            .collect();
        for (number, holder) in holders.iter().enumerate() {
            // The first is used all the time.
            holders[0].is_recent.store(true, Ordering::Relaxed);
            handles.note(holder);
            let open = holders[..=number].iter().filter(|h| h.is_open.load(Ordering::Relaxed));
            assert!(open.count() <= 3);
        }
        let open: Vec<bool> = holders.iter().map(|h| h.is_open.load(Ordering::Relaxed)).collect();
        assert_eq!(open, [true, false, false, false, true, true]);
        handles.clear();
        assert!(holders.iter().all(|h| !h.is_open.load(Ordering::Relaxed)));
    }

    #[test]
    fn many_recent_handles_do_not_exceed_the_bound() {
        let handles = OpenHandles::new(2);
        let holders: Vec<_> = (0..5)
            .map(|_| Arc::new(Fake { is_open: true.into(), is_recent: true.into() }))
            .collect();
        for holder in &holders {
            handles.note(holder);
        }
        assert_eq!(holders.iter().filter(|h| h.is_open.load(Ordering::Relaxed)).count(), 2);
    }

    #[test]
    fn a_folder_is_finished_after_the_last_thing_in_it_and_before_the_one_around_it() {
        let metadata = || Metadata {
            owner: None,
            mode: 0,
            mtime: Default::default(),
            flags: 0,
            xattrs: Box::default(),
        };
        let target = Target::new(None, 0, 8);
        let root = Folder::new(Vec::new(), None, None, false, false);
        let outer = Folder::new(b"/a".to_vec(), Some(&root), Some(metadata()), true, false);
        let inner = Folder::new(b"/a/b".to_vec(), Some(&outer), Some(metadata()), true, false);
        inner.hold();
        let finished = Mutex::new(Vec::new());
        let finish =
            |folder: &Folder, _: io::Result<Arc<TargetDirectory>>, _: &Metadata, _: Before| {
                finished.lock().unwrap().push(folder.path.clone());
            };
        target.let_go(&root, finish);
        target.let_go(&outer, finish);
        target.let_go(&inner, finish);
        assert!(finished.lock().unwrap().is_empty());
        target.let_go(&inner, finish);
        assert_eq!(*finished.lock().unwrap(), [b"/a/b".to_vec(), b"/a".to_vec()]);
    }

    #[test]
    fn a_passage_is_touched_with_what_is_in_it() {
        let root = Folder::new(Vec::new(), None, None, false, false);
        let outer = Folder::new(b"/a".to_vec(), Some(&root), None, false, false);
        let inner = Folder::new(b"/a/b".to_vec(), Some(&outer), None, false, false);
        let is_touched = |folder: &Folder| folder.is_touched.load(Ordering::Relaxed);
        assert!(!is_touched(&outer) && !is_touched(&inner));
        inner.touch();
        assert!(is_touched(&outer) && is_touched(&inner));
    }
}
