//! The reading side of a backup: what there is on this machine, and what of it is wanted.
//!
//! [`roots`] turns the paths that were asked for into one tree, [`walk`] goes through it in the order of a
//! snapshot, [`filter`] decides what stays out, [`metadata`] says what an entry is and whether it changed.

pub mod filter;
pub mod metadata;
pub mod roots;
pub mod walk;

/// A path for a person to read.
#[must_use]
pub fn display_path(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
