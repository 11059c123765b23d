//! Locations of the form `name:path`: a storage by its name, and a folder in it.
//!
//! What a name stands for is the configuration's business. A folder that is accepted here means the
//! same on put.io as it does in the text: put.io decodes percent sequences, turns a backslash into
//! a hyphen and refuses some names, so a text that would come back changed is refused.

use std::fmt;
use std::str::FromStr;

/// The longest name of a file or folder on put.io, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text is not a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a location: {reason}")]
pub struct LocationInvalid {
    /// The text, escaped and cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A storage and a folder in it, written `name:path`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    storage: String,
    folder: Folder,
}

impl Location {
    /// Takes `name:path` apart.
    ///
    /// # Errors
    /// - [`LocationInvalid`]: there is no colon, the name is not of `[0-9A-Za-z._-]` or starts with a
    ///   hyphen or a dot, or the path is no [`Folder`].
    pub fn new(text: &str) -> Result<Self, LocationInvalid> {
        let fail = |reason| Err(LocationInvalid::new(text, reason));
        let Some((storage, folder)) = text.split_once(':') else {
            return fail("it has no colon between the name of a storage and a path");
        };
        if storage.is_empty() {
            return fail("the name of the storage is empty");
        }
        if storage.starts_with(['-', '.'])
            || !storage.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            return fail(
                "the name of the storage may have only letters of ASCII, digits, '.', '_' and '-'",
            );
        }
        match check_folder(folder) {
            Ok(folder) => Ok(Self { storage: storage.to_owned(), folder }),
            Err(reason) => fail(reason),
        }
    }

    /// The name of the storage.
    #[must_use]
    pub fn storage(&self) -> &str {
        &self.storage
    }

    /// The folder.
    #[must_use]
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.storage, self.folder)
    }
}

impl FromStr for Location {
    type Err = LocationInvalid;

    fn from_str(text: &str) -> Result<Self, LocationInvalid> {
        Self::new(text)
    }
}

/// A folder of a put.io account, as names with slashes between them; the empty one is the root.
///
/// Invariant: no name is empty, `.` or `..`, longer than [`NAME_BYTES_MAX`], or would be changed by
/// put.io.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Folder {
    text: String,
}

impl Folder {
    /// Takes a path; slashes at its ends are dropped, and nothing else is corrected.
    ///
    /// # Errors
    /// - [`LocationInvalid`]: a name is empty, `..`, too long, or would be changed by put.io.
    pub fn new(text: &str) -> Result<Self, LocationInvalid> {
        check_folder(text).map_err(|reason| LocationInvalid::new(text, reason))
    }

    /// The names from the root on, without slashes at the ends; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names, outermost first.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text.split('/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl LocationInvalid {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.escape_debug().take(80).collect(), reason }
    }
}

fn check_folder(text: &str) -> Result<Folder, &'static str> {
    let text = text.trim_matches('/');
    if !text.is_empty() {
        text.split('/').try_for_each(check_name)?;
    }
    Ok(Folder { text: text.to_owned() })
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name between two slashes is empty");
    }
    if name == "." || name == ".." {
        return Err("'.' and '..' are not allowed");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("a name is longer than 255 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("control characters are not allowed");
    }
    if name.contains('\\') {
        return Err("put.io has no backslash in names; write '/' between folders");
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        return Err("a name begins or ends with a space");
    }
    let bytes = name.as_bytes();
    let is_escape =
        |part: &[u8]| part[0] == b'%' && part[1..].iter().all(|byte| byte.is_ascii_hexdigit());
    if bytes.windows(3).any(is_escape) {
        return Err("put.io would decode a percent sign that two hexadecimal digits follow");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, storage: &str, folder: &str, names: &[&str]) {
        let location = Location::new(text).unwrap();
        assert_eq!((location.storage(), location.folder().as_str()), (storage, folder));
        assert_eq!(location.folder().names().collect::<Vec<_>>(), names);
        assert_eq!(location.to_string(), format!("{storage}:{folder}"));
        assert_eq!(location.to_string().parse(), Ok(location));
    }

    #[test]
    fn a_location_is_a_storage_and_a_folder_without_slashes_around_it() {
        check("putio:backups/laptop", "putio", "backups/laptop", &["backups", "laptop"]);
        check("putio:/backups//", "putio", "backups", &["backups"]);
        check("my-2.disk_:", "my-2.disk_", "", &[]);
        check("putio:/", "putio", "", &[]);
        check("putio:a:b", "putio", "a:b", &["a:b"]);
        check("putio:Größe 50 %/x%4", "putio", "Größe 50 %/x%4", &["Größe 50 %", "x%4"]);
        let longest = "x".repeat(NAME_BYTES_MAX);
        check(&format!("putio:{longest}"), "putio", &longest, &[&longest]);
    }

    #[test]
    fn what_put_io_would_change_or_refuse_is_refused() {
        let long = format!("putio:{}", "ä".repeat(NAME_BYTES_MAX / 2 + 1));
        for text in [
            "",
            "putio",
            ":x",
            "a/b:x",
            "-x:y",
            ".x:y",
            "p q:x",
            "putio:a//b",
            "putio:a/../b",
            "putio:..",
            "putio:./a",
            "putio:a\\b",
            "putio:a\0",
            "putio:a\n",
            "putio: a",
            "putio:a /b",
            "putio:x%46.txt",
            "ä:b",
            &long,
        ] {
            assert!(Location::new(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_error_shows_what_was_meant_without_control_characters() {
        let error = Location::new(&format!("putio:\u{1b}[31m{}", "ä".repeat(500))).unwrap_err();
        assert_eq!(error.text.chars().count(), 80);
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
