//! A sorted table of blobs in one local file, read by block.
//!
//! The local form of many index segments: built once, never changed, deleted and built again at any
//! time. A look-up reads one block; memory holds eight bytes for each block and nothing for each
//! blob. Every block carries a checksum, since the file is written without sync: a table that a
//! power failure tore is noticed and built again, and never answers wrongly.
//!
//! ```text
//! blocks of 4096: crc32 | 85 entries of 48 bytes | zeros
//! fences: the first 8 bytes of the first id of each block
//! pack directory: id of each pack, and where its record is
//! pack records: id, salt, epoch, crc32, size, kind, hash of its blobs, frames
//! footer
//! ```

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use putback_format::compress::Codec;
use putback_format::id::{BlobId, PackId};
use putback_format::key::BlobKind;
use putback_format::pack::FrameEntry;
use putback_format::segment::SegmentPack;

use putback_store::at::{read_exact_at, write_all_at};

const BLOCK_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 48;
const BLOCK_ENTRIES: usize = (BLOCK_BYTES - 4) / ENTRY_BYTES;
const FOOTER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"PUTBTAB2";
/// Pack id, offset and length of its record, CRC-32 of the record.
const DIRECTORY_BYTES: usize = 48;

/// A record without its frames.
const RECORD_BYTES: usize = 100;

/// Where a blob is, by the pack's number in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub(crate) id: BlobId,
    pub(crate) pack: u32,
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// What is needed to read frames of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// The pack.
    pub id: PackId,
    /// Its salt.
    pub salt: [u8; 32],
    /// Its key epoch.
    pub epoch: u32,
    /// CRC-32 of its stored bytes.
    pub crc32: u32,
    /// Its size as stored.
    pub size: u64,
    /// What its blobs are.
    pub kind: BlobKind,
    /// Beginning of the hash of its blobs' ids and lengths: whether two segments say the same of a pack.
    pub contents_hash: [u8; 16],
    /// Its frames in order.
    pub frames: Vec<FrameEntry>,
}

impl PackRecord {
    /// The record of a pack that a segment describes.
    #[must_use]
    pub fn of(pack: &SegmentPack) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (id, length) in pack.contents.ids.iter().zip(&pack.contents.lengths) {
            hasher.update(id.as_bytes()).update(&length.to_le_bytes());
        }
        Self {
            id: pack.id,
            salt: pack.salt,
            epoch: pack.epoch,
            crc32: pack.crc32,
            size: pack.size,
            kind: pack.contents.kind,
            contents_hash: array(&hasher.finalize().as_bytes()[..16]),
            frames: pack.contents.frames.clone(),
        }
    }

    /// Where a frame begins in the pack.
    #[must_use]
    pub fn frame_offset(&self, frame: u32) -> u64 {
        self.frames.iter().take(frame as usize).map(|frame| u64::from(frame.stored_length)).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES + self.frames.len() * 13);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.crc32.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&self.contents_hash);
        for frame in &self.frames {
            out.extend_from_slice(&frame.stored_length.to_le_bytes());
            out.extend_from_slice(&frame.plain_length.to_le_bytes());
            out.extend_from_slice(&frame.blobs.to_le_bytes());
            out.push(frame.codec as u8);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, frames) = bytes.split_first_chunk::<RECORD_BYTES>()?;
        let (frames, rest) = frames.as_chunks::<13>();
        if !rest.is_empty() {
            return None;
        }
        Some(Self {
            id: PackId::from_bytes(array(&fixed[..32])),
            salt: array(&fixed[32..64]),
            epoch: u32_at(fixed, 64),
            crc32: u32_at(fixed, 68),
            size: u64::from_le_bytes(array(&fixed[72..80])),
            kind: BlobKind::from_byte(fixed[80]).ok()?,
            contents_hash: array(&fixed[84..100]),
            frames: frames
                .iter()
                .map(|frame| {
                    Some(FrameEntry {
                        stored_length: u32_at(frame, 0),
                        plain_length: u32_at(frame, 4),
                        blobs: u32_at(frame, 8),
                        codec: Codec::from_byte(frame[12]).ok()?,
                    })
                })
                .collect::<Option<_>>()?,
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

fn fence(id: &BlobId) -> u64 {
    u64::from_be_bytes(array(&id.as_bytes()[..8]))
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the local index is damaged")
}

impl TableEntry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..32].copy_from_slice(self.id.as_bytes());
        for (index, number) in [self.pack, self.frame, self.offset, self.length].iter().enumerate()
        {
            out[32 + index * 4..36 + index * 4].copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            id: BlobId::from_bytes(array(&bytes[..32])),
            pack: u32_at(bytes, 32),
            frame: u32_at(bytes, 36),
            offset: u32_at(bytes, 40),
            length: u32_at(bytes, 44),
        }
    }
}

/// Entries of packs that a segment lists, numbered from `first_pack`.
pub(crate) fn entries_of(pack: &SegmentPack, number: u32, out: &mut Vec<TableEntry>) {
    let mut blobs = pack.contents.ids.iter().zip(&pack.contents.lengths);
    for (frame, entry) in pack.contents.frames.iter().enumerate() {
        let mut offset = 0;
        for (id, length) in blobs.by_ref().take(entry.blobs as usize) {
            out.push(TableEntry {
                id: *id,
                pack: number,
                frame: frame as u32,
                offset,
                length: *length,
            });
            offset += length;
        }
    }
}

/// A table, open for look-ups.
pub(crate) struct Table {
    file: File,
    entries: u64,
    ids: Vec<PackId>,
    fences: Vec<u64>,
    directory_offset: u64,
}

impl Table {
    /// Opens a finished table.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let footer_offset = length.checked_sub(FOOTER_BYTES as u64).ok_or_else(torn)?;
        let mut footer = [0; FOOTER_BYTES];
        read_exact_at(&file, &mut footer, footer_offset)?;
        let (body, crc) = footer.split_at(FOOTER_BYTES - 4);
        if body[..8] != MAGIC || crc32fast::hash(body).to_le_bytes() != crc {
            return Err(torn());
        }
        let entries = u64::from_le_bytes(array(&body[8..16]));
        let packs = u32_at(body, 16);
        let fences_crc = u32_at(body, 20);
        let directory_offset = u64::from_le_bytes(array(&body[24..32]));
        let directory_crc = u32_at(body, 32);
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let fences_offset = blocks.checked_mul(BLOCK_BYTES as u64).ok_or_else(torn)?;
        if fences_offset + blocks * 8 != directory_offset
            || directory_offset + u64::from(packs) * DIRECTORY_BYTES as u64 > footer_offset
        {
            return Err(torn());
        }
        let mut bytes = vec![0; (blocks * 8) as usize];
        read_exact_at(&file, &mut bytes, fences_offset)?;
        if crc32fast::hash(&bytes) != fences_crc {
            return Err(torn());
        }
        let (fences, _) = bytes.as_chunks::<8>();
        let fences = fences.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let mut bytes = vec![0; packs as usize * DIRECTORY_BYTES];
        read_exact_at(&file, &mut bytes, directory_offset)?;
        if crc32fast::hash(&bytes) != directory_crc {
            return Err(torn());
        }
        let (rows, _) = bytes.as_chunks::<DIRECTORY_BYTES>();
        let ids = rows.iter().map(|row| PackId::from_bytes(array(&row[..32]))).collect();
        Ok(Self { file, entries, ids, fences, directory_offset })
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    pub(crate) fn packs(&self) -> u32 {
        self.ids.len() as u32
    }

    /// Ids of all packs, by their number.
    pub(crate) fn pack_ids(&self) -> &[PackId] {
        &self.ids
    }

    fn read_block(&self, block: usize, buffer: &mut [u8; BLOCK_BYTES]) -> io::Result<usize> {
        read_exact_at(&self.file, buffer, (block * BLOCK_BYTES) as u64)?;
        if crc32fast::hash(&buffer[4..]) != u32_at(buffer, 0) {
            return Err(torn());
        }
        let before = (block * BLOCK_ENTRIES) as u64;
        Ok((self.entries - before).min(BLOCK_ENTRIES as u64) as usize)
    }

    /// Hands every entry of this id to `found`, with its number in [`Table::iter`], until it says that one is
    /// enough.
    pub(crate) fn find(
        &self,
        id: &BlobId,
        mut found: impl FnMut(u64, TableEntry) -> bool,
    ) -> io::Result<()> {
        let fence = fence(id);
        // Equal ids may begin in the block before the first whose fence is at least theirs.
        let mut block = self.fences.partition_point(|first| *first < fence).saturating_sub(1);
        let mut buffer = [0; BLOCK_BYTES];
        while block < self.fences.len() && self.fences[block] <= fence {
            let count = self.read_block(block, &mut buffer)?;
            let entries = &buffer[4..4 + count * ENTRY_BYTES];
            let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
            let start = entries.partition_point(|entry| entry[..32] < id.as_bytes()[..]);
            for (number, entry) in entries.iter().enumerate().skip(start) {
                match entry[..32].cmp(&id.as_bytes()[..]) {
                    Ordering::Equal => {
                        let number = (block * BLOCK_ENTRIES + number) as u64;
                        if found(number, TableEntry::decode(entry)) {
                            return Ok(());
                        }
                    }
                    _ => return Ok(()),
                }
            }
            block += 1;
        }
        Ok(())
    }

    /// The record of a pack.
    pub(crate) fn pack(&self, number: u32) -> io::Result<PackRecord> {
        if number >= self.packs() {
            return Err(torn());
        }
        let mut row = [0; DIRECTORY_BYTES];
        let at = self.directory_offset + u64::from(number) * DIRECTORY_BYTES as u64;
        read_exact_at(&self.file, &mut row, at)?;
        let length = u32_at(&row, 40) as usize;
        if length > 64 << 20 {
            return Err(torn());
        }
        let mut bytes = vec![0; length];
        read_exact_at(&self.file, &mut bytes, u64::from_le_bytes(array(&row[32..40])))?;
        if crc32fast::hash(&bytes) != u32_at(&row, 44) {
            return Err(torn());
        }
        PackRecord::decode(&bytes).ok_or_else(torn)
    }

    /// Reads all blocks and pack records. Costs a pass over the file.
    pub(crate) fn verify(&self) -> io::Result<()> {
        let mut buffer = [0; BLOCK_BYTES];
        (0..self.fences.len())
            .try_for_each(|block| self.read_block(block, &mut buffer).map(drop))?;
        let length = self.file.metadata()?.len();
        let rest = length.checked_sub(self.directory_offset).ok_or_else(torn)?;
        let mut bytes = vec![0; rest as usize];
        read_exact_at(&self.file, &mut bytes, self.directory_offset)?;
        let (rows, _) = bytes.as_chunks::<DIRECTORY_BYTES>();
        for row in rows.iter().take(self.ids.len()) {
            let offset = u64::from_le_bytes(array(&row[32..40]));
            let start = offset.checked_sub(self.directory_offset).ok_or_else(torn)? as usize;
            let end = start.checked_add(u32_at(row, 40) as usize).ok_or_else(torn)?;
            let record = bytes.get(start..end).ok_or_else(torn)?;
            if crc32fast::hash(record) != u32_at(row, 44) {
                return Err(torn());
            }
        }
        Ok(())
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> io::Result<TableIter> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        // A reader of its own: the clone shares the file position, which nothing else here uses.
        Ok(TableIter {
            reader: BufReader::with_capacity(BLOCK_BYTES * 16, file),
            left: self.entries,
            block: Box::new([0; BLOCK_BYTES]),
            next: BLOCK_ENTRIES,
        })
    }
}

/// Reads a table from front to back.
pub(crate) struct TableIter {
    reader: BufReader<File>,
    left: u64,
    block: Box<[u8; BLOCK_BYTES]>,
    next: usize,
}

impl Iterator for TableIter {
    type Item = io::Result<TableEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        if self.next == BLOCK_ENTRIES {
            if let Err(error) = self.reader.read_exact(self.block.as_mut_slice()) {
                self.left = 0;
                return Some(Err(error));
            }
            if crc32fast::hash(&self.block[4..]) != u32_at(self.block.as_slice(), 0) {
                self.left = 0;
                return Some(Err(torn()));
            }
            self.next = 0;
        }
        let at = 4 + self.next * ENTRY_BYTES;
        self.next += 1;
        self.left -= 1;
        Some(Ok(TableEntry::decode(&self.block[at..at + ENTRY_BYTES])))
    }
}

/// Writes a table; entries come in ascending order of id.
struct TableWriter {
    out: BufWriter<File>,
    entries: u64,
    fences: Vec<u64>,
    block: Vec<u8>,
}

impl TableWriter {
    fn new(file: File) -> Self {
        let out = BufWriter::with_capacity(1 << 18, file);
        Self { out, entries: 0, fences: Vec::new(), block: vec![0; 4] }
    }

    fn push(&mut self, entry: &TableEntry) -> io::Result<()> {
        if self.block.len() == 4 {
            self.fences.push(fence(&entry.id));
        }
        self.block.extend_from_slice(&entry.encode());
        self.entries += 1;
        if self.block.len() == 4 + BLOCK_ENTRIES * ENTRY_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK_BYTES, 0);
        let crc = crc32fast::hash(&self.block[4..]);
        self.block[..4].copy_from_slice(&crc.to_le_bytes());
        self.out.write_all(&self.block)?;
        self.block.truncate(4);
        Ok(())
    }

    fn finish(mut self, packs: impl Iterator<Item = io::Result<PackRecord>>) -> io::Result<File> {
        if self.block.len() > 4 {
            self.end_block()?;
        }
        let fences: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
        self.out.write_all(&fences)?;
        let directory_offset = self.fences.len() as u64 * (BLOCK_BYTES as u64 + 8);
        // The directory stands before the records, whose lengths it needs: it is filled in afterwards.
        let (least, _) = packs.size_hint();
        let mut offset = directory_offset + least as u64 * DIRECTORY_BYTES as u64;
        self.out.write_all(&vec![0; least * DIRECTORY_BYTES])?;
        let mut directory = Vec::with_capacity(least * DIRECTORY_BYTES);
        for pack in packs {
            let pack = pack?;
            let record = pack.encode();
            directory.extend_from_slice(pack.id.as_bytes());
            directory.extend_from_slice(&offset.to_le_bytes());
            directory.extend_from_slice(&(record.len() as u32).to_le_bytes());
            directory.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
            self.out.write_all(&record)?;
            offset += record.len() as u64;
        }
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.extend_from_slice(&MAGIC);
        footer.extend_from_slice(&self.entries.to_le_bytes());
        footer.extend_from_slice(&(least as u32).to_le_bytes());
        footer.extend_from_slice(&crc32fast::hash(&fences).to_le_bytes());
        footer.extend_from_slice(&directory_offset.to_le_bytes());
        footer.extend_from_slice(&crc32fast::hash(&directory).to_le_bytes());
        footer.resize(FOOTER_BYTES - 4, 0);
        footer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
        self.out.write_all(&footer)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        write_all_at(&file, &directory, directory_offset)?;
        Ok(file)
    }
}

/// Writes a table of entries that fit into memory.
pub(crate) fn write_sorted(
    file: File,
    mut entries: Vec<TableEntry>,
    packs: Vec<PackRecord>,
) -> io::Result<Table> {
    entries.sort_unstable_by_key(|entry| (entry.id, entry.pack));
    let mut writer = TableWriter::new(file);
    for entry in &entries {
        writer.push(entry)?;
    }
    Table::open(writer.finish(packs.into_iter().map(Ok))?)
}

/// Writes the union of some tables; packs keep their order, numbered on from table to table.
pub(crate) fn merge(file: File, tables: &[&Table]) -> io::Result<Table> {
    let mut writer = TableWriter::new(file);
    let mut first_pack = 0;
    let mut sources = Vec::new();
    let mut heads = BinaryHeap::new();
    for table in tables {
        let mut iter = table.iter()?;
        if let Some(head) = iter.next().transpose()? {
            heads.push(Reverse((head.id, sources.len())));
            sources.push((head, first_pack, iter));
        }
        first_pack += table.packs();
    }
    while let Some(mut least) = heads.peek_mut() {
        let Reverse((_, index)) = *least;
        let (head, first_pack, iter) = &mut sources[index];
        writer.push(&TableEntry { pack: head.pack + *first_pack, ..*head })?;
        match iter.next().transpose()? {
            Some(next) => {
                *head = next;
                *least = Reverse((next.id, index));
            }
            None => drop(PeekMut::pop(least)),
        }
    }
    let packs: Vec<(usize, u32)> = (0..tables.len())
        .flat_map(|table| (0..tables[table].packs()).map(move |pack| (table, pack)))
        .collect();
    Table::open(writer.finish(packs.into_iter().map(|(table, pack)| tables[table].pack(pack)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BlobId {
        BlobId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn record(number: u8) -> PackRecord {
        let frame =
            FrameEntry { stored_length: 100, plain_length: 200, codec: Codec::Zstd, blobs: 3 };
        PackRecord {
            id: PackId::from_bytes([number; 32]),
            salt: [number; 32],
            epoch: 1,
            crc32: 9,
            size: 1000,
            kind: BlobKind::Data,
            contents_hash: [number; 16],
            frames: vec![frame; 5],
        }
    }

    fn table(numbers: std::ops::Range<u64>, packs: u8) -> Table {
        let entries = numbers
            .map(|n| TableEntry {
                id: id(n),
                pack: (n % u64::from(packs)) as u32,
                frame: 1,
                offset: n as u32,
                length: 7,
            })
            .collect();
        write_sorted(tempfile::tempfile().unwrap(), entries, (0..packs).map(record).collect())
            .unwrap()
    }

    fn find(table: &Table, number: u64) -> Vec<TableEntry> {
        let mut all = Vec::new();
        table
            .find(&id(number), |_, entry| {
                all.push(entry);
                false
            })
            .unwrap();
        all
    }

    #[test]
    fn every_blob_is_found_and_no_other() {
        for count in [0, 1, 84, 85, 86, 1000, 20_000] {
            let table = table(0..count, 3);
            assert_eq!(table.entries(), count);
            for number in 0..count {
                let found = find(&table, number);
                assert_eq!(found.len(), 1, "{number} of {count}");
                assert_eq!(found[0].offset, number as u32);
            }
            for number in count..count + 500 {
                assert!(find(&table, number).is_empty());
            }
            assert_eq!(table.pack(2).unwrap(), record(2));
            assert!(table.pack(3).is_err());
        }
    }

    #[test]
    fn duplicates_are_all_found_even_across_blocks() {
        let mut entries: Vec<_> = (0..300)
            .map(|n| TableEntry { id: id(5), pack: 0, frame: n, offset: 0, length: 1 })
            .collect();
        entries.extend((0..2000).filter(|n| *n != 5).map(|n| TableEntry {
            id: id(n),
            pack: 0,
            frame: 0,
            offset: 0,
            length: 1,
        }));
        let table = write_sorted(tempfile::tempfile().unwrap(), entries, vec![record(0)]).unwrap();
        assert_eq!(find(&table, 5).len(), 300);
    }

    #[test]
    fn a_merged_table_answers_like_its_parts() {
        let parts = [table(0..500, 2), table(500..5000, 4), table(4990..5100, 1)];
        let merged =
            merge(tempfile::tempfile().unwrap(), &[&parts[0], &parts[1], &parts[2]]).unwrap();
        assert_eq!((merged.entries(), merged.packs()), (500 + 4500 + 110, 7));
        for number in 0..5100 {
            let expected: usize = parts.iter().map(|part| find(part, number).len()).sum();
            assert_eq!(find(&merged, number).len(), expected, "{number}");
        }
        assert_eq!(find(&merged, 501)[0].pack, 2 + 1);
        assert_eq!(merged.pack(6).unwrap(), record(0));
    }

    #[test]
    fn a_flipped_or_missing_byte_is_an_error_and_never_a_wrong_answer() {
        let good = table(0..1000, 2);
        let mut bytes = vec![0; good.file.metadata().unwrap().len() as usize];
        read_exact_at(&good.file, &mut bytes, 0).unwrap();
        let open = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            write_all_at(&file, bytes, 0).unwrap();
            let table = Table::open(file)?;
            for number in 0..1000 {
                let mut found = 0;
                table.find(&id(number), |_, entry| {
                    assert_eq!(entry.offset, number as u32);
                    found += 1;
                    false
                })?;
                assert_eq!(found, 1);
            }
            (0..2).try_for_each(|pack| table.pack(pack).map(drop))
        };
        open(&bytes).unwrap();
        for position in (0..bytes.len()).step_by(97) {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            assert!(open(&damaged).is_err(), "byte {position}");
        }
        for length in (0..bytes.len()).step_by(513) {
            assert!(open(&bytes[..length]).is_err(), "cut to {length}");
        }
    }
}
