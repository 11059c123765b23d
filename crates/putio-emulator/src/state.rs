//! All that the emulated service knows: accounts with their files, tokens, codes, cursors, links and
//! uploads. Handlers change it through the methods here, which also write it down.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::blob::{Blob, Blobs};
use crate::dice::Dice;
use crate::error::Error;
use crate::journal::{
    AccountRecord, ContentRecord, Journal, Record, RowRecord, TokenRecord, UploadRecord, load,
};
use crate::lock;
use crate::options::{AccountOptions, Options, Profile, Storage};
use crate::tree::{Content, ROOT, Row, Tree};

/// Days that the trash keeps what was deleted.
pub(crate) const TRASH_DAYS: i64 = 14;

/// Rows that left their folder and that a late listing may still show.
const LEFT_ROWS_MAX: usize = 10_000;

/// Cursors that are remembered; the oldest are forgotten first.
const CURSORS_MAX: usize = 10_000;

/// Index of an account.
pub(crate) type AccountIndex = usize;

/// All that the service knows.
pub(crate) struct State {
    pub(crate) accounts: Vec<Account>,
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) grants: HashMap<String, Grant>,
    pub(crate) codes: HashMap<String, DeviceCode>,
    pub(crate) links: HashMap<String, Link>,
    pub(crate) uploads: HashMap<String, Arc<Upload>>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) dice: Dice,
    cursors: HashMap<String, Cursor>,
    cursor_order: VecDeque<String>,
    snapshots: HashMap<String, Vec<Tree>>,
    next_id: i64,
    next_token_id: u64,
    journal: Option<Journal>,
    /// Why the journal could not be written, if so. Nothing is served from then on.
    pub(crate) failure: Option<String>,
}

/// An account.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) user_id: u64,
    pub(crate) password: Option<String>,
    pub(crate) quota: u64,
    pub(crate) settings: Map<String, Value>,
    /// By application.
    pub(crate) config: Map<String, Value>,
    pub(crate) transfers: Vec<Value>,
    pub(crate) tree: Tree,
    /// Rows that left their folder lately, and when, in Unix milliseconds.
    pub(crate) left: VecDeque<(i64, Row)>,
    /// Restores from the trash that are due at a time, in Unix milliseconds.
    pub(crate) restores: Vec<Restore>,
    /// Until when a fault holds the lock of the trash, in Unix milliseconds.
    pub(crate) trash_locked_until: i64,
    /// A trash operation is under way.
    pub(crate) is_trash_busy: bool,
    /// When its files will be deleted because the plan has ended, as the service writes it.
    pub(crate) deletion: Option<String>,
    /// Until when files have no checksum, in Unix milliseconds, and what they have instead.
    pub(crate) checksums_missing: Option<(i64, crate::faults::MissingChecksum)>,
}

/// A queued restore.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    pub(crate) due: i64,
    pub(crate) id: i64,
    pub(crate) is_renamed: bool,
}

/// What a token may do.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) account: AccountIndex,
    pub(crate) scope: String,
    pub(crate) id: u64,
    /// The application that it was given to.
    pub(crate) app: String,
}

/// A code that a browser brought back, to be exchanged for a token.
pub(crate) struct Grant {
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) account: AccountIndex,
}

/// A code that a person types.
pub(crate) struct DeviceCode {
    pub(crate) client_id: String,
    /// Unix milliseconds.
    pub(crate) expires: i64,
    /// Whoever confirmed it.
    pub(crate) account: Option<AccountIndex>,
    pub(crate) token: Option<String>,
    pub(crate) polls: u64,
}

/// A link to the bytes of a file.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) account: AccountIndex,
    pub(crate) file: i64,
    /// Unix milliseconds.
    pub(crate) expires: i64,
}

/// A listing under way.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) account: AccountIndex,
    /// Which kind of listing.
    pub(crate) kind: CursorKind,
    pub(crate) ids: Arc<Vec<i64>>,
    /// How many of the ids were handed out.
    pub(crate) done: usize,
    pub(crate) per_page: usize,
    /// Unix milliseconds.
    pub(crate) expires: i64,
}

/// Which kind of listing a cursor goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CursorKind {
    Files,
    Search,
    Trash,
    Delete,
}

/// An upload with all that was said when it began.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) account: AccountIndex,
    pub(crate) parent: i64,
    pub(crate) name: String,
    pub(crate) length: u64,
    /// Unix seconds.
    pub(crate) updated: Option<i64>,
    pub(crate) no_torrent: bool,
    pub(crate) overwrite: bool,
    pub(crate) blob: Mutex<Arc<Blob>>,
    pub(crate) progress: Mutex<Progress>,
}

/// How far an upload has come. Its offset is the length of its blob.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Of all bytes so far; made anew by who needs it when it is missing.
    pub(crate) hasher: Option<crc32fast::Hasher>,
    /// Number of the request that may append; an earlier one has been overtaken.
    pub(crate) writer: u64,
    pub(crate) done: Option<Done>,
}

/// What an upload became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// `None` for a transfer.
    pub(crate) file: Option<i64>,
    pub(crate) crc32: u32,
}

impl Upload {
    /// The bytes so far; nothing once they belong to a file.
    pub(crate) fn blob(&self) -> Arc<Blob> {
        Arc::clone(&lock(&self.blob))
    }

    pub(crate) fn offset(&self) -> u64 {
        // Length of the blob first: once it is taken away, the upload is done.
        let bytes = lock(&self.blob);
        if bytes.is_nothing() { self.length } else { bytes.length() }
    }

    pub(crate) fn done(&self) -> Option<Done> {
        lock(&self.progress).done
    }
}

impl Account {
    fn new(options: &AccountOptions, user_id: u64, profile: &Profile) -> Self {
        let settings = [
            ("trash_enabled", Value::from(profile.trash_enabled)),
            ("default_download_folder", 0.into()),
            ("sort_by", "NAME_ASC".into()),
            ("show_optimistic_usage", false.into()),
            ("tunnel_route_name", Value::Null),
            ("history_enabled", true.into()),
            ("two_factor_enabled", false.into()),
            ("use_private_download_ip", false.into()),
            ("locale", "en".into()),
            ("theme", "auto".into()),
            ("subtitle_languages", Value::Array(Vec::new())),
        ];
        Self {
            name: options.name.clone(),
            user_id,
            password: options.password.clone(),
            quota: options.quota_bytes,
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
            config: Map::new(),
            transfers: Vec::new(),
            tree: Tree::default(),
            left: VecDeque::new(),
            restores: Vec::new(),
            trash_locked_until: 0,
            is_trash_busy: false,
            deletion: None,
            checksums_missing: None,
        }
    }

    pub(crate) fn is_trash_enabled(&self) -> bool {
        self.settings.get("trash_enabled").and_then(Value::as_bool).unwrap_or(true)
    }

    /// Bytes that count against the plan.
    pub(crate) fn used(&self, profile: &Profile) -> u64 {
        let trash = if profile.trash_counts { 0 } else { self.tree.trash_bytes() };
        self.tree.bytes() - trash
    }

    fn record(&self) -> Record {
        Record::Account(AccountRecord {
            name: self.name.clone(),
            user_id: self.user_id,
            settings: self.settings.clone(),
            config: self.config.clone(),
            transfers: self.transfers.clone(),
        })
    }
}

/// The line that is written for a row.
fn row_record(account: &str, row: &Row) -> Record {
    Record::Row(RowRecord {
        account: account.to_owned(),
        id: row.id,
        parent: row.parent,
        name: row.name.clone(),
        content: row.content.as_ref().map(|content| ContentRecord {
            blob: content.blob.id(),
            size: content.size,
            crc32: content.crc32,
        }),
        created: row.created,
        updated: row.updated,
        accessed: row.accessed,
        sort_by: row.sort_by.clone(),
        trashed: row.trashed,
        is_lost: row.is_lost,
    })
}

impl State {
    /// The state that the options describe, with what their directory holds.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        let (blobs, records, folder) = match &options.storage {
            Storage::Memory => (Blobs::memory(), Vec::new(), None),
            Storage::Directory(folder) => {
                let blobs = Blobs::directory(&folder.join("content"))?;
                (blobs, load(folder)?, Some(folder.clone()))
            }
        };
        let mut state = Self {
            accounts: Vec::new(),
            tokens: HashMap::new(),
            grants: HashMap::new(),
            codes: HashMap::new(),
            links: HashMap::new(),
            uploads: HashMap::new(),
            blobs,
            dice: Dice::of(options.seed, u64::MAX, 0),
            cursors: HashMap::new(),
            cursor_order: VecDeque::new(),
            snapshots: HashMap::new(),
            next_id: options.profile.first_id.max(ROOT) + 1,
            next_token_id: 1,
            journal: None,
            failure: None,
        };
        for account in &options.accounts {
            state.add_account(account, &options.profile)?;
        }
        // A row that comes back in a later line needs its bytes then.
        state.blobs.keep_dropped(true);
        for record in records {
            state.replay(record, options)?;
        }
        state.uploads.retain(|_, upload| upload.done().is_some() || !upload.blob().is_nothing());
        state.blobs.keep_dropped(false);
        if let Some(folder) = folder {
            let fail = |source| Error::Storage { path: folder.join("content"), source };
            let used: std::collections::HashSet<u64> = state.blobs_in_use().collect();
            state.blobs.sweep(|id| used.contains(&id)).map_err(fail)?;
            state.journal = Some(Journal::start(&folder, &state.records())?);
        }
        Ok(state)
    }

    /// Adds an account with its token.
    pub(crate) fn add_account(
        &mut self,
        options: &AccountOptions,
        profile: &Profile,
    ) -> Result<AccountIndex, Error> {
        if options.name.is_empty() || options.token.is_empty() {
            return Err(Error::Options("an account needs a name and a token".to_owned()));
        }
        if self.account_named(&options.name).is_ok() {
            return Err(Error::Options(format!("there are two accounts '{}'", options.name)));
        }
        if self.tokens.contains_key(&options.token) {
            return Err(Error::Options(format!("the token of '{}' is taken", options.name)));
        }
        let index = self.accounts.len();
        let user_id = if options.user_id == 0 { 1_001 + index as u64 } else { options.user_id };
        self.accounts.push(Account::new(options, user_id, profile));
        self.add_token(&options.token, index, "default", "1");
        let record = self.accounts[index].record();
        self.write(&record);
        Ok(index)
    }

    pub(crate) fn account_named(&self, name: &str) -> Result<AccountIndex, Error> {
        self.accounts
            .iter()
            .position(|account| account.name == name)
            .ok_or_else(|| Error::NoAccount(name.to_owned()))
    }

    fn replay(&mut self, record: Record, options: &Options) -> Result<(), Error> {
        let index = |state: &Self, name: &str| {
            state.account_named(name).map_err(|_| {
                Error::Options(format!("the directory has an account '{name}', the options none"))
            })
        };
        let unreadable = |source| {
            let path = match &options.storage {
                Storage::Directory(folder) => folder.join("content"),
                Storage::Memory => std::path::PathBuf::new(),
            };
            Error::Storage { path, source }
        };
        match record {
            Record::Version(_) => {}
            Record::NextId(id) => self.next_id = self.next_id.max(id),
            Record::Account(record) => {
                let index = index(self, &record.name)?;
                let account = &mut self.accounts[index];
                account.user_id = record.user_id;
                account.settings = record.settings;
                account.config = record.config;
                account.transfers = record.transfers;
            }
            Record::Row(record) => {
                let index = index(self, &record.account)?;
                let content = match &record.content {
                    None => None,
                    Some(content) => match self.blobs.open(content.blob) {
                        Ok(blob) => {
                            Some(Content { blob, size: content.size, crc32: content.crc32 })
                        }
                        // A later line says that this row is gone, or has other bytes.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                            self.accounts[index].tree.take_out(record.id);
                            self.next_id = self.next_id.max(record.id + 1);
                            return Ok(());
                        }
                        Err(source) => return Err(unreadable(source)),
                    },
                };
                self.next_id = self.next_id.max(record.id + 1);
                self.accounts[index].tree.put(Row {
                    id: record.id,
                    parent: record.parent,
                    name: record.name,
                    content,
                    created: record.created,
                    updated: record.updated,
                    accessed: record.accessed,
                    sort_by: record.sort_by,
                    trashed: record.trashed,
                    is_lost: record.is_lost,
                    unreachable_until: 0,
                    placed: 0,
                });
            }
            Record::RowGone { account, id } => {
                let index = index(self, &account)?;
                self.accounts[index].tree.take_out(id);
            }
            Record::Upload(record) => {
                let account = index(self, &record.account)?;
                let blob = match self.blobs.open(record.blob) {
                    Ok(blob) => blob,
                    // Done or gone, as a later line says.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        self.blobs.nothing()
                    }
                    Err(source) => return Err(unreadable(source)),
                };
                let upload = Upload {
                    id: record.id.clone(),
                    account,
                    parent: record.parent,
                    name: record.name,
                    length: record.length,
                    updated: record.updated,
                    no_torrent: record.no_torrent,
                    overwrite: record.overwrite,
                    blob: Mutex::new(blob),
                    progress: Mutex::default(),
                };
                self.uploads.insert(record.id, Arc::new(upload));
            }
            Record::UploadDone { id, file, crc32 } => {
                if let Some(upload) = self.uploads.get(&id) {
                    lock(&upload.progress).done = Some(Done { file, crc32 });
                    *lock(&upload.blob) = self.blobs.nothing();
                }
            }
            Record::UploadGone { id } => {
                self.uploads.remove(&id);
            }
            Record::Token(record) => {
                let account = index(self, &record.account)?;
                self.next_token_id = self.next_token_id.max(record.id + 1);
                self.tokens.insert(
                    record.token,
                    Token { account, scope: record.scope, id: record.id, app: record.app },
                );
            }
            Record::TokenGone { token } => {
                // Options give their own tokens anew.
                if !options.accounts.iter().any(|account| account.token == token) {
                    self.tokens.remove(&token);
                }
            }
        }
        Ok(())
    }

    fn blobs_in_use(&self) -> impl Iterator<Item = u64> {
        self.accounts
            .iter()
            .flat_map(|account| account.tree.rows())
            .filter_map(|row| row.content.as_ref())
            .map(|content| content.blob.id())
            .chain(self.uploads.values().map(|upload| upload.blob().id()))
    }

    /// Everything that a new journal begins with.
    fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::NextId(self.next_id)];
        for account in &self.accounts {
            records.push(account.record());
            records.extend(account.tree.rows().map(|row| row_record(&account.name, row)));
        }
        for (token, what) in &self.tokens {
            records.push(self.token_record(token, what));
        }
        for upload in self.uploads.values() {
            records.push(self.upload_record(upload));
            if let Some(done) = upload.done() {
                records.push(Record::UploadDone {
                    id: upload.id.clone(),
                    file: done.file,
                    crc32: done.crc32,
                });
            }
        }
        records
    }

    fn token_record(&self, token: &str, what: &Token) -> Record {
        Record::Token(TokenRecord {
            token: token.to_owned(),
            account: self.accounts[what.account].name.clone(),
            scope: what.scope.clone(),
            id: what.id,
            app: what.app.clone(),
        })
    }

    fn upload_record(&self, upload: &Upload) -> Record {
        Record::Upload(UploadRecord {
            id: upload.id.clone(),
            account: self.accounts[upload.account].name.clone(),
            parent: upload.parent,
            name: upload.name.clone(),
            length: upload.length,
            updated: upload.updated,
            no_torrent: upload.no_torrent,
            overwrite: upload.overwrite,
            blob: upload.blob().id(),
        })
    }

    fn write(&mut self, record: &Record) {
        if let Some(journal) = &mut self.journal {
            journal.add(record);
        }
    }

    /// Writes down what was changed.
    pub(crate) fn flush(&mut self) {
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::flush) {
            self.failure = Some(format!("the journal cannot be written: {error}"));
        }
    }

    /// Does what has become due.
    pub(crate) fn settle(&mut self, now: i64) {
        for account in 0..self.accounts.len() {
            while let Some(at) = {
                let restores = &self.accounts[account].restores;
                restores.iter().position(|restore| restore.due <= now)
            } {
                let restore = self.accounts[account].restores.remove(at);
                self.restore(account, &restore, now);
            }
        }
    }

    // --- rows ---

    /// An id that no row has had.
    pub(crate) fn take_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&Record::NextId(self.next_id));
        id
    }

    /// Puts a row in, in place of an earlier one of its id.
    pub(crate) fn put_row(&mut self, account: AccountIndex, row: Row) {
        let record = row_record(&self.accounts[account].name, &row);
        self.write(&record);
        self.accounts[account].tree.put(row);
    }

    /// Changes a row, if it exists.
    pub(crate) fn change_row(
        &mut self,
        account: AccountIndex,
        id: i64,
        change: impl FnOnce(&mut Row),
    ) {
        if let Some(mut row) = self.accounts[account].tree.row(id).cloned() {
            change(&mut row);
            self.put_row(account, row);
        }
    }

    /// Changes a row so that it leaves its place in a listing and takes another. `now` in Unix
    /// milliseconds.
    pub(crate) fn place_row(
        &mut self,
        account: AccountIndex,
        id: i64,
        now: i64,
        change: impl FnOnce(&mut Row),
    ) {
        if let Some(mut row) = self.accounts[account].tree.row(id).cloned() {
            self.remember_left(account, row.clone(), now);
            change(&mut row);
            row.placed = now;
            self.put_row(account, row);
        }
    }

    fn remember_left(&mut self, account: AccountIndex, row: Row, now: i64) {
        let left = &mut self.accounts[account].left;
        left.push_back((now, row));
        if left.len() > LEFT_ROWS_MAX {
            left.pop_front();
        }
    }

    /// Takes a row and all below it out for good.
    pub(crate) fn remove_row(&mut self, account: AccountIndex, id: i64, now: i64) {
        let mut is_first = true;
        for id in self.accounts[account].tree.with_all_below(id) {
            let Some(mut row) = self.accounts[account].tree.take_out(id) else { continue };
            let name = self.accounts[account].name.clone();
            self.write(&Record::RowGone { account: name, id });
            if std::mem::take(&mut is_first) && row.trashed.is_none() {
                // A late listing shows the row; the bytes need not wait for that.
                if let Some(content) = &mut row.content {
                    content.blob = self.blobs.nothing();
                }
                self.remember_left(account, row, now);
            }
        }
    }

    /// Does a restore from the trash.
    fn restore(&mut self, account: AccountIndex, restore: &Restore, now: i64) {
        let tree = &self.accounts[account].tree;
        let Some(row) = tree.row(restore.id) else { return };
        if row.trashed.is_none() {
            return;
        }
        let parent = if tree.is_live_folder(row.parent) { row.parent } else { ROOT };
        let exact = crate::options::Collation::Exact;
        let mut name = row.name.clone();
        let mut number = u32::from(restore.is_renamed);
        // A folder or file that took the name in the meantime keeps it.
        while number > 0 || tree.named(parent, &name, exact).next().is_some() {
            number = number.max(1);
            name = numbered(&row.name, number);
            if tree.named(parent, &name, exact).next().is_none() {
                break;
            }
            number += 1;
        }
        self.place_row(account, restore.id, now, |row| {
            row.trashed = None;
            row.parent = parent;
            row.name = name;
        });
    }

    // --- accounts ---

    /// Writes an account down after a change of its own state.
    pub(crate) fn account_changed(&mut self, account: AccountIndex) {
        let record = self.accounts[account].record();
        self.write(&record);
    }

    // --- tokens ---

    pub(crate) fn add_token(&mut self, token: &str, account: AccountIndex, scope: &str, app: &str) {
        let what =
            Token { account, scope: scope.to_owned(), id: self.next_token_id, app: app.to_owned() };
        self.next_token_id += 1;
        let record = self.token_record(token, &what);
        self.write(&record);
        self.tokens.insert(token.to_owned(), what);
    }

    pub(crate) fn revoke_token(&mut self, token: &str) -> bool {
        let was_known = self.tokens.remove(token).is_some();
        if was_known {
            self.write(&Record::TokenGone { token: token.to_owned() });
        }
        was_known
    }

    // --- uploads ---

    pub(crate) fn add_upload(&mut self, upload: Upload) -> Arc<Upload> {
        let record = self.upload_record(&upload);
        self.write(&record);
        let upload = Arc::new(upload);
        self.uploads.insert(upload.id.clone(), Arc::clone(&upload));
        upload
    }

    pub(crate) fn upload_done(&mut self, upload: &Upload, done: Done) {
        lock(&upload.progress).done = Some(done);
        *lock(&upload.blob) = self.blobs.nothing();
        self.write(&Record::UploadDone {
            id: upload.id.clone(),
            file: done.file,
            crc32: done.crc32,
        });
    }

    pub(crate) fn remove_upload(&mut self, id: &str) -> Option<Arc<Upload>> {
        let upload = self.uploads.remove(id)?;
        self.write(&Record::UploadGone { id: id.to_owned() });
        Some(upload)
    }

    // --- cursors ---

    /// A cursor for what is left of a listing; `None` if nothing is.
    pub(crate) fn add_cursor(
        &mut self,
        cursor: Cursor,
    ) -> Result<Option<String>, getrandom::Error> {
        if cursor.done >= cursor.ids.len() {
            return Ok(None);
        }
        let word = crate::dice::random_word()?;
        self.cursors.insert(word.clone(), cursor);
        self.cursor_order.push_back(word.clone());
        if self.cursor_order.len() > CURSORS_MAX
            && let Some(oldest) = self.cursor_order.pop_front()
        {
            self.cursors.remove(&oldest);
        }
        Ok(Some(word))
    }

    /// The listing of a cursor. It can be asked for again, since its answer may have been lost.
    pub(crate) fn cursor(
        &self,
        word: &str,
        account: AccountIndex,
        kind: CursorKind,
        now: i64,
    ) -> Option<Cursor> {
        let cursor = self.cursors.get(word)?;
        (cursor.account == account && cursor.kind == kind && cursor.expires > now)
            .then(|| cursor.clone())
    }

    // --- what tests do ---

    /// The account that has a row, wherever it is.
    pub(crate) fn owner(&self, id: i64) -> Option<AccountIndex> {
        self.accounts.iter().position(|account| account.tree.row(id).is_some())
    }

    /// Everything but accounts and their tokens is gone.
    pub(crate) fn clear(&mut self) {
        for account in 0..self.accounts.len() {
            let ids: Vec<i64> = self.accounts[account].tree.rows().map(|row| row.id).collect();
            for id in ids {
                self.remove_row(account, id, 0);
            }
            let account = &mut self.accounts[account];
            account.left.clear();
            account.restores.clear();
            account.transfers.clear();
            account.config.clear();
            account.trash_locked_until = 0;
            account.checksums_missing = None;
        }
        for index in 0..self.accounts.len() {
            self.account_changed(index);
        }
        let uploads: Vec<String> = self.uploads.keys().cloned().collect();
        for id in uploads {
            self.remove_upload(&id);
        }
        self.cursors.clear();
        self.cursor_order.clear();
        self.links.clear();
        self.grants.clear();
        self.codes.clear();
    }

    /// Remembers all files under a name.
    pub(crate) fn take_snapshot(&mut self, name: &str) {
        let trees = self.accounts.iter().map(|account| account.tree.clone()).collect();
        self.snapshots.insert(name.to_owned(), trees);
    }

    /// All files as they were. Ids that were given away since stay so; uploads stay.
    pub(crate) fn restore_snapshot(&mut self, name: &str) -> bool {
        let Some(trees) = self.snapshots.get(name).cloned() else { return false };
        for (index, tree) in trees.into_iter().enumerate() {
            let now: Vec<i64> = self.accounts[index].tree.rows().map(|row| row.id).collect();
            for id in now.into_iter().filter(|id| tree.row(*id).is_none()) {
                self.accounts[index].tree.take_out(id);
                let account = self.accounts[index].name.clone();
                self.write(&Record::RowGone { account, id });
            }
            for row in tree.rows() {
                self.put_row(index, row.clone());
            }
            self.accounts[index].left.clear();
        }
        true
    }
}

/// `name.txt` becomes `name (1).txt`.
fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem} ({number}).{extension}"),
        _ => format!("{name} ({number})"),
    }
}
