//! Sealed objects: as they come, with any bytes inside the seal, and changed after they were sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use putback_format::envelope::{self, ObjectKind};
use putback_fuzz::{EPOCH, REPOSITORY, SALT, keys, master, take};

const KINDS: [ObjectKind; 5] = [
    ObjectKind::Config,
    ObjectKind::Segment,
    ObjectKind::Snapshot,
    ObjectKind::Mark,
    ObjectKind::SlotInfo,
];
/// Magic, kind, version, two zero bytes, repository, epoch, salt.
const HEADER_BYTES: usize = 60;

fn unseal(kind: ObjectKind, object: &[u8]) -> Option<Vec<u8>> {
    let payload = envelope::unseal(kind, REPOSITORY, &keys(), object).ok()?;
    assert!(payload.len() <= kind.bytes_max() as usize);
    assert_eq!(envelope::repository_of(kind, object), Ok(REPOSITORY));
    Some(payload)
}

/// An object with these bytes inside the seal, which only a holder of the keys could make.
fn with_plain(kind: ObjectKind, plain: &[u8]) {
    let mut object = Vec::with_capacity(HEADER_BYTES);
    object.extend_from_slice(b"PUTB");
    object.extend_from_slice(&[kind as u8, 1, 0, 0]);
    object.extend_from_slice(REPOSITORY.as_bytes());
    object.extend_from_slice(&EPOCH.to_le_bytes());
    object.extend_from_slice(&SALT);
    let header = object.clone();
    master().object_key(&SALT).seal(&SALT, &header, plain, &mut object).expect("short");
    if let Some(payload) = unseal(kind, &object) {
        let again = envelope::seal(kind, REPOSITORY, EPOCH, &master(), SALT, &payload);
        assert_eq!(unseal(kind, &again.expect("as large as read")), Some(payload));
    }
}

/// An object changed in one place, or cut.
fn changed(kind: ObjectKind, bytes: &[u8]) {
    let Some(([edit, at, at_high], payload)) = take::<3>(bytes) else { return };
    let sealed = envelope::seal(kind, REPOSITORY, EPOCH, &master(), SALT, payload).expect("short");
    assert_eq!(unseal(kind, &sealed).as_deref(), Some(payload));
    for other in KINDS.into_iter().filter(|other| *other != kind) {
        assert_eq!(unseal(other, &sealed), None, "one kind passes for another");
    }
    let position = usize::from(u16::from_le_bytes([at, at_high])) % sealed.len();
    let mut damaged = sealed.clone();
    damaged[position] ^= edit;
    assert_eq!(unseal(kind, &damaged).is_some(), edit == 0);
    assert_eq!(unseal(kind, &sealed[..position]), None);
    assert_eq!(unseal(kind, &[&sealed[..], &[edit]].concat()), None);
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([mode, kind], rest)) = take::<2>(bytes) else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    match mode % 3 {
        0 => drop(unseal(kind, rest)),
        1 => with_plain(kind, rest),
        _ => changed(kind, rest),
    }
});
