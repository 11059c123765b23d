//! What the machines of the simulation do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use putback_format::key::BlobKind;
use putback_format::tree::Timestamp;
use putback_repo::compact::CompactOptions;
use putback_repo::prune::{MaxUnused, PruneOptions};
use putback_repo::{
    Cancel, Clock, Error, Repository, Result, SnapshotDraft, SnapshotFilter, StoredSnapshot, Times,
};
use putback_store::testing::random::Random;
use putback_store::testing::simulated::{Machine, Work};
use putback_store::{ErrorKind, Store};

use crate::model::Model;
use crate::trees::{
    Files, Places, contents, describe, draft, noise, places, put_directories, put_file, put_tree,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Contents that all machines know: they come, go and come back.
const COMMON_CONTENTS: usize = 40;

/// What all machines of a run share.
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) key: String,
    /// Each machine has a folder in it.
    pub(crate) folder: PathBuf,
    pub(crate) times: Times,
    /// How long marks stand, where a prune does not choose longer.
    pub(crate) grace: Duration,
    /// When machines cease to begin anything new, since the world began.
    pub(crate) end: Duration,
    pub(crate) model: Mutex<Model>,
    pub(crate) counts: Mutex<Counts>,
    /// Hosts of machines that lost what they remembered.
    pub(crate) lost_state: Mutex<BTreeSet<String>>,
}

/// What was achieved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) backups: u64,
    pub(crate) checkpoints: u64,
    pub(crate) forgotten: u64,
    pub(crate) undeleted: u64,
    pub(crate) replaced: u64,
    pub(crate) restored: u64,
    pub(crate) prunes: u64,
    pub(crate) packs_deleted: u64,
    pub(crate) blobs_rescued: u64,
    pub(crate) segments_merged: u64,
    pub(crate) segments_deleted: u64,
    pub(crate) failures: u64,
    pub(crate) crashes: u64,
    pub(crate) forgotten_by_hand: u64,
}

impl Setting {
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The clocks and random bytes of a simulated machine.
#[derive(Debug)]
struct Parts(Machine);

impl Clock for Parts {
    fn now(&self) -> Timestamp {
        Timestamp::from_system_time(self.0.now()).unwrap_or_default()
    }

    fn since_boot(&self) -> Duration {
        self.0.since_boot()
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }
}

impl putback_repo::Random for Parts {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// What a repository uses of a machine of the simulation.
pub(crate) fn parts_of(
    machine: &Machine,
    folder: Option<&Path>,
    times: Times,
) -> putback_repo::Machine {
    putback_repo::Machine {
        cache: folder.map(|folder| folder.join("cache")),
        state: folder.map(|folder| folder.join("state")),
        clock: Arc::new(Parts(machine.clone())),
        random: Arc::new(Parts(machine.clone())),
        times,
    }
}

/// One machine, and what it remembers.
pub(crate) struct Actor<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) machine: Machine,
    random: Random,
    folder: PathBuf,
    host: String,
    pub(crate) files: Files,
}

impl<'a> Actor<'a> {
    pub(crate) fn new(setting: &'a Setting, machine: &Machine) -> Self {
        let number = machine.number();
        let host = format!("host{number}");
        let seed = setting.seed.wrapping_mul(1000) + number as u64;
        let mut actor = Self {
            setting,
            machine: machine.clone(),
            random: Random::new(seed),
            folder: setting.folder.join(&host),
            host,
            files: Files::new(),
        };
        for _ in 0..4 {
            actor.add_file();
        }
        actor
    }

    /// A machine that backs up, for as long as the run lasts.
    pub(crate) fn writer(setting: &'a Setting) -> Work<'a> {
        Box::new(move |machine| {
            let mut actor = Actor::new(setting, machine);
            actor.live(3 * HOUR, 60 * HOUR, |actor, repository| match actor.random.below(16) {
                0..=9 => actor.back_up(repository),
                10 | 11 => actor.forget(repository),
                12 => actor.undelete(repository),
                13 => actor.replace(repository),
                _ => actor.restore(repository),
            });
        })
    }

    /// A machine that prunes.
    pub(crate) fn pruner(setting: &'a Setting) -> Work<'a> {
        Box::new(move |machine| {
            Actor::new(setting, machine).live(2 * HOUR, 30 * HOUR, Self::prune);
        })
    }

    /// A machine that keeps the index small.
    pub(crate) fn compactor(setting: &'a Setting) -> Work<'a> {
        Box::new(move |machine| {
            Actor::new(setting, machine).live(4 * HOUR, 40 * HOUR, Self::compact);
        })
    }

    /// One process after another.
    fn live(
        &mut self,
        least: u64,
        most: u64,
        mut work: impl FnMut(&mut Self, &Repository) -> Result<()>,
    ) {
        loop {
            let pause = self.random.spread(least, most);
            self.sleep(pause);
            if self.machine.is_over() || self.machine.world().elapsed() >= self.setting.end {
                return;
            }
            let machine = self.machine.clone();
            let result = machine.process(|| {
                let repository = self.open(machine.store())?;
                work(self, &repository)
            });
            match result {
                None => {
                    self.setting.count(|counts| counts.crashes += 1);
                    if self.random.below(6) == 0 {
                        // Set up anew. Whether it was there does not matter.
                        let _ = fs_err::remove_dir_all(&self.folder);
                        let mut lost = self.setting.lost_state.lock().unwrap();
                        lost.insert(self.host.clone());
                    }
                }
                Some(Err(error)) => {
                    self.setting.count(|counts| counts.failures += 1);
                    self.machine.note(format!("gives up: {}", describe(&error)));
                    assert!(
                        !matches!(
                            error,
                            Error::WorkerFailed | Error::Unflushed | Error::Encode { .. }
                        ),
                        "{}",
                        describe(&error)
                    );
                }
                Some(Ok(())) => {}
            }
        }
    }

    pub(crate) fn open(&self, store: impl Store + 'static) -> Result<Repository> {
        let mut parts = parts_of(&self.machine, Some(&self.folder), self.setting.times);
        if !self.machine.number().is_multiple_of(3) {
            parts.cache = None;
        }
        Repository::open_with_exported_key(Arc::new(store), &self.setting.key, &parts)
    }

    fn sleep(&self, nanos: u64) {
        self.machine.sleep(Duration::from_nanos(nanos));
    }

    fn add_file(&mut self) {
        let folder = ["", "a/", "b/"][self.random.below(3)];
        let name = format!("{folder}file{}", self.random.below(6));
        let number = match self.random.below(4) {
            // One of its own.
            0 => self.random.draw(),
            _ => self.setting.seed.wrapping_add(self.random.below(COMMON_CONTENTS) as u64),
        };
        let length = [60, 300, 700, 1500, 2500][self.random.below(5)];
        self.files.insert(name, noise(number, length));
    }

    fn change_files(&mut self) {
        for _ in 0..self.random.below(4) {
            match self.random.below(3) {
                0 if self.files.len() > 2 => {
                    let victim = self.random.below(self.files.len());
                    self.files = std::mem::take(&mut self.files)
                        .into_iter()
                        .enumerate()
                        .filter(|(number, _)| *number != victim)
                        .map(|(_, file)| file)
                        .collect();
                }
                _ => self.add_file(),
            }
        }
    }

    /// The last snapshot of this machine, and where its files lie; mostly.
    fn parent(
        &mut self,
        repository: &Repository,
    ) -> Result<Option<(StoredSnapshot, Files, Places)>> {
        if self.random.below(5) == 0 {
            return Ok(None);
        }
        let hosts = vec![self.host.clone()];
        let filter =
            SnapshotFilter { hosts, include_checkpoints: true, ..SnapshotFilter::default() };
        let Some(parent) = repository.snapshots(&filter)?.pop() else { return Ok(None) };
        let model = self.setting.model();
        let Some(files) = model.contents(&parent.snapshot.description).cloned() else {
            panic!("snapshot {} has no content that anybody backed up", parent.id);
        };
        drop(model);
        // A parent that cannot be read only means that all is read again.
        repository.load_index()?;
        Ok(places(repository, &parent.snapshot.root).ok().map(|places| (parent, files, places)))
    }

    fn back_up(&mut self, repository: &Repository) -> Result<()> {
        self.change_files();
        let parent = self.parent(repository)?;
        let id = parent.as_ref().map(|(parent, _, _)| parent.id);
        let mut unchanged = Places::new();
        if let Some((_, files, places)) = parent {
            unchanged.extend(places.into_iter().filter(|(name, _)| {
                files.contains_key(name) && files.get(name) == self.files.get(name)
            }));
        }
        // How long it may rest between two files.
        let rest = match self.random.below(10) {
            0 => 12 * HOUR,
            1 | 2 => HOUR,
            3 | 4 => 5 * MINUTE,
            _ => 0,
        };
        let backup = repository.begin_backup(None, 0)?;
        let mut data = backup.frame_writer(BlobKind::Data);
        let mut trees = backup.frame_writer(BlobKind::Tree);
        let mut stored = Places::new();
        for (name, bytes) in self.files.clone() {
            let place = put_file(&backup, &mut data, &bytes, unchanged.get(&name))?;
            stored.insert(name, place);
            if rest > 0 {
                let pause = self.random.spread(SECOND, rest);
                self.sleep(pause);
            }
            match self.random.below(if rest >= HOUR { 6 } else { 60 }) {
                // What it has is made durable, but nothing says what it is for yet.
                0 => {
                    data.flush()?;
                    backup.flush()?;
                }
                1 => {
                    data.flush()?;
                    let root = put_directories(&mut trees, &self.files, &stored)?;
                    let part: Files = self
                        .files
                        .iter()
                        .filter(|(name, _)| stored.contains_key(*name))
                        .map(|(name, bytes)| (name.clone(), bytes.clone()))
                        .collect();
                    let token = self.setting.model().token(&part);
                    let mut checkpoint = draft(repository, &self.host, &token, root, id);
                    checkpoint.complete = false;
                    let written = backup.commit(checkpoint)?;
                    self.reported(&written, &token);
                    self.setting.count(|counts| counts.checkpoints += 1);
                }
                _ => {}
            }
        }
        data.flush()?;
        let root = put_directories(&mut trees, &self.files, &stored)?;
        let token = self.setting.model().token(&self.files);
        let draft = draft(repository, &self.host, &token, root, id);
        self.setting.model().completes(self.machine.number());
        let written = backup.commit(draft)?;
        self.reported(&written, &token);
        self.setting.count(|counts| counts.backups += 1);
        backup.finish()?;
        Ok(())
    }

    fn reported(&self, stored: &StoredSnapshot, token: &str) {
        self.machine.note(format!("reports snapshot {} with {token}", stored.id));
        let is_complete = stored.snapshot.complete;
        self.setting.model().reported(stored.id, token, self.machine.number(), is_complete);
    }

    fn forget(&mut self, repository: &Repository) -> Result<()> {
        let everybody = self.random.below(4) == 0;
        let hosts = if everybody { Vec::new() } else { vec![self.host.clone()] };
        let filter = SnapshotFilter { hosts, ..SnapshotFilter::default() };
        let mut going = repository.snapshots(&filter)?;
        if everybody {
            // A single one of whomever.
            if going.is_empty() {
                return Ok(());
            }
            going = vec![going.swap_remove(self.random.below(going.len()))];
        } else {
            let kept = self.random.below(3);
            going.truncate(going.len().saturating_sub(kept));
        }
        if going.is_empty() {
            return Ok(());
        }
        for stored in &going {
            self.setting.model().forgets(stored.id, &stored.snapshot.description);
        }
        repository.forget(&going)?;
        self.machine.note(format!("forgot {} snapshots", going.len()));
        self.setting.count(|counts| counts.forgotten += going.len() as u64);
        Ok(())
    }

    fn undelete(&mut self, repository: &Repository) -> Result<()> {
        let mut forgotten = repository.forgotten()?;
        if forgotten.is_empty() {
            return Ok(());
        }
        let first = self.random.below(forgotten.len());
        let chosen: Vec<_> = forgotten.drain(first..).take(2).collect();
        self.setting.model().completes(self.machine.number());
        let report = repository.undelete(&chosen, 0, &Cancel::default())?;
        for (old, new) in report.written {
            let old = chosen.iter().find(|stored| stored.id == old).expect("it was asked for");
            let token = &old.snapshot.description;
            self.machine.note(format!("reports snapshot {new} with {token}, which was {}", old.id));
            let is_complete = old.snapshot.complete;
            if is_complete {
                // It makes checkpoints void that came back before it.
                self.setting.model().completes(self.machine.number());
            }
            self.setting.model().reported(new, token, self.machine.number(), is_complete);
            self.setting.count(|counts| counts.undeleted += 1);
        }
        Ok(())
    }

    fn replace(&mut self, repository: &Repository) -> Result<()> {
        let mut all = repository.snapshots(&SnapshotFilter::default())?;
        all.retain(|stored| stored.snapshot.complete);
        if all.is_empty() {
            return Ok(());
        }
        let old = all.swap_remove(self.random.below(all.len()));
        let mut draft = SnapshotDraft::from(&old.snapshot);
        draft.tags = vec![format!("tag{}", self.random.below(5))];
        let token = old.snapshot.description.clone();
        let id = old.id;
        self.setting.model().replaces(id, &token);
        self.setting.model().completes(self.machine.number());
        let replaced = repository.replace(&[(old, draft)], 0, &Cancel::default())?;
        for (_, new) in replaced.written {
            self.machine.note(format!("reports snapshot {new} with {token} in place of {id}"));
            let mut model = self.setting.model();
            model.reported(new, &token, self.machine.number(), true);
            model.replaced(id);
            drop(model);
            self.setting.count(|counts| counts.replaced += 1);
        }
        replaced.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Reads a snapshot, which may go meanwhile, but must not be other than it was.
    fn restore(&mut self, repository: &Repository) -> Result<()> {
        let filter = SnapshotFilter { include_checkpoints: true, ..SnapshotFilter::default() };
        let all = repository.snapshots(&filter)?;
        if all.is_empty() {
            return Ok(());
        }
        let chosen = &all[self.random.below(all.len())];
        let began = self.machine.world().elapsed();
        repository.load_index()?;
        let result = contents(repository, &chosen.snapshot.root);
        let model = self.setting.model();
        let token = &chosen.snapshot.description;
        match result {
            Ok(files) => {
                assert!(
                    model.contents(token) == Some(&files),
                    "snapshot {} with {token} was restored with other content",
                    chosen.id
                );
                self.setting.count(|counts| counts.restored += 1);
                Ok(())
            }
            Err(error) => {
                let world = self.machine.world();
                let path = format!("snapshots/{}", chosen.id).parse().expect("it is a name");
                // Its segment may be listed later than itself.
                let lag = self.setting.times.listing_lag * 2;
                let is_settled = world.taken_at(&path).is_some_and(|taken| taken + lag < began);
                let is_quick = world.elapsed() - began < Duration::from_nanos(6 * HOUR);
                let is_explained = !model.is_required(&chosen.id)
                    || !is_settled
                    || !is_quick
                    || !world.rotted().is_empty()
                    || is_of_weather(&error);
                assert!(
                    is_explained,
                    "snapshot {} with {token} cannot be restored: {}",
                    chosen.id,
                    describe(&error)
                );
                Err(error)
            }
        }
    }

    fn prune(&mut self, repository: &Repository) -> Result<()> {
        let max_unused = match self.random.below(3) {
            0 => MaxUnused::Percent(5.0),
            1 => MaxUnused::Unlimited,
            _ => MaxUnused::Bytes(0),
        };
        let is_consistent = repository.store().capabilities().is_consistent;
        let options = PruneOptions {
            max_unused,
            max_repack: (self.random.below(4) == 0).then_some(5000),
            repack_small: self.random.below(4) == 0,
            purge: self.random.below(8) == 0,
            instant: self.random.below(if is_consistent { 4 } else { 12 }) == 0,
            grace: self.setting.grace,
            workers: 0,
            ..PruneOptions::default()
        };
        let report = repository.prune(&options, &())?;
        self.machine.note(format!(
            "pruned: {} packs marked, {} repacked, {} deleted, {} blobs rescued",
            report.packs_unneeded,
            report.packs_repacked,
            report.packs_deleted,
            report.blobs_rescued
        ));
        self.setting.count(|counts| {
            counts.prunes += 1;
            counts.packs_deleted += report.packs_deleted;
            counts.blobs_rescued += report.blobs_rescued;
        });
        Ok(())
    }

    /// Merges small segments, and deletes those that merged ones have replaced.
    fn compact(&mut self, repository: &Repository) -> Result<()> {
        let segments_least = 2 + self.random.below(6);
        let grace = self.setting.grace;
        let options = CompactOptions { segments_least, grace, ..CompactOptions::default() };
        let done = repository.compact(&options)?;
        self.machine.note(format!("compacted: {done:?}"));
        self.setting.count(|counts| {
            counts.segments_merged += done.merged;
            counts.segments_deleted += done.deleted;
        });
        Ok(())
    }

    /// Backs up once more, when nothing goes wrong any more.
    pub(crate) fn back_up_at_last(&mut self, repository: &Repository) -> Result<()> {
        let backup = repository.begin_backup(None, 0)?;
        let (root, _) = put_tree(&backup, &self.files, &Places::new())?;
        let token = self.setting.model().token(&self.files);
        self.setting.model().completes(self.machine.number());
        let written = backup.commit(draft(repository, &self.host, &token, root, None))?;
        self.reported(&written, &token);
        backup.finish()?;
        Ok(())
    }
}

/// Whether the request failed by chance, and says nothing of what is stored.
pub(crate) fn is_of_weather(error: &Error) -> bool {
    if let Error::Store(error) = error {
        return error.kind == ErrorKind::Other;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<putback_store::Error>() {
            return error.kind == ErrorKind::Other;
        }
        cause = error.source();
    }
    false
}
