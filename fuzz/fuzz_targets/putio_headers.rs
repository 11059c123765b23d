//! Headers of put.io's answers: waits, ranges, addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    putio::fuzzing::read_headers([next(), next(), next(), next(), next()]);
    putio::fuzzing::read_range(next());
    putio::fuzzing::read_address(next());
});
