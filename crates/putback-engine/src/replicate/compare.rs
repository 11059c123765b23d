//! Whether a copied tree is the tree that was to be copied.
//!
//! Both are read page by page and must agree in every name and in everything that is said of an entry but the ids of
//! what it holds. That those name the right bytes is for the ids to say: every blob was compared with its own when it
//! was read.
//!
//! Memory: a page of both trees for each directory of the open path, and 100,000 pairs that are known to be the same.

use putback_format::tree::{Content, Entry, EntryKind};
use putback_repo::{Cancel, Directory, Repository};

use super::Trouble;
use crate::memo::{DirectoryKey, SubtreeMemo};

/// Compares trees; remembers directories that are the same.
pub(super) struct Compared<'a> {
    source: &'a Repository,
    target: &'a Repository,
    same: SubtreeMemo<(DirectoryKey, DirectoryKey), ()>,
}

/// A directory of the open path.
struct Open {
    own: Directory,
    copy: Directory,
    /// What to remember when it was found to be the same.
    key: Option<(DirectoryKey, DirectoryKey)>,
    path_length: usize,
}

impl<'a> Compared<'a> {
    pub(super) fn new(source: &'a Repository, target: &'a Repository) -> Self {
        let entries_max = SubtreeMemo::<DirectoryKey, ()>::ENTRIES_MAX;
        Self { source, target, same: SubtreeMemo::new(entries_max) }
    }

    /// Notes a directory and its copy that an earlier comparison found to be the same.
    pub(super) fn note_same(&mut self, own: &Entry, copy: &Entry) {
        if let Some(key) = key_of(own, copy) {
            self.same.insert(key, 1, ());
        }
    }

    /// Compares all that two roots hold, and yields the first path that differs.
    pub(super) fn difference(
        &mut self,
        own: &Entry,
        copy: &Entry,
        cancel: &Cancel,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let mut path = Vec::new();
        let mut open = Vec::new();
        if !is_same(own, copy) {
            return Ok(Some(b"/".to_vec()));
        }
        self.meet(own, copy, &mut open, 0)?;
        while let Some(directory) = open.last_mut() {
            if cancel.is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            path.truncate(directory.path_length);
            let own = directory.own.next().transpose().map_err(Trouble::of_source)?;
            let copy = directory.copy.next().transpose()?;
            match (own, copy) {
                (None, None) => {
                    if let Some(key) = directory.key {
                        self.same.insert(key, 1, ());
                    }
                    open.pop();
                }
                (Some(own), Some(copy)) if is_same(&own, &copy) => {
                    path.push(b'/');
                    path.extend_from_slice(&own.name);
                    self.meet(&own, &copy, &mut open, path.len())?;
                }
                (own, copy) => {
                    let name = own.or(copy).map(|entry| entry.name).unwrap_or_default();
                    return Ok(Some([&path[..], b"/", &name].concat()));
                }
            }
        }
        Ok(None)
    }

    fn meet(
        &self,
        own: &Entry,
        copy: &Entry,
        open: &mut Vec<Open>,
        path_length: usize,
    ) -> Result<(), Trouble> {
        let key = key_of(own, copy);
        if key.is_none() || key.is_some_and(|key| self.same.get(&key).is_some()) {
            return Ok(());
        }
        let own = self.source.read_directory(own).map_err(Trouble::of_source)?;
        let copy = self.target.read_directory(copy)?;
        open.push(Open { own, copy, key, path_length });
        Ok(())
    }
}

/// None unless both are directories.
fn key_of(own: &Entry, copy: &Entry) -> Option<(DirectoryKey, DirectoryKey)> {
    match (&own.kind, &copy.kind) {
        (EntryKind::Directory { pages: own }, EntryKind::Directory { pages: copy }) => {
            Some((DirectoryKey::new(own), DirectoryKey::new(copy)))
        }
        _ => None,
    }
}

/// Whether two entries say the same but for ids.
fn is_same(own: &Entry, copy: &Entry) -> bool {
    let bare = |entry: &Entry| {
        let kind = match &entry.kind {
            EntryKind::Directory { .. } => EntryKind::Directory { pages: Vec::new() },
            // Its chunks add up to its size, or it would not have been decoded.
            EntryKind::File { size, holes, content } => EntryKind::File {
                size: *size,
                holes: holes.clone(),
                content: match content {
                    Content::Inline(bytes) => Content::Inline(bytes.clone()),
                    _ => Content::Inline(Vec::new()),
                },
            },
            other => other.clone(),
        };
        Entry { kind, ..entry.clone() }
    };
    bare(own) == bare(copy)
}
