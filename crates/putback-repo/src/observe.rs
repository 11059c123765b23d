//! Telling somebody what an operation does.
//!
//! The one who listens decides what to show; nothing here prints. Also the way to stop an operation
//! from outside: [`Cancel`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use putback_format::id::SnapshotId;
use putback_format::snapshot::IncidentKind;

/// Told what an operation is doing. Called from many workers; must return quickly.
pub trait Observer: Send + Sync {
    /// One thing happened.
    fn event(&self, event: Event<'_>);
}

impl Observer for () {
    fn event(&self, _: Event<'_>) {}
}

/// A part of an operation with its own progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading sources and storing what is new.
    Backup,
    /// Looking what a restore has to write.
    Plan,
    /// Writing files.
    Restore,
    /// Reading restored files again.
    Verify,
    /// Walking all snapshots.
    CheckTrees,
    /// Reading all packs; its bytes are stored bytes.
    CheckPacks,
    /// Reading index segments that the local index lacks.
    Index,
    /// Storing what is needed of packs that will go; its bytes are stored bytes of these packs.
    Repack,
    /// Waiting until what was marked may go; its items are seconds.
    Wait,
    /// Reading snapshots of one repository and storing them in another.
    Replicate,
    /// Changing the trees of snapshots; its items are snapshots.
    Rewrite,
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Amount {
    /// Entries, or objects.
    pub items: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Backup: not in the parent.
    New,
    /// Backup: differs from the parent.
    Modified,
    /// Backup: as in the parent. Restore: already as it should be.
    Unchanged,
    /// Left out by a filter.
    Excluded,
    /// Restore: written.
    Restored,
    /// Restore: an existing file was changed.
    Updated,
    /// Restore: kept by the overwrite policy.
    Skipped,
    /// Restore: removed, since the snapshot has no such entry.
    Deleted,
}

/// Something that an operation tells.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A phase began; `total` is what it expects, if known.
    PhaseStarted {
        /// The phase.
        phase: Phase,
        /// All of it.
        total: Option<Amount>,
    },
    /// The expected total of a running phase is now known, or has changed.
    Total {
        /// The phase.
        phase: Phase,
        /// All of it.
        total: Amount,
    },
    /// A phase went on by this much.
    Advanced {
        /// The phase.
        phase: Phase,
        /// Since the last report.
        by: Amount,
    },
    /// Reading or writing this file began.
    FileStarted {
        /// Absolute path, raw bytes.
        path: &'a [u8],
    },
    /// An entry is done.
    Entry {
        /// Absolute path, raw bytes.
        path: &'a [u8],
        /// What happened to it.
        action: Action,
        /// Its size.
        bytes: u64,
    },
    /// An entry could not be handled as it should have been; the operation goes on.
    Problem {
        /// Absolute path, raw bytes.
        path: &'a [u8],
        /// In what way.
        kind: IncidentKind,
        /// The cause, for a person.
        message: &'a str,
    },
    /// Something that concerns no single entry; the operation goes on.
    Warning {
        /// For a person.
        message: &'a str,
    },
    /// An unfinished earlier run is being continued.
    Resumed {
        /// Its checkpoint, if it got that far.
        checkpoint: Option<SnapshotId>,
        /// Packs that it had stored and no segment named yet.
        packs: u64,
    },
    /// What was backed up so far is safe under this checkpoint.
    Checkpoint {
        /// The checkpoint.
        snapshot: SnapshotId,
    },
}

/// Asks a running operation to stop at the next safe point. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
