//! Any system, through the standard library alone.
//!
//! Names are reached by path, owners and inode numbers are unknown, and attributes stay behind. On Windows a
//! path `C:\a` is `/C:/a` here, so that one tree holds all drives.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use putback_format::tree::{Extent, Timestamp};

use super::{FileKind, Names, Stat, Users, Xattrs, check_plain_name};

/// A directory. There is no handle: everything in it is reached by its path.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`, links followed.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        if fs::metadata(path)?.is_dir() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(io::ErrorKind::NotADirectory.into())
    }

    /// Opens the directory at `path`, refusing a link at any place of it.
    ///
    /// # Errors
    /// The system's, without the path; [`super::is_not_a_directory`] tells a link.
    pub fn open_without_links(path: &Path) -> io::Result<Self> {
        for place in path.ancestors().filter(|place| !place.as_os_str().is_empty()) {
            if fs::symlink_metadata(place)?.is_symlink() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Self::open(path)
    }

    /// Opens the directory `name` in this one; a link there is refused.
    ///
    /// # Errors
    /// The system's, without the path; [`super::is_not_a_directory`] tells a link or a file.
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        self.open_passage(name, false)
    }

    /// Opens the directory `name` in this one as a place to pass through.
    ///
    /// # Errors
    /// As [`Directory::open_child`].
    pub fn open_passage(&self, name: &[u8], follow_links: bool) -> io::Result<Self> {
        let path = self.child(name)?;
        if !follow_links && fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Self::open(&path)
    }

    /// Opens the directory that holds this one now.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open_parent(&self) -> io::Result<Self> {
        Self::open(self.path.parent().unwrap_or(&self.path))
    }

    /// Replaces `names` by what is in the directory, sorted.
    ///
    /// # Errors
    /// The system's, without the path. What was read until then is in `names`.
    pub fn read_names(&self, names: &mut Names) -> io::Result<()> {
        names.clear();
        let result = (|| {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                names.push(
                    &bytes_of_os(&entry.file_name()),
                    entry.file_type().ok().and_then(kind_of),
                );
            }
            Ok(())
        })();
        names.sort();
        result
    }

    /// What `name` in this directory is; a link is not followed.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        stat_path(&self.child(name)?)
    }

    /// What this directory is.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat_self(&self) -> io::Result<Stat> {
        stat_path_following(&self.path)
    }

    /// Opens the file `name` for reading. A link is refused.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let path = self.child(name)?;
        if fs::symlink_metadata(&path)?.is_file() {
            return File::open(path);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// Where the link `name` points.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(bytes_of_os(fs::read_link(self.child(name)?)?.as_os_str()).into_owned())
    }

    /// Extended attributes of this directory: none here.
    #[must_use]
    pub fn xattrs(&self) -> Xattrs {
        Xattrs::default()
    }

    /// Extended attributes of `name`: none here.
    #[must_use]
    pub fn entry_xattrs(&self, _name: &[u8]) -> Xattrs {
        Xattrs::default()
    }

    /// Another handle of the same directory.
    pub(super) fn open_again(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone() })
    }

    pub(super) fn child(&self, name: &[u8]) -> io::Result<PathBuf> {
        check_plain_name(name)?;
        Ok(self.path.join(String::from_utf8_lossy(name).as_ref()))
    }
}

fn kind_of(file_type: fs::FileType) -> Option<FileKind> {
    if file_type.is_dir() {
        Some(FileKind::Directory)
    } else if file_type.is_symlink() {
        Some(FileKind::Symlink)
    } else if file_type.is_file() {
        Some(FileKind::File)
    } else {
        None
    }
}

pub(super) fn stat_path(path: &Path) -> io::Result<Stat> {
    stat_of(&fs::symlink_metadata(path)?)
}

pub(super) fn stat_path_following(path: &Path) -> io::Result<Stat> {
    stat_of(&fs::metadata(path)?)
}

pub(super) fn stat_file(file: &File) -> io::Result<Stat> {
    stat_of(&file.metadata()?)
}

fn stat_of(metadata: &Metadata) -> io::Result<Stat> {
    let kind = kind_of(metadata.file_type()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "this kind of file is unknown")
    })?;
    let mtime = metadata.modified().map(timestamp_of).unwrap_or_default();
    let mode = match (kind, metadata.permissions().readonly()) {
        (FileKind::Directory, _) => 0o755,
        (_, true) => 0o444,
        (_, false) => 0o644,
    };
    Ok(Stat {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: metadata.len(),
        blocks: metadata.len().div_ceil(512),
        mtime,
        ctime: mtime,
        btime: metadata.created().ok().map(timestamp_of),
        device: 0,
        inode: 0,
        links: 1,
        rdev_major: 0,
        rdev_minor: 0,
        flags: 0,
        is_mount_root: false,
    })
}

fn timestamp_of(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            Timestamp { seconds, nanoseconds: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let borrowed = i64::from(before.subsec_nanos() > 0);
            let seconds =
                i64::try_from(before.as_secs()).unwrap_or(i64::MAX).saturating_neg() - borrowed;
            Timestamp {
                seconds,
                nanoseconds: (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000,
            }
        }
    }
}

pub(super) fn file_xattrs(_file: &File) -> Xattrs {
    Xattrs::default()
}

pub(super) fn data_extents(_file: &File, size: u64) -> io::Result<Vec<Extent>> {
    Ok(if size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: size }] })
}

pub(super) fn host_name() -> String {
    let output = std::process::Command::new("hostname").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

pub(super) fn user_name(_users: &Users) -> String {
    let output = std::process::Command::new("whoami").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

pub(super) fn effective_uid() -> u32 {
    0
}

/// Allows this process as many open files as the system permits. Nothing to do here.
pub fn raise_open_files_limit() {}

/// How many files this process may have open at a time. Nothing here counts them.
#[must_use]
pub fn open_files_limit() -> u64 {
    u64::MAX
}

pub(super) fn is_exhaustion(_error: &io::Error) -> bool {
    false
}

pub(super) fn is_link_refused(_error: &io::Error) -> bool {
    false
}

pub(super) fn bytes_of_os(name: &OsStr) -> Cow<'_, [u8]> {
    let text = name.to_string_lossy();
    if !text.contains(['\\', ':']) {
        return Cow::Owned(text.into_owned().into_bytes());
    }
    let slashes = text.replace('\\', "/");
    let has_drive = slashes.as_bytes().get(1) == Some(&b':');
    Cow::Owned(if has_drive { format!("/{slashes}").into_bytes() } else { slashes.into_bytes() })
}

pub(super) fn path_of_bytes(bytes: &[u8]) -> PathBuf {
    let text = String::from_utf8_lossy(bytes);
    match text.as_bytes() {
        [b'/', _, b':', ..] => PathBuf::from(&text[1..]),
        _ => PathBuf::from(text.as_ref()),
    }
}

/// Separators and streams of Windows.
pub(super) fn is_plain_name_here(name: &[u8]) -> bool {
    !name.iter().any(|byte| matches!(byte, b'\\' | b':'))
}
