//! Where folders are: from names to ids, with as few requests as possible.
//!
//! A listing of a folder costs no more than a look-up of one name and shows duplicates, so the way
//! from the root of the account is listed. That a name is absent is believed only when a look-up
//! says so too: listings may lag.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use putback_store::path::check_folder;
use putback_store::{Error, ErrorKind, Operation};
use putio::{FileId, FileKind};

use super::Inner;
use super::objects::row_of;

/// What a repository's folder holds and hardly any other does.
const REPOSITORY_SIGN: &str = "config";

/// Folders of one name that are looked into at most.
const CANDIDATES_MAX: usize = 8;

/// What somebody may find in place of a folder.
#[derive(Debug, thiserror::Error)]
enum FolderProblem {
    #[error("'{path}' is a file on put.io (id {id}), not a folder")]
    IsFile { path: String, id: FileId },
    #[error(
        "put.io has several folders '{path}' (ids {ids}), and not exactly one of them holds a repository; rename all but one"
    )]
    Ambiguous { path: String, ids: String },
}

impl Inner {
    /// The ids of a folder of the store; `None` if only the folder is missing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the store's root does not exist.
    pub(super) async fn folder_ids(
        &self,
        folder: &str,
        operation: Operation,
    ) -> Result<Option<Vec<FileId>>, Error> {
        if let Some(ids) = self.known().ids(folder) {
            return Ok(Some(ids));
        }
        let _turn = self.resolving.lock().await;
        self.resolve(folder, operation).await
    }

    /// As [`Inner::folder_ids`], but a missing folder is made. Yields the one to write to.
    pub(super) async fn ensure_folder(
        &self,
        folder: &str,
        operation: Operation,
    ) -> Result<FileId, Error> {
        if let Some(id) = self.known().ids(folder).and_then(|ids| ids.first().copied()) {
            return Ok(id);
        }
        let _turn = self.resolving.lock().await;
        if let Some(id) =
            self.resolve(folder, operation).await?.and_then(|ids| ids.first().copied())
        {
            return Ok(id);
        }
        let Some(root) = self.known().root_id() else {
            return Err(self.error(ErrorKind::NotFound, operation, ""));
        };
        let (id, _) = self.make_folder(root, folder, folder, operation).await?;
        self.known().set_made_folder(folder, id, Instant::now());
        Ok(id)
    }

    /// Finds a folder that is not known. The caller holds [`Inner::resolving`].
    async fn resolve(
        &self,
        folder: &str,
        operation: Operation,
    ) -> Result<Option<Vec<FileId>>, Error> {
        // The root that is known may be stale; then it is looked up by its path. Three steps: that,
        // a listing, a look-up.
        for _ in 0..3 {
            if let Some(ids) = self.known().ids(folder) {
                return Ok(Some(ids));
            }
            let root = self.known().root_id();
            let root = match root {
                Some(root) => root,
                None => {
                    let Some(root) = self.find_root(operation).await? else {
                        return Err(self.error(ErrorKind::NotFound, operation, ""));
                    };
                    let mut known = self.known();
                    known.set_folder("", vec![root]);
                    known.resolved_at = Some(SystemTime::now());
                    root
                }
            };
            if folder.is_empty() {
                return Ok(Some(vec![root]));
            }
            if !self.known().is_root_listed {
                let Some(files) = self.fetch(root, "", operation).await? else {
                    self.known().forget();
                    continue;
                };
                self.note_root(&files);
                continue;
            }
            let child = self.client.child(root, folder).await;
            let child = child.map_err(|error| self.client_error(operation, folder, error))?;
            if let Some(child) = child.filter(|child| child.kind == FileKind::Folder) {
                self.known().set_folder(folder, vec![child.id]);
                return Ok(Some(vec![child.id]));
            }
            return Ok(None);
        }
        // It vanished again while it was looked at.
        Err(self.error(ErrorKind::NotFound, operation, ""))
    }

    /// Lists a folder by its id; `None` if it is gone, or no longer where the store's `folder` is.
    pub(super) async fn fetch(
        &self,
        id: FileId,
        folder: &str,
        operation: Operation,
    ) -> Result<Option<Vec<putio::File>>, Error> {
        let listing = match self.client.list(id).await {
            Ok(listing) => listing,
            Err(error) if error.kind == putio::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.client_error(operation, folder, error)),
        };
        // Costs nothing to look at: it was renamed, moved, or the id is that of a file.
        if let Some(row) = &listing.parent
            && row.id != FileId::ROOT
        {
            let (name, parent) = if folder.is_empty() {
                (self.folder.names().next_back(), None)
            } else {
                (Some(folder), self.known().root_id())
            };
            let is_elsewhere = row.kind != FileKind::Folder
                || name.is_some_and(|name| name != row.name)
                || parent.is_some_and(|parent| row.parent_id.is_some_and(|id| id != parent));
            if is_elsewhere {
                return Ok(None);
            }
        }
        Ok(Some(listing.files))
    }

    /// Takes a listing of the store's root: its folders and the objects in it.
    pub(super) fn note_root(&self, files: &[putio::File]) {
        let now = Instant::now();
        let mut folders: BTreeMap<&str, Vec<FileId>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.kind == FileKind::Folder) {
            if !file.name.is_empty() && check_folder(&file.name).is_ok() {
                folders.entry(&file.name).or_default().push(file.id);
            }
        }
        let mut known = self.known();
        known.set_folders(folders, now);
        known.set_rows("", files.iter().filter_map(|file| row_of("", file)), now);
    }

    /// Looks the store's root up by its path; `None` if it does not exist.
    async fn find_root(&self, operation: Operation) -> Result<Option<FileId>, Error> {
        let fail = |error| self.client_error(operation, "", error);
        let mut candidates = vec![FileId::ROOT];
        let mut path = String::new();
        for name in self.folder.names() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            let mut found = Vec::new();
            let mut file = None;
            let mut note = |row: &putio::File| match row.kind {
                FileKind::Folder => found.push(row.id),
                _ => file = Some(row.id),
            };
            for candidate in &candidates {
                match self.client.list(*candidate).await {
                    Ok(listing) => {
                        listing.files.iter().filter(|row| row.name == name).for_each(&mut note);
                    }
                    Err(error) if error.kind == putio::ErrorKind::NotFound => {}
                    Err(error) => return Err(fail(error)),
                }
            }
            if found.is_empty() && file.is_none() {
                let mut note = |row: &putio::File| match row.kind {
                    FileKind::Folder => found.push(row.id),
                    _ => file = Some(row.id),
                };
                for candidate in &candidates {
                    if let Some(row) = self.client.child(*candidate, name).await.map_err(fail)? {
                        note(&row);
                    }
                }
            }
            if found.is_empty() {
                return match file {
                    Some(id) => Err(self
                        .error(ErrorKind::Other, operation, "")
                        .with_source(FolderProblem::IsFile { path, id })),
                    None => Ok(None),
                };
            }
            found.sort_unstable();
            found.dedup();
            if found.len() > CANDIDATES_MAX {
                return Err(self.ambiguous(operation, path, &found));
            }
            candidates = found;
        }
        if let [root] = candidates[..] {
            return Ok(Some(root));
        }
        let mut repositories = Vec::new();
        for candidate in &candidates {
            let listing = self.client.list(*candidate).await.map_err(fail)?;
            let is_repository = listing
                .files
                .iter()
                .any(|row| row.kind == FileKind::Folder && row.name == REPOSITORY_SIGN);
            if is_repository {
                repositories.push(*candidate);
            }
        }
        match repositories[..] {
            [root] => Ok(Some(root)),
            _ => Err(self.ambiguous(operation, path, &candidates)),
        }
    }

    fn ambiguous(&self, operation: Operation, path: String, ids: &[FileId]) -> Error {
        let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.error(ErrorKind::Other, operation, "")
            .with_source(FolderProblem::Ambiguous { path, ids })
    }

    /// Makes the store's root and folders. What is known is not trusted: this is asked for where
    /// nothing should be yet. Without anything there, it takes one request for each folder. True if
    /// the root was made by this very call.
    pub(super) async fn create(&self, folders: &[&str]) -> Result<bool, Error> {
        let operation = Operation::Manage;
        let _turn = self.resolving.lock().await;
        self.known().forget();
        let mut root = FileId::ROOT;
        let mut is_new = false;
        let mut path = String::new();
        for name in self.folder.names() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            let made = self.client.make_folder(root, name).await;
            (root, is_new) = match made {
                Ok((folder, is_new)) => (folder.id, is_new),
                Err(error) if error.kind == putio::ErrorKind::Conflict => {
                    return Err(self.file_in_place(root, name, path, "", error).await);
                }
                Err(error) => return Err(self.client_error(operation, "", error)),
            };
        }
        if is_new {
            let mut known = self.known();
            known.set_made_folder("", root, Instant::now());
            known.is_root_listed = true;
        } else {
            // It was there: there may be two of its name, and it may hold anything.
            let root = self.find_root(operation).await?.unwrap_or(root);
            self.known().set_folder("", vec![root]);
            if let Some(files) = self.fetch(root, "", operation).await? {
                self.note_root(&files);
            }
        }
        self.known().resolved_at = Some(SystemTime::now());
        let Some(root) = self.known().root_id() else {
            return Err(self.error(ErrorKind::NotFound, operation, ""));
        };
        for folder in folders {
            if self.known().ids(folder).is_some() {
                continue;
            }
            let (id, _) = self.make_folder(root, folder, folder, operation).await?;
            self.known().set_made_folder(folder, id, Instant::now());
        }
        Ok(is_new)
    }

    /// Makes a folder, or finds the one that is there, and says whether it was made just now.
    async fn make_folder(
        &self,
        parent: FileId,
        name: &str,
        folder: &str,
        operation: Operation,
    ) -> Result<(FileId, bool), Error> {
        match self.client.make_folder(parent, name).await {
            Ok((file, is_new)) => Ok((file.id, is_new)),
            Err(error) if error.kind == putio::ErrorKind::Conflict => {
                let path = format!("{}/{name}", self.folder);
                let path = path.trim_start_matches('/').to_owned();
                Err(self.file_in_place(parent, name, path, folder, error).await)
            }
            Err(error) => Err(self.client_error(operation, folder, error)),
        }
    }

    /// The error for a folder that cannot be made because a file has its name.
    async fn file_in_place(
        &self,
        parent: FileId,
        name: &str,
        path: String,
        folder: &str,
        error: putio::Error,
    ) -> Error {
        match self.client.child(parent, name).await {
            Ok(Some(row)) => self
                .error(ErrorKind::Other, Operation::Manage, folder)
                .with_source(FolderProblem::IsFile { path, id: row.id }),
            _ => self.client_error(Operation::Manage, folder, error),
        }
    }
}
