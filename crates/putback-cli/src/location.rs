//! From a location that the user wrote to a store.
//!
//! A plain path or `file:///...` is a folder on a local disk, `name:path` a folder of a storage that
//! the configuration names. Other schemes are recognised so that a mistyped or not yet supported one
//! is never taken for a folder; further services plug in at [`open_store`].

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use putback_store::Store;
use putback_store::local::LocalStore;

use crate::bytes;
use crate::context::Context;
use crate::report::Failure;
use crate::storages::open;
use crate::ui::text;

/// What a location means.
#[derive(Debug, PartialEq, Eq)]
enum Location {
    /// A folder.
    Local(PathBuf),
    /// A storage that the configuration names, and a folder in it.
    Storage { name: String, path: String },
    /// A service by its scheme.
    Scheme(String),
}

/// The folder at `location`, if it is on this machine.
pub(crate) fn local_folder(location: &OsStr) -> anyhow::Result<Option<PathBuf>> {
    Ok(match parse(location)? {
        Location::Local(path) => Some(path),
        Location::Storage { .. } | Location::Scheme(_) => None,
    })
}

/// Opens the store at `location`; nothing is read yet.
pub(crate) fn open_store(context: &Context, location: &OsStr) -> anyhow::Result<Arc<dyn Store>> {
    match parse(location)? {
        Location::Local(path) => {
            let path = std::path::absolute(&path).map_err(|error| {
                anyhow::Error::new(error).context(format!("cannot use {}", shown(location)))
            })?;
            Ok(Arc::new(LocalStore::new(path)))
        }
        Location::Storage { name, path } => {
            let storage =
                context.storages.get(&name).map_err(|failure| or_folder(failure, &name))?;
            open::store(context, storage, &path)
        }
        Location::Scheme(scheme) => Err(Failure::usage_with(
            format!("this version of putback does not support '{scheme}://' locations"),
            "give a folder, as a path or as file:///path, or STORAGE:PATH",
        )
        .into()),
    }
}

/// A name that no storage has may be meant as a part of a folder's.
fn or_folder(failure: Failure, name: &str) -> Failure {
    match failure {
        Failure::Usage { message, hint } => {
            let folder = format!("if '{name}:...' is a folder, write it with a leading ./");
            Failure::Usage {
                message,
                hint: Some(hint.map_or_else(|| folder.clone(), |hint| format!("{hint}; {folder}"))),
            }
        }
        other => other,
    }
}

fn parse(location: &OsStr) -> Result<Location, Failure> {
    let raw = location.as_encoded_bytes();
    if raw.is_empty() {
        return Err(Failure::usage("the location of the repository is empty"));
    }
    let before_slash = raw.split(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(colon) = before_slash.iter().position(|byte| *byte == b':') else {
        return Ok(Location::Local(PathBuf::from(location)));
    };
    let name = String::from_utf8_lossy(&raw[..colon]).into_owned();
    let is_drive = cfg!(windows) && colon == 1 && raw[0].is_ascii_alphabetic();
    if name.is_empty() || is_drive {
        return Ok(Location::Local(PathBuf::from(location)));
    }
    let Some(rest) = raw[colon..].strip_prefix(b"://") else {
        let path = std::str::from_utf8(&raw[colon + 1..])
            .map_err(|_| Failure::usage(format!("the path in {} is not UTF-8", shown(location))))?;
        return Ok(Location::Storage { name: text::printable(&name), path: path.to_owned() });
    };
    if !name.eq_ignore_ascii_case("file") {
        return Ok(Location::Scheme(text::printable(&name)));
    }
    let path = rest.strip_prefix(b"localhost").unwrap_or(rest);
    if !path.starts_with(b"/") {
        return Err(Failure::usage_with(
            "a file:// location names a host",
            "write three slashes, as in file:///srv/backup",
        ));
    }
    let path = percent_decoded(path)
        .ok_or_else(|| Failure::usage("a file:// location has an invalid % sequence"))?;
    Ok(Location::Local(PathBuf::from(bytes::to_os_string(path)?)))
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let high = digit(*rest.next()?)?;
            let low = digit(*rest.next()?)?;
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// `location` for a person.
pub(crate) fn shown(location: &OsStr) -> String {
    text::escaped(location.as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_folder_unless_it_names_a_storage_or_a_scheme() {
        let local = |path: &str| Location::Local(PathBuf::from(path));
        let storage = |name: &str, path: &str| Location::Storage {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("/srv/backup", local("/srv/backup")),
            ("backup", local("backup")),
            ("./odd:name", local("./odd:name")),
            ("a/b:c", local("a/b:c")),
            (":odd", local(":odd")),
            ("file:///srv/my%20backup", local("/srv/my backup")),
            ("FILE://localhost/srv", local("/srv")),
            ("putio:backup/a:b", storage("putio", "backup/a:b")),
            ("putio:", storage("putio", "")),
            ("putio:/backup", storage("putio", "/backup")),
            ("s3://bucket/x", Location::Scheme("s3".to_owned())),
        ] {
            assert_eq!(parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        for text in ["", "file://host/x", "file:///a%2", "file:///a%zz"] {
            assert!(parse(OsStr::new(text)).is_err(), "{text}");
        }
    }
}
