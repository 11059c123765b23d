//! The client: what all calls share. The calls themselves are in the modules named after what they
//! are about.

use std::fmt;
use std::sync::Arc;

use crate::download::Links;
use crate::error::Error;
use crate::model::Usage;
use crate::options::ClientOptions;
use crate::token::Token;
use crate::transport::Transport;

/// A client of one account.
///
/// Clones are cheap and share connections, limits and counters: however many tasks use an account,
/// they share one client, or one and those [beside](Client::beside) it, since the service limits the
/// account and not the task.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) transport: Transport,
    pub(crate) links: Links,
}

impl Client {
    /// Sets up a client; sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if an address, a certificate or the user
    /// agent cannot be used.
    pub fn new(token: Token, options: ClientOptions) -> Result<Self, Error> {
        Ok(Self::over(Transport::new(Some(&token), options)?))
    }

    /// Another client for the same token that shares this one's limits of requests and bytes per
    /// second, whatever `options` says of these, but neither connections nor counters: unlike a
    /// clone, it never waits for a transfer of this one to end, and may run elsewhere.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn beside(&self, options: ClientOptions) -> Result<Self, Error> {
        Ok(Self::over(self.transport().beside(options)?))
    }

    fn over(transport: Transport) -> Self {
        Self { shared: Arc::new(Shared { transport, links: Links::default() }) }
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
