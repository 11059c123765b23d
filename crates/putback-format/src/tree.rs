//! Trees: what a directory holds.
//!
//! A directory is one or more *tree pages*: entries sorted by raw name bytes, each page a blob of its
//! own, cut by content. An [`Entry`] carries everything needed to put a file system object back;
//! [`encode_entry`] and [`decode_entry`] are its bytes. Pages are the work of [`crate::page`], the
//! chunk lists of long files that of [`crate::list`].
//!
//! Layout and limits: `docs/format.md`, "Entries".
//!
//! Invariants: whatever [`decode_entry`] returns satisfies [`Entry::validate`], so callers use names
//! as path components and add offsets and lengths without checking again; a valid entry has exactly
//! one encoding, so that an unchanged directory keeps its blob ids.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cbor::{
    MapWriter, Reader, put_array, put_bool, put_bytes, put_bytes_head, put_int, put_uint,
    require_at_most, validate_unknown,
};
use crate::error::Error;
use crate::id::BlobId;
use crate::limits::{
    CHUNK_BYTES_MAX, DIRECTORY_PAGES_MAX, ENTRY_BYTES_MAX, HOLES_MAX, INLINE_BYTES_MAX,
    LINK_BYTES_MAX, LIST_DEPTH_MAX, LIST_REFS_MAX, NAME_BYTES_MAX, OWNER_NAME_BYTES_MAX,
    SECURITY_DESCRIPTOR_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_MAX,
};

/// What the errors of this module are about.
const WHAT: &str = "entry";
const NANOSECONDS_PER_SECOND: u32 = 1_000_000_000;
const MODE_MAX: u32 = 0o7777;

/// A point in time: seconds and nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded towards minus infinity.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// `None` unless `nanoseconds` is below one second.
    #[must_use]
    pub const fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if nanoseconds < NANOSECONDS_PER_SECOND {
            Some(Self { seconds, nanoseconds })
        } else {
            None
        }
    }

    /// A whole second.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }

    /// From nanoseconds since 1970; `None` if the seconds do not fit 64 bits.
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: i128) -> Option<Self> {
        let per_second = i128::from(NANOSECONDS_PER_SECOND);
        let seconds = i64::try_from(nanoseconds.div_euclid(per_second)).ok()?;
        let nanoseconds = u32::try_from(nanoseconds.rem_euclid(per_second)).ok()?;
        Some(Self { seconds, nanoseconds })
    }

    /// Nanoseconds since 1970; negative before. Exact for every time.
    #[must_use]
    pub fn as_nanoseconds(self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOSECONDS_PER_SECOND) + i128::from(self.nanoseconds)
    }

    /// A reading of the system's clock; `None` if the seconds do not fit 64 bits.
    #[must_use]
    pub fn from_system_time(time: SystemTime) -> Option<Self> {
        let nanoseconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).ok()?,
            Err(before) => -i128::try_from(before.duration().as_nanos()).ok()?,
        };
        Self::from_nanoseconds(nanoseconds)
    }
}

/// A run of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; never zero.
    pub length: u64,
}

/// One chunk of a file, or one page of a list of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The blob.
    pub id: BlobId,
    /// Bytes of file content that it stands for: its own plain length for a chunk, the sum of its
    /// chunks for a list page.
    pub length: u64,
}

/// Where the bytes of a file are. They are those of its data: holes are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Up to [`crate::limits::INLINE_BYTES_MAX`] bytes, in the entry itself.
    Inline(Vec<u8>),
    /// Chunks in order.
    Chunks(Vec<ChunkRef>),
    /// List pages in order; each is a tree blob that holds chunks (`depth` 1) or further list pages.
    Lists {
        /// How many levels of list pages there are; at least 1.
        depth: u8,
        /// The pages of the topmost level.
        pages: Vec<ChunkRef>,
    },
}

/// What kind of object an entry is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Size in bytes, holes included.
        size: u64,
        /// The bytes outside holes.
        content: Content,
        /// Holes, ascending, not touching, inside `size`.
        holes: Vec<Extent>,
    },
    /// A directory: the blob ids of its pages in order, none if it is empty.
    Directory {
        /// The pages.
        pages: Vec<BlobId>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as stored by the system.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket: noted, and restored as nothing.
    Socket,
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl EntryKind {
    /// Size in bytes of a regular file, holes included.
    #[must_use]
    pub const fn file_size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// What a person calls it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory { .. } => "directory",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharacterDevice { .. } => "character device",
            Self::BlockDevice { .. } => "block device",
        }
    }
}

/// An extended attribute. POSIX ACLs and file capabilities are extended attributes too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its name space, such as `user.comment`.
    pub name: Vec<u8>,
    /// Raw value.
    pub value: Vec<u8>,
}

/// What Windows has and Unix has not. Reserved: kept when met.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WindowsMetadata {
    /// `FILE_ATTRIBUTE_*` bits.
    pub attributes: Option<u32>,
    /// Self-relative security descriptor.
    pub security_descriptor: Option<Vec<u8>>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes of the name; no `/`, no NUL, not empty, not `.` or `..` (but empty for a root).
    pub name: Vec<u8>,
    /// Kind, and what belongs to it.
    pub kind: EntryKind,
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, empty if it has none.
    pub user: Vec<u8>,
    /// Name of the group, empty if it has none.
    pub group: Vec<u8>,
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
    /// Number of hard links; entries of one snapshot with `links > 1` and the same device and inode are one file if
    /// they also have the same content and mtime.
    pub links: u64,
    /// `STATX_ATTR_*` bits among immutable, append-only, nodump, compressed; 0 elsewhere than Linux.
    pub flags: u64,
    /// Extended attributes sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Set when mtime or ctime lay within 2 s of its reading: read again next time whatever the times say.
    pub volatile: bool,
    /// What Windows has besides.
    pub windows: Option<Box<WindowsMetadata>>,
    /// Fields of newer programs (CBOR keys from 64), as raw CBOR, kept and written back; sorted by key.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

impl Entry {
    /// An entry with this name and kind, one link, and nothing else known about it.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, kind: EntryKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            btime: None,
            device: 0,
            inode: 0,
            links: LINKS_DEFAULT,
            flags: 0,
            xattrs: Vec::new(),
            volatile: false,
            windows: None,
            unknown: Vec::new(),
        }
    }

    /// True for a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, EntryKind::Directory { .. })
    }

    /// True for a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::File { .. })
    }

    /// Checks every rule of the format but the encoded length and whether the name may be empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], with the first rule that is broken.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_known()?;
        validate_unknown(WHAT, &self.unknown)
    }

    /// As [`Self::validate`], without the fields of newer programs, which the reader has checked.
    fn validate_known(&self) -> Result<(), Error> {
        validate_name(&self.name)?;
        self.kind.validate()?;
        if self.mode > MODE_MAX {
            return Err(invalid("its mode has bits above 0o7777"));
        }
        require_at_most("length of an owner's name", self.user.len(), OWNER_NAME_BYTES_MAX)?;
        require_at_most("length of a group's name", self.group.len(), OWNER_NAME_BYTES_MAX)?;
        for time in [Some(self.mtime), Some(self.ctime), self.btime].into_iter().flatten() {
            validate_timestamp(WHAT, time)?;
        }
        validate_xattrs(&self.xattrs)?;
        if let Some(windows) = &self.windows {
            let descriptor_bytes = windows.security_descriptor.as_ref().map_or(0, Vec::len);
            require_at_most(DESCRIPTOR_LENGTH, descriptor_bytes, SECURITY_DESCRIPTOR_BYTES_MAX)?;
        }
        Ok(())
    }
}

impl EntryKind {
    fn validate(&self) -> Result<(), Error> {
        match self {
            Self::File { size, content, holes } => validate_file(*size, content, holes),
            Self::Directory { pages } => {
                require_at_most(DIRECTORY_PAGES, pages.len(), DIRECTORY_PAGES_MAX)
            }
            Self::Symlink { target } => {
                require_at_most(TARGET_LENGTH, target.len(), LINK_BYTES_MAX)?;
                if target.contains(&0) {
                    return Err(invalid("its link target contains a NUL"));
                }
                Ok(())
            }
            Self::Fifo | Self::Socket | Self::CharacterDevice { .. } | Self::BlockDevice { .. } => {
                Ok(())
            }
        }
    }
}

/// The empty name is that of a root; whoever reads a page refuses it.
fn validate_name(name: &[u8]) -> Result<(), Error> {
    require_at_most(NAME_LENGTH, name.len(), NAME_BYTES_MAX)?;
    if name == b"." || name == b".." {
        return Err(invalid("its name is '.' or '..'"));
    }
    if name.contains(&b'/') {
        return Err(invalid("its name contains '/'"));
    }
    if name.contains(&0) {
        return Err(invalid("its name contains a NUL"));
    }
    Ok(())
}

fn validate_file(size: u64, content: &Content, holes: &[Extent]) -> Result<(), Error> {
    let data_bytes = data_bytes(size, holes)?;
    let content_bytes = match content {
        Content::Inline(bytes) => {
            require_at_most(INLINE_LENGTH, bytes.len(), INLINE_BYTES_MAX)?;
            bytes.len() as u64
        }
        Content::Chunks(chunks) => {
            if let Some(chunk) = chunks.iter().find(|c| c.length > u64::from(CHUNK_BYTES_MAX)) {
                return Err(Error::TooLarge {
                    what: "length of a chunk",
                    value: chunk.length,
                    limit: u64::from(CHUNK_BYTES_MAX),
                });
            }
            total_length(chunks)?
        }
        Content::Lists { depth, pages } => {
            if !(1..=LIST_DEPTH_MAX).contains(depth) {
                return Err(invalid("the depth of its lists is not allowed"));
            }
            total_length(pages)?
        }
    };
    if content_bytes != data_bytes {
        return Err(invalid("its content and holes do not add up to its size"));
    }
    Ok(())
}

/// The size less the holes, which must ascend without touching and lie inside the size.
fn data_bytes(size: u64, holes: &[Extent]) -> Result<u64, Error> {
    require_at_most(HOLES, holes.len(), HOLES_MAX)?;
    let mut data_bytes = size;
    let mut last_end = None;
    for hole in holes {
        if hole.length == 0 {
            return Err(invalid("a hole is empty"));
        }
        if last_end.is_some_and(|end| hole.offset <= end) {
            return Err(invalid("its holes touch or do not ascend"));
        }
        let end = hole.offset.checked_add(hole.length).filter(|end| *end <= size);
        last_end = Some(end.ok_or_else(|| invalid("a hole ends beyond the file"))?);
        // Disjoint and inside the size, so their sum cannot exceed it.
        data_bytes -= hole.length;
    }
    Ok(data_bytes)
}

/// The sum of the lengths, of which none may be zero; there is at least one.
fn total_length(refs: &[ChunkRef]) -> Result<u64, Error> {
    if refs.is_empty() {
        return Err(invalid("a list of its content is empty"));
    }
    require_at_most(LIST_REFS, refs.len(), LIST_REFS_MAX)?;
    if refs.iter().any(|r| r.length == 0) {
        return Err(invalid("a chunk is empty"));
    }
    let total = refs.iter().try_fold(0_u64, |sum, r| sum.checked_add(r.length));
    total.ok_or_else(|| invalid("the lengths of its chunks overflow"))
}

fn validate_xattrs(xattrs: &[Xattr]) -> Result<(), Error> {
    require_at_most(XATTRS, xattrs.len(), XATTRS_MAX)?;
    for xattr in xattrs {
        require_at_most(XATTR_NAME_LENGTH, xattr.name.len(), XATTR_NAME_BYTES_MAX)?;
        require_at_most(XATTR_VALUE_LENGTH, xattr.value.len(), XATTR_VALUE_BYTES_MAX)?;
        if xattr.name.is_empty() || xattr.name.contains(&0) {
            return Err(invalid("the name of an extended attribute is empty or contains a NUL"));
        }
    }
    if !xattrs.is_sorted_by(|xattr, next| xattr.name < next.name) {
        return Err(invalid("its extended attributes are not in ascending order of their names"));
    }
    Ok(())
}

pub(crate) fn validate_timestamp(what: &'static str, time: Timestamp) -> Result<(), Error> {
    if time.nanoseconds >= NANOSECONDS_PER_SECOND {
        return Err(Error::Invalid { what, why: "a time has a billion nanoseconds or more" });
    }
    Ok(())
}

fn invalid(why: &'static str) -> Error {
    Error::Invalid { what: WHAT, why }
}

// Quantities, as errors name them.
const NAME_LENGTH: &str = "length of a name";
const TARGET_LENGTH: &str = "length of a link target";
const INLINE_LENGTH: &str = "length of inline content";
const LIST_REFS: &str = "number of chunks of a list";
const DIRECTORY_PAGES: &str = "number of pages of a directory";
const HOLES: &str = "number of holes";
const XATTRS: &str = "number of extended attributes";
const XATTR_NAME_LENGTH: &str = "length of an extended attribute's name";
const XATTR_VALUE_LENGTH: &str = "length of an extended attribute";
const DESCRIPTOR_LENGTH: &str = "length of a security descriptor";

/// Keys of the map that is an entry. Fields with their default value are left out.
mod key {
    pub(super) const NAME: u32 = 0;
    pub(super) const KIND: u32 = 1;
    pub(super) const MODE: u32 = 2;
    pub(super) const UID: u32 = 3;
    pub(super) const GID: u32 = 4;
    pub(super) const USER: u32 = 5;
    pub(super) const GROUP: u32 = 6;
    pub(super) const MTIME: u32 = 7;
    pub(super) const CTIME: u32 = 8;
    pub(super) const BTIME: u32 = 9;
    pub(super) const DEVICE: u32 = 10;
    pub(super) const INODE: u32 = 11;
    pub(super) const LINKS: u32 = 12;
    pub(super) const FLAGS: u32 = 13;
    pub(super) const XATTRS: u32 = 14;
    pub(super) const VOLATILE: u32 = 15;
    pub(super) const WINDOWS: u32 = 16;
    pub(super) const SIZE: u32 = 17;
    pub(super) const INLINE: u32 = 18;
    pub(super) const LIST_IDS: u32 = 19;
    pub(super) const LIST_LENGTHS: u32 = 20;
    pub(super) const LIST_DEPTH: u32 = 21;
    pub(super) const HOLES: u32 = 22;
    pub(super) const PAGES: u32 = 23;
    pub(super) const TARGET: u32 = 24;
    pub(super) const MAJOR: u32 = 25;
    pub(super) const MINOR: u32 = 26;
}

/// Keys of the map that is the Windows metadata of an entry.
mod windows_key {
    pub(super) const ATTRIBUTES: u32 = 0;
    pub(super) const SECURITY_DESCRIPTOR: u32 = 1;
}

const KIND_FILE: u64 = 0;
const KIND_DIRECTORY: u64 = 1;
const KIND_SYMLINK: u64 = 2;
const KIND_FIFO: u64 = 3;
const KIND_SOCKET: u64 = 4;
const KIND_CHARACTER_DEVICE: u64 = 5;
const KIND_BLOCK_DEVICE: u64 = 6;

/// Most objects have one name.
const LINKS_DEFAULT: u64 = 1;

/// Appends the bytes of `entry` to `out`.
///
/// The bytes of an entry that is not valid ([`Entry::validate`]) are refused by every reader.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let mut map = MapWriter::begin(out);
    put_stored_bytes(&mut map, key::NAME, &entry.name);
    put_stored_uint(&mut map, key::KIND, kind_number(&entry.kind), KIND_FILE);
    put_stored_uint(&mut map, key::MODE, u64::from(entry.mode), 0);
    put_stored_uint(&mut map, key::UID, u64::from(entry.uid), 0);
    put_stored_uint(&mut map, key::GID, u64::from(entry.gid), 0);
    put_stored_bytes(&mut map, key::USER, &entry.user);
    put_stored_bytes(&mut map, key::GROUP, &entry.group);
    if entry.mtime != Timestamp::default() {
        put_timestamp(map.key(key::MTIME), entry.mtime);
    }
    if entry.ctime != entry.mtime {
        put_timestamp(map.key(key::CTIME), entry.ctime);
    }
    if let Some(btime) = entry.btime {
        put_timestamp(map.key(key::BTIME), btime);
    }
    put_stored_uint(&mut map, key::DEVICE, entry.device, 0);
    put_stored_uint(&mut map, key::INODE, entry.inode, 0);
    put_stored_uint(&mut map, key::LINKS, entry.links, LINKS_DEFAULT);
    put_stored_uint(&mut map, key::FLAGS, entry.flags, 0);
    if !entry.xattrs.is_empty() {
        let out = map.key(key::XATTRS);
        put_array(out, 2 * entry.xattrs.len());
        for xattr in &entry.xattrs {
            put_bytes(out, &xattr.name);
            put_bytes(out, &xattr.value);
        }
    }
    if entry.volatile {
        put_bool(map.key(key::VOLATILE), true);
    }
    if let Some(windows) = &entry.windows {
        put_windows(map.key(key::WINDOWS), windows);
    }
    put_kind(&mut map, &entry.kind);
    map.put_unknown(&entry.unknown);
    map.finish();
}

fn put_stored_uint(map: &mut MapWriter<'_>, key: u32, value: u64, default: u64) {
    if value != default {
        put_uint(map.key(key), value);
    }
}

fn put_stored_bytes(map: &mut MapWriter<'_>, key: u32, value: &[u8]) {
    if !value.is_empty() {
        put_bytes(map.key(key), value);
    }
}

/// Whole seconds are one integer, others an array of seconds and nanoseconds.
pub(crate) fn put_timestamp(out: &mut Vec<u8>, time: Timestamp) {
    if time.nanoseconds == 0 {
        put_int(out, time.seconds);
    } else {
        put_array(out, 2);
        put_int(out, time.seconds);
        put_uint(out, u64::from(time.nanoseconds));
    }
}

fn put_windows(out: &mut Vec<u8>, windows: &WindowsMetadata) {
    let mut map = MapWriter::begin(out);
    if let Some(attributes) = windows.attributes {
        put_uint(map.key(windows_key::ATTRIBUTES), u64::from(attributes));
    }
    if let Some(descriptor) = &windows.security_descriptor {
        put_bytes(map.key(windows_key::SECURITY_DESCRIPTOR), descriptor);
    }
    map.finish();
}

const fn kind_number(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File { .. } => KIND_FILE,
        EntryKind::Directory { .. } => KIND_DIRECTORY,
        EntryKind::Symlink { .. } => KIND_SYMLINK,
        EntryKind::Fifo => KIND_FIFO,
        EntryKind::Socket => KIND_SOCKET,
        EntryKind::CharacterDevice { .. } => KIND_CHARACTER_DEVICE,
        EntryKind::BlockDevice { .. } => KIND_BLOCK_DEVICE,
    }
}

fn put_kind(map: &mut MapWriter<'_>, kind: &EntryKind) {
    match kind {
        EntryKind::File { size, content, holes } => {
            put_stored_uint(map, key::SIZE, *size, 0);
            match content {
                Content::Inline(bytes) => put_stored_bytes(map, key::INLINE, bytes),
                Content::Chunks(chunks) => put_list(map, chunks),
                Content::Lists { depth, pages } => {
                    put_list(map, pages);
                    put_uint(map.key(key::LIST_DEPTH), u64::from(*depth));
                }
            }
            put_holes(map, holes);
        }
        EntryKind::Directory { pages } => {
            if !pages.is_empty() {
                put_ids(map.key(key::PAGES), pages.iter());
            }
        }
        EntryKind::Symlink { target } => put_stored_bytes(map, key::TARGET, target),
        EntryKind::Fifo | EntryKind::Socket => {}
        EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            put_stored_uint(map, key::MAJOR, u64::from(*major), 0);
            put_stored_uint(map, key::MINOR, u64::from(*minor), 0);
        }
    }
}

/// The last length follows from the size and the holes, so it is not stored.
fn put_list(map: &mut MapWriter<'_>, refs: &[ChunkRef]) {
    put_ids(map.key(key::LIST_IDS), refs.iter().map(|r| &r.id));
    if let [stored @ .., _] = refs
        && !stored.is_empty()
    {
        let out = map.key(key::LIST_LENGTHS);
        put_array(out, stored.len());
        for r in stored {
            put_uint(out, r.length);
        }
    }
}

/// Each hole as the distance from the end of the one before and its length.
fn put_holes(map: &mut MapWriter<'_>, holes: &[Extent]) {
    if holes.is_empty() {
        return;
    }
    let out = map.key(key::HOLES);
    put_array(out, 2 * holes.len());
    let mut last_end = 0_u64;
    for hole in holes {
        // Wrapping: holes that are not valid must not panic here.
        put_uint(out, hole.offset.wrapping_sub(last_end));
        put_uint(out, hole.length);
        last_end = hole.offset.wrapping_add(hole.length);
    }
}

pub(crate) fn put_ids<'a>(out: &mut Vec<u8>, ids: impl ExactSizeIterator<Item = &'a BlobId>) {
    put_bytes_head(out, ids.len() * BlobId::LENGTH);
    for id in ids {
        out.extend_from_slice(id.as_bytes());
    }
}

/// Decodes the bytes of one entry, all of them.
///
/// # Errors
/// What is wrong with the bytes. An empty name is not an error here, since a root has one.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, Error> {
    let mut reader = Reader::new(WHAT, bytes);
    let entry = read_entry(&mut reader)?;
    reader.finish()?;
    Ok(entry)
}

/// Reads one entry, which may be followed by others.
pub(crate) fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Error> {
    let start = reader.position();
    let mut entry = Entry::new(Vec::new(), EntryKind::Fifo);
    let mut kind = KIND_FILE;
    let mut fields = KindFields::default();
    let mut has_ctime = false;
    let mut map = reader.map()?;
    while let Some(key) = reader.next_key(&mut map)? {
        match key {
            key::NAME => {
                entry.name = stored_bytes(reader, NAME_LENGTH, NAME_BYTES_MAX)?.to_vec();
            }
            key::KIND => kind = stored(reader.uint()?, KIND_FILE)?,
            key::MODE => entry.mode = stored(reader.uint32()?, 0)?,
            key::UID => entry.uid = stored(reader.uint32()?, 0)?,
            key::GID => entry.gid = stored(reader.uint32()?, 0)?,
            key::USER => entry.user = read_owner_name(reader, "length of an owner's name")?,
            key::GROUP => entry.group = read_owner_name(reader, "length of a group's name")?,
            key::MTIME => {
                entry.mtime = stored(read_timestamp(reader)?, Timestamp::default())?;
            }
            key::CTIME => {
                entry.ctime = stored(read_timestamp(reader)?, entry.mtime)?;
                has_ctime = true;
            }
            key::BTIME => entry.btime = Some(read_timestamp(reader)?),
            key::DEVICE => entry.device = stored(reader.uint()?, 0)?,
            key::INODE => entry.inode = stored(reader.uint()?, 0)?,
            key::LINKS => entry.links = stored(reader.uint()?, LINKS_DEFAULT)?,
            key::FLAGS => entry.flags = stored(reader.uint()?, 0)?,
            key::XATTRS => entry.xattrs = read_xattrs(reader)?,
            key::VOLATILE => entry.volatile = stored(reader.bool()?, false)?,
            key::WINDOWS => entry.windows = Some(Box::new(read_windows(reader)?)),
            key::SIZE => fields.size = Some(stored(reader.uint()?, 0)?),
            key::INLINE => {
                fields.inline = Some(stored_bytes(reader, INLINE_LENGTH, INLINE_BYTES_MAX)?);
            }
            key::LIST_IDS => {
                let bytes_max = LIST_REFS_MAX * BlobId::LENGTH;
                fields.ids = Some(stored_bytes(reader, "length of a list of ids", bytes_max)?);
            }
            key::LIST_LENGTHS => fields.lengths = Some(read_lengths(reader)?),
            key::LIST_DEPTH => fields.depth = Some(reader.uint()?),
            key::HOLES => fields.holes = Some(read_holes(reader)?),
            key::PAGES => {
                let bytes_max = DIRECTORY_PAGES_MAX * BlobId::LENGTH;
                fields.pages = Some(stored_bytes(reader, "length of a list of pages", bytes_max)?);
            }
            key::TARGET => {
                fields.target = Some(stored_bytes(reader, TARGET_LENGTH, LINK_BYTES_MAX)?);
            }
            key::MAJOR => fields.major = Some(stored(reader.uint32()?, 0)?),
            key::MINOR => fields.minor = Some(stored(reader.uint32()?, 0)?),
            key => reader.keep_unknown(key, &mut entry.unknown)?,
        }
    }
    if !has_ctime {
        entry.ctime = entry.mtime;
    }
    entry.kind = fields.into_kind(kind)?;
    require_at_most("length of an entry", reader.position() - start, ENTRY_BYTES_MAX)?;
    entry.validate_known()?;
    Ok(entry)
}

/// Fields that belong to one kind of entry only.
#[derive(Default, PartialEq)]
struct KindFields<'b> {
    size: Option<u64>,
    inline: Option<&'b [u8]>,
    ids: Option<&'b [u8]>,
    lengths: Option<Vec<u64>>,
    depth: Option<u64>,
    holes: Option<Vec<Extent>>,
    pages: Option<&'b [u8]>,
    target: Option<&'b [u8]>,
    major: Option<u32>,
    minor: Option<u32>,
}

impl KindFields<'_> {
    fn into_kind(mut self, kind: u64) -> Result<EntryKind, Error> {
        let kind = match kind {
            KIND_FILE => self.take_file()?,
            KIND_DIRECTORY => {
                EntryKind::Directory { pages: ids(self.pages.take().unwrap_or_default())? }
            }
            KIND_SYMLINK => {
                EntryKind::Symlink { target: self.target.take().unwrap_or_default().to_vec() }
            }
            KIND_FIFO => EntryKind::Fifo,
            KIND_SOCKET => EntryKind::Socket,
            KIND_CHARACTER_DEVICE => EntryKind::CharacterDevice {
                major: self.major.take().unwrap_or_default(),
                minor: self.minor.take().unwrap_or_default(),
            },
            KIND_BLOCK_DEVICE => EntryKind::BlockDevice {
                major: self.major.take().unwrap_or_default(),
                minor: self.minor.take().unwrap_or_default(),
            },
            _ => return Err(invalid("it is of a kind that this program does not know")),
        };
        if self != KindFields::default() {
            return Err(invalid("it has a field that does not belong to its kind or content"));
        }
        Ok(kind)
    }

    fn take_file(&mut self) -> Result<EntryKind, Error> {
        let size = self.size.take().unwrap_or_default();
        let holes = self.holes.take().unwrap_or_default();
        let content = if let Some(ids_bytes) = self.ids.take() {
            let lengths = self.lengths.take().unwrap_or_default();
            let refs = list(ids(ids_bytes)?, lengths, data_bytes(size, &holes)?)?;
            match self.depth.take() {
                None => Content::Chunks(refs),
                Some(depth) => {
                    let depth = u8::try_from(depth)
                        .map_err(|_| invalid("the depth of its lists is not allowed"))?;
                    Content::Lists { depth, pages: refs }
                }
            }
        } else {
            Content::Inline(self.inline.take().unwrap_or_default().to_vec())
        };
        Ok(EntryKind::File { size, content, holes })
    }
}

/// Joins ids with the lengths of all but the last, which has what is left of `data_bytes`.
fn list(ids: Vec<BlobId>, mut lengths: Vec<u64>, data_bytes: u64) -> Result<Vec<ChunkRef>, Error> {
    if lengths.len() + 1 != ids.len() {
        return Err(invalid("its chunks and their lengths differ in number"));
    }
    let rest = lengths.iter().try_fold(data_bytes, |rest, length| rest.checked_sub(*length));
    lengths.push(rest.ok_or_else(|| invalid("its content and holes do not add up to its size"))?);
    Ok(ids.into_iter().zip(lengths).map(|(id, length)| ChunkRef { id, length }).collect())
}

/// Splits a byte string into ids.
fn ids(bytes: &[u8]) -> Result<Vec<BlobId>, Error> {
    split_ids(bytes).ok_or_else(|| invalid("a list of ids is no multiple of 32 bytes long"))
}

/// `None` if the length is no multiple of an id's.
pub(crate) fn split_ids(bytes: &[u8]) -> Option<Vec<BlobId>> {
    let (ids, rest) = bytes.as_chunks();
    rest.is_empty().then(|| ids.iter().copied().map(BlobId::from_bytes).collect())
}

/// A field that has its default value is left out, lest one entry have two encodings.
fn stored<T: PartialEq>(value: T, default: T) -> Result<T, Error> {
    if value == default {
        return Err(invalid("a field holds its default value, which is never stored"));
    }
    Ok(value)
}

fn stored_bytes<'b>(
    reader: &mut Reader<'b>,
    length_of: &'static str,
    bytes_max: usize,
) -> Result<&'b [u8], Error> {
    stored(reader.bytes(length_of, bytes_max)?, &[])
}

fn read_owner_name(reader: &mut Reader<'_>, length_of: &'static str) -> Result<Vec<u8>, Error> {
    Ok(stored_bytes(reader, length_of, OWNER_NAME_BYTES_MAX)?.to_vec())
}

pub(crate) fn read_timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, Error> {
    if !reader.next_is_array() {
        return Ok(Timestamp::from_seconds(reader.int()?));
    }
    if reader.array("number of items of a time", 2)? != 2 {
        return Err(reader.invalid("a time is neither one number nor two"));
    }
    let seconds = reader.int()?;
    let nanoseconds = reader.uint32()?;
    if nanoseconds == 0 {
        return Err(reader.invalid("a time of whole seconds is not one number"));
    }
    Timestamp::new(seconds, nanoseconds)
        .ok_or_else(|| reader.invalid("a time has a billion nanoseconds or more"))
}

fn read_xattrs(reader: &mut Reader<'_>) -> Result<Vec<Xattr>, Error> {
    let pairs = reader.pairs(XATTRS, XATTRS_MAX, "an extended attribute has no value")?;
    let mut xattrs = Vec::with_capacity(stored(pairs, 0)?);
    for _ in 0..pairs {
        let name = reader.bytes(XATTR_NAME_LENGTH, XATTR_NAME_BYTES_MAX)?.to_vec();
        let value = reader.bytes(XATTR_VALUE_LENGTH, XATTR_VALUE_BYTES_MAX)?.to_vec();
        xattrs.push(Xattr { name, value });
    }
    Ok(xattrs)
}

/// Has no room for fields of newer programs: they go into the entry.
fn read_windows(reader: &mut Reader<'_>) -> Result<WindowsMetadata, Error> {
    let mut windows = WindowsMetadata::default();
    let mut map = reader.map()?;
    while let Some(key) = reader.next_key(&mut map)? {
        match key {
            windows_key::ATTRIBUTES => windows.attributes = Some(reader.uint32()?),
            windows_key::SECURITY_DESCRIPTOR => {
                let descriptor = reader.bytes(DESCRIPTOR_LENGTH, SECURITY_DESCRIPTOR_BYTES_MAX)?;
                windows.security_descriptor = Some(descriptor.to_vec());
            }
            _ => return Err(invalid("its Windows metadata has a field that is not known")),
        }
    }
    Ok(windows)
}

fn read_holes(reader: &mut Reader<'_>) -> Result<Vec<Extent>, Error> {
    let pairs = reader.pairs(HOLES, HOLES_MAX, "a hole has no length")?;
    let mut holes = Vec::with_capacity(stored(pairs, 0)?);
    let mut last_end = 0_u64;
    for _ in 0..pairs {
        let (distance, length) = (reader.uint()?, reader.uint()?);
        let beyond = || invalid("a hole ends beyond the file");
        let offset = last_end.checked_add(distance).ok_or_else(beyond)?;
        last_end = offset.checked_add(length).ok_or_else(beyond)?;
        holes.push(Extent { offset, length });
    }
    Ok(holes)
}

fn read_lengths(reader: &mut Reader<'_>) -> Result<Vec<u64>, Error> {
    let items = stored(reader.array(LIST_REFS, LIST_REFS_MAX - 1)?, 0)?;
    // One more is pushed: the length that is not stored.
    let mut lengths = Vec::with_capacity(items + 1);
    for _ in 0..items {
        lengths.push(reader.uint()?);
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(length: u64) -> ChunkRef {
        ChunkRef { id: BlobId::from_bytes([7; 32]), length }
    }

    fn file(size: u64, content: Content, holes: &[(u64, u64)]) -> EntryKind {
        let holes = holes.iter().map(|&(offset, length)| Extent { offset, length }).collect();
        EntryKind::File { size, content, holes }
    }

    fn check_valid(entry: &Entry) {
        entry.validate().unwrap();
        let mut bytes = Vec::new();
        encode_entry(entry, &mut bytes);
        assert_eq!(&decode_entry(&bytes).unwrap(), entry, "{bytes:02x?}");
    }

    /// An entry that is not valid is refused before it is written and, if written, when it is read.
    fn check_refused(entry: &Entry, expected: &str) {
        let error = entry.validate().unwrap_err();
        assert!(error.to_string().contains(expected), "'{error}' instead of '{expected}'");
        let mut bytes = Vec::new();
        encode_entry(entry, &mut bytes);
        assert!(decode_entry(&bytes).is_err(), "{expected}: {bytes:02x?}");
    }

    #[test]
    fn a_small_file_on_its_own_chunk_takes_less_than_a_hundred_bytes() {
        let mut entry = Entry::new("main.rs", file(3000, Content::Chunks(vec![chunk(3000)]), &[]));
        entry.mode = 0o644;
        entry.uid = 1000;
        entry.gid = 1000;
        entry.user = b"ann".to_vec();
        entry.group = b"ann".to_vec();
        entry.mtime = Timestamp::new(1_750_000_000, 123_456_789).unwrap();
        entry.ctime = entry.mtime;
        entry.device = 8 << 32 | 1;
        entry.inode = 1_234_567;
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        assert_eq!(bytes.len(), 99);
        check_valid(&entry);
    }

    #[test]
    fn an_entry_without_anything_is_one_byte() {
        let entry = Entry::new("", file(0, Content::Inline(vec![]), &[]));
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        assert_eq!(bytes, [0xa0]);
        check_valid(&entry);
    }

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for (name, expected) in [
            (&b"."[..], "its name is '.' or '..'"),
            (b"..", "its name is '.' or '..'"),
            (b"a/b", "its name contains '/'"),
            (b"/", "its name contains '/'"),
            (b"a\0b", "its name contains a NUL"),
            (&[b'a'; 1025], "length of a name is 1025, above the limit of 1024"),
        ] {
            check_refused(&Entry::new(name, EntryKind::Fifo), expected);
        }
        for name in [&b"..."[..], b".a", b" ", b"\xff\xfe", b"a\\b", &[b'a'; 1024]] {
            check_valid(&Entry::new(name, EntryKind::Fifo));
        }
    }

    #[test]
    fn content_and_holes_add_up_to_the_size() {
        let inline = |bytes: usize| Content::Inline(vec![0; bytes]);
        let chunks = |lengths: &[u64]| {
            Content::Chunks(lengths.iter().map(|length| chunk(*length)).collect())
        };
        let lists = |depth: u8, lengths: &[u64]| Content::Lists {
            depth,
            pages: lengths.iter().map(|length| chunk(*length)).collect(),
        };
        for kind in [
            file(128, inline(128), &[]),
            file(1 << 40, inline(0), &[(0, 1 << 40)]),
            file(u64::MAX, inline(0), &[(0, u64::MAX)]),
            file(30, chunks(&[10]), &[(0, 5), (10, 5), (20, 10)]),
            file(16 << 20, chunks(&[16 << 20]), &[]),
            file(60, chunks(&[10, 20, 30]), &[]),
            file(u64::MAX, lists(4, &[1, u64::MAX - 1]), &[]),
        ] {
            check_valid(&Entry::new("file", kind));
        }
        let sum = "its content and holes do not add up to its size";
        for (kind, expected) in [
            (file(1, inline(0), &[]), sum),
            (file(0, inline(1), &[]), sum),
            (file(129, inline(129), &[]), "length of inline content is 129"),
            (file(10, inline(10), &[(0, 5)]), sum),
            (file(60, chunks(&[10, 51, 30]), &[]), sum),
            (file(20, chunks(&[10, 0, 10]), &[]), "a chunk is empty"),
            (file(20, chunks(&[20, 0]), &[]), "a chunk is empty"),
            (file(17 << 20, chunks(&[17 << 20]), &[]), "length of a chunk is 17825792"),
            (file(10, lists(0, &[10]), &[]), "the depth of its lists is not allowed"),
            (file(10, lists(5, &[10]), &[]), "the depth of its lists is not allowed"),
            (file(1, lists(1, &[u64::MAX, 2]), &[]), "the lengths of its chunks overflow"),
            (file(5, inline(5), &[(2, 0)]), "a hole is empty"),
            (file(9, inline(5), &[(0, 2), (2, 2)]), "its holes touch or do not ascend"),
            (file(9, inline(5), &[(4, 2), (0, 2)]), "its holes touch or do not ascend"),
            (file(9, inline(5), &[(0, 4), (3, 4)]), "its holes touch or do not ascend"),
            (file(9, inline(5), &[(6, 4)]), "a hole ends beyond the file"),
            (file(9, inline(5), &[(6, u64::MAX)]), "a hole ends beyond the file"),
        ] {
            check_refused(&Entry::new("file", kind), expected);
        }
        // Their bytes would be those of another, valid file: the last length and an empty list are
        // not stored. Only the writer can refuse these.
        for (kind, expected) in [
            (file(60, chunks(&[10, 20, 31]), &[]), sum),
            (file(9, chunks(&[10]), &[]), sum),
            (file(0, chunks(&[]), &[]), "a list of its content is empty"),
        ] {
            let error = Entry::new("file", kind).validate().unwrap_err();
            assert!(error.to_string().contains(expected), "'{error}' instead of '{expected}'");
        }
    }

    #[test]
    fn lists_are_within_their_limits() {
        let refs = |count: usize| vec![chunk(1); count];
        let holes = |count: u64| (0..count).map(|i| (2 * i, 1)).collect::<Vec<_>>();
        check_valid(&Entry::new("file", file(4096, Content::Chunks(refs(4096)), &[])));
        check_refused(
            &Entry::new("file", file(4097, Content::Chunks(refs(4097)), &[])),
            "number of chunks of a list is 4097, above the limit of 4096",
        );
        let holes_max = 1 << 16;
        let list = Content::Lists { depth: 1, pages: vec![chunk(holes_max + 1)] };
        let size = 2 * holes_max + 1;
        check_valid(&Entry::new("file", file(size, list.clone(), &holes(holes_max))));
        check_refused(
            &Entry::new("file", file(size + 1, list, &holes(holes_max + 1))),
            "number of holes is 65537, above the limit of 65536",
        );
        let pages = vec![BlobId::from_bytes([1; 32]); 1 << 16];
        check_valid(&Entry::new("directory", EntryKind::Directory { pages }));
        let pages = vec![BlobId::from_bytes([1; 32]); (1 << 16) + 1];
        check_refused(
            &Entry::new("directory", EntryKind::Directory { pages }),
            "number of pages of a directory is 65537",
        );
    }

    #[test]
    fn other_fields_are_within_their_limits() {
        let check = |change: &dyn Fn(&mut Entry), expected: &str| {
            let mut entry = Entry::new("entry", EntryKind::Socket);
            change(&mut entry);
            check_refused(&entry, expected);
        };
        let xattr = |name: &str, bytes: usize| Xattr { name: name.into(), value: vec![0; bytes] };
        let time = Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
        check(&|entry| entry.mode = 0o10000, "its mode has bits above 0o7777");
        check(&|entry| entry.user = vec![b'a'; 1025], "length of an owner's name is 1025");
        check(&|entry| entry.group = vec![b'a'; 1025], "length of a group's name is 1025");
        check(&|entry| entry.mtime = time, "a billion nanoseconds");
        check(&|entry| entry.ctime = time, "a billion nanoseconds");
        check(&|entry| entry.btime = Some(time), "a billion nanoseconds");
        check(&|entry| entry.xattrs = vec![xattr("", 0)], "is empty or contains a NUL");
        check(&|entry| entry.xattrs = vec![xattr("a\0", 0)], "is empty or contains a NUL");
        check(&|entry| entry.xattrs = vec![xattr("a", 0), xattr("a", 0)], "not in ascending order");
        check(&|entry| entry.xattrs = vec![xattr("b", 0), xattr("a", 0)], "not in ascending order");
        check(&|entry| entry.xattrs = vec![xattr("a", (8 << 20) + 1)], "length of an extended");
        check(
            &|entry| entry.xattrs = (0..4097).map(|n| xattr(&format!("{n:04}"), 0)).collect(),
            "number of extended attributes is 4097, above the limit of 4096",
        );
        check(&|entry| entry.kind = EntryKind::Symlink { target: vec![0] }, "contains a NUL");
        check(
            &|entry| entry.kind = EntryKind::Symlink { target: vec![b'a'; (64 << 10) + 1] },
            "length of a link target is 65537",
        );
        check(
            &|entry| {
                let security_descriptor = Some(vec![0; (64 << 10) + 1]);
                let windows = WindowsMetadata { attributes: None, security_descriptor };
                entry.windows = Some(Box::new(windows));
            },
            "length of a security descriptor is 65537",
        );
        check(&|entry| entry.unknown = vec![(63, vec![0])], "a field that this program does not");
        check(&|entry| entry.unknown = vec![(64, vec![])], "is cut short");
        check(&|entry| entry.unknown = vec![(64, vec![0, 0])], "has bytes behind its end");
        check(
            &|entry| entry.unknown = vec![(65, vec![0]), (64, vec![0])],
            "its unknown fields are not in ascending order",
        );
        check(
            &|entry| entry.unknown = (64..129).map(|key| (key, vec![0])).collect(),
            "number of unknown fields is 65, above the limit of 64",
        );
    }

    #[test]
    fn a_time_survives_as_nanoseconds() {
        for seconds in [i64::MIN, -1, 0, 1, i64::MAX] {
            for nanoseconds in [0, 1, 999_999_999] {
                let time = Timestamp::new(seconds, nanoseconds).unwrap();
                assert_eq!(Timestamp::from_nanoseconds(time.as_nanoseconds()), Some(time));
            }
        }
        let first = Timestamp::from_seconds(i64::MIN).as_nanoseconds();
        assert_eq!(Timestamp::from_nanoseconds(first - 1), None);
        assert_eq!(Timestamp::from_nanoseconds(i128::MAX), None);
        assert_eq!(Timestamp::new(0, 1_000_000_000), None);
    }

    #[test]
    fn a_system_time_before_1970_counts_its_nanoseconds_upwards() {
        let time = UNIX_EPOCH - std::time::Duration::from_nanos(1);
        assert_eq!(Timestamp::from_system_time(time), Timestamp::new(-1, 999_999_999));
    }
}
