//! Cuts: they add up, keep to their limits, and depend on nothing behind the longest chunk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::chunk::Chunker;
use putback_format::config::ChunkerParams;
use putback_fuzz::{dedup, take};

/// A file of this many bytes from a short input.
fn expand(seed: &[u8], length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = (0..length).map(|position| {
        let byte = seed.get(position % seed.len().max(1)).copied().unwrap_or(0);
        state = (state ^ u64::from(byte)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29);
        // Runs of one byte, which no mask meets, and noise, as the input says.
        if byte & 0x80 == 0 { byte } else { (state >> 32) as u8 }
    });
    bytes.collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([min, min_high, average, max, length], seed)) = take::<5>(bytes) else { return };
    let bytes_average = (16 << 10) << (average % 3);
    let bytes_min = u32::from(u16::from_le_bytes([min, min_high])) % bytes_average / 2 * 2;
    let bytes_max = bytes_average * (2 + u32::from(max % 7)) + u32::from(max) * 2;
    let params = ChunkerParams { bytes_min, bytes_average, bytes_max };
    if params.validate().is_err() {
        return;
    }
    let chunker = Chunker::new(params, &dedup().gear_table());
    let file = expand(seed, 700 * usize::from(length) + seed.len());
    let mut position = 0;
    while position < file.len() {
        let rest = &file[position..];
        let cut = chunker.cut(rest);
        assert!(cut >= 1 && cut <= rest.len().min(bytes_max as usize), "{cut} of {}", rest.len());
        assert!(cut == rest.len() || cut >= bytes_min as usize);
        // A reader that holds no more than the longest chunk cuts alike.
        assert_eq!(chunker.cut(&rest[..rest.len().min(bytes_max as usize)]), cut);
        // Cutting the chunk alone does not divide it.
        assert_eq!(chunker.cut(&rest[..cut]), cut);
        position += cut;
    }
    assert_eq!(position, file.len());
});
