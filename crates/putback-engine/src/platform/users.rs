//! Names of owners and groups, by number and back.
//!
//! The files `/etc/passwd` and `/etc/group` are read once. What they do not know is asked of `getent`, which
//! knows what the name service knows (LDAP, systemd); the C library's own calls would need `unsafe`. Answers,
//! also negative ones, are kept: each number and each name costs at most one process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Unknown numbers and names for which `getent` is asked. A tree full of foreign numbers, such as an unpacked
/// container, would otherwise start a process for each.
const MISSES_MAX: u32 = 256;

/// Names of users and groups, looked up once each. Shared by all workers.
#[derive(Debug, Default)]
pub struct Users {
    users: Database,
    groups: Database,
}

impl Users {
    /// Knows nothing yet; reads the system's files when first asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a user, empty if there is none.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> Vec<u8> {
        self.users.name(uid, Table::Users)
    }

    /// The name of a group, empty if there is none.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> Vec<u8> {
        self.groups.name(gid, Table::Groups)
    }

    /// The number of a user of this system.
    #[must_use]
    pub fn user_id(&self, name: &[u8]) -> Option<u32> {
        self.users.id(name, Table::Users)
    }

    /// The number of a group of this system.
    #[must_use]
    pub fn group_id(&self, name: &[u8]) -> Option<u32> {
        self.groups.id(name, Table::Groups)
    }
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Users,
    Groups,
}

impl Table {
    fn file(self) -> &'static str {
        match self {
            Self::Users => "/etc/passwd",
            Self::Groups => "/etc/group",
        }
    }

    fn getent_name(self) -> &'static str {
        match self {
            Self::Users => "passwd",
            Self::Groups => "group",
        }
    }
}

#[derive(Debug, Default)]
struct Database {
    known: OnceLock<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The empty name: asked, and there is none.
    names: HashMap<u32, Vec<u8>>,
    ids: HashMap<Vec<u8>, Option<u32>>,
    misses: u32,
}

impl Database {
    fn name(&self, id: u32, table: Table) -> Vec<u8> {
        let mut known = self.lock(table);
        if let Some(name) = known.names.get(&id) {
            return name.clone();
        }
        let found = known.ask(table, id.to_string().as_bytes()).filter(|(_, found)| *found == id);
        let name = found.map_or_else(Vec::new, |(name, _)| name);
        known.names.insert(id, name.clone());
        name
    }

    fn id(&self, name: &[u8], table: Table) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        let mut known = self.lock(table);
        if let Some(id) = known.ids.get(name) {
            return *id;
        }
        let found = known.ask(table, name).filter(|(found, _)| found == name);
        let id = found.map(|(_, id)| id);
        known.ids.insert(name.to_vec(), id);
        id
    }

    fn lock(&self, table: Table) -> MutexGuard<'_, Known> {
        let known = self.known.get_or_init(|| {
            let text = std::fs::read(table.file()).unwrap_or_default();
            Mutex::new(Known::from_text(&text))
        });
        // The maps are whole between any two statements, so a panic elsewhere does not spoil them.
        known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The first line of a number or a name holds, as in the C library.
    fn from_text(text: &[u8]) -> Self {
        let mut known = Self::default();
        for (name, id) in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            known.names.entry(id).or_insert_with(|| name.clone());
            known.ids.entry(name).or_insert(Some(id));
        }
        known
    }

    fn ask(&mut self, table: Table, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        // `getent` would take a leading '-' for an option, and names hold neither separators nor controls.
        let is_plain =
            !key.starts_with(b"-") && !key.iter().any(|byte| *byte < b' ' || *byte == b':');
        if self.misses >= MISSES_MAX || !is_plain {
            return None;
        }
        let found = run_getent(table, key);
        if found.is_none() {
            self.misses += 1;
        }
        found
    }
}

#[cfg(unix)]
fn run_getent(table: Table, key: &[u8]) -> Option<(Vec<u8>, u32)> {
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    let output = Command::new("getent")
        .arg(table.getent_name())
        .arg(std::ffi::OsStr::from_bytes(key))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.stdout.split(|byte| *byte == b'\n').find_map(parse_line)
}

#[cfg(not(unix))]
fn run_getent(_table: Table, _key: &[u8]) -> Option<(Vec<u8>, u32)> {
    None
}

/// `name:password:number:…`, in both files.
fn parse_line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next()?;
    let _password = fields.next()?;
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let is_entry = !name.is_empty()
        && !name.starts_with(b"#")
        && !name.starts_with(b"+")
        && !name.starts_with(b"-");
    is_entry.then(|| (name.to_vec(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_of_a_number_or_name_holds() {
        let known = Known::from_text(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n# c:x:1:\n+nis:x:2:\nbad:x\na:x:q:\nroot:x:7:\n",
        );
        assert_eq!(known.names[&0], b"root");
        assert_eq!(known.ids[&b"toor"[..]], Some(0));
        assert_eq!(known.ids[&b"root"[..]], Some(0));
        assert_eq!((known.names.len(), known.ids.len()), (2, 2));
    }

    #[test]
    fn unknown_numbers_have_no_name_and_are_asked_once() {
        let users = Users::new();
        assert_eq!(users.user_name(3_999_999_999), b"");
        assert_eq!(users.user_name(3_999_999_999), b"");
        assert_eq!(users.users.lock(Table::Users).misses, 1);
        assert_eq!(users.user_id(b"no-such-user-here"), None);
        assert_eq!(users.user_id(b"-x"), None);
        assert_eq!(users.group_id(b""), None);
    }

    #[test]
    #[cfg(unix)]
    fn root_is_known_both_ways() {
        let users = Users::new();
        assert_eq!(users.user_name(0), b"root");
        assert_eq!(users.user_id(b"root"), Some(0));
    }
}
