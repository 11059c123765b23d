//! What can go wrong with a repository.

use putback_format::id::{BlobId, PackId, SlotId, SnapshotId};
use thiserror::Error;

/// An error of a repository.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing that could be a repository is there.
    #[error("there is no repository at {location}")]
    NoRepository {
        /// The store.
        location: String,
    },
    /// `init` where there is one.
    #[error("there is already a repository at {location}")]
    RepositoryExists {
        /// The store.
        location: String,
    },
    /// Several repositories share one folder, which no program does on purpose.
    #[error("{location} holds two repositories, {first} and {second}")]
    TwoRepositories {
        /// The store.
        location: String,
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// The exported key belongs to another repository.
    #[error("the key is of repository {key}, but {location} holds repository {repository}")]
    KeyOfOther {
        /// The store.
        location: String,
        /// The repository that the key opens.
        key: String,
        /// The repository that is there.
        repository: String,
    },
    /// No password slot is there, nor a copy of one.
    #[error("no password slot is left at {location}: its folders keys and copies hold none")]
    NoSlots {
        /// The store.
        location: String,
    },
    /// No configuration is there, nor a copy of one.
    #[error("no configuration is left at {location}: its folders config and copies hold none")]
    NoConfig {
        /// The store.
        location: String,
    },
    /// No slot opens with the password.
    #[error("wrong password for the repository at {location}")]
    WrongPassword {
        /// The store.
        location: String,
    },
    /// What opened the repository lacks the key that the configuration in force is sealed under.
    #[error("the key is of before the last rotation of the keys of {location}")]
    OutdatedKey {
        /// The store.
        location: String,
    },
    /// An object is sealed under a key that what opened the repository does not hold.
    #[error(
        "{object} is sealed under a key that this run does not have: the keys were rotated meanwhile"
    )]
    KeysRotated {
        /// The object.
        object: String,
        /// What the decoder met.
        #[source]
        source: putback_format::Error,
    },
    /// Slots or configuration were changed by others while this run changed them.
    #[error("the keys or passwords of {location} are being changed by another run")]
    KeysContended {
        /// The store.
        location: String,
    },
    /// Nobody could open the repository any more.
    #[error("no password of {location} would stay")]
    NoPasswordKept {
        /// The store.
        location: String,
    },
    /// The keys cannot be rotated once more.
    #[error("the keys were rotated as often as they can be: there are {limit} epochs")]
    NoFreeEpoch {
        /// How many there are.
        limit: usize,
    },
    /// An object was written by a newer program.
    #[error("{object} needs a newer version of putback")]
    NewerFormat {
        /// The object.
        object: String,
        /// What the decoder met.
        #[source]
        source: putback_format::Error,
    },
    /// An object is not what was written.
    #[error("{object} is damaged")]
    Damaged {
        /// The object.
        object: String,
        /// What the decoder met, if it came to that.
        #[source]
        source: Option<putback_format::Error>,
    },
    /// No index names this blob.
    #[error("blob {blob} is not in the repository")]
    BlobUnknown {
        /// The blob.
        blob: BlobId,
    },
    /// No pack that is there has a blob that a snapshot needs.
    #[error("blob {} of snapshot {} is in no pack that can be read", .blob.short(), .snapshot.short())]
    BlobMissing {
        /// The blob.
        blob: BlobId,
        /// A snapshot that needs it.
        snapshot: SnapshotId,
    },
    /// The packs that hold a blob are not there any more.
    #[error("blob {} is lost: pack {} is missing", .blob.short(), .pack.short())]
    BlobLost {
        /// The blob.
        blob: BlobId,
        /// The pack, or the first of several.
        pack: PackId,
    },
    /// A pack no longer holds what was sealed.
    #[error("blob {} is damaged in pack {}", .blob.short(), .pack.short())]
    BlobDamaged {
        /// The blob.
        blob: BlobId,
        /// The pack.
        pack: PackId,
        /// What was met.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Packs went away while they were needed, and what they held cannot be read anywhere. Whoever has the source
    /// can read it again.
    #[error("packs that the snapshot needs are lost, the first of them {}", .packs.first().map_or_else(String::new, PackId::short))]
    PacksLost {
        /// The packs; writers do not rely on them any more.
        packs: Vec<PackId>,
    },
    /// What is lost of a snapshot is not what it was when its repair was planned.
    #[error("what is lost of snapshot {} has changed since it was listed", .snapshot.short())]
    LostChanged {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A pack has come under a mark between the check and the commit too often.
    #[error("other programs keep removing packs that this run needs")]
    CommitContended,
    /// Another machine has written lately what must not be there when packs are deleted at once.
    #[error(
        "host {host} wrote snapshot {} {} minutes ago, and its backups may go on",
        .snapshot.short(), .age_seconds / 60
    )]
    OthersActive {
        /// What it wrote.
        snapshot: SnapshotId,
        /// The host that the snapshot names.
        host: String,
        /// How long ago that was, in seconds.
        age_seconds: u64,
    },
    /// The store lacks snapshots that were there and that nobody has forgotten.
    #[error("{what}; a prune would delete what they need")]
    SnapshotsGone {
        /// Which ones.
        what: String,
    },
    /// No snapshot matches.
    #[error("no snapshot matches '{selector}'")]
    NoSnapshot {
        /// What was asked for.
        selector: String,
    },
    /// A snapshot that is to come back was never away.
    #[error("snapshot {} is not forgotten", .snapshot.short())]
    NotForgotten {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A snapshot that is to come back is gone for good.
    #[error("snapshot {} was forgotten, and prune has removed it", .snapshot.short())]
    Removed {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Several snapshots match.
    #[error("'{selector}' matches {} snapshots", .candidates.len())]
    Ambiguous {
        /// What was asked for.
        selector: String,
        /// What matches.
        candidates: Vec<SnapshotId>,
    },
    /// The selector is not understood.
    #[error("'{selector}' is not a snapshot: use latest, latest~N, or the beginning of an id")]
    BadSelector {
        /// What was asked for.
        selector: String,
    },
    /// The only slot cannot go: nobody could open the repository any more.
    #[error("the last password slot cannot be removed")]
    LastSlot,
    /// All slots are taken.
    #[error("all {limit} password slots are taken")]
    NoFreeSlot {
        /// How many there are.
        limit: usize,
    },
    /// No slot matches.
    #[error("no password slot matches '{selector}'")]
    NoSlot {
        /// What was asked for.
        selector: String,
    },
    /// Several slots match.
    #[error("'{selector}' matches {} password slots", .candidates.len())]
    AmbiguousSlot {
        /// What was asked for.
        selector: String,
        /// What matches.
        candidates: Vec<SlotId>,
    },
    /// A path is not in the snapshot.
    #[error("'{path}' is not in the snapshot")]
    NoPath {
        /// The path.
        path: String,
    },
    /// An option has a value that no repository can have.
    #[error("{what}")]
    BadOption {
        /// What is wrong with which.
        what: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// A file of the cache or state directory could not be used.
    #[error("cannot use {path}")]
    Local {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] putback_store::Error),
    /// Something could not be encoded or sealed.
    #[error("cannot make {object}")]
    Encode {
        /// What was to be made.
        object: &'static str,
        /// Why not.
        #[source]
        source: putback_format::Error,
    },
    /// A run was ended while blobs waited that had been put and not flushed.
    #[error("blobs were put that were not flushed")]
    Unflushed,
    /// Another worker failed first; its error is reported.
    #[error("another worker failed")]
    WorkerFailed,
}

/// The result of most calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An object that did not decode.
    pub(crate) fn object(object: impl std::fmt::Display, source: putback_format::Error) -> Self {
        let object = object.to_string();
        match source {
            putback_format::Error::UnknownVersion { .. } => Self::NewerFormat { object, source },
            putback_format::Error::UnknownEpoch { .. } => Self::KeysRotated { object, source },
            _ => Self::Damaged { object, source: Some(source) },
        }
    }

    /// Whether it says that bytes are gone or not what they were, so that trying again cannot help: not that
    /// a store or this machine failed, nor that another program or another key can read it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::BlobDamaged { .. }
            | Self::BlobLost { .. }
            | Self::BlobUnknown { .. } => true,
            Self::Store(error) => is_damage(error),
            _ => false,
        }
    }

    /// Itself if it is damage. Otherwise it says nothing of what is stored, and is what ends the work.
    pub(crate) fn into_damage(self) -> Result<Self> {
        if self.is_damage() { Ok(self) } else { Err(self) }
    }

    /// Whether it says that a blob which is needed cannot be had.
    #[must_use]
    pub fn is_about_blob(&self) -> bool {
        matches!(self, Self::BlobUnknown { .. } | Self::BlobDamaged { .. } | Self::BlobLost { .. })
    }

    /// Makes an error of the cache or state directory.
    pub(crate) fn local(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Local { path, source }
    }

    /// Makes an error of encoding.
    pub(crate) fn encode(object: &'static str) -> impl FnOnce(putback_format::Error) -> Self {
        move |source| Self::Encode { object, source }
    }
}

/// Whether a store says that an object is gone or cannot be read.
pub(crate) fn is_damage(error: &putback_store::Error) -> bool {
    use putback_store::{ErrorKind, Operation};
    error.is_about_object()
        && !error.is_temporary()
        && matches!(error.operation, Operation::Read | Operation::Stat)
        && !matches!(error.kind, ErrorKind::Denied | ErrorKind::Locked)
}
