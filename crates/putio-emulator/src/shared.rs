//! What all requests share.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::connection::Control;
use crate::error::Error;
use crate::faults::{FaultRule, Faults};
use crate::limits::Limits;
use crate::line::Line;
use crate::log::Log;
use crate::options::{Approval, ClientOptions, Options, Profile};
use crate::state::State;
use crate::{lock, read, write};

/// Notifications that a slow listener may fall behind.
const NOTIFICATIONS_MAX: usize = 1_000;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) clients: Vec<ClientOptions>,
    pub(crate) approval: Approval,
    pub(crate) is_verbose: bool,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    pub(crate) upload_line: Line,
    pub(crate) download_line: Line,
    pub(crate) notifications: broadcast::Sender<Notification>,
    /// Origin of links that are handed out by plain HTTP.
    pub(crate) origin: String,
    state: Mutex<State>,
    profile: RwLock<Arc<Profile>>,
    latency_micros: AtomicU64,
    connect_latency_micros: AtomicU64,
    connections: Mutex<Vec<Weak<Control>>>,
}

/// A change of a file, for those who listen at the socket.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    pub(crate) user_id: u64,
    /// `file_create`, `file_update` or `file_delete`.
    pub(crate) kind: &'static str,
    pub(crate) id: i64,
    pub(crate) name: String,
}

/// The state, locked. What was changed is written down when it is let go.
pub(crate) struct StateGuard<'a> {
    guard: MutexGuard<'a, State>,
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.guard
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.guard
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        self.guard.flush();
    }
}

impl Shared {
    pub(crate) fn new(options: &Options, origin: String) -> Result<Self, Error> {
        let share =
            |rule: &FaultRule| rule.probability.is_none_or(|share| (0.0..=1.0).contains(&share));
        if !options.faults.iter().all(share) {
            return Err(Error::Options("a probability is between 0 and 1".to_owned()));
        }
        Ok(Self {
            clients: options.clients.clone(),
            approval: options.approval,
            is_verbose: options.verbose,
            clock: Clock::new(options.clock_skew_seconds),
            faults: Faults::new(options.seed, options.faults.clone()),
            limits: Limits::new(
                options.rate_limits.clone(),
                options.rate_headers,
                options.violation_grace,
            ),
            log: Log::new(),
            upload_line: Line::new(options.upload_bytes_per_second),
            download_line: Line::new(options.download_bytes_per_second),
            notifications: broadcast::channel(NOTIFICATIONS_MAX).0,
            origin,
            state: Mutex::new(State::open(options)?),
            profile: RwLock::new(Arc::new(options.profile.clone())),
            latency_micros: micros(options.latency),
            connect_latency_micros: micros(options.connect_latency),
            connections: Mutex::default(),
        })
    }

    /// The state, with everything done that has become due.
    pub(crate) fn state(&self) -> StateGuard<'_> {
        let mut guard = lock(&self.state);
        guard.settle(self.clock.now());
        StateGuard { guard }
    }

    pub(crate) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&read(&self.profile))
    }

    pub(crate) fn set_profile(&self, profile: Profile) {
        *write(&self.profile) = Arc::new(profile);
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_micros.load(Ordering::Relaxed))
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        let value = micros(latency).into_inner();
        self.latency_micros.store(value, Ordering::Relaxed);
    }

    pub(crate) fn connect_latency(&self) -> Duration {
        Duration::from_micros(self.connect_latency_micros.load(Ordering::Relaxed))
    }

    /// Tells those who listen that a file was changed.
    pub(crate) fn notify(&self, user_id: u64, kind: &'static str, id: i64, name: &str) {
        // Nobody listening is no error.
        let _ = self.notifications.send(Notification { user_id, kind, id, name: name.to_owned() });
    }

    /// Remembers a connection, so that it can be reset.
    pub(crate) fn add_connection(&self, control: &Arc<Control>) {
        let mut connections = lock(&self.connections);
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(control));
    }

    pub(crate) fn reset_connections(&self) {
        for connection in lock(&self.connections).drain(..) {
            if let Some(control) = connection.upgrade() {
                control.reset();
            }
        }
    }

    /// Whatever is dropped from now on stays on disk.
    pub(crate) fn close(&self) {
        lock(&self.state).blobs.keep_dropped(true);
    }
}

fn micros(duration: Duration) -> AtomicU64 {
    AtomicU64::new(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
