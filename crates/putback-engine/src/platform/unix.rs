//! Unix. Linux in full: `statx`, `getdents64`, attributes of links through `/proc`; elsewhere what POSIX has.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use putback_format::limits::{XATTR_VALUE_BYTES_MAX, XATTRS_MAX};
use putback_format::tree::{Extent, Timestamp, Xattr};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{FileKind, Names, Stat, Users, Xattrs, check_plain_name};

/// An open directory. Everything in it is reached through the handle, never through its path.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    /// Opened by `O_PATH`: a place to start from, whose names cannot be listed.
    is_path_only: bool,
}

impl Directory {
    /// Opens the directory at `path`, links followed.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let descriptor = open_directory_at(CWD, path.as_os_str().as_bytes(), OFlags::empty())?;
        Ok(Self { descriptor, is_path_only: false })
    }

    /// Opens the directory at `path`, refusing a link at any place of it.
    ///
    /// # Errors
    /// The system's, without the path; [`super::is_not_a_directory`] tells a link.
    pub fn open_without_links(path: &Path) -> io::Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        let start: &[u8] = if bytes.starts_with(b"/") { b"/" } else { b"." };
        let mut directory = Self::open(Path::new(OsStr::from_bytes(start)))?;
        for component in bytes.split(|byte| *byte == b'/') {
            if component.is_empty() || component == b"." {
                continue;
            }
            if component == b".." {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path contains '..'"));
            }
            directory = directory.open_passage(component, false)?;
        }
        Ok(directory)
    }

    /// Opens the directory `name` in this one; a link there is refused.
    ///
    /// # Errors
    /// The system's, without the path; [`super::is_not_a_directory`] tells a link or a file.
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        check_plain_name(name)?;
        let descriptor = open_directory_at(self.descriptor.as_fd(), name, OFlags::NOFOLLOW)?;
        Ok(Self { descriptor, is_path_only: false })
    }

    /// Opens the directory `name` in this one as a place to pass through: if it may not be listed, then
    /// without the right to list it.
    ///
    /// # Errors
    /// As [`Directory::open_child`].
    pub fn open_passage(&self, name: &[u8], follow_links: bool) -> io::Result<Self> {
        check_plain_name(name)?;
        let links = if follow_links { OFlags::empty() } else { OFlags::NOFOLLOW };
        self.open_passage_unchecked(name, links)
    }

    /// Opens the directory that holds this one now, as a place to pass through.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open_parent(&self) -> io::Result<Self> {
        self.open_passage_unchecked(b"..", OFlags::NOFOLLOW)
    }

    fn open_passage_unchecked(&self, name: &[u8], links: OFlags) -> io::Result<Self> {
        match open_directory_at(self.descriptor.as_fd(), name, links) {
            Ok(descriptor) => Ok(Self { descriptor, is_path_only: false }),
            #[cfg(target_os = "linux")]
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | links;
                let descriptor = retry_on_intr(|| {
                    rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())
                })?;
                Ok(Self { descriptor, is_path_only: true })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor, is_path_only: false }
    }

    /// Another handle of the same directory.
    pub(super) fn open_again(&self) -> io::Result<Self> {
        self.open_passage_unchecked(b".", OFlags::NOFOLLOW)
    }

    /// Replaces `names` by what is in the directory, sorted.
    ///
    /// # Errors
    /// The system's, without the path. What was read until then is in `names`.
    pub fn read_names(&self, names: &mut Names) -> io::Result<()> {
        names.clear();
        // The handle may have been read before, here or where it was duplicated.
        rustix::fs::seek(&self.descriptor, rustix::fs::SeekFrom::Start(0))?;
        let result = self.read_names_unsorted(names);
        names.sort();
        Ok(result?)
    }

    #[cfg(target_os = "linux")]
    fn read_names_unsorted(&self, names: &mut Names) -> Result<(), Errno> {
        // 32 KiB hold some 800 names; a longer buffer saves nothing that can be measured.
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 32 << 10];
        let mut entries = rustix::fs::RawDir::new(&self.descriptor, &mut buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => push_name(names, entry.file_name(), entry.file_type()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn read_names_unsorted(&self, names: &mut Names) -> Result<(), Errno> {
        for entry in rustix::fs::Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            push_name(names, entry.file_name(), entry.file_type());
        }
        Ok(())
    }

    /// What `name` in this directory is; a link is not followed, an automatic mount not started.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        check_plain_name(name)?;
        stat_at(self.descriptor.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What this directory is.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn stat_self(&self) -> io::Result<Stat> {
        stat_descriptor(self.descriptor.as_fd())
    }

    /// Opens the file `name` for reading, without a trace in its access time where that is allowed.
    ///
    /// A link is refused, and a FIFO put in its place does not block; whether it is still the file that was
    /// meant is for the caller to see, by [`super::stat_file`].
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open_file(&self, name: &[u8]) -> io::Result<File> {
        check_plain_name(name)?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(open_quietly(self.descriptor.as_fd(), name, flags)?))
    }

    /// Where the link `name` points.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        check_plain_name(name)?;
        Ok(rustix::fs::readlinkat(&self.descriptor, name, Vec::new())?.into_bytes())
    }

    /// Extended attributes of this directory.
    #[must_use]
    pub fn xattrs(&self) -> Xattrs {
        if self.is_path_only {
            return path_xattrs(
                &format!("/proc/self/fd/{}/.", raw(self.descriptor.as_fd())).into_bytes(),
            );
        }
        descriptor_xattrs(self.descriptor.as_fd())
    }

    /// Extended attributes of `name`, which need not be open: for links, devices and what may not be read.
    ///
    /// Nothing on systems that have no way to ask without following a link.
    #[must_use]
    pub fn entry_xattrs(&self, name: &[u8]) -> Xattrs {
        if let Err(error) = check_plain_name(name) {
            return Xattrs { list: Vec::new(), problem: Some(error.to_string()) };
        }
        let mut path = format!("/proc/self/fd/{}/", raw(self.descriptor.as_fd())).into_bytes();
        path.extend_from_slice(name);
        path_xattrs(&path)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn raw(descriptor: BorrowedFd<'_>) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&descriptor)
}

fn push_name(names: &mut Names, name: &CStr, file_type: FileType) {
    let name = name.to_bytes();
    if name != b"." && name != b".." {
        names.push(name, kind_of(file_type));
    }
}

fn kind_of(file_type: FileType) -> Option<FileKind> {
    match file_type {
        FileType::RegularFile => Some(FileKind::File),
        FileType::Directory => Some(FileKind::Directory),
        FileType::Symlink => Some(FileKind::Symlink),
        FileType::Fifo => Some(FileKind::Fifo),
        FileType::Socket => Some(FileKind::Socket),
        FileType::CharacterDevice => Some(FileKind::CharacterDevice),
        FileType::BlockDevice => Some(FileKind::BlockDevice),
        FileType::Unknown => None,
    }
}

fn open_directory_at(at: BorrowedFd<'_>, name: &[u8], links: OFlags) -> io::Result<OwnedFd> {
    open_quietly(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC | links,
    )
}

/// Opens for reading without changing the access time. Only the owner and root may ask for that.
#[cfg(target_os = "linux")]
fn open_quietly(at: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    match retry_on_intr(|| rustix::fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty())) {
        Err(Errno::PERM) => {}
        result => return Ok(result?),
    }
    Ok(retry_on_intr(|| rustix::fs::openat(at, name, flags, Mode::empty()))?)
}

#[cfg(not(target_os = "linux"))]
fn open_quietly(at: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| rustix::fs::openat(at, name, flags, Mode::empty()))?)
}

pub(super) fn stat_path(path: &Path) -> io::Result<Stat> {
    stat_at(CWD, path.as_os_str().as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn stat_path_following(path: &Path) -> io::Result<Stat> {
    stat_at(CWD, path.as_os_str().as_bytes(), AtFlags::empty())
}

pub(super) fn stat_file(file: &File) -> io::Result<Stat> {
    stat_descriptor(file.as_fd())
}

#[cfg(target_os = "linux")]
fn stat_descriptor(descriptor: BorrowedFd<'_>) -> io::Result<Stat> {
    stat_at(descriptor, b"", AtFlags::EMPTY_PATH)
}

#[cfg(not(target_os = "linux"))]
fn stat_descriptor(descriptor: BorrowedFd<'_>) -> io::Result<Stat> {
    stat_from_posix(&rustix::fs::fstat(descriptor)?)
}

#[cfg(target_os = "linux")]
fn stat_at(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<Stat> {
    use rustix::fs::StatxFlags;

    // Without AT_STATX_DONT_SYNC: with it NFS, CephFS and AFS answer from attributes of any age, and a file that another
    // machine has rewritten would count as unchanged in every backup (statx(2)). What is used is AT_STATX_SYNC_AS_STAT,
    // which is 0: as fresh as stat(2) has it. No local file system can show the difference.
    let quiet = flags | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(at, name, quiet, StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
        Ok(stat) => stat_from_statx(&stat),
        // Kernels before 4.11, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            stat_from_posix(&rustix::fs::statat(at, name, flags | AtFlags::NO_AUTOMOUNT)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn stat_at(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<Stat> {
    stat_from_posix(&rustix::fs::statat(at, name, flags)?)
}

#[cfg(target_os = "linux")]
fn stat_from_statx(stat: &rustix::fs::Statx) -> io::Result<Stat> {
    use rustix::fs::{StatxAttributes, StatxFlags};

    let timestamp = |time: &rustix::fs::StatxTimestamp| Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec.min(999_999_999),
    };
    let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Stat {
        kind: kind_or_error(FileType::from_raw_mode(stat.stx_mode.into()))?,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        mtime: timestamp(&stat.stx_mtime),
        ctime: timestamp(&stat.stx_ctime),
        btime: has_btime.then(|| timestamp(&stat.stx_btime)),
        device: join_device(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        links: stat.stx_nlink.into(),
        rdev_major: stat.stx_rdev_major,
        rdev_minor: stat.stx_rdev_minor,
        flags: stat.stx_attributes.bits() & super::FLAGS_KEPT,
        is_mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

/// The classic call knows neither creation times (in a portable way) nor flags.
#[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between systems")]
fn stat_from_posix(stat: &rustix::fs::Stat) -> io::Result<Stat> {
    let timestamp = |seconds: i64, nanoseconds: u64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0).min(999_999_999),
    };
    let file_type = FileType::from_raw_mode(stat.st_mode as rustix::fs::RawMode);
    Ok(Stat {
        kind: kind_or_error(file_type)?,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        mtime: timestamp(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime: timestamp(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        btime: None,
        device: join_device(rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)),
        inode: stat.st_ino as u64,
        links: stat.st_nlink as u64,
        rdev_major: rustix::fs::major(stat.st_rdev),
        rdev_minor: rustix::fs::minor(stat.st_rdev),
        flags: 0,
        is_mount_root: false,
    })
}

fn kind_or_error(file_type: FileType) -> io::Result<FileKind> {
    kind_of(file_type)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "this kind of file is unknown"))
}

fn join_device(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

pub(super) fn file_xattrs(file: &File) -> Xattrs {
    descriptor_xattrs(file.as_fd())
}

fn descriptor_xattrs(descriptor: BorrowedFd<'_>) -> Xattrs {
    read_xattrs(
        |buffer| rustix::fs::flistxattr(descriptor, buffer),
        |name, buffer| rustix::fs::fgetxattr(descriptor, name, buffer),
    )
}

#[cfg(target_os = "linux")]
fn path_xattrs(path: &[u8]) -> Xattrs {
    read_xattrs(
        |buffer| rustix::fs::llistxattr(path, buffer),
        |name, buffer| rustix::fs::lgetxattr(path, name, buffer),
    )
}

#[cfg(not(target_os = "linux"))]
fn path_xattrs(_path: &[u8]) -> Xattrs {
    Xattrs::default()
}

/// Reads all attributes: one call if there are none, one more for each that there is.
fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Xattrs {
    let mut small = [0; 256];
    let mut large = Vec::new();
    let names = match read_growing(&mut small, &mut large, list) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Xattrs::default(),
        Err(errno) => {
            return Xattrs {
                list: Vec::new(),
                problem: Some(format!("extended attributes: {}", message(errno))),
            };
        }
    };
    let mut xattrs = Xattrs::default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut small = [0; 256];
        let mut large = Vec::new();
        match read_growing(&mut small, &mut large, |buffer| get(name, buffer)) {
            Ok(_) if xattrs.list.len() >= XATTRS_MAX => {
                xattrs.problem = Some(format!("it has more than {XATTRS_MAX} extended attributes"));
                break;
            }
            Ok(value) => xattrs.list.push(Xattr { name: name.to_vec(), value: value.to_vec() }),
            // It was removed after it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => {
                let name = String::from_utf8_lossy(name);
                xattrs.problem = Some(format!("extended attribute {name}: {}", message(errno)));
            }
        }
    }
    xattrs.list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    xattrs.list.dedup_by(|a, b| a.name == b.name);
    xattrs
}

/// Fills `small`, or a `large` buffer that grows until the system is content with it.
fn read_growing<'a>(
    small: &'a mut [u8],
    large: &'a mut Vec<u8>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<&'a [u8], Errno> {
    match read(small) {
        Ok(length) => return Ok(&small[..length]),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut size = 64 << 10;
    loop {
        large.resize(size, 0);
        match read(large) {
            Ok(length) => return Ok(&large[..length]),
            Err(Errno::RANGE) if size < XATTR_VALUE_BYTES_MAX => {
                size = (size * 8).min(XATTR_VALUE_BYTES_MAX);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn message(errno: Errno) -> String {
    io::Error::from(errno).to_string()
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
))]
pub(super) fn data_extents(file: &File, size: u64) -> io::Result<Vec<Extent>> {
    use putback_format::limits::HOLES_MAX;
    use rustix::fs::{SeekFrom, seek};

    let everything = || {
        if size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: size }] }
    };
    let mut extents: Vec<Extent> = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // Nothing but a hole from here to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => return Ok(everything()),
            Err(errno) => return Err(errno.into()),
        };
        if start >= size {
            break;
        }
        let end = match seek(file, SeekFrom::Hole(start)) {
            // The file changed between the two calls, or the file system reports nonsense.
            Ok(end) if end <= start => size,
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        match extents.last_mut() {
            Some(last) if last.offset + last.length >= start => last.length = end - last.offset,
            _ => extents.push(Extent { offset: start, length: end - start }),
        }
        position = end;
        if extents.len() >= HOLES_MAX && position < size {
            if let Some(last) = extents.last_mut() {
                last.length = size - last.offset;
            }
            break;
        }
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(extents)
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd"
)))]
pub(super) fn data_extents(_file: &File, size: u64) -> io::Result<Vec<Extent>> {
    Ok(if size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: size }] })
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(super) fn user_name(users: &Users) -> String {
    let uid = effective_uid();
    let name = users.user_name(uid);
    if name.is_empty() { uid.to_string() } else { String::from_utf8_lossy(&name).into_owned() }
}

pub(super) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Allows this process as many open files as the system permits.
///
/// Each directory on the open path and each file being read takes one; the usual first limit is 1,024.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    // A failure leaves what was there, which is enough for all but unusual trees.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many files this process may have open at a time.
#[must_use]
pub fn open_files_limit() -> u64 {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

pub(super) fn is_link_refused(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

pub(super) fn bytes_of_os(name: &OsStr) -> Cow<'_, [u8]> {
    Cow::Borrowed(name.as_bytes())
}

pub(super) fn path_of_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

pub(super) fn is_plain_name_here(_name: &[u8]) -> bool {
    true
}
