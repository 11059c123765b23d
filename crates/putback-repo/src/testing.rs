//! Made-up indexes, for measurements at sizes that nobody wants to back up first.

use std::collections::BTreeSet;
use std::path::Path;

use putback_format::compress::Codec;
use putback_format::id::{BlobId, PackId, RepositoryId, SegmentId};
use putback_format::key::BlobKind;
use putback_format::pack::{FrameEntry, PackContents};
use putback_format::segment::{Segment, SegmentPack};

use crate::error::Result;
use crate::index::{Index, Liveness};

const BLOBS_PER_FRAME: u64 = 8;
const FRAMES_PER_PACK: u64 = 31;
const PACKS_PER_SEGMENT: u64 = 800;
/// Blobs of one made-up segment.
pub const BLOBS_PER_SEGMENT: u64 = BLOBS_PER_FRAME * FRAMES_PER_PACK * PACKS_PER_SEGMENT;

/// The id of the blob with this number.
#[must_use]
pub fn blob_id(number: u64) -> BlobId {
    BlobId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn segment(number: u64) -> Segment {
    let pack = |pack: u64| {
        let first = number * BLOBS_PER_SEGMENT + pack * BLOBS_PER_FRAME * FRAMES_PER_PACK;
        let frame = FrameEntry {
            stored_length: 1 << 20,
            plain_length: 1 << 20,
            codec: Codec::Zstd,
            blobs: BLOBS_PER_FRAME as u32,
        };
        let blobs = BLOBS_PER_FRAME * FRAMES_PER_PACK;
        SegmentPack {
            id: PackId::of_stored(&first.to_le_bytes()),
            salt: [0; 32],
            epoch: 1,
            crc32: 0,
            size: 32 << 20,
            contents: PackContents {
                kind: BlobKind::Data,
                frames: vec![frame; FRAMES_PER_PACK as usize],
                ids: (first..first + blobs).map(blob_id).collect(),
                lengths: vec![(1 << 20) / BLOBS_PER_FRAME as u32; blobs as usize],
            },
        }
    };
    Segment { packs: (0..PACKS_PER_SEGMENT).map(pack).collect(), ..Segment::default() }
}

/// An index of `segments` made-up segments, with its tables in `directory`. What an earlier call left
/// there is used again.
///
/// # Errors
/// [`crate::Error::Local`] if the directory cannot be used.
pub fn made_up_index(directory: &Path, segments: u64) -> Result<Index> {
    let index = Index::new(RepositoryId::from_bytes([7; 16]), Some(directory.to_owned()));
    let id = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        SegmentId::from_bytes(bytes)
    };
    let listed: BTreeSet<SegmentId> = (0..segments).map(id).collect();
    let read = |id: &SegmentId| {
        let (number, _) = id.as_bytes().as_chunks::<8>();
        Ok(segment(u64::from_be_bytes(number[0])))
    };
    index.load(&listed, read, |unread| Err(unread.error))?;
    index.save()?;
    Ok(index)
}

/// Does with the index what the planning of a prune does, for snapshots that need these blobs. How many of them
/// stay, and how many packs nothing needs.
///
/// # Errors
/// [`crate::Error::Local`] if the tables cannot be read.
pub fn plan_prune(index: &Index, needed: impl Iterator<Item = BlobId>) -> Result<(u64, u64)> {
    let mut live = index.live_set();
    let mut blobs = 0;
    for id in needed {
        blobs += u64::from(index.note_live(&mut live, &id)? == Liveness::New);
    }
    let uses = index.pack_uses(&live)?;
    let unneeded = uses.iter().filter(|(_, _, used)| used.blobs == 0).count() as u64;
    Ok((blobs, unneeded))
}
