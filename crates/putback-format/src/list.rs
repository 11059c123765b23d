//! List pages: the chunks of a file that has too many for its entry.
//!
//! [`ListBuilder`] takes the chunks of a file in order and yields the [`Content`] of its entry; list
//! pages go to the caller, who stores them as tree blobs and names them. [`decode_list_page`] reads
//! one page back.
//!
//! Layout and cut rule: `docs/format.md`, "List pages".
//!
//! Invariants: the lists of a file depend on its chunks and on nothing else; a page is cut by the ids
//! since the last cut of its level, so that a change in the middle of a file changes about one page
//! of each level; the builder holds one unfinished page of each level, whatever the file's size.

use crate::cbor::{Reader, put_array, put_uint};
use crate::error::Error;
use crate::id::BlobId;
use crate::limits::{
    CHUNK_BYTES_MAX, LIST_DEPTH_MAX, LIST_REFS_AVERAGE, LIST_REFS_ENTRY, LIST_REFS_MAX,
    LIST_REFS_MIN,
};
use crate::tree::{ChunkRef, Content, put_ids, split_ids};

/// What the errors of this module are about.
const WHAT: &str = "list page";
/// The version of list pages that this program reads and writes.
const VERSION: u32 = 1;
/// A page is an array of its version, its level, the ids and the lengths.
const PAGE_ITEMS: usize = 4;

/// Collects the chunks of one file.
///
/// Costs at most [`LIST_REFS_MAX`] references of memory for each level, 160 KiB.
#[derive(Clone, Debug, Default)]
pub struct ListBuilder {
    /// What the next page of each level will hold; the first level holds chunks.
    levels: Vec<Level>,
}

/// The references of a level that are in no page yet.
#[derive(Clone, Debug, Default)]
struct Level {
    refs: Vec<ChunkRef>,
    /// False as long as all references of the level would fit an entry, so that no page is needed.
    has_pages: bool,
}

impl ListBuilder {
    /// A file without chunks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk; `store` is called with each list page that this completes, and returns
    /// the id of its blob.
    ///
    /// # Errors
    /// Those of `store`. The builder is of no use then.
    pub fn push<E>(
        &mut self,
        chunk: ChunkRef,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        self.push_at(0, chunk, store)
    }

    /// Writes the pages that are left and yields what the entry holds: inline content of no bytes if
    /// there was no chunk, up to [`LIST_REFS_ENTRY`] chunks, or the topmost level of list pages.
    ///
    /// # Errors
    /// Those of `store`.
    pub fn finish<E>(
        mut self,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<Content, E> {
        let mut depth = 0_u8;
        while self.levels.get(usize::from(depth)).is_some_and(|level| level.has_pages) {
            if !self.levels[usize::from(depth)].refs.is_empty() {
                self.close_page(usize::from(depth), store)?;
            }
            depth += 1;
        }
        let refs = self.levels.pop().unwrap_or_default().refs;
        Ok(match depth {
            0 if refs.is_empty() => Content::Inline(Vec::new()),
            0 => Content::Chunks(refs),
            depth => Content::Lists { depth, pages: refs },
        })
    }

    fn push_at<E>(
        &mut self,
        level: usize,
        chunk: ChunkRef,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let this = &mut self.levels[level];
        if this.has_pages {
            return self.push_to_page(level, chunk, store);
        }
        this.refs.push(chunk);
        if this.refs.len() > LIST_REFS_ENTRY && has_level_above(level) {
            // Cut what was held back as if pages had been wanted from the beginning.
            this.has_pages = true;
            for held in std::mem::take(&mut this.refs) {
                self.push_to_page(level, held, store)?;
            }
        }
        Ok(())
    }

    fn push_to_page<E>(
        &mut self,
        level: usize,
        chunk: ChunkRef,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let refs = &mut self.levels[level].refs;
        refs.push(chunk);
        let ends_page = refs.len() == LIST_REFS_MAX
            || refs.len() >= LIST_REFS_MIN && ends_page_by_content(&chunk.id);
        if ends_page { self.close_page(level, store) } else { Ok(()) }
    }

    /// Writes the unfinished page of a level and names it in the level above.
    fn close_page<E>(
        &mut self,
        level: usize,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let refs = &mut self.levels[level].refs;
        // A file is not longer than a u64; if a caller says otherwise, its entry will not validate.
        let length = refs.iter().fold(0_u64, |sum, r| sum.saturating_add(r.length));
        let page = encode_list_page(refs, level + 1);
        refs.clear();
        let id = store(&page)?;
        self.push_at(level + 1, ChunkRef { id, length }, store)
    }
}

/// Beyond [`LIST_DEPTH_MAX`] levels of pages the entry would have to hold all; at least
/// 256^4 * 1,024 chunks are needed to get there, so that the entry's own limit may refuse the file.
fn has_level_above(level: usize) -> bool {
    level < usize::from(LIST_DEPTH_MAX)
}

/// An id is a keyed hash, so its first bytes serve as they are.
fn ends_page_by_content(id: &BlobId) -> bool {
    let [first, ..] = id.as_bytes().as_chunks().0 else { return false };
    u64::from_le_bytes(*first).is_multiple_of(LIST_REFS_AVERAGE)
}

/// `level` is 1 for a page of chunks.
fn encode_list_page(refs: &[ChunkRef], level: usize) -> Vec<u8> {
    let mut page = Vec::with_capacity(refs.len() * (BlobId::LENGTH + 5) + 16);
    put_array(&mut page, PAGE_ITEMS);
    put_uint(&mut page, u64::from(VERSION));
    put_uint(&mut page, level as u64);
    put_ids(&mut page, refs.iter().map(|r| &r.id));
    put_array(&mut page, refs.len());
    for r in refs {
        put_uint(&mut page, r.length);
    }
    page
}

/// Decodes a list page: references to chunks if `depth_remaining` is 1, else to list pages that are
/// read with `depth_remaining - 1`. A page named by an entry has the entry's `depth`.
///
/// The sum of the lengths does not overflow; the caller compares it with what the parent says.
///
/// # Errors
/// [`Error::UnknownVersion`] if a newer program wrote it; others if it is no list page of this depth.
pub fn decode_list_page(bytes: &[u8], depth_remaining: u8) -> Result<Vec<ChunkRef>, Error> {
    let mut reader = Reader::new(WHAT, bytes);
    // The version comes first: a newer one may have more items.
    let items = reader.array("number of items of a list page", usize::MAX)?;
    reader.version(WHAT, VERSION)?;
    if items != PAGE_ITEMS {
        return Err(reader.invalid("it does not consist of version, level, ids and lengths"));
    }
    if reader.uint()? != u64::from(depth_remaining) || depth_remaining == 0 {
        return Err(reader.invalid("it is of another level than its parent says"));
    }
    let ids = reader.bytes("length of a list of ids", LIST_REFS_MAX * BlobId::LENGTH)?;
    let ids = split_ids(ids)
        .ok_or_else(|| reader.invalid("a list of ids is no multiple of 32 bytes long"))?;
    if ids.is_empty() {
        return Err(reader.invalid("it is empty"));
    }
    if reader.array("number of chunks of a list", LIST_REFS_MAX)? != ids.len() {
        return Err(reader.invalid("its chunks and their lengths differ in number"));
    }
    let mut refs = Vec::with_capacity(ids.len());
    let mut total = 0_u64;
    for id in ids {
        let length = reader.uint()?;
        if length == 0 {
            return Err(reader.invalid("a chunk is empty"));
        }
        if depth_remaining == 1 && length > u64::from(CHUNK_BYTES_MAX) {
            let limit = u64::from(CHUNK_BYTES_MAX);
            return Err(Error::TooLarge { what: "length of a chunk", value: length, limit });
        }
        total = total
            .checked_add(length)
            .ok_or_else(|| reader.invalid("the lengths of its chunks overflow"))?;
        refs.push(ChunkRef { id, length });
    }
    reader.finish()?;
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    /// Stored pages by id.
    type Pages = HashMap<BlobId, Vec<u8>>;

    fn chunk(number: u64) -> ChunkRef {
        let id = *blake3::hash(&number.to_le_bytes()).as_bytes();
        ChunkRef { id: BlobId::from_bytes(id), length: number % 1000 + 1 }
    }

    fn build(chunks: impl IntoIterator<Item = ChunkRef>) -> (Content, Pages) {
        let mut pages = Pages::new();
        let mut store = |page: &[u8]| {
            let id = BlobId::from_bytes(*blake3::hash(page).as_bytes());
            pages.insert(id, page.to_vec());
            Ok::<_, Infallible>(id)
        };
        let mut builder = ListBuilder::new();
        for chunk in chunks {
            builder.push(chunk, &mut store).unwrap();
        }
        let content = builder.finish(&mut store).unwrap();
        (content, pages)
    }

    fn flatten(content: &Content, pages: &Pages) -> Vec<ChunkRef> {
        let (mut depth, mut refs) = match content {
            Content::Inline(bytes) => {
                assert!(bytes.is_empty());
                return Vec::new();
            }
            Content::Chunks(chunks) => (0, chunks.clone()),
            Content::Lists { depth, pages } => (*depth, pages.clone()),
        };
        while depth > 0 {
            let below = refs.iter().flat_map(|page| {
                let refs = decode_list_page(&pages[&page.id], depth).unwrap();
                assert_eq!(refs.iter().map(|r| r.length).sum::<u64>(), page.length);
                refs
            });
            refs = below.collect();
            depth -= 1;
        }
        refs
    }

    fn depth(content: &Content) -> u8 {
        if let Content::Lists { depth, .. } = content { *depth } else { 0 }
    }

    #[test]
    fn a_file_of_any_length_gets_its_chunks_back() {
        for (count, depth_expected) in
            [(0, 0), (1, 0), (1024, 0), (1025, 1), (5_000, 1), (100_000, 1), (3_000_000, 2)]
        {
            let (content, pages) = build((0..count).map(chunk));
            assert_eq!(depth(&content), depth_expected, "{count} chunks");
            assert!(flatten(&content, &pages).into_iter().eq((0..count).map(chunk)), "{count}");
            assert_eq!(pages.is_empty(), depth_expected == 0);
        }
    }

    #[test]
    fn a_file_of_equal_chunks_is_cut_at_the_maximum() {
        let (content, pages) = build((0..5_000_000).map(|_| chunk(1)));
        assert_eq!(depth(&content), 2);
        assert!(pages.len() <= 6, "{}", pages.len());
        assert_eq!(flatten(&content, &pages).len(), 5_000_000);
    }

    #[test]
    fn a_chunk_inserted_into_a_long_file_changes_one_page_of_each_level() {
        let (content, before) = build((0..3_000_000).map(chunk));
        let inserted = (0..1_500_000).chain([u64::MAX]).chain(1_500_000..3_000_000);
        let (_, after) = build(inserted.map(chunk));
        let new = after.keys().filter(|id| !before.contains_key(id)).count();
        assert_eq!(new, usize::from(depth(&content)));
    }

    #[test]
    fn an_error_of_the_store_is_handed_on() {
        let mut builder = ListBuilder::new();
        let mut store = |_: &[u8]| Err("full");
        let result = (0..100_000).try_for_each(|number| builder.push(chunk(number), &mut store));
        assert_eq!(result, Err("full"));
    }

    #[test]
    fn a_list_page_is_read_at_its_own_level_only() {
        let refs = [chunk(1), chunk(2)];
        for level in 1..=4 {
            let page = encode_list_page(&refs, level);
            for depth in 0..=5 {
                let decoded = decode_list_page(&page, depth);
                assert_eq!(decoded.is_ok(), usize::from(depth) == level, "{level} as {depth}");
            }
        }
    }

    #[test]
    fn a_list_page_holds_possible_lengths_only() {
        let check = |lengths: &[u64], level: usize, expected: &str| {
            let id = BlobId::from_bytes([1; 32]);
            let refs: Vec<_> = lengths.iter().map(|&length| ChunkRef { id, length }).collect();
            let page = encode_list_page(&refs, level);
            match decode_list_page(&page, level as u8) {
                Ok(decoded) => assert!(expected.is_empty() && decoded == refs, "{lengths:?}"),
                Err(error) => assert_eq!(error.to_string(), expected),
            }
        };
        check(&[1, 16 << 20], 1, "");
        check(&[(16 << 20) + 1], 1, "length of a chunk is 16777217, above the limit of 16777216");
        check(&[(16 << 20) + 1], 2, "");
        check(&[1, 0], 1, "list page is invalid: a chunk is empty");
        check(&[u64::MAX, 1], 2, "list page is invalid: the lengths of its chunks overflow");
        check(&[], 1, "list page is invalid: it is empty");
        check(&[1; 4096], 1, "");
        check(&[1; 4097], 1, "length of a list of ids is 131104, above the limit of 131072");
    }
}
