//! Content of a snapshot as a stream: a file's bytes, or a folder as a tar or zip archive.
//!
//! Members are named from the dumped folder on, as `tar -C FOLDER -c .` does: `./a/b` in a tar
//! archive, `a/b` in a zip archive. Dumping the root of a snapshot thus yields all absolute paths
//! without their first `/`. A tar archive begins with `./`, the folder itself.
//!
//! | | tar (pax, POSIX.1-2001) | zip |
//! |---|---|---|
//! | names that are not UTF-8 | as they are | the offending bytes and `%` as `%XX`, a problem |
//! | times | mtime to the nanosecond | mtime to the second in the range of 32 bits |
//! | owner, mode | by number and name, all 12 bits | mode without set-user-id, set-group-id and sticky |
//! | extended attributes | as `SCHILY.xattr.NAME`, which GNU tar, star and libarchive read | left out |
//! | ACLs | as `SCHILY.acl.access` and `.default` in text, with numbers | left out |
//! | hard links | kept, where all names had the same content | each a copy |
//! | symbolic links | kept | kept; a problem if the target is not UTF-8 |
//! | devices, FIFOs | kept | left out, a problem |
//! | sockets | left out, a problem | left out, a problem |
//! | holes | kept, as GNU tar's sparse format 1.0 | zeros, which compress well |
//!
//! A problem is told to the observer; the archive goes on. A chunk that cannot be read ends it,
//! since its size has been promised: then the archive is cut short, and no program takes it for
//! whole.
//!
//! Memory: one chunk and the open path; for tar, the name of each hard-linked file of which a link
//! is still to come; for zip, the directory of the archive, about half a KiB for each member.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, BufWriter, Write};

use putback_format::snapshot::{IncidentKind, Snapshot};
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::{Event, Observer, Repository};
use tar::EntryType;
use zip::ZipWriter;
use zip::result::ZipError;
use zip::write::{FullFileOptions, SimpleFileOptions, StreamWriter};

use crate::error::Error;
use crate::memo::HardLinks;
use crate::tree_source::{FileReader, Piece, Step, TreeSource, Walk, normal_path, size_of};

/// The kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Keeps everything but sockets.
    Tar,
    /// For people without tar.
    Zip,
}

/// Writes the bytes of one file, holes as zeros, and says how many.
///
/// # Errors
/// [`Error::Refused`]: there is something else than a file at `path`. [`Error::Target`]: `out`
/// failed. Those of the repository; `out` has then got the bytes before the one that could not be
/// read.
pub fn cat(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<u64, Error> {
    cat_from_tree(repository, snapshot, path, out)
}

/// Writes what lies at `path` as an archive, and says how many bytes that took. Of anything but a
/// directory, the archive has one member.
///
/// # Errors
/// [`Error::Target`]: `out` failed. Those of the repository. In both cases the archive is cut
/// short.
pub fn archive(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    format: ArchiveFormat,
    out: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<u64, Error> {
    archive_from_tree(repository, snapshot, path, format, out, observer)
}

fn cat_from_tree(
    tree: &dyn TreeSource,
    snapshot: &Snapshot,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<u64, Error> {
    let entry = tree.entry_at(snapshot, path)?;
    let EntryKind::File { size, .. } = entry.kind else {
        let path = String::from_utf8_lossy(path);
        return Err(Error::Refused { message: format!("'{path}' is not a file") });
    };
    let write_error = |source| Error::Target { path: "the output".to_owned(), source };
    write_content(tree, &entry, out, write_error)?;
    out.flush().map_err(write_error)?;
    Ok(size)
}

fn archive_from_tree(
    tree: &dyn TreeSource,
    snapshot: &Snapshot,
    path: &[u8],
    format: ArchiveFormat,
    out: &mut dyn Write,
    observer: &dyn Observer,
) -> Result<u64, Error> {
    let base = tree.entry_at(snapshot, path)?;
    let gate = Gate::default();
    let out = GatedWriter { out: BufWriter::with_capacity(256 << 10, out), gate: &gate };
    let written = match format {
        ArchiveFormat::Tar => {
            let mut archive = TarMembers { tree, observer, out, links: HardLinks::new() };
            write_members(tree, &base, path, &mut archive).and_then(|()| archive.finish())
        }
        ArchiveFormat::Zip => {
            let mut archive = ZipMembers {
                tree,
                observer,
                utc_offset: snapshot.utc_offset,
                zip: ZipWriter::new_stream(out),
            };
            match write_members(tree, &base, path, &mut archive) {
                Ok(()) => archive.finish(),
                Err(error) => {
                    // On drop the writer would complete the archive, and make a part look like all
                    // of it.
                    gate.is_shut.set(true);
                    Err(error)
                }
            }
        }
    };
    written.map(|()| gate.bytes_written.get())
}

/// What both kinds of archive have in common.
trait Archive {
    /// Adds the dumped directory itself.
    fn add_base(&mut self, path: &[u8], entry: &Entry) -> Result<(), Error>;

    /// Adds an entry: its absolute path, and the part of that which follows the dumped folder's.
    fn add(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Error>;
}

fn write_members(
    tree: &dyn TreeSource,
    base: &Entry,
    path: &[u8],
    archive: &mut dyn Archive,
) -> Result<(), Error> {
    let base_path = normal_path(path);
    let EntryKind::Directory { pages } = &base.kind else {
        return archive.add(&base_path, &base.name, base);
    };
    archive.add_base(&base_path, base)?;
    let mut walk = Walk::new(tree, path, pages)?;
    while let Some(step) = walk.next()? {
        let Step::Entry(entry) = step else { continue };
        let path = walk.path();
        archive.add(path, &path[base_path.len() + 1..], &entry)?;
        if let EntryKind::Directory { pages } = &entry.kind {
            walk.enter(pages)?;
        }
    }
    Ok(())
}

fn write_content(
    tree: &dyn TreeSource,
    entry: &Entry,
    out: &mut dyn Write,
    write_error: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut reader = FileReader::new(tree, entry);
    while let Some(piece) = reader.next(ZEROS.len() as u64)? {
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Zeros(length) => &ZEROS[..usize::try_from(length).unwrap_or(ZEROS.len())],
        };
        out.write_all(bytes).map_err(&write_error)?;
    }
    Ok(())
}

/// As [`write_content`], without holes.
fn write_data(
    tree: &dyn TreeSource,
    entry: &Entry,
    out: &mut dyn Write,
    write_error: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut reader = FileReader::new(tree, entry);
    while let Some(piece) = reader.next(u64::MAX)? {
        if let Piece::Bytes(bytes) = piece {
            out.write_all(bytes).map_err(&write_error)?;
        }
    }
    Ok(())
}

fn archive_error(source: io::Error) -> Error {
    Error::Target { path: "the archive".to_owned(), source }
}

fn tell_problem(observer: &dyn Observer, path: &[u8], kind: IncidentKind, message: &str) {
    observer.event(Event::Problem { path, kind, message });
}

/// Where an archive's bytes go: counts them, and can be shut without the one who writes noticing.
struct GatedWriter<'a, W> {
    out: W,
    gate: &'a Gate,
}

#[derive(Default)]
struct Gate {
    bytes_written: Cell<u64>,
    is_shut: Cell<bool>,
}

impl<W: Write> Write for GatedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gate.is_shut.get() {
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes)?;
        self.gate.bytes_written.set(self.gate.bytes_written.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gate.is_shut.get() { Ok(()) } else { self.out.flush() }
    }
}

const TAR_BLOCK_BYTES: usize = 512;

struct TarMembers<'a, W: Write> {
    tree: &'a dyn TreeSource,
    observer: &'a dyn Observer,
    out: W,
    /// Notes the member name of the first link.
    links: HardLinks<Vec<u8>>,
}

impl<W: Write> Archive for TarMembers<'_, W> {
    fn add_base(&mut self, path: &[u8], entry: &Entry) -> Result<(), Error> {
        self.add(path, b"", entry)
    }

    fn add(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Error> {
        let mut member = [b"./", name].concat();
        if matches!(entry.kind, EntryKind::Directory { .. }) && !name.is_empty() {
            member.push(b'/');
        }
        if let EntryKind::Socket = entry.kind {
            tell_problem(
                self.observer,
                path,
                IncidentKind::Unreadable,
                "a tar archive cannot hold a socket",
            );
            return Ok(());
        }
        let first_link = self.links.meet(entry, || member.clone());
        let map = if first_link.is_none() { SparseMap::of(entry) } else { None };
        let headers = match tar_headers(&member, entry, first_link.as_deref(), map.as_ref()) {
            Ok(headers) => headers,
            Err(message) => {
                tell_problem(self.observer, path, IncidentKind::Unreadable, message);
                return Ok(());
            }
        };
        self.out.write_all(&headers).map_err(archive_error)?;
        match map {
            Some(map) => {
                self.out.write_all(&map.blocks).map_err(archive_error)?;
                write_data(self.tree, entry, &mut self.out, archive_error)?;
                self.pad(map.data_bytes)?;
            }
            None if first_link.is_none() => {
                write_content(self.tree, entry, &mut self.out, archive_error)?;
                self.pad(size_of(entry))?;
            }
            None => {}
        }
        Ok(())
    }
}

impl<W: Write> TarMembers<'_, W> {
    fn pad(&mut self, bytes: u64) -> Result<(), Error> {
        self.out.write_all(tar_padding(bytes)).map_err(archive_error)
    }

    fn finish(mut self) -> Result<(), Error> {
        self.out.write_all(&[0; 2 * TAR_BLOCK_BYTES]).map_err(archive_error)?;
        self.out.flush().map_err(archive_error)
    }
}

fn tar_padding(bytes: u64) -> &'static [u8] {
    const BLOCK: [u8; TAR_BLOCK_BYTES] = [0; TAR_BLOCK_BYTES];
    let used = usize::try_from(bytes % TAR_BLOCK_BYTES as u64).unwrap_or_default();
    &BLOCK[used..][..(TAR_BLOCK_BYTES - used) % TAR_BLOCK_BYTES]
}

/// Where the data of a file with holes lies (GNU tar manual, "Storing Sparse Files", "PAX Format, Version 1.0"):
/// the number of runs, then offset and length of each, as decimal lines that fill whole blocks before the data.
struct SparseMap {
    blocks: Vec<u8>,
    /// Bytes of all runs.
    data_bytes: u64,
    /// Bytes of the file.
    real_size: u64,
}

impl SparseMap {
    /// None for what has no holes.
    fn of(entry: &Entry) -> Option<Self> {
        let EntryKind::File { size, holes, .. } = &entry.kind else { return None };
        if holes.is_empty() {
            return None;
        }
        let (mut runs, mut data_bytes, mut position) = (Vec::new(), 0_u64, 0);
        for hole in holes {
            let length = hole.offset.saturating_sub(position);
            if length > 0 {
                runs.push((position, length));
                data_bytes = data_bytes.saturating_add(length);
            }
            position = hole.offset.saturating_add(hole.length);
        }
        // The last run says where the file ends, also if that is in a hole.
        let length = size.saturating_sub(position);
        runs.push((*size - length, length));
        data_bytes = data_bytes.saturating_add(length);
        let mut blocks = format!("{}\n", runs.len());
        for (offset, length) in runs {
            blocks.push_str(&format!("{offset}\n{length}\n"));
        }
        let mut blocks = blocks.into_bytes();
        blocks.extend_from_slice(tar_padding(blocks.len() as u64));
        Some(Self { blocks, data_bytes, real_size: *size })
    }

    /// What stands in the place of the name, for programs that do not know the format.
    fn placeholder(name: &[u8]) -> Vec<u8> {
        let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        [&name[..slash], b"GNUSparseFile.0/", &name[slash..]].concat()
    }
}

/// The blocks before a member's content: if needed a pax extended header (POSIX.1-2001, `pax`,
/// "pax Extended Header"), then a ustar header with as much as fits.
fn tar_headers(
    name: &[u8],
    entry: &Entry,
    first_link: Option<&[u8]>,
    map: Option<&SparseMap>,
) -> Result<Vec<u8>, &'static str> {
    let mut header = tar::Header::new_ustar();
    let mut pax = PaxRecords::default();
    let mut link_name = first_link;
    let mut size = 0;
    let placeholder = map.map(|map| {
        pax.add(b"GNU.sparse.major", b"1");
        pax.add(b"GNU.sparse.minor", b"0");
        pax.add(b"GNU.sparse.name", name);
        pax.add(b"GNU.sparse.realsize", map.real_size.to_string().as_bytes());
        SparseMap::placeholder(name)
    });
    let name = placeholder.as_deref().unwrap_or(name);
    let entry_type = match &entry.kind {
        _ if first_link.is_some() => EntryType::Link,
        EntryKind::File { size: bytes, .. } => {
            size = map.map_or(*bytes, |map| map.data_bytes.saturating_add(map.blocks.len() as u64));
            EntryType::Regular
        }
        EntryKind::Directory { .. } => EntryType::Directory,
        EntryKind::Symlink { target } => {
            link_name = Some(target);
            EntryType::Symlink
        }
        EntryKind::Fifo => EntryType::Fifo,
        EntryKind::CharacterDevice { .. } => EntryType::Char,
        EntryKind::BlockDevice { .. } => EntryType::Block,
        EntryKind::Socket => return Err("a tar archive cannot hold a socket"),
    };
    if let EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } =
        entry.kind
    {
        if major.max(minor) > OCTAL_7_MAX {
            return Err("a tar archive cannot hold a device with such a number");
        }
        // Only a header without these fields is refused, which this is not.
        let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        set.map_err(|_| "a tar archive cannot hold this device")?;
    }
    header.set_entry_type(entry_type);
    header.set_mode(entry.mode & 0o7777);
    header.set_size(size);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    header.set_mtime(u64::try_from(entry.mtime.seconds).unwrap_or_default().min(OCTAL_11_MAX));
    // Larger numbers are in the header too, in GNU's binary form, for readers that know only that.
    if size > OCTAL_11_MAX {
        pax.add(b"size", size.to_string().as_bytes());
    }
    if entry.uid > OCTAL_7_MAX {
        pax.add(b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > OCTAL_7_MAX {
        pax.add(b"gid", entry.gid.to_string().as_bytes());
    }
    if entry.mtime.nanoseconds != 0
        || !(0..=OCTAL_11_MAX.cast_signed()).contains(&entry.mtime.seconds)
    {
        pax.add(b"mtime", pax_time(entry.mtime).as_bytes());
    }
    if let Some(ustar) = header.as_ustar_mut() {
        if !put_path(name, &mut ustar.name, &mut ustar.prefix) {
            pax.add(b"path", name);
        }
        if let Some(link_name) = link_name
            && !put_text(link_name, &mut ustar.linkname, false)
        {
            pax.add(b"linkpath", link_name);
        }
        if !put_text(&entry.user, &mut ustar.uname, true) {
            pax.add(b"uname", &entry.user);
        }
        if !put_text(&entry.group, &mut ustar.gname, true) {
            pax.add(b"gname", &entry.group);
        }
    }
    for xattr in &entry.xattrs {
        match acl_record(&xattr.name, &xattr.value) {
            Some((key, text)) => pax.add(key, text.as_bytes()),
            None => pax.add_xattr(&xattr.name, &xattr.value),
        }
    }
    header.set_cksum();
    let mut blocks = pax.into_blocks();
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

/// Largest number in an octal field of 8 bytes.
const OCTAL_7_MAX: u32 = 0o777_7777;
/// Largest number in an octal field of 12 bytes.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;

/// Puts a name into the header. Says whether that is enough: not too long, and ASCII only, as
/// programs disagree about what other letters mean there. What is no text at all they take as it is
/// in a header, and some would stumble over it in a record.
///
/// With `ends_with_nul` the field needs one byte for that.
fn put_text(text: &[u8], field: &mut [u8], ends_with_nul: bool) -> bool {
    let room = field.len() - usize::from(ends_with_nul);
    let length = text.len().min(room);
    field[..length].copy_from_slice(&text[..length]);
    length == text.len() && is_for_headers(text)
}

fn is_for_headers(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_err()
}

/// An access control list as a record of its own: key and text.
///
/// `value` is Linux's form (`linux/posix_acl_xattr.h`): a version, then for each entry tag,
/// permissions and number. The text is that of POSIX.1e draft 17, 23.1, the short form. None for
/// other attributes, and for a list that is none.
fn acl_record(name: &[u8], value: &[u8]) -> Option<(&'static [u8], String)> {
    const VERSION: u32 = 2;
    let key: &[u8] = match name {
        b"system.posix_acl_access" => b"SCHILY.acl.access",
        b"system.posix_acl_default" => b"SCHILY.acl.default",
        _ => return None,
    };
    let (version, entries) = value.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() || entries.is_empty() {
        return None;
    }
    let mut texts = Vec::with_capacity(entries.len());
    for [tag0, tag1, perm0, perm1, id @ ..] in entries {
        let number = u32::from_le_bytes(*id);
        let who = match u16::from_le_bytes([*tag0, *tag1]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{number}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{number}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let permissions = u16::from_le_bytes([*perm0, *perm1]);
        let letters: String = [(4, 'r'), (2, 'w'), (1, 'x')]
            .map(|(bit, letter)| if permissions & bit == 0 { '-' } else { letter })
            .iter()
            .collect();
        texts.push(format!("{who}:{letters}"));
    }
    Some((key, texts.join(",")))
}

/// Puts a path into the header, divided at a `/` if it is long. Says whether it is there in full.
fn put_path(path: &[u8], name: &mut [u8; 100], prefix: &mut [u8; 155]) -> bool {
    if path.len() > name.len() && is_for_headers(path) {
        let from = path.len() - name.len() - 1;
        // Behind it something must follow, and a directory ends with a slash.
        let slash = (from..path.len() - 1).find(|&at| path[at] == b'/');
        if let Some(slash) = slash.filter(|slash| *slash <= prefix.len()) {
            prefix[..slash].copy_from_slice(&path[..slash]);
            return put_text(&path[slash + 1..], name, false);
        }
    }
    put_text(path, name, false)
}

/// Seconds with a decimal fraction, as pax writes times. Negative ones count down from zero.
fn pax_time(time: Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let (sign, absolute) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let (seconds, fraction) = (absolute / 1_000_000_000, absolute % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{seconds}"),
        fraction => format!("{sign}{seconds}.{fraction:09}"),
    }
}

/// The records of a pax extended header: `LENGTH KEY=VALUE\n`, the length that of the record.
#[derive(Default)]
struct PaxRecords {
    records: Vec<u8>,
}

impl PaxRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        put_record(&mut self.records, key, value);
    }

    fn add_xattr(&mut self, name: &[u8], value: &[u8]) {
        let mut key = b"SCHILY.xattr.".to_vec();
        for &byte in name {
            // As GNU tar does: the first `=` ends a key.
            match byte {
                b'=' => key.extend(b"%3D"),
                b'%' => key.extend(b"%25"),
                byte => key.push(byte),
            }
        }
        put_record(&mut self.records, &key, value);
    }

    /// The header with its records, or nothing if there are none.
    fn into_blocks(self) -> Vec<u8> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let records = self.records;
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        if let Some(ustar) = header.as_ustar_mut() {
            put_text(b"././@PaxHeader", &mut ustar.name, false);
        }
        header.set_cksum();
        let mut blocks = header.as_bytes().to_vec();
        blocks.extend_from_slice(&records);
        blocks.extend_from_slice(tar_padding(records.len() as u64));
        blocks
    }
}

fn put_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A blank, `=` and a newline. The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

struct ZipMembers<'a, W: Write> {
    tree: &'a dyn TreeSource,
    observer: &'a dyn Observer,
    utc_offset: i32,
    zip: ZipWriter<StreamWriter<W>>,
}

impl<W: Write> Archive for ZipMembers<'_, W> {
    fn add_base(&mut self, _: &[u8], _: &Entry) -> Result<(), Error> {
        Ok(())
    }

    fn add(&mut self, path: &[u8], name: &[u8], entry: &Entry) -> Result<(), Error> {
        let left_out = |message| {
            tell_problem(self.observer, path, IncidentKind::Unreadable, message);
            Ok(())
        };
        let target = match &entry.kind {
            EntryKind::File { .. } | EntryKind::Directory { .. } => None,
            EntryKind::Symlink { target } => match std::str::from_utf8(target) {
                Ok(target) => Some(target),
                Err(_) => {
                    return left_out(
                        "a zip archive cannot hold a link to a name that is not UTF-8",
                    );
                }
            },
            _ => return left_out("a zip archive cannot hold devices, FIFOs and sockets"),
        };
        let member = zip_name(name);
        if let Cow::Owned(member) = &member {
            let message = format!("its name is not UTF-8; in the archive it is {member}");
            tell_problem(self.observer, path, IncidentKind::MetadataIncomplete, &message);
        }
        let options = zip_options(entry, self.utc_offset).map_err(zip_error)?;
        let started = match (&entry.kind, target) {
            (EntryKind::Directory { .. }, _) => {
                self.zip.add_directory(format!("{member}/"), options)
            }
            (_, Some(target)) => self.zip.add_symlink(member, target, options),
            _ => self.zip.start_file(member, options),
        };
        match started {
            Ok(()) => {}
            // It is too long, or an escaped name is that of another entry.
            Err(ZipError::InvalidArchive(_)) => {
                return left_out("a zip archive cannot hold an entry of this name");
            }
            Err(error) => return Err(zip_error(error)),
        }
        if let EntryKind::File { .. } = entry.kind {
            write_content(self.tree, entry, &mut self.zip, archive_error)?;
        }
        Ok(())
    }
}

impl<W: Write> ZipMembers<'_, W> {
    fn finish(self) -> Result<(), Error> {
        let mut out = self.zip.finish().map_err(zip_error)?.into_inner();
        out.flush().map_err(archive_error)
    }
}

fn zip_error(error: ZipError) -> Error {
    archive_error(match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    })
}

fn zip_options(
    entry: &Entry,
    utc_offset: i32,
) -> Result<FullFileOptions<'static, 'static>, ZipError> {
    // Below the limit of 2^32 - 1 bytes by what deflate may add to bytes that do not shrink.
    const LARGE_FILE_BYTES: u64 = 0xff00_0000;
    const EXTENDED_TIMESTAMP: u16 = 0x5455;
    const HAS_MTIME: u8 = 1;
    let mut options = SimpleFileOptions::default()
        .unix_permissions(entry.mode)
        .large_file(size_of(entry) >= LARGE_FILE_BYTES)
        .last_modified_time(dos_time(entry.mtime.seconds.saturating_add(i64::from(utc_offset))))
        .into_full_options();
    if let Ok(seconds) = i32::try_from(entry.mtime.seconds) {
        let mut field = vec![HAS_MTIME];
        field.extend(seconds.to_le_bytes());
        options.add_extra_field(EXTENDED_TIMESTAMP, field, false)?;
    }
    Ok(options)
}

/// The name as a zip archive can hold it. If it is not UTF-8, its wrong bytes, and `%`, are written
/// as `%XX`.
fn zip_name(name: &[u8]) -> Cow<'_, str> {
    if let Ok(name) = std::str::from_utf8(name) {
        return Cow::Borrowed(name);
    }
    let mut escaped = String::new();
    for chunk in name.utf8_chunks() {
        escaped.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(escaped)
}

/// Local time as MS-DOS counts it; the nearest it can say before 1980 and after 2107.
fn dos_time(local_seconds: i64) -> zip::DateTime {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_198;
    let seconds = local_seconds.clamp(FIRST, LAST);
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let small = |number: i64| u8::try_from(number).unwrap_or_default();
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    zip::DateTime::from_date_and_time(
        u16::try_from(year).unwrap_or_default(),
        small(month),
        small(day),
        small(hour),
        small(minute),
        small(second),
    )
    .unwrap_or_default()
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar
/// (Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Read};
    use std::sync::Mutex;

    use proptest::prelude::*;
    use putback_format::tree::{Content, Extent, Xattr};

    use super::*;
    use crate::tree_source::testing::*;

    /// Collects problems as `PATH: MESSAGE`.
    #[derive(Default)]
    struct Problems(Mutex<Vec<String>>);

    impl Observer for Problems {
        fn event(&self, event: Event<'_>) {
            if let Event::Problem { path, message, .. } = event {
                self.0.lock().unwrap().push(format!("{}: {message}", path.escape_ascii()));
            }
        }
    }

    fn archive_of(folder: &Folder, path: &str, format: ArchiveFormat) -> (Vec<u8>, Vec<String>) {
        let mut tree = FakeTree::with_lists(1);
        let snapshot = tree.snapshot(folder);
        let (mut bytes, problems) = (Vec::new(), Problems::default());
        let written =
            archive_from_tree(&tree, &snapshot, path.as_bytes(), format, &mut bytes, &problems)
                .unwrap();
        assert_eq!(written, bytes.len() as u64);
        (bytes, problems.0.into_inner().unwrap())
    }

    /// A member of a tar archive as another program reads it.
    #[derive(Debug, PartialEq)]
    struct Member {
        entry_type: EntryType,
        link: Option<Vec<u8>>,
        bytes: Vec<u8>,
        mode: u32,
        owner: (u64, u64),
        pax: BTreeMap<String, Vec<u8>>,
    }

    fn read_tar(bytes: &[u8]) -> Vec<(String, Member)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut pax = BTreeMap::new();
            if let Some(records) = entry.pax_extensions().unwrap() {
                for record in records {
                    let record = record.unwrap();
                    pax.insert(record.key().unwrap().to_owned(), record.value_bytes().to_vec());
                }
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            let member = Member {
                entry_type: header.entry_type(),
                link: entry.link_name_bytes().map(|name| name.to_vec()),
                bytes,
                mode: header.mode().unwrap(),
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                pax,
            };
            (entry.path_bytes().escape_ascii().to_string(), member)
        });
        entries.collect()
    }

    fn check_names(folder: &Folder, path: &str, format: ArchiveFormat, expected: &[&str]) {
        let (bytes, problems) = archive_of(folder, path, format);
        assert_eq!(problems, [""; 0]);
        let names: Vec<String> = match format {
            ArchiveFormat::Tar => read_tar(&bytes).into_iter().map(|(name, _)| name).collect(),
            ArchiveFormat::Zip => read_zip(&bytes).into_iter().map(|(name, ..)| name).collect(),
        };
        assert_eq!(names, expected);
    }

    #[test]
    fn members_are_named_from_the_dumped_folder_on() {
        let folder =
            Folder::of([file("home/me/a", b"1"), file("home/me/dir/b", b"2"), file("z", b"")]);
        use ArchiveFormat::{Tar, Zip};
        check_names(&folder, "/home/me", Tar, &["./", "./a", "./dir/", "./dir/b"]);
        check_names(&folder, "home/me/", Zip, &["a", "dir/", "dir/b"]);
        check_names(
            &folder,
            "/",
            Tar,
            &[
                "./",
                "./home/",
                "./home/me/",
                "./home/me/a",
                "./home/me/dir/",
                "./home/me/dir/b",
                "./z",
            ],
        );
        check_names(&folder, "/home/me/a", Tar, &["./a"]);
        check_names(&folder, "/home/me/a", Zip, &["a"]);
    }

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr { name: name.to_vec(), value: value.to_vec() }
    }

    #[test]
    fn a_tar_archive_keeps_everything_but_sockets() {
        let mut odd = file("odd", b"123");
        odd.name = b"odd\xff".to_vec();
        (odd.mode, odd.uid, odd.gid) = (0o4755, 3_000_000_000, 7);
        (odd.user, odd.group) = ("jürgen".into(), "x".repeat(40).into());
        odd.mtime = Timestamp { seconds: -1, nanoseconds: 250_000_000 };
        let acl = [
            &[2, 0, 0, 0][..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 5, 0, 0xe8, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[8, 0, 0, 0, 50, 0, 0, 0],
            &[16, 0, 6, 0, 255, 255, 255, 255],
            &[32, 0, 1, 0, 255, 255, 255, 255],
        ]
        .concat();
        odd.xattrs = vec![
            xattr(b"security.capability", &[1, 0, 255]),
            xattr(b"system.posix_acl_access", &acl),
            xattr(b"system.posix_acl_default", b"none"),
            xattr(b"user.a=b%c", b"=v="),
        ];
        let holes = vec![Extent { offset: 2, length: 70_000 }];
        let content = Content::Inline(b"abcdef".to_vec());
        let sparse = special("sparse", EntryKind::File { size: 70_006, content, holes });
        let long_target = "t/".repeat(200);
        let folder = Folder::of([
            odd,
            sparse,
            symlink("link", "where"),
            symlink("longlink", &long_target),
            special("null", EntryKind::CharacterDevice { major: 1, minor: 3 }),
            special("disk", EntryKind::BlockDevice { major: 8, minor: 1_048_575 }),
            special("far", EntryKind::BlockDevice { major: 8, minor: u32::MAX }),
            special("pipe", EntryKind::Fifo),
            special("socket", EntryKind::Socket),
        ]);
        let (bytes, problems) = archive_of(&folder, "", ArchiveFormat::Tar);
        assert_eq!(
            problems,
            [
                "/far: a tar archive cannot hold a device with such a number",
                "/socket: a tar archive cannot hold a socket",
            ]
        );
        let members: BTreeMap<String, Member> = read_tar(&bytes).into_iter().collect();
        let odd = &members["./odd\\xff"];
        assert_eq!(
            (odd.entry_type, &odd.bytes[..], odd.mode, odd.owner),
            (EntryType::Regular, &b"123"[..], 0o4755, (3_000_000_000, 7))
        );
        let pax: Vec<(&str, &[u8])> =
            odd.pax.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert_eq!(
            pax,
            [
                (
                    "SCHILY.acl.access",
                    &b"user::rwx,user:1000:r-x,group::r--,group:50:---,mask::rw-,other::--x"[..]
                ),
                ("SCHILY.xattr.security.capability", &[1, 0, 255]),
                ("SCHILY.xattr.system.posix_acl_default", b"none"),
                ("SCHILY.xattr.user.a%3Db%25c", b"=v="),
                ("gname", "x".repeat(40).as_bytes()),
                ("mtime", b"-0.750000000"),
                ("uid", b"3000000000"),
                ("uname", "jürgen".as_bytes()),
            ]
        );
        let sparse = &members["./GNUSparseFile.0/sparse"];
        let (map, data) = sparse.bytes.split_at(TAR_BLOCK_BYTES);
        assert_eq!(
            map.trim_ascii_end().escape_ascii().to_string().trim_end_matches("\\x00"),
            r"2\n0\n2\n70002\n4\n"
        );
        assert_eq!(data, b"abcdef");
        assert_eq!(sparse.pax["GNU.sparse.name"], b"./sparse");
        assert_eq!(sparse.pax["GNU.sparse.realsize"], b"70006");
        let link_of = |name: &str| (members[name].entry_type, members[name].link.clone().unwrap());
        assert_eq!(link_of("./link"), (EntryType::Symlink, b"where".to_vec()));
        assert_eq!(link_of("./longlink"), (EntryType::Symlink, long_target.into_bytes()));
        assert_eq!(members["./null"].entry_type, EntryType::Char);
        assert_eq!(members["./disk"].entry_type, EntryType::Block);
        assert_eq!(members["./pipe"].entry_type, EntryType::Fifo);
        assert_eq!(members.len(), 8);
    }

    #[test]
    fn further_hard_links_name_the_first() {
        let link = |path: &str, entry: Entry| Entry {
            name: path.into(),
            links: 3,
            device: 1,
            inode: u64::from(entry.name[0]),
            ..entry
        };
        let long = format!("a/{}/first", "d".repeat(150));
        let folder = Folder::of([
            link(&long, file("f", b"12345")),
            link("b", file("f", b"12345")),
            link("c", file("f", b"12345")),
            link("s1", symlink("s", "x")),
            link("s2", symlink("s", "x")),
        ]);
        let (bytes, problems) = archive_of(&folder, "", ArchiveFormat::Tar);
        assert_eq!(problems, [""; 0]);
        let members: BTreeMap<String, Member> = read_tar(&bytes).into_iter().collect();
        let first = format!("./{long}");
        assert_eq!(members[&first].bytes, b"12345");
        for other in ["./b", "./c"] {
            let other = &members[other];
            assert_eq!(
                (other.entry_type, other.link.as_deref()),
                (EntryType::Link, Some(first.as_bytes()))
            );
            assert_eq!(other.bytes, b"");
        }
        assert_eq!(members["./s1"].entry_type, EntryType::Symlink);
        assert_eq!(members["./s2"].link, Some(b"./s1".to_vec()));
    }

    #[test]
    fn names_of_different_files_with_one_inode_number_stay_apart() {
        let linked = |mut entry: Entry| {
            (entry.links, entry.device, entry.inode) = (2, 1, 7);
            entry
        };
        // The other name of `a/x` lies elsewhere; it went while the backup ran, and its number came to `z/y`. The
        // file of `b` and `c` was written between the two.
        let folder = Folder::of([
            linked(file("a/x", b"first")),
            linked(file("z/y", b"other")),
            linked(file("z/y2", b"other")),
            Entry { inode: 8, ..linked(file("b", b"old")) },
            Entry { inode: 8, ..linked(file("c", b"newer")) },
        ]);
        let (bytes, problems) = archive_of(&folder, "", ArchiveFormat::Tar);
        assert_eq!(problems, [""; 0]);
        let target = tempfile::tempdir().unwrap();
        tar::Archive::new(&bytes[..]).unpack(target.path()).unwrap();
        for (path, content) in
            [("a/x", "first"), ("z/y", "other"), ("z/y2", "other"), ("b", "old"), ("c", "newer")]
        {
            let found = fs_err::read_to_string(target.path().join(path)).unwrap();
            assert_eq!(found, content, "{path}");
        }
    }

    #[test]
    fn a_long_path_is_divided_if_it_can_be() {
        for (folder, name, expects_pax) in [
            (95, 3, false),
            (98, 1, false),
            (120, 99, false),
            (150, 101, true),
            (154, 100, true),
            (153, 100, false),
            (170, 5, true),
        ] {
            let path = format!("{}/{}", "d".repeat(folder), "n".repeat(name));
            let headers =
                tar_headers(format!("./{path}").as_bytes(), &file("x", b""), None, None).unwrap();
            assert_eq!(headers.len() > 512, expects_pax, "{folder} {name}");
            check_names(
                &Folder::of([file(&path, b"12345")]),
                "",
                ArchiveFormat::Tar,
                &["./", &format!("./{}/", "d".repeat(folder)), &format!("./{path}")],
            );
        }
    }

    #[test]
    fn huge_files_and_late_times_are_in_the_extended_header() {
        let mut entry = file("huge", b"");
        let size = 1 << 43;
        entry.kind =
            EntryKind::File { size, content: Content::Inline(Vec::new()), holes: Vec::new() };
        entry.mtime.seconds = 1 << 33;
        let headers = tar_headers(b"./huge", &entry, None, None).unwrap();
        let mut archive = tar::Archive::new(&headers[..]);
        let mut read = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(read.size(), size);
        let pax: Vec<String> = read
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| record.unwrap())
            .map(|record| format!("{}={}", record.key().unwrap(), record.value().unwrap()))
            .collect();
        assert_eq!(pax, ["size=8796093022208", "mtime=8589934592"]);
    }

    #[test]
    fn the_map_of_a_file_with_holes_has_all_of_its_data_and_its_end() {
        let check = |size, holes: &[(u64, u64)], expected: &str, data_bytes| {
            let holes =
                holes.iter().map(|(offset, length)| Extent { offset: *offset, length: *length });
            let content = Content::Inline(Vec::new());
            let kind = EntryKind::File { size, content, holes: holes.collect() };
            let map = SparseMap::of(&special("x", kind)).unwrap();
            assert_eq!(map.blocks.len() % TAR_BLOCK_BYTES, 0);
            let text = String::from_utf8(map.blocks).unwrap();
            assert_eq!(text.trim_end_matches('\0').replace('\n', " "), expected);
            assert_eq!((map.data_bytes, map.real_size), (data_bytes, size));
        };
        check(10, &[(0, 10)], "1 10 0 ", 0);
        check(10, &[(0, 4)], "1 4 6 ", 6);
        check(10, &[(4, 6)], "2 0 4 10 0 ", 4);
        check(10, &[(2, 3), (5, 1), (8, 1)], "3 0 2 6 2 9 1 ", 5);
        let many: Vec<(u64, u64)> = (0..200).map(|number| (number * 10, 5)).collect();
        let expected: String = (0..200).map(|number| format!("{} 5 ", number * 10 + 5)).collect();
        check(2000, &many, &format!("200 {expected}"), 1000);
        assert!(SparseMap::of(&file("x", b"12")).is_none());
    }

    #[test]
    fn times_are_decimal_fractions() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (5, 1, "5.000000001"),
            (-1, 0, "-1"),
            (-1, 1, "-0.999999999"),
            (-2, 500_000_000, "-1.500000000"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(pax_time(Timestamp { seconds, nanoseconds }), text);
        }
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [0, 1, 3, 4, 5, 90, 91, 92, 93, 94, 95, 988, 989, 990, 991, 992, 993, 10_000]
        {
            let mut record = Vec::new();
            put_record(&mut record, b"k", &vec![b'v'; length]);
            let blank = record.iter().position(|byte| *byte == b' ').unwrap();
            let stated: usize = std::str::from_utf8(&record[..blank]).unwrap().parse().unwrap();
            assert_eq!(stated, record.len());
        }
    }

    type ZipMember = (String, Vec<u8>, u32, (u16, u8, u8, u8, u8, u8));

    /// Name, bytes or link target, type and permissions, local time.
    fn read_zip(bytes: &[u8]) -> Vec<ZipMember> {
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        (0..archive.len())
            .map(|index| {
                let mut member = archive.by_index(index).unwrap();
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).unwrap();
                let time = member.last_modified().unwrap();
                let time = (
                    time.year(),
                    time.month(),
                    time.day(),
                    time.hour(),
                    time.minute(),
                    time.second(),
                );
                (member.name().unwrap().into_owned(), bytes, member.unix_mode().unwrap(), time)
            })
            .collect()
    }

    #[test]
    fn a_zip_archive_holds_files_folders_and_links() {
        let mut odd = file("", b"odd");
        odd.name = b"dir/\xff%".to_vec();
        let mut script = file("dir/ä.sh", &b"echo ".repeat(100));
        (script.mode, script.mtime.seconds) = (0o4755, 951_782_400 + 3661);
        let mut bad_target = symlink("bad", "");
        bad_target.kind = EntryKind::Symlink { target: b"\xff".to_vec() };
        let mut early = file("early", b"");
        early.mtime.seconds = i64::MIN;
        let mut late = file("late", b"");
        late.mtime.seconds = i64::MAX;
        let folder = Folder::of([
            odd,
            script,
            bad_target,
            early,
            late,
            symlink("link", "dir/ä.sh"),
            special("pipe", EntryKind::Fifo),
        ]);
        let (bytes, problems) = archive_of(&folder, "", ArchiveFormat::Zip);
        assert_eq!(
            problems,
            [
                "/bad: a zip archive cannot hold a link to a name that is not UTF-8",
                "/dir/\\xff%: its name is not UTF-8; in the archive it is dir/%FF%25",
                "/pipe: a zip archive cannot hold devices, FIFOs and sockets",
            ]
        );
        let time = (2023, 11, 14, 22, 13, 20);
        let expected: Vec<ZipMember> = vec![
            ("dir/".into(), vec![], 0o40755, time),
            ("dir/ä.sh".into(), b"echo ".repeat(100), 0o100755, (2000, 2, 29, 1, 1, 0)),
            ("dir/%FF%25".into(), b"odd".to_vec(), 0o100644, time),
            ("early".into(), vec![], 0o100644, (1980, 1, 1, 0, 0, 0)),
            ("late".into(), vec![], 0o100644, (2107, 12, 31, 23, 59, 58)),
            ("link".into(), "dir/ä.sh".into(), 0o120644, time),
        ];
        assert_eq!(read_zip(&bytes), expected);
        assert!(bytes.len() < 1500);
    }

    #[test]
    fn an_escaped_name_that_is_taken_leaves_the_entry_out_of_the_zip_archive() {
        let mut odd = file("", b"odd");
        odd.name = b"a\xff".to_vec();
        let folder = Folder::of([file("a%FF", b"even"), odd]);
        let (bytes, problems) = archive_of(&folder, "", ArchiveFormat::Zip);
        assert_eq!(problems.len(), 2);
        assert_eq!(read_zip(&bytes).len(), 1);
    }

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (50_402, (2107, 12, 31)),
        ] {
            assert_eq!(civil_date(day), date);
        }
    }

    #[test]
    fn an_archive_that_met_a_damaged_chunk_is_not_taken_for_whole() {
        let folder = Folder::of([file("a", b"123456"), file("b", b"abcdefgh"), file("c", b"")]);
        for format in [ArchiveFormat::Tar, ArchiveFormat::Zip] {
            let mut tree = FakeTree::default();
            let snapshot = tree.snapshot(&folder);
            tree.lose_chunk(b"efgh");
            let mut bytes = Vec::new();
            let result = archive_from_tree(&tree, &snapshot, b"", format, &mut bytes, &());
            assert!(matches!(result, Err(Error::Repository(_))));
            match format {
                ArchiveFormat::Tar => {
                    let whole =
                        tar::Archive::new(&bytes[..]).entries().unwrap().try_for_each(|entry| {
                            entry.and_then(|mut entry| entry.read_to_end(&mut Vec::new())).map(drop)
                        });
                    // Neither the promised bytes nor the end of the archive are there.
                    assert!(whole.is_err() || !bytes.ends_with(&[0; 1024]));
                }
                ArchiveFormat::Zip => assert!(zip::ZipArchive::new(Cursor::new(bytes)).is_err()),
            }
        }
    }

    #[test]
    fn a_stream_that_takes_no_more_ends_the_archive() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let length = bytes.len().min(self.0);
                self.0 -= length;
                Ok(length)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([file("a", &[7; 2000])]));
        for format in [ArchiveFormat::Tar, ArchiveFormat::Zip] {
            for room in [0, 10, 100] {
                let result = archive_from_tree(&tree, &snapshot, b"", format, &mut Full(room), &());
                assert!(matches!(result, Err(Error::Target { .. })), "{format:?} {room}");
            }
        }
        assert!(matches!(
            cat_from_tree(&tree, &snapshot, b"a", &mut Full(5)),
            Err(Error::Target { .. })
        ));
    }

    #[test]
    fn cat_writes_a_file_and_refuses_anything_else() {
        let mut tree = FakeTree::default();
        let holes = vec![Extent { offset: 3, length: 2 }];
        let content = Content::Inline(b"abcdef".to_vec());
        let sparse = special("d/sparse", EntryKind::File { size: 8, content, holes });
        let snapshot = tree.snapshot(&Folder::of([sparse, symlink("link", "d/sparse")]));
        let mut bytes = Vec::new();
        assert_eq!(cat_from_tree(&tree, &snapshot, b"/d/sparse", &mut bytes).unwrap(), 8);
        assert_eq!(bytes, b"abc\0\0def");
        for path in ["d", "link", "/"] {
            let result = cat_from_tree(&tree, &snapshot, path.as_bytes(), &mut Vec::new());
            assert!(matches!(result, Err(Error::Refused { .. })), "{path}");
        }
        assert!(matches!(
            cat_from_tree(&tree, &snapshot, b"no", &mut Vec::new()),
            Err(Error::Repository(_))
        ));
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_dumped(
            entries in prop::collection::vec(
                ("[aä%\\\\ ]{1,60}(/[bö]{1,90}){0,2}", 0..3u8, prop::collection::vec(any::<u8>(), 0..600)),
                0..10,
            ),
        ) {
            let folder = Folder::of(entries.into_iter().map(|(path, kind, bytes)| match kind {
                0 => directory(&path),
                1 => symlink(&path, "target"),
                _ => file(&path, &bytes),
            }));
            let expected: BTreeMap<String, Vec<u8>> = folder.0.iter().map(|(path, entry)| {
                let path = String::from_utf8(path.clone()).unwrap();
                match &entry.kind {
                    EntryKind::File { content: Content::Inline(bytes), .. } => (path, bytes.clone()),
                    EntryKind::Directory { .. } => (path + "/", Vec::new()),
                    _ => (path, b"target".to_vec()),
                }
            }).collect();
            let (tar, _) = archive_of(&folder, "", ArchiveFormat::Tar);
            let members: BTreeMap<String, Vec<u8>> = read_tar(&tar).into_iter().skip(1)
                .map(|(name, member)| (name[2..].to_owned(), member.link.unwrap_or(member.bytes))).collect();
            let escaped: BTreeMap<String, Vec<u8>> = expected.iter()
                .map(|(path, bytes)| (path.as_bytes().escape_ascii().to_string(), bytes.clone())).collect();
            prop_assert_eq!(members, escaped);
            let (zip, _) = archive_of(&folder, "", ArchiveFormat::Zip);
            let members: BTreeMap<String, Vec<u8>> =
                read_zip(&zip).into_iter().map(|(name, bytes, ..)| (name, bytes)).collect();
            prop_assert_eq!(members, expected);
        }
    }
}
