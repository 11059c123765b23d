//! The file in which ids of put.io are kept between two runs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_remotes::fuzzing::recode_ids;

fuzz_target!(|bytes: &[u8]| {
    if let Some(once) = recode_ids(bytes) {
        // Doubles and disorder do not survive the first time; then nothing changes any more.
        assert_eq!(recode_ids(&once), Some(once));
    }
});
