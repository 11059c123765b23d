//! The store on put.io, against the emulator.

#![allow(clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

mod contract;
mod folders;
mod objects;
mod requests;
mod support;
mod uploads;
