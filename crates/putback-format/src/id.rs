//! Ids: distinct types for names that could be confused.
//!
//! [`BlobId`] is a keyed hash of plain bytes, known only to those who hold the dedup secret. The
//! other 32-byte ids are the plain BLAKE3-256 of an object's stored bytes, so that a copy can be
//! verified without the password. Layout: `docs/format.md`, "Ids".

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Defines an id: `$bytes` raw bytes, shown as lower-case hex.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $bytes;

            /// Takes the raw bytes of an id.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The first eight hex digits, as shown to people.
            #[must_use]
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Parses exactly the lower-case hex form that `Display` writes.
            fn from_str(text: &str) -> Result<Self, Error> {
                let mut bytes = [0; $bytes];
                unhex(text, &mut bytes).ok_or_else(|| Error::IdInvalid {
                    what: stringify!($name),
                    text: text.chars().take(80).collect(),
                })?;
                Ok(Self(bytes))
            }
        }
    };
}

/// An [`id!`] that is the BLAKE3-256 of an object's stored bytes.
macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        id!($(#[$doc])* $name, 32);

        impl $name {
            /// The id of an object: the unkeyed BLAKE3-256 of its stored bytes.
            #[must_use]
            pub fn of_stored(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }
        }
    };
}

id!(
    /// Names a blob: the keyed BLAKE3 of its plain bytes, under one key for data, one for trees.
    BlobId,
    32
);
id!(
    /// Names a repository: random, drawn at `init`.
    RepositoryId,
    16
);
id!(
    /// Names a writer: random, drawn when a machine first writes to a repository.
    WriterId,
    16
);
object_id!(
    /// Names a pack.
    PackId
);
object_id!(
    /// Names an index segment.
    SegmentId
);
object_id!(
    /// Names a snapshot.
    SnapshotId
);
object_id!(
    /// Names a password slot.
    SlotId
);
object_id!(
    /// Names one generation of the configuration.
    ConfigId
);
object_id!(
    /// Names a mark or a forget record.
    MarkId
);

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str, out: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_hex_form_and_from_nothing_else() {
        let id = BlobId::from_bytes([0xa7; 32]);
        assert_eq!(id.to_string().parse::<BlobId>().unwrap(), id);
        for bad in ["", "a7", &"A7".repeat(32), &"g7".repeat(32), &"a7".repeat(33)] {
            assert!(bad.parse::<BlobId>().is_err(), "{bad}");
        }
    }
}
