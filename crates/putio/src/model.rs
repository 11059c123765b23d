//! What the service talks about: accounts, files, trash.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The number of a file or folder. Never used again for another one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct FileId(pub i64);

impl FileId {
    /// The account's topmost folder.
    pub const ROOT: Self = Self(0);
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for FileId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Folder or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Holds other rows.
    Folder,
    /// Holds bytes.
    File,
}

/// A row: a file or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its number.
    pub id: FileId,
    /// The folder it is in; none for the root.
    pub parent_id: Option<FileId>,
    /// Its name in that folder. Several files of one folder may have one name.
    pub name: String,
    /// Bytes. For folders whatever the service says, often 0.
    pub size: u64,
    /// Folder or file.
    pub kind: FileKind,
    /// CRC-32 (IEEE) of the bytes, if the service tells.
    pub crc32: Option<u32>,
    /// When the row was made, by the service's clock, in whole seconds.
    pub created_at: Option<SystemTime>,
    /// When it was modified, in whole seconds.
    pub updated_at: Option<SystemTime>,
}

impl File {
    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.kind == FileKind::Folder
    }
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The folder itself, if the service told.
    pub parent: Option<File>,
    /// Its rows in no order, each id once; names may repeat.
    pub files: Vec<File>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub user_id: i64,
    /// The name to sign in with.
    pub username: String,
    /// The mail address, if told.
    pub mail: Option<String>,
    /// Its space.
    pub disk: Disk,
    /// Bytes in the trash.
    pub trash_size: Option<u64>,
    /// `active`, `inactive` or another word of the service.
    pub status: Option<String>,
    /// When the files of an expired plan are due for deletion, as the service writes it.
    pub files_will_be_deleted_at: Option<String>,
}

/// Space of an account, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What can still be written.
    pub available: u64,
    /// All of it.
    pub size: u64,
    /// What is in use. The trash is assumed to be part of it.
    pub used: u64,
}

/// Settings of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether deleted files go to the trash.
    pub trash_enabled: Option<bool>,
    /// Where files without a folder go.
    pub default_download_folder: Option<FileId>,
}

/// What the service says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Whether it can be used.
    pub is_valid: bool,
    /// Its number.
    pub token_id: Option<i64>,
    /// What it may be used for.
    pub scope: Option<String>,
    /// Whose it is.
    pub user_id: Option<i64>,
}

/// What became of one of several files when a call as a whole succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError {
    /// The file.
    pub id: FileId,
    /// Its name, if told.
    pub name: Option<String>,
    /// The service's code for the error.
    pub error_type: Option<String>,
    /// The HTTP status this would have been alone.
    pub status: Option<u16>,
}

/// How to delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Delete at once in place of moving to the trash.
    pub skip_trash: bool,
}

/// What is in the trash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trash {
    /// Rows deleted as such; what was inside of a deleted folder is not listed.
    pub files: Vec<TrashedFile>,
    /// Bytes of all, if told.
    pub trash_size: Option<u64>,
}

/// A row in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashedFile {
    /// Its number, which restoring keeps.
    pub id: FileId,
    /// The folder it was in.
    pub parent_id: Option<FileId>,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Folder or file.
    pub kind: FileKind,
    /// When it was deleted.
    pub deleted_at: Option<SystemTime>,
    /// When it will be gone for good.
    pub expires_at: Option<SystemTime>,
}

/// Counters of a client and all its clones since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests sent.
    pub requests: u64,
    /// Those of them that repeated one that had failed.
    pub retries: u64,
    /// Time in which at least one request was held back by a limit on requests.
    pub waited: std::time::Duration,
    /// Bytes of uploads sent.
    pub bytes_sent: u64,
    /// Bytes of downloads received.
    pub bytes_received: u64,
}
