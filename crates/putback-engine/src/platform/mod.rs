//! The only module that knows the operating system.
//!
//! Reading: [`Directory`] is a handle through which everything in it is reached by plain name, so that a
//! link swapped in between two calls leads nowhere; [`Stat`] is what the system says about one object.
//! Names are raw bytes. Owners get their names from [`Users`].
//!
//! Writing: [`TargetDirectory`] is a handle below which a restore puts things; [`TargetMetadata`] is what it then
//! sets. No call of either leaves the directory or follows a link, whatever a name says.
//!
//! `unix.rs` serves Linux in full and other Unix systems with what they share with it; `other.rs` is
//! built on the standard library alone and keeps what that can see.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use putback_format::tree::{Extent, Timestamp, Xattr};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
mod other_target;
mod target;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod unix_target;
mod users;

#[cfg(not(unix))]
use {other as system, other_target as system_target};
#[cfg(unix)]
use {unix as system, unix_target as system_target};

pub use putback_store::at::{read_exact_at, write_all_at};
pub use system::{Directory, open_files_limit, raise_open_files_limit};
pub use system_target::TargetDirectory;
pub use target::{
    MetadataProblem, MetadataStep, Removal, TargetMetadata, add_flags, apply_metadata, punch_hole,
};
pub use users::Users;

/// What kind of object a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// What the system says about one object, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of content or metadata.
    pub ctime: Timestamp,
    /// Creation, where the file system tells.
    pub btime: Option<Timestamp>,
    /// Device that holds it, as `major << 32 | minor`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of hard links.
    pub links: u64,
    /// Major number of the device that it stands for.
    pub rdev_major: u32,
    /// Minor number of the device that it stands for.
    pub rdev_minor: u32,
    /// `STATX_ATTR_*` bits among [`FLAGS_KEPT`].
    pub flags: u64,
    /// Something is mounted here, perhaps a folder of the same device. False where the system does not tell: it takes
    /// Linux 5.8.
    pub is_mount_root: bool,
}

impl Stat {
    /// What tells this object from all others as long as it exists.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { device: self.device, inode: self.inode }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it takes less space than its size says: it has holes, or its file system compresses.
    #[must_use]
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device, as [`Stat::device`].
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// `STATX_ATTR_COMPRESSED`.
pub const FLAG_COMPRESSED: u64 = 0x4;
/// `STATX_ATTR_IMMUTABLE`.
pub const FLAG_IMMUTABLE: u64 = 0x10;
/// `STATX_ATTR_APPEND`.
pub const FLAG_APPEND: u64 = 0x20;
/// `STATX_ATTR_NODUMP`.
pub const FLAG_NODUMP: u64 = 0x40;
/// The flags of which each, once set, keeps even root from changing, renaming or linking the file.
pub const FLAGS_CLOSING: u64 = FLAG_IMMUTABLE | FLAG_APPEND;
/// The flags that a backup keeps.
pub const FLAGS_KEPT: u64 = FLAG_COMPRESSED | FLAG_IMMUTABLE | FLAG_APPEND | FLAG_NODUMP;

/// Extended attributes as far as they could be read.
#[derive(Debug, Default)]
pub struct Xattrs {
    /// Sorted by name.
    pub list: Vec<Xattr>,
    /// Why the list is not complete, for a person.
    pub problem: Option<String>,
}

/// The names in a directory, sorted by their bytes.
///
/// Costs the bytes of the names and 8 more for each: a million names of 20 bytes take 28 MB.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    /// Start of each name in `bytes` (40 bits), its length (16 bits) and the hint of its kind (8 bits).
    slots: Vec<u64>,
}

impl Names {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The name at `index`, and its kind where the directory itself tells.
    ///
    /// # Panics
    /// If `index` is not below [`Names::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> (&[u8], Option<FileKind>) {
        let slot = self.slots[index];
        (name_of_slot(&self.bytes, slot), kind_of_code(slot as u8))
    }

    /// The kind hint of `name` if it is there: `Some(None)` where the directory does not tell kinds.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Option<FileKind>> {
        let found = self.slots.binary_search_by(|slot| name_of_slot(&self.bytes, *slot).cmp(name));
        found.ok().map(|index| kind_of_code(self.slots[index] as u8))
    }

    /// Forgets all names and keeps the memory, unless a huge directory left a lot of it.
    pub fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        self.bytes.clear();
        self.slots.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.slots.shrink_to(KEPT_BYTES_MAX / 8);
    }

    fn push(&mut self, name: &[u8], kind: Option<FileKind>) {
        let start = self.bytes.len() as u64;
        debug_assert!(start < 1 << 40 && name.len() < 1 << 16);
        self.bytes.extend_from_slice(name);
        self.slots.push(start << 24 | (name.len() as u64) << 8 | u64::from(code_of_kind(kind)));
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| name_of_slot(bytes, *a).cmp(name_of_slot(bytes, *b)));
        // A directory that changes while it is listed may show a name twice.
        self.slots.dedup_by(|a, b| name_of_slot(bytes, *a) == name_of_slot(bytes, *b));
    }
}

fn name_of_slot(bytes: &[u8], slot: u64) -> &[u8] {
    let start = (slot >> 24) as usize;
    let length = usize::from((slot >> 8) as u16);
    &bytes[start..start + length]
}

fn code_of_kind(kind: Option<FileKind>) -> u8 {
    match kind {
        None => 0,
        Some(FileKind::File) => 1,
        Some(FileKind::Directory) => 2,
        Some(FileKind::Symlink) => 3,
        Some(FileKind::Fifo) => 4,
        Some(FileKind::Socket) => 5,
        Some(FileKind::CharacterDevice) => 6,
        Some(FileKind::BlockDevice) => 7,
    }
}

fn kind_of_code(code: u8) -> Option<FileKind> {
    match code {
        1 => Some(FileKind::File),
        2 => Some(FileKind::Directory),
        3 => Some(FileKind::Symlink),
        4 => Some(FileKind::Fifo),
        5 => Some(FileKind::Socket),
        6 => Some(FileKind::CharacterDevice),
        7 => Some(FileKind::BlockDevice),
        _ => None,
    }
}

/// What is at `path`; a link in its last place is not followed.
///
/// # Errors
/// The system's, without the path.
pub fn stat_path(path: &Path) -> io::Result<Stat> {
    system::stat_path(path)
}

/// What is at `path`, links followed.
///
/// # Errors
/// The system's, without the path.
pub fn stat_path_following(path: &Path) -> io::Result<Stat> {
    system::stat_path_following(path)
}

/// What an open file is now.
///
/// # Errors
/// The system's, without the path.
pub fn stat_file(file: &std::fs::File) -> io::Result<Stat> {
    system::stat_file(file)
}

/// Extended attributes of an open file, in one call to the system if it has none.
#[must_use]
pub fn file_xattrs(file: &std::fs::File) -> Xattrs {
    system::file_xattrs(file)
}

/// The runs of data of an open file of `size` bytes, ascending, not touching; what lies between is holes.
///
/// Asks the system twice per run; call it only if [`Stat::may_have_holes`]. One run of all bytes where the
/// file system does not tell. A file that shrinks meanwhile ends in a hole up to `size`, which reads as
/// it should: as zeros that are no longer there. At most [`putback_format::limits::HOLES_MAX`] holes are
/// told, the rest is data. The position of `file` is at its start afterwards.
///
/// # Errors
/// The system's, without the path.
pub fn data_extents(file: &std::fs::File, size: u64) -> io::Result<Vec<Extent>> {
    system::data_extents(file, size)
}

/// The holes of a file of `size` bytes whose data is at `data`.
#[must_use]
pub fn holes_between(data: &[Extent], size: u64) -> Vec<Extent> {
    let mut holes = Vec::new();
    let mut position = 0;
    for extent in data {
        if extent.offset > position {
            holes.push(Extent { offset: position, length: extent.offset - position });
        }
        position = extent.offset + extent.length;
    }
    if size > position {
        holes.push(Extent { offset: position, length: size - position });
    }
    holes
}

/// Name of this machine, empty if it has none.
#[must_use]
pub fn host_name() -> String {
    system::host_name()
}

/// Name of the user on whose behalf this process runs, or the number if there is no name.
#[must_use]
pub fn user_name(users: &Users) -> String {
    system::user_name(users)
}

/// Numeric owner that this process acts as; 0 may do everything.
#[must_use]
pub fn effective_uid() -> u32 {
    system::effective_uid()
}

/// Whether the machine has run out of something (open files, memory), so that no other path would fare better.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || system::is_exhaustion(error)
}

/// Whether opening a directory failed because there is something else, a link among others.
#[must_use]
pub fn is_not_a_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || system::is_link_refused(error)
}

/// The raw bytes of a path or name.
#[must_use]
pub fn bytes_of_path(path: &Path) -> Cow<'_, [u8]> {
    system::bytes_of_os(path.as_os_str())
}

/// The raw bytes of a name.
#[must_use]
pub fn bytes_of_os(name: &OsStr) -> Cow<'_, [u8]> {
    system::bytes_of_os(name)
}

/// The path that raw bytes stand for.
#[must_use]
pub fn path_of_bytes(bytes: &[u8]) -> PathBuf {
    system::path_of_bytes(bytes)
}

/// Whether `name` can stand for one thing in a directory: not empty, `.` or `..`, no `/`, no NUL.
#[must_use]
pub fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
        && system::is_plain_name_here(name)
}

/// Refuses what [`is_plain_name`] refuses, naming it.
fn check_plain_name(name: &[u8]) -> io::Result<()> {
    if is_plain_name(name) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(name);
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("'{}' is not the name of a file", shown.escape_debug()),
    ))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
