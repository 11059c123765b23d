//! Goes through the source depth-first, each directory in the order of its raw names.
//!
//! [`Walker::next_step`] yields one [`Step`] at a time. Between an [`Step::Enter`] and its [`Step::Leave`] lies
//! everything in that directory. The first is always the directory `/`; of the directories above the roots
//! only what leads to a root is seen.
//!
//! Memory holds the open path only: a handle, the sorted names and the rules of each directory on it. Of the
//! handles at most [`HANDLES_MAX`] are kept; those further up are given back and reached again through `..`.
//!
//! Nothing that happens to one path ends the walk; it is a [`Step::Problem`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use putback_format::snapshot::IncidentKind;
use putback_format::tree::{Entry, EntryKind};

use crate::Error;
use crate::platform::{self, Directory, FileKind, Identity, Names, Stat, Users, Xattrs};
use crate::source::display_path;
use crate::source::filter::{DirectoryRules, Exclusion, Filter, IgnoreRules};
use crate::source::metadata::build_entry;
use crate::source::roots::{RootNode, Roots};

/// Open directories of a walk. A tree may be deeper than a process may open files.
pub const HANDLES_MAX: usize = 128;

/// One step of a walk. Paths are absolute; that of `/` is `/`.
#[derive(Debug)]
pub enum Step {
    /// A directory begins; its contents follow.
    Enter {
        /// Its path.
        path: Vec<u8>,
        /// Everything but its pages.
        entry: Box<Entry>,
        /// False for a directory that is there only because a root lies below it.
        is_wanted: bool,
    },
    /// The directory that was entered last and not left yet ends.
    Leave,
    /// Anything but a directory.
    Entry(Found),
    /// Something stays out. For a directory, so does all that is in it.
    Excluded {
        /// Its path. That of a directory whose contents stay out, where the reason is in there.
        path: Vec<u8>,
        /// Why.
        exclusion: Exclusion,
    },
    /// Something could not be read as it should have been.
    Problem {
        /// Its path.
        path: Vec<u8>,
        /// In what way.
        kind: IncidentKind,
        /// The cause, for a person.
        message: String,
    },
}

/// An entry that is not a directory, with the handle through which it can be read.
///
/// Keeps its directory open. Who collects many of them from many directories needs as many open files.
#[derive(Clone, Debug)]
pub struct Found {
    /// Absolute path.
    pub path: Vec<u8>,
    /// What the system says about it.
    pub stat: Stat,
    name_start: usize,
    directory: Arc<Directory>,
}

impl Found {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.path[self.name_start..]
    }

    /// The directory that holds it.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Opens the file for reading; see [`Directory::open_file`].
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn open(&self) -> io::Result<File> {
        self.directory.open_file(self.name())
    }

    /// Where the link points.
    ///
    /// # Errors
    /// The system's, without the path.
    pub fn read_link(&self) -> io::Result<Vec<u8>> {
        self.directory.read_link(self.name())
    }

    /// Extended attributes without opening it. For a file that is open, [`platform::file_xattrs`] is cheaper.
    #[must_use]
    pub fn xattrs(&self) -> Xattrs {
        self.directory.entry_xattrs(self.name())
    }
}

/// A walk that is under way.
#[derive(Debug)]
pub struct Walker {
    filter: Arc<Filter>,
    users: Arc<Users>,
    /// Taken when the walk begins.
    tree: Option<RootNode>,
    frames: Vec<Frame>,
    /// The innermost open directory; empty for `/`.
    path: Vec<u8>,
    /// Steps that were found together with one that was yielded.
    pending: VecDeque<Step>,
    /// Buffers of directories that were left.
    spare: Vec<Names>,
}

/// A directory on the open path.
#[derive(Debug)]
struct Frame {
    /// None once it was given back because too many were open.
    directory: Option<Arc<Directory>>,
    identity: Identity,
    /// Length of its path.
    path_length: usize,
    children: Children,
    /// Device of the root that it belongs to.
    root_device: u64,
    ignore: Option<Arc<IgnoreRules>>,
}

#[derive(Debug)]
enum Children {
    /// All, from `next` on.
    All { names: Names, next: usize },
    /// Those that lead to roots, or a single one that a tag leaves.
    Chosen(std::vec::IntoIter<RootNode>),
}

/// A name to look at.
struct Child {
    hint: Option<FileKind>,
    /// Set above the roots and for them.
    node: Option<RootNode>,
}

impl Walker {
    /// Prepares a walk; nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots, filter: Arc<Filter>, users: Arc<Users>) -> Self {
        Self {
            filter,
            users,
            tree: Some(roots.tree.clone()),
            frames: Vec::new(),
            path: Vec::new(),
            pending: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// The next step, none at the end.
    ///
    /// # Errors
    /// [`Error::Source`] if the process has run out of memory or open files, or cannot open `/`: whatever else
    /// happens concerns one path.
    pub fn next_step(&mut self) -> Result<Option<Step>, Error> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Ok(Some(step));
            }
            if let Some(tree) = self.tree.take() {
                self.enter_top(tree)?;
            } else if !self.frames.is_empty() {
                match self.next_child() {
                    Some(child) => {
                        self.visit(child)?;
                        self.restore_path();
                    }
                    None => self.leave()?,
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// Puts the next name of the innermost directory at the end of the path.
    fn next_child(&mut self) -> Option<Child> {
        let frame = self.frames.last_mut()?;
        match &mut frame.children {
            Children::All { names, next } => {
                if *next == names.len() {
                    return None;
                }
                let (name, hint) = names.get(*next);
                *next += 1;
                self.path.push(b'/');
                self.path.extend_from_slice(name);
                Some(Child { hint, node: None })
            }
            Children::Chosen(nodes) => {
                let node = nodes.next()?;
                self.path.push(b'/');
                self.path.extend_from_slice(&node.name);
                Some(Child { hint: None, node: Some(node) })
            }
        }
    }

    fn restore_path(&mut self) {
        self.path.truncate(self.frames.last().map_or(0, |frame| frame.path_length));
    }

    fn enter_top(&mut self, tree: RootNode) -> Result<(), Error> {
        let directory = Directory::open(Path::new("/")).map_err(|source| self.error(source))?;
        let stat = directory.stat_self().map_err(|source| self.error(source))?;
        self.enter(directory, &stat, Some(tree), stat.device)
    }

    /// Looks at the name at the end of the path.
    fn visit(&mut self, child: Child) -> Result<(), Error> {
        let Some(frame) = self.frames.last() else {
            return Ok(());
        };
        let Some(parent) = frame.directory.clone() else {
            return Ok(());
        };
        let name_start = frame.path_length + 1;
        let root_device = frame.root_device;

        if let Some(kind) = child.hint
            && self.is_excluded_by_name(kind == FileKind::Directory)
        {
            return Ok(());
        }
        let is_passage = child.node.as_ref().is_some_and(|node| !node.is_root);
        if is_passage {
            return self.visit_passage(&parent, name_start, child);
        }
        // A name that must not be opened before its device is known is asked about first: an automatic mount
        // would start. Everything else saves that call.
        if child.hint == Some(FileKind::Directory)
            && !self.filter.is_one_file_system()
            && let Ok(directory) = parent.open_child(&self.path[name_start..])
        {
            return self.enter_opened(directory, None, root_device);
        }
        let stat = match parent.stat(&self.path[name_start..]) {
            Ok(stat) => stat,
            Err(error) => return self.report(error),
        };
        // The kind that was guessed from the listing may be none, or no longer true.
        if child.hint != Some(stat.kind) && self.is_excluded_by_name(stat.is_directory()) {
            return Ok(());
        }
        let root_device = if child.node.is_some() { stat.device } else { root_device };
        let exclusion = self.filter.decide_stat(&stat, root_device);
        if !stat.is_directory() {
            let path = self.path.clone();
            self.pending.push_back(match exclusion {
                Some(exclusion) => Step::Excluded { path, exclusion },
                None => Step::Entry(Found { path, stat, name_start, directory: parent }),
            });
            return Ok(());
        }
        match exclusion {
            Some(exclusion) => {
                let name = self.path[name_start..].to_vec();
                self.leave_out(exclusion, &stat, || parent.entry_xattrs(&name));
                Ok(())
            }
            None => self.open_and_enter(&parent, name_start, &stat, child.node, root_device),
        }
    }

    /// Tells that a directory stays out. A mount point belongs to the tree that it is in, what is mounted there
    /// does not.
    fn leave_out(&mut self, exclusion: Exclusion, stat: &Stat, xattrs: impl FnOnce() -> Xattrs) {
        let is_kept_empty = exclusion == Exclusion::OtherFileSystem;
        self.pending.push_back(Step::Excluded { path: self.path.clone(), exclusion });
        if is_kept_empty {
            self.enter_empty(stat, xattrs());
        }
    }

    fn open_and_enter(
        &mut self,
        parent: &Directory,
        name_start: usize,
        stat: &Stat,
        node: Option<RootNode>,
        root_device: u64,
    ) -> Result<(), Error> {
        let directory = match parent.open_child(&self.path[name_start..]) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let xattrs = parent.entry_xattrs(&self.path[name_start..]);
                self.report(error)?;
                self.enter_empty(stat, xattrs);
                return Ok(());
            }
            Err(error) => return self.report(error),
        };
        self.enter_opened(directory, node, root_device)
    }

    /// Asks the handle rather than the name: another directory may have taken the name meanwhile, or something
    /// was mounted there.
    fn enter_opened(
        &mut self,
        directory: Directory,
        node: Option<RootNode>,
        root_device: u64,
    ) -> Result<(), Error> {
        let stat = match directory.stat_self() {
            Ok(stat) => stat,
            Err(error) => return self.report(error),
        };
        // Opening a root may have mounted it.
        let root_device = if node.is_some() { stat.device } else { root_device };
        if let Some(exclusion) = self.filter.decide_stat(&stat, root_device) {
            self.leave_out(exclusion, &stat, || directory.xattrs());
            return Ok(());
        }
        self.enter(directory, &stat, node, root_device)
    }

    /// Goes on towards a root, through links if need be.
    fn visit_passage(
        &mut self,
        parent: &Directory,
        name_start: usize,
        child: Child,
    ) -> Result<(), Error> {
        let opened = parent.open_passage(&self.path[name_start..], true);
        let opened =
            opened.and_then(|directory| directory.stat_self().map(|stat| (directory, stat)));
        match opened {
            Ok(_) if self.is_excluded_by_name(true) => Ok(()),
            Ok((directory, stat)) => self.enter(directory, &stat, child.node, stat.device),
            Err(error) => self.report(error),
        }
    }

    /// Enters an open directory: all of it, or only towards roots if `node` has children.
    fn enter(
        &mut self,
        directory: Directory,
        stat: &Stat,
        node: Option<RootNode>,
        root_device: u64,
    ) -> Result<(), Error> {
        let is_wanted = node.as_ref().is_none_or(|node| node.is_root);
        let outer = self.frames.last().and_then(|frame| frame.ignore.clone());
        let mut ignore = None;
        let mut excluded = None;
        let children = if is_wanted {
            let mut names = self.spare.pop().unwrap_or_default();
            if let Err(error) = directory.read_names(&mut names) {
                let is_gone = error.kind() == io::ErrorKind::NotFound;
                self.report(error)?;
                if is_gone {
                    return Ok(());
                }
            }
            let rules =
                self.filter.inspect_directory(&self.path, &directory, &names, outer.as_ref());
            let DirectoryRules { only, ignore: inner } = rules;
            ignore = inner;
            match only {
                Some((name, exclusion)) => {
                    excluded = Some(exclusion);
                    self.keep_buffer(names);
                    let tag = RootNode { name, is_root: true, children: Vec::new() };
                    Children::Chosen(vec![tag].into_iter())
                }
                None => Children::All { names, next: 0 },
            }
        } else {
            Children::Chosen(node.map(|node| node.children).unwrap_or_default().into_iter())
        };

        let xattrs = directory.xattrs();
        self.push_enter(stat, xattrs, is_wanted);
        if let Some(exclusion) = excluded {
            self.pending.push_back(Step::Excluded { path: self.displayed_path(), exclusion });
        }
        self.frames.push(Frame {
            directory: Some(Arc::new(directory)),
            identity: stat.identity(),
            path_length: self.path.len(),
            children,
            root_device,
            ignore,
        });
        if let Some(index) = self.frames.len().checked_sub(HANDLES_MAX + 1) {
            self.frames[index].directory = None;
        }
        Ok(())
    }

    /// A directory of which nothing but itself is kept.
    fn enter_empty(&mut self, stat: &Stat, xattrs: Xattrs) {
        self.push_enter(stat, xattrs, true);
        self.pending.push_back(Step::Leave);
    }

    fn push_enter(&mut self, stat: &Stat, xattrs: Xattrs, is_wanted: bool) {
        let path = self.displayed_path();
        if let Some(message) = xattrs.problem {
            let kind = IncidentKind::MetadataIncomplete;
            self.pending.push_back(Step::Problem { path: path.clone(), kind, message });
        }
        let name_start =
            self.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let kind = EntryKind::Directory { pages: Vec::new() };
        let entry = build_entry(&self.path[name_start..], stat, kind, xattrs.list, &self.users);
        self.pending.push_back(Step::Enter { path, entry: Box::new(entry), is_wanted });
    }

    fn leave(&mut self) -> Result<(), Error> {
        let Some(left) = self.frames.pop() else {
            return Ok(());
        };
        self.pending.push_back(Step::Leave);
        self.restore_path();
        if let Children::All { names, .. } = left.children {
            self.keep_buffer(names);
        }
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        if frame.directory.is_some() {
            return Ok(());
        }
        let reopened =
            reopen(left.directory.as_deref(), &self.path[..frame.path_length], frame.identity);
        match reopened {
            Ok(directory) => {
                frame.directory = Some(Arc::new(directory));
                Ok(())
            }
            Err(error) => {
                // What was not seen yet cannot be reached any more.
                frame.children = Children::Chosen(Vec::new().into_iter());
                self.report(error)
            }
        }
    }

    fn keep_buffer(&mut self, mut names: Names) {
        const BUFFERS_MAX: usize = 32;
        if self.spare.len() < BUFFERS_MAX {
            names.clear();
            self.spare.push(names);
        }
    }

    fn is_excluded_by_name(&mut self, is_directory: bool) -> bool {
        let ignore = self.frames.last().and_then(|frame| frame.ignore.as_deref());
        let Some(exclusion) = self.filter.decide_name(&self.path, is_directory, ignore) else {
            return false;
        };
        self.pending.push_back(Step::Excluded { path: self.path.clone(), exclusion });
        true
    }

    /// Tells what happened to the path, unless it would happen to all others as well.
    fn report(&mut self, error: io::Error) -> Result<(), Error> {
        if platform::is_exhaustion(&error) {
            return Err(self.error(error));
        }
        let kind = match error.kind() {
            io::ErrorKind::NotFound => IncidentKind::Vanished,
            _ => IncidentKind::Unreadable,
        };
        let message = if platform::is_not_a_directory(&error) {
            // The name was one a moment ago.
            "it was replaced while it was read".to_owned()
        } else {
            error.to_string()
        };
        self.pending.push_back(Step::Problem { path: self.displayed_path(), kind, message });
        Ok(())
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Source { path: display_path(&self.path), source }
    }

    fn displayed_path(&self) -> Vec<u8> {
        if self.path.is_empty() { b"/".to_vec() } else { self.path.clone() }
    }
}

/// Opens a directory whose handle was given back: as the parent of `below`, or, if that was moved, by its path.
/// Whichever way it is found, it must be the same directory.
fn reopen(below: Option<&Directory>, path: &[u8], identity: Identity) -> io::Result<Directory> {
    let is_same =
        |directory: &Directory| directory.stat_self().is_ok_and(|stat| stat.identity() == identity);
    if let Some(Ok(parent)) = below.map(Directory::open_parent)
        && is_same(&parent)
    {
        return Ok(parent);
    }
    let mut directory = Directory::open(Path::new("/"))?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        directory = directory.open_passage(name, true)?;
    }
    if is_same(&directory) {
        return Ok(directory);
    }
    Err(io::Error::other("the directory was moved while it was read"))
}
