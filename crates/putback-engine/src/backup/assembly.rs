//! Directories under construction: entries become pages, pages become blobs.
//!
//! Workers finish entries in any order; pages need them in order of name. Each open directory keeps a queue
//! of places, one for each entry that the walk has met; what is finished at its front goes into a
//! page. A directory that the walk has left and whose queue is empty becomes an entry of its parent.
//!
//! Memory: the entries between the first unfinished place and the last one met, which the bounded number of
//! jobs under way limits, and one page for each directory on the open path.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use putback_format::id::BlobId;
use putback_format::page::PageBuilder;
use putback_format::snapshot::IncidentKind;
use putback_format::tree::{Entry, EntryKind};
use putback_repo::FrameWriter;

use super::Incidents;
use crate::Error;

/// Where the entry of a directory goes when it is done.
pub(crate) struct Place {
    node: Arc<Node>,
    index: u64,
}

enum Slot {
    Waiting,
    Done(Box<Entry>),
    Omitted,
}

/// A directory under construction.
pub(crate) struct Node {
    path: Vec<u8>,
    entry: Entry,
    parent: Option<Place>,
    state: Mutex<State>,
}

struct State {
    slots: VecDeque<Slot>,
    /// Index of the first slot.
    first: u64,
    builder: PageBuilder,
    pages: Vec<BlobId>,
    /// The walk has met all of its entries.
    is_left: bool,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another worker ends the backup; nothing half done becomes a snapshot.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns directories into tree blobs.
pub(crate) struct Assembly<'a> {
    trees: Mutex<FrameWriter>,
    incidents: &'a Incidents<'a>,
    root: Mutex<Option<Entry>>,
}

impl Node {
    /// The place of the next entry. Called by the walk alone, in order of name.
    pub(crate) fn reserve(self: &Arc<Self>) -> Place {
        let mut state = guard(&self.state);
        let index = state.first + state.slots.len() as u64;
        state.slots.push_back(Slot::Waiting);
        Place { node: Arc::clone(self), index }
    }
}

impl<'a> Assembly<'a> {
    /// Nothing yet; `trees` takes the pages.
    pub(crate) fn new(trees: FrameWriter, incidents: &'a Incidents<'a>) -> Self {
        Self { trees: Mutex::new(trees), incidents, root: Mutex::default() }
    }

    /// Begins a directory; the one without a place is the root.
    pub(crate) fn enter(&self, path: Vec<u8>, entry: Entry, parent: Option<Place>) -> Arc<Node> {
        let state = State {
            slots: VecDeque::new(),
            first: 0,
            builder: PageBuilder::new(),
            pages: Vec::new(),
            is_left: false,
        };
        Arc::new(Node { path, entry, parent, state: Mutex::new(state) })
    }

    /// The walk has met all entries of this directory.
    pub(crate) fn leave(&self, node: &Arc<Node>) -> Result<(), Error> {
        guard(&node.state).is_left = true;
        self.advance(Arc::clone(node))
    }

    /// An entry is done; without one it stays out.
    pub(crate) fn complete(&self, place: Place, entry: Option<Entry>) -> Result<(), Error> {
        let Place { node, index } = place;
        let mut state = guard(&node.state);
        let at = (index - state.first) as usize;
        state.slots[at] = entry.map_or(Slot::Omitted, |entry| Slot::Done(Box::new(entry)));
        drop(state);
        if at == 0 { self.advance(node) } else { Ok(()) }
    }

    /// Moves what is finished at the front of the queue into pages, and directories that are done into
    /// their parents, as far up as that goes.
    fn advance(&self, node: Arc<Node>) -> Result<(), Error> {
        let mut node = node;
        loop {
            let mut state = guard(&node.state);
            while !matches!(state.slots.front(), None | Some(Slot::Waiting)) {
                state.first += 1;
                if let Some(Slot::Done(entry)) = state.slots.pop_front()
                    && let Some(page) = self.push(&mut state.builder, *entry, &node.path)?
                {
                    let id = self.put(&page)?;
                    state.pages.push(id);
                }
            }
            if !state.is_left || !state.slots.is_empty() {
                return Ok(());
            }
            // Two workers may get here; only the first finds the directory still open.
            state.is_left = false;
            if let Some(page) = std::mem::take(&mut state.builder).finish() {
                let id = self.put(&page)?;
                state.pages.push(id);
            }
            let kind = EntryKind::Directory { pages: std::mem::take(&mut state.pages) };
            drop(state);
            let entry = Entry { kind, ..node.entry.clone() };
            let Some(place) = &node.parent else {
                *guard(&self.root) = Some(entry);
                return Ok(());
            };
            let (parent, index) = (Arc::clone(&place.node), place.index);
            let mut state = guard(&parent.state);
            let at = (index - state.first) as usize;
            state.slots[at] = Slot::Done(Box::new(entry));
            drop(state);
            node = parent;
        }
    }

    /// Adds an entry to a page. One that the format cannot hold loses its extended attributes; one that it cannot
    /// hold even then stays out. Both are told.
    fn push(
        &self,
        builder: &mut PageBuilder,
        entry: Entry,
        directory: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let first = match builder.push(&entry) {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let path = join(directory, &entry.name);
        let without = Entry { xattrs: Vec::new(), ..entry };
        match builder.push(&without) {
            Ok(page) => {
                let message = format!("its extended attributes cannot be kept: {first}");
                self.incidents.add(&path, IncidentKind::MetadataIncomplete, &message);
                Ok(page)
            }
            Err(error) => {
                self.incidents.add(&path, IncidentKind::Unreadable, &error.to_string());
                Ok(None)
            }
        }
    }

    /// Stores a tree page or list page.
    pub(crate) fn put(&self, page: &[u8]) -> Result<BlobId, Error> {
        Ok(guard(&self.trees).put(page)?)
    }

    /// Hands over the frame of tree pages that is being filled.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        Ok(guard(&self.trees).flush()?)
    }

    /// The root, when everything is done.
    pub(crate) fn root(&self) -> Option<Entry> {
        guard(&self.root).clone()
    }

    /// The root as it would be if the walk ended here. `open` is the open path from the root down; nothing else
    /// may be under way. The directories stay open.
    pub(crate) fn provisional_root(&self, open: &[Arc<Node>]) -> Result<Option<Entry>, Error> {
        let mut below: Option<Entry> = None;
        for node in open.iter().rev() {
            let state = guard(&node.state);
            let made = state.builder.provisional_pages(below.as_slice());
            let made = made
                .map_err(|source| putback_repo::Error::Encode { object: "a checkpoint", source })?;
            let mut pages = state.pages.clone();
            drop(state);
            for page in made {
                pages.push(self.put(&page)?);
            }
            below = Some(Entry { kind: EntryKind::Directory { pages }, ..node.entry.clone() });
        }
        Ok(below)
    }
}

/// An absolute path in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
