//! Keys: what is derived from what.
//!
//! ```text
//! dedup secret ── blob ids of data, blob ids of trees, gear table     never changes
//! master key of an epoch + salt ── one pack, or one sealed object      a new epoch, a new key
//! ```
//!
//! Derivation is BLAKE3 `derive_key` under the contexts in this file, and nothing else. How the
//! two kinds of secret are kept under a password: `slot.rs`. Layout: `docs/format.md`, "Keys".

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Error;
use crate::id::BlobId;
use crate::limits::EPOCHS_MAX;
use crate::seal::SealKey;

const CONTEXT_DATA_ID: &str = "putback 2026-11-22 v1 blob id of data";
const CONTEXT_TREE_ID: &str = "putback 2026-11-22 v1 blob id of trees";
const CONTEXT_GEAR: &str = "putback 2026-11-22 v1 gear table";
const CONTEXT_PACK_CIPHER: &str = "putback 2026-11-22 v1 pack cipher";
const CONTEXT_PACK_NONCE: &str = "putback 2026-11-22 v1 pack nonce";
const CONTEXT_OBJECT_CIPHER: &str = "putback 2026-11-22 v1 object cipher";
const CONTEXT_OBJECT_NONCE: &str = "putback 2026-11-22 v1 object nonce";

/// What a blob holds. Data and trees have ids under different keys and packs of their own, so
/// that no file content can pass for a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// A chunk of a file.
    Data = 0,
    /// A tree page or a list page.
    Tree = 1,
}

impl BlobKind {
    /// Decodes the stored byte.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other byte than those of the variants.
    pub fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            0 => Ok(Self::Data),
            1 => Ok(Self::Tree),
            _ => Err(Error::Invalid { what: "a blob kind", why: "unknown number" }),
        }
    }
}

/// The 256 random words by which the chunker rolls.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GearTable(Vec<u64>);

impl GearTable {
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// Doubles every word, which fastcdc's two-byte loop wants as a second table.
    pub(crate) fn shift_left(&mut self) {
        for word in &mut self.0 {
            *word <<= 1;
        }
    }
}

/// The secret from which ids and cut points come. It never changes in the life of a repository.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DedupSecret([u8; 32]);

/// The secret of one epoch, from which the keys of packs and sealed objects come.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl DedupSecret {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The keys that ids are computed under.
    #[must_use]
    pub fn id_keys(&self) -> IdKeys {
        IdKeys {
            data: blake3::derive_key(CONTEXT_DATA_ID, &self.0),
            tree: blake3::derive_key(CONTEXT_TREE_ID, &self.0),
        }
    }

    /// The gear table: 256 little-endian words from the extendable output of `derive_key`.
    #[must_use]
    pub fn gear_table(&self) -> GearTable {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_GEAR);
        hasher.update(&self.0);
        let mut bytes = [0; 256 * 8];
        hasher.finalize_xof().fill(&mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        let table = GearTable(words.iter().map(|word| u64::from_le_bytes(*word)).collect());
        bytes.zeroize();
        table
    }
}

impl MasterKey {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, cipher: &str, nonce: &str, salt: &[u8; 32]) -> SealKey {
        let mut material = [0; 64];
        material[..32].copy_from_slice(&self.0);
        material[32..].copy_from_slice(salt);
        let key = SealKey {
            cipher: blake3::derive_key(cipher, &material),
            nonce: blake3::derive_key(nonce, &material),
        };
        material.zeroize();
        key
    }

    /// The key of the pack with this salt.
    #[must_use]
    pub fn pack_key(&self, salt: &[u8; 32]) -> SealKey {
        self.derive(CONTEXT_PACK_CIPHER, CONTEXT_PACK_NONCE, salt)
    }

    /// The key of the sealed object with this salt.
    #[must_use]
    pub fn object_key(&self, salt: &[u8; 32]) -> SealKey {
        self.derive(CONTEXT_OBJECT_CIPHER, CONTEXT_OBJECT_NONCE, salt)
    }
}

/// Computes blob ids.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKeys {
    data: [u8; 32],
    tree: [u8; 32],
}

impl IdKeys {
    /// The id of a blob: keyed BLAKE3-256 of its plain bytes.
    #[must_use]
    pub fn blob_id(&self, kind: BlobKind, plain: &[u8]) -> BlobId {
        let key = match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.tree,
        };
        BlobId::from_bytes(*blake3::keyed_hash(key, plain).as_bytes())
    }
}

/// Everything that an opened slot yields.
#[derive(Clone)]
pub struct KeyRing {
    pub(crate) dedup: DedupSecret,
    pub(crate) masters: BTreeMap<u32, MasterKey>,
}

impl KeyRing {
    /// The keys of a new repository, whose first epoch is 1.
    #[must_use]
    pub fn new(dedup: DedupSecret, master: MasterKey) -> Self {
        Self { dedup, masters: BTreeMap::from([(1, master)]) }
    }

    /// Adds the key of an epoch.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`EPOCHS_MAX`] epochs.
    pub fn insert(&mut self, epoch: u32, master: MasterKey) -> Result<(), Error> {
        if self.masters.len() >= EPOCHS_MAX {
            return Err(Error::TooLarge {
                what: "the number of epochs",
                value: self.masters.len() as u64 + 1,
                limit: EPOCHS_MAX as u64,
            });
        }
        self.masters.insert(epoch, master);
        Ok(())
    }

    /// Adds the epochs of another slot of the same repository. Nothing is added where the dedup secrets differ:
    /// that slot is of another repository.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`EPOCHS_MAX`] epochs.
    pub fn absorb(&mut self, other: &Self) -> Result<(), Error> {
        if !bool::from(self.dedup.0.ct_eq(&other.dedup.0)) {
            return Ok(());
        }
        for (epoch, master) in &other.masters {
            if !self.has_epoch(*epoch) {
                self.insert(*epoch, master.clone())?;
            }
        }
        Ok(())
    }

    /// Whether the key of this epoch is there.
    #[must_use]
    pub fn has_epoch(&self, epoch: u32) -> bool {
        self.masters.contains_key(&epoch)
    }

    /// How many epochs there are.
    #[must_use]
    pub fn epoch_count(&self) -> usize {
        self.masters.len()
    }

    /// The dedup secret.
    #[must_use]
    pub fn dedup(&self) -> &DedupSecret {
        &self.dedup
    }

    /// The master key of an epoch; `what` names the object that asks for it.
    ///
    /// # Errors
    /// [`Error::UnknownEpoch`] if the slot does not hold it.
    pub fn master(&self, what: &'static str, epoch: u32) -> Result<&MasterKey, Error> {
        self.masters.get(&epoch).ok_or(Error::UnknownEpoch { what, epoch })
    }

    /// The newest epoch.
    #[must_use]
    pub fn newest_epoch(&self) -> u32 {
        self.masters.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }
}
