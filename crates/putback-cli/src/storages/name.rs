//! Names of storages: which are allowed, so that `name:path` can mean nothing else.

use crate::report::Failure;
use crate::ui::text;

/// Longest name.
const CHARACTERS_MAX: usize = 64;

/// Words that stand before a colon elsewhere: schemes of locations, here or in programs whose users
/// might try theirs here.
const RESERVED: &[&str] = &[
    "azblob", "azure", "b2", "dav", "davs", "file", "ftp", "ftps", "gcs", "git", "gs", "http",
    "https", "latest", "local", "nfs", "opendal", "rclone", "rest", "s3", "scp", "sftp", "smb",
    "ssh", "swift", "webdav", "webdavs",
];

/// Whether `name` may be given to a storage.
pub(crate) fn check(name: &str) -> Result<(), Failure> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.chars().count() > CHARACTERS_MAX {
        "it is longer than 64 characters"
    } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        "it may have letters, digits, - and _ only"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it must begin with a letter or a digit"
    } else if name.len() == 1 {
        "a single letter could be a drive"
    } else if RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word)) {
        "it stands for something else in front of a colon"
    } else {
        return Ok(());
    };
    Err(Failure::usage_with(
        format!("'{}' cannot be the name of a storage: {reason}", text::printable(name)),
        "take a name such as putio, backup or putio-2",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_mistaken_for_a_scheme_a_drive_or_a_path() {
        for name in ["putio", "putio-2", "2nd_account", "AB", &"x".repeat(64)] {
            check(name).unwrap();
        }
        for name in [
            "",
            "c",
            "C",
            "http",
            "HTTPS",
            "file",
            "s3",
            "latest",
            "-x",
            "_x",
            "a/b",
            "a:b",
            "a b",
            "ä-ö",
            "a.b",
            &"x".repeat(65),
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
