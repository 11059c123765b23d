//! Snapshots: the payload inside the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::snapshot::Snapshot;
use putback_fuzz::assert_canonical;

fuzz_target!(|bytes: &[u8]| {
    assert_canonical(bytes, Snapshot::decode, Snapshot::encode);
    if let Ok(mut snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.validate(), Ok(()));
        // Nothing that was read is above the limits that writers trim to.
        let read = snapshot.clone();
        snapshot.trim_incidents();
        assert_eq!(snapshot, read);
    }
});
