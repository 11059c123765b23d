//! What can be wrong with bytes.

use thiserror::Error;

/// Why bytes could not be decoded, unsealed or encoded.
///
/// The caller knows which object the bytes came from and adds its name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A textual id is not lower-case hex of the right length.
    #[error("'{text}' is not a valid {what}")]
    IdInvalid {
        /// The kind of id.
        what: &'static str,
        /// The text, cut to 80 characters.
        text: String,
    },
    /// The bytes end before the structure does.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure that was being read.
        what: &'static str,
    },
    /// Bytes follow the end of the structure.
    #[error("{what} has bytes behind its end")]
    TrailingBytes {
        /// The structure that was being read.
        what: &'static str,
    },
    /// The magic bytes are not those of the expected object.
    #[error("this is not {what}")]
    WrongMagic {
        /// The expected object.
        what: &'static str,
    },
    /// The object is of a version that this program does not know.
    #[error("{what} has format version {version}, which needs a newer program")]
    UnknownVersion {
        /// The object.
        what: &'static str,
        /// Its version.
        version: u32,
    },
    /// The object belongs to another repository.
    #[error("{what} belongs to repository {found}, not to this one")]
    OtherRepository {
        /// The object.
        what: &'static str,
        /// The repository that it names.
        found: crate::id::RepositoryId,
    },
    /// A field has a value that the format does not allow.
    #[error("{what} is invalid: {why}")]
    Invalid {
        /// The structure.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A size lies above the limit of the format (`limits.rs`).
    #[error("{what} is {value}, above the limit of {limit}")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// Authenticated decryption failed: the bytes are damaged, or sealed under another key.
    #[error("{what} is damaged: it does not unseal")]
    Damaged {
        /// The object.
        what: &'static str,
    },
    /// The plain bytes do not have the id under which they were stored.
    #[error("the plain bytes do not match their id")]
    IdMismatch,
    /// The password does not open this slot.
    #[error("the password does not open this slot")]
    WrongPassword,
    /// A master key of this epoch is not in the opened slot.
    #[error("{what} was sealed in key epoch {epoch}, whose key is not in this slot")]
    UnknownEpoch {
        /// The object.
        what: &'static str,
        /// The epoch it names.
        epoch: u32,
    },
    /// Decompression failed.
    #[error("{what} does not decompress")]
    Decompress {
        /// The object.
        what: &'static str,
    },
    /// Sealing or compressing failed, or the result did not open to the same bytes: the machine is at fault.
    #[error("{what} could not be produced reliably on this machine: {why}")]
    SelfCheck {
        /// The object.
        what: &'static str,
        /// What failed.
        why: &'static str,
    },
}
