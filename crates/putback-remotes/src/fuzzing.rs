//! A way for fuzz targets into the file of ids. Not part of the store: the feature `fuzzing` is for `fuzz/`.

/// Reads a file of ids with these bytes behind its head, and writes it again; nothing if it is refused.
#[must_use]
pub fn recode_ids(bytes: &[u8]) -> Option<Vec<u8>> {
    crate::putio::cache::recode(bytes)
}
