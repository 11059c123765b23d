//! Counting what snapshots hold.
//!
//! Directories that several snapshots share are read once, as far as `SubtreeMemo` remembers
//! them. Distinct chunks are counted exactly in 64 MiB: `DistinctChunks` keeps those of the
//! lowest ids that fit and leaves the rest to another pass over the trees. One pass does for two
//! million distinct chunks (256 GiB of distinct content with the default chunk size) and may do for
//! four.

use putback_format::id::BlobId;
use putback_format::tree::{ChunkRef, EntryKind};
use putback_repo::{Repository, StoredSnapshot};

use crate::error::Error;
use crate::memo::{DirectoryKey, HardLinks, SubtreeMemo, is_hard_linked};
use crate::tree_source::{Chunks, Step, TreeSource, Walk, data_bytes};

/// Counts over some snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Files in all of them; each hard link counts.
    pub files: u64,
    /// Directories in all of them, roots not counted.
    pub directories: u64,
    /// Links, devices, FIFOs and sockets in all of them.
    pub others: u64,
    /// Bytes that restoring each of them would write: holes do not count, and a file of a snapshot
    /// counts once however many links it has there.
    pub restore_bytes: u64,
    /// Distinct chunks.
    pub unique_blobs: u64,
    /// Plain bytes of these.
    pub unique_bytes: u64,
}

/// Counts what `snapshots` hold.
///
/// Memory: 64 MiB for chunks, 20 MiB for directories seen, a record for each hard-linked file of
/// one snapshot.
///
/// # Errors
/// Those of the repository.
pub fn stats(
    repository: &Repository,
    snapshots: &[StoredSnapshot],
) -> Result<SnapshotStats, Error> {
    let limits = Limits {
        chunks_max: 4 << 20,
        directories_max: SubtreeMemo::<DirectoryKey, Totals>::ENTRIES_MAX,
    };
    stats_of_tree(repository, snapshots, &limits)
}

struct Limits {
    chunks_max: usize,
    directories_max: usize,
}

fn stats_of_tree(
    tree: &dyn TreeSource,
    snapshots: &[StoredSnapshot],
    limits: &Limits,
) -> Result<SnapshotStats, Error> {
    let mut chunks = DistinctChunks::new(limits.chunks_max);
    let (mut unique_blobs, mut unique_bytes) = (0, 0);
    let totals = loop {
        let totals = count(tree, snapshots, limits, &mut chunks)?;
        let (count, bytes, is_complete) = chunks.finish_pass();
        unique_blobs += count;
        unique_bytes += bytes;
        if is_complete {
            // Every pass counts the same entries.
            break totals;
        }
    };
    Ok(SnapshotStats {
        snapshots: snapshots.len() as u64,
        files: totals.files,
        directories: totals.directories,
        others: totals.others,
        restore_bytes: totals.bytes,
        unique_blobs,
        unique_bytes,
    })
}

/// What a directory holds, at any depth.
#[derive(Clone, Copy, Default)]
struct Totals {
    files: u64,
    directories: u64,
    others: u64,
    bytes: u64,
    /// Then `bytes` depends on what else is in the snapshot.
    has_hard_links: bool,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.has_hard_links |= other.has_hard_links;
    }

    fn entries(&self) -> u64 {
        self.files + self.directories + self.others
    }
}

/// One pass: counts entries, and feeds every chunk to `chunks` at least once.
fn count(
    tree: &dyn TreeSource,
    snapshots: &[StoredSnapshot],
    limits: &Limits,
    chunks: &mut DistinctChunks,
) -> Result<Totals, Error> {
    let mut known = SubtreeMemo::<DirectoryKey, Totals>::new(limits.directories_max);
    let mut all = Totals::default();
    for StoredSnapshot { snapshot, .. } in snapshots {
        let EntryKind::Directory { pages } = &snapshot.root.kind else { continue };
        let key = DirectoryKey::new(pages);
        if let Some(totals) = known.get(&key) {
            all.add(totals);
            continue;
        }
        let mut links = HardLinks::new();
        let mut walk = Walk::new(tree, b"", pages)?;
        let mut open = vec![(key, Totals::default())];
        while let (Some(step), Some((_, totals))) = (walk.next()?, open.last_mut()) {
            match step {
                Step::Leave => {
                    let Some((key, totals)) = open.pop() else { break };
                    if !totals.has_hard_links {
                        known.insert(key, totals.entries(), totals);
                    }
                    open.last_mut().map_or(&mut all, |(_, above)| above).add(&totals);
                }
                Step::Entry(entry) => {
                    totals.has_hard_links |= is_hard_linked(&entry);
                    let is_first_link = links.meet(&entry, || ()).is_none();
                    match &entry.kind {
                        EntryKind::Directory { pages } => {
                            totals.directories += 1;
                            let key = DirectoryKey::new(pages);
                            if let Some(below) = known.get(&key) {
                                totals.add(below);
                            } else {
                                open.push((key, Totals::default()));
                                walk.enter(pages)?;
                            }
                        }
                        EntryKind::File { content, .. } => {
                            totals.files += 1;
                            if is_first_link {
                                totals.bytes = totals.bytes.saturating_add(data_bytes(&entry));
                            }
                            let mut list = Chunks::new(tree, content);
                            while let Some(chunk) = list.next()? {
                                chunks.add(&chunk);
                            }
                        }
                        _ => totals.others += 1,
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Counts distinct chunks in bounded memory.
///
/// A record is 96 bits of an id above 32 bits of length; two of 10^8 ids share 96 bits once in
/// 10^13 times. When all records are taken and distinct, the upper half is dropped, and so is from
/// then on whatever lies there; the next pass begins where this one then ends.
struct DistinctChunks {
    records: Vec<u128>,
    records_max: usize,
    first: u128,
    /// Where the next pass begins, if one is needed.
    end: Option<u128>,
}

impl DistinctChunks {
    fn new(records_max: usize) -> Self {
        Self { records: Vec::new(), records_max: records_max.max(2), first: 0, end: None }
    }

    fn add(&mut self, chunk: &ChunkRef) {
        let record = record(&chunk.id, chunk.length);
        if record < self.first || self.end.is_some_and(|end| record >= end) {
            return;
        }
        self.records.push(record);
        if self.records.len() == self.records_max {
            self.compact();
            let half = self.records_max / 2;
            if let Some(&middle) = self.records.get(half) {
                self.end = Some(middle & ID_BITS);
                self.records.truncate(half);
            }
        }
    }

    fn compact(&mut self) {
        self.records.sort_unstable();
        self.records.dedup_by_key(|record| *record & ID_BITS);
    }

    /// Number and bytes of the distinct chunks of this pass, and whether these were the last.
    fn finish_pass(&mut self) -> (u64, u64, bool) {
        self.compact();
        let bytes = self
            .records
            .iter()
            .fold(0u64, |sum, record| sum.saturating_add((record & !ID_BITS) as u64));
        let count = self.records.len() as u64;
        self.records.clear();
        let end = self.end.take();
        self.first = end.unwrap_or(self.first);
        (count, bytes, end.is_none())
    }
}

const ID_BITS: u128 = !0 << 32;

fn record(id: &BlobId, length: u64) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&id.as_bytes()[..16]);
    let length = length.min(u64::from(u32::MAX));
    u128::from_be_bytes(bytes) & ID_BITS | u128::from(length)
}

#[cfg(test)]
mod tests {
    use putback_format::tree::{Content, Extent};

    use super::*;
    use crate::tree_source::testing::*;

    const PLENTY: Limits = Limits { chunks_max: 1000, directories_max: 1000 };

    fn sample() -> Folder {
        let holes = vec![Extent { offset: 4, length: 100 }];
        Folder::of([
            file("a/one", b"abcd1234"),
            file("a/two", b"abcdxyz"),
            file("b/in/three", b"9"),
            symlink("b/link", "three"),
            special("b/pipe", EntryKind::Fifo),
            special(
                "c/sparse",
                EntryKind::File { size: 104, content: Content::Inline(b"1234".to_vec()), holes },
            ),
        ])
    }

    #[test]
    fn entries_bytes_and_distinct_chunks_are_counted() {
        for list_depth in [0, 1, 2] {
            let mut tree = FakeTree::with_lists(list_depth);
            let snapshots = [tree.stored(1, &sample())];
            let expected = SnapshotStats {
                snapshots: 1,
                files: 4,
                directories: 4,
                others: 2,
                restore_bytes: 8 + 7 + 1 + 4,
                // abcd, 1234, xyz; what is inline is no chunk.
                unique_blobs: 3,
                unique_bytes: 11,
            };
            assert_eq!(stats_of_tree(&tree, &snapshots, &PLENTY).unwrap(), expected);
        }
    }

    #[test]
    fn shared_directories_count_in_each_snapshot_but_are_read_once() {
        let mut tree = FakeTree::default();
        let first = tree.stored(1, &sample());
        let mut folder = sample();
        folder.put(file("a/one", b"changed!"));
        let second = tree.stored(2, &folder);
        let again = tree.stored(3, &sample());
        let both = [first, second, again];
        let mut counted = SnapshotStats::default();
        let pages = tree.count_pages(|| counted = stats_of_tree(&tree, &both, &PLENTY).unwrap());
        // Root, a, b, b/in and c; then root and a of the second; nothing of the third.
        assert_eq!(pages, 5 + 2);
        assert_eq!((counted.files, counted.directories, counted.others), (12, 12, 6));
        assert_eq!(counted.restore_bytes, 60);
        assert_eq!(counted.unique_blobs, 5);
        // Without room to remember, the same from more reading.
        let limits = Limits { chunks_max: 1000, directories_max: 0 };
        assert_eq!(stats_of_tree(&tree, &both, &limits).unwrap(), counted);
    }

    #[test]
    fn a_hard_linked_file_is_restored_once_in_each_snapshot() {
        let link = |path| {
            let mut entry = file(path, b"12345");
            (entry.links, entry.device, entry.inode) = (2, 1, 7);
            entry
        };
        let folder = Folder::of([link("x/a"), link("y/b"), file("z/c", b"1")]);
        let mut tree = FakeTree::default();
        let snapshots = [tree.stored(1, &folder), tree.stored(2, &folder)];
        let counted = stats_of_tree(&tree, &snapshots, &PLENTY).unwrap();
        assert_eq!((counted.files, counted.restore_bytes), (6, 12));
    }

    #[test]
    fn counting_in_little_memory_gives_the_same_numbers() {
        let mut tree = FakeTree::default();
        let folder = Folder::of(
            (0..300).map(|n| file(&format!("{}/{n}", n % 7), format!("{:06}", n % 250).as_bytes())),
        );
        let snapshots = [tree.stored(1, &folder), tree.stored(2, &folder)];
        let expected = stats_of_tree(&tree, &snapshots, &PLENTY).unwrap();
        let mut distinct: Vec<Vec<u8>> = (0..250)
            .flat_map(|n| {
                format!("{n:06}").into_bytes().chunks(4).map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(expected.unique_blobs, distinct.len() as u64);
        assert_eq!(expected.unique_bytes, distinct.iter().map(Vec::len).sum::<usize>() as u64);
        for chunks_max in [2, 3, 7, 50, distinct.len(), distinct.len() + 1] {
            let limits = Limits { chunks_max, directories_max: 3 };
            assert_eq!(
                stats_of_tree(&tree, &snapshots, &limits).unwrap(),
                expected,
                "{chunks_max}"
            );
        }
    }

    #[test]
    fn no_snapshots_hold_nothing() {
        assert_eq!(
            stats_of_tree(&FakeTree::default(), &[], &PLENTY).unwrap(),
            SnapshotStats::default()
        );
    }
}
