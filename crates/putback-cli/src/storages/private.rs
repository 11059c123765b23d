//! Files for their owner alone, replaced as a whole or not at all.

use std::fs::Metadata;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces the content of `path`, or makes it: readable by its owner alone, unless it exists and
/// has other permissions, which stay. Whoever reads it meanwhile sees the old content or the new.
///
/// Folders that do not exist are made for their owner alone. A symbolic link stays one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = target_of(path);
    let before = fs_err::metadata(&path).ok();
    write(&path, content, before.as_ref())
}

/// The same for a secret: whatever was there, afterwards its owner alone can read it.
pub(crate) fn replace_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    write(&target_of(path), content, None)
}

fn write(path: &Path, content: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    let folder = super::folder_of(path);
    create_folder(folder)?;
    let mut file = tempfile::Builder::new().prefix(".putback-").tempfile_in(folder)?;
    file.write_all(content)?;
    if let Some(like) = like {
        keep_owner(file.as_file(), like)?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Whether somebody else than the owner may read the file.
#[cfg(unix)]
pub(crate) fn is_open_to_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

/// Whether somebody else than the owner may read the file.
#[cfg(not(unix))]
pub(crate) fn is_open_to_others(_: &Metadata) -> bool {
    false
}

/// Where a link leads; the path itself if it is none or leads nowhere.
fn target_of(path: &Path) -> PathBuf {
    match fs_err::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            fs_err::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
        }
        _ => path.to_path_buf(),
    }
}

#[cfg(unix)]
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> io::Result<()> {
    fs_err::create_dir_all(folder)
}

/// Gives the new file the permissions of the old one, and its owner where that is possible: the
/// administrator may have changed somebody's file.
#[cfg(unix)]
fn keep_owner(file: &std::fs::File, before: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        // Without the right to do so, the file is this user's from now on.
        drop(std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid())));
    }
    file.set_permissions(before.permissions())
}

#[cfg(not(unix))]
fn keep_owner(file: &std::fs::File, before: &Metadata) -> io::Result<()> {
    file.set_permissions(before.permissions())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs_err::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs_err::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_files_and_folders_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        replace(&path, b"one").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"one");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let names: Vec<_> = fs_err::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_file_keeps_its_permissions_and_a_secret_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs_err::write(&path, "old").unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!((fs_err::read(&path).unwrap().as_slice(), mode(&path)), (&b"new"[..], 0o640));
        assert!(is_open_to_others(&fs_err::metadata(&path).unwrap()));
        replace_secret(&path, b"secret").unwrap();
        assert_eq!((fs_err::read(&path).unwrap().as_slice(), mode(&path)), (&b"secret"[..], 0o600));
        assert!(!is_open_to_others(&fs_err::metadata(&path).unwrap()));
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs_err::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
    }
}
