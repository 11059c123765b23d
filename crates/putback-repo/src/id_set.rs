//! Sets of ids.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashSet;

/// Blob ids are uniform already; hashing them again would be work for nothing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*head);
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length prefix of an array adds nothing.
    }
}

/// A set of ids that are hashes already.
pub(crate) type IdSet<T> = HashSet<T, BuildHasherDefault<IdHasher>>;
