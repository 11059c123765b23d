//! What becomes of an entry, given what has its name in the target. Nothing here looks or acts.

use putback_format::tree::{Entry, EntryKind};

use crate::platform::{FileKind, Stat};
use crate::restore::Overwrite;
use crate::restore::item::{FileBody, Item, Method};

/// What becomes of an entry that is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing has its name.
    Create,
    /// An object of its kind is there: kept as far as it is right.
    Compare,
    /// A file of its size and time is there, which counts as right.
    Trust,
    /// Something else is there and goes.
    Replace,
    /// A directory is there, and goes if it may.
    ReplaceDirectory,
    /// What is there stays.
    Skip,
}

/// Decides about an entry that is no directory.
pub(super) fn decide(policy: Overwrite, entry: &Entry, existing: Option<&Stat>) -> Decision {
    let Some(existing) = existing else { return Decision::Create };
    if !may_change(policy, entry, existing) {
        return Decision::Skip;
    }
    if existing.is_directory() {
        return Decision::ReplaceDirectory;
    }
    if kind_of(&entry.kind) != existing.kind {
        return Decision::Replace;
    }
    let is_trusted = policy == Overwrite::IfChanged
        && entry.kind.file_size() == Some(existing.size)
        && entry.mtime == existing.mtime;
    if is_trusted { Decision::Trust } else { Decision::Compare }
}

/// What becomes of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryDecision {
    /// Nothing has its name.
    Create,
    /// It is there.
    Enter,
    /// Something else is there and goes; a link too, which is never followed.
    Replace,
    /// What is there stays, and what would come into the directory is left out.
    Skip,
}

/// Decides about a directory.
pub(super) fn decide_directory(
    policy: Overwrite,
    entry: &Entry,
    existing: Option<&Stat>,
) -> DirectoryDecision {
    match existing {
        None => DirectoryDecision::Create,
        Some(existing) if existing.is_directory() => DirectoryDecision::Enter,
        Some(existing) if may_change(policy, entry, existing) => DirectoryDecision::Replace,
        Some(_) => DirectoryDecision::Skip,
    }
}

fn may_change(policy: Overwrite, entry: &Entry, existing: &Stat) -> bool {
    match policy {
        Overwrite::Always | Overwrite::IfChanged => true,
        Overwrite::IfNewer => entry.mtime > existing.mtime,
        Overwrite::Never => false,
    }
}

pub(super) fn kind_of(kind: &EntryKind) -> FileKind {
    match kind {
        EntryKind::File { .. } => FileKind::File,
        EntryKind::Directory { .. } => FileKind::Directory,
        EntryKind::Symlink { .. } => FileKind::Symlink,
        EntryKind::Fifo => FileKind::Fifo,
        EntryKind::Socket => FileKind::Socket,
        EntryKind::CharacterDevice { .. } => FileKind::CharacterDevice,
        EntryKind::BlockDevice { .. } => FileKind::BlockDevice,
    }
}

/// How an existing file is brought up to date, once it was compared: `matched` of `compared` runs of bytes are
/// right.
pub(super) fn choose_method(
    item: &Item,
    file: &FileBody,
    matched: usize,
    compared: usize,
) -> Method {
    let is_content_right = matched == compared;
    let is_kept = if is_content_right {
        // To cut it off or to make its holes is quickly done.
        !file.is_frame_wrong() || !item.must_not_be_written()
    } else {
        matched > 0 && item.is_kept_if_part_is_right()
    };
    if is_kept { Method::InPlace } else { Method::Temporary }
}
