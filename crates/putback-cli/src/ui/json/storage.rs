//! What commands about storages print, and what storages over a network add to other commands.

use serde::Serialize;

use crate::ui::remote::Traffic;

/// An object with what the storages did so far; without, where all is local.
#[derive(Serialize)]
pub(crate) struct WithTraffic<'a, T: Serialize> {
    #[serde(flatten)]
    pub(crate) object: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traffic: Option<Traffic>,
}

/// A storage asks for patience.
#[derive(Serialize)]
pub(crate) struct Waiting<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) storage: &'a str,
    pub(crate) seconds: f64,
    pub(crate) reason: &'static str,
}

/// A request failed and is sent again.
#[derive(Serialize)]
pub(crate) struct Retrying<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) storage: &'a str,
    pub(crate) call: &'a str,
    pub(crate) attempt: u32,
    pub(crate) seconds: f64,
    pub(crate) error: &'a str,
}

/// Somebody is to confirm a code.
#[derive(Serialize)]
pub(crate) struct DeviceCode<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) code: &'a str,
    pub(crate) link: &'a str,
    pub(crate) link_with_code: &'a str,
    pub(crate) seconds: u64,
}

/// Somebody is to open an address in a browser of this machine.
#[derive(Serialize)]
pub(crate) struct BrowserSignIn<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) link: &'a str,
    pub(crate) redirect: &'a str,
    pub(crate) seconds: u64,
}

/// What `login`, `storage add`, `storage reconnect` and `storage remove` report.
#[derive(Serialize)]
pub(crate) struct StorageChange {
    pub(crate) message_type: &'static str,
    pub(crate) action: &'static str,
    pub(crate) storage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<Account>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_revoked: Option<bool>,
}

/// Whose storage it is, and its space.
#[derive(Serialize)]
pub(crate) struct Account {
    pub(crate) username: String,
    pub(crate) user_id: i64,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_used: u64,
    pub(crate) bytes_free: u64,
}

/// A storage in a listing, or by itself.
#[derive(Serialize)]
pub(crate) struct Storage {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    pub(crate) token_source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_exists: Option<bool>,
    pub(crate) is_configured: bool,
    pub(crate) settings: Vec<super::Setting>,
}

/// What `storage about` prints.
#[derive(Serialize)]
pub(crate) struct About {
    pub(crate) storage: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) username: String,
    pub(crate) user_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_used: u64,
    pub(crate) bytes_free: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_trash: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files_will_be_deleted_at: Option<String>,
}
