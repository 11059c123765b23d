//! Configurations: the payload inside the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::chunk::Chunker;
use putback_format::config::Config;
use putback_fuzz::{assert_canonical, dedup};

fuzz_target!(|bytes: &[u8]| {
    assert_canonical(bytes, Config::decode, Config::encode);
    if let Ok(config) = Config::decode(bytes) {
        assert_eq!(config.validate(), Ok(()));
        // A chunker exists for whatever was accepted, and takes at least what is there.
        let length = Chunker::new(config.chunker, &dedup().gear_table()).cut(bytes);
        assert!((1..=bytes.len()).contains(&length));
    }
});
