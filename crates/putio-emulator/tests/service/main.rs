//! The emulator as clients see it, over raw HTTP, so that no library smooths anything over.

#![allow(clippy::unwrap_used, reason = "what cannot be had is a failure of the test")]

mod admin;
mod auth;
mod client;
mod download;
mod faults;
mod files;
mod limits;
mod listing;
mod persistence;
mod program;
mod proxy;
mod socket;
mod trash;
mod upload;
