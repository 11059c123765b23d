//! What is still sealed under keys of before the last rotation.
//!
//! Packs are stored anew in the course of time, and segments are when they are merged. Snapshots keep their ids, and
//! marks stay as they are written: these are only counted.

use putback_format::envelope::{self, HEADER_BYTES, ObjectKind};

use super::plan::Candidate;
use super::{PruneReport, Run};
use crate::error::{Error, Result};
use crate::layout;

impl Run<'_> {
    /// Whether a pack is sealed under another key than what is written now.
    pub(super) fn has_old_key(&self, pack: &Candidate) -> bool {
        pack.epoch != self.repository.config().epoch
    }

    /// Counts packs that stay under an old key although this run does what it can.
    pub(super) fn count_old_packs(&self, kept: &[Candidate], report: &mut PruneReport) {
        let old = kept.iter().filter(|pack| self.has_old_key(pack));
        (report.packs_old_key, report.bytes_old_key) =
            old.fold((0, 0), |(count, bytes), pack| (count + 1, bytes + pack.size));
    }

    /// Counts segments, snapshots and marks that are left under old keys at the end of a run, if that was asked for.
    /// Costs a read of a few bytes for each that is not in the cache.
    pub(super) fn count_old_objects(&self, report: &mut PruneReport) -> Result<()> {
        if !self.options.rewrite_epoch {
            return Ok(());
        }
        let count = |folder, kind| self.count_old(folder, kind);
        report.segments_old_key = count(layout::INDEX, ObjectKind::Segment)?;
        report.snapshots_old_key = count(layout::SNAPSHOTS, ObjectKind::Snapshot)?;
        report.marks_old_key = count(layout::MARKS, ObjectKind::Mark)?;
        Ok(())
    }

    fn count_old(&self, folder: &str, kind: ObjectKind) -> Result<u64> {
        let repository = self.repository;
        let mut count = 0;
        let mut header = Vec::new();
        for info in repository.store().list(folder)? {
            if self.options.cancel.is_cancelled() {
                break;
            }
            let end = info.size.min(HEADER_BYTES as u64);
            match repository.store().read(&info.path, 0..end, &mut header) {
                Err(error) if error.is_not_found() => continue,
                read => read?,
            }
            let epoch = envelope::epoch_of(kind, repository.id(), &header)
                .map_err(|error| Error::object(&info.path, error))?;
            count += u64::from(epoch != repository.config().epoch);
        }
        Ok(count)
    }
}
