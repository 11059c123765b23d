//! Marks and forget records: the payload inside the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::mark::Mark;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mark) = Mark::decode(bytes) else { return };
    assert_eq!(mark.validate(), Ok(()));
    // Fields of newer programs are left out, so the bytes may differ; never the mark.
    let encoded = mark.encode();
    assert!(encoded.len() <= bytes.len());
    if encoded.len() == bytes.len() {
        assert_eq!(encoded, bytes, "two encodings of one mark");
    }
    assert_eq!(Mark::decode(&encoded), Ok(mark));
});
