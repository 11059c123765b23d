//! Files and folders: one, by id or by name; creating, renaming, moving, copying, touching, deleting.

use serde_json::{Value, json};

use crate::call::{Call, Failure, Params, Reply, ok};
use crate::clock;
use crate::faults::Fault;
use crate::listing::take_cursor;
use crate::model::View;
use crate::names;
use crate::options::{ChildPick, MoveClash, Profile};
use crate::state::{AccountIndex, Cursor, CursorKind, State};
use crate::trash;
use crate::tree::{Content, ROOT, Row};

/// Deepest tree that is copied, and longest path that is created.
const DEPTH_MAX: usize = 1_000;

/// The id in a path.
pub(crate) fn path_id(text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::not_found())
}

/// What loses files, before a request looks at them.
pub(crate) fn lose(call: &Call, state: &mut State, account: AccountIndex, id: i64) {
    let now = call.now();
    match call.fault {
        Some(Fault::FileVanishes) => state.remove_row(account, id, now),
        Some(Fault::FileLost) => state.change_row(account, id, |row| row.is_lost = true),
        Some(Fault::FileNotReachable { seconds }) => {
            let until = now.saturating_add((seconds * 1000.0) as i64);
            state.change_row(account, id, |row| row.unreachable_until = until);
        }
        _ => {}
    }
}

/// `GET /v2/files/ID`
pub(crate) async fn get(
    call: Call,
    axum::extract::Path(id): axum::extract::Path<String>,
    params: Params,
) -> Reply {
    let account = call.account()?;
    let id = path_id(&id)?;
    let mut state = call.shared.state();
    lose(&call, &mut state, account, id);
    let view = View::new(&call, &params, &state, account);
    ok(json!({ "file": view.live(&state.accounts[account].tree, id)? }))
}

/// `GET /v2/files/ID/child`
pub(crate) async fn child(
    call: Call,
    axum::extract::Path(id): axum::extract::Path<String>,
    params: Params,
) -> Reply {
    let account = call.account()?;
    let parent = path_id(&id)?;
    let profile = call.shared.profile();
    let name = params.text("name").ok_or_else(|| Failure::bad_request("name is missing"))?;
    let mut state = call.shared.state();
    let mut choice = state.dice.clone();
    state.dice.next();
    let tree = &state.accounts[account].tree;
    if !tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    let rows: Vec<&Row> = tree.named(parent, name, profile.collation).collect();
    let row = match profile.child_pick {
        ChildPick::Lowest => rows.first(),
        ChildPick::Highest => rows.last(),
        ChildPick::Random => rows.get(choice.below(rows.len())),
    };
    let row = row.ok_or_else(Failure::not_found)?;
    ok(json!({ "file": View::new(&call, &params, &state, account).file(tree, row) }))
}

/// `GET /v2/files/ID/can-write`
pub(crate) async fn can_write(
    call: Call,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Reply {
    let account = call.account()?;
    let id = path_id(&id)?;
    let state = call.shared.state();
    if id != ROOT && state.accounts[account].tree.live(id).is_none() {
        return Err(Failure::not_found());
    }
    ok(json!({ "user_id": state.accounts[account].user_id }))
}

/// `POST /v2/files/create-folder`
pub(crate) async fn create_folder(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let parent = params.number("parent_id")?.unwrap_or(ROOT);
    let now = call.now();
    let mut state = call.shared.state();
    if !state.accounts[account].tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    let (parent, name) = match params.text("path") {
        Some(path) => {
            let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            if parts.len() > DEPTH_MAX {
                return Err(Failure::bad_request("the path is too deep"));
            }
            let last = parts.pop().unwrap_or_default();
            let mut parent = parent;
            for part in parts {
                parent = folder_at(&mut state, account, parent, part, &profile, now)?;
            }
            (parent, last.to_owned())
        }
        None => (parent, params.raw("name").unwrap_or_default().to_owned()),
    };
    let name = names::accept(&name, &profile)?;
    if matches!(call.fault, Some(Fault::FolderRace))
        && is_free(&state, account, parent, &name, &profile)
    {
        add_folder(&mut state, account, parent, &name, now);
    }
    if !is_free(&state, account, parent, &name, &profile) {
        return Err(Failure::name_exists());
    }
    let id = add_folder(&mut state, account, parent, &name, now);
    let user_id = state.accounts[account].user_id;
    call.shared.notify(user_id, "file_create", id, &name);
    let view = View::new(&call, &params, &state, account);
    ok(json!({ "file": view.live(&state.accounts[account].tree, id)? }))
}

/// The folder of this name, made where it is missing.
pub(crate) fn folder_at(
    state: &mut State,
    account: AccountIndex,
    parent: i64,
    name: &str,
    profile: &Profile,
    now: i64,
) -> Result<i64, Failure> {
    let name = names::accept(name, profile)?;
    let found = state.accounts[account]
        .tree
        .named(parent, &name, profile.collation)
        .map(|row| (row.is_folder(), row.id))
        .max();
    match found {
        Some((true, id)) => Ok(id),
        Some((false, _)) => Err(Failure::name_exists()),
        None => Ok(add_folder(state, account, parent, &name, now)),
    }
}

fn add_folder(state: &mut State, account: AccountIndex, parent: i64, name: &str, now: i64) -> i64 {
    let id = state.take_id();
    state.put_row(account, new_row(id, parent, name.to_owned(), None, now));
    id
}

/// A row that was made now, in Unix milliseconds.
pub(crate) fn new_row(
    id: i64,
    parent: i64,
    name: String,
    content: Option<Content>,
    now: i64,
) -> Row {
    let seconds = now.div_euclid(1000);
    Row {
        id,
        parent,
        name,
        content,
        created: seconds,
        updated: seconds,
        accessed: None,
        sort_by: None,
        trashed: None,
        is_lost: false,
        unreachable_until: 0,
        placed: now,
    }
}

fn is_free(
    state: &State,
    account: AccountIndex,
    parent: i64,
    name: &str,
    profile: &Profile,
) -> bool {
    state.accounts[account].tree.named(parent, name, profile.collation).next().is_none()
}

/// `POST /v2/files/rename`
pub(crate) async fn rename(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let id = params.id("file_id")?;
    let name = names::accept(params.raw("name").unwrap_or_default(), &profile)?;
    let now = call.now();
    let mut state = call.shared.state();
    let tree = &state.accounts[account].tree;
    let parent = tree.live(id).ok_or_else(Failure::not_found)?.parent;
    if tree.named(parent, &name, profile.collation).any(|row| row.id != id) {
        return Err(Failure::name_exists());
    }
    state.place_row(account, id, now, |row| row.name.clone_from(&name));
    call.shared.notify(state.accounts[account].user_id, "file_update", id, &name);
    ok(json!({}))
}

/// The ids that a request is about: `file_ids`, `file_id`, or a listing's cursor.
fn ids_of(
    call: &Call,
    params: &Params,
    state: &State,
    account: AccountIndex,
) -> Result<Vec<i64>, Failure> {
    let mut ids = params.ids("file_ids")?;
    ids.extend(params.number("file_id")?);
    if ids.is_empty() && params.text("cursor").is_some() {
        let kind = |kind| take_cursor(call, params, state, account, kind);
        let cursor = kind(CursorKind::Files)
            .or_else(|_| kind(CursorKind::Search))
            .or_else(|_| kind(CursorKind::Trash))?;
        let excluded = params.ids("exclude_ids")?;
        ids = cursor.ids.iter().copied().filter(|id| !excluded.contains(id)).collect();
    }
    if ids.is_empty() {
        return Err(Failure::bad_request("file_ids are missing"));
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// `POST /v2/files/move`
pub(crate) async fn move_files(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let now = call.now();
    let mut state = call.shared.state();
    let ids = ids_of(&call, &params, &state, account)?;
    let parent = params.id("parent_id")?;
    if !state.accounts[account].tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    let name = match params.raw("name") {
        Some(name) if ids.len() == 1 => Some(names::accept(name, &profile)?),
        _ => None,
    };
    let mut errors: Vec<Value> = Vec::new();
    for id in ids {
        if let Err(failure) =
            move_one(&mut state, account, id, parent, name.as_deref(), &profile, now)
        {
            let row = state.accounts[account].tree.row(id);
            errors.push(json!({
                "id": id,
                "name": row.map(|row| row.name.clone()),
                "error_type": failure.error_type(),
                "status_code": failure.status(),
            }));
        } else if let Some(row) = state.accounts[account].tree.row(id) {
            call.shared.notify(state.accounts[account].user_id, "file_update", id, &row.name);
        }
    }
    ok(json!({ "errors": errors }))
}

fn move_one(
    state: &mut State,
    account: AccountIndex,
    id: i64,
    parent: i64,
    name: Option<&str>,
    profile: &Profile,
    now: i64,
) -> Result<(), Failure> {
    let tree = &state.accounts[account].tree;
    let row = tree.live(id).ok_or_else(Failure::not_found)?;
    let name = name.unwrap_or(&row.name).to_owned();
    if tree.is_within(parent, id) {
        return Err(Failure::new(400, "MOVE_INTO_ITSELF", "A folder can not be moved into itself"));
    }
    let is_taken = tree.named(parent, &name, profile.collation).any(|other| other.id != id);
    if is_taken && profile.move_clash == MoveClash::Error {
        return Err(Failure::name_exists());
    }
    state.place_row(account, id, now, |row| {
        row.parent = parent;
        row.name = name;
        row.updated = now.div_euclid(1000);
    });
    Ok(())
}

/// `POST /v2/files/copy`
pub(crate) async fn copy(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let id = params.id("file_id")?;
    let parent = params.id("parent_id")?;
    let now = call.now();
    let mut state = call.shared.state();
    let tree = &state.accounts[account].tree;
    let row = tree.live(id).ok_or_else(Failure::not_found)?;
    if !tree.is_live_folder(parent) {
        return Err(Failure::not_found());
    }
    if row.is_folder() && (!profile.copies_folders || tree.is_within(parent, id)) {
        return Err(Failure::new(400, "NotFile", "Only files can be copied"));
    }
    let name = names::accept(params.text("name").unwrap_or(&row.name), &profile)?;
    if !is_free(&state, account, parent, &name, &profile) {
        return Err(Failure::name_exists());
    }
    let owner = &state.accounts[account];
    if owner.used(&profile).saturating_add(owner.tree.size_of(id)) > owner.quota {
        return Err(Failure::full());
    }
    let copied = copy_row(&mut state, account, id, parent, name, now, 0)?;
    let view = View::new(&call, &params, &state, account);
    let shown = view.live(&state.accounts[account].tree, copied)?;
    call.shared.notify(
        state.accounts[account].user_id,
        "file_create",
        copied,
        shown["name"].as_str().unwrap_or_default(),
    );
    ok(json!({ "file": shown }))
}

fn copy_row(
    state: &mut State,
    account: AccountIndex,
    id: i64,
    parent: i64,
    name: String,
    now: i64,
    depth: usize,
) -> Result<i64, Failure> {
    if depth > DEPTH_MAX {
        return Err(Failure::bad_request("the tree is too deep"));
    }
    let tree = &state.accounts[account].tree;
    let content = tree.row(id).and_then(|row| row.content.clone());
    let below: Vec<(i64, String)> =
        tree.children(id).map(|row| (row.id, row.name.clone())).collect();
    let copied = state.take_id();
    state.put_row(account, new_row(copied, parent, name, content, now));
    for (child, name) in below {
        copy_row(state, account, child, copied, name, now, depth + 1)?;
    }
    Ok(copied)
}

/// `POST /v2/files/touch`
pub(crate) async fn touch(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let now = call.now().div_euclid(1000);
    let updated = match params.text("updated_at") {
        Some(text) => clock::parse(text)
            .ok_or_else(|| Failure::bad_request("updated_at is no time of RFC 3339"))?,
        None => now,
    };
    let mut state = call.shared.state();
    let ids = ids_of(&call, &params, &state, account)?;
    if ids.iter().any(|id| state.accounts[account].tree.live(*id).is_none()) {
        return Err(Failure::not_found());
    }
    if !matches!(call.fault, Some(Fault::TimeIgnored)) {
        for id in ids {
            state.change_row(account, id, |row| row.updated = updated);
        }
    }
    ok(json!({}))
}

/// `POST /v2/files/delete`
pub(crate) async fn delete(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let mut ids = {
        let state = call.shared.state();
        let cursor = params.text("cursor");
        let rest =
            cursor.and_then(|word| state.cursor(word, account, CursorKind::Delete, call.now()));
        match rest {
            Some(cursor) => cursor.ids[cursor.done..].to_vec(),
            None => ids_of(&call, &params, &state, account)?,
        }
    };
    if ids.contains(&ROOT) {
        return Err(Failure::new(403, "Forbidden", "The root folder can not be deleted"));
    }
    let may_lack = params.flag("skip_nonexistents") || params.flag("partial_delete");
    let to_trash = {
        let state = call.shared.state();
        let owner = &state.accounts[account];
        if !may_lack && ids.iter().any(|id| owner.tree.live(*id).is_none()) {
            return Err(Failure::not_found());
        }
        owner.is_trash_enabled() && !params.flag("skip_trash")
    };
    // Only what goes to the trash needs its lock, unless a fault has it otherwise.
    let lock = match to_trash || matches!(call.fault, Some(Fault::TrashLocked { .. })) {
        true => Some(trash::Lock::take(&call, account).await?),
        false => None,
    };
    let now = call.now();
    let mut state = call.shared.state();
    let later = match profile.delete_rows_max {
        0 => Vec::new(),
        most => ids.split_off(most.min(ids.len())),
    };
    let mut skipped = 0;
    for id in ids {
        let Some(row) = state.accounts[account].tree.live(id) else {
            skipped += 1;
            continue;
        };
        let name = row.name.clone();
        if to_trash {
            state.place_row(account, id, now, |row| row.trashed = Some(now.div_euclid(1000)));
        } else {
            state.remove_row(account, id, now);
        }
        call.shared.notify(state.accounts[account].user_id, "file_delete", id, &name);
    }
    let cursor = state.add_cursor(Cursor {
        account,
        kind: CursorKind::Delete,
        ids: std::sync::Arc::new(later),
        done: 0,
        per_page: 0,
        expires: i64::MAX,
    })?;
    drop(state);
    drop(lock);
    ok(json!({ "skipped": skipped, "cursor": cursor }))
}

/// `POST /v2/files/set-sort-by`
pub(crate) async fn set_sort_by(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let id = params.id("file_id")?;
    let order = params.text("sort_by").map(str::to_owned);
    let mut state = call.shared.state();
    if id == ROOT {
        let order = order.unwrap_or_else(|| "NAME_ASC".to_owned());
        state.accounts[account].settings.insert("sort_by".to_owned(), order.into());
        state.account_changed(account);
        return ok(json!({}));
    }
    if !state.accounts[account].tree.is_live_folder(id) {
        return Err(Failure::not_found());
    }
    state.change_row(account, id, |row| row.sort_by = order);
    ok(json!({}))
}

/// `POST /v2/files/remove-sort-by-settings`
pub(crate) async fn remove_sort_by(call: Call) -> Reply {
    let account = call.account()?;
    let mut state = call.shared.state();
    let sorted: Vec<i64> = state.accounts[account]
        .tree
        .rows()
        .filter(|row| row.sort_by.is_some())
        .map(|row| row.id)
        .collect();
    for id in sorted {
        state.change_row(account, id, |row| row.sort_by = None);
    }
    ok(json!({}))
}
