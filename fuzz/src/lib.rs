//! What the fuzz targets share: the keys of a repository that never was, and the claim that a format has one
//! encoding for each value.

use std::fmt::Debug;

use putback_format::Error;
use putback_format::id::RepositoryId;
use putback_format::key::{DedupSecret, KeyRing, MasterKey};

/// The repository that every sealed object of a target belongs to.
pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
/// The salt of everything that a target seals.
pub const SALT: [u8; 32] = [4; 32];
/// The epoch that [`keys`] has a key of.
pub const EPOCH: u32 = 1;

/// The secret of ids and cut points.
pub fn dedup() -> DedupSecret {
    DedupSecret::from_bytes([1; 32])
}

/// The key of [`EPOCH`].
pub fn master() -> MasterKey {
    MasterKey::from_bytes([3; 32])
}

/// What a password would open.
pub fn keys() -> KeyRing {
    KeyRing::new(dedup(), master())
}

/// Bytes that decode encode to the same bytes, and to an equal value from there.
#[track_caller]
pub fn assert_canonical<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Error>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(bytes) else { return };
    let encoded = encode(&value);
    assert_eq!(decode(&encoded).as_ref(), Ok(&value));
    assert_eq!(encoded, bytes, "two encodings of one value");
}

/// The first bytes of an input as a number, and the rest.
pub fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    Some((*head, rest))
}
