//! Finding entries by name, time, kind and size in many snapshots.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use putback_format::id::{BlobId, SnapshotId};
use putback_format::tree::{Entry, EntryKind, Timestamp};
use putback_repo::{Repository, StoredSnapshot};

use crate::error::Error;
use crate::memo::{DirectoryKey, SubtreeMemo};
use crate::pattern::Patterns;
use crate::tree_source::{Step, TreeSource, Walk};

/// What is looked for. Every condition that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct FindOptions {
    /// Any of these, in the language of [`crate::pattern`], but `!` means itself. A pattern with a
    /// `/` is compared with the path, one without with the name. None: every entry.
    pub patterns: Vec<String>,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Modified then or later.
    pub newer: Option<Timestamp>,
    /// Modified then or earlier.
    pub older: Option<Timestamp>,
    /// Any of these kinds: `f` file, `d` directory, `l` symbolic link, `o` anything else. None:
    /// every kind.
    pub kinds: Vec<char>,
    /// Files of that many bytes or more.
    pub size_min: Option<u64>,
    /// Files of that many bytes or fewer.
    pub size_max: Option<u64>,
}

/// An entry that was found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// In this snapshot.
    pub snapshot: SnapshotId,
    /// Absolute path, raw bytes.
    pub path: Vec<u8>,
    /// The entry.
    pub entry: Entry,
}

/// Looks through the snapshots in the order given, and through each in path order.
///
/// Directories in which nothing was found are remembered, so that the next snapshot need not read
/// them again. Memory: as for a walk, and 20 MiB for these.
///
/// # Errors
/// [`Error::Pattern`]; [`Error::Refused`] for an unknown kind; those of the repository.
pub fn find(
    repository: &Repository,
    snapshots: &[StoredSnapshot],
    options: &FindOptions,
    found: &mut dyn FnMut(Hit),
) -> Result<(), Error> {
    find_in_tree(repository, snapshots, options, found)
}

fn find_in_tree(
    tree: &dyn TreeSource,
    snapshots: &[StoredSnapshot],
    options: &FindOptions,
    found: &mut dyn FnMut(Hit),
) -> Result<(), Error> {
    let wanted = Wanted::new(options)?;
    let mut barren = SubtreeMemo::new(SubtreeMemo::<BarrenKey, ()>::ENTRIES_MAX);
    for StoredSnapshot { id, snapshot } in snapshots {
        let EntryKind::Directory { pages } = &snapshot.root.kind else { continue };
        let root_key = wanted.barren_key(b"", pages);
        if barren.get(&root_key).is_some() {
            continue;
        }
        let mut walk = Walk::new(tree, b"", pages)?;
        let mut open = vec![OpenDirectory { key: root_key, entries: 0, is_barren: true }];
        while let Some(step) = walk.next()? {
            match step {
                Step::Entry(entry) => {
                    let path = walk.path();
                    let is_hit = wanted.matches(path, &entry);
                    if let Some(directory) = open.last_mut() {
                        directory.entries += 1;
                        directory.is_barren &= !is_hit;
                    }
                    if let EntryKind::Directory { pages } = &entry.kind
                        && wanted.may_match_below(path)
                    {
                        let key = wanted.barren_key(path, pages);
                        if barren.get(&key).is_none() {
                            open.push(OpenDirectory { key, entries: 0, is_barren: true });
                            walk.enter(pages)?;
                        }
                    }
                    if is_hit {
                        found(Hit { snapshot: *id, path: walk.path().to_vec(), entry });
                    }
                }
                Step::Leave => {
                    let Some(directory) = open.pop() else { break };
                    if directory.is_barren {
                        barren.insert(directory.key, directory.entries, ());
                    }
                    if let Some(above) = open.last_mut() {
                        above.entries += directory.entries;
                        above.is_barren &= directory.is_barren;
                    }
                }
            }
        }
    }
    Ok(())
}

struct OpenDirectory {
    key: BarrenKey,
    /// In it and below it, as far as they were looked at.
    entries: u64,
    is_barren: bool,
}

/// A directory, with its path where that makes a difference: as two hashes under random keys.
type BarrenKey = (DirectoryKey, u64, u64);

struct Wanted<'a> {
    options: &'a FindOptions,
    patterns: Patterns,
    path_hashers: Option<(RandomState, RandomState)>,
}

impl<'a> Wanted<'a> {
    fn new(options: &'a FindOptions) -> Result<Self, Error> {
        if let Some(kind) = options.kinds.iter().find(|kind| !"fdlo".contains(**kind)) {
            return Err(Error::Refused {
                message: format!("'{kind}' is no kind of entry: use f, d, l or o"),
            });
        }
        let literal = |pattern: &String| match pattern.strip_prefix('!') {
            Some(_) => format!("\\{pattern}"),
            None => pattern.clone(),
        };
        let mut patterns = Patterns::new();
        for text in &options.patterns {
            patterns.push(literal(text).as_bytes(), options.ignore_case)?;
        }
        let path_hashers =
            (!patterns.looks_at_names_only()).then(|| (RandomState::new(), RandomState::new()));
        Ok(Self { options, patterns, path_hashers })
    }

    fn barren_key(&self, path: &[u8], pages: &[BlobId]) -> BarrenKey {
        let (first, second) = self
            .path_hashers
            .as_ref()
            .map_or((0, 0), |(a, b)| (a.hash_one(path), b.hash_one(path)));
        (DirectoryKey::new(pages), first, second)
    }

    fn may_match_below(&self, directory: &[u8]) -> bool {
        self.patterns.is_empty() || self.patterns.may_match_below(directory)
    }

    fn matches(&self, path: &[u8], entry: &Entry) -> bool {
        let options = self.options;
        let kind = match entry.kind {
            EntryKind::File { .. } => 'f',
            EntryKind::Directory { .. } => 'd',
            EntryKind::Symlink { .. } => 'l',
            _ => 'o',
        };
        (options.kinds.is_empty() || options.kinds.contains(&kind))
            && options.newer.is_none_or(|time| entry.mtime >= time)
            && options.older.is_none_or(|time| entry.mtime <= time)
            && self.matches_size(entry)
            && (self.patterns.is_empty() || self.patterns.is_match(path, kind == 'd'))
    }

    fn matches_size(&self, entry: &Entry) -> bool {
        let (min, max) = (self.options.size_min, self.options.size_max);
        match entry.kind {
            EntryKind::File { size, .. } => {
                min.is_none_or(|min| size >= min) && max.is_none_or(|max| size <= max)
            }
            _ => min.is_none() && max.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_source::testing::*;

    fn sample() -> Folder {
        let mut old = file("home/old.txt", b"1234567890");
        old.mtime.seconds = 100;
        Folder::of([
            file("etc/conf", b"12"),
            old,
            file("home/me/NOTES.TXT", b"123"),
            file("home/me/!x", b""),
            symlink("home/link", "old.txt"),
            special("dev/pipe", EntryKind::Fifo),
        ])
    }

    fn check(options: &FindOptions, expected: &[&str]) {
        let mut tree = FakeTree::default();
        let snapshot = tree.stored(1, &sample());
        let mut paths = Vec::new();
        find_in_tree(&tree, &[snapshot], options, &mut |hit| {
            paths.push(String::from_utf8(hit.path).unwrap());
        })
        .unwrap();
        assert_eq!(paths, expected, "{options:?}");
    }

    fn patterns(patterns: &[&str]) -> FindOptions {
        FindOptions {
            patterns: patterns.iter().map(ToString::to_string).collect(),
            ..FindOptions::default()
        }
    }

    #[test]
    fn a_pattern_is_compared_with_the_name_or_with_the_path() {
        check(&patterns(&["*.txt"]), &["/home/old.txt"]);
        check(
            &FindOptions { ignore_case: true, ..patterns(&["*.txt"]) },
            &["/home/me/NOTES.TXT", "/home/old.txt"],
        );
        check(&patterns(&["/home/*"]), &["/home/link", "/home/me", "/home/old.txt"]);
        check(&patterns(&["me/*"]), &["/home/me/!x", "/home/me/NOTES.TXT"]);
        check(&patterns(&["/**/conf", "pipe"]), &["/dev/pipe", "/etc/conf"]);
        check(&patterns(&["home"]), &["/home"]);
        check(&patterns(&["home/"]), &["/home"]);
        check(&patterns(&["conf/"]), &[]);
        check(&patterns(&["!x"]), &["/home/me/!x"]);
    }

    #[test]
    fn time_kind_and_size_narrow_the_search() {
        let time = |seconds| Some(Timestamp { seconds, nanoseconds: 0 });
        check(&FindOptions { older: time(100), ..FindOptions::default() }, &["/home/old.txt"]);
        check(&FindOptions { newer: time(101), kinds: vec!['f'], ..patterns(&["*t*"]) }, &[]);
        check(
            &FindOptions { kinds: vec!['l', 'o'], ..FindOptions::default() },
            &["/dev/pipe", "/home/link"],
        );
        check(
            &FindOptions { kinds: vec!['d'], ..FindOptions::default() },
            &["/dev", "/etc", "/home", "/home/me"],
        );
        check(
            &FindOptions { size_min: Some(2), size_max: Some(3), ..FindOptions::default() },
            &["/etc/conf", "/home/me/NOTES.TXT"],
        );
    }

    #[test]
    fn every_snapshot_tells_its_hits_and_barren_directories_are_read_once() {
        for (pattern, folders_below_home) in [("*.txt", 1), ("/home/*.txt", 0), ("home/*.txt", 1)] {
            let mut tree = FakeTree::default();
            let first = tree.stored(1, &sample());
            let mut folder = sample();
            folder.put(file("home/new.txt", b""));
            let second = tree.stored(2, &folder);
            let mut hits = Vec::new();
            let read_for_both = tree.count_pages(|| {
                find_in_tree(&tree, &[first, second], &patterns(&[pattern]), &mut |hit| {
                    hits.push((hit.snapshot.as_bytes()[0], String::from_utf8(hit.path).unwrap()));
                })
                .unwrap();
            });
            let hit = |snapshot, path: &str| (snapshot, path.to_owned());
            assert_eq!(
                hits,
                [hit(1, "/home/old.txt"), hit(2, "/home/new.txt"), hit(2, "/home/old.txt"),]
            );
            // Root and home twice; dev and etc, and what is below home, once at most.
            let others = if pattern.starts_with('/') { 0 } else { 2 };
            assert_eq!(read_for_both, 4 + others + folders_below_home, "{pattern}");
        }
    }

    #[test]
    fn a_directory_that_is_barren_at_one_path_is_looked_through_at_another() {
        let mut tree = FakeTree::default();
        let snapshot = tree.stored(1, &Folder::of([file("a/in/x", b""), file("b/in/x", b"")]));
        let mut paths = Vec::new();
        find_in_tree(&tree, &[snapshot], &patterns(&["b/**/x"]), &mut |hit| paths.push(hit.path))
            .unwrap();
        assert_eq!(paths, [b"/b/in/x"]);
    }

    #[test]
    fn an_unknown_kind_or_a_bad_pattern_is_refused() {
        let tree = FakeTree::default();
        let options = FindOptions { kinds: vec!['x'], ..FindOptions::default() };
        assert!(matches!(
            find_in_tree(&tree, &[], &options, &mut |_| ()),
            Err(Error::Refused { .. })
        ));
        assert!(matches!(
            find_in_tree(&tree, &[], &patterns(&["["]), &mut |_| ()),
            Err(Error::Pattern { .. })
        ));
    }
}
