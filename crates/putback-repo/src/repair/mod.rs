//! Saving what can be saved of a damaged repository.
//!
//! A repair is first a [`RepairPlan`], which says what is wrong, which files that hurts and what will be done; then
//! [`Repository::repair`] does it. It adds and does not alter: a segment that names packs again, packs with the
//! blobs that are still good, a mark that takes bad packs away from writers, snapshots without what is lost. The
//! one exception are objects whose bytes are not those of their name and of which a good copy is at hand: the bad
//! one goes. What repairs cannot give back the next backup reads from its source.
//!
//! `small.rs` has configurations, slots and marks, `segments.rs` the index, `packs.rs` packs, `snapshots.rs`
//! snapshots, `unreadable.rs` those of them that cannot be read. Safe to stop anywhere; a second run finds what the
//! first one left.

mod packs;
mod segments;
mod small;
mod snapshots;
mod unreadable;

pub use snapshots::REPAIRED;

use std::collections::BTreeSet;

use putback_format::id::{PackId, SnapshotId};
use putback_store::{ErrorKind, Operation, Status};

use crate::check::{Damage, HurtSnapshot, ReadData, Survey, describe_object};
use crate::error::{Error, Result};
use crate::observe::{Cancel, Observer};
use crate::{Repository, layout};

/// Findings that are listed one by one; further ones are counted.
const FINDINGS_MAX: usize = 1000;

/// What to repair. Whatever it is, second copies of small objects come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairTarget {
    /// Index segments, and marks that cannot be read.
    Index,
    /// Packs.
    Packs,
    /// Snapshots.
    Snapshots,
}

/// How to repair.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// What to repair.
    pub target: RepairTarget,
    /// How much of the data to read in search of damage. Missing packs are found without, and packs that are listed
    /// with another size or checksum are read in any case.
    pub read: ReadData,
    /// If there are any, data is read of these packs and no others that seem whole.
    pub packs: Vec<PackId>,
    /// Forgets snapshots that have been written without what is lost, and those that cannot be read at all.
    pub forget: bool,
    /// Cores to use.
    pub workers: usize,
    /// Stops at the next safe point.
    pub cancel: Cancel,
}

impl RepairOptions {
    /// Reads all data where packs are repaired, and none elsewhere.
    #[must_use]
    pub fn new(target: RepairTarget) -> Self {
        let read = if target == RepairTarget::Packs { ReadData::All } else { ReadData::No };
        Self {
            target,
            read,
            packs: Vec::new(),
            forget: false,
            workers: 1,
            cancel: Cancel::default(),
        }
    }
}

/// One thing that is wrong, and what will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// What will be done; none if this repair can do nothing.
    pub remedy: Option<String>,
    /// What a person can do about an object that no repair touches, since it may well be whole.
    pub hint: Option<String>,
    /// Paths that it hurts, each with one of its snapshots; the first 100.
    pub hurts: Vec<(SnapshotId, Vec<u8>)>,
    /// How many paths it hurts.
    pub hurts_total: u64,
    /// There are more than that: they were not counted to the last.
    pub hurts_at_least: bool,
}

/// What a repair found and will do.
#[derive(Debug)]
pub struct RepairPlan {
    /// What is wrong, the first 1,000; beyond these snapshots only, and without paths.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub findings_total: u64,
    /// How much of it this repair can do nothing about.
    pub findings_without_remedy: u64,
    /// Blobs that are in no pack any more as far as that was read.
    pub blobs_lost: u64,
    /// Where packs are repaired: every snapshot that lost something, as far as data was read.
    pub hurt_snapshots: Vec<HurtSnapshot>,
    /// The search was stopped before its end; there are no steps then.
    pub is_interrupted: bool,
    small: small::Steps,
    segments: segments::Steps,
    packs: packs::Steps,
    snapshots: snapshots::Steps,
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Small objects that were written again.
    pub objects_written: u64,
    /// Marks that nobody can read, removed.
    pub marks_removed: u64,
    /// Index segments that were written for packs that none named.
    pub segments_written: u64,
    /// Packs that these name.
    pub packs_indexed: u64,
    /// Blobs of bad packs that were stored anew.
    pub blobs_saved: u64,
    /// Bad packs that were marked: prune removes them.
    pub packs_marked: u64,
    /// Snapshots that were written without what is lost: old ids and new ones.
    pub snapshots_written: Vec<(SnapshotId, SnapshotId)>,
    /// Snapshots that were forgotten.
    pub snapshots_forgotten: u64,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

impl RepairPlan {
    fn new() -> Self {
        Self {
            findings: Vec::new(),
            findings_total: 0,
            findings_without_remedy: 0,
            blobs_lost: 0,
            hurt_snapshots: Vec::new(),
            is_interrupted: false,
            small: small::Steps::default(),
            segments: segments::Steps::default(),
            packs: packs::Steps::default(),
            snapshots: snapshots::Steps::default(),
        }
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        !(self.small.is_empty()
            && self.segments.is_empty()
            && self.packs.is_empty()
            && self.snapshots.is_empty())
    }

    fn find(
        &mut self,
        object: impl ToString,
        message: impl ToString,
        remedy: Option<String>,
        hurts: Vec<(SnapshotId, Vec<u8>)>,
    ) {
        let total = (hurts.len() as u64, false);
        self.find_hurting(object, message, remedy, hurts, total);
    }

    /// As [`RepairPlan::find`], where more is hurt than is listed: how many paths, and whether there are more.
    fn find_hurting(
        &mut self,
        object: impl ToString,
        message: impl ToString,
        remedy: Option<String>,
        mut hurts: Vec<(SnapshotId, Vec<u8>)>,
        (hurts_total, hurts_at_least): (u64, bool),
    ) {
        self.findings_total += 1;
        self.findings_without_remedy += u64::from(remedy.is_none());
        let (object, message) = (object.to_string(), message.to_string());
        if self.findings.len() >= FINDINGS_MAX {
            // Nobody should take a snapshot for whole because others were listed before it.
            if !object.starts_with("snapshots/") {
                return;
            }
            hurts.clear();
        }
        let hint = None;
        let finding = Finding { object, message, remedy, hint, hurts, hurts_total, hurts_at_least };
        self.findings.push(finding);
    }

    /// Notes a snapshot that stays as it is, since it may well be whole, and what a person can do.
    fn leave(&mut self, object: impl ToString, message: &str, hint: &str) {
        self.findings_total += 1;
        self.findings_without_remedy += 1;
        self.findings.push(Finding {
            object: object.to_string(),
            message: message.to_owned(),
            remedy: None,
            hint: Some(hint.to_owned()),
            hurts: Vec::new(),
            hurts_total: 0,
            hurts_at_least: false,
        });
    }

    fn interrupted(mut self) -> Self {
        (self.small, self.segments) = Default::default();
        (self.packs, self.snapshots) = Default::default();
        self.is_interrupted = true;
        self
    }
}

impl Repository {
    /// Finds out what is wrong and what can be done about it. Changes nothing.
    ///
    /// # Errors
    /// - [`Error::Damaged`]: packs or snapshots cannot be repaired before the index segment or mark that it names.
    /// - [`Error::KeysRotated`]: an object that may be whole is sealed under a key that this run does not have.
    /// - [`Error::NewerFormat`], [`Error::Store`].
    pub fn plan_repair(
        &self,
        options: &RepairOptions,
        observer: &dyn Observer,
    ) -> Result<RepairPlan> {
        let mut plan = RepairPlan::new();
        self.plan_small(options.target, &mut plan)?;
        let planned = match options.target {
            RepairTarget::Index => self.plan_segments(options, observer, &mut plan),
            RepairTarget::Packs => self.plan_packs(options, observer, &mut plan),
            RepairTarget::Snapshots => self.plan_snapshots(options, observer, &mut plan),
        };
        match planned {
            Err(Error::Cancelled) => return Ok(plan.interrupted()),
            planned => planned?,
        }
        Ok(if options.cancel.is_cancelled() { plan.interrupted() } else { plan })
    }

    /// Does what the plan says.
    ///
    /// # Errors
    /// As [`Backup::commit`](crate::Backup::commit); what was done before stays, and a new plan has the rest.
    pub fn repair(
        &self,
        plan: &RepairPlan,
        options: &RepairOptions,
        observer: &dyn Observer,
    ) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        let done = self
            .repair_small(&plan.small, &mut report)
            .and_then(|()| self.repair_segments(&plan.segments, options, observer, &mut report))
            .and_then(|()| self.repair_packs(&plan.packs, options, observer, &mut report))
            .and_then(|()| self.repair_snapshots(&plan.snapshots, options, &mut report));
        match done {
            Err(Error::Cancelled) => report.is_interrupted = true,
            done => done?,
        }
        Ok(report)
    }

    /// Looks at everything, without anything that is kept on this machine.
    fn survey_for_repair(
        &self,
        options: &RepairOptions,
        observer: &dyn Observer,
    ) -> Result<Survey> {
        let only: BTreeSet<PackId> = options.packs.iter().copied().collect();
        let read = if only.is_empty() { options.read } else { ReadData::No };
        // Packs that are listed as others than they were are read in any case: what is left of them is saved.
        let only = (read == ReadData::No).then_some(&only);
        let cancel = options.cancel.clone();
        let check = crate::CheckOptions { read, workers: options.workers, cancel };
        let survey = self.survey(&check, only, false, observer)?;
        if options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // Without them nobody knows what is stored, and what writers may rely on.
        let blocks = |damage: &&Damage| {
            damage.object.starts_with("index/") || damage.object.starts_with("marks/")
        };
        match survey.report.damages.iter().find(blocks) {
            Some(damage) => Err(Error::Damaged { object: damage.object.clone(), source: None }),
            None => Ok(survey),
        }
    }
}

/// What came of reading an object that should be there.
enum Reading<T> {
    Good(T),
    Missing,
    Damaged(String),
}

impl Repository {
    /// Makes sure that a pack that was not found when it was read is gone: a storage that does not find it for a
    /// moment has lost nothing.
    ///
    /// # Errors
    /// [`Error::Store`] if it is there.
    fn check_gone(&self, id: &PackId) -> Result<()> {
        let path = layout::pack(id);
        match self.store().stat(&path) {
            Ok(_) => {
                // Not as one that is missing: nobody who asks for the kind may take it for that.
                let error =
                    putback_store::Error::new(ErrorKind::Other, Operation::Read, path.as_str());
                let why =
                    "the storage has it and did not find it when it was read; try again later";
                Err(error.with_status(Status::Exhausted).with_source(why).into())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads, and once more if that seems damaged: a single wrong answer of a store is no damage yet.
fn read_twice<T>(read: impl Fn() -> Result<T>) -> Result<Reading<T>> {
    let first = read();
    let again = if matches!(&first, Err(error) if error.is_damage()) { read() } else { first };
    match again {
        Ok(value) => Ok(Reading::Good(value)),
        Err(Error::Store(error)) if error.is_not_found() => Ok(Reading::Missing),
        Err(error) if error.is_damage() => Ok(Reading::Damaged(describe_object(&error))),
        Err(error) => Err(error),
    }
}
