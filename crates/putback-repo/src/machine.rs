//! What a repository uses of the machine it is opened on: directories, clocks, random bytes, and the times that
//! safety rests on.
//!
//! [`Machine::default`] keeps nothing between runs and asks the system for the rest. Tests put clocks and random
//! bytes of their own in place, so that two weeks pass in a second and a run can be had again.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use putback_format::tree::Timestamp;

use crate::clock;
use crate::error::{Error, Result};

/// What a repository uses of the machine it is opened on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// A directory that may be deleted at any time. Without it nothing is cached between runs.
    pub cache: Option<PathBuf>,
    /// A directory for writer id, sequence numbers seen, journal. Without it they last for one run.
    pub state: Option<PathBuf>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where salts and ids come from.
    pub random: Arc<dyn Random>,
    /// The times that safety rests on.
    pub times: Times,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cache: None,
            state: None,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            times: Times::default(),
        }
    }
}

/// The times that prune's safety rests on; see `docs/format.md`, "Concurrency".
///
/// All programs that use a repository must have the same ones. Others than the default are for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Longest time from the check to the snapshot. Prune waits much longer before it deletes.
    pub commit_window: Duration,
    /// How far a listing may lag behind, where stores are not consistent.
    pub listing_lag: Duration,
    /// Time between two looks that must show the same, where stores are not consistent.
    pub second_look: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            commit_window: Duration::from_secs(15 * 60),
            listing_lag: Duration::from_secs(60 * 60),
            second_look: Duration::from_secs(60),
        }
    }
}

impl Times {
    /// The shortest time between a mark and the deletion where stores are not consistent.
    #[must_use]
    pub fn grace_least(&self) -> Duration {
        self.commit_window + 2 * self.listing_lag
    }
}

/// The clocks of a machine.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since the machine was started, time in suspend included.
    fn since_boot(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The clocks of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn since_boot(&self) -> Duration {
        clock::since_boot()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A source of random bytes. Salts from a source that repeats itself cost no secrecy of contents, since nonces are
/// derived from what is sealed; ids of repositories and writers must differ.
pub trait Random: Debug + Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`Error::Random`] if there are none.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The random bytes of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(Error::Random)
    }
}

impl Machine {
    /// Random bytes, as many as fit.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}
