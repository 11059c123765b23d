//! Names of objects: relative, normalised, no surprises.
//!
//! An [`ObjectPath`] is `name` or `folder/name`, so that it means the same on every file system and
//! every service, and no name that a store reports can lead out of the store.
//!
//! Invariant: each component has 1 to [`COMPONENT_BYTES_MAX`] bytes of `[0-9A-Za-z._-]` and does
//! not start with a dot, so callers join it to a directory or a URL without looking again.

use std::fmt;
use std::str::FromStr;

/// The longest component, in bytes; the shortest limit of the services is 255.
pub const COMPONENT_BYTES_MAX: usize = 200;

/// Why a text is not an [`ObjectPath`] or not a folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a name for an object: {reason}")]
pub struct PathInvalid {
    /// The text, cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Where an object is in its store: `name` or `folder/name`. Ordered by its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath {
    text: Box<str>,
}

impl ObjectPath {
    /// Takes a path that is valid as it stands; nothing is corrected.
    ///
    /// # Errors
    /// - [`PathInvalid`]: an empty or overlong component, a character or a leading dot that is not
    ///   allowed, or more than two components.
    pub fn new(text: &str) -> Result<Self, PathInvalid> {
        let valid = match text.split_once('/') {
            Some((folder, name)) => check_component(folder).and_then(|()| check_component(name)),
            None => check_component(text),
        };
        match valid {
            Ok(()) => Ok(Self { text: text.into() }),
            Err(reason) => Err(PathInvalid::new(text, reason)),
        }
    }

    /// The object `name` of `folder`; the empty folder is the root.
    ///
    /// # Errors
    /// - [`PathInvalid`]: as for [`ObjectPath::new`].
    pub fn in_folder(folder: &str, name: &str) -> Result<Self, PathInvalid> {
        if folder.is_empty() { Self::new(name) } else { Self::new(&format!("{folder}/{name}")) }
    }

    /// The folder; empty for an object of the root.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.text.split_once('/').map_or("", |(folder, _)| folder)
    }

    /// The name within the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.split_once('/').map_or(&self.text, |(_, name)| name)
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectPath({})", self.text)
    }
}

impl FromStr for ObjectPath {
    type Err = PathInvalid;

    fn from_str(text: &str) -> Result<Self, PathInvalid> {
        Self::new(text)
    }
}

impl PathInvalid {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), reason }
    }
}

/// Checks the name of a folder; the empty one is the root.
///
/// # Errors
/// - [`PathInvalid`]: it cannot be the first component of an [`ObjectPath`].
pub fn check_folder(folder: &str) -> Result<(), PathInvalid> {
    if folder.is_empty() {
        return Ok(());
    }
    check_component(folder).map_err(|reason| PathInvalid::new(folder, reason))
}

fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("a part of it is empty");
    }
    if component.len() > COMPONENT_BYTES_MAX {
        return Err("a part of it is longer than 200 bytes");
    }
    if component.starts_with('.') {
        return Err("a part of it starts with a dot");
    }
    if component.contains('/') {
        return Err("it has more than two parts");
    }
    if !component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("only letters of ASCII, digits, '.', '_' and '-' are allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, folder: &str, name: &str) {
        let path = ObjectPath::new(text).unwrap();
        assert_eq!((path.folder(), path.name()), (folder, name));
        assert_eq!(path.to_string(), text);
        assert_eq!(path.as_str(), text);
        assert_eq!(ObjectPath::in_folder(folder, name), Ok(path));
    }

    #[track_caller]
    fn check_refused(text: &str) {
        assert!(ObjectPath::new(text).is_err(), "{text:?} was accepted");
    }

    #[test]
    fn valid_paths_keep_their_folder_and_name() {
        let longest = "x".repeat(COMPONENT_BYTES_MAX);
        check("PUTBACK.txt", "", "PUTBACK.txt");
        check("packs/0af3", "packs", "0af3");
        check("config/1-00_b.c", "config", "1-00_b.c");
        check("a../b..", "a..", "b..");
        check("-/_", "-", "_");
        check(&format!("{longest}/{longest}"), &longest, &longest);
    }

    #[test]
    fn paths_that_could_mean_another_place_are_refused() {
        for text in ["", "/", "a/", "/a", "a//b", "a/b/c", ".", "..", "a/..", "../a", "./a"] {
            check_refused(text);
        }
        for text in [".tmp-1", "packs/.tmp-1", "a b", "a\\b", "C:", "a/b\0", "ä", "a\n", "a:b", "~"]
        {
            check_refused(text);
        }
        check_refused(&"x".repeat(COMPONENT_BYTES_MAX + 1));
        check_refused(&format!("a/{}", "x".repeat(COMPONENT_BYTES_MAX + 1)));
    }

    #[test]
    fn a_folder_is_one_component_or_the_root() {
        assert_eq!(check_folder(""), Ok(()));
        assert_eq!(check_folder("packs"), Ok(()));
        for folder in ["a/b", "..", ".", "/", "a/", ".git", "a b"] {
            assert!(check_folder(folder).is_err(), "{folder:?} was accepted");
        }
    }

    #[test]
    fn the_error_quotes_no_more_than_80_characters() {
        let error = ObjectPath::new(&"ä".repeat(500)).unwrap_err();
        assert_eq!(error.text.chars().count(), 80);
    }
}
