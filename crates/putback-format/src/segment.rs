//! Index segments: which pack holds which blob.
//!
//! A segment repeats the headers of some packs, with what is needed to read them, so that nobody has to
//! open every pack. Segments are immutable; a merged one names those it replaces.
//! Layout: `docs/format.md`, "Index segments".

use crate::error::Error;
use crate::id::{PackId, SegmentId};
use crate::limits::{PACK_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::pack::{PackContents, TRAILER_BYTES};
use crate::wire::{Reader, length_u32};

const WHAT: &str = "an index segment";
const VERSION: u32 = 1;
/// Id, salt, epoch, CRC-32, size, and an empty table.
const PACK_BYTES_LEAST: usize = 32 + 32 + 4 + 4 + 8 + 12;

/// A pack as a segment describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPack {
    /// The pack.
    pub id: PackId,
    /// Its salt.
    pub salt: [u8; 32],
    /// Its key epoch.
    pub epoch: u32,
    /// CRC-32 (IEEE) of its stored bytes, to compare with what a storage reports.
    pub crc32: u32,
    /// Its size as stored.
    pub size: u64,
    /// What it contains.
    pub contents: PackContents,
}

/// An index segment, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Segment {
    /// Packs that can be read.
    pub packs: Vec<SegmentPack>,
    /// Packs that are gone or about to go; sorted. They outweigh any segment that lists the pack.
    pub tombstones: Vec<PackId>,
    /// Segments whose content this one repeats; sorted.
    pub replaces: Vec<SegmentId>,
}

impl Segment {
    /// Bytes that the encoding of one more pack takes, before compression.
    #[must_use]
    pub fn pack_encoded_length(contents: &PackContents) -> usize {
        PACK_BYTES_LEAST + contents.frames.len() * 13 + contents.ids.len() * 36
    }

    /// The payload of the sealed object.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`SEGMENT_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        out.extend_from_slice(&VERSION.to_le_bytes());
        for count in [self.packs.len(), self.tombstones.len(), self.replaces.len()] {
            out.extend_from_slice(&length_u32(WHAT, count)?.to_le_bytes());
        }
        out.extend(self.tombstones.iter().flat_map(|id| id.as_bytes()));
        out.extend(self.replaces.iter().flat_map(|id| id.as_bytes()));
        for pack in &self.packs {
            out.extend_from_slice(pack.id.as_bytes());
            out.extend_from_slice(&pack.salt);
            out.extend_from_slice(&pack.epoch.to_le_bytes());
            out.extend_from_slice(&pack.crc32.to_le_bytes());
            out.extend_from_slice(&pack.size.to_le_bytes());
            pack.contents.encode(&mut out);
        }
        if out.len() > SEGMENT_BYTES_MAX as usize {
            let limit = SEGMENT_BYTES_MAX.into();
            return Err(Error::TooLarge { what: WHAT, value: out.len() as u64, limit });
        }
        Ok(out)
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], [`Error::Truncated`], [`Error::TrailingBytes`], [`Error::TooLarge`],
    /// [`Error::Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, WHAT);
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version });
        }
        let packs = reader.count("the number of packs", u32::MAX, PACK_BYTES_LEAST)?;
        let tombstones = reader.count("the number of tombstones", u32::MAX, 32)?;
        let replaces = reader.count("the number of replaced segments", u32::MAX, 32)?;
        // The counts are not above what the bytes hold.
        let ids = reader.bytes(tombstones * PackId::LENGTH)?.as_chunks().0;
        let tombstones: Vec<_> = ids.iter().copied().map(PackId::from_bytes).collect();
        let ids = reader.bytes(replaces * SegmentId::LENGTH)?.as_chunks().0;
        let replaces: Vec<_> = ids.iter().copied().map(SegmentId::from_bytes).collect();
        if !tombstones.is_sorted_by(|a, b| a < b) || !replaces.is_sorted_by(|a, b| a < b) {
            return Err(Error::Invalid { what: WHAT, why: "ids are not in order" });
        }
        let mut decoded = Vec::with_capacity(packs);
        for _ in 0..packs {
            let id = PackId::from_bytes(reader.array()?);
            let salt = reader.array()?;
            let epoch = reader.u32()?;
            let crc32 = reader.u32()?;
            let size = reader.u64()?;
            if size > PACK_BYTES_MAX {
                let limit = PACK_BYTES_MAX;
                return Err(Error::TooLarge { what: "the size of a pack", value: size, limit });
            }
            let body = size.saturating_sub(TRAILER_BYTES as u64);
            let contents = PackContents::read(&mut reader, body)?;
            decoded.push(SegmentPack { id, salt, epoch, crc32, size, contents });
        }
        reader.finish()?;
        Ok(Self { packs: decoded, tombstones, replaces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Codec;
    use crate::id::BlobId;
    use crate::key::BlobKind;
    use crate::pack::FrameEntry;

    fn segment() -> Segment {
        let contents = PackContents {
            kind: BlobKind::Data,
            frames: vec![FrameEntry {
                stored_length: 100,
                plain_length: 60,
                codec: Codec::Raw,
                blobs: 1,
            }],
            ids: vec![BlobId::from_bytes([7; 32])],
            lengths: vec![60],
        };
        Segment {
            packs: vec![SegmentPack {
                id: PackId::from_bytes([1; 32]),
                salt: [2; 32],
                epoch: 3,
                crc32: 4,
                size: 500,
                contents,
            }],
            tombstones: vec![PackId::from_bytes([5; 32]), PackId::from_bytes([6; 32])],
            replaces: vec![SegmentId::from_bytes([8; 32])],
        }
    }

    #[test]
    fn a_segment_is_read_back_and_every_cut_or_longer_one_is_refused() {
        let bytes = segment().encode().unwrap();
        assert_eq!(Segment::decode(&bytes).unwrap(), segment());
        for length in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        assert_eq!(
            Segment::decode(&[bytes.as_slice(), &[0]].concat()),
            Err(Error::TrailingBytes { what: WHAT })
        );
    }

    #[test]
    fn unsorted_tombstones_and_frames_beyond_the_pack_are_refused() {
        let mut bad = segment();
        bad.tombstones.reverse();
        assert!(Segment::decode(&bad.encode().unwrap()).is_err());
        let mut bad = segment();
        bad.packs[0].size = 171;
        assert!(Segment::decode(&bad.encode().unwrap()).is_err());
    }
}
