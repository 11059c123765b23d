//! Writing through the standard library alone: by path, checked for links before each step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use putback_format::tree::{Extent, Timestamp};

use super::target::{MetadataProblem, MetadataStep, Removal, TargetMetadata};
use super::{Directory, FileKind, Names, Stat, check_plain_name, path_of_bytes};

/// A directory that a restore writes to.
#[derive(Debug)]
pub struct TargetDirectory {
    directory: Directory,
}

impl TargetDirectory {
    /// Opens the target itself, links followed: it is what the user named.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: Directory::open(path)? })
    }

    /// Makes the target with all directories above it, as far as they are missing, and opens it.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn create_all(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// Opens the directory `name`; a link there is refused.
    ///
    /// # Errors
    /// The system's, without the path; `InvalidInput` for a name that is none.
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self { directory: self.directory.open_child(name)? })
    }

    /// Opens a directory further down; a link on the way is refused, and so is every `..`.
    ///
    /// # Errors
    /// As [`TargetDirectory::open_child`].
    pub fn open_below(&self, path: &[u8]) -> io::Result<Self> {
        let mut below = Self { directory: self.directory.open_again()? };
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            below = below.open_child(name)?;
        }
        Ok(below)
    }

    /// Makes the directory `name`, which must not exist, and opens it.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn create_child(&self, name: &[u8]) -> io::Result<Self> {
        fs::create_dir(self.directory.child(name)?)?;
        self.open_child(name)
    }

    /// Opens the directory `name`, or makes it; says whether it was made.
    ///
    /// # Errors
    /// As [`TargetDirectory::open_child`]; something else than a directory is not replaced.
    pub fn open_or_create_child(&self, name: &[u8]) -> io::Result<(Self, bool)> {
        match self.create_child(name) {
            Ok(child) => Ok((child, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok((self.open_child(name)?, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the file `name`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn create_file(&self, name: &[u8]) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.directory.child(name)?)
    }

    /// As [`TargetDirectory::create_file`]; there are no permission bits here.
    ///
    /// # Errors
    /// As [`TargetDirectory::create_file`].
    pub fn create_file_with_mode(&self, name: &[u8], _mode: u32) -> io::Result<File> {
        self.create_file(name)
    }

    /// Makes a file under a name that nothing has, to be renamed when it is complete.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn create_temporary_file(&self) -> io::Result<(Vec<u8>, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!(".putback-{:x}-{number:x}.tmp", std::process::id()).into_bytes();
            match self.create_file(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return Ok((name, result?)),
            }
        }
    }

    /// Opens the existing regular file `name` for reading.
    ///
    /// # Errors
    /// The system's, without the path; `InvalidInput` if it is anything else.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        self.directory.open_file(name)
    }

    /// Opens the existing regular file `name` for reading and writing in place.
    ///
    /// # Errors
    /// As [`TargetDirectory::open_file`].
    pub fn open_file_for_writing(&self, name: &[u8]) -> io::Result<File> {
        let path = self.directory.child(name)?;
        if fs::symlink_metadata(&path)?.is_file() {
            return OpenOptions::new().read(true).write(true).open(path);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// Gives the file `from` the name `to`, replacing a file that has it.
    ///
    /// # Errors
    /// The system's, without the path; a directory is not replaced.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        fs::rename(self.directory.child(from)?, self.directory.child(to)?)
    }

    /// Gives the file `from` the name `to`, which must not exist. A file that gets it at the same moment may be
    /// replaced.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn rename_new(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        match self.stat(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(error) => Err(error),
        }
    }

    /// Makes the link `name`, which must not exist.
    ///
    /// # Errors
    /// The system's, without the path; `Unsupported` where there are no links.
    pub fn create_symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        create_symlink(&path_of_bytes(target), &self.directory.child(name)?)
    }

    /// Makes a special file; not possible here.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn create_special(
        &self,
        name: &[u8],
        _kind: FileKind,
        _major: u32,
        _minor: u32,
    ) -> io::Result<()> {
        check_plain_name(name)?;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes `name`, which must not exist, another name of a file that was restored before.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn create_hard_link(&self, from: &Self, from_name: &[u8], name: &[u8]) -> io::Result<()> {
        fs::hard_link(from.directory.child(from_name)?, self.directory.child(name)?)
    }

    /// Replaces `names` by what is in the directory, sorted.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn read_names(&self, names: &mut Names) -> io::Result<()> {
        self.directory.read_names(names)
    }

    /// What `name` is; a link is not followed.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        self.directory.stat(name)
    }

    /// What this directory is.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat_self(&self) -> io::Result<Stat> {
        self.directory.stat_self()
    }

    /// Where the link `name` points.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.directory.read_link(name)
    }

    /// The same directory for reading.
    #[must_use]
    pub fn as_directory(&self) -> &Directory {
        &self.directory
    }

    /// Removes anything but a directory.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        fs::remove_file(self.directory.child(name)?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn remove_directory(&self, name: &[u8]) -> io::Result<()> {
        fs::remove_dir(self.directory.child(name)?)
    }

    /// Removes `name` and, if it is a directory, everything in it, without following links.
    #[must_use]
    pub fn remove_all(&self, name: &[u8]) -> Removal {
        let result = self.stat(name).and_then(|stat| match stat.is_directory() {
            true => fs::remove_dir_all(self.directory.child(name)?),
            false => self.remove_file(name),
        });
        match result {
            Ok(()) => Removal { removed: 1, problems: Vec::new() },
            Err(error) => Removal { removed: 0, problems: vec![(name.to_vec(), error)] },
        }
    }

    /// Sets the metadata of this directory: nothing that this system has.
    #[must_use]
    pub fn apply_metadata_to_self(&self, _metadata: &TargetMetadata<'_>) -> Vec<MetadataProblem> {
        Vec::new()
    }

    /// Sets the metadata of something that is not open: nothing that this system has.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is none.
    pub fn apply_metadata(
        &self,
        name: &[u8],
        _metadata: &TargetMetadata<'_>,
    ) -> io::Result<Vec<MetadataProblem>> {
        check_plain_name(name)?;
        Ok(Vec::new())
    }
}

#[cfg(windows)]
fn create_symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(not(windows))]
fn create_symlink(_target: &Path, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the file may be written, and its time.
pub(super) fn apply_metadata(file: &File, metadata: &TargetMetadata<'_>) -> Vec<MetadataProblem> {
    let mut problems = Vec::new();
    let mut tell = |step, result: io::Result<()>| {
        if let Err(error) = result {
            problems.push(MetadataProblem {
                step,
                is_for_lack_of_privilege: false,
                message: error.to_string(),
            });
        }
    };
    // The time first: it cannot be set once the file is read-only.
    tell(MetadataStep::Times, file.set_modified(system_time(metadata.mtime)));
    let read_only = file.metadata().map(|found| {
        let mut permissions = found.permissions();
        permissions.set_readonly(metadata.mode & 0o200 == 0);
        permissions
    });
    tell(MetadataStep::Mode, read_only.and_then(|permissions| file.set_permissions(permissions)));
    problems
}

/// There are none here.
pub(super) fn add_flags(_file: &File, _flags: u64) -> Vec<MetadataProblem> {
    Vec::new()
}

/// A time that this system cannot express becomes the start of its count.
fn system_time(time: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(time.nanoseconds.into());
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let start = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    start.and_then(|start| start.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

pub(super) fn punch_hole(_file: &File, _hole: Extent) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
