//! Files that are being written, and how they become objects.
//!
//! A [`Temporary`] is a file of a hidden, random name in the folder of its object; it vanishes with
//! its value unless [`Temporary::place`] succeeded. What a killed process left behind is removed
//! by [`remove_stale`] after [`AGE_MAX`].
//!
//! Invariant: an object is visible only after its bytes were synced, and no existing file is ever
//! replaced.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err::File;

use super::platform;

/// How the names of unfinished files start. No valid object path does.
const PREFIX: &str = ".tmp-";

/// How long an unfinished file may go without being written to before it counts as left behind.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Writeback is started whenever this many bytes have come.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// How bytes and names become durable; replaced by tests to see what a failing disk does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durability {
    pub(super) sync_file: fn(&File) -> io::Result<()>,
    pub(super) sync_directory: fn(&Path) -> io::Result<()>,
}

impl Default for Durability {
    fn default() -> Self {
        Self { sync_file: File::sync_all, sync_directory: platform::sync_directory }
    }
}

/// A file under a temporary name.
#[derive(Debug)]
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    bytes_written: u64,
    bytes_given_to_disk: u64,
    is_placed: bool,
}

/// What became of a [`Temporary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
}

/// Why a [`Temporary`] did not become an object.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// The name is taken by a file of this other size, or by something that is no file.
    Taken { size: u64 },
    /// The system says no.
    Io(io::Error),
}

impl From<io::Error> for PlaceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Temporary {
    /// Makes an empty file in `directory`, which exists.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        let path = directory.join(format!("{PREFIX}{random:016x}"));
        let file = platform::create_private_file(&path)?;
        Ok(Self { file, path, bytes_written: 0, bytes_given_to_disk: 0, is_placed: false })
    }

    /// When the file was written last, by the clock of its file system.
    pub(super) fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes_written += bytes.len() as u64;
        let pending = self.bytes_written - self.bytes_given_to_disk;
        if pending >= WRITEBACK_BYTES {
            platform::start_writeback(&self.file, self.bytes_given_to_disk, pending);
            self.bytes_given_to_disk = self.bytes_written;
        }
        Ok(())
    }

    /// Makes the bytes durable, then visible as `target`, a name in the same directory, then the
    /// name durable. A file of the same size that is there already is as good.
    pub(super) fn place(
        mut self,
        target: &Path,
        durability: Durability,
    ) -> Result<Placed, PlaceError> {
        (durability.sync_file)(&self.file)?;
        let metadata = self.file.metadata()?;
        let mut placed = Placed { size: metadata.len(), modified: metadata.modified().ok() };
        if placed.size != self.bytes_written {
            return Err(io::Error::other(format!(
                "{} bytes were written but the file has {}",
                self.bytes_written, placed.size
            ))
            .into());
        }

        let is_new = move_into_place(&self.path, target)?;
        self.is_placed = is_new;
        if !is_new {
            let existing = fs_err::metadata(target)?;
            if !existing.is_file() || existing.len() != placed.size {
                return Err(PlaceError::Taken { size: existing.len() });
            }
            // Whoever put it there may not have synced it, or not yet.
            platform::sync_existing(target)?;
            placed.modified = existing.modified().ok();
        }

        let directory = target.parent().unwrap_or(Path::new("."));
        if let Err(error) = (durability.sync_directory)(directory) {
            // The caller will not count on this object, so nobody else should find it either.
            if is_new {
                drop(fs_err::remove_file(target));
            }
            return Err(error.into());
        }
        Ok(placed)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // What cannot be removed now is removed when it is stale.
            drop(fs_err::remove_file(&self.path));
        }
    }
}

/// Renames `from` to `to` unless `to` exists; says whether it did. Afterwards `from` may still
/// exist if it did not.
fn move_into_place(from: &Path, to: &Path) -> io::Result<bool> {
    for way in [platform::rename_exclusively, link_exclusively] {
        match way(from, to) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
    }
    rename_if_absent(from, to)
}

/// Gives the file its new name by a hard link, which never replaces anything.
/// [`io::ErrorKind::Unsupported`] where there are no hard links.
fn link_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    match fs_err::hard_link(from, to) {
        Ok(()) => {
            // The object is complete; a second name that cannot be removed now becomes stale.
            drop(fs_err::remove_file(from));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A missing file or folder is not going to appear for the next way.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // File systems without links answer EPERM, EOPNOTSUPP, ENOSYS or EINVAL.
        Err(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The last resort, for file systems that can neither rename exclusively nor link: two writers of
/// one name may both succeed, which does no harm as long as names follow from content.
fn rename_if_absent(from: &Path, to: &Path) -> io::Result<bool> {
    match fs_err::symlink_metadata(to) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs_err::rename(from, to).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Removes unfinished files of `directory` that were written last [`AGE_MAX`] before `now`, the
/// time of the same file system. Best effort: it is only about space.
pub(super) fn remove_stale(directory: &Path, now: SystemTime) {
    let Ok(entries) = fs_err::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age >= AGE_MAX) {
            drop(fs_err::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `way` towards a free name and towards a taken one.
    #[track_caller]
    fn check(way: impl Fn(&Path, &Path) -> io::Result<bool>) {
        let folder = tempfile::tempdir().unwrap();
        let [from, free, taken] = ["from", "free", "taken"].map(|name| folder.path().join(name));
        fs_err::write(&from, b"new").unwrap();
        fs_err::write(&taken, b"old").unwrap();

        assert!(!way(&from, &taken).unwrap());
        assert_eq!(fs_err::read(&taken).unwrap(), b"old");
        assert_eq!(fs_err::read(&from).unwrap(), b"new");

        assert!(way(&from, &free).unwrap());
        assert_eq!(fs_err::read(&free).unwrap(), b"new");
        assert!(!from.exists());

        assert_eq!(
            way(&from, &folder.path().join("x")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    fn said_by_kind(result: io::Result<()>) -> io::Result<bool> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            result => result.map(|()| true),
        }
    }

    #[test]
    fn no_way_of_placing_a_file_replaces_another() {
        check(move_into_place);
        check(rename_if_absent);
        check(|from, to| said_by_kind(link_exclusively(from, to)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_renames_exclusively() {
        check(|from, to| said_by_kind(platform::rename_exclusively(from, to)));
    }

    #[test]
    fn only_unfinished_files_of_a_day_ago_are_stale() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (name, age) in [
            (".tmp-0000000000000001", AGE_MAX),
            (".tmp-0000000000000002", AGE_MAX - Duration::from_secs(1)),
            ("object", AGE_MAX * 100),
            (".other", AGE_MAX * 100),
        ] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(now - age).unwrap();
        }
        let file = File::create(folder.path().join(".tmp-0000000000000003")).unwrap();
        file.set_modified(now + AGE_MAX * 2).unwrap();

        remove_stale(folder.path(), now);

        let mut left: Vec<_> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".other", ".tmp-0000000000000002", ".tmp-0000000000000003", "object"]);
    }
}
