//! How large a repository is, and what of.

use putback_format::key::BlobKind;

use crate::Repository;
use crate::error::Result;
use crate::id_set::IdSet;
use crate::layout;

/// Numbers and stored bytes of all objects, and of the blobs that the index names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositoryStats {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Index segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Segments among them that merged ones replace, and that go with a later compaction.
    pub segments_replaced: u64,
    /// Snapshots, checkpoints among them.
    pub snapshots: u64,
    /// Their bytes.
    pub snapshot_bytes: u64,
    /// Marks.
    pub marks: u64,
    /// Bytes of everything else: marks, keys, configuration, copies.
    pub other_bytes: u64,
    /// Chunks, duplicates counted.
    pub data_blobs: u64,
    /// Their plain bytes.
    pub data_blob_bytes: u64,
    /// Tree and list pages.
    pub tree_blobs: u64,
    /// Their plain bytes.
    pub tree_blob_bytes: u64,
}

impl Repository {
    /// Counts everything. Lists all folders and reads the local index.
    ///
    /// # Errors
    /// As [`Repository::load_index`].
    pub fn stats(&self) -> Result<RepositoryStats> {
        self.load_index()?;
        let mut stats = RepositoryStats::default();
        for folder in layout::FOLDERS {
            let listed = self.store().list(folder)?;
            let (count, bytes) =
                (listed.len() as u64, listed.iter().map(|info| info.size).sum::<u64>());
            match folder {
                layout::PACKS => (stats.packs, stats.pack_bytes) = (count, bytes),
                layout::INDEX => {
                    (stats.segments, stats.segment_bytes) = (count, bytes);
                    let names = listed.iter().filter_map(|info| info.path.name().parse().ok());
                    let replaced = self.index().replaced_segments(&names.collect());
                    stats.segments_replaced = replaced.len() as u64;
                }
                layout::SNAPSHOTS => (stats.snapshots, stats.snapshot_bytes) = (count, bytes),
                layout::MARKS => {
                    stats.marks = count;
                    stats.other_bytes += bytes;
                }
                _ => stats.other_bytes += bytes,
            }
        }
        let mut known = IdSet::default();
        for (number, id) in self.index().packs() {
            if !known.insert(id) {
                continue;
            }
            let pack = self.pack(number)?;
            let blobs: u64 = pack.frames.iter().map(|frame| u64::from(frame.blobs)).sum();
            let bytes: u64 = pack.frames.iter().map(|frame| u64::from(frame.plain_length)).sum();
            let (count, sum) = match pack.kind {
                BlobKind::Data => (&mut stats.data_blobs, &mut stats.data_blob_bytes),
                BlobKind::Tree => (&mut stats.tree_blobs, &mut stats.tree_blob_bytes),
            };
            *count += blobs;
            *sum += bytes;
        }
        Ok(stats)
    }
}
