//! Walking a snapshot in search of what it lost.
//!
//! Pages below which nothing is lost are looked at once, however many snapshots share them; others are read again for
//! each, so that whoever counts or lists what is lost does it for every snapshot. Directories may be nested deeper than
//! the stack is: the open path is in memory, with a page for each directory.

use std::vec::IntoIter;

use putback_format::id::BlobId;
use putback_format::tree::{Entry, EntryKind};

use crate::error::{Error, Result};
use crate::id_set::IdSet;
use crate::observe::Cancel;

/// Tells what is lost.
pub(crate) trait Inspector {
    /// Pages below which nothing is lost.
    fn whole(&mut self) -> &mut IdSet<BlobId>;
    /// The entries of a page of the directory at `path`; none if it is lost.
    fn page(&mut self, page: &BlobId, path: &[u8]) -> Result<Option<Vec<Entry>>>;
    /// Whether all of a file is there.
    fn is_file_there(&mut self, file: &Entry, path: &[u8]) -> Result<bool>;
}

/// A directory on the open path.
struct Searched {
    path_length: usize,
    pages: IntoIter<BlobId>,
    /// The page that `entries` are of.
    page: Option<BlobId>,
    entries: IntoIter<Entry>,
    is_page_hurt: bool,
    is_hurt: bool,
}

impl Searched {
    fn new(pages: Vec<BlobId>, path_length: usize) -> Self {
        Self {
            path_length,
            pages: pages.into_iter(),
            page: None,
            entries: Vec::new().into_iter(),
            is_page_hurt: false,
            is_hurt: false,
        }
    }
}

/// Shows the inspector everything below a root that may be lost. The path of the root is empty.
///
/// # Errors
/// [`Error::Cancelled`]; those of the inspector.
pub(crate) fn look_for_lost(
    root: &Entry,
    inspector: &mut impl Inspector,
    cancel: &Cancel,
) -> Result<()> {
    let EntryKind::Directory { pages } = &root.kind else { return Ok(()) };
    let mut path = Vec::new();
    let mut open = vec![Searched::new(pages.clone(), 0)];
    while let Some(directory) = open.last_mut() {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        path.truncate(directory.path_length);
        if let Some(entry) = directory.entries.next() {
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            match &entry.kind {
                EntryKind::File { .. } => {
                    directory.is_page_hurt |= !inspector.is_file_there(&entry, &path)?;
                }
                EntryKind::Directory { pages } => {
                    open.push(Searched::new(pages.clone(), path.len()));
                }
                _ => {}
            }
            continue;
        }
        if let Some(page) = directory.page.take() {
            directory.is_hurt |= directory.is_page_hurt;
            if !std::mem::take(&mut directory.is_page_hurt) {
                inspector.whole().insert(page);
            }
        }
        let Some(page) = directory.pages.next() else {
            let is_hurt = directory.is_hurt;
            open.pop();
            if let Some(parent) = open.last_mut() {
                parent.is_page_hurt |= is_hurt;
            }
            continue;
        };
        if inspector.whole().contains(&page) {
            continue;
        }
        match inspector.page(&page, &path)? {
            Some(entries) => {
                (directory.page, directory.entries) = (Some(page), entries.into_iter());
            }
            None => directory.is_hurt = true,
        }
    }
    Ok(())
}

/// A path as it is told: that of the root is not empty.
pub(crate) fn shown(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b"/".to_vec() } else { path.to_vec() }
}
