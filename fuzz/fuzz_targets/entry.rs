//! Entries of trees.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::tree::{decode_entry, encode_entry};
use putback_fuzz::assert_canonical;

fuzz_target!(|bytes: &[u8]| {
    assert_canonical(bytes, decode_entry, |entry| {
        let mut out = Vec::new();
        encode_entry(entry, &mut out);
        out
    });
    if let Ok(entry) = decode_entry(bytes) {
        assert_eq!(entry.validate(), Ok(()));
    }
});
