//! The client: what all calls share. The calls themselves are in the modules named after what they
//! are about.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::download::Links;
use crate::error::Error;
use crate::model::Usage;
use crate::options::ClientOptions;
use crate::token::Token;
use crate::transport::Transport;

/// A client of one account.
///
/// Clones are cheap and share connections, limits and counters: however many tasks use an account,
/// they share one client, since the service limits the account and not the task.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) transport: Transport,
    /// Held by whoever deletes or uses the trash: the service refuses two at a time.
    pub(crate) trash_turn: Mutex<()>,
    pub(crate) links: Links,
}

impl Client {
    /// Sets up a client; sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if an address, a certificate or the user
    /// agent cannot be used.
    pub fn new(token: Token, options: ClientOptions) -> Result<Self, Error> {
        let transport = Transport::new(Some(&token), options)?;
        let shared = Shared { transport, trash_turn: Mutex::new(()), links: Links::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What this client and its clones have done so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.transport().counters().usage()
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.shared.transport
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", self.transport().options())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
