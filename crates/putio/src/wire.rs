//! The service's JSON as it comes: unknown keys are ignored, missing ones tolerated where a call
//! can do without.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::clock;
use crate::model::{
    Account, Disk, File, FileId, FileKind, ItemError, Settings, TokenInfo, TrashedFile,
};

const FOLDER_CONTENT_TYPE: &str = "application/x-directory";

/// An answer that says no more than that it is one.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {
    #[serde(default, rename = "status", deserialize_with = "no_error")]
    _status: (),
}

/// The envelope of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorEnvelope {
    #[serde(deserialize_with = "text")]
    pub(crate) status: Option<String>,
    #[serde(deserialize_with = "count")]
    pub(crate) status_code: Option<u64>,
    #[serde(deserialize_with = "text")]
    pub(crate) error_type: Option<String>,
    #[serde(deserialize_with = "text")]
    pub(crate) error_message: Option<String>,
    /// In place of `error_message` on some uploads.
    #[serde(deserialize_with = "text")]
    pub(crate) message: Option<String>,
    /// In place of `error_type` on sign-in.
    #[serde(deserialize_with = "text")]
    pub(crate) error: Option<String>,
    #[serde(deserialize_with = "count")]
    pub(crate) retry_after: Option<u64>,
    pub(crate) extra: Option<Value>,
}

impl ErrorEnvelope {
    /// What the body says about waiting, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let inside = self.extra.as_ref().and_then(|extra| number(extra.get("retry_after")?));
        self.retry_after.or(inside)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct FileAnswer {
    pub(crate) file: RawFile,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListAnswer {
    pub(crate) files: Vec<RawFile>,
    #[serde(default)]
    pub(crate) parent: Option<RawFile>,
    #[serde(default, deserialize_with = "cursor")]
    pub(crate) cursor: Option<String>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) trash_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MoveAnswer {
    #[serde(default, rename = "status", deserialize_with = "no_error")]
    _status: (),
    #[serde(default)]
    pub(crate) errors: Option<Vec<RawItemError>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DeleteAnswer {
    #[serde(default, rename = "status", deserialize_with = "no_error")]
    _status: (),
    #[serde(default, deserialize_with = "cursor")]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UrlAnswer {
    pub(crate) url: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AccountAnswer {
    pub(crate) info: RawAccount,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SettingsAnswer {
    pub(crate) settings: RawSettings,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CodeAnswer {
    pub(crate) code: String,
    #[serde(default, deserialize_with = "text")]
    pub(crate) qr_code_url: Option<String>,
}

/// No `Debug`: it holds a token.
#[derive(Deserialize)]
pub(crate) struct LinkAnswer {
    /// Present and null until the code is confirmed.
    pub(crate) oauth_token: Option<String>,
}

/// No `Debug`: it holds a token.
#[derive(Deserialize)]
pub(crate) struct ExchangeAnswer {
    pub(crate) access_token: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ValidateAnswer {
    #[serde(default)]
    result: Option<bool>,
    #[serde(default)]
    token_id: Option<i64>,
    #[serde(default, deserialize_with = "text")]
    token_scope: Option<String>,
    #[serde(default)]
    user_id: Option<i64>,
}

impl From<ValidateAnswer> for TokenInfo {
    fn from(raw: ValidateAnswer) -> Self {
        Self {
            is_valid: raw.result.unwrap_or(raw.user_id.is_some()),
            token_id: raw.token_id,
            scope: raw.token_scope,
            user_id: raw.user_id,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawFile {
    id: FileId,
    #[serde(default)]
    parent_id: Option<FileId>,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "count")]
    size: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    content_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    file_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    crc32: Option<String>,
    #[serde(default, deserialize_with = "text")]
    created_at: Option<String>,
    #[serde(default, deserialize_with = "text")]
    updated_at: Option<String>,
    #[serde(default, deserialize_with = "text")]
    deleted_at: Option<String>,
    #[serde(default, deserialize_with = "text")]
    expiration_date: Option<String>,
}

impl RawFile {
    pub(crate) const fn id(&self) -> FileId {
        self.id
    }

    fn kind(&self) -> FileKind {
        let is_folder = match (&self.content_type, &self.file_type) {
            (Some(content_type), _) => content_type == FOLDER_CONTENT_TYPE,
            (None, file_type) => file_type.as_deref() == Some("FOLDER"),
        };
        if is_folder { FileKind::Folder } else { FileKind::File }
    }
}

impl From<RawFile> for File {
    fn from(raw: RawFile) -> Self {
        let kind = raw.kind();
        let time = |text: &Option<String>| text.as_deref().and_then(clock::parse_time);
        Self {
            id: raw.id,
            parent_id: raw.parent_id,
            size: raw.size.unwrap_or(0),
            kind,
            crc32: raw.crc32.as_deref().and_then(parse_crc32),
            created_at: time(&raw.created_at),
            updated_at: time(&raw.updated_at),
            name: raw.name.unwrap_or_default(),
        }
    }
}

impl From<RawFile> for TrashedFile {
    fn from(raw: RawFile) -> Self {
        let kind = raw.kind();
        let time = |text: &Option<String>| text.as_deref().and_then(clock::parse_time);
        Self {
            id: raw.id,
            parent_id: raw.parent_id,
            size: raw.size.unwrap_or(0),
            kind,
            deleted_at: time(&raw.deleted_at),
            expires_at: time(&raw.expiration_date),
            name: raw.name.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawItemError {
    id: FileId,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    error_type: Option<String>,
    #[serde(default, deserialize_with = "count")]
    status_code: Option<u64>,
}

impl From<RawItemError> for ItemError {
    fn from(raw: RawItemError) -> Self {
        Self {
            id: raw.id,
            name: raw.name,
            error_type: raw.error_type,
            status: raw.status_code.and_then(|status| u16::try_from(status).ok()),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawAccount {
    user_id: i64,
    #[serde(default, deserialize_with = "text")]
    username: Option<String>,
    #[serde(default, deserialize_with = "text")]
    mail: Option<String>,
    disk: RawDisk,
    #[serde(default, deserialize_with = "count")]
    trash_size: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    account_status: Option<String>,
    #[serde(default)]
    account_active: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    files_will_be_deleted_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawDisk {
    #[serde(default, deserialize_with = "count")]
    avail: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    size: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    used: Option<u64>,
}

impl From<RawAccount> for Account {
    fn from(raw: RawAccount) -> Self {
        let words = |is_active| if is_active { "active" } else { "inactive" };
        let (size, used) = (raw.disk.size.unwrap_or(0), raw.disk.used.unwrap_or(0));
        Self {
            user_id: raw.user_id,
            username: raw.username.unwrap_or_default(),
            mail: raw.mail,
            disk: Disk {
                available: raw.disk.avail.unwrap_or_else(|| size.saturating_sub(used)),
                size,
                used,
            },
            trash_size: raw.trash_size,
            status: raw.account_status.or_else(|| raw.account_active.map(words).map(String::from)),
            files_will_be_deleted_at: raw.files_will_be_deleted_at,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawSettings {
    #[serde(default)]
    trash_enabled: Option<bool>,
    #[serde(default)]
    default_download_folder: Option<FileId>,
}

impl From<RawSettings> for Settings {
    fn from(raw: RawSettings) -> Self {
        Self {
            trash_enabled: raw.trash_enabled,
            default_download_folder: raw.default_download_folder,
        }
    }
}

/// Reads a checksum: up to eight hexadecimal digits.
pub(crate) fn parse_crc32(text: &str) -> Option<u32> {
    let text = text.trim();
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (1..=8).contains(&text.len()) { u32::from_str_radix(text, 16).ok() } else { None }
}

/// A text, or nothing in place of whatever else is there.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

/// Where it goes on, or nothing at the end. What is neither must not be taken for the end: nobody would
/// notice what is missing.
fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Value::Number(number) if !number.is_f64() => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("the cursor is neither a text nor a whole number")),
    }
}

/// A status other than that of an error. It has been missing at times.
fn no_error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match text(deserializer)?.as_deref() {
        Some("ERROR") => Err(serde::de::Error::custom("the answer is an error")),
        _ => Ok(()),
    }
}

/// A number that is not negative, also written as a text or with a fraction.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(number(&Value::deserialize(deserializer)?))
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let value = number.as_f64().filter(|value| value.is_finite() && *value >= 0.0)?;
            Some(value as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn file(json: &str) -> File {
        serde_json::from_str::<RawFile>(json).unwrap().into()
    }

    #[test]
    fn a_full_row_is_read() {
        let file = file(
            r#"{"id": 9007199254740993, "parent_id": 0, "name": "a", "size": 12,
                "content_type": "application/octet-stream", "file_type": "FILE",
                "crc32": "0000beef", "created_at": "1970-01-01T00:01:00", "sha1": null,
                "updated_at": "1970-01-01 00:02:00", "surprise": {"a": [1]}}"#,
        );
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(file.id, FileId(9_007_199_254_740_993));
        assert_eq!(file.parent_id, Some(FileId::ROOT));
        assert_eq!(file.crc32, Some(0xbeef));
        assert_eq!(file.created_at, at(60));
        assert_eq!(file.updated_at, at(120));
        assert_eq!(file.kind, FileKind::File);
    }

    #[test]
    fn a_row_can_do_without_most_keys() {
        let file = file(
            r#"{"id": 5, "crc32": "", "size": "77", "updated_at": null, "file_type": "FOLDER"}"#,
        );
        assert_eq!((file.size, file.crc32, file.updated_at), (77, None, None));
        assert!(file.is_folder());
        assert!(serde_json::from_str::<RawFile>(r#"{"name": "no id"}"#).is_err());
    }

    #[test]
    fn checksums_that_are_none_are_not_taken_for_one() {
        assert_eq!(parse_crc32("00000000"), Some(0));
        assert_eq!(parse_crc32("FFFFFFFF"), Some(u32::MAX));
        for bad in ["", "+1", "123456789", "xyz", "-1"] {
            assert_eq!(parse_crc32(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_is_no_cursor_ends_a_listing() {
        let list = |cursor: &str| {
            let json = format!(r#"{{"files": []{cursor}}}"#);
            serde_json::from_str::<ListAnswer>(&json).map(|answer| answer.cursor)
        };
        let delete = |cursor: &str| {
            let json = format!(r#"{{"status": "OK"{cursor}}}"#);
            serde_json::from_str::<DeleteAnswer>(&json).map(|answer| answer.cursor)
        };
        for (cursor, expected) in [
            ("", None),
            (r#", "cursor": null"#, None),
            (r#", "cursor": """#, None),
            (r#", "cursor": "abc""#, Some("abc")),
            (r#", "cursor": 12345"#, Some("12345")),
            (r#", "cursor": 18446744073709551615"#, Some("18446744073709551615")),
        ] {
            assert_eq!(list(cursor).unwrap().as_deref(), expected, "{cursor}");
            assert_eq!(delete(cursor).unwrap().as_deref(), expected, "{cursor}");
        }
        for bad in ["true", "false", "[]", "{}", "1.5", "98765432109876543210"] {
            let cursor = format!(r#", "cursor": {bad}"#);
            assert!(list(&cursor).is_err() && delete(&cursor).is_err(), "{bad}");
        }
    }

    #[test]
    fn accounts_of_older_servers_are_read() {
        let json =
            r#"{"info": {"user_id": 1, "account_active": true, "disk": {"size": 10, "used": 4}}}"#;
        let account: Account = serde_json::from_str::<AccountAnswer>(json).unwrap().info.into();
        assert_eq!(account.disk, Disk { available: 6, size: 10, used: 4 });
        assert_eq!(account.status.as_deref(), Some("active"));
    }
}
