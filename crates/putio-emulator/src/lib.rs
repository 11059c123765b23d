//! An emulator of put.io: a server that behaves as the service does, faults included, so that
//! programs can be tested without it.
//!
//! ```
//! use putio_emulator::{Emulator, Options};
//! let emulator = Emulator::start(Options::default())?;
//! // GET {api_url}/v2/account/info with "Authorization: Bearer emulator-token"
//! assert!(emulator.api_url().starts_with("http://127.0.0.1:"));
//! emulator.seed_file("user", "folder/file.txt", b"content")?;
//! assert_eq!(emulator.read_file("user", "folder/file.txt")?, b"content");
//! # Ok::<(), putio_emulator::Error>(())
//! ```
//!
//! It is reached in two shapes at the same time, over the same accounts: as plain HTTP on one
//! loopback port, and as `put.io` and `*.put.io` with TLS behind a CONNECT proxy. It shares no code
//! with any client. How to use it: `docs/putio-emulator.md`.

mod account;
mod admin;
mod auth;
mod blob;
mod body;
mod call;
mod clock;
mod connection;
mod control;
mod dice;
mod download;
pub mod error;
pub mod faults;
mod files;
mod journal;
mod limits;
mod line;
mod listing;
pub mod log;
mod model;
mod names;
pub mod options;
mod pages;
mod routes;
mod serve;
mod server;
mod shared;
mod socket;
mod state;
mod tls;
mod trash;
mod tree;
mod upload;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use control::{FileInfo, UploadInfo};
pub use error::Error;
pub use faults::{Fault, FaultRule, Service, storm};
pub use log::{LogEntry, Violation};
pub use options::{AccountOptions, Options, Profile, Storage};

use crate::server::{Speech, bind, listen};
use crate::shared::Shared;
use crate::tls::Certificates;

/// Threads that serve requests: as many as the machines that tests run on have processors.
const THREADS: usize = 2;

/// A running emulator. It has threads of its own, so that blocking tests can use it as well as
/// asynchronous ones, and stops when dropped.
pub struct Emulator {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    http: SocketAddr,
    proxy: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    authority: String,
}

impl Emulator {
    /// Opens the ports, and serves from the moment this returns.
    ///
    /// # Errors
    /// - [`Error::Listen`]: a port is taken.
    /// - [`Error::Storage`], [`Error::Journal`]: the directory cannot be used.
    /// - [`Error::Options`]: two accounts share a name or a token, and the like.
    pub fn start(options: Options) -> Result<Self, Error> {
        if options.accounts.is_empty() {
            return Err(Error::Options("there is no account".to_owned()));
        }
        let open = |port: u16| bind(SocketAddr::new(options.address, port));
        let http = open(options.http_port)?;
        let proxy = options.proxy_port.map(open).transpose()?;
        let tls = options.tls_port.map(open).transpose()?;
        let admin = options.admin_port.map(open).transpose()?;

        let folder = match &options.storage {
            Storage::Memory => None,
            Storage::Directory(folder) => {
                let fail = |source| Error::Storage { path: folder.clone(), source };
                fs_err::create_dir_all(folder).map_err(fail)?;
                Some(folder.as_path())
            }
        };
        let certificates = Certificates::of(folder)?;
        let acceptor = certificates.acceptor(options.profile.http2)?;
        let origin = match &options.external_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => url_of(http.1),
        };
        let shared = Arc::new(Shared::new(&options, origin)?);
        let services = routes::services();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("putio-emulator")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let inside = runtime.enter();
        let serve = |listener: (std::net::TcpListener, SocketAddr), speech| {
            let address = listener.1;
            let fail = |source| Error::Listen { address, source };
            let listener = TcpListener::from_std(listener.0).map_err(fail)?;
            runtime.spawn(listen(listener, speech, Arc::clone(&shared), services.clone()));
            Ok::<SocketAddr, Error>(address)
        };
        let http = serve(http, Speech::Http)?;
        let proxy = proxy.map(|proxy| serve(proxy, Speech::Proxy(acceptor.clone()))).transpose()?;
        let tls = tls.map(|tls| serve(tls, Speech::Tls(acceptor.clone()))).transpose()?;
        let admin = match admin {
            None => None,
            Some((listener, address)) => {
                let fail = |source| Error::Listen { address, source };
                let listener = TcpListener::from_std(listener).map_err(fail)?;
                runtime.spawn(admin::listen(listener, Arc::clone(&shared)));
                Some(address)
            }
        };
        drop(inside);
        let authority = certificates.authority;
        Ok(Self { shared, runtime: Some(runtime), http, proxy, tls, admin, authority })
    }

    /// Returns when the process is told to end, by an interrupt from the keyboard or by a signal.
    pub fn wait_for_interrupt(&self) -> Result<(), Error> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        runtime.block_on(interrupted()).map_err(Error::Runtime)
    }

    // --- addresses ---

    /// Origin of plain HTTP, `http://127.0.0.1:PORT`; `/v2/...` is below it.
    pub fn api_url(&self) -> String {
        url_of(self.http)
    }

    /// Origin of uploads, the same as [`Self::api_url`]; `/files/` is below it.
    pub fn upload_url(&self) -> String {
        url_of(self.http)
    }

    /// `http://127.0.0.1:PORT` for `HTTPS_PROXY`, if there is a proxy.
    pub fn proxy_url(&self) -> Option<String> {
        self.proxy.map(url_of)
    }

    /// Address that speaks TLS at once, if there is one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// Certificate of the authority that signs for `put.io` and `*.put.io`, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.authority
    }

    /// Origin of the admin side channel, if there is one.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.map(url_of)
    }

    // --- faults and speed ---

    /// Replaces all rules; their counters begin anew.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        self.shared.faults.set(rules);
    }

    /// No faults from now on. What faults have done stays done.
    pub fn clear_faults(&self) {
        self.shared.faults.set(Vec::new());
    }

    /// Of each request from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.set_latency(latency);
    }

    /// Speed of request bodies and of answers from now on.
    pub fn set_speed(
        &self,
        upload_bytes_per_second: Option<u64>,
        download_bytes_per_second: Option<u64>,
    ) {
        self.shared.upload_line.set(upload_bytes_per_second);
        self.shared.download_line.set(download_bytes_per_second);
    }

    /// Replaces the switches; what is stored stays.
    pub fn set_profile(&self, profile: Profile) {
        self.shared.set_profile(profile);
    }

    /// Replaces the limits; windows begin anew.
    pub fn set_rate_limits(&self, limits: Vec<options::RateLimit>) {
        self.shared.limits.set(limits);
    }

    /// Moves the service's clock forward: cursors, links, codes and trash grow older.
    pub fn advance_clock(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// How far the service's clock is ahead of this machine's, in seconds, from now on.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.clock.set_skew(seconds);
    }

    // --- what happened ---

    /// All requests since the start or the last [`Self::clear_log`].
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.log.entries()
    }

    /// Forgets requests and violations.
    pub fn clear_log(&self) {
        self.shared.log.clear();
    }

    /// Requests that came before a reset that had been advertised to their token.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.log.violations()
    }
}

#[cfg(unix)]
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = end.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn interrupted() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(runtime) = self.runtime.take() {
            // Whoever starts another emulator on the same directory must find this one gone; a
            // thread that runs tasks may not wait, though.
            if tokio::runtime::Handle::try_current().is_ok() {
                runtime.shutdown_background();
            } else {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
        }
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("http", &self.http)
            .field("proxy", &self.proxy)
            .field("tls", &self.tls)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Where a port is reached from this machine.
fn url_of(address: SocketAddr) -> String {
    let ip =
        if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Locks. A thread that failed inside leaves what tests can still look at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
