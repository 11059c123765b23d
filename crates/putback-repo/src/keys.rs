//! Password slots: who may open the repository.

use putback_format::id::{RepositoryId, SlotId};
use putback_format::key::KeyRing;
use putback_format::limits::SLOTS_MAX;
use putback_format::slot::{self, KdfCost, Slot};
use putback_format::tree::Timestamp;
use putback_store::LockMode;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::open::{Password, read_slots};
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
            match Slot::decode(&bytes).and_then(|slot| Ok((slot.cost, slot.info(self.keys())?))) {
                Ok((cost, info)) => {
                    let (created, owner) = SlotOwner::decode(&info);
                    let is_current = self.inner.slot == Some(id);
                    infos.push(SlotInfo { id, created, owner, cost, is_current });
                }
                Err(error) => warnings.push(format!("password slot {}: {error}", id.short())),
            }
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        infos.sort_by_key(|info| (info.created, info.id));
        Ok(infos)
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
    /// [`Error::NoFreeSlot`] if all are taken.
    pub fn add_slot(
        &self,
        password: &Password,
        cost: KdfCost,
        owner: &SlotOwner,
    ) -> Result<SlotId> {
        let _lock = self.store().lock(LockMode::Exclusive)?;
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
    /// written: each slot is there or not. Only under a lock: else another machine may just be removing it.
    fn complete_slots(&self) -> Result<Vec<(SlotId, Vec<u8>)>> {
        let store = self.store();
        let slots = read_slots(store.as_ref(), &mut Vec::new())?;
        if store.capabilities().is_consistent {
            for (id, bytes) in &slots {
                let path = layout::slot(id);
                for path in [layout::copy(&path), path] {
                    if store.stat(&path).is_err_and(|error| error.is_not_found()) {
                        self.write_object(&path, bytes)?;
                    }
                }
            }
        }
        Ok(slots)
    }

    fn write_slot(&self, id: &SlotId, bytes: &[u8]) -> Result<()> {
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
        if slots.len() == 1 {
            return Err(Error::LastSlot);
        }
        let path = layout::slot(id);
        // The copy goes first: one that stood alone would count as the slot itself.
        for (folder, path) in [(layout::COPIES, layout::copy(&path)), (layout::KEYS, path)] {
            let rows: Vec<_> =
                store.list(folder)?.into_iter().filter(|info| info.path == path).collect();
            store.delete(&rows)?;
        }
        if read_slots(store.as_ref(), &mut Vec::new())?.is_empty() {
            self.write_slot(id, bytes)?;
            return Err(Error::LastSlot);
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
