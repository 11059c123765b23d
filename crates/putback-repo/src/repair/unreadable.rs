//! Snapshots that cannot be read at all.
//!
//! Only what nobody will ever read is forgotten: an object whose bytes are gone, or not what was written. So each is
//! read again, by the plan and before it is forgotten. What a newer program wrote is whole, and stays; a storage that
//! cannot be reached, or a key that this run does not have, ends the repair.

use std::collections::BTreeSet;

use putback_format::id::{SnapshotId, WriterId};
use putback_format::limits::MARK_SNAPSHOTS_MAX;
use putback_format::mark::{ForgottenSnapshot, MarkKind};
use putback_store::{ErrorKind, Status};

use super::{Reading, RepairOptions, RepairPlan, RepairReport, read_twice};
use crate::check::MISSING;
use crate::error::{Error, Result};
use crate::snapshots::Missing;
use crate::state::Seen;
use crate::{Repository, layout};

/// Who is said to have written a snapshot of which nobody knows it.
const NOBODY: WriterId = WriterId::from_bytes([0; WriterId::LENGTH]);

/// What came of reading a snapshot again that could not be read.
enum Again {
    /// It can be read, or the storage does not list it any more: another machine has pruned.
    Fine,
    /// Its bytes are gone, or not what was written.
    Damaged(String),
    /// A newer program wrote it.
    Newer,
    /// It is listed and not there, which a listing that lags may explain.
    Unsettled,
}

impl Repository {
    /// Plans what to do about snapshots that a check could not read. `self` is to read from the store and no cache.
    pub(super) fn plan_unreadable(
        &self,
        suspects: &[SnapshotId],
        seen: &Seen,
        options: &RepairOptions,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let mut damaged = Vec::new();
        let mut are_all = true;
        for id in suspects {
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (message, hint) = match self.read_again(id)? {
                Again::Fine => continue,
                Again::Damaged(message) => {
                    damaged.push((*id, message));
                    continue;
                }
                Again::Newer => (
                    "it needs a newer version of putback, and nothing shows that it is damaged",
                    "update putback; it stays as it is",
                ),
                Again::Unsettled => (
                    "it is listed and cannot be found",
                    "try again later: a storage may list for a while what another machine removed, and find late \
                     what one has written; it stays as it is",
                ),
            };
            are_all = false;
            plan.leave(layout::snapshot(id), message, hint);
        }
        let mut records = match options.forget && !damaged.is_empty() {
            true => numbered(damaged.iter().map(|(id, _)| *id), &self.missing(seen)?, are_all),
            false => Vec::new(),
        }
        .into_iter();
        for (id, message) in damaged {
            let message = format!("{message}; what it held cannot be found");
            let remedy = records.next().map(|record| {
                let remedy = match record.sequence {
                    0 => "forget it, so that prune can go on".to_owned(),
                    number => format!(
                        "forget it, so that prune can go on; it is taken for snapshot number {number} of writer {}, \
                         which is gone",
                        record.writer.short()
                    ),
                };
                plan.snapshots.unreadable.push(record);
                remedy
            });
            plan.find(layout::snapshot(&id), message, remedy, Vec::new());
        }
        Ok(())
    }

    fn read_again(&self, id: &SnapshotId) -> Result<Again> {
        let capabilities = self.store().capabilities();
        let read = || match self.read_snapshot(id) {
            // That it cannot be read just now proves nothing where a storage is far away.
            Err(Error::Store(error))
                if capabilities.is_remote
                    && !matches!(
                        error.kind,
                        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Lost
                    ) =>
            {
                Err(error.with_status(Status::Exhausted).into())
            }
            read => read,
        };
        match read_twice(read) {
            Ok(Reading::Good(_)) => Ok(Again::Fine),
            Ok(Reading::Damaged(message)) => Ok(Again::Damaged(message)),
            Ok(Reading::Missing) if !self.list_snapshot_ids()?.contains(id) => Ok(Again::Fine),
            Ok(Reading::Missing) if capabilities.is_consistent => {
                Ok(Again::Damaged(MISSING.to_owned()))
            }
            Ok(Reading::Missing) => Ok(Again::Unsettled),
            Err(Error::NewerFormat { .. }) => Ok(Again::Newer),
            Err(error) => Err(error),
        }
    }

    /// Forgets those of these snapshots that still cannot be read.
    pub(super) fn forget_unreadable(
        &self,
        planned: &[ForgottenSnapshot],
        report: &mut RepairReport,
    ) -> Result<()> {
        if planned.is_empty() {
            return Ok(());
        }
        let fresh = self.with_fresh_index(false);
        let mut records = BTreeSet::new();
        for record in planned {
            if let Again::Damaged(_) = fresh.read_again(&record.snapshot)? {
                records.insert((record.snapshot, record.writer, record.sequence));
            }
        }
        // One that can be read again has a number that the plan gave to another.
        let is_as_planned = records.len() == planned.len();
        let records: Vec<ForgottenSnapshot> = records
            .into_iter()
            .map(|(snapshot, writer, sequence)| match is_as_planned {
                true => ForgottenSnapshot { snapshot, writer, sequence },
                false => ForgottenSnapshot { snapshot, writer: NOBODY, sequence: 0 },
            })
            .collect();
        for part in records.chunks(MARK_SNAPSHOTS_MAX) {
            self.write_mark(MarkKind::Forget(part.to_vec()))?;
            report.snapshots_forgotten += part.len() as u64;
        }
        Ok(())
    }
}

/// Records that forget snapshots which cannot be read. Such a snapshot does not say which number it had. But if no
/// more numbers are missing than snapshots are unreadable, these account for all of them, and the records explain the
/// gaps. Otherwise the storage lost something else too, and nobody knows which gap is whose: all stay. So they do where
/// other snapshots cannot be read either and stay.
fn numbered(
    unreadable: impl ExactSizeIterator<Item = SnapshotId>,
    missing: &[Missing],
    are_all: bool,
) -> Vec<ForgottenSnapshot> {
    let count = missing
        .iter()
        .map(|missing| (missing.last - missing.first).saturating_add(1))
        .fold(0, u64::saturating_add);
    let is_accounted_for = are_all && count <= unreadable.len() as u64;
    let mut numbers = missing
        .iter()
        .filter(|_| is_accounted_for)
        .flat_map(|missing| (missing.first..=missing.last).map(|number| (missing.writer, number)));
    unreadable
        .map(|snapshot| {
            let (writer, sequence) = numbers.next().unwrap_or((NOBODY, 0));
            ForgottenSnapshot { snapshot, writer, sequence }
        })
        .collect()
}
