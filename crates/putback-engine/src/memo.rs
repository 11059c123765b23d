//! What a walk through many directories remembers, in bounded memory.
//!
//! Snapshots share most of their directories. [`SubtreeMemo`] keeps what was found out about a
//! directory, so that the next snapshot need not read it again; [`HardLinks`] tells the first link
//! to a file from the others.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use putback_format::id::BlobId;
use putback_format::tree::{Content, Entry, EntryKind};

/// Names everything below a directory: half the bits of its pages' ids, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DirectoryKey(u128);

impl DirectoryKey {
    pub(crate) fn new(pages: &[BlobId]) -> Self {
        // Ids are keyed hashes, so nothing but the order has to be mixed in. The number of pages
        // keeps apart lists of which one is a rotation of the other.
        let seed = u128::try_from(pages.len()).unwrap_or_default();
        Self(pages.iter().fold(seed, |key, page| {
            let mut half = [0; 16];
            half.copy_from_slice(&page.as_bytes()[..16]);
            key.rotate_left(7).wrapping_add(u128::from_le_bytes(half))
        }))
    }
}

/// What is known of directories, by key.
///
/// Holds at most `entries_max` of them. When it is full, the smaller half goes: a big subtree saves
/// more reading than a small one, and contains it.
pub(crate) struct SubtreeMemo<K, V> {
    known: HashMap<K, (u64, V)>,
    entries_max: usize,
    size_min: u64,
}

impl<K: Eq + Hash, V> SubtreeMemo<K, V> {
    /// Directories that a walk remembers by default: with the keys and values used here, 10 to 20
    /// MiB.
    pub(crate) const ENTRIES_MAX: usize = 100_000;

    pub(crate) fn new(entries_max: usize) -> Self {
        Self { known: HashMap::new(), entries_max, size_min: 0 }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).map(|(_, value)| value)
    }

    /// Remembers `value` for a directory with `size` entries in and below it.
    pub(crate) fn insert(&mut self, key: K, size: u64, value: V) {
        if size < self.size_min {
            return;
        }
        self.known.insert(key, (size, value));
        if self.known.len() > self.entries_max {
            self.forget_smaller_half();
        }
    }

    fn forget_smaller_half(&mut self) {
        let mut sizes: Vec<u64> = self.known.values().map(|(size, _)| *size).collect();
        let middle = sizes.len() / 2;
        let (_, &mut median, larger) = sizes.select_nth_unstable(middle);
        let mut medians_kept =
            self.entries_max / 2 - larger.iter().filter(|size| **size > median).count();
        self.known.retain(|_, (size, _)| {
            let is_kept_median = *size == median && medians_kept > 0;
            medians_kept -= usize::from(is_kept_median);
            *size > median || is_kept_median
        });
        self.size_min = median;
    }
}

/// The files of one snapshot that have several links.
///
/// Device and inode alone do not make two entries one file: while a backup runs, a file may change
/// between two of its names, or go, and another get its number. Entries that are not alike are files
/// of their own.
///
/// Memory: one record for each file of which a link was met and another was not yet.
pub(crate) struct HardLinks<T> {
    open: HashMap<(u64, u64), Met<T>>,
}

struct Met<T> {
    noted: T,
    fingerprint: u64,
    links_left: u64,
}

impl<T: Clone> HardLinks<T> {
    pub(crate) fn new() -> Self {
        Self { open: HashMap::new() }
    }

    /// Meets an entry. If it is a further link to a file met before: what was noted of the first
    /// one. Otherwise `note` says what to note.
    pub(crate) fn meet(&mut self, entry: &Entry, note: impl FnOnce() -> T) -> Option<T> {
        if !is_hard_linked(entry) {
            return None;
        }
        let fingerprint = fingerprint(entry);
        match self.open.entry((entry.device, entry.inode)) {
            Slot::Vacant(slot) => {
                slot.insert(Met { noted: note(), fingerprint, links_left: entry.links - 1 });
                None
            }
            Slot::Occupied(slot) if slot.get().fingerprint != fingerprint => None,
            Slot::Occupied(mut slot) => {
                let met = slot.get_mut();
                met.links_left -= 1;
                if met.links_left == 0 {
                    Some(slot.remove().noted)
                } else {
                    Some(met.noted.clone())
                }
            }
        }
    }
}

/// Whether other entries may be links to the same file. Where the number of an inode is not known,
/// nothing tells which.
pub(crate) fn is_hard_linked(entry: &Entry) -> bool {
    entry.links > 1 && entry.inode != 0 && !matches!(entry.kind, EntryKind::Directory { .. })
}

/// What the entries of one file have in common besides their number: all that its bytes depend on,
/// and the time of their last change.
pub(crate) fn fingerprint(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.mtime.hash(&mut hasher);
    discriminant(&entry.kind).hash(&mut hasher);
    match &entry.kind {
        EntryKind::File { size, content, holes } => {
            size.hash(&mut hasher);
            match content {
                Content::Inline(bytes) => bytes.hash(&mut hasher),
                Content::Chunks(chunks) | Content::Lists { pages: chunks, .. } => {
                    chunks.hash(&mut hasher);
                }
            }
            for hole in holes {
                (hole.offset, hole.length).hash(&mut hasher);
            }
        }
        EntryKind::Symlink { target } => target.hash(&mut hasher),
        EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            (major, minor).hash(&mut hasher);
        }
        EntryKind::Directory { .. } | EntryKind::Fifo | EntryKind::Socket => {}
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use putback_format::tree::Extent;

    use super::*;
    use crate::tree_source::testing::{file, special, symlink};

    #[test]
    fn a_full_memo_forgets_the_smallest_subtrees() {
        let mut memo = SubtreeMemo::new(8);
        for size in 1..=100u64 {
            memo.insert(size, size, ());
        }
        assert!(memo.known.len() <= 8);
        assert!(memo.get(&100).is_some());
        assert!(memo.get(&1).is_none());
        // Also when all are of one size.
        let mut memo = SubtreeMemo::new(8);
        (0..100u64).for_each(|key| memo.insert(key, 5, ()));
        assert!(memo.known.len() <= 8);
    }

    #[test]
    fn directories_differ_in_the_order_and_number_of_their_pages() {
        let id = |byte| BlobId::from_bytes([byte; 32]);
        let keys = [vec![], vec![id(0)], vec![id(0); 2], vec![id(1), id(2)], vec![id(2), id(1)]]
            .map(|pages: Vec<BlobId>| DirectoryKey::new(&pages));
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }

    #[test]
    fn further_links_yield_the_first_and_nothing_is_kept_after_the_last() {
        let mut entry = file("a", b"");
        let mut links = HardLinks::new();
        assert_eq!(links.meet(&entry, || 1), None);
        (entry.links, entry.inode) = (3, 7);
        assert_eq!(links.meet(&entry, || 1), None);
        assert_eq!(links.meet(&entry, || 2), Some(1));
        assert_eq!(links.meet(&entry, || 3), Some(1));
        assert!(links.open.is_empty());
    }

    #[test]
    fn entries_with_one_inode_number_that_are_not_alike_are_files_of_their_own() {
        let linked = |mut entry: Entry| {
            (entry.links, entry.device, entry.inode) = (2, 1, 7);
            entry
        };
        let with_hole = |offset| {
            let content = Content::Inline(b"12345".to_vec());
            let holes = vec![Extent { offset, length: 3 }];
            linked(special("a", EntryKind::File { size: 8, content, holes }))
        };
        let device = |minor| linked(special("a", EntryKind::BlockDevice { major: 8, minor }));
        let first = linked(file("a", b"12345"));
        let mut later = first.clone();
        later.mtime.nanoseconds += 1;
        for (first, second) in [
            (&first, &linked(file("b", b"54321"))),
            (&first, &linked(file("b", b"1234"))),
            (&first, &later),
            (&first, &linked(symlink("b", "12345"))),
            (&linked(symlink("a", "x")), &linked(symlink("b", "y"))),
            (&with_hole(0), &with_hole(2)),
            (&device(1), &device(2)),
        ] {
            let mut links = HardLinks::new();
            assert_eq!(links.meet(first, || 1), None);
            assert_eq!(links.meet(second, || 2), None, "{first:?} {second:?}");
            // It has taken nothing from the file that was met first.
            assert_eq!(links.meet(first, || 3), Some(1));
        }
        // Nothing tells which entries without a number belong together.
        let mut links = HardLinks::new();
        let unknown = Entry { inode: 0, ..first };
        assert_eq!((links.meet(&unknown, || 1), links.meet(&unknown, || 2)), (None, None));
    }
}
