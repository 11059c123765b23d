//! Stores over a network, as [`putback_store::Store`]: a folder of a put.io account.
//!
//! [`PutioStore`] is the only place where the quirks of put.io meet the promises of a store: rows
//! are found by id and not by path, names are not unique, listings may lag, uploads can be
//! continued. The client crate `putio` speaks the protocol, waits and retries; it knows nothing of
//! stores. [`location`] takes `name:path` apart and knows nothing of configuration.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod location;
mod putio;

pub use crate::putio::{PutioOptions, PutioStore, account_key};
