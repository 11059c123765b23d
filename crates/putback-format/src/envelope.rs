//! The sealed object around segments, snapshots, marks and configurations.
//!
//! One layout for all: a clear header that says what the object is, all of it authenticated, so that no
//! object passes for another; then the payload, padded inside the seal.
//! Layout: `docs/format.md`, "Sealed objects".

use crate::compress::{Codec, Compressor, Decompressor};
use crate::error::Error;
use crate::id::RepositoryId;
use crate::key::{KeyRing, MasterKey};
use crate::limits::{SEGMENT_BYTES_MAX, SMALL_OBJECT_BYTES_MAX};
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::wire::{Reader, length_u32, padme};

/// First bytes of every object but packs.
pub(crate) const MAGIC: [u8; 4] = *b"PUTB";
/// Version of the layout of sealed objects.
const VERSION: u8 = 1;
/// Bytes in the clear before the seal: magic, kind, version, two zero bytes, repository, epoch, salt.
pub const HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 16 + 4 + 32;
/// Codec, three zero bytes, plain length, coded length.
const PREFIX_BYTES: usize = 12;
/// zstd level of sealed objects: they are small.
const LEVEL: i32 = 3;

/// What a sealed object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// A configuration.
    Config = 2,
    /// An index segment.
    Segment = 3,
    /// A snapshot.
    Snapshot = 4,
    /// A mark or a forget record.
    Mark = 5,
    /// Whose password a slot is for; inside the slot.
    SlotInfo = 6,
}

impl ObjectKind {
    /// How to name an object of this kind in an error.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "a configuration",
            Self::Segment => "an index segment",
            Self::Snapshot => "a snapshot",
            Self::Mark => "a mark",
            Self::SlotInfo => "the description of a password slot",
        }
    }

    /// Largest plain and largest stored size.
    #[must_use]
    pub fn bytes_max(self) -> u32 {
        match self {
            Self::Segment => SEGMENT_BYTES_MAX,
            _ => SMALL_OBJECT_BYTES_MAX,
        }
    }
}

/// Seals `payload`. `salt` is random and used once. What was sealed is opened again before it is
/// returned: memory and compressors do fail.
///
/// # Errors
/// - [`Error::TooLarge`]: the payload is above the limit of its kind.
/// - [`Error::SelfCheck`]: the sealed bytes did not open to the payload.
pub fn seal(
    kind: ObjectKind,
    repository: RepositoryId,
    epoch: u32,
    master: &MasterKey,
    salt: [u8; 32],
    payload: &[u8],
) -> Result<Vec<u8>, Error> {
    if payload.len() > kind.bytes_max() as usize {
        return Err(Error::TooLarge {
            what: "the size of a sealed object",
            value: payload.len() as u64,
            limit: kind.bytes_max().into(),
        });
    }
    let mut object = Vec::with_capacity(HEADER_BYTES);
    object.extend_from_slice(&MAGIC);
    object.extend_from_slice(&[kind as u8, VERSION, 0, 0]);
    object.extend_from_slice(repository.as_bytes());
    object.extend_from_slice(&epoch.to_le_bytes());
    object.extend_from_slice(&salt);

    let plain = pad_payload(payload)?;
    let key = master.object_key(&salt);
    let header = object.clone();
    key.seal(&salt, &header, &plain, &mut object)?;

    let mut opened = Vec::new();
    key.unseal(kind.name(), &header, &object[HEADER_BYTES..], &mut opened)?;
    if unpad_payload(kind.name(), &opened, kind.bytes_max())? != payload {
        return Err(Error::SelfCheck { what: kind.name(), why: "it opened to other bytes" });
    }
    Ok(object)
}

/// Opens an object that must be of this kind and repository.
///
/// # Errors
/// - [`Error::WrongMagic`], [`Error::Truncated`], [`Error::Invalid`]: not such an object.
/// - [`Error::UnknownVersion`]: written by a newer program.
/// - [`Error::OtherRepository`]: it does not belong here.
/// - [`Error::UnknownEpoch`]: sealed under a key that the slot does not hold.
/// - [`Error::Damaged`], [`Error::Decompress`]: the bytes are not what was sealed.
pub fn unseal(
    kind: ObjectKind,
    repository: RepositoryId,
    keys: &KeyRing,
    object: &[u8],
) -> Result<Vec<u8>, Error> {
    let what = kind.name();
    let (header, epoch, salt) = read_header(kind, Some(repository), object)?;
    let key = keys.master(what, epoch)?.object_key(&salt);
    let mut plain = Vec::new();
    key.unseal(what, header, &object[header.len()..], &mut plain)?;
    unpad_payload(what, &plain, kind.bytes_max())
}

/// The repository that an object of this kind says it belongs to; unauthenticated.
///
/// # Errors
/// As [`unseal`], for what the header shows.
pub fn repository_of(kind: ObjectKind, object: &[u8]) -> Result<RepositoryId, Error> {
    let (header, _, _) = read_header(kind, None, object)?;
    let mut reader = Reader::new(&header[8..], kind.name());
    Ok(RepositoryId::from_bytes(reader.array()?))
}

/// The epoch that an object of this kind says it is sealed under; unauthenticated.
///
/// # Errors
/// As [`unseal`], for what the header shows.
pub fn epoch_of(kind: ObjectKind, repository: RepositoryId, object: &[u8]) -> Result<u32, Error> {
    read_header(kind, Some(repository), object).map(|(_, epoch, _)| epoch)
}

fn read_header(
    kind: ObjectKind,
    repository: Option<RepositoryId>,
    object: &[u8],
) -> Result<(&[u8], u32, [u8; 32]), Error> {
    let what = kind.name();
    if object.len()
        > kind.bytes_max() as usize
            + HEADER_BYTES
            + SEAL_OVERHEAD_BYTES
            + (kind.bytes_max() as usize >> 3)
    {
        return Err(Error::TooLarge {
            what: "the size of a sealed object",
            value: object.len() as u64,
            limit: kind.bytes_max().into(),
        });
    }
    let mut reader = Reader::new(object, what);
    if reader.array()? != MAGIC || reader.u8()? != kind as u8 {
        return Err(Error::WrongMagic { what });
    }
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Error::UnknownVersion { what, version: version.into() });
    }
    if reader.array()? != [0; 2] {
        return Err(Error::Invalid { what, why: "reserved bytes are not zero" });
    }
    let found = RepositoryId::from_bytes(reader.array()?);
    if repository.is_some_and(|repository| repository != found) {
        return Err(Error::OtherRepository { what, found });
    }
    let epoch = reader.u32()?;
    let salt = reader.array()?;
    Ok((&object[..HEADER_BYTES], epoch, salt))
}

/// Codec, lengths, coded bytes, zeros up to the Padmé length.
pub(crate) fn pad_payload(payload: &[u8]) -> Result<Vec<u8>, Error> {
    let mut coded = Vec::new();
    let codec = Compressor::new(LEVEL)?.compress(payload, &mut coded)?;
    let mut plain = Vec::with_capacity(PREFIX_BYTES + coded.len());
    plain.extend_from_slice(&[codec as u8, 0, 0, 0]);
    plain.extend_from_slice(&length_u32("a payload", payload.len())?.to_le_bytes());
    plain.extend_from_slice(&length_u32("a payload", coded.len())?.to_le_bytes());
    plain.extend_from_slice(&coded);
    plain.resize(padme(plain.len() as u64) as usize, 0);
    Ok(plain)
}

/// The reverse of [`pad_payload`].
pub(crate) fn unpad_payload(
    what: &'static str,
    plain: &[u8],
    bytes_max: u32,
) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new(plain, what);
    let codec = Codec::from_byte(reader.u8()?)?;
    if reader.array()? != [0; 3] {
        return Err(Error::Invalid { what, why: "reserved bytes are not zero" });
    }
    let plain_length = reader.u32()?;
    if plain_length > bytes_max {
        return Err(Error::TooLarge {
            what: "the size of a sealed object",
            value: plain_length.into(),
            limit: bytes_max.into(),
        });
    }
    let coded_length = reader.u32()? as usize;
    let coded = reader.bytes(coded_length)?;
    if reader.rest().iter().any(|byte| *byte != 0) {
        return Err(Error::Invalid { what, why: "padding is not zero" });
    }
    let mut payload = Vec::new();
    Decompressor::new()?.decompress(codec, coded, plain_length as usize, &mut payload)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DedupSecret;

    fn keys() -> KeyRing {
        KeyRing::new(DedupSecret::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]))
    }

    fn sealed(kind: ObjectKind, payload: &[u8]) -> Vec<u8> {
        let keys = keys();
        let master = keys.master("it", 1).unwrap();
        seal(kind, RepositoryId::from_bytes([3; 16]), 1, master, [4; 32], payload).unwrap()
    }

    #[test]
    fn an_object_opens_as_what_it_is_and_as_nothing_else() {
        let object = sealed(ObjectKind::Mark, b"payload");
        let repository = RepositoryId::from_bytes([3; 16]);
        assert_eq!(unseal(ObjectKind::Mark, repository, &keys(), &object).unwrap(), b"payload");
        assert_eq!(
            unseal(ObjectKind::Snapshot, repository, &keys(), &object),
            Err(Error::WrongMagic { what: "a snapshot" })
        );
        let other = RepositoryId::from_bytes([5; 16]);
        assert_eq!(
            unseal(ObjectKind::Mark, other, &keys(), &object),
            Err(Error::OtherRepository { what: "a mark", found: repository })
        );
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_addition_is_noticed() {
        let object = sealed(ObjectKind::Snapshot, &[7; 300]);
        let repository = RepositoryId::from_bytes([3; 16]);
        for bit in 0..object.len() * 8 {
            let mut damaged = object.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                unseal(ObjectKind::Snapshot, repository, &keys(), &damaged).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..object.len() {
            assert!(unseal(ObjectKind::Snapshot, repository, &keys(), &object[..length]).is_err());
        }
        let longer = [object.as_slice(), &[0]].concat();
        assert!(unseal(ObjectKind::Snapshot, repository, &keys(), &longer).is_err());
    }

    #[test]
    fn the_stored_size_tells_little_about_the_payload() {
        let random: Vec<u8> = (0..1000u32)
            .flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        let size = |length: usize| sealed(ObjectKind::Mark, &random[..length]).len();
        assert_eq!(size(3600), size(3650));
        assert!(size(4000) < 4500);
    }
}
