//! Listing folders, searching, and what a late or broken listing shows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::{Call, Failure, Params, Reply, ok};
use crate::dice::Dice;
use crate::faults::Fault;
use crate::model::{View, base};
use crate::options::{ListingOrder, Profile};
use crate::state::{AccountIndex, Cursor, CursorKind, State};
use crate::tree::{ROOT, Row};

/// Parent of what others share.
const SHARED: i64 = -2;

/// Longest query of a search.
const QUERY_CHARS_MAX: usize = 255;

/// `GET /v2/files/list`
pub(crate) async fn list(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let parent = params.number("parent_id")?.unwrap_or(ROOT);
    let profile = call.shared.profile();
    let per_page = per_page(&params, &profile)?;
    let mut state = call.shared.state();
    let view = View::new(&call, &params, &state, account);
    if parent == SHARED {
        let mut folder = base(SHARED, None, "Items shared with you", true);
        folder["folder_type"] = "SHARED_ROOT".into();
        return ok(json!({ "files": [], "parent": folder, "cursor": null, "total": 0 }));
    }
    let shown_parent = view.live(&state.accounts[account].tree, parent)?;
    let ids = match state.accounts[account].tree.live(parent) {
        Some(row) if !row.is_folder() => Vec::new(),
        _ => listed(&call, &params, &mut state, account, parent, &profile),
    };
    let total = ids.len();
    let kind = CursorKind::Files;
    let mut answer = page(&call, &params, &mut state, account, kind, Arc::new(ids), 0, per_page)?;
    answer["parent"] = shown_parent;
    if params.flag("total") {
        answer["total"] = total.into();
    }
    if params.flag("no_cursor") {
        answer["cursor"] = Value::Null;
    }
    if params.flag("breadcrumbs") {
        let mut crumbs = vec![json!([ROOT, "Your Files"])];
        let above = state.accounts[account].tree.above(parent);
        crumbs.extend(above.into_iter().map(|(id, name)| json!([id, name])));
        answer["breadcrumbs"] = crumbs.into();
    }
    if let Some(Fault::RenameDuringListing) = call.fault {
        let now = call.now();
        let victim = state.accounts[account].tree.children(parent).map(|row| row.id).last();
        if let Some(id) = victim {
            state.place_row(account, id, now, |row| row.name = format!("renamed-{}", row.name));
        }
    }
    ok(answer)
}

/// `POST /v2/files/list/continue`
pub(crate) async fn list_continue(call: Call, params: Params) -> Reply {
    go_on(&call, &params, CursorKind::Files)
}

/// `GET /v2/files/list/items-shared-with-you` and its older path.
pub(crate) async fn shared_with_you(call: Call) -> Reply {
    call.account()?;
    ok(json!({ "files": [], "cursor": null, "total": 0 }))
}

/// `GET /v2/files/search`
pub(crate) async fn search(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let query = params.text("query").unwrap_or_default().to_lowercase();
    if query.chars().count() > QUERY_CHARS_MAX {
        return Err(Failure::new(400, "SEARCH_TOO_LONG_QUERY", "The query is too long"));
    }
    let per_page = per_page(&params, &profile)?;
    let known_until = call.now() - milliseconds(profile.search_delay_milliseconds);
    let mut state = call.shared.state();
    let tree = &state.accounts[account].tree;
    let ids: Vec<i64> = tree
        .rows()
        .filter(|row| row.placed <= known_until && row.name.to_lowercase().contains(&query))
        .filter(|row| tree.live(row.id).is_some())
        .map(|row| row.id)
        .collect();
    let total = ids.len();
    let kind = CursorKind::Search;
    let mut answer = page(&call, &params, &mut state, account, kind, Arc::new(ids), 0, per_page)?;
    answer["total"] = total.into();
    ok(answer)
}

/// `POST /v2/files/search/continue`
pub(crate) async fn search_continue(call: Call, params: Params) -> Reply {
    go_on(&call, &params, CursorKind::Search)
}

fn go_on(call: &Call, params: &Params, kind: CursorKind) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let mut state = call.shared.state();
    let cursor = take_cursor(call, params, &state, account, kind)?;
    let per_page = match params.text("per_page") {
        Some(_) => per_page(params, &profile)?,
        None => cursor.per_page,
    };
    ok(page(call, params, &mut state, account, kind, cursor.ids, cursor.done, per_page)?)
}

/// The listing of the cursor that a request brings.
pub(crate) fn take_cursor(
    call: &Call,
    params: &Params,
    state: &State,
    account: AccountIndex,
    kind: CursorKind,
) -> Result<Cursor, Failure> {
    let bad = || Failure::bad_request("The cursor is invalid or has expired");
    if matches!(call.fault, Some(Fault::CursorExpired)) {
        return Err(bad());
    }
    let word = params.text("cursor").ok_or_else(bad)?;
    state.cursor(word, account, kind, call.now()).ok_or_else(bad)
}

/// Rows of a page: as asked for, and no more than the profile allows.
pub(crate) fn per_page(params: &Params, profile: &Profile) -> Result<usize, Failure> {
    let most = profile.page_rows_max.clamp(1, 1_000);
    match params.number("per_page") {
        Ok(None) => Ok(most),
        Ok(Some(number @ 1..)) => Ok(usize::try_from(number).unwrap_or(most).min(most)),
        _ => Err(Failure::new(400, "INVALID_PER_PAGE", "per_page is invalid")),
    }
}

/// Ids of a folder's listing, in order.
fn listed(
    call: &Call,
    params: &Params,
    state: &mut State,
    account: AccountIndex,
    parent: i64,
    profile: &Profile,
) -> Vec<i64> {
    let known_until = call.now() - delay(call, profile);
    let owner = &state.accounts[account];
    let mut seen = HashSet::new();
    // What left the folder too lately to be missed yet, as it was then.
    let mut rows: Vec<&Row> = owner
        .left
        .iter()
        .filter(|(at, row)| *at > known_until && row.placed <= known_until)
        .filter(|(_, row)| seen.insert(row.id) && row.parent == parent)
        .map(|(_, row)| row)
        .collect();
    rows.extend(
        owner
            .tree
            .children(parent)
            .filter(|row| row.placed <= known_until && !seen.contains(&row.id)),
    );
    if let Some(wanted) = params.text("content_type") {
        rows.retain(|row| base(0, None, &row.name, row.is_folder())["content_type"] == wanted);
    }
    if let Some(wanted) = params.text("file_type") {
        rows.retain(|row| {
            let kind = &base(0, None, &row.name, row.is_folder())["file_type"];
            wanted.split(',').any(|wanted| kind == wanted)
        });
    }
    let asked = params.text("sort_by").or_else(|| params.text("sort")).map(str::to_owned);
    let saved = || owner.tree.row(parent).and_then(|row| row.sort_by.clone());
    let order = match (asked.or_else(saved), profile.listing_order) {
        (Some(order), _) => order,
        (None, ListingOrder::Name) => {
            let setting = owner.settings.get("sort_by").and_then(Value::as_str);
            setting.unwrap_or("NAME_ASC").to_owned()
        }
        (None, ListingOrder::Id | ListingOrder::Shuffled) => "ID_ASC".to_owned(),
    };
    sort(&mut rows, &order);
    let mut ids: Vec<i64> = rows.into_iter().map(|row| row.id).collect();
    let is_shuffled = matches!(call.fault, Some(Fault::ShuffledRows))
        || (profile.listing_order == ListingOrder::Shuffled && params.text("sort_by").is_none());
    if is_shuffled {
        Dice::new(state.dice.next()).shuffle(&mut ids);
    }
    ids
}

fn sort(rows: &mut [&Row], order: &str) {
    let (what, direction) = order.rsplit_once('_').unwrap_or((order, "ASC"));
    match what.to_ascii_uppercase().as_str() {
        "SIZE" => rows.sort_by_key(|row| (row.size(), row.id)),
        "DATE" => rows.sort_by_key(|row| (row.created, row.id)),
        "MODIFIED" => rows.sort_by_key(|row| (row.updated, row.id)),
        "TYPE" => rows.sort_by_key(|row| (!row.is_folder(), row.name.clone(), row.id)),
        "ID" | "WATCH" => rows.sort_by_key(|row| row.id),
        _ => rows.sort_by_cached_key(|row| (row.name.to_lowercase(), row.id)),
    }
    if direction.eq_ignore_ascii_case("DESC") {
        rows.reverse();
    }
}

/// How late listings are, in milliseconds.
fn delay(call: &Call, profile: &Profile) -> i64 {
    match call.fault {
        Some(Fault::StaleListing { seconds }) => (seconds * 1000.0) as i64,
        _ => milliseconds(profile.listing_delay_milliseconds),
    }
}

fn milliseconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A page of a listing, with what faults do to it.
#[expect(clippy::too_many_arguments, reason = "a listing is all of these, and lives for one call")]
fn page(
    call: &Call,
    params: &Params,
    state: &mut State,
    account: AccountIndex,
    kind: CursorKind,
    ids: Arc<Vec<i64>>,
    done: usize,
    per_page: usize,
) -> Result<Value, Failure> {
    let profile = call.shared.profile();
    let end = ids.len().min(done.saturating_add(per_page));
    let view = View::new(call, params, state, account);
    let delay = delay(call, &profile);
    let known_until = call.now() - delay;
    let owner = &state.accounts[account];
    // Rows as a late listing still shows them: the earliest that left since then.
    let mut left: HashMap<i64, &Row> = HashMap::new();
    if delay > 0 && kind == CursorKind::Files {
        for (at, row) in owner.left.iter().rev() {
            if *at > known_until && row.placed <= known_until {
                left.insert(row.id, row);
            }
        }
    }
    let mut files: Vec<Value> = Vec::new();
    for id in &ids[done..end] {
        if let Some(row) = left.get(id).copied().or_else(|| owner.tree.live(*id)) {
            files.push(view.file(&owner.tree, row));
        }
    }
    match call.fault {
        Some(Fault::MissingRows { rows }) => {
            files.drain(..rows.min(files.len()));
        }
        Some(Fault::RepeatedRows { rows }) => {
            let last = files[files.len().saturating_sub(rows)..].to_vec();
            files.extend(last);
        }
        Some(Fault::DuplicateNames) => {
            for mut twin in files.clone() {
                twin["id"] = state.take_id().into();
                files.push(twin);
            }
        }
        Some(Fault::PhantomRows { rows }) => {
            let parent = params.number("parent_id")?;
            for _ in 0..rows {
                let id = state.take_id();
                let mut phantom = base(id, parent, &format!("phantom-{id}.bin"), false);
                phantom["size"] = 1_000.into();
                phantom["crc32"] = "deadbeef".into();
                files.push(phantom);
            }
        }
        _ => {}
    }
    let cursor = state.add_cursor(Cursor {
        account,
        kind,
        ids,
        done: end,
        per_page,
        expires: call.now().saturating_add(milliseconds(profile.cursor_seconds) * 1000),
    })?;
    Ok(json!({ "files": files, "cursor": cursor }))
}
