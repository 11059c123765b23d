//! Frames: zstd with a declared plain length, and back.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use putback_format::compress::{Codec, Compressor, Decompressor};
use putback_format::limits::FRAME_PLAIN_BYTES_MAX;
use putback_fuzz::take;

thread_local! {
    // Reused as workers do: what one input leaves behind must not change the next.
    static TOOLS: RefCell<(Compressor, Decompressor)> = RefCell::new((
        Compressor::new(1).expect("memory"),
        Decompressor::new().expect("memory"),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((length, coded)) = take::<4>(bytes) else { return };
    let [codec, ..] = length;
    let length = u32::from_le_bytes(length) >> 8;
    let length = (length % (FRAME_PLAIN_BYTES_MAX + 1)) as usize;
    TOOLS.with_borrow_mut(|(compressor, decompressor)| {
        let mut plain = vec![7; 10];
        let codec = Codec::from_byte(codec % 2).expect("one of two");
        if decompressor.decompress(codec, coded, length, &mut plain).is_ok() {
            assert_eq!(plain.len(), length);
            // A declared length that is not the true one is refused.
            let mut other = Vec::new();
            assert!(decompressor.decompress(codec, coded, length + 1, &mut other).is_err());
            if length > 0 {
                assert!(decompressor.decompress(codec, coded, length - 1, &mut other).is_err());
            }
        } else {
            plain = coded.to_vec();
        }
        if plain.len() > 1 << 16 {
            return;
        }
        let (mut recoded, mut read) = (Vec::new(), Vec::new());
        let codec = compressor.compress(&plain, &mut recoded).expect("zstd works");
        assert!(recoded.len() <= plain.len());
        decompressor.decompress(codec, &recoded, plain.len(), &mut read).expect("just written");
        assert_eq!(read, plain);
    });
});
