//! Listing a snapshot, or a part of it.

use putback_format::snapshot::Snapshot;
use putback_format::tree::{Entry, EntryKind};
use putback_repo::Repository;

use crate::error::Error;
use crate::tree_source::{Step, TreeSource, Walk, normal_path};

/// How a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Into the directory just visited; after anything else, to the next entry.
    Yes,
    /// Past it.
    No,
    /// Not at all: the walk ends.
    Stop,
}

/// Gets absolute path and entry, and says how the walk goes on.
pub type Visit<'a> = dyn FnMut(&[u8], &Entry) -> Result<Descend, Error> + 'a;

/// Visits what lies below `path`, depth first in the order of the names' bytes, a directory before
/// its entries. If `path` is not a directory, it alone is visited.
///
/// Memory: a tree page for each directory of the open path.
///
/// # Errors
/// Those of `visit`; of the repository: `NoPath`, or a tree page cannot be read.
pub fn walk(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    walk_tree(repository, snapshot, path, visit)
}

fn walk_tree(
    tree: &dyn TreeSource,
    snapshot: &Snapshot,
    path: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let base = tree.entry_at(snapshot, path)?;
    let EntryKind::Directory { pages } = &base.kind else {
        visit(&normal_path(path), &base)?;
        return Ok(());
    };
    let mut walk = Walk::new(tree, path, pages)?;
    while let Some(step) = walk.next()? {
        let Step::Entry(entry) = step else { continue };
        match (visit(walk.path(), &entry)?, &entry.kind) {
            (Descend::Yes, EntryKind::Directory { pages }) => walk.enter(pages)?,
            (Descend::Yes | Descend::No, _) => {}
            (Descend::Stop, _) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_source::testing::*;

    fn check(path: &str, decide: impl Fn(&str) -> Descend, expected: &[&str]) {
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::of([
            file("a/0", b"1"),
            file("a/b/x", b"2"),
            file("a/b.c", b"3"),
            directory("empty"),
            file("z", b"4"),
        ]));
        let mut visited = Vec::new();
        walk_tree(&tree, &snapshot, path.as_bytes(), &mut |path, _| {
            let path = String::from_utf8(path.to_vec()).unwrap();
            let decision = decide(&path);
            visited.push(path);
            Ok(decision)
        })
        .unwrap();
        assert_eq!(visited, expected);
    }

    #[test]
    fn everything_below_a_path_is_visited_in_order_and_a_file_as_itself() {
        let all = ["/a", "/a/0", "/a/b", "/a/b/x", "/a/b.c", "/empty", "/z"];
        check("/", |_| Descend::Yes, &all);
        check("", |_| Descend::Yes, &all);
        check("a//b/", |_| Descend::Yes, &["/a/b/x"]);
        check("/empty", |_| Descend::Yes, &[]);
        check("z", |_| Descend::Yes, &["/z"]);
    }

    #[test]
    fn the_visitor_decides_where_to_go() {
        check("/", |_| Descend::No, &["/a", "/empty", "/z"]);
        check(
            "/",
            |path| if path == "/a/b" { Descend::No } else { Descend::Yes },
            &["/a", "/a/0", "/a/b", "/a/b.c", "/empty", "/z"],
        );
        check(
            "/",
            |path| if path == "/a/b" { Descend::Stop } else { Descend::Yes },
            &["/a", "/a/0", "/a/b"],
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error() {
        let mut tree = FakeTree::default();
        let snapshot = tree.snapshot(&Folder::default());
        assert!(walk_tree(&tree, &snapshot, b"/no", &mut |_, _| Ok(Descend::Yes)).is_err());
    }
}
