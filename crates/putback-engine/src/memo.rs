//! What a walk through many directories remembers, in bounded memory.
//!
//! Snapshots share most of their directories. [`SubtreeMemo`] keeps what was found out about a
//! directory, so that the next snapshot need not read it again; [`HardLinks`] tells the first link
//! to a file from the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::Hash;

use putback_format::id::BlobId;
use putback_format::tree::{Entry, EntryKind};

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
/// Memory: one record for each file of which a link was met and another was not yet.
pub(crate) struct HardLinks<T> {
    open: HashMap<(u64, u64), (T, u64)>,
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
        match self.open.entry((entry.device, entry.inode)) {
            Slot::Vacant(slot) => {
                slot.insert((note(), entry.links - 1));
                None
            }
            Slot::Occupied(mut slot) => {
                let (noted, others) = slot.get_mut();
                *others -= 1;
                if *others == 0 { Some(slot.remove().0) } else { Some(noted.clone()) }
            }
        }
    }
}

/// Whether other entries may be links to the same file.
pub(crate) fn is_hard_linked(entry: &Entry) -> bool {
    entry.links > 1 && !matches!(entry.kind, EntryKind::Directory { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_source::testing::file;

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
}
