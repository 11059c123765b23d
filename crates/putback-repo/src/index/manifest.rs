//! What a machine's directory of the index holds: a manifest, which counts, and the tables that it lists.
//!
//! All of it is a cache. A manifest that does not match its own hash, or that another version wrote, is none.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use putback_format::id::{PackId, RepositoryId, SegmentId};

use crate::error::{Error, Result};
use crate::index_load::Replacements;
use crate::local::create_private_directories;

/// What a local file lists: the tables, the segments that they cover, which others these replace, the
/// tombstones among these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) tables: Vec<String>,
    pub(super) covered: BTreeSet<SegmentId>,
    pub(super) replacements: Replacements,
    pub(super) tombstones: BTreeSet<PackId>,
}

const MANIFEST: &str = "manifest";
const MANIFEST_TITLE: &str = "putback index 2";

impl Manifest {
    pub(super) fn read(directory: &Path, repository: RepositoryId) -> Option<Self> {
        let text = fs_err::read_to_string(directory.join(MANIFEST)).ok()?;
        let (body, check) = text.trim_end().rsplit_once('\n')?;
        if blake3::hash(body.as_bytes()).to_hex().as_str() != check {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != format!("{MANIFEST_TITLE} {repository}") {
            return None;
        }
        let mut manifest = Self::default();
        for line in lines {
            match line.split_once(' ')? {
                ("table", name) => manifest.tables.push(name.to_owned()),
                ("segment", id) => drop(manifest.covered.insert(id.parse().ok()?)),
                ("replaced", ids) => {
                    let mut ids = ids.split(' ').map(str::parse::<SegmentId>);
                    let by = ids.next()?.ok()?;
                    manifest.replacements.note(by, ids.collect::<Result<_, _>>().ok()?);
                }
                ("tombstone", id) => drop(manifest.tombstones.insert(id.parse().ok()?)),
                _ => return None,
            }
        }
        Some(manifest)
    }

    pub(super) fn write(&self, directory: &Path, repository: RepositoryId) -> io::Result<()> {
        let mut body = format!("{MANIFEST_TITLE} {repository}");
        for table in &self.tables {
            body.push_str(&format!("\ntable {table}"));
        }
        for segment in &self.covered {
            body.push_str(&format!("\nsegment {segment}"));
        }
        for (by, replaced) in &self.replacements.0 {
            body.push_str(&format!("\nreplaced {by}"));
            for id in replaced {
                body.push_str(&format!(" {id}"));
            }
        }
        for pack in &self.tombstones {
            body.push_str(&format!("\ntombstone {pack}"));
        }
        let check = blake3::hash(body.as_bytes()).to_hex();
        let temporary = directory.join(format!("{MANIFEST}.{}", std::process::id()));
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(format!("{body}\n{check}\n").as_bytes())?;
        drop(file);
        fs_err::rename(&temporary, directory.join(MANIFEST))
    }
}

/// A name that two tables share only if they hold the same packs in the same order.
pub(super) fn table_name(packs: &[PackId], entries: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entries.to_le_bytes());
    for pack in packs {
        hasher.update(pack.as_bytes());
    }
    format!("table-{}", &hasher.finalize().to_hex()[..32])
}

/// Deletes tables that cannot be used, so that the next run makes new ones. Who has them open keeps them.
pub(super) fn discard(directory: &Path) {
    // Manifest first: without it no table counts. What cannot be deleted is found damaged again.
    let _ = fs_err::remove_file(directory.join(MANIFEST));
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("table-") {
            let _ = fs_err::remove_file(entry.path());
        }
    }
}

/// Keeps other processes from changing the directory until the file is closed.
pub(super) fn lock_directory(directory: &Path) -> Result<File> {
    create_private_directories(directory).map_err(Error::local(directory))?;
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::local(&path))?;
    file.lock().map_err(Error::local(&path))?;
    Ok(file)
}
