//! Marks: which packs will go, and which snapshots are forgotten.
//!
//! A mark is never withdrawn. What follows from one is the work of the repository and of prune.
//!
//! Layout and limits: `docs/format.md`, "Marks".
//!
//! Invariant: the packs of a decoded mark are sorted and none is there twice.

use crate::cbor::{
    MapWriter, Reader, put_array, put_bytes, put_bytes_head, put_uint, require_at_most,
};
use crate::error::Error;
use crate::id::{PackId, SnapshotId, WriterId};
use crate::limits::{MARK_PACKS_MAX, MARK_SNAPSHOTS_MAX, SMALL_OBJECT_BYTES_MAX};
use crate::tree::{Timestamp, put_timestamp, read_timestamp, validate_timestamp};

/// What the errors of this module are about.
const WHAT: &str = "mark";
/// The version of marks that this program reads and writes.
const VERSION: u32 = 1;

/// Keys of the map that is a mark. All are there but for the list of the other kind.
mod key {
    pub(super) const VERSION: u32 = 0;
    pub(super) const WRITER: u32 = 1;
    pub(super) const TIME: u32 = 2;
    pub(super) const PACKS: u32 = 3;
    pub(super) const FORGOTTEN: u32 = 4;
}
/// A forgotten snapshot is an array of its id, its writer and its number.
const FORGOTTEN_ITEMS: usize = 3;

const PACKS: &str = "number of packs of a mark";
const SNAPSHOTS: &str = "number of snapshots of a forget record";

/// An object of the `marks` folder, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Who wrote it.
    pub writer: WriterId,
    /// When, by the writer's clock.
    pub time: Timestamp,
    /// What it announces.
    pub kind: MarkKind,
}

/// What a mark announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// These packs will go once the grace period is over; sorted.
    Packs(Vec<PackId>),
    /// These snapshots are forgotten; each with its writer and sequence number so that the gap is explained.
    Forget(Vec<ForgottenSnapshot>),
}

/// A snapshot named by a forget record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgottenSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its writer.
    pub writer: WriterId,
    /// Its sequence number.
    pub sequence: u64,
}

impl Mark {
    /// Checks every rule of the format.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        validate_timestamp(WHAT, self.time)?;
        match &self.kind {
            MarkKind::Packs(packs) => {
                require_at_most(PACKS, packs.len(), MARK_PACKS_MAX)?;
                if !packs.is_sorted_by(|pack, next| pack < next) {
                    return Err(invalid("its packs are not in ascending order"));
                }
                Ok(())
            }
            MarkKind::Forget(snapshots) => {
                require_at_most(SNAPSHOTS, snapshots.len(), MARK_SNAPSHOTS_MAX)
            }
        }
    }

    /// The bytes to seal. Those of a mark that is not valid are refused by every reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut map = MapWriter::begin(&mut out);
        put_uint(map.key(key::VERSION), u64::from(VERSION));
        put_bytes(map.key(key::WRITER), self.writer.as_bytes());
        put_timestamp(map.key(key::TIME), self.time);
        match &self.kind {
            MarkKind::Packs(packs) => {
                let out = map.key(key::PACKS);
                put_bytes_head(out, packs.len() * PackId::LENGTH);
                for pack in packs {
                    out.extend_from_slice(pack.as_bytes());
                }
            }
            MarkKind::Forget(snapshots) => {
                let out = map.key(key::FORGOTTEN);
                put_array(out, snapshots.len());
                for forgotten in snapshots {
                    put_array(out, FORGOTTEN_ITEMS);
                    put_bytes(out, forgotten.snapshot.as_bytes());
                    put_bytes(out, forgotten.writer.as_bytes());
                    put_uint(out, forgotten.sequence);
                }
            }
        }
        map.finish();
        out
    }

    /// Decodes the unsealed bytes of a mark.
    ///
    /// Fields of newer programs are checked and left out: a mark is never written again.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] if a newer program wrote it; others if it is not valid.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        require_at_most("length of a mark", bytes.len(), SMALL_OBJECT_BYTES_MAX as usize)?;
        let mut reader = Reader::new(WHAT, bytes);
        let mut map = reader.map()?;
        reader.version_field(&mut map, VERSION)?;
        let (mut writer, mut time, mut packs, mut forgotten) = (None, None, None, None);
        while let Some(key) = reader.next_key(&mut map)? {
            match key {
                key::WRITER => writer = Some(WriterId::from_bytes(reader.byte_array()?)),
                key::TIME => time = Some(read_timestamp(&mut reader)?),
                key::PACKS => packs = Some(read_packs(&mut reader)?),
                key::FORGOTTEN => forgotten = Some(read_forgotten(&mut reader)?),
                key => drop(reader.unknown_value(key)?),
            }
        }
        reader.finish()?;
        let missing = || invalid("a field is missing");
        let kind = match (packs, forgotten) {
            (Some(packs), None) => MarkKind::Packs(packs),
            (None, Some(snapshots)) => MarkKind::Forget(snapshots),
            (None, None) => return Err(missing()),
            (Some(_), Some(_)) => return Err(invalid("it names both packs and snapshots")),
        };
        let (writer, time) = (writer.ok_or_else(missing)?, time.ok_or_else(missing)?);
        let mark = Self { writer, time, kind };
        mark.validate()?;
        Ok(mark)
    }
}

fn read_packs(reader: &mut Reader<'_>) -> Result<Vec<PackId>, Error> {
    let bytes = reader.bytes("length of the packs of a mark", MARK_PACKS_MAX * PackId::LENGTH)?;
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(invalid("a list of packs is no multiple of 32 bytes long"));
    }
    Ok(ids.iter().copied().map(PackId::from_bytes).collect())
}

fn read_forgotten(reader: &mut Reader<'_>) -> Result<Vec<ForgottenSnapshot>, Error> {
    let count = reader.array(SNAPSHOTS, MARK_SNAPSHOTS_MAX)?;
    let mut forgotten = Vec::with_capacity(count);
    for _ in 0..count {
        let items = reader.array("number of items of a forgotten snapshot", FORGOTTEN_ITEMS)?;
        if items != FORGOTTEN_ITEMS {
            return Err(invalid("a forgotten snapshot is not an id, a writer and a number"));
        }
        forgotten.push(ForgottenSnapshot {
            snapshot: SnapshotId::from_bytes(reader.byte_array()?),
            writer: WriterId::from_bytes(reader.byte_array()?),
            sequence: reader.uint()?,
        });
    }
    Ok(forgotten)
}

fn invalid(why: &'static str) -> Error {
    Error::Invalid { what: WHAT, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: MarkKind, expected: Result<(), &str>) {
        let writer = WriterId::from_bytes([9; 16]);
        let mark = Mark { writer, time: Timestamp::from_seconds(1_750_000_000), kind };
        let decoded = Mark::decode(&mark.encode());
        assert_eq!(mark.validate().is_ok(), decoded.is_ok());
        match (decoded, expected) {
            (Ok(decoded), Ok(())) => assert_eq!(decoded, mark),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (decoded, expected) => panic!("{decoded:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_packs_of_a_mark_ascend() {
        let pack = |byte| PackId::from_bytes([byte; 32]);
        check(MarkKind::Packs(vec![]), Ok(()));
        check(MarkKind::Packs(vec![pack(1), pack(2)]), Ok(()));
        check(MarkKind::Packs(vec![pack(2), pack(1)]), Err("not in ascending order"));
        check(MarkKind::Packs(vec![pack(1), pack(1)]), Err("not in ascending order"));
    }

    #[test]
    fn a_forget_record_keeps_its_order() {
        let forgotten = |byte| ForgottenSnapshot {
            snapshot: SnapshotId::from_bytes([byte; 32]),
            writer: WriterId::from_bytes([byte; 16]),
            sequence: u64::from(byte),
        };
        check(MarkKind::Forget(vec![]), Ok(()));
        check(MarkKind::Forget(vec![forgotten(2), forgotten(1)]), Ok(()));
        check(
            MarkKind::Forget(vec![forgotten(1); (1 << 16) + 1]),
            Err("number of snapshots of a forget record is 65537"),
        );
    }

    #[test]
    fn a_field_of_a_newer_program_is_checked_and_left_out() {
        let writer = WriterId::from_bytes([9; 16]);
        let kind = MarkKind::Packs(Vec::new());
        let mark = Mark { writer, time: Timestamp::default(), kind };
        let mut bytes = mark.encode();
        assert_eq!(bytes[0], 0xa4);
        bytes[0] = 0xa5;
        bytes.extend([0x18, 64]);
        assert_eq!(Mark::decode(&bytes), Err(Error::Truncated { what: WHAT }));
        bytes.push(0x80);
        assert_eq!(Mark::decode(&bytes), Ok(mark));
    }
}
