//! Password slots before their password is known: what anybody can put there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::slot::Slot;
use putback_fuzz::keys;

fuzz_target!(|bytes: &[u8]| {
    let Ok(slot) = Slot::decode(bytes) else { return };
    // What opening may cost; opening itself would be Argon2id's time and nothing else.
    let cost = slot.cost;
    assert!((19 << 10..=2 << 20).contains(&cost.memory_kib));
    assert!((1..=16).contains(&cost.iterations) && (1..=16).contains(&cost.lanes));
    assert!(u64::from(cost.memory_kib) * u64::from(cost.iterations) <= 4 << 20);
    drop(slot.info(&keys()));
});
