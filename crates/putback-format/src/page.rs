//! Tree pages: the entries of a directory, cut so that a small change stays small.
//!
//! [`PageBuilder`] takes entries in ascending order of their names and yields encoded pages;
//! [`PageReader`] yields the entries of a page one at a time. Turning pages into blobs is the
//! caller's work, as is the order of names from one page of a directory to the next.
//!
//! Layout and cut rule: `docs/format.md`, "Tree pages".
//!
//! Invariants: where a page is cut depends on the names before the cut and on nothing else, as long
//! as it stays below [`PAGE_BYTES_TARGET`], so that a changed file changes one page and a new name
//! rarely more; every page that a builder yields is one that the reader accepts.

use crate::cbor::{Reader, put_array, put_uint, require_at_most};
use crate::error::Error;
use crate::limits::{
    ENTRY_BYTES_MAX, PAGE_BYTES_MAX, PAGE_BYTES_TARGET, PAGE_ENTRIES_AVERAGE, PAGE_ENTRIES_MAX,
    PAGE_ENTRIES_MIN,
};
use crate::tree::{Entry, encode_entry, read_entry};

/// What the errors of this module are about.
const WHAT: &str = "tree page";
/// The version of tree pages that this program reads and writes.
const VERSION: u32 = 1;
/// A page is an array of its version and an array of entries.
const PAGE_ITEMS: usize = 2;
/// Most bytes before the first entry.
const HEAD_BYTES_MAX: usize = 5;

/// Encodes the entries of one directory into pages.
///
/// Holds the bytes of one unfinished page: about [`PAGE_BYTES_TARGET`], and one entry at most.
#[derive(Clone, Debug, Default)]
pub struct PageBuilder {
    /// The entries of the unfinished page, encoded.
    entries: Vec<u8>,
    entries_count: usize,
    /// The name that was pushed last, also when its page is finished; empty before the first.
    last_name: Vec<u8>,
}

impl PageBuilder {
    /// A directory without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next entry; yields a page if it ends with this entry.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`] if the entry is not valid, has no name, or does not
    /// come after the one before. The entry is not taken then; the builder stays usable.
    pub fn push(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, Error> {
        entry.validate()?;
        require_next_name(&self.last_name, &entry.name)?;
        let start = self.entries.len();
        encode_entry(entry, &mut self.entries);
        let entry_bytes = self.entries.len() - start;
        if entry_bytes > ENTRY_BYTES_MAX {
            self.entries.truncate(start);
            require_at_most("length of an entry", entry_bytes, ENTRY_BYTES_MAX)?;
        }
        self.entries_count += 1;
        self.last_name.clear();
        self.last_name.extend_from_slice(&entry.name);
        Ok(self.ends_page().then(|| self.take_page()))
    }

    /// Yields the last page; `None` if every entry is in a page already or there was none.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<u8>> {
        (self.entries_count > 0).then(|| self.take_page())
    }

    /// The pages that the directory would end with if `extra` were its last entries; the builder
    /// goes on as if nothing had happened. A checkpoint closes the open path with this, each
    /// directory with the one below it as extra entry.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn provisional_pages(&self, extra: &[Entry]) -> Result<Vec<Vec<u8>>, Error> {
        let mut copy = self.clone();
        let mut pages = Vec::new();
        for entry in extra {
            pages.extend(copy.push(entry)?);
        }
        pages.extend(copy.finish());
        Ok(pages)
    }

    /// Whether the entry pushed last is the last of its page.
    fn ends_page(&self) -> bool {
        self.entries_count == PAGE_ENTRIES_MAX
            || self.entries.len() >= PAGE_BYTES_TARGET
            || self.entries_count >= PAGE_ENTRIES_MIN && ends_page_by_content(&self.last_name)
    }

    fn take_page(&mut self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEAD_BYTES_MAX + self.entries.len());
        put_array(&mut page, PAGE_ITEMS);
        put_uint(&mut page, u64::from(VERSION));
        put_array(&mut page, self.entries_count);
        page.extend_from_slice(&self.entries);
        self.entries.clear();
        self.entries_count = 0;
        page
    }
}

/// Names are hashed, not encoded entries: a file whose content or times change moves no cut.
fn ends_page_by_content(name: &[u8]) -> bool {
    let hash = blake3::hash(name);
    let [first, ..] = hash.as_bytes().as_chunks().0 else { return false };
    u64::from_le_bytes(*first).is_multiple_of(PAGE_ENTRIES_AVERAGE)
}

fn require_next_name(last_name: &[u8], name: &[u8]) -> Result<(), Error> {
    let why = match name {
        [] => "an entry has no name",
        _ if name == last_name => "two entries have the same name",
        _ if name < last_name => "the entries are not in ascending order of their names",
        _ => return Ok(()),
    };
    Err(Error::Invalid { what: WHAT, why })
}

/// Decodes a tree page entry by entry, holding one of them at most.
///
/// The iterator ends after the first error.
pub struct PageReader<'b> {
    reader: Reader<'b>,
    entries_start: usize,
    entries_left: usize,
    last_name: Vec<u8>,
}

impl<'b> PageReader<'b> {
    /// Reads the head of a page.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] if a newer program wrote it; others if it is no tree page.
    pub fn new(page: &'b [u8]) -> Result<Self, Error> {
        require_at_most("length of a tree page", page.len(), PAGE_BYTES_MAX)?;
        let mut reader = Reader::new(WHAT, page);
        // The version comes first: a newer one may have more items.
        let items = reader.array("number of items of a tree page", usize::MAX)?;
        reader.version(WHAT, VERSION)?;
        if items != PAGE_ITEMS {
            return Err(reader.invalid("it does not consist of a version and entries"));
        }
        let entries_left = reader.array("number of entries of a tree page", PAGE_ENTRIES_MAX)?;
        if entries_left == 0 {
            return Err(reader.invalid("it has no entries"));
        }
        let entries_start = reader.position();
        Ok(Self { reader, entries_start, entries_left, last_name: Vec::new() })
    }

    /// Number of entries not read yet.
    #[must_use]
    pub const fn entries_left(&self) -> usize {
        self.entries_left
    }

    fn read_next(&mut self) -> Result<Entry, Error> {
        let position = self.reader.position() - self.entries_start;
        require_at_most("start of an entry in its tree page", position, PAGE_BYTES_TARGET - 1)?;
        let entry = read_entry(&mut self.reader)?;
        require_next_name(&self.last_name, &entry.name)?;
        if self.entries_left == 1 {
            self.reader.finish()?;
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(&entry.name);
        Ok(entry)
    }
}

impl Iterator for PageReader<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.entries_left == 0 {
            return None;
        }
        let entry = self.read_next();
        self.entries_left = if entry.is_ok() { self.entries_left - 1 } else { 0 };
        Some(entry)
    }
}

/// A tree page as a whole.
#[derive(Clone, Copy, Debug)]
pub struct TreePage;

impl TreePage {
    /// Decodes all entries of a page, ascending by name.
    ///
    /// # Errors
    /// As [`PageReader::new`], and what is wrong with the first entry that is not valid.
    pub fn decode(page: &[u8]) -> Result<Vec<Entry>, Error> {
        // Not reserved at once: the count is 8,192 at most, but an entry takes 300 times its bytes.
        PageReader::new(page)?.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;
    use crate::tree::{ChunkRef, Content, EntryKind, Timestamp, Xattr};

    /// The entry of file `number`, of which `version` tells only what it contains.
    fn file(number: u32, version: u32) -> Entry {
        let length = u64::from(version % 1000 * 100 + 200);
        let chunk = ChunkRef { id: BlobId::from_bytes([version as u8; 32]), length };
        let content = Content::Chunks(vec![chunk]);
        let kind = EntryKind::File { size: length, content, holes: Vec::new() };
        let mut entry = Entry::new(format!("{number:08}.txt"), kind);
        entry.mtime = Timestamp::new(1_700_000_000, version).unwrap();
        entry
    }

    fn pages(entries: impl IntoIterator<Item = Entry>) -> Vec<Vec<u8>> {
        let mut builder = PageBuilder::new();
        let mut pages = Vec::new();
        for entry in entries {
            pages.extend(builder.push(&entry).unwrap());
        }
        pages.extend(builder.finish());
        pages
    }

    /// How many pages of `after` are not in `before`.
    fn new_pages(before: &[Vec<u8>], after: &[Vec<u8>]) -> usize {
        after.iter().filter(|page| !before.contains(page)).count()
    }

    #[test]
    fn the_entries_of_all_pages_are_those_that_were_pushed() {
        let entries: Vec<_> = (0..10_000).map(|number| file(number, number)).collect();
        let pages = pages(entries.clone());
        let decoded: Vec<_> = pages.iter().flat_map(|p| TreePage::decode(p).unwrap()).collect();
        assert_eq!(decoded, entries);
        let counts: Vec<_> =
            pages.iter().map(|p| PageReader::new(p).unwrap().entries_left()).collect();
        let (_, all_but_last) = counts.split_last().unwrap();
        assert!(all_but_last.iter().all(|n| (PAGE_ENTRIES_MIN..=PAGE_ENTRIES_MAX).contains(n)));
        assert!(pages.len() >= 5, "{counts:?}");
    }

    #[test]
    fn one_new_file_in_a_directory_of_a_million_changes_one_page() {
        let entries = |new: Option<u32>| {
            (0..2_000_000).filter(move |n| n % 2 == 0 || Some(*n) == new).map(|n| file(n, n))
        };
        let before = pages(entries(None));
        assert!((500..1200).contains(&before.len()), "{} pages", before.len());
        for new in [1, 999_999, 1_999_999] {
            assert_eq!(new_pages(&before, &pages(entries(Some(new)))), 1, "file {new}");
        }
    }

    #[test]
    fn a_changed_file_changes_one_page_wherever_it_is() {
        let entries = |changed: u32| {
            (0..20_000).map(move |n| file(n, if n == changed { 1_000_000 } else { n }))
        };
        let before = pages(entries(u32::MAX));
        for changed in (0..20_000).step_by(997) {
            assert_eq!(new_pages(&before, &pages(entries(changed))), 1, "file {changed}");
        }
    }

    #[test]
    fn a_removed_file_rarely_changes_more_than_two_pages() {
        let entries = |removed: u32| (0..20_000).filter(move |n| *n != removed).map(|n| file(n, n));
        let before = pages(entries(u32::MAX));
        let changes: Vec<_> = (0..20_000)
            .step_by(499)
            .map(|removed| new_pages(&before, &pages(entries(removed))))
            .collect();
        assert!(changes.iter().all(|count| *count <= 2), "{changes:?}");
    }

    #[test]
    fn a_page_ends_once_it_holds_a_mebibyte() {
        let entry = |number: u32| {
            let mut entry = file(number, number);
            entry.xattrs = vec![Xattr { name: b"user.big".to_vec(), value: vec![7; 100_000] }];
            entry
        };
        let pages = pages((0..30).map(entry));
        let counts: Vec<_> = pages.iter().map(|p| TreePage::decode(p).unwrap().len()).collect();
        assert_eq!(counts, [11, 11, 8]);
    }

    #[test]
    fn the_largest_entry_fits_any_page_and_a_larger_one_is_left_out() {
        let entry = |number: u32, bytes: usize| {
            let mut entry = Entry::new(format!("{number:08}"), EntryKind::Fifo);
            entry.xattrs = vec![Xattr { name: b"user.a".to_vec(), value: vec![7; bytes] }];
            entry
        };
        let mut head = Vec::new();
        encode_entry(&entry(0, 1 << 20), &mut head);
        let rest = head.len() - (1 << 20);
        let mut builder = PageBuilder::new();
        assert_eq!(builder.push(&entry(0, PAGE_BYTES_TARGET - rest - 1)).unwrap(), None);
        let error = builder.push(&entry(1, ENTRY_BYTES_MAX - rest + 1)).unwrap_err();
        assert!(error.to_string().starts_with("length of an entry is 4194305"), "{error}");
        let page = builder.push(&entry(1, ENTRY_BYTES_MAX - rest)).unwrap().unwrap();
        assert!(page.len() <= PAGE_BYTES_MAX);
        assert_eq!(TreePage::decode(&page).unwrap().len(), 2);
    }

    #[test]
    fn a_page_holds_8192_entries_at_most() {
        let entries = (0_u32..).map(|n| file(n, n)).filter(|e| !ends_page_by_content(&e.name));
        let entries = entries.map(|entry| Entry::new(entry.name, EntryKind::Fifo));
        let pages = pages(entries.take(8_193));
        let counts: Vec<_> = pages.iter().map(|p| TreePage::decode(p).unwrap().len()).collect();
        assert_eq!(counts, [8192, 1]);
    }

    #[test]
    fn entries_out_of_order_are_refused_also_across_pages_and_do_no_harm() {
        let mut builder = PageBuilder::new();
        let mut pages = Vec::new();
        for number in 0..5_000 {
            pages.extend(builder.push(&file(number, 0)).unwrap());
            if number > 0 {
                let error = builder.push(&file(number - 1, 0)).unwrap_err().to_string();
                assert!(error.ends_with("not in ascending order of their names"), "{error}");
            }
            let error = builder.push(&file(number, 1)).unwrap_err().to_string();
            assert!(error.ends_with("two entries have the same name"), "{error}");
        }
        let error = builder.push(&Entry::new("", EntryKind::Fifo)).unwrap_err().to_string();
        assert!(error.ends_with("an entry has no name"), "{error}");
        let error = builder.push(&Entry::new("..", EntryKind::Fifo)).unwrap_err().to_string();
        assert!(error.ends_with("its name is '.' or '..'"), "{error}");
        pages.extend(builder.finish());
        assert_eq!(pages, super::tests::pages((0..5_000).map(|number| file(number, 0))));
    }

    #[test]
    fn provisional_pages_end_a_copy_of_the_directory() {
        let mut builder = PageBuilder::new();
        let mut finished = Vec::new();
        for number in 0..3_000 {
            finished.extend(builder.push(&file(number, 0)).unwrap());
        }
        let extra = [file(8_000, 0), file(9_000, 0)];
        let mut provisional = finished.clone();
        provisional.extend(builder.provisional_pages(&extra).unwrap());
        let expected = pages((0..3_000).map(|number| file(number, 0)).chain(extra));
        assert_eq!(provisional, expected);

        finished.extend(builder.finish());
        assert_eq!(finished, pages((0..3_000).map(|number| file(number, 0))));
        assert_eq!(PageBuilder::new().provisional_pages(&[]).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(PageBuilder::new().finish(), None);
    }

    #[test]
    fn an_entry_that_begins_behind_the_first_mebibyte_is_refused() {
        let entry = |name: &str| {
            let mut entry = Entry::new(name, EntryKind::Fifo);
            entry.xattrs = vec![Xattr { name: b"a".to_vec(), value: vec![0; 1 << 20] }];
            entry
        };
        let mut page = vec![0x82, 0x01, 0x82];
        encode_entry(&entry("a"), &mut page);
        encode_entry(&entry("b"), &mut page);
        let error = TreePage::decode(&page).unwrap_err().to_string();
        assert!(error.starts_with("start of an entry in its tree page is 10485"), "{error}");
    }

    #[test]
    fn a_reader_ends_after_the_first_error() {
        let mut page = vec![0x82, 0x01, 0x83];
        for name in ["a", "b", "a"] {
            encode_entry(&Entry::new(name, EntryKind::Fifo), &mut page);
        }
        let mut reader = PageReader::new(&page).unwrap();
        assert!(reader.next().unwrap().is_ok());
        assert!(reader.next().unwrap().is_ok());
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());
    }
}
