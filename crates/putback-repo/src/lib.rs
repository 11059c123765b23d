//! A store opened with a key.
//!
//! [`Repository`] is what can be asked of it. Nobody above sees segments, marks, salts or nonces: they
//! hand over plain blobs and get ids, and the reverse. Which object has which name is in `layout.rs`; when
//! data is safe is in `commit.rs`.

pub mod check;
pub mod clock;
pub mod commit;
pub mod compact;
pub mod error;
pub mod forget;
mod id_set;
pub mod index;
mod index_load;
mod index_table;
mod keys;
mod layout;
mod local;
mod lost;
pub mod machine;
mod object_cache;
pub mod observe;
mod open;
pub mod order;
pub mod pack_writer;
pub mod prune;
pub mod reader;
pub mod repair;
mod requests;
pub mod rotate;
pub mod snapshots;
mod state;
pub mod stats;
#[cfg(feature = "testing")]
pub mod testing;
mod tree_cache;
pub mod tree_reader;
mod workers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use putback_format::chunk::Chunker;
use putback_format::config::Config;
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{RepositoryId, SlotId};
use putback_format::key::{IdKeys, KeyRing};
use putback_format::tree::Timestamp;
use putback_store::{ObjectPath, Store};

pub use check::{CheckOptions, CheckReport, Damage, HurtSnapshot, ReadData};
pub use commit::{Backup, SnapshotDraft};
pub use compact::{CompactOptions, Compaction};
pub use error::{Error, Result};
pub use forget::{Replaced, Undeleted};
pub use index::{BlobLocation, Index, PackNumber};
pub use index_table::PackRecord;
pub use keys::{SlotInfo, SlotOwner};
pub use machine::{Clock, Machine, Random, Times};
pub use observe::{Action, Amount, Cancel, Event, Observer, Phase};
pub use open::{InitOptions, Password};
pub use order::IN_THE_FUTURE;
pub use pack_writer::{FrameWriter, PackWriter, Written};
pub use putback_format::slot::KdfCost;
pub use reader::{FrameReader, WantedFrame};
pub use repair::{Finding, RepairOptions, RepairPlan, RepairReport, RepairTarget};
pub use requests::Requests;
pub use rotate::{Rotated, Rotation};
pub use snapshots::{ROLLED_BACK, SnapshotFilter, StoredSnapshot};
pub use stats::RepositoryStats;
pub use tree_reader::Directory;

/// An open repository. Clones share everything.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    /// With a cache of small objects, where that is worth it.
    store: Arc<dyn Store>,
    /// Without.
    origin: Arc<dyn Store>,
    /// What was asked of it.
    requests: Arc<requests::Counts>,
    keys: KeyRing,
    id_keys: IdKeys,
    config: Config,
    /// The slot that the password opened; none if it was an exported key.
    slot: Option<SlotId>,
    chunker: Chunker,
    index: Index,
    machine: Machine,
    state: state::State,
    frames: reader::FrameCache,
    /// When a reader last loaded the index again, by the clock since the start of the machine.
    reloaded: Mutex<Option<Duration>>,
    /// Packs that were not there when they were read.
    absent: Mutex<reader::AbsentPacks>,
    trees: tree_cache::TreeCache,
    warnings: Mutex<Vec<String>>,
}

impl Repository {
    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.inner.config.repository
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// How to name the store to a person.
    #[must_use]
    pub fn location(&self) -> String {
        self.inner.store.describe()
    }

    /// How files are cut into chunks.
    #[must_use]
    pub fn chunker(&self) -> &Chunker {
        &self.inner.chunker
    }

    /// What blob ids are computed with.
    #[must_use]
    pub fn id_keys(&self) -> &IdKeys {
        &self.inner.id_keys
    }

    /// Where blobs are. [`Repository::load_index`] brings it up to date.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// What was asked of the store since the repository was opened.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.inner.requests.so_far()
    }

    /// The machine that it was opened on.
    pub(crate) fn machine(&self) -> &Machine {
        &self.inner.machine
    }

    /// What time it is on this machine.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.machine().clock.now()
    }

    /// Time since this machine was started, time in suspend included.
    pub(crate) fn since_boot(&self) -> Duration {
        self.machine().clock.since_boot()
    }

    /// The times that safety rests on.
    #[must_use]
    pub fn times(&self) -> &Times {
        &self.machine().times
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.inner.keys
    }

    pub(crate) fn state(&self) -> &state::State {
        &self.inner.state
    }

    /// Notes something that the user should know and that stops nothing.
    pub(crate) fn warn(&self, message: String) {
        let mut warnings = self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    /// What the user should know and was not told yet.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seals a payload under the newest epoch.
    pub(crate) fn seal(&self, kind: ObjectKind, payload: &[u8]) -> Result<Vec<u8>> {
        let salt = self.machine().random()?;
        let epoch = self.config().epoch;
        let sealed = self
            .keys()
            .master(kind.name(), epoch)
            .and_then(|master| envelope::seal(kind, self.id(), epoch, master, salt, payload));
        sealed.map_err(Error::encode(kind.name()))
    }

    /// Reads and opens an object whose name must be the hash of its bytes.
    pub(crate) fn read_sealed(&self, kind: ObjectKind, path: &ObjectPath) -> Result<Vec<u8>> {
        let bytes = read_verified(self.store().as_ref(), path, u64::from(kind.bytes_max()) * 2)?;
        envelope::unseal(kind, self.id(), self.keys(), &bytes)
            .map_err(|error| Error::object(path, error))
    }

    /// As [`Repository::read_sealed`], from the store and no cache.
    pub(crate) fn read_sealed_anew(&self, kind: ObjectKind, path: &ObjectPath) -> Result<Vec<u8>> {
        let limit = u64::from(kind.bytes_max()) * 2;
        let bytes = read_verified(self.inner.origin.as_ref(), path, limit)?;
        envelope::unseal(kind, self.id(), self.keys(), &bytes)
            .map_err(|error| Error::object(path, error))
    }

    /// Writes an object and makes sure that the store took all of it.
    pub(crate) fn write_object(&self, path: &ObjectPath, bytes: &[u8]) -> Result<()> {
        write_object(self.store().as_ref(), path, bytes)
    }
}

/// Writes an object and compares what the store says it took.
fn write_object(store: &dyn Store, path: &ObjectPath, bytes: &[u8]) -> Result<()> {
    let info = store.write(path, bytes)?;
    let is_other = info.crc32.is_some_and(|crc32| crc32 != crc32fast::hash(bytes));
    if info.size != bytes.len() as u64 || is_other {
        return Err(Error::Damaged { object: format!("{path}, just written,"), source: None });
    }
    Ok(())
}

/// Reads an object whose name ends with the hash of its bytes.
///
/// # Errors
/// [`Error::Damaged`] if the bytes have another hash.
fn read_verified(store: &dyn Store, path: &ObjectPath, bytes_max: u64) -> Result<Vec<u8>> {
    let bytes = store.read_all(path, bytes_max)?;
    let hash = blake3::hash(&bytes).to_hex();
    if !path.name().ends_with(hash.as_str()) {
        return Err(Error::Damaged { object: path.to_string(), source: None });
    }
    Ok(bytes)
}
