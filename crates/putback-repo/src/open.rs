//! Making a repository, and opening one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use putback_format::chunk::Chunker;
use putback_format::config::{ChunkerParams, Config};
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{ConfigId, RepositoryId, SlotId};
use putback_format::key::{BlobKind, DedupSecret, KeyRing, MasterKey};
use putback_format::limits::{
    CHUNK_AVERAGE_MAX, CHUNK_AVERAGE_MIN, PACK_BYTES_MAX, PACK_BYTES_MIN, SLOTS_MAX,
    SMALL_OBJECT_BYTES_MAX,
};
use putback_format::slot::{self, KdfCost, Slot};
use putback_format::tree::Timestamp;
use putback_store::{ErrorKind, LockMode, ObjectPath, Store};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::keys::SlotOwner;
use crate::reader::FrameCache;
use crate::requests::CountedStore;
use crate::snapshots::ROLLED_BACK;
use crate::state::{Seen, State};
use crate::tree_cache::TreeCache;
use crate::{Inner, Machine, Repository, layout, object_cache, read_verified, write_object};

/// A full pack, unless `init` says otherwise.
const PACK_BYTES: u64 = 32 << 20;
/// Average chunk, unless `init` says otherwise: `docs/format.md` has the measurement.
const CHUNK_BYTES_AVERAGE: u32 = 128 << 10;
/// Plain bytes of a frame: `docs/format.md` has the measurement.
const FRAME_BYTES: u32 = 1 << 20;
/// zstd level, unless `init` says otherwise: `docs/format.md` has the measurement.
const COMPRESSION_LEVEL: i32 = 3;

/// What is said where slots hold a key that no configuration names.
const UNFINISHED: &str = "a rotation of the keys was not finished, or the storage shows an older configuration: new data is still sealed under the key of before";

/// A password. Zeroised on drop, shown by nothing.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes of a password.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// What a new repository is to be like. `None` stands for the default.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Cost of the first slot.
    pub kdf_cost: KdfCost,
    /// Size of a full pack: 8 to 256 MiB.
    pub pack_bytes: Option<u64>,
    /// zstd level, -7 to 22.
    pub compression_level: Option<i32>,
    /// Average chunk: a power of two from 16 KiB to 2 MiB.
    pub chunk_bytes_average: Option<u32>,
    /// Whose password the first slot is for.
    pub owner: SlotOwner,
}

impl InitOptions {
    fn config(&self, repository: RepositoryId, created: Timestamp) -> Result<Config> {
        let bad = |what: String| Error::BadOption { what };
        let pack_bytes = self.pack_bytes.unwrap_or(PACK_BYTES);
        if !(PACK_BYTES_MIN..=PACK_BYTES_MAX).contains(&pack_bytes) {
            let (least, most) = (PACK_BYTES_MIN >> 20, PACK_BYTES_MAX >> 20);
            return Err(bad(format!(
                "the pack size must be {least} to {most} MiB, not {pack_bytes} bytes"
            )));
        }
        let average = self.chunk_bytes_average.unwrap_or(CHUNK_BYTES_AVERAGE);
        if !average.is_power_of_two() || !(CHUNK_AVERAGE_MIN..=CHUNK_AVERAGE_MAX).contains(&average)
        {
            let (least, most) = (CHUNK_AVERAGE_MIN >> 10, CHUNK_AVERAGE_MAX >> 10);
            return Err(bad(format!(
                "the chunk size must be a power of two from {least} to {most} KiB, not {average} bytes"
            )));
        }
        let level = self.compression_level.unwrap_or(COMPRESSION_LEVEL);
        if !(-7..=22).contains(&level) {
            return Err(bad(format!("the compression level must be -7 to 22, not {level}")));
        }
        // The largest chunk must fit into a frame, and that into the smallest pack.
        let bytes_max = (average * 8).min(4 << 20);
        Ok(Config {
            repository,
            generation: 1,
            created,
            chunker: ChunkerParams { bytes_min: average / 4, bytes_average: average, bytes_max },
            pack_bytes,
            frame_bytes: FRAME_BYTES,
            compression_level: level,
            epoch: 1,
            unknown: Vec::new(),
        })
    }
}

impl Repository {
    /// Makes a repository where there is none.
    ///
    /// # Errors
    /// - [`Error::RepositoryExists`]: there is one, or another `init` was faster.
    /// - [`Error::BadOption`]: an option that no repository can have.
    pub fn init(
        store: Arc<dyn Store>,
        password: &Password,
        options: &InitOptions,
        machine: &Machine,
    ) -> Result<Self> {
        let dedup = DedupSecret::from_bytes(machine.random()?);
        Self::init_with(store, password, options, None, dedup, machine)
    }

    /// As [`Repository::init`], with the chunks and ids of another repository: its parameters of the chunker and its
    /// dedup secret. What is copied from one to the other need not be cut anew. Keys of packs and objects are new.
    ///
    /// # Errors
    /// As [`Repository::init`]; [`Error::BadOption`] if the options ask for another size of chunks.
    pub fn init_like(
        store: Arc<dyn Store>,
        password: &Password,
        options: &InitOptions,
        like: &Self,
        machine: &Machine,
    ) -> Result<Self> {
        let chunker = like.config().chunker;
        if options.chunk_bytes_average.is_some_and(|average| average != chunker.bytes_average) {
            let what = format!(
                "the chunk size is that of the other repository, {} KiB on average",
                chunker.bytes_average >> 10
            );
            return Err(Error::BadOption { what });
        }
        let dedup = like.keys().dedup().clone();
        Self::init_with(store, password, options, Some(chunker), dedup, machine)
    }

    /// Whether what is stored in the other repository has the same ids here and is cut in the same places.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let id = |repository: &Self| repository.id_keys().blob_id(BlobKind::Data, b"");
        id(self) == id(other) && self.config().chunker == other.config().chunker
    }

    fn init_with(
        store: Arc<dyn Store>,
        password: &Password,
        options: &InitOptions,
        chunker: Option<ChunkerParams>,
        dedup: DedupSecret,
        machine: &Machine,
    ) -> Result<Self> {
        let location = store.describe();
        let repository = RepositoryId::from_bytes(machine.random()?);
        let mut config = options.config(repository, machine.clock.now())?;
        config.chunker = chunker.unwrap_or(config.chunker);
        let keys = KeyRing::new(dedup, MasterKey::from_bytes(machine.random()?));
        let slot =
            options.owner.seal_slot(password, options.kdf_cost, repository, &keys, machine)?;
        let payload = config.encode();
        let salt = machine.random()?;
        let object = keys
            .master("a configuration", 1)
            .and_then(|master| {
                envelope::seal(ObjectKind::Config, repository, 1, master, salt, &payload)
            })
            .map_err(Error::encode("a configuration"))?;

        let is_new = store.create(&layout::FOLDERS)? && store.capabilities().is_remote;
        let lock = store.lock(LockMode::Exclusive)?;
        // Where a listing costs a round trip, a folder that was just made needs none.
        if !is_new && Self::exists(store.as_ref())? {
            return Err(Error::RepositoryExists { location });
        }
        if lock.is_some() {
            remove_leftovers(store.as_ref())?;
        }
        let slot_id = SlotId::of_stored(&slot);
        let config_id = ConfigId::of_stored(&object);
        let slot_path = layout::slot(&slot_id);
        let config_path = layout::config(1, &config_id);
        // The configuration comes last: a repository that shows is whole, and without one there is none.
        let objects = [
            (slot_path.clone(), slot.as_slice()),
            (layout::copy(&slot_path), &slot),
            (layout::copy(&config_path), &object),
            (layout::readme(), layout::README.as_bytes()),
            (config_path, &object),
        ];
        let cached = object_cache::layer(&store, machine);
        for (path, bytes) in &objects {
            write_object(cached.as_ref(), path, bytes)?;
        }

        // Where locks do not reach, another `init` may have done the same: one of the two gives way.
        let mut configs = list_configs(store.as_ref())?;
        let is_other = |config: &(u64, ConfigId, ObjectPath)| config.1 != config_id;
        if lock.is_none()
            && configs.iter().any(is_other)
            && configs.iter().all(|(_, id, _)| *id >= config_id)
        {
            // It is the other's to give way, unless it looked before this one was there to be seen: then it stays.
            machine.clock.sleep(machine.times.second_look);
            configs = list_configs(store.as_ref())?;
        }
        if configs.iter().any(is_other) {
            for (path, _) in objects.iter().rev().filter(|(path, _)| *path != layout::readme()) {
                let info = store.stat(path)?;
                store.delete(&[info])?;
            }
            return Err(Error::RepositoryExists { location });
        }
        Self::assemble(store, keys, config, Some(slot_id), machine)
    }

    /// Whether there is something at `store` that a password could open. Reads nothing but listings.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be listed.
    pub fn exists(store: &dyn Store) -> Result<bool> {
        Ok(!list_configs(store)?.is_empty() || holds_backups(store)?)
    }

    /// Whether a repository has something of this name in its root.
    #[must_use]
    pub fn uses_name(name: &str) -> bool {
        name == layout::README_NAME || layout::FOLDERS.contains(&name)
    }

    /// Opens a repository with a password.
    ///
    /// # Errors
    /// - [`Error::NoRepository`]: nothing is there.
    /// - [`Error::NoSlots`], [`Error::NoConfig`]: there is none, nor a copy.
    /// - [`Error::WrongPassword`]: no slot opens.
    /// - [`Error::OutdatedKey`]: the slot that opens lacks the newest key.
    /// - [`Error::NewerFormat`]: slots or configuration need a newer program.
    /// - [`Error::Damaged`]: slots or configuration are damaged, and so are their second copies.
    pub fn open(store: Arc<dyn Store>, password: &Password, machine: &Machine) -> Result<Self> {
        let location = store.describe();
        let cached = object_cache::layer(&store, machine);
        let mut warnings = Vec::new();
        let configs = list_configs(cached.as_ref())?;
        if configs.is_empty() && !holds_backups(cached.as_ref())? {
            return Err(Error::NoRepository { location });
        }
        // Where a listing costs a round trip, the second copies are looked at only if nothing else opens.
        let groups: &[&[&str]] = match store.capabilities().is_remote {
            true => &[&[layout::KEYS], &[layout::COPIES]],
            false => &[&[layout::KEYS, layout::COPIES]],
        };
        let mut listed = BTreeSet::new();
        let mut has_slots = false;
        let mut unreadable = None;
        for folders in groups {
            let mut ids = list_slots(cached.as_ref(), folders)?;
            ids.retain(|id| listed.insert(*id));
            let mut slots = read_slots_of(cached.as_ref(), ids, &mut warnings)?;
            has_slots |= !slots.is_empty();
            // The slot that opened last time comes first: each try costs what Argon2id costs.
            slots.sort_by_key(|(id, bytes)| {
                let last = Slot::decode(bytes).ok().and_then(|slot| {
                    State::new(
                        machine.state.as_deref(),
                        slot.repository,
                        Arc::clone(&machine.random),
                    )
                    .last_slot()
                });
                (last != Some(*id), *id)
            });
            for (id, bytes) in slots.iter().take(SLOTS_MAX * 2) {
                let opened = Slot::decode(bytes).and_then(|slot| {
                    slot.open(password.as_bytes()).map(|keys| (slot.repository, keys))
                });
                let (repository, keys) = match opened {
                    Ok(opened) => opened,
                    Err(putback_format::Error::WrongPassword) => continue,
                    Err(error) => {
                        unreadable = Some(Error::object(layout::slot(id), error));
                        continue;
                    }
                };
                let store_of = cached.as_ref();
                let config = match read_config(
                    store_of,
                    configs.clone(),
                    repository,
                    &keys,
                    &mut warnings,
                ) {
                    Ok(config) => config,
                    // A slot that an `init` left which did not come to its end: another one may fit.
                    // Likewise one that a rotation of the keys has not removed yet.
                    Err(error @ (Error::TwoRepositories { .. } | Error::OutdatedKey { .. })) => {
                        unreadable = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let opened = Self::assemble(store, keys, config, Some(*id), machine)?;
                opened.state().set_last_slot(id);
                warnings.into_iter().for_each(|warning| opened.warn(warning));
                return Ok(opened);
            }
        }
        // A slot that could not be tried may be the right one: that is the better message.
        Err(match unreadable {
            Some(error) => error,
            None if listed.is_empty() => match list_config_copies(cached.as_ref())?.is_empty() {
                true if configs.is_empty() => Error::NoConfig { location },
                _ => Error::NoSlots { location },
            },
            None if !has_slots => Error::Damaged {
                object: format!("every password slot of {location}"),
                source: None,
            },
            None => Error::WrongPassword { location },
        })
    }

    /// Opens a repository with the text that `key export` wrote.
    ///
    /// # Errors
    /// As [`Repository::open`]; [`Error::Damaged`] if the text was mistyped, naming the line.
    pub fn open_with_exported_key(
        store: Arc<dyn Store>,
        text: &str,
        machine: &Machine,
    ) -> Result<Self> {
        let (repository, keys) =
            slot::import(text).map_err(|error| Error::object("the exported key", error))?;
        let cached = object_cache::layer(&store, machine);
        let configs = list_configs(cached.as_ref())?;
        if configs.is_empty() && !holds_backups(cached.as_ref())? {
            return Err(Error::NoRepository { location: store.describe() });
        }
        let mut warnings = Vec::new();
        let config = match read_config(cached.as_ref(), configs, repository, &keys, &mut warnings) {
            // One key and one repository that do not fit are no sign of two repositories in one folder.
            Err(Error::TwoRepositories { location, first, second }) => {
                return Err(Error::KeyOfOther { location, key: first, repository: second });
            }
            config => config?,
        };
        let opened = Self::assemble(store, keys, config, None, machine)?;
        warnings.into_iter().for_each(|warning| opened.warn(warning));
        Ok(opened)
    }

    pub(crate) fn assemble(
        store: Arc<dyn Store>,
        keys: KeyRing,
        config: Config,
        slot: Option<SlotId>,
        machine: &Machine,
    ) -> Result<Self> {
        let chunker = Chunker::new(config.chunker, &keys.dedup().gear_table());
        let cache = machine.cache.as_ref().map(|cache| cache.join(config.repository.to_string()));
        let trees = cache.as_ref().filter(|_| store.capabilities().is_remote);
        let trees = TreeCache::new(trees.map(|cache| cache.join("trees")));
        let index = Index::new(config.repository, cache.map(|cache| cache.join("index")));
        let state =
            State::new(machine.state.as_deref(), config.repository, Arc::clone(&machine.random));
        // What opening took is not counted: the same for every command.
        let requests = Arc::default();
        let store: Arc<dyn Store> = Arc::new(CountedStore::new(store, &requests));
        let opened = Self {
            inner: Arc::new(Inner {
                store: object_cache::layer(&store, machine),
                origin: store,
                requests,
                id_keys: keys.dedup().id_keys(),
                keys,
                config,
                slot,
                chunker,
                index,
                machine: machine.clone(),
                state,
                frames: FrameCache::default(),
                reloaded: Mutex::default(),
                absent: Mutex::default(),
                trees,
                warnings: Default::default(),
            }),
        };
        opened.note_generation();
        if opened.keys().newest_epoch() > opened.config().epoch {
            opened.warn(UNFINISHED.to_owned());
        }
        Ok(opened)
    }

    /// The same repository with an index that knows nothing yet; all comes from the store, unless the cache
    /// of objects may be used.
    pub(crate) fn with_fresh_index(&self, uses_cache: bool) -> Self {
        let inner = &self.inner;
        let trees = if uses_cache { inner.trees.again() } else { TreeCache::new(None) };
        Self {
            inner: Arc::new(Inner {
                store: Arc::clone(if uses_cache { &inner.store } else { &inner.origin }),
                origin: Arc::clone(&inner.origin),
                requests: Arc::clone(&inner.requests),
                id_keys: inner.id_keys.clone(),
                keys: inner.keys.clone(),
                config: inner.config.clone(),
                slot: inner.slot,
                chunker: inner.chunker.clone(),
                index: Index::new(self.id(), None),
                machine: Machine { cache: None, state: None, ..inner.machine.clone() },
                state: State::new(None, self.id(), Arc::clone(&inner.machine.random)),
                frames: FrameCache::default(),
                reloaded: Mutex::default(),
                absent: Mutex::default(),
                trees,
                warnings: Default::default(),
            }),
        }
    }

    /// Notes what was seen. Where that is not possible reading goes on: only the evidence of a later rollback is
    /// missing.
    pub(crate) fn note_seen(&self, news: &Seen) {
        let noted = self.state().lock().and_then(|_lock| self.state().note_seen(news));
        if let Err(error) = noted {
            self.warn_of_state(&error);
        }
    }

    /// What earlier runs of this machine saw; a warning and nothing if that cannot be read.
    pub(crate) fn seen_if_readable(&self) -> Seen {
        self.state().seen().unwrap_or_else(|error| {
            self.warn_of_state(&error);
            Seen::default()
        })
    }

    fn warn_of_state(&self, error: &Error) {
        self.warn(format!(
            "{error}: a storage that is rolled back cannot be noticed, and an interrupted backup begins again"
        ));
    }

    /// A store that shows an older configuration than it did has been rolled back.
    fn note_generation(&self) {
        let seen = self.seen_if_readable();
        let generation = self.config().generation;
        if let Some(evidence) = self.older_generation(&seen) {
            self.warn(evidence);
        } else if generation > seen.generation {
            self.note_seen(&Seen { generation, ..Seen::default() });
        }
    }

    /// Whether a configuration, a slot or a copy of one says that it belongs to another repository.
    pub(crate) fn is_of_other(&self, path: &ObjectPath, bytes: &[u8]) -> bool {
        let is_config = path.folder() == layout::CONFIG || path.name().starts_with("config-");
        let owner = match is_config {
            true => envelope::repository_of(ObjectKind::Config, bytes),
            false => Slot::decode(bytes).map(|slot| slot.repository),
        };
        owner.is_ok_and(|owner| owner != self.id())
    }

    /// What is to be said if the configuration is older than one that was seen.
    pub(crate) fn older_generation(&self, seen: &Seen) -> Option<String> {
        let generation = self.config().generation;
        (generation < seen.generation).then(|| {
            format!(
                "the storage shows generation {generation} of the configuration, but generation {} was seen before: it may have been {ROLLED_BACK}",
                seen.generation
            )
        })
    }
}

/// Whether anything is there that a backup leaves, so that a missing configuration is a damage.
fn holds_backups(store: &dyn Store) -> Result<bool> {
    for folder in [layout::SNAPSHOTS, layout::INDEX, layout::PACKS, layout::MARKS] {
        match store.list(folder) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            listed => {
                if !listed?.is_empty() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Removes what an `init` that did not come to its end has left: keys of a repository that never was.
fn remove_leftovers(store: &dyn Store) -> Result<()> {
    for folder in [layout::KEYS, layout::COPIES] {
        let left = store.list(folder)?;
        if !left.is_empty() {
            store.delete(&left)?;
        }
    }
    Ok(())
}

/// Configurations by name: generation, hash and path, oldest first.
pub(crate) fn list_configs(store: &dyn Store) -> Result<Vec<(u64, ConfigId, ObjectPath)>> {
    let listed = match store.list(layout::CONFIG) {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    let mut configs: Vec<_> = listed
        .into_iter()
        .filter_map(|info| {
            let (generation, id) = layout::parse_config(info.path.name())?;
            Some((generation, id, info.path))
        })
        .collect();
    // Of equal generations the smaller hash wins: it comes last.
    configs.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    configs.dedup();
    Ok(configs)
}

/// All slots that can be read, from their second copies where need be.
pub(crate) fn read_slots(
    store: &dyn Store,
    warnings: &mut Vec<String>,
) -> Result<Vec<(SlotId, Vec<u8>)>> {
    let ids = list_slots(store, &[layout::KEYS, layout::COPIES])?;
    read_slots_of(store, ids, warnings)
}

/// The slots that these folders name.
fn list_slots(store: &dyn Store, folders: &[&str]) -> Result<BTreeSet<SlotId>> {
    let mut ids = BTreeSet::new();
    for folder in folders {
        let listed = match store.list(folder) {
            Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        // `key remove` deletes the copy first: a copy that stands alone has lost its original.
        let prefix = if *folder == layout::COPIES { "keys-" } else { "" };
        let slot = |name: &str| name.strip_prefix(prefix)?.parse::<SlotId>().ok();
        ids.extend(listed.iter().filter_map(|info| slot(info.path.name())));
    }
    Ok(ids)
}

fn read_slots_of(
    store: &dyn Store,
    ids: BTreeSet<SlotId>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(SlotId, Vec<u8>)>> {
    let mut slots = Vec::new();
    for id in ids {
        match read_with_copy(store, &layout::slot(&id), warnings) {
            Ok(bytes) => slots.push((id, bytes)),
            Err(Error::Store(error))
                if error.kind != ErrorKind::NotFound && error.kind != ErrorKind::Corrupt =>
            {
                return Err(error.into());
            }
            Err(_) => {
                warnings
                    .push(format!("password slot {} is damaged and so is its copy", id.short()));
            }
        }
    }
    Ok(slots)
}

/// Reads a small object, or its second copy when it is damaged or missing.
pub(crate) fn read_with_copy(
    store: &dyn Store,
    path: &ObjectPath,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let limit = u64::from(SMALL_OBJECT_BYTES_MAX);
    match read_verified(store, path, limit) {
        Ok(bytes) => Ok(bytes),
        Err(error) => match read_verified(store, &layout::copy(path), limit) {
            Ok(bytes) => {
                warnings.push(format!("{path} is damaged or missing: its second copy is used"));
                Ok(bytes)
            }
            Err(again) if error.is_damage() && !again.is_damage() => Err(again),
            Err(_) => Err(error),
        },
    }
}

/// As [`list_configs`], by the second copies.
fn list_config_copies(store: &dyn Store) -> Result<Vec<(u64, ConfigId, ObjectPath)>> {
    let listed = match store.list(layout::COPIES) {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    let mut configs: Vec<_> = listed
        .iter()
        .filter_map(|info| layout::parse_config(info.path.name().strip_prefix("config-")?))
        .map(|(generation, id)| (generation, id, layout::config(generation, &id)))
        .collect();
    configs.sort();
    Ok(configs)
}

/// The newest configuration that opens, of those that are listed.
fn read_config(
    store: &dyn Store,
    mut configs: Vec<(u64, ConfigId, ObjectPath)>,
    repository: RepositoryId,
    keys: &KeyRing,
    warnings: &mut Vec<String>,
) -> Result<Config> {
    if configs.is_empty() {
        configs = list_config_copies(store)?;
    }
    if configs.is_empty() {
        return Err(Error::NoConfig { location: store.describe() });
    }
    let mut failure = None;
    for (generation, _, path) in configs.iter().rev() {
        let config = read_with_copy(store, path, warnings).and_then(|bytes| {
            envelope::unseal(ObjectKind::Config, repository, keys, &bytes)
                .and_then(|payload| Config::decode(&payload))
                .map_err(|error| match error {
                    putback_format::Error::OtherRepository { found, .. } => {
                        Error::TwoRepositories {
                            location: store.describe(),
                            first: repository.to_string(),
                            second: found.to_string(),
                        }
                    }
                    // What is written would be sealed under a key that was given up.
                    putback_format::Error::UnknownEpoch { .. } => {
                        Error::OutdatedKey { location: store.describe() }
                    }
                    error => Error::object(path, error),
                })
        });
        match config {
            Ok(config) if config.generation == *generation && config.repository == repository => {
                return Ok(config);
            }
            Ok(_) => {
                failure.get_or_insert(Error::Damaged { object: path.to_string(), source: None });
            }
            Err(error) if error.is_damage() || matches!(error, Error::TwoRepositories { .. }) => {
                failure.get_or_insert(error);
            }
            // It is whole, for all that is known: no older one is to be taken for it, since it may name another key
            // and other limits.
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or(Error::Damaged { object: "the configuration".to_owned(), source: None }))
}
