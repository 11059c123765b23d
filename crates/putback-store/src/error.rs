//! Errors of stores: what failed, on which object, and whether trying again can help.

use std::fmt;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such object, or no such store.
    NotFound,
    /// An object of this name exists with other bytes.
    AlreadyExists,
    /// The store refuses: permissions, read-only.
    Denied,
    /// The store is full.
    Full,
    /// Too many requests.
    RateLimited,
    /// The store's answer contradicts itself or a checksum.
    Corrupt,
    /// The store has lost this object's bytes; asking again cannot help.
    Lost,
    /// Another operation holds the lock.
    Locked,
    /// Sign-in is needed.
    Unauthorized,
    /// Anything else.
    Other,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can.
    Temporary,
    /// It cannot.
    Permanent,
    /// It was tried until patience ended.
    Exhausted,
}

/// What was asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Listing a folder.
    List,
    /// Looking at one object.
    Stat,
    /// Reading an object or a range of it.
    Read,
    /// Writing an object.
    Write,
    /// Deleting objects.
    Delete,
    /// Asking for space, locking, creating the store.
    Manage,
}

/// An error of a store.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// Whether trying again can help.
    pub status: Status,
    /// What was asked.
    pub operation: Operation,
    /// The object or folder, as a person would look for it.
    pub path: String,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A permanent error without a cause.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: Operation, path: impl Into<String>) -> Self {
        Self { kind, status: Status::Permanent, operation, path: path.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says whether trying again can help.
    #[must_use]
    pub const fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.status == Status::Temporary
    }

    /// Whether it says something of this one object, so that the next one may be better off: not that the
    /// store cannot be reached, is full or wants a sign-in.
    #[must_use]
    pub fn is_about_object(&self) -> bool {
        self.status != Status::Exhausted
            && !matches!(
                self.kind,
                ErrorKind::Unauthorized | ErrorKind::RateLimited | ErrorKind::Full
            )
    }

    /// Whether the object, or the store itself, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.operation {
            Operation::List => "list",
            Operation::Stat => "look at",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Delete => "delete",
            Operation::Manage => "use",
        };
        write!(f, "cannot {verb} {}", self.path)?;
        f.write_str(match self.kind {
            ErrorKind::NotFound => ": it does not exist",
            ErrorKind::AlreadyExists => ": it exists with other content",
            ErrorKind::Denied => ": permission denied or read-only",
            ErrorKind::Full => ": the storage is full",
            ErrorKind::RateLimited => ": too many requests",
            ErrorKind::Corrupt => ": the storage's answer is corrupt",
            ErrorKind::Lost => ": the storage has lost its bytes",
            ErrorKind::Locked => ": another operation holds the lock",
            ErrorKind::Unauthorized => ": sign-in is needed",
            ErrorKind::Other => "",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
