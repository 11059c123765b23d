//! What the backup could not read: nobody knows what belongs there, so nothing of it is deleted.

use hashbrown::HashSet;
use putback_format::snapshot::{IncidentKind, Snapshot};

/// The paths of a snapshot that are not, or not as a whole, in it because they could not be read.
pub(super) struct Unread<'a> {
    /// Absolute; the empty one is `/`.
    paths: HashSet<&'a [u8]>,
    is_more_than_listed: bool,
}

impl<'a> Unread<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        // What changed and what lacks some metadata is there all the same. What vanished may have got another name.
        let is_there = |kind| {
            matches!(kind, IncidentKind::ChangedWhileRead | IncidentKind::MetadataIncomplete)
        };
        let unread = snapshot.incidents.iter().filter(|incident| !is_there(incident.kind));
        Self {
            paths: unread.map(|incident| without_slash(&incident.path)).collect(),
            is_more_than_listed: snapshot.statistics.incidents > snapshot.incidents.len() as u64,
        }
    }

    /// Whether there are others that the snapshot had no room to name.
    pub(super) fn is_more_than_listed(&self) -> bool {
        self.is_more_than_listed
    }

    /// Whether `path` is one of them, or lies in one.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        let mut ends =
            (0..=path.len()).filter(|end| path.get(*end).is_none_or(|byte| *byte == b'/'));
        !self.paths.is_empty() && ends.any(|end| self.paths.contains(&path[..end]))
    }
}

/// An absolute path as the restore has it: `/` is empty.
pub(super) fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Whether `path` is `folder` or lies in it.
pub(super) fn is_in(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}
