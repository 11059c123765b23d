//! The client against a small server of these tests, on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod downloads;
mod limits;
mod server;
mod sign_in;
mod uploads;
