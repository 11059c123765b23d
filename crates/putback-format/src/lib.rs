//! The bytes of a putback repository.
//!
//! ```text
//! file -> chunk -> blob -> frame -> pack            what is stored, sealed
//!                    entry -> tree page -> blob     what a directory holds
//!         pack header -> index segment              where a blob is
//!         root entry -> snapshot                    what was there, and when
//!         password -> slot -> master key            who may read it
//! ```
//!
//! This crate does no I/O, knows no clock, no randomness and no environment; every decoder is total:
//! any input yields a value or an [`Error`], never a panic, and never an allocation beyond the
//! limits in [`limits`]. The normative text is `docs/format.md`.

mod cbor;
pub mod chunk;
pub mod compress;
pub mod config;
pub mod envelope;
pub mod error;
pub mod id;
pub mod key;
pub mod limits;
pub mod list;
pub mod mark;
pub mod pack;
pub mod page;
pub mod seal;
pub mod segment;
pub mod slot;
pub mod snapshot;
pub mod tree;
pub mod vectors;
mod wire;

pub use error::Error;
pub use wire::padme;
