//! What tests look at and do to the stored files: by methods of [`Emulator`], and through the admin
//! side channel, which calls the same functions.

use crate::error::Error;
use crate::files::{folder_at, new_row};
use crate::shared::Shared;
use crate::state::AccountIndex;
use crate::tree::{Content, ROOT, Tree};
use crate::{Emulator, auth};

/// A file or folder, as tests see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its id.
    pub id: i64,
    /// Id of its folder; 0 is the root.
    pub parent: i64,
    /// From the root, without a leading slash; `a/b.txt`.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// As its metadata say; `None` for folders.
    pub crc32: Option<u32>,
    /// Modification time, in Unix seconds.
    pub updated: i64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// An unfinished upload, as tests see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct UploadInfo {
    /// Last part of its address.
    pub id: String,
    /// The file that it will be.
    pub name: String,
    /// Id of the folder that it will be in.
    pub parent: i64,
    /// Bytes that it will have.
    pub length: u64,
    /// Bytes received.
    pub offset: u64,
}

impl Emulator {
    /// All files and folders of an account that are not in its trash, without the root, sorted by
    /// path and id.
    pub fn files(&self, account: &str) -> Result<Vec<FileInfo>, Error> {
        self.shared.files(account)
    }

    /// What is in the trash, top-level rows alone, latest first.
    pub fn trash(&self, account: &str) -> Result<Vec<FileInfo>, Error> {
        self.shared.trash(account)
    }

    /// Uploads that are not finished.
    pub fn uploads(&self, account: &str) -> Result<Vec<UploadInfo>, Error> {
        self.shared.uploads(account)
    }

    /// The bytes of a file; of several with one path, those of the latest.
    pub fn read_file(&self, account: &str, path: &str) -> Result<Vec<u8>, Error> {
        self.shared.read_file(account, path)
    }

    /// Makes a file with the folders above it, beside any other of its name; its id.
    pub fn seed_file(&self, account: &str, path: &str, bytes: &[u8]) -> Result<i64, Error> {
        self.shared.seed(account, path, Some(bytes))
    }

    /// Makes a folder and those above it where they are missing; its id.
    pub fn seed_folder(&self, account: &str, path: &str) -> Result<i64, Error> {
        self.shared.seed(account, path, None)
    }

    /// A second folder of the same name beside an existing one, or beside none; its id.
    pub fn seed_twin_folder(&self, account: &str, parent: i64, name: &str) -> Result<i64, Error> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        let account = state.account_named(account)?;
        let id = state.take_id();
        state.put_row(account, new_row(id, parent, name.to_owned(), None, now));
        Ok(id)
    }

    /// Bytes that count against the plan, and bytes of the plan.
    pub fn usage(&self, account: &str) -> Result<(u64, u64), Error> {
        let state = self.shared.state();
        let owner = &state.accounts[state.account_named(account)?];
        Ok((owner.used(&self.shared.profile()), owner.quota))
    }

    /// Another plan.
    pub fn set_quota(&self, account: &str, bytes: u64) -> Result<(), Error> {
        self.shared.set_quota(account, bytes)
    }

    /// The plan has ended, and files will be deleted then (`2026-01-31T23:59:59`); `None` for a
    /// plan that goes on.
    pub fn set_deletion(&self, account: &str, at: Option<&str>) -> Result<(), Error> {
        self.shared.set_deletion(account, at)
    }

    /// Changes one byte of a file; its metadata stay as they are.
    pub fn corrupt_file(&self, id: i64, offset: u64) -> Result<(), Error> {
        self.shared.corrupt_file(id, offset)
    }

    /// A file's bytes are lost: 410 `FILE_LOST` from now on. Its row stays.
    pub fn lose_file(&self, id: i64) -> Result<(), Error> {
        self.shared.lose_file(id)
    }

    /// A file or folder is gone, past the trash.
    pub fn remove_file(&self, id: i64) -> Result<(), Error> {
        self.shared.remove_file(id)
    }

    /// A second row with the same name, folder and bytes; its id.
    pub fn duplicate_file(&self, id: i64) -> Result<i64, Error> {
        self.shared.duplicate_file(id)
    }

    /// 401 for this token from now on.
    pub fn revoke_token(&self, token: &str) -> Result<(), Error> {
        self.shared.revoke_token(token)
    }

    /// Links a device code, as the person does who types it at `put.io/link`.
    pub fn approve_code(&self, code: &str, account: &str) -> Result<(), Error> {
        self.shared.approve_code(code, account)
    }

    /// Device codes that wait to be linked.
    pub fn codes(&self) -> Vec<String> {
        let now = self.shared.clock.now();
        let state = self.shared.state();
        let waiting = state.codes.iter().filter(|(_, code)| code.expires > now);
        waiting.map(|(word, _)| word.clone()).collect()
    }

    /// Closes every open connection with a reset.
    pub fn reset_connections(&self) {
        self.shared.reset_connections();
    }

    /// Remembers all files of all accounts under a name, until the emulator ends.
    pub fn take_snapshot(&self, name: &str) {
        self.shared.state().take_snapshot(name);
    }

    /// All files as they were. Ids that were given away since stay so; uploads stay.
    pub fn restore_snapshot(&self, name: &str) -> Result<(), Error> {
        self.shared.restore_snapshot(name)
    }

    /// Files, trash, uploads, cursors, links, codes, limits, faults and the log are gone; accounts
    /// and tokens stay.
    pub fn reset(&self) {
        self.shared.reset();
    }
}

fn info(tree: &Tree, id: i64) -> Option<FileInfo> {
    let row = tree.row(id)?;
    Some(FileInfo {
        id,
        parent: row.parent,
        path: tree.path(id),
        name: row.name.clone(),
        size: row.size(),
        crc32: row.content.as_ref().map(|content| content.crc32),
        updated: row.updated,
        is_folder: row.is_folder(),
    })
}

/// The functions behind the methods of [`Emulator`] that the admin side channel has, too.
impl Shared {
    pub(crate) fn files(&self, account: &str) -> Result<Vec<FileInfo>, Error> {
        let state = self.state();
        let tree = &state.accounts[state.account_named(account)?].tree;
        let live = tree.rows().filter(|row| tree.live(row.id).is_some());
        let mut files: Vec<FileInfo> = live.filter_map(|row| info(tree, row.id)).collect();
        files.sort_by(|one, other| (&one.path, one.id).cmp(&(&other.path, other.id)));
        Ok(files)
    }

    pub(crate) fn trash(&self, account: &str) -> Result<Vec<FileInfo>, Error> {
        let state = self.state();
        let tree = &state.accounts[state.account_named(account)?].tree;
        Ok(tree.trash().iter().filter_map(|row| info(tree, row.id)).collect())
    }

    pub(crate) fn uploads(&self, account: &str) -> Result<Vec<UploadInfo>, Error> {
        let state = self.state();
        let account = state.account_named(account)?;
        let mut uploads: Vec<UploadInfo> = state
            .uploads
            .values()
            .filter(|upload| upload.account == account && upload.done().is_none())
            .map(|upload| UploadInfo {
                id: upload.id.clone(),
                name: upload.name.clone(),
                parent: upload.parent,
                length: upload.length,
                offset: upload.offset(),
            })
            .collect();
        uploads.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Ok(uploads)
    }

    pub(crate) fn read_file(&self, account: &str, path: &str) -> Result<Vec<u8>, Error> {
        let no_file = || Error::NoFile(path.to_owned());
        let content = {
            let state = self.state();
            let tree = &state.accounts[state.account_named(account)?].tree;
            let found = tree.rows().filter(|row| !row.is_folder() && tree.live(row.id).is_some());
            let latest = found.filter(|row| tree.path(row.id) == path).last();
            latest.and_then(|row| row.content.clone()).ok_or_else(no_file)?
        };
        let mut bytes = Vec::new();
        content
            .blob
            .each_piece(|piece| bytes.extend_from_slice(piece))
            .map_err(|source| Error::Storage { path: path.into(), source })?;
        Ok(bytes)
    }

    /// Makes a file, or a folder if there are no bytes.
    pub(crate) fn seed(
        &self,
        account: &str,
        path: &str,
        bytes: Option<&[u8]>,
    ) -> Result<i64, Error> {
        let profile = self.profile();
        let now = self.clock.now();
        let mut state = self.state();
        let account = state.account_named(account)?;
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let file_name = match bytes {
            Some(_) => Some(parts.pop().ok_or_else(|| Error::NoFile(path.to_owned()))?),
            None => None,
        };
        let mut parent = ROOT;
        for part in parts {
            parent = folder_at(&mut state, account, parent, part, &profile, now)
                .map_err(|_| Error::NoFile(path.to_owned()))?;
        }
        let (Some(name), Some(bytes)) = (file_name, bytes) else { return Ok(parent) };
        let fail = |source| Error::Storage { path: path.into(), source };
        let blob = state.blobs.create().map_err(fail)?;
        blob.append(bytes).map_err(fail)?;
        blob.finish();
        let size = bytes.len() as u64;
        let content = Content { blob, size, crc32: crc32fast::hash(bytes) };
        let id = state.take_id();
        state.put_row(account, new_row(id, parent, name.to_owned(), Some(content), now));
        Ok(id)
    }

    pub(crate) fn set_quota(&self, account: &str, bytes: u64) -> Result<(), Error> {
        let mut state = self.state();
        let account = state.account_named(account)?;
        state.accounts[account].quota = bytes;
        Ok(())
    }

    pub(crate) fn set_deletion(&self, account: &str, at: Option<&str>) -> Result<(), Error> {
        let mut state = self.state();
        let account = state.account_named(account)?;
        state.accounts[account].deletion = at.map(str::to_owned);
        Ok(())
    }

    /// Changes a row of whichever account has it.
    fn change(
        &self,
        id: i64,
        change: impl FnOnce(&mut crate::state::State, AccountIndex) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut state = self.state();
        let account = state.owner(id).ok_or_else(|| Error::NoFile(id.to_string()))?;
        change(&mut state, account)
    }

    pub(crate) fn corrupt_file(&self, id: i64, offset: u64) -> Result<(), Error> {
        self.change(id, |state, account| {
            let row = state.accounts[account].tree.row(id);
            let content = row.and_then(|row| row.content.clone());
            let content = content.ok_or_else(|| Error::NoFile(id.to_string()))?;
            let fail = |source| Error::Storage { path: id.to_string().into(), source };
            let blob = content.blob.damaged_copy(offset).map_err(fail)?;
            state.change_row(account, id, |row| row.content = Some(Content { blob, ..content }));
            Ok(())
        })
    }

    pub(crate) fn lose_file(&self, id: i64) -> Result<(), Error> {
        self.change(id, |state, account| {
            state.change_row(account, id, |row| row.is_lost = true);
            Ok(())
        })
    }

    pub(crate) fn remove_file(&self, id: i64) -> Result<(), Error> {
        let now = self.clock.now();
        self.change(id, |state, account| {
            state.remove_row(account, id, now);
            Ok(())
        })
    }

    pub(crate) fn duplicate_file(&self, id: i64) -> Result<i64, Error> {
        let mut twin = 0;
        self.change(id, |state, account| {
            let row = state.accounts[account].tree.row(id).cloned();
            let mut row = row.ok_or_else(|| Error::NoFile(id.to_string()))?;
            twin = state.take_id();
            row.id = twin;
            state.put_row(account, row);
            Ok(())
        })?;
        Ok(twin)
    }

    pub(crate) fn revoke_token(&self, token: &str) -> Result<(), Error> {
        if self.state().revoke_token(token) { Ok(()) } else { Err(Error::NoToken) }
    }

    pub(crate) fn approve_code(&self, code: &str, account: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let mut state = self.state();
        let account = state.account_named(account)?;
        auth::approve(&mut state, code, account, now).map(|_| ()).ok_or(Error::NoCode)
    }

    pub(crate) fn restore_snapshot(&self, name: &str) -> Result<(), Error> {
        if self.state().restore_snapshot(name) {
            Ok(())
        } else {
            Err(Error::NoSnapshot(name.to_owned()))
        }
    }

    pub(crate) fn reset(&self) {
        self.state().clear();
        self.limits.clear();
        self.faults.set(Vec::new());
        self.log.clear();
    }
}
