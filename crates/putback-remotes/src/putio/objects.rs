//! Objects that are there: finding their rows, choosing among several, reading, deleting.

use std::collections::{BTreeMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use putback_store::{Error, ErrorKind, ObjectInfo, ObjectPath, Operation};
use putio::{DeleteOptions, FileId, FileKind};

use super::Inner;
use super::known::{Origin, Row};

/// More objects than this that are not known cost a listing of their folder in place of a look-up
/// each.
const MISSES_MAX: u32 = 3;

/// Rows of one name that are tried at most.
const ROWS_TRIED_MAX: usize = 16;

/// What a duplicate is chosen with: hexadecimal digits of BLAKE3.
const HASH_DIGITS: usize = 64;

/// Why no row of an object serves.
#[derive(Debug, thiserror::Error)]
#[error("put.io has {count} files of this name, and none has the bytes that the name says")]
struct NoneFits {
    count: usize,
}

/// The row of a file that put.io shows, with its name; `None` if it is no object of ours.
pub(super) fn row_of<'a>(folder: &str, file: &'a putio::File) -> Option<(&'a str, Row)> {
    let is_object =
        file.kind == FileKind::File && ObjectPath::in_folder(folder, &file.name).is_ok();
    is_object.then(|| {
        let row = Row {
            id: file.id,
            size: file.size,
            crc32: file.crc32,
            created_at: file.created_at,
            origin: Origin::Shown,
        };
        (&*file.name, row)
    })
}

/// A row as callers of the store see it.
pub(super) fn info(path: ObjectPath, row: Row) -> ObjectInfo {
    ObjectInfo {
        path,
        size: row.size,
        modified: row.created_at,
        service_id: Some(row.id.to_string()),
        crc32: row.crc32,
    }
}

/// The hash of the stored bytes that the name of an object ends with.
pub(super) fn hash_in(name: &str) -> Option<blake3::Hash> {
    let digits = name.len().checked_sub(HASH_DIGITS)?;
    let (prefix, digits) = (name.get(..digits)?, name.get(digits..)?);
    let hash = blake3::Hash::from_hex(digits).ok()?;
    let is_canonical = hash.to_hex().as_str() == digits;
    (is_canonical && (prefix.is_empty() || prefix.ends_with('-'))).then_some(hash)
}

/// Which of two failures of rows of one name stands for the object: a temporary one, since nobody may
/// take the object for lost then; else the first.
fn more_hopeful(before: Option<Error>, now: Error) -> Error {
    match before {
        Some(before) if before.is_temporary() || !now.is_temporary() => before,
        _ => now,
    }
}

/// Whether an error is about the bytes of a row, not about the account or the way to it.
fn says_what_is_there(error: &Error) -> bool {
    error.is_temporary()
        || matches!(error.kind, ErrorKind::Lost | ErrorKind::Corrupt | ErrorKind::NotFound)
}

impl Inner {
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, Error> {
        self.list_folder(folder, Operation::List).await?;
        let known = self.known();
        let infos = known.all_rows(folder).filter_map(|(name, row)| {
            ObjectPath::in_folder(folder, name).ok().map(|path| info(path, row))
        });
        Ok(infos.collect())
    }

    /// Asks the server what is in a folder and notes it.
    async fn list_folder(&self, folder: &str, operation: Operation) -> Result<(), Error> {
        // Once more from the root if what was known of the folders is stale.
        'attempts: for _ in 0..2 {
            let Some(ids) = self.folder_ids(folder, operation).await? else {
                return Ok(());
            };
            let mut files = Vec::new();
            for id in ids {
                match self.fetch(id, folder, operation).await? {
                    Some(rows) => files.extend(rows),
                    None => {
                        self.known().forget();
                        continue 'attempts;
                    }
                }
            }
            if folder.is_empty() {
                self.note_root(&files);
            } else {
                let mut known = self.known();
                let rows = files.iter().filter_map(|file| row_of(folder, file));
                known.set_rows(folder, rows, Instant::now());
                known.confirm(folder);
            }
            return Ok(());
        }
        Err(self.error(ErrorKind::NotFound, operation, folder))
    }

    /// All rows of an object, ids ascending, never none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub(super) async fn rows(
        &self,
        path: &ObjectPath,
        operation: Operation,
    ) -> Result<Vec<Row>, Error> {
        let (folder, name) = (path.folder(), path.name());
        let not_found = || self.error(ErrorKind::NotFound, operation, path.as_str());
        let rows = self.known().rows(folder, name);
        if !rows.is_empty() {
            return Ok(rows);
        }
        let Some(ids) = self.folder_ids(folder, operation).await? else {
            return Err(not_found());
        };
        let (misses, is_confirmed) = {
            let mut known = self.known();
            let misses = known.count_miss(folder);
            (misses, known.folder(folder).is_some_and(|folder| folder.is_confirmed))
        };
        // A look-up below an id that is stale finds nothing, as if the object did not exist; a
        // listing tells.
        let ids = if misses > MISSES_MAX || !is_confirmed {
            self.list_folder(folder, operation).await?;
            let rows = self.known().rows(folder, name);
            if !rows.is_empty() {
                return Ok(rows);
            }
            match self.folder_ids(folder, operation).await? {
                Some(ids) => ids,
                None => return Err(not_found()),
            }
        } else {
            // Known by now, if it was the root's listing that brought it.
            let rows = self.known().rows(folder, name);
            if !rows.is_empty() {
                return Ok(rows);
            }
            ids
        };
        for id in ids {
            let child = self.client.child(id, name).await;
            let child =
                child.map_err(|error| self.client_error(operation, path.as_str(), error))?;
            if let Some((name, row)) = child.as_ref().and_then(|file| row_of(folder, file)) {
                self.known().insert(folder, name, row);
            }
        }
        let rows = self.known().rows(folder, name);
        if rows.is_empty() { Err(not_found()) } else { Ok(rows) }
    }

    /// The row to use of `rows`: any if all of the name are equal, else the one that has the bytes
    /// which the name says, else the latest. One that put.io does not hand out gives way to the next.
    async fn choose(
        &self,
        path: &ObjectPath,
        all: &[Row],
        rows: &[Row],
        operation: Operation,
    ) -> Result<Row, Error> {
        let (folder, name) = (path.folder(), path.name());
        let Some(latest) = rows.last() else {
            return Err(self.error(ErrorKind::NotFound, operation, path.as_str()));
        };
        let are_equal = all.iter().all(|row| {
            row.id == latest.id
                || row.size == latest.size && row.crc32.is_some() && row.crc32 == latest.crc32
        });
        let Some(hash) = hash_in(name).filter(|_| !are_equal) else {
            return Ok(*latest);
        };
        let chosen = self.known().chosen(folder, name);
        if let Some(row) = rows.iter().find(|row| Some(row.id) == chosen) {
            return Ok(*row);
        }
        let mut failure = None;
        for row in rows.iter().rev().take(ROWS_TRIED_MAX) {
            match self.hash(*row).await {
                Ok(found) if found == hash => {
                    self.known().choose(folder, name, row.id);
                    return Ok(*row);
                }
                Ok(_) => {}
                Err(error) if error.kind == putio::ErrorKind::NotFound => {
                    self.known().remove(folder, name, row.id);
                }
                Err(error) => {
                    let error = self.client_error(operation, path.as_str(), error);
                    if error.kind != ErrorKind::Lost && !error.is_temporary() {
                        return Err(error);
                    }
                    failure = Some(more_hopeful(failure, error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            self.error(ErrorKind::Corrupt, operation, path.as_str())
                .with_source(NoneFits { count: rows.len() })
        }))
    }

    /// Reads a whole row and hashes it.
    async fn hash(&self, row: Row) -> Result<blake3::Hash, putio::Error> {
        let mut hasher = blake3::Hasher::new();
        if row.size > 0 {
            let mut sink = |bytes: &[u8]| {
                hasher.update(bytes);
                Ok(())
            };
            self.client.download(row.id, 0..row.size, &mut sink).await?;
        }
        Ok(hasher.finalize())
    }

    /// Does something with the object's row. A row that is gone makes it look again, one whose
    /// bytes put.io has lost or does not hand out makes it try the next of the name.
    async fn with_row<T>(
        &self,
        path: &ObjectPath,
        operation: Operation,
        mut action: impl AsyncFnMut(Row) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (folder, name) = (path.folder(), path.name());
        let (mut excluded, mut gone) = (HashSet::new(), Vec::new());
        let mut failure = None;
        while excluded.len() < ROWS_TRIED_MAX {
            let rows = match self.rows(path, operation).await {
                Ok(rows) => rows,
                Err(error) if error.is_not_found() => return Err(failure.unwrap_or(error)),
                Err(error) => return Err(error),
            };
            let is_left = |row: &&Row| !excluded.contains(&row.id);
            let left: Vec<_> = rows.iter().filter(is_left).copied().collect();
            if left.is_empty() {
                break;
            }
            let row = match self.choose(path, &rows, &left, operation).await {
                Ok(row) => row,
                Err(error) if says_what_is_there(&error) => {
                    failure = Some(more_hopeful(failure, error));
                    break;
                }
                Err(error) => return Err(error),
            };
            match action(row).await {
                Err(error) if error.is_not_found() => {
                    // Also if a listing brings it back: put.io shows rows that are none.
                    self.known().remove(folder, name, row.id);
                    excluded.insert(row.id);
                    gone.push(row.id);
                }
                Err(error) if error.kind == ErrorKind::Lost => {
                    excluded.insert(row.id);
                    gone.push(row.id);
                    failure = Some(more_hopeful(failure, error));
                }
                Err(error) if error.is_temporary() => {
                    excluded.insert(row.id);
                    failure = Some(more_hopeful(failure, error));
                }
                Err(error) if says_what_is_there(&error) => {
                    return Err(more_hopeful(failure, error));
                }
                result => return result,
            }
        }
        let mut known = self.known();
        for id in gone {
            known.remove(folder, name, id);
        }
        Err(failure.unwrap_or_else(|| self.error(ErrorKind::NotFound, operation, path.as_str())))
    }

    pub(super) async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let operation = Operation::Stat;
        let row =
            self.with_row(path, operation, async |row| self.confirm(path, row, operation).await);
        Ok(info(path.clone(), row.await?))
    }

    /// Asks the server for a row that is known.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is gone, or if it is no longer this object.
    pub(super) async fn confirm(
        &self,
        path: &ObjectPath,
        row: Row,
        operation: Operation,
    ) -> Result<Row, Error> {
        let file = self.client.file(row.id).await;
        let file = file.map_err(|error| self.client_error(operation, path.as_str(), error))?;
        let is_here = file.parent_id.is_none_or(|parent| {
            self.known().ids(path.folder()).is_none_or(|ids| ids.contains(&parent))
        });
        match row_of(path.folder(), &file) {
            Some((name, shown)) if name == path.name() && is_here => {
                let mut known = self.known();
                known.insert(path.folder(), name, shown);
                let rows = known.rows(path.folder(), name);
                Ok(rows.into_iter().find(|known| known.id == shown.id).unwrap_or(shown))
            }
            _ => Err(self.error(ErrorKind::NotFound, operation, path.as_str())),
        }
    }

    pub(super) async fn read(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.with_row(path, Operation::Read, async |row| {
            self.read_row(path, row, range.clone(), buffer).await
        })
        .await
    }

    pub(super) async fn read_all(
        &self,
        path: &ObjectPath,
        bytes_max: u64,
    ) -> Result<Vec<u8>, Error> {
        let operation = Operation::Read;
        let mut bytes = Vec::new();
        let read = self.with_row(path, operation, async |row| {
            if row.size > bytes_max || usize::try_from(row.size).is_err() {
                return Err(self
                    .error(ErrorKind::Corrupt, operation, path.as_str())
                    .with_source(format!("it has {} bytes, {bytes_max} are allowed", row.size)));
            }
            self.read_row(path, row, 0..row.size, &mut bytes).await
        });
        read.await?;
        Ok(bytes)
    }

    /// Reads a range and hands its bytes to `take` as they come, until that wants no more.
    pub(super) async fn read_pieces(
        &self,
        path: &ObjectPath,
        range: Range<u64>,
        take: &mut (dyn FnMut(&[u8]) -> ControlFlow<()> + Send),
    ) -> Result<(), Error> {
        let mut next = range.start;
        let mut is_stopped = false;
        let read = self.with_row(path, Operation::Read, async |row| {
            if range.end > row.size {
                return Err(self.beyond_the_end(path, &range, row));
            }
            // A row that was lost half way gives way to another one, which goes on there.
            let rest = next..range.end;
            let mut sink = |piece: &[u8]| {
                next += piece.len() as u64;
                is_stopped = take(piece).is_break();
                match is_stopped {
                    true => Err(putio::Error::new(putio::ErrorKind::Cancelled, "download", "")),
                    false => Ok(()),
                }
            };
            let read = self.client.download(row.id, rest, &mut sink).await;
            read.map_err(|error| self.client_error(Operation::Read, path.as_str(), error))
        });
        match read.await {
            Err(_) if is_stopped => Ok(()),
            read => read,
        }
    }

    fn beyond_the_end(&self, path: &ObjectPath, range: &Range<u64>, row: Row) -> Error {
        self.error(ErrorKind::Corrupt, Operation::Read, path.as_str()).with_source(format!(
            "bytes {} to {} were asked for, it has {}",
            range.start, range.end, row.size
        ))
    }

    async fn read_row(
        &self,
        path: &ObjectPath,
        row: Row,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.clear();
        if range.is_empty() {
            return Ok(());
        }
        // Before anything is allocated: the range may come from a damaged index.
        if range.end > row.size {
            return Err(self.beyond_the_end(path, &range, row));
        }
        let length = range.end - range.start;
        let read = self.client.read_range(row.id, range, buffer).await;
        read.map_err(|error| self.client_error(Operation::Read, path.as_str(), error))?;
        if buffer.len() as u64 != length {
            let reason = format!("{length} bytes were asked for, {} came", buffer.len());
            return Err(self
                .error(ErrorKind::Corrupt, Operation::Read, path.as_str())
                .with_source(reason));
        }
        Ok(())
    }

    pub(super) async fn delete(&self, objects: &[ObjectInfo]) -> Result<(), Error> {
        let operation = Operation::Delete;
        // By id, so that a row that is named twice is deleted once.
        let mut rows: BTreeMap<FileId, &ObjectPath> = BTreeMap::new();
        for object in objects {
            match &object.service_id {
                Some(id) => {
                    let id = id.parse().map_err(|_| {
                        self.error(ErrorKind::Other, operation, object.path.as_str())
                            .with_source(format!("'{id}' is no id of put.io"))
                    })?;
                    // 0 is the whole account.
                    if id <= FileId::ROOT {
                        return Err(self
                            .error(ErrorKind::Other, operation, object.path.as_str())
                            .with_source("its id is that of a folder"));
                    }
                    rows.insert(id, &object.path);
                }
                None => match self.rows(&object.path, operation).await {
                    Ok(found) => rows.extend(found.iter().map(|row| (row.id, &object.path))),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                },
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.keys().copied().collect();
        let deleted = self.client.delete(&ids, DeleteOptions { skip_trash: self.skip_trash }).await;
        deleted.map_err(|error| {
            let first = objects.first().map_or("", |object| object.path.as_str());
            self.client_error(operation, first, error)
        })?;
        let mut known = self.known();
        for (id, path) in rows {
            known.note_deleted(path.folder(), path.name(), id);
        }
        drop(known);
        // Deleting may have made room.
        if let Some(seen) = &mut *self.space_seen() {
            seen.at = seen.at.checked_sub(Duration::from_secs(3600)).unwrap_or(seen.at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_in_its_hash_or_in_nothing_special() {
        let hash = blake3::hash(b"bytes");
        let digits = hash.to_hex();
        for name in [digits.to_string(), format!("17-{digits}"), format!("keys-{digits}")] {
            assert_eq!(hash_in(&name), Some(hash), "{name}");
        }
        for name in [
            "PUTBACK.txt".to_owned(),
            digits.to_uppercase(),
            format!("x{digits}"),
            digits[1..].to_owned(),
            format!("{digits}.tmp"),
            format!("ä{}", &digits[2..]),
        ] {
            assert_eq!(hash_in(&name), None, "{name}");
        }
    }
}
