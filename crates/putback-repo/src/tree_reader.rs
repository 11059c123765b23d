//! Walking what a snapshot holds: shared by restore, listings, comparison, check and mount.

use std::collections::VecDeque;

use putback_format::id::BlobId;
use putback_format::key::BlobKind;
use putback_format::list::decode_list_page;
use putback_format::page::TreePage;
use putback_format::snapshot::Snapshot;
use putback_format::tree::{ChunkRef, Content, Entry, EntryKind};

use crate::Repository;
use crate::error::{Error, Result};
use crate::observe::Cancel;

/// Entries of a directory in order of name, read page by page.
pub struct Directory {
    repository: Repository,
    pages: VecDeque<BlobId>,
    entries: std::vec::IntoIter<Entry>,
    last_name: Option<Vec<u8>>,
}

impl Iterator for Directory {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let page = self.pages.pop_front()?;
            match self.repository.read_page(&page) {
                Ok(entries) => {
                    // Pages of one directory go on where the last one ended: else names could repeat.
                    let first = entries.first().map(|entry| &entry.name);
                    if first.is_some_and(|first| {
                        self.last_name.as_ref().is_some_and(|last| last >= first)
                    }) {
                        self.pages.clear();
                        let source = putback_format::Error::Invalid {
                            what: "a directory",
                            why: "its pages are not in order",
                        };
                        return Some(Err(Error::object(format!("tree page {page}"), source)));
                    }
                    if let Some(last) = entries.last() {
                        self.last_name = Some(last.name.clone());
                    }
                    self.entries = entries.into_iter();
                }
                // The pages after a damaged one are still good: the caller decides whether to go on.
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Repository {
    /// The entries of one tree page.
    ///
    /// # Errors
    /// As [`Repository::read_blob`]; [`Error::Damaged`] if it is no tree page.
    pub fn read_page(&self, page: &BlobId) -> Result<Vec<Entry>> {
        let bytes = self.read_blob(BlobKind::Tree, page)?;
        TreePage::decode(&bytes).map_err(|error| Error::object(format!("tree page {page}"), error))
    }

    /// The entries of a directory, which any other entry has not.
    ///
    /// # Errors
    /// [`Error::NoPath`] if it is no directory.
    pub fn read_directory(&self, directory: &Entry) -> Result<Directory> {
        let EntryKind::Directory { pages } = &directory.kind else {
            return Err(Error::NoPath {
                path: String::from_utf8_lossy(&directory.name).into_owned(),
            });
        };
        Ok(Directory {
            repository: self.clone(),
            pages: pages.iter().copied().collect(),
            entries: Vec::new().into_iter(),
            last_name: None,
        })
    }

    /// Hands over every blob below a directory: pages before what they hold. `visit` says whether to go on below
    /// a page; for chunks its answer means nothing. Directories may be nested deeper than the stack is.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; those of `visit`; as [`Repository::read_page`].
    pub(crate) fn walk_blobs(
        &self,
        root: &Entry,
        cancel: &Cancel,
        visit: &mut dyn FnMut(BlobKind, &BlobId) -> Result<bool>,
    ) -> Result<()> {
        let pages_of = |entry: &Entry| match &entry.kind {
            EntryKind::Directory { pages } => pages.clone(),
            _ => Vec::new(),
        };
        let mut waiting = pages_of(root);
        while let Some(page) = waiting.pop() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if !visit(BlobKind::Tree, &page)? {
                continue;
            }
            for entry in self.read_page(&page)? {
                match &entry.kind {
                    EntryKind::File { content: Content::Chunks(chunks), .. } => {
                        self.walk_refs(chunks, 0, visit)?;
                    }
                    EntryKind::File { content: Content::Lists { depth, pages }, .. } => {
                        self.walk_refs(pages, *depth, visit)?;
                    }
                    _ => waiting.extend(pages_of(&entry)),
                }
            }
        }
        Ok(())
    }

    /// At level 0 these are chunks, above it pages of lists.
    fn walk_refs(
        &self,
        refs: &[ChunkRef],
        level: u8,
        visit: &mut dyn FnMut(BlobKind, &BlobId) -> Result<bool>,
    ) -> Result<()> {
        for one in refs {
            if level == 0 {
                visit(BlobKind::Data, &one.id)?;
            } else if visit(BlobKind::Tree, &one.id)? {
                self.walk_refs(&self.read_list_page(one, level)?, level - 1, visit)?;
            }
        }
        Ok(())
    }

    /// The entry at a path; `/a/b` and `a/b` are the same, an empty path is the root.
    ///
    /// # Errors
    /// [`Error::NoPath`] if there is none; as [`Repository::read_directory`].
    pub fn entry_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Entry> {
        let missing = || Error::NoPath { path: String::from_utf8_lossy(path).into_owned() };
        let mut entry = snapshot.root.clone();
        for name in
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
        {
            if !matches!(entry.kind, EntryKind::Directory { .. }) {
                return Err(missing());
            }
            let mut found = None;
            for child in self.read_directory(&entry)? {
                let child = child?;
                if child.name.as_slice() >= name {
                    found = (child.name == name).then_some(child);
                    break;
                }
            }
            entry = found.ok_or_else(missing)?;
        }
        Ok(entry)
    }

    /// All chunks of a file in order; list pages are read.
    ///
    /// # Errors
    /// As [`Repository::read_blob`]; [`Error::Damaged`] if a list page is none.
    pub fn read_chunks(&self, content: &Content) -> Result<Vec<ChunkRef>> {
        match content {
            Content::Inline(_) => Ok(Vec::new()),
            Content::Chunks(chunks) => Ok(chunks.clone()),
            Content::Lists { depth, pages } => {
                let mut refs = pages.clone();
                for level in (1..=*depth).rev() {
                    let mut below = Vec::new();
                    for page in &refs {
                        below.extend(self.read_list_page(page, level)?);
                    }
                    refs = below;
                }
                Ok(refs)
            }
        }
    }

    /// The references of one list page; `level` 1 holds chunks.
    ///
    /// # Errors
    /// As [`Repository::read_blob`]; [`Error::Damaged`] if it is no list page of this length.
    pub fn read_list_page(&self, page: &ChunkRef, level: u8) -> Result<Vec<ChunkRef>> {
        let damaged = |error| Error::object(format!("list page {}", page.id), error);
        let bytes = self.read_blob(BlobKind::Tree, &page.id)?;
        let refs = decode_list_page(&bytes, level).map_err(damaged)?;
        let sum = refs.iter().try_fold(0u64, |sum, chunk| sum.checked_add(chunk.length));
        if sum != Some(page.length) {
            let why = "it does not hold the length that its parent says";
            return Err(damaged(putback_format::Error::Invalid { what: "a list page", why }));
        }
        Ok(refs)
    }
}
