//! What an emulator is started with: accounts, storage, speed, and the points in which put.io may
//! behave in more than one way.
//!
//! [`Profile`] holds one switch for each behaviour of the service that is not known for certain, or
//! that has changed; its default is what clients have been seen to rely on. Faults are no
//! switches: they are rules, in [`crate::faults`].

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::FaultRule;

/// Everything an emulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Accounts that exist from the start.
    pub accounts: Vec<AccountOptions>,
    /// Applications that may ask people to sign in.
    pub clients: Vec<ClientOptions>,
    /// What happens when an application asks for a sign-in.
    pub approval: Approval,
    /// Where files and unfinished uploads are.
    pub storage: Storage,
    /// Added to each request before its answer begins.
    pub latency: Duration,
    /// Added to each new connection before its first byte is read.
    pub connect_latency: Duration,
    /// Speed of the one line that all request bodies share.
    pub upload_bytes_per_second: Option<u64>,
    /// Speed of the one line that all answers share.
    pub download_bytes_per_second: Option<u64>,
    /// How this put.io behaves where more than one way is possible.
    pub profile: Profile,
    /// Limits on the number of requests; empty for none.
    pub rate_limits: Vec<RateLimit>,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` on every answer of a limited group, not only
    /// on refusals.
    pub rate_headers: bool,
    /// A request received this soon after an answer that advertised a reset may have been on its
    /// way already, and is no violation.
    pub violation_grace: Duration,
    /// Faults from the start.
    pub faults: Vec<FaultRule>,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How far the service's clock is ahead of this machine's, in seconds; negative for behind.
    pub clock_skew_seconds: i64,
    /// Address that all ports are opened on.
    pub address: std::net::IpAddr,
    /// Origin of the links that are handed out by plain HTTP, if it is not that of its port.
    pub external_url: Option<String>,
    /// Port of plain HTTP, where all services share one origin; 0 for any.
    pub http_port: u16,
    /// Port of the CONNECT proxy that is `put.io` and `*.put.io` with TLS; 0 for any.
    pub proxy_port: Option<u16>,
    /// Port that speaks TLS at once, for those who steer the names here by other means; 0 for any.
    pub tls_port: Option<u16>,
    /// Port of the admin side channel; 0 for any. The methods of
    /// [`Emulator`](crate::Emulator) need none.
    pub admin_port: Option<u16>,
    /// One line on standard error for each request.
    pub verbose: bool,
}

impl Default for Options {
    /// One account, `user` with the token `emulator-token`, in memory, without limits or delays, on
    /// ports of 127.0.0.1 that the system chooses, without proxy.
    fn default() -> Self {
        Self {
            accounts: vec![AccountOptions::new("user", "emulator-token")],
            clients: vec![ClientOptions::default()],
            approval: Approval::Automatic,
            storage: Storage::Memory,
            latency: Duration::ZERO,
            connect_latency: Duration::ZERO,
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            profile: Profile::default(),
            rate_limits: Vec::new(),
            rate_headers: false,
            violation_grace: Duration::from_millis(100),
            faults: Vec::new(),
            seed: 0,
            clock_skew_seconds: 0,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            external_url: None,
            http_port: 0,
            proxy_port: None,
            tls_port: None,
            admin_port: None,
            verbose: false,
        }
    }
}

/// An account of the emulated service.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct AccountOptions {
    /// User name; also how tests name the account.
    pub name: String,
    /// A token that may do everything.
    pub token: String,
    /// For sign-in by name and password; none refuses it.
    #[serde(default)]
    pub password: Option<String>,
    /// Space of the plan.
    #[serde(default = "default_quota")]
    pub quota_bytes: u64,
    /// Numeric id; 0 lets the emulator choose.
    #[serde(default)]
    pub user_id: u64,
}

/// 1 TB, the smallest plan that put.io has offered for years.
fn default_quota() -> u64 {
    1_000_000_000_000
}

impl AccountOptions {
    /// An account with 1 TB.
    pub fn new(name: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            token: token.into(),
            password: None,
            quota_bytes: default_quota(),
            user_id: 0,
        }
    }
}

impl std::fmt::Debug for AccountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountOptions")
            .field("name", &self.name)
            .field("quota_bytes", &self.quota_bytes)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// An application that is registered with the emulated service.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct ClientOptions {
    /// Number that names the application.
    pub client_id: String,
    /// What it proves itself with when it exchanges a code.
    pub client_secret: String,
    /// Where people may be sent back to.
    pub redirect_uris: Vec<String>,
}

impl Default for ClientOptions {
    /// Application `1000` with the secret `emulator-secret`, which waits for its browser on port
    /// 53682 of this machine.
    fn default() -> Self {
        Self {
            client_id: "1000".to_owned(),
            client_secret: "emulator-secret".to_owned(),
            redirect_uris: ["http://localhost:53682/", "http://127.0.0.1:53682/"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("client_id", &self.client_id)
            .field("redirect_uris", &self.redirect_uris)
            .finish_non_exhaustive()
    }
}

/// What happens when an application asks for a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The first account agrees: the page redirects at once, and a device code is linked after it
    /// has been polled once without success.
    Automatic,
    /// A person agrees on the page, or a test through
    /// [`Emulator::approve_code`](crate::Emulator::approve_code).
    Manual,
}

/// Where files and unfinished uploads are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory; gone with the emulator.
    Memory,
    /// In a directory that a later emulator can go on with. Each received byte is in it at once,
    /// so that it outlives the process (not the machine: nothing is synced).
    Directory(PathBuf),
}

/// So many requests of a group in so much time, counted for each token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Group of endpoints: `list`, `read`, `write`, `delete`, `trash`, `account`, `oauth`, `upload`,
    /// `download`, `other`; `*` limits each of them by itself, `all` their sum.
    pub group: String,
    /// Requests in one window.
    pub requests: u32,
    /// Length of a window. The reset is advertised in whole seconds, rounded up.
    pub window_seconds: f64,
}

/// Where put.io may behave in more than one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Ids of new files are above this. They grow strictly. Looked at when the emulator starts.
    pub first_id: i64,
    /// Most rows on one page of a listing, whatever was asked for: 1 to 1000.
    pub page_rows_max: usize,
    /// After so long a cursor is refused with 400.
    pub cursor_seconds: u64,
    /// Order of a listing that asked for none.
    pub listing_order: ListingOrder,
    /// What `size` says of a folder.
    pub folder_size: FolderSize,
    /// What is done to names before they are stored.
    pub names: Names,
    /// Which names are the same for `child` and for the refusal of a second name.
    pub collation: Collation,
    /// Which of several rows of one name `child` returns.
    pub child_pick: ChildPick,
    /// What a move onto a name that is taken does.
    pub move_clash: MoveClash,
    /// Whether `copy` copies folders with all they hold, or refuses them.
    pub copies_folders: bool,
    /// What becomes of the old row when `overwrite=true` replaces it.
    pub overwritten: Overwritten,
    /// When an upload of no bytes becomes a file.
    pub empty_upload: EmptyUpload,
    /// HEAD on a finished upload: 200 with the full offset, or 404 if it is forgotten.
    pub forgets_finished_uploads: bool,
    /// Whether `disk.used` counts what is in the trash.
    pub trash_counts: bool,
    /// Whether deleted files go to the trash, until the account says otherwise.
    pub trash_enabled: bool,
    /// How long a trash operation holds the account's lock; another one meanwhile fails.
    pub trash_operation_milliseconds: u64,
    /// How long a restore is queued.
    pub restore_milliseconds: u64,
    /// Rows in a `delete` beyond this many are left for its cursor; 0 for no limit.
    pub delete_rows_max: usize,
    /// How long a new file cannot be found by searching.
    pub search_delay_milliseconds: u64,
    /// How long a change is missing from listings. Lookups by id and by name see it at once.
    pub listing_delay_milliseconds: u64,
    /// How long a download link works.
    pub link_seconds: u64,
    /// Refuse a storage request that bears an `Authorization` header (401 `invalid_scope`).
    /// `putio.py` sends one.
    pub strict_storage: bool,
    /// Refuse HTTP Basic when a code is exchanged for a token.
    pub refuses_basic: bool,
    /// A linked device code yields its token once; later polls get 404.
    pub code_once: bool,
    /// How long a device code waits to be linked.
    pub code_seconds: u64,
    /// Offer HTTP/2 to those who speak TLS. Looked at when the emulator starts, not later.
    pub http2: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            first_id: 1_000,
            page_rows_max: 1_000,
            cursor_seconds: 600,
            listing_order: ListingOrder::Name,
            folder_size: FolderSize::Computed,
            names: Names::AsSent,
            collation: Collation::Exact,
            child_pick: ChildPick::Lowest,
            move_clash: MoveClash::Error,
            copies_folders: true,
            overwritten: Overwritten::Removed,
            empty_upload: EmptyUpload::OnCreate,
            forgets_finished_uploads: false,
            trash_counts: true,
            trash_enabled: true,
            trash_operation_milliseconds: 0,
            restore_milliseconds: 0,
            delete_rows_max: 0,
            search_delay_milliseconds: 0,
            listing_delay_milliseconds: 0,
            link_seconds: 3_600,
            strict_storage: false,
            refuses_basic: false,
            code_once: true,
            code_seconds: 600,
            http2: false,
        }
    }
}

impl Profile {
    /// As the service is believed to be where that is worse than the default: names are changed,
    /// lookups are loose, storage is strict, ids are beyond 32 bits.
    pub fn realistic() -> Self {
        Self {
            first_id: 5_000_000_000,
            names: Names::Changed,
            collation: Collation::Loose,
            strict_storage: true,
            restore_milliseconds: 500,
            ..Self::default()
        }
    }

    /// Everything uncertain as bad as it may be, without a fault: small pages, late listings,
    /// duplicates, forgetful uploads.
    pub fn hostile() -> Self {
        Self {
            page_rows_max: 7,
            listing_order: ListingOrder::Shuffled,
            folder_size: FolderSize::Zero,
            child_pick: ChildPick::Random,
            move_clash: MoveClash::Duplicate,
            copies_folders: false,
            overwritten: Overwritten::Trashed,
            empty_upload: EmptyUpload::OnPatch,
            forgets_finished_uploads: true,
            delete_rows_max: 5,
            listing_delay_milliseconds: 300,
            search_delay_milliseconds: 2_000,
            ..Self::realistic()
        }
    }
}

/// Order of a listing that asked for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingOrder {
    /// By name.
    Name,
    /// By id.
    Id,
    /// Another one each time.
    Shuffled,
}

/// What `size` says of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderSize {
    /// The sum of all that it holds.
    Computed,
    /// Nothing.
    Zero,
}

/// What is done to names before they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// Nothing.
    AsSent,
    /// `\` becomes `-`, and percent sequences are decoded.
    Changed,
}

/// Which names are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collation {
    /// Those of equal bytes.
    Exact,
    /// Those that differ in case, in the composition of accents, or in trailing spaces, too.
    Loose,
}

/// Which of several rows of one name `child` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildPick {
    /// The oldest.
    Lowest,
    /// The latest.
    Highest,
    /// Any, another one each time.
    Random,
}

/// What a move onto a name that is taken does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveClash {
    /// It is listed among the answer's errors.
    Error,
    /// It happens: two rows have one name.
    Duplicate,
}

/// What becomes of the old row when an upload replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwritten {
    /// It is gone; the new row has a new id.
    Removed,
    /// It goes to the trash; the new row has a new id.
    Trashed,
    /// It gets the new bytes and keeps its id.
    SameId,
}

/// When an upload of no bytes becomes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyUpload {
    /// When it is created. An empty PATCH is answered all the same.
    OnCreate,
    /// With the first empty PATCH.
    OnPatch,
}
