//! Forgetting snapshots, and bringing them back.
//!
//! A forget record hides a snapshot and explains the gap that it leaves in its writer's numbers. The object
//! itself stays until prune's last step, so until then the snapshot can be written again: under a new id, since the
//! record is never withdrawn. Whoever writes a snapshot of content that is there already, for whatever reason, first
//! makes sure of every blob that it needs ([`Backup::retain`]): some may lie in packs that will go.

use putback_format::envelope::ObjectKind;
use putback_format::id::{BlobId, MarkId, SnapshotId};
use putback_format::key::BlobKind;
use putback_format::limits::MARK_SNAPSHOTS_MAX;
use putback_format::mark::{ForgottenSnapshot, Mark, MarkKind};
use putback_format::tree::Entry;

use crate::commit::{Backup, SnapshotDraft};
use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::observe::Cancel;
use crate::pack_writer::FrameWriter;
use crate::snapshots::StoredSnapshot;
use crate::{Repository, layout};

impl Repository {
    /// Hides these snapshots from every listing. What they hold goes with a later prune, and until then
    /// [`Repository::undelete`] brings them back.
    ///
    /// # Errors
    /// [`Error::Store`] if the record cannot be written; snapshots of records before it are then forgotten.
    pub fn forget(&self, snapshots: &[StoredSnapshot]) -> Result<()> {
        for part in snapshots.chunks(MARK_SNAPSHOTS_MAX) {
            let mut forgotten: Vec<ForgottenSnapshot> = part
                .iter()
                .map(|stored| ForgottenSnapshot {
                    snapshot: stored.id,
                    writer: stored.snapshot.writer,
                    sequence: stored.snapshot.sequence,
                })
                .collect();
            forgotten.sort_by_key(|record| record.snapshot);
            forgotten.dedup();
            self.write_mark(MarkKind::Forget(forgotten))?;
        }
        Ok(())
    }

    /// Writes an object of the marks folder.
    pub(crate) fn write_mark(&self, kind: MarkKind) -> Result<MarkId> {
        let writer = {
            let _lock = self.state().lock()?;
            self.state().writer()?
        };
        let mark = Mark { writer, time: self.now(), kind };
        let object = self.seal(ObjectKind::Mark, &mark.encode())?;
        let id = MarkId::of_stored(&object);
        self.write_object(&layout::mark(&id), &object)?;
        Ok(id)
    }

    /// Forgotten snapshots whose objects are still there, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Damaged`] if a mark cannot be read.
    pub fn forgotten(&self) -> Result<Vec<StoredSnapshot>> {
        let marks = self.marks()?;
        let mut found = Vec::new();
        for id in self.list_snapshot_ids()? {
            if !marks.forgotten.contains(&id) {
                continue;
            }
            match self.read_snapshot(&id) {
                Ok(snapshot) => found.push(StoredSnapshot { id, snapshot }),
                // Prune is just removing it.
                Err(Error::Store(error)) if error.is_not_found() => {}
                Err(Error::Store(error)) => return Err(error.into()),
                Err(error) => self.warn(format!(
                    "forgotten snapshot {} cannot be read and is left out: {error}",
                    id.short()
                )),
            }
        }
        self.sort_snapshots(&mut found);
        Ok(found)
    }

    /// The forgotten snapshot that the beginning of an id means.
    ///
    /// # Errors
    /// [`Error::NotForgotten`], [`Error::Removed`], [`Error::NoSnapshot`], [`Error::Ambiguous`],
    /// [`Error::BadSelector`]; as [`Repository::forgotten`].
    pub fn find_forgotten(&self, selector: &str) -> Result<StoredSnapshot> {
        let is_hex =
            selector.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if selector.is_empty() || !is_hex {
            return Err(Error::BadSelector { selector: selector.to_owned() });
        }
        let forgotten = self.marks()?.forgotten;
        let listed = self.list_snapshot_ids()?;
        let is_meant = |id: &&SnapshotId| id.to_string().starts_with(selector);
        let matching: Vec<SnapshotId> =
            listed.iter().filter(is_meant).filter(|id| forgotten.contains(id)).copied().collect();
        match matching.as_slice() {
            [id] => Ok(StoredSnapshot { id: *id, snapshot: self.read_snapshot(id)? }),
            [] => Err(match listed.iter().find(is_meant) {
                Some(id) => Error::NotForgotten { snapshot: *id },
                None => match forgotten.iter().find(is_meant) {
                    Some(id) => Error::Removed { snapshot: *id },
                    None => Error::NoSnapshot { selector: selector.to_owned() },
                },
            }),
            _ => Err(Error::Ambiguous { selector: selector.to_owned(), candidates: matching }),
        }
    }

    /// Brings forgotten snapshots back: each is written again under a new id. One of which something is gone
    /// already does not keep the others from coming back.
    ///
    /// # Errors
    /// As [`Backup::commit`]; those before the one that failed are back.
    pub fn undelete(
        &self,
        snapshots: &[StoredSnapshot],
        workers: usize,
        cancel: &Cancel,
    ) -> Result<Undeleted> {
        let backup = self.begin_upkeep(workers)?;
        let mut retained = Retained::default();
        let mut report = Undeleted::default();
        for stored in snapshots {
            match backup.retain(&stored.snapshot.root, &mut retained, cancel) {
                Ok(()) => {
                    let new = backup.commit_again(SnapshotDraft::from(&stored.snapshot))?;
                    report.written.push((stored.id, new.id));
                }
                Err(Error::Cancelled) => {
                    report.is_interrupted = true;
                    break;
                }
                Err(error) if error.is_about_blob() => {
                    // Of what it noted not all is made sure of.
                    retained = Retained::default();
                    report.failed.push((stored.id, error));
                }
                Err(error) => return Err(error),
            }
        }
        backup.finish()?;
        Ok(report)
    }

    /// Writes snapshots again with other words (tags, host, time, description) and the same content, then forgets
    /// the old ones. One of which something is gone stays as it is, and does not keep the others from it.
    ///
    /// # Errors
    /// As [`Repository::undelete`]. If forgetting fails, both are there.
    pub fn replace(
        &self,
        changes: &[(StoredSnapshot, SnapshotDraft)],
        workers: usize,
        cancel: &Cancel,
    ) -> Result<Replaced> {
        self.begin_upkeep(workers)?.replace(changes, false, cancel)
    }
}

/// What became of snapshots that were to come back.
#[derive(Debug, Default)]
pub struct Undeleted {
    /// Old ids and new ones.
    pub written: Vec<(SnapshotId, SnapshotId)>,
    /// Those of which something is gone.
    pub failed: Vec<(SnapshotId, Error)>,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// What became of snapshots that others were to stand for.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Old ids and new ones.
    pub written: Vec<(SnapshotId, SnapshotId)>,
    /// Those that stay as they are, since something is gone that a new one would need.
    pub failed: Vec<(SnapshotId, Error)>,
    /// Stopped before its end.
    pub is_interrupted: bool,
}

/// Pages of trees and lists that one run has made sure of.
#[derive(Default)]
pub struct Retained {
    pages: IdSet<BlobId>,
}

/// Where blobs that cannot be relied on are stored anew.
struct Writers {
    data: FrameWriter,
    trees: FrameWriter,
}

impl Backup {
    /// Writes snapshots that stand for others, whose trees may rest on what was put in this run, and forgets the
    /// old ones unless they are to be kept. One of which something is gone stays as it is. Ends the run.
    ///
    /// # Errors
    /// As [`Backup::commit`] and [`Backup::retain`]; those before the one that failed are replaced.
    pub fn replace(
        self,
        changes: &[(StoredSnapshot, SnapshotDraft)],
        keeps_old: bool,
        cancel: &Cancel,
    ) -> Result<Replaced> {
        self.flush()?;
        let mut retained = Retained::default();
        let mut report = Replaced::default();
        let mut replaced = Vec::new();
        let result = changes.iter().try_for_each(|(old, draft)| {
            let mut new = self.write_again(draft, &mut retained, cancel);
            if let Err(Error::PacksLost { .. }) = new {
                // Writers know of it by now: either it can be done without these packs, or it is told what is lost.
                retained = Retained::default();
                new = self.write_again(draft, &mut retained, cancel);
            }
            match new {
                Ok(new) => {
                    report.written.push((old.id, new.id));
                    replaced.push(old.clone());
                }
                Err(error) if error.is_damage() || matches!(error, Error::PacksLost { .. }) => {
                    // Of what it noted not all is made sure of.
                    retained = Retained::default();
                    report.failed.push((old.id, error));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        });
        // Also after a failure: what has a successor should not be there twice.
        if !keeps_old {
            self.repository().forget(&replaced)?;
        }
        match result {
            Err(Error::Cancelled) => report.is_interrupted = true,
            result => result?,
        }
        self.finish()?;
        Ok(report)
    }

    fn write_again(
        &self,
        draft: &SnapshotDraft,
        retained: &mut Retained,
        cancel: &Cancel,
    ) -> Result<StoredSnapshot> {
        self.retain(&draft.root, retained, cancel)?;
        self.commit_again(draft.clone())
    }

    /// Makes sure that a snapshot of this directory may rely on everything below it: what lies only in packs that
    /// will go is stored anew. Reads every tree page once, and of the files only what has to be stored.
    ///
    /// Memory: 32 bytes for each page, and a page for each directory on the open path.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], [`Error::BlobLost`], [`Error::BlobDamaged`], [`Error::Store`], [`Error::Cancelled`].
    pub fn retain(&self, root: &Entry, retained: &mut Retained, cancel: &Cancel) -> Result<()> {
        let mut writers = Writers {
            data: self.frame_writer(BlobKind::Data),
            trees: self.frame_writer(BlobKind::Tree),
        };
        let result = self.repository().walk_blobs(root, cancel, &mut |kind, id| {
            if kind == BlobKind::Tree && !retained.pages.insert(*id) {
                return Ok(false);
            }
            self.retain_blob(kind, id, &mut writers).map(|()| true)
        });
        // Also after a failure: what was put counts as stored from then on.
        writers.data.flush()?;
        writers.trees.flush()?;
        result
    }

    fn retain_blob(&self, kind: BlobKind, id: &BlobId, writers: &mut Writers) -> Result<()> {
        if self.require(id)? {
            return Ok(());
        }
        let plain = self.repository().read_blob(kind, id)?;
        let writer = match kind {
            BlobKind::Data => &mut writers.data,
            BlobKind::Tree => &mut writers.trees,
        };
        writer.put(&plain).map(drop)
    }
}
