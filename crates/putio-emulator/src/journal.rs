//! What outlives the process, when files are kept in a directory: each change as a line of JSON.
//!
//! The file is read and written anew at the start, and appended to from then on. The bytes of files
//! are not in it. A last line that was cut off by the end of the process is dropped.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;

/// Version of the lines. A journal of another one is refused.
const VERSION: u32 = 1;

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line.
    Version(u32),
    /// Ids below this have been given away.
    NextId(i64),
    /// An account's own state, whole.
    Account(AccountRecord),
    /// A row, new or changed.
    Row(RowRecord),
    /// A row is gone.
    RowGone { account: String, id: i64 },
    /// An upload began.
    Upload(UploadRecord),
    /// An upload became a file, or a transfer.
    UploadDone { id: String, file: Option<i64>, crc32: u32 },
    /// An upload is gone.
    UploadGone { id: String },
    /// A token was given out.
    Token(TokenRecord),
    /// A token was revoked.
    TokenGone { token: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AccountRecord {
    pub(crate) name: String,
    pub(crate) user_id: u64,
    pub(crate) settings: Map<String, Value>,
    pub(crate) config: Map<String, Value>,
    pub(crate) transfers: Vec<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowRecord {
    pub(crate) account: String,
    pub(crate) id: i64,
    pub(crate) parent: i64,
    pub(crate) name: String,
    pub(crate) content: Option<ContentRecord>,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) accessed: Option<i64>,
    pub(crate) sort_by: Option<String>,
    pub(crate) trashed: Option<i64>,
    pub(crate) is_lost: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub(crate) blob: u64,
    pub(crate) size: u64,
    pub(crate) crc32: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) parent: i64,
    pub(crate) name: String,
    pub(crate) length: u64,
    pub(crate) updated: Option<i64>,
    pub(crate) no_torrent: bool,
    pub(crate) overwrite: bool,
    pub(crate) blob: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) token: String,
    pub(crate) account: String,
    pub(crate) scope: String,
    pub(crate) id: u64,
    pub(crate) app: String,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: fs_err::File,
    lines: Vec<u8>,
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

/// The lines that an earlier process left; none if there was no such process.
pub(crate) fn load(folder: &Path) -> Result<Vec<Record>, Error> {
    let path = path_in(folder);
    let bytes = match fs_err::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Storage { path, source }),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut records = Vec::new();
    for (number, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let damaged =
            |reason: String| Error::Journal { path: path.clone(), line: number + 1, reason };
        let record: Record =
            serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        match (number, &record) {
            (0, Record::Version(VERSION)) => {}
            (0, _) => return Err(damaged(format!("it is not of version {VERSION}"))),
            _ => records.push(record),
        }
    }
    Ok(records)
}

impl Journal {
    /// Replaces the journal in `folder` by one that begins with `records`.
    pub(crate) fn start(folder: &Path, records: &[Record]) -> Result<Self, Error> {
        let path = path_in(folder);
        let fail = |source| Error::Storage { path: path.clone(), source };
        let fresh = folder.join("journal.new");
        let mut journal =
            Self { file: fs_err::File::create(&fresh).map_err(fail)?, lines: Vec::new() };
        journal.add(&Record::Version(VERSION));
        for record in records {
            journal.add(record);
        }
        journal.flush().map_err(fail)?;
        fs_err::rename(&fresh, &path).map_err(fail)?;
        Ok(journal)
    }

    /// Appends a line, which [`Self::flush`] writes.
    pub(crate) fn add(&mut self, record: &Record) {
        // Writing to memory cannot fail, and all keys are strings.
        if serde_json::to_writer(&mut self.lines, record).is_ok() {
            self.lines.push(b'\n');
        }
    }

    /// Writes what was added. It then outlives the process.
    pub(crate) fn flush(&mut self) -> std::io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.lines)?;
        self.lines.clear();
        Ok(())
    }
}
