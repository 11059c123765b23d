//! The emulator under clients that nobody of this project wrote: what they do with put.io, they must
//! be able to do here.
//!
//! The clients are rclone, `putio.py` (PyPI) and `@putdotio/api-client` (npm). `scripts/foreign-clients.sh`
//! installs them and runs these tests; a client that is missing is a failure, not a skip.

#![allow(clippy::unwrap_used, reason = "what cannot be had is a failure of the test")]

mod api_client;
mod putio_py;
mod rclone;
mod tools;
