//! Fixed-layout bytes: little-endian integers and arrays, read with every bound checked.
//!
//! Objects that machines read in bulk (packs, segments, slots, envelopes) use this; objects that
//! evolve (trees, snapshots, configuration) are CBOR.

use crate::error::Error;

/// Reads a structure from front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`; `what` names the structure in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `length` bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or(Error::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(Error::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count, checked against its limit and against what the remaining bytes could hold at
    /// `bytes_each`, so that nothing is allocated for a lie.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: u32,
        bytes_each: usize,
    ) -> Result<usize, Error> {
        let value = self.u32()?;
        if value > limit {
            return Err(Error::TooLarge { what, value: value.into(), limit: limit.into() });
        }
        let value = value as usize;
        if value.saturating_mul(bytes_each) > self.rest.len() {
            return Err(Error::Truncated { what: self.what });
        }
        Ok(value)
    }

    /// `count` integers.
    pub(crate) fn u32_column(&mut self, count: usize) -> Result<Vec<u32>, Error> {
        let length = count.checked_mul(4).ok_or(Error::Truncated { what: self.what })?;
        let (chunks, _) = self.bytes(length)?.as_chunks::<4>();
        Ok(chunks.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect())
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Ends the structure: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::TrailingBytes { what: self.what }) }
    }
}

/// A length as the format stores it.
///
/// # Errors
/// [`Error::TooLarge`] above 2³² − 1.
pub(crate) fn length_u32(what: &'static str, length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error::TooLarge {
        what,
        value: length as u64,
        limit: u32::MAX.into(),
    })
}

/// Rounds a length up by the Padmé rule: at most 12 % more, and the result tells only
/// O(log log length) bits of the length (Nikitin et al., "Reducing Metadata Leakage from Encrypted
/// Files and Communication with PURBs", PoPETs 2019, algorithm 1).
#[must_use]
pub fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1u64 << (exponent - significant)) - 1;
    length.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_matches_the_paper_and_never_shrinks() {
        for (length, padded) in [
            (0, 0),
            (1, 1),
            (2, 2),
            (8, 8),
            (9, 10),
            (16, 16),
            (17, 18),
            (1000, 1024),
            (1_000_000, 1_015_808),
        ] {
            assert_eq!(padme(length), padded, "{length}");
        }
        for length in 0..100_000 {
            let padded = padme(length);
            assert!(padded >= length && padded as f64 <= length as f64 * 1.12 + 1.0, "{length}");
            assert_eq!(padme(padded), padded);
        }
        assert_eq!(padme(u64::MAX), !((1 << 57) - 1));
    }

    #[test]
    fn a_count_beyond_the_bytes_at_hand_is_refused_before_anything_is_allocated() {
        let bytes = 1_000_000u32.to_le_bytes();
        let mut reader = Reader::new(&bytes, "a test");
        assert_eq!(reader.count("x", u32::MAX, 32), Err(Error::Truncated { what: "a test" }));
    }
}
