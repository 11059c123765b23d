//! What is known of a repository's folder without asking: ids of folders, rows of objects.
//!
//! A plain map with methods; time is an argument. Everything in it may be stale, and callers find
//! out by a 404. What came from the cache file and was not seen since is marked as such.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use putio::FileId;

/// How long listings may lack what this process itself has written.
pub(super) const LISTING_LAG_MAX: Duration = Duration::from_secs(60 * 60);

/// One row of put.io: an object, or one of several of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: FileId,
    pub(super) size: u64,
    pub(super) crc32: Option<u32>,
    pub(super) created_at: Option<SystemTime>,
    pub(super) origin: Origin,
}

/// How a row became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An earlier process wrote it down.
    Cached,
    /// The server has shown it to this process.
    Shown,
    /// This process wrote it then, and the server confirmed it by its id.
    Written(Instant),
}

/// The root or a folder in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    /// Ascending; several if put.io has several folders of this name. New objects go to the first.
    pub(super) ids: Vec<FileId>,
    /// The server has shown these ids to this process.
    pub(super) is_confirmed: bool,
    /// When this process made it.
    made_at: Option<Instant>,
    /// Objects that were not known, since it was listed last.
    pub(super) misses: u32,
    rows: BTreeMap<(Box<str>, FileId), Row>,
    /// Which of several rows of a name has the bytes that the name says.
    chosen: BTreeMap<Box<str>, FileId>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By name; the empty one is the root.
    folders: BTreeMap<Box<str>, Folder>,
    /// The server has listed the root to this process, so that a missing folder is news.
    pub(super) is_root_listed: bool,
    /// When the root was looked up by its path.
    pub(super) resolved_at: Option<SystemTime>,
    /// What this process deleted; ids are not used again.
    deleted: HashSet<FileId>,
    /// It differs from what was written down.
    pub(super) is_changed: bool,
}

impl Known {
    /// Nothing but when the root was looked up.
    pub(super) fn resolved(at: SystemTime) -> Self {
        Self { resolved_at: Some(at), ..Self::default() }
    }

    pub(super) fn folder(&self, folder: &str) -> Option<&Folder> {
        self.folders.get(folder)
    }

    pub(super) fn folders(&self) -> impl ExactSizeIterator<Item = (&str, &Folder)> {
        self.folders.iter().map(|(name, folder)| (&**name, folder))
    }

    /// The ids of a folder, ascending.
    pub(super) fn ids(&self, folder: &str) -> Option<Vec<FileId>> {
        self.folders.get(folder).map(|folder| folder.ids.clone())
    }

    pub(super) fn root_id(&self) -> Option<FileId> {
        self.folders.get("").and_then(|root| root.ids.first().copied())
    }

    /// Notes where a folder is. What was known of another folder in its place is forgotten.
    pub(super) fn set_folder(&mut self, folder: &str, mut ids: Vec<FileId>) {
        ids.sort_unstable();
        ids.dedup();
        let entry = self.folders.entry(folder.into()).or_default();
        entry.is_confirmed = true;
        if entry.ids != ids {
            *entry = Folder { ids, is_confirmed: true, ..Folder::default() };
            self.is_changed = true;
        }
    }

    /// Notes a folder that this process made.
    pub(super) fn set_made_folder(&mut self, folder: &str, id: FileId, now: Instant) {
        self.set_folder(folder, vec![id]);
        if let Some(entry) = self.folders.get_mut(folder) {
            entry.made_at = Some(now);
        }
    }

    /// Notes all folders in the root. One that is not among them is forgotten, unless this process
    /// has made it so recently that the listing may lag.
    pub(super) fn set_folders(&mut self, listed: BTreeMap<&str, Vec<FileId>>, now: Instant) {
        let before = self.folders.len();
        self.folders.retain(|name, folder| {
            name.is_empty()
                || listed.contains_key(&**name)
                || folder.made_at.is_some_and(|made_at| now - made_at < LISTING_LAG_MAX)
        });
        self.is_changed |= before != self.folders.len();
        for (name, ids) in listed {
            self.set_folder(name, ids);
        }
        self.is_root_listed = true;
    }

    /// The server has shown a folder to be where it is known to be.
    pub(super) fn confirm(&mut self, folder: &str) {
        if let Some(folder) = self.folders.get_mut(folder) {
            folder.is_confirmed = true;
        }
    }

    /// Forgets everything but what was deleted: the root is not where it was.
    pub(super) fn forget(&mut self) {
        let deleted = std::mem::take(&mut self.deleted);
        *self = Self { deleted, is_changed: true, ..Self::default() };
    }

    /// The rows of an object, ids ascending.
    pub(super) fn rows(&self, folder: &str, name: &str) -> Vec<Row> {
        let Some(folder) = self.folders.get(folder) else {
            return Vec::new();
        };
        let ends = (name.into(), FileId(i64::MIN))..=(name.into(), FileId(i64::MAX));
        folder.rows.range(ends).map(|(_, row)| *row).collect()
    }

    /// Adds a row, or what is new about one; a row that this process deleted stays away.
    pub(super) fn insert(&mut self, folder: &str, name: &str, row: Row) {
        let Some(folder) = self.folders.get_mut(folder) else {
            return;
        };
        if self.deleted.contains(&row.id) {
            return;
        }
        // From now on somebody may ask what has become of it.
        self.is_changed |= folder.insert(name, row);
    }

    /// Removes a row that is gone.
    pub(super) fn remove(&mut self, folder: &str, name: &str, id: FileId) {
        if let Some(folder) = self.folders.get_mut(folder) {
            let key = (name.into(), id);
            self.is_changed |= folder.rows.remove(&key).is_some();
            folder.chosen.remove(name);
        }
    }

    /// Removes a row that this process has deleted.
    pub(super) fn note_deleted(&mut self, folder: &str, name: &str, id: FileId) {
        self.remove(folder, name, id);
        self.deleted.insert(id);
    }

    /// Takes a whole listing of a folder in place of what was known. What this process wrote so
    /// recently that the listing may lag stays, and what it deleted stays away.
    pub(super) fn set_rows<'a>(
        &mut self,
        folder: &str,
        listed: impl IntoIterator<Item = (&'a str, Row)>,
        now: Instant,
    ) {
        let Some(folder) = self.folders.get_mut(folder) else {
            return;
        };
        let mut before = std::mem::take(&mut folder.rows);
        let mut is_changed = false;
        for (name, row) in listed {
            if self.deleted.contains(&row.id) {
                continue;
            }
            let key = (name.into(), row.id);
            if let Some((key, known)) = before.remove_entry(&key) {
                folder.rows.insert(key, known);
            }
            is_changed |= folder.insert(name, row);
        }
        is_changed |= !before.is_empty();
        before.retain(
            |_, row| matches!(row.origin, Origin::Written(at) if now - at < LISTING_LAG_MAX),
        );
        folder.rows.append(&mut before);
        folder.chosen.retain(|name, id| folder.rows.contains_key(&(name.clone(), *id)));
        folder.misses = 0;
        self.is_changed |= is_changed;
    }

    /// All rows of a folder.
    pub(super) fn all_rows(&self, folder: &str) -> impl Iterator<Item = (&str, Row)> {
        self.folders.get(folder).into_iter().flat_map(Folder::rows)
    }

    /// Notes that an object was asked for that is not known, and says how often that happened since
    /// the folder was listed.
    pub(super) fn count_miss(&mut self, folder: &str) -> u32 {
        self.folders.get_mut(folder).map_or(0, |folder| {
            folder.misses += 1;
            folder.misses
        })
    }

    /// Which of several rows was found to have the right bytes.
    pub(super) fn chosen(&self, folder: &str, name: &str) -> Option<FileId> {
        self.folders.get(folder)?.chosen.get(name).copied()
    }

    /// Remembers which of several rows has the right bytes.
    pub(super) fn choose(&mut self, folder: &str, name: &str, id: FileId) {
        if let Some(folder) = self.folders.get_mut(folder) {
            folder.chosen.insert(name.into(), id);
        }
    }

    /// Adds a folder as an earlier process knew it.
    pub(super) fn add_cached(&mut self, name: &str, ids: Vec<FileId>, rows: Vec<(String, Row)>) {
        let rows =
            rows.into_iter().map(|(name, row)| ((name.into_boxed_str(), row.id), row)).collect();
        self.folders.insert(name.into(), Folder { ids, rows, ..Folder::default() });
    }
}

impl Folder {
    /// All rows with their names.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (&str, Row)> {
        self.rows.iter().map(|((name, _), row)| (&**name, *row))
    }

    /// Whether that was news.
    fn insert(&mut self, name: &str, row: Row) -> bool {
        let key = (name.into(), row.id);
        let Some(known) = self.rows.get_mut(&key) else {
            self.rows.insert(key, row);
            return true;
        };
        let before = *known;
        // put.io shows a checksum late at times, but never takes one back.
        known.crc32 = row.crc32.or(known.crc32);
        known.created_at = row.created_at.or(known.created_at);
        known.size = row.size;
        if !matches!(known.origin, Origin::Written(_)) {
            known.origin = row.origin;
        }
        (before.size, before.crc32, before.created_at)
            != (known.size, known.crc32, known.created_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, size: u64, origin: Origin) -> Row {
        Row { id: FileId(id), size, crc32: None, created_at: None, origin }
    }

    fn known() -> Known {
        let mut known = Known::default();
        known.set_folder("", vec![FileId(1)]);
        known.set_folder("packs", vec![FileId(2)]);
        known
    }

    fn ids(known: &Known, folder: &str) -> Vec<i64> {
        known.all_rows(folder).map(|(_, row)| row.id.0).collect()
    }

    #[test]
    fn a_lagging_listing_does_not_hide_what_was_written_within_the_hour() {
        let now = Instant::now();
        let mut known = known();
        known.insert("packs", "a", row(10, 1, Origin::Written(now)));
        known.insert("packs", "b", row(11, 1, Origin::Shown));
        known.insert("packs", "c", row(12, 1, Origin::Cached));
        known.set_rows("packs", [("d", row(13, 1, Origin::Shown))], now);
        assert_eq!(ids(&known, "packs"), [10, 13]);
        known.set_rows("packs", [], now + LISTING_LAG_MAX - Duration::from_secs(1));
        assert_eq!(ids(&known, "packs"), [10]);
        known.set_rows("packs", [], now + LISTING_LAG_MAX);
        assert_eq!(ids(&known, "packs"), [0_i64; 0]);
    }

    #[test]
    fn a_lagging_listing_does_not_bring_back_what_was_deleted() {
        let now = Instant::now();
        let mut known = known();
        known.insert("packs", "a", row(10, 1, Origin::Written(now)));
        known.note_deleted("packs", "a", FileId(10));
        known.set_rows("packs", [("a", row(10, 1, Origin::Shown))], now);
        known.insert("packs", "a", row(10, 1, Origin::Shown));
        assert_eq!(ids(&known, "packs"), [0_i64; 0]);
        known.insert("packs", "a", row(14, 1, Origin::Written(now)));
        assert_eq!(known.rows("packs", "a"), [row(14, 1, Origin::Written(now))]);
    }

    #[test]
    fn a_checksum_once_known_stays_when_a_listing_lacks_it() {
        let now = Instant::now();
        let mut known = known();
        let written = Row { crc32: Some(7), ..row(10, 1, Origin::Written(now)) };
        known.insert("packs", "a", written);
        known.set_rows("packs", [("a", row(10, 1, Origin::Shown))], now);
        assert_eq!(known.rows("packs", "a"), [written]);
    }

    #[test]
    fn a_folder_of_another_id_begins_empty() {
        let mut known = known();
        known.insert("packs", "a", row(10, 1, Origin::Shown));
        known.set_folder("packs", vec![FileId(2)]);
        assert_eq!(ids(&known, "packs"), [10]);
        known.set_folder("packs", vec![FileId(3), FileId(2)]);
        assert_eq!(ids(&known, "packs"), [0_i64; 0]);
        assert_eq!(known.ids("packs"), Some(vec![FileId(2), FileId(3)]));
    }

    #[test]
    fn folders_that_a_listing_lacks_are_forgotten_unless_just_made() {
        let now = Instant::now();
        let mut known = known();
        known.set_made_folder("index", FileId(4), now);
        known.set_folders(BTreeMap::from([("keys", vec![FileId(5)])]), now);
        let names: Vec<_> = known.folders().map(|(name, _)| name).collect();
        assert_eq!(names, ["", "index", "keys"]);
        known.set_folders(BTreeMap::new(), now + LISTING_LAG_MAX);
        assert_eq!(known.folders().len(), 1);
    }

    #[test]
    fn rows_of_one_name_come_together_and_a_choice_lasts_as_long_as_its_row() {
        let mut known = known();
        for (name, id) in [("a", 12), ("aa", 11), ("a", 10), ("b", 9)] {
            known.insert("packs", name, row(id, 1, Origin::Shown));
        }
        let rows = known.rows("packs", "a");
        assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), [10, 12]);
        known.choose("packs", "a", FileId(10));
        assert_eq!(known.chosen("packs", "a"), Some(FileId(10)));
        known.remove("packs", "a", FileId(10));
        assert_eq!(known.chosen("packs", "a"), None);
        assert_eq!(known.rows("packs", "a").len(), 1);
    }
}
