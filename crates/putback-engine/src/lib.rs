//! What users ask for: backup, restore, looking into snapshots.
//!
//! Operations are plain functions: options in, events to an observer, a report back. They print nothing, read no
//! configuration and choose no exit code, and several may run at once in one process.

pub mod backup;
pub mod diff;
pub mod dump;
mod error;
pub mod find;
pub mod forget;
pub mod list;
mod memo;
pub mod pattern;
pub mod platform;
pub mod replicate;
pub mod restore;
pub mod rewrite;
pub mod source;
pub mod stats;
mod tree_source;

pub use error::Error;
