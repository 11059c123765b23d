//! A typed client of the put.io HTTP API.
//!
//! [`Client`] looks at, makes, moves and deletes files and folders by their numbers, reads ranges of
//! files, and uploads files so that an upload that broke off goes on at the byte where it stopped.
//! It keeps the service's limits on requests for all tasks together, tries again what can succeed,
//! and resolves requests whose answer was lost. What programs store there is their own business.
//! [`auth`] is how a program comes by a [`Token`].
//!
//! What the client relies on and how well that is known is in `docs/putio-api.md`.
//!
//! ```no_run
//! # async fn example() -> Result<(), putio::Error> {
//! use putio::{Client, ClientOptions, FileId, Token, UploadRequest};
//!
//! let token = Token::new(std::env::var("PUTIO_TOKEN").unwrap_or_default())?;
//! let client = Client::new(token, ClientOptions::new("example/1.0"))?;
//!
//! let folder = client.create_folder(FileId::ROOT, "notes").await?;
//! let content = b"remember the milk".as_slice();
//! let request = UploadRequest::new(folder.id, "monday.txt", &content);
//! let uploaded = client.upload(&request, None, &mut |_session| {}).await?;
//!
//! let mut bytes = Vec::new();
//! client.read_range(uploaded.id, 0..uploaded.size, &mut bytes).await?;
//! assert_eq!(bytes, content);
//! # Ok(())
//! # }
//! ```

mod account;
mod address;
mod bandwidth;
mod client;
mod clock;
mod content;
mod counters;
mod download;
mod error;
mod failure;
mod files;
mod listing;
mod model;
mod options;
mod rate;
mod retry;
mod token;
mod transport;
mod trash;
mod wire;

pub mod auth;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod upload;

pub use client::Client;
pub use content::{Content, FileContent};
pub use error::{Error, ErrorKind};
pub use files::BATCH_FILES_MAX;
pub use model::{
    Account, DeleteOptions, Disk, File, FileId, FileKind, ItemError, Listing, Settings, TokenInfo,
    Trash, TrashedFile, Usage,
};
pub use options::{ClientOptions, Notice, Observe, Patience, Timeouts, WaitReason};
pub use token::Token;
pub use upload::{Session, UploadRequest, Uploaded};
