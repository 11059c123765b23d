//! Backups of local folders as the library does them: what is read, what is stored, what comes back.
//!
//! One binary, since linking once per file is slow. Everything that can be seen without the program
//! is here; processes, users and signals are in `tests/` of the workspace.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changes;
mod copies;
mod faults;
mod files;
mod healing;
mod places;
mod streams;
mod support;
