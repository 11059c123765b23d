//! Password slots: who may open the repository.

use std::collections::BTreeSet;

use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{RepositoryId, SlotId};
use putback_format::key::KeyRing;
use putback_format::limits::SLOTS_MAX;
use putback_format::slot::{self, KdfCost, Slot};
use putback_format::tree::Timestamp;
use putback_store::{LockMode, ObjectPath};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::open::{Password, list_configs, read_slots, read_with_copy};
use crate::{Machine, Repository, layout};

/// Whose password a slot is for. Sealed: the storage does not learn it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotOwner {
    /// Free text.
    pub label: String,
    /// User name where the slot was made.
    pub user: String,
    /// Host name where the slot was made.
    pub host: String,
}

/// A slot as `key list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot.
    pub id: SlotId,
    /// When it was made.
    pub created: Timestamp,
    /// Whose password it is for.
    pub owner: SlotOwner,
    /// What opening it costs.
    pub cost: KdfCost,
    /// Whether the repository was opened with it.
    pub is_current: bool,
    /// Whether it lacks the newest key, since the keys were rotated: it opens the repository no more.
    pub is_outdated: bool,
}

impl SlotOwner {
    /// Lines of `key value`; a newer program may add keys, which are passed over.
    fn encode(&self, created: Timestamp) -> Vec<u8> {
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        format!(
            "created {} {}\nlabel {}\nuser {}\nhost {}\n",
            created.seconds,
            created.nanoseconds,
            line(&self.label),
            line(&self.user),
            line(&self.host)
        )
        .into_bytes()
    }

    fn decode(bytes: &[u8]) -> (Timestamp, Self) {
        let (mut created, mut owner) = (Timestamp::default(), Self::default());
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split_once(' ') {
                Some(("created", value)) => {
                    let mut numbers = value.split(' ');
                    let seconds = numbers.next().and_then(|n| n.parse().ok()).unwrap_or_default();
                    let nanoseconds =
                        numbers.next().and_then(|n| n.parse().ok()).unwrap_or_default();
                    created = Timestamp { seconds, nanoseconds };
                }
                Some(("label", value)) => value.clone_into(&mut owner.label),
                Some(("user", value)) => value.clone_into(&mut owner.user),
                Some(("host", value)) => value.clone_into(&mut owner.host),
                _ => {}
            }
        }
        (created, owner)
    }

    /// The stored form of a new slot.
    pub(crate) fn seal_slot(
        &self,
        password: &Password,
        cost: KdfCost,
        repository: RepositoryId,
        keys: &KeyRing,
        machine: &Machine,
    ) -> Result<Vec<u8>> {
        let salts = [machine.random()?, machine.random()?];
        let info = self.encode(machine.clock.now());
        slot::seal(password.as_bytes(), cost, repository, keys, &info, salts)
            .map_err(Error::encode("a password slot"))
    }
}

impl Repository {
    /// All slots that can be read.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        let mut warnings = Vec::new();
        let mut infos = Vec::new();
        for (id, bytes) in read_slots(self.store().as_ref(), &mut warnings)? {
            match self.slot_info(id, &bytes, self.keys()) {
                Ok(info) => infos.push(info),
                Err(error) => warnings.push(format!("password slot {}: {error}", id.short())),
            }
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        infos.sort_by_key(|info| (info.created, info.id));
        Ok(infos)
    }

    /// What a slot says of itself, read with these keys.
    pub(crate) fn slot_info(
        &self,
        id: SlotId,
        bytes: &[u8],
        keys: &KeyRing,
    ) -> Result<SlotInfo, putback_format::Error> {
        let slot = Slot::decode(bytes)?;
        let (created, owner) = SlotOwner::decode(&slot.info(keys)?);
        Ok(SlotInfo {
            id,
            created,
            owner,
            cost: slot.cost,
            is_current: self.inner.slot == Some(id),
            is_outdated: !self.is_usable(bytes),
        })
    }

    /// Whether a slot of this repository holds the newest key, as far as can be told without its password.
    fn is_usable(&self, slot: &[u8]) -> bool {
        Slot::decode(slot).is_ok_and(|slot| {
            let newest = slot.newest_epoch();
            slot.repository == self.id() && newest.is_ok_and(|epoch| epoch >= self.config().epoch)
        })
    }

    /// Whoever adds or changes a slot must have the newest keys, or the slot would open nothing.
    fn require_newest_keys(&self) -> Result<()> {
        let store = self.store().as_ref();
        for (generation, _, path) in list_configs(store)? {
            if generation <= self.config().generation {
                continue;
            }
            // One that cannot be read is passed over here as it is where a repository is opened.
            let object = read_with_copy(store, &path, &mut Vec::new()).unwrap_or_default();
            let epoch = envelope::epoch_of(ObjectKind::Config, self.id(), &object);
            if epoch.is_ok_and(|epoch| !self.keys().has_epoch(epoch)) {
                return Err(Error::KeysContended { location: self.location() });
            }
        }
        Ok(())
    }

    /// The slot whose id begins like this.
    ///
    /// # Errors
    /// [`Error::NoSlot`] if none does, [`Error::AmbiguousSlot`] if several do.
    pub fn find_slot(&self, prefix: &str) -> Result<SlotId> {
        let selector = prefix.to_owned();
        let matching: Vec<SlotId> = self
            .slots()?
            .into_iter()
            .map(|info| info.id)
            .filter(|id| !prefix.is_empty() && id.to_string().starts_with(prefix))
            .collect();
        match matching.as_slice() {
            [] => Err(Error::NoSlot { selector }),
            [id] => Ok(*id),
            _ => Err(Error::AmbiguousSlot { selector, candidates: matching }),
        }
    }

    /// Adds a slot for another password.
    ///
    /// # Errors
    /// [`Error::NoFreeSlot`] if all are taken; [`Error::KeysContended`] if the keys were rotated meanwhile.
    pub fn add_slot(
        &self,
        password: &Password,
        cost: KdfCost,
        owner: &SlotOwner,
    ) -> Result<SlotId> {
        let _lock = self.store().lock(LockMode::Exclusive)?;
        self.require_newest_keys()?;
        let taken = self.complete_slots()?.len();
        if taken >= SLOTS_MAX {
            return Err(Error::NoFreeSlot { limit: SLOTS_MAX });
        }
        let bytes = owner.seal_slot(password, cost, self.id(), self.keys(), self.machine())?;
        let id = SlotId::of_stored(&bytes);
        self.write_slot(&id, &bytes)?;
        Ok(id)
    }

    /// All slots that can be read. Where a run that broke has left one of the two copies of a slot, the other is
    /// written: each slot is there or not. Without a lock only a copy that stands alone tells: of a slot that another
    /// machine is just removing, the original stands alone.
    pub(crate) fn complete_slots(&self) -> Result<Vec<(SlotId, Vec<u8>)>> {
        let store = self.store();
        let slots = read_slots(store.as_ref(), &mut Vec::new())?;
        let is_gone = |path: &ObjectPath| store.stat(path).is_err_and(|error| error.is_not_found());
        for (id, bytes) in &slots {
            let path = layout::slot(id);
            let copy = layout::copy(&path);
            if store.capabilities().is_consistent {
                for path in [copy, path] {
                    if is_gone(&path) {
                        self.write_object(&path, bytes)?;
                    }
                }
            } else if is_gone(&path) && store.stat(&copy).is_ok() {
                // In this order: the copy is there after the original was not.
                self.write_object(&path, bytes)?;
            }
        }
        Ok(slots)
    }

    pub(crate) fn write_slot(&self, id: &SlotId, bytes: &[u8]) -> Result<()> {
        let path = layout::slot(id);
        self.write_object(&layout::copy(&path), bytes)?;
        self.write_object(&path, bytes)
    }

    /// Removes a slot. Lists again afterwards, and puts it back if none is left: another machine may have
    /// removed the others at the same moment.
    ///
    /// # Errors
    /// - [`Error::LastSlot`]: it is the only one.
    /// - [`Error::NoSlot`]: there is no such slot.
    pub fn remove_slot(&self, id: &SlotId) -> Result<()> {
        let _lock = self.store().lock(LockMode::Exclusive)?;
        self.remove_slot_locked(id)
    }

    fn remove_slot_locked(&self, id: &SlotId) -> Result<()> {
        let store = self.store();
        let slots = self.complete_slots()?;
        let Some((_, bytes)) = slots.iter().find(|(slot, _)| slot == id) else {
            return Err(Error::NoSlot { selector: id.to_string() });
        };
        // One of before a rotation opens nothing: it is no reason to let the last one go that does.
        let is_last = |slots: &[(SlotId, Vec<u8>)]| {
            !slots.iter().any(|(slot, bytes)| slot != id && self.is_usable(bytes))
        };
        if slots.len() == 1 || (self.is_usable(bytes) && is_last(&slots)) {
            return Err(Error::LastSlot);
        }
        self.delete_slots(&BTreeSet::from([*id]))?;
        let left = read_slots(store.as_ref(), &mut Vec::new())?;
        if self.is_usable(bytes) && is_last(&left) {
            self.write_slot(id, bytes)?;
            return Err(Error::LastSlot);
        }
        Ok(())
    }

    /// Deletes slots and their copies. The copies go first: one that stood alone would count as the slot itself.
    pub(crate) fn delete_slots(&self, ids: &BTreeSet<SlotId>) -> Result<()> {
        let store = self.store();
        let paths: Vec<ObjectPath> = ids.iter().map(layout::slot).collect();
        let copies = paths.iter().map(layout::copy).collect();
        for (folder, paths) in [(layout::COPIES, copies), (layout::KEYS, paths)] {
            let mut rows = store.list(folder)?;
            rows.retain(|info| paths.contains(&info.path));
            if !rows.is_empty() {
                store.delete(&rows)?;
            }
        }
        Ok(())
    }

    /// Adds a slot with a new password, then removes the one that the repository was opened with.
    ///
    /// # Errors
    /// As [`Repository::add_slot`] and [`Repository::remove_slot`]; [`Error::NoSlot`] if it was
    /// opened with an exported key.
    pub fn change_password(
        &self,
        password: &Password,
        cost: KdfCost,
        owner: &SlotOwner,
    ) -> Result<SlotId> {
        let Some(old) = self.inner.slot else {
            return Err(Error::NoSlot { selector: "of the exported key".to_owned() });
        };
        let bytes = owner.seal_slot(password, cost, self.id(), self.keys(), self.machine())?;
        let new = SlotId::of_stored(&bytes);
        let _lock = self.store().lock(LockMode::Exclusive)?;
        self.require_newest_keys()?;
        self.write_slot(&new, &bytes)?;
        self.remove_slot_locked(&old)?;
        self.state().set_last_slot(&new);
        Ok(new)
    }

    /// The keys as text that can be printed and typed in again.
    #[must_use]
    pub fn export_key(&self) -> Zeroizing<String> {
        slot::export(self.id(), self.keys())
    }
}
