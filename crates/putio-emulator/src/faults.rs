//! Faults: rules that say which requests fail, and how.
//!
//! A rule matches requests by method, service, host and path; its counters and its dice then decide
//! whether its fault happens. The first rule whose fault happens wins. Dice depend on the seed, the
//! rule and the number of the hit alone, so that a sequence of requests meets the same faults
//! again. Rules are serde types: a test builds them, the admin side channel takes them as JSON.

use serde::{Deserialize, Serialize};

mod rules;
mod storm;

pub(crate) use rules::{Facts, Faults, Point, is_match};
pub use storm::storm;

/// Which requests fail, and how.
///
/// ```
/// use putio_emulator::faults::{Fault, FaultRule};
/// // The second PATCH is cut after 1000 bytes.
/// let rule = FaultRule::new(Fault::CutRequest { after_bytes: 1000, reset: true })
///     .method("PATCH")
///     .path("/files/*")
///     .nth(2);
/// let json = r#"{"method": "PATCH", "path": "/files/*", "nth": 2,
///                "fault": {"kind": "cut_request", "after_bytes": 1000, "reset": true}}"#;
/// assert_eq!(rule, serde_json::from_str(json).unwrap());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What happens.
    pub fault: Fault,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests whose path matches this pattern, in which `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// No requests whose path matches one of these patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Only requests whose `Host` matches this pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only requests to this service, whichever host it is reached by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Only requests of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Only the hit of this number, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Only hits from this number on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only hits up to and with this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Of the hits that are left, this share, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Seed of the dice; the emulator's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The fault happens so many times, and then never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Later rules are not asked about a request that this one matches, even if its fault does not
    /// happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_last: bool,
}

impl FaultRule {
    /// A fault of every request.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            path: None,
            except: Vec::new(),
            host: None,
            service: None,
            account: None,
            nth: None,
            from: None,
            to: None,
            probability: None,
            seed: None,
            times: None,
            is_last: false,
        }
    }

    /// Only requests of this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path matches; `*` stands for any characters.
    pub fn path(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }

    /// No requests whose path matches.
    pub fn except(mut self, pattern: &str) -> Self {
        self.except.push(pattern.to_owned());
        self
    }

    /// Only requests whose `Host` matches; `*` stands for any characters.
    pub fn host(mut self, pattern: &str) -> Self {
        self.host = Some(pattern.to_owned());
        self
    }

    /// Only requests to this service.
    pub fn service(mut self, service: Service) -> Self {
        self.service = Some(service);
        self
    }

    /// Only requests of this account.
    pub fn account(mut self, name: &str) -> Self {
        self.account = Some(name.to_owned());
        self
    }

    /// Only the hit of this number, counted from 1.
    pub fn nth(mut self, number: u64) -> Self {
        self.nth = Some(number);
        self
    }

    /// Only hits from this number on.
    pub fn from(mut self, number: u64) -> Self {
        self.from = Some(number);
        self
    }

    /// Only hits up to and with this number.
    pub fn to(mut self, number: u64) -> Self {
        self.to = Some(number);
        self
    }

    /// Of the hits that are left, this share.
    pub fn probability(mut self, share: f64, seed: u64) -> Self {
        self.probability = Some(share);
        self.seed = Some(seed);
        self
    }

    /// So many times, and then never again.
    pub fn times(mut self, count: u64) -> Self {
        self.times = Some(count);
        self
    }

    /// Later rules are not asked about what this one matches.
    pub fn last(mut self) -> Self {
        self.is_last = true;
        self
    }
}

/// One of put.io's services, which share a host where the emulator is reached by plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// `api.put.io`: everything below `/v2` but uploads.
    Api,
    /// `upload.put.io`: `/files/` and `/v2/files/upload`.
    Upload,
    /// `s01.put.io` and the like: `/download/`.
    Storage,
    /// `app.put.io`: pages for people.
    App,
    /// `socket.put.io`: notifications.
    Socket,
}

/// The body of a made-up error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// put.io's envelope.
    #[default]
    Json,
    /// The page of a gateway.
    Html,
    /// Nothing at all.
    Empty,
}

/// How a checksum is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingChecksum {
    /// `null`.
    #[default]
    Null,
    /// `""`.
    Empty,
    /// The checksum of other bytes.
    Wrong,
}

/// What happens to a request.
///
/// "Executed" means that the request has had its effect. A fault that only some requests can have
/// (such as [`Fault::CutDownload`]) leaves others alone, though its rule counts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    // --- limits ---
    /// 429. Not executed.
    RateLimited {
        /// `X-RateLimit-Reset` so many seconds from now, rounded up to a whole second; negative for
        /// the past. Absent: no such header.
        #[serde(default)]
        reset_in_seconds: Option<f64>,
        /// `Retry-After`.
        #[serde(default)]
        retry_after_seconds: Option<u64>,
        /// `X-RateLimit-Action: captcha-needed` and `X-RateLimit-Id`.
        #[serde(default)]
        captcha: bool,
        /// Refuse all requests of the token until the reset, as a real window does.
        #[serde(default)]
        holds: bool,
    },

    // --- errors of the service ---
    /// This status, such as 500, 502, 503 or 504.
    Status {
        /// The HTTP status.
        status: u16,
        /// What the body is.
        #[serde(default)]
        body: ErrorBody,
        /// `error_type`, if the body is JSON.
        #[serde(default)]
        error_type: Option<String>,
        /// The request is executed, and its answer replaced.
        #[serde(default)]
        executed: bool,
    },
    /// `application/json` that is none, at least 250 bytes of it. Executed.
    InvalidJson,
    /// The answer's body ends in the middle, and its length says so. Executed.
    TruncatedJson,
    /// The answer with another `Content-Type`. Executed.
    ContentType {
        /// The whole header.
        content_type: String,
    },

    // --- connections ---
    /// The connection is reset before the request is executed.
    ResetBefore,
    /// The request is executed, and the connection reset in place of an answer.
    ResetAfter,
    /// The connection is closed without an answer; executed or not.
    Close {
        /// The request is executed first.
        #[serde(default)]
        executed: bool,
    },
    /// The answer begins late. Executed when the delay is over.
    Slow {
        /// How late.
        milliseconds: u64,
    },
    /// The answer's body comes at this speed. Executed.
    Trickle {
        /// The speed.
        bytes_per_second: u64,
    },
    /// No answer, with the connection open.
    Hang {
        /// The request is executed first.
        #[serde(default)]
        executed: bool,
        /// The connection is closed after this time; never without it.
        #[serde(default)]
        milliseconds: Option<u64>,
    },

    // --- bodies ---
    /// An answer's body ends after so many bytes, though its length promises more. On any answer
    /// that has a body. Executed.
    CutResponse {
        /// Bytes that arrive.
        after_bytes: u64,
        /// A reset in place of an orderly end.
        #[serde(default)]
        reset: bool,
    },
    /// As [`Fault::CutResponse`], but of downloads alone.
    CutDownload {
        /// Bytes that arrive.
        after_bytes: u64,
        /// No `Content-Length`: the end of a chunked body is missing.
        #[serde(default)]
        chunked: bool,
        /// A reset in place of an orderly end.
        #[serde(default)]
        reset: bool,
    },
    /// The connection ends after so many bytes of a request's body. An upload keeps them; any other
    /// request is not executed.
    CutRequest {
        /// Bytes that are taken.
        after_bytes: u64,
        /// A reset in place of an orderly end.
        #[serde(default)]
        reset: bool,
    },
    /// A bit of a download is wrong.
    FlipBit {
        /// Where, from the start of the answer's body.
        offset: u64,
    },
    /// A download with a range is answered with 200 and all bytes.
    IgnoreRange,
    /// A download with a range is answered with 206 and another range.
    WrongRange {
        /// How far it begins later.
        shift: u64,
    },
    /// The download link has expired.
    LinkExpired {
        /// 401, 403 or 410.
        status: u16,
    },
    /// Storage does not know the file: 404.
    StorageMissing,

    // --- uploads ---
    /// The upload's session is gone: 404 from now on.
    ForgetSession,
    /// The upload's last bytes are gone before the request is looked at: its offset goes back.
    OffsetBack {
        /// How many.
        bytes: u64,
    },
    /// 409 with the offset, whatever it was asked with.
    OffsetConflict,
    /// The bytes that this request brings are stored with one bit wrong: all checksums tell.
    CorruptUpload,
    /// An upload is finished without `putio-file-id` and `putio-file-crc32`.
    OmitFileId,
    /// The `Location` of a new upload is relative.
    RelativeLocation,
    /// Another file finishes the same upload's name just before it: two rows of one name.
    DuplicateUpload,

    // --- listings ---
    /// What was changed lately is not yet in this listing; what was deleted lately still is.
    StaleListing {
        /// How late it is.
        seconds: f64,
    },
    /// A listing's page lacks the rows that it should have begun with.
    MissingRows {
        /// How many.
        rows: usize,
    },
    /// A listing's last rows come twice.
    RepeatedRows {
        /// How many.
        rows: usize,
    },
    /// The cursor has expired: 400.
    CursorExpired,
    /// The rows come in any order.
    ShuffledRows,
    /// Each row comes twice, the second time with an id that does not exist.
    DuplicateNames,
    /// Rows that are 404 when asked for.
    PhantomRows {
        /// How many.
        rows: usize,
    },

    // --- metadata ---
    /// Files have no checksum in this answer, nor in any other for a time.
    ChecksumMissing {
        /// What stands in its place.
        #[serde(default)]
        form: MissingChecksum,
        /// How long; with 0, this answer alone.
        #[serde(default)]
        seconds: f64,
    },
    /// A time that the request brings is ignored.
    TimeIgnored,

    // --- sign-in and plan ---
    /// The request's token is revoked: 401 from now on.
    RevokeToken,
    /// 401 `invalid_scope`. Not executed.
    InvalidScope,
    /// 402, as with a plan that has ended. Not executed.
    PlanInactive,

    // --- space ---
    /// No space when an upload begins. Not executed.
    FullAtCreate,
    /// No space when an upload ends: its last PATCH fails.
    FullAtFinish,
    /// `disk.avail` says this.
    WrongSpace {
        /// What it says.
        available_bytes: u64,
    },

    // --- trash ---
    /// The trash is locked: this request, and all of this account that need the lock for a time,
    /// fail with `TRASH_LOCK_TIMEOUT`.
    TrashLocked {
        /// How long; with 0, this request alone.
        #[serde(default)]
        seconds: f64,
    },
    /// What is restored gets another name.
    RestoreRenames,
    /// A restore is accepted and never done.
    RestoreNever,

    // --- loss ---
    /// The file that the request is about is gone before it is looked at.
    FileVanishes,
    /// The file that the request is about has lost its bytes: 410 `FILE_LOST` from now on.
    FileLost,
    /// The file's bytes cannot be reached: 503 `FILE_NOT_REACHABLE` for a time.
    FileNotReachable {
        /// How long.
        seconds: f64,
    },

    // --- races ---
    /// Somebody else creates the folder just before.
    FolderRace,
    /// The file is deleted while it is being downloaded, and the download ends there.
    DeletedDuringDownload {
        /// Bytes that arrive.
        after_bytes: u64,
    },
    /// A row of the listed folder gets another name once the first page is made.
    RenameDuringListing,

    // --- clock ---
    /// The service's clock jumps, from now on.
    ClockSkew {
        /// How far it is ahead of this machine's then.
        seconds: i64,
    },

    // --- choice ---
    /// One of these, by the rule's dice.
    OneOf {
        /// Faults and how often each is chosen, relative to the others.
        faults: Vec<Weighted>,
    },
}

/// A fault among others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// How often it is chosen, relative to the others.
    pub weight: f64,
    /// The fault.
    pub fault: Fault,
}

impl Fault {
    /// The word that JSON and the log have for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Status { .. } => "status",
            Self::InvalidJson => "invalid_json",
            Self::TruncatedJson => "truncated_json",
            Self::ContentType { .. } => "content_type",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::Close { .. } => "close",
            Self::Slow { .. } => "slow",
            Self::Trickle { .. } => "trickle",
            Self::Hang { .. } => "hang",
            Self::CutResponse { .. } => "cut_response",
            Self::CutDownload { .. } => "cut_download",
            Self::CutRequest { .. } => "cut_request",
            Self::FlipBit { .. } => "flip_bit",
            Self::IgnoreRange => "ignore_range",
            Self::WrongRange { .. } => "wrong_range",
            Self::LinkExpired { .. } => "link_expired",
            Self::StorageMissing => "storage_missing",
            Self::ForgetSession => "forget_session",
            Self::OffsetBack { .. } => "offset_back",
            Self::OffsetConflict => "offset_conflict",
            Self::CorruptUpload => "corrupt_upload",
            Self::OmitFileId => "omit_file_id",
            Self::RelativeLocation => "relative_location",
            Self::DuplicateUpload => "duplicate_upload",
            Self::StaleListing { .. } => "stale_listing",
            Self::MissingRows { .. } => "missing_rows",
            Self::RepeatedRows { .. } => "repeated_rows",
            Self::CursorExpired => "cursor_expired",
            Self::ShuffledRows => "shuffled_rows",
            Self::DuplicateNames => "duplicate_names",
            Self::PhantomRows { .. } => "phantom_rows",
            Self::ChecksumMissing { .. } => "checksum_missing",
            Self::TimeIgnored => "time_ignored",
            Self::RevokeToken => "revoke_token",
            Self::InvalidScope => "invalid_scope",
            Self::PlanInactive => "plan_inactive",
            Self::FullAtCreate => "full_at_create",
            Self::FullAtFinish => "full_at_finish",
            Self::WrongSpace { .. } => "wrong_space",
            Self::TrashLocked { .. } => "trash_locked",
            Self::RestoreRenames => "restore_renames",
            Self::RestoreNever => "restore_never",
            Self::FileVanishes => "file_vanishes",
            Self::FileLost => "file_lost",
            Self::FileNotReachable { .. } => "file_not_reachable",
            Self::FolderRace => "folder_race",
            Self::DeletedDuringDownload { .. } => "deleted_during_download",
            Self::RenameDuringListing => "rename_during_listing",
            Self::ClockSkew { .. } => "clock_skew",
            Self::OneOf { .. } => "one_of",
        }
    }
}
