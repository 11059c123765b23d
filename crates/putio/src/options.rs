//! How a client is set up, and whom it tells of waits and retries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where the service is, and how it is to be used.
#[derive(Clone)]
pub struct ClientOptions {
    /// Base address of the API; `/v2/...` is appended.
    pub api_url: String,
    /// Base address of uploads; `/files/` is appended.
    pub upload_url: String,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// PEM bundles of certificates that are trusted beside the system's.
    pub ca_certificates: Vec<Vec<u8>>,
    /// Upper bound of requests per second, beside what the service itself asks for. Without one,
    /// the client begins with 8 and finds out whether the service minds more.
    pub requests_per_second: Option<f64>,
    /// Requests under way at the same time.
    pub connections: usize,
    /// Upper bound of bytes sent in request bodies of uploads, per second.
    pub upload_bytes_per_second: Option<u64>,
    /// Upper bound of bytes received in downloads, per second.
    pub download_bytes_per_second: Option<u64>,
    /// How long to wait for an answer.
    pub timeouts: Timeouts,
    /// How long to try.
    pub patience: Patience,
    /// Told of retries and waits.
    pub observer: Arc<dyn Observe>,
}

impl ClientOptions {
    /// The real service, the usual time-outs, no limits.
    #[must_use]
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            api_url: "https://api.put.io".to_owned(),
            upload_url: "https://upload.put.io".to_owned(),
            user_agent: user_agent.into(),
            ca_certificates: Vec::new(),
            requests_per_second: None,
            connections: 8,
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            timeouts: Timeouts::default(),
            patience: Patience::default(),
            observer: Arc::new(()),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("api_url", &self.api_url)
            .field("upload_url", &self.upload_url)
            .field("user_agent", &self.user_agent)
            .field("requests_per_second", &self.requests_per_second)
            .field("connections", &self.connections)
            .field("upload_bytes_per_second", &self.upload_bytes_per_second)
            .field("download_bytes_per_second", &self.download_bytes_per_second)
            .field("timeouts", &self.timeouts)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// How long to wait for an answer before the request counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From the end of the request to the headers of its answer.
    pub header: Duration,
    /// Between two pieces of a body, in either direction.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            header: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// How long to try before a failure is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts of one request, the first included. Failures and refusals for too many requests
    /// are counted apart. Transfers count anew whenever bytes have got through.
    pub attempts_max: u32,
    /// The longest single wait; a service that asks for a longer one is not waited for.
    pub wait_max: Duration,
    /// No further attempt of a call begins this long after its first one, or after the last
    /// progress of a transfer.
    pub total: Duration,
    /// The wait before the first repetition; each further one doubles it, up to a minute, and
    /// each is varied at random.
    pub backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            wait_max: Duration::from_secs(15 * 60),
            total: Duration::from_secs(60 * 60),
            backoff: Duration::from_millis(500),
        }
    }
}

/// Is told of what the client does beside the calls made.
pub trait Observe: Send + Sync {
    /// The client waits or tries again. Called from within the client's tasks: returns quickly.
    fn notice(&self, notice: &Notice) {
        let _ = notice;
    }
}

impl Observe for () {}

/// What an observer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// No request is sent for a while.
    Waiting {
        /// How long from now.
        duration: Duration,
        /// Why.
        reason: WaitReason,
    },
    /// A request failed and will be sent again.
    Retrying {
        /// The call.
        call: &'static str,
        /// How often it has been sent so far.
        attempt: u32,
        /// The wait before it is sent again.
        after: Duration,
        /// What happened, for a person; contains no secret.
        error: String,
    },
}

/// Why the client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// The service refused a request as one too many.
    RateLimited,
    /// The service announced that no further request is allowed for now.
    Exhausted,
}
