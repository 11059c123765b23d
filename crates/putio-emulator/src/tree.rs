//! The files and folders of one account, with those in its trash.
//!
//! Rows are addressed by id; several may have one name. What is in the trash keeps its place in the
//! tree, so that all below a trashed folder is hidden with it and comes back with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::blob::Blob;
use crate::names;
use crate::options::Collation;

/// Id of the root folder, which has no row.
pub(crate) const ROOT: i64 = 0;

/// What put.io says of folders.
pub(crate) const FOLDER_TYPE: &str = "application/x-directory";

/// A file or folder.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) parent: i64,
    pub(crate) name: String,
    /// `None` for folders.
    pub(crate) content: Option<Content>,
    /// Unix seconds.
    pub(crate) created: i64,
    /// Unix seconds.
    pub(crate) updated: i64,
    /// When it was downloaded for the first time, in Unix seconds.
    pub(crate) accessed: Option<i64>,
    /// Order of its listings.
    pub(crate) sort_by: Option<String>,
    /// When it was deleted, in Unix seconds, if it is in the trash itself.
    pub(crate) trashed: Option<i64>,
    /// Storage has lost its bytes.
    pub(crate) is_lost: bool,
    /// Until when its bytes cannot be reached, in Unix milliseconds. Not kept on disk.
    pub(crate) unreachable_until: i64,
    /// When it last came into its folder or got its name, in Unix milliseconds. Not kept on disk.
    pub(crate) placed: i64,
}

/// What a file holds, as its row says.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) blob: Arc<Blob>,
    pub(crate) size: u64,
    pub(crate) crc32: u32,
}

impl Row {
    pub(crate) fn is_folder(&self) -> bool {
        self.content.is_none()
    }

    pub(crate) fn size(&self) -> u64 {
        self.content.as_ref().map_or(0, |content| content.size)
    }
}

/// The files and folders of one account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    rows: BTreeMap<i64, Row>,
    children: HashMap<i64, BTreeSet<i64>>,
    by_name: HashMap<(i64, String), BTreeSet<i64>>,
    bytes: u64,
}

impl Tree {
    /// Puts a row in, in place of an earlier one of its id.
    pub(crate) fn put(&mut self, row: Row) {
        self.take_out(row.id);
        self.bytes += row.size();
        self.children.entry(row.parent).or_default().insert(row.id);
        let key = (row.parent, names::loose_key(&row.name));
        self.by_name.entry(key).or_default().insert(row.id);
        self.rows.insert(row.id, row);
    }

    /// Takes a row out, not what is below it.
    pub(crate) fn take_out(&mut self, id: i64) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.bytes -= row.size();
        if let Some(children) = self.children.get_mut(&row.parent) {
            children.remove(&id);
            if children.is_empty() {
                self.children.remove(&row.parent);
            }
        }
        let key = (row.parent, names::loose_key(&row.name));
        if let Some(same) = self.by_name.get_mut(&key) {
            same.remove(&id);
            if same.is_empty() {
                self.by_name.remove(&key);
            }
        }
        Some(row)
    }

    /// A row, wherever it is, the trash included.
    pub(crate) fn row(&self, id: i64) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// All rows, those in the trash included.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// A row that neither is in the trash nor below something that is.
    pub(crate) fn live(&self, id: i64) -> Option<&Row> {
        let row = self.rows.get(&id)?;
        let mut at = row;
        loop {
            if at.trashed.is_some() {
                return None;
            }
            if at.parent == ROOT {
                return Some(row);
            }
            at = self.rows.get(&at.parent)?;
        }
    }

    /// Whether there is a folder of this id outside the trash; the root is one.
    pub(crate) fn is_live_folder(&self, id: i64) -> bool {
        id == ROOT || self.live(id).is_some_and(Row::is_folder)
    }

    /// What is directly in a folder, by id, without what was trashed there.
    pub(crate) fn children(&self, parent: i64) -> impl Iterator<Item = &Row> {
        self.children
            .get(&parent)
            .into_iter()
            .flatten()
            .filter_map(|id| self.rows.get(id))
            .filter(|row| row.trashed.is_none())
    }

    /// Rows of this name in a folder, by id, without what was trashed there.
    pub(crate) fn named(
        &self,
        parent: i64,
        name: &str,
        collation: Collation,
    ) -> impl Iterator<Item = &Row> {
        self.by_name
            .get(&(parent, names::loose_key(name)))
            .into_iter()
            .flatten()
            .filter_map(|id| self.rows.get(id))
            .filter(move |row| row.trashed.is_none() && names::is_same(&row.name, name, collation))
    }

    /// A row and all below it, parents first, without what was trashed there by itself.
    pub(crate) fn with_all_below(&self, id: i64) -> Vec<i64> {
        let mut all = vec![id];
        let mut next = 0;
        while let Some(id) = all.get(next) {
            all.extend(self.children(*id).map(|row| row.id));
            next += 1;
        }
        all
    }

    /// Bytes of a row and of all below it, without what was trashed there.
    pub(crate) fn size_of(&self, id: i64) -> u64 {
        if let Some(content) = self.rows.get(&id).and_then(|row| row.content.as_ref()) {
            return content.size;
        }
        let mut size = 0;
        let mut folders = vec![id];
        while let Some(folder) = folders.pop() {
            for row in self.children(folder) {
                match &row.content {
                    Some(content) => size += content.size,
                    None => folders.push(row.id),
                }
            }
        }
        size
    }

    /// Whether `id` is `folder` or below it.
    pub(crate) fn is_within(&self, id: i64, folder: i64) -> bool {
        let mut at = id;
        loop {
            if at == folder {
                return true;
            }
            match self.rows.get(&at) {
                Some(row) => at = row.parent,
                None => return false,
            }
        }
    }

    /// Ids and names from the root down to a row's folder.
    pub(crate) fn above(&self, id: i64) -> Vec<(i64, String)> {
        let mut above = Vec::new();
        let mut at = self.rows.get(&id).map(|row| row.parent);
        while let Some(row) = at.and_then(|id| self.rows.get(&id)) {
            above.push((row.id, row.name.clone()));
            at = Some(row.parent);
        }
        above.reverse();
        above
    }

    /// From the root, without a leading slash.
    pub(crate) fn path(&self, id: i64) -> String {
        let mut parts: Vec<String> = self.above(id).into_iter().map(|(_, name)| name).collect();
        parts.extend(self.rows.get(&id).map(|row| row.name.clone()));
        parts.join("/")
    }

    /// What was trashed by itself, latest first.
    pub(crate) fn trash(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().filter(|row| row.trashed.is_some()).collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.trashed, row.id)));
        rows
    }

    /// Bytes of all rows, the trash included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of what is in the trash.
    pub(crate) fn trash_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.size_of(ROOT))
    }
}
