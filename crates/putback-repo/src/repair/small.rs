//! Small objects: configurations and slots, of which there are two copies each, the text for people, and marks.
//!
//! A copy that is missing is written. One whose bytes are not those of its name is deleted first, which the
//! rule that nothing is changed in place allows: there is no second object that could have this name. A
//! mark that cannot be read keeps every program from going on, and nobody can know what it said, so it is removed.

use std::collections::BTreeMap;

use putback_format::envelope::ObjectKind;
use putback_format::id::{MarkId, SlotId};
use putback_format::limits::SMALL_OBJECT_BYTES_MAX;
use putback_format::mark::Mark;
use putback_store::{ErrorKind, LockMode, ObjectPath};

use super::{Reading, RepairPlan, RepairReport, RepairTarget, read_twice};
use crate::check::{MISSING, describe_object};
use crate::error::{Error, Result};
use crate::{Repository, layout, read_verified};

/// What will be done to small objects.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// What to write, and the other copy of it.
    copies: Vec<(ObjectPath, ObjectPath)>,
    writes_readme: bool,
    marks: Vec<ObjectPath>,
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty() && !self.writes_readme && self.marks.is_empty()
    }
}

const LIMIT: u64 = SMALL_OBJECT_BYTES_MAX as u64;

impl Repository {
    pub(super) fn plan_small(&self, target: RepairTarget, plan: &mut RepairPlan) -> Result<()> {
        let store = &self.inner.origin;
        // The original of each, and whether it and its copy are listed.
        let mut objects: BTreeMap<ObjectPath, ObjectPath> = BTreeMap::new();
        for info in store.list(layout::CONFIG)? {
            if layout::parse_config(info.path.name()).is_some() {
                objects.insert(info.path.clone(), layout::copy(&info.path));
            }
        }
        for info in store.list(layout::KEYS)? {
            if info.path.name().parse::<SlotId>().is_ok() {
                objects.insert(info.path.clone(), layout::copy(&info.path));
            }
        }
        for info in store.list(layout::COPIES)? {
            let name = info.path.name();
            let config = name.strip_prefix("config-").and_then(layout::parse_config);
            let slot = name.strip_prefix("keys-").and_then(|name| name.parse().ok());
            let original = config
                .map(|(generation, id)| layout::config(generation, &id))
                .or_else(|| slot.map(|id| layout::slot(&id)));
            objects.extend(original.map(|original| (original, info.path)));
        }
        for (original, copy) in objects {
            let read =
                |path: &ObjectPath| read_twice(|| read_verified(store.as_ref(), path, LIMIT));
            let pair = [(&original, &copy, read(&original)?), (&copy, &original, read(&copy)?)];
            let is_of_other = |(path, _, reading): &(
                &ObjectPath,
                &ObjectPath,
                Reading<Vec<u8>>,
            )| {
                matches!(reading, Reading::Good(bytes) if self.is_of_other(path, bytes))
            };
            // A copy that an `init` left which did not come to its end: made whole it would bring an empty
            // repository to life, with the same password maybe.
            if pair.iter().any(is_of_other) {
                continue;
            }
            let has_good = pair.iter().any(|(_, _, reading)| matches!(reading, Reading::Good(_)));
            for (path, other, reading) in pair {
                let message = match reading {
                    Reading::Good(_) => continue,
                    Reading::Missing => MISSING.to_owned(),
                    Reading::Damaged(message) => message,
                };
                let remedy = has_good.then(|| format!("write it again, as {other} has it"));
                if has_good {
                    plan.small.copies.push((path.clone(), other.clone()));
                }
                plan.find(path, message, remedy, Vec::new());
            }
        }
        let text = read_twice(|| Ok(store.read_all(&layout::readme(), 1 << 16)?))?;
        let message = match text {
            Reading::Good(text) if text == layout::README.as_bytes() => None,
            Reading::Good(_) => Some("it is not the text that putback writes".to_owned()),
            Reading::Missing => Some(MISSING.to_owned()),
            Reading::Damaged(message) => Some(message),
        };
        if let Some(message) = message {
            plan.small.writes_readme = true;
            let remedy = Some("write it again".to_owned());
            plan.find(layout::README_NAME, message, remedy, Vec::new());
        }
        if target == RepairTarget::Index {
            self.plan_marks(plan)?;
        }
        Ok(())
    }

    fn plan_marks(&self, plan: &mut RepairPlan) -> Result<()> {
        for info in self.inner.origin.list(layout::MARKS)? {
            if info.path.name().parse::<MarkId>().is_err() {
                continue;
            }
            if let Some(message) = self.is_mark_wrong(&info.path)? {
                let remedy =
                    "remove it: what it marked or forgot has to be marked or forgotten again";
                plan.find(&info.path, message, Some(remedy.to_owned()), Vec::new());
                plan.small.marks.push(info.path);
            }
        }
        Ok(())
    }

    /// Why a mark says nothing any more, if that is so. That it cannot be read just now is not enough where a
    /// storage is far away.
    fn is_mark_wrong(&self, path: &ObjectPath) -> Result<Option<String>> {
        let is_remote = self.store().capabilities().is_remote;
        let is_proof = |error: &Error| match error {
            Error::Store(error) => {
                !is_remote || matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Lost)
            }
            _ => true,
        };
        let mut failure = None;
        for _ in 0..2 {
            match self.read_mark_at(path) {
                Ok(_) => return Ok(None),
                Err(Error::Store(error)) if error.is_not_found() => return Ok(None),
                Err(error) if error.is_damage() && is_proof(&error) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Ok(failure.map(|error| describe_object(&error)))
    }

    fn read_mark_at(&self, path: &ObjectPath) -> Result<Mark> {
        let store = self.inner.origin.as_ref();
        let bytes = read_verified(store, path, u64::from(ObjectKind::Mark.bytes_max()) * 2)?;
        let damaged = |error| Error::object(path, error);
        let payload =
            putback_format::envelope::unseal(ObjectKind::Mark, self.id(), self.keys(), &bytes);
        Mark::decode(&payload.map_err(damaged)?).map_err(damaged)
    }

    pub(super) fn repair_small(&self, steps: &Steps, report: &mut RepairReport) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        // Nobody removes a slot or carries a mark out meanwhile, where that can be had.
        let _lock = self.store().lock(LockMode::Exclusive)?;
        let store = self.inner.origin.as_ref();
        for (path, other) in &steps.copies {
            let bytes = match read_twice(|| read_verified(store, other, LIMIT))? {
                Reading::Good(bytes) => bytes,
                // The slot has just been removed.
                Reading::Missing => continue,
                Reading::Damaged(_) => {
                    return Err(Error::Damaged { object: other.to_string(), source: None });
                }
            };
            if let Reading::Good(_) = read_twice(|| read_verified(store, path, LIMIT))? {
                continue;
            }
            self.write_over(path, &bytes)?;
            report.objects_written += 1;
        }
        if steps.writes_readme {
            self.write_over(&layout::readme(), layout::README.as_bytes())?;
            report.objects_written += 1;
        }
        for path in &steps.marks {
            if self.is_mark_wrong(path)?.is_some() {
                self.delete_rows(path)?;
                report.marks_removed += 1;
            }
        }
        Ok(())
    }

    /// Writes an object in place of one that has other bytes.
    fn write_over(&self, path: &ObjectPath, bytes: &[u8]) -> Result<()> {
        self.delete_rows(path)?;
        self.write_object(path, bytes)?;
        if self.inner.origin.read_all(path, LIMIT)? != bytes {
            return Err(Error::Damaged { object: format!("{path}, just written,"), source: None });
        }
        Ok(())
    }

    fn delete_rows(&self, path: &ObjectPath) -> Result<()> {
        let mut rows = self.store().list(path.folder())?;
        rows.retain(|info| info.path == *path);
        if !rows.is_empty() {
            self.store().delete(&rows)?;
        }
        Ok(())
    }
}
