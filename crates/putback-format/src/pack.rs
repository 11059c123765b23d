//! Packs: one stored object that holds many frames; a frame is many blobs compressed and sealed together.
//!
//! Nothing here holds a whole pack. [`PackKey`] seals and unseals single frames, on any thread;
//! [`PackBuilder`] keeps the table of what was sealed and says what closes the pack;
//! [`Trailer`] and [`PackContents`] take a stored pack apart. Writing and reading is the
//! repository's work.
//!
//! ```text
//! frame 0 | frame 1 | ... | zeros up to the exact size | sealed header | trailer (72 bytes)
//! ```
//!
//! Layout and limits: `docs/format.md`, "Packs".
//!
//! Invariant: every offset and length that [`PackContents`] yields lies inside the pack's body.

use crate::compress::Codec;
use crate::envelope::{pad_payload, unpad_payload};
use crate::error::Error;
use crate::id::{BlobId, RepositoryId};
use crate::key::{BlobKind, KeyRing, MasterKey};
use crate::limits::{
    FRAME_BLOBS_MAX, FRAME_PLAIN_BYTES_MAX, PACK_BLOBS_MAX, PACK_BYTES_MAX, PACK_HEADER_BYTES_MAX,
};
use crate::seal::{SEAL_OVERHEAD_BYTES, SealKey};
use crate::wire::{Reader, length_u32, padme};

const MAGIC: [u8; 8] = *b"PUTBPACK";
const VERSION: u8 = 1;
const WHAT: &str = "a pack header";

/// Bytes of the trailer, at the very end of every pack.
pub const TRAILER_BYTES: usize = 72;
/// A header without entries: kind and padding, number of frames, number of blobs.
const HEADER_FIXED_BYTES: usize = 12;
/// Stored length, plain length, blob count and codec of a frame.
const HEADER_FRAME_BYTES: usize = 13;
/// Id and length of a blob.
const HEADER_BLOB_BYTES: usize = 36;

/// The key of one pack with what binds frames to it. Cheap to share between workers.
pub struct PackKey {
    key: SealKey,
    repository: RepositoryId,
    epoch: u32,
    salt: [u8; 32],
}

/// Where a frame stands and what it is: all of it authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What its blobs are.
    pub kind: BlobKind,
    /// Its number in the pack.
    pub ordinal: u32,
    /// How its plain bytes were coded.
    pub codec: Codec,
    /// Length of the plain bytes.
    pub plain_length: u32,
}

impl PackKey {
    /// The key of the pack with this random salt.
    #[must_use]
    pub fn new(master: &MasterKey, repository: RepositoryId, epoch: u32, salt: [u8; 32]) -> Self {
        Self { key: master.pack_key(&salt), repository, epoch, salt }
    }

    fn frame_aad(&self, head: FrameHead, coded_length: usize) -> [u8; 48] {
        let mut aad = [0; 48];
        aad[..8].copy_from_slice(b"PUTBFRAM");
        aad[8..24].copy_from_slice(self.repository.as_bytes());
        aad[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        aad[28..32].copy_from_slice(&head.ordinal.to_le_bytes());
        aad[32] = head.kind as u8;
        aad[33] = head.codec as u8;
        aad[34] = VERSION;
        aad[36..40].copy_from_slice(&head.plain_length.to_le_bytes());
        aad[40..48].copy_from_slice(&(coded_length as u64).to_le_bytes());
        aad
    }

    /// Appends the stored form of a frame, [`SEAL_OVERHEAD_BYTES`] longer than `coded`.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if the cipher refuses.
    pub fn seal_frame(
        &self,
        head: FrameHead,
        coded: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.key.seal(&self.salt, &self.frame_aad(head, coded.len()), coded, out)
    }

    /// Unseals the stored form of a frame into `coded`, which is overwritten.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not the frame that was sealed here.
    pub fn unseal_frame(
        &self,
        head: FrameHead,
        stored: &[u8],
        coded: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let coded_length = stored.len().saturating_sub(SEAL_OVERHEAD_BYTES);
        self.key.unseal("a frame", &self.frame_aad(head, coded_length), stored, coded)
    }

    /// The clear end of a pack whose sealed header has this length.
    fn trailer(&self, header_length: u32) -> [u8; TRAILER_BYTES] {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&MAGIC);
        trailer[8] = VERSION;
        trailer[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        trailer[16..20].copy_from_slice(&header_length.to_le_bytes());
        trailer[24..40].copy_from_slice(self.repository.as_bytes());
        trailer[40..72].copy_from_slice(&self.salt);
        trailer
    }

    /// Unseals a header of this pack.
    ///
    /// # Errors
    /// As [`PackContents::decode`]; [`Error::Damaged`] if it does not unseal.
    pub fn unseal_header(&self, sealed: &[u8], body_length: u64) -> Result<PackContents, Error> {
        let trailer = self.trailer(length_u32(WHAT, sealed.len())?);
        let mut plain = Vec::new();
        self.key.unseal(WHAT, &trailer, sealed, &mut plain)?;
        let header = unpad_payload(WHAT, &plain, PACK_HEADER_BYTES_MAX)?;
        PackContents::decode(&header, body_length)
    }
}

/// The clear end of a pack, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The key epoch.
    pub epoch: u32,
    /// Length of the sealed header right before the trailer.
    pub header_length: u32,
    /// The repository that it belongs to.
    pub repository: RepositoryId,
    /// The pack's salt.
    pub salt: [u8; 32],
}

impl Trailer {
    /// Decodes the last [`TRAILER_BYTES`] of a pack of `pack_length` bytes.
    ///
    /// # Errors
    /// [`Error::WrongMagic`], [`Error::UnknownVersion`], [`Error::OtherRepository`], or
    /// [`Error::Invalid`] when the header cannot lie inside the pack.
    pub fn decode(bytes: &[u8], pack_length: u64, repository: RepositoryId) -> Result<Self, Error> {
        let what = "a pack";
        let mut reader = Reader::new(bytes, what);
        if reader.array()? != MAGIC {
            return Err(Error::WrongMagic { what });
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::UnknownVersion { what, version: version.into() });
        }
        let zeros = [0; 3] == reader.array()?;
        let epoch = reader.u32()?;
        let header_length = reader.u32()?;
        let zeros = zeros && [0; 4] == reader.array()?;
        let found = RepositoryId::from_bytes(reader.array()?);
        let salt = reader.array()?;
        reader.finish()?;
        if !zeros {
            return Err(Error::Invalid { what, why: "reserved bytes are not zero" });
        }
        if found != repository {
            return Err(Error::OtherRepository { what, found });
        }
        if header_length > PACK_HEADER_BYTES_MAX
            || u64::from(header_length) + TRAILER_BYTES as u64 > pack_length
        {
            return Err(Error::Invalid { what, why: "its header does not fit into it" });
        }
        Ok(Self { epoch, header_length, repository, salt })
    }

    /// The key of the pack.
    ///
    /// # Errors
    /// [`Error::UnknownEpoch`] if the slot does not hold the key of its epoch.
    pub fn key(&self, keys: &KeyRing) -> Result<PackKey, Error> {
        let master = keys.master("a pack", self.epoch)?;
        Ok(PackKey::new(master, self.repository, self.epoch, self.salt))
    }
}

/// One frame in the table of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Length of the frame as stored, seal included.
    pub stored_length: u32,
    /// Length of its plain bytes.
    pub plain_length: u32,
    /// How they were coded.
    pub codec: Codec,
    /// How many blobs they are.
    pub blobs: u32,
}

/// What a pack contains: frames in order, and the blobs of all frames in order. Offsets follow from
/// the lengths, so none can lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackContents {
    /// What the blobs are.
    pub kind: BlobKind,
    /// The frames.
    pub frames: Vec<FrameEntry>,
    /// Ids of all blobs.
    pub ids: Vec<BlobId>,
    /// Plain lengths of all blobs.
    pub lengths: Vec<u32>,
}

impl PackContents {
    /// The contents of an empty pack.
    #[must_use]
    pub fn new(kind: BlobKind) -> Self {
        Self { kind, frames: Vec::new(), ids: Vec::new(), lengths: Vec::new() }
    }

    /// Bytes of all frames as stored.
    #[must_use]
    pub fn stored_length(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored_length)).sum()
    }

    /// Appends the stored form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        let count = |length: usize| u32::try_from(length).expect("bounded by PACK_BLOBS_MAX");
        out.extend_from_slice(&count(self.frames.len()).to_le_bytes());
        out.extend_from_slice(&count(self.ids.len()).to_le_bytes());
        out.extend(self.frames.iter().flat_map(|frame| frame.stored_length.to_le_bytes()));
        out.extend(self.frames.iter().flat_map(|frame| frame.plain_length.to_le_bytes()));
        out.extend(self.frames.iter().flat_map(|frame| frame.blobs.to_le_bytes()));
        out.extend(self.frames.iter().map(|frame| frame.codec as u8));
        out.extend(self.ids.iter().flat_map(|id| id.as_bytes()));
        out.extend(self.lengths.iter().flat_map(|length| length.to_le_bytes()));
    }

    /// Decodes what nothing may follow, for a pack whose frames have at most `body_length` bytes.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::TrailingBytes`], [`Error::TooLarge`], [`Error::Invalid`].
    pub fn decode(bytes: &[u8], body_length: u64) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes, WHAT);
        let contents = Self::read(&mut reader, body_length)?;
        reader.finish()?;
        Ok(contents)
    }

    pub(crate) fn read(reader: &mut Reader<'_>, body_length: u64) -> Result<Self, Error> {
        let kind = BlobKind::from_byte(reader.u8()?)?;
        if reader.array()? != [0; 3] {
            return Err(Error::Invalid { what: WHAT, why: "reserved bytes are not zero" });
        }
        let frame_count =
            reader.count("the number of frames", PACK_BLOBS_MAX, HEADER_FRAME_BYTES)?;
        let blob_count = reader.count("the number of blobs", PACK_BLOBS_MAX, HEADER_BLOB_BYTES)?;
        let stored = reader.u32_column(frame_count)?;
        let plain = reader.u32_column(frame_count)?;
        let blobs = reader.u32_column(frame_count)?;
        let codecs = reader.bytes(frame_count)?;
        let mut frames = Vec::with_capacity(frame_count);
        for (index, codec) in codecs.iter().enumerate() {
            frames.push(FrameEntry {
                stored_length: stored[index],
                plain_length: plain[index],
                codec: Codec::from_byte(*codec)?,
                blobs: blobs[index],
            });
        }
        let (ids, _) = reader.bytes(blob_count * 32)?.as_chunks::<32>();
        let ids = ids.iter().map(|id| BlobId::from_bytes(*id)).collect();
        let lengths = reader.u32_column(blob_count)?;
        let contents = Self { kind, frames, ids, lengths };
        contents.check(body_length)?;
        Ok(contents)
    }

    fn check(&self, body_length: u64) -> Result<(), Error> {
        let invalid = |why| Err(Error::Invalid { what: WHAT, why });
        let mut lengths = self.lengths.iter();
        for frame in &self.frames {
            if frame.plain_length > FRAME_PLAIN_BYTES_MAX || frame.blobs > FRAME_BLOBS_MAX {
                return invalid("a frame is too large");
            }
            if (frame.stored_length as usize) < SEAL_OVERHEAD_BYTES {
                return invalid("a frame is shorter than its seal");
            }
            let coded = frame.stored_length - SEAL_OVERHEAD_BYTES as u32;
            if frame.codec == Codec::Raw && coded != frame.plain_length {
                return invalid("a raw frame has two lengths");
            }
            // Or a reader would fetch a pack's worth for a few plain bytes.
            if frame.codec == Codec::Zstd && coded >= frame.plain_length {
                return invalid("a compressed frame is not smaller than what it holds");
            }
            let sum: u64 = lengths.by_ref().take(frame.blobs as usize).map(|l| u64::from(*l)).sum();
            if sum != u64::from(frame.plain_length) {
                return invalid("the blobs of a frame do not fill it");
            }
        }
        let blobs: u64 = self.frames.iter().map(|frame| u64::from(frame.blobs)).sum();
        if blobs != self.ids.len() as u64 || lengths.next().is_some() {
            return invalid("the frames do not hold all blobs");
        }
        if self.stored_length() > body_length {
            return invalid("the frames do not fit into the pack");
        }
        Ok(())
    }
}

/// Keeps the table of a pack that is being written.
pub struct PackBuilder {
    contents: PackContents,
    body_length: u64,
    pack_bytes: u64,
}

/// What closes a pack, to be written behind its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackEnd {
    /// Number of zero bytes that come first.
    pub padding: u64,
    /// Sealed header and trailer.
    pub tail: Vec<u8>,
}

impl PackBuilder {
    /// A pack of exactly `pack_bytes` when full.
    #[must_use]
    pub fn new(kind: BlobKind, pack_bytes: u64) -> Self {
        Self { contents: PackContents::new(kind), body_length: 0, pack_bytes }
    }

    /// Bytes of a frame of `blobs` blobs, as coded, that still fit; zero if none do.
    #[must_use]
    pub fn room(&self, blobs: usize) -> u64 {
        if self.contents.ids.len() + blobs > PACK_BLOBS_MAX as usize {
            return 0;
        }
        let header = HEADER_FIXED_BYTES
            + (self.contents.frames.len() + 1) * HEADER_FRAME_BYTES
            + (self.contents.ids.len() + blobs) * HEADER_BLOB_BYTES;
        // The prefix of the payload, then Padmé, then the seal.
        let header = padme(header as u64 + 12) + SEAL_OVERHEAD_BYTES as u64;
        let used = self.body_length + header + (TRAILER_BYTES + SEAL_OVERHEAD_BYTES) as u64;
        self.pack_bytes.saturating_sub(used)
    }

    /// Notes a frame, which must fit, and yields its ordinal. Its stored form must then be written
    /// behind that of the frame before.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it does not fit.
    pub fn push(
        &mut self,
        codec: Codec,
        plain_length: u32,
        coded_length: usize,
        blobs: &[(BlobId, u32)],
    ) -> Result<u32, Error> {
        let room = self.room(blobs.len());
        if coded_length as u64 > room || plain_length > FRAME_PLAIN_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a frame",
                value: coded_length as u64,
                limit: room,
            });
        }
        let ordinal = length_u32("the number of frames", self.contents.frames.len())?;
        let stored_length = length_u32("a frame", coded_length + SEAL_OVERHEAD_BYTES)?;
        self.contents.frames.push(FrameEntry {
            stored_length,
            plain_length,
            codec,
            blobs: length_u32("the number of blobs", blobs.len())?,
        });
        self.contents.ids.extend(blobs.iter().map(|(id, _)| *id));
        self.contents.lengths.extend(blobs.iter().map(|(_, length)| *length));
        self.body_length += u64::from(stored_length);
        Ok(ordinal)
    }

    /// Bytes of all frames so far.
    #[must_use]
    pub fn body_length(&self) -> u64 {
        self.body_length
    }

    /// Number of frames so far.
    #[must_use]
    pub fn frames(&self) -> u32 {
        u32::try_from(self.contents.frames.len()).expect("push refuses more")
    }

    /// Closes the pack: at its exact size if `is_full`, else at the next Padmé length (but never
    /// above the exact size). One that takes no more blobs though half of its room is left counts as
    /// not full: zeros would be most of it. The header is opened again before it is returned.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if the header does not open to what was sealed.
    pub fn finish(self, key: &PackKey, is_full: bool) -> Result<(PackContents, PackEnd), Error> {
        let mut header = Vec::new();
        self.contents.encode(&mut header);
        let plain = pad_payload(&header)?;
        let sealed_length = plain.len() + SEAL_OVERHEAD_BYTES;
        let trailer = key.trailer(length_u32(WHAT, sealed_length)?);
        let mut tail = Vec::with_capacity(sealed_length + TRAILER_BYTES);
        key.key.seal(&key.salt, &trailer, &plain, &mut tail)?;
        if key.unseal_header(&tail, self.body_length)? != self.contents {
            return Err(Error::SelfCheck { what: WHAT, why: "it opened to other bytes" });
        }
        tail.extend_from_slice(&trailer);
        let length = self.body_length + tail.len() as u64;
        let is_full = is_full
            && (length > self.pack_bytes / 2
                || self.contents.ids.len() <= PACK_BLOBS_MAX as usize / 2);
        let target = if is_full { self.pack_bytes } else { padme(length).min(self.pack_bytes) };
        let padding = target
            .checked_sub(length)
            .ok_or(Error::SelfCheck { what: "a pack", why: "it grew beyond its size" })?;
        Ok((self.contents, PackEnd { padding, tail }))
    }
}

/// Largest pack that any configuration allows; readers refuse larger ones.
pub const STORED_BYTES_MAX: u64 = PACK_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DedupSecret;

    const PACK_BYTES: u64 = 64 << 10;

    fn key() -> PackKey {
        PackKey::new(&MasterKey::from_bytes([1; 32]), RepositoryId::from_bytes([2; 16]), 1, [3; 32])
    }

    /// A pack of frames with these plain bytes, one blob each.
    fn pack(frames: &[&[u8]], is_full: bool) -> Vec<u8> {
        let (key, ids) = (key(), DedupSecret::from_bytes([4; 32]).id_keys());
        let mut builder = PackBuilder::new(BlobKind::Data, PACK_BYTES);
        let mut pack = Vec::new();
        for plain in frames {
            let plain_length = plain.len() as u32;
            let blob = (ids.blob_id(BlobKind::Data, plain), plain_length);
            let ordinal = builder.push(Codec::Raw, plain_length, plain.len(), &[blob]).unwrap();
            let head = FrameHead { kind: BlobKind::Data, ordinal, codec: Codec::Raw, plain_length };
            key.seal_frame(head, plain, &mut pack).unwrap();
        }
        let (_, end) = builder.finish(&key, is_full).unwrap();
        pack.resize(pack.len() + end.padding as usize, 0);
        pack.extend_from_slice(&end.tail);
        pack
    }

    fn open(pack: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let keys = KeyRing::new(DedupSecret::from_bytes([4; 32]), MasterKey::from_bytes([1; 32]));
        let Some((rest, tail)) = pack.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(Error::Truncated { what: "a pack" });
        };
        let trailer = Trailer::decode(tail, pack.len() as u64, RepositoryId::from_bytes([2; 16]))?;
        let key = trailer.key(&keys)?;
        let (body, header) = rest.split_at(rest.len() - trailer.header_length as usize);
        let contents = key.unseal_header(header, body.len() as u64)?;
        let mut offset = 0;
        let mut frames = Vec::new();
        for (ordinal, frame) in contents.frames.iter().enumerate() {
            let stored = &body[offset..offset + frame.stored_length as usize];
            offset += stored.len();
            let head = FrameHead {
                kind: contents.kind,
                ordinal: ordinal as u32,
                codec: frame.codec,
                plain_length: frame.plain_length,
            };
            let mut coded = Vec::new();
            key.unseal_frame(head, stored, &mut coded)?;
            frames.push(coded);
        }
        Ok(frames)
    }

    #[test]
    fn a_full_pack_has_its_exact_size_and_opens_to_what_was_packed() {
        let full = pack(&[&[5; 1000], &[6; 20_000]], true);
        assert_eq!(full.len() as u64, PACK_BYTES);
        assert_eq!(open(&full).unwrap(), [vec![5; 1000], vec![6; 20_000]]);
        let short = pack(&[&[5; 1000]], false);
        assert_eq!(short.len() as u64, padme(short.len() as u64));
        assert!(short.len() < 1500);
    }

    #[test]
    fn every_flipped_byte_outside_the_padding_and_every_cut_is_noticed() {
        let good = pack(&[&[5; 100], &[6; 50]], false);
        let frames = 100 + 50 + 2 * SEAL_OVERHEAD_BYTES;
        let trailer = Trailer::decode(
            &good[good.len() - TRAILER_BYTES..],
            good.len() as u64,
            RepositoryId::from_bytes([2; 16]),
        )
        .unwrap();
        let padding = frames..good.len() - TRAILER_BYTES - trailer.header_length as usize;
        for position in 0..good.len() {
            let mut damaged = good.clone();
            damaged[position] ^= 1;
            assert_eq!(open(&damaged).is_err(), !padding.contains(&position), "byte {position}");
        }
        for length in 0..good.len() {
            assert!(open(&good[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn frames_cannot_change_places() {
        let mut swapped = pack(&[&[5; 100], &[6; 100]], false);
        let (first, rest) = swapped.split_at_mut(140);
        first.swap_with_slice(&mut rest[..140]);
        assert_eq!(open(&swapped), Err(Error::Damaged { what: "a frame" }));
    }

    #[test]
    fn what_room_promises_fits_to_the_byte_and_no_more_is_taken() {
        for blobs in [1, 7, 500] {
            let mut builder = PackBuilder::new(BlobKind::Data, PACK_BYTES);
            let length = PACK_BYTES as u32 / blobs as u32 + 1;
            let list = vec![(BlobId::from_bytes([1; 32]), length); blobs];
            let plain_length = length * blobs as u32;
            let room = builder.room(blobs) as usize;
            assert!(builder.push(Codec::Zstd, plain_length, room + 1, &list).is_err());
            builder.push(Codec::Zstd, plain_length, room, &list).unwrap();
            let (_, end) = builder.finish(&key(), true).unwrap();
            assert_eq!(room as u64 + 40 + end.padding + end.tail.len() as u64, PACK_BYTES);
        }
    }

    #[test]
    fn a_pack_that_takes_no_more_blobs_is_not_filled_with_zeros() {
        let all = PACK_BLOBS_MAX as usize;
        let mut builder = PackBuilder::new(BlobKind::Data, 64 << 20);
        let list = vec![(BlobId::from_bytes([1; 32]), 10); all];
        builder.push(Codec::Zstd, 10 * PACK_BLOBS_MAX, 1000, &list).unwrap();
        assert_eq!(builder.room(1), 0);
        let (contents, end) = builder.finish(&key(), true).unwrap();
        assert_eq!(contents.ids.len(), all);
        let length = 1040 + end.padding + end.tail.len() as u64;
        assert_eq!(length, padme(length));
        assert!(length < 8 << 20, "{length}");
    }

    #[test]
    fn lying_tables_are_refused() {
        let good = PackContents {
            kind: BlobKind::Tree,
            frames: vec![FrameEntry {
                stored_length: 90,
                plain_length: 60,
                codec: Codec::Zstd,
                blobs: 2,
            }],
            ids: vec![BlobId::from_bytes([1; 32]), BlobId::from_bytes([2; 32])],
            lengths: vec![20, 40],
        };
        let decode = |contents: &PackContents| {
            let mut bytes = Vec::new();
            contents.encode(&mut bytes);
            PackContents::decode(&bytes, 100)
        };
        assert_eq!(decode(&good).unwrap(), good);
        let lies: [fn(&mut PackContents); 7] = [
            |contents| contents.lengths[0] = 21,
            |contents| contents.frames[0].blobs = 1,
            |contents| contents.frames[0].stored_length = 101,
            |contents| contents.frames[0].stored_length = 39,
            |contents| contents.frames[0].codec = Codec::Raw,
            |contents| contents.frames[0].stored_length = 100,
            |contents| contents.frames[0].plain_length = u32::MAX,
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut contents = good.clone();
            lie(&mut contents);
            assert!(decode(&contents).is_err(), "lie {number}");
        }
    }
}
