//! The program as its users meet it: arguments in; text, objects, files and exit codes out.
//!
//! One binary for all tests, since linking the program's dependencies once per file is slow. Each
//! file of `cli/` has the claims about one command; `harness/` runs the real program in a home of
//! its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod compatibility;
mod concurrency;
mod crash;
mod damage;
mod harness;
mod kills;
mod putio;
mod side_by_side;
mod tidy;
