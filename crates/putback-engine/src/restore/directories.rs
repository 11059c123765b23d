//! Directories while planning: made, entered, and left with what does not belong there deleted.

use std::io;
use std::sync::Arc;

use putback_format::snapshot::IncidentKind;
use putback_format::tree::Entry;
use putback_repo::{Action, Event};

use crate::platform::{self, FileKind, Names, Stat, TargetDirectory, TargetMetadata};
use crate::restore::decide::{DirectoryDecision, decide_directory};
use crate::restore::delete::{Deleted, Deleting, delete, stat_if_there};
use crate::restore::folder::Folder;
use crate::restore::item::Failure;
use crate::restore::metadata::{Metadata, gives_acl};
use crate::restore::plan::{Level, LevelFolder, Planner};
use crate::restore::select::Wanted;
use crate::restore::unread::is_in;
use crate::restore::{Run, is_shell};
use crate::source::display_path;

impl Planner<'_> {
    pub(super) fn enter(&mut self, entry: Entry, wanted: Wanted) {
        let exists = self.pass(&entry.name);
        let Some(parent) = self.levels.last() else { return };
        if !platform::is_plain_name(&entry.name) {
            self.refuse_name();
            self.walk.skip();
            return;
        }
        let (outer, outer_device) = (parent.deleting, parent.device);
        let is_parent_ready = matches!(parent.folder, LevelFolder::Ready(_));
        let (device, is_shell) = (entry.device, is_shell(&entry, outer_device));
        let path = self.walk.path().to_vec();
        let is_entered =
            wanted != Wanted::Passage || (is_parent_ready && exists && !self.is_link(&entry.name));
        let level = if !is_entered {
            let entry = Box::new(entry);
            Some(Level::new(LevelFolder::Pending { entry, path, exists }, wanted))
        } else {
            self.ready_folder(self.levels.len() - 1)
                .and_then(|parent| self.enter_folder(&parent, exists, entry, wanted, path))
        };
        match level {
            Some(mut level) => {
                self.run.verified.note(self.walk.ordinal());
                level.device = device;
                if let LevelFolder::Ready(folder) = &level.folder
                    && self.run.options.delete
                    && !folder.is_new
                {
                    let here =
                        self.run.target.open(folder).and_then(|directory| directory.stat_self());
                    level.deleting = match here {
                        Ok(here) => self.run.deleting_in(outer, &folder.path, is_shell, &here),
                        Err(_) => Deleting::Never,
                    };
                }
                self.levels.push(level);
            }
            None => self.walk.skip(),
        }
    }

    /// Whether the target has `name` in the innermost directory.
    ///
    /// Where something is to be deleted, a name that was not listed is looked up: if it is there all the same, the file
    /// system takes two names for one, and what seems to be extra may be what the snapshot has.
    pub(super) fn pass(&mut self, name: &[u8]) -> bool {
        let Some(level) = self.levels.last_mut() else { return false };
        if level.pass(name) {
            return true;
        }
        if level.may_delete()
            && !level.names.is_empty()
            && let LevelFolder::Ready(folder) = &level.folder
            && self.run.target.open(folder).is_ok_and(|directory| directory.stat(name).is_ok())
        {
            level.deleting = Deleting::Never;
            let name = display_path(name);
            let why = format!(
                "'{name}' was not in its list, and is there; it was made just now, or is another \
                 file's name in other letters"
            );
            self.run.tell_not_deleted(&folder.path, &why);
        }
        false
    }

    /// The folder of a level, made now if it is pending; none if it cannot be, which was told.
    pub(super) fn ready_folder(&mut self, number: usize) -> Option<Arc<Folder>> {
        // From the outermost pending one inwards.
        let first = (0..=number).rev().take_while(|number| {
            matches!(self.levels[*number].folder, LevelFolder::Pending { .. })
        });
        let first = first.last().unwrap_or(number + 1);
        for pending in first..=number {
            let parent = match &self.levels[pending - 1].folder {
                LevelFolder::Ready(parent) => Some(Arc::clone(parent)),
                _ => None,
            };
            let LevelFolder::Pending { entry, path, exists } =
                std::mem::replace(&mut self.levels[pending].folder, LevelFolder::Blocked)
            else {
                continue;
            };
            let wanted = self.levels[pending].wanted;
            if let Some(parent) = parent
                && let Some(level) = self.enter_folder(&parent, exists, *entry, wanted, path)
            {
                self.levels[pending].folder = level.folder;
            }
        }
        match &self.levels[number].folder {
            LevelFolder::Ready(folder) => Some(Arc::clone(folder)),
            _ => None,
        }
    }

    /// Whether a symbolic link has this name in the innermost directory. That of a passage is never replaced.
    fn is_link(&self, name: &[u8]) -> bool {
        let Some(LevelFolder::Ready(folder)) = self.levels.last().map(|level| &level.folder) else {
            return false;
        };
        let found = self.run.target.open(folder).and_then(|directory| directory.stat(name));
        found.is_ok_and(|stat| stat.kind == FileKind::Symlink)
    }

    fn enter_folder(
        &mut self,
        parent: &Arc<Folder>,
        exists: bool,
        mut entry: Entry,
        wanted: Wanted,
        path: Vec<u8>,
    ) -> Option<Level> {
        let owner = self.owners.of(&entry);
        let metadata = Metadata::of(&mut entry, owner);
        match self.try_enter_folder(parent, exists, &entry, metadata, wanted, &path) {
            Ok(level) => level,
            Err((what, error)) => {
                let failure = self.run.target_failure(&path, what, error);
                self.run.problem(&path, &failure);
                None
            }
        }
    }

    fn try_enter_folder(
        &mut self,
        parent: &Arc<Folder>,
        exists: bool,
        entry: &Entry,
        metadata: Metadata,
        wanted: Wanted,
        path: &[u8],
    ) -> Result<Option<Level>, (&'static str, io::Error)> {
        let run = self.run;
        let name = entry.name.as_slice();
        // In a dry run, a new folder is nowhere.
        let parent_directory = if run.options.dry_run && parent.is_new {
            None
        } else {
            Some(run.target.open(parent).map_err(|error| ("open the folder around it", error))?)
        };
        let existing = match &parent_directory {
            Some(directory) if exists => {
                stat_if_there(directory, name).map_err(|error| ("look at what is there", error))?
            }
            _ => None,
        };
        let is_link = existing.is_some_and(|stat| stat.kind == FileKind::Symlink);
        if is_link && (wanted == Wanted::Passage || run.is_above_roots(path)) {
            let failure =
                Failure { kind: IncidentKind::Unreadable, message: run.link_on_the_way(path) };
            run.problem(path, &failure);
            return Ok(None);
        }
        let decision = decide_directory(run.options.overwrite, entry, existing.as_ref());
        match (decision, &parent_directory) {
            (DirectoryDecision::Skip, _) => {
                run.tell_entry(path, Action::Skipped, 0);
                return Ok(None);
            }
            (DirectoryDecision::Enter, Some(directory)) => {
                return enter_existing(
                    run, parent, directory, entry, existing, metadata, wanted, path,
                )
                .map(Some)
                .map_err(|error| ("open the folder that is there", error));
            }
            (DirectoryDecision::Replace, Some(directory)) if !run.options.dry_run => {
                directory
                    .remove_file(name)
                    .map_err(|error| ("remove what is in the way", error))?;
            }
            _ => {}
        }
        let made = match &parent_directory {
            Some(directory) if !run.options.dry_run => {
                Some(directory.create_child(name).map_err(|error| ("make the folder", error))?)
            }
            _ => None,
        };
        let gives_acl = parent.gives_acl;
        let folder = Folder::new(path.to_vec(), Some(parent), Some(metadata), true, gives_acl);
        if let Some(made) = made {
            run.target.keep(&folder, made);
        }
        run.observer.event(Event::Entry { path, action: Action::Restored, bytes: 0 });
        Ok(Some(Level::new(LevelFolder::Ready(folder), wanted)))
    }

    pub(super) fn leave(&mut self, is_complete: bool) {
        let Some(mut level) = self.levels.pop() else { return };
        let LevelFolder::Ready(folder) = &level.folder else { return };
        let folder = Arc::clone(folder);
        // If part of the directory cannot be read, nobody knows what belongs there.
        if level.may_delete() && is_complete {
            self.delete_extra(&folder, level.wanted, level.take_extra());
        }
        self.run.let_go(&folder);
    }

    fn delete_extra(&mut self, folder: &Arc<Folder>, wanted: Wanted, names: Vec<Box<[u8]>>) {
        if names.is_empty() {
            return;
        }
        match self.run.target.open(folder) {
            Ok(directory) => {
                let mut path = Vec::new();
                for name in names {
                    folder.write_path(&name, &mut path);
                    if delete(self.run, &directory, &name, &mut path, wanted) == Deleted::All {
                        folder.touch();
                    }
                }
            }
            Err(error) => {
                let failure = self.run.target_failure(&folder.path, "remove what is in it", error);
                self.run.problem(&folder.path, &failure);
            }
        }
    }

    pub(super) fn refuse_name(&mut self) {
        let message = "its name is not the name of a file here; it is left out".to_owned();
        let failure = Failure { kind: IncidentKind::Unreadable, message };
        self.run.problem(self.walk.path(), &failure);
    }
}

impl Run<'_> {
    /// Why nothing is restored below `path`, where the target has a symbolic link and the snapshot a folder that is only
    /// on the way to something: to replace the link would take away what it leads to, and to follow it could lead
    /// anywhere.
    fn link_on_the_way(&self, path: &[u8]) -> String {
        let root = self.roots().find(|root| is_in(root, path) && *root != path);
        let (why, example) = match root {
            Some(root) => (" here, as it may have been for the backup", root),
            None => (" here", path),
        };
        format!(
            "it is a symbolic link{why}; it is neither replaced nor followed, and nothing below it is restored: restore \
             that by itself, as SNAPSHOT:{} with --target and the real folder",
            display_path(example)
        )
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the tail of one function, which has them all at hand"
)]
fn enter_existing(
    run: &Run<'_>,
    parent: &Arc<Folder>,
    parent_directory: &TargetDirectory,
    entry: &Entry,
    existing: Option<Stat>,
    metadata: Metadata,
    wanted: Wanted,
    path: &[u8],
) -> io::Result<Level> {
    let name = entry.name.as_slice();
    let mut is_opened_up = false;
    if let Some(stat) = existing
        && !run.options.dry_run
        && platform::effective_uid() != 0
        && stat.uid == platform::effective_uid()
        && stat.mode & 0o700 != 0o700
    {
        // An earlier restore has closed it already. It gets its own permissions at the end.
        let opened_up = TargetMetadata {
            owner: None,
            mode: stat.mode | 0o700,
            xattrs: None,
            mtime: stat.mtime,
            flags: 0,
        };
        is_opened_up = parent_directory.apply_metadata(name, &opened_up)?.is_empty();
    }
    let directory = parent_directory.open_child(name)?;
    let mut names = Names::default();
    directory.read_names(&mut names)?;
    let gives_acl = gives_acl(&directory);
    let folder = Folder::new(path.to_vec(), Some(parent), Some(metadata), false, gives_acl);
    run.target.keep(&folder, directory);
    if wanted == Wanted::Yes || is_opened_up {
        folder.touch();
    }
    Ok(Level { names, ..Level::new(LevelFolder::Ready(folder), wanted) })
}
