//! Why an emulator does not start, or what a test asked of it cannot be done.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of the emulator itself; what its clients see are answers, not these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A port could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Threads could not be started.
    #[error("cannot start the emulator's threads")]
    Runtime(#[source] std::io::Error),
    /// The data directory, or a file in it, could not be read or written.
    #[error("cannot use {}", path.display())]
    Storage {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The journal in the data directory is none, or one of another version.
    #[error("{} is damaged at line {line}: {reason}", path.display())]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The authority for TLS could not be made.
    #[error("cannot make the certificates: {0}")]
    Certificates(String),
    /// There is no account of this name.
    #[error("there is no account '{0}'")]
    NoAccount(String),
    /// There is no such file.
    #[error("there is no file '{0}'")]
    NoFile(String),
    /// There is no such code waiting, or it has expired.
    #[error("the code is unknown")]
    NoCode,
    /// There is no such token.
    #[error("the token is unknown")]
    NoToken,
    /// There is no snapshot of this name.
    #[error("there is no snapshot '{0}'")]
    NoSnapshot(String),
}
