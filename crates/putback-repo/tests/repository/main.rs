//! A repository on stores in memory that fail, are damaged, or change under its hands.
//!
//! One binary, since linking once per file is slow. `support` makes repositories and trees by hand,
//! so that nothing but the repository is under test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says why it fails by failing")]

mod check;
mod commit;
mod compact;
mod damage;
mod faults;
mod hooked;
mod index;
mod prune;
mod readers;
mod remote;
mod repair;
mod rollback;
mod rotate;
mod support;
