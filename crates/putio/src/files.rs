//! Files and folders: looking at them, making, naming, moving, copying and deleting them.
//!
//! A request whose answer was lost may have been executed. Each call here says what becomes of
//! that: it looks before it asks again, or it asks again and understands the refusal.

use std::time::SystemTime;

use crate::client::Client;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::failure::{Failure, Side, judge};
use crate::model::{DeleteOptions, File, FileId, ItemError};
use crate::retry::Attempts;
use crate::transport::Call;
use crate::wire::{DeleteAnswer, Done, ErrorEnvelope, FileAnswer, MoveAnswer};

/// Most files that one request names, of whatever is done to several at once.
pub const BATCH_FILES_MAX: usize = 100;
/// Rounds of a delete that the service does piece by piece.
const DELETE_ROUNDS_MAX: u32 = 10_000;

impl Client {
    /// One row. One request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; those of every call.
    pub async fn file(&self, id: FileId) -> Result<File, Error> {
        let call = Call::get("file", format!("/files/{id}"));
        Ok(self.transport().send::<FileAnswer>(&call).await?.file.into())
    }

    /// The row of this very name in a folder, byte by byte. One request; if the service found a
    /// similar name in its place, a listing more. Of several rows of that name, any. A folder that
    /// does not exist has no rows.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn child(&self, parent: FileId, name: &str) -> Result<Option<File>, Error> {
        let call = Call::get("child", format!("/files/{parent}/child")).query("name", name);
        let found: File = match self.transport().send::<FileAnswer>(&call).await {
            Ok(answer) => answer.file.into(),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if found.name == name {
            return Ok(Some(found));
        }
        // The service compares names as its database does, perhaps without case and accents.
        let namesakes = self.namesakes(parent, name).await?;
        Ok(namesakes.into_iter().max_by_key(|file| file.id))
    }

    /// All rows of this very name in a folder.
    pub(crate) async fn namesakes(&self, parent: FileId, name: &str) -> Result<Vec<File>, Error> {
        let listing = match self.list(parent).await {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            listing => listing?,
        };
        Ok(listing.files.into_iter().filter(|file| file.name == name).collect())
    }

    /// The folder of this name, made if there is none. One request, two if it exists.
    ///
    /// # Errors
    /// As [`Client::make_folder`].
    pub async fn create_folder(&self, parent: FileId, name: &str) -> Result<File, Error> {
        self.make_folder(parent, name).await.map(|(folder, _)| folder)
    }

    /// The folder of this name, and whether this very call made it, so that it is known to be
    /// empty. One request, two if it exists. After a lost answer the folder is looked up, and
    /// the second value is false: somebody else may have made it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if a file has the name, or the service takes another name for the
    /// same; [`ErrorKind::InvalidName`]; [`ErrorKind::NotFound`] if there is no such parent; those
    /// of every call.
    pub async fn make_folder(&self, parent: FileId, name: &str) -> Result<(File, bool), Error> {
        let call = Call::post("create_folder", "/files/create-folder")
            .form("name", name)
            .form("parent_id", parent.to_string());
        let mut attempts = Attempts::new(self.transport(), "create_folder");
        loop {
            let failure = match self.transport().send_once::<FileAnswer>(&call).await {
                Ok(answer) => return Ok((answer.file.into(), true)),
                Err(failure) => failure,
            };
            let exists = failure.error.kind == ErrorKind::Conflict;
            if exists || failure.is_ambiguous() {
                if !exists {
                    attempts.again(failure).await?;
                }
                match self.folder_of_name(parent, name, exists).await? {
                    Some(folder) => return Ok((folder, false)),
                    None if exists => {
                        let message = "something that is no folder of this very name is there";
                        return Err(Error::new(ErrorKind::Conflict, "create_folder", message));
                    }
                    None => {}
                }
            } else {
                attempts.again(failure).await?;
            }
        }
    }

    /// The folder of this name. `exists`: the service has said that something has the name.
    async fn folder_of_name(
        &self,
        parent: FileId,
        name: &str,
        exists: bool,
    ) -> Result<Option<File>, Error> {
        match self.child(parent, name).await? {
            Some(file) if file.is_folder() => Ok(Some(file)),
            None if !exists => Ok(None),
            // A file may have the same name as a folder, and the service chose the file.
            _ => {
                let namesakes = self.namesakes(parent, name).await?;
                Ok(namesakes.into_iter().filter(File::is_folder).max_by_key(|file| file.id))
            }
        }
    }

    /// Renames a row within its folder. One request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::InvalidName`]; those of every
    /// call.
    pub async fn rename(&self, id: FileId, name: &str) -> Result<(), Error> {
        let call = Call::post("rename", "/files/rename")
            .form("file_id", id.to_string())
            .form("name", name);
        let mut attempts = Attempts::new(self.transport(), "rename");
        let mut may_be_done = false;
        loop {
            match self.transport().send_once::<Done>(&call).await {
                Ok(_) => return Ok(()),
                // Perhaps it is this row that has the name by now.
                Err(failure) if may_be_done && failure.error.kind == ErrorKind::Conflict => {
                    let is_done = self.file(id).await?.name == name;
                    return if is_done { Ok(()) } else { Err(failure.error) };
                }
                Err(failure) => {
                    may_be_done |= failure.is_ambiguous();
                    attempts.again(failure).await?;
                }
            }
        }
    }

    /// Moves rows into a folder and keeps their names. One request per 100 of them. Returns those
    /// that could not be moved. The service sets their modification time to now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such folder; those of every call.
    pub async fn move_files(
        &self,
        ids: &[FileId],
        parent: FileId,
    ) -> Result<Vec<ItemError>, Error> {
        let mut remaining = Vec::new();
        for batch in ids.chunks(BATCH_FILES_MAX) {
            let call = Call::post("move", "/files/move")
                .form("file_ids", join_ids(batch))
                .form("parent_id", parent.to_string());
            remaining.extend(self.move_batch(&call, batch, parent, None).await?);
        }
        Ok(remaining)
    }

    /// Moves a row into a folder under a new name. One request. The service sets its modification
    /// time to now. Whether a row of that name in the folder is an error is not known.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::InvalidName`]; those of every
    /// call.
    pub async fn move_as(&self, id: FileId, parent: FileId, name: &str) -> Result<(), Error> {
        let call = Call::post("move", "/files/move")
            .form("file_id", id.to_string())
            .form("parent_id", parent.to_string())
            .form("name", name);
        let errors = self.move_batch(&call, &[id], parent, Some(name)).await?;
        errors.into_iter().next().map_or(Ok(()), |error| Err(item_failure("move", error)))
    }

    async fn move_batch(
        &self,
        call: &Call,
        ids: &[FileId],
        parent: FileId,
        name: Option<&str>,
    ) -> Result<Vec<ItemError>, Error> {
        let mut attempts = Attempts::new(self.transport(), "move");
        let mut may_be_done = false;
        let mut errors: Vec<ItemError> = loop {
            match self.transport().send_once::<MoveAnswer>(call).await {
                Ok(answer) => {
                    break answer.errors.unwrap_or_default().into_iter().map(Into::into).collect();
                }
                Err(Failure { error, .. })
                    if may_be_done && matches!(error.status, Some(400..=404)) =>
                {
                    if self.are_moved(ids, parent, name).await? {
                        break Vec::new();
                    }
                    return Err(error);
                }
                Err(failure) => {
                    may_be_done |= failure.is_ambiguous();
                    attempts.again(failure).await?;
                }
            }
        };
        if may_be_done {
            let mut kept = Vec::new();
            for error in errors {
                if !self.are_moved(&[error.id], parent, name).await? {
                    kept.push(error);
                }
            }
            errors = kept;
        }
        Ok(errors)
    }

    /// Whether an earlier request, whose answer was lost, has moved these.
    async fn are_moved(
        &self,
        ids: &[FileId],
        parent: FileId,
        name: Option<&str>,
    ) -> Result<bool, Error> {
        for id in ids {
            let is_there = match self.file(*id).await {
                Ok(file) => {
                    file.parent_id == Some(parent) && name.is_none_or(|name| file.name == name)
                }
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies a file on the service's side. One request. The copy's modification time is now.
    /// What happens to folders is not known.
    ///
    /// After a lost answer a row of the same name, size and CRC-32 in the folder counts as the copy.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`], [`ErrorKind::InvalidName`],
    /// [`ErrorKind::Full`]; those of every call.
    pub async fn copy(
        &self,
        id: FileId,
        parent: FileId,
        name: Option<&str>,
    ) -> Result<File, Error> {
        let mut call = Call::post("copy", "/files/copy")
            .form("file_id", id.to_string())
            .form("parent_id", parent.to_string());
        if let Some(name) = name {
            call = call.form("name", name);
        }
        let mut attempts = Attempts::new(self.transport(), "copy");
        loop {
            let failure = match self.transport().send_once::<FileAnswer>(&call).await {
                Ok(answer) => return Ok(answer.file.into()),
                Err(failure) => failure,
            };
            let is_ambiguous = failure.is_ambiguous();
            attempts.again(failure).await?;
            if is_ambiguous {
                let source = self.file(id).await?;
                let name = name.unwrap_or(&source.name);
                let is_copy = |file: &File| {
                    file.id != id && file.size == source.size && file.crc32 == source.crc32
                };
                if let Some(copy) = self.child(parent, name).await?.filter(is_copy) {
                    return Ok(copy);
                }
            }
        }
    }

    /// Sets modification times, in whole seconds. One request per 100 rows.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Invalid`] for years beyond 9999; those of every call.
    pub async fn touch(&self, ids: &[FileId], updated_at: SystemTime) -> Result<(), Error> {
        let time = clock::format_time(updated_at)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "touch", "the time cannot be written"))?;
        for batch in ids.chunks(BATCH_FILES_MAX) {
            let call = Call::post("touch", "/files/touch")
                .form("file_ids", join_ids(batch))
                .form("updated_at", time.as_str());
            self.transport().send::<Done>(&call).await?;
        }
        Ok(())
    }

    /// Deletes rows, folders with all that is in them; one that does not exist is no error. One
    /// request per 100 of them. Calls that are made at the same time are done one after the other,
    /// since the service refuses parallel ones.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for the root, before anything is sent; [`ErrorKind::Denied`];
    /// [`ErrorKind::Server`] if other programs use the trash for longer than patience lasts; those
    /// of every call.
    pub async fn delete(&self, ids: &[FileId], options: DeleteOptions) -> Result<(), Error> {
        if ids.iter().any(|id| *id <= FileId::ROOT) {
            let message = "the topmost folder is never deleted";
            return Err(Error::new(ErrorKind::Invalid, "delete", message));
        }
        let _turn = self.transport().limits().trash_turn.lock().await;
        let mut batches: Vec<&[FileId]> = ids.chunks(BATCH_FILES_MAX).rev().collect();
        while let Some(batch) = batches.pop() {
            match self.delete_batch(batch, options).await {
                // A service that minds one missing row although asked not to.
                Err(error) if error.is_not_found() => match batch.len() {
                    0 | 1 => {}
                    count => {
                        let (first, second) = batch.split_at(count / 2);
                        batches.extend([second, first]);
                    }
                },
                result => result?,
            }
        }
        Ok(())
    }

    async fn delete_batch(&self, batch: &[FileId], options: DeleteOptions) -> Result<(), Error> {
        let call = |key: &'static str, value: String| {
            let call = Call::post("delete", "/files/delete")
                .form(key, value)
                .form("skip_nonexistents", "true");
            if options.skip_trash { call.form("skip_trash", "true") } else { call }
        };
        let mut next = call("file_ids", join_ids(batch));
        for _ in 0..DELETE_ROUNDS_MAX {
            let answer: DeleteAnswer = self.transport().send(&next).await?;
            match answer.cursor {
                Some(cursor) => next = call("cursor", cursor),
                None => return Ok(()),
            }
        }
        Err(Error::new(ErrorKind::Corrupt, "delete", "the service does not come to an end"))
    }
}

/// Ids as the service takes several of them.
pub(crate) fn join_ids(ids: &[FileId]) -> String {
    let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// What an item's error would have been as the answer to a request for it alone.
fn item_failure(call: &'static str, item: ItemError) -> Error {
    let envelope = ErrorEnvelope { error_type: item.error_type, ..ErrorEnvelope::default() };
    judge(call, Side::Api, item.status.unwrap_or(400), envelope).error
}
