//! Goes through the wanted part of a snapshot depth-first, in the order of names.
//!
//! Knows nothing of the target. Each entry has an *ordinal*, its place in the walk; walking again, and skipping
//! the same directories, gives the same ordinals.
//!
//! Memory: the entries of one tree page for each directory on the open path.

use putback_format::tree::Entry;
use putback_repo::Repository;

use crate::restore::select::{Selection, Wanted};

/// One step.
pub(super) enum Step {
    /// A directory begins, and what is in it follows, unless [`Walk::skip`] is called now.
    Enter(Box<Entry>, Wanted),
    /// The directory that was entered last ends.
    Leave {
        /// False if part of it could not be read, so that nobody knows all of its names.
        is_complete: bool,
    },
    /// Anything but a directory.
    Entry(Box<Entry>),
    /// An entry that is not wanted.
    Unwanted(Box<Entry>),
    /// Part of the directory at [`Walk::path`] cannot be read.
    Unreadable(putback_repo::Error),
}

type Entries = Box<dyn Iterator<Item = putback_repo::Result<Entry>>>;

struct Level {
    entries: Entries,
    wanted: Wanted,
    path_length: usize,
    is_complete: bool,
}

/// A walk that is under way.
pub(super) struct Walk<'a> {
    repository: &'a Repository,
    selection: &'a Selection,
    levels: Vec<Level>,
    path: Vec<u8>,
    ordinal: u64,
}

impl<'a> Walk<'a> {
    /// Goes through `entries`, which lie in the directory `path` (empty for `/`).
    pub(super) fn new(
        repository: &'a Repository,
        selection: &'a Selection,
        path: Vec<u8>,
        entries: Entries,
    ) -> Self {
        let wanted = selection.decide_base(&path);
        let level = Level { entries, wanted, path_length: path.len(), is_complete: true };
        Self { repository, selection, levels: vec![level], path, ordinal: 0 }
    }

    /// Absolute path of what the last step was about.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What is wanted of the directory that the walk is in.
    pub(super) fn wanted(&self) -> Wanted {
        self.levels.last().map_or(Wanted::No, |level| level.wanted)
    }

    /// The place of the last entry in the walk.
    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Leaves out what is in the directory that was just entered; no [`Step::Leave`] follows for it.
    pub(super) fn skip(&mut self) {
        self.levels.pop();
    }

    /// The next step; none after the directory that the walk began in has ended, which is a step too.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let level = self.levels.last_mut()?;
        self.path.truncate(level.path_length);
        let entry = match level.entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                level.is_complete = false;
                return Some(Step::Unreadable(error));
            }
            None => {
                let is_complete = level.is_complete;
                self.levels.pop();
                return Some(Step::Leave { is_complete });
            }
        };
        self.path.push(b'/');
        self.path.extend_from_slice(&entry.name);
        self.ordinal += 1;
        match self.selection.decide(level.wanted, &self.path, entry.is_directory()) {
            Wanted::No => Some(Step::Unwanted(Box::new(entry))),
            wanted if entry.is_directory() => {
                let (entries, is_complete): (Entries, bool) =
                    match self.repository.read_directory(&entry) {
                        Ok(entries) => (Box::new(entries), true),
                        Err(error) => (Box::new(std::iter::once(Err(error))), false),
                    };
                let path_length = self.path.len();
                self.levels.push(Level { entries, wanted, path_length, is_complete });
                Some(Step::Enter(Box::new(entry), wanted))
            }
            _ => Some(Step::Entry(Box::new(entry))),
        }
    }
}
