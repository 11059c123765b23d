//! List pages of every depth.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::limits::{CHUNK_BYTES_MAX, LIST_DEPTH_MAX, LIST_REFS_MAX};
use putback_format::list::decode_list_page;

fuzz_target!(|bytes: &[u8]| {
    let mut accepted = 0;
    for depth in 0..=LIST_DEPTH_MAX + 1 {
        let Ok(refs) = decode_list_page(bytes, depth) else { continue };
        accepted += 1;
        assert!((1..=LIST_REFS_MAX).contains(&refs.len()));
        let sum = refs.iter().try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.length));
        assert!(sum.is_some());
        assert!(refs.iter().all(|chunk| chunk.length > 0));
        if depth == 1 {
            assert!(refs.iter().all(|chunk| chunk.length <= CHUNK_BYTES_MAX.into()));
        }
        // A page states all it holds: no byte can be left out.
        assert!(decode_list_page(&bytes[..bytes.len() - 1], depth).is_err());
    }
    assert!(accepted <= 1, "a page of several depths");
});
