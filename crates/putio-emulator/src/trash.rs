//! The trash: listing, restoring, emptying, and the lock that an account has for all of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::call::{Call, Failure, Params, Reply, ok};
use crate::clock;
use crate::faults::Fault;
use crate::listing::{per_page, take_cursor};
use crate::model::types;
use crate::shared::Shared;
use crate::state::{AccountIndex, Cursor, CursorKind, Restore, State, TRASH_DAYS};
use crate::tree::{FOLDER_TYPE, Row};

/// The account's lock on its trash, held. Operations do not wait for it: they fail.
pub(crate) struct Lock {
    shared: Arc<Shared>,
    account: AccountIndex,
}

impl Lock {
    /// Takes the lock and keeps it for as long as an operation lasts.
    pub(crate) async fn take(call: &Call, account: AccountIndex) -> Result<Self, Failure> {
        let lock = {
            let now = call.now();
            let mut state = call.shared.state();
            let owner = &mut state.accounts[account];
            if let Some(Fault::TrashLocked { seconds }) = call.fault {
                let until = now.saturating_add((seconds * 1000.0) as i64);
                owner.trash_locked_until = owner.trash_locked_until.max(until);
                return Err(Failure::trash_locked());
            }
            if owner.is_trash_busy || owner.trash_locked_until > now {
                return Err(Failure::trash_locked());
            }
            owner.is_trash_busy = true;
            Self { shared: Arc::clone(&call.shared), account }
        };
        let time = call.shared.profile().trash_operation_milliseconds;
        tokio::time::sleep(Duration::from_millis(time)).await;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.shared.state().accounts[self.account].is_trash_busy = false;
    }
}

/// `GET /v2/trash/list`
pub(crate) async fn list(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let per_page = per_page(&params, &call.shared.profile())?;
    let mut state = call.shared.state();
    expire(&mut state, account, call.now());
    let ids: Vec<i64> = state.accounts[account].tree.trash().iter().map(|row| row.id).collect();
    let total = ids.len();
    let mut answer = page(&call, &mut state, account, Arc::new(ids), 0, per_page)?;
    answer["total"] = total.into();
    answer["trash_size"] = state.accounts[account].tree.trash_bytes().into();
    ok(answer)
}

/// `POST /v2/trash/list/continue`
pub(crate) async fn list_continue(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let mut state = call.shared.state();
    let cursor = take_cursor(&call, &params, &state, account, CursorKind::Trash)?;
    let rows = match params.text("per_page") {
        Some(_) => per_page(&params, &call.shared.profile())?,
        None => cursor.per_page,
    };
    ok(page(&call, &mut state, account, cursor.ids, cursor.done, rows)?)
}

fn page(
    call: &Call,
    state: &mut State,
    account: AccountIndex,
    ids: Arc<Vec<i64>>,
    done: usize,
    per_page: usize,
) -> Result<Value, Failure> {
    let end = ids.len().min(done.saturating_add(per_page));
    let tree = &state.accounts[account].tree;
    let files: Vec<Value> = ids[done..end]
        .iter()
        .filter_map(|id| tree.row(*id).filter(|row| row.trashed.is_some()))
        .map(|row| shown(row, tree.size_of(row.id)))
        .collect();
    let seconds = i64::try_from(call.shared.profile().cursor_seconds).unwrap_or(i64::MAX);
    let expires = call.now().saturating_add(seconds.saturating_mul(1000));
    let kind = CursorKind::Trash;
    let cursor = state.add_cursor(Cursor { account, kind, ids, done: end, per_page, expires })?;
    Ok(json!({ "files": files, "cursor": cursor }))
}

fn shown(row: &Row, size: u64) -> Value {
    let deleted = row.trashed.unwrap_or_default();
    let extension = row.name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let (content_type, file_type) = match row.is_folder() {
        true => (FOLDER_TYPE, "FOLDER"),
        false => types(extension.as_deref().unwrap_or_default()),
    };
    json!({
        "id": row.id,
        "name": row.name,
        "size": size,
        "created_at": clock::format(row.created),
        "deleted_at": clock::format(deleted),
        "expiration_date": clock::format(deleted + TRASH_DAYS * 86_400),
        "content_type": content_type,
        "extension": extension,
        "file_type": file_type,
        "folder_type": "REGULAR",
        "first_accessed_at": row.accessed.map(clock::format),
        "icon": null,
        "parent_id": row.parent,
        "screenshot": null,
    })
}

/// What has been in the trash for too long is gone.
fn expire(state: &mut State, account: AccountIndex, now: i64) {
    let oldest = now.div_euclid(1000) - TRASH_DAYS * 86_400;
    let old: Vec<i64> = state.accounts[account]
        .tree
        .trash()
        .iter()
        .filter(|row| row.trashed.is_some_and(|deleted| deleted <= oldest))
        .map(|row| row.id)
        .collect();
    for id in old {
        state.remove_row(account, id, now);
    }
}

/// Top-level rows of the trash that a request names. Others are not found, their children neither.
fn named(
    call: &Call,
    params: &Params,
    state: &State,
    account: AccountIndex,
) -> Result<Vec<i64>, Failure> {
    let mut ids = params.ids("file_ids")?;
    ids.extend(params.number("file_id")?);
    if ids.is_empty() && params.text("cursor").is_some() {
        let cursor = take_cursor(call, params, state, account, CursorKind::Trash)?;
        ids = cursor.ids[..].to_vec();
    }
    if ids.is_empty() {
        return Err(Failure::bad_request("file_ids are missing"));
    }
    let trash: std::collections::HashSet<i64> =
        state.accounts[account].tree.trash().iter().map(|row| row.id).collect();
    if ids.iter().any(|id| !trash.contains(id)) {
        return Err(Failure::new(404, "TRASH_FILE_NOT_FOUND", "The file is not in the trash"));
    }
    Ok(ids)
}

/// `POST /v2/trash/restore`
pub(crate) async fn restore(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let _lock = Lock::take(&call, account).await?;
    let now = call.now();
    let mut state = call.shared.state();
    expire(&mut state, account, now);
    let ids = named(&call, &params, &state, account)?;
    let wait = i64::try_from(call.shared.profile().restore_milliseconds).unwrap_or(i64::MAX);
    let due = match call.fault {
        Some(Fault::RestoreNever) => i64::MAX,
        _ => now.saturating_add(wait),
    };
    let is_renamed = matches!(call.fault, Some(Fault::RestoreRenames));
    for id in ids {
        state.accounts[account].restores.push(Restore { due, id, is_renamed });
    }
    state.settle(now);
    ok(json!({}))
}

/// `POST /v2/trash/delete`
pub(crate) async fn delete(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let _lock = Lock::take(&call, account).await?;
    let now = call.now();
    let mut state = call.shared.state();
    for id in named(&call, &params, &state, account)? {
        state.remove_row(account, id, now);
    }
    ok(json!({}))
}

/// `POST /v2/trash/empty`
pub(crate) async fn empty(call: Call) -> Reply {
    let account = call.account()?;
    let _lock = Lock::take(&call, account).await?;
    empty_now(&mut call.shared.state(), account, call.now());
    ok(json!({}))
}

/// Takes all out of the trash for good.
pub(crate) fn empty_now(state: &mut State, account: AccountIndex, now: i64) {
    let ids: Vec<i64> = state.accounts[account].tree.trash().iter().map(|row| row.id).collect();
    for id in ids {
        state.remove_row(account, id, now);
    }
}
