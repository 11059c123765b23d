//! The CBOR codecs as another program would see them: fixed bytes, and values drawn at random.

#![allow(clippy::unwrap_used, reason = "what tests share is test code too")]

mod arbitrary;
mod properties;
mod vectors;
