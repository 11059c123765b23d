//! Segments on their way into tables of the index.
//!
//! A merged segment stands beside its inputs for a while, and a pack may be in many segments: [`Gather`] enters
//! each once. What segments say of others, that they repeat them, decides which may be missing: [`Replacements`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use hashbrown::HashTable;
use putback_format::id::{PackId, SegmentId};
use putback_format::segment::SegmentPack;
use putback_store::ErrorKind;

use crate::error::Error;
use crate::index::OpenTable;
use crate::index_table::{self, PackRecord, TableEntry, entries_of};

/// Entries that are sorted in memory at once while tables are built: 48 MiB.
const BATCH_ENTRIES: usize = 1 << 20;

/// A listed segment that could not be read.
pub(crate) struct Unread {
    /// Which.
    pub(crate) id: SegmentId,
    /// Why.
    pub(crate) error: Error,
    /// A segment that can be read repeats all that this one said.
    pub(crate) is_replaced: bool,
}

/// Whether an object is not there, or not what was written, so that trying again cannot help.
pub(crate) fn is_gone_or_damaged(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } | Error::NewerFormat { .. } => true,
        Error::Store(error) => matches!(error.kind, ErrorKind::NotFound | ErrorKind::Corrupt),
        _ => false,
    }
}

/// Which segments say that they repeat which others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replacements(pub(crate) BTreeMap<SegmentId, Vec<SegmentId>>);

impl Replacements {
    pub(crate) fn note(&mut self, by: SegmentId, replaced: Vec<SegmentId>) {
        if !replaced.is_empty() {
            self.0.insert(by, replaced);
        }
    }

    /// All segments that these repeat, directly or through others.
    pub(crate) fn replaced_by<'a>(
        &self,
        roots: impl Iterator<Item = &'a SegmentId>,
    ) -> BTreeSet<SegmentId> {
        let mut replaced = BTreeSet::new();
        let mut next: Vec<SegmentId> = roots.copied().collect();
        while let Some(id) = next.pop() {
            for other in self.0.get(&id).into_iter().flatten() {
                if replaced.insert(*other) {
                    next.push(*other);
                }
            }
        }
        replaced
    }
}

/// A pack, by the position of its table and the number in that.
#[derive(Clone, Copy)]
struct Place {
    table: u32,
    number: u32,
}

/// Gathers packs into tables, a batch at a time; a pack that is in a table already is passed over.
pub(crate) struct Gather<'a, F: Fn() -> io::Result<File>> {
    before: &'a [Arc<OpenTable>],
    temporary_file: F,
    tables: Vec<OpenTable>,
    entries: Vec<TableEntry>,
    packs: Vec<PackRecord>,
    /// Where each pack is: eight bytes for each, the ids are in the tables.
    known: HashTable<Place>,
}

fn hash(id: &PackId) -> u64 {
    let (head, _) = id.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(head[0])
}

impl<'a, F: Fn() -> io::Result<File>> Gather<'a, F> {
    /// `before` are the tables that the new ones will stand behind.
    pub(crate) fn new(before: &'a [Arc<OpenTable>], temporary_file: F) -> Self {
        let mut gather = Self {
            before,
            temporary_file,
            tables: Vec::new(),
            entries: Vec::new(),
            packs: Vec::new(),
            known: HashTable::new(),
        };
        for (table, open) in (0..).zip(before) {
            for (number, id) in (0..).zip(open.ids()) {
                gather.note(*id, Place { table, number });
            }
        }
        gather
    }

    fn id_at<'b>(
        before: &'b [Arc<OpenTable>],
        tables: &'b [OpenTable],
        packs: &'b [PackRecord],
        at: Place,
    ) -> &'b PackId {
        let (table, number) = (at.table as usize, at.number as usize);
        match (before.get(table), tables.get(table.wrapping_sub(before.len()))) {
            (Some(open), _) => &open.ids()[number],
            (None, Some(open)) => &open.ids()[number],
            (None, None) => &packs[number].id,
        }
    }

    fn note(&mut self, id: PackId, at: Place) {
        let Self { before, tables, packs, known, .. } = self;
        known.insert_unique(hash(&id), at, |at| hash(Self::id_at(before, tables, packs, *at)));
    }

    /// Whether a table, or the batch, says the same of this pack. Two segments that contradict each other are both
    /// entered, as either may be right.
    fn is_known(&self, record: &PackRecord) -> bool {
        let same = |at: &Place| {
            let id = Self::id_at(self.before, &self.tables, &self.packs, *at);
            let (table, number) = (at.table as usize, at.number as usize);
            *id == record.id
                && match (
                    self.before.get(table),
                    self.tables.get(table.wrapping_sub(self.before.len())),
                ) {
                    (Some(open), _) => open.table.pack(at.number).is_ok_and(|it| it == *record),
                    (None, Some(open)) => open.table.pack(at.number).is_ok_and(|it| it == *record),
                    (None, None) => self.packs[number] == *record,
                }
        };
        self.known.find(hash(&record.id), same).is_some()
    }

    /// Takes a pack in.
    pub(crate) fn push(&mut self, pack: &SegmentPack) -> io::Result<()> {
        let record = PackRecord::of(pack);
        if self.is_known(&record) {
            return Ok(());
        }
        if !self.entries.is_empty() && self.entries.len() + pack.contents.ids.len() > BATCH_ENTRIES
        {
            self.end_batch()?;
        }
        let number = self.packs.len() as u32;
        let table = (self.before.len() + self.tables.len()) as u32;
        entries_of(pack, number, &mut self.entries);
        let id = record.id;
        self.packs.push(record);
        self.note(id, Place { table, number });
        Ok(())
    }

    fn end_batch(&mut self) -> io::Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let (entries, packs) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.packs));
        let table = index_table::write_sorted((self.temporary_file)()?, entries, packs)?;
        self.tables.push(OpenTable::new(table));
        Ok(())
    }

    /// The new tables.
    pub(crate) fn finish(mut self) -> io::Result<Vec<OpenTable>> {
        self.end_batch()?;
        Ok(self.tables)
    }
}
