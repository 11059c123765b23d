//! Rotating the keys: a new epoch, so that what is written from now on is sealed under a key that only those have
//! who know a password that was kept.
//!
//! [`Repository::plan_rotation`] finds out which slots the kept passwords open; [`Repository::rotate_keys`] writes
//! these slots anew with the new key, then the configuration that names the new epoch, and removes the other slots
//! last. So whatever breaks, the kept passwords open the repository: before the configuration is there old and new
//! slots do, afterwards the new ones. What a run that broke has left is removed by the next rotation.
//!
//! Where there are no locks two rotations may meet. Each draws the number of its epoch from a wide range, so that
//! no number means two keys, and takes the keys of the other into its own slots before it removes anything: whatever
//! was sealed under either, by whoever opened the repository meanwhile, stays readable. Of two configurations of
//! one generation the one with the smaller id is in force; the other rotation is done again.
//!
//! Layout and rules: `docs/format.md`, "Rotating the keys".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use putback_format::config::Config;
use putback_format::envelope::{self, ObjectKind};
use putback_format::id::{ConfigId, SlotId};
use putback_format::key::{KeyRing, MasterKey};
use putback_format::limits::SLOTS_MAX;
use putback_format::slot::{KdfCost, Slot};
use putback_store::{LockMode, ObjectPath};

use crate::error::{Error, Result};
use crate::keys::{SlotInfo, SlotOwner};
use crate::open::{Password, list_configs, read_slots, read_with_copy};
use crate::{Repository, layout};

/// Epochs that an exported key has room for on its 99 lines.
const EPOCHS_MAX: usize = 39;
/// Bits of the random step from an epoch to the next.
const STEP_BITS: u32 = 20;
/// How often a rotation is done again because another one was faster.
const ATTEMPTS: usize = 8;

/// What a rotation is going to do with the slots.
pub struct Rotation {
    kept: Vec<Kept>,
    others: Vec<SlotInfo>,
    dropped: BTreeSet<SlotId>,
    drops_all: bool,
    /// Which of the kept passwords opens a slot.
    opened: BTreeMap<SlotId, usize>,
    /// Slots that none of so many kept passwords opens.
    tried: BTreeMap<SlotId, usize>,
    keys: KeyRing,
}

/// A password that stays.
struct Kept {
    password: Password,
    /// The slot that the new one takes the place of, and is to be like.
    slot: Option<SlotInfo>,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The epoch that is used for writing from now on.
    pub epoch: u32,
    /// The generation of the configuration that says so.
    pub generation: u64,
    /// The new slots, one for each password that was kept.
    pub slots: Vec<SlotId>,
    /// Slots that are gone.
    pub removed: Vec<SlotId>,
    /// Epochs whose keys the slots hold, the new one among them.
    pub epochs: usize,
}

impl Rotation {
    /// Slots of passwords that are kept: each is written anew.
    pub fn kept(&self) -> impl Iterator<Item = &SlotInfo> {
        self.kept.iter().filter_map(|kept| kept.slot.as_ref())
    }

    /// Slots that no password that was given opens and that were not dropped yet.
    pub fn others(&self) -> impl Iterator<Item = &SlotInfo> {
        self.others.iter().filter(|slot| !self.drops_all && !self.dropped.contains(&slot.id))
    }

    /// Slots whose passwords will open the repository no more.
    pub fn dropped(&self) -> impl Iterator<Item = &SlotInfo> {
        self.others.iter().filter(|slot| self.drops_all || self.dropped.contains(&slot.id))
    }

    /// Lets a slot go.
    pub fn drop_slot(&mut self, id: &SlotId) {
        self.dropped.insert(*id);
    }

    /// Lets all other slots go.
    pub fn drop_others(&mut self) {
        self.drops_all = true;
    }
}

/// What is there while keys are rotated.
struct Survey {
    slots: Vec<(SlotId, Vec<u8>)>,
    /// The configuration in force.
    config: Config,
    config_id: ConfigId,
}

/// What one attempt has written.
struct Attempt {
    config: Config,
    config_id: ConfigId,
    slots: Vec<(SlotId, Vec<u8>)>,
    epochs: usize,
}

impl Repository {
    /// Finds out which slots `kept` opens. Costs Argon2id for each slot and password until one opens.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::KeysContended`] if another rotation is not finished and was made with none of these
    /// passwords.
    pub fn plan_rotation(&self, kept: Vec<Password>) -> Result<Rotation> {
        let kept = kept.into_iter().map(|password| Kept { password, slot: None }).collect();
        let mut rotation = Rotation {
            kept,
            others: Vec::new(),
            dropped: BTreeSet::new(),
            drops_all: false,
            opened: BTreeMap::new(),
            tried: BTreeMap::new(),
            keys: self.keys().clone(),
        };
        self.look_at_slots(&mut rotation)?;
        Ok(rotation)
    }

    /// Keeps one more password. False, and nothing changed, if it opens none of the slots that are left.
    ///
    /// # Errors
    /// As [`Repository::plan_rotation`].
    pub fn keep_password(&self, rotation: &mut Rotation, password: Password) -> Result<bool> {
        rotation.kept.push(Kept { password, slot: None });
        self.look_at_slots(rotation)?;
        if rotation.kept.last().is_some_and(|kept| kept.slot.is_some()) {
            return Ok(true);
        }
        rotation.kept.pop();
        let count = rotation.kept.len();
        rotation.tried.values_mut().for_each(|tried| *tried = count.min(*tried));
        Ok(false)
    }

    fn look_at_slots(&self, rotation: &mut Rotation) -> Result<()> {
        let slots = read_slots(self.store().as_ref(), &mut Vec::new())?;
        self.open_slots(&slots, rotation)
    }

    /// Tries the kept passwords on slots that were not tried yet, and takes over the keys that they hold.
    fn open_slots(&self, slots: &[(SlotId, Vec<u8>)], rotation: &mut Rotation) -> Result<()> {
        rotation.others.clear();
        for (id, bytes) in slots {
            // One of another repository was left by an `init` that did not come to its end.
            let Ok(slot) = Slot::decode(bytes) else { continue };
            if slot.repository != self.id() {
                continue;
            }
            if !rotation.opened.contains_key(id) {
                let tried = rotation.tried.get(id).copied().unwrap_or_default();
                for (number, kept) in rotation.kept.iter().enumerate().skip(tried) {
                    match slot.open(kept.password.as_bytes()) {
                        Ok(keys) => {
                            let absorbed = rotation.keys.absorb(&keys);
                            absorbed.map_err(Error::encode("a password slot"))?;
                            rotation.opened.insert(*id, number);
                            break;
                        }
                        Err(putback_format::Error::WrongPassword) => {}
                        Err(error) => return Err(Error::object(layout::slot(id), error)),
                    }
                }
                rotation.tried.insert(*id, rotation.kept.len());
            }
            let info = self.slot_info(*id, bytes, &rotation.keys).unwrap_or_else(|_| SlotInfo {
                id: *id,
                created: Default::default(),
                owner: SlotOwner::default(),
                cost: slot.cost,
                is_current: false,
                is_outdated: false,
            });
            match rotation.opened.get(id).and_then(|number| rotation.kept.get_mut(*number)) {
                // Of several slots with one password the one that opened the repository, or the newest.
                Some(Kept { slot: Some(known), .. })
                    if (known.is_current, known.created) >= (info.is_current, info.created) => {}
                Some(kept) => kept.slot = Some(info),
                None => rotation.others.push(info),
            }
        }
        Ok(())
    }

    /// Draws a new master key and seals everything that is written from now on under it. Yields the repository
    /// opened with the new keys; what was opened before can be read from and fails when it meets something new.
    ///
    /// # Errors
    /// - [`Error::NoPasswordKept`]: no password was given that opens a slot.
    /// - [`Error::KeysContended`]: slots appeared that the plan did not know, or another rotation is under way.
    /// - [`Error::NoFreeEpoch`]: the keys were rotated too often.
    /// - [`Error::NoFreeSlot`]: rotations that broke have left too many slots.
    pub fn rotate_keys(&self, mut rotation: Rotation) -> Result<(Self, Rotated)> {
        let _lock = self.store().lock(LockMode::Exclusive)?;
        let mut ours: BTreeSet<SlotId> = BTreeSet::new();
        let mut attempt: Option<Attempt> = None;
        for _ in 0..ATTEMPTS {
            let survey = self.survey_slots(&mut rotation, &ours, attempt.as_ref())?;
            let in_force = attempt.as_ref().filter(|attempt| {
                attempt.config_id == survey.config_id
                    && attempt.epochs == rotation.keys.epoch_count()
            });
            if let Some(attempt) = in_force {
                let removed = self.remove_other_slots(&survey, attempt, &rotation)?;
                return self.reopen(attempt, removed, &rotation);
            }
            let is_ours = attempt.as_ref().is_some_and(|made| made.config_id == survey.config_id);
            let mut config = survey.config.clone();
            if !is_ours {
                config.epoch = self.draw_epoch(&mut rotation.keys)?;
                config.generation += 1;
                config.created = self.now();
            }
            if survey.slots.len() + rotation.kept.len() > SLOTS_MAX * 2 {
                return Err(Error::NoFreeSlot { limit: SLOTS_MAX * 2 });
            }
            let slots = self.write_kept_slots(&mut rotation)?;
            ours.extend(slots.iter().map(|(id, _)| *id));
            let config_id = match is_ours {
                true => survey.config_id,
                false => self.write_config(&config, &rotation.keys)?,
            };
            let epochs = rotation.keys.epoch_count();
            attempt = Some(Attempt { config, config_id, slots, epochs });
        }
        Err(self.contended())
    }

    fn contended(&self) -> Error {
        Error::KeysContended { location: self.location() }
    }

    /// Lists slots and configurations, and gathers the keys of all that the kept passwords open.
    fn survey_slots(
        &self,
        rotation: &mut Rotation,
        ours: &BTreeSet<SlotId>,
        made: Option<&Attempt>,
    ) -> Result<Survey> {
        let store = self.store().as_ref();
        // In this order: whose configuration shows has written its slots before.
        let mut configs = list_configs(store)?;
        let slots = self.complete_slots()?;
        self.open_slots(&slots, rotation)?;
        if rotation.kept.iter().all(|kept| kept.slot.is_none()) {
            return Err(Error::NoPasswordKept { location: self.location() });
        }
        if rotation.others().any(|slot| !ours.contains(&slot.id)) {
            return Err(self.contended());
        }
        if let Some(Attempt { config, config_id, .. }) = made
            && !configs.iter().any(|(_, id, _)| id == config_id)
        {
            // A listing may lag behind.
            let path = layout::config(config.generation, config_id);
            configs.push((config.generation, *config_id, path));
            configs.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        }
        let mut newest = None;
        for (generation, id, path) in configs.into_iter().rev() {
            if generation < self.config().generation {
                break;
            }
            let object = match read_with_copy(store, &path, &mut Vec::new()) {
                Ok(object) => object,
                Err(Error::Store(error)) if !error.is_not_found() => return Err(error.into()),
                // Whoever opens the repository passes over it too.
                Err(_) => continue,
            };
            let opened = envelope::unseal(ObjectKind::Config, self.id(), &rotation.keys, &object)
                .and_then(|payload| Config::decode(&payload));
            match opened {
                Ok(config) if config.generation == generation && config.repository == self.id() => {
                    self.complete_config(&path, &object)?;
                    if newest.is_none() {
                        newest = Some((config, id));
                    }
                }
                // Its key may be in use already, and these passwords do not yield it.
                Err(putback_format::Error::UnknownEpoch { .. }) => return Err(self.contended()),
                Err(error @ putback_format::Error::UnknownVersion { .. }) => {
                    return Err(Error::object(path, error));
                }
                _ => {}
            }
        }
        let (config, config_id) = newest
            .ok_or(Error::Damaged { object: "the configuration".to_owned(), source: None })?;
        Ok(Survey { slots, config, config_id })
    }

    /// Where a run that broke has left a configuration without its second copy, that is written.
    fn complete_config(&self, path: &ObjectPath, object: &[u8]) -> Result<()> {
        for path in [layout::copy(path), path.clone()] {
            if self.store().stat(&path).is_err_and(|error| error.is_not_found()) {
                self.write_object(&path, object)?;
            }
        }
        Ok(())
    }

    /// Adds a new key to the ring and yields its epoch.
    fn draw_epoch(&self, keys: &mut KeyRing) -> Result<u32> {
        if keys.epoch_count() >= EPOCHS_MAX {
            return Err(Error::NoFreeEpoch { limit: EPOCHS_MAX });
        }
        let step = u32::from_le_bytes(self.machine().random()?) >> (u32::BITS - STEP_BITS);
        let epoch = keys
            .newest_epoch()
            .checked_add(1 + step)
            .ok_or(Error::NoFreeEpoch { limit: EPOCHS_MAX })?;
        let master = MasterKey::from_bytes(self.machine().random()?);
        keys.insert(epoch, master).map_err(Error::encode("a password slot"))?;
        Ok(epoch)
    }

    /// One slot for each password that is kept, read back.
    fn write_kept_slots(&self, rotation: &mut Rotation) -> Result<Vec<(SlotId, Vec<u8>)>> {
        let mut slots = Vec::new();
        for (number, kept) in rotation.kept.iter().enumerate() {
            let Some(SlotInfo { owner, cost, .. }) = &kept.slot else { continue };
            let cost: KdfCost = *cost;
            let bytes =
                owner.seal_slot(&kept.password, cost, self.id(), &rotation.keys, self.machine())?;
            let id = SlotId::of_stored(&bytes);
            self.write_slot(&id, &bytes)?;
            self.read_back(&layout::slot(&id), &bytes)?;
            rotation.opened.insert(id, number);
            slots.push((id, bytes));
        }
        Ok(slots)
    }

    /// The configuration first: as soon as it is there the new epoch is in force.
    fn write_config(&self, config: &Config, keys: &KeyRing) -> Result<ConfigId> {
        let what = "a configuration";
        let salt = self.machine().random()?;
        let payload = config.encode();
        let object = keys
            .master(what, config.epoch)
            .and_then(|master| {
                let kind = ObjectKind::Config;
                envelope::seal(kind, self.id(), config.epoch, master, salt, &payload)
            })
            .map_err(Error::encode(what))?;
        let id = ConfigId::of_stored(&object);
        let path = layout::config(config.generation, &id);
        self.write_object(&path, &object)?;
        self.write_object(&layout::copy(&path), &object)?;
        self.read_back(&path, &object)?;
        Ok(id)
    }

    /// From the store itself, whatever a cache holds.
    fn read_back(&self, path: &ObjectPath, bytes: &[u8]) -> Result<()> {
        if self.inner.origin.read_all(path, bytes.len() as u64)? != bytes {
            return Err(Error::Damaged { object: format!("{path}, just written,"), source: None });
        }
        Ok(())
    }

    /// Removes what was there before, and looks again: another machine may have removed the new slots meanwhile.
    fn remove_other_slots(
        &self,
        survey: &Survey,
        attempt: &Attempt,
        rotation: &Rotation,
    ) -> Result<Vec<SlotId>> {
        let is_new = |id: &SlotId| attempt.slots.iter().any(|(new, _)| new == id);
        let is_known = |id: &SlotId| {
            rotation.opened.contains_key(id) || rotation.dropped().any(|slot| slot.id == *id)
        };
        let old: BTreeSet<SlotId> = survey
            .slots
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !is_new(id) && is_known(id))
            .collect();
        if !old.is_empty() {
            self.delete_slots(&old)?;
        }
        let left = read_slots(self.store().as_ref(), &mut Vec::new())?;
        let opens = |(id, bytes): &(SlotId, Vec<u8>)| {
            is_new(id)
                || Slot::decode(bytes).is_ok_and(|slot| {
                    slot.repository == self.id()
                        && rotation.kept.iter().any(|kept| {
                            let keys = slot.open(kept.password.as_bytes());
                            keys.is_ok_and(|keys| keys.has_epoch(attempt.config.epoch))
                        })
                })
        };
        if !left.iter().any(opens) {
            for (id, bytes) in &attempt.slots {
                self.write_slot(id, bytes)?;
            }
        }
        Ok(old.into_iter().collect())
    }

    fn reopen(
        &self,
        attempt: &Attempt,
        removed: Vec<SlotId>,
        rotation: &Rotation,
    ) -> Result<(Self, Rotated)> {
        let slots: Vec<SlotId> = attempt.slots.iter().map(|(id, _)| *id).collect();
        let opened = Self::assemble(
            Arc::clone(&self.inner.origin),
            rotation.keys.clone(),
            attempt.config.clone(),
            slots.first().copied(),
            &self.inner.machine,
        )?;
        if let Some(slot) = slots.first() {
            opened.state().set_last_slot(slot);
        }
        let rotated = Rotated {
            epoch: attempt.config.epoch,
            generation: attempt.config.generation,
            slots,
            removed,
            epochs: attempt.epochs,
        };
        Ok((opened, rotated))
    }
}
