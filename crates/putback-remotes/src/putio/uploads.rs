//! Objects on their way up.
//!
//! A small object goes from memory, any other through the spool, so that a later process can go on
//! where this one ended. What counts as written was confirmed by put.io with an id, a size and a
//! checksum. At most [`Inner::connections`] objects are sent at the same time.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use putback_store::{Error, ErrorKind, ObjectInfo, ObjectPath, Operation, Status, Upload};
use putio::{Content, FileId, Session, UploadRequest, Uploaded};

use super::known::{Origin, Row};
use super::objects::{hash_in, info};
use super::spool::{SpoolFile, Spooled};
use super::{AMPLE_SPACE_AGE_MAX, Inner, SPACE_AGE_MAX, failure};

/// Bytes of one request of an upload: most packs are one. put.io keeps the bytes of an interrupted
/// request, so large ones lose nothing.
const SLICE_BYTES: u64 = 64 << 20;

/// For smaller objects nobody asks for the space first: put.io itself refuses what does not fit.
const SPACE_MATTERS_BYTES: u64 = 1 << 20;

/// Objects of earlier runs that may fail for want of answers, each after the client's whole patience,
/// before the rest of them waits for the next time.
const RESUME_FAILURES_MAX: u32 = 3;

/// Space is ample if so many objects of this size would fit.
const AMPLE_TIMES: u64 = 64;

/// What is to be written, whoever holds its bytes.
struct Object<'a> {
    path: &'a ObjectPath,
    size: u64,
    crc32: u32,
    /// Its bytes have the hash that its name says: a row of the name with other bytes is wrong.
    is_named_by_hash: bool,
}

/// Starts an object whose bytes come in pieces.
pub(super) fn begin(inner: &Arc<Inner>, folder: &str) -> Result<Box<dyn Upload>, Error> {
    inner.check_folder(folder, Operation::Write)?;
    inner.block_on(inner.ensure_folder(folder, Operation::Write))?;
    let file =
        inner.spool.create().map_err(|error| failure::from_disk(inner.spool.root(), error))?;
    Ok(Box::new(PutioUpload {
        inner: Arc::clone(inner),
        folder: folder.to_owned(),
        file,
        has_failed: false,
    }))
}

/// An object whose bytes wait on the disk until it has a name.
struct PutioUpload {
    inner: Arc<Inner>,
    folder: String,
    file: SpoolFile,
    /// Bytes are missing in the middle; this can never become an object.
    has_failed: bool,
}

/// Whether this object cannot be sent, and others may.
fn is_about_one(error: &Error) -> bool {
    error.status == Status::Permanent
        && !matches!(error.kind, ErrorKind::Unauthorized | ErrorKind::RateLimited)
}

impl Upload for PutioUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.append(bytes).map_err(|error| {
            self.has_failed = true;
            failure::from_disk(self.inner.spool.root(), error)
        })
    }

    fn finish(self: Box<Self>, path: &ObjectPath) -> Result<ObjectInfo, Error> {
        let inner = self.inner;
        let fail = |reason: String| {
            Err(inner.error(ErrorKind::Other, Operation::Write, path.as_str()).with_source(reason))
        };
        if self.has_failed {
            return fail("an earlier part of it was not written".to_owned());
        }
        if path.folder() != self.folder {
            return fail(format!("its upload began in '{}'", self.folder));
        }
        let result = inner.block_on(inner.send_file(path, self.file));
        inner.save(false);
        result
    }
}

impl Inner {
    /// Writes an object from memory.
    pub(super) async fn send_bytes(
        &self,
        path: &ObjectPath,
        bytes: &[u8],
    ) -> Result<ObjectInfo, Error> {
        self.ensure_folder(path.folder(), Operation::Write).await?;
        let object = Object {
            path,
            size: bytes.len() as u64,
            crc32: crc32fast::hash(bytes),
            is_named_by_hash: hash_in(path.name()).is_some_and(|hash| hash == blake3::hash(bytes)),
        };
        let turn = self.turn(path);
        let _turn = turn.lock().await;
        if let Some(existing) = self.existing(&object).await? {
            return Ok(existing);
        }
        self.send(&object, &bytes, None, &mut |_| {}).await
    }

    /// Writes an object that was gathered on the disk.
    async fn send_file(&self, path: &ObjectPath, file: SpoolFile) -> Result<ObjectInfo, Error> {
        let parent = self.ensure_folder(path.folder(), Operation::Write).await?;
        let (size, crc32, hash) = file.sums();
        let is_named_by_hash = hash_in(path.name()).is_some_and(|said| said == hash);
        let object = Object { path, size, crc32, is_named_by_hash };
        let turn = self.turn(path);
        let _turn = turn.lock().await;
        if let Some(existing) = self.existing(&object).await? {
            return Ok(existing);
        }
        let spooled = file
            .finish(path, parent)
            .map_err(|error| failure::from_disk(self.spool.root(), error))?;
        self.send_spooled(&object, spooled).await
    }

    /// Sends an object from the spool. It stays there if that fails for a reason that may pass.
    async fn send_spooled(
        &self,
        object: &Object<'_>,
        mut spooled: Spooled,
    ) -> Result<ObjectInfo, Error> {
        let content =
            spooled.content().map_err(|error| failure::from_disk(self.spool.root(), error))?;
        let session = spooled.description.session.clone();
        let result = self
            .send(object, &content, session, &mut |session| spooled.note_session(session))
            .await;
        // Not yet: Windows cannot remove a file that is open.
        drop(content);
        match &result {
            Ok(_) => spooled.remove(),
            Err(error) if error.kind == ErrorKind::AlreadyExists => spooled.remove(),
            Err(_) => {}
        }
        result
    }

    /// Sends what interrupted runs and failed attempts have left. What cannot be sent stays for its
    /// time, and keeps nothing else from being stored.
    ///
    /// # Errors
    /// Nothing was sent, and neither can anything else be: of the disk, of the account, or because
    /// put.io does not answer.
    pub(super) async fn resume_uploads(&self) -> Result<Vec<ObjectInfo>, Error> {
        let disk = |error| failure::from_disk(self.spool.root(), error);
        let (mut sent, mut failures) = (Vec::new(), 0);
        for spooled in self.spool.leftovers().map_err(disk)? {
            let error = match self.resume(spooled).await {
                Ok(info) => {
                    sent.extend(info);
                    continue;
                }
                Err(error) if is_about_one(&error) => continue,
                Err(error) => error,
            };
            // It may be the session of this one alone that gets no answer.
            let may_be_about_one = error.status != Status::Permanent;
            if may_be_about_one && self.ask_space().await.is_ok() {
                failures += 1;
                if failures == RESUME_FAILURES_MAX {
                    break;
                }
                continue;
            }
            // What was sent must be known; what was not is still in the spool.
            if sent.is_empty() {
                return Err(error);
            }
            break;
        }
        Ok(sent)
    }

    /// Sends one object of the spool; `None` if it had to be given up, or is not for this store.
    async fn resume(&self, spooled: Spooled) -> Result<Option<ObjectInfo>, Error> {
        let operation = Operation::Write;
        let path = spooled.path().clone();
        let is_meant_for_this = match self.folder_ids(path.folder(), operation).await {
            Ok(ids) => ids.is_some_and(|ids| ids.contains(&spooled.parent())),
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error),
        };
        // Of another account with a folder of this name, or of a folder that is gone: its time ends it.
        if !is_meant_for_this {
            return Ok(None);
        }
        if !spooled.is_intact() {
            spooled.remove();
            return Ok(None);
        }
        let hash = hash_in(path.name());
        if hash.is_some() && hash != spooled.blake3() {
            spooled.remove();
            return Ok(None);
        }
        let object = Object {
            path: &path,
            size: spooled.description.size,
            crc32: spooled.description.crc32,
            is_named_by_hash: hash.is_some(),
        };
        let turn = self.turn(&path);
        let _turn = turn.lock().await;
        // It may have arrived although nobody heard of it.
        match self.rows(&path, operation).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        if let Some(existing) = self.existing(&object).await? {
            spooled.remove();
            return Ok(Some(existing));
        }
        self.send_spooled(&object, spooled).await.map(Some)
    }

    /// The object if it is there already; what an earlier process wrote down is confirmed first.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if another one has its name, unless the name says that this one
    /// is right.
    async fn existing(&self, object: &Object<'_>) -> Result<Option<ObjectInfo>, Error> {
        let path = object.path;
        let mut other = None;
        let rows = self.known().rows(path.folder(), path.name());
        for row in rows.into_iter().rev() {
            let row = if row.origin == Origin::Cached || row.crc32.is_none() {
                match self.confirm(path, row, Operation::Write).await {
                    Ok(row) => row,
                    Err(error) if error.is_not_found() => {
                        self.known().remove(path.folder(), path.name(), row.id);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            } else {
                row
            };
            if row.size == object.size && row.crc32.is_none_or(|crc32| crc32 == object.crc32) {
                return Ok(Some(info(path.clone(), row)));
            }
            other = Some(row);
        }
        match other {
            Some(row) if !object.is_named_by_hash => Err(self
                .error(ErrorKind::AlreadyExists, Operation::Write, path.as_str())
                .with_source(format!(
                    "the existing one has {} bytes and checksum {:08x}, this one {} bytes and {:08x}",
                    row.size,
                    row.crc32.unwrap_or_default(),
                    object.size,
                    object.crc32,
                ))),
            _ => Ok(None),
        }
    }

    /// Sends an object and notes its row.
    async fn send(
        &self,
        object: &Object<'_>,
        content: &dyn Content,
        session: Option<Session>,
        on_session: &mut (dyn FnMut(&Session) + Send),
    ) -> Result<ObjectInfo, Error> {
        let operation = Operation::Write;
        let path = object.path;
        self.check_space(object).await?;
        let permit = self.uploads.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let parent = self.ensure_folder(path.folder(), operation).await?;
        let result = self.upload(parent, path, content, session, on_session).await;
        let uploaded = match result {
            // The folder is not where it was known to be: it is looked for, once.
            Err(error) if error.kind == putio::ErrorKind::NotFound => {
                self.known().forget();
                let parent = self.ensure_folder(path.folder(), operation).await?;
                self.upload(parent, path, content, None, on_session).await
            }
            result => result,
        };
        let Uploaded { id, crc32, size } =
            uploaded.map_err(|error| self.client_error(operation, path.as_str(), error))?;
        if (size, crc32) != (object.size, object.crc32) {
            return Err(self.error(ErrorKind::Corrupt, operation, path.as_str()).with_source(
                format!(
                    "put.io took {size} bytes with checksum {crc32:08x} instead of {} with {:08x}",
                    object.size, object.crc32
                ),
            ));
        }
        if let Some(seen) = &mut *self.space_seen() {
            seen.space.available = seen.space.available.saturating_sub(size);
        }
        let row = Row {
            id,
            size,
            crc32: Some(crc32),
            created_at: None,
            origin: Origin::Written(Instant::now()),
        };
        self.known().insert(path.folder(), path.name(), row);
        Ok(info(path.clone(), row))
    }

    async fn upload(
        &self,
        parent: FileId,
        path: &ObjectPath,
        content: &dyn Content,
        session: Option<Session>,
        on_session: &mut (dyn FnMut(&Session) + Send),
    ) -> Result<Uploaded, putio::Error> {
        let request = UploadRequest {
            parent,
            name: path.name(),
            updated_at: None,
            content,
            slice_bytes: SLICE_BYTES,
        };
        self.client.upload(&request, session, on_session).await
    }

    /// Refuses an object that cannot fit, before its bytes are sent.
    async fn check_space(&self, object: &Object<'_>) -> Result<(), Error> {
        if object.size < SPACE_MATTERS_BYTES {
            return Ok(());
        }
        let is_ample =
            self.space_seen().is_some_and(|seen| seen.space.available / AMPLE_TIMES >= object.size);
        let mut age_max = if is_ample { AMPLE_SPACE_AGE_MAX } else { SPACE_AGE_MAX };
        loop {
            let space = match self.space_within(age_max).await {
                Ok(space) => space,
                Err(error) if error.kind == putio::ErrorKind::Unauthorized => {
                    return Err(self.client_error(Operation::Write, object.path.as_str(), error));
                }
                // The upload itself will tell.
                Err(_) => return Ok(()),
            };
            if space.available >= object.size {
                return Ok(());
            }
            if age_max.is_zero() {
                return Err(self
                    .error(ErrorKind::Full, Operation::Write, object.path.as_str())
                    .with_source(format!(
                        "it has {} bytes, and put.io says that {} are free",
                        object.size, space.available
                    )));
            }
            // Somebody may have made room since.
            age_max = Duration::ZERO;
        }
    }

    /// Whoever holds this is the only one of this process that writes the path.
    fn turn(&self, path: &ObjectPath) -> Arc<tokio::sync::Mutex<()>> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(writing.entry(path.clone()).or_default())
    }
}
