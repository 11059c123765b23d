//! What a restore sets besides content, and what may go wrong with it.

use std::fs::File;
use std::io;

use putback_format::tree::{Extent, Timestamp, Xattr};

use super::system_target;

/// Metadata to set. The order is fixed: owner, extended attributes, mode, times, flags. A change of owner clears
/// set-user-id bits and capabilities, an immutable flag stops everything else.
#[derive(Clone, Copy, Debug)]
pub struct TargetMetadata<'a> {
    /// Owner and group, none to leave them.
    pub owner: Option<(u32, u32)>,
    /// Permission bits. Set-user-id and set-group-id of anything but a directory are left out unless owner and
    /// group were set: they would speak for somebody else.
    pub mode: u32,
    /// Extended attributes, none to leave them. Others that could be in a backup are removed: they come from an
    /// earlier file, or from the default ACL of the directory.
    pub xattrs: Option<&'a [Xattr]>,
    /// Last change of content.
    pub mtime: Timestamp,
    /// `STATX_ATTR_*` bits to add, among [`super::FLAGS_KEPT`].
    pub flags: u64,
}

/// A part of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataStep {
    /// Owner and group.
    Owner,
    /// Permission bits.
    Mode,
    /// An extended attribute, or their list.
    Xattrs,
    /// Times.
    Times,
    /// Inode flags.
    Flags,
}

/// A part of the metadata that could not be set. The other parts were.
#[derive(Debug)]
pub struct MetadataProblem {
    /// Which part.
    pub step: MetadataStep,
    /// Whether this is so for every user but root, as with the owner of a file.
    pub is_for_lack_of_privilege: bool,
    /// What could not be set, and the cause; for a person.
    pub message: String,
}

/// What became of a removal.
#[derive(Debug, Default)]
pub struct Removal {
    /// Names that are gone.
    pub removed: u64,
    /// What is still there: its path from the directory on, and why.
    pub problems: Vec<(Vec<u8>, io::Error)>,
}

/// Sets the metadata of an open file. What fails is told and does not stop the rest.
#[must_use]
pub fn apply_metadata(file: &File, metadata: &TargetMetadata<'_>) -> Vec<MetadataProblem> {
    system_target::apply_metadata(file, metadata)
}

/// Adds `STATX_ATTR_*` bits, among [`super::FLAGS_KEPT`], to an open file, as [`apply_metadata`] does.
#[must_use]
pub fn add_flags(file: &File, flags: u64) -> Vec<MetadataProblem> {
    system_target::add_flags(file, flags)
}

/// Gives the space of a run of bytes back; it reads as zeros afterwards. The size of the file stays.
///
/// In a file that was just made, nothing needs punching: what is not written is a hole once
/// [`File::set_len`] has set the size.
///
/// # Errors
/// The system's, without the path; `Unsupported` where the file system has no holes.
pub fn punch_hole(file: &File, hole: Extent) -> io::Result<()> {
    system_target::punch_hole(file, hole)
}
