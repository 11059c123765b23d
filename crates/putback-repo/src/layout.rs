//! Which object has which name.
//!
//! Every object is named by the hash of its stored bytes, so that a copy can be verified without the
//! password and a repeated write is harmless. Layout: `docs/format.md`, "Folders".

use putback_format::id::{ConfigId, MarkId, PackId, SegmentId, SlotId, SnapshotId};
use putback_store::ObjectPath;

pub(crate) const CONFIG: &str = "config";
pub(crate) const KEYS: &str = "keys";
pub(crate) const COPIES: &str = "copies";
pub(crate) const PACKS: &str = "packs";
pub(crate) const INDEX: &str = "index";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const MARKS: &str = "marks";
/// All folders of a repository.
pub(crate) const FOLDERS: [&str; 7] = [CONFIG, KEYS, COPIES, PACKS, INDEX, SNAPSHOTS, MARKS];

/// For a person who finds the folder.
pub(crate) const README_NAME: &str = "PUTBACK.txt";
/// What that person reads.
pub(crate) const README: &str = "\
This folder is a putback repository: encrypted backups of files.

Its content can be read only with the password (or the exported key) of the
repository, by the program 'putback':

    putback --repo THIS_FOLDER snapshots
    putback --repo THIS_FOLDER restore latest --target SOME_FOLDER

Do not change, rename or delete anything in here by hand. To move or copy the
repository, copy the whole folder. The format is described in the file
docs/format.md of the program's source.
";

fn path(folder: &str, name: impl std::fmt::Display) -> ObjectPath {
    ObjectPath::new(&format!("{folder}/{name}")).expect("ids are valid names")
}

pub(crate) fn readme() -> ObjectPath {
    ObjectPath::new(README_NAME).expect("a valid name")
}

pub(crate) fn pack(id: &PackId) -> ObjectPath {
    path(PACKS, id)
}

pub(crate) fn segment(id: &SegmentId) -> ObjectPath {
    path(INDEX, id)
}

pub(crate) fn snapshot(id: &SnapshotId) -> ObjectPath {
    path(SNAPSHOTS, id)
}

pub(crate) fn mark(id: &MarkId) -> ObjectPath {
    path(MARKS, id)
}

pub(crate) fn slot(id: &SlotId) -> ObjectPath {
    path(KEYS, id)
}

/// A configuration carries its generation in the clear, so that the newest is found without reading all.
pub(crate) fn config(generation: u64, id: &ConfigId) -> ObjectPath {
    path(CONFIG, format!("{generation}-{id}"))
}

/// The reverse of [`config`], from the last component of a path.
pub(crate) fn parse_config(name: &str) -> Option<(u64, ConfigId)> {
    let (generation, id) = name.split_once('-')?;
    let number = generation.parse().ok()?;
    // One spelling for each number, or two names could mean one object.
    (generation == u64::to_string(&number)).then_some((number, id.parse().ok()?))
}

/// Second copies keep the name of what they copy, with its folder before.
pub(crate) fn copy(of: &ObjectPath) -> ObjectPath {
    path(COPIES, format!("{}-{}", of.folder(), of.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_name_has_one_spelling() {
        let id = ConfigId::from_bytes([0xab; 32]);
        assert_eq!(parse_config(config(17, &id).name()), Some((17, id)));
        for bad in [
            format!("017-{id}"),
            format!("+17-{id}"),
            format!("17{id}"),
            format!("-{id}"),
            "17-".into(),
        ] {
            assert_eq!(parse_config(&bad), None, "{bad}");
        }
    }
}
