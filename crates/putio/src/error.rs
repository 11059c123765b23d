//! Errors of the client: what was called, what the service said, what kind of failure it is.

use std::fmt;

/// What kind of failure it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such file, folder, upload or page.
    NotFound,
    /// The name is taken.
    Conflict,
    /// The service refuses the name: empty, too long, or with a slash.
    InvalidName,
    /// The token is not valid, or no longer (401). Never retried.
    Unauthorized,
    /// The account has no active plan (402).
    PaymentRequired,
    /// The service refuses (403).
    Denied,
    /// The service has lost the file's bytes (410 `FILE_LOST`).
    Lost,
    /// The storage host does not hand out the bytes of a file that is there, and patience ended.
    Withheld,
    /// The account's space is used up.
    Full,
    /// Too many requests, and patience ended.
    RateLimited,
    /// Too many requests, and a person has to solve a captcha first.
    CaptchaNeeded {
        /// The page to open in a browser.
        url: String,
    },
    /// The answer contradicts itself, the request, or a checksum.
    Corrupt,
    /// The service could not be reached, or its answers did not arrive, and patience ended.
    Network,
    /// A code or a link is no longer valid.
    Expired,
    /// The service, or this client, does not accept the request as it is (400).
    Invalid,
    /// The service failed (5xx, or an answer that cannot be read), and patience ended.
    Server,
    /// The operation was given up by its caller.
    Cancelled,
    /// Reading the content to send, or writing what was received, failed.
    Local,
}

/// An error of the client. Neither `Display` nor `Debug` contain tokens or links.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// The call, by the name of the [`Client`](crate::Client) method or the request.
    pub call: &'static str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The service's own code for the error.
    pub error_type: Option<String>,
    /// What happened, for a person; may be empty.
    pub message: String,
    /// The cause.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without an answer of the service.
    #[must_use]
    pub fn new(kind: ErrorKind, call: &'static str, message: impl Into<String>) -> Self {
        Self { kind, call, status: None, error_type: None, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Withheld | ErrorKind::Network | ErrorKind::Server | ErrorKind::RateLimited
        )
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            ErrorKind::NotFound => "not found",
            ErrorKind::Conflict => "the name is taken",
            ErrorKind::InvalidName => "the name is not allowed",
            ErrorKind::Unauthorized => "the token is not valid (any more); sign in again",
            ErrorKind::PaymentRequired => "the account has no active plan",
            ErrorKind::Denied => "not allowed",
            ErrorKind::Lost => "the service has lost the file",
            ErrorKind::Withheld => "the storage host does not hand out the file's bytes",
            ErrorKind::Full => "no space left in the account",
            ErrorKind::RateLimited => "too many requests",
            ErrorKind::CaptchaNeeded { .. } => {
                "too many requests, and the service wants a captcha solved in a browser"
            }
            ErrorKind::Corrupt => "the service's answer contradicts itself",
            ErrorKind::Network => "the service could not be reached",
            ErrorKind::Expired => "no longer valid",
            ErrorKind::Invalid => "not accepted",
            ErrorKind::Server => "the service failed",
            ErrorKind::Cancelled => "given up",
            ErrorKind::Local => "local input or output failed",
        };
        write!(f, "put.io {}: {what}", self.call)?;
        if let ErrorKind::CaptchaNeeded { url } = &self.kind {
            write!(f, ": {url}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match (self.status, &self.error_type) {
            (Some(status), Some(error_type)) => write!(f, " (HTTP {status}, {error_type})"),
            (Some(status), None) => write!(f, " (HTTP {status})"),
            (None, _) => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
