//! Why an operation ended without having done what was asked.
//!
//! What concerns a single entry does not end an operation: it is told to the observer as
//! `Event::Problem` and counted.

use std::io;

use putback_format::id::SnapshotId;
use thiserror::Error;

/// An error of the engine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository could not be read or written, or what it holds is damaged.
    #[error(transparent)]
    Repository(#[from] putback_repo::Error),
    /// A local file or folder that the operation cannot do without is unreadable.
    #[error("cannot read {path}")]
    Source {
        /// The path, as a person would look for it.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A local file, folder or stream that the operation cannot do without is not writable.
    #[error("cannot write {path}")]
    Target {
        /// The path, or a description of the stream.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nothing can be deleted by a checkpoint: what it has not, its backup may not have come to. Nothing was done.
    #[error(
        "the snapshot is a checkpoint of an unfinished backup: it does not say what is to be deleted"
    )]
    DeleteByCheckpoint,
    /// A pattern cannot be understood.
    #[error("the pattern '{pattern}' is invalid: {message}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// The storage has room for little more; what was under way is stored.
    #[error("the storage is full: {available} bytes are free")]
    StorageFull {
        /// Bytes that are free.
        available: u64,
        /// What is safe, if anything is.
        checkpoint: Option<SnapshotId>,
    },
    /// What was asked makes no sense or would do harm; nothing was done.
    #[error("{message}")]
    Refused {
        /// What, and why.
        message: String,
    },
}
