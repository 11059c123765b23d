//! The CBOR codecs as another program would see them: fixed bytes, and values drawn at random.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod arbitrary;
mod properties;
mod vectors;
