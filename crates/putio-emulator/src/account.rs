//! The account: space, settings, and what an application keeps in it.

use axum::extract::Path;
use serde_json::{Map, Value, json};

use crate::call::{Call, Failure, Params, Reply, ok};
use crate::dice::random_word;
use crate::faults::Fault;
use crate::trash;

/// `GET /v2/account/info`
pub(crate) async fn info(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let profile = call.shared.profile();
    let mut state = call.shared.state();
    let owner = &state.accounts[account];
    let used = owner.used(&profile);
    let available = match call.fault {
        Some(Fault::WrongSpace { available_bytes }) => available_bytes,
        _ => owner.quota.saturating_sub(used),
    };
    let mut info = json!({
        "user_id": owner.user_id,
        "username": owner.name,
        "mail": format!("{}@example.com", owner.name),
        "avatar_url": "https://static.put.io/avatar.png",
        "disk": { "avail": available, "size": owner.quota, "used": used },
        "trash_size": owner.tree.trash_bytes(),
        "account_status": if owner.deletion.is_some() { "inactive" } else { "active" },
        "account_active": owner.deletion.is_none(),
        "files_will_be_deleted_at": owner.deletion,
        "monthly_bandwidth_usage": 0,
        "is_sub_account": false,
        "can_create_sub_account": false,
        "is_eligible_for_friend_invitation": false,
        "family_owner": null,
        "private_download_host_ip": null,
        "password_last_changed_at": null,
        "plan_expiration_date": "2037-01-01T00:00:00",
        "days_until_files_deletion": 0,
        "simultaneous_download_limit": 10,
        "subtitle_languages": [],
        "has_voucher": false,
        "oauth_token_id": null,
        "warnings": {},
        "settings": owner.settings,
    });
    if params.flag("download_token") {
        let token = random_word()?;
        state.add_token(&token, account, "files_download", "1");
        info["download_token"] = token.into();
    }
    ok(json!({ "info": info }))
}

/// `GET /v2/account/settings`
pub(crate) async fn settings(call: Call) -> Reply {
    let account = call.account()?;
    ok(json!({ "settings": call.shared.state().accounts[account].settings }))
}

/// `POST /v2/account/settings`
pub(crate) async fn set_settings(call: Call, params: Params) -> Reply {
    let account = call.account()?;
    let mut state = call.shared.state();
    let known: Vec<String> = state.accounts[account].settings.keys().cloned().collect();
    for name in known {
        let sent = params.json.as_ref().and_then(|body| body.get(&name)).cloned();
        let old = &state.accounts[account].settings[&name];
        let value = match (sent, params.text(&name)) {
            (Some(value), _) => value,
            (None, Some(_)) if old.is_boolean() => params.flag(&name).into(),
            (None, Some(_)) if old.is_number() => params.number(&name)?.into(),
            (None, Some(text)) => text.into(),
            (None, None) => continue,
        };
        if name == "trash_enabled" {
            let Some(is_enabled) = value.as_bool() else {
                return Err(Failure::bad_request("trash_enabled is neither true nor false"));
            };
            // Who turns the trash off empties it.
            if !is_enabled {
                trash::empty_now(&mut state, account, call.now());
            }
        }
        state.accounts[account].settings.insert(name, value);
    }
    state.account_changed(account);
    ok(json!({}))
}

/// The application that asks, whose values nobody else sees.
fn app(call: &Call) -> String {
    call.identity.as_ref().map(|identity| identity.app.clone()).unwrap_or_default()
}

fn config_of(call: &Call) -> Result<Map<String, Value>, Failure> {
    let account = call.account()?;
    let state = call.shared.state();
    let config = state.accounts[account].config.get(&app(call)).and_then(Value::as_object);
    Ok(config.cloned().unwrap_or_default())
}

fn set_config_of(call: &Call, config: Map<String, Value>) -> Result<(), Failure> {
    let account = call.account()?;
    let mut state = call.shared.state();
    state.accounts[account].config.insert(app(call), config.into());
    state.account_changed(account);
    Ok(())
}

/// `GET /v2/config`
pub(crate) async fn config(call: Call) -> Reply {
    ok(json!({ "config": config_of(&call)? }))
}

/// `PUT /v2/config`
pub(crate) async fn set_config(call: Call, params: Params) -> Reply {
    let config =
        params.json.as_ref().and_then(|body| body.get("config")).and_then(Value::as_object);
    let config = config.ok_or_else(|| Failure::bad_request("config is no object"))?;
    set_config_of(&call, config.clone())?;
    ok(json!({}))
}

/// `GET /v2/config/KEY`
pub(crate) async fn config_value(call: Call, Path(key): Path<String>) -> Reply {
    let config = config_of(&call)?;
    ok(json!({ "value": config.get(&key).ok_or_else(Failure::not_found)? }))
}

/// `PUT /v2/config/KEY`
pub(crate) async fn set_config_value(call: Call, Path(key): Path<String>, params: Params) -> Reply {
    let sent = params.json.as_ref().and_then(|body| body.get("value")).cloned();
    let value = sent
        .or_else(|| params.raw("value").map(Value::from))
        .ok_or_else(|| Failure::bad_request("value is missing"))?;
    let mut config = config_of(&call)?;
    config.insert(key, value);
    set_config_of(&call, config)?;
    ok(json!({}))
}

/// `DELETE /v2/config/KEY`
pub(crate) async fn remove_config_value(call: Call, Path(key): Path<String>) -> Reply {
    let mut config = config_of(&call)?;
    config.remove(&key).ok_or_else(Failure::not_found)?;
    set_config_of(&call, config)?;
    ok(json!({}))
}

/// `GET /v2/events/list`
pub(crate) async fn events(call: Call) -> Reply {
    call.account()?;
    ok(json!({ "events": [], "has_more": false }))
}

/// `GET /v2/transfers/list`: what torrents became that nobody protected.
pub(crate) async fn transfers(call: Call) -> Reply {
    let account = call.account()?;
    let state = call.shared.state();
    let transfers = &state.accounts[account].transfers;
    ok(json!({ "transfers": transfers, "cursor": null, "total": transfers.len() }))
}

/// `GET /v2/transfers/count`
pub(crate) async fn transfer_count(call: Call) -> Reply {
    let account = call.account()?;
    ok(json!({ "count": call.shared.state().accounts[account].transfers.len() }))
}

/// `GET /v2/zips/list`
pub(crate) async fn zips(call: Call) -> Reply {
    call.account()?;
    ok(json!({ "zips": [] }))
}

/// `GET /v2/friends/list` and the lists beside it.
pub(crate) async fn friends(call: Call) -> Reply {
    call.account()?;
    ok(json!({ "friends": [], "total": 0, "cursor": null }))
}
