//! What operating systems do differently below a [`LocalStore`](super::LocalStore).
//!
//! Each function has one meaning everywhere; where a system lacks the means, it says so by its
//! return value or does less, as documented, and never pretends.

use std::io;
use std::path::Path;

use fs_err::{File, OpenOptions};

use crate::Space;

/// Opens a new file for writing that nobody else may read; it must not exist.
pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    keep_private(&mut options);
    options.open(path)
}

/// Opens the file that is locked, made on demand.
pub(super) fn open_lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    keep_private(&mut options);
    options.open(path)
}

#[cfg(unix)]
fn keep_private(options: &mut OpenOptions) {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn keep_private(_options: &mut OpenOptions) {}

/// Makes one directory that nobody else may enter.
#[cfg(unix)]
pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, rustix::fs::Mode::RWXU)?)
}

/// Makes one directory; who may enter follows from its parent.
#[cfg(not(unix))]
pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    fs_err::create_dir(path)
}

/// Starts to write `length` bytes at `offset` to the disk without waiting for them.
///
/// Linux starts asynchronous writeback of the dirty pages that it is told will not be needed
/// (`mm/fadvise.c`); pages still being written stay cached. The sync at the end of a long upload
/// then finds little left to do. Only a matter of speed, so a failure is of no interest.
#[cfg(target_os = "linux")]
pub(super) fn start_writeback(file: &File, offset: u64, length: u64) {
    let length = std::num::NonZeroU64::new(length);
    let _ = rustix::fs::fadvise(file.file(), offset, length, rustix::fs::Advice::DontNeed);
}

/// Nothing: this system cannot be told.
#[cfg(not(target_os = "linux"))]
pub(super) fn start_writeback(_file: &File, _offset: u64, _length: u64) {}

/// Makes the names in a directory durable.
///
/// File systems that cannot do this answer that the request makes no sense; they are taken at
/// their word, since there is nothing else to ask them for.
#[cfg(unix)]
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;

    let directory = File::open(path)?;
    directory.file().sync_all().or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        _ => Err(error),
    })
}

/// Nothing: NTFS journals names, and directories cannot be synced.
#[cfg(not(unix))]
pub(super) fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes the bytes of a file durable that another writer has put in place.
#[cfg(unix)]
pub(super) fn sync_existing(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the bytes of a file durable that another writer has put in place.
#[cfg(not(unix))]
pub(super) fn sync_existing(path: &Path) -> io::Result<()> {
    // Windows flushes only handles that may write.
    OpenOptions::new().write(true).open(path)?.sync_all()
}

/// Renames in one step unless `to` exists, which is [`io::ErrorKind::AlreadyExists`].
/// [`io::ErrorKind::Unsupported`] where the system or the file system cannot.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
pub(super) fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(|errno| match errno {
        // EINVAL: the file system does not know the flag (NFS, several FUSE file systems).
        Errno::INVAL | Errno::NOSYS | Errno::NOTSUP => io::ErrorKind::Unsupported.into(),
        errno => errno.into(),
    })
}

/// Always [`io::ErrorKind::Unsupported`].
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(super) fn rename_exclusively(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Free and total bytes of the file system that holds `path`, where the system tells.
#[cfg(unix)]
pub(super) fn space(path: &Path) -> io::Result<Option<Space>> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Some(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
    }))
}

/// Free and total bytes of the file system that holds `path`, where the system tells.
#[cfg(not(unix))]
pub(super) fn space(path: &Path) -> io::Result<Option<Space>> {
    fs_err::metadata(path).map(|_| None)
}
