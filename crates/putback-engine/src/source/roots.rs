//! The paths that a backup was asked for, as one tree that starts at `/`.
//!
//! Paths become absolute by their words alone: `.` and `..` are resolved against the current directory, links
//! are not. A root that is a link is backed up as a link; a link on the way to a root stands for the directory
//! that it leads to. A root below another one is part of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::platform::{self, Directory, Identity, Names};
use crate::source::display_path;

/// What a backup starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The directory `/`; its name is empty.
    pub tree: RootNode,
    /// Absolute paths of the roots, sorted, none below another.
    pub paths: Vec<Vec<u8>>,
    /// Paths that were asked for and are not there; they are not in the tree.
    pub missing: Vec<MissingRoot>,
}

/// A root, or a directory on the way to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootNode {
    /// Raw bytes of its name.
    pub name: Vec<u8>,
    /// Whether all of it is wanted; it has then no children here.
    pub is_root: bool,
    /// Sorted by name.
    pub children: Vec<Self>,
}

/// A path that cannot be a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRoot {
    /// As it was given.
    pub path: PathBuf,
    /// The system's words.
    pub message: String,
}

impl Roots {
    /// Makes a tree of `paths`. What is not there is told in [`Roots::missing`], and the caller decides.
    #[must_use]
    pub fn resolve(paths: &[PathBuf], current_directory: &Path) -> Self {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for path in paths {
            let absolute = absolute_components(path, current_directory);
            match platform::stat_path(&platform::path_of_bytes(&join(&absolute))) {
                Ok(_) => found.push(absolute),
                Err(error) => {
                    missing.push(MissingRoot { path: path.clone(), message: error.to_string() });
                }
            }
        }
        // In the order of the tree each one is appended to it; a list of files may be long.
        found.sort_unstable();
        let mut tree = RootNode::default();
        for components in &found {
            tree.add(components);
        }
        let mut paths = Vec::new();
        tree.collect(&mut Vec::new(), &mut paths);
        // The order of the walk is another one: it has `/a/b` before `/a-b`.
        paths.sort_unstable();
        Self { tree, paths, missing }
    }

    /// One error that names every missing root, if there is one.
    #[must_use]
    pub fn missing_error(&self) -> Option<Error> {
        let describe = |root: &MissingRoot| format!("'{}' ({})", root.path.display(), root.message);
        match self.missing.as_slice() {
            [] => None,
            [root] => Some(Error::Refused {
                message: format!("there is nothing to back up at {}", describe(root)),
            }),
            roots => {
                let list: Vec<_> = roots.iter().map(describe).collect();
                Some(Error::Refused {
                    message: format!("there is nothing to back up at {}", list.join(", ")),
                })
            }
        }
    }

    /// Refuses roots that lie in the repository's own folder: a backup must not read what it writes.
    ///
    /// Compares every directory above each root, as the system sees them, so that neither links nor bind
    /// mounts hide it.
    ///
    /// # Errors
    /// [`Error::Refused`], naming the root.
    pub fn check_outside(&self, repository: &RepositoryFolder) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for root in &self.paths {
            let path = platform::path_of_bytes(root);
            let is_directory = platform::stat_path(&path).is_ok_and(|stat| stat.is_directory());
            let start = if is_directory { Some(path.as_path()) } else { path.parent() };
            let Some(start) = start.map(Path::to_path_buf) else { continue };
            if seen.contains(&start) {
                continue;
            }
            if is_inside(&start, repository) {
                let message = format!("'{}' lies inside the repository", display_path(root));
                return Err(Error::Refused { message });
            }
            seen.insert(start);
        }
        Ok(())
    }
}

impl RootNode {
    fn add(&mut self, components: &[Vec<u8>]) {
        if self.is_root {
            return;
        }
        let Some((first, rest)) = components.split_first() else {
            self.is_root = true;
            self.children = Vec::new();
            return;
        };
        let index = match self.children.binary_search_by(|child| child.name.cmp(first)) {
            Ok(index) => index,
            Err(index) => {
                self.children.insert(index, Self { name: first.clone(), ..Self::default() });
                index
            }
        };
        self.children[index].add(rest);
    }

    fn collect(&self, path: &mut Vec<u8>, paths: &mut Vec<Vec<u8>>) {
        if self.is_root {
            paths.push(if path.is_empty() { b"/".to_vec() } else { path.clone() });
        }
        for child in &self.children {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(&child.name);
            child.collect(path, paths);
            path.truncate(length);
        }
    }
}

/// The components of `path` from `/` on, `.` and `..` resolved by their words.
fn absolute_components(path: &Path, current_directory: &Path) -> Vec<Vec<u8>> {
    let path = platform::bytes_of_path(path);
    let mut components: Vec<Vec<u8>> = Vec::new();
    let start = platform::bytes_of_path(current_directory);
    let start = if path.starts_with(b"/") { &[] } else { start.as_ref() };
    for component in start.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name.to_vec()),
        }
    }
    components
}

/// `path` made absolute by its words alone, as raw bytes: what a snapshot calls it.
#[must_use]
pub fn absolute_path(path: &Path, current_directory: &Path) -> Vec<u8> {
    join(&absolute_components(path, current_directory))
}

fn join(components: &[Vec<u8>]) -> Vec<u8> {
    let mut path = Vec::new();
    for component in components {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The folder of a repository on local disk, known by its identity and those of the folders in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryFolder {
    identities: Vec<Identity>,
}

impl RepositoryFolder {
    /// Looks at the folder of a repository.
    ///
    /// Its sub-folders count too: one of them may be mounted elsewhere.
    ///
    /// # Errors
    /// [`Error::Source`] if it cannot be read.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let read = || {
            let folder = Directory::open(path)?;
            let mut identities = vec![folder.stat_self()?.identity()];
            let mut names = Names::default();
            folder.read_names(&mut names)?;
            for index in 0..names.len() {
                if let Ok(stat) = folder.stat(names.get(index).0)
                    && stat.is_directory()
                {
                    identities.push(stat.identity());
                }
            }
            Ok(Self { identities })
        };
        read().map_err(|source| Error::Source { path: path.display().to_string(), source })
    }

    /// Whether this is the folder or one in it. Never where the system gives no numbers to tell by.
    #[must_use]
    pub fn is(&self, identity: Identity) -> bool {
        identity.inode != 0 && self.identities.contains(&identity)
    }
}

/// What cannot be opened is not inside: the walk will say why it cannot be read.
fn is_inside(path: &Path, repository: &RepositoryFolder) -> bool {
    let Ok(mut directory) = Directory::open(path) else { return false };
    let mut below = None;
    loop {
        let Ok(stat) = directory.stat_self() else {
            return false;
        };
        if repository.is(stat.identity()) {
            return true;
        }
        // The parent of `/` is `/`.
        if below == Some(stat.identity()) {
            return false;
        }
        below = Some(stat.identity());
        match directory.open_parent() {
            Ok(parent) => directory = parent,
            Err(_) => return false,
        }
    }
}
