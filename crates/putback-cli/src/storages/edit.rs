//! Changing `[storages.NAME]` in the configuration file, which its owner also edits by hand:
//! comments, order and blank lines stay as they are.
//!
//! A file of the program's own beside the configuration was considered and dropped: a storage would
//! then have its token command in one file and its limits in the other, and `config check` and
//! `deny unknown keys` would have to explain both.

use std::io;
use std::path::Path;

use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

use crate::report::Failure;
use crate::storages::{display, private, table};

/// How often a file that somebody else changes meanwhile is read again.
const ATTEMPTS_MAX: usize = 5;

/// What becomes of the keys of a storage's table; those that are not named stay as they are.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<(&'static str, Option<Value>)>);

impl Changes {
    /// Sets a key.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push((key, Some(value.into())));
    }

    /// Removes a key, if it is there.
    pub(crate) fn remove(&mut self, key: &'static str) {
        self.0.push((key, None));
    }
}

/// Adds the storage `name` to the file, or changes it there. The file is made if there is none.
pub(crate) fn set(file: &Path, name: &str, changes: &Changes) -> anyhow::Result<()> {
    change(file, |document| {
        let table = table_of(document, name).ok_or_else(|| {
            Failure::usage(format!("'storages' in {} is no table", display(file)))
        })?;
        for (key, value) in &changes.0 {
            match value {
                Some(value) => set_value(table, key, value.clone()),
                None => drop(table.remove(key)),
            }
        }
        Ok(())
    })
}

/// Removes the storage `name` from the file, with the comments inside of its table.
pub(crate) fn remove(file: &Path, name: &str) -> anyhow::Result<()> {
    change(file, |document| {
        let Some(storages) = document.get_mut("storages") else { return Ok(()) };
        let Some(tables) = storages.as_table_like_mut() else { return Ok(()) };
        tables.remove(name);
        let is_left_over =
            tables.is_empty() && storages.as_table().is_none_or(|table| table.is_implicit());
        if is_left_over {
            document.remove("storages");
        }
        Ok(())
    })
}

/// Reads, changes and replaces the file, unless somebody else changed it in between.
fn change(
    file: &Path,
    mut edit: impl FnMut(&mut DocumentMut) -> Result<(), Failure>,
) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        let before = read(file)?;
        let mut document: DocumentMut = before.as_deref().unwrap_or_default().parse().map_err(
            |error: toml_edit::TomlError| {
                Failure::usage(format!("{}: {}", display(file), error.message()))
            },
        )?;
        edit(&mut document)?;
        let after = document.to_string();
        check(file, &after)?;
        if read(file)? == before {
            return private::replace(file, after.as_bytes()).map_err(|error| {
                anyhow::Error::new(error).context(format!("cannot write {}", display(file)))
            });
        }
    }
    Err(Failure::other(
        format!("{} is being changed by something else", display(file)),
        "nothing was written; try again",
    )
    .into())
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs_err::read_to_string(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is written must be readable.
fn check(file: &Path, content: &str) -> Result<(), Failure> {
    let parsed: toml::Table = content.parse().map_err(|error: toml::de::Error| {
        Failure::usage(format!("{} cannot be changed: {}", display(file), error.message()))
    })?;
    match parsed.get("storages") {
        Some(storages) => table::read(file, storages).map(drop),
        None => Ok(()),
    }
}

/// The table of the storage, made if it is not there; `None` if something else is in its place.
fn table_of<'a>(document: &'a mut DocumentMut, name: &str) -> Option<&'a mut dyn TableLike> {
    let storages = document.entry("storages").or_insert_with(|| {
        let mut table = Table::new();
        // No line `[storages]`: only its tables have one.
        table.set_implicit(true);
        Item::Table(table)
    });
    let is_inline = storages.is_inline_table();
    let tables = storages.as_table_like_mut()?;
    if !tables.contains_key(name) {
        let new = if is_inline {
            Item::Value(Value::InlineTable(InlineTable::new()))
        } else {
            Item::Table(Table::new())
        };
        tables.insert(name, new);
    }
    tables.get_mut(name)?.as_table_like_mut()
}

/// Sets a key and keeps what stands around its value, such as a comment behind it.
fn set_value(table: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(Item::Value(known)) = table.get_mut(key) {
        *value.decor_mut() = known.decor().clone();
        *known = value;
    } else {
        table.insert(key, Item::Value(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: Option<&str>, name: &str, changes: &Changes) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config/putback.toml");
        if let Some(before) = before {
            fs_err::create_dir(file.parent().unwrap()).unwrap();
            fs_err::write(&file, before).unwrap();
        }
        set(&file, name, changes).unwrap();
        fs_err::read_to_string(&file).unwrap()
    }

    fn new_storage() -> Changes {
        let mut changes = Changes::default();
        changes.set("type", "putio");
        changes.set("connections", 4_i64);
        changes.remove("token-command");
        changes
    }

    #[test]
    fn a_storage_is_added_and_everything_else_stays_as_it_was() {
        assert_eq!(
            changed(None, "putio", &new_storage()),
            "[storages.putio]\ntype = \"putio\"\nconnections = 4\n"
        );
        let before =
            "# mine\n[defaults]   # odd  spacing\nrepo='x'\n\n\n[profile.b]\n[profile.a]\n";
        assert_eq!(
            changed(Some(before), "putio", &new_storage()),
            format!("{before}\n[storages.putio]\ntype = \"putio\"\nconnections = 4\n")
        );
    }

    #[test]
    fn a_storage_is_changed_in_its_place_and_keeps_its_comments() {
        let before = "[storages.putio] # the first\ntype = \"putio\"\n# slow line\nconnections = 2 # two\n\
                      token-command = \"pass\"\ntpslimit = 5\n\n[storages.other]\ntype = \"putio\"\n\n\
                      [profile.a]\n";
        assert_eq!(
            changed(Some(before), "putio", &new_storage()),
            before.replace("= 2", "= 4").replace("token-command = \"pass\"\n", "")
        );
    }

    #[test]
    fn a_storage_is_added_beside_others_however_they_are_written() {
        for before in [
            "storages = { other = { type = \"putio\" } }\n",
            "[storages]\nother = { type = \"putio\" }\n",
            "storages.other.type = \"putio\"\n",
        ] {
            let after = changed(Some(before), "putio", &new_storage());
            let parsed: toml::Table = after.parse().unwrap();
            let all = table::read(Path::new("x"), &parsed["storages"]).unwrap();
            assert_eq!(all.len(), 2, "{after}");
        }
    }

    #[test]
    fn a_storage_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("putback.toml");
        let rest = "# mine\n[defaults]\nquiet = true\n";
        for (content, expected) in [
            (format!("{rest}\n[storages.a1]\ntype = \"putio\"\n"), rest.to_owned()),
            (
                format!(
                    "[storages.a1]\ntype = \"putio\"\n\n[storages.b1]\ntype = \"putio\"\n{rest}"
                ),
                format!("\n[storages.b1]\ntype = \"putio\"\n{rest}"),
            ),
            (rest.to_owned(), rest.to_owned()),
        ] {
            fs_err::write(&file, content).unwrap();
            remove(&file, "a1").unwrap();
            assert_eq!(fs_err::read_to_string(&file).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("putback.toml");
        fs_err::write(&file, "[defaults\n").unwrap();
        assert!(set(&file, "putio", &new_storage()).is_err());
        fs_err::write(&file, "storages = 1\n").unwrap();
        assert!(set(&file, "putio", &new_storage()).is_err());
        assert_eq!(fs_err::read_to_string(&file).unwrap(), "storages = 1\n");
    }
}
