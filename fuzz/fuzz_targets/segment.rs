//! Index segments: the payload inside the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::pack::TRAILER_BYTES;
use putback_format::segment::Segment;
use putback_fuzz::assert_canonical;

fuzz_target!(|bytes: &[u8]| {
    assert_canonical(bytes, Segment::decode, |segment| segment.encode().expect("as large as read"));
    let Ok(segment) = Segment::decode(bytes) else { return };
    for pack in &segment.packs {
        assert!(
            pack.contents.stored_length() + TRAILER_BYTES as u64
                <= pack.size.max(TRAILER_BYTES as u64)
        );
        let blobs: u64 = pack.contents.frames.iter().map(|frame| u64::from(frame.blobs)).sum();
        assert_eq!(blobs, pack.contents.ids.len() as u64);
        assert_eq!(pack.contents.lengths.len(), pack.contents.ids.len());
    }
});
