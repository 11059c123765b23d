//! The lists of a file: whatever its chunks, the pages that are written lead back to them.
#![no_main]

use std::collections::HashMap;
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use putback_format::id::BlobId;
use putback_format::limits::{CHUNK_BYTES_MAX, LIST_REFS_ENTRY};
use putback_format::list::{ListBuilder, decode_list_page};
use putback_format::tree::{ChunkRef, Content};
use putback_fuzz::take;

/// The chunks below references of this depth.
fn chunks(pages: &HashMap<BlobId, Vec<u8>>, refs: &[ChunkRef], depth: u8) -> Vec<ChunkRef> {
    if depth == 0 {
        return refs.to_vec();
    }
    let below = refs.iter().flat_map(|page| {
        let read = decode_list_page(&pages[&page.id], depth).expect("a page just written");
        assert_eq!(read.iter().map(|chunk| chunk.length).sum::<u64>(), page.length);
        chunks(pages, &read, depth - 1)
    });
    below.collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((count, pattern)) = take::<2>(bytes) else { return };
    let count = usize::from(u16::from_le_bytes(count)) % 12_000;
    let mut written = Vec::with_capacity(count);
    for number in 0..count {
        let at =
            |offset: usize| *pattern.get((number + offset) % pattern.len().max(1)).unwrap_or(&0);
        let mut id = [at(0); 32];
        // The first bytes decide where pages end: cut by what the input says.
        id[..4].copy_from_slice(&[at(1), at(2) & 3, 0, 0]);
        id[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let length = (u64::from(at(3)) << 12 | u64::from(at(1))) % u64::from(CHUNK_BYTES_MAX) + 1;
        written.push(ChunkRef { id: BlobId::from_bytes(id), length });
    }
    let mut pages = HashMap::new();
    let mut store = |page: &[u8]| {
        let id = BlobId::from_bytes([(pages.len() % 251) as u8; 32]);
        let mut bytes = *id.as_bytes();
        bytes[..8].copy_from_slice(&(pages.len() as u64).to_le_bytes());
        let id = BlobId::from_bytes(bytes);
        pages.insert(id, page.to_vec());
        Ok::<_, Infallible>(id)
    };
    let mut builder = ListBuilder::new();
    for chunk in &written {
        let Ok(()) = builder.push(*chunk, &mut store);
    }
    let Ok(content) = builder.finish(&mut store);
    let read = match content {
        Content::Inline(inline) => {
            assert!(inline.is_empty() && written.is_empty());
            Vec::new()
        }
        Content::Chunks(refs) => {
            assert!(refs.len() <= LIST_REFS_ENTRY);
            refs
        }
        Content::Lists { depth, pages: refs } => chunks(&pages, &refs, depth),
    };
    assert_eq!(read, written);
});
