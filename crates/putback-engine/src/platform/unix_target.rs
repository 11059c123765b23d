//! Writing on Unix, through handles of directories.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use putback_format::tree::{Extent, Timestamp, Xattr};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};

use super::target::{MetadataProblem, MetadataStep, Removal, TargetMetadata};
use super::{
    Directory, FileKind, Identity, Names, Stat, check_plain_name, effective_uid, stat_file,
};

/// New files belong to nobody else until their metadata is set.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// Set-user-id and set-group-id.
const SET_ID_BITS: u32 = 0o6000;

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
        std::fs::create_dir_all(path)?;
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
        let names: Vec<&[u8]> =
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        names.iter().try_for_each(|name| check_plain_name(name))?;
        if let Some(result) = self.open_below_at_once(&names) {
            return result;
        }
        let mut below = Self { directory: self.directory.open_again()? };
        for name in names {
            below = below.open_child(name)?;
        }
        Ok(below)
    }

    /// One call where the system has it (Linux 5.6), none elsewhere and for paths that it does not take.
    #[cfg(target_os = "linux")]
    fn open_below_at_once(&self, names: &[&[u8]]) -> Option<io::Result<Self>> {
        use rustix::fs::ResolveFlags;

        if names.is_empty() {
            return None;
        }
        let path = names.join(&b'/');
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open =
            || rustix::fs::openat2(&self.directory, path.as_slice(), flags, Mode::empty(), resolve);
        match retry_on_intr(open) {
            Ok(descriptor) => Some(Ok(Self { directory: Directory::from_descriptor(descriptor) })),
            // An older kernel, a sandbox, a rename that went on at the same moment, or a path that is too long.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG | Errno::INVAL) => {
                None
            }
            Err(errno) => Some(Err(errno.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_below_at_once(&self, _names: &[&[u8]]) -> Option<io::Result<Self>> {
        None
    }

    /// Makes the directory `name`, which must not exist, and opens it. Nobody else may enter it yet.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn create_child(&self, name: &[u8]) -> io::Result<Self> {
        check_plain_name(name)?;
        rustix::fs::mkdirat(&self.directory, name, PRIVATE_DIRECTORY)?;
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

    /// Makes the file `name`, which must not exist, for reading and writing. Nobody else may open it yet.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn create_file(&self, name: &[u8]) -> io::Result<File> {
        self.create_file_as(name, PRIVATE_FILE)
    }

    /// As [`TargetDirectory::create_file`], with these permission bits as far as the process lets new files have
    /// them: for a file that will not change its owner.
    ///
    /// # Errors
    /// As [`TargetDirectory::create_file`].
    pub fn create_file_with_mode(&self, name: &[u8], mode: u32) -> io::Result<File> {
        self.create_file_as(name, Mode::from_raw_mode((mode & 0o777) as RawMode))
    }

    fn create_file_as(&self, name: &[u8], mode: Mode) -> io::Result<File> {
        check_plain_name(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(retry_on_intr(|| rustix::fs::openat(&self.directory, name, flags, mode))?))
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
        let file = self.directory.open_file(name)?;
        check_regular(&file)?;
        Ok(file)
    }

    /// Opens the existing regular file `name` for reading and writing in place.
    ///
    /// # Errors
    /// As [`TargetDirectory::open_file`].
    pub fn open_file_for_writing(&self, name: &[u8]) -> io::Result<File> {
        check_plain_name(name)?;
        let flags =
            OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(retry_on_intr(|| {
            rustix::fs::openat(&self.directory, name, flags, Mode::empty())
        })?);
        check_regular(&file)?;
        Ok(file)
    }

    /// Gives the file `from` the name `to`, replacing a file that has it.
    ///
    /// # Errors
    /// The system's, without the path; a directory is not replaced.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        check_plain_name(from)?;
        check_plain_name(to)?;
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Gives the file `from` the name `to`, which must not exist.
    ///
    /// Where the system cannot do that in one step, and has no hard links either, a file that gets the name at the same
    /// moment is replaced.
    ///
    /// # Errors
    /// The system's, without the path; `AlreadyExists` if anything has that name.
    pub fn rename_new(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        check_plain_name(from)?;
        check_plain_name(to)?;
        if let Some(result) = self.rename_new_at_once(from, to) {
            return result;
        }
        match rustix::fs::linkat(&self.directory, from, &self.directory, to, AtFlags::empty()) {
            Ok(()) => self.remove_file(from),
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            Err(_) => match self.stat(to) {
                Ok(_) => Err(Errno::EXIST.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
                Err(error) => Err(error),
            },
        }
    }

    /// One call where the system and the file system have it, none elsewhere.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn rename_new_at_once(&self, from: &[u8], to: &[u8]) -> Option<io::Result<()>> {
        use rustix::fs::{RenameFlags, renameat_with};

        let (directory, flags) = (&self.directory, RenameFlags::NOREPLACE);
        match renameat_with(directory, from, directory, to, flags) {
            Ok(()) => Some(Ok(())),
            // An older kernel, a sandbox, or a file system that does not know the flag.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NOTSUP) => None,
            Err(errno) => Some(Err(errno.into())),
        }
    }

    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    fn rename_new_at_once(&self, _from: &[u8], _to: &[u8]) -> Option<io::Result<()>> {
        None
    }

    /// Makes the link `name`, which must not exist. `target` may be anything: it is not followed.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn create_symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        check_plain_name(name)?;
        Ok(rustix::fs::symlinkat(target, &self.directory, name)?)
    }

    /// Makes the named pipe, character device or block device `name`, which must not exist.
    ///
    /// # Errors
    /// The system's, without the path; `Unsupported` for other kinds.
    #[cfg(not(target_vendor = "apple"))]
    pub fn create_special(
        &self,
        name: &[u8],
        kind: FileKind,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        check_plain_name(name)?;
        let (file_type, device) = match kind {
            FileKind::Fifo => (FileType::Fifo, 0),
            FileKind::CharacterDevice => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            FileKind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(rustix::fs::mknodat(&self.directory, name, file_type, PRIVATE_FILE, device)?)
    }

    /// Makes a special file; not possible here.
    ///
    /// # Errors
    /// `Unsupported`.
    #[cfg(target_vendor = "apple")]
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

    /// Makes `name`, which must not exist, another name of a file that was restored before. A link is linked
    /// itself.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn create_hard_link(&self, from: &Self, from_name: &[u8], name: &[u8]) -> io::Result<()> {
        check_plain_name(from_name)?;
        check_plain_name(name)?;
        Ok(rustix::fs::linkat(&from.directory, from_name, &self.directory, name, AtFlags::empty())?)
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
        check_plain_name(name)?;
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn remove_directory(&self, name: &[u8]) -> io::Result<()> {
        check_plain_name(name)?;
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes `name` and, if it is a directory, everything in it. What cannot be removed is told and stays.
    ///
    /// Does not follow links, nor go into another file system.
    #[must_use]
    pub fn remove_all(&self, name: &[u8]) -> Removal {
        let mut removal = Removal::default();
        match self.remove_below(name, &mut removal) {
            Ok(()) => {}
            Err((path, error)) => removal.problems.push((path, error)),
        }
        removal
    }

    /// Holds one handle whatever the depth: the way back up goes through `..`, checked by identity.
    fn remove_below(&self, name: &[u8], removal: &mut Removal) -> Result<(), (Vec<u8>, io::Error)> {
        let mut path = name.to_vec();
        let Some(first) = self.remove_or_open(name, &path, removal) else { return Ok(()) };
        let mut levels = Vec::new();
        let mut current =
            start_level(first, &mut levels, 0).map_err(|error| (path.clone(), error))?;
        while let Some(level) = levels.last_mut() {
            if level.next < level.names.len() {
                let name = level.names.get(level.next).0.to_vec();
                level.next += 1;
                let length = path.len();
                path.push(b'/');
                path.extend_from_slice(&name);
                match current.remove_or_open(&name, &path, removal) {
                    None => path.truncate(length),
                    Some(child) => match start_level(child, &mut levels, length) {
                        Ok(child) => current = child,
                        Err(error) => {
                            removal.problems.push((path.clone(), error));
                            path.truncate(length);
                        }
                    },
                }
                continue;
            }
            let Some(done) = levels.pop() else { break };
            let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            let parent = match levels.last() {
                None => None,
                Some(level) => {
                    Some(reopen(&current, level.identity).map_err(|error| (path.clone(), error))?)
                }
            };
            match parent.as_ref().unwrap_or(self).remove_directory(&path[name..]) {
                Ok(()) => removal.removed += 1,
                // Something in it could not be removed, and was told.
                Err(error) if is_not_empty(&error) && !removal.problems.is_empty() => {}
                Err(error) => removal.problems.push((path.clone(), error)),
            }
            path.truncate(done.parent_length);
            if let Some(parent) = parent {
                current = parent;
            }
        }
        Ok(())
    }

    /// Removes a file, or opens a directory on the same file system.
    fn remove_or_open(&self, name: &[u8], path: &[u8], removal: &mut Removal) -> Option<Self> {
        let result = self.stat(name).and_then(|stat| {
            if !stat.is_directory() {
                return self.remove_file(name).map(|()| None);
            }
            if stat.device != self.stat_self()?.device {
                return Err(io::Error::other("another file system is mounted there"));
            }
            self.open_child(name).map(Some)
        });
        match result {
            Ok(Some(child)) => return Some(child),
            Ok(None) => removal.removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => removal.problems.push((path.to_vec(), error)),
        }
        None
    }

    /// Sets the metadata of this directory. What fails is told and does not stop the rest.
    #[must_use]
    pub fn apply_metadata_to_self(&self, metadata: &TargetMetadata<'_>) -> Vec<MetadataProblem> {
        apply(Subject::Open(self.directory.as_fd()), true, metadata)
    }

    /// Sets the metadata of something that is not open: a link, a named pipe, a device. A link is not followed.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is none. All else is told in the list.
    pub fn apply_metadata(
        &self,
        name: &[u8],
        metadata: &TargetMetadata<'_>,
    ) -> io::Result<Vec<MetadataProblem>> {
        check_plain_name(name)?;
        let stat = self.stat(name)?;
        let is_link = stat.kind == FileKind::Symlink;
        let subject = Subject::Named { directory: self.directory.as_fd(), name, is_link };
        Ok(apply(subject, stat.is_directory(), metadata))
    }
}

/// A directory that is being emptied.
struct Level {
    names: Names,
    next: usize,
    identity: Identity,
    /// Length of the path of the directory that holds it.
    parent_length: usize,
}

fn start_level(
    child: TargetDirectory,
    levels: &mut Vec<Level>,
    parent_length: usize,
) -> io::Result<TargetDirectory> {
    let mut names = Names::default();
    let identity = child.stat_self()?.identity();
    child.read_names(&mut names)?;
    levels.push(Level { names, next: 0, identity, parent_length });
    Ok(child)
}

fn reopen(below: &TargetDirectory, identity: Identity) -> io::Result<TargetDirectory> {
    let parent = below.directory.open_parent()?;
    if parent.stat_self()?.identity() == identity {
        return Ok(TargetDirectory { directory: parent });
    }
    Err(io::Error::other("the directory was moved while it was removed"))
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTEMPTY | Errno::EXIST))
}

fn check_regular(file: &File) -> io::Result<()> {
    if stat_file(file)?.kind == FileKind::File {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
}

pub(super) fn apply_metadata(file: &File, metadata: &TargetMetadata<'_>) -> Vec<MetadataProblem> {
    apply(Subject::Open(file.as_fd()), false, metadata)
}

pub(super) fn add_flags(file: &File, flags: u64) -> Vec<MetadataProblem> {
    let added = Subject::Open(file.as_fd()).add_flags(flags);
    added.err().map(|errno| problem(MetadataStep::Flags, INODE_FLAGS, errno)).into_iter().collect()
}

#[cfg(target_os = "linux")]
pub(super) fn punch_hole(file: &File, hole: Extent) -> io::Result<()> {
    use rustix::fs::FallocateFlags;

    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, flags, hole.offset, hole.length))?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn punch_hole(_file: &File, _hole: Extent) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What metadata is set on.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Open(BorrowedFd<'a>),
    Named { directory: BorrowedFd<'a>, name: &'a [u8], is_link: bool },
}

fn apply(
    subject: Subject<'_>,
    is_directory: bool,
    metadata: &TargetMetadata<'_>,
) -> Vec<MetadataProblem> {
    let mut problems = Vec::new();
    let mut tell = |step, what: &str, result: Result<(), Errno>| {
        problems.extend(result.err().map(|errno| problem(step, what, errno)));
    };

    let mut mode = metadata.mode & 0o7777;
    let mut is_owner_set = false;
    if let Some((uid, gid)) = metadata.owner {
        let result = subject.set_owner(Some(uid), Some(gid));
        is_owner_set = result.is_ok();
        if result.is_err() {
            // Anybody may give a file to a group of theirs; that the owner is wrong is told already.
            let _ = subject.set_owner(None, Some(gid));
        }
        tell(MetadataStep::Owner, "the owner", result);
    }
    if !is_owner_set && !is_directory {
        mode &= !SET_ID_BITS;
    }
    if let Some(wanted) = metadata.xattrs {
        if effective_uid() != 0 && !wanted.is_empty() {
            // Only what its owner may write may have attributes set; what matters is whether that succeeds.
            let _ = subject.set_mode(mode | 0o600);
        }
        for (name, errno) in subject.set_xattrs(wanted) {
            let what = format!("extended attribute {}", String::from_utf8_lossy(&name));
            tell(MetadataStep::Xattrs, &what, Err(errno));
        }
    }
    // After an ACL: its mask is part of the permissions.
    tell(MetadataStep::Mode, "the permissions", subject.set_mode(mode));
    tell(MetadataStep::Times, "the times", subject.set_mtime(metadata.mtime));
    if metadata.flags != 0 {
        tell(MetadataStep::Flags, INODE_FLAGS, subject.add_flags(metadata.flags));
    }
    if metadata.owner.is_some() && mode != metadata.mode & 0o7777 {
        problems.push(MetadataProblem {
            step: MetadataStep::Mode,
            is_for_lack_of_privilege: effective_uid() != 0,
            message: "set-user-id and set-group-id are left out, as the owner could not be set"
                .to_owned(),
        });
    }
    problems
}

/// What problems call the flags.
const INODE_FLAGS: &str = "the inode flags";

fn problem(step: MetadataStep, what: &str, errno: Errno) -> MetadataProblem {
    MetadataProblem {
        step,
        is_for_lack_of_privilege: matches!(errno, Errno::PERM | Errno::ACCESS)
            && effective_uid() != 0,
        message: format!("cannot set {what}: {}", io::Error::from(errno)),
    }
}

impl Subject<'_> {
    fn set_owner(self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        // The greatest number means "leave it" to the system.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Open(descriptor) => rustix::fs::fchown(descriptor, uid, gid),
            Self::Named { directory, name, .. } => {
                rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn set_mode(self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode as RawMode);
        match self {
            Self::Open(descriptor) => rustix::fs::fchmod(descriptor, mode),
            Self::Named { is_link: true, .. } => Ok(()),
            Self::Named { directory, name, .. } => set_mode_of_name(directory, name, mode),
        }
    }

    fn set_mtime(self, mtime: Timestamp) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: mtime.seconds,
                tv_nsec: mtime.nanoseconds.min(999_999_999).into(),
            },
        };
        match self {
            Self::Open(descriptor) => rustix::fs::futimens(descriptor, &times),
            Self::Named { directory, name, .. } => {
                rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// Removes what is not wanted, then sets what is; says what failed.
    fn set_xattrs(self, wanted: &[Xattr]) -> Vec<(Vec<u8>, Errno)> {
        let mut failed = Vec::new();
        for name in self.xattr_names() {
            let is_wanted = wanted.iter().any(|xattr| xattr.name == name);
            if is_wanted || !is_removable(&name) {
                continue;
            }
            match self.remove_xattr(&name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => failed.push((name, errno)),
            }
        }
        for xattr in wanted {
            if let Err(errno) = self.set_xattr(xattr) {
                failed.push((xattr.name.clone(), errno));
            }
        }
        failed
    }

    /// None where the file system has no attributes; setting one will say so.
    fn xattr_names(self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 10];
        loop {
            let result = match self {
                Self::Open(descriptor) => rustix::fs::flistxattr(descriptor, buffer.as_mut_slice()),
                Self::Named { directory, name, .. } => {
                    list_xattrs_of_name(directory, name, &mut buffer)
                }
            };
            match result {
                Ok(length) => {
                    let names = buffer[..length].split(|byte| *byte == 0);
                    return names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
                }
                Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(1 << 20, 0),
                Err(_) => return Vec::new(),
            }
        }
    }

    fn set_xattr(self, xattr: &Xattr) -> Result<(), Errno> {
        let (name, value) = (xattr.name.as_slice(), xattr.value.as_slice());
        match self {
            Self::Open(descriptor) => {
                rustix::fs::fsetxattr(descriptor, name, value, XattrFlags::empty())
            }
            Self::Named { directory, name: of, .. } => {
                let path = path_of_name(directory, of)?;
                rustix::fs::lsetxattr(path.as_slice(), name, value, XattrFlags::empty())
            }
        }
    }

    fn remove_xattr(self, xattr: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(descriptor) => rustix::fs::fremovexattr(descriptor, xattr),
            Self::Named { directory, name, .. } => {
                rustix::fs::lremovexattr(path_of_name(directory, name)?.as_slice(), xattr)
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn add_flags(self, flags: u64) -> Result<(), Errno> {
        use rustix::fs::IFlags;

        let Self::Open(descriptor) = self else { return Err(Errno::NOTSUP) };
        let mut added = IFlags::empty();
        added.set(IFlags::COMPRESSED, flags & super::FLAG_COMPRESSED != 0);
        added.set(IFlags::IMMUTABLE, flags & super::FLAG_IMMUTABLE != 0);
        added.set(IFlags::APPEND, flags & super::FLAG_APPEND != 0);
        added.set(IFlags::NODUMP, flags & super::FLAG_NODUMP != 0);
        let present = rustix::fs::ioctl_getflags(descriptor)?;
        if present.contains(added) {
            return Ok(());
        }
        rustix::fs::ioctl_setflags(descriptor, present | added)
    }

    #[cfg(not(target_os = "linux"))]
    fn add_flags(self, _flags: u64) -> Result<(), Errno> {
        Err(Errno::NOTSUP)
    }
}

/// Attributes that a backup would have kept. Labels that the system itself gives out stay.
fn is_removable(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
}

/// A path that leads through the open directory, for calls that take no handle.
#[cfg(target_os = "linux")]
fn path_of_name(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let raw = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let mut path = format!("/proc/self/fd/{raw}/").into_bytes();
    path.extend_from_slice(name);
    Ok(path)
}

#[cfg(not(target_os = "linux"))]
fn path_of_name(_directory: BorrowedFd<'_>, _name: &[u8]) -> Result<Vec<u8>, Errno> {
    Err(Errno::NOTSUP)
}

fn list_xattrs_of_name(
    directory: BorrowedFd<'_>,
    name: &[u8],
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    rustix::fs::llistxattr(path_of_name(directory, name)?.as_slice(), buffer)
}

/// Linux has no call that sets the mode of a name without following a link; a handle that cannot read or write
/// stands for exactly one object.
#[cfg(target_os = "linux")]
fn set_mode_of_name(directory: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = retry_on_intr(|| rustix::fs::openat(directory, name, flags, Mode::empty()))?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&handle);
    rustix::fs::chmod(format!("/proc/self/fd/{raw}"), mode)
}

#[cfg(not(target_os = "linux"))]
fn set_mode_of_name(directory: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<(), Errno> {
    rustix::fs::chmodat(directory, name, mode, AtFlags::SYMLINK_NOFOLLOW)
}
